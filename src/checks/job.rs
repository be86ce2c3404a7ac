//! One check that is probed: its pace, its verdict, and why it looks.

use std::sync::Arc;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::flaps::Flapping;
use super::kinds::Probed;
use super::schedule::Pace;
use super::verdict::{News, Verdict};
use crate::model::{Check, Observation, Status};
use crate::registry::CheckEntry;

pub(super) struct Job {
    pub(super) check: Check,
    /// The definition that is judged.
    pub(super) generation: u64,
    verdict: Verdict,
    pace: Pace,
    /// Where its connection is kept, if its kind keeps one.
    pub(super) target: Option<Arc<str>>,
    /// The host whose reach it tells of; none where that is this machine.
    pub(super) host: Option<Arc<str>>,
    /// It keeps none for want of a place.
    pub(super) unkept: bool,
    /// The probe in flight.
    probe: Option<AbortHandle>,
    /// A probe was interrupted and none has ended since.
    interrupted: bool,
    /// A broken connection drew the probe that is due or in flight.
    drawn: bool,
    /// One broke while a probe was in flight: it looks again.
    look_again: bool,
    /// When the last probe ended.
    ended: Option<Instant>,
    /// Whether the last probe was critical.
    failing: bool,
    /// Whether that was for want of a way to the target.
    lost: bool,
}

/// What a probe that a lost connection had drawn found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    /// The target is gone.
    Crash,
    /// Nothing was wrong.
    Alive,
}

/// What is to be done after a probe.
pub(super) struct Finished {
    pub(super) news: Option<Observation>,
    /// When the next is due.
    pub(super) due: Instant,
    pub(super) drawn: Option<Drawn>,
    /// Its target is gone, for other checks of it too.
    pub(super) crashed: bool,
}

impl Job {
    /// `judged` says that the status which the registry shows came from results of this definition.
    pub(super) fn new(entry: &CheckEntry, judged: bool, flapping: Flapping, now: Instant) -> Self {
        let shown = News {
            status: entry.status,
            output: entry.output.as_str().into(),
            to_flip: entry.to_flip.into(),
        };
        Self {
            check: entry.check.clone(),
            generation: entry.generation,
            verdict: Verdict::new(&entry.check, shown, judged, flapping),
            pace: Pace::new(entry.check.interval, now),
            target: None,
            host: None,
            unkept: false,
            probe: None,
            interrupted: false,
            drawn: false,
            look_again: false,
            ended: None,
            failing: false,
            lost: false,
        }
    }

    /// Whether it is repeated quickly because it fails.
    pub(super) fn is_quick(&self) -> bool {
        self.failing && self.pace.is_quick()
    }

    pub(super) fn is_running(&self) -> bool {
        self.probe.is_some()
    }

    pub(super) fn is_passing(&self) -> bool {
        self.verdict.status() == Status::Passing
    }

    /// Whether it is held critical because it fell too often.
    pub(super) fn is_unsettled(&self) -> bool {
        self.verdict.is_unsettled()
    }

    pub(super) fn started(&mut self, probe: AbortHandle) {
        self.probe = Some(probe);
    }

    /// Something happened: quick from now on. Returns when it may be probed.
    pub(super) fn trigger(&mut self, now: Instant) -> Instant {
        self.pace.trigger(now);
        self.ended.map_or(now, |ended| now.max(ended + self.pace.pause_min()))
    }

    /// Takes back the probe in flight, which began before something happened and may wait for what was before. Once until
    /// one ends, so that somebody who registers all the time does not keep it from ever ending.
    pub(super) fn interrupt(&mut self) -> Option<AbortHandle> {
        if self.interrupted {
            return None;
        }
        let probe = self.probe.take()?;
        self.interrupted = true;
        (self.drawn, self.look_again) = (false, false);
        Some(probe)
    }

    /// Whether its last probe was critical.
    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// A connection to its target broke: it is to be probed at once, or again when the probe in flight has ended, which may
    /// have seen the target before. Returns whether it is due now.
    pub(super) fn notice(&mut self) -> bool {
        let running = self.is_running();
        *(if running { &mut self.look_again } else { &mut self.drawn }) = true;
        !running
    }

    /// A probe ended. `crowd` is how many checks are repeated quickly, `chance` evenly spread over 0..1.
    pub(super) fn finish(&mut self, probed: &Probed, now: Instant, crowd: usize, chance: f64) -> Finished {
        let finding = &probed.finding;
        let (was_failing, first) = (self.failing, self.ended.is_none());
        self.failing = finding.status == Status::Critical;
        self.lost = probed.is_lost();
        (self.probe, self.interrupted) = (None, false);
        self.ended = Some(now);
        // What failed before and is not refused now is no worse than it was.
        let worse = self.failing && (finding.refused || !was_failing);
        let came_to = if worse { Drawn::Crash } else { Drawn::Alive };
        let drawn = std::mem::take(&mut self.drawn).then_some(came_to);
        // Also when it was this probe that had the connection, or when none was kept that could have told.
        let crashed =
            worse && (drawn.is_some() || probed.again || (finding.refused && !was_failing && !first));
        if crashed {
            self.pace.trigger(now);
        }
        self.verdict.judge(finding.status, &finding.output, now);
        let mut due = now + self.pace.pause(self.failing, now, crowd, chance);
        if std::mem::take(&mut self.look_again) && !self.failing {
            (self.drawn, due) = (true, now);
        }
        Finished { news: self.news(now), due, drawn, crashed }
    }

