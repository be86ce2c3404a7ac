//! Our own node: its service `consul` and its check `serfHealth` are where Consul's clients look for them, and no request
//! changes them.

use hickory_proto::rr::{RData, RecordType};
use serde_json::{Value, json};

use crate::server::TestServer;

async fn with_meta() -> TestServer {
    TestServer::with(|config| {
        config.node_address = Some(rollcall::model::Address::parse("192.0.2.10").unwrap());
        config.node_meta = [("rack".to_owned(), "7".to_owned())].into();
    })
    .await
}

#[tokio::test]
async fn the_own_node_its_service_and_its_check_are_in_the_catalog_in_health_and_in_dns() {
    let server = with_meta().await;
    let nodes = server.get("/v1/catalog/nodes").await.json();
    let tagged = json!({ "lan": "192.0.2.10", "wan": "192.0.2.10", "lan_ipv4": "192.0.2.10", "wan_ipv4": "192.0.2.10" });
    assert_eq!((&nodes[0]["Node"], &nodes[0]["Address"]), (&json!("n1"), &json!("192.0.2.10")));
    assert_eq!((&nodes[0]["TaggedAddresses"], &nodes[0]["Meta"]), (&tagged, &json!({ "rack": "7" })));
    assert_eq!(server.get("/v1/catalog/services").await.json(), json!({ "consul": [] }));
    let member = &server.get("/v1/catalog/service/consul").await.json()[0];
    assert_eq!(
        [&member["Node"], &member["Address"], &member["ServiceID"], &member["ServicePort"]],
        [&json!("n1"), &json!("192.0.2.10"), &json!("consul"), &json!(8300)]
    );
    let member = &server.get("/v1/health/service/consul?passing").await.json()[0];
    assert_eq!(member["Service"]["Service"], "consul");
    let check = &member["Checks"][0];
    assert_eq!(
        [&check["CheckID"], &check["Name"], &check["Status"], &check["Output"], &check["Type"]],
        [
            &json!("serfHealth"),
            &json!("Serf Health Status"),
            &json!("passing"),
            &json!("Agent alive and reachable"),
            &json!("")
        ]
    );
    assert_eq!(server.get("/v1/health/node/n1").await.json(), member["Checks"]);
    assert_eq!(server.get("/v1/catalog/node/n1").await.json()["Services"]["consul"]["Port"], 8300);
    let address = server.ask("consul.service.consul.", RecordType::A).await;
    assert!(matches!(&address.answers[0].data, RData::A(a) if a.to_string() == "192.0.2.10"), "{address:?}");
    let srv = server.ask("consul.service.consul.", RecordType::SRV).await;
    assert!(matches!(&srv.answers[0].data, RData::SRV(srv) if srv.port == 8300), "{srv:?}");
}

#[tokio::test]
async fn agents_do_not_list_them_and_no_request_changes_them() {
    let server = with_meta().await;
    for path in ["services", "checks"] {
        assert_eq!(server.get(&format!("/v1/agent/{path}")).await.text(), "{}");
    }
    assert_eq!(server.get("/v1/agent/service/consul").await.status, 404);
    assert_eq!(server.get("/v1/agent/health/service/id/consul").await.status, 404);
    assert_eq!(server.get("/v1/agent/health/service/name/consul").await.status, 404);
    let before = crate::http::catalog(&server).await;
    let of = |body: Value| body.to_string();
    let ours = "is this server's own";
    let catalog = |more: Value| {
        let mut body = json!({ "Node": "n1", "Address": "192.0.2.66" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let (register, catalog_register) = ("agent/service/register", "catalog/register");
    for (path, body, status, text) in [
        (register, of(json!({ "Name": "consul", "Port": 1 })), 409, ours),
        (register, of(json!({ "ID": "consul", "Name": "web" })), 409, ours),
        ("agent/check/register", of(json!({ "Name": "serfHealth", "TTL": "1m" })), 409, ours),
        (
            "agent/check/register",
            of(json!({ "Name": "x", "ServiceID": "consul", "TTL": "1m" })),
            404,
            "does not exist",
        ),
        ("agent/service/deregister/consul", String::new(), 404, "Unknown service ID"),
        ("agent/service/maintenance/consul?enable=true", String::new(), 404, "Unknown service ID"),
        ("agent/check/deregister/serfHealth", String::new(), 404, "Unknown check ID"),
        ("agent/check/fail/serfHealth", String::new(), 404, "Unknown check ID"),
        (catalog_register, catalog(json!({ "Service": { "Service": "consul", "Port": 1 } })), 409, ours),
        (
            catalog_register,
            catalog(json!({ "Check": { "CheckID": "serfHealth", "Name": "x", "Status": "critical" } })),
            409,
            ours,
        ),
        (
            catalog_register,
            catalog(json!({ "Check": { "CheckID": "y", "Name": "y", "ServiceID": "consul" } })),
            409,
            ours,
        ),
        ("catalog/deregister", of(json!({ "Node": "n1", "ServiceID": "consul" })), 409, ours),
        ("catalog/deregister", of(json!({ "Node": "n1", "CheckID": "serfHealth" })), 409, ours),
        ("catalog/deregister", of(json!({ "Node": "n1" })), 200, "true"),
    ] {
        let answer = server.put(&format!("/v1/{path}"), &body).await;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        assert!(answer.text().contains(text), "{path} {body}: {}", answer.text());
    }
    assert_eq!(crate::http::catalog(&server).await, before);
}

#[tokio::test]
async fn they_count_towards_no_limit_and_look_the_same_after_a_restart() {
    let server = TestServer::with(|config| {
        (config.limits.instances_max, config.limits.checks_max, config.limits.checks_per_instance_max) =
            (1, 1, 1);
    })
    .await;
    server.register(json!({ "Name": "web" })).await;
    let check = json!({ "Name": "of the node", "TTL": "1h", "Status": "passing" });
    assert_eq!(server.put("/v1/agent/check/register", check).await.status, 200);
    assert_eq!(server.metric("rollcall_registry_instances").await, 1.0);
    // The first start of all shows the node before the store has given it an index.
    let server = server.restart().await;
    let service = server.get("/v1/catalog/service/consul").await.json();
    let server = server.restart().await;
    assert_eq!(server.get("/v1/catalog/service/consul").await.json(), service);
    assert_eq!(server.metric("rollcall_registry_instances").await, 1.0);
}
