//! From results to a status: thresholds, and what of it is worth telling the registry. Pure: time comes as an argument.
//!
//! Consul's rules: results in a row are counted, a good one ends a row of bad ones and the other way round; a good result
//! (passing or warning) is applied when `success_before_passing` of them are in a row, a bad one makes the check a
//! warning at `failures_before_warning` and critical at `failures_before_critical`; below that, status and output stay.
//! The first result of a new definition is applied at once.
//!
//! Where we differ, and why:
//! - Results that come faster than the interval (quick repeats, the probe after a lost connection) end a row, but add to
//!   one at most once per interval: three failures of a check with a 10 s interval mean 30 s, not three tries in one.
//! - A failure never makes a status better. In Consul one failure after a pass that did not count yet can turn critical
//!   into warning, which would bring a dead instance back into answers.
//! - A check that falls often is held critical until it was good for a while, where that is wished ([`flaps`](super::flaps)).
//! - The first result after a restart is counted, not applied at once: the status that was restored came about by the
//!   thresholds, and a restart of ours says nothing about the target.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::flaps::{Flapping, Flaps};
use super::kinds::cut;
use crate::model::check::HELD;
use crate::model::{Check, Status};

/// How many results in a row change a status; each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thresholds {
    passing: u32,
    warning: u32,
    critical: u32,
}

/// Results of one side in a row.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    length: u32,
    /// When the last one was added.
    at: Option<Instant>,
}

/// What a check's results have come to.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    thresholds: Thresholds,
    /// The least time between two results that both count.
    apart: Duration,
    status: Status,
    output: Arc<str>,
    good: Row,
    bad: Row,
    flaps: Flaps,
    /// When it fell, and what stood before.
    fell: Option<(Instant, Status, Arc<str>)>,
    output_max: usize,
    /// A good result was held back.
    holding: bool,
    told: News,
    /// Whether that is told.
    told_holding: bool,
    /// When something was last told.
    told_at: Option<Instant>,
}

/// What the registry is told of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) status: Status,
    pub(super) output: Arc<str>,
    /// Results still needed before the status can change.
    pub(super) to_flip: u32,
}

/// How often other output of the same status is told: while a check passes, hardly anybody reads it, and 50,000 checks
/// whose output holds the time would keep the writer busy; somebody who looks for what is wrong wants the newest.
const TELL_PASSING: Duration = Duration::from_secs(60);
const TELL_FAILING: Duration = Duration::from_secs(5);

impl Verdict {
    /// Begins with what the registry shows. `judged` says that the status came from results (of an earlier process) and
    /// not from the definition.
    pub(super) fn new(check: &Check, shown: News, judged: bool, flapping: Flapping) -> Self {
        let critical = check.failures_before_critical.max(1);
        let warning = match check.failures_before_warning {
            0 => critical,
            warning => warning.min(critical),
        };
        let thresholds = Thresholds { passing: check.success_before_passing.max(1), warning, critical };
        let full = |full: bool, length| Row { length: if full { length } else { 0 }, at: None };
        Self {
            // Regular probes are at least nineteen twentieths of the interval apart (`schedule`).
            apart: check.interval * 9 / 10,
            status: shown.status,
            output: shown.output.clone(),
            good: full(!judged || shown.status == Status::Passing, thresholds.passing),
            bad: full(!judged || shown.status == Status::Critical, thresholds.critical),
            thresholds,
            flaps: Flaps::new(flapping.with(check.damping.as_deref())),
            fell: None,
            holding: false,
            told_holding: false,
            output_max: check.output_max,
            told: shown,
            told_at: None,
        }
    }

    /// The status that stands.
    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// Whether it is held critical because it fell too often.
    pub(super) fn is_unsettled(&self) -> bool {
        self.flaps.is_unsettled()
    }

