//! One change at a time, applied to a snapshot. Pure: no clock, no I/O, no refusal. What does not fit (a check of
//! an instance that is gone) is passed over, so that live application and a replay come to the same.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use arcstr::ArcStr;
use smallvec::{Array, SmallVec};

use super::breaker::Broken;
use super::guard::Guard;
use super::ramps::Eased;
use super::snapshot::{CheckEntry, Health, InstanceEntry, NodeEntry, Owner, ServiceEntry, Snapshot};
use super::watch::Topic;
use crate::model::{
    Address, Check, CheckKey, Definition, Instance, InstanceId, Key, Maintenance, Node, NodeName,
    Observation, Record, ServiceName, Status,
};

/// Instances of a service that are looked at for tags, and for terms of checks, to share.
const ALIKE_MAX: usize = 2;

/// What applying changes did, beside the new state.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Whose watchers to wake.
    pub(super) topics: BTreeSet<Topic>,
    /// Services of which only the TTL of answers can differ, since checks are nearer to a flip or further from it.
    pub(super) paced: BTreeSet<Topic>,
    /// Whether a DNS answer can differ.
    pub(super) visible: bool,
    /// Whether what somebody may see or do can differ.
    pub(super) access: bool,
    /// Whether anything differs at all, were it only a probe's output.
    pub(super) changed: bool,
}

impl Snapshot {
    /// The state that these definitions make of this one, as the change of this index.
    pub fn applied(&self, index: u64, definitions: &[Definition]) -> Self {
        let (mut state, mut effects) = (self.clone(), Effects::default());
        definitions.iter().for_each(|definition| state.define(index, definition, &mut effects));
        state.index = index;
        state
    }

    /// Applies one definition as the change of this index.
    pub(super) fn define(&mut self, index: u64, definition: &Definition, effects: &mut Effects) {
        effects.changed = true;
        match definition {
            Definition::Put(record) => self.put(index, record, effects),
            Definition::Remove(Key::Node(name)) => self.remove_node(index, name, effects),
            Definition::Remove(Key::Instance(node, id)) => self.remove_instance(index, node, id, effects),
            Definition::Remove(Key::Check(node, id)) => {
                self.remove_check(index, &CheckKey { node: node.clone(), id: id.clone() }, effects);
            }
            Definition::Remove(Key::Acl(key)) => {
                self.acl.remove(index, key);
                effects.access = true;
            }
            Definition::Remove(Key::Maintenance(node, instance)) => {
                self.maintain(index, node, instance.as_ref(), None, effects);
            }
            Definition::Remove(Key::Route(service)) => self.remove_route(index, service, effects),
            Definition::Remove(Key::Query(id)) => self.remove_query(index, *id, effects),
        }
    }

    fn put(&mut self, index: u64, record: &Record, effects: &mut Effects) {
        match record {
            Record::Node(node) => self.put_node(index, node, effects),
            Record::Instance(instance) => self.put_instance(index, instance, effects),
            Record::Check(check) => self.put_check(index, check, effects),
            Record::Acl(record) => {
                self.acl.put(index, record);
                effects.access = true;
            }
            Record::Maintenance(Maintenance { node, instance, reason }) => {
                self.maintain(index, node, instance.as_ref(), Some(reason.clone()), effects);
            }
            Record::Route(route) => self.put_route(index, route, effects),
            Record::Query(query) => self.put_query(index, query, effects),
        }
    }

    /// Applies what was found out about a check; returns whether its status changed. The index counts only then: other
    /// output alone is not worth waking anybody.
    pub(super) fn observe(&mut self, index: u64, seen: &Observation, effects: &mut Effects) -> bool {
        let Some(entry) = self.check(&seen.check) else { return false };
        if seen.generation.is_some_and(|generation| generation != entry.generation) {
            return false;
        }
        let before = entry.status;
        let flipped = before != seen.status;
        let to_flip = u16::try_from(seen.to_flip.max(1)).unwrap_or(u16::MAX);
        let paced = entry.to_flip != to_flip;
        if !flipped && *entry.output == *seen.output && !paced {
            return false;
        }
        let mut after = CheckEntry::clone(entry);
        after.status = seen.status;
        after.output = (&*seen.output).into();
        after.to_flip = to_flip;
        effects.changed = true;
        let health = self.health_of(&seen.check);
        if flipped {
            after.modify_index = index;
            after.since = CheckEntry::moment(self.at);
            self.counts.checks[before as usize] -= 1;
            self.counts.checks[after.status as usize] += 1;
        }
        self.replace_check(&Arc::new(after));
        if flipped {
            let instance = self.check(&seen.check).and_then(|entry| entry.check.instance.clone());
            self.touch_checked(index, &seen.check.node, instance.as_ref(), effects);
            effects.visible |= instance.is_none() || self.health_of(&seen.check) != health;
        } else if paced {
            effects.paced.extend(self.services_of(&seen.check).into_iter().map(Topic::Service));
        }
        flipped
    }

