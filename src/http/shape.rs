//! Consul's JSON, made from snapshot entries: keys in Consul's order, `null`, `[]` and `{}` where its
//! clients expect each. Input is never rewritten; the `lan_*`/`wan_*` addresses that Consul's agents add
//! to a definition are added to the output alone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::model::{Address, CheckKind, Locality, Node, Origin, Status, Texts, duration};
use crate::registry::{CheckEntry, Health, InstanceEntry, NodeEntry, Snapshot};

/// A node, in `/v1/catalog/nodes` and everywhere a node stands.
pub(super) struct NodeShape<'a> {
    pub(super) entry: &'a NodeEntry,
    pub(super) datacenter: &'a str,
}

pub(super) fn node<'a>(entry: &'a NodeEntry, datacenter: &'a str) -> NodeShape<'a> {
    NodeShape { entry, datacenter }
}

impl Serialize for NodeShape<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let node = &self.entry.node;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ID", &Id(node.id))?;
        map.serialize_entry("Node", &node.name)?;
        map.serialize_entry("Address", &node.address)?;
        map.serialize_entry("Datacenter", self.datacenter)?;
        map.serialize_entry("TaggedAddresses", &node_addresses(node))?;
        map.serialize_entry("Meta", &node.meta)?;
        if let Some(locality) = &node.locality {
            map.serialize_entry("Locality", &LocalityShape::of(locality))?;
        }
        map.serialize_entry("CreateIndex", &self.entry.create_index)?;
        map.serialize_entry("ModifyIndex", &self.entry.modify_index)?;
        map.end()
    }
}

/// A node's UUID; empty when it has none.
struct Id(Option<uuid::Uuid>);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(id) => id.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }
}

/// With `lan` and `wan`, as Consul's nodes have them.
pub(super) fn node_addresses(node: &Node) -> BTreeMap<&str, &Address> {
    let mut all: BTreeMap<&str, &Address> =
        node.tagged_addresses.iter().map(|(tag, address)| (tag.as_str(), address)).collect();
    for tag in ["lan", "wan"].iter().chain(families(&node.address)) {
        all.entry(tag).or_insert(&node.address);
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

/// An address under a name, with its port.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tagged<'a> {
    pub(super) address: &'a Address,
    pub(super) port: u16,
}

pub(super) fn service_addresses(entry: &InstanceEntry) -> BTreeMap<&str, Tagged<'_>> {
    let instance = &entry.instance;
    let given = instance.extras.tagged_addresses.iter();
    let mut all: BTreeMap<&str, Tagged<'_>> = given
        .map(|(tag, tagged)| (tag.as_str(), Tagged { address: &tagged.address, port: tagged.port }))
        .collect();
    if let Some(address) = &instance.address {
        for tag in families(address) {
            all.entry(tag).or_insert(Tagged { address, port: instance.port });
        }
    }
    all
}

/// A service as its agent or its node shows it: what both have, in the order of the agent's, and what is the viewer's own.
pub(super) struct ServiceShape<'a> {
    pub(super) entry: &'a InstanceEntry,
    viewer: Viewer<'a>,
}

enum Viewer<'a> {
    Agent { datacenter: &'a str, content_hash: Option<&'a str> },
    Node,
}

/// A service as its agent shows it (`/v1/agent/services`).
pub(super) fn agent_service<'a>(entry: &'a InstanceEntry, datacenter: &'a str) -> ServiceShape<'a> {
    ServiceShape { entry, viewer: Viewer::Agent { datacenter, content_hash: None } }
}

/// A service of a node (`/v1/catalog/node/:node`, `/v1/health/service/:name`).
pub(super) fn node_service(entry: &InstanceEntry) -> ServiceShape<'_> {
    ServiceShape { entry, viewer: Viewer::Node }
}

