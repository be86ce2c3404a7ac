//! Consul's JSON, made from snapshot entries: keys in Consul's order, `null`, `[]` and `{}` where its
//! clients expect each. Input is never rewritten; the `lan_*`/`wan_*` addresses that Consul's agents add
//! to a definition are added to the output alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcstr::ArcStr;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::model::{Address, CheckKind, Node, Origin, Status, Texts, duration};
use crate::registry::{CheckEntry, Health, InstanceEntry, NodeEntry, Snapshot};

/// A node, in `/v1/catalog/nodes` and everywhere a node stands.
pub(super) fn node(entry: &NodeEntry, datacenter: &str) -> Value {
    let Node { name, id, address, tagged_addresses, meta, .. } = &*entry.node;
    json!({
        "ID": id.map_or_else(String::new, |id| id.to_string()),
        "Node": name,
        "Address": address,
        "Datacenter": datacenter,
        "TaggedAddresses": node_addresses(address, tagged_addresses),
        "Meta": meta,
        "CreateIndex": entry.create_index,
        "ModifyIndex": entry.modify_index,
    })
}

/// With `lan` and `wan`, as Consul's nodes have them.
fn node_addresses(address: &Address, tagged: &BTreeMap<String, Address>) -> BTreeMap<String, Value> {
    let mut all: BTreeMap<String, Value> =
        tagged.iter().map(|(tag, address)| (tag.clone(), json!(address))).collect();
    for tag in ["lan", "wan"].iter().chain(families(address)) {
        all.entry((*tag).to_owned()).or_insert_with(|| json!(address));
    }
    all
}

fn families(address: &Address) -> &'static [&'static str] {
    match address.ip() {
        Some(std::net::IpAddr::V4(_)) => &["lan_ipv4", "wan_ipv4"],
        Some(std::net::IpAddr::V6(_)) => &["lan_ipv6", "wan_ipv6"],
        None => &[],
    }
}

fn service_addresses(entry: &InstanceEntry) -> Map<String, Value> {
    let instance = &entry.instance;
    let one = |address: &Address, port: u16| json!({ "Address": address, "Port": port });
    let mut all: Map<String, Value> = instance
        .extras
        .tagged_addresses
        .iter()
        .map(|(tag, tagged)| (tag.clone(), one(&tagged.address, tagged.port)))
        .collect();
    for (address, tag) in instance.address.iter().flat_map(|a| families(a).iter().map(move |tag| (a, *tag))) {
        all.entry(tag).or_insert_with(|| one(address, instance.port));
    }
    all
}

/// The fields that all forms of a service have, in the order of the agent's.
fn service(entry: &InstanceEntry) -> Map<String, Value> {
    let instance = &entry.instance;
    let mut map = Map::new();
    if !instance.extras.kind.is_empty() {
        map.insert("Kind".into(), json!(instance.extras.kind));
    }
    map.insert("ID".into(), json!(instance.id));
    map.insert("Service".into(), json!(instance.service));
    map.insert("Tags".into(), json!(instance.tags));
    map.insert("Meta".into(), json!(instance.meta));
    map.insert("Port".into(), json!(instance.port));
    map.insert("Address".into(), json!(address(entry)));
    if !instance.extras.socket_path.is_empty() {
        map.insert("SocketPath".into(), json!(instance.extras.socket_path));
    }
    let addresses = service_addresses(entry);
    if !addresses.is_empty() {
        map.insert("TaggedAddresses".into(), Value::Object(addresses));
    }
    map.insert("Weights".into(), weights(entry));
    map.insert("EnableTagOverride".into(), json!(instance.enable_tag_override));
    if let Some(locality) = &instance.extras.locality {
        map.insert("Locality".into(), json!({ "Region": locality.region, "Zone": locality.zone }));
    }
    map
}

fn address(entry: &InstanceEntry) -> String {
    entry.instance.address.as_ref().map_or_else(String::new, Address::to_string)
}

fn weights(entry: &InstanceEntry) -> Value {
    let weights = entry.instance.weights;
    json!({ "Passing": weights.passing, "Warning": weights.warning })
}

/// A service as its agent shows it (`/v1/agent/services`).
pub(super) fn agent_service(entry: &InstanceEntry, datacenter: &str) -> Map<String, Value> {
    let mut map = service(entry);
    map.insert("Datacenter".into(), json!(datacenter));
    map
}

