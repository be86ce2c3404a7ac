//! Operations of `/v1/catalog`, `/v1/health` and `/v1/status`.

use super::{Answer, BLOCKING, BODY, CONSISTENCY, Form, Of, Operation, Param, READ, WRITE, answer, failure};

const TAG: &[Param] = &[Param { name: "tag", of: Of::Texts, about: "A tag that the instance must have." }];
const PASSING: &[Param] =
    &[Param { name: "passing", of: Of::Flag, about: "Only instances whose checks all pass." }];

const fn get(path: &'static str, about: &'static str, answers: &'static [&'static [Answer]]) -> Operation {
    Operation { method: "get", path, about, query: &[CONSISTENCY, BLOCKING], body: None, answers }
}

const fn put(
    path: &'static str,
    about: &'static str,
    body: &'static str,
    answers: &'static [&'static [Answer]],
) -> Operation {
    Operation { method: "put", path, about, query: &[CONSISTENCY], body: Some(body), answers }
}

const TRUE: &[Answer] = &[answer(200, "Done.", Form::Json("True"))];
const CHECKS: &[Answer] = &[answer(200, "Checks.", Form::Indexed(&Form::List("Check")))];
/// What Consul's servers, not its agents, find wrong.
const NO_REGISTRATION: &[Answer] = &[failure(
    500,
    "The registration is not complete or names what is not there.",
    &[
        "No path to datacenter",
        "Must provide node",
        "Must provide address if SkipNodeUpdate is not set",
        "Bad node ID: ",
        "Must provide service name (Service.Service)",
        "Invalid service address",
        "Unknown service ID '",
        "Node '",
        "node \"",
    ],
)];

pub(super) const OPERATIONS: &[Operation] = &[
    put(
        "/v1/catalog/register",
        "Register a node, an instance and checks that somebody else looks after.",
        "CatalogRegistration",
        &[TRUE, WRITE, BODY, NO_REGISTRATION],
    ),
    put(
        "/v1/catalog/deregister",
        "Take out a check, an instance, or a node with all it has.",
        "CatalogDeregistration",
        &[
            TRUE,
            WRITE,
            BODY,
            &[failure(500, "No node is named.", &["No path to datacenter", "Must provide node"])],
        ],
    ),
    Operation {
        query: &[CONSISTENCY],
        ..get(
            "/v1/catalog/datacenters",
            "All datacenters: one.",
            &[&[answer(200, "Names.", Form::Json("Tags"))], READ],
        )
    },
    get(
        "/v1/catalog/nodes",
        "All nodes.",
        &[&[answer(200, "Nodes.", Form::Indexed(&Form::List("Node")))], READ],
    ),
    get(
        "/v1/catalog/services",
        "All services with their tags.",
        &[&[answer(200, "Tags by name.", Form::Indexed(&Form::Named("Tags")))], READ],
    ),
    Operation {
        query: &[CONSISTENCY, BLOCKING, TAG],
        ..get(
            "/v1/catalog/service/{name}",
            "The instances of a service, healthy or not.",
            &[&[answer(200, "Instances.", Form::Indexed(&Form::List("CatalogService")))], READ],
        )
    },
    get(
        "/v1/catalog/node/{name}",
        "A node and its services.",
        &[&[answer(200, "The node, or null.", Form::Indexed(&Form::Json("NodeOrNull")))], READ],
    ),
    get(
        "/v1/catalog/node-services/{name}",
        "A node and a list of its services.",
        &[&[answer(200, "The node, or null.", Form::Indexed(&Form::Json("NodeServices")))], READ],
    ),
    Operation {
        query: &[CONSISTENCY, BLOCKING, TAG, PASSING],
        ..get(
            "/v1/health/service/{name}",
            "The instances of a service with their checks.",
            &[&[answer(200, "Instances.", Form::Indexed(&Form::List("CheckedService")))], READ],
        )
    },
    get("/v1/health/checks/{name}", "The checks of a service.", &[CHECKS, READ]),
    get("/v1/health/node/{name}", "The checks of a node.", &[CHECKS, READ]),
    get("/v1/health/state/{name}", "The checks of a status, or of any.", &[CHECKS, READ]),
    Operation {
        query: &[CONSISTENCY],
        ..get(
            "/v1/status/leader",
            "The leader: this server.",
            &[&[answer(200, "An address.", Form::Json("Text"))], READ],
        )
    },
    Operation {
        query: &[CONSISTENCY],
        ..get(
            "/v1/status/peers",
            "All servers: this one.",
            &[&[answer(200, "Addresses.", Form::Json("Tags"))], READ],
        )
    },
];
