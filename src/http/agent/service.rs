//! `/v1/agent/service*` and `/v1/agent/maintenance`: what programs call to register themselves.

use std::hash::Hasher;
use std::sync::Arc;

use arcstr::ArcStr;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::HeaderValue;
use axum::response::Response;
use serde_json::json;

use crate::acl::View;
use crate::http::State;
use crate::http::blocking::with_jitter;
use crate::http::decode::decode;
use crate::http::definition::{Context, SERVICE, ServiceBody};
use crate::http::door::admission::Admitted;
use crate::http::door::caller::Whose;
use crate::http::error::Error;
use crate::http::listing::Listing;
use crate::http::query::{Params, parse_bool};
use crate::http::route::{self, Done, Rest, Whole, get, put};
use crate::http::selectors::{self, listed};
use crate::http::shape::{self, ServiceShape};
use crate::http::text;
use crate::model::{InstanceId, Origin};
use crate::registry::{Caller, Command, InstanceEntry, Snapshot, Topic};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/agent/services", get(services))
        .route("/v1/agent/service/register", put(register))
        .route("/v1/agent/service/deregister/", put(deregister))
        .route("/v1/agent/service/deregister/{*id}", put(deregister))
        .route("/v1/agent/service/maintenance/", put(maintain_service))
        .route("/v1/agent/service/maintenance/{*id}", put(maintain_service))
        .route("/v1/agent/service/{*id}", get(service))
        .route("/v1/agent/maintenance", put(maintain_node))
}

async fn register(
    Extract(state): Extract<Arc<State>>,
    whose: Whose,
    params: Params,
    Whole(body): Whole,
) -> Result<Done, Error> {
    let replace_checks = params.flag("replace-existing-checks")?;
    let body: ServiceBody = decode(&SERVICE, &body)?;
    let scripts = state.config.load().script_checks;
    let of = Context { node: &whose.caller.node, origin: Origin::Agent, scripts, here: whose.here };
    let (instance, checks, warnings) = body.build(&of)?;
    let caller = whose.caller;
    let command = Command::RegisterInstance { caller, instance, checks, replace_checks };
    params.asker.submit(&state, command).await?;
    Ok(Done { warnings })
}

async fn deregister(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    Rest(id): Rest,
    asker: Admitted,
) -> Result<Done, Error> {
    let id = known_id(&id)?;
    asker.submit(&state, Command::DeregisterInstance { caller, id }).await?;
    Ok(Done::default())
}

/// An id from a path; one that cannot be is one that is not there.
pub(in crate::http) fn known_id(id: &str) -> Result<InstanceId, Error> {
    let unknown = || {
        let text = "Ensure that the service ID is passed, not the service name.";
        Error::not_found(format!("Unknown service ID {id:?}. {text}"))
    };
    InstanceId::parse(id).map_err(|_| unknown())
}

async fn maintain_service(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    Rest(id): Rest,
    params: Params,
) -> Result<Done, Error> {
    if id.is_empty() {
        return Err(Error::bad("Missing service ID"));
    }
    let reason = maintenance_reason(&params, "service")?;
    let id = known_id(&id)?;
    params.asker.submit(&state, Command::Maintain { caller, instance: Some(id), reason }).await?;
    Ok(Done::default())
}

async fn maintain_node(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    params: Params,
) -> Result<Done, Error> {
    let reason = maintenance_reason(&params, "node")?;
    params.asker.submit(&state, Command::Maintain { caller, instance: None, reason }).await?;
    Ok(Done::default())
}

/// The reason when maintenance begins, `None` when it ends.
fn maintenance_reason(params: &Params, of: &str) -> Result<Option<ArcStr>, Error> {
    const OCTETS_MAX: usize = 1024;
    let Some(enable) = params.get("enable").filter(|text| !text.is_empty()) else {
        return Err(Error::bad("Missing value for enable"));
    };
    let enable =
        parse_bool(enable).ok_or_else(|| Error::bad(format!("Invalid value for enable: {enable:?}")))?;
    let reason = params.get("reason").unwrap_or("");
    if reason.len() > OCTETS_MAX {
        return Err(Error::bad(format!(
            "the reason has {} octets; at most {OCTETS_MAX} are allowed",
            reason.len()
        )));
    }
    text::prose("the reason", reason)?;
    Ok(enable.then(|| match reason {
        "" => format!(
            "Maintenance mode is enabled for this {of}, but no reason was provided. This is a default message."
        )
        .into(),
        reason => reason.into(),
    }))
}

/// The instances that the caller's node registered here (not those of the catalog API).
async fn services(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    params: Params,
) -> Result<Response, Error> {
    let datacenter = state.config.load().datacenter.clone();
    params.check_read(&datacenter)?;
    let filter = params.filter(selectors::SERVICE, &state)?;
    let snapshot = state.registry.snapshot();
    let node = snapshot.node(caller.node.folded());
    let mut hidden = false;
    let all = node.into_iter().flat_map(|node| node.instances.values());
    let all = all.filter(|entry| !matches!(entry.instance.origin, Origin::Catalog | Origin::Own));
    let shown = |entry: &&Arc<InstanceEntry>| {
        params.asker.shows(entry.instance.service.folded(), caller.node.folded(), &mut hidden)
    };
    let all: Vec<_> = all.filter(shown).cloned().collect();
    let listing = Listing::new("{", "}", all, move |entry, rows| {
        let shown = shape::agent_service(&entry, &datacenter);
        if listed(filter.as_ref(), &shown) {
            rows.pair(entry.instance.id.as_str(), &shown);
        }
    });
    Ok(params.asker.filtered(listing.into_response().await, hidden))
}

/// One instance; with `?hash=` waits until it looks different.
async fn service(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    Rest(id): Rest,
    params: Params,
) -> Result<Response, Error> {
    let datacenter = state.config.load().datacenter.clone();
    params.check_read(&datacenter)?;
    let (_, wait) = params.blocking()?;
    let until = tokio::time::Instant::now() + with_jitter(wait, rand::random());
    loop {
        let snapshot = state.registry.snapshot();
        let entry = find(&snapshot, &params.asker.again(&state)?, &caller, &id)?;
        let shown = shape::agent_service(entry, &datacenter);
        let hash = content_hash(&shown);
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let waits = params.get("hash") == Some(&hash) && !left.is_zero() && !state.shutdown.is_cancelled();
        if !waits {
            let mut response = route::json(&shown.hashed(&hash));
            if let Ok(value) = HeaderValue::from_str(&hash) {
                response.headers_mut().insert("x-consul-contenthash", value);
            }
            return Ok(response);
        }
        let topic = Topic::Service(entry.instance.service.clone());
        tokio::select! {
            woken = state.registry.wait(&topic, snapshot.index_of(&topic), left) => drop(woken?),
            () = state.shutdown.cancelled() => {}
        }
    }
}

/// An instance that may not be seen is one that is not there.
fn find<'a>(
    snapshot: &'a Snapshot,
    view: &View,
    caller: &Caller,
    id: &str,
) -> Result<&'a Arc<InstanceEntry>, Error> {
    let found = snapshot.find_seen(view, caller, id);
    let found = found
        .map_err(|_| Error::bad(format!("service ID {id:?} is on several nodes; name one with ?node=")))?;
    let found = found.filter(|entry| entry.instance.origin != Origin::Own);
    found.ok_or_else(|| Error::not_found(format!("unknown service ID: {id}")))
}

/// Opaque to clients: another content has another hash.
fn content_hash(shown: &ServiceShape<'_>) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(json!(shown).to_string().as_bytes());
    format!("{:016x}", hasher.finish())
}
