//! A registry of a million: how long `rollcall serve` takes from exec to the first right answer, after a clean end and
//! after SIGKILL under writes, how much memory it then has, and how large its file is.
//!
//! `cargo bench --bench million -- [OPTIONS]`; one JSON object on standard output, progress on standard error.
//!
//! | option | default | |
//! |---|---|---|
//! | `--instances N` | 1000000 | one tag, two meta pairs (one the same for many, one its own), one TTL check that passes |
//! | `--services N` | 100000 | |
//! | `--nodes N` | 10000 | named as their addresses, as registrations from other machines make them |
//! | `--addresses node\|own` | `node` | whether each instance also has an address of its own |
//! | `--data-dir DIR` | a new one | kept and used again when it was filled before |
//! | `--server PATH` | this build's | another binary of rollcall |
//! | `--starts N` | 3 | starts of each kind; the medians are printed |
//! | `--zone FILE` | | only writes the same records as a master file, for other servers |
//!
//! The directory is filled through the registry and its store in this process, command by command, as HTTP requests
//! would. Result: `{"instances", "services", "nodes", "file_octets", "clean": {"answer_ms", "all_answer_ms", "rss_kib",
//! "peak_kib"}, "killed": {the same, "acknowledged", "lost"}}`. Every start's answers are compared for a thousand services;
//! one wrong answer, or one acknowledged registration lost, ends the run with an error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use rollcall::model::{Instance, NodeName, Status};
use rollcall::registry::{self, Caller, Command, Limits, Registry};
use rollcall::store::{self, Embedded, Store};
use rollcall::telemetry::Metrics;
use serde_json::{Value, json};

/// Commands under way at once while the directory is filled.
const TOGETHER: usize = 2_000;
/// Connections that register while the server is killed, and for how long.
const WRITERS: usize = 4;
const WRITE_FOR: Duration = Duration::from_secs(2);
/// Services whose answers are compared after each start.
const COMPARED: usize = 1_000;
/// From the last answer until memory is read.
const SETTLE: Duration = Duration::from_secs(2);
const GIVE_UP: Duration = Duration::from_secs(120);

struct Options {
    instances: usize,
    services: usize,
    nodes: usize,
    own_addresses: bool,
    data_dir: Option<PathBuf>,
    server: PathBuf,
    starts: usize,
    zone: Option<PathBuf>,
}

fn options() -> Options {
    let mut options = Options {
        instances: 1_000_000,
        services: 100_000,
        nodes: 10_000,
        own_addresses: false,
        data_dir: None,
        server: env!("CARGO_BIN_EXE_rollcall").into(),
        starts: 3,
        zone: None,
    };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--instances" => options.instances = value.parse().unwrap(),
            "--services" => options.services = value.parse().unwrap(),
            "--nodes" => options.nodes = value.parse().unwrap(),
            "--addresses" => options.own_addresses = value == "own",
            "--data-dir" => options.data_dir = Some(value.into()),
            "--server" => options.server = value.into(),
            "--starts" => options.starts = value.parse().unwrap(),
            "--zone" => options.zone = Some(value.into()),
            _ => panic!("unknown option {word}"),
        }
    }
    options
}

fn main() {
    let options = options();
    if let Some(file) = &options.zone {
        return zone(&options, file);
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = options.data_dir.clone().unwrap_or_else(|| temporary.path().join("data"));
    if !dir.join("registry.redb").exists() {
        fill(&options, &dir);
    }
    let config = temporary.path().join("rollcall.toml");
    // Room for those that are registered while it is killed.
    std::fs::write(&config, "[limits]\ninstances_max = 4000000\nchecks_max = 4000000\n").unwrap();
    let file_octets = std::fs::metadata(dir.join("registry.redb")).unwrap().len();
    let bench = Bench { options: &options, dir: &dir, config: &config };
    let clean = bench.clean();
    let killed = bench.killed();
    let result = json!({
        "instances": options.instances, "services": options.services, "nodes": options.nodes,
        "own_addresses": options.own_addresses, "file_octets": file_octets, "clean": clean, "killed": killed,
    });
    println!("{result:#}");
    assert_eq!(result["killed"]["lost"], 0, "acknowledged registrations were lost");
}

// What is registered.

impl Options {
    fn node(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0001 + (node % self.nodes) as u32)
    }

    /// Instances of one service stand on different nodes.
    fn place(&self, instance: usize) -> Ipv4Addr {
        self.node(instance.wrapping_mul(7919))
    }

    fn address(&self, instance: usize) -> Ipv4Addr {
        let own = || Ipv4Addr::from(0x0b00_0000 + instance as u32);
        if self.own_addresses { own() } else { self.place(instance) }
    }

    /// The numbers of a service's instances.
    fn members(&self, service: usize) -> impl Iterator<Item = usize> {
        (service..self.instances).step_by(self.services)
    }

    fn port(&self, instance: usize) -> u16 {
        8000 + (instance / self.services % 50_000) as u16
    }

    fn register(&self, i: usize) -> Command {
        let (service, node) = (service_name(i % self.services), self.place(i));
        let id = format!("{service}-{:08x}", (i as u32).wrapping_mul(0x9e37_79b9));
        let (version, revision) = (format!("1.4.{}", i % 20), format!("{:012x}", i as u64 * 0x9e37_79b9));
        let mut instance = json!({
            "node": node.to_string(), "id": id, "service": service, "port": self.port(i), "tags": ["primary"],
            "meta": { "version": version, "revision": revision },
        });
        if self.own_addresses {
            instance["address"] = json!(self.address(i).to_string());
        }
        let check = json!({
            "node": node.to_string(), "id": format!("service:{id}"), "name": format!("Service '{service}' check"),
            "instance": id, "kind": { "type": "ttl", "ttl": "1h" }, "timeout": "10s", "output_max": 4096,
            "initial": "critical",
        });
        let instance: Instance = serde_json::from_value(instance).unwrap();
        let checks = vec![serde_json::from_value(check).unwrap()];
        let caller = caller(node);
        Command::RegisterInstance { caller, instance, checks, replace_checks: false }
    }

    fn pass(&self, i: usize) -> Command {
        let Command::RegisterInstance { caller, checks, .. } = self.register(i) else { unreachable!() };
        let id = checks[0].id.clone();
        Command::UpdateTtl { caller, id, status: Status::Passing, output: "".into() }
    }
}

