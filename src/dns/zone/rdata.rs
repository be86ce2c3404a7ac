//! Record data: from text to the octets that go on the wire.
//!
//! A type is a list of fields; what a field looks like in a file and how its octets are checked stands here once.
//! hickory's own reader of text was looked at and left: it reads `\DDD` as octal, knows no DNAME and no DNSSEC
//! type, takes relative names in some types only, and cannot hold a string that is not UTF-8. hickory's types
//! are what lookups hand out. A type that is not in the tables is written as RFC 3597 says, `\# 4 0a000001`, and
//! that form works for every other type too, checked against its fields (RFC 3597 section 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER_PERMISSIVE};
use hickory_proto::rr::RecordType;

use super::svcb;
use super::token::{Token, octet_at, unescape};

/// A part of record data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
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

fn fields(kind: u16) -> Option<&'static [Field]> {
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

/// Appends the octets that the tokens spell. On an error what was appended is of no use.
pub(super) fn read(
    kind: u16,
    tokens: &[Token<'_>],
    origin: &[u8],
    octets: &mut Vec<u8>,
) -> Result<(), String> {
    let (start, known) = (octets.len(), fields(kind));
    let generic = tokens.first().is_some_and(|token| token.text == b"\\#" && !token.quoted);
    match known {
        _ if generic => {
            read_generic(&tokens[1..], octets)?;
            let whole = known.is_none_or(|fields| check(fields, &octets[start..]));
            whole.then_some(()).ok_or("octets are no record data of this type")?;
        }
        Some(fields) => {
            let mut tokens = tokens.iter();
            for field in fields {
                read_field(*field, &mut tokens, origin, octets)?;
            }
            if let Some(token) = tokens.next() {
                return Err(format!("{} is one field too many", shown(token.text)));
            }
        }
        None => {
            return Err("type has no text form that is known; write `\\# LENGTH HEX` (RFC 3597)".to_owned());
        }
    }
    match octets.len() - start {
        0..=0xffff => Ok(()),
        length => Err(format!("record data has {length} octets; 65535 is the most")),
    }
}

/// RFC 3597 section 5: a length and hexadecimal words.
fn read_generic(tokens: &[Token<'_>], octets: &mut Vec<u8>) -> Result<(), String> {
    let length =
        tokens.first().and_then(|token| digits(token.text)).ok_or("`\\#` needs a length in octets")?;
    let start = octets.len();
    let words: Vec<u8> = tokens[1..].iter().flat_map(|token| token.text).copied().collect();
    octets.extend(HEXLOWER_PERMISSIVE.decode(&words).map_err(|_| not("hexadecimal", &words))?);
    let found = octets.len() - start;
    (found as u64 == length).then_some(()).ok_or(format!("`\\#` says {length} octets and has {found}"))
}

type Words<'a, 't> = std::slice::Iter<'a, Token<'t>>;

fn read_field(
    field: Field,
    tokens: &mut Words<'_, '_>,
    origin: &[u8],
    octets: &mut Vec<u8>,
) -> Result<(), String> {
    match field {
        Texts => {
            push_text(next(tokens)?, octets)?;
            tokens.try_for_each(|token| push_text(token, octets))?;
        }
        Base64 | Hex => {
            let words: Vec<u8> = tokens.flat_map(|token| token.text).copied().collect();
            let encoding = if field == Hex { &HEXLOWER_PERMISSIVE } else { &BASE64 };
            let what = if field == Hex { "hexadecimal" } else { "base 64" };
            let decoded = encoding.decode(&words).map_err(|_| not(what, &words))?;
            if decoded.is_empty() {
                return Err(format!("{what} data is missing"));
            }
            octets.extend(decoded);
        }
        Types => octets.extend(type_map(tokens)?),
        Params => svcb::read(tokens, octets)?,
        _ => read_word(field, next(tokens)?, origin, octets)?,
    }
    Ok(())
}

fn read_word(field: Field, token: &Token<'_>, origin: &[u8], octets: &mut Vec<u8>) -> Result<(), String> {
    let text = token.text;
    match field {
        Name if token.quoted => return Err(format!("{} is a string, not a name", shown(text))),
        Name => read_name(text, origin, octets)?,
        U8 => octets.push(number(text, u32::from(u8::MAX))? as u8),
        U16 => octets.extend((number(text, u32::from(u16::MAX))? as u16).to_be_bytes()),
        U32 => octets.extend(number(text, u32::MAX)?.to_be_bytes()),
        Period => octets.extend(period(text)?.to_be_bytes()),
        V4 => octets.extend(address::<Ipv4Addr>(text, "an IPv4 address")?.octets()),
        V6 => octets.extend(address::<Ipv6Addr>(text, "an IPv6 address")?.octets()),
        Text => push_text(token, octets)?,
        Rest => octets.extend(unescape(whole(token)?)?),
        Algorithm => octets.push(mnemonic(text, ALGORITHMS, u32::from(u8::MAX))? as u8),
        Certificate => {
            octets.extend((mnemonic(text, CERTIFICATES, u32::from(u16::MAX))? as u16).to_be_bytes())
        }
        Type => octets.extend(kind(text).ok_or_else(|| not("a record type", text))?.to_be_bytes()),
        Time => octets.extend(moment(text)?.to_be_bytes()),
        Salt if text == b"-" => octets.push(0),
        Salt => push_short(&HEXLOWER_PERMISSIVE.decode(text).map_err(|_| not("hexadecimal", text))?, octets)?,
        Hash => {
            let upper = text.to_ascii_uppercase();
            push_short(&BASE32HEX_NOPAD.decode(&upper).map_err(|_| not("base 32", text))?, octets)?;
        }
        Texts | Base64 | Hex | Types | Params => {}
    }
    Ok(())
}

fn next<'a, 't>(tokens: &mut Words<'a, 't>) -> Result<&'a Token<'t>, String> {
    tokens.next().ok_or_else(|| "record data ends too early; a field is missing".to_owned())
}

/// A text as errors show it.
pub(super) fn shown(text: &[u8]) -> String {
    let short = &text[..text.len().min(60)];
    format!("`{}`", String::from_utf8_lossy(short).escape_debug())
}

pub(super) fn not(what: &str, text: &[u8]) -> String {
    format!("{} is not {what}", shown(text))
}

fn digits(text: &[u8]) -> Option<u64> {
    let plain = (1..=10).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    plain.then(|| text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

pub(super) fn number(text: &[u8], most: u32) -> Result<u32, String> {
    let number = digits(text).and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= most);
    number.ok_or_else(|| not(&format!("a number from 0 to {most}"), text))
}

/// Seconds, or numbers with units: `w`, `d`, `h`, `m`, `s`. RFC 2181 section 8: at most 2^31 - 1.
pub(super) fn period(text: &[u8]) -> Result<u32, String> {
    let malformed = || not("a period such as 3600 or 1h30m", text);
    let (mut sum, mut number) = (0u64, None);
    for octet in text {
        let unit = match octet.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                let grown = number.unwrap_or(0u64).saturating_mul(10).saturating_add(u64::from(digit - b'0'));
                number = Some(grown);
                continue;
            }
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return Err(malformed()),
        };
        sum = sum.saturating_add(number.take().ok_or_else(malformed)?.saturating_mul(unit));
    }
    // A number without a unit stands alone.
    if let Some(number) = number {
        if text.iter().any(|octet| !octet.is_ascii_digit()) {
            return Err(malformed());
        }
        sum = number;
    } else if text.is_empty() {
        return Err(malformed());
    }
    let fits = u32::try_from(sum).ok().filter(|sum| *sum <= i32::MAX as u32);
    fits.ok_or_else(|| format!("{} is more than 2147483647 seconds", shown(text)))
}

pub(super) fn address<T: std::str::FromStr>(text: &[u8], what: &str) -> Result<T, String> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| not(what, text))
}

