//! The answers to plain questions, without a detour over records: what UDP's threads try first.
//!
//! A message in, a message out, the same octets that the general path ([`respond`](mod@super::respond)) gives for the same world,
//! question and chance; a test compares them over random worlds. Whatever is not plain, or not cheap to answer here, is left
//! to that path. Names of services are answered from [templates](template), which hold as long as the version of their service
//! does; other names of the live domains that do not exist, at once; names of static zones, from the zone's own octets.

mod cache;
mod plain;
mod tally;
mod template;
#[cfg(test)]
mod tests;
mod warm;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

use super::encode::{self, ExtendedError, HEADER};
use super::live::{self, Found, NEGATIVE_TTL, SOA_TIMES};
use super::names::{self, Asked};
use super::respond::{Transport, limit};
use super::zone::Zones;
use super::{Settings, State};
use crate::acl::View;
use crate::registry::Registry;
use crate::registry::versions::Slot;
use crate::select::World;
use cache::{Cache, Place};
use plain::Plain;
pub(super) use tally::Tally;
use template::{Counts, Template, record};

/// Labels below a domain that are looked at here.
const LABELS_MAX: usize = 16;

/// One thread's fast path.
pub(super) struct Fast {
    settings: Arc<Settings>,
    /// Client subnets are looked at, and are the general path's.
    reads_subnets: bool,
    zones: Arc<Zones>,
    view: Arc<View>,
    /// The live domains, the longest first.
    domains: Vec<Domain>,
    cache: Cache,
    /// A zone's name being looked for; kept for its room.
    key: Vec<u8>,
}

struct Domain {
    /// In lower case.
    name: Name,
    wire: Vec<u8>,
}

/// An answer that was written, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) kind: u16,
    pub(super) rcode: ResponseCode,
}

/// A code, and what OPT adds to it.
type Said = (ResponseCode, Option<ExtendedError>);

fn plainly(rcode: ResponseCode) -> Said {
    (rcode, None)
}

/// A plain question, and where its answer may lie.
pub(super) struct Question<'m> {
    plain: Plain<'m>,
    hash: u64,
    place: Option<Place>,
}

/// Where a plain question leads.
struct Live<'q> {
    plain: &'q Plain<'q>,
    /// Where the domain begins in the name.
    at: usize,
    pick: u64,
}

impl Fast {
    pub(super) fn new(state: &State) -> Self {
        let (settings, zones) = (state.settings.load_full(), state.zones.load_full());
        let view = arc_swap::Guard::into_inner(state.registry.dns_view());
        let domains = domains(&settings);
        let reads_subnets = settings.reads_subnets();
        Self { settings, reads_subnets, zones, view, domains, cache: Cache::default(), key: Vec::new() }
    }

    /// Takes up what a reload has changed, or access control; before each batch.
    pub(super) fn refresh(&mut self, state: &State) {
        let (settings, zones) = (state.settings.load(), state.zones.load());
        let view = state.registry.dns_view();
        let same = Arc::ptr_eq(&self.settings, &settings) && Arc::ptr_eq(&self.zones, &zones);
        if !same || !Arc::ptr_eq(&self.view, &view) {
            *self = Self::new(state);
        }
    }

