//! Request bodies, read as Go's `encoding/json` reads them for Consul.
//!
//! Keys match without regard to case, unknown ones are errors, `null` is absence, of two equal keys
//! the last counts. A [`Shape`] lists what a body may hold; the body is read in that shape and given to serde piece by piece. The Content-Type is not looked at: curl and old clients send others.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::Value;
use serde_json::value::RawValue;
use smallvec::SmallVec;

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
    // Syntax is judged once, for the whole.
    let raw: &RawValue = serde_json::from_slice(body).map_err(|e| failed(&e))?;
    shaped(shape, raw).map_err(|e| failed(&e))
}

/// Decodes a table of a configuration file: the same shapes, with keys in snake_case.
pub(super) fn decode_snake<T: DeserializeOwned>(shape: &'static Shape, value: Value) -> Result<T, String> {
    let raw = serde_json::value::to_raw_value(&camel(value, shape)).map_err(|e| e.to_string())?;
    shaped(shape, &raw).map_err(|e| e.to_string())
}

fn shaped<T: DeserializeOwned>(shape: &'static Shape, raw: &RawValue) -> serde_json::Result<T> {
    T::deserialize(Shaped { kind: Kind::Object(shape), text: raw.get() }).map_err(|e| match e.to_string() {
        text if text.starts_with("json: ") => e,
        text => serde_json::Error::custom(format!("json: {text}")),
    })
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

/// JSON text that is read as the shape has it: what its objects hold is found first, and then given to serde under canonical
/// keys, so that there is no tree in between.
struct Shaped<'de> {
    kind: Kind,
    text: &'de str,
}

impl<'de> Shaped<'de> {
    fn unexpected(&self, wanted: &str) -> serde_json::Error {
        let given = type_of(self.text);
        serde_json::Error::custom(format!("json: cannot unmarshal {given} where {wanted} is expected"))
    }

    /// Where in its own text something is wrong would mislead.
    fn plain<T>(read: serde_json::Result<T>) -> serde_json::Result<T> {
        read.map_err(|e| {
            let text = e.to_string();
            serde_json::Error::custom(text.rsplit_once(" at line ").map_or(text.as_str(), |(bare, _)| bare))
        })
    }
}

impl<'de> Deserializer<'de> for Shaped<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let mut json = serde_json::Deserializer::from_str(self.text);
        match (self.kind, self.text.as_bytes().first()) {
            (Kind::Plain, _) => Self::plain(json.deserialize_any(visitor)),
            (Kind::Object(shape), Some(b'{')) => {
                visitor.visit_map(Entries::of(Self::plain(json.deserialize_map(FieldsOf(shape)))?))
            }
            (Kind::Map(shape), Some(b'{')) => {
                visitor.visit_map(Entries::of(Self::plain(json.deserialize_map(EntriesOf(shape)))?))
            }
            (Kind::List(shape), Some(b'[')) => {
                let items = Vec::<&RawValue>::deserialize(&mut json)?.into_iter().filter(|raw| !is_null(raw));
                let items = items.map(|raw| Shaped { kind: Kind::Object(shape), text: raw.get() });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            (Kind::List(_), _) => Err(self.unexpected("an array")),
            _ => Err(self.unexpected("an object")),
        }
    }

    /// Nulls were left out before.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Shaped<'de> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// Keys and what stands under them.
type Found<'de> = SmallVec<[(Cow<'de, str>, Shaped<'de>); 16]>;

/// Gives serde what was found.
struct Entries<'de> {
    rest: smallvec::IntoIter<[(Cow<'de, str>, Shaped<'de>); 16]>,
    value: Option<(Cow<'de, str>, Shaped<'de>)>,
}

impl<'de> Entries<'de> {
    fn of(found: Found<'de>) -> Self {
        Self { rest: found.into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        self.value = self.rest.next();
        let Some((key, _)) = &self.value else { return Ok(None) };
        match key {
            Cow::Borrowed(key) => seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some),
            Cow::Owned(key) => seed.deserialize(key.as_str().into_deserializer()).map(Some),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        let (key, value) = self.value.take().ok_or_else(|| Self::Error::custom("a value without its key"))?;
        seed.deserialize(value).map_err(|e| {
            let text = e.to_string();
            // The innermost key is told.
            let told = !text.starts_with("json: cannot unmarshal") || text.ends_with(')');
            if told { e } else { Self::Error::custom(format!("{text} ({key})")) }
        })
    }
}

/// Reads an object of a shape: its fields under their canonical keys, the last of two, no nulls.
struct FieldsOf(&'static Shape);

impl<'de> Visitor<'de> for FieldsOf {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::new();
        while let Some(field) = map.next_key_seed(FieldOf(self.0))? {
            let raw: &RawValue = map.next_value()?;
            let Some((key, kind)) = field else { continue };
            if is_null(raw) {
                continue;
            }
            let value = Shaped { kind, text: raw.get() };
            match found.iter_mut().find(|(known, _)| known == key) {
                Some((_, earlier)) => *earlier = value,
                None => found.push((Cow::Borrowed(key), value)),
            }
        }
        Ok(found)
    }
}

/// Reads a key: the field that it names, or nothing where a lax shape passes it over.
struct FieldOf(&'static Shape);

impl<'de> DeserializeSeed<'de> for FieldOf {
    type Value = Option<(&'static str, Kind)>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldOf {
    type Value = Option<(&'static str, Kind)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        match find(self.0, key) {
            None if !self.0.lax => Err(E::custom(unknown(key))),
            field => Ok(field),
        }
    }
}

/// Reads an object with the client's own keys, whose values have the shape.
struct EntriesOf(&'static Shape);

impl<'de> Visitor<'de> for EntriesOf {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::new();
        while let Some((key, raw)) = map.next_entry::<String, &RawValue>()? {
            found.push((Cow::Owned(key), Shaped { kind: Kind::Object(self.0), text: raw.get() }));
        }
        Ok(found)
    }
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
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

/// The type of a JSON value, by its first octet.
fn type_of(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "bool",
        Some(b'"') => "string",
        Some(b'[') => "array",
        Some(b'{') => "object",
        _ => "number",
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
            (&deep, "EOF while parsing"),
            (r#"{"Check":[{}]}"#, "cannot unmarshal array where an object is expected (Check)"),
            (r#"{"Checks":[{"Port":"80"}]}"#, "json: invalid type: string"),
        ] {
            let error = sample(body).unwrap_err();
            assert!(
                error.text.starts_with("Request decode failed: ") && error.text.contains(text),
                "{error:?}"
            );
        }
    }
}
