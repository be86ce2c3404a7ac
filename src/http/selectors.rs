//! What filter expressions can name: the fields of what the listings show, with Consul's names, and how they are found.
//!
//! Fields of the mesh that nobody has here (`Proxy`, `Connect`) are there and empty, so that an expression that leaves out
//! proxies works.

use super::State;
use super::error::Error;
use super::query::Params;
use super::shape::{
    CatalogService, CheckShape, CheckedService, NodeShape, ServiceShape, Tagged, node, node_addresses,
    node_service, service_addresses,
};
use crate::filter::{Fields, Filter, Found, Kind, Root, Test, among, flag, integer, list, pairs, text};
use crate::model::{Address, Instance};

const TEXTS: Kind = Kind::Map(&Kind::Text);
const TAGGED: Kind = Kind::Map(&Kind::Struct(&[("Address", Kind::Text), ("Port", Kind::Integer)]));
const WEIGHTS: Kind = Kind::Struct(&[("Passing", Kind::Integer), ("Warning", Kind::Integer)]);
const CONNECT: Kind = Kind::Struct(&[("Native", Kind::Bool)]);
const PROXY: Kind = Kind::Struct(&[
    ("DestinationServiceName", Kind::Text),
    ("DestinationServiceID", Kind::Text),
    ("LocalServiceAddress", Kind::Text),
    ("LocalServicePort", Kind::Integer),
    ("Mode", Kind::Text),
    ("MeshGateway", Kind::Struct(&[("Mode", Kind::Text)])),
    ("Upstreams", Kind::List(&[])),
]);

/// `/v1/catalog/nodes`.
pub(super) const NODE: Fields = &[
    ("ID", Kind::Text),
    ("Node", Kind::Text),
    ("Address", Kind::Text),
    ("Datacenter", Kind::Text),
    ("Partition", Kind::Text),
    ("PeerName", Kind::Text),
    ("TaggedAddresses", TEXTS),
    ("Meta", TEXTS),
];

/// Services of a node or an agent.
pub(super) const SERVICE: Fields = &[
    ("Kind", Kind::Text),
    ("ID", Kind::Text),
    ("Service", Kind::Text),
    ("Tags", Kind::Texts),
    ("Address", Kind::Text),
    ("TaggedAddresses", TAGGED),
    ("Meta", TEXTS),
    ("Port", Kind::Integer),
    ("SocketPath", Kind::Text),
    ("Weights", WEIGHTS),
    ("EnableTagOverride", Kind::Bool),
    ("Proxy", PROXY),
    ("Connect", CONNECT),
    ("PeerName", Kind::Text),
    ("Datacenter", Kind::Text),
];

/// `/v1/catalog/service/:name` and, before names and tags are drawn from them, `/v1/catalog/services`.
pub(super) const CATALOG_SERVICE: Fields = &[
    ("ID", Kind::Text),
    ("Node", Kind::Text),
    ("Address", Kind::Text),
    ("Datacenter", Kind::Text),
    ("TaggedAddresses", TEXTS),
    ("NodeMeta", TEXTS),
    ("ServiceKind", Kind::Text),
    ("ServiceID", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceTags", Kind::Texts),
    ("ServiceAddress", Kind::Text),
    ("ServiceTaggedAddresses", TAGGED),
    ("ServiceWeights", WEIGHTS),
    ("ServiceMeta", TEXTS),
    ("ServicePort", Kind::Integer),
    ("ServiceSocketPath", Kind::Text),
    ("ServiceEnableTagOverride", Kind::Bool),
    ("ServiceProxy", PROXY),
    ("ServiceConnect", CONNECT),
    ("PeerName", Kind::Text),
];

/// Checks.
pub(super) const CHECK: Fields = &[
    ("Node", Kind::Text),
    ("CheckID", Kind::Text),
    ("Name", Kind::Text),
    ("Status", Kind::Text),
    ("Notes", Kind::Text),
    ("Output", Kind::Text),
    ("ServiceID", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceTags", Kind::Texts),
    ("Type", Kind::Text),
    ("Interval", Kind::Text),
    ("Timeout", Kind::Text),
    ("ExposedPort", Kind::Integer),
    ("PeerName", Kind::Text),
];

/// `/v1/health/service/:name`.
pub(super) const CHECKED_SERVICE: Fields =
    &[("Node", Kind::Struct(NODE)), ("Service", Kind::Struct(SERVICE)), ("Checks", Kind::List(CHECK))];

/// `/v1/agent/members`.
pub(super) const MEMBER: Fields = &[
    ("Name", Kind::Text),
    ("Addr", Kind::Text),
    ("Port", Kind::Integer),
    ("Tags", TEXTS),
    ("Status", Kind::Integer),
    ("ProtocolMin", Kind::Integer),
    ("ProtocolMax", Kind::Integer),
    ("ProtocolCur", Kind::Integer),
    ("DelegateMin", Kind::Integer),
    ("DelegateMax", Kind::Integer),
    ("DelegateCur", Kind::Integer),
];

/// A member in its own JSON: there is one.
pub(super) struct Member<'a>(pub(super) &'a serde_json::Value);

impl Root for Member<'_> {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        let (name, rest) = first(path);
        let own = &self.0[name];
        if let Some(map) = own.as_object() {
            let texts = map.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
            return pairs(texts, rest, test);
        }
        match (own.as_str(), own.as_i64()) {
            (Some(own), _) => text(own, test),
            (None, Some(own)) => integer(own, test),
            (None, None) => false,
        }
    }
}

