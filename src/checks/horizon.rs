//! Whether it is the targets that are gone, or we: hosts of targets, and which of them were lost since any was last reached. Pure:
//! time, and whether this machine has a way out, come as arguments.
//!
//! One host that is lost is its own fault, and its checks fall at once. When several hosts are lost one after another and nobody
//! is reached meanwhile, until they are most of those that were alive, the likelier reason is on our side: we are cut off.
//! Then failures of the network say nothing, and statuses stay, for a bounded time. Where this machine itself has lost its way out
//! (an interface, a route), that is known without waiting for others.
//! What answers at all reaches us: a refused connection or an HTTP 500 is a host that is there. Hosts that are this machine are
//! not looked at: they answer whatever the network does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// When we count as cut off, and for how long that is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutOff {
    /// Hosts that have to be lost at least; 0 looks for nothing.
    pub hosts: usize,
    /// How long statuses are held at most.
    pub hold: Duration,
}

impl Default for CutOff {
    fn default() -> Self {
        Self { hosts: 3, hold: Duration::from_secs(60) }
    }
}

#[derive(Debug)]
pub(super) struct Horizon {
    terms: CutOff,
    hosts: HashMap<Arc<str>, Host>,
    /// How many of them are alive.
    alive: usize,
    /// Those that were alive and were lost since any was reached.
    lost: HashSet<Arc<str>>,
    /// When the first of those was lost.
    first: Option<Instant>,
    /// The others have been asked since.
    asked: bool,
    state: State,
    /// Since when this machine has no way out, though it had one.
    stranded: Option<Instant>,
    /// When we were last reached again.
    back: Option<Instant>,
}

#[derive(Debug, Default)]
struct Host {
    checks: usize,
    /// It was reached, and if it was lost since, nobody else was reached since then.
    alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Clear,
    CutOff(Instant),
    /// It lasts too long to be believed.
    Over,
}

/// What a result changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Several are lost: others are to be asked now.
    Ask,
    /// We are cut off; what was lost since then was not the targets' fault.
    CutOff { since: Instant },
    /// Somebody was reached.
    Back,
    /// It has lasted too long: what is found counts again.
    Over,
}

/// Whether a result counts, and what it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) counts: bool,
    pub(super) turn: Option<Turn>,
}

impl Horizon {
    pub(super) fn new(terms: CutOff) -> Self {
        Self {
            terms,
            hosts: HashMap::new(),
            alive: 0,
            lost: HashSet::new(),
            first: None,
            asked: false,
            state: State::Clear,
            stranded: None,
            back: None,
        }
    }

    /// Whether anything is looked for.
    pub(super) fn is_on(&self) -> bool {
        self.terms.hosts > 0
    }

