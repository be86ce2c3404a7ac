//! Random histories: what must hold after every step of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::apply::{self, Effects};
use super::command::{Caller, Command};
use super::limits::Limits;
use super::plan::Planner;
use super::snapshot::{Counts, Owner, Snapshot};
use super::watch::Topic;
use crate::model::*;
use crate::store::{Loaded, Stored, StoredStatus};

const NODES: [&str; 3] = ["own", "a", "B"];
const SERVICES: [&str; 3] = ["web", "WEB", "db"];
const IDS: [&str; 3] = ["i1", "i2", "i3"];
const CHECKS: [&str; 3] = ["c1", "c2", "c3"];

fn name(index: usize) -> NodeName {
    NodeName::parse(NODES[index]).unwrap()
}

fn node(index: usize, host: u8) -> Node {
    Node {
        name: name(index),
        id: None,
        address: Address::parse(&format!("10.0.0.{host}")).unwrap(),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        implied: false,
    }
}

fn caller(index: usize) -> Caller {
    let address = (index > 0).then(|| IpAddr::from([10, 0, 0, index as u8]));
    Caller { node: name(index), address }
}

fn instance(node: usize, id: usize, service: usize, host: Option<u8>, port: u16) -> Instance {
    Instance {
        node: name(node),
        id: InstanceId::parse(IDS[id]).unwrap(),
        service: ServiceName::parse(SERVICES[service]).unwrap(),
        kind: String::new(),
        tags: if port.is_multiple_of(2) { vec!["even".into()] } else { vec![] },
        address: host.map(|host| Address::parse(&format!("10.0.1.{host}")).unwrap()),
        tagged_addresses: BTreeMap::new(),
        meta: BTreeMap::new(),
        port,
        socket_path: String::new(),
        weights: Weights::default(),
        enable_tag_override: false,
        locality: None,
        origin: Origin::Agent,
    }
}

fn check(node: usize, id: usize, of: Option<usize>, ttl: u64, initial: Status) -> Check {
    Check {
        node: name(node),
        id: CheckId::parse(CHECKS[id]).unwrap(),
        name: "a check".into(),
        notes: String::new(),
        instance: of.map(|id| InstanceId::parse(IDS[id]).unwrap()),
        kind: CheckKind::Ttl { ttl: Duration::from_secs(ttl) },
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        success_before_passing: 0,
        failures_before_warning: 0,
        failures_before_critical: 0,
        deregister_after: None,
        output_max: 4096,
        initial,
        origin: Origin::Agent,
    }
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Status::Passing, Status::Warning, Status::Critical])
}

fn command() -> impl Strategy<Value = Command> {
    let (n, i, s, c) = (0..3usize, 0..3usize, 0..3usize, 0..3usize);
    let host = prop::option::of(1..4u8);
    let register = (n.clone(), i.clone(), s, host, 1..4u16, prop::bool::ANY, prop::option::of(c.clone()));
    let register = (register, status()).prop_map(|((n, i, s, host, port, replace_checks, c), initial)| {
        let checks = c.map(|c| check(n, c, Some(i), 10, initial)).into_iter().collect();
        let instance = instance(n, i, s, host, port);
        Command::RegisterInstance { caller: caller(n), instance, checks, replace_checks }
    });
    let of = prop::option::of(i.clone());
    let check_in = (n.clone(), c.clone(), of, 1..3u64, status());
    let register_check = check_in.prop_map(|(n, c, of, ttl, initial)| Command::RegisterCheck {
        caller: caller(n),
        check: check(n, c, of, ttl, initial),
    });
    let id = |i: usize| InstanceId::parse(IDS[i]).unwrap();
    let check_id = |c: usize| CheckId::parse(CHECKS[c]).unwrap();
    let reason = prop::option::of(Just(Arc::<str>::from("because")));
    prop_oneof![
        4 => register,
        3 => register_check,
        2 => (n.clone(), i.clone())
            .prop_map(move |(n, i)| Command::DeregisterInstance { caller: caller(n), id: id(i) }),
        1 => (n.clone(), c.clone())
            .prop_map(move |(n, c)| Command::DeregisterCheck { caller: caller(n), id: check_id(c) }),
        1 => (n.clone(), prop::option::of(i.clone()), reason)
            .prop_map(move |(n, i, reason)| Command::Maintain { caller: caller(n), instance: i.map(id), reason }),
        4 => (n.clone(), c, status()).prop_map(move |(n, c, status)| Command::UpdateTtl {
            caller: caller(n),
            id: check_id(c),
            status,
            output: "said so".into(),
        }),
        1 => (n.clone(), 1..4u8).prop_map(|(n, host)| Command::CatalogRegister {
            node: node(n, host),
            skip_node: false,
            instance: None,
            checks: vec![],
        }),
        1 => (n, prop::option::of(i)).prop_map(move |(n, i)| Command::CatalogDeregister {
            node: name(n),
            instance: i.map(id),
            check: None,
        }),
    ]
}

