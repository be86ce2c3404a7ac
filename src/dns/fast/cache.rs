//! Templates by name and type, each thread's own.
//!
//! Only names that exist get in, so that nobody can fill it with questions alone; still it is bounded, and starts anew
//! when it is full.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;

use super::template::Template;

/// Octets, for each thread.
const OCTETS_MAX: usize = 64 << 20;

#[derive(Default)]
pub(super) struct Cache {
    table: HashTable<Entry>,
    hasher: foldhash::fast::RandomState,
    octets: usize,
}

struct Entry {
    name: Box<[u8]>,
    kind: u16,
    template: Template,
}

impl Cache {
    /// The template for a name in lower case and a type.
    pub(super) fn get(&self, name: &[u8], kind: u16) -> Option<&Template> {
        let hash = hash(&self.hasher, name, kind);
        let entry = self.table.find(hash, |entry| entry.kind == kind && *entry.name == *name)?;
        Some(&entry.template)
    }

    pub(super) fn put(&mut self, name: &[u8], kind: u16, template: Template) -> &Template {
        let entry = Entry { name: name.into(), kind, template };
        let size = |entry: &Entry| entry.name.len() + size_of::<Entry>() + entry.template.size();
        if self.octets + size(&entry) > OCTETS_MAX {
            self.clear();
        }
        self.octets += size(&entry);
        let hasher = &self.hasher;
        let place = self.table.entry(
            hash(hasher, name, kind),
            |entry| entry.kind == kind && *entry.name == *name,
            |entry| hash(hasher, &entry.name, entry.kind),
        );
        let entry = match place {
            Place::Occupied(mut old) => {
                self.octets -= size(old.get());
                *old.get_mut() = entry;
                old.into_mut()
            }
            Place::Vacant(free) => free.insert(entry).into_mut(),
        };
        &entry.template
    }

    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.octets = 0;
    }
}

fn hash(hasher: &foldhash::fast::RandomState, name: &[u8], kind: u16) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = hasher.build_hasher();
    hasher.write(name);
    hasher.write_u16(kind);
    hasher.finish()
}
