//! `/v1/query`: prepared queries.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::State;
use super::blocking::{answer, put_headers};
use super::decode::{Kind, Shape, decode};
use super::door::admission::{Admitted, HIDDEN};
use super::error::Error;
use super::listing::Listing;
use super::near::Near;
use super::query::{Params, parse_bool};
use super::route::{self, Done, Rest, Whole};
use super::shape;
use crate::model::name::NAME_OCTETS_MAX;
use crate::model::query::{Failover, FailoverTarget, Terms, Wanted};
use crate::model::{PreparedQuery, ServiceName, duration};
use crate::registry::{Command, QueryEntry, Snapshot, Topic};
use crate::select::{order, query as execution};

pub(super) fn routes() -> Router<Arc<State>> {
    let all = axum::routing::get(list).post(create);
    let one = axum::routing::get(read).put(update).delete(remove);
    Router::new()
        .route("/v1/query", route::with_rest(all, "OPTIONS,GET,POST"))
        .route("/v1/query/", route::with_rest(one.clone(), ONE))
        .route("/v1/query/{*rest}", one.options(allowed).fallback(other))
}

/// The methods of one query.
const ONE: &str = "OPTIONS,GET,PUT,DELETE";

/// Those of a path: executions and explanations are read alone.
fn methods(rest: &str) -> &'static str {
    let read = rest.ends_with("/execute") || rest.ends_with("/explain");
    if read { "OPTIONS,GET" } else { ONE }
}

async fn allowed(Rest(rest): Rest) -> Response {
    [(header::ALLOW, methods(&rest))].into_response()
}

async fn other(Rest(rest): Rest, method: Method) -> Response {
    route::method_not_allowed(&method, methods(&rest))
}

