//! One immutable view of the registry.
//!
//! Persistent maps (imbl): a clone shares everything with the original and a change copies only the
//! path to what changed, so publishing costs what the change costs, not what the registry holds.
//! An instance stands in its node's map and in its service's, as one shared value.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use arcstr::ArcStr;
use imbl::{OrdMap, OrdSet};
use smallvec::SmallVec;

use super::breaker::{Broken, Circuit};
use super::command::Caller;
use super::guard::Guard;
use super::queries::Queries;
use super::ramps::Eased;
use super::routes::Routes;
use super::watch::Topic;
use crate::acl;
use crate::model::{
    Check, CheckId, CheckKey, Instance, InstanceId, Maintenance, Node, NodeName, ServiceName, Status,
};

/// One view of the registry, as of one index.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub(super) index: u64,
    pub(super) serial: u32,
    /// The clock of the machine at the last change, in milliseconds since 1970; 0 before anything changed.
    pub(super) at: u64,
    /// The index at which this process began. No topic's index is below it: what changed between the
    /// last publish and the end of an earlier process is not known, so everybody looks again once.
    pub(super) floor: u64,
    pub(super) nodes: OrdMap<NodeName, Arc<NodeEntry>>,
    pub(super) services: OrdMap<ServiceName, Arc<ServiceEntry>>,
    /// How many of an owner have an address. The owner is always there: none is where a look-up begins.
    pub(super) addresses: OrdMap<(IpAddr, Option<Owner>), u32>,
    pub(super) queries: Queries,
    pub(super) routes: Routes,
    pub(super) tables: Tables,
    pub(super) counts: Counts,
    pub(super) acl: acl::Tables,
    /// Of one that was made for somebody who may not see all.
    pub(super) part: Option<Part>,
}

/// What a part of a snapshot keeps of the whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Of the topic as it is [seen](Topic::seen_by).
    pub(super) index: u64,
    /// Whether something of the topic is left out.
    pub(super) hides: bool,
}

/// The index of the last change to each listing as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tables {
    pub(super) nodes: u64,
    pub(super) services: u64,
    pub(super) checks: u64,
    /// Guards and circuits.
    pub(super) steady: u64,
    /// When a service last lost its last instance: the index of services that do not exist.
    pub(super) vanished: u64,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub instances: usize,
    /// Checks passing, warning, critical.
    pub checks: [usize; 3],
}

/// A node and all it has.
#[derive(Clone)]
pub struct NodeEntry {
    pub node: Arc<Node>,
    pub maintenance: Option<ArcStr>,
    pub instances: OrdMap<InstanceId, Arc<InstanceEntry>>,
    /// Those of the node itself and those of its instances.
    pub checks: OrdMap<CheckId, Arc<CheckEntry>>,
    /// Those of the node itself.
    pub own_checks: SmallVec<[Arc<CheckEntry>; 1]>,
    pub create_index: u64,
    pub modify_index: u64,
    /// The last change to the node or anything on it.
    pub index: u64,
}

/// A service: at least one instance.
#[derive(Clone)]
pub struct ServiceEntry {
    /// As the first instance spelt it.
    pub name: ServiceName,
    pub instances: Members,
    /// Of whom DNS gives critical ones, since too many failed at once; hardly ever there.
    pub guard: Option<Arc<Guard>>,
    /// Of whose instances some have a part of their weights yet.
    pub eased: Option<Arc<Eased>>,
    /// Of whose instances some have a circuit that is not closed.
    pub broken: Option<Arc<Broken>>,
    /// The last change to an instance, its checks or its node.
    pub index: u64,
}

