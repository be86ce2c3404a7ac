//! Answers from the registry: services, nodes, addresses, the domain itself, and reverse names.
//!
//! One snapshot in, records out; which instances answer is `select`'s business. Negative answers carry a
//! SOA whose TTL and MINIMUM are one second, so that a service that appears is seen at once.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::encode::{Answer, ExtendedError};
use super::names::{self, Asked};
use super::request::Question;
use super::respond::Bearer;
use super::subnet::Subnet;
use crate::model::PreparedQuery;
use crate::registry::NodeEntry;
use crate::registry::snapshot::Owner;
use crate::select::{
    self, Chosen, Family, Known, Order, Origin, Place, Reached, Selection, Settings, World, node_reached,
    query as execution,
};

/// Where the live names stand.
#[derive(Debug, Clone)]
pub struct Domains {
    /// The first is our own; answers to reverse names use it.
    pub domains: Vec<Name>,
    /// In lower case.
    pub datacenter: String,
    /// The node that we run on, in lower case.
    pub own_node: String,
    pub settings: Settings,
}

/// RFC 2308 section 5: how long "no" may be kept, in seconds.
pub(super) const NEGATIVE_TTL: u32 = 1;
/// Of the SOA, in seconds: refresh, retry, expire.
pub(super) const SOA_TIMES: [u32; 3] = [3600, 600, 86_400];
/// PTR records of one address: a name for each owner, but not a million.
const PTR_MAX: usize = 32;
/// Octets of one TXT record.
const TXT_OCTETS_MAX: usize = 1024;

/// An answer, and the host names that only a forwarder can resolve.
pub(super) struct Live {
    pub(super) answer: Answer,
    /// Instances whose address is a host name of somebody else's: their addresses belong to the answer.
    pub(super) hosts: Vec<Name>,
    /// The longest TTL of what is added for them.
    pub(super) ttl: u32,
    /// It is a static zone's, and the host is where an alias leads.
    pub(super) of_zone: bool,
}

impl From<Answer> for Live {
    fn from(answer: Answer) -> Self {
        Self { answer, hosts: Vec::new(), ttl: 0, of_zone: false }
    }
}

impl Live {
    /// Says that it is not what is healthy now (RFC 8914 section 4.4), where it says anything.
    fn stale(mut self, stale: bool) -> Self {
        let answer = &mut self.answer;
        answer.error = (stale && !answer.answers.is_empty()).then_some(ExtendedError::StaleAnswer);
        self
    }

    fn tailored(mut self, tailored: bool) -> Self {
        self.answer.tailored = tailored;
        self
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// The network of whoever asks through this resolver.
    pub(super) subnet: Option<Subnet>,
}

/// A question about a name in one of our domains.
pub(super) struct Ask<'a> {
    pub(super) world: World<'a>,
    pub(super) bearer: &'a Bearer<'a>,
    pub(super) domains: &'a Domains,
    pub(super) question: &'a Question,
    /// The domain as the client spelt it.
    pub(super) domain: Name,
    pub(super) order: Order,
    pub(super) client: Client,
}

/// Answers when the name is in one of our domains or the reverse name of an address we know; without a look at the host
/// names that instances have for addresses.
pub(super) fn answer(
    (world, bearer): (World<'_>, &Bearer<'_>),
    domains: &Domains,
    question: &Question,
    order: Order,
    client: Client,
) -> Option<Live> {
    let Some((domain, asked)) = read(domains, &question.name) else {
        return reverse(world, domains, question).map(Live::from);
    };
    Some(Ask { world, bearer, domains, question, domain, order, client }.answer(&asked))
}

/// The domain of ours that a name is in, spelt as in the name, and what the name asks for there.
pub(super) fn read(domains: &Domains, name: &Name) -> Option<(Name, Asked)> {
    let found = domains.domains.iter().filter(|domain| domain.zone_of(name));
    let own_labels = usize::from(found.map(Name::num_labels).max()?);
    let domain = name.trim_to(own_labels);
    // Names that are not text are nobody's.
    let Some(labels) = names::labels(name) else { return Some((domain, Asked::Unknown)) };
    let below: Vec<&str> = labels[..labels.len() - own_labels].iter().map(String::as_str).collect();
    Some((domain, names::read(&below, &domains.datacenter)))
}

