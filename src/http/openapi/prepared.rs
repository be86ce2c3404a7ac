//! Operations of `/v1/query`.

use super::{
    Answer, BLOCKING, BODY, CONSISTENCY, DONE, Form, Of, Operation, Param, READ, UNKNOWN, WRITE, answer,
    failure,
};

const EXECUTE: &[Param] = &[
    Param { name: "near", of: Of::Text, about: "The node whose neighbours come first." },
    Param { name: "limit", of: Of::Number, about: "How many instances at most." },
    Param { name: "connect", of: Of::Flag, about: "Refused: there is no mesh." },
];
/// What Consul's servers find wrong.
const WRONG: &[Answer] = &[failure(
    500,
    "The query or its ID is wrong.",
    &[
        "No path to datacenter",
        "Invalid prepared query: ",
        "ID must be empty when creating a new prepared query",
        "raft apply failed: ",
        "failed prepared query lookup: ",
        "Bad limit: ",
        "Cannot modify non-existent prepared query: ",
    ],
)];
const BUSY: &[Answer] = &[answer(429, "Too many blocking queries wait.", Form::Text)];

const fn get(path: &'static str, about: &'static str, answers: &'static [&'static [Answer]]) -> Operation {
    Operation { method: "get", path, about, query: &[CONSISTENCY, BLOCKING], body: None, answers }
}

pub(super) const OPERATIONS: &[Operation] = &[
    get(
        "/v1/query",
        "All prepared queries.",
        &[&[answer(200, "Queries.", Form::Indexed(&Form::List("PreparedQuery")))], READ],
    ),
    Operation {
        method: "post",
        query: &[CONSISTENCY],
        body: Some("QueryDefinition"),
        answers: &[&[answer(200, "Its ID.", Form::Json("QueryId"))], WRITE, BODY, WRONG],
        ..get("/v1/query", "Make a prepared query.", &[])
    },
    get(
        "/v1/query/{id}",
        "One prepared query, in a list.",
        &[&[answer(200, "One.", Form::Indexed(&Form::List("PreparedQuery")))], UNKNOWN, BUSY, WRONG],
    ),
    Operation {
        method: "put",
        query: &[CONSISTENCY],
        body: Some("QueryDefinition"),
        answers: &[DONE, UNKNOWN, WRITE, BODY, WRONG],
        ..get("/v1/query/{id}", "Replace a prepared query.", &[])
    },
    Operation {
        method: "delete",
        query: &[CONSISTENCY],
        answers: &[DONE, UNKNOWN, WRITE, WRONG],
        ..get("/v1/query/{id}", "Remove a prepared query.", &[])
    },
    Operation {
        query: &[CONSISTENCY, EXECUTE],
        ..get(
            "/v1/query/{id}/execute",
            "The instances that a prepared query, by ID or name, finds.",
            &[&[answer(200, "Instances.", Form::Indexed(&Form::Json("Execution")))], UNKNOWN, WRONG],
        )
    },
    Operation {
        query: &[CONSISTENCY],
        ..get(
            "/v1/query/{id}/explain",
            "The prepared query that a name leads to, with its template filled in.",
            &[&[answer(200, "The query.", Form::Indexed(&Form::Json("Explanation")))], UNKNOWN, WRONG],
        )
    },
];
