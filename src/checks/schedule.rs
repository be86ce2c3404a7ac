//! When a check is due, and in which order. Pure: time and chance come as arguments.
//!
//! At rest a check keeps its interval, from the end of one probe to the start of the next. After a trigger (it was
//! registered, registered again, restored at a start, or its target crashed) it is repeated quickly until it passes:
//! a program that registers first and listens later is found a moment after it listens. The pause grows with the time
//! since the trigger, so the delay stays in proportion to how long the program took, and a program that never comes up
//! costs some thirty extra probes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// The shortest pause between two probes of one check.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The pause is this part of the time since the trigger.
const PAUSE_PART: u32 = 6;
/// A trigger is forgotten after so long.
const QUICK_MAX: Duration = Duration::from_secs(60);
/// Quick repeats of all checks together, per second: what they may cost when everything is down.
const QUICK_PER_SECOND: u32 = 2000;

/// The pace of one check.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    interval: Duration,
    /// Since when it is repeated quickly.
    quick: Option<Instant>,
}

impl Pace {
    /// Quick from now on.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval: interval.max(PAUSE_MIN), quick: Some(now) }
    }

    /// Something happened: quick from now on.
    pub(super) fn trigger(&mut self, now: Instant) {
        self.quick = Some(now);
    }

    /// Whether it is repeated quickly.
    pub(super) fn is_quick(&self) -> bool {
        self.quick.is_some()
    }

    /// How soon after the end of a probe another may start.
    pub(super) fn pause_min(&self) -> Duration {
        PAUSE_MIN
    }

    /// The pause after a probe that ended now. `crowd` is how many checks are repeated quickly, `chance` is evenly
    /// spread over 0..1.
    pub(super) fn pause(&mut self, failing: bool, now: Instant, crowd: usize, chance: f64) -> Duration {
        let Some(since) = self.quick else {
            // A twentieth more or less, so that checks do not stay in step.
            return self.interval.mul_f64(0.95 + 0.1 * chance);
        };
        let elapsed = now.duration_since(since);
        if failing && elapsed < QUICK_MAX {
            let crowd = u32::try_from(crowd).unwrap_or(u32::MAX);
            let share = Duration::from_secs(1).saturating_mul(crowd) / QUICK_PER_SECOND;
            let least = PAUSE_MIN.max(share).min(self.interval);
            return (elapsed / PAUSE_PART).clamp(least, self.interval);
        }
        self.quick = None;
        // Those that were started together are spread over the whole interval.
        self.interval.mul_f64(chance).max(PAUSE_MIN)
    }
}

/// Which checks are due when, and those that are due and wait for a free place, first come first served.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BTreeSet<(Instant, u64)>,
    places: HashMap<u64, Instant>,
    waiting: VecDeque<(u64, Instant)>,
}

impl Queue {
    /// Makes a check due at a time; an earlier appointment is forgotten.
    pub(super) fn set(&mut self, id: u64, at: Instant) {
        self.clear(id);
        self.order.insert((at, id));
        self.places.insert(id, at);
    }

    /// Makes a check due at a time, unless it has an appointment before that.
    pub(super) fn hasten(&mut self, id: u64, at: Instant) {
        if self.places.get(&id).is_some_and(|place| *place > at) {
            self.set(id, at);
        }
    }

    pub(super) fn clear(&mut self, id: u64) {
        if let Some(at) = self.places.remove(&id) {
            self.order.remove(&(at, id));
        }
    }

    /// The next appointment.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Lets those whose time has come wait for a place; returns how many they are.
    pub(super) fn advance(&mut self, now: Instant) -> usize {
        let mut count = 0;
        while let Some((at, id)) = self.order.first().copied().filter(|(at, _)| *at <= now) {
            self.clear(id);
            self.waiting.push_back((id, at));
            count += 1;
        }
        count
    }

    /// Takes the one that has waited longest, and when it was due. It may have gone meanwhile.
    pub(super) fn pop(&mut self) -> Option<(u64, Instant)> {
        self.waiting.pop_front()
    }

