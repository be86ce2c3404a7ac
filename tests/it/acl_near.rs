//! Nodes that a token may not see do not show through what is near to them, or through what is asked of them.

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::acl::{Asks, controlled};
use crate::server::{TestServer, ask, query, request};

/// All services, and every node but `h`.
const ALL_BUT_ONE: &str = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } node "h" { policy = "deny" }"#;
/// In which of two orders something stays by chance: once in 2^63.
const TRIES: usize = 64;

/// `web` on `a` in eu and on `b` in us; `d` and `h` are in us; `solo` is on `h`, which has a secret.
async fn fill(server: &TestServer, root: &str) {
    for (node, at, region, service) in
        [("a", 1, "eu", "web"), ("b", 2, "us", "web"), ("d", 3, "us", "other"), ("h", 4, "us", "solo")]
    {
        let body = json!({ "Node": node, "Address": format!("10.9.0.{at}"), "NodeMeta": { "region": region, "zone": "1", "of": node },
            "Service": { "Service": service, "ID": format!("i{at}"), "Address": format!("10.7.0.{at}"), "Port": 80 } });
        let made = server.with_token("PUT", "/v1/catalog/register", root, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
}

async fn prepare(server: &TestServer, root: &str, name: &str, near: &str, token: &str) {
    let body = json!({ "Name": name, "Token": token, "Service": { "Service": "web", "Near": near } });
    let made = server.with_token("POST", "/v1/query", root, &body.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
}

fn order(nodes: &Value) -> String {
    let name = |entry: &Value| entry["Node"]["Node"].as_str().or(entry["Node"].as_str()).unwrap().to_owned();
    nodes.as_array().unwrap().iter().map(name).collect()
}

/// Whether an execution gives the instance in us first every time.
async fn is_sorted(server: &TestServer, path: &str, token: &str, from: &str) -> bool {
    for _ in 0..TRIES {
        let headers = [("x-consul-token", token), ("x-forwarded-for", from)];
        let answer = request(server.http(), "GET", path, &headers, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        match order(&answer.json()["Nodes"]).as_str() {
            "ba" => {}
            "ab" => return false,
            other => panic!("{path}: {other}"),
        }
    }
    true
}

#[tokio::test]
async fn near_tells_nothing_of_where_a_hidden_node_is() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let some = server.token_with(&root, "some", ALL_BUT_ONE).await;
    for (name, near, token) in [("plain", "", ""), ("own", "h", ""), ("held", "h", &*root), ("ip", "_ip", "")]
    {
        prepare(&server, &root, name, near, token).await;
    }
    let (hidden, elsewhere) = ("10.9.0.4", "198.51.100.7");
    for (path, from, sorted_for_some) in [
        ("plain/execute?near=d", elsewhere, true),
        ("plain/execute?near=h", elsewhere, false),
        ("own/execute", elsewhere, false),
        ("ip/execute", hidden, false),
        ("plain/execute?near=_ip", hidden, false),
        // It is the query's token that says where near is, but not near to what somebody else says.
        ("held/execute", elsewhere, true),
        ("held/execute?near=h", elsewhere, false),
    ] {
        let path = format!("/v1/query/{path}");
        assert!(is_sorted(&server, &path, &root, from).await, "{path}");
        assert_eq!(is_sorted(&server, &path, &some, from).await, sorted_for_some, "{path}");
    }
    assert!(!is_sorted(&server, "/v1/query/plain/execute", &root, elsewhere).await, "it is chance");
    // Listings: near a node that may be seen, whether it has the service or not.
    for (near, expected) in
        [("d", ["ba", "ba"]), ("b", ["ba", "ba"]), ("h", ["ba", "ab"]), ("nobody", ["ab", "ab"])]
    {
        for path in ["/v1/health/service/web", "/v1/catalog/service/web"] {
            for (token, expected) in [&root, &some].into_iter().zip(expected) {
                let answer = server.with_token("GET", &format!("{path}?near={near}"), token, "").await;
                assert_eq!(order(&answer.json()), expected, "{path} near {near}");
            }
        }
    }
}

#[tokio::test]
async fn in_dns_a_query_is_near_to_what_its_token_or_dns_may_see() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let some = server.token_with(&root, "some", ALL_BUT_ONE).await;
    for (name, token) in [("own", ""), ("held", &*root), ("less", &some)] {
        prepare(&server, &root, name, "h", token).await;
    }
    let is_sorted = async |name: &str| {
        for _ in 0..TRIES {
            let answer = ask(server.dns(), &query(&format!("{name}.query.internal."), RecordType::A)).await;
            assert_eq!(answer.answers.len(), 2, "{name}");
            if answer.answers[0].data.to_string() != "10.7.0.2" {
                return false;
            }
        }
        true
    };
    for (token, sorted) in [(&root, [true, true, false]), (&some, [false, true, false])] {
        let body = json!({ "Token": token }).to_string();
        assert_eq!(server.with_token("PUT", "/v1/agent/token/dns", &root, &body).await.status, 200);
        let found = [is_sorted("own").await, is_sorted("held").await, is_sorted("less").await];
        assert_eq!(found, sorted);
    }
}

#[tokio::test]
async fn the_names_of_services_tell_nothing_of_hidden_nodes() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let some = server.token_with(&root, "some", ALL_BUT_ONE).await;
    for (query, all, seen) in [
        // As in Consul, names need no node.
        ("", &["consul", "other", "solo", "web"][..], &["consul", "other", "solo", "web"][..]),
        ("?node-meta=of:h", &["solo"], &[]),
        ("?node-meta=region:us", &["other", "solo", "web"], &["other", "web"]),
        ("?filter=Node%20%3D%3D%20h", &["solo"], &[]),
        ("?filter=Address%20%3D%3D%20%2210.9.0.4%22", &["solo"], &[]),
    ] {
        for (token, expected, told) in
            [(&root, all, ""), (&some, seen, if query.is_empty() { "" } else { "true" })]
        {
            let answer = server.with_token("GET", &format!("/v1/catalog/services{query}"), token, "").await;
            assert_eq!(answer.status, 200, "{query}: {}", answer.text());
            let services = answer.json();
            let names: Vec<_> = services.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(names, expected, "{query}");
            assert_eq!(answer.header("x-consul-results-filtered-by-acls"), told, "{query}");
        }
    }
}
