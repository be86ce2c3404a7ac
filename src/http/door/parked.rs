//! Connections whose client waits: without hyper's buffers meanwhile.
//!
//! hyper keeps 16 KiB of buffers for each connection, whether or not anything is read or written; ten thousand blocking
//! reads that sleep would pay for nothing else. So a read that has begun to wait takes its connection out of hyper: what is kept is
//! the stream, and the answer under way. When the answer is there, the stream goes back, with a request in front that
//! hyper can read as the one that is answered.
//!
//! The stream is where a client is noticed that does not read: one that takes nothing of what is written for `[http] write_wait` is
//! cut off, whatever it was that it asked for.

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{Method, Request, Version, header};
use axum::response::Response;
use bytes::{Buf, BytesMut};
use futures_util::future::BoxFuture;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Octets of further requests that a client may send while it waits: nearly none does.
const AHEAD_OCTETS_MAX: usize = 16 * 1024;

/// Why a connection was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the client read nothing of its answer for {0:?} ([http] write_wait)")]
struct NotRead(Duration);

/// Whether a connection ended because its client did not read.
pub(in crate::http) fn was_not_read(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.and_then(io::Error::get_ref).is_some_and(|cause| cause.is::<NotRead>())
}

/// What hyper reads instead of the request that it has read already. Its method and version are those that may wait.
const AGAIN: &[u8] = b"GET / HTTP/1.1\r\nhost: again\r\n\r\n";

thread_local! {
    static LONG: Cell<bool> = const { Cell::new(false) };
}

/// Says that the answer that is being made here may take long: its connection can do without hyper.
pub(in crate::http) fn will_take_long() {
    LONG.set(true);
}

type Answer = BoxFuture<'static, Response>;
type Ask = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// What the connection and hyper's side of it share; both are polled by one task.
#[derive(Default)]
struct Shared {
    under_way: Option<Answer>,
    /// Whether what is under way may be taken out of hyper.
    can_wait: bool,
    is_long: bool,
    ready: Option<Response>,
}

/// Serves one connection; its end is the future's.
pub(in crate::http) struct Connection<S: AsyncRead + AsyncWrite + Unpin> {
    builder: http1::Builder,
    door: Door,
    unsent: Arc<AtomicBool>,
    state: State<S>,
}

enum State<S: AsyncRead + AsyncWrite + Unpin> {
    /// In a box of its own, which is given back while it waits.
    Talking(Box<http1::Connection<TokioIo<Back<S>>, Door>>),
    Waiting(Back<S>, Answer),
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    pub(in crate::http) fn new(stream: S, write_wait: Duration, builder: http1::Builder, ask: Ask) -> Self {
        let door = Door { ask, shared: Arc::default() };
        let unsent = Arc::new(AtomicBool::new(false));
        let back = Back { first: BytesMut::new(), stream, unsent: unsent.clone(), write_wait, stuck: None };
        let state = State::Talking(Box::new(builder.serve_connection(TokioIo::new(back), door.clone())));
        Self { builder, door, unsent, state }
    }

    /// Ends when what is under way has been answered. One that waits is told so by its answer alone.
    pub(in crate::http) fn graceful_shutdown(mut self: Pin<&mut Self>) {
        if let State::Talking(connection) = &mut self.state {
            Pin::new(&mut **connection).graceful_shutdown();
        }
    }

