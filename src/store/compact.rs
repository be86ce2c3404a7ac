//! Version 2 of a stored value: postcard behind the version's octet, without what the key says already.
//!
//! Made for a start with a million of them: nothing is looked up by name, lists stand as they do in memory, and the terms
//! of a check come last, so that those which many checks have in common are recognised by their octets and read once.
//! postcard knows no absent fields: a field more, fewer or another order is another version.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::Stored;
use crate::model::{
    Address, Check, CheckId, CheckKey, CheckKind, Damping, Extras, Instance, InstanceId, Locality,
    Maintenance, Node, NodeName, Origin, Pairs, ProbeTls, Record, ServiceName, Status, Terms, Texts, Weights,
};

type Failure = Box<dyn std::error::Error>;

/// What comes before the record's own fields.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    create_index: u64,
    modify_index: u64,
    /// The node as it is spelt, where the key's lower case is another text.
    node: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct NodeValue<'a> {
    id: Option<u128>,
    #[serde(borrow)]
    address: Place<'a>,
    /// JSON: few have them.
    tagged_addresses: Option<Cow<'a, str>>,
    #[serde(borrow)]
    meta: &'a str,
    implied: bool,
}

#[derive(Serialize, Deserialize)]
struct InstanceValue<'a> {
    service: &'a str,
    #[serde(borrow)]
    address: Option<Place<'a>>,
    port: u16,
    weights: (u16, u16),
    enable_tag_override: bool,
    origin: Origin,
    tags: &'a str,
    meta: &'a str,
    /// JSON: few have them.
    extras: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct TermsValue<'a> {
    name: &'a str,
    notes: &'a str,
    #[serde(borrow)]
    kind: Kind<'a>,
    interval: Duration,
    timeout: Duration,
    thresholds: [u32; 3],
    deregister_after: Option<Duration>,
    output_max: u64,
    initial: Status,
    origin: Origin,
}

#[derive(Serialize, Deserialize)]
enum Place<'a> {
    Ip(IpAddr),
    Host(&'a str),
}

