//! Names in our live domains: what a question asks for, and how the targets in answers are spelt.
//!
//! Read right to left below the domain: `[…].service[.dc]`, `[node].node[.dc]`, `[hex].addr[.dc]`. A name
//! above one that exists is an empty non-terminal: it exists and has no records (RFC 8020).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

use crate::model::name::is_label;
use crate::select::Reached;

/// What a name below one of our domains asks for; texts in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The domain itself.
    Apex,
    /// `ns.D`.
    Server,
    Service {
        service: String,
        tag: Option<String>,
    },
    Node(String),
    /// `<id or name>.query`, of any number of labels.
    Query(String),
    /// `<hex>.addr`: the addresses that the label spells.
    Addresses(Reached<'static>),
    /// A name that exists only because names below it do.
    Empty,
    Unknown,
}

/// Reads the labels below the domain (lower case, leftmost first).
pub(super) fn read(labels: &[&str], datacenter: &str) -> Asked {
    let (Some(last), rest) = (labels.last(), labels.split_last().map_or(&[][..], |(_, rest)| rest)) else {
        return Asked::Apex;
    };
    if let Some(asked) = of_kind(last, rest) {
        return asked;
    }
    if *last == "ns" && rest.is_empty() {
        return Asked::Server;
    }
    if !last.eq_ignore_ascii_case(datacenter) {
        return Asked::Unknown;
    }
    match rest.split_last() {
        None => Asked::Empty,
        Some((kind, rest)) => of_kind(kind, rest).unwrap_or(Asked::Unknown),
    }
}

fn of_kind(kind: &str, rest: &[&str]) -> Option<Asked> {
    let asked = match (kind, rest) {
        ("service" | "node" | "addr" | "query", []) => Asked::Empty,
        ("service", rest) => service(rest),
        ("node", [node]) => Asked::Node((*node).to_owned()),
        ("addr", [label]) => addresses(label).map_or(Asked::Unknown, Asked::Addresses),
        ("query", rest) => query(rest),
        ("node" | "addr", _) => Asked::Unknown,
        _ => return None,
    };
    Some(asked)
}

fn service(rest: &[&str]) -> Asked {
    // What cannot be a label is in no name of ours: `good\.tag` is one label, and not the two of `good.tag`.
    if !rest.iter().all(|label| is_label(label)) {
        return Asked::Unknown;
    }
    let of = |service: &str, tag: Option<String>| Asked::Service { service: service.to_owned(), tag };
    match rest {
        // RFC 2782: `_service._proto`; the protocol's place names a tag, and `_tcp` means none.
        [service, proto] if service.starts_with('_') && proto.starts_with('_') => {
            let tag = &proto[1..];
            of(&service[1..], (tag != "tcp").then(|| tag.to_owned()))
        }
        [service] => of(service, None),
        // Every label left of the service is one tag.
        [tag @ .., service] => of(service, Some(tag.join("."))),
        [] => Asked::Empty,
    }
}

fn query(rest: &[&str]) -> Asked {
    match rest {
        // As with services, what cannot be a label is in no name of ours.
        rest if !rest.iter().all(|label| is_label(label)) => Asked::Unknown,
        // `_tcp.query` stands above every `_web._tcp.query`.
        ["_tcp"] => Asked::Empty,
        // RFC 2782.
        [name, "_tcp"] if name.len() > 1 && name.starts_with('_') => Asked::Query(name[1..].to_owned()),
        rest => Asked::Query(rest.join(".")),
    }
}

/// `0a000001`, 32 digits for IPv6, or both joined by a hyphen.
fn addresses(label: &str) -> Option<Reached<'static>> {
    let v4 = |text: &str| {
        (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok().map(Ipv4Addr::from)).flatten()
    };
    let v6 = |text: &str| {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from)).flatten()
    };
    if !label.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return None;
    }
    let (v4, v6) = match label.split_once('-') {
        Some((four, six)) => (Some(v4(four)?), Some(v6(six)?)),
        None => match (v4(label), v6(label)) {
            (None, None) => return None,
            either => either,
        },
    };
    Some(Reached { v4, v6, ..Reached::default() })
}

