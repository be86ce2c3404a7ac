//! The registry: the one thing that changes, the one task that changes it, and the views that are read.
//!
//! Requests reach the [writer] as [`Command`]s. It asks whether whoever sent them [may](permission), [plans](plan) them against the newest state (pure),
//! proposes definitions to the store, applies what the store's log brings back, and publishes an immutable
//! [`Snapshot`] by one pointer. Observations skip the store. Readers load the pointer: no lock, no wait.
//! After a publish the writer wakes the watchers of what changed and sends the list of changes to
//! subscribers, so nobody compares snapshots.

mod acl;
mod ahead;
mod apply;
pub mod breaker;
pub mod command;
mod deadlines;
pub mod events;
pub mod guard;
pub mod history;
pub mod limits;
mod load;
mod own;
mod permission;
mod plan;
#[cfg(test)]
mod properties;
mod queries;
pub mod ramps;
pub mod readers;
pub mod report;
mod resume;
pub mod routes;
mod seen;
mod shown;
pub mod snapshot;
mod told;
#[cfg(test)]
mod under_way;
pub mod versions;
pub mod views;
pub mod watch;
mod ways;
mod writer;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::futures::Notified;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::acl::{Config as AclConfig, View};
use crate::audit::{Audit, Cause};
use crate::gently::gently;
use crate::model::{Change, CheckKey, Node, Observation, ServiceName};
use crate::store::{Log, Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::origin::{self, Origin};
use crate::telemetry::trace::{Kind as SpanKind, Span};
use shown::Begun;

pub use command::{AclCommand, Brought, Caller, Command, Refused, Seen, Steer};
pub use limits::Limits;
pub use queries::QueryEntry;
pub use routes::RouteEntry;
pub use snapshot::{CheckEntry, Health, InstanceEntry, NodeEntry, ServiceEntry, Snapshot};
pub use watch::Topic;

/// What the registry is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node that callers on this machine act for.
    pub own: Node,
    pub limits: Limits,
    /// Which is told of all that changes.
    pub audit: Audit,
}

/// A handle on the registry; cheap to clone.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

/// What the handles and the writer share.
struct Shared {
    published: ArcSwap<Snapshot>,
    store: Arc<dyn Store>,
    limits: ArcSwap<Limits>,
    guard: ArcSwap<guard::Settings>,
    slow_start: ArcSwap<ramps::Settings>,
    breaker: ArcSwap<breaker::Settings>,
    watchers: watch::Watchers,
    versions: versions::Versions,
    views: views::Views,
    readers: Arc<readers::Readers>,
    history: history::History,
    wakes: broadcast::Sender<Arc<Published>>,
    /// Until when no TTL check expires.
    unheard: ArcSwapOption<Instant>,
    /// Whether somebody wants [`Published::events`].
    recorded: AtomicBool,
    commands: mpsc::Sender<Request>,
    observations: mpsc::Sender<Found>,
    reports: mpsc::Sender<report::Reports>,
    closing: CancellationToken,
    /// Cancelled when the writer has ended.
    ended: CancellationToken,
    metrics: Arc<Metrics>,
    audit: Audit,
    kept: OnceLock<Kept>,
}

/// For how long caches may hold what was answered of a service, by its name in lower case, before a change to an instance of it,
/// given as it was; none where nobody knows any more.
pub type Kept = Box<dyn Fn(&Snapshot, &str, Option<&InstanceEntry>) -> Option<Duration> + Send + Sync>;

/// A command and where its outcome goes.
struct Request {
    command: Command,
    /// What whoever asks may do.
    view: View,
    reply: oneshot::Sender<Result<(), Refused>>,
    /// Whose request it is.
    origin: Option<Arc<Origin>>,
    begun: Begun,
    /// From when it was sent to when it is answered.
    span: Span,
}

/// What probes found, and when the first of them ended.
struct Found {
    observations: Vec<Observation>,
    since: Instant,
}

/// What one publish changed, for those who follow the registry.
#[derive(Debug)]
pub struct Published {
    pub index: u64,
    pub changes: Vec<Change>,
    /// The same as events; `None` where nobody had asked for them when it began.
    pub events: Option<Vec<events::Event>>,
    /// Checks that are due now: their instance was registered again while they were not passing.
    pub kicks: Vec<CheckKey>,
}

/// Observations that may wait for the writer; probes wait when it is full.
const OBSERVATIONS_WAITING_MAX: usize = 1024;
/// Publishes that a slow subscriber may be behind before it has to read the snapshot afresh.
const WAKES_BEHIND_MAX: usize = 4096;

