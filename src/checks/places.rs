//! The places that probes in flight hold.
//!
//! A probe holds one of the `max` places until it ends, or until it has taken [`QUICK_MAX`]: then it is slow and gives the
//! place to another. So at least `max` probes start in every such time, however many targets are silent; a rack that goes
//! dark does not keep the checks of all others waiting for its timeouts. Of slow ones there are at most [`SLOW_PARTS`] times
//! as many as places; further ones keep theirs.
//!
//! A larger `max` alone would do the same for silent targets, but would also let that many probes loose at once at a start,
//! when every check is due. Pure: times come as arguments.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// How long a probe holds its place.
pub(super) const QUICK_MAX: Duration = Duration::from_millis(100);
/// Slow probes for each place.
pub(super) const SLOW_PARTS: usize = 8;

/// Who holds a place, by an ID of type `T`.
#[derive(Debug)]
pub(super) struct Places<T> {
    max: usize,
    holding: HashSet<T>,
    /// By the time of their start; some have ended.
    started: VecDeque<(Instant, T)>,
    slow: HashSet<T>,
}

impl<T: Copy + Eq + Hash> Places<T> {
    /// `max` places, at least one.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), holding: HashSet::new(), started: VecDeque::new(), slow: HashSet::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.holding.len() >= self.max
    }

    /// How many are in flight, slow ones among them.
    pub(super) fn len(&self) -> usize {
        self.holding.len() + self.slow.len()
    }

    pub(super) fn start(&mut self, id: T, now: Instant) {
        self.holding.insert(id);
        self.started.push_back((now, id));
    }

    pub(super) fn end(&mut self, id: T) {
        if !self.holding.remove(&id) {
            self.slow.remove(&id);
        }
    }

    /// Takes their places from those that have become slow.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some((started, id)) = self.started.front().copied() {
            if self.holding.contains(&id) {
                if now.duration_since(started) < QUICK_MAX || self.slow.len() >= self.max * SLOW_PARTS {
                    break;
                }
                self.holding.remove(&id);
                self.slow.insert(id);
            }
            self.started.pop_front();
        }
    }

    /// When the next place becomes free without a probe's end, if one may.
    pub(super) fn next(&self) -> Option<Instant> {
        let (started, _) = self.started.front().filter(|_| self.slow.len() < self.max * SLOW_PARTS)?;
        Some(*started + QUICK_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_probe_gives_its_place_away_until_there_are_too_many() {
        let begun = Instant::now();
        let at = |turn: u32| begun + QUICK_MAX * turn;
        let mut places = Places::new(1);
        for turn in 0..SLOW_PARTS as u32 {
            assert!(!places.is_full());
            places.start(turn, at(turn));
            assert!(places.is_full());
            assert_eq!(places.next(), Some(at(turn + 1)));
            places.advance(at(turn + 1) - Duration::from_millis(1));
            assert!(places.is_full());
            places.advance(at(turn + 1));
        }
        places.start(100, at(20));
        places.advance(at(40));
        assert!(places.is_full() && places.next().is_none() && places.len() == SLOW_PARTS + 1);
        // One of the slow ends: the last one is slow instead, and its place free.
        places.end(3);
        assert!(places.next().is_some_and(|next| next < at(40)));
        places.advance(at(40));
        assert!(!places.is_full() && places.len() == SLOW_PARTS);
        (0..=100).for_each(|id| places.end(id));
        assert_eq!((places.len(), places.started.len()), (0, 0));
    }

    #[test]
    fn those_that_end_in_time_leave_nothing_behind() {
        let now = Instant::now();
        let mut places = Places::new(2);
        for id in 0..1000 {
            places.start(id, now);
            places.end(id);
            places.advance(now);
        }
        assert_eq!((places.len(), places.started.len(), places.next()), (0, 0, None));
    }
}
