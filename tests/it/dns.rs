//! Every form and answer of the two tables of names: services, tags, nodes, addresses, reverse names, the domain itself,
//! and what is said where there is nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rollcall::config::{Config, Data};
use serde_json::{Value, json};

use crate::server::{PATIENCE, TestServer, ask, ask_tcp, query};
use crate::wire::{data, soa};

/// A service that is healthy as long as nobody says otherwise: its check is a client's to update.
pub fn healthy(id: &str, name: &str, address: &str, port: u16) -> Value {
    json!({ "ID": id, "Name": name, "Address": address, "Port": port,
            "Check": { "TTL": "1h", "Status": "passing" } })
}

/// A server with so many healthy instances of `web`, at 10.0.0.1, 10.0.1.1, and so on.
pub async fn crowd(instances: u8) -> TestServer {
    crowd_with(instances, |_| {}).await
}

/// With changes to the defaults.
pub async fn crowd_with(instances: u8, change: impl FnOnce(&mut Config)) -> TestServer {
    let server = TestServer::with(|config| {
        config.data = Data::Ephemeral;
        change(config);
    })
    .await;
    let each = (0..instances).map(|i| healthy(&format!("web-{i}"), "web", &format!("10.0.{i}.1"), 80));
    futures_util::future::join_all(each.map(|definition| server.register(definition))).await;
    server
}

fn tagged(id: &str, name: &str, address: &str, tags: &[&str]) -> Value {
    let mut definition = healthy(id, name, address, 80);
    definition["Tags"] = json!(tags);
    definition
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn ttls(records: &[Record]) -> BTreeSet<u32> {
    records.iter().map(|record| record.ttl).collect()
}

/// No records, the code, and the SOA of a domain that may be kept for one second.
fn assert_negative(answer: &Message, rcode: ResponseCode, domain: &str) {
    assert_eq!(answer.response_code, rcode, "{answer}");
    assert!(answer.authoritative, "{answer}");
    assert_eq!(soa(answer), (name(domain), 1, 1), "{answer}");
}

#[tokio::test]
async fn every_form_of_a_service_answers_over_udp_and_tcp_in_both_domains() {
    let server = TestServer::start().await;
    let mut definition = tagged("web-1", "web", "10.0.0.1", &["v1", "v1.2", "udp"]);
    definition["Meta"] = json!({ "zone": "a" });
    server.register(definition).await;
    server.register(tagged("web-2", "web", "10.0.0.2", &["v2"])).await;
    let (both, first, second) = (vec!["10.0.0.1", "10.0.0.2"], vec!["10.0.0.1"], vec!["10.0.0.2"]);
    for domain in ["internal.", "consul."] {
        for (form, expected) in [
            ("web.service", &both),
            ("web.service.dc1", &both),
            ("WEB.Service.DC1", &both),
            ("v1.web.service", &first),
            ("v1.2.web.service", &first),
            ("V1.2.web.service.dc1", &first),
            ("v2.web.service", &second),
            ("_web._tcp.service", &both),
            ("_web._tcp.service.dc1", &both),
            ("_web._udp.service", &first),
            ("_web._v2.service.dc1", &second),
        ] {
            let asked = format!("{form}.{domain}");
            let addresses = query(&asked, RecordType::A);
            let srv = query(&asked, RecordType::SRV);
            for (addresses, srv) in [
                (ask(server.dns(), &addresses).await, ask(server.dns(), &srv).await),
                (ask_tcp(server.dns(), &addresses).await, ask_tcp(server.dns(), &srv).await),
            ] {
                assert!(addresses.authoritative && !addresses.recursion_available);
                assert_eq!(data(&addresses.answers, RecordType::A), **expected, "{asked}");
                assert!(addresses.answers.iter().all(|record| record.name == name(&asked)));
                assert_eq!(srv.answers.len(), expected.len(), "{asked}");
                assert_eq!(data(&srv.additionals, RecordType::A), **expected, "{asked}");
                for record in &srv.answers {
                    let RData::SRV(srv) = &record.data else { panic!("{record}") };
                    assert_eq!(srv.port, 80);
                    assert!(name(domain).zone_of(&srv.target), "{} in the domain asked in", srv.target);
                }
            }
        }
    }
    let text = server.ask("web.service.internal.", RecordType::TXT).await;
    assert_eq!(data(&text.answers, RecordType::TXT), ["zone=a"]);
}

#[tokio::test]
async fn targets_of_srv_answers_resolve_on_their_own() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    server.register(json!({ "ID": "web-2", "Name": "web", "Port": 81 })).await;
    let mut dual = healthy("web-3", "web", "10.0.0.3", 82);
    dual["TaggedAddresses"] = json!({ "lan_ipv6": { "Address": "fd00::3", "Port": 82 } });
    server.register(dual).await;
    for domain in ["internal", "consul"] {
        let answer = server.ask(&format!("web.service.{domain}."), RecordType::SRV).await;
        let mut targets = BTreeSet::new();
        for record in &answer.answers {
            let RData::SRV(srv) = &record.data else { panic!("{record}") };
            targets.insert(srv.target.to_ascii());
            let mut alone = Vec::new();
            for kind in [RecordType::A, RecordType::AAAA] {
                alone.extend(server.ask(&srv.target.to_ascii(), kind).await.answers);
            }
            let added = answer.additionals.iter().filter(|record| record.name == srv.target);
            let texts = |records: &mut dyn Iterator<Item = &Record>| {
                records.map(|record| record.data.to_string()).collect::<BTreeSet<_>>()
            };
            assert!(!alone.is_empty());
            assert_eq!(texts(&mut added.into_iter()), texts(&mut alone.iter()), "{}", srv.target);
        }
        let expected = [
            format!("0a000001.addr.dc1.{domain}."),
            format!("0a000003-fd000000000000000000000000000003.addr.dc1.{domain}."),
            format!("n1.node.dc1.{domain}."),
        ];
        assert_eq!(targets, BTreeSet::from(expected));
    }
}

