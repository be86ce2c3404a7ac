//! Rollcall: a DNS server that answers for the services that are alive.
//!
//! [`start`] puts the rooms together: it opens the store, loads the registry, binds, starts, and returns the addresses and
//! a handle. Nothing else knows more than one of the doors (`dns`, `http`, `checks`). The caller decides when to
//! stop and when to reload; a test starts a whole server on port 0 in a line.

pub mod acl;
pub mod audit;
pub mod checks;
pub mod cli;
pub mod config;
pub mod dns;
pub mod filter;
pub mod gently;
pub mod handover;
pub mod http;
pub mod model;
pub mod otlp;
pub mod pace;
pub mod registry;
pub mod select;
pub mod store;
pub mod telemetry;
pub mod tls;

use std::fs::File;
use std::io::{self, BufWriter, Seek};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use audit::Audit;
use config::{Config, Data};
use dns::forward::Forwarder;
use dns::zone::{Source, Zones};
use gently::gently;
use handover::{Door, Entry, Place, Predecessor, Sockets};
use model::ServiceName;
use registry::{Command, Registry, Topic};
use store::Store;
use telemetry::Metrics;
use telemetry::trace::Tracer;

pub use http::{Asked, openapi};

/// How long tasks may take to end at a stop before they are left behind.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long a store that another process has just closed may stay in use.
const FREE_WITHIN: Duration = Duration::from_secs(5);
const OPEN_AGAIN: Duration = Duration::from_millis(50);
/// How long our own node may take to be stored before DNS is answered without.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);
/// Requests to whoever runs the server that may wait; those beyond are refused.
const ASKED_WAITING_MAX: usize = 4;
/// How often a server that could not be replaced tries to take up its work.
const RESUME_AGAIN: Duration = Duration::from_secs(1);

/// A server that answers.
pub struct Running {
    /// Where DNS is answered, with real ports; UDP and TCP have the same.
    pub dns: Vec<SocketAddr>,
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    /// Unix sockets for HTTP.
    pub unix: Vec<PathBuf>,
    core: Core,
    http_state: Arc<http::State>,
    /// Through which changes come: HTTP and the checks.
    doors: Tasks,
    asked: mpsc::Receiver<http::Asked>,
}

/// What answers DNS.
struct Core {
    config: Config,
    node_id: Uuid,
    registry: Registry,
    store: Arc<dyn Store>,
    dns_state: Arc<dns::State>,
    answering: Tasks,
    writer: JoinHandle<()>,
    /// Other handles on all that is listened on, for a process that comes after us.
    sockets: Sockets,
    /// The certificate, where HTTPS is listened for.
    tls: Option<Arc<tls::Server>>,
    audit: Audit,
    traces: Tracer,
}

/// Tasks that end by one token.
struct Tasks {
    all: TaskTracker,
    shutdown: CancellationToken,
}

/// A store that was opened, and what belongs to it.
pub struct Opened {
    pub store: Arc<dyn Store>,
    pub log: store::Log,
    /// The UUID of our node, where the configuration names none.
    pub node_id: Uuid,
    /// Those in which the store counts.
    pub metrics: Arc<Metrics>,
}

/// Starts a server. When it returns, state is loaded, sockets are bound, and questions are answered. Errs, with nothing
/// left running, when anything of the configuration cannot be had.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    start_with(config, Sockets::default()).await
}

/// The same on sockets that are there already: those that fit the configuration, and those that systemd chose.
pub async fn start_with(config: Config, sockets: Sockets) -> anyhow::Result<Running> {
    let opened = open(&config, None, &Arc::default())?;
    let prepared = Box::pin(prepare(config, Known::default(), sockets)).await?;
    Ok(Box::pin(prepared.answer(opened)).await?.open_doors())
}

/// The same on a store that comes from elsewhere, instead of the one that the configuration names.
pub async fn start_on(config: Config, opened: Opened) -> anyhow::Result<Running> {
    let prepared = Box::pin(prepare(config, Known::default(), Sockets::default())).await?;
    Ok(Box::pin(prepared.answer(opened)).await?.open_doors())
}

