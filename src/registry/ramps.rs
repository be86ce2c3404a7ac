//! Slow start: the weight of an instance that is new, or healthy again, rises to its whole within a set time, so that caches warm up and
//! connections are made before it has its share of the load. Pure: time comes as an argument.
//!
//! The share rises in a straight line and in steps, each of them a publish. What an instance has of its weight is named in the service's
//! entry in the snapshot ([`Eased`]), where `select` finds it; once it has the whole, it is not named any more, so that a service
//! without a ramp costs a look at one pointer. Ramps are not kept over a restart: then everything has its whole weight.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::guard::Member;
use crate::model::name::of_service;
use crate::model::{InstanceId, NodeName, ServiceName};

/// How long a ramp takes, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// From the first answer with an instance to its whole weight; zero: at once.
    pub window: Duration,
    /// The same for single services, by name in lower case or prefix and `*`.
    pub service_window: Vec<(String, Duration)>,
    /// Percent of the weight at the beginning, 1 to 99.
    pub begin: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self { window: Duration::ZERO, service_window: Vec::new(), begin: 10 }
    }
}

impl Settings {
    /// Whether anything starts slowly.
    pub(super) fn is_on(&self) -> bool {
        !self.window.is_zero() || self.service_window.iter().any(|(_, window)| !window.is_zero())
    }

    fn window(&self, service: &str) -> Duration {
        of_service(&self.service_window, service).copied().unwrap_or(self.window)
    }
}

/// What readers see of a service's ramps: percent of their weight that instances have, below 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eased(BTreeMap<Member, u8>);

impl Eased {
    /// What an instance has of its weight; none where it has all of it.
    pub fn percent(&self, node: &NodeName, id: &InstanceId) -> Option<u8> {
        // Two clones of shared texts; asked only while there are ramps.
        self.0.get(&(node.clone(), id.clone())).copied()
    }
}

/// All ramps under way.
#[derive(Debug, Default)]
pub(super) struct Ramps {
    services: HashMap<ServiceName, HashMap<Member, Ramp>>,
    count: usize,
}

#[derive(Debug)]
struct Ramp {
    since: Instant,
    window: Duration,
    begin: u8,
}

/// Steps of a ramp, and how short they get at most.
const STEPS: u32 = 20;
const STEP_MIN: Duration = Duration::from_millis(50);

impl Ramp {
    /// Percent of the weight; none when it is the whole.
    fn percent(&self, now: Instant) -> Option<u8> {
        let passed = now.saturating_duration_since(self.since);
        let left = self.window.checked_sub(passed).filter(|left| !left.is_zero())?;
        let whole = u128::from(100 - self.begin.min(100));
        let missing = (whole * left.as_nanos()).div_ceil(self.window.as_nanos().max(1));
        Some(100 - u8::try_from(missing).unwrap_or(0)).filter(|percent| *percent < 100)
    }

    /// When to look again.
    fn next(&self, now: Instant) -> Instant {
        let step = (self.window / STEPS).max(STEP_MIN);
        (now + step).min(self.since + self.window)
    }
}

impl Ramps {
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// An instance is given from now on, and was not before. Returns whether it starts slowly.
    pub(super) fn begin(
        &mut self,
        settings: &Settings,
        service: &ServiceName,
        member: Member,
        now: Instant,
    ) -> bool {
        let window = settings.window(service.folded());
        if window.is_zero() {
            return false;
        }
        let ramp = Ramp { since: now, window, begin: settings.begin };
        let before = self.services.entry(service.clone()).or_default().insert(member, ramp);
        self.count += usize::from(before.is_none());
        true
    }

    /// An instance is not given any more. Returns whether it had a ramp.
    pub(super) fn end(&mut self, service: &ServiceName, member: &Member) -> bool {
        let Some(ramps) = self.services.get_mut(service) else { return false };
        let ended = ramps.remove(member).is_some();
        self.count -= usize::from(ended);
        if ramps.is_empty() {
            self.services.remove(service);
        }
        ended
    }

