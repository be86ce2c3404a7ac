//! What changed of late: a bounded list of events that streams read from, each at its own pace.
//!
//! One task follows the registry and keeps what it is told. It begins with the first stream that is asked for, so that
//! nobody pays who has none. Whoever asks for what is not there any more, or never was, is told to read anew.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use crate::http::State;
use crate::registry::Registry;
use crate::registry::events::Event;

/// Events that are given at once.
const AT_ONCE: usize = 256;

pub(super) struct Recent {
    kept: Mutex<Kept>,
    /// Rung when there is more.
    pub(super) grown: Notify,
}

/// In the order of their indexes.
struct Kept {
    events: VecDeque<Arc<Event>>,
    /// What changed up to this index is not known here.
    begin: u64,
    /// What changed up to this index is.
    end: u64,
}

/// What came behind an index.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Some of it is not known any more: what is read from the registry now is as of this index at least.
    Lost(u64),
    /// The next ones, whole indexes; none while nothing changed.
    Events(Vec<Arc<Event>>),
}

impl Kept {
    fn take(&mut self, index: u64, events: Option<&Vec<Event>>, max: usize) {
        match events {
            Some(events) => {
                let known = self.begin;
                self.events.extend(events.iter().filter(|event| event.index > known).cloned().map(Arc::new));
            }
            // Nobody noted what it was.
            None if index > self.begin => self.forget(index),
            None => {}
        }
        self.end = self.end.max(index);
        while self.events.len() > max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.begin = self.begin.max(oldest.index);
        }
    }

    /// What changed up to an index is not known.
    fn forget(&mut self, index: u64) {
        self.events.clear();
        self.begin = self.begin.max(index);
        self.end = self.end.max(index);
    }

    fn behind(&self, last: u64) -> Behind {
        if last < self.begin {
            return Behind::Lost(self.end);
        }
        let from = self.events.partition_point(|event| event.index <= last);
        let mut some: Vec<Arc<Event>> = Vec::new();
        for event in self.events.range(from..) {
            // An index is not torn apart: who has seen it has seen all of it.
            if some.len() >= AT_ONCE && some.last().is_some_and(|last| last.index != event.index) {
                break;
            }
            some.push(event.clone());
        }
        Behind::Events(some)
    }
}

impl Recent {
    /// The one of this server, which begins now if it has not.
    pub(super) async fn of(state: &Arc<State>) -> Arc<Self> {
        state.faces.recent.get_or_init(|| Self::begin(state)).await.clone()
    }

    async fn begin(state: &Arc<State>) -> Arc<Self> {
        let mut published = state.registry.record().await;
        // All that comes after this snapshot comes by the way of what is published.
        let index = state.registry.load().index();
        let kept = Kept { events: VecDeque::new(), begin: index, end: index };
        let recent = Arc::new(Self { kept: Mutex::new(kept), grown: Notify::new() });
        let (following, state) = (recent.clone(), state.clone());
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = published.recv() => next,
                    () = state.shutdown.cancelled() => return,
                };
                match next {
                    Ok(next) => {
                        let max = state.config.load().events_max;
                        following.kept.lock().take(next.index, next.events.as_ref(), max);
                    }
                    Err(RecvError::Lagged(_)) => following.lose(&state.registry),
                    Err(RecvError::Closed) => return,
                }
                following.grown.notify_waiters();
            }
        });
        recent
    }

    fn lose(&self, registry: &Registry) {
        self.kept.lock().forget(registry.load().index());
    }

    /// The newest index of which all is known.
    pub(super) fn end(&self) -> u64 {
        self.kept.lock().end
    }

    /// What came behind an index.
    pub(super) fn behind(&self, last: u64) -> Behind {
        self.kept.lock().behind(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeName;
    use crate::registry::events::{Of, What};

    fn event(index: u64) -> Event {
        let node = NodeName::parse("n1").unwrap();
        Event { index, of: Of::Node(node), what: What::Node { new: true } }
    }

    fn indexes(behind: Behind) -> Vec<u64> {
        match behind {
            Behind::Events(events) => events.iter().map(|event| event.index).collect(),
            Behind::Lost(_) => panic!("lost"),
        }
    }

    #[test]
    fn what_is_kept_is_given_and_what_is_not_is_said() {
        let mut kept = Kept { events: VecDeque::new(), begin: 5, end: 5 };
        kept.take(6, Some(&vec![event(5), event(6), event(6)]), 4);
        kept.take(8, Some(&vec![event(8)]), 4);
        assert_eq!(kept.behind(4), Behind::Lost(8));
        assert_eq!(indexes(kept.behind(5)), [6, 6, 8]);
        assert_eq!(indexes(kept.behind(6)), [8]);
        assert_eq!(indexes(kept.behind(8)), [0u64; 0]);
        kept.take(10, Some(&vec![event(9), event(10)]), 4);
        // The first of index 6 went, so nobody gets half of it.
        assert_eq!(kept.behind(5), Behind::Lost(10));
        assert_eq!(indexes(kept.behind(6)), [8, 9, 10]);
        kept.take(12, None, 4);
        assert_eq!((kept.behind(11), indexes(kept.behind(12))), (Behind::Lost(12), vec![]));
    }

    #[test]
    fn an_index_is_given_whole() {
        let mut kept = Kept { events: VecDeque::new(), begin: 0, end: 0 };
        kept.take(2, Some(&[vec![event(1)], vec![event(2); 2 * AT_ONCE]].concat()), usize::MAX);
        kept.take(3, Some(&vec![event(3)]), usize::MAX);
        assert_eq!(indexes(kept.behind(0)).len(), 1 + 2 * AT_ONCE);
        assert_eq!(indexes(kept.behind(2)), [3]);
    }
}
