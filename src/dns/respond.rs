//! One message in, one message out. No I/O, no clock: whatever the transport, the same bytes give the same answer.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use super::Settings;
use super::alias;
use super::encode::{Answer, Encoded, ExtendedError, Frame, encode};
use super::live::{self, Client, Live};
use super::request::{self, BadSubnet, Edns, Malformed, Question, Request};
use super::subnet::Subnet;
use super::zone::{Zone, Zones};
use crate::acl::View;
use crate::registry::Snapshot;
use crate::select::{Order, World};
use crate::telemetry::trace::Span;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// From the token that a prepared query holds to what its bearer may see; none of a query without one.
pub(super) type Bearer<'a> = dyn Fn(&str) -> Option<View> + 'a;

/// All that an answer depends on beside the message.
pub(super) struct Context<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// What may be shown.
    pub(super) view: &'a View,
    /// What a prepared query may show that holds a token.
    pub(super) bearer: &'a Bearer<'a>,
    pub(super) settings: &'a Settings,
    pub(super) zones: &'a Zones,
    pub(super) transport: Transport,
    pub(super) client: IpAddr,
    /// Chance, for the rotation.
    pub(super) pick: u64,
}

/// What comes of a message.
pub(super) enum Outcome {
    /// Nothing may be sent.
    Silence,
    Reply(Reply),
    /// Others have to be asked first.
    Ask(Box<Pending>),
}

/// An answer and what is counted of it.
pub(super) struct Reply {
    pub(super) encoded: Encoded,
    pub(super) rcode: ResponseCode,
    pub(super) kind: Option<RecordType>,
}

/// A request that waits for the forwarder.
pub(super) struct Pending {
    pub(super) request: Request,
    pub(super) want: Want,
    transport: Transport,
    payload: u16,
    subnet: Option<(Subnet, u8)>,
    /// Until it is answered.
    pub(super) span: Span,
}

/// What the forwarder is to find.
pub(super) enum Want {
    /// The answer to the question itself.
    Question,
    /// The addresses of host names, to be added to what we have.
    Hosts(Live),
}

/// Answers a message, or says what is needed for it.
pub(super) fn respond(bytes: &[u8], context: &Context<'_>) -> Outcome {
    let request = match request::read(bytes) {
        Ok(request) => request,
        Err(malformed) => return refuse(&malformed, context),
    };
    let forwards = context.settings.forwards_for(context.client);
    let pending = |want, request| {
        let (transport, payload) = (context.transport, context.settings.payload);
        let subnet = subnet(&request, context);
        Outcome::Ask(Box::new(Pending { request, want, transport, payload, subnet, span: Span::default() }))
    };
    match look_up(&request, context, Order::Draw(context.pick)) {
        Found::Answer(answer) => Outcome::Reply(fitting(&request, &answer, context, forwards)),
        Found::Hosts(live) if forwards => pending(Want::Hosts(live), request),
        // Without a forwarder only the names themselves can be given.
        Found::Hosts(live) => Outcome::Reply(reply(&request, &live.answer, context, forwards)),
        Found::Elsewhere if forwards && request.recursion_desired => pending(Want::Question, request),
        Found::Elsewhere => {
            let error = Some(ExtendedError::Prohibited);
            let refused = Answer { error, ..Answer::code(ResponseCode::Refused) };
            Outcome::Reply(reply(&request, &refused, context, forwards))
        }
    }
}

/// An answer that is cut is the same one for this client every time, as far as the records are.
fn fitting(request: &Request, answer: &Answer, context: &Context<'_>, forwards: bool) -> Reply {
    let whole = reply(request, answer, context, forwards);
    if !whole.encoded.truncated || context.transport == Transport::Tcp {
        return whole;
    }
    match look_up(request, context, Order::For(context.client)) {
        Found::Answer(answer) => reply(request, &answer, context, forwards),
        _ => whole,
    }
}

/// The client's network, where whoever asks may tell it, and how many of its bits decide where it is. None where it is
/// malformed: that is answered before it is asked for.
fn subnet(request: &Request, context: &Context<'_>) -> Option<(Subnet, u8)> {
    let subnet = request.subnet?.ok().filter(|_| context.settings.reads_subnet_from(context.client))?;
    let bits = match subnet.source {
        // Whoever says nothing of its client wants what is everybody's.
        0 => 0,
        _ => context.settings.domains.settings.clients.find(subnet.address).1,
    };
    Some((subnet, bits))
}

pub(super) enum Found {
    Answer(Answer),
    Hosts(Live),
    /// The name is not ours.
    Elsewhere,
}

pub(super) fn look_up(request: &Request, context: &Context<'_>, order: Order) -> Found {
    // RFC 6891 section 6.1.3: versions that we do not know.
    if request.edns.is_some_and(|edns| edns.version > 0) {
        return Found::Answer(Answer::code(ResponseCode::BADVERS));
    }
    // RFC 7871 section 7.1.2.
    if request.subnet == Some(Err(BadSubnet)) && context.settings.reads_subnet_from(context.client) {
        return Found::Answer(Answer::code(ResponseCode::FormErr));
    }
    let question = &request.question;
    let client =
        Client { address: context.client, subnet: subnet(request, context).map(|(subnet, _)| subnet) };
    let one_name = |question: &Question| one_name(question, context, order, client);
    if question.class != DNSClass::IN {
        return Found::Answer(Answer::code(ResponseCode::Refused));
    }
    // Transfers are not served, and the types below are no questions (RFC 6895 section 3.1).
    match question.kind {
        RecordType::AXFR | RecordType::IXFR => {
            let error = Some(ExtendedError::NotSupported);
            return Found::Answer(Answer { error, ..Answer::code(ResponseCode::NotImp) });
        }
        RecordType::OPT | RecordType::TSIG => return Found::Answer(Answer::code(ResponseCode::FormErr)),
        _ => {}
    }
    let Some(mut found) = one_name(question) else { return Found::Elsewhere };
    if !found.hosts.is_empty() {
        found = alias::follow(found, question, one_name);
    }
    // An alias that leaves a zone is asked of others only for those who want recursion.
    if found.hosts.is_empty() || (found.of_zone && !request.recursion_desired) {
        return Found::Answer(found.answer);
    }
    Found::Hosts(found)
}

