//! `/v1/agent/token/:name`: the tokens that the server itself uses, set at run time and kept.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use serde::Deserialize;

use super::super::State;
use super::super::decode::{Kind, Shape, decode};
use super::super::error::Error;
use super::super::query::Params;
use super::super::route::{Done, Rest, Whole, put};
use crate::model::{Acl, AclKey, AclKind, Secret};
use crate::registry::views::TOKEN_OCTETS_MAX;
use crate::registry::{AclCommand, Command};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/agent/token/{name}", put(set))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    token: String,
}

pub(in crate::http) const BODY: Shape = Shape { fields: &[("Token", Kind::Plain)], aliases: &[], lax: false };

/// Names, Consul's older ones too. What its agents use the last ones for, Rollcall does not do: they are kept.
const NAMES: [(&str, &str); 10] = [
    ("default", "default"),
    ("acl_token", "default"),
    ("dns", "dns"),
    ("agent", "agent"),
    ("acl_agent_token", "agent"),
    ("agent_recovery", "agent_recovery"),
    ("agent_master", "agent_recovery"),
    ("acl_agent_master_token", "agent_recovery"),
    ("config_file_service_registration", "config_file_service_registration"),
    ("replication", "replication"),
];

/// An empty token takes back what was set.
async fn set(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    _: Params,
    Whole(body): Whole,
) -> Result<Done, Error> {
    if !state.registry.access_is_controlled() {
        return Err(Error::new(StatusCode::UNAUTHORIZED, "ACL support disabled"));
    }
    let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == name) else {
        return Err(Error::not_found(format!("Token {name:?} is unknown")));
    };
    let Body { token } = decode(&BODY, &body)?;
    if token.len() > TOKEN_OCTETS_MAX {
        return Err(Error::bad(format!("a token has at most {TOKEN_OCTETS_MAX} octets")));
    }
    let command = match token.as_str() {
        "" => AclCommand::Remove(AclKey::new(AclKind::Own, name)),
        text => AclCommand::Put {
            record: Acl::Own { name: (*name).into(), secret: Secret::new(text) },
            create: false,
        },
    };
    state.registry.submit(Command::Acl(command)).await?;
    Ok(Done::default())
}
