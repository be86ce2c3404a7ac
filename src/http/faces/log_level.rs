//! `/v1/rollcall/log-level`: what the server logs, while it runs. The configuration file is not touched, and has its say again at
//! the next reload or start.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::audit::{Cause, Entry, Value};
use crate::http::State;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{self, Done};
use crate::telemetry::{logs, origin};

/// The level in force.
pub(super) async fn shown(Extract(state): Extract<Arc<State>>, _: Params) -> Response {
    let level = logs::current_level().unwrap_or_else(|| state.config.load().shown.log_level.clone());
    route::json(&json!({ "Level": level }))
}

/// Another one, by `?level=`.
pub(super) async fn set(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Done, Error> {
    let wanted = params.get("level").filter(|level| !level.is_empty());
    let wanted = wanted.ok_or_else(|| Error::bad("name a level: ?level=debug"))?;
    let level = logs::level(wanted).map_err(Error::bad)?;
    let before = logs::set_level(&level)
        .map_err(|why| Error::new(StatusCode::SERVICE_UNAVAILABLE, format!("no change of level: {why}")))?;
    tracing::info!(level, "the log level was changed");
    let cause = Cause { origin: origin::current(), action: "log-level" };
    state.audit.tell(Entry::changed(cause, Value::LogLevel(before), Value::LogLevel(level)));
    Ok(Done::default())
}
