//! The real program, started and ended as people do.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A `rollcall serve` that is ready. Killed when dropped.
pub struct Daemon {
    pub child: Child,
    pub dns: Vec<SocketAddr>,
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    /// Paths of Unix sockets.
    pub unix: Vec<String>,
}

/// The program with nothing of our own environment that it would read.
pub fn rollcall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollcall"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROLLCALL_") {
            command.env_remove(name);
        }
    }
    command
}

impl Daemon {
    /// Starts it on free ports of loopback and waits until it says `ready`.
    pub fn start(data: &Path, more: &[&str]) -> Self {
        let data = data.to_str().unwrap();
        let ports = ["--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "n1"];
        Self::with(&[&["--data-dir", data][..], &ports, more].concat())
    }

    /// Starts it with these words only.
    pub fn with(words: &[&str]) -> Self {
        Self::of(rollcall(), words)
    }

    /// The same, and what it writes to standard error.
    pub fn with_errors(words: &[&str]) -> (Self, ChildStderr) {
        let mut command = rollcall();
        command.stderr(Stdio::piped());
        let mut daemon = Self::of(command, words);
        let errors = daemon.child.stderr.take().unwrap();
        (daemon, errors)
    }

    /// Starts a prepared command with these words.
    pub fn of(mut command: Command, words: &[&str]) -> Self {
        command.arg("serve").args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        let (dns, http, https, unix) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut daemon = Self { child, dns, http, https, unix };
        let mut lines = BufReader::new(daemon.child.stdout.take().unwrap()).lines();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended before it was ready")).unwrap();
            if let Some(address) = line.strip_prefix("listening for DNS on ") {
                daemon.dns.push(address.split(' ').next().unwrap().parse().unwrap());
            } else if let Some(path) = line.strip_prefix("listening for HTTP on unix://") {
                daemon.unix.push(path.to_owned());
            } else if let Some(address) = line.strip_prefix("listening for HTTPS on ") {
                daemon.https.push(address.parse().unwrap());
            } else if let Some(address) = line.strip_prefix("listening for HTTP on ") {
                daemon.http.push(address.parse().unwrap());
            } else if line == "ready" {
                return daemon;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Ends it, and gives its exit status.
    pub fn end(mut self, signal: Signal) -> std::process::ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command of the program to its end.
pub fn run(words: &[&str]) -> Output {
    rollcall().args(words).stdin(Stdio::null()).output().unwrap()
}
