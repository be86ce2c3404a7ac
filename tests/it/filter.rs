//! `?filter=` over every listing that takes it, asked of a real server.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::server::{Answer, TestServer};

const REGISTER: &str = "/v1/catalog/register";

fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

async fn filtered(server: &TestServer, path: &str, filter: &str) -> Answer {
    let joint = if path.contains('?') { '&' } else { '?' };
    server.get(&format!("{path}{joint}filter={}", encoded(filter))).await
}

/// Two nodes, three instances of two services, checks of each status.
async fn world() -> TestServer {
    let server = TestServer::start().await;
    for (node, rack, address) in [("n7", "7", "10.0.0.7"), ("n8", "8", "10.0.0.8")] {
        let body = json!({ "Node": node, "Address": address, "NodeMeta": { "rack": rack, "os": "linux" },
            "ID": format!("40e4a748-2192-161a-0510-9bf59fe950b{rack}"), "TaggedAddresses": { "wan": "192.0.2.1" },
            "Check": { "CheckID": "disk", "Name": "disk", "Status": "passing" } });
        assert_eq!(server.put(REGISTER, body).await.text(), "true");
    }
    for (node, id, service, status, port, tags) in [
        ("n7", "web-1", "web", "passing", 8080, json!(["v1", "blue"])),
        ("n8", "web-2", "web", "critical", 8081, json!(["v2"])),
        ("n8", "db-1", "db", "warning", 5432, json!([])),
    ] {
        let address = if node == "n7" { "10.0.0.7" } else { "10.0.0.8" };
        let body = json!({ "Node": node, "Address": address, "SkipNodeUpdate": true,
            "Service": { "ID": id, "Service": service, "Tags": tags, "Port": port, "Address": "10.9.9.9",
                         "Meta": { "env": if id == "db-1" { "prod" } else { "test" } },
                         "Weights": { "Passing": 3, "Warning": 1 } },
            "Check": { "CheckID": format!("c-{id}"), "Name": "alive", "ServiceID": id, "Status": status } });
        assert_eq!(server.put(REGISTER, body).await.text(), "true");
    }
    server
        .register(json!({ "ID": "own-1", "Name": "own", "Port": 1, "Meta": { "k": "v" },
                            "Check": { "TTL": "1h", "Status": "passing" } }))
        .await;
    server.register(json!({ "ID": "own-2", "Name": "own", "Port": 2 })).await;
    server.put("/v1/agent/check/pass/service:own-1?note=80%25+free", "").await;
    server
}

