//! What the writer does for [slow starts](super::super::ramps): notices who is given that was not, and publishes the steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::deadlines::Due;
use super::super::guard::Member;
use super::super::ramps::Settings;
use super::super::snapshot::InstanceEntry;
use super::Writer;
use crate::model::{CheckId, Definition, InstanceId, Key, Maintenance, NodeName, Record, ServiceName};

/// The service of each instance that a batch of definitions is about, and whether it was given; none where it was not there.
pub(super) type Before = BTreeMap<Member, Option<(ServiceName, bool)>>;

impl Writer {
    fn starts(&self) -> Option<Arc<Settings>> {
        let settings = self.shared.upgrade()?.slow_start.load_full();
        (settings.is_on() || !self.ramps.is_empty()).then_some(settings)
    }

    /// Whether anybody has to be told who comes and goes: slow starts and circuits.
    pub(super) fn looks(&self) -> bool {
        self.starts().is_some() || !self.breakers.is_empty()
    }

    /// How those stand whom definitions are about; nothing while nobody has to be told.
    pub(super) fn eased_before(&self, definitions: &[Definition]) -> Before {
        let mut before = Before::new();
        if !self.looks() {
            return before;
        }
        for definition in definitions {
            match definition {
                Definition::Put(Record::Instance(one)) => self.note_one(&mut before, &one.node, &one.id),
                Definition::Remove(Key::Instance(node, id)) => self.note_one(&mut before, node, id),
                Definition::Put(Record::Check(check)) => match &check.instance {
                    Some(id) => self.note_one(&mut before, &check.node, id),
                    None => self.note_all(&mut before, &check.node),
                },
                Definition::Remove(Key::Check(node, id)) => self.note_checked(&mut before, node, id),
                Definition::Put(Record::Maintenance(Maintenance { node, instance, .. }))
                | Definition::Remove(Key::Maintenance(node, instance)) => match instance {
                    Some(id) => self.note_one(&mut before, node, id),
                    None => self.note_all(&mut before, node),
                },
                Definition::Remove(Key::Node(node)) => self.note_all(&mut before, node),
                Definition::Put(_) | Definition::Remove(_) => {}
            }
        }
        before
    }

    fn note_one(&self, before: &mut Before, node: &NodeName, id: &InstanceId) {
        let stands = || {
            let entry = self.state.instance(node.folded(), id.as_str())?;
            Some((entry.instance.service.clone(), self.given(entry)))
        };
        before.entry((node.clone(), id.clone())).or_insert_with(stands);
    }

    fn note_all(&self, before: &mut Before, node: &NodeName) {
        let Some(entry) = self.state.node(node.folded()) else { return };
        for id in entry.instances.keys() {
            self.note_one(before, node, id);
        }
    }

    fn note_checked(&self, before: &mut Before, node: &NodeName, id: &CheckId) {
        let check = self.state.node(node.folded()).and_then(|entry| entry.checks.get(id));
        match check.map(|check| &check.check.instance) {
            Some(Some(id)) => self.note_one(before, node, id),
            Some(None) => self.note_all(before, node),
            None => {}
        }
    }

    /// Whether DNS gives an instance, as far as its health goes.
    pub(super) fn given(&self, entry: &InstanceEntry) -> bool {
        self.state.health(entry).is_served() || self.state.is_kept(entry)
    }

    /// The definitions were applied.
    pub(super) fn eased_after(&mut self, before: Before) {
        for (member, was) in before {
            let entry = self.state.instance(member.0.folded(), member.1.as_str());
            let is = entry.map(|entry| (entry.instance.service.clone(), self.given(entry)));
            let moved = was.as_ref().zip(is.as_ref()).is_some_and(|((was, _), (is, _))| was != is);
            if let (Some((service, true)), true) = (&was, moved || is.is_none()) {
                self.ease(service, member.clone(), (true, false));
            }
            if let (Some((service, _)), true) = (&was, moved || is.is_none()) {
                self.breaker_gone(service, &member);
                self.keep_half(service);
            }
            if let Some((service, given)) = is {
                let was_given = !moved && was.is_some_and(|(_, given)| given);
                self.ease(&service, member, (was_given, given));
                self.keep_half(&service);
            }
        }
    }

    /// An instance was given or not, and is.
    pub(super) fn ease(&mut self, service: &ServiceName, member: Member, given: (bool, bool)) {
        let Some(settings) = self.starts() else { return };
        let changed = match given {
            (false, true) => self.ramps.begin(&settings, service, member, Instant::now()),
            (true, false) => self.ramps.end(service, &member),
            _ => false,
        };
        if changed {
            self.publish_eased(service);
        }
    }

    /// Shows what the instances of a service have of their weights now.
    pub(super) fn publish_eased(&mut self, service: &ServiceName) {
        let shown = self.ramps.at(service, Instant::now());
        let due = Due::Ramp(service.clone());
        match &shown {
            Some((_, next)) => self.deadlines.set(due, *next),
            None => self.deadlines.clear(&due),
        }
        let index = self.next_index();
        let eased = shown.map(|(eased, _)| Arc::new(eased));
        if self.state.set_eased(service, eased, &mut self.round.effects) {
            self.state.index = index;
            self.round.moved = true;
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.metrics.steady.easing.set(self.ramps.len() as i64);
        }
    }
}
