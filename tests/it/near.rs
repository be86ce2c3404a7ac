//! Places: the nearest instances in DNS and over HTTP, spill-over, client subnets.

use std::collections::BTreeSet;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsCode, EdnsOption};
use rollcall::config::Config;
use rollcall::model::Locality;
use rollcall::select::near::Clients;
use serde_json::{Value, json};

use crate::server::{TestServer, ask, ask_tcp, exchange, query, request};

fn place(region: &str, zone: &str) -> Locality {
    Locality { region: region.into(), zone: zone.into() }
}

/// This server and loopback are in eu/a; 10.1.0.0/16 is eu/b, 10.2.0.0/16 is us/a.
fn placed(config: &mut Config) {
    config.locality.own = Some(place("eu", "a"));
    let networks = [("10.1.0.0/16", "eu", "b"), ("10.2.0.0/16", "us", "a"), ("2001:db8::/32", "us", "a")];
    let networks = networks.map(|(net, region, zone)| (net.parse().unwrap(), place(region, zone)));
    config.locality.clients = Clients::new(networks.into());
    config.dns.nearest = vec![("web".into(), 1), ("pair*".into(), 2)];
}

impl TestServer {
    /// An instance at a place, said in one of the ways that there are.
    async fn at(&self, service: &str, id: u8, (region, zone): (&str, &str), status: &str) {
        let locality = json!({ "Region": region, "Zone": zone });
        let mut body = json!({
            "Node": format!("m{id}"), "Address": format!("10.9.0.{id}"),
            "Service": { "Service": service, "ID": format!("{service}-{id}"), "Address": format!("10.8.0.{id}"), "Port": 80 },
            "Checks": [{
                "CheckID": format!("{service}-{id}"), "Name": "c", "Status": status, "ServiceID": format!("{service}-{id}"),
            }],
        });
        match id % 4 {
            0 => body["Locality"] = locality,
            1 => body["Service"]["Locality"] = locality,
            2 => body["NodeMeta"] = json!({ "region": region, "zone": zone }),
            _ => body["Service"]["Meta"] = json!({ "region": region, "zone": zone }),
        }
        let taken = self.put("/v1/catalog/register", body).await;
        assert_eq!(taken.status, 200, "{}", taken.text());
    }

    /// Four of a service, at four places.
    async fn four(&self, service: &str) {
        for (id, at) in [(1, ("eu", "a")), (2, ("eu", "a")), (3, ("eu", "b")), (4, ("us", "a"))] {
            self.at(service, id, at, "passing").await;
        }
    }

    /// Which of a service's instances an answer has, by A and by SRV.
    async fn given(&self, name: &str, message: impl Fn(Message) -> Message) -> BTreeSet<u8> {
        let (mut a, mut srv) = (BTreeSet::new(), BTreeSet::new());
        let answer = ask(self.dns(), &message(query(name, RecordType::A))).await;
        for record in &answer.answers {
            a.insert(last(&record.data.to_string()));
        }
        let answer = ask(self.dns(), &message(query(name, RecordType::SRV))).await;
        for record in answer.additionals {
            srv.insert(last(&record.data.to_string()));
        }
        assert_eq!(a, srv, "{name}");
        a
    }
}

fn last(address: &str) -> u8 {
    address.rsplit('.').next().unwrap().parse().unwrap()
}

fn plain(message: Message) -> Message {
    message
}

fn with_subnet(subnet: &str) -> impl Fn(Message) -> Message {
    let (address, source) = subnet.split_once('/').unwrap();
    let subnet = ClientSubnet::new(address.parse().unwrap(), source.parse().unwrap(), 0);
    move |mut message: Message| {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        edns.options_mut().insert(EdnsOption::Subnet(subnet));
        message.set_edns(edns);
        message
    }
}

/// The scope that an answer has; none without the option.
fn scope(answer: &Message) -> Option<u8> {
    match answer.edns.as_ref()?.options().get(EdnsCode::Subnet)? {
        EdnsOption::Subnet(subnet) => Some(subnet.scope_prefix()),
        other => panic!("{other:?}"),
    }
}

