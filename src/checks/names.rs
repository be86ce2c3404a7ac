//! The addresses of names, remembered as long as their records say.
//!
//! Names are looked up as the machine does it: `/etc/hosts` first, then the servers and search domains of
//! `/etc/resolv.conf`, and what neither knows is left to the C library, which may know other places (`nsswitch.conf`). The
//! way over DNS is our own (hickory's) because the C library tells no TTL, and because a lookup there blocks a thread that
//! a probe which ends cannot take back. Both files are read again when they changed.
//!
//! Probes of one name share one lookup. An address that does not answer is forgotten: whoever has moved before the TTL was
//! over is found at the next probe. Failures, that there is no such name among them, are remembered for [`FAILURE_KEPT`] only,
//! whatever their TTL (RFC 2308 section 5 lets one remember less): a check that is registered before its name is in DNS
//! would else stay critical for as long as the zone's SOA says.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ServerOrderingStrategy};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::telemetry::Metrics;

/// How long a failure is remembered.
const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// How long is remembered what has no TTL: from the hosts file and the C library.
const TIMELESS_KEPT: Duration = Duration::from_secs(5);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 16;
/// Names looked up at once: many, since those of a zone whose servers are silent take ten seconds each. Each has two sockets.
const LOOKUPS_MAX: usize = 1024;
/// Of them by the C library; half of tokio's threads for what blocks.
const THREADS_MAX: usize = 256;
/// How often what is no longer of use is cleared away, at most: it means looking at every name.
const CLEARED_EVERY: Duration = Duration::from_secs(1);

/// The addresses of a name, at least one, with port 0.
pub(super) type Found = Result<Arc<[SocketAddr]>, Failed>;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    NoSuchHost,
    Because(Arc<str>),
}

/// Where the machine says how names are looked up.
#[derive(Debug, Clone)]
pub(super) struct Files {
    hosts: PathBuf,
    resolv: PathBuf,
    /// Of the name servers.
    port: u16,
}

impl Default for Files {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv: "/etc/resolv.conf".into(), port: 53 }
    }
}

pub(super) struct Names {
    max: usize,
    files: Files,
    known: Mutex<Known>,
    system: Mutex<Arc<System>>,
    places: Semaphore,
    threads: Semaphore,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Known {
    names: HashMap<Box<str>, Entry>,
    cleared: Option<Instant>,
}

enum Entry {
    Known {
        found: Found,
        since: Instant,
        until: Instant,
    },
    /// Somebody asks.
    Asked(watch::Receiver<Option<Found>>),
}

impl Entry {
    fn is_of_use(&self, now: Instant) -> bool {
        match self {
            Self::Known { until, .. } => *until > now,
            Self::Asked(answer) => answer.has_changed().is_ok(),
        }
    }
}

impl Names {
    /// Remembers at most `max` names.
    pub(super) fn new(max: usize, files: Files, metrics: Arc<Metrics>) -> Arc<Self> {
        let system = Mutex::new(Arc::new(System::read(&files)));
        let (places, threads) = (Semaphore::new(LOOKUPS_MAX), Semaphore::new(THREADS_MAX));
        Arc::new(Self { max, files, known: Mutex::default(), system, places, threads, metrics })
    }

    /// The addresses of a name. No time limit of its own.
    pub(super) async fn find(self: &Arc<Self>, name: &str) -> Found {
        let mut answer = match self.begin(name) {
            Ok(found) => return found,
            Err(answer) => answer,
        };
        match answer.wait_for(Option::is_some).await.map(|found| found.clone()) {
            Ok(Some(found)) => found,
            _ => Err(Failed::Because("the lookup ended without an answer".into())),
        }
    }

    /// What is known, or where the answer will come.
    fn begin(self: &Arc<Self>, name: &str) -> Result<Found, watch::Receiver<Option<Found>>> {
        let now = Instant::now();
        let mut known = self.known.lock();
        match known.names.get(name).filter(|entry| entry.is_of_use(now)) {
            Some(Entry::Known { found, .. }) => return Ok(found.clone()),
            Some(Entry::Asked(answer)) => return Err(answer.clone()),
            None => {}
        }
        let (tell, answer) = watch::channel(None);
        if known.cleared.is_none_or(|cleared| now.duration_since(cleared) >= CLEARED_EVERY) {
            known.names.retain(|_, entry| entry.is_of_use(now));
            known.cleared = Some(now);
        }
        let room = known.names.len() < self.max || known.names.contains_key(name);
        if room {
            known.names.insert(name.into(), Entry::Asked(answer.clone()));
        } else {
            self.metrics.limits.hit("names_max");
        }
        self.metrics.checks.names.set(known.names.len() as i64);
        // A task, so that a probe that ends does not take the answer from others.
        let (names, name) = (self.clone(), name.into());
        tokio::spawn(async move { names.ask(name, tell, room).await });
        Err(answer)
    }

    async fn ask(&self, name: Box<str>, tell: watch::Sender<Option<Found>>, room: bool) {
        // Never closed.
        let _place = self.places.acquire().await;
        let (found, kept) = match self.system().find(&name).await {
            Some(found) => found,
            None => {
                let _thread = self.threads.acquire().await;
                libc(&name).await
            }
        };
        self.metrics.checks.looked_up(if found.is_ok() { "found" } else { "failed" });
        if room {
            let since = Instant::now();
            let entry = Entry::Known { found: found.clone(), since, until: since + kept };
            self.known.lock().names.insert(name, entry);
        }
        tell.send_replace(Some(found));
    }

