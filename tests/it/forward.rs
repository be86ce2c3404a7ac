//! Names of others, for clients that have us as their resolver. The upstream is another Rollcall with a static zone, or a
//! socket of the test where a server is to misbehave.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rollcall::config::{Config, Data};
use rollcall::dns::forward;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};

use crate::dns::healthy;
use crate::server::{PATIENCE, TestServer, ask_tcp, config, query, read_tcp};
use crate::wire::{self, data, soa};
use crate::zones::{self, EXAMPLE};

fn to(upstreams: &[SocketAddr]) -> Option<forward::Config> {
    let timeout = Duration::from_millis(300);
    Some(forward::Config { upstreams: upstreams.to_vec(), timeout, ..forward::Config::default() })
}

async fn forwarding(upstreams: &[SocketAddr], change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        config.data = Data::Ephemeral;
        config.forward = to(upstreams);
        change(config);
    })
    .await
}

/// An upstream with the example zone, and a server that forwards to it.
async fn pair() -> (TestServer, TempDir, TestServer) {
    let (upstream, folder) = zones::serve(&[("example.test.", EXAMPLE)]).await;
    let server = forwarding(&[upstream.dns()], |_| {}).await;
    (upstream, folder, server)
}

/// How many questions a server has answered.
async fn answered(server: &TestServer) -> u64 {
    let text = server.get("/metrics").await.text();
    let counts = text.lines().filter(|line| line.starts_with("rollcall_dns_answers_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// An address where nobody listens, on UDP or TCP, and its guard: whoever asks gets no answer.
async fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// The answer, however long others take for it.
async fn ask(server: SocketAddr, message: &Message) -> Message {
    ask_from("127.0.0.1", server, message).await
}

async fn ask_for(server: &TestServer, name: &str, kind: RecordType) -> Message {
    ask(server.dns(), &query(name, kind)).await
}

/// Asks from an address of loopback.
async fn ask_from(client: &str, server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind((client.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&message.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
    let answer = Message::from_vec(&buffer[..received.expect("no answer").unwrap()]).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

#[tokio::test]
async fn answers_of_others_come_whole_and_without_aa() {
    let (_upstream, _folder, server) = pair().await;
    for (name, kind, expected) in [
        ("www.example.test.", RecordType::A, "192.0.2.1"),
        ("www.example.test.", RecordType::AAAA, "2001:db8::1"),
        ("alias.example.test.", RecordType::A, "192.0.2.1"),
        ("a.old.example.test.", RecordType::A, "192.0.2.7"),
        ("x.wild.example.test.", RecordType::TXT, "any"),
    ] {
        for answer in [ask_for(&server, name, kind).await, ask_tcp(server.dns(), &query(name, kind)).await] {
            assert_eq!(answer.response_code, ResponseCode::NoError, "{name}");
            assert!(answer.recursion_available && !answer.authoritative, "{name}");
            assert_eq!(data(&answer.answers, kind), [expected], "{name}: {answer}");
            let start = Name::from_ascii(name).unwrap();
            assert!(answer.answers.iter().any(|record| record.name == start), "the chain starts at the name");
        }
    }
    let alias = ask_for(&server, "alias.example.test.", RecordType::A).await;
    assert_eq!(data(&alias.answers, RecordType::CNAME), ["www.example.test."]);
}

#[tokio::test]
async fn negative_answers_of_others_have_their_soa_and_ra() {
    let (_upstream, _folder, server) = pair().await;
    for _ in 0..2 {
        for (name, rcode) in
            [("none.example.test.", ResponseCode::NXDomain), ("ent.example.test.", ResponseCode::NoError)]
        {
            let answer = ask_for(&server, name, RecordType::A).await;
            assert_eq!(answer.response_code, rcode, "{name}");
            assert!(answer.recursion_available && !answer.authoritative);
            let (owner, ttl, minimum) = soa(&answer);
            assert_eq!((owner, minimum), (Name::from_ascii("example.test.").unwrap(), 60), "{name}");
            assert!(ttl <= 60, "{name}");
        }
    }
}

#[tokio::test]
async fn what_was_answered_once_is_not_asked_again_and_letter_case_is_the_clients() {
    let (upstream, _folder, server) = pair().await;
    ask_for(&server, "www.example.test.", RecordType::A).await;
    ask_for(&server, "none.example.test.", RecordType::A).await;
    let before = answered(&upstream).await;
    assert!(before >= 2);
    for _ in 0..10 {
        let answer = ask_for(&server, "wWw.ExAmPlE.tEsT.", RecordType::A).await;
        assert_eq!(data(&answer.answers, RecordType::A), ["192.0.2.1"]);
        assert_eq!(answer.queries[0].name().to_ascii(), "wWw.ExAmPlE.tEsT.");
        assert_eq!(answer.answers[0].name.to_ascii(), "wWw.ExAmPlE.tEsT.");
        let answer = ask_for(&server, "NONE.example.test.", RecordType::A).await;
        assert_eq!(answer.response_code, ResponseCode::NXDomain);
    }
    assert_eq!(answered(&upstream).await, before);
    ask_for(&server, "www.example.test.", RecordType::AAAA).await;
    assert!(answered(&upstream).await > before, "the count does count");
}

/// Upstream's UDP answer has TC; ours is complete over TCP and has TC over UDP.
#[tokio::test]
async fn big_answers_of_others_are_fetched_over_tcp() {
    let many: String = (0..200).map(|i| format!("many A 198.51.100.{i}\n")).collect();
    let (upstream, _folder) = zones::serve(&[("example.test.", &format!("{EXAMPLE}{many}"))]).await;
    let server = forwarding(&[upstream.dns()], |_| {}).await;
    let whole = ask_tcp(server.dns(), &query("many.example.test.", RecordType::A)).await;
    assert_eq!((whole.answers.len(), whole.truncation), (200, false));
    let mut asked = query("many.example.test.", RecordType::A);
    asked.set_edns(Edns::new());
    let cut = ask(server.dns(), &asked).await;
    assert!(cut.truncation && cut.answers.len() < 200);
    let metrics = upstream.get("/metrics").await.text();
    assert!(metrics.contains("type=\"A\",rcode=\"NOERROR\",transport=\"tcp\""), "{metrics}");
}

#[tokio::test]
async fn the_second_upstream_is_used_when_the_first_is_dead() {
    let (_guard, dead) = silent().await;
    let (upstream, _folder) = zones::serve(&[("example.test.", EXAMPLE)]).await;
    let server = forwarding(&[dead, upstream.dns()], |_| {}).await;
    for name in ["www.example.test.", "ns.example.test.", "alias.example.test."] {
        let answer = ask_for(&server, name, RecordType::A).await;
        assert_eq!(data(&answer.answers, RecordType::A).len(), 1, "{name}: {answer}");
    }
}

#[tokio::test]
async fn when_all_upstreams_are_dead_it_is_servfail_with_ra_and_live_names_go_on() {
    let ((_first, one), (_second, two)) = (silent().await, silent().await);
    let server = forwarding(&[one, two], |_| {}).await;
    let answer = ask_for(&server, "www.example.test.", RecordType::A).await;
    assert_eq!(answer.response_code, ResponseCode::ServFail);
    assert!(answer.recursion_available && answer.answers.is_empty());
    assert_eq!(server.metric("rollcall_dns_forwarded_total{outcome=\"failed\"}").await, 1.0);
    let live = ask_for(&server, "n1.node.internal.", RecordType::A).await;
    assert!(live.authoritative && live.recursion_available);
    assert_eq!(live.answers.len(), 1);
}

/// A client outside is refused before anything is looked up: also what others have put into the cache.
#[tokio::test]
async fn only_clients_in_allow_are_served_even_from_the_cache() {
    let (upstream, _folder) = zones::serve(&[("example.test.", EXAMPLE)]).await;
    let server = forwarding(&[upstream.dns()], |config| {
        config.forward.as_mut().unwrap().allow = vec!["127.0.0.2/32".parse().unwrap()];
    })
    .await;
    let asked = query("www.example.test.", RecordType::A);
    for _ in 0..2 {
        let refused = ask_from("127.0.0.1", server.dns(), &asked).await;
        assert_eq!(refused.response_code, ResponseCode::Refused);
        assert!(!refused.recursion_available && refused.answers.is_empty());
        let refused = ask_tcp(server.dns(), &asked).await;
        assert_eq!(refused.response_code, ResponseCode::Refused);
        let answer = ask_from("127.0.0.2", server.dns(), &asked).await;
        assert_eq!(data(&answer.answers, RecordType::A), ["192.0.2.1"]);
        assert!(answer.recursion_available);
    }
    // RA tells the truth for each client, also in answers about live names.
    let live = query("n1.node.internal.", RecordType::A);
    assert!(!ask_from("127.0.0.1", server.dns(), &live).await.recursion_available);
    assert!(ask_from("127.0.0.2", server.dns(), &live).await.recursion_available);
}

#[tokio::test]
async fn without_rd_nothing_is_forwarded_not_even_from_the_cache() {
    let (upstream, _folder, server) = pair().await;
    let mut asked = query("www.example.test.", RecordType::A);
    asked.metadata.recursion_desired = false;
    let before = answered(&upstream).await;
    assert_eq!(ask(server.dns(), &asked).await.response_code, ResponseCode::Refused);
    assert_eq!(answered(&upstream).await, before);
    assert_eq!(ask_for(&server, "www.example.test.", RecordType::A).await.answers.len(), 1);
    assert_eq!(ask(server.dns(), &asked).await.response_code, ResponseCode::Refused);
}

/// What is cached is of class IN, and a question of another class does not meet it.
#[tokio::test]
async fn another_class_never_meets_the_cache() {
    let (upstream, _folder, server) = pair().await;
    assert_eq!(ask_for(&server, "www.example.test.", RecordType::A).await.answers.len(), 1);
    let before = answered(&upstream).await;
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::NONE, DNSClass::ANY] {
        let mut asked = query("www.example.test.", RecordType::A);
        asked.queries[0].set_query_class(class);
        let answer = ask(server.dns(), &asked).await;
        assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::Refused, 0));
    }
    assert_eq!(answered(&upstream).await, before);
}

#[tokio::test]
async fn an_upstream_that_is_ourselves_is_refused_at_the_start() {
    // Free, and below those that the kernel gives to the connections of other tests.
    let free = |port: &u16| {
        let address = ("0.0.0.0", *port);
        std::net::TcpListener::bind(address).is_ok() && std::net::UdpSocket::bind(address).is_ok()
    };
    let port = (20_000..32_768).find(free).unwrap();
    for listen in ["127.0.7.1", "0.0.0.0"] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        config.dns.listen = vec![SocketAddr::new(listen.parse().unwrap(), port)];
        config.forward = to(&[SocketAddr::from(([127, 0, 7, 1], port))]);
        let said = format!("{:#}", rollcall::start(config).await.err().expect("it started"));
        assert!(said.contains("this server itself"), "{said}");
    }
}

#[tokio::test]
async fn live_and_static_names_are_never_forwarded_or_cached() {
    let (upstream, _folder) = zones::serve(&[("example.test.", EXAMPLE)]).await;
    let own = tempfile::tempdir().unwrap();
    let zone = zones::write(own.path(), "own.test.", EXAMPLE);
    let server = forwarding(&[upstream.dns()], |config| config.zones = vec![zone]).await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    for (name, rcode) in [
        ("none.service.internal.", ResponseCode::NXDomain),
        ("none.consul.", ResponseCode::NXDomain),
        ("none.own.test.", ResponseCode::NXDomain),
        ("www.own.test.", ResponseCode::NoError),
        ("1.0.0.10.in-addr.arpa.", ResponseCode::NoError),
        ("internal.", ResponseCode::NoError),
        ("web.service.internal.", ResponseCode::NoError),
    ] {
        for kind in [RecordType::A, RecordType::MX, RecordType::PTR] {
            assert_eq!(ask_for(&server, name, kind).await.response_code, rcode, "{name} {kind}");
        }
    }
    assert_eq!(answered(&upstream).await, 0);
    // No cache stands before the registry.
    server.put("/v1/agent/check/fail/service:web-1", "").await;
    assert!(ask_for(&server, "web.service.internal.", RecordType::A).await.answers.is_empty());
    assert_eq!(answered(&upstream).await, 0);
}

/// Registrations that point at one another: the circle ends, and none of it is asked of others.
#[tokio::test]
async fn aliases_among_our_own_names_are_followed_here_and_circles_end() {
    let (upstream, _folder, server) = pair().await;
    server.register(healthy("a-1", "a", "b.service.internal", 1)).await;
    server.register(healthy("b-1", "b", "a.service.consul", 1)).await;
    server.register(healthy("self-1", "self", "self.service.internal", 1)).await;
    server.register(healthy("front-1", "front", "web.service.internal", 1)).await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    server.register(healthy("gone-1", "gone", "none.service.internal", 1)).await;
    for kind in [RecordType::A, RecordType::AAAA] {
        for name in ["a.service.internal.", "b.service.internal.", "self.service.internal."] {
            let answer = ask_for(&server, name, kind).await;
            assert_eq!(answer.response_code, ResponseCode::NoError);
            assert!((1..=4).contains(&answer.answers.len()), "{answer}");
            assert!(answer.answers.iter().all(|record| record.record_type() == RecordType::CNAME));
        }
    }
    let answer = ask_for(&server, "front.service.internal.", RecordType::A).await;
    assert_eq!(data(&answer.answers, RecordType::CNAME), ["web.service.internal."]);
    assert_eq!(data(&answer.answers, RecordType::A), ["10.0.0.1"]);
    // RFC 6604: the code is that of the last name.
    let answer = ask_for(&server, "gone.service.internal.", RecordType::A).await;
    assert_eq!(answer.response_code, ResponseCode::NXDomain);
    assert_eq!((answer.answers.len(), answer.authorities.len()), (1, 1));
    assert_eq!(answered(&upstream).await, 0);
}

/// Each of twelve services points at all of them: work and answer stay small.
#[tokio::test]
async fn a_thicket_of_aliases_is_one_small_answer() {
    let server = forwarding(&[silent().await.1], |_| {}).await;
    for from in 0..12 {
        for target in 0..12 {
            let address = format!("s{target}.service.internal");
            server.register(healthy(&format!("s{from}-{target}"), &format!("s{from}"), &address, 1)).await;
        }
    }
    let answer = ask_for(&server, "s0.service.internal.", RecordType::A).await;
    assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    soa(&answer);
    server.register(healthy("s3-ip", "s3", "10.0.0.3", 1)).await;
    let answer = ask_for(&server, "s0.service.internal.", RecordType::A).await;
    assert_eq!(data(&answer.answers, RecordType::A), ["10.0.0.3"]);
}

#[tokio::test]
async fn host_names_of_others_are_flattened_through_the_forwarder() {
    let (_upstream, _folder, server) = pair().await;
    server.register(healthy("web-1", "web", "www.example.test", 80)).await;
    let one = ask_for(&server, "web.service.internal.", RecordType::A).await;
    assert_eq!(data(&one.answers, RecordType::CNAME), ["www.example.test."]);
    assert_eq!(data(&one.answers, RecordType::A), ["192.0.2.1"]);
    server.register(healthy("web-2", "web", "ns.example.test", 80)).await;
    server.register(healthy("web-3", "web", "10.0.0.3", 80)).await;
    let three = ask_for(&server, "wEb.service.internal.", RecordType::A).await;
    assert_eq!(data(&three.answers, RecordType::A), ["10.0.0.3", "192.0.2.1", "192.0.2.53"]);
    assert!(three.authoritative && three.authorities.is_empty());
    for record in &three.answers {
        assert_eq!(record.name.to_ascii(), "wEb.service.internal.");
        assert!(record.ttl <= 5, "never above the ceiling, though others say 300");
    }
    let none = ask_for(&server, "web.service.internal.", RecordType::MX).await;
    soa(&none);
}

/// A server that answers NODATA without SOA must not keep a name from appearing: RFC 2308 section 5.
#[tokio::test]
async fn a_negative_answer_without_soa_is_not_kept() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let upstream = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
            answer.metadata.recursion_available = true;
            answer.add_query(request.queries[0].clone());
            socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    });
    let server = forwarding(&[address], |_| {}).await;
    let mut last = 0;
    for _ in 0..3 {
        let answer = ask_for(&server, "late.example.test.", RecordType::A).await;
        assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
        let now = asked.load(Ordering::Relaxed);
        assert!(now > last, "it was kept");
        last = now;
    }
    upstream.abort();
}

