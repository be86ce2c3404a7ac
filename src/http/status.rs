//! `/v1/status`: who leads. We do, alone.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;

use super::State;
use super::error::Error;
use super::query::Params;
use super::route::{self, get};
use crate::model::Address;

/// Where Consul's servers speak to each other; nothing listens there.
const SERVER_PORT: u16 = 8300;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/status/leader", get(leader)).route("/v1/status/peers", get(peers))
}

async fn leader(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    params.check_read(&state.config.load().datacenter)?;
    Ok(route::json(&server(&state)))
}

async fn peers(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    params.check_read(&state.config.load().datacenter)?;
    Ok(route::json(&[server(&state)]))
}

/// Our own node's address and the port of Consul's servers.
pub(super) fn server(state: &State) -> String {
    let snapshot = state.registry.load();
    let own = snapshot.node(state.config.load().node.folded());
    match own.map(|entry| &entry.node.address) {
        Some(Address::Ip(std::net::IpAddr::V6(ip))) => format!("[{ip}]:{SERVER_PORT}"),
        Some(address) => format!("{address}:{SERVER_PORT}"),
        None => String::new(),
    }
}
