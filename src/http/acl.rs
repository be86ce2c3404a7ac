//! `/v1/acl` and `/v1/agent/token`: tokens, policies, roles, and ways to get a token.
//!
//! One file for each kind of record. Who may call what stands in [`admission`](super::door::admission); here is only what is said. A
//! secret leaves in these answers alone: to those who may write the ACL, and to its own bearer.

mod body;
mod jwks;
mod login;
mod method;
mod own;
mod policy;
mod role;
mod shape;
mod token;

use std::sync::Arc;

use arc_swap::Guard;
use axum::Router;
use axum::extract::State as Extract;
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::MethodRouter;
use serde_json::json;
use uuid::Uuid;

use super::State;
use super::door::admission::Admitted;
use super::error::Error;
use super::query::Params;
use super::route::{self, get};
use super::text;
use crate::acl::{Access as Wanted, Resource, Tables};
use crate::model::{Acl, AclKey};
use crate::registry::{AclCommand, Command, Snapshot};

pub(super) use body::{POLICY, ROLE, TOKEN};
pub use jwks::Jwks;
pub(super) use login::BODY as LOGIN;
pub(super) use method::{METHOD, RULE};
pub(super) use own::BODY as OWN;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .merge(token::routes())
        .merge(policy::routes())
        .merge(role::routes())
        .merge(own::routes())
        .merge(method::routes())
        .merge(login::routes())
        .route("/v1/acl/replication", get(replication))
}

/// There is one server, whose tables are the ones that count.
async fn replication(Extract(state): Extract<Arc<State>>, _: Params) -> Response {
    let never = "0001-01-01T00:00:00Z";
    route::json(&json!({
        "Enabled": false, "Running": false, "SourceDatacenter": state.config.load().datacenter,
        "ReplicationType": "", "ReplicatedIndex": 0, "ReplicatedRoleIndex": 0, "ReplicatedTokenIndex": 0,
        "LastSuccess": never, "LastError": never, "LastErrorMessage": "",
    }))
}

/// A path of one record: read, written, removed.
fn record(read: MethodRouter<Arc<State>>) -> MethodRouter<Arc<State>> {
    route::with_rest(read, "OPTIONS,GET,PUT,DELETE")
}

/// The tables as they are now.
struct Now(Guard<Arc<Snapshot>>);

impl Now {
    fn of(state: &State) -> Self {
        Self(state.registry.load())
    }

    fn tables(&self) -> &Tables {
        self.0.acl()
    }
}

/// Puts a record, and gives what was made of it.
async fn put(state: &State, record: Acl, create: bool) -> Result<Now, Error> {
    text::of_acl(&record)?;
    state.registry.submit(Command::Acl(AclCommand::Put { record, create })).await?;
    Ok(Now::of(state))
}

/// Takes a record away.
async fn remove(state: &State, key: AclKey) -> Result<Response, Error> {
    state.registry.submit(Command::Acl(AclCommand::Remove(key))).await?;
    Ok(route::json(&true))
}

/// The id of a new record, which is made here: a body names none.
fn new_id(what: &str, named: &str) -> Result<Uuid, Error> {
    match named {
        "" => Ok(Uuid::new_v4()),
        _ => Err(Error::bad(format!("Cannot specify the ID when creating a new {what}"))),
    }
}

/// The id in a path, which a body may name again.
fn same_id(what: &str, named: &str, path: &str) -> Result<Uuid, Error> {
    match named.is_empty() || named.eq_ignore_ascii_case(path) {
        true => uuid(path),
        false => Err(Error::bad(format!("{what} ID in URL and payload do not match"))),
    }
}

/// An answer with the headers of a read.
fn read(state: &State, value: &serde_json::Value) -> Response {
    let index = state.registry.load().acl().index().max(1);
    let mut response = route::json(value);
    let headers = response.headers_mut();
    headers.insert("x-consul-index", HeaderValue::from(index));
    headers.insert("x-consul-lastcontact", HeaderValue::from_static("0"));
    headers.insert("x-consul-knownleader", HeaderValue::from_static("true"));
    response
}

/// What was asked for is not there.
fn not_found() -> Error {
    Error::not_found("ACL not found")
}

/// An id from a path; one that is no UUID is one that is not there.
fn uuid(text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|_| not_found())
}

/// Whether secrets may be shown.
fn shows_secrets(access: &Admitted) -> bool {
    access.view.allows(Resource::Acl, "", Wanted::Write)
}
