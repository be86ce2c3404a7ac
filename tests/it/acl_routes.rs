//! Every route and what it needs: none is forgotten, and each refuses those whom it should.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rollcall::acl::Access::Read;
use rollcall::http::{NEEDS, Need};
use serde_json::json;

use crate::acl::{Asks, controlled};

/// The files of the API, by their names below `src/http`, and what is in them.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut folders = vec![root.clone(), root.with_extension("rs")];
    let mut found = Vec::new();
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            folders.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.strip_prefix(&root).unwrap_or(&path).to_str().unwrap().to_owned();
        found.push((name, fs::read_to_string(path).unwrap()));
    }
    found
}

/// All routes as they stand in the code.
fn routes() -> Vec<String> {
    let mut found = Vec::new();
    for (_, text) in sources() {
        for rest in text.split(".route(").skip(1) {
            let Some(rest) = rest.trim_start().strip_prefix('"') else { continue };
            found.push(rest.split('"').next().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn every_route_says_what_it_needs() {
    let routes = routes();
    assert!(routes.len() > 60, "the routes are found: {}", routes.len());
    let silent: Vec<_> =
        routes.iter().filter(|route| NEEDS.iter().all(|(known, ..)| known != route)).collect();
    assert!(silent.is_empty(), "give them a line in NEEDS of src/http/door/admission.rs: {silent:#?}");
}

/// What goes to the registry without a view is what its route has judged already, or whoever has no token yet does.
#[test]
fn the_rest_is_submitted_with_the_view_of_whoever_asks() {
    const JUDGED: [&str; 6] = [
        "acl.rs",
        "acl/own.rs",
        "acl/token.rs",
        "agent/control.rs",
        "door/admission.rs",
        "faces/import/carry.rs",
    ];
    let mut submit: Vec<_> =
        sources().into_iter().filter(|(_, text)| text.contains("registry.submit")).collect();
    submit.sort();
    let files: Vec<_> = submit.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, JUDGED, "Admitted::submit asks whether somebody may");
}

/// A path that the route takes.
fn path(route: &str) -> String {
    let id = "11111111-1111-4111-8111-111111111111";
    let fixed = route.split('{').next().unwrap();
    match route.contains('{') {
        false => route.to_owned(),
        true if route.contains("token/{name}") => format!("{fixed}agent"),
        true if route.starts_with("/v1/acl") => format!("{fixed}{id}"),
        true if route.contains("state") => format!("{fixed}any"),
        true => format!("{fixed}nothing"),
    }
}

/// Which of the four tokens may: anonymous, all read, all written but the ACL, management.
fn may(need: Need) -> [bool; 4] {
    match need {
        Need::Open | Need::Known | Need::Never => [true; 4],
        Need::Agent(Read) | Need::Operator(Read) => [false, true, true, true],
        Need::Agent(_) | Need::Operator(_) => [false, false, true, true],
        Need::Acl(Read) => [false, true, false, true],
        Need::Acl(_) => [false, false, false, true],
    }
}

#[tokio::test]
async fn each_route_refuses_whom_it_should() {
    let (server, management) = controlled(false).await;
    let writer = r#"agent_prefix "" { policy = "write" } node_prefix "" { policy = "write" }
        service_prefix "" { policy = "write" } query_prefix "" { policy = "write" } operator = "write""#;
    let reads = writer.replace("write", "read") + " acl = \"read\"";
    let reader = server.token_with(&management, "all-read", &reads).await;
    let writer = server.token_with(&management, "all-write", writer).await;
    let (mut asked, served) = (BTreeMap::new(), routes());
    for (route, read, write) in NEEDS {
        let written = match *route {
            route if route.starts_with("/v1/acl/log") => "POST",
            _ => "PUT",
        };
        for (method, need) in [("GET", *read), (written, *write)] {
            // These have an effect on the whole server, or on the tokens of this test.
            let ends = [
                "/v1/agent/leave",
                "/v1/agent/reload",
                "/v1/acl/logout",
                "/v1/agent/monitor",
                "/v1/agent/metrics/stream",
                "/v1/rollcall/events",
            ];
            let there = served.iter().any(|served| served == route);
            if need == Need::Never || ends.contains(route) || !there {
                continue;
            }
            let tokens = ["", &reader, &writer, &management];
            for (token, may) in tokens.into_iter().zip(may(need)) {
                let answer = server.with_token(method, &path(route), token, "{}").await;
                let refused = answer.status == 403 && answer.text().contains("lacks permission");
                // What is read is filtered, and what is written is asked for in the handler: the next tests.
                let by_handler = matches!(need, Need::Known);
                assert!(
                    by_handler || refused != may,
                    "{method} {route} {need:?}: {} {}",
                    answer.status,
                    answer.text()
                );
                assert!(answer.status < 500 || answer.status == 500 && !answer.text().contains("panic"));
            }
            let unknown = server.with_token(method, &path(route), "no such token", "{}").await;
            let refused = (unknown.status, unknown.text().as_str()) == (403, "ACL not found");
            assert_eq!(refused, need != Need::Open, "{method} {route}: {}", unknown.text());
            *asked.entry(format!("{need:?}")).or_insert(0) += 1;
        }
    }
    assert!(asked.len() >= 6, "{asked:?}");
}

/// What a route that needs a token of some kind does with one that may not: nothing, and it says so in Consul's words.
#[tokio::test]
async fn each_write_asks_for_what_it_is_about() {
    let (server, management) = controlled(false).await;
    let registered = json!({ "Name": "web", "ID": "web-1", "Check": { "TTL": "1h", "CheckID": "c" } });
    let answer =
        server.with_token("PUT", "/v1/agent/service/register", &management, &registered.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let node_check = json!({ "Name": "n", "ID": "n", "TTL": "1h" }).to_string();
    let answer = server.with_token("PUT", "/v1/agent/check/register", &management, &node_check).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let other = r#"service "db" { policy = "write" } service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let other = server.token_with(&management, "other", other).await;
    let before = server.registry_as_json(&management).await;
    let (web, n1) = ("'service:write' on \"web\"", "'node:write' on \"n1\"");
    let takes_over = json!({ "Name": "db", "ID": "web-1" }).to_string();
    let check = |service: &str| json!({ "Name": "x", "TTL": "1h", "ServiceID": service }).to_string();
    let catalog = |node: &str, service: &str| {
        json!({ "Node": node, "Address": "10.0.0.9", "Service": { "Service": service, "ID": "web-1" } })
            .to_string()
    };
    for (path, body, lacks) in [
        ("/v1/agent/service/register", json!({ "Name": "web" }).to_string(), web),
        ("/v1/agent/service/register", takes_over, web),
        ("/v1/agent/service/deregister/web-1", String::new(), web),
        ("/v1/agent/service/maintenance/web-1?enable=true", String::new(), web),
        ("/v1/agent/maintenance?enable=true", String::new(), n1),
        ("/v1/agent/check/register", check("web-1"), web),
        ("/v1/agent/check/register", check(""), n1),
        ("/v1/agent/check/register", json!({ "ID": "c", "Name": "c", "TTL": "1s" }).to_string(), n1),
        ("/v1/agent/check/deregister/c", String::new(), web),
        ("/v1/agent/check/deregister/n", String::new(), n1),
        ("/v1/agent/check/pass/c", String::new(), web),
        ("/v1/agent/check/warn/n", String::new(), n1),
        ("/v1/agent/check/fail/c", String::new(), web),
        ("/v1/agent/check/update/c", json!({ "Status": "passing" }).to_string(), web),
        ("/v1/catalog/register", catalog("n2", "db"), "'node:write' on \"n2\""),
        ("/v1/catalog/deregister", json!({ "Node": "n1", "ServiceID": "web-1" }).to_string(), web),
        ("/v1/catalog/deregister", json!({ "Node": "n1", "CheckID": "c" }).to_string(), web),
        ("/v1/catalog/deregister", json!({ "Node": "n1", "CheckID": "n" }).to_string(), n1),
        ("/v1/catalog/deregister", json!({ "Node": "n1" }).to_string(), n1),
        ("/v1/rollcall/route/web", json!({ "Subsets": ["blue=1"] }).to_string(), web),
        ("/v1/rollcall/drain/web-1", String::new(), web),
        ("/v1/rollcall/drain/web-1?deregister", String::new(), web),
    ] {
        for token in [other.as_str(), ""] {
            let answer = server.with_token("PUT", path, token, &body).await;
            let (status, text) = (answer.status, answer.text());
            // Whoever may not even read what an id names is not told that it is there.
            let by_id = body == check("web-1")
                || ["/c", "/n", "/web-1"].iter().any(|id| path.split('?').next().unwrap().ends_with(id));
            if token.is_empty() && by_id {
                assert_eq!(status, 404, "{path}: {text}");
                continue;
            }
            assert!(
                status == 403 && text.starts_with("Permission denied: ") && text.contains("lacks"),
                "{path}: {status} {text}"
            );
            assert!(token.is_empty() || text.contains(lacks), "{path}: {text}");
        }
    }
    assert_eq!(server.registry_as_json(&management).await, before, "nothing was changed");
    let own = json!({ "Name": "DB", "ID": "db-1", "Check": { "TTL": "1h" } }).to_string();
    for (path, body) in [
        ("/v1/agent/service/register", own.as_str()),
        ("/v1/agent/check/pass/service:db-1", ""),
        ("/v1/agent/service/maintenance/db-1?enable=true", ""),
        ("/v1/rollcall/drain/db-1", ""),
        ("/v1/agent/service/deregister/db-1", ""),
    ] {
        let answer = server.with_token("PUT", path, &other, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
}
