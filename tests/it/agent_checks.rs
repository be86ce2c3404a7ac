//! The agent API for checks: texts, statuses, and who may say what of a check.

use serde_json::json;

use crate::server::TestServer;

const REGISTER: &str = "/v1/agent/check/register";

#[tokio::test]
async fn refusals_have_consuls_texts() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web", "Check": { "TCP": "127.0.0.1:1", "Interval": "1h" } })).await;
    let unknown = "Unknown check ID \"nope\". Ensure that the check ID is passed, not the check name.";
    for (path, body, status, text) in [
        (REGISTER, json!({}), 400, "Missing check name"),
        (REGISTER, json!({ "Name": "c", "TTL": "1m", "Status": "fine" }), 400, "Bad check status"),
        (
            REGISTER,
            json!({ "Name": "c", "TTL": "1m", "ServiceID": "zz" }),
            404,
            "ServiceID \"zz\" does not exist",
        ),
        (REGISTER, json!({ "Name": "c" }), 400, "Invalid check: TTL must be > 0 for TTL checks"),
        (
            REGISTER,
            json!({ "Name": "c", "TTL": "1m", "Foo": 1 }),
            400,
            "Request decode failed: json: unknown field \"Foo\"",
        ),
        ("/v1/agent/check/deregister/nope", json!({}), 404, unknown),
        ("/v1/agent/check/pass/nope", json!({}), 404, unknown),
        ("/v1/agent/check/warn/nope", json!({}), 404, unknown),
        ("/v1/agent/check/fail/nope", json!({}), 404, unknown),
        ("/v1/agent/check/update/nope", json!({ "Status": "passing" }), 404, unknown),
        (
            "/v1/agent/check/update/service:web",
            json!({ "Status": "maintenance" }),
            400,
            "Invalid check status: 'maintenance'",
        ),
        (
            "/v1/agent/check/pass/service:web",
            json!({}),
            500,
            "CheckID \"service:web\" does not have associated TTL",
        ),
    ] {
        let answer = server.put(path, &body).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{path} {body}");
    }
    assert_eq!(server.get("/v1/agent/checks").await.json().as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_check_is_said_in_consuls_words() {
    let server = TestServer::start().await;
    let http = "http://127.0.0.1:1/";
    for (check, text) in [
        (json!({ "TTL": "1m", "Interval": "1s" }), "Interval and TTL cannot both be specified"),
        (json!({ "TTL": "1m", "HTTP": http, "Interval": "1s" }), "Interval and TTL cannot both be specified"),
        (
            json!({ "HTTP": http }),
            "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
        ),
        (
            json!({ "TCP": "127.0.0.1:1", "Interval": "0s" }),
            "Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
        ),
        (json!({ "AliasService": "x", "Interval": "1s" }), "Interval cannot be set for Alias checks"),
        (json!({ "AliasService": "x", "TTL": "1s" }), "TTL must be not be set for Alias checks"),
        (json!({}), "TTL must be > 0 for TTL checks"),
        (json!({ "TTL": "1m", "OutputMaxSize": -1 }), "MaxOutputMaxSize must be positive"),
        (
            json!({ "TCP": "127.0.0.1:1", "Interval": "1s", "FailuresBeforeWarning": 3, "FailuresBeforeCritical": 2 }),
            "FailuresBeforeWarning can't be higher than FailuresBeforeCritical",
        ),
    ] {
        for (path, body) in [
            ("/v1/agent/service/register", json!({ "Name": "web", "Check": check })),
            (REGISTER, {
                let mut alone = check.clone();
                alone["Name"] = json!("c");
                alone
            }),
        ] {
            let answer = server.put(path, &body).await;
            assert_eq!((answer.status, answer.text()), (400, format!("Invalid check: {text}")), "{body}");
        }
    }
    let answer = server
        .put("/v1/agent/service/register", json!({ "Name": "web", "Check": { "TTL": "1m", "Status": "up" } }))
        .await;
    let text = "Status for checks must 'passing', 'warning', 'critical'";
    assert_eq!((answer.status, answer.text().as_str()), (400, text));
    assert_eq!(server.get("/v1/agent/services").await.text(), "{}");
    assert_eq!(server.get("/v1/agent/checks").await.text(), "{}");
}

#[tokio::test]
async fn a_client_says_how_its_ttl_check_stands() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web", "Check": { "TTL": "1h" } })).await;
    for (path, body, status, output) in [
        ("/v1/agent/check/pass/service:web?note=all%20good", json!({}), "passing", "all good"),
        ("/v1/agent/check/warn/service:web?note=slow", json!({}), "warning", "slow"),
        ("/v1/agent/check/fail/service:web", json!({}), "critical", ""),
        (
            "/v1/agent/check/update/service:web",
            json!({ "Status": "passing", "Output": "up" }),
            "passing",
            "up",
        ),
        ("/v1/agent/check/update/service:web", json!({ "status": "critical" }), "critical", ""),
    ] {
        let answer = server.put(path, &body).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{path}");
        let shown = &server.get("/v1/agent/checks").await.json()["service:web"];
        assert_eq!((&shown["Status"], &shown["Output"]), (&json!(status), &json!(output)), "{path}");
    }
    let long = json!({ "Status": "passing", "Output": "x".repeat(10_000) });
    assert_eq!(server.put("/v1/agent/check/update/service:web", long).await.status, 200);
    let shown = server.get("/v1/agent/checks").await.json()["service:web"]["Output"].clone();
    let expected = format!("{} ... (captured 4096 of 10000 bytes)", "x".repeat(4096));
    assert_eq!(shown, expected.as_str());
}