    /// Sets what a guard keeps of a service; returns whether that was something else.
    pub(super) fn set_guard(
        &mut self,
        index: u64,
        name: &ServiceName,
        guard: Option<Arc<Guard>>,
        effects: &mut Effects,
    ) -> bool {
        let Some(entry) = self.services.get_mut(name) else { return false };
        if entry.guard == guard {
            return false;
        }
        let entry = Arc::make_mut(entry);
        (entry.guard, entry.index) = (guard, index);
        self.tables.steady = index;
        effects.topics.extend([Topic::Service(name.clone()), Topic::Steady]);
        (effects.visible, effects.changed) = (true, true);
        true
    }

    /// Sets the circuits of a service that are not closed; returns whether they were others.
    pub(super) fn set_broken(
        &mut self,
        index: u64,
        name: &ServiceName,
        broken: Option<Arc<Broken>>,
        effects: &mut Effects,
    ) -> bool {
        let Some(entry) = self.services.get_mut(name) else { return false };
        if entry.broken == broken {
            return false;
        }
        let entry = Arc::make_mut(entry);
        (entry.broken, entry.index) = (broken, index);
        self.tables.steady = index;
        effects.topics.extend([Topic::Service(name.clone()), Topic::Steady]);
        (effects.visible, effects.changed) = (true, true);
        true
    }

    /// Sets what the instances of a service have of their weights; returns whether that was something else.
    pub(super) fn set_eased(
        &mut self,
        name: &ServiceName,
        eased: Option<Arc<Eased>>,
        effects: &mut Effects,
    ) -> bool {
        let Some(entry) = self.services.get_mut(name) else { return false };
        if entry.eased == eased {
            return false;
        }
        Arc::make_mut(entry).eased = eased;
        // Nobody who watches the service over HTTP sees another state.
        effects.paced.insert(Topic::Service(name.clone()));
        (effects.visible, effects.changed) = (true, true);
        true
    }

    /// The services whose answers a check has a say in.
    fn services_of(&self, key: &CheckKey) -> Vec<ServiceName> {
        let Some(node) = self.nodes.get(&key.node) else { return Vec::new() };
        let name = |entry: &Arc<InstanceEntry>| entry.instance.service.clone();
        match node.checks.get(&key.id).and_then(|entry| entry.check.instance.as_ref()) {
            Some(id) => node.instances.get(id).map(name).into_iter().collect(),
            None => node.instances.values().map(name).collect(),
        }
    }

    /// The health of the instance that a check is of.
    fn health_of(&self, key: &CheckKey) -> Option<Health> {
        let instance = self.check(key)?.check.instance.as_ref()?;
        self.instance(key.node.folded(), instance.as_str()).map(|entry| self.health(entry))
    }

    fn put_node(&mut self, index: u64, node: &Arc<Node>, effects: &mut Effects) {
        let old = self.nodes.get(&node.name).map(|entry| entry.node.clone());
        self.own_addresses(
            old.as_ref().map(|n| node_addresses(n)),
            Some(node_addresses(node)),
            &Owner::Node(node.name.clone()),
        );
        effects.visible = true;
        effects.topics.insert(Topic::Nodes);
        self.tables.nodes = index;
        if let Some(entry) = self.nodes.get_mut(&node.name) {
            let entry = Arc::make_mut(entry);
            entry.node = node.clone();
            entry.modify_index = index;
            self.touch_all(index, &node.name, effects);
            return;
        }
        let entry = NodeEntry::new(node.clone(), index, index);
        self.nodes.insert(node.name.clone(), Arc::new(entry));
        effects.topics.insert(Topic::Node(node.name.clone()));
    }

