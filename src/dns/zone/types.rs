//! Record types: their names, and the fields that their data consist of.

use hickory_proto::rr::RecordType;

use super::rdata::digits;
use super::svcb;

/// A part of record data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    U8,
    U16,
    U32,
    /// Seconds, also as `1h30m`.
    Period,
    V4,
    V6,
    /// A character-string of at most 255 octets (RFC 1035 section 3.3).
    Text,
    /// One character-string or more.
    Texts,
    /// All that is left, written as one string.
    Rest,
    Base64,
    Hex,
    /// A DNSSEC algorithm by number or mnemonic.
    Algorithm,
    /// A certificate type by number or mnemonic (RFC 4398 section 2.1).
    Certificate,
    /// A record type.
    Type,
    /// Record types as a bit map (RFC 4034 section 4.1.2).
    Types,
    /// A moment: `YYYYMMDDHHmmSS` or seconds since 1970 (RFC 4034 section 3.2).
    Time,
    /// Hexadecimal with a length in front, `-` for none (RFC 5155 section 3.3).
    Salt,
    /// Base 32 with a length in front.
    Hash,
    /// Service parameters (RFC 9460 section 2.1).
    Params,
}

use Field::*;

/// Types that hickory has no name for.
const OTHERS: &[(&str, u16, &[Field])] = &[
    ("MD", 3, &[Name]),
    ("MF", 4, &[Name]),
    ("MB", 7, &[Name]),
    ("MG", 8, &[Name]),
    ("MR", 9, &[Name]),
    ("MINFO", 14, &[Name, Name]),
    ("RP", 17, &[Name, Name]),
    ("AFSDB", 18, &[U16, Name]),
    ("X25", 19, &[Text]),
    ("RT", 21, &[U16, Name]),
    ("PX", 26, &[U16, Name, Name]),
    ("KX", 36, &[U16, Name]),
    ("DHCID", 49, &[Base64]),
    ("ZONEMD", 63, &[U32, U8, U8, Hex]),
    ("SPF", 99, &[Texts]),
    ("L32", 105, &[U16, V4]),
    ("LP", 107, &[U16, Name]),
    ("URI", 256, &[U16, U16, Rest]),
    ("DLV", 32769, &[U16, Algorithm, U8, Hex]),
];

/// The fields of a type; `None` if it has no text form that is known.
pub(super) fn fields(kind: u16) -> Option<&'static [Field]> {
    Some(match RecordType::from(kind) {
        RecordType::A => &[V4],
        RecordType::AAAA => &[V6],
        RecordType::ANAME | RecordType::CNAME | RecordType::DNAME | RecordType::NS | RecordType::PTR => {
            &[Name]
        }
        RecordType::SOA => &[Name, Name, U32, Period, Period, Period, Period],
        RecordType::MX => &[U16, Name],
        RecordType::SRV => &[U16, U16, U16, Name],
        RecordType::NAPTR => &[U16, U16, Text, Text, Text, Name],
        RecordType::TXT => &[Texts],
        RecordType::HINFO => &[Text, Text],
        RecordType::CAA => &[U8, Text, Rest],
        RecordType::CERT => &[Certificate, U16, Algorithm, Base64],
        RecordType::SSHFP => &[U8, U8, Hex],
        RecordType::TLSA | RecordType::SMIMEA => &[U8, U8, U8, Hex],
        RecordType::OPENPGPKEY => &[Base64],
        RecordType::SVCB | RecordType::HTTPS => &[U16, Name, Params],
        RecordType::CSYNC => &[U32, U16, Types],
        RecordType::DS | RecordType::CDS => &[U16, Algorithm, U8, Hex],
        RecordType::DNSKEY | RecordType::CDNSKEY | RecordType::KEY => &[U16, U8, Algorithm, Base64],
        RecordType::RRSIG | RecordType::SIG => &[Type, Algorithm, U8, U32, Time, Time, U16, Name, Base64],
        RecordType::NSEC => &[Name, Types],
        RecordType::NSEC3 => &[U8, U8, U16, Salt, Hash, Types],
        RecordType::NSEC3PARAM => &[U8, U8, U16, Salt],
        _ => return OTHERS.iter().find(|(_, code, _)| *code == kind).map(|(_, _, fields)| *fields),
    })
}

/// The number of a type: a mnemonic in any letter case, or `TYPE1234`.
pub(super) fn kind(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_uppercase();
    if let Some(number) = text.strip_prefix("TYPE") {
        return digits(number.as_bytes()).and_then(|number| u16::try_from(number).ok());
    }
    let other = OTHERS.iter().find(|(name, _, _)| *name == text).map(|(_, code, _)| *code);
    other.or_else(|| match text.as_str() {
        "*" => None,
        "IXFR" => Some(RecordType::IXFR.into()),
        "OPT" => Some(RecordType::OPT.into()),
        text => text.parse::<RecordType>().ok().map(u16::from),
    })
}

/// The mnemonic of a type, or `TYPE1234`.
pub(super) fn kind_text(kind: u16) -> String {
    let other = OTHERS.iter().find(|(_, code, _)| *code == kind);
    match (other, RecordType::from(kind)) {
        (Some((name, _, _)), _) => (*name).to_owned(),
        (None, RecordType::Unknown(_)) => format!("TYPE{kind}"),
        (None, known) => known.to_string(),
    }
}

/// Whether octets are data of these fields, to the last one. Names are not compressed.
pub(super) fn check(fields: &[Field], octets: &[u8]) -> bool {
    let rest = fields.iter().try_fold(octets, |octets, field| after(*field, octets));
    rest.is_some_and(<[u8]>::is_empty)
}

/// What is left behind a field.
fn after(field: Field, octets: &[u8]) -> Option<&[u8]> {
    match field {
        Name => after_name(octets),
        U8 | Algorithm => octets.get(1..),
        U16 | Certificate | Type => octets.get(2..),
        U32 | V4 | Time => octets.get(4..),
        Period => {
            let (seconds, rest) = octets.split_first_chunk::<4>()?;
            (u32::from_be_bytes(*seconds) <= i32::MAX as u32).then_some(rest)
        }
        V6 => octets.get(16..),
        Text | Salt | Hash => octets.get(1 + usize::from(*octets.first()?)..),
        Texts => {
            let mut rest = after(Text, octets)?;
            while !rest.is_empty() {
                rest = after(Text, rest)?;
            }
            Some(rest)
        }
        Rest => Some(&[]),
        Base64 | Hex => (!octets.is_empty()).then_some(&[]),
        Types => {
            let (mut rest, mut last) = (octets, None);
            while let [window, length, bits @ ..] = rest {
                let in_order = last.is_none_or(|last| last < *window);
                (in_order && (1..=32).contains(length)).then_some(())?;
                (rest, last) = (bits.get(usize::from(*length)..)?, Some(*window));
            }
            Some(rest)
        }
        Params => svcb::check(octets).then_some(&[]),
    }
}

fn after_name(octets: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let length = usize::from(*octets.get(at)?);
        at += 1 + length;
        if length > 63 || at > 255 {
            return None;
        }
        if length == 0 {
            return octets.get(at..);
        }
    }
}
