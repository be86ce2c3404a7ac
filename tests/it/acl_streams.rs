//! What is read for long, or read slowly: streams end with their token, and nobody holds the server by not reading.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::acl::{Asks, controlled};
use crate::server::{PATIENCE, TestServer, request};

/// Asks, and reads as far as the end of the head, which says 200.
async fn begin(mut stream: TcpStream, path: &str, token: &str) -> TcpStream {
    let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Consul-Token: {token}\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

#[tokio::test]
async fn a_stream_ends_when_its_token_may_not_read_it_any_more() {
    let (server, management) = controlled(false).await;
    let all = r#"agent_prefix "" { policy = "read" } acl = "write""#;
    for path in ["/v1/rollcall/events", "/v1/agent/monitor?loglevel=error", "/v1/agent/metrics/stream"] {
        // The token goes, or its rules change.
        for taken in [true, false] {
            let name = format!("stream-{}-{taken}", path.len());
            let token = server.token_with(&management, &name, all).await;
            let stream = TcpStream::connect(server.http()).await.unwrap();
            let mut stream = begin(stream, path, &token).await;
            // What concerns others ends nothing; the server has looked again when this is answered.
            server.token_with(&management, &format!("{name}-other"), all).await;
            let mut some = [0; 4096];
            while let Ok(count) = stream.try_read(&mut some) {
                assert!(count > 0, "{path} goes on");
            }
            match taken {
                true => {
                    let own = server.with_token("GET", "/v1/acl/token/self", &token, "").await.json();
                    let path = format!("/v1/acl/token/{}", own["AccessorID"].as_str().unwrap());
                    let gone = server.with_token("DELETE", &path, &management, "").await;
                    assert_eq!(gone.text(), "true");
                }
                false => {
                    let path = format!("/v1/acl/policy/name/{name}");
                    let policy = server.with_token("GET", &path, &management, "").await.json();
                    let path = format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap());
                    let less = json!({ "Name": name, "Rules": "operator = \"read\"" }).to_string();
                    let less = server.with_token("PUT", &path, &management, &less).await;
                    assert_eq!(less.status, 200, "{}", less.text());
                }
            }
            let mut rest = Vec::new();
            // The answer ends as one that is whole.
            let ends = async {
                while !rest.ends_with(b"0\r\n\r\n") {
                    assert!(stream.read_buf(&mut rest).await.unwrap() > 0);
                }
            };
            tokio::time::timeout(PATIENCE, ends).await.unwrap_or_else(|_| panic!("{path} goes on"));
        }
    }
}