fn set(of: &[u8]) -> BTreeSet<u8> {
    of.iter().copied().collect()
}

#[tokio::test]
async fn clients_get_their_zone_then_their_region_then_all() {
    let server = TestServer::with(placed).await;
    for service in ["web", "pairs", "other"] {
        server.four(service).await;
    }
    let asked = async |name: &str| server.given(&format!("{name}.service.internal."), plain).await;
    assert_eq!(asked("other").await, set(&[1, 2, 3, 4]), "not for services that do not say so");
    assert_eq!(asked("web").await, set(&[1, 2]));
    server.at("web", 1, ("eu", "a"), "critical").await;
    assert_eq!(asked("web").await, set(&[2]), "one is enough for web");
    assert_eq!(asked("pairs").await, set(&[1, 2]));
    server.at("pairs", 1, ("eu", "a"), "critical").await;
    assert_eq!(asked("pairs").await, set(&[2, 3]), "too few in the zone");
    server.at("pairs", 3, ("eu", "b"), "critical").await;
    assert_eq!(asked("pairs").await, set(&[2, 4]), "too few in the region");
    for id in [2, 3] {
        server.at("web", id, ("eu", if id == 2 { "a" } else { "b" }), "critical").await;
    }
    assert_eq!(asked("web").await, set(&[4]), "the last one anywhere");
    server.at("web", 4, ("us", "a"), "critical").await;
    let none = server.ask("web.service.internal.", RecordType::A).await;
    assert!(none.answers.is_empty() && none.authorities.len() == 1, "NODATA: {none:?}");
    server.at("web", 3, ("eu", "b"), "passing").await;
    assert_eq!(asked("web").await, set(&[3]), "back again");
}

#[tokio::test]
async fn those_that_are_given_share_the_load_whatever_their_distance() {
    let server = TestServer::with(placed).await;
    server.four("pairs").await;
    server.at("pairs", 1, ("eu", "a"), "critical").await;
    let mut first = BTreeSet::new();
    for _ in 0..64 {
        let answer = server.ask("pairs.service.internal.", RecordType::A).await;
        first.insert(last(&answer.answers[0].data.to_string()));
    }
    assert_eq!(first, set(&[2, 3]), "the one in the zone does not have it all");
}

#[tokio::test]
async fn a_family_that_only_others_have_is_not_an_empty_answer() {
    let server = TestServer::with(placed).await;
    server.at("web", 1, ("eu", "a"), "passing").await;
    let far = json!({
        "Node": "far", "Address": "10.9.0.9",
        "Service": { "Service": "web", "ID": "far", "Address": "fd00::9", "Locality": { "Region": "us", "Zone": "a" } },
    });
    assert_eq!(server.put("/v1/catalog/register", far).await.status, 200);
    let v6 = server.ask("web.service.internal.", RecordType::AAAA).await;
    assert_eq!(v6.answers[0].data.to_string(), "fd00::9");
    let v4 = server.ask("web.service.internal.", RecordType::A).await;
    assert_eq!(v4.answers.len(), 1);
}

