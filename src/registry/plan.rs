//! What a command comes to. Pure: a command and the state it meets give the changes to make, or a refusal that changes
//! nothing.

mod import;
mod query;
mod route;

use std::io;
use std::sync::Arc;

use arcstr::ArcStr;

use super::command::{Caller, Command, Refused, Seen};
use super::limits::Limits;
use super::own::refuse;
use super::snapshot::{CheckEntry, InstanceEntry, NodeEntry, Snapshot};
use crate::model::{
    Address, Check, CheckId, CheckKey, CheckKind, Definition, Instance, InstanceId, Key, Maintenance, Node,
    NodeName, Observation, Origin, Record, Status,
};

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) definitions: Vec<Definition>,
    /// Applied after the definitions.
    pub(super) observations: Vec<Observation>,
    /// Probes that are due now.
    pub(super) kicks: Vec<CheckKey>,
    /// TTL checks whose time starts anew.
    pub(super) renewals: Vec<CheckKey>,
    /// The definitions are not stored: the configuration file has them.
    pub(super) volatile: bool,
}

/// What a command is planned against.
pub(super) struct Planner<'a> {
    pub(super) state: &'a Snapshot,
    pub(super) limits: &'a Limits,
    /// Our own node, which stays whatever happens.
    pub(super) own: &'a NodeName,
    /// In milliseconds since 1970.
    pub(super) now: u64,
}

