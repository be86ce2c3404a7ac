//! Paths that lead nowhere, and what is Consul's but not ours: named, so that nobody waits or wonders.

use axum::http::Uri;

use super::error::Error;

/// Parts of Consul's API that are not discovery.
const NEVER: [(&str, &str); 27] = [
    ("/v1/kv", "the key/value store"),
    ("/v1/session", "sessions and locks"),
    ("/v1/event", "user events"),
    ("/v1/txn", "transactions"),
    ("/v1/coordinate", "network coordinates"),
    ("/v1/snapshot", "raft snapshots (see GET /v1/rollcall/backup)"),
    ("/v1/operator", "raft operations"),
    ("/v1/connect", "the service mesh"),
    ("/v1/config", "mesh configuration entries"),
    ("/v1/peering", "cluster peering"),
    ("/v1/peerings", "cluster peering"),
    ("/v1/discovery-chain", "the service mesh"),
    ("/v1/exported-services", "cluster peering"),
    ("/v1/imported-services", "cluster peering"),
    ("/v1/internal", "the interface of Consul's own web page"),
    ("/v1/namespace", "namespaces"),
    ("/v1/namespaces", "namespaces"),
    ("/v1/partition", "partitions"),
    ("/v1/partitions", "partitions"),
    ("/v1/agent/connect", "the service mesh"),
    ("/v1/acl/templated-policies", "templated policies"),
    ("/v1/agent/join", "joining other servers: a Rollcall stands alone, and other machines register with it"),
    ("/v1/catalog/connect", "the service mesh"),
    ("/v1/catalog/gateway-services", "the service mesh"),
    ("/v1/health/connect", "the service mesh"),
    ("/v1/health/ingress", "the service mesh"),
    ("/api", "Consul's resource API"),
];

/// 404, with the reason.
pub(super) async fn not_found(uri: Uri) -> Error {
    let path = uri.path();
    let below =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let named = NEVER.iter().find(|(prefix, _)| below(prefix));
    Error::not_found(match named {
        Some((prefix, what)) => format!("{prefix} is not served: Rollcall does discovery, not {what}"),
        None if path == "/" => "the web page is at /ui/, the API under /v1/\n".to_owned(),
        None if path.contains("/v1/") => "Invalid URL path: not a recognized HTTP API endpoint\n".to_owned(),
        None => "Invalid URL path: if attempting to use the HTTP API, ensure the path starts with '/v1/'\n"
            .to_owned(),
    })
}
