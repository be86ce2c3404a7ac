//! `rollcall restart`: asks the running server to start its successor, and what that server does then.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::place::Place;
use super::{block_on, say};
use crate::Running;
use crate::config::Data;
use crate::handover::control::{self, Connection, Control};
use crate::handover::{Program, Successor, systemd};
use crate::model::duration;

/// Flags of `restart`.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The server keeps nothing
    #[arg(long, env = "ROLLCALL_EPHEMERAL", conflicts_with = "data_dir", value_parser = clap::builder::FalseyValueParser::new())]
    ephemeral: bool,
    /// The HTTP port of a server that keeps nothing; its HTTPS port, if it has no other; 0, if it has Unix sockets alone
    #[arg(long, value_name = "PORT", default_value_t = 8500)]
    http_port: u16,
    /// How long the new process may take to be ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    within: Duration,
}

/// Asks, and prints how it goes.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let data = match (&arguments.place.data_dir, arguments.ephemeral) {
        (Some(dir), _) => Data::Dir(dir.clone()),
        (None, true) => Data::Ephemeral,
        (None, false) => arguments.place.config()?.data,
    };
    let path = control::place(dir(&data), arguments.http_port)?;
    let asked = control::ask_restart(&path, arguments.within, |text| say(format_args!("{text}")));
    let pid = block_on(asked).context("not restarted")?;
    say(format_args!("Restarted: process {pid} serves now"))
}

/// The data directory, of a server that has one.
pub(super) fn dir(data: &Data) -> Option<&Path> {
    match data {
        Data::Dir(dir) => Some(dir),
        Data::Ephemeral => None,
    }
}

/// What became of a request for a restart.
pub(super) enum Outcome {
    /// The process of this number serves; nothing is left here but to end.
    Replaced(u32),
    /// We serve on.
    Kept(Box<Running>),
    /// It was given up for a signal to stop, and so we have.
    Stopped,
}

/// The server's side: gives all it has to a successor; if that fails, takes it back.
pub(super) async fn hand_over(
    running: Running,
    mut asked: Connection,
    control: &Control,
    program: &Program,
    abandon: CancellationToken,
) -> Outcome {
    let Some(within) = asked.restart_within().await else { return Outcome::Kept(running.into()) };
    tracing::info!(program = %program.path().display(), "restarting");
    let mut successor = match prepare(&running, &mut asked, control, program, within, abandon.clone()).await {
        Ok(successor) => successor,
        Err(error) => {
            refuse(asked, &error).await;
            return Outcome::Kept(running.into());
        }
    };
    let closed = running.close_doors().await;
    asked.progress("no more changes are taken; the store is closed").await;
    let state = closed.state();
    let inherited = match &state {
        Ok(state) => successor.inherit(state.as_ref()).await,
        Err(error) => Err(anyhow!("{error:#}")),
    };
    if let Err(error) = inherited {
        successor.kill().await;
        let running = closed.open_again(state.ok().flatten().as_ref(), &abandon).await;
        let Some(running) = running else {
            asked.failed(format!("{error:#}")).await;
            return Outcome::Stopped;
        };
        refuse(asked, &error).await;
        return Outcome::Kept(running.into());
    }
    asked.progress("the new process answers DNS").await;
    let pid = successor.pid();
    // Before this process, which systemd watches, ends.
    systemd::notify(&format!("MAINPID={pid}"));
    closed.stop().await;
    successor.alone();
    tracing::info!(pid, "another process serves now");
    asked.done(pid).await;
    Outcome::Replaced(pid)
}

/// As far as nothing is changed.
async fn prepare(
    running: &Running,
    asked: &mut Connection,
    control: &Control,
    program: &Program,
    within: Duration,
    abandon: CancellationToken,
) -> anyhow::Result<Successor> {
    if std::process::id() == 1 {
        return Err(anyhow!(
            "this server is process 1, and everything ends with it: start its container anew"
        ));
    }
    running.registry().writable().context("definitions cannot be stored at present")?;
    let mut sockets = running.sockets().context("taking handles on the sockets")?;
    sockets.control = Some(control.try_clone().context("taking a handle on the control socket")?);
    let mut successor = Successor::start(program, within, abandon)?;
    asked.progress(format!("process {} was started", successor.pid())).await;
    match successor.prepare(&sockets, dir(running.data())).await {
        Ok(()) => {
            asked.progress("it has its configuration and the sockets").await;
            Ok(successor)
        }
        Err(error) => {
            successor.kill().await;
            Err(error)
        }
    }
}

async fn refuse(asked: Connection, error: &anyhow::Error) {
    let pid = std::process::id();
    tracing::error!("not restarted, this process serves on: {error:#}");
    asked.failed(format!("{error:#}; process {pid} serves on")).await;
}