#[tokio::test]
async fn checks_come_and_go_on_their_own() {
    let server = TestServer::start().await;
    server.register(json!({ "ID": "web-1", "Name": "web" })).await;
    let of_service = json!({ "ID": "c/1", "Name": "first", "service_id": "web-1", "TTL": "1h", "Status": "passing",
                             "Notes": "n" });
    assert_eq!(server.put(REGISTER, of_service).await.status, 200);
    assert_eq!(server.put(REGISTER, json!({ "Name": "of the node", "TTL": "1h" })).await.status, 200);
    let shown = server.get("/v1/agent/checks").await.json();
    let first = &shown["c/1"];
    assert_eq!(
        [&first["Name"], &first["ServiceID"], &first["ServiceName"], &first["Notes"], &first["Status"]],
        [&json!("first"), &json!("web-1"), &json!("web"), &json!("n"), &json!("passing")]
    );
    let node = &shown["of the node"];
    assert_eq!((&node["ServiceID"], &node["Status"]), (&json!(""), &json!("critical")));
    // The node's check is each instance's.
    let entry = server.get("/v1/health/service/web").await.json();
    assert_eq!(entry[0]["Checks"].as_array().unwrap().len(), 3);
    assert_eq!(server.get("/v1/health/service/web?passing").await.text(), "[]");
    assert_eq!(server.put("/v1/agent/check/deregister/of%20the%20node", "").await.status, 200);
    assert_eq!(
        server.get("/v1/health/service/web?passing").await.json()[0]["Checks"].as_array().unwrap().len(),
        2
    );
    assert_eq!(server.put("/v1/agent/check/deregister/c%2F1", "").await.status, 200);
    assert_eq!(server.get("/v1/agent/checks").await.text(), "{}");
    assert_eq!(server.get("/v1/health/checks/web").await.text(), "[]");
}

#[tokio::test]
async fn a_script_is_refused_unless_it_is_allowed_and_nothing_is_changed() {
    let server = TestServer::start().await;
    server.register(json!({ "Name": "web", "Port": 1 })).await;
    let before = crate::http::catalog(&server).await;
    let body =
        json!({ "Name": "web", "Port": 2, "Check": { "ScriptArgs": ["/bin/true"], "Interval": "10s" } });
    let answer = server.put("/v1/agent/service/register", &body).await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().starts_with(
        "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true"
    ));
    let alone = json!({ "Name": "c", "args": ["/bin/true"], "Interval": "10s" });
    assert_eq!(server.put(REGISTER, alone).await.status, 500);
    assert_eq!(crate::http::catalog(&server).await, before);
    let allowed = TestServer::with(|config| config.checks.script = true).await;
    assert_eq!(allowed.put("/v1/agent/service/register", &body).await.status, 200);
    assert_eq!(allowed.get("/v1/health/checks/web").await.json()[0]["Type"], "script");
}
