//! Operations of `/v1/agent`.

use super::{
    ALWAYS, Answer, BODY, CONSISTENCY, DONE, Form, Of, Operation, Param, READ, UNKNOWN, WAIT, WHOSE, WRITE,
    answer, failure,
};

const REASON: &[Param] = &[
    Param { name: "enable", of: Of::Flag, about: "Whether maintenance begins or ends." },
    Param { name: "reason", of: Of::Text, about: "Why; shown in the notes of the check that stands for it." },
];
const NOTE: &[Param] = &[Param { name: "note", of: Of::Text, about: "The check's output." }];
const REPLACE: &[Param] = &[Param {
    name: "replace-existing-checks",
    of: Of::Flag,
    about: "Checks that the body does not name go.",
}];
const HASH: &[Param] =
    &[Param { name: "hash", of: Of::Text, about: "Wait until the answer's hash is another." }, WAIT];
const FORMAT: &[Param] =
    &[Param { name: "format", of: Of::Word(&["text"]), about: "One word instead of JSON." }];
const NO_SCRIPTS: &[Answer] = &[failure(
    500,
    "Script checks are not allowed.",
    &["Scripts are disabled on this agent from remote calls"],
)];
const NOT_TTL: &[Answer] = &[failure(500, "The check is no TTL check.", &["CheckID \""])];

/// The worst of several decides; JSON, or a word when that is asked.
const fn health(status: u16, about: &'static str) -> Answer {
    answer(status, about, Form::Health)
}
const HEALTH: &[Answer] = &[
    health(200, "The health is passing."),
    health(429, "The health is warning."),
    health(503, "The health is critical, or in maintenance."),
    health(404, "There is none of that ID or name."),
    failure(500, "No ID or name.", &["Missing service"]),
];

const fn put(path: &'static str, about: &'static str) -> Operation {
    Operation { method: "put", path, about, query: &[WHOSE], body: None, answers: &[DONE, UNKNOWN, WRITE] }
}

