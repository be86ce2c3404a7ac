//! What happens to the registry.
//!
//! A [`Definition`] is what a client said and must outlive us: one put or removal of one record, so that
//! a store can keep the records by [`Key`] and replay them. An [`Observation`] is what was found out:
//! applied at once, written behind. A request that changes several things is a list of changes that is
//! applied as a whole.

use std::fmt;
use std::sync::Arc;

use arcstr::ArcStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Acl, AclKey, Check, CheckId, Instance, InstanceId, Node, NodeName, PreparedQuery, Route, ServiceName,
    Status,
};

/// One step of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Definition(Definition),
    Observation(Observation),
}

/// A put or a removal of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Definition {
    Put(Record),
    Remove(Key),
}

impl Definition {
    /// The key of the record.
    pub fn key(&self) -> Key {
        match self {
            Self::Put(record) => record.key(),
            Self::Remove(key) => key.clone(),
        }
    }
}

/// What is stored under one key. Removing a record does not remove those that hang on it (an
/// instance's checks): whoever plans the removal names each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    Node(Arc<Node>),
    Instance(Arc<Instance>),
    Check(Check),
    Maintenance(Maintenance),
    Query(Arc<PreparedQuery>),
    Acl(Acl),
    Route(Arc<Route>),
}

/// An operator's word that a node or an instance is out of service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    pub node: NodeName,
    /// The whole node where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    pub reason: ArcStr,
}

impl Record {
    /// Where the record is kept.
    pub fn key(&self) -> Key {
        match self {
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Instance(instance) => Key::Instance(instance.node.clone(), instance.id.clone()),
            Self::Check(check) => Key::Check(check.node.clone(), check.id.clone()),
            Self::Maintenance(m) => Key::Maintenance(m.node.clone(), m.instance.clone()),
            Self::Query(query) => Key::Query(query.id),
            Self::Acl(acl) => Key::Acl(acl.key()),
            Self::Route(route) => Key::Route(route.service.clone()),
        }
    }
}

/// The name of a record. Nodes sort before what hangs on them, so that a load in key order never
/// meets an instance before its node or a check before its instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Node(NodeName),
    Instance(NodeName, InstanceId),
    Check(NodeName, CheckId),
    Maintenance(NodeName, Option<InstanceId>),
    Query(Uuid),
    Acl(AclKey),
    Route(ServiceName),
}

/// The name of a check.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckKey {
    pub node: NodeName,
    pub id: CheckId,
}

impl fmt::Display for CheckKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.id)
    }
}

/// What was found out about a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub check: CheckKey,
    /// The definition that was judged: a result for one that was replaced meanwhile does not count.
    /// `None` means whichever stands now.
    pub generation: Option<u64>,
    pub status: Status,
    pub output: Arc<str>,
    /// Results still needed before the status can change (at least 1); bounds the TTL of answers.
    pub to_flip: u32,
}