    /// The answer under way, if the connection can do without hyper until it is there: whatever was written before has
    /// been sent, and hyper's buffers have nothing that would be lost.
    fn long_answer(&self) -> Option<Answer> {
        let mut shared = self.door.shared.lock();
        let can = shared.is_long && shared.can_wait && !self.unsent.load(Ordering::Relaxed);
        if can { shared.under_way.take() } else { None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Future for Connection<S> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Talking(connection) => {
                    if let Poll::Ready(ended) = Pin::new(&mut **connection).poll(context) {
                        return Poll::Ready(ended);
                    }
                    let Some(answer) = this.long_answer() else { return Poll::Pending };
                    let State::Talking(connection) = std::mem::replace(&mut this.state, State::Ended) else {
                        return Poll::Ready(Ok(()));
                    };
                    let parts = connection.into_parts();
                    let mut back = parts.io.into_inner();
                    back.first = BytesMut::from(&parts.read_buf[..]);
                    this.state = State::Waiting(back, answer);
                }
                State::Waiting(back, answer) => {
                    if let Poll::Ready(response) = answer.as_mut().poll(context) {
                        let State::Waiting(mut back, _) = std::mem::replace(&mut this.state, State::Ended)
                        else {
                            return Poll::Ready(Ok(()));
                        };
                        this.door.shared.lock().ready = Some(response);
                        back.first = BytesMut::from_iter(AGAIN.iter().chain(&back.first[..]));
                        let connection = this.builder.serve_connection(TokioIo::new(back), this.door.clone());
                        this.state = State::Talking(Box::new(connection));
                    } else {
                        match back.poll_gone(context) {
                            Poll::Ready(()) => return Poll::Ready(Ok(())),
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// hyper's side: requests in, answers out.
#[derive(Clone)]
struct Door {
    ask: Ask,
    shared: Arc<Mutex<Shared>>,
}

impl Service<Request<Incoming>> for Door {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let mut shared = self.shared.lock();
        if shared.ready.is_none() {
            shared.can_wait = request.method() == Method::GET
                && request.version() == Version::HTTP_11
                && !request.headers().contains_key(header::CONNECTION)
                && request.body().is_end_stream();
            shared.is_long = false;
            shared.under_way = Some((self.ask)(request));
        }
        Answering(self.shared.clone())
    }
}

/// An answer under way that can be taken out of hyper.
struct Answering(Arc<Mutex<Shared>>);

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.0.lock();
        if let Some(response) = shared.ready.take() {
            return Poll::Ready(Ok(response));
        }
        let Some(answer) = &mut shared.under_way else { return Poll::Pending };
        LONG.set(false);
        let polled = answer.as_mut().poll(context);
        shared.is_long |= LONG.take();
        let response = ready!(polled);
        shared.under_way = None;
        Poll::Ready(Ok(response))
    }
}

/// A stream with octets in front that were read from it already, or that are read instead.
struct Back<S> {
    first: BytesMut,
    stream: S,
    /// Whether something was written that may not have been sent.
    unsent: Arc<AtomicBool>,
    /// How long a client may take nothing.
    write_wait: Duration,
    /// Since something could not be written.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> Back<S> {
    /// Ready when the client has gone, or sends more than a client has to while it waits. Octets that come are kept.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut some = [0; 512];
        while self.first.len() < AHEAD_OCTETS_MAX {
            let mut read = ReadBuf::new(&mut some);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut read)) {
                Ok(()) if !read.filled().is_empty() => self.first.extend_from_slice(read.filled()),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S> Back<S> {
    /// What a write came to, if it does not take too long.
    fn in_time<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let wait = self.write_wait;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, NotRead(wait))))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Back<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let count = self.first.len().min(into.remaining());
        into.put_slice(&self.first[..count]);
        self.first.advance(count);
        if self.first.is_empty() {
            self.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Back<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unsent.store(true, Ordering::Relaxed);
        let written = Pin::new(&mut self.stream).poll_write(context, octets);
        self.in_time(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unsent.store(true, Ordering::Relaxed);
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, octets);
        self.in_time(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        let flushed = self.in_time(flushed, context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.unsent.store(false, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.in_time(ended, context)
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::sync::{Notify, mpsc};

    use super::*;

    /// A connection on which `/wait` waits for the bell and says how it goes on, and all else is answered at once.
    struct Served {
        client: DuplexStream,
        bell: Arc<Notify>,
        /// Says that a waiting answer was polled, and `None` when it was dropped.
        waiting: mpsc::UnboundedReceiver<()>,
        ended: tokio::task::JoinHandle<bool>,
    }

    fn serve() -> Served {
        let (client, server) = tokio::io::duplex(1 << 16);
        let (bell, (sender, waiting)) = (Arc::new(Notify::new()), mpsc::unbounded_channel());
        let ring = bell.clone();
        let ask = move |request: Request<Incoming>| -> Answer {
            let (ring, sender, path) = (ring.clone(), sender.clone(), request.uri().path().to_owned());
            Box::pin(async move {
                if path == "/wait" {
                    will_take_long();
                    let _ = sender.send(());
                    ring.notified().await;
                }
                path.into_response()
            })
        };
        let ended = tokio::spawn(async move {
            let mut connection = Connection::new(server, WRITE_WAIT, http1::Builder::new(), Arc::new(ask));
            let mut waited = false;
            std::future::poll_fn(|context| {
                let polled = Pin::new(&mut connection).poll(context);
                waited |= matches!(connection.state, State::Waiting(..));
                polled
            })
            .await
            .unwrap();
            waited
        });
        Served { client, bell, waiting, ended }
    }

    async fn answer(client: &mut DuplexStream, body: &str) {
        let (mut text, mut octets) = (String::new(), [0; 1]);
        while !text.ends_with(&format!("\r\n\r\n{body}")) {
            assert_eq!(client.read(&mut octets).await.unwrap(), 1, "{text}");
            text.push(char::from(octets[0]));
        }
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    }

    fn get(path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
    }

    #[tokio::test]
    async fn an_answer_that_took_long_goes_to_its_client_and_the_connection_is_kept() {
        let mut served = serve();
        for _ in 0..3 {
            served.client.write_all(&get("/now")).await.unwrap();
            answer(&mut served.client, "/now").await;
            served.client.write_all(&get("/wait")).await.unwrap();
            served.waiting.recv().await.unwrap();
            served.bell.notify_one();
            answer(&mut served.client, "/wait").await;
        }
        drop(served.client);
        assert!(served.ended.await.unwrap(), "it was out of hyper");
    }

    #[tokio::test]
    async fn what_was_sent_behind_a_request_that_waits_is_answered_after_it() {
        let mut served = serve();
        served
            .client
            .write_all(&[get("/now"), get("/wait"), get("/then"), get("/wait")].concat())
            .await
            .unwrap();
        answer(&mut served.client, "/now").await;
        served.waiting.recv().await.unwrap();
        served.client.write_all(&get("/last")).await.unwrap();
        served.bell.notify_one();
        answer(&mut served.client, "/wait").await;
        answer(&mut served.client, "/then").await;
        served.waiting.recv().await.unwrap();
        served.bell.notify_one();
        answer(&mut served.client, "/wait").await;
        answer(&mut served.client, "/last").await;
    }

    /// Longer than any of these tests.
    const WRITE_WAIT: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_client_that_goes_ends_its_wait_whatever_it_sent_before() {
        let mut served = serve();
        served.client.write_all(&[get("/wait"), b"GET /l".to_vec()].concat()).await.unwrap();
        served.waiting.recv().await.unwrap();
        served.client.write_all(b"a").await.unwrap();
        drop(served.client);
        assert!(served.ended.await.unwrap(), "it was out of hyper, and has ended");
    }

    #[tokio::test]
    async fn a_client_that_sends_much_while_it_waits_is_left() {
        let mut served = serve();
        served.client.write_all(&get("/wait")).await.unwrap();
        served.waiting.recv().await.unwrap();
        served.client.write_all(&vec![b'x'; AHEAD_OCTETS_MAX]).await.unwrap();
        assert!(served.ended.await.unwrap(), "it was out of hyper, and has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_an_answer_is_cut_off_and_one_that_takes_a_little_is_not() {
        const WAIT: Duration = Duration::from_secs(30);
        const OCTETS: usize = 1 << 20;
        for reads in [false, true] {
            let (mut client, server) = tokio::io::duplex(1024);
            let ask = |_: Request<Incoming>| -> Answer {
                Box::pin(async { axum::body::Body::from(vec![b'x'; OCTETS]).into_response() })
            };
            let served = tokio::spawn(Connection::new(server, WAIT, http1::Builder::new(), Arc::new(ask)));
            client.write_all(&get("/")).await.unwrap();
            let mut got = 0;
            let mut some = vec![0; OCTETS / 64];
            // It takes as long as many of the waits.
            while reads && got < OCTETS {
                tokio::time::sleep(WAIT / 2).await;
                got += client.read(&mut some).await.unwrap();
            }
            let begun = tokio::time::Instant::now();
            if reads {
                drop(client);
                assert!(!served.await.unwrap().is_err_and(|error| was_not_read(&error)));
            } else {
                let error = served.await.unwrap().unwrap_err();
                assert!(was_not_read(&error), "{error:?}");
                assert_eq!(begun.elapsed().as_secs(), WAIT.as_secs());
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_its_wait() {
        let mut served = serve();
        served.client.write_all(&get("/wait")).await.unwrap();
        served.waiting.recv().await.unwrap();
        drop(served.client);
        assert!(served.ended.await.unwrap(), "it was out of hyper, and has ended");
    }

    #[tokio::test]
    async fn who_wants_the_connection_closed_keeps_hypers() {
        let mut served = serve();
        served.client.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        served.waiting.recv().await.unwrap();
        served.bell.notify_one();
        answer(&mut served.client, "/wait").await;
        assert_eq!(served.client.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(!served.ended.await.unwrap());
    }
}
