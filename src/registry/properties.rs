//! Random histories: what must hold after every step of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;
use proptest::prelude::*;

use super::ahead::Ahead;
use super::apply::Effects;
use super::command::{Caller, Command};
use super::limits::Limits;
use super::load;
use super::permission::permit;
use super::plan::Planner;
use super::snapshot::{Counts, Owner, Snapshot};
use super::watch::Topic;
use crate::acl::rules::parse;
use crate::acl::{Authorizer, INITIAL, View};
use crate::model::*;
use crate::store::{Loaded, Stored, StoredStatus};

const NODES: [&str; 3] = ["own", "a", "B"];
const SERVICES: [&str; 3] = ["web", "WEB", "db"];
const IDS: [&str; 3] = ["i1", "i2", "i3"];
const CHECKS: [&str; 3] = ["c1", "c2", "c3"];
/// The TTL, in seconds, of what is an alias of the first instance on the second node instead.
const ALIAS: u64 = 3;
/// Of somebody who may do some of it.
const RULES: &str = r#"service "web" { policy = "write" } service "db" { policy = "read" }
    node "own" { policy = "write" } node "a" { policy = "read" }"#;

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
        locality: None,
        implied: false,
    }
}

fn caller(index: usize) -> Caller {
    let address = (index > 0).then(|| IpAddr::from([10, 0, 0, index as u8]));
    Caller { node: name(index), address, named: false }
}

fn instance(node: usize, id: usize, service: usize, host: Option<u8>, port: u16) -> Instance {
    Instance {
        node: name(node),
        id: InstanceId::parse(IDS[id]).unwrap(),
        service: ServiceName::parse(SERVICES[service]).unwrap(),
        tags: port.is_multiple_of(2).then_some("even").into_iter().collect(),
        address: host.map(|host| Address::parse(&format!("10.0.1.{host}")).unwrap()),
        meta: Pairs::default(),
        port,
        weights: Weights::default(),
        enable_tag_override: false,
        origin: Origin::Agent,
        extras: Seldom::default(),
    }
}

fn check(node: usize, id: usize, of: Option<usize>, ttl: u64, initial: Status) -> Check {
    let kind = match ttl {
        ALIAS => CheckKind::Alias { node: name(1), instance: InstanceId::parse(IDS[0]).ok() },
        _ => CheckKind::Ttl { ttl: Duration::from_secs(ttl) },
    };
    let terms = Terms::unprobed(kind, initial, Origin::Agent);
    Check {
        node: name(node),
        id: CheckId::parse(CHECKS[id]).unwrap(),
        instance: of.map(|id| InstanceId::parse(IDS[id]).unwrap()),
        terms: terms.into(),
    }
}

fn status() -> impl Strategy<Value = Status> {
    prop::sample::select(vec![Status::Passing, Status::Warning, Status::Critical])
}

fn command() -> impl Strategy<Value = Command> {
    let (n, i, s, c) = (0..3usize, 0..3usize, 0..3usize, 0..3usize);
    let host = prop::option::of(1..4u8);
    let put = prop::option::of((c.clone(), prop::sample::select(vec![10, 10, 10, ALIAS])));
    let register = (n.clone(), i.clone(), s, host, 1..4u16, prop::bool::ANY, put);
    let register = (register, status()).prop_map(|((n, i, s, host, port, replace_checks, c), initial)| {
        let checks = c.map(|(c, ttl)| check(n, c, Some(i), ttl, initial)).into_iter().collect();
        let instance = instance(n, i, s, host, port);
        Command::RegisterInstance { caller: caller(n), instance, checks, replace_checks }
    });
    let of = prop::option::of(i.clone());
    let check_in = (n.clone(), c.clone(), of, 1..=ALIAS, status());
    let register_check = check_in.prop_map(|(n, c, of, ttl, initial)| Command::RegisterCheck {
        caller: caller(n),
        check: check(n, c, of, ttl, initial),
    });
    let id = |i: usize| InstanceId::parse(IDS[i]).unwrap();
    let check_id = |c: usize| CheckId::parse(CHECKS[c]).unwrap();
    let reason = prop::option::of(Just(ArcStr::from("because")));
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
        let (state, _) = load::load(Loaded::default(), &node(0, 200));
        Self { state, disk: BTreeMap::new(), effects: Effects::default() }
    }

    /// Runs a command; returns whether anything was changed.
    fn run(&mut self, command: Command) -> bool {
        let own = name(0);
        let planner = Planner { state: &self.state, limits: &Limits::default(), own: &own, now: 0 };
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

    fn loaded(&self) -> Loaded {
        // Made and last changed at once: one by one, a put cannot know when a record was made.
        let stored =
            |(n, record): (u64, &Record)| Stored { record: record.clone(), create_index: n, modify_index: n };
        let status = |entry: &Arc<super::CheckEntry>| StoredStatus {
            check: entry.key(),
            status: entry.status,
            output: entry.output.clone(),
        };
        Loaded {
            records: (1..).zip(self.disk.values()).map(stored).collect(),
            statuses: self.state.checks().map(status).collect(),
            index: self.state.index,
        }
    }

    fn replayed(&self) -> Snapshot {
        load::load(self.loaded(), &node(0, 200)).0
    }
}