fn service_name(service: usize) -> String {
    format!("service-{service:05}")
}

fn caller(node: Ipv4Addr) -> Caller {
    Caller { node: NodeName::parse(&node.to_string()).unwrap(), address: Some(node.into()), named: false }
}

/// Registers everything.
fn fill(options: &Options, dir: &Path) {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (sender, log) = tokio::sync::mpsc::unbounded_channel();
        let metrics = Arc::new(Metrics::default());
        let store = store::Config { data_dir: dir.to_owned(), cache_bytes: 1 << 30 };
        let store = Arc::new(Embedded::open(&store, sender, metrics.clone()).unwrap());
        let own = serde_json::from_value(json!({ "name": "n1", "address": "127.0.0.1" })).unwrap();
        let limits = Limits { instances_max: usize::MAX, checks_max: usize::MAX, ..Limits::default() };
        let config = registry::Config { own, limits, audit: Default::default() };
        let (registry, writer) = Registry::start(store.clone(), log, config, metrics).unwrap();
        for first in (0..options.instances).step_by(TOGETHER) {
            let numbers = first..(first + TOGETHER).min(options.instances);
            let registered = numbers.clone().map(|i| registry.submit(options.register(i)));
            for outcome in futures_util::future::join_all(registered).await {
                outcome.unwrap();
            }
            let passed = numbers.map(|i| registry.submit(options.pass(i)));
            for outcome in futures_util::future::join_all(passed).await {
                outcome.unwrap();
            }
            if first.is_multiple_of(100_000) {
                eprintln!("{first} registered after {:.1?}", begun.elapsed());
            }
        }
        drop(registry);
        writer.await.unwrap();
        tokio::task::spawn_blocking(move || store.close()).await.unwrap();
    });
    eprintln!("filled in {:.1?}", begun.elapsed());
}

/// The same records as a master file.
fn zone(options: &Options, file: &Path) {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    write!(
        out,
        "$ORIGIN internal.\n$TTL 5\n@ SOA ns hostmaster 1 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n"
    )
    .unwrap();
    for service in 0..options.services {
        for i in options.members(service) {
            let (address, name) = (options.address(i), service_name(service));
            writeln!(out, "{name}.service A {address}").unwrap();
            let target = format!("{:08x}.addr.dc1", u32::from(address));
            writeln!(out, "{name}.service SRV 1 1 {} {target}", options.port(i)).unwrap();
        }
    }
    let hosts: BTreeSet<_> = (0..options.instances).map(|i| options.address(i)).collect();
    for address in hosts {
        writeln!(out, "{:08x}.addr.dc1 A {address}", u32::from(address)).unwrap();
    }
    out.flush().unwrap();
}

// What is measured.

struct Bench<'a> {
    options: &'a Options,
    dir: &'a Path,
    config: &'a Path,
}

/// A server that answered.
struct Server {
    child: Child,
    dns: SocketAddr,
    http: SocketAddr,
    /// From exec to the first right answer.
    answered: Duration,
}

