//! The store's two files: what is in the journal alone, what was refused, and who may have them.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rollcall::model::{CheckKey, Definition, Key, Observation, Record, Status};
use rollcall::store::{Config, Embedded, Loaded, Log, LogEntry, Proposal, Store};
use rollcall::telemetry::Metrics;
use serde_json::json;
use tokio::sync::mpsc::unbounded_channel;

use crate::daemon::run;
use crate::disk::{Disk, JOURNAL_OCTETS};

fn check(id: &str) -> Record {
    let check = json!({ "check": { "node": "n1", "id": id, "name": "c", "kind": { "type": "ttl", "ttl": "1h" },
        "output_max": 4096, "initial": "critical" } });
    serde_json::from_value(check).unwrap()
}

fn key(id: &str) -> CheckKey {
    match check(id).key() {
        Key::Check(node, id) => CheckKey { node, id },
        other => panic!("{other:?}"),
    }
}

/// Proposes one definition; its index, or nothing where it is refused.
fn put(store: &Embedded, log: &mut Log, definition: Definition) -> Option<u64> {
    store.propose(vec![Proposal { ticket: 1, definitions: [definition].into(), after: 0 }]);
    match &*log.blocking_recv().unwrap() {
        [LogEntry::Committed { index, .. }] => Some(*index),
        [LogEntry::Refused { .. }] => None,
        other => panic!("{other:?}"),
    }
}

fn checks(loaded: &Loaded) -> Vec<&str> {
    let ids = loaded.records.iter().filter_map(|stored| match &stored.record {
        Record::Check(check) => Some(check.id.as_str()),
        _ => None,
    });
    ids.collect()
}

fn open(disk: &Disk) -> (Embedded, Log) {
    disk.store(Arc::new(Metrics::default())).unwrap()
}

#[test]
fn a_start_and_a_backup_on_a_full_disk_have_what_is_in_the_journal_alone() {
    let disk = Disk::fresh();
    let (store, mut log) = open(&disk);
    let first = put(&store, &mut log, Definition::Put(check("a"))).unwrap();
    put(&store, &mut log, Definition::Put(check("b"))).unwrap();
    put(&store, &mut log, Definition::Remove(check("b").key())).unwrap();
    disk.fill(true);
    drop(store);
    // Full again as soon as the database is open.
    let (full, open_it, of) = (Arc::new(AtomicBool::new(true)), disk.opener(), disk.clone());
    let still = full.clone();
    let opener = move || {
        of.fill(false);
        let database = open_it();
        of.fill(still.load(Ordering::SeqCst));
        database
    };
    let (log, mut entries) = unbounded_channel();
    let metrics = Arc::new(Metrics::default());
    let store = Embedded::open_with(Box::new(opener), disk.journal(), JOURNAL_OCTETS, log, metrics).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(checks(&loaded), ["a"]);
    assert_eq!(loaded.records.last().unwrap().create_index, first);
    assert!(store.writable().is_err(), "who asks is told");
    let mut backup = Vec::new();
    store.backup(&mut backup).unwrap();
    let backup = String::from_utf8(backup).unwrap();
    assert!(backup.contains(r#""id":"a""#) && !backup.contains(r#""id":"b""#), "{backup}");
    assert_eq!(put(&store, &mut entries, Definition::Put(check("c"))), None);
    full.store(false, Ordering::SeqCst);
    disk.fill(false);
    assert!(put(&store, &mut entries, Definition::Put(check("d"))).unwrap() > loaded.index);
    drop(store);
    assert_eq!(checks(&open(&disk).0.load().unwrap()), ["a", "d"]);
}

#[test]
fn what_was_refused_stays_refused_although_its_frame_is_there() {
    let disk = Disk::fresh();
    let (store, mut log) = open(&disk);
    put(&store, &mut log, Definition::Put(check("a"))).unwrap();
    let hanging = disk.hang();
    store.propose(vec![Proposal { ticket: 2, definitions: [Definition::Put(check("b"))].into(), after: 0 }]);
    disk.until_held();
    disk.fill(true);
    drop(hanging);
    assert!(matches!(log.blocking_recv().as_deref(), Some([LogEntry::Refused { ticket: 2, .. }])));
    disk.fill(false);
    drop(store);
    assert_eq!(checks(&open(&disk).0.load().unwrap()), ["a"]);
}

#[test]
fn a_flip_goes_with_its_check() {
    let disk = Disk::fresh();
    let (store, mut log) = open(&disk);
    let flip = |id: &str, status| Observation {
        check: key(id),
        generation: None,
        status,
        output: "so".into(),
        to_flip: 1,
    };
    for id in ["a", "c"] {
        put(&store, &mut log, Definition::Put(check(id))).unwrap();
    }
    store.observe(vec![flip("a", Status::Passing), flip("c", Status::Passing)], 10);
    put(&store, &mut log, Definition::Remove(check("a").key())).unwrap();
    drop(store);
    let kept = open(&disk).0.load().unwrap().statuses;
    assert_eq!(kept.iter().map(|status| status.check.id.as_str()).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn the_journal_of_a_running_server_is_nobody_elses_also_while_its_database_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let config = Config { data_dir: data.clone(), cache_bytes: 1 << 20 };
    let opened = || Embedded::open(&config, unbounded_channel().0, Arc::new(Metrics::default()));
    opened().unwrap().backup(&mut File::create(&backup).unwrap()).unwrap();
    let running = File::open(data.join("registry.journal")).unwrap();
    running.try_lock().unwrap();
    let Err(error) = opened() else { panic!("two have it") };
    let said = error.to_string();
    assert!(said.contains("registry.journal is in use by another rollcall"), "{said}");
    let words = ["restore", backup.to_str().unwrap(), "--replace", "--data-dir", data.to_str().unwrap()];
    let refused = run(&words);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop the server first"), "{refused:?}");
    drop(running);
    assert!(opened().is_ok());
    assert!(run(&words).status.success());
}
