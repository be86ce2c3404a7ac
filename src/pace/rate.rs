//! How often something may be done: the generic cell rate algorithm (ITU-T I.371 annex A, "virtual scheduling"). A token bucket in one
//! number, the moment when the bucket will be full again, so that a table of them has a fixed size and needs no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many in a second, of which all may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds between two at full rate, and how far ahead of that they may be.
    step: u64,
    ahead_max: u64,
}

const SECOND: u64 = 1_000_000_000;

impl Rate {
    /// `None` for 0: no bound.
    pub fn per_second(count: u32) -> Option<Self> {
        let step = SECOND.checked_div(count.into())?;
        Some(Self { step, ahead_max: SECOND - step })
    }

    /// Takes one of what a bucket has, or says how long it takes until there is one. `now`: nanoseconds since a moment that is the same
    /// for every call; a bucket begins as 0, full.
    pub fn take(&self, bucket: &AtomicU64, now: u64) -> Result<(), Duration> {
        let mut due = bucket.load(Ordering::Relaxed);
        loop {
            let from = due.max(now);
            if from - now > self.ahead_max {
                return Err(Duration::from_nanos(from - now - self.ahead_max));
            }
            match bucket.compare_exchange_weak(due, from + self.step, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => due = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_may_come_at_once_and_then_one_by_one() {
        assert_eq!(Rate::per_second(0), None);
        let (rate, bucket) = (Rate::per_second(4).unwrap(), AtomicU64::new(0));
        for _ in 0..4 {
            assert_eq!(rate.take(&bucket, 100 * SECOND), Ok(()));
        }
        let quarter = Duration::from_millis(250);
        assert_eq!(rate.take(&bucket, 100 * SECOND), Err(quarter));
        assert_eq!(
            rate.take(&bucket, 100 * SECOND),
            Err(quarter),
            "who is refused does not wait longer for it"
        );
        assert_eq!(rate.take(&bucket, 100 * SECOND + SECOND / 4), Ok(()));
        assert!(rate.take(&bucket, 100 * SECOND + SECOND / 4).is_err());
        assert_eq!(
            (0..9).filter(|_| rate.take(&bucket, 200 * SECOND).is_ok()).count(),
            4,
            "it does not pile up"
        );
        let one = Rate::per_second(1).unwrap();
        let bucket = AtomicU64::new(0);
        assert!(
            one.take(&bucket, 0).is_ok()
                && one.take(&bucket, 1).is_err()
                && one.take(&bucket, SECOND).is_ok()
        );
    }

    proptest! {
        /// In no time are there more than the rate allows, and one of the stock of a second.
        #[test]
        fn never_more_than_the_rate(count in 1u32..2_000, steps in prop::collection::vec(0u64..5_000_000, 1..2_000)) {
            let (rate, bucket) = (Rate::per_second(count).unwrap(), AtomicU64::new(0));
            let (mut now, mut taken) = (0, 0u64);
            for step in steps {
                now += step;
                taken += u64::from(rate.take(&bucket, now).is_ok());
            }
            // A step is whole nanoseconds.
            let step = SECOND / u64::from(count);
            prop_assert!(taken <= SECOND.div_ceil(step) + now / step + 1, "{taken}");
        }
    }
}