    /// A probe ended without a result, for reasons of our own.
    pub(super) fn give_up(&mut self, now: Instant) -> Instant {
        (self.probe, self.interrupted, self.drawn, self.look_again) = (None, false, false, false);
        self.ended = Some(now);
        now + self.check.interval.max(self.pace.pause_min())
    }

    /// What came of a want of a way since then was none of the target's: the status is again what it was.
    pub(super) fn take_back(&mut self, since: Instant, now: Instant) -> Option<Observation> {
        if !self.lost || self.host.is_none() {
            return None;
        }
        self.verdict.take_back(since);
        self.news(now)
    }

    fn news(&mut self, now: Instant) -> Option<Observation> {
        let News { status, output, to_flip } = self.verdict.news(now)?;
        let (check, generation) = (self.check.key(), Some(self.generation));
        Some(Observation { check, generation, status, output, to_flip })
    }
}

impl Drop for Job {
    /// A check that goes takes its probe with it.
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::Finding;
    use super::super::tests::tcp_check;
    use std::time::Duration;

    use super::*;

    fn job(now: Instant) -> Job {
        let entry = CheckEntry {
            check: tcp_check(),
            status: Status::Critical,
            output: "".into(),
            to_flip: 1,
            since: 0,
            generation: 4,
            create_index: 4,
            modify_index: 4,
        };
        Job::new(&entry, false, Flapping::default(), now)
    }

    fn found(status: Status, refused: bool) -> Probed {
        Probed::from(Finding { refused, ..Finding::new(status, "so") })
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_trigger_makes_it_due_at_once_but_not_without_a_pause() {
        let now = Instant::now();
        let mut job = job(now);
        assert_eq!(job.trigger(now), now);
        let at = now + 90 * SECOND;
        let finished = job.finish(&found(Status::Critical, true), at, 0, 0.5);
        assert!(finished.due >= at + job.check.interval / 2, "the quick minute is over");
        assert_eq!(job.trigger(at), at + job.pace.pause_min());
        assert_eq!(job.trigger(at + SECOND), at + SECOND);
        assert!(job.is_quick());
    }

    #[test]
    fn refused_after_a_pass_is_a_crash_and_other_failures_keep_the_pace() {
        let now = Instant::now();
        for (refused, soon) in [(true, true), (false, false)] {
            let mut job = job(now);
            assert!(job.finish(&found(Status::Passing, false), now, 0, 0.5).news.is_some());
            let finished = job.finish(&found(Status::Critical, refused), now + SECOND, 0, 0.5);
            assert_eq!(finished.due < now + 2 * SECOND, soon);
            assert_eq!(finished.news.unwrap().generation, Some(4));
        }
    }

    #[tokio::test]
    async fn a_notice_during_a_probe_draws_another() {
        let now = Instant::now();
        let mut job = job(now);
        job.finish(&found(Status::Passing, false), now, 0, 0.5);
        job.started(tokio::spawn(std::future::pending::<()>()).abort_handle());
        assert!(!job.notice());
        // It saw the target before the end.
        let finished = job.finish(&found(Status::Passing, false), now + SECOND, 0, 0.5);
        assert_eq!((finished.drawn, finished.due), (None, now + SECOND));
        let finished = job.finish(&found(Status::Critical, true), now + SECOND, 0, 0.5);
        assert_eq!(finished.drawn, Some(Drawn::Crash));
    }

    #[test]
    fn a_crash_that_the_probe_itself_met_is_one_whatever_the_check_found_before() {
        let now = Instant::now();
        let broke = |finding| Probed { again: true, ..finding };
        // Its first probe, over another check's connection; and one that failed for another reason.
        for before in [None, Some(found(Status::Critical, false))] {
            let mut job = job(now);
            before.map(|before| job.finish(&before, now, 0, 0.5));
            assert!(job.finish(&broke(found(Status::Critical, true)), now + SECOND, 0, 0.5).crashed);
        }
        // It closes connections, and fails as ever.
        let mut job = job(now);
        job.finish(&found(Status::Critical, false), now, 0, 0.5);
        assert!(!job.finish(&broke(found(Status::Critical, false)), now + SECOND, 0, 0.5).crashed);
        assert!(job.notice());
        let finished = job.finish(&found(Status::Critical, false), now + 2 * SECOND, 0, 0.5);
        assert_eq!((finished.drawn, finished.crashed), (Some(Drawn::Alive), false));
    }

    #[test]
    fn what_a_lost_connection_draws_is_a_crash_or_a_habit() {
        let now = Instant::now();
        for (status, wanted) in [(Status::Critical, Drawn::Crash), (Status::Passing, Drawn::Alive)] {
            let mut job = job(now);
            job.finish(&found(Status::Passing, false), now, 0, 0.5);
            assert!(job.notice());
            let finished = job.finish(&found(status, false), now + 5 * SECOND, 0, 0.5);
            assert_eq!(finished.drawn, Some(wanted));
            assert_eq!((finished.crashed, job.is_quick()), (wanted == Drawn::Crash, wanted == Drawn::Crash));
        }
    }
}
