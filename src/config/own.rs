//! Values of keys that take more than a line: secrets, places, networks and their places.

use super::Config;
use super::value::{self, Value};
use crate::model::{Locality, Secret};
use crate::select::near::Clients;

/// A token's secret; it is never repeated in an error.
pub(super) fn secret(value: &Value<'_>) -> Result<Secret, String> {
    let text = value::text(value)?;
    if text.is_empty() || text.len() > crate::registry::views::TOKEN_OCTETS_MAX {
        return Err("a token has 1 to 1024 octets".to_owned());
    }
    Ok(Secret::new(text))
}

/// The place of this machine, once one of its keys is set.
pub(super) fn own(config: &mut Config) -> &mut Locality {
    config.locality.own.get_or_insert_with(|| Locality { region: String::new(), zone: String::new() })
}

pub(super) fn place(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        return Err(format!(
            "{text:?} is no name of a region or zone: 1 to 128 octets, no control characters"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn clients(value: &Value<'_>) -> Result<Clients, String> {
    let networks = value::texts(value)?.into_iter().map(|(network, text)| {
        let (region, zone) = text.split_once('/').map_or((text, None), |(region, zone)| (region, Some(zone)));
        let zone = zone.map(place).transpose()?.unwrap_or_default();
        Ok((value::network_of(network)?, Locality { region: place(region)?, zone }))
    });
    let networks: Vec<_> = networks.collect::<Result<_, String>>()?;
    for (at, (network, _)) in networks.iter().enumerate() {
        if networks[..at].iter().any(|(other, _)| other == network) {
            return Err(format!("{network} is named twice"));
        }
    }
    Ok(Clients::new(networks))
}

/// `["system"]` is an empty list: what the system asks.
pub(super) fn upstreams(value: &Value<'_>) -> Result<Vec<std::net::SocketAddr>, String> {
    let is_system = |value: &Value<'_>| value.as_str() == Some("system");
    if value.as_array().is_some_and(|items| items.len() == 1 && is_system(items[0].get_ref())) {
        return Ok(Vec::new());
    }
    let upstreams = value::list(value, value::upstream)?;
    if upstreams.is_empty() {
        return Err("name at least one upstream, or [\"system\"]".to_owned());
    }
    Ok(upstreams)
}
