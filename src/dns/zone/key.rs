//! Names as keys that sort in canonical order and whose beginnings are their ancestors.
//!
//! A key holds the labels below the zone's origin, the nearest to the origin first, in lower case, each ended by
//! a zero octet; zero and one inside a label become `1 1` and `1 2`. Octets of keys then compare as RFC 4034
//! section 6.1 orders names, descendants follow their ancestor without a gap, and to walk from the apex to a
//! name is to look up longer and longer beginnings of one buffer. The apex is the empty key.
//!
//! The letter case of owners is not kept: answers spell the owner as it was asked or as the alias spelt it.

use hickory_proto::rr::Name;

const END: u8 = 0;
const ESCAPE: u8 = 1;

/// Appends a label.
pub(super) fn push(key: &mut Vec<u8>, label: &[u8]) {
    for octet in label {
        match octet.to_ascii_lowercase() {
            octet @ (END | ESCAPE) => key.extend([ESCAPE, octet + 1]),
            octet => key.push(octet),
        }
    }
    key.push(END);
}

/// The key of a name at or below an origin of so many labels.
pub(super) fn of_name(name: &Name, origin_labels: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for label in name.iter().rev().skip(origin_labels) {
        push(&mut key, label);
    }
    key
}

/// The lengths of the beginnings that name ancestors: from the apex (0) to the whole key.
pub(super) fn beginnings(key: &[u8]) -> impl Iterator<Item = usize> {
    let ends = key.iter().enumerate().filter(|(_, octet)| **octet == END).map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends)
}

/// The name of a key; `None` if it has more than 255 octets, which no key of a name has.
pub(super) fn name(key: &[u8], origin: &Name) -> Option<Name> {
    let mut labels = Vec::new();
    for label in key.split_inclusive(|octet| *octet == END) {
        let mut plain = Vec::with_capacity(label.len());
        let mut octets = label[..label.len() - 1].iter();
        while let Some(octet) = octets.next() {
            match *octet {
                ESCAPE => plain.push(octets.next()? - 1),
                octet => plain.push(octet),
            }
        }
        labels.push(plain);
    }
    let labels = labels.iter().rev().map(Vec::as_slice).chain(origin.iter());
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// What stands in errors: the name, or the key's octets if it is none.
pub(super) fn text(key: &[u8], origin: &Name) -> String {
    name(key, origin).map_or_else(|| key.escape_ascii().to_string(), |name| name.to_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Name> {
        let octet = prop_oneof![Just(0u8), Just(1), Just(2), Just(b'a'), Just(b'B'), Just(b'.'), any::<u8>()];
        let label = prop::collection::vec(octet, 1..4);
        prop::collection::vec(label, 0..4).prop_map(|labels| {
            let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
            name.set_fqdn(true);
            name
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn keys_order_as_names_do_and_lead_back(a in names(), b in names()) {
            let (first, second) = (of_name(&a, 0), of_name(&b, 0));
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
            prop_assert_eq!(second.starts_with(&first), a.zone_of(&b));
            prop_assert_eq!(name(&first, &Name::root()), Some(a.clone()));
            let steps: Vec<usize> = beginnings(&first).collect();
            prop_assert_eq!(steps.len(), a.iter().len() + 1);
            prop_assert_eq!(steps.last(), Some(&first.len()));
        }
    }
}