#[tokio::test]
async fn an_instance_of_both_families_has_a_and_aaaa() {
    let server = TestServer::start().await;
    let mut dual = healthy("web-1", "web", "10.0.0.3", 82);
    dual["TaggedAddresses"] = json!({ "lan_ipv6": { "Address": "fd00::3", "Port": 82 } });
    server.register(dual).await;
    server.register(healthy("web-2", "web", "fd00::4", 82)).await;
    let v4 = server.ask("web.service.internal.", RecordType::A).await;
    let v6 = server.ask("web.service.internal.", RecordType::AAAA).await;
    assert_eq!(data(&v4.answers, RecordType::A), ["10.0.0.3"]);
    assert_eq!(data(&v6.answers, RecordType::AAAA), ["fd00::3", "fd00::4"]);
    assert_eq!((v4.answers.len(), v6.answers.len()), (1, 2));
}

#[tokio::test]
async fn nodes_addresses_and_reverse_names_answer() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    for asked in ["n1.node.internal.", "N1.node.dc1.consul.", "ns.internal.", "ns.consul."] {
        let answer = server.ask(asked, RecordType::A).await;
        assert_eq!(data(&answer.answers, RecordType::A), ["127.0.0.1"], "{asked}");
        let domain = if asked.ends_with("consul.") { "consul." } else { "internal." };
        assert_negative(&server.ask(asked, RecordType::AAAA).await, ResponseCode::NoError, domain);
    }
    let hex = server.ask("7f000001.addr.dc1.internal.", RecordType::A).await;
    assert_eq!(data(&hex.answers, RecordType::A), ["127.0.0.1"]);
    let long = "fd000000000000000000000000000001.addr.internal.";
    assert_eq!(data(&server.ask(long, RecordType::AAAA).await.answers, RecordType::AAAA), ["fd00::1"]);
    assert_negative(&server.ask(long, RecordType::A).await, ResponseCode::NoError, "internal.");

    let node = server.ask("1.0.0.127.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(data(&node.answers, RecordType::PTR), ["n1.node.dc1.internal."]);
    let reverse = "1.0.0.10.in-addr.arpa.";
    let service = server.ask(reverse, RecordType::PTR).await;
    assert_eq!(data(&service.answers, RecordType::PTR), ["web.service.internal."]);
    assert_negative(&server.ask(reverse, RecordType::A).await, ResponseCode::NoError, reverse);
    for unknown in ["2.0.0.10.in-addr.arpa.", "0.0.10.in-addr.arpa.", "arpa."] {
        let answer = server.ask(unknown, RecordType::PTR).await;
        assert_eq!(answer.response_code, ResponseCode::Refused, "{unknown}");
    }
}

