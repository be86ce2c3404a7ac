//! Short lists of texts in one allocation: a registry holds millions of tags and meta pairs, and for each of them a
//! `String` in a `BTreeMap` would cost more than its octets.
//!
//! Each text stands behind its length, written as digits of base 64 that are characters themselves (the last one below 64,
//! those before it above), so that the whole is one `str` and is taken apart without checks of its own.

use std::collections::BTreeMap;
use std::fmt;

use arcstr::ArcStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const BASE: usize = 64;

/// A list of texts that is read in order and never changed. Its clones share it: instances of one service mostly have
/// the same tags.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts(ArcStr);

/// Pairs of texts in the order of their keys, each key once.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pairs(Box<str>);

impl Texts {
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        unpack(&self.0)
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The whole as one text, for [`from_packed`](Self::from_packed).
    pub fn packed(&self) -> &str {
        &self.0
    }

    /// A list from its one text.
    pub fn from_packed(text: &str) -> Self {
        Self(text.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn pack<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let mut list = String::new();
    for text in texts {
        let text = text.as_ref();
        let mut length = text.len();
        while length >= BASE {
            list.push((BASE + length % BASE) as u8 as char);
            length /= BASE;
        }
        list.push(length as u8 as char);
        list.push_str(text);
    }
    list
}

fn unpack(list: &str) -> impl Iterator<Item = &str> + Clone {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (text, after) = first(rest)?;
        rest = after;
        Some(text)
    })
}

/// The first text of a list, and the list behind it.
fn first(list: &str) -> Option<(&str, &str)> {
    let (mut length, mut scale) = (0, 1);
    for (at, digit) in list.bytes().enumerate() {
        let digit = usize::from(digit);
        length += digit % BASE * scale;
        scale *= BASE;
        if digit < BASE {
            return list.get(at + 1..)?.split_at_checked(length);
        }
    }
    None
}

impl<T: AsRef<str>> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        Self(pack(texts).into())
    }
}

impl Pairs {
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let mut texts = unpack(&self.0);
        std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
    }

    /// The whole as one text, for [`from_packed`](Self::from_packed).
    pub fn packed(&self) -> &str {
        &self.0
    }

    /// Pairs from their one text.
    pub fn from_packed(text: &str) -> Self {
        Self(text.into())
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(own, _)| *own == key).map(|(_, value)| value)
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> From<&BTreeMap<K, V>> for Pairs {
    fn from(map: &BTreeMap<K, V>) -> Self {
        Self(pack(map.iter().flat_map(|(key, value)| [key.as_ref(), value.as_ref()])).into())
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<String>::deserialize(deserializer)?.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&BTreeMap::<String, String>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_come_back(texts in prop::collection::vec(any::<String>(), 0..5), long in 0..10_000usize) {
            let mut texts = texts;
            texts.push("ä".repeat(long));
            let packed: Texts = texts.iter().collect();
            prop_assert_eq!(packed.iter().collect::<Vec<_>>(), texts.clone());
            prop_assert_eq!(packed.len(), texts.len());
        }

        #[test]
        fn pairs_come_back(map in prop::collection::btree_map(any::<String>(), any::<String>(), 0..5)) {
            let packed = Pairs::from(&map);
            prop_assert_eq!((packed.len(), packed.is_empty()), (map.len(), map.is_empty()));
            for (key, value) in &map {
                prop_assert_eq!(packed.get(key), Some(value.as_str()));
            }
            let json = serde_json::to_value(&packed).unwrap();
            prop_assert_eq!(&json, &serde_json::to_value(&map).unwrap());
            prop_assert_eq!(serde_json::from_value::<Pairs>(json).unwrap(), packed);
        }
    }

    #[test]
    fn nothing_takes_nothing() {
        let empty = Texts::from_iter::<[&str; 0]>([]);
        assert_eq!((empty.len(), empty.iter().next(), empty == Texts::default()), (0, None, true));
        assert!(!Texts::from_iter([""]).is_empty());
    }
}
