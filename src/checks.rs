//! Health checks: what to probe when, how to judge it, one file for each kind of probe.

#![allow(dead_code)]

mod connect;
mod grpc;
mod h2ping;
mod http2;
mod probe;
mod script;
mod tcp;
mod udp;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::registry::Registry;
use crate::telemetry::Metrics;

/// Bounds on probing, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether script checks run.
    pub script: bool,
    /// Probes at once; those that are due beyond wait.
    pub in_flight_max: usize,
    /// Connections that are kept between probes; checks beyond lose only the instant notice of a crash.
    pub kept_max: usize,
}

/// Runs the checks of the registry until the shutdown.
pub async fn run(registry: Registry, config: Config, metrics: Arc<Metrics>, shutdown: CancellationToken) {
    let _ = (registry, config, metrics);
    shutdown.cancelled().await;
}
