//! Lookups over a small name server that says what the test tells it to, and counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::Instant;

use super::{Failed, Files, Names};
use crate::checks::kept::Shelf;
use crate::checks::kinds;
use crate::checks::probe::Tools;
use crate::checks::tests::tcp_check;
use crate::model::{Check, CheckKind, ProbeTls, Status};
use crate::telemetry::Metrics;
use crate::tls::Clients;

/// Answers questions for A with one address and a TTL; no name has an AAAA, only those that begin with `web`
/// are, and it fails for those that begin with `broken`.
struct Server {
    port: u16,
    answer: Arc<Mutex<(Ipv4Addr, u32)>>,
    /// The names that A was asked of.
    asked: Arc<Mutex<Vec<String>>>,
    takes: Duration,
}

impl Server {
    async fn start(takes: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let answer = Arc::new(Mutex::new((Ipv4Addr::LOCALHOST, 3600)));
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(socket, answer.clone(), asked.clone(), takes));
        Self { port, answer, asked, takes }
    }

    fn says(&self, last: u8, ttl: u32) {
        *self.answer.lock() = (Ipv4Addr::new(127, 0, 0, last), ttl);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    /// Names that are looked up there, as two files say.
    fn names(&self, dir: &Path, max: usize) -> (Arc<Names>, Arc<Metrics>) {
        let files = Files { hosts: dir.join("hosts"), resolv: dir.join("resolv.conf"), port: self.port };
        std::fs::write(&files.resolv, "nameserver 127.0.0.1\nsearch inner.test\noptions timeout:1\n")
            .unwrap();
        std::fs::write(&files.hosts, "192.0.2.7 listed\n").unwrap();
        let metrics = Arc::new(Metrics::default());
        (Names::new(max, files, metrics.clone()), metrics)
    }
}

async fn serve(
    socket: UdpSocket,
    answer: Arc<Mutex<(Ipv4Addr, u32)>>,
    asked: Arc<Mutex<Vec<String>>>,
    takes: Duration,
) {
    let mut octets = [0; 512];
    while let Ok((count, from)) = socket.recv_from(&mut octets).await {
        // The question, without what EDNS adds.
        let (mut name, mut at) = (String::new(), 12);
        while octets[at] > 0 {
            let end = at + 1 + usize::from(octets[at]);
            name += std::str::from_utf8(&octets[at + 1..end]).unwrap();
            name.push('.');
            at = end;
        }
        assert!(at + 5 <= count);
        let of_address = octets[at + 2] == 1;
        let exists = name.to_ascii_lowercase().starts_with("web");
        let mut reply = octets[..at + 5].to_vec();
        let rcode = if exists {
            0
        } else if name.starts_with("broken") {
            2
        } else {
            3
        };
        reply[2..12].copy_from_slice(&[0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0]);
        if of_address {
            asked.lock().push(name);
        }
        if of_address && exists {
            let (address, ttl) = *answer.lock();
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, 1, 0, 1]);
            reply.extend(ttl.to_be_bytes());
            reply.extend([0, 4]);
            reply.extend(address.octets());
        }
        tokio::time::sleep(takes).await;
        socket.send_to(&reply, from).await.unwrap();
    }
}

/// For what is waited for in a loop.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it does not come")
}

async fn last(names: &Arc<Names>, name: &str) -> Result<u8, Failed> {
    names.find(name).await.map(|found| match found[..] {
        [SocketAddr::V4(only)] => only.ip().octets()[3],
        _ => panic!("{found:?}"),
    })
}

