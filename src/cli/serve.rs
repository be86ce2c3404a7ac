//! `rollcall serve`: flags over the environment over files, then the server until a signal ends it.
//!
//! What it listens on is printed on standard output, and `ready` when questions are answered; logs go to
//! standard error. SIGHUP reloads, SIGTERM and SIGINT stop; a request on the control socket starts a successor.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use futures_util::FutureExt;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::place::{lines, with_store_key};
use super::restart::{self, Outcome};
use super::say;
use crate::config::{Config, ConfigError, Data, Listen, http_listen};
use crate::handover::control::{self, Connection, Control};
use crate::handover::{Inheritance, Predecessor, Program, Sockets, systemd};
use crate::model::{NodeName, Secret};
use crate::telemetry::logs::{self, Format, Logs};
use crate::{Asked, Running};

/// Flags of `serve`.
#[derive(Args)]
pub(super) struct Arguments {
    /// Configuration file, or directory of *.toml and Consul's *.json files; may be given again
    #[arg(long, value_name = "FILE", env = "ROLLCALL_CONFIG", value_delimiter = ',')]
    config: Vec<PathBuf>,
    /// Where definitions are kept
    #[arg(long, value_name = "DIR", env = "ROLLCALL_DATA_DIR", conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,
    /// Keep nothing: all is forgotten at the end
    #[arg(long, env = "ROLLCALL_EPHEMERAL", value_parser = clap::builder::FalseyValueParser::new())]
    ephemeral: bool,
    /// Address for the HTTP API, or unix:///PATH; may be given again [default: 127.0.0.1:8500]
    #[arg(long, value_name = "ADDR", env = "ROLLCALL_HTTP", value_delimiter = ',', value_parser = http_listen)]
    http: Vec<Listen>,
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
    /// Take over from the server that started this process: for its use
    #[arg(long, hide = true)]
    take_over: bool,
}

/// A management token; no flag has it, since arguments are seen by all users of the machine.
const INITIAL_MANAGEMENT: &str = "ROLLCALL_ACL_INITIAL_MANAGEMENT";
/// Tells a successor that it is one: [`Arguments::take_over`].
const TAKE_OVER: &str = "--take-over";

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address and a port such as 127.0.0.1:8600 or [::]:53"))
}

impl Arguments {
    /// The files with the flags laid over them.
    fn config(&self) -> Result<Config, Vec<ConfigError>> {
        let mut config = with_store_key(Config::load(&self.config)?)?;
        if self.ephemeral {
            config.data = Data::Ephemeral;
        }
        if let Some(dir) = &self.data_dir {
            config.data = Data::Dir(dir.clone());
        }
        if !self.http.is_empty() {
            config.http.listen_on(self.http.clone());
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
        if let Some(secret) = std::env::var_os(INITIAL_MANAGEMENT).filter(|secret| !secret.is_empty()) {
            config.acl.initial_management = Some(Secret::new(&secret.to_string_lossy()));
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        Ok(config)
    }
}

/// Runs the server to its end.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let program = Program::of_this_process(TAKE_OVER);
    // While there is no other thread: it takes variables out of the environment.
    let given = systemd::sockets()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let predecessor = {
        let _inside = runtime.enter();
        arguments.take_over.then(Predecessor::on_stdin).transpose()?
    };
    let config =
        arguments.config().map_err(|errors| anyhow!("the configuration is not valid\n{}", lines(&errors)));
    let started = config.and_then(|config| {
        let logs = logs::init(&config.log, config.node_name.as_str()).context("starting the logs")?;
        warn(&config);
        raise_open_files();
        Ok((config, logs))
    });
    let ended = started.and_then(|(config, logs)| {
        let start = Start { arguments, program, logs, given };
        runtime.block_on(start.serve(config, predecessor.as_ref()))
    });
    if let (Err(error), Some(predecessor)) = (&ended, &predecessor) {
        predecessor.give_up(format!("{error:#}"));
    }
    ended
}

/// What the files have that is not wrong, and should be known.
fn warn(config: &Config) {
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
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

/// What the server is run with beside its configuration.
struct Start<'a> {
    arguments: &'a Arguments,
    program: Program,
    logs: Logs,
    /// From systemd.
    given: Sockets,
}

impl Start<'_> {
    async fn serve(self, config: Config, predecessor: Option<&Predecessor>) -> anyhow::Result<()> {
        // Before anything else, so that a signal during the start is not lost.
        let mut hangup = signal(SignalKind::hangup())?;
        let mut stops = Stops::new()?;
        let kept = match &config.data {
            Data::Dir(dir) => format!("definitions in {}", dir.display()),
            Data::Ephemeral => "keeping nothing".to_owned(),
        };
        let (version, node) = (env!("CARGO_PKG_VERSION"), &config.node_name);
        printed(say(format_args!("rollcall {version}, node {node}, {kept}")));
        // The logs go last.
        let Self { arguments, program, logs: _logs, given } = self;
        let (mut running, control) = tokio::select! {
            started = start(config, given, predecessor) => started?,
            () = stops.next() => return Ok(()),
        };
        printed(announce(&running));
        systemd::notify("READY=1");
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => {
                    // It is in the log.
                    let _ = reload(arguments, &mut running).await;
                    continue;
                }
                request = running.asked() => match request {
                    Asked::Reload(reply) => {
                        // Who asked may have gone.
                        let _ = reply.send(reload(arguments, &mut running).await);
                        continue;
                    }
                    Asked::Leave => break,
                    Asked::End => bail!("the registry has ended by a fault, which is said above; nothing would change any more"),
                },
                () = stops.next() => break,
                asked = accept(control.as_ref()) => asked,
            };
            let Some(listening) = &control else { break };
            let abandon = CancellationToken::new();
            let handing = restart::hand_over(running, asked, listening, &program, abandon.clone());
            let (outcome, stop) = unless_stopped(Box::pin(handing), &mut stops, &abandon).await;
            match outcome {
                Outcome::Kept(kept) => running = *kept,
                Outcome::Replaced(pid) if stop => return pass_on(pid, nix::sys::signal::Signal::SIGTERM),
                Outcome::Replaced(pid) if has_come(&mut hangup) => {
                    return pass_on(pid, nix::sys::signal::Signal::SIGHUP);
                }
                Outcome::Replaced(_) => return Ok(()),
                Outcome::Stopped => {
                    listening.remove();
                    return Ok(());
                }
            }
            if stop {
                break;
            }
        }
        systemd::notify("STOPPING=1");
        if let Some(control) = &control {
            control.remove();
        }
        lame_duck(&mut running, &mut stops).await;
        tracing::info!("stopping");
        running.stop().await;
        Ok(())
    }
}

