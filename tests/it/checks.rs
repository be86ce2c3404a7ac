//! Checks from a registration to what health and DNS show, against real servers.
//!
//! Intervals are long: what is seen before one has passed was seen because something happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use http_body_util::Full;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};

use crate::daemon::Daemon;
use crate::server::TestServer;

/// A program with a health page, which dies as a killed process does: all its sockets at once.
struct Program {
    task: JoinHandle<()>,
    status: Arc<AtomicU16>,
}

/// A free port that nobody else is given while the socket lives.
fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

impl Program {
    fn start(socket: TcpSocket) -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let listener = socket.listen(64).unwrap();
        Self { task: tokio::spawn(serve(listener, status.clone())), status }
    }

    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn serve(listener: TcpListener, status: Arc<AtomicU16>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let status = status.clone();
        let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
            let status = status.load(Ordering::SeqCst);
            async move { Response::builder().status(status).body(Full::<bytes::Bytes>::from("so")) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        connections.spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

/// Whether the first instance's checks have these statuses, in the order of their ids.
fn are(statuses: &'static [&'static str]) -> impl Fn(&Value) -> bool {
    move |entries| {
        let checks = entries[0]["Checks"].as_array();
        // One that is our own node's says nothing here.
        let of_services = |check: &&Value| check["CheckID"] != "serfHealth";
        checks.is_some_and(|checks| {
            checks.iter().filter(of_services).map(|check| &check["Status"]).eq(statuses.iter())
        })
    }
}

fn gone(entries: &Value) -> bool {
    *entries == json!([])
}

async fn in_dns(server: &TestServer, service: &str) -> usize {
    server.ask(&format!("{service}.service.internal."), RecordType::A).await.answers.len()
}

#[tokio::test]
async fn a_program_is_in_dns_when_it_listens_and_out_of_it_when_it_dies() {
    let server = TestServer::start().await;
    let (socket, address) = reserve();
    // As the guide's program does: first the registration, then the listener.
    let check = json!({ "HTTP": format!("http://{address}/health"), "Interval": "10m", "Timeout": "5s" });
    server.register(json!({ "ID": "go-1", "Name": "go", "Port": address.port(), "Check": check })).await;
    assert_eq!(in_dns(&server, "go").await, 0);
    let begun = Instant::now();
    let program = Program::start(socket);
    let up = server.until("go", are(&["passing"])).await;
    assert_eq!(up[0]["Checks"][1]["Output"], format!("HTTP GET http://{address}/health: 200 OK Output: so"));
    assert_eq!(in_dns(&server, "go").await, 1);
    program.die().await;
    server.until("go", are(&["critical"])).await;
    assert_eq!(in_dns(&server, "go").await, 0);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let _program = Program::start(socket);
    server.until("go", are(&["passing"])).await;
    assert_eq!(in_dns(&server, "go").await, 1);
    assert!(begun.elapsed() < Duration::from_secs(600) / 10, "not by the interval");
}

#[tokio::test]
async fn a_listener_is_passing_at_once_and_429_is_a_warning() {
    let server = TestServer::start().await;
    let (socket, address) = reserve();
    let program = Program::start(socket);
    program.status.store(429, Ordering::SeqCst);
    let check = json!({ "HTTP": format!("http://{address}/"), "Interval": "10m" });
    let body = json!({ "Name": "web", "Check": check, "Weights": { "Passing": 9, "Warning": 4 } });
    server.register(body.clone()).await;
    server.until("web", are(&["warning"])).await;
    // Warnings are served.
    assert_eq!(in_dns(&server, "web").await, 1);
    assert_eq!(server.get("/v1/health/service/web?passing").await.text(), "[]");
    // Registering again makes a check due that does not pass, and moves no index by itself.
    program.status.store(200, Ordering::SeqCst);
    server.register(body).await;
    server.until("web", are(&["passing"])).await;
    // A connection is enough for TCP.
    let check = json!({ "TCP": address.to_string(), "Interval": "10m" });
    server.register(json!({ "Name": "tcp", "Check": check })).await;
    let shown = server.until("tcp", are(&["passing"])).await;
    assert_eq!(shown[0]["Checks"][1]["Output"], format!("TCP connect {address}: Success"));
}

#[tokio::test]
async fn thresholds_hold_a_status_until_enough_results_agree() {
    let server = TestServer::start().await;
    let (socket, address) = reserve();
    let program = Program::start(socket);
    let check = json!({ "HTTP": format!("http://{address}/"), "Interval": "1s", "FailuresBeforeWarning": 1,
                        "FailuresBeforeCritical": 3 });
    server.register(json!({ "Name": "web", "Check": check })).await;
    server.until("web", are(&["passing"])).await;
    program.status.store(500, Ordering::SeqCst);
    // One failure warns; the third makes it critical: by two more intervals, compared with one.
    server.until("web", are(&["warning"])).await;
    let begun = Instant::now();
    assert_eq!(in_dns(&server, "web").await, 1);
    server.until("web", are(&["critical"])).await;
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_ttl_check_passes_warns_fails_and_expires() {
    let server = TestServer::start().await;
    let check = json!({ "TTL": "1s" });
    server.register(json!({ "Name": "web", "Check": check })).await;
    for (word, status) in [("pass", &["passing"][..]), ("warn", &["warning"]), ("fail", &["critical"])] {
        let answer = server.put(&format!("/v1/agent/check/{word}/service:web?note=n"), "").await;
        assert_eq!(answer.status, 200);
        let shown = server.get("/v1/health/service/web").await.json();
        assert_eq!(shown[0]["Checks"][1]["Status"], status[0]);
        assert_eq!(in_dns(&server, "web").await, usize::from(word != "fail"));
    }
    let begun = Instant::now();
    server.put("/v1/agent/check/pass/service:web?note=alive", "").await;
    let expired = server.until("web", are(&["critical"])).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let output = "TTL expired (last output before timeout follows): alive";
    assert_eq!(expired[0]["Checks"][1]["Output"], output);
    server.put("/v1/agent/check/pass/service:web", "").await;
    assert_eq!(in_dns(&server, "web").await, 1, "it comes back with a word");
}

#[tokio::test]
async fn the_long_dead_are_deregistered_after_their_time_and_no_sooner() {
    let server = TestServer::start().await;
    // Far below Consul's one minute; the times are compared with one another.
    let register = async |name: &str, after: &str| {
        let check = json!({ "TTL": "1h", "Status": "passing", "DeregisterCriticalServiceAfter": after });
        server.register(json!({ "Name": name, "Check": check })).await;
    };
    for (name, after) in [("short", "1s"), ("long", "3s"), ("saved", "1s"), ("healthy", "1s")] {
        register(name, after).await;
    }
    let begun = Instant::now();
    for name in ["short", "long", "saved"] {
        server.put(&format!("/v1/agent/check/fail/service:{name}"), "").await;
    }
    server.put("/v1/agent/check/warn/service:saved", "").await;
    server.until("short", gone).await;
    let short = begun.elapsed();
    server.until("long", gone).await;
    let long = begun.elapsed();
    assert!(short >= Duration::from_secs(1) && long >= Duration::from_secs(3), "{short:?} {long:?}");
    let ratio = long.as_secs_f64() / short.as_secs_f64();
    assert!((1.5..4.5).contains(&ratio), "{short:?} {long:?}");
    let left = server.get("/v1/catalog/services").await.json();
    assert_eq!(left, json!({ "consul": [], "saved": [], "healthy": [] }));
    assert_eq!(server.get("/v1/agent/checks").await.json().as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn maintenance_hides_an_instance_or_a_node_and_keeps_what_the_probes_say() {
    let server = TestServer::start().await;
    for id in ["a", "b"] {
        let check = json!({ "TTL": "1h", "Status": "passing" });
        server.register(json!({ "ID": id, "Name": "web", "Address": format!("10.0.0.{}", id.len()), "Port": 1, "Check": check })).await;
    }
    let srv = async || server.ask("web.service.internal.", RecordType::SRV).await.answers.len();
    server.register(json!({ "ID": "b", "Name": "web", "Address": "10.0.0.2", "Port": 2 })).await;
    assert_eq!(srv().await, 2);
    server.put("/v1/agent/service/maintenance/a?enable=true", "").await;
    assert_eq!(srv().await, 1);
    server.put("/v1/agent/check/warn/service:a", "").await;
    server.put("/v1/agent/service/maintenance/a?enable=false", "").await;
    assert_eq!(srv().await, 2);
    assert_eq!(server.get("/v1/agent/checks").await.json()["service:a"]["Status"], "warning");
    server.put("/v1/agent/maintenance?enable=true", "").await;
    assert_eq!(srv().await, 0);
    let server = server.restart().await;
    assert_eq!(in_dns(&server, "web").await, 0, "it is kept over a restart");
    server.put("/v1/agent/maintenance?enable=false", "").await;
    assert_eq!(in_dns(&server, "web").await, 2);
}

#[tokio::test]
async fn a_node_check_that_is_critical_hides_every_service_of_the_node() {
    let server = TestServer::start().await;
    for name in ["web", "db"] {
        server.register(json!({ "Name": name })).await;
    }
    server.put("/v1/agent/service/register?node=n2", json!({ "Name": "far" })).await;
    let check = json!({ "CheckID": "disk", "Name": "disk", "TTL": "1h", "Status": "passing" });
    assert_eq!(server.put("/v1/agent/check/register", check).await.status, 200);
    let counts =
        async || (in_dns(&server, "web").await, in_dns(&server, "db").await, in_dns(&server, "far").await);
    assert_eq!(counts().await, (1, 1, 1));
    server.put("/v1/agent/check/fail/disk", "").await;
    assert_eq!(counts().await, (0, 0, 1));
    assert_eq!(server.get("/v1/health/service/web?passing").await.text(), "[]");
    server.put("/v1/agent/check/deregister/disk", "").await;
    assert_eq!(counts().await, (1, 1, 1));
}

#[tokio::test]
async fn an_alias_follows_what_it_names() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "db", "Check": { "TTL": "1h", "Status": "passing" } })).await;
    server.register(json!({ "Name": "web", "Check": { "AliasService": "db" } })).await;
    let shown = server.until("web", are(&["passing"])).await;
    assert_eq!(shown[0]["Checks"][1]["Output"], "All checks passing.");
    server.put("/v1/agent/check/warn/service:db", "").await;
    server.until("web", are(&["warning"])).await;
    server.put("/v1/agent/check/fail/service:db?note=broken", "").await;
    let shown = server.until("web", are(&["critical"])).await;
    let output = shown[0]["Checks"][1]["Output"].as_str().unwrap();
    assert!(output.contains("Aliased check") && output.contains("broken"), "{output}");
    server.put("/v1/agent/check/pass/service:db", "").await;
    server.until("web", are(&["passing"])).await;
    server.put("/v1/agent/service/deregister/db", "").await;
    let shown = server.until("web", are(&["critical"])).await;
    assert_eq!(shown[0]["Checks"][1]["Output"], "Service db could not be found on node n1");
}

