//! What changed, for those who follow from afar: each change with the service it is of and how things stood before and after.
//!
//! The writer makes them while it applies a change, when what was before is still there, so that nobody compares two
//! snapshots and nobody has to guess whose a removed check was. They are made only once somebody has asked for them
//! ([`Registry::record`](super::Registry::record)).

use std::sync::Arc;

use arcstr::ArcStr;

use super::snapshot::{Health, Snapshot};
use crate::model::{
    CheckId, CheckKey, Definition, Instance, InstanceId, Key, NodeName, Record, Route, ServiceName, Status,
};

/// One change. Those of one request have the same index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub index: u64,
    pub of: Of,
    pub what: What,
}

/// Whose a change is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// Of the node itself, or of a check or maintenance of it.
    Node(NodeName),
    /// Of an instance, or of a check or maintenance of one.
    Instance(NodeName, ServiceName, InstanceId),
    /// Of how a service's name answers.
    Service(ServiceName),
}

impl Of {
    fn whose(node: &NodeName, instance: Option<&Instance>) -> Self {
        match instance {
            Some(of) => Self::Instance(node.clone(), of.service.clone(), of.id.clone()),
            None => Self::Node(node.clone()),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A node; `new` when it was not there.
    Node {
        new: bool,
    },
    NodeRemoved,
    Registered {
        new: bool,
    },
    Deregistered,
    /// A check was defined; with the status that it had, and has.
    Check {
        check: CheckId,
        before: Option<Status>,
        after: Status,
    },
    CheckRemoved {
        check: CheckId,
        before: Status,
    },
    /// A check's status changed, and with it perhaps the health of its instance.
    Status {
        check: CheckId,
        before: Status,
        after: Status,
        health: Option<(Health, Health)>,
    },
    /// Maintenance began, for this reason, or ended.
    Maintenance(Option<ArcStr>),
    /// The circuit of an instance turned.
    Circuit {
        before: &'static str,
        after: &'static str,
    },
    /// From now on a guard keeps an instance in DNS that is critical, or does so no longer.
    Guard {
        keeps: bool,
    },
    /// A service's route is this one now, or it is gone.
    Route(Option<Arc<Route>>),
}

impl Snapshot {
    /// What a definition will have changed; asked before it is applied. Nothing where it will be passed over.
    pub(super) fn event_of(&self, index: u64, definition: &Definition) -> Option<Event> {
        let key = definition.key();
        let (node, id) = match &key {
            Key::Node(node) => (node, None),
            Key::Instance(node, id) => (node, Some(id.clone())),
            Key::Check(node, _) => (node, self.checked(&key, definition)),
            Key::Maintenance(node, id) => (node, id.clone()),
            Key::Route(service) => return self.event_of_route(index, service, definition),
            // They are of no node, and change nothing that is registered.
            Key::Query(_) | Key::Acl(_) => return None,
        };
        let entry = self.node(node.folded());
        let instance = id.as_ref().and_then(|id| entry?.instances.get(id));
        let mut of = instance.map(|entry| &*entry.instance);
        let what = match (definition, &key) {
            (Definition::Put(Record::Node(_)), _) => What::Node { new: entry.is_none() },
            (Definition::Put(Record::Instance(put)), _) => {
                of = Some(put);
                What::Registered { new: instance.is_none() }
            }
            (Definition::Put(Record::Check(check)), _) => {
                let before = entry?.checks.get(&check.id).map(|old| old.status);
                What::Check { check: check.id.clone(), before, after: before.unwrap_or(check.initial) }
            }
            (Definition::Put(Record::Maintenance(word)), _) => What::Maintenance(Some(word.reason.clone())),
            (Definition::Remove(_), Key::Node(_)) => entry.map(|_| What::NodeRemoved)?,
            (Definition::Remove(_), Key::Instance(..)) => instance.map(|_| What::Deregistered)?,
            (Definition::Remove(_), Key::Check(_, check)) => {
                let before = entry?.checks.get(check)?.status;
                What::CheckRemoved { check: check.clone(), before }
            }
            (Definition::Remove(_), Key::Maintenance(..)) => What::Maintenance(None),
            (Definition::Put(Record::Query(_) | Record::Acl(_) | Record::Route(_)), _)
            | (Definition::Remove(_), Key::Query(_) | Key::Acl(_) | Key::Route(_)) => return None,
        };
        // A check of an instance that is not there is passed over.
        let lost = matches!(what, What::Check { .. }) && id.is_some() && of.is_none();
        (!lost).then(|| Event { index, of: Of::whose(node, of), what })
    }

    /// That a route is set or goes.
    fn event_of_route(&self, index: u64, service: &ServiceName, definition: &Definition) -> Option<Event> {
        let what = match definition {
            Definition::Put(Record::Route(route)) => What::Route(Some(route.clone())),
            _ => self.route_of(service.folded()).map(|_| What::Route(None))?,
        };
        Some(Event { index, of: Of::Service(service.clone()), what })
    }

    /// The instance that a check is of, or is to be of.
    fn checked(&self, key: &Key, definition: &Definition) -> Option<InstanceId> {
        if let Definition::Put(Record::Check(check)) = definition {
            return check.instance.clone();
        }
        let Key::Check(node, id) = key else { return None };
        self.node(node.folded())?.checks.get(id)?.check.instance.clone()
    }

    /// How a check stands, and its instance.
    pub(super) fn standing(&self, key: &CheckKey) -> Option<(Status, Option<Health>)> {
        let entry = self.check(key)?;
        let instance = entry.check.instance.as_ref();
        let instance = instance.and_then(|id| self.instance(key.node.folded(), id.as_str()));
        Some((entry.status, instance.map(|entry| self.health(entry))))
    }

    /// That a check flipped, now that it has.
    pub(super) fn flip(
        &self,
        index: u64,
        key: &CheckKey,
        (before, health_before): (Status, Option<Health>),
    ) -> Option<Event> {
        let (after, health) = self.standing(key)?;
        let instance = self.check(key)?.check.instance.as_ref();
        let instance = instance.and_then(|id| self.instance(key.node.folded(), id.as_str()));
        let what = What::Status { check: key.id.clone(), before, after, health: health_before.zip(health) };
        Some(Event { index, of: Of::whose(&key.node, instance.map(|entry| &*entry.instance)), what })
    }
}