/// Not printable: it holds a token.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    session: String,
    token: String,
    template: TemplateBody,
    service: ServiceBody,
    #[serde(rename = "DNS")]
    dns: DnsBody,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TemplateBody {
    r#type: String,
    regexp: String,
    remove_empty_tags: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ServiceBody {
    service: String,
    failover: FailoverBody,
    only_passing: bool,
    #[serde(rename = "IgnoreCheckIDs")]
    ignore_check_ids: Vec<String>,
    near: String,
    tags: Vec<String>,
    node_meta: BTreeMap<String, String>,
    service_meta: BTreeMap<String, String>,
    connect: bool,
    peer: String,
    sameness_group: String,
    namespace: String,
    partition: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct FailoverBody {
    nearest_n: i64,
    datacenters: Vec<String>,
    targets: Vec<TargetBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TargetBody {
    peer: String,
    datacenter: String,
    namespace: String,
    partition: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DnsBody {
    #[serde(rename = "TTL")]
    ttl: String,
}

const fn shape(fields: &'static [(&'static str, Kind)]) -> Shape {
    Shape { fields, aliases: &[], lax: false }
}

pub(super) const BODY: Shape = shape(&[
    ("ID", Kind::Plain),
    ("Name", Kind::Plain),
    ("Session", Kind::Plain),
    ("Token", Kind::Plain),
    ("Template", Kind::Object(&TEMPLATE)),
    ("Service", Kind::Object(&SERVICE)),
    ("DNS", Kind::Object(&DNS)),
    ("CreateIndex", Kind::Plain),
    ("ModifyIndex", Kind::Plain),
]);
const TEMPLATE: Shape =
    shape(&[("Type", Kind::Plain), ("Regexp", Kind::Plain), ("RemoveEmptyTags", Kind::Plain)]);
const SERVICE: Shape = shape(&[
    ("Service", Kind::Plain),
    ("SamenessGroup", Kind::Plain),
    ("Failover", Kind::Object(&FAILOVER)),
    ("OnlyPassing", Kind::Plain),
    ("IgnoreCheckIDs", Kind::Plain),
    ("Near", Kind::Plain),
    ("Tags", Kind::Plain),
    ("NodeMeta", Kind::Plain),
    ("ServiceMeta", Kind::Plain),
    ("Connect", Kind::Plain),
    ("Peer", Kind::Plain),
    ("Namespace", Kind::Plain),
    ("Partition", Kind::Plain),
]);
const FAILOVER: Shape =
    shape(&[("NearestN", Kind::Plain), ("Datacenters", Kind::Plain), ("Targets", Kind::List(&TARGET))]);
const TARGET: Shape = shape(&[
    ("Peer", Kind::Plain),
    ("Datacenter", Kind::Plain),
    ("Namespace", Kind::Plain),
    ("Partition", Kind::Plain),
]);
const DNS: Shape = shape(&[("TTL", Kind::Plain)]);

impl Body {
    /// The query, or what is wrong with it, in Consul's words.
    fn build(self, id: Uuid) -> Result<PreparedQuery, Error> {
        let invalid = |text: String| Err(Error::server(format!("Invalid prepared query: {text}")));
        let template = !self.template.r#type.is_empty();
        if self.name.is_empty() && !template && self.session.is_empty() {
            return invalid("Must be bound to a session".into());
        }
        if let Err(text) = check_token(&self.token) {
            return invalid(text);
        }
        if let Err(text) = self.service.check().and_then(|()| check_ttl(&self.dns.ttl)) {
            return invalid(text);
        }
        if self.name.len() > NAME_OCTETS_MAX || self.name.chars().any(char::is_control) {
            return invalid(format!("Bad Name, at most {NAME_OCTETS_MAX} octets without control characters"));
        }
        // There are no sessions here, so it names none.
        if !self.session.is_empty() {
            let text = match Uuid::try_parse(&self.session) {
                Ok(_) => "raft apply failed: invalid session".to_owned(),
                Err(_) => format!("raft apply failed: failed session lookup: {}", no_uuid(&self.session)),
            };
            return Err(Error::server(text));
        }
        if template && self.template.r#type != TYPE {
            let text = format!("raft apply failed: Bad Template.Type '{}'", self.template.r#type);
            return Err(Error::server(text));
        }
        let TemplateBody { regexp, remove_empty_tags, .. } = self.template;
        Ok(PreparedQuery {
            id,
            name: self.name,
            token: self.token,
            template: template.then_some(Terms { regexp, remove_empty_tags }),
            service: self.service.build(),
            ttl: self.dns.ttl,
        })
    }
}

/// The one type of templates.
const TYPE: &str = "name_prefix_match";

impl ServiceBody {
    fn check(&self) -> Result<(), String> {
        let Self { failover, node_meta, service_meta, .. } = self;
        if self.service.is_empty() {
            return Err("Must provide a Service name to query".into());
        }
        if failover.nearest_n < 0 {
            return Err(format!("Bad NearestN '{}', must be >= 0", failover.nearest_n));
        }
        if (failover.nearest_n != 0 || !failover.datacenters.is_empty()) && !failover.targets.is_empty() {
            return Err("Targets cannot be populated with NearestN or Datacenters".into());
        }
        for (name, meta) in [("NodeMeta", node_meta), ("ServiceMeta", service_meta)] {
            if let Some(key) = meta.keys().find(|key| key.is_empty() || key.len() > 128) {
                return Err(format!("Invalid {name}: Couldn't load metadata pair ({key:?})"));
            }
        }
        let not_served = [
            (self.connect, "Connect", "the service mesh"),
            (!self.peer.is_empty(), "Peer", "cluster peering"),
            (!self.sameness_group.is_empty(), "SamenessGroup", "cluster peering"),
        ];
        if let Some((_, key, what)) = not_served.iter().find(|(set, ..)| *set) {
            return Err(format!("{key} is not served: Rollcall does discovery, not {what}"));
        }
        let targets = failover.targets.iter().flat_map(|t| [(&t.namespace, false), (&t.partition, true)]);
        for (text, partition) in
            [(&self.namespace, false), (&self.partition, true)].into_iter().chain(targets)
        {
            if !text.is_empty() {
                let what = if partition { "Partitions" } else { "Namespaces" };
                return Err(format!("{what} are a Consul Enterprise feature"));
            }
        }
        Ok(())
    }

    fn build(self) -> Wanted {
        let target = |TargetBody { peer, datacenter, .. }| FailoverTarget { peer, datacenter };
        let FailoverBody { nearest_n, datacenters, targets } = self.failover;
        Wanted {
            service: self.service,
            failover: Failover {
                nearest: nearest_n,
                datacenters,
                targets: targets.into_iter().map(target).collect(),
            },
            only_passing: self.only_passing,
            ignore_checks: self.ignore_check_ids,
            near: self.near,
            tags: self.tags,
            node_meta: self.node_meta,
            service_meta: self.service_meta,
        }
    }
}

/// The rules for a query that comes as the model has it.
pub(super) fn query_rules(query: &PreparedQuery) -> Result<(), Error> {
    let invalid = |text: String| Err(Error::bad(format!("Invalid prepared query: {text}")));
    if query.name.is_empty() && query.template.is_none() {
        return invalid("it has no name".to_owned());
    }
    if query.name.len() > NAME_OCTETS_MAX || query.name.chars().any(char::is_control) {
        return invalid(format!("Bad Name, at most {NAME_OCTETS_MAX} octets without control characters"));
    }
    if query.service.service.is_empty() {
        return invalid("Must provide a Service name to query".to_owned());
    }
    check_token(&query.token).and_then(|()| check_ttl(&query.ttl)).or_else(invalid)
}

/// What was read by somebody who may not see it is not written back.
fn check_token(token: &str) -> Result<(), String> {
    let hint = "it looks like a query definition with a redacted token was submitted";
    if token == HIDDEN { Err(format!("Bad Token '{HIDDEN}', {hint}")) } else { Ok(()) }
}

fn check_ttl(ttl: &str) -> Result<(), String> {
    if ttl.is_empty() {
        return Ok(());
    }
    match duration::parse(ttl) {
        Ok(_) => Ok(()),
        Err(duration::DurationError::Negative(_)) => Err(format!("DNS TTL '{ttl}', must be >=0")),
        Err(error) => Err(format!("Bad DNS TTL '{ttl}': {error}")),
    }
}

/// What Consul says of an id that is none.
fn no_uuid(text: &str) -> &'static str {
    match text.len() {
        36 => "index error: Invalid UUID",
        _ => "index error: UUID must be 36 characters",
    }
}

fn parse_id(text: &str) -> Result<Uuid, Error> {
    let hyphenated = |id: &Uuid| id.to_string().eq_ignore_ascii_case(text);
    let id = Uuid::try_parse(text).ok().filter(hyphenated);
    id.ok_or_else(|| Error::server(format!("failed prepared query lookup: {}", no_uuid(text))))
}

async fn create(
    Extract(state): Extract<Arc<State>>,
    params: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    params.check_read(&state.config.load().datacenter)?;
    let body: Body = decode(&BODY, &body)?;
    if !body.id.is_empty() {
        return Err(Error::server("ID must be empty when creating a new prepared query"));
    }
    let query = body.build(Uuid::new_v4())?;
    let id = query.id;
    params.asker.submit(&state, Command::PutQuery { query, new: true }).await?;
    Ok(route::json(&json!({ "ID": id })))
}

async fn update(
    Extract(state): Extract<Arc<State>>,
    Rest(rest): Rest,
    params: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    if let Some(refused) = only_read(&rest, &Method::PUT) {
        return Ok(refused);
    }
    params.check_read(&state.config.load().datacenter)?;
    let body: Body = decode(&BODY, &body)?;
    let query = body.build(parse_id(&rest)?)?;
    params.asker.submit(&state, Command::PutQuery { query, new: false }).await?;
    Ok(Done::default().into_response())
}

async fn remove(
    Extract(state): Extract<Arc<State>>,
    Rest(rest): Rest,
    params: Params,
) -> Result<Response, Error> {
    if let Some(refused) = only_read(&rest, &Method::DELETE) {
        return Ok(refused);
    }
    params.check_read(&state.config.load().datacenter)?;
    let id = parse_id(&rest)?;
    params.asker.submit(&state, Command::RemoveQuery { id }).await?;
    Ok(Done::default().into_response())
}

/// Whether a path has no such method.
fn only_read(rest: &str, method: &Method) -> Option<Response> {
    let allowed = methods(rest);
    (allowed != ONE).then(|| route::method_not_allowed(method, allowed))
}

async fn list(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    let mut hidden = false;
    let told = answer(&state, &params, &Topic::Queries, |snapshot| {
        let asker = params.asker.renewed(&state)?;
        let seen = snapshot.queries().filter(|entry| asker.read_query(&entry.query).is_ok());
        let seen: Vec<_> = seen.map(|entry| shown(&entry.query, entry, &asker)).collect();
        hidden = seen.len() < snapshot.queries().len();
        Ok(seen)
    });
    let told = told.await?;
    Ok(params.asker.filtered(told, hidden))
}

async fn read(
    Extract(state): Extract<Arc<State>>,
    Rest(rest): Rest,
    near: Near,
    params: Params,
) -> Result<Response, Error> {
    if let Some(name) = rest.strip_suffix("/execute") {
        return execute(&state, name, &near, &params).await;
    }
    if let Some(name) = rest.strip_suffix("/explain") {
        return explain(&state, name, &params);
    }
    let id = parse_id(&rest)?;
    answer(&state, &params, &Topic::Query(id), |snapshot| {
        let entry = snapshot.query(id).ok_or_else(not_found)?;
        let asker = params.asker.renewed(&state)?;
        asker.read_query(&entry.query)?;
        Ok([shown(&entry.query, entry, &asker)])
    })
    .await
}

fn not_found() -> Error {
    Error::not_found("Query not found")
}

fn find<'a>(snapshot: &'a Snapshot, id_or_name: &str) -> Result<&'a Arc<QueryEntry>, Error> {
    let found = Some(id_or_name).filter(|text| text.len() <= NAME_OCTETS_MAX);
    found.and_then(|text| snapshot.find_query(text)).ok_or_else(not_found)
}

