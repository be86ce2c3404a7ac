//! Attacks on DNS servers that others have met, against a whole server: it must answer what can be answered, keep its
//! bounds, and still serve afterwards.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use rollcall::config::Data;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Runtime;

use crate::dns::healthy;
use crate::server::{PATIENCE, TestServer, exchange, query as question};
use crate::wire::{self, *};

/// A question whose name is these octets.
fn named(name: &[u8]) -> Vec<u8> {
    [&header(RD, [1, 0, 0, 0]), name, &[0, 1, 0, 1][..]].concat()
}

async fn assert_formerr(server: &TestServer, message: &[u8], what: &str) {
    let over_udp = wire::ask(server.dns(), message).await;
    let over_tcp = wire::ask_tcp(server.dns(), message).await.unwrap();
    for answer in [over_udp, over_tcp] {
        assert_eq!((head(&answer).rcode(), head(&answer).id), (FORMERR, head(message).id), "{what}");
        assert_eq!(head(&answer).counts[1..], [0, 0, 0], "{what}");
        assert!(answer.len() <= message.len(), "{what}: an error is no amplification");
    }
}

/// NAME:WRECK and its kin. The question's name is the first of the message: a pointer in it leads nowhere good.
#[tokio::test]
async fn pointers_in_the_question_are_a_format_error() {
    let server = TestServer::start().await;
    for (pointer, what) in [
        (&[0xc0, 0x0c][..], "to itself"),
        (&[1, b'a', 0xc0, 0x0c], "to the label before it, in a circle"),
        (&[0xc0, 0x00], "into the header"),
        (&[0xc0, 0x02], "to the flags"),
        (&[0xc0, 0x10], "forward"),
        (&[0xff, 0xff], "far behind the end"),
        (&[0x40, 0], "an extended label of RFC 2673"),
        (&[0x80, 0], "a reserved kind of label"),
        (&[3, b'w', b'e'], "a label cut short"),
        (&[64; 65], "a label of 64 octets"),
    ] {
        assert_formerr(&server, &named(pointer), what).await;
    }
    // A chain of pointers, each to the next.
    for count in [2, 128, 1000] {
        let chain: Vec<u8> =
            (0..count).flat_map(|i| (0xc000 | (HEADER as u16 + 2 * (i + 1))).to_be_bytes()).collect();
        assert_formerr(&server, &named(&[&chain[..], &[0]].concat()), "a chain").await;
    }
}

