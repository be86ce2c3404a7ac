//! A Consul's catalog as the document that an import takes.
//!
//! Nodes come from `/v1/catalog/nodes`, services with their checks from `/v1/health/service/NAME`, the checks of nodes without
//! services from `/v1/health/node/NAME`: each answer holds one service at most, so a catalog of any size is read
//! page by page. Consul shows the definition of a check only where it came through its catalog; a check that an agent runs is
//! brought with its status, and that is reported. What Consul keeps of itself (`consul`, `serfHealth`) stays there.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::header::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::source::{Connection, Source};
use super::told::{Progress, Told};
use super::{PIECE_OCTETS, Pieces};
use crate::cli::api;
use crate::cli::show::list;

/// What Consul runs for itself.
const OWN_SERVICE: &str = "consul";
const OWN_CHECK: &str = "serfHealth";
/// Fields of a service that an import takes.
const SERVICE: [&str; 11] = [
    "Kind",
    "ID",
    "Service",
    "Tags",
    "Address",
    "TaggedAddresses",
    "Meta",
    "Port",
    "SocketPath",
    "Weights",
    "EnableTagOverride",
];
/// Fields of a check that an import takes.
const CHECK: [&str; 7] = ["CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "Definition"];

/// Reads everything and sends it as it comes.
pub(super) async fn read(source: Source, prune: bool, to: &Pieces) -> anyhow::Result<Told> {
    let mut reader = Reader {
        connection: source.connection(),
        document: Document { to, piece: Vec::new(), begun: false, gone: false },
        told: Told::default(),
        checked: HashSet::new(),
        prune,
        progress: Progress::new(),
    };
    reader.catalog().await?;
    Ok(reader.told)
}

struct Reader<'a> {
    connection: Connection<'a>,
    document: Document<'a>,
    told: Told,
    /// Nodes whose own checks are done.
    checked: HashSet<String>,
    prune: bool,
    progress: Progress,
}

