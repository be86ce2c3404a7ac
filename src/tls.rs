//! Certificates and client settings.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::model::ProbeTls;

/// Why there are no client settings.
#[derive(Debug, thiserror::Error)]
#[error("to come")]
pub struct TlsError;

/// Client settings.
pub struct Clients;

impl Clients {
    pub fn new() -> Result<Self, TlsError> {
        Ok(Self)
    }

    pub async fn stream(
        &self,
        _: TcpStream,
        _: &str,
        _: &ProbeTls,
        _: &[&[u8]],
    ) -> Result<TlsStream<TcpStream>, String> {
        Err("TLS: not built yet".to_owned())
    }
}
