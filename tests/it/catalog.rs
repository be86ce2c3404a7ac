//! The catalog API: what somebody else looks after is put and removed here.

use serde_json::{Value, json};

use crate::server::TestServer;

const REGISTER: &str = "/v1/catalog/register";
const DEREGISTER: &str = "/v1/catalog/deregister";

async fn put(server: &TestServer, path: &str, body: Value) {
    let answer = server.put(path, &body).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "true"), "{body}");
}

#[tokio::test]
async fn a_registration_reads_back_in_every_view() {
    let server = TestServer::start().await;
    let id = "40e4a748-2192-161a-0510-9bf59fe950b5";
    let body = json!({
        "Datacenter": "dc1", "ID": id, "Node": "ext", "Address": "10.9.0.1", "TaggedAddresses": { "wan": "192.0.2.1" },
        "NodeMeta": { "external-node": "true", "rack": "7" },
        "Service": { "ID": "db-1", "Service": "db", "Tags": ["primary"], "Port": 5432, "Address": "10.9.0.2",
                     "Weights": { "Passing": 0, "Warning": 0 } },
        "Check": { "Node": "ext", "CheckID": "db-up", "Name": "up", "Status": "passing", "ServiceID": "db-1" } });
    put(&server, REGISTER, body.clone()).await;
    let service = server.get("/v1/catalog/service/db").await;
    let (index, mut shown) = (service.index(), service.json()[0].clone());
    let made = shown["CreateIndex"].take();
    assert_eq!(shown["ModifyIndex"].take(), made);
    let expected = json!({
        "ID": id, "Node": "ext", "Address": "10.9.0.1", "Datacenter": "dc1",
        "TaggedAddresses": { "lan": "10.9.0.1", "lan_ipv4": "10.9.0.1", "wan": "192.0.2.1", "wan_ipv4": "10.9.0.1" },
        "NodeMeta": { "external-node": "true", "rack": "7" }, "ServiceKind": "", "ServiceID": "db-1",
        "ServiceName": "db", "ServiceTags": ["primary"], "ServiceAddress": "10.9.0.2",
        "ServiceTaggedAddresses": { "lan_ipv4": { "Address": "10.9.0.2", "Port": 5432 },
                                    "wan_ipv4": { "Address": "10.9.0.2", "Port": 5432 } },
        "ServiceWeights": { "Passing": 1, "Warning": 1 }, "ServiceMeta": {}, "ServicePort": 5432,
        "ServiceSocketPath": "", "ServiceEnableTagOverride": false,
        "ServiceProxy": { "Mode": "", "MeshGateway": {}, "Expose": {} }, "ServiceConnect": {},
        "ServiceLocality": null, "CreateIndex": null, "ModifyIndex": null });
    assert_eq!(shown, expected);
    let node = server.get("/v1/catalog/node/EXT").await.json();
    assert_eq!((&node["Node"]["ID"], &node["Services"]["db-1"]["Service"]), (&json!(id), &json!("db")));
    assert_eq!(server.get("/v1/catalog/node/40e4").await.json(), node, "a node is found by a part of its id");
    let services = server.get("/v1/catalog/node-services/ext").await.json();
    assert_eq!(services["Services"], json!([node["Services"]["db-1"]]));
    let of_rack =
        async |rack: &str| server.get(&format!("/v1/catalog/nodes?node-meta=rack:{rack}")).await.json();
    assert_eq!(of_rack("7").await.as_array().unwrap().len(), 1);
    assert_eq!(of_rack("8").await, json!([]));
    assert_eq!(
        server.get("/v1/catalog/services?node-meta=rack:7").await.json(),
        json!({ "db": ["primary"] })
    );
    assert_eq!(
        server.get("/v1/health/service/db?passing=1").await.json()[0]["Checks"][0]["Status"],
        "passing"
    );
    // The agent API lists only what was registered through it.
    assert_eq!(server.get("/v1/agent/services?node=ext").await.text(), "{}");
    put(&server, REGISTER, body).await;
    let again = server.get("/v1/catalog/service/db").await;
    assert_eq!((again.index(), &again.json()[0]["ModifyIndex"]), (index, &made), "the same moves no index");
}

