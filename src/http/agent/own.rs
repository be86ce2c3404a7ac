//! `/v1/agent/self` and `version`: what clients ask to learn whom they speak to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::query::Params;
use crate::http::route::{self, get};
use crate::http::status::server;
use crate::http::{Config, State};
use crate::model::{Node, Origin};
use crate::registry::Registry;

/// The version of Consul's API that we speak: clients compare it.
const API_VERSION: &str = "1.21.4";
/// When nobody says: builds are the same whenever they are made.
const BUILD_DATE: &str = "1970-01-01T00:00:00Z";
/// Where Consul's agents gossip; nothing listens there.
const GOSSIP_PORT: u16 = 8301;
/// What stands for a secret, set or not.
const HIDDEN: &str = "hidden";

/// Parts of the server's configuration that concern others than this API, to be shown.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    pub dns_listen: Vec<SocketAddr>,
    pub http_listen: Vec<SocketAddr>,
    pub domain: String,
    pub alt_domains: Vec<String>,
    /// Absent where nothing is kept.
    pub data_dir: Option<PathBuf>,
    pub log_level: String,
    pub node_meta: BTreeMap<String, String>,
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/agent/self", get(this)).route("/v1/agent/version", get(version))
}

async fn version(_: Params) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    route::json(&json!({
        "SHA": "", "BuildDate": BUILD_DATE, "HumanVersion": API_VERSION, "FIPS": "", "Rollcall": version,
    }))
}

fn revision() -> String {
    format!("rollcall-{}", env!("CARGO_PKG_VERSION"))
}

async fn this(Extract(state): Extract<Arc<State>>, _: Params) -> Response {
    let config = state.config.load();
    let snapshot = state.registry.load();
    let own = snapshot.node(config.node.folded());
    let member = member(&state);
    route::json(&json!({
        "Config": {
            "Datacenter": config.datacenter,
            "PrimaryDatacenter": config.datacenter,
            "NodeName": config.node,
            "NodeID": config.node_id.to_string(),
            "Revision": revision(),
            "Server": true,
            "Version": API_VERSION,
            "BuildDate": BUILD_DATE,
        },
        "DebugConfig": debug_config(&config, &state.registry, own.map(|entry| &*entry.node)),
        "Coord": Value::Null,
        "Member": member,
        "Stats": stats(&state),
        "Meta": own.map(|entry| &entry.node.meta),
        "xDS": { "SupportedProxies": {}, "Port": -1, "Ports": { "Plaintext": -1, "TLS": -1 } },
    }))
}

/// Our own entry among Consul's members. Status 1 is alive.
pub(in crate::http) fn member(state: &State) -> Value {
    let config = state.config.load();
    let snapshot = state.registry.load();
    let own = snapshot.node(config.node.folded());
    let address = own.map_or_else(String::new, |entry| entry.node.address.to_string());
    json!({
        "Name": config.node,
        "Addr": address,
        "Port": GOSSIP_PORT,
        "Tags": {
            "acls": if state.registry.access_is_controlled() { "1" } else { "0" }, "bootstrap": "1", "build": format!("{API_VERSION}:{}", revision()), "dc": config.datacenter,
            "ft_fs": "1", "ft_si": "1", "id": config.node_id.to_string(), "port": "8300", "raft_vsn": "3",
            "role": "consul", "segment": "", "vsn": "2", "vsn_max": "3", "vsn_min": "2", "wan_join_port": "8302",
        },
        "Status": 1,
        "ProtocolMin": 1,
        "ProtocolMax": 5,
        "ProtocolCur": 2,
        "DelegateMin": 2,
        "DelegateMax": 5,
        "DelegateCur": 4,
    })
}