/// The text of a string; quotes inside a word would otherwise be taken for its octets.
fn whole<'t>(token: &Token<'t>) -> Result<&'t [u8], String> {
    if !token.quoted && token.text.contains(&b'"') && unescaped_quote(token.text) {
        return Err(format!("{}: put the whole string in quotes", shown(token.text)));
    }
    Ok(token.text)
}

fn unescaped_quote(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return true,
            _ => at += 1,
        }
    }
    false
}

fn push_text(token: &Token<'_>, octets: &mut Vec<u8>) -> Result<(), String> {
    push_short(&unescape(whole(token)?)?, octets)
}

fn push_short(text: &[u8], octets: &mut Vec<u8>) -> Result<(), String> {
    let length = u8::try_from(text.len())
        .map_err(|_| format!("string of {} octets; 255 is the most, split it", text.len()))?;
    octets.push(length);
    octets.extend(text);
    Ok(())
}

/// Appends a name. One that does not end in a dot is relative to the origin (RFC 1035 section 5.1), given as
/// it is on the wire.
pub(super) fn read_name(text: &[u8], origin: &[u8], octets: &mut Vec<u8>) -> Result<(), String> {
    let start = octets.len();
    let invalid = |why: &str| format!("{} is not a name: {why}", shown(text));
    match text {
        b"@" => octets.extend(origin),
        b"." => octets.push(0),
        b"" => return Err(invalid("it is empty")),
        _ => {
            let (mut label, mut at) = (octets.len(), 0);
            octets.push(0);
            while at < text.len() {
                let (octet, escaped, length) = octet_at(&text[at..])?;
                at += length;
                if !escaped && !octet.is_ascii() {
                    return Err(invalid("write letters beyond ASCII in their xn-- form"));
                }
                if escaped || octet != b'.' {
                    octets.push(octet);
                }
                let ends = octet == b'.' && !escaped;
                let size = octets.len() - label - 1;
                match size {
                    0 => return Err(invalid("a label is empty")),
                    64.. => return Err(invalid("a label has more than 63 octets")),
                    size => octets[label] = size as u8,
                }
                if ends {
                    label = octets.len();
                    octets.push(0);
                }
                if octets.len() - start > 255 {
                    break;
                }
            }
            // The last label is the root's when a dot stood last.
            if octets[label] != 0 {
                octets.extend(origin);
            }
        }
    }
    if octets.len() - start > 255 {
        return Err(invalid("it has more than 255 octets"));
    }
    Ok(())
}

