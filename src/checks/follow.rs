//! Which checks are run: those of the registry that are ours to probe, kept in step with what it publishes.

use std::sync::Arc;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::job::Job;
use super::kinds;
use super::runner::Runner;
use crate::model::{Change, CheckKey, CheckKind, Definition, Key, Observation, Record, Status};
use crate::registry::{CheckEntry, NodeEntry, Published, Snapshot};

impl Runner {
    /// Takes in what was published; returns whether there will be more.
    pub(super) fn on_wake(&mut self, published: Result<Arc<Published>, RecvError>) -> bool {
        match published {
            Ok(published) => self.on_publish(&published),
            Err(RecvError::Lagged(_)) => self.read_all(false),
            Err(RecvError::Closed) => return false,
        }
        true
    }

    pub(super) fn on_publish(&mut self, published: &Published) {
        let snapshot = self.registry.snapshot();
        for change in &published.changes {
            match change {
                Change::Definition(Definition::Put(Record::Check(check))) => {
                    self.settle(&check.key(), &snapshot, false);
                }
                Change::Definition(Definition::Remove(Key::Check(node, id))) => {
                    self.settle(&CheckKey { node: node.clone(), id: id.clone() }, &snapshot, false);
                }
                // Whether somebody else runs a node's checks stands in its meta.
                Change::Definition(Definition::Put(Record::Node(node))) => {
                    let entry = snapshot.node(node.name.folded());
                    for check in entry.iter().flat_map(|entry| entry.checks.values()) {
                        self.settle(&check.key(), &snapshot, false);
                    }
                }
                _ => {}
            }
            self.aliases.follow(change, &snapshot);
        }
        self.news.extend(self.aliases.news(&snapshot));
        for key in &published.kicks {
            if let Some(number) = self.numbers.get(key).copied() {
                self.trigger(number);
            }
        }
    }

    /// Compares what is run with the whole snapshot: at the start, and when publishes were missed. Kicks may be among
    /// those, so that then all that does not pass is due.
    pub(super) fn read_all(&mut self, start: bool) {
        let snapshot = self.registry.snapshot();
        let known: Vec<_> = self.numbers.keys().chain(self.aliases.keys()).cloned().collect();
        for key in known.iter().filter(|key| snapshot.check(key).is_none()) {
            self.remove(key);
        }
        for entry in snapshot.checks() {
            self.settle(&entry.key(), &snapshot, start);
        }
        self.news.extend(self.aliases.news(&snapshot));
        let kicked: Vec<_> = self.jobs.iter().filter(|(_, job)| !job.is_passing()).map(|(n, _)| *n).collect();
        for number in kicked {
            self.trigger(number);
        }
    }

    /// Runs a check, or no longer, or its new definition, as the snapshot says.
    fn settle(&mut self, key: &CheckKey, snapshot: &Snapshot, start: bool) {
        let node = snapshot.node(key.node.folded());
        let Some((node, entry)) = node.and_then(|node| Some((node, node.checks.get(&key.id)?))) else {
            self.remove(key);
            return;
        };
        let same = |job: &Job| job.generation == entry.generation;
        let known = self.numbers.get(key).and_then(|number| self.jobs.get(number)).is_some_and(same);
        if known && runs(node, entry) {
            return;
        }
        self.remove(key);
        if !runs(node, entry) || self.aliases.put(&entry.check) {
            return;
        }
        if matches!(entry.check.kind, CheckKind::Script { .. }) && !self.config.script {
            self.news.extend(refuse_script(entry));
            return;
        }
        self.number += 1;
        let now = Instant::now();
        let mut job = Job::new(entry, start && was_judged(entry), self.config.flapping, now);
        job.host = self.join_host(&entry.check.kind, now);
        job.target = kinds::target(&entry.check.kind).map(|target| self.shelf.join(&target, self.number));
        self.jobs.insert(self.number, job);
        self.numbers.insert(key.clone(), self.number);
        self.queue.set(self.number, now);
    }
}

/// Whether it is ours to find out how a check stands.
fn runs(node: &NodeEntry, entry: &CheckEntry) -> bool {
    entry.check.is_probe() && !node.node.is_external()
}

/// Whether a status that was there before us came from results: else it is the definition's, with no output.
fn was_judged(entry: &CheckEntry) -> bool {
    entry.status != entry.check.initial || !entry.output.is_empty()
}

/// A script check that was stored while scripts were on.
fn refuse_script(entry: &CheckEntry) -> Option<Observation> {
    let output = "this check runs a script, and script checks are off; set `script = true` under [checks] and restart \
                  the server, or deregister the check";
    let told = entry.status == Status::Critical && *entry.output == *output;
    (!told).then(|| Observation {
        check: entry.key(),
        generation: Some(entry.generation),
        status: Status::Critical,
        output: output.into(),
        to_flip: 1,
    })
}
