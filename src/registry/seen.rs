//! A snapshot as somebody sees it who may not see all: what a view hides is not in it, so that whoever answers from it can
//! show nothing else.
//!
//! Those who may read everything get the snapshot itself. For others the part that their question is about is made: of a
//! service, its instances; of a node, what it has; only a listing of everything looks at everything, as it does anyway.

use std::sync::Arc;

use imbl::OrdMap;

use super::command::Caller;
use super::snapshot::{InstanceEntry, NodeEntry, Part, ServiceEntry, Snapshot};
use super::watch::Topic;
use crate::acl::View;
use crate::model::{Instance, NodeName, ServiceName};

impl Topic {
    /// What somebody waits for who asks for this: a service or a node that may not be read is to them as one that is not
    /// there, so that neither an index nor a wake-up tells the two apart.
    pub fn seen_by(&self, view: &View) -> Self {
        match self {
            Self::Service(name) if !view.reads_service(name.folded()) => Self::NoService,
            Self::Node(name) if !view.reads_node(name.folded()) => Self::NoNode,
            topic => topic.clone(),
        }
    }
}

impl Snapshot {
    /// What a view shows of a topic.
    pub fn seen_by(self: Arc<Self>, view: &View, topic: &Topic) -> Arc<Self> {
        if view.reads_all() {
            return self;
        }
        let mut seen = Self::clone(&self);
        let topic = topic.seen_by(view);
        let hides = match &topic {
            Topic::Service(name) => seen.keep_service(name, view),
            Topic::Node(name) => seen.keep_node(name, view),
            Topic::Nodes | Topic::Checks => seen.keep_nodes(view),
            // Their names need no node, as in Consul.
            Topic::Services | Topic::Steady => seen.keep_services(view),
            // Of which their listings leave out what may not be seen.
            Topic::Queries | Topic::Query(_) | Topic::Routes => {
                (seen.nodes, seen.services) = Default::default();
                false
            }
            // Said of every name that may not be read, whether there is such a one or not.
            Topic::NoService | Topic::NoNode => {
                (seen.nodes, seen.services) = Default::default();
                true
            }
        };
        seen.part = Some(Part { index: self.index_of(&topic), hides });
        Arc::new(seen)
    }

    /// What a view shows of everything.
    pub fn seen_whole(self: Arc<Self>, view: &View) -> Arc<Self> {
        if view.reads_all() {
            return self;
        }
        let mut seen = Self::clone(&self);
        let services = std::mem::take(&mut seen.services);
        let hides = seen.keep_nodes(view);
        for (name, service) in services.iter().filter(|(name, _)| view.reads_service(name.folded())) {
            let mut shown = ServiceEntry { instances: Default::default(), ..ServiceEntry::clone(service) };
            let all = service.instances.values();
            for entry in all.filter(|entry| view.reads_node(entry.instance.node.folded())) {
                shown.instances.put(entry.clone());
            }
            if !shown.instances.is_empty() {
                seen.services.insert(name.clone(), Arc::new(shown));
            }
        }
        seen.part = Some(Part { index: self.index(), hides });
        Arc::new(seen)
    }

    /// [`find_instance`](Self::find_instance) among those that a view shows: what is hidden is not there, and makes no id that of
    /// several.
    pub fn find_seen(
        &self,
        view: &View,
        caller: &Caller,
        id: &str,
    ) -> Result<Option<&Arc<InstanceEntry>>, Vec<NodeName>> {
        let shown =
            |of: &Instance| view.reads_service(of.service.folded()) && view.reads_node(of.node.folded());
        self.find(caller, |entry| entry.instances.get(id).filter(|entry| shown(&entry.instance)))
    }

    /// Leaves one service, which may be read; its instances need both themselves and their nodes to be readable.
    fn keep_service(&mut self, name: &ServiceName, view: &View) -> bool {
        let services = std::mem::take(&mut self.services);
        let nodes = std::mem::take(&mut self.nodes);
        let Some(service) = services.get(name) else { return false };
        let mut shown = ServiceEntry { instances: Default::default(), ..ServiceEntry::clone(service) };
        for entry in service.instances.values().filter(|entry| view.reads_node(entry.instance.node.folded()))
        {
            let Some(node) = nodes.get(&entry.instance.node) else { continue };
            shown.instances.put(entry.clone());
            self.nodes.insert(node.node.name.clone(), node.clone());
        }
        let hidden = shown.instances.len() < service.instances.len();
        if !shown.instances.is_empty() {
            self.services.insert(shown.name.clone(), Arc::new(shown));
        }
        hidden
    }

    /// Leaves one node, which may be read, and what of it may be seen.
    fn keep_node(&mut self, name: &NodeName, view: &View) -> bool {
        self.services = OrdMap::new();
        let nodes = std::mem::take(&mut self.nodes);
        let Some(node) = nodes.get(name) else { return false };
        let (node, hidden) = shown(node, view);
        self.nodes.insert(name.clone(), node);
        hidden
    }

    fn keep_nodes(&mut self, view: &View) -> bool {
        self.services = OrdMap::new();
        let (mut hidden, mut nodes) = (false, OrdMap::new());
        for (name, node) in &self.nodes {
            if !view.reads_node(name.folded()) {
                hidden = true;
                continue;
            }
            let (node, less) = shown(node, view);
            hidden |= less;
            nodes.insert(name.clone(), node);
        }
        self.nodes = nodes;
        hidden
    }

    fn keep_services(&mut self, view: &View) -> bool {
        let before = self.services.len();
        let shown = self.services.iter().filter(|(name, _)| view.reads_service(name.folded()));
        self.services = shown.map(|(name, entry)| (name.clone(), entry.clone())).collect();
        self.services.len() < before
    }
}

/// A node without the instances, and their checks, that may not be seen.
fn shown(node: &Arc<NodeEntry>, view: &View) -> (Arc<NodeEntry>, bool) {
    let may = |entry: &InstanceEntry| view.reads_service(entry.instance.service.folded());
    if node.instances.values().all(|entry| may(entry)) {
        return (node.clone(), false);
    }
    let mut less = NodeEntry::clone(node);
    for (id, entry) in node.instances.iter().filter(|(_, entry)| !may(entry)) {
        less.instances.remove(id);
        entry.checks.iter().for_each(|check| drop(less.checks.remove(&check.check.id)));
    }
    (Arc::new(less), true)
}
