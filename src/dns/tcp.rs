//! TCP: many queries on a connection (RFC 7766), and limits on everything that a client can hold on to.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::State;
use super::query_log;
use super::respond::{Outcome, Reply, Transport};
use crate::registry::readers::Held;

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub connections_max: usize,
    pub connections_per_client_max: usize,
    /// Queries of one connection that wait for others' answers.
    pub in_flight_max: usize,
    /// How long a connection may be silent between queries.
    pub idle: Duration,
    /// How long one query may take to arrive, or one answer to be taken.
    pub transfer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_client_max: 1_000,
            in_flight_max: 64,
            idle: Duration::from_secs(10),
            transfer: Duration::from_secs(5),
        }
    }
}

/// Answers that wait to be written; the reader waits when it is full.
const ANSWERS_WAITING_MAX: usize = 32;
/// At the shutdown, how long a connection may be silent before it is closed: what its client sent before it could know is
/// answered.
const LAST_QUERIES: Duration = Duration::from_millis(100);
/// At the shutdown, how long a connection that is never silent is served.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// The pause after an accept that failed (too many open files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How many connections there are, by client, over all listeners.
#[derive(Default)]
pub(super) struct Places {
    taken: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

impl Places {
    /// Errs with the key of the limit that is reached.
    fn take(&self, client: IpAddr, limits: &Limits) -> Result<(), &'static str> {
        let (total, clients) = &mut *self.taken.lock();
        if *total >= limits.connections_max {
            return Err("tcp_connections_max");
        }
        if clients.get(&client).copied().unwrap_or(0) >= limits.connections_per_client_max {
            return Err("tcp_connections_per_client_max");
        }
        *clients.entry(client).or_insert(0) += 1;
        *total += 1;
        Ok(())
    }

    fn give_back(&self, client: IpAddr) {
        let (total, clients) = &mut *self.taken.lock();
        *total -= 1;
        if let Some(own) = clients.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// Accepts until the shutdown.
pub(super) async fn serve(listener: TcpListener, places: Arc<Places>, state: Arc<State>) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = state.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("accepting a DNS connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let ip = client.ip().to_canonical();
        let limits = state.settings.load().tcp;
        if let Err(key) = places.take(ip, &limits) {
            state.metrics.limits.hit(key);
            continue;
        }
        let (state, places) = (state.clone(), places.clone());
        tasks.spawn(async move {
            state.metrics.dns.tcp_connections.inc();
            // Answers are whole messages and wanted at once.
            let _ = stream.set_nodelay(true);
            let (read, write) = stream.into_split();
            tokio::select! {
                () = after(&state.shutdown, CLOSE_WITHIN) => {}
                () = converse(read, write, client, &limits, &state) => {}
            }
            state.metrics.dns.tcp_connections.dec();
            places.give_back(ip);
        });
    }
    tasks.close();
    tasks.wait().await;
}

/// Returns some time after the shutdown.
async fn after(shutdown: &CancellationToken, time: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(time).await;
}

/// One connection: reads queries and answers each as soon as it can, in whatever order (RFC 7766 section 6.2.1.1).
async fn converse<R, W>(mut read: R, write: W, client: SocketAddr, limits: &Limits, state: &Arc<State>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (answers, queue) = mpsc::channel(ANSWERS_WAITING_MAX);
    let writing = tokio::spawn(write_all(write, queue, limits.transfer));
    let places = Arc::new(Semaphore::new(limits.in_flight_max));
    loop {
        let query = match next(&mut read, limits, &state.shutdown).await {
            Ok(Some(query)) => query,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%client, "DNS connection ended: {error}");
                if error.kind() == io::ErrorKind::TimedOut {
                    state.metrics.dns.dropped("tcp timeout");
                }
                break;
            }
        };
        if query_log::is_wanted() {
            query_log::note(&query, Transport::Tcp, client);
        }
        let held = state.registry.hold();
        match state.respond(&query, Transport::Tcp, client.ip()) {
            // A response on a connection of ours: the peer is confused.
            Outcome::Silence => {
                state.metrics.dns.dropped("not a request");
                break;
            }
            Outcome::Reply(reply) => {
                state.count(&reply, Transport::Tcp);
                if answers.send((reply, held)).await.is_err() {
                    break;
                }
            }
            Outcome::Ask(pending) => {
                let Ok(place) = places.clone().acquire_owned().await else { break };
                let (state, answers) = (state.clone(), answers.clone());
                tokio::spawn(async move {
                    let reply = state.ask(&pending).await;
                    state.count(&reply, Transport::Tcp);
                    // The client may have gone.
                    let _ = answers.send((reply, held)).await;
                    drop(place);
                });
            }
        }
    }
    // Half-closed: what was asked is still answered.
    drop(answers);
    let _ = writing.await;
}

/// The next query; `None` when the client has closed, or we are about to.
async fn next(
    read: &mut (impl AsyncRead + Unpin),
    limits: &Limits,
    shutdown: &CancellationToken,
) -> io::Result<Option<Vec<u8>>> {
    let mut first = [0u8];
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let begun = tokio::select! {
        begun = timeout(limits.idle, read.read(&mut first)) => begun.map_err(late)??,
        () = after(shutdown, LAST_QUERIES) => 0,
    };
    if begun == 0 {
        return Ok(None);
    }
    // From here on the whole message has to come in one go, however slowly its octets drip.
    let whole = async {
        let length = usize::from(u16::from_be_bytes([first[0], read.read_u8().await?]));
        let mut query = vec![0u8; length];
        read.read_exact(&mut query).await?;
        Ok(Some(query))
    };
    timeout(limits.transfer, whole).await.map_err(late)?
}

async fn write_all(
    mut write: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<(Reply, Held)>,
    transfer: Duration,
) {
    while let Some((reply, _held)) = queue.recv().await {
        let bytes = &reply.encoded.bytes;
        // Never above: the encoder's limit is what two octets can say.
        let Ok(length) = u16::try_from(bytes.len()) else { continue };
        // Length and message in one segment (RFC 7766 section 8).
        let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
        let written = timeout(transfer, write.write_all(&framed)).await;
        if !matches!(written, Ok(Ok(()))) {
            break;
        }
    }
    let _ = write.shutdown().await;
}