#[tokio::test]
async fn catalog_checks_are_run_unless_somebody_else_looks_after_the_node() {
    let server = TestServer::start().await;
    let (socket, address) = reserve();
    let _program = Program::start(socket);
    let body = |node: &str, external: bool, status: &str| {
        let meta =
            if external { json!({ "external-node": "true", "external-probe": "true" }) } else { json!({}) };
        json!({ "Node": node, "Address": "127.0.0.1", "NodeMeta": meta, "Service": { "Service": node, "Port": 1 },
            "Check": { "CheckID": format!("c-{node}"), "Name": "c", "ServiceID": node, "Status": status,
                       "Definition": { "HTTP": format!("http://{address}/"), "Interval": "10m", "Timeout": "5s" } } })
    };
    for (node, external) in [("ours", false), ("theirs", true)] {
        let answer = server.put("/v1/catalog/register", body(node, external, "critical")).await;
        assert_eq!(answer.text(), "true");
    }
    server.until("ours", are(&["passing"])).await;
    assert!(are(&["critical"])(&server.get("/v1/health/service/theirs").await.json()), "it was probed");
    // A word from outside counts where nobody probes, and nowhere else.
    for node in ["ours", "theirs"] {
        let status = if node == "ours" { "critical" } else { "warning" };
        server.put("/v1/catalog/register", body(node, node == "theirs", status)).await;
    }
    assert!(are(&["passing"])(&server.get("/v1/health/service/ours").await.json()));
    assert!(are(&["warning"])(&server.get("/v1/health/service/theirs").await.json()));
}

