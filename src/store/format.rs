//! The stored form: keys as bytes that sort as [`Key`] does, values with a version.
//!
//! What is written is version 2 ([`compact`]): its octet comes first. Version 1 is read for ever: JSON,
//! `{"v":1,"create_index":…,"modify_index":…,"record":{…}}`, in which a field that is not known is ignored. Whatever
//! changes a meaning or, in version 2, the fields, raises the version, and a higher one than ours is an error, never a
//! guess. The version of the file ([`FORMAT`]) is above that of its values since a journal stands beside it.

use redb::TableDefinition;
use serde::Deserialize;

use arcstr::ArcStr;

use super::compact::{self, Reader};
use super::{StoreError, Stored, StoredStatus};
use crate::model::{CheckKey, InstanceId, Key, Record, Status};

/// The tables of the file.
pub(super) const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
pub(super) const STATUSES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("statuses");
pub(super) const META: TableDefinition<&str, u128> = TableDefinition::new("meta");
/// Keys of META: the highest index that may have been published, the index of the last commit, the node's
/// UUID, the version of the file, and what tells our journal from another database's.
pub(super) const HIGH_WATER: &str = "high_water";
pub(super) const COMMITTED: &str = "committed";
pub(super) const NODE_ID: &str = "node_id";
pub(super) const FORMAT: &str = "format";
pub(super) const JOURNAL: &str = "journal";
/// Of an encrypted file: what its keys are derived with, and what names the operator's key.
pub(super) const SALT: &str = "salt";
pub(super) const KEY_CHECK: &str = "key_check";

/// The version of values that is written.
pub(super) const VERSION: u32 = 2;
/// That of a node which has a place: version 2 with the place behind it.
pub(super) const PLACED: u32 = 3;
/// That of a check with damping of its own: version 2 with that behind it. The highest that is read.
pub(super) const DAMPED: u32 = 4;
/// What is added to that of an encrypted file ([`seal`](super::seal)): who knows of no encryption refuses it as too new.
pub(super) const SEALED: u128 = 100;
/// The version of the file: 3 since its last changes may be in a journal alone, 4 since it may hold records of kinds that are on
/// no node ([`APART`]), 5 since there are routes among those: an older rollcall would pass over them.
pub(super) const FILE: u32 = 5;
/// What keys of prepared queries begin with.
pub(super) const QUERY: u8 = b'5';
/// What keys of access control begin with.
pub(super) const ACL: u8 = b'6';
/// What keys of routes begin with.
pub(super) const ROUTE: u8 = b'7';
/// The kinds of records that are on no node.
pub(super) const APART: [u8; 3] = [QUERY, ACL, ROUTE];
/// The first octet of a value of version 1.
const JSON: u8 = b'{';

#[derive(Deserialize)]
struct Value {
    create_index: u64,
    modify_index: u64,
    record: Record,
}

#[derive(Deserialize)]
struct StatusValue {
    status: Status,
    output: ArcStr,
}

/// The key's bytes: kind, node in lower case, NUL, id; of what is on no node, its own name stands for a node's. Names hold no
/// control characters.
pub(super) fn key(key: &Key) -> Vec<u8> {
    let (kind, node, id) = match key {
        Key::Node(node) => (b'1', node, ""),
        Key::Instance(node, id) => (b'2', node, id.as_str()),
        Key::Check(node, id) => (b'3', node, id.as_str()),
        Key::Maintenance(node, id) => (b'4', node, id.as_ref().map_or("", InstanceId::as_str)),
        Key::Query(id) => return joined(Some(QUERY), &id.to_string(), ""),
        Key::Route(service) => return joined(Some(ROUTE), service.folded(), ""),
        Key::Acl(key) => return joined(Some(ACL), key.kind.word(), &key.id),
    };
    joined(Some(kind), node.folded(), id)
}

/// The bytes under which a check's status stands.
pub(super) fn status_key(check: &CheckKey) -> Vec<u8> {
    joined(None, check.node.folded(), check.id.as_str())
}