    /// What the instances of a service have of their weights, and until when that holds; ramps that have come to their end are
    /// forgotten.
    pub(super) fn at(&mut self, service: &ServiceName, now: Instant) -> Option<(Eased, Instant)> {
        let ramps = self.services.get_mut(service)?;
        let before = ramps.len();
        ramps.retain(|_, ramp| ramp.percent(now).is_some());
        self.count -= before - ramps.len();
        let next = ramps.values().map(|ramp| ramp.next(now)).min();
        let percent = |(member, ramp): (&Member, &Ramp)| Some((member.clone(), ramp.percent(now)?));
        let eased = Eased(ramps.iter().filter_map(percent).collect());
        if ramps.is_empty() {
            self.services.remove(service);
        }
        next.map(|next| (eased, next))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: u8) -> Member {
        (NodeName::parse("n").unwrap(), InstanceId::parse(&format!("i{id}")).unwrap())
    }

    fn web() -> ServiceName {
        ServiceName::parse("Web").unwrap()
    }

    fn settings() -> Settings {
        let service_window = vec![("fast*".to_owned(), Duration::ZERO)];
        Settings { window: Duration::from_secs(10), service_window, begin: 10 }
    }

    fn percent(ramps: &mut Ramps, id: u8, now: Instant) -> Option<u8> {
        let (node, id) = member(id);
        ramps.at(&web(), now).and_then(|(eased, _)| eased.percent(&node, &id))
    }

    #[test]
    fn the_share_rises_in_a_line_and_ends_with_the_whole() {
        let (mut ramps, begun) = (Ramps::default(), Instant::now());
        let at = |millis| begun + Duration::from_millis(millis);
        assert!(ramps.begin(&settings(), &web(), member(1), begun));
        assert!(ramps.begin(&settings(), &web(), member(2), at(5_000)));
        for (millis, one, two) in
            [(5_000, Some(55), Some(10)), (9_999, Some(99), Some(54)), (10_000, None, Some(55))]
        {
            let got = (percent(&mut ramps, 1, at(millis)), percent(&mut ramps, 2, at(millis)));
            assert_eq!((got, ramps.len()), ((one, two), if one.is_some() { 2 } else { 1 }), "{millis}");
        }
        assert!(ramps.end(&web(), &member(2)) && !ramps.end(&web(), &member(2)));
        assert!(ramps.is_empty() && ramps.at(&web(), at(11_000)).is_none());
    }

    #[test]
    fn a_service_may_have_none() {
        let mut ramps = Ramps::default();
        assert!(!ramps.begin(&settings(), &ServiceName::parse("fast-a").unwrap(), member(1), Instant::now()));
        assert!(settings().is_on() && !Settings::default().is_on());
    }

    proptest! {
        /// However ramps begin, end and are looked at: no share falls, none is below the first or at the whole, and looking again
        /// when it says comes to an end.
        #[test]
        fn shares_only_rise(starts in prop::collection::vec((0..4u8, 0..8_000u64), 1..12)) {
            let (mut ramps, begun) = (Ramps::default(), Instant::now());
            let mut starts = starts;
            starts.sort_by_key(|(_, at)| *at);
            let mut last: HashMap<u8, u8> = HashMap::new();
            let mut next = None;
            for (id, at) in starts {
                let now = begun + Duration::from_millis(at);
                ramps.begin(&settings(), &web(), member(id), now);
                last.remove(&id);
                next = ramps.at(&web(), now).map(|(_, next)| next);
            }
            let mut looks = 0;
            while let Some(now) = next {
                looks += 1;
                prop_assert!(looks < 200);
                let shown = ramps.at(&web(), now);
                for id in 0..4 {
                    let (node, name) = member(id);
                    let Some(percent) = shown.as_ref().and_then(|(eased, _)| eased.percent(&node, &name)) else { continue };
                    prop_assert!((10..100).contains(&percent));
                    let before = last.insert(id, percent).unwrap_or(0);
                    prop_assert!(percent >= before);
                }
                prop_assert!(shown.as_ref().is_none_or(|(_, then)| *then > now));
                next = shown.map(|(_, next)| next);
            }
            prop_assert!(ramps.is_empty() && ramps.count == 0);
        }
    }
}