/// A service of a node (`/v1/catalog/node/:node`, `/v1/health/service/:name`).
pub(super) fn node_service(entry: &InstanceEntry) -> Value {
    let mut map = service(entry);
    map.insert("Proxy".into(), no_proxy());
    map.insert("Connect".into(), json!({}));
    map.insert("PeerName".into(), json!(""));
    map.insert("CreateIndex".into(), json!(entry.create_index));
    map.insert("ModifyIndex".into(), json!(entry.modify_index));
    Value::Object(map)
}

fn no_proxy() -> Value {
    json!({ "Mode": "", "MeshGateway": {}, "Expose": {} })
}

/// An instance with its node (`/v1/catalog/service/:name`).
pub(super) fn catalog_service(node: &NodeEntry, entry: &InstanceEntry, datacenter: &str) -> Value {
    let (n, instance) = (&node.node, &entry.instance);
    let addresses = service_addresses(entry);
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("ID", json!(n.id.map_or_else(String::new, |id| id.to_string())));
    put("Node", json!(n.name));
    put("Address", json!(n.address));
    put("Datacenter", json!(datacenter));
    put("TaggedAddresses", json!(node_addresses(&n.address, &n.tagged_addresses)));
    put("NodeMeta", json!(n.meta));
    put("ServiceKind", json!(instance.extras.kind));
    put("ServiceID", json!(instance.id));
    put("ServiceName", json!(instance.service));
    put("ServiceTags", json!(instance.tags));
    put("ServiceAddress", json!(address(entry)));
    if !addresses.is_empty() {
        put("ServiceTaggedAddresses", Value::Object(addresses));
    }
    put("ServiceWeights", weights(entry));
    put("ServiceMeta", json!(instance.meta));
    put("ServicePort", json!(instance.port));
    put("ServiceSocketPath", json!(instance.extras.socket_path));
    put("ServiceEnableTagOverride", json!(instance.enable_tag_override));
    put("ServiceProxy", no_proxy());
    put("ServiceConnect", json!({}));
    let locality = instance.extras.locality.as_ref();
    put("ServiceLocality", json!(locality.map(|l| json!({ "Region": l.region, "Zone": l.zone }))));
    put("CreateIndex", json!(entry.create_index));
    put("ModifyIndex", json!(entry.modify_index));
    Value::Object(map)
}

/// A check as Consul shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckShape {
    node: String,
    #[serde(rename = "CheckID")]
    pub(super) check_id: String,
    name: String,
    pub(super) status: &'static str,
    notes: String,
    output: ArcStr,
    #[serde(rename = "ServiceID")]
    service_id: String,
    pub(super) service_name: String,
    service_tags: Texts,
    r#type: &'static str,
    interval: String,
    timeout: String,
    exposed_port: u16,
    definition: Map<String, Value>,
    create_index: u64,
    modify_index: u64,
}

/// A check of a node or of one of its instances.
pub(super) fn check(entry: &CheckEntry, of: Option<&InstanceEntry>) -> CheckShape {
    let check = &entry.check;
    let shown = |d: std::time::Duration| if d.is_zero() { String::new() } else { duration::format(d) };
    let probes = check.is_probe() && !matches!(check.kind, CheckKind::Alias { .. });
    CheckShape {
        node: check.node.to_string(),
        check_id: check.id.to_string(),
        name: check.name.clone(),
        status: entry.status.as_str(),
        notes: check.notes.clone(),
        output: entry.output.clone(),
        service_id: check.instance.as_ref().map_or_else(String::new, ToString::to_string),
        service_name: of.map_or_else(String::new, |of| of.instance.service.to_string()),
        service_tags: of.map_or_else(Texts::default, |of| of.instance.tags.clone()),
        r#type: check.kind.type_word(),
        interval: if probes { shown(check.interval) } else { String::new() },
        timeout: if probes { shown(check.timeout) } else { String::new() },
        exposed_port: 0,
        definition: definition(entry),
        create_index: entry.create_index,
        modify_index: entry.modify_index,
    }
}

/// What a catalog check was registered with; an agent's checks show none.
fn definition(entry: &CheckEntry) -> Map<String, Value> {
    let check = &entry.check;
    let mut map = Map::new();
    if check.origin != Origin::Catalog {
        return map;
    }
    match &check.kind {
        CheckKind::Http { url, method, .. } => {
            map.insert("HTTP".into(), json!(url));
            map.insert("Method".into(), json!(method));
        }
        CheckKind::Tcp { address, .. } => drop(map.insert("TCP".into(), json!(address))),
        CheckKind::Udp { address } => drop(map.insert("UDP".into(), json!(address))),
        CheckKind::Grpc { address, .. } => drop(map.insert("GRPC".into(), json!(address))),
        CheckKind::H2Ping { address, .. } => drop(map.insert("H2PING".into(), json!(address))),
        _ => return map,
    }
    map.insert("Interval".into(), json!(duration::format(check.interval)));
    map.insert("Timeout".into(), json!(duration::format(check.timeout)));
    map
}