impl<'a> ServiceShape<'a> {
    /// With a hash of what it shows (`/v1/agent/service/:id`).
    pub(super) fn hashed(self, hash: &'a str) -> Self {
        let viewer = match self.viewer {
            Viewer::Agent { datacenter, .. } => Viewer::Agent { datacenter, content_hash: Some(hash) },
            Viewer::Node => Viewer::Node,
        };
        Self { viewer, ..self }
    }

    /// The agent's datacenter; a node's service has none of its own.
    pub(super) fn datacenter(&self) -> &'a str {
        match self.viewer {
            Viewer::Agent { datacenter, .. } => datacenter,
            Viewer::Node => "",
        }
    }
}

impl Serialize for ServiceShape<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let instance = &self.entry.instance;
        let mut map = serializer.serialize_map(None)?;
        if !instance.extras.kind.is_empty() {
            map.serialize_entry("Kind", &instance.extras.kind)?;
        }
        map.serialize_entry("ID", &instance.id)?;
        map.serialize_entry("Service", &instance.service)?;
        map.serialize_entry("Tags", &instance.tags)?;
        map.serialize_entry("Meta", &instance.meta)?;
        map.serialize_entry("Port", &instance.port)?;
        map.serialize_entry("Address", &OrEmpty(instance.address.as_ref()))?;
        if !instance.extras.socket_path.is_empty() {
            map.serialize_entry("SocketPath", &instance.extras.socket_path)?;
        }
        let addresses = service_addresses(self.entry);
        if !addresses.is_empty() {
            map.serialize_entry("TaggedAddresses", &addresses)?;
        }
        map.serialize_entry("Weights", &WeightsShape::of(self.entry))?;
        map.serialize_entry("EnableTagOverride", &instance.enable_tag_override)?;
        if let Some(locality) = &instance.extras.locality {
            map.serialize_entry("Locality", &LocalityShape::of(locality))?;
        }
        match &self.viewer {
            Viewer::Agent { datacenter, content_hash } => {
                map.serialize_entry("Datacenter", datacenter)?;
                if let Some(hash) = content_hash {
                    map.serialize_entry("ContentHash", hash)?;
                }
            }
            Viewer::Node => {
                map.serialize_entry("Proxy", &NO_PROXY)?;
                map.serialize_entry("Connect", &Nothing {})?;
                map.serialize_entry("PeerName", "")?;
                map.serialize_entry("CreateIndex", &self.entry.create_index)?;
                map.serialize_entry("ModifyIndex", &self.entry.modify_index)?;
            }
        }
        map.end()
    }
}

struct OrEmpty<'a>(Option<&'a Address>);

impl Serialize for OrEmpty<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(address) => address.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WeightsShape {
    passing: u16,
    warning: u16,
}

impl WeightsShape {
    fn of(entry: &InstanceEntry) -> Self {
        let weights = entry.instance.weights;
        Self { passing: weights.passing, warning: weights.warning }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LocalityShape<'a> {
    region: &'a str,
    zone: &'a str,
}

impl<'a> LocalityShape<'a> {
    fn of(locality: &'a Locality) -> Self {
        Self { region: &locality.region, zone: &locality.zone }
    }
}

#[derive(Serialize)]
struct Nothing {}

/// What stands where Consul shows a mesh proxy.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NoProxy {
    mode: &'static str,
    mesh_gateway: Nothing,
    expose: Nothing,
}

const NO_PROXY: NoProxy = NoProxy { mode: "", mesh_gateway: Nothing {}, expose: Nothing {} };

/// An instance with its node (`/v1/catalog/service/:name`).
pub(super) struct CatalogService<'a> {
    pub(super) node: &'a NodeEntry,
    pub(super) entry: &'a InstanceEntry,
    pub(super) datacenter: &'a str,
}

pub(super) fn catalog_service<'a>(
    node: &'a NodeEntry,
    entry: &'a InstanceEntry,
    datacenter: &'a str,
) -> CatalogService<'a> {
    CatalogService { node, entry, datacenter }
}

