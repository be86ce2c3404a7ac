//! What a round did to instances as a whole, and what follows: who fell and who rose is told to the [guard](super::super::guard), who is
//! given that was not [starts slowly](super::super::ramps), and no more than half of a service is out by
//! [circuits](super::super::breaker).
//!
//! Once a round, however many flips and definitions it took: each of these looks at a whole service, and a service of thousands may
//! fall at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use super::super::guard::{Member, Settings};
use super::super::snapshot::{Health, InstanceEntry};
use super::Writer;
use crate::model::{CheckId, Definition, InstanceId, Key, Maintenance, NodeName, Record, ServiceName};

/// How an instance stood before the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stood {
    service: ServiceName,
    health: Health,
    /// Whether DNS gave it, as far as its health went.
    given: bool,
    /// A check of it, or of its node, has flipped since; definitions alone make nobody fall.
    flipped: bool,
}

/// Those whom a round is about; none where it was not there.
pub(super) type Before = BTreeMap<Member, Option<Stood>>;

/// An instance that may stand otherwise than before.
struct Moved {
    member: Member,
    was: Option<Stood>,
    /// Its service and health; none where it has gone.
    is: Option<(ServiceName, Health)>,
}

impl Moved {
    /// The service that it has left.
    fn left(&self) -> Option<&ServiceName> {
        let was = &self.was.as_ref()?.service;
        self.is.as_ref().is_none_or(|(is, _)| is != was).then_some(was)
    }
}

impl Writer {
    /// Whether anybody has to be told who comes and goes.
    fn looks(&self) -> bool {
        let guards = || self.shared.upgrade().is_some_and(|shared| shared.guard.load().is_on());
        !self.guards.is_empty() || !self.breakers.is_empty() || self.starts().is_some() || guards()
    }

    /// Notes how those stand whom definitions are about, before they are applied.
    pub(super) fn note_definitions(&mut self, definitions: &[Definition]) {
        if !self.looks() {
            return;
        }
        for definition in definitions {
            match definition {
                Definition::Put(Record::Instance(one)) => self.note_one(&one.node, &one.id),
                Definition::Remove(Key::Instance(node, id)) => self.note_one(node, id),
                Definition::Put(Record::Check(check)) => match &check.instance {
                    Some(id) => self.note_one(&check.node, id),
                    None => self.note_all(&check.node),
                },
                Definition::Remove(Key::Check(node, id)) => drop(self.note_checked(node, id)),
                Definition::Put(Record::Maintenance(Maintenance { node, instance, .. }))
                | Definition::Remove(Key::Maintenance(node, instance)) => match instance {
                    Some(id) => self.note_one(node, id),
                    None => self.note_all(node),
                },
                Definition::Remove(Key::Node(node)) => self.note_all(node),
                Definition::Put(_) | Definition::Remove(_) => {}
            }
        }
    }

    /// The same of those whom a check is of, before its status may change. Returns who they are.
    pub(super) fn note_checked(&mut self, node: &NodeName, id: &CheckId) -> Vec<Member> {
        if !self.looks() {
            return Vec::new();
        }
        let Some(entry) = self.state.node(node.folded()).cloned() else { return Vec::new() };
        let Some(check) = entry.checks.get(id) else { return Vec::new() };
        let ids: Vec<InstanceId> = match &check.check.instance {
            Some(id) => vec![id.clone()],
            None => entry.instances.keys().cloned().collect(),
        };
        ids.iter().for_each(|id| self.note_one(node, id));
        ids.into_iter().map(|id| (node.clone(), id)).collect()
    }

    /// The check has flipped.
    pub(super) fn note_flipped(&mut self, members: Vec<Member>) {
        for member in members {
            if let Some(Some(stood)) = self.round.before.get_mut(&member) {
                stood.flipped = true;
            }
        }
    }

    fn note_all(&mut self, node: &NodeName) {
        let Some(entry) = self.state.node(node.folded()).cloned() else { return };
        entry.instances.keys().for_each(|id| self.note_one(node, id));
    }

