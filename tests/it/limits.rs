//! Every limit of `[limits]` and `[http]`, reached: an error that names the key, a count, and nothing changed.

use std::time::Duration;

use rollcall::config::Config;
use rollcall::registry::Limits;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::server::{Answer, PATIENCE, TestServer, raw, read_answer};

const SERVICE: &str = "/v1/agent/service/register";
const CATALOG: &str = "/v1/catalog/register";

/// A limit of the registry, what makes it small, and a body that meets it exactly and one that is beyond.
struct Case {
    key: &'static str,
    set: fn(&mut Limits),
    path: &'static str,
    good: Value,
    beyond: Value,
}

fn cases() -> Vec<Case> {
    let of = |more: Value| {
        let mut body = json!({ "Name": "web" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let node = |name: &str, more: Value| {
        let mut body = json!({ "Node": name, "Address": "10.0.0.1" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let ttl = |id: &str| json!({ "CheckID": id, "TTL": "1h" });
    let address = json!({ "Address": "10.0.0.1" });
    vec![
        Case {
            key: "nodes_max",
            set: |l| l.nodes_max = 2,
            path: CATALOG,
            good: node("n2", json!({})),
            beyond: node("n3", json!({})),
        },
        Case {
            key: "instances_max",
            set: |l| l.instances_max = 1,
            path: SERVICE,
            good: of(json!({ "ID": "a" })),
            beyond: of(json!({ "ID": "b" })),
        },
        Case {
            key: "checks_max",
            set: |l| l.checks_max = 2,
            path: SERVICE,
            good: of(json!({ "Checks": [ttl("a")] })),
            beyond: of(json!({ "ID": "other", "Checks": [ttl("b"), ttl("c")] })),
        },
        Case {
            key: "checks_per_instance_max",
            set: |l| l.checks_per_instance_max = 2,
            path: SERVICE,
            good: of(json!({ "Checks": [ttl("a"), ttl("b")] })),
            beyond: of(json!({ "Checks": [ttl("c")] })),
        },
        Case {
            key: "tags_max",
            set: |l| l.tags_max = 2,
            path: SERVICE,
            good: of(json!({ "Tags": ["a", "b"] })),
            beyond: of(json!({ "Tags": ["a", "b", "c"] })),
        },
        Case {
            key: "tag_octets_max",
            set: |l| l.tag_octets_max = 3,
            path: SERVICE,
            good: of(json!({ "Tags": ["abc"] })),
            beyond: of(json!({ "Tags": ["abcd"] })),
        },
        Case {
            key: "meta_pairs_max",
            set: |l| l.meta_pairs_max = 1,
            path: SERVICE,
            good: of(json!({ "Meta": { "a": "1" } })),
            beyond: of(json!({ "Meta": { "a": "1", "b": "2" } })),
        },
        Case {
            key: "meta_key_octets_max",
            set: |l| l.meta_key_octets_max = 1,
            path: SERVICE,
            good: of(json!({ "Meta": { "a": "1" } })),
            beyond: of(json!({ "Meta": { "ab": "1" } })),
        },
        Case {
            key: "meta_value_octets_max",
            set: |l| l.meta_value_octets_max = 1,
            path: SERVICE,
            good: of(json!({ "Meta": { "a": "1" } })),
            beyond: of(json!({ "Meta": { "a": "12" } })),
        },
        Case {
            key: "tagged_addresses_max",
            set: |l| l.tagged_addresses_max = 1,
            path: SERVICE,
            good: of(json!({ "TaggedAddresses": { "lan": address } })),
            beyond: of(json!({ "TaggedAddresses": { "lan": address, "wan": address } })),
        },
        Case {
            key: "definition_octets_max",
            set: |l| l.definition_octets_max = 1000,
            path: SERVICE,
            good: of(json!({ "Check": { "TTL": "1h", "Notes": "short" } })),
            beyond: of(json!({ "Check": { "TTL": "1h", "Notes": "long ".repeat(200) } })),
        },
        Case {
            key: "meta_pairs_max",
            set: |l| l.meta_pairs_max = 1,
            path: CATALOG,
            good: node("n2", json!({ "NodeMeta": { "a": "1" } })),
            beyond: node("n3", json!({ "NodeMeta": { "a": "1", "b": "2" } })),
        },
        Case {
            key: "meta_key_octets_max",
            set: |l| l.meta_key_octets_max = 1,
            path: CATALOG,
            good: node("n2", json!({ "NodeMeta": { "a": "1" } })),
            beyond: node("n3", json!({ "NodeMeta": { "ab": "1" } })),
        },
        Case {
            key: "meta_value_octets_max",
            set: |l| l.meta_value_octets_max = 1,
            path: CATALOG,
            good: node("n2", json!({ "NodeMeta": { "a": "1" } })),
            beyond: node("n3", json!({ "NodeMeta": { "a": "12" } })),
        },
        Case {
            key: "tagged_addresses_max",
            set: |l| l.tagged_addresses_max = 1,
            path: CATALOG,
            good: node("n2", json!({ "TaggedAddresses": { "lan": "10.0.0.1" } })),
            beyond: node("n3", json!({ "TaggedAddresses": { "lan": "10.0.0.1", "wan": "10.0.0.1" } })),
        },
    ]
}

#[tokio::test]
async fn each_limit_of_the_registry_is_a_refusal_that_names_its_key() {
    for Case { key, set, path, good, beyond } in cases() {
        let server = TestServer::with(|config| set(&mut config.limits)).await;
        let answer = server.put(path, &good).await;
        assert_eq!(answer.status, 200, "{key}: {good}: {}", answer.text());
        let before = crate::http::catalog(&server).await;
        let index = server.metric("rollcall_registry_index").await;
        let answer = server.put(path, &beyond).await;
        assert_eq!(answer.status, 400, "{key}: {beyond}: {}", answer.text());
        assert!(answer.text().contains(&format!("([limits] {key})")), "{}", answer.text());
        assert_eq!(crate::http::catalog(&server).await, before, "{key}");
        assert_eq!(server.metric("rollcall_registry_index").await, index, "{key}");
        let series = format!("rollcall_limit_hits_total{{limit=\"{key}\"}}");
        assert_eq!(server.metric(&series).await, 1.0, "{series}");
    }
}

/// No more than this long for anything in a connection's life.
fn short(config: &mut Config) {
    config.http.idle = Duration::from_millis(200);
    config.http.body_wait = Duration::from_millis(200);
}

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.http()).await.unwrap()
}

/// What refuses, how often it was counted, and that the server answers all others.
async fn counted(server: &TestServer, kind: &str) -> f64 {
    server.metric(&format!("rollcall_http_refused_total{{reason=\"{kind}\"}}")).await
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_cut_off() {
    let server = TestServer::with(short).await;
    let before = crate::http::catalog(&server).await;
    let sent = format!("PUT {SERVICE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n{{\"Name\":");
    let answer = raw(connect(&server).await, &sent).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("the body did not arrive within"),
        "{answer}"
    );
    assert!(answer.contains("[http] body_wait"), "{answer}");
    assert_eq!(counted(&server, "slow body").await, 1.0);
    assert_eq!(crate::http::catalog(&server).await, before);
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_and_a_connection_that_says_nothing_are_cut_off() {
    let server = TestServer::with(short).await;
    for sent in ["", "GET /v1/catalog/services HTTP/1.1\r\nHost: local"] {
        let answer = raw(connect(&server).await, sent).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(counted(&server, "idle").await, 2.0);
    // One that drips is no better than one that is silent.
    let mut stream = connect(&server).await;
    let dripped = async {
        for octet in "GET /v1/catalog/services HTTP/1.1\r\nX: ".bytes().chain(std::iter::repeat(b'x')) {
            if stream.write_all(&[octet]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dripped).await.expect("it was never cut off");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_however_it_is_announced() {
    let server = TestServer::with(|config| config.http.body_max = 4096).await;
    let before = crate::http::catalog(&server).await;
    let exact = format!("{{\"Name\":\"web\"{}}}", " ".repeat(4096 - 14));
    assert_eq!(exact.len(), 4096);
    assert_eq!(server.put(SERVICE, &exact).await.status, 200);
    server.put("/v1/agent/service/deregister/web", "").await;
    let refused = |answer: &Answer| {
        assert_eq!(answer.status, 413);
        assert_eq!(answer.text(), "Request body too large, max size: 4096 bytes ([http] body_max)");
    };
    refused(&server.put(SERVICE, exact.clone() + " ").await);
    let chunked = format!(
        "PUT {SERVICE} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1001\r\n{exact} \r\n0\r\n\r\n"
    );
    let answer = raw(connect(&server).await, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("[http] body_max"), "{answer}");
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"body_max\"}").await, 2.0);
    assert_eq!(crate::http::catalog(&server).await, before);
}

#[tokio::test]
async fn connections_beyond_the_limits_are_told_so_and_counted() {
    for (key, set) in [
        ("connections_max", (|config| config.http.connections_max = 3) as fn(&mut Config)),
        ("connections_per_client_max", |config| config.http.connections_per_client_max = 3),
    ] {
        let server = TestServer::with(set).await;
        let mut idle = Vec::new();
        for _ in 0..3 {
            idle.push(connect(&server).await);
        }
        let answer = read_answer(&mut connect(&server).await).await;
        assert!(answer.starts_with("HTTP/1.1 429") && answer.contains(&format!("[http] {key}")), "{answer}");
        drop(idle.pop());
        // A place is free again, as soon as the server has seen it.
        let series = format!("rollcall_limit_hits_total{{limit=\"{key}\"}}");
        let again = async {
            loop {
                let sent = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                let answer = raw(connect(&server).await, sent).await;
                if answer.starts_with("HTTP/1.1 200") {
                    return answer;
                }
            }
        };
        let metrics = tokio::time::timeout(PATIENCE, again).await.expect("the place is not given back");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        assert!(count.trim().parse::<f64>().unwrap() >= 1.0, "{count}");
    }
}

#[tokio::test]
async fn thousands_of_idle_connections_do_not_keep_others_out() {
    // Each takes two descriptors of this process; where so many are not allowed, there are fewer.
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    let allowed = usize::try_from(soft / 4).unwrap_or(usize::MAX).min(4000);
    let server = TestServer::with(|config| {
        config.http.connections_max = allowed;
        config.http.connections_per_client_max = allowed - 50;
    })
    .await;
    let mut idle = Vec::new();
    for _ in 0..allowed + 50 {
        idle.push(connect(&server).await);
    }
    // From another address, as the flood holds its own's places.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let stream = socket.connect(server.http()).await.unwrap();
    let sent = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = raw(stream, sent).await;
    let value = |series: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    assert_eq!(value("rollcall_limit_hits_total{limit=\"connections_per_client_max\"}"), 100.0);
    assert!(value("rollcall_http_connections") <= (allowed - 49) as f64);
    let soa = server.ask("internal.", hickory_proto::rr::RecordType::SOA).await;
    assert_eq!(soa.answers.len(), 1, "DNS is answered meanwhile");
}

/// From another address of this machine.
async fn from(address: &str, server: &TestServer, path: &str) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    let stream = socket.connect(server.http()).await.unwrap();
    raw(stream, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn a_client_that_asks_too_fast_is_told_when_to_come_again_and_others_are_served() {
    let server = TestServer::with(|config| config.http.requests_per_client_max = 20).await;
    // Twenty at once; whoever has a limit is stopped by it before a thousand.
    let mut passed = 0;
    let refused = loop {
        let mut sent = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let http = server.http();
            sent.spawn(
                async move { crate::server::request(http, "GET", "/v1/status/leader", &[], "").await },
            );
        }
        let answers = sent.join_all().await;
        passed += answers.iter().filter(|answer| answer.status == 200).count();
        if let Some(refused) = answers.into_iter().find(|answer| answer.status != 200) {
            break refused;
        }
        assert!(passed < 1000, "nobody is stopped");
    };
    assert!(passed >= 20, "{passed} passed");
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    let key = "requests_per_client_max";
    let text = format!("too many requests from 127.0.0.1: at most 20 a second ([limits] {key})");
    assert_eq!(refused.text(), text);
    // Another client is served, and sees the count; who watches over the server always is.
    let metrics = from("127.0.0.9", &server, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(crate::server::metric(&metrics, &format!("rollcall_limit_hits_total{{limit=\"{key}\"}}")) >= 1.0);
    for path in ["/health", "/ready"] {
        assert_eq!(server.get(path).await.status, 200);
    }
    // Its bucket fills again.
    let again = async { while server.get("/v1/status/leader").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}
