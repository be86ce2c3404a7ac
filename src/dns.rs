//! DNS: listeners, questions, answers.
//!
//! A message is read ([`request`]), looked up among live names ([`live`]) and static zones ([`zone`]), and
//! encoded ([`encode`]); [`mod@respond`] is that whole way as one pure function, which both transports call.
//! What is not ours is refused or forwarded ([`forward`]). hickory's types are known here and nowhere else.

mod alias;
mod encode;
mod explain;
mod fast;
pub mod forward;
mod listen;
mod live;
mod names;
mod query_log;
mod request;
mod respond;
mod subnet;
mod tcp;
mod udp;
pub mod zone;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use hickory_proto::rr::Name;
pub use listen::{Listeners, bind};
pub use live::Domains;
pub use tcp::Limits as TcpLimits;

use crate::gently;
use crate::registry::{Kept, Registry};
use crate::select::kept_for;
use crate::telemetry::metrics::SizeTally;
use crate::telemetry::trace::{Kind as SpanKind, Span, Tracer};
use crate::telemetry::{Metrics, metrics};
use encode::{Answer, ExtendedError};
use fast::Fast;
use forward::Forwarder;
use hickory_proto::op::ResponseCode;
use respond::{Context, Outcome, Pending, Reply, Transport, respond};
use zone::Zones;

/// What answers depend on beside the registry and the zones.
#[derive(Debug, Clone)]
pub struct Settings {
    pub domains: Domains,
    /// The largest answer over UDP, and what we tell clients that we take (RFC 6891).
    pub payload: u16,
    pub tcp: TcpLimits,
    /// Whose word on the network of their clients is taken (RFC 7871), where places of clients are known at all.
    pub client_subnet_from: Vec<IpNet>,
    /// Whose questions are forwarded; nobody's when forwarding is off.
    pub forward_for: Vec<IpNet>,
}

impl Settings {
    /// Whether any client subnet is looked at.
    fn reads_subnets(&self) -> bool {
        !self.domains.settings.clients.is_empty() && !self.client_subnet_from.is_empty()
    }

    fn reads_subnet_from(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.reads_subnets() && self.client_subnet_from.iter().any(|net| net.contains(&client))
    }

    fn forwards_for(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.forward_for.iter().any(|net| net.contains(&client))
    }
}

/// What a question that took the general path was, and what came of it.
fn note(span: &mut Span, message: &[u8], transport: Transport, client: IpAddr, outcome: &Outcome) {
    if let Ok(request) = request::read(message) {
        span.note("dns.question.name", || request.question.name.to_string().into());
        span.note("dns.question.type", || request.question.kind.to_string().into());
    }
    span.note("network.transport", || if transport == Transport::Udp { "udp" } else { "tcp" }.into());
    span.note("client.address", || client.to_string().into());
    if let Outcome::Reply(reply) = outcome {
        span.note("dns.response_code", || reply.rcode.to_string().into());
    }
}

/// What the listeners share.
pub struct State {
    pub registry: Registry,
    pub settings: ArcSwap<Settings>,
    pub zones: ArcSwap<Zones>,
    pub forwarder: Option<Forwarder>,
    pub metrics: Arc<Metrics>,
    pub traces: Tracer,
    pub shutdown: CancellationToken,
}

impl State {
    /// The answer to a message that can be answered at once, over TCP or UDP: what the listeners send. `None` where nothing
    /// may be sent, or others have to be asked first.
    pub fn answer(&self, message: &[u8], over_tcp: bool, client: IpAddr) -> Option<Vec<u8>> {
        let transport = if over_tcp { Transport::Tcp } else { Transport::Udp };
        match self.respond(message, transport, client) {
            Outcome::Reply(reply) => Some(reply.encoded.bytes),
            Outcome::Silence | Outcome::Ask(_) => None,
        }
    }

    /// Answers a message from one view of everything.
    fn respond(&self, message: &[u8], transport: Transport, client: IpAddr) -> Outcome {
        let context = Context {
            snapshot: &self.registry.load(),
            view: &self.registry.dns_view(),
            bearer: &|token| self.registry.view_of_query(token),
            settings: &self.settings.load(),
            zones: &self.zones.load(),
            transport,
            client,
            pick: rand::random(),
        };
        let mut span = self.traces.start("dns.query", SpanKind::Server, None);
        let mut outcome = respond(message, &context);
        if span.is_recorded() {
            note(&mut span, message, transport, client, &outcome);
            if let Outcome::Ask(pending) = &mut outcome {
                pending.span = span;
            }
        }
        outcome
    }

