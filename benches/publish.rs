//! What one change costs at a thousand, a hundred thousand and a million instances: a status flip and a
//! new definition, from the call to the published snapshot. The store accepts at once, so that only
//! the registry is measured.
//!
//! `cargo bench --bench publish`

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use rollcall::model::{
    Address, Check, CheckId, CheckKey, CheckKind, Instance, Node, NodeName, Observation, Origin, Record,
    Status, Terms,
};
use rollcall::registry::{Caller, Command, Config, Limits, Registry};
use rollcall::store::{Loaded, LogEntry, LogSender, Proposal, Store, StoreError, Stored};
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
    fn propose(&self, Proposal { ticket, definitions, after }: Proposal) {
        let _ = self.log.send(LogEntry::Committed { ticket: Some(ticket), index: after + 1, definitions });
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
    let terms = Terms {
        name: "ttl".into(),
        notes: String::new(),
        kind: CheckKind::Ttl { ttl: Duration::from_secs(3600) },
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        success_before_passing: 0,
        failures_before_warning: 0,
        failures_before_critical: 0,
        deregister_after: None,
        output_max: 4096,
        initial: Status::Passing,
        origin: Origin::Agent,
    };
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
    let config = Config { own: node(usize::MAX >> 40), limits };
    let store = Arc::new(Accepting { log, size });
    let registry = {
        let _inside = runtime.enter();
        Registry::start(store, queue, config, Arc::new(Metrics::default())).unwrap().0
    };
    (runtime, registry)
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
            registry.observe(vec![seen]).await;
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
        let caller = Caller { node: instance.node.clone(), address: None };
        let command = Command::RegisterInstance { caller, instance, checks: vec![], replace_checks: false };
        runtime.block_on(registry.submit(command)).unwrap();
    });
}
