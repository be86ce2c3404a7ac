//! The way to a target: names looked up, each address tried, and errors in the words that Consul's users know.

use std::io;

use tokio::net::TcpStream;

use super::probe::Finding;

/// Why a target was not reached.
#[derive(Debug)]
pub(super) struct Unreached {
    pub(super) text: String,
    /// Somebody is there and said that nobody listens.
    pub(super) refused: bool,
}

/// Connects to `host:port` (a name, an IPv4 address, or an IPv6 address in brackets); the first address that
/// answers. No time limit of its own.
pub(super) async fn tcp(address: &str) -> Result<TcpStream, Unreached> {
    let found = tokio::net::lookup_host(address).await.map_err(|e| Unreached {
        text: format!("dial tcp: lookup {address}: {e}"),
        refused: false,
    })?;
    let mut last = None;
    for target in found {
        match TcpStream::connect(target).await {
            Ok(stream) => {
                // Requests of probes are small and their answers wanted at once.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Some((target, error)),
        }
    }
    Err(match last {
        Some((target, error)) => {
            let refused = error.kind() == io::ErrorKind::ConnectionRefused;
            let why = if refused { "connection refused".to_owned() } else { error.to_string() };
            Unreached { text: format!("dial tcp {target}: connect: {why}"), refused }
        }
        None => Unreached { text: format!("dial tcp: lookup {address}: no such host"), refused: false },
    })
}

impl From<Unreached> for Finding {
    fn from(Unreached { text, refused }: Unreached) -> Self {
        Self { refused, ..Self::critical(text) }
    }
}