/// Nothing follows a pointer outside the question, so none can hang or crash anything; the message is answered.
#[tokio::test]
async fn pointers_elsewhere_are_never_followed() {
    let server = TestServer::start().await;
    let plain = query("internal", RecordType::SOA);
    let end = plain.len() as u16;
    for target in [end, end + 1, 0, 2, 12, 0x3fff] {
        let record = [&(0xc000 | target).to_be_bytes()[..], &[0, 16, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        for section in 1..=3 {
            let answer = wire::ask(server.dns(), &with(plain.clone(), section, &record)).await;
            assert!([0, FORMERR].contains(&head(&answer).rcode()), "to {target} in section {section}");
        }
    }
}

#[tokio::test]
async fn labels_and_names_at_their_limits_and_beyond() {
    let server = TestServer::start().await;
    let labels = |lengths: &[usize]| {
        let each = lengths.iter().flat_map(|length| [vec![*length as u8], vec![b'a'; *length]].concat());
        each.chain([0]).collect::<Vec<u8>>()
    };
    let longest = labels(&[63, 63, 63, 61]);
    assert_eq!(longest.len(), 255);
    let answer = wire::ask(server.dns(), &named(&longest)).await;
    assert_eq!(head(&answer).rcode(), REFUSED);
    assert_eq!(answer[HEADER..HEADER + 255], longest[..], "the whole name comes back");
    assert_formerr(&server, &named(&labels(&[63, 63, 63, 62])), "256 octets").await;
    assert_formerr(&server, &named(&labels(&[63; 10])), "640 octets").await;
    // 127 labels of one octet are 255 octets; 128 are not.
    assert_eq!(head(&wire::ask(server.dns(), &named(&labels(&[1; 127]))).await).rcode(), REFUSED);
    assert_formerr(&server, &named(&labels(&[1; 128])), "128 labels").await;
    // The same below a domain of ours.
    let below = [&labels(&[1; 122])[..244], &name("internal")].concat();
    assert_eq!(head(&wire::ask(server.dns(), &named(&below)).await).rcode(), NXDOMAIN);
}

#[tokio::test]
async fn octets_behind_the_message_and_counts_that_lie_are_a_format_error() {
    let server = TestServer::start().await;
    let plain = query("internal", RecordType::SOA);
    for garbage in [&[0][..], &[0; 100], b"GET / HTTP/1.1\r\n\r\n"] {
        assert_formerr(&server, &[&plain[..], garbage].concat(), "garbage").await;
    }
    for section in 1..=3usize {
        for count in [1u16, 2, 65_535] {
            let mut message = plain.clone();
            message[4 + 2 * section..6 + 2 * section].copy_from_slice(&count.to_be_bytes());
            assert_formerr(&server, &message, "records that are not there").await;
        }
    }
}

#[tokio::test]
async fn tsig_must_be_last_and_opt_need_not_be() {
    let server = TestServer::start().await;
    let plain = query("internal", RecordType::SOA);
    let tsig = [&name("key")[..], &[0, 250, 0, 255, 0, 0, 0, 0, 0, 0]].concat();
    let other = [&name("x")[..], &[0, 16, 0, 1, 0, 0, 0, 0, 0, 2, 1, b'y']].concat();
    let opt = opt(1232, 0, 0, &[]);
    assert_formerr(&server, &with(with(plain.clone(), 3, &tsig), 3, &other), "TSIG before another").await;
    assert_formerr(&server, &with(with(plain.clone(), 3, &tsig), 3, &opt), "TSIG before OPT").await;
    assert_formerr(&server, &with(plain.clone(), 1, &tsig), "TSIG among the answers").await;
    assert_formerr(&server, &with(with(plain.clone(), 3, &tsig), 3, &tsig), "TSIG twice").await;
    let answer = wire::ask(server.dns(), &with(with(plain, 3, &opt), 3, &other)).await;
    assert_eq!((head(&answer).rcode(), opt_of(&answer).is_some()), (0, true));
}

/// Answering echo or chargen starts a loop between two servers. Where this user may not bind such a port the rule is
/// shown by the unit test of `dns::udp` alone.
#[tokio::test]
async fn ports_of_services_that_answer_anything_get_no_answer() {
    let server = TestServer::start().await;
    for port in [7, 13, 17, 19, 37] {
        let Ok(socket) = UdpSocket::bind(("127.0.0.1", port)).await else { continue };
        socket.connect(server.dns()).await.unwrap();
        socket.send(&query("internal", RecordType::SOA)).await.unwrap();
        // Answered later than that one, so had there been an answer it would be here.
        assert_eq!(server.ask("internal.", RecordType::SOA).await.answers.len(), 1);
        let mut buffer = [0; 512];
        assert!(socket.try_recv(&mut buffer).is_err(), "port {port}");
    }
}

/// Many connections that drip, and a flood of others: questions over UDP are answered all the while. At least 95 of 100 must be:
/// the kernel may drop some on a busy machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_is_answered_while_tcp_is_flooded() {
    let server = TestServer::with(|config| {
        config.data = Data::Ephemeral;
        config.dns.tcp.connections_per_client_max = 100;
    })
    .await;
    let at = server.dns();
    let mut slow = Vec::new();
    for _ in 0..90 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(&[0xff]).await.unwrap();
        slow.push(stream);
    }
    let flooding = tokio::spawn(async move {
        let (mut connected, mut open) = (0, std::collections::VecDeque::new());
        while connected < 2000 {
            let Ok(stream) = TcpStream::connect(at).await else { break };
            // A reset leaves no port behind.
            stream.set_zero_linger().unwrap();
            connected += 1;
            // More than the slow ones leave room for.
            open.push_back(stream);
            if open.len() > 20 {
                open.pop_front();
            }
        }
        (connected, open)
    });
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at).await.unwrap();
    let (mut asked, mut answered, mut buffer) = (0, 0, [0; 512]);
    while asked < 200 || !flooding.is_finished() {
        socket.send(&query("internal", RecordType::SOA)).await.unwrap();
        asked += 1;
        let received = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut buffer)).await;
        answered += usize::from(received.is_ok());
    }
    let (connected, open) = flooding.await.unwrap();
    assert_eq!(connected, 2000);
    assert!(answered * 100 >= asked * 95, "{answered} of {asked}");
    // The last of the flood may still wait to be accepted.
    let met = async { while server.metric("rollcall_limit_hits_total").await == 0.0 {} };
    tokio::time::timeout(PATIENCE, met).await.expect("the flood did not meet the limit");
    drop((slow, open));
}

