//! JSON in which no object names a member twice, at whatever depth.
//!
//! RFC 7519 section 4: claim names are unique, and a reader either refuses a token that repeats one or takes the last. What took the
//! first instead, in front of us, would have judged another token than we do; so we refuse.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value that was read so.
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("no number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(Value::Object(all))
    }
}

const TWICE: &str = "a name stands twice in it";

/// Whether this is why something was not read.
pub(super) fn is_twice(error: &serde_json::Error) -> bool {
    error.to_string().starts_with(TWICE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Value, bool> {
        serde_json::from_str(text).map(|Strict(value)| value).map_err(|e| is_twice(&e))
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_wherever_it_does() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"b":2,"\u0061":3}"#, r#"{"x":[{"y":{"a":1,"a":2}}]}"#] {
            assert_eq!(read(text), Err(true), "{text}");
        }
        for text in ["{", "{\"a\":1,}", "1e999", ""] {
            assert_eq!(read(text), Err(false), "{text}");
        }
        assert!(read(r#"{"a":{"a":[{"a":1},{"a":1}]}}"#).is_ok());
    }

    proptest! {
        /// All else is read as always.
        #[test]
        fn what_has_no_such_name_is_the_same(numbers in prop::collection::vec(any::<f64>(), 0..4), text in ".{0,9}", int in any::<i64>()) {
            let value = serde_json::json!({ "n": numbers, &text: { &text: [text, int, u64::MAX, null, true] } }).to_string();
            prop_assert_eq!(read(&value).unwrap(), serde_json::from_str::<Value>(&value).unwrap());
        }
    }
}