impl Serialize for CatalogService<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (node, instance) = (&self.node.node, &self.entry.instance);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ID", &Id(node.id))?;
        map.serialize_entry("Node", &node.name)?;
        map.serialize_entry("Address", &node.address)?;
        map.serialize_entry("Datacenter", self.datacenter)?;
        map.serialize_entry("TaggedAddresses", &node_addresses(node))?;
        map.serialize_entry("NodeMeta", &node.meta)?;
        map.serialize_entry("ServiceKind", &instance.extras.kind)?;
        map.serialize_entry("ServiceID", &instance.id)?;
        map.serialize_entry("ServiceName", &instance.service)?;
        map.serialize_entry("ServiceTags", &instance.tags)?;
        map.serialize_entry("ServiceAddress", &OrEmpty(instance.address.as_ref()))?;
        let addresses = service_addresses(self.entry);
        if !addresses.is_empty() {
            map.serialize_entry("ServiceTaggedAddresses", &addresses)?;
        }
        map.serialize_entry("ServiceWeights", &WeightsShape::of(self.entry))?;
        map.serialize_entry("ServiceMeta", &instance.meta)?;
        map.serialize_entry("ServicePort", &instance.port)?;
        map.serialize_entry("ServiceSocketPath", &instance.extras.socket_path)?;
        map.serialize_entry("ServiceEnableTagOverride", &instance.enable_tag_override)?;
        map.serialize_entry("ServiceProxy", &NO_PROXY)?;
        map.serialize_entry("ServiceConnect", &Nothing {})?;
        let locality = instance.extras.locality.as_ref();
        map.serialize_entry("ServiceLocality", &locality.map(LocalityShape::of))?;
        map.serialize_entry("CreateIndex", &self.entry.create_index)?;
        map.serialize_entry("ModifyIndex", &self.entry.modify_index)?;
        map.end()
    }
}

/// A check as Consul shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckShape<'a> {
    pub(super) node: &'a str,
    #[serde(rename = "CheckID")]
    pub(super) check_id: Cow<'a, str>,
    pub(super) name: &'a str,
    pub(super) status: &'static str,
    pub(super) notes: &'a str,
    pub(super) output: &'a str,
    #[serde(rename = "ServiceID")]
    pub(super) service_id: &'a str,
    pub(super) service_name: &'a str,
    pub(super) service_tags: Tags<'a>,
    pub(super) r#type: &'static str,
    pub(super) interval: Shown,
    pub(super) timeout: Shown,
    pub(super) exposed_port: u16,
    definition: Map<String, Value>,
    create_index: u64,
    modify_index: u64,
}

/// The tags of a check's service; none where it has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tags<'a>(Option<&'a Texts>);

impl<'a> Tags<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'a str> {
        self.0.into_iter().flat_map(Texts::iter)
    }
}

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A duration, empty when it is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown(Duration);

