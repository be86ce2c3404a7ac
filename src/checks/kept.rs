//! Connections that are kept between two probes and watched meanwhile: when a process dies its kernel closes them, and
//! the follow-up probes find nobody listening, milliseconds after the crash.
//!
//! One connection for each target (scheme, host, port and settings of TLS), however many checks it has: whoever is
//! probed borrows it, and when it breaks all of them look. A second probe at the same time uses a fresh one, of which the
//! target keeps the first that comes back. The number of targets that hold a place is bounded, first come, first served:
//! a target holds its place from one probe to the next, until a probe leaves no connection or its last check goes. So at
//! rest always the same ones have one, and the rest lose the instant notice only.
//!
//! A lost connection is a reason to look, never a result. Many servers close idle connections by habit (Node after 5 s,
//! others after 60 or 75 s); when the follow-up probe passes, that idle time is remembered and later closes at about
//! that time say nothing. Servers that close at random draw at most [`NOTICES_MAX`] extra probes per regular one.
//!
//! Only HTTP probes keep their connection. A TCP check must not: an idle connection would block a server that serves one
//! at a time. gRPC and HTTP/2 pings do not yet.
//!
//! Each kept connection has a small task of its own, because each needs somebody to wake; hyper's buffers are given
//! back first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::telemetry::Metrics;

/// A connection to a target, with or without TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// Where it leads, while it stands.
    fn peer(&self) -> Option<IpAddr>;
}

pub(super) type Stream = Box<dyn Wire>;

/// A connection that rests.
pub(super) struct Kept {
    /// Tells it from earlier ones of the same target.
    serial: u64,
    since: Instant,
    stop: oneshot::Sender<()>,
    watch: JoinHandle<Option<Stream>>,
}

/// A kept connection broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost {
    target: Arc<str>,
    serial: u64,
    /// How long it had been idle.
    pub(super) idle: Duration,
}

/// What a lost connection calls for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// These checks look at once.
    Probe(Vec<u64>),
    /// The target closes connections that were idle for about so long, or too often.
    Habit,
    /// It was not the target's connection any more.
    Stale,
}

/// The targets, and room for the connections of some of them.
pub(super) struct Shelf {
    max: usize,
    /// Targets that hold a place.
    held: usize,
    targets: HashMap<Arc<str>, Target>,
    lost: mpsc::UnboundedSender<Lost>,
    metrics: Arc<Metrics>,
    serial: u64,
}

#[derive(Default)]
struct Target {
    checks: Vec<u64>,
    holds: bool,
    kept: Option<Kept>,
    /// The check whose probe has the connection.
    borrower: Option<u64>,
    habit: Habit,
}

/// A connection on the shelf; shown in the gauge.
struct Shown(Arc<Metrics>);

impl Shown {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.checks.kept.inc();
        Self(metrics.clone())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.checks.kept.dec();
    }
}

impl Shelf {
    /// A shelf with `max` places. The channel holds at most one notice for each place.
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> (Self, mpsc::UnboundedReceiver<Lost>) {
        let (lost, notices) = mpsc::unbounded_channel();
        (Self { max, held: 0, targets: HashMap::new(), lost, metrics, serial: 0 }, notices)
    }

    /// A check of this target is run from now on; the name that it shares with others.
    pub(super) fn join(&mut self, target: &str, check: u64) -> Arc<str> {
        let name = match self.targets.get_key_value(target) {
            Some((name, _)) => name.clone(),
            None => target.into(),
        };
        self.targets.entry(name.clone()).or_default().checks.push(check);
        name
    }

    /// A check is run no longer.
    pub(super) fn leave(&mut self, name: &str, check: u64) {
        self.take_back(name, check, None);
        let Some(target) = self.targets.get_mut(name) else { return };
        target.checks.retain(|other| *other != check);
        if target.checks.is_empty() {
            self.held -= usize::from(target.holds);
            self.targets.remove(name);
        }
    }