/// A registry without tasks: the live state and what a store would hold.
struct Bench {
    state: Snapshot,
    disk: BTreeMap<Key, Record>,
    effects: Effects,
}

impl Bench {
    fn new() -> Self {
        let state = apply::load(Loaded::default(), &node(0, 200));
        Self { state, disk: BTreeMap::new(), effects: Effects::default() }
    }

    /// Runs a command; returns whether anything was changed.
    fn run(&mut self, command: Command) -> bool {
        let own = name(0);
        let planner = Planner { state: &self.state, limits: &Limits::default(), own: &own };
        let Ok(plan) = planner.plan(command) else { return false };
        self.effects = Effects::default();
        let mut moved = !plan.definitions.is_empty();
        if moved {
            let index = self.state.index + 1;
            for definition in &plan.definitions {
                self.state.define(index, definition, &mut self.effects);
                match definition {
                    Definition::Put(record) => drop(self.disk.insert(record.key(), record.clone())),
                    Definition::Remove(key) => drop(self.disk.remove(key)),
                }
            }
            self.state.index = index;
        }
        for seen in &plan.observations {
            let index = self.state.index + 1;
            if self.state.observe(index, seen, &mut self.effects) {
                self.state.index = index;
                moved = true;
            }
        }
        moved
    }

    fn replayed(&self) -> Snapshot {
        let stored = |record: &Record| Stored { record: record.clone(), create_index: 1, modify_index: 1 };
        let status = |entry: &Arc<super::CheckEntry>| StoredStatus {
            check: entry.key(),
            status: entry.status,
            output: entry.output.clone(),
        };
        let loaded = Loaded {
            records: self.disk.values().map(stored).collect(),
            statuses: self.state.checks().map(status).collect(),
            index: self.state.index,
        };
        apply::load(loaded, &node(0, 200))
    }
}

/// All that a reader of one service can see, without indexes.
fn seen(state: &Snapshot, service: &str) -> Vec<String> {
    let Some(service) = state.service(service) else { return vec![] };
    let show = |entry: &Arc<super::InstanceEntry>| {
        let node = state.node(entry.instance.node.folded()).unwrap();
        let checks = |checks: &[Arc<super::CheckEntry>]| {
            checks
                .iter()
                .map(|c| format!("{:?} {:?} {}", c.check, c.status, c.output))
                .collect::<BTreeSet<_>>()
        };
        let (own, its) = (checks(&node.own_checks), checks(&entry.checks));
        format!(
            "{:?} {:?} {:?} {its:?} {:?} {own:?}",
            entry.instance, entry.maintenance, node.node, node.maintenance
        )
    };
    service.instances.values().map(show).collect()
}

