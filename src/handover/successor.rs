//! The running server's side: the process that comes after it.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, DESCRIPTORS_MAX};
use super::{Message, Sockets, VERSION};

/// For the status of a process that has closed its end.
const REAP: Duration = Duration::from_secs(1);

/// How this process was started, and its successor will be.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// That of this process; `flag` tells a successor that it is one. To be asked at the start: the file may be replaced later,
    /// and it is the new one that is wanted.
    pub fn of_this_process(flag: &str) -> Self {
        let mut words = std::env::args_os();
        let first = words.next().map(PathBuf::from).unwrap_or_default();
        let found = if first.components().count() > 1 {
            std::path::absolute(&first).ok()
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join(&first)).find(|path| path.is_file())
        };
        let path = found.filter(|path| path.is_file()).or_else(|| std::env::current_exe().ok());
        let mut arguments: Vec<_> = words.filter(|word| word != flag).collect();
        arguments.push(flag.into());
        Self { path: path.unwrap_or(first), arguments }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A process that is to take our place.
pub struct Successor {
    child: Child,
    pid: u32,
    channel: Channel,
    deadline: Instant,
    within: Duration,
    /// Cancelled when it is not wanted any more.
    abandon: CancellationToken,
}

impl Successor {
    /// Starts it. It has to be ready within the given time.
    pub fn start(program: &Program, within: Duration, abandon: CancellationToken) -> anyhow::Result<Self> {
        let (channel, other) = Channel::pair().context("making a socket pair")?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).stdin(Stdio::from(other));
        // They name this process.
        for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        let shown = program.path.display();
        let child = command.spawn().with_context(|| format!("starting {shown}"))?;
        // Our copy of the other end: with it open we would not notice that the process ends.
        drop(command);
        let pid = child.id().ok_or_else(|| anyhow!("{shown} ended at once"))?;
        Ok(Self { child, pid, channel, deadline: Instant::now() + within, within, abandon })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Gives it the sockets; returns when it has all that can be had before the store.
    pub async fn prepare(&mut self, sockets: &Sockets, data: Option<&Path>) -> anyhow::Result<()> {
        let described = sockets.describe();
        let given = || -> std::io::Result<()> {
            let (data, sockets) = (data.map(Path::to_owned), described.len());
            self.channel.send(&Message::Begin { version: VERSION, data, sockets }, &[])?;
            let mut rest = described.into_iter().peekable();
            while rest.peek().is_some() {
                let (sockets, descriptors): (Vec<_>, Vec<_>) = rest.by_ref().take(DESCRIPTORS_MAX).unzip();
                self.channel.send(&Message::Sockets { sockets }, &descriptors)?;
            }
            Ok(())
        };
        if let Err(error) = given() {
            tracing::debug!("giving the sockets: {error}");
        }
        // Whatever became of it is heard here.
        match self.next().await? {
            Message::Prepared => Ok(()),
            other => bail!("the new process said {other:?} out of turn"),
        }
    }

    /// Gives it the store, which we have closed; returns when it answers DNS.
    pub async fn inherit(&mut self, state: Option<&File>) -> anyhow::Result<()> {
        let descriptors: Vec<_> = state.iter().map(|file| file.as_fd()).collect();
        if let Err(error) = self.channel.send(&Message::Yours, &descriptors) {
            tracing::debug!("giving the store: {error}");
        }
        match self.next().await? {
            Message::Ready => Ok(()),
            other => bail!("the new process said {other:?} out of turn"),
        }
    }

    /// Tells it that we do not answer any more.
    pub fn alone(&self) {
        // Should it have ended by now, nobody can help.
        let _ = self.channel.send(&Message::Silent, &[]);
    }

    /// Ends it; when this returns it holds nothing any more.
    pub async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::error!(pid = self.pid, "the new process cannot be ended: {error}");
        }
    }

    async fn next(&mut self) -> anyhow::Result<Message> {
        let received = tokio::select! {
            received = self.channel.receive() => received.context("hearing from the new process")?,
            () = tokio::time::sleep_until(self.deadline) => {
                bail!("the new process was not ready within {:?}", self.within)
            }
            () = self.abandon.cancelled() => bail!("the server was told to stop meanwhile"),
        };
        match received {
            Some((Message::Failed { reason }, _)) => bail!("{reason}"),
            Some((message, _)) => Ok(message),
            None => Err(self.gone().await),
        }
    }

    /// What became of a process that has closed its end.
    async fn gone(&mut self) -> anyhow::Error {
        match tokio::time::timeout(REAP, self.child.wait()).await {
            Ok(Ok(status)) => anyhow!("the new process ended before it was ready ({status})"),
            _ => {
                anyhow!("the new process knows nothing of a restart: is it another program, or an older one?")
            }
        }
    }
}
