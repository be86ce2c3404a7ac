//! What the writer does for the mass-failure [guard](super::super::guard): tells it who fell and who rose, and publishes what is kept.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::deadlines::Due;
use super::super::events::What;
use super::super::guard::{Guard, Member};
use super::super::history::{Past, Source, Was};
use super::super::snapshot::Health;
use super::{Writer, of_ours};
use crate::model::{CheckKey, InstanceId, NodeName, ServiceName};

/// How the instances stand that a check is of, and whether DNS gives them.
pub(super) type Standing = Vec<(ServiceName, Member, Health, bool)>;

impl Writer {
    /// How those stand of whom a check tells; nothing while nobody has to be told.
    pub(super) fn guarded_standing(&self, key: &CheckKey) -> Standing {
        let on = self.shared.upgrade().is_some_and(|shared| shared.guard.load().is_on());
        if !on && self.guards.is_empty() && !self.looks() {
            return Vec::new();
        }
        let Some(node) = self.state.node(key.node.folded()) else { return Vec::new() };
        let Some(check) = node.checks.get(&key.id) else { return Vec::new() };
        let of_one = check.check.instance.as_ref().and_then(|id| node.instances.get(id));
        let of_node = node.instances.values().filter(|_| check.check.instance.is_none());
        of_one
            .into_iter()
            .chain(of_node)
            .map(|entry| {
                let instance = &entry.instance;
                let member = (instance.node.clone(), instance.id.clone());
                (instance.service.clone(), member, self.state.health(entry), self.given(entry))
            })
            .collect()
    }

    /// A check has flipped: who fell by it, and who rose.
    pub(super) fn guard_flipped(&mut self, before: Standing) {
        let Some(shared) = self.shared.upgrade().filter(|_| !before.is_empty()) else { return };
        let settings = shared.guard.load_full();
        for (service, member, was, was_given) in before {
            let Some(entry) = self.state.instance(member.0.folded(), member.1.as_str()) else { continue };
            let is = self.state.health(entry);
            let changed = match (was.is_served(), is) {
                (true, Health::Critical) if settings.is_on() => {
                    let healthy = self.healthy(&service);
                    let all = (healthy, self.state.counts().instances);
                    self.guards.fell(&settings, (&service, member.clone()), all, Instant::now())
                }
                (false, is) if is.is_served() => {
                    let healthy = self.healthy(&service);
                    let rose = self.guards.rose(&settings, (&service, &member), healthy);
                    rose.then(|| service.clone()).into_iter().collect()
                }
                _ => Vec::new(),
            };
            changed.iter().for_each(|service| self.publish_guard(service));
            let entry = self.state.instance(member.0.folded(), member.1.as_str());
            let given = entry.is_some_and(|entry| self.given(entry));
            self.ease(&service, member, (was_given, given));
            self.keep_half(&service);
        }
    }

    /// An instance is about to be removed.
    pub(super) fn guard_removed(&mut self, node: &NodeName, id: &InstanceId) {
        if self.guards.is_empty() {
            return;
        }
        let Some(shared) = self.shared.upgrade() else { return };
        let Some(entry) = self.state.instance(node.folded(), id.as_str()) else { return };
        let (service, member) = (entry.instance.service.clone(), (node.clone(), id.clone()));
        // Its checks may have gone before it, and it looks healthy.
        let itself = usize::from(self.state.health(entry).is_served());
        let healthy = self.healthy(&service).saturating_sub(itself);
        if self.guards.rose(&shared.guard.load(), (&service, &member), healthy) {
            self.publish_guard(&service);
        }
    }

    /// A guard's time is over.
    pub(super) fn guard_ended(&mut self, service: &ServiceName) {
        self.guards.end(service);
        self.publish_guard(service);
    }

    fn healthy(&self, service: &ServiceName) -> usize {
        self.count(service, |entry| self.state.health(entry).is_served())
    }

    /// Shows what is kept of a service.
    fn publish_guard(&mut self, service: &ServiceName) {
        let kept = self.guards.kept(service);
        let due = Due::Guard(service.clone());
        let is = kept.as_ref().map(|(guard, _)| guard.len());
        let was =
            self.state.service(service.folded()).and_then(|entry| entry.guard.as_ref().map(|g| g.len()));
        match (&kept, was) {
            (Some((guard, until)), None) => tracing::warn!(
                %service,
                instances = guard.len(),
                "too many instances failed at once: DNS goes on to give them for at most {} s ([guard])",
                until.duration_since(Instant::now()).as_secs_f64().round()
            ),
            (None, Some(_)) => tracing::warn!(%service, "the guard has ended: DNS gives what is healthy"),
            _ => {}
        }
        let shared = self.shared.upgrade();
        if let (Some(shared), Some(_), None) = (&shared, is, was) {
            shared.metrics.steady.guards.inc();
        }
        match &kept {
            Some((_, until)) => self.deadlines.set(due, *until),
            None => self.deadlines.clear(&due),
        }
        let stood = self.stood(service, kept.as_ref().map(|(guard, _)| guard));
        let index = self.next_index();
        let guard = kept.map(|(guard, _)| Arc::new(guard));
        if self.state.set_guard(index, service, guard, &mut self.round.effects) {
            self.state.index = index;
            self.round.moved = true;
        }
        self.tell_kept(stood);
        if let Some(shared) = shared {
            let (services, kept) = self.guards.counts();
            shared.metrics.steady.guarded.set(services as i64);
            shared.metrics.steady.guarded_instances.set(kept as i64);
        }
    }

    /// How those stand of whom this guard keeps others than the one before.
    fn stood(&self, service: &ServiceName, guard: Option<&Guard>) -> Vec<Was> {
        let before = self.state.service(service.folded()).and_then(|entry| entry.guard.as_deref());
        let differ = Guard::differ(before, guard).filter(|_| self.keeping);
        differ.filter_map(|(node, id)| self.state.was(node.folded(), id.as_str())).collect()
    }

    /// Keeps for the history whom a guard keeps now, or no longer.
    fn tell_kept(&mut self, stood: Vec<Was>) {
        for was in stood {
            let is = self.state.was(was.instance.node.folded(), was.instance.id.as_str());
            // Who is healthy again is not kept, whatever the guard says.
            let Some(keeps) = is.as_ref().map(|is| is.kept).filter(|kept| *kept != was.kept) else {
                continue;
            };
            let (source, what) = (Source::from(&of_ours("guard")), What::Guard { keeps });
            self.round.pasts.push(Past::of(&self.state, source, what, (Some(was), is)));
        }
    }
}