fn explain(state: &State, id_or_name: &str, params: &Params) -> Result<Response, Error> {
    params.check_read(&state.config.load().datacenter)?;
    let snapshot = state.registry.snapshot();
    let entry = find(&snapshot, id_or_name)?;
    params.asker.read_query(&entry.query)?;
    let query = execution::rendered(entry, id_or_name);
    let index = snapshot.index_of(&Topic::Query(entry.query.id));
    let mut told = json!({ "Query": shown(&query, entry, &params.asker) });
    finish(&mut told, index, false, params);
    Ok(with_headers(&told, index, params))
}

async fn execute(state: &State, id_or_name: &str, near: &Near, params: &Params) -> Result<Response, Error> {
    let config = state.config.load_full();
    params.check_read(&config.datacenter)?;
    let limit = limit(params)?;
    if params.get("connect").is_some_and(|text| parse_bool(text).unwrap_or(text.is_empty())) {
        return Err(Error::bad("?connect is not served: Rollcall does discovery, not the service mesh"));
    }
    let snapshot = state.registry.snapshot();
    let query = execution::rendered(find(&snapshot, id_or_name)?, id_or_name);
    // A query that holds a token is carried out with it, whoever asks.
    let own = state.registry.view_of_query(&query.token);
    let view = own.as_ref().unwrap_or(&params.asker.view);
    let (wanted, by) = match near.text.is_empty() {
        true => (&query.service.near, view),
        false => (&near.text, &params.asker.view),
    };
    let origin = near.origin(&snapshot, by, wanted);
    let world = near.world(&snapshot, view);
    let known = execution::execute(world, &query, origin.as_ref());
    let hidden = execution::hides(world, &query);
    let mut chosen = known.map(|known| known.chosen).unwrap_or_default();
    order::shuffle(&mut chosen, rand::random());
    chosen.truncate(limit);
    let chosen: Vec<_> = chosen.iter().map(|chosen| (chosen.node.clone(), chosen.entry.clone())).collect();
    let topic = ServiceName::parse(&query.service.service).map(Topic::Service);
    let index = snapshot.index_of(&topic.unwrap_or(Topic::Services).seen_by(view));
    let mut told = json!({
        "Service": query.service.service,
        "DNS": { "TTL": query.ttl },
        "Datacenter": config.datacenter,
        "PeerName": "",
        "Failovers": 0,
    });
    finish(&mut told, index, hidden, params);
    // All but the instances, which may be many, is written in front of them.
    let mut open = told.to_string();
    open.truncate(open.len() - 1);
    open.push_str(r#","Nodes":["#);
    let datacenter = config.datacenter.clone();
    let listing = Listing::new(open, "]}", chosen, move |(node, entry), rows| {
        rows.push(&shape::checked_service(&node, &entry, &datacenter));
    });
    let mut response = listing.into_response().await;
    put_headers(response.headers_mut(), index, params.consistency());
    Ok(params.asker.filtered(response, hidden))
}

fn limit(params: &Params) -> Result<usize, Error> {
    let Some(text) = params.get("limit").filter(|text| !text.is_empty()) else { return Ok(usize::MAX) };
    let parsed: Result<i64, _> = text.parse();
    let limit = parsed
        .map_err(|_| Error::server(format!("Bad limit: strconv.Atoi: parsing {text:?}: invalid syntax")))?;
    // None, as in Consul, when it is not positive.
    Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX))
}

