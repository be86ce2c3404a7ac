//! `/v1/acl/polic*`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde_json::Value;
use uuid::Uuid;

use super::super::State;
use super::super::error::Error;
use super::super::query::Params;
use super::super::route::{self, Rest, Whole, get, put};
use super::body::{self, POLICY, PolicyBody};
use super::{Now, new_id, not_found, read, same_id, shape, uuid};
use crate::model::acl::Policy;
use crate::model::{Acl, AclKey, AclKind};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/acl/policies", get(list))
        .route("/v1/acl/policy", put(create))
        .route("/v1/acl/policy/", super::record(axum::routing::any(missing)))
        .route("/v1/acl/policy/name/{*name}", get(named))
        .route("/v1/acl/policy/{*id}", super::record(axum::routing::get(one).put(update).delete(remove)))
}

async fn missing() -> Error {
    Error::bad("Missing policy ID")
}

async fn list(Extract(state): Extract<Arc<State>>, _: Params) -> Response {
    let now = Now::of(&state);
    let shown = now.tables().policies().map(|entry| shape::policy(entry, false));
    read(&state, &Value::Array(shown.collect()))
}

async fn one(Extract(state): Extract<Arc<State>>, Rest(id): Rest, _: Params) -> Result<Response, Error> {
    let now = Now::of(&state);
    let entry = now.tables().policy(uuid(&id)?).ok_or_else(not_found)?;
    Ok(read(&state, &shape::policy(entry, true)))
}

async fn named(Extract(state): Extract<Arc<State>>, Rest(name): Rest, _: Params) -> Result<Response, Error> {
    let now = Now::of(&state);
    let entry = now.tables().policy_named(&name).ok_or_else(not_found)?;
    Ok(read(&state, &shape::policy(entry, true)))
}

async fn create(
    Extract(state): Extract<Arc<State>>,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: PolicyBody = body::read("Policy", &POLICY, &body)?;
    write(&state, new_id("policy", &body.id)?, body, true).await
}

async fn update(
    Extract(state): Extract<Arc<State>>,
    Rest(id): Rest,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: PolicyBody = body::read("Policy", &POLICY, &body)?;
    write(&state, same_id("Policy", &body.id, &id)?, body, false).await
}

async fn write(state: &State, id: Uuid, body: PolicyBody, create: bool) -> Result<Response, Error> {
    let PolicyBody { id: _, name, description, rules, datacenters } = body;
    if !crate::acl::is_builtin(id) {
        body::name("Policy", &name, 128)?;
    }
    body::check_rules(&rules)?;
    let policy = Policy { id, name, description, rules, datacenters };
    let now = super::put(state, Acl::Policy(policy.into()), create).await?;
    let entry = now.tables().policy(id).ok_or_else(not_found)?;
    Ok(route::json(&shape::policy(entry, true)))
}

async fn remove(Extract(state): Extract<Arc<State>>, Rest(id): Rest, _: Params) -> Result<Response, Error> {
    super::remove(&state, AclKey::new(AclKind::Policy, &uuid(&id)?)).await
}