/// Starts a server in place of a running one, on its sockets and with its store.
pub async fn succeed(config: Config, sockets: Sockets, predecessor: &Predecessor) -> anyhow::Result<Running> {
    gently::beside_another();
    let prepared = Box::pin(prepare(config, Known::default(), sockets)).await?;
    let state = predecessor.prepared().await?;
    let opened = open_when_free(&prepared.config, state.as_ref(), &Arc::default()).await?;
    let answering = Box::pin(prepared.answer(opened)).await?;
    predecessor.ready().await;
    Ok(answering.open_doors())
}

/// Opens the store that the configuration names; one that keeps nothing begins with `state`.
fn open(config: &Config, state: Option<&File>, metrics: &Arc<Metrics>) -> anyhow::Result<Opened> {
    let (log_sender, log) = tokio::sync::mpsc::unbounded_channel();
    let (store, node_id): (Arc<dyn Store>, Uuid) = match (&config.data, state) {
        (Data::Ephemeral, None) => {
            (Arc::new(store::Ephemeral::new(log_sender, SystemTime::now())), Uuid::new_v4())
        }
        (Data::Ephemeral, Some(mut state)) => {
            state.rewind().context("reading the state of the server before")?;
            let known = gently(|| store::read_backup(state));
            let (known, id) = known.context("the state of the server before")?;
            (Arc::new(store::Ephemeral::after(log_sender, known)), id)
        }
        (Data::Dir(dir), _) => {
            let opened = store::Config { data_dir: dir.clone(), cache_bytes: config.cache_octets };
            let key = config.store_key.read()?;
            let store = store::Embedded::open_with_key(&opened, key.as_ref(), log_sender, metrics.clone())?;
            let id = store.node_id();
            (Arc::new(store), id)
        }
    };
    Ok(Opened { store, log, node_id, metrics: metrics.clone() })
}

