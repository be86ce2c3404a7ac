//! The faces under /v1/rollcall: Prometheus' HTTP service discovery, export and import.

use std::collections::BTreeMap;

use rollcall::config::Data;
use serde_json::{Value, json};

use crate::server::TestServer;

/// What a scrape finds: targets and their labels.
async fn targets(server: &TestServer, query: &str) -> Vec<(String, Value)> {
    let answer = server.get(&format!("/v1/rollcall/http_sd{query}")).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{}",
        answer.text()
    );
    let groups = answer.json();
    let group = |group: &Value| {
        assert_eq!(group["targets"].as_array().unwrap().len(), 1);
        (group["targets"][0].as_str().unwrap().to_owned(), group["labels"].clone())
    };
    groups.as_array().unwrap().iter().map(group).collect()
}

async fn addresses(server: &TestServer, query: &str) -> Vec<String> {
    targets(server, query).await.into_iter().map(|(target, _)| target).collect()
}

#[tokio::test]
async fn http_sd_names_the_healthy_and_keeps_what_prometheus_has_when_it_errs() {
    let server = TestServer::start().await;
    assert_eq!(addresses(&server, "").await, [""; 0], "a list, though it is empty");
    server
        .register(json!({"Name": "web", "ID": "w1", "Address": "192.0.2.1", "Port": 80, "Tags": ["V1", "a"],
            "Meta": {"team-x": "sales"}, "Check": {"TTL": "1h", "Status": "passing"}}))
        .await;
    server
        .register(json!({"Name": "web", "ID": "w2", "Address": "2001:db8::2", "Port": 81, "Tags": ["v1"],
            "Check": {"TTL": "1h", "Status": "warning"}}))
        .await;
    server
        .register(json!({"Name": "web", "ID": "w3", "Address": "192.0.2.3", "Port": 82,
            "Check": {"TTL": "1h"}}))
        .await;
    server.register(json!({"Name": "db", "Address": "db.example.com"})).await;
    for (query, expected) in [
        ("", &["db.example.com", "192.0.2.1:80", "[2001:db8::2]:81"][..]),
        ("?service=web", &["192.0.2.1:80", "[2001:db8::2]:81"]),
        ("?service=WEB&service=db", &["db.example.com", "192.0.2.1:80", "[2001:db8::2]:81"]),
        ("?service=web&passing", &["192.0.2.1:80"]),
        ("?service=web&passing=true", &["192.0.2.1:80"]),
        ("?service=web&passing=false", &["192.0.2.1:80", "[2001:db8::2]:81", "192.0.2.3:82"]),
        ("?tag=v1&tag=A", &["192.0.2.1:80"]),
        ("?service=none", &[]),
        ("?node-meta=a:b", &[]),
    ] {
        assert_eq!(addresses(&server, query).await, expected, "{query}");
    }
    let (_, labels) = targets(&server, "?service=web&passing").await.remove(0);
    let expected = json!({
        "__meta_rollcall_address": "127.0.0.1", "__meta_rollcall_dc": "dc1", "__meta_rollcall_health": "passing",
        "__meta_rollcall_node": "n1", "__meta_rollcall_service": "web", "__meta_rollcall_service_address": "192.0.2.1",
        "__meta_rollcall_service_id": "w1", "__meta_rollcall_service_metadata_team_x": "sales",
        "__meta_rollcall_service_port": "80", "__meta_rollcall_tags": ",V1,a,",
    });
    assert_eq!(labels, expected);
    // An error keeps Prometheus' targets; an empty list would drop them.
    let bad = server.get("/v1/rollcall/http_sd?passing=maybe").await;
    assert_eq!((bad.status, bad.text().as_str()), (400, "Invalid value for ?passing"));
    server.put("/v1/agent/service/maintenance/w1?enable=true", "").await;
    assert_eq!(addresses(&server, "?service=web").await, ["[2001:db8::2]:81"]);
}

