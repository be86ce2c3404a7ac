//! The metrics of what people do to answers: routes and drains.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::{Fixed, Label};

/// What was done to a route.
const ROUTED: Label = Label { name: "action", values: &["set", "undo", "clear", "abort", "import", "other"] };

/// Of routes and drains.
pub struct SteeringMetrics {
    /// Services whose route leaves anybody out.
    pub routes: Gauge,
    /// Versions of routes by what made them.
    pub route_changes: Fixed<Counter>,
    left: Histogram,
}

impl SteeringMetrics {
    /// Nobody in DNS answers as before a drain any more, so long after it was asked for.
    pub fn left(&self, after: Duration) {
        self.left.observe(after.as_secs_f64());
    }

    pub(super) fn name(&self, r: &mut Registry) {
        r.register("routes", "Services with a route that is not cleared", self.routes.clone());
        r.register("route_changes", "Versions of routes by what made them", self.route_changes.clone());
        let help = "Time until all threads of DNS and all answers under way had left the snapshots from before a drain";
        r.register_with_unit("drain_leave", help, Unit::Seconds, self.left.clone());
    }
}

impl Default for SteeringMetrics {
    fn default() -> Self {
        Self {
            routes: Gauge::default(),
            route_changes: Fixed::new(&ROUTED),
            left: Histogram::new(exponential_buckets(0.0005, 4.0, 8)),
        }
    }
}
