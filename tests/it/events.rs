//! The stream of changes, read as any client of server-sent events reads it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use rollcall::config::Data;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::server::{PATIENCE, TestServer, request};

/// A message as HTML section 9.2.6 has it.
#[derive(Debug, PartialEq)]
struct Message {
    kind: String,
    data: Value,
}

struct Reader {
    body: Incoming,
    text: String,
    /// The last id that came, with a message or alone.
    last: String,
    _connection: tokio_util::task::AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl Reader {
    async fn open(server: SocketAddr, query: &str, last: Option<&str>) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request =
            Request::builder().uri(format!("/v1/rollcall/events{query}")).header(HOST, server.to_string());
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        // Compression would hold back what is said.
        let request = request.header("Accept-Encoding", "gzip").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["content-type"].as_bytes()),
            (200, &b"text/event-stream"[..])
        );
        assert!(!answer.headers().contains_key("content-encoding"));
        Self { body: answer.into_body(), text: String::new(), last: String::new(), _connection: connection }
    }

    /// The next message that has data; `None` at the end.
    async fn try_next(&mut self) -> Option<Message> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (mut kind, mut data) = (String::new(), String::new());
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("event", value)) => kind = value.to_owned(),
                        Some(("data", value)) => data += value,
                        Some(("id", value)) => self.last = value.to_owned(),
                        Some(("retry" | "", _)) => {}
                        _ => panic!("{line:?}"),
                    }
                }
                self.text = rest.to_owned();
                if !data.is_empty() {
                    return Some(Message { kind, data: serde_json::from_str(&data).unwrap() });
                }
            }
            let frame = self.body.frame().await?.ok()?;
            self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
    }

    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(PATIENCE, self.try_next()).await;
        next.expect("no message").expect("the stream ended")
    }

    /// The next messages without their indexes, which grow.
    async fn take(&mut self, count: usize) -> Vec<(String, Value)> {
        let (mut taken, mut index) = (Vec::new(), 0);
        for _ in 0..count {
            let Message { kind, mut data } = self.next().await;
            let own = data.as_object_mut().unwrap().remove("Index").unwrap().as_u64().unwrap();
            assert!(own >= index, "{kind} {data}");
            index = own;
            taken.push((kind, data));
        }
        taken
    }
}

async fn open(server: &TestServer, query: &str) -> Reader {
    let mut reader = Reader::open(server.http(), query, None).await;
    let begin = reader.next().await;
    assert_eq!(
        (begin.kind.as_str(), reader.last.as_str()),
        ("begin", begin.data["Index"].to_string().as_str())
    );
    reader
}

