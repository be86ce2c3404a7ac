//! The one task that starts probes and takes their results in. Which checks there are stands in [`follow`](super::follow).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::alias::Aliases;
use super::horizon::Horizon;
use super::job::{Drawn, Finished, Job};
use super::kept::{Lost, Notice, Shelf, Stream};
use super::kinds::{self, Probed};
use super::outlook::Outlook;
use super::places::Places;
use super::probe::Tools;
use super::schedule::Queue;
use crate::model::{CheckKey, Observation};
use crate::registry::{Published, Registry};
use crate::telemetry::Metrics;

/// Results, notices and publishes taken in one round, so that a flood of one kind still lets the others through.
const ROUND_MAX: usize = 256;
/// What is published is looked at once in so long, counted from when this thread began to wait for it: thousands of registrations
/// a second would else wake it for each.
const REST: Duration = Duration::from_millis(1);

pub(super) struct Runner {
    pub(super) registry: Registry,
    pub(super) config: Config,
    pub(super) metrics: Arc<Metrics>,
    tools: Arc<Tools>,
    /// The checks that are probed, by a number of their own.
    pub(super) jobs: HashMap<u64, Job>,
    pub(super) numbers: HashMap<CheckKey, u64>,
    /// The last number given.
    pub(super) number: u64,
    pub(super) queue: Queue,
    pub(super) aliases: Aliases,
    /// What this round found, told to the registry at its end.
    pub(super) news: Vec<Observation>,
    /// When the first probe ended that made news.
    since: Option<Instant>,
    /// How many checks are repeated quickly because they fail.
    crowd: usize,
    probes: JoinSet<Probed>,
    in_flight: HashMap<task::Id, u64>,
    places: Places<task::Id>,
    pub(super) shelf: Shelf,
    notices: mpsc::UnboundedReceiver<Lost>,
    pub(super) horizon: Horizon,
    pub(super) outlook: Outlook,
    /// Statuses are held, as far as was told.
    pub(super) held: bool,
}

