//! Templates by name and type, each thread's own.
//!
//! Only names that exist get in, so that nobody can fill it with questions alone; still it is bounded, and starts anew
//! when it is full. It is larger than the processor's caches, and the wait for memory is most of what an answer costs beside
//! the kernel's part: a batch looks all its questions up at once ([`find`](Cache::find)), then [touches](Cache::touch) all that
//! was found, so that it waits for them together.

use std::hash::{BuildHasher, Hasher};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Found;

use super::plain::Plain;
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
    hash: u64,
    template: Template,
}

/// Where a question's template probably lies: so until the table changes, if there is no other with the same hash.
#[derive(Clone, Copy)]
pub(super) struct Place(usize);

impl Cache {
    pub(super) fn hash(&self, question: &Plain<'_>) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(question.name());
        hasher.write_u16(question.kind);
        hasher.finish()
    }

    /// Looks at the table alone.
    pub(super) fn find(&self, hash: u64) -> Option<Place> {
        self.table.find_bucket_index(hash, |entry| entry.hash == hash).map(Place)
    }

    /// Reads a little of what an answer is made of. Nobody needs the result; it must only not be thrown away at once.
    pub(super) fn touch(&self, place: Place) -> u8 {
        self.table.get_bucket(place.0).map_or(0, |entry| entry.template.touch())
    }

    pub(super) fn get(&self, place: Place, question: &Plain<'_>) -> Option<&Template> {
        let template = &self.table.get_bucket(place.0)?.template;
        template.is_for(question).then_some(template)
    }

    pub(super) fn put(&mut self, hash: u64, template: Template) -> &Template {
        let entry = Entry { hash, template };
        let size = |entry: &Entry| size_of::<Entry>() + entry.template.size();
        if self.octets + size(&entry) > OCTETS_MAX {
            self.table.clear();
            self.octets = 0;
        }
        self.octets += size(&entry);
        let entry = match self.table.entry(hash, |entry| entry.hash == hash, |entry| entry.hash) {
            Found::Occupied(mut old) => {
                self.octets -= size(old.get());
                *old.get_mut() = entry;
                old.into_mut()
            }
            Found::Vacant(free) => free.insert(entry).into_mut(),
        };
        &entry.template
    }
}
