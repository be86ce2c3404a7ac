//! The state as it will be when all that is under way is durable: what the next command is planned against.
//!
//! Most commands meet nothing that is under way: another program's registration cannot matter to mine, as long as no limit
//! is near. They are planned against the state that is published. The state ahead is made when a command may meet something
//! under way, and kept until nothing is: every definition is then applied twice.

use std::collections::HashMap;

use super::apply::Effects;
use super::command::Command;
use super::limits::Limits;
use super::snapshot::Snapshot;
use crate::acl::View;
use crate::model::{Check, CheckId, CheckKey, CheckKind, Definition, InstanceId, Key, NodeName, Record};

/// What is under way, as far as planning has to know.
#[derive(Default)]
pub(super) struct Ahead {
    /// The published state with everything under way applied; absent when it is not needed.
    snapshot: Option<Snapshot>,
    /// What is touched by something under way, and the last ticket that does.
    touched: HashMap<Key, u64>,
    /// What each touches.
    by_ticket: HashMap<u64, Vec<Key>>,
    /// Definitions under way.
    definitions: usize,
    /// Something was refused since nothing was under way: what comes after it may touch other things than it did before.
    doubtful: bool,
}

impl Ahead {
    /// What to plan against, once [`look`](Self::look) was called where it had to be.
    pub(super) fn state<'a>(&'a self, published: &'a Snapshot) -> &'a Snapshot {
        self.snapshot.as_ref().unwrap_or(published)
    }

    /// Whether it is there, and may differ from what is published.
    pub(super) fn is_there(&self) -> bool {
        self.snapshot.is_some()
    }

    /// A proposal goes out.
    pub(super) fn add(&mut self, published: &Snapshot, ticket: u64, definitions: &[Definition]) {
        let mut keys = Vec::new();
        for definition in definitions {
            touches(definition, self.state(published), |key| keys.push(key));
        }
        self.touched.extend(keys.iter().map(|key| (key.clone(), ticket)));
        self.by_ticket.insert(ticket, keys);
        self.definitions += definitions.len();
        self.apply(published.index, definitions);
    }

    /// Definitions that are not stored, or what was just added: the state ahead has them too, if there is one.
    pub(super) fn apply(&mut self, index: u64, definitions: &[Definition]) {
        if let Some(ahead) = &mut self.snapshot {
            definitions.iter().for_each(|d| ahead.define(index, d, &mut Effects::default()));
        }
    }

    /// A proposal came back.
    pub(super) fn remove(&mut self, ticket: u64, definitions: &[Definition]) {
        self.definitions -= definitions.len();
        for key in self.by_ticket.remove(&ticket).unwrap_or_default() {
            if self.touched.get(&key) == Some(&ticket) {
                self.touched.remove(&key);
            }
        }
        if self.definitions == 0 {
            (self.snapshot, self.doubtful) = (None, false);
        }
    }

    /// Something under way was refused: what comes after it is looked at without it.
    pub(super) fn forget(&mut self) {
        self.snapshot = None;
        self.doubtful = self.definitions > 0;
    }

