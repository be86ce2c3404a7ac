//! The state that a store's contents describe. Pure, like [`apply`](super::apply), and it comes to the same as applying
//! record after record; but a million of those would each copy and search what the next one changes again. Here all that a
//! node has is gathered first, and each map is made once.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use imbl::OrdMap;

use super::apply::{instance_addresses, node_addresses};
use super::queries::{Queries, QueryEntry};
use super::resume::Unplaced;
use super::routes::Routes;
use super::snapshot::{CheckEntry, InstanceEntry, NodeEntry, Owner, ServiceEntry, Snapshot};
use crate::acl;
use crate::model::{Check, Instance, Maintenance, Node, NodeName, Record, ServiceName};
use crate::store::{Loaded, Stored, StoredStatus};

/// A node and what it has, in the order of ids.
struct Gathered {
    entry: NodeEntry,
    instances: Vec<InstanceEntry>,
    checks: Vec<CheckEntry>,
    /// Where the next check or instance that is looked for is expected: they come in order.
    next_instance: usize,
    next_check: usize,
}

/// All nodes while they are gathered.
struct Gathering {
    nodes: Vec<Gathered>,
    places: HashMap<NodeName, usize>,
    /// The one whose records come now.
    current: usize,
}

/// The state, with our own node in it; and what of it is on definitions that are not there.
pub(super) fn load(loaded: Loaded, own: &Node) -> (Snapshot, Unplaced) {
    let index = loaded.index.max(1);
    let mut gathering = Gathering { nodes: Vec::new(), places: HashMap::new(), current: 0 };
    gathering.node(Arc::new(own.clone()), index, index);
    let (mut maintained, mut queries) = (Vec::new(), Queries::default());
    let (mut tables, mut routes) = (acl::Tables::default(), Routes::default());
    for Stored { record, create_index, modify_index } in loaded.records {
        match record {
            // Our own node is what the configuration says now, not what it was.
            Record::Node(node) if node.name == own.name => {
                gathering.nodes[0].entry.create_index = create_index;
            }
            Record::Node(node) => gathering.node(node, create_index, modify_index),
            Record::Instance(instance) => gathering.instance(instance, create_index, modify_index),
            Record::Check(check) => gathering.check(check, create_index, modify_index),
            Record::Maintenance(maintenance) => maintained.push(maintenance),
            Record::Acl(record) => tables.load(&record, Some(create_index), modify_index),
            // The writer knows how far each is on its way.
            Record::Route(route) => routes.put(route, 0, create_index, modify_index),
            Record::Query(query) => queries.put(QueryEntry::new(query, create_index, modify_index)),
        }
    }
    gathering.sort();
    let mut unplaced = Unplaced::default();
    unplaced.maintenances.extend(maintained.into_iter().filter_map(|word| gathering.maintain(word)));
    for status in loaded.statuses {
        if let Some(StoredStatus { check, status, output }) = gathering.status(status, index) {
            unplaced.statuses.insert(check, (status, output));
        }
    }
    (Snapshot { queries, routes, acl: tables, ..build(gathering.nodes, index) }, unplaced)
}

impl Gathering {
    fn node(&mut self, node: Arc<Node>, create_index: u64, modify_index: u64) {
        self.places.insert(node.name.clone(), self.nodes.len());
        let entry = NodeEntry::new(node, create_index, modify_index);
        let (instances, checks) = (Vec::new(), Vec::new());
        self.nodes.push(Gathered { entry, instances, checks, next_instance: 0, next_check: 0 });
    }

    /// The node of this name; what belongs to none is passed over, as it is when it is applied.
    fn of(&mut self, name: &NodeName) -> Option<&mut Gathered> {
        if self.nodes[self.current].entry.node.name != *name {
            self.current = *self.places.get(name)?;
        }
        Some(&mut self.nodes[self.current])
    }

    fn instance(&mut self, instance: Arc<Instance>, create_index: u64, modify_index: u64) {
        let Some(node) = self.of(&instance.node) else { return };
        let (checks, maintenance) = (Default::default(), None);
        node.instances.push(InstanceEntry { instance, checks, maintenance, create_index, modify_index });
    }

    fn check(&mut self, check: Check, create_index: u64, modify_index: u64) {
        let Some(node) = self.of(&check.node) else { return };
        node.checks.push(CheckEntry {
            status: check.initial,
            check,
            output: Default::default(),
            to_flip: 1,
            since: 0,
            generation: modify_index,
            create_index,
            modify_index,
        });
    }

    /// Nothing to do for what comes from a store in key order.
    fn sort(&mut self) {
        for node in &mut self.nodes {
            node.instances.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));
            node.checks.sort_by(|a, b| a.check.id.cmp(&b.check.id));
        }
        self.nodes.sort_by(|a, b| a.entry.node.name.cmp(&b.entry.node.name));
        self.places =
            self.nodes.iter().zip(0..).map(|(node, at)| (node.entry.node.name.clone(), at)).collect();
    }

    /// Gives back a word on an instance that is not there.
    fn maintain(&mut self, word: Maintenance) -> Option<Maintenance> {
        let node = self.of(&word.node)?;
        match &word.instance {
            None => node.entry.maintenance = Some(word.reason),
            Some(id) => match node.find_instance(id.as_str()) {
                Some(entry) => entry.maintenance = Some(word.reason),
                None => return Some(word),
            },
        }
        None
    }

    /// When a status flipped was not stored: the mark is not below that. Gives back one of a check that is not there.
    fn status(&mut self, stored: StoredStatus, mark: u64) -> Option<StoredStatus> {
        let Some(node) = self.of(&stored.check.node) else { return Some(stored) };
        let id = |entry: &CheckEntry| entry.check.id.clone();
        let Some(at) = find(&node.checks, &mut node.next_check, |entry| id(entry).cmp(&stored.check.id))
        else {
            return Some(stored);
        };
        let entry = &mut node.checks[at];
        if entry.status != stored.status {
            entry.modify_index = mark;
        }
        (entry.status, entry.output) = (stored.status, stored.output);
        None
    }
}

