//! Request bodies, read as Go's `encoding/json` reads them for Consul.
//!
//! Keys match without regard to case, unknown ones are errors, `null` is absence, of two equal keys
//! the last counts. A [`Shape`] lists what a body may hold; the body is brought into that shape
//! and then given to serde. The Content-Type is not looked at: curl and old clients send others.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::error::Error;

/// What an object may hold.
pub(super) struct Shape {
    /// Canonical keys and what stands under them.
    pub(super) fields: &'static [(&'static str, Kind)],
    /// Other spellings that are taken: spelling, canonical key.
    pub(super) aliases: &'static [(&'static str, &'static str)],
    /// Unknown keys are passed over instead of refused.
    pub(super) lax: bool,
}

/// What stands under a key.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Anything that serde then takes or refuses; the keys of objects in it are the client's own.
    Plain,
    Object(&'static Shape),
    List(&'static Shape),
    /// An object with the client's own keys, whose values have the shape.
    Map(&'static Shape),
}

/// Decodes a body.
pub(super) fn decode<T: DeserializeOwned>(shape: &'static Shape, body: &[u8]) -> Result<T, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::bad(format!("Request decode failed: {e}"));
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(failed(&"EOF"));
    }
    decode_value(shape, serde_json::from_slice(body).map_err(|e| failed(&e))?)
}

/// The same of a body that is a part of another.
pub(super) fn decode_value<T: DeserializeOwned>(shape: &'static Shape, value: Value) -> Result<T, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::bad(format!("Request decode failed: {e}"));
    let value = shaped(value, Kind::Object(shape)).map_err(|e| failed(&e))?;
    serde_json::from_value(value).map_err(|e| failed(&format!("json: {e}")))
}

/// Decodes a table of a configuration file: the same shapes, with keys in snake_case.
pub(super) fn decode_snake<T: DeserializeOwned>(shape: &'static Shape, value: Value) -> Result<T, String> {
    let value = shaped(camel(value, shape), Kind::Object(shape))?;
    serde_json::from_value(value).map_err(|e| e.to_string())
}

/// Spells the keys that a shape knows as the shape does; the client's own stay.
fn camel(value: Value, shape: &'static Shape) -> Value {
    let Value::Object(object) = value else { return value };
    let spelt = object.into_iter().map(|(key, value)| {
        let bare: String = key.chars().filter(|c| *c != '_').collect();
        let known = shape.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(&bare));
        let Some((field, kind)) = known else { return (key, value) };
        let value = match (kind, value) {
            (Kind::Object(inner), value) => camel(value, inner),
            (Kind::List(inner), Value::Array(items)) => {
                items.into_iter().map(|item| camel(item, inner)).collect()
            }
            (Kind::Map(inner), Value::Object(map)) => {
                Value::Object(map.into_iter().map(|(key, value)| (key, camel(value, inner))).collect())
            }
            (_, value) => value,
        };
        ((*field).to_owned(), value)
    });
    Value::Object(spelt.collect())
}

fn shaped(value: Value, kind: Kind) -> Result<Value, String> {
    match (kind, value) {
        (Kind::Object(shape), Value::Object(object)) => object_shaped(shape, object),
        (Kind::List(shape), Value::Array(items)) => {
            let items = items.into_iter().filter(|item| !item.is_null());
            items.map(|item| shaped(item, Kind::Object(shape))).collect()
        }
        (Kind::Map(shape), Value::Object(object)) => {
            let mut map = Map::new();
            for (key, value) in object {
                map.insert(key, shaped(value, Kind::Object(shape))?);
            }
            Ok(Value::Object(map))
        }
        (Kind::Plain, value) => Ok(value),
        (kind, value) => {
            let wanted = if matches!(kind, Kind::List(_)) { "an array" } else { "an object" };
            Err(format!("json: cannot unmarshal {} where {wanted} is expected", type_of(&value)))
        }
    }
}

