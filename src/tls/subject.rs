//! Whom a certificate is of, as text (RFC 4514): for the audit log, which nothing is decided by. Pure.
//!
//! webpki has verified the certificate and tells no names; of DER only as much is read as leads to the subject (RFC 5280 section
//! 4.1.2.6).

use std::fmt::Write;

use super::validity::{Elements, INTEGER, SEQUENCE, VERSION, signed};

const SET: u8 = 0x31;
const OID: u8 = 0x06;
/// Octets of the text; what is longer is cut.
const TEXT_OCTETS_MAX: usize = 512;
/// Short names (RFC 4514 section 3), by the last number of `2.5.4.n`.
const SHORT: [(u8, &str); 6] = [(3, "CN"), (6, "C"), (7, "L"), (8, "ST"), (10, "O"), (11, "OU")];

/// `CN=agent,O=Example`; `None` where there is none.
pub(super) fn subject(der: &[u8]) -> Option<String> {
    let mut to_be_signed = signed(der)?;
    if to_be_signed.peek() == Some(VERSION) {
        to_be_signed.next()?;
    }
    // serialNumber, signature, issuer, validity.
    to_be_signed.expect(INTEGER)?;
    (0..3).try_for_each(|_| to_be_signed.expect(SEQUENCE).map(drop))?;
    let mut names = Elements(to_be_signed.expect(SEQUENCE)?);
    let mut parts = Vec::new();
    while let Some(set) = names.expect(SET) {
        let mut set = Elements(set);
        while let Some(pair) = set.expect(SEQUENCE) {
            let mut pair = Elements(pair);
            let kind = pair.expect(OID)?;
            let (_, text) = pair.next()?;
            parts.push(format!("{}={}", named(kind), escaped(&String::from_utf8_lossy(text))));
        }
    }
    // The last one first (RFC 4514 section 2.1).
    parts.reverse();
    let mut text = parts.join(",");
    let end = (0..=TEXT_OCTETS_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    (!text.is_empty()).then_some(text)
}

fn named(oid: &[u8]) -> String {
    if let [0x55, 4, last] = oid
        && let Some((_, name)) = SHORT.iter().find(|(known, _)| known == last)
    {
        return (*name).to_owned();
    }
    // Those that have no name here are told apart, no more.
    oid.iter().fold("OID.".to_owned(), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// RFC 4514 section 2.4.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in names {
            params.distinguished_name.push(kind.clone(), *text);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_subject_is_told_with_its_parts_escaped() {
        let der = certificate(&[
            (DnType::CountryName, "NL"),
            (DnType::OrganizationName, "A, B"),
            (DnType::CommonName, "agent\n1"),
        ]);
        assert_eq!(subject(&der).as_deref(), Some("CN=agent\\n1,O=A\\, B,C=NL"));
        assert_eq!(subject(&certificate(&[])), None);
        let long = subject(&certificate(&[(DnType::CommonName, &"x".repeat(5000))])).unwrap();
        assert_eq!(long.len(), TEXT_OCTETS_MAX);
    }

    proptest::proptest! {
        #[test]
        fn any_octets_are_read_without_harm(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), cut in 0usize..400) {
            subject(&octets);
            let der = certificate(&[(DnType::CommonName, "a")]);
            subject(&der[..cut.min(der.len())]);
        }
    }
}