    /// Lets the forwarder finish what needs others.
    async fn ask(&self, pending: &Pending) -> Reply {
        let _waiting = self.metrics.dns.forwarding();
        let answer = match &self.forwarder {
            Some(forwarder) => {
                let of = forward::For { span: &pending.span, metrics: &self.metrics };
                forwarder.ask(&pending.request.question, &pending.want, of).await
            }
            None => None,
        };
        let outcome = match &answer {
            Some(answer) if answer.rcode == ResponseCode::ServFail => "failed",
            Some(_) => "answered",
            None => {
                self.metrics.limits.hit("forward_waiting_max");
                "too many"
            }
        };
        self.metrics.dns.forwarded(outcome);
        pending.finish(&answer.unwrap_or_else(|| {
            let error = Some(ExtendedError::NetworkError);
            Answer { error, ..Answer::code(ResponseCode::ServFail) }
        }))
    }

    fn count(&self, reply: &Reply, transport: Transport) {
        let r#type = reply.kind.map_or("none", kind_label);
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let rcode = rcode_label(reply.rcode);
        self.metrics.dns.answered(metrics::Answer { r#type, rcode, transport, path: "general" }, 1);
        let mut size = SizeTally::default();
        size.add(reply.encoded.bytes.len());
        self.metrics.dns.sized(transport, &mut size);
        if reply.encoded.truncated {
            self.metrics.dns.truncated.inc();
        }
    }

    /// How long caches may hold what was answered before a change; for [`Registry::tell_kept`].
    pub fn kept(self: &Arc<Self>) -> Kept {
        // The registry is not to hold what holds the registry.
        let state = Arc::downgrade(self);
        Box::new(move |snapshot, service, before| {
            let settings = state.upgrade()?.settings.load_full();
            let negative = Duration::from_secs(live::NEGATIVE_TTL.into());
            Some(kept_for(snapshot, &settings.domains.settings, negative, (service, before)))
        })
    }
}

/// Serves every listener until the shutdown. What the call itself does is done before anything is answered.
pub fn serve(listeners: Listeners, state: Arc<State>) -> impl Future<Output = ()> + Send + 'static {
    let mut begun: Vec<_> = listeners.udp.iter().map(|_| Fast::new(&state)).collect();
    if gently::is_beside_another() {
        gently::gently(|| begun.iter_mut().for_each(|fast| fast.warm(&state)));
    }
    serve_with(listeners, begun, state)
}

async fn serve_with(listeners: Listeners, begun: Vec<Fast>, state: Arc<State>) {
    let tasks = TaskTracker::new();
    let waiting = TaskTracker::new();
    let shared = udp::Shared { state: state.clone(), runtime: Handle::current(), waiting: waiting.clone() };
    for (socket, fast) in listeners.udp.into_iter().zip(begun) {
        tasks.spawn(udp::serve(socket, fast, shared.clone()));
    }
    let places = Arc::new(tcp::Places::default());
    for listener in listeners.tcp {
        tasks.spawn(tcp::serve(listener, places.clone(), state.clone()));
    }
    tasks.close();
    tasks.wait().await;
    waiting.close();
    // What others do not answer by then is left: its clients ask again.
    let _ = tokio::time::timeout(tcp::CLOSE_WITHIN, waiting.wait()).await;
}

/// A type's name, from a fixed set.
fn kind_label(kind: hickory_proto::rr::RecordType) -> &'static str {
    use hickory_proto::rr::RecordType as T;
    match kind {
        T::A => "A",
        T::AAAA => "AAAA",
        T::SRV => "SRV",
        T::TXT => "TXT",
        T::PTR => "PTR",
        T::SOA => "SOA",
        T::NS => "NS",
        T::CNAME => "CNAME",
        T::MX => "MX",
        T::ANY => "ANY",
        _ => "other",
    }
}

fn rcode_label(rcode: ResponseCode) -> &'static str {
    match rcode {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::BADVERS => "BADVERS",
        _ => "other",
    }
}