impl Bench<'_> {
    fn start(&self) -> Server {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (dns, data) = (free.to_string(), self.dir.to_str().unwrap());
        let mut command = std::process::Command::new(&self.options.server);
        command.args(["serve", "--config", self.config.to_str().unwrap(), "--data-dir", data, "--dns", &dns]);
        command.args(["--http", "127.0.0.1:0", "--node", "n1"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(free).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let service = begun.elapsed().subsec_nanos() as usize % self.options.services;
        while self.ask(&socket, service) != Some(true) {
            assert!(begun.elapsed() < GIVE_UP && child.try_wait().unwrap().is_none(), "no answer");
            std::thread::sleep(Duration::from_millis(2));
        }
        let answered = begun.elapsed();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let http = lines.map(Result::unwrap).find_map(|line| {
            line.strip_prefix("listening for HTTP on ").map(|address| address.parse().unwrap())
        });
        Server { child, dns: free, http: http.unwrap(), answered }
    }

    /// Asks for SRV of a service: whether all its ports are in the answer, or nothing when there was none.
    fn ask(&self, socket: &UdpSocket, service: usize) -> Option<bool> {
        let wanted: BTreeSet<u16> =
            self.options.members(service).map(|instance| self.options.port(instance)).collect();
        Some(ports(socket, &service_name(service))? == wanted)
    }

    /// The figures of a server that was just started; errs by panic when an answer is wrong.
    fn figures(&self, server: &Server) -> Value {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server.dns).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        for turn in 0..COMPARED {
            let service = turn * 7919 % self.options.services;
            assert_eq!(
                self.ask(&socket, service),
                Some(true),
                "a wrong answer for {}",
                service_name(service)
            );
        }
        std::thread::sleep(SETTLE);
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
        let kib = |field: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
        };
        json!({
            "answer_ms": server.answered.as_millis() as u64, "rss_kib": kib("VmRSS"), "peak_kib": kib("VmHWM"),
            "anonymous_kib": kib("RssAnon"),
        })
    }

    fn clean(&self) -> Value {
        let mut all = Vec::new();
        for _ in 0..self.options.starts {
            let mut server = self.start();
            all.push(self.figures(&server));
            signal(&server.child, nix::sys::signal::Signal::SIGTERM);
            server.child.wait().unwrap();
            eprintln!("after a clean end: {}", all.last().unwrap());
        }
        median(&all)
    }

    /// Killed while registrations arrive; then all that was acknowledged must be there.
    fn killed(&self) -> Value {
        let (mut all, mut acknowledged, mut lost) = (Vec::new(), 0, 0);
        for turn in 0..self.options.starts {
            let mut server = self.start();
            let stop = AtomicBool::new(false);
            let written: Vec<String> = std::thread::scope(|scope| {
                let (http, stop) = (server.http, &stop);
                let writers: Vec<_> =
                    (0..WRITERS).map(|w| scope.spawn(move || write(http, turn, w, stop))).collect();
                std::thread::sleep(WRITE_FOR);
                signal(&server.child, nix::sys::signal::Signal::SIGKILL);
                server.child.wait().unwrap();
                stop.store(true, Ordering::Relaxed);
                writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
            });
            let mut server = self.start();
            all.push(self.figures(&server));
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(server.dns).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            lost += written.iter().filter(|name| ports(&socket, name) != Some([run_port()].into())).count();
            acknowledged += written.len();
            signal(&server.child, nix::sys::signal::Signal::SIGTERM);
            server.child.wait().unwrap();
            eprintln!("after SIGKILL: {}", all.last().unwrap());
        }
        let mut killed = median(&all);
        killed["acknowledged"] = json!(acknowledged);
        killed["lost"] = json!(lost);
        killed
    }
}

/// Registers services of its own one after another until the server is gone; the names that were acknowledged.
fn write(http: SocketAddr, turn: usize, writer: usize, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(mut stream) = TcpStream::connect(http) else { return acknowledged };
    let mut answer = [0; 4096];
    let port = run_port();
    for number in 0.. {
        let name = format!("late-{turn}-{writer}-{number}");
        let body = format!(r#"{{"Name":"{name}","Port":{port}}}"#);
        let length = body.len();
        let request = format!(
            "PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let sent = stream.write_all(request.as_bytes());
        let got = sent.and_then(|()| stream.read(&mut answer)).unwrap_or(0);
        if !answer[..got].starts_with(b"HTTP/1.1 200") || stop.load(Ordering::Relaxed) {
            break;
        }
        acknowledged.push(name);
    }
    acknowledged
}

/// Tells the registrations of this run from those that an earlier one left in the directory.
fn run_port() -> u16 {
    (std::process::id() % 60_000) as u16 + 1
}

/// The ports of a service's SRV records; nothing when no whole answer came.
fn ports(socket: &UdpSocket, service: &str) -> Option<BTreeSet<u16>> {
    let name = Name::from_ascii(format!("{service}.service.internal.")).unwrap();
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name, RecordType::SRV));
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.edns = Some(edns);
    socket.send(&message.to_vec().unwrap()).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    let answer = Message::from_vec(&buffer[..length]).ok()?;
    if answer.metadata.response_code != ResponseCode::NoError || answer.metadata.truncation {
        return None;
    }
    let port = |data: &RData| match data {
        RData::SRV(srv) => Some(srv.port),
        _ => None,
    };
    Some(answer.answers.iter().filter_map(|record| port(&record.data)).collect())
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// The median of each figure.
fn median(all: &[Value]) -> Value {
    let Some(first) = all.first() else { return json!({}) };
    let fields = first.as_object().unwrap().keys().map(|key| {
        let mut values: Vec<u64> = all.iter().map(|figures| figures[key].as_u64().unwrap()).collect();
        values.sort_unstable();
        (key.clone(), json!(values[values.len() / 2]))
    });
    Value::Object(fields.collect())
}