#[tokio::test]
async fn more_questions_than_may_wait_are_servfail_at_once_and_counted() {
    let (_guard, dead) = silent().await;
    let server = forwarding(&[dead], |config| {
        let forward = config.forward.as_mut().unwrap();
        (forward.waiting_max, forward.timeout) = (2, PATIENCE);
    })
    .await;
    let clients: Vec<_> = (0..5).map(|i| wire::query(&format!("n{i}.example.test"), RecordType::A)).collect();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.dns()).await.unwrap();
    for message in &clients {
        socket.send(message).await.unwrap();
    }
    // Two wait for the dead one far longer than this test; three are told at once.
    for _ in 0..3 {
        let mut buffer = [0; 512];
        let length = tokio::time::timeout(PATIENCE / 2, socket.recv(&mut buffer)).await.unwrap().unwrap();
        let head = wire::head(&buffer[..length]);
        assert_eq!((head.rcode(), head.has(wire::RA)), (2, true));
    }
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("rollcall_dns_forwarded_total{outcome=\"too many\"} 3"), "{metrics}");
}

/// An upstream that takes a while for each answer. Returns its address and how many it worked on at once at most.
async fn slow() -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (address, most) = (socket.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    tokio::spawn(async move {
        let at_once = Arc::new(AtomicUsize::new(0));
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let request = Message::from_vec(&buffer[..length]).unwrap();
            seen.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let (socket, at_once) = (socket.clone(), at_once.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(40)).await;
                at_once.fetch_sub(1, Ordering::SeqCst);
                let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
                let name = request.queries[0].name().clone();
                answer.add_query(request.queries[0].clone());
                answer.add_answer(Record::from_rdata(name, 60, RData::A("192.0.2.1".parse().unwrap())));
                let _ = socket.send_to(&answer.to_vec().unwrap(), client).await;
            });
        }
    });
    (address, most)
}