#[tokio::test]
async fn what_was_passing_is_served_from_the_first_query_after_a_restart() {
    let server = TestServer::start().await;
    let (socket, address) = reserve();
    let program = Program::start(socket);
    let check = json!({ "HTTP": format!("http://{address}/"), "Interval": "10m" });
    server.register(json!({ "Name": "web", "Check": check })).await;
    server.register(json!({ "Name": "ttl", "Check": { "TTL": "1h" } })).await;
    server.put("/v1/agent/check/pass/service:ttl", "").await;
    server.until("web", are(&["passing"])).await;
    let server = server.restart().await;
    assert_eq!((in_dns(&server, "web").await, in_dns(&server, "ttl").await), (1, 1));
    // And it is probed again: one that died meanwhile goes.
    program.die().await;
    server.until("web", are(&["critical"])).await;
}

#[tokio::test]
async fn a_probe_that_hangs_blocks_nobody() {
    let server = TestServer::with(|config| config.checks.in_flight_max = 1).await;
    // Accepts by the kernel alone: nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    for number in 0..12 {
        let check = json!({ "HTTP": url, "Interval": "10m", "Timeout": "1s", "Status": "passing" });
        server.register(json!({ "Name": format!("s{number}"), "Check": check })).await;
    }
    for number in 0..12 {
        assert_eq!(in_dns(&server, &format!("s{number}")).await, 1);
    }
    assert!(server.metric("rollcall_checks_in_flight").await <= 9.0);
    for number in 0..12 {
        let shown = server.until(&format!("s{number}"), are(&["critical"])).await;
        let output = shown[0]["Checks"][1]["Output"].as_str().unwrap();
        assert!(output.contains("Timeout exceeded while awaiting headers"), "{output}");
    }
    assert!(server.metric("rollcall_limit_hits_total{limit=\"in_flight_max\"}").await >= 1.0);
}

/// The niceness of a process's threads, by their names (proc(5)).
fn niceness(pid: u32) -> Vec<(String, i32)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let of = |stat: String| {
        let (head, tail) = stat.rsplit_once(") ").unwrap();
        let name = head.split_once('(').unwrap().1.to_owned();
        (name, tail.split(' ').nth(16).unwrap().parse().unwrap())
    };
    stats.map(of).collect()
}

#[test]
fn dns_goes_before_checks() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    let own = niceness(std::process::id())[0].1;
    let begun = Instant::now();
    loop {
        let threads = niceness(daemon.child.id());
        let all = |name: &str, wanted| {
            let mut named = threads.iter().filter(|(of, _)| of.starts_with(name)).peekable();
            named.peek().is_some() && named.all(|(_, niceness)| *niceness == wanted)
        };
        if all("checks", own + 10) && all("dns-udp", own) && all("tokio", own) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{threads:?}");
        std::thread::yield_now();
    }
}
