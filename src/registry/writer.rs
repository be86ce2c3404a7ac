//! The one task that changes the registry.
//!
//! Definitions go out to the store and come back on its log; only then are they applied. Meanwhile the next command is planned
//! against the state as it will be when all that is under way is durable ([`ahead`](super::ahead)). Observations,
//! TTL renewals and deadlines are applied at once. Each round takes what waits, applies it, publishes once, wakes,
//! and then answers those who asked: a client that has its answer finds its change in DNS.

mod breaking;
mod easing;
mod guarding;
mod planning;
mod settling;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ahead::Ahead;
use super::apply::Effects;
use super::breaker::Breakers;
use super::command::Refused;
use super::deadlines::{Deadlines, Due};
use super::events::Event;
use super::guard::Guards;
use super::history::Past;
use super::history::pen::Pen;
use super::plan::{Plan, Planner};
use super::ramps::Ramps;
use super::report::{self, Reports};
use super::resume::Unplaced;
use super::shown::{self, About, Begun, Shown};
use super::snapshot::{CheckEntry, Snapshot};
use super::views;
use super::{Found, Published, Request, Shared, told};
use crate::audit::{Audit, Cause, Entry, Outcome, Value};
use crate::model::acl::Token;
use crate::model::{
    Acl, AclKey, AclKind, Change, CheckKey, CheckKind, Definition, Key, Node, NodeName, Observation, Record,
    Status,
};
use crate::store::{Log, LogEntry, Proposal};
use crate::telemetry::trace::{Kind as SpanKind, Span, Value as Traced};

/// What reaches the writer.
pub(super) struct Queues {
    pub(super) commands: mpsc::Receiver<Request>,
    pub(super) observations: mpsc::Receiver<Found>,
    pub(super) reports: mpsc::Receiver<Reports>,
    pub(super) log: Log,
}

/// Things taken in one round, so that a flood of one kind still lets the others through.
const ROUND_MAX: usize = 256;
/// How long a deadline on the machine's clock may be away: the clock may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How long until a deregistration that the store refused is tried again.
const REAP_AGAIN: Duration = Duration::from_secs(1);

/// Who waits for an answer.
pub(super) struct Reply {
    to: oneshot::Sender<Result<(), Refused>>,
    /// From when they asked to their answer.
    span: Span,
}

/// A proposal that the store has not answered.
struct UnderWay {
    definitions: Arc<[Definition]>,
    plan: Plan,
    reply: Option<Reply>,
    cause: Cause,
    begun: Begun,
    /// While the store has it.
    commit: Span,
    /// The deadline that asked for it, to be set again if it fails.
    reaping: Option<Due>,
}

pub(super) struct Writer {
    /// Weak: when the last handle goes, the queues close and the writer ends.
    pub(super) shared: Weak<Shared>,
    pub(super) own: NodeName,
    queues: Queues,
    pub(super) state: Snapshot,
    pub(super) ahead: Ahead,
    under_way: HashMap<u64, UnderWay>,
    tickets: u64,
    /// Requests that come to nothing if what is under way comes to pass, and the last ticket of that: they are looked at again then.
    waiting: Vec<(u64, Request)>,
    /// What is known of the file's definitions, until they come.
    pub(super) unplaced: Option<Unplaced>,
    pub(super) deadlines: Deadlines,
    guards: Guards,
    ramps: Ramps,
    breakers: Breakers,
    pub(super) round: Round,
    /// What is being changed began with this.
    begun: Begun,
    /// Whether this round makes events.
    recording: bool,
    /// Whether what becomes of each service is kept.
    keeping: bool,
    audit: Audit,
    closing: CancellationToken,
}

/// What this round did so far.
#[derive(Default)]
pub(super) struct Round {
    pub(super) effects: Effects,
    changes: Vec<Change>,
    events: Vec<Event>,
    /// What is kept of it.
    pasts: Vec<Past>,
    kicks: Vec<CheckKey>,
    /// What goes to the store.
    proposals: Vec<Proposal>,
    /// Flips for the store to write behind.
    flips: Vec<Observation>,
    /// The index moved without one.
    moved: bool,
    replies: Vec<(Reply, Result<(), Refused>)>,
    /// How those stood whom it is about, while somebody has to be told.
    before: settling::Before,
    /// Who reported, and the positions of what was about nobody.
    reported: Vec<(report::Answer, Vec<usize>)>,
    /// The changes that answers can show.
    shown: Vec<Shown>,
    /// From what came back from the store to when it is published.
    publishing: Vec<Span>,
}