/// For any question over UDP: 512 octets without EDNS, else what the client says, but never above 1232; errors and ANY
/// are hardly longer than the question.
#[tokio::test]
async fn answers_over_udp_keep_to_their_bound_whatever_is_asked() {
    let server = crate::dns::crowd(200).await;
    let mut largest = 0;
    for name in
        ["web.service.internal", "_web._tcp.service.consul", "none.internal", "internal", "example.com"]
    {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT, RecordType::ANY] {
            let plain = query(name, kind);
            assert!(wire::ask(server.dns(), &plain).await.len() <= 512);
            for size in [0u16, 512, 1000, 1232, 4096, 65_535] {
                let message = with(plain.clone(), 3, &opt(size, 0, 0, &[]));
                let answer = wire::ask(server.dns(), &message).await;
                assert!(answer.len() <= usize::from(size.clamp(512, 1232)), "{name} {kind} {size}");
                if kind == RecordType::ANY || head(&answer).rcode() == REFUSED {
                    assert!(answer.len() <= message.len() + 64, "{name} {kind}: {} octets", answer.len());
                }
                largest = largest.max(answer.len());
            }
        }
    }
    assert!(largest > 1200, "the bound was reached");
}

/// What one random service is.
#[derive(Debug, Clone)]
struct Service {
    name: usize,
    address: &'static str,
    tags: Vec<&'static str>,
    ttl: &'static str,
    status: &'static str,
    meta: bool,
}

const NAMES: [&str; 4] = ["web", "db", "w_x-1", "caf\u{e9} bar"];
const ADDRESSES: [&str; 6] =
    ["10.0.0.1", "10.0.0.2", "fd00::7", "db.example.com", "web.service.internal", "db.service.consul"];
const TAGS: [&str; 4] = ["v1", "v1.2", "my tag", "tcp"];

fn service() -> impl Strategy<Value = Service> {
    (
        0..NAMES.len(),
        prop::sample::select(&ADDRESSES[..]),
        prop::sample::subsequence(&TAGS[..], 0..4),
        prop::sample::select(&["1s", "90s", "20h"][..]),
        prop::sample::select(&["passing", "warning", "critical"][..]),
        any::<bool>(),
    )
        .prop_map(|(name, address, tags, ttl, status, meta)| Service {
            name,
            address,
            tags,
            ttl,
            status,
            meta,
        })
}

/// A name as a client may ask for it: labels of ours and of nobody, in any letter case, under any domain.
fn asked_name() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        4 => prop::sample::select(&["web", "db", "service", "node", "addr", "dc1", "n1", "ns", "v1", "2", "_web", "_tcp",
            "0a000001", "query", "w_x-1", "1", "0", "10"][..]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..20),
    ];
    let domain =
        prop::sample::select(&["internal", "CONSUL", "in-addr.arpa", "ip6.arpa", "example.com", ""][..]);
    (prop::collection::vec(label, 0..6), domain, any::<u64>()).prop_map(|(labels, domain, case)| {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(label.len() as u8);
            wire.extend(label);
        }
        wire.extend(name(domain));
        let mut at = 0;
        while wire[at] != 0 {
            let length = usize::from(wire[at]);
            for octet in &mut wire[at + 1..=at + length] {
                if case >> (*octet % 64) & 1 == 1 {
                    octet.make_ascii_uppercase();
                }
            }
            at += 1 + length;
        }
        wire
    })
}

