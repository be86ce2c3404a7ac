//! `/v1/health`: instances with their checks, and checks alone.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;

use super::State;
use super::blocking::list;
use super::catalog::members;
use super::catalog::read::{find_node, node_topic, service_topic};
use super::error::Error;
use super::listing::Listing;
use super::near::MaybeNear;
use super::query::Params;
use super::route::{Rest, get};
use super::selectors::{self, listed};
use super::shape::{self, CheckShape};
use crate::registry::{NodeEntry, Topic};

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
    near: MaybeNear,
    params: Params,
) -> Result<Response, Error> {
    let topic = service_topic(&name)?;
    let passing = params.flag("passing")?;
    let datacenter = state.config.load().datacenter.clone();
    let filter = params.filter(selectors::CHECKED_SERVICE, &state)?;
    list(&state, &params, &topic, |snapshot| {
        let world = snapshot.clone();
        members::list(snapshot, &name, &params, (params.tags(), &near), move |node, entry, rows| {
            let shown = shape::checked_service(node, entry, &datacenter);
            if (!passing || shape::passes(&world, entry)) && listed(filter.as_ref(), &shown) {
                rows.push(&shown);
            }
        })
    })
    .await
}

async fn checks(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    near: MaybeNear,
    params: Params,
) -> Result<Response, Error> {
    let topic = service_topic(&name)?;
    let filter = params.filter(selectors::CHECK, &state)?;
    list(&state, &params, &topic, |snapshot| {
        members::list(snapshot, &name, &params, (Vec::new(), &near), move |node, entry, rows| {
            let all = shape::instance_checks(node, entry);
            all.filter(|check| listed(filter.as_ref(), check)).for_each(|check| rows.push(&check));
        })
    })
    .await
}

async fn node(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    params: Params,
) -> Result<Response, Error> {
    let (name, topic) = node_topic(&state, &name, &params)?;
    let filter = params.filter(selectors::CHECK, &state)?;
    list(&state, &params, &topic, |snapshot| {
        let nodes: Vec<_> = find_node(snapshot, &name).cloned().into_iter().collect();
        all_checks(nodes, move |check| listed(filter.as_ref(), check))
    })
    .await
}

async fn with_state(
    Extract(state): Extract<Arc<State>>,
    Rest(wanted): Rest,
    near: MaybeNear,
    params: Params,
) -> Result<Response, Error> {
    if wanted.is_empty() {
        return Err(Error::bad("Missing check state"));
    }
    let filter = params.filter(selectors::CHECK, &state)?;
    let meta = params.node_meta();
    list(&state, &params, &Topic::Checks, |snapshot| {
        let mut nodes: Vec<_> =
            snapshot.nodes().filter(|node| shape::has_meta(node, &meta)).cloned().collect();
        near.sort_nodes(&mut nodes);
        // A state that does not exist is one that no check has.
        all_checks(nodes, move |check| {
            (wanted == "any" || check.status == wanted) && listed(filter.as_ref(), check)
        })
    })
    .await
}

/// The checks of nodes that are `wanted`: each node's own, then those of its instances.
fn all_checks(
    nodes: Vec<Arc<NodeEntry>>,
    wanted: impl Fn(&CheckShape<'_>) -> bool + Send + 'static,
) -> Listing {
    let entries = nodes.into_iter().flat_map(|node| {
        let instances: Vec<_> = node.instances.values().cloned().map(Some).collect();
        std::iter::once(None).chain(instances).map(move |instance| (node.clone(), instance))
    });
    Listing::array(entries, move |(node, instance), rows| {
        let mut put = |check: CheckShape<'_>| {
            if wanted(&check) {
                rows.push(&check);
            }
        };
        match &instance {
            None => shape::node_checks(&node).for_each(&mut put),
            Some(instance) => shape::instance_checks(&node, instance).for_each(&mut put),
        }
    })
}