#[tokio::test]
async fn the_reverse_name_of_an_ipv6_instance_answers() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "fd00::1", 80)).await;
    let reverse = format!("1.{}d.f.ip6.arpa.", "0.".repeat(29));
    let answer = server.ask(&reverse, RecordType::PTR).await;
    assert_eq!(data(&answer.answers, RecordType::PTR), ["web.service.internal."]);
    assert_negative(&server.ask(&reverse, RecordType::TXT).await, ResponseCode::NoError, &reverse);
    // The second address of a dual-stack instance, for as long as it has it.
    let dual =
        |more: serde_json::Value| json!({ "Name": "dual", "Address": "10.0.0.2", "TaggedAddresses": more });
    server.register(dual(json!({ "lan_ipv6": { "Address": "fd00::2" } }))).await;
    let reverse = format!("2.{}d.f.ip6.arpa.", "0.".repeat(29));
    let answer = server.ask(&reverse, RecordType::PTR).await;
    assert_eq!(data(&answer.answers, RecordType::PTR), ["dual.service.internal."]);
    server.register(dual(json!({}))).await;
    assert_eq!(server.ask(&reverse, RecordType::PTR).await.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn the_domain_itself_has_soa_and_ns() {
    let server = TestServer::start().await;
    for domain in ["internal.", "consul."] {
        let answer = server.ask(domain, RecordType::SOA).await;
        let RData::SOA(soa) = &answer.answers[0].data else { panic!("{answer}") };
        assert_eq!((soa.mname.clone(), soa.minimum), (name(&format!("ns.{domain}")), 1));
        assert_eq!(answer.answers.len(), 1);
        let answer = server.ask(domain, RecordType::NS).await;
        assert_eq!(data(&answer.answers, RecordType::NS), [format!("ns.{domain}")]);
        assert_eq!(data(&answer.additionals, RecordType::A), ["127.0.0.1"]);
        assert_negative(&server.ask(domain, RecordType::A).await, ResponseCode::NoError, domain);
    }
}

#[tokio::test]
async fn what_exists_without_records_is_no_data_and_what_does_not_is_nxdomain() {
    let server = TestServer::start().await;
    server.register(tagged("web-1", "web", "10.0.0.1", &["v1.2"])).await;
    let mut dead = healthy("db-1", "db", "10.0.0.2", 5432);
    dead["Check"]["Status"] = json!("critical");
    dead["Tags"] = json!(["primary"]);
    server.register(dead).await;
    for domain in ["internal.", "consul."] {
        for (form, rcode) in [
            ("service", ResponseCode::NoError),
            ("node", ResponseCode::NoError),
            ("addr", ResponseCode::NoError),
            ("query", ResponseCode::NoError),
            ("dc1", ResponseCode::NoError),
            ("service.dc1", ResponseCode::NoError),
            ("_tcp.service", ResponseCode::NoError),
            ("2.web.service", ResponseCode::NoError),
            ("2.web.service.dc1", ResponseCode::NoError),
            // Registered, nobody healthy.
            ("db.service", ResponseCode::NoError),
            ("primary.db.service", ResponseCode::NoError),
            ("_db._tcp.service", ResponseCode::NoError),
            ("none.service", ResponseCode::NXDomain),
            ("v1.web.service", ResponseCode::NXDomain),
            ("1.2.web.service", ResponseCode::NXDomain),
            ("replica.db.service", ResponseCode::NXDomain),
            ("web.service.dc2", ResponseCode::NXDomain),
            ("dc2", ResponseCode::NXDomain),
            ("n2.node", ResponseCode::NXDomain),
            ("x.n1.node", ResponseCode::NXDomain),
            ("xyz.addr", ResponseCode::NXDomain),
            ("web", ResponseCode::NXDomain),
            ("web.query", ResponseCode::NXDomain),
            ("_none._tcp.service", ResponseCode::NXDomain),
        ] {
            let asked = format!("{form}.{domain}");
            for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT, RecordType::MX] {
                assert_negative(&server.ask(&asked, kind).await, rcode, domain);
            }
        }
        // A type that a healthy service does not have.
        for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::CNAME, RecordType::SOA] {
            let asked = format!("web.service.{domain}");
            assert_negative(&server.ask(&asked, kind).await, ResponseCode::NoError, domain);
        }
    }
    for elsewhere in ["example.com.", ".", "com.", "internal.example.", "notinternal."] {
        let answer = server.ask(elsewhere, RecordType::A).await;
        assert_eq!(answer.response_code, ResponseCode::Refused, "{elsewhere}");
        assert!(!answer.authoritative && answer.authorities.is_empty() && answer.answers.is_empty());
    }
}