    fn remove_node(&mut self, index: u64, name: &NodeName, effects: &mut Effects) {
        let Some(entry) = self.nodes.get(name).cloned() else { return };
        for id in entry.instances.keys() {
            self.remove_instance(index, name, id, effects);
        }
        for check in entry.checks.values() {
            self.remove_check(index, &check.key(), effects);
        }
        self.own_addresses(Some(node_addresses(&entry.node)), None, &Owner::Node(name.clone()));
        self.nodes.remove(name);
        self.tables.nodes = index;
        effects.visible = true;
        effects.topics.extend([Topic::Nodes, Topic::Node(name.clone())]);
    }

    fn put_instance(&mut self, index: u64, instance: &Arc<Instance>, effects: &mut Effects) {
        let Some(node) = self.nodes.get(&instance.node) else { return };
        let old = node.instances.get(&instance.id).cloned();
        let entry = match &old {
            Some(old) => {
                InstanceEntry { instance: instance.clone(), modify_index: index, ..InstanceEntry::clone(old) }
            }
            None => InstanceEntry {
                instance: instance.clone(),
                checks: Default::default(),
                maintenance: None,
                create_index: index,
                modify_index: index,
            },
        };
        match &old {
            Some(old) if old.instance.service != instance.service => self.leave_service(index, old, effects),
            Some(_) => {}
            None => self.counts.instances += 1,
        }
        let old_address = old.as_ref().filter(|old| old.instance.service == instance.service);
        let old_addresses = old_address.map(|old| instance_addresses(&old.instance));
        let owner = Owner::Service(instance.service.clone());
        self.own_addresses(old_addresses, Some(instance_addresses(instance)), &owner);
        self.replace_instance(Arc::new(entry));
        self.tables.services = index;
        effects.visible |= old.is_none_or(|old| answers_differ(&old.instance, instance));
        effects.topics.insert(Topic::Services);
        self.touch(index, &instance.node, &instance.service, effects);
    }

    fn remove_instance(&mut self, index: u64, node: &NodeName, id: &InstanceId, effects: &mut Effects) {
        let Some(entry) = self.nodes.get(node).and_then(|n| n.instances.get(id)).cloned() else { return };
        for check in &entry.checks {
            self.remove_check(index, &check.key(), effects);
        }
        self.leave_service(index, &entry, effects);
        if let Some(node) = self.nodes.get_mut(node) {
            Arc::make_mut(node).instances.remove(id);
        }
        self.counts.instances -= 1;
        self.tables.services = index;
        effects.visible = true;
        effects.topics.insert(Topic::Services);
        self.touch(index, node, &entry.instance.service, effects);
    }

    /// Takes an instance out of its service's map, and the service away when it was the last.
    fn leave_service(&mut self, index: u64, entry: &Arc<InstanceEntry>, effects: &mut Effects) {
        let instance = &entry.instance;
        let owner = Owner::Service(instance.service.clone());
        self.own_addresses(Some(instance_addresses(instance)), None, &owner);
        effects.topics.insert(Topic::Service(instance.service.clone()));
        let Some(service) = self.services.get_mut(&instance.service) else { return };
        let service = Arc::make_mut(service);
        service.instances.remove(entry);
        service.index = index;
        if service.instances.is_empty() {
            self.services.remove(&instance.service);
            self.tables.vanished = index;
        }
    }

    fn put_check(&mut self, index: u64, check: &Check, effects: &mut Effects) {
        let Some(node) = self.nodes.get(&check.node) else { return };
        if check.instance.as_ref().is_some_and(|id| !node.instances.contains_key(id)) {
            return;
        }
        let check = &self.shared(check);
        let Some(node) = self.nodes.get(&check.node) else { return };
        let key = check.key();
        let old = node.checks.get(&check.id).cloned();
        // A check that moves to another instance starts anew.
        let kept = old.as_ref().filter(|old| old.check.instance == check.instance);
        let entry = CheckEntry {
            check: check.clone(),
            status: kept.map_or(check.initial, |old| old.status),
            output: kept.map_or_else(ArcStr::new, |old| old.output.clone()),
            to_flip: 1,
            since: kept.map_or(CheckEntry::moment(self.at), |old| old.since),
            generation: index,
            create_index: kept.map_or(index, |old| old.create_index),
            modify_index: index,
        };
        // Of a check, answers show the status and, in their TTL, how soon it can change.
        let same = kept.is_some_and(|old| {
            let paced = (&old.check.kind, old.check.interval, old.to_flip);
            paced == (&check.kind, check.interval, entry.to_flip)
        });
        let visible = effects.visible || !same;
        if old.is_some() {
            self.remove_check(index, &key, effects);
        }
        self.counts.checks[entry.status as usize] += 1;
        self.replace_check(&Arc::new(entry));
        effects.visible = visible;
        self.touch_checked(index, &check.node, check.instance.as_ref(), effects);
    }

