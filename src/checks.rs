//! Health checks: what to probe when, how to judge it, one file for each kind of probe.
//!
//! One task, the [runner], follows the registry and knows which checks there are. A check at rest costs an entry
//! in an ordered set and no task; a probe in flight is a task among a bounded number. What a probe finds goes through
//! the check's [verdict] (thresholds, pure) and is reported when it says something new. When a probe is due is
//! decided in [schedule] (pure), which connection it uses in [kept].

mod alias;
mod connect;
mod follow;
mod grpc;
mod h2ping;
mod http;
mod http2;
mod job;
mod kept;
mod kinds;
mod probe;
mod redirect;
mod runner;
mod schedule;
mod script;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod verdict;

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::registry::Registry;
use crate::telemetry::Metrics;
use crate::tls::{Clients, TlsError};

/// Bounds on probing, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether script checks run.
    pub script: bool,
    /// Probes at once, at least one; those that are due beyond wait.
    pub in_flight_max: usize,
    /// Connections that are kept between probes; checks beyond lose only the instant notice of a crash.
    pub kept_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { script: false, in_flight_max: 512, kept_max: 10_000 }
    }
}

/// Why checks cannot be run.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS for health checks: {0}")]
pub struct StartError(#[from] TlsError);

/// Runs the checks of the registry: the future ends after the shutdown, with no probe left.
pub fn run(
    registry: Registry,
    config: Config,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, StartError> {
    let tools = probe::Tools { tls: Clients::new()? };
    let runner = runner::Runner::new(registry, config, tools, metrics);
    Ok(runner.run(shutdown))
}
