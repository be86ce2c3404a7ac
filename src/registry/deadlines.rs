//! What time alone changes: TTL checks that were not renewed, and instances that were critical for too long.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use crate::model::CheckKey;

/// What happens when a deadline passes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Due {
    /// A TTL check was not renewed.
    Expire(CheckKey),
    /// A check was critical for its `deregister_after`.
    Reap(CheckKey),
}

/// Deadlines in order, at most one for each `Due`.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    order: BTreeMap<(Instant, u64), Due>,
    places: HashMap<Due, (Instant, u64)>,
    /// Tells deadlines of the same instant apart.
    next: u64,
}

impl Deadlines {
    /// Sets a deadline; an earlier one for the same thing is forgotten.
    pub(super) fn set(&mut self, due: Due, at: Instant) {
        self.clear(&due);
        self.next += 1;
        self.order.insert((at, self.next), due.clone());
        self.places.insert(due, (at, self.next));
    }

    /// Sets a deadline unless there is one.
    pub(super) fn set_if_absent(&mut self, due: Due, at: Instant) {
        if !self.places.contains_key(&due) {
            self.set(due, at);
        }
    }

    pub(super) fn clear(&mut self, due: &Due) {
        if let Some(place) = self.places.remove(due) {
            self.order.remove(&place);
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        let entry = self.order.first_entry().filter(|entry| entry.key().0 <= now)?;
        let due = entry.remove();
        self.places.remove(&due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
