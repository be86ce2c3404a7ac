//! What stands between a token and the registry: writes are judged by what they meet when their turn is, aliases and nodes made on the way
//! need their own permissions, and the agent's own API hides what the catalog hides.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::acl::{Asks, controlled};
use crate::server::{Answer, PATIENCE, TestServer};

const REGISTER: &str = "/v1/agent/service/register";
const CHECK: &str = "/v1/agent/check/register";
/// Writes `a`, reads no other service, and every node.
const WRITES_A: &str = r#"service "a" { policy = "write" } node_prefix "" { policy = "read" }"#;

async fn put(server: &TestServer, path: &str, token: &str, body: &Value) -> Answer {
    server.with_token("PUT", path, token, &body.to_string()).await
}

/// The same, and it must be taken.
async fn taken(server: &TestServer, path: &str, token: &str, body: &Value) {
    let answer = put(server, path, token, body).await;
    assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text());
}

fn refused(answer: &Answer, lacks: &str) {
    let (status, text) = (answer.status, answer.text());
    assert!(
        status == 403 && text.starts_with("Permission denied: token with AccessorID '"),
        "{status} {text}"
    );
    assert!(text.ends_with(&format!("lacks permission {lacks}")), "{text}");
}

#[tokio::test]
async fn what_is_under_way_is_looked_at_when_a_write_is_judged() {
    let (server, root) = controlled(false).await;
    let token = server.token_with(&root, "a", WRITES_A).await;
    // Both are in flight at once. Whichever is the first, the second one meets it: in the end it is `b`, and `a` had it at most before.
    for round in 0..60 {
        let of = |service: &str| json!({ "Name": service, "ID": format!("x-{round}") });
        let (first, second) = (of("b"), of("a"));
        let (first, second) =
            tokio::join!(put(&server, REGISTER, &root, &first), put(&server, REGISTER, &token, &second));
        assert_eq!(first.status, 200, "{}", first.text());
        if second.status != 200 {
            refused(&second, "'service:write' on \"b\"");
        }
    }
    let all = server.with_token("GET", "/v1/agent/services", &root, "").await.json();
    let taken: Vec<_> = all.as_object().unwrap().values().filter(|of| of["Service"] != "b").collect();
    assert!(all.as_object().unwrap().len() == 60 && taken.is_empty(), "{taken:?}");
}

#[tokio::test]
async fn a_check_of_another_service_is_not_taken_over() {
    let (server, root) = controlled(false).await;
    let token = server.token_with(&root, "a", WRITES_A).await;
    let with_check = json!({ "Name": "b", "ID": "b-1", "Check": { "CheckID": "its", "TTL": "1h" } });
    taken(&server, REGISTER, &root, &with_check).await;
    taken(&server, REGISTER, &token, &json!({ "Name": "a", "ID": "a-1" })).await;
    // The same on another node, which the caller does not name: its instance is the only one of that id.
    let far = |id: &str, check: &str| json!({ "Name": id, "ID": format!("{id}-far"), "Check": { "CheckID": check, "TTL": "1h" } });
    for (service, check) in [("a", "of-a"), ("b", "of-b")] {
        taken(&server, &format!("{REGISTER}?node=n2"), &root, &far(service, check)).await;
    }
    taken(&server, CHECK, &root, &json!({ "Name": "of-node", "TTL": "1h" })).await;
    let before = server.registry_as_json(&root).await;
    let check = |id: &str, of: &str| json!({ "ID": id, "Name": "mine", "ServiceID": of, "TTL": "1s", "Status": "critical" });
    let (b, n1) = ("'service:write' on \"b\"", "'node:write' on \"n1\"");
    for (path, body, lacks) in [
        (CHECK, check("its", "a-1"), b),
        (CHECK, check("of-node", "a-1"), n1),
        (CHECK, check("of-b", "a-far"), b),
        (REGISTER, json!({ "Name": "a", "ID": "a-1", "Checks": [check("its", "")] }), b),
        (
            REGISTER,
            json!({ "Name": "a", "ID": "a-2", "Checks": [check("new", ""), check("of-node", "")] }),
            n1,
        ),
        (
            "/v1/catalog/register",
            json!({ "Node": "n1", "SkipNodeUpdate": true,
            "Service": { "Service": "a", "ID": "a-1" }, "Check": { "CheckID": "its", "Name": "its", "ServiceID": "a-1" } }),
            b,
        ),
    ] {
        refused(&put(&server, path, &token, &body).await, lacks);
    }
    assert_eq!(server.registry_as_json(&root).await, before, "nothing was changed");
    taken(&server, CHECK, &token, &check("of-a", "a-far")).await;
    taken(&server, CHECK, &token, &check("another", "a-1")).await;
}

