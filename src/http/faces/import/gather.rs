//! What a document holds, put together by owner and checked, before anything is done with it.

use std::collections::{HashMap, HashSet};

use super::NAMED_MAX;
use super::report::Refusal;
use crate::http::State;
use crate::http::catalog::write::{self, Registration};
use crate::http::definition::{CHECK_OUTPUT_OCTETS_MAX, check_rules, instance_rules, node_rules};
use crate::http::error::Error;
use crate::http::faces::document::{Entry, Line};
use crate::http::prepared::query_rules;
use crate::http::text;
use crate::model::{
    Check, Instance, InstanceId, Key, Maintenance, Node, NodeName, Origin, PreparedQuery, Record, Route,
};
use crate::registry::{Brought, Seen};

/// Octets of the reason of a maintenance.
const REASON_OCTETS_MAX: usize = 4096;

/// All parts of an import.
#[derive(Default)]
pub(super) struct Gathered {
    /// Each a node with its own checks.
    pub(super) nodes: Vec<Brought>,
    /// Each an instance with its checks.
    pub(super) instances: Vec<Brought>,
    /// Checks and words of maintenance that do not stand behind what they are of.
    pub(super) loose: Vec<Brought>,
    pub(super) queries: Vec<PreparedQuery>,
    pub(super) routes: Vec<Route>,
    /// What the document names.
    pub(super) keys: HashSet<Key>,
    /// Entries that the configuration file of the server they come from owns.
    pub(super) file_owned: usize,
    /// What cannot be taken though the rest can.
    pub(super) refused: Vec<Refusal>,
    wrong: Vec<String>,
    wrong_more: usize,
    /// Nodes and instances that are not taken, and why: what is of them has nothing to be of.
    left_out: HashMap<(NodeName, Option<InstanceId>), &'static str>,
}

impl Gathered {
    pub(super) fn has_nodes(&self) -> bool {
        self.keys.iter().any(|key| matches!(key, Key::Node(_)))
    }

