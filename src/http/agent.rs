//! `/v1/agent/*`: what concerns one node, that for which the caller acts.

mod check;
mod control;
mod health;
mod host;
mod metrics;
mod monitor;
mod own;
pub(super) mod service;

use std::sync::Arc;

use axum::Router;

use super::State;

pub(super) use check::{UPDATE, kept};
pub use control::Asked;
pub use own::Shown;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .merge(service::routes())
        .merge(check::routes())
        .merge(health::routes())
        .merge(own::routes())
        .merge(control::routes())
        .merge(host::routes())
        .merge(metrics::routes())
        .merge(monitor::routes())
}
