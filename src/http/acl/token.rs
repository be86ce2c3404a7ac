//! `/v1/acl/bootstrap` and `/v1/acl/token*`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State as Extract};
use axum::response::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::State;
use super::super::door::admission::{Admitted, HIDDEN};
use super::super::error::Error;
use super::super::query::Params;
use super::super::route::{self, Whole, get, put};
use super::body::{self, TOKEN, TokenBody};
use super::{Now, not_found, read, same_id, shape, shows_secrets, uuid};
use crate::acl::{ANONYMOUS, GLOBAL_MANAGEMENT, INITIAL};
use crate::model::acl::{Grants, Token};
use crate::model::{Acl, AclKey, AclKind, Secret};
use crate::registry::views::now;
use crate::registry::{AclCommand, Command, Refused};
use crate::telemetry::utc;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/acl/bootstrap", put(bootstrap))
        .route("/v1/acl/tokens", get(list))
        .route("/v1/acl/token", put(create))
        .route("/v1/acl/token/self", get(own))
        .route("/v1/acl/token/", super::record(axum::routing::any(missing)))
        .route("/v1/acl/token/{id}", super::record(axum::routing::get(one).put(update).delete(remove)))
        .route("/v1/acl/token/{id}/clone", put(clone))
}

async fn missing() -> Error {
    Error::bad("Missing token ID")
}

/// The first management token, once.
async fn bootstrap(Extract(state): Extract<Arc<State>>, Whole(body): Whole) -> Result<Response, Error> {
    let given: Value = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&body)
            .map_err(|e| Error::bad(format!("Request decode failed: failed decoding request body: {e}")))?,
    };
    let secret = given.get("BootstrapSecret").and_then(Value::as_str).unwrap_or("");
    let secret = match secret {
        "" => Uuid::new_v4(),
        text => {
            Uuid::parse_str(text).map_err(|_| Error::server("Invalid Token: SecretID is not a valid UUID"))?
        }
    };
    if state.registry.access().initial_management.is_some() {
        return Err(Refused::Bootstrapped(state.registry.load().acl().index().max(1)).into());
    }
    let token = Token {
        accessor: Uuid::new_v4(),
        secret: Secret::new(&secret.to_string()),
        description: "Bootstrap Token (Global Management)".to_owned(),
        grants: Grants { policies: vec![GLOBAL_MANAGEMENT], ..Grants::default() },
        local: false,
        method: None,
        expires: None,
        created: now(),
    };
    let accessor = token.accessor;
    state.registry.submit(Command::Acl(AclCommand::Bootstrap { token: token.into() })).await?;
    tracing::info!(%accessor, "the first management token was given away");
    let now = Now::of(&state);
    let entry = now.tables().token(accessor).ok_or_else(not_found)?;
    let mut shown = shape::token(entry, now.tables(), true);
    shown.insert("ID".to_owned(), json!(entry.value.secret.reveal()));
    Ok(route::json(&shown))
}

/// All, or those with a policy, a role, an auth method, a service's identity.
async fn list(Extract(state): Extract<Arc<State>>, access: Admitted, params: Params) -> Response {
    let (now, secrets) = (Now::of(&state), shows_secrets(&access));
    let tables = now.tables();
    let wanted = |name: &str| params.get(name).filter(|value| !value.is_empty());
    let id = |name: &str| wanted(name).map(|text| Uuid::parse_str(text).unwrap_or_default());
    let (policy, role, method, service) =
        (id("policy"), id("role"), wanted("authmethod"), wanted("servicename"));
    let shown = tables.tokens().filter(|entry| {
        let Token { grants, method: by, .. } = &*entry.value;
        policy.is_none_or(|id| grants.policies.contains(&id))
            && role.is_none_or(|id| grants.roles.contains(&id))
            && method.is_none_or(|name| by.as_deref() == Some(name))
            && service.is_none_or(|name| grants.services.iter().any(|identity| identity.name == name))
            && entry.value.expires.is_none_or(|expires| expires > crate::registry::views::now())
    });
    let shown: Vec<_> = shown.map(|entry| Value::Object(shape::token(entry, tables, secrets))).collect();
    read(&state, &Value::Array(shown))
}

/// The request's own token.
async fn own(Extract(state): Extract<Arc<State>>, access: Admitted, _: Params) -> Result<Response, Error> {
    let accessor = access.view.accessor().ok_or_else(not_found)?;
    if accessor == INITIAL {
        let config = state.registry.access();
        let secret = config.initial_management.as_ref().ok_or_else(not_found)?;
        return Ok(read(&state, &shape::initial(secret.reveal())));
    }
    let now = Now::of(&state);
    let entry = now.tables().token(accessor).ok_or_else(not_found)?;
    Ok(read(&state, &Value::Object(shape::token(entry, now.tables(), true))))
}