    /// Takes a result in.
    pub(super) fn judge(&mut self, found: Status, output: &str, now: Instant) {
        let Thresholds { passing, warning, critical } = self.thresholds;
        let next = if found == Status::Critical {
            self.good.length = 0;
            self.flaps.bad();
            self.bad.add(now, self.apart);
            if self.bad.reaches(critical) {
                Some(Status::Critical)
            } else if self.bad.reaches(warning) && self.status != Status::Critical {
                Some(Status::Warning)
            } else {
                None
            }
        } else {
            self.bad.length = 0;
            self.good.add(now, self.apart);
            self.flaps.good(now);
            self.good.reaches(passing).then_some(found)
        };
        match next {
            // What is critical already does not fall.
            Some(Status::Critical) if self.status != Status::Critical => {
                self.flaps.fell(now);
                self.fell = Some((now, self.status, self.output.clone()));
            }
            Some(Status::Passing | Status::Warning) if self.flaps.is_unsettled() => {
                let mut held = self.held(found, output);
                cut(&mut held, self.output_max);
                self.holding = true;
                return self.stand(Status::Critical, &held);
            }
            _ => {}
        }
        if let Some(status) = next {
            self.holding = false;
            self.stand(status, output);
        }
    }

    /// The failures since then say nothing of the target: a fall among them did not happen.
    pub(super) fn take_back(&mut self, since: Instant) {
        self.bad.length = 0;
        if let Some((_, status, output)) = self.fell.take_if(|(at, ..)| *at >= since) {
            (self.status, self.output) = (status, output);
            self.good.length = self.thresholds.passing;
            self.flaps.take_back();
        }
    }

    fn stand(&mut self, status: Status, output: &str) {
        self.status = status;
        if *self.output != *output {
            self.output = output.into();
        }
    }

    /// What is shown instead of a good result.
    fn held(&self, found: Status, output: &str) -> String {
        let (falls, steady) = (self.flaps.level(), crate::model::duration::format(self.flaps.steady()));
        format!(
            "{HELD} it fell {falls} times in a short while, and has to pass for {steady} without a failure. \
             Last result: {found}: {output}"
        )
    }

    /// What the registry does not know yet and is worth telling; from then on it counts as told.
    pub(super) fn news(&mut self, now: Instant) -> Option<News> {
        let to_flip = self.to_flip();
        let told = &self.told;
        let same = told.status == self.status && told.to_flip == to_flip;
        if same && self.told_holding == self.holding {
            let rest = if self.status == Status::Passing { TELL_PASSING } else { TELL_FAILING };
            let early = self.told_at.is_some_and(|at| now.duration_since(at) < rest);
            if early || told.output == self.output {
                return None;
            }
        }
        self.told = News { status: self.status, output: self.output.clone(), to_flip };
        (self.told_at, self.told_holding) = (Some(now), self.holding);
        Some(self.told.clone())
    }

    /// Results still needed before the status can change. A result of warning is not reckoned with: it changes a weight
    /// and takes nobody out of answers.
    fn to_flip(&self) -> u32 {
        let Thresholds { passing, warning, critical } = self.thresholds;
        match self.status {
            Status::Passing => self.bad.lacks(warning),
            Status::Warning => self.bad.lacks(critical).min(self.good.lacks(passing)),
            Status::Critical => self.good.lacks(passing),
        }
    }
}

impl Row {
    fn add(&mut self, now: Instant, apart: Duration) {
        if self.at.is_none_or(|at| now.duration_since(at) >= apart) {
            self.length = self.length.saturating_add(1);
            self.at = Some(now);
        }
    }

    /// Whether the row is long enough; where one result is, any is.
    fn reaches(&self, needed: u32) -> bool {
        needed <= 1 || self.length >= needed
    }

