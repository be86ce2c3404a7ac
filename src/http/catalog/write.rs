//! `/v1/catalog/register` and `deregister`: nodes, instances and checks that somebody else looks after.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde::Deserialize;

use crate::http::State;
use crate::http::agent::kept;
use crate::http::decode::{Kind, Shape, decode};
use crate::http::definition::{
    CATALOG_SERVICE, CHECK_DEFINITION, CatalogServiceBody, CheckBody, Context, LOCALITY, LocalityBody,
    check_meta,
};
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{self, Whole, put};
use crate::http::text;
use crate::model::{
    Address, Check, CheckId, CheckKind, Instance, InstanceId, Locality, Node, NodeName, Origin, Status, Terms,
};
use crate::registry::{Command, Seen};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/catalog/register", put(register))
        .route("/v1/catalog/deregister", put(deregister))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RegisterBody {
    datacenter: String,
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    tagged_addresses: BTreeMap<String, String>,
    node_meta: BTreeMap<String, String>,
    service: Option<CatalogServiceBody>,
    check: Option<CheckEntryBody>,
    checks: Vec<CheckEntryBody>,
    skip_node_update: bool,
    locality: Option<LocalityBody>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CheckEntryBody {
    node: String,
    #[serde(rename = "CheckID")]
    check_id: String,
    name: String,
    status: String,
    notes: String,
    output: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    definition: Option<CheckBody>,
}

const CHECK_ENTRY: Shape = Shape {
    fields: &[
        ("Node", Kind::Plain),
        ("CheckID", Kind::Plain),
        ("Name", Kind::Plain),
        ("Status", Kind::Plain),
        ("Notes", Kind::Plain),
        ("Output", Kind::Plain),
        ("ServiceID", Kind::Plain),
        ("ServiceName", Kind::Plain),
        ("ServiceTags", Kind::Plain),
        ("Type", Kind::Plain),
        ("Interval", Kind::Plain),
        ("Timeout", Kind::Plain),
        ("ExposedPort", Kind::Plain),
        ("Definition", Kind::Object(&CHECK_DEFINITION)),
        ("PeerName", Kind::Plain),
        ("CreateIndex", Kind::Plain),
        ("ModifyIndex", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};
pub(in crate::http) const REGISTER: Shape = Shape {
    fields: &[
        ("Datacenter", Kind::Plain),
        ("ID", Kind::Plain),
        ("Node", Kind::Plain),
        ("Address", Kind::Plain),
        ("TaggedAddresses", Kind::Plain),
        ("NodeMeta", Kind::Plain),
        ("Service", Kind::Object(&CATALOG_SERVICE)),
        ("Check", Kind::Object(&CHECK_ENTRY)),
        ("Checks", Kind::List(&CHECK_ENTRY)),
        ("SkipNodeUpdate", Kind::Plain),
        ("Locality", Kind::Object(&LOCALITY)),
        ("PeerName", Kind::Plain),
        ("WriteRequest", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};

async fn register(
    Extract(state): Extract<Arc<State>>,
    params: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: RegisterBody = decode(&REGISTER, &body)?;
    let config = state.config.load_full();
    params.check_read(&config.datacenter)?;
    same_datacenter(&body.datacenter, &config.datacenter)?;
    let skip_node = body.skip_node_update;
    let node = body.node()?;
    let of = Context { node: &node.name, origin: Origin::Catalog, scripts: false, here: true };
    let mut instance = None;
    if let Some(service) = body.service {
        instance = Some(service.into_service()?.build(&of).map_err(as_server)?.0);
    }
    let bodies: Vec<_> = body.check.into_iter().chain(body.checks).collect();
    let outputs: Vec<Arc<str>> = bodies.iter().map(|check| kept(&check.output).into()).collect();
    let checks: Vec<Check> = bodies
        .into_iter()
        .map(|check| check.build(&of, instance.as_ref(), &state))
        .collect::<Result<_, _>>()?;
    let seen = |(check, output): (Check, Arc<str>)| Seen { status: check.initial, check, output };
    let checks = checks.into_iter().zip(outputs).map(seen).collect();
    params.asker.submit(&state, Command::CatalogRegister { node, skip_node, instance, checks }).await?;
    Ok(route::json(&true))
}

/// What another registry's catalog has, in the form of a registration.
pub(in crate::http) struct Registration {
    pub(in crate::http) node: Node,
    pub(in crate::http) instance: Option<Instance>,
    pub(in crate::http) checks: Vec<Seen>,
    /// What was said of it and could not be taken.
    pub(in crate::http) notes: Vec<String>,
}

/// Reads one. A check whose definition cannot be run here is taken with the status that it has.
pub(in crate::http) fn registration(value: serde_json::Value, state: &State) -> Result<Registration, Error> {
    let text = serde_json::to_vec(&value).map_err(|e| Error::bad(e.to_string()))?;
    let body: RegisterBody = decode(&REGISTER, &text)?;
    let node = body.node()?;
    let of = Context { node: &node.name, origin: Origin::Catalog, scripts: false, here: true };
    let (mut instance, mut notes) = (None, Vec::new());
    if let Some(service) = body.service {
        let (built, _, said) = service.into_service()?.build(&of)?;
        notes = said;
        instance = Some(built);
    }
    let mut checks = Vec::new();
    for mut check in body.check.into_iter().chain(body.checks) {
        let id = if check.check_id.is_empty() { check.name.clone() } else { check.check_id.clone() };
        let (status, output) = (check.status.clone(), std::mem::take(&mut check.output));
        let undefined = CheckEntryBody { definition: None, ..check.clone() };
        let built = check.build(&of, instance.as_ref(), state).or_else(|error| {
            notes.push(format!("check {id:?} is taken with its status alone: {}", error.text));
            undefined.build(&of, instance.as_ref(), state)
        })?;
        let status = Status::parse(&status).unwrap_or(Status::Critical);
        checks.push(Seen { check: built, status, output: output.into() });
    }
    Ok(Registration { node, instance, checks, notes })
}

/// The node that a registration is about, or the instance on it, as far as it can be told.
pub(in crate::http) fn owner_of(value: &serde_json::Value) -> Option<(NodeName, Option<InstanceId>)> {
    let node = NodeName::parse(value["Node"].as_str()?).ok()?;
    let id = value["Service"]["ID"].as_str().map(InstanceId::parse);
    Some((node, id.transpose().ok()?))
}

/// What a registration is about, in words, as far as it can be told.
pub(in crate::http) fn name_of(value: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
    let node = text(&value["Node"]);
    match &value["Service"]["ID"] {
        serde_json::Value::Null => format!("node {node:?}"),
        id => format!("service {:?} on node {node:?}", text(id)),
    }
}

/// Consul's servers answer 500 to an address that means every address, where its agents answer 400.
fn as_server(error: Error) -> Error {
    if error.text == "Invalid service address" { Error::server(error.text) } else { error }
}

fn same_datacenter(asked: &str, ours: &str) -> Result<(), Error> {
    if asked.is_empty() || asked.eq_ignore_ascii_case(ours) {
        return Ok(());
    }
    Err(Error::server("No path to datacenter"))
}

impl RegisterBody {
    fn node(&self) -> Result<Node, Error> {
        if self.node.is_empty() {
            return Err(Error::server("Must provide node"));
        }
        if self.address.is_empty() && !self.skip_node_update {
            return Err(Error::server("Must provide address if SkipNodeUpdate is not set"));
        }
        check_meta("Node", &self.node_meta)?;
        let address =
            |text: &str| Address::parse(text).map_err(|e| Error::bad(format!("Invalid node address: {e}")));
        // Where the node is not touched its address is not looked at.
        let own = if self.address.is_empty() { "127.0.0.1" } else { &self.address };
        let id = (!self.id.is_empty()).then(|| uuid::Uuid::parse_str(&self.id));
        let tagged = self.tagged_addresses.iter().map(|(tag, text)| Ok((tag.clone(), address(text)?)));
        let node = Node {
            name: NodeName::parse(&self.node)?,
            id: id.transpose().map_err(|e| match self.id.len() {
                36 => Error::server(format!("Bad node ID: {e}")),
                _ => Error::server("Bad node ID: uuid string is wrong length"),
            })?,
            address: address(own)?,
            tagged_addresses: tagged.collect::<Result<_, Error>>()?,
            meta: self.node_meta.clone(),
            locality: self.locality.as_ref().map(Locality::from),
            implied: false,
        };
        text::of_node(&node).map(|()| node)
    }
}

impl CheckEntryBody {
    /// A check with what it runs, where the registration defines it; else one whose status comes from outside.
    fn build(self, of: &Context<'_>, instance: Option<&Instance>, state: &State) -> Result<Check, Error> {
        let node = of.node;
        let id = if self.check_id.is_empty() { &self.name } else { &self.check_id };
        if !self.node.is_empty() && NodeName::parse(&self.node)? != *node {
            return Err(Error::server(format!(
                "Node '{}' for check '{id}' doesn't match register request node '{node}'",
                self.node
            )));
        }
        let service =
            (!self.service_id.is_empty()).then(|| InstanceId::parse(&self.service_id)).transpose()?;
        if let Some(service) = &service {
            let registers = instance.is_some_and(|instance| instance.id == *service);
            let known = state.registry.load().instance(node.folded(), service.as_str()).is_some();
            if !registers && !known {
                return Err(Error::server(format!("Unknown service ID '{service}' for check ID '{id}'")));
            }
        }
        let status = match self.status.as_str() {
            "" => Status::Critical,
            text => {
                Status::parse(text).ok_or_else(|| Error::bad(format!("Invalid check status: '{text}'")))?
            }
        };
        let check_id = CheckId::parse(id)?;
        let definition = self.definition.filter(CheckBody::defines_a_probe);
        let mut check = match definition {
            Some(definition) => definition.build(of, service.as_ref(), id, &self.name, &mut Vec::new())?,
            None => external(of, check_id.clone(), service),
        };
        check.id = check_id;
        let check = check.with(|terms| {
            terms.name = self.name;
            terms.notes = self.notes;
            terms.initial = status;
        });
        text::of_check(&check).map(|()| check)
    }
}

fn external(of: &Context<'_>, id: CheckId, instance: Option<InstanceId>) -> Check {
    let terms = Terms::unprobed(CheckKind::External, Status::Critical, of.origin);
    Check { node: of.node.clone(), id, instance, terms: terms.into() }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DeregisterBody {
    datacenter: String,
    node: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    #[serde(rename = "CheckID")]
    check_id: String,
}

pub(in crate::http) const DEREGISTER: Shape = Shape {
    fields: &[
        ("Datacenter", Kind::Plain),
        ("Node", Kind::Plain),
        ("Address", Kind::Plain),
        ("ServiceID", Kind::Plain),
        ("CheckID", Kind::Plain),
        ("WriteRequest", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};

async fn deregister(
    Extract(state): Extract<Arc<State>>,
    params: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let body: DeregisterBody = decode(&DEREGISTER, &body)?;
    let config = state.config.load_full();
    params.check_read(&config.datacenter)?;
    same_datacenter(&body.datacenter, &config.datacenter)?;
    if body.node.is_empty() {
        return Err(Error::server("Must provide node"));
    }
    let node = NodeName::parse(&body.node)?;
    let given = |text: &str| !text.is_empty();
    let instance = given(&body.service_id).then(|| InstanceId::parse(&body.service_id)).transpose()?;
    let check = given(&body.check_id).then(|| CheckId::parse(&body.check_id)).transpose()?;
    params.asker.submit(&state, Command::CatalogDeregister { node, instance, check }).await?;
    Ok(route::json(&true))
}