impl Writer {
    pub(super) fn new(
        shared: &Arc<Shared>,
        state: Snapshot,
        unplaced: Unplaced,
        own: Node,
        queues: Queues,
    ) -> Self {
        let mut writer = Self {
            shared: Arc::downgrade(shared),
            own: own.name.clone(),
            queues,
            state,
            ahead: Ahead::default(),
            under_way: HashMap::new(),
            tickets: 0,
            waiting: Vec::new(),
            unplaced: Some(unplaced),
            deadlines: Deadlines::default(),
            guards: Guards::default(),
            ramps: Ramps::default(),
            breakers: Breakers::default(),
            round: Round::default(),
            begun: Begun::now("server"),
            recording: false,
            keeping: shared.limits.load().history_max > 0,
            audit: shared.audit.clone(),
            closing: shared.closing.clone(),
        };
        // TTL checks get one full TTL from now, and what was critical is given its whole time again.
        let loaded = writer.state.clone();
        let timed = |check: &&Arc<CheckEntry>| matches!(check.check.kind, CheckKind::Ttl { .. });
        writer.deadlines.reserve(loaded.checks().filter(timed).count());
        for check in loaded.checks() {
            writer.arm(check, true);
        }
        for token in loaded.acl().tokens() {
            writer.arm_token(&token.value);
        }
        // A guard judges instances, and those of the file are not there yet.
        for entry in loaded.routes() {
            writer.deadlines.set(Due::Route(entry.route.service.clone()), Instant::now());
        }
        // The other records of our node name it: the store keeps it for a later start under another name.
        let own = Definition::Put(Record::Node(Arc::new(own)));
        writer.propose(Plan { definitions: vec![own], ..Plan::default() }, None, None, of_ours("start"));
        writer.publish(shared);
        writer
    }

    pub(super) async fn run(mut self) {
        // No more commands come, and none waits.
        let mut ended = false;
        loop {
            let next = self.deadlines.next();
            // The last handle may have gone in the middle of a round.
            let Some(room) = self.room() else { return };
            tokio::select! {
                biased;
                Some(entries) = self.queues.log.recv() => self.on_log(entries),
                Some(found) = self.queues.observations.recv() => self.on_found(found),
                Some(reports) = self.queues.reports.recv() => self.on_reports(reports),
                () = sleep_until(next) => {}
                () = self.closing.cancelled(), if !self.queues.commands.is_closed() => {
                    self.queues.commands.close();
                }
                request = self.queues.commands.recv(), if room && !ended => match request {
                    Some(request) => self.on_request(request),
                    None => ended = true,
                },
            }
            self.take_waiting();
            self.pass_deadlines();
            self.settle();
            let Some(shared) = self.shared.upgrade() else { return };
            self.publish(&shared);
            if ended && self.under_way.is_empty() {
                return;
            }
        }
    }

    /// Whether another proposal may be under way; none when nobody is left to ask.
    fn room(&self) -> Option<bool> {
        let shared = self.shared.upgrade()?;
        Some(self.under_way.len() < shared.limits.load().commits_waiting_max)
    }

    /// Takes what waits besides what woke us, so that one publish shows it all.
    fn take_waiting(&mut self) {
        for _ in 0..ROUND_MAX {
            let Ok(entries) = self.queues.log.try_recv() else { break };
            self.on_log(entries);
        }
        for _ in 0..ROUND_MAX {
            let Ok(found) = self.queues.observations.try_recv() else { break };
            self.on_found(found);
        }
        for _ in 0..ROUND_MAX {
            let Ok(reports) = self.queues.reports.try_recv() else { break };
            self.on_reports(reports);
        }
        for _ in 0..ROUND_MAX {
            if self.room() != Some(true) {
                break;
            }
            let Ok(request) = self.queues.commands.try_recv() else { break };
            self.on_request(request);
        }
    }

