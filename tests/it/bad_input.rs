//! Requests that are wrong: a clear error, nothing changed, and counted.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http::catalog;
use crate::server::{PATIENCE, TestServer, read_answer, request};

const REGISTER: &str = "/v1/agent/service/register";

async fn client_errors(server: &TestServer) -> f64 {
    let series = "rollcall_http_requests_total{family=\"/v1/agent/service\",status=\"client error\"}";
    server.metric(series).await
}

#[tokio::test]
async fn a_wrong_registration_is_refused_in_words_and_changes_nothing() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web", "Port": 80, "Check": { "TTL": "1h" } })).await;
    let web = |more: Value| {
        let mut body = json!({ "Name": "web", "ID": "web" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let check = |check: Value| web(json!({ "Check": check }));
    let decode = "Request decode failed: ";
    let long = "x".repeat(513);
    let deep = "[".repeat(10_000);
    let cases: Vec<(String, String)> = vec![
        (String::new(), format!("{decode}EOF")),
        ("{".into(), decode.into()),
        ("nonsense".into(), decode.into()),
        ("[]".into(), decode.into()),
        ("null".into(), decode.into()),
        (deep, decode.into()),
        ("{} x".into(), decode.into()),
        ("{}".into(), "Missing service name".into()),
        (json!({ "Name": "" }).to_string(), "Missing service name".into()),
        (web(json!({ "Foo": 1 })), format!("{decode}json: unknown field \"Foo\"")),
        (check(json!({ "TTL": "1m", "Foo": 1 })), format!("{decode}json: unknown field \"Foo\"")),
        (web(json!({ "Namespace": "x" })), format!("{decode}json: unknown field \"Namespace\"")),
        (web(json!({ "Name": 7 })), format!("{decode}json: ")),
        (web(json!({ "Port": "80" })), format!("{decode}json: ")),
        (web(json!({ "Port": 80.5 })), format!("{decode}json: ")),
        (web(json!({ "Tags": "a" })), format!("{decode}json: ")),
        (web(json!({ "Tags": [1] })), format!("{decode}json: ")),
        (web(json!({ "Meta": { "k": 1 } })), format!("{decode}json: ")),
        (web(json!({ "Check": [] })), format!("{decode}json: ")),
        (web(json!({ "Checks": {} })), format!("{decode}json: ")),
        (check(json!({ "TTL": "30" })), format!("{decode}json: time: missing unit in duration \"30\"")),
        (check(json!({ "TTL": "-1s" })), format!("{decode}json: duration \"-1s\" is negative")),
        (check(json!({ "TTL": -1 })), format!("{decode}json: duration -1 is negative")),
        (check(json!({ "TTL": "" })), format!("{decode}json: time: invalid duration \"\"")),
        (check(json!({ "TTL": "1y" })), format!("{decode}json: time: unknown unit \"y\"")),
        (check(json!({ "TTL": true })), format!("{decode}json: ")),
        (web(json!({ "Port": 70_000 })), "Invalid service port 70000: must be between 0 and 65535".into()),
        (web(json!({ "Port": -1 })), "Invalid service port -1".into()),
        (web(json!({ "Port": i64::MAX })), "Invalid service port".into()),
        (
            web(json!({ "Weights": { "Passing": 0 } })),
            "Invalid Weights: Passing must be greater than 0".into(),
        ),
        (
            web(json!({ "Weights": { "Passing": 1, "Warning": -1 } })),
            "Invalid Weights: Warning must be greater or equal than 0".into(),
        ),
        (
            web(json!({ "Weights": { "Passing": 65_536 } })),
            "Invalid Weights: DNS Weight must be between 0 and 65535".into(),
        ),
        (web(json!({ "Address": "0.0.0.0" })), "Invalid service address".into()),
        (web(json!({ "Address": "::" })), "Invalid service address".into()),
        (web(json!({ "Address": "[::]" })), "Invalid service address".into()),
        (web(json!({ "Address": "http://x" })), "Invalid service address".into()),
        (web(json!({ "Address": "10.0.0" })), "Invalid service address".into()),
        (
            web(json!({ "TaggedAddresses": { "wan": { "Address": "0.0.0.0" } } })),
            "Invalid service address".into(),
        ),
        (
            web(json!({ "Meta": { "a b": "" } })),
            "Invalid Service Meta: Couldn't load metadata pair ('a b', '')".into(),
        ),
        (web(json!({ "Meta": { "consul-x": "" } })), "Invalid Service Meta: ".into()),
        (web(json!({ "Meta": { "k": "\u{0}" } })), "Invalid Service Meta: ".into()),
        (web(json!({ "Name": "a\nb" })), "service name \"a\\nb\" contains a control character".into()),
        (web(json!({ "Name": long })), "service name has 513 octets; at most 512 are allowed".into()),
        (web(json!({ "ID": "a\u{7f}" })), "service id \"a\\u{7f}\" contains a control character".into()),
        (web(json!({ "ID": "a\r\nX-Evil: 1" })), "service id".into()),
        (web(json!({ "ID": long })), "service id has 513 octets".into()),
        (web(json!({ "Tags": ["a\u{0}"] })), "tag \"a\\0\" contains a control character".into()),
        (
            check(json!({ "TTL": "1m", "CheckID": "a\tb" })),
            "check id \"a\\tb\" contains a control character".into(),
        ),
        (
            check(json!({ "TTL": "1m", "HTTP": "http://x/", "Interval": "1s" })),
            "Invalid check: Interval and TTL cannot both be specified".into(),
        ),
        (
            check(json!({ "TTL": "1m", "HTTP": "http://x/" })),
            "Invalid check: a check is either a TTL check or a probe, not both".into(),
        ),
        (check(json!({ "HTTP": "file:///etc/passwd", "Interval": "1s" })), "Invalid check: the URL".into()),
        (check(json!({ "HTTP": "http://a b/", "Interval": "1s" })), "Invalid check: the URL".into()),
        (
            check(json!({ "HTTP": "http://x/\r\nX-Evil: 1", "Interval": "1s" })),
            "Invalid check: the URL".into(),
        ),
        (
            check(json!({ "HTTP": "http://x/", "Interval": "1s", "Header": { "a\r\nb": ["c"] } })),
            "Invalid check: the header".into(),
        ),
        (
            check(json!({ "HTTP": "http://x/", "Interval": "1s", "Header": { "a": ["c\r\nd"] } })),
            "Invalid check: the header".into(),
        ),
        (
            check(json!({ "HTTP": "http://x/", "Interval": "1s", "Method": "GET /" })),
            "Invalid check: ".into(),
        ),
        (
            check(json!({ "TCP": "nowhere", "Interval": "1s" })),
            "Invalid check: \"nowhere\" is not host:port".into(),
        ),
        (
            check(json!({ "TCP": "x:70000", "Interval": "1s" })),
            "Invalid check: \"x:70000\" is not host:port".into(),
        ),
        (
            check(json!({ "DockerContainerID": "x", "Interval": "1s" })),
            "Invalid check: Docker checks are not served".into(),
        ),
        (
            check(json!({ "TCP": "x:1", "Interval": "1s", "FailuresBeforeCritical": -1 })),
            "Invalid check: FailuresBeforeCritical -1".into(),
        ),
        (
            web(json!({ "Checks": [{ "CheckID": "a", "TTL": "1m" }, { "CheckID": "a", "TTL": "1m" }] })),
            "Invalid check: two checks have the ID \"a\"".into(),
        ),
    ];
    let (before, index) = (catalog(&server).await, server.metric("rollcall_registry_index").await);
    let counted = client_errors(&server).await;
    for (body, text) in &cases {
        let shown = &body[..body.len().min(200)];
        let answer = server.put(REGISTER, body).await;
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        assert!(answer.text().starts_with(text), "{shown}: {} instead of {text}", answer.text());
        assert!(answer.text().len() < 1000 && !answer.text().contains(['\r', '\n']), "{shown}");
    }
    assert_eq!(client_errors(&server).await, counted + cases.len() as f64);
    assert_eq!(catalog(&server).await, before);
    assert_eq!(server.metric("rollcall_registry_index").await, index);
}

#[tokio::test]
async fn ids_in_paths_that_cannot_be_are_ids_that_are_not_there() {
    let server = TestServer::start().await;
    for (method, path, status) in [
        ("PUT", "/v1/agent/service/deregister/a%00b", 404),
        ("PUT", "/v1/agent/service/deregister/%ff", 400),
        ("PUT", "/v1/agent/check/pass/a%0d%0ab", 404),
        ("GET", "/v1/agent/service/a%0ab", 404),
        ("GET", "/v1/health/service/a%0ab", 400),
        ("GET", "/v1/catalog/node/%00", 400),
        ("GET", "/v1/agent/health/service/id/%C3%BC%0a", 404),
        ("PUT", "/v1/agent/service/register?node=%00", 400),
    ] {
        let answer = request(server.http(), method, path, &[], "{\"Name\":\"x\"}").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert_eq!(server.get("/v1/catalog/services").await.text(), r#"{"consul":[]}"#);
}

#[tokio::test]
async fn what_is_not_http_is_answered_or_cut_off_and_the_server_goes_on() {
    let server = TestServer::start().await;
    for sent in [
        "\u{0}\u{0}\r\n\r\n".to_owned(),
        "GET\r\n\r\n".into(),
        "GET /v1/catalog/services HTTP/9.9\r\n\r\n".into(),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(600_000)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(200)),
        format!("PUT {REGISTER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"),
        format!(
            "PUT {REGISTER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
        ),
        format!("PUT {REGISTER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ] {
        let mut stream = TcpStream::connect(server.http()).await.unwrap();
        // It may be cut off before all of it is taken.
        let _ = stream.write_all(sent.as_bytes()).await;
        let _ = stream.shutdown().await;
        let answer = tokio::time::timeout(PATIENCE, read_answer(&mut stream)).await.expect("it hangs");
        let status = answer.split(' ').nth(1).unwrap_or("");
        assert!(["", "400", "414", "431"].contains(&status), "{:?}: {answer}", &sent[..20]);
    }
    assert_eq!(server.get("/v1/catalog/services").await.text(), r#"{"consul":[]}"#);
}

/// Octets of memory that this process holds.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_and_not_kept() {
    const OCTETS: usize = 100 << 20;
    let server = TestServer::start().await;
    let before = catalog(&server).await;
    for announced in [true, false] {
        let mut stream = TcpStream::connect(server.http()).await.unwrap();
        let mut head = format!("PUT {REGISTER} HTTP/1.1\r\nHost: localhost\r\n");
        match announced {
            true => write!(head, "Content-Length: {OCTETS}\r\n\r\n").unwrap(),
            false => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
        }
        stream.write_all(head.as_bytes()).await.unwrap();
        let memory = resident();
        let (mut reading, mut writing) = stream.into_split();
        let piece = vec![b' '; 64 << 10];
        let sending = tokio::spawn(async move {
            let mut sent = 0;
            while sent < OCTETS {
                let size = format!("{:x}\r\n", piece.len());
                let framed = [size.as_bytes(), &piece, b"\r\n"];
                let parts: &[&[u8]] = if announced { &framed[1..2] } else { &framed };
                for part in parts {
                    // The server has closed: it takes no more.
                    if writing.write_all(part).await.is_err() {
                        return sent;
                    }
                }
                sent += piece.len();
            }
            sent
        });
        let mut got = Vec::with_capacity(4096);
        let answered = tokio::io::AsyncReadExt::read_buf(&mut reading, &mut got);
        tokio::time::timeout(PATIENCE, answered).await.expect("no answer").unwrap();
        let answer = String::from_utf8_lossy(&got).into_owned();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("max size: 1048576 bytes ([http] body_max)"), "{answer}");
        let sent = tokio::time::timeout(PATIENCE, sending).await.expect("it takes all of it").unwrap();
        assert!(sent < OCTETS / 2, "{sent} octets were taken");
        // Other tests run in this process at the same time.
        assert!(resident() < memory + (64 << 20), "from {memory} to {}", resident());
    }
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"body_max\"}").await, 2.0);
    assert_eq!(catalog(&server).await, before);
}

/// Any JSON, with keys and values that mean something more often than not.
fn value() -> BoxedStrategy<Value> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        any::<String>(),
        Just("10s".to_owned()),
        Just("10.0.0.1".to_owned()),
        Just("web".to_owned()),
        Just("http://127.0.0.1:1/".to_owned()),
        Just("passing".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2..70_000i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let key = prop_oneof![
        4 => prop::sample::select(vec![
            "Name", "ID", "Tags", "Address", "Port", "Meta", "Weights", "Passing", "Warning", "Check", "Checks",
            "TTL", "HTTP", "TCP", "Interval", "Status", "CheckID", "TaggedAddresses", "Header", "Proxy", "Locality",
            "Node", "Service", "NodeMeta", "Definition", "SkipNodeUpdate", "AliasNode", "OutputMaxSize",
        ])
        .prop_map(str::to_owned),
        1 => "[a-zA-Z]{0,6}",
        1 => any::<String>(),
    ];
    let inner = leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    });
    inner.boxed()
}

