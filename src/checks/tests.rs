//! The whole room against a real registry and real servers. The interval is a minute throughout: what is seen before
//! that was seen because something happened.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Config;
use crate::model::*;
use crate::registry::{self, Caller, Command, Limits, Registry, Topic};
use crate::store::{Ephemeral, Store};
use crate::telemetry::Metrics;

const MINUTE: Duration = Duration::from_secs(60);

/// A registry whose checks are run.
struct Room {
    registry: Registry,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Room {
    fn start() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let (log, entries) = tokio::sync::mpsc::unbounded_channel();
        let store: Arc<dyn Store> = Arc::new(Ephemeral::new(log, SystemTime::now()));
        let own = registry::Config { own: node("n1"), limits: Limits::default() };
        let metrics = Arc::new(Metrics::default());
        let (registry, _) = Registry::start(store, entries, own, metrics.clone()).unwrap();
        let shutdown = CancellationToken::new();
        let run = super::run(registry.clone(), config, metrics.clone(), shutdown.clone()).unwrap();
        Self { registry, metrics, shutdown, running: tokio::spawn(run) }
    }

    async fn submit(&self, command: Command) {
        self.registry.submit(command).await.unwrap();
    }

    async fn register(&self, id: &str, checks: Vec<Check>) {
        let instance: Instance =
            serde_json::from_value(serde_json::json!({ "node": "n1", "id": id, "service": "web" })).unwrap();
        self.submit(Command::RegisterInstance { caller: caller(), instance, checks, replace_checks: true })
            .await;
    }

    /// Waits until a check has a status; the output it came with. Panics after half the interval.
    async fn until(&self, check: &Check, status: Status) -> Arc<str> {
        let seen = tokio::time::timeout(MINUTE / 2, async {
            loop {
                let snapshot = self.registry.snapshot();
                if let Some(entry) = snapshot.check(&check.key()).filter(|entry| entry.status == status) {
                    return entry.output.clone();
                }
                let index = snapshot.index_of(&Topic::Checks);
                self.registry.wait(&Topic::Checks, index, MINUTE).await.unwrap();
            }
        });
        seen.await.unwrap_or_else(|_| {
            let shown = self.registry.snapshot().check(&check.key()).cloned();
            panic!("{} is not {status}: {shown:?}", check.id.as_str())
        })
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap();
    }
}

fn node(name: &str) -> Node {
    serde_json::from_value(serde_json::json!({ "name": name, "address": "127.0.0.1" })).unwrap()
}

fn caller() -> Caller {
    Caller { node: node("n1").name, address: None }
}

/// A check with a threshold of one and an interval of a minute.
fn check(id: &str, instance: &str, kind: CheckKind) -> Check {
    Check {
        node: node("n1").name,
        id: CheckId::parse(id).unwrap(),
        name: id.to_owned(),
        notes: String::new(),
        instance: (!instance.is_empty()).then(|| InstanceId::parse(instance).unwrap()),
        kind,
        interval: MINUTE,
        timeout: Duration::from_secs(10),
        success_before_passing: 0,
        failures_before_warning: 0,
        failures_before_critical: 0,
        deregister_after: None,
        output_max: 4096,
        initial: Status::Critical,
        origin: Origin::Agent,
    }
}

/// For tests of the pure parts.
pub(super) fn tcp_check() -> Check {
    check("c", "", CheckKind::Tcp { address: "127.0.0.1:1".into(), tls: None })
}

fn http(address: SocketAddr) -> CheckKind {
    CheckKind::Http {
        url: format!("http://{address}/health"),
        method: "GET".into(),
        header: Default::default(),
        body: String::new(),
        follow_redirects: true,
        tls: ProbeTls::default(),
    }
}

/// A free port that nobody else is given while the socket lives.
fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// An HTTP server that says OK and counts. It dies as a killed process does: all its sockets at once.
struct Server {
    task: JoinHandle<()>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(socket: TcpSocket) -> Self {
        let listener = socket.listen(64).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        Self { task: tokio::spawn(serve(listener, asked.clone())), asked }
    }

    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn serve(listener: TcpListener, asked: Arc<AtomicUsize>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let asked = asked.clone();
        let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("fine"))) }
        });
        connections.spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

#[tokio::test]
async fn up_is_seen_when_it_listens_and_a_crash_when_it_happens() {
    let room = Room::start();
    let (socket, address) = reserve();
    let web = check("web", "web-1", http(address));
    room.register("web-1", vec![web.clone()]).await;
    let output = room.until(&web, Status::Critical).await;
    assert!(output.is_empty() || output.contains("refused"), "{output}");
    let server = Server::start(socket);
    let output = room.until(&web, Status::Passing).await;
    assert_eq!(*output, *format!("HTTP GET http://{address}/health: 200 OK Output: fine"));
    server.die().await;
    let output = room.until(&web, Status::Critical).await;
    let refused = format!("dial tcp {address}: connect: connection refused");
    assert_eq!(*output, *format!("Get \"http://{address}/health\": {refused}"));
    // It comes back, without a word to the registry.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let server = Server::start(socket);
    room.until(&web, Status::Passing).await;
    assert_eq!(server.asked.load(Ordering::SeqCst), 1, "once it passes, it keeps the interval");
    assert!(room.metrics.encode().contains("rollcall_checks_notices_total{kind=\"crash\"} 1"));
    room.stop().await;
}
