//! What the writer does with a command: judges whether whoever asks may, plans it, and proposes to the store what it comes to.

use std::sync::Arc;

use super::super::command::{Command, Refused};
use super::super::deadlines::Due;
use super::super::permission::permit;
use super::super::plan::{Plan, Planner};
use super::super::snapshot::Snapshot;
use super::super::{Request, Shared, views};
use super::{Reply, UnderWay, Writer};
use crate::acl::View;
use crate::audit::Cause;
use crate::model::Definition;
use crate::store::Proposal;
use crate::telemetry::trace::Kind as SpanKind;

impl Writer {
    pub(super) fn on_request(&mut self, Request { command, view, reply, origin, begun, mut span }: Request) {
        let Some(shared) = self.shared.upgrade() else { return };
        self.begun = begun;
        span.note("rollcall.action", || command.action().into());
        let cause = Cause { origin, action: command.action() };
        let about = if self.audit.is_on() { command.about() } else { None };
        let planning = span.child("registry.plan", SpanKind::Internal);
        let again = self.look(&shared, &command, &view).then(|| command.clone());
        let planned = self.plan(&shared, command, &view);
        drop(planning);
        if let (Ok(plan), Some(command)) = (&planned, again)
            && plan.definitions.is_empty()
            && !self.is_nothing(&shared, &command)
        {
            let request = Request { command, view, reply, origin: cause.origin, begun, span };
            return self.waiting.push((self.tickets, request));
        }
        let mut reply = Reply { to: reply, span };
        match planned {
            Err(refused) => {
                reply.span.fail(|| refused.to_string());
                if let Refused::Limit { key, .. } = refused {
                    shared.count_limit(key);
                }
                self.tell_failed(cause, about, &refused);
                self.round.replies.push((reply, Err(refused)));
            }
            Ok(plan) if plan.volatile => {
                self.on_file(plan, &cause);
                self.round.replies.push((reply, Ok(())));
            }
            Ok(plan) if plan.definitions.is_empty() => {
                self.finish(plan, &cause);
                self.round.replies.push((reply, Ok(())));
            }
            Ok(plan) => self.propose(plan, Some(reply), None, cause),
        }
    }

    /// Makes the state ahead where a command may meet something in it; returns whether it is there.
    fn look(&mut self, shared: &Shared, command: &Command, view: &View) -> bool {
        if self.ahead.meets(command, view, &self.state, &shared.limits.load()) {
            self.look_ahead();
        }
        self.ahead.is_there()
    }

    fn plan(&self, shared: &Shared, command: Command, view: &View) -> Result<Plan, Refused> {
        let ahead = self.ahead.state(&self.state);
        permit(ahead, view, &command)?;
        // What a program says of a check is of the one that is there, and holds at once: of one that is under way nobody was told yet.
        let at_once = matches!(command, Command::UpdateTtl { .. });
        if at_once && self.ahead.is_there() {
            permit(&self.state, view, &command)?;
        }
        self.planned(shared, if at_once { &self.state } else { ahead }, command)
    }

    fn planned(&self, shared: &Shared, state: &Snapshot, command: Command) -> Result<Plan, Refused> {
        let limits = shared.limits.load();
        Planner { state, limits: &limits, own: &self.own, now: views::now() }.plan(command)
    }

    /// Whether a command defines nothing that is not there already, whatever is under way.
    fn is_nothing(&self, shared: &Shared, command: &Command) -> bool {
        let plan = self.planned(shared, &self.state, command.clone());
        plan.is_ok_and(|plan| plan.definitions.is_empty())
    }

    /// What is proposed goes to the store at the end of the round, together.
    pub(in super::super) fn propose(
        &mut self,
        mut plan: Plan,
        reply: Option<Reply>,
        reaping: Option<Due>,
        cause: Cause,
    ) {
        let definitions: Arc<[Definition]> = std::mem::take(&mut plan.definitions).into();
        self.tickets += 1;
        let ticket = self.tickets;
        self.ahead.add(&self.state, ticket, &definitions);
        let commit = reply.as_ref().map(|reply| reply.span.child("store.commit", SpanKind::Internal));
        let commit = commit.unwrap_or_default();
        let proposal = Proposal { ticket, definitions: definitions.clone(), after: self.state.index };
        let begun = self.begun;
        self.under_way.insert(ticket, UnderWay { definitions, plan, reply, cause, begun, commit, reaping });
        self.round.proposals.push(proposal);
    }

    /// Makes the state ahead, where it is not there yet.
    pub(in super::super) fn look_ahead(&mut self) {
        let mut under_way: Vec<_> = self.under_way.iter().collect();
        under_way.sort_unstable_by_key(|(ticket, _)| **ticket);
        self.ahead.look(&self.state, under_way.into_iter().map(|(_, one)| &*one.definitions));
    }
}
