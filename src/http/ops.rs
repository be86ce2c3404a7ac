//! What operators ask: metrics, liveness, readiness, a backup.

use std::io::{self, Write};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

use super::error::Error;
use super::faces::Place;
use super::route::get;
use super::{PIECE_OCTETS, State};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/v1/rollcall/backup", get(backup))
}

/// Prometheus' text form, or OpenMetrics for those who ask for it.
async fn metrics(Extract(state): Extract<Arc<State>>, headers: HeaderMap) -> Response {
    exposition(&state, &headers)
}

/// Takes what is measured only when somebody asks.
pub(super) fn measure(state: &State) {
    state.metrics.http.watchers.set(state.registry.watchers() as i64);
}

pub(super) fn exposition(state: &State, headers: &HeaderMap) -> Response {
    measure(state);
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let (form, text) = if accepts.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", state.metrics.encode())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", state.metrics.encode_text())
    };
    ([(header::CONTENT_TYPE, form)], text).into_response()
}

/// The process answers.
async fn health() -> &'static str {
    "ok\n"
}

/// State is loaded (nothing listens before), definitions can be stored, and the server was not told to stop.
async fn ready(Extract(state): Extract<Arc<State>>) -> Result<String, Error> {
    if let Some(end) = state.leaving.get() {
        let left = end.saturating_duration_since(tokio::time::Instant::now()).as_secs_f64();
        let text = format!("everything is served, but this server stops in {left:.1} s ([lame_duck])\n");
        return Err(Error::new(StatusCode::SERVICE_UNAVAILABLE, text));
    }
    let writable = state.registry.writable();
    let mut text = "ready\n".to_owned();
    if state.metrics.steady.cut_off.get() != 0 {
        text += "statuses of health checks are held: this machine seems to be cut off from their targets\n";
    }
    writable.map(|()| text).map_err(|e| {
        let text = format!("DNS and reads are served, but definitions cannot be stored: {e}\n");
        Error::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })
}

/// Everything that is stored, to callers on this machine.
async fn backup(Extract(state): Extract<Arc<State>>) -> Result<Response, Error> {
    // Each has a thread while it is read.
    let max = state.config.load().backups_max;
    let place = Place::take(&state, &state.faces.backups, ("backups_max", max), "backups are under way")?;
    let (pieces, mut queue) = mpsc::channel::<io::Result<Bytes>>(4);
    let registry = state.registry.clone();
    tokio::task::spawn_blocking(move || {
        let mut to = io::BufWriter::with_capacity(PIECE_OCTETS, Pieces(pieces.clone()));
        let written = registry.backup(&mut to).map_err(|e| io::Error::other(e.to_string()));
        if let Err(e) = written.and_then(|()| to.flush()) {
            // The body ends with an error, so that the client knows it is not whole.
            let _ = pieces.blocking_send(Err(e));
        }
        drop(place);
    });
    // What is wrong at the start is an answer, not a broken body.
    let first = match queue.recv().await {
        Some(Ok(first)) => first,
        Some(Err(e)) => return Err(Error::new(StatusCode::SERVICE_UNAVAILABLE, e.to_string())),
        None => Bytes::new(),
    };
    let rest = futures_util::stream::poll_fn(move |context| queue.poll_recv(context));
    let all = futures_util::StreamExt::chain(futures_util::stream::iter([Ok(first)]), rest);
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(all)).into_response())
}

/// Hands what is written to an async reader.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
