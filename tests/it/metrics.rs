//! What /metrics shows: the page that tells of it, and that nobody outside can make series.

use std::collections::BTreeSet;
use std::path::Path;

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RecordType};
use rollcall::telemetry::metrics::reference;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::server::{PATIENCE, TestServer, metric, query, raw, request};

const BEGIN: &str = "## All of them\n\n";

/// docs/metrics.md has what the code says, and a server has what the page says.
#[tokio::test]
async fn the_page_is_what_a_server_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (words, tables) = page.split_once(BEGIN).expect("the tables' heading");
    let made = reference::markdown();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{words}{BEGIN}{made}")).unwrap();
    } else {
        assert_eq!(tables, made, "UPDATE=1 cargo test --test it metrics::the_page writes it anew");
    }
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web", "Address": "10.0.0.1" })).await;
    server.ask("web.service.internal.", RecordType::A).await;
    let shown = reference::read(&server.get("/metrics").await.text());
    let told = reference::all();
    assert_eq!(shown.keys().collect::<Vec<_>>(), told.keys().collect::<Vec<_>>());
    for (name, shown) in shown {
        let told = &told[&name];
        assert_eq!((&shown.kind, &shown.help), (&told.kind, &told.help), "{name}");
        for (label, values) in shown.labels {
            let (_, known) = told.labels.iter().find(|(known, _)| *known == label).expect(&label);
            assert!(values.iter().all(|value| known.contains(value)), "{name} {label} {values:?}");
        }
    }
}

/// The names of all series, with their labels.
async fn series(server: &TestServer) -> BTreeSet<String> {
    let text = server.get("/metrics").await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// All that a stranger can name, with `mark` in it.
async fn attack(server: &TestServer, mark: &str) {
    let names = [
        format!("{mark}\",evil=\"1"),
        format!("{mark}\\n# TYPE evil counter"),
        format!("{mark}}} 1\nevil 1"),
        format!("{mark}-\u{fc}\u{202e}"),
        mark.to_owned(),
    ];
    for name in &names {
        let taken =
            |answer: crate::server::Answer| assert!([200, 400].contains(&answer.status), "{answer:?}");
        let definition = json!({
            "Name": name, "ID": name, "Tags": [name], "Meta": { "key": name }, "Address": "10.0.0.1",
            "Check": { "Name": name, "CheckID": name, "TTL": "10s", "Status": "passing" },
        });
        taken(server.put("/v1/agent/service/register", &definition).await);
        let node = json!({ "Node": name, "Address": "10.0.0.2", "Service": { "Service": name, "ID": name } });
        taken(server.put("/v1/catalog/register", &node).await);
        let check: Value = json!({ "Name": name, "TCP": "127.0.0.1:1", "Interval": "1h" });
        taken(server.put("/v1/agent/check/register", &check).await);
    }
    let path = format!("/v1/{mark}/catalog?filter={mark}%22&token={mark}&dc={mark}&index={mark}");
    for method in ["GET", "PUT", "BREW"] {
        request(server.http(), method, &path, &[("X-Consul-Token", mark)], "{").await;
        request(server.http(), method, &format!("/v1/health/service/{mark}"), &[("Origin", mark)], "").await;
    }
    let stream = TcpStream::connect(server.http()).await.unwrap();
    raw(stream, &format!("GET /{mark} HTTP/1.1\r\nHost: {mark}\r\nConnection: close\r\n\r\n")).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.dns()).await.unwrap();
    // Every type there is room for in an octet, and some beyond.
    for kind in (0..=255).chain([256, 257, 32768, 65280, 65535]) {
        for domain in ["service.internal.", "example."] {
            let name: Name = format!("{mark}.{domain}").parse().unwrap();
            let mut bytes = query(&name.to_string(), RecordType::A).to_vec().unwrap();
            let at = bytes.len() - 4;
            bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(kind));
            answered(&socket, &bytes).await;
            // And each as an opcode and a class.
            bytes[2] = (bytes[2] & 0x87) | ((kind as u8 & 0xf) << 3);
            bytes[at + 3] = kind as u8;
            answered(&socket, &bytes).await;
        }
    }
}

/// Sends octets, and a question behind them from the same socket, so to the same thread: its answer shows that the octets
/// were counted.
async fn answered(socket: &UdpSocket, bytes: &[u8]) {
    let last = query("internal.", RecordType::SOA);
    socket.send(bytes).await.unwrap();
    socket.send(&last.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let both = async {
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            if Message::from_vec(&buffer[..length]).is_ok_and(|answer| answer.metadata.id == last.metadata.id)
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("no answer");
}

#[tokio::test]
async fn no_name_that_a_client_chooses_makes_a_series() {
    let server = TestServer::start().await;
    attack(&server, "mallory").await;
    let before = series(&server).await;
    assert!(before.iter().any(|name| name.contains("type=\"other\"")), "{before:#?}");
    attack(&server, "trudy").await;
    let after = series(&server).await;
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), [""; 0]);
    for hostile in ["mallory", "trudy", "evil"] {
        assert!(!after.iter().any(|name| name.contains(hostile)), "{hostile}");
    }
    // Those of DNS are bounded by the values of their labels; all others are there from the start.
    let fresh = series(&TestServer::start().await).await;
    let new: Vec<_> = after.difference(&fresh).collect();
    assert!(
        !new.is_empty() && new.iter().all(|name| name.starts_with("rollcall_dns_answers_total{")),
        "{new:#?}"
    );
}