    /// The checks of a target.
    pub(super) fn checks(&self, name: &str) -> &[u64] {
        self.targets.get(name).map_or(&[], |target| &target.checks)
    }

    /// The connection, for a probe of this check.
    pub(super) fn borrow(&mut self, name: &str, check: u64, now: Instant) -> Option<Kept> {
        let target = self.targets.get_mut(name)?;
        let kept =
            target.kept.take().filter(|kept| target.habit.may_reuse(now.duration_since(kept.since)))?;
        target.borrower = Some(check);
        Some(kept)
    }

    /// A probe of this check ended, with a connection that can be kept or with none. Returns whether it has to do
    /// without for want of a place.
    pub(super) fn take_back(&mut self, name: &str, check: u64, stream: Option<Stream>) -> bool {
        let Some(target) = self.targets.get_mut(name) else { return false };
        target.borrower.take_if(|borrower| *borrower == check);
        if target.kept.is_some() {
            return false;
        }
        let Some(stream) = stream else {
            if target.borrower.is_none() && std::mem::take(&mut target.holds) {
                self.held -= 1;
            }
            return false;
        };
        if !target.holds {
            if self.held >= self.max {
                self.metrics.limits.hit("kept_max");
                return true;
            }
            (target.holds, self.held) = (true, self.held + 1);
        }
        self.serial += 1;
        let (serial, since) = (self.serial, Instant::now());
        let (stop, stopped) = oneshot::channel();
        let (lost, shown, name) = (self.lost.clone(), Shown::new(&self.metrics), name.into());
        let watch = tokio::spawn(async move {
            let stream = watch(stream, stopped).await;
            drop(shown);
            if stream.is_none() {
                // Fails only at the end of everything.
                let _ = lost.send(Lost { target: name, serial, idle: since.elapsed() });
            }
            stream
        });
        target.kept = Some(Kept { serial, since, stop, watch });
        false
    }

    /// A kept connection broke. The place stays the target's: the next probe may bring another.
    pub(super) fn lost(&mut self, lost: &Lost) -> Notice {
        let Some(target) = self.targets.get_mut(&lost.target) else { return Notice::Stale };
        if target.kept.take_if(|kept| kept.serial == lost.serial).is_none() {
            return Notice::Stale;
        }
        if !target.habit.is_news(lost.idle) {
            return Notice::Habit;
        }
        target.habit.suspect = Some(lost.idle);
        Notice::Probe(target.checks.clone())
    }

    /// The target closed a connection before it could be kept, without a word.
    pub(super) fn cut_off(&mut self, name: &str) -> Notice {
        let Some(target) = self.targets.get_mut(name) else { return Notice::Stale };
        if !target.habit.is_news(Duration::ZERO) {
            return Notice::Habit;
        }
        target.habit.suspect = Some(Duration::ZERO);
        Notice::Probe(target.checks.clone())
    }

    /// What the target's connections have taught.
    pub(super) fn habit(&mut self, name: &str) -> Option<(&mut Habit, usize)> {
        self.targets.get_mut(name).map(|target| (&mut target.habit, target.checks.len()))
    }
}

/// Waits until the connection breaks (nothing is left) or is wanted back or given up. A server has nothing to say on an idle
/// connection, so whatever comes is its end.
async fn watch(mut stream: Stream, stopped: oneshot::Receiver<()>) -> Option<Stream> {
    let mut octet = [0];
    tokio::select! {
        _ = stream.read(&mut octet) => None,
        _ = stopped => Some(stream),
    }
}

impl Kept {
    /// The connection, if it still stands.
    pub(super) async fn take(self) -> Option<Stream> {
        self.stop.send(()).ok()?;
        self.watch.await.ok()?
    }
}

/// Extra probes that lost connections may draw for each regular one, while nothing comes of them.
pub(super) const NOTICES_MAX: u32 = 2;
/// How far from the learnt idle time a close may be and still be the habit, at least.
const HABIT_SLACK_MIN: Duration = Duration::from_millis(250);
/// A connection that was idle for longer is watched but not used again: something between us and the target may have
/// forgotten it without a word.
const REUSE_MAX: Duration = Duration::from_secs(50);