#[tokio::test]
async fn a_resolvers_word_on_its_client_counts_and_answers_say_for_whom_they_hold() {
    let server = TestServer::with(placed).await;
    for service in ["web", "other"] {
        server.four(service).await;
    }
    server.register(json!({ "Name": "alias", "Address": "web.service.internal", "Port": 1 })).await;
    let name = "web.service.internal.";
    for (subnet, expected, bits) in [
        ("10.1.7.0/24", &[3][..], 16),
        ("10.2.7.9/32", &[4], 16),
        ("2001:db8:5::/48", &[4], 32),
        // Not in a network that is known: everybody's, but not for those in such a network.
        ("10.9.0.0/16", &[1, 2, 3, 4], 13),
        ("192.0.2.0/24", &[1, 2, 3, 4], 1),
        // Less than the networks that are known: the resolver is told to say more.
        ("10.0.0.0/8", &[1, 2, 3, 4], 16),
        // Whoever says nothing of its client gets what is everybody's.
        ("0.0.0.0/0", &[1, 2, 3, 4], 0),
    ] {
        assert_eq!(server.given(name, with_subnet(subnet)).await, set(expected), "{subnet}");
        let message = with_subnet(subnet)(query(name, RecordType::A));
        for answer in [ask(server.dns(), &message).await, ask_tcp(server.dns(), &message).await] {
            assert_eq!(scope(&answer), Some(bits), "{subnet}");
        }
        let behind = with_subnet(subnet)(query("alias.service.internal.", RecordType::A));
        assert_eq!(scope(&ask(server.dns(), &behind).await), Some(bits), "{subnet}: behind a CNAME, too");
    }
    // What does not depend on the client is everybody's.
    for name in ["other.service.internal.", "nope.service.internal.", "internal.", "n1.node.internal."] {
        let answer = ask(server.dns(), &with_subnet("10.1.0.0/16")(query(name, RecordType::A))).await;
        assert_eq!(scope(&answer), Some(0), "{name}");
    }
    let without = ask(server.dns(), &query(name, RecordType::A)).await;
    assert_eq!(scope(&without), None, "nobody asked");
    // Malformed: bits behind the prefix.
    let mut bytes = with_subnet("10.1.7.0/24")(query(name, RecordType::A)).to_vec().unwrap();
    *bytes.last_mut().unwrap() = 7;
    let at = bytes.len() - 5;
    bytes[at] = 20;
    let answer = Message::from_vec(&exchange(server.dns(), &bytes).await.unwrap()).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
}

