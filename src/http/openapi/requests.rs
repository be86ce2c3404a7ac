//! Schemas of bodies, made from the shapes by which [`decode`](super::super::decode) reads them: a key that is taken is in the
//! document, and no other.

use serde_json::{Map, Value, json};

use super::super::acl;
use super::super::agent::UPDATE;
use super::super::catalog::write::{DEREGISTER, REGISTER};
use super::super::decode::{Kind, Shape};
use super::super::definition::{CHECK, SERVICE};
use super::super::faces;
use super::super::prepared;
use crate::http::faces::steering;

/// By name.
pub(super) fn schemas() -> Map<String, Value> {
    let all: [(&str, &Shape, &[&str]); 15] = [
        ("AclToken", &acl::TOKEN, &[]),
        ("AclPolicy", &acl::POLICY, &["Name"]),
        ("AclRole", &acl::ROLE, &["Name"]),
        ("AclAuthMethod", &acl::METHOD, &["Name", "Type"]),
        ("AclBindingRule", &acl::RULE, &["AuthMethod", "BindType", "BindName"]),
        ("AclLogin", &acl::LOGIN, &["AuthMethod", "BearerToken"]),
        ("AclOwnToken", &acl::OWN, &["Token"]),
        ("ServiceRegistration", &SERVICE, &["Name"]),
        ("CheckRegistration", &CHECK, &["Name"]),
        ("CheckUpdate", &UPDATE, &["Status"]),
        ("CatalogRegistration", &REGISTER, &["Node"]),
        ("CatalogDeregistration", &DEREGISTER, &["Node"]),
        ("ReportBatch", &faces::report::BODY, &["Reports"]),
        ("QueryDefinition", &prepared::BODY, &["Service"]),
        ("RouteDefinition", &steering::BODY, &["Subsets"]),
    ];
    all.into_iter()
        .map(|(name, shape, required)| {
            let mut schema = object(shape);
            schema["required"] = json!(required);
            (name.to_owned(), schema)
        })
        .collect()
}

fn object(shape: &Shape) -> Value {
    let properties: Map<String, Value> =
        shape.fields.iter().map(|(name, kind)| ((*name).to_owned(), field(name, kind))).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": shape.lax })
}

fn field(name: &str, kind: &Kind) -> Value {
    match kind {
        Kind::Plain => plain(name),
        Kind::Object(shape) => object(shape),
        Kind::List(shape) => json!({ "type": "array", "items": object(shape) }),
        Kind::Map(shape) => json!({ "type": "object", "additionalProperties": object(shape) }),
    }
}

/// The same key holds the same wherever it stands.
fn plain(name: &str) -> Value {
    match name {
        "Port" => json!({ "type": "integer", "minimum": 0, "maximum": 65_535 }),
        "Passing" => json!({ "type": "integer", "minimum": 1, "maximum": 65_535 }),
        "Warning" => json!({ "type": "integer", "minimum": 0, "maximum": 65_535 }),
        "Success" | "Failure" => json!({ "type": "integer", "minimum": 0, "maximum": 1_000_000 }),
        "NearestN"
        | "SuccessBeforePassing"
        | "FailuresBeforeWarning"
        | "FailuresBeforeCritical"
        | "FlapMax"
        | "OutputMaxSize"
        | "CreateIndex"
        | "ModifyIndex"
        | "ExposedPort" => json!({ "type": "integer", "minimum": 0 }),
        "OnlyPassing" | "RemoveEmptyTags" | "EnableTagOverride" | "DisableRedirects" | "TCPUseTLS"
        | "GRPCUseTLS" | "H2PingUseTLS" | "TLSSkipVerify" | "SkipNodeUpdate" | "Strict" => {
            json!({ "type": "boolean" })
        }
        "Tags" | "ScriptArgs" | "ServiceTags" | "IgnoreCheckIDs" | "Datacenters" | "Subsets" => {
            json!({ "type": "array", "items": { "type": "string" } })
        }
        "Meta" | "NodeMeta" | "ServiceMeta" | "TaggedAddresses" => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        "Header" => {
            let texts = json!({ "type": "array", "items": { "type": "string" } });
            json!({ "type": "object", "additionalProperties": texts })
        }
        "Interval" | "Timeout" | "TTL" | "DeregisterCriticalServiceAfter" | "FlapLeak" | "FlapSteady" => {
            json!({
                "description": "A number and a unit such as 10s, or a number of nanoseconds.",
                "anyOf": [
                    { "type": "string", "pattern": "^[0-9]{1,6}(ms|s|m|h)$" },
                    { "type": "integer", "minimum": 0, "maximum": i64::MAX },
                ],
            })
        }
        "Status" => json!({ "type": "string", "enum": ["passing", "warning", "critical"] }),
        // Of a service it is the mesh's, of a query a flag.
        "Connect" => json!({ "type": ["object", "boolean"] }),
        "Proxy" | "Locality" | "WriteRequest" => json!({ "type": "object" }),
        _ => json!({ "type": "string" }),
    }
}