    /// The configuration file's definitions: applied, and not stored. To the first ones comes what an earlier process
    /// left.
    fn on_file(&mut self, mut plan: Plan, cause: &Cause) {
        let left = self.unplaced.take().unwrap_or_default();
        let (words, seen) = left.place(&plan.definitions);
        plan.definitions.extend(words);
        if !plan.definitions.is_empty() {
            let index = self.next_index();
            self.ahead.apply(index, &plan.definitions);
            self.apply(index, &plan.definitions, cause);
            for seen in seen {
                self.state.observe(index, &seen, &mut self.round.effects);
                if let Some(entry) = self.state.check(&seen.check).cloned() {
                    self.arm(&entry, false);
                }
            }
        }
        self.finish(plan, cause);
    }

    fn on_log(&mut self, entries: Vec<LogEntry>) {
        entries.into_iter().for_each(|entry| self.on_outcome(entry));
        let first = self.under_way.keys().min().copied();
        let is_due = |(last, _): &mut (u64, Request)| first.is_none_or(|first| *last < first);
        let due: Vec<_> = self.waiting.extract_if(.., is_due).collect();
        due.into_iter().for_each(|(_, request)| self.on_request(request));
    }

    fn on_outcome(&mut self, entry: LogEntry) {
        match entry {
            LogEntry::Committed { ticket, index, definitions } => {
                let index = index.max(self.next_index());
                let mut done = ticket.and_then(|ticket| self.under_way.remove(&ticket));
                if let Some(done) = &mut done {
                    self.publishing(done, index);
                }
                let cause = done.as_ref().map_or_else(|| of_ours("store"), |done| done.cause.clone());
                self.begun = done.as_ref().map_or_else(|| Begun::now("server"), |done| done.begun);
                self.apply(index, &definitions, &cause);
                let Some(ticket) = ticket else { return self.ahead.forget() };
                let Some(done) = done else { return };
                self.ahead.remove(ticket, &done.definitions);
                self.finish(done.plan, &cause);
                self.round.replies.extend(done.reply.map(|reply| (reply, Ok(()))));
            }
            LogEntry::Refused { ticket, error } => {
                let Some(mut failed) = self.under_way.remove(&ticket) else { return };
                failed.commit.fail(|| error.reason.to_string());
                self.ahead.remove(ticket, &failed.definitions);
                self.ahead.forget();
                if let Some(due) = failed.reaping {
                    self.deadlines.set(due, Instant::now() + REAP_AGAIN);
                }
                let refused = Refused::Unavailable(error.reason);
                let about = failed.definitions.first().map(Definition::key);
                self.tell_failed(failed.cause, about, &refused);
                self.round.replies.extend(failed.reply.map(|reply| (reply, Err(refused))));
            }
        }
    }

    /// The store has done its part: what is left of a traced request is to show it.
    fn publishing(&mut self, done: &mut UnderWay, index: u64) {
        drop(std::mem::take(&mut done.commit));
        if let Some(reply) = done.reply.as_ref().filter(|reply| reply.span.is_recorded()) {
            let mut span = reply.span.child("registry.publish", SpanKind::Internal);
            span.note("rollcall.index", || Traced::from(i64::try_from(index).unwrap_or(i64::MAX)));
            self.round.publishing.push(span);
        }
    }

    pub(super) fn next_index(&self) -> u64 {
        self.state.index + 1
    }

    /// What is not in the store has changed with this index; the store keeps that it was given out.
    pub(super) fn moved_to(&mut self, index: u64) {
        self.state.index = index;
        self.round.moved = true;
    }

