//! Schemas of what goes out, in the forms that [`shape`](super::super::shape) gives it.

use serde_json::{Map, Value, json};

/// By name.
pub(super) fn schemas() -> Map<String, Value> {
    let all = [
        ("AclRecord", json!({ "type": "object" })),
        ("AclDone", json!({ "const": true })),
        ("Node", node()),
        ("NodeOrNull", json!({ "anyOf": [{ "type": "null" }, node_with("object")] })),
        ("NodeServices", node_with("array")),
        ("Service", service()),
        ("AgentService", agent_service(&[])),
        ("HashedService", agent_service(&["ContentHash"])),
        ("CatalogService", catalog_service()),
        ("Check", check()),
        ("CheckedService", checked_service()),
        ("AgentHealth", agent_health()),
        ("Member", member()),
        ("Self", open(&["Config", "DebugConfig", "Coord", "Member", "Stats", "Meta", "xDS"])),
        ("Version", open(&["SHA", "BuildDate", "HumanVersion", "FIPS"])),
        ("Host", open(&["Memory", "CPU", "Host", "Disk", "CollectionTime", "Errors"])),
        ("Metrics", open(&["Timestamp", "Gauges", "Points", "Counters", "Samples"])),
        (
            "PreparedQuery",
            open(&[
                "ID",
                "Name",
                "Session",
                "Token",
                "Template",
                "Service",
                "DNS",
                "CreateIndex",
                "ModifyIndex",
            ]),
        ),
        ("QueryId", object(&[("ID", text())])),
        ("Execution", execution()),
        ("Tags", texts()),
        ("Text", text()),
        ("True", json!({ "const": true })),
        ("Document", open(&["openapi", "info", "paths", "components"])),
    ];
    all.into_iter().chain(ours()).map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// Of what is not Consul's.
fn ours() -> impl Iterator<Item = (&'static str, Value)> {
    let all = [
        (
            "DnsExplanation",
            open(&[
                "Name",
                "Type",
                "Rcode",
                "Answers",
                "Authorities",
                "Additionals",
                "Octets",
                "Index",
                "Serial",
                "Said",
            ]),
        ),
        ("Explanation", open(&["Query"])),
        ("TargetGroup", object(&[("targets", texts()), ("labels", map(&text()))])),
        ("Export", open(&["rollcall_export", "records"])),
        ("ImportReport", open(&["DryRun", "Nodes", "Services", "Checks", "Removed", "Refused", "BrokeOff"])),
        ("History", open(&["Service", "Index", "Since", "Changes"])),
        ("ServiceSummary", summary(&["Guarded", "Out", "OnTrial"])),
        ("NodeSummary", summary(&["Address", "Health"])),
        ("Reported", open(&["Counted", "Unknown"])),
        (
            "Drain",
            open(&[
                "ID",
                "Node",
                "Service",
                "Index",
                "Threads",
                "ThreadsBehind",
                "LeftAt",
                "TTL",
                "SafeAt",
                "Safe",
                "NotProved",
            ]),
        ),
        ("DrainEnd", open(&["ID", "Node", "Service", "Ended", "NodeReason"])),
        (
            "Route",
            open(&[
                "Service",
                "Version",
                "Subsets",
                "Strict",
                "Over",
                "AbortIfUnhealthy",
                "GuardFor",
                "Now",
                "Answers",
                "Set",
                "Why",
                "Past",
            ]),
        ),
        ("LogLevel", object(&[("Level", text())])),
    ];
    all.into_iter()
}

fn summary(more: &[&str]) -> Value {
    let counts = ["Name", "Instances", "Passing", "Warning", "Critical", "Maintenance", "Writable"];
    open(&[&counts[..], more].concat())
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn texts() -> Value {
    json!({ "type": "array", "items": text() })
}

fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// An object with the client's own keys.
fn map(of: &Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

fn named(schema: &str) -> Value {
    super::named(schema)
}

/// An object that has these keys at least, whatever they hold.
fn open(keys: &[&str]) -> Value {
    json!({ "type": "object", "required": keys })
}

/// An object of these keys; those marked with `?` may be absent.
fn object(fields: &[(&str, Value)]) -> Value {
    let bare = |name: &str| name.trim_end_matches('?').to_owned();
    let required: Vec<&str> =
        fields.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('?')).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| (bare(name), schema.clone())).collect();
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

fn node() -> Value {
    object(&[
        ("ID", text()),
        ("Node", text()),
        ("Address", text()),
        ("Datacenter", text()),
        ("TaggedAddresses", map(&text())),
        ("Meta", map(&text())),
        ("CreateIndex", number()),
        ("ModifyIndex", number()),
    ])
}

fn node_with(services: &str) -> Value {
    let services = match services {
        "array" => json!({ "type": ["array", "null"], "items": named("Service") }),
        _ => map(&named("Service")),
    };
    object(&[("Node", json!({ "anyOf": [{ "type": "null" }, named("Node")] })), ("Services", services)])
}

fn addresses() -> Value {
    map(&object(&[("Address", text()), ("Port", number())]))
}

fn weights() -> Value {
    object(&[("Passing", number()), ("Warning", number())])
}

fn locality() -> Value {
    object(&[("Region", text()), ("Zone", text())])
}

fn common() -> Vec<(&'static str, Value)> {
    vec![
        ("Kind?", text()),
        ("ID", text()),
        ("Service", text()),
        ("Tags", texts()),
        ("Meta", map(&text())),
        ("Port", number()),
        ("Address", text()),
        ("SocketPath?", text()),
        ("TaggedAddresses?", addresses()),
        ("Weights", weights()),
        ("EnableTagOverride", json!({ "type": "boolean" })),
        ("Locality?", locality()),
    ]
}

fn service() -> Value {
    let mut fields = common();
    fields.extend([
        ("Proxy", json!({ "type": "object" })),
        ("Connect", json!({ "type": "object" })),
        ("PeerName", text()),
        ("CreateIndex", number()),
        ("ModifyIndex", number()),
    ]);
    object(&fields)
}

fn agent_service(more: &[&'static str]) -> Value {
    let mut fields = common();
    fields.push(("Datacenter", text()));
    fields.extend(more.iter().map(|name| (*name, text())));
    object(&fields)
}

fn catalog_service() -> Value {
    object(&[
        ("ID", text()),
        ("Node", text()),
        ("Address", text()),
        ("Datacenter", text()),
        ("TaggedAddresses", map(&text())),
        ("NodeMeta", map(&text())),
        ("ServiceKind", text()),
        ("ServiceID", text()),
        ("ServiceName", text()),
        ("ServiceTags", texts()),
        ("ServiceAddress", text()),
        ("ServiceTaggedAddresses?", addresses()),
        ("ServiceWeights", weights()),
        ("ServiceMeta", map(&text())),
        ("ServicePort", number()),
        ("ServiceSocketPath", text()),
        ("ServiceEnableTagOverride", json!({ "type": "boolean" })),
        ("ServiceProxy", json!({ "type": "object" })),
        ("ServiceConnect", json!({ "type": "object" })),
        ("ServiceLocality", json!({ "anyOf": [{ "type": "null" }, locality()] })),
        ("CreateIndex", number()),
        ("ModifyIndex", number()),
    ])
}

fn status() -> Value {
    json!({ "type": "string", "enum": ["passing", "warning", "critical"] })
}

fn check() -> Value {
    object(&[
        ("Node", text()),
        ("CheckID", text()),
        ("Name", text()),
        ("Status", status()),
        ("Notes", text()),
        ("Output", text()),
        ("ServiceID", text()),
        ("ServiceName", text()),
        ("ServiceTags", texts()),
        ("Type", text()),
        ("Interval", text()),
        ("Timeout", text()),
        ("ExposedPort", number()),
        ("Definition", json!({ "type": "object" })),
        ("CreateIndex", number()),
        ("ModifyIndex", number()),
    ])
}

fn checked_service() -> Value {
    let checks = json!({ "type": "array", "items": named("Check") });
    object(&[("Node", named("Node")), ("Service", named("Service")), ("Checks", checks)])
}

fn execution() -> Value {
    let nodes = json!({ "type": "array", "items": named("CheckedService") });
    let mut schema = open(&["Service", "Nodes", "DNS", "Datacenter", "Failovers", "Index"]);
    schema["properties"] = json!({ "Nodes": nodes });
    schema
}

/// Of an ID that is not known, service and checks are null.
fn agent_health() -> Value {
    object(&[
        (
            "AggregatedStatus",
            json!({ "type": "string", "enum": ["passing", "warning", "critical", "maintenance"] }),
        ),
        ("Service", json!({ "anyOf": [{ "type": "null" }, named("AgentService")] })),
        ("Checks", json!({ "type": ["array", "null"], "items": named("Check") })),
    ])
}

fn member() -> Value {
    let numbers =
        ["Port", "Status", "ProtocolMin", "ProtocolMax", "ProtocolCur", "DelegateMin", "DelegateMax"];
    let mut fields =
        vec![("Name", text()), ("Addr", text()), ("Tags", map(&text())), ("DelegateCur", number())];
    fields.extend(numbers.map(|name| (name, number())));
    object(&fields)
}