/// How many changes a cause made, the seconds until they were shown, and those that caches may hold answers from before.
async fn changes(server: &TestServer, cause: &str) -> [f64; 3] {
    let text = server.get("/metrics").await.text();
    let value =
        |what: &str| metric(&text, &format!("rollcall_registry_change_to_{what}{{cause=\"{cause}\"}}"));
    [value("answer_seconds_count"), value("answer_seconds_sum"), value("caches_seconds_sum")]
}

/// What one change adds.
async fn one(server: &TestServer, cause: &str, change: impl Future<Output = ()>) -> (f64, f64) {
    let before = changes(server, cause).await;
    change.await;
    let after = changes(server, cause).await;
    let [count, shown, kept] = std::array::from_fn(|place| after[place] - before[place]);
    assert_eq!(count, 1.0, "{cause}: {before:?} {after:?}");
    (shown, kept - shown)
}

#[tokio::test]
async fn a_change_is_timed_from_its_cause_to_the_answer_and_to_the_end_of_older_ones() {
    let server = TestServer::start().await;
    let put = "/v1/agent/service/register";
    let body =
        json!({ "Name": "web", "ID": "w1", "Check": { "TTL": "2s", "Status": "passing" } }).to_string();
    // The body comes later than the head: its time counts, too. That the head was seen the server says itself.
    const LATER: std::time::Duration = std::time::Duration::from_millis(300);
    let (shown, ttl) = one(&server, "request", async {
        let mut stream = TcpStream::connect(server.http()).await.unwrap();
        let head = format!(
            "PUT {put} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut go_on)).await.unwrap().unwrap();
        assert!(go_on.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&go_on));
        tokio::time::sleep(LATER).await;
        assert!(raw(stream, &body).await.starts_with("HTTP/1.1 200"));
    })
    .await;
    assert!(shown >= LATER.as_secs_f64(), "{shown}");
    let is = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-6, "{found}, not {wanted}");
    is(ttl, 1.0);
    // Answers so far had the first alone, whose status can change after two seconds.
    let (at_once, ttl) = one(&server, "request", server.register(json!({ "Name": "web", "ID": "w2" }))).await;
    assert!(at_once < shown, "{at_once} {shown}");
    is(ttl, 2.0);
    // No check of it bounded what had it.
    let gone = async {
        server.put("/v1/agent/service/deregister/w2", "").await;
    };
    is(one(&server, "request", gone).await.1, 5.0);
    // Nobody renews the first.
    let expires = async {
        server.until("web", |shown| shown[0]["Checks"][1]["Status"] == "critical").await;
    };
    is(one(&server, "deadline", expires).await.1, 2.0);
    // What no answer can show is not timed.
    let before = changes(&server, "request").await[0];
    server.put("/v1/agent/check/fail/service:w1?note=again", "").await;
    assert_eq!(changes(&server, "request").await[0], before);
}

#[tokio::test]
async fn what_a_probe_finds_is_timed_from_its_end() {
    let server = TestServer::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = json!({ "TCP": listener.local_addr().unwrap().to_string(), "Interval": "1s" });
    let passes = async {
        server.register(json!({ "Name": "web", "ID": "w1", "Check": check })).await;
        server.until("web", |shown| shown[0]["Checks"][1]["Status"] == "passing").await;
    };
    let (_, ttl) = one(&server, "probe", passes).await;
    assert!((ttl - 1.0).abs() < 1e-6, "as a negative answer: {ttl}");
    let dies = async {
        drop(listener);
        server.until("web", |shown| shown[0]["Checks"][1]["Status"] == "critical").await;
    };
    let (_, ttl) = one(&server, "probe", dies).await;
    assert!((ttl - 1.0).abs() < 1e-6, "its interval: {ttl}");
    let metric = async |series: &str| server.metric(series).await;
    assert!(metric("rollcall_checks_probe_duration_seconds_count{kind=\"tcp\"}").await >= 2.0);
    assert!(metric("rollcall_checks_probes_total{kind=\"tcp\",outcome=\"critical\"}").await >= 1.0);
    assert!(metric("rollcall_store_commit_duration_seconds_count").await >= 1.0);
}

/// Sizes are those of the octets that were sent, on both paths and transports.
#[tokio::test]
async fn answers_are_counted_with_their_sizes() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web", "Address": "10.0.0.1" })).await;
    let seen = async |transport: &str| {
        let text = server.get("/metrics").await.text();
        let part = |end: &str| {
            metric(&text, &format!("rollcall_dns_answer_size_bytes_{end}{{transport=\"{transport}\"}}"))
        };
        (part("count"), part("sum"))
    };
    for kind in [RecordType::A, RecordType::SRV, RecordType::ANY] {
        let before = seen("udp").await;
        let message = query("web.service.internal.", kind).to_vec().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&message, server.dns()).await.unwrap();
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut [0; 4096])).await.unwrap().unwrap();
        // It was sent before it was counted, perhaps.
        let counted = async {
            while seen("udp").await.0 == before.0 {}
            seen("udp").await
        };
        let after = tokio::time::timeout(PATIENCE, counted).await.unwrap();
        assert_eq!((after.0 - before.0, after.1 - before.1), (1.0, length as f64), "{kind}");
    }
    assert_eq!(seen("tcp").await, (0.0, 0.0));
}

/// A limit that is hit is found in the configuration by the name that its count has.
#[test]
fn limits_are_counted_by_their_keys() {
    let (known, page) = (reference::all(), rollcall::config::reference::markdown());
    let (_, keys) = &known["rollcall_limit_hits_total"].labels[0];
    assert!(keys.len() > 30);
    for key in keys.iter().filter(|key| !["other", "filter_max"].contains(&key.as_str())) {
        let key = key.strip_prefix("forward_").unwrap_or(key);
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
}
