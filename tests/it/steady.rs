//! Health that does not lie: what flaps is held, and a service of which most fail at once keeps its last good instances.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hickory_proto::rr::{RData, RecordType};
use http_body_util::Full;
use hyper::Response;
use hyper_util::rt::TokioIo;
use rollcall::checks::Flapping;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::server::{TestServer, ask, query};

/// A program that answers its checks with a status that can be changed.
async fn program() -> (SocketAddr, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shared) = (listener.local_addr().unwrap(), status.clone());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let status = shared.clone();
            let service = hyper::service::service_fn(move |_: hyper::Request<hyper::body::Incoming>| {
                let status = status.load(Ordering::SeqCst);
                async move { Response::builder().status(status).body(Full::<bytes::Bytes>::from("so")) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, status)
}

fn has(status: &'static str) -> impl Fn(&Value) -> bool {
    move |entries| entries[0]["Checks"][1]["Status"] == status
}

async fn in_dns(server: &TestServer, service: &str) -> usize {
    server.ask(&format!("{service}.service.internal."), RecordType::A).await.answers.len()
}

#[tokio::test]
async fn a_check_that_flaps_is_held_critical_until_it_is_steady() {
    let flapping = Flapping { max: 2, leak: Duration::from_secs(3600), steady: Duration::from_millis(3500) };
    let server = TestServer::with(|config| config.checks.flapping = flapping).await;
    let (address, status) = program().await;
    let check = json!({ "HTTP": format!("http://{address}/"), "Interval": "1s" });
    server.register(json!({ "Name": "web", "Check": check })).await;
    // The same program, whose check says that it is not to be damped.
    let own = json!({ "HTTP": format!("http://{address}/"), "Interval": "1s", "FlapMax": 0 });
    server.register(json!({ "Name": "free", "Check": own })).await;
    server.until("web", has("passing")).await;
    server.until("free", has("passing")).await;
    let mut back = Vec::new();
    for fall in 1..=2 {
        status.store(500, Ordering::SeqCst);
        let begun = Instant::now();
        server.until("web", has("critical")).await;
        assert!(begun.elapsed() < flapping.steady, "fall {fall} was late: {:?}", begun.elapsed());
        assert_eq!(in_dns(&server, "web").await, 0);
        server.until("free", has("critical")).await;
        assert_eq!(server.metric("rollcall_checks_flapping").await, f64::from(u8::from(fall == 2)));
        status.store(200, Ordering::SeqCst);
        let begun = Instant::now();
        server.until("free", has("passing")).await;
        if fall == 2 {
            // Another output alone rings no bell.
            let held = loop {
                let shown = server.get("/v1/health/service/web").await.json();
                if shown[0]["Checks"][1]["Output"].as_str().is_some_and(|text| text.starts_with("Held")) {
                    break shown;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let output = format!(
                "Held critical: it fell 2 times in a short while, and has to pass for 3.5s without a failure. \
                 Last result: passing: HTTP GET http://{address}/: 200 OK Output: so"
            );
            assert_eq!(held[0]["Checks"][1]["Output"], output);
            assert_eq!(held[0]["Checks"][1]["Status"], "critical");
            assert_eq!((in_dns(&server, "web").await, in_dns(&server, "free").await), (0, 1));
        }
        server.until("web", has("passing")).await;
        assert_eq!(in_dns(&server, "web").await, 1);
        back.push(begun.elapsed());
    }
    assert!(back[1] >= flapping.steady && back[1] > back[0] * 3 / 2, "{back:?}");
    // What it did is in the history: the last time it was held between its fall and its return.
    let past = server.get("/v1/rollcall/history/web").await.json();
    let turns: Vec<_> =
        past["Changes"].as_array().unwrap().iter().filter(|one| one["Change"] == "status").collect();
    let words: Vec<_> =
        turns.iter().map(|one| [&one["Before"], &one["After"]].map(|word| word.as_str().unwrap())).collect();
    let (fell, held, back) = (["passing", "critical"], ["critical"; 2], ["critical", "passing"]);
    assert_eq!(words[..4], [back, held, fell, back], "{past:#}");
    assert!(turns[1]["Output"].as_str().unwrap().starts_with("Held critical: it fell 2 times"), "{past:#}");
    assert_eq!(
        (&turns[1]["Served"], &turns[1]["Cause"]),
        (&json!({ "Before": false, "After": false }), &json!("probe"))
    );
    assert_eq!(words.iter().filter(|one| **one == held).count(), 1);
    assert_eq!(server.metric("rollcall_checks_flapping").await, 0.0);
    assert_eq!(server.metric("rollcall_checks_damped_total").await, 1.0);
}

#[tokio::test]
async fn what_a_check_says_of_its_flaps_is_kept_and_what_is_wrong_is_refused() {
    let server = TestServer::start().await;
    let check = |more: Value| {
        let mut check = json!({ "TCP": "127.0.0.1:1", "Interval": "10m" });
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "Name": "web", "Check": check })
    };
    for (more, why) in [
        (json!({ "FlapMax": -1 }), "Invalid check: FlapMax -1 is not between 0 and 4294967295"),
        (json!({ "FlapLeak": "0s" }), "Invalid check: FlapLeak must be above zero"),
        (json!({ "FlapSteady": 0 }), "Invalid check: FlapSteady must be above zero"),
    ] {
        let answer = server.put("/v1/agent/service/register", check(more)).await;
        assert_eq!((answer.status, answer.text().as_str()), (400, why));
    }
    let ttl = json!({ "Name": "web", "Check": { "TTL": "1m", "FlapMax": 3 } });
    let answer = server.put("/v1/agent/service/register", ttl).await;
    let why = "Invalid check: FlapMax, FlapLeak and FlapSteady are for checks that are probed";
    assert_eq!((answer.status, answer.text().as_str()), (400, why));
    assert_eq!(server.get("/v1/agent/services").await.json(), json!({}));
    // It is stored, and exported.
    server.register(check(json!({ "FlapMax": 3, "FlapSteady": "90s" }))).await;
    let server = server.restart().await;
    let export = server.get("/v1/rollcall/export").await.json();
    let records = export["records"].as_array().unwrap();
    let check = records.iter().find_map(|record| record.get("check")).unwrap();
    assert_eq!(check["damping"], json!({ "max": 3, "steady": "1m30s" }));
}

/// Instances of a service, each with an address and a TTL check that passes.
async fn fleet(server: &TestServer, service: &str, count: u8) {
    for n in 1..=count {
        let body = json!({ "Name": service, "ID": format!("{service}-{n}"), "Address": format!("10.7.0.{n}"),
                           "Port": 80, "Check": { "TTL": "1h", "Status": "passing" } });
        server.register(body).await;
    }
}

/// Says that an instance's check has a status.
async fn word(server: &TestServer, word: &str, service: &str, n: u8) {
    let answer = server.put(&format!("/v1/agent/check/{word}/service:{service}-{n}"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// How many addresses are given, and whether the answer says that it is stale (RFC 8914).
async fn given(server: &TestServer, service: &str, kind: RecordType) -> (usize, bool) {
    let mut question = query(&format!("{service}.service.internal."), kind);
    question.edns.get_or_insert_default().set_max_payload(1232);
    let answer = ask(server.dns(), &question).await;
    let edns = answer.edns.as_ref().unwrap();
    let stale = edns.options().as_ref().iter().any(|(code, option)| {
        let octets: Vec<u8> = option.try_into().unwrap();
        (u16::from(*code), octets) == (15, vec![0, 3])
    });
    (answer.answers.len(), stale)
}

async fn passing(server: &TestServer, service: &str) -> usize {
    let shown = server.get(&format!("/v1/health/service/{service}?passing")).await.json();
    shown.as_array().unwrap().len()
}

#[tokio::test]
async fn when_too_many_fail_at_once_dns_goes_on_for_a_while_and_says_so() {
    let server = TestServer::with(|config| {
        config.guard.share = 50;
        config.guard.service_hold = vec![("brief".to_owned(), Duration::from_secs(2))];
        config.guard.service_share = vec![("free*".to_owned(), 0)];
    })
    .await;
    for service in ["web", "brief", "free"] {
        fleet(&server, service, 4).await;
    }
    for service in ["web", "brief", "free"] {
        // Half is not more than half: they are out.
        for n in 1..=2 {
            word(&server, "fail", service, n).await;
        }
        assert_eq!(given(&server, service, RecordType::A).await, (2, false), "{service}");
    }
    assert_eq!(server.metric("rollcall_registry_guarded").await, 0.0);
    let begun = Instant::now();
    let begun_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    for service in ["web", "brief", "free"] {
        word(&server, "fail", service, 3).await;
        assert_eq!(passing(&server, service).await, 1, "HTTP says what was found");
    }
    assert_eq!(given(&server, "free", RecordType::A).await, (1, false));
    for kind in [RecordType::A, RecordType::SRV] {
        assert_eq!(given(&server, "web", kind).await, (4, true));
    }
    // What is not given is not stale.
    assert_eq!(given(&server, "web", RecordType::AAAA).await, (0, false));
    assert_eq!(server.metric("rollcall_registry_guarded").await, 2.0);
    assert_eq!(server.metric("rollcall_registry_guarded_instances").await, 6.0);
    let told = server.get("/v1/rollcall/explain?name=web").await.text();
    assert!(told.contains("guarded") && told.contains("too many instances failed at once"), "{told}");
    let until = told.split("kept until ").nth(1).unwrap().split(' ').next().unwrap();
    let left = rollcall::telemetry::utc::parse(until).unwrap() as i64 / 1000 - begun_at;
    assert!((299..=301).contains(&left), "{until} is {left} s from the fall");
    // Maintenance and deregistration are on purpose.
    let path = "/v1/agent/service/maintenance/web-1?enable=true";
    assert_eq!(server.put(path, "").await.status, 200);
    assert_eq!(server.put("/v1/agent/service/deregister/web-2", "").await.status, 200);
    assert_eq!(given(&server, "web", RecordType::A).await.0, 2);
    // Enough are back: it ends before its time.
    word(&server, "pass", "web", 3).await;
    assert_eq!(given(&server, "web", RecordType::A).await, (2, false));
    // The other ends by its time.
    while given(&server, "brief", RecordType::A).await != (1, false) {
        assert!(begun.elapsed() < crate::server::PATIENCE, "it never ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(server.metric("rollcall_registry_guarded").await, 0.0);
    assert_eq!(server.metric("rollcall_registry_guards_total").await, 2.0);
    // Who is left and falls does not bring back who fell before.
    word(&server, "fail", "brief", 4).await;
    assert_eq!(given(&server, "brief", RecordType::A).await, (0, false));
}

#[tokio::test]
async fn the_server_guards_all_services_when_much_of_it_falls() {
    let server = TestServer::with(|config| config.guard.server_share = 40).await;
    for service in ["a", "b", "c"] {
        fleet(&server, service, 2).await;
    }
    // Six, and `consul` itself.
    for service in ["a", "b"] {
        word(&server, "fail", service, 1).await;
        assert_eq!(given(&server, service, RecordType::A).await, (1, false));
    }
    word(&server, "fail", "b", 2).await;
    assert_eq!(given(&server, "a", RecordType::A).await, (2, true));
    assert_eq!(given(&server, "b", RecordType::A).await, (2, true));
    assert_eq!(given(&server, "c", RecordType::A).await, (2, false));
    word(&server, "fail", "c", 1).await;
    assert_eq!(given(&server, "c", RecordType::A).await, (2, true));
}

/// The weights of a service's SRV records, by target port.
async fn weights(server: &TestServer, service: &str) -> BTreeMap<u16, u16> {
    let answer = server.ask(&format!("{service}.service.internal."), RecordType::SRV).await;
    let srv = answer.answers.iter().map(|record| match &record.data {
        RData::SRV(srv) => (srv.port, srv.weight),
        other => panic!("{other}"),
    });
    srv.collect()
}

/// An instance without checks; its port tells it apart.
async fn plain(server: &TestServer, service: &str, n: u8) {
    let body = json!({ "Name": service, "ID": format!("{service}-{n}"), "Address": format!("10.8.0.{n}"), "Port": n });
    server.register(body).await;
}

#[tokio::test]
async fn who_is_new_or_back_starts_slowly() {
    let windows = |config: &mut rollcall::config::Config| {
        let window = |name: &str, secs| (name.to_owned(), Duration::from_secs(secs));
        config.slow_start.service_window = vec![window("slow", 3600), window("quick", 2)];
    };
    let server = TestServer::with(windows).await;
    for service in ["slow", "quick", "off"] {
        plain(&server, service, 1).await;
    }
    // Alone, or at the same time, nobody is slower than others.
    assert_eq!(weights(&server, "slow").await, BTreeMap::from([(1, 1)]));
    assert_eq!(server.metric("rollcall_registry_slow_starts").await, 2.0);
    // What was there before a start has its whole weight.
    let server = server.restart_with(windows).await;
    assert_eq!(server.metric("rollcall_registry_slow_starts").await, 0.0);
    for service in ["slow", "quick", "off"] {
        plain(&server, service, 2).await;
    }
    assert_eq!(weights(&server, "off").await, BTreeMap::from([(1, 1), (2, 1)]));
    let slow = weights(&server, "slow").await;
    assert_eq!(slow[&1], 65535);
    assert!((6500..6600).contains(&slow[&2]), "a tenth: {slow:?}");
    // Its address comes first as seldom: 36 of 400 on average.
    let mut first = [0; 2];
    for _ in 0..400 {
        let answer = server.ask("slow.service.internal.", RecordType::A).await;
        assert_eq!(answer.answers.len(), 2);
        let RData::A(address) = &answer.answers[0].data else { panic!() };
        first[usize::from(address.0.octets()[3]) - 1] += 1;
    }
    assert!(first[1] > 5 && first[1] * 4 < first[0], "{first:?}");
    let told = server.get("/v1/rollcall/explain?name=slow&type=SRV").await.text();
    assert!(told.contains("it starts slowly, and has 10 percent of its weight yet"), "{told}");
    // A short one rises to the end.
    let mut last = 0;
    loop {
        let quick = weights(&server, "quick").await;
        if quick == BTreeMap::from([(1, 1), (2, 1)]) {
            break;
        }
        assert!(quick[&1] == 65535 && (last..65535).contains(&quick[&2]), "{quick:?} after {last}");
        last = quick[&2];
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(last > 6600, "it never rose");
    assert_eq!(server.metric("rollcall_registry_slow_starts").await, 1.0);
    // Who comes back starts anew: from maintenance, and from a failing check.
    let put = async |path: &str| assert_eq!(server.put(path, "").await.status, 200, "{path}");
    put("/v1/agent/service/maintenance/slow-1?enable=true").await;
    assert_eq!(weights(&server, "slow").await, BTreeMap::from([(2, 1)]));
    put("/v1/agent/service/maintenance/slow-1?enable=false").await;
    assert_eq!(server.metric("rollcall_registry_slow_starts").await, 2.0);
    put("/v1/agent/service/deregister/slow-1").await;
    put("/v1/agent/service/deregister/slow-2").await;
    assert_eq!(server.metric("rollcall_registry_slow_starts").await, 0.0);
    fleet(&server, "quick-checked", 1).await;
    assert_eq!(server.metric("rollcall_registry_slow_starts").await, 0.0);
}

#[tokio::test]
async fn what_a_guard_kept_does_not_start_slowly_when_it_is_back() {
    let both = |config: &mut rollcall::config::Config| {
        (config.guard.share, config.slow_start.window) = (50, Duration::from_secs(3600));
    };
    let server = TestServer::with(both).await;
    fleet(&server, "web", 3).await;
    let server = server.restart_with(both).await;
    for n in 1..=2 {
        word(&server, "fail", "web", n).await;
    }
    assert_eq!(given(&server, "web", RecordType::SRV).await, (3, true));
    word(&server, "pass", "web", 1).await;
    assert_eq!(server.metric("rollcall_registry_slow_starts").await, 0.0);
    // The guard has ended with it, and the other one is out.
    assert_eq!(given(&server, "web", RecordType::SRV).await, (2, false));
    word(&server, "pass", "web", 2).await;
    assert_eq!(server.metric("rollcall_registry_slow_starts").await, 1.0);
}

#[tokio::test]
async fn keys_of_the_guard_are_percents_and_times() {
    let page = |line: &str| format!("[guard]\n{line}\n");
    for (line, why) in [
        ("share = 100", "100 is not a number between 0 and 99"),
        ("server_share = -1", "-1 is not a number between 0 and 99"),
        ("hold = \"0s\"", "above zero"),
        ("window = 5", "5 is not a duration"),
        ("service_share = { web = \"half\" }", "\"half\" is not a number between 0 and 99"),
        ("instances_min = 0", "0 is not a number between 1 and"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rollcall.toml");
        std::fs::write(&file, page(line)).unwrap();
        let errors = rollcall::config::Config::load(&[file]).unwrap_err();
        let errors = errors.iter().map(ToString::to_string).collect::<String>();
        assert!(errors.contains("[guard]") && errors.contains(why), "{line}: {errors}");
    }
}

#[tokio::test]
async fn a_guard_ends_when_those_that_fell_come_back_by_another_definition() {
    let server = TestServer::with(|config| config.guard.share = 50).await;
    fleet(&server, "web", 4).await;
    for n in 1..=3 {
        word(&server, "fail", "web", n).await;
    }
    assert_eq!(given(&server, "web", RecordType::A).await, (4, true));
    // Their failing checks go: three are healthy again, and the guard has no reason any more.
    for n in 1..=2 {
        let path = format!("/v1/agent/check/deregister/service:web-{n}");
        assert_eq!(server.put(&path, "").await.status, 200);
    }
    assert_eq!(given(&server, "web", RecordType::A).await, (3, false));
    assert_eq!(server.metric("rollcall_registry_guarded").await, 0.0);
    // A service that goes takes its guard along.
    fleet(&server, "db", 2).await;
    for n in 1..=2 {
        word(&server, "fail", "db", n).await;
    }
    assert_eq!(given(&server, "db", RecordType::A).await, (2, true));
    for n in 1..=2 {
        assert_eq!(server.put(&format!("/v1/agent/service/deregister/db-{n}"), "").await.status, 200);
    }
    assert_eq!(server.metric("rollcall_registry_guarded").await, 0.0);
}

#[tokio::test]
async fn lists_of_services_wake_for_guards_and_circuits() {
    let server = TestServer::with(|config| config.guard.share = 50).await;
    fleet(&server, "web", 4).await;
    let row = async |index: u64| {
        let answer = server.wait("/v1/rollcall/services?service=web", index).await;
        (answer.index(), answer.json()[0].clone())
    };
    let (index, before) = row(0).await;
    assert_eq!((&before["Out"], &before["Guarded"]), (&json!(0), &json!(0)));
    let waiting = row(index);
    let report = json!({ "Reports": [{ "Service": "web", "ID": "web-1", "Failure": 20 }] });
    let (next, reported) = tokio::join!(waiting, server.put("/v1/rollcall/report", report));
    assert_eq!(reported.status, 200, "{}", reported.text());
    assert!(next.0 > index && next.1["Out"] == 1, "{next:?}");
}

/// Milliseconds that a check of the node takes to fail and pass when so many instances are on it, the best of some; and a batch with a
/// report of failures on each of them.
async fn mass(count: usize) -> (f64, f64) {
    let server = TestServer::with(|config| {
        config.guard.share = 10;
        config.slow_start.window = Duration::from_secs(3600);
    })
    .await;
    for n in 0..count {
        server.register(json!({ "Name": "web", "ID": format!("web-{n}"), "Port": 80 })).await;
    }
    let check = json!({ "ID": "node", "Name": "node", "TTL": "1h", "Status": "passing" });
    assert_eq!(server.put("/v1/agent/check/register", check).await.status, 200);
    let reports = |failure: usize| {
        let one = |n| json!({ "Service": "web", "ID": format!("web-{n}"), "Success": 1, "Failure": failure });
        json!({ "Reports": (0..count).map(one).collect::<Vec<_>>() })
    };
    assert_eq!(server.put("/v1/rollcall/report", reports(0)).await.status, 200);
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(server.put("/v1/agent/check/fail/node", "").await.status, 200);
        assert_eq!(server.metric("rollcall_registry_guarded_instances").await, count as f64);
        assert_eq!(server.put("/v1/agent/check/pass/node", "").await.status, 200);
        assert_eq!(server.metric("rollcall_registry_guarded_instances").await, 0.0);
        best = best.min(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let (begun, body) = (Instant::now(), reports(20));
    assert_eq!(server.put("/v1/rollcall/report", body).await.status, 200);
    let reported = begun.elapsed().as_secs_f64() * 1000.0;
    let open = server.metric("rollcall_breaker_circuits{state=\"open\"}").await;
    assert_eq!(open, (count / 2) as f64, "half of them");
    (best, reported)
}

#[tokio::test]
async fn what_a_mass_failure_costs_grows_with_the_number_of_instances_and_no_faster() {
    let (few, many) = (mass(100).await, mass(1000).await);
    // Ten times as many: ten times as long, where each were looked at for each it would be a hundred times.
    assert!(many.0 < 30.0 * few.0, "flips: {:.1} ms for 100, {:.1} ms for 1000", few.0, many.0);
    assert!(many.1 < 30.0 * few.1, "reports: {:.1} ms for 100, {:.1} ms for 1000", few.1, many.1);
}