#[tokio::test]
async fn a_service_whose_last_healthy_instance_fails_is_no_data_until_it_is_well_again() {
    let server = TestServer::start().await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    assert_eq!(server.ask("web.service.internal.", RecordType::A).await.answers.len(), 1);
    server.put("/v1/agent/check/fail/service:web-1", "").await;
    let answer = server.ask("web.service.internal.", RecordType::A).await;
    assert_negative(&answer, ResponseCode::NoError, "internal.");
    server.put("/v1/agent/check/pass/service:web-1", "").await;
    assert_eq!(server.ask("web.service.internal.", RecordType::A).await.answers.len(), 1);
    server.put("/v1/agent/service/maintenance/web-1?enable=true", "").await;
    let answer = server.ask("web.service.internal.", RecordType::A).await;
    assert_negative(&answer, ResponseCode::NoError, "internal.");
    server.put("/v1/agent/service/deregister/web-1", "").await;
    let answer = server.ask("web.service.internal.", RecordType::A).await;
    assert_negative(&answer, ResponseCode::NXDomain, "internal.");
}

#[tokio::test]
async fn instances_that_share_one_host_name_are_a_cname() {
    let server = TestServer::start().await;
    server.register(healthy("db-1", "db", "db.example.com", 5432)).await;
    server.register(healthy("db-2", "db", "DB.example.com", 5433)).await;
    for kind in [RecordType::A, RecordType::AAAA, RecordType::CNAME, RecordType::ANY] {
        let answer = server.ask("db.service.internal.", kind).await;
        assert_eq!(answer.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers.len(), 1, "{answer}");
        let RData::CNAME(target) = &answer.answers[0].data else { panic!("{kind}: {answer}") };
        assert_eq!(target.0, name("db.example.com."));
    }
    let answer = server.ask("db.service.internal.", RecordType::SRV).await;
    assert_eq!(answer.answers.len(), 2);
    for record in &answer.answers {
        let RData::SRV(srv) = &record.data else { panic!("{record}") };
        assert_eq!(srv.target, name("db.example.com."));
    }
}

#[tokio::test]
async fn host_names_that_differ_are_left_out_of_addresses_without_a_forwarder() {
    let server = TestServer::start().await;
    server.register(healthy("db-1", "db", "a.example.com", 1)).await;
    server.register(healthy("db-2", "db", "b.example.com", 2)).await;
    let answer = server.ask("db.service.internal.", RecordType::A).await;
    assert_negative(&answer, ResponseCode::NoError, "internal.");
    server.register(healthy("db-3", "db", "10.0.0.1", 3)).await;
    let answer = server.ask("db.service.internal.", RecordType::A).await;
    assert_eq!(data(&answer.answers, RecordType::A), ["10.0.0.1"]);
    assert_eq!(answer.answers.len(), 1);
    let answer = server.ask("db.service.internal.", RecordType::SRV).await;
    assert_eq!(answer.answers.len(), 3);
}

#[tokio::test]
async fn srv_weights_follow_the_status() {
    let server = TestServer::start().await;
    let mut definition = healthy("web-1", "web", "10.0.0.1", 80);
    definition["Weights"] = json!({ "Passing": 10, "Warning": 3 });
    server.register(definition).await;
    server.register(healthy("web-2", "web", "10.0.0.2", 81)).await;
    let weights = |answer: Message| {
        let one = |record: &Record| match &record.data {
            RData::SRV(srv) => (srv.port, srv.weight),
            other => panic!("{other}"),
        };
        answer.answers.iter().map(one).collect::<BTreeSet<_>>()
    };
    let answer = server.ask("web.service.internal.", RecordType::SRV).await;
    assert_eq!(weights(answer), BTreeSet::from([(80, 10), (81, 1)]));
    server.put("/v1/agent/check/warn/service:web-1", "").await;
    let answer = server.ask("web.service.internal.", RecordType::SRV).await;
    assert_eq!(weights(answer), BTreeSet::from([(80, 3), (81, 1)]));
}

/// With five instances, one that never came first in 200 answers would be chance once in 10^19.
#[tokio::test]
async fn every_instance_comes_first_sometimes() {
    let server = TestServer::start().await;
    for i in 1..=5 {
        server.register(healthy(&format!("web-{i}"), "web", &format!("10.0.0.{i}"), 80 + i)).await;
    }
    for kind in [RecordType::A, RecordType::SRV] {
        let mut first = BTreeSet::new();
        for _ in 0..200 {
            let answer = server.ask("web.service.internal.", kind).await;
            assert_eq!(answer.answers.len(), 5);
            first.insert(answer.answers[0].data.to_string());
        }
        assert_eq!(first.len(), 5, "{kind}: {first:?}");
    }
}

