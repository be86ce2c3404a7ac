//! `/v1/acl/role*`.

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
use super::body::{self, ROLE, RoleBody};
use super::{Now, new_id, not_found, read, same_id, shape, uuid};
use crate::model::acl::Role;
use crate::model::{Acl, AclKey, AclKind};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/acl/roles", get(list))
        .route("/v1/acl/role", put(create))
        .route("/v1/acl/role/", super::record(axum::routing::any(missing)))
        .route("/v1/acl/role/name/{*name}", get(named))
        .route("/v1/acl/role/{*id}", super::record(axum::routing::get(one).put(update).delete(remove)))
}

async fn missing() -> Error {
    Error::bad("Missing role ID")
}

/// All, or those with a policy.
async fn list(Extract(state): Extract<Arc<State>>, params: Params) -> Response {
    let now = Now::of(&state);
    let policy = params.get("policy").filter(|text| !text.is_empty());
    let policy = policy.map(|text| Uuid::parse_str(text).unwrap_or_default());
    let wanted = |role: &Role| policy.is_none_or(|id| role.grants.policies.contains(&id));
    let shown = now.tables().roles().filter(|entry| wanted(&entry.value));
    let shown = shown.map(|entry| shape::role(entry, now.tables()));
    read(&state, &Value::Array(shown.collect()))
}

async fn one(Extract(state): Extract<Arc<State>>, Rest(id): Rest, _: Params) -> Result<Response, Error> {
    let now = Now::of(&state);
    let entry = now.tables().role(uuid(&id)?).ok_or_else(not_found)?;
    Ok(read(&state, &shape::role(entry, now.tables())))
}

async fn named(Extract(state): Extract<Arc<State>>, Rest(name): Rest, _: Params) -> Result<Response, Error> {
    let now = Now::of(&state);
    let entry = now.tables().role_named(&name).ok_or_else(not_found)?;
    Ok(read(&state, &shape::role(entry, now.tables())))
}

async fn create(
    Extract(state): Extract<Arc<State>>,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: RoleBody = body::read("Role", &ROLE, &body)?;
    write(&state, new_id("role", &body.id)?, body, true).await
}

async fn update(
    Extract(state): Extract<Arc<State>>,
    Rest(id): Rest,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: RoleBody = body::read("Role", &ROLE, &body)?;
    write(&state, same_id("Role", &body.id, &id)?, body, false).await
}

async fn write(state: &State, id: Uuid, body: RoleBody, create: bool) -> Result<Response, Error> {
    body::name("Role", &body.name, 256)?;
    let before = Now::of(state);
    let grants = body.grants(before.tables(), &state.config.load().datacenter)?;
    drop(before);
    let role = Role { id, name: body.name, description: body.description, grants };
    let now = super::put(state, Acl::Role(role.into()), create).await?;
    let entry = now.tables().role(id).ok_or_else(not_found)?;
    Ok(route::json(&shape::role(entry, now.tables())))
}

async fn remove(Extract(state): Extract<Arc<State>>, Rest(id): Rest, _: Params) -> Result<Response, Error> {
    super::remove(&state, AclKey::new(AclKind::Role, &uuid(&id)?)).await
}
