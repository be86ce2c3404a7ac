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
