//! Routes: the plain name answers in the shares that were set, and an outage is never a route's doing.

use std::collections::BTreeMap;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use rollcall::registry::Topic;
use serde_json::{Value, json};

use crate::daemon::run;
use crate::server::{PATIENCE, TestServer, request};

const ROUTE: &str = "/v1/rollcall/route/web";

impl TestServer {
    /// An instance of `web` at 10.8.0.N with a tag and a status.
    async fn colored(&self, n: u8, tag: &str, status: &str) {
        let body = json!({
            "Node": format!("m{n}"), "Address": format!("10.9.0.{n}"),
            "Service": { "Service": "web", "ID": format!("web-{n}"), "Address": format!("10.8.0.{n}"), "Port": 80, "Tags": [tag],
                "Meta": { "version": if tag == "blue" { "1" } else { "2" } } },
            "Check": { "CheckID": format!("c{n}"), "Name": "c", "Status": status, "ServiceID": format!("web-{n}") },
        });
        let taken = self.put("/v1/catalog/register", body).await;
        assert_eq!(taken.status, 200, "{}", taken.text());
    }

    async fn route(&self, body: Value) {
        let taken = self.put(ROUTE, &body).await;
        assert_eq!((taken.status, taken.text().as_str()), (200, ""), "{body}");
    }

    async fn until_version(&self, version: u64) -> Value {
        let reading = async {
            let mut index = 0;
            loop {
                let answer = self.wait(ROUTE, index).await;
                if answer.json()["Version"] == version {
                    return answer.json();
                }
                index = answer.index();
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the version never came")
    }

    /// The weight of each target's first address in SRV, by its last number.
    async fn weights(&self, name: &str) -> BTreeMap<u8, u16> {
        let message = self.ask(name, RecordType::SRV).await;
        let number = |target: String| u8::from_str_radix(&target[6..8], 16).unwrap();
        let weights = message.answers.iter().map(|record| match &record.data {
            RData::SRV(srv) => (number(srv.target.to_string()), srv.weight),
            other => panic!("{other:?}"),
        });
        weights.collect()
    }

    /// The same as the smallest whole numbers; they are large, for clients that drop low bits.
    async fn shares(&self, name: &str) -> BTreeMap<u8, u16> {
        let weights = self.weights(name).await;
        assert!(weights.values().max() > Some(&(u16::MAX / 2)), "{weights:?}");
        let gcd = weights.values().fold(0, |one, other| gcd(one, *other));
        weights.into_iter().map(|(n, weight)| (n, weight / gcd)).collect()
    }

    async fn addresses(&self, name: &str) -> Vec<u8> {
        last(&self.ask(name, RecordType::A).await)
    }
}

fn gcd(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { gcd(other, one % other) }
}

fn last(message: &Message) -> Vec<u8> {
    let mut all: Vec<u8> = message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(a) => a.0.octets()[3],
            other => panic!("{other:?}"),
        })
        .collect();
    all.sort_unstable();
    all
}

