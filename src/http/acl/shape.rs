//! Consul's JSON of tokens, policies and roles.

use aws_lc_rs::digest;
use data_encoding::BASE64;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::door::admission::HIDDEN;
use crate::acl::{Entry, GLOBAL_MANAGEMENT, INITIAL, Tables};
use crate::model::acl::{Grants, Policy, Role, Token};
use crate::telemetry::utc;

/// A token; its secret only where it may be shown.
pub(super) fn token(entry: &Entry<Token>, tables: &Tables, secrets: bool) -> Map<String, Value> {
    let token = &*entry.value;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("CreateIndex", json!(entry.create_index));
    put("ModifyIndex", json!(entry.modify_index));
    put("AccessorID", json!(token.accessor));
    put("SecretID", json!(if secrets { token.secret.reveal() } else { HIDDEN }));
    put("Description", json!(token.description));
    grants(&token.grants, tables, &mut put);
    put("Local", json!(token.local));
    if let Some(method) = &token.method {
        put("AuthMethod", json!(method));
    }
    if let Some(expires) = token.expires {
        put("ExpirationTime", json!(utc::rfc3339_of(expires)));
    }
    put("CreateTime", json!(utc::rfc3339_of(token.created)));
    put("Hash", json!(hash(&(token.accessor, &token.description, &token.grants))));
    map
}

/// The token that the configuration names: nowhere stored, and shown to its bearer alone.
pub(super) fn initial(secret: &str) -> Value {
    json!({
        "CreateIndex": 1, "ModifyIndex": 1, "AccessorID": INITIAL, "SecretID": secret,
        "Description": "Initial Management Token",
        "Policies": [{ "ID": GLOBAL_MANAGEMENT, "Name": "global-management" }],
        "Local": false, "CreateTime": utc::rfc3339_of(0), "Hash": hash(&INITIAL),
    })
}

/// With the rules, which a listing has not.
pub(super) fn policy(entry: &Entry<Policy>, whole: bool) -> Value {
    let policy = &*entry.value;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("ID", json!(policy.id));
    put("Name", json!(policy.name));
    put("Description", json!(policy.description));
    if whole {
        put("Rules", json!(policy.rules));
    }
    if !policy.datacenters.is_empty() || !whole {
        let all = (!policy.datacenters.is_empty()).then_some(&policy.datacenters);
        put("Datacenters", json!(all));
    }
    put("Hash", json!(hash(policy)));
    put("CreateIndex", json!(entry.create_index));
    put("ModifyIndex", json!(entry.modify_index));
    Value::Object(map)
}

pub(super) fn role(entry: &Entry<Role>, tables: &Tables) -> Value {
    let role = &*entry.value;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("ID", json!(role.id));
    put("Name", json!(role.name));
    put("Description", json!(role.description));
    grants(&role.grants, tables, &mut put);
    put("Hash", json!(hash(role)));
    put("CreateIndex", json!(entry.create_index));
    put("ModifyIndex", json!(entry.modify_index));
    Value::Object(map)
}

/// Links show the names that there are now; what was removed is not linked any more.
fn grants(grants: &Grants, tables: &Tables, put: &mut impl FnMut(&str, Value)) {
    let link = |id: &Uuid, name: &str| json!({ "ID": id, "Name": name });
    let policies = grants.policies.iter().filter_map(|id| Some(link(id, &tables.policy(*id)?.value.name)));
    let roles = grants.roles.iter().filter_map(|id| Some(link(id, &tables.role(*id)?.value.name)));
    let services = grants.services.iter().map(|service| match service.datacenters.is_empty() {
        true => json!({ "ServiceName": service.name }),
        false => json!({ "ServiceName": service.name, "Datacenters": service.datacenters }),
    });
    let nodes =
        grants.nodes.iter().map(|node| json!({ "NodeName": node.name, "Datacenter": node.datacenter }));
    let lists: [(&str, Vec<Value>); 4] = [
        ("Policies", policies.collect()),
        ("Roles", roles.collect()),
        ("ServiceIdentities", services.collect()),
        ("NodeIdentities", nodes.collect()),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        put(key, Value::Array(list));
    }
}

/// Changes when the content does; opaque to clients.
pub(super) fn hash(content: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(content).unwrap_or_default();
    BASE64.encode(digest::digest(&digest::SHA256, &bytes).as_ref())
}