    /// No address of this name answers: it may have others by now. What was learnt just now stays.
    pub(super) fn forget(&self, name: &str) {
        let mut known = self.known.lock();
        if let Some(Entry::Known { since, .. }) = known.names.get(name)
            && since.elapsed() >= FAILURE_KEPT
        {
            known.names.remove(name);
        }
    }

    /// What the files say now.
    fn system(&self) -> Arc<System> {
        let mut system = self.system.lock();
        if system.stamps != self.files.stamps() {
            *system = Arc::new(System::read(&self.files));
        }
        system.clone()
    }
}

impl Files {
    /// When they were changed.
    fn stamps(&self) -> [Option<SystemTime>; 2] {
        [&self.hosts, &self.resolv].map(|path| path.metadata().and_then(|data| data.modified()).ok())
    }
}

/// What the files said when they were read.
struct System {
    stamps: [Option<SystemTime>; 2],
    hosts: Hosts,
    /// Absent where no name server is known.
    resolver: Option<TokioResolver>,
}

impl System {
    fn read(files: &Files) -> Self {
        let stamps = files.stamps();
        let mut hosts = Hosts::default();
        let read = File::open(&files.hosts).and_then(|file| hosts.read_hosts_conf(file));
        if let Err(error) = read {
            tracing::debug!("{}: {error}", files.hosts.display());
        }
        let resolver = resolver(files);
        if let Err(error) = &resolver {
            tracing::debug!("{}: {error}", files.resolv.display());
        }
        Self { stamps, hosts, resolver: resolver.ok() }
    }

    /// The addresses of a name, and how long that is worth remembering; `None` if only the C library may know.
    async fn find(&self, name: &str) -> Option<(Found, Duration)> {
        let parsed = Name::from_utf8(name).ok()?;
        let listed: Vec<_> = [RecordType::AAAA, RecordType::A]
            .into_iter()
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(parsed.clone(), kind)))
            .flat_map(|lookup| addresses(lookup.answers().iter().filter_map(|record| record.data.ip_addr())))
            .collect();
        if !listed.is_empty() {
            return Some((Ok(in_order(listed)), TIMELESS_KEPT));
        }
        match self.resolver.as_ref()?.lookup_ip(parsed).await {
            Ok(lookup) => {
                // The least of a chain of aliases and its end.
                let ttl = lookup.as_lookup().answers().iter().map(|record| record.ttl).min()?;
                let found = addresses(lookup.iter());
                let ttl = Duration::from_secs(ttl.into());
                (!found.is_empty()).then(|| (Ok(in_order(found)), ttl))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => None,
            Err(NetError::Timeout) => Some((Err(Failed::Because("i/o timeout".into())), FAILURE_KEPT)),
            Err(error) => {
                tracing::debug!(name, "a lookup failed: {error}");
                Some((Err(Failed::Because("server misbehaving".into())), FAILURE_KEPT))
            }
        }
    }
}

/// Servers are asked in the order of the file, one after the other, as the C library does: a later one may know less.
fn resolver(files: &Files) -> Result<TokioResolver, NetError> {
    let (mut config, mut options) = system_conf::parse_resolv_conf(std::fs::read(&files.resolv)?)?;
    for connection in config.name_servers.iter_mut().flat_map(|server| &mut server.connections) {
        connection.port = files.port;
    }
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    options.use_hosts_file = ResolveHosts::Never;
    // What is remembered is ours to say.
    options.cache_size = 0;
    options.try_tcp_on_error = true;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

fn addresses(found: impl Iterator<Item = IpAddr>) -> Vec<SocketAddr> {
    found.map(|address| SocketAddr::new(address, 0)).take(ADDRESSES_MAX).collect()
}

/// Those to which there is a way first (RFC 6724 section 6, rule 1), else as they came.
fn in_order(mut found: Vec<SocketAddr>) -> Arc<[SocketAddr]> {
    let leads_nowhere = |to: &SocketAddr| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        // Connecting a datagram socket sends nothing.
        UdpSocket::bind(any).and_then(|socket| socket.connect((to.ip(), 9))).is_err()
    };
    if found.len() > 1 {
        found.sort_by_cached_key(leads_nowhere);
    }
    found.into()
}

/// As the C library finds it. Its thread is not taken back when nobody waits any more.
async fn libc(name: &str) -> (Found, Duration) {
    let owned = name.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        (owned.as_str(), 0).to_socket_addrs().map(|found| found.take(ADDRESSES_MAX).collect::<Vec<_>>())
    });
    match found.await.map_err(io::Error::from).flatten() {
        Ok(found) if found.is_empty() => (Err(Failed::NoSuchHost), FAILURE_KEPT),
        Ok(found) => (Ok(found.into()), TIMELESS_KEPT),
        Err(error) => {
            let why = error.to_string();
            let why = why.strip_prefix("failed to lookup address information: ").unwrap_or(&why);
            // What getaddrinfo says where Go says that there is no such host.
            let unknown =
                ["Name or service not known", "No address associated with hostname", "Name does not resolve"];
            let known = if unknown.contains(&why) { Failed::NoSuchHost } else { Failed::Because(why.into()) };
            (Err(known), FAILURE_KEPT)
        }
    }
}

#[cfg(test)]
mod tests;
