//! Connections that are kept between two probes and watched meanwhile: when a process dies its kernel closes them, and
//! the follow-up probe finds nobody listening, milliseconds after the crash.
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

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::telemetry::Metrics;

/// A connection to a target, with or without TLS.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

pub(super) type Stream = Box<dyn Wire>;

/// A connection that rests.
pub(super) struct Kept {
    /// Tells it from earlier ones of the same check.
    pub(super) serial: u64,
    since: Instant,
    stop: oneshot::Sender<()>,
    watch: JoinHandle<Option<Stream>>,
}

/// A kept connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// Whose it was.
    pub(super) check: u64,
    pub(super) serial: u64,
    /// How long it had been idle.
    pub(super) idle: Duration,
}

/// Room for kept connections, and where it is told that one broke.
pub(super) struct Shelf {
    places: Arc<Semaphore>,
    lost: mpsc::UnboundedSender<Lost>,
    metrics: Arc<Metrics>,
    serial: u64,
}

/// A place on the shelf; shown in the gauge.
struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.checks.kept.dec();
    }
}

impl Shelf {
    /// A shelf with `max` places. The channel holds at most one notice for each place.
    pub(super) fn new(max: usize, metrics: Arc<Metrics>) -> (Self, mpsc::UnboundedReceiver<Lost>) {
        let (lost, notices) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        (Self { places, lost, metrics, serial: 0 }, notices)
    }

    /// Keeps a connection and watches it; closes it when there is no place.
    pub(super) fn keep(&mut self, check: u64, stream: Stream) -> Option<Kept> {
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            self.metrics.checks.limited("kept");
            return None;
        };
        self.metrics.checks.kept.inc();
        let place = Place { _permit: permit, metrics: self.metrics.clone() };
        self.serial += 1;
        let (serial, since) = (self.serial, Instant::now());
        let (stop, stopped) = oneshot::channel();
        let lost = self.lost.clone();
        let watch = tokio::spawn(async move {
            let stream = watch(stream, stopped).await;
            drop(place);
            if stream.is_none() {
                // Fails only at the end of everything.
                let _ = lost.send(Lost { check, serial, idle: since.elapsed() });
            }
            stream
        });
        Some(Kept { serial, since, stop, watch })
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
    /// How long it has been idle.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }

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
    /// Follow-up probes in a row that found nothing wrong.
    idle_notices: u32,
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

    /// The follow-up probe passed: the close was a habit.
    pub(super) fn learn(&mut self, idle: Duration) {
        self.limit = Some(idle);
        self.idle_notices += 1;
    }

    /// A probe that no notice had drawn ended, or one that found a crash.
    pub(super) fn forgive(&mut self) {
        self.idle_notices = 0;
    }
}

fn slack(limit: Duration) -> Duration {
    (limit / 4).max(HABIT_SLACK_MIN)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn shelf(max: usize) -> (Shelf, mpsc::UnboundedReceiver<Lost>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let (shelf, notices) = Shelf::new(max, metrics.clone());
        (shelf, notices, metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_breaks_is_told_with_its_idle_time() {
        let (mut shelf, mut notices, metrics) = shelf(2);
        // The end of the other side, and a word out of turn.
        for speaks in [false, true] {
            let (ours, mut theirs) = duplex(64);
            let kept = shelf.keep(7, Box::new(ours)).unwrap();
            assert_eq!(metrics.checks.kept.get(), 1);
            tokio::time::sleep(Duration::from_secs(5)).await;
            if speaks {
                theirs.write_all(b"HTTP/1.1 408 Timeout\r\n").await.unwrap();
            } else {
                drop(theirs);
            }
            let lost = notices.recv().await.unwrap();
            assert_eq!(lost, Lost { check: 7, serial: kept.serial, idle: Duration::from_secs(5) });
            assert_eq!(metrics.checks.kept.get(), 0);
            assert!(kept.take().await.is_none());
        }
    }

    #[tokio::test]
    async fn what_is_taken_back_works_and_what_is_given_up_is_closed_without_a_word() {
        let (mut shelf, mut notices, metrics) = shelf(1);
        let (ours, mut theirs) = duplex(64);
        let kept = shelf.keep(1, Box::new(ours)).unwrap();
        assert!(shelf.keep(2, Box::new(duplex(1).0)).is_none(), "there is one place");
        let mut stream = kept.take().await.unwrap();
        assert_eq!(metrics.checks.kept.get(), 0);
        stream.write_all(b"x").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'x');
        drop(shelf.keep(1, stream).unwrap());
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        assert!(notices.try_recv().is_err());
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_habit_is_a_close_at_about_the_same_idle_time() {
        let mut habit = Habit::default();
        assert!(habit.is_news(SECOND * 5) && habit.may_reuse(SECOND * 10));
        habit.learn(SECOND * 5);
        for (secs, news) in
            [(0.001, true), (3.0, true), (4.0, false), (5.0, false), (6.0, false), (7.0, true)]
        {
            assert_eq!(habit.is_news(Duration::from_secs_f64(secs)), news, "{secs} s");
        }
        assert!(habit.may_reuse(SECOND * 3) && !habit.may_reuse(SECOND * 4));
        assert!(!Habit::default().may_reuse(SECOND * 60));
        // One that closes after each answer is not asked again and again.
        habit.learn(Duration::from_millis(1));
        assert!(!habit.is_news(Duration::from_millis(2)) && !habit.may_reuse(Duration::ZERO));
    }

    #[test]
    fn who_closes_at_random_draws_few_probes_until_a_regular_one() {
        let mut habit = Habit::default();
        let draws = |habit: &mut Habit| {
            let closes = [1, 10, 2, 30, 5, 60].map(|secs| SECOND * secs);
            closes.iter().filter(|idle| habit.is_news(**idle).then(|| habit.learn(**idle)).is_some()).count()
        };
        assert_eq!(draws(&mut habit), NOTICES_MAX as usize);
        assert_eq!(draws(&mut habit), 0);
        habit.forgive();
        assert_eq!(draws(&mut habit), NOTICES_MAX as usize);
    }
}
