//! Every metric: its name, unit, labels and help text stand here, or in a section below (`outbound`, `steady`, `steering`), and nowhere else.
//!
//! Names follow Prometheus' conventions: seconds and bytes, `_total` for what only grows. Rooms get a shared [`Metrics`] and
//! count in the section that bears their name. The values of a label are a [`Label`]'s, never a client's: what is not among
//! them counts as `other`, so that nobody outside can create series. All series but those of DNS answers are there from the
//! start, so that the first event is a rise from 0.

mod fixed;
mod outbound;
pub mod reference;
mod sizes;
mod steady;
mod steering;

use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub use fixed::{Fixed, Grid, Label};
pub use outbound::OutboundMetrics;
pub use sizes::{SizeTally, Sizes};
pub use steady::SteadyMetrics;
pub use steering::SteeringMetrics;

/// Of a check.
const STATUS: Label = Label { name: "status", values: &["passing", "warning", "critical"] };
/// The key of a limit in the configuration; `forward_waiting_max` is `waiting_max` of `[forward]`.
const LIMIT: Label = Label {
    name: "limit",
    values: &[
        "acl_entries_max",
        "audit_lines_max",
        "backups_max",
        "body_max",
        "checks_max",
        "checks_per_instance_max",
        "connections_max",
        "connections_per_client_max",
        "definition_octets_max",
        "drains_max",
        "filter_max",
        "forward_waiting_max",
        "handshakes_max",
        "handshakes_per_client_max",
        "import_max",
        "in_flight_max",
        "instances_max",
        "kept_max",
        "meta_key_octets_max",
        "meta_pairs_max",
        "meta_value_octets_max",
        "monitor_lines_max",
        "monitors_max",
        "names_max",
        "nodes_max",
        "queries_max",
        "query_regexp_octets_max",
        "queue_max",
        "report_requests_max",
        "reporters_max",
        "reports_max",
        "requests_per_client_max",
        "routes_max",
        "streams_max",
        "tag_octets_max",
        "tagged_addresses_max",
        "tags_max",
        "tcp_connections_max",
        "tcp_connections_per_client_max",
        "traces_per_second_max",
        "watchers_max",
        "other",
    ],
};
/// What a change of the registry began with.
const CAUSE: Label = Label { name: "cause", values: &["request", "probe", "deadline", "server"] };
/// A question's type.
const TYPE: Label = Label {
    name: "type",
    values: &["A", "AAAA", "SRV", "TXT", "PTR", "SOA", "NS", "CNAME", "MX", "ANY", "none", "other"],
};
/// An answer's code.
const RCODE: Label = Label {
    name: "rcode",
    values: &["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "BADVERS", "other"],
};
const TRANSPORT: Label = Label { name: "transport", values: &["udp", "tcp"] };
const PATH: Label = Label { name: "path", values: &["fast", "general"] };
/// Why a message of DNS was not answered.
const DROPPED: Label = Label {
    name: "reason",
    values: &["not a request", "receive error", "send error", "source port", "tcp timeout", "other"],
};
const FORWARDED: Label = Label { name: "outcome", values: &["answered", "failed", "too many"] };
/// The first parts of a path.
pub(crate) const FAMILY: Label = Label {
    name: "family",
    values: &[
        "/v1/acl",
        "/v1/agent/service",
        "/v1/agent/check",
        "/v1/agent",
        "/v1/catalog",
        "/v1/health",
        "/v1/query",
        "/v1/status",
        "/v1/rollcall",
        "/metrics",
        "/ui",
        "other",
    ],
};
const ANSWERED: Label = Label { name: "status", values: &["ok", "client error", "server error"] };
/// Why the HTTP API refused somebody, where that is no limit with a number.
const REFUSED: Label = Label {
    name: "reason",
    values: &[
        "accept",
        "acl",
        "guard",
        "handshake",
        "idle",
        "import under way",
        "login",
        "other machine",
        "revoked certificate",
        "slow body",
        "slow handshake",
        "slow reader",
        "slow stream",
        "token too long",
        "unknown token",
        "other",
    ],
};
/// Why a line is not in the audit log.
const LOST: Label = Label { name: "reason", values: &["file", "queue"] };
/// Of a check, as the API spells it.
const KIND: Label =
    Label { name: "kind", values: &["http", "tcp", "udp", "grpc", "h2ping", "script", "other"] };
const FOUND: Label = Label { name: "outcome", values: &["passing", "warning", "critical", "timeout"] };
const LOOKED_UP: Label = Label { name: "outcome", values: &["found", "failed"] };
const NOTICED: Label = Label { name: "outcome", values: &["crash", "alive", "habit", "other"] };
/// What became of a span.
const SPANS: Label =
    Label { name: "outcome", values: &["exported", "rejected", "not exported", "queue full"] };
/// Why a probe was not made.
const UNMADE: Label = Label { name: "reason", values: &["denied target", "shortage", "other"] };

/// All counters and gauges, by room.
#[derive(Default)]
pub struct Metrics {
    pub registry: RegistryMetrics,
    pub store: StoreMetrics,
    pub dns: DnsMetrics,
    pub http: HttpMetrics,
    pub checks: ChecksMetrics,
    pub steady: SteadyMetrics,
    pub steering: SteeringMetrics,
    pub audit: AuditMetrics,
    pub limits: LimitsMetrics,
    pub traces: TracesMetrics,
    pub outbound: OutboundMetrics,
}

/// Of all that a client can make grow.
pub struct LimitsMetrics {
    hits: Fixed<Counter>,
}

impl LimitsMetrics {
    /// Something was refused, left out or kept waiting at a limit, named by its key.
    pub fn hit(&self, key: &'static str) {
        self.hits.of(key).inc();
    }

    /// The same, seen elsewhere.
    pub fn hits(&self, key: &'static str) -> Counter {
        self.hits.of(key).clone()
    }

    fn name(&self, r: &mut Registry) {
        let help = "What was refused, left out or kept waiting at a limit, by the limit's key";
        r.register("hits", help, self.hits.clone());
    }
}

impl Default for LimitsMetrics {
    fn default() -> Self {
        Self { hits: Fixed::new(&LIMIT) }
    }
}

/// Of the registry.
pub struct RegistryMetrics {
    pub index: Gauge,
    pub nodes: Gauge,
    pub services: Gauge,
    pub instances: Gauge,
    /// Checks by status.
    pub checks: Fixed<Gauge>,
    /// Status changes by new status.
    pub flips: Fixed<Counter>,
    pub publishes: Counter,
    /// Changes that history forgot for newer ones.
    pub history_dropped: Counter,
    shown: Fixed<Histogram>,
    kept: Fixed<Histogram>,
}

impl RegistryMetrics {
    /// A change that answers can show was published so long after it began.
    pub fn shown(&self, cause: &'static str, after: Duration) {
        self.shown.of(cause).observe(after.as_secs_f64());
    }

    /// No cache has an answer from before the change when so much time has passed since it began.
    pub fn kept(&self, cause: &'static str, until: Duration) {
        self.kept.of(cause).observe(until.as_secs_f64());
    }
}

impl Default for RegistryMetrics {
    fn default() -> Self {
        Self {
            index: Gauge::default(),
            nodes: Gauge::default(),
            services: Gauge::default(),
            instances: Gauge::default(),
            checks: Fixed::new(&STATUS),
            flips: Fixed::new(&STATUS),
            publishes: Counter::default(),
            history_dropped: Counter::default(),
            shown: Fixed::with(&CAUSE, || Histogram::new(exponential_buckets(0.0001, 4.0, 10))),
            kept: Fixed::with(&CAUSE, || {
                Histogram::new([0.5, 1.01, 2.02, 3.03, 5.05, 7.5, 10.1, 15.0, 30.0, 61.0, 121.0, 301.0])
            }),
        }
    }
}

/// Of traces.
pub struct TracesMetrics {
    spans: Fixed<Counter>,
}

impl Default for TracesMetrics {
    fn default() -> Self {
        Self { spans: Fixed::new(&SPANS) }
    }
}

impl TracesMetrics {
    /// Counts spans by what became of them.
    pub fn counted(&self, outcome: &'static str, spans: u64) {
        self.spans.of(outcome).inc_by(spans);
    }

    fn name(&self, r: &mut Registry) {
        let help = "Spans by what became of them";
        r.register("spans", help, self.spans.clone());
    }
}

/// Of the audit log.
pub struct AuditMetrics {
    lines: Counter,
    rotations: Counter,
    losses: Fixed<Counter>,
}

impl AuditMetrics {
    /// Counts lines that are in the file.
    pub fn written(&self, lines: u64) {
        self.lines.inc_by(lines);
    }

    /// Counts a file that was ended at its size.
    pub fn rotated(&self) {
        self.rotations.inc();
    }

    /// Counts a line that is in no file.
    pub fn lost(&self, reason: &'static str) {
        self.losses.of(reason).inc();
    }

    /// Counts lines that the file did not take.
    pub fn lost_in_file(&self, lines: u64) {
        self.losses.of("file").inc_by(lines);
    }

    fn name(&self, r: &mut Registry) {
        r.register("lines", "Lines written to the audit log", self.lines.clone());
        r.register(
            "rotations",
            "Files of the audit log that were ended at their size",
            self.rotations.clone(),
        );
        r.register(
            "lost",
            "Lines of the audit log that were lost: at the queue or the file",
            self.losses.clone(),
        );
    }
}

impl Default for AuditMetrics {
    fn default() -> Self {
        Self { lines: Counter::default(), rotations: Counter::default(), losses: Fixed::new(&LOST) }
    }
}

/// Of the store.
pub struct StoreMetrics {
    pub commits: Counter,
    /// Commits of the database, behind the journal.
    pub checkpoints: Counter,
    pub errors: Counter,
    /// 1 while definitions can be stored.
    pub writable: Gauge,
    committing: Histogram,
    checkpointing: Histogram,
}

impl StoreMetrics {
    /// A batch was made durable in so long.
    pub fn committed(&self, took: Duration) {
        self.commits.inc();
        self.committing.observe(took.as_secs_f64());
    }

    /// The database took what the journal had in so long.
    pub fn checkpointed(&self, took: Duration) {
        self.checkpoints.inc();
        self.checkpointing.observe(took.as_secs_f64());
    }
}

impl Default for StoreMetrics {
    fn default() -> Self {
        // A store without a disk can always be written.
        let writable = Gauge::default();
        writable.set(1);
        let seconds = || Histogram::new(exponential_buckets(0.0001, 4.0, 9));
        Self {
            commits: Counter::default(),
            checkpoints: Counter::default(),
            errors: Counter::default(),
            writable,
            committing: seconds(),
            checkpointing: seconds(),
        }
    }
}

/// Of the DNS listeners.
pub struct DnsMetrics {
    pub tcp_connections: Gauge,
    pub truncated: Counter,
    answers: Family<Answer, Counter>,
    drops: Fixed<Counter>,
    forwards: Fixed<Counter>,
    forwarding: Gauge,
    forward_seconds: Histogram,
    sizes: Fixed<Sizes>,
}

/// A question that waits for others; counted when it does not any more.
pub struct Forwarding<'a> {
    metrics: &'a DnsMetrics,
    since: Instant,
}

