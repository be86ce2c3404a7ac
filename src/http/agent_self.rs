//! `/v1/agent/self`: what clients ask to learn whom they speak to.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde_json::{Value, json};

use super::State;
use super::query::Params;
use super::route::{self, get};
use super::status::server;

/// The version of Consul's API that we speak: clients compare it.
const API_VERSION: &str = "1.21.4";

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/agent/self", get(this)).route("/v1/agent/version", get(version))
}

async fn version(_: Params) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    route::json(&json!({
        "SHA": "", "BuildDate": "1970-01-01T00:00:00Z", "HumanVersion": API_VERSION, "FIPS": "", "Rollcall": version,
    }))
}

async fn this(Extract(state): Extract<Arc<State>>, _: Params) -> Response {
    let config = state.config.load();
    let snapshot = state.registry.load();
    let own = snapshot.node(config.node.folded());
    let address = own.map_or_else(String::new, |entry| entry.node.address.to_string());
    let meta = own.map(|entry| &entry.node.meta);
    let revision = format!("rollcall-{}", env!("CARGO_PKG_VERSION"));
    let tags = json!({
        "acls": "0", "bootstrap": "1", "build": format!("{API_VERSION}:{revision}"), "dc": config.datacenter,
        "id": config.node_id.to_string(), "port": "8300", "raft_vsn": "3", "role": "consul", "segment": "",
        "vsn": "2", "vsn_max": "3", "vsn_min": "2", "wan_join_port": "8302", "ft_fs": "1", "ft_si": "1",
    });
    route::json(&json!({
        "Config": {
            "Datacenter": config.datacenter,
            "PrimaryDatacenter": config.datacenter,
            "NodeName": config.node,
            "NodeID": config.node_id.to_string(),
            "Revision": revision,
            "Server": true,
            "Version": API_VERSION,
            "BuildDate": "1970-01-01T00:00:00Z",
        },
        "DebugConfig": {
            "ACLsEnabled": false,
            "Datacenter": config.datacenter,
            "EnableScriptChecks": config.script_checks,
            "NodeName": config.node,
            "SerfAdvertiseAddrLAN": format!("tcp://{address}:8301"),
            "ServerMode": true,
        },
        "Coord": Value::Null,
        "Member": {
            "Name": config.node,
            "Addr": address,
            "Port": 8301,
            "Tags": tags,
            "Status": 1,
            "ProtocolMin": 1,
            "ProtocolMax": 5,
            "ProtocolCur": 2,
            "DelegateMin": 2,
            "DelegateMax": 5,
            "DelegateCur": 4,
        },
        "Stats": {
            "agent": {
                "check_monitors": "0",
                "checks": own.map_or(0, |entry| entry.checks.len()).to_string(),
                "services": own.map_or(0, |entry| entry.instances.len()).to_string(),
            },
            "build": { "revision": revision, "version": API_VERSION },
            "consul": { "leader": "true", "leader_addr": server(&state), "server": "true" },
            "runtime": { "arch": std::env::consts::ARCH, "os": std::env::consts::OS },
        },
        "Meta": meta,
    }))
}
