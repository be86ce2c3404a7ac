//! The form of an export, and how an import is read.
//!
//! `{"rollcall_export": 1, "datacenter": ..., "index": ..., "records": [...]}`. A record is an object with one of the keys
//! `node`, `instance`, `check`, `maintenance`, `query` and `route`, under which it stands as backups have it; a check has `status` and `output`
//! beside. An import also takes `catalog`: the body of a `PUT /v1/catalog/register`, for what comes from other registries.
//! A node stands before what is on it. The text is read as it comes and is never held as a whole.

use std::fmt;
use std::io::Read;

use arcstr::ArcStr;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Check, Instance, Maintenance, Node, PreparedQuery, Record, Route, Status};

/// The version of the form.
pub(super) const VERSION: u64 = 1;

/// One record of the list.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) record: Record,
    /// Of a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<ArcStr>,
}

impl Line {
    pub(super) fn of(record: Record) -> Self {
        Self { record, status: None, output: None }
    }
}

/// What one record of an import holds.
#[derive(Debug)]
pub(super) enum Entry {
    Line(Line),
    /// A catalog registration, as its own reader takes it.
    Catalog(Value),
}

/// Keys that a record may have: what the model would pass over in silence is a mistake here.
const NODE: &[&str] = &["name", "id", "address", "tagged_addresses", "meta", "implied"];
const INSTANCE: &[&str] = &[
    "node",
    "id",
    "service",
    "tags",
    "address",
    "meta",
    "port",
    "weights",
    "enable_tag_override",
    "origin",
    "kind",
    "tagged_addresses",
    "socket_path",
    "locality",
];
const CHECK: &[&str] = &[
    "node",
    "id",
    "instance",
    "name",
    "notes",
    "kind",
    "interval",
    "timeout",
    "success_before_passing",
    "failures_before_warning",
    "failures_before_critical",
    "damping",
    "deregister_after",
    "output_max",
    "initial",
    "origin",
];
const MAINTENANCE: &[&str] = &["node", "instance", "reason"];
const ROUTE: &[&str] = &[
    "service",
    "version",
    "subsets",
    "strict",
    "from",
    "from_others",
    "over",
    "guard",
    "set",
    "why",
    "past",
];
const QUERY: &[&str] = &["id", "name", "token", "template", "service", "ttl"];

/// Reads a document and gives each record, counted from 1, as it comes: what it holds, or what is wrong with it. Errs where
/// the text is no such document.
pub(super) fn read(
    from: impl Read,
    mut each: impl FnMut(usize, Result<Entry, String>),
) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_reader(std::io::BufReader::new(from));
    Document(&mut each).deserialize(&mut reader).map_err(|e| e.to_string())?;
    reader.end().map_err(|e| e.to_string())
}

struct Document<'a, F>(&'a mut F);

impl<'de, F: FnMut(usize, Result<Entry, String>)> DeserializeSeed<'de> for Document<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(usize, Result<Entry, String>)> Visitor<'de> for Document<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document that begins with \"rollcall_export\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut version, mut records) = (None, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "rollcall_export" => {
                    let found: u64 = map.next_value()?;
                    if found > VERSION {
                        return Err(A::Error::custom(format!(
                            "written by a newer rollcall (form {found}, this one reads {VERSION})"
                        )));
                    }
                    version = Some(found);
                }
                "records" if version.is_none() => {
                    return Err(A::Error::custom("\"rollcall_export\" must stand before \"records\""));
                }
                "records" => {
                    records = true;
                    map.next_value_seed(Records(&mut *self.0))?;
                }
                "datacenter" | "index" => drop(map.next_value::<IgnoredAny>()?),
                other => return Err(A::Error::custom(format!("unknown key {other:?}"))),
            }
        }
        if records { Ok(()) } else { Err(A::Error::custom("\"records\" is missing")) }
    }
}

struct Records<'a, F>(&'a mut F);

impl<'de, F: FnMut(usize, Result<Entry, String>)> DeserializeSeed<'de> for Records<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(usize, Result<Entry, String>)> Visitor<'de> for Records<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut count = 0;
        while let Some(value) = list.next_element::<Value>()? {
            count += 1;
            (self.0)(count, entry(value));
        }
        Ok(())
    }
}

/// One record.
fn entry(value: Value) -> Result<Entry, String> {
    let Value::Object(mut map) = value else { return Err("a record is an object".to_owned()) };
    let status = taken::<Status>(&mut map, "status")?;
    let output = taken::<ArcStr>(&mut map, "output")?;
    let mut kinds = map.into_iter();
    let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else {
        return Err(
            "a record has one of node, instance, check, maintenance, query, route and catalog".to_owned()
        );
    };
    let record = match kind.as_str() {
        "catalog" => return Ok(Entry::Catalog(value)),
        "node" => Record::Node(std::sync::Arc::new(known::<Node>(value, NODE)?)),
        "instance" => Record::Instance(std::sync::Arc::new(known::<Instance>(value, INSTANCE)?)),
        "check" => Record::Check(known::<Check>(value, CHECK)?),
        "maintenance" => Record::Maintenance(known::<Maintenance>(value, MAINTENANCE)?),
        "query" => Record::Query(std::sync::Arc::new(known::<PreparedQuery>(value, QUERY)?)),
        "route" => Record::Route(std::sync::Arc::new(known::<Route>(value, ROUTE)?)),
        other => return Err(format!("unknown kind of record {other:?}")),
    };
    if !matches!(record, Record::Check(_)) && (status.is_some() || output.is_some()) {
        return Err("only a check has status and output".to_owned());
    }
    Ok(Entry::Line(Line { record, status, output }))
}

