//! Why DNS answers what it answers.
//!
//! The question goes the way of every other one (`respond::look_up`), in the world that DNS has at that moment, and what comes
//! out is shown. What was considered for it is told by the functions by which it was decided
//! ([`select::why`]), in the same world. Nothing is asked of others: that a name would be forwarded is said.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::time::Instant;

use super::live::{self, Ask, Client, Domains};
use super::names::{self, Asked};
use super::request::{Question, Request};
use super::respond::{Context, Found, Transport, look_up, reply};
use super::{Answer, State, rcode_label};
use crate::acl::View;
use crate::registry::guard::Guard;
use crate::registry::{RouteEntry, ServiceEntry, views};
use crate::select::explanation::{self, Judged, paced};
use crate::select::why::{self, Considered};
use crate::select::{
    self, Explanation, Family, Inquiry, Known, Order, Place, Selection, Steered, Why, World,
    query as execution,
};

impl State {
    /// What would be answered now, and why. Whoever may read everything is told what DNS answers; whoever may not, what DNS would
    /// answer with their token. Errs with what is wrong with the question.
    pub fn explain(&self, inquiry: &Inquiry, asker: &View) -> Result<Explanation, String> {
        let of_dns = self.registry.dns_view();
        let context = Context {
            snapshot: &self.registry.load(),
            view: if asker.reads_all() { &of_dns } else { asker },
            bearer: &|token| self.registry.view_of_query(token),
            settings: &self.settings.load(),
            zones: &self.zones.load(),
            transport: Transport::Tcp,
            client: inquiry.from,
            pick: rand::random(),
        };
        explained(&context, inquiry, asker)
    }
}

fn explained(context: &Context<'_>, inquiry: &Inquiry, asker: &View) -> Result<Explanation, String> {
    let (question, taken) = question(inquiry, &context.settings.domains)?;
    let request = Request {
        id: 0,
        recursion_desired: true,
        checking_disabled: false,
        question,
        edns: None,
        subnet: None,
    };
    let question = &request.question;
    let told = Explanation {
        name: question.name.to_string(),
        kind: question.kind.to_string(),
        index: context.snapshot.index(),
        serial: context.snapshot.serial(),
        said: taken.into_iter().collect(),
        ..Explanation::default()
    };
    let forwards = context.settings.forwards_for(context.client);
    let (answer, hosts) = match look_up(&request, context, Order::Draw(context.pick)) {
        Found::Answer(answer) => (Some(answer), Vec::new()),
        Found::Hosts(live) => (Some(live.answer), live.hosts),
        Found::Elsewhere => (None, Vec::new()),
    };
    let mut teller = Teller { context, question, asker, answer: answer.as_ref(), hosts, forwards, told };
    teller.name();
    teller.outcome(&request);
    Ok(teller.told)
}

/// The question, and a sentence where the name was completed: one label that is not ours is a service.
fn question(inquiry: &Inquiry, domains: &Domains) -> Result<(Question, Option<String>), String> {
    let text = inquiry.name.trim();
    let invalid = |why: &dyn std::fmt::Display| format!("Invalid name {text:?}: {why}");
    if text.is_empty() {
        return Err("Missing name to explain".to_owned());
    }
    // Letter case is kept where it can be.
    let read = if text.is_ascii() { Name::from_ascii(text) } else { Name::from_utf8(text) };
    let mut name = read.map_err(|error| invalid(&error))?;
    name.set_fqdn(true);
    let kind = match inquiry.kind.trim() {
        "" => RecordType::A,
        kind => RecordType::from_str(&kind.to_ascii_uppercase())
            .map_err(|_| format!("Invalid type {kind:?}: not a DNS record type"))?,
    };
    let mut taken = None;
    if name.num_labels() == 1
        && live::read(domains, &name).is_none()
        && let Some(domain) = domains.domains.first()
    {
        let whole = Name::from_ascii("service").and_then(|service| service.append_domain(domain));
        name = whole.and_then(|below| name_below(&name, &below)).map_err(|error| invalid(&error))?;
        taken = Some(format!("{text:?} is taken for {name}"));
    }
    Ok((Question { name, kind, class: DNSClass::IN }, taken))
}