#[tokio::test]
async fn a_ttl_is_what_the_checks_promise_within_the_ceiling() {
    let server = TestServer::with(|config| {
        config.dns.ttl = Duration::from_secs(30);
        config.dns.service_ttl =
            vec![("long".to_owned(), Duration::from_secs(600)), ("sh*".to_owned(), Duration::from_secs(2))];
    })
    .await;
    let with_ttl = |id: &str, name: &str, ttl: &str| {
        let mut definition = healthy(id, name, "10.0.0.1", 80);
        definition["Check"]["TTL"] = json!(ttl);
        definition
    };
    for (name, ttl, expected) in [
        ("web", "20s", 20),
        ("fast", "500ms", 1),
        ("slow", "1h", 30),
        ("long", "1h", 600),
        ("short", "1h", 2),
        ("shy", "1s", 1),
    ] {
        server.register(with_ttl(&format!("{name}-1"), name, ttl)).await;
        for kind in [RecordType::A, RecordType::SRV] {
            // A TTL check of half a second may have run out meanwhile: then it is passed anew.
            let mut answer = server.ask(&format!("{name}.service.internal."), kind).await;
            while answer.answers.is_empty() {
                server.put(&format!("/v1/agent/check/pass/service:{name}-1"), "").await;
                answer = server.ask(&format!("{name}.service.internal."), kind).await;
            }
            assert_eq!(ttls(&answer.answers), BTreeSet::from([expected]), "{name} {kind}");
            if kind == RecordType::SRV {
                assert_eq!(ttls(&answer.additionals), BTreeSet::from([expected]), "{name}");
            }
        }
    }
    // One TTL for the RRset: the smallest. A service without checks has the ceiling.
    server.register(with_ttl("web-2", "web", "7s")).await;
    let answer = server.ask("web.service.internal.", RecordType::SRV).await;
    assert_eq!(ttls(&answer.answers), BTreeSet::from([7]));
    server.register(json!({ "Name": "bare", "Address": "10.0.0.9", "Port": 1 })).await;
    let answer = server.ask("bare.service.internal.", RecordType::A).await;
    assert_eq!(ttls(&answer.answers), BTreeSet::from([30]));
    // Names that no check can change.
    for asked in ["n1.node.internal.", "7f000001.addr.internal."] {
        assert_eq!(ttls(&server.ask(asked, RecordType::A).await.answers), BTreeSet::from([30]), "{asked}");
    }
}

/// Interval x results still needed: three failures make it critical, so the promise shrinks with each.
#[tokio::test]
async fn a_ttl_shrinks_with_every_failure_on_the_way_to_critical() {
    let server = TestServer::with(|config| config.dns.ttl = Duration::from_secs(60)).await;
    let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = target.local_addr().unwrap();
    let definition = json!({ "ID": "web-1", "Name": "web", "Address": "127.0.0.1", "Port": address.port(),
        "Check": { "TCP": address.to_string(), "Interval": "1s", "Timeout": "1s", "FailuresBeforeCritical": 3 } });
    server.register(definition).await;
    server
        .until("web", |entries| {
            entries[0]["Checks"]
                .as_array()
                .is_some_and(|checks| checks.iter().all(|check| check["Status"] == "passing"))
        })
        .await;
    let mut seen = Vec::new();
    let mut target = Some(target);
    let watching = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            pause.tick().await;
            let answer = server.ask("web.service.internal.", RecordType::A).await;
            let Some(record) = answer.answers.first() else { break };
            if seen.last() != Some(&record.ttl) {
                seen.push(record.ttl);
            }
            if record.ttl == 3 {
                target = None;
            }
        }
    };
    tokio::time::timeout(PATIENCE, watching).await.expect("it never became critical");
    assert!(target.is_none());
    assert_eq!(seen[seen.len() - 3..], [3, 2, 1]);
}