    /// All mistakes, a line each.
    pub(super) fn wrong(&self) -> Option<String> {
        let more = (self.wrong_more > 0).then(|| format!("and {} more", self.wrong_more));
        let lines: Vec<String> = self.wrong.iter().cloned().chain(more).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Takes one record.
    pub(super) fn take(&mut self, number: usize, entry: Result<Entry, String>, state: &State) {
        let taken = match entry {
            Ok(Entry::Line(line)) => self.line(line, state).map_err(|e| e.text),
            Ok(Entry::Catalog(value)) => {
                // Others decide what their registry holds: what we cannot take of it does not stop the rest.
                let what = write::name_of(&value);
                let owner = write::owner_of(&value);
                let registered = write::registration(value, state);
                if let Err(error) = registered.and_then(|registration| self.catalog(registration, &what)) {
                    self.refused.push(Refusal::new(what, error.text));
                    self.left_out.extend(owner.map(|owner| (owner, "what it is of could not be taken")));
                }
                Ok(())
            }
            Err(reason) => Err(reason),
        };
        match taken {
            Ok(()) => {}
            Err(reason) if self.wrong.len() < NAMED_MAX => {
                self.wrong.push(format!("record {number}: {reason}"));
            }
            Err(_) => self.wrong_more += 1,
        }
    }

    fn line(&mut self, line: Line, state: &State) -> Result<(), Error> {
        let Line { record, status, output } = line;
        let key = record.key();
        if !self.keys.insert(key.clone()) {
            return Err(Error::bad(format!("{} stands twice", named(&key))));
        }
        match record {
            // Who may do what does not travel: exports have none of it.
            Record::Acl(_) => return Err(Error::bad("records of access control are not taken")),
            Record::Node(node) => {
                node_rules(&node)?;
                self.nodes.push(Brought {
                    node: Some(std::sync::Arc::unwrap_or_clone(node)),
                    ..Brought::default()
                });
            }
            Record::Instance(instance) => {
                instance_rules(&instance)?;
                self.known_node(&instance.node, state)?;
                if matches!(instance.origin, Origin::File | Origin::Own) {
                    self.file_owned += 1;
                    let owner = (instance.node.clone(), Some(instance.id.clone()));
                    let why = "its service stands in the configuration file of the server it comes from";
                    self.left_out.insert(owner, why);
                    return Ok(());
                }
                let instance = std::sync::Arc::unwrap_or_clone(instance);
                self.instances.push(Brought { instance: Some(instance), ..Brought::default() });
            }
            Record::Check(check) => {
                check_rules(&check, state.config.load().script_checks)?;
                let output = output.unwrap_or_default();
                if output.len() > CHECK_OUTPUT_OCTETS_MAX {
                    let text = format!("its output has more than {CHECK_OUTPUT_OCTETS_MAX} octets");
                    return Err(Error::bad(text));
                }
                if matches!(check.origin, Origin::File | Origin::Own) {
                    self.file_owned += 1;
                    return Ok(());
                }
                let status = status.unwrap_or(check.initial);
                if self.owner_is_there(&key, &check.node, check.instance.as_ref(), state)? {
                    let (node, of) = (check.node.clone(), check.instance.clone());
                    self.part(&node, of.as_ref()).checks.push(Seen {
                        check,
                        status,
                        output: output.as_str().into(),
                    });
                }
            }
            Record::Maintenance(word) => {
                if word.reason.len() > REASON_OCTETS_MAX {
                    return Err(Error::bad(format!("its reason has more than {REASON_OCTETS_MAX} octets")));
                }
                text::prose("its reason", &word.reason)?;
                if self.owner_is_there(&key, &word.node, word.instance.as_ref(), state)? {
                    let (node, of) = (word.node.clone(), word.instance.clone());
                    self.part(&node, of.as_ref()).maintenance.push(word);
                }
            }
            Record::Route(route) => self.steered(&route)?,
            Record::Query(query) => {
                query_rules(&query)?;
                self.queries.push(std::sync::Arc::unwrap_or_clone(query));
            }
        }
        Ok(())
    }

    fn steered(&mut self, route: &Route) -> Result<(), Error> {
        route.check().map_err(|error| Error::bad(error.to_string()))?;
        self.routes.push(route.clone());
        Ok(())
    }

    fn catalog(&mut self, registration: Registration, what: &str) -> Result<(), Error> {
        let Registration { node, instance, checks, notes } = registration;
        self.refused.extend(notes.into_iter().map(|note| Refusal::note(what.to_owned(), note)));
        let name = node.name.clone();
        if self.keys.insert(Key::Node(name.clone())) {
            self.nodes.push(Brought { node: Some(node), ..Brought::default() });
        }
        if let Some(instance) = instance {
            let key = Key::Instance(name.clone(), instance.id.clone());
            if !self.keys.insert(key.clone()) {
                return Err(Error::bad(format!("{} stands twice", named(&key))));
            }
            self.instances.push(Brought { instance: Some(instance), ..Brought::default() });
        }
        for seen in checks {
            let key = Key::Check(name.clone(), seen.check.id.clone());
            if self.keys.insert(key) {
                let of = seen.check.instance.clone();
                self.part(&name, of.as_ref()).checks.push(seen);
            }
        }
        Ok(())
    }

    fn known_node(&self, node: &NodeName, state: &State) -> Result<(), Error> {
        let here = state.registry.load().node(node.folded()).is_some();
        if here || self.keys.contains(&Key::Node(node.clone())) {
            return Ok(());
        }
        Err(Error::bad(format!("its node {:?} is neither here nor before it in the document", node.as_str())))
    }

    /// Whether what a record is of is in the document before it, or here. One of what is not taken is reported.
    fn owner_is_there(
        &mut self,
        key: &Key,
        node: &NodeName,
        instance: Option<&InstanceId>,
        state: &State,
    ) -> Result<bool, Error> {
        let here = state.registry.load();
        let entry = here.node(node.folded());
        if entry.is_some_and(|entry| instance.is_none_or(|id| entry.instances.contains_key(id))) {
            return Ok(true);
        }
        if let Some(why) = self.left_out.get(&(node.clone(), instance.cloned())) {
            self.refused.push(Refusal::new(named(key), (*why).to_owned()));
            return Ok(false);
        }
        let Some(id) = instance else { return self.known_node(node, state).map(|()| true) };
        if self.keys.contains(&Key::Instance(node.clone(), id.clone())) {
            return Ok(true);
        }
        Err(Error::bad(format!(
            "its service {:?} is neither here nor before it in the document",
            id.as_str()
        )))
    }

    /// The part that holds what is of an owner: the owner's own where that was the last one, else a new one.
    fn part(&mut self, node: &NodeName, instance: Option<&InstanceId>) -> &mut Brought {
        let of_node = |part: &Brought| part.node.as_ref().is_some_and(|n: &Node| n.name == *node);
        let of_instance = |part: &Brought, id: &InstanceId| {
            part.instance.as_ref().is_some_and(|i: &Instance| i.node == *node && i.id == *id)
        };
        let of = |check: Option<&Check>, word: Option<&Maintenance>| {
            check.is_some_and(|c| c.node == *node && c.instance.as_ref() == instance)
                || word.is_some_and(|w| w.node == *node && w.instance.as_ref() == instance)
        };
        let list = match instance {
            None if self.nodes.last().is_some_and(of_node) => &mut self.nodes,
            Some(id) if self.instances.last().is_some_and(|part| of_instance(part, id)) => {
                &mut self.instances
            }
            _ => {
                let last = self.loose.last();
                let open = last.is_some_and(|part| {
                    of(part.checks.first().map(|seen| &seen.check), part.maintenance.first())
                });
                if !open {
                    self.loose.push(Brought::default());
                }
                &mut self.loose
            }
        };
        // One was just found there, or put there.
        let at = list.len() - 1;
        &mut list[at]
    }
}

/// A record in words.
pub(super) fn named(key: &Key) -> String {
    match key {
        Key::Node(node) => format!("node {:?}", node.as_str()),
        Key::Instance(node, id) => format!("service {:?} on node {:?}", id.as_str(), node.as_str()),
        Key::Check(node, id) => format!("check {:?} on node {:?}", id.as_str(), node.as_str()),
        Key::Maintenance(node, None) => format!("maintenance of node {:?}", node.as_str()),
        Key::Maintenance(node, Some(id)) => {
            format!("maintenance of service {:?} on node {:?}", id.as_str(), node.as_str())
        }
        Key::Route(service) => format!("route of {:?}", service.as_str()),
        Key::Query(id) => format!("prepared query {id}"),
        Key::Acl(key) => format!("{} of access control", key.kind.word()),
    }
}