    /// The check with the texts and terms that the registry has already, since it holds millions of them.
    fn shared(&self, check: &Check) -> Check {
        let mut check = check.clone();
        let Some(node) = self.nodes.get(&check.node) else { return check };
        if check.node.as_str() == node.node.name.as_str() {
            check.node = node.node.name.clone();
        }
        let of = check.instance.as_ref().and_then(|id| node.instances.get(id));
        let Some(of) = of else { return check };
        check.instance = Some(of.instance.id.clone());
        let service = self.services.get(&of.instance.service);
        let others = service.into_iter().flat_map(|service| service.instances.values().take(ALIKE_MAX));
        let mut alike = others.chain([of]).flat_map(|entry| &entry.checks);
        if let Some(alike) = alike.find(|other| other.check.terms == check.terms) {
            check.terms = alike.check.terms.clone();
        }
        check
    }

    /// Gives an instance the texts that its node and its service have already, where they are the same.
    pub(super) fn share_names(&self, instance: &mut Instance) {
        let node = self.nodes.get(&instance.node).map(|entry| &entry.node.name);
        if let Some(name) = node.filter(|name| name.as_str() == instance.node.as_str()) {
            instance.node = name.clone();
        }
        let Some(service) = self.services.get(&instance.service) else { return };
        if service.name.as_str() == instance.service.as_str() {
            instance.service = service.name.clone();
        }
        let mut others = service.instances.values().take(ALIKE_MAX);
        if let Some(alike) = others.find(|other| other.instance.tags == instance.tags) {
            instance.tags = alike.instance.tags.clone();
        }
    }

    fn remove_check(&mut self, index: u64, key: &CheckKey, effects: &mut Effects) {
        let Some(node) = self.nodes.get_mut(&key.node) else { return };
        let node = Arc::make_mut(node);
        let Some(old) = node.checks.remove(&key.id) else { return };
        self.counts.checks[old.status as usize] -= 1;
        match &old.check.instance {
            None => node.own_checks.retain(|check| check.check.id != key.id),
            Some(id) => {
                if let Some(entry) = node.instances.get(id) {
                    let mut entry = InstanceEntry::clone(entry);
                    entry.checks.retain(|check| check.check.id != key.id);
                    self.replace_instance(Arc::new(entry));
                }
            }
        }
        effects.visible = true;
        self.touch_checked(index, &key.node, old.check.instance.as_ref(), effects);
    }