fn taken<T: for<'de> Deserialize<'de>>(map: &mut Map<String, Value>, key: &str) -> Result<Option<T>, String> {
    let value = map.shift_remove(key).map(serde_json::from_value);
    value.transpose().map_err(|e| format!("{key}: {e}"))
}

/// A record that has no other keys than these.
fn known<T: for<'de> Deserialize<'de>>(value: Value, keys: &[&str]) -> Result<T, String> {
    if let Some(key) = value.as_object().and_then(|map| map.keys().find(|key| !keys.contains(&key.as_str())))
    {
        return Err(format!("unknown key {key:?}"));
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all(text: &str) -> Result<Vec<Result<Value, String>>, String> {
        let mut found = Vec::new();
        read(text.as_bytes(), |number, entry| {
            assert_eq!(number, found.len() + 1);
            found.push(entry.map(|entry| match entry {
                Entry::Line(line) => serde_json::to_value(line).unwrap(),
                Entry::Catalog(value) => json!({ "catalog": value }),
            }));
        })?;
        Ok(found)
    }

    /// Every key that the model can write, so that the lists above have them all.
    fn records() -> Value {
        json!([
            {"node": {"name": "n2", "id": "00000000-0000-0000-0000-000000000007", "address": "10.0.0.2",
                "tagged_addresses": {"wan": "192.0.2.2"}, "meta": {"a": "b"}, "implied": true}},
            {"instance": {"node": "n2", "id": "w1", "service": "Web", "tags": ["v1"], "address": "10.0.0.3",
                "meta": {"k": "v"}, "port": 80, "weights": {"passing": 2, "warning": 1},
                "enable_tag_override": true, "origin": "catalog", "kind": "x",
                "tagged_addresses": {"lan": {"address": "10.0.0.9", "port": 1}}, "socket_path": "/s",
                "locality": {"region": "r", "zone": "z"}}},
            {"check": {"node": "n2", "id": "c1", "instance": "w1", "name": "c", "notes": "n",
                "kind": {"type": "tcp", "address": "10.0.0.3:80", "tls": null}, "interval": "10s", "timeout": "1s",
                "success_before_passing": 1, "failures_before_warning": 1, "failures_before_critical": 2,
                "deregister_after": "1m0s", "output_max": 10, "initial": "critical", "origin": "agent"},
                "status": "passing", "output": "fine"},
            {"maintenance": {"node": "n2", "instance": "w1", "reason": "why"}},
            {"query": {"id": "00000000-0000-0000-0000-000000000009", "name": "q", "token": "t",
                "template": {"regexp": "x", "remove_empty_tags": true},
                "service": {"service": "web", "only_passing": true}, "ttl": "5s"}},
            {"route": {"service": "Web", "version": 2, "subsets": [{"name": "blue", "by": {"tag": "blue"}, "share": 95}],
                "strict": true, "from": [1], "from_others": 3, "over": 5, "guard": {"unhealthy": 20, "watch": 7}, "set": 9, "why": "set",
                "past": [{"version": 1, "subsets": [], "strict": false, "set": 3, "why": "set"}]}},
            {"catalog": {"Node": "n3"}},
        ])
    }

    #[test]
    fn what_is_written_is_read() {
        let records = records();
        let text = json!({ "rollcall_export": 1, "datacenter": "dc1", "index": 7, "records": records });
        let back: Vec<Value> = all(&text.to_string()).unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!(Value::from(back), records);
    }

    #[test]
    fn what_is_no_document_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "EOF"),
            ("[]", "begins with"),
            ("{}", "\"records\" is missing"),
            (r#"{"records":[]}"#, "must stand before"),
            (r#"{"rollcall_export":2,"records":[]}"#, "newer rollcall"),
            (r#"{"rollcall_export":1,"records":[],"more":1}"#, "unknown key \"more\""),
            (r#"{"rollcall_export":1,"records":[{"node":{"#, "EOF"),
            (r#"{"rollcall_export":1,"records":[]} x"#, "trailing"),
        ] {
            let error = all(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_record_that_is_wrong_does_not_hide_the_next() {
        for (record, reason) in [
            ("1", "a record is an object"),
            ("{}", "a record has one of"),
            (r#"{"node":{},"check":{}}"#, "a record has one of"),
            (r#"{"key":{}}"#, "unknown kind of record \"key\""),
            (r#"{"node":{"name":"a","address":"10.0.0.1","adress":""}}"#, "unknown key \"adress\""),
            (r#"{"node":{"name":"","address":"10.0.0.1"}}"#, "node name is empty"),
            (r#"{"node":{"name":"a","address":"0.0.0.0"}}"#, "means every address"),
            (r#"{"node":{"name":"a","address":"10.0.0.1"},"status":"passing"}"#, "only a check has status"),
            (r#"{"check":{},"status":"fine"}"#, "status: unknown variant"),
        ] {
            let text = format!(
                r#"{{"rollcall_export":1,"records":[{record},{{"node":{{"name":"b","address":"10.0.0.1"}}}}]}}"#
            );
            let found = all(&text).unwrap();
            assert!(found[0].as_ref().unwrap_err().contains(reason), "{record}: {:?}", found[0]);
            assert!(found[1].is_ok(), "{:?}", found[1]);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = read(&*octets, |_, _| {});
        }
    }
}
