//! `/v1/rollcall` while access is controlled: discovery is filtered, and what holds everything is for management alone.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::acl::{Asks, controlled};
use crate::server::{PATIENCE, TestServer};

/// Sees `web` on `n1` alone.
const SEES_ONE: &str = r#"service "web" { policy = "read" } node "n1" { policy = "read" }"#;
/// May do everything but write the ACL.
const ALL_BUT_ACL: &str = r#"agent_prefix "" { policy = "write" } node_prefix "" { policy = "write" }
    service_prefix "" { policy = "write" } query_prefix "" { policy = "write" } operator = "write" acl = "read""#;

/// `web` on two nodes and `secret-db` on the first; no target holds another's address.
async fn fill(server: &TestServer, root: &str) {
    for (node, service, at) in [("n1", "web", 1), ("other", "web", 2), ("n1", "secret-db", 3)] {
        let body = json!({ "Node": node, "Address": format!("10.9.0.{}", node.len()), "NodeMeta": { "on": node },
            "Service": { "Service": service, "ID": format!("i{at}"), "Port": 80, "Address": format!("10.7.0.{at}") } });
        let made = server.with_token("PUT", "/v1/catalog/register", root, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
}

#[tokio::test]
async fn http_sd_shows_only_what_the_token_may_see() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let one = server.token_with(&root, "one", SEES_ONE).await;
    let targets = async |query: &str, token: &str| {
        let answer = server.with_token("GET", &format!("/v1/rollcall/http_sd{query}"), token, "").await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let groups = answer.json();
        let targets = groups.as_array().unwrap().iter();
        let targets: Vec<_> = targets.map(|group| group["targets"][0].as_str().unwrap().to_owned()).collect();
        (targets.join(" "), answer.header("x-consul-results-filtered-by-acls").to_owned())
    };
    for (query, all, seen) in [
        ("", "10.7.0.3:80 10.7.0.1:80 10.7.0.2:80", "10.7.0.1:80"),
        ("?service=web", "10.7.0.1:80 10.7.0.2:80", "10.7.0.1:80"),
        ("?service=secret-db", "10.7.0.3:80", ""),
        ("?node-meta=on:other", "10.7.0.2:80", ""),
    ] {
        assert_eq!(targets(query, &root).await, (all.to_owned(), String::new()), "{query}");
        assert_eq!(targets(query, &one).await, (seen.to_owned(), "true".to_owned()), "{query}");
        assert_eq!(targets(query, "").await, Default::default(), "{query}: nobody is told without a token");
    }
    let shown = server.with_token("GET", "/v1/rollcall/http_sd", &one, "").await.text();
    assert!(
        !shown.contains("secret-db") && !shown.contains("other") && !shown.contains("10.9.0.5"),
        "{shown}"
    );
    // An error, with which Prometheus keeps the targets that it has; an empty list would take them away.
    let unknown = server.with_token("GET", "/v1/rollcall/http_sd", "no such token", "").await;
    assert_eq!((unknown.status, unknown.text().as_str()), (403, "ACL not found"));
}

/// The beginning of a stream of events, or the whole of a refusal.
async fn events(server: &TestServer, token: &str) -> String {
    let header = if token.is_empty() { String::new() } else { format!("X-Consul-Token: {token}\r\n") };
    let mut stream = TcpStream::connect(server.http()).await.unwrap();
    let sent = format!(
        "GET /v1/rollcall/events HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{header}\r\n",
        server.http()
    );
    stream.write_all(sent.as_bytes()).await.unwrap();
    let read = async {
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            text += std::str::from_utf8(&buffer[..length]).unwrap();
            if length == 0 || text.contains("event: begin") {
                return text;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("neither a stream nor a refusal")
}

#[tokio::test]
async fn what_holds_everything_is_for_those_who_may_write_the_acl() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let most = server.token_with(&root, "most", ALL_BUT_ACL).await;
    let new_node = |name: &str| json!({ "rollcall_export": 1, "records": [{ "node": { "name": name, "address": "10.9.9.9" } }] });
    let before = server.registry_as_json(&root).await;
    for token in ["", &most] {
        for (method, path, body) in [
            ("GET", "/v1/rollcall/export", String::new()),
            ("GET", "/v1/rollcall/backup", String::new()),
            ("PUT", "/v1/rollcall/import", new_node("forced").to_string()),
            ("PUT", "/v1/rollcall/import?dry-run", new_node("forced").to_string()),
            ("PUT", "/v1/rollcall/import?prune", new_node("forced").to_string()),
        ] {
            let answer = server.with_token(method, path, token, &body).await;
            let (status, text) = (answer.status, answer.text());
            assert!(status == 403 && text.starts_with("Permission denied: "), "{path}: {status} {text}");
            assert!(text.contains("lacks permission 'acl:write'"), "{path}: {text}");
        }
        let refused = events(&server, token).await;
        assert!(
            refused.starts_with("HTTP/1.1 403 ") && refused.contains("lacks permission 'acl:write'"),
            "{refused}"
        );
        assert!(!refused.contains("event:"), "{refused}");
    }
    for path in ["/v1/rollcall/export", "/v1/rollcall/backup"] {
        let unknown = server.with_token("GET", path, "no such token", "").await;
        assert_eq!((unknown.status, unknown.text().as_str()), (403, "ACL not found"), "{path}");
    }
    assert_eq!(server.registry_as_json(&root).await, before, "nothing was changed");

    let export = server.with_token("GET", "/v1/rollcall/export", &root, "").await;
    assert!(export.status == 200 && export.text().contains("secret-db"), "{}", export.text());
    let backup = server.with_token("GET", "/v1/rollcall/backup", &root, "").await;
    assert!(backup.status == 200 && backup.body.len() > 1000, "{}", backup.status);
    let stream = events(&server, &root).await;
    assert!(stream.starts_with("HTTP/1.1 200 ") && stream.contains("text/event-stream"), "{stream}");
    let taken = server.with_token("PUT", "/v1/rollcall/import", &root, &new_node("added").to_string()).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    let nodes = server.with_token("GET", "/v1/catalog/nodes", &root, "").await.json();
    let has = |name: &str| nodes.as_array().unwrap().iter().any(|node: &Value| node["Node"] == name);
    assert!(has("added") && !has("forced"), "{nodes}");
    // An export that somebody made who might not see a query's token is not taken for one with that token.
    let query = json!({ "rollcall_export": 1, "records": [{ "query": { "id": "00000000-0000-0000-0000-000000000009",
        "name": "q", "token": "<hidden>", "service": { "service": "web" } } }] });
    let refused = server.with_token("PUT", "/v1/rollcall/import", &root, &query.to_string()).await;
    assert!(refused.status == 400 && refused.text().contains("Bad Token '<hidden>'"), "{}", refused.text());
}
