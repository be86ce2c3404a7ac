//! What the writer does for [circuit breakers](super::super::breaker): counts reports, sees to it that no more than half of a service is out,
//! and publishes the circuits that are not closed. A change of a circuit is an event, a part of its service's history, and a line of
//! the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::super::breaker::{Circuit, Rule, Settings, Verdict, word};
use super::super::command::Refused;
use super::super::deadlines::Due;
use super::super::events::{Event, Of, What};
use super::super::guard::Member;
use super::super::history::{Past, Source, Was};
use super::super::report::{Report, Reports};
use super::super::shown::{About, Begun};
use super::super::snapshot::InstanceEntry;
use super::super::views;
use super::{Writer, of_ours};
use crate::audit::{Cause, Value};
use crate::model::{Key, ServiceName};

/// A circuit that changed, as it was.
type Changed = (Member, Option<Circuit>, Option<Was>);

/// Of each of these no more than half are out.
#[derive(Clone, Copy)]
enum These {
    Healthy,
    /// Those that DNS would give if all circuits were closed, which has those that a guard keeps: otherwise what is healthy could
    /// all be out, while DNS gives what is critical.
    Given,
    /// Of those, the ones with a share of the service's route: otherwise a strict route could be left without an answer, and another
    /// be passed over.
    Routed,
}

impl These {
    const ALL: [Self; 3] = [Self::Healthy, Self::Given, Self::Routed];
}

/// What a batch of reports does to a service: it is counted once, however many reports are on it.
struct Room {
    /// Of each of [`These`], how many there are, and how many are out.
    these: [(usize, usize); 3],
    /// The circuits that turned, as they were before the batch.
    changed: BTreeMap<Member, (Option<Circuit>, Option<Was>)>,
}

impl Writer {
    pub(super) fn on_reports(&mut self, reports: Reports) {
        let Some(shared) = self.shared.upgrade() else { return };
        let (settings, max) = (shared.breaker.load_full(), shared.limits.load().reporters_max);
        self.state.at = views::now();
        let reporter = reports.reporter();
        let Reports { reports, origin, begun, reply } = reports;
        self.begun = begun;
        let about: BTreeSet<(&ServiceName, Member)> =
            reports.iter().map(|of| (&of.service, (of.node.clone(), of.id.clone()))).collect();
        let new = about.iter().filter(|(service, member)| self.breakers.is_new(service, member, &reporter));
        let new = new.count();
        if self.breakers.remembered() + new > max {
            self.breakers.sweep(&settings, Instant::now());
        }
        let count = self.breakers.remembered() + new;
        if count > max {
            shared.count_limit("reporters_max");
            let what = "instances and who reports on them".to_owned();
            // The client may have gone.
            let _ = reply.send(Err(Refused::Limit { what, count, max, key: "reporters_max" }));
            return;
        }
        let cause = Cause { origin, action: "report" };
        let (mut unknown, mut rooms) = (Vec::new(), BTreeMap::new());
        for (place, Report { service, node, id, counts }) in reports.into_iter().enumerate() {
            let entry = self.state.instance(node.folded(), id.as_str());
            if entry.is_none_or(|entry| entry.instance.service != service) {
                unknown.push(place);
                continue;
            }
            shared.metrics.steady.reported(counts.good, counts.bad);
            let (rule, member) = (settings.rule(service.folded()), (node, id));
            let now = Instant::now();
            let verdict = self.breakers.report(&rule, (&service, &member), reporter, counts, now);
            if verdict != Verdict::Stay {
                let room = rooms.entry(service.clone()).or_insert_with(|| self.room_of(&service));
                self.carry_out(&rule, verdict, (&service, member), room);
            }
        }
        for (service, room) in rooms {
            let turned = room.changed.into_iter().map(|(member, (was, stood))| (member, was, stood));
            let turned =
                turned.filter(|(member, was, _)| self.breakers.circuit(&service, member) != *was).collect();
            self.publish_broken(&service, turned, &cause);
        }
        // What was reported is in answers when the client has its own.
        self.round.reported.push((reply, unknown));
    }

    fn carry_out(
        &mut self,
        rule: &Rule,
        verdict: Verdict,
        (service, member): (&ServiceName, Member),
        room: &mut Room,
    ) {
        if verdict == Verdict::Open && !self.takes(room, &member) {
            if let Some(shared) = self.shared.upgrade() {
                shared.metrics.steady.spared.inc();
            }
            return self.breakers.refuse(service, &member);
        }
        if !room.changed.contains_key(&member) {
            let (_, was, stood) = self.before(service, &member);
            room.changed.insert(member.clone(), (was, stood));
        }
        match verdict {
            Verdict::Stay => {}
            Verdict::Close => self.breakers.close(service, &member),
            Verdict::Open => self.breakers.open(rule, service, &member, Instant::now()),
        }
    }

    fn room_of(&self, service: &ServiceName) -> Room {
        let these = These::ALL.map(|these| {
            let holds = |entry: &InstanceEntry| self.is_one_of(these, entry);
            (self.count(service, holds), self.out(service, holds).len())
        });
        Room { these, changed: BTreeMap::new() }
    }

    /// Takes a place for one more that is out, if no more than half are out then.
    fn takes(&self, room: &mut Room, (node, id): &Member) -> bool {
        let Some(entry) = self.state.instance(node.folded(), id.as_str()) else { return false };
        let is_one = These::ALL.map(|these| self.is_one_of(these, entry));
        let mut those = room.these.iter().zip(is_one);
        if those.any(|((all, out), is_one)| is_one && (out + 1) * 2 > *all) {
            return false;
        }
        for ((_, out), is_one) in room.these.iter_mut().zip(is_one) {
            *out += usize::from(is_one);
        }
        true
    }

