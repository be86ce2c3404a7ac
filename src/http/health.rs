//! `/v1/health`: instances with their checks, and checks alone.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;

use super::State;
use super::blocking::answer;
use super::catalog::{find_node, node_topic, service_topic};
use super::error::Error;
use super::query::Params;
use super::route::{Rest, get};
use super::shape;
use crate::model::Status;
use crate::registry::Topic;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/health/service/", get(service))
        .route("/v1/health/service/{*name}", get(service))
        .route("/v1/health/checks/", get(checks))
        .route("/v1/health/checks/{*name}", get(checks))
        .route("/v1/health/node/", get(node))
        .route("/v1/health/node/{*name}", get(node))
        .route("/v1/health/state/", get(with_state))
        .route("/v1/health/state/{*name}", get(with_state))
}

async fn service(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    params: Params,
) -> Result<Response, Error> {
    let topic = service_topic(&name)?;
    let passing = params.flag("passing")?;
    let datacenter = state.config.load().datacenter.clone();
    let (tags, meta): (Vec<_>, _) = (params.all("tag").collect(), params.node_meta());
    answer(&state, &params, &topic, |snapshot| {
        let members = shape::members(snapshot, &name, &tags, &meta).into_iter();
        let members = members.filter(|(_, entry)| !passing || shape::passes(snapshot, entry));
        Ok(members.map(|(node, entry)| shape::checked_service(node, entry, &datacenter)).collect::<Vec<_>>())
    })
    .await
}

async fn checks(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    params: Params,
) -> Result<Response, Error> {
    let topic = service_topic(&name)?;
    let meta = params.node_meta();
    answer(&state, &params, &topic, |snapshot| {
        let members = shape::members(snapshot, &name, &[], &meta).into_iter();
        Ok(members.flat_map(|(node, entry)| shape::instance_checks(node, entry)).collect::<Vec<_>>())
    })
    .await
}

async fn node(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    params: Params,
) -> Result<Response, Error> {
    let (name, topic) = node_topic(&state, &name)?;
    answer(&state, &params, &topic, |snapshot| {
        let node = find_node(snapshot, &name);
        Ok(node.into_iter().flat_map(|node| shape::all_checks(node)).collect::<Vec<_>>())
    })
    .await
}

async fn with_state(
    Extract(state): Extract<Arc<State>>,
    Rest(wanted): Rest,
    params: Params,
) -> Result<Response, Error> {
    if wanted.is_empty() {
        return Err(Error::bad("Missing check state"));
    }
    let wanted = match wanted.as_str() {
        "any" => Some(None),
        text => Status::parse(text).map(Some),
    };
    let meta = params.node_meta();
    answer(&state, &params, &Topic::Checks, |snapshot| {
        let nodes = snapshot.nodes().filter(|node| shape::has_meta(node, &meta));
        let checks = nodes.flat_map(|node| shape::all_checks(node));
        // A state that does not exist is one that no check has.
        let is_wanted = |status: &str| match wanted {
            None => false,
            Some(None) => true,
            Some(Some(wanted)) => status == wanted.as_str(),
        };
        Ok(checks.filter(|check| is_wanted(check.status)).collect::<Vec<_>>())
    })
    .await
}
