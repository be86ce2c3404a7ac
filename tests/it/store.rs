//! What is kept, where, and what happens when the file or the disk is not as it should be.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_proto::rr::{RData, RecordType};
use rollcall::config::Data;
use rollcall::model::Record;
use rollcall::registry::Limits;
use rollcall::store::{Config, Embedded, Store};
use rollcall::telemetry::Metrics;
use rollcall::{Opened, Running};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::daemon::{Daemon, run};
use crate::disk::Disk;
use crate::server::{PATIENCE, TestServer, config, request};

async fn serial(server: &TestServer) -> u32 {
    match &server.ask("internal.", RecordType::SOA).await.answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other}"),
    }
}

async fn health(server: &TestServer, service: &str) -> Value {
    server.get(&format!("/v1/health/service/{service}")).await.json()
}

/// Takes all `CreateIndex` and `ModifyIndex` out, in their order.
fn take_indexes(value: &mut Value, to: &mut Vec<(String, u64)>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| take_indexes(item, to)),
        Value::Object(map) => {
            for (key, value) in map {
                if ["CreateIndex", "ModifyIndex"].contains(&key.as_str()) {
                    to.push((key.clone(), value.take().as_u64().unwrap()));
                } else {
                    take_indexes(value, to);
                }
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_restart_keeps_definitions_statuses_and_indexes() {
    // The first start of all shows the node before the store has given it an index.
    let server = TestServer::start().await.restart().await;
    server
        .register(json!({ "ID": "web/1", "Name": "Web", "Port": 80, "Tags": ["a"], "Meta": { "k": "v" },
            "Weights": { "Passing": 3, "Warning": 2 }, "TaggedAddresses": { "wan": { "Address": "192.0.2.1", "Port": 8 } },
            "Checks": [{ "CheckID": "t", "TTL": "1h" }, { "CheckID": "a", "TTL": "1h", "Status": "warning" }] }))
        .await;
    server.register(json!({ "ID": "gone", "Name": "gone" })).await;
    server.put("/v1/agent/service/deregister/gone", "").await;
    server.put("/v1/agent/check/pass/t?note=well", "").await;
    server.put("/v1/agent/service/maintenance/web%2F1?enable=true&reason=work", "").await;
    let other = json!({ "Node": "ext", "Address": "10.0.0.9", "NodeMeta": { "external-node": "true" },
        "Service": { "Service": "db" }, "Check": { "CheckID": "c", "Name": "c", "ServiceID": "db", "Status": "passing" } });
    assert_eq!(server.put("/v1/catalog/register", other).await.text(), "true");
    let (mut before, mut indexes) = (health(&server, "web").await, Vec::new());
    take_indexes(&mut before, &mut indexes);
    let external = health(&server, "db").await;
    let index = server.get("/v1/health/service/web").await.index();
    let serial_before = serial(&server).await;
    let nodes = server.get("/v1/catalog/nodes").await.json();
    let server = server.restart().await;
    assert_eq!(health(&server, "db").await, external);
    let (mut shown, mut later) = (health(&server, "web").await, Vec::new());
    take_indexes(&mut shown, &mut later);
    assert_eq!(shown, before);
    for ((name, before), (_, after)) in indexes.iter().zip(&later) {
        let good = if name == "CreateIndex" { after == before } else { after >= before };
        assert!(good, "{name} went from {before} to {after}");
    }
    assert_eq!(server.get("/v1/catalog/service/gone").await.text(), "[]");
    let after = server.get("/v1/health/service/web").await.index();
    assert!(after > index, "who waits looks again: {index} {after}");
    assert!(serial(&server).await >= serial_before);
    let ids = |nodes: &Value| nodes.as_array().unwrap().iter().map(|n| n["ID"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&server.get("/v1/catalog/nodes").await.json()), ids(&nodes), "the node keeps its id");
    // Maintenance ends as it began.
    server.put("/v1/agent/service/maintenance/web%2F1?enable=false", "").await;
    assert_eq!(server.ask("web.service.internal.", RecordType::A).await.answers.len(), 1);
}

#[tokio::test]
async fn an_ephemeral_server_keeps_nothing_and_its_index_does_not_go_back() {
    let ephemeral = || TestServer::with(|config| config.data = Data::Ephemeral);
    let server = ephemeral().await;
    server.register(json!({ "Name": "web" })).await;
    let (index, serial_before) = (server.get("/v1/catalog/services").await.index(), serial(&server).await);
    let backup = server.get("/v1/rollcall/backup").await;
    assert_eq!(backup.status, 503);
    assert!(backup.text().contains("--ephemeral"), "{}", backup.text());
    assert!(!server.dir.path().join("data").exists());
    server.running.stop().await;
    // It counts on from the clock: that holds for fewer than 256 changes a second, and a test is quick.
    let from_clock = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 * 256 / 1000;
    while from_clock() <= index {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let server = ephemeral().await;
    let services = server.get("/v1/catalog/services").await;
    assert_eq!(services.text(), r#"{"consul":[]}"#);
    assert!(services.index() >= index, "from {index} to {}", services.index());
    assert!(serial(&server).await >= serial_before);
}

#[tokio::test]
async fn clients_that_wait_share_a_commit() {
    const CLIENTS: usize = 200;
    let server = TestServer::start().await;
    let before = server.metric("rollcall_store_commits_total").await;
    let put = |number: usize| {
        let http = server.http();
        async move {
            let body = json!({ "ID": format!("i{number}"), "Name": "web" }).to_string();
            request(http, "PUT", "/v1/agent/service/register", &[], &body).await.status
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(put(number))).collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    let commits = server.metric("rollcall_store_commits_total").await - before;
    assert!(
        commits >= 1.0 && commits < CLIENTS as f64 * 0.75,
        "{commits} commits for {CLIENTS} registrations"
    );
}

#[tokio::test]
async fn the_journal_makes_definitions_durable_and_the_database_takes_them_behind_it() {
    const ONE_BY_ONE: usize = 60;
    let server = TestServer::start().await;
    let counts = async || {
        let commits = server.metric("rollcall_store_commits_total").await;
        (commits, server.metric("rollcall_store_checkpoints_total").await)
    };
    let before = counts().await;
    for number in 0..ONE_BY_ONE {
        server.register(json!({ "ID": format!("i{number}"), "Name": "web" })).await;
    }
    let after = counts().await;
    let (commits, checkpoints) = (after.0 - before.0, after.1 - before.1);
    assert_eq!(commits, ONE_BY_ONE as f64);
    assert!(checkpoints < commits / 4.0, "{checkpoints} commits of the database for {commits} batches");
    // Nothing of it is left to the journal when the server stops: the database alone has it.
    let TestServer { running, dir } = server;
    running.stop().await;
    std::fs::remove_file(dir.path().join("data/registry.journal")).unwrap();
    let config = Config { data_dir: dir.path().join("data"), cache_bytes: 1 << 20 };
    let (log, _entries) = tokio::sync::mpsc::unbounded_channel();
    let loaded = Embedded::open(&config, log, Arc::new(Metrics::default())).unwrap().load().unwrap();
    let instances = loaded.records.iter().filter(|stored| matches!(stored.record, Record::Instance(_)));
    assert_eq!(instances.count(), ONE_BY_ONE);
}

#[tokio::test]
async fn a_restored_registry_takes_nothing_from_the_journal_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("backup"));
    let (data_text, file_text) = (data.to_str().unwrap(), file.to_str().unwrap());
    let server = Daemon::start(&data, &[]);
    let http = server.http[0];
    let put = async |http, name: &str| {
        let body = json!({ "Name": name }).to_string();
        assert_eq!(request(http, "PUT", "/v1/agent/service/register", &[], &body).await.status, 200);
    };
    let services = async |http| request(http, "GET", "/v1/catalog/services", &[], "").await.text();
    put(http, "kept").await;
    assert!(run(&["backup", file_text, "--server", &http.to_string()]).status.success());
    put(http, "later").await;
    server.end(nix::sys::signal::Signal::SIGKILL);
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for name in ["registry.redb", "registry.journal"] {
        std::fs::copy(data.join(name), copy.join(name)).unwrap();
    }
    let done = run(&["restore", file_text, "--data-dir", data_text, "--replace"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let server = Daemon::start(&data, &[]);
    assert_eq!(services(server.http[0]).await, r#"{"consul":[],"kept":[]}"#);
    // The journal had it.
    let server = Daemon::start(&copy, &[]);
    assert_eq!(services(server.http[0]).await, r#"{"consul":[],"kept":[],"later":[]}"#);
}

/// A whole server whose store is on a disk in memory.
async fn on_disk(dir: &tempfile::TempDir, limits: Limits) -> (Running, Disk) {
    let config = rollcall::config::Config { limits, ..config(dir) };
    let disk = Disk::fresh();
    let metrics = Arc::new(Metrics::default());
    let (store, log) = disk.store(metrics.clone()).unwrap();
    let opened = Opened { node_id: store.node_id(), store: Arc::new(store), log, metrics };
    (rollcall::start_on(config, opened).await.unwrap(), disk)
}

#[tokio::test]
async fn a_full_disk_refuses_definitions_and_nothing_else_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (running, disk) = on_disk(&dir, Limits::default()).await;
    let server = TestServer { running, dir };
    // An instance that will die while the disk is full, and one that is to be deregistered then.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = json!({ "TTL": "1h", "Status": "passing" });
    let probe = json!({ "TCP": listener.local_addr().unwrap().to_string(), "Interval": "1s" });
    server.register(json!({ "ID": "ttl", "Name": "web", "Port": 1, "Check": check })).await;
    server.register(json!({ "ID": "tcp", "Name": "web", "Port": 2, "Check": probe })).await;
    let passing = |count: usize| {
        move |entries: &Value| {
            let entries = entries.as_array().unwrap();
            entries.iter().filter(|entry| entry["Checks"][1]["Status"] == "passing").count() == count
        }
    };
    server.until("web", passing(2)).await;
    assert_eq!(server.get("/ready").await.status, 200);

    disk.fill(true);
    let before = crate::http::catalog(&server).await;
    for _ in 0..3 {
        let refused = server.put("/v1/agent/service/register", json!({ "Name": "new" })).await;
        assert_eq!(refused.status, 503);
        assert!(refused.text().starts_with("cannot store the change: "), "{}", refused.text());
        assert!(refused.text().contains("no storage space"), "{}", refused.text());
    }
    assert_eq!(server.put("/v1/agent/service/deregister/ttl", "").await.status, 503);
    assert_eq!(crate::http::catalog(&server).await, before, "nothing was changed");
    let ready = server.get("/ready").await;
    assert!(ready.status == 503 && ready.text().contains("definitions cannot be stored"), "{}", ready.text());
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.metric("rollcall_store_writable").await, 0.0);
    assert!(server.metric("rollcall_store_errors_total").await >= 4.0);
    // What is dead leaves DNS, whatever the disk says.
    assert_eq!(server.ask("web.service.internal.", RecordType::SRV).await.answers.len(), 2);
    drop(listener);
    server.until("web", passing(1)).await;
    assert_eq!(server.ask("web.service.internal.", RecordType::SRV).await.answers.len(), 1);
    assert_eq!(server.put("/v1/agent/check/fail/service:ttl", "").await.status, 200);
    assert_eq!(server.ask("web.service.internal.", RecordType::SRV).await.answers.len(), 0);

    disk.fill(false);
    server.register(json!({ "Name": "new" })).await;
    assert_eq!(server.get("/ready").await.status, 200);
    assert_eq!(server.metric("rollcall_store_writable").await, 1.0);
    assert_eq!(server.put("/v1/agent/service/deregister/tcp", "").await.status, 200);
    let TestServer { running, .. } = server;
    running.stop().await;
    // What is on the disk is what was acknowledged, with the statuses that were found meanwhile.
    let (store, _entries) = disk.store(Arc::new(Metrics::default())).unwrap();
    let loaded = store.load().unwrap();
    let text = format!("{:?}", loaded.records);
    assert!(text.contains("\"new\"") && text.contains("\"ttl\"") && !text.contains("\"tcp\""), "{text}");
    let status = loaded.statuses.iter().find(|status| status.check.id.as_str() == "service:ttl").unwrap();
    assert_eq!(status.status.as_str(), "critical");
}

#[tokio::test]
async fn a_disk_that_hangs_fills_the_queue_to_its_limit_and_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { queue_max: 2, commits_waiting_max: 1, ..Limits::default() };
    let (running, disk) = on_disk(&dir, limits).await;
    let server = TestServer { running, dir };
    server.register(json!({ "Name": "web", "Check": { "TTL": "1h", "Status": "passing" } })).await;
    let hanging = disk.hang();
    let http = server.http();
    let put = |number: usize| async move {
        let body = json!({ "ID": format!("i{number}"), "Name": "new" }).to_string();
        request(http, "PUT", "/v1/agent/service/register", &[], &body).await
    };
    let mut clients: JoinSet<_> = (0..8).map(put).collect();
    // At most one is on its way to the disk and two wait: the others are refused, and the disk is not even asked.
    for _ in 0..5 {
        let refused = tokio::time::timeout(PATIENCE, clients.join_next()).await.expect("more than two wait");
        let refused = refused.unwrap().unwrap();
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert!(refused.text().contains("([limits] queue_max)"), "{}", refused.text());
    }
    assert!(server.metric("rollcall_limit_hits_total{limit=\"queue_max\"}").await >= 5.0);
    // Reads and DNS go on.
    assert_eq!(server.get("/v1/health/service/web?passing").await.json().as_array().unwrap().len(), 1);
    assert_eq!(server.ask("web.service.internal.", RecordType::A).await.answers.len(), 1);
    assert_eq!(
        server.get("/v1/catalog/service/new").await.text(),
        "[]",
        "nothing is shown before it is durable"
    );
    drop(hanging);
    let mut taken = 0;
    while let Some(done) = clients.join_next().await {
        taken += usize::from(done.unwrap().status == 200);
    }
    assert!(taken >= 2, "those that waited are stored when the disk comes back");
    assert_eq!(server.get("/v1/catalog/service/new").await.json().as_array().unwrap().len(), taken);
    let TestServer { running, .. } = server;
    running.stop().await;
}

/// `serve` on a data directory that it must refuse; what it says.
fn refused(data: &Path) -> String {
    let words =
        ["serve", "--http", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let output = run(&words);
    assert_eq!(output.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("ready"));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A data directory with some instances in it.
async fn filled() -> tempfile::TempDir {
    let server = TestServer::start().await;
    for number in 0..40 {
        let meta = json!({ "k": "v".repeat(400) });
        server.register(json!({ "ID": format!("i{number}"), "Name": "web", "Meta": meta })).await;
    }
    let TestServer { running, dir } = server;
    running.stop().await;
    dir
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_what_to_do_and_left_as_it_is() {
    let dir = filled().await;
    let data = dir.path().join("data");
    let file = data.join("registry.redb");
    let good = std::fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        bytes
    };
    // A page that holds definitions: somewhere in the octets of a meta value.
    let in_record = good.windows(64).position(|window| window == [b'v'; 64]).unwrap();
    let cases = [
        ("cut", good[..good.len() / 2].to_vec()),
        ("cut to a page", good[..4096].to_vec()),
        ("empty", Vec::new()),
        ("no database", b"this is a letter to my aunt\n".repeat(1000)),
        ("the magic number", flipped(3)),
        ("a record", flipped(in_record)),
    ];
    for (what, bytes) in cases {
        std::fs::write(&file, &bytes).unwrap();
        let said = refused(&data);
        for part in [file.to_str().unwrap(), "is damaged", "Nothing was changed", "rollcall restore"] {
            assert!(said.contains(part), "{what}: {said}");
        }
        assert!(std::fs::read(&file).unwrap() == bytes, "{what}: the file was changed");
    }
    std::fs::write(&file, &good).unwrap();
    let server = Daemon::start(&data, &[]);
    let shown = request(server.http[0], "GET", "/v1/catalog/service/web", &[], "").await.json();
    assert_eq!(shown.as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn a_flip_of_any_one_octet_is_noticed_or_harmless() {
    let dir = filled().await;
    let data = dir.path().join("data");
    let file = data.join("registry.redb");
    let good = std::fs::read(&file).unwrap();
    let config = Config { data_dir: data.clone(), cache_bytes: 1 << 20 };
    let load = || {
        let (log, _entries) = tokio::sync::mpsc::unbounded_channel();
        let store = Embedded::open(&config, log, Arc::new(Metrics::default()))?;
        store.load()
    };
    let records = load().unwrap().records;
    let mut noticed = 0;
    for step in 0..60 {
        let mut bytes = good.clone();
        let at = (step * good.len() / 60 + step * 37) % good.len();
        bytes[at] ^= 1 << (step % 8);
        std::fs::write(&file, &bytes).unwrap();
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(load)) {
            Ok(Ok(loaded)) => assert_eq!(loaded.records, records, "octet {at}: other definitions, unnoticed"),
            Ok(Err(_)) => noticed += 1,
            Err(_) => panic!("octet {at}: a panic instead of an error"),
        }
    }
    assert!(noticed > 0, "no flip was noticed");
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Daemon::start(dir.path(), &[]);
    let said = refused(dir.path());
    assert!(said.contains("is in use by another rollcall") && said.contains("--data-dir"), "{said}");
    assert_eq!(request(first.http[0], "GET", "/ready", &[], "").await.status, 200);
}

#[tokio::test]
async fn a_backup_of_a_running_server_is_restored_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("backup"));
    let (data_text, file_text) = (data.to_str().unwrap(), file.to_str().unwrap());
    let server = Daemon::start(&data, &[]);
    let http = server.http[0];
    let address = http.to_string();
    for number in 0..30 {
        let body = json!({ "ID": format!("i{number}"), "Name": "web", "Check": { "TTL": "1h", "Status": "passing" } });
        request(http, "PUT", "/v1/agent/service/register", &[], &body.to_string()).await;
    }
    let shown = async |http| {
        let mut all = request(http, "GET", "/v1/health/service/web", &[], "").await.json();
        take_indexes(&mut all, &mut Vec::new());
        all
    };
    let before = shown(http).await;
    let done = run(&["backup", file_text, "--server", &address]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    request(http, "PUT", "/v1/agent/service/deregister/i3", &[], "").await;
    // In use, and not even asked for: refused.
    let words = ["restore", file_text, "--data-dir", data_text];
    let in_use = run(&[&words[..], &["--replace"]].concat());
    assert!(String::from_utf8_lossy(&in_use.stderr).contains("stop the server first"), "{in_use:?}");
    server.end(nix::sys::signal::Signal::SIGTERM);
    let kept = std::fs::read(data.join("registry.redb")).unwrap();
    let there = run(&words);
    assert!(String::from_utf8_lossy(&there.stderr).contains("add --replace"), "{there:?}");
    // Cut or altered: refused, and nothing is touched.
    let whole = std::fs::read(&file).unwrap();
    let mut altered = whole.clone();
    let at = whole.windows(2).position(|two| two == b"i7").unwrap();
    altered[at + 1] = b'8';
    for bytes in [&whole[..whole.len() - 40], &whole[..whole.len() / 2], &altered, b"", b"nonsense\n"] {
        let broken = dir.path().join("broken");
        std::fs::write(&broken, bytes).unwrap();
        let refused = run(&["restore", broken.to_str().unwrap(), "--data-dir", data_text, "--replace"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(1) && said.contains("is no whole backup"), "{said}");
        assert!(std::fs::read(data.join("registry.redb")).unwrap() == kept);
    }
    let done = run(&[&words[..], &["--replace"]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let server = Daemon::start(&data, &[]);
    assert_eq!(shown(server.http[0]).await, before, "what was there at the backup, and i3 again");
    drop(server);
    // Into a directory that is not there.
    let fresh = dir.path().join("fresh");
    let done = run(&["restore", file_text, "--data-dir", fresh.to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let server = Daemon::start(&fresh, &[]);
    assert_eq!(shown(server.http[0]).await, before);
}