#[tokio::test]
async fn an_alias_shows_nothing_that_its_owner_may_not_see() {
    let (server, root) = controlled(false).await;
    let secret = json!({ "Name": "secret-db", "ID": "db-1", "Check": { "CheckID": "db", "TTL": "1h" } });
    taken(&server, REGISTER, &root, &secret).await;
    let other = |service: Value| json!({ "Node": "other", "Address": "10.9.0.2", "Service": service });
    taken(&server, "/v1/catalog/register", &root, &other(json!({ "Service": "web", "ID": "web-9" }))).await;
    let said = json!({ "Status": "critical", "Output": "the password is wrong" });
    taken(&server, "/v1/agent/check/update/db", &root, &said).await;
    let rules =
        r#"service "a" { policy = "write" } service "web" { policy = "read" } node "n1" { policy = "read" }"#;
    let token = server.token_with(&root, "some", rules).await;
    taken(&server, REGISTER, &token, &json!({ "Name": "a", "ID": "a-1" })).await;
    taken(&server, REGISTER, &root, &json!({ "Name": "web", "ID": "web-1" })).await;
    let before = server.registry_as_json(&root).await;
    let (n2, other) = ("'node:read' on \"n2\"", "'node:read' on \"other\"");
    for (node, service, lacks) in [
        ("", "db-1", "'service:read' on \"db-1\""),
        ("n1", "db-1", "'service:read' on \"db-1\""),
        // The same of one that is not there: it is not told which is.
        ("", "db-2", "'service:read' on \"db-2\""),
        ("other", "web-9", other),
        ("other", "web-8", other),
        ("other", "", other),
        ("n2", "", n2),
    ] {
        let alias = json!({ "ID": "alias", "Name": "alias", "AliasNode": node, "AliasService": service });
        let mut of_service = alias.clone();
        of_service["ServiceID"] = json!("a-1");
        refused(&put(&server, CHECK, &token, &of_service).await, lacks);
        refused(
            &put(&server, REGISTER, &token, &json!({ "Name": "a", "ID": "a-1", "Check": alias })).await,
            lacks,
        );
    }
    assert_eq!(server.registry_as_json(&root).await, before, "nothing was changed");
    // What it may see, its own instance among it, and its node's.
    for (id, node, service) in [("1", "", "web-1"), ("2", "n1", "a-1"), ("3", "n1", "")] {
        let alias = json!({ "ID": id, "Name": "alias", "ServiceID": "a-1", "AliasNode": node, "AliasService": service });
        taken(&server, CHECK, &token, &alias).await;
    }
    let own = json!({ "Name": "a", "ID": "a-2", "Check": { "AliasService": "a-2" } });
    taken(&server, REGISTER, &token, &own).await;
    let seen = server.with_token("GET", "/v1/agent/checks", &token, "").await.text();
    assert!(seen.contains("alias") && !seen.contains("password"), "{seen}");
    // Whoever may read every service may name one that is not there yet.
    let all = r#"service_prefix "" { policy = "read" } service "a" { policy = "write" } node_prefix "" { policy = "read" }"#;
    let all = server.token_with(&root, "all", all).await;
    taken(&server, CHECK, &all, &json!({ "Name": "later", "ServiceID": "a-1", "AliasService": "later-1" }))
        .await;
}

#[tokio::test]
async fn a_node_is_made_by_those_who_may_write_it() {
    let (server, root) = controlled(false).await;
    let token = server.token_with(&root, "a", WRITES_A).await;
    let body = json!({ "Name": "a", "ID": "a-1" });
    // The address that it calls from is this machine's, whose node has another name.
    for node in ["n7", "127.0.0.1"] {
        let answer = put(&server, &format!("{REGISTER}?node={node}"), &token, &body).await;
        refused(&answer, &format!("'node:write' on \"{node}\""));
    }
    let nodes = async || server.with_token("GET", "/v1/catalog/nodes", &root, "").await.json();
    assert_eq!(nodes().await.as_array().unwrap().len(), 1, "none was made");
    let makes = r#"service "a" { policy = "write" } node "n7" { policy = "write" }"#;
    let makes = server.token_with(&root, "makes", makes).await;
    taken(&server, &format!("{REGISTER}?node=n7"), &makes, &body).await;
    assert_eq!(nodes().await.as_array().unwrap().len(), 2);
    // It is there, so the service is enough; and on our own node.
    taken(&server, &format!("{REGISTER}?node=n7"), &token, &json!({ "Name": "a", "ID": "a-2" })).await;
    taken(&server, &format!("{REGISTER}?node=N1"), &token, &body).await;
}

