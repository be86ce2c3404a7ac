//! Access control by tokens, over the real sockets.

use std::io::Read as _;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use rollcall::config::Config;
use rollcall::model::Secret;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::server::{Answer, TestServer, ask, ask_tcp, config, query, raw, request};

const NOBODY: &str = "Permission denied: anonymous token lacks permission";

/// What these tests ask of a server.
pub trait Asks {
    /// A request with a token; none where it is empty.
    async fn with_token(&self, method: &str, path: &str, token: &str, body: &str) -> Answer;
    /// Makes a policy and a token with it; the token's secret.
    async fn token_with(&self, management: &str, name: &str, rules: &str) -> String;
    /// All that is registered.
    async fn registry_as_json(&self, management: &str) -> Vec<Value>;
}

impl Asks for TestServer {
    async fn with_token(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let headers = [("x-consul-token", token)];
        let headers = if token.is_empty() { &[][..] } else { &headers[..] };
        request(self.http(), method, path, headers, body).await
    }

    async fn token_with(&self, management: &str, name: &str, rules: &str) -> String {
        let policy = json!({ "Name": name, "Rules": rules }).to_string();
        let made = self.with_token("PUT", "/v1/acl/policy", management, &policy).await;
        assert_eq!(made.status, 200, "{}", made.text());
        let token = json!({ "Description": name, "Policies": [{ "Name": name }] }).to_string();
        let made = self.with_token("PUT", "/v1/acl/token", management, &token).await;
        assert_eq!(made.status, 200, "{}", made.text());
        made.json()["SecretID"].as_str().unwrap().to_owned()
    }

    async fn registry_as_json(&self, management: &str) -> Vec<Value> {
        let mut all = Vec::new();
        for path in
            ["/v1/catalog/nodes", "/v1/catalog/services", "/v1/health/state/any", "/v1/agent/services"]
        {
            all.push(self.with_token("GET", path, management, "").await.json());
        }
        all
    }
}

fn control(config: &mut Config, default_allow: bool) {
    config.acl.enabled = true;
    config.acl.default_allow = default_allow;
}

/// A server that controls access, and its first management token.
pub async fn controlled(default_allow: bool) -> (TestServer, String) {
    let server = TestServer::with(|config| control(config, default_allow)).await;
    let made = server.put("/v1/acl/bootstrap", "").await;
    assert_eq!(made.status, 200, "{}", made.text());
    let secret = made.json()["SecretID"].as_str().unwrap().to_owned();
    (server, secret)
}

