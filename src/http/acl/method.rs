//! `/v1/acl/auth-method*` and `/v1/acl/binding-rule*`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::State;
use super::super::decode::{GoDuration, Kind, Shape};
use super::super::error::Error;
use super::super::query::Params;
use super::super::route::{self, Rest, Whole, get, put};
use super::{Now, body, new_id, not_found, read, same_id, uuid};
use crate::acl::Entry;
use crate::acl::method::{Jwt, check_name, selector};
use crate::model::acl::{AuthMethod, Bind, BindingRule};
use crate::model::{Acl, AclKey, AclKind, duration};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/acl/auth-methods", get(methods))
        .route("/v1/acl/auth-method", put(create_method))
        .route("/v1/acl/auth-method/", super::record(axum::routing::any(no_name)))
        .route(
            "/v1/acl/auth-method/{*name}",
            super::record(axum::routing::get(method).put(update_method).delete(remove_method)),
        )
        .route("/v1/acl/binding-rules", get(rules))
        .route("/v1/acl/binding-rule", put(create_rule))
        .route("/v1/acl/binding-rule/", super::record(axum::routing::any(no_id)))
        .route(
            "/v1/acl/binding-rule/{*id}",
            super::record(axum::routing::get(rule).put(update_rule).delete(remove_rule)),
        )
}

async fn no_name() -> Error {
    Error::bad("Missing auth method name")
}

