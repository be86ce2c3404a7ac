//! The mass-failure guard: when more than a set share of a service's instances, or of all, fall within a short time, the likelier
//! fault is not theirs, and no answer is worse than the last good one. Then DNS goes on to give those that fell, for a
//! bounded time. Pure: time comes as an argument.
//!
//! What is kept is named in the service's entry in the snapshot ([`Guard`]), where `select` finds it; checks and the HTTP API show
//! what was found. Only falls count, from healthy to critical: who is deregistered or in maintenance is so on purpose. Those who
//! fall while a guard holds are kept too, but never for longer than the guard; when it ends, by its time or because enough
//! are back, all falls are forgotten, so that the same ones cannot begin it anew.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::name::of_service;
use crate::model::{InstanceId, NodeName, ServiceName};

/// When a guard begins, and how long it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Percent of a service's instances; 0 guards none.
    pub share: u8,
    /// The same for single services, by name in lower case or prefix and `*`.
    pub service_share: Vec<(String, u8)>,
    /// Percent of all instances registered here; 0 guards none.
    pub server_share: u8,
    /// Falls within so long count together.
    pub window: Duration,
    /// How long a guard holds at most.
    pub hold: Duration,
    /// The same for single services.
    pub service_hold: Vec<(String, Duration)>,
    /// What has fewer instances that were healthy has no guard.
    pub instances_min: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            share: 0,
            service_share: Vec::new(),
            server_share: 0,
            window: Duration::from_secs(30),
            hold: Duration::from_secs(300),
            service_hold: Vec::new(),
            instances_min: 2,
        }
    }
}

impl Settings {
    /// Whether anything is guarded.
    pub(super) fn is_on(&self) -> bool {
        self.share > 0 || self.server_share > 0 || self.service_share.iter().any(|(_, share)| *share > 0)
    }

    fn share(&self, service: &str) -> u8 {
        of_service(&self.service_share, service).copied().unwrap_or(self.share)
    }

    fn hold(&self, service: &str) -> Duration {
        of_service(&self.service_hold, service).copied().unwrap_or(self.hold)
    }

    /// Whether so many fallen ones are too many.
    fn is_over(&self, share: u8, fallen: usize, of: usize) -> bool {
        share > 0 && of >= self.instances_min && fallen * 100 > usize::from(share) * of
    }
}

/// An instance of a service.
pub(super) type Member = (NodeName, InstanceId);

/// What readers see of a guard: instances that DNS gives although they are critical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    kept: BTreeSet<Member>,
    until: Instant,
}

impl Guard {
    pub fn keeps(&self, node: &NodeName, id: &InstanceId) -> bool {
        // Two clones of shared texts; only instances that are critical under a guard are asked for.
        self.kept.contains(&(node.clone(), id.clone()))
    }

    /// When it ends at the latest.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Whom one of two guards keeps, and the other does not.
    pub(super) fn differ<'a>(
        one: Option<&'a Self>,
        other: Option<&'a Self>,
    ) -> impl Iterator<Item = &'a Member> {
        let none = const { &BTreeSet::new() };
        let kept = |of: Option<&'a Self>| of.map_or(none, |of| &of.kept);
        kept(one).symmetric_difference(kept(other))
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

/// All that fell lately.
#[derive(Debug, Default)]
pub(super) struct Guards {
    services: HashMap<ServiceName, Fallen>,
    /// In the order of their time; one that rose meanwhile is passed over.
    order: VecDeque<(Instant, ServiceName, Member)>,
    /// How many are fallen.
    count: usize,
    /// All falls are kept until then.
    server: Option<Instant>,
}

#[derive(Debug, Default)]
struct Fallen {
    members: HashMap<Member, Instant>,
    /// The guard's end, where there is one.
    until: Option<Instant>,
}

impl Guards {
    /// Whether nothing fell lately.
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// An instance fell; `healthy` are left of its service, and `registered` instances there are of all. Names the services of which
    /// other instances are kept now.
    pub(super) fn fell(
        &mut self,
        settings: &Settings,
        (service, member): (&ServiceName, Member),
        (healthy, registered): (usize, usize),
        now: Instant,
    ) -> Vec<ServiceName> {
        self.forget(settings.window, now);
        let fallen = self.services.entry(service.clone()).or_default();
        self.count += usize::from(fallen.members.insert(member.clone(), now).is_none());
        self.order.push_back((now, service.clone(), member));
        if fallen.until.is_some() {
            return vec![service.clone()];
        }
        self.server = self.server.filter(|until| now < *until);
        if self.server.is_some() {
            fallen.until = self.server;
            return vec![service.clone()];
        }
        let count = fallen.members.len();
        let mut begun = Vec::new();
        if settings.is_over(settings.share(service.folded()), count, healthy + count) {
            fallen.until = Some(now + settings.hold(service.folded()));
            begun.push(service.clone());
        }
        if settings.is_over(settings.server_share, self.count, registered) {
            let until = now + settings.hold;
            self.server = Some(until);
            for (name, fallen) in self.services.iter_mut().filter(|(_, fallen)| fallen.until.is_none()) {
                fallen.until = Some(until);
                begun.push(name.clone());
            }
        }
        begun
    }

