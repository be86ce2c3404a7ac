//! Health checks: what to do, how to judge it, and the status that comes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::{CheckId, CheckKey, InstanceId, NodeName, Origin};

/// How the output of a check begins that passes and is held critical, since it fell too often.
pub const HELD: &str = "Held critical:";

/// What a check says. Ordered from best to worst, so that the maximum is the aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Passing,
    Warning,
    Critical,
}

impl Status {
    /// Consul's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Parses Consul's word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Passing, Self::Warning, Self::Critical].into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The definition of one health check, of an instance or (without `instance`) of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub node: NodeName,
    pub id: CheckId,
    /// The instance that is checked; the whole node where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    #[serde(flatten)]
    pub terms: Arc<Terms>,
}

/// Octets of a check's output that are kept at most.
pub const OUTPUT_OCTETS_MAX: usize = 4096;

/// What a check does, how often, and how it is judged. Checks of one service often have the same, and then share them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Terms {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    pub kind: CheckKind,
    /// From the end of one probe to the start of the next; zero for kinds that do not probe.
    #[serde(with = "duration::text", default)]
    pub interval: Duration,
    /// How long one probe may take.
    #[serde(with = "duration::text", default)]
    pub timeout: Duration,
    /// Consecutive results needed before the status changes; 0 counts as 1.
    #[serde(default)]
    pub success_before_passing: u32,
    /// 0 means as `failures_before_critical`.
    #[serde(default)]
    pub failures_before_warning: u32,
    #[serde(default)]
    pub failures_before_critical: u32,
    /// What of the damping of flaps is said of this check alone; few have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damping: Option<Box<Damping>>,
    /// The instance is deregistered after it was critical for so long.
    #[serde(with = "duration::option", default, skip_serializing_if = "Option::is_none")]
    pub deregister_after: Option<Duration>,
    /// Octets of output that are kept.
    pub output_max: usize,
    /// The status before the first result. Catalog registrations set the status itself with it.
    pub initial: Status,
    #[serde(default)]
    pub origin: Origin,
}

impl Terms {
    /// Of a check that nobody probes: its status is told to us, or follows something else.
    pub fn unprobed(kind: CheckKind, initial: Status, origin: Origin) -> Self {
        Self {
            name: String::new(),
            notes: String::new(),
            kind,
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            success_before_passing: 0,
            failures_before_warning: 0,
            failures_before_critical: 0,
            damping: None,
            deregister_after: None,
            output_max: OUTPUT_OCTETS_MAX,
            initial,
            origin,
        }
    }
}

impl Deref for Check {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

impl Check {
    /// The same check on terms that differ in what `change` sets.
    pub fn with(mut self, change: impl FnOnce(&mut Terms)) -> Self {
        change(Arc::make_mut(&mut self.terms));
        self
    }

    /// Whether results come from work of our own: not from a client's updates, nor from outside.
    pub fn is_probe(&self) -> bool {
        !matches!(self.kind, CheckKind::Ttl { .. } | CheckKind::External)
    }

    /// Where it stands in the registry.
    pub fn key(&self) -> CheckKey {
        CheckKey { node: self.node.clone(), id: self.id.clone() }
    }
}

/// How a check that falls often is damped; what is absent is as the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Damping {
    /// Falls to critical after which it is held critical; 0 holds it never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// How long it takes until one fall is forgotten.
    #[serde(with = "duration::option", default, skip_serializing_if = "Option::is_none")]
    pub leak: Option<Duration>,
    /// How long it must pass, without a failure, until it is held no more.
    #[serde(with = "duration::option", default, skip_serializing_if = "Option::is_none")]
    pub steady: Option<Duration>,
}

/// TLS for a probe. `Some` means that TLS is spoken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ProbeTls {
    /// The certificate is not verified.
    #[serde(default)]
    pub skip_verify: bool,
    /// Sent as SNI and verified instead of the host that is connected to; empty means that host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server_name: String,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CheckKind {
    /// 2xx passing, 429 warning, all else critical.
    Http {
        url: String,
        /// Upper case; `GET` when not given.
        method: String,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        header: BTreeMap<String, Vec<String>>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
        follow_redirects: bool,
        /// Used for `https` URLs.
        #[serde(default)]
        tls: ProbeTls,
    },
    /// A connection is passing. `address` is `host:port`.
    Tcp { address: String, tls: Option<ProbeTls> },
    /// An answer or silence is passing, an ICMP refusal critical.
    Udp { address: String },
    /// grpc.health.v1. `service` empty asks for the server as a whole.
    Grpc { address: String, service: String, tls: Option<ProbeTls> },
    /// An HTTP/2 PING that is acknowledged.
    H2Ping { address: String, tls: Option<ProbeTls> },
    /// Passing as long as the client says so at least once in `ttl`.
    Ttl {
        #[serde(with = "duration::text")]
        ttl: Duration,
    },
    /// The worst status of another instance's checks and its node's, or (without `instance`) of a node's.
    Alias { node: NodeName, instance: Option<InstanceId> },
    /// Exit code 0 passing, 1 warning, other critical.
    Script { args: Vec<String> },
    /// Nobody here runs it: the status comes through the catalog API.
    External,
}

impl CheckKind {
    /// Consul's `Type` word.
    pub fn type_word(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::Udp { .. } => "udp",
            Self::Grpc { .. } => "grpc",
            Self::H2Ping { .. } => "h2ping",
            Self::Ttl { .. } => "ttl",
            Self::Alias { .. } => "alias",
            Self::Script { .. } => "script",
            Self::External => "",
        }
    }
}
