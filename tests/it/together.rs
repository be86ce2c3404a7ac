//! Guard, circuits, slow starts, routes, drains and maintenance of one service, in any order: what holds of each alone holds of all
//! together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, RecordType};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::server::{TestServer, request};

const INSTANCES: usize = 6;
const PORT: usize = 8000;
const STEPS: usize = 600;
const NAME: &str = "web.service.internal.";
const ROUTE: &str = "/v1/rollcall/route/web";

#[derive(Debug, Clone)]
enum Step {
    /// It has this status from now on; it is registered if it is not there.
    Put(usize, &'static str),
    Deregister(usize),
    Maintain(usize, bool),
    Drain(usize, bool),
    Report(usize, u32, u32),
    Route(&'static [&'static str], bool),
    Undo,
    Clear,
}

/// What the test knows of an instance that is registered.
#[derive(Debug)]
struct One {
    status: &'static str,
    maintained: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..INSTANCES;
    let status = || prop::sample::select(vec!["passing", "passing", "warning", "critical"]);
    let routes: Vec<&'static [&'static str]> = vec![
        &["blue=95", "green=5"],
        &["blue=1", "green=0"],
        &["green=1"],
        &["old@meta.v=1:50", "version=2:50"],
    ];
    prop_oneof![
        12 => (which.clone(), status()).prop_map(|(one, status)| Step::Put(one, status)),
        1 => which.clone().prop_map(Step::Deregister),
        1 => (which.clone(), prop::bool::ANY).prop_map(|(one, on)| Step::Maintain(one, on)),
        1 => (which.clone(), prop::bool::ANY).prop_map(|(one, on)| Step::Drain(one, on)),
        4 => (which, 0..5u32, 0..30u32).prop_map(|(one, good, bad)| Step::Report(one, good, bad)),
        3 => (prop::sample::select(routes), prop::bool::ANY).prop_map(|(route, strict)| Step::Route(route, strict)),
        1 => Just(Step::Undo),
        1 => Just(Step::Clear),
    ]
}

struct Bench {
    server: TestServer,
    known: BTreeMap<usize, One>,
    /// How often each cause was seen: that what is tested has happened at all.
    seen: BTreeMap<String, usize>,
}

impl Bench {
    async fn new() -> Self {
        let server = TestServer::with(|config| {
            // No clock changes anything on its own.
            let hour = Duration::from_secs(3600);
            (config.guard.share, config.guard.window, config.guard.hold) = (50, hour, hour);
            (config.slow_start.window, config.breaker.out.all, config.breaker.window.all) =
                (hour, hour, hour);
        })
        .await;
        Self { server, known: BTreeMap::new(), seen: BTreeMap::new() }
    }