impl Ask<'_> {
    fn answer(&self, asked: &Asked) -> Live {
        match asked {
            Asked::Apex => self.apex().into(),
            Asked::Server => {
                let own = self.world.snapshot.node(&self.domains.own_node);
                self.reached(&own.map(|node| node_reached(node)).unwrap_or_default(), None).into()
            }
            Asked::Service { service, tag } => self.service(service, tag.as_deref()),
            Asked::Node(name) => {
                match self.world.snapshot.node(name).filter(|_| self.world.view.reads_node(name)) {
                    Some(node) if node.node.name.is_label() => {
                        self.reached(&node_reached(node), Some(node)).into()
                    }
                    _ => self.nothing().into(),
                }
            }
            Asked::Query(name) => self.query(name),
            Asked::Addresses(reached) => self.reached(reached, None).into(),
            Asked::Empty => self.no_data().into(),
            Asked::Unknown => self.nothing().into(),
        }
    }

    fn apex(&self) -> Answer {
        let server = self.name("ns");
        match self.question.kind {
            RecordType::SOA => self.found(vec![self.soa(self.plain_ttl())]),
            RecordType::NS => {
                let own = self.world.snapshot.node(&self.domains.own_node);
                let glue = own.map(|node| addresses(&server, &node_reached(node), self.plain_ttl(), None));
                let ns = self.record(self.plain_ttl(), RData::NS(NS(server)));
                Answer { additionals: glue.unwrap_or_default(), ..self.found(vec![ns]) }
            }
            RecordType::ANY => self.any(self.plain_ttl()),
            _ => self.no_data(),
        }
    }

    /// A name with addresses and perhaps a node's meta.
    fn reached(&self, reached: &Reached<'_>, node: Option<&NodeEntry>) -> Answer {
        let ttl = self.plain_ttl();
        let owner = &self.question.name;
        let records = match self.question.kind {
            RecordType::ANY if reached.host.is_none() => return self.any(ttl),
            RecordType::TXT => node
                .and_then(|node| txt(node.node.meta.iter()))
                .map_or_else(Vec::new, |text| vec![self.record(ttl, RData::TXT(text))]),
            kind => match reached.host.and_then(host_name) {
                Some(host) => vec![self.record(ttl, RData::CNAME(CNAME(host)))],
                None => addresses(owner, reached, ttl, Some(kind)),
            },
        };
        self.found_or_no_data(records)
    }

    fn service(&self, service: &str, tag: Option<&str>) -> Live {
        match find(self.world, service, tag, Some((self.place(), self.question.kind))) {
            Found::Known(known) => {
                let tailored = self.world.settings.nearest(known.service.name.folded()).is_some();
                let stale = known.stale;
                self.members(known).tailored(tailored).stale(stale)
            }
            Found::Empty => self.no_data().into(),
            Found::Nothing => self.nothing().into(),
        }
    }

    /// A prepared query. Its name exists as long as the query does, whatever becomes of the service; of a template, nobody can
    /// tell which names it matches, so that every name may be above one (RFC 8020). One that holds a token shows what its
    /// bearer may see, whatever DNS may (Consul's API, `Token`).
    fn query(&self, name: &str) -> Live {
        let snapshot = self.world.snapshot;
        let Some(entry) = snapshot.find_query(name) else {
            let above = snapshot.is_above_a_query(name);
            return if above { self.no_data() } else { self.nothing() }.into();
        };
        let query = execution::rendered(entry, name);
        let own = (self.bearer)(&query.token);
        let world = World { view: own.as_ref().unwrap_or(self.world.view), ..self.world };
        match self.executed(world, &query) {
            Some(known) => self.members(known).tailored(query.service.near == "_ip"),
            None => self.no_data().into(),
        }
    }

    /// What a query gives to whoever asks, in a world as its own token shows it.
    pub(super) fn executed<'a>(&self, world: World<'a>, query: &PreparedQuery) -> Option<Known<'a>> {
        let address = || match self.client.subnet {
            Some(_) => Origin { node: None, place: self.place() },
            None => self.origin(),
        };
        let origin = execution::origin(world, &query.service.near, || self.origin(), address);
        execution::execute(world, query, origin.as_ref())
    }

    /// Where the client is that we see.
    fn origin(&self) -> Origin<'_> {
        let here = self.client.address.to_canonical().is_loopback();
        let own = self.world.snapshot.node(&self.domains.own_node).filter(|_| here);
        own.map_or_else(|| Origin::of_address(self.world, self.client.address), |own| Origin::of_node(own))
    }

    /// Where whoever asks is: what a resolver says of it counts more than where the resolver is. Of networks that resolvers
    /// tell of, only the configuration says where they are, and not a node in them: answers hold for whole networks.
    pub(super) fn place(&self) -> Place<'_> {
        match &self.client.subnet {
            Some(subnet) if subnet.source == 0 => Place::default(),
            Some(subnet) => self.world.settings.clients.find(subnet.address).0,
            None => self.origin().place,
        }
    }

    /// The instances that were selected, in records of the type that was asked for.
    fn members(&self, mut known: Known<'_>) -> Live {
        if matches!(self.question.kind, RecordType::A | RecordType::AAAA | RecordType::CNAME) {
            return self.service_addresses(known);
        }
        known.in_turn(self.order);
        match self.question.kind {
            RecordType::SRV => self.srv(&known).into(),
            RecordType::TXT => {
                let texts = known.chosen.iter().filter_map(|chosen| txt(chosen.entry.instance.meta.iter()));
                let records = texts.map(|text| self.record(known.ttl, RData::TXT(text)));
                self.found_or_no_data(distinct(records)).into()
            }
            RecordType::ANY if known.chosen.is_empty() => self.no_data().into(),
            // RFC 8482 section 4.2: a CNAME is not hidden.
            RecordType::ANY => match shared_host(&known) {
                Some(host) => self.found(vec![self.record(known.ttl, RData::CNAME(CNAME(host)))]).into(),
                None => self.any(known.ttl).into(),
            },
            _ => self.no_data().into(),
        }
    }

    fn service_addresses(&self, mut known: Known<'_>) -> Live {
        let limit = self.world.settings.a_limit(known.service.name.folded());
        let order = known.draw(self.order, family(self.question.kind));
        known.by_weight(order, limit);
        if let Some(host) = shared_host(&known) {
            let cname = self.record(known.ttl, RData::CNAME(CNAME(host.clone())));
            let chase = self.question.kind != RecordType::CNAME;
            let hosts = if chase { vec![host] } else { Vec::new() };
            return Live { answer: self.found(vec![cname]), hosts, ttl: known.ttl, of_zone: false };
        }
        let hosts: Vec<Name> = known.chosen.iter().filter_map(|c| host_name(c.reached.host?)).collect();
        let kind = self.question.kind;
        let of = |chosen: &Chosen<'_>| addresses(&self.question.name, &chosen.reached, known.ttl, Some(kind));
        let mut records = distinct(known.chosen.iter().flat_map(of));
        records.truncate(limit.unwrap_or(usize::MAX));
        let seen = &mut HashSet::new();
        let hosts: Vec<Name> = hosts.into_iter().filter(|host| seen.insert(host.to_lowercase())).collect();
        let hosts = if kind == RecordType::CNAME { Vec::new() } else { hosts };
        Live { answer: self.found_or_no_data(records), hosts, ttl: known.ttl, of_zone: false }
    }

    /// One SRV record for each instance, with the addresses of the targets.
    fn srv(&self, known: &Known<'_>) -> Answer {
        let (mut records, mut additionals) = (Vec::new(), Vec::new());
        let (mut targets, mut seen) = (HashSet::new(), HashSet::new());
        for chosen in &known.chosen {
            let Some(target) = target(chosen, &self.domains.datacenter, &self.domain) else { continue };
            let port = chosen.entry.instance.port;
            if seen.insert((target.to_lowercase(), port)) {
                let data = SRV::new(1, chosen.weight, port, target.clone());
                records.push(self.record(known.ttl, RData::SRV(data)));
            }
            if targets.insert(target.to_lowercase()) {
                additionals.extend(addresses(&target, &chosen.reached, known.ttl, None));
            }
        }
        Answer { additionals, ..self.found_or_no_data(records) }
    }

    /// A name in the domain that was asked in.
    fn name(&self, below: &str) -> Name {
        name_in(below, &self.domain)
    }

    fn record(&self, ttl: u32, data: RData) -> Record {
        Record::from_rdata(self.question.name.clone(), ttl, data)
    }

    fn soa(&self, ttl: u32) -> Record {
        soa(self.domain.clone(), &self.domain, self.world, ttl)
    }

    fn plain_ttl(&self) -> u32 {
        self.world.settings.plain_ttl()
    }

    fn found(&self, answers: Vec<Record>) -> Answer {
        Answer { authoritative: true, answers, ..Answer::default() }
    }

    fn found_or_no_data(&self, answers: Vec<Record>) -> Answer {
        if answers.is_empty() { self.no_data() } else { self.found(answers) }
    }

    /// The name exists without this type (RFC 2308 section 2.2).
    fn no_data(&self) -> Answer {
        let authorities = vec![self.soa(NEGATIVE_TTL)];
        Answer { authoritative: true, authorities, ..Answer::default() }
    }

    /// The name does not exist (RFC 2308 section 2.1).
    fn nothing(&self) -> Answer {
        Answer { rcode: ResponseCode::NXDomain, ..self.no_data() }
    }

    fn any(&self, ttl: u32) -> Answer {
        self.found(vec![any(&self.question.name, ttl)])
    }
}

