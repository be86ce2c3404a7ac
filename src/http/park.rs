//! Blocking queries that wait without a connection's buffers.
//!
//! A connection has two buffers of 8 KiB, and a request a chain of futures around its handler. Ten thousand clients that
//! wait for minutes would keep 160 MB of that for nothing. So a request that is to wait is *parked*: all that remains is its
//! head as text, and a connection that waits for a bell, its client's end or the next octets. When the bell has rung, the
//! head is read again as if it had come now, and the handler answers from what there is then.
//!
//! Only a GET without a body is parked, and only while nothing of an earlier answer is still to be sent.

use std::fmt::{self, Write};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http::{Method, Request, header};
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::State;
use super::access::Access;
use crate::registry::{Refused, Topic};

/// Octets of further requests that are read while one waits; the rest stays in the socket.
const AHEAD_OCTETS_MAX: usize = 4096;

/// A request that may be parked, or that was: goes along in its extensions.
pub(super) struct Turn {
    pub(super) begun: Instant,
    head: Vec<u8>,
    unsent: Arc<AtomicBool>,
    /// What ended the wait, once there was one.
    woken: Option<Result<(), Refused>>,
    wait: Mutex<Option<Wait>>,
    bell: Notify,
    log: Mutex<Option<Access>>,
}

/// What a parked request waits for.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) topic: Topic,
    pub(super) past: u64,
    pub(super) until: tokio::time::Instant,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("woken", &self.woken).finish_non_exhaustive()
    }
}

impl Turn {
    /// For a request that can be read again from its head alone, and may want to wait.
    pub(super) fn of<B>(request: &Request<B>, unsent: &Arc<AtomicBool>) -> Option<Self> {
        let headers = request.headers();
        let waits = request.uri().query().is_some_and(|query| query.contains("index="));
        let bare = !headers.contains_key(header::TRANSFER_ENCODING)
            && !headers.contains_key(header::EXPECT)
            && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0");
        if !(waits && bare && *request.method() == Method::GET) {
            return None;
        }
        let mut line = String::new();
        write!(line, "GET {} {:?}\r\n", request.uri(), request.version()).ok()?;
        let mut head = line.into_bytes();
        for (name, value) in headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
        Some(Self {
            begun: Instant::now(),
            head,
            unsent: unsent.clone(),
            woken: None,
            wait: Mutex::default(),
            bell: Notify::new(),
            log: Mutex::default(),
        })
    }

    /// The same request when its wait has ended.
    pub(super) fn again(&self, woken: Result<(), Refused>) -> Self {
        Self {
            begun: self.begun,
            head: self.head.clone(),
            unsent: self.unsent.clone(),
            woken: Some(woken),
            wait: Mutex::default(),
            bell: Notify::new(),
            log: Mutex::new(self.log.lock().take()),
        }
    }

    /// How the wait ended, where there was one.
    pub(super) fn woken(&self) -> Option<Result<(), Refused>> {
        self.woken.clone()
    }

    /// Whether its connection can be taken apart.
    pub(super) fn can_park(&self) -> bool {
        !self.unsent.load(Ordering::Relaxed)
    }

    /// Asks for it, and never returns: the handler is dropped.
    pub(super) async fn park(&self, wait: Wait) -> std::convert::Infallible {
        *self.wait.lock() = Some(wait);
        self.bell.notify_one();
        std::future::pending().await
    }

    /// Returns when a request asks to be parked.
    pub(super) async fn asked(&self) -> Option<Wait> {
        self.bell.notified().await;
        self.wait.lock().take()
    }

    /// Keeps the line of the log, which is written when it is dropped, for as long as the request lives.
    pub(super) fn keep(&self, access: Option<Access>) {
        *self.log.lock() = access;
    }

    pub(super) fn kept(&self) -> Option<Access> {
        self.log.lock().take()
    }
}

/// The connection's end of the requests that come over it, one after another.
#[derive(Default)]
pub(super) struct Turns {
    /// The one that is being answered.
    now: Mutex<Option<Arc<Turn>>>,
    /// One that was parked and comes again first.
    next: Mutex<Option<Arc<Turn>>>,
    came: Notify,
}

impl Turns {
    /// Notes a request that has come, and puts its turn into its extensions.
    pub(super) fn begin<B>(&self, request: &mut Request<B>, unsent: &Arc<AtomicBool>) {
        let again = self.next.lock().take();
        let turn = again.or_else(|| Turn::of(request, unsent).map(Arc::new));
        if let Some(turn) = &turn {
            request.extensions_mut().insert(turn.clone());
            self.came.notify_one();
        }
        *self.now.lock() = turn;
    }

    /// Returns when a request asks to be parked.
    pub(super) async fn asked(&self) -> (Arc<Turn>, Wait) {
        loop {
            let now = self.now.lock().clone();
            let came = self.came.notified();
            let Some(turn) = now else {
                came.await;
                continue;
            };
            tokio::select! {
                wait = turn.asked() => {
                    if let Some(wait) = wait {
                        return (turn.clone(), wait);
                    }
                }
                () = came => {}
            }
        }
    }
}

/// Waits as a parked request does. The connection to go on with, and the request that comes first on it; `None` when the
/// client has gone. `ahead` are octets that were read behind the request.
pub(super) async fn wait<S: AsyncRead + Unpin>(
    state: &State,
    mut stream: Replayed<S>,
    turn: &Turn,
    wait: Wait,
    ahead: Bytes,
) -> Option<(Replayed<S>, Turns)> {
    let mut behind = BytesMut::new();
    let left = wait.until.saturating_duration_since(tokio::time::Instant::now());
    let woken = {
        let waiting = state.registry.wait(&wait.topic, wait.past, left);
        tokio::pin!(waiting);
        loop {
            tokio::select! {
                woken = &mut waiting => break woken.map(drop),
                () = state.shutdown.cancelled() => break Ok(()),
                read = stream.read_buf(&mut behind), if behind.len() < AHEAD_OCTETS_MAX => {
                    if matches!(read, Ok(0) | Err(_)) {
                        return None;
                    }
                }
            }
        }
    };
    let mut first = BytesMut::with_capacity(turn.head.len() + ahead.len() + behind.len());
    for part in [turn.head.as_slice(), &ahead, &behind] {
        first.extend_from_slice(part);
    }
    stream.first = first.freeze();
    let turns = Turns { next: Mutex::new(Some(Arc::new(turn.again(woken)))), ..Turns::default() };
    Some((stream, turns))
}

/// A stream that gives some octets once more before those that come, and knows whether something waits to be sent.
pub(super) struct Replayed<S> {
    first: Bytes,
    stream: S,
    unsent: Arc<AtomicBool>,
}

impl<S> Replayed<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { first: Bytes::new(), stream, unsent: Arc::default() }
    }

    /// Set while the socket takes no more.
    pub(super) fn unsent(&self) -> Arc<AtomicBool> {
        self.unsent.clone()
    }

    fn noted<T>(&self, sent: Poll<T>) -> Poll<T> {
        self.unsent.store(sent.is_pending(), Ordering::Relaxed);
        sent
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(self.first.get(..count).unwrap_or_default());
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, octets);
        self.noted(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.noted(sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() { self.noted(flushed) } else { flushed }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
