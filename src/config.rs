//! The configuration: files, defaults, and what they come to for each room.
//!
//! [`keys`] is one table of every key: its form, default, meaning and how it is taken. The reference in
//! `docs/configuration.md` is printed from it, so neither can be ahead of the other. [`read`] walks a file and reports
//! every error at once, each with its line. Flags and the environment are laid over the result by the caller.

mod consul;
mod definitions;
pub mod keys;
mod own;
mod read;
pub mod reference;
mod rooms;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use uuid::Uuid;

use crate::model::{Address, Check, Instance, NodeName, private};
use crate::telemetry::logs;
use crate::{acl, audit, checks, dns, filter, handover, otlp, registry, select, store, tls};

pub use rooms::node_address;
pub use value::http_listen;

/// Everything that can be configured; a new one holds the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub node_name: NodeName,
    /// The store's own, made once, where it is absent.
    pub node_id: Option<Uuid>,
    /// From the listeners' addresses where it is absent.
    pub node_address: Option<Address>,
    pub node_meta: BTreeMap<String, String>,
    /// In lower case.
    pub datacenter: String,
    pub data: Data,
    /// Between the word to stop and the end.
    pub lame_duck: Duration,
    pub dns: Dns,
    pub http: Http,
    pub https: Https,
    pub checks: checks::Config,
    /// Nobody's questions are forwarded where it is absent.
    pub forward: Option<dns::forward::Config>,
    pub locality: Locality,
    pub limits: registry::Limits,
    /// Of `[guard]`.
    pub guard: registry::guard::Settings,
    /// Of `[breaker]`.
    pub breaker: registry::breaker::Settings,
    /// Of `[slow_start]`.
    pub slow_start: registry::ramps::Settings,
    pub acl: acl::Config,
    /// Of `?filter=` expressions.
    pub filter: filter::Limits,
    /// Memory for the store's pages.
    pub cache_octets: usize,
    /// What the store is encrypted with.
    pub store_key: store::KeySource,
    pub log: logs::Config,
    pub audit: audit::Config,
    pub otlp: otlp::Config,
    pub zones: Vec<Zone>,
    /// Definitions that the files own.
    pub services: Vec<(Instance, Vec<Check>)>,
    /// Checks of our own node that the files own.
    pub node_checks: Vec<Check>,
    /// What is not wrong, and should be known.
    pub warnings: Vec<String>,
}

/// Where definitions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// In this directory.
    Dir(PathBuf),
    /// Nowhere.
    Ephemeral,
}

/// `[dns]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dns {
    pub listen: Vec<SocketAddr>,
    /// First the main one, then the others.
    pub domain: dns::Name,
    pub alt_domains: Vec<dns::Name>,
    pub ttl: Duration,
    pub service_ttl: Vec<(String, Duration)>,
    pub a_limit: Vec<(String, usize)>,
    pub nearest: Vec<(String, usize)>,
    /// 0 means one for each core.
    pub udp_threads: usize,
    pub payload: u16,
    pub tcp: dns::TcpLimits,
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Http {
    pub listen: Vec<SocketAddr>,
    /// Paths of Unix sockets.
    pub unix: Vec<PathBuf>,
    pub unix_access: handover::unix::Access,
    pub allowed_hosts: Vec<String>,
    pub ui: bool,
    pub body_max: usize,
    pub connections_max: usize,
    pub connections_per_client_max: usize,
    pub idle: Duration,
    pub body_wait: Duration,
    pub import_max: usize,
    pub write_wait: Duration,
    /// Of `[limits]`.
    pub streams_max: usize,
    pub backups_max: usize,
    pub requests_per_client_max: usize,
    pub events_max: usize,
    pub drains_max: usize,
    /// Of `[limits]`.
    pub monitors_max: usize,
    pub monitor_lines_max: usize,
}

/// `[locality]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Locality {
    /// Where this server is.
    pub own: Option<crate::model::Locality>,
    pub clients: select::near::Clients,
    /// Whose word on the network of its clients is taken (RFC 7871).
    pub client_subnet_from: Vec<IpNet>,
}

/// `[https]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Https {
    pub listen: Vec<SocketAddr>,
    /// Empty paths are absent ones.
    pub files: tls::Files,
    pub handshake_wait: Duration,
    pub handshakes_max: usize,
    pub handshakes_per_client_max: usize,
}

/// Something that `[http] listen` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Https {
    fn check(&self) -> Option<String> {
        let tls::Files { cert, key, client_ca, client_crl, .. } = &self.files;
        let none = |path: &Path| path.as_os_str().is_empty();
        if !self.listen.is_empty() && (none(cert) || none(key)) {
            return Some("[https] listen needs cert_file and key_file".to_owned());
        }
        let lone = client_crl.is_some() && client_ca.is_none();
        lone.then(|| {
            "[https] client_crl_file needs client_ca_file: else no client shows a certificate".to_owned()
        })
    }
}

impl Http {
    /// Puts these in place of what is listened on.
    pub fn listen_on(&mut self, all: Vec<Listen>) {
        (self.listen, self.unix) = (Vec::new(), Vec::new());
        for one in all {
            match one {
                Listen::Tcp(address) => self.listen.push(address),
                Listen::Unix(path) => self.unix.push(path),
            }
        }
    }
}

/// One `[[zone]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    pub name: dns::Name,
    pub file: PathBuf,
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// From 1; 0 where it is the file as a whole.
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.line {
            0 => write!(f, "{file}: {}", self.reason),
            line => write!(f, "{file}:{line}: {}", self.reason),
        }
    }
}

