//! The OpenAPI 3.1 document of everything that is served, made from tables: [`mod@acl`], [`agent`], [`catalog`], [`prepared`] and [`ours`]
//! list the operations, [`requests`] makes the schemas of bodies from the shapes by which they are decoded, [`answers`] has those of what
//! goes out. Tests hold the tables against the router, both ways, and a fuzzer holds the document against a running server.

mod acl;
mod agent;
mod answers;
mod catalog;
mod ours;
mod prepared;
mod requests;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::State;
use super::route::{self, get};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/rollcall/openapi.json", get(served))
}

async fn served() -> Response {
    route::json(&document())
}

/// One method of one path.
struct Operation {
    method: &'static str,
    /// With `{name}` for a part that is the client's.
    path: &'static str,
    about: &'static str,
    query: &'static [&'static [Param]],
    /// The name of the body's schema.
    body: Option<&'static str>,
    answers: &'static [&'static [Answer]],
}

/// A query parameter.
struct Param {
    name: &'static str,
    of: Of,
    about: &'static str,
}

/// What a parameter holds.
enum Of {
    Text,
    /// Set by its presence.
    Flag,
    Duration,
    Number,
    Word(&'static [&'static str]),
    /// It may come again.
    Texts,
}

/// One status.
struct Answer {
    status: u16,
    about: &'static str,
    form: Form,
    /// Of the texts that come with a status of 5xx: how each begins.
    texts: &'static [&'static str],
}

/// What stands in an answer's body.
enum Form {
    /// Nothing, called JSON.
    Nothing,
    Json(&'static str),
    /// A list of what the schema describes.
    List(&'static str),
    /// An object whose keys are the client's.
    Named(&'static str),
    /// The same with the headers of a read that has an index.
    Indexed(&'static Form),
    Text,
    /// An agent's health: JSON, or a word.
    Health,
    /// Metrics: JSON, or Prometheus' text.
    Metrics,
    /// Of a content type that is named.
    Other(&'static str),
}

const fn answer(status: u16, about: &'static str, form: Form) -> Answer {
    Answer { status, about, form, texts: &[] }
}

const fn failure(status: u16, about: &'static str, texts: &'static [&'static str]) -> Answer {
    Answer { status, about, form: Form::Text, texts }
}

/// What every request may meet.
const ALWAYS: &[Answer] = &[
    answer(400, "The request is wrong; the text says what.", Form::Text),
    answer(
        403,
        "Not from a page of another origin, under another host's name, or from another machine.",
        Form::Text,
    ),
];
/// What a read of a whole listing may meet.
const READ: &[Answer] = &[
    answer(429, "Too many blocking queries wait.", Form::Text),
    failure(
        500,
        "Another datacenter, or a filter that cannot be parsed.",
        &["No path to datacenter", "Failed to create boolean expression evaluator: "],
    ),
];
/// What a change may meet.
const WRITE: &[Answer] = &[
    answer(
        409,
        "The ID is on several nodes, or belongs to the configuration file or to the server itself.",
        Form::Text,
    ),
    answer(429, "Too many changes wait.", Form::Text),
    failure(
        503,
        "The change cannot be stored now.",
        &["cannot store the change: ", "the server is stopping"],
    ),
];
/// What a body may meet beside that.
const BODY: &[Answer] = &[
    answer(408, "The body did not arrive in time.", Form::Text),
    answer(413, "The body is too large.", Form::Text),
];
const DONE: &[Answer] = &[answer(200, "Done.", Form::Nothing)];
const UNKNOWN: &[Answer] = &[answer(404, "There is nothing of that ID or name.", Form::Text)];

/// Of every path.
const PRETTY: &[Param] = &[Param { name: "pretty", of: Of::Flag, about: "Indented JSON." }];
/// Of reads.
const CONSISTENCY: &[Param] = &[
    Param { name: "dc", of: Of::Text, about: "The datacenter that is asked." },
    Param { name: "stale", of: Of::Flag, about: "Any server may answer." },
    Param { name: "consistent", of: Of::Flag, about: "The leader verifies that it is one." },
    Param { name: "cached", of: Of::Flag, about: "A cached answer will do." },
    Param { name: "max_stale", of: Of::Duration, about: "How old an answer may be." },
    Param { name: "filter", of: Of::Text, about: "An expression; what does not match is left out." },
];
/// Of reads that have an index.
const INDEX: Param =
    Param { name: "index", of: Of::Number, about: "Wait until the answer's index is above this one." };
const WAIT: Param = Param { name: "wait", of: Of::Duration, about: "How long to wait at most." };
const BLOCKING: &[Param] = &[
    INDEX,
    WAIT,
    Param { name: "node-meta", of: Of::Texts, about: "key:value that the node must have." },
    Param { name: "near", of: Of::Text, about: "The node whose neighbours come first." },
];
/// Of the agent API.
const WHOSE: &[Param] =
    &[Param { name: "node", of: Of::Text, about: "The node that the caller acts for, instead of its own." }];

fn operations() -> impl Iterator<Item = &'static Operation> {
    acl::OPERATIONS
        .iter()
        .chain(agent::OPERATIONS)
        .chain(catalog::OPERATIONS)
        .chain(prepared::OPERATIONS)
        .chain(ours::OPERATIONS)
}

/// The document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let entry = paths.entry(operation.path).or_insert_with(|| json!({}));
        entry[operation.method] = described(operation);
    }
    let mut schemas = requests::schemas();
    schemas.extend(answers::schemas());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Rollcall",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Consul's discovery API as Rollcall serves it, and what operators need.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:8500" }],
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn described(operation: &Operation) -> Value {
    let Operation { method, path, about, query, body, answers } = operation;
    let in_path = path.split('{').skip(1).filter_map(|part| part.split('}').next()).map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
    });
    let in_query = query.iter().copied().flatten().chain(PRETTY).map(parameter);
    let answers = answers.iter().copied().chain([ALWAYS]).flatten();
    let answers: Map<String, Value> =
        answers.map(|answer| (answer.status.to_string(), answered(answer))).collect();
    let words = path.split(['/', '{', '}', '-', '.']).filter(|word| !word.is_empty());
    let name = std::iter::once(*method).chain(words).collect::<Vec<_>>().join("_");
    let mut shown = json!({
        "operationId": name,
        "summary": about,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": answers,
    });
    if let Some(schema) = body {
        let content = json!({ "application/json": { "schema": named(schema) } });
        shown["requestBody"] = json!({ "required": true, "content": content });
    }
    shown
}