/// One connection cannot have more than its share asked of others at once, however much it pipelines; all is answered.
#[tokio::test]
async fn one_tcp_connection_has_only_so_many_questions_forwarded_at_once() {
    let (upstream, most) = slow().await;
    let server = forwarding(&[upstream], |config| {
        config.dns.tcp.in_flight_max = 3;
        config.forward.as_mut().unwrap().timeout = PATIENCE;
    })
    .await;
    let mut stream = TcpStream::connect(server.dns()).await.unwrap();
    let queries =
        (0..24).flat_map(|i| wire::framed(&wire::query(&format!("n{i}.example.test"), RecordType::A)));
    stream.write_all(&queries.collect::<Vec<u8>>()).await.unwrap();
    for _ in 0..24 {
        let answer = tokio::time::timeout(PATIENCE, read_tcp(&mut stream)).await.unwrap().unwrap();
        assert_eq!((wire::head(&answer).rcode(), wire::head(&answer).counts[1]), (0, 1));
    }
    let most = most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");
}

/// RFC 7766 section 6.2.1.1: what can be answered at once does not wait for what others take their time for.
#[tokio::test]
async fn a_live_name_is_answered_before_a_slow_one_that_was_asked_first() {
    let (upstream, _) = slow().await;
    let server = forwarding(&[upstream], |config| config.forward.as_mut().unwrap().timeout = PATIENCE).await;
    let mut stream = TcpStream::connect(server.dns()).await.unwrap();
    let slow = wire::query("slow.example.test", RecordType::A);
    let mut live = wire::query("n1.node.internal", RecordType::A);
    live[0] = !slow[0];
    stream.write_all(&[wire::framed(&slow), wire::framed(&live)].concat()).await.unwrap();
    for expected in [&live, &slow] {
        let answer = tokio::time::timeout(PATIENCE, read_tcp(&mut stream)).await.unwrap().unwrap();
        assert_eq!(answer[..2], expected[..2]);
    }
}