/// What there is to a service's name.
pub(super) enum Found<'a> {
    Known(Known<'a>),
    /// The name exists because others below it do.
    Empty,
    Nothing,
}

/// Looks a service up, and a tag of it; names in lower case. `from` is where the client is, and which type it asks for; of
/// services whose answers do not depend on that, nobody need say.
pub(super) fn find<'a>(
    world: World<'a>,
    service: &str,
    tag: Option<&str>,
    from: Option<(Place<'_>, RecordType)>,
) -> Found<'a> {
    let family = from.map_or(Family::Any, |(_, kind)| family(kind));
    let from = from.map(|(place, _)| place).unwrap_or_default();
    match select::select(world, select::Asked { service, tag, from, family }) {
        Selection::Known(known) if known.service.name.is_label() => Found::Known(known),
        Selection::Above => Found::Empty,
        // `_tcp.service` stands above every `_web._tcp.service`.
        _ if tag.is_none() && service.starts_with('_') => Found::Empty,
        _ => Found::Nothing,
    }
}

/// What a type asks for.
pub(super) fn family(kind: RecordType) -> Family {
    match kind {
        RecordType::A => Family::V4,
        RecordType::AAAA => Family::V6,
        _ => Family::Any,
    }
}

/// The name under which an instance's addresses are found: its node's when it is reached there.
pub(super) fn target(chosen: &Chosen<'_>, datacenter: &str, domain: &Name) -> Option<Name> {
    if let Some(host) = chosen.reached.host {
        return host_name(host);
    }
    let node = &chosen.node.node.name;
    if chosen.reached.by_node && node.is_label() {
        return Some(name_in(&format!("{}.node.{datacenter}", node.folded()), domain));
    }
    let label = names::address_label(&chosen.reached)?;
    Some(name_in(&format!("{label}.addr.{datacenter}"), domain))
}