#[tokio::test]
async fn http_sd_lists_every_instance_once_across_its_pieces() {
    let server = TestServer::with(|config| config.data = Data::Ephemeral).await;
    let service = |n: usize| format!("s{}", n % 7);
    for n in 0..700 {
        let definition =
            json!({"Name": service(n), "ID": format!("i{n}"), "Address": "192.0.2.1", "Port": 1000 + n});
        server.register(definition).await;
    }
    for (query, wanted) in [("", 700), ("?service=s3&service=s5", 200)] {
        let found = targets(&server, query).await;
        let ids: std::collections::BTreeSet<_> =
            found.iter().map(|(_, labels)| labels["__meta_rollcall_service_id"].as_str().unwrap()).collect();
        assert_eq!((found.len(), ids.len()), (wanted, wanted), "{query}");
    }
}

/// A registry with one of everything.
async fn fill(server: &TestServer) {
    server
        .register(json!({"Name": "Web", "ID": "w1", "Address": "192.0.2.1", "Port": 80, "Tags": ["v1"],
            "Meta": {"k": "v"}, "Weights": {"Passing": 3, "Warning": 2}, "EnableTagOverride": true,
            "TaggedAddresses": {"wan": {"Address": "198.51.100.1", "Port": 8080}},
            "Locality": {"Region": "eu", "Zone": "eu-1"},
            "Checks": [{"TTL": "1h", "Name": "beat", "DeregisterCriticalServiceAfter": "2h"},
                {"TCP": "127.0.0.1:1", "Interval": "1h", "Timeout": "3s", "FailuresBeforeCritical": 2}]}))
        .await;
    server.register(json!({"Name": "idle", "ID": "i1"})).await;
    assert_eq!(server.put("/v1/agent/check/pass/service:w1:1?note=well", "").await.status, 200);
    let node_check = json!({"Name": "disk", "TTL": "1h", "Status": "passing"});
    assert_eq!(server.put("/v1/agent/check/register", node_check).await.status, 200);
    assert_eq!(server.put("/v1/agent/service/maintenance/i1?enable=true&reason=why", "").await.status, 200);
    let catalog = json!({"Node": "n2", "Address": "10.0.0.2", "ID": "00000000-0000-0000-0000-000000000002",
        "TaggedAddresses": {"wan": "198.51.100.2"}, "NodeMeta": {"rack": "r1"},
        "Service": {"ID": "d1", "Service": "db", "Port": 5432},
        "Checks": [{"CheckID": "c1", "Name": "c", "ServiceID": "d1", "Status": "warning"},
            {"CheckID": "c2", "Name": "node", "Status": "passing"}]});
    assert_eq!(server.put("/v1/catalog/register", catalog).await.status, 200);
}

/// Whether the probe of the closed port has said what it says.
fn has_been_probed(web: &Value) -> bool {
    let checks = web[0]["Checks"].as_array().unwrap();
    checks.iter().any(|check| check["Output"].as_str().unwrap().contains("connection refused"))
}

/// The records of an export, without our own node, whose ID is a server's own.
async fn records(server: &TestServer) -> Vec<Value> {
    let answer = server.get("/v1/rollcall/export").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let document = answer.json();
    assert_eq!(document["rollcall_export"], 1);
    let records = document["records"].as_array().unwrap();
    assert!(records[0]["node"]["name"].is_string());
    records.iter().filter(|record| record["node"]["name"] != "n1").cloned().collect()
}

fn counts(report: &Value, what: &str) -> (u64, u64, u64) {
    let count = |key: &str| report[what][key].as_u64().unwrap();
    (count("New"), count("Changed"), count("Unchanged"))
}

