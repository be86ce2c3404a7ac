//! What commands on prepared queries come to. Names are Consul's to judge: one query is found under each, whether by name or
//! by id.

use std::sync::Arc;

use uuid::Uuid;

use super::{Plan, Planner, limit};
use crate::model::{Definition, Key, PreparedQuery, Record, Template};
use crate::registry::Refused;

impl Planner<'_> {
    pub(super) fn put_query(&self, query: PreparedQuery, new: bool, plan: &mut Plan) -> Result<(), Refused> {
        let limits = self.limits;
        match self.state.query(query.id) {
            Some(old) if *old.query == query => return Ok(()),
            Some(_) => {}
            None if new => {
                limit(
                    "prepared queries:",
                    self.state.queries().len() + 1,
                    limits.queries_max,
                    "queries_max",
                )?;
            }
            None => return Err(Refused::UnknownQuery(query.id)),
        }
        if query.template.is_some() {
            Template::compile(&query, limits.query_regexp_octets_max)?;
        }
        let (name, id) = (query.name.as_str(), query.id);
        let alias = |what| Err(Refused::QueryName { name: name.to_owned(), what });
        let is_of_all = name.is_empty() && query.template.is_some();
        if is_of_all && self.state.query_of_all().is_some_and(|other| other.query.id != id) {
            return Err(Refused::QueryOfAll);
        }
        if self.state.query_named(name).is_some_and(|other| other.query.id != id) {
            return alias("name");
        }
        if Uuid::try_parse(name).is_ok_and(|named| self.state.query(named).is_some()) {
            return alias("ID");
        }
        plan.definitions.push(Definition::Put(Record::Query(Arc::new(query))));
        Ok(())
    }

    pub(super) fn remove_query(&self, id: Uuid, plan: &mut Plan) -> Result<(), Refused> {
        if self.state.query(id).is_none() {
            return Err(Refused::UnknownQuery(id));
        }
        plan.definitions.push(Definition::Remove(Key::Query(id)));
        Ok(())
    }
}
