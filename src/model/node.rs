//! A machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Address, Locality, NodeName};

/// A machine on which instances run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: NodeName,
    /// A UUID, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<uuid::Uuid>,
    pub address: Address,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, Address>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Where it stands, where somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// Made on first use by a registration from a new address; it goes with its last instance and check.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub implied: bool,
}

impl Node {
    /// Whether somebody else runs the checks of this node and reports their results (Consul's
    /// external service monitor marks such nodes with this meta key).
    pub fn is_external(&self) -> bool {
        self.meta.get("external-node").is_some_and(|value| value == "true")
    }
}
