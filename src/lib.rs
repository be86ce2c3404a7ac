//! Rollcall: a DNS server that answers for the services that are alive.
//!
//! [`start`] puts the rooms together: it opens the store, loads the registry, binds, starts, and returns the addresses and
//! a handle. Nothing else knows more than one of the doors (`dns`, `http`, `checks`). The caller decides when to
//! stop and when to reload; a test starts a whole server on port 0 in a line.

pub mod checks;
pub mod cli;
pub mod config;
pub mod dns;
pub mod http;
pub mod model;
pub mod registry;
pub mod select;
pub mod store;
pub mod telemetry;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use config::{Config, Data};
use dns::forward::Forwarder;
use dns::zone::{Source, Zones};
use registry::{Command, Registry};
use store::Store;
use telemetry::Metrics;

/// How long tasks may take to end at a stop before they are left behind.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A server that answers.
pub struct Running {
    /// Where DNS is answered, with real ports; UDP and TCP have the same.
    pub dns: Vec<SocketAddr>,
    pub http: Vec<SocketAddr>,
    config: Config,
    node_id: Uuid,
    registry: Registry,
    store: Arc<dyn Store>,
    dns_state: Arc<dns::State>,
    http_state: Arc<http::State>,
    tasks: TaskTracker,
    writer: JoinHandle<()>,
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
    let opened = open(&config)?;
    start_on(config, opened).await
}

/// Opens the store that the configuration names.
fn open(config: &Config) -> anyhow::Result<Opened> {
    let metrics = Arc::new(Metrics::default());
    let (log_sender, log) = tokio::sync::mpsc::unbounded_channel();
    let (store, node_id): (Arc<dyn Store>, Uuid) = match &config.data {
        Data::Ephemeral => (Arc::new(store::Ephemeral::new(log_sender, SystemTime::now())), Uuid::new_v4()),
        Data::Dir(dir) => {
            let opened = store::Config { data_dir: dir.clone(), cache_bytes: config.cache_octets };
            let store = store::Embedded::open(&opened, log_sender, metrics.clone())?;
            let id = store.node_id();
            (Arc::new(store), id)
        }
    };
    Ok(Opened { store, log, node_id, metrics })
}

/// The same on a store that comes from elsewhere, instead of the one that the configuration names.
pub async fn start_on(config: Config, opened: Opened) -> anyhow::Result<Running> {
    let Opened { store, log, node_id, metrics } = opened;
    let zones = load_zones(&config)?;
    let node_id = config.node_id.unwrap_or(node_id);
    let own = registry::Config { own: config.own_node(node_id), limits: config.limits.clone() };
    let (registry, writer) = Registry::start(store.clone(), log, own, metrics.clone())?;
    registry.submit(file_definitions(&config)).await.context("definitions of the configuration file")?;

    let listeners = dns::bind(&config.dns.listen, config.dns.udp_threads)?;
    let dns_addresses = listeners.addresses();
    let forwarder =
        config.forward.as_ref().map(|forward| Forwarder::new(forward, &dns_addresses)).transpose()?;
    let mut http_listeners = Vec::new();
    for address in &config.http.listen {
        http_listeners.push(listen_http(*address).await?);
    }
    let http_addresses = http_listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;

    let shutdown = CancellationToken::new();
    let dns_state = Arc::new(dns::State {
        registry: registry.clone(),
        settings: ArcSwap::from_pointee(config.dns_settings()),
        zones: ArcSwap::from_pointee(zones),
        forwarder,
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    });
    let http_state = Arc::new(http::State {
        registry: registry.clone(),
        config: ArcSwap::from_pointee(config.http_config(node_id)),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    });
    let tasks = TaskTracker::new();
    tasks.spawn(checks::run(registry.clone(), config.checks.clone(), metrics, shutdown.clone())?);
    tasks.spawn(dns::serve(listeners, dns_state.clone()));
    for listener in http_listeners {
        tasks.spawn(http::serve(listener, http_state.clone()));
    }
    tasks.close();
    Ok(Running {
        dns: dns_addresses,
        http: http_addresses,
        config,
        node_id,
        registry,
        store,
        dns_state,
        http_state,
        tasks,
        writer,
        shutdown,
    })
}

impl Running {
    /// Takes a new configuration, all or nothing. Returns the keys that differ but wait for the next start.
    pub async fn reload(&mut self, mut config: Config) -> anyhow::Result<Vec<&'static str>> {
        let waiting = config.keep_started(&self.config);
        let (zones, config) = tokio::task::spawn_blocking(move || (load_zones(&config), config)).await?;
        let zones = zones?;
        self.registry.set_limits(config.limits.clone());
        if let Err(refused) = self.registry.submit(file_definitions(&config)).await {
            self.registry.set_limits(self.config.limits.clone());
            return Err(refused).context("definitions of the configuration file");
        }
        self.dns_state.zones.store(Arc::new(zones));
        self.dns_state.settings.store(Arc::new(config.dns_settings()));
        self.http_state.config.store(Arc::new(config.http_config(self.node_id)));
        self.config = config;
        Ok(waiting)
    }

    /// The registry, for callers in this process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Ends: no more is accepted, what is under way is answered, and what was acknowledged is on disk when it returns.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await;
        if ended.is_err() {
            tracing::warn!("connections were still open after {STOP_WITHIN:?} and are cut");
        }
        let Self { registry, store, dns_state, http_state, writer, .. } = self;
        // The writer ends with the last handle, or is ended where something held on to one.
        drop((registry, dns_state, http_state));
        let abort = writer.abort_handle();
        if tokio::time::timeout(STOP_WITHIN, writer).await.is_err() {
            abort.abort();
        }
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        if let Err(error) = closed {
            tracing::error!("closing the store: {error}");
        }
    }
}

fn file_definitions(config: &Config) -> Command {
    let services = config.services.iter().cloned();
    let (instances, checks): (Vec<_>, Vec<_>) = services.unzip();
    Command::SetFileDefinitions { instances, checks: checks.into_iter().flatten().collect() }
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
