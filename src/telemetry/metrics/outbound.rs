//! Of calls to others.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Fixed, Label};

/// Whom we call: DNS servers, the collector of traces, and servers of keys of auth methods. Probes are counted with the checks.
const TO: Label = Label { name: "to", values: &["upstreams", "collector", "keys"] };

/// Of those, who is left alone after failures as a whole. Each set of keys is on its own.
const HELD: Label = Label { name: "to", values: &["upstreams", "collector"] };

/// Of calls to others.
pub struct OutboundMetrics {
    retries: Fixed<Counter>,
    withheld: Fixed<Counter>,
    open: Fixed<Gauge>,
}

impl OutboundMetrics {
    /// Counts a call that is made once more.
    pub fn retried(&self, to: &'static str) {
        self.retries.of(to).inc();
    }

    /// Counts a call that was not made, or put off, because those before it failed.
    pub fn withheld(&self, to: &'static str) {
        self.withheld.of(to).inc();
    }

    /// Whether calls are held back.
    pub fn opened(&self, to: &'static str, open: bool) {
        self.open.of(to).set(open.into());
    }

    pub(super) fn name(&self, r: &mut Registry) {
        r.register("retries", "Calls to others that were made once more", self.retries.clone());
        let help = "Calls to others that were put off or not made, because those before them failed";
        r.register("withheld", help, self.withheld.clone());
        let help = "1 while calls are held back, because those before them failed";
        r.register("breaker_open", help, self.open.clone());
    }
}

impl Default for OutboundMetrics {
    fn default() -> Self {
        Self { retries: Fixed::new(&TO), withheld: Fixed::new(&TO), open: Fixed::new(&HELD) }
    }
}