    /// How many of a service this holds for.
    pub(super) fn count(&self, service: &ServiceName, holds: impl Fn(&InstanceEntry) -> bool) -> usize {
        let entry = self.state.service(service.folded());
        entry.into_iter().flat_map(|entry| entry.instances.values()).filter(|entry| holds(entry)).count()
    }

    /// Those of a service that are out, and of which this holds; who was out first comes first.
    fn out(&self, service: &ServiceName, holds: impl Fn(&InstanceEntry) -> bool) -> Vec<Member> {
        let entry = |(node, id): &Member| self.state.instance(node.folded(), id.as_str());
        let out = self.breakers.out(service).into_iter();
        out.filter(|member| entry(member).is_some_and(|entry| holds(entry))).collect()
    }

    fn is_one_of(&self, these: These, entry: &InstanceEntry) -> bool {
        match these {
            These::Healthy => self.state.health(entry).is_served(),
            These::Given => self.given(entry),
            These::Routed => self.given(entry) && self.state.has_share(&entry.instance),
        }
    }

    /// Fewer of a service may be healthy now, or its route may be another one: when more than half are out, who was out first is
    /// tried again.
    pub(in crate::registry) fn keep_half(&mut self, service: &ServiceName) {
        if self.breakers.out(service).is_empty() {
            return;
        }
        let (now, mut changed) = (Instant::now(), Vec::new());
        for these in These::ALL {
            let holds = |entry: &InstanceEntry| self.is_one_of(these, entry);
            let (out, most) = (self.out(service, holds), self.count(service, holds) / 2);
            for member in out.iter().take(out.len().saturating_sub(most)) {
                changed.push(self.before(service, member));
                self.breakers.release(service, member, now);
            }
        }
        if !changed.is_empty() {
            self.publish_broken(service, changed, &of_ours("breaker"));
        }
    }

    /// An instance is not there any more.
    pub(super) fn breaker_gone(&mut self, service: &ServiceName, member: &Member) {
        if self.breakers.has(service) {
            self.breakers.gone(service, member);
            self.publish_broken(service, Vec::new(), &of_ours("breaker"));
        }
    }

    /// Time has passed for a service's circuits.
    pub(super) fn breaker_due(&mut self, service: &ServiceName) {
        let Some(rule) = self.rule(service) else { return };
        let now = Instant::now();
        self.begun = Begun { at: now, cause: "deadline" };
        let changed = self.breakers.pass(&rule, service, now);
        let was = |(member, circuit): (Member, Circuit)| {
            let stood = self.state.was(member.0.folded(), member.1.as_str());
            (member, Some(circuit), stood)
        };
        let changed = changed.into_iter().map(was).collect();
        self.publish_broken(service, changed, &of_ours("breaker"));
    }

    fn before(&self, service: &ServiceName, member: &Member) -> Changed {
        let stood = self.state.was(member.0.folded(), member.1.as_str());
        (member.clone(), self.breakers.circuit(service, member), stood)
    }

    fn rule(&self, service: &ServiceName) -> Option<Rule> {
        let settings: Arc<Settings> = self.shared.upgrade()?.breaker.load_full();
        Some(settings.rule(service.folded()))
    }

    /// Shows a service's circuits, and tells of those that changed.
    fn publish_broken(&mut self, service: &ServiceName, changed: Vec<Changed>, cause: &Cause) {
        let Some((rule, shared)) = self.rule(service).zip(self.shared.upgrade()) else { return };
        let shown = self.breakers.shown(&rule, service);
        let due = Due::Breaker(service.clone());
        match &shown {
            Some((_, next)) => self.deadlines.set(due, *next),
            None => self.deadlines.clear(&due),
        }
        let index = self.next_index();
        let broken = shown.map(|(broken, _)| Arc::new(broken));
        let shows = std::mem::take(&mut self.round.effects.visible);
        if self.state.set_broken(index, service, broken, &mut self.round.effects) {
            self.moved_to(index);
        }
        let about = changed.iter().map(|((node, id), ..)| About::instance(node.clone(), id.clone()));
        self.note(shows, about);
        let (open, half) = self.breakers.counts();
        shared.metrics.steady.circuits(open, half);
        for (member, was, stood) in changed {
            self.tell_circuit(service, member, (was, stood), cause);
        }
    }

    /// A circuit is another one.
    fn tell_circuit(
        &mut self,
        service: &ServiceName,
        member: Member,
        (was, stood): (Option<Circuit>, Option<Was>),
        cause: &Cause,
    ) {
        let is = self.breakers.circuit(service, &member);
        let (node, id) = member;
        let (before, after) = (word(was), word(is));
        tracing::warn!(%service, %id, %node, before, after, "the circuit breaker of an instance has turned");
        if let Some(shared) = self.shared.upgrade() {
            shared.metrics.steady.turned(after);
        }
        let index = self.state.index;
        let what = What::Circuit { before, after };
        if self.recording {
            let of = Of::Instance(node.clone(), service.clone(), id.clone());
            self.round.events.push(Event { index, of, what: what.clone() });
        }
        if self.keeping {
            let after = self.state.was(node.folded(), id.as_str());
            self.round.pasts.push(Past::of(&self.state, Source::from(cause), what, (stood, after)));
        }
        if self.audit.is_on() {
            let circuit = |word| Some(Value::Circuit(word));
            self.tell_change(index, Key::Instance(node, id), circuit(before), circuit(after), cause);
        }
    }
}