/// A path that takes a body, and what it takes but for one key.
fn request_of(path: usize, key: usize, value: Value, alone: bool) -> (&'static str, Value) {
    let (path, mut body, keys) = match path {
        0 => (
            REGISTER,
            json!({ "Name": "fuzz" }),
            ["Tags", "Check", "Meta", "Port", "Weights", "TaggedAddresses"],
        ),
        1 => (
            "/v1/agent/check/register",
            json!({ "Name": "fuzz", "TTL": "1h" }),
            ["Interval", "Status", "HTTP", "Notes", "SuccessBeforePassing", "Header"],
        ),
        2 => (
            "/v1/catalog/register",
            json!({ "Node": "fuzz", "Address": "10.0.0.1" }),
            ["Service", "Check", "Checks", "NodeMeta", "ID", "TaggedAddresses"],
        ),
        _ => (
            "/v1/catalog/deregister",
            json!({ "Node": "fuzz" }),
            ["ServiceID", "CheckID", "Datacenter", "Address", "Node", "WriteRequest"],
        ),
    };
    if alone {
        return (path, value);
    }
    body[keys[key]] = value;
    (path, body)
}

#[test]
fn no_body_makes_the_server_fail() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(TestServer::start());
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let taken = std::cell::Cell::new(0);
    TestRunner::new(config)
        .run(&(0..4usize, 0..6usize, value(), prop::bool::weighted(0.2)), |(path, key, value, alone)| {
            let (path, body) = request_of(path, key, value, alone);
            let answer = runtime.block_on(server.put(path, &body));
            // What Consul's servers (not agents) find wrong is 500 there, with these texts.
            let contract = [
                "Must provide ",
                "Bad node ID",
                "No path to datacenter",
                "Unknown service ID",
                "Node '",
                "node \"",
                "CheckID ",
            ];
            let good = match answer.status {
                500 => contract.iter().any(|text| answer.text().starts_with(text)),
                status => [200, 400, 404, 409].contains(&status),
            };
            prop_assert!(good, "{path} {body}: {} {}", answer.status, answer.text());
            taken.set(taken.get() + usize::from(answer.status == 200));
            Ok(())
        })
        .unwrap();
    assert!(taken.get() > 20, "only {} were taken: the bodies are too far off", taken.get());
    // All that was taken can be shown.
    for path in ["/v1/catalog/services", "/v1/catalog/nodes", "/v1/health/state/any", "/v1/agent/services"] {
        assert_eq!(runtime.block_on(server.get(path)).status, 200);
    }
    runtime.block_on(server.running.stop());
}