/// What a check does. The order is part of the version.
#[derive(Serialize, Deserialize)]
enum Kind<'a> {
    Ttl(Duration),
    External,
    Http {
        url: &'a str,
        method: &'a str,
        header: Cow<'a, BTreeMap<String, Vec<String>>>,
        body: &'a str,
        follow_redirects: bool,
        #[serde(borrow)]
        tls: Tls<'a>,
    },
    Tcp(&'a str, #[serde(borrow)] Option<Tls<'a>>),
    Udp(&'a str),
    Grpc(&'a str, &'a str, #[serde(borrow)] Option<Tls<'a>>),
    H2Ping(&'a str, #[serde(borrow)] Option<Tls<'a>>),
    Alias(&'a str, Option<&'a str>),
    Script(Cow<'a, [String]>),
}

#[derive(Serialize, Deserialize)]
struct Tls<'a> {
    skip_verify: bool,
    server_name: &'a str,
}

/// Writes a value.
pub(super) fn encode(stored: &Stored) -> Result<Vec<u8>, Failure> {
    let Stored { record, create_index, modify_index } = stored;
    let mut bytes = vec![super::format::VERSION as u8];
    let node = match record {
        Record::Node(node) => &node.name,
        Record::Instance(instance) => &instance.node,
        Record::Check(check) => &check.node,
        Record::Maintenance(maintenance) => &maintenance.node,
        Record::Query(query) => return apart(bytes, stored, query),
        Record::Route(route) => return apart(bytes, stored, route),
        Record::Acl(acl) => return apart(bytes, stored, acl),
    };
    let node = (node.as_str() != node.folded()).then(|| node.as_str());
    add(&mut bytes, &Head { create_index: *create_index, modify_index: *modify_index, node })?;
    match record {
        Record::Node(node) => {
            let Node { name: _, id, address, tagged_addresses, meta, locality, implied } = &**node;
            let tagged_addresses = json_unless(tagged_addresses.is_empty(), tagged_addresses)?;
            let meta = Pairs::from(meta);
            let (address, id) = (Place::from(address), id.map(|id| id.as_u128()));
            add(
                &mut bytes,
                &NodeValue { id, address, tagged_addresses, meta: meta.packed(), implied: *implied },
            )?;
            if let Some(Locality { region, zone }) = locality {
                bytes[0] = super::format::PLACED as u8;
                add(&mut bytes, &(region.as_str(), zone.as_str()))?;
            }
        }
        Record::Instance(instance) => {
            let Instance { service, tags, address, meta, port, weights, origin, extras, .. } = &**instance;
            let value = InstanceValue {
                service: service.as_str(),
                address: address.as_ref().map(Place::from),
                port: *port,
                weights: (weights.passing, weights.warning),
                enable_tag_override: instance.enable_tag_override,
                origin: *origin,
                tags: tags.packed(),
                meta: meta.packed(),
                extras: json_unless(**extras == Extras::default(), &**extras)?,
            };
            add(&mut bytes, &value)?;
        }
        Record::Check(check) => {
            add(&mut bytes, &check.instance.as_ref().map(InstanceId::as_str))?;
            if check.damping.is_some() {
                bytes[0] = super::format::DAMPED as u8;
            }
            add_terms(&mut bytes, &check.terms)?;
        }
        Record::Maintenance(maintenance) => add(&mut bytes, &maintenance.reason.as_str())?,
        Record::Acl(_) | Record::Query(_) | Record::Route(_) => {}
    }
    Ok(bytes)
}

/// A record of no node: JSON.
fn apart(mut bytes: Vec<u8>, stored: &Stored, value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let (create_index, modify_index) = (stored.create_index, stored.modify_index);
    add(&mut bytes, &Head { create_index, modify_index, node: None })?;
    add(&mut bytes, &serde_json::to_string(value)?)?;
    Ok(bytes)
}

fn add(bytes: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Failure> {
    *bytes = postcard::to_extend(value, std::mem::take(bytes))?;
    Ok(())
}

fn add_terms(bytes: &mut Vec<u8>, terms: &Terms) -> Result<(), Failure> {
    add(bytes, &TermsValue::from(terms))?;
    if let Some(Damping { max, leak, steady }) = terms.damping.as_deref() {
        add(bytes, &(max, leak, steady))?;
    }
    Ok(())
}

fn json_unless<'a>(absent: bool, value: &impl Serialize) -> Result<Option<Cow<'a, str>>, Failure> {
    Ok(if absent { None } else { Some(Cow::Owned(serde_json::to_string(value)?)) })
}

/// The index at which a record was made, of what stands behind the version's octet.
pub(super) fn create_index(bytes: &[u8]) -> Result<u64, Failure> {
    let (create_index, _) = postcard::take_from_bytes(bytes)?;
    Ok(create_index)
}

/// Reads values. Texts and terms that come again are shared with those that were read before.
#[derive(Default)]
pub(super) struct Reader {
    node: Option<NodeName>,
    services: HashMap<String, ServiceName>,
    tags: HashMap<Box<str>, Texts>,
    /// By their octets.
    terms: HashMap<Box<[u8]>, Arc<Terms>>,
    instances: Known<InstanceId>,
    checks: Known<CheckId>,
}

/// Different terms or lists of tags that are remembered; there may well be no two alike.
const REMEMBERED_MAX: usize = 1 << 18;

/// Keeps a value, and gives it back; of too many, all are forgotten.
fn remember<K: ?Sized, V: Clone>(known: &mut HashMap<Box<K>, V>, key: &K, value: V) -> V
where
    Box<K>: Eq + std::hash::Hash + for<'k> From<&'k K>,
{
    if known.len() == REMEMBERED_MAX {
        known.clear();
    }
    known.insert(key.into(), value.clone());
    value
}

/// The keys that were read, in their order.
struct Known<Id> {
    keys: Vec<(NodeName, Id)>,
    /// Where the next that is looked for is expected.
    next: usize,
}

impl<Id> Default for Known<Id> {
    fn default() -> Self {
        Self { keys: Vec::new(), next: 0 }
    }
}

impl<Id: Borrow<str> + Clone> Known<Id> {
    fn find(&mut self, node: &str, id: &str) -> Option<(NodeName, Id)> {
        let order = |(n, own): &(NodeName, Id)| n.folded().cmp(node).then_with(|| own.borrow().cmp(id));
        let expected = self.keys.get(self.next).is_some_and(|key| order(key).is_eq());
        let at = if expected { self.next } else { self.keys.binary_search_by(order).ok()? };
        self.next = at + 1;
        self.keys.get(at).cloned()
    }
}

impl Reader {
    /// Begins with records that need not come after those before.
    pub(super) fn forget_keys(&mut self) {
        (self.instances, self.checks) = Default::default();
    }

    /// Reads what stands behind the version's octet; `kind`, `node` and `id` are the key's.
    pub(super) fn decode(&mut self, kind: u8, node: &str, id: &str, bytes: &[u8]) -> Result<Stored, Failure> {
        let (Head { create_index, modify_index, node: spelt }, rest) = postcard::take_from_bytes(bytes)?;
        if kind == super::format::QUERY {
            let json: &str = postcard::from_bytes(rest)?;
            let record = Record::Query(Arc::new(serde_json::from_str(json)?));
            return Ok(Stored { record, create_index, modify_index });
        }
        if kind == super::format::ROUTE {
            let json: &str = postcard::from_bytes(rest)?;
            let record = Record::Route(Arc::new(serde_json::from_str(json)?));
            return Ok(Stored { record, create_index, modify_index });
        }
        if kind == super::format::ACL {
            let json: &str = postcard::from_bytes(rest)?;
            let record = Record::Acl(serde_json::from_str(json)?);
            return Ok(Stored { record, create_index, modify_index });
        }
        let node = self.node(spelt.unwrap_or(node))?;
        let record = match kind {
            b'1' => Record::Node(Arc::new(read_node(node, rest)?)),
            b'2' => Record::Instance(Arc::new(self.instance(node, id, rest)?)),
            b'3' => Record::Check(self.check(node, id, rest)?),
            b'4' => {
                let instance = (!id.is_empty()).then(|| InstanceId::parse(id)).transpose()?;
                let reason: &str = postcard::from_bytes(rest)?;
                Record::Maintenance(Maintenance { node, instance, reason: reason.into() })
            }
            other => return Err(format!("a record of kind {other} is not known").into()),
        };
        Ok(Stored { record, create_index, modify_index })
    }

    /// The node's name; records of one node come one after another.
    fn node(&mut self, text: &str) -> Result<NodeName, Failure> {
        match &self.node {
            Some(node) if node.as_str() == text => Ok(node.clone()),
            _ => Ok(self.node.insert(NodeName::parse(text)?).clone()),
        }
    }

    fn service(&mut self, text: &str) -> Result<ServiceName, Failure> {
        if let Some(service) = self.services.get(text) {
            return Ok(service.clone());
        }
        let service = ServiceName::parse(text)?;
        self.services.insert(text.to_owned(), service.clone());
        Ok(service)
    }

    fn tags(&mut self, packed: &str) -> Texts {
        if let Some(tags) = self.tags.get(packed) {
            return tags.clone();
        }
        remember(&mut self.tags, packed, Texts::from_packed(packed))
    }

    /// The id of an instance that a check names.
    fn of(&mut self, node: &NodeName, id: &str) -> Result<InstanceId, Failure> {
        let known = self.instances.find(node.folded(), id);
        Ok(known.map_or_else(|| InstanceId::parse(id), |(_, id)| Ok(id))?)
    }

    fn terms(&mut self, bytes: &[u8]) -> Result<Arc<Terms>, Failure> {
        if let Some(terms) = self.terms.get(bytes) {
            return Ok(terms.clone());
        }
        let (value, rest): (TermsValue<'_>, &[u8]) = postcard::take_from_bytes(bytes)?;
        let mut terms = Terms::try_from(value)?;
        // Version 4: the damping comes last.
        if !rest.is_empty() {
            let (max, leak, steady) = postcard::from_bytes(rest)?;
            terms.damping = Some(Box::new(Damping { max, leak, steady }));
        }
        let terms = Arc::new(terms);
        Ok(remember(&mut self.terms, bytes, terms))
    }

    fn instance(&mut self, node: NodeName, id: &str, bytes: &[u8]) -> Result<Instance, Failure> {
        let value: InstanceValue<'_> = postcard::from_bytes(bytes)?;
        let extras: Option<Extras> = value.extras.map(|json| serde_json::from_str(&json)).transpose()?;
        let id = InstanceId::parse(id)?;
        self.instances.keys.push((node.clone(), id.clone()));
        Ok(Instance {
            node,
            id,
            service: self.service(value.service)?,
            tags: self.tags(value.tags),
            address: value.address.map(Address::from),
            meta: Pairs::from_packed(value.meta),
            port: value.port,
            weights: Weights { passing: value.weights.0, warning: value.weights.1 },
            enable_tag_override: value.enable_tag_override,
            origin: value.origin,
            extras: extras.unwrap_or_default().into(),
        })
    }

    fn check(&mut self, node: NodeName, id: &str, bytes: &[u8]) -> Result<Check, Failure> {
        let (instance, rest): (Option<&str>, &[u8]) = postcard::take_from_bytes(bytes)?;
        let instance = instance.map(|id| self.of(&node, id)).transpose()?;
        let id = CheckId::parse(id)?;
        self.checks.keys.push((node.clone(), id.clone()));
        Ok(Check { node, id, instance, terms: self.terms(rest)? })
    }

    /// The check that a status is of; its node is named in lower case.
    pub(super) fn check_key(&mut self, node: &str, id: &str) -> Result<CheckKey, Failure> {
        match self.checks.find(node, id) {
            Some((node, id)) => Ok(CheckKey { node, id }),
            None => Ok(CheckKey { node: self.node(node)?, id: CheckId::parse(id)? }),
        }
    }

    /// A record of version 1 with what it shares with others.
    pub(super) fn shared(&mut self, record: Record) -> Result<Record, Failure> {
        Ok(match record {
            Record::Instance(instance) => {
                let mut instance = Arc::unwrap_or_clone(instance);
                instance.node = self.node(instance.node.as_str())?;
                instance.service = self.service(instance.service.as_str())?;
                instance.tags = self.tags(instance.tags.packed());
                self.instances.keys.push((instance.node.clone(), instance.id.clone()));
                Record::Instance(Arc::new(instance))
            }
            Record::Check(check) => {
                let node = self.node(check.node.as_str())?;
                let instance = check.instance.as_ref().map(|id| self.of(&node, id.as_str())).transpose()?;
                let mut octets = Vec::new();
                add_terms(&mut octets, &check.terms)?;
                let terms = self.terms(&octets)?;
                self.checks.keys.push((node.clone(), check.id.clone()));
                Record::Check(Check { node, id: check.id, instance, terms })
            }
            Record::Node(_)
            | Record::Maintenance(_)
            | Record::Query(_)
            | Record::Acl(_)
            | Record::Route(_) => record,
        })
    }
}

fn read_node(name: NodeName, bytes: &[u8]) -> Result<Node, Failure> {
    let (value, rest): (NodeValue<'_>, &[u8]) = postcard::take_from_bytes(bytes)?;
    // Version 3: the place comes last.
    let place: Option<(&str, &str)> = (!rest.is_empty()).then(|| postcard::from_bytes(rest)).transpose()?;
    let tagged = value.tagged_addresses.map(|json| serde_json::from_str(&json)).transpose()?;
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Ok(Node {
        name,
        id: value.id.map(uuid::Uuid::from_u128),
        address: value.address.into(),
        tagged_addresses: tagged.unwrap_or_default(),
        meta: Pairs::from_packed(value.meta).iter().map(owned).collect(),
        locality: place.map(|(region, zone)| Locality { region: region.into(), zone: zone.into() }),
        implied: value.implied,
    })
}

impl<'a> From<&'a Address> for Place<'a> {
    fn from(address: &'a Address) -> Self {
        match address {
            Address::Ip(ip) => Self::Ip(*ip),
            Address::Host(host) => Self::Host(host),
        }
    }
}

impl From<Place<'_>> for Address {
    fn from(place: Place<'_>) -> Self {
        match place {
            Place::Ip(ip) => Self::Ip(ip),
            Place::Host(host) => Self::Host(host.into()),
        }
    }
}

impl<'a> From<&'a Terms> for TermsValue<'a> {
    fn from(terms: &'a Terms) -> Self {
        Self {
            name: &terms.name,
            notes: &terms.notes,
            kind: Kind::from(&terms.kind),
            interval: terms.interval,
            timeout: terms.timeout,
            thresholds: [
                terms.success_before_passing,
                terms.failures_before_warning,
                terms.failures_before_critical,
            ],
            deregister_after: terms.deregister_after,
            output_max: terms.output_max as u64,
            initial: terms.initial,
            origin: terms.origin,
        }
    }
}

impl TryFrom<TermsValue<'_>> for Terms {
    type Error = Failure;

    fn try_from(value: TermsValue<'_>) -> Result<Self, Failure> {
        let [success_before_passing, failures_before_warning, failures_before_critical] = value.thresholds;
        Ok(Self {
            name: value.name.to_owned(),
            notes: value.notes.to_owned(),
            kind: value.kind.try_into()?,
            interval: value.interval,
            timeout: value.timeout,
            success_before_passing,
            failures_before_warning,
            failures_before_critical,
            damping: None,
            deregister_after: value.deregister_after,
            output_max: usize::try_from(value.output_max)?,
            initial: value.initial,
            origin: value.origin,
        })
    }
}

