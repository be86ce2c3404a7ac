//! Operations of `/v1/acl` and `/v1/agent/token`.

use super::{Answer, BODY, DONE, Form, Operation, UNKNOWN, WRITE, answer, failure};

/// While access is not controlled.
const OFF: &[Answer] = &[answer(401, "Access is not controlled.", Form::Text)];
/// What Consul's servers find wrong.
const WRONG: &[Answer] = &[failure(
    500,
    "The record is wrong.",
    &[
        "Invalid ",
        "No such ACL ",
        "Failed to parse ACL rules: ",
        "Service identity ",
        "Node identity ",
        "AuthMethod field is disallowed",
        "Token Expiration TTL",
        "ExpirationTime cannot be",
        "Changing ",
        "Cannot ",
        "Delete operation not permitted",
        "TemplatedPolicies are not served",
        "Invalid Login request: ",
        "auth method ",
        "policy ",
        "role ",
        "binding rule ",
        "the auth method of a binding rule",
    ],
)];
const RECORD: &[Answer] = &[answer(200, "The record.", Form::Json("AclRecord"))];
const RECORDS: &[Answer] = &[answer(200, "Records.", Form::List("AclRecord"))];
const TRUE: &[Answer] = &[answer(200, "Done.", Form::Json("AclDone"))];

const fn of(
    method: &'static str,
    path: &'static str,
    about: &'static str,
    answers: &'static [&'static [Answer]],
) -> Operation {
    Operation { method, path, about, query: &[], body: None, answers }
}

pub(super) const OPERATIONS: &[Operation] = &[
    of("put", "/v1/acl/bootstrap", "The first management token, once.", &[RECORD, OFF, WRITE, WRONG, BODY]),
    Operation {
        body: Some("AclLogin"),
        ..of("post", "/v1/acl/login", "A token for a token of others.", &[RECORD, OFF, WRITE, WRONG, BODY])
    },
    of("post", "/v1/acl/logout", "Take back the request's own token.", &[TRUE, OFF, WRITE, WRONG]),
    of("get", "/v1/acl/replication", "Whether tables come from elsewhere.", &[RECORD, OFF]),
    of("get", "/v1/acl/tokens", "All tokens.", &[RECORDS, OFF]),
    Operation {
        body: Some("AclToken"),
        ..of("put", "/v1/acl/token", "Make a token.", &[RECORD, OFF, WRITE, WRONG, BODY])
    },
    of("get", "/v1/acl/token/self", "The request's own token.", &[RECORD, OFF, UNKNOWN]),
    of("get", "/v1/acl/token/{id}", "One token.", &[RECORD, OFF, UNKNOWN]),
    Operation {
        body: Some("AclToken"),
        ..of("put", "/v1/acl/token/{id}", "Change a token.", &[RECORD, OFF, UNKNOWN, WRITE, WRONG, BODY])
    },
    of("delete", "/v1/acl/token/{id}", "Remove a token.", &[TRUE, OFF, UNKNOWN, WRITE, WRONG]),
    Operation {
        body: Some("AclToken"),
        ..of(
            "put",
            "/v1/acl/token/{id}/clone",
            "Another token with the same grants.",
            &[RECORD, OFF, UNKNOWN, WRITE, WRONG, BODY],
        )
    },
    of("get", "/v1/acl/policies", "All policies.", &[RECORDS, OFF]),
    Operation {
        body: Some("AclPolicy"),
        ..of("put", "/v1/acl/policy", "Make a policy.", &[RECORD, OFF, WRITE, WRONG, BODY])
    },
    of("get", "/v1/acl/policy/{id}", "One policy.", &[RECORD, OFF, UNKNOWN]),
    Operation {
        body: Some("AclPolicy"),
        ..of("put", "/v1/acl/policy/{id}", "Change a policy.", &[RECORD, OFF, UNKNOWN, WRITE, WRONG, BODY])
    },
    of("delete", "/v1/acl/policy/{id}", "Remove a policy.", &[TRUE, OFF, UNKNOWN, WRITE, WRONG]),
    of("get", "/v1/acl/policy/name/{name}", "A policy by its name.", &[RECORD, OFF, UNKNOWN]),
    of("get", "/v1/acl/roles", "All roles.", &[RECORDS, OFF]),
    Operation {
        body: Some("AclRole"),
        ..of("put", "/v1/acl/role", "Make a role.", &[RECORD, OFF, WRITE, WRONG, BODY])
    },
    of("get", "/v1/acl/role/{id}", "One role.", &[RECORD, OFF, UNKNOWN]),
    Operation {
        body: Some("AclRole"),
        ..of("put", "/v1/acl/role/{id}", "Change a role.", &[RECORD, OFF, UNKNOWN, WRITE, WRONG, BODY])
    },
    of("delete", "/v1/acl/role/{id}", "Remove a role.", &[TRUE, OFF, UNKNOWN, WRITE, WRONG]),
    of("get", "/v1/acl/role/name/{name}", "A role by its name.", &[RECORD, OFF, UNKNOWN]),
    of("get", "/v1/acl/auth-methods", "All auth methods.", &[RECORDS, OFF]),
    Operation {
        body: Some("AclAuthMethod"),
        ..of("put", "/v1/acl/auth-method", "Make an auth method.", &[RECORD, OFF, WRITE, WRONG, BODY])
    },
    of("get", "/v1/acl/auth-method/{name}", "One auth method.", &[RECORD, OFF, UNKNOWN]),
    Operation {
        body: Some("AclAuthMethod"),
        ..of(
            "put",
            "/v1/acl/auth-method/{name}",
            "Change a auth method.",
            &[RECORD, OFF, UNKNOWN, WRITE, WRONG, BODY],
        )
    },
    of("delete", "/v1/acl/auth-method/{name}", "Remove a auth method.", &[TRUE, OFF, UNKNOWN, WRITE, WRONG]),
    of("get", "/v1/acl/binding-rules", "All binding rules.", &[RECORDS, OFF]),
    Operation {
        body: Some("AclBindingRule"),
        ..of("put", "/v1/acl/binding-rule", "Make a binding rule.", &[RECORD, OFF, WRITE, WRONG, BODY])
    },
    of("get", "/v1/acl/binding-rule/{id}", "One binding rule.", &[RECORD, OFF, UNKNOWN]),
    Operation {
        body: Some("AclBindingRule"),
        ..of(
            "put",
            "/v1/acl/binding-rule/{id}",
            "Change a binding rule.",
            &[RECORD, OFF, UNKNOWN, WRITE, WRONG, BODY],
        )
    },
    of("delete", "/v1/acl/binding-rule/{id}", "Remove a binding rule.", &[TRUE, OFF, UNKNOWN, WRITE, WRONG]),
    Operation {
        body: Some("AclOwnToken"),
        ..of(
            "put",
            "/v1/agent/token/{name}",
            "A token of the server itself: default, dns, agent.",
            &[DONE, OFF, UNKNOWN, WRITE, BODY],
        )
    },
];
