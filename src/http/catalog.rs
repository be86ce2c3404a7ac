//! `/v1/catalog/*`: nodes, services and their instances, whoever registered them.

pub(in crate::http) mod members;
pub(in crate::http) mod read;
pub(in crate::http) mod write;

use std::sync::Arc;

use axum::Router;

use super::State;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().merge(read::routes()).merge(write::routes())
}
