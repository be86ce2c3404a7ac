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
//! - The first result after a restart is counted, not applied at once: the status that was restored came about by the
//!   thresholds, and a restart of ours says nothing about the target.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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
    told: News,
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
    pub(super) fn new(check: &Check, shown: News, judged: bool) -> Self {
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
            told: shown,
            told_at: None,
        }
    }

    /// The status that stands.
    pub(super) fn status(&self) -> Status {
        self.status
    }

    /// Takes a result in.
    pub(super) fn judge(&mut self, found: Status, output: &str, now: Instant) {
        let Thresholds { passing, warning, critical } = self.thresholds;
        let next = if found == Status::Critical {
            self.good.length = 0;
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
            self.good.reaches(passing).then_some(found)
        };
        if let Some(status) = next {
            self.status = status;
            if *self.output != *output {
                self.output = output.into();
            }
        }
    }

    /// What the registry does not know yet and is worth telling; from then on it counts as told.
    pub(super) fn news(&mut self, now: Instant) -> Option<News> {
        let to_flip = self.to_flip();
        let told = &self.told;
        if told.status == self.status && told.to_flip == to_flip {
            let rest = if self.status == Status::Passing { TELL_PASSING } else { TELL_FAILING };
            let early = self.told_at.is_some_and(|at| now.duration_since(at) < rest);
            if early || told.output == self.output {
                return None;
            }
        }
        self.told = News { status: self.status, output: self.output.clone(), to_flip };
        self.told_at = Some(now);
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