    /// An instance is healthy again, or gone; `healthy` there are of its service. Returns whether others are kept now.
    pub(super) fn rose(
        &mut self,
        settings: &Settings,
        (service, member): (&ServiceName, &Member),
        healthy: usize,
        now: Instant,
    ) -> bool {
        self.server = self.server.filter(|until| now < *until);
        let Some(fallen) = self.services.get_mut(service) else { return false };
        if fallen.members.remove(member).is_none() {
            return false;
        }
        self.count -= 1;
        let guarded = fallen.until.is_some();
        let count = fallen.members.len();
        let share = settings.share(service.folded());
        // Under the server's guard a service has none of its own to compare with.
        let enough = share > 0 && !settings.is_over(share, count, healthy + count);
        if count == 0 || (guarded && self.server.is_none() && enough) {
            self.drop(service);
        }
        guarded
    }

    /// A guard's time is over.
    pub(super) fn end(&mut self, service: &ServiceName) {
        self.drop(service);
    }

    /// What is kept of a service, and until when.
    pub(super) fn kept(&self, service: &ServiceName) -> Option<Guard> {
        let fallen = self.services.get(service)?;
        Some(Guard { kept: fallen.members.keys().cloned().collect(), until: fallen.until? })
    }

    /// Whether it is the whole server that is guarded.
    pub(super) fn hold_server(&self, now: Instant) -> bool {
        self.server.is_some_and(|until| now < until)
    }

    /// How many services are guarded, and instances kept.
    pub(super) fn counts(&self) -> (usize, usize) {
        let guarded = self.services.values().filter(|fallen| fallen.until.is_some());
        guarded.fold((0, 0), |(services, kept), fallen| (services + 1, kept + fallen.members.len()))
    }

    fn drop(&mut self, service: &ServiceName) {
        if let Some(fallen) = self.services.remove(service) {
            self.count -= fallen.members.len();
        }
    }