fn named(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn parameter(Param { name, of, about }: &Param) -> Value {
    let (schema, empty) = match of {
        Of::Text => (json!({ "type": "string" }), false),
        Of::Flag => (json!({ "type": "boolean" }), true),
        Of::Duration => (json!({ "type": "string", "pattern": "^[0-9]{1,4}(ms|s|m|h)$" }), false),
        Of::Number => (json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }), false),
        Of::Word(words) => (json!({ "type": "string", "enum": words }), false),
        Of::Texts => (json!({ "type": "array", "items": { "type": "string" } }), false),
    };
    let mut shown = json!({ "name": name, "in": "query", "description": about, "schema": schema });
    if empty {
        shown["allowEmptyValue"] = json!(true);
    }
    shown
}

fn answered(Answer { about, form, texts, .. }: &Answer) -> Value {
    let mut shown = json!({ "description": about });
    if let Form::Indexed(form) = form {
        shown["headers"] = index_headers();
        shown["content"] = content(form);
    } else {
        shown["content"] = content(form);
    }
    if !texts.is_empty() {
        shown["x-texts"] = json!(texts);
    }
    shown
}

fn content(form: &Form) -> Value {
    let json_of = |schema: Value| json!({ "application/json": { "schema": schema } });
    match form {
        // A body of no octets is no JSON; no schema says so.
        Form::Nothing => json!({ "application/json": {} }),
        Form::Json(schema) => json_of(named(schema)),
        Form::List(schema) => json_of(json!({ "type": "array", "items": named(schema) })),
        Form::Named(schema) => json_of(json!({ "type": "object", "additionalProperties": named(schema) })),
        Form::Indexed(form) => content(form),
        Form::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Form::Health => {
            let either = [named("AgentHealth"), json!({ "type": "array", "items": named("AgentHealth") })];
            json!({
                "application/json": { "schema": { "anyOf": either } },
                "text/plain": { "schema": { "type": "string" } },
            })
        }
        Form::Metrics => json!({
            "application/json": { "schema": named("Metrics") },
            "text/plain": { "schema": { "type": "string" } },
        }),
        Form::Other(kind) => json!({ *kind: { "schema": { "type": "string" } } }),
    }
}

fn index_headers() -> Value {
    let header = |schema: Value| json!({ "required": true, "schema": schema });
    json!({
        "X-Consul-Index": header(json!({ "type": "integer", "minimum": 1 })),
        "X-Consul-LastContact": header(json!({ "type": "integer", "minimum": 0 })),
        "X-Consul-KnownLeader": header(json!({ "type": "string", "enum": ["true", "false"] })),
        "X-Consul-Effective-Consistency":
            header(json!({ "type": "string", "enum": ["leader", "stale", "consistent"] })),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_stands_once_and_every_schema_that_is_named_is_there() {
        let mut seen = BTreeSet::new();
        for operation in operations() {
            assert!(seen.insert((operation.path, operation.method)), "{} twice", operation.path);
            assert!(!operation.about.is_empty() && operation.about.ends_with('.'), "{}", operation.path);
            for answer in operation.answers.iter().copied().flatten().filter(|answer| answer.status >= 500) {
                assert!(!answer.texts.is_empty() || answer.about.contains("health"), "{}", operation.path);
            }
        }
        let document = document();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        let mut named: BTreeSet<&str> = BTreeSet::new();
        for rest in text.split("#/components/schemas/").skip(1) {
            named.insert(rest.split('"').next().unwrap());
        }
        let known: BTreeSet<&str> = schemas.keys().map(String::as_str).collect();
        assert_eq!(named, known);
    }
}