impl Params {
    /// `?filter=`, fitted to what has `fields`; absent or empty means all. 500 when it does not fit, as Consul answers; 400 when
    /// it is too large.
    pub(super) fn filter(&self, fields: Fields, state: &State) -> Result<Option<Filter>, Error> {
        let Some(expression) = self.get("filter").filter(|text| !text.is_empty()) else { return Ok(None) };
        let limits = state.config.load().filter;
        let filter = Filter::new(expression, fields, &limits).map_err(|fault| {
            let text = format!("Failed to create boolean expression evaluator: {fault}");
            if fault.is_limit() {
                state.metrics.limits.hit("filter_max");
                return Error::bad(text);
            }
            Error::server(text)
        })?;
        Ok(Some(filter))
    }
}

/// Whether something is listed: it matches the filter, or there is none.
pub(super) fn listed(filter: Option<&Filter>, root: &impl Root) -> bool {
    filter.is_none_or(|filter| filter.matches(root))
}

fn first(path: &[String]) -> (&str, &[String]) {
    path.split_first().map_or(("", path), |(first, rest)| (first.as_str(), rest))
}

fn address(own: Option<&Address>, test: Test<'_>) -> bool {
    text(&own.map_or_else(String::new, Address::to_string), test)
}

fn uuid(own: Option<uuid::Uuid>, test: Test<'_>) -> bool {
    let mut buffer = uuid::Uuid::encode_buffer();
    text(own.map_or("", |id| id.hyphenated().encode_lower(&mut buffer)), test)
}

impl Root for NodeShape<'_> {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        let node = &self.entry.node;
        match first(path) {
            ("ID", _) => uuid(node.id, test),
            ("Node", _) => text(node.name.as_str(), test),
            ("Address", _) => address(Some(&node.address), test),
            ("Datacenter", _) => text(self.datacenter, test),
            ("Partition" | "PeerName", _) => text("", test),
            ("TaggedAddresses", rest) => addresses(&node_addresses(node), rest, test),
            ("Meta", rest) => pairs(node.meta.iter().map(|(k, v)| (k.as_str(), v.as_str())), rest, test),
            _ => false,
        }
    }
}

/// A map of addresses, of which only the one that is asked for is written.
fn addresses(own: &std::collections::BTreeMap<&str, &Address>, rest: &[String], test: Test<'_>) -> bool {
    match rest.first() {
        None => among(own.keys().copied(), test),
        Some(key) => match own.get(key.as_str()) {
            Some(own) => address(Some(own), test),
            None => test(Found::Missing),
        },
    }
}

fn tagged(own: &std::collections::BTreeMap<&str, Tagged<'_>>, rest: &[String], test: Test<'_>) -> bool {
    let Some((key, rest)) = rest.split_first() else { return among(own.keys().copied(), test) };
    match (own.get(key.as_str()), first(rest).0) {
        (None, _) => test(Found::Missing),
        (Some(own), "Address") => address(Some(own.address), test),
        (Some(own), "Port") => integer(own.port, test),
        _ => false,
    }
}

