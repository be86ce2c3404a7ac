//! Who fails again and again is left alone for a while; then one call finds out whether that has changed.

use std::time::{Duration, Instant};

/// Whether somebody is called. Closed until so many calls in a row have failed; then open, when nobody calls, but for one each time that
/// the pause is over. One that succeeds closes it.
#[derive(Debug, Clone)]
pub struct Breaker {
    /// Failures in a row that open it; at least one.
    failures_max: u32,
    pause: Duration,
    failures: u32,
    /// While it is open: when the next call may be made.
    next: Option<Instant>,
}

impl Breaker {
    pub fn new(failures_max: u32, pause: Duration) -> Self {
        Self { failures_max: failures_max.max(1), pause, failures: 0, next: None }
    }

    /// Whether a call may be made now. If not, how long it takes until one may. A call that is let through while it is open, and of
    /// which nothing is heard, holds others back for one pause, not for ever.
    pub fn try_call(&mut self, now: Instant) -> Result<(), Duration> {
        match self.next {
            Some(next) if now < next => Err(next - now),
            Some(_) => {
                self.next = Some(now + self.pause);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What a call came to.
    pub fn note(&mut self, succeeded: bool, now: Instant) {
        if succeeded {
            (self.failures, self.next) = (0, None);
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failures_max {
            self.next = Some(now + self.pause);
        }
    }

    pub fn is_open(&self) -> bool {
        self.next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_success_closes_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(3, PAUSE);
        for succeeded in [false, false, true, false, false] {
            assert_eq!(breaker.try_call(at(0)), Ok(()));
            breaker.note(succeeded, at(0));
            assert!(!breaker.is_open());
        }
        breaker.note(false, at(1));
        assert!(breaker.is_open());
        assert_eq!(breaker.try_call(at(4)), Err(Duration::from_secs(7)));
        assert_eq!(breaker.try_call(at(11)), Ok(()), "one finds out");
        assert_eq!(breaker.try_call(at(11)), Err(PAUSE), "and the others wait for it");
        assert_eq!(breaker.try_call(at(21)), Ok(()), "of which nothing was heard");
        breaker.note(false, at(22));
        assert_eq!(breaker.try_call(at(31)), Err(Duration::from_secs(1)));
        assert_eq!(breaker.try_call(at(32)), Ok(()));
        breaker.note(true, at(33));
        assert!(!breaker.is_open() && breaker.try_call(at(33)).is_ok());
    }

    proptest! {
        /// Whatever happens: no call for ever held back, and of somebody who always fails no more than one a pause.
        #[test]
        fn who_always_fails_is_called_once_a_pause(steps in prop::collection::vec(0u64..4_000, 1..200), most in 1u32..6) {
            let mut now = Instant::now();
            let begun = now;
            let mut breaker = Breaker::new(most, PAUSE);
            let mut calls = 0u64;
            for step in steps {
                now += Duration::from_millis(step);
                match breaker.try_call(now) {
                    Ok(()) => {
                        calls += 1;
                        breaker.note(false, now);
                    }
                    Err(wait) => prop_assert!(wait > Duration::ZERO && wait <= PAUSE),
                }
            }
            prop_assert!(calls <= u64::from(most) + (now - begun).as_secs() / PAUSE.as_secs());
        }
    }
}
