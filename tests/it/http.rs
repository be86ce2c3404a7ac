//! The agent API for services, as Consul's clients know it: shapes, statuses, texts, headers.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{TestServer, read_answer, request};

const REGISTER: &str = "/v1/agent/service/register";

/// Everything that a read shows of services, nodes and checks: equal before and after what must change nothing.
pub async fn catalog(server: &TestServer) -> [Value; 3] {
    [
        server.get("/v1/catalog/services").await.json(),
        server.get("/v1/catalog/nodes").await.json(),
        server.get("/v1/health/state/any").await.json(),
    ]
}

#[tokio::test]
async fn a_registration_reads_back_in_consuls_form() {
    let server = TestServer::start().await;
    let answer = server
        .put(
            REGISTER,
            json!({ "ID": "web/1", "Name": "Web", "Tags": ["v1"], "Address": "10.1.2.3", "Port": 8080,
                    "Meta": { "k": "v" }, "Weights": { "Passing": 7, "Warning": 2 } }),
        )
        .await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(answer.header("content-type"), "application/json");
    let services = server.get("/v1/agent/services").await;
    let expected = json!({ "web/1": {
        "ID": "web/1", "Service": "Web", "Tags": ["v1"], "Meta": { "k": "v" }, "Port": 8080, "Address": "10.1.2.3",
        "TaggedAddresses": { "lan_ipv4": { "Address": "10.1.2.3", "Port": 8080 },
                             "wan_ipv4": { "Address": "10.1.2.3", "Port": 8080 } },
        "Weights": { "Passing": 7, "Warning": 2 }, "EnableTagOverride": false, "Datacenter": "dc1" } });
    assert_eq!(services.json(), expected);
    let one = server.get("/v1/agent/service/web%2F1").await;
    let mut shown = one.json();
    let hash = shown.as_object_mut().unwrap().remove("ContentHash").unwrap();
    assert_eq!((&shown, hash.as_str().unwrap()), (&expected["web/1"], one.header("x-consul-contenthash")));
    // Agent reads have no index.
    for answer in [services, one, server.get("/v1/agent/checks").await, server.get("/v1/status/leader").await]
    {
        assert_eq!(answer.header("x-consul-index"), "");
        assert_eq!(answer.header("x-consul-default-acl-policy"), "allow");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    assert_eq!(server.put("/v1/agent/service/deregister/web%2F1", "").await.status, 200);
    assert_eq!(server.get("/v1/agent/services").await.text(), "{}");
    assert_eq!(server.get("/v1/agent/checks").await.text(), "{}");
}

#[tokio::test]
async fn reads_of_health_have_consuls_shape_and_headers() {
    let server = TestServer::start().await;
    server
        .register(json!({ "Name": "web", "Port": 80, "Check": { "TTL": "1h", "Status": "passing" } }))
        .await;
    let answer = server.get("/v1/health/service/web").await;
    for (header, value) in [
        ("x-consul-lastcontact", "0"),
        ("x-consul-knownleader", "true"),
        ("x-consul-query-backend", "blocking-query"),
        ("x-consul-effective-consistency", "leader"),
        ("vary", "Accept-Encoding"),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
    assert!(answer.index() > 0);
    let entry = &answer.json()[0];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&entry["Node"]),
        ["ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta", "CreateIndex", "ModifyIndex"]
    );
    let service = &entry["Service"];
    assert_eq!(
        (&service["Tags"], &service["Meta"], &service["Address"]),
        (&json!([]), &json!({}), &json!(""))
    );
    assert_eq!(service["Weights"], json!({ "Passing": 1, "Warning": 1 }));
    let check = &entry["Checks"][1];
    assert_eq!(
        keys(check),
        [
            "Node",
            "CheckID",
            "Name",
            "Status",
            "Notes",
            "Output",
            "ServiceID",
            "ServiceName",
            "ServiceTags",
            "Type",
            "Interval",
            "Timeout",
            "ExposedPort",
            "Definition",
            "CreateIndex",
            "ModifyIndex"
        ]
    );
    assert_eq!((&check["CheckID"], &check["Type"]), (&json!("service:web"), &json!("ttl")));
    assert_eq!((&check["Name"], &check["ServiceTags"]), (&json!("Service 'web' check"), &json!([])));
    assert_eq!(server.get("/v1/health/checks/web").await.json(), json!([check]));
    assert_eq!(server.get("/v1/health/node/n1").await.json(), entry["Checks"]);
    assert_eq!(server.get("/v1/health/state/passing").await.json(), entry["Checks"]);
    let consistent = server.get("/v1/health/service/web?consistent").await;
    assert_eq!(consistent.header("x-consul-effective-consistency"), "consistent");
}

