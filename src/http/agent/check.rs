//! `/v1/agent/check*`: checks on their own, and clients' words on their TTL checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde::Deserialize;

use crate::http::State;
use crate::http::decode::{Kind, Shape, decode};
use crate::http::definition::{CHECK, CheckBody, Context};
use crate::http::door::admission::Admitted;
use crate::http::door::caller::Whose;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{self, Done, Rest, Whole, get, put};
use crate::http::selectors::{self, listed};
use crate::http::shape;
use crate::model::check::OUTPUT_OCTETS_MAX;
use crate::model::{CheckId, InstanceId, Origin, Status};
use crate::registry::{Caller, Command};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/agent/checks", get(checks))
        .route("/v1/agent/check/register", put(register))
        .route("/v1/agent/check/deregister/", put(deregister))
        .route("/v1/agent/check/deregister/{*id}", put(deregister))
        .route("/v1/agent/check/pass/", put(pass))
        .route("/v1/agent/check/pass/{*id}", put(pass))
        .route("/v1/agent/check/warn/", put(warn))
        .route("/v1/agent/check/warn/{*id}", put(warn))
        .route("/v1/agent/check/fail/", put(fail))
        .route("/v1/agent/check/fail/{*id}", put(fail))
        .route("/v1/agent/check/update/", put(update))
        .route("/v1/agent/check/update/{*id}", put(update))
}

async fn checks(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    params: Params,
) -> Result<Response, Error> {
    params.check_read(&state.config.load().datacenter)?;
    let filter = params.filter(selectors::CHECK, &state)?;
    let snapshot = state.registry.load();
    let node = snapshot.node(caller.node.folded());
    let all = node.into_iter().flat_map(|node| shape::agent_checks(node));
    let mut hidden = false;
    let all = all.filter(|check| match check.service_name {
        "" => params.asker.shows_node(caller.node.folded(), &mut hidden),
        service => params.asker.shows(service, caller.node.folded(), &mut hidden),
    });
    let shown = all.filter(|check| listed(filter.as_ref(), check));
    let shown: BTreeMap<String, _> = shown.map(|check| (check.check_id.to_string(), check)).collect();
    Ok(params.asker.filtered(route::json(&shown), hidden))
}

async fn register(
    Extract(state): Extract<Arc<State>>,
    whose: Whose,
    params: Params,
    Whole(body): Whole,
) -> Result<Done, Error> {
    let body: CheckBody = decode(&CHECK, &body)?;
    if body.name.is_empty() {
        return Err(Error::bad("Missing check name"));
    }
    if !body.status.is_empty() && Status::parse(&body.status).is_none() {
        return Err(Error::bad("Bad check status"));
    }
    let instance = (!body.service_id.is_empty()).then(|| InstanceId::parse(&body.service_id)).transpose()?;
    let scripts = state.config.load().script_checks;
    let of = Context { node: &whose.caller.node, origin: Origin::Agent, scripts, here: whose.here };
    let mut warnings = Vec::new();
    let check = body.build(&of, instance.as_ref(), &body.name, &body.name, &mut warnings)?;
    params.asker.submit(&state, Command::RegisterCheck { caller: whose.caller, check }).await?;
    Ok(Done { warnings })
}

async fn deregister(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    Rest(id): Rest,
    asker: Admitted,
) -> Result<Done, Error> {
    asker.submit(&state, Command::DeregisterCheck { caller, id: known_id(&id)? }).await?;
    Ok(Done::default())
}

fn known_id(id: &str) -> Result<CheckId, Error> {
    let text = "Ensure that the check ID is passed, not the check name.";
    CheckId::parse(id).map_err(|_| Error::not_found(format!("Unknown check ID {id:?}. {text}")))
}

async fn pass(state: Extract<Arc<State>>, whose: Whose, id: Rest, params: Params) -> Result<Done, Error> {
    say(&state, &params.asker, whose.caller, &id.0, Status::Passing, params.get("note").unwrap_or("")).await
}

async fn warn(state: Extract<Arc<State>>, whose: Whose, id: Rest, params: Params) -> Result<Done, Error> {
    say(&state, &params.asker, whose.caller, &id.0, Status::Warning, params.get("note").unwrap_or("")).await
}

async fn fail(state: Extract<Arc<State>>, whose: Whose, id: Rest, params: Params) -> Result<Done, Error> {
    say(&state, &params.asker, whose.caller, &id.0, Status::Critical, params.get("note").unwrap_or("")).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UpdateBody {
    status: String,
    output: String,
}

pub(in crate::http) const UPDATE: Shape =
    Shape { fields: &[("Status", Kind::Plain), ("Output", Kind::Plain)], aliases: &[], lax: false };

async fn update(
    state: Extract<Arc<State>>,
    whose: Whose,
    id: Rest,
    asker: Admitted,
    Whole(body): Whole,
) -> Result<Done, Error> {
    let UpdateBody { status, output } = decode(&UPDATE, &body)?;
    let status =
        Status::parse(&status).ok_or_else(|| Error::bad(format!("Invalid check status: '{status}'")))?;
    say(&state, &asker, whose.caller, &id.0, status, &output).await
}

async fn say(
    state: &State,
    asker: &Admitted,
    caller: Caller,
    id: &str,
    status: Status,
    output: &str,
) -> Result<Done, Error> {
    let (id, output) = (known_id(id)?, kept(output).into());
    asker.submit(state, Command::UpdateTtl { caller, id, status, output }).await?;
    Ok(Done::default())
}

/// As much of an output as is kept, with Consul's words on the rest.
pub(in crate::http) fn kept(output: &str) -> String {
    if output.len() <= OUTPUT_OCTETS_MAX {
        return output.to_owned();
    }
    let cut = (0..=OUTPUT_OCTETS_MAX).rev().find(|at| output.is_char_boundary(*at)).unwrap_or(0);
    format!("{} ... (captured {cut} of {} bytes)", &output[..cut], output.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_outputs_are_cut_at_a_character() {
        assert_eq!(kept("short"), "short");
        let long = "ü".repeat(3000);
        let kept = kept(&long);
        assert!(kept.ends_with(" ... (captured 4096 of 6000 bytes)"), "{}", &kept[4090..]);
        let odd = format!("x{long}");
        assert!(super::kept(&odd).ends_with(" ... (captured 4095 of 6001 bytes)"));
    }
}