fn joined(kind: Option<u8>, node: &str, id: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = kind.into_iter().collect();
    bytes.extend_from_slice(node.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(id.as_bytes());
    bytes
}

/// A record as it is stored. Nothing of ours is ever too large or of a kind that cannot be written.
pub(super) fn encode(stored: &Stored) -> Vec<u8> {
    compact::encode(stored).unwrap_or_default()
}

/// A status as it is stored.
pub(super) fn encode_status(status: Status, output: &str) -> Vec<u8> {
    compact::encode_status(status, output)
}

impl Reader {
    /// A record from its key's bytes and its value's.
    pub(super) fn record(&mut self, key: &[u8], bytes: &[u8]) -> Result<Stored, StoreError> {
        let Some(rest) = compact_part(key, bytes)? else {
            let Value { record, create_index, modify_index } = json(key, bytes)?;
            let record = self.shared(record).map_err(|e| damaged(key, e))?;
            return Ok(Stored { record, create_index, modify_index });
        };
        let (kind, names) = key.split_first().ok_or_else(|| damaged(key, "its key is empty"))?;
        let (node, id) = halves(key, names)?;
        self.decode(*kind, node, id, rest).map_err(|e| damaged(key, e))
    }

    /// A status from its key's bytes and its value's.
    pub(super) fn status(&mut self, key: &[u8], bytes: &[u8]) -> Result<StoredStatus, StoreError> {
        let (status, output) = match compact_part(key, bytes)? {
            Some(rest) => compact::decode_status(rest).map_err(|e| damaged(key, e))?,
            None => {
                let StatusValue { status, output } = json(key, bytes)?;
                (status, output)
            }
        };
        let (node, id) = halves(key, key)?;
        let check = self.check_key(node, id).map_err(|e| damaged(key, e))?;
        Ok(StoredStatus { check, status, output })
    }
}

/// The index at which a record was made.
pub(super) fn create_index(key: &[u8], bytes: &[u8]) -> Result<u64, StoreError> {
    match compact_part(key, bytes)? {
        Some(rest) => compact::create_index(rest).map_err(|e| damaged(key, e)),
        None => json::<Value>(key, bytes).map(|value| value.create_index),
    }
}

/// What stands behind the octet of version 2; nothing where the value is of version 1. Errs for versions above ours.
fn compact_part<'a>(at: &[u8], bytes: &'a [u8]) -> Result<Option<&'a [u8]>, StoreError> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let (v, rest) = match bytes.split_first() {
        None => return Err(damaged(at, "it is empty")),
        // Looked at first: a newer version may not parse as ours.
        Some((&JSON, _)) => (json::<Version>(at, bytes)?.v, None),
        Some((v, rest)) => (u32::from(*v), Some(rest)),
    };
    if v > DAMPED {
        let at = String::from_utf8_lossy(at).replace('\0', "/");
        return Err(StoreError::new(format!(
            "entry {at:?} was written by a newer rollcall (format {v}, this one reads up to {DAMPED}); \
             start that version again, or restore a backup made by this one"
        )));
    }
    Ok(rest)
}

/// A key's node and id.
fn halves<'a>(at: &[u8], names: &'a [u8]) -> Result<(&'a str, &'a str), StoreError> {
    let text = std::str::from_utf8(names).map_err(|e| damaged(at, e))?;
    text.split_once('\0').ok_or_else(|| damaged(at, "its key has no two parts"))
}

fn json<'a, T: Deserialize<'a>>(at: &[u8], bytes: &'a [u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|e| damaged(at, e))
}

