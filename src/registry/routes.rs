//! Routes, by service: what was set, and the shares that hold now.
//!
//! Time alone changes those of a route that is on its way; the writer publishes them step by step, so that whoever answers reads
//! no clock.

use std::sync::Arc;

use imbl::OrdMap;

use super::apply::Effects;
use super::snapshot::Snapshot;
use super::watch::Topic;
use crate::model::{Instance, Route, ServiceName};

/// The route of one service.
#[derive(Debug, Clone)]
pub struct RouteEntry {
    pub route: Arc<Route>,
    /// For each of its subsets, the weight among the others at present.
    pub shares: Arc<[u32]>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    entries: OrdMap<ServiceName, Arc<RouteEntry>>,
    /// The last change to any, steps on the way left out.
    index: u64,
    /// Those that leave anybody out.
    active: usize,
}

impl Routes {
    /// `now` is in milliseconds since 1970.
    pub(super) fn put(&mut self, route: Arc<Route>, now: u64, create_index: u64, modify_index: u64) {
        let shares = route.shares_at(now).into();
        self.index = self.index.max(modify_index);
        let name = route.service.clone();
        self.active += usize::from(route.is_active());
        let entry = Arc::new(RouteEntry { route, shares, create_index, modify_index });
        let old = self.entries.insert(name, entry);
        self.active -= old.map_or(0, |old| usize::from(old.route.is_active()));
    }

    fn remove(&mut self, service: &ServiceName) -> bool {
        let old = self.entries.remove(service);
        self.active -= old.as_ref().map_or(0, |old| usize::from(old.route.is_active()));
        old.is_some()
    }
}

impl Snapshot {
    /// All routes, by service.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &Arc<RouteEntry>> {
        self.routes.entries.values()
    }

    /// The route of a service, its name in lower case.
    pub fn route_of(&self, folded: &str) -> Option<&Arc<RouteEntry>> {
        self.routes.entries.get(folded)
    }

    /// Whether its service's route gives an instance a share at present; where there is none, all have one.
    pub(super) fn has_share(&self, instance: &Instance) -> bool {
        let Some(entry) = self.route_of(instance.service.folded()).filter(|entry| entry.route.is_active())
        else {
            return true;
        };
        let share = |at: usize| entry.shares.get(at).copied().unwrap_or(0);
        entry.route.subset_of(instance).is_some_and(|at| share(at) > 0)
    }

    pub(super) fn active_routes(&self) -> usize {
        self.routes.active
    }

    pub(super) fn index_of_routes(&self) -> u64 {
        self.routes.index
    }

    pub(super) fn put_route(&mut self, index: u64, route: &Arc<Route>, effects: &mut Effects) {
        let created = self.route_of(route.service.folded()).map_or(index, |old| old.create_index);
        self.routes.put(route.clone(), self.at, created, index);
        self.routed(&route.service, effects);
        effects.topics.insert(Topic::Routes);
    }

    pub(super) fn remove_route(&mut self, index: u64, service: &ServiceName, effects: &mut Effects) {
        if self.routes.remove(service) {
            self.routes.index = index;
            self.routed(service, effects);
            effects.topics.insert(Topic::Routes);
        }
    }

    /// The shares of a route at a moment; whether they are others than before.
    pub(super) fn step_route(&mut self, service: &ServiceName, now: u64, effects: &mut Effects) -> bool {
        let Some(entry) = self.routes.entries.get_mut(service) else { return false };
        let shares = entry.route.shares_at(now);
        if *shares == *entry.shares {
            return false;
        }
        Arc::make_mut(entry).shares = shares.into();
        effects.changed = true;
        self.routed(service, effects);
        true
    }

    /// DNS answers differ. What Consul's API shows of the service does not, so nobody is woken for it.
    fn routed(&self, service: &ServiceName, effects: &mut Effects) {
        effects.visible = true;
        effects.paced.insert(Topic::Service(service.clone()));
    }
}