impl Planner<'_> {
    /// Plans a command.
    pub(super) fn plan(&self, command: Command) -> Result<Plan, Refused> {
        let mut plan = Plan::default();
        match command {
            Command::RegisterInstance { caller, instance, checks, replace_checks } => {
                self.make_node(&caller, &mut plan)?;
                let instance_key = (instance.node.clone(), instance.id.clone());
                self.put_instance(instance, &mut plan)?;
                self.put_checks(Some(&instance_key), checks, replace_checks, &mut plan)?;
            }
            Command::RegisterCheck { caller, check } => self.register_check(&caller, check, &mut plan)?,
            Command::DeregisterInstance { caller, id } => {
                let entry = self.instance(&caller, &id)?;
                refuse(entry.instance.origin, "service", id.as_str())?;
                self.remove_instance(entry, &mut plan);
                self.drop_implied(&entry.instance.node, &mut plan);
            }
            Command::DeregisterCheck { caller, id } => {
                let entry = self.check(&caller, &id)?;
                refuse(entry.check.origin, "check", id.as_str())?;
                plan.definitions.push(remove_check(entry));
                self.drop_implied(&entry.check.node, &mut plan);
            }
            Command::Maintain { caller, instance, reason } => {
                self.maintain(&caller, instance, reason, &mut plan)?;
            }
            Command::UpdateTtl { caller, id, status, output } => {
                let entry = self.check(&caller, &id)?;
                if !matches!(entry.check.kind, CheckKind::Ttl { .. }) {
                    return Err(Refused::NotTtl(id.to_string()));
                }
                let (generation, to_flip) = (Some(entry.generation), 1);
                plan.renewals.push(entry.key());
                plan.observations.push(Observation {
                    check: entry.key(),
                    generation,
                    status,
                    output,
                    to_flip,
                });
            }
            Command::CatalogRegister { node, skip_node, instance, checks } => {
                self.catalog_register(node, skip_node, instance, checks, &mut plan)?;
            }
            Command::CatalogDeregister { node, instance, check } => {
                self.catalog_deregister(&node, instance, check, &mut plan)?;
            }
            Command::Acl(command) => {
                super::acl::plan(self.state.acl(), command, self.limits.acl_entries_max, &mut plan)?;
            }
            Command::PutQuery { query, new } => self.put_query(query, new, &mut plan)?,
            Command::RemoveQuery { id } => self.remove_query(id, &mut plan)?,
            Command::Route { service, steer } => self.steer(service, steer, &mut plan)?,
            Command::Import(brought) => self.import(brought, &mut plan)?,
            Command::SetFileDefinitions { instances, checks } => {
                self.set_file(instances, checks, &mut plan)?;
            }
        }
        self.limit_octets(&plan)?;
        Ok(plan)
    }

    fn limit_octets(&self, plan: &Plan) -> Result<(), Refused> {
        for definition in &plan.definitions {
            let Definition::Put(record) = definition else { continue };
            let (what, id) = match record {
                Record::Node(node) => ("node", node.name.as_str()),
                Record::Instance(instance) => ("service", instance.id.as_str()),
                Record::Check(check) => ("check", check.id.as_str()),
                Record::Query(query) => ("prepared query", query.name.as_str()),
                Record::Route(route) => ("route", route.service.as_str()),
                Record::Maintenance(_) => continue,
                Record::Acl(acl) => (acl.key().kind.word(), ""),
            };
            let mut octets = Count(0);
            let octets = serde_json::to_writer(&mut octets, record).map_or(usize::MAX, |()| octets.0);
            let max = self.limits.definition_octets_max;
            if octets > max {
                let what = format!("octets of the definition of {what} {id:?}:");
                return limit(&what, octets, max, "definition_octets_max");
            }
        }
        Ok(())
    }

    fn register_check(&self, caller: &Caller, mut check: Check, plan: &mut Plan) -> Result<(), Refused> {
        let mut of = None;
        if let Some(id) = &check.instance {
            let found = self.state.find_instance(caller, id.as_str());
            let entry = found.map_err(|nodes| ambiguous("service", id.as_str(), &nodes))?;
            let entry = entry.filter(|entry| entry.instance.origin != Origin::Own);
            let entry = entry.ok_or_else(|| Refused::NoSuchInstance(id.to_string()))?;
            check.node = entry.instance.node.clone();
            of = Some((check.node.clone(), id.clone()));
        } else {
            self.make_node(caller, plan)?;
        }
        self.put_checks(of.as_ref(), vec![check], false, plan)
    }

    fn maintain(
        &self,
        caller: &Caller,
        instance: Option<InstanceId>,
        reason: Option<ArcStr>,
        plan: &mut Plan,
    ) -> Result<(), Refused> {
        let (node, set) = match &instance {
            Some(id) => {
                let entry = self.instance(caller, id)?;
                (entry.instance.node.clone(), entry.maintenance.is_some())
            }
            None => {
                self.make_node(caller, plan)?;
                let node = self.state.node(caller.node.folded());
                (caller.node.clone(), node.is_some_and(|entry| entry.maintenance.is_some()))
            }
        };
        // Set twice, the first reason stays, as in Consul.
        match reason {
            Some(reason) if !set => {
                let record = Record::Maintenance(Maintenance { node, instance, reason });
                plan.definitions.push(Definition::Put(record));
            }
            None if set => plan.definitions.push(Definition::Remove(Key::Maintenance(node, instance))),
            _ => {}
        }
        Ok(())
    }

    /// The caller's node, made on first use.
    fn make_node(&self, caller: &Caller, plan: &mut Plan) -> Result<(), Refused> {
        if self.state.node(caller.node.folded()).is_some() {
            return Ok(());
        }
        let Some(address) = caller.address else {
            return Err(Refused::UnknownNode(caller.node.to_string()));
        };
        self.put_node(
            Node {
                name: caller.node.clone(),
                id: None,
                address: Address::Ip(address),
                tagged_addresses: Default::default(),
                meta: Default::default(),
                locality: None,
                implied: true,
            },
            plan,
        )
    }

    fn put_node(&self, node: Node, plan: &mut Plan) -> Result<(), Refused> {
        let of = |what: &str| format!("{what} of node {:?}:", node.name.as_str());
        self.limit_meta(&of, node.meta.iter().map(|(key, value)| (key.len(), value.len())))?;
        let (addresses, max) = (node.tagged_addresses.len(), self.limits.tagged_addresses_max);
        limit(&of("tagged addresses"), addresses, max, "tagged_addresses_max")?;
        match self.state.node(node.name.folded()) {
            Some(entry) if *entry.node == node => return Ok(()),
            Some(_) => {}
            None => limit("nodes:", self.state.nodes().len() + 1, self.limits.nodes_max, "nodes_max")?,
        }
        plan.definitions.push(Definition::Put(Record::Node(Arc::new(node))));
        Ok(())
    }

    fn put_instance(&self, mut instance: Instance, plan: &mut Plan) -> Result<(), Refused> {
        self.limit_instance(&instance)?;
        self.state.share_names(&mut instance);
        let old = self.state.instance(instance.node.folded(), instance.id.as_str());
        match old {
            // A reload puts the file's own in place of what is there.
            Some(old) if instance.origin == Origin::File && old.instance.origin != Origin::Own => {}
            Some(old) => {
                refuse(old.instance.origin, "service", instance.id.as_str())?;
                if *old.instance == instance {
                    return Ok(());
                }
            }
            None => {
                let count = self.state.counts().instances + 1;
                limit("instances:", count, self.limits.instances_max, "instances_max")?;
            }
        }
        plan.definitions.push(Definition::Put(Record::Instance(Arc::new(instance))));
        Ok(())
    }

    fn limit_instance(&self, instance: &Instance) -> Result<(), Refused> {
        let of = |what: &str| format!("{what} of service {:?}:", instance.id.as_str());
        let limits = self.limits;
        limit(&of("tags"), instance.tags.len(), limits.tags_max, "tags_max")?;
        for tag in instance.tags.iter() {
            limit(&of("octets of a tag"), tag.len(), limits.tag_octets_max, "tag_octets_max")?;
        }
        self.limit_meta(&of, instance.meta.iter().map(|(key, value)| (key.len(), value.len())))?;
        let addresses = instance.extras.tagged_addresses.len();
        limit(&of("tagged addresses"), addresses, limits.tagged_addresses_max, "tagged_addresses_max")
    }

    /// The limits on meta, the same for nodes and instances; `meta` has the octets of each key and value.
    fn limit_meta(
        &self,
        of: &impl Fn(&str) -> String,
        meta: impl Iterator<Item = (usize, usize)> + Clone,
    ) -> Result<(), Refused> {
        let limits = self.limits;
        limit(&of("meta pairs"), meta.clone().count(), limits.meta_pairs_max, "meta_pairs_max")?;
        for (key, value) in meta {
            let max = limits.meta_key_octets_max;
            limit(&of("octets of a meta key"), key, max, "meta_key_octets_max")?;
            let max = limits.meta_value_octets_max;
            limit(&of("octets of a meta value"), value, max, "meta_value_octets_max")?;
        }
        Ok(())
    }

    /// Puts the checks of one instance (or of a node itself). Those that are the same already are not stored again, but
    /// are due at once when they do not pass, and their TTL starts anew.
    fn put_checks(
        &self,
        of: Option<&(NodeName, InstanceId)>,
        checks: Vec<Check>,
        replace: bool,
        plan: &mut Plan,
    ) -> Result<(), Refused> {
        let instance = of.and_then(|(node, id)| self.state.instance(node.folded(), id.as_str()));
        let present: &[Arc<CheckEntry>] = match (of, checks.first()) {
            (Some(_), _) => instance.map_or(&[], |entry| &entry.checks),
            (None, Some(check)) => {
                self.state.node(check.node.folded()).map_or(&[], |entry| &entry.own_checks)
            }
            (None, None) => &[],
        };
        if let Some((entry, (_, id))) = instance.zip(of)
            && entry.instance.origin == Origin::Own
        {
            refuse(entry.instance.origin, "service", id.as_str())?;
        }
        let stays = |old: &CheckEntry| {
            !replace && old.check.origin != Origin::Own && checks.iter().all(|check| check.id != old.check.id)
        };
        let count = checks.len() + present.iter().filter(|old| stays(old)).count();
        let max = self.limits.checks_per_instance_max;
        limit("checks of one service or node:", count, max, "checks_per_instance_max")?;
        let total = self.state.counts().checks.iter().sum::<usize>() + checks.len();
        limit("checks:", total, self.limits.checks_max, "checks_max")?;
        if replace {
            let gone = present.iter().filter(|old| checks.iter().all(|check| check.id != old.check.id));
            plan.definitions.extend(gone.map(|old| remove_check(old)));
        }
        for check in checks {
            self.put_check(check, plan)?;
        }
        Ok(())
    }

    fn put_check(&self, check: Check, plan: &mut Plan) -> Result<(), Refused> {
        let key = check.key();
        if let Some(old) = self.state.check(&key) {
            if check.origin != Origin::File || old.check.origin == Origin::Own {
                refuse(old.check.origin, "check", key.id.as_str())?;
            }
            if matches!(check.kind, CheckKind::Ttl { .. }) {
                plan.renewals.push(key.clone());
            }
            // The status to start with says nothing about a check that has one.
            let started = check.clone().with(|terms| terms.initial = old.check.initial);
            let same = started == old.check;
            if same {
                if check.is_probe() && old.status != Status::Passing {
                    plan.kicks.push(key);
                }
                return Ok(());
            }
        }
        plan.definitions.push(Definition::Put(Record::Check(check)));
        Ok(())
    }

    fn catalog_register(
        &self,
        node: Node,
        skip_node: bool,
        instance: Option<Instance>,
        checks: Vec<Seen>,
        plan: &mut Plan,
    ) -> Result<(), Refused> {
        let name = node.name.clone();
        let external = match self.state.node(name.folded()) {
            Some(entry) if skip_node => entry.node.is_external(),
            None if skip_node => return Err(Refused::UnknownNode(name.to_string())),
            // Our own node is what the configuration says.
            _ if name == *self.own => false,
            _ => {
                let external = node.is_external();
                self.put_node(node, plan)?;
                external
            }
        };
        if let Some(instance) = instance {
            self.put_instance(instance, plan)?;
        }
        for Seen { check, status, output } in checks {
            let key = check.key();
            let runs = check.is_probe() && !external;
            let known = self.state.check(&key).is_some();
            let of = check.instance.clone().map(|id| (key.node.clone(), id));
            self.put_checks(of.as_ref(), vec![check], false, plan)?;
            // A status written from outside never overrides a live probe's.
            if !runs && (known || !output.is_empty()) {
                plan.observations.push(Observation {
                    check: key,
                    generation: None,
                    status,
                    output,
                    to_flip: 1,
                });
            }
        }
        Ok(())
    }

    fn catalog_deregister(
        &self,
        node: &NodeName,
        instance: Option<InstanceId>,
        check: Option<CheckId>,
        plan: &mut Plan,
    ) -> Result<(), Refused> {
        let Some(entry) = self.state.node(node.folded()) else { return Ok(()) };
        match (instance, check) {
            (Some(id), _) => {
                let Some(entry) = entry.instances.get(&id) else { return Ok(()) };
                refuse(entry.instance.origin, "service", id.as_str())?;
                self.remove_instance(entry, plan);
            }
            (None, Some(id)) => {
                let Some(entry) = entry.checks.get(&id) else { return Ok(()) };
                refuse(entry.check.origin, "check", id.as_str())?;
                plan.definitions.push(remove_check(entry));
            }
            (None, None) => return self.remove_node(entry, plan),
        }
        self.drop_implied(node, plan);
        Ok(())
    }

    fn remove_node(&self, entry: &NodeEntry, plan: &mut Plan) -> Result<(), Refused> {
        let in_file = entry.instances.values().find(|e| e.instance.origin == Origin::File);
        if let Some(in_file) = in_file {
            return refuse(Origin::File, "service", in_file.instance.id.as_str());
        }
        for instance in entry.instances.values().filter(|e| e.instance.origin != Origin::Own) {
            self.remove_instance(instance, plan);
        }
        let own_checks = entry.own_checks.iter().filter(|e| e.check.origin != Origin::Own);
        plan.definitions.extend(own_checks.map(|check| remove_check(check)));
        if entry.maintenance.is_some() {
            plan.definitions.push(Definition::Remove(Key::Maintenance(entry.node.name.clone(), None)));
        }
        if entry.node.name != *self.own {
            plan.definitions.push(Definition::Remove(Key::Node(entry.node.name.clone())));
        }
        Ok(())
    }

    /// Removes an instance with all that hangs on it.
    pub(super) fn remove_instance(&self, entry: &InstanceEntry, plan: &mut Plan) {
        let instance = &entry.instance;
        plan.definitions.extend(entry.checks.iter().map(|check| remove_check(check)));
        if entry.maintenance.is_some() {
            let key = Key::Maintenance(instance.node.clone(), Some(instance.id.clone()));
            plan.definitions.push(Definition::Remove(key));
        }
        plan.definitions.push(Definition::Remove(Key::Instance(instance.node.clone(), instance.id.clone())));
    }

    /// A node that was made on first use goes with the last that it had.
    pub(super) fn drop_implied(&self, node: &NodeName, plan: &mut Plan) {
        let Some(entry) = self.state.node(node.folded()) else { return };
        let removed = |wanted: &Key| {
            plan.definitions.iter().any(|d| matches!(d, Definition::Remove(key) if key == wanted))
        };
        let emptied = entry.instances.keys().all(|id| removed(&Key::Instance(node.clone(), id.clone())))
            && entry.checks.keys().all(|id| removed(&Key::Check(node.clone(), id.clone())));
        if entry.node.implied && entry.maintenance.is_none() && emptied {
            plan.definitions.push(Definition::Remove(Key::Node(node.clone())));
        }
    }

    fn set_file(&self, instances: Vec<Instance>, checks: Vec<Check>, plan: &mut Plan) -> Result<(), Refused> {
        plan.volatile = true;
        let Some(own) = self.state.node(self.own.folded()) else { return Ok(()) };
        for check in own.checks.values().filter(|e| e.check.origin == Origin::File) {
            if checks.iter().all(|new| new.id != check.check.id) {
                plan.definitions.push(remove_check(check));
            }
        }
        for old in own.instances.values().filter(|e| e.instance.origin == Origin::File) {
            if instances.iter().all(|new| new.id != old.instance.id) {
                self.remove_instance(old, plan);
            }
        }
        for instance in instances {
            let old = self.state.instance(instance.node.folded(), instance.id.as_str());
            if old.is_none_or(|old| *old.instance != instance) {
                self.put_instance(instance, plan)?;
            }
        }
        for check in checks {
            self.put_check(check, plan)?;
        }
        Ok(())
    }

    fn instance(&self, caller: &Caller, id: &InstanceId) -> Result<&Arc<InstanceEntry>, Refused> {
        let found = self.state.find_instance(caller, id.as_str());
        let entry = found.map_err(|nodes| ambiguous("service", id.as_str(), &nodes))?;
        // Agents do not know the service of Consul's servers, which stands in the catalog alone.
        let entry = entry.filter(|entry| entry.instance.origin != Origin::Own);
        entry.ok_or_else(|| not_there(caller, "service", id.as_str(), Refused::UnknownInstance))
    }

    fn check(&self, caller: &Caller, id: &CheckId) -> Result<&Arc<CheckEntry>, Refused> {
        let found = self.state.find_check(caller, id.as_str());
        let entry = found.map_err(|nodes| ambiguous("check", id.as_str(), &nodes))?;
        let entry = entry.filter(|entry| entry.check.origin != Origin::Own);
        entry.ok_or_else(|| not_there(caller, "check", id.as_str(), Refused::UnknownCheck))
    }
}

/// Counts what is written to it.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn remove_check(entry: &CheckEntry) -> Definition {
    Definition::Remove(Key::Check(entry.check.node.clone(), entry.check.id.clone()))
}

/// Nobody has the id of those that a caller may mean.
pub(super) fn not_there(
    caller: &Caller,
    kind: &'static str,
    id: &str,
    unknown: fn(String) -> Refused,
) -> Refused {
    match caller.named {
        true => Refused::NotThere { kind, id: id.to_owned(), node: caller.node.to_string() },
        false => unknown(id.to_owned()),
    }
}

fn ambiguous(kind: &'static str, id: &str, nodes: &[NodeName]) -> Refused {
    let nodes = nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    Refused::Ambiguous { kind, id: id.to_owned(), nodes }
}

pub(super) fn limit(what: &str, count: usize, max: usize, key: &'static str) -> Result<(), Refused> {
    if count > max {
        return Err(Refused::Limit { what: what.to_owned(), count, max, key });
    }
    Ok(())
}