#[tokio::test]
async fn nobodys_word_is_taken_where_it_is_not_allowed_or_of_no_use() {
    let strict = TestServer::with(|config| {
        placed(config);
        config.locality.client_subnet_from = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    strict.four("web").await;
    let unplaced = TestServer::with(|config| config.dns.nearest = vec![("web".into(), 1)]).await;
    unplaced.four("web").await;
    for (server, expected) in [(&strict, &[1, 2][..]), (&unplaced, &[1, 2, 3, 4])] {
        let name = "web.service.internal.";
        assert_eq!(server.given(name, with_subnet("10.1.0.0/16")).await, set(expected));
        let answer = ask(server.dns(), &with_subnet("10.1.0.0/16")(query(name, RecordType::A))).await;
        assert_eq!(scope(&answer), None);
    }
}

#[tokio::test]
async fn plain_services_stay_with_the_fast_path_and_near_ones_leave_it() {
    let server = TestServer::with(placed).await;
    server.four("web").await;
    server.four("other").await;
    let paths = ["fast", "general"].map(|path| format!("rollcall_dns_answers_total{{path=\"{path}\"}}"));
    let taken = async |name: &str, message: &dyn Fn(Message) -> Message| {
        let before = [server.metric(&paths[0]).await, server.metric(&paths[1]).await];
        for _ in 0..4 {
            ask(server.dns(), &message(query(name, RecordType::A))).await;
        }
        // Each is followed by a question for a SOA, which is the general path's.
        [server.metric(&paths[0]).await - before[0], server.metric(&paths[1]).await - before[1] - 4.0]
    };
    assert_eq!(taken("other.service.internal.", &plain).await, [4.0, 0.0]);
    assert_eq!(taken("web.service.internal.", &plain).await, [0.0, 4.0]);
    assert_eq!(taken("other.service.internal.", &with_subnet("10.1.0.0/16")).await, [0.0, 4.0]);
    let off = TestServer::start().await;
    off.four("web").await;
    let before = off.metric(&paths[0]).await;
    ask(off.dns(), &with_subnet("10.1.0.0/16")(query("web.service.internal.", RecordType::A))).await;
    assert_eq!(
        off.metric(&paths[0]).await - before,
        1.0,
        "where no places are known, the option changes nothing"
    );
}

/// The nodes of a listing, in its order.
fn nodes(listing: &Value) -> Vec<String> {
    let one = |entry: &Value| entry["Node"]["Node"].as_str().or(entry["Node"].as_str()).map(str::to_owned);
    listing.as_array().unwrap().iter().filter_map(one).collect()
}

#[tokio::test]
async fn listings_begin_with_the_nearest() {
    let server = TestServer::with(placed).await;
    server.four("web").await;
    let passed_on = |address: &str| vec![("x-forwarded-for", address.to_owned())];
    for (query, headers, expected) in [
        ("", vec![], ["m1", "m2", "m3", "m4"]),
        ("near=_agent", vec![], ["m1", "m2", "m3", "m4"]),
        ("near=m4", vec![], ["m4", "m1", "m2", "m3"]),
        ("near=M3", vec![], ["m3", "m1", "m2", "m4"]),
        ("near=_agent&node=m4", vec![], ["m4", "m1", "m2", "m3"]),
        ("near=_ip", passed_on("10.1.2.3"), ["m3", "m1", "m2", "m4"]),
        ("near=_ip", passed_on("10.2.2.3"), ["m4", "m1", "m2", "m3"]),
        ("near=_ip", passed_on("10.9.0.2"), ["m2", "m1", "m3", "m4"]),
        ("near=nobody", vec![], ["m1", "m2", "m3", "m4"]),
    ] {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for path in ["/v1/health/service/web", "/v1/catalog/service/web", "/v1/health/checks/web"] {
            let path = format!("{path}?{query}");
            let answer = request(server.http(), "GET", &path, &headers, "").await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            assert_eq!(nodes(&answer.json()), expected, "{path} {headers:?}");
        }
    }
    // Of nodes, those count that say where they are: m2 in its meta, m4 by its locality.
    let near = server.get("/v1/catalog/nodes?near=m4").await.json();
    assert_eq!(nodes(&near)[0], "m4");
    let near = server.get("/v1/catalog/nodes?near=m2").await.json();
    assert_eq!(nodes(&near)[..2], ["m2", "n1"], "ours is in eu/a, too");
    assert_eq!(near[1]["Locality"], json!({ "Region": "eu", "Zone": "a" }));
    assert_eq!(near[0].get("Locality"), None);
    // Checks by their state: those of the nearest node, then the others' in their order.
    let order = async |query: &str| {
        let mut listed = nodes(&server.get(&format!("/v1/health/state/any{query}")).await.json());
        listed.dedup();
        listed
    };
    let plain = order("").await;
    assert!(plain.len() > 4 && plain[0] != "m4", "{plain:?}");
    let near = order("?near=m4").await;
    let rest: Vec<_> = plain.iter().filter(|node| *node != "m4").cloned().collect();
    assert_eq!((near[0].as_str(), &near[1..]), ("m4", &rest[..]));
    assert_eq!(order("?near=nobody").await, plain);
    let prepared = json!({ "Name": "q", "Service": { "Service": "web", "Near": "_ip" } });
    let made = request(server.http(), "POST", "/v1/query", &[], &prepared.to_string()).await;
    assert_eq!(made.status, 200);
    let executed =
        request(server.http(), "GET", "/v1/query/q/execute", &[("x-forwarded-for", "10.2.0.1")], "").await;
    assert_eq!(nodes(&executed.json()["Nodes"])[0], "m4");
    let message = with_subnet("10.2.9.0/24")(query("q.query.internal.", RecordType::A));
    let answer = ask(server.dns(), &message).await;
    assert_eq!((last(&answer.answers[0].data.to_string()), answer.answers.len()), (4, 4));
    assert_eq!(scope(&answer), Some(16));
}

#[tokio::test]
async fn places_of_nodes_outlive_the_server() {
    let server = TestServer::start().await;
    server.four("web").await;
    let before = server.get("/v1/catalog/node/m4").await.json();
    assert_eq!(before["Node"]["Locality"], json!({ "Region": "us", "Zone": "a" }));
    let server = server.restart().await;
    assert_eq!(server.get("/v1/catalog/node/m4").await.json(), before);
    let server = server.restart().await;
    assert_eq!(server.get("/v1/catalog/node/m4").await.json(), before, "from the database, too");
    assert_eq!(server.get("/v1/health/service/web").await.json()[0]["Service"]["Locality"]["Region"], "eu");
}
