//! Blocking queries: who waits for what, who is woken, and for how long.
//!
//! That somebody is not woken is shown by order, not by waiting: the change that concerns them comes second, and
//! what they are woken with is its index.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::server::{Answer, PATIENCE, TestServer, request};

/// Asks and returns once the server has the request waiting.
async fn waiting(server: &Arc<TestServer>, path: &str) -> JoinHandle<Answer> {
    let before = server.running.registry().watchers();
    let (asked, path) = (server.clone(), path.to_owned());
    let task = tokio::spawn(async move { asked.get(&path).await });
    let arrived = async {
        while server.running.registry().watchers() == before {
            assert!(!task.is_finished(), "it was answered at once");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("nobody waits");
    task
}

async fn ttl_service(server: &TestServer, name: &str) {
    server.register(json!({ "Name": name, "Check": { "TTL": "1h", "Status": "passing" } })).await;
}

#[tokio::test]
async fn a_watcher_of_a_service_is_woken_by_it_and_by_no_other() {
    let server = Arc::new(TestServer::start().await);
    for name in ["web", "db"] {
        ttl_service(&server, name).await;
    }
    for path in ["/v1/health/service/web", "/v1/catalog/service/web", "/v1/health/checks/WEB"] {
        let index = server.get(path).await.index();
        let watcher = waiting(&server, &format!("{path}?index={index}&wait=60s")).await;
        server.register(json!({ "Name": "other" })).await;
        server.register(json!({ "Name": "db", "Port": 9 })).await;
        server.put("/v1/agent/check/fail/service:db", "").await;
        server.put("/v1/agent/service/deregister/other", "").await;
        let unrelated = server.metric("rollcall_registry_index").await as u64;
        assert!(!watcher.is_finished());
        assert_eq!(server.get(path).await.index(), index, "{path}: others do not move its index");
        server.put("/v1/agent/check/fail/service:web", "").await;
        let answer = watcher.await.unwrap();
        assert!(answer.index() > unrelated, "{path}: woken by something else");
        server.put("/v1/agent/check/pass/service:web", "").await;
        server.put("/v1/agent/check/pass/service:db", "").await;
    }
}

#[tokio::test]
async fn a_watcher_of_an_unknown_service_is_woken_by_its_first_instance() {
    let server = Arc::new(TestServer::start().await);
    let index = server.get("/v1/health/service/late").await.index();
    let watcher = waiting(&server, &format!("/v1/health/service/late?index={index}&wait=60s")).await;
    server.register(json!({ "Name": "other" })).await;
    assert!(!watcher.is_finished());
    server.register(json!({ "Name": "Late", "Port": 7 })).await;
    let answer = watcher.await.unwrap();
    assert_eq!(answer.json()[0]["Service"]["Port"], 7);
    assert!(answer.index() > index);
    // And by its last one going.
    let path = format!("/v1/health/service/late?index={}&wait=60s", answer.index());
    let watcher = waiting(&server, &path).await;
    server.put("/v1/agent/service/deregister/Late", "").await;
    let gone = watcher.await.unwrap();
    assert_eq!((gone.text().as_str(), gone.index() > answer.index()), ("[]", true));
}

#[tokio::test]
async fn every_read_that_has_an_index_can_wait_for_the_next() {
    let server = Arc::new(TestServer::start().await);
    ttl_service(&server, "web").await;
    for (number, path) in [
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/catalog/service/web",
        "/v1/catalog/node/n2",
        "/v1/catalog/node-services/n2",
        "/v1/health/service/web?passing",
        "/v1/health/checks/web",
        "/v1/health/node/n2",
        "/v1/health/state/any",
    ]
    .into_iter()
    .enumerate()
    {
        let joint = if path.contains('?') { '&' } else { '?' };
        let index = server.get(path).await.index();
        let watcher = waiting(&server, &format!("{path}{joint}index={index}&wait=60s")).await;
        let body = json!({ "Node": "n2", "Address": format!("10.0.0.{number}"),
            "Service": { "Service": "web", "ID": format!("web-{number}"), "Tags": [format!("t{number}")] },
            "Check": { "CheckID": format!("c{number}"), "Name": "c", "ServiceID": format!("web-{number}"),
                       "Status": "passing" } });
        assert_eq!(server.put("/v1/catalog/register", body).await.text(), "true");
        let answer = watcher.await.unwrap();
        assert!(answer.index() > index, "{path}");
        assert_eq!(answer.json(), server.get(path).await.json(), "{path}");
    }
}

#[tokio::test]
async fn a_wait_ends_after_its_time_with_the_same_answer() {
    let server = TestServer::start().await;
    ttl_service(&server, "web").await;
    let before = server.get("/v1/health/service/web").await;
    let begun = Instant::now();
    let after = server.get(&format!("/v1/health/service/web?index={}&wait=200ms", before.index())).await;
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    assert_eq!((after.status, after.index(), after.json()), (200, before.index(), before.json()));
    assert_eq!(server.running.registry().watchers(), 0);
}

#[tokio::test]
async fn an_index_that_is_not_ours_is_answered_at_once() {
    let server = TestServer::start().await;
    ttl_service(&server, "web").await;
    let now = server.get("/v1/health/service/web").await.index();
    // The wait is longer than the test's patience: none of these waits.
    for index in [0, now - 1, now + 1_000_000, u64::MAX] {
        let answer = server.get(&format!("/v1/health/service/web?index={index}&wait=10m")).await;
        assert_eq!((answer.status, answer.index()), (200, now), "{index}");
    }
}

#[tokio::test]
async fn a_change_of_a_service_is_awaited_by_the_hash_of_its_definition() {
    let server = Arc::new(TestServer::start().await);
    server.register(json!({ "Name": "web", "Port": 1 })).await;
    let first = server.get("/v1/agent/service/web").await;
    let hash = first.header("x-consul-contenthash").to_owned();
    let other = server.get("/v1/agent/service/web?hash=other&wait=10m").await;
    assert_eq!(other.json(), first.json(), "another hash is answered at once");
    let watcher = waiting(&server, &format!("/v1/agent/service/web?hash={hash}&wait=60s")).await;
    server.register(json!({ "Name": "web", "Port": 2 })).await;
    let answer = watcher.await.unwrap();
    assert_eq!(answer.json()["Port"], 2);
    assert_ne!(answer.header("x-consul-contenthash"), hash);
    let hash = answer.header("x-consul-contenthash").to_owned();
    let watcher = waiting(&server, &format!("/v1/agent/service/web?hash={hash}&wait=60s")).await;
    server.put("/v1/agent/service/deregister/web", "").await;
    assert_eq!(watcher.await.unwrap().status, 404);
}

#[tokio::test]
async fn more_watchers_than_allowed_are_refused_and_counted() {
    let server = Arc::new(TestServer::with(|config| config.limits.watchers_max = 2).await);
    ttl_service(&server, "web").await;
    let index = server.get("/v1/health/service/web").await.index();
    let path = format!("/v1/health/service/web?index={index}&wait=60s");
    let watchers = [waiting(&server, &path).await, waiting(&server, &path).await];
    assert_eq!(server.metric("rollcall_http_watchers").await, 2.0);
    let refused = server.get(&path).await;
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("[limits] watchers_max"), "{}", refused.text());
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"watchers_max\"}").await, 1.0);
    assert_eq!(server.get("/v1/health/service/web").await.status, 200, "who does not wait is answered");
    server.put("/v1/agent/check/fail/service:web", "").await;
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap().status, 200);
    }
    // The places are free again.
    let watcher = waiting(
        &server,
        &format!("/v1/catalog/nodes?index={}&wait=60s", server.get("/v1/catalog/nodes").await.index()),
    )
    .await;
    watcher.abort();
}