/// Serves on for a while, not ready any more, so that clients are sent elsewhere first; a signal ends it.
async fn lame_duck(running: &mut Running, stops: &mut Stops) {
    let left = running.leave();
    if left.is_zero() {
        return;
    }
    tracing::info!(seconds = left.as_secs_f64(), "told to stop: serving on, not ready any more");
    let end = tokio::time::sleep(left);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            () = stops.next() => return,
            asked = running.asked() => match asked {
                Asked::Reload(reply) => {
                    // Who asked may have gone.
                    let _ = reply.send(Err("not reloaded: the server is about to stop".to_owned()));
                }
                Asked::Leave | Asked::End => return,
            },
        }
    }
}

/// A server whose output nobody reads goes on.
fn printed(said: anyhow::Result<()>) {
    if let Err(error) = said {
        tracing::warn!("cannot print what is listened on: {error:#}");
    }
}

/// Signals that end the server.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A server, alone or in place of the one before it, and its control socket, if it can have one.
async fn start(
    config: Config,
    given: Sockets,
    predecessor: Option<&Predecessor>,
) -> anyhow::Result<(Running, Option<Control>)> {
    let Some(predecessor) = predecessor else {
        let running = crate::start_with(config, given).await?;
        let path = control_place(&running);
        let control = path.and_then(Control::bind);
        let control =
            control.inspect_err(|e| tracing::warn!("no control socket, `restart` will not work: {e}"));
        return Ok((running, control.ok()));
    };
    let Inheritance { mut sockets, data } = predecessor.sockets().await?;
    if restart::dir(&config.data) != data.as_deref() {
        let place = |dir: Option<&Path>| dir.map_or("nowhere".to_owned(), |dir| dir.display().to_string());
        bail!(
            "definitions are to be kept in {}, the running server keeps them in {}: stop it and start anew",
            place(restart::dir(&config.data)),
            place(data.as_deref())
        );
    }
    let listener = sockets.control.take();
    let running = crate::succeed(config, sockets, predecessor).await?;
    let control =
        listener.and_then(|listener| Control::inherited(listener, control_place(&running).ok()?).ok());
    Ok((running, control))
}

fn control_place(running: &Running) -> io::Result<PathBuf> {
    let port = running.http.iter().chain(&running.https).next().map_or(0, SocketAddr::port);
    control::place(restart::dir(running.data()), port)
}

/// The next request on the control socket; none ever, where there is no socket.
async fn accept(control: Option<&Control>) -> Connection {
    match control {
        Some(control) => control.accept().await,
        None => std::future::pending().await,
    }
}

/// Lets it come to its end, at once if a signal says to stop; and whether one did.
async fn unless_stopped<T>(
    mut handing: Pin<Box<impl Future<Output = T>>>,
    stops: &mut Stops,
    abandon: &CancellationToken,
) -> (T, bool) {
    tokio::select! {
        outcome = &mut handing => return (outcome, false),
        () = stops.next() => abandon.cancel(),
    }
    (handing.await, true)
}

/// Whether a signal has come that was not looked at yet.
fn has_come(signal: &mut Signal) -> bool {
    signal.recv().now_or_never().is_some()
}

/// A signal that came too late for us is our successor's.
fn pass_on(pid: u32, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    Ok(nix::sys::signal::kill(pid, signal)?)
}

fn announce(running: &Running) -> anyhow::Result<()> {
    for address in &running.dns {
        say(format_args!("listening for DNS on {address} (UDP and TCP)"))?;
    }
    for address in &running.http {
        say(format_args!("listening for HTTP on {address}"))?;
    }
    for address in &running.https {
        say(format_args!("listening for HTTPS on {address}"))?;
    }
    for path in &running.unix {
        say(format_args!("listening for HTTP on unix://{}", path.display()))?;
    }
    say(format_args!("ready"))
}

/// Reads everything again, and names keys that wait for the next start. A bad file changes nothing.
async fn reload(arguments: &Arguments, running: &mut Running) -> Result<Vec<&'static str>, String> {
    let refused = |text: String| {
        let text = format!("not reloaded, nothing was changed: {text}");
        tracing::error!("{text}");
        Err(text)
    };
    let config = match arguments.config() {
        Ok(config) => config,
        Err(errors) => return refused(format!("\n{}", lines(&errors))),
    };
    warn(&config);
    let level = config.log.level.clone();
    match running.reload(config).await {
        Err(error) => refused(format!("{error:#}")),
        Ok(waiting) => {
            if let Err(error) = logs::set_level(&level) {
                tracing::error!("the log level stays: {error}");
            }
            if !waiting.is_empty() {
                tracing::warn!("these keys differ and wait for the next start: {}", waiting.join(", "));
            }
            tracing::info!("reloaded");
            Ok(waiting)
        }
    }
}
