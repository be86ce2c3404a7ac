//! `rollcall restart`: nobody who asks or registers notices, and what goes wrong leaves the running server as it was.

mod changes;
mod failures;
mod load;
mod passed;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::daemon::{Daemon, rollcall, run};
use crate::server::{Answer, PATIENCE, ask, query, request};

/// A process that took over; ended when dropped.
struct Later(i32);

impl Later {
    /// Its first thread may be a zombie while others still hold its files.
    fn is_running(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.0));
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        threads.is_ok_and(|threads| threads.count() > 1)
            || !(state.is_empty() || state.starts_with(['Z', 'X']))
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        // It may have been replaced in its turn.
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
        // It is no child of ours, so nobody tells us of its end.
        while self.is_running() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// Runs `restart`, which must succeed.
fn restart(words: &[&str]) -> Later {
    replaced(&run(&[&["restart"][..], words].concat()))
}

fn replaced(output: &Output) -> Later {
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    let pid = said
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("Restarted: process ")?.strip_suffix(" serves now")?.parse().ok());
    Later(pid.unwrap_or_else(|| panic!("{said}")))
}

/// What a `restart` that must fail says.
fn refused(words: &[&str]) -> String {
    let output = run(&[&["restart"][..], words].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

async fn register(http: SocketAddr, definition: Value) {
    let answer = request(http, "PUT", "/v1/agent/service/register", &[], &definition.to_string()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{definition}");
}

async fn get(http: SocketAddr, path: &str) -> Answer {
    request(http, "GET", path, &[], "").await
}

/// How many addresses a service has in DNS. Where two threads or processes read one queue, answers may overtake one
/// another, so this asks nothing else.
async fn addresses(dns: SocketAddr, service: &str) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns).await.unwrap();
    let asked = query(&format!("{service}.service.internal."), RecordType::A);
    socket.send(&asked.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 512];
    let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
    let length = received.unwrap_or_else(|_| panic!("no answer for {service}")).unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert!(matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain));
    answer.answers.len()
}

async fn serial(dns: SocketAddr) -> u32 {
    let answer = ask(dns, &query("internal.", RecordType::SOA)).await;
    match &answer.answers[0].data {
        hickory_proto::rr::RData::SOA(soa) => soa.serial,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_the_file_defines_is_found_as_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rollcall.toml");
    let text = r#"
        [[service]]
        name = "web"
        port = 80
        [service.check]
        ttl = "1h"
        [[service]]
        name = "db"
        port = 5432
    "#;
    std::fs::write(&file, text).unwrap();
    let data = dir.path().join("data");
    let config = ["--config", file.to_str().unwrap()];
    let server = Daemon::start(&data, &config);
    let (http, dns) = (server.http[0], server.dns[0]);
    assert_eq!(addresses(dns, "web").await, 0);
    for path in ["/v1/agent/check/pass/service:web", "/v1/agent/service/maintenance/db?enable=true"] {
        assert_eq!(request(http, "PUT", path, &[], "").await.status, 200);
    }
    assert_eq!((addresses(dns, "web").await, addresses(dns, "db").await), (1, 0));
    let _later = restart(&["--data-dir", data.to_str().unwrap()]);
    assert_eq!((addresses(dns, "web").await, addresses(dns, "db").await), (1, 0));
    drop(_later);
    // A plain start, too.
    let server = Daemon::start(&data, &config);
    let dns = server.dns[0];
    assert_eq!((addresses(dns, "web").await, addresses(dns, "db").await), (1, 0));
}

#[tokio::test]
async fn a_server_that_keeps_nothing_hands_its_memory_over() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().to_str().unwrap();
    let mut command = rollcall();
    command.env("XDG_RUNTIME_DIR", runtime);
    let ports = ["--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", "n1"];
    let server = Daemon::of(command, &[&["--ephemeral"][..], &ports].concat());
    let (http, dns) = (server.http[0], server.dns[0]);
    let check = json!({ "TTL": "1h", "Status": "passing" });
    register(http, json!({ "Name": "web", "Port": 80, "Tags": ["a"], "Check": check })).await;
    register(http, json!({ "Name": "down", "Port": 81, "Check": { "TTL": "1h" } })).await;
    register(http, json!({ "Name": "away", "Port": 82 })).await;
    let path = "/v1/agent/service/maintenance/away?enable=true";
    assert_eq!(request(http, "PUT", path, &[], "").await.status, 200);
    let node = json!({ "Node": "n2", "Address": "192.0.2.2", "Service": { "Service": "far", "Port": 1 } });
    assert_eq!(request(http, "PUT", "/v1/catalog/register", &[], &node.to_string()).await.status, 200);
    let everything = async || {
        let mut all = Vec::new();
        for path in ["health/state/any", "agent/services"] {
            all.push(get(http, &format!("/v1/{path}")).await.json());
        }
        all.push(get(http, "/v1/agent/self").await.json()["Config"].clone());
        for service in ["web", "down", "away", "far"] {
            let answer = get(http, &format!("/v1/health/service/{service}")).await.json();
            all.extend(["Service", "Checks"].map(|part| answer[0][part].clone()));
            all.push(answer[0]["Node"]["ID"].clone());
        }
        all
    };
    let (before, index) = (everything().await, get(http, "/v1/catalog/services").await.index());
    let found = serial(dns).await;
    let port = http.port().to_string();
    let restart = || {
        rollcall()
            .env("XDG_RUNTIME_DIR", runtime)
            .args(["restart", "--ephemeral", "--http-port", &port])
            .output()
    };
    for _ in 0..2 {
        let later = replaced(&restart().unwrap());
        assert_eq!(everything().await, before);
        assert!(get(http, "/v1/catalog/services").await.index() >= index);
        assert!(serial(dns).await >= found, "the serial went back");
        let counts =
            [addresses(dns, "web").await, addresses(dns, "down").await, addresses(dns, "away").await];
        assert_eq!(counts, [1, 0, 0]);
        std::mem::forget(later);
    }
    let _last = replaced(&restart().unwrap());
}

#[tokio::test]
async fn a_server_that_was_restarted_is_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let mut server = Daemon::start(dir.path(), &[]);
    let first = server.child.id();
    let later = restart(&["--data-dir", data]);
    assert!(server.child.wait().unwrap().success());
    assert_ne!(first as i32, later.0);
    // It has the data directory, the ports and the control socket for itself.
    let (http, dns) = (server.http[0].to_string(), server.dns[0].to_string());
    let second = run(&["serve", "--data-dir", data, "--http", "127.0.0.1:0", "--dns", "127.0.0.1:0"]);
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another rollcall"), "{second:?}");
    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    for words in [["--http", &http, "--dns", "127.0.0.1:0"], ["--http", "127.0.0.1:0", "--dns", &dns]] {
        let second = run(&[&["serve", "--data-dir", other][..], &words].concat());
        assert!(String::from_utf8_lossy(&second.stderr).contains("another server has it"), "{second:?}");
    }
    // It reloads and stops on signals, and takes its control socket away.
    let control = Path::new(data).join("control.sock");
    assert!(control.exists());
    kill(Pid::from_raw(later.0), Signal::SIGTERM).unwrap();
    // What it holds last is the data directory, until it has ended.
    let ended = async {
        while later.is_running() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it does not stop");
    assert!(!control.exists());
    assert!(refused(&["--data-dir", data]).contains("cannot reach a running server"));
    let again = Daemon::start(dir.path(), &[]);
    assert!(again.end(Signal::SIGTERM).success());
}