#[tokio::test]
async fn a_client_that_goes_away_gives_its_place_back() {
    let server = Arc::new(TestServer::start().await);
    let index = server.get("/v1/catalog/nodes").await.index();
    let watcher = waiting(&server, &format!("/v1/catalog/nodes?index={index}&wait=10m")).await;
    watcher.abort();
    let freed = async {
        while server.running.registry().watchers() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the place is held by nobody");
}

#[tokio::test]
async fn those_who_wait_are_answered_when_the_server_stops() {
    let server = TestServer::start().await;
    let nodes = server.get("/v1/catalog/nodes").await;
    let (http, path) = (server.http(), format!("/v1/catalog/nodes?index={}&wait=10m", nodes.index()));
    let asked = tokio::spawn(async move { crate::server::request(http, "GET", &path, &[], "").await });
    while server.running.registry().watchers() == 0 {
        assert!(!asked.is_finished());
        tokio::task::yield_now().await;
    }
    server.running.stop().await;
    assert_eq!(asked.await.unwrap().json(), nodes.json());
}

/// One that waits is put aside and read again: nothing of what it asked, or of what comes behind it, may be lost.
#[tokio::test]
async fn a_request_that_waited_is_answered_as_it_was_asked_and_those_behind_it_after() {
    let server = Arc::new(TestServer::start().await);
    ttl_service(&server, "web").await;
    let series = "rollcall_http_requests_total{family=\"/v1/health\",status=\"ok\"}";
    for (extra, body) in
        [("", ""), ("Content-Length: 3\r\n", "abc"), ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")]
    {
        let index = server.get("/v1/health/service/web").await.index();
        let before = server.metric(series).await;
        let mut stream = TcpStream::connect(server.http()).await.unwrap();
        let filter = "Service.Service%20%3D%3D%20web";
        let first = format!(
            "GET /v1/health/service/web?index={index}&wait=60s&pretty&filter={filter} HTTP/1.1\r\nHost: localhost\r\n\
             X-Other: \"quoted\"\r\n{extra}\r\n{body}GET /v1/status/lea"
        );
        stream.write_all(first.as_bytes()).await.unwrap();
        let waits = async {
            while server.running.registry().watchers() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.expect("it does not wait");
        stream.write_all(b"der HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        server.put("/v1/agent/check/fail/service:web", "").await;
        let mut got = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut got)).await.expect("no end").unwrap();
        let answers: Vec<&str> = got.split("HTTP/1.1 200 OK\r\n").collect();
        assert_eq!((answers.len(), answers[0]), (3, ""), "{got}");
        assert!(answers[1].contains("[\n    {\n        \"Node\": {"), "{extra}: {got}");
        assert!(answers[2].ends_with("\"127.0.0.1:8300\""), "{extra}: {got}");
        assert_eq!(server.metric(series).await, before + 1.0, "it is counted once");
        server.put("/v1/agent/check/pass/service:web", "").await;
    }
    // What its headers ask for is not forgotten either.
    for number in 0..5 {
        server.register(json!({ "Name": "web", "ID": format!("web-{number}") })).await;
    }
    let index = server.get("/v1/health/service/web").await.index();
    let (asked, path) = (server.clone(), format!("/v1/health/service/web?index={index}&wait=60s"));
    let gzip = [("accept-encoding", "gzip")];
    let watcher = tokio::spawn(async move { request(asked.http(), "GET", &path, &gzip, "").await });
    server.register(json!({ "Name": "web", "ID": "web-9" })).await;
    assert_eq!(watcher.await.unwrap().header("content-encoding"), "gzip");
    assert_eq!(server.running.registry().watchers(), 0);
}