    /// Makes the state ahead from all that is under way, in its order.
    pub(super) fn look<'a>(
        &mut self,
        published: &Snapshot,
        under_way: impl Iterator<Item = &'a [Definition]>,
    ) {
        if self.snapshot.is_some() || self.definitions == 0 {
            return;
        }
        self.snapshot = Some(published.clone());
        under_way.for_each(|definitions| self.apply(published.index, definitions));
    }

    /// Whether a command may come out otherwise when what is under way is there.
    /// `view` is that of whoever asks: whether they may is a part of it.
    pub(super) fn meets(
        &self,
        command: &Command,
        view: &View,
        published: &Snapshot,
        limits: &Limits,
    ) -> bool {
        if self.definitions == 0 || self.doubtful {
            return self.doubtful;
        }
        let touched = |key: Key| self.touched.contains_key(&key);
        match command {
            Command::RegisterInstance { caller, instance, checks, .. } => {
                let counts = published.counts();
                published.node(caller.node.folded()).is_none()
                    || counts.instances + self.definitions >= limits.instances_max
                    || counts.checks.iter().sum::<usize>() + self.definitions + checks.len()
                        > limits.checks_max
                    || touched(Key::Node(caller.node.clone()))
                    || touched(Key::Instance(instance.node.clone(), instance.id.clone()))
                    || checks.iter().any(|check| touched(Key::Check(check.node.clone(), check.id.clone())))
                    || (!view.is_open() && checks.iter().any(|check| self.decides(check, published)))
            }
            Command::UpdateTtl { caller, id, .. } => {
                let key = CheckKey { node: caller.node.clone(), id: id.clone() };
                let Some(entry) = published.check(&key) else { return true };
                let owner = match &entry.check.instance {
                    Some(id) => Key::Instance(key.node.clone(), id.clone()),
                    None => Key::Node(key.node.clone()),
                };
                touched(owner) || touched(Key::Check(key.node, key.id))
            }
            _ => true,
        }
    }

    /// Whether what is under way touches an instance whose service decides who may put a check: the one that has the check in whose
    /// place it comes, or the one that it is an alias of.
    fn decides(&self, check: &Check, published: &Snapshot) -> bool {
        let touched = |node: &NodeName, id: &InstanceId| {
            self.touched.contains_key(&Key::Instance(node.clone(), id.clone()))
        };
        let aliased = match &check.kind {
            CheckKind::Alias { node, instance: Some(id) } => touched(node, id),
            _ => false,
        };
        let of = published.check(&check.key()).and_then(|entry| entry.check.instance.as_ref());
        aliased || of.is_some_and(|id| touched(&check.node, id))
    }
}

/// The keys at which another command may meet this definition: that of an instance stands for all its checks, that of a node
/// for all that it has.
fn touches(definition: &Definition, state: &Snapshot, mut touch: impl FnMut(Key)) {
    let mut owner = |node: &NodeName, instance: Option<&InstanceId>| match instance {
        Some(id) => touch(Key::Instance(node.clone(), id.clone())),
        None => touch(Key::Node(node.clone())),
    };
    match definition {
        Definition::Put(Record::Node(node)) => owner(&node.name, None),
        Definition::Put(Record::Instance(instance)) => owner(&instance.node, Some(&instance.id)),
        Definition::Put(Record::Check(check)) => {
            owner(&check.node, check.instance.as_ref());
            before(state, &check.node, &check.id, &mut owner);
        }
        Definition::Put(Record::Acl(_) | Record::Route(_))
        | Definition::Remove(Key::Acl(_) | Key::Route(_)) => {}
        Definition::Put(Record::Maintenance(m)) => owner(&m.node, m.instance.as_ref()),
        Definition::Remove(Key::Node(node)) => owner(node, None),
        Definition::Remove(Key::Instance(node, id)) => owner(node, Some(id)),
        Definition::Remove(Key::Check(node, id)) => before(state, node, id, &mut owner),
        Definition::Remove(Key::Maintenance(node, id)) => owner(node, id.as_ref()),
        // Only other commands on queries meet them, and those are always planned against all that is under way.
        Definition::Put(Record::Query(_)) | Definition::Remove(Key::Query(_)) => {}
    }
    let key = definition.key();
    if matches!(key, Key::Check(..)) {
        touch(key);
    }
}

/// What a check is of before it is put or goes; of its node, where it is not known.
fn before(
    state: &Snapshot,
    node: &NodeName,
    id: &CheckId,
    owner: &mut impl FnMut(&NodeName, Option<&InstanceId>),
) {
    let key = CheckKey { node: node.clone(), id: id.clone() };
    if let Some(entry) = state.check(&key) {
        owner(node, entry.check.instance.as_ref());
    }
}
