//! `rollcall import` and `export`: from one real server to another, from a Consul that stops half-way, and from what is none.
//!
//! No Consul runs here: its side is another Rollcall, which speaks the same API, and a small HTTP server that answers with
//! what Consul 1.21 answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::daemon::{Daemon, rollcall};
use crate::server::request;

/// The command, while the runtime goes on with the servers.
async fn run(words: &[&str]) -> Output {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let ran = tokio::task::spawn_blocking(move || rollcall().args(&words).output().unwrap());
    ran.await.unwrap()
}

fn both(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A command that must be done; its rows, by their first word, without the spaces between columns.
async fn done(words: &[&str]) -> BTreeMap<String, String> {
    let output = run(words).await;
    assert!(output.status.success(), "{words:?}: {}", both(&output));
    let text = both(&output);
    let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    text.lines().map(row).map(|row| (row[0].clone(), row[1..].join(" "))).collect()
}

async fn put(server: &Daemon, path: &str, body: Value) {
    let answer = request(server.http[0], "PUT", path, &[], &body.to_string()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
}

async fn get(server: &Daemon, path: &str) -> Value {
    request(server.http[0], "GET", path, &[], "").await.json()
}

fn ephemeral(node: &str) -> Daemon {
    Daemon::with(&["--ephemeral", "--dns", "127.0.0.1:0", "--http", "127.0.0.1:0", "--node", node])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_servers_catalog_is_taken_over_again_and_again() {
    let (old, new) = (ephemeral("old"), ephemeral("new"));
    put(
        &old,
        "/v1/agent/service/register",
        json!({"Name": "web", "ID": "w1", "Address": "192.0.2.1", "Port": 80, "Tags": ["v1"], "Meta": {"k": "v"},
            "Weights": {"Passing": 3, "Warning": 2}, "TaggedAddresses": {"wan": {"Address": "198.51.100.1", "Port": 1}},
            "Check": {"TTL": "1h", "Status": "passing"}}),
    )
    .await;
    put(
        &old,
        "/v1/catalog/register",
        json!({"Node": "h2", "Address": "10.0.0.2", "ID": "00000000-0000-0000-0000-000000000002",
            "NodeMeta": {"rack": "r1", "external-node": "true"}, "TaggedAddresses": {"wan": "198.51.100.2"},
            "Service": {"ID": "d1", "Service": "db", "Port": 5432},
            "Checks": [{"CheckID": "tcp", "Name": "tcp", "ServiceID": "d1", "Status": "passing",
                "Definition": {"TCP": "192.0.2.9:5432", "Interval": "10s", "Timeout": "1s"}},
                {"CheckID": "load", "Name": "load", "Status": "warning"}]}),
    )
    .await;
    put(&old, "/v1/catalog/register", json!({"Node": "bare", "Address": "10.0.0.3"})).await;
    put(&old, "/v1/agent/service/maintenance/w1?enable=true&reason=moving", json!(null)).await;
    let from = format!("http://{}", old.http[0]);
    let server = new.http[0].to_string();
    let words = ["import", "--from", &from, "--server", &server];

    let dry = done(&[&words[..], &["--dry-run"]].concat()).await;
    assert_eq!(
        (dry["This"].as_str(), dry["services"].as_str()),
        ("is what would be done; nothing was changed.", "2 0 0")
    );
    assert_eq!(get(&new, "/v1/catalog/service/web").await, json!([]));
    let first = done(&words).await;
    assert_eq!((first["services"].as_str(), first["maintenance"].as_str()), ("2 0 0", "1 0 0"), "{first:?}");
    assert!(first.contains_key("NOT"), "a TTL check is its agent's: {first:?}");

    let plain = |mut list: Value| {
        for entry in list.as_array_mut().unwrap() {
            for part in ["Node", "Service"] {
                let part = entry[part].as_object_mut().unwrap();
                part.retain(|key, _| !["CreateIndex", "ModifyIndex"].contains(&key.as_str()));
            }
            for check in entry["Checks"].as_array_mut().unwrap() {
                let check = check.as_object_mut().unwrap();
                check.retain(|key, _| {
                    ["CheckID", "Name", "Status", "Output", "ServiceID", "Notes", "Definition"]
                        .contains(&key.as_str())
                });
            }
        }
        list
    };
    for service in ["db", "web"] {
        let path = format!("/v1/health/service/{service}");
        let (theirs, ours) = (plain(get(&old, &path).await), plain(get(&new, &path).await));
        if service == "db" {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours[0]["Service"], theirs[0]["Service"], "{service}");
        assert_eq!(ours[0]["Node"], theirs[0]["Node"], "{service}");
        let statuses = |list: &Value| {
            let checks = list[0]["Checks"].as_array().unwrap().iter();
            let kept = checks.filter(|check| check["CheckID"] != "serfHealth");
            kept.map(|check| (check["CheckID"].clone(), check["Status"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(statuses(&ours), statuses(&theirs), "{service}");
    }
    let nodes = get(&new, "/v1/catalog/nodes").await;
    let names: Vec<_> = nodes.as_array().unwrap().iter().map(|node| node["Node"].as_str().unwrap()).collect();
    assert_eq!(names, ["bare", "h2", "new", "old"]);

    let index = |server: &Daemon| {
        let address = server.http[0];
        async move { request(address, "GET", "/v1/health/state/any", &[], "").await.index() }
    };
    let before = index(&new).await;
    let second = done(&words).await;
    assert_eq!((second["services"].as_str(), second["checks"].as_str()), ("0 0 2", "0 0 3"), "{second:?}");
    assert_eq!(index(&new).await, before, "the second run changes nothing");

    put(&old, "/v1/catalog/deregister", json!({"Node": "h2"})).await;
    put(&new, "/v1/agent/service/register", json!({"Name": "mine", "ID": "m1"})).await;
    done(&words).await;
    assert_eq!(
        get(&new, "/v1/catalog/service/db").await.as_array().unwrap().len(),
        1,
        "nothing goes of itself"
    );
    done(&[&words[..], &["--prune"]].concat()).await;
    assert_eq!(get(&new, "/v1/catalog/service/db").await, json!([]));
    assert_eq!(get(&new, "/v1/catalog/node/h2").await, json!(null));
    assert_eq!(get(&new, "/v1/catalog/service/mine").await.as_array().unwrap().len(), 1);
    assert_eq!(get(&new, "/v1/catalog/service/web").await.as_array().unwrap().len(), 1);
}

/// A server that answers with fixed JSON, and remembers what it was asked.
struct Fixed {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

/// `None` breaks the connection off.
async fn fixed(
    answers: Vec<(&'static str, u16, Option<Value>)>,
    headers: &'static [(&'static str, &'static str)],
) -> Fixed {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let (answers, seen) = (Arc::new(answers), asked.clone());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answers, seen) = (answers.clone(), seen.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let token = request.headers().get("x-consul-token").map_or("", |t| t.to_str().unwrap());
                seen.lock().push((request.uri().path().to_owned(), token.to_owned()));
                let found = answers.iter().find(|(path, ..)| *path == request.uri().path()).cloned();
                async move {
                    let (_, status, body) = found.unwrap_or(("", 404, Some(json!("no such path"))));
                    let body = body.ok_or_else(|| std::io::Error::other("broken off"))?;
                    let mut answer = Response::builder().status(status);
                    for (name, value) in headers {
                        answer = answer.header(*name, *value);
                    }
                    Ok::<_, std::io::Error>(answer.body(Full::new(Bytes::from(body.to_string()))).unwrap())
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Fixed { address, asked }
}

/// What Consul 1.21 answers for a server with one agent's service.
fn consul() -> Vec<(&'static str, u16, Option<Value>)> {
    let node = json!({"ID": "f5a3c1a2-5a5c-4a5e-9a0e-2f6f2f0b7c11", "Node": "agent-1", "Address": "10.0.0.1",
        "Datacenter": "dc1", "TaggedAddresses": {"lan": "10.0.0.1", "lan_ipv4": "10.0.0.1", "wan": "10.0.0.1",
            "wan_ipv4": "10.0.0.1"}, "Meta": {"consul-network-segment": "", "consul-version": "1.21.4", "rack": "r7"},
        "CreateIndex": 13, "ModifyIndex": 14});
    let check = |id: &str, service: &str, kind: &str, status: &str| {
        json!({"Node": "agent-1", "CheckID": id, "Name": id, "Status": status, "Notes": "", "Output": "seen there",
            "ServiceID": service, "ServiceName": "", "ServiceTags": [], "Type": kind, "Interval": "10s", "Timeout": "1s",
            "ExposedPort": 0, "Definition": {}, "CreateIndex": 20, "ModifyIndex": 20})
    };
    let service = |id: &str, kind: &str| {
        json!({"Kind": kind, "ID": id, "Service": "web", "Tags": null, "Address": "", "Meta": null, "Port": 8080,
            "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false,
            "Proxy": {"Mode": "", "MeshGateway": {}, "Expose": {}}, "Connect": {}, "PeerName": "", "CreateIndex": 20,
            "ModifyIndex": 20, "SomethingNew": {"a": 1}})
    };
    let serf = check("serfHealth", "", "", "passing");
    vec![
        ("/v1/catalog/datacenters", 200, Some(json!(["dc1", "dc2"]))),
        ("/v1/catalog/nodes", 200, Some(json!([node]))),
        ("/v1/catalog/services", 200, Some(json!({"consul": [], "web": []}))),
        (
            "/v1/health/service/web",
            200,
            Some(json!([
                {"Node": node, "Service": service("web-1", ""),
                    "Checks": [serf, check("service:web-1", "web-1", "http", "passing")]},
                {"Node": node, "Service": service("web-proxy", "connect-proxy"), "Checks": [serf]},
            ])),
        ),
        (
            "/v1/query",
            200,
            Some(json!([{"ID": "8f246b77-f3e1-ff88-5b48-8ec93abf3e05", "Name": "q", "Session": "x",
                "Service": {"Service": "web"}}])),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_consul_does_not_show_is_reported() {
    let new = ephemeral("new");
    let consul = fixed(consul(), &[("x-consul-default-acl-policy", "allow")]).await;
    let (from, server) = (consul.address.to_string(), new.http[0].to_string());
    let output = run(&["import", "--from", &from, "--server", &server, "--from-token", "secret-7"]).await;
    let text = both(&output);
    assert_eq!(output.status.code(), Some(1), "the query was not taken: {text}");
    for part in [
        "service:web-1 on agent-1",
        "its agent runs it and does not show how",
        "another datacenter is not read",
        "web-proxy on agent-1",
        "it is bound to a session",
        "not everything was taken",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("secret-7"));
    assert!(consul.asked.lock().iter().all(|(_, token)| token == "secret-7"));
    let web = get(&new, "/v1/health/service/web").await;
    let first = &web[0];
    assert_eq!(first["Node"]["Meta"], json!({"rack": "r7"}));
    assert_eq!(first["Node"]["ID"], "f5a3c1a2-5a5c-4a5e-9a0e-2f6f2f0b7c11");
    let checks: Vec<_> =
        first["Checks"].as_array().unwrap().iter().map(|c| (&c["CheckID"], &c["Output"])).collect();
    assert_eq!(checks, [(&json!("service:web-1"), &json!("seen there"))]);
    assert_eq!(get(&new, "/v1/catalog/services").await.as_object().unwrap()["web"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_consul_or_breaks_off_changes_nothing() {
    let new = ephemeral("new");
    let server = new.http[0].to_string();
    let before = get(&new, "/v1/catalog/nodes").await;
    let with = |path: &'static str, status: u16, body: Option<Value>| {
        let mut answers = consul();
        for answer in &mut answers {
            if answer.0 == path {
                *answer = (path, status, body.clone());
            }
        }
        answers
    };
    let deny: &[_] = &[("x-consul-default-acl-policy", "deny")];
    for (answers, headers, more, words) in [
        (vec![], &[][..], &[][..], "is it a Consul?"),
        (vec![("/v1/catalog/datacenters", 200, Some(json!({"hello": 1})))], &[], &[], "is --from right?"),
        (
            with("/v1/catalog/nodes", 403, Some(json!("Permission denied"))),
            &[],
            &[],
            "give a token with --from-token",
        ),
        (with("/v1/health/service/web", 500, Some(json!("rpc error"))), &[], &[], "answers 500"),
        (with("/v1/health/service/web", 200, None), &[], &[], "nothing was changed"),
        (consul(), deny, &["--prune"], "no --from-token is given"),
    ] {
        let source = fixed(answers, headers).await;
        let from = source.address.to_string();
        let output = run(&[&["import", "--from", &from, "--server", &server][..], more].concat()).await;
        let text = both(&output);
        assert_eq!(output.status.code(), Some(1), "{words}: {text}");
        assert!(text.contains(words) && text.contains("nothing was changed"), "{words:?} is not in {text}");
    }
    let dead = "127.77.0.1:9";
    let output = run(&["import", "--from", dead, "--server", &server]).await;
    assert!(both(&output).contains("cannot reach 127.77.0.1:9"), "{}", both(&output));
    assert_eq!(get(&new, "/v1/catalog/nodes").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_a_file_that_an_import_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (ephemeral("n1"), ephemeral("n1"));
    put(&old, "/v1/agent/service/register", json!({"Name": "web", "ID": "w1", "Port": 80})).await;
    let file = dir.path().join("all.json");
    let file = file.to_str().unwrap();
    let (from, to) = (old.http[0].to_string(), new.http[0].to_string());
    done(&["export", file, "--server", &from]).await;
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let printed = run(&["export", "--server", &from]).await;
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), written);
    let first = done(&["import", "--file", file, "--server", &to]).await;
    assert_eq!(first["services"], "1 0 0");
    assert_eq!(get(&new, "/v1/catalog/service/web").await[0]["ServicePort"], 80);
    let output = run(&["import", "--file", "/nowhere/at/all", "--server", &to]).await;
    assert!(
        output.status.code() == Some(1) && both(&output).contains("/nowhere/at/all"),
        "{}",
        both(&output)
    );
    std::fs::write(file, r#"{"rollcall_export":1,"records":[{"node":{"name":"x"}}]}"#).unwrap();
    let output = run(&["import", "--file", file, "--server", &to]).await;
    let text = both(&output);
    assert!(output.status.code() == Some(1) && text.contains("record 1: missing field `address`"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_queries_come_through_an_export_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (ephemeral("n1"), ephemeral("n1"));
    let whole = json!({
        "Name": "whole", "Token": "", "DNS": { "TTL": "7s" },
        "Service": { "Service": "web", "OnlyPassing": true, "IgnoreCheckIDs": ["noisy"], "Near": "_agent",
            "Tags": ["primary", "!slow"], "NodeMeta": { "rack": "r1" }, "ServiceMeta": { "shard": "s1" },
            "Failover": { "Targets": [{ "Datacenter": "dc2" }] } },
    });
    let template = json!({
        "Name": "geo-", "Template": { "Type": "name_prefix_match", "Regexp": "^geo-(.*?)-([^\\-]+?)$", "RemoveEmptyTags": true },
        "Service": { "Service": "${match(1)}", "Tags": ["${match(2)}"] },
    });
    for query in [&whole, &template] {
        let made = request(old.http[0], "POST", "/v1/query", &[], &query.to_string()).await;
        assert_eq!(made.status, 200, "{query}: {}", made.text());
    }
    for server in [&old, &new] {
        let web = json!({"Name": "web", "ID": "w1", "Port": 80, "Tags": ["v1"]});
        put(server, "/v1/agent/service/register", web).await;
    }
    let file = dir.path().join("all.json");
    let file = file.to_str().unwrap();
    let (from, to) = (old.http[0].to_string(), new.http[0].to_string());
    done(&["export", file, "--server", &from]).await;
    let first = done(&["import", "--file", file, "--server", &to]).await;
    assert_eq!(first["prepared"], "queries 2 0 0", "{first:?}");
    let shown = async |server: &Daemon| {
        let mut all = get(server, "/v1/query").await;
        for query in all.as_array_mut().unwrap() {
            query
                .as_object_mut()
                .unwrap()
                .retain(|key, _| !["CreateIndex", "ModifyIndex"].contains(&key.as_str()));
        }
        all
    };
    let (theirs, ours) = (shown(&old).await, shown(&new).await);
    assert_eq!(theirs.as_array().unwrap().len(), 2);
    assert_eq!(ours, theirs, "ids and all");
    for server in [&old, &new] {
        let executed = get(server, "/v1/query/geo-web-v1/execute").await;
        assert_eq!(
            (&executed["Service"], &executed["Nodes"][0]["Service"]["ID"]),
            (&json!("web"), &json!("w1"))
        );
    }
    let second = done(&["import", "--file", file, "--server", &to]).await;
    assert_eq!(second["prepared"], "queries 0 0 2", "{second:?}");
    let (again, back) = (dir.path().join("again.json"), shown(&new).await);
    done(&["export", again.to_str().unwrap(), "--server", &to]).await;
    let queries = |file: &str| {
        let whole: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let records = whole["records"].as_array().unwrap().iter().filter(|record| !record["query"].is_null());
        records.cloned().collect::<Vec<_>>()
    };
    assert_eq!((queries(again.to_str().unwrap()), back), (queries(file), theirs));
}
