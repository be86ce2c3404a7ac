//! What the writer does for the mass-failure [guard](super::super::guard): publishes what is kept.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::deadlines::Due;
use super::super::events::What;
use super::super::guard::Guard;
use super::super::history::{Past, Source, Was};
use super::{Writer, of_ours};
use crate::model::ServiceName;

impl Writer {
    /// A guard's time is over.
    pub(super) fn guard_ended(&mut self, service: &ServiceName) {
        self.guards.end(service);
        self.publish_guard(service);
    }

    pub(super) fn healthy(&self, service: &ServiceName) -> usize {
        self.count(service, |entry| self.state.health(entry).is_served())
    }

    /// Shows what is kept of a service.
    pub(super) fn publish_guard(&mut self, service: &ServiceName) {
        let guard = self.guards.kept(service);
        let due = Due::Guard(service.clone());
        let held = self.state.service(service.folded()).is_some_and(|entry| entry.guard.is_some());
        let shared = self.shared.upgrade();
        match &guard {
            Some(guard) if !held => {
                tracing::warn!(
                    %service,
                    instances = guard.len(),
                    server = self.guards.hold_server(Instant::now()),
                    "too many instances failed at once: DNS goes on to give them for at most {} s ([guard])",
                    guard.until().duration_since(Instant::now()).as_secs_f64().round()
                );
                if let Some(shared) = &shared {
                    shared.metrics.steady.guards.inc();
                }
            }
            None if held => tracing::warn!(%service, "the guard has ended: DNS gives what is healthy"),
            _ => {}
        }
        match &guard {
            Some(guard) => self.deadlines.set(due, guard.until()),
            None => self.deadlines.clear(&due),
        }
        let stood = self.stood(service, guard.as_ref());
        let index = self.next_index();
        let guard = guard.map(Arc::new);
        if self.state.set_guard(index, service, guard, &mut self.round.effects) {
            self.moved_to(index);
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