/// The host name that all instances have for an address.
fn shared_host(known: &Known<'_>) -> Option<Name> {
    let mut hosts = known.chosen.iter().map(|chosen| chosen.reached.host.and_then(host_name));
    let first = hosts.next()??;
    hosts.all(|host| host.as_ref() == Some(&first)).then_some(first)
}

/// RFC 8482 section 4.2: ANY is answered with one small record that says so.
pub(super) fn any(owner: &Name, ttl: u32) -> Record {
    let data = HINFO::new("RFC8482".to_owned(), String::new());
    Record::from_rdata(owner.clone(), ttl, RData::HINFO(data))
}

/// The reverse name of an address that we know: its nodes, then its services.
fn reverse(world: World<'_>, domains: &Domains, question: &Question) -> Option<Answer> {
    let labels = names::labels(&question.name)?;
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let address = names::reverse(&labels)?;
    let shown = |owner: &&Owner| match owner {
        Owner::Node(node) => world.view.reads_node(node.folded()),
        Owner::Service(service) => world.view.reads_service(service.folded()),
    };
    let mut owners = world.snapshot.owners(address).filter(shown).peekable();
    owners.peek()?;
    let primary = domains.domains.first()?;
    let ttl = world.settings.plain_ttl();
    let owner = |data| Record::from_rdata(question.name.clone(), ttl, data);
    let answers = match question.kind {
        RecordType::PTR => {
            let named = owners.filter_map(|owner| match owner {
                Owner::Node(node) if node.is_label() => {
                    Some(format!("{}.node.{}", node.folded(), domains.datacenter))
                }
                Owner::Service(service) if service.is_label() => {
                    Some(format!("{}.service", service.folded()))
                }
                _ => None,
            });
            let mut targets: Vec<String> = named.take(PTR_MAX).collect();
            if targets.is_empty() {
                targets.push(format!("{}.addr.{}", spelt(address), domains.datacenter));
            }
            targets.iter().map(|below| owner(RData::PTR(PTR(name_in(below, primary))))).collect()
        }
        RecordType::ANY => vec![any(&question.name, ttl)],
        _ => Vec::new(),
    };
    // The SOA stands at the name itself: the rest of the reverse tree is not ours.
    let authorities = match answers.is_empty() {
        true => vec![soa(question.name.clone(), primary, world, NEGATIVE_TTL)],
        false => Vec::new(),
    };
    Some(Answer { authoritative: true, answers, authorities, ..Answer::default() })
}

