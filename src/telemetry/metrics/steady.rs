//! The metrics of what keeps answers steady: flap damping, the check of whether this machine is cut off, the mass-failure guard, slow
//! starts, circuit breakers.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Fixed, Label};

const CIRCUIT: Label = Label { name: "state", values: &["open", "half-open"] };
const TURNED: Label = Label { name: "state", values: &["open", "half-open", "closed"] };
const REPORTED: Label = Label { name: "outcome", values: &["success", "failure"] };

/// Of what keeps answers steady.
pub struct SteadyMetrics {
    /// Checks that are held critical because they fell too often.
    flapping: Gauge,
    damped: Counter,
    /// 1 while statuses are held because this machine seems to be cut off.
    pub cut_off: Gauge,
    /// Results that do not count for that reason.
    pub held: Counter,
    /// Services of which DNS gives critical instances, since too many failed at once, and how many those are.
    pub guarded: Gauge,
    pub guarded_instances: Gauge,
    /// Times that this began for a service.
    pub guards: Counter,
    /// Instances whose weight rises.
    pub easing: Gauge,
    circuits: Fixed<Gauge>,
    turns: Fixed<Counter>,
    requests: Fixed<Counter>,
    /// Instances that ought to be out, and are not, since half of their service are.
    pub spared: Counter,
}

impl Default for SteadyMetrics {
    fn default() -> Self {
        Self {
            flapping: Gauge::default(),
            damped: Counter::default(),
            cut_off: Gauge::default(),
            held: Counter::default(),
            guarded: Gauge::default(),
            guarded_instances: Gauge::default(),
            guards: Counter::default(),
            easing: Gauge::default(),
            circuits: Fixed::new(&CIRCUIT),
            turns: Fixed::new(&TURNED),
            requests: Fixed::new(&REPORTED),
            spared: Counter::default(),
        }
    }
}

impl SteadyMetrics {
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

    /// So many requests ended well, and so many did not, it was reported.
    pub fn reported(&self, good: u64, bad: u64) {
        self.requests.of("success").inc_by(good);
        self.requests.of("failure").inc_by(bad);
    }

    /// So many circuits are not closed.
    pub fn circuits(&self, open: usize, half_open: usize) {
        self.circuits.of("open").set(open as i64);
        self.circuits.of("half-open").set(half_open as i64);
    }

    /// A circuit is in this state now.
    pub fn turned(&self, state: &'static str) {
        self.turns.of(state).inc();
    }

    /// Those of circuit breakers.
    pub(super) fn name_breaker(&self, r: &mut Registry) {
        r.register("circuits", "Instances whose circuit is not closed, by state", self.circuits.clone());
        r.register("turns", "Changes of a circuit, by its new state", self.turns.clone());
        r.register("requests", "Requests that were reported, by how they ended", self.requests.clone());
        let help =
            "Times that an instance ought to have been taken out and was not, since half of its service is";
        r.register("spared", help, self.spared.clone());
    }

    /// Those of the checks.
    pub(super) fn name_checks(&self, r: &mut Registry) {
        let help = "Checks that are held critical because they fell too often";
        r.register("flapping", help, self.flapping.clone());
        let help = "Times that a check began to be held critical because it fell too often";
        r.register("damped", help, self.damped.clone());
        let help = "1 while statuses are held because this machine seems to be cut off from its targets";
        r.register("cut_off", help, self.cut_off.clone());
        let help =
            "Probes that did not get through and do not count, because this machine seems to be cut off";
        r.register("held", help, self.held.clone());
    }

    /// Those of the registry.
    pub(super) fn name_registry(&self, r: &mut Registry) {
        let help = "Services of which critical instances are given in DNS, since too many failed at once";
        r.register("guarded", help, self.guarded.clone());
        let help = "Critical instances that are given in DNS for that reason";
        r.register("guarded_instances", help, self.guarded_instances.clone());
        r.register("guards", "Times that a guard began to hold for a service", self.guards.clone());
        let help = "Instances that are new or back, and have a part of their weight yet";
        r.register("slow_starts", help, self.easing.clone());
    }
}
