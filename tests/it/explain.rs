//! Explanations: they say what DNS answers, and why each instance is in or out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use rollcall::config::Config;
use rollcall::dns::forward;
use rollcall::model::Locality;
use rollcall::select::near::Clients;
use serde_json::{Value, json};

use crate::acl::{Asks, controlled};
use crate::daemon::run;
use crate::server::{TestServer, ask_tcp, query};
use crate::zones::{EXAMPLE, write};

impl TestServer {
    async fn explained(&self, question: &str) -> Value {
        let answer = self.get(&format!("/v1/rollcall/explain?name={question}")).await;
        assert_eq!(answer.status, 200, "{question}: {}", answer.text());
        answer.json()
    }

    /// An instance of `web` (or what the body says) with a check of its own, at 10.1.0.N.
    async fn placed(&self, n: u8, status: &str, change: impl FnOnce(&mut Value)) {
        let mut body = json!({
            "Node": format!("m{n}"), "Address": format!("10.9.0.{n}"),
            "Service": {
                "Service": "web", "ID": format!("web-{n}"), "Address": format!("10.1.0.{n}"), "Port": 80, "Tags": ["v1"],
                "Weights": { "Passing": 10, "Warning": 3 }, "Meta": { "n": n.to_string() },
            },
            "Check": {
                "CheckID": format!("c{n}"), "Name": "c", "Status": status, "ServiceID": format!("web-{n}"),
                "Output": format!("said by {n}\nand more"),
            },
        });
        change(&mut body);
        let taken = self.put("/v1/catalog/register", body).await;
        assert_eq!(taken.status, 200, "{}", taken.text());
    }
}