impl Registry {
    /// Loads what the store holds, starts the writer, and returns when the first snapshot can be read.
    /// The writer ends when the last handle is dropped, or after [`Registry::close`].
    pub fn start(
        store: Arc<dyn Store>,
        log: Log,
        config: Config,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), StoreError> {
        let loaded = store.load()?;
        let (state, unplaced) = gently(|| load::load(loaded, &config.own));
        let state = state.with_ours(&config.own.name);
        let (commands, command_queue) = mpsc::channel(config.limits.queue_max);
        let (observations, observation_queue) = mpsc::channel(OBSERVATIONS_WAITING_MAX);
        let (reports, report_queue) = mpsc::channel(config.limits.queue_max);
        let shared = Arc::new(Shared {
            published: ArcSwap::from_pointee(state.clone()),
            store,
            watchers: watch::Watchers::new(config.limits.watchers_max),
            versions: versions::Versions::default(),
            views: views::Views::default(),
            readers: Arc::default(),
            history: history::History::new(views::now()),
            limits: ArcSwap::from_pointee(config.limits),
            guard: ArcSwap::default(),
            slow_start: ArcSwap::default(),
            breaker: ArcSwap::default(),
            wakes: broadcast::Sender::new(WAKES_BEHIND_MAX),
            unheard: ArcSwapOption::empty(),
            recorded: AtomicBool::new(false),
            commands,
            observations,
            reports,
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
            metrics,
            audit: config.audit,
            kept: OnceLock::new(),
        });
        let (commands, observations, reports) = (command_queue, observation_queue, report_queue);
        let queues = writer::Queues { commands, observations, reports, log };
        let writer = writer::Writer::new(&shared, state, unplaced, config.own, queues);
        // Dropped in whichever way it ends.
        let ended = shared.ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _ended = ended;
            writer.run().await;
        });
        Ok((Self { shared }, task))
    }

    /// The newest snapshot. Take it once for each question, so that the question sees one world.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.published.load_full()
    }

    /// The newest snapshot, borrowed: for the length of one answer, never across an await.
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.shared.published.load()
    }

    /// How often the answers of a service may have changed. What is derived from a snapshot that is loaded after this call
    /// holds as long as the version does not move.
    pub fn version(&self, slot: versions::Slot) -> u32 {
        self.shared.versions.get(slot)
    }

    /// For a thread that answers: to be called by it, before it loads anything.
    pub fn reader(&self) -> readers::Reader {
        self.shared.readers.reader()
    }

    /// For an answer that may wait before it is sent, from a snapshot that is loaded after this call.
    pub fn hold(&self) -> readers::Held {
        self.shared.readers.hold()
    }

    /// For a proof that nobody answers any more from snapshots before the newest.
    pub fn proof(&self) -> readers::Proof {
        self.shared.readers.proof()
    }

    /// Carries out a command of the server's own, or one of somebody whom it was given to: nobody is asked. When it returns
    /// `Ok`, what it defines is durable and published.
    pub fn submit(&self, command: Command) -> impl Future<Output = Result<(), Refused>> {
        self.submit_as(View::default(), command)
    }

    /// Carries out a command of somebody, where they may do what it comes to when its turn is.
    pub async fn submit_as(&self, view: View, command: Command) -> Result<(), Refused> {
        let origin = origin::current();
        if !view.is_open()
            && let Err(refused) = permission::permit(&self.load(), &view, &command)
        {
            let cause = Cause { origin, action: command.action() };
            self.shared.audit.tell_failed(cause, || command.about(), told::outcome(&refused), &refused);
            return Err(refused);
        }
        let (reply, outcome) = oneshot::channel();
        let begun = Begun::of_request(origin.as_ref().map(|origin| origin.arrived));
        let span = origin.as_ref().map(|origin| origin.span.child("registry.write", SpanKind::Internal));
        let request = Request { command, view, reply, origin, begun, span: span.unwrap_or_default() };
        let ended = || Err(Refused::Unavailable("the server is stopping or restarting; try again".into()));
        match self.shared.commands.try_send(request) {
            Ok(()) => outcome.await.unwrap_or_else(|_| ended()),
            Err(mpsc::error::TrySendError::Closed(_)) => ended(),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.shared.count_limit("queue_max");
                Err(Refused::Busy { max: self.shared.commands.max_capacity() })
            }
        }
    }

    /// Ends the writer: commands from now on are refused, those before are carried out and answered. The last snapshot
    /// stays.
    pub fn close(&self) {
        self.shared.closing.cancel();
    }

    /// Ready when the writer has ended: nothing changes any more, whatever is asked. Before [`Registry::close`] that is a fault.
    pub async fn ended(&self) {
        self.shared.ended.cancelled().await;
    }

    /// Reports what probes found, the first of which ended at `since`. Applied at once, whatever the disk does; waits only when
    /// more than a thousand reports are before it.
    pub async fn observe(&self, observations: Vec<Observation>, since: Instant) {
        // Fails only when the writer has ended, and then nobody asks any more.
        let _ = self.shared.observations.send(Found { observations, since }).await;
    }

    /// Takes how long caches hold answers; until then, that is not measured.
    pub fn tell_kept(&self, kept: Kept) {
        // Told once, at the start.
        let _ = self.shared.kept.set(kept);
    }

    /// Until then those who renew TTL checks may not be able to reach us: what expires does so at that time.
    pub fn hold_expiry(&self, until: Option<Instant>) {
        self.shared.unheard.store(until.map(Arc::new));
    }

    /// Takes how access is controlled; it is not before.
    pub fn set_access(&self, config: AclConfig, datacenter: &str) {
        self.shared.views.set(config, datacenter.to_owned(), self.load().acl(), views::now());
    }

    /// Whether access is controlled at all.
    pub fn access_is_controlled(&self) -> bool {
        self.shared.views.enabled()
    }

    /// Whether what no rule speaks of is allowed; it is where access is not controlled.
    pub fn default_is_allow(&self) -> bool {
        self.shared.views.default_is_allow()
    }

    /// How access is controlled.
    pub fn access(&self) -> AclConfig {
        self.shared.views.config()
    }

    /// What the bearer of a token may see and do; `None` is a request without one.
    pub fn view(&self, token: Option<&str>) -> Result<View, views::UnknownToken> {
        self.shared.views.view(self.load().acl(), token, views::now())
    }

    /// Ready when what somebody may see or do may have changed since this was called.
    pub fn access_changed(&self) -> Notified<'_> {
        self.shared.views.changed()
    }

    /// What a prepared query shows that holds a token: what the token's bearer may see, and nothing when nobody has it (any
    /// more). None where it holds none: whoever asks decides.
    pub fn view_of_query(&self, token: &str) -> Option<View> {
        (!token.is_empty()).then(|| self.view(Some(token)).unwrap_or_else(|_| View::nothing()))
    }

    /// What DNS may show. The pointer is another one when it changes.
    pub fn dns_view(&self) -> arc_swap::Guard<Arc<View>> {
        self.shared.views.dns()
    }

    /// Every change from now on. One who lags behind reads the snapshot afresh.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Published>> {
        self.shared.wakes.subscribe()
    }

    /// What became of a service of late, as far as it led to this snapshot.
    pub fn history(&self, service: &ServiceName, snapshot: &Snapshot) -> history::Told {
        self.shared.history.of(service, snapshot.index())
    }

    /// The same with [events](Published::events), which are made of every change that comes after this returns.
    pub async fn record(&self) -> broadcast::Receiver<Arc<Published>> {
        let receiver = self.subscribe();
        self.shared.recorded.store(true, Ordering::Relaxed);
        // The round that had begun without ends before this is answered. A writer that has ended makes no changes.
        let _ = self.submit(Command::Import(Brought::default())).await;
        receiver
    }

    /// Waits until the topic's index is greater than `past` or `wait` is over, and returns the snapshot
    /// to answer from. Returns at once when `past` is above every index that was ever published
    /// (the client's server was another one). Errs when too many wait already.
    pub async fn wait(&self, topic: &Topic, past: u64, wait: Duration) -> Result<Arc<Snapshot>, Refused> {
        let deadline = Instant::now() + wait;
        loop {
            let snapshot = self.snapshot();
            if snapshot.index_of(topic) > past || past > snapshot.index() {
                return Ok(snapshot);
            }
            let Some(watcher) = self.shared.watchers.watch(topic) else {
                self.shared.count_limit("watchers_max");
                return Err(Refused::TooManyWatchers { max: self.shared.watchers.max() });
            };
            let woken = watcher.woken();
            tokio::pin!(woken);
            woken.as_mut().enable();
            // What was published between the load above and `enable` has not woken us.
            if self.load().index_of(topic) > past {
                continue;
            }
            if tokio::time::timeout_at(deadline, woken).await.is_err() {
                return Ok(self.snapshot());
            }
        }
    }

    /// How many wait at present.
    pub fn watchers(&self) -> usize {
        self.shared.watchers.len()
    }

    /// Replaces the limits, at a reload. Those on queues and watchers take effect at the next start.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.limits.store(Arc::new(limits));
    }

    /// Takes when too many fail at once; nothing is guarded before.
    pub fn set_guard(&self, settings: guard::Settings) {
        self.shared.guard.store(Arc::new(settings));
    }

    /// Takes when circuits open.
    pub fn set_breaker(&self, settings: breaker::Settings) {
        self.shared.breaker.store(Arc::new(settings));
    }

    /// Takes how slowly instances start; before, at once.
    pub fn set_slow_start(&self, settings: ramps::Settings) {
        self.shared.slow_start.store(Arc::new(settings));
    }

    /// The limits in force.
    pub fn limits(&self) -> Arc<Limits> {
        self.shared.limits.load_full()
    }

    /// Writes all definitions and statuses as of one moment. Blocks: call it where blocking is allowed.
    pub fn backup(&self, to: &mut dyn Write) -> Result<(), StoreError> {
        self.shared.store.backup(to)
    }

    /// Whether definitions can be stored at present.
    pub fn writable(&self) -> Result<(), StoreError> {
        if self.shared.ended.is_cancelled() {
            return Err(StoreError::new("the registry has ended"));
        }
        self.shared.store.writable()
    }
}

impl Shared {
    fn count_limit(&self, key: &'static str) {
        self.metrics.limits.hit(key);
    }
}
