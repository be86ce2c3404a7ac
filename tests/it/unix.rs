//! HTTP on a Unix socket: who may connect, whose node it is, what is left behind, and a restart.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::daemon::{Daemon, rollcall, run};

/// The status and the body of an answer.
async fn ask(
    path: &Path,
    host: &str,
    method: &str,
    target: &str,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(path).await?;
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, body.to_owned()))
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

struct Place {
    dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        Self { dir, socket }
    }

    fn words(&self) -> [String; 8] {
        let (data, socket) = (self.dir.path().join("data"), self.socket.display());
        let data = data.to_str().unwrap();
        ["--data-dir", data, "--http", &format!("unix://{socket}"), "--dns", "127.0.0.1:0", "--node", "n1"]
            .map(str::to_owned)
    }

    fn start(&self, more: &[&str]) -> Daemon {
        let words = self.words();
        let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        // A umask that takes nothing away.
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", "umask 0; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_rollcall")]);
        for (name, _) in rollcall().get_envs() {
            command.env_remove(name);
        }
        Daemon::of(command, &words)
    }
}

#[tokio::test]
async fn it_is_private_and_acts_for_our_own_node() {
    let place = Place::new();
    let daemon = place.start(&[]);
    assert_eq!(daemon.unix, [place.socket.to_str().unwrap()]);
    assert!(daemon.http.is_empty());
    assert_eq!(mode(&place.socket), 0o600, "whatever the umask");
    assert_eq!(mode(&place.dir.path().join("data")), 0o700);
    let body = json!({ "Name": "web", "Port": 80 }).to_string();
    // Go's client writes the path into Host.
    let host = place.socket.to_str().unwrap();
    let (status, text) = ask(&place.socket, host, "PUT", "/v1/agent/service/register", &body).await.unwrap();
    assert_eq!((status, text.as_str()), (200, ""));
    let (_, text) = ask(&place.socket, "localhost", "GET", "/v1/catalog/service/web", "").await.unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&found[0]["Node"], &found[0]["Address"]), (&json!("n1"), &json!("127.0.0.1")), "{found}");
    // What is for callers on this machine only.
    let (status, text) = ask(&place.socket, "localhost", "GET", "/v1/rollcall/backup", "").await.unwrap();
    assert!(status == 200 && text.contains("\"web\""), "{status} {text}");
    let server = format!("unix://{}", place.socket.display());
    let output = run(&["instances", "web", "--server", &server]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("web"), "{output:?}");
    assert!(daemon.end(Signal::SIGTERM).success());
    assert!(!place.socket.exists(), "it goes with the server");
}

#[tokio::test]
async fn mode_and_owner_are_as_wanted() {
    let place = Place::new();
    let file = place.dir.path().join("rollcall.toml");
    let own = rollcall_group();
    std::fs::write(&file, format!("[http]\nunix_mode = \"0660\"\nunix_owner = \":{own}\"\n")).unwrap();
    let _daemon = place.start(&["--config", file.to_str().unwrap()]);
    assert_eq!(mode(&place.socket), 0o660);
    assert_eq!(std::fs::metadata(&place.socket).unwrap().gid(), own);
    for (text, words) in [
        ("unix_mode = \"9\"", "is not permission bits"),
        ("unix_mode = \"01777\"", "is not permission bits"),
        ("listen = [\"unix://relative\"]", "is not unix:// and an absolute path"),
        ("listen = [\"unix:/x\"]", "is not an IP address and a port"),
        ("listen = []", "[http] listen is empty, and so is [https] listen"),
    ] {
        std::fs::write(&file, format!("[http]\n{text}\n")).unwrap();
        let output = run(&["check-config", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(words), "{said}");
    }
}

/// A group that we are in, by number.
fn rollcall_group() -> u32 {
    nix::unistd::getegid().as_raw()
}

#[tokio::test]
async fn what_a_crash_left_is_replaced_and_nothing_else() {
    let place = Place::new();
    drop(place.start(&[]));
    assert!(place.socket.exists(), "SIGKILL leaves it");
    let daemon = place.start(&[]);
    assert_eq!(ask(&place.socket, "localhost", "GET", "/health", "").await.unwrap().0, 200);
    // Another server does not take it.
    let other = place.dir.path().join("other");
    let words = place.words();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words[1] = other.to_str().unwrap();
    let refused = |words: &[&str]| {
        let output = run(&[&["serve"][..], words].concat());
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&words);
    assert!(said.contains("another process listens there"), "{said}");
    assert_eq!(ask(&place.socket, "localhost", "GET", "/health", "").await.unwrap().0, 200);
    daemon.end(Signal::SIGTERM);
    std::fs::write(&place.socket, "precious").unwrap();
    let said = refused(&words);
    assert!(said.contains("a file that is no socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&place.socket).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_hands_it_over_without_a_gap() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let inode = std::fs::metadata(&place.socket).unwrap().ino();
    let body = json!({ "Name": "web" }).to_string();
    assert_eq!(ask(&place.socket, "x", "PUT", "/v1/agent/service/register", &body).await.unwrap().0, 200);
    let ended = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn({
        let (socket, ended) = (place.socket.clone(), ended.clone());
        async move {
            let mut asked = 0;
            while !ended.load(Ordering::Relaxed) {
                let answer = ask(&socket, "localhost", "GET", "/v1/catalog/services", "").await;
                let (status, text) = answer.expect("nobody is refused");
                assert!(status == 200 && text.contains("web"), "{status} {text}");
                asked += 1;
            }
            asked
        }
    });
    let data = place.dir.path().join("data");
    let output = tokio::task::spawn_blocking(move || run(&["restart", "--data-dir", data.to_str().unwrap()]));
    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    ended.store(true, Ordering::Relaxed);
    assert!(asking.await.unwrap() > 0);
    assert_eq!(std::fs::metadata(&place.socket).unwrap().ino(), inode, "the same socket");
    assert_eq!(ask(&place.socket, "localhost", "GET", "/health", "").await.unwrap().0, 200);
    drop(daemon);
    // The one that serves now takes it away.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let pid =
        said.lines().last().and_then(|line| line.split(' ').find_map(|word| word.parse().ok())).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let gone = async {
        while place.socket.exists() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(crate::server::PATIENCE, gone).await.expect("it stayed");
}
