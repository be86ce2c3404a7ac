//! `/v1/catalog`, the reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::State;
use super::blocking::answer;
use super::error::Error;
use super::query::Params;
use super::route::{self, Rest, get};
use super::shape;
use crate::model::{NodeName, ServiceName};
use crate::registry::{NodeEntry, Snapshot, Topic};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/catalog/datacenters", get(datacenters))
        .route("/v1/catalog/nodes", get(nodes))
        .route("/v1/catalog/services", get(services))
        .route("/v1/catalog/service/", get(service))
        .route("/v1/catalog/service/{*name}", get(service))
        .route("/v1/catalog/node/", get(node))
        .route("/v1/catalog/node/{*name}", get(node))
        .route("/v1/catalog/node-services/", get(node_services))
        .route("/v1/catalog/node-services/{*name}", get(node_services))
}

async fn datacenters(Extract(state): Extract<Arc<State>>, _: Params) -> Response {
    route::json(&[&state.config.load().datacenter])
}

async fn nodes(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    let datacenter = state.config.load().datacenter.clone();
    let meta = params.node_meta();
    answer(&state, &params, &Topic::Nodes, |snapshot| {
        let nodes = snapshot.nodes().filter(|entry| shape::has_meta(entry, &meta));
        Ok(nodes.map(|entry| shape::node(entry, &datacenter)).collect::<Vec<_>>())
    })
    .await
}

/// Names with the tags of all their instances; spelt as the first instance spells it.
async fn services(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    let meta = params.node_meta();
    answer(&state, &params, &Topic::Services, |snapshot| {
        let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for service in snapshot.services() {
            let on_node = |name: &NodeName| snapshot.node(name.folded());
            let members = service.instances.values().filter(|entry| {
                meta.is_empty() || on_node(&entry.instance.node).is_some_and(|n| shape::has_meta(n, &meta))
            });
            for entry in members {
                all.entry(service.name.as_str()).or_default().extend(entry.instance.tags.iter());
            }
        }
        Ok(json!(all))
    })
    .await
}

async fn service(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    params: Params,
) -> Result<Response, Error> {
    let topic = service_topic(&name)?;
    let datacenter = state.config.load().datacenter.clone();
    let (tags, meta): (Vec<_>, _) = (params.all("tag").collect(), params.node_meta());
    answer(&state, &params, &topic, |snapshot| {
        let members = shape::members(snapshot, &name, &tags, &meta).into_iter();
        Ok(members.map(|(node, entry)| shape::catalog_service(node, entry, &datacenter)).collect::<Vec<_>>())
    })
    .await
}

/// What a query on a service waits for.
pub(super) fn service_topic(name: &str) -> Result<Topic, Error> {
    if name.is_empty() {
        return Err(Error::bad("Missing service name"));
    }
    Ok(Topic::Service(ServiceName::parse(name)?))
}

async fn node(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    params: Params,
) -> Result<Response, Error> {
    let (name, topic) = node_topic(&state, &name)?;
    let datacenter = state.config.load().datacenter.clone();
    answer(&state, &params, &topic, |snapshot| {
        let Some(entry) = find_node(snapshot, &name) else { return Ok(Value::Null) };
        let services: Map<_, _> =
            entry.instances.values().map(|e| (e.instance.id.to_string(), shape::node_service(e))).collect();
        Ok(json!({ "Node": shape::node(entry, &datacenter), "Services": services }))
    })
    .await
}

async fn node_services(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    params: Params,
) -> Result<Response, Error> {
    let (name, topic) = node_topic(&state, &name)?;
    let datacenter = state.config.load().datacenter.clone();
    answer(&state, &params, &topic, |snapshot| {
        let Some(entry) = find_node(snapshot, &name) else {
            return Ok(json!({ "Node": null, "Services": null }));
        };
        let services: Vec<_> = entry.instances.values().map(|entry| shape::node_service(entry)).collect();
        Ok(json!({ "Node": shape::node(entry, &datacenter), "Services": services }))
    })
    .await
}

/// The name asked for and what a query on it waits for. A prefix of a node's UUID also names it.
pub(super) fn node_topic(state: &State, name: &str) -> Result<(String, Topic), Error> {
    if name.is_empty() {
        return Err(Error::bad("Missing node name"));
    }
    let parsed = NodeName::parse(name)?;
    let snapshot = state.registry.load();
    let found = find_node(&snapshot, name).map(|entry| entry.node.name.clone());
    Ok((name.to_owned(), Topic::Node(found.unwrap_or(parsed))))
}

/// A node by its name, else by a prefix of its UUID of at least two characters.
pub(super) fn find_node<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<NodeEntry>> {
    let folded = name.to_ascii_lowercase();
    let by_id = || {
        let looks_like_one = folded.len() >= 2 && folded.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let mut having = snapshot
            .nodes()
            .filter(|entry| entry.node.id.is_some_and(|id| id.to_string().starts_with(&folded)));
        looks_like_one.then(|| having.next()).flatten()
    };
    snapshot.node(&folded).or_else(by_id)
}