/// The same of a store that another process has closed, which a reader there may hold for a moment yet.
async fn open_when_free(
    config: &Config,
    state: Option<&File>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Opened> {
    let deadline = Instant::now() + FREE_WITHIN;
    loop {
        match open(config, state, metrics) {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(OPEN_AGAIN).await,
            outcome => return outcome,
        }
    }
}

/// All that can be had before the store: zones, sockets, upstreams.
struct Prepared {
    config: Config,
    zones: Arc<Zones>,
    forwarder: Option<Forwarder>,
    dns: dns::Listeners,
    doors: Listeners,
    sockets: Sockets,
}

/// What HTTP is served on.
struct Listeners {
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    unix: Vec<(PathBuf, UnixListener)>,
    tls: Option<Arc<tls::Server>>,
    /// Unix sockets of the server before us that nobody will listen on.
    left: Vec<PathBuf>,
}

/// What a server that takes up its work again has read before.
#[derive(Default)]
struct Known {
    zones: Option<Arc<Zones>>,
    tls: Option<Arc<tls::Server>>,
}

/// Takes the sockets that fit the configuration and binds the others. Zones and certificates are read where they are not
/// known already.
async fn prepare(mut config: Config, known: Known, mut from: Sockets) -> anyhow::Result<Prepared> {
    let Known { zones, tls } = known;
    let zones = zones.map_or_else(|| gently(|| load_zones(&config)).map(Arc::new), Ok)?;
    let mut sockets = Sockets::default();
    let mut dns = dns::Listeners::default();
    for place in from.places(Door::Dns, &mut config.dns.listen)? {
        let (asked, bound) = match place {
            Place::Taken(entry) => {
                (entry.asked, dns::Listeners::inherited(entry.udp, entry.tcp, config.dns.udp_threads)?)
            }
            Place::Free(address) => (Some(address), dns::bind(&[address], config.dns.udp_threads)?),
        };
        let (udp, tcp) = bound.try_clone()?;
        sockets.entries.push(Entry { door: Door::Dns, asked, udp, tcp });
        dns.add(bound);
    }
    let doors = listen(&mut config, tls, &mut from, &mut sockets).await?;
    let forwarder =
        config.forward.as_ref().map(|forward| Forwarder::new(forward, &dns.addresses())).transpose()?;
    Ok(Prepared { config, zones, forwarder, dns, doors, sockets })
}

/// What HTTP is to be served on; handles on all of it are added to `sockets`.
async fn listen(
    config: &mut Config,
    mut tls: Option<Arc<tls::Server>>,
    from: &mut Sockets,
    sockets: &mut Sockets,
) -> anyhow::Result<Listeners> {
    let load = |config: &Config| -> anyhow::Result<_> {
        Ok(load_tls(config)?.map(|loaded| Arc::new(tls::Server::new(loaded))))
    };
    // Before anything is bound.
    if tls.is_none() {
        tls = load(config)?;
    }
    let http = listen_tcp(Door::Http, &mut config.http.listen, from, sockets).await?;
    let https = listen_tcp(Door::Https, &mut config.https.listen, from, sockets).await?;
    // Systemd may have named what is listened on.
    if tls.is_none() {
        tls = load(config)?;
    }
    let mut unix = Vec::new();
    for path in &config.http.unix {
        let listener = match from.take_unix(path) {
            Some(listener) => listener,
            None => handover::unix::listen(path, &config.http.unix_access)
                .with_context(|| format!("cannot listen for HTTP on unix://{}", path.display()))?,
        };
        sockets.unix.push((path.clone(), listener.try_clone()?));
        listener.set_nonblocking(true)?;
        unix.push((path.clone(), UnixListener::from_std(listener)?));
    }
    Ok(Listeners { http, https, unix, tls, left: from.paths() })
}

/// What TLS is spoken with, where HTTPS is listened for. Says what is not quite right.
fn load_tls(config: &Config) -> anyhow::Result<Option<tls::Loaded>> {
    if config.https.listen.is_empty() {
        return Ok(None);
    }
    let loaded = config.https.files.load().context("[https]")?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("[https] {warning}"));
    Ok(Some(loaded))
}

async fn listen_tcp(
    door: Door,
    listen: &mut Vec<SocketAddr>,
    from: &mut Sockets,
    sockets: &mut Sockets,
) -> anyhow::Result<Vec<TcpListener>> {
    let mut all = Vec::new();
    for place in from.places(door, listen)? {
        let (asked, listeners) = match place {
            Place::Taken(entry) => {
                (entry.asked, entry.tcp.into_iter().map(from_std).collect::<io::Result<_>>()?)
            }
            Place::Free(address) => (Some(address), vec![listen_http(address).await?]),
        };
        let tcp = listeners.iter().map(to_std).collect::<io::Result<_>>()?;
        sockets.entries.push(Entry { door, asked, udp: Vec::new(), tcp });
        all.extend(listeners);
    }
    Ok(all)
}

