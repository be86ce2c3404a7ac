//! The writer while the disk is slow or refuses: the store here commits when the test says so.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::command::{Caller, Command, Refused, Steer};
use super::{Config, Limits, Registry, Topic};
use crate::acl::rules::parse;
use crate::acl::{Access, Authorizer, INITIAL, Resource, View};
use crate::model::route;
use crate::model::*;
use crate::store::{Loaded, LogEntry, LogSender, Proposal, Store, StoreError};
use crate::telemetry::Metrics;

/// Keeps proposals until they are let through.
struct Held {
    log: LogSender,
    waiting: Mutex<Vec<Proposal>>,
    arrived: tokio::sync::Semaphore,
    flips: Mutex<Vec<Observation>>,
    /// The last that it was told was given out.
    index: AtomicU64,
    /// Dropped when flips come: in the middle of a round.
    handle: Mutex<Option<Registry>>,
    /// Whether it falls when flips come, and the writer with it.
    falls: AtomicBool,
}

impl Store for Held {
    fn load(&self) -> Result<Loaded, StoreError> {
        Ok(Loaded::default())
    }
    fn propose(&self, proposals: Vec<Proposal>) {
        let count = proposals.len();
        self.waiting.lock().extend(proposals);
        self.arrived.add_permits(count);
    }
    fn observe(&self, flips: Vec<Observation>, index: u64) {
        self.index.store(index, Ordering::SeqCst);
        assert!(!self.falls.load(Ordering::SeqCst), "the store falls");
        self.flips.lock().extend(flips);
        drop(self.handle.lock().take());
    }
    fn backup(&self, _: &mut dyn Write) -> Result<(), StoreError> {
        Ok(())
    }
    fn writable(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn close(&self) {}
}

impl Held {
    /// Waits for the next proposal and takes it.
    async fn next(&self) -> Proposal {
        self.arrived.acquire().await.unwrap().forget();
        self.waiting.lock().remove(0)
    }
    fn commit(&self, proposal: Proposal) {
        let Proposal { ticket, definitions, after } = proposal;
        let _ =
            self.log.send(vec![LogEntry::Committed { ticket: Some(ticket), index: after + 1, definitions }]);
    }
    fn refuse(&self, proposal: &Proposal) {
        let error = StoreError::new("disk full");
        let _ = self.log.send(vec![LogEntry::Refused { ticket: proposal.ticket, error }]);
    }
}

fn own() -> Node {
    Node {
        name: NodeName::parse("n1").unwrap(),
        id: None,
        address: Address::parse("10.0.0.1").unwrap(),
        tagged_addresses: Default::default(),
        meta: Default::default(),
        locality: None,
        implied: false,
    }
}

async fn start(limits: Limits) -> (Registry, Arc<Held>) {
    let (registry, held, _) = start_writer(limits).await;
    (registry, held)
}

async fn start_writer(limits: Limits) -> (Registry, Arc<Held>, tokio::task::JoinHandle<()>) {
    let (log, queue) = mpsc::unbounded_channel();
    let held = Arc::new(Held {
        log,
        waiting: Mutex::default(),
        arrived: tokio::sync::Semaphore::new(0),
        flips: Mutex::default(),
        index: AtomicU64::default(),
        handle: Mutex::default(),
        falls: AtomicBool::default(),
    });
    let config = Config { own: own(), limits, audit: Default::default() };
    let (registry, writer) =
        Registry::start(held.clone(), queue, config, Arc::new(Metrics::default())).unwrap();
    let own = held.next().await;
    held.commit(own);
    (registry, held, writer)
}

fn caller() -> Caller {
    Caller { node: own().name, address: None, named: false }
}

fn register(id: &str, ttl: Duration, deregister_after: Option<Duration>) -> Command {
    let node = own().name;
    let instance: Instance =
        serde_json::from_value(serde_json::json!({ "node": "n1", "id": id, "service": "web" })).unwrap();
    let kind = CheckKind::Ttl { ttl };
    let terms = Terms { deregister_after, ..Terms::unprobed(kind, Status::Critical, Origin::Agent) };
    let check = Check {
        node,
        id: CheckId::parse(&format!("service:{id}")).unwrap(),
        instance: Some(instance.id.clone()),
        terms: terms.into(),
    };
    Command::RegisterInstance { caller: caller(), instance, checks: vec![check], replace_checks: false }
}

fn update(id: &str, status: Status) -> Command {
    let id = CheckId::parse(&format!("service:{id}")).unwrap();
    Command::UpdateTtl { caller: caller(), id, status, output: "so".into() }
}

fn submit(registry: &Registry, command: Command) -> tokio::task::JoinHandle<Result<(), Refused>> {
    let registry = registry.clone();
    tokio::spawn(async move { registry.submit(command).await })
}

async fn registered(registry: &Registry, held: &Held, command: Command) {
    let answer = submit(registry, command);
    let proposal = held.next().await;
    held.commit(proposal);
    answer.await.unwrap().unwrap();
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn nothing_is_shown_or_answered_before_it_is_durable() {
    let (registry, held) = start(Limits::default()).await;
    let answer = submit(&registry, register("a", MINUTE, None));
    let proposal = held.next().await;
    assert!(registry.snapshot().service("web").is_none() && !answer.is_finished());
    held.commit(proposal);
    answer.await.unwrap().unwrap();
    assert!(registry.snapshot().service("web").is_some());
}

#[tokio::test(start_paused = true)]
async fn observations_pass_a_commit_that_hangs() {
    let (registry, held) = start(Limits::default()).await;
    registered(&registry, &held, register("a", MINUTE, None)).await;
    let hanging = submit(&registry, register("b", MINUTE, None));
    let proposal = held.next().await;
    registry.submit(update("a", Status::Passing)).await.unwrap();
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.instance("n1", "a").unwrap().checks[0].status, Status::Passing);
    assert!(!hanging.is_finished());
    held.commit(proposal);
    hanging.await.unwrap().unwrap();
    assert!(registry.snapshot().index() > snapshot.index(), "the index grows although the store's is older");
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_counts_and_is_forgotten_when_refused() {
    let (registry, held) = start(Limits { instances_max: 1, ..Limits::default() }).await;
    let first = submit(&registry, register("a", MINUTE, None));
    let proposal = held.next().await;
    let refused = registry.submit(register("b", MINUTE, None)).await;
    assert!(matches!(refused, Err(Refused::Limit { key: "instances_max", count: 2, max: 1, .. })));
    held.refuse(&proposal);
    assert_eq!(first.await.unwrap(), Err(Refused::Unavailable("disk full".into())));
    registered(&registry, &held, register("b", MINUTE, None)).await;
    assert!(registry.snapshot().instance("n1", "a").is_none());
}

fn somebody(rules: &str) -> View {
    View::new(Authorizer::new(&parse(rules).unwrap(), false), INITIAL, None)
}

fn registered_as(id: &str, service: &str, caller: Caller, check: Option<(&str, CheckKind)>) -> Command {
    let Command::RegisterInstance { mut instance, mut checks, .. } = register(id, MINUTE, None) else {
        unreachable!()
    };
    instance.node = caller.node.clone();
    instance.service = ServiceName::parse(service).unwrap();
    let Some((id, kind)) = check else {
        return Command::RegisterInstance { caller, instance, checks: vec![], replace_checks: false };
    };
    checks[0].id = CheckId::parse(id).unwrap();
    let checks = checks.into_iter().map(|check| check.with(|terms| terms.kind = kind.clone())).collect();
    Command::RegisterInstance { caller, instance, checks, replace_checks: false }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_is_judged_by_what_is_under_way() {
    let (registry, held) = start(Limits::default()).await;
    let ttl = || CheckKind::Ttl { ttl: MINUTE };
    let alias = CheckKind::Alias { node: own().name, instance: InstanceId::parse("b").ok() };
    // At first `b` is an instance of `web`, with a check; on its way is another service's.
    registered(&registry, &held, registered_as("b", "web", caller(), Some(("c", ttl())))).await;
    let moved = submit(&registry, registered_as("b", "secret", caller(), None));
    let proposal = held.next().await;
    let view = somebody(r#"service "web" { policy = "write" } node "n1" { policy = "read" }"#);
    let refused = async |command| registry.submit_as(view.clone(), command).await.unwrap_err().to_string();
    let lacks =
        |what: &str| format!("Permission denied: token with AccessorID '{INITIAL}' lacks permission {what}");
    let secret = lacks("'service:write' on \"secret\"");
    assert_eq!(refused(registered_as("b", "web", caller(), None)).await, secret);
    assert_eq!(refused(registered_as("a", "web", caller(), Some(("c", ttl())))).await, secret);
    let says = Command::UpdateTtl {
        caller: caller(),
        id: CheckId::parse("c").unwrap(),
        status: Status::Passing,
        output: "so".into(),
    };
    // What an id alone names is no more there for them.
    assert!(refused(says).await.starts_with("Unknown check ID \"c\""));
    let id = InstanceId::parse("b").unwrap();
    let removed = refused(Command::DeregisterInstance { caller: caller(), id }).await;
    assert!(removed.starts_with("Unknown service ID \"b\""), "{removed}");
    assert_eq!(
        refused(registered_as("a", "web", caller(), Some(("d", alias)))).await,
        lacks("'service:read' on \"b\"")
    );
    assert!(held.waiting.lock().is_empty() && !moved.is_finished());
    // The disk refuses it, and `b` is what it was.
    held.refuse(&proposal);
    assert!(moved.await.unwrap().is_err());
    registry.submit_as(view.clone(), registered_as("b", "web", caller(), None)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_machine_makes_its_own_node_and_no_other() {
    let (registry, held) = start(Limits::default()).await;
    let view = somebody(r#"service "web" { policy = "write" }"#);
    let from = |address: &str, node: &str| Caller {
        node: NodeName::parse(node).unwrap(),
        address: address.parse().ok(),
        named: true,
    };
    for (address, node) in [("10.0.0.2", "n2"), ("10.0.0.2", "10.0.0.3"), ("127.0.0.1", "127.0.0.1")] {
        let command = registered_as("a", "web", from(address, node), None);
        let denied = view.lacks(Resource::Node, node, Access::Write);
        assert_eq!(registry.submit_as(view.clone(), command).await, Err(Refused::Denied(denied)), "{node}");
    }
    for (address, node) in [("10.0.0.2", "10.0.0.2"), ("2001:DB8::1", "2001:db8::1")] {
        let (registry, view) = (registry.clone(), view.clone());
        let command = registered_as("a", "web", from(address, node), None);
        let answer = tokio::spawn(async move { registry.submit_as(view, command).await });
        let proposal = held.next().await;
        held.commit(proposal);
        answer.await.unwrap().unwrap();
    }
    assert_eq!(registry.snapshot().nodes().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_ttl_check_expires_once_and_comes_back() {
    let (registry, held) = start(Limits::default()).await;
    registered(&registry, &held, register("a", MINUTE, None)).await;
    registry.submit(update("a", Status::Passing)).await.unwrap();
    let web = Topic::Service(ServiceName::parse("web").unwrap());
    let index = registry.snapshot().index_of(&web);
    let begun = tokio::time::Instant::now();
    let snapshot = registry.wait(&web, index, 2 * MINUTE).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 60);
    let check = &snapshot.instance("n1", "a").unwrap().checks[0];
    let output = "TTL expired (last output before timeout follows): so";
    assert_eq!((check.status, &*check.output), (Status::Critical, output));
    registry.submit(update("a", Status::Passing)).await.unwrap();
    assert_eq!(registry.snapshot().instance("n1", "a").unwrap().checks[0].status, Status::Passing);
    let statuses: Vec<_> = held.flips.lock().iter().map(|seen| seen.status).collect();
    assert_eq!(statuses, [Status::Passing, Status::Critical, Status::Passing]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_restarts_the_ttl_and_moves_no_index() {
    let (registry, held) = start(Limits::default()).await;
    registered(&registry, &held, register("a", MINUTE, None)).await;
    registry.submit(update("a", Status::Passing)).await.unwrap();
    let before = registry.snapshot();
    let web = Topic::Service(ServiceName::parse("web").unwrap());
    tokio::time::advance(MINUTE / 2).await;
    registry.submit(update("a", Status::Passing)).await.unwrap();
    registry.submit(register("a", MINUTE, None)).await.unwrap();
    assert_eq!(registry.snapshot().index(), before.index());
    let begun = tokio::time::Instant::now();
    registry.wait(&web, before.index_of(&web), 2 * MINUTE).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn the_long_dead_are_deregistered_to_the_second_though_the_disk_refuses_first() {
    let (registry, held) = start(Limits::default()).await;
    registered(&registry, &held, register("a", MINUTE, Some(Duration::from_secs(3)))).await;
    let begun = tokio::time::Instant::now();
    let proposal = held.next().await;
    assert_eq!(begun.elapsed().as_secs(), 3);
    held.refuse(&proposal);
    let again = held.next().await;
    assert_eq!(begun.elapsed().as_secs(), 4);
    let web = Topic::Service(ServiceName::parse("web").unwrap());
    let index = registry.snapshot().index_of(&web);
    held.commit(again);
    assert!(registry.wait(&web, index, MINUTE).await.unwrap().service("web").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_closed_registry_finishes_what_it_took_and_refuses_the_rest() {
    let limits = Limits { commits_waiting_max: 1, ..Limits::default() };
    let (registry, held, writer) = start_writer(limits).await;
    // One is under way, one waits for its place.
    let under_way = submit(&registry, register("a", MINUTE, None));
    let first = held.next().await;
    let waiting = submit(&registry, register("b", MINUTE, None));
    tokio::task::yield_now().await;
    registry.close();
    tokio::task::yield_now().await;
    let late = registry.submit(register("c", MINUTE, None)).await;
    assert!(matches!(late, Err(Refused::Unavailable(_))), "{late:?}");
    assert!(!writer.is_finished() && !under_way.is_finished());
    held.commit(first);
    let second = held.next().await;
    held.commit(second);
    assert!(under_way.await.unwrap().is_ok() && waiting.await.unwrap().is_ok());
    writer.await.unwrap();
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.service("web").unwrap().instances.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn limits_on_watchers_and_the_queue_are_refusals() {
    let (registry, held) =
        start(Limits { watchers_max: 1, queue_max: 1, commits_waiting_max: 1, ..Limits::default() }).await;
    let waiting = registry.clone();
    let first = tokio::spawn(async move { waiting.wait(&Topic::Nodes, u64::MAX / 2, MINUTE).await });
    assert!(first.await.unwrap().is_ok(), "an index above ours returns at once");
    let (waiting, index) = (registry.clone(), registry.snapshot().index());
    let first = tokio::spawn(async move { waiting.wait(&Topic::Checks, index, MINUTE).await });
    while registry.watchers() == 0 {
        tokio::task::yield_now().await;
    }
    let second = registry.wait(&Topic::Checks, index, MINUTE).await;
    assert!(matches!(second, Err(Refused::TooManyWatchers { max: 1 })));
    let hanging = submit(&registry, register("a", MINUTE, None));
    let proposal = held.next().await;
    let queued = submit(&registry, register("b", MINUTE, None));
    tokio::task::yield_now().await;
    assert!(matches!(registry.submit(register("c", MINUTE, None)).await, Err(Refused::Busy { max: 1 })));
    held.commit(proposal);
    let proposal = held.next().await;
    held.commit(proposal);
    assert!(hanging.await.unwrap().is_ok() && queued.await.unwrap().is_ok() && first.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_writer_ends_with_the_last_handle_in_whichever_moment_that_goes() {
    let (registry, held, writer) = start_writer(Limits::default()).await;
    registered(&registry, &held, register("a", MINUTE, None)).await;
    let check = registry.snapshot().instance("n1", "a").unwrap().checks[0].key();
    let begun = tokio::time::Instant::now();
    let seen =
        Observation { check, generation: None, status: Status::Passing, output: "so".into(), to_flip: 1 };
    registry.observe(vec![seen], tokio::time::Instant::now()).await;
    *held.handle.lock() = Some(registry);
    writer.await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "it waited for a deadline");
}

#[tokio::test(start_paused = true)]
async fn that_the_writer_has_fallen_is_said() {
    let (registry, held, writer) = start_writer(Limits::default()).await;
    registered(&registry, &held, register("a", MINUTE, None)).await;
    let told = registry.clone();
    let told = tokio::spawn(async move { told.ended().await });
    tokio::task::yield_now().await;
    assert!(!told.is_finished() && registry.writable().is_ok());
    held.falls.store(true, Ordering::SeqCst);
    let check = registry.snapshot().instance("n1", "a").unwrap().checks[0].key();
    let seen =
        Observation { check, generation: None, status: Status::Passing, output: "so".into(), to_flip: 1 };
    registry.observe(vec![seen], tokio::time::Instant::now()).await;
    assert!(writer.await.unwrap_err().is_panic());
    told.await.unwrap();
    assert_eq!(registry.writable().unwrap_err().to_string(), "the registry has ended");
    let refused = submit(&registry, register("b", MINUTE, None)).await.unwrap();
    assert!(matches!(refused, Err(Refused::Unavailable(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_program_says_of_its_check_counts_whatever_is_under_way() {
    let (registry, held) = start(Limits::default()).await;
    // What is planned ahead, then a new check, then something that keeps the state ahead.
    let first = submit(&registry, register("first", MINUTE, None));
    let first_proposal = held.next().await;
    let gone = Command::CatalogDeregister {
        node: own().name,
        instance: InstanceId::parse("first").ok(),
        check: None,
    };
    let gone = submit(&registry, gone);
    let gone_proposal = held.next().await;
    let new = submit(&registry, register("a", MINUTE, None));
    let new_proposal = held.next().await;
    assert_eq!(
        registry.submit(update("a", Status::Passing)).await,
        Err(Refused::UnknownCheck("service:a".into())),
        "nobody was told of it yet"
    );
    let last = submit(&registry, register("last", MINUTE, None));
    let last_proposal = held.next().await;
    for (proposal, answer) in [(first_proposal, first), (gone_proposal, gone), (new_proposal, new)] {
        held.commit(proposal);
        answer.await.unwrap().unwrap();
    }
    registry.submit(update("a", Status::Passing)).await.unwrap();
    assert_eq!(registry.snapshot().instance("n1", "a").unwrap().checks[0].status, Status::Passing);
    held.commit(last_proposal);
    last.await.unwrap().unwrap();
    assert_eq!(registry.snapshot().instance("n1", "a").unwrap().checks[0].status, Status::Passing);
}

#[tokio::test(start_paused = true)]
async fn who_registers_what_is_under_way_waits_for_it() {
    let (registry, held) = start(Limits::default()).await;
    for refused in [false, true] {
        let id = if refused { "b" } else { "a" };
        let first = submit(&registry, register(id, MINUTE, None));
        let proposal = held.next().await;
        let second = submit(&registry, register(id, MINUTE, None));
        // Another's, planned behind it, shows that it was looked at.
        assert!(registry.submit(update("nobody", Status::Passing)).await.is_err());
        assert!(!second.is_finished(), "nothing of it is durable");
        if refused {
            held.refuse(&proposal);
            assert!(first.await.unwrap().is_err());
            // It is proposed anew.
            let proposal = held.next().await;
            assert!(!second.is_finished());
            held.commit(proposal);
        } else {
            held.commit(proposal);
            first.await.unwrap().unwrap();
        }
        second.await.unwrap().unwrap();
        assert!(registry.snapshot().instance("n1", id).is_some());
    }
}

/// By the machine's clock, which a route's way goes by.
#[tokio::test]
async fn the_store_hears_of_the_index_that_a_step_of_a_route_has() {
    let (registry, held) = start(Limits::default()).await;
    for id in ["a", "b"] {
        let instance = serde_json::json!({ "node": "n1", "id": id, "service": "web", "tags": [id] });
        let instance = serde_json::from_value(instance).unwrap();
        let command =
            Command::RegisterInstance { caller: caller(), instance, checks: vec![], replace_checks: false };
        registered(&registry, &held, command).await;
    }
    for (shares, over) in [([1_000_000, 0], 0), ([0, 1_000_000], 3_600_000)] {
        let texts = [format!("a={}", shares[0]), format!("b={}", shares[1])];
        let subsets = route::parse(texts.iter().map(String::as_str)).unwrap();
        let steer = Steer::Set { subsets, strict: false, over, guard: None };
        let service = ServiceName::parse("web").unwrap();
        registered(&registry, &held, Command::Route { service, steer }).await;
    }
    let begun = registry.snapshot().index();
    let stepped = registry.wait(&Topic::Routes, registry.snapshot().index_of(&Topic::Routes), MINUTE);
    let index = stepped.await.unwrap().index();
    assert!(index > begun && held.index.load(Ordering::SeqCst) == index, "{index} after {begun}");
}