fn damaged(at: &[u8], why: impl std::fmt::Display) -> StoreError {
    let at = String::from_utf8_lossy(at).replace('\0', "/");
    StoreError::new(format!("entry {at:?} is damaged: {why}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Check, CheckId, CheckKind, Damping, NodeName, Origin, ProbeTls, Terms};

    /// Written by version 1 and read for ever.
    const GOLDEN_1: [&str; 4] = [
        r#"{"v":1,"create_index":3,"modify_index":7,"record":{"node":{"name":"N1","address":"10.0.0.1","meta":{"rack":"a"}}}}"#,
        r#"{"v":1,"create_index":3,"modify_index":7,"record":{"instance":{"node":"N1","id":"web-1","service":"Web","tags":["v1"],"address":"db.example.com","port":80,"weights":{"passing":10,"warning":1},"enable_tag_override":false,"origin":"agent"}}}"#,
        r#"{"v":1,"create_index":3,"modify_index":7,"record":{"check":{"node":"N1","id":"service:web-1","name":"c","instance":"web-1","kind":{"type":"http","url":"http://h/","method":"GET","follow_redirects":true,"tls":{"skip_verify":false}},"interval":"10s","timeout":"5s","success_before_passing":0,"failures_before_warning":0,"failures_before_critical":2,"deregister_after":"1m0s","output_max":4096,"initial":"critical","origin":"agent"}}}"#,
        r#"{"v":1,"create_index":3,"modify_index":7,"record":{"maintenance":{"node":"N1","instance":"web-1","reason":"x"}}}"#,
    ];

    /// The keys under which they stand.
    const KEYS: [&[u8]; 4] = [b"1n1\0", b"2n1\0web-1", b"3n1\0service:web-1", b"4n1\0web-1"];

    /// The same in version 2, read for ever: a change here needs a new version.
    const GOLDEN_2: [&str; 4] = [
        "02030701024e310000000a0000010007047261636b016100",
        "02030701024e310357656201010e64622e6578616d706c652e636f6d500a010000030276310000",
        "02030701024e3101057765622d310163000209687474703a2f2f682f0347455400000100000a000500000002013c0080200200",
        "02030701024e310178",
    ];

    fn read(key: &[u8], value: &[u8]) -> Result<Stored, StoreError> {
        Reader::default().record(key, value)
    }

    fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    #[test]
    fn what_version_1_wrote_is_read() {
        for (value, at) in GOLDEN_1.iter().zip(KEYS) {
            let stored = read(at, value.as_bytes()).unwrap();
            assert_eq!(
                (key(&stored.record.key()), stored.create_index, stored.modify_index),
                (at.to_vec(), 3, 7)
            );
            let json =
                serde_json::json!({ "v": 1, "create_index": 3, "modify_index": 7, "record": stored.record });
            assert_eq!(json, serde_json::from_str::<serde_json::Value>(value).unwrap());
            assert_eq!(create_index(at, value.as_bytes()).unwrap(), 3);
        }
    }

    #[test]
    fn version_2_is_written_and_read() {
        for ((old, new), at) in GOLDEN_1.iter().zip(GOLDEN_2).zip(KEYS) {
            let stored = read(at, old.as_bytes()).unwrap();
            let bytes = encode(&stored);
            assert_eq!(hex(&bytes), new);
            assert_eq!(read(at, &bytes).unwrap(), stored);
            assert_eq!(create_index(at, &bytes).unwrap(), 3);
        }
    }

    /// Every kind of check, every field with a value of its own, and nothing at all.
    #[test]
    fn all_that_can_be_stored_comes_back() {
        let tls = || Some(ProbeTls { skip_verify: true, server_name: "db".into() });
        let node = NodeName::parse("n1").unwrap();
        let id = InstanceId::parse("web-1").unwrap();
        let header = [("X".to_owned(), vec!["1".to_owned(), String::new()])].into();
        let kinds = [
            CheckKind::Http {
                url: "https://h/".into(),
                method: "PUT".into(),
                header,
                body: "b".into(),
                follow_redirects: true,
                tls: tls().unwrap_or_default(),
            },
            CheckKind::Tcp { address: "h:1".into(), tls: tls() },
            CheckKind::Tcp { address: "h:1".into(), tls: None },
            CheckKind::Udp { address: "h:2".into() },
            CheckKind::Grpc { address: "h:3".into(), service: "s".into(), tls: tls() },
            CheckKind::H2Ping { address: "h:4".into(), tls: None },
            CheckKind::Ttl { ttl: Duration::from_millis(1_500) },
            CheckKind::Alias { node: node.clone(), instance: Some(id.clone()) },
            CheckKind::Alias { node: node.clone(), instance: None },
            CheckKind::Script { args: vec!["/bin/true".into(), String::new()] },
            CheckKind::External,
        ];
        let terms = |kind| Terms {
            name: "a".into(),
            notes: "b".into(),
            kind,
            interval: Duration::from_nanos(5),
            timeout: Duration::from_secs(6),
            success_before_passing: 7,
            failures_before_warning: 8,
            failures_before_critical: 9,
            damping: None,
            deregister_after: Some(Duration::from_secs(10)),
            output_max: 11,
            initial: Status::Warning,
            origin: Origin::Catalog,
        };
        let check = |kind| {
            Record::Check(Check {
                node: node.clone(),
                id: CheckId::parse("c").unwrap(),
                instance: Some(id.clone()),
                terms: terms(kind).into(),
            })
        };
        let full: Record = serde_json::from_str(
            r#"{"instance":{"node":"N1","id":"web-1","service":"Web","kind":"connect-proxy","tags":["a","","b"],"address":"fd00::1","tagged_addresses":{"lan":{"address":"10.0.0.1","port":1}},"meta":{"k":"v","l":""},"port":80,"socket_path":"/s","weights":{"passing":2,"warning":3},"enable_tag_override":true,"locality":{"region":"r","zone":"z"},"origin":"catalog"}}"#,
        )
        .unwrap();
        let node: Record = serde_json::from_str(
            r#"{"node":{"name":"N1","id":"01020304-0506-0708-090a-0b0c0d0e0f10","address":"h.example","tagged_addresses":{"wan":"10.0.0.2"},"locality":{"region":"eu","zone":""},"implied":true}}"#,
        )
        .unwrap();
        let maintenance: Record =
            serde_json::from_str(r#"{"maintenance":{"node":"n1","reason":""}}"#).unwrap();
        let acl: Record = serde_json::from_str(
            r#"{"acl":{"token":{"accessor":"01020304-0506-0708-090a-0b0c0d0e0f10","secret":"s","grants":{"services":[{"name":"web"}]},"expires":5,"created":1}}}"#,
        )
        .unwrap();
        let route: Record = serde_json::from_str(
            r#"{"route":{"service":"Web","version":2,"subsets":[{"name":"blue","by":{"tag":"Blue"},"share":1},{"by":{"meta":{"key":"k","value":"v"}},"share":0}],"strict":true,"from":[1,2],"over":5,"guard":{"unhealthy":20,"watch":7},"set":9,"why":"set","past":[{"version":1,"set":1,"why":"set"}]}}"#,
        )
        .unwrap();
        let query: Record = serde_json::from_str(
            r#"{"query":{"id":"01020304-0506-0708-090a-0b0c0d0e0f10","name":"Q.a","token":"t","template":{"regexp":"^(.)","remove_empty_tags":true},"service":{"service":"${match(1)}","failover":{"nearest":1,"datacenters":["a"],"targets":[{"peer":"p","datacenter":"d"}]},"only_passing":true,"ignore_checks":["c"],"near":"_ip","tags":["!a"],"node_meta":{"k":"v"},"service_meta":{"m":"w"}},"ttl":"5s"}}"#,
        )
        .unwrap();
        let mut reader = Reader::default();
        let damped = match check(CheckKind::External) {
            Record::Check(check) => Record::Check(check.with(|terms| {
                let steady = Some(Duration::from_secs(3));
                terms.damping = Some(Box::new(Damping { max: Some(2), leak: None, steady }));
            })),
            other => other,
        };
        let others = [full, node, maintenance, query, acl, damped, route];
        for record in kinds.map(check).into_iter().chain(others) {
            let stored = Stored { record, create_index: u64::MAX, modify_index: 0 };
            let at = key(&stored.record.key());
            assert_eq!(reader.record(&at, &encode(&stored)).unwrap(), stored);
        }
    }

    #[test]
    fn what_is_the_same_is_shared() {
        let mut reader = Reader::default();
        let mut terms = |id: &str| {
            let check = read(KEYS[2], GOLDEN_1[2].as_bytes()).unwrap();
            let key = [b"3n1\0", id.as_bytes()].concat();
            match reader.record(&key, &encode(&check)).unwrap().record {
                Record::Check(check) => check.terms,
                other => panic!("{other:?}"),
            }
        };
        assert!(std::sync::Arc::ptr_eq(&terms("a"), &terms("b")));
    }

    #[test]
    fn keys_sort_nodes_first_and_fold_the_node() {
        let keys: Vec<_> =
            GOLDEN_1.iter().map(|golden| key(&read(b"1", golden.as_bytes()).unwrap().record.key())).collect();
        assert!(keys.is_sorted() && keys == KEYS);
    }

    #[test]
    fn a_newer_version_and_damage_are_errors_that_name_the_entry() {
        for newer in [br#"{"v":5,"other":true}"#.as_slice(), &[5, 0, 0]] {
            let newer = read(b"2n1\0a", newer).unwrap_err().to_string();
            assert!(newer.contains("\"2n1/a\"") && newer.contains("newer"), "{newer}");
        }
        let whole = encode(&read(KEYS[1], GOLDEN_1[1].as_bytes()).unwrap());
        for cut in 0..whole.len() {
            let error = read(KEYS[1], &whole[..cut]).unwrap_err().to_string();
            assert!(error.contains("damaged"), "{error}");
        }
        assert!(read(b"2n1\0a", b"{").unwrap_err().to_string().contains("damaged"));
        let status = |key: &[u8], value: &[u8]| Reader::default().status(key, value);
        assert!(status(b"no-nul", br#"{"v":1,"status":"passing","output":""}"#).is_err());
        assert!(status(b"n\0c", &[2]).is_err() && status(b"n\0c", &[2, 9]).is_err());
    }

    #[test]
    fn statuses_come_back() {
        let check = CheckKey { node: NodeName::parse("n1").unwrap(), id: CheckId::parse("c").unwrap() };
        let bytes = encode_status(Status::Warning, "so");
        assert_eq!(bytes, [2, 1, b's', b'o']);
        for bytes in [&bytes[..], br#"{"v":1,"status":"warning","output":"so"}"#] {
            let back = Reader::default().status(&status_key(&check), bytes).unwrap();
            assert_eq!(
                back,
                StoredStatus { check: check.clone(), status: Status::Warning, output: "so".into() }
            );
        }
    }
}
