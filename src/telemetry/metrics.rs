//! Every metric: its name, unit, labels and help text stand here and nowhere else.
//!
//! Rooms get a shared [`Metrics`] and count in the section that bears their name. Label values come
//! from fixed sets, never from a client, so that nobody outside can create series.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// One label, `kind`, from a fixed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    pub kind: &'static str,
}

/// All counters and gauges, by room.
#[derive(Default)]
pub struct Metrics {
    pub registry: RegistryMetrics,
    pub store: StoreMetrics,
    pub dns: DnsMetrics,
    pub http: HttpMetrics,
    pub checks: ChecksMetrics,
}

/// Of the registry.
#[derive(Default)]
pub struct RegistryMetrics {
    pub index: Gauge,
    pub nodes: Gauge,
    pub services: Gauge,
    pub instances: Gauge,
    /// Checks by status.
    pub checks: Family<Kind, Gauge>,
    /// Status changes by new status.
    pub flips: Family<Kind, Counter>,
    pub publishes: Counter,
    /// Services of which DNS gives critical instances, since too many failed at once, and how many those are.
    pub guarded: Gauge,
    pub kept: Gauge,
    /// Times that this began for a service.
    pub guards: Counter,
    /// Requests refused because a limit was reached, by limit.
    pub limits: Family<Kind, Counter>,
}

/// Of the store.
#[derive(Default)]
pub struct StoreMetrics {
    pub commits: Counter,
    /// Commits of the database, behind the journal.
    pub checkpoints: Counter,
    pub errors: Counter,
    /// 1 while definitions can be stored.
    pub writable: Gauge,
}

/// Of the DNS listeners.
#[derive(Default)]
pub struct DnsMetrics {
    pub tcp_connections: Gauge,
    pub truncated: Counter,
    answers: Family<Answer, Counter>,
    paths: Family<Kind, Counter>,
    drops: Family<Kind, Counter>,
    forwards: Family<Kind, Counter>,
}

/// A question's type, its answer's code, and how it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    r#type: &'static str,
    rcode: &'static str,
    transport: &'static str,
}

impl DnsMetrics {
    /// Counts answers; all labels are from fixed sets.
    pub fn answered(&self, r#type: &'static str, rcode: &'static str, transport: &'static str, count: u64) {
        self.answers.get_or_create(&Answer { r#type, rcode, transport }).inc_by(count);
    }

    /// Counts answers by the path that made them; `kind` is from a fixed set.
    pub fn took(&self, kind: &'static str, count: u64) {
        self.paths.get_or_create(&Kind { kind }).inc_by(count);
    }

    /// Counts what was not answered; `kind` is from a fixed set.
    pub fn dropped(&self, kind: &'static str) {
        self.drops.get_or_create(&Kind { kind }).inc();
    }

    /// Counts a question that was forwarded; `kind` is from a fixed set.
    pub fn forwarded(&self, kind: &'static str) {
        self.forwards.get_or_create(&Kind { kind }).inc();
    }

    fn name(&self, r: &mut Registry) {
        r.register("tcp_connections", "Open TCP connections", self.tcp_connections.clone());
        r.register("truncated", "Answers that were cut and have TC set", self.truncated.clone());
        r.register("answers", "Answers by type, code and transport", self.answers.clone());
        r.register("paths", "Answers by the path that made them: fast or general", self.paths.clone());
        r.register("dropped", "Messages and connections not answered, by reason", self.drops.clone());
        r.register("forwarded", "Questions forwarded, by outcome", self.forwards.clone());
    }
}

/// Of the HTTP API.
pub struct HttpMetrics {
    pub connections: Gauge,
    /// Blocking queries that wait.
    pub watchers: Gauge,
    requests: Family<Answered, Counter>,
    seconds: Family<Kind, Histogram, fn() -> Histogram>,
    refusals: Family<Kind, Counter>,
    /// Log lines that a slow watcher was not sent.
    pub unwatched: Counter,
}

/// A family of paths and the class of a status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    family: &'static str,
    status: &'static str,
}

impl HttpMetrics {
    /// Counts an answer; `family` is from a fixed set.
    pub fn answered(&self, family: &'static str, status: u16, took: std::time::Duration) {
        let status = match status {
            0..400 => "ok",
            400..500 => "client error",
            _ => "server error",
        };
        self.requests.get_or_create(&Answered { family, status }).inc();
        self.seconds.get_or_create(&Kind { kind: family }).observe(took.as_secs_f64());
    }

    /// Counts what was refused at a limit or by a guard; `kind` is from a fixed set.
    pub fn refused(&self, kind: &'static str) {
        self.refusals.get_or_create(&Kind { kind }).inc();
    }

