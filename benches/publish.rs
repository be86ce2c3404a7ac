//! What one change costs at a thousand, a hundred thousand and a million instances, as a whole and in parts. None may grow
//! with the size of the registry by more than a deeper tree costs.
//!
//! - `flip`, `define`: a status and a definition, from the call to the published snapshot and the answer. The store
//!   accepts at once, so that only the registry is measured.
//! - `apply`: the new state of one definition.
//! - `publish`: the new state put in place of the old one, which is dropped.
//! - `commit`: one definition made durable by the embedded store, with its fsync; `fsync` is the disk's part alone.
//!
//! `cargo bench --bench publish`

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use divan::Bencher;
use rollcall::model::{
    Address, Check, CheckId, CheckKey, CheckKind, Definition, Instance, Node, NodeName, Observation, Origin,
    Record, Status, Terms,
};
use rollcall::registry::{Caller, Command, Config, Limits, Registry};
use rollcall::store::{Embedded, Loaded, LogEntry, LogSender, Proposal, Store, StoreError, Stored};
use rollcall::telemetry::Metrics;
use tokio::runtime::Runtime;

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Instances of one service.
const PER_SERVICE: usize = 10;
/// Instances on one node.
const PER_NODE: usize = 100;

fn main() {
    divan::main();
}

/// Accepts at once and keeps nothing.
struct Accepting {
    log: LogSender,
    size: usize,
}

impl Store for Accepting {
    fn load(&self) -> Result<Loaded, StoreError> {
        let nodes = (0..self.size.div_ceil(PER_NODE)).map(|i| Record::Node(Arc::new(node(i))));
        let instances = (0..self.size).map(|i| Record::Instance(Arc::new(instance(i, 80))));
        let checks = (0..self.size).map(|i| Record::Check(check(i)));
        let stored = |record| Stored { record, create_index: 1, modify_index: 1 };
        let records = nodes.chain(instances).chain(checks).map(stored).collect();
        Ok(Loaded { records, statuses: Vec::new(), index: 1 })
    }
    fn propose(&self, proposals: Vec<Proposal>) {
        let committed = proposals.into_iter().map(|Proposal { ticket, definitions, after }| {
            LogEntry::Committed { ticket: Some(ticket), index: after + 1, definitions }
        });
        let _ = self.log.send(committed.collect());
    }
    fn observe(&self, _: Vec<Observation>, _: u64) {}
    fn backup(&self, _: &mut dyn Write) -> Result<(), StoreError> {
        Ok(())
    }
    fn writable(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn close(&self) {}
}

fn node_name(i: usize) -> NodeName {
    NodeName::parse(&format!("node-{i}")).unwrap()
}

fn node(i: usize) -> Node {
    Node {
        name: node_name(i),
        id: None,
        address: Address::Ip(std::net::Ipv4Addr::from(0x0a00_0000 + i as u32 + 1).into()),
        tagged_addresses: Default::default(),
        meta: Default::default(),
        locality: None,
        implied: false,
    }
}

fn instance(i: usize, port: u16) -> Instance {
    serde_json::from_value(serde_json::json!({
        "node": format!("node-{}", i / PER_NODE),
        "id": format!("service-{}-{i}", i / PER_SERVICE),
        "service": format!("service-{}", i / PER_SERVICE),
        "port": port,
        "tags": ["a"],
    }))
    .unwrap()
}

fn check(i: usize) -> Check {
    let kind = CheckKind::Ttl { ttl: Duration::from_secs(3600) };
    let terms = Terms { name: "ttl".into(), ..Terms::unprobed(kind, Status::Passing, Origin::Agent) };
    Check {
        node: node_name(i / PER_NODE),
        id: CheckId::parse(&format!("check-{i}")).unwrap(),
        instance: Some(instance(i, 80).id),
        terms: terms.into(),
    }
}

/// A registry of this size, and the runtime that its writer lives on.
fn registry(size: usize) -> (Runtime, Registry) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (log, queue) = tokio::sync::mpsc::unbounded_channel();
    let limits = Limits { instances_max: usize::MAX, checks_max: usize::MAX, ..Limits::default() };
    let config = Config { own: node(usize::MAX >> 40), limits, audit: Default::default() };
    let store = Arc::new(Accepting { log, size });
    let registry = {
        let _inside = runtime.enter();
        Registry::start(store, queue, config, Arc::new(Metrics::default())).unwrap().0
    };
    (runtime, registry)
}