/// What we know of one name: live or static.
fn one_name(question: &Question, context: &Context<'_>, order: Order, client: Client) -> Option<Live> {
    let settings = &context.settings.domains.settings;
    let world = World { snapshot: context.snapshot, settings, view: context.view };
    let live = live::answer((world, context.bearer), &context.settings.domains, question, order, client);
    live.or_else(|| {
        let zone = context.zones.find(&question.name, question.kind)?;
        let answer = of_zone(zone, &question.name, question.kind);
        let hosts = outside(zone, question, &answer).into_iter().collect();
        Some(Live { answer, hosts, ttl: u32::MAX, of_zone: true })
    })
}

/// Where an alias leads that leaves its zone. What is ours is followed there (RFC 1034 section 4.3.2, step 3a).
fn outside(zone: &Zone, question: &Question, answer: &Answer) -> Option<Name> {
    if matches!(question.kind, RecordType::CNAME | RecordType::ANY) || answer.glue {
        return None;
    }
    match &answer.answers.last()?.data {
        RData::CNAME(CNAME(target)) if !zone.origin().zone_of(target) => Some(target.clone()),
        _ => None,
    }
}

/// A static zone's answer. ANY gives one small record (RFC 8482), where the name exists.
fn of_zone(zone: &Zone, name: &Name, kind: RecordType) -> Answer {
    let mut found = zone.lookup(name, kind);
    if kind == RecordType::ANY && !found.answer.is_empty() {
        let cname = found.answer.iter().any(|record| record.record_type() == RecordType::CNAME);
        if !cname {
            let ttl = found.answer.iter().map(|record| record.ttl).min().unwrap_or(0);
            found.answer = vec![live::any(name, ttl)];
            found.additional.clear();
        }
    }
    // Owners that are the name asked for are spelt as it was.
    for record in found.answer.iter_mut().filter(|record| record.name == *name) {
        record.name = name.clone();
    }
    Answer {
        rcode: found.rcode,
        authoritative: found.authoritative,
        glue: found.referral,
        answers: found.answer,
        authorities: found.authority,
        additionals: found.additional,
        error: None,
        tailored: false,
    }
}

pub(super) fn reply(request: &Request, answer: &Answer, context: &Context<'_>, forwards: bool) -> Reply {
    let limit = limit(request.edns, context.transport, context.settings.payload);
    frame(request, answer, (limit, context.settings.payload), forwards, subnet(request, context))
}

fn frame(
    request: &Request,
    answer: &Answer,
    (limit, payload): (usize, u16),
    forwards: bool,
    subnet: Option<(Subnet, u8)>,
) -> Reply {
    let frame = Frame {
        id: request.id,
        opcode: 0,
        recursion_desired: request.recursion_desired,
        recursion_available: forwards,
        checking_disabled: request.checking_disabled,
        question: Some(&request.question),
        edns: request.edns,
        payload,
        subnet,
        limit,
    };
    Reply { encoded: encode(&frame, answer), rcode: answer.rcode, kind: Some(request.question.kind) }
}

/// Octets that an answer may have: what the client takes, but over UDP no more than we send.
pub(super) fn limit(edns: Option<Edns>, transport: Transport, payload: u16) -> usize {
    match transport {
        Transport::Tcp => usize::from(u16::MAX),
        // RFC 6891 section 6.2.3: values below 512 count as 512.
        Transport::Udp => usize::from(edns.map_or(512, |edns| edns.payload.clamp(512, payload.max(512)))),
    }
}

impl Pending {
    /// The answer, now that the others have spoken.
    pub(super) fn finish(&self, answer: &Answer) -> Reply {
        let limit = limit(self.request.edns, self.transport, self.payload);
        frame(&self.request, answer, (limit, self.payload), true, self.subnet)
    }
}

fn refuse(malformed: &Malformed, context: &Context<'_>) -> Outcome {
    let (id, opcode, recursion_desired, question, rcode) = match malformed {
        Malformed::Unanswerable => return Outcome::Silence,
        Malformed::FormErr { id, recursion_desired, question } => {
            (*id, 0, *recursion_desired, question.as_ref(), ResponseCode::FormErr)
        }
        // RFC 8906 section 8.1.4: unknown opcodes are answered NOTIMP.
        Malformed::Opcode { id, opcode, recursion_desired } => {
            (*id, *opcode, *recursion_desired, None, ResponseCode::NotImp)
        }
    };
    let frame = Frame {
        id,
        opcode,
        recursion_desired,
        recursion_available: false,
        checking_disabled: false,
        question,
        edns: None,
        payload: context.settings.payload,
        subnet: None,
        limit: 512,
    };
    Outcome::Reply(Reply { encoded: encode(&frame, &Answer::code(rcode)), rcode, kind: None })
}
