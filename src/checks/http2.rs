//! One exchange over HTTP/2 (RFC 9113), for the kinds of probe that need one.
//!
//! On h2 itself and not on hyper's client above it: that one gives no PING, and drives its connection in a task of its
//! own, which would outlive a probe that is dropped.

use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::PingPong;
use h2::client::{Builder, SendRequest};

use super::connect::{self, Unreached};
use super::probe::Tools;
use crate::model::ProbeTls;

/// RFC 9113 section 3.2: the name for ALPN.
const ALPN: &[&[u8]] = &[b"h2"];
/// Octets that the target may send ahead of what was read, and in its headers.
const WINDOW_OCTETS: u32 = 16 << 10;
const HEADER_OCTETS_MAX: u32 = 16 << 10;

/// Connects, does `work` over the connection, and says goodbye. No time limit of its own.
pub(super) async fn exchange<Work, T>(
    address: &str,
    tls: Option<&ProbeTls>,
    with: &Tools,
    work: impl FnOnce(SendRequest<Bytes>, PingPong) -> Work,
) -> Result<T, Unreached>
where
    Work: Future<Output = Result<T, h2::Error>>,
{
    let stream = connect::open(address, tls, ALPN, with).await?;
    let failed = |why: String| {
        let how = if tls.is_some() { "" } else { " without TLS" };
        let hint = format!("does the target speak HTTP/2{how} on this port?");
        Unreached::new(format!("HTTP/2 with {address}: {why} ({hint})"))
    };
    let opened = Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW_OCTETS)
        .initial_connection_window_size(WINDOW_OCTETS)
        .max_header_list_size(HEADER_OCTETS_MAX)
        .handshake(stream)
        .await;
    let (send, mut connection) = opened.map_err(|error| failed(explain(&error)))?;
    let pings = connection.ping_pong().ok_or_else(|| failed("no PING can be sent".to_owned()))?;
    let mut connection = pin!(connection);
    let outcome = {
        let mut work = pin!(work(send, pings));
        let ended = tokio::select! {
            biased;
            done = &mut work => Ok(done),
            ended = &mut connection => Err(ended),
        };
        match ended {
            Ok(done) => done.map_err(|error| explain(&error)),
            // What came before the end counts, and has not been looked at yet.
            Err(ended) => match (work.now_or_never(), ended) {
                (Some(Ok(done)), _) => Ok(done),
                (_, Err(error)) | (Some(Err(error)), Ok(())) => Err(explain(&error)),
                (None, Ok(())) => Err(CLOSED.to_owned()),
            },
        }
    };
    // The work has let go of the connection, which now sends GOAWAY and closes; nothing waits for that.
    let _ = connection.now_or_never();
    outcome.map_err(failed)
}

const CLOSED: &str = "the target closed the connection before it answered";

fn explain(error: &h2::Error) -> String {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error.get_io() {
        // Which of them it is depends on what was under way when the end came.
        Some(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => {
            CLOSED.to_owned()
        }
        Some(error) => connect::words(error),
        None if error.is_library() => format!("what came is not HTTP/2: {error}"),
        None => error.to_string(),
    }
}