/// What happens to something under way.
#[derive(Debug, Clone)]
enum Step {
    Command(Box<Command>),
    Commit,
    Refuse,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![6 => command().prop_map(|command| Step::Command(Box::new(command))), 3 => Just(Step::Commit), 1 => Just(Step::Refuse)]
}

fn somebody() -> View {
    View::new(Authorizer::new(&parse(RULES).unwrap(), false), INITIAL, None)
}

/// What a command comes to, without generations: those are not known before a commit.
fn planned(
    state: &Snapshot,
    limits: &Limits,
    view: &View,
    command: Command,
) -> Result<(Vec<Definition>, String), String> {
    permit(state, view, &command).map_err(|denied| denied.to_string())?;
    let plan = Planner { state, limits, own: &name(0), now: 0 }
        .plan(command)
        .map_err(|refused| refused.to_string())?;
    let seen: Vec<_> = plan.observations.iter().map(|seen| (&seen.check, seen.status)).collect();
    let rest = format!("{seen:?} {:?} {:?}", plan.kicks, plan.renewals);
    Ok((plan.definitions, rest))
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

/// Everything that a reader can see but the indexes of what is a sum of others: a load counts those from its mark.
fn everything(state: &Snapshot) -> Vec<String> {
    let check = |c: &Arc<super::CheckEntry>| {
        let of = (&c.check, c.status, &c.output, c.to_flip);
        format!("{of:?} {} {} {}", c.generation, c.create_index, c.modify_index)
    };
    let instance = |e: &Arc<super::InstanceEntry>| {
        let checks: Vec<_> = e.checks.iter().map(check).collect();
        format!("{:?} {:?} {checks:?} {} {}", e.instance, e.maintenance, e.create_index, e.modify_index)
    };
    let nodes = state.nodes().map(|n| {
        let instances: Vec<_> = n.instances.iter().map(|(id, e)| (id.clone(), instance(e))).collect();
        let checks: Vec<_> = n.checks.iter().map(|(id, c)| (id.clone(), check(c))).collect();
        let own: Vec<_> = n.own_checks.iter().map(check).collect();
        let of = (&n.node, &n.maintenance, n.create_index, n.modify_index);
        format!("{of:?} {instances:?} {checks:?} {own:?}")
    });
    let services = state.services().map(|s| {
        let members: Vec<_> = s.instances.values().map(instance).collect();
        format!("{:?} {:?} {members:?}", s.name.as_str(), s.name.folded())
    });
    let addresses = state.addresses.iter().map(|all| format!("{all:?}"));
    let whole = format!("{} {} {:?} {}", state.index, state.floor, state.counts, state.serial);
    nodes.chain(services).chain(addresses).chain([whole]).collect()
}

/// The load as it would be one record at a time, as changes arrive.
fn loaded_one_by_one(loaded: Loaded, own: &Node) -> Snapshot {
    let mut state = Snapshot { index: loaded.index.max(1), ..Snapshot::default() };
    let mut effects = Effects::default();
    let mark = state.index;
    state.define(mark, &Definition::Put(Record::Node(Arc::new(own.clone()))), &mut effects);
    for stored in loaded.records {
        if !matches!(&stored.record, Record::Node(node) if node.name == own.name) {
            state.define(stored.modify_index, &Definition::Put(stored.record), &mut effects);
        }
    }
    for StoredStatus { check, status, output } in loaded.statuses {
        let output = output.as_str().into();
        let seen = Observation { check, generation: None, status, output, to_flip: 1 };
        state.observe(mark, &seen, &mut effects);
    }
    state.floor = mark;
    state.serial = mark as u32;
    state
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
            let stands = |member: &Arc<super::InstanceEntry>| Arc::ptr_eq(member, entry);
            assert!(service.instances.values().any(stands), "an instance stands in two forms");
            for check in &entry.checks {
                assert!(Arc::ptr_eq(check, &node.checks[&check.check.id]), "a check outlived its place");
            }
        }
    }
    assert_eq!(state.counts(), counts);
    let in_services: usize = state.services().map(|service| service.instances.len()).sum();
    assert_eq!(in_services, counts.instances);
    assert!(state.services().all(|service| !service.instances.is_empty()));
    let kept: BTreeMap<_, _> =
        state.addresses.iter().map(|((ip, owner), count)| ((*ip, owner.clone().unwrap()), *count)).collect();
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

    /// What a store replays is what was live, and so is what a server without a store hands to the next.
    #[test]
    fn replay_equals_live(history in prop::collection::vec(command(), 1..60)) {
        let mut bench = Bench::new();
        for command in history {
            bench.run(command);
        }
        let handed = bench.state.stored();
        for replayed in [bench.replayed(), load::load(handed, &node(0, 200)).0] {
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
    }

    /// A load as a whole comes to what the changes one by one come to, in whatever order nodes and ids are given.
    #[test]
    fn a_load_equals_changes_one_by_one(history in prop::collection::vec(command(), 1..60), reverse: bool) {
        let mut bench = Bench::new();
        for command in history {
            bench.run(command);
        }
        let own = node(0, 200);
        let mut loaded = bench.loaded();
        if reverse {
            let kind = |stored: &Stored| std::mem::discriminant(&stored.record.key());
            loaded.records.reverse();
            let kinds: Vec<_> = bench.loaded().records.iter().map(kind).collect();
            loaded.records.sort_by_key(|stored| kinds.iter().position(|known| *known == kind(stored)));
            loaded.statuses.reverse();
        }
        let (whole, _) = load::load(loaded, &own);
        assert_consistent(&whole);
        prop_assert_eq!(everything(&whole), everything(&loaded_one_by_one(bench.loaded(), &own)));
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

    /// A command that meets nothing under way comes out the same as if all of that were applied first, also where it is asked whether
    /// it may.
    #[test]
    fn what_is_planned_without_looking_ahead_is_what_is_planned_ahead(
        steps in prop::collection::vec((step(), prop::bool::ANY), 1..60),
        instances_max in 2..9usize,
        checks_max in 2..9usize,
    ) {
        let views = [View::default(), somebody()];
        let limits = Limits { instances_max, checks_max, ..Limits::default() };
        let (mut published, _) = load::load(Loaded::default(), &node(0, 200));
        let (mut ahead, mut under_way, mut tickets) = (Ahead::default(), BTreeMap::new(), 0);
        for (step, asked) in steps {
            let view = &views[usize::from(asked)];
            let command = match step {
                Step::Command(command) => *command,
                Step::Commit | Step::Refuse => {
                    let Some((ticket, definitions)) = under_way.pop_first() else { continue };
                    let definitions: Vec<Definition> = definitions;
                    ahead.remove(ticket, &definitions);
                    if matches!(step, Step::Refuse) {
                        ahead.forget();
                        continue;
                    }
                    let index = published.index + 1;
                    definitions.iter().for_each(|d| published.define(index, d, &mut Effects::default()));
                    published.index = index;
                    continue;
                }
            };
            let mut all = published.clone();
            for definition in under_way.values().flatten() {
                all.define(published.index, definition, &mut Effects::default());
            }
            if ahead.meets(&command, view, &published, &limits) {
                ahead.look(&published, under_way.values().map(Vec::as_slice));
            }
            let described = format!("{command:?}");
            let found = planned(ahead.state(&published), &limits, view, command.clone());
            prop_assert_eq!(&found, &planned(&all, &limits, view, command), "{}", described);
            if let Ok((definitions, _)) = found && !definitions.is_empty() {
                tickets += 1;
                ahead.add(&published, tickets, &definitions);
                under_way.insert(tickets, definitions);
            }
        }
    }
}
