//! The real program on a fresh data directory.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::client;

/// There is room beside a million.
const LIMITS: &str = "[limits]\ninstances_max = 2000000\nchecks_max = 2000000\n";

pub(crate) struct Program {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) dns: SocketAddr,
}

impl Program {
    /// Starts it on free ports of loopback; its log goes to a file.
    pub(crate) fn start(program: &Path, dir: &Path) -> Self {
        std::fs::create_dir(dir).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let config = dir.join("rollcall.toml");
        std::fs::write(&config, LIMITS).unwrap();
        let mut command = Command::new(program);
        command.args([
            "serve",
            "--dns",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--node",
            "n1",
            "--data-dir",
        ]);
        command.arg(dir.join("data")).arg("--config").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let (mut http, mut dns) = (None, None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("listening for DNS on ") {
                dns = address.split(' ').next().unwrap().parse().ok();
            } else if let Some(address) = line.strip_prefix("listening for HTTP on ") {
                http = address.parse().ok();
            } else if line == "ready" {
                break;
            }
        }
        Self { child, http: http.expect("an address for HTTP"), dns: dns.expect("an address for DNS") }
    }

    /// CPU time of all its threads, user and system, in microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = tasks.map(|task| {
            // Run time in nanoseconds comes first.
            let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            stat.split(' ').next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0)
        });
        nanos.sum::<f64>() / 1e3
    }

    /// One of its metrics.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut stream = client::connect(self.http);
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let text = String::from_utf8(client::answer(&mut stream)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
