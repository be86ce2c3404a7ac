//! One registration of a service.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Address, InstanceId, NodeName, Pairs, ServiceName, Texts};

/// One registration of a service: what the client said of it. What is found out about it (its
/// checks' status) is kept apart, in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub node: NodeName,
    pub id: InstanceId,
    pub service: ServiceName,
    #[serde(default, skip_serializing_if = "Texts::is_empty")]
    pub tags: Texts,
    /// Where the instance is reached; the node's address where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub meta: Pairs,
    #[serde(default)]
    pub port: u16,
    #[serde(default)]
    pub weights: Weights,
    #[serde(default)]
    pub enable_tag_override: bool,
    #[serde(default)]
    pub origin: Origin,
    #[serde(flatten)]
    pub extras: Seldom,
}

/// What few instances have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extras {
    /// Consul's `Kind`, kept as it came; empty for an ordinary service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}

/// [`Extras`], or a pointer's width for an instance that has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seldom(Option<Box<Extras>>);

static NONE: Extras = Extras {
    kind: String::new(),
    tagged_addresses: BTreeMap::new(),
    socket_path: String::new(),
    locality: None,
};

impl Deref for Seldom {
    type Target = Extras;

    fn deref(&self) -> &Extras {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl From<Extras> for Seldom {
    fn from(extras: Extras) -> Self {
        Self((extras != NONE).then(|| Box::new(extras)))
    }
}

impl Serialize for Seldom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Extras::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Seldom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Extras::deserialize(deserializer).map(Self::from)
    }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Registered through the agent API: listed by it, deregistered through it.
    #[default]
    Agent,
    /// Registered through the catalog API.
    Catalog,
    /// Stands in the configuration file, which owns it: not stored.
    File,
    /// Made at each start, on our own node: not stored.
    Own,
}

impl Origin {
    /// Whether the store keeps what comes from there.
    pub fn is_stored(self) -> bool {
        matches!(self, Self::Agent | Self::Catalog)
    }
}
