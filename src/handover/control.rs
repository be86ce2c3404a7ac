//! The control socket: where `rollcall restart` asks the running server.
//!
//! A Unix socket of mode 0600. Whoever connects has to be the server's own user or root (SO_PEERCRED). One JSON line asks;
//! JSON lines tell how it goes until one says how it ended.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// How long one who connects may take to say what is wanted, and the server to take what it is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much longer than the successor's limit an answer may take: the server has to end its work or take it up again.
const SETTLE: Duration = Duration::from_secs(60);
const REQUEST_OCTETS_MAX: u64 = 4096;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Asked {
    /// A restart; the successor has to be ready within the given time.
    Restart { within_ms: u64 },
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Progress(String),
    /// The process that serves now.
    Done {
        pid: u32,
    },
    Failed(String),
}

/// Where the socket is: in the data directory, or, of a server that keeps nothing, in the user's runtime directory, by its
/// HTTP port.
pub fn place(data: Option<&Path>, http_port: u16) -> io::Result<PathBuf> {
    match data {
        Some(dir) => Ok(dir.join("control.sock")),
        None => Ok(runtime_dir()?.join(format!("rollcall-{http_port}.sock"))),
    }
}

/// `$XDG_RUNTIME_DIR`, else a directory of our own among the temporary files.
fn runtime_dir() -> io::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let own = own_uid();
    let dir = std::env::temp_dir().join(format!("rollcall-{own}"));
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&dir)?;
    if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
        let why = format!("{} is not a directory of ours alone", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(dir)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether one of this user may ask.
fn may_ask(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

/// The server's end.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Binds it. What a server that crashed left there is taken away; one that answers keeps its place. Must be called
    /// inside a runtime.
    pub fn bind(path: PathBuf) -> io::Result<Self> {
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server has it"));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Goes on with that of the server before us, or, where ours is to be in another place, in its stead. Must be called
    /// inside a runtime.
    pub fn inherited(listener: StdListener, path: PathBuf) -> io::Result<Self> {
        let before = listener.local_addr()?.as_pathname().map(Path::to_owned);
        if let Some(before) = before.filter(|before| *before != path) {
            let own = Self::bind(path)?;
            // It may be gone with its directory.
            let _ = fs::remove_file(before);
            return Ok(own);
        }
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path })
    }

    /// Another handle on it, for a successor.
    pub fn try_clone(&self) -> io::Result<StdListener> {
        use std::os::fd::AsFd;
        Ok(self.listener.as_fd().try_clone_to_owned()?.into())
    }

    /// The next connection of one who may ask. Nothing is lost when this is dropped while it waits.
    pub async fn accept(&self) -> Connection {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!("accepting on the control socket: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) if may_ask(peer.uid(), own_uid()) => return Connection(BufReader::new(stream)),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "the control socket is not for this user"),
                Err(error) => tracing::debug!("the control socket: {error}"),
            }
        }
    }

    /// Takes the socket's file away: the server ends.
    pub fn remove(&self) {
        // It may be gone with its directory.
        let _ = fs::remove_file(&self.path);
    }
}

/// One who asks.
pub struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Reads what is wanted: a restart, with the time that the successor has. `None` when it makes no sense.
    pub async fn restart_within(&mut self) -> Option<Duration> {
        let mut line = String::new();
        let mut bounded = (&mut self.0).take(REQUEST_OCTETS_MAX);
        let read = timeout(PATIENCE, bounded.read_line(&mut line)).await;
        match (read, serde_json::from_str(&line)) {
            (Ok(Ok(_)), Ok(Asked::Restart { within_ms })) => Some(Duration::from_millis(within_ms)),
            _ => {
                self.tell(&Told::Failed("the request is not understood".into())).await;
                None
            }
        }
    }

    pub async fn progress(&mut self, text: impl Into<String>) {
        self.tell(&Told::Progress(text.into())).await;
    }

    pub async fn done(mut self, pid: u32) {
        self.tell(&Told::Done { pid }).await;
    }

    pub async fn failed(mut self, reason: String) {
        self.tell(&Told::Failed(reason)).await;
    }

    /// One who does not listen any more changes nothing.
    async fn tell(&mut self, told: &Told) {
        let Ok(mut line) = serde_json::to_vec(told) else { return };
        line.push(b'\n');
        let _ = timeout(PATIENCE, self.0.write_all(&line)).await;
    }
}

/// Asks the server for a restart, passes on how it goes, and returns the new process.
pub async fn ask_restart(
    path: &Path,
    within: Duration,
    progress: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<u32> {
    let stream = UnixStream::connect(path).await.with_context(|| {
        format!(
            "cannot reach a running server at {}; is it running, and is --data-dir its own?",
            path.display()
        )
    })?;
    let peer = stream.peer_cred().context("asking who listens on the control socket")?.uid();
    // Among the temporary files, another user could have made a socket of that name.
    if !may_ask(peer, own_uid()) && own_uid() != 0 {
        bail!("{} belongs to a server of another user ({peer})", path.display());
    }
    let mut stream = BufReader::new(stream);
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    let mut line = serde_json::to_string(&Asked::Restart { within_ms })?;
    line.push('\n');
    // A broken pipe is an error here, and not the end of one who reads what we print.
    stream.write_all(line.as_bytes()).await.map_err(|error| anyhow!("the server broke off: {error}"))?;
    loop {
        line.clear();
        let read = timeout(within + SETTLE, stream.read_line(&mut line)).await;
        let read = read.context("the server does not say how it went")?;
        if read.context("the server broke off")? == 0 {
            bail!("the server broke off without saying how it went; see its log");
        }
        match serde_json::from_str(&line).with_context(|| format!("the server said {line:?}"))? {
            Told::Progress(text) => progress(&text)?,
            Told::Done { pid } => return Ok(pid),
            Told::Failed(reason) => bail!("{reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_and_root_may_ask() {
        assert!(may_ask(1000, 1000) && may_ask(0, 1000));
        assert!(!may_ask(1001, 1000) && !may_ask(1000, 0));
    }

    #[tokio::test]
    async fn what_a_crash_left_is_taken_away_and_one_that_lives_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = place(Some(dir.path()), 0).unwrap();
        let first = Control::bind(path.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Control::bind(path.clone()).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let second = Control::bind(path.clone()).unwrap();
        // One after it that is to be elsewhere leaves nothing behind.
        let elsewhere = dir.path().join("elsewhere.sock");
        let third = Control::inherited(second.try_clone().unwrap(), elsewhere.clone()).unwrap();
        assert!(!path.exists());
        let fourth = Control::inherited(third.try_clone().unwrap(), elsewhere.clone()).unwrap();
        drop((second, third));
        assert!(std::os::unix::net::UnixStream::connect(&elsewhere).is_ok());
        fourth.remove();
        assert!(!elsewhere.exists());
    }
}
