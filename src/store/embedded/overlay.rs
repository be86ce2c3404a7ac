//! What is durable in the journal alone, laid over what was read from the database.

use std::collections::{BTreeMap, HashSet};

use super::super::{Loaded, Stored, format};
use super::Entry;
use crate::model::{CheckKey, Definition, Key};

/// Makes of `loaded` what the database will have with these changes.
pub(super) fn lay_over(loaded: &mut Loaded, changes: &[Entry]) {
    if changes.is_empty() {
        return;
    }
    let records = std::mem::take(&mut loaded.records).into_iter();
    let mut records: BTreeMap<_, _> =
        records.map(|stored| (format::key(&stored.record.key()), stored)).collect();
    let mut gone = HashSet::new();
    for (index, definitions) in changes {
        for definition in definitions.iter() {
            let key = format::key(&definition.key());
            match definition {
                Definition::Put(record) => {
                    let create_index = records.get(&key).map_or(*index, |old| old.create_index);
                    let stored = Stored { record: record.clone(), create_index, modify_index: *index };
                    records.insert(key, stored);
                }
                Definition::Remove(removed) => {
                    records.remove(&key);
                    if let Key::Check(node, id) = removed {
                        gone.insert(CheckKey { node: node.clone(), id: id.clone() });
                    }
                }
            }
        }
        loaded.index = loaded.index.max(*index);
    }
    loaded.records = records.into_values().collect();
    loaded.statuses.retain(|status| !gone.contains(&status.check));
}