#[tokio::test]
async fn the_agents_api_hides_what_is_on_a_node_that_may_not_be_seen() {
    let (server, root) = controlled(true).await;
    let with_check = json!({ "Name": "web", "ID": "web-1", "Check": { "CheckID": "c", "TTL": "1h" } });
    taken(&server, REGISTER, &root, &with_check).await;
    taken(&server, &format!("{REGISTER}?node=n2"), &root, &json!({ "Name": "web", "ID": "web-2" })).await;
    let token = server.token_with(&root, "no-n1", r#"node "n1" { policy = "deny" }"#).await;
    let read = async |path: &str| server.with_token("GET", path, &token, "").await;
    for (path, empty) in
        [("/v1/agent/services", "{}"), ("/v1/agent/checks", "{}"), ("/v1/agent/members", "[]")]
    {
        let answer = read(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, empty), "{path}");
        assert_eq!(answer.header("x-consul-results-filtered-by-acls"), "true", "{path}");
    }
    for (path, text) in [
        ("/v1/agent/service/web-1", "unknown service ID: web-1"),
        ("/v1/agent/health/service/id/web-1?format=text", "ServiceId web-1 not found"),
        ("/v1/agent/health/service/name/web?format=text", "ServiceName web Not Found"),
    ] {
        let answer = read(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, text), "{path}");
    }
    for path in [
        "/v1/agent/service/web-2",
        "/v1/agent/services?node=n2",
        "/v1/agent/health/service/id/web-2",
        "/v1/agent/health/service/name/web?node=n2",
    ] {
        let answer = read(path).await;
        assert!(answer.status == 200 && answer.text().contains("web-2"), "{path}: {}", answer.text());
        assert_eq!(answer.header("x-consul-results-filtered-by-acls"), "", "{path}: nothing is left out");
    }
}

#[tokio::test]
async fn whether_a_hidden_instance_is_there_is_not_told() {
    let (server, root) = controlled(false).await;
    for (node, service, id) in
        [("n1", "secret", "s-1"), ("n2", "secret", "x"), ("n3", "web", "x"), ("n4", "secret", "x")]
    {
        taken(&server, &format!("{REGISTER}?node={node}"), &root, &json!({ "Name": service, "ID": id }))
            .await;
    }
    let rules = r#"service "web" { policy = "write" } node_prefix "" { policy = "read" }"#;
    let token = server.token_with(&root, "web", rules).await;
    let read = async |path: &str, token: &str| {
        let answer = server.with_token("GET", path, token, "").await;
        (answer.status, answer.text())
    };
    for path in ["/v1/agent/service/", "/v1/agent/health/service/id/"] {
        for token in [&*token, ""] {
            let (hidden, unknown) =
                (read(&format!("{path}s-1"), token).await, read(&format!("{path}s-9"), token).await);
            assert_eq!(hidden.0, 404, "{path}: {}", hidden.1);
            assert_eq!(hidden.1.replace("s-1", "s-9"), unknown.1, "{path}");
        }
        // Those that are hidden make no id ambiguous; to all others it is.
        let (status, text) = read(&format!("{path}x"), &token).await;
        assert!(status == 200 && text.contains("web") && !text.contains("n2"), "{path}: {status} {text}");
    }
    assert_eq!(read("/v1/agent/service/x", &root).await.0, 400);
    // Nor is it told on which nodes an id is, but to those who may write what is there.
    for path in ["/v1/agent/service/deregister/x", "/v1/agent/service/maintenance/x?enable=true"] {
        let answer = server.with_token("PUT", path, &token, "").await;
        let (status, text) = (answer.status, answer.text());
        assert!(status == 404 && text.starts_with("Unknown service ID \"x\""), "{status} {text}");
        let answer = server.with_token("PUT", path, &root, "").await;
        assert!(answer.status == 409 && answer.text().contains("n2, n3, n4"), "{}", answer.text());
    }
}

