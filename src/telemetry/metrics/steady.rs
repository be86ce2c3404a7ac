//! The metrics of what keeps answers steady: flap damping, the check of whether this machine is cut off, the mass-failure guard, slow
//! starts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Of what keeps answers steady.
#[derive(Default)]
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