    fn apply(&mut self, index: u64, definitions: &[Definition], cause: &Cause) {
        self.state.at = views::now();
        let about: Vec<_> =
            definitions.iter().filter_map(|one| About::definition(&self.state, one)).collect();
        let shows = std::mem::take(&mut self.round.effects.visible);
        self.note_definitions(definitions);
        let mut pen = Pen::default();
        for definition in definitions {
            if self.audit.is_on() {
                self.tell(index, definition, cause);
            }
            if let Some(event) = self.noted().then(|| self.state.event_of(index, definition)).flatten() {
                if self.keeping {
                    pen.defines(&self.state, definition, &event);
                }
                self.round.events.extend(Some(event).filter(|_| self.recording));
            }
            self.state.define(index, definition, &mut self.round.effects);
            match definition {
                Definition::Put(Record::Check(check)) => {
                    if let Some(entry) = self.state.check(&check.key()).cloned() {
                        self.arm(&entry, true);
                    }
                }
                Definition::Put(Record::Route(route)) => {
                    self.deadlines.set(Due::Route(route.service.clone()), Instant::now());
                    self.count_route(cause);
                }
                Definition::Put(Record::Acl(Acl::Token(token))) => self.arm_token(token),
                Definition::Remove(Key::Acl(key)) if key.kind == AclKind::Token => {
                    self.deadlines.clear(&Due::Token(Uuid::parse_str(&key.id).unwrap_or_default()));
                }
                Definition::Remove(Key::Check(node, id)) => {
                    let key = CheckKey { node: node.clone(), id: id.clone() };
                    self.deadlines.clear(&Due::Expire(key.clone()));
                    self.deadlines.clear(&Due::Reap(key));
                }
                _ => {}
            }
            self.round.changes.push(Change::Definition(definition.clone()));
        }
        self.state.index = index;
        self.note(shows, about);
        pen.close(&self.state, cause, &mut self.round.pasts);
    }

    /// Notes a change, where answers can show it. `before` is whether they can show what this round did before it.
    fn note(&mut self, before: bool, about: impl IntoIterator<Item = About>) {
        let visible = &mut self.round.effects.visible;
        if *visible {
            self.round.shown.push(Shown::new(self.begun, about.into_iter()));
        }
        *visible |= before;
    }

    /// Whether anybody wants to know what changes.
    fn noted(&self) -> bool {
        self.recording || self.keeping
    }

    /// The parts of a plan that are not stored.
    fn finish(&mut self, plan: Plan, cause: &Cause) {
        for key in &plan.renewals {
            if let Some(entry) = self.state.check(key).cloned() {
                self.arm(&entry, true);
            }
        }
        self.on_observations(plan.observations, cause);
        self.round.kicks.extend(plan.kicks);
    }

    fn on_found(&mut self, Found { observations, since }: Found) {
        self.begun = Begun { at: since, cause: "probe" };
        self.on_observations(observations, &of_ours("probe"));
    }

    fn on_observations(&mut self, observations: Vec<Observation>, cause: &Cause) {
        self.state.at = views::now();
        for seen in observations {
            let index = self.next_index();
            let before = if self.recording { self.state.standing(&seen.check) } else { None };
            let differs = self.state.check(&seen.check).is_some_and(|entry| entry.status != seen.status);
            let members =
                if differs { self.note_checked(&seen.check.node, &seen.check.id) } else { Vec::new() };
            let mut pen = Pen::default();
            if self.keeping {
                pen.observes(&self.state, &seen);
            }
            let audited = self.audit.is_on().then(|| self.state.check(&seen.check).map(|entry| entry.status));
            let shows = std::mem::take(&mut self.round.effects.visible);
            let flipped = self.state.observe(index, &seen, &mut self.round.effects);
            self.note(shows, About::check(&self.state, &seen.check));
            // What does not flip may be held critical from now on.
            if !flipped {
                pen.close(&self.state, cause, &mut self.round.pasts);
                continue;
            }
            if let Some(before) = audited {
                self.tell_flip(index, &seen, before, cause);
            }
            let flip = before.and_then(|before| self.state.flip(index, &seen.check, before));
            self.round.events.extend(flip);
            self.state.index = index;
            pen.close(&self.state, cause, &mut self.round.pasts);
            if let Some(shared) = self.shared.upgrade() {
                let (check, output) = (&seen.check, seen.output.lines().next().unwrap_or(""));
                tracing::info!(%check, status = %seen.status, output, "a check's status changed");
                shared.metrics.registry.flips.of(seen.status.as_str()).inc();
            }
            if let Some(entry) = self.state.check(&seen.check).cloned() {
                self.arm(&entry, false);
            }
            self.round.flips.push(seen.clone());
            self.round.changes.push(Change::Observation(seen));
            self.note_flipped(members);
        }
    }