#[tokio::test]
async fn an_address_is_asked_for_once_within_its_ttl_and_a_change_is_followed_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (names, metrics) = server.names(dir.path(), 10);
    server.says(1, 2);
    let begun = std::time::Instant::now();
    assert_eq!(last(&names, "web.test").await, Ok(1));
    server.says(2, 3600);
    let mut found = 0;
    in_time(async {
        while last(&names, "web.test").await == Ok(1) {
            found += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(2) && found > 10, "{:?} {found}", begun.elapsed());
    assert_eq!(last(&names, "web.test").await, Ok(2));
    assert_eq!(server.asked().len(), 2);
    assert_eq!(metrics.checks.names.get(), 1);
    assert!(metrics.encode().contains("rollcall_checks_lookups_total{outcome=\"found\"} 2"));
}

#[tokio::test]
async fn probes_of_one_name_share_a_lookup_and_one_that_ends_takes_it_from_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::from_millis(20)).await;
    let (names, _) = server.names(dir.path(), 10);
    let ended = tokio::time::timeout(server.takes / 4, names.find("web.test")).await;
    assert!(ended.is_err());
    let all = futures_util::future::join_all((0..50).map(|_| last(&names, "web.test"))).await;
    assert!(all.iter().all(|found| *found == Ok(1)), "{all:?}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_failure_is_remembered_briefly() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (names, _) = server.names(dir.path(), 10);
    let failed = Err(Failed::Because("server misbehaving".into()));
    assert_eq!(last(&names, "broken.test.").await, failed);
    let asked = server.asked().len();
    assert!(asked > 0);
    for _ in 0..20 {
        assert_eq!(last(&names, "broken.test.").await, failed);
    }
    assert_eq!(server.asked().len(), asked);
    in_time(async {
        while server.asked().len() == asked {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(last(&names, "broken.test.").await, failed);
        }
    })
    .await;
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (names, _) = server.names(dir.path(), 10);
    assert_eq!(last(&names, "web.test").await, Ok(1));
    server.says(2, 3600);
    // Not at once: what was learnt just now is no better the second time.
    names.forget("web.test");
    assert_eq!(last(&names, "web.test").await, Ok(1));
    in_time(async {
        while last(&names, "web.test").await == Ok(1) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            names.forget("web.test");
        }
    })
    .await;
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_again_and_search_domains_count() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (names, _) = server.names(dir.path(), 10);
    assert_eq!(last(&names, "listed").await, Ok(7));
    assert_eq!(server.asked(), [""; 0]);
    assert_eq!(last(&names, "web").await, Ok(1));
    assert!(server.asked().contains(&"web.inner.test.".to_owned()), "{:?}", server.asked());
    std::fs::write(dir.path().join("hosts"), "192.0.2.8 new\n").unwrap();
    assert_eq!(last(&names, "new").await, Ok(8));
}

#[tokio::test]
async fn beyond_the_limit_names_are_looked_up_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (names, metrics) = server.names(dir.path(), 2);
    for _ in 0..3 {
        for name in ["web1.test", "web2.test", "web3.test"] {
            assert_eq!(last(&names, name).await, Ok(1));
        }
    }
    let asked = server.asked();
    let times = |name: &str| asked.iter().filter(|asked| *asked == name).count();
    assert_eq!((times("web1.test."), times("web2.test."), times("web3.test.")), (1, 1, 3));
    assert_eq!(metrics.checks.names.get(), 2);
    assert!(metrics.encode().contains("rollcall_limit_hits_total{limit=\"names_max\"} 3"));
}

#[tokio::test]
async fn what_has_run_out_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (names, metrics) = server.names(dir.path(), 1);
    server.says(1, 1);
    assert_eq!(last(&names, "web1.test").await, Ok(1));
    server.says(1, 3600);
    let mut asked = 0;
    in_time(async {
        while server.asked().len() > asked {
            asked = server.asked().len();
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(last(&names, "web2.test").await, Ok(1));
        }
    })
    .await;
    assert!(asked > 2 && metrics.checks.names.get() == 1, "{asked}");
}

#[tokio::test]
async fn an_address_without_a_ttl_is_asked_for_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (names, _) = server.names(dir.path(), 10);
    for turn in 1..=3 {
        server.says(turn, 0);
        assert_eq!(last(&names, "web.test").await, Ok(turn));
    }
    assert_eq!(server.asked().len(), 3);
}

