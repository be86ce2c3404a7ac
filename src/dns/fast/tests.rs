//! The two paths give the same octets: random worlds that change, random questions, one fast path that lives through
//! all of it.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::Config;
use crate::dns::respond::{Context, Outcome, Transport, respond};
use crate::dns::zone::{Source, Zones};
use crate::model::route::Subset;
use crate::model::{Check, CheckKey, Instance, Node, Observation, Status};
use crate::registry::{self, Command, Registry, Steer};
use crate::store::Ephemeral;
use crate::telemetry::Metrics;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

const ZONE: &str = "$TTL 60\n@ SOA ns host 1 60 60 60 30\n@ NS ns\nns A 10.1.0.1\nwww A 10.1.0.2\nwww A 10.1.0.3\n\
    www AAAA fd00::1\nwww TXT \"some text\" \"more\"\n*.wild A 10.1.0.4\n*.wild TXT wild\nalias CNAME www\n\
    out CNAME web.service.internal.\nsub NS ns.sub\nns.sub A 10.1.0.5\nold DNAME new\na.b.ent A 10.1.0.6\nmx MX 1 www\n";

/// A server's state without its listeners.
fn state(runtime: &Runtime, change: impl FnOnce(&mut Config)) -> State {
    let mut config = Config::default();
    change(&mut config);
    let metrics = Arc::new(Metrics::default());
    let (log, queue) = tokio::sync::mpsc::unbounded_channel();
    let store = Arc::new(Ephemeral::new(log, std::time::SystemTime::now()));
    let own: Node = serde_json::from_value(json!({ "name": "n1", "address": "10.0.0.1" })).unwrap();
    let own = registry::Config { own, limits: config.limits.clone(), audit: Default::default() };
    let _inside = runtime.enter();
    let (registry, _) = Registry::start(store, queue, own, metrics.clone()).unwrap();
    registry.set_guard(config.guard.clone());
    registry.set_slow_start(config.slow_start.clone());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zone");
    std::fs::write(&file, ZONE).unwrap();
    let source = Source { name: Name::from_ascii("example.test.").unwrap(), file };
    let settings = config.dns_settings();
    let zones = Zones::load(&[source], &settings.domains.domains).unwrap_or_else(|e| panic!("{e:?}"));
    State {
        registry,
        settings: arc_swap::ArcSwap::from_pointee(settings),
        zones: arc_swap::ArcSwap::from_pointee(zones),
        forwarder: None,
        traces: Default::default(),
        metrics,
        shutdown: CancellationToken::new(),
    }
}

/// One instance of a service on a node, in numbers.
#[derive(Debug, Clone)]
struct Registered {
    node: u8,
    service: u8,
    id: u8,
    /// 0: the node's; 1: of IPv4; 2: of IPv6; 3: both; 4: a host name.
    address: u8,
    host: u8,
    port: u8,
    weight: u8,
    tag: u8,
    ttl: u64,
}

const SERVICES: [&str; 5] = ["web", "Db", "a_b", "x-1", "not a label"];
const TAGS: [&str; 4] = ["v1", "v1.2", "Blue", ""];

fn registered() -> impl Strategy<Value = Registered> {
    let who = (0..3u8, 0..5u8, 0..12u8);
    let what = (prop_oneof![4 => Just(1u8), 1 => 0..5u8], 0..8u8, 0..3u8, 0..4u8, 0..4u8, 1..9u64);
    (who, what).prop_map(|((node, service, id), (address, host, port, weight, tag, ttl))| Registered {
        node,
        service,
        id,
        address,
        host,
        port,
        weight: weight.max(1),
        tag,
        ttl,
    })
}