impl Drop for Forwarding<'_> {
    fn drop(&mut self) {
        self.metrics.forwarding.dec();
        self.metrics.forward_seconds.observe(self.since.elapsed().as_secs_f64());
    }
}

/// A question's type, its answer's code, how it came and what made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answer {
    pub r#type: &'static str,
    pub rcode: &'static str,
    pub transport: &'static str,
    pub path: &'static str,
}

impl DnsMetrics {
    /// Counts answers of a kind.
    pub fn answered(&self, answer: Answer, count: u64) {
        let Answer { r#type, rcode, transport, path } = answer;
        let known = Answer {
            r#type: TYPE.known(r#type),
            rcode: RCODE.known(rcode),
            transport: TRANSPORT.known(transport),
            path: PATH.known(path),
        };
        self.answers.get_or_create(&known).inc_by(count);
    }

    /// Counts what was not answered.
    pub fn dropped(&self, reason: &'static str) {
        self.drops.of(reason).inc();
    }

    /// Takes the sizes of answers, in octets, and leaves none.
    pub fn sized(&self, transport: &'static str, tally: &mut SizeTally) {
        self.sizes.of(transport).take(tally);
    }

    /// A question begins to wait for others, until what comes back is dropped.
    pub fn forwarding(&self) -> Forwarding<'_> {
        self.forwarding.inc();
        Forwarding { metrics: self, since: Instant::now() }
    }