fn spelt(address: IpAddr) -> String {
    let reached = match address {
        IpAddr::V4(v4) => Reached { v4: Some(v4), ..Reached::default() },
        IpAddr::V6(v6) => Reached { v6: Some(v6), ..Reached::default() },
    };
    names::address_label(&reached).unwrap_or_default()
}

fn soa(owner: Name, domain: &Name, world: World<'_>, ttl: u32) -> Record {
    let (server, mailbox) = (name_in("ns", domain), name_in("hostmaster", domain));
    let [refresh, retry, expire] = SOA_TIMES;
    let (serial, minimum) = (world.snapshot.serial(), NEGATIVE_TTL);
    let soa = SOA::new(server, mailbox, serial, refresh as i32, retry as i32, expire as i32, minimum);
    Record::from_rdata(owner, ttl, RData::SOA(soa))
}

/// `below` in a domain. Names of ours are short enough; one that is not is the domain's own.
fn name_in(below: &str, domain: &Name) -> Name {
    let labels = below.split('.').map(str::as_bytes).chain(domain.iter());
    let mut name = Name::from_labels(labels).unwrap_or_else(|_| domain.clone());
    name.set_fqdn(true);
    name
}

pub(super) fn host_name(host: &str) -> Option<Name> {
    let mut name = Name::from_ascii(host).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Address records of one type, or of both.
fn addresses(owner: &Name, reached: &Reached<'_>, ttl: u32, kind: Option<RecordType>) -> Vec<Record> {
    let wanted = |this| kind.is_none_or(|kind| kind == this);
    let v4 = reached.v4.filter(|_| wanted(RecordType::A)).map(|ip| RData::A(A(ip)));
    let v6 = reached.v6.filter(|_| wanted(RecordType::AAAA)).map(|ip| RData::AAAA(AAAA(ip)));
    v4.into_iter().chain(v6).map(|data| Record::from_rdata(owner.clone(), ttl, data)).collect()
}

/// Whether an instance adds to a TXT answer.
pub(super) fn has_text(chosen: &Chosen<'_>) -> bool {
    txt(chosen.entry.instance.meta.iter()).is_some()
}

/// Meta as `key=value` strings, as many as fit; `None` when there is none.
pub(super) fn txt(meta: impl Iterator<Item = (impl Display, impl Display)>) -> Option<TXT> {
    let mut room = TXT_OCTETS_MAX;
    let texts: Vec<String> = meta
        .map(|(key, value)| format!("{key}={value}"))
        // RFC 1035 section 3.3: a character-string has at most 255 octets.
        .filter(|text| text.len() <= 255)
        .take_while(|text| {
            let fits = text.len() < room;
            room = room.saturating_sub(text.len() + 1);
            fits
        })
        .collect();
    (!texts.is_empty()).then(|| TXT::new(texts))
}

fn distinct(records: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let mut seen = HashSet::new();
    records.into_iter().filter(|record| seen.insert(record.data.clone())).collect()
}