/// The label that spells these addresses: an instance of both families has one name with both, so that
/// one SRV record leads to either.
pub(super) fn address_label(reached: &Reached<'_>) -> Option<String> {
    Some(match (reached.v4, reached.v6) {
        (Some(v4), Some(v6)) => format!("{:08x}-{:032x}", u32::from(v4), u128::from(v6)),
        (Some(v4), None) => format!("{:08x}", u32::from(v4)),
        (None, Some(v6)) => format!("{:032x}", u128::from(v6)),
        (None, None) => return None,
    })
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` spells (RFC 1035 section 3.5, RFC 3596 section 2.5).
/// `None` for other names, and for those that spell only a part.
pub(super) fn reverse(labels: &[&str]) -> Option<IpAddr> {
    match labels {
        [octets @ .., "in-addr", "arpa"] if octets.len() == 4 => {
            let mut parts = [0u8; 4];
            for (part, text) in parts.iter_mut().rev().zip(octets) {
                // No leading zeros, no signs: one spelling for each address.
                *part = text.parse().ok().filter(|number: &u8| number.to_string() == *text)?;
            }
            Some(IpAddr::from(parts))
        }
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let mut bits = 0u128;
            for text in nibbles.iter().rev() {
                let digit = text.parse::<char>().ok()?.to_digit(16)?;
                bits = bits << 4 | u128::from(digit);
            }
            Some(IpAddr::from(Ipv6Addr::from(bits)))
        }
        _ => None,
    }
}

/// The labels of a name in lower case, leftmost first; `None` if one is not UTF-8 text.
pub(super) fn labels(name: &Name) -> Option<Vec<String>> {
    name.iter().map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str) -> Asked {
        let labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
        read(&labels, "dc1")
    }

    fn service(name: &str, tag: Option<&str>) -> Asked {
        Asked::Service { service: name.into(), tag: tag.map(Into::into) }
    }

    #[test]
    fn every_form_of_the_table() {
        for (name, expected) in [
            ("", Asked::Apex),
            ("ns", Asked::Server),
            ("service", Asked::Empty),
            ("dc1", Asked::Empty),
            ("service.dc1", Asked::Empty),
            ("query", Asked::Empty),
            ("web.service", service("web", None)),
            ("web.service.dc1", service("web", None)),
            ("web.service.dc2", Asked::Unknown),
            ("dc2", Asked::Unknown),
            ("v1.2.web.service", service("web", Some("v1.2"))),
            ("_web._tcp.service", service("web", None)),
            ("_web._v1.service.dc1", service("web", Some("v1"))),
            ("_web._udp.service", service("web", Some("udp"))),
            ("_tcp.service", service("_tcp", None)),
            ("n1.node", Asked::Node("n1".into())),
            ("n1.node.dc1", Asked::Node("n1".into())),
            ("a.n1.node", Asked::Unknown),
            ("x.query", Asked::Query("x".into())),
            ("a.b.query.dc1", Asked::Query("a.b".into())),
            ("_x._tcp.query", Asked::Query("x".into())),
            ("_x._udp.query", Asked::Query("_x._udp".into())),
            ("_tcp.query", Asked::Empty),
            ("a b.query", Asked::Unknown),
            ("x.query.dc2", Asked::Unknown),
            ("x.ns", Asked::Unknown),
            ("zzzzzzzz.addr", Asked::Unknown),
            ("0a00001.addr", Asked::Unknown),
            ("+a000001.addr", Asked::Unknown),
            ("web", Asked::Unknown),
        ] {
            assert_eq!(asked(name), expected, "{name}");
        }
    }

    #[test]
    fn address_labels_are_read_as_they_are_written() {
        let (v4, v6) = (Some(Ipv4Addr::new(10, 0, 0, 1)), Some("fd00::1".parse().unwrap()));
        for (v4, v6, label) in [
            (v4, None, "0a000001"),
            (None, v6, "fd000000000000000000000000000001"),
            (v4, v6, "0a000001-fd000000000000000000000000000001"),
        ] {
            let reached = Reached { v4, v6, ..Reached::default() };
            assert_eq!(address_label(&reached).as_deref(), Some(label));
            assert_eq!(asked(&format!("{label}.addr.dc1")), Asked::Addresses(reached));
        }
    }

    #[test]
    fn reverse_names_spell_whole_addresses_only() {
        let reversed = |name: &str| reverse(&name.split('.').collect::<Vec<_>>());
        assert_eq!(reversed("1.0.0.10.in-addr.arpa"), Some("10.0.0.1".parse().unwrap()));
        let six = format!("{}d.f.ip6.arpa", "1.".to_owned() + &"0.".repeat(29));
        assert_eq!(reversed(&six), Some("fd00::1".parse().unwrap()));
        for other in [
            "0.0.10.in-addr.arpa",
            "01.0.0.10.in-addr.arpa",
            "256.0.0.1.in-addr.arpa",
            "d.f.ip6.arpa",
            "arpa",
        ] {
            assert_eq!(reversed(other), None, "{other}");
        }
    }
}