#[tokio::test]
async fn an_export_comes_back_equal_on_another_server_and_after_its_restart() {
    let (one, two) = (TestServer::start().await, TestServer::start().await);
    fill(&one).await;
    one.until("Web", has_been_probed).await;
    let text = one.get("/v1/rollcall/export").await.text();
    let dry = two.put("/v1/rollcall/import?dry-run", &text).await;
    assert_eq!((dry.status, counts(&dry.json(), "Services")), (200, (3, 0, 0)), "{}", dry.text());
    assert_eq!(records(&two).await, [json!(null); 0], "a dry run changes nothing");
    let report = two.put("/v1/rollcall/import", &text).await;
    assert_eq!(report.status, 200, "{}", report.text());
    let report = report.json();
    assert_eq!(counts(&report, "Nodes"), (1, 0, 1), "our own node is our own");
    assert_eq!((counts(&report, "Services"), counts(&report, "Checks")), ((3, 0, 0), (5, 0, 0)));
    assert_eq!(counts(&report, "Maintenance"), (1, 0, 0));
    assert_eq!((&report["Refused"], &report["Partly"]), (&json!([]), &json!([])));
    two.until("Web", has_been_probed).await;
    assert_eq!(records(&two).await, records(&one).await);

    let index = two.get("/v1/catalog/services").await.index();
    let again = two.put("/v1/rollcall/import", &text).await.json();
    assert_eq!((counts(&again, "Services"), counts(&again, "Checks")), ((0, 0, 3), (0, 0, 5)), "{again}");
    assert_eq!(two.get("/v1/catalog/services").await.index(), index, "nothing moved");
    let before = records(&two).await;
    let two = two.restart().await;
    two.until("Web", has_been_probed).await;
    assert_eq!(records(&two).await, before);
}

#[tokio::test]
async fn an_import_with_a_mistake_names_all_of_them_and_changes_nothing() {
    let server = TestServer::start().await;
    let document = json!({"rollcall_export": 1, "records": [
        {"node": {"name": "good", "address": "10.0.0.9"}},
        {"instance": {"node": "good", "id": "a", "service": "a", "prot": 1}},
        {"instance": {"node": "nowhere", "id": "b", "service": "b"}},
        {"instance": {"node": "good", "id": "c", "service": "c"}},
        {"instance": {"node": "good", "id": "c", "service": "c"}},
        {"instance": {"node": "good", "id": "d", "service": "d", "weights": {"passing": 0, "warning": 1}}},
        {"check": {"node": "good", "id": "k", "instance": "gone", "name": "k", "kind": {"type": "external"},
            "output_max": 10, "initial": "passing"}},
        {"check": {"node": "good", "id": "s", "name": "s", "kind": {"type": "script", "args": ["true"]},
            "interval": "10s", "timeout": "1s", "output_max": 10, "initial": "passing"}},
    ]});
    let before = server.get("/v1/rollcall/export").await.text();
    let refused = server.put("/v1/rollcall/import", &document).await;
    let text = refused.text();
    assert_eq!(refused.status, 400);
    for line in [
        "nothing was changed:",
        "record 2: unknown key \"prot\"",
        "record 3: its node \"nowhere\" is neither here nor before it in the document",
        "record 5: service \"c\" on node \"good\" stands twice",
        "record 6: Invalid Weights: Passing must be greater than 0",
        "record 7: its service \"gone\" is neither here nor before it in the document",
        "record 8: Invalid check: scripts are disabled here; [checks] script = true allows them",
    ] {
        assert!(text.lines().any(|own| own == line), "{line:?} is not in {text}");
    }
    assert_eq!(text.lines().count(), 7, "{text}");
    for body in ["", "{}", "[]", "{\"rollcall_export\":1,\"records\":[{\"node\":"] {
        let refused = server.put("/v1/rollcall/import", body).await;
        assert!(
            refused.status == 400 && refused.text().contains("nothing was changed"),
            "{}",
            refused.text()
        );
    }
    assert_eq!(server.get("/v1/rollcall/export").await.text(), before);
}