async fn one(
    Extract(state): Extract<Arc<State>>,
    access: Admitted,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Error> {
    let now = Now::of(&state);
    let tables = now.tables();
    let entry = tables.token(uuid(&id)?).ok_or_else(not_found)?;
    if entry.value.expires.is_some_and(|expires| expires <= crate::registry::views::now()) {
        return Err(not_found());
    }
    let mut shown = shape::token(entry, tables, shows_secrets(&access));
    if params.flag("expanded")? {
        let of_roles = entry.value.grants.roles.iter().filter_map(|id| tables.role(*id));
        let roles: Vec<_> = of_roles.clone().map(|role| shape::role(role, tables)).collect();
        let linked = of_roles.flat_map(|role| &role.value.grants.policies);
        let policies = entry.value.grants.policies.iter().chain(linked).filter_map(|id| tables.policy(*id));
        let policies: Vec<_> = policies.map(|policy| shape::policy(policy, true)).collect();
        let default = if state.registry.access().default_allow { "allow" } else { "deny" };
        shown.insert("ExpandedPolicies".to_owned(), json!(policies));
        shown.insert("ExpandedRoles".to_owned(), json!(roles));
        shown.insert("AgentACLDefaultPolicy".to_owned(), json!(default));
        shown.insert("AgentACLDownPolicy".to_owned(), json!("extend-cache"));
    }
    Ok(read(&state, &Value::Object(shown)))
}

async fn create(
    Extract(state): Extract<Arc<State>>,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: TokenBody = body::read("Token", &TOKEN, &body)?;
    if !body.auth_method.is_empty() {
        return Err(Error::server("AuthMethod field is disallowed outside of Login"));
    }
    let id = |text: &str, what: &str| match text {
        "" => Ok(Uuid::new_v4()),
        text => Uuid::parse_str(text)
            .map_err(|_| Error::server(format!("Invalid Token: {what} is not a valid UUID"))),
    };
    let (accessor, secret) = (id(&body.accessor, "AccessorID")?, id(&body.secret, "SecretID")?);
    let (created, before) = (now(), Now::of(&state));
    let token = Token {
        accessor,
        secret: Secret::new(&secret.to_string()),
        description: body.description.clone(),
        grants: body.grants(before.tables(), &state.config.load().datacenter)?,
        local: body.local,
        method: None,
        expires: expires(&body, created)?,
        created,
    };
    drop(before);
    answer(&state, token, true).await
}

/// When a new token's time is over.
fn expires(body: &TokenBody, created: u64) -> Result<Option<u64>, Error> {
    let ttl = body.expiration_ttl.map(|ttl| ttl.0).filter(|ttl| !ttl.is_zero());
    let time = body.expiration_time.as_deref().filter(|text| !text.is_empty());
    match (ttl, time) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(Error::server("Token Expiration TTL and Expiration Time cannot both be set"))
        }
        (Some(ttl), None) => {
            Ok(Some(created.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1))))
        }
        (None, Some(text)) => {
            let time = utc::parse(text)
                .ok_or_else(|| Error::bad(format!("Token decoding failed: parsing time {text:?}")))?;
            match time > created {
                true => Ok(Some(time)),
                false => Err(Error::server("ExpirationTime cannot be before CreateTime")),
            }
        }
    }
}

async fn answer(state: &State, token: Token, create: bool) -> Result<Response, Error> {
    let accessor = token.accessor;
    let now = super::put(state, Acl::Token(token.into()), create).await?;
    let entry = now.tables().token(accessor).ok_or_else(not_found)?;
    Ok(route::json(&shape::token(entry, now.tables(), true)))
}

/// Makes another with the same grants.
async fn clone(
    Extract(state): Extract<Arc<State>>,
    Path(id): Path<String>,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: TokenBody = match body.is_empty() {
        true => TokenBody::default(),
        false => body::read("Token", &TOKEN, &body)?,
    };
    let old = kept(&state, uuid(&id)?)?;
    if old.method.is_some() {
        return Err(Error::server("Cannot clone a token created from an auth method"));
    }
    let description = if body.description.is_empty() { old.description.clone() } else { body.description };
    let secret = Secret::new(&Uuid::new_v4().to_string());
    let made = Token { accessor: Uuid::new_v4(), secret, description, created: now(), ..old };
    answer(&state, made, true).await
}

/// The token as it is.
fn kept(state: &State, accessor: Uuid) -> Result<Token, Error> {
    Now::of(state).tables().token(accessor).map(|entry| Token::clone(&entry.value)).ok_or_else(not_found)
}

/// What the body says takes the place of what was.
async fn update(
    Extract(state): Extract<Arc<State>>,
    Path(id): Path<String>,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: TokenBody = body::read("Token", &TOKEN, &body)?;
    let old = kept(&state, same_id("Token Accessor", &body.accessor, &id)?)?;
    let grants = body.grants(Now::of(&state).tables(), &state.config.load().datacenter)?;
    if old.method.is_some() {
        return Err(Error::server("Cannot change a token created from an auth method"));
    }
    if !body.secret.is_empty() && !old.secret.is(&body.secret) && body.secret != HIDDEN {
        return Err(Error::server("Changing a token's SecretID is not permitted"));
    }
    let expires = match (&body.expiration_time, body.expiration_ttl) {
        (None, None) => old.expires,
        _ => expires(&body, old.created)?,
    };
    let local = body.local || old.local;
    answer(&state, Token { description: body.description, grants, expires, local, ..old }, false).await
}

async fn remove(
    Extract(state): Extract<Arc<State>>,
    Path(id): Path<String>,
    _: Params,
) -> Result<Response, Error> {
    let accessor = uuid(&id)?;
    if accessor != ANONYMOUS && state.registry.load().acl().token(accessor).is_none() {
        return Err(not_found());
    }
    super::remove(&state, AclKey::new(AclKind::Token, &accessor)).await
}
