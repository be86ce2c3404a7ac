//! Taking in what an export or another registry has: `PUT /v1/rollcall/import`.
//!
//! The whole document is read and checked before anything changes: one mistake, and all of them are named and nothing is
//! taken. Then its parts go to the registry as registrations do, so that a million of them need no transaction of that
//! size: first nodes, then instances with their checks, then what stood apart from its owner. What only the registry can
//! refuse (a limit, an entry of the configuration file) is reported, and the rest is taken. It can be repeated: what is here
//! already changes nothing. Nothing is removed but by `?prune`.

mod carry;
mod gather;
mod report;

use std::io::{self, Read};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::document;
use crate::http::State;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route;
use crate::telemetry::origin::carried;
use gather::Gathered;

/// Pieces of a body that wait for the reader.
const PIECES_WAITING_MAX: usize = 4;
/// Mistakes that are named one by one.
const NAMED_MAX: usize = 100;

/// `?dry-run` says what would be done; `?prune` also removes what came through the catalog before and is not in the document.
pub(super) async fn import(
    Extract(state): Extract<Arc<State>>,
    params: Params,
    request: Request,
) -> Result<Response, Error> {
    let (dry_run, prune) = (params.flag("dry-run")?, params.flag("prune")?);
    let Ok(_one) = state.faces.importing.try_acquire() else {
        state.metrics.http.refused("import under way");
        return Err(Error::new(
            StatusCode::TOO_MANY_REQUESTS,
            "another import is under way; wait for its end",
        ));
    };
    let gathered = gather(&state, request).await?;
    if prune && !gathered.has_nodes() && gathered.refused.is_empty() {
        return Err(Error::bad(
            "the document has no node; with ?prune that would remove everything: nothing is done",
        ));
    }
    // An import that was begun is carried out, though its client goes away.
    let carried = tokio::spawn(carried(carry::carry(state.clone(), gathered, dry_run, prune)));
    let report = carried.await.map_err(|e| Error::server(format!("the import broke off: {e}")))?;
    let status = report.status();
    Ok((status, route::json(&report)).into_response())
}

/// Reads the body; errs with everything that is wrong.
async fn gather(state: &Arc<State>, request: Request) -> Result<Gathered, Error> {
    let (pieces, queue) = mpsc::channel(PIECES_WAITING_MAX);
    let reading = tokio::task::spawn_blocking({
        let state = state.clone();
        move || {
            let mut gathered = Gathered::default();
            let body = Pieces { queue, current: Bytes::new() };
            let read = document::read(body, |number, entry| gathered.take(number, entry, &state));
            (gathered, read)
        }
    });
    let fed = feed(state, request, pieces).await;
    let (gathered, read) =
        reading.await.map_err(|e| Error::server(format!("the import cannot be read: {e}")))?;
    fed?;
    read.map_err(|e| Error::bad(format!("the import cannot be read, and nothing was changed: {e}")))?;
    match gathered.wrong() {
        None => Ok(gathered),
        Some(text) => Err(Error::bad(format!("nothing was changed:\n{text}"))),
    }
}

/// Passes the body on, within the limits on size and time. What comes after the reader has given up is thrown away, so that the
/// client gets to its answer.
async fn feed(state: &State, request: Request, to: mpsc::Sender<io::Result<Bytes>>) -> Result<(), Error> {
    let config = state.config.load_full();
    let (mut body, mut octets) = (request.into_body(), 0usize);
    loop {
        let frame = match tokio::time::timeout(config.body_wait, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(()),
            Ok(Some(Err(e))) => {
                // The reader must not take a cut document for a whole one.
                let _ = to.send(Err(io::Error::other("the body broke off"))).await;
                return Err(Error::bad(format!("the body could not be read, and nothing was changed: {e}")));
            }
            Err(_) => {
                state.metrics.http.refused("slow body");
                let _ = to.send(Err(io::ErrorKind::TimedOut.into())).await;
                let wait = config.body_wait;
                let text =
                    format!("nothing of the body came for {wait:?} ([http] body_wait); nothing was changed");
                return Err(Error::new(StatusCode::REQUEST_TIMEOUT, text));
            }
        };
        let Ok(piece) = frame.into_data() else { continue };
        octets += piece.len();
        if octets > config.import_octets_max {
            state.metrics.limits.hit("import_max");
            let _ = to.send(Err(io::Error::other("too large"))).await;
            let max = config.import_octets_max;
            let text =
                format!("the import has more than {max} octets ([http] import_max); nothing was changed");
            return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        // The reader has found a mistake and says so at the end.
        let _ = to.send(Ok(piece)).await;
    }
}

/// A body as a reader that blocks.
struct Pieces {
    queue: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.queue.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = to.len().min(self.current.len());
        to[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