#[tokio::test]
async fn letter_case_is_echoed_in_the_question_and_in_every_owner() {
    let server = TestServer::start().await;
    server.register(healthy("Web-1", "Web", "10.0.0.1", 80)).await;
    for asked in ["wEb.sErViCe.iNtErNaL.", "WEB.SERVICE.CONSUL.", "nOnE.Service.Internal.", "INTERNAL."] {
        for kind in [RecordType::A, RecordType::SRV, RecordType::SOA] {
            for answer in [
                ask(server.dns(), &query(asked, kind)).await,
                ask_tcp(server.dns(), &query(asked, kind)).await,
            ] {
                assert_eq!(answer.queries[0].name().to_ascii(), asked);
                for record in &answer.answers {
                    assert_eq!(record.name.to_ascii(), asked);
                }
                for record in &answer.authorities {
                    let owner = record.name.to_ascii();
                    assert!(asked.ends_with(&owner), "{owner} as in {asked}");
                }
            }
        }
    }
    let answer = server.ask("wEb.sErViCe.iNtErNaL.", RecordType::SRV).await;
    let RData::SRV(srv) = &answer.answers[0].data else { panic!("{answer}") };
    assert!(srv.target.to_ascii().ends_with(".iNtErNaL."), "{}", srv.target);
}

#[tokio::test]
async fn names_that_dns_cannot_show_are_not_in_dns() {
    let server = TestServer::start().await;
    for (number, service) in ["my web", "a.b", "caf\u{e9}", "*", &"x".repeat(64)].iter().enumerate() {
        let definition = tagged(&format!("s-{number}"), service, "10.0.0.1", &["plain"]);
        let answer = server.put("/v1/agent/service/register", &definition).await;
        assert_eq!(answer.status, 200, "{service}");
        assert!(answer.headers.contains_key("x-rollcall-warning"), "{service}");
    }
    let definition = tagged("web-1", "web", "10.0.0.1", &["my tag", "*", "caf\u{e9}", "good.tag"]);
    assert_eq!(server.put("/v1/agent/service/register", &definition).await.status, 200);
    let labels: [&[&[u8]]; 9] = [
        &[b"my web"],
        &[b"a", b"b"],
        &[b"a.b"],
        &["caf\u{e9}".as_bytes()],
        &[b"*"],
        &[b"plain", b"my web"],
        &[b"my tag", b"web"],
        &[b"*", b"web"],
        // One label with a dot in it is another name than two labels.
        &[b"good.tag", b"web"],
    ];
    for labels in labels {
        let labels = labels.iter().copied().chain([&b"service"[..], b"internal"]);
        let mut asked = Name::from_labels(labels).unwrap();
        asked.set_fqdn(true);
        for kind in [RecordType::A, RecordType::SRV, RecordType::ANY] {
            let mut message = query("internal.", kind);
            message.queries[0].set_name(asked.clone());
            let answer = ask(server.dns(), &message).await;
            assert_eq!(answer.response_code, ResponseCode::NXDomain, "{asked}: {answer}");
        }
    }
    assert_eq!(server.ask("good.tag.web.service.internal.", RecordType::A).await.answers.len(), 1);
}

#[tokio::test]
async fn the_serial_moves_only_when_an_answer_can_differ_and_never_goes_back() {
    let server = TestServer::start().await;
    let serial = async |server: &TestServer| {
        let answer = server.ask("internal.", RecordType::SOA).await;
        let RData::SOA(soa) = &answer.answers[0].data else { panic!("{answer}") };
        soa.serial
    };
    let before = serial(&server).await;
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    let registered = serial(&server).await;
    assert!(registered > before);
    // The same again, a renewal, another output, and what DNS does not show.
    server.register(healthy("web-1", "web", "10.0.0.1", 80)).await;
    server.put("/v1/agent/check/pass/service:web-1?note=fine", "").await;
    server.put("/v1/agent/check/pass/service:web-1?note=better", "").await;
    let mut neutral = healthy("web-1", "web", "10.0.0.1", 80);
    neutral["EnableTagOverride"] = json!(true);
    neutral["Check"]["Notes"] = json!("what people read");
    let index = server.get("/v1/catalog/service/web").await.index();
    server.register(neutral).await;
    assert!(server.get("/v1/catalog/service/web").await.index() > index, "it was a change");
    assert_eq!(serial(&server).await, registered);

    let mut last = registered;
    for change in [
        "/v1/agent/check/warn/service:web-1",
        "/v1/agent/check/fail/service:web-1",
        "/v1/agent/check/pass/service:web-1",
        "/v1/agent/service/maintenance/web-1?enable=true",
        "/v1/agent/service/deregister/web-1",
    ] {
        assert_eq!(server.put(change, "").await.status, 200, "{change}");
        let next = serial(&server).await;
        assert!(next > last, "{change}");
        last = next;
    }
    let server = server.restart().await;
    assert!(serial(&server).await >= last);
}
