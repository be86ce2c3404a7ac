//! What became of each service of late: every change of an instance or of the service's route with its time, its cause and whose it was, and how the instance
//! stood before and after it, so that what was served at an earlier moment can be worked out backwards from what is now.
//!
//! Kept in memory and in bounds, those of one service and those of all; it begins with the process. The writer notes changes while it
//! applies them ([`pen`]), and puts them here before it publishes: whoever reads a snapshot first and this then finds all that
//! led to it.

pub(super) mod pen;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::events::What;
use super::snapshot::{Health, Snapshot};
use crate::acl::ANONYMOUS;
use crate::audit::Cause;
use crate::model::{Instance, InstanceId, Node, NodeName, ServiceName};
use crate::telemetry::origin::Origin;

/// One change of one instance, or of a service's route.
#[derive(Debug, Clone)]
pub struct Past {
    pub index: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    pub source: Source,
    /// Whose route it is that changed; of an instance's change, absent.
    pub service: Option<ServiceName>,
    pub what: What,
    /// It is its node's check or maintenance that changed.
    pub of_node: bool,
    /// What a check said when its status changed; the first line, cut.
    pub output: Option<Box<str>>,
    /// Not there before it was registered.
    pub before: Option<Was>,
    /// Not there after it was deregistered.
    pub after: Option<Was>,
}

/// Who did it, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// In a word or two.
    pub action: &'static str,
    /// The accessor of the token.
    pub who: Option<Uuid>,
    /// From where; nobody's where the server did it by itself.
    pub client: Option<IpAddr>,
}

impl From<&Cause> for Source {
    fn from(cause: &Cause) -> Self {
        let origin = cause.origin.as_deref();
        Self {
            action: cause.action,
            who: origin.and_then(Origin::who).filter(|accessor| *accessor != ANONYMOUS),
            client: origin.and_then(|origin| Some(origin.client?.ip().to_canonical())),
        }
    }
}

/// An instance as it stood at a moment.
#[derive(Debug, Clone)]
pub struct Was {
    pub instance: Arc<Instance>,
    pub node: Arc<Node>,
    pub health: Health,
    /// A guard kept it in DNS although it was critical.
    pub kept: bool,
    /// Its circuit was open.
    pub out: bool,
}

impl Was {
    /// Whether DNS answered with it.
    pub fn is_served(&self) -> bool {
        (self.health.is_served() || self.kept) && !self.out
    }
}

impl Past {
    /// Whose change it is.
    pub fn instance(&self) -> Option<&Arc<Instance>> {
        self.after.as_ref().or(self.before.as_ref()).map(|was| &was.instance)
    }

    /// Whether DNS answered with it, before and after.
    pub fn served(&self) -> (bool, bool) {
        let served = |was: &Option<Was>| was.as_ref().is_some_and(Was::is_served);
        (served(&self.before), served(&self.after))
    }

    /// The services that it is of: an instance may move from one to another.
    fn services(&self) -> impl Iterator<Item = &ServiceName> {
        let name = |was: &'_ Option<Was>| was.as_ref().map(|was| was.instance.service.clone());
        let moved = name(&self.before) != name(&self.after);
        let of = |was| Option::as_ref(was).map(|was: &Was| &was.instance.service);
        let before = of(&self.before).filter(|_| moved || self.after.is_none());
        self.service.iter().chain(before).chain(of(&self.after))
    }
}

/// What is kept.
#[derive(Default)]
pub(super) struct History(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    services: HashMap<ServiceName, Of>,
    /// Whose each is, the oldest first; some of them are gone already.
    order: VecDeque<ServiceName>,
    count: usize,
    /// All that came after this moment is kept, but for what single services had too much of.
    begin: u64,
}

/// Of one service.
#[derive(Default)]
struct Of {
    past: VecDeque<Arc<Past>>,
    /// How many of its entries in the order are gone.
    gone: usize,
    /// All that came after this moment is kept.
    begin: u64,
}

/// What is kept of one service.
#[derive(Debug, Default)]
pub struct Told {
    /// The newest first.
    pub past: Vec<Arc<Past>>,
    /// Milliseconds since 1970: what came after this moment is all there.
    pub begin: u64,
}

impl History {
    /// One that knows nothing of what was before.
    pub(super) fn new(now: u64) -> Self {
        Self(Mutex::new(Kept { begin: now, ..Kept::default() }))
    }

    /// Keeps what happened, within the bounds; how many older changes had to go for it.
    pub(super) fn put(&self, pasts: Vec<Past>, max: usize, of_service_max: usize) -> usize {
        let mut kept = self.0.lock();
        let mut put = kept.count;
        for past in pasts {
            let past = Arc::new(past);
            for service in past.services() {
                put += 1;
                kept.push(service, &past, of_service_max);
            }
        }
        kept.shrink(max);
        put - kept.count
    }

    /// Forgets everything: nothing was noted meanwhile.
    pub(super) fn forget(&self, now: u64) {
        let mut kept = self.0.lock();
        if kept.count > 0 || kept.begin < now {
            *kept = Kept { begin: now, ..Kept::default() };
        }
    }

    /// What is kept of a service up to an index.
    pub(super) fn of(&self, service: &ServiceName, index: u64) -> Told {
        let kept = self.0.lock();
        let Some(of) = kept.services.get(service) else {
            return Told { past: Vec::new(), begin: kept.begin };
        };
        let known = of.past.iter().rev().filter(|past| past.index <= index);
        Told { past: known.cloned().collect(), begin: of.begin.max(kept.begin) }
    }
}

impl Kept {
    fn push(&mut self, service: &ServiceName, past: &Arc<Past>, max: usize) {
        let of = self.services.entry(service.clone()).or_default();
        of.past.push_back(past.clone());
        self.order.push_back(service.clone());
        self.count += 1;
        while of.past.len() > max.max(1) {
            of.drop_oldest();
            of.gone += 1;
            self.count -= 1;
        }
    }