impl Registered {
    fn command(&self) -> Command {
        let id = format!("i{}", self.id);
        let node = json!({ "name": format!("m{}", self.node), "address": format!("10.9.0.{}", self.node) });
        let mut instance = json!({
            "node": format!("m{}", self.node), "id": id, "service": SERVICES[self.service as usize],
            "tags": [TAGS[self.tag as usize]], "port": 8000 + u16::from(self.port),
            "weights": { "passing": self.weight, "warning": self.weight - 1 }, "meta": if self.port == 0 { json!({ "k": "v" }) } else { json!({}) },
        });
        let (v4, v6) = (format!("10.0.1.{}", self.host), format!("fd00::{}", self.host));
        match self.address {
            1 => instance["address"] = json!(v4),
            2 => instance["address"] = json!(v6),
            3 => {
                let tagged = json!({ "lan_ipv4": { "address": v4, "port": 1 }, "lan_ipv6": { "address": v6, "port": 1 } });
                instance["tagged_addresses"] = tagged;
            }
            4 => instance["address"] = json!("db.example.test"),
            _ => {}
        }
        let check = json!({
            "node": format!("m{}", self.node), "id": format!("c{}", self.id), "name": "c", "instance": id,
            "kind": { "type": "ttl", "ttl": format!("{}s", self.ttl) }, "output_max": 100, "initial": "passing",
        });
        let parse = |value| serde_json::from_value::<Instance>(value).unwrap();
        let check: Check = serde_json::from_value(check).unwrap();
        let node: Node = serde_json::from_value(node).unwrap();
        Command::CatalogRegister {
            node,
            skip_node: false,
            instance: Some(parse(instance)),
            checks: vec![crate::registry::Seen { status: check.initial, check, output: "".into() }],
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Register(Registered),
    Deregister(u8, Option<u8>),
    /// A check's status, and how far it is from the next.
    Flip(u8, u8, Status, u32),
    Ask(Vec<Random>),
    /// A service's route: the shares of two tags, and whether it is strict; none ends it.
    Route(u8, Option<(u32, u32, bool)>),
}

/// A question, and what chance says.
#[derive(Debug, Clone)]
struct Random {
    name: String,
    upper: u64,
    kind: u16,
    class: u16,
    flags: u8,
    edns: Option<(u16, u8, bool, Vec<u8>)>,
    pick: u64,
}

fn name() -> impl Strategy<Value = String> {
    let left = prop_oneof![
        6 => prop::sample::select(vec!["web.service", "db.service", "a_b.service", "x-1.service"]),
        3 => prop::sample::select(vec!["v1.web.service", "v1.2.web.service", "2.web.service", "blue.db.service",
            "_web._tcp.service", "_db._v1.service", "_tcp.service", "web.service.dc1", "v1.web.service.dc1"]),
        2 => prop::sample::select(vec!["nobody.service", "m1.node", "m9.node", "0a000101.addr", "service", "ns", "x.ns",
            "hostmaster", "dc1", "service.dc1", "else", "m1.node.dc1", "query", "a.b.c.d.e.f.g.h.service", "ü.service",
            "web.service.dc2", ""]),
    ];
    let domain = prop_oneof![5 => Just("internal"), 2 => Just("consul")];
    let live = (left, domain).prop_map(|(left, domain)| match left {
        "" => domain.to_owned(),
        left => format!("{left}.{domain}"),
    });
    let other = prop::sample::select(vec![
        "www.example.test",
        "x.wild.example.test",
        "alias.example.test",
        "example.test",
        "nobody.example.test",
        "ent.example.test",
        "b.ent.example.test",
        "x.sub.example.test",
        "x.old.example.test",
        "out.example.test",
        "mx.example.test",
        "else.test",
        "xinternal",
        "test",
        "",
        "1.1.0.10.in-addr.arpa",
        "9.9.9.9.in-addr.arpa",
    ]);
    prop_oneof![3 => live, 1 => other.prop_map(str::to_owned)]
}

fn question() -> impl Strategy<Value = Random> {
    let kind = prop_oneof![
        8 => prop::sample::select(vec![1u16, 28, 33]),
        1 => prop::sample::select(vec![16u16, 15, 2, 6, 5, 12, 65, 255, 252, 41, 250, 43, 4711]),
    ];
    let class = prop_oneof![30 => Just(1u16), 1 => prop::sample::select(vec![3u16, 255, 0])];
    let options = prop::sample::select(vec![
        vec![],
        vec![0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8],
        vec![0, 3, 0, 0, 0, 12, 0, 2, 0, 0],
        vec![0, 10, 0, 9, 1],
    ]);
    let payload = prop::sample::select(vec![0u16, 511, 512, 600, 1232, 4096, 65_535]);
    let edns = (payload, prop_oneof![9 => Just(0u8), 1 => Just(1u8)], any::<bool>(), options);
    let edns = prop::option::of(edns);
    let upper = prop_oneof![2 => Just(0u64), 1 => any::<u64>()];
    let flags = prop::sample::select(vec![0u8, 1, 0x11, 0x10, 0x20]);
    (name(), upper, kind, class, flags, edns, any::<u64>()).prop_map(
        |(name, upper, kind, class, flags, edns, pick)| Random {
            name,
            upper,
            kind,
            class,
            flags,
            edns,
            pick,
        },
    )
}

impl Random {
    fn message(&self) -> Vec<u8> {
        let more = self.flags & 0xf0;
        let mut octets =
            vec![0x12, 0x34, self.flags & 1, more, 0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())];
        for label in self.name.split('.').filter(|label| !label.is_empty()) {
            octets.push(label.len() as u8);
            octets.extend(label.bytes().enumerate().map(|(i, octet)| match self.upper >> (i % 64) & 1 {
                1 => octet.to_ascii_uppercase(),
                _ => octet,
            }));
        }
        octets.push(0);
        octets.extend(self.kind.to_be_bytes());
        octets.extend(self.class.to_be_bytes());
        if let Some((payload, version, dnssec_ok, options)) = &self.edns {
            octets.extend([0, 0, 41]);
            octets.extend(payload.to_be_bytes());
            octets.extend([0, *version, u8::from(*dnssec_ok) << 7, 0]);
            octets.extend((options.len() as u16).to_be_bytes());
            octets.extend(options);
        }
        octets
    }

    /// What stubs and resolvers ask all day: addresses and SRV of services.
    fn is_common(&self) -> bool {
        let of_service = self.name.contains(".service.") && !self.name.contains('ü');
        let options = self.edns.as_ref().is_none_or(|edns| edns.1 == 0 && edns.3.len() != 5);
        of_service && matches!(self.kind, 1 | 28 | 33) && self.class == 1 && options
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop::sample::select(vec![Status::Passing, Status::Warning, Status::Critical]);
    let step = prop_oneof![
        3 => registered().prop_map(Step::Register),
        1 => (0..3u8, prop::option::weighted(0.9, 0..12u8)).prop_map(|(node, id)| Step::Deregister(node, id)),
        2 => (0..3u8, 0..12u8, status, 1..4u32).prop_map(|(node, id, status, to_flip)| Step::Flip(node, id, status, to_flip)),
        2 => (0..5u8, prop::option::weighted(0.8, (0..100u32, 0..3u32, any::<bool>()))).prop_map(|(service, shares)| Step::Route(service, shares)),
        3 => prop::collection::vec(question(), 1..20).prop_map(Step::Ask),
    ];
    prop::collection::vec(step, 1..40)
}

/// How many questions each path answered.
#[derive(Default)]
struct Shares {
    common: usize,
    common_fast: usize,
    fast: usize,
    general: usize,
    /// Fast answers that say they are stale.
    stale: usize,
}

fn compare(
    state: &State,
    fast: &mut Fast,
    (question, message, read): (&Random, &[u8], Option<&Question<'_>>),
    shares: &mut Shares,
) -> Result<(), TestCaseError> {
    let world = state.registry.snapshot();
    let context = Context {
        snapshot: &world,
        view: &state.registry.dns_view(),
        bearer: &|token| state.registry.view_of_query(token),
        settings: &state.settings.load(),
        zones: &state.zones.load(),
        transport: Transport::Udp,
        client: CLIENT,
        pick: question.pick,
    };
    let general = match respond(message, &context) {
        Outcome::Reply(reply) => Some(reply),
        Outcome::Silence | Outcome::Ask(_) => None,
    };
    let mut answer = Vec::new();
    let written =
        read.and_then(|read| fast.answer(&state.registry, read, CLIENT, question.pick, &mut answer));
    if state.registry.load().index() != world.index() {
        // Our own node came back from the store, or a TTL ran out, in between.
        return compare(state, fast, (question, message, read), shares);
    }
    shares.common += usize::from(question.is_common());
    shares.general += usize::from(written.is_none());
    let Some(written) = written else { return Ok(()) };
    shares.fast += 1;
    shares.stale += usize::from(answer.windows(6).any(|octets| octets == [0, 15, 0, 2, 0, 3]));
    shares.common_fast += usize::from(question.is_common());
    let general = general.ok_or_else(|| TestCaseError::fail("only the fast path answers"))?;
    prop_assert_eq!(&answer, &general.encoded.bytes);
    prop_assert_eq!((Some(RecordType::from(written.kind)), written.rcode), (general.kind, general.rcode));
    Ok(())
}

fn run(runtime: &Runtime, steps: &[Step], shares: &mut Shares) -> Result<(), TestCaseError> {
    let state = state(runtime, |config| {
        config.dns.a_limit = vec![("web".to_owned(), 2), ("x-*".to_owned(), 1)];
        // Of one service what falls is out, of the others it is kept.
        (config.guard.share, config.guard.instances_min) = (1, 1);
        config.guard.service_share = vec![("web".to_owned(), 0)];
        config.slow_start.service_window = vec![("x-*".to_owned(), std::time::Duration::from_millis(200))];
        config.dns.service_ttl = vec![("db".to_owned(), std::time::Duration::from_secs(9))];
    });
    let mut fast = Fast::new(&state);
    for step in steps {
        match step {
            Step::Register(registered) => {
                runtime.block_on(state.registry.submit(registered.command())).unwrap()
            }
            Step::Deregister(node, id) => {
                let instance = id.map(|id| crate::model::InstanceId::parse(&format!("i{id}")).unwrap());
                let node = crate::model::NodeName::parse(&format!("m{node}")).unwrap();
                let command = Command::CatalogDeregister { node, instance, check: None };
                runtime.block_on(state.registry.submit(command)).unwrap();
            }
            Step::Flip(node, id, status, to_flip) => {
                let check = CheckKey {
                    node: crate::model::NodeName::parse(&format!("m{node}")).unwrap(),
                    id: crate::model::CheckId::parse(&format!("c{id}")).unwrap(),
                };
                let seen = Observation {
                    check,
                    generation: None,
                    status: *status,
                    output: "so".into(),
                    to_flip: *to_flip,
                };
                runtime.block_on(state.registry.observe(vec![seen], tokio::time::Instant::now()));
                // A command behind it: what is answered is published.
                let nobody = crate::model::NodeName::parse("nobody").unwrap();
                let command = Command::CatalogDeregister { node: nobody, instance: None, check: None };
                runtime.block_on(state.registry.submit(command)).unwrap();
            }
            Step::Route(service, shares) => {
                let service = crate::model::ServiceName::parse(SERVICES[*service as usize]).unwrap();
                let steer = match shares {
                    None => Steer::Clear,
                    Some((one, other, strict)) => {
                        let texts = [format!("v1={one}"), format!("blue={other}")];
                        let subsets = texts.iter().map(|text| Subset::parse(text).unwrap()).collect();
                        Steer::Set { subsets, strict: *strict, over: 0, guard: None }
                    }
                };
                // One of nobody is refused.
                let _ = runtime.block_on(state.registry.submit(Command::Route { service, steer }));
            }
            Step::Ask(questions) => {
                // Looked up together, as UDP's thread does: what is kept for one moves what was found for another. Once
                // answered from what is made, once from what is kept.
                let messages: Vec<_> = questions.iter().map(Random::message).collect();
                for _ in 0..2 {
                    let mut read: Vec<_> = messages.iter().map(|message| fast.read(message)).collect();
                    fast.look_up(&mut read);
                    for ((question, message), read) in questions.iter().zip(&messages).zip(&read) {
                        compare(&state, &mut fast, (question, message, read.as_ref()), shares)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Three instances of `db`, of which two fall: all three are given, and with EDNS the answer says that it is stale.
#[test]
fn what_a_guard_keeps_is_the_same_on_both_paths() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let one = |id| Registered {
        node: id,
        service: 1,
        id,
        address: 3,
        host: id,
        port: 1,
        weight: 2,
        tag: 0,
        ttl: 9,
    };
    let ask = |kind, edns: bool, pick| Random {
        name: "db.service.internal".to_owned(),
        upper: 0,
        kind,
        class: 1,
        flags: 1,
        edns: edns.then(|| (1232, 0, false, Vec::new())),
        pick,
    };
    let kinds = [1, 28, 33];
    let questions =
        |edns| kinds.into_iter().flat_map(move |kind| (0..8).map(move |pick| ask(kind, edns, pick)));
    let asked = || vec![Step::Ask(questions(true).collect()), Step::Ask(questions(false).collect())];
    let healthy: Vec<_> = (0..3).map(|id| Step::Register(one(id))).chain(asked()).collect();
    let fallen = (0..2).map(|id| Step::Flip(id, id, Status::Critical, 1)).chain(asked());
    let all = healthy.iter().cloned().chain(fallen).collect::<Vec<_>>();
    let mut shares = Shares::default();
    run(&runtime, &healthy, &mut shares).unwrap();
    assert_eq!((shares.fast, shares.stale), (96, 0));
    run(&runtime, &all, &mut shares).unwrap();
    // Each is asked twice; without EDNS there is no place to say it.
    assert_eq!((shares.fast, shares.stale), (96 + 192, 48));
}

#[test]
fn both_paths_give_the_same_octets_and_each_has_its_share() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        failure_persistence: None,
        cases: 200,
        ..ProptestConfig::default()
    });
    let shares = std::cell::RefCell::new(Shares::default());
    runner.run(&steps(), |steps| run(&runtime, &steps, &mut shares.borrow_mut())).unwrap();
    let Shares { common, common_fast, fast, general, .. } = shares.into_inner();
    assert!(
        common > 5000 && general > 500,
        "{common} common questions, {fast} fast answers, {general} general"
    );
    assert!(common_fast * 10 >= common * 9, "{common_fast} of {common} common questions took the fast path");
}
