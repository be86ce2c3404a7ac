//! Connections: how many, from whom, and for how long they may be idle.
//!
//! An accept loop of our own under axum's router, because the limits are on connections: in total,
//! for each client address, and in time. A client that sends its head slowly or nothing at all is cut off.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::caller::{Over, Peer};
use super::listener::{self, Listener, Said, Socket};
use super::origin::Certificate;
use super::parked;
use super::rate::Rates;
use crate::http::{Config, State};
use crate::tls::{Refused, Session};

/// How long open requests get to end at a shutdown.
const GRACE: Duration = Duration::from_secs(2);
/// At the shutdown, how long a kept connection may be silent before it is closed: a request that its client sent before it
/// could know is answered, and the answer says that it is the last one (RFC 9112 section 9.6).
const LAST_REQUESTS: Duration = Duration::from_millis(100);
/// What may wait in a TCP socket that its client has no room for yet. The system says that there is room again when half of it is
/// gone; without a bound that is a third of some megabytes, and a client that reads steadily, but slowly, looks like one that does
/// not read.
const UNSENT_OCTETS_MAX: u32 = 64 * 1024;
/// The pause after an accept that failed (too many open files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What is open on all listeners together.
#[derive(Default)]
pub struct Open {
    pub(in crate::http) connections: Arc<Places>,
    pub(in crate::http) handshakes: Arc<Places>,
    pub(in crate::http) rates: Rates,
    pub(in crate::http) said: Said,
    /// Of revoked certificates, which other refusals must not keep out of the log.
    pub(in crate::http) said_revoked: Said,
}

