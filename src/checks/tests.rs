//! The whole room against a real registry and real servers. The interval is an hour throughout: what is seen before
//! that was seen because something happened.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::names::{Files, Names};
use super::places::SLOW_PARTS;
use super::probe::Tools;
use super::runner::Runner;
use crate::model::{
    Status::{Critical, Passing, Warning},
    Terms, *,
};
use crate::registry::{self, Caller, CheckEntry, Command, Limits, Registry, Topic};
use crate::store::{self, Embedded, Ephemeral, Log, Store};
use crate::telemetry::Metrics;
use crate::tls::Clients;

const INTERVAL: Duration = Duration::from_secs(3600);
/// How long something is waited for before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let (log, entries) = mpsc::unbounded_channel();
        Self::over(Arc::new(Ephemeral::new(log, SystemTime::now())), entries, config)
    }

    fn over(store: Arc<dyn Store>, entries: Log, config: Config) -> Self {
        let own = registry::Config { own: node("n1"), limits: Limits::default(), audit: Default::default() };
        let metrics = Arc::new(Metrics::default());
        let (registry, _) = Registry::start(store, entries, own, metrics.clone()).unwrap();
        let shutdown = CancellationToken::new();
        let run = super::run(registry.clone(), config, metrics.clone(), Default::default(), shutdown.clone())
            .unwrap();
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

    /// Waits until a check has a status; the output it came with. Panics when that does not come.
    async fn until(&self, check: &Check, status: Status) -> Arc<str> {
        let seen = tokio::time::timeout(PATIENCE, async {
            loop {
                let snapshot = self.registry.snapshot();
                if let Some(entry) = snapshot.check(&check.key()).filter(|entry| entry.status == status) {
                    return entry.output.as_str().into();
                }
                let index = snapshot.index_of(&Topic::Checks);
                self.registry.wait(&Topic::Checks, index, PATIENCE).await.unwrap();
            }
        });
        seen.await.unwrap_or_else(|_| {
            let shown = self.registry.snapshot().check(&check.key()).cloned();
            panic!("{} is not {status}: {shown:?}", check.id.as_str())
        })
    }

    /// Waits until a check has a status and an output.
    async fn shows(&self, check: &Check, status: Status, output: &str) {
        self.sees(check, |entry| entry.status == status && *entry.output == *output).await;
    }

    /// Waits until a check is as wanted in a way that rings no bell.
    async fn sees(&self, check: &Check, wanted: impl Fn(&CheckEntry) -> bool) {
        let seen = tokio::time::timeout(PATIENCE, async {
            while !self.registry.snapshot().check(&check.key()).is_some_and(|entry| wanted(entry)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        if seen.await.is_err() {
            panic!("{:?} is not as wanted", self.registry.snapshot().check(&check.key()));
        }
    }

    /// Waits until a metric has a value.
    async fn count(&self, metric: &str, value: &str) {
        let room = if metric.starts_with("limit_") { "" } else { "checks_" };
        let line = format!("rollcall_{room}{metric} {value}");
        let seen = tokio::time::timeout(PATIENCE, async {
            // Metrics ring no bell.
            while !self.metrics.encode().lines().any(|l| l == line) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        seen.await.unwrap_or_else(|_| panic!("no {line:?} in\n{}", self.metrics.encode()));
    }

    async fn ttl(&self, id: &str, status: Status) {
        let (id, output) = (CheckId::parse(id).unwrap(), format!("says {status}").into());
        self.submit(Command::UpdateTtl { caller: caller(), id, status, output }).await;
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
    Caller { node: node("n1").name, address: None, named: false }
}

/// A check with a threshold of one and an interval of an hour.
fn check(id: &str, instance: &str, kind: CheckKind) -> Check {
    let terms = Terms {
        name: id.to_owned(),
        notes: String::new(),
        kind,
        interval: INTERVAL,
        timeout: Duration::from_secs(10),
        success_before_passing: 0,
        failures_before_warning: 0,
        failures_before_critical: 0,
        damping: None,
        deregister_after: None,
        output_max: 4096,
        initial: Status::Critical,
        origin: Origin::Agent,
    };
    Check {
        node: node("n1").name,
        id: CheckId::parse(id).unwrap(),
        instance: (!instance.is_empty()).then(|| InstanceId::parse(instance).unwrap()),
        terms: terms.into(),
    }
}

/// What probes need, made once.
pub(super) fn tools() -> &'static Tools {
    static TOOLS: LazyLock<Tools> = LazyLock::new(|| tools_with(Clients::new().unwrap()));
    &TOOLS
}

/// With settings of TLS of their own.
pub(super) fn tools_with(tls: Clients) -> Tools {
    let metrics = Arc::new(Metrics::default());
    let names = Names::new(100, Files::default(), metrics.clone());
    Tools { tls, names, targets: Default::default(), metrics, traces: Default::default() }
}

/// For tests of the pure parts.
pub(super) fn tcp_check() -> Check {
    check("c", "", CheckKind::Tcp { address: "127.0.0.1:1".into(), tls: None })
}

pub(super) fn http(address: SocketAddr) -> CheckKind {
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

/// The address once more, for a server that comes back.
fn again(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// An HTTP server that says fine, counts, and closes connections that were idle for `idle`. It dies as a killed process
/// does: all its sockets at once.
struct Server {
    task: JoinHandle<()>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    asked: AtomicUsize,
}

impl Server {
    fn start(socket: TcpSocket) -> Self {
        Self::closing(socket, Duration::MAX)
    }

    fn closing(socket: TcpSocket, idle: Duration) -> Self {
        let listener = socket.listen(64).unwrap();
        let seen = Arc::new(Seen::default());
        Self { task: tokio::spawn(accept_all(listener, seen.clone(), idle)), seen }
    }

    fn asked(&self) -> usize {
        self.seen.asked.load(SeqCst)
    }

    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn accept_all(listener: TcpListener, seen: Arc<Seen>, idle: Duration) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve(stream, seen.clone(), idle));
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Seen>, idle: Duration) {
    let mut octets = [0; 1024];
    while let Ok(Ok(1..)) = tokio::time::timeout(idle, stream.read(&mut octets)).await {
        seen.asked.fetch_add(1, SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await.unwrap();
    }
}

/// The next connection, which must come.
async fn accept(listener: &TcpListener) -> TcpStream {
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
    accepted.expect("nobody connects").unwrap().0
}

#[tokio::test]
async fn up_is_seen_when_it_listens_and_a_crash_when_it_happens() {
    let room = Room::start();
    let (socket, address) = reserve();
    let web = check("web", "web-1", http(address));
    room.register("web-1", vec![web.clone()]).await;
    room.count("probes_total{kind=\"http\",outcome=\"critical\"}", "2").await;
    let server = Server::start(socket);
    let output = room.until(&web, Passing).await;
    assert_eq!(*output, *format!("HTTP GET http://{address}/health: 200 OK Output: fine"));
    server.die().await;
    let output = room.until(&web, Critical).await;
    let refused = format!("dial tcp {address}: connect: connection refused");
    assert_eq!(*output, *format!("Get \"http://{address}/health\": {refused}"));
    room.count("notices_total{outcome=\"crash\"}", "1").await;
    // It comes back without a word to the registry, and crashes again.
    let server = Server::start(again(address));
    room.until(&web, Passing).await;
    assert_eq!(server.asked(), 1, "once it passes, it keeps the interval");
    server.die().await;
    room.until(&web, Critical).await;
    room.stop().await;
}

#[tokio::test]
async fn one_that_dies_behind_its_answer_is_seen_at_once() {
    let room = Room::start();
    let (socket, address) = reserve();
    let listener = socket.listen(8).unwrap();
    let web = check("web", "web-1", http(address));
    room.register("web-1", vec![web.clone()]).await;
    let mut connection = accept(&listener).await;
    assert!(connection.read(&mut [0; 1024]).await.unwrap() > 0);
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    drop((connection, listener));
    room.count("notices_total{outcome=\"crash\"}", "1").await;
    room.until(&web, Critical).await;
    room.stop().await;
}

#[tokio::test]
async fn a_target_that_closes_idle_connections_is_learnt() {
    let room = Room::start();
    let (socket, address) = reserve();
    let server = Server::closing(socket, Duration::from_millis(400));
    let web = check("web", "web-1", http(address));
    room.register("web-1", vec![web.clone()]).await;
    room.until(&web, Passing).await;
    room.count("notices_total{outcome=\"alive\"}", "1").await;
    room.count("notices_total{outcome=\"habit\"}", "1").await;
    assert_eq!(server.asked(), 2);
    assert_eq!(flips(&room), 1, "from critical to passing and no other");
    room.stop().await;
}

fn flips(room: &Room) -> usize {
    let text = room.metrics.encode();
    let flips =
        text.lines().filter_map(|l| l.strip_prefix("rollcall_registry_flips_total")?.split(' ').nth(1));
    flips.map(|count| count.parse::<usize>().unwrap()).sum()
}

#[tokio::test]
async fn beyond_the_places_for_connections_only_the_notice_is_lost() {
    let room = Room::with(Config { kept_max: 1, ..Config::default() });
    let servers: Vec<_> = (0..3).map(|_| reserve()).map(|(socket, to)| (Server::start(socket), to)).collect();
    let checks: Vec<_> =
        servers.iter().zip(0..).map(|((_, to), n)| check(&format!("c{n}"), "web-1", http(*to))).collect();
    // One after the other, so that the place is the first one's.
    for n in 0..checks.len() {
        room.register("web-1", checks[..=n].to_vec()).await;
        room.until(&checks[n], Passing).await;
        room.count("unkept", &n.to_string()).await;
    }
    room.count("limit_hits_total{limit=\"kept_max\"}", "2").await;
    room.count("kept", "1").await;
    // Those without are not noticed when they go: the one that goes last is, and they pass still.
    for (server, _) in servers.into_iter().rev() {
        server.die().await;
    }
    room.until(&checks[0], Critical).await;
    let snapshot = room.registry.snapshot();
    assert!(checks[1..].iter().all(|check| snapshot.check(&check.key()).unwrap().status == Passing));
    room.register("web-1", vec![]).await;
    room.count("unkept", "0").await;
    room.stop().await;
}

#[tokio::test]
async fn checks_of_one_target_share_a_connection_and_each_is_noticed() {
    let room = Room::with(Config { kept_max: 1, ..Config::default() });
    let (socket, address) = reserve();
    let server = Server::start(socket);
    let checks: Vec<_> = (0..5).map(|n| check(&format!("c{n}"), "web-1", http(address))).collect();
    room.register("web-1", checks.clone()).await;
    for check in &checks {
        room.until(check, Passing).await;
    }
    room.count("kept", "1").await;
    room.count("unkept", "0").await;
    assert_eq!(server.asked(), 5);
    server.die().await;
    for check in &checks {
        room.until(check, Critical).await;
    }
    room.count("notices_total{outcome=\"crash\"}", "5").await;
    room.stop().await;
}

#[tokio::test]
async fn no_more_probes_than_allowed_are_in_flight() {
    let room = Room::with(Config { in_flight_max: 2, ..Config::default() });
    let most = 2 * (1 + SLOW_PARTS);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = http(silent.local_addr().unwrap());
    let checks = (0..most + 3)
        .map(|n| check(&format!("c{n}"), "web-1", url.clone()).with(|terms| terms.timeout = INTERVAL));
    room.register("web-1", checks.collect()).await;
    // One for each, held by nobody but the kernel.
    room.count("in_flight", &most.to_string()).await;
    room.count("waiting", "3").await;
    let mut held: Vec<_> = Vec::new();
    for _ in 0..most {
        held.push(accept(&silent).await);
    }
    assert!(!room.metrics.encode().contains("rollcall_limit_hits_total{limit=\"in_flight_max\"} 0\n"));
    // One ends, and the next begins.
    held.pop();
    held.push(accept(&silent).await);
    room.count("waiting", "2").await;
    room.stop().await;
}

#[tokio::test]
async fn targets_that_never_answer_do_not_delay_others() {
    let room = Room::with(Config { in_flight_max: 1, ..Config::default() });
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (socket, address) = reserve();
    let _server = Server::start(socket);
    let hang = |n: usize, timeout| {
        let kind = http(silent.local_addr().unwrap());
        check(&format!("hangs{n}"), "web-1", kind).with(|terms| terms.timeout = timeout)
    };
    let hangs: Vec<_> = (0..SLOW_PARTS).map(|n| hang(n, INTERVAL)).collect();
    let good = check("good", "web-1", http(address));
    room.register("web-1", hangs.iter().chain([&good]).cloned().collect()).await;
    room.until(&good, Passing).await;
    room.count("in_flight", &SLOW_PARTS.to_string()).await;
    // What is bounded by its timeout ends.
    let ends = hang(0, Duration::from_millis(200));
    room.register("web-1", vec![ends.clone()]).await;
    room.sees(&ends, |entry| entry.output.contains("context deadline exceeded")).await;
    room.stop().await;
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_probe_is_told_to_the_other_checks_of_the_target() {
    let room = Room::start();
    let (socket, address) = reserve();
    let listener = socket.listen(8).unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|id| check(id, id, http(address)));
    let mut connection = None;
    for check in [&one, &two] {
        room.register(check.id.as_str(), vec![check.clone()]).await;
        if connection.is_none() {
            connection = Some(accept(&listener).await);
        }
        let connection = connection.as_mut().unwrap();
        assert!(connection.read(&mut [0; 1024]).await.unwrap() > 0);
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        room.until(check, Passing).await;
        room.count("kept", "1").await;
    }
    // Its first probe has the connection that would have told.
    room.register("three", vec![three.clone()]).await;
    let mut connection = connection.unwrap();
    assert!(connection.read(&mut [0; 1024]).await.unwrap() > 0);
    drop((listener, connection));
    for check in [&one, &two] {
        room.until(check, Critical).await;
    }
    room.stop().await;
}

#[tokio::test]
async fn checks_that_ask_differently_share_a_connection_and_not_their_results() {
    let room = Room::start();
    let (socket, address) = reserve();
    let listener = socket.listen(8).unwrap();
    let CheckKind::Http { url, method, body, follow_redirects, tls, .. } = http(address) else {
        unreachable!()
    };
    let asking = |id: &str, code: &str| {
        let header = [("X-Code".to_owned(), vec![code.to_owned()])].into();
        let (url, method, body, tls) = (url.clone(), method.clone(), body.clone(), tls.clone());
        check(id, id, CheckKind::Http { url, method, header, body, follow_redirects, tls })
    };
    let checks = [asking("a", "200"), asking("b", "503"), asking("c", "429")];
    let server = tokio::spawn(async move {
        let mut connection = accept(&listener).await;
        for _ in 0..3 {
            let mut octets = [0; 1024];
            let count = connection.read(&mut octets).await.unwrap();
            let text = String::from_utf8_lossy(&octets[..count]).to_ascii_lowercase();
            let code = text.split_once("x-code: ").unwrap().1.get(..3).unwrap().to_owned();
            let answer = format!("HTTP/1.1 {code} So\r\nContent-Length: 0\r\n\r\n");
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
        // Held, so that its end draws no probe.
        (listener, connection)
    });
    for (check, status) in checks.iter().zip([Passing, Critical, Warning]) {
        room.register(check.id.as_str(), vec![check.clone()]).await;
        room.sees(check, |entry| entry.status == status && !entry.output.is_empty()).await;
        room.count("kept", "1").await;
    }
    let _held = server.await.unwrap();
    room.stop().await;
}

#[tokio::test]
async fn a_check_that_goes_takes_its_connection_along_and_a_new_definition_is_probed_at_once() {
    let room = Room::start();
    let [(first, to_first), (second, to_second)] =
        [reserve(), reserve()].map(|(socket, address)| (socket.listen(8).unwrap(), http(address)));
    room.register("web-1", vec![check("web", "web-1", to_first)]).await;
    let mut old = accept(&first).await;
    assert!(old.read(&mut [0; 1024]).await.unwrap() > 0);
    // The first never answers: its probe is in flight when the definition changes.
    let web = check("web", "web-1", to_second);
    room.register("web-1", vec![web.clone()]).await;
    let mut new = accept(&second).await;
    assert_eq!(old.read(&mut [0]).await.unwrap(), 0, "the old probe ended");
    assert!(new.read(&mut [0; 1024]).await.unwrap() > 0);
    new.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    room.until(&web, Passing).await;
    room.register("web-1", vec![]).await;
    assert_eq!(new.read(&mut [0]).await.unwrap(), 0, "the kept connection is closed");
    room.count("kept", "0").await;
    room.stop().await;
}

#[tokio::test]
async fn registering_again_does_not_wait_for_a_probe_that_hangs() {
    let room = Room::start();
    let (socket, address) = reserve();
    let listener = socket.listen(8).unwrap();
    let web = check("web", "web-1", http(address)).with(|terms| terms.timeout = INTERVAL);
    room.register("web-1", vec![web.clone()]).await;
    let mut hangs = accept(&listener).await;
    room.register("web-1", vec![web.clone()]).await;
    let mut fresh = accept(&listener).await;
    while hangs.read(&mut [0; 1024]).await.unwrap() > 0 {}
    // Once: whoever registers all the time does not keep a probe from ending.
    assert!(fresh.read(&mut [0; 1024]).await.unwrap() > 0);
    room.register("web-1", vec![web.clone()]).await;
    let after = check("after", "after-1", http(address));
    room.register("after-1", vec![after]).await;
    drop(accept(&listener).await);
    fresh.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    room.until(&web, Passing).await;
    room.stop().await;
}

#[tokio::test]
async fn after_missed_publishes_everything_is_read_again() {
    let room = Room::start();
    let mut runner = Runner::new(
        room.registry.clone(),
        Config::default(),
        tools_with(Clients::new().unwrap()),
        Arc::new(Metrics::default()),
    );
    let (_held, address) = reserve();
    let [goes, stays, changes, comes] =
        ["goes", "stays", "changes", "comes"].map(|id| check(id, "web-1", http(address)));
    room.register("web-1", vec![goes.clone(), stays.clone(), changes.clone(), alias("a", "web-1", "x")])
        .await;
    runner.read_all(true);
    let before = runner.numbers.clone();
    let changed = changes.clone().with(|terms| terms.timeout = PATIENCE);
    room.register("web-1", vec![stays.clone(), changed, comes.clone()]).await;
    assert!(runner.on_wake(Err(RecvError::Lagged(9))));
    assert_eq!(runner.numbers.len(), 3);
    assert_eq!(runner.numbers.get(&stays.key()), before.get(&stays.key()));
    assert!(before[&changes.key()] < runner.numbers[&changes.key()]);
    assert!(runner.numbers.contains_key(&comes.key()) && runner.aliases.keys().next().is_none());
    assert_eq!(runner.jobs.len(), 3);
    room.stop().await;
}

#[tokio::test]
async fn checks_of_external_nodes_are_left_to_others() {
    let room = Room::start();
    let (socket, address) = reserve();
    let server = Server::start(socket);
    let far = Check { node: node("far").name, ..check("web", "", http(address)) };
    let register = |external: &str| {
        let mut node = node("far");
        node.meta.insert("external-node".into(), external.into());
        let (check, status) = (far.clone(), far.initial);
        let checks = vec![crate::registry::Seen { check, status, output: "".into() }];
        Command::CatalogRegister { node, skip_node: false, instance: None, checks }
    };
    room.submit(register("true")).await;
    // What was registered after it is probed; it is not.
    let near = check("near", "", http(address));
    room.submit(Command::RegisterCheck { caller: caller(), check: near.clone() }).await;
    room.until(&near, Passing).await;
    assert_eq!(server.asked(), 1);
    room.submit(register("false")).await;
    room.until(&far, Passing).await;
    room.stop().await;
}

#[tokio::test]
async fn a_stored_script_check_says_why_it_does_not_run() {
    let room = Room::start();
    let script = CheckKind::Script { args: vec!["true".into()] };
    let script = check("script", "web-1", script).with(|terms| terms.initial = Passing);
    room.register("web-1", vec![script.clone()]).await;
    let output = room.until(&script, Critical).await;
    assert!(output.contains("script = true"), "{output}");
    room.stop().await;
}

#[tokio::test]
async fn what_passed_is_served_after_a_restart_until_probes_say_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let (log, entries) = mpsc::unbounded_channel();
        let config = store::Config { data_dir: dir.path().into(), cache_bytes: 1 << 20 };
        let store = Embedded::open(&config, log, Arc::new(Metrics::default())).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        (store, entries)
    };
    let (socket, address) = reserve();
    let server = Server::start(socket);
    let one = check("one", "web-1", http(address));
    let three = check("three", "web-1", http(address)).with(|terms| terms.failures_before_critical = 3);
    let (store, entries) = open();
    let room = Room::over(store.clone(), entries, Config::default());
    room.register("web-1", vec![one.clone(), three.clone()]).await;
    room.until(&one, Passing).await;
    room.until(&three, Passing).await;
    room.stop().await;
    store.close();
    drop(store);
    server.die().await;
    let (store, entries) = open();
    let room = Room::over(store.clone(), entries, Config::default());
    assert_eq!(room.registry.snapshot().check(&one.key()).unwrap().status, Passing);
    room.until(&one, Critical).await;
    room.count("probes_total{kind=\"http\",outcome=\"critical\"}", "4").await;
    // One failure of three.
    room.sees(&three, |entry| (entry.status, entry.to_flip) == (Passing, 2)).await;
    room.stop().await;
    store.close();
}

fn ttl(id: &str, instance: &str) -> Check {
    check(id, instance, CheckKind::Ttl { ttl: INTERVAL })
}

fn alias(id: &str, instance: &str, of: &str) -> Check {
    let of = (!of.is_empty()).then(|| InstanceId::parse(of).unwrap());
    let kind = CheckKind::Alias { node: node("n1").name, instance: of };
    check(id, instance, kind).with(|terms| terms.interval = Duration::ZERO)
}

#[tokio::test]
async fn an_alias_says_what_its_target_and_the_node_say() {
    let room = Room::start();
    let front = alias("front", "front-1", "web-1");
    room.register("front-1", vec![front.clone()]).await;
    let missing = "Service web-1 could not be found on node n1";
    room.shows(&front, Critical, missing).await;
    room.register("web-1", vec![]).await;
    room.shows(&front, Passing, "No checks found.").await;
    room.register("web-1", vec![ttl("t", "web-1")]).await;
    room.shows(&front, Critical, "Aliased check \"t\" failing: ").await;
    room.ttl("t", Passing).await;
    room.shows(&front, Passing, "All checks passing.").await;
    room.submit(Command::RegisterCheck { caller: caller(), check: ttl("disk", "") }).await;
    room.ttl("disk", Warning).await;
    room.shows(&front, Warning, "Aliased check \"disk\" failing: says warning").await;
    let id = InstanceId::parse("web-1").unwrap();
    for (reason, status) in [(Some("work".into()), Critical), (None, Warning)] {
        room.submit(Command::Maintain { caller: caller(), instance: Some(id.clone()), reason }).await;
        room.until(&front, status).await;
    }
    room.submit(Command::DeregisterInstance { caller: caller(), id }).await;
    room.shows(&front, Critical, missing).await;
    room.stop().await;
}

#[tokio::test]
async fn aliases_in_a_ring_follow_what_is_real_and_rest() {
    let room = Room::start();
    let ring = [("a", "b"), ("b", "c"), ("c", "a")].map(|(of, to)| alias(&format!("{of}-{to}"), of, to));
    for check in &ring {
        let instance = check.instance.clone().unwrap();
        let mut checks = vec![check.clone()];
        checks.extend((instance.as_str() == "a").then(|| ttl("t", "a")));
        room.register(instance.as_str(), checks).await;
    }
    for status in [Passing, Critical, Warning, Passing] {
        room.ttl("t", status).await;
        for check in &ring {
            room.until(check, status).await;
        }
    }
    // At rest: something else that is seen through to the end moves the index by its own two changes only.
    room.register("other", vec![ttl("o", "other"), alias("to-other", "other", "other")]).await;
    room.until(&alias("to-other", "", ""), Critical).await;
    let before = room.registry.snapshot().index();
    room.ttl("o", Passing).await;
    room.until(&alias("to-other", "", ""), Passing).await;
    assert_eq!(room.registry.snapshot().index(), before + 2);
    room.stop().await;
}

#[tokio::test]
async fn a_chain_of_aliases_of_any_length_is_followed() {
    let room = Room::start();
    room.register("i0", vec![ttl("t", "i0")]).await;
    let length = 150;
    for n in 1..=length {
        let (own, of) = (format!("i{n}"), format!("i{}", n - 1));
        room.register(&own, vec![alias(&format!("a{n}"), &own, &of)]).await;
    }
    for status in [Passing, Critical, Passing] {
        room.ttl("t", status).await;
        room.until(&alias(&format!("a{length}"), "", ""), status).await;
    }
    room.stop().await;
}