#[tokio::test]
async fn what_is_not_there_is_empty_or_null_as_in_consul() {
    let server = TestServer::start().await;
    for (path, body) in [
        ("/v1/agent/services", "{}"),
        ("/v1/agent/checks", "{}"),
        ("/v1/catalog/services", r#"{"consul":[]}"#),
        ("/v1/catalog/service/nope", "[]"),
        ("/v1/catalog/node/nope", "null"),
        ("/v1/catalog/node-services/nope", r#"{"Node":null,"Services":null}"#),
        ("/v1/catalog/datacenters", r#"["dc1"]"#),
        ("/v1/health/service/nope", "[]"),
        ("/v1/health/checks/nope", "[]"),
        ("/v1/health/node/nope", "[]"),
        ("/v1/health/state/critical", "[]"),
        ("/v1/health/state/nonsense", "[]"),
        ("/v1/status/leader", "\"127.0.0.1:8300\""),
        ("/v1/status/peers", "[\"127.0.0.1:8300\"]"),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{path}");
    }
}

#[tokio::test]
async fn paths_and_methods_that_do_not_exist_say_so() {
    let server = TestServer::start().await;
    let api = "Invalid URL path: not a recognized HTTP API endpoint\n";
    let other = "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'\n";
    for (path, text) in [("/v1/nope", api), ("/nope", other), ("/agent/services", other), ("/v1/agent", api)]
    {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, text), "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    let kv = server.get("/v1/kv/a").await;
    assert_eq!((kv.status, kv.text().contains("/v1/kv is not served")), (404, true), "{}", kv.text());
    for (path, wrong, allow) in [
        ("/v1/agent/service/register", "POST", "OPTIONS,PUT"),
        ("/v1/agent/service/register", "GET", "OPTIONS,PUT"),
        ("/v1/agent/service/deregister/a", "DELETE", "OPTIONS,PUT"),
        ("/v1/agent/check/pass/a", "GET", "OPTIONS,PUT"),
        ("/v1/catalog/services", "PUT", "OPTIONS,GET"),
        ("/v1/health/service/web", "POST", "OPTIONS,GET"),
    ] {
        let answer = request(server.http(), wrong, path, &[], "").await;
        assert_eq!((answer.status, answer.text()), (405, format!("method {wrong} not allowed")), "{path}");
        assert_eq!(answer.header("allow"), allow);
        let options = request(server.http(), "OPTIONS", path, &[], "").await;
        assert_eq!((options.status, options.header("allow")), (200, allow), "{path}");
    }
    let (get, head) = (
        server.get("/v1/health/state/any").await,
        request(server.http(), "HEAD", "/v1/health/state/any", &[], "").await,
    );
    assert_eq!((head.status, head.text().as_str(), head.index()), (200, "", get.index()));
}

#[tokio::test]
async fn names_of_services_fold_case() {
    let server = TestServer::start().await;
    server.register(json!({ "ID": "a", "Name": "Redis", "Tags": ["Main"] })).await;
    server.register(json!({ "ID": "b", "Name": "redis" })).await;
    assert_eq!(server.get("/v1/catalog/services").await.json(), json!({ "Redis": ["Main"], "consul": [] }));
    let both = server.get("/v1/health/service/REDIS").await.json();
    assert_eq!(both.as_array().unwrap().len(), 2);
    let tagged = server.get("/v1/health/service/redis?tag=mAIN").await.json();
    assert_eq!((tagged.as_array().unwrap().len(), &tagged[0]["Service"]["ID"]), (1, &json!("a")));
    assert_eq!(server.get("/v1/health/service/redis?tag=main&tag=other").await.text(), "[]");
}

#[tokio::test]
async fn bodies_are_read_as_go_reads_them() {
    let server = TestServer::start().await;
    for (number, headers) in [
        vec![],
        vec![("content-type", "application/json")],
        vec![("content-type", "application/x-www-form-urlencoded")],
        vec![("content-type", "nonsense")],
    ]
    .iter()
    .enumerate()
    {
        let body = json!({ "nAmE": format!("s{number}"), "PORT": 1, "check": { "ttl": 60_000_000_000_u64 },
                           "tagged_addresses": { "wan": { "address": "10.0.0.1", "PORT": 2 } }, "Tags": null });
        let answer = request(server.http(), "PUT", REGISTER, headers, &body.to_string()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{headers:?}");
    }
    assert_eq!(server.get("/v1/catalog/services").await.json().as_object().unwrap().len(), 5);
    for text in ["1m30s", "1.5h", "500ms", "2us", "1h0m0s"] {
        server.register(json!({ "Name": "d", "Check": { "TTL": text } })).await;
    }
    let check = json!({ "HTTP": "http://127.0.0.1:1/", "Interval": "1m30s", "Timeout": "500ms",
                        "deregister_critical_service_after": "1h" });
    server.register(json!({ "Name": "h", "Check": check })).await;
    let shown = &server.get("/v1/health/checks/h").await.json()[0];
    assert_eq!((&shown["Interval"], &shown["Timeout"]), (&json!("1m30s"), &json!("500ms")));
}

#[tokio::test]
async fn an_id_is_the_name_unless_it_is_given_and_checks_are_numbered() {
    let server = TestServer::start().await;
    let checks =
        json!([{ "TTL": "1h" }, { "TTL": "1h", "CheckID": "mine" }, { "TTL": "1h", "Name": "third" }]);
    server.register(json!({ "Name": "web", "Checks": checks })).await;
    let shown = server.get("/v1/agent/checks").await.json();
    let mut ids: Vec<_> = shown.as_object().unwrap().keys().collect();
    ids.sort();
    assert_eq!(ids, ["mine", "service:web:1", "service:web:3"]);
    assert_eq!(shown["service:web:3"]["Name"], "third");
    assert_eq!(server.get("/v1/agent/service/web").await.json()["ID"], "web");
}

#[tokio::test]
async fn registering_again_replaces_the_definition_and_keeps_status_and_checks() {
    let server = TestServer::start().await;
    let first = json!({ "Name": "web", "Port": 1, "Checks": [
        { "CheckID": "a", "TTL": "1h" }, { "CheckID": "b", "TTL": "1h", "Status": "passing" }] });
    server.register(first).await;
    server.put("/v1/agent/check/pass/a?note=fine", "").await;
    // `b` is not named and stays; `a` has another definition and keeps status and output.
    server.register(json!({ "Name": "web", "Port": 2, "Check": { "CheckID": "a", "TTL": "2h" } })).await;
    let entry = &server.get("/v1/health/service/web").await.json()[0];
    assert_eq!(entry["Service"]["Port"], 2);
    let seen: Vec<_> = entry["Checks"]
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .map(|c| [&c["CheckID"], &c["Status"], &c["Output"]])
        .collect();
    assert_eq!(json!(seen), json!([["a", "passing", "fine"], ["b", "passing", ""]]));
    let path = "/v1/agent/service/register?replace-existing-checks";
    let again = json!({ "Name": "web", "Port": 3, "Check": { "CheckID": "a", "TTL": "2h" } });
    assert_eq!(server.put(path, again).await.status, 200);
    let entry = &server.get("/v1/health/service/web").await.json()[0];
    assert_eq!(
        (entry["Checks"].as_array().unwrap().len(), &entry["Checks"][1]["Status"]),
        (2, &json!("passing"))
    );
    let wrong = server
        .put("/v1/agent/service/register?replace-existing-checks=maybe", json!({ "Name": "web" }))
        .await;
    assert_eq!((wrong.status, wrong.text().as_str()), (400, "Invalid value for ?replace-existing-checks"));
}

#[tokio::test]
async fn registering_the_same_moves_no_index_and_stores_nothing() {
    let server = TestServer::start().await;
    let body = json!({ "Name": "web", "Port": 1, "Tags": ["a", "b"], "Check": { "TTL": "1h", "Status": "passing" } });
    server.register(body.clone()).await;
    let shown = || async {
        let answer = server.get("/v1/health/service/web").await;
        (answer.index(), answer.json(), server.metric("rollcall_registry_index").await)
    };
    let (before, commits) = (shown().await, server.metric("rollcall_store_commits_total").await);
    for _ in 0..5 {
        server.register(body.clone()).await;
    }
    assert_eq!(shown().await, before);
    // A flip may still be written behind, once.
    assert!(server.metric("rollcall_store_commits_total").await <= commits + 1.0);
    server.register(json!({ "Name": "web", "Port": 2 })).await;
    assert!(shown().await.0 > before.0, "the index moves when something changed");
}

#[tokio::test]
async fn deregistration_and_maintenance_answer_as_consul_does() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web" })).await;
    let unknown = |id: &str| {
        format!("Unknown service ID {id:?}. Ensure that the service ID is passed, not the service name.")
    };
    for (path, status, text) in [
        ("/v1/agent/service/deregister/nope", 404, unknown("nope")),
        ("/v1/agent/service/deregister/", 404, unknown("")),
        ("/v1/agent/service/maintenance/nope?enable=true", 404, unknown("nope")),
        ("/v1/agent/service/maintenance/", 400, "Missing service ID".into()),
        ("/v1/agent/service/maintenance/web", 400, "Missing value for enable".into()),
        ("/v1/agent/service/maintenance/web?enable=", 400, "Missing value for enable".into()),
        ("/v1/agent/service/maintenance/web?enable=zz", 400, "Invalid value for enable: \"zz\"".into()),
        ("/v1/agent/maintenance", 400, "Missing value for enable".into()),
        ("/v1/agent/maintenance?enable=zz", 400, "Invalid value for enable: \"zz\"".into()),
    ] {
        let answer = server.put(path, "").await;
        assert_eq!((answer.status, answer.text()), (status, text), "{path}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    assert_eq!(
        server.put("/v1/agent/service/maintenance/web?enable=true&reason=repair", "").await.status,
        200
    );
    assert_eq!(
        server.put("/v1/agent/service/maintenance/web?enable=true&reason=other", "").await.status,
        200
    );
    let check = server.get("/v1/health/checks/web").await.json()[0].clone();
    assert_eq!(check["CheckID"], "_service_maintenance:web");
    assert_eq!((&check["Status"], &check["Notes"]), (&json!("critical"), &json!("repair")));
    assert_eq!(server.put("/v1/agent/service/maintenance/web?enable=false", "").await.status, 200);
    assert_eq!(server.get("/v1/health/checks/web").await.text(), "[]");
    assert_eq!(server.put("/v1/agent/maintenance?enable=true", "").await.status, 200);
    let check = server.get("/v1/health/node/n1").await.json()[0].clone();
    assert_eq!(
        (&check["CheckID"], &check["Name"], &check["Type"]),
        (&json!("_node_maintenance"), &json!("Node Maintenance Mode"), &json!("maintenance"))
    );
    assert_eq!(
        check["Notes"],
        "Maintenance mode is enabled for this node, but no reason was provided. This is a default message."
    );
    assert_eq!(server.put("/v1/agent/maintenance?enable=0", "").await.status, 200);
    let left = server.get("/v1/health/node/n1").await.json();
    assert_eq!((left.as_array().unwrap().len(), &left[0]["CheckID"]), (1, &json!("serfHealth")));
}

#[tokio::test]
async fn agent_health_is_a_status_code() {
    let server = TestServer::start().await;
    for (id, status) in [("ok", "passing"), ("so-so", "warning"), ("bad", "critical")] {
        let check = json!({ "TTL": "1h", "Status": status });
        server.register(json!({ "ID": id, "Name": "web", "Check": check })).await;
        server.register(json!({ "ID": format!("{id}-only"), "Name": id, "Check": check })).await;
    }
    let asked = async |path: &str, headers: &[(&str, &str)]| {
        request(server.http(), "GET", &format!("/v1/agent/health/service/{path}"), headers, "").await
    };
    for (path, code, word) in [
        ("id/ok", 200, "passing"),
        ("id/so-so", 429, "warning"),
        ("id/bad", 503, "critical"),
        ("id/nope", 404, "ServiceId nope not found"),
        ("name/web", 503, "critical"),
        ("name/SO-SO", 429, "warning"),
        ("name/ok", 200, "passing"),
        ("name/nope", 404, "ServiceName nope Not Found"),
    ] {
        for answer in
            [asked(&format!("{path}?format=text"), &[]).await, asked(path, &[("accept", "text/plain")]).await]
        {
            assert_eq!((answer.status, answer.text().as_str()), (code, word), "{path}");
        }
        let answer = asked(path, &[]).await;
        assert_eq!((answer.status, answer.header("x-consul-reason")), (code, word), "{path}");
    }
    assert_eq!(
        asked("id/nope", &[]).await.text(),
        r#"{"AggregatedStatus":"critical","Service":null,"Checks":null}"#
    );
    assert_eq!(asked("name/nope", &[]).await.text(), "[]");
    let shown = asked("id/so-so", &[]).await.json();
    assert_eq!((&shown["AggregatedStatus"], &shown["Service"]["ID"]), (&json!("warning"), &json!("so-so")));
    assert_eq!(shown["Checks"][0]["CheckID"], "service:so-so");
    assert_eq!(asked("name/web", &[]).await.json().as_array().unwrap().len(), 3);
    for path in ["id/", "name/"] {
        let answer = asked(path, &[]).await;
        assert_eq!(answer.status, 500, "{}", answer.text());
    }
    server.put("/v1/agent/service/maintenance/ok?enable=true", "").await;
    let answer = asked("id/ok?format=text", &[]).await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "maintenance"));
}

#[tokio::test]
async fn names_that_dns_cannot_show_are_taken_with_a_warning() {
    let server = TestServer::start().await;
    for name in ["a.b", "with space", "*", "naïve", &"x".repeat(64)] {
        let answer = server.put(REGISTER, json!({ "Name": name })).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let warning = answer.header("x-rollcall-warning");
        assert!(warning.contains("cannot be asked for in DNS"), "{name}: {warning:?}");
        if name.is_ascii() {
            assert!(warning.contains(&format!("\"{name}\"")), "{warning}");
        }
        let path = percent(name);
        assert_eq!(
            server.get(&format!("/v1/health/service/{path}")).await.json()[0]["Service"]["Service"],
            name
        );
    }
    let answer = server.put(REGISTER, json!({ "Name": "good_name-1", "Tags": ["v1.2"] })).await;
    assert_eq!(answer.header("x-rollcall-warning"), "");
    let answer = server.put(REGISTER, json!({ "Name": "w", "Tags": ["a b"] })).await;
    assert!(answer.header("x-rollcall-warning").contains("tag \"a b\""));
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[tokio::test]
async fn ids_are_unique_on_a_node_and_lookups_try_the_callers_first() {
    let server = TestServer::start().await;
    let put = async |path: &str, body: Value| {
        let answer = server.put(path, body).await;
        (answer.status, answer.text())
    };
    for (node, port) in [("", 1), ("?node=h2", 2), ("?node=h3", 3)] {
        let path = format!("{REGISTER}{node}");
        assert_eq!(
            put(&path, json!({ "ID": "web-80", "Name": "web", "Port": port })).await,
            (200, "".into())
        );
    }
    assert_eq!(put(&format!("{REGISTER}?node=h2"), json!({ "ID": "x", "Name": "only" })).await.0, 200);
    let all = server.get("/v1/catalog/service/web").await.json();
    let nodes: Vec<_> = all.as_array().unwrap().iter().map(|e| [&e["Node"], &e["ServicePort"]]).collect();
    assert_eq!(json!(nodes), json!([["h2", 2], ["h3", 3], ["n1", 1]]));
    // The node is made on first use, with the caller's address.
    assert_eq!(all[0]["Address"], "127.0.0.1");
    assert_eq!(server.get("/v1/agent/service/web-80?node=h3").await.json()["Port"], 3);
    assert_eq!(server.get("/v1/agent/service/web-80").await.json()["Port"], 1);
    assert_eq!(server.get("/v1/agent/services").await.json().as_object().unwrap().len(), 1);
    // An id that only another node has is found there.
    assert_eq!(server.get("/v1/agent/service/x").await.json()["Service"], "only");
    assert_eq!(put("/v1/agent/service/deregister/x", json!({})).await.0, 200);
    // Our own goes first; then the id is on two others, and somebody has to say which.
    assert_eq!(put("/v1/agent/service/deregister/web-80", json!({})).await.0, 200);
    let (status, text) = put("/v1/agent/service/deregister/web-80", json!({})).await;
    assert!(status == 409 && text.contains("h2, h3") && text.contains("?node="), "{status} {text}");
    assert_eq!(put("/v1/agent/service/deregister/web-80?node=h2", json!({})).await.0, 200);
    let nodes = server.get("/v1/catalog/nodes").await.json();
    let names: Vec<_> = nodes.as_array().unwrap().iter().map(|n| n["Node"].as_str().unwrap()).collect();
    assert_eq!(names, ["h3", "n1"], "a node made on first use goes with its last instance");
}

#[tokio::test]
async fn another_loopback_address_is_still_this_machine() {
    let server = TestServer::start().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(server.http()).await.unwrap();
    let body = r#"{"Name":"from2"}"#;
    let head =
        format!("PUT {REGISTER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = crate::server::raw(stream, &format!("{head}{body}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.get("/v1/catalog/service/from2").await.json()[0]["Node"], "n1");
}

#[tokio::test]
async fn pretty_indents_by_four_and_ends_the_line() {
    let server = TestServer::start().await;
    assert_eq!(server.get("/v1/status/peers?pretty").await.text(), "[\n    \"127.0.0.1:8300\"\n]\n");
}

#[tokio::test]
async fn enterprise_scopes_and_other_datacenters_are_refused() {
    let server = TestServer::start().await;
    for (path, status, text) in [
        (
            "/v1/catalog/services?ns=default",
            400,
            "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature",
        ),
        ("/v1/health/service/web?dc=dc9", 500, "No path to datacenter"),
        ("/v1/health/service/web?passing=maybe", 400, "Invalid value for ?passing"),
        ("/v1/health/service/web?index=x", 400, "Invalid index"),
        ("/v1/health/service/web?index=1&wait=10", 400, "Invalid wait time"),
        (
            "/v1/catalog/nodes?stale&consistent",
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        ("/v1/health/service/", 400, "Missing service name"),
        ("/v1/catalog/service/", 400, "Missing service name"),
        ("/v1/catalog/node/", 400, "Missing node name"),
        ("/v1/health/state/", 400, "Missing check state"),
        ("/v1/agent/service/nope", 404, "unknown service ID: nope"),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{path}");
    }
    let self_ = server.get("/v1/agent/self").await.json();
    let config = &self_["Config"];
    assert_eq!(
        (&config["NodeName"], &config["Datacenter"], &config["Server"]),
        (&json!("n1"), &json!("dc1"), &json!(true))
    );
}

#[tokio::test]
async fn a_request_on_a_kept_connection_is_answered_at_the_end_and_told_that_it_is_the_last() {
    let server = TestServer::start().await;
    let mut kept = TcpStream::connect(server.http()).await.unwrap();
    let body = r#"{ "Name": "web", "Port": 1 }"#;
    let length = body.len();
    let asked = format!(
        "PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut answers = Vec::new();
    kept.write_all(asked.as_bytes()).await.unwrap();
    answers.push(read_answer(&mut kept).await);
    let stopping = server.running.stop();
    let asking = async {
        kept.write_all(asked.as_bytes()).await.unwrap();
        answers.push(read_answer(&mut kept).await);
        kept.read(&mut [0; 1]).await.unwrap()
    };
    let ((), after) = tokio::join!(stopping, asking);
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200")), "{answers:?}");
    let last = answers.iter().map(|answer| answer.to_ascii_lowercase().contains("connection: close"));
    assert_eq!((last.collect::<Vec<_>>(), after), (vec![false, true], 0));
}
