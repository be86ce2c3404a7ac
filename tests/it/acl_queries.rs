//! Prepared queries while access is controlled, over the real sockets.

use std::collections::BTreeSet;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::acl::{Asks, controlled};
use crate::server::{Answer, TestServer, ask, ask_tcp, query};

/// Sees all that is registered, and no query.
const SEES_ALL: &str = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
/// Sees `web` on `n1` alone.
const SEES_ONE: &str = r#"service "web" { policy = "read" } node "n1" { policy = "read" }"#;

/// Two instances of `web` on two nodes.
async fn fill(server: &TestServer, root: &str) {
    for (node, at) in [("n1", 1), ("other", 2)] {
        let body = json!({ "Node": node, "Address": format!("10.9.0.{at}"),
            "Service": { "Service": "web", "ID": format!("web-{at}"), "Port": 80, "Address": format!("10.7.0.{at}") } });
        let made = server.with_token("PUT", "/v1/catalog/register", root, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
}

fn definition(name: &str, token: &str) -> Value {
    json!({ "Name": name, "Token": token, "Service": { "Service": "web" } })
}

/// Makes a query; its path.
async fn prepare(server: &TestServer, by: &str, definition: &Value) -> String {
    let made = server.with_token("POST", "/v1/query", by, &definition.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    format!("/v1/query/{}", made.json()["ID"].as_str().unwrap())
}

async fn listed(server: &TestServer, token: &str) -> (BTreeSet<String>, String) {
    let answer = server.with_token("GET", "/v1/query", token, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    let names = told.as_array().unwrap().iter().map(|query| query["Name"].as_str().unwrap().to_owned());
    (names.collect(), answer.header("x-consul-results-filtered-by-acls").to_owned())
}

fn refused(answer: &Answer, lacks: &str) {
    let (status, text) = (answer.status, answer.text());
    assert!(status == 403 && text.starts_with("Permission denied: "), "{status} {text}");
    assert!(text.contains(lacks), "{text}");
}

/// What the execution of a query finds, by the ids of instances.
async fn executed(server: &TestServer, name: &str, token: &str) -> BTreeSet<String> {
    let answer = server.with_token("GET", &format!("/v1/query/{name}/execute"), token, "").await;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    let told = answer.json();
    let nodes = told["Nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["Service"]["ID"].as_str().unwrap().to_owned()).collect()
}

/// What DNS finds, over UDP and TCP the same.
async fn asked(server: &TestServer, name: &str, kind: RecordType) -> (ResponseCode, usize) {
    let question = query(name, kind);
    let answers =
        [ask(server.dns(), &question).await, ask_tcp(server.dns(), &question).await].map(|answer| {
            let addresses: BTreeSet<_> =
                answer.answers.iter().map(|record| record.data.to_string()).collect();
            (answer.metadata.response_code, addresses)
        });
    assert_eq!(answers[0], answers[1], "{name}");
    (answers[0].0, answers[0].1.len())
}

async fn set_dns_token(server: &TestServer, root: &str, token: &str) {
    let body = json!({ "Token": token }).to_string();
    let set = server.with_token("PUT", "/v1/agent/token/dns", root, &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn queries_are_made_read_and_removed_by_those_who_may_write_their_names() {
    let (server, root) = controlled(false).await;
    let owner = server.token_with(&root, "owner", r#"query_prefix "geo-" { policy = "write" }"#).await;
    let reader = server.token_with(&root, "reader", r#"query_prefix "geo-" { policy = "read" }"#).await;
    let ask = async |method: &str, path: &str, token: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        server.with_token(method, path, token, &body).await
    };
    let (geo, other) = (definition("geo-web", ""), definition("other-web", ""));
    for (token, body, lacks) in [
        ("", &geo, "anonymous token lacks permission 'query:write' on \"geo-web\""),
        (&*reader, &geo, "lacks permission 'query:write' on \"geo-web\""),
        (&owner, &other, "lacks permission 'query:write' on \"other-web\""),
    ] {
        refused(&ask("POST", "/v1/query", token, body).await, lacks);
    }
    // The template of all names is guarded by the empty one.
    let catch_all =
        json!({ "Template": { "Type": "name_prefix_match" }, "Service": { "Service": "${name.full}" } });
    refused(&ask("POST", "/v1/query", &owner, &catch_all).await, "lacks permission 'query:write'");
    assert_eq!(ask("GET", "/v1/query", &root, &Value::Null).await.json(), json!([]), "nothing was made");

    let path = prepare(&server, &owner, &geo).await;
    let foreign = prepare(&server, &root, &other).await;
    assert_eq!(listed(&server, &root).await, (set(&["geo-web", "other-web"]), String::new()));
    for token in [&owner, &reader] {
        assert_eq!(listed(&server, token).await, (set(&["geo-web"]), "true".to_owned()));
        assert_eq!(ask("GET", &path, token, &Value::Null).await.json()[0]["Name"], "geo-web");
        for path in [&foreign, &format!("{foreign}/explain")] {
            refused(&ask("GET", path, token, &Value::Null).await, "'query:read' on \"other-web\"");
        }
    }
    assert_eq!(listed(&server, "").await, (set(&[]), String::new()), "nobody is told without a token");
    refused(&ask("GET", &path, "", &Value::Null).await, "'query:read' on \"geo-web\"");

    // To change one is to write both the name that it has and the one that it gets.
    for (path, token, body, lacks) in [
        (&path, &*reader, &geo, "'query:write' on \"geo-web\""),
        (&path, "", &geo, "'query:write' on \"geo-web\""),
        (&path, &owner, &other, "'query:write' on \"other-web\""),
        (&foreign, &owner, &geo, "'query:write' on \"other-web\""),
    ] {
        refused(&ask("PUT", path, token, body).await, lacks);
    }
    for (path, token, lacks) in
        [(&path, &*reader, "geo-web"), (&path, "", "geo-web"), (&foreign, &owner, "other-web")]
    {
        refused(&ask("DELETE", path, token, &Value::Null).await, &format!("'query:write' on \"{lacks}\""));
    }
    assert_eq!(listed(&server, &root).await.0, set(&["geo-web", "other-web"]), "nothing was changed");
    let renamed = ask("PUT", &path, &owner, &definition("geo-db", "")).await;
    assert_eq!(renamed.status, 200, "{}", renamed.text());
    assert_eq!(listed(&server, &owner).await.0, set(&["geo-db"]));
    let removed = ask("DELETE", &path, &owner, &Value::Null).await;
    assert_eq!(removed.status, 200, "{}", removed.text());
    assert_eq!(listed(&server, &root).await.0, set(&["other-web"]));
}

#[tokio::test]
async fn the_token_of_a_query_is_shown_to_management_alone_and_never_written_back_hidden() {
    let (server, root) = controlled(false).await;
    let held = server.token_with(&root, "held", SEES_ALL).await;
    let owner = server.token_with(&root, "owner", r#"query_prefix "" { policy = "write" }"#).await;
    let path = prepare(&server, &root, &definition("q", &held)).await;
    prepare(&server, &root, &definition("without", "")).await;
    let shown = async |path: &str, token: &str| server.with_token("GET", path, token, "").await;
    for path in [path.as_str(), "/v1/query", "/v1/query/q/explain"] {
        let whole = shown(path, &root).await.text();
        assert!(whole.contains(&held) && !whole.contains("<hidden>"), "{path}: {whole}");
        let seen = shown(path, &owner).await;
        assert!(seen.status == 200 && !seen.text().contains(&held), "{path}: {}", seen.text());
        assert_eq!(seen.text().matches("<hidden>").count(), 1, "{path}: one has none to hide");
        let nobody = shown(path, "").await;
        assert!(!nobody.text().contains(&held), "{path}");
    }
    let executed = shown("/v1/query/q/execute", &owner).await;
    assert!(executed.status == 200 && !executed.text().contains(&held), "{}", executed.text());
    let back = definition("q", "<hidden>").to_string();
    let text = "Invalid prepared query: Bad Token '<hidden>', it looks like a query definition with a redacted token was submitted";
    for (method, path) in [("POST", "/v1/query"), ("PUT", path.as_str())] {
        let answer = server.with_token(method, path, &owner, &back).await;
        assert_eq!((answer.status, answer.text().as_str()), (500, text), "{method}");
    }
    assert_eq!(shown(&path, &root).await.json()[0]["Token"], held.as_str(), "it is still held");
}

#[tokio::test]
async fn an_execution_shows_what_the_query_s_token_may_see_else_the_asker_s() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let all = server.token_with(&root, "all", SEES_ALL).await;
    let one = server.token_with(&root, "one", SEES_ONE).await;
    let none = server.token_with(&root, "none", "").await;
    for (name, token) in
        [("plain", ""), ("all", &all), ("one", &one), ("none", &none), ("gone", "nobody has it")]
    {
        prepare(&server, &root, &definition(name, token)).await;
    }
    let (both, first) = (set(&["web-1", "web-2"]), set(&["web-1"]));
    for (token, plain) in [
        ("", set(&[])),
        (&none, set(&[])),
        (&one, first.clone()),
        (&all, both.clone()),
        (&root, both.clone()),
    ] {
        for (name, expected) in
            [("plain", &plain), ("all", &both), ("one", &first), ("none", &set(&[])), ("gone", &set(&[]))]
        {
            assert_eq!(executed(&server, name, token).await, *expected, "{name}");
        }
    }
    let unknown = server.with_token("GET", "/v1/query/all/execute", "no such token", "").await;
    assert_eq!((unknown.status, unknown.text().as_str()), (403, "ACL not found"));
}

#[tokio::test]
async fn in_dns_the_token_of_a_query_counts_and_only_for_the_query() {
    let (server, root) = controlled(false).await;
    fill(&server, &root).await;
    let all = server.token_with(&root, "all", SEES_ALL).await;
    let one = server.token_with(&root, "one", SEES_ONE).await;
    for (name, token) in [("plain", ""), ("all", &all), ("one", &one), ("gone", "nobody has it")] {
        prepare(&server, &root, &definition(name, token)).await;
    }
    let template = json!({ "Name": "t-", "Token": all, "Template": { "Type": "name_prefix_match" },
        "Service": { "Service": "${name.suffix}" } });
    prepare(&server, &root, &template).await;
    let found = async || {
        let mut found = Vec::new();
        for name in ["plain", "all", "one", "gone", "t-web"] {
            let a = asked(&server, &format!("{name}.query.internal."), RecordType::A).await;
            let srv = asked(&server, &format!("{name}.query.dc1.consul."), RecordType::SRV).await;
            assert_eq!(a, srv, "{name}");
            assert_eq!(a.0, ResponseCode::NoError, "{name}: the query exists");
            found.push(a.1);
        }
        found
    };
    let web = async || asked(&server, "web.service.internal.", RecordType::A).await;
    let no = (ResponseCode::NXDomain, 0);
    assert_eq!((found().await, web().await), (vec![0, 2, 1, 0, 2], no), "DNS itself may see nothing");
    set_dns_token(&server, &root, &one).await;
    assert_eq!((found().await, web().await), (vec![1, 2, 1, 0, 2], (ResponseCode::NoError, 1)));
    set_dns_token(&server, &root, &root).await;
    assert_eq!((found().await, web().await), (vec![2, 2, 1, 0, 2], (ResponseCode::NoError, 2)));
    // Taken away, a token shows nothing from then on; a query without one is not touched.
    let own = server.with_token("GET", "/v1/acl/token/self", &all, "").await.json();
    let path = format!("/v1/acl/token/{}", own["AccessorID"].as_str().unwrap());
    assert_eq!(server.with_token("DELETE", &path, &root, "").await.status, 200);
    assert_eq!((found().await, web().await), (vec![2, 0, 1, 0, 0], (ResponseCode::NoError, 2)));
}

#[tokio::test]
async fn without_access_control_the_token_of_a_query_changes_nothing() {
    let server = TestServer::start().await;
    fill(&server, "").await;
    prepare(&server, "", &definition("q", "whatever")).await;
    assert_eq!(executed(&server, "q", "").await, set(&["web-1", "web-2"]));
    assert_eq!(asked(&server, "q.query.internal.", RecordType::A).await, (ResponseCode::NoError, 2));
    let read = server.get("/v1/query").await.json();
    assert_eq!(read[0]["Token"], "whatever");
}