impl<'a> From<&'a CheckKind> for Kind<'a> {
    fn from(kind: &'a CheckKind) -> Self {
        fn tls(tls: &Option<ProbeTls>) -> Option<Tls<'_>> {
            tls.as_ref().map(Tls::from)
        }
        match kind {
            CheckKind::Ttl { ttl } => Self::Ttl(*ttl),
            CheckKind::External => Self::External,
            CheckKind::Http { url, method, header, body, follow_redirects, tls } => Self::Http {
                url,
                method,
                header: Cow::Borrowed(header),
                body,
                follow_redirects: *follow_redirects,
                tls: tls.into(),
            },
            CheckKind::Tcp { address, tls: of } => Self::Tcp(address, tls(of)),
            CheckKind::Udp { address } => Self::Udp(address),
            CheckKind::Grpc { address, service, tls: of } => Self::Grpc(address, service, tls(of)),
            CheckKind::H2Ping { address, tls: of } => Self::H2Ping(address, tls(of)),
            CheckKind::Alias { node, instance } => {
                Self::Alias(node.as_str(), instance.as_ref().map(InstanceId::as_str))
            }
            CheckKind::Script { args } => Self::Script(Cow::Borrowed(args)),
        }
    }
}

impl TryFrom<Kind<'_>> for CheckKind {
    type Error = Failure;

    fn try_from(kind: Kind<'_>) -> Result<Self, Failure> {
        Ok(match kind {
            Kind::Ttl(ttl) => Self::Ttl { ttl },
            Kind::External => Self::External,
            Kind::Http { url, method, header, body, follow_redirects, tls } => Self::Http {
                url: url.to_owned(),
                method: method.to_owned(),
                header: header.into_owned(),
                body: body.to_owned(),
                follow_redirects,
                tls: tls.into(),
            },
            Kind::Tcp(address, tls) => Self::Tcp { address: address.to_owned(), tls: tls.map(Into::into) },
            Kind::Udp(address) => Self::Udp { address: address.to_owned() },
            Kind::Grpc(address, service, tls) => Self::Grpc {
                address: address.to_owned(),
                service: service.to_owned(),
                tls: tls.map(Into::into),
            },
            Kind::H2Ping(address, tls) => {
                Self::H2Ping { address: address.to_owned(), tls: tls.map(Into::into) }
            }
            Kind::Alias(node, instance) => Self::Alias {
                node: NodeName::parse(node)?,
                instance: instance.map(InstanceId::parse).transpose()?,
            },
            Kind::Script(args) => Self::Script { args: args.into_owned() },
        })
    }
}

impl<'a> From<&'a ProbeTls> for Tls<'a> {
    fn from(tls: &'a ProbeTls) -> Self {
        Self { skip_verify: tls.skip_verify, server_name: &tls.server_name }
    }
}

impl From<Tls<'_>> for ProbeTls {
    fn from(tls: Tls<'_>) -> Self {
        Self { skip_verify: tls.skip_verify, server_name: tls.server_name.to_owned() }
    }
}

/// Writes a status: version, status, output.
pub(super) fn encode_status(status: Status, output: &str) -> Vec<u8> {
    let mut bytes = vec![super::format::VERSION as u8, status as u8];
    bytes.extend_from_slice(output.as_bytes());
    bytes
}

/// Reads what stands behind the version's octet.
pub(super) fn decode_status(bytes: &[u8]) -> Result<(Status, ArcStr), Failure> {
    let (status, output) = bytes.split_first().ok_or("it is cut")?;
    let all = [Status::Passing, Status::Warning, Status::Critical];
    let status = all.into_iter().find(|known| *known as u8 == *status).ok_or("it has no known status")?;
    Ok((status, std::str::from_utf8(output)?.into()))
}