    fn name(&self, r: &mut Registry) {
        r.register("connections", "Open connections", self.connections.clone());
        r.register("watchers", "Blocking queries that wait", self.watchers.clone());
        r.register("requests", "Answers, by family of paths and outcome", self.requests.clone());
        let help = "Time to an answer, by family of paths; blocking queries included";
        r.register_with_unit("duration", help, Unit::Seconds, self.seconds.clone());
        r.register("refused", "Refused at a limit or by a guard, by which", self.refusals.clone());
        let help = "Log lines that watchers of /v1/agent/monitor were not sent because they read too slowly";
        r.register("monitor_lines_dropped", help, self.unwatched.clone());
    }
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self {
            connections: Gauge::default(),
            watchers: Gauge::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0001, 4.0, 10))),
            refusals: Family::default(),
            unwatched: Counter::default(),
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
    lookups: Family<Kind, Counter>,
    /// Probes whose kept connection had just been closed.
    pub retries: Counter,
    lateness: Histogram,
    probes: Family<Probed, Counter>,
    seconds: Family<Kind, Histogram, fn() -> Histogram>,
    notices: Family<Kind, Counter>,
    limits: Family<Kind, Counter>,
    /// Checks that are held critical because they fell too often.
    pub flapping: Gauge,
    damped: Counter,
    /// 1 while statuses are held because this machine seems to be cut off.
    pub cut_off: Gauge,
    /// Results that do not count for that reason.
    pub held: Counter,
}

/// A kind of check and what a probe came to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Probed {
    kind: &'static str,
    outcome: &'static str,
}

impl ChecksMetrics {
    /// Counts a probe; both labels are from fixed sets.
    pub fn probed(&self, kind: &'static str, outcome: &'static str, took: std::time::Duration) {
        self.probes.get_or_create(&Probed { kind, outcome }).inc();
        self.seconds.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
    }

    /// A probe starts so long after it was due.
    pub fn started(&self, late: std::time::Duration) {
        self.lateness.observe(late.as_secs_f64());
    }

    /// Counts what came of a kept connection that broke; `kind` is from a fixed set.
    pub fn noticed(&self, kind: &'static str) {
        self.notices.get_or_create(&Kind { kind }).inc();
    }

    /// Counts a name that was looked up; `kind` is from a fixed set.
    pub fn looked_up(&self, kind: &'static str) {
        self.lookups.get_or_create(&Kind { kind }).inc();
    }

    /// Whether a check was held critical because it flaps, and is.
    pub fn settled(&self, was_held: bool, is_held: bool) {
        match (was_held, is_held) {
            (false, true) => {
                self.damped.inc();
                self.flapping.inc();
            }
            (true, false) => {
                self.flapping.dec();
            }
            _ => {}
        }
    }

    /// Counts what met a limit; `kind` is from a fixed set.
    pub fn limited(&self, kind: &'static str) {
        self.limits.get_or_create(&Kind { kind }).inc();
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
        r.register_with_unit("lateness", help, Unit::Seconds, self.lateness.clone());
        r.register("probes", "Probes by kind of check and outcome", self.probes.clone());
        r.register_with_unit("duration", "Time of a probe, by kind", Unit::Seconds, self.seconds.clone());
        r.register("notices", "Kept connections that broke, by what came of it", self.notices.clone());
        let help = "Checks that are held critical because they fell too often";
        r.register("flapping", help, self.flapping.clone());
        let help = "Times that a check began to be held critical because it fell too often";
        r.register("damped", help, self.damped.clone());
        let help = "1 while statuses are held because this machine seems to be cut off from its targets";
        r.register("cut_off", help, self.cut_off.clone());
        let help =
            "Probes that did not get through and do not count, because this machine seems to be cut off";
        r.register("held", help, self.held.clone());
        r.register("limits", "Probes, connections and names that met a limit, by limit", self.limits.clone());
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
            lookups: Family::default(),
            retries: Counter::default(),
            lateness: Histogram::new([0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0]),
            probes: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 4.0, 9))),
            notices: Family::default(),
            limits: Family::default(),
            flapping: Gauge::default(),
            damped: Counter::default(),
            cut_off: Gauge::default(),
            held: Counter::default(),
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
        self.registry.name(names.sub_registry_with_prefix("registry"));
        self.store.name(names.sub_registry_with_prefix("store"));
        self.dns.name(names.sub_registry_with_prefix("dns"));
        self.http.name(names.sub_registry_with_prefix("http"));
        self.checks.name(names.sub_registry_with_prefix("checks"));
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
        let help = "Services of which critical instances are given in DNS, since too many failed at once";
        r.register("guarded", help, self.guarded.clone());
        r.register("kept", "Critical instances that are given in DNS for that reason", self.kept.clone());
        r.register("guards", "Times that a guard began to hold for a service", self.guards.clone());
        r.register("limits", "Requests refused at a limit, by limit", self.limits.clone());
    }
}

impl StoreMetrics {
    fn name(&self, r: &mut Registry) {
        r.register("commits", "Batches of changes made durable", self.commits.clone());
        let help = "Commits of the database, behind the journal";
        r.register("checkpoints", help, self.checkpoints.clone());
        r.register("errors", "Transactions that failed", self.errors.clone());
        r.register("writable", "1 while definitions can be stored", self.writable.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_text_forms_name_counters_as_they_want_them() {
        let metrics = Metrics::default();
        metrics.dns.answered("A", "NOERROR", "udp", 1);
        let (open, text) = (metrics.encode(), metrics.encode_text());
        assert!(open.contains("# TYPE rollcall_dns_answers counter\n") && open.ends_with("# EOF\n"));
        assert!(text.contains("# TYPE rollcall_dns_answers_total counter\n") && !text.contains("EOF"));
        assert!(text.contains("# HELP rollcall_dns_answers_total Answers"));
        let sample = "rollcall_dns_answers_total{type=\"A\",rcode=\"NOERROR\",transport=\"udp\"} 1\n";
        assert!(open.contains(sample) && text.contains(sample), "{text}");
    }
}