    /// Counts a question that was forwarded.
    pub fn forwarded(&self, outcome: &'static str) {
        self.forwards.of(outcome).inc();
    }

    fn name(&self, r: &mut Registry) {
        r.register("tcp_connections", "Open TCP connections", self.tcp_connections.clone());
        r.register("truncated", "Answers that were cut and have TC set", self.truncated.clone());
        let help = "Answers by the question's type, code, transport, and path: those that the fast path made, \
                    and those of the general one";
        r.register("answers", help, self.answers.clone());
        r.register("dropped", "Messages not answered, by reason", self.drops.clone());
        r.register("forwarded", "Questions forwarded, by outcome", self.forwards.clone());
        r.register(
            "forwards_waiting",
            "Forwarded questions that wait for an answer",
            self.forwarding.clone(),
        );
        let help = "Time until a forwarded question was answered or given up";
        r.register_with_unit("forward_duration", help, Unit::Seconds, self.forward_seconds.clone());
        let help = "Size of answers, by transport";
        r.register_with_unit("answer_size", help, Unit::Bytes, self.sizes.clone());
    }
}

impl Default for DnsMetrics {
    fn default() -> Self {
        Self {
            tcp_connections: Gauge::default(),
            truncated: Counter::default(),
            answers: Family::default(),
            drops: Fixed::new(&DROPPED),
            forwards: Fixed::new(&FORWARDED),
            forwarding: Gauge::default(),
            forward_seconds: Histogram::new(exponential_buckets(0.0005, 4.0, 8)),
            sizes: Fixed::new(&TRANSPORT),
        }
    }
}