fn accessors(tokens: &Value) -> Vec<&str> {
    tokens.as_array().unwrap().iter().map(|token| token["AccessorID"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn without_access_control_its_endpoints_say_so_and_nothing_else_changes() {
    let server = TestServer::start().await;
    for (method, path) in [
        ("PUT", "/v1/acl/bootstrap"),
        ("GET", "/v1/acl/tokens"),
        ("PUT", "/v1/acl/policy"),
        ("POST", "/v1/acl/login"),
        ("GET", "/v1/acl/token/self"),
    ] {
        let answer = request(server.http(), method, path, &[], "{}").await;
        assert_eq!((answer.status, answer.text().as_str()), (401, "ACL support disabled"), "{path}");
    }
    for (method, path) in [
        ("GET", "/v1/acl/bootstrap"),
        ("TRACE", "/v1/acl/tokens"),
        ("PUT", "/v1/acl/tokens"),
        ("POST", "/v1/acl/policy"),
        ("DELETE", "/v1/acl/token/x/clone"),
    ] {
        let answer = request(server.http(), method, path, &[], "").await;
        assert_eq!((answer.status, answer.text()), (405, format!("method {method} not allowed")), "{path}");
    }
    let answer = server.with_token("GET", "/v1/catalog/nodes", "whatever", "").await;
    assert_eq!((answer.status, answer.header("x-consul-default-acl-policy")), (200, "allow"));
    assert_eq!(server.with_token("PUT", "/v1/agent/token/dns", "", "{\"Token\":\"x\"}").await.status, 401);
}

#[tokio::test]
async fn the_first_token_is_given_away_once() {
    let (server, secret) = controlled(false).await;
    let again = server.put("/v1/acl/bootstrap", "").await;
    assert_eq!(again.status, 403);
    let text = again.text();
    let index = text.strip_prefix("Permission denied: ACL bootstrap no longer allowed (reset index: ");
    assert!(
        index.and_then(|rest| rest.strip_suffix(')')).is_some_and(|n| n.parse::<u64>().is_ok()),
        "{text}"
    );
    let own = server.with_token("GET", "/v1/acl/token/self", &secret, "").await;
    let token = own.json();
    assert_eq!((token["SecretID"].as_str(), token["Local"].as_bool()), (Some(secret.as_str()), Some(false)));
    assert_eq!(token["Policies"][0]["Name"], "global-management");
    assert_eq!(token["Policies"][0]["ID"], "00000000-0000-0000-0000-000000000001");
    assert_eq!(token["Description"], "Bootstrap Token (Global Management)");
    assert_eq!(own.header("x-consul-default-acl-policy"), "deny");
    let anonymous = server.get("/v1/acl/token/self").await.json();
    assert_eq!(anonymous["AccessorID"], "00000000-0000-0000-0000-000000000002");
}

#[tokio::test]
async fn the_configuration_can_name_the_first_token() {
    let server = TestServer::with(|config| {
        control(config, false);
        config.acl.initial_management = Some(Secret::new("let-me-in"));
    })
    .await;
    let listed = server.with_token("GET", "/v1/acl/tokens", "let-me-in", "").await;
    assert_eq!(accessors(&listed.json()).len(), 1, "the anonymous one");
    assert_eq!(server.put("/v1/acl/bootstrap", "").await.status, 403);
    let own = server.with_token("GET", "/v1/acl/token/self", "let-me-in", "").await.json();
    assert_eq!(own["Policies"][0]["Name"], "global-management");
}

#[tokio::test]
async fn tokens_are_made_read_changed_cloned_and_removed() {
    let (server, root) = controlled(false).await;
    let ask = async |method: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        server.with_token(method, path, &root, &body).await
    };
    let policy =
        ask("PUT", "/v1/acl/policy", json!({ "Name": "p", "Rules": "operator = \"read\"" })).await.json();
    let role = json!({ "Name": "r", "Policies": [{ "ID": policy["ID"] }], "ServiceIdentities": [{ "ServiceName": "web" }] });
    let role = ask("PUT", "/v1/acl/role", role).await.json();
    assert_eq!(role["Policies"][0]["Name"], "p");
    let body = json!({ "Description": "d", "Roles": [{ "Name": "r" }],
        "NodeIdentities": [{ "NodeName": "n1", "Datacenter": "dc1" }] });
    let made = ask("PUT", "/v1/acl/token", body).await.json();
    let path = format!("/v1/acl/token/{}", made["AccessorID"].as_str().unwrap());
    assert_eq!(
        (&made["Roles"][0]["Name"], &made["NodeIdentities"][0]["NodeName"]),
        (&json!("r"), &json!("n1"))
    );
    let read = ask("GET", &path, Value::Null).await;
    assert_eq!(read.json(), made);
    assert!(read.index() >= 1);
    let expanded = ask("GET", &format!("{path}?expanded=true"), Value::Null).await.json();
    assert_eq!(expanded["ExpandedPolicies"][0]["Rules"], "operator = \"read\"");
    // Renamed, the link follows; removed, it is gone.
    let policy_path = format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap());
    let renamed = ask("PUT", &policy_path, json!({ "Name": "q", "Rules": "" })).await;
    assert_eq!(renamed.json()["Name"], "q");
    assert_eq!(ask("GET", "/v1/acl/policy/name/q", Value::Null).await.json()["ID"], policy["ID"]);
    let role_path = format!("/v1/acl/role/{}", role["ID"].as_str().unwrap());
    assert_eq!(ask("GET", &role_path, Value::Null).await.json()["Policies"][0]["Name"], "q");
    assert_eq!(ask("DELETE", &policy_path, Value::Null).await.text(), "true");
    assert_eq!(ask("GET", &role_path, Value::Null).await.json().get("Policies"), None);
    assert_eq!(ask("GET", &policy_path, Value::Null).await.status, 404);
    let clone = ask("PUT", &format!("{path}/clone"), json!({ "Description": "other" })).await.json();
    assert_eq!((&clone["Description"], &clone["Roles"]), (&json!("other"), &made["Roles"]));
    assert!(clone["SecretID"] != made["SecretID"] && clone["AccessorID"] != made["AccessorID"]);
    let changed =
        ask("PUT", &path, json!({ "AccessorID": made["AccessorID"], "Description": "e" })).await.json();
    assert_eq!(
        (&changed["Description"], changed.get("Roles"), &changed["SecretID"]),
        (&json!("e"), None, &made["SecretID"])
    );
    assert_eq!(ask("GET", "/v1/acl/tokens?role=x", Value::Null).await.json(), json!([]));
    let all = ask("GET", "/v1/acl/tokens", Value::Null).await.json();
    assert_eq!(accessors(&all).len(), 4);
    // Whoever may only read sees no secret, of nobody.
    let reader = server.token_with(&root, "reader", "acl = \"read\"").await;
    let seen = server.with_token("GET", "/v1/acl/tokens", &reader, "").await;
    assert!(
        accessors(&seen.json()).len() == 5
            && !seen.text().contains(&root)
            && seen.text().contains("<hidden>")
    );
    let seen = server.with_token("GET", &path, &reader, "").await.json();
    assert_eq!(seen["SecretID"], "<hidden>");
    assert_eq!(ask("DELETE", &path, Value::Null).await.text(), "true");
    assert_eq!(ask("GET", &path, Value::Null).await.status, 404);
    let gone = server.with_token("GET", "/v1/catalog/nodes", made["SecretID"].as_str().unwrap(), "").await;
    assert_eq!((gone.status, gone.text().as_str()), (403, "ACL not found"));
    let roles = ask("GET", "/v1/acl/roles", Value::Null).await.json();
    assert_eq!(roles.as_array().unwrap().len(), 1);
    assert_eq!(ask("DELETE", &role_path, Value::Null).await.text(), "true");
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_consuls_words_and_changes_nothing() {
    let (server, root) = controlled(false).await;
    let builtin = "00000000-0000-0000-0000-000000000001";
    let anonymous = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
    let before = server.with_token("GET", "/v1/acl/tokens", &root, "").await.text();
    for (method, path, body, status, text) in [
        (
            "PUT",
            "/v1/acl/token",
            json!({ "Policies": [{ "Name": "no" }] }),
            500,
            "No such ACL policy with name \"no\"",
        ),
        ("PUT", "/v1/acl/token", json!({ "Roles": [{ "ID": "x" }] }), 500, "No such ACL role with ID \"x\""),
        (
            "PUT",
            "/v1/acl/token",
            json!({ "SecretID": "x" }),
            500,
            "Invalid Token: SecretID is not a valid UUID",
        ),
        (
            "PUT",
            "/v1/acl/token",
            json!({ "SecretID": root }),
            500,
            "Invalid Token: SecretID is already in use",
        ),
        ("PUT", "/v1/acl/token", json!({ "AccessorID": builtin }), 500, "are reserved"),
        (
            "PUT",
            "/v1/acl/token",
            json!({ "AuthMethod": "m" }),
            500,
            "AuthMethod field is disallowed outside of Login",
        ),
        (
            "PUT",
            "/v1/acl/token",
            json!({ "ExpirationTime": "2020-01-01T00:00:00Z" }),
            500,
            "ExpirationTime cannot be before CreateTime",
        ),
        (
            "PUT",
            "/v1/acl/token",
            json!({ "Nope": 1 }),
            400,
            "Token decoding failed: json: unknown field \"Nope\"",
        ),
        (
            "PUT",
            "/v1/acl/token",
            json!({ "ServiceIdentities": [{ "ServiceName": "A\"" }] }),
            500,
            "has an invalid name",
        ),
        ("PUT", "/v1/acl/policy", json!({ "Name": "a b" }), 500, "Invalid Policy: invalid Name."),
        (
            "PUT",
            "/v1/acl/policy",
            json!({ "Name": "global-management" }),
            500,
            "Invalid Policy: A Policy with Name",
        ),
        (
            "PUT",
            "/v1/acl/policy",
            json!({ "Name": "p", "Rules": "srvice \"a\" {}" }),
            500,
            "Failed to parse ACL rules: unknown rule \"srvice\"",
        ),
        (
            "PUT",
            "/v1/acl/policy",
            json!({ "Name": "p", "ID": builtin }),
            400,
            "Cannot specify the ID when creating a new policy",
        ),
        ("DELETE", &format!("/v1/acl/policy/{builtin}"), Value::Null, 500, "Delete operation not permitted"),
        (
            "PUT",
            &format!("/v1/acl/policy/{builtin}"),
            json!({ "Name": "x", "Rules": "" }),
            500,
            "is not permitted",
        ),
        ("DELETE", anonymous, Value::Null, 500, "Delete operation not permitted on the anonymous token"),
        ("GET", "/v1/acl/token/nope", Value::Null, 404, "ACL not found"),
        ("GET", "/v1/acl/templated-policies", Value::Null, 404, "not served"),
        ("PUT", "/v1/agent/token/nope", json!({ "Token": "x" }), 404, "Token \"nope\" is unknown"),
        ("GET", "/v1/acl/bootstrap", Value::Null, 405, "method GET not allowed"),
        ("POST", "/v1/acl/token/x", Value::Null, 405, "method POST not allowed"),
    ] {
        let answer = server.with_token(method, path, &root, &body.to_string()).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        assert!(answer.text().contains(text), "{method} {path} {body}: {}", answer.text());
    }
    assert_eq!(server.with_token("GET", "/v1/acl/tokens", &root, "").await.text(), before);
}

async fn fill(server: &TestServer, root: &str) {
    for (name, id, port) in [("web", "web-1", 81), ("web", "web-2", 82), ("secret-db", "db-1", 80)] {
        let body = json!({ "Name": name, "ID": id, "Address": "10.7.0.1", "Port": port, "Tags": ["a.b"] });
        let made = server.with_token("PUT", "/v1/agent/service/register", root, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
    let other = json!({ "Node": "other", "Address": "10.9.0.2", "Service": { "Service": "web", "ID": "web-3" },
        "Check": { "Name": "alive", "Status": "passing", "ServiceID": "web-3" } });
    let made = server.with_token("PUT", "/v1/catalog/register", root, &other.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
}

#[tokio::test]
async fn reads_show_only_what_the_token_may_see_and_say_so() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let rules = r#"service_prefix "" { policy = "read" } service_prefix "secret" { policy = "deny" } node "n1" { policy = "read" }"#;
    let token = server.token_with(&root, "some", rules).await;
    let read = async |path: &str, token: &str| server.with_token("GET", path, token, "").await;
    let names = |value: &Value, key: &str| {
        let all =
            value.as_array().unwrap().iter().map(|one| one[key].as_str().unwrap_or_default().to_owned());
        all.collect::<Vec<_>>()
    };
    for (path, key, some) in [
        ("/v1/catalog/nodes", "Node", vec!["n1"]),
        ("/v1/catalog/service/web", "ServiceID", vec!["web-1", "web-2"]),
        ("/v1/catalog/service/secret-db", "ServiceID", vec![]),
        ("/v1/health/checks/web", "CheckID", vec![]),
        ("/v1/health/node/other", "CheckID", vec![]),
    ] {
        let answer = read(path, &token).await;
        assert_eq!(names(&answer.json(), key), some, "{path}");
        assert_eq!(answer.header("x-consul-results-filtered-by-acls"), "true", "{path}");
        let all = read(path, &root).await;
        assert!(names(&all.json(), key).len() > some.len(), "{path}");
        assert_eq!(all.header("x-consul-results-filtered-by-acls"), "", "{path}");
        let none = read(path, "").await;
        assert_eq!((none.status, none.json()), (200, json!([])), "{path}");
        assert_eq!(none.header("x-consul-results-filtered-by-acls"), "", "nobody is told without a token");
    }
    let health = read("/v1/health/service/web", &token).await.json();
    assert_eq!(health.as_array().unwrap().len(), 2);
    let services = read("/v1/catalog/services", &token).await.json();
    assert!(services.get("web").is_some() && services.get("secret-db").is_none(), "{services}");
    assert_eq!(read("/v1/catalog/node/other", &token).await.json(), Value::Null);
    let own = read("/v1/catalog/node/n1", &token).await.text();
    assert!(own.contains("web-1") && !own.contains("secret"), "{own}");
    assert!(!read("/v1/health/state/any", &token).await.text().contains("secret"));
    let agent = read("/v1/agent/services", &token).await;
    assert!(agent.json().get("web-1").is_some() && agent.json().get("db-1").is_none());
    assert_eq!(agent.header("x-consul-results-filtered-by-acls"), "true");
    for path in ["/v1/agent/service/db-1", "/v1/agent/health/service/id/db-1"] {
        let (status, text) = (read(path, &token).await.status, read(path, &token).await.text());
        assert!(status == 404 && !text.contains("secret"), "{path}: {status} {text}");
    }
    let denied = read("/v1/agent/health/service/name/secret-db", &token).await;
    assert_eq!(denied.status, 403);
    let lacks = "lacks permission 'service:read' on \"secret-db\"";
    assert!(denied.text().contains(lacks), "{}", denied.text());
    // The three places of a token.
    for (path, headers) in [
        (format!("/v1/catalog/nodes?token={token}"), vec![("x-consul-token", "wrong")]),
        (
            "/v1/catalog/nodes".into(),
            vec![("x-consul-token", token.as_str()), ("authorization", "Bearer wrong")],
        ),
        ("/v1/catalog/nodes".into(), vec![("authorization", &*format!("bearer {token}"))]),
    ] {
        let answer = request(server.http(), "GET", &path, &headers, "").await;
        assert_eq!(names(&answer.json(), "Node"), ["n1"], "{path} {headers:?}");
    }
}

#[tokio::test]
async fn a_blocking_query_ends_when_its_token_is_taken_away() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let rules = r#"service "web" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let token = server.token_with(&root, "w", rules).await;
    let own = server.with_token("GET", "/v1/acl/token/self", &token, "").await.json();
    let index = server.with_token("GET", "/v1/health/service/web", &token, "").await.index();
    let waits = format!("/v1/health/service/web?index={index}&wait=20s");
    let change = async {
        while server.running.registry().watchers() == 0 {
            tokio::task::yield_now().await;
        }
        let path = format!("/v1/acl/token/{}", own["AccessorID"].as_str().unwrap());
        assert_eq!(server.with_token("DELETE", &path, &root, "").await.status, 200);
        server.with_token("PUT", "/v1/agent/service/deregister/web-2", &root, "").await
    };
    let (answer, changed) = tokio::join!(server.with_token("GET", &waits, &token, ""), change);
    assert_eq!((changed.status, answer.status, answer.text().as_str()), (200, 403, "ACL not found"));
}

#[tokio::test]
async fn an_identity_registers_its_own_and_finds_the_others() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let made = json!({ "ServiceIdentities": [{ "ServiceName": "api" }, { "ServiceName": "far", "Datacenters": ["dc2"] }] });
    let token = server.with_token("PUT", "/v1/acl/token", &root, &made.to_string()).await.json();
    let token = token["SecretID"].as_str().unwrap();
    let register = async |name: &str| {
        let body = json!({ "Name": name }).to_string();
        server.with_token("PUT", "/v1/agent/service/register", token, &body).await.status
    };
    assert_eq!((register("api").await, register("far").await, register("web").await), (200, 403, 403));
    let found = server.with_token("GET", "/v1/health/service/web", token, "").await.json();
    assert_eq!(found.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_anonymous_token_and_the_default_token_are_those_of_requests_without_one() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let seen = async || server.get("/v1/health/service/web").await.json().as_array().unwrap().len();
    assert_eq!(seen().await, 0);
    server
        .token_with(&root, "see", r#"service "web" { policy = "read" } node_prefix "" { policy = "read" }"#)
        .await;
    let anonymous = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
    let set = server
        .with_token("PUT", anonymous, &root, &json!({ "Policies": [{ "Name": "see" }] }).to_string())
        .await;
    assert_eq!((set.status, seen().await), (200, 3));
    let nothing = server.token_with(&root, "nothing", "").await;
    let set = json!({ "Token": nothing }).to_string();
    assert_eq!(server.with_token("PUT", "/v1/agent/token/default", "", &set).await.status, 403);
    assert_eq!(server.with_token("PUT", "/v1/agent/token/default", &root, &set).await.status, 200);
    assert_eq!(seen().await, 0);
    assert_eq!(
        server.with_token("PUT", "/v1/agent/token/default", &root, r#"{"Token":""}"#).await.status,
        200
    );
    assert_eq!(seen().await, 3);
}

/// One question in all the ways it can be asked: UDP's fast path, the general path by an odd EDNS version or option, TCP.
async fn all_ways(server: &TestServer, name: &str, kind: RecordType) -> Vec<(ResponseCode, usize)> {
    let plain = query(name, kind);
    let mut with_edns = query(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    with_edns.edns = Some(edns.clone());
    let mut checked = query(name, kind);
    checked.metadata.checking_disabled = true;
    edns.set_dnssec_ok(true);
    checked.edns = Some(edns);
    let mut answers: Vec<Message> = Vec::new();
    for message in [&plain, &with_edns, &checked] {
        answers.push(ask(server.dns(), message).await);
        answers.push(ask_tcp(server.dns(), message).await);
    }
    answers.iter().map(|answer| (answer.metadata.response_code, answer.answers.len())).collect()
}

#[tokio::test]
async fn dns_shows_what_its_token_may_see_by_every_path() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let same = |answers: Vec<(ResponseCode, usize)>| {
        assert!(answers.iter().all(|one| *one == answers[0]), "{answers:?}");
        answers[0]
    };
    let names = [
        ("web.service.internal.", RecordType::SRV),
        ("web.service.internal.", RecordType::A),
        ("a.b.web.service.consul.", RecordType::A),
        ("secret-db.service.internal.", RecordType::SRV),
        ("n1.node.internal.", RecordType::A),
        ("other.node.internal.", RecordType::A),
        ("b.web.service.internal.", RecordType::A),
    ];
    let ask_all = async || {
        let mut found = Vec::new();
        for (name, kind) in names {
            let (code, count) = same(all_ways(&server, name, kind).await);
            found.push(if code == ResponseCode::NoError { Some(count) } else { None });
        }
        found
    };
    assert_eq!(ask_all().await, [None; 7], "nothing may be seen: nothing is there");
    let reverse = same(all_ways(&server, "1.0.7.10.in-addr.arpa.", RecordType::PTR).await);
    assert_eq!(reverse, (ResponseCode::Refused, 0));
    let set = async |token: &str| {
        let body = json!({ "Token": token }).to_string();
        let set = server.with_token("PUT", "/v1/agent/token/dns", &root, &body).await;
        assert_eq!(set.status, 200, "{}", set.text());
    };
    set(&root).await;
    let all = [Some(3), Some(2), Some(1), Some(1), Some(1), Some(1), Some(0)];
    assert_eq!(ask_all().await, all);
    let rules = r#"service_prefix "" { policy = "read" } service "secret-db" { policy = "deny" } node "n1" { policy = "read" }"#;
    let some = server.token_with(&root, "dns", rules).await;
    set(&some).await;
    assert_eq!(ask_all().await, [Some(2), Some(1), Some(1), None, Some(1), None, Some(0)]);
    let (code, count) = same(all_ways(&server, "1.0.7.10.in-addr.arpa.", RecordType::PTR).await);
    assert_eq!((code, count), (ResponseCode::NoError, 1), "one of the two services has a name for it");
    // A change of the policy is seen at once, through what the fast path has kept.
    let policy = server.with_token("GET", "/v1/acl/policy/name/dns", &root, "").await.json();
    let body = json!({ "Name": "dns", "Rules": "" }).to_string();
    let path = format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap());
    assert_eq!(server.with_token("PUT", &path, &root, &body).await.status, 200);
    assert_eq!(ask_all().await, [None; 7]);
    set("a token that nobody has").await;
    assert_eq!(ask_all().await, [None; 7]);
    set("").await;
    let fast = server.with_token("GET", "/metrics", &root, "").await.text();
    let taken =
        |path: &str| crate::server::metric(&fast, &format!("rollcall_dns_answers_total{{path=\"{path}\"}}"));
    assert!(taken("fast") > 20.0 && taken("general") > 20.0, "{fast}");
}

#[tokio::test]
async fn a_token_ends_at_its_time() {
    let (server, root) = controlled(false).await;
    let made =
        json!({ "ExpirationTTL": "1500ms", "Policies": [{ "Name": "global-management" }] }).to_string();
    let made = server.with_token("PUT", "/v1/acl/token", &root, &made).await.json();
    assert!(made["ExpirationTime"].as_str().unwrap().ends_with('Z'), "{made}");
    let secret = made["SecretID"].as_str().unwrap();
    assert_eq!(server.with_token("GET", "/v1/agent/self", secret, "").await.status, 200);
    let gone = async {
        let path = format!("/v1/acl/token/{}", made["AccessorID"].as_str().unwrap());
        while server.with_token("GET", &path, &root, "").await.status == 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The record is taken away, too.
        while server.running.registry().snapshot().acl().tokens().len() > 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::server::PATIENCE, gone).await.unwrap();
    let answer = server.with_token("GET", "/v1/agent/self", secret, "").await;
    assert_eq!((answer.status, answer.text().as_str()), (403, "ACL not found"));
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let (server, root) = controlled(false).await;
    let token = server.token_with(&root, "p", "operator = \"read\"").await;
    let lists = ["/v1/acl/tokens", "/v1/acl/policies", "/v1/acl/roles"];
    let read = async |server: &TestServer| {
        let mut all = Vec::new();
        for path in lists {
            all.push(server.with_token("GET", path, &root, "").await.json());
        }
        all
    };
    let set =
        server.with_token("PUT", "/v1/agent/token/dns", &root, &json!({ "Token": root }).to_string()).await;
    assert_eq!(set.status, 200);
    fill(&server, &root).await;
    let before = read(&server).await;
    let TestServer { running, dir } = server;
    running.stop().await;
    let mut same = config(&dir);
    control(&mut same, false);
    let server = TestServer { running: rollcall::start(same).await.unwrap(), dir };
    assert_eq!(read(&server).await, before);
    assert_eq!(server.put("/v1/acl/bootstrap", "").await.status, 403);
    let own = server.with_token("GET", "/v1/acl/token/self", &token, "").await.json();
    assert_eq!(own["Policies"][0]["Name"], "p");
    assert_eq!(server.ask("web.service.internal.", RecordType::A).await.answers.len(), 2);
}

#[tokio::test]
async fn default_allow_lets_all_but_the_acl() {
    let (server, root) = controlled(true).await;
    fill(&server, &root).await;
    assert_eq!(server.get("/v1/health/service/web").await.json().as_array().unwrap().len(), 3);
    assert_eq!(server.put("/v1/agent/service/register", json!({ "Name": "x" })).await.status, 200);
    let acl = server.get("/v1/acl/tokens").await;
    assert!(acl.status == 403 && acl.text().starts_with(NOBODY), "{}", acl.text());
    let denied = server.token_with(&root, "no", r#"service_prefix "" { policy = "deny" }"#).await;
    let answer = server.with_token("PUT", "/v1/agent/service/register", &denied, r#"{"Name":"y"}"#).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn tokens_that_nobody_has_cost_little_and_are_counted() {
    let (server, root) = controlled(false).await;
    for i in 0..500 {
        let answer = server.with_token("GET", "/v1/catalog/nodes", &format!("wrong-{i}"), "").await;
        assert_eq!((answer.status, answer.text().as_str()), (403, "ACL not found"));
    }
    let long = server.with_token("GET", "/v1/catalog/nodes", &"x".repeat(10_000), "").await;
    assert_eq!((long.status, long.text().as_str()), (403, "ACL not found"));
    // A megabyte is not even read.
    let stream = tokio::net::TcpStream::connect(server.http()).await.unwrap();
    let head = format!(
        "GET /v1/catalog/nodes HTTP/1.1\r\nHost: localhost\r\nX-Consul-Token: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let answer = raw(stream, &head).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{}", &answer[..80.min(answer.len())]);
    let metrics = server.with_token("GET", "/metrics", &root, "").await.text();
    let counted = |kind: &str| {
        let line = format!("rollcall_http_refused_total{{reason=\"{kind}\"}} ");
        metrics.lines().find_map(|l| l.strip_prefix(&line)?.parse::<f64>().ok())
    };
    assert_eq!((counted("unknown token"), counted("token too long")), (Some(500.0), Some(1.0)), "{metrics}");
}

#[tokio::test]
async fn no_secret_is_logged_shown_in_metrics_or_lies_open() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rollcall.toml");
    std::fs::write(
        &file,
        "[acl]\nenabled = true\ndefault_policy = \"deny\"\ninitial_management = \"initial-7f3a\"\n",
    )
    .unwrap();
    let data = dir.path().join("data");
    let words = [
        "--config",
        file.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
        "--log-level",
        "trace",
        "--dns",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--node",
        "n1",
    ];
    let (daemon, mut errors) = Daemon::with_errors(&words);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        text
    });
    let http = daemon.http[0];
    let with = async |method: &str, path: &str, body: &str| {
        request(http, method, path, &[("x-consul-token", "initial-7f3a")], body).await
    };
    let made = with("PUT", "/v1/acl/token", r#"{"Policies":[{"Name":"global-management"}]}"#).await.json();
    let secret = made["SecretID"].as_str().unwrap();
    let set = with("PUT", "/v1/agent/token/dns", &json!({ "Token": secret }).to_string()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    // A prepared query that holds a token: made, carried out, listed by somebody else, refused.
    let held = with("PUT", "/v1/acl/token", r#"{"Policies":[{"Name":"global-management"}]}"#).await.json();
    let held = held["SecretID"].as_str().unwrap();
    let prepared = json!({ "Name": "q", "Token": held, "Service": { "Service": "web" } });
    let made = with("POST", "/v1/query", &prepared.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(with("POST", "/v1/query", &prepared.to_string()).await.status, 500, "the name is taken");
    assert_eq!(with("GET", "/v1/query/q/execute", "").await.status, 200);
    let found = ask(daemon.dns[0], &query("q.query.internal.", RecordType::A)).await;
    assert_eq!(found.metadata.response_code, ResponseCode::NoError);
    let asked = request(http, "GET", &format!("/v1/catalog/nodes?token={secret}"), &[], "").await;
    assert_eq!(asked.status, 200);
    let wrong = request(
        http,
        "GET",
        "/v1/catalog/nodes?token=wrong-51cc",
        &[("authorization", "Bearer wrong-51cc")],
        "",
    )
    .await;
    assert_eq!(wrong.status, 403);
    let metrics = with("GET", "/metrics", "").await.text();
    daemon.signal(Signal::SIGHUP);
    let ended = daemon.end(Signal::SIGTERM);
    assert!(ended.success(), "{ended}");
    let log = reader.join().unwrap();
    assert!(log.contains(r#""log.level":"debug""#), "it is a log of everything: {log}");
    for shown in [secret, held, "initial-7f3a", "wrong-51cc"] {
        assert!(!log.contains(shown), "{}", log.lines().find(|line| line.contains(shown)).unwrap());
        assert!(!metrics.contains(shown));
    }
}