    /// How many are due and wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// When probes start that fail, counted from the trigger, each taking no time.
    fn starts(interval: Duration, crowd: usize) -> Vec<Duration> {
        let begun = Instant::now();
        let mut pace = Pace::new(interval, begun);
        let mut at = begun;
        let mut starts = Vec::new();
        while at < begun + QUICK_MAX * 2 {
            starts.push(at - begun);
            at += pace.pause(true, at, crowd, 0.5);
        }
        starts
    }

    #[test]
    fn a_program_that_listens_late_is_found_within_a_part_of_the_time_it_took() {
        let starts = starts(INTERVAL, 0);
        assert_eq!(starts[1], PAUSE_MIN);
        for pair in starts.windows(2) {
            let pause = pair[1] - pair[0];
            assert!(pause <= INTERVAL && (pause <= PAUSE_MIN || pause <= pair[0] / PAUSE_PART));
        }
        // Within a second, as long as it took no more than six.
        assert!(starts.windows(2).all(|pair| pair[0] > PAUSE_PART * Duration::from_secs(1)
            || pair[1] - pair[0] <= Duration::from_secs(1)));
    }

    #[test]
    fn within_a_minute_it_is_at_the_interval_and_has_cost_little() {
        for interval in [1, 10, 300].map(Duration::from_secs) {
            let starts = starts(interval, 0);
            let quick = starts.iter().filter(|at| **at < QUICK_MAX).count();
            assert!(quick <= 40 + (QUICK_MAX.as_secs() / interval.as_secs()) as usize, "{quick}");
            let late = starts.windows(2).filter(|pair| pair[0] >= QUICK_MAX + interval);
            assert!(late.map(|pair| pair[1] - pair[0]).all(|pause| pause >= interval * 9 / 10));
        }
    }

    #[test]
    fn when_everything_is_down_the_repeats_share_a_budget() {
        let crowd = 10 * QUICK_PER_SECOND as usize;
        let starts = starts(INTERVAL * 3, crowd);
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= INTERVAL));
    }

    #[test]
    fn a_pass_ends_the_quick_repeats_and_spreads_what_started_together() {
        let now = Instant::now();
        let first = |chance| Pace::new(INTERVAL, now).pause(false, now, 0, chance);
        assert_eq!((first(0.0), first(0.5)), (PAUSE_MIN, INTERVAL / 2));
        let mut pace = Pace::new(INTERVAL, now);
        pace.pause(false, now, 0, 0.5);
        for (chance, least, most) in [(0.0, 9_499, 9_501), (0.999, 10_498, 10_501)] {
            // At rest a failure keeps the pace.
            let pause = pace.pause(true, now, 0, chance).as_millis();
            assert!((least..=most).contains(&pause), "{pause}");
        }
        pace.trigger(now);
        assert_eq!(pace.pause(true, now, 0, 0.5), PAUSE_MIN);
    }

    #[test]
    fn who_was_due_first_is_first() {
        let now = Instant::now();
        let at = |secs| now + Duration::from_secs(secs);
        let mut queue = Queue::default();
        for (id, secs) in [(1, 30), (2, 20), (3, 10), (4, 40)] {
            queue.set(id, at(secs));
        }
        queue.hasten(1, at(15));
        queue.hasten(2, at(25));
        queue.clear(3);
        assert_eq!((queue.next(), queue.advance(at(14))), (Some(at(15)), 0));
        assert_eq!((queue.advance(at(20)), queue.waiting()), (2, 2));
        // One that becomes due earlier than it was said waits behind those that wait already.
        queue.set(5, at(1));
        assert_eq!(queue.advance(at(21)), 1);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(1, at(15)), (2, at(20)), (5, at(1))]);
        assert_eq!(queue.next(), Some(at(40)));
        // Who is not in the queue (it is under way) is not put there.
        queue.hasten(1, at(1));
        assert_eq!(queue.advance(at(2)), 0);
    }
}
