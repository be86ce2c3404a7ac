//! `/v1/acl/login` and `logout`: a token of ours for a token of others, and back.
//!
//! Nothing is made before the whole of it was judged: signature, times, issuer, audience, then the binding rules. What a client
//! hears of a refusal names no value of the token.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::super::State;
use super::super::decode::{Kind, Shape};
use super::super::door::admission::Admitted;
use super::super::error::Error;
use super::super::query::Params;
use super::super::route::{self, Whole};
use super::{Now, body, not_found, shape};
use crate::acl::method::{Identity, Jwt, bound};
use crate::acl::{Tables, jwt};
use crate::model::acl::{AuthMethod, Bind, Grants, NodeIdentity, ServiceIdentity, Token};
use crate::model::{Acl, AclKey, AclKind, Secret};
use crate::registry::views::now;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/acl/login", route::with_rest(axum::routing::post(login), "OPTIONS,POST"))
        .route("/v1/acl/logout", route::with_rest(axum::routing::post(logout), "OPTIONS,POST"))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    auth_method: String,
    bearer_token: String,
    meta: BTreeMap<String, String>,
}

pub(in crate::http) const BODY: Shape = Shape {
    fields: &[("AuthMethod", Kind::Plain), ("BearerToken", Kind::Plain), ("Meta", Kind::Plain)],
    aliases: &[],
    lax: false,
};

fn denied(why: &str) -> Error {
    Error::new(StatusCode::FORBIDDEN, format!("Permission denied: {why}"))
}

async fn login(
    Extract(state): Extract<Arc<State>>,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let Body { auth_method: name, bearer_token: bearer, meta } =
        body::read("Failed to decode request body: Login", &BODY, &body)?;
    if name.is_empty() {
        return Err(Error::server("Invalid Login request: no AuthMethod is set"));
    }
    let refuse = |error: Error| {
        state.metrics.http.refused("login");
        error
    };
    let method = Now::of(&state).tables().method(&name).map(|entry| entry.value.clone());
    let unknown =
        || Error::new(StatusCode::FORBIDDEN, format!("ACL not found: auth method {name:?} not found"));
    let method = method.ok_or_else(|| refuse(unknown()))?;
    let identity = prove(&state, &method, &bearer).await.map_err(refuse)?;
    let created = now();
    let grants = grants(Now::of(&state).tables(), &method, &identity, &state.config.load().datacenter);
    let grants = grants.ok_or_else(|| refuse(denied("no binding rule binds this token to anything")))?;
    let told = (!meta.is_empty()).then(|| serde_json::to_string(&meta).unwrap_or_default());
    let token = Token {
        accessor: Uuid::new_v4(),
        secret: Secret::new(&Uuid::new_v4().to_string()),
        description: told.map_or_else(
            || "token created via login".into(),
            |told| format!("token created via login: {told}"),
        ),
        grants,
        local: method.locality != "global",
        method: Some(method.name.clone()),
        expires: (method.max_ttl > 0).then(|| created.saturating_add(method.max_ttl)),
        created,
    };
    let accessor = token.accessor;
    let now = super::put(&state, Acl::Token(token.into()), true).await?;
    let entry = now.tables().token(accessor).ok_or_else(not_found)?;
    Ok(route::json(&shape::token(entry, now.tables(), true)))
}

/// Whom a bearer's token names, once it is believed.
async fn prove(state: &State, method: &AuthMethod, bearer: &str) -> Result<Identity, Error> {
    let settings = Jwt::read(&method.config)
        .map_err(|e| Error::server(format!("auth method {:?}: {e}", method.name)))?;
    let parts = jwt::read(bearer).map_err(|fault| denied(&fault.to_string()))?;
    let keys = match &settings.jwks {
        None => settings.keys.clone(),
        Some((url, ca)) => {
            let config = state.config.load_full();
            let keys = state.jwks.keys((url, ca), &parts, &config.targets, &state.metrics).await;
            keys.map_err(|reason| unreached(method, &reason))?
        }
    };
    let claims = parts.verify(&keys, &settings.algorithms).map_err(|fault| denied(&fault.to_string()))?;
    settings.judge(&claims, now() / 1000).map_err(|reason| denied(&reason))
}

/// Why is for the log: the address of a server of keys is not the client's to know.
fn unreached(method: &AuthMethod, reason: &str) -> Error {
    tracing::warn!(method = method.name, "keys of an auth method: {reason}");
    let text = format!("the keys of auth method {:?} cannot be had", method.name);
    Error::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// What the rules of a method bind an identity to; `None` where that is nothing.
fn grants(tables: &Tables, method: &AuthMethod, identity: &Identity, datacenter: &str) -> Option<Grants> {
    let mut grants = Grants::default();
    for rule in tables.rules().filter(|entry| entry.value.method == method.name) {
        let Some((bind, name)) = bound(&rule.value, identity) else { continue };
        let folded = name.to_ascii_lowercase();
        match bind {
            // A name that cannot be one binds nothing: it would be a part of rules.
            Bind::Service if body::identity("Service", &folded).is_ok() => {
                grants.services.push(ServiceIdentity { name: folded, datacenters: Vec::new() });
            }
            Bind::Node if body::identity("Node", &folded).is_ok() => {
                grants.nodes.push(NodeIdentity { name: folded, datacenter: datacenter.to_owned() });
            }
            Bind::Service | Bind::Node => {}
            Bind::Role => grants.roles.extend(tables.role_named(&name).map(|entry| entry.value.id)),
            Bind::Policy => grants.policies.extend(tables.policy_named(&name).map(|entry| entry.value.id)),
        }
    }
    (grants != Grants::default()).then_some(grants)
}

/// Takes back the request's own token, if it came by a login.
async fn logout(Extract(state): Extract<Arc<State>>, asker: Admitted, _: Params) -> Result<Response, Error> {
    if !asker.is_named() {
        return Err(Error::new(StatusCode::FORBIDDEN, "ACL not found"));
    }
    let accessor = asker.view.accessor().ok_or_else(not_found)?;
    let by_login = Now::of(&state).tables().token(accessor).is_some_and(|entry| entry.value.method.is_some());
    if !by_login {
        return Err(denied("only a token that came by a login can be logged out"));
    }
    super::remove(&state, AclKey::new(AclKind::Token, &accessor)).await
}
