//! How often each service's answers may have changed.
//!
//! A reader that derives something from a service (an encoded answer) keeps the version beside it, and derives it
//! anew when the version has moved: one load of an atomic for a hit, where the look-up of a name in a snapshot
//! follows a dozen pointers. Services share counters by the hash of their names; sharing costs a needless
//! derivation, never a stale one.

use std::sync::atomic::{AtomicU32, Ordering};

use super::watch::Topic;
use crate::model::name::fnv1a;

/// Counters; with 10,000 changes a second and as many services, few are shared by two that matter.
const SLOTS: usize = 1 << 16;

pub(super) struct Versions(Box<[AtomicU32]>);

/// Where a service's version is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u16);

impl Slot {
    /// Of a service's name in lower case.
    pub fn of(service: &str) -> Self {
        let hash = fnv1a(service.bytes());
        Self((hash ^ (hash >> 32) ^ (hash >> 16)) as u16)
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self((0..SLOTS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Versions {
    pub(super) fn get(&self, slot: Slot) -> u32 {
        self.0.get(usize::from(slot.0)).map_or(0, |version| version.load(Ordering::Acquire))
    }

    /// To be called when the snapshot that shows the changes is published, and before anybody hears of them.
    pub(super) fn touch<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
        for topic in topics {
            if let Topic::Service(name) = topic
                && let Some(version) = self.0.get(usize::from(Slot::of(name.folded()).0))
            {
                version.fetch_add(1, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceName;

    #[test]
    fn only_what_is_touched_moves() {
        let versions = Versions::default();
        let topic = |name| Topic::Service(ServiceName::parse(name).unwrap());
        versions.touch([&topic("Web"), &Topic::Nodes]);
        assert_eq!(["web", "db"].map(|name| versions.get(Slot::of(name))), [1, 0]);
    }

    #[test]
    fn names_are_spread_over_the_slots() {
        let slots: std::collections::HashSet<u16> =
            (0..10_000).map(|i| Slot::of(&format!("service-{i:05}")).0).collect();
        assert!(slots.len() > 8_500, "{}", slots.len());
    }
}