#[derive(Debug, Clone)]
struct Asking {
    name: Vec<u8>,
    kind: u16,
    edns: Option<u16>,
    tcp: bool,
}

fn asking() -> impl Strategy<Value = Asking> {
    let kind = prop_oneof![
        8 => prop::sample::select(&[1u16, 28, 33, 16, 12, 6, 2, 5, 255][..]),
        1 => any::<u16>(),
    ];
    (asked_name(), kind, prop::option::of(any::<u16>()), any::<bool>())
        .prop_map(|(name, kind, edns, tcp)| Asking { name, kind, edns, tcp })
}

const CEILING: u32 = 7;

/// What must hold of every answer to a well-formed question.
fn assert_sound(message: &[u8], answer: &[u8], asking: &Asking) {
    let limit = match (asking.tcp, asking.edns) {
        (true, _) => 65_535,
        (false, None) => 512,
        (false, Some(size)) => usize::from(size.clamp(512, 1232)),
    };
    assert!(answer.len() <= limit);
    let head = head(answer);
    assert_eq!(answer[..2], message[..2], "the id");
    assert!(head.has(QR) && head.has(RD) && !head.has(RA));
    assert_eq!(head.counts[0], 1);
    let end = HEADER + asking.name.len() + 4;
    assert_eq!(answer[HEADER..end], message[HEADER..end], "the question, octet by octet");
    assert_eq!(opt_of(answer).is_some(), asking.edns.is_some());
    let parsed = Message::from_vec(answer).unwrap();
    let all = || parsed.answers.iter().chain(&parsed.authorities).chain(&parsed.additionals);
    assert!(all().all(|record| record.ttl <= CEILING), "{parsed}");
    let mut ttls = std::collections::BTreeMap::new();
    for record in all() {
        let set = (record.name.to_lowercase(), record.record_type());
        assert_eq!(*ttls.entry(set).or_insert(record.ttl), record.ttl, "one TTL for an RRset: {parsed}");
    }
    let nothing = parsed.answers.is_empty() && !parsed.truncation;
    match parsed.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain if nothing => {
            assert_eq!(soa(&parsed).1, 1);
        }
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr => assert!(nothing),
        other => panic!("{other}: {parsed}"),
    }
    let distinct: BTreeSet<String> = all().map(ToString::to_string).collect();
    assert_eq!(distinct.len(), all().count(), "no record twice: {parsed}");
}

