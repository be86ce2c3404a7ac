//! Notes, while changes are applied, what becomes of each instance that they are about: how it stood before the first of them, and
//! after the last. What one request does to one instance is one change, however many records it has.

use super::{Past, Source, Was};
use crate::audit::Cause;
use crate::model::check::HELD;
use crate::model::{
    CheckKey, Definition, InstanceId, Key, NodeName, Observation, Record, ServiceName, Status,
};
use crate::registry::events::{Event, Of, What};
use crate::registry::snapshot::{CheckEntry, Snapshot};

/// Characters of a check's output that are kept.
const OUTPUT_CHARS_MAX: usize = 120;

impl Past {
    /// What has become of an instance just now.
    pub(in crate::registry) fn of(
        state: &Snapshot,
        source: Source,
        what: What,
        (before, after): (Option<Was>, Option<Was>),
    ) -> Self {
        let (index, at) = (state.index(), state.at);
        Self { index, at, source, service: None, what, of_node: false, output: None, before, after }
    }
}

/// The notes of one batch of changes.
#[derive(Default)]
pub(in crate::registry) struct Pen {
    instances: Vec<Open>,
    /// What became of routes.
    routes: Vec<(ServiceName, What)>,
}

/// An instance that changes, and what is known of it so far.
struct Open {
    node: NodeName,
    id: InstanceId,
    what: What,
    of_node: bool,
    output: Option<Box<str>>,
    before: Option<Was>,
}

impl Pen {
    /// A definition will be applied, which is this event.
    pub(in crate::registry) fn defines(&mut self, state: &Snapshot, definition: &Definition, event: &Event) {
        match &event.of {
            Of::Instance(node, _, id) => self.open(state, node, id, &event.what, false),
            Of::Node(node) if concerns_all(state, definition) => self.open_all(state, node, &event.what),
            Of::Node(_) => {}
            Of::Service(service) => self.routes.push((service.clone(), event.what.clone())),
        }
    }

    /// Something is found out of a check; noted only where its status will change, or it will be held critical from now on.
    pub(in crate::registry) fn observes(&mut self, state: &Snapshot, seen: &Observation) {
        let CheckKey { node, id } = &seen.check;
        let Some(entry) = state.check(&seen.check).filter(|entry| concerns(entry, seen)) else { return };
        let what = What::Status { check: id.clone(), before: entry.status, after: seen.status, health: None };
        let begun = self.instances.len();
        match &entry.check.instance {
            Some(instance) => self.open(state, node, instance, &what, false),
            None => self.open_all(state, node, &what),
        }
        let said = seen.output.lines().map(str::trim).find(|line| !line.is_empty());
        let said = said.map(|line| line.chars().take(OUTPUT_CHARS_MAX).collect::<String>().into_boxed_str());
        self.instances[begun..].iter_mut().for_each(|open| open.output = said.clone());
    }

    fn open_all(&mut self, state: &Snapshot, node: &NodeName, what: &What) {
        let Some(entry) = state.node(node.folded()) else { return };
        for id in entry.instances.keys() {
            self.open(state, node, id, what, true);
        }
    }

    fn open(&mut self, state: &Snapshot, node: &NodeName, id: &InstanceId, what: &What, of_node: bool) {
        if let Some(last) = self.instances.last_mut().filter(|last| last.id == *id && last.node == *node) {
            if rank(what) > rank(&last.what) {
                (last.what, last.of_node) = (what.clone(), of_node);
            }
            return;
        }
        let before = state.was(node.folded(), id.as_str());
        let (node, id, what) = (node.clone(), id.clone(), what.clone());
        self.instances.push(Open { node, id, what, of_node, output: None, before });
    }

    /// All was applied, as the change of this index.
    pub(in crate::registry) fn close(self, state: &Snapshot, cause: &Cause, into: &mut Vec<Past>) {
        let source = Source::from(cause);
        for (service, what) in self.routes {
            into.push(Past { service: Some(service), ..Past::of(state, source, what, (None, None)) });
        }
        for Open { node, id, mut what, of_node, output, before } in self.instances {
            let after = state.was(node.folded(), id.as_str());
            // What happens to a node is told where it makes a difference.
            let health = |was: &Option<Was>| was.as_ref().map(|was| was.health);
            let moved = |one: &Was, other: &Was| one.node.address != other.node.address;
            let differs = health(&before) != health(&after)
                || before.as_ref().zip(after.as_ref()).is_some_and(|(one, other)| moved(one, other));
            if (of_node && !differs && !is_held(&what)) || (before.is_none() && after.is_none()) {
                continue;
            }
            if let What::Status { health: change, .. } = &mut what {
                *change = health(&before).zip(health(&after));
            }
            into.push(Past { of_node, output, ..Past::of(state, source, what, (before, after)) });
        }
    }
}

/// Whether what is found of a check belongs to its history. Results of a definition that was replaced are passed over.
fn concerns(entry: &CheckEntry, seen: &Observation) -> bool {
    let held = |output: &str| output.starts_with(HELD);
    let holds = seen.status == Status::Critical && held(&seen.output) && !held(&entry.output);
    let counts = seen.generation.is_none_or(|generation| generation == entry.generation);
    counts && (entry.status != seen.status || holds)
}

/// Whether it is that a check begins to be held critical.
fn is_held(what: &What) -> bool {
    matches!(what, What::Status { before, after, .. } if before == after)
}

/// Whether a node's own record has a say in how its instances stand, or are reached.
fn concerns_all(state: &Snapshot, definition: &Definition) -> bool {
    match definition {
        Definition::Put(Record::Node(node)) => {
            let known = state.node(node.name.folded());
            known.is_some_and(|known| known.node.address != node.address)
        }
        Definition::Put(_) => true,
        // What was on it is removed by itself.
        Definition::Remove(key) => !matches!(key, Key::Node(_)),
    }
}

/// What says more of a request that does several things to an instance.
fn rank(what: &What) -> u8 {
    match what {
        What::Registered { .. } | What::Deregistered | What::Route(_) => 3,
        What::Maintenance(_) => 2,
        What::Status { .. } | What::Circuit { .. } | What::Guard { .. } => 1,
        What::Node { .. } | What::NodeRemoved | What::Check { .. } | What::CheckRemoved { .. } => 0,
    }
}