/// How many of something there are, by client.
#[derive(Default)]
pub(in crate::http) struct Places {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// Limits with their keys.
pub(in crate::http) struct Bounds {
    pub(in crate::http) all: (&'static str, usize),
    pub(in crate::http) client: (&'static str, usize),
}

/// One place; given back when dropped.
pub(in crate::http) struct Place {
    all: Arc<Places>,
    client: IpAddr,
}

impl Places {
    /// A place, or the limit that is reached.
    pub(in crate::http) fn take(
        self: &Arc<Self>,
        client: IpAddr,
        bounds: &Bounds,
    ) -> Result<Place, (&'static str, usize)> {
        let mut taken = self.taken.lock();
        let own = taken.by_client.get(&client).copied().unwrap_or(0);
        if taken.all >= bounds.all.1 {
            return Err(bounds.all);
        }
        if own >= bounds.client.1 {
            return Err(bounds.client);
        }
        taken.all += 1;
        taken.by_client.insert(client, own + 1);
        Ok(Place { all: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.all.taken.lock();
        taken.all -= 1;
        match taken.by_client.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.by_client.remove(&self.client)),
        }
    }
}

fn bounds(config: &Config) -> Bounds {
    Bounds {
        all: ("connections_max", config.connections_max),
        client: ("connections_per_client_max", config.connections_per_client_max),
    }
}

/// Accepts until the shutdown, then lets open requests end for a moment.
pub(in crate::http) async fn accept(listener: Listener, routes: Router, state: Arc<State>) {
    let listener = Arc::new(listener);
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = state.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            // It went before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => continue,
            Err(error) => {
                state.metrics.http.refused("accept");
                tracing::debug!("accepting an HTTP connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let config = state.config.load_full();
        let place = match state.open.connections.take(peer.address(), &bounds(&config)) {
            Ok(place) => place,
            Err((key, max)) => {
                state.metrics.limits.hit(key);
                turn_away(&socket, peer, key, max);
                continue;
            }
        };
        let (listener, routes, state) = (listener.clone(), routes.clone(), state.clone());
        tasks.spawn(async move {
            state.metrics.http.connections.inc();
            serve(socket, peer, &listener, routes, &config, &state).await;
            state.metrics.http.connections.dec();
            drop(place);
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
}

/// Serves one connection as its listener speaks.
async fn serve(
    socket: Socket,
    peer: Peer,
    listener: &Listener,
    routes: Router,
    config: &Config,
    state: &State,
) {
    match (socket, listener) {
        (Socket::Tcp(stream), Listener::Tls(_, server)) => {
            adjust(&stream);
            // In a box: it is large, and over when the connection begins.
            let handshake = Box::pin(async {
                tokio::select! {
                    handshake = listener::handshake(stream, peer, server, state) => handshake,
                    () = state.shutdown.cancelled() => None,
                }
            });
            let handshake = handshake.await;
            if let Some((stream, session)) = handshake {
                // In a box: the settings of TLS make it large.
                let stream: Box<dyn Stream> = Box::new(stream);
                converse(stream, peer, Some(session), routes, config, state).await;
            }
        }
        (Socket::Tcp(stream), _) => {
            adjust(&stream);
            converse(stream, peer, None, routes, config, state).await;
        }
        (Socket::Unix(stream), _) => {
            let stream: Box<dyn Stream> = Box::new(stream);
            converse(stream, peer, None, routes, config, state).await;
        }
    }
}

fn adjust(stream: &TcpStream) {
    // Answers are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_OCTETS_MAX);
}

/// What HTTP can be spoken on.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Says why, as far as that takes no waiting: a client with no place gets no time either.
fn turn_away(socket: &Socket, peer: Peer, key: &str, max: usize) {
    let text = format!("{max} connections are open already; close some, or raise [http] {key}");
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    // A socket that was just accepted has room for it. Before a handshake nothing can be said.
    let _ = match socket {
        Socket::Tcp(_) if peer.over == Over::Tls => return,
        Socket::Tcp(stream) => socket2::SockRef::from(stream).send(answer.as_bytes()),
        Socket::Unix(stream) => socket2::SockRef::from(stream).send(answer.as_bytes()),
    };
}

/// Waits until TLS does not let the client stay.
fn expelled(session: Option<Session>) -> BoxFuture<'static, Refused> {
    match session {
        Some(mut session) => Box::pin(async move { session.expelled().await }),
        None => Box::pin(std::future::pending()),
    }
}

/// Serves one connection to its end.
async fn converse(
    stream: impl Stream + 'static,
    peer: Peer,
    session: Option<Session>,
    routes: Router,
    config: &Config,
    state: &State,
) {
    let shutdown = state.shutdown.clone();
    let certificate = session.as_ref().and_then(Session::subject).map(|subject| Certificate(subject.into()));
    let ask = move |mut request: Request<Incoming>| -> BoxFuture<'static, Response> {
        request.extensions_mut().insert(ConnectInfo(peer));
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        let (mut routes, shutdown) = (routes.clone(), shutdown.clone());
        Box::pin(async move {
            let answer = tower_service::Service::call(&mut routes, request.map(axum::body::Body::new)).await;
            let mut answer = answer.unwrap_or_else(|never| match never {});
            if shutdown.is_cancelled() {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        })
    };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(config.idle).max_headers(100);
    let connection = parked::Connection::new(stream, config.write_wait, builder, Arc::new(ask));
    tokio::pin!(connection);
    let expelled = expelled(session);
    let last = async {
        state.shutdown.cancelled().await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        why = expelled => {
            listener::turned_away(&why, peer, state);
            return;
        }
        () = last => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if error.is_timeout() {
            state.metrics.http.refused("idle");
        } else if parked::was_not_read(&error) {
            state.metrics.http.refused("slow reader");
        }
        tracing::debug!(client = %peer.remote, "HTTP connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_total_and_by_client_and_come_back() {
        let config = Config { connections_max: 3, connections_per_client_max: 2, ..Config::for_tests() };
        let (places, bounds) = (Arc::new(Places::default()), bounds(&config));
        let client = |last: u8| IpAddr::from([10, 0, 0, last]);
        let first = places.take(client(1), &bounds);
        let second = places.take(client(1), &bounds);
        let refused = |last: u8| places.take(client(last), &bounds).err();
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(refused(1), Some(("connections_per_client_max", 2)));
        let third = places.take(client(2), &bounds);
        assert!(third.is_ok());
        assert_eq!(refused(3), Some(("connections_max", 3)));
        drop((first, second, third));
        let taken = places.taken.lock();
        assert!(taken.by_client.is_empty() && taken.all == 0);
    }
}
