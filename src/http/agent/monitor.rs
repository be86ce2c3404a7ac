//! `/v1/agent/monitor`: the server's log lines as they come, at a level that the client chooses.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tracing::Level;

use crate::http::State;
use crate::http::door::admission::Admitted;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::get;
use crate::telemetry::tap;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/agent/monitor", get(monitor))
}

async fn monitor(
    Extract(state): Extract<Arc<State>>,
    access: Admitted,
    params: Params,
) -> Result<Response, Error> {
    let level = level(params.get("loglevel").unwrap_or(""))?;
    let json = params.flag("logjson")?;
    let config = state.config.load();
    let (max, lines_max) = (config.monitors_max, config.monitor_lines_max);
    let limits = &state.metrics.limits;
    let Some(watch) = tap::watch(level, json, max, lines_max, limits.hits("monitor_lines_max")) else {
        limits.hit("monitors_max");
        let text = format!("{max} clients follow the log already ([limits] monitors_max)");
        return Err(Error::new(StatusCode::TOO_MANY_REQUESTS, text));
    };
    let shutdown = state.shutdown.clone();
    let lines = stream::unfold((watch, shutdown), |(mut watch, shutdown)| async move {
        let line = tokio::select! {
            line = watch.next() => line?,
            () = shutdown.cancelled() => return None,
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line)), (watch, shutdown)))
    });
    let lines = lines.take_until(Box::pin(access.lapses(state.clone(), "/v1/agent/monitor")));
    let form = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((form, Body::from_stream(lines)).into_response())
}

/// A level by Consul's names for it; INFO where none is named.
fn level(name: &str) -> Result<Level, Error> {
    match name.to_ascii_uppercase().as_str() {
        "TRACE" => Ok(Level::TRACE),
        "DEBUG" => Ok(Level::DEBUG),
        "" | "INFO" => Ok(Level::INFO),
        "WARN" => Ok(Level::WARN),
        "ERR" | "ERROR" => Ok(Level::ERROR),
        _ => Err(Error::bad(format!("Unknown log level: {name}"))),
    }
}
