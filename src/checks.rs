//! Health checks: what to probe when, how to judge it, one file for each kind of probe.
//!
//! One task, the [runner], follows the registry and knows which checks there are. A check at rest costs an entry
//! in an ordered set and no task; a probe in flight is a task among a bounded number ([places]). What a probe finds goes
//! through the check's [verdict] (thresholds, pure) and is reported when it says something new. When a probe is due is
//! decided in [schedule] (pure), which connection it uses in [kept], where its target is in [names].

mod alias;
mod connect;
mod cut_off;
mod flaps;
mod follow;
mod grpc;
mod h2ping;
mod horizon;
mod http;
mod http2;
mod job;
mod kept;
mod kinds;
mod names;
mod outlook;
mod places;
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
use std::{io, thread};

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::model::Targets;
use crate::registry::Registry;
use crate::telemetry::Metrics;
use crate::telemetry::trace::Tracer;
use crate::tls::{Clients, TlsError};

pub use flaps::Flapping;
pub use horizon::CutOff;
pub use outlook::outbound;

/// Bounds on probing, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether script checks run.
    pub script: bool,
    /// Probes at once, at least one, and eight times as many that have taken longer than 100 ms; those that are due beyond wait.
    pub in_flight_max: usize,
    /// Targets whose connection is kept between probes; checks of others lose only the instant notice of a crash.
    pub kept_max: usize,
    /// Names of targets whose addresses are remembered; others are looked up for each probe.
    pub names_max: usize,
    /// Where probes may connect to.
    pub targets: Targets,
    /// When a check counts as flapping, where its definition says nothing else.
    pub flapping: Flapping,
    /// When it is we who are cut off.
    pub cut_off: CutOff,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            script: false,
            in_flight_max: 512,
            kept_max: 10_000,
            names_max: 10_000,
            targets: Targets::default(),
            flapping: Flapping::default(),
            cut_off: CutOff::default(),
        }
    }
}

/// Why checks cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot set up TLS for health checks: {0}")]
    Tls(#[from] TlsError),
    #[error("cannot start a thread for health checks: {0}")]
    Thread(#[from] io::Error),
}

/// Runs the checks of the registry: the future ends after the shutdown, with no probe left.
///
/// They have threads of their own, with less claim to the processor: beside thousands of probes a second, a DNS query would
/// wait its turn among them.
pub fn run(
    registry: Registry,
    config: Config,
    metrics: Arc<Metrics>,
    traces: Tracer,
    shutdown: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, StartError> {
    let names = names::Names::new(config.names_max, names::Files::default(), metrics.clone());
    let targets = config.targets.clone();
    let tools = probe::Tools { tls: Clients::new()?, names, targets, metrics: metrics.clone(), traces };
    let runner = runner::Runner::new(registry, config, tools, metrics);
    let niceness = getpriority_process(None).map_or(GIVE_WAY, |ours| ours + GIVE_WAY);
    let runtime = runtime(niceness)?;
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name("checks".to_owned()).spawn(move || {
        give_way(niceness);
        runtime.block_on(runner.run(shutdown));
        // A script's last words may hang; nobody waits for them.
        runtime.shutdown_background();
        let _ = ended.send(());
    })?;
    Ok(async move {
        if end.await.is_err() {
            tracing::error!("health checks ended by a fault of ours: nothing is probed any more");
        }
    })
}

/// Niceness above DNS's: where both want a core, a query does not wait for a probe, and checks still have a tenth of it. At 19
/// they would have a seventieth, and a flood of queries would make probes miss their timeouts.
const GIVE_WAY: i32 = 10;

/// Sets the niceness of this thread (Linux has one for each); processes of script checks inherit it.
fn give_way(niceness: i32) {
    if let Err(error) = setpriority_process(None, niceness) {
        tracing::debug!("health checks cannot give way to DNS: {error}");
    }
}

/// Half of the machine's cores at most. A thread alone needs nobody to wake, which costs a tenth less.
fn runtime(niceness: i32) -> io::Result<Runtime> {
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
    let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    builder.worker_threads(threads.max(1)).thread_name("checks").on_thread_start(move || give_way(niceness));
    builder.enable_all().build()
}