async fn no_id() -> Error {
    Error::bad("Missing binding rule ID")
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MethodBody {
    name: String,
    r#type: String,
    display_name: String,
    description: String,
    #[serde(rename = "MaxTokenTTL")]
    max_token_ttl: Option<GoDuration>,
    token_locality: String,
    config: Map<String, Value>,
}

pub(in crate::http) const METHOD: Shape = Shape {
    fields: &[
        ("Name", Kind::Plain),
        ("Type", Kind::Plain),
        ("DisplayName", Kind::Plain),
        ("Description", Kind::Plain),
        ("MaxTokenTTL", Kind::Plain),
        ("TokenLocality", Kind::Plain),
        ("Config", Kind::Plain),
        ("CreateIndex", Kind::Plain),
        ("ModifyIndex", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RuleBody {
    #[serde(rename = "ID")]
    id: String,
    description: String,
    auth_method: String,
    selector: String,
    bind_type: String,
    bind_name: String,
}

pub(in crate::http) const RULE: Shape = Shape {
    fields: &[
        ("ID", Kind::Plain),
        ("Description", Kind::Plain),
        ("AuthMethod", Kind::Plain),
        ("Selector", Kind::Plain),
        ("BindType", Kind::Plain),
        ("BindName", Kind::Plain),
        ("CreateIndex", Kind::Plain),
        ("ModifyIndex", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};

/// The configuration stands in the method itself, not in the listing.
fn shown(entry: &Entry<AuthMethod>, whole: bool) -> Value {
    let method = &*entry.value;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("Name", json!(method.name));
    put("Type", json!(method.kind));
    if !method.display_name.is_empty() {
        put("DisplayName", json!(method.display_name));
    }
    put("Description", json!(method.description));
    if method.max_ttl > 0 {
        put("MaxTokenTTL", json!(duration::format(Duration::from_millis(method.max_ttl))));
    }
    if !method.locality.is_empty() {
        put("TokenLocality", json!(method.locality));
    }
    if whole {
        put("Config", method.config.clone());
    }
    put("CreateIndex", json!(entry.create_index));
    put("ModifyIndex", json!(entry.modify_index));
    Value::Object(map)
}

async fn methods(Extract(state): Extract<Arc<State>>, _: Params) -> Response {
    let now = Now::of(&state);
    read(&state, &Value::Array(now.tables().methods().map(|entry| shown(entry, false)).collect()))
}

async fn method(Extract(state): Extract<Arc<State>>, Rest(name): Rest, _: Params) -> Result<Response, Error> {
    let now = Now::of(&state);
    let entry = now.tables().method(&name).ok_or_else(not_found)?;
    Ok(read(&state, &shown(entry, true)))
}

async fn create_method(
    Extract(state): Extract<Arc<State>>,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    write_method(&state, body::read("AuthMethod", &METHOD, &body)?, true).await
}

async fn update_method(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let mut body: MethodBody = body::read("AuthMethod", &METHOD, &body)?;
    if !body.name.is_empty() && body.name != name {
        return Err(Error::bad("AuthMethod Name in URL and payload do not match"));
    }
    body.name = name;
    write_method(&state, body, false).await
}

async fn write_method(state: &State, body: MethodBody, create: bool) -> Result<Response, Error> {
    let invalid = |text: String| Error::server(format!("Invalid Auth Method: {text}"));
    body::name("Auth Method", &body.name, 128)?;
    if body.r#type != "jwt" {
        return Err(invalid(format!("Type {:?} is not served; it should be \"jwt\"", body.r#type)));
    }
    if !matches!(body.token_locality.as_str(), "" | "local" | "global") {
        return Err(invalid("TokenLocality should be one of 'local' or 'global'".into()));
    }
    let config = Value::Object(body.config);
    Jwt::read(&config).map_err(invalid)?;
    let max_ttl = body.max_token_ttl.map_or(0, |ttl| u64::try_from(ttl.0.as_millis()).unwrap_or(u64::MAX));
    let name = body.name;
    let method = AuthMethod {
        name: name.clone(),
        kind: body.r#type,
        display_name: body.display_name,
        description: body.description,
        max_ttl,
        locality: body.token_locality,
        config,
    };
    let now = super::put(state, Acl::Method(method.into()), create).await?;
    let entry = now.tables().method(&name).ok_or_else(not_found)?;
    Ok(route::json(&shown(entry, true)))
}

async fn remove_method(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    _: Params,
) -> Result<Response, Error> {
    super::remove(&state, AclKey { kind: AclKind::Method, id: name.into() }).await
}

fn shown_rule(entry: &Entry<BindingRule>) -> Value {
    let rule = &*entry.value;
    json!({
        "ID": rule.id, "Description": rule.description, "AuthMethod": rule.method, "Selector": rule.selector,
        "BindType": rule.bind, "BindName": rule.name,
        "CreateIndex": entry.create_index, "ModifyIndex": entry.modify_index,
    })
}

/// All, or those of an auth method.
async fn rules(Extract(state): Extract<Arc<State>>, params: Params) -> Response {
    let now = Now::of(&state);
    let method = params.get("authmethod").filter(|name| !name.is_empty());
    let wanted = now.tables().rules().filter(|entry| method.is_none_or(|name| entry.value.method == name));
    read(&state, &Value::Array(wanted.map(shown_rule).collect()))
}

async fn rule(Extract(state): Extract<Arc<State>>, Rest(id): Rest, _: Params) -> Result<Response, Error> {
    let now = Now::of(&state);
    let entry = now.tables().rule(uuid(&id)?).ok_or_else(not_found)?;
    Ok(read(&state, &shown_rule(entry)))
}

async fn create_rule(
    Extract(state): Extract<Arc<State>>,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: RuleBody = body::read("BindingRule", &RULE, &body)?;
    write_rule(&state, new_id("binding rule", &body.id)?, body, true).await
}

async fn update_rule(
    Extract(state): Extract<Arc<State>>,
    Rest(id): Rest,
    _: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: RuleBody = body::read("BindingRule", &RULE, &body)?;
    write_rule(&state, same_id("BindingRule", &body.id, &id)?, body, false).await
}

async fn write_rule(state: &State, id: Uuid, body: RuleBody, create: bool) -> Result<Response, Error> {
    let invalid = |text: String| Error::server(format!("Invalid Binding Rule: {text}"));
    if body.auth_method.is_empty() {
        return Err(invalid("no AuthMethod is set".into()));
    }
    let bind = match body.bind_type.as_str() {
        "service" => Bind::Service,
        "node" => Bind::Node,
        "role" => Bind::Role,
        "policy" => Bind::Policy,
        "" => return Err(invalid("no BindType set".into())),
        other => return Err(invalid(format!("unknown BindType {other:?}"))),
    };
    if body.bind_name.is_empty() {
        return Err(invalid("no BindName set".into()));
    }
    check_name(&body.bind_name).map_err(|e| invalid(format!("invalid BindName: {e}")))?;
    selector(&body.selector).map_err(|e| invalid(format!("invalid Selector: {e}")))?;
    let rule = BindingRule {
        id,
        description: body.description,
        method: body.auth_method,
        selector: body.selector,
        bind,
        name: body.bind_name,
    };
    let now = super::put(state, Acl::Rule(rule.into()), create).await?;
    let entry = now.tables().rule(id).ok_or_else(not_found)?;
    Ok(route::json(&shown_rule(entry)))
}

async fn remove_rule(
    Extract(state): Extract<Arc<State>>,
    Rest(id): Rest,
    _: Params,
) -> Result<Response, Error> {
    super::remove(&state, AclKey::new(AclKind::Rule, &uuid(&id)?)).await
}
