//! Operations that are not Consul's.

use super::{
    Answer, BLOCKING, BODY, CONSISTENCY, DONE, Form, INDEX, Of, Operation, Param, READ, UNKNOWN, WAIT, WHOSE,
    WRITE, answer, failure,
};

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
        "Whether definitions can be stored, and the server is to go on.",
        &[&[
            answer(200, "They can, and it is.", Form::Text),
            failure(
                503,
                "They cannot, or it was told to stop.",
                &["DNS and reads are served, but ", "everything is served, but "],
            ),
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
    Operation {
        query: &[&[
            Param { name: "service", of: Of::Texts, about: "Instances of this service alone." },
            Param { name: "tag", of: Of::Texts, about: "A tag that the instance must have." },
            Param { name: "node-meta", of: Of::Texts, about: "key:value that the node must have." },
            Param {
                name: "passing",
                of: Of::Flag,
                about: "Only those that pass; false shows critical ones, too.",
            },
        ]],
        ..get(
            "/v1/rollcall/http_sd",
            "Targets for Prometheus' http_sd_configs.",
            &[&[answer(200, "Groups of one target each.", Form::List("TargetGroup"))]],
        )
    },
    get(
        "/v1/rollcall/export",
        "The whole registry as one document, to callers on this machine.",
        &[&[answer(200, "The document.", Form::Json("Export"))]],
    ),
    Operation {
        method: "put",
        query: &[&[
            Param { name: "dry-run", of: Of::Flag, about: "Only say what would be done." },
            Param {
                name: "prune",
                of: Of::Flag,
                about: "Remove what came through the catalog and is not in it.",
            },
        ]],
        body: Some("Export"),
        answers: &[
            &[
                answer(200, "All was taken.", Form::Json("ImportReport")),
                answer(409, "Some was refused.", Form::Json("ImportReport")),
                answer(429, "Another import is under way.", Form::Text),
                Answer {
                    texts: &["{"],
                    ..answer(503, "It broke off: changes cannot be stored.", Form::Json("ImportReport"))
                },
            ],
            BODY,
        ],
        ..get(
            "/v1/rollcall/import",
            "Take over a document that was exported; from callers on this machine.",
            &[],
        )
    },
    get(
        "/v1/rollcall/log-level",
        "What the server logs.",
        &[&[answer(200, "The level in force.", Form::Json("LogLevel"))]],
    ),
    Operation {
        method: "put",
        query: &[&[Param {
            name: "level",
            of: Of::Word(&["error", "warn", "info", "debug", "trace"]),
            about: "A level; directives such as info,rollcall::dns=debug are taken too.",
        }]],
        answers: &[DONE, &[failure(503, "The logs are not the server's.", &["no change of level: "])]],
        ..get(
            "/v1/rollcall/log-level",
            "Log by another level until the next reload or start; from callers on this machine.",
            &[],
        )
    },
    Operation {
        method: "put",
        body: Some("ReportBatch"),
        answers: &[
            &[
                answer(200, "They count.", Form::Json("Reported")),
                answer(429, "Too many reports wait.", Form::Text),
                failure(
                    503,
                    "The server is about to stop.",
                    &["the server is stopping", "cannot store the change: "],
                ),
            ],
            BODY,
        ],
        ..get("/v1/rollcall/report", "How requests to instances ended, for their circuit breakers.", &[])
    },
    get(
        "/v1/rollcall/openapi.json",
        "This document.",
        &[&[answer(200, "OpenAPI 3.1.", Form::Json("Document"))]],
    ),
    get("/ui", "Where the web page is.", &[&[answer(308, "At /ui/.", Form::Nothing)]]),
    get("/ui/", "The web page.", UI),
    get("/ui/{file}", "A file of the web page.", UI),
    Operation {
        query: &[SERVICES],
        ..get(
            "/v1/rollcall/services",
            "All services, with how many of their instances stand how.",
            OF_SERVICES,
        )
    },
    Operation {
        query: &[NODES],
        ..get("/v1/rollcall/nodes", "All nodes, with how many of their instances stand how.", OF_NODES)
    },
    Operation {
        query: &[HISTORY],
        ..get(
            "/v1/rollcall/history/{service}",
            "What became of a service of late, and how it stood at a moment.",
            &[&[
                answer(200, "The changes that are kept, the newest first.", Form::Json("History")),
                answer(404, "There is no such service, and nothing of one is kept.", Form::Text),
            ]],
        )
    },
    Operation {
        method: "put",
        query: &[WHOSE, DRAIN],
        answers: &[&[answer(200, "How far it is.", Form::Json("Drain"))], UNKNOWN, WRITE],
        ..get(
            "/v1/rollcall/drain/{id}",
            "Take an instance out of answers, and say when it is safe to stop it.",
            &[],
        )
    },
    Operation {
        method: "delete",
        query: &[WHOSE],
        answers: &[&[answer(200, "What was ended.", Form::Json("DrainEnd"))], UNKNOWN, WRITE],
        ..get("/v1/rollcall/drain/{id}", "Put an instance back into answers.", &[])
    },
    Operation {
        query: &[CONSISTENCY, BLOCKING, SERVICE],
        ..get(
            "/v1/rollcall/routes",
            "The routes of all services.",
            &[&[answer(200, "By service.", Form::Indexed(&Form::List("Route")))], READ],
        )
    },
    Operation {
        query: &[CONSISTENCY, BLOCKING],
        ..get(
            "/v1/rollcall/route/{service}",
            "The route of a service: its subsets, their shares now, and earlier versions.",
            &[&[answer(200, "The route.", Form::Indexed(&Form::Json("Route")))], UNKNOWN, READ],
        )
    },
    Operation {
        method: "put",
        body: Some("RouteDefinition"),
        answers: &[DONE, UNKNOWN, WRITE, BODY],
        ..get(
            "/v1/rollcall/route/{service}",
            "Answer with these subsets of the service's instances, in these shares.",
            &[],
        )
    },
    Operation {
        method: "delete",
        answers: &[DONE, UNKNOWN, WRITE],
        ..get("/v1/rollcall/route/{service}", "Answer with all instances again.", &[])
    },
    Operation {
        method: "put",
        answers: &[DONE, UNKNOWN, WRITE],
        ..get("/v1/rollcall/route/{service}/undo", "Put the former route back.", &[])
    },
    Operation {
        query: &[EXPLAIN],
        ..get(
            "/v1/rollcall/explain",
            "What DNS answers to a name, and why.",
            &[&[answer(200, "The answer, and what was considered for it.", Form::Json("DnsExplanation"))]],
        )
    },
    Operation {
        query: &[EVENTS],
        ..get(
            "/v1/rollcall/events",
            "Changes as they come, until the client goes.",
            &[&[
                answer(200, "Server-sent events.", Form::Other("text/event-stream")),
                answer(429, "Too many follow the changes.", Form::Text),
            ]],
        )
    },
];

const UI: &[&[Answer]] = &[&[
    answer(200, "The file.", Form::Other("text/html")),
    answer(304, "It is as it was.", Form::Nothing),
    answer(404, "There is no such file, or the page is switched off.", Form::Text),
]];
const OF_SERVICES: &[&[Answer]] =
    &[&[answer(200, "A row for each.", Form::Indexed(&Form::List("ServiceSummary")))], READ];
const OF_NODES: &[&[Answer]] =
    &[&[answer(200, "A row for each.", Form::Indexed(&Form::List("NodeSummary")))], READ];
const SERVICES: &[Param] =
    &[Param { name: "service", of: Of::Texts, about: "These services alone." }, INDEX, WAIT];
const SERVICE: &[Param] = &[Param { name: "service", of: Of::Texts, about: "These services alone." }];
const NODES: &[Param] = &[Param { name: "node", of: Of::Texts, about: "These nodes alone." }, INDEX, WAIT];
const HISTORY: &[Param] = &[Param {
    name: "at",
    of: Of::Text,
    about: "How it stood at this time (RFC 3339, or seconds since 1970), or so long ago (10m).",
}];
const DRAIN: &[Param] = &[
    WAIT,
    Param { name: "reason", of: Of::Text, about: "Why, for those who look." },
    Param { name: "deregister", of: Of::Flag, about: "Deregister the instance instead." },
];
const EXPLAIN: &[Param] = &[
    Param { name: "name", of: Of::Text, about: "The name that is asked for, or a service's alone." },
    Param { name: "type", of: Of::Text, about: "The record type; A without it." },
    Param { name: "from", of: Of::Text, about: "The address of whoever asks DNS; the caller's without it." },
];
const EVENTS: &[Param] = &[
    Param { name: "index", of: Of::Number, about: "What came behind this index, too." },
    Param { name: "service", of: Of::Texts, about: "What concerns these services; all without it." },
];
