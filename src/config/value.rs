//! Values as the keys take them: each function gives the value, or words on what it should have been.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Listen;
use crate::dns;
use crate::model::duration;

pub(super) type Value<'a> = DeValue<'a>;

fn not(value: &Value<'_>, wanted: &str) -> String {
    let shown = match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        other => format!("this {}", other.type_str()),
    };
    format!("{shown} is not {wanted}")
}

pub(super) fn text<'a>(value: &'a Value<'_>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| not(value, "a string"))
}

pub(super) fn flag(value: &Value<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| not(value, "true or false"))
}

/// A number between the bounds, both included.
pub(super) fn number(value: &Value<'_>, least: u64, most: u64) -> Result<u64, String> {
    let wanted = || not(value, &format!("a number between {least} and {most}"));
    let number = value.as_integer().ok_or_else(wanted)?;
    let number = u64::from_str_radix(number.as_str(), number.radix()).map_err(|_| wanted())?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(wanted()) }
}

/// How many of something: at least one.
pub(super) fn count(value: &Value<'_>) -> Result<usize, String> {
    let number = number(value, 1, u64::from(u32::MAX))?;
    usize::try_from(number).map_err(|_| not(value, "a number that this machine can count to"))
}

/// The same, or 0 for none.
pub(super) fn count_or_none(value: &Value<'_>) -> Result<usize, String> {
    let number = number(value, 0, u64::from(u32::MAX))?;
    usize::try_from(number).map_err(|_| not(value, "a number that this machine can count to"))
}

/// Octets: a number, or a text with a unit (`"64MiB"`).
pub(super) fn octets(value: &Value<'_>) -> Result<usize, String> {
    let wanted = || not(value, "a size such as \"64MiB\", \"512KiB\" or a number of octets");
    let Some(text) = value.as_str() else { return count(value).map_err(|_| wanted()) };
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let scale = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1usize << 30,
        _ => return Err(wanted()),
    };
    let number: usize = digits.parse().map_err(|_| wanted())?;
    number.checked_mul(scale).filter(|octets| *octets > 0).ok_or_else(wanted)
}

/// Go's form, above zero.
pub(super) fn time(value: &Value<'_>) -> Result<Duration, String> {
    let wanted = || not(value, "a duration such as \"5s\", \"250ms\" or \"1m30s\"");
    let duration = duration::parse(value.as_str().ok_or_else(wanted)?).map_err(|e| e.to_string())?;
    if duration.is_zero() { Err(not(value, "a duration above zero")) } else { Ok(duration) }
}

/// Go's form, zero included, at most an hour: what an operator waits for.
pub(super) fn wait(value: &Value<'_>) -> Result<Duration, String> {
    let wanted = || not(value, "a duration of at most an hour such as \"0s\" or \"10s\"");
    let duration = duration::parse(value.as_str().ok_or_else(wanted)?).map_err(|e| e.to_string())?;
    if duration > Duration::from_secs(3600) { Err(wanted()) } else { Ok(duration) }
}

/// Whole seconds, zero included.
pub(super) fn ttl(value: &Value<'_>) -> Result<Duration, String> {
    let wanted = || not(value, "a TTL in whole seconds such as \"5s\" (at most 24h)");
    let duration = duration::parse(value.as_str().ok_or_else(wanted)?).map_err(|e| e.to_string())?;
    if duration.subsec_nanos() != 0 || duration > Duration::from_secs(86_400) {
        return Err(wanted());
    }
    Ok(duration)
}

pub(super) fn list<T>(
    value: &Value<'_>,
    each: impl Fn(&Value<'_>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let items = value.as_array().ok_or_else(|| not(value, "a list such as [\"…\"]"))?;
    items.iter().map(|item| each(item.get_ref())).collect()
}

fn parsed<T: FromStr>(value: &Value<'_>, wanted: &str) -> Result<T, String> {
    let text = value.as_str().ok_or_else(|| not(value, wanted))?;
    text.parse().map_err(|_| not(value, wanted))
}

/// An IP address and a port to listen on.
pub(super) fn listen(value: &Value<'_>) -> Result<SocketAddr, String> {
    parsed(value, "an IP address and a port such as \"127.0.0.1:8600\" or \"[::]:53\"")
}

/// The same, or a Unix socket.
pub fn http_listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        // sun_path of unix(7), with the octet behind the end.
        const PATH_OCTETS_MAX: usize = 107;
        if !path.starts_with('/') || path.len() > PATH_OCTETS_MAX {
            let text =
                format!("{text:?} is not unix:// and an absolute path of at most {PATH_OCTETS_MAX} octets");
            return Err(text);
        }
        return Ok(Listen::Unix(path.into()));
    }
    let wanted = "an IP address and a port such as \"127.0.0.1:8500\", or \"unix:///run/rollcall/api.sock\"";
    text.parse().map(Listen::Tcp).map_err(|_| format!("{text:?} is not {wanted}"))
}

/// Permission bits: octal digits.
pub(super) fn mode(value: &Value<'_>) -> Result<u32, String> {
    let wanted = || not(value, "permission bits such as \"0600\" or \"0660\"");
    let text = value.as_str().ok_or_else(wanted)?;
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && text.len() <= 4).ok_or_else(wanted)
}

/// `user`, `user:group` or `:group`, by name or number.
pub(super) fn owner(value: &Value<'_>) -> Result<(Option<String>, Option<String>), String> {
    let text = text(value)?;
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    Ok((some(user), some(group)))
}

pub(super) fn network(value: &Value<'_>) -> Result<IpNet, String> {
    let address = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let wanted = "a network such as \"10.0.0.0/8\", or an address";
    address.map_or_else(|| parsed(value, wanted), |ip| Ok(IpNet::from(ip)))
}

/// A network that is a key: its addresses' first bits alone.
pub(super) fn network_of(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
    network
        .map(|network| network.trunc())
        .map_err(|_| format!("{text:?} is not a network such as \"10.0.0.0/8\", or an address"))
}

/// A server to ask: an address, with port 53 where none is given.
pub(super) fn upstream(value: &Value<'_>) -> Result<SocketAddr, String> {
    let address = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let wanted = "\"system\", or an address such as \"192.0.2.1\" or \"[2001:db8::1]:53\"";
    address.map_or_else(|| parsed(value, wanted), |ip| Ok(SocketAddr::new(ip, 53)))
}

/// A domain name, made absolute and lower case.
pub(super) fn domain(value: &Value<'_>) -> Result<dns::Name, String> {
    let text = text(value)?;
    let name = dns::Name::from_ascii(text).map_err(|e| format!("{text:?} is not a domain name: {e}"))?;
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    if name.is_root() {
        return Err(not(value, "a domain below the root"));
    }
    Ok(name)
}

/// A table of texts.
pub(super) fn texts<'a>(value: &'a Value<'_>) -> Result<Vec<(&'a str, &'a str)>, String> {
    let table = value.as_table().ok_or_else(|| not(value, "a table"))?;
    pairs(table).map(|(key, value)| Ok((key, text(value)?))).collect()
}

/// The keys and values of a table, without their places.
pub(super) fn pairs<'a>(table: &'a DeTable<'_>) -> impl Iterator<Item = (&'a str, &'a Value<'a>)> {
    table.iter().map(|(key, value)| {
        let value: &Spanned<DeValue<'_>> = value;
        (key.get_ref().as_ref(), value.get_ref())
    })
}