/// HTTP servers on one port of some loopback addresses; each says which it is, and never closes a connection.
async fn serve_http<const N: usize>() -> (u16, [Arc<Mutex<usize>>; N]) {
    let mut port = 0;
    let connections: [Arc<Mutex<usize>>; N] = std::array::from_fn(|_| Arc::default());
    for (last, connections) in (1..).zip(connections.clone()) {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await.unwrap();
        port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *connections.lock() += 1;
                tokio::spawn(async move {
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{last}");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
    }
    (port, connections)
}

fn http(host: &str, port: u16, timeout: Duration) -> Check {
    tcp_check().with(|terms| {
        terms.timeout = timeout;
        terms.kind = CheckKind::Http {
            url: format!("http://{host}:{port}/"),
            method: "GET".into(),
            header: Default::default(),
            body: String::new(),
            follow_redirects: true,
            tls: ProbeTls::default(),
        }
    })
}

fn tools(names: Arc<Names>) -> Tools {
    let metrics = Arc::new(Metrics::default());
    Tools {
        tls: Clients::new().unwrap(),
        names,
        targets: Default::default(),
        metrics,
        traces: Default::default(),
    }
}

#[tokio::test]
async fn a_kept_connection_is_used_while_the_name_leads_there_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (port, connections) = serve_http::<2>().await;
    let (names, metrics) = server.names(dir.path(), 10);
    let tools = tools(names.clone());
    let (mut shelf, _notices) = Shelf::new(1, metrics);
    let check = http("web.test", port, Duration::from_secs(60));
    let target = shelf.join(&kinds::target(&check.kind).unwrap(), 1);
    server.says(1, 2);
    let begun = Instant::now();
    let mut turns = 0;
    in_time(async {
        loop {
            let probed = kinds::probe(&check, shelf.borrow(&target, 1, Instant::now()), &tools).await;
            assert_eq!(probed.finding.status, Status::Passing);
            shelf.take_back(&target, 1, probed.stream);
            if probed.finding.output.ends_with('2') {
                break;
            }
            turns += 1;
            server.says(2, 3600);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(2) && turns > 1);
    assert_eq!(connections.map(|count| *count.lock()), [1, 1]);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_kept_connection_says_nothing_of_a_name_that_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (port, _) = serve_http::<1>().await;
    let (names, metrics) = server.names(dir.path(), 10);
    let tools = tools(names);
    let (mut shelf, _notices) = Shelf::new(1, metrics);
    let check = http("web.test", port, Duration::from_secs(60));
    let target = shelf.join("web", 1);
    server.says(1, 0);
    let probed = kinds::probe(&check, None, &tools).await;
    shelf.take_back(&target, 1, probed.stream);
    let gone = http("gone.test", port, Duration::from_secs(60));
    let probed = kinds::probe(&gone, shelf.borrow(&target, 1, Instant::now()), &tools).await;
    assert!(probed.finding.output.ends_with("lookup gone.test: no such host"), "{}", probed.finding.output);
}

/// DNS rebinding: what was allowed at one lookup says nothing of the next.
#[tokio::test]
async fn a_name_that_leads_elsewhere_later_is_judged_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (port, connections) = serve_http::<2>().await;
    let (names, metrics) = server.names(dir.path(), 10);
    let mut tools = tools(names);
    tools.targets.deny = vec!["127.0.0.2/32".parse().unwrap()];
    let (mut shelf, _notices) = Shelf::new(1, metrics);
    let check = http("web.test", port, Duration::from_secs(60));
    let target = shelf.join(&kinds::target(&check.kind).unwrap(), 1);
    server.says(1, 0);
    let probed = kinds::probe(&check, None, &tools).await;
    assert_eq!(probed.finding.status, Status::Passing);
    shelf.take_back(&target, 1, probed.stream);
    server.says(2, 0);
    let probed = kinds::probe(&check, shelf.borrow(&target, 1, Instant::now()), &tools).await;
    assert_eq!(probed.finding.status, Status::Critical);
    assert!(probed.finding.output.contains("127.0.0.2 is in 127.0.0.2/32"), "{}", probed.finding.output);
    assert_eq!(connections.map(|count| *count.lock()), [1, 0]);
}

#[tokio::test]
async fn an_address_that_a_probe_has_waited_for_in_vain_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Duration::ZERO).await;
    let (names, _) = server.names(dir.path(), 10);
    let tools = tools(names);
    let (port, _) = serve_http::<1>().await;
    // Nobody accepts and the queue is full: the kernel answers nothing.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&SocketAddr::from(([127, 0, 0, 2], port)).into()).unwrap();
    silent.listen(0).unwrap();
    let _queued = tokio::net::TcpStream::connect(("127.0.0.2", port)).await.unwrap();
    server.says(2, 3600);
    let check = http("web.test", port, Duration::from_millis(200));
    assert!(kinds::probe(&check, None, &tools).await.timed_out);
    server.says(1, 3600);
    in_time(async { while kinds::probe(&check, None, &tools).await.timed_out {} }).await;
    assert_eq!(server.asked().len(), 2);
}
