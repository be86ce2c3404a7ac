//! Operations that are not Consul's.

use super::{Answer, Form, Operation, answer, failure};

const fn get(path: &'static str, about: &'static str, answers: &'static [&'static [Answer]]) -> Operation {
    Operation { method: "get", path, about, query: &[], body: None, answers }
}

pub(super) const OPERATIONS: &[Operation] = &[
    get(
        "/metrics",
        "The server's metrics for Prometheus.",
        &[&[answer(200, "Prometheus' text form.", Form::Text)]],
    ),
    get("/health", "Whether the process answers.", &[&[answer(200, "It does.", Form::Text)]]),
    get(
        "/ready",
        "Whether definitions can be stored.",
        &[&[
            answer(200, "They can.", Form::Text),
            failure(503, "They cannot.", &["DNS and reads are served, but "]),
        ]],
    ),
    get(
        "/v1/rollcall/backup",
        "Everything that is stored, to callers on this machine.",
        &[&[
            answer(200, "A record on each line.", Form::Other("application/jsonl")),
            failure(503, "Nothing is stored, or it cannot be read.", &[""]),
        ]],
    ),
    get(
        "/v1/rollcall/openapi.json",
        "This document.",
        &[&[answer(200, "OpenAPI 3.1.", Form::Json("Document"))]],
    ),
];