impl Gathered {
    fn find_instance(&mut self, id: &str) -> Option<&mut InstanceEntry> {
        let order = |entry: &InstanceEntry| entry.instance.id.as_str().cmp(id);
        let at = find(&self.instances, &mut self.next_instance, order)?;
        Some(&mut self.instances[at])
    }

    /// Hangs the checks on their instances. Equal texts become one.
    fn join(&mut self) {
        self.next_instance = 0;
        let mut all = Vec::with_capacity(self.checks.len());
        for mut entry in std::mem::take(&mut self.checks) {
            entry.check.node = self.entry.node.name.clone();
            let Some(id) = entry.check.instance.clone() else {
                let entry = Arc::new(entry);
                self.entry.own_checks.push(entry.clone());
                all.push(entry);
                continue;
            };
            let Some(of) = self.find_instance(id.as_str()) else { continue };
            entry.check.instance = Some(of.instance.id.clone());
            let entry = Arc::new(entry);
            of.checks.push(entry.clone());
            all.push(entry);
        }
        self.entry.checks = filled(all.into_iter().map(|entry| (entry.check.id.clone(), entry)));
    }
}

/// The place of an entry in a list that is sorted: where it is expected, else searched.
fn find<T>(list: &[T], next: &mut usize, order: impl Fn(&T) -> std::cmp::Ordering) -> Option<usize> {
    let expected = list.get(*next).is_some_and(|entry| order(entry).is_eq());
    let at = if expected { *next } else { list.binary_search_by(order).ok()? };
    *next = at + 1;
    Some(at)
}

/// A map of entries in order. An imbl leaf has room for [`LEAF`] and splits in the middle, so that one after another leaves
/// each half empty for ever. The first half of each leaf's first, the others between them after, and all are full.
fn filled<K: Ord + Clone, V: Clone>(entries: impl Iterator<Item = (K, V)>) -> OrdMap<K, V> {
    let (mut map, mut between) = (OrdMap::new(), Vec::new());
    for (at, (key, value)) in entries.enumerate() {
        if at % LEAF < LEAF / 2 {
            map.insert(key, value);
        } else {
            between.push((key, value));
        }
    }
    map.extend(between);
    map
}

const LEAF: usize = 16;

fn build(nodes: Vec<Gathered>, index: u64) -> Snapshot {
    let mut state = Snapshot { index, floor: index, serial: index as u32, ..Snapshot::default() };
    let mut services: HashMap<ServiceName, ServiceEntry> = HashMap::new();
    let mut addresses: Vec<(IpAddr, Option<Owner>)> = Vec::new();
    let mut own = |of: [Option<IpAddr>; 3], owner: Owner| {
        addresses.extend(of.into_iter().flatten().map(|ip| (ip, Some(owner.clone()))));
    };
    for mut gathered in nodes {
        gathered.join();
        let mut entry = gathered.entry;
        own(node_addresses(&entry.node), Owner::Node(entry.node.name.clone()));
        for check in entry.checks.values() {
            state.counts.checks[check.status as usize] += 1;
            entry.index = entry.index.max(check.modify_index);
        }
        state.counts.instances += gathered.instances.len();
        let mut all = Vec::with_capacity(gathered.instances.len());
        for instance in gathered.instances {
            let name = &instance.instance.service;
            own(instance_addresses(&instance.instance), Owner::Service(name.clone()));
            let service = match services.get_mut(name) {
                Some(service) => service,
                None => services.entry(name.clone()).or_insert_with(|| ServiceEntry::new(name.clone())),
            };
            let seen = instance.checks.iter().map(|check| check.modify_index).max();
            service.index = service.index.max(instance.modify_index).max(seen.unwrap_or(0));
            entry.index = entry.index.max(instance.modify_index);
            let instance = Arc::new(instance);
            service.instances.put(instance.clone());
            all.push(instance);
        }
        entry.instances = filled(all.into_iter().map(|entry| (entry.instance.id.clone(), entry)));
        state.nodes.insert(entry.node.name.clone(), Arc::new(entry));
    }
    let mut services: Vec<_> = services.into_iter().collect();
    services.sort_by(|(a, _), (b, _)| a.cmp(b));
    state.services = filled(services.into_iter().map(|(name, entry)| (name, Arc::new(entry))));
    addresses.sort();
    let counted = addresses.chunk_by(|a, b| a == b);
    let counted = counted.map(|same| (same[0].clone(), u32::try_from(same.len()).unwrap_or(u32::MAX)));
    state.addresses = filled(counted);
    state
}
