//! What time does to routes: the writer takes those that are on their way a step further, and puts the former back where a guard
//! says so.

use std::time::Duration;

use tokio::time::Instant;

use super::command::Steer;
use super::deadlines::Due;
use super::plan::{Plan, Planner};
use super::snapshot::{Health, Snapshot};
use super::views;
use super::writer::{Writer, of_ours};
use crate::audit::Cause;
use crate::model::{Route, ServiceName};

/// How often a route on its way is looked at: no more publishes than that.
const STEP: Duration = Duration::from_secs(1);

impl Writer {
    /// Looks at a route, now and again as long as time or a guard may change it.
    pub(super) fn pass_route(&mut self, service: ServiceName) {
        let now = views::now();
        let index = self.next_index();
        if self.state.step_route(&service, now, &mut self.round.effects) {
            self.moved_to(index);
        }
        self.keep_half(&service);
        let Some(entry) = self.state.route_of(service.folded()).cloned() else { return };
        // Also where it is put back: it is looked at again, whatever comes of that.
        if entry.route.is_on_its_way(now) || entry.route.guard_at(now).is_some() {
            self.deadlines.set(Due::Route(service.clone()), Instant::now() + STEP);
        }
        // Instances of the configuration file come a moment after the start, and nobody is judged before.
        let judged = self.unplaced.is_none();
        if let Some(why) = trips(&self.state, &entry.route, now).filter(|_| judged) {
            let version = entry.route.version;
            self.abort_route(service, version, &format!("version {version} aborted: {why}"));
        }
    }

    /// A route is another one.
    pub(super) fn count_route(&self, cause: &Cause) {
        let Some(shared) = self.shared.upgrade() else { return };
        let action = cause.action.strip_suffix("-route").unwrap_or(cause.action);
        shared.metrics.steering.route_changes.of(action).inc();
    }

    /// The former route comes back, through the store like any other.
    fn abort_route(&mut self, service: ServiceName, version: u64, why: &str) {
        let Some(shared) = self.shared.upgrade() else { return };
        self.look_ahead();
        let state = self.ahead.state(&self.state);
        let limits = shared.limits.load();
        let planner = Planner { state, limits: &limits, own: &self.own, now: views::now() };
        let mut plan = Plan::default();
        // Somebody was faster: theirs is looked at when it comes.
        let newest = state.route_of(service.folded()).map(|entry| entry.route.version);
        if newest != Some(version) {
            return;
        }
        let undo = Steer::Undo { why: Some(why.to_owned()) };
        match planner.steer(service.clone(), undo, &mut plan) {
            Ok(()) => {
                tracing::warn!(%service, "putting the former route back: {why}");
                self.propose(plan, None, Some(Due::Route(service)), of_ours("abort-route"));
            }
            Err(refused) => tracing::warn!(%service, "cannot put the former route back: {refused} ({why})"),
        }
    }
}

/// Why a guard puts the former route back, if it does.
pub(super) fn trips(state: &Snapshot, route: &Route, now: u64) -> Option<String> {
    let guard = route.guard_at(now)?;
    // Where nobody has more than before there is nobody to judge.
    if !(0..route.subsets.len()).any(|at| route.gains(at)) {
        return None;
    }
    let instances =
        state.service(route.service.folded()).into_iter().flat_map(|service| service.instances.values());
    let gaining =
        instances.filter(|entry| route.subset_of(&entry.instance).is_some_and(|at| route.gains(at)));
    let (mut all, mut unhealthy) = (0usize, 0usize);
    for entry in gaining {
        let health = state.health(entry);
        // Maintenance is an operator's word, and says nothing about the route.
        if health != Health::Maintenance {
            all += 1;
            unhealthy += usize::from(!health.is_served() || state.is_out(entry));
        }
    }
    let most = guard.unhealthy;
    (all == 0 || unhealthy * 100 > all * usize::from(most)).then(|| match all {
        0 => "no instance that gained by it is left".to_owned(),
        _ => {
            format!("{unhealthy} of the {all} instances that gained by it were unhealthy, more than {most} %")
        }
    })
}
