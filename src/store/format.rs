//! The stored form: keys as bytes that sort as [`Key`] does, values as JSON with a version.
//!
//! A value is `{"v":1,"create_index":…,"modify_index":…,"record":{…}}`. A field that this version does
//! not know is ignored where its absence is harmless and so never changes what a known one means; a
//! change of meaning raises `v`, and a higher `v` than ours is an error, never a guess.

use std::sync::Arc;

use redb::TableDefinition;
use serde::{Deserialize, Serialize};

use super::{StoreError, Stored, StoredStatus};
use crate::model::{CheckId, CheckKey, InstanceId, Key, NodeName, Record, Status};

/// The tables of the file.
pub(super) const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
pub(super) const STATUSES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("statuses");
pub(super) const META: TableDefinition<&str, u128> = TableDefinition::new("meta");
/// Keys of META: the highest index that may have been published, the index of the last commit, the node's
/// UUID, and the version of the file.
pub(super) const HIGH_WATER: &str = "high_water";
pub(super) const COMMITTED: &str = "committed";
pub(super) const NODE_ID: &str = "node_id";
pub(super) const FORMAT: &str = "format";

/// The version of values that is written, and the highest that is read.
pub(super) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Value {
    v: u32,
    create_index: u64,
    modify_index: u64,
    record: Record,
}

#[derive(Serialize, Deserialize)]
struct StatusValue {
    v: u32,
    status: Status,
    output: Arc<str>,
}

/// The key's bytes: kind, node in lower case, NUL, id. Names hold no control characters.
pub(super) fn key(key: &Key) -> Vec<u8> {
    let (kind, node, id) = match key {
        Key::Node(node) => (b'1', node, ""),
        Key::Instance(node, id) => (b'2', node, id.as_str()),
        Key::Check(node, id) => (b'3', node, id.as_str()),
        Key::Maintenance(node, id) => (b'4', node, id.as_ref().map_or("", InstanceId::as_str)),
    };
    joined(Some(kind), node, id)
}

/// The bytes under which a check's status stands.
pub(super) fn status_key(check: &CheckKey) -> Vec<u8> {
    joined(None, &check.node, check.id.as_str())
}

fn joined(kind: Option<u8>, node: &NodeName, id: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = kind.into_iter().collect();
    bytes.extend_from_slice(node.folded().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(id.as_bytes());
    bytes
}

/// A record as JSON.
pub(super) fn encode(stored: &Stored) -> Vec<u8> {
    let Stored { record, create_index, modify_index } = stored.clone();
    let value = Value { v: VERSION, create_index, modify_index, record };
    serde_json::to_vec(&value).unwrap_or_default()
}

/// A record from JSON; `at` names it in errors.
pub(super) fn decode(at: &[u8], bytes: &[u8]) -> Result<Stored, StoreError> {
    check_version(at, bytes)?;
    let Value { record, create_index, modify_index, .. } = parse(at, bytes)?;
    Ok(Stored { record, create_index, modify_index })
}

/// A status as JSON.
pub(super) fn encode_status(status: Status, output: &Arc<str>) -> Vec<u8> {
    let value = StatusValue { v: VERSION, status, output: output.clone() };
    serde_json::to_vec(&value).unwrap_or_default()
}

/// A status from its key's bytes and JSON.
pub(super) fn decode_status(key: &[u8], bytes: &[u8]) -> Result<StoredStatus, StoreError> {
    check_version(key, bytes)?;
    let StatusValue { status, output, .. } = parse(key, bytes)?;
    let text = String::from_utf8_lossy(key);
    let (node, id) = text.split_once('\0').ok_or_else(|| damaged(key, "its key has no two parts"))?;
    let node = NodeName::parse(node).map_err(|e| damaged(key, e))?;
    let id = CheckId::parse(id).map_err(|e| damaged(key, e))?;
    Ok(StoredStatus { check: CheckKey { node, id }, status, output })
}

/// Looked at first: a newer version may not parse as ours.
fn check_version(at: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } = parse(at, bytes)?;
    if v > VERSION {
        let at = String::from_utf8_lossy(at).replace('\0', "/");
        return Err(StoreError::new(format!(
            "entry {at:?} was written by a newer rollcall (format {v}, this one reads up to {VERSION}); \
             start that version again, or restore a backup made by this one"
        )));
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(at: &[u8], bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| damaged(at, e))
}

fn damaged(at: &[u8], why: impl std::fmt::Display) -> StoreError {
    let at = String::from_utf8_lossy(at).replace('\0', "/");
    StoreError::new(format!("entry {at:?} is damaged: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by version 1 and read for ever: a change here needs a new version.
    const GOLDEN: [&str; 4] = [
        r#"{"v":1,"create_index":3,"modify_index":7,"record":{"node":{"name":"N1","address":"10.0.0.1","meta":{"rack":"a"}}}}"#,
        r#"{"v":1,"create_index":3,"modify_index":7,"record":{"instance":{"node":"N1","id":"web-1","service":"Web","tags":["v1"],"address":"db.example.com","port":80,"weights":{"passing":10,"warning":1},"enable_tag_override":false,"origin":"agent"}}}"#,
        r#"{"v":1,"create_index":3,"modify_index":7,"record":{"check":{"node":"N1","id":"service:web-1","name":"c","instance":"web-1","kind":{"type":"http","url":"http://h/","method":"GET","follow_redirects":true,"tls":{"skip_verify":false}},"interval":"10s","timeout":"5s","success_before_passing":0,"failures_before_warning":0,"failures_before_critical":2,"deregister_after":"1m0s","output_max":4096,"initial":"critical","origin":"agent"}}}"#,
        r#"{"v":1,"create_index":3,"modify_index":7,"record":{"maintenance":{"node":"N1","instance":"web-1","reason":"x"}}}"#,
    ];

    #[test]
    fn what_version_1_wrote_is_read_and_written_the_same() {
        for golden in GOLDEN {
            let stored = decode(b"x", golden.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(encode(&stored)).unwrap(), golden);
        }
    }

    #[test]
    fn keys_sort_nodes_first_and_fold_the_node() {
        let keys: Vec<_> =
            GOLDEN.iter().map(|golden| key(&decode(b"x", golden.as_bytes()).unwrap().record.key())).collect();
        assert!(keys.is_sorted());
        assert_eq!(keys[1], b"2n1\0web-1");
    }

    #[test]
    fn a_newer_version_and_damage_are_errors_that_name_the_entry() {
        let newer = decode(b"2n1\0a", br#"{"v":2,"other":true}"#).unwrap_err().to_string();
        assert!(newer.contains("\"2n1/a\"") && newer.contains("newer"), "{newer}");
        assert!(decode(b"2n1\0a", b"{").unwrap_err().to_string().contains("damaged"));
        assert!(decode_status(b"no-nul", br#"{"v":1,"status":"passing","output":""}"#).is_err());
    }

    #[test]
    fn statuses_come_back() {
        let check = CheckKey { node: NodeName::parse("n1").unwrap(), id: CheckId::parse("c").unwrap() };
        let bytes = encode_status(Status::Warning, &"so".into());
        let back = decode_status(&status_key(&check), &bytes).unwrap();
        assert_eq!(back, StoredStatus { check, status: Status::Warning, output: "so".into() });
    }
}