#[tokio::test]
async fn an_import_that_is_too_large_or_meets_a_limit_says_so() {
    let server = TestServer::with(|config| {
        config.http.import_max = 2_000;
        config.limits.instances_max = 1;
    })
    .await;
    let record = |id: &str| json!({"instance": {"node": "n1", "id": id, "service": "a"}});
    let document = |ids: &[&str]| json!({"rollcall_export": 1, "records": ids.iter().map(|id| record(id)).collect::<Vec<_>>()});
    let long = server.put("/v1/rollcall/import", document(&[&"x".repeat(2_000)])).await;
    assert_eq!(long.status, 413, "{}", long.text());
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"import_max\"}").await, 1.0);
    let report = server.put("/v1/rollcall/import", document(&["a", "b"])).await;
    assert_eq!(report.status, 409);
    let refused = &report.json()["Refused"];
    assert_eq!(refused.as_array().unwrap().len(), 1, "{refused}");
    assert!(
        refused[0]["Reason"].as_str().unwrap().contains("at most 1 are allowed ([limits] instances_max)")
    );
    let entry = refused[0]["Entry"].as_str().unwrap();
    assert!(entry.starts_with("service ") && entry.ends_with("on node \"n1\""), "{entry}");
    assert_eq!(server.get("/v1/catalog/service/a").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_import_takes_catalog_entries_one_by_one_and_prunes_only_what_came_so() {
    let server = TestServer::start().await;
    server.register(json!({"Name": "own", "ID": "own-1"})).await;
    let service = |id: &str, more: Value| {
        let mut entry = json!({"catalog": {"Node": "h1", "Address": "10.0.0.1",
            "Service": {"ID": id, "Service": "web", "Port": 80},
            "Checks": [{"CheckID": format!("c-{id}"), "Name": "c", "ServiceID": id, "Status": "passing",
                "Output": "from afar"}]}});
        let extra: BTreeMap<String, Value> = serde_json::from_value(more).unwrap();
        extra.into_iter().for_each(|(key, value)| entry["catalog"]["Service"][key] = value);
        entry
    };
    let document = |records: Value| json!({"rollcall_export": 1, "records": records});
    // A word of maintenance of what is refused does not stop the rest.
    let word = json!({"maintenance": {"node": "h1", "instance": "b", "reason": "why"}});
    let first = document(json!([service("a", json!({})), service("b", json!({"Address": "{{ x }}"})), word]));
    let report = server.put("/v1/rollcall/import", &first).await;
    assert_eq!(report.status, 409, "{}", report.text());
    let refused = &report.json()["Refused"][0];
    assert_eq!(refused["Entry"], "service \"b\" on node \"h1\"");
    assert!(refused["Reason"].as_str().unwrap().contains("Invalid service address"), "{refused}");
    assert_eq!(report.json()["Refused"][1]["Reason"], "what it is of could not be taken");
    let web = server.get("/v1/health/service/web").await.json();
    assert_eq!(
        (&web[0]["Checks"][0]["Status"], &web[0]["Checks"][0]["Output"]),
        (&json!("passing"), &json!("from afar"))
    );

    let second = document(json!([service("b", json!({}))]));
    assert_eq!(server.put("/v1/rollcall/import", &second).await.status, 200);
    let ids = async |server: &TestServer| {
        let web = server.get("/v1/catalog/service/web").await.json();
        web.as_array()
            .unwrap()
            .iter()
            .map(|i| i["ServiceID"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&server).await, ["a", "b"], "nothing goes of itself");
    let pruned = server.put("/v1/rollcall/import?prune", &second).await.json();
    assert_eq!(pruned["Removed"], json!(["service \"a\" on node \"h1\""]));
    assert_eq!(ids(&server).await, ["b"]);
    assert_eq!(server.get("/v1/catalog/service/own").await.json().as_array().unwrap().len(), 1);
    let nothing = server.put("/v1/rollcall/import?prune", document(json!([]))).await;
    assert!(
        nothing.status == 400 && nothing.text().contains("would remove everything"),
        "{}",
        nothing.text()
    );
    // What could not be read may be what is here.
    let unread = document(json!([service("c", json!({"Port": -1}))]));
    let report = server.put("/v1/rollcall/import?prune", &unread).await.json();
    assert!(report["NotPruned"].as_str().unwrap().contains("nothing was removed"), "{report}");
    assert_eq!(ids(&server).await, ["b"]);
}