/// One definition that replaces another.
fn replacing(turn: usize, size: usize) -> [Definition; 1] {
    let instance = instance(turn * 7919 % size, (turn % 60_000 + 81) as u16);
    [Definition::Put(Record::Instance(Arc::new(instance)))]
}

#[divan::bench(args = SIZES, sample_count = 1000)]
fn apply(bencher: Bencher, size: usize) {
    let (_runtime, registry) = registry(size);
    let (state, mut turn) = (registry.snapshot(), 0);
    let definition = || {
        turn += 1;
        replacing(turn, size)
    };
    bencher.with_inputs(definition).bench_local_refs(|definition| state.applied(2, &*definition));
}

#[divan::bench(args = SIZES, sample_count = 1000)]
fn publish(bencher: Bencher, size: usize) {
    let (_runtime, registry) = registry(size);
    let published = ArcSwap::new(registry.snapshot());
    let mut turn = 0;
    let state = || {
        turn += 1;
        published.load().applied(turn as u64 + 1, &replacing(turn, size))
    };
    bencher.with_inputs(state).bench_local_refs(|state| published.store(Arc::new(state.clone())));
}

#[divan::bench(args = SIZES, sample_count = 300)]
fn commit(bencher: Bencher, size: usize) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let (sender, mut log) = tokio::sync::mpsc::unbounded_channel();
    let config = rollcall::store::Config { data_dir: dir.path().join("data"), cache_bytes: 32 << 20 };
    let store = Embedded::open(&config, sender, Arc::new(Metrics::default())).unwrap();
    let mut durable = |definitions: Vec<Definition>| {
        store.propose(vec![Proposal { ticket: 1, definitions: definitions.into(), after: 1 }]);
        assert!(matches!(log.blocking_recv().as_deref(), Some([LogEntry::Committed { .. }])));
    };
    for first in (0..size).step_by(FILLED_AT_ONCE) {
        let all = first..(first + FILLED_AT_ONCE).min(size);
        let instances = all.clone().map(|i| Record::Instance(Arc::new(instance(i, 80))));
        let records = instances.chain(all.map(|i| Record::Check(check(i))));
        durable(records.map(Definition::Put).collect());
    }
    let mut turn = 0;
    let definition = || {
        turn += 1;
        replacing(turn, size).to_vec()
    };
    bencher.with_inputs(definition).bench_local_values(durable);
}

/// Instances of one commit while the store is filled.
const FILLED_AT_ONCE: usize = 10_000;

#[divan::bench(sample_count = 300)]
fn fsync(bencher: Bencher) {
    let mut file = tempfile::tempfile_in(".").unwrap();
    bencher.bench_local(|| {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
    });
}

/// A status flip, until a reader sees it.
#[divan::bench(args = SIZES, sample_count = 200)]
fn flip(bencher: Bencher, size: usize) {
    let (runtime, registry) = registry(size);
    let mut turn = 0usize;
    bencher.bench_local(|| {
        turn += 1;
        let i = turn * 7919 % size;
        let id = CheckId::parse(&format!("check-{i}")).unwrap();
        let check = CheckKey { node: node_name(i / PER_NODE), id };
        let status = if (turn / size).is_multiple_of(2) { Status::Critical } else { Status::Passing };
        let index = registry.load().index();
        let seen = Observation { check, generation: None, status, output: "".into(), to_flip: 1 };
        runtime.block_on(async {
            registry.observe(vec![seen], tokio::time::Instant::now()).await;
            while registry.load().index() == index {
                tokio::task::yield_now().await;
            }
        });
    });
}

/// A definition that replaces another, until its client is answered.
#[divan::bench(args = SIZES, sample_count = 200)]
fn define(bencher: Bencher, size: usize) {
    let (runtime, registry) = registry(size);
    let mut turn = 0usize;
    bencher.bench_local(|| {
        turn += 1;
        let i = turn * 7919 % size;
        let instance = instance(i, (turn % 60_000 + 81) as u16);
        let caller = Caller { node: instance.node.clone(), address: None, named: false };
        let command = Command::RegisterInstance { caller, instance, checks: vec![], replace_checks: false };
        runtime.block_on(registry.submit(command)).unwrap();
    });
}