    fn lacks(&self, needed: u32) -> u32 {
        needed.saturating_sub(self.length).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Status::{Critical, Passing, Warning};

    const INTERVAL: Duration = Duration::from_secs(10);

    fn verdict(thresholds: [u32; 3], status: Status, judged: bool) -> Verdict {
        let check = super::super::tests::tcp_check().with(|terms| {
            terms.interval = INTERVAL;
            terms.success_before_passing = thresholds[0];
            terms.failures_before_warning = thresholds[1];
            terms.failures_before_critical = thresholds[2];
        });
        Verdict::new(&check, News { status, output: "shown".into(), to_flip: 1 }, judged, Flapping::default())
    }

    /// Feeds results that are an interval apart and returns the statuses after each.
    fn statuses(verdict: &mut Verdict, results: &[Status]) -> Vec<Status> {
        let begun = Instant::now();
        let results = results.iter().zip(1..);
        results
            .map(|(found, n)| {
                verdict.judge(*found, "found", begun + INTERVAL * n);
                verdict.status
            })
            .collect()
    }

    #[test]
    fn thresholds_are_consuls() {
        type Row<'a> = ([u32; 3], &'a [Status], &'a [Status]);
        let table: [Row<'_>; 7] = [
            // Nothing given: every result counts.
            ([0, 0, 0], &[Passing, Critical, Warning, Passing], &[Passing, Critical, Warning, Passing]),
            // The first is applied at once, either way.
            ([3, 0, 3], &[Passing], &[Passing]),
            ([3, 0, 3], &[Critical, Passing, Passing, Passing], &[Critical, Critical, Critical, Passing]),
            ([0, 0, 3], &[Passing, Critical, Critical, Critical], &[Passing, Passing, Passing, Critical]),
            // A pass ends a row of failures.
            (
                [0, 0, 2],
                &[Passing, Critical, Passing, Critical, Critical],
                &[Passing, Passing, Passing, Passing, Critical],
            ),
            // Warning first.
            ([0, 1, 3], &[Passing, Critical, Critical, Critical], &[Passing, Warning, Warning, Critical]),
            // A warning counts as a good result.
            ([2, 0, 0], &[Critical, Warning, Passing], &[Critical, Critical, Passing]),
        ];
        for (thresholds, results, wanted) in table {
            let mut verdict = verdict(thresholds, Critical, false);
            assert_eq!(statuses(&mut verdict, results), wanted, "{thresholds:?} {results:?}");
        }
    }

    #[test]
    fn a_failure_never_makes_a_status_better() {
        let mut verdict = verdict([2, 1, 3], Critical, false);
        let results = [Critical, Passing, Critical];
        assert_eq!(statuses(&mut verdict, &results), [Critical; 3]);
    }

    #[test]
    fn a_check_that_falls_often_is_held_critical_and_no_fall_is_late() {
        let flapping = Flapping { max: 2, leak: INTERVAL * 100, steady: INTERVAL * 2 };
        let check = super::super::tests::tcp_check().with(|terms| {
            terms.interval = INTERVAL;
            terms.output_max = 90;
        });
        let shown = News { status: Critical, output: "".into(), to_flip: 1 };
        let mut verdict = Verdict::new(&check, shown, false, flapping);
        // It comes back at once after the first fall; after the second when it has passed for two intervals.
        let results = [Passing, Critical, Passing, Critical, Passing, Passing, Warning, Critical, Warning];
        let wanted = [Passing, Critical, Passing, Critical, Critical, Critical, Warning, Critical, Warning];
        assert_eq!(statuses(&mut verdict, &results), wanted);
        statuses(&mut verdict, &[Critical, Passing]);
        let shown =
            "Held critical: it fell 2 times in a short while, and has to pass for 20s without a failure";
        assert!(verdict.is_unsettled() && verdict.output[..] == shown[..90], "{}", verdict.output);
    }

    #[test]
    fn a_fall_is_taken_back_with_all_that_came_of_it() {
        let begun = Instant::now();
        let mut verdict = verdict([3, 0, 2], Passing, true);
        for n in 1..=2 {
            verdict.judge(Critical, "no route to host", begun + INTERVAL * n);
        }
        assert_eq!(verdict.status, Critical);
        verdict.take_back(begun + INTERVAL * 3);
        assert_eq!(verdict.status, Critical, "it fell before");
        verdict.take_back(begun + INTERVAL);
        assert_eq!((verdict.status, &*verdict.output, verdict.to_flip()), (Passing, "shown", 2));
        // It needs as many failures as ever.
        let statuses = [3, 4].map(|n| {
            verdict.judge(Critical, "refused", begun + INTERVAL * n);
            verdict.status
        });
        assert_eq!(statuses, [Passing, Critical]);
    }

    #[test]
    fn a_restart_does_not_bypass_thresholds() {
        let mut passed = verdict([0, 0, 3], Passing, true);
        assert_eq!(statuses(&mut passed, &[Critical; 3]), [Passing, Passing, Critical]);
        let mut failed = verdict([2, 0, 0], Critical, true);
        assert_eq!(statuses(&mut failed, &[Passing; 2]), [Critical, Passing]);
    }

    #[test]
    fn below_a_threshold_status_and_output_stay_and_what_is_needed_shrinks() {
        let mut verdict = verdict([0, 0, 3], Passing, true);
        let begun = Instant::now();
        for (n, to_flip) in [(1, 2), (2, 1)] {
            verdict.judge(Critical, "down", begun + INTERVAL * n);
            let news = verdict.news(begun + INTERVAL * n);
            assert_eq!(news, Some(News { status: Passing, output: "shown".into(), to_flip }));
        }
        verdict.judge(Critical, "down", begun + INTERVAL * 3);
        let news = verdict.news(begun + INTERVAL * 3);
        assert_eq!(news, Some(News { status: Critical, output: "down".into(), to_flip: 1 }));
    }

    #[test]
    fn other_output_is_told_now_and_then_and_the_same_never() {
        for (status, rest) in [(Passing, TELL_PASSING), (Critical, TELL_FAILING)] {
            let mut verdict = verdict([0, 0, 0], status, true);
            let begun = Instant::now();
            verdict.judge(status, "first", begun);
            assert!(verdict.news(begun).is_some());
            verdict.judge(status, "second", begun + rest / 2);
            assert_eq!(verdict.news(begun + rest / 2), None);
            let news = verdict.news(begun + rest).unwrap();
            assert_eq!(&*news.output, "second");
            verdict.judge(status, "second", begun + rest * 3);
            assert_eq!(verdict.news(begun + rest * 3), None);
        }
    }

    fn status() -> impl Strategy<Value = Status> {
        prop_oneof![Just(Passing), Just(Warning), Just(Critical)]
    }

    proptest! {
        /// Against Consul's rules as they are written down: two counters that start full.
        #[test]
        fn at_the_interval_it_is_consul_but_for_failures_of_the_critical(
            thresholds in [0u32..4, 0u32..4, 0u32..4],
            results in proptest::collection::vec(status(), 1..40),
        ) {
            let [needed, before_warning, before_critical] = thresholds;
            let before_warning = if before_warning == 0 { before_critical } else { before_warning };
            let (mut good, mut bad, mut wanted) = (needed, before_critical, Critical);
            let mut verdict = verdict(thresholds, Critical, false);
            let begun = Instant::now();
            for (result, n) in results.iter().zip(1..) {
                if *result == Critical {
                    (good, bad) = (0, bad + 1);
                    if bad >= before_critical {
                        wanted = Critical;
                    } else if bad >= before_warning && wanted != Critical {
                        wanted = Warning;
                    }
                } else {
                    (good, bad) = (good + 1, 0);
                    if good >= needed {
                        wanted = *result;
                    }
                }
                verdict.judge(*result, "", begun + INTERVAL * n);
                prop_assert_eq!(verdict.status, wanted, "after result {} of {:?}", n, results);
            }
        }

        /// Whatever comes within one interval, a threshold above one needs more.
        #[test]
        fn results_within_an_interval_do_not_pass_a_threshold(
            status in prop_oneof![Just(Passing), Just(Critical)],
            thresholds in [2u32..5, 2u32..5, 2u32..5],
            results in proptest::collection::vec((status_of_result(), 0u64..8_900), 1..60),
        ) {
            let mut verdict = verdict(thresholds, status, true);
            let begun = Instant::now();
            let mut results = results;
            results.sort_by_key(|(_, at)| *at);
            for (result, at) in results {
                verdict.judge(result, "", begun + Duration::from_millis(at));
                prop_assert_eq!(verdict.status, status);
            }
        }

        /// `to_flip` is a promise: fewer results than that change nothing.
        #[test]
        fn no_status_changes_sooner_than_was_said(
            thresholds in [0u32..5, 0u32..5, 0u32..5],
            before in proptest::collection::vec(status(), 0..20),
            after in proptest::collection::vec(status_of_result(), 1..10),
        ) {
            let mut verdict = verdict(thresholds, Critical, false);
            let begun = Instant::now();
            for (result, n) in before.iter().zip(1..) {
                verdict.judge(*result, "", begun + INTERVAL * n);
            }
            let (status, to_flip) = (verdict.status, verdict.to_flip());
            for (result, n) in after.iter().zip(before.len() as u32 + 1..) {
                verdict.judge(*result, "", begun + INTERVAL * n);
                if verdict.status != status {
                    prop_assert!(n - before.len() as u32 >= to_flip);
                    break;
                }
            }
        }
    }

    /// Passing or critical: a warning is applied as soon as a pass would be.
    fn status_of_result() -> impl Strategy<Value = Status> {
        prop_oneof![Just(Passing), Just(Critical)]
    }
}