/// By instance: the word, and the sentence.
fn why(explained: &Value) -> BTreeMap<String, (String, String)> {
    let rows = explained["Instances"].as_array().unwrap_or_else(|| panic!("{explained:#}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.iter()
        .map(|row| {
            let is_in = ["passing", "warning", "by-name"].contains(&row["Why"].as_str().unwrap());
            assert_eq!(row["In"], json!(is_in), "{row}");
            (text(&row["ID"]), (text(&row["Why"]), text(&row["Reason"])))
        })
        .collect()
}

fn words(explained: &Value) -> Vec<String> {
    why(explained).into_values().map(|(word, _)| word).collect()
}

fn said(explained: &Value) -> String {
    let all = explained["Said"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    all.collect::<Vec<_>>().join("; ")
}

fn records(of: &Value) -> BTreeSet<String> {
    of.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn zone_of(config: &mut Config, folder: &tempfile::TempDir) {
    config.zones = vec![write(folder.path(), "example.test.", EXAMPLE)];
}

/// One of each: passing, warning, failing, in maintenance by itself and by its node, of another tag, of IPv6 alone, a name.
async fn one_of_each(server: &TestServer) {
    server.placed(1, "passing", |_| {}).await;
    server.placed(2, "warning", |_| {}).await;
    server.placed(3, "passing", |_| {}).await;
    server.placed(3, "critical", |_| {}).await;
    server.placed(4, "passing", |_| {}).await;
    server.placed(5, "passing", |_| {}).await;
    server.placed(6, "passing", |body| body["Service"]["Tags"] = json!(["v2"])).await;
    server.placed(7, "passing", |body| body["Service"]["Address"] = json!("2001:db8::7")).await;
    server.placed(8, "passing", |body| body["Service"]["Address"] = json!("db.example.com")).await;
    server.placed(9, "passing", |body| body["Service"]["Meta"] = json!({})).await;
    for path in [
        "/v1/agent/service/maintenance/web-4?enable=true&reason=new+disk",
        "/v1/agent/maintenance?enable=true&reason=moving&node=m5",
    ] {
        let taken = server.put(path, "").await;
        assert_eq!(taken.status, 200, "{path}: {}", taken.text());
    }
}

#[tokio::test]
async fn every_reason_is_told_for_the_instance_that_has_it() {
    let server = TestServer::start().await;
    one_of_each(&server).await;
    let explained = server.explained("v1.web.service.internal").await;
    let why = why(&explained);
    let is = |n: u8, word: &str, parts: &[&str]| {
        let (found, told) = &why[&format!("web-{n}")];
        assert_eq!(found, word, "web-{n}: {told}");
        assert!(parts.iter().all(|part| told.contains(part)), "web-{n}: {told}");
    };
    is(1, "passing", &["its check passes"]);
    is(2, "warning", &["weight 3", "check c2 is warning", "said by 2"]);
    is(3, "critical", &["check c3 is critical since 20", "Z: said by 3"]);
    assert!(!why["web-3"].1.contains("and more"), "{}", why["web-3"].1);
    is(4, "maintenance", &["in maintenance: new disk"]);
    is(5, "maintenance", &["its node is in maintenance: moving"]);
    is(6, "untagged", &["lacks the tag \"v1\"; it has v2"]);
    is(7, "unreachable", &["no IPv4 address"]);
    is(8, "unresolved", &["db.example.com", "[forward]"]);
    is(9, "passing", &[]);
    assert_eq!(why.len(), 9);
    assert!(said(&explained).contains("service web for the tag v1: 3 of 9 instances answer"));
    assert_eq!(
        (&explained["Rcode"], &explained["Type"], &explained["From"]),
        (&json!("NOERROR"), &json!("A"), &json!("127.0.0.1"))
    );
    let of = |kind: &'static str| {
        let server = &server;
        async move { words(&server.explained(&format!("web.service.internal&type={kind}")).await) }
    };
    let (critical, out) = ("critical", "maintenance");
    assert_eq!(
        of("AAAA").await,
        [
            "unreachable",
            "unreachable",
            critical,
            out,
            out,
            "unreachable",
            "passing",
            "unresolved",
            "unreachable"
        ]
    );
    assert_eq!(
        of("srv").await,
        ["passing", "warning", critical, out, out, "passing", "passing", "passing", "passing"]
    );
    assert_eq!(of("TXT").await[8], "textless");
    // The end of a failure is a flip, too.
    server.placed(3, "passing", |_| {}).await;
    assert_eq!(words(&server.explained("web").await)[2], "passing");
}

#[tokio::test]
async fn since_is_when_the_status_changed_and_a_restart_forgets_it() {
    let server = TestServer::start().await;
    server.placed(1, "passing", |_| {}).await;
    server.placed(1, "critical", |_| {}).await;
    let told = |explained: &Value| why(explained)["web-1"].1.clone();
    let first = told(&server.explained("web").await);
    assert!(first.contains("is critical since 20"), "{first}");
    // What changes the definition and not the status.
    server.placed(1, "critical", |body| body["Check"]["Notes"] = json!("other")).await;
    assert_eq!(told(&server.explained("web").await), first);
    let server = server.restart().await;
    let after = told(&server.explained("web").await);
    assert!(after.contains("is critical since before this server began: said by 1"), "{after}");
}

#[tokio::test]
async fn an_explanation_has_the_records_and_the_code_that_dns_gives() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::with(|config| zone_of(config, &folder)).await;
    one_of_each(&server).await;
    let made =
        json!({ "Name": "main", "Service": { "Service": "web", "OnlyPassing": true, "Tags": ["v1"] } });
    let made = crate::server::request(server.http(), "POST", "/v1/query", &[], &made.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text());
    for (name, says) in [
        ("web.service.internal.", "service web: "),
        ("WEB.service.CONSUL.", "service web: "),
        ("v1.web.service.dc1.internal.", "for the tag v1"),
        ("nobody.web.service.internal.", "no instance of web has the tag nobody"),
        ("gone.service.internal.", "no service gone that may be seen"),
        ("_web._tcp.service.internal.", "service web: "),
        ("main.query.internal.", "the prepared query \"main\", for service web"),
        ("none.query.internal.", "no prepared query none"),
        ("m1.node.internal.", "node m1; nodes answer whatever their health is"),
        ("m99.node.internal.", "no node m99"),
        ("0a010001.addr.internal.", "spells the address"),
        ("internal.", "is a domain of this server"),
        ("ns.internal.", "the name of this server"),
        ("service.internal.", "only because names below it do"),
        ("x.y.internal.", "no name of this form is known"),
        ("1.0.1.10.in-addr.arpa.", "the reverse name of 10.1.0.1, which is registered"),
        ("9.9.9.9.in-addr.arpa.", "which nobody here is registered with"),
        ("alias.example.test.", "in the static zone example.test."),
        ("nothing.example.test.", "in the static zone example.test."),
        ("example.com.", "in none of this server's domains and static zones"),
    ] {
        for kind in [
            RecordType::A,
            RecordType::AAAA,
            RecordType::SRV,
            RecordType::TXT,
            RecordType::PTR,
            RecordType::ANY,
        ] {
            let explained = server.explained(&format!("{name}&type={kind}")).await;
            let answer = ask_tcp(server.dns(), &query(name, kind)).await;
            let told = |records: &[hickory_proto::rr::Record]| {
                records.iter().map(ToString::to_string).collect::<BTreeSet<_>>()
            };
            let code = match answer.metadata.response_code {
                ResponseCode::NoError => "NOERROR",
                ResponseCode::NXDomain => "NXDOMAIN",
                ResponseCode::Refused => "REFUSED",
                other => panic!("{name} {kind}: {other}"),
            };
            assert_eq!(explained["Rcode"], json!(code), "{name} {kind}");
            assert_eq!(records(&explained["Answers"]), told(&answer.answers), "{name} {kind}");
            assert_eq!(records(&explained["Authorities"]), told(&answer.authorities), "{name} {kind}");
            assert_eq!(records(&explained["Additionals"]), told(&answer.additionals), "{name} {kind}");
            assert!(said(&explained).contains(says), "{name} {kind}: {explained:#}");
        }
    }
    let query = server.explained("main.query.internal").await;
    assert_eq!(words(&query)[1..3], ["not-passing", "critical"]);
    assert_eq!(words(&query)[5], "unwanted");
}

#[tokio::test]
async fn limits_nearness_and_ttls_are_told() {
    let server = TestServer::with(|config| {
        let place = |zone: &str| Locality { region: "eu".into(), zone: zone.into() };
        config.locality.clients = Clients::new(vec![("10.7.0.0/16".parse().unwrap(), place("a"))]);
        config.dns.nearest = vec![("near".into(), 1)];
        config.dns.a_limit = vec![("web".into(), 1)];
        config.dns.service_ttl = vec![("near".into(), std::time::Duration::from_secs(3))];
    })
    .await;
    for n in [1, 2] {
        server.placed(n, "passing", |_| {}).await;
        let zone = if n == 1 { "a" } else { "b" };
        let body = json!({
            "Node": "n1", "Address": "127.0.0.1", "SkipNodeUpdate": true,
            "Service": { "Service": "near", "ID": format!("near-{n}"), "Address": format!("10.2.0.{n}"),
                "Locality": { "Region": "eu", "Zone": zone } },
        });
        assert_eq!(server.put("/v1/catalog/register", body).await.status, 200);
    }
    let web = server.explained("web").await;
    let mut found = words(&web);
    found.sort();
    assert_eq!(found, ["not-drawn", "passing"], "{web:#}");
    let given = web["Instances"].as_array().unwrap().iter().find(|row| row["In"] == json!(true)).unwrap();
    let address = given["Addresses"][0].as_str().unwrap();
    assert!(web["Answers"][0].as_str().unwrap().ends_with(address), "{web:#}");
    assert_eq!((&web["TTL"], web["Answers"].as_array().unwrap().len()), (&json!(5), 1));
    assert_eq!(web["TTLReason"], json!("the ceiling, 5s ([dns] ttl): no check can change a status sooner"));

    let near = server.explained("near&from=10.7.1.1").await;
    let why = why(&near);
    assert_eq!((why["near-1"].0.as_str(), why["near-2"].0.as_str()), ("passing", "farther"));
    assert!(why["near-2"].1.contains("(eu/b), the client in eu/a; at least 1 nearer"), "{}", why["near-2"].1);
    assert_eq!(
        near["TTLReason"],
        json!("the ceiling, 3s ([dns] service_ttl): no check can change a status sooner")
    );
    assert_eq!(words(&server.explained("near&from=10.8.1.1").await), ["passing", "passing"]);

    server
        .register(json!({ "Name": "beat", "Port": 1, "Check": { "TTL": "2s", "Status": "passing", "CheckID": "beat" } }))
        .await;
    let beat = server.explained("beat").await;
    assert_eq!(beat["TTL"], json!(2), "{beat:#}");
    let reason = beat["TTLReason"].as_str().unwrap();
    assert!(reason.starts_with("check n1/beat can change a status within 2s (one term of 2s"), "{reason}");
}

#[tokio::test]
async fn what_is_forwarded_is_said_and_nobody_is_asked() {
    // Nobody answers there.
    let upstream = SocketAddr::from(([127, 0, 9, 53], 53));
    let server = TestServer::with(|config| {
        config.forward = Some(forward::Config { upstreams: vec![upstream], ..forward::Config::default() });
    })
    .await;
    server.placed(1, "passing", |body| body["Service"]["Address"] = json!("db.example.com")).await;
    let explained = server.explained("example.com").await;
    assert_eq!((&explained["Rcode"], explained["Answers"].as_array().unwrap().len()), (&json!(""), 0));
    assert!(said(&explained).contains("forwarded ([forward])"));
    let host = server.explained("web").await;
    assert_eq!(words(&host), ["by-name"]);
    assert!(said(&host).contains("asked of the upstreams"), "{host:#}");
    assert_eq!(server.metric("rollcall_dns_forwarded_total{outcome=\"failed\"}").await, 0.0);
}

#[tokio::test]
async fn bad_questions_are_refused() {
    let server = TestServer::start().await;
    let long = format!("{}.internal", "a".repeat(64));
    for (question, text) in [
        ("", "Missing name to explain"),
        ("?name=", "Missing name to explain"),
        ("?name=web&type=nonsense", "Invalid type \"nonsense\": not a DNS record type"),
        ("?name=web&from=here", "Invalid address \"here\" in ?from"),
        (&format!("?name={long}"), "Invalid name \"aaaa"),
        ("?name=a..b", "Invalid name \"a..b\""),
    ] {
        let refused = server.get(&format!("/v1/rollcall/explain{question}")).await;
        assert_eq!(refused.status, 400, "{question}: {}", refused.text());
        assert!(refused.text().starts_with(text), "{question}: {}", refused.text());
    }
}

#[tokio::test]
async fn a_token_is_told_no_more_than_it_may_see() {
    let (server, root) = controlled(false).await;
    for (node, service, n) in [("n1", "web", 1), ("other", "web", 2), ("n1", "secret", 3)] {
        let body = json!({ "Node": node, "Address": format!("10.9.0.{}", node.len()),
            "Service": { "Service": service, "ID": format!("i{n}"), "Address": format!("10.7.0.{n}") } });
        let made = server.with_token("PUT", "/v1/catalog/register", &root, &body.to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
    let rules = r#"service "web" { policy = "read" } node "n1" { policy = "read" }"#;
    let one = server.token_with(&root, "one", rules).await;
    let all = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
    let all = server.token_with(&root, "all", all).await;
    let explained = async |token: &str, name: &str| {
        let path = format!("/v1/rollcall/explain?name={name}");
        let answer = server.with_token("GET", &path, token, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let seen = explained(&one, "web").await;
    assert_eq!(why(&seen).into_keys().collect::<Vec<_>>(), ["i1"], "{seen:#}");
    assert!(!seen.to_string().contains("10.7.0.2"), "{seen:#}");
    for (token, name) in
        [(one.as_str(), "secret"), ("", "secret"), ("", "web"), (&one, "other.node.internal")]
    {
        let seen = explained(token, name).await;
        assert!(said(&seen).contains("that may be seen"), "{name}: {seen:#}");
        assert_eq!((&seen["Rcode"], &seen["Instances"]), (&json!("NXDOMAIN"), &Value::Null), "{name}");
        assert!(!seen.to_string().contains("10."), "{name}: {seen:#}");
    }
    // DNS itself may see nothing yet, and whoever sees all is told so.
    let seen = explained(&all, "web").await;
    assert_eq!(seen["Rcode"], json!("NXDOMAIN"));
    assert!(said(&seen).contains("the token of DNS may not read service web"), "{seen:#}");
    let put = json!({ "Token": one }).to_string();
    let taken = server.with_token("PUT", "/v1/agent/token/dns", &root, &put).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    let seen = explained(&all, "web").await;
    assert_eq!(words(&seen), ["passing", "hidden"], "{seen:#}");
    assert_eq!(why(&seen)["i2"].1, "the token of DNS may not read its node");
    let unknown = server.with_token("GET", "/v1/rollcall/explain?name=web", "nobody's", "").await;
    assert_eq!((unknown.status, unknown.text().as_str()), (403, "ACL not found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_it_to_people_and_programs() {
    let server = TestServer::start().await;
    server.placed(1, "passing", |_| {}).await;
    server.placed(2, "critical", |body| body["Check"]["Output"] = json!("\u{1b}[2Jgone")).await;
    let at = server.http().to_string();
    let printed = |words: &[&str]| {
        let output = run(&[words, &["--server", &at]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = printed(&["explain", "web", "--type", "SRV", "--from", "10.0.0.9"]);
    for part in [
        "web.service.internal. SRV: NOERROR (index ",
        "\"web\" is taken for web.service.internal.",
        "service web: 1 of 2 instances answer",
        "TTL 5 s: the ceiling",
        "ANSWER\n  web.service.internal. 5 IN SRV 1 10 80 0a010001.addr.dc1.internal.",
        "ADDITIONAL\n",
        "out  web-2",
        "check c2 is critical since ",
        "?[2Jgone",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let value: Value = serde_json::from_str(&printed(&["explain", "web", "--json"])).unwrap();
    assert_eq!(words(&value), ["passing", "critical"]);
    let refused = run(&["explain", "web", "--type", "none", "--server", &at]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Invalid type"), "{refused:?}");
}

#[tokio::test]
async fn the_time_that_nothing_is_remembered_is_that_of_the_soa_record() {
    let server = TestServer::start().await;
    server.placed(1, "critical", |_| {}).await;
    // Of who is out, of an address family that nobody has, of a name that is not there.
    for (name, kind) in [("web", "A"), ("web", "AAAA"), ("nobody", "A")] {
        let name = format!("{name}.service.internal");
        let explained = server.explained(&format!("{name}&type={kind}")).await;
        let soa = explained["Authorities"][0].as_str().unwrap_or_else(|| panic!("{explained:#}"));
        let words: Vec<&str> = soa.split_whitespace().collect();
        let ttl: u64 = words[1].parse().unwrap();
        let minimum: u64 = words.last().unwrap().parse().unwrap();
        assert_eq!(explained["TTL"], json!(ttl.min(minimum)), "{explained:#}");
        assert!(explained["TTLReason"].as_str().unwrap().contains("nothing to give"), "{explained:#}");
    }
}