/// One instance and what is known of it.
#[derive(Debug, Clone)]
pub struct InstanceEntry {
    pub instance: Arc<Instance>,
    /// Nearly all have one or none.
    pub checks: SmallVec<[Arc<CheckEntry>; 1]>,
    pub maintenance: Option<ArcStr>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// One check and its status.
#[derive(Debug, Clone)]
pub struct CheckEntry {
    pub check: Check,
    pub status: Status,
    pub output: ArcStr,
    /// Results still needed before the status can change; at least 1. More than fit count as the most that do: an answer's TTL
    /// is then shorter.
    pub to_flip: u16,
    /// When it got this status, in seconds since 1970; 0 where that was before this process began.
    pub since: u32,
    /// Which definition this is: changes when the definition does.
    pub generation: u64,
    pub create_index: u64,
    pub modify_index: u64,
}

impl NodeEntry {
    /// One with nothing on it yet.
    pub(super) fn new(node: Arc<Node>, create_index: u64, modify_index: u64) -> Self {
        Self {
            node,
            maintenance: None,
            instances: OrdMap::new(),
            checks: OrdMap::new(),
            own_checks: SmallVec::new(),
            create_index,
            modify_index,
            index: modify_index,
        }
    }
}

impl ServiceEntry {
    /// One without instances yet.
    pub(super) fn new(name: ServiceName) -> Self {
        Self { name, instances: Members::default(), guard: None, eased: None, broken: None, index: 0 }
    }
}

/// The instances of a service in the order of node and id: each one's key is in the entry itself.
#[derive(Clone, Default)]
pub struct Members(OrdSet<Member>);

#[derive(Clone)]
struct Member(Arc<InstanceEntry>);

impl Members {
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Arc<InstanceEntry>> {
        self.0.iter().map(|member| &member.0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that come after one, which need not be there any more.
    pub fn behind(&self, last: &Arc<InstanceEntry>) -> impl Iterator<Item = &Arc<InstanceEntry>> {
        let behind = (Bound::Excluded(Member(last.clone())), Bound::Unbounded);
        self.0.range(behind).map(|member| &member.0)
    }

    /// Puts an entry into its place, instead of the one that is there.
    pub(super) fn put(&mut self, entry: Arc<InstanceEntry>) {
        self.0.insert(Member(entry));
    }

    pub(super) fn remove(&mut self, entry: &Arc<InstanceEntry>) {
        self.0.remove(&Member(entry.clone()));
    }
}

impl Member {
    fn key(&self) -> (&NodeName, &InstanceId) {
        (&self.0.instance.node, &self.0.instance.id)
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Member {}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Who has an address, for reverse look-ups. Nodes sort before services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Node(NodeName),
    Service(ServiceName),
}

/// What an instance's checks, its node's checks and the operators' word come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl Health {
    /// Consul's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
        }
    }

    /// Whether DNS answers with such an instance.
    pub fn is_served(self) -> bool {
        self <= Self::Warning
    }
}

impl From<Status> for Health {
    fn from(status: Status) -> Self {
        match status {
            Status::Passing => Self::Passing,
            Status::Warning => Self::Warning,
            Status::Critical => Self::Critical,
        }
    }
}

impl Snapshot {
    /// The number of the last change.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The SOA serial: the low 32 bits of the index of the last change that an answer can show.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Whether something was left out for want of permission.
    pub fn hides(&self) -> bool {
        self.part.is_some_and(|part| part.hides)
    }

    /// Tokens, policies and what belongs to them.
    pub fn acl(&self) -> &acl::Tables {
        &self.acl
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<NodeEntry>> {
        self.nodes.values()
    }

    /// All services, by name.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<ServiceEntry>> {
        self.services.values()
    }

    /// All nodes whose name (in lower case) is not before this one, by name.
    pub fn nodes_from(&self, folded: &str) -> impl Iterator<Item = &Arc<NodeEntry>> {
        self.nodes.range::<_, str>((Bound::Included(folded), Bound::Unbounded)).map(|(_, node)| node)
    }

    /// All services whose name (in lower case) is not before this one, by name.
    pub fn services_from(&self, folded: &str) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.services.range::<_, str>((Bound::Included(folded), Bound::Unbounded)).map(|(_, service)| service)
    }

    /// All checks, by node and id.
    pub fn checks(&self) -> impl Iterator<Item = &Arc<CheckEntry>> {
        self.nodes.values().flat_map(|node| node.checks.values())
    }

    /// A node by its name in lower case.
    pub fn node(&self, folded: &str) -> Option<&Arc<NodeEntry>> {
        self.nodes.get(folded)
    }

    /// A service by its name in lower case.
    pub fn service(&self, folded: &str) -> Option<&Arc<ServiceEntry>> {
        self.services.get(folded)
    }

    /// An instance by node (lower case) and id.
    pub fn instance(&self, node: &str, id: &str) -> Option<&Arc<InstanceEntry>> {
        self.nodes.get(node)?.instances.get(id)
    }

    /// Whether the circuit of an instance is open.
    pub(super) fn is_out(&self, entry: &InstanceEntry) -> bool {
        let broken = self.services.get(&entry.instance.service).and_then(|service| service.broken.as_ref());
        let circuit = broken.and_then(|broken| broken.circuit(&entry.instance.node, &entry.instance.id));
        circuit == Some(Circuit::Open)
    }

    /// Whether DNS goes on to give an instance that is critical because too many failed at once.
    pub(super) fn is_kept(&self, entry: &InstanceEntry) -> bool {
        let guard = self.services.get(&entry.instance.service).and_then(|service| service.guard.as_ref());
        guard.is_some_and(|guard| guard.keeps(&entry.instance.node, &entry.instance.id))
            && self.health(entry) == Health::Critical
    }

    pub fn check(&self, key: &CheckKey) -> Option<&Arc<CheckEntry>> {
        self.nodes.get(&key.node)?.checks.get(&key.id)
    }

    /// The nodes and services that have this address; empty when nobody does.
    pub fn owners(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        let from_here = self.addresses.range((address, None)..).map(|(key, _)| key);
        from_here.take_while(move |(ip, _)| *ip == address).filter_map(|(_, owner)| owner.as_ref())
    }

