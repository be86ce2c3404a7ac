//! The UDP loop.
//!
//! One thread for each socket: it takes what has come in one system call, answers, and sends in another. Answers that
//! need no waiting are made here: by the fast path, or else by the general one; a task for every datagram costs more
//! than most answers. What others have to be asked for waits in a task.

mod batch;

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use nix::sys::socket::{SockaddrIn, SockaddrIn6};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::State;
use super::fast::{Fast, Tally};
use super::query_log;
use super::respond::{Outcome, Pending, Transport};
use crate::registry::readers::Held;
use batch::{ANSWER_OCTETS, BATCH, Batch, Family, Path};

/// Ports of services that answer anything to anybody: an "answer" to them starts a loop or an attack.
const PORTS_NEVER_ANSWERED: [u16; 6] = [0, 7, 13, 17, 19, 37];

/// What the threads share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) state: Arc<State>,
    /// Where answers wait for others.
    pub(super) runtime: Handle,
    /// Those that wait.
    pub(super) waiting: TaskTracker,
}

/// Answers on one socket until the shutdown, in a thread of its own; the future ends with it.
pub(super) async fn serve(socket: UdpSocket, fast: Fast, shared: Shared) {
    let (ended, end) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new().name("dns-udp".into()).spawn(move || {
        on_thread(socket, fast, &shared);
        drop(ended);
    });
    match thread {
        // It is dropped when the thread ends, however that happens.
        Ok(_) => drop(end.await),
        Err(error) => tracing::error!("a thread for DNS cannot be started: {error}"),
    }
}

fn on_thread(socket: UdpSocket, fast: Fast, shared: &Shared) {
    let socket = Arc::new(socket);
    match socket.local_addr() {
        Ok(address) if address.is_ipv4() => run::<SockaddrIn>(&socket, fast, shared),
        Ok(_) => run::<SockaddrIn6>(&socket, fast, shared),
        Err(error) => tracing::error!("a UDP socket has no address: {error}"),
    }
}

fn run<S: Family + Send + 'static>(socket: &Arc<UdpSocket>, mut fast: Fast, shared: &Shared) {
    let state = &shared.state;
    let mut reader = state.registry.reader();
    let (mut batch, mut tally) = (Batch::<S>::new(socket), Tally::default());
    let mut answers: [Vec<u8>; BATCH] = std::array::from_fn(|_| Vec::with_capacity(ANSWER_OCTETS));
    while !state.shutdown.is_cancelled() {
        let received = batch.receive();
        reader.pass();
        match received {
            Ok(()) => {}
            Err(error) if is_pause(&error) => continue,
            // The kernel reports refusals of earlier answers here.
            Err(error) => {
                tracing::debug!("receiving: {error}");
                state.metrics.dns.dropped("receive error");
                continue;
            }
        }
        if query_log::is_wanted() {
            for (path, message) in batch.messages() {
                query_log::note(message, Transport::Udp, path.client.client());
            }
        }
        fast.refresh(state);
        let mut questions = [const { None }; BATCH];
        for (question, (_, message)) in questions.iter_mut().zip(batch.messages()) {
            *question = fast.read(message);
        }
        fast.look_up(&mut questions);
        for (((path, message), question), answer) in batch.messages().zip(&questions).zip(&mut answers) {
            answer.clear();
            let client = path.client.client();
            if is_never_answered(client.port()) {
                state.metrics.dns.dropped("source port");
                continue;
            }
            let chance = rand::random();
            if let Some(question) = question
                && let Some(written) = fast.answer(&state.registry, question, client.ip(), chance, answer)
            {
                tally.add(written, answer.len());
                continue;
            }
            answer.clear();
            match state.respond(message, Transport::Udp, client.ip()) {
                Outcome::Silence => state.metrics.dns.dropped("not a request"),
                Outcome::Reply(reply) => {
                    state.count(&reply, Transport::Udp);
                    answer.extend_from_slice(&reply.encoded.bytes);
                }
                Outcome::Ask(pending) => wait(socket, path, (pending, reader.hold()), shared),
            }
        }
        tally.count(&state.metrics.dns);
        for _ in 0..batch.send(&answers) {
            state.metrics.dns.dropped("send error");
        }
    }
}

/// Nothing came for a while, or a signal did.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Answers when others have. The forwarder bounds how many wait; those beyond are answered at once.
fn wait<S: Family + Send + 'static>(
    socket: &Arc<UdpSocket>,
    path: Path<S>,
    (pending, held): (Box<Pending>, Held),
    shared: &Shared,
) {
    let (socket, state) = (socket.clone(), shared.state.clone());
    let answer = async move {
        let reply = state.ask(&pending).await;
        state.count(&reply, Transport::Udp);
        if let Err(error) = batch::send(&socket, path, &reply.encoded.bytes) {
            tracing::debug!(client = %path.client.client(), "answering: {error}");
            state.metrics.dns.dropped("send error");
        }
        drop(held);
    };
    shared.waiting.spawn_on(answer, &shared.runtime);
}

fn is_never_answered(port: u16) -> bool {
    PORTS_NEVER_ANSWERED.contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_answer_anything_are_never_answered() {
        for port in [0, 7, 13, 17, 19, 37] {
            assert!(is_never_answered(port), "{port}");
        }
        // Resolvers may ask from port 53.
        assert!(!is_never_answered(53) && !is_never_answered(1024));
    }
}