fn from_std(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Another handle.
fn to_std(listener: &TcpListener) -> io::Result<std::net::TcpListener> {
    Ok(listener.as_fd().try_clone_to_owned()?.into())
}

impl Prepared {
    /// Loads the registry, and answers DNS. The doors are still shut.
    async fn answer(self, opened: Opened) -> anyhow::Result<Answering> {
        let Self { config, zones, forwarder, dns, doors: listeners, sockets } = self;
        let Opened { store, log, node_id, metrics } = opened;
        let node_id = config.node_id.unwrap_or(node_id);
        let audit = Audit::start(&config.audit, config.node_name.as_str(), &metrics)?;
        let (traces, exporter) = otlp::start(&config.otlp, config.node_name.as_str(), &metrics)?;
        let (own, limits) = (config.own_node(node_id), config.limits.clone());
        let own = registry::Config { own, limits, audit: audit.clone() };
        let (registry, writer) = Registry::start(store.clone(), log, own, metrics.clone())?;
        registry.set_access(config.acl.clone(), &config.datacenter);
        registry.set_guard(config.guard.clone());
        registry.set_breaker(config.breaker.clone());
        registry.submit(file_definitions(&config)).await.context("definitions of the configuration file")?;
        // What the file defines has been there before.
        registry.set_slow_start(config.slow_start.clone());
        if gently::is_beside_another() {
            settle(&registry).await;
        }

        let doors = Tasks::new();
        let (asking, asked) = mpsc::channel(ASKED_WAITING_MAX);
        let checks = checks::run(
            registry.clone(),
            config.checks.clone(),
            metrics.clone(),
            traces.clone(),
            doors.shutdown.clone(),
        )?;
        let answering = Tasks::new();
        if let Some(exporter) = exporter {
            answering.all.spawn(exporter.run(answering.shutdown.clone()));
        }
        let dns_state = Arc::new(dns::State {
            registry: registry.clone(),
            settings: ArcSwap::from_pointee(config.dns_settings()),
            zones: ArcSwap::from(zones),
            forwarder,
            metrics: metrics.clone(),
            traces: traces.clone(),
            shutdown: answering.shutdown.clone(),
        });
        registry.tell_kept(dns_state.kept());
        let dns_addresses = dns.addresses();
        answering.all.spawn(dns::serve(dns, dns_state.clone()));
        let tls = listeners.tls.clone();
        let core = Core {
            config,
            node_id,
            registry,
            store,
            dns_state,
            answering,
            writer,
            sockets,
            tls,
            audit,
            traces,
        };
        let http_state = core.http_state(&doors, asking);
        let checks = Box::pin(checks);
        Ok(Answering { core, dns: dns_addresses, listeners, http_state, checks, doors, asked })
    }
}

impl Core {
    /// What the HTTP API works on.
    fn http_state(&self, doors: &Tasks, asked: mpsc::Sender<Asked>) -> Arc<http::State> {
        let explaining = self.dns_state.clone();
        Arc::new(http::State {
            registry: self.registry.clone(),
            config: ArcSwap::from_pointee(self.config.http_config(self.node_id)),
            metrics: self.dns_state.metrics.clone(),
            audit: self.audit.clone(),
            traces: self.traces.clone(),
            jwks: http::Jwks::default(),
            open: http::Open::default(),
            shutdown: doors.shutdown.clone(),
            leaving: OnceLock::new(),
            faces: http::Faces::default(),
            explainer: Box::new(move |inquiry, asker| explaining.explain(inquiry, asker)),
            asked,
        })
    }
}

/// Waits for the one change that a start makes, our own node, which touches all that is on it: what is derived from those
/// before would be of no use.
async fn settle(registry: &Registry) {
    let Ok(nobody) = ServiceName::parse("nobody") else { return };
    let begun = registry.snapshot().index_of(&Topic::Service(nobody));
    // A store that does not take it does not keep us from answering.
    let _ = registry.wait(&Topic::Nodes, begun, SETTLE_WITHIN).await;
}

/// A server that answers DNS, with its doors still shut.
struct Answering {
    core: Core,
    dns: Vec<SocketAddr>,
    listeners: Listeners,
    http_state: Arc<http::State>,
    checks: Pin<Box<dyn Future<Output = ()> + Send>>,
    doors: Tasks,
    asked: mpsc::Receiver<http::Asked>,
}

impl Answering {
    fn open_doors(self) -> Running {
        let Self { core, dns, listeners, http_state, checks, doors, asked } = self;
        let Listeners { http, https, unix, tls, left } = listeners;
        handover::unix::remove(&left);
        let addresses = |listeners: &[TcpListener]| {
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
        };
        let (http_addresses, https_addresses) = (addresses(&http), addresses(&https));
        doors.all.spawn(checks);
        let serve = |listener| doors.all.spawn(http::serve(listener, http_state.clone()));
        for listener in http {
            serve(http::Listener::Plain(listener));
        }
        for (listener, tls) in https.into_iter().zip(tls.iter().cycle()) {
            serve(http::Listener::Tls(listener, tls.clone()));
        }
        let mut paths = Vec::new();
        for (path, listener) in unix {
            paths.push(path);
            serve(http::Listener::Unix(listener));
        }
        let (http, https, unix) = (http_addresses, https_addresses, paths);
        Running { dns, http, https, unix, core, http_state, doors, asked }
    }
}

impl Running {
    /// Takes a new configuration, all or nothing. Returns the keys that differ but wait for the next start.
    pub async fn reload(&mut self, mut config: Config) -> anyhow::Result<Vec<&'static str>> {
        let core = &mut self.core;
        // Whoever moved the file away says so by a reload, whatever else comes of it.
        core.audit.reopen();
        let given = |door| core.sockets.entries.iter().any(|e| e.door == door && e.asked.is_none());
        if given(Door::Dns) {
            config.dns.listen = core.config.dns.listen.clone();
        }
        if given(Door::Http) {
            config.http.listen = core.config.http.listen.clone();
        }
        if given(Door::Https) {
            config.https.listen = core.config.https.listen.clone();
        }
        let waiting = config.keep_started(&core.config);
        let read = move || (load_zones(&config), load_tls(&config), config);
        let (zones, loaded, config) = tokio::task::spawn_blocking(read).await?;
        let (zones, loaded) = (zones?, loaded?);
        core.registry.set_limits(config.limits.clone());
        if let Err(refused) = core.registry.submit(file_definitions(&config)).await {
            core.registry.set_limits(core.config.limits.clone());
            return Err(refused).context("definitions of the configuration file");
        }
        core.dns_state.zones.store(Arc::new(zones));
        core.dns_state.settings.store(Arc::new(config.dns_settings()));
        core.registry.set_access(config.acl.clone(), &config.datacenter);
        core.registry.set_guard(config.guard.clone());
        core.registry.set_slow_start(config.slow_start.clone());
        core.registry.set_breaker(config.breaker.clone());
        self.http_state.reconfigure(config.http_config(core.node_id));
        if let (Some(tls), Some(loaded)) = (&core.tls, loaded) {
            tls.replace(loaded);
        }
        core.traces.set_sampling(config.otlp.sampling);
        core.config = config;
        Ok(waiting)
    }

    /// The next thing that a request asks of whoever runs the server.
    pub async fn asked(&mut self) -> http::Asked {
        tokio::select! {
            Some(asked) = self.asked.recv() => asked,
            () = self.core.registry.ended() => Asked::End,
        }
    }

    /// The registry, for callers in this process.
    pub fn registry(&self) -> &Registry {
        &self.core.registry
    }

    /// Where definitions are kept.
    pub fn data(&self) -> &Data {
        &self.core.config.data
    }

    /// Other handles on all that is listened on.
    pub fn sockets(&self) -> io::Result<Sockets> {
        self.core.sockets.try_clone()
    }

    /// Says at `/ready` that it will stop, and for how long it is to go on until then; nothing else changes.
    pub fn leave(&self) -> Duration {
        let lame_duck = self.core.config.lame_duck;
        // It may have been told before.
        let _ = self.http_state.leaving.set(Instant::now() + lame_duck);
        lame_duck
    }

    /// Takes no more changes: requests under way are answered, probes taken back, and what was acknowledged is on disk and
    /// the store closed when it returns. Connections that come wait in their queue; DNS is answered on.
    pub async fn close_doors(self) -> Closed {
        let Self { mut core, doors, .. } = self;
        doors.end().await;
        core.registry.close();
        if tokio::time::timeout(STOP_WITHIN, &mut core.writer).await.is_err() {
            tracing::warn!("changes were still waiting for the disk after {STOP_WITHIN:?} and are given up");
            core.writer.abort();
        }
        let (store, audit) = (core.store.clone(), core.audit.clone());
        let close = move || {
            store.close();
            audit.flush();
        };
        if let Err(error) = tokio::task::spawn_blocking(close).await {
            tracing::error!("closing the store: {error}");
        }
        Closed { core }
    }

    /// Ends: no more is accepted, what is under way is answered, and what was acknowledged is on disk when it returns.
    pub async fn stop(mut self) {
        // What comes from now on is refused at once.
        let sockets = std::mem::take(&mut self.core.sockets);
        handover::unix::remove(&sockets.paths());
        drop(sockets);
        self.close_doors().await.stop().await;
    }
}