/// By an id alone, nor by a node that is named: what would change a hidden thing is answered as what would change nothing.
#[tokio::test]
async fn a_write_does_not_tell_whether_a_hidden_instance_is_there() {
    let (server, root) = controlled(false).await;
    let secret = json!({ "Name": "secret", "ID": "s-1", "Check": { "TTL": "1h", "CheckID": "s-1" } });
    taken(&server, REGISTER, &root, &secret).await;
    let rules = r#"service "web" { policy = "write" } node_prefix "" { policy = "read" }"#;
    let token = server.token_with(&root, "web", rules).await;
    let reads = r#"service "secret" { policy = "read" }"#;
    let reader = server.token_with(&root, "reader", reads).await;
    let before = server.registry_as_json(&root).await;
    let check = json!({ "Name": "mine", "TTL": "1h", "ServiceID": "s-1" }).to_string();
    let update = json!({ "Status": "passing" }).to_string();
    let catalog = json!({ "Node": "n1", "ServiceID": "s-1" }).to_string();
    for (method, path, body) in [
        ("PUT", "/v1/rollcall/drain/s-1", ""),
        ("PUT", "/v1/rollcall/drain/s-1?deregister", ""),
        ("PUT", "/v1/rollcall/drain/s-1?node=n1", ""),
        ("DELETE", "/v1/rollcall/drain/s-1", ""),
        ("PUT", "/v1/agent/service/deregister/s-1", ""),
        ("PUT", "/v1/agent/service/deregister/s-1?node=n1", ""),
        ("PUT", "/v1/agent/service/maintenance/s-1?enable=true", ""),
        ("PUT", "/v1/agent/check/register", &*check),
        ("PUT", "/v1/agent/check/deregister/s-1", ""),
        ("PUT", "/v1/agent/check/deregister/s-1?node=n1", ""),
        ("PUT", "/v1/agent/check/pass/s-1", ""),
        ("PUT", "/v1/agent/check/update/s-1", &*update),
        ("PUT", "/v1/catalog/deregister", &*catalog),
    ] {
        for token in [&*token, ""] {
            let hidden = server.with_token(method, path, token, body).await;
            let [path, body] = [path, body].map(|text| text.replace("s-1", "s-9"));
            let unknown = server.with_token(method, &path, token, &body).await;
            assert_eq!(
                (hidden.status, hidden.text().replace("s-1", "s-9")),
                (unknown.status, unknown.text()),
                "{method} {path}"
            );
            assert_eq!(hidden.status, if path.contains("catalog") { 403 } else { 404 }, "{method} {path}");
        }
        // Who may read it is told what they lack.
        let answer = server.with_token(method, path, &reader, body).await;
        refused(&answer, "'service:write' on \"secret\"");
    }
    assert_eq!(server.registry_as_json(&root).await, before, "nothing was changed");
}

#[tokio::test]
async fn a_token_that_is_taken_away_while_the_body_comes_changes_nothing() {
    let (server, root) = controlled(false).await;
    let text = with_a_token_that_goes(&server, &root, REGISTER, json!({ "Name": "a" })).await;
    assert!(text.starts_with("HTTP/1.1 403 ") && text.ends_with("ACL not found"), "{text}");
    let all = server.with_token("GET", "/v1/agent/services", &root, "").await;
    assert_eq!(all.text(), "{}", "nothing was registered");
    // Reports are no commands, and are judged at the door: the same.
    for id in ["a-1", "a-2"] {
        let body = json!({ "Name": "a", "ID": id }).to_string();
        assert_eq!(server.with_token("PUT", REGISTER, &root, &body).await.status, 200);
    }
    let reports = json!({ "Reports": [{ "Service": "a", "ID": "a-1", "Failure": 100 }] });
    let text = with_a_token_that_goes(&server, &root, "/v1/rollcall/report", reports).await;
    assert!(text.starts_with("HTTP/1.1 403 ") && text.ends_with("ACL not found"), "{text}");
    let metrics = server.with_token("GET", "/metrics", &root, "").await.text();
    assert!(metrics.contains("rollcall_breaker_requests_total{outcome=\"failure\"} 0\n"), "{metrics}");
}

/// What somebody is told whose token is taken away when the server has let them in and waits for the body.
async fn with_a_token_that_goes(server: &TestServer, root: &str, path: &str, body: Value) -> String {
    let token = server.token_with(root, path.rsplit('/').next().unwrap(), WRITES_A).await;
    let own = server.with_token("GET", "/v1/acl/token/self", &token, "").await.json();
    let body = body.to_string();
    let mut stream = TcpStream::connect(server.http()).await.unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: {}\r\nX-Consul-Token: {token}\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n",
        server.http(),
        body.len()
    );
    let told = async {
        stream.write_all(head.as_bytes()).await.unwrap();
        // It was let in: the body is asked for.
        let mut go_on = [0; 25];
        stream.read_exact(&mut go_on).await.unwrap();
        assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
        let path = format!("/v1/acl/token/{}", own["AccessorID"].as_str().unwrap());
        assert_eq!(server.with_token("DELETE", &path, root, "").await.status, 200);
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap()
}

#[tokio::test]
async fn refused_writes_are_counted() {
    let (server, root) = controlled(false).await;
    for name in ["x", "y", "z"] {
        assert_eq!(server.put(REGISTER, json!({ "Name": name })).await.status, 403);
    }
    let metrics = server.with_token("GET", "/metrics", &root, "").await.text();
    assert!(metrics.contains("rollcall_http_refused_total{reason=\"acl\"} 3\n"), "{metrics}");
}
