//! Prepared queries, by id and by name.
//!
//! A name is looked for among ids, then among names, then among templates, of which the one with the longest name that the
//! name begins with counts (Consul's API). Letter case does not matter.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

use super::apply::Effects;
use super::snapshot::Snapshot;
use super::watch::Topic;
use crate::model::{PreparedQuery, Template};

/// Memory that a stored template's regular expression may take: its limit was looked at when it was made.
const REGEX_OCTETS_MAX: usize = 1 << 28;

/// One query.
#[derive(Debug, Clone)]
pub struct QueryEntry {
    pub query: Arc<PreparedQuery>,
    /// Where it is one.
    pub template: Option<Arc<Template>>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Queries {
    by_id: OrdMap<Uuid, Arc<QueryEntry>>,
    /// In lower case; templates among them.
    names: OrdMap<Box<str>, Uuid>,
    /// In lower case; the template of all names has the empty one.
    templates: OrdMap<Box<str>, Uuid>,
    /// Names of several labels that are no templates, their labels from the right: what is above them is an empty
    /// non-terminal in DNS.
    reversed: OrdSet<Box<str>>,
    /// The last change to any.
    index: u64,
}

impl QueryEntry {
    /// One whose template is made ready.
    pub(super) fn new(query: Arc<PreparedQuery>, create_index: u64, modify_index: u64) -> Self {
        let template = query.template.is_some().then(|| Template::compile(&query, REGEX_OCTETS_MAX));
        // One that was accepted compiles again.
        let template = template.and_then(Result::ok).map(Arc::new);
        Self { query, template, create_index, modify_index }
    }

    /// Whether it answers for other names than its own.
    pub fn is_template(&self) -> bool {
        self.query.template.is_some()
    }
}

impl Queries {
    pub(super) fn put(&mut self, entry: QueryEntry) {
        let query = entry.query.clone();
        self.forget(query.id);
        let folded: Box<str> = query.name.to_ascii_lowercase().into();
        if entry.is_template() {
            self.templates.insert(folded.clone(), query.id);
        } else if folded.contains('.') {
            self.reversed.insert(reversed(&folded));
        }
        if !folded.is_empty() {
            self.names.insert(folded, query.id);
        }
        self.index = self.index.max(entry.modify_index);
        self.by_id.insert(query.id, Arc::new(entry));
    }

    fn forget(&mut self, id: Uuid) -> bool {
        let Some(old) = self.by_id.remove(&id) else { return false };
        let folded = old.query.name.to_ascii_lowercase();
        for names in [&mut self.names, &mut self.templates] {
            if names.get(folded.as_str()) == Some(&id) {
                names.remove(folded.as_str());
            }
        }
        if !old.is_template() {
            self.reversed.remove(&reversed(&folded));
        }
        true
    }

    fn find(&self, text: &str) -> Option<&Arc<QueryEntry>> {
        let folded = text.to_ascii_lowercase();
        let named = |names: &OrdMap<Box<str>, Uuid>, name: &str| self.by_id.get(names.get(name)?);
        let by_id = Uuid::try_parse(&folded).ok().filter(|id| id.to_string() == folded);
        by_id
            .and_then(|id| self.by_id.get(&id))
            .or_else(|| named(&self.names, &folded).filter(|_| !folded.is_empty()))
            .or_else(|| named(&self.templates, self.longest(&folded)?))
    }

    /// The longest name of a template that a name begins with.
    fn longest(&self, folded: &str) -> Option<&str> {
        let mut front = folded;
        loop {
            // The last one that is not behind `front` begins with it, or with as much of it as any template does.
            let (name, _) = self.templates.range(..=Box::<str>::from(front)).next_back()?;
            let shared = shared(name, front);
            if shared == name.len() {
                return Some(name);
            }
            front = &front[..shared];
        }
    }

    fn is_above(&self, folded: &str) -> bool {
        let below: Box<str> = (reversed(folded).into_string() + ".").into();
        self.reversed.range(below.clone()..).next().is_some_and(|name| name.starts_with(&*below))
    }
}

/// Octets that two texts have in common at the front, up to a whole character.
fn shared(one: &str, other: &str) -> usize {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    (0..=same).rev().find(|at| other.is_char_boundary(*at)).unwrap_or(0)
}

fn reversed(name: &str) -> Box<str> {
    let labels: Vec<&str> = name.rsplit('.').collect();
    labels.join(".").into()
}

impl Snapshot {
    /// All prepared queries, by id.
    pub fn queries(&self) -> impl ExactSizeIterator<Item = &Arc<QueryEntry>> {
        self.queries.by_id.values()
    }

    /// The prepared query of this id.
    pub fn query(&self, id: Uuid) -> Option<&Arc<QueryEntry>> {
        self.queries.by_id.get(&id)
    }