    /// Sets and clears the deadlines that a check's definition and status call for. `renew` starts a TTL anew.
    fn arm(&mut self, entry: &CheckEntry, renew: bool) {
        let now = Instant::now();
        if let (CheckKind::Ttl { ttl }, true) = (&entry.check.kind, renew) {
            self.deadlines.set(Due::Expire(entry.key()), now + *ttl);
        }
        let reap = Due::Reap(entry.key());
        match entry.check.deregister_after {
            Some(after) if entry.status == Status::Critical && entry.check.instance.is_some() => {
                self.deadlines.set_if_absent(reap, now + after);
            }
            _ => self.deadlines.clear(&reap),
        }
    }

    fn pass_deadlines(&mut self) {
        let now = Instant::now();
        while let Some(due) = self.deadlines.pop(now) {
            (self.state.at, self.begun) = (views::now(), Begun { at: now, cause: "deadline" });
            match due {
                Due::Expire(key) => self.expire(key),
                Due::Reap(key) => self.reap(key),
                Due::Token(accessor) => self.expire_token(accessor),
                Due::Route(service) => self.pass_route(service),
                Due::Guard(service) => self.guard_ended(&service),
                Due::Breaker(service) => self.breaker_due(&service),
                Due::Ramp(service) => self.publish_eased(&service),
            }
        }
    }

    /// A TTL check was not renewed: critical until its client speaks again (the timer is not set anew).
    fn expire(&mut self, check: CheckKey) {
        let held = self.shared.upgrade().and_then(|shared| shared.unheard.load_full());
        if let Some(until) = held.filter(|until| Instant::now() < **until) {
            return self.deadlines.set(Due::Expire(check), *until);
        }
        let Some(entry) = self.state.check(&check) else { return };
        let output = match &*entry.output {
            "" => "TTL expired".into(),
            last => format!("TTL expired (last output before timeout follows): {last}").into(),
        };
        let generation = Some(entry.generation);
        let flip = Observation { check, generation, status: Status::Critical, output, to_flip: 1 };
        self.on_observations(vec![flip], &of_ours("expire-check"));
    }

    /// An instance was critical for too long: it is deregistered, through the store like any other.
    fn reap(&mut self, key: CheckKey) {
        let Some(shared) = self.shared.upgrade() else { return };
        self.look_ahead();
        let state = self.ahead.state(&self.state);
        let Some(check) = state.check(&key) else { return };
        let Some(id) = &check.check.instance else { return };
        let Some(entry) = state.instance(key.node.folded(), id.as_str()) else { return };
        tracing::info!(
            service = %entry.instance.service, id = %id, node = %key.node, check = %key.id,
            "deregistering: critical for longer than its deregister_critical_service_after"
        );
        let limits = shared.limits.load();
        let planner = Planner { state, limits: &limits, own: &self.own, now: views::now() };
        let mut plan = Plan::default();
        planner.remove_instance(entry, &mut plan);
        planner.drop_implied(&key.node, &mut plan);
        self.propose(plan, None, Some(Due::Reap(key)), of_ours("deregister-critical"));
    }

    /// Sets the deadline at which a token's time is over.
    fn arm_token(&mut self, token: &Token) {
        let Some(expires) = token.expires else { return };
        let left = Duration::from_millis(expires.saturating_sub(views::now()));
        self.deadlines.set(Due::Token(token.accessor), Instant::now() + left.min(LOOK_AGAIN));
    }

    /// A token's time may be over by the clock of the machine: it goes through the store like a client's removal. Nobody is
    /// let in with it meanwhile.
    fn expire_token(&mut self, accessor: Uuid) {
        let Some(token) = self.state.acl().token(accessor).map(|entry| entry.value.clone()) else { return };
        if token.expires.is_none_or(|expires| expires > views::now()) {
            return self.arm_token(&token);
        }
        let key = Key::Acl(AclKey::new(AclKind::Token, &accessor));
        let plan = Plan { definitions: vec![Definition::Remove(key)], ..Plan::default() };
        self.propose(plan, None, Some(Due::Token(accessor)), of_ours("expire-token"));
    }

