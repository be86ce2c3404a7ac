//! What may not be read looks as what is not there, in indexes and wake-ups too.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use hyper::header::HeaderMap;
use serde_json::{Value, json};

use crate::acl::{Asks, controlled};
use crate::server::{Answer, TestServer};

/// May read `web`, and every node but two of which there is one.
const RULES: &str = r#"service "web" { policy = "read" } node_prefix "" { policy = "read" }
    node "vault" { policy = "deny" } node "cellar" { policy = "deny" }"#;

async fn register(server: &TestServer, root: &str, node: &str, service: &str, port: u16) {
    let body =
        json!({ "Node": node, "Address": "10.9.0.2", "Service": { "Service": service, "Port": port } });
    let made = server.with_token("PUT", "/v1/catalog/register", root, &body.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
}

async fn read(server: &TestServer, path: &str, token: &str) -> Answer {
    let answer = server.with_token("GET", path, token, "").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

/// All that an answer says, but when it was given and what it is called.
fn said(answer: &Answer) -> (HeaderMap, String) {
    let mut headers = answer.headers.clone();
    for name in ["date", "x-request-id"] {
        headers.remove(name);
    }
    (headers, answer.text())
}

#[tokio::test]
async fn what_may_not_be_read_looks_as_what_is_not_there() {
    let (server, root) = controlled(false).await;
    let token = server.token_with(&root, "web", RULES).await;
    register(&server, &root, "vault", "secret", 1).await;
    register(&server, &root, "other", "web", 1).await;
    let query = json!({ "Name": "q", "Service": { "Service": "secret" } }).to_string();
    assert_eq!(server.with_token("POST", "/v1/query", &root, &query).await.status, 200);
    let query = json!({ "Name": "r", "Service": { "Service": "nothing" } }).to_string();
    assert_eq!(server.with_token("POST", "/v1/query", &root, &query).await.status, 200);
    for round in 2..5 {
        for token in [token.as_str(), ""] {
            for kind in ["health/service", "catalog/service", "health/checks"] {
                let hidden = read(&server, &format!("/v1/{kind}/secret"), token).await;
                let nothing = read(&server, &format!("/v1/{kind}/nothing"), token).await;
                assert_eq!(said(&hidden), said(&nothing), "{kind}");
            }
            for kind in ["health/node", "catalog/node", "catalog/node-services"] {
                let hidden = read(&server, &format!("/v1/{kind}/vault"), token).await;
                let nothing = read(&server, &format!("/v1/{kind}/cellar"), token).await;
                assert_eq!(said(&hidden), said(&nothing), "{kind}");
            }
            let [hidden, nothing] = ["q", "r"].map(|name| format!("/v1/query/{name}/execute"));
            let (hidden, nothing) =
                (read(&server, &hidden, token).await, read(&server, &nothing, token).await);
            assert_eq!(hidden.index(), nothing.index());
        }
        let index = read(&server, "/v1/health/service/secret", &token).await.index();
        register(&server, &root, "vault", "secret", round).await;
        assert_eq!(read(&server, "/v1/health/service/secret", &token).await.index(), index, "did not move");
        assert!(read(&server, "/v1/health/service/secret", &root).await.index() > index);
    }
}

/// Whether an answer has come by now.
async fn has_come(waiting: &mut (impl Future<Output = Answer> + Unpin)) -> bool {
    std::future::poll_fn(|context| Poll::Ready(std::pin::Pin::new(&mut *waiting).poll(context).is_ready()))
        .await
}

#[tokio::test]
async fn nobody_is_woken_by_what_they_may_not_read() {
    let (server, root) = controlled(false).await;
    let token = server.token_with(&root, "web", RULES).await;
    register(&server, &root, "vault", "secret", 1).await;
    for (path, port) in [("/v1/health/service/secret", 2), ("/v1/health/node/vault", 3)] {
        let blocking = async |token: &str| {
            let index = read(&server, path, token).await.index();
            format!("{path}?index={index}&wait=60s")
        };
        while server.running.registry().watchers() > 0 {
            tokio::task::yield_now().await;
        }
        let (hidden, seen) = (blocking(&token).await, blocking(&root).await);
        let mut hidden = pin!(server.with_token("GET", &hidden, &token, ""));
        assert!(!has_come(&mut hidden).await);
        let change = async {
            while server.running.registry().watchers() < 2 {
                tokio::task::yield_now().await;
            }
            register(&server, &root, "vault", "secret", port).await;
        };
        let both = async { tokio::join!(server.with_token("GET", &seen, &root, ""), change).0 };
        let mut both = pin!(both);
        let woken = tokio::select! {
            woken = &mut both => woken,
            early = &mut hidden => panic!("{path} was answered: {early:?}"),
        };
        assert_eq!(woken.status, 200, "whoever may read it is woken");
        // What the same change had woken would have been answered while these are.
        for _ in 0..20 {
            assert_ne!(read(&server, path, &root).await.json(), Value::Null);
            assert!(!has_come(&mut hidden).await, "{path}");
        }
        assert_eq!(server.running.registry().watchers(), 1, "it still waits");
    }
}
