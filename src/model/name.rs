//! Names and ids, parsed once into types.
//!
//! Service and node names are compared without regard to ASCII case and remember how they were
//! written (a client that registered `Redis` reads `Redis`, and `redis.service.internal` finds it).
//! Ids are compared as they are. None of them holds a control character or is longer than
//! [`NAME_OCTETS_MAX`]; which of them can stand in DNS is asked with [`ServiceName::is_label`].

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use arcstr::ArcStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name or id that is taken, in octets.
pub const NAME_OCTETS_MAX: usize = 512;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} has {octets} octets; at most {NAME_OCTETS_MAX} are allowed")]
    TooLong { what: &'static str, octets: usize },
    #[error("{what} {text:?} contains a control character")]
    Control { what: &'static str, text: String },
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > NAME_OCTETS_MAX {
        return Err(NameError::TooLong { what, octets: text.len() });
    }
    if text.chars().any(char::is_control) {
        return Err(NameError::Control { what, text: text.to_owned() });
    }
    Ok(())
}

/// Whether a text can be one label of a DNS name here: letters, digits, `-` and `_`, 1 to 63 octets
/// (RFC 1035 section 2.3.4; the underscore as RFC 2782 uses it).
pub fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A hash of octets that is the same on every server and in every version (FNV-1a, 64 bits).
pub fn fnv1a(octets: impl Iterator<Item = u8>) -> u64 {
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3))
}

/// A text and its lower case behind one pointer, since a registry holds millions of them: the text alone where both are the
/// same, else NUL, lower case, text. No name holds a NUL, and folding ASCII keeps the length.
#[derive(Clone)]
struct Folded(ArcStr);

impl Folded {
    fn new(text: &str) -> Self {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Self(arcstr::format!("\0{}{text}", text.to_ascii_lowercase()))
        } else {
            Self(text.into())
        }
    }

    fn halves(&self) -> (&str, &str) {
        let both = self.0.strip_prefix('\0');
        both.map_or((&self.0, &self.0), |both| both.split_at(both.len() / 2))
    }

    fn folded(&self) -> &str {
        self.halves().0
    }

    fn text(&self) -> &str {
        self.halves().1
    }
}

macro_rules! serde_by_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                $type::parse(&text).map_err(serde::de::Error::custom)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
    };
}

macro_rules! folded_name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $type(Folded);

        impl $type {
            /// Parses a name: not empty, no control characters, at most [`NAME_OCTETS_MAX`] octets.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check($what, text)?;
                Ok(Self(Folded::new(text)))
            }
            /// As it was registered.
            pub fn as_str(&self) -> &str {
                self.0.text()
            }
            /// In lower case: what is compared, and what a DNS question is looked up by.
            pub fn folded(&self) -> &str {
                self.0.folded()
            }
            /// Whether the name can be asked for in DNS (see [`is_label`]).
            pub fn is_label(&self) -> bool {
                is_label(self.as_str())
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.folded() == other.folded()
            }
        }
        impl Eq for $type {}
        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.folded().hash(state);
            }
        }
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                self.folded().cmp(other.folded())
            }
        }
        /// Look-ups by a text that is already in lower case.
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.folded()
            }
        }
        serde_by_text!($type);
    };
}

macro_rules! exact_id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(ArcStr);

        impl $type {
            /// Parses an id: not empty, no control characters, at most [`NAME_OCTETS_MAX`] octets.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check($what, text)?;
                Ok(Self(text.into()))
            }
            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        serde_by_text!($type);
    };
}

folded_name! {
    /// The name of a service, e.g. `web`.
    ServiceName, "service name"
}
folded_name! {
    /// The name of a node, e.g. `n1`.
    NodeName, "node name"
}
exact_id! {
    /// The id of an instance, unique on its node.
    InstanceId, "service id"
}
exact_id! {
    /// The id of a check, unique on its node.
    CheckId, "check id"
}

/// What is set for a service, whose name is in lower case: the exact name beats the longest prefix and `*`.
pub fn of_service<'a, T>(set: &'a [(String, T)], service: &str) -> Option<&'a T> {
    let exact = set.iter().find(|(name, _)| name == service);
    let longest = || {
        let prefixes = set.iter().filter_map(|(name, value)| Some((name.strip_suffix('*')?, value)));
        prefixes.filter(|(prefix, _)| service.starts_with(prefix)).max_by_key(|(prefix, _)| prefix.len())
    };
    exact.map(|(_, value)| value).or_else(|| longest().map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_fold_case_and_remember_it() {
        let (upper, lower) = (ServiceName::parse("Redis").unwrap(), ServiceName::parse("redis").unwrap());
        assert_eq!(upper, lower);
        assert_eq!((upper.as_str(), upper.folded()), ("Redis", "redis"));
        assert_eq!((lower.as_str(), lower.folded()), ("redis", "redis"));
        let mixed = NodeName::parse("ÄäXß").unwrap();
        assert_eq!((mixed.as_str(), mixed.folded()), ("ÄäXß", "Ääxß"));
    }

    #[test]
    fn ids_do_not_fold_case() {
        assert_ne!(InstanceId::parse("A").unwrap(), InstanceId::parse("a").unwrap());
    }

    #[test]
    fn refuses_what_is_no_name() {
        assert_eq!(ServiceName::parse(""), Err(NameError::Empty { what: "service name" }));
        assert!(matches!(CheckId::parse("a\nb"), Err(NameError::Control { .. })));
        let long = "x".repeat(NAME_OCTETS_MAX + 1);
        assert!(matches!(NodeName::parse(&long), Err(NameError::TooLong { octets: 513, .. })));
    }

    #[test]
    fn knows_what_can_be_a_label() {
        for (text, good) in
            [("web", true), ("web_1", true), ("web.1", false), ("w b", false), ("ü", false), ("*", false)]
        {
            assert_eq!(is_label(text), good, "{text}");
        }
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)));
    }
}