/// RFC 4034 appendix A.1 and the registry it opened.
const ALGORITHMS: &[(&str, u32)] = &[
    ("DELETE", 0),
    ("RSAMD5", 1),
    ("DH", 2),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("DSA-NSEC3-SHA1", 6),
    ("RSASHA1-NSEC3-SHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECC-GOST", 12),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("INDIRECT", 252),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];

const CERTIFICATES: &[(&str, u32)] = &[
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

fn mnemonic(text: &[u8], known: &[(&str, u32)], most: u32) -> Result<u32, String> {
    let named = known.iter().find(|(name, _)| text.eq_ignore_ascii_case(name.as_bytes()));
    named.map_or_else(|| number(text, most), |(_, code)| Ok(*code))
}

/// RFC 4034 section 4.1.2: for each window of 256 types its number, a length and the bits.
fn type_map(tokens: &mut Words<'_, '_>) -> Result<Vec<u8>, String> {
    let mut kinds = Vec::new();
    for token in tokens {
        kinds.push(kind(token.text).ok_or_else(|| not("a record type", token.text))?);
    }
    kinds.sort_unstable();
    let mut map = Vec::new();
    for window in kinds.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0u8; 32];
        for kind in window {
            bits[usize::from(kind & 0xff) / 8] |= 0x80 >> (kind % 8);
        }
        let length = bits.iter().rposition(|bits| *bits != 0).map_or(0, |last| last + 1);
        map.extend([(window[0] >> 8) as u8, length as u8]);
        map.extend(&bits[..length]);
    }
    Ok(map)
}

/// Seconds since 1970, modulo 2^32.
fn moment(text: &[u8]) -> Result<u32, String> {
    if text.len() != 14 {
        return number(text, u32::MAX);
    }
    let malformed = || not("a time such as 20260131235959", text);
    let part = |from: usize, to: usize| digits(&text[from..to]).ok_or_else(malformed);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    let valid = year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return Err(malformed());
    }
    // Days of the civil calendar, counted in years that begin in March, so that the leap day is the last.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + day - 1 - 719_468;
    Ok((((days * 24 + hour) * 60 + minute) * 60 + second) as u32)
}

/// Whether octets are data of these fields, to the last one. Names are not compressed.
fn check(fields: &[Field], octets: &[u8]) -> bool {
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