fn name_below(name: &Name, domain: &Name) -> Result<Name, hickory_proto::ProtoError> {
    let mut name = name.clone();
    name.set_fqdn(false);
    name.append_domain(domain)
}

/// One explanation while it is made.
struct Teller<'a> {
    context: &'a Context<'a>,
    question: &'a Question,
    asker: &'a View,
    /// None of a name that is not ours.
    answer: Option<&'a Answer>,
    /// What only others know.
    hosts: Vec<Name>,
    forwards: bool,
    told: Explanation,
}

impl<'a> Teller<'a> {
    fn say(&mut self, text: impl Into<String>) {
        self.told.said.push(text.into());
    }

    fn world(&self) -> World<'a> {
        let settings = &self.context.settings.domains.settings;
        World { snapshot: self.context.snapshot, settings, view: self.context.view }
    }

    fn ask(&self, domain: Name) -> Ask<'a> {
        Ask {
            world: self.world(),
            bearer: self.context.bearer,
            domains: &self.context.settings.domains,
            question: self.question,
            domain,
            order: Order::Draw(self.context.pick),
            client: Client { address: self.context.client, subnet: None },
        }
    }

    /// What the name is.
    fn name(&mut self) {
        let domains = &self.context.settings.domains;
        let Some((domain, asked)) = live::read(domains, &self.question.name) else { return self.foreign() };
        match &asked {
            Asked::Apex => self.say(format!("{domain} is a domain of this server")),
            Asked::Server => self.say("the name of this server; its address is its node's"),
            Asked::Service { service, tag } => {
                let ask = self.ask(domain);
                self.service(&ask, service, tag.as_deref());
            }
            Asked::Node(name) => self.node(name),
            Asked::Query(name) => {
                let ask = self.ask(domain);
                self.query(&ask, name);
            }
            Asked::Addresses(_) => self.say("the name spells the address, for targets of SRV records"),
            Asked::Empty => self.say("the name exists only because names below it do (RFC 8020)"),
            Asked::Unknown => {
                let dc = &domains.datacenter;
                self.say(format!(
                    "no name of this form is known: <service>.service, <tag>.<service>.service, <node>.node, \
                     <query>.query and <hex>.addr, each with or without .{dc}, are, below {domain}"
                ));
            }
        }
    }

    /// A name in none of our domains.
    fn foreign(&mut self) {
        let labels = names::labels(&self.question.name).unwrap_or_default();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let zone = self.context.zones.find(&self.question.name, self.question.kind);
        match (names::reverse(&labels), zone, self.answer) {
            (_, Some(zone), _) => {
                let origin = zone.origin().to_string();
                self.say(format!("in the static zone {origin}, which health has no say in"));
            }
            (Some(address), None, Some(_)) => {
                self.say(format!("the reverse name of {address}, which is registered"));
            }
            (Some(address), None, None) => {
                self.say(format!("the reverse name of {address}, which nobody here is registered with"));
            }
            (None, None, _) => self.say("in none of this server's domains and static zones"),
        }
    }

    fn node(&mut self, name: &str) {
        let known = self.context.snapshot.node(name).filter(|_| self.context.view.reads_node(name));
        match known {
            Some(node) if !node.node.name.is_label() => {
                self.say(format!("the name of node {} cannot stand in DNS", node.node.name));
            }
            Some(node) => {
                self.say(format!("node {}; nodes answer whatever their health is", node.node.name));
            }
            None => self.say(format!("no node {name} that may be seen")),
        }
    }

    fn service(&mut self, ask: &Ask<'a>, name: &str, tag: Option<&str>) {
        let world = self.world();
        let family = live::family(self.question.kind);
        let asked = select::Asked { service: name, tag, from: ask.place(), family };
        let selection = select::select(world, asked);
        let rows = why::considered(world, asked, &selection);
        let known = world.snapshot.service(name).filter(|_| self.asker.reads_service(name));
        let Some(service) = known else { return self.say(format!("no service {name} that may be seen")) };
        if !world.view.reads_service(name) {
            return self.say(format!("the token of DNS may not read service {name}"));
        }
        if !service.name.is_label() {
            return self.say(format!("the name of service {} cannot stand in DNS", service.name));
        }
        self.rows(service, tag, ask.place(), &rows);
        if let Selection::Known(known) = &selection
            && let Some(entry) = world.snapshot.route_of(service.name.folded())
        {
            self.steered(entry, known);
        }
        let absent = rows.iter().all(|row| matches!(row.why, Why::Untagged | Why::Hidden));
        match (&selection, tag) {
            (Selection::Known(_), Some(tag)) if absent => {
                self.say(format!("the route's subset {tag} has no instance"));
            }
            (Selection::Known(known), _) => self.pace(known, world.settings.ceiling(name), false),
            (Selection::Above, Some(tag)) => {
                self.say(format!("no instance has the tag {tag}, but one has a tag that ends in .{tag}"));
            }
            (_, Some(tag)) => self.say(format!("no instance of {} has the tag {tag}", service.name)),
            (_, None) => self.say(format!("no instance of {} may be seen", service.name)),
        }
    }

    /// What the service's route did.
    fn steered(&mut self, entry: &RouteEntry, known: &Known<'_>) {
        let total: u64 = entry.shares.iter().map(|share| u64::from(*share)).sum();
        let percent = |share: u32| (u64::from(share) * 1000 / total.max(1)) as f64 / 10.0;
        let subsets = entry.route.subsets.iter().zip(&*entry.shares);
        let subsets: Vec<String> =
            subsets.map(|(subset, share)| format!("{} {} %", subset.by, percent(*share))).collect();
        let route = format!("route version {}: {}", entry.route.version, subsets.join(", "));
        let empty = entry.route.subsets.iter().zip(&*entry.shares).enumerate();
        let empty = empty.filter(|(at, (_, share))| **share > 0 && !known.gives(*at));
        let empty: Vec<String> = empty.map(|(_, (subset, _))| subset.by.to_string()).collect();
        match known.steered {
            Steered::Free => {}
            Steered::ByShares if empty.is_empty() => self.say(route),
            Steered::ByShares => self.say(format!(
                "{route}; nobody of {} is healthy, so its share goes to the others",
                empty.join(" and of ")
            )),
            Steered::Fallback => self.say(format!(
                "{route}; nobody of those with a share is healthy, so all who are healthy answer"
            )),
            Steered::Strictly => {
                self.say(format!("{route}; it is strict, and nobody of those with a share is healthy"))
            }
        }
    }

    fn query(&mut self, ask: &Ask<'a>, name: &str) {
        let Some(entry) = self.context.snapshot.find_query(name) else {
            return self.say(format!("no prepared query {name}"));
        };
        let query = execution::rendered(entry, name);
        let own = (self.context.bearer)(&query.token);
        let shown = self.world();
        let world = World { view: own.as_ref().unwrap_or(shown.view), ..shown };
        let wanted = &query.service.service;
        let what = if entry.is_template() { "template of prepared queries" } else { "prepared query" };
        self.say(format!("the {what} {:?}, for service {wanted}", entry.query.name));
        let known = ask.executed(world, &query);
        let Some(known) = known.filter(|known| self.asker.reads_service(known.service.name.folded())) else {
            return self.say(format!("no service {wanted} that may be seen"));
        };
        let rows = execution::considered(world, &query, Some(&known));
        self.rows(known.service, None, ask.place(), &rows);
        self.pace(&known, execution::ceiling(world, &query), query.ttl().is_some());
    }

    /// What became of each instance.
    fn rows(
        &mut self,
        service: &Arc<ServiceEntry>,
        tag: Option<&str>,
        from: Place<'_>,
        rows: &[Considered<'_>],
    ) {
        let settings = &self.context.settings.domains.settings;
        let family = live::family(self.question.kind);
        let until = |guard: &Arc<Guard>| {
            let left = guard.until().saturating_duration_since(Instant::now());
            u32::try_from(views::now() / 1000 + left.as_secs()).unwrap_or(u32::MAX)
        };
        let guarded = service.guard.as_ref().map(until);
        let context = explanation::Context { settings, service: &service.name, tag, from, family, guarded };
        let shown = rows.iter().filter(|row| self.asker.reads_node(row.entry.instance.node.folded()));
        let judged = shown.map(|row| Judged::of(&context, &Considered { why: self.refined(row), ..*row }));
        let judged: Vec<Judged> = judged.collect();
        let given = judged.iter().filter(|judged| judged.why.is_in()).count();
        let tagged = tag.map_or_else(String::new, |tag| format!(" for the tag {tag}"));
        self.say(format!("service {}{tagged}: {given} of {} instances answer", service.name, judged.len()));
        self.told.service = Some(service.name.clone());
        self.told.instances = judged;
    }

    /// Why an instance that was selected has no record of this type in this answer, if it has none.
    fn refined(&self, row: &Considered<'_>) -> Why {
        let reached = &row.reached;
        let resolved = |host| match live::host_name(host) {
            None => Why::Unreachable,
            Some(host) if self.hosts.contains(&host) && !self.forwards => Why::Unresolved,
            Some(_) => Why::ByName,
        };
        let family = live::family(self.question.kind);
        match (self.question.kind, family) {
            _ if !row.why.is_in() => row.why,
            (_, Family::V4 | Family::V6) => {
                let v4 = reached.v4.map(IpAddr::V4);
                let v6 = reached.v6.map(IpAddr::V6);
                match (if family == Family::V4 { v4 } else { v6 }, reached.host) {
                    (Some(address), _) if self.has(address) => row.why,
                    (Some(_), _) => Why::NotDrawn,
                    (None, Some(host)) => resolved(host),
                    (None, None) => Why::Unreachable,
                }
            }
            (RecordType::TXT, _) if live::txt(row.entry.instance.meta.iter()).is_none() => Why::Textless,
            (RecordType::SRV, _) if *reached == select::Reached::default() => Why::Unreachable,
            _ => row.why,
        }
    }

    /// Whether an address is in the answer.
    fn has(&self, address: IpAddr) -> bool {
        let mut records = self.answer.into_iter().flat_map(|answer| &answer.answers);
        records.any(|record| match &record.data {
            RData::A(a) => IpAddr::V4(a.0) == address,
            RData::AAAA(aaaa) => IpAddr::V6(aaaa.0) == address,
            _ => false,
        })
    }

    fn pace(&mut self, known: &Known<'_>, ceiling: std::time::Duration, of_query: bool) {
        let settings = &self.context.settings.domains.settings;
        let why = paced(settings, &known.service.name, of_query, &known.pace(ceiling));
        self.told.ttl = Some((known.ttl, why));
    }

    /// What is sent.
    fn outcome(&mut self, request: &Request) {
        let Some(answer) = self.answer else {
            match self.forwards {
                true => self.say("forwarded ([forward]): what the upstreams answer is given"),
                false => {
                    self.told.rcode = "REFUSED".to_owned();
                    self.say("refused: nothing is forwarded for this client ([forward])");
                }
            }
            return;
        };
        let octets = reply(request, answer, self.context, self.forwards).encoded.bytes.len();
        let text = |records: &[Record]| records.iter().map(Record::to_string).collect();
        self.told.rcode = rcode_label(answer.rcode).to_owned();
        self.told.answers = text(&answer.answers);
        self.told.authorities = text(&answer.authorities);
        self.told.additionals = text(&answer.additionals);
        self.told.octets = octets;
        if !self.hosts.is_empty() && self.forwards {
            self.say("the addresses of host names are asked of the upstreams, and added ([forward])");
        }
        if answer.rcode == Default::default() && answer.answers.is_empty() {
            self.say(format!("the name exists and has no {} records now", self.question.kind));
        }
        if answer.answers.is_empty() {
            self.told.ttl = answer.authorities.iter().find_map(remembered);
        }
        let payload = usize::from(self.context.settings.payload);
        if octets > payload {
            self.say(format!(
                "over UDP it is cut (TC), since it has more than {payload} octets; TCP gives it whole"
            ));
        } else if octets > 512 {
            self.say("over UDP clients without EDNS get it cut (TC), since it has more than 512 octets");
        }
    }
}

/// For how long caches may have it that there is nothing, by the SOA record that says so (RFC 2308 section 5).
fn remembered(record: &Record) -> Option<(u32, String)> {
    let RData::SOA(soa) = &record.data else { return None };
    Some((
        record.ttl.min(soa.minimum),
        "there is nothing to give, which caches may have for so long".to_owned(),
    ))
}