impl Reader<'_> {
    async fn catalog(&mut self) -> anyhow::Result<()> {
        let answer = self.connection.get("/v1/catalog/datacenters").await?;
        let datacenters: Vec<String> = serde_json::from_slice(&answer.body)
            .context("this is not what a Consul answers; is --from right?")?;
        for other in datacenters.iter().skip(1) {
            self.told.note("another datacenter is not read: name one of its own agents with --from", other);
        }
        self.may_see_all(&answer.headers)?;
        let answer = self.connection.get("/v1/catalog/nodes").await?;
        self.may_see_all(&answer.headers)?;
        let nodes: Vec<Map<String, Value>> = parsed(&answer.body, "/v1/catalog/nodes")?;
        self.document.begin(datacenters.first().map_or("", String::as_str)).await;
        for node in &nodes {
            self.document.put(&json!({ "catalog": registration(node) })).await;
        }
        let answer = self.connection.get("/v1/catalog/services").await?;
        self.may_see_all(&answer.headers)?;
        let services: BTreeMap<String, Value> = parsed(&answer.body, "/v1/catalog/services")?;
        let (total, mut instances) = (services.len(), 0);
        for (at, name) in services.keys().enumerate() {
            if name == OWN_SERVICE {
                continue;
            }
            instances += self.service(name).await?;
            self.progress.show(format_args!("services {}/{total}, {instances} instances", at + 1));
        }
        let unseen: Vec<_> = nodes.iter().filter(|node| !self.checked.contains(text(node, "Node"))).collect();
        for (at, node) in unseen.iter().enumerate() {
            let path = format!("/v1/health/node/{}", api::part(text(node, "Node")));
            let answer = self.connection.get(&path).await?;
            let checks: Vec<Map<String, Value>> = parsed(&answer.body, &path)?;
            self.checks(node, checks.iter().filter(|check| text(check, "ServiceID").is_empty())).await;
            self.progress.show(format_args!("nodes without services {}/{}", at + 1, unseen.len()));
        }
        self.document.end().await;
        Ok(())
    }

    /// The instances of one service; how many.
    async fn service(&mut self, name: &str) -> anyhow::Result<usize> {
        let path = format!("/v1/health/service/{}", api::part(name));
        let answer = self.connection.get(&path).await?;
        self.may_see_all(&answer.headers)?;
        let entries: Vec<&RawValue> = parsed(&answer.body, &path)?;
        for entry in &entries {
            let entry: Map<String, Value> = parsed(entry.get().as_bytes(), &path)?;
            let (Some(node), Some(service)) = (
                entry.get("Node").and_then(Value::as_object),
                entry.get("Service").and_then(Value::as_object),
            ) else {
                bail!("{path} is not what a Consul answers: an entry has no Node or Service");
            };
            let checks = entry.get("Checks").map_or(&[][..], list).iter().filter_map(Value::as_object);
            let (own, of_node): (Vec<_>, Vec<_>) =
                checks.partition(|check| !text(check, "ServiceID").is_empty());
            if self.checked.insert(text(node, "Node").to_owned()) {
                self.checks(node, of_node.into_iter()).await;
            }
            self.instance(node, service, &own).await;
        }
        Ok(entries.len())
    }

    async fn instance(
        &mut self,
        node: &Map<String, Value>,
        service: &Map<String, Value>,
        checks: &[&Map<String, Value>],
    ) {
        let entry = format!("{} on {}", text(service, "ID"), text(node, "Node"));
        let mut taken = picked(service, &SERVICE);
        without_own(
            &mut taken,
            "TaggedAddresses",
            &json!({ "Address": service.get("Address"), "Port": service.get("Port") }),
        );
        if let Some(locality) = service.get("Locality").filter(|locality| locality.is_object()) {
            taken.insert("Locality".to_owned(), locality.clone());
        }
        if !text(service, "Kind").is_empty() {
            self.told.note("a proxy or gateway: it is listed, the service mesh is not served", &entry);
        }
        if service.get("Connect").is_some_and(|connect| connect["Native"] == true) {
            self.told.note("Connect is left out: the service mesh is not served", &entry);
        }
        let mut whole = registration(node);
        whole["Service"] = Value::Object(taken);
        let kept: Vec<Value> = checks.iter().filter_map(|check| self.check(check)).collect();
        whole["Checks"] = Value::Array(kept);
        self.document.put(&json!({ "catalog": whole })).await;
        self.maintenance(node, checks).await;
    }

    /// A node's own checks.
    async fn checks<'c>(
        &mut self,
        node: &Map<String, Value>,
        checks: impl Iterator<Item = &'c Map<String, Value>>,
    ) {
        let checks: Vec<_> = checks.collect();
        let kept: Vec<Value> = checks.iter().filter_map(|check| self.check(check)).collect();
        if !kept.is_empty() {
            let mut whole = registration(node);
            whole["Checks"] = Value::Array(kept);
            self.document.put(&json!({ "catalog": whole })).await;
        }
        self.maintenance(node, &checks).await;
    }

    /// A check as an import takes it; none for what is Consul's own.
    fn check(&mut self, check: &Map<String, Value>) -> Option<Value> {
        let id = text(check, "CheckID");
        if id == OWN_CHECK || maintained(id).is_some() {
            return None;
        }
        let mut taken = picked(check, &CHECK);
        let defined = ["HTTP", "TCP", "UDP", "GRPC", "H2PING"];
        let definition = check.get("Definition").and_then(Value::as_object);
        if !definition.is_some_and(|definition| defined.iter().any(|key| !text(definition, key).is_empty())) {
            taken.remove("Definition");
            let kind = text(check, "Type");
            let entry = format!("{id} on {}", text(check, "Node"));
            if !kind.is_empty() {
                self.told.note("its agent runs it and does not show how: it has the status of now, which the next import renews", &entry);
            }
        }
        Some(Value::Object(taken))
    }

    /// Maintenance is a check in Consul, and a word of its own here.
    async fn maintenance(&mut self, node: &Map<String, Value>, checks: &[&Map<String, Value>]) {
        for check in checks {
            let Some(instance) = maintained(text(check, "CheckID")) else { continue };
            // As long as ours may be.
            let reason: String = text(check, "Notes").chars().take(1024).collect();
            let mut word = json!({ "node": text(node, "Node"), "reason": reason });
            if !instance.is_empty() {
                word["instance"] = json!(instance);
            }
            self.document.put(&json!({ "maintenance": word })).await;
        }
    }

    /// Notes, once, that Consul hides what the token may not read; with that, nothing may be removed.
    fn may_see_all(&mut self, headers: &HeaderMap) -> anyhow::Result<()> {
        let says = |name: &str, value: &str| headers.get(name).is_some_and(|own| own == value);
        let denies = says("x-consul-default-acl-policy", "deny");
        if !denies && !says("x-consul-results-filtered-by-acls", "true") {
            return Ok(());
        }
        let why = "Consul's ACLs are on, and it leaves out in silence what the token may not read: service:read and node:read on everything are needed";
        if self.prune && says("x-consul-results-filtered-by-acls", "true") {
            bail!("{why}; with --prune that would be removed here");
        }
        if self.prune && denies && !self.connection.has_token() {
            bail!("{why}, and no --from-token is given; with --prune all would be removed here");
        }
        if !self.document.gone {
            self.document.gone = true;
            self.told.note(why, self.connection.address());
        }
        Ok(())
    }
}