/// Of the HTTP API.
pub struct HttpMetrics {
    pub connections: Gauge,
    /// Blocking queries that wait.
    pub watchers: Gauge,
    requests: Grid<Counter>,
    seconds: Fixed<Histogram>,
    refusals: Fixed<Counter>,
}

impl HttpMetrics {
    /// Counts an answer; a family of paths as in the label.
    pub fn answered(&self, family: &'static str, status: u16, took: Duration) {
        let status = match status {
            0..400 => "ok",
            400..500 => "client error",
            _ => "server error",
        };
        self.requests.of(family, status).inc();
        self.seconds.of(family).observe(took.as_secs_f64());
    }

    /// Counts who was refused, other than at a limit.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.of(reason).inc();
    }

    fn name(&self, r: &mut Registry) {
        r.register("connections", "Open connections", self.connections.clone());
        r.register("watchers", "Blocking queries that wait", self.watchers.clone());
        r.register("requests", "Answers, by family of paths and outcome", self.requests.clone());
        let help = "Time to an answer, by family of paths; blocking queries included";
        r.register_with_unit("request_duration", help, Unit::Seconds, self.seconds.clone());
        r.register("refused", "Requests and connections refused, by reason", self.refusals.clone());
    }
}

impl Default for HttpMetrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0001, 4.0, 10));
        Self {
            connections: Gauge::default(),
            watchers: Gauge::default(),
            requests: Grid::new(&FAMILY, &ANSWERED),
            seconds: Fixed::with(&FAMILY, seconds),
            refusals: Fixed::new(&REFUSED),
        }
    }
}

/// Of the health checks.
pub struct ChecksMetrics {
    pub in_flight: Gauge,
    /// Probes that are due and wait for a place.
    pub waiting: Gauge,
    /// Connections kept between probes.
    pub kept: Gauge,
    /// Checks that keep none for want of a place.
    pub unkept: Gauge,
    /// Names whose addresses are remembered.
    pub names: Gauge,
    lookups: Fixed<Counter>,
    /// Probes whose kept connection had just been closed.
    pub retries: Counter,
    lateness: Histogram,
    probes: Grid<Counter>,
    seconds: Fixed<Histogram>,
    notices: Fixed<Counter>,
    unmade: Fixed<Counter>,
}

impl ChecksMetrics {
    /// Counts a probe.
    pub fn probed(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.probes.of(kind, outcome).inc();
        self.seconds.of(kind).observe(took.as_secs_f64());
    }

    /// A probe starts so long after it was due.
    pub fn started(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }

    /// Counts what came of a kept connection that broke.
    pub fn noticed(&self, outcome: &'static str) {
        self.notices.of(outcome).inc();
    }

    /// Counts a name that was looked up.
    pub fn looked_up(&self, outcome: &'static str) {
        self.lookups.of(outcome).inc();
    }

    /// Counts a probe that was not made.
    pub fn unmade(&self, reason: &'static str) {
        self.unmade.of(reason).inc();
    }

    fn name(&self, r: &mut Registry) {
        r.register("in_flight", "Probes under way", self.in_flight.clone());
        r.register("waiting", "Probes that are due and wait for a place", self.waiting.clone());
        r.register("kept", "Connections kept between probes", self.kept.clone());
        let help =
            "Checks without a kept connection, and so without instant notice of a crash, for want of a place";
        r.register("unkept", help, self.unkept.clone());
        r.register("names", "Names of targets whose addresses are remembered", self.names.clone());
        r.register("lookups", "Names of targets looked up, by outcome", self.lookups.clone());
        let help = "Probes made on a fresh connection because the kept one had just been closed";
        r.register("retries", help, self.retries.clone());
        let help = "Time from when a probe was due to its start";
        r.register_with_unit("probe_lateness", help, Unit::Seconds, self.lateness.clone());
        r.register("probes", "Probes by kind of check and outcome", self.probes.clone());
        let help = "Time of a probe, by kind of check";
        r.register_with_unit("probe_duration", help, Unit::Seconds, self.seconds.clone());
        r.register("notices", "Kept connections that broke, by what came of it", self.notices.clone());
        let help = "Probes that were not made: the target is denied, or this machine was short of something";
        r.register("unmade", help, self.unmade.clone());
    }
}