/// What clients read of Consul's running configuration, in its keys. Secrets are never here.
fn debug_config(config: &Config, registry: &Registry, own: Option<&Node>) -> Value {
    let controlled = registry.access_is_controlled();
    let default = if registry.default_is_allow() { "allow" } else { "deny" };
    let shown = &config.shown;
    let address = own.map_or_else(String::new, |node| node.address.to_string());
    let gossip = match address.contains(':') {
        true => format!("tcp://[{address}]:{GOSSIP_PORT}"),
        false => format!("tcp://{address}:{GOSSIP_PORT}"),
    };
    let of = |scheme: &str, all: &[SocketAddr]| -> Vec<String> {
        all.iter().map(|address| format!("{scheme}://{address}")).collect()
    };
    let dns = [of("tcp", &shown.dns_listen), of("udp", &shown.dns_listen)].concat();
    let port = |all: &[SocketAddr]| all.first().map_or(-1, |address| i32::from(address.port()));
    json!({
        "ACLEnabled": controlled,
        "ACLsEnabled": controlled,
        "ACLDefaultPolicy": default,
        "ACLTokens": {
            "ACLAgentToken": HIDDEN, "ACLAgentRecoveryToken": HIDDEN, "ACLDefaultToken": HIDDEN,
            "ACLReplicationToken": HIDDEN, "DataDir": shown.data_dir, "EnablePersistence": true,
        },
        "ACLInitialManagementToken": HIDDEN,
        "AdvertiseAddrLAN": address,
        "AdvertiseAddrWAN": address,
        "Bootstrap": true,
        "BuildDate": BUILD_DATE,
        "ConnectEnabled": false,
        "DNSAddrs": dns,
        "DNSAltDomain": shown.alt_domains.first().map_or("", String::as_str),
        "DNSDomain": shown.domain,
        "DNSPort": port(&shown.dns_listen),
        "DataDir": shown.data_dir,
        "Datacenter": config.datacenter,
        "DevMode": false,
        "DisableCoordinates": true,
        "EnableLocalScriptChecks": config.script_checks,
        "EnableRemoteScriptChecks": config.script_checks,
        "EnableScriptChecks": config.script_checks,
        "EncryptKey": HIDDEN,
        "GRPCPort": -1,
        "GRPCTLSPort": -1,
        "HTTPAddrs": of("tcp", &shown.http_listen),
        "HTTPPort": port(&shown.http_listen),
        "HTTPSPort": -1,
        "HTTPMaxConnsPerClient": config.connections_per_client_max,
        "Logging": { "LogLevel": shown.log_level },
        "NodeID": config.node_id.to_string(),
        "NodeMeta": shown.node_meta,
        "NodeName": config.node,
        "PeeringEnabled": false,
        "PrimaryDatacenter": config.datacenter,
        "Revision": revision(),
        "SerfAdvertiseAddrLAN": gossip,
        "SerfPortLAN": GOSSIP_PORT,
        "ServerMode": true,
        "ServerPort": 8300,
        "UIConfig": { "Enabled": false },
        "Version": API_VERSION,
    })
}

/// Texts throughout, as Consul has them.
fn stats(state: &State) -> Value {
    let config = state.config.load();
    let snapshot = state.registry.load();
    let own = snapshot.node(config.node.folded());
    let services = own.map_or(0, |entry| {
        entry.instances.values().filter(|entry| entry.instance.origin != Origin::Own).count()
    });
    let checks = own
        .map_or(0, |entry| entry.checks.values().filter(|entry| entry.check.origin != Origin::Own).count());
    let index = snapshot.index().to_string();
    let cores = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let alone = json!({ "failed": "0", "health_score": "0", "left": "0", "members": "1" });
    json!({
        "agent": { "check_monitors": "0", "check_ttls": "0", "checks": checks.to_string(), "services": services.to_string() },
        "build": { "prerelease": "", "revision": revision(), "version": API_VERSION, "version_metadata": "" },
        "consul": {
            "acl": "disabled", "bootstrap": "true", "known_datacenters": "1", "leader": "true",
            "leader_addr": server(state), "server": "true",
        },
        "raft": {
            "applied_index": index, "commit_index": index, "last_log_index": index, "num_peers": "0", "state": "Leader",
        },
        "runtime": {
            "arch": std::env::consts::ARCH, "cpu_count": cores, "max_procs": cores, "os": std::env::consts::OS,
            "version": "",
        },
        "serf_lan": alone,
        "serf_wan": alone,
    })
}
