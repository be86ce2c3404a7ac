//! Where a node or an instance is reached.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An IP address or a host name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Ip(IpAddr),
    Host(Arc<str>),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("address is empty")]
    Empty,
    #[error("address {0} means every address; name the one that clients can reach")]
    Unspecified(IpAddr),
    #[error("address {0:?} is neither an IP address nor a host name")]
    Bad(String),
}

impl Address {
    /// Parses an IP address (IPv6 also in brackets) or a host name of at most 253 octets.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return if ip.is_unspecified() { Err(AddressError::Unspecified(ip)) } else { Ok(Self::Ip(ip)) };
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.len() <= 253 && name.split('.').all(super::name::is_label) && !all_digits(name) {
            Ok(Self::Host(Arc::from(text)))
        } else {
            Err(AddressError::Bad(text.to_owned()))
        }
    }

    /// The IP address, where it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Host(_) => None,
        }
    }
}

/// `1.2.3` or `300.1.1.1` is a mistyped address, not a host (RFC 1123 section 2.1: a top label is not numeric).
fn all_digits(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Host(host) => f.write_str(host),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_addresses_and_hosts() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("db.example.com", "db.example.com"),
            ("db.example.com.", "db.example.com."),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn refuses_unspecified_and_malformed() {
        for text in ["", "0.0.0.0", "::", "[::]", "1.2.3", "300.1.1.1", "a b", "http://x", "a..b"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
