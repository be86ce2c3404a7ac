//! Certificates and client settings.
//!
//! Probes speak TLS 1.2 and 1.3 with one provider, named here and nowhere set for the process. The system's roots are
//! read once, at the start; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. A machine without roots starts all the same:
//! what needs no verification works, all else says what is missing.
//!
//! [`Server`] is the other side: the listener of the API. [`ApiTls`] is for our own commands, which ask such a server.
//!
//! No session of a probe is resumed: in a resumed one the target shows no certificate, so one that expired would pass for as long
//! as the ticket lives.

#[cfg(test)]
pub(crate) mod authority;
mod client;
mod server;
mod subject;
mod unverified;
mod validity;
mod words;

pub use client::{ApiFiles, ApiTls};
pub use server::{FileError, Files, Loaded, Refused, Server, Session, Version};
pub use words::refusal;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use self::unverified::AnyCertificate;
use crate::model::ProbeTls;

/// Why there are no client settings.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The provider offers neither of the versions, which no input can bring about.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[from] rustls::Error),
}

/// Settings of TLS clients, made when first asked for.
pub struct Clients {
    /// Why there is none is for who needs it.
    verified: Result<ClientConfig, String>,
    unverified: ClientConfig,
    /// By whether certificates are not verified, and the protocols offered.
    made: Mutex<HashMap<(bool, Protocols), Arc<ClientConfig>>>,
}

/// ALPN names (RFC 7301), the preferred first.
type Protocols = &'static [&'static [u8]];

impl Clients {
    /// Reads the system's roots. Takes some milliseconds and reads files.
    pub fn new() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        for problem in &found.errors {
            tracing::warn!("root certificates: {problem}");
        }
        let mut roots = RootCertStore::empty();
        let (_, unusable) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(roots = roots.len(), unusable, "root certificates");
        Self::with_roots(roots)
    }

    /// Settings that trust these roots.
    pub(crate) fn with_roots(roots: RootCertStore) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let any = Arc::new(AnyCertificate::new(&provider));
        let unverified = settings(&provider, any)?;
        let verified = if roots.is_empty() {
            Err("no certificate can be verified, because this machine has no root certificates \
                 (install ca-certificates or set SSL_CERT_FILE, and restart; TLSSkipVerify does without)"
                .to_owned())
        } else {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            match verifier {
                Ok(verifier) => Ok(settings(&provider, verifier)?),
                Err(error) => Err(format!("the root certificates cannot be used: {error}")),
            }
        };
        Ok(Self { verified, unverified, made: Mutex::default() })
    }

    /// The handshake with `host` (a name or an address, in brackets or not). Offers the protocols in `alpn`; none are
    /// offered when empty, and a target that chooses none is accepted. An error is a sentence for an operator. No time
    /// limit of its own.
    pub async fn stream(
        &self,
        stream: TcpStream,
        host: &str,
        tls: &ProbeTls,
        alpn: &'static [&'static [u8]],
    ) -> Result<TlsStream<TcpStream>, String> {
        let wanted = if tls.server_name.is_empty() { host } else { &tls.server_name };
        let failed = |why: String| format!("TLS handshake with {wanted}: {why}");
        let name = server_name(wanted).map_err(failed)?;
        let config = self.config(tls.skip_verify, alpn).map_err(failed)?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        handshake.await.map_err(|error| failed(words::explain(&error)))
    }

    fn config(&self, skip_verify: bool, alpn: Protocols) -> Result<Arc<ClientConfig>, String> {
        let mut made = self.made.lock();
        if let Some(config) = made.get(&(skip_verify, alpn)) {
            return Ok(config.clone());
        }
        let mut config = if skip_verify { self.unverified.clone() } else { self.verified.as_ref()?.clone() };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let config = Arc::new(config);
        made.insert((skip_verify, alpn), config.clone());
        Ok(config)
    }
}

fn settings(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        // Called so whatever the verifier is.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// What the certificate has to be for. RFC 6066 section 3: a name is sent without its trailing dot, an address not at all.
fn server_name(wanted: &str) -> Result<ServerName<'static>, String> {
    let bare = wanted.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(wanted);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    // A zone says where the target is, not who.
    let bare = bare.split_once('%').map_or(bare, |(address, _)| address);
    ServerName::try_from(bare.to_owned())
        .map_err(|_| format!("{wanted:?} is neither a host name nor an address (TLSServerName names one)"))
}

#[cfg(test)]
mod tests;