/// What a target taught about its connections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Habit {
    /// It closes connections that were idle for about so long.
    limit: Option<Duration>,
    /// Notices in a row of which nothing came.
    idle_notices: u32,
    /// The idle time of a lost connection, until the first follow-up probe ends.
    suspect: Option<Duration>,
    /// Regular probes since the last of those.
    regular: usize,
}

impl Habit {
    /// Whether a close after this idle time is a reason to probe.
    pub(super) fn is_news(&self, idle: Duration) -> bool {
        let habitual = self.limit.is_some_and(|limit| idle.abs_diff(limit) <= slack(limit));
        !habitual && self.idle_notices < NOTICES_MAX
    }

    /// Whether a connection that has been idle for so long may be used for a probe.
    pub(super) fn may_reuse(&self, idle: Duration) -> bool {
        idle < REUSE_MAX && self.limit.is_none_or(|limit| idle + slack(limit) < limit)
    }

    /// A follow-up probe found nothing new: the close was a habit. The first of a target's checks tells.
    pub(super) fn learn(&mut self) {
        if let Some(idle) = self.suspect.take() {
            self.limit = Some(idle);
            self.idle_notices += 1;
        }
    }

    /// A follow-up probe failed.
    pub(super) fn crashed(&mut self) {
        (self.suspect, self.idle_notices) = (None, 0);
    }

    /// A probe that no notice had drawn ended; `checks` is how many checks the target has.
    pub(super) fn forgive(&mut self, checks: usize) {
        self.regular += 1;
        if self.regular >= checks {
            (self.regular, self.idle_notices) = (0, 0);
        }
    }
}

