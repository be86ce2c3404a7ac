//! `/v1/agent/reload`, `leave`, `members` and `force-leave`: the process, and who counts as its company.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tokio::sync::oneshot;

use super::own::member;
use crate::http::State;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{self, Done, Rest, get, put};
use crate::http::selectors::{self, Member, listed};
use crate::model::{NodeName, Status};
use crate::registry::{Command, snapshot};

/// How long whoever runs the server may take to reload it.
const RELOAD_WITHIN: Duration = Duration::from_secs(60);

/// What is asked of whoever runs the server.
#[derive(Debug)]
pub enum Asked {
    /// To read the configuration again. The answer names keys that wait for the next start, or says why nothing changed.
    Reload(oneshot::Sender<Result<Vec<&'static str>, String>>),
    /// To end.
    Leave,
    /// To end at once, and to say that it failed: the registry's writer has ended, and nothing changes any more. Asked by no request.
    End,
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/agent/reload", put(reload))
        .route("/v1/agent/leave", put(leave))
        .route("/v1/agent/members", get(members))
        .route("/v1/agent/force-leave/", put(force_leave))
        .route("/v1/agent/force-leave/{*node}", put(force_leave))
}

fn nobody() -> Error {
    Error::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping or restarting; try again")
}

/// As SIGHUP: all or nothing.
async fn reload(Extract(state): Extract<Arc<State>>, _: Params) -> Result<Done, Error> {
    let (reply, outcome) = oneshot::channel();
    state.asked.try_send(Asked::Reload(reply)).map_err(|_| nobody())?;
    let outcome = tokio::time::timeout(RELOAD_WITHIN, outcome).await.map_err(|_| nobody())?;
    let waiting = outcome.map_err(|_| nobody())?.map_err(Error::server)?;
    let warning = format!("these keys differ and wait for the next start: {}", waiting.join(", "));
    Ok(Done { warnings: if waiting.is_empty() { Vec::new() } else { vec![warning] } })
}

/// As SIGTERM: this request, too, is answered before the end.
async fn leave(Extract(state): Extract<Arc<State>>, _: Params) -> Result<Done, Error> {
    state.asked.try_send(Asked::Leave).map_err(|_| nobody())?;
    Ok(Done::default())
}

/// Ourselves: nobody gossips here. Other machines are nodes of the catalog.
async fn members(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    params.check_read(&state.config.load().datacenter)?;
    let filter = params.filter(selectors::MEMBER, &state)?;
    let elsewhere = params.get("segment").is_some_and(|segment| !matches!(segment, "" | "_all"));
    let own = member(&state);
    let mut hidden = false;
    let shown = !elsewhere && params.asker.shows_node(state.config.load().node.folded(), &mut hidden);
    let shown = shown && listed(filter.as_ref(), &Member(&own));
    Ok(params.asker.filtered(route::json(&if shown { json!([own]) } else { json!([]) }), hidden))
}

/// Takes a node out of the catalog with all it has: one that failed (a check of its own is critical), or any with `?prune`.
/// Consul's members that live refute it; here nothing happens to such a node, nor to our own.
async fn force_leave(
    Extract(state): Extract<Arc<State>>,
    Rest(name): Rest,
    params: Params,
) -> Result<Done, Error> {
    let prune = params.flag("prune")?;
    let snapshot = state.registry.snapshot();
    let found = NodeName::parse(&name).ok().and_then(|node| snapshot.node(node.folded()));
    let Some(entry) = found else {
        return Err(Error::server(format!("agent: No node found with name '{name}'")));
    };
    let node = entry.node.name.clone();
    let failed = snapshot::worst(&entry.own_checks) == Status::Critical;
    if node != state.config.load().node && (prune || failed) {
        let command = Command::CatalogDeregister { node, instance: None, check: None };
        state.registry.submit(command).await?;
    }
    Ok(Done::default())
}
