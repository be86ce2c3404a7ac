//! The OpenAPI document against the router, the committed copy, and the page that says what of Consul's API is served.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::daemon::run;
use crate::server::{TestServer, request};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Methods by path, in capital letters.
fn described(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .map(|(path, methods)| {
            (path.clone(), methods.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect())
        })
        .collect()
}

#[tokio::test]
async fn the_committed_document_is_what_the_program_prints_and_serves() {
    let output = run(&["openapi"]);
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    let kept = fs::read_to_string(root().join("docs/openapi.json")).unwrap();
    assert!(kept == printed, "print it anew: rollcall openapi > docs/openapi.json");
    let server = TestServer::start().await;
    let served = server.get("/v1/rollcall/openapi.json").await;
    assert_eq!(served.header("content-type"), "application/json");
    assert_eq!(served.json(), serde_json::from_str::<Value>(&printed).unwrap());
}

/// The router says by OPTIONS which methods a path has.
#[tokio::test]
async fn every_operation_of_the_document_is_a_route_with_these_methods() {
    let server = TestServer::start().await;
    let (document, routes) = (described(&rollcall::openapi()), routes());
    assert!(document.len() > 40, "{}", document.len());
    for (path, methods) in document {
        let asked = path.replace(['{', '}'], "x");
        let answer = request(server.http(), "OPTIONS", &asked, &[], "").await;
        assert_eq!(answer.status, 200, "{path} is no route");
        let allowed: BTreeSet<String> = answer.header("allow").split(',').map(str::to_owned).collect();
        let expected: BTreeSet<String> = methods.into_iter().chain(["OPTIONS".to_owned()]).collect();
        // Some paths share a route, whose methods are then more than theirs.
        let own = routes.contains(&starred(&path));
        assert!(
            allowed == expected || !own && allowed.is_superset(&expected),
            "{path}: {allowed:?}, {expected:?}"
        );
    }
}

/// Every route of the sources, with `*` for what is the client's.
fn routes() -> BTreeSet<String> {
    let mut folders = vec![root().join("src/http")];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let code = fs::read_to_string(path).unwrap();
            let code = code.split("#[cfg(test)]\nmod tests").next().unwrap();
            for rest in code.split(".route(").skip(1) {
                let rest = rest.trim_start().strip_prefix('"').expect("a route is a literal");
                found.insert(starred(rest.split('"').next().unwrap()));
            }
        }
    }
    found
}

fn starred(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "*" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_is_in_the_document() {
    let document: BTreeSet<String> =
        described(&rollcall::openapi()).keys().map(|path| starred(path)).collect();
    let routes = routes();
    assert!(routes.len() > 40);
    for route in &routes {
        // The same with an empty name, which is answered by the same handler.
        let whole = if route.ends_with('/') { format!("{route}*") } else { route.clone() };
        assert!(document.contains(&whole), "{route} is not in src/http/openapi");
    }
}

/// One row of a table in docs/consul-api.md: its cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// Whether a client's calls, a line each with its User-Agent, method, path and query, have one of this method and path.
fn is_called(calls: &str, method: &str, path: &str) -> bool {
    calls.lines().any(|line| {
        let mut words = line.split(' ').skip_while(|word| *word != method);
        let called = words.nth(1).unwrap_or("").trim_end_matches('/');
        match path.split_once('{') {
            Some((fixed, _)) => called.strip_prefix(fixed).is_some_and(|rest| !rest.is_empty()),
            None => called == path,
        }
    })
}

#[tokio::test]
async fn the_page_of_consuls_endpoints_is_what_is_served() {
    let text = fs::read_to_string(root().join("docs/consul-api.md")).unwrap();
    let server = TestServer::start().await;
    let mut served = BTreeSet::new();
    let mut refused = 0;
    for cells in rows(&text) {
        let [endpoint, state, tests] = &cells[..] else { panic!("three cells: {cells:?}") };
        let endpoint = endpoint.trim_matches('`');
        match state.as_str() {
            "served" => {
                let (method, path) = endpoint.split_once(' ').expect("a method and a path");
                assert!(served.insert((starred(path), method.to_owned())), "{endpoint} stands twice");
                assert!(tests.contains("](../tests/"), "{endpoint} names no test");
                for fixture in tests.split("](../").skip(1).map(|rest| rest.split(')').next().unwrap()) {
                    let calls = fs::read_to_string(root().join(fixture)).unwrap();
                    let in_log = fixture.ends_with(".txt");
                    assert!(!in_log || is_called(&calls, method, path), "{fixture} does not call {endpoint}");
                }
            }
            "not served" => {
                let answer = server.get(&endpoint.replace(['{', '}'], "x")).await;
                let said = answer.text();
                assert!(answer.status == 404 && said.contains("is not served"), "{endpoint}: {said}");
                refused += 1;
            }
            other => panic!("{endpoint} is {other}"),
        }
    }
    let ours = |path: &str| !path.starts_with("/v1/") || path.starts_with("/v1/rollcall/");
    let document = described(&rollcall::openapi()).into_iter().filter(|(path, _)| !ours(path));
    let document: BTreeSet<(String, String)> = document
        .flat_map(|(path, methods)| methods.into_iter().map(move |method| (starred(&path), method)))
        .collect();
    assert_eq!(served, document);
    assert!(refused > 20, "{refused}");
}
