//! Damping of checks that flap: a leaky counter of falls, as gdnsd's monitors have one. Pure: time comes as an argument.
//!
//! Each fall to critical adds one, and one leaks out in a while. When the counter is full the check is *unsettled*: it stays
//! critical until its results were good for a time without a failure. A fall itself is never delayed, so that who is dead
//! leaves DNS at once; only the way back is. gdnsd counts results, which come at a fixed pace there; ours come faster after a
//! crash or a registration, so that a time is what an operator can reckon with.
//! Rejected: a score of changes in a window of results (Nagios), which has to keep them.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Damping;

/// When a check counts as flapping, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flapping {
    /// Falls that fill the counter; 0 damps nothing.
    pub max: u32,
    /// How long it takes until one fall is forgotten.
    pub leak: Duration,
    /// How long results must be good, without a failure, before an unsettled check counts as good.
    pub steady: Duration,
}

impl Default for Flapping {
    fn default() -> Self {
        Self { max: 0, leak: Duration::from_secs(60), steady: Duration::from_secs(30) }
    }
}

impl Flapping {
    /// With what a check's definition says instead.
    pub(super) fn with(mut self, own: Option<&Damping>) -> Self {
        let Some(own) = own else { return self };
        self.max = own.max.unwrap_or(self.max);
        self.leak = own.leak.unwrap_or(self.leak);
        self.steady = own.steady.unwrap_or(self.steady);
        self
    }
}

/// The falls of one check.
#[derive(Debug, Clone)]
pub(super) struct Flaps {
    terms: Flapping,
    level: u32,
    /// From when the time to the next leak is counted.
    leaked: Option<Instant>,
    unsettled: bool,
    /// Since when all results were good.
    good: Option<Instant>,
}

impl Flaps {
    pub(super) fn new(terms: Flapping) -> Self {
        Self { terms, level: 0, leaked: None, unsettled: false, good: None }
    }

    /// It is held critical whatever its results.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Falls that are not forgotten.
    pub(super) fn level(&self) -> u32 {
        self.level
    }

    /// How long its results must be good.
    pub(super) fn steady(&self) -> Duration {
        self.terms.steady
    }

    /// The check fell to critical.
    pub(super) fn fell(&mut self, now: Instant) {
        if self.terms.max == 0 {
            return;
        }
        self.leak(now);
        self.level = self.level.saturating_add(1);
        self.unsettled |= self.level >= self.terms.max;
    }

    /// The last fall was none of the target's.
    pub(super) fn take_back(&mut self) {
        self.level = self.level.saturating_sub(1);
        self.unsettled &= self.level >= self.terms.max;
    }

    /// A result was critical.
    pub(super) fn bad(&mut self) {
        self.good = None;
    }

    /// A result was good. Once that was so for long enough, the check is settled and its falls are forgotten.
    pub(super) fn good(&mut self, now: Instant) {
        if !self.unsettled {
            return;
        }
        let since = *self.good.get_or_insert(now);
        if now.duration_since(since) >= self.terms.steady {
            *self = Self::new(self.terms);
        }
    }

    fn leak(&mut self, now: Instant) {
        let since = *self.leaked.get_or_insert(now);
        let leak = self.terms.leak.max(Duration::from_nanos(1));
        let gone = now.duration_since(since).as_nanos() / leak.as_nanos();
        let gone = u32::try_from(gone).unwrap_or(u32::MAX);
        if gone >= self.level {
            (self.level, self.leaked) = (0, Some(now));
        } else {
            self.level -= gone;
            self.leaked = Some(since + leak * gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERMS: Flapping =
        Flapping { max: 3, leak: Duration::from_secs(60), steady: Duration::from_secs(30) };

    fn at(begun: Instant, secs: u64) -> Instant {
        begun + Duration::from_secs(secs)
    }

    #[test]
    fn falls_in_a_row_fill_it_and_rare_ones_leak_out() {
        let begun = Instant::now();
        let unsettled = |falls: &[u64]| {
            let mut flaps = Flaps::new(TERMS);
            falls.iter().for_each(|secs| flaps.fell(at(begun, *secs)));
            flaps.is_unsettled()
        };
        assert!(unsettled(&[0, 1, 2]) && unsettled(&[0, 59, 59]) && unsettled(&[0, 59, 61, 62]));
        assert!(!unsettled(&[0, 1]) && !unsettled(&[0, 60, 120, 180, 240]) && !unsettled(&[0, 59, 61]));
        // One an hour for ever is no flapping.
        assert!(!unsettled(&(0..100).map(|hour| hour * 3600).collect::<Vec<_>>()));
    }

    #[test]
    fn it_is_held_until_it_was_good_for_the_whole_time() {
        let begun = Instant::now();
        let mut flaps = Flaps::new(TERMS);
        (0..3).for_each(|secs| flaps.fell(at(begun, secs)));
        flaps.good(at(begun, 10));
        flaps.good(at(begun, 39));
        assert!(flaps.is_unsettled());
        flaps.bad();
        flaps.good(at(begun, 41));
        flaps.good(at(begun, 70));
        assert!(flaps.is_unsettled(), "a failure starts the time anew");
        flaps.good(at(begun, 71));
        assert!(!flaps.is_unsettled());
        // Falls are counted anew.
        flaps.fell(at(begun, 72));
        flaps.fell(at(begun, 73));
        assert!(!flaps.is_unsettled());
        flaps.fell(at(begun, 74));
        flaps.take_back();
        assert!(!flaps.is_unsettled());
    }

    #[test]
    fn a_definition_says_what_it_wants_to_be_otherwise() {
        let own = Damping { max: Some(0), leak: None, steady: Some(Duration::from_secs(5)) };
        let terms = TERMS.with(Some(&own));
        assert_eq!((terms.max, terms.leak, terms.steady), (0, TERMS.leak, Duration::from_secs(5)));
        let mut flaps = Flaps::new(terms);
        (0..9).for_each(|_| flaps.fell(Instant::now()));
        assert!(!flaps.is_unsettled());
    }

    proptest! {
        /// Against the plain form: the level after each fall, one less for each whole leak since it was last empty or leaked.
        #[test]
        fn it_leaks_as_a_bucket_does(pauses in prop::collection::vec(0..200u64, 1..40)) {
            let (begun, mut now) = (Instant::now(), 0);
            let mut flaps = Flaps::new(Flapping { max: u32::MAX, ..TERMS });
            let (mut level, mut tick) = (0u64, 0);
            for pause in pauses {
                for _ in 0..pause {
                    now += 1;
                    if level > 0 {
                        tick += 1;
                        if tick == 60 {
                            (level, tick) = (level - 1, 0);
                        }
                    }
                }
                if level == 0 {
                    tick = 0;
                }
                flaps.fell(at(begun, now));
                level += 1;
                prop_assert_eq!(u64::from(flaps.level()), level);
            }
        }
    }
}
