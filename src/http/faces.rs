//! `/v1/rollcall`: faces of the registry for programs that do not speak Consul's API.
//!
//! Prometheus' HTTP service discovery, a stream of changes, and the whole registry as one document, out and in. Answers that can
//! be long are made in pieces while they are sent ([`in_pieces`]), from one snapshot, so that a slow reader costs a piece and not a copy.

mod document;
mod drain;
mod events;
mod explain;
mod export;
mod history;
mod http_sd;
mod import;
mod log_level;
mod recent;
pub(super) mod report;
pub(super) mod steering;
mod summary;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use tokio::sync::{OnceCell, Semaphore};

use super::error::Error;
use super::route::{get, put, with_rest};
use super::{PIECE_OCTETS, State};
use recent::Recent;

/// What the faces share.
pub struct Faces {
    /// One import at a time: each holds what it brings in memory.
    importing: Semaphore,
    /// What changed of late, from the first who asked on.
    recent: OnceCell<Arc<Recent>>,
    streams: Arc<AtomicUsize>,
    drains: Arc<AtomicUsize>,
    pub(super) former: drain::Former,
    /// Under way.
    pub(super) backups: Arc<AtomicUsize>,
}

/// One of so many at once; given back when dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// A place, or a 429 that names the limit, which is counted. `what`: in the plural, with its verb.
    pub(super) fn take(
        state: &State,
        taken: &Arc<AtomicUsize>,
        (key, max): (&'static str, usize),
        what: &str,
    ) -> Result<Self, Error> {
        let place = Self(taken.clone());
        if taken.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(place);
        }
        state.metrics.limits.hit(key);
        let text = format!("{max} {what} already ([limits] {key})");
        Err(Error::new(StatusCode::TOO_MANY_REQUESTS, text))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Faces {
    fn default() -> Self {
        Self {
            importing: Semaphore::new(1),
            recent: OnceCell::new(),
            streams: Arc::default(),
            drains: Arc::default(),
            former: drain::Former::default(),
            backups: Arc::default(),
        }
    }
}

pub(super) fn routes() -> Router<Arc<State>> {
    let level = axum::routing::get(log_level::shown).put(log_level::set);
    let drain = axum::routing::put(drain::begin).delete(drain::end);
    Router::new()
        .route("/v1/rollcall/drain/{*id}", with_rest(drain, "OPTIONS,PUT,DELETE"))
        .route("/v1/rollcall/log-level", with_rest(level, "OPTIONS,GET,PUT"))
        .route("/v1/rollcall/http_sd", get(http_sd::targets))
        .route("/v1/rollcall/events", get(events::events))
        .route("/v1/rollcall/explain", get(explain::explain))
        .route("/v1/rollcall/history/", get(history::history))
        .route("/v1/rollcall/history/{*service}", get(history::history))
        .route("/v1/rollcall/services", get(summary::services))
        .route("/v1/rollcall/nodes", get(summary::nodes))
        .route("/v1/rollcall/export", get(export::export))
        .route("/v1/rollcall/report", put(report::report))
        .route("/v1/rollcall/import", put(import::import))
        .merge(steering::routes())
}

/// A body that is made when it is wanted: `more` puts the next piece into a buffer, and says whether there is another.
fn in_pieces(mut more: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static) -> Body {
    let mut ended = false;
    let pieces = std::iter::from_fn(move || {
        let mut piece = Vec::new();
        while !ended && piece.len() < PIECE_OCTETS {
            ended = !more(&mut piece);
        }
        (!piece.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from(piece)))
    });
    Body::from_stream(futures_util::stream::iter(pieces))
}
