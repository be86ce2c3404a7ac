//! Record data: from text to the octets that go on the wire.
//!
//! A type is a list of fields (`types`); how a field is written in a file stands here once.
//! hickory's own reader of text was looked at and left: it reads `\DDD` as octal, knows no DNAME and no DNSSEC
//! type, takes relative names in some types only, and cannot hold a string that is not UTF-8. hickory's types
//! are what lookups hand out. A type that is not in the tables is written as RFC 3597 says, `\# 4 0a000001`, and
//! that form works for every other type too, checked against its fields (RFC 3597 section 5).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::svcb;
use super::token::{Token, octet_at, unescape};
use super::types::Field::{self, *};
use super::types::{check, fields, kind};
use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER_PERMISSIVE};

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

/// A number of at most ten digits, without a sign.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{RData, RecordType};
    use hickory_proto::serialize::binary::{BinDecoder, Restrict};
    use proptest::prelude::*;

    use super::super::token::Tokens;
    use super::super::types::kind_text;
    use super::*;

    fn octets(kind_text: &str, text: &str) -> Result<Vec<u8>, String> {
        let mut octets = Vec::new();
        let Some(entry) = Tokens::new(text.as_bytes(), 1 << 20).next_entry() else {
            return read(kind(kind_text.as_bytes()).unwrap(), &[], b"\x01z\0", &mut octets).map(|()| octets);
        };
        let entry = entry.map_err(|(_, reason)| reason)?;
        read(kind(kind_text.as_bytes()).unwrap(), &entry.tokens, b"\x01z\0", &mut octets)?;
        Ok(octets)
    }

    /// Octets as the hexadecimal that RFC 3597 writes.
    fn hex(octets: &[u8]) -> String {
        HEXLOWER_PERMISSIVE.encode(octets)
    }

    #[test]
    fn every_type_has_a_text_form() {
        for (kind_text, text, expected) in [
            ("A", "192.0.2.1", "c0000201"),
            ("AAAA", "2001:db8::1", "20010db8000000000000000000000001"),
            ("NS", "a", "0161017a00"),
            ("CNAME", "A.b.", "0141016200"),
            ("DNAME", ".", "00"),
            ("PTR", "@", "017a00"),
            ("ANAME", r"a\.b\000.", "04612e620000"),
            (
                "SOA",
                "a. b. 4294967295 0 1m 1h1s 2147483647",
                "0161000162 00 ffffffff 00000000 0000003c 00000e11 7fffffff",
            ),
            ("MX", "10 a.", "000a016100"),
            ("SRV", "1 2 65535 a.", "00010002ffff016100"),
            ("NAPTR", r#"1 2 "u" "E2U+sip" "!^.*$!sip:a\\1!" ."#, "000100020175074532552b736970"),
            ("TXT", r#"a "b c" "\"\255" """#, "016103622063"),
            ("SPF", "a", "0161"),
            ("HINFO", "a b", "01610162"),
            ("CAA", r#"128 issue "a; b""#, "800569737375"),
            ("CERT", "PKIX 1 RSASHA256 AQID BA==", "00010001080102 0304"),
            ("SSHFP", "1 2 AB cd", "0102abcd"),
            ("TLSA", "3 1 1 00 ff", "03010100ff"),
            ("SMIMEA", "3 1 1 00", "03010100"),
            ("OPENPGPKEY", "AQI=", "0102"),
            ("CSYNC", "1 3 A NS AAAA", "00000001000300046000 0008"),
            ("DS", "1 8 2 00", "0001080200"),
            ("CDS", "0 0 0 00", "0000000000"),
            ("DNSKEY", "257 3 ED25519 AQ==", "0101030f01"),
            ("CDNSKEY", "0 3 0 AA==", "0000030000"),
            ("KEY", "1 2 3 AQ==", "0001020301"),
            ("NSEC", "b. A TYPE256", "01620000014001 0180"),
            ("NSEC3", "1 0 5 - 00 A", "0100000500010000 0140"),
            ("NSEC3PARAM", "1 0 5 aabb", "0100000502aabb"),
            (
                "RRSIG",
                "A 8 1 60 19700101000001 20380119031407 1 z. AQ==",
                "000108010000003c00000001 7fffffff 0001017a0001",
            ),
            ("URI", r#"1 2 "x:y""#, "00010002783a79"),
            ("RP", "a. b.", "016100016200"),
            ("AFSDB", "1 a.", "0001016100"),
            ("ZONEMD", "1 1 1 00", "00000001010100"),
            ("NULL", r"\# 2 0102", "0102"),
            ("TYPE65280", r"\# 3 01 0203", "010203"),
            ("TYPE65280", r"\# 0", ""),
            ("A", r"\# 4 C0000201", "c0000201"),
            ("HTTPS", "0 a.", "0000016100"),
            ("SVCB", "1 . port=53 alpn=h2,h3", "000100 00010006 026832026833 00030002 0035"),
            ("HTTPS", r#"1 . alpn="h2" key667="a b""#, "000100 00010003 026832 029b0003 612062"),
            (
                "HTTPS",
                "1 . mandatory=port,alpn port=1 alpn=a",
                "000100 00000004 00010003 00010002 0161 00030002 0001",
            ),
            (
                "HTTPS",
                "1 . ipv6hint=::1 ipv4hint=192.0.2.1,192.0.2.2 ech=AQI= alpn=a no-default-alpn",
                "000100 000100020161 00020000 00040008c0000201c0000202 000500020102 00060010",
            ),
            ("HTTPS", r#"1 . alpn="f\\\\oo\\,bar,h2""#, "000100 0001000c 08665c6f6f2c626172 026832"),
        ] {
            let found = octets(kind_text, text).unwrap_or_else(|error| panic!("{kind_text} {text}: {error}"));
            let expected = expected.replace(' ', "");
            assert!(hex(&found).starts_with(&expected), "{kind_text} {text}: {}", hex(&found));
            let code = kind(kind_text.as_bytes()).unwrap();
            assert!(fields(code).is_none_or(|fields| check(fields, &found)), "{kind_text} {text}");
            // Which hickory reads, too, and takes nothing else from it.
            let length = Restrict::new(found.len() as u16);
            let read = RData::read(&mut BinDecoder::new(&found), RecordType::from(code), length);
            assert!(read.is_ok(), "{kind_text} {text}: {read:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (kind_text, text, reason) in [
            ("A", "", "ends too early"),
            ("A", "192.0.2.1 x", "one field too many"),
            ("A", "192.0.2.01", "not an IPv4 address"),
            ("MX", "65536 a", "from 0 to 65535"),
            ("MX", "+1 a", "from 0 to 65535"),
            ("MX", "10", "ends too early"),
            ("TXT", "", "ends too early"),
            ("TXT", r"\256", "above"),
            ("TXT", r#"a="b""#, "whole string in quotes"),
            ("SOA", "a b 1 2147483648 1 1 1", "more than"),
            ("CERT", "PKIX 1 8", "data is missing"),
            ("CERT", "PKIX 1 8 A", "not base 64"),
            ("TLSA", "3 1 1 0", "not hexadecimal"),
            ("DNSKEY", "1 3 NOPE AQ==", "from 0 to 255"),
            ("RRSIG", "A 8 1 60 20261301000000 20380119031407 1 z. AQ==", "not a time"),
            ("NSEC", "b. NOPE", "not a record type"),
            ("NULL", "x", "RFC 3597"),
            ("TYPE65280", "x", "RFC 3597"),
            ("TYPE65280", r"\# 3 0102", "says 3 octets and has 2"),
            ("TYPE65280", r"\# x 0102", "needs a length"),
            ("A", r"\# 3 010203", "no record data of this type"),
            ("NS", r"\# 2 c000", "no record data of this type"),
            ("MX", r"\# 4 0001c000", "no record data of this type"),
            ("TXT", r"\# 2 0501", "no record data of this type"),
            ("HTTPS", r"\# 11 000100 00030000 00030000", "no record data of this type"),
            ("HTTPS", "1 . port=1 port=2", "stands twice"),
            ("HTTPS", "1 . nope=1", "keyNNNNN"),
            ("HTTPS", "1 . key065=1", "keyNNNNN"),
            ("HTTPS", "1 . alpn=", "empty item"),
            ("HTTPS", "1 . no-default-alpn", "needs alpn"),
            ("HTTPS", "1 . mandatory=port", "missing"),
            ("HTTPS", "1 . ipv4hint=::1", "not an IPv4 address"),
        ] {
            let error = octets(kind_text, text).unwrap_err();
            assert!(error.contains(reason), "{kind_text} {text}: {error}");
        }
        let long = "a".repeat(256);
        assert!(octets("TXT", &long).unwrap_err().contains("255 is the most"));
        assert!(octets("NS", &"a".repeat(64)).unwrap_err().contains("63 octets"));
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(59));
        assert_eq!(octets("NS", &longest).unwrap().len(), 255);
        assert!(octets("NS", &format!("{longest}a")).unwrap_err().contains("255 octets"));
        let many = "\"a\" ".repeat(40_000);
        assert!(octets("TXT", &many).unwrap_err().contains("65535 is the most"));
    }

    #[test]
    fn periods() {
        for (text, expected) in [
            ("0", Some(0)),
            ("90", Some(90)),
            ("1h30M", Some(5400)),
            ("1w2d3h4m5s", Some(788_645)),
            ("", None),
            ("h", None),
        ] {
            assert_eq!(period(text.as_bytes()).ok(), expected, "{text}");
        }
        for text in ["1h30", "-1", "1.5h", "2147483648", "4000w", "18446744073709551616"] {
            assert!(period(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_read_is_data_of_its_type(
            code in prop_oneof![1u16..70, 250u16..260, Just(65305u16)],
            text in prop_oneof!["[0-9a-zA-Z.=,:+/@# \"\\\\-]{0,60}", r"\\# [0-9]{1,2} ([0-9a-f]{2}){0,20}"],
        ) {
            let mut octets = Vec::new();
            if let Some(Ok(entry)) = Tokens::new(text.as_bytes(), 1000).next_entry()
                && read(code, &entry.tokens, b"\x01z\0", &mut octets).is_ok()
            {
                prop_assert!(fields(code).is_none_or(|fields| check(fields, &octets)));
                prop_assert_eq!(kind(kind_text(code).as_bytes()), Some(code));
            }
        }

        #[test]
        fn octets_are_checked_without_harm(code in 0u16..300, octets in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = fields(code).map(|fields| check(fields, &octets));
        }
    }
}