/// Maintenance, in Consul's form of a critical check.
fn maintenance(node: &NodeEntry, of: Option<&InstanceEntry>) -> Option<CheckShape> {
    let notes = of.map_or(&node.maintenance, |of| &of.maintenance).as_ref()?;
    let (check_id, name) = match of {
        None => ("_node_maintenance".to_owned(), "Node Maintenance Mode"),
        Some(of) => (format!("_service_maintenance:{}", of.instance.id), "Service Maintenance Mode"),
    };
    Some(CheckShape {
        node: node.node.name.to_string(),
        check_id,
        name: name.to_owned(),
        status: Status::Critical.as_str(),
        notes: notes.to_string(),
        output: "".into(),
        service_id: of.map_or_else(String::new, |of| of.instance.id.to_string()),
        service_name: of.map_or_else(String::new, |of| of.instance.service.to_string()),
        service_tags: of.map_or_else(Texts::default, |of| of.instance.tags.clone()),
        r#type: "maintenance",
        interval: String::new(),
        timeout: String::new(),
        exposed_port: 0,
        definition: Map::new(),
        create_index: node.create_index,
        modify_index: of.map_or(node.index, |of| of.modify_index),
    })
}

/// The checks of a node itself, maintenance first.
pub(super) fn node_checks(node: &NodeEntry) -> impl Iterator<Item = CheckShape> + '_ {
    maintenance(node, None).into_iter().chain(node.own_checks.iter().map(|entry| check(entry, None)))
}

/// The same as agents know them: without those that stand in the catalog alone.
pub(super) fn agent_node_checks(node: &NodeEntry) -> impl Iterator<Item = CheckShape> + '_ {
    let known = node.own_checks.iter().filter(|entry| entry.check.origin != Origin::Own);
    maintenance(node, None).into_iter().chain(known.map(|entry| check(entry, None)))
}

/// All checks on a node as agents know them.
pub(super) fn agent_checks(node: &NodeEntry) -> impl Iterator<Item = CheckShape> + '_ {
    agent_node_checks(node).chain(node.instances.values().flat_map(|of| instance_checks(node, of)))
}

/// The checks of one instance, maintenance first.
pub(super) fn instance_checks<'a>(
    node: &'a NodeEntry,
    of: &'a InstanceEntry,
) -> impl Iterator<Item = CheckShape> + 'a {
    maintenance(node, Some(of)).into_iter().chain(of.checks.iter().map(|entry| check(entry, Some(of))))
}

/// All checks on a node: its own, then those of its instances.
pub(super) fn all_checks(node: &NodeEntry) -> impl Iterator<Item = CheckShape> + '_ {
    node_checks(node).chain(node.instances.values().flat_map(|of| instance_checks(node, of)))
}

/// An instance with its node and the checks of both (`/v1/health/service/:name`).
pub(super) fn checked_service(node_entry: &NodeEntry, entry: &InstanceEntry, datacenter: &str) -> Value {
    let checks: Vec<_> = node_checks(node_entry).chain(instance_checks(node_entry, entry)).collect();
    json!({ "Node": node(node_entry, datacenter), "Service": node_service(entry), "Checks": checks })
}

/// The instances of a service with their nodes that have the tags and node meta.
pub(super) fn members<'a>(
    snapshot: &'a Snapshot,
    service: &str,
    tags: &[&str],
    node_meta: &[(&str, &str)],
) -> Vec<(&'a Arc<NodeEntry>, &'a Arc<InstanceEntry>)> {
    let Some(service) = snapshot.service(&service.to_ascii_lowercase()) else { return Vec::new() };
    let has_tags = |entry: &&Arc<InstanceEntry>| {
        tags.iter().all(|tag| entry.instance.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)))
    };
    let members = service.instances.values().filter(has_tags);
    let members = members.filter_map(|entry| Some((snapshot.node(entry.instance.node.folded())?, entry)));
    members.filter(|(node, _)| has_meta(node, node_meta)).collect()
}

/// Whether a node has all of these meta pairs.
pub(super) fn has_meta(node: &NodeEntry, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(key, value)| node.node.meta.get(*key).is_some_and(|own| own == value))
}

/// Whether every check of an instance and its node passes.
pub(super) fn passes(snapshot: &Snapshot, entry: &InstanceEntry) -> bool {
    snapshot.health(entry) == Health::Passing
}
