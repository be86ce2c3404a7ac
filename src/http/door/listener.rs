//! What the API is served on: TCP, TLS over TCP, and Unix sockets; and the handshake.
//!
//! A handshake is bounded before anything of HTTP is there: in time, in how many there are at once, and in how many of them
//! are one client's. Who shows a certificate that does not let it in is told so by TLS; the log names the reason.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::caller::{Over, Peer};
use super::connection::Bounds;
use crate::http::State;
use crate::tls::{self, Refused, Session};

/// The least time between two lines about refused clients: one that tries again and again must not fill the log.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// Something that is listened on.
pub enum Listener {
    Plain(TcpListener),
    Tls(TcpListener, Arc<tls::Server>),
    Unix(UnixListener),
}

/// A connection as it is accepted.
pub(in crate::http) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    pub(in crate::http) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        let (listener, over) = match self {
            Self::Plain(listener) => (listener, Over::Tcp),
            Self::Tls(listener, _) => (listener, Over::Tls),
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // Whoever may open a file here is on this machine.
                let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                return Ok((Socket::Unix(stream), Peer { remote: here, local: here, over: Over::Unix }));
            }
        };
        let (stream, remote) = listener.accept().await?;
        let local = stream.local_addr()?;
        Ok((Socket::Tcp(stream), Peer { remote, local, over }))
    }
}

/// Refused handshakes: when the last one was told of.
#[derive(Default)]
pub(in crate::http) struct Said(Mutex<(Option<Instant>, u64)>);

impl Said {
    /// Whether it is time to tell of one, and of how many nothing was said since the last.
    fn next(&self) -> Option<u64> {
        let mut said = self.0.lock();
        let (last, silent) = &mut *said;
        if last.is_some_and(|last| last.elapsed() < SAID_EVERY) {
            *silent += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(silent))
    }
}

/// The handshake within its bounds; `None` when nothing comes of it.
pub(in crate::http) async fn handshake(
    stream: TcpStream,
    peer: Peer,
    server: &tls::Server,
    state: &State,
) -> Option<(TlsStream<TcpStream>, Session)> {
    let config = state.config.load_full();
    let bounds = Bounds {
        all: ("handshakes_max", config.handshakes_max),
        client: ("handshakes_per_client_max", config.handshakes_per_client_max),
    };
    let _place = match state.open.handshakes.take(peer.address(), &bounds) {
        Ok(place) => place,
        Err((key, _)) => {
            state.metrics.limits.hit(key);
            return None;
        }
    };
    match tokio::time::timeout(config.handshake_wait, server.accept(stream)).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(why)) => {
            turned_away(&why, peer, state);
            None
        }
        Err(_) => {
            state.metrics.http.refused("slow handshake");
            None
        }
    }
}

/// Counts a client that TLS does not let in, or not any more, and tells of it.
pub(in crate::http) fn turned_away(why: &Refused, peer: Peer, state: &State) {
    let (kind, said, words) = match why {
        Refused::Revoked => (
            "revoked certificate",
            &state.open.said_revoked,
            "the client's certificate was revoked by its authority",
        ),
        Refused::Because(words) => ("handshake", &state.open.said, words.as_str()),
    };
    state.metrics.http.refused(kind);
    match said.next() {
        Some(silent) => tracing::warn!(client = %peer.remote, silent, "HTTPS: {words}"),
        None => tracing::debug!(client = %peer.remote, "HTTPS: {words}"),
    }
}