    /// Falls before the window count no more, but under a guard.
    fn forget(&mut self, window: Duration, now: Instant) {
        while let Some((at, ..)) = self.order.front() {
            if now.duration_since(*at) < window {
                break;
            }
            let Some((at, service, member)) = self.order.pop_front() else { break };
            let Some(fallen) = self.services.get_mut(&service).filter(|fallen| fallen.until.is_none()) else {
                continue;
            };
            if fallen.members.get(&member) == Some(&at) {
                fallen.members.remove(&member);
                self.count -= 1;
                if fallen.members.is_empty() {
                    self.services.remove(&service);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    fn member(id: u8) -> Member {
        (NodeName::parse("n").unwrap(), InstanceId::parse(&format!("i{id}")).unwrap())
    }

    fn settings() -> Settings {
        Settings {
            share: 50,
            service_share: vec![("db*".into(), 0), ("db-a".into(), 10)],
            service_hold: vec![("short".into(), Duration::from_secs(1))],
            ..Settings::default()
        }
    }

    #[test]
    fn more_than_the_share_within_the_window_begins_it_and_those_that_are_back_end_it() {
        let (mut guards, settings, begun) = (Guards::default(), settings(), Instant::now());
        let at = |secs| begun + Duration::from_secs(secs);
        let web = service("web");
        // Four: two are no more than half.
        assert!(guards.fell(&settings, (&web, member(1)), (3, 9), at(0)).is_empty());
        assert!(guards.fell(&settings, (&web, member(2)), (2, 9), at(1)).is_empty());
        assert_eq!(guards.kept(&web), None);
        let begun = guards.fell(&settings, (&web, member(3)), (1, 9), at(2));
        assert_eq!(begun, std::slice::from_ref(&web));
        let guard = guards.kept(&web).unwrap();
        assert_eq!((guard.len(), guard.until(), guards.counts()), (3, at(302), (1, 3)));
        // Later ones are kept as long.
        let more = guards.fell(&settings, (&web, member(4)), (0, 9), at(200));
        assert_eq!(more, std::slice::from_ref(&web));
        assert_eq!(guards.kept(&web).unwrap().until(), at(302));
        assert!(guards.rose(&settings, (&web, &member(1)), 1, at(201)));
        assert_eq!(guards.counts(), (1, 3));
        assert!(guards.rose(&settings, (&web, &member(2)), 2, at(202)));
        assert_eq!((guards.counts(), guards.is_empty()), ((0, 0), true), "half are back");
    }

    #[test]
    fn falls_far_apart_are_single_ones() {
        let (mut guards, settings, begun) = (Guards::default(), settings(), Instant::now());
        for n in 0..4u8 {
            let now = begun + settings.window * u32::from(n);
            let left = usize::from(3 - n);
            // The last one alone is all that is left, which is too few for a guard.
            assert!(guards.fell(&settings, (&service("web"), member(n)), (left, 9), now).is_empty(), "{n}");
        }
    }

    #[test]
    fn a_service_has_its_own_share_and_time() {
        let (mut guards, settings, now) = (Guards::default(), settings(), Instant::now());
        for (name, begins) in [("db", false), ("db-a", true), ("short", true)] {
            let name = service(name);
            assert!(
                guards.fell(&settings, (&name, member(0)), (1, 9), now).is_empty()
                    || *name.as_str() == *"db-a"
            );
            guards.fell(&settings, (&name, member(1)), (0, 9), now);
            assert_eq!(guards.kept(&name).is_some(), begins, "{name}");
        }
        assert_eq!(guards.kept(&service("short")).unwrap().until(), now + Duration::from_secs(1));
        guards.end(&service("short"));
        assert_eq!(guards.kept(&service("short")), None);
    }

    #[test]
    fn when_much_of_the_server_falls_all_of_it_is_kept() {
        let (mut guards, now) = (Guards::default(), Instant::now());
        let settings = Settings { server_share: 40, ..Settings::default() };
        let names = ["a", "b", "c", "d"].map(service);
        for name in &names[..2] {
            assert!(guards.fell(&settings, (name, member(0)), (0, 5), now).is_empty());
        }
        let mut begun = guards.fell(&settings, (&names[2], member(0)), (0, 5), now);
        begun.sort();
        assert_eq!(begun, &names[..3]);
        assert_eq!(guards.fell(&settings, (&names[3], member(0)), (0, 5), now), [names[3].clone()]);
        assert!(guards.rose(&settings, (&names[0], &member(0)), 1, now) && guards.kept(&names[0]).is_none());
    }

    #[test]
    fn a_services_longer_guard_has_its_own_end_again_when_the_servers_is_over() {
        let (mut guards, begun) = (Guards::default(), Instant::now());
        let hour = Duration::from_secs(3600);
        let settings = Settings {
            service_share: vec![("long".into(), 50)],
            service_hold: vec![("long".into(), hour)],
            server_share: 70,
            ..Settings::default()
        };
        let (long, other) = (service("long"), service("other"));
        for n in 1..=3u8 {
            guards.fell(&settings, (&long, member(n)), (4 - usize::from(n), 5), begun);
        }
        assert_eq!(guards.kept(&long).unwrap().until(), begun + hour);
        assert_eq!(guards.fell(&settings, (&other, member(9)), (0, 5), begun), std::slice::from_ref(&other));
        assert!(guards.rose(&settings, (&other, &member(9)), 1, begun), "the only one of it is back");
        // Half of the others are back: while the server holds all that fell that ends nothing.
        assert!(guards.rose(&settings, (&long, &member(1)), 2, begun) && guards.kept(&long).is_some());
        guards.fell(&settings, (&long, member(1)), (1, 5), begun);
        assert!(guards.rose(&settings, (&long, &member(1)), 2, begun + settings.hold));
        assert_eq!(guards.kept(&long), None);
    }

    proptest! {
        /// Whatever happens, the counts fit what is there, and no guard outlives its time unless it began anew.
        #[test]
        fn counts_fit(steps in prop::collection::vec((0..4u8, 0..3u8, 0..5u8, 0..40u64), 1..200)) {
            let (mut guards, mut now) = (Guards::default(), Instant::now());
            let settings = Settings { share: 50, server_share: 60, ..Settings::default() };
            for (what, name, id, secs) in steps {
                now += Duration::from_secs(secs);
                let name = service(["a", "b", "c"][usize::from(name)]);
                match what {
                    0 | 1 => {
                        let left = 4 - usize::from(id);
                        let changed = guards.fell(&settings, (&name, member(id)), (left, 12), now);
                        for name in changed {
                            let guard = guards.kept(&name).unwrap();
                            prop_assert!(!guard.is_empty() && guard.until() <= now + settings.hold);
                        }
                    }
                    2 => {
                        guards.rose(&settings, (&name, &member(id)), 2, now);
                    }
                    _ => guards.end(&name),
                }
                let all: usize = guards.services.values().map(|fallen| fallen.members.len()).sum();
                prop_assert_eq!(all, guards.count);
                prop_assert!(guards.services.values().all(|fallen| !fallen.members.is_empty()));
            }
        }
    }
}
