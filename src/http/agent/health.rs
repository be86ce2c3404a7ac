//! `/v1/agent/health/service`: the health of one instance or of a service's instances, as a status code.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::http::State;
use crate::http::door::caller::Whose;
use crate::http::error::Error;
use crate::http::listing::Listing;
use crate::http::query::Params;
use crate::http::route::{Rest, get};
use crate::http::shape;
use crate::model::Origin;
use crate::registry::{Caller, Health, InstanceEntry, Snapshot};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/agent/health/service/id/", get(by_id))
        .route("/v1/agent/health/service/id/{*id}", get(by_id))
        .route("/v1/agent/health/service/name/", get(by_name))
        .route("/v1/agent/health/service/name/{*name}", get(by_name))
}

async fn by_id(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    Rest(id): Rest,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Error> {
    if id.is_empty() {
        return Err(Error::server("Missing serviceID"));
    }
    let text = wants_text(&params, &headers);
    let snapshot = state.registry.load();
    let found = snapshot.find_seen(&params.asker.view, &caller, &id).ok().flatten();
    let found = found.filter(|entry| entry.instance.origin != Origin::Own);
    let Some(entry) = found else {
        let unknown = json!({ "AggregatedStatus": "critical", "Service": null, "Checks": null });
        return Ok(show(text, StatusCode::NOT_FOUND, format!("ServiceId {id} not found"), &unknown));
    };
    let health = snapshot.health(entry);
    let datacenter = &state.config.load().datacenter;
    let shown = aggregated(&snapshot, entry, health, datacenter);
    Ok(show(text, code(health), health.as_str().to_owned(), &shown))
}

/// The instances of the name on the caller's node; the worst decides.
async fn by_name(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    Rest(name): Rest,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Error> {
    if name.is_empty() {
        return Err(Error::server("Missing service Name"));
    }
    params.asker.read_service(&name)?;
    let text = wants_text(&params, &headers);
    let snapshot = state.registry.snapshot();
    let members = match params.asker.view.reads_node(caller.node.folded()) {
        true => on_node(&snapshot, &caller, &name),
        false => Vec::new(),
    };
    let Some(worst) = members.iter().map(|entry| snapshot.health(entry)).max() else {
        return Ok(show(text, StatusCode::NOT_FOUND, format!("ServiceName {name} Not Found"), &json!([])));
    };
    if text {
        return Ok(show(true, code(worst), worst.as_str().to_owned(), &Value::Null));
    }
    let members: Vec<_> = members.into_iter().cloned().collect();
    let (datacenter, seen) = (state.config.load().datacenter.clone(), snapshot.clone());
    let listing = Listing::array(members, move |entry, rows| {
        rows.push(&aggregated(&seen, &entry, seen.health(&entry), &datacenter));
    });
    let mut response = listing.into_response().await;
    *response.status_mut() = code(worst);
    response.headers_mut().insert("x-consul-reason", HeaderValue::from_static(worst.as_str()));
    Ok(response)
}

fn on_node<'a>(snapshot: &'a Snapshot, caller: &Caller, name: &str) -> Vec<&'a Arc<InstanceEntry>> {
    let members = shape::members(snapshot, name, &[], &[]).into_iter();
    let known = members.map(|(_, entry)| entry).filter(|entry| entry.instance.origin != Origin::Own);
    known.filter(|entry| entry.instance.node == caller.node).collect()
}

fn aggregated(snapshot: &Snapshot, entry: &InstanceEntry, health: Health, datacenter: &str) -> Value {
    let node = snapshot.node(entry.instance.node.folded());
    let checks = node.map(|node| {
        shape::agent_node_checks(node).chain(shape::instance_checks(node, entry)).collect::<Vec<_>>()
    });
    json!({
        "AggregatedStatus": health.as_str(),
        "Service": shape::agent_service(entry, datacenter),
        "Checks": checks.unwrap_or_default(),
    })
}

fn code(health: Health) -> StatusCode {
    match health {
        Health::Passing => StatusCode::OK,
        Health::Warning => StatusCode::TOO_MANY_REQUESTS,
        Health::Critical | Health::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn wants_text(params: &Params, headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).is_some_and(|accept| accept == "text/plain");
    params.get("format") == Some("text") || accepts
}

fn show(text: bool, status: StatusCode, word: String, value: &Value) -> Response {
    let reason = [("x-consul-reason", word.escape_debug().to_string())];
    if text {
        (status, reason, word).into_response()
    } else {
        (status, reason, axum::Json(value)).into_response()
    }
}
