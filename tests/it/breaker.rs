//! Circuit breakers: what callers report takes an instance out, and brings it back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hickory_proto::rr::{RData, RecordType};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rollcall::config::Config;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::acl::{Asks, controlled};
use crate::server::{PATIENCE, TestServer, ask, query, request};

const PATH: &str = "/v1/rollcall/report";

/// A batch of one report on an instance of `web`.
fn one(n: u8, success: i64, failure: i64) -> Value {
    json!({ "Reports": [{ "Service": "web", "ID": format!("web-{n}"), "Success": success, "Failure": failure }] })
}

async fn says(server: &TestServer, body: Value) -> Value {
    let answer = server.put(PATH, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The same from another address of this machine: another reporter.
async fn says_from(address: &str, server: &TestServer, body: Value) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    let stream: TcpStream = socket.connect(server.http()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::put(PATH).header("host", server.http().to_string());
    let body = http_body_util::Full::<bytes::Bytes>::from(body.to_string());
    let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap();
}

async fn fleet(server: &TestServer, count: u8) {
    for n in 1..=count {
        let check = json!({ "TTL": "1h", "Status": "passing" });
        let body = json!({ "Name": "web", "ID": format!("web-{n}"), "Address": format!("10.9.0.{n}"),
                           "Port": n, "Check": check });
        server.register(body).await;
    }
}

/// The weights of SRV records, by port; the ports tell instances apart.
async fn weights(server: &TestServer) -> BTreeMap<u16, u16> {
    let answer = ask(server.dns(), &query("web.service.internal.", RecordType::SRV)).await;
    let srv = answer.answers.iter().map(|record| match &record.data {
        RData::SRV(srv) => (srv.port, srv.weight),
        other => panic!("{other}"),
    });
    srv.collect()
}

async fn ports(server: &TestServer) -> Vec<u16> {
    weights(server).await.into_keys().collect()
}

async fn until(server: &TestServer, wanted: &[(u16, u16)]) {
    let begun = Instant::now();
    let wanted = wanted.iter().copied().collect();
    loop {
        let is = weights(server).await;
        if is == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{is:?} never became {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn out_for(secs: u64) -> impl FnOnce(&mut Config) {
    move |config| config.breaker.out.all = Duration::from_secs(secs)
}

async fn circuits(server: &TestServer) -> [f64; 2] {
    let open = server.metric("rollcall_breaker_circuits{state=\"open\"}").await;
    [open, server.metric("rollcall_breaker_circuits{state=\"half-open\"}").await]
}

#[tokio::test]
async fn failures_take_an_instance_out_then_it_is_tried_and_requests_decide() {
    let server = TestServer::with(out_for(2)).await;
    fleet(&server, 4).await;
    assert_eq!(says(&server, one(1, 4, 5)).await, json!({ "Counted": 1, "Unknown": [] }));
    assert_eq!(ports(&server).await, [1, 2, 3, 4], "nine are too few");
    let begun = Instant::now();
    says(&server, one(1, 0, 1)).await;
    assert_eq!(ports(&server).await, [2, 3, 4], "six of ten failed");
    assert_eq!(server.ask("web.service.internal.", RecordType::A).await.answers.len(), 3);
    assert_eq!(circuits(&server).await, [1.0, 0.0]);
    let told = server.get("/v1/rollcall/explain?name=web").await.text();
    assert!(told.contains("broken") && told.contains("its circuit is open"), "{told}");
    let row = server.get("/v1/rollcall/services?service=web").await.json();
    assert_eq!((&row[0]["Out"], &row[0]["OnTrial"], &row[0]["Passing"]), (&json!(1), &json!(0), &json!(4)));
    // HTTP says what checks found.
    assert_eq!(server.get("/v1/health/service/web?passing").await.json().as_array().unwrap().len(), 4);
    let query = json!({ "Name": "q", "Service": { "Service": "web" } });
    let made = request(server.http(), "POST", "/v1/query", &[], &query.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(server.ask("q.query.internal.", RecordType::A).await.answers.len(), 3);

    // Half open: the lowest weight, a hundredth of the others'.
    let trial = [(1, 655), (2, 65535), (3, 65535), (4, 65535)];
    until(&server, &trial).await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(circuits(&server).await, [0.0, 1.0]);
    let told = server.get("/v1/rollcall/explain?name=web&type=SRV").await.text();
    assert!(told.contains("its circuit is half open"), "{told}");
    says(&server, one(1, 0, 4)).await;
    until(&server, &trial).await;
    says(&server, one(1, 0, 1)).await;
    assert_eq!(ports(&server).await, [2, 3, 4], "five decide: out again");
    until(&server, &trial).await;
    says(&server, one(1, 3, 2)).await;
    assert_eq!(weights(&server).await, BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 1)]));
    assert_eq!(circuits(&server).await, [0.0, 0.0]);

    let past = server.get("/v1/rollcall/history/web").await.json();
    let turns: Vec<_> =
        past["Changes"].as_array().unwrap().iter().filter(|one| one["Kind"] == "circuit").collect();
    let words: Vec<_> =
        turns.iter().map(|one| (one["Change"].as_str().unwrap(), one["Cause"].as_str().unwrap())).collect();
    let (report, time) = ("reports of failures", "circuit breaker");
    assert_eq!(
        words,
        [("closed", report), ("half-open", time), ("open", report), ("half-open", time), ("open", report)]
    );
    let first = turns.last().unwrap();
    assert_eq!(
        (&first["ID"], &first["Served"]),
        (&json!("web-1"), &json!({ "Before": true, "After": false }))
    );
    assert_eq!(first["Actor"], "127.0.0.1");
    assert_eq!(server.metric("rollcall_breaker_turns_total{state=\"open\"}").await, 2.0);
    assert_eq!(server.metric("rollcall_breaker_requests_total").await, 10.0 + 10.0);
}

#[tokio::test]
async fn never_is_more_than_half_of_a_service_out() {
    let server = TestServer::with(out_for(3600)).await;
    fleet(&server, 4).await;
    for n in 1..=4 {
        says(&server, one(n, 0, 50)).await;
    }
    assert_eq!(ports(&server).await, [3, 4]);
    assert_eq!(server.metric("rollcall_breaker_spared_total").await, 2.0);
    // One that is left fails its check: three are healthy, so that one may be out. Who was first is tried.
    let word = async |word: &str, n: u8| {
        assert_eq!(server.put(&format!("/v1/agent/check/{word}/service:web-{n}"), "").await.status, 200);
    };
    word("fail", 3).await;
    assert_eq!(weights(&server).await, BTreeMap::from([(1, 655), (4, 65535)]));
    // And when none is left but those that are out, they are given.
    word("fail", 4).await;
    assert_eq!(ports(&server).await, [1]);
    word("fail", 1).await;
    assert_eq!(ports(&server).await, [2]);
    // Who is deregistered is forgotten.
    for n in 1..=4 {
        assert_eq!(server.put(&format!("/v1/agent/service/deregister/web-{n}"), "").await.status, 200);
    }
    assert_eq!(circuits(&server).await, [0.0, 0.0]);
    fleet(&server, 1).await;
    says(&server, one(1, 0, 50)).await;
    assert_eq!(ports(&server).await, [1], "the only one is half and more");
}

/// The ports of those of a colour: the first three are blue, the others green.
async fn colours(server: &TestServer) {
    for n in 1..=6 {
        let colour = if n <= 3 { "blue" } else { "green" };
        let body = json!({ "Name": "web", "ID": format!("web-{n}"), "Address": format!("10.9.0.{n}"),
                           "Port": n, "Tags": [colour] });
        server.register(body).await;
    }
}

async fn route(server: &TestServer, subsets: &[&str], strict: bool) {
    let answer = server.put("/v1/rollcall/route/web", json!({ "Subsets": subsets, "Strict": strict })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn circuits_leave_half_of_those_to_whom_a_route_points() {
    for strict in [true, false] {
        let server = TestServer::with(out_for(3600)).await;
        colours(&server).await;
        route(&server, &["green=100"], strict).await;
        for n in 4..=6 {
            says(&server, one(n, 0, 20)).await;
        }
        assert_eq!(ports(&server).await, [5, 6], "strict: {strict}");
        // Those to whom it does not point may be out as ever.
        for n in 1..=2 {
            says(&server, one(n, 0, 20)).await;
        }
        assert_eq!(circuits(&server).await, [3.0, 0.0]);
        // A canary is one part of those that answer: it may be out as a whole.
        let canary = TestServer::with(out_for(3600)).await;
        colours(&canary).await;
        route(&canary, &["blue=95", "green=5"], strict).await;
        for n in 4..=6 {
            says(&canary, one(n, 0, 20)).await;
        }
        assert_eq!(ports(&canary).await, [1, 2, 3], "strict: {strict}");
        // A route that points at nobody else finds half of them: who was out first is tried.
        route(&canary, &["green=100"], strict).await;
        assert_eq!(ports(&canary).await, [4, 5], "strict: {strict}");
        assert_eq!(circuits(&canary).await, [1.0, 2.0]);
    }
}

#[tokio::test]
async fn one_of_several_reporters_takes_nobody_out() {
    let server = TestServer::with(out_for(3600)).await;
    fleet(&server, 4).await;
    says(&server, one(2, 1, 0)).await;
    says_from("127.0.0.7", &server, one(1, 0, 1000)).await;
    assert_eq!(ports(&server).await, [1, 2, 3, 4]);
    // Whatever it says of others, and whoever it says it is.
    let mut body = one(1, 0, 1000);
    body["Reporter"] = json!("another");
    assert_eq!(server.put(PATH, body).await.status, 400);
    says_from("127.0.0.7", &server, one(3, 0, 1000)).await;
    assert_eq!(ports(&server).await, [1, 2, 3, 4]);
    // The other agrees.
    says(&server, one(1, 0, 1)).await;
    assert_eq!(ports(&server).await, [2, 3, 4]);
}

#[tokio::test]
async fn a_service_has_its_own_rule() {
    let server = TestServer::with(|config| {
        config.breaker.requests.services = vec![("web".to_owned(), 0), ("w*".to_owned(), 2)];
    })
    .await;
    fleet(&server, 4).await;
    says(&server, one(1, 0, 1000)).await;
    assert_eq!(ports(&server).await, [1, 2, 3, 4], "none ever opens");
    for n in 1..=2 {
        server
            .register(json!({ "Name": "wide", "ID": format!("wide-{n}"), "Port": n, "Address": "10.9.1.1" }))
            .await;
    }
    let report = json!({ "Service": "wide", "ID": "wide-1", "Failure": 2 });
    says(&server, json!({ "Reports": [report] })).await;
    assert_eq!(server.ask("wide.service.internal.", RecordType::SRV).await.answers.len(), 1);
}

#[tokio::test]
async fn an_instance_is_named_by_its_id_or_its_address_and_who_is_gone_is_told() {
    let server = TestServer::with(out_for(3600)).await;
    fleet(&server, 4).await;
    let at = |address: &str, port: u16| json!({ "Service": "WEB", "Address": address, "Port": port, "Failure": 10 });
    let gone = json!({ "Service": "web", "ID": "web-9", "Failure": 10 });
    let other = json!({ "Service": "other", "ID": "web-3", "Failure": 10 });
    let batch =
        json!({ "Reports": [gone, at("10.9.0.2", 2), other, at("10.9.0.3", 2), at("::ffff:10.9.0.1", 1)] });
    assert_eq!(says(&server, batch).await, json!({ "Counted": 2, "Unknown": [0, 2, 3] }), "its port is 3");
    assert_eq!(ports(&server).await, [3, 4]);
    assert_eq!(server.metric("rollcall_breaker_requests_total").await, 20.0);
}

#[tokio::test]
async fn what_is_wrong_is_refused_whole() {
    let server = TestServer::with(|config| {
        (config.limits.reports_max, config.limits.reporters_max) = (3, 2);
    })
    .await;
    fleet(&server, 4).await;
    let good = json!({ "Service": "web", "ID": "web-1", "Failure": 100 });
    for (bad, why) in [
        (
            json!({ "Service": "web", "ID": "web-1", "Success": -1 }),
            "Success -1 is not between 0 and 1000000 ([limits] report_requests_max)",
        ),
        (
            json!({ "Service": "web", "ID": "web-1", "Failure": 1_000_001 }),
            "Failure 1000001 is not between 0 and 1000000 ([limits] report_requests_max)",
        ),
        (
            json!({ "Service": "web", "ID": "web-1", "Failure": 600_000, "Success": 600_000 }),
            "Success and Failure are 1200000 together",
        ),
        (json!({ "Service": "web", "ID": "web-1" }), "it counts no request: Success and Failure are 0"),
        (json!({ "Service": "web", "Failure": 1 }), "name the instance: ID, or Address and Port"),
        (json!({ "Service": "web", "ID": "web-1", "Port": 1, "Failure": 1 }), "not by both"),
        (
            json!({ "Service": "web", "Address": "10.9.0.1", "Failure": 1 }),
            "Address and Port belong together",
        ),
        (json!({ "ID": "web-1", "Failure": 1 }), "Invalid report 1: "),
    ] {
        let answer = server.put(PATH, json!({ "Reports": [good, bad] })).await;
        let text = answer.text();
        assert!(
            answer.status == 400 && text.starts_with("Invalid report 1: ") && text.contains(why),
            "{bad}: {text}"
        );
    }
    for (body, why) in [
        ("", "Request decode failed: EOF"),
        ("{}", "Missing Reports"),
        (r#"{"Reports":[]}"#, "Missing Reports"),
        (r#"{"Reports":[{"Service":"web","ID":"web-1","Failure":1e99}]}"#, "Request decode failed: json: "),
        (r#"{"Reports":[{"Service":"web","ID":"web-1","Failure":1.5}]}"#, "Request decode failed: json: "),
        (r#"{"Reports":[{"Service":"web","ID":"web-1","Failed":1}]}"#, "Request decode failed: json: "),
        (r#"{"Reports":{"web-1":1}}"#, "Request decode failed: json: "),
    ] {
        let answer = server.put(PATH, body).await;
        assert!(answer.status == 400 && answer.text().starts_with(why), "{body}: {}", answer.text());
    }
    let batch = |count: usize| json!({ "Reports": vec![good.clone(); count] });
    let answer = server.put(PATH, batch(4)).await;
    let why = "Reports 4: at most 3 are allowed ([limits] reports_max)";
    assert_eq!((answer.status, answer.text().as_str()), (400, why));
    let all: Vec<Value> = (1..=3).map(|n| one(n, 0, 100)["Reports"][0].clone()).collect();
    let answer = server.put(PATH, json!({ "Reports": all })).await;
    let why = "instances and who reports on them 3: at most 2 are allowed ([limits] reporters_max)";
    assert_eq!((answer.status, answer.text().as_str(), answer.header("retry-after")), (429, why, "1"));
    assert_eq!(ports(&server).await, [1, 2, 3, 4], "nothing was counted");
    assert_eq!(server.metric("rollcall_breaker_requests_total").await, 0.0);
    for (limit, hits) in [("reports_max", 1.0), ("reporters_max", 1.0), ("report_requests_max", 3.0)] {
        assert_eq!(
            server.metric(&format!("rollcall_limit_hits_total{{limit=\"{limit}\"}}")).await,
            hits,
            "{limit}"
        );
    }
    assert_eq!(says(&server, batch(3)).await["Counted"], 3);
    assert_eq!(ports(&server).await, [2, 3, 4]);
}

#[tokio::test]
async fn reporting_needs_write_permission_on_the_service_and_turns_are_events() {
    let (server, management) = controlled(false).await;
    for n in 1..=2 {
        let body = json!({ "Name": "web", "ID": format!("web-{n}"), "Address": "10.9.0.1", "Port": n });
        let made =
            server.with_token("PUT", "/v1/agent/service/register", &management, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
    let reader = server.token_with(&management, "reader", "service \"web\" { policy = \"read\" }").await;
    let gateway = server.token_with(&management, "gateway", "service \"web\" { policy = \"write\" }").await;
    let batch = one(1, 0, 10).to_string();
    for token in ["", &reader] {
        let answer = server.with_token("PUT", PATH, token, &batch).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains("lacks permission 'service:write' on \"web\""), "{}", answer.text());
    }
    let other =
        json!({ "Reports": [one(1, 0, 10)["Reports"][0], { "Service": "db", "ID": "d", "Failure": 1 }] });
    let answer = server.with_token("PUT", PATH, &gateway, &other.to_string()).await;
    assert_eq!(answer.status, 403, "of one service it may not: nothing counts");
    let count = async || server.with_token("GET", "/v1/rollcall/services", &management, "").await.json();
    let out = |rows: Value| {
        rows.as_array().unwrap().iter().find(|row| row["Name"] == "web").unwrap()["Out"].clone()
    };
    assert_eq!(out(count().await), 0);
    let index = server.with_token("GET", "/v1/health/service/web", &management, "").await.index();
    let answer = server.with_token("PUT", PATH, &gateway, &batch).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "Counted": 1, "Unknown": [] })));
    assert_eq!(out(count().await), 1);
    // Whoever waits for the service is woken.
    assert!(server.with_token("GET", "/v1/health/service/web", &management, "").await.index() > index);
    let past = server.with_token("GET", "/v1/rollcall/history/web", &management, "").await.json();
    assert_eq!(
        (&past["Changes"][0]["Kind"], &past["Changes"][0]["Change"]),
        (&json!("circuit"), &json!("open"))
    );
    let actor = past["Changes"][0]["Actor"].as_str().unwrap();
    assert_eq!(actor.len(), 36, "the accessor of the gateway's token: {actor}");
}