#[tokio::test]
async fn an_execution_says_whether_something_was_left_out() {
    let (server, management) = controlled(false).await;
    for (node, number) in [("seen", 1), ("hidden", 2)] {
        let body =
            json!({ "Node": node, "Address": format!("10.0.0.{number}"), "Service": { "Service": "web" } });
        let made = server.with_token("PUT", "/v1/catalog/register", &management, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
    let query = json!({ "Name": "q", "Service": { "Service": "web" } }).to_string();
    let made = server.with_token("POST", "/v1/query", &management, &query).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let service = r#"service "web" { policy = "read" }"#;
    for (name, rules, found) in [
        ("part", format!(r#"{service} node "seen" {{ policy = "read" }}"#), 1),
        ("all", format!(r#"{service} node_prefix "" {{ policy = "read" }}"#), 2),
        ("nothing", r#"node_prefix "" { policy = "read" }"#.to_owned(), 0),
    ] {
        let token = server.token_with(&management, name, &rules).await;
        let answer = server.with_token("GET", "/v1/query/q/execute", &token, "").await;
        let told = answer.json();
        assert_eq!(told["Nodes"].as_array().unwrap().len(), found, "{name}");
        assert_eq!(told["ResultsFilteredByACLs"], json!(found < 2), "{name}");
        let header =
            answer.headers.get("x-consul-results-filtered-by-acls").map(|value| value.to_str().unwrap());
        assert_eq!(header, (found < 2).then_some("true"), "{name}");
    }
}

/// A registry whose backup, and whose one service's health, are larger than what a socket holds.
async fn large(server: &TestServer) {
    let meta: serde_json::Map<String, Value> =
        (0..60).map(|n| (format!("k{n}"), json!("x".repeat(500)))).collect();
    for number in 0..300 {
        let body = json!({ "Name": "web", "ID": format!("web-{number}"), "Meta": meta });
        assert_eq!(server.put("/v1/agent/service/register", body).await.status, 200);
    }
}

/// A client that reads the head and nothing else.
async fn stalled(server: &TestServer, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    begin(socket.connect(server.http()).await.unwrap(), path, "").await
}

#[tokio::test]
async fn backups_at_once_are_limited_and_each_gives_its_place_back() {
    let server = TestServer::with(|config| config.http.backups_max = 1).await;
    large(&server).await;
    let first = stalled(&server, "/v1/rollcall/backup").await;
    let refused = server.get("/v1/rollcall/backup").await;
    assert!(refused.status == 429 && refused.text().contains("[limits] backups_max"), "{}", refused.text());
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"backups_max\"}").await, 1.0);
    drop(first);
    let free = async { while server.get("/v1/rollcall/backup").await.status != 200 {} };
    tokio::time::timeout(PATIENCE, free).await.expect("its place is never free");
}

#[tokio::test]
async fn answers_of_any_kind_are_made_as_they_are_read_and_who_reads_nothing_is_cut_off() {
    let server = TestServer::with(|config| config.http.write_wait = Duration::from_millis(300)).await;
    large(&server).await;
    let query = json!({ "Name": "q", "Service": { "Service": "web" } }).to_string();
    let made = request(server.http(), "POST", "/v1/query", &[], &query).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let series = "rollcall_http_refused_total{reason=\"slow reader\"}";
    for (count, path) in [
        "/v1/query/q/execute",
        "/v1/agent/health/service/name/web",
        "/v1/rollcall/backup",
        "/v1/rollcall/export",
        "/v1/agent/services",
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = stalled(&server, path).await;
        let cut = async { while server.metric(series).await != (count + 1) as f64 {} };
        tokio::time::timeout(PATIENCE, cut).await.unwrap_or_else(|_| panic!("{path}: it is never cut off"));
        let mut got = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut got)).await.expect("no end");
        assert!(ended.is_err() || !got.ends_with(b"0\r\n\r\n"), "{path}: it does not look whole");
        // What it would have been is whole for those who read, and came in pieces, so that no copy of it was held.
        let whole = server.get(path).await;
        assert_eq!(whole.header("transfer-encoding"), "chunked", "{path}");
        assert_eq!(whole.text().matches("web-299").count().min(1), 1, "{path}");
    }
}

#[tokio::test]
async fn who_reads_slowly_is_not_cut_off_and_neither_is_who_waits() {
    const WRITE_WAIT: Duration = Duration::from_secs(1);
    const PIECE: usize = 8 * 1024;
    /// At this pace what a socket may hold of itself takes several times the wait.
    const PAUSE: Duration = Duration::from_millis(20);
    let server = TestServer::with(|config| config.http.write_wait = WRITE_WAIT).await;
    large(&server).await;
    let index = server.get("/v1/health/service/late").await.index();
    let connect = || TcpStream::connect(server.http());
    let path =
        format!("GET /v1/health/service/late?index={index}&wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut waits = connect().await.unwrap();
    waits.write_all(path.as_bytes()).await.unwrap();
    let mut events = begin(connect().await.unwrap(), "/v1/rollcall/events?service=late", "").await;
    let mut slow = stalled(&server, "/v1/agent/services").await;
    let begun = Instant::now();
    let (mut some, mut octet) = ([0; PIECE], [0; 1]);
    while begun.elapsed() < WRITE_WAIT * 5 {
        let read = slow.read(&mut some).await.expect("it is cut off");
        assert!(read > 0, "it ends");
        // The stream of changes is read octet by octet.
        match events.try_read(&mut octet) {
            Ok(read) => assert_eq!(read, 1, "the stream ends"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        tokio::time::sleep(PAUSE).await;
    }
    let series = "rollcall_http_refused_total{reason=\"slow reader\"}";
    assert_eq!(server.metric(series).await, 0.0);
    server.register(json!({ "Name": "late" })).await;
    for client in [&mut waits, &mut events] {
        let mut got = Vec::new();
        let woken = async {
            while !got.windows(4).any(|part| part == b"late") {
                assert!(client.read_buf(&mut got).await.unwrap() > 0, "{}", String::from_utf8_lossy(&got));
            }
        };
        tokio::time::timeout(PATIENCE, woken).await.expect("it hears nothing");
    }
}

#[tokio::test]
async fn a_wait_ends_when_its_client_goes_whatever_it_sent_behind_it() {
    let server = TestServer::start().await;
    let index = server.get("/v1/health/service/late").await.index();
    let watchers = || server.running.registry().watchers();
    let until = async |count: usize| {
        let reached = async {
            while watchers() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{} wait", watchers()));
    };
    let path =
        format!("GET /v1/health/service/late?index={index}&wait=10m HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for behind in ["", "G", "GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        for at_once in [true, false] {
            let mut client = TcpStream::connect(server.http()).await.unwrap();
            if at_once {
                client.write_all(format!("{path}{behind}").as_bytes()).await.unwrap();
                until(1).await;
            } else {
                client.write_all(path.as_bytes()).await.unwrap();
                until(1).await;
                client.write_all(behind.as_bytes()).await.unwrap();
            }
            drop(client);
            until(0).await;
        }
    }
}
