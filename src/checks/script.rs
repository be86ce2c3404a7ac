//! Script checks: a program is run, and its exit code is the status.
//!
//! No shell is between, so nothing in the arguments is interpreted. The program leads a process group of its own, which
//! is killed as a whole when the time is up or the probe is dropped (the check was replaced, the server stops): what it
//! started goes with it. What it leaves behind when it ends in time stays, as a script that restarts a service wants it;
//! but the probe does not wait for it, as Consul does when it keeps the output open.
//!
//! Starting a program can block (a network filesystem that hangs), so it is done on a thread for that.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use self::output::Output;
use super::connect;
use super::probe::{Finding, Tools};
use crate::model::{Status, duration};

mod output;

/// For output that was written before the end and is still in the pipe, which somebody else may hold open.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// For what was killed to be gone; what hangs in the kernel is left to tokio.
const REAP: Duration = Duration::from_secs(1);

/// Variables that are not passed on: our own settings, which may hold secrets, and what systemd gave to us alone.
const OWN_PREFIX: &str = "ROLLCALL_";
const OWN: [&str; 8] = [
    "CREDENTIALS_DIRECTORY",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Runs `args` once, for `limit` at most. The last `output_max` octets of what it printed on either stream are shown,
/// after a line that says so if there were more.
pub(super) async fn probe(args: &[String], limit: Duration, output_max: usize, _: &Tools) -> Finding {
    let mut output = Output::new(output_max);
    let mut running = None;
    let outcome = timeout(limit, async {
        let (started, printed) = start(args).await?;
        running.insert(started).end(printed, &mut output).await
    });
    match outcome.await {
        Ok(Ok(status)) => judge(status, output.shown()),
        Ok(Err(why)) => Finding::critical(why),
        Err(_) => {
            if let Some(mut running) = running {
                running.kill();
                let _ = timeout(REAP, running.0.wait()).await;
            }
            let mut text = format!("Timed out ({}) running check", duration::format(limit));
            if !output.is_empty() {
                text = format!("{text}\n{}", output.shown());
            }
            Finding::critical(text)
        }
    }
}

fn judge(status: ExitStatus, mut shown: String) -> Finding {
    let verdict = match status.code() {
        Some(0) => Status::Passing,
        Some(1) => Status::Warning,
        _ => Status::Critical,
    };
    // Nobody could tell from an empty output what happened.
    if status.signal().is_some() || (shown.is_empty() && verdict != Status::Passing) {
        shown.push_str(&status.to_string());
    }
    Finding::new(verdict, shown)
}

/// A program that runs, and is killed with all it started when this is dropped.
struct Running(Child);

impl Running {
    /// Reads what it prints until it ends.
    async fn end(&mut self, mut printed: pipe::Receiver, output: &mut Output) -> Result<ExitStatus, String> {
        let mut reading = pin!(async {
            let mut octets = [0; 4096];
            while let Ok(length @ 1..) = printed.read(&mut octets).await {
                output.add(&octets[..length]);
            }
        });
        let ended = tokio::select! {
            ended = self.0.wait() => {
                let _ = timeout(LAST_WORDS, reading).await;
                ended
            }
            // It closed its output and runs on.
            () = &mut reading => self.0.wait().await,
        };
        ended.map_err(|error| format!("the script's end was not seen: {error}"))
    }

    /// Kills the group. Its number is ours as long as its leader was not waited for, and unknown here after that: a group
    /// that has since got the same number is safe.
    fn kill(&mut self) {
        if let Some(leader) = self.0.id().and_then(|id| i32::try_from(id).ok()) {
            // All of it may have ended just now.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_own(variable: &OsStr) -> bool {
    variable.to_str().is_some_and(|name| name.starts_with(OWN_PREFIX) || OWN.contains(&name))
}

/// Starts the program, and gives the end of a pipe on which it prints.
async fn start(args: &[String]) -> Result<(Running, pipe::Receiver), String> {
    let Some((program, rest)) = args.split_first() else {
        return Err("the script has no program to run (ScriptArgs is empty)".to_owned());
    };
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_own(name)) {
        command.env_remove(name);
    }
    // When the probe is dropped meanwhile, so is what this gives.
    let started = tokio::task::spawn_blocking(move || {
        // One pipe for both, so that the lines stand in the order in which they were printed.
        let (printed, printing) = io::pipe()?;
        command.stdout(printing.try_clone()?).stderr(printing);
        let running = Running(command.spawn()?);
        Ok((running, pipe::Receiver::from_owned_fd(printed.into())?))
    });
    let started: io::Result<_> = started.await.map_err(io::Error::from).flatten();
    started.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                " (ScriptArgs begins with a program in PATH or a whole path; no shell is used)"
            }
            io::ErrorKind::PermissionDenied => " (is it executable for the user that Rollcall runs as?)",
            _ => "",
        };
        format!("cannot run {program:?}: {}{hint}", connect::words(&error))
    })
}

#[cfg(test)]
mod tests;