/// The names that a listing shows: of nodes, instances, checks or services, whatever it lists.
fn names(value: &Value) -> Vec<String> {
    let name = |value: &Value| {
        let keys = ["/CheckID", "/Service/ID", "/ServiceID", "/ID", "/Node"];
        let found = keys.iter().find_map(|key| value.pointer(key)?.as_str().map(str::to_owned));
        found.unwrap_or_else(|| panic!("{value}"))
    };
    match value {
        Value::Array(items)
            if items
                .first()
                .is_some_and(|item| item.get("Meta").is_some() && item.get("Service").is_none()) =>
        {
            items.iter().map(|item| item["Node"].as_str().unwrap().to_owned()).collect()
        }
        Value::Array(items) => items.iter().map(name).collect(),
        Value::Object(map) => map.keys().cloned().collect(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_listing_takes_a_filter_over_its_own_fields() {
    let server = world().await;
    for (path, filter, expected) in [
        ("/v1/catalog/nodes", "Meta.rack == 7", vec!["n7"]),
        ("/v1/catalog/nodes", "ID matches `b8$` and Address == `10.0.0.8`", vec!["n8"]),
        ("/v1/catalog/nodes", "TaggedAddresses.wan == `192.0.2.1` and Datacenter == dc1", vec!["n7", "n8"]),
        ("/v1/catalog/nodes?node-meta=os:linux", "rack in Meta and not Node == n7", vec!["n8"]),
        ("/v1/catalog/services", "ServiceMeta.env == prod", vec!["db"]),
        ("/v1/catalog/services", "NodeMeta.rack == 8", vec!["db", "web"]),
        ("/v1/catalog/services", "ServiceName matches `^w`", vec!["web"]),
        ("/v1/catalog/service/web", "ServicePort == 8081", vec!["web-2"]),
        ("/v1/catalog/service/web", "blue in ServiceTags or ServiceTags is empty", vec!["web-1"]),
        ("/v1/catalog/service/web", "ServiceWeights.Passing == 3 and ServiceID != `web-1`", vec!["web-2"]),
        ("/v1/catalog/service/web", "ServiceTaggedAddresses.lan_ipv4.Port == 8080", vec!["web-1"]),
        ("/v1/catalog/service/web", "ServiceConnect.Native == true", vec![]),
        ("/v1/health/service/web", "Checks.Status == critical", vec!["web-2"]),
        ("/v1/health/service/web", "not Checks.Status != passing", vec!["web-1"]),
        ("/v1/health/service/web", "Node.Meta.rack == 7 and Service.Meta.env == test", vec!["web-1"]),
        ("/v1/health/service/web?passing", "Service.Port == 8080", vec!["web-1"]),
        ("/v1/health/service/web?passing", "Service.Port == 8081", vec![]),
        ("/v1/health/service/web?tag=V2", "Service.Kind == ``", vec!["web-2"]),
        ("/v1/health/checks/web", "Status != passing", vec!["c-web-2"]),
        ("/v1/health/node/n8", "ServiceName == db", vec!["c-db-1"]),
        ("/v1/health/node/n1", "Output contains free", vec!["service:own-1"]),
        ("/v1/health/state/any", "ServiceTags contains v1", vec!["c-web-1"]),
        ("/v1/health/state/passing", "Node == n7 and ServiceID == ``", vec!["disk"]),
        ("/v1/agent/services", "Port == 2 and Meta is empty", vec!["own-2"]),
        ("/v1/agent/services", "Service == own and Datacenter == dc1", vec!["own-1", "own-2"]),
        ("/v1/agent/checks", "Type == ttl", vec!["service:own-1"]),
        ("/v1/agent/checks", "Type == http", vec![]),
    ] {
        let answer = filtered(&server, path, filter).await;
        assert_eq!(answer.status, 200, "{path} {filter}: {}", answer.text());
        assert_eq!(names(&answer.json()), expected, "{path} {filter}");
    }
    // A node stays, whatever of its services does.
    let node = filtered(&server, "/v1/catalog/node/n8", "Service == db").await.json();
    assert_eq!((&node["Node"]["Node"], names(&node["Services"])), (&json!("n8"), vec!["db-1".to_owned()]));
    let none = filtered(&server, "/v1/catalog/node/n8", "Service == nope").await.json();
    assert_eq!((&none["Node"]["Node"], &none["Services"]), (&json!("n8"), &json!({})));
    let list = filtered(&server, "/v1/catalog/node-services/n8", "`web-2` == ID or ID == `web-2`").await;
    assert_eq!(list.status, 500, "a value does not stand first: {}", list.text());
    let list = filtered(&server, "/v1/catalog/node-services/n8", "ID == `web-2`").await.json();
    assert_eq!(
        (list["Services"].as_array().unwrap().len(), &list["Services"][0]["ID"]),
        (1, &json!("web-2"))
    );
    assert_eq!(
        filtered(&server, "/v1/catalog/services", "ServiceName == db").await.json(),
        json!({ "db": [] })
    );
}

#[tokio::test]
async fn every_field_that_a_listing_shows_can_be_named() {
    let server = world().await;
    // Fields that Consul's filters do not name.
    let never = [
        "CreateIndex",
        "ModifyIndex",
        "Definition",
        "Locality",
        "ServiceLocality",
        "Expose",
        "ServiceProxy",
        "Proxy",
        "Connect",
        "ServiceConnect",
        "ContentHash",
    ];
    let mut asked = 0;
    for path in [
        "/v1/catalog/nodes",
        "/v1/catalog/service/web",
        "/v1/health/service/web",
        "/v1/health/checks/web",
        "/v1/agent/services",
    ] {
        let all = server.get(path).await.json();
        let first = match &all {
            Value::Array(items) => items[0].clone(),
            other => other.as_object().unwrap().values().next().unwrap().clone(),
        };
        let mut open: Vec<(String, Value)> =
            first.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        while let Some((selector, value)) = open.pop() {
            if never.contains(&selector.rsplit('.').next().unwrap()) {
                continue;
            }
            let filter = match &value {
                Value::String(text) => format!("{selector} == {}", json!(text)),
                Value::Number(number) => format!("{selector} == {number}"),
                Value::Bool(flag) => format!("{selector} == {flag}"),
                Value::Array(items) if items.is_empty() => format!("{selector} is empty"),
                Value::Array(items) if items[0].is_string() => format!("{} in {selector}", items[0]),
                Value::Array(items) => {
                    let fields = items[0].as_object().unwrap().iter();
                    open.extend(fields.map(|(k, v)| (format!("{selector}.{k}"), v.clone())));
                    format!("{selector} is not empty")
                }
                Value::Object(map) => {
                    open.extend(map.iter().map(|(k, v)| (format!("{selector}.{k}"), v.clone())));
                    continue;
                }
                Value::Null => continue,
            };
            let answer = filtered(&server, path, &filter).await;
            assert_eq!(answer.status, 200, "{path} {filter}: {}", answer.text());
            let shown = answer.json();
            let same = match &shown {
                Value::Array(items) => items.contains(&first),
                other => other.as_object().unwrap().values().any(|value| *value == first),
            };
            assert!(same, "{path} {filter}: {shown}");
            asked += 1;
        }
    }
    assert!(asked > 60, "{asked}");
}

#[tokio::test]
async fn what_cannot_be_a_filter_is_refused_in_consuls_words_and_changes_nothing() {
    let server = world().await;
    let before = crate::http::catalog(&server).await;
    for path in [
        "/v1/catalog/nodes",
        "/v1/catalog/services",
        "/v1/catalog/service/web",
        "/v1/catalog/node/n7",
        "/v1/catalog/node-services/n7",
        "/v1/health/service/web",
        "/v1/health/checks/web",
        "/v1/health/node/n7",
        "/v1/health/state/any",
        "/v1/agent/services",
        "/v1/agent/checks",
    ] {
        let answer = filtered(&server, path, "Nope == 1").await;
        let text = "Failed to create boolean expression evaluator: Selector \"Nope\" is not valid";
        assert_eq!((answer.status, answer.text().as_str()), (500, text), "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        // Nobody waits on an expression that cannot be.
        let waiting = filtered(&server, &format!("{path}?index=999999999&wait=10m"), "(").await;
        assert_eq!(waiting.status, 500, "{path}");
        assert_eq!(filtered(&server, path, "").await.status, 200, "{path}: an empty one is none");
    }
    for (filter, text) in [
        ("ServicePort == x", "Failed to coerce value \"x\" for selector \"ServicePort\""),
        ("ServiceTags == v1", "Invalid match operator \"Equal\" for selector \"ServiceTags\""),
        ("ServiceName matches `(`", "Failed to compile regular expression \"(\""),
        ("ServiceName matches `a{1000}{1000}`", "Failed to compile regular expression"),
        ("ServiceName == ", "1:16 (15): expected a value"),
        ("\u{0}", "1:1 (0): expected a selector"),
    ] {
        let answer = filtered(&server, "/v1/catalog/service/web", filter).await;
        let whole = answer.text();
        let said = whole.strip_prefix("Failed to create boolean expression evaluator: ");
        assert!(answer.status == 500 && said.is_some_and(|s| s.starts_with(text)), "{filter}: {whole}");
    }
    assert_eq!(crate::http::catalog(&server).await, before);
}

#[tokio::test]
async fn filters_that_are_too_large_are_refused_and_counted() {
    let server = TestServer::with(|config| {
        config.filter.octets_max = 200;
        config.filter.matches_max = 3;
    })
    .await;
    let many = ["Node == n1"; 4].join(" or ");
    let (long, deep) = (format!("Node == `{}`", "x".repeat(200)), "(".repeat(100));
    for (count, (filter, key)) in [
        (&many, "[limits] filter_matches_max"),
        (&long, "[limits] filter_octets_max"),
        (&deep, "nested more than 64 deep"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = filtered(&server, "/v1/catalog/nodes", filter).await;
        assert!(answer.status == 400 && answer.text().contains(key), "{}", answer.text());
        let refused = server.metric("rollcall_limit_hits_total{limit=\"filter_max\"}").await;
        assert_eq!(refused, count as f64 + 1.0);
    }
    let good = ["Node == n1"; 3].join(" or ");
    assert_eq!(filtered(&server, "/v1/catalog/nodes", &good).await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_blocking_query_answers_with_what_its_filter_leaves() {
    let server = std::sync::Arc::new(world().await);
    let path = format!("/v1/health/service/web?filter={}", encoded("Service.Meta.env == next"));
    let first = server.get(&path).await;
    assert_eq!(first.text(), "[]");
    let (asked, path) = (server.clone(), format!("{path}&index={}&wait=60s", first.index()));
    let watcher = tokio::spawn(async move { asked.get(&path).await });
    server.register(json!({ "Name": "web", "ID": "web-9", "Meta": { "env": "next" } })).await;
    let answer = watcher.await.unwrap();
    assert_eq!(names(&answer.json()), ["web-9"]);
    assert!(answer.index() > first.index());
}

/// Queries of random octets are answered, never with a broken connection and never slowly.
#[test]
fn random_queries_do_no_harm() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(world());
    const PATHS: [&str; 4] =
        ["/v1/catalog/services", "/v1/health/service/web", "/v1/health/state/any", "/v1/agent/services"];
    let mut runner = proptest::test_runner::TestRunner::default();
    let query = prop::collection::vec(any::<u8>(), 0..60);
    let words =
        "((not|and|or|in|is|empty|matches|Node|Service|Meta|Checks|Status|==|!=|[ .()\"`\\\\1x-]) ?){0,20}";
    let asked = (prop::sample::select(&PATHS[..]), query, words);
    runner
        .run(&asked, |(path, octets, words)| {
            let raw: String = octets.iter().map(|b| format!("%{b:02X}")).collect();
            for query in [format!("filter={}", encoded(&words)), format!("filter={raw}"), raw] {
                let answer = runtime.block_on(server.get(&format!("{path}?{query}")));
                let text = answer.text();
                let named = text.starts_with("Failed to create boolean expression evaluator: ");
                prop_assert!(
                    matches!(answer.status, 200 | 400) || (answer.status == 500 && named),
                    "{} {}",
                    query,
                    text
                );
            }
            Ok(())
        })
        .unwrap();
    let answer = runtime.block_on(server.get("/v1/catalog/service/web")).json();
    assert_eq!(answer.as_array().unwrap().len(), 2);
}
