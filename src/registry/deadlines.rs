//! What time alone changes: TTL checks that were not renewed, and instances that were critical for too long.
//!
//! A heap has one entry for each deadline. A renewal only notes the later time: when the entry's own comes, it goes back into
//! the heap with the time that holds then. So a million checks that are renewed before they expire cost a look-up each,
//! and a deadline still passes exactly when it is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;
use tokio::time::Instant;

use uuid::Uuid;

use crate::model::{CheckKey, ServiceName};

/// What happens when a deadline passes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Due {
    /// A TTL check was not renewed.
    Expire(CheckKey),
    /// A check was critical for its `deregister_after`.
    Reap(CheckKey),
    /// A token's time is over.
    Token(Uuid),
    /// A route is to be looked at.
    Route(ServiceName),
    /// What is kept of a service is kept no longer.
    Guard(ServiceName),
    /// A circuit of a service's instances turns.
    Breaker(ServiceName),
    /// The weights of a service's instances rise by a step.
    Ramp(ServiceName),
}

/// Nanoseconds since the first deadline was set: half the size of an `Instant`.
type At = u64;

/// At most one deadline for each `Due`.
#[derive(Debug)]
pub(super) struct Deadlines {
    begun: Instant,
    slots: Slab<Slot>,
    /// The slot of each `Due`.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Soonest first. An entry counts only while its time is that for which its slot is queued.
    queue: BinaryHeap<Reverse<(At, u32)>>,
}

#[derive(Debug)]
struct Slot {
    due: Due,
    at: At,
    /// The time of its entry in the queue: not after `at`.
    queued: At,
}

/// Entries that may be in the queue for each deadline, and how many more: dead ones are swept out beyond.
const QUEUED_MAX: (usize, usize) = (2, 64);

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            slots: Slab::new(),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            queue: BinaryHeap::new(),
        }
    }
}

impl Deadlines {
    /// Makes room for so many at once: growing step by step would look at each again and again.
    pub(super) fn reserve(&mut self, count: usize) {
        self.slots.reserve(count);
        self.queue.reserve(count);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.places.reserve(count, |place| hasher.hash_one(&slots[*place as usize].due));
    }

    /// Sets a deadline; an earlier one for the same thing is forgotten.
    pub(super) fn set(&mut self, due: Due, at: Instant) {
        let at = self.nanos(at);
        if let Some(place) = self.place(&due) {
            let slot = &mut self.slots[place as usize];
            slot.at = at;
            if at < slot.queued {
                slot.queued = at;
                self.enqueue(at, place);
            }
            return;
        }
        let hash = self.hasher.hash_one(&due);
        // As many as there are checks, whose limit is far below.
        let place = self.slots.insert(Slot { due, at, queued: at }) as u32;
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.places.insert_unique(hash, place, |place| hasher.hash_one(&slots[*place as usize].due));
        self.enqueue(at, place);
    }

    /// Sets a deadline unless there is one.
    pub(super) fn set_if_absent(&mut self, due: Due, at: Instant) {
        if self.place(&due).is_none() {
            self.set(due, at);
        }
    }

    pub(super) fn clear(&mut self, due: &Due) {
        let (slots, hash) = (&self.slots, self.hasher.hash_one(due));
        if let Ok(found) = self.places.find_entry(hash, |place| slots[*place as usize].due == *due) {
            let (place, _) = found.remove();
            self.slots.remove(place as usize);
        }
    }

    /// When to look again: the earliest deadline, or before it.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| self.begun + Duration::from_nanos(*at))
    }

    /// Takes one that has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        let now = self.nanos(now);
        while let Some(Reverse((at, place))) =
            self.queue.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            self.queue.pop();
            let Some(slot) = self.slots.get_mut(place as usize).filter(|slot| slot.queued == at) else {
                continue;
            };
            if slot.at <= now {
                let due = slot.due.clone();
                self.clear(&due);
                return Some(due);
            }
            slot.queued = slot.at;
            self.queue.push(Reverse((slot.at, place)));
        }
        None
    }

    fn nanos(&self, at: Instant) -> At {
        u64::try_from(at.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX)
    }

    fn place(&self, due: &Due) -> Option<u32> {
        let hash = self.hasher.hash_one(due);
        self.places.find(hash, |place| self.slots[*place as usize].due == *due).copied()
    }

    fn enqueue(&mut self, at: At, place: u32) {
        let (times, more) = QUEUED_MAX;
        if self.queue.len() >= self.slots.len() * times + more {
            let live = self.slots.iter().map(|(place, slot)| Reverse((slot.queued, place as u32)));
            self.queue = live.collect();
        } else {
            self.queue.push(Reverse((at, place)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{CheckId, NodeName};

    fn due(id: &str) -> Due {
        Due::Expire(CheckKey { node: NodeName::parse("n").unwrap(), id: CheckId::parse(id).unwrap() })
    }

    #[tokio::test(start_paused = true)]
    async fn come_in_order_and_once() {
        let now = Instant::now();
        let at = |secs| now + Duration::from_secs(secs);
        let mut deadlines = Deadlines::default();
        deadlines.set(due("b"), at(2));
        deadlines.set(due("a"), at(1));
        deadlines.set(due("b"), at(3));
        deadlines.set_if_absent(due("a"), at(9));
        deadlines.set(due("c"), at(1));
        deadlines.clear(&due("c"));
        assert_eq!(deadlines.next(), Some(at(1)));
        assert_eq!(deadlines.pop(at(0)), None);
        assert_eq!(deadlines.pop(at(5)), Some(due("a")));
        assert_eq!(deadlines.pop(at(5)), Some(due("b")));
        assert_eq!((deadlines.pop(at(99)), deadlines.next()), (None, None));
    }

    proptest! {
        /// Against the plain form: a list that is searched.
        #[test]
        fn pass_as_a_list_would_tell(steps in prop::collection::vec((0..4u8, 0..6u8, 0..50u64), 1..400)) {
            let begun = Instant::now();
            let at = |millis: u64| begun + Duration::from_millis(millis);
            let (mut deadlines, mut list) = (Deadlines::default(), std::collections::BTreeMap::<u8, u64>::new());
            let (mut now, name) = (0, |id: u8| due(&id.to_string()));
            for (what, id, wait) in steps {
                match what {
                    0 => {
                        deadlines.set(name(id), at(now + wait));
                        list.insert(id, now + wait);
                    }
                    1 => {
                        deadlines.set_if_absent(name(id), at(now + wait));
                        list.entry(id).or_insert(now + wait);
                    }
                    2 => {
                        deadlines.clear(&name(id));
                        list.remove(&id);
                    }
                    _ => now += wait / 5,
                }
                let mut passed: Vec<Due> = std::iter::from_fn(|| deadlines.pop(at(now))).collect();
                let mut wanted: Vec<Due> =
                    list.iter().filter(|(_, due)| **due <= now).map(|(id, _)| name(*id)).collect();
                list.retain(|_, due| *due > now);
                let show = |due: &Due| format!("{due:?}");
                passed.sort_by_key(show);
                wanted.sort_by_key(show);
                prop_assert_eq!(passed, wanted);
                let soonest = list.values().min().map(|due| at(*due));
                prop_assert!(deadlines.next().is_some() || soonest.is_none());
                prop_assert!(soonest.is_none() || deadlines.next() <= soonest, "it would be late");
                prop_assert!(deadlines.queue.len() <= list.len() * 2 + 65);
            }
        }
    }
}