fn object_shaped(shape: &'static Shape, object: Map<String, Value>) -> Result<Value, String> {
    let mut map = Map::new();
    for (key, value) in object {
        let Some((canonical, kind)) = find(shape, &key) else {
            if shape.lax {
                continue;
            }
            return Err(unknown(&key));
        };
        if value.is_null() {
            continue;
        }
        map.insert(canonical.to_owned(), shaped(value, kind).map_err(|e| format!("{e} ({canonical})"))?);
    }
    Ok(Value::Object(map))
}

fn find(shape: &'static Shape, key: &str) -> Option<(&'static str, Kind)> {
    let alias = shape.aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(key));
    let key = alias.map_or(key, |(_, canonical)| canonical);
    shape.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(key)).copied()
}

fn unknown(key: &str) -> String {
    let what = match key.to_ascii_lowercase().as_str() {
        "namespace" => " - Namespaces are a Consul Enterprise feature",
        "partition" => " - Partitions are a Consul Enterprise feature",
        _ => "",
    };
    format!("json: unknown field {key:?}{what}")
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A duration as Consul takes it: Go's string, or a number of nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GoDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either<'a> {
            Nanos(i64),
            Text(#[serde(borrow)] Cow<'a, str>),
        }
        match Either::deserialize(deserializer) {
            Ok(Either::Nanos(nanos)) => u64::try_from(nanos)
                .map(|nanos| Self(Duration::from_nanos(nanos)))
                .map_err(|_| D::Error::custom(format!("duration {nanos} is negative"))),
            Ok(Either::Text(text)) => {
                crate::model::duration::parse(&text).map(Self).map_err(D::Error::custom)
            }
            Err(_) => {
                Err(D::Error::custom("a duration is a string such as \"10s\" or a number of nanoseconds"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Sample {
        name: String,
        port: i64,
        wait: Option<GoDuration>,
        check: Option<Box<Sample>>,
        checks: Vec<Sample>,
    }
    static SAMPLE: Shape = Shape {
        fields: &[
            ("Name", Kind::Plain),
            ("Port", Kind::Plain),
            ("Wait", Kind::Plain),
            ("Check", Kind::Object(&SAMPLE)),
            ("Checks", Kind::List(&SAMPLE)),
        ],
        aliases: &[("the_name", "Name")],
        lax: false,
    };

    fn sample(body: &str) -> Result<Sample, Error> {
        decode(&SAMPLE, body.as_bytes())
    }

    #[test]
    fn keys_fold_case_nulls_are_absent_the_last_of_two_counts() {
        let read =
            sample(r#"{"NAME":"a","name":"b","port":null,"wait":"1s","check":{"the_name":"c"}}"#).unwrap();
        assert_eq!((read.name.as_str(), read.port), ("b", 0));
        assert_eq!(read.wait, Some(GoDuration(Duration::from_secs(1))));
        assert_eq!(read.check.unwrap().name, "c");
        assert_eq!(
            sample(r#"{"Wait":1500000000}"#).unwrap().wait,
            Some(GoDuration(Duration::from_millis(1500)))
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let deep = "[".repeat(200);
        for (body, text) in [
            ("", "EOF"),
            ("{", "EOF while parsing"),
            (r#"{"Foo":1}"#, r#"json: unknown field "Foo""#),
            (r#"{"Check":{"Foo":1}}"#, r#"json: unknown field "Foo""#),
            (r#"{"Namespace":"x"}"#, "Namespaces are a Consul Enterprise feature"),
            (r#"{"Name":1}"#, "invalid type: integer `1`"),
            (r#"{"Port":"80"}"#, "invalid type: string"),
            (r#"{"Checks":{}}"#, "cannot unmarshal object where an array is expected (Checks)"),
            (r#"{"Wait":"30"}"#, "missing unit in duration"),
            (r#"{"Wait":"-1s"}"#, "negative"),
            (r#"{"Wait":-1}"#, "negative"),
            (r#"{"Wait":true}"#, "a duration is a string"),
            (r#"{"Name":"a"} x"#, "trailing characters"),
            ("[]", "cannot unmarshal array"),
            (&deep, "recursion limit"),
        ] {
            let error = sample(body).unwrap_err();
            assert!(
                error.text.starts_with("Request decode failed: ") && error.text.contains(text),
                "{error:?}"
            );
        }
    }
}
