//! Successors that fail, at each stage: the server that runs goes on, with all it had.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rollcall::handover::Predecessor;
use rollcall::store::{Config, Embedded};
use rollcall::telemetry::Metrics;
use serde_json::json;
use tempfile::TempDir;

use super::{addresses, refused, register, restart};
use crate::daemon::{Daemon, rollcall};
use crate::server::{PATIENCE, request};

/// Where the puppet fails, and where its data directory is.
const STAGE: &str = "PUPPET_STAGE";
const DATA: &str = "PUPPET_DATA";

/// Makes a program by a process of its own. Written by ourselves, it would be open for writing in any child that another
/// test starts meanwhile until that child executes its own, and could not be executed (ETXTBSY).
fn by_another(script: &str, words: &[&OsStr]) {
    let made = std::process::Command::new("sh").args(["-c", script, "sh"]).args(words).status().unwrap();
    assert!(made.success(), "{script}");
}

/// A server whose program can be changed under it.
pub(super) struct Stage {
    dir: TempDir,
    pub(super) server: Daemon,
}

impl Stage {
    pub(super) fn new(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("rollcall");
        symlink(env!("CARGO_BIN_EXE_rollcall"), &program).unwrap();
        let mut command = std::process::Command::new(&program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ROLLCALL_") {
                command.env_remove(name);
            }
        }
        let data = dir.path().join("data").to_str().unwrap().to_owned();
        let words = ["--data-dir", &data, "--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "n1"];
        let server = Daemon::of(command, &[&words[..], more].concat());
        Self { dir, server }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Puts a program in the server's place.
    fn replace(&self, make: impl FnOnce(&Path)) {
        let aside = self.dir.path().join("aside");
        make(&aside);
        std::fs::rename(aside, self.dir.path().join("rollcall")).unwrap();
    }

    pub(super) fn script(&self, text: &str) {
        self.replace(|path| {
            let whole = format!("#!/bin/sh\n{text}\n");
            by_another("printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", &[whole.as_ref(), path.as_ref()]);
        });
    }

    /// A successor of this test's own program, which fails at a stage.
    fn puppet(&self, stage: &str) {
        let program = std::env::current_exe().unwrap();
        let (program, data) = (program.display(), self.data());
        let data = data.display();
        self.script(&format!(
            "{STAGE}={stage} {DATA}={data} exec {program} --exact --nocapture restart::failures::puppet >/dev/null"
        ));
    }

    /// What `restart` says, which has to fail, and after which the same process serves on.
    async fn fails(&mut self, within: &str) -> String {
        let data = self.data();
        let said = refused(&["--data-dir", data.to_str().unwrap(), "--within", within]);
        assert!(said.contains(&format!("process {} serves on", self.server.child.id())), "{said}");
        assert_eq!(self.server.child.try_wait().unwrap(), None);
        said
    }
}

/// Not a test of anything: what a successor does that fails, run by the server of the tests below.
#[test]
fn puppet() {
    let Ok(stage) = std::env::var(STAGE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let data_dir = PathBuf::from(std::env::var(DATA).unwrap());
    let hang = stage.strip_prefix("hang-");
    let stage = hang.unwrap_or(&stage);
    runtime.block_on(async {
        let fail = || match hang {
            Some(_) => std::thread::sleep(PATIENCE * 10),
            None => kill(Pid::this(), Signal::SIGKILL).unwrap(),
        };
        let predecessor = Predecessor::on_stdin().unwrap();
        if stage == "begun" {
            fail();
        }
        let inheritance = predecessor.sockets().await.unwrap();
        assert_eq!(inheritance.data.as_deref(), Some(&*data_dir));
        // UDP on a socket for each core, TCP, HTTP.
        assert_eq!(inheritance.sockets.entries.len(), 2);
        assert!(inheritance.sockets.control.is_some());
        match stage {
            "sockets" => fail(),
            "refused" => {
                predecessor.give_up("the moon is wrong".to_owned());
                return;
            }
            _ => {}
        }
        predecessor.prepared().await.unwrap();
        if stage == "prepared" {
            fail();
        }
        let (log, _entries) = tokio::sync::mpsc::unbounded_channel();
        let config = Config { data_dir, cache_bytes: 1 << 20 };
        let _store = Embedded::open(&config, log, Arc::new(Metrics::default())).unwrap();
        fail();
    });
}

#[tokio::test]
async fn a_successor_that_fails_at_any_stage_leaves_the_server_as_it_was() {
    let mut stage = Stage::new(&[]);
    let (http, dns) = (stage.server.http[0], stage.server.dns[0]);
    let mut registered = 0;
    let cases = [
        ("begun", "60s", "ended before it was ready (signal: 9"),
        ("sockets", "60s", "ended before it was ready (signal: 9"),
        ("refused", "60s", "the moon is wrong"),
        ("prepared", "60s", "ended before it was ready (signal: 9"),
        ("opened", "60s", "ended before it was ready (signal: 9"),
        ("hang-begun", "300ms", "not ready within 300ms"),
        ("hang-prepared", "1s", "not ready within 1s"),
        ("hang-opened", "1s", "not ready within 1s"),
    ];
    for (name, within, expected) in cases {
        stage.puppet(name);
        let said = stage.fails(within).await;
        assert!(said.contains(expected), "{name}: {said}");
        // All that there was is there, and there can be more.
        for number in 0..registered {
            assert_eq!(addresses(dns, &format!("s{number}")).await, 1, "{name}");
        }
        register(http, json!({ "Name": format!("s{registered}"), "Port": 1 })).await;
        registered += 1;
        assert_eq!(addresses(dns, &format!("s{}", registered - 1)).await, 1, "{name}");
    }
    // The next one can.
    stage.replace(|path| symlink(env!("CARGO_BIN_EXE_rollcall"), path).unwrap());
    let data = stage.data();
    let _later = restart(&["--data-dir", data.to_str().unwrap()]);
    assert!(stage.server.child.wait().unwrap().success());
    for number in 0..registered {
        assert_eq!(addresses(dns, &format!("s{number}")).await, 1);
    }
}

#[tokio::test]
async fn programs_that_are_no_successor_and_configurations_that_are_wrong_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rollcall.toml");
    std::fs::write(&file, "").unwrap();
    let mut stage = Stage::new(&["--config", file.to_str().unwrap()]);
    stage.script("exit 3");
    assert!(stage.fails("60s").await.contains("ended before it was ready (exit status: 3)"));
    stage.script("exec sleep 600 <&-");
    assert!(stage.fails("60s").await.contains("knows nothing of a restart"));
    stage.replace(|path| std::fs::write(path, "not a program").unwrap());
    assert!(stage.fails("60s").await.contains("starting "));
    stage.replace(|path| symlink(env!("CARGO_BIN_EXE_rollcall"), path).unwrap());
    std::fs::write(&file, "[dns]\nttl = \"fast\"\n").unwrap();
    let said = stage.fails("60s").await;
    assert!(said.contains("rollcall.toml:2"), "{said}");
    std::fs::write(&file, "[[zone]]\nname = \"example.\"\nfile = \"/nowhere\"\n").unwrap();
    let said = stage.fails("60s").await;
    assert!(said.contains("/nowhere"), "{said}");
    let (http, dns) = (stage.server.http[0], stage.server.dns[0]);
    register(http, json!({ "Name": "web", "Port": 1 })).await;
    assert_eq!(addresses(dns, "web").await, 1);
}

#[tokio::test]
async fn a_signal_to_stop_ends_a_restart_that_hangs_and_the_server() {
    let mut stage = Stage::new(&[]);
    let http = stage.server.http[0];
    register(http, json!({ "Name": "web", "Port": 1 })).await;
    stage.puppet("hang-opened");
    let data = stage.data();
    let mut asking = rollcall()
        .args(["restart", "--data-dir", data.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(asking.stdout.take().unwrap()));
    lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("the store is closed"))).unwrap().unwrap();
    let begun = Instant::now();
    stage.server.signal(Signal::SIGTERM);
    assert!(stage.server.child.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited for the successor's time");
    assert_eq!(asking.wait().unwrap().code(), Some(1));
    assert!(!data.join("control.sock").exists());
    // Nothing has the store, and all is in it.
    let again = Daemon::start(&data, &[]);
    let answer = request(again.http[0], "GET", "/v1/catalog/service/web", &[], "").await;
    assert_eq!(answer.json().as_array().unwrap().len(), 1);
}

/// Another user cannot ask even where the socket's mode lets it: needs root, to be another user.
#[tokio::test]
async fn other_users_are_turned_away() {
    use std::os::unix::process::CommandExt;
    if !rustix_is_root() {
        eprintln!("not root: nobody else to ask as");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Daemon::start(&dir.path().join("data"), &[]);
    let data = dir.path().join("data");
    let program = dir.path().join("rollcall");
    by_another("cp \"$1\" \"$2\"", &[env!("CARGO_BIN_EXE_rollcall").as_ref(), program.as_ref()]);
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let ask = || {
        let mut command = std::process::Command::new(&program);
        command.args(["restart", "--data-dir", data.to_str().unwrap()]).uid(65_534).gid(65_534);
        command.output().unwrap()
    };
    for path in [dir.path(), &data, &program] {
        open(path, 0o755);
    }
    let turned = ask();
    assert!(String::from_utf8_lossy(&turned.stderr).contains("Permission denied"), "{turned:?}");
    open(&data.join("control.sock"), 0o666);
    let turned = ask();
    assert!(String::from_utf8_lossy(&turned.stderr).contains("the server broke off"), "{turned:?}");
    assert_eq!(turned.status.code(), Some(1));
    assert_eq!(addresses(server.dns[0], "nobody").await, 0);
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