impl Default for ChecksMetrics {
    fn default() -> Self {
        Self {
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            kept: Gauge::default(),
            unkept: Gauge::default(),
            names: Gauge::default(),
            lookups: Fixed::new(&LOOKED_UP),
            retries: Counter::default(),
            lateness: Histogram::new([0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0]),
            probes: Grid::new(&KIND, &FOUND),
            seconds: Fixed::with(&KIND, || Histogram::new(exponential_buckets(0.0005, 4.0, 9))),
            notices: Fixed::new(&NOTICED),
            unmade: Fixed::new(&UNMADE),
        }
    }
}

impl Metrics {
    /// The metrics in Prometheus' text form 0.0.4, where a counter's HELP and TYPE bear the name that its samples have.
    pub fn encode_text(&self) -> String {
        let open = self.encode();
        let counters: std::collections::HashSet<&str> =
            open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
        let mut text = String::with_capacity(open.len());
        for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                    text += &format!("# {what} {name}_total {rest}\n");
                }
                _ => {
                    text += line;
                    text.push('\n');
                }
            }
        }
        text
    }

    /// The metrics as OpenMetrics 1.0.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.names());
        text
    }

    fn names(&self) -> Registry {
        let mut names = Registry::with_prefix("rollcall");
        let registry = names.sub_registry_with_prefix("registry");
        self.registry.name(registry);
        self.steady.name_registry(registry);
        self.steering.name(registry);
        self.store.name(names.sub_registry_with_prefix("store"));
        self.dns.name(names.sub_registry_with_prefix("dns"));
        self.http.name(names.sub_registry_with_prefix("http"));
        let checks = names.sub_registry_with_prefix("checks");
        self.checks.name(checks);
        self.steady.name_checks(checks);
        self.steady.name_breaker(names.sub_registry_with_prefix("breaker"));
        self.limits.name(names.sub_registry_with_prefix("limit"));
        self.audit.name(names.sub_registry_with_prefix("audit"));
        self.traces.name(names.sub_registry_with_prefix("traces"));
        self.outbound.name(names.sub_registry_with_prefix("outbound"));
        names
    }
}

impl RegistryMetrics {
    fn name(&self, r: &mut Registry) {
        r.register("index", "Number of the last change", self.index.clone());
        r.register("nodes", "Nodes registered", self.nodes.clone());
        r.register("services", "Services with at least one instance", self.services.clone());
        r.register("instances", "Instances registered", self.instances.clone());
        r.register("checks", "Checks by status", self.checks.clone());
        r.register("flips", "Changes of a check's status, by the new one", self.flips.clone());
        r.register("publishes", "Snapshots published", self.publishes.clone());
        let help = "Changes that history forgot for newer ones";
        r.register("history_dropped", help, self.history_dropped.clone());
        let help = "Time from the arrival of a request, or the end of the probe that decides, to the first published \
                    snapshot that shows the change, for changes that answers can show, by cause";
        r.register_with_unit("change_to_answer", help, Unit::Seconds, self.shown.clone());
        let help = "The same and the TTL of the answers before: the time until no cache has an answer of the service \
                    from before the change, by cause";
        r.register_with_unit("change_to_caches", help, Unit::Seconds, self.kept.clone());
    }
}

impl StoreMetrics {
    fn name(&self, r: &mut Registry) {
        r.register("commits", "Batches of changes made durable", self.commits.clone());
        let help = "Commits of the database, behind the journal";
        r.register("checkpoints", help, self.checkpoints.clone());
        r.register("errors", "Transactions that failed", self.errors.clone());
        let help = "Time in which a batch of changes was made durable";
        r.register_with_unit("commit_duration", help, Unit::Seconds, self.committing.clone());
        let help = "Time of a commit of the database, behind the journal";
        r.register_with_unit("checkpoint_duration", help, Unit::Seconds, self.checkpointing.clone());
        r.register("writable", "1 while definitions can be stored", self.writable.clone());
    }
}

#[cfg(test)]
mod tests;
