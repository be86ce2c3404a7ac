//! One registration of a service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Address, InstanceId, NodeName, ServiceName};

/// One registration of a service: what the client said of it. What is found out about it (its
/// checks' status) is kept apart, in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub node: NodeName,
    pub id: InstanceId,
    pub service: ServiceName,
    /// Consul's `Kind`, kept as it came; empty for an ordinary service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Where the instance is reached; the node's address where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    #[serde(default)]
    pub port: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    #[serde(default)]
    pub weights: Weights,
    #[serde(default)]
    pub enable_tag_override: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    #[serde(default)]
    pub origin: Origin,
}

/// An address under a name such as `lan_ipv6` or `wan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedAddress {
    pub address: Address,
    #[serde(default)]
    pub port: u16,
}

/// SRV weights by status. Consul's default is 1 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights {
    pub passing: u16,
    pub warning: u16,
}

impl Default for Weights {
    fn default() -> Self {
        Self { passing: 1, warning: 1 }
    }
}

/// Where an instance runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locality {
    #[serde(default)]
    pub region: String,
    #[serde(default)]
    pub zone: String,
}

/// Who owns a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Registered through the agent API: listed by it, deregistered through it.
    #[default]
    Agent,
    /// Registered through the catalog API.
    Catalog,
    /// Stands in the configuration file, which owns it: not stored.
    File,
}