/// A server that answers DNS from what it knew when its doors were closed.
pub struct Closed {
    core: Core,
}

impl Closed {
    /// What a server that keeps nothing has in memory, for one that comes after it; `None` where a store has it.
    pub fn state(&self) -> anyhow::Result<Option<File>> {
        if self.core.config.data != Data::Ephemeral {
            return Ok(None);
        }
        let mut file = BufWriter::new(handover::scratch()?);
        store::write_backup(&self.core.registry.snapshot().stored(), self.core.node_id, &mut file)?;
        Ok(Some(file.into_inner().context("keeping the state")?))
    }

    /// Takes up its work again, with the store as it is by now. Until that succeeds, DNS is answered as before. `None` when
    /// it was stopped meanwhile, and then has ended.
    pub async fn open_again(self, state: Option<&File>, stopped: &CancellationToken) -> Option<Running> {
        while !stopped.is_cancelled() {
            match self.reopened(state).await {
                Ok(answering) => {
                    self.core.answering.end().await;
                    return Some(answering.open_doors());
                }
                Err(error) => tracing::error!("no changes are taken: {error:#}"),
            }
            tokio::select! {
                () = tokio::time::sleep(RESUME_AGAIN) => {}
                () = stopped.cancelled() => {}
            }
        }
        handover::unix::remove(&self.core.sockets.paths());
        self.stop().await;
        None
    }

