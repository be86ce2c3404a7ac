//! What passes from one process to the next beside what a store keeps in order: the whole state, of a server without a
//! disk, and what is known of definitions that stand in the configuration file, which come after the store's.

use std::collections::HashMap;

use arcstr::ArcStr;

use super::snapshot::Snapshot;
use crate::model::{CheckKey, Definition, Maintenance, Observation, Origin, Record, Status};
use crate::store::{Loaded, Stored, StoredStatus};

/// Statuses and operators' words on what a load did not find: the file's definitions are not stored.
#[derive(Debug, Default)]
pub(super) struct Unplaced {
    pub(super) statuses: HashMap<CheckKey, (Status, ArcStr)>,
    pub(super) maintenances: Vec<Maintenance>,
}

impl Unplaced {
    /// What there is on the definitions that have come now. What is left is of none, and is forgotten.
    pub(super) fn place(self, definitions: &[Definition]) -> (Vec<Definition>, Vec<Observation>) {
        let Self { mut statuses, maintenances } = self;
        let (mut words, mut observations) = (Vec::new(), Vec::new());
        for definition in definitions {
            match definition {
                Definition::Put(Record::Check(check)) => {
                    let Some((status, output)) = statuses.remove(&check.key()) else { continue };
                    let (check, generation, to_flip) = (check.key(), None, 1);
                    let output = output.as_str().into();
                    observations.push(Observation { check, generation, status, output, to_flip });
                }
                Definition::Put(Record::Instance(instance)) => {
                    let of = |word: &&Maintenance| {
                        word.node == instance.node && word.instance.as_ref() == Some(&instance.id)
                    };
                    let found = maintenances.iter().filter(of).cloned();
                    words.extend(found.map(|word| Definition::Put(Record::Maintenance(word))));
                }
                _ => {}
            }
        }
        (words, observations)
    }
}

impl Snapshot {
    /// Everything that a store would have kept of this state.
    pub fn stored(&self) -> Loaded {
        let (mut nodes, mut instances, mut checks, mut words) = (vec![], vec![], vec![], vec![]);
        let mut statuses = Vec::new();
        let stored = |record, create_index, modify_index| Stored { record, create_index, modify_index };
        for node in self.nodes() {
            nodes.push(stored(Record::Node(node.node.clone()), node.create_index, node.modify_index));
            let own = node.instances.values().filter(|entry| entry.instance.origin.is_stored());
            instances.extend(own.map(|entry| {
                stored(Record::Instance(entry.instance.clone()), entry.create_index, entry.modify_index)
            }));
            let own = node.checks.values().filter(|entry| entry.check.origin.is_stored());
            checks.extend(own.map(|entry| {
                stored(Record::Check(entry.check.clone()), entry.create_index, entry.modify_index)
            }));
            words.extend(
                node.maintenances()
                    .map(|word| stored(Record::Maintenance(word), node.modify_index, node.modify_index)),
            );
            let known = node.checks.values().filter(|entry| entry.check.origin != Origin::Own);
            statuses.extend(known.map(|entry| StoredStatus {
                check: entry.key(),
                status: entry.status,
                output: entry.output.clone(),
            }));
        }
        let acl = self.acl.stored().into_iter();
        let acl = acl.map(|(record, made, changed)| stored(Record::Acl(record), made, changed)).collect();
        let queries = self.queries();
        let queries = queries
            .map(|entry| stored(Record::Query(entry.query.clone()), entry.create_index, entry.modify_index));
        let routes = self.routes();
        let routes = routes
            .map(|entry| stored(Record::Route(entry.route.clone()), entry.create_index, entry.modify_index));
        let records = [nodes, instances, checks, words, queries.collect(), acl, routes.collect()].concat();
        Loaded { records, statuses, index: self.index() }
    }
}
