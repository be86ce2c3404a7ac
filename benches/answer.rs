//! One DNS message, from its octets to those of the answer: what the listeners call for each datagram, without the
//! sockets. Ten thousand services of three instances; questions about all of them in turn. Answers of one, ten and a hundred
//! instances show what encoding costs by size; the encoder has no door of its own.
//!
//! `cargo bench --bench answer`

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use divan::Bencher;
use divan::counter::ItemsCount;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use rollcall::config::Config;
use rollcall::dns;
use rollcall::dns::zone::{Source, Zones};
use rollcall::model::{Instance, Node};
use rollcall::registry::{self, Command, Registry};
use rollcall::store::Ephemeral;
use rollcall::telemetry::Metrics;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const SERVICES: usize = 10_000;
const INSTANCES: usize = 3;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// SRV records of one service that fit into 1232 octets.
const CUT: usize = 25;
/// Where an even walk over the services goes next.
const STRIDE: usize = 7919;

fn main() {
    divan::main();
}

/// The state of a server, and the runtime that its registry's writer lives on.
fn state(services: usize, instances: usize) -> (Runtime, dns::State) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config::default();
    let metrics = Arc::new(Metrics::default());
    let (log, queue) = tokio::sync::mpsc::unbounded_channel();
    let store = Arc::new(Ephemeral::new(log, std::time::SystemTime::now()));
    let own: Node =
        serde_json::from_value(serde_json::json!({ "name": "n1", "address": "10.0.0.1" })).unwrap();
    let own = registry::Config { own, limits: config.limits.clone(), audit: Default::default() };
    let registry = {
        let _inside = runtime.enter();
        Registry::start(store, queue, own, metrics.clone()).unwrap().0
    };
    let all = (0..services).flat_map(|service| (0..instances).map(move |i| instance(service, i))).collect();
    runtime
        .block_on(registry.submit(Command::SetFileDefinitions { instances: all, checks: Vec::new() }))
        .unwrap();
    let state = dns::State {
        registry,
        settings: ArcSwap::from_pointee(config.dns_settings()),
        zones: ArcSwap::from_pointee(zones()),
        forwarder: None,
        metrics,
        traces: Default::default(),
        shutdown: CancellationToken::new(),
    };
    (runtime, state)
}

fn instance(service: usize, i: usize) -> Instance {
    serde_json::from_value(serde_json::json!({
        "node": "n1",
        "id": format!("service-{service}-{i}"),
        "service": format!("service-{service}"),
        "address": format!("10.{}.{}.{i}", service / 250, service % 250),
        "port": 8000 + i,
        "origin": "file",
    }))
    .unwrap()
}

/// A static zone of as many hosts as there are services.
fn zones() -> Zones {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 10.0.0.1\n".to_owned();
    for host in 0..SERVICES {
        text.push_str(&format!("host-{host} A 10.{}.{}.1\n", host / 250, host % 250));
    }
    let file = folder.path().join("zone");
    std::fs::write(&file, text).unwrap();
    let source = Source { name: Name::from_ascii("example.test.").unwrap(), file };
    Zones::load(&[source], &[]).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

/// Answers one message of many after the other. The first shows that it is the answer that is meant: its code and how many
/// records it has.
fn answer_each(
    bencher: Bencher,
    state: &dns::State,
    messages: &[Vec<u8>],
    over_tcp: bool,
    expected: (ResponseCode, usize),
) {
    let first = Message::from_vec(&state.answer(&messages[0], over_tcp, CLIENT).unwrap()).unwrap();
    assert_eq!((first.response_code, first.answers.len()), expected);
    let mut turn = 0usize;
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| {
        turn = (turn + STRIDE) % messages.len();
        state.answer(&messages[turn], over_tcp, CLIENT)
    });
}

fn all(form: impl Fn(usize) -> String, kind: RecordType) -> Vec<Vec<u8>> {
    (0..SERVICES).map(|service| query(&form(service), kind)).collect()
}

#[divan::bench(args = ["A", "SRV"])]
fn live(bencher: Bencher, kind: &str) {
    let (_runtime, state) = state(SERVICES, INSTANCES);
    let kind = kind.parse().unwrap();
    answer_each(
        bencher,
        &state,
        &all(|i| format!("service-{i}.service.internal."), kind),
        false,
        (ResponseCode::NoError, INSTANCES),
    );
}

#[divan::bench]
fn live_nxdomain(bencher: Bencher) {
    let (_runtime, state) = state(SERVICES, INSTANCES);
    answer_each(
        bencher,
        &state,
        &all(|i| format!("none-{i}.service.internal."), RecordType::A),
        false,
        (ResponseCode::NXDomain, 0),
    );
}

#[divan::bench]
fn zone(bencher: Bencher) {
    let (_runtime, state) = state(1, 1);
    answer_each(
        bencher,
        &state,
        &all(|i| format!("host-{i}.example.test."), RecordType::A),
        false,
        (ResponseCode::NoError, 1),
    );
}

#[divan::bench]
fn zone_nxdomain(bencher: Bencher) {
    let (_runtime, state) = state(1, 1);
    answer_each(
        bencher,
        &state,
        &all(|i| format!("none-{i}.example.test."), RecordType::A),
        false,
        (ResponseCode::NXDomain, 0),
    );
}

#[divan::bench]
fn refused(bencher: Bencher) {
    let (_runtime, state) = state(1, 1);
    answer_each(
        bencher,
        &state,
        &all(|i| format!("host-{i}.elsewhere.test."), RecordType::A),
        false,
        (ResponseCode::Refused, 0),
    );
}

/// SRV answers of this many instances, whole over TCP.
#[divan::bench(args = [1, 10, 100])]
fn instances(bencher: Bencher, instances: usize) {
    let (_runtime, state) = state(1, instances);
    answer_each(
        bencher,
        &state,
        &[query("service-0.service.internal.", RecordType::SRV)],
        true,
        (ResponseCode::NoError, instances),
    );
}

/// The same over UDP, where most of a hundred are cut.
#[divan::bench]
fn cut(bencher: Bencher) {
    let (_runtime, state) = state(1, 100);
    answer_each(
        bencher,
        &state,
        &[query("service-0.service.internal.", RecordType::SRV)],
        false,
        (ResponseCode::NoError, CUT),
    );
}
