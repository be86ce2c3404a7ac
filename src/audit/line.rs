//! One line of the audit log: a JSON object with the field names of the Elastic Common Schema. Pure.

use serde_json::{Map, Value as Json, json};

use super::secrets::hide;
use super::{Entry, Outcome, Value};
use crate::model::{Key, Record};
use crate::telemetry::{ecs, utc};

/// Of a reason.
const REASON_OCTETS_MAX: usize = 1024;

/// The line, with its end. `node` is who writes.
pub(super) fn line(entry: &Entry, node: &str) -> String {
    let Entry { at, cause, key, before, after, outcome, reason, index } = entry;
    let mut all = Map::new();
    let mut put = |name: &str, value: Json| drop(all.insert(name.to_owned(), value));
    put("@timestamp", utc::rfc3339(*at).into());
    put("log.level", "info".into());
    put("message", message(entry).into());
    put("ecs.version", ecs::VERSION.into());
    put("event.dataset", "rollcall.audit".into());
    put("event.kind", "event".into());
    put("event.category", json!([if is_iam(key.as_ref()) { "iam" } else { "configuration" }]));
    put("event.type", json!(kinds(entry)));
    put("event.action", cause.action.into());
    put("event.outcome", if *outcome == Outcome::Allowed { "success" } else { "failure" }.into());
    put("rollcall.outcome", word(*outcome).into());
    if let Some(reason) = reason {
        put("event.reason", cut(reason).into());
    }
    if let Some(index) = index {
        put("event.sequence", (*index).into());
    }
    put("service.name", "rollcall".into());
    put("service.node.name", node.into());
    match &cause.origin {
        Some(origin) => origin.fields(&mut put),
        None => put("user.name", "rollcall".into()),
    }
    if let Some(key) = key {
        let (kind, id) = named(key);
        put("rollcall.object.kind", kind.into());
        put("rollcall.object.id", id.into());
    }
    put("rollcall.before", before.as_ref().map_or(Json::Null, shown));
    put("rollcall.after", after.as_ref().map_or(Json::Null, shown));
    let mut line = Json::Object(all).to_string();
    line.push('\n');
    line
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied => "denied",
        Outcome::Refused => "refused",
        Outcome::Error => "error",
    }
}

/// The schema's words for what happened.
fn kinds(entry: &Entry) -> Vec<&'static str> {
    let what = match (&entry.before, &entry.after) {
        (None, Some(_)) => Some("creation"),
        (Some(_), None) => Some("deletion"),
        (Some(_), Some(_)) => Some("change"),
        (None, None) => None,
    };
    let came = match entry.outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied | Outcome::Refused => "denied",
        Outcome::Error => "error",
    };
    what.into_iter().chain([came]).collect()
}

fn message(entry: &Entry) -> String {
    let about = entry.key.as_ref().map(named).map_or(String::new(), |(kind, id)| format!(" {kind} {id}"));
    format!("{}{about}: {}", entry.cause.action, word(entry.outcome))
}

fn is_iam(key: Option<&Key>) -> bool {
    matches!(key, Some(Key::Acl(_)))
}

/// What a key is of, and its name.
fn named(key: &Key) -> (&'static str, String) {
    match key {
        Key::Node(node) => ("node", node.to_string()),
        Key::Instance(node, id) => ("instance", format!("{node}/{id}")),
        Key::Check(node, id) => ("check", format!("{node}/{id}")),
        Key::Maintenance(node, None) => ("maintenance", node.to_string()),
        Key::Maintenance(node, Some(id)) => ("maintenance", format!("{node}/{id}")),
        Key::Query(id) => ("query", id.to_string()),
        Key::Route(service) => ("route", service.to_string()),
        Key::Acl(key) => (key.kind.word(), key.id.to_string()),
    }
}

/// A value without its secrets.
fn shown(whole: &Value) -> Json {
    let inner = |record: &Record| {
        // One key, which names the kind: that stands elsewhere.
        let mut value = serde_json::to_value(record).unwrap_or(Json::Null);
        for _ in 0..if matches!(record, Record::Acl(_)) { 2 } else { 1 } {
            value = match value {
                Json::Object(object) if object.len() == 1 => {
                    object.into_iter().next().map_or(Json::Null, |(_, inner)| inner)
                }
                value => value,
            };
        }
        value
    };
    let mut value = match whole {
        Value::Record(record) => inner(record),
        Value::Status(status) => json!({ "status": status.as_str() }),
        Value::Circuit(state) => json!({ "circuit": state }),
        Value::LogLevel(level) => json!({ "log_level": level }),
    };
    // Lines of their own have told of those.
    if let (Value::Record(Record::Route(_)), Json::Object(route)) = (whole, &mut value) {
        route.remove("past");
    }
    hide(&mut value);
    value
}

fn cut(text: &str) -> &str {
    let end = (0..=REASON_OCTETS_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use uuid::Uuid;

    use super::super::Cause;
    use super::*;
    use crate::model::acl::{Grants, Token};
    use crate::model::{Acl, AclKey, AclKind, NodeName, Secret};

    fn entry(key: Key, after: Option<Value>, outcome: Outcome) -> Entry {
        let cause = Cause { origin: None, action: "acl-put" };
        let reason = (outcome != Outcome::Allowed).then(|| "x".repeat(1 << 20));
        let at = SystemTime::UNIX_EPOCH;
        Entry { at, cause, key: Some(key), before: None, after, outcome, reason, index: Some(7) }
    }

    #[test]
    fn a_line_says_who_what_and_what_came_of_it_without_secrets() {
        let accessor = Uuid::from_u128(7);
        let token = Token {
            accessor,
            secret: Secret::new("s3cret"),
            description: "two\nlines".into(),
            grants: Grants::default(),
            local: false,
            method: None,
            expires: None,
            created: 0,
        };
        let put = Value::Record(Record::Acl(Acl::Token(token.into())));
        let key = Key::Acl(AclKey::new(AclKind::Token, &accessor));
        let text = line(&entry(key, Some(put), Outcome::Allowed), "n1");
        assert!(
            text.ends_with("}\n") && text.matches('\n').count() == 1 && !text.contains("s3cret"),
            "{text}"
        );
        let line: Json = serde_json::from_str(&text).unwrap();
        for (name, wanted) in [
            ("event.action", json!("acl-put")),
            ("event.category", json!(["iam"])),
            ("event.type", json!(["creation", "allowed"])),
            ("event.outcome", json!("success")),
            ("rollcall.outcome", json!("allowed")),
            ("event.sequence", json!(7)),
            ("user.name", json!("rollcall")),
            ("rollcall.object.kind", json!("token")),
            ("rollcall.object.id", json!(accessor)),
            ("rollcall.before", Json::Null),
        ] {
            assert_eq!(line[name], wanted, "{name} in {text}");
        }
        assert_eq!(line["rollcall.after"]["accessor"], json!(accessor));
        assert_eq!(line["rollcall.after"]["secret"], "(hidden)");
    }

    #[test]
    fn what_was_not_allowed_says_why_in_a_line_of_bounded_length() {
        let node = NodeName::parse("n1").unwrap();
        let text = line(&entry(Key::Node(node), None, Outcome::Denied), "n1");
        assert!(text.len() < 2 * REASON_OCTETS_MAX, "{}", text.len());
        let line: Json = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["event.outcome"], &line["event.type"]), (&json!("failure"), &json!(["denied"])));
        assert_eq!(
            (&line["rollcall.object.kind"], &line["rollcall.object.id"]),
            (&json!("node"), &json!("n1"))
        );
    }
}