/// What Consul's answers to whoever executes say of themselves.
fn finish(told: &mut Value, index: u64, hidden: bool, params: &Params) {
    if let Value::Object(map) = told {
        for (key, value) in [
            ("Index", json!(index)),
            ("LastContact", json!(0)),
            ("KnownLeader", json!(true)),
            ("ConsistencyLevel", json!(params.consistency())),
            ("NotModified", json!(false)),
            ("Backend", json!(0)),
            ("ResultsFilteredByACLs", json!(hidden)),
        ] {
            map.insert(key.to_owned(), value);
        }
    }
}

fn with_headers(told: &Value, index: u64, params: &Params) -> Response {
    let mut response = route::json(told);
    put_headers(response.headers_mut(), index, params.consistency());
    response
}

/// A query as Consul shows it; `entry` is where it comes from.
fn shown(query: &PreparedQuery, entry: &QueryEntry, asker: &Admitted) -> Value {
    let wanted = &query.service;
    let targets = wanted.failover.targets.iter();
    let targets: Vec<_> =
        targets.map(|target| json!({ "Peer": target.peer, "Datacenter": target.datacenter })).collect();
    let terms = query.template.as_ref();
    json!({
        "ID": query.id,
        "Name": query.name,
        "Session": "",
        "Token": asker.secret(&query.token),
        "Template": {
            "Type": if terms.is_some() { TYPE } else { "" },
            "Regexp": terms.map_or("", |terms| terms.regexp.as_str()),
            "RemoveEmptyTags": terms.is_some_and(|terms| terms.remove_empty_tags),
        },
        "Service": {
            "Service": wanted.service,
            "Failover": {
                "NearestN": wanted.failover.nearest,
                "Datacenters": some(wanted.failover.datacenters.is_empty(), &wanted.failover.datacenters),
                "Targets": some(targets.is_empty(), &targets),
            },
            "OnlyPassing": wanted.only_passing,
            "IgnoreCheckIDs": some(wanted.ignore_checks.is_empty(), &wanted.ignore_checks),
            "Near": wanted.near,
            "Tags": some(wanted.tags.is_empty(), &wanted.tags),
            "NodeMeta": some(wanted.node_meta.is_empty(), &wanted.node_meta),
            "ServiceMeta": some(wanted.service_meta.is_empty(), &wanted.service_meta),
            "Connect": false,
            "Peer": "",
        },
        "DNS": { "TTL": query.ttl },
        "CreateIndex": entry.create_index,
        "ModifyIndex": entry.modify_index,
    })
}

/// What is empty is `null`, as in Consul.
fn some(empty: bool, value: &impl serde::Serialize) -> Value {
    if empty { Value::Null } else { json!(value) }
}
