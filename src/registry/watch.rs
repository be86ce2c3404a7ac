//! Who waits for what: one bell for each thing that is watched, rung only when that thing changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use uuid::Uuid;

use crate::model::{NodeName, ServiceName};

/// What a blocking query waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// One service: its instances, their checks, their nodes.
    Service(ServiceName),
    /// One node and all it has.
    Node(NodeName),
    /// Which nodes there are, and what they are.
    Nodes,
    /// Which services there are, and their tags.
    Services,
    /// The status of any check.
    Checks,
    /// Which instances a guard keeps, and which circuits are not closed.
    Steady,
    /// Which prepared queries there are, and what they are.
    Queries,
    /// One prepared query.
    Query(Uuid),
    /// All routes.
    Routes,
    /// A service, or a node, that whoever asks may not read: as one that is not there. Nothing that changes wakes who waits for it.
    NoService,
    NoNode,
}

/// All bells.
pub(super) struct Watchers {
    bells: Mutex<HashMap<Topic, Arc<Notify>>>,
    waiting: AtomicUsize,
    max: usize,
}

/// One who waits; gives its place back when dropped.
pub(super) struct Watcher<'a> {
    all: &'a Watchers,
    topic: Topic,
    bell: Arc<Notify>,
}

impl Watchers {
    pub(super) fn new(max: usize) -> Self {
        Self { bells: Mutex::default(), waiting: AtomicUsize::new(0), max }
    }

    /// A place to wait at, if one is free.
    pub(super) fn watch(&self, topic: &Topic) -> Option<Watcher<'_>> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let bell = self.bells.lock().entry(topic.clone()).or_default().clone();
        Some(Watcher { all: self, topic: topic.clone(), bell })
    }

    /// Rings the bells of what changed. The new snapshot must be published before.
    pub(super) fn wake<'a>(&self, topics: impl IntoIterator<Item = &'a Topic>) {
        let bells = self.bells.lock();
        if bells.is_empty() {
            return;
        }
        for topic in topics {
            if let Some(bell) = bells.get(topic) {
                bell.notify_waiters();
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }
}

impl Watcher<'_> {
    pub(super) fn woken(&self) -> Notified<'_> {
        self.bell.notified()
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        self.all.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut bells = self.all.bells.lock();
        // The map's and ours: nobody else listens for this topic.
        if Arc::strong_count(&self.bell) == 2 {
            bells.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> Topic {
        Topic::Service(ServiceName::parse(name).unwrap())
    }

    #[tokio::test]
    async fn wakes_only_the_watchers_of_what_changed() {
        let watchers = Watchers::new(10);
        let (a, b) = (watchers.watch(&service("a")).unwrap(), watchers.watch(&service("b")).unwrap());
        let (woken_a, woken_b) = (a.woken(), b.woken());
        tokio::pin!(woken_a, woken_b);
        assert!(!woken_a.as_mut().enable() && !woken_b.as_mut().enable());
        watchers.wake([&service("A")]);
        assert!(woken_a.as_mut().enable(), "the name's case does not matter");
        assert!(!woken_b.as_mut().enable());
    }

    #[test]
    fn gives_no_more_places_than_there_are_and_forgets_topics() {
        let watchers = Watchers::new(1);
        let first = watchers.watch(&Topic::Nodes);
        assert!(first.is_some() && watchers.watch(&Topic::Nodes).is_none());
        drop(first);
        assert_eq!((watchers.len(), watchers.bells.lock().len()), (0, 0));
        assert!(watchers.watch(&Topic::Checks).is_some());
    }
}