#[tokio::test]
async fn nothing_is_forwarded_by_default() {
    let server = TestServer::start().await;
    let answer = ask_for(&server, "www.example.test.", RecordType::A).await;
    assert_eq!((answer.response_code, answer.recursion_available), (ResponseCode::Refused, false));
}

/// A client takes an answer only from the address that it asked; its socket is connected, so the kernel sees to that.
#[tokio::test]
async fn on_a_wildcard_address_the_answer_leaves_from_the_address_that_was_asked() {
    let server = forwarding(&[silent().await.1], |config| {
        config.dns.listen = vec!["0.0.0.0:0".parse().unwrap()];
    })
    .await;
    let port = server.dns().port();
    for address in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
        let asked = query("internal.", RecordType::SOA);
        let at = SocketAddr::new(address.parse().unwrap(), port);
        assert_eq!(ask_from("127.0.0.9", at, &asked).await.answers.len(), 1, "{address}");
        assert_eq!(ask_tcp(at, &asked).await.answers.len(), 1, "{address}");
        // What had to be asked of others, too.
        let elsewhere = query("www.example.test.", RecordType::A);
        assert_eq!(ask_from("127.0.0.9", at, &elsewhere).await.response_code, ResponseCode::ServFail);
    }
}

#[tokio::test]
async fn ipv6_listeners_answer_where_the_machine_has_ipv6() {
    if UdpSocket::bind("[::1]:0").await.is_err() {
        return;
    }
    for listen in ["[::1]:0", "[::]:0"] {
        let server = TestServer::with(|config| config.dns.listen = vec![listen.parse().unwrap()]).await;
        server.register(json!({ "Name": "web", "Address": "fd00::1", "Port": 1 })).await;
        let at = SocketAddr::new("::1".parse().unwrap(), server.dns().port());
        let asked = query("web.service.internal.", RecordType::AAAA);
        for answer in [ask_from("::1", at, &asked).await, ask_tcp(at, &asked).await] {
            assert!(matches!(answer.answers[0].data, RData::AAAA(_)));
        }
    }
}