async fn done(server: &TestServer, path: &str, body: Value) {
    let answer = server.put(path, body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
}

fn event(kind: &str, data: Value) -> (String, Value) {
    (kind.to_owned(), data)
}

#[tokio::test]
async fn a_circuit_that_turns_is_an_event() {
    let server =
        TestServer::with(|config| config.breaker.out.all = std::time::Duration::from_millis(200)).await;
    for n in 1..=2 {
        server.register(json!({"Name": "web", "ID": format!("w{n}"), "Port": n})).await;
    }
    let mut reader = open(&server, "?service=web").await;
    let report = json!({"Reports": [{"Service": "web", "ID": "w1", "Failure": 10}]});
    done(&server, "/v1/rollcall/report", report).await;
    let turned = |before: &str, after: &str| {
        let data = json!({"Node": "n1", "Service": "web", "ID": "w1", "Change": after, "Before": before, "After": after});
        event("circuit", data)
    };
    assert_eq!(reader.take(2).await, [turned("closed", "open"), turned("open", "half-open")]);
}

#[tokio::test]
async fn events_say_what_changed_and_how_it_stood_before_and_after() {
    let server = TestServer::start().await;
    let mut reader = open(&server, "").await;
    let definition = json!({"Name": "web", "ID": "w1", "Check": {"TTL": "1h", "Notes": "a"}});
    server.register(definition.clone()).await;
    let of = |more: Value| {
        let mut data = json!({"Node": "n1", "Service": "web", "ID": "w1"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    let check = "service:w1";
    assert_eq!(
        reader.take(2).await,
        [
            event("service", of(json!({"Change": "registered"}))),
            event(
                "check",
                of(json!({"Change": "defined", "CheckID": check, "Before": null, "After": "critical"}))
            ),
        ]
    );
    done(&server, "/v1/agent/check/pass/service:w1", json!(null)).await;
    let flip = json!({"Change": "status", "CheckID": check, "Before": "critical", "After": "passing",
        "Health": {"Before": "critical", "After": "passing"}});
    assert_eq!(reader.take(1).await, [event("check", of(flip))]);
    // What is the same is no change, nor is a renewal.
    server.register(definition).await;
    done(&server, "/v1/agent/check/pass/service:w1", json!(null)).await;
    server
        .register(json!({"Name": "web", "ID": "w1", "Port": 1, "Check": {"TTL": "1h", "Notes": "b"}}))
        .await;
    let changed = reader.take(2).await;
    assert_eq!(changed[0], event("service", of(json!({"Change": "changed"}))));
    let redefined = json!({"Change": "defined", "CheckID": check, "Before": "passing", "After": "passing"});
    assert_eq!(changed[1], event("check", of(redefined)));
    done(&server, "/v1/agent/service/maintenance/w1?enable=true&reason=why", json!(null)).await;
    done(&server, "/v1/agent/service/maintenance/w1?enable=false", json!(null)).await;
    done(&server, "/v1/agent/service/deregister/w1", json!(null)).await;
    done(&server, "/v1/catalog/register", json!({"Node": "n2", "Address": "10.0.0.2"})).await;
    done(&server, "/v1/catalog/register", json!({"Node": "n2", "Address": "10.0.0.3"})).await;
    done(&server, "/v1/catalog/deregister", json!({"Node": "n2"})).await;
    assert_eq!(
        reader.take(7).await,
        [
            event("maintenance", of(json!({"Change": "begun", "Reason": "why"}))),
            event("maintenance", of(json!({"Change": "ended"}))),
            event(
                "check",
                of(json!({"Change": "removed", "CheckID": check, "Before": "passing", "After": null}))
            ),
            event("service", of(json!({"Change": "deregistered"}))),
            event("node", json!({"Change": "registered", "Node": "n2"})),
            event("node", json!({"Change": "changed", "Node": "n2"})),
            event("node", json!({"Change": "removed", "Node": "n2"})),
        ]
    );
}

#[tokio::test]
async fn a_route_is_an_event_of_its_service() {
    let server = TestServer::start().await;
    server.register(json!({"Name": "web", "Tags": ["blue"]})).await;
    let mut reader = open(&server, "?service=WEB").await;
    done(&server, "/v1/rollcall/route/web", json!({"Subsets": ["blue=1"]})).await;
    // The same again is no change.
    done(&server, "/v1/rollcall/route/web", json!({"Subsets": ["blue=1"]})).await;
    done(&server, "/v1/rollcall/route/web/undo", json!(null)).await;
    let set = |version: u64, subsets: Value, why: &str| {
        event(
            "route",
            json!({"Service": "web", "Change": "set", "Version": version, "Subsets": subsets, "Why": why}),
        )
    };
    assert_eq!(
        reader.take(2).await,
        [set(1, json!(["blue=1"]), "set"), set(2, json!([]), "undo of version 1: no route")]
    );
    done(&server, "/v1/agent/service/deregister/web", json!(null)).await;
    assert_eq!(request(server.http(), "DELETE", "/v1/rollcall/route/web", &[], "").await.status, 200);
    let removed = event("route", json!({"Service": "web", "Change": "removed"}));
    assert_eq!(reader.take(2).await[1], removed);
}

#[tokio::test]
async fn a_filter_gives_what_concerns_a_service_and_the_nodes_it_is_on() {
    let server = TestServer::start().await;
    server.register(json!({"Name": "web", "ID": "w1"})).await;
    let mut reader = open(&server, "?service=WEB").await;
    done(
        &server,
        "/v1/catalog/register",
        json!({"Node": "n2", "Address": "10.0.0.2", "Service": {"Service": "db"}}),
    )
    .await;
    server.register(json!({"Name": "db", "ID": "d1", "Check": {"TTL": "1h"}})).await;
    done(&server, "/v1/agent/check/register", json!({"Name": "disk", "TTL": "1h"})).await;
    server.register(json!({"Name": "web", "ID": "w2"})).await;
    assert_eq!(
        reader.take(2).await,
        [
            event(
                "check",
                json!({"Change": "defined", "Node": "n1", "CheckID": "disk", "Before": null, "After": "critical"})
            ),
            event("service", json!({"Change": "registered", "Node": "n1", "Service": "web", "ID": "w2"})),
        ]
    );
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed_once() {
    let server = TestServer::start().await;
    let mut reader = open(&server, "").await;
    let register = async |id: &str| {
        server.register(json!({"Name": "web", "ID": id, "Check": {"TTL": "1h"}})).await;
    };
    register("a").await;
    let first = reader.next().await;
    // It went in the middle of an index: it gets the whole of it again.
    assert_ne!(reader.last, first.data["Index"].to_string());
    let last = reader.last.clone();
    drop(reader);
    register("b").await;
    for (query, header) in [
        (format!("?index={last}"), None),
        (String::new(), Some(&*last)),
        ("?index=1".to_owned(), Some(&*last)),
    ] {
        let mut reader = Reader::open(server.http(), &query, header).await;
        assert_eq!(reader.next().await.kind, "begin");
        let ids: Vec<_> = reader.take(4).await.into_iter().map(|(_, data)| data["ID"].clone()).collect();
        assert_eq!(ids, ["a", "a", "b", "b"], "{query}");
    }
    let mut reader = Reader::open(server.http(), "", Some(&last)).await;
    reader.next().await;
    reader.take(4).await;
    let mut again = Reader::open(server.http(), "", Some(&reader.last)).await;
    assert_eq!(again.next().await.data["Index"].to_string(), reader.last);
    register("c").await;
    assert_eq!(again.take(2).await, reader.take(2).await, "both go on, and nothing comes twice");
    for bad in ["?index=x", "?index=-1", "?index=99999999999999999999999"] {
        let refused = server.get(&format!("/v1/rollcall/events{bad}")).await;
        assert_eq!((refused.status, refused.text().as_str()), (400, "Invalid index"), "{bad}");
    }
}

#[tokio::test]
async fn who_was_away_too_long_or_over_a_restart_is_told_to_read_anew() {
    let server = TestServer::with(|config| config.http.events_max = 3).await;
    let mut reader = open(&server, "").await;
    let register =
        async |server: &TestServer, id: &str| server.register(json!({"Name": "web", "ID": id})).await;
    register(&server, "a").await;
    reader.next().await;
    let last = reader.last.clone();
    drop(reader);
    for n in 0..4 {
        register(&server, &format!("b{n}")).await;
    }
    let reset = async |server: &TestServer, last: &str| {
        let mut reader = Reader::open(server.http(), "", Some(last)).await;
        let reset = reader.next().await;
        assert_eq!((reset.kind.as_str(), reader.last.clone()), ("reset", reset.data["Index"].to_string()));
        assert!(reset.data["Reason"].as_str().unwrap().contains("read the registry anew"));
        // What is read now, and what comes, is everything.
        assert!(server.get("/v1/catalog/services").await.index() <= reset.data["Index"].as_u64().unwrap());
        server.register(json!({"Name": "web", "ID": format!("after-{last}")})).await;
        assert_eq!(reader.take(1).await[0].1["ID"], format!("after-{last}"));
        reader.last.clone()
    };
    let last = reset(&server, &last).await;
    // Of another server, or of one that lost its data.
    reset(&server, "18446744073709551615").await;
    let server = server.restart().await;
    let before: u64 = last.parse().unwrap();
    let after: u64 = reset(&server, &last).await.parse().unwrap();
    assert!(after > before);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_counted() {
    let server = TestServer::with(|config| {
        config.data = Data::Ephemeral;
        config.http.write_wait = Duration::from_millis(200);
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = socket.connect(server.http()).await.unwrap();
    stalled.write_all(b"GET /v1/rollcall/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    stalled.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut reader = open(&server, "").await;
    server.register(json!({"Name": "web", "ID": "w1"})).await;
    reader.next().await;
    let reason = "x".repeat(1024);
    let series = "rollcall_http_refused_total{reason=\"slow reader\"}";
    let whole = async {
        while server.metric(series).await == 0.0 {
            for enable in ["true", "false"] {
                let path = format!("/v1/agent/service/maintenance/w1?enable={enable}&reason={reason}");
                done(&server, &path, json!(null)).await;
                assert_eq!(reader.next().await.kind, "maintenance", "another's stream goes on");
            }
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("it is never cut off");
    assert_eq!(server.metric(series).await, 1.0);
    let mut rest = Vec::new();
    let ended =
        tokio::time::timeout(PATIENCE, stalled.read_to_end(&mut rest)).await.expect("it is still open");
    // Cut, not ended: the last chunk of a whole answer is missing.
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn streams_at_once_are_limited_and_end_with_the_server() {
    let server = TestServer::with(|config| config.http.streams_max = 1).await;
    let reader = open(&server, "").await;
    let refused = server.get("/v1/rollcall/events").await;
    assert!(refused.status == 429 && refused.text().contains("[limits] streams_max"), "{}", refused.text());
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"streams_max\"}").await, 1.0);
    drop(reader);
    let free = async {
        // Whoever went is noticed by the server in its own time.
        while server.try_stream().await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("the place never came back");
    let server = TestServer::start().await;
    let mut reader = open(&server, "").await;
    let TestServer { running, dir: _dir } = server;
    let stopped = running.stop();
    let (rest, ()) = tokio::join!(reader.try_next(), stopped);
    assert_eq!(rest, None);
}

impl TestServer {
    /// Whether there is a place for a stream, which is given back.
    async fn try_stream(&self) -> Option<()> {
        let mut stream = TcpStream::connect(self.http()).await.ok()?;
        stream.write_all(b"GET /v1/rollcall/events HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.ok()?;
        (&first[9..] == b"200").then_some(())
    }
}

/// A proxy that sees nothing for a minute would end the stream, and a client that has gone would never be noticed.
#[tokio::test]
async fn a_stream_with_nothing_to_say_says_so_and_where_it_is() {
    let server = TestServer::start().await;
    let mut reader = open(&server, "?service=web").await;
    // Nobody of the stream's: its place moves, though it is told nothing.
    server.register(json!({"Name": "db", "ID": "d1"})).await;
    let index = server.get("/v1/catalog/service/db").await.index();
    // Time runs as fast as nobody has anything else to do.
    tokio::time::pause();
    let heartbeat = format!(": heartbeat\nid: {index}\n\n");
    for _ in 0..2 {
        while !reader.text.contains(&heartbeat) {
            let frame = reader.body.frame().await.expect("the stream goes on").unwrap();
            reader.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
        assert!(reader.text.ends_with(&heartbeat), "{:?}", reader.text);
        reader.text.clear();
    }
    tokio::time::resume();
    server.register(json!({"Name": "web", "ID": "w1"})).await;
    let next = reader.next().await;
    assert_eq!((next.kind.as_str(), &next.data["ID"]), ("service", &json!("w1")));
}