impl Config {
    /// Reads files, or directories of `*.toml` files and Consul's `*.json` in the order of their names. A later file's key replaces an earlier one's;
    /// services and zones add up. Errs with everything that is wrong.
    pub fn load(sources: &[PathBuf]) -> Result<Self, Vec<ConfigError>> {
        let (config, errors) = Self::read(sources);
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }

    /// What can be made of the files, and everything that is wrong in them, in the order of its places.
    pub fn read(sources: &[PathBuf]) -> (Self, Vec<ConfigError>) {
        let (mut config, mut errors) = (Self::default(), Vec::new());
        let mut texts = Vec::new();
        for source in sources {
            match files(source) {
                Ok(files) => texts.extend(files),
                Err(error) => errors.push(error),
            }
        }
        // Definitions need what stands in any of the files (the node's name, whether scripts run), so they come last.
        let mut later = Vec::new();
        for (file, text) in &texts {
            let is = |kind: &str| file.extension().is_some_and(|extension| extension == kind);
            let keys = if is("json") { consul::keys } else { read::keys };
            let before = config.acl.clone();
            later.extend(keys(&mut config, file, text, &mut errors));
            if config.acl.secrets() != before.secrets() {
                let data = std::fs::metadata(file).ok();
                let remedy = data.and_then(|data| private::remedy(&data, nix::unistd::geteuid().as_raw()));
                let warning = |remedy| format!("{}, which holds tokens, {remedy}", file.display());
                config.warnings.extend(remedy.map(warning));
            }
        }
        definitions::take(&mut config, later, &mut errors);
        errors.extend(config.check().into_iter().map(|reason| {
            let file = sources.first().cloned().unwrap_or_default();
            ConfigError { file, line: 0, reason }
        }));
        errors.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        (config, errors)
    }

    /// What is wrong between keys that are right one by one.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let domains = self.domains();
        for (at, domain) in domains.iter().enumerate() {
            if domains[..at].contains(domain) {
                wrong.push(format!("[dns] {domain} is named twice among domain and alt_domains"));
            }
        }
        if self.dns.listen.is_empty() {
            wrong.push("[dns] listen is empty: name at least one address".to_owned());
        }
        if self.http.listen.is_empty() && self.http.unix.is_empty() && self.https.listen.is_empty() {
            wrong.push(
                "[http] listen is empty, and so is [https] listen: name at least one address".to_owned(),
            );
        }
        wrong.extend(self.https.check());
        wrong
    }

    /// Gives our node another name, and the definitions of the files with it.
    pub fn rename_node(&mut self, name: &NodeName) {
        self.node_name = name.clone();
        for (instance, checks) in &mut self.services {
            instance.node = name.clone();
            checks.iter_mut().for_each(|check| check.node = name.clone());
        }
        self.node_checks.iter_mut().for_each(|check| check.node = name.clone());
    }

    /// All domains that live names stand in, the main one first.
    pub fn domains(&self) -> Vec<dns::Name> {
        std::iter::once(&self.dns.domain).chain(&self.dns.alt_domains).cloned().collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            node_name: rooms::host_name(),
            node_id: None,
            node_address: None,
            node_meta: BTreeMap::new(),
            datacenter: String::new(),
            lame_duck: Duration::ZERO,
            data: Data::Dir(rooms::state_dir()),
            dns: Dns {
                listen: Vec::new(),
                domain: dns::Name::root(),
                alt_domains: Vec::new(),
                ttl: Duration::ZERO,
                service_ttl: Vec::new(),
                a_limit: Vec::new(),
                nearest: Vec::new(),
                udp_threads: 0,
                payload: 0,
                tcp: dns::TcpLimits::default(),
            },
            http: Http::default(),
            https: Https::default(),
            checks: checks::Config::default(),
            forward: None,
            locality: Locality::default(),
            limits: registry::Limits::default(),
            guard: registry::guard::Settings::default(),
            breaker: registry::breaker::Settings::default(),
            slow_start: registry::ramps::Settings::default(),
            acl: acl::Config::default(),
            filter: filter::Limits { octets_max: 0, matches_max: 0 },
            cache_octets: 0,
            store_key: Default::default(),
            log: logs::Config::default(),
            audit: audit::Config::default(),
            otlp: otlp::Config::default(),
            zones: Vec::new(),
            services: Vec::new(),
            node_checks: Vec::new(),
            warnings: Vec::new(),
        };
        keys::set_defaults(&mut config);
        config
    }
}

/// The files that a source stands for, with their texts.
fn files(source: &Path) -> Result<Vec<(PathBuf, String)>, ConfigError> {
    let failed = |file: &Path, e: std::io::Error| ConfigError {
        file: file.to_owned(),
        line: 0,
        reason: format!("cannot be read: {e}"),
    };
    let mut paths = vec![source.to_owned()];
    if source.is_dir() {
        let entries = std::fs::read_dir(source).map_err(|e| failed(source, e))?;
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(|e| failed(source, e))?;
        paths = entries.into_iter().map(|entry| entry.path()).collect();
        let is = |path: &Path, kind: &str| path.extension().is_some_and(|extension| extension == kind);
        if let Some(hcl) = paths.iter().find(|path| is(path, "hcl")) {
            // It may define services, or close what would be open without it.
            let reason = "HCL is not read: write it as JSON, which Consul reads as well, or keep it out of this directory";
            return Err(ConfigError { file: hcl.clone(), line: 0, reason: reason.to_owned() });
        }
        paths.retain(|path| is(path, "toml") || is(path, "json"));
        paths.sort();
    }
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(e) => Err(failed(&path, e)),
    };
    paths.into_iter().map(read).collect()
}
