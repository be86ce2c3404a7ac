//! Connections: how many, from whom, and for how long they may be idle.
//!
//! An accept loop of our own under axum's router, because the limits are on connections: in total,
//! for each client address, and in time. A client that sends its head slowly or nothing at all is cut off.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caller::Peer;
use super::{Config, State};

/// How long open requests get to end at a shutdown.
const GRACE: Duration = Duration::from_secs(2);
/// At the shutdown, how long a kept connection may be silent before it is closed: a request that its client sent before it
/// could know is answered, and the answer says that it is the last one (RFC 9112 section 9.6).
const LAST_REQUESTS: Duration = Duration::from_millis(100);
/// The pause after an accept that failed (too many open files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How many connections there are, by client.
#[derive(Default)]
struct Places {
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One place; given back when dropped.
struct Place {
    all: Arc<Places>,
    client: IpAddr,
}

impl Places {
    /// A place, or the key of the limit that is reached, and what it allows.
    fn take(self: &Arc<Self>, client: IpAddr, config: &Config) -> Result<Place, (&'static str, usize)> {
        let mut taken = self.taken.lock();
        let total: usize = taken.values().sum();
        let own = taken.get(&client).copied().unwrap_or(0);
        if total >= config.connections_max {
            return Err(("connections_max", config.connections_max));
        }
        if own >= config.connections_per_client_max {
            return Err(("connections_per_client_max", config.connections_per_client_max));
        }
        taken.insert(client, own + 1);
        Ok(Place { all: self.clone(), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.all.taken.lock();
        match taken.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.client)),
        }
    }
}

/// Ends a request's connection where it stands, for who sends to a client that does not read.
#[derive(Debug, Clone)]
pub(super) struct Cut(pub(super) CancellationToken);

/// Accepts until the shutdown, then lets open requests end for a moment.
pub(super) async fn accept(listener: TcpListener, routes: Router, state: Arc<State>) {
    let places = Arc::new(Places::default());
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = state.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                state.metrics.http.refused("accept");
                tracing::debug!("accepting an HTTP connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(local) = stream.local_addr() else { continue };
        let peer = Peer { remote, local };
        let config = state.config.load_full();
        let place = match places.take(peer.address(), &config) {
            Ok(place) => place,
            Err((key, max)) => {
                state.metrics.http.refused("connections");
                turn_away(&stream, key, max);
                continue;
            }
        };
        let (routes, state) = (routes.clone(), state.clone());
        tasks.spawn(async move {
            state.metrics.http.connections.inc();
            converse(stream, peer, routes, &config, &state).await;
            state.metrics.http.connections.dec();
            drop(place);
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
}

/// Says why, as far as that takes no waiting: a client with no place gets no time either.
fn turn_away(stream: &TcpStream, key: &str, max: usize) {
    let text = format!("{max} connections are open already; close some, or raise [http] {key}");
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    // A socket that was just accepted has room for it.
    let _ = socket2::SockRef::from(stream).send(answer.as_bytes());
}

/// Serves one connection to its end.
async fn converse(stream: TcpStream, peer: Peer, routes: Router, config: &Config, state: &State) {
    // Answers are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let cut = Cut(CancellationToken::new());
    let cutting = cut.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(cut.clone());
        let mut routes = routes.clone();
        async move {
            let answer = tower_service::Service::call(&mut routes, request.map(axum::body::Body::new)).await;
            let mut answer = answer.unwrap_or_else(|never| match never {});
            if state.shutdown.is_cancelled() {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.idle)
        .max_headers(100)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let last = async {
        state.shutdown.cancelled().await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cutting.0.cancelled() => return,
        () = last => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if error.is_timeout() {
            state.metrics.http.refused("idle");
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
        let places = Arc::new(Places::default());
        let client = |last: u8| IpAddr::from([10, 0, 0, last]);
        let first = places.take(client(1), &config);
        let second = places.take(client(1), &config);
        let refused = |last: u8| places.take(client(last), &config).err();
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(refused(1), Some(("connections_per_client_max", 2)));
        let third = places.take(client(2), &config);
        assert!(third.is_ok());
        assert_eq!(refused(3), Some(("connections_max", 3)));
        drop((first, second, third));
        assert!(places.taken.lock().is_empty());
    }
}