#[tokio::test]
async fn refusals_have_consuls_texts_and_change_nothing() {
    let server = TestServer::start().await;
    let before = crate::http::catalog(&server).await;
    let of = |more: Value| {
        let mut body = json!({ "Node": "n2", "Address": "10.0.0.2" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let check = |more: Value| {
        let mut check = json!({ "CheckID": "c2", "Name": "c" });
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of(json!({ "Check": check }))
    };
    for (body, status, text) in [
        (json!({ "Address": "10.0.0.2" }), 500, "Must provide node"),
        (json!({ "Node": "n2" }), 500, "Must provide address if SkipNodeUpdate is not set"),
        (of(json!({ "ID": "12" })), 500, "Bad node ID"),
        (of(json!({ "Service": { "Port": 1 } })), 500, "Must provide service name (Service.Service)"),
        (
            of(json!({ "Service": { "ID": "x" } })),
            500,
            "Must provide service name (Service.Service) when service ID is provided",
        ),
        (of(json!({ "Datacenter": "dc9" })), 500, "No path to datacenter"),
        (check(json!({ "ServiceID": "unk" })), 500, "Unknown service ID 'unk' for check ID 'c2'"),
        (
            check(json!({ "Node": "n3" })),
            500,
            "Node 'n3' for check 'c2' doesn't match register request node 'n2'",
        ),
        (check(json!({ "Status": "maintenance" })), 400, "Invalid check status: 'maintenance'"),
        (of(json!({ "Service": { "Service": "s", "Address": "0.0.0.0" } })), 500, "Invalid service address"),
        (of(json!({ "Service": { "Service": "s", "Port": 70000 } })), 400, "Invalid service port 70000"),
        (
            of(json!({ "Service": { "Service": "s", "Prot": 7 } })),
            400,
            "Request decode failed: json: unknown field \"Prot\"",
        ),
        (of(json!({ "NodeMeta": { "a b": "" } })), 400, "Invalid Node Meta: Couldn't load metadata pair"),
        (
            json!({ "Node": "n9", "SkipNodeUpdate": true, "Service": { "Service": "s" } }),
            500,
            "node \"n9\" does not exist",
        ),
    ] {
        let answer = server.put(REGISTER, &body).await;
        assert!(answer.status == status && answer.text().starts_with(text), "{body}: {answer:?}");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    }
    let answer = server.put(DEREGISTER, json!({ "ServiceID": "x" })).await;
    assert_eq!((answer.status, answer.text().as_str()), (500, "Must provide node"));
    assert_eq!(crate::http::catalog(&server).await, before);
}

#[tokio::test]
async fn deregistration_takes_a_check_a_service_or_a_whole_node() {
    let server = TestServer::start().await;
    for id in ["a", "b"] {
        let body = json!({ "Node": "n2", "Address": "10.0.0.2", "Service": { "ID": id, "Service": "web" },
            "Checks": [{ "CheckID": format!("c-{id}"), "Name": "c", "ServiceID": id, "Status": "passing" }] });
        put(&server, REGISTER, body).await;
    }
    put(&server, DEREGISTER, json!({ "Node": "n2", "CheckID": "c-a" })).await;
    assert_eq!(server.get("/v1/health/checks/web").await.json().as_array().unwrap().len(), 1);
    put(&server, DEREGISTER, json!({ "Node": "n2", "ServiceID": "a" })).await;
    assert_eq!(server.get("/v1/catalog/service/web").await.json().as_array().unwrap().len(), 1);
    // What is not there is no error.
    for body in [json!({ "Node": "n2", "ServiceID": "a" }), json!({ "Node": "n7" })] {
        put(&server, DEREGISTER, body).await;
    }
    put(&server, DEREGISTER, json!({ "Node": "n2" })).await;
    assert_eq!(server.get("/v1/catalog/services").await.text(), r#"{"consul":[]}"#);
    let left = server.get("/v1/health/state/any").await.json();
    assert_eq!((left.as_array().unwrap().len(), &left[0]["CheckID"]), (1, &json!("serfHealth")));
    assert_eq!(server.get("/v1/catalog/nodes").await.json().as_array().unwrap().len(), 1);
    // Our own node stays, whatever is asked.
    put(&server, DEREGISTER, json!({ "Node": "n1" })).await;
    assert_eq!(server.get("/v1/catalog/nodes").await.json()[0]["Node"], "n1");
}

#[tokio::test]
async fn a_status_from_outside_counts_where_nobody_probes() {
    let server = TestServer::start().await;
    for status in ["critical", "passing", "warning"] {
        let body = json!({ "Node": "n2", "Address": "10.0.0.2", "Service": { "Service": "web" },
            "Check": { "CheckID": "c", "Name": "c", "ServiceID": "web", "Status": status } });
        put(&server, REGISTER, body).await;
        assert_eq!(server.get("/v1/health/checks/web").await.json()[0]["Status"], status);
    }
    // What it says comes with it, for a check that is new and for one that is known.
    for (id, output) in [("c", "80 % full"), ("new", "fine"), ("new", "")] {
        let body = json!({ "Node": "n2", "Address": "10.0.0.2",
            "Check": { "CheckID": id, "Name": "c", "ServiceID": "web", "Status": "passing", "Output": output } });
        put(&server, REGISTER, body).await;
        let checks = server.get("/v1/health/checks/web").await.json();
        let shown = checks.as_array().unwrap().iter().find(|check| check["CheckID"] == id).unwrap();
        assert_eq!((&shown["Status"], &shown["Output"]), (&json!("passing"), &json!(output)));
    }
}