    /// Reads a message; none when it is the general path's.
    pub(super) fn read<'m>(&self, message: &'m [u8]) -> Option<Question<'m>> {
        let plain = Plain::read(message).filter(|plain| !(plain.subnet && self.reads_subnets))?;
        let hash = self.cache.hash(&plain);
        Some(Question { plain, hash, place: None })
    }

    /// Looks for what the questions of a batch are answered from, all at once: one after the other, each would wait for memory.
    pub(super) fn look_up(&self, questions: &mut [Option<Question<'_>>]) {
        for question in questions.iter_mut().flatten() {
            question.place = self.cache.find(question.hash);
        }
        let places = questions.iter().flatten().filter_map(|question| question.place);
        black_box(places.fold(0, |sum, place| sum ^ self.cache.touch(place)));
    }

    /// Writes the answer to a question into an empty buffer. None when it is the general path's; what is in the buffer is
    /// worth nothing then.
    pub(super) fn answer(
        &mut self,
        registry: &Registry,
        question: &Question<'_>,
        client: IpAddr,
        pick: u64,
        answer: &mut Vec<u8>,
    ) -> Option<Written> {
        let plain = &question.plain;
        let forwards = self.settings.forwards_for(client);
        begin(plain, forwards, answer);
        let (rcode, error) = self.body(registry, question, pick, answer)?;
        let payload = self.settings.payload;
        if let Some(client) = plain.edns {
            encode::opt(answer, client, payload, rcode, (error, None));
            add_count(answer, ADDITIONALS, 1);
        }
        let fits = answer.len() <= limit(plain.edns, Transport::Udp, payload);
        fits.then_some(Written { kind: plain.kind, rcode })
    }

    fn body(
        &mut self,
        registry: &Registry,
        question: &Question<'_>,
        pick: u64,
        answer: &mut Vec<u8>,
    ) -> Option<Said> {
        let plain = &question.plain;
        // Transfers, and types that are no questions.
        if matches!(plain.kind, 41 | 249..=255) {
            return None;
        }
        let Some((domain, at)) = self.domains.iter().find_map(|domain| Some((domain, domain.within(plain)?)))
        else {
            return self.of_zone(plain, answer).map(plainly);
        };
        let live = Live { plain, at, pick };
        if let Some(template) = question.place.and_then(|place| self.cache.get(place, plain))
            && registry.version(template.slot) == template.version
        {
            return live.put(template, registry, answer);
        }
        let (service, tag) = match live.asked(&self.settings)? {
            Asked::Service { service, tag } => (service, tag),
            Asked::Empty => {
                return live.negative(ResponseCode::NoError, registry.load().serial(), answer).map(plainly);
            }
            Asked::Unknown => {
                return live.negative(ResponseCode::NXDomain, registry.load().serial(), answer).map(plainly);
            }
            Asked::Apex | Asked::Server | Asked::Node(_) | Asked::Query(_) | Asked::Addresses(_) => {
                return None;
            }
        };
        // Whose answers depend on who asks are the general path's.
        if self.settings.domains.settings.nearest(&service).is_some() {
            return None;
        }
        // In this order: what is made from an older snapshot must not bear a newer version.
        let slot = Slot::of(&service);
        let version = registry.version(slot);
        let snapshot = registry.load();
        let world =
            World { snapshot: &snapshot, settings: &self.settings.domains.settings, view: &self.view };
        let known = match live::find(world, &service, tag.as_deref(), None) {
            Found::Known(known) => known,
            Found::Empty => {
                return live.negative(ResponseCode::NoError, snapshot.serial(), answer).map(plainly);
            }
            Found::Nothing => {
                return live.negative(ResponseCode::NXDomain, snapshot.serial(), answer).map(plainly);
            }
        };
        let place = (&domain.name, self.settings.domains.datacenter.as_str(), world.settings);
        let template = Template::new((slot, version), &known, plain, place)?;
        let template = self.cache.put(question.hash, template);
        live.put(template, registry, answer)
    }

    /// The answer of a static zone, where the name has what is asked for, as it is.
    fn of_zone(&mut self, plain: &Plain<'_>, answer: &mut Vec<u8>) -> Option<ResponseCode> {
        // Addresses that we know have reverse names, which are live.
        if plain.name().ends_with(b"\x04arpa\0") {
            return None;
        }
        let labels = plain.labels().map(|label| &plain.name()[label]);
        let (ttl, records) = self.zones.plain(labels, RecordType::from(plain.kind), &mut self.key)?;
        let mut count = 0;
        for data in records {
            record(answer, plain.kind, ttl, data.len());
            answer.extend_from_slice(data);
            count += 1;
        }
        add_count(answer, ANSWERS, count);
        Some(ResponseCode::NoError)
    }
}

impl Domain {
    /// Where this domain begins in a name that is in it.
    fn within(&self, plain: &Plain<'_>) -> Option<usize> {
        let name = plain.name();
        let at = name.len().checked_sub(self.wire.len())?;
        // What ends like the domain may yet have other labels: `xinternal` ends in `internal`.
        (name[at..] == self.wire && (at == 0 || plain.labels().any(|label| label.start == at + 1)))
            .then_some(at)
    }
}