    /// Tells the audit log what a definition will have changed; before it is applied.
    fn tell(&self, index: u64, definition: &Definition, cause: &Cause) {
        let key = definition.key();
        let before = self.state.record(&key);
        let after = match definition {
            Definition::Put(record) => Some(record.clone()),
            Definition::Remove(_) => None,
        };
        if before != after {
            self.tell_change(index, key, before.map(Value::Record), after.map(Value::Record), cause);
        }
    }

    /// That a check's status changed.
    fn tell_flip(&self, index: u64, seen: &Observation, before: Option<Status>, cause: &Cause) {
        let key = Key::Check(seen.check.node.clone(), seen.check.id.clone());
        self.tell_change(index, key, before.map(Value::Status), Some(Value::Status(seen.status)), cause);
    }

    fn tell_change(&self, index: u64, key: Key, before: Option<Value>, after: Option<Value>, cause: &Cause) {
        let (at, cause) = (SystemTime::now(), cause.clone());
        let (key, index, reason) = (Some(key), Some(index), None);
        self.audit.tell(Entry { at, cause, key, before, after, outcome: Outcome::Allowed, reason, index });
    }

    /// That something was not done.
    fn tell_failed(&self, cause: Cause, about: Option<Key>, why: &Refused) {
        self.audit.tell_failed(cause, || about, told::outcome(why), why);
    }

    /// Shows what this round did: pointer, store, wake-ups, then answers.
    fn publish(&mut self, shared: &Shared) {
        let mut round = std::mem::take(&mut self.round);
        if !round.proposals.is_empty() {
            shared.store.propose(round.proposals);
        }
        self.keep(shared, std::mem::take(&mut round.pasts));
        if round.effects.changed {
            if round.effects.visible {
                self.state.serial = self.state.index as u32;
            }
            let old = shared.published.swap(Arc::new(self.state.clone()));
            if round.effects.access {
                shared.views.refresh(self.state.acl(), views::now());
            }
            shared.versions.touch(round.effects.topics.iter().chain(&round.effects.paced));
            shared.readers.publish();
            shown::count(&round.shown, &old, shared);
            self.show_metrics(shared);
            shared.watchers.wake(&round.effects.topics);
        }
        if !round.flips.is_empty() || round.moved {
            shared.store.observe(round.flips, self.state.index);
        }
        if !round.changes.is_empty() || !round.kicks.is_empty() || !round.events.is_empty() {
            let (index, changes, kicks) = (self.state.index, round.changes, round.kicks);
            let events = self.recording.then_some(round.events);
            // Nobody may be listening.
            let _ = shared.wakes.send(Arc::new(Published { index, changes, events, kicks }));
        }
        self.recording = shared.recorded.load(Ordering::Relaxed);
        drop(round.publishing);
        for (reply, unknown) in round.reported {
            let _ = reply.send(Ok(unknown));
        }
        for (Reply { to, span }, outcome) in round.replies {
            drop(span);
            // The client may have gone.
            let _ = to.send(outcome);
        }
    }

    /// Keeps what happened, before it can be seen.
    fn keep(&mut self, shared: &Shared, pasts: Vec<Past>) {
        let limits = shared.limits.load();
        if !pasts.is_empty() {
            let gone = shared.history.put(pasts, limits.history_max, limits.history_per_service_max);
            shared.metrics.registry.history_dropped.inc_by(gone as u64);
        }
        let keeping = limits.history_max > 0;
        if self.keeping != keeping {
            // What was not noted meanwhile is not known.
            shared.history.forget(views::now());
        }
        self.keeping = keeping;
    }

    fn show_metrics(&self, shared: &Shared) {
        let metrics = &shared.metrics.registry;
        metrics.publishes.inc();
        metrics.index.set(self.state.index as i64);
        metrics.nodes.set(self.state.nodes.len() as i64);
        metrics.services.set(self.state.services.len() as i64);
        shared.metrics.steering.routes.set(self.state.active_routes() as i64);
        metrics.instances.set(self.state.counts.instances as i64);
        for status in [Status::Passing, Status::Warning, Status::Critical] {
            metrics.checks.of(status.as_str()).set(self.state.checks_with(status) as i64);
        }
    }
}

/// Why we do something by ourselves.
pub(super) fn of_ours(action: &'static str) -> Cause {
    Cause { origin: None, action }
}

/// Sleeps until then; for ever when there is no deadline.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