#[tokio::test]
async fn an_alias_that_leads_out_of_a_zone_is_asked_of_others_for_those_who_want_recursion() {
    let (upstream, _folder) = zones::serve(&[("example.test.", EXAMPLE)]).await;
    let folder = tempfile::tempdir().unwrap();
    let text = "$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\nhost A 192.0.2.44\n\
                shop CNAME www.example.test.\n";
    let zone = zones::write(folder.path(), "local.test.", text);
    let server = forwarding(&[upstream.dns()], |config| config.zones = vec![zone]).await;
    let answer = ask_for(&server, "shop.local.test.", RecordType::A).await;
    assert_eq!(data(&answer.answers, RecordType::CNAME), ["www.example.test."]);
    assert_eq!(data(&answer.answers, RecordType::A), ["192.0.2.1"], "{answer}");
    let mut plain = query("shop.local.test.", RecordType::A);
    plain.metadata.recursion_desired = false;
    let answer = ask(server.dns(), &plain).await;
    assert_eq!((answer.answers.len(), answer.authoritative), (1, true), "{answer}");
    // A host name of an instance that is a static name of ours is never asked of others.
    let asked = answered(&upstream).await;
    server.register(json!({ "Name": "db", "ID": "a", "Address": "host.local.test" })).await;
    server.register(json!({ "Name": "db", "ID": "b", "Address": "10.0.0.7" })).await;
    let answer = ask_for(&server, "db.service.internal.", RecordType::A).await;
    let mut found = data(&answer.answers, RecordType::A);
    found.sort();
    assert_eq!(found, ["10.0.0.7", "192.0.2.44"], "{answer}");
    assert_eq!(answered(&upstream).await, asked);
}