    /// The one place where probes, node checks and maintenance are combined.
    pub fn health(&self, instance: &InstanceEntry) -> Health {
        let node = self.nodes.get(&instance.instance.node);
        let node_maintained = node.is_some_and(|node| node.maintenance.is_some());
        if instance.maintenance.is_some() || node_maintained {
            return Health::Maintenance;
        }
        let own = worst(&instance.checks);
        let nodes = node.map_or(Status::Passing, |node| worst(&node.own_checks));
        own.max(nodes).into()
    }

    /// The same without the checks of these ids, among which may be those that stand for maintenance (as Consul's API shows
    /// them).
    pub fn health_without(&self, entry: &InstanceEntry, ignored: &[String]) -> Health {
        let node = self.nodes.get(&entry.instance.node);
        let counts = |id: &str| ignored.iter().all(|other| other != id);
        let node_maintained = node.is_some_and(|node| node.maintenance.is_some());
        let maintained = entry.maintenance.is_some()
            && counts(&format!("_service_maintenance:{}", entry.instance.id.as_str()));
        if maintained || (node_maintained && counts("_node_maintenance")) {
            return Health::Maintenance;
        }
        let checks = entry.checks.iter().chain(node.into_iter().flat_map(|node| &node.own_checks));
        let counted = checks.filter(|check| counts(check.check.id.as_str()));
        counted.map(|check| check.status).max().unwrap_or(Status::Passing).into()
    }

    /// The index that a blocking query on this topic waits for; at least 1.
    pub fn index_of(&self, topic: &Topic) -> u64 {
        if let Some(part) = self.part {
            return part.index;
        }
        let index = match topic {
            Topic::Service(name) => self.services.get(name).map_or(self.tables.vanished, |s| s.index),
            Topic::Node(name) => self.nodes.get(name).map_or(self.tables.nodes, |n| n.index),
            Topic::Nodes | Topic::NoNode => self.tables.nodes,
            Topic::NoService => self.tables.vanished,
            Topic::Services => self.tables.services,
            Topic::Checks => self.tables.checks,
            Topic::Steady => self.tables.steady,
            Topic::Routes => self.index_of_routes(),
            Topic::Queries => self.index_of_queries(),
            Topic::Query(id) => self.index_of_query(*id),
        };
        index.max(self.floor).max(1)
    }

    /// The instance of this id on the given node (lower case), else the only one elsewhere. `Err` names the nodes when
    /// there are several.
    pub fn find_instance(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<Option<&Arc<InstanceEntry>>, Vec<NodeName>> {
        self.find(caller, |entry| entry.instances.get(id))
    }

    /// The check of this id on the given node (lower case), else the only one elsewhere. `Err` names the nodes when
    /// there are several.
    pub fn find_check(&self, caller: &Caller, id: &str) -> Result<Option<&Arc<CheckEntry>>, Vec<NodeName>> {
        self.find(caller, |entry| entry.checks.get(id))
    }

    pub(super) fn find<'a, T>(
        &'a self,
        caller: &Caller,
        get: impl Fn(&'a NodeEntry) -> Option<&'a T>,
    ) -> Result<Option<&'a T>, Vec<NodeName>> {
        if let Some(found) = self.nodes.get(caller.node.folded()).and_then(|entry| get(entry)) {
            return Ok(Some(found));
        }
        if caller.named {
            return Ok(None);
        }
        let mut elsewhere = self.nodes.values().filter_map(|entry| Some((&entry.node.name, get(entry)?)));
        let first = elsewhere.next();
        let others: Vec<_> = elsewhere.map(|(name, _)| name.clone()).collect();
        match first {
            None => Ok(None),
            Some((_, found)) if others.is_empty() => Ok(Some(found)),
            Some((name, _)) => Err(std::iter::once(name.clone()).chain(others).collect()),
        }
    }
}

/// The worst status; passing when there is no check.
pub fn worst(checks: &[Arc<CheckEntry>]) -> Status {
    checks.iter().map(|check| check.status).max().unwrap_or(Status::Passing)
}

/// There are millions of them, and the allocator rounds up.
const _: () = assert!(size_of::<CheckEntry>() <= 72);

impl CheckEntry {
    /// A moment as [`CheckEntry::since`] keeps it.
    pub(super) fn moment(millis: u64) -> u32 {
        u32::try_from(millis / 1000).unwrap_or(u32::MAX)
    }

    pub fn key(&self) -> CheckKey {
        self.check.key()
    }
}

impl NodeEntry {
    /// The operators' word on this node and its instances.
    pub fn maintenances(&self) -> impl Iterator<Item = Maintenance> + '_ {
        let node = &self.node.name;
        let own = self.maintenance.iter().map(move |reason| Maintenance {
            node: node.clone(),
            instance: None,
            reason: reason.clone(),
        });
        let instances = self.instances.values().filter_map(move |entry| {
            let instance = Some(entry.instance.id.clone());
            Some(Maintenance { node: node.clone(), instance, reason: entry.maintenance.clone()? })
        });
        own.chain(instances)
    }
}
