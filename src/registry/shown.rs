//! How long a change takes until answers show it, and until no cache has an answer from before it.
//!
//! The writer notes each change that an answer can show with the moment at which it began, and counts it when the snapshot that
//! shows it is published. For how long caches hold older answers depends on settings of DNS, so that is asked of a function that the
//! registry is given ([`Kept`]), about the snapshot that was published before.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::snapshot::{InstanceEntry, Snapshot};
use super::{Kept, Shared};
use crate::model::{CheckKey, Definition, InstanceId, Key, NodeName, Record, ServiceName};

/// Instances of a node that are looked at when it changes itself, and parts of one change.
const ABOUT_MAX: usize = 64;

/// What a change began with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) at: Instant,
    /// As the metrics' label has it.
    pub(super) cause: &'static str,
}

impl Begun {
    pub(super) fn now(cause: &'static str) -> Self {
        Self { at: Instant::now(), cause }
    }

    /// With a request, where the task works for one.
    pub(super) fn of_request(arrived: Option<std::time::Instant>) -> Self {
        arrived.map_or_else(|| Self::now("server"), |at| Self { at: at.into(), cause: "request" })
    }
}

/// A change that answers can show.
pub(super) struct Shown {
    begun: Begun,
    about: SmallVec<[About; 2]>,
}

/// What a part of a change is about: an instance, all of a node, or how a service's name answers.
pub(super) struct About {
    /// Absent where it is about a service itself: its route.
    node: Option<NodeName>,
    instance: Option<InstanceId>,
    /// That of an instance which may be new, or whose route it is.
    service: Option<ServiceName>,
}

impl About {
    /// Before it is applied. None for what is no node's.
    pub(super) fn definition(state: &Snapshot, definition: &Definition) -> Option<Self> {
        let service = match definition {
            Definition::Put(Record::Instance(instance)) => Some(instance.service.clone()),
            _ => None,
        };
        Some(match (definition, definition.key()) {
            (_, Key::Node(node)) => Self { node: Some(node), instance: None, service },
            (_, Key::Instance(node, id)) => Self { node: Some(node), instance: Some(id), service },
            (_, Key::Maintenance(node, instance)) => Self { node: Some(node), instance, service },
            (_, Key::Route(service)) => Self { node: None, instance: None, service: Some(service) },
            (Definition::Put(Record::Check(check)), Key::Check(node, _)) => {
                Self { node: Some(node), instance: check.instance.clone(), service }
            }
            (_, Key::Check(node, id)) => Self::check(state, &CheckKey { node, id })?,
            (_, Key::Query(_) | Key::Acl(_)) => return None,
        })
    }

    pub(super) fn instance(node: NodeName, id: InstanceId) -> Self {
        Self { node: Some(node), instance: Some(id), service: None }
    }

    pub(super) fn check(state: &Snapshot, key: &CheckKey) -> Option<Self> {
        let instance = state.check(key)?.check.instance.clone();
        Some(Self { node: Some(key.node.clone()), instance, service: None })
    }

    /// The longest that caches hold older answers.
    fn kept(&self, old: &Snapshot, kept: &Kept) -> Option<std::time::Duration> {
        let Some(node) = &self.node else {
            return self.service.as_ref().and_then(|service| kept(old, service.folded(), None));
        };
        let node = old.node(node.folded());
        let of = |entry: &Arc<InstanceEntry>| kept(old, entry.instance.service.folded(), Some(entry));
        let Some(id) = &self.instance else {
            return node?.instances.values().take(ABOUT_MAX).filter_map(of).max();
        };
        let before = node.and_then(|node| node.instances.get(id));
        let new =
            self.service.as_ref().filter(|name| before.is_none_or(|old| old.instance.service != **name));
        before.and_then(of).max(new.and_then(|name| kept(old, name.folded(), None)))
    }
}

impl Shown {
    pub(super) fn new(begun: Begun, about: impl Iterator<Item = About>) -> Self {
        Self { begun, about: about.take(ABOUT_MAX).collect() }
    }
}

/// Counts what was published just now, behind `old`.
pub(super) fn count(shown: &[Shown], old: &Snapshot, shared: &Shared) {
    let (now, kept) = (Instant::now(), shared.kept.get());
    for Shown { begun: Begun { at, cause }, about } in shown {
        let after = now.duration_since(*at);
        shared.metrics.registry.shown(cause, after);
        if let Some(ttl) = kept.and_then(|kept| about.iter().filter_map(|about| about.kept(old, kept)).max())
        {
            shared.metrics.registry.kept(cause, after + ttl);
        }
    }
}
