//! `/v1/catalog`, the reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::members;
use crate::http::State;
use crate::http::blocking::{cache_headers, list, waited, with_headers};
use crate::http::error::Error;
use crate::http::listing::{LOOKED_AT, Listing, Rows};
use crate::http::near::MaybeNear;
use crate::http::query::Params;
use crate::http::route::{self, Rest, get};
use crate::http::selectors::{self, listed};
use crate::http::shape::{self, ServiceShape};
use crate::model::{NodeName, ServiceName};
use crate::registry::{InstanceEntry, NodeEntry, Snapshot, Topic};

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

async fn datacenters(Extract(state): Extract<Arc<State>>, params: Params) -> Response {
    cache_headers(route::json(&[&state.config.load().datacenter]), &params)
}

async fn nodes(
    Extract(state): Extract<Arc<State>>,
    near: MaybeNear,
    params: Params,
) -> Result<Response, Error> {
    let datacenter = state.config.load().datacenter.clone();
    let (meta, filter) = (params.node_meta_owned(), params.filter(selectors::NODE, &state)?);
    list(&state, &params, &Topic::Nodes, |snapshot| {
        let mut nodes: Vec<_> = snapshot.nodes().cloned().collect();
        near.sort_nodes(&mut nodes);
        Listing::array(nodes, move |entry, rows| {
            let shown = shape::node(&entry, &datacenter);
            if shape::has_meta(&entry, &meta) && listed(filter.as_ref(), &shown) {
                rows.push(&shown);
            }
        })
    })
    .await
}

/// Names with the tags of all their instances; spelt as the first instance spells it.
async fn services(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    let datacenter = state.config.load().datacenter.clone();
    let (meta, filter) = (params.node_meta(), params.filter(selectors::CATALOG_SERVICE, &state)?);
    let snapshot = waited(&state, &params, &Topic::Services).await?;
    let is_listed = |entry: &InstanceEntry| {
        let Some(node) = snapshot.node(entry.instance.node.folded()) else { return false };
        shape::has_meta(node, &meta)
            && listed(filter.as_ref(), &shape::catalog_service(node, entry, &datacenter))
    };
    let looks = !meta.is_empty() || filter.is_some();
    // Names and tags need no node; what is asked of nodes is asked of those that may be seen.
    let (asker, mut hidden) = (params.asker.renewed(&state)?, false);
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut looked_at = 0;
    for service in snapshot.services() {
        // Instances of one service mostly have the same tags.
        let mut last = None;
        for entry in service.instances.values() {
            looked_at += 1;
            if looked_at % LOOKED_AT == 0 {
                tokio::task::yield_now().await;
            }
            let tags = Some(entry.instance.tags.packed());
            if tags == last || (looks && !asker.shows_node(entry.instance.node.folded(), &mut hidden)) {
                continue;
            }
            if !looks || is_listed(entry) {
                all.entry(service.name.as_str()).or_default().extend(entry.instance.tags.iter());
                last = tags;
            }
        }
    }
    Ok(asker.filtered(with_headers(route::json(&all), &snapshot, &Topic::Services, &params), hidden))
}

async fn service(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    near: MaybeNear,
    params: Params,
) -> Result<Response, Error> {
    let topic = service_topic(&name)?;
    let datacenter = state.config.load().datacenter.clone();
    let filter = params.filter(selectors::CATALOG_SERVICE, &state)?;
    list(&state, &params, &topic, |snapshot| {
        members::list(snapshot, &name, &params, (params.tags(), &near), move |node, entry, rows| {
            let shown = shape::catalog_service(node, entry, &datacenter);
            if listed(filter.as_ref(), &shown) {
                rows.push(&shown);
            }
        })
    })
    .await
}

/// What a query on a service waits for.
pub(in crate::http) fn service_topic(name: &str) -> Result<Topic, Error> {
    if name.is_empty() {
        return Err(Error::bad("Missing service name"));
    }
    Ok(Topic::Service(ServiceName::parse(name)?))
}

/// The node and its services by id.
async fn node(state: Extract<Arc<State>>, name: Rest, params: Params) -> Result<Response, Error> {
    let nobody = Value::Null;
    of_node(&state, &name.0, &params, nobody, ("\"Services\":{", "}}"), |service, rows| {
        rows.pair(service.entry.instance.id.as_str(), service);
    })
    .await
}

/// The node and its services in a list.
async fn node_services(state: Extract<Arc<State>>, name: Rest, params: Params) -> Result<Response, Error> {
    let nobody = json!({ "Node": null, "Services": null });
    of_node(&state, &name.0, &params, nobody, ("\"Services\":[", "]}"), |service, rows| rows.push(service))
        .await
}

/// A node, and between `around` what `write` puts for each of its services.
async fn of_node(
    state: &State,
    name: &str,
    params: &Params,
    nobody: Value,
    around: (&'static str, &'static str),
    write: impl Fn(&ServiceShape<'_>, &mut Rows<'_>) + Send + 'static,
) -> Result<Response, Error> {
    let (name, topic) = node_topic(state, name, params)?;
    let filter = params.filter(selectors::SERVICE, state)?;
    let datacenter = state.config.load().datacenter.clone();
    list(state, params, &topic, |snapshot| {
        let Some(entry) = find_node(snapshot, &name) else { return Listing::value(&nobody) };
        let open = format!("{{\"Node\":{},{}", json!(shape::node(entry, &datacenter)), around.0);
        let instances: Vec<_> = entry.instances.values().cloned().collect();
        Listing::new(open, around.1, instances, move |entry, rows| {
            let shown = shape::node_service(&entry);
            if listed(filter.as_ref(), &shown) {
                write(&shown, rows);
            }
        })
    })
    .await
}

/// The name asked for and what a query on it waits for. A prefix of a node's UUID also names it.
pub(in crate::http) fn node_topic(
    state: &State,
    name: &str,
    params: &Params,
) -> Result<(String, Topic), Error> {
    if name.is_empty() {
        return Err(Error::bad("Missing node name"));
    }
    let parsed = NodeName::parse(name)?;
    let snapshot = state.registry.load();
    let found = find_node(&snapshot, name).map(|entry| entry.node.name.clone());
    let found = found.filter(|name| params.asker.view.reads_node(name.folded()));
    Ok((name.to_owned(), Topic::Node(found.unwrap_or(parsed))))
}

/// A node by its name, else by a prefix of its UUID of at least two characters that no other has.
pub(in crate::http) fn find_node<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<NodeEntry>> {
    let folded = name.to_ascii_lowercase();
    let by_id = || {
        let looks_like_one = folded.len() >= 2 && folded.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        let has = |entry: &&Arc<NodeEntry>| {
            let mut buffer = Uuid::encode_buffer();
            entry.node.id.is_some_and(|id| id.hyphenated().encode_lower(&mut buffer).starts_with(&folded))
        };
        let mut having = snapshot.nodes().filter(has);
        let first = looks_like_one.then(|| having.next()).flatten()?;
        having.next().is_none().then_some(first)
    };
    snapshot.node(&folded).or_else(by_id)
}
