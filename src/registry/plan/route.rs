//! Routes: each change is a new version, made from the one before.

use std::sync::Arc;

use super::{Plan, Planner, limit};
use crate::model::route::{self, Guard, PAST_MAX, Past, Route, SHARE_MAX, Subset};
use crate::model::{Definition, Key, Record, ServiceName};
use crate::registry::command::{Refused, Steer};
use crate::registry::snapshot::ServiceEntry;
use crate::registry::ways::trips;

impl Planner<'_> {
    pub(in crate::registry) fn steer(
        &self,
        service: ServiceName,
        steer: Steer,
        plan: &mut Plan,
    ) -> Result<(), Refused> {
        let old = self.state.route_of(service.folded()).map(|entry| &*entry.route);
        let known = self.state.service(service.folded());
        let none = || Refused::NoRoute(service.to_string());
        let next = match steer {
            Steer::Set { subsets, strict, over, guard } => {
                self.check_route(&service, known, &subsets)?;
                let settled = over == 0 && guard.is_none();
                if old.is_some_and(|old| settled && same(old, &subsets, strict)) {
                    return Ok(());
                }
                let next = self.set(service, known, subsets, (strict, over, guard));
                match trips(self.state, &next, self.now) {
                    Some(why) => {
                        return Err(Refused::RouteNow(format!("the route would be aborted at once: {why}")));
                    }
                    None => next,
                }
            }
            Steer::Undo { why } => {
                let old = old.ok_or_else(none)?;
                // What a guard has ended does not come back whole, at once and without a guard.
                if old.aborted && why.is_none() {
                    let text = format!("{}; to have it again all the same, set it again", old.why);
                    return Err(Refused::RouteNow(text));
                }
                let aborted = why.is_some();
                let Past { version, subsets, strict, .. } = old.past.first().cloned().ok_or_else(none)?;
                let why = why.unwrap_or_else(|| match version {
                    0 => format!("undo of version {}: no route", old.version),
                    former => format!("undo of version {}: as version {former}", old.version),
                });
                Route { why, aborted, ..self.set(service, known, subsets, (strict, 0, None)) }
            }
            Steer::Clear => {
                let old = old.ok_or_else(none)?;
                // Nobody needs what it was any more.
                if known.is_none() {
                    plan.definitions.push(Definition::Remove(Key::Route(service)));
                    return Ok(());
                }
                if !old.is_active() {
                    return Ok(());
                }
                Route { why: "clear".into(), ..self.set(service, known, Vec::new(), (false, 0, None)) }
            }
            Steer::Bring(route) => *route,
        };
        if old.is_none() {
            limit("routes:", self.state.routes().len() + 1, self.limits.routes_max, "routes_max")?;
        }
        plan.definitions.push(Definition::Put(Record::Route(Arc::new(next))));
        Ok(())
    }

    /// Whoever sets a route of nobody has mistaken a name.
    fn check_route(
        &self,
        service: &ServiceName,
        known: Option<&Arc<ServiceEntry>>,
        subsets: &[Subset],
    ) -> Result<(), Refused> {
        let name = service.as_str();
        let invalid = |text: String| Err(Refused::Route(text));
        if !service.is_label() {
            return invalid(format!("service {name:?} has no name in DNS, where routes steer"));
        }
        let Some(known) = known else { return Err(Refused::UnknownService(name.to_owned())) };
        route::check(subsets).map_err(|error| Refused::Route(error.to_string()))?;
        let mut wanted = subsets.iter().enumerate().filter(|(_, subset)| subset.share > 0);
        let first = |instance| subsets.iter().position(|subset| subset.by.has(instance));
        let missing =
            wanted.find(|(at, _)| !known.instances.values().any(|entry| first(&entry.instance) == Some(*at)));
        match missing {
            None => Ok(()),
            Some((_, subset)) => {
                let fits = known.instances.values().any(|entry| subset.by.has(&entry.instance));
                let why = if fits { ": those that it fits are in one before it" } else { "" };
                invalid(format!("no instance of service {name:?} is in the subset {}{why}", subset.by))
            }
        }
    }

    /// The next version.
    fn set(
        &self,
        service: ServiceName,
        known: Option<&Arc<ServiceEntry>>,
        mut subsets: Vec<Subset>,
        (strict, over, guard): (bool, u64, Option<Guard>),
    ) -> Route {
        let entry = self.state.route_of(service.folded());
        let active = entry.filter(|entry| entry.route.is_active());
        // What had a share loses it on the way.
        if let (Some(entry), true) = (active, over > 0) {
            for (subset, _) in entry.route.subsets.iter().zip(&*entry.shares).filter(|(_, share)| **share > 0)
            {
                let named = subset.name.is_some() && subsets.iter().any(|new| new.name == subset.name);
                if !named && !subsets.iter().any(|new| new.by.is(&subset.by)) {
                    subsets.push(Subset { share: 0, ..subset.clone() });
                }
            }
        }
        let (from, from_others) = match active {
            Some(entry) => {
                let share = |new: &Subset| {
                    let mut both = entry.route.subsets.iter().zip(&*entry.shares);
                    both.find(|(old, _)| old.by.is(&new.by)).map_or(0, |(_, share)| *share)
                };
                let left = |old: &Subset| !subsets.iter().any(|new| new.by.is(&old.by));
                let others = entry.route.subsets.iter().zip(&*entry.shares).filter(|(old, _)| left(old));
                let others = others.fold(0u32, |sum, (_, share)| sum.saturating_add(*share));
                (subsets.iter().map(share).collect(), others)
            }
            None => self.unrouted(known, &subsets),
        };
        let old = entry.map(|entry| &entry.route);
        let none =
            Past { version: 0, subsets: Vec::new(), strict: false, set: self.now, why: "no route".into() };
        let former = old.map_or(none, |old| old.as_past());
        let before = old.iter().flat_map(|old| old.past.iter().cloned());
        Route {
            version: old.map_or(0, |old| old.version).saturating_add(1),
            past: std::iter::once(former).chain(before).take(PAST_MAX).collect(),
            set: self.now,
            why: "set".into(),
            aborted: false,
            service,
            subsets,
            strict,
            from,
            from_others,
            over,
            guard,
        }
    }

    /// In which shares subsets, and all others, answer without a route: by the weights of their healthy instances.
    fn unrouted(&self, known: Option<&Arc<ServiceEntry>>, subsets: &[Subset]) -> (Vec<u32>, u32) {
        let (mut sums, mut others) = (vec![0u64; subsets.len()], 0u64);
        let instances = known.into_iter().flat_map(|known| known.instances.values());
        for entry in instances.filter(|entry| self.state.health(entry).is_served()) {
            let at = subsets.iter().position(|subset| subset.by.has(&entry.instance));
            let sum = at.and_then(|at| sums.get_mut(at)).unwrap_or(&mut others);
            *sum += u64::from(entry.instance.weights.passing);
        }
        let total = (sums.iter().sum::<u64>() + others).max(1);
        let share = |sum: u64| u32::try_from(sum * u64::from(SHARE_MAX) / total).unwrap_or(SHARE_MAX);
        (sums.into_iter().map(share).collect(), share(others))
    }
}

fn same(old: &Route, subsets: &[Subset], strict: bool) -> bool {
    old.subsets == subsets && old.strict == strict && old.over == 0 && old.guard.is_none()
}
