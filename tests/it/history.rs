//! What became of a service: every change with its cause and whose it was, and how the service stood at a moment.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rollcall::config::Config;
use serde_json::{Value, json};

use crate::acl::{Asks, controlled};
use crate::daemon::run;
use crate::server::{Answer, TestServer};

impl TestServer {
    async fn past(&self, path: &str) -> Value {
        let answer = self.get(&format!("/v1/rollcall/history/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn done(&self, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.put(path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer
    }

    /// `web-N`, with a TTL check that passes.
    async fn web(&self, n: u8) {
        self.register(json!({
            "Name": "web", "ID": format!("web-{n}"), "Address": format!("10.1.0.{n}"), "Port": 80,
            "Check": { "CheckID": format!("c{n}"), "TTL": "1h", "Status": "passing" },
        }))
        .await;
    }
}

fn changes(told: &Value) -> Vec<&Value> {
    told["Changes"].as_array().unwrap().iter().collect()
}

/// The instances that were given, of those that were there.
fn given(told: &Value) -> BTreeMap<String, bool> {
    assert_eq!(told["At"]["Known"], json!(true), "{told:#}");
    let rows = told["At"]["Instances"].as_array().unwrap().iter();
    rows.map(|row| (row["ID"].as_str().unwrap().to_owned(), row["In"].as_bool().unwrap())).collect()
}

/// The next millisecond, so that what comes is after it and what was is not.
fn now() -> Value {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let begun = now();
    let mut next = now();
    while next <= begun + 1 {
        std::hint::spin_loop();
        next = now();
    }
    json!(rollcall::telemetry::utc::rfc3339(UNIX_EPOCH + Duration::from_millis(begun as u64 + 1)))
}

fn at(moment: &Value) -> String {
    format!("web?at={}", moment.as_str().unwrap())
}

#[tokio::test]
async fn each_change_has_its_time_its_cause_and_what_it_did_to_dns() {
    let server = TestServer::start().await;
    server.web(1).await;
    server.done("/v1/agent/check/fail/c1?note=no+disk", Value::Null).await;
    server.done("/v1/agent/check/pass/c1", Value::Null).await;
    server.done("/v1/agent/service/maintenance/web-1?enable=true&reason=new+disk", Value::Null).await;
    server.done("/v1/agent/service/maintenance/web-1?enable=false", Value::Null).await;
    server.done("/v1/agent/maintenance?enable=true&reason=moving", Value::Null).await;
    server.done("/v1/agent/maintenance?enable=false", Value::Null).await;
    server.done("/v1/agent/check/warn/c1", Value::Null).await;
    server
        .done(
            "/v1/agent/check/register",
            json!({ "Name": "more", "CheckID": "more", "ServiceID": "web-1", "TTL": "1h" }),
        )
        .await;
    server.done("/v1/agent/check/deregister/more", Value::Null).await;
    server.done("/v1/agent/service/deregister/web-1", Value::Null).await;
    let told = server.past("web").await;
    let served = |change: &Value| {
        (change["Served"]["Before"] == json!(true), change["Served"]["After"] == json!(true))
    };
    let seen: Vec<_> = changes(&told)
        .into_iter()
        .rev()
        .map(|change| {
            assert_eq!((&change["ID"], &change["Node"]), (&json!("web-1"), &json!("n1")));
            let text = |key: &str| change[key].as_str().unwrap();
            (text("Kind"), text("Change"), text("Cause"), served(change), change["OfNode"] == json!(true))
        })
        .collect();
    let (out, into, stays) = ((true, false), (false, true), (true, true));
    assert_eq!(
        seen,
        [
            ("service", "registered", "registration", into, false),
            ("check", "status", "TTL update", out, false),
            ("check", "status", "TTL update", into, false),
            ("maintenance", "begun", "maintenance", out, false),
            ("maintenance", "ended", "maintenance", into, false),
            ("maintenance", "begun", "maintenance", out, true),
            ("maintenance", "ended", "maintenance", into, true),
            ("check", "status", "TTL update", stays, false),
            ("check", "defined", "registration", out, false),
            ("check", "removed", "deregistration", into, false),
            ("service", "deregistered", "deregistration", out, false),
        ]
    );
    let all = changes(&told);
    assert!(all.is_sorted_by(
        |a, b| a["Index"].as_u64() > b["Index"].as_u64() && a["Time"].as_str() >= b["Time"].as_str()
    ));
    let failed = all[all.len() - 2];
    assert_eq!(
        (&failed["CheckID"], &failed["Before"], &failed["After"]),
        (&json!("c1"), &json!("passing"), &json!("critical"))
    );
    assert_eq!(
        (&failed["Output"], &failed["Actor"], &failed["Address"]),
        (&json!("no disk"), &json!("127.0.0.1"), &json!("127.0.0.1"))
    );
    assert_eq!(all[7]["Reason"], json!("new disk"));
}

/// What nobody asked for by its name: deadlines, and an import.
#[tokio::test]
async fn what_comes_of_time_or_of_an_import_has_its_cause() {
    let server = TestServer::start().await;
    let check = json!({ "CheckID": "c", "TTL": "100ms", "Status": "passing", "DeregisterCriticalServiceAfter": "100ms" });
    server.register(json!({ "Name": "web", "Port": 80, "Check": check })).await;
    let export = server.get("/v1/rollcall/export").await;
    server.until("web", |nodes| nodes.as_array().unwrap().is_empty()).await;
    server.done("/v1/rollcall/import", export.json()).await;
    let told = server.past("web").await;
    let seen: Vec<_> = changes(&told)
        .into_iter()
        .rev()
        .map(|change| {
            let text = |key: &str| change[key].as_str().unwrap();
            (text("Kind"), text("Change"), text("Cause"), text("Actor"))
        })
        .collect();
    assert_eq!(
        seen[..4],
        [
            ("service", "registered", "registration", "127.0.0.1"),
            ("check", "status", "TTL expiry", "rollcall"),
            ("service", "deregistered", "critical for too long", "rollcall"),
            ("service", "registered", "import", "127.0.0.1"),
        ],
        "{told:#}"
    );
}

#[tokio::test]
async fn how_it_stood_at_a_moment_is_worked_out_backwards() {
    let server = TestServer::start().await;
    let before = now();
    server.web(1).await;
    let one = now();
    server.web(2).await;
    server.done("/v1/agent/check/fail/c1", Value::Null).await;
    let failing = now();
    server.done("/v1/agent/service/deregister/web-1", Value::Null).await;
    server.done("/v1/agent/maintenance?enable=true", Value::Null).await;
    let maintained = now();
    server.done("/v1/agent/maintenance?enable=false", Value::Null).await;
    server.done("/v1/agent/service/deregister/web-2", Value::Null).await;
    let gone = now();
    is(&server.past(&at(&before)).await, &[]);
    is(&server.past(&at(&one)).await, &[("web-1", true)]);
    is(&server.past(&at(&failing)).await, &[("web-1", false), ("web-2", true)]);
    is(&server.past(&at(&maintained)).await, &[("web-2", false)]);
    is(&server.past(&at(&gone)).await, &[]);
    is(&server.past("web?at=0s").await, &[]);
    // Letter case is the client's.
    is(&server.past(&at(&one).replace("web", "WEB")).await, &[("web-1", true)]);
    let told = server.past(&at(&one)).await;
    let row = &told["At"]["Instances"][0];
    assert_eq!(
        (&row["Address"], &row["Port"], &row["Health"]),
        (&json!("10.1.0.1"), &json!(80), &json!("passing"))
    );
    let told = server.past("web?at=24h").await;
    assert_eq!(told["At"]["Known"], json!(false), "{told:#}");
    assert_eq!(
        told["At"]["Reason"],
        json!(format!("what was before {} is not kept", told["Since"].as_str().unwrap()))
    );
    assert!(told["At"]["Instances"].is_null());
}

fn is(told: &Value, wanted: &[(&str, bool)]) {
    let wanted: BTreeMap<_, _> = wanted.iter().map(|(id, given)| ((*id).to_owned(), *given)).collect();
    assert_eq!(given(told), wanted, "{told:#}");
}

#[tokio::test]
async fn circuits_and_guards_have_their_times_and_are_in_the_answer_as_it_was() {
    let server = TestServer::with(|config| {
        config.guard.share = 50;
        config.breaker.out.all = Duration::from_secs(3600);
    })
    .await;
    let fails = async |n: u8| drop(server.done(&format!("/v1/agent/check/fail/c{n}"), Value::Null).await);
    for n in 1..=4 {
        server.web(n).await;
    }
    let before = now();
    let report = json!({ "Service": "web", "ID": "web-1", "Failure": 10 });
    server.done("/v1/rollcall/report", json!({ "Reports": [report] })).await;
    let open = now();
    fails(2).await;
    fails(3).await;
    let fallen = now();
    fails(4).await;
    let guarded = now();
    server.done("/v1/agent/check/pass/c2", Value::Null).await;
    let ended = now();

    is(
        &server.past(&at(&before)).await,
        &[("web-1", true), ("web-2", true), ("web-3", true), ("web-4", true)],
    );
    is(
        &server.past(&at(&open)).await,
        &[("web-1", false), ("web-2", true), ("web-3", true), ("web-4", true)],
    );
    // One that is out is tried, since it is one of two.
    is(
        &server.past(&at(&fallen)).await,
        &[("web-1", false), ("web-2", false), ("web-3", false), ("web-4", true)],
    );
    let told = server.past(&at(&guarded)).await;
    is(&told, &[("web-1", true), ("web-2", true), ("web-3", true), ("web-4", true)]);
    let rows = told["At"]["Instances"].as_array().unwrap();
    let guarded_ones: Vec<_> = rows.iter().map(|row| row["Guarded"] == true).collect();
    assert_eq!(guarded_ones, [false, true, true, true], "{told:#}");
    is(
        &server.past(&at(&ended)).await,
        &[("web-1", true), ("web-2", true), ("web-3", false), ("web-4", false)],
    );

    let told = server.past("web").await;
    let moment = |change: &Value| change["Time"].as_str().unwrap().to_owned();
    let (turned, guards): (Vec<_>, Vec<_>) = changes(&told)
        .into_iter()
        .rev()
        .filter(|change| ["circuit", "guard"].contains(&change["Kind"].as_str().unwrap()))
        .partition(|change| change["Kind"] == "circuit");
    let first = moment(turned[0]);
    assert!(*before.as_str().unwrap() <= *first && *first < *open.as_str().unwrap(), "{told:#}");
    let of = |change: &Value| {
        let served = ["Before", "After"].map(|key| change["Served"][key] == true);
        let text = |key: &str| change[key].as_str().unwrap().to_owned();
        (text("ID"), text("Change"), text("Cause"), text("Actor"), served)
    };
    let line = |id: &str, word: &str, served| {
        (id.to_owned(), word.to_owned(), "guard".to_owned(), "rollcall".to_owned(), served)
    };
    let guards: Vec<_> = guards.into_iter().map(of).collect();
    let (into, out) = ([false, true], [true, false]);
    assert_eq!(
        guards,
        [
            line("web-2", "begun", into),
            line("web-3", "begun", into),
            line("web-4", "begun", into),
            line("web-3", "ended", out),
            line("web-4", "ended", out),
        ],
        "who is back has not lost anything: {told:#}"
    );
}

#[tokio::test]
async fn the_answer_as_it_was_follows_the_route_that_held() {
    let server = TestServer::start().await;
    for (id, tag) in [("b", "blue"), ("g", "green")] {
        server
            .register(json!({ "Name": "web", "ID": id, "Port": 80, "Tags": [tag],
            "Check": { "CheckID": id, "TTL": "1h", "Status": "passing" } }))
            .await;
    }
    let is = |told: &Value, blue: bool, green: bool| {
        assert_eq!(given(told), [("b".to_owned(), blue), ("g".to_owned(), green)].into(), "{told:#}");
    };
    let free = now();
    server.done("/v1/rollcall/route/web", json!({ "Subsets": ["blue=100", "green=0"] })).await;
    let blue = now();
    // Nobody with a share is healthy: the others answer.
    server.done("/v1/agent/check/fail/b", Value::Null).await;
    let fallback = now();
    server.done("/v1/agent/check/pass/b", Value::Null).await;
    server.done("/v1/rollcall/route/web", json!({ "Subsets": ["blue=0", "green=100"], "Over": "1h" })).await;
    let way = now();
    server.done("/v1/rollcall/route/web", json!({ "Subsets": ["green=1"], "Strict": true })).await;
    let strict = now();
    server.done("/v1/agent/check/fail/g", Value::Null).await;
    let nobody = now();
    server.done("/v1/rollcall/route/web/undo", Value::Null).await;
    is(&server.past(&at(&free)).await, true, true);
    is(&server.past(&at(&blue)).await, true, false);
    is(&server.past(&at(&fallback)).await, false, true);
    is(&server.past(&at(&strict)).await, false, true);
    is(&server.past(&at(&nobody)).await, false, false);
    // How far a version that has gone was on its way is not kept.
    let told = server.past(&at(&way)).await;
    assert_eq!(told["At"]["Route"]["Shares"], json!([0, 100]), "{told:#}");
    assert_eq!(server.past("web?at=0s").await["At"]["Route"]["Version"], json!(4));
}

#[tokio::test]
async fn a_guard_that_ends_by_its_time_ends_then() {
    let hold = Duration::from_millis(300);
    let server = TestServer::with(|config| {
        (config.guard.share, config.guard.hold) = (50, hold);
    })
    .await;
    for n in 1..=2 {
        server.web(n).await;
        server.done(&format!("/v1/agent/check/fail/c{n}"), Value::Null).await;
    }
    let newest = async || server.past("web").await["Changes"][0].clone();
    let ended = async {
        while newest().await["Change"] != "ended" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::server::PATIENCE, ended).await.unwrap();
    let told = server.past("web").await;
    let time = |word: &str| {
        let change = changes(&told).into_iter().find(|one| one["Kind"] == "guard" && one["Change"] == word);
        let text = change.unwrap_or_else(|| panic!("{word}: {told:#}"))["Time"].as_str().unwrap().to_owned();
        Duration::from_millis(rollcall::telemetry::utc::parse(&text).unwrap())
    };
    assert!(time("ended") >= time("begun") + hold, "{told:#}");
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_it_is_said_since_when() {
    let server = TestServer::with(|config| {
        config.limits.history_max = 6;
        config.limits.history_per_service_max = 3;
    })
    .await;
    server.web(1).await;
    let after_first = now();
    for _ in 0..4 {
        server.done("/v1/agent/check/fail/c1", Value::Null).await;
        server.done("/v1/agent/check/pass/c1", Value::Null).await;
    }
    let told = server.past(&at(&after_first)).await;
    assert_eq!((changes(&told).len(), &told["At"]["Known"]), (3, &json!(false)), "{told:#}");
    assert_eq!(server.metric("rollcall_registry_history_dropped_total").await, 6.0, "of nine");
    assert!(told["Since"].as_str() > after_first.as_str());
    for n in 0..6 {
        server.register(json!({ "Name": format!("other{n}"), "Port": 1 })).await;
    }
    assert_eq!(changes(&server.past("web").await).len(), 0, "it is the oldest of all");
    assert_eq!(changes(&server.past("other5").await).len(), 1);

    let off = TestServer::with(|config: &mut Config| config.limits.history_max = 0).await;
    off.web(1).await;
    let told = off.past("web").await;
    assert_eq!(changes(&told).len(), 0, "{told:#}");
}

#[tokio::test]
async fn bad_times_and_unknown_services_are_refused() {
    let server = TestServer::start().await;
    server.web(1).await;
    for (path, status, text) in [
        ("web?at=yesterday", 400, "Invalid time \"yesterday\" in ?at: "),
        ("web?at=2999-01-01T00:00:00Z", 400, "\"2999-01-01T00:00:00Z\" in ?at is still to come; it is 20"),
        ("web?at=-1s", 400, "Invalid time \"-1s\" in ?at"),
        ("gone", 404, "there is no service \"gone\", and nothing of one is kept"),
        ("", 400, "Missing service name"),
        ("a%00b", 400, "service name \"a\\0b\" contains a control character"),
    ] {
        let refused = server.get(&format!("/v1/rollcall/history/{path}")).await;
        assert!(
            refused.status == status && refused.text().starts_with(text),
            "{path}: {} {}",
            refused.status,
            refused.text()
        );
    }
}

#[tokio::test]
async fn it_names_the_token_and_shows_only_what_a_token_may_see() {
    let (server, root) = controlled(false).await;
    for node in ["n1", "other"] {
        let body = json!({ "Node": node, "Address": "10.9.0.1", "Service": { "Service": "web", "ID": format!("on-{node}") } });
        let made = server.with_token("PUT", "/v1/catalog/register", &root, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
    let one = server
        .token_with(&root, "one", r#"service "web" { policy = "read" } node "n1" { policy = "read" }"#)
        .await;
    let past =
        async |token: &str| server.with_token("GET", "/v1/rollcall/history/web?at=0s", token, "").await;
    let own = server.with_token("GET", "/v1/acl/token/self", &root, "").await.json();
    let all = past(&root).await.json();
    let actors: Vec<_> =
        changes(&all).into_iter().map(|change| (&change["Actor"], &change["Cause"])).collect();
    assert_eq!(actors, [(&own["AccessorID"], &json!("registration")); 2], "{all:#}");
    assert_eq!(given(&all).len(), 2);
    let answer = past(&one).await;
    assert_eq!(answer.header("x-consul-results-filtered-by-acls"), "true");
    let seen = answer.json();
    assert_eq!(
        (changes(&seen).len(), given(&seen).into_keys().collect::<Vec<_>>()),
        (1, vec!["on-n1".to_owned()])
    );
    assert!(!seen.to_string().contains("other"), "{seen:#}");
    // Of whom nobody may be seen is as one who never was.
    let nobody = server.token_with(&root, "nobody", r#"service "web" { policy = "read" }"#).await;
    for token in ["", &nobody] {
        let hidden = past(token).await;
        assert_eq!(
            (hidden.status, hidden.text()),
            (404, "there is no service \"web\", and nothing of one is kept".to_owned())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_it() {
    let server = TestServer::start().await;
    server.web(1).await;
    server.done("/v1/agent/check/fail/c1?note=%1B[2Jno", Value::Null).await;
    let at = server.http().to_string();
    let printed = |words: &[&str]| {
        let output = run(&[words, &["--server", &at]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = printed(&["history", "web", "--at", "0s"]);
    for part in [
        "web: complete since 20",
        "check c1: passing to critical",
        "in to out",
        "TTL update",
        "127.0.0.1",
        "?[2Jno",
        "\nout  web-1  n1    10.1.0.1  80    critical",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for n in 2..=3 {
        server.web(n).await;
    }
    let report = json!({ "Service": "web", "ID": "web-2", "Failure": 10 });
    server.done("/v1/rollcall/report", json!({ "Reports": [report] })).await;
    let shown = printed(&["history", "web"]);
    assert!(shown.contains("circuit open") && shown.contains("reports of failures"), "{shown}");
    assert!(printed(&["history", "web", "--at", "48h"]).contains("not known; what was before 20"));
    let value: Value = serde_json::from_str(&printed(&["history", "web", "--json"])).unwrap();
    assert_eq!(changes(&value).len(), 5);
    assert_eq!(run(&["history", "gone", "--server", &at]).status.code(), Some(1));
}
