//! What stays, and what changes, from one process to the next: checks, the configuration, and what is asked for in between.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::failures::Stage;
use super::{Later, addresses, register, restart};
use crate::daemon::Daemon;
use crate::server::PATIENCE;

/// Awaits it by asking again.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let whole = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn two_restarts_at_once_follow_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Daemon::start(dir.path(), &[]);
    register(server.http[0], json!({ "Name": "web", "Port": 1 })).await;
    let restart = || {
        let data = dir.path().to_str().unwrap().to_owned();
        tokio::task::spawn_blocking(move || restart(&["--data-dir", &data]))
    };
    let (first, second) = tokio::join!(restart(), restart());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(server.child.wait().unwrap().success());
    until("one of the two has ended", async || first.is_running() != second.is_running()).await;
    register(server.http[0], json!({ "Name": "more", "Port": 1 })).await;
    assert_eq!((addresses(server.dns[0], "web").await, addresses(server.dns[0], "more").await), (1, 1));
}

/// How many threads of a process answer over UDP.
fn udp_threads(of: i32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "dns-udp").count()
}

/// A thread takes its name when it first runs, which may be after another answered.
async fn have_threads(of: i32, wanted: usize) {
    until(&format!("{wanted} threads for UDP"), async || udp_threads(of) == wanted).await;
}

/// A port that was free just now, and stays so: of an address that no other test listens on.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.7.7.7:0").unwrap().local_addr().unwrap()
}

/// Asks from many ports, so that each of the sockets of an address is asked.
async fn all_answer(dns: SocketAddr) {
    for _ in 0..40 {
        assert_eq!(addresses(dns, "web").await, 1);
    }
}

#[tokio::test]
async fn a_new_configuration_is_taken_and_no_queue_of_the_old_one_is_left_unread() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rollcall.toml");
    let (first, second, third, http) = (free(), free(), free(), free());
    let write = |listen: &[SocketAddr], threads: usize| {
        let listen: Vec<_> = listen.iter().map(ToString::to_string).collect();
        let text =
            format!("[dns]\nlisten = {listen:?}\nudp_threads = {threads}\n[http]\nlisten = [\"{http}\"]\n");
        std::fs::write(&file, text).unwrap();
    };
    write(&[first, second], 3);
    let (data, file) = (dir.path().join("data"), file.to_str().unwrap());
    let words = ["--data-dir", data.to_str().unwrap()];
    let server = Daemon::with(&[&words[..], &["--config", file, "--node", "n1"]].concat());
    register(http, json!({ "Name": "web", "Port": 1 })).await;
    have_threads(server.child.id() as i32, 6).await;
    // One address goes, one comes; of the one that stays all three sockets are read.
    write(&[first, third], 1);
    let later = restart(&words);
    have_threads(later.0, 4).await;
    all_answer(first).await;
    all_answer(third).await;
    until("the address is free", async || std::net::UdpSocket::bind(second).is_ok()).await;
    std::mem::forget(later);
    write(&[first, third], 4);
    let later = restart(&words);
    have_threads(later.0, 8).await;
    all_answer(first).await;
    all_answer(third).await;
}

#[tokio::test]
async fn a_reload_that_is_asked_for_during_a_restart_is_done_by_the_successor() {
    let mut stage = Stage::new(&[]);
    let (go, log) = (stage.data().join("go"), stage.data().join("log"));
    let real = env!("CARGO_BIN_EXE_rollcall");
    let (shown, logged) = (go.display(), log.display());
    stage.script(&format!("while [ ! -e {shown} ]; do sleep 0.01; done\nexec {real} \"$@\" 2>{logged}"));
    let data = stage.data();
    let restarted = tokio::task::spawn_blocking(move || restart(&["--data-dir", data.to_str().unwrap()]));
    let children = format!("/proc/{0}/task/{0}/children", stage.server.child.id());
    // The kernel lists children of the thread that started them.
    let tasks = Path::new(&children).parent().and_then(Path::parent).unwrap().to_owned();
    let has_child = || {
        let tasks = std::fs::read_dir(&tasks).unwrap().flatten();
        tasks.into_iter().any(|task| {
            std::fs::read_to_string(task.path().join("children")).is_ok_and(|text| !text.is_empty())
        })
    };
    until("the successor was started", async || has_child()).await;
    stage.server.signal(Signal::SIGHUP);
    std::fs::write(go, "").unwrap();
    let _later = restarted.await.unwrap();
    assert!(stage.server.child.wait().unwrap().success());
    let reloaded = async || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"reloaded\""));
    until("it reloads", reloaded).await;
}

/// A health page that takes its time, so that a probe is mostly under way.
async fn slow_page(listener: TcpListener) {
    let answer = async |mut stream: TcpStream| {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).await.is_ok_and(|octets| octets > 0) {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let answered = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            if answered.is_err() {
                return;
            }
        }
    };
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(answer(stream));
    }
}

#[tokio::test]
async fn checks_go_on_and_no_status_flaps() {
    let dir = tempfile::tempdir().unwrap();
    let server = Daemon::start(dir.path(), &[]);
    let (http, dns) = (server.http[0], server.dns[0]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let page = listener.local_addr().unwrap();
    let program = tokio::spawn(slow_page(listener));
    let check = json!({ "HTTP": format!("http://{page}/"), "Interval": "1s", "Timeout": "10s" });
    register(http, json!({ "Name": "web", "Check": check })).await;
    register(http, json!({ "Name": "ttl", "Check": { "TTL": "3s", "Status": "passing" } })).await;
    until("web passes", async || addresses(dns, "web").await == 1).await;
    let data = dir.path().to_str().unwrap().to_owned();
    let mut later: Option<Later> = None;
    for _ in 0..3 {
        let data = data.clone();
        let restarting = tokio::task::spawn_blocking(move || restart(&["--data-dir", &data]));
        while !restarting.is_finished() {
            assert_eq!(addresses(dns, "web").await, 1, "it flapped");
        }
        if let Some(before) = later.replace(restarting.await.unwrap()) {
            std::mem::forget(before);
        }
    }
    assert_eq!((addresses(dns, "web").await, addresses(dns, "ttl").await), (1, 1));
    // Nobody says that it lives: it goes, by the successor's clock. So does one whose probes fail.
    program.abort();
    until("the TTL ends", async || addresses(dns, "ttl").await == 0).await;
    until("the probes fail", async || addresses(dns, "web").await == 0).await;
    kill(Pid::from_raw(later.unwrap().0), Signal::SIGTERM).unwrap();
}