#[tokio::test]
async fn control_characters_in_texts_are_refused_by_name_and_change_nothing() {
    let server = TestServer::start().await;
    let ttl = json!({ "TTL": "1h", "Status": "passing", "Notes": "two\nlines\tand\r\ntabs" });
    server.register(json!({ "Name": "web", "Check": ttl })).await;
    let said = server
        .put("/v1/agent/check/update/service:web", json!({ "Status": "passing", "Output": "a\r\n\tb" }));
    assert_eq!(said.await.status, 200);
    let before = catalog(&server).await;
    let bad = "x\u{1b}[2J";
    let check = |key: &str| json!({ "Name": "c", "CheckID": "c", "TTL": "1h", key: bad });
    let service = |key: &str, value: Value| json!({ "Name": "s", key: value });
    let catalog_with =
        |key: &str, value: Value| json!({ "Node": "other", "Address": "192.0.2.1", key: value });
    for (path, body, what) in [
        ("/v1/agent/check/register", check("Name"), "Invalid check: Name"),
        ("/v1/agent/check/register", check("Notes"), "Invalid check: Notes"),
        ("/v1/agent/service/register", service("Check", check("Notes")), "Invalid check: Notes"),
        ("/v1/agent/service/register", service("Kind", json!(bad)), "Invalid service: Kind"),
        ("/v1/agent/service/register", service("SocketPath", json!(bad)), "Invalid service: SocketPath"),
        (
            "/v1/agent/service/register",
            service("Locality", json!({ "Region": bad })),
            "Invalid service: Locality",
        ),
        (
            "/v1/agent/service/register",
            service("TaggedAddresses", json!({ bad: { "Address": "192.0.2.1" } })),
            "Invalid service: a key of TaggedAddresses",
        ),
        (
            "/v1/catalog/register",
            catalog_with("Check", json!({ "Name": bad, "CheckID": "c" })),
            "Invalid check: Name",
        ),
        (
            "/v1/catalog/register",
            catalog_with("Checks", json!([{ "Name": "c", "Notes": bad }])),
            "Invalid check: Notes",
        ),
        (
            "/v1/catalog/register",
            catalog_with("TaggedAddresses", json!({ bad: "192.0.2.1" })),
            "Invalid node: a key of TaggedAddresses",
        ),
        ("/v1/agent/service/maintenance/web?enable=true&reason=x%1B", json!(null), "the reason"),
        ("/v1/agent/maintenance?enable=true&reason=x%1B", json!(null), "the reason"),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = server.put(path, &body).await;
        let wanted = format!("{what} contains the control character U+001B");
        assert!(
            answer.status == 400 && answer.text().starts_with(&wanted),
            "{path} {body}: {}",
            answer.text()
        );
    }
    assert_eq!(catalog(&server).await, before);
}
