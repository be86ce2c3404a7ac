//! Service parameters of SVCB and HTTPS (RFC 9460 section 2.1 and 7).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::BASE64;

use super::rdata::{address, not, number, shown};
use super::token::{Token, unescape};

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;

const KEYS: &[(&str, u16)] = &[
    ("mandatory", MANDATORY),
    ("alpn", ALPN),
    ("no-default-alpn", NO_DEFAULT_ALPN),
    ("port", PORT),
    ("ipv4hint", IPV4HINT),
    ("ech", ECH),
    ("ipv6hint", IPV6HINT),
    ("dohpath", 7),
    ("ohttp", 8),
];

fn key(text: &[u8]) -> Result<u16, String> {
    if let Some((_, code)) = KEYS.iter().find(|(name, _)| name.as_bytes() == text) {
        return Ok(*code);
    }
    // Section 14.3.1: `key` and a number without leading zeros; 65535 is reserved.
    let digits = text.strip_prefix(b"key").filter(|digits| digits.len() == 1 || !digits.starts_with(b"0"));
    digits.and_then(|digits| number(digits, 65_534).ok()).map(|code| code as u16).ok_or_else(|| {
        format!("{} is not a service parameter that is known; write it as keyNNNNN", shown(text))
    })
}

/// Appends the parameters that the tokens spell, in the order of their keys (section 2.2).
pub(super) fn read<'a, 't: 'a>(
    tokens: &mut impl Iterator<Item = &'a Token<'t>>,
    octets: &mut Vec<u8>,
) -> Result<(), String> {
    let mut params = BTreeMap::new();
    for token in tokens {
        let (name, value) = match token.text.iter().position(|octet| *octet == b'=') {
            Some(at) => (&token.text[..at], Some(&token.text[at + 1..])),
            None => (token.text, None),
        };
        let code = key(name)?;
        let quoted = value.and_then(|text| text.strip_prefix(b"\"")?.strip_suffix(b"\""));
        let value = unescape(quoted.or(value).unwrap_or_default())?;
        if params.insert(code, read_value(code, &value)?).is_some() {
            return Err(format!("{} stands twice", shown(name)));
        }
    }
    consistent(&params)?;
    for (code, value) in params {
        let length =
            u16::try_from(value.len()).map_err(|_| "service parameter has more than 65535 octets")?;
        octets.extend(code.to_be_bytes());
        octets.extend(length.to_be_bytes());
        octets.extend(value);
    }
    Ok(())
}

fn read_value(code: u16, text: &[u8]) -> Result<Vec<u8>, String> {
    let mut value = Vec::new();
    match code {
        MANDATORY => {
            let mut codes = list(text)?.iter().map(|name| key(name)).collect::<Result<Vec<_>, _>>()?;
            codes.sort_unstable();
            value.extend(codes.iter().flat_map(|code| code.to_be_bytes()));
        }
        ALPN => {
            for id in list(text)? {
                value.push(u8::try_from(id.len()).map_err(|_| not("an ALPN id of 1 to 255 octets", &id))?);
                value.extend(id);
            }
        }
        NO_DEFAULT_ALPN if !text.is_empty() => return Err("no-default-alpn has no value".to_owned()),
        PORT => value.extend((number(text, 65_535)? as u16).to_be_bytes()),
        IPV4HINT => {
            for item in list(text)? {
                value.extend(address::<Ipv4Addr>(&item, "an IPv4 address")?.octets());
            }
        }
        IPV6HINT => {
            for item in list(text)? {
                value.extend(address::<Ipv6Addr>(&item, "an IPv6 address")?.octets());
            }
        }
        ECH => value = BASE64.decode(text).map_err(|_| not("base 64", text))?,
        _ => value.extend(text),
    }
    Ok(value)
}

/// The items of a comma-separated list; `\,` and `\\` stand for the characters themselves (appendix A.1).
fn list(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let (mut items, mut octets) = (vec![Vec::new()], text.iter());
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b',' => {
                items.push(Vec::new());
                continue;
            }
            b'\\' => octets.next().ok_or_else(|| not("a list", text))?,
            octet => octet,
        };
        if let Some(item) = items.last_mut() {
            item.push(*octet);
        }
    }
    if items.iter().any(Vec::is_empty) {
        return Err(format!("{} has an empty item", shown(text)));
    }
    Ok(items)
}

fn consistent(params: &BTreeMap<u16, Vec<u8>>) -> Result<(), String> {
    // Section 7.1.1: without `alpn` nothing would be left.
    if params.contains_key(&NO_DEFAULT_ALPN) && !params.contains_key(&ALPN) {
        return Err("no-default-alpn needs alpn".to_owned());
    }
    // Section 8: each key once, not `mandatory` itself, and only what is there.
    let named = params.get(&MANDATORY).map(Vec::as_slice).unwrap_or_default();
    let codes: Vec<u16> = named.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let valid = codes.is_sorted_by(|a, b| a < b)
        && codes.iter().all(|code| *code != MANDATORY && params.contains_key(code));
    valid
        .then_some(())
        .ok_or_else(|| "mandatory names a key twice, itself, or one that is missing".to_owned())
}

/// Whether octets are parameters: keys in order, each once, with their lengths.
pub(super) fn check(octets: &[u8]) -> bool {
    let (mut rest, mut last) = (octets, None);
    while let [a, b, c, d, value @ ..] = rest {
        let (code, length) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        let Some(behind) = value.get(usize::from(length)..) else { return false };
        if last.is_some_and(|last| last >= code) {
            return false;
        }
        (rest, last) = (behind, Some(code));
    }
    rest.is_empty()
}