/// Two blue, one green, one of neither.
async fn colors() -> TestServer {
    let server = TestServer::start().await;
    for (n, tag) in [(1, "blue"), (2, "blue"), (3, "green"), (4, "red")] {
        server.colored(n, tag, "passing").await;
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn srv_weights_are_the_shares_whatever_the_number_of_instances() {
    let server = colors().await;
    assert_eq!(server.weights("web.service.internal").await, [(1, 1), (2, 1), (3, 1), (4, 1)].into());
    server.route(json!({ "Subsets": ["blue=95", "green=5"] })).await;
    assert_eq!(server.shares("web.service.internal").await, [(1, 19), (2, 19), (3, 2)].into());
    assert_eq!(server.weights("red.web.service.internal").await, [(4, 1)].into());
    // One less, and its share is with the other.
    server.colored(1, "blue", "critical").await;
    server.until("web", |all| all.to_string().contains("critical")).await;
    assert_eq!(server.shares("web.service.internal").await, [(2, 19), (3, 1)].into());
    // Subsets by meta, under a name of their own.
    server.route(json!({ "Subsets": ["old@version=1:0", "new@meta.version=2:1"] })).await;
    assert_eq!(server.shares("web.service.internal").await, [(3, 1), (4, 1)].into());
    assert_eq!(server.weights("old.web.service.internal").await, [(2, 1)].into());
    assert_eq!(server.weights("new.web.service.internal").await, [(3, 1), (4, 1)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_addresses_holds_one_subset_drawn_by_the_shares() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["blue=75%", "green=25%"] })).await;
    let (mut blue, mut green) = (0, 0);
    for _ in 0..800 {
        match server.addresses("web.service.internal").await.as_slice() {
            [1, 2] => blue += 1,
            [3] => green += 1,
            other => panic!("{other:?}"),
        }
    }
    // A binomial of 800 and a quarter: eight deviations from its middle.
    assert!((100..300).contains(&green), "{green} of {}", blue + green);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_makes_no_outage_unless_it_is_strict() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["green=1", "blue=0"] })).await;
    assert_eq!(server.addresses("web.service.internal").await, [3]);
    server.colored(3, "green", "critical").await;
    server.until("web", |all| all.to_string().contains("critical")).await;
    assert_eq!(server.addresses("web.service.internal").await, [1, 2, 4]);
    let told = server.get("/v1/rollcall/explain?name=web").await.json().to_string();
    assert!(
        told.contains("nobody of those with a share is healthy, so all who are healthy answer"),
        "{told}"
    );
    server.route(json!({ "Subsets": ["green=1", "blue=0"], "Strict": true })).await;
    let answer = server.ask("web.service.internal", RecordType::A).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    let told = server.get("/v1/rollcall/explain?name=web").await.json();
    let why: Vec<&Value> = told["Instances"].as_array().unwrap().iter().map(|row| &row["Why"]).collect();
    assert_eq!(why, ["unrouted", "unrouted", "critical", "unrouted"]);
    // Not "healthy": a guard may keep one that is not.
    assert_eq!(told["Instances"][0]["Reason"], "the service's route gives it no share", "{told:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_kept_undone_and_survive_a_restart() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["blue=1"] })).await;
    server.route(json!({ "Subsets": ["green=1"] })).await;
    server.route(json!({ "Subsets": ["green=1"] })).await;
    assert_eq!(server.get(ROUTE).await.json()["Version"], 2, "the same again is no version");
    let server = server.restart().await;
    assert_eq!(server.addresses("web.service.internal").await, [3]);
    assert_eq!(server.put(&format!("{ROUTE}/undo"), "").await.status, 200);
    assert_eq!(server.addresses("web.service.internal").await, [1, 2]);
    let cleared = request(server.http(), "DELETE", ROUTE, &[], "").await;
    assert_eq!(cleared.status, 200);
    assert_eq!(server.addresses("web.service.internal").await, [1, 2, 3, 4]);
    assert_eq!(server.put(&format!("{ROUTE}/undo"), "").await.status, 200);
    assert_eq!(server.addresses("web.service.internal").await, [1, 2]);
    let shown = server.get(ROUTE).await.json();
    assert_eq!((&shown["Version"], &shown["Why"]), (&json!(5), &json!("undo of version 4: as version 3")));
    // An export has it, and another server takes it.
    let exported = server.get("/v1/rollcall/export").await.text();
    let other = TestServer::start().await;
    let taken = other.put("/v1/rollcall/import", &exported).await;
    assert_eq!((taken.status, &taken.json()["Routes"]["New"]), (200, &json!(1)), "{}", taken.text());
    assert_eq!(other.addresses("web.service.internal").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ramp_moves_by_itself_and_a_guard_puts_the_former_back() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["blue=1"] })).await;
    server.route(json!({ "Subsets": ["green=1"], "Over": "3s" })).await;
    let begun = server.weights("web.service.internal").await;
    assert!(begun.contains_key(&1), "the way begins where it was: {begun:?}");
    let whole = async {
        while server.shares("web.service.internal").await != [(3, 1)].into() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("it never arrived");
    server.route(json!({ "Subsets": ["blue=1"], "AbortIfUnhealthy": "49%" })).await;
    assert_eq!(server.addresses("web.service.internal").await, [1, 2]);
    let registry = server.running.registry();
    let index = registry.snapshot().index_of(&Topic::Routes);
    server.colored(1, "blue", "critical").await;
    registry.wait(&Topic::Routes, index, PATIENCE).await.unwrap();
    let shown = server.get(ROUTE).await.json();
    let why = "version 3 aborted: 1 of the 2 instances that gained by it were unhealthy, more than 49 %";
    assert_eq!((&shown["Version"], &shown["Why"]), (&json!(4), &json!(why)));
    assert_eq!(server.addresses("web.service.internal").await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_explain_and_metrics_tell_of_a_route() {
    let server = colors().await;
    let shown = "rollcall_registry_change_to_answer_seconds_count{cause=\"request\"}";
    let before = server.metric(shown).await;
    server.route(json!({ "Subsets": ["blue=1"] })).await;
    assert_eq!(server.metric(shown).await, before + 1.0);
    let index = server.get(ROUTE).await.json()["ModifyIndex"].clone();
    server.route(json!({ "Subsets": ["blue=3", "green=1"], "AbortIfUnhealthy": "0%" })).await;
    server.colored(3, "green", "critical").await;
    server.until_version(3).await;
    let told = server.get("/v1/rollcall/history/web?at=0s").await.json();
    let routed: Vec<_> =
        told["Changes"].as_array().unwrap().iter().filter(|one| one["Kind"] == "route").collect();
    let [aborted, again, set] = routed[..] else { panic!("{told:#}") };
    assert_eq!((&set["Cause"], &set["Actor"], &set["Index"]), (&json!("route"), &json!("127.0.0.1"), &index));
    assert_eq!((&again["Subsets"], &again["Version"]), (&json!(["blue=3", "green=1"]), &json!(2)));
    assert_eq!((&aborted["Cause"], &aborted["Actor"]), (&json!("the route's guard"), &json!("rollcall")));
    assert!(aborted["Why"].as_str().unwrap().starts_with("version 2 aborted: 1 of the 1 "), "{aborted}");
    assert_eq!(told["At"]["Route"], json!({ "Version": 3, "Subsets": ["blue=1"], "Shares": [1] }));
    let printed = run(&["history", "web", "--server", &server.http().to_string()]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("route version 2: blue=3 green=1"), "{printed}");
    let told = server.get("/v1/rollcall/explain?name=web").await.json();
    assert!(told.to_string().contains("route version 3: blue 100 %"), "{told:#}");
    assert_eq!(server.metric("rollcall_registry_routes").await, 1.0);
    for (action, count) in [("set", 2.0), ("abort", 1.0), ("undo", 0.0)] {
        let series = format!("rollcall_registry_route_changes_total{{action=\"{action}\"}}");
        assert_eq!(server.metric(&series).await, count, "{action}");
    }
    let cleared = request(server.http(), "DELETE", ROUTE, &[], "").await;
    assert_eq!((cleared.status, server.metric("rollcall_registry_routes").await), (200, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn services_with_a_route_have_a_limit() {
    let server = TestServer::with(|config| config.limits.routes_max = 1).await;
    for name in ["web", "api"] {
        server.register(json!({ "Name": name, "Address": "10.8.0.1", "Tags": ["blue"] })).await;
    }
    server.route(json!({ "Subsets": ["blue=1"] })).await;
    server.route(json!({ "Subsets": ["blue=2"] })).await;
    let refused = server.put("/v1/rollcall/route/api", json!({ "Subsets": ["blue=1"] })).await;
    let text = "routes: 2: at most 1 are allowed ([limits] routes_max)";
    assert_eq!((refused.status, refused.text().trim()), (400, text));
    assert_eq!(server.metric("rollcall_limit_hits_total{limit=\"routes_max\"}").await, 1.0);
    for (query, count) in [("", 1), ("?service=WEB", 1), ("?service=api", 0), ("?service=api&service=web", 1)]
    {
        let routes = server.get(&format!("/v1/rollcall/routes{query}")).await.json();
        assert_eq!(routes.as_array().unwrap().len(), count, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_changes_nothing() {
    let server = colors().await;
    for (path, body, status, text) in [
        (ROUTE, json!({ "Subsets": [] }), 400, "Invalid route: a route needs a subset"),
        (ROUTE, json!({ "Subsets": ["blue=0", "green=0"] }), 400, "Invalid route: the shares are all 0"),
        (ROUTE, json!({ "Subsets": ["blue=-5"] }), 400, "whole number from 0 to 1000000"),
        (ROUTE, json!({ "Subsets": ["blue=99999999999"] }), 400, "whole number from 0 to 1000000"),
        (
            ROUTE,
            json!({ "Subsets": ["blau=1"] }),
            400,
            "no instance of service \"web\" is in the subset blau",
        ),
        (ROUTE, json!({ "Subsets": ["a b@blue=1"] }), 400, "what stands before @ is no name"),
        (ROUTE, json!({ "Subsets": ["version=1.0=50"] }), 400, "write version=VALUE:SHARE"),
        (
            ROUTE,
            json!({ "Subsets": ["blue=1", "version=1:1"] }),
            400,
            "those that it fits are in one before it",
        ),
        (ROUTE, json!({ "Subsets": ["blue=1"], "Over": "-1s" }), 400, "Invalid route: Over"),
        (ROUTE, json!({ "Subsets": ["blue=1"], "Over": "9000h" }), 400, "more than 31 days"),
        (ROUTE, json!({ "Subsets": ["blue=1"], "AbortIfUnhealthy": "120%" }), 400, "no percent"),
        (ROUTE, json!({ "Subsets": ["blue=1"], "GuardFor": "1m" }), 400, "needs AbortIfUnhealthy"),
        ("/v1/rollcall/route/web?cas=1", json!({ "Subsets": ["blue=1"] }), 400, "?cas= is not served here"),
        (ROUTE, json!({ "Subsets": ["bl\u{202e}ue=1"] }), 400, "turns the direction"),
        ("/v1/rollcall/route/nobody", json!({ "Subsets": ["blue=1"] }), 404, "Unknown service \"nobody\""),
    ] {
        let refused = server.put(path, &body).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.text());
        assert!(refused.text().contains(text), "{body}: {}", refused.text());
    }
    assert_eq!(server.put(&format!("{ROUTE}/undo"), "").await.status, 404);
    assert_eq!(server.put(&format!("{ROUTE}/undo?cas=1"), "").await.status, 400);
    assert_eq!(request(server.http(), "DELETE", &format!("{ROUTE}?cas=1"), &[], "").await.status, 400);
    assert_eq!(server.get(ROUTE).await.status, 404);
    assert_eq!(server.get("/v1/rollcall/routes").await.json(), json!([]));
    assert_eq!(server.addresses("web.service.internal").await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_sets_shows_and_undoes() {
    let server = colors().await;
    let at = server.http().to_string();
    let printed = |words: &[&str]| {
        let output = run(&[&["route"][..], words, &["--server", &at]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = printed(&["set", "web", "blue=95", "green=5"]);
    assert!(
        shown.starts_with("web: version 1, set at ") && shown.contains("blue    blue   95     95%"),
        "{shown}"
    );
    assert!(printed(&["undo", "web"]).contains("all instances answer"));
    let history = printed(&["history", "web"]);
    assert!(
        history.contains("undo of version 1: no route") && history.contains("blue=95 green=5"),
        "{history}"
    );
    assert!(printed(&["list"]).contains("web      2        all instances"), "{}", printed(&["list"]));
    let refused = run(&["route", "set", "web", "blue=x", "--server", &at]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("whole number"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_judges_who_gains_also_where_the_others_are_not_named() {
    let server = colors().await;
    // From all instances, and then from a route of which a subset is not named any more: green has more than before.
    for before in [None, Some(json!({ "Subsets": ["blue=95", "green=5"] }))] {
        if let Some(before) = before {
            server.route(before).await;
        }
        let held = server.get(ROUTE).await;
        let version = if held.status == 200 { held.json()["Version"].as_u64().unwrap() } else { 0 };
        server.route(json!({ "Subsets": ["green=100"], "AbortIfUnhealthy": "20%" })).await;
        assert_eq!(server.addresses("web.service.internal").await, [3], "it holds while all are healthy");
        server.colored(3, "green", "critical").await;
        server.until_version(version + 2).await;
        let why = format!("version {} aborted: 1 of the 1 ", version + 1);
        let told = server.get(ROUTE).await.json();
        assert!(told["Why"].as_str().unwrap().starts_with(&why), "{told}");
        server.colored(3, "green", "passing").await;
        request(server.http(), "DELETE", ROUTE, &[], "").await;
    }
    // Nobody gains: there is nobody to judge.
    server.route(json!({ "Subsets": ["blue=1"] })).await;
    server.route(json!({ "Subsets": ["blue=2"], "AbortIfUnhealthy": "20%" })).await;
    server.colored(3, "green", "critical").await;
    assert_eq!(server.addresses("web.service.internal").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_with_numbers_beyond_all_bounds_is_refused_and_the_server_lives() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["blue=1", "green=1"] })).await;
    let exported = server.get("/v1/rollcall/export").await.text();
    let number = exported.lines().position(|line| line.contains("\"subsets\"")).expect("it has the route");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut lines: Vec<String> = exported.lines().map(str::to_owned).collect();
        let mut line: Value = serde_json::from_str(&lines[number]).unwrap();
        let key = line.as_object().unwrap().keys().find(|key| key.eq_ignore_ascii_case("route")).cloned();
        change(match &key {
            Some(key) => &mut line[key],
            None => &mut line,
        });
        lines[number] = line.to_string();
        lines.join("\n") + "\n"
    };
    let other = TestServer::start().await;
    for (document, what) in [
        (
            with(&|route| {
                route["subsets"][0]["share"] = json!(1u64 << 31);
                route["from"] = json!([1u64 << 31, 1u64 << 31]);
                route["over"] = json!(1u64 << 62);
            }),
            "a share is more than 1000000",
        ),
        (with(&|route| route["over"] = json!(1u64 << 62)), "more than 31 days"),
        (with(&|route| route["version"] = json!(u64::MAX)), "its version"),
        (
            with(&|route| {
                route["past"] = json!([]);
                route["guard"] = json!({ "unhealthy": 20, "watch": 600_000 });
            }),
            "no former version to put back",
        ),
    ] {
        let refused = other.put("/v1/rollcall/import", &document).await;
        assert_eq!(refused.status, 400, "{}", refused.text());
        assert!(refused.text().contains(what), "{what}: {}", refused.text());
    }
    assert_eq!(other.get("/v1/rollcall/routes").await.json(), json!([]));
    let taken = other.put("/v1/rollcall/import", &with(&|_| {})).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guard_has_ended_does_not_come_back_by_undo() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["blue=1"] })).await;
    server.route(json!({ "Subsets": ["green=1"], "AbortIfUnhealthy": "20%" })).await;
    server.colored(3, "green", "critical").await;
    server.until_version(3).await;
    let refused = server.put(&format!("{ROUTE}/undo"), "").await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    let text = "version 2 aborted: 1 of the 1 instances that gained by it were unhealthy, more than 20 %; \
                to have it again all the same, set it again";
    assert_eq!(refused.text().trim(), text);
    assert_eq!(server.get(ROUTE).await.json()["Version"], 3);
    // One that would end so at once is refused when it is set.
    let again = server.put(ROUTE, json!({ "Subsets": ["green=1"], "AbortIfUnhealthy": "20%" })).await;
    assert_eq!(again.status, 409, "{}", again.text());
    assert!(again.text().starts_with("the route would be aborted at once: 1 of the 1 "), "{}", again.text());
    server.route(json!({ "Subsets": ["blue=2", "red=1"] })).await;
    assert_eq!(server.put(&format!("{ROUTE}/undo"), "").await.status, 200);
    assert_eq!(server.get(ROUTE).await.json()["Subsets"], json!(["blue=1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_is_no_fault_of_a_route_unless_nobody_is_left() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["green=1"] })).await;
    server.route(json!({ "Subsets": ["blue=1"], "AbortIfUnhealthy": "20%", "Over": "2s" })).await;
    assert_eq!(server.put("/v1/rollcall/drain/web-1?node=m1", "").await.status, 200);
    let arrived = async {
        while server.addresses("web.service.internal").await != [2] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("it never arrived");
    assert_eq!(server.get(ROUTE).await.json()["Version"], 2);
    assert_eq!(server.put("/v1/rollcall/drain/web-2?node=m2", "").await.status, 200);
    let shown = server.until_version(3).await;
    assert_eq!(shown["Why"], "version 2 aborted: no instance that gained by it is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subset_keeps_its_name_while_the_route_names_it() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["blue=1", "g@version=2:0", "green=0"] })).await;
    for n in [3, 4] {
        let gone = json!({ "Node": format!("m{n}"), "ServiceID": format!("web-{n}") });
        assert_eq!(server.put("/v1/catalog/deregister", gone).await.status, 200);
    }
    for (name, code) in
        [("g", ResponseCode::NoError), ("green", ResponseCode::NoError), ("red", ResponseCode::NXDomain)]
    {
        let answer = server.ask(&format!("{name}.web.service.internal"), RecordType::A).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name}");
    }
    let told = server.get("/v1/rollcall/explain?name=g.web.service.internal").await.json().to_string();
    assert!(told.contains("the route's subset g has no instance"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_can_be_written_and_what_is_given_now_is_told_with_it() {
    let server = colors().await;
    server
        .route(json!({ "Subsets": ["n@blue=1", "green=1"], "Over": "1ms", "AbortIfUnhealthy": "60%" }))
        .await;
    let read = server.get(ROUTE).await.json();
    assert_eq!((&read["AbortIfUnhealthy"], &read["GuardFor"]), (&json!("60%"), &json!("10m0s")));
    server.route(read.clone()).await;
    let again = server.get(ROUTE).await.json();
    for key in ["Subsets", "Over", "AbortIfUnhealthy", "GuardFor", "Strict"] {
        assert_eq!(read[key], again[key], "{key}");
    }
    let at = server.http().to_string();
    let printed = |words: &[&str]| {
        let output = run(&[&["route"][..], words, &["--server", &at]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = printed(&["show", "web"]);
    assert!(
        shown.contains("more than 60% of those who gain are unhealthy, until 10m0s after that"),
        "{shown}"
    );
    assert!(
        printed(&["history", "web"]).contains("n@blue=1 green=1"),
        "the name of a subset is in the history"
    );
    server.route(json!({ "Subsets": ["n@blue=1", "green=1"] })).await;
    server.colored(3, "green", "critical").await;
    server.until("web", |all| all.to_string().contains("critical")).await;
    let now = server.get(ROUTE).await.json();
    let percents: Vec<&Value> = now["Now"].as_array().unwrap().iter().map(|one| &one["Percent"]).collect();
    assert_eq!((percents, &now["Answers"]), (vec![&json!(100.0), &json!(0.0)], &json!("by shares")));
    let told = server.get("/v1/rollcall/explain?name=web").await.json().to_string();
    assert!(told.contains("nobody of green is healthy, so its share goes to the others"), "{told}");
    for n in [1, 2] {
        server.colored(n, "blue", "critical").await;
    }
    let all_three = |all: &Value| all.to_string().matches("critical").count() >= 3;
    server.until("web", all_three).await;
    let shown = printed(&["show", "web"]);
    assert!(shown.contains("who answers: all, since nobody with a share is healthy"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_is_unhealthy_for_a_guard() {
    let server = colors().await;
    server.route(json!({ "Subsets": ["green=1"] })).await;
    server.route(json!({ "Subsets": ["blue=1"], "AbortIfUnhealthy": "20%" })).await;
    let failed = json!({ "Reports": [{ "Service": "web", "ID": "web-1", "Success": 0, "Failure": 50 }] });
    assert_eq!(server.put("/v1/rollcall/report", failed).await.json()["Counted"], 1);
    let shown = server.until_version(3).await;
    assert!(shown["Why"].as_str().unwrap().starts_with("version 2 aborted: 1 of the 2 "), "{shown}");
    assert_eq!(server.addresses("web.service.internal").await, [3]);
}
