//! The end without a goodbye: SIGKILL of the real program, and a disk whose power goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::{RData, RecordType};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rollcall::model::{Definition, Key, Record};
use rollcall::store::{Embedded, Log, LogEntry, Proposal, Store};
use rollcall::telemetry::Metrics;
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::disk::Disk;
use crate::server::{ask, query, request, try_request};

/// What a client knows of an id.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    There,
    Gone,
    /// The server went before it answered.
    Either,
}

/// Registers and deregisters ids of its own until the server goes; what it knows of each in the end.
async fn client(
    server: SocketAddr,
    name: usize,
    mut known: BTreeMap<String, Known>,
) -> BTreeMap<String, Known> {
    let mut chance = StdRng::seed_from_u64(name as u64);
    for number in 0.. {
        let id = format!("c{name}-{}", chance.random_range(0..8));
        let there = known.get(&id) == Some(&Known::There);
        let (path, body) = if there {
            (format!("/v1/agent/service/deregister/{id}"), Value::Null)
        } else {
            let check = json!({ "TTL": "1h", "Status": "passing" });
            let body = json!({ "ID": id, "Name": "web", "Port": number % 60_000, "Check": check });
            ("/v1/agent/service/register".to_owned(), body)
        };
        known.insert(id.clone(), Known::Either);
        match try_request(server, "PUT", &path, &[], &body.to_string()).await {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                known.insert(id, if there { Known::Gone } else { Known::There });
            }
            Err(_) => break,
        }
    }
    known
}

async fn get(server: SocketAddr, path: &str) -> (u64, Value) {
    let answer = request(server, "GET", path, &[], "").await;
    let index = answer.headers.get("x-consul-index").map_or(0, |_| answer.index());
    (index, answer.json())
}

