//! `rollcall serve`: flags over the environment over files, then the server until a signal ends it.
//!
//! What it listens on is printed on standard output, and `ready` when questions are answered; logs go to
//! standard error. SIGHUP reloads, SIGTERM and SIGINT stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::say;
use crate::Running;
use crate::config::{Config, ConfigError, Data};
use crate::model::NodeName;
use crate::telemetry::logs::{self, Format, Logs};

/// Flags of `serve`.
#[derive(Args)]
pub(super) struct Arguments {
    /// Configuration file, or directory of *.toml files; may be given again
    #[arg(long, value_name = "FILE", env = "ROLLCALL_CONFIG", value_delimiter = ',')]
    config: Vec<PathBuf>,
    /// Where definitions are kept
    #[arg(long, value_name = "DIR", env = "ROLLCALL_DATA_DIR", conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,
    /// Keep nothing: all is forgotten at the end
    #[arg(long, env = "ROLLCALL_EPHEMERAL", value_parser = clap::builder::FalseyValueParser::new())]
    ephemeral: bool,
    /// Address for the HTTP API; may be given again [default: 127.0.0.1:8500]
    #[arg(long, value_name = "ADDR", env = "ROLLCALL_HTTP", value_delimiter = ',', value_parser = listen)]
    http: Vec<SocketAddr>,
    /// Address for DNS over UDP and TCP; may be given again [default: 127.0.0.1:8600]
    #[arg(long, value_name = "ADDR", env = "ROLLCALL_DNS", value_delimiter = ',', value_parser = listen)]
    dns: Vec<SocketAddr>,
    /// Name of this machine in the catalog [default: the host name]
    #[arg(long, value_name = "NAME", env = "ROLLCALL_NODE", value_parser = NodeName::parse)]
    node: Option<NodeName>,
    /// Name of the datacenter [default: dc1]
    #[arg(long, value_name = "DC", env = "ROLLCALL_DATACENTER", value_parser = crate::config::keys::label)]
    datacenter: Option<String>,
    /// error, warn, info, debug, trace, or directives such as info,rollcall::dns=debug [default: info]
    #[arg(long, value_name = "LEVEL", env = "ROLLCALL_LOG_LEVEL", value_parser = logs::level)]
    log_level: Option<String>,
    /// human, json, or auto: human on a terminal, else JSON [default: auto]
    #[arg(long, value_name = "FORM", env = "ROLLCALL_LOG_FORMAT", value_parser = Format::parse)]
    log_format: Option<Format>,
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address and a port such as 127.0.0.1:8600 or [::]:53"))
}

impl Arguments {
    /// The files with the flags laid over them.
    fn config(&self) -> Result<Config, Vec<ConfigError>> {
        let mut config = Config::load(&self.config)?;
        if self.ephemeral {
            config.data = Data::Ephemeral;
        }
        if let Some(dir) = &self.data_dir {
            config.data = Data::Dir(dir.clone());
        }
        if !self.http.is_empty() {
            config.http.listen = self.http.clone();
        }
        if !self.dns.is_empty() {
            config.dns.listen = self.dns.clone();
        }
        if let Some(node) = &self.node {
            config.rename_node(node);
        }
        if let Some(datacenter) = &self.datacenter {
            config.datacenter = datacenter.clone();
        }
        if let Some(level) = &self.log_level {
            config.log.level = level.clone();
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        Ok(config)
    }
}

/// Runs the server to its end.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = match arguments.config() {
        Ok(config) => config,
        Err(errors) => bail!("the configuration is not valid\n{}", lines(&errors)),
    };
    let logs = logs::init(&config.log).context("starting the logs")?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(arguments, config, &logs))
}

/// Connections and probes need open files; the soft limit is often far below what the machine allows.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(files) => tracing::debug!(files, "open files allowed"),
        Err(error) => tracing::warn!("the limit on open files cannot be raised: {error}"),
    }
}

async fn serve(arguments: &Arguments, config: Config, logs: &Logs) -> anyhow::Result<()> {
    // Before anything else, so that a signal during the start is not lost.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let kept = match &config.data {
        Data::Dir(dir) => format!("definitions in {}", dir.display()),
        Data::Ephemeral => "keeping nothing".to_owned(),
    };
    say(format_args!("rollcall {}, node {}, {kept}", env!("CARGO_PKG_VERSION"), config.node_name))?;
    let mut running = tokio::select! {
        started = crate::start(config) => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    announce(&running)?;
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(arguments, &mut running, logs).await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tracing::info!("stopping");
    running.stop().await;
    Ok(())
}

fn announce(running: &Running) -> anyhow::Result<()> {
    for address in &running.dns {
        say(format_args!("listening for DNS on {address} (UDP and TCP)"))?;
    }
    for address in &running.http {
        say(format_args!("listening for HTTP on {address}"))?;
    }
    say(format_args!("ready"))
}

/// Reads everything again. A bad file changes nothing.
async fn reload(arguments: &Arguments, running: &mut Running, logs: &Logs) {
    let config = match arguments.config() {
        Ok(config) => config,
        Err(errors) => {
            tracing::error!("not reloaded, nothing was changed:\n{}", lines(&errors));
            return;
        }
    };
    let level = config.log.level.clone();
    match running.reload(config).await {
        Err(error) => tracing::error!("not reloaded, nothing was changed: {error:#}"),
        Ok(waiting) => {
            if let Err(error) = logs.set_level(&level) {
                tracing::error!("the log level stays: {error}");
            }
            if !waiting.is_empty() {
                tracing::warn!("these keys differ and wait for the next start: {}", waiting.join(", "));
            }
            tracing::info!("reloaded");
        }
    }
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