    fn note_one(&mut self, node: &NodeName, id: &InstanceId) {
        let member = (node.clone(), id.clone());
        if self.round.before.contains_key(&member) {
            return;
        }
        let stood = self.state.instance(node.folded(), id.as_str()).map(|entry| Stood {
            service: entry.instance.service.clone(),
            health: self.state.health(entry),
            given: self.given(entry),
            flipped: false,
        });
        self.round.before.insert(member, stood);
    }

    /// Whether DNS gives an instance, as far as its health goes.
    pub(super) fn given(&self, entry: &InstanceEntry) -> bool {
        self.state.health(entry).is_served() || self.state.is_kept(entry)
    }

    /// The round has changed what it changes: what follows from it.
    pub(super) fn settle(&mut self) {
        if self.round.before.is_empty() {
            return;
        }
        let before = std::mem::take(&mut self.round.before);
        let moved = |(member, was): (Member, Option<Stood>)| {
            let entry = self.state.instance(member.0.folded(), member.1.as_str());
            let is = entry.map(|entry| (entry.instance.service.clone(), self.state.health(entry)));
            Moved { member, was, is }
        };
        let moved: Vec<Moved> = before.into_iter().map(moved).collect();
        self.settle_guards(&moved);
        self.settle_ramps(&moved);
        self.settle_circuits(&moved);
    }

    fn settle_guards(&mut self, moved: &[Moved]) {
        let Some(settings) = self.shared.upgrade().map(|shared| shared.guard.load_full()) else { return };
        if self.guards.is_empty() && !settings.is_on() {
            return;
        }
        let mut healthy = HashMap::new();
        let mut changed = BTreeSet::new();
        for one in moved {
            changed.extend(self.settle_guard(&settings, one, &mut healthy));
        }
        changed.iter().for_each(|service| self.publish_guard(service));
    }

    /// Tells the guard of one who fell, rose or went. Names the services of which others are kept now. `healthy` has how many are, by
    /// service, as far as anybody asked.
    fn settle_guard(
        &mut self,
        settings: &Settings,
        one: &Moved,
        healthy: &mut HashMap<ServiceName, usize>,
    ) -> Vec<ServiceName> {
        let Some(was) = &one.was else { return Vec::new() };
        let service = &was.service;
        let mut left = || *healthy.entry(service.clone()).or_insert_with(|| self.healthy(service));
        let is = if one.left().is_some() { None } else { one.is.as_ref().map(|(_, health)| *health) };
        match is {
            Some(Health::Critical) if was.health.is_served() && was.flipped && settings.is_on() => {
                let all = (left(), self.state.counts().instances);
                self.guards.fell(settings, (service, one.member.clone()), all, Instant::now())
            }
            None | Some(Health::Passing | Health::Warning) if !self.guards.is_empty() => {
                let left = left();
                let rose = self.guards.rose(settings, (service, &one.member), left, Instant::now());
                rose.then(|| service.clone()).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn settle_ramps(&mut self, moved: &[Moved]) {
        let Some(settings) = self.starts() else { return };
        let (now, mut changed) = (Instant::now(), BTreeSet::new());
        for Moved { member, was, is } in moved {
            let entry = self.state.instance(member.0.folded(), member.1.as_str());
            let given = entry.is_some_and(|entry| self.given(entry));
            let from = was.as_ref().filter(|was| was.given).map(|was| &was.service);
            let to = is.as_ref().filter(|_| given).map(|(service, _)| service);
            if from == to {
                continue;
            }
            if let Some(service) = from
                && self.ramps.end(service, member)
            {
                changed.insert(service);
            }
            if let Some(service) = to
                && self.ramps.begin(&settings, service, member.clone(), now)
            {
                changed.insert(service);
            }
        }
        changed.iter().for_each(|service| self.publish_eased(service));
    }

    fn settle_circuits(&mut self, moved: &[Moved]) {
        if self.breakers.is_empty() {
            return;
        }
        let mut touched = BTreeSet::new();
        for one in moved {
            if let Some(service) = one.left() {
                self.breaker_gone(service, &one.member);
            }
            touched.extend(one.was.iter().map(|was| was.service.clone()));
            touched.extend(one.is.iter().map(|(service, _)| service.clone()));
        }
        touched.iter().for_each(|service| self.keep_half(service));
    }
}