/// The instance whose maintenance a check is; empty for a node's.
fn maintained(check: &str) -> Option<&str> {
    if check == "_node_maintenance" { Some("") } else { check.strip_prefix("_service_maintenance:") }
}

/// A node as a catalog registration has it.
fn registration(node: &Map<String, Value>) -> Value {
    let mut taken = picked(node, &["ID", "Node", "Address", "TaggedAddresses"]);
    let own = node.get("Address").cloned().unwrap_or_default();
    without_own(&mut taken, "TaggedAddresses", &own);
    if let Some(meta) = node.get("Meta").and_then(Value::as_object) {
        // Consul's own, such as consul-network-segment: it takes them from nobody else.
        let meta: Map<_, _> = meta
            .iter()
            .filter(|(key, _)| !key.starts_with("consul-"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        taken.insert("NodeMeta".to_owned(), Value::Object(meta));
    }
    Value::Object(taken)
}

/// Leaves out the tagged addresses that are the address itself: every server adds them to what it shows.
fn without_own(map: &mut Map<String, Value>, key: &str, own: &Value) {
    const ADDED: [&str; 6] = ["lan", "wan", "lan_ipv4", "wan_ipv4", "lan_ipv6", "wan_ipv6"];
    let Some(tagged) = map.get_mut(key).and_then(Value::as_object_mut) else { return };
    tagged.retain(|tag, address| !(ADDED.contains(&tag.as_str()) && address == own));
    if tagged.is_empty() {
        map.remove(key);
    }
}

fn picked(map: &Map<String, Value>, keys: &[&str]) -> Map<String, Value> {
    let known = map.iter().filter(|(key, value)| keys.contains(&key.as_str()) && !value.is_null());
    known.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A text that may be missing.
fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or("")
}

fn parsed<'a, T: serde::Deserialize<'a>>(body: &'a [u8], path: &str) -> anyhow::Result<T> {
    serde_json::from_slice(body).with_context(|| format!("{path} is not what a Consul answers"))
}

/// The document on its way.
struct Document<'a> {
    to: &'a Pieces,
    piece: Vec<u8>,
    begun: bool,
    /// That something is hidden was noted.
    gone: bool,
}

impl Document<'_> {
    async fn begin(&mut self, datacenter: &str) {
        let datacenter = json!(datacenter);
        // Writing to memory does not fail, here and below.
        let _ = write!(self.piece, "{{\"rollcall_export\":1,\"datacenter\":{datacenter},\"records\":[");
    }

    async fn put(&mut self, record: &Value) {
        let before = if std::mem::replace(&mut self.begun, true) { ",\n" } else { "\n" };
        let _ = write!(self.piece, "{before}{record}");
        if self.piece.len() >= PIECE_OCTETS {
            self.send().await;
        }
    }

    async fn end(&mut self) {
        self.piece.extend_from_slice(b"\n]}\n");
        self.send().await;
    }

    /// When the server has answered already, its answer says why.
    async fn send(&mut self) {
        let _ = self.to.send(Ok(Bytes::from(std::mem::take(&mut self.piece)))).await;
    }
}