fn slack(limit: Duration) -> Duration {
    (limit / 4).max(HABIT_SLACK_MIN)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    impl Wire for DuplexStream {
        fn peer(&self) -> Option<IpAddr> {
            None
        }
    }

    fn shelf(max: usize) -> (Shelf, mpsc::UnboundedReceiver<Lost>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let (shelf, notices) = Shelf::new(max, metrics.clone());
        (shelf, notices, metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_breaks_is_told_to_all_checks_of_its_target() {
        let (mut shelf, mut notices, metrics) = shelf(2);
        for check in [7, 8] {
            shelf.join("web", check);
        }
        shelf.join("other", 9);
        // The end of the other side, and a word out of turn.
        for speaks in [false, true] {
            let (ours, mut theirs) = duplex(64);
            assert!(!shelf.take_back("web", 7, Some(Box::new(ours))));
            assert_eq!(metrics.checks.kept.get(), 1);
            tokio::time::sleep(Duration::from_secs(5)).await;
            if speaks {
                theirs.write_all(b"HTTP/1.1 408 Timeout\r\n").await.unwrap();
            } else {
                drop(theirs);
            }
            let lost = notices.recv().await.unwrap();
            assert_eq!(lost.idle, Duration::from_secs(5));
            assert_eq!(metrics.checks.kept.get(), 0);
            assert_eq!(shelf.lost(&lost), Notice::Probe(vec![7, 8]));
            assert_eq!(shelf.lost(&lost), Notice::Stale);
            shelf.habit("web").unwrap().0.crashed();
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_off_before_it_is_kept_is_told_once() {
        let (mut shelf, _notices, _) = shelf(1);
        for check in [7, 8] {
            shelf.join("web", check);
        }
        assert_eq!(shelf.cut_off("web"), Notice::Probe(vec![7, 8]));
        shelf.habit("web").unwrap().0.learn();
        assert_eq!(shelf.cut_off("web"), Notice::Habit);
        assert_eq!(shelf.cut_off("db"), Notice::Stale);
    }

    #[tokio::test]
    async fn what_is_borrowed_works_and_what_is_given_up_is_closed_without_a_word() {
        let (mut shelf, mut notices, metrics) = shelf(1);
        let (ours, mut theirs) = duplex(64);
        shelf.join("web", 1);
        shelf.take_back("web", 1, Some(Box::new(ours)));
        let kept = shelf.borrow("web", 1, Instant::now()).unwrap();
        assert!(shelf.borrow("web", 2, Instant::now()).is_none(), "there is one");
        let mut stream = kept.take().await.unwrap();
        assert_eq!(metrics.checks.kept.get(), 0);
        stream.write_all(b"x").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'x');
        shelf.take_back("web", 1, Some(stream));
        shelf.leave("web", 1);
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        assert!(notices.try_recv().is_err() && shelf.targets.is_empty());
    }

    #[tokio::test]
    async fn a_target_keeps_its_place_while_its_connection_is_out_and_no_longer() {
        let (mut shelf, _notices, _) = shelf(1);
        let (now, stream) = (Instant::now(), || -> Option<Stream> { Some(Box::new(duplex(1).0)) });
        for (target, check) in [("web", 1), ("web", 2), ("db", 3)] {
            shelf.join(target, check);
        }
        assert!(!shelf.take_back("web", 1, stream()));
        assert!(shelf.take_back("db", 3, stream()), "there is one place");
        let _out = shelf.borrow("web", 1, now).unwrap();
        // The second check's probe used another meanwhile, and comes back with nothing or with it.
        assert!(!shelf.take_back("web", 2, None));
        assert!(shelf.take_back("db", 3, stream()));
        assert!(!shelf.take_back("web", 2, stream()));
        assert!(!shelf.take_back("web", 1, stream()), "one is enough");
        assert!(shelf.take_back("db", 3, stream()));
        // Nothing comes back: another's turn.
        let _out = shelf.borrow("web", 2, now).unwrap();
        assert!(!shelf.take_back("web", 2, None));
        assert!(!shelf.take_back("db", 3, stream()));
        assert!(shelf.take_back("web", 1, stream()));
        shelf.leave("db", 3);
        assert!(!shelf.take_back("web", 1, stream()));
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn learn(habit: &mut Habit, idle: Duration) {
        habit.suspect = Some(idle);
        habit.learn();
    }

    #[test]
    fn a_habit_is_a_close_at_about_the_same_idle_time() {
        let mut habit = Habit::default();
        assert!(habit.is_news(SECOND * 5) && habit.may_reuse(SECOND * 10));
        learn(&mut habit, SECOND * 5);
        for (secs, news) in
            [(0.001, true), (3.0, true), (4.0, false), (5.0, false), (6.0, false), (7.0, true)]
        {
            assert_eq!(habit.is_news(Duration::from_secs_f64(secs)), news, "{secs} s");
        }
        assert!(habit.may_reuse(SECOND * 3) && !habit.may_reuse(SECOND * 4));
        assert!(!Habit::default().may_reuse(SECOND * 60));
        // One that closes after each answer is not asked again and again.
        learn(&mut habit, Duration::from_millis(1));
        assert!(!habit.is_news(Duration::from_millis(2)) && !habit.may_reuse(Duration::ZERO));
    }

    #[test]
    fn who_closes_at_random_draws_few_probes_until_a_regular_one_of_each_check() {
        let mut habit = Habit::default();
        let draws = |habit: &mut Habit| {
            let closes = [1, 10, 2, 30, 5, 60].map(|secs| SECOND * secs);
            closes.iter().filter(|idle| habit.is_news(**idle).then(|| learn(habit, **idle)).is_some()).count()
        };
        assert_eq!(draws(&mut habit), NOTICES_MAX as usize);
        assert_eq!(draws(&mut habit), 0);
        habit.forgive(2);
        assert_eq!(draws(&mut habit), 0);
        habit.forgive(2);
        assert_eq!(draws(&mut habit), NOTICES_MAX as usize);
        // The other checks of the target hear nothing new from the same close.
        habit.forgive(1);
        learn(&mut habit, SECOND);
        (0..5).for_each(|_| habit.learn());
        assert_eq!(habit.idle_notices, 1);
    }
}
