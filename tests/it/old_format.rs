//! A registry that was written in the first form of the file: read, kept in use, and marked.

use std::path::Path;

use hickory_proto::rr::RecordType;
use redb::{Database, ReadableDatabase, TableDefinition};
use rollcall::config::Data;
use serde_json::json;

use crate::server::TestServer;

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const STATUSES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("statuses");
const META: TableDefinition<&str, u128> = TableDefinition::new("meta");

/// As rollcall 0.1.0 wrote it before values had a second version.
fn write(file: &Path) {
    let records: [(&str, &str); 6] = [
        (
            "1n7\0",
            r#"{"v":1,"create_index":3,"modify_index":3,"record":{"node":{"name":"N7","address":"10.0.0.7","implied":true}}}"#,
        ),
        (
            "2n7\0web-1",
            r#"{"v":1,"create_index":4,"modify_index":9,"record":{"instance":{"node":"N7","id":"web-1","service":"Web","tags":["a","b"],"meta":{"k":"v"},"port":80,"weights":{"passing":3,"warning":1},"enable_tag_override":false,"origin":"agent"}}}"#,
        ),
        (
            "2n7\0web-2",
            r#"{"v":1,"create_index":5,"modify_index":5,"record":{"instance":{"node":"N7","id":"web-2","service":"Web","tagged_addresses":{"lan_ipv4":{"address":"10.1.1.1","port":0}},"port":81,"weights":{"passing":1,"warning":1},"enable_tag_override":false,"origin":"agent"}}}"#,
        ),
        (
            "3n7\0service:web-1",
            r#"{"v":1,"create_index":6,"modify_index":6,"record":{"check":{"node":"N7","id":"service:web-1","name":"Service 'Web' check","instance":"web-1","kind":{"type":"ttl","ttl":"1h0m0s"},"interval":"0s","timeout":"10s","success_before_passing":0,"failures_before_warning":0,"failures_before_critical":0,"output_max":4096,"initial":"critical","origin":"agent"}}}"#,
        ),
        (
            "3n7\0service:web-2",
            r#"{"v":1,"create_index":6,"modify_index":6,"record":{"check":{"node":"N7","id":"service:web-2","name":"Service 'Web' check","instance":"web-2","kind":{"type":"ttl","ttl":"1h0m0s"},"interval":"0s","timeout":"10s","success_before_passing":0,"failures_before_warning":0,"failures_before_critical":0,"output_max":4096,"initial":"critical","origin":"agent"}}}"#,
        ),
        (
            "4n7\0web-2",
            r#"{"v":1,"create_index":8,"modify_index":8,"record":{"maintenance":{"node":"N7","instance":"web-2","reason":"work"}}}"#,
        ),
    ];
    let database = Database::create(file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(RECORDS).unwrap();
        for (key, value) in records {
            table.insert(key.as_bytes(), value.as_bytes()).unwrap();
        }
        let mut table = transaction.open_table(STATUSES).unwrap();
        for check in ["n7\0service:web-1", "n7\0service:web-2"] {
            let value = r#"{"v":1,"status":"passing","output":"so"}"#;
            table.insert(check.as_bytes(), value.as_bytes()).unwrap();
        }
        let mut table = transaction.open_table(META).unwrap();
        for (key, number) in [("format", 1), ("high_water", 70_000), ("committed", 9), ("node_id", 5)] {
            table.insert(key, number).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn format(file: &Path) -> u128 {
    let table = Database::open(file).unwrap().begin_read().unwrap().open_table(META).unwrap();
    table.get("format").unwrap().unwrap().value()
}

#[tokio::test]
async fn the_first_form_is_read_and_written_on_in_ours() {
    let server = TestServer::with(|config| {
        let Data::Dir(dir) = &config.data else { panic!("{:?}", config.data) };
        std::fs::create_dir(dir).unwrap();
        write(&dir.join("registry.redb"));
    })
    .await;
    let shown = server.get("/v1/health/service/web").await.json();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    let (one, two) = (&shown[0], &shown[1]);
    assert_eq!((&one["Node"]["Node"], &one["Service"]["Service"]), (&json!("N7"), &json!("Web")));
    assert_eq!(
        (&one["Service"]["Tags"], &one["Service"]["Meta"]),
        (&json!(["a", "b"]), &json!({ "k": "v" }))
    );
    assert_eq!((&one["Service"]["CreateIndex"], &one["Service"]["ModifyIndex"]), (&json!(4), &json!(9)));
    assert_eq!((&one["Checks"][0]["Status"], &one["Checks"][0]["Output"]), (&json!("passing"), &json!("so")));
    assert_eq!(two["Checks"][0]["Notes"], "work", "maintenance comes first");
    let answer = server.ask("web.service.internal.", RecordType::A).await;
    assert_eq!(answer.answers.len(), 1);
    // One record in the second form beside those in the first.
    let node = "/v1/agent/service/register?node=n7";
    assert_eq!(server.put(node, json!({ "ID": "web-3", "Name": "web", "Port": 82 })).await.status, 200);
    assert_eq!(server.put("/v1/agent/service/maintenance/web-2?node=n7&enable=false", "").await.status, 200);
    let server = server.restart().await;
    assert_eq!(server.ask("web.service.internal.", RecordType::SRV).await.answers.len(), 3);
    let file = server.dir.path().join("data/registry.redb");
    server.running.stop().await;
    assert_eq!(format(&file), 5, "an older rollcall refuses the file as a whole");
}

/// Sets a number of the file's; takes it away where there is none.
fn set(file: &Path, key: &str, number: Option<u128>) {
    let transaction = Database::open(file).unwrap().begin_write().unwrap();
    {
        let mut table = transaction.open_table(META).unwrap();
        match number {
            Some(number) => drop(table.insert(key, number).unwrap()),
            None => drop(table.remove(key).unwrap()),
        }
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn the_second_form_has_no_journal_and_a_newer_one_is_refused() {
    let server = TestServer::start().await;
    server
        .register(json!({ "Name": "web", "Port": 80, "Check": { "TTL": "1h", "Status": "passing" } }))
        .await;
    let index = server.get("/v1/catalog/services").await.index();
    let TestServer { running, dir } = server;
    running.stop().await;
    let file = dir.path().join("data/registry.redb");
    set(&file, "format", Some(2));
    set(&file, "journal", None);
    std::fs::remove_file(dir.path().join("data/registry.journal")).unwrap();
    let server = TestServer::on(dir).await;
    assert_eq!(server.ask("web.service.internal.", RecordType::SRV).await.answers.len(), 1);
    assert!(server.get("/v1/catalog/services").await.index() >= index);
    let TestServer { running, dir } = server;
    running.stop().await;
    assert_eq!(format(&file), 5, "the version before this one refuses it");
    set(&file, "format", Some(6));
    let config = rollcall::store::Config { data_dir: dir.path().join("data"), cache_bytes: 1 << 20 };
    let (log, _entries) = tokio::sync::mpsc::unbounded_channel();
    let Err(error) = rollcall::store::Embedded::open(&config, log, Default::default()) else {
        panic!("opened")
    };
    let said = error.to_string();
    assert!(
        said.contains("in format 6, this rollcall reads up to 5; start the version that wrote it"),
        "{said}"
    );
}