    fn shrink(&mut self, max: usize) {
        while self.count > max {
            let Some(service) = self.order.pop_front() else { break };
            let Some(of) = self.services.get_mut(&service) else { continue };
            if of.gone > 0 {
                of.gone -= 1;
                continue;
            }
            of.drop_oldest();
            self.begin = self.begin.max(of.begin);
            self.count -= 1;
            if of.past.is_empty() {
                self.services.remove(&service);
            }
        }
        // A service that changes all the time must not fill the order with what is gone.
        if self.order.len() > 2 * max.max(self.count) {
            let services = &mut self.services;
            self.order.retain(|service| match services.get_mut(service) {
                Some(of) if of.gone == 0 => true,
                Some(of) => {
                    of.gone -= 1;
                    false
                }
                None => false,
            });
        }
    }
}

impl Of {
    fn drop_oldest(&mut self) {
        if let Some(past) = self.past.pop_front() {
            self.begin = self.begin.max(past.at);
        }
    }
}

impl Snapshot {
    /// How an instance stands, by its node (in lower case) and id.
    pub(super) fn was(&self, node: &str, id: &str) -> Option<Was> {
        let node = self.node(node)?;
        let entry = node.instances.get(id)?;
        Some(Was {
            instance: entry.instance.clone(),
            node: node.node.clone(),
            health: self.health(entry),
            kept: self.is_kept(entry),
            out: self.is_out(entry),
        })
    }

    /// The instances of a service as they stood at an earlier moment, by node and id: those of now without what changed since. `past`
    /// is what is kept of it, the newest first.
    pub fn stood_at(&self, service: &ServiceName, past: &[Arc<Past>], moment: u64) -> Vec<Was> {
        let mut all: BTreeMap<(NodeName, InstanceId), Was> = BTreeMap::new();
        let instances = self.service(service.folded()).into_iter().flat_map(|entry| entry.instances.values());
        for entry in instances {
            let instance = &entry.instance;
            if let Some(was) = self.was(instance.node.folded(), instance.id.as_str()) {
                all.insert((instance.node.clone(), instance.id.clone()), was);
            }
        }
        for past in past.iter().take_while(|past| past.at > moment) {
            let Some(of) = past.instance() else { continue };
            let key = (of.node.clone(), of.id.clone());
            match past.before.as_ref().filter(|was| was.instance.service == *service) {
                Some(was) => all.insert(key, was.clone()),
                None => all.remove(&key),
            };
        }
        all.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).unwrap()
    }

    fn past(service: &str, at: u64) -> Past {
        let instance = json!({ "node": "n1", "id": "a", "service": service });
        let node = json!({ "name": "n1", "address": "10.0.0.1" });
        let was = Was {
            instance: Arc::new(serde_json::from_value(instance).unwrap()),
            node: Arc::new(serde_json::from_value(node).unwrap()),
            health: Health::Passing,
            kept: false,
            out: false,
        };
        let source = Source { action: "probe", who: None, client: None };
        let of = Past::of(&Snapshot::default(), source, What::Registered { new: true }, (None, Some(was)));
        Past { index: at, at, ..of }
    }

    fn kept(history: &History, service: &str) -> (Vec<u64>, u64) {
        let told = history.of(&name(service), u64::MAX);
        (told.past.iter().map(|past| past.at).collect(), told.begin)
    }

    #[test]
    fn each_service_and_all_together_have_a_bound_and_it_is_said_since_when() {
        let history = History::new(5);
        history.put(vec![past("a", 10)], 100, 2);
        assert_eq!((kept(&history, "a"), kept(&history, "b")), ((vec![10], 5), (vec![], 5)));
        history.put(vec![past("b", 11), past("a", 12), past("a", 13)], 100, 2);
        assert_eq!((kept(&history, "a"), kept(&history, "b")), ((vec![13, 12], 10), (vec![11], 5)));
        // The oldest of all goes, whoever has more; what went before counts no more.
        history.put(vec![past("c", 14)], 3, 2);
        assert_eq!((kept(&history, "a").0, kept(&history, "b")), (vec![13, 12], (vec![], 11)));
        assert_eq!(kept(&history, "A"), (vec![13, 12], 11), "whatever the letter case");
        assert_eq!(history.of(&name("a"), 12).past.len(), 1, "not more than the snapshot shows");
        history.forget(20);
        assert_eq!(kept(&history, "a"), (vec![], 20));
    }

    proptest! {
        /// Whatever comes: the bounds hold, the newest are there, and nothing is missing since the moment that is said.
        #[test]
        fn nothing_is_missing_since_the_moment_that_is_said(
            of in proptest::collection::vec(0..4u8, 1..200), max in 1..40usize, single in 1..10usize,
        ) {
            let history = History::new(0);
            let services = of.iter().map(|one| format!("s{one}")).collect::<Vec<_>>();
            for (at, service) in (1..).zip(&services) {
                history.put(vec![past(service, at)], max, single);
                let inner = history.0.lock();
                prop_assert!(inner.count <= max && inner.order.len() <= 2 * max.max(inner.count));
                prop_assert_eq!(inner.count, inner.services.values().map(|of| of.past.len()).sum::<usize>());
            }
            for service in ["s0", "s1", "s2", "s3"] {
                let (found, begin) = kept(&history, service);
                let mut since: Vec<u64> = (1..).zip(&services)
                    .filter(|(at, one)| *at > begin && *one == service).map(|(at, _)| at).collect();
                since.reverse();
                prop_assert!(found.len() <= single);
                prop_assert_eq!(&found[..since.len().min(found.len())], &since[..]);
            }
        }
    }
}
