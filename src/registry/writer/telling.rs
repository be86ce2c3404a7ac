//! What the writer tells the audit log.

use std::time::SystemTime;

use super::super::command::Refused;
use super::super::told;
use super::Writer;
use crate::audit::{Cause, Entry, Outcome, Value};
use crate::model::{Definition, Key, Observation, Status};

impl Writer {
    /// Tells the audit log what a definition will have changed; before it is applied.
    pub(super) fn tell(&self, index: u64, definition: &Definition, cause: &Cause) {
        let key = definition.key();
        let before = self.state.record(&key);
        let after = match definition {
            Definition::Put(record) => Some(record.clone()),
            Definition::Remove(_) => None,
        };
        if before != after {
            self.tell_change(index, key, before.map(Value::Record), after.map(Value::Record), cause);
        }
    }

    /// That a check's status changed.
    pub(super) fn tell_flip(&self, index: u64, seen: &Observation, before: Option<Status>, cause: &Cause) {
        let key = Key::Check(seen.check.node.clone(), seen.check.id.clone());
        self.tell_change(index, key, before.map(Value::Status), Some(Value::Status(seen.status)), cause);
    }

    pub(super) fn tell_change(
        &self,
        index: u64,
        key: Key,
        before: Option<Value>,
        after: Option<Value>,
        cause: &Cause,
    ) {
        let (at, cause) = (SystemTime::now(), cause.clone());
        let (key, index, reason) = (Some(key), Some(index), None);
        self.audit.tell(Entry { at, cause, key, before, after, outcome: Outcome::Allowed, reason, index });
    }

    /// That something was not done.
    pub(super) fn tell_failed(&self, cause: Cause, about: Option<Key>, why: &Refused) {
        self.audit.tell_failed(cause, || about, told::outcome(why), why);
    }
}