const fn get(path: &'static str, about: &'static str, answers: &'static [&'static [Answer]]) -> Operation {
    Operation { method: "get", path, about, query: &[], body: None, answers }
}

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        query: &[WHOSE, REPLACE],
        body: Some("ServiceRegistration"),
        answers: &[DONE, WRITE, BODY, NO_SCRIPTS],
        ..put("/v1/agent/service/register", "Register an instance of a service, with its checks.")
    },
    put("/v1/agent/service/deregister/{id}", "Take an instance out."),
    Operation {
        query: &[WHOSE, REASON],
        ..put("/v1/agent/service/maintenance/{id}", "Begin or end an instance's maintenance.")
    },
    Operation {
        query: &[WHOSE, CONSISTENCY],
        ..get(
            "/v1/agent/services",
            "The instances that the caller's node registered.",
            &[&[answer(200, "By ID.", Form::Named("AgentService"))], READ],
        )
    },
    Operation {
        query: &[WHOSE, CONSISTENCY, HASH],
        ..get(
            "/v1/agent/service/{id}",
            "One instance.",
            &[&[answer(200, "The instance and a hash of it.", Form::Json("HashedService"))], UNKNOWN, READ],
        )
    },
    Operation {
        query: &[WHOSE, FORMAT],
        ..get("/v1/agent/health/service/id/{id}", "The health of one instance, as a status.", &[HEALTH])
    },
    Operation {
        query: &[WHOSE, FORMAT],
        ..get(
            "/v1/agent/health/service/name/{name}",
            "The health of a service's instances, as a status.",
            &[HEALTH],
        )
    },
    Operation {
        query: &[WHOSE, CONSISTENCY],
        ..get(
            "/v1/agent/checks",
            "The checks of the caller's node.",
            &[&[answer(200, "By ID.", Form::Named("Check"))], READ],
        )
    },
    Operation {
        body: Some("CheckRegistration"),
        answers: &[DONE, UNKNOWN, WRITE, BODY, NO_SCRIPTS],
        ..put("/v1/agent/check/register", "Register a check on its own.")
    },
    put("/v1/agent/check/deregister/{id}", "Take a check out."),
    Operation {
        query: &[WHOSE, NOTE],
        answers: &[DONE, UNKNOWN, WRITE, NOT_TTL],
        ..put("/v1/agent/check/pass/{id}", "Say that a TTL check passes.")
    },
    Operation {
        query: &[WHOSE, NOTE],
        answers: &[DONE, UNKNOWN, WRITE, NOT_TTL],
        ..put("/v1/agent/check/warn/{id}", "Say that a TTL check warns.")
    },
    Operation {
        query: &[WHOSE, NOTE],
        answers: &[DONE, UNKNOWN, WRITE, NOT_TTL],
        ..put("/v1/agent/check/fail/{id}", "Say that a TTL check fails.")
    },
    Operation {
        body: Some("CheckUpdate"),
        answers: &[DONE, UNKNOWN, WRITE, BODY, NOT_TTL],
        ..put("/v1/agent/check/update/{id}", "Say how a TTL check stands, and why.")
    },
    Operation {
        query: &[WHOSE, REASON],
        answers: &[DONE, WRITE],
        ..put("/v1/agent/maintenance", "Begin or end the maintenance of the caller's node.")
    },
    get(
        "/v1/agent/self",
        "Who answers.",
        &[&[answer(200, "Configuration, member, statistics.", Form::Json("Self"))]],
    ),
    get(
        "/v1/agent/version",
        "Which version answers.",
        &[&[answer(200, "The version.", Form::Json("Version"))]],
    ),
    get("/v1/agent/host", "The machine.", &[&[answer(200, "The machine.", Form::Json("Host"))]]),
    Operation {
        query: &[
            CONSISTENCY,
            &[
                Param { name: "wan", of: Of::Flag, about: "Those of other datacenters too; there are none." },
                Param { name: "segment", of: Of::Text, about: "Those of a segment; there are none." },
            ],
        ],
        ..get(
            "/v1/agent/members",
            "The server itself: nobody gossips here.",
            &[&[answer(200, "One.", Form::List("Member"))], READ],
        )
    },
    Operation {
        query: &[&[Param { name: "format", of: Of::Word(&["prometheus"]), about: "Prometheus' text form." }]],
        ..get(
            "/v1/agent/metrics",
            "The server's metrics.",
            &[&[answer(200, "JSON, or Prometheus' text form when that is asked.", Form::Metrics)]],
        )
    },
    get(
        "/v1/agent/metrics/stream",
        "The server's metrics, a JSON object every ten seconds.",
        &[&[answer(200, "An object on each line.", Form::Json("Metrics"))]],
    ),
    Operation {
        query: &[&[
            Param {
                name: "loglevel",
                of: Of::Word(&["trace", "debug", "info", "warn", "err", "error"]),
                about: "The least level of lines that come.",
            },
            Param { name: "logjson", of: Of::Flag, about: "Lines as JSON." },
        ]],
        ..get(
            "/v1/agent/monitor",
            "The log as it comes, to callers on this machine.",
            &[&[answer(200, "Lines.", Form::Text), answer(429, "Too many follow it.", Form::Text)]],
        )
    },
    Operation {
        query: &[],
        answers: &[
            DONE,
            ALWAYS,
            &[
                failure(
                    500,
                    "The configuration is wrong; nothing was changed.",
                    &["not reloaded, nothing was changed: "],
                ),
                failure(503, "The server is stopping.", &["the server is stopping"]),
            ],
        ],
        ..put("/v1/agent/reload", "Read the configuration again, all or nothing; by callers on this machine.")
    },
    Operation {
        query: &[],
        answers: &[DONE, &[failure(503, "The server is stopping.", &["the server is stopping"])]],
        ..put("/v1/agent/leave", "End the server, by callers on this machine.")
    },
    Operation {
        query: &[&[Param { name: "prune", of: Of::Flag, about: "Whether or not it failed." }]],
        answers: &[
            DONE,
            WRITE,
            &[failure(500, "There is no such node.", &["agent: No node found with name '"])],
        ],
        ..put("/v1/agent/force-leave/{node}", "Take a failed node out of the catalog, with all it has.")
    },
];