    /// What is refused changes nothing, and is no step.
    async fn take(&mut self, step: &Step) {
        let there = |one: &usize| self.known.contains_key(one);
        let (method, path, body) = match step {
            Step::Put(one, status) if there(one) => {
                ("PUT", format!("/v1/agent/check/update/c{one}"), json!({ "Status": status, "Output": "so" }))
            }
            Step::Put(one, status) => ("PUT", "/v1/agent/service/register".into(), definition(*one, status)),
            Step::Deregister(one) => ("PUT", format!("/v1/agent/service/deregister/web-{one}"), Value::Null),
            Step::Maintain(one, on) => {
                ("PUT", format!("/v1/agent/service/maintenance/web-{one}?enable={on}"), Value::Null)
            }
            Step::Drain(one, true) => ("PUT", format!("/v1/rollcall/drain/web-{one}"), Value::Null),
            Step::Drain(one, false) => ("DELETE", format!("/v1/rollcall/drain/web-{one}"), Value::Null),
            Step::Report(one, good, bad) => {
                let report =
                    json!({ "Service": "web", "ID": format!("web-{one}"), "Success": good, "Failure": bad });
                ("PUT", "/v1/rollcall/report".into(), json!({ "Reports": [report] }))
            }
            Step::Route(subsets, strict) => {
                ("PUT", ROUTE.into(), json!({ "Subsets": subsets, "Strict": strict }))
            }
            Step::Undo => ("PUT", format!("{ROUTE}/undo"), Value::Null),
            Step::Clear => ("DELETE", ROUTE.into(), Value::Null),
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = request(self.server.http(), method, &path, &[], &body).await;
        assert!(answer.status < 500, "{step:?}: {} {}", answer.status, answer.text());
        if answer.status != 200 {
            return;
        }
        match *step {
            Step::Put(one, status) => {
                self.known.entry(one).or_insert(One { status, maintained: false }).status = status;
            }
            Step::Deregister(one) => drop(self.known.remove(&one)),
            Step::Maintain(one, on) | Step::Drain(one, on) => {
                self.known.get_mut(&one).unwrap().maintained = on
            }
            Step::Report(..) | Step::Route(..) | Step::Undo | Step::Clear => {}
        }
    }

    /// What must hold now, of the answer and of what is said of it.
    async fn check(&mut self, after: &Step) {
        let answer = self.server.ask(NAME, RecordType::SRV).await;
        let srv = answer.answers.iter().map(|record| match &record.data {
            RData::SRV(srv) => (usize::from(srv.port) - PORT, srv.weight),
            other => panic!("{other}"),
        });
        let given: BTreeMap<usize, u16> = srv.collect();
        let explained = self.server.get("/v1/rollcall/explain?name=web&type=SRV").await.json();
        let told =
            |known: &BTreeMap<usize, One>| format!("after {after:?}: {given:?} of {known:?}\n{explained:#}");
        let instances = explained["Instances"].as_array().cloned().unwrap_or_default();
        let mut why = BTreeMap::new();
        for one in &instances {
            let number = one["Port"].as_u64().unwrap() as usize - PORT;
            let word = one["Why"].as_str().unwrap().to_owned();
            assert_eq!(one["In"] == true, given.contains_key(&number), "{}", told(&self.known));
            *self.seen.entry(word.clone()).or_default() += 1;
            why.insert(number, word);
        }
        assert_eq!(
            why.keys().collect::<Vec<_>>(),
            self.known.keys().collect::<Vec<_>>(),
            "{}",
            told(&self.known)
        );
        for (number, word) in &why {
            let one = &self.known[number];
            let fits = match word.as_str() {
                "passing" | "warning" => one.status == word && !one.maintained,
                "maintenance" => one.maintained,
                "critical" | "guarded" => one.status == "critical" && !one.maintained,
                "broken" | "unrouted" => !one.maintained,
                _ => false,
            };
            assert!(fits, "{number} is {word}; {}", told(&self.known));
        }
        let healthy: BTreeSet<_> = self
            .known
            .iter()
            .filter(|(_, one)| one.status != "critical" && !one.maintained)
            .map(|(n, _)| *n)
            .collect();
        let broken = healthy.iter().filter(|one| why[one] == "broken").count();
        assert!(2 * broken <= healthy.len(), "{}", told(&self.known));
        self.check_route(&why, &given, &told(&self.known));
        // Who is given has a part of the work, however the weights were spread.
        assert!(given.values().all(|weight| *weight > 0), "{}", told(&self.known));
        let code = if self.known.is_empty() { ResponseCode::NXDomain } else { ResponseCode::NoError };
        assert_eq!(answer.metadata.response_code, code, "{}", told(&self.known));
        assert!(answer.answers.iter().all(|record| record.ttl <= 5), "{}", told(&self.known));
        // An answer of addresses has nobody whom that of SRV has not.
        let addresses = self.server.ask(NAME, RecordType::A).await;
        for record in &addresses.answers {
            let RData::A(a) = &record.data else { panic!("{record}") };
            assert!(given.contains_key(&usize::from(a.0.octets()[3])), "{a} {}", told(&self.known));
        }
        assert_eq!(addresses.answers.is_empty(), given.is_empty(), "{}", told(&self.known));
        // No circuit leaves a name of a tag without an answer.
        for (tag, rest) in [("blue", 0), ("green", 1)] {
            let some = healthy.iter().any(|one| one % 2 == rest);
            let answer = self.server.ask(&format!("{tag}.{NAME}"), RecordType::SRV).await;
            assert!(!some || !answer.answers.is_empty(), "{tag}: {}", told(&self.known));
            let explained =
                self.server.get(&format!("/v1/rollcall/explain?name={tag}.{NAME}&type=SRV")).await.json();
            let all = explained["Instances"].as_array().cloned().unwrap_or_default();
            let told_in = all.iter().filter(|one| one["In"] == true).count();
            assert_eq!(told_in, answer.answers.len(), "{tag}: {explained:#}");
            let spared = all.iter().filter(|one| one["Why"] == "spared").count();
            if spared > 0 {
                *self.seen.entry("spared".to_owned()).or_default() += spared;
            }
        }
    }

    /// Those with a share of the route answer while any of them could: circuits leave them half at least. Only where there is none, and
    /// the route is strict, does nobody answer of those who could.
    fn check_route(&mut self, why: &BTreeMap<usize, String>, given: &BTreeMap<usize, u16>, told: &str) {
        let snapshot = self.server.running.registry().snapshot();
        let route = snapshot.route_of("web").filter(|entry| entry.route.is_active());
        let has_share = |one: usize| {
            let entry = snapshot.instance("n1", &format!("web-{one}")).unwrap();
            route.is_none_or(|of| of.route.subset_of(&entry.instance).is_some_and(|at| of.shares[at] > 0))
        };
        let could = |word: &str| ["passing", "warning", "guarded", "broken", "unrouted"].contains(&word);
        let could: BTreeSet<_> = why.iter().filter(|(_, word)| could(word)).map(|(one, _)| *one).collect();
        let routed: BTreeSet<_> = could.iter().copied().filter(|one| has_share(*one)).collect();
        let broken = routed.iter().filter(|one| why[one] == "broken").count();
        assert!(2 * broken <= routed.len(), "{told}");
        assert!(routed.is_empty() || given.keys().all(|one| routed.contains(one)), "{told}");
        let strictly = routed.is_empty() && route.is_some_and(|of| of.route.strict);
        assert_eq!(given.is_empty(), could.is_empty() || strictly, "{told}");
        if !routed.is_empty() && route.is_some_and(|of| of.route.strict) {
            *self.seen.entry("by a strict route".to_owned()).or_default() += 1;
        }
    }
}

fn definition(one: usize, status: &str) -> Value {
    json!({
        "Name": "web", "ID": format!("web-{one}"), "Address": format!("10.7.0.{one}"), "Port": PORT + one,
        "Tags": [if one.is_multiple_of(2) { "blue" } else { "green" }],
        "Meta": { "v": (one % 3).to_string(), "version": (one % 3).to_string() },
        "Check": { "CheckID": format!("c{one}"), "TTL": "1h", "Status": status },
    })
}

/// One server for all histories, which are short: what one leaves behind is where the next begins.
#[test]
fn what_holds_of_each_alone_holds_of_all_together() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 1, failure_persistence: None, ..ProptestConfig::default() });
    let mut bench = runtime.block_on(Bench::new());
    for _ in 0..STEPS {
        let step = step().new_tree(&mut runner).unwrap().current();
        runtime.block_on(async {
            bench.take(&step).await;
            bench.check(&step).await;
        });
    }
    let words: Vec<_> = bench.seen.keys().map(String::as_str).collect();
    let all = [
        "broken",
        "by a strict route",
        "critical",
        "guarded",
        "maintenance",
        "passing",
        "spared",
        "unrouted",
        "warning",
    ];
    assert_eq!(words, all, "{:?}", bench.seen);
}