#[test]
fn every_answer_from_any_registry_is_sound() {
    let runtime = Runtime::new().unwrap();
    let strategy = (prop::collection::vec(service(), 0..12), prop::collection::vec(asking(), 30));
    let cases = Cases { cases: 24, max_shrink_iters: 40, ..Cases::default() };
    let mut runner = TestRunner::new(cases);
    let outcome = runner.run(&strategy, |(services, asked)| {
        runtime.block_on(async {
            let server = TestServer::with(|config| {
                config.data = Data::Ephemeral;
                config.dns.ttl = Duration::from_secs(u64::from(CEILING));
            })
            .await;
            for (number, service) in services.iter().enumerate() {
                let mut definition = json!({ "ID": number.to_string(), "Name": NAMES[service.name], "Port": 80,
                    "Address": service.address, "Tags": service.tags,
                    "Check": { "TTL": service.ttl, "Status": service.status } });
                if service.meta {
                    definition["Meta"] = json!({ "key": "value", "long": "x".repeat(400) });
                }
                server.register(definition).await;
            }
            for asking in &asked {
                let question = [&asking.name[..], &asking.kind.to_be_bytes(), &[0, 1]].concat();
                let mut message = [header(RD, [1, 0, 0, 0]), question].concat();
                if let Some(size) = asking.edns {
                    message = with(message, 3, &opt(size, 0, 0, &[]));
                }
                let answer = match asking.tcp {
                    true => wire::ask_tcp(server.dns(), &message).await.unwrap(),
                    false => wire::ask(server.dns(), &message).await,
                };
                assert_sound(&message, &answer, asking);
            }
            server.running.stop().await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Octets of chance, and good messages with some of theirs changed, cut or repeated.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let good = prop::sample::select(
        &[
            ("web.service.internal", RecordType::SRV),
            ("internal", RecordType::SOA),
            ("none.consul", RecordType::ANY),
            ("1.0.0.10.in-addr.arpa", RecordType::PTR),
        ][..],
    );
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8);
    let cookie = [&[0u8, 10, 0, 8][..], &[7; 8]].concat();
    let changed = (good, any::<bool>(), changes, any::<Option<prop::sample::Index>>()).prop_map(
        move |((name, kind), edns, changes, cut)| {
            let mut message = query(name, kind);
            if edns {
                message = with(message, 3, &opt(1232, 0, 0, &cookie));
            }
            for (at, value) in changes {
                let at = at.index(message.len());
                message[at] = value;
            }
            if let Some(cut) = cut {
                message.truncate(cut.index(message.len()));
            }
            message
        },
    );
    prop_oneof![3 => changed, 1 => prop::collection::vec(any::<u8>(), 0..1500)]
}

/// `exchange` sends a good question after each: the server lives as long as that is answered.
#[test]
fn no_octets_over_udp_stop_the_server() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(server_for_fuzz());
    let mut runner = TestRunner::new(Cases { cases: 1000, max_shrink_iters: 100, ..Cases::default() });
    let outcome = runner.run(&hostile(), |message| {
        let answer = runtime.block_on(exchange(server.dns(), &message));
        if let Some(answer) = answer {
            let (asked, head) = (self::head(&message), head(&answer));
            assert!(!asked.has(QR), "a response was answered");
            assert!(head.has(QR) && head.id == asked.id);
            assert!(answer.len() <= 1232);
            Message::from_vec(&answer).unwrap_or_else(|error| panic!("{error}"));
        } else {
            assert!(message.len() < HEADER || self::head(&message).has(QR), "it deserved an answer");
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn no_octets_over_tcp_stop_the_server() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(server_for_fuzz());
    let mut runner = TestRunner::new(Cases { cases: 300, max_shrink_iters: 50, ..Cases::default() });
    let streams = (prop::collection::vec(hostile(), 1..6), any::<bool>());
    let outcome = runner.run(&streams, |(messages, with_lengths)| {
        runtime.block_on(async {
            let bytes: Vec<u8> = match with_lengths {
                true => messages.iter().flat_map(|message| framed(message)).collect(),
                false => messages.concat(),
            };
            talk(server.dns(), &bytes).await;
            let alive = wire::ask_tcp(server.dns(), &query("internal", RecordType::SOA)).await;
            assert_eq!(head(&alive.expect("it lives")).counts[1], 1);
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        let alive = server.ask("web.service.internal.", RecordType::SRV).await;
        assert_eq!(alive.answers.len(), 1);
    });
}

async fn server_for_fuzz() -> TestServer {
    let server = TestServer::with(|config| config.data = Data::Ephemeral).await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    server
}

/// Sends octets and ends the sending; reads whatever comes to the end.
async fn talk(server: SocketAddr, bytes: &[u8]) {
    let whole = async {
        let mut stream = TcpStream::connect(server).await.unwrap();
        // It may close in the middle.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("the connection never ended");
}

/// Changes that DNS cannot show must not make secondaries and caches think that the zone has changed.
#[tokio::test]
async fn nothing_that_dns_does_not_show_bumps_the_serial() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    let serial = || async {
        let answer = crate::server::ask(server.dns(), &question("internal.", RecordType::SOA)).await;
        answer.answers[0].data.to_string()
    };
    let before = serial().await;
    for i in 0..5 {
        server.put(&format!("/v1/agent/check/pass/service:web-1?note=n{i}"), "").await;
        server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
        // Refused: nothing changes.
        let refused = server.put("/v1/agent/service/register", json!({ "Name": "x", "Port": 70_000 })).await;
        assert_eq!(refused.status, 400);
    }
    assert_eq!(serial().await, before);
    server.put("/v1/agent/check/warn/service:web-1", "").await;
    assert_ne!(serial().await, before);
}
