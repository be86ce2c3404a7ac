//! Alias checks: the worst of another instance's checks and its node's, or of a node's.
//!
//! They follow what is published, at once, and probe nothing. An alias of an alias is seen through to the checks that
//! find something out themselves, with each target visited once: aliases in a ring have the status of the real checks
//! on it and cannot keep each other critical. Past [`TARGETS_MAX`] targets an alias counts with the status it shows, so
//! that a long chain costs a bounded amount per change. An operator's maintenance of the target counts as critical, as
//! in Consul, where it is a check.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{
    Change, Check, CheckKey, CheckKind, Definition, InstanceId, Key, NodeName, Observation, Origin, Record,
    Status,
};
use crate::registry::{CheckEntry, Snapshot};

/// Targets that one alias is followed through.
const TARGETS_MAX: usize = 64;

type Target = (NodeName, Option<InstanceId>);

/// The alias checks that are run, by what they watch.
#[derive(Default)]
pub(super) struct Aliases {
    targets: HashMap<CheckKey, Target>,
    /// By node first: a change to a node concerns all that watch it or an instance on it.
    watchers: HashMap<NodeName, HashMap<Option<InstanceId>, HashSet<CheckKey>>>,
    /// Those that are to be judged anew.
    due: HashSet<CheckKey>,
}

impl Aliases {
    /// Runs the check if it is an alias; returns whether it is.
    pub(super) fn put(&mut self, check: &Check) -> bool {
        let CheckKind::Alias { node, instance } = &check.kind else { return false };
        let key = check.key();
        self.remove(&key);
        self.targets.insert(key.clone(), (node.clone(), instance.clone()));
        self.due.insert(key.clone());
        self.watchers.entry(node.clone()).or_default().entry(instance.clone()).or_default().insert(key);
        true
    }

    pub(super) fn remove(&mut self, key: &CheckKey) {
        let Some((node, instance)) = self.targets.remove(key) else { return };
        let Some(of_node) = self.watchers.get_mut(&node) else { return };
        if let Some(watchers) = of_node.get_mut(&instance) {
            watchers.remove(key);
            if watchers.is_empty() {
                of_node.remove(&instance);
            }
        }
        if of_node.is_empty() {
            self.watchers.remove(&node);
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &CheckKey> {
        self.targets.keys()
    }

    /// Takes in a change that was published: the aliases that it concerns are due.
    pub(super) fn follow(&mut self, change: &Change, snapshot: &Snapshot) {
        if self.targets.is_empty() {
            return;
        }
        // It may have been found before what was published meanwhile.
        if let Change::Observation(Observation { check, .. }) = change
            && self.targets.contains_key(check)
        {
            self.due.insert(check.clone());
        }
        let of_check = |key: &CheckKey| snapshot.check(key).and_then(|entry| entry.check.instance.clone());
        let (node, instance) = match change {
            Change::Observation(Observation { check, .. }) => (&check.node, of_check(check)),
            Change::Definition(Definition::Put(record)) => match record {
                Record::Check(check) => (&check.node, check.instance.clone()),
                Record::Instance(instance) => (&instance.node, Some(instance.id.clone())),
                Record::Node(node) => (&node.name, None),
                Record::Maintenance(maintenance) => (&maintenance.node, maintenance.instance.clone()),
                Record::Acl(_) => return,
                Record::Query(_) | Record::Route(_) => return,
            },
            // Whose check it was is not known any more: as if it was the node's.
            Change::Definition(Definition::Remove(key)) => match key {
                Key::Instance(node, id) => (node, Some(id.clone())),
                Key::Maintenance(node, instance) => (node, instance.clone()),
                Key::Node(node) | Key::Check(node, _) => (node, None),
                Key::Acl(_) => return,
                Key::Query(_) | Key::Route(_) => return,
            },
        };
        let Some(of_node) = self.watchers.get(node) else { return };
        match instance {
            None => self.due.extend(of_node.values().flatten().cloned()),
            some => self.due.extend(of_node.get(&some).into_iter().flatten().cloned()),
        }
    }

    /// What the due aliases have come to, where the registry shows something else.
    pub(super) fn news(&mut self, snapshot: &Snapshot) -> Vec<Observation> {
        let due = std::mem::take(&mut self.due);
        due.iter().filter_map(|key| self.judge(key, snapshot)).collect()
    }

    fn judge(&self, key: &CheckKey, snapshot: &Snapshot) -> Option<Observation> {
        let (node, instance) = self.targets.get(key)?;
        let entry = snapshot.check(key)?;
        let (status, mut output) = judge(snapshot, node, instance.as_ref());
        super::kinds::cut(&mut output, entry.check.output_max);
        if entry.status == status && *entry.output == *output {
            return None;
        }
        let (check, generation) = (key.clone(), Some(entry.generation));
        Some(Observation { check, generation, status, output: output.into(), to_flip: 1 })
    }
}

/// What an alias of this target is to show, with Consul's words.
fn judge(snapshot: &Snapshot, node: &NodeName, instance: Option<&InstanceId>) -> (Status, String) {
    let mut found = Found { worst: None, any: false };
    let mut targets = vec![(node.clone(), instance.cloned())];
    let mut next = 0;
    while let Some((node, instance)) = targets.get(next).cloned() {
        next += 1;
        let Some(entry) = snapshot.node(node.folded()) else {
            found.see(Status::Critical, || format!("Node {node} could not be found"));
            continue;
        };
        let mut maintenances = vec![("Node", entry.maintenance.as_ref())];
        // Consul's aliases do not look at `serfHealth`.
        let told = entry.own_checks.iter().filter(|check| check.check.origin != Origin::Own);
        let mut checks: Vec<&Arc<CheckEntry>> = told.collect();
        if let Some(id) = &instance {
            let Some(of) = entry.instances.get(id) else {
                let text = || format!("Service {id} could not be found on node {node}");
                found.see(Status::Critical, text);
                continue;
            };
            maintenances.push(("Service", of.maintenance.as_ref()));
            checks.extend(&of.checks);
        }
        for (whose, reason) in maintenances.into_iter().filter_map(|(w, reason)| Some((w, reason?))) {
            let name = format!("{whose} Maintenance Mode");
            found.see(Status::Critical, || format!("Aliased check {name:?} failing: {reason}"));
        }
        for check in checks {
            match &check.check.kind {
                CheckKind::Alias { node, instance } if !entry.node.is_external() => {
                    let target = (node.clone(), instance.clone());
                    if targets.contains(&target) {
                        continue;
                    }
                    if targets.len() < TARGETS_MAX {
                        targets.push(target);
                        continue;
                    }
                    found.check(check);
                }
                _ => found.check(check),
            }
        }
    }
    found.sum_up()
}

/// The worst so far; of equals the first.
struct Found {
    worst: Option<(Status, String)>,
    any: bool,
}

impl Found {
    fn check(&mut self, entry: &CheckEntry) {
        self.any = true;
        if entry.status != Status::Passing {
            self.see(entry.status, || {
                format!("Aliased check {:?} failing: {}", entry.check.name, entry.output)
            });
        }
    }

    fn see(&mut self, status: Status, output: impl Fn() -> String) {
        if self.worst.as_ref().is_none_or(|(worst, _)| status > *worst) {
            self.worst = Some((status, output()));
        }
    }

    fn sum_up(self) -> (Status, String) {
        match self.worst {
            Some(worst) => worst,
            None if self.any => (Status::Passing, "All checks passing.".to_owned()),
            None => (Status::Passing, "No checks found.".to_owned()),
        }
    }
}