fn assert_consistent(state: &Snapshot) {
    let mut counts = Counts::default();
    let mut owners: BTreeMap<(IpAddr, Owner), u32> = BTreeMap::new();
    let mut own = |address: Option<&Address>, owner: Owner| {
        if let Some(ip) = address.and_then(Address::ip) {
            *owners.entry((ip, owner)).or_default() += 1;
        }
    };
    for node in state.nodes() {
        own(Some(&node.node.address), Owner::Node(node.node.name.clone()));
        for check in node.checks.values() {
            counts.checks[check.status as usize] += 1;
            let listed = match &check.check.instance {
                None => &node.own_checks,
                Some(id) => &node.instances[id].checks,
            };
            assert!(listed.iter().any(|other| Arc::ptr_eq(other, check)), "a check stands in two forms");
        }
        for entry in node.instances.values() {
            counts.instances += 1;
            own(entry.instance.address.as_ref(), Owner::Service(entry.instance.service.clone()));
            let service = state.service(entry.instance.service.folded()).unwrap();
            let key = (entry.instance.node.clone(), entry.instance.id.clone());
            assert!(Arc::ptr_eq(&service.instances[&key], entry), "an instance stands in two forms");
            for check in &entry.checks {
                assert!(Arc::ptr_eq(check, &node.checks[&check.check.id]), "a check outlived its place");
            }
        }
    }
    assert_eq!(state.counts(), counts);
    let in_services: usize = state.services().map(|service| service.instances.len()).sum();
    assert_eq!(in_services, counts.instances);
    assert!(state.services().all(|service| !service.instances.is_empty()));
    let kept: BTreeMap<_, _> = state
        .addresses
        .iter()
        .flat_map(|(ip, owners)| owners.iter().map(|(owner, count)| ((*ip, owner.clone()), *count)))
        .collect();
    assert_eq!(kept, owners);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Maps, counts and reverse addresses agree, whatever happened.
    #[test]
    fn every_state_is_consistent(history in prop::collection::vec(command(), 1..60)) {
        let mut bench = Bench::new();
        for command in history {
            bench.run(command);
            assert_consistent(&bench.state);
        }
    }

    /// What a store replays is what was live.
    #[test]
    fn replay_equals_live(history in prop::collection::vec(command(), 1..60)) {
        let mut bench = Bench::new();
        for command in history {
            bench.run(command);
        }
        let replayed = bench.replayed();
        assert_consistent(&replayed);
        for service in ["web", "db"] {
            prop_assert_eq!(seen(&bench.state, service), seen(&replayed, service));
        }
        let names = |state: &Snapshot| {
            state.nodes().map(|n| format!("{:?} {:?}", n.node, n.maintenance)).collect::<Vec<_>>()
        };
        prop_assert_eq!(names(&bench.state), names(&replayed));
        prop_assert!(replayed.index() >= bench.state.index());
    }

    /// A service's index moves exactly when a reader of the service can see something new, and then
    /// its watchers are woken; another's watchers are not.
    #[test]
    fn an_index_moves_when_and_only_when_its_view_does(history in prop::collection::vec(command(), 1..60)) {
        let mut bench = Bench::new();
        for command in history {
            let before = bench.state.clone();
            let described = format!("{command:?}");
            let moved = bench.run(command);
            prop_assert_eq!(moved, bench.state.index() > before.index());
            for service in ["web", "db"] {
                let topic = Topic::Service(ServiceName::parse(service).unwrap());
                let grew = bench.state.index_of(&topic) > before.index_of(&topic);
                let differs = seen(&before, service) != seen(&bench.state, service);
                let woken = bench.effects.topics.contains(&topic) && moved;
                prop_assert!(!differs || (grew || !moved), "{} changed {} unseen", described, service);
                // A service that is not there has the index at which the last one vanished.
                let there = bench.state.service(service).is_some() || before.service(service).is_some();
                prop_assert!(!grew || differs || !there, "{} moved {} for nothing", described, service);
                prop_assert!(!(grew && there) || woken, "{} woke nobody of {}", described, service);
            }
        }
    }
}