impl Live<'_> {
    /// What the name asks for; none when it holds what no name of ours does.
    fn asked(&self, settings: &Settings) -> Option<Asked> {
        let name = self.plain.name();
        let mut labels = [""; LABELS_MAX];
        let mut count = 0;
        for label in self.plain.labels().take_while(|label| label.start <= self.at) {
            *labels.get_mut(count)? = std::str::from_utf8(&name[label]).ok()?;
            count += 1;
        }
        Some(names::read(&labels[..count], &settings.domains.datacenter))
    }

    fn put(&self, template: &Template, registry: &Registry, answer: &mut Vec<u8>) -> Option<Said> {
        let domain = &self.plain.question[self.at..self.plain.name().len()];
        let Some(Counts { answers, additionals }) = template.put(self.pick, domain, answer) else {
            return self.negative(ResponseCode::NoError, registry.load().serial(), answer).map(plainly);
        };
        add_count(answer, ANSWERS, answers);
        add_count(answer, ADDITIONALS, additionals);
        Some((ResponseCode::NoError, template.stale.then_some(ExtendedError::StaleAnswer)))
    }

    /// "No", with the domain's SOA (RFC 2308). Its names point at the domain in the question.
    fn negative(&self, rcode: ResponseCode, serial: u32, answer: &mut Vec<u8>) -> Option<ResponseCode> {
        const SERVER: &[u8] = b"\x02ns";
        const MAILBOX: &[u8] = b"\x0ahostmaster";
        // Where the question holds such a name, they would point at that.
        let below = &self.plain.name()[..self.at];
        if below.ends_with(SERVER) || below.ends_with(MAILBOX) {
            return None;
        }
        let domain = (0xc000 | (HEADER + self.at) as u16).to_be_bytes();
        answer.extend(domain);
        answer.extend([0, 6, 0, 1]);
        answer.extend(NEGATIVE_TTL.to_be_bytes());
        answer.extend((SERVER.len() as u16 + 2 + MAILBOX.len() as u16 + 2 + 20).to_be_bytes());
        answer.extend_from_slice(SERVER);
        answer.extend(domain);
        answer.extend_from_slice(MAILBOX);
        answer.extend(domain);
        let [refresh, retry, expire] = SOA_TIMES;
        for number in [serial, refresh, retry, expire, NEGATIVE_TTL] {
            answer.extend(number.to_be_bytes());
        }
        add_count(answer, AUTHORITIES, 1);
        answer[3] |= (u16::from(rcode) & 0xf) as u8;
        Some(rcode)
    }
}

fn domains(settings: &Settings) -> Vec<Domain> {
    let names = settings.domains.domains.iter().map(Name::to_lowercase);
    // What is no name cannot be encoded; the configuration has none.
    let mut domains: Vec<Domain> =
        names.filter_map(|name| Some(Domain { wire: name.to_bytes().ok()?, name })).collect();
    domains.sort_by_key(|domain| std::cmp::Reverse(domain.wire.len()));
    domains
}

/// The counts in a header.
const ANSWERS: usize = 6;
const AUTHORITIES: usize = 8;
const ADDITIONALS: usize = 10;

fn add_count(message: &mut [u8], place: usize, more: u16) {
    let count = u16::from_be_bytes([message[place], message[place + 1]]) + more;
    message[place..place + 2].copy_from_slice(&count.to_be_bytes());
}

/// The header of an authoritative answer without records, and the question.
fn begin(plain: &Plain<'_>, forwards: bool, answer: &mut Vec<u8>) {
    let flags = 0x84 | u8::from(plain.recursion_desired);
    let more = u8::from(forwards) << 7 | u8::from(plain.checking_disabled) << 4;
    answer.extend_from_slice(&[plain.id[0], plain.id[1], flags, more, 0, 1, 0, 0, 0, 0, 0, 0]);
    answer.extend_from_slice(plain.question);
}