impl Shown {
    pub(super) fn text(self) -> String {
        if self.0.is_zero() { String::new() } else { duration::format(self.0) }
    }
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// A check of a node or of one of its instances.
pub(super) fn check<'a>(entry: &'a CheckEntry, of: Option<&'a InstanceEntry>) -> CheckShape<'a> {
    let check = &entry.check;
    let probes = check.is_probe() && !matches!(check.kind, CheckKind::Alias { .. });
    let shown = |d: Duration| Shown(if probes { d } else { Duration::ZERO });
    CheckShape {
        node: check.node.as_str(),
        check_id: check.id.as_str().into(),
        name: &check.name,
        status: entry.status.as_str(),
        notes: &check.notes,
        output: &entry.output,
        service_id: check.instance.as_ref().map_or("", |id| id.as_str()),
        service_name: of.map_or("", |of| of.instance.service.as_str()),
        service_tags: Tags(of.map(|of| &of.instance.tags)),
        r#type: check.kind.type_word(),
        interval: shown(check.interval),
        timeout: shown(check.timeout),
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
fn maintenance<'a>(node: &'a NodeEntry, of: Option<&'a InstanceEntry>) -> Option<CheckShape<'a>> {
    let notes = of.map_or(&node.maintenance, |of| &of.maintenance).as_ref()?;
    let (check_id, name) = match of {
        None => ("_node_maintenance".into(), "Node Maintenance Mode"),
        Some(of) => (format!("_service_maintenance:{}", of.instance.id).into(), "Service Maintenance Mode"),
    };
    Some(CheckShape {
        node: node.node.name.as_str(),
        check_id,
        name,
        status: Status::Critical.as_str(),
        notes,
        output: "",
        service_id: of.map_or("", |of| of.instance.id.as_str()),
        service_name: of.map_or("", |of| of.instance.service.as_str()),
        service_tags: Tags(of.map(|of| &of.instance.tags)),
        r#type: "maintenance",
        interval: Shown(Duration::ZERO),
        timeout: Shown(Duration::ZERO),
        exposed_port: 0,
        definition: Map::new(),
        create_index: node.create_index,
        modify_index: of.map_or(node.index, |of| of.modify_index),
    })
}

/// The checks of a node itself, maintenance first.
pub(super) fn node_checks(node: &NodeEntry) -> impl Iterator<Item = CheckShape<'_>> + Clone {
    maintenance(node, None).into_iter().chain(node.own_checks.iter().map(|entry| check(entry, None)))
}

/// The same as agents know them: without those that stand in the catalog alone.
pub(super) fn agent_node_checks(node: &NodeEntry) -> impl Iterator<Item = CheckShape<'_>> {
    let known = node.own_checks.iter().filter(|entry| entry.check.origin != Origin::Own);
    maintenance(node, None).into_iter().chain(known.map(|entry| check(entry, None)))
}

/// All checks on a node as agents know them.
pub(super) fn agent_checks(node: &NodeEntry) -> impl Iterator<Item = CheckShape<'_>> {
    agent_node_checks(node).chain(node.instances.values().flat_map(|of| instance_checks(node, of)))
}

/// The checks of one instance, maintenance first.
pub(super) fn instance_checks<'a>(
    node: &'a NodeEntry,
    of: &'a InstanceEntry,
) -> impl Iterator<Item = CheckShape<'a>> + Clone {
    maintenance(node, Some(of)).into_iter().chain(of.checks.iter().map(|entry| check(entry, Some(of))))
}

/// An instance with its node and the checks of both (`/v1/health/service/:name`).
pub(super) struct CheckedService<'a> {
    pub(super) node: &'a NodeEntry,
    pub(super) entry: &'a InstanceEntry,
    pub(super) datacenter: &'a str,
}

pub(super) fn checked_service<'a>(
    node: &'a NodeEntry,
    entry: &'a InstanceEntry,
    datacenter: &'a str,
) -> CheckedService<'a> {
    CheckedService { node, entry, datacenter }
}

impl<'a> CheckedService<'a> {
    pub(super) fn checks(&self) -> impl Iterator<Item = CheckShape<'a>> + Clone {
        node_checks(self.node).chain(instance_checks(self.node, self.entry))
    }
}

impl Serialize for CheckedService<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Checks<I>(I);
        impl<I: Iterator<Item: Serialize> + Clone> Serialize for Checks<I> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.clone())
            }
        }
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("Node", &node(self.node, self.datacenter))?;
        map.serialize_entry("Service", &node_service(self.entry))?;
        map.serialize_entry("Checks", &Checks(self.checks()))?;
        map.end()
    }
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
pub(super) fn has_meta<T: AsRef<str>>(node: &NodeEntry, wanted: &[(T, T)]) -> bool {
    wanted
        .iter()
        .all(|(key, value)| node.node.meta.get(key.as_ref()).is_some_and(|own| own == value.as_ref()))
}

/// Whether every check of an instance and its node passes.
pub(super) fn passes(snapshot: &Snapshot, entry: &InstanceEntry) -> bool {
    snapshot.health(entry) == Health::Passing
}