    /// Until when statuses are held; none while they are not.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        let since = match (self.state, self.stranded) {
            (State::CutOff(since), _) | (_, Some(since)) => since,
            _ => return None,
        };
        Some(since + self.terms.hold).filter(|until| now < *until)
    }

    /// How many hosts were lost since any was reached.
    pub(super) fn lost_hosts(&self) -> usize {
        self.lost.len()
    }

    /// Whether it may be alive and has not been heard of since the first was lost.
    pub(super) fn is_open(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|host| host.alive) && !self.lost.contains(host)
    }

    /// A check of a host more.
    pub(super) fn join(&mut self, host: &str) -> Arc<str> {
        let host = self.hosts.get_key_value(host).map_or_else(|| host.into(), |(host, _)| host.clone());
        self.hosts.entry(host.clone()).or_default().checks += 1;
        host
    }

    /// One less.
    pub(super) fn leave(&mut self, host: &str) {
        let Some(entry) = self.hosts.get_mut(host) else { return };
        entry.checks -= 1;
        if entry.checks > 0 {
            return;
        }
        self.alive -= usize::from(entry.alive);
        self.hosts.remove(host);
        self.lost.remove(host);
        if self.hosts.is_empty() {
            *self = Self::new(self.terms);
        }
    }

    /// Whether this machine has lost its way out, looked at now.
    pub(super) fn set_stranded(&mut self, stranded: bool, now: Instant) {
        self.stranded = stranded.then(|| self.stranded.unwrap_or(now));
    }

    /// Whether there has been no way out for longer than is believed.
    pub(super) fn is_stranded_too_long(&self, now: Instant) -> bool {
        self.stranded.is_some_and(|since| now.duration_since(since) >= self.terms.hold)
    }

    /// A host has answered, whatever it said.
    pub(super) fn reached(&mut self, host: &str, now: Instant) -> Heard {
        if self.state == State::Clear {
            // Somebody is there: those that are not are so by themselves.
            for other in self.lost.iter().filter(|other| &***other != host) {
                if let Some(other) = self.hosts.get_mut(other) {
                    self.alive -= usize::from(std::mem::take(&mut other.alive));
                }
            }
        }
        if let Some(host) = self.hosts.get_mut(host) {
            self.alive += usize::from(!std::mem::replace(&mut host.alive, true));
        }
        self.lost.clear();
        (self.first, self.asked) = (None, false);
        let before = std::mem::replace(&mut self.state, State::Clear);
        let turn = (before != State::Clear).then_some(Turn::Back);
        if turn.is_some() {
            self.back = Some(now);
        }
        Heard { counts: true, turn }
    }

    /// A probe that began then failed for want of a way to the host.
    pub(super) fn lost(&mut self, host: &str, began: Instant, now: Instant) -> Heard {
        let heard = |counts, turn| Heard { counts, turn };
        if let State::CutOff(since) = self.state {
            if now.duration_since(since) < self.terms.hold {
                return heard(false, None);
            }
            self.state = State::Over;
            return heard(true, Some(Turn::Over));
        }
        // Known from ourselves: others need not say so, and what was held for its time is not held again.
        if self.stranded.is_some() {
            return heard(self.is_stranded_too_long(now), None);
        }
        // It set out while we were cut off.
        if self.back.is_some_and(|back| began < back) {
            return heard(false, None);
        }
        let entry = self.hosts.get_key_value(host).filter(|(_, entry)| entry.alive);
        let Some((host, _)) = entry.filter(|_| self.state == State::Clear) else { return heard(true, None) };
        self.lost.insert(host.clone());
        let since = *self.first.get_or_insert(now);
        if self.lost.len() < self.terms.hosts {
            return heard(true, None);
        }
        if self.lost.len() * 2 > self.alive {
            self.state = State::CutOff(now);
            return heard(false, Some(Turn::CutOff { since }));
        }
        let ask = !std::mem::replace(&mut self.asked, true);
        heard(true, ask.then_some(Turn::Ask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: CutOff = CutOff { hosts: 3, hold: Duration::from_secs(60) };
    const COUNTS: Heard = Heard { counts: true, turn: None };
    const HELD: Heard = Heard { counts: false, turn: None };

    struct World {
        horizon: Horizon,
        begun: Instant,
    }

    impl World {
        /// So many hosts, all alive.
        fn new(hosts: usize) -> Self {
            let mut world = Self { horizon: Horizon::new(TERMS), begun: Instant::now() };
            for host in 0..hosts {
                world.horizon.join(&host.to_string());
                assert_eq!(world.reached(host, 0), COUNTS);
            }
            world
        }

        fn at(&self, secs: u64) -> Instant {
            self.begun + Duration::from_secs(secs)
        }

        fn reached(&mut self, host: usize, secs: u64) -> Heard {
            let at = self.at(secs);
            self.horizon.reached(&host.to_string(), at)
        }

        fn lost(&mut self, host: usize, secs: u64) -> Heard {
            let at = self.at(secs);
            self.horizon.lost(&host.to_string(), at, at)
        }
    }

    #[test]
    fn when_most_are_lost_and_nobody_is_reached_we_are_cut_off_for_a_while() {
        let mut world = World::new(5);
        assert_eq!([world.lost(0, 1), world.lost(1, 2), world.lost(1, 2)], [COUNTS; 3]);
        let since = world.at(1);
        let cut_off = Heard { counts: false, turn: Some(Turn::CutOff { since }) };
        assert_eq!(world.lost(2, 3), cut_off);
        assert_eq!(world.horizon.held_until(world.at(4)), Some(world.at(63)));
        assert_eq!([world.lost(3, 4), world.lost(0, 62)], [HELD; 2]);
        assert_eq!(world.lost(4, 63), Heard { counts: true, turn: Some(Turn::Over) });
        assert_eq!((world.lost(0, 64), world.horizon.held_until(world.at(64))), (COUNTS, None));
        assert_eq!(world.reached(3, 70), Heard { counts: true, turn: Some(Turn::Back) });
    }

    #[test]
    fn a_few_of_many_are_dead_and_the_others_are_asked() {
        let mut world = World::new(20);
        assert_eq!([world.lost(0, 1), world.lost(1, 2)], [COUNTS; 2]);
        assert_eq!(world.lost(2, 3), Heard { counts: true, turn: Some(Turn::Ask) });
        assert!(!world.horizon.is_open("2") && world.horizon.is_open("3"));
        assert_eq!(world.reached(3, 4), COUNTS);
        // The dead stay dead, and are not among those that count.
        for secs in 5..30 {
            assert_eq!(world.lost(secs % 3, secs as u64), COUNTS);
        }
        assert_eq!(world.horizon.lost_hosts(), 0);
    }

    #[test]
    fn one_that_answers_ends_it_and_what_set_out_before_does_not_count() {
        let mut world = World::new(3);
        for host in 0..3 {
            world.lost(host, 1);
        }
        assert!(world.horizon.held_until(world.at(2)).is_some());
        assert_eq!(world.reached(1, 5).turn, Some(Turn::Back));
        let (began, now) = (world.at(4), world.at(6));
        assert_eq!(world.horizon.lost("0", began, now), HELD);
        assert_eq!(world.lost(0, 6), COUNTS);
    }

    #[test]
    fn two_hosts_are_too_few_but_a_machine_without_a_way_out_knows() {
        let mut world = World::new(2);
        assert_eq!([world.lost(0, 1), world.lost(1, 2)], [COUNTS; 2]);
        world.reached(0, 3);
        let at = world.at(10);
        world.horizon.set_stranded(true, at);
        world.horizon.set_stranded(true, world.begun + Duration::from_secs(11));
        assert_eq!([world.lost(0, 12), world.lost(1, 69)], [HELD; 2]);
        assert_eq!(world.lost(0, 70), COUNTS, "it was held for its time");
        for host in 2..6 {
            world.horizon.join(&host.to_string());
            assert_eq!((world.reached(host, 71), world.lost(host, 72)), (COUNTS, COUNTS), "and is not again");
        }
        world.horizon.set_stranded(false, at);
        assert_eq!(world.horizon.held_until(at), None);
    }

    #[test]
    fn hosts_that_were_never_reached_do_not_count_and_those_without_checks_are_forgotten() {
        let mut world = World::new(2);
        for host in 2..9 {
            world.horizon.join(&host.to_string());
            assert_eq!(world.lost(host, 1), COUNTS);
        }
        assert_eq!(world.horizon.lost_hosts(), 0);
        (0..9).for_each(|host| world.horizon.leave(&host.to_string()));
        assert!(world.horizon.hosts.is_empty() && world.horizon.alive == 0);
    }
}