async fn serial(server: SocketAddr) -> u32 {
    let answer = ask(server, &query("internal.", RecordType::SOA)).await;
    match &answer.answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_at_any_moment_loses_nothing_that_was_acknowledged() {
    const CLIENTS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let mut chance = StdRng::seed_from_u64(7);
    let mut known = vec![BTreeMap::<String, Known>::new(); CLIENTS];
    let (mut last_index, mut last_serial, mut acknowledged) = (0, 0, 0);
    for round in 0..5 {
        let server = Daemon::start(dir.path(), &[]);
        let http = server.http[0];
        let (index, services) = get(http, "/v1/health/service/web").await;
        let (found_serial, _) = (serial(server.dns[0]).await, ());
        assert!(index >= last_index, "round {round}: the index went from {last_index} to {index}");
        assert!(found_serial >= last_serial, "round {round}: from serial {last_serial} to {found_serial}");
        let found: BTreeSet<&str> =
            services.as_array().unwrap().iter().map(|e| e["Service"]["ID"].as_str().unwrap()).collect();
        for entry in services.as_array().unwrap() {
            assert_eq!(entry["Checks"][1]["Status"], "passing", "half of a registration is there: {entry}");
        }
        let (_, checks) = get(http, "/v1/health/checks/web").await;
        assert_eq!(checks.as_array().unwrap().len(), found.len(), "a check without its instance");
        for (id, known) in known.iter_mut().flatten() {
            let there = found.contains(id.as_str());
            match known {
                Known::Either => *known = if there { Known::There } else { Known::Gone },
                said => assert_eq!(*said == Known::There, there, "round {round}: {id} was acknowledged"),
            }
        }
        let clients: Vec<_> = known
            .drain(..)
            .enumerate()
            .map(|(name, known)| tokio::spawn(client(http, name + 100 * round, known)))
            .collect();
        // The moment is chance; what was seen before it must not be above what is seen after.
        let moment = chance.random_range(30..150);
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(moment) || last_index == index {
            last_index = get(http, "/v1/health/service/web").await.0;
            last_serial = serial(server.dns[0]).await;
        }
        server.end(Signal::SIGKILL);
        for client in clients {
            known.push(client.await.unwrap());
        }
        acknowledged += known.iter().flatten().filter(|(_, known)| **known != Known::Either).count();
    }
    assert!(acknowledged > 20, "only {acknowledged} answers were compared");
}

fn open(disk: &Disk) -> (Embedded, Log) {
    disk.store(Arc::new(Metrics::default())).unwrap()
}

/// An instance with its check: two records that are only there together.
fn records(number: u64, port: u16) -> [Record; 2] {
    let instance =
        json!({ "instance": { "node": "n1", "id": format!("i{number}"), "service": "web", "port": port } });
    let check = json!({ "check": { "node": "n1", "id": format!("c{number}"), "name": "c", "instance": format!("i{number}"),
        "kind": { "type": "ttl", "ttl": "1h" }, "output_max": 4096, "initial": "passing", "notes": format!("{port}") } });
    [instance, check].map(|value| serde_json::from_value(value).unwrap())
}

/// What one life of a store did until the power went: the acknowledged state by number, and what was under way.
struct Life {
    acknowledged: BTreeMap<u64, u16>,
    /// Changes with no answer, or that were refused: whether they are there is open, but never by half.
    open: BTreeMap<u64, Vec<Option<u16>>>,
    index: u64,
}

impl Life {
    /// An outcome of one of those that were sent: by ticket, the number and what it was to be.
    fn note(&mut self, entry: LogEntry, sent: &mut BTreeMap<u64, (u64, Option<u16>)>) {
        match entry {
            LogEntry::Committed { ticket: Some(ticket), index, .. } => {
                let (number, port) = sent.remove(&ticket).unwrap();
                match port {
                    Some(port) => self.acknowledged.insert(number, port),
                    None => self.acknowledged.remove(&number),
                };
                self.open.remove(&number);
                self.index = self.index.max(index);
            }
            LogEntry::Refused { ticket, .. } => {
                let (number, port) = sent.remove(&ticket).unwrap();
                self.open.entry(number).or_default().push(port);
            }
            LogEntry::Committed { ticket: None, .. } => panic!("nobody else proposes"),
        }
    }
}

/// Puts and removes at random, several at once, until the disk is dead or there is nothing more to do.
fn live(disk: &Disk, before: &BTreeMap<u64, u16>, chance: &mut StdRng) -> Life {
    let (store, mut log) = open(disk);
    let loaded = store.load().unwrap();
    let mut life = Life { acknowledged: before.clone(), open: BTreeMap::new(), index: loaded.index };
    disk.die_after(chance.random_range(1..400));
    for round in 0..40u64 {
        let mut sent = BTreeMap::new();
        for ticket in 0..chance.random_range(1..5u64) {
            let number = ticket * 10 + chance.random_range(0..10);
            let port = chance.random_range(0..3) != 0;
            let port = port.then(|| chance.random_range(1..60_000u16));
            let definitions: Vec<Definition> = match port {
                Some(port) => records(number, port).into_iter().map(Definition::Put).collect(),
                None => {
                    let keys: [Key; 2] = records(number, 0).map(|record| record.key());
                    keys.into_iter().map(Definition::Remove).collect()
                }
            };
            sent.insert(round * 100 + ticket, (number, port));
            let proposal =
                Proposal { ticket: round * 100 + ticket, definitions: definitions.into(), after: 0 };
            store.propose(vec![proposal]);
        }
        while !sent.is_empty() {
            for entry in log.blocking_recv().unwrap() {
                life.note(entry, &mut sent);
            }
        }
        if disk.is_dead() {
            break;
        }
    }
    life
}

/// What is there after the power went: errs with what is lost or half there.
fn compare(disk: &Disk, life: &Life) -> Result<BTreeMap<u64, u16>, String> {
    let store = disk.store(Arc::new(Metrics::default()));
    let (store, _entries) = store.map_err(|e| format!("it cannot be opened: {e}"))?;
    let loaded = store.load().map_err(|e| e.to_string())?;
    if loaded.index < life.index {
        return Err(format!("the index went from {} to {}", life.index, loaded.index));
    }
    let (mut instances, mut checks) = (BTreeMap::new(), BTreeMap::new());
    for stored in loaded.records {
        match stored.record {
            Record::Instance(i) => drop(instances.insert(i.id.as_str()[1..].parse::<u64>().unwrap(), i.port)),
            Record::Check(c) => {
                checks.insert(c.id.as_str()[1..].parse::<u64>().unwrap(), c.notes.parse::<u16>().unwrap());
            }
            _ => {}
        }
    }
    if instances != checks {
        return Err(format!("by half: {instances:?} and {checks:?}"));
    }
    for number in 0..50 {
        let (found, said) = (instances.get(&number).copied(), life.acknowledged.get(&number).copied());
        let may_be = life.open.get(&number).is_some_and(|open| open.contains(&found));
        if found != said && !may_be {
            return Err(format!("{number} is {found:?}, and {said:?} was acknowledged"));
        }
    }
    Ok(instances)
}

/// Several lives on one disk; the first loss in any of them.
fn lives(seed: u64, lies: bool) -> Result<(), String> {
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut disk, mut there) = (Disk::fresh(), BTreeMap::new());
    for _ in 0..4 {
        if lies {
            disk.lie();
        }
        let life = live(&disk, &there, &mut chance);
        disk = Disk::with(disk.after_the_power_went(|below| chance.random_range(0..below)));
        there = compare(&disk, &life)?;
    }
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_a_loss_of_power_at_any_moment() {
    for seed in 0..24 {
        lives(seed, false).unwrap_or_else(|lost| panic!("seed {seed}: {lost}"));
    }
}

#[test]
fn without_the_sync_the_same_test_finds_the_loss() {
    // redb may meet pages that were never written, and panic: that is a loss, too.
    let found =
        (0..8).filter(|seed| !matches!(std::panic::catch_unwind(|| lives(*seed, true)), Ok(Ok(())))).count();
    assert_eq!(found, 8, "a disk that ignores syncs was not noticed");
}