fn weights(own: &Instance, rest: &[String], test: Test<'_>) -> bool {
    match first(rest).0 {
        "Passing" => integer(own.weights.passing, test),
        "Warning" => integer(own.weights.warning, test),
        _ => false,
    }
}

fn no_proxy(rest: &[String], test: Test<'_>) -> bool {
    match first(rest).0 {
        "LocalServicePort" => integer(0, test),
        "Upstreams" => among(std::iter::empty(), test),
        _ => text("", test),
    }
}

impl Root for ServiceShape<'_> {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        let own = &self.entry.instance;
        match first(path) {
            ("Kind", _) => text(&own.extras.kind, test),
            ("ID", _) => text(own.id.as_str(), test),
            ("Service", _) => text(own.service.as_str(), test),
            ("Tags", _) => among(own.tags.iter(), test),
            ("Address", _) => address(own.address.as_ref(), test),
            ("TaggedAddresses", rest) => tagged(&service_addresses(self.entry), rest, test),
            ("Meta", rest) => pairs(own.meta.iter(), rest, test),
            ("Port", _) => integer(own.port, test),
            ("SocketPath", _) => text(&own.extras.socket_path, test),
            ("Weights", rest) => weights(own, rest, test),
            ("EnableTagOverride", _) => flag(own.enable_tag_override, test),
            ("Proxy", rest) => no_proxy(rest, test),
            ("Connect", _) => flag(false, test),
            ("PeerName", _) => text("", test),
            ("Datacenter", _) => text(self.datacenter(), test),
            _ => false,
        }
    }
}

impl Root for CatalogService<'_> {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        let own = &self.entry.instance;
        match first(path) {
            ("ServiceKind", _) => text(&own.extras.kind, test),
            ("ServiceID", _) => text(own.id.as_str(), test),
            ("ServiceName", _) => text(own.service.as_str(), test),
            ("ServiceTags", _) => among(own.tags.iter(), test),
            ("ServiceAddress", _) => address(own.address.as_ref(), test),
            ("ServiceTaggedAddresses", rest) => tagged(&service_addresses(self.entry), rest, test),
            ("ServiceWeights", rest) => weights(own, rest, test),
            ("ServiceMeta", rest) => pairs(own.meta.iter(), rest, test),
            ("ServicePort", _) => integer(own.port, test),
            ("ServiceSocketPath", _) => text(&own.extras.socket_path, test),
            ("ServiceEnableTagOverride", _) => flag(own.enable_tag_override, test),
            ("ServiceProxy", rest) => no_proxy(rest, test),
            ("ServiceConnect", _) => flag(false, test),
            ("NodeMeta", rest) => {
                let meta = self.node.node.meta.iter();
                pairs(meta.map(|(k, v)| (k.as_str(), v.as_str())), rest, test)
            }
            _ => node(self.node, self.datacenter).find(path, test),
        }
    }
}

impl Root for CheckShape<'_> {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        match first(path).0 {
            "Node" => text(self.node, test),
            "CheckID" => text(&self.check_id, test),
            "Name" => text(self.name, test),
            "Status" => text(self.status, test),
            "Notes" => text(self.notes, test),
            "Output" => text(self.output, test),
            "ServiceID" => text(self.service_id, test),
            "ServiceName" => text(self.service_name, test),
            "ServiceTags" => among(self.service_tags.iter(), test),
            "Type" => text(self.r#type, test),
            "Interval" => text(&self.interval.text(), test),
            "Timeout" => text(&self.timeout.text(), test),
            "ExposedPort" => integer(self.exposed_port, test),
            "PeerName" => text("", test),
            _ => false,
        }
    }
}

impl Root for CheckedService<'_> {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        match first(path) {
            ("Node", rest) => node(self.node, self.datacenter).find(rest, test),
            ("Service", rest) => node_service(self.entry).find(rest, test),
            ("Checks", rest) => list(self.checks(), rest, test),
            _ => false,
        }
    }
}