    async fn reopened(&self, state: Option<&File>) -> anyhow::Result<Answering> {
        let Core { config, dns_state, sockets, tls, .. } = &self.core;
        gently::beside_another();
        let known = Known { zones: Some(dns_state.zones.load_full()), tls: tls.clone() };
        let prepared = prepare(config.clone(), known, sockets.try_clone()?).await?;
        let opened = open_when_free(config, state, &dns_state.metrics).await?;
        prepared.answer(opened).await
    }

    /// Stops answering.
    pub async fn stop(self) {
        self.core.answering.end().await;
    }
}

impl Tasks {
    fn new() -> Self {
        Self { all: TaskTracker::new(), shutdown: CancellationToken::new() }
    }

    async fn end(&self) {
        self.shutdown.cancel();
        self.all.close();
        if tokio::time::timeout(STOP_WITHIN, self.all.wait()).await.is_err() {
            tracing::warn!("connections were still open after {STOP_WITHIN:?} and are cut");
        }
    }
}

fn file_definitions(config: &Config) -> Command {
    let services = config.services.iter().cloned();
    let (instances, checks): (Vec<_>, Vec<_>) = services.unzip();
    let checks = checks.into_iter().flatten().chain(config.node_checks.iter().cloned()).collect();
    Command::SetFileDefinitions { instances, checks }
}

/// Loads the static zones; errs with everything that is wrong in any of them.
pub fn load_zones(config: &Config) -> anyhow::Result<Zones> {
    let sources: Vec<_> =
        config.zones.iter().map(|zone| Source { name: zone.name.clone(), file: zone.file.clone() }).collect();
    let zones = Zones::load(&sources, &config.domains()).map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })?;
    zones.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(zones)
}

async fn listen_http(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; another server has it: stop that one, or choose another with --http"
            }
            std::io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
            _ => "",
        };
        anyhow::anyhow!("cannot listen for HTTP on {address}: {error}{remedy}")
    })
}