    fn maintain(
        &mut self,
        index: u64,
        node: &NodeName,
        instance: Option<&InstanceId>,
        reason: Option<ArcStr>,
        effects: &mut Effects,
    ) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        match instance {
            None => Arc::make_mut(entry).maintenance = reason,
            Some(id) => {
                let Some(entry) = entry.instances.get(id) else { return };
                let mut entry = InstanceEntry::clone(entry);
                entry.maintenance = reason;
                self.replace_instance(Arc::new(entry));
            }
        }
        effects.visible = true;
        self.touch_checked(index, node, instance, effects);
    }

    /// Puts an instance into its node's map and its service's.
    fn replace_instance(&mut self, entry: Arc<InstanceEntry>) {
        let instance = entry.instance.clone();
        if let Some(node) = self.nodes.get_mut(&instance.node) {
            Arc::make_mut(node).instances.insert(instance.id.clone(), entry.clone());
        }
        let service = self
            .services
            .entry(instance.service.clone())
            .or_insert_with(|| Arc::new(ServiceEntry::new(instance.service.clone())));
        Arc::make_mut(service).instances.put(entry);
    }

    /// Puts a check into its node's map and its instance's list.
    fn replace_check(&mut self, entry: &Arc<CheckEntry>) {
        let Some(node) = self.nodes.get_mut(&entry.check.node) else { return };
        let node = Arc::make_mut(node);
        node.checks.insert(entry.check.id.clone(), entry.clone());
        match &entry.check.instance {
            None => replace_in(&mut node.own_checks, entry),
            Some(id) => {
                if let Some(instance) = node.instances.get(id) {
                    let mut instance = InstanceEntry::clone(instance);
                    replace_in(&mut instance.checks, entry);
                    self.replace_instance(Arc::new(instance));
                }
            }
        }
    }

    /// The addresses of an owner, before and after.
    fn own_addresses(&mut self, old: Option<Addresses>, new: Option<Addresses>, owner: &Owner) {
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        for (old, new) in old.into_iter().zip(new) {
            self.own_address(old, new, owner);
        }
    }

    /// One owner of an address less, one more.
    fn own_address(&mut self, old: Option<IpAddr>, new: Option<IpAddr>, owner: &Owner) {
        if old == new {
            return;
        }
        if let Some(ip) = new {
            *self.addresses.entry((ip, Some(owner.clone()))).or_insert(0) += 1;
        }
        let Some(ip) = old else { return };
        let key = (ip, Some(owner.clone()));
        let left = self.addresses.get_mut(&key).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            self.addresses.remove(&key);
        }
    }

    /// Something about one instance changed: its service and its node did.
    fn touch(&mut self, index: u64, node: &NodeName, service: &ServiceName, effects: &mut Effects) {
        if let Some(entry) = self.nodes.get_mut(node) {
            Arc::make_mut(entry).index = index;
        }
        if let Some(entry) = self.services.get_mut(service) {
            Arc::make_mut(entry).index = index;
        }
        effects.topics.extend([Topic::Node(node.clone()), Topic::Service(service.clone())]);
    }

    /// A check or maintenance changed: of one instance, or of the node and so of all on it.
    fn touch_checked(
        &mut self,
        index: u64,
        node: &NodeName,
        instance: Option<&InstanceId>,
        effects: &mut Effects,
    ) {
        self.tables.checks = index;
        effects.topics.insert(Topic::Checks);
        let entry = instance.and_then(|id| self.nodes.get(node)?.instances.get(id));
        match (instance, entry.map(|entry| entry.instance.service.clone())) {
            (None, _) => self.touch_all(index, node, effects),
            (Some(_), Some(service)) => self.touch(index, node, &service, effects),
            (Some(_), None) => {}
        }
    }

    /// A node changed: all services on it did.
    fn touch_all(&mut self, index: u64, node: &NodeName, effects: &mut Effects) {
        let Some(entry) = self.nodes.get_mut(node) else { return };
        let entry = Arc::make_mut(entry);
        entry.index = index;
        effects.topics.insert(Topic::Node(node.clone()));
        let services: BTreeSet<_> = entry.instances.values().map(|e| e.instance.service.clone()).collect();
        for service in services {
            if let Some(entry) = self.services.get_mut(&service) {
                Arc::make_mut(entry).index = index;
            }
            effects.topics.insert(Topic::Service(service));
        }
    }

    /// How many checks have this status.
    pub fn checks_with(&self, status: Status) -> usize {
        self.counts.checks[status as usize]
    }
}

/// Checks stand in the order of their ids, as a start loads them: a list looks the same before and after.
fn replace_in<A: Array<Item = Arc<CheckEntry>>>(checks: &mut SmallVec<A>, entry: &Arc<CheckEntry>) {
    match checks.binary_search_by(|check| check.check.id.cmp(&entry.check.id)) {
        Ok(at) => checks[at] = entry.clone(),
        Err(at) => checks.insert(at, entry.clone()),
    }
}

/// The plain address and those of the dual-stack form: what reverse names are known of.
pub(super) type Addresses = [Option<IpAddr>; 3];
const FAMILIES: [&str; 2] = ["lan_ipv4", "lan_ipv6"];

pub(super) fn node_addresses(node: &Node) -> Addresses {
    let [v4, v6] = FAMILIES.map(|tag| node.tagged_addresses.get(tag).and_then(Address::ip));
    [node.address.ip(), v4, v6]
}

pub(super) fn instance_addresses(instance: &Instance) -> Addresses {
    let [v4, v6] = FAMILIES.map(|tag| instance.extras.tagged_addresses.get(tag)?.address.ip());
    [instance.address.as_ref().and_then(Address::ip), v4, v6]
}

/// Whether a DNS answer can tell two definitions of an instance apart.
fn answers_differ(old: &Instance, new: &Instance) -> bool {
    let (was, is) = (&old.extras.tagged_addresses, &new.extras.tagged_addresses);
    (&old.service, &old.address, was, old.port, &old.tags, old.weights, &old.meta, &old.extras.locality)
        != (&new.service, &new.address, is, new.port, &new.tags, new.weights, &new.meta, &new.extras.locality)
}