    /// The prepared query of this name, whatever its letter case: a template, too, but only under its own name.
    pub fn query_named(&self, name: &str) -> Option<&Arc<QueryEntry>> {
        self.queries.by_id.get(self.queries.names.get(name.to_ascii_lowercase().as_str())?)
    }

    /// The template of all names.
    pub fn query_of_all(&self) -> Option<&Arc<QueryEntry>> {
        self.queries.by_id.get(self.queries.templates.get("")?)
    }

    /// The prepared query that an id or a name leads to.
    pub fn find_query(&self, id_or_name: &str) -> Option<&Arc<QueryEntry>> {
        self.queries.find(id_or_name)
    }

    /// Whether names below this one (lower case) may lead to a prepared query: a name of several labels ends in it, or there
    /// is a template, which may match any.
    pub fn is_above_a_query(&self, folded: &str) -> bool {
        !self.queries.templates.is_empty() || self.queries.is_above(folded)
    }

    pub(super) fn index_of_query(&self, id: Uuid) -> u64 {
        self.queries.by_id.get(&id).map_or(self.queries.index, |entry| entry.modify_index)
    }

    pub(super) fn index_of_queries(&self) -> u64 {
        self.queries.index
    }

    pub(super) fn put_query(&mut self, index: u64, query: &Arc<PreparedQuery>, effects: &mut Effects) {
        let created = self.query(query.id).map_or(index, |old| old.create_index);
        self.queries.put(QueryEntry::new(query.clone(), created, index));
        effects.visible = true;
        effects.topics.extend([Topic::Queries, Topic::Query(query.id)]);
    }

    pub(super) fn remove_query(&mut self, index: u64, id: Uuid, effects: &mut Effects) {
        if self.queries.forget(id) {
            self.queries.index = index;
            effects.visible = true;
            effects.topics.extend([Topic::Queries, Topic::Query(id)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::query::{Terms, Wanted};

    fn query(id: u128, name: &str, template: bool) -> QueryEntry {
        let query = PreparedQuery {
            id: Uuid::from_u128(id),
            name: name.into(),
            token: String::new(),
            template: template.then(Terms::default),
            service: Wanted { service: "web".into(), ..Wanted::default() },
            ttl: String::new(),
        };
        QueryEntry::new(Arc::new(query), 1, 1)
    }

    fn all(of: &[(&str, bool)]) -> Queries {
        let mut queries = Queries::default();
        for ((name, template), id) in of.iter().zip(1..) {
            queries.put(query(id, name, *template));
        }
        queries
    }

    fn found(queries: &Queries, name: &str) -> Option<u128> {
        queries.find(name).map(|entry| entry.query.id.as_u128())
    }

    #[test]
    fn ids_come_before_names_and_names_before_templates() {
        let queries = all(&[("Web", false), ("we", true), ("", true), ("web-x", true), ("a.b", false)]);
        for (name, id) in [("WEB", 1), ("web2", 2), ("we", 2), ("x", 3), ("", 3), ("WEB-X.y", 4), ("A.B", 5)]
        {
            assert_eq!(found(&queries, name), Some(id), "{name}");
        }
        assert_eq!(found(&queries, &Uuid::from_u128(5).to_string().to_uppercase()), Some(5));
        assert_eq!(found(&all(&[("we", true)]), "w"), None);
    }

    #[test]
    fn names_that_change_and_go_leave_nothing_behind() {
        let mut queries = all(&[("a.b", false), ("p", true)]);
        assert!(queries.is_above("b") && !queries.is_above("a.b") && !queries.is_above("c"));
        queries.put(query(1, "c", false));
        queries.put(query(2, "p", false));
        assert_eq!(
            (found(&queries, "a.b"), found(&queries, "c"), found(&queries, "p1")),
            (None, Some(1), None)
        );
        assert!(!queries.is_above("b"));
        assert!(queries.forget(Uuid::from_u128(1)) && queries.forget(Uuid::from_u128(2)));
        assert!(!queries.forget(Uuid::from_u128(2)));
        assert!(queries.names.is_empty() && queries.templates.is_empty() && queries.reversed.is_empty());
    }

    proptest! {
        /// The longest prefix wins, as a look at all of them finds it.
        #[test]
        fn the_longest_prefix_wins(
            templates in proptest::collection::btree_set("[abä]{0,4}", 0..8),
            name in "[abcäö]{0,6}",
        ) {
            let of: Vec<_> = templates.iter().map(|name| (name.as_str(), true)).collect();
            let queries = all(&of);
            let longest = templates.iter().filter(|prefix| name.starts_with(*prefix)).max_by_key(|p| p.len());
            prop_assert_eq!(queries.longest(&name), longest.map(String::as_str));
        }
    }
}
