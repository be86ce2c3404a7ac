//! From keys to what each room is started with, and defaults that depend on the machine.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use uuid::Uuid;

use super::{Config, Data};
use crate::checks::outbound;
use crate::model::{Address, Node, NodeName};
use crate::{dns, http, select};

impl Config {
    /// Our own node.
    pub fn own_node(&self, id: Uuid) -> Node {
        let address = self.node_address.clone();
        let listen =
            || node_address(self.dns.listen.iter().chain(&self.http.listen).chain(&self.https.listen));
        Node {
            name: self.node_name.clone(),
            id: Some(id),
            address: address.unwrap_or_else(|| Address::Ip(listen())),
            tagged_addresses: Default::default(),
            meta: self.node_meta.clone(),
            locality: self.locality.own.clone(),
            implied: false,
        }
    }

    /// What DNS answers by.
    pub fn dns_settings(&self) -> dns::Settings {
        dns::Settings {
            domains: dns::Domains {
                domains: self.domains(),
                datacenter: self.datacenter.clone(),
                own_node: self.node_name.folded().to_owned(),
                settings: self.select_settings(),
            },
            payload: self.dns.payload,
            tcp: self.dns.tcp,
            client_subnet_from: self.locality.client_subnet_from.clone(),
            forward_for: self.forward.as_ref().map_or_else(Vec::new, |forward| forward.allow.clone()),
        }
    }

    /// What answers depend on beside the registry.
    fn select_settings(&self) -> select::Settings {
        select::Settings {
            ttl_ceiling: self.dns.ttl,
            service_ttl: self.dns.service_ttl.clone(),
            a_limit: self.dns.a_limit.clone(),
            nearest: self.dns.nearest.clone(),
            clients: self.locality.clients.clone(),
        }
    }

    /// What the HTTP API tells of other rooms' configuration.
    fn shown(&self) -> http::Shown {
        let data_dir = match &self.data {
            Data::Dir(dir) => Some(dir.clone()),
            Data::Ephemeral => None,
        };
        http::Shown {
            dns_listen: self.dns.listen.clone(),
            http_listen: self.http.listen.clone(),
            domain: self.dns.domain.to_string(),
            alt_domains: self.dns.alt_domains.iter().map(ToString::to_string).collect(),
            data_dir,
            log_level: self.log.level.clone(),
            node_meta: self.node_meta.clone(),
        }
    }

    /// What the HTTP API is served by.
    pub fn http_config(&self, node_id: Uuid) -> http::Config {
        http::Config {
            node: self.node_name.clone(),
            node_id,
            datacenter: self.datacenter.clone(),
            settings: self.select_settings(),
            allowed_hosts: self.http.allowed_hosts.clone(),
            script_checks: self.checks.script,
            targets: self.checks.targets.clone(),
            body_octets_max: self.http.body_max,
            connections_max: self.http.connections_max,
            connections_per_client_max: self.http.connections_per_client_max,
            idle: self.http.idle,
            body_wait: self.http.body_wait,
            filter: self.filter,
            handshake_wait: self.https.handshake_wait,
            handshakes_max: self.https.handshakes_max,
            handshakes_per_client_max: self.https.handshakes_per_client_max,
            import_octets_max: self.http.import_max,
            streams_max: self.http.streams_max,
            backups_max: self.http.backups_max,
            requests_per_client_max: self.http.requests_per_client_max,
            events_max: self.http.events_max,
            drains_max: self.http.drains_max,
            write_wait: self.http.write_wait,
            monitors_max: self.http.monitors_max,
            monitor_lines_max: self.http.monitor_lines_max,
            ui: self.http.ui,
            shown: self.shown(),
        }
    }
}

impl Config {
    /// Puts the running values of keys that only a start takes in place of new ones; names those that differ.
    pub fn keep_started(&mut self, running: &Self) -> Vec<&'static str> {
        let mut differ = Vec::new();
        macro_rules! keep {
            ($($key:literal: $($field:ident).+),+ $(,)?) => {
                $(if self.$($field).+ != running.$($field).+ {
                    differ.push($key);
                    self.$($field).+ = running.$($field).+.clone();
                })+
            };
        }
        keep!(
            "node_name": node_name, "node_id": node_id, "node_address": node_address, "node_meta": node_meta,
            "datacenter": datacenter, "data_dir": data, "[dns] listen": dns.listen, "[dns] domain": dns.domain,
            "[dns] alt_domains": dns.alt_domains, "[dns] udp_threads": dns.udp_threads, "[http] listen": http.listen,
            "[http] listen (unix)": http.unix, "[http] unix_mode, unix_owner": http.unix_access, "[https] listen": https.listen,
            "[locality] region and zone": locality.own, "[checks]": checks,
            "[forward]": forward, "[store] cache": cache_octets, "[store] key_file": store_key, "[telemetry] log_format": log.format, "[audit]": audit, "[telemetry] otlp_endpoint": otlp.endpoint, "[telemetry] otlp_protocol": otlp.protocol,
            "[telemetry] headers": otlp.headers, "[limits] trace_spans_max": otlp.spans_max,
            "[limits] watchers_max": limits.watchers_max, "[limits] queue_max": limits.queue_max,
        );
        differ
    }
}

/// The address of this machine as those see it who reach the given listeners: where one of them is every address, the one that the
/// kernel would use to reach others; else the first that is not loopback; else loopback.
pub fn node_address<'a>(listen: impl Iterator<Item = &'a SocketAddr> + Clone) -> IpAddr {
    let mut addresses = listen.map(SocketAddr::ip);
    let loopback = IpAddr::from([127, 0, 0, 1]);
    if addresses.clone().any(|ip| ip.is_unspecified()) {
        return outbound().or_else(interface).unwrap_or(loopback);
    }
    addresses.find(|ip| !ip.is_loopback()).unwrap_or(loopback)
}

/// The first address of an interface that is neither loopback nor of the link alone.
fn interface() -> Option<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    let link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let mut usable: Vec<IpAddr> = addresses.filter(|ip| !ip.is_loopback() && !link_local(ip)).collect();
    usable.sort_by_key(IpAddr::is_ipv6);
    usable.into_iter().next()
}

/// The host name; `localhost` where there is none that could be a node's.
pub(super) fn host_name() -> NodeName {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name = name.and_then(|name| NodeName::parse(&name).ok());
    // "localhost" is a name.
    name.or_else(|| NodeName::parse("localhost").ok()).unwrap_or_else(|| unreachable!())
}

/// Where definitions are kept when nobody says: what systemd gives, else the user's state directory.
pub(super) fn state_dir() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("STATE_DIRECTORY") {
        return dir;
    }
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from("/var/lib")).join("rollcall")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_where_others_reach_us() {
        let address = |listen: &[&str]| {
            let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
            node_address(listen.iter()).to_string()
        };
        assert_eq!(address(&["127.0.0.1:8600", "[::1]:1"]), "127.0.0.1");
        assert_eq!(address(&["127.0.0.1:8600", "192.0.2.7:8500"]), "192.0.2.7");
        assert_ne!(address(&["0.0.0.0:8600"]), "0.0.0.0");
    }
}