impl Runner {
    pub(super) fn new(registry: Registry, config: Config, tools: Tools, metrics: Arc<Metrics>) -> Self {
        let (shelf, notices) = Shelf::new(config.kept_max, metrics.clone());
        let places = Places::new(config.in_flight_max);
        let (horizon, outlook) = (Horizon::new(config.cut_off), Outlook::new(Instant::now()));
        Self {
            registry,
            config,
            metrics,
            tools: Arc::new(tools),
            jobs: HashMap::new(),
            numbers: HashMap::new(),
            number: 0,
            queue: Queue::default(),
            aliases: Aliases::default(),
            news: Vec::new(),
            since: None,
            crowd: 0,
            probes: JoinSet::new(),
            in_flight: HashMap::new(),
            places,
            shelf,
            notices,
            horizon,
            outlook,
            held: false,
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        // Before the snapshot is read, so that nothing falls between.
        let mut wakes = self.registry.subscribe();
        self.read_all(true);
        let mut rested = Instant::now();
        loop {
            let now = Instant::now();
            self.start_due(now);
            if !self.news.is_empty() {
                let since = self.since.take().unwrap_or(now);
                self.registry.observe(std::mem::take(&mut self.news), since).await;
            }
            let next = if self.places.is_full() { self.places.next() } else { self.queue.next() };
            let rests = now < rested;
            let next = if rests { Some(next.map_or(rested, |next| next.min(rested))) } else { next };
            tokio::select! {
                () = shutdown.cancelled() => break,
                published = wakes.recv(), if !rests => {
                    if !self.on_wake(published) {
                        break;
                    }
                    self.take_published(&mut wakes);
                    rested = now + REST;
                }
                Some(ended) = self.probes.join_next_with_id() => self.on_end(ended),
                Some(lost) = self.notices.recv() => self.on_lost(&lost),
                () = sleep_until(next) => {}
            }
            self.take_waiting();
        }
        self.probes.shutdown().await;
    }

    /// Takes what was published besides what woke us.
    fn take_published(&mut self, wakes: &mut broadcast::Receiver<Arc<Published>>) {
        for _ in 0..ROUND_MAX {
            match wakes.try_recv() {
                Ok(published) => self.on_publish(&published),
                Err(TryRecvError::Lagged(_)) => self.read_all(false),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
    }

    /// Takes what waits besides what woke us, so that one report holds it all.
    fn take_waiting(&mut self) {
        for _ in 0..ROUND_MAX {
            let Ok(lost) = self.notices.try_recv() else { break };
            self.on_lost(&lost);
        }
        for _ in 0..ROUND_MAX {
            let Some(ended) = self.probes.try_join_next_with_id() else { break };
            self.on_end(ended);
        }
    }

    /// Starts what is due, as far as there are places.
    fn start_due(&mut self, now: Instant) {
        let count = self.queue.advance(now);
        self.places.advance(now);
        while !self.places.is_full() {
            let Some((number, due)) = self.queue.pop() else { break };
            if let Some(job) = self.jobs.get_mut(&number).filter(|job| !job.is_running()) {
                self.metrics.checks.started(now.duration_since(due));
                let kept = job.target.as_ref().and_then(|target| self.shelf.borrow(target, number, now));
                let (check, tools) = (job.check.clone(), self.tools.clone());
                let task = self.probes.spawn(async move { kinds::probe(&check, kept, &tools).await });
                self.in_flight.insert(task.id(), number);
                self.places.start(task.id(), now);
                job.started(task);
            }
        }
        if count > 0 && self.queue.waiting() > 0 {
            self.metrics.limits.hit("in_flight_max");
        }
        self.metrics.checks.in_flight.set(self.places.len() as i64);
        self.metrics.checks.waiting.set(self.queue.waiting() as i64);
    }

    fn on_end(&mut self, ended: Result<(task::Id, Probed), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.places.end(id);
        let Some(number) = self.in_flight.remove(&id) else { return };
        // A check that went meanwhile: what was found counts no more.
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let now = Instant::now();
        match ended {
            Ok((_, probed)) if probed.finding.shortage => {
                self.metrics.checks.unmade("shortage");
                tracing::warn!(check = %job.check.key(), "a probe could not be made: {}", probed.finding.output);
                let due = job.give_up(now);
                self.queue.set(number, due);
                self.put_back(number, None);
            }
            Ok((_, probed)) => self.on_probed(number, probed, now),
            Err(error) => {
                tracing::error!(check = %job.check.key(), "a probe ended without a result: {error}");
                let due = job.give_up(now);
                self.queue.set(number, due);
                self.put_back(number, None);
            }
        }
    }

    fn on_probed(&mut self, number: u64, probed: Probed, now: Instant) {
        if self.counts(number, &probed, now) {
            return self.on_result(number, probed, now);
        }
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let due = job.give_up(now);
        self.queue.set(number, due);
        self.put_back(number, None);
    }

    fn on_result(&mut self, number: u64, mut probed: Probed, now: Instant) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        count(&self.metrics, job, &probed);
        let (was_quick, was_unsettled) = (job.is_quick(), job.is_unsettled());
        let Finished { news, due, drawn, crashed } =
            job.finish(&probed, now, self.crowd, rand::random::<f64>());
        self.crowd = self.crowd + usize::from(job.is_quick()) - usize::from(was_quick);
        self.metrics.steady.settled(was_unsettled, job.is_unsettled());
        match drawn {
            Some(Drawn::Crash) => self.metrics.checks.noticed("crash"),
            Some(Drawn::Alive) => self.metrics.checks.noticed("alive"),
            None => {}
        }
        if news.is_some() {
            self.since = Some(self.since.map_or(probed.ended, |since| since.min(probed.ended)));
        }
        self.news.extend(news);
        self.queue.set(number, due);
        let target = job.target.clone();
        if let Some((habit, checks)) = target.as_ref().and_then(|target| self.shelf.habit(target)) {
            match drawn {
                Some(Drawn::Crash) => habit.crashed(),
                Some(Drawn::Alive) => habit.learn(),
                None => habit.forgive(checks),
            }
        }
        self.put_back(number, probed.stream.take());
        if let Some(target) = target.as_ref().filter(|_| probed.cut_off) {
            let notice = self.shelf.cut_off(target);
            self.on_notice(notice);
        }
        // The connection that would have told the others may have been this probe's. Those that fail know already.
        if let Some(target) = target.filter(|_| crashed) {
            let mut others = self.shelf.checks(&target).to_vec();
            others.retain(|number| self.jobs.get(number).is_some_and(|job| !job.is_failing()));
            self.look(&others);
        }
    }

    /// Gives the connection back that a probe had, or the one that it made.
    fn put_back(&mut self, number: u64, stream: Option<Stream>) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let Some(target) = &job.target else { return };
        let unkept = self.shelf.take_back(target, number, stream);
        if std::mem::replace(&mut job.unkept, unkept) != unkept {
            self.metrics.checks.unkept.inc_by(if unkept { 1 } else { -1 });
        }
    }

    /// A connection to the target of these checks broke.
    fn look(&mut self, checks: &[u64]) {
        let now = Instant::now();
        for number in checks {
            if self.jobs.get_mut(number).is_some_and(Job::notice) {
                self.queue.hasten(*number, now);
            }
        }
    }

    fn on_lost(&mut self, lost: &Lost) {
        let notice = self.shelf.lost(lost);
        self.on_notice(notice);
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Probe(checks) => self.look(&checks),
            Notice::Habit => self.metrics.checks.noticed("habit"),
            Notice::Stale => {}
        }
    }

    /// Something happened to a check that does not pass: it is probed soon, and quickly until it passes. A probe in
    /// flight starts anew: it may hang on a host that has just come back.
    pub(super) fn trigger(&mut self, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let was_quick = job.is_quick();
        let at = job.trigger(Instant::now());
        self.crowd = self.crowd + usize::from(job.is_quick()) - usize::from(was_quick);
        match job.interrupt() {
            Some(probe) => {
                self.in_flight.remove(&probe.id());
                probe.abort();
                self.queue.set(number, at);
                self.put_back(number, None);
            }
            None => self.queue.hasten(number, at),
        }
    }

    pub(super) fn remove(&mut self, key: &CheckKey) {
        self.aliases.remove(key);
        let Some(number) = self.numbers.remove(key) else { return };
        self.queue.clear(number);
        if let Some(job) = self.jobs.remove(&number) {
            self.crowd -= usize::from(job.is_quick());
            self.metrics.steady.settled(job.is_unsettled(), false);
            self.metrics.checks.unkept.dec_by(i64::from(job.unkept));
            if let Some(target) = &job.target {
                self.shelf.leave(target, number);
            }
            if let Some(host) = &job.host {
                self.leave_host(host);
            }
        }
    }
}

fn count(metrics: &Metrics, job: &Job, probed: &Probed) {
    let outcome = if probed.timed_out { "timeout" } else { probed.finding.status.as_str() };
    metrics.checks.probed(job.check.kind.type_word(), outcome, probed.took);
    if probed.again {
        metrics.checks.retries.inc();
    }
}

/// Sleeps until then; for ever when nothing is due or there is no place.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
