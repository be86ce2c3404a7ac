//! Questions that are not ours, when we are set as a machine's resolver: hickory's resolver with its cache.
//!
//! Only for clients in `allow`. Names of ours never reach it: they are answered before. An upstream
//! that is one of our own sockets would be asked for ever, so it is refused at the start.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::encode::{Answer, ExtendedError};
use super::live::Live;
use super::respond::Want;
use crate::dns::request::Question;
use crate::pace::Breaker;
use crate::telemetry::Metrics;
use crate::telemetry::trace::{Kind, Span};

/// How forwarding is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who is asked, in order; the system's own when empty.
    pub upstreams: Vec<SocketAddr>,
    pub allow: Vec<IpNet>,
    /// For one try with one upstream.
    pub timeout: Duration,
    /// Questions that wait for an answer at once.
    pub waiting_max: usize,
    pub cache_entries: u64,
}

impl Default for Config {
    /// The system's servers, for loopback and private ranges (RFC 1918, RFC 4193, RFC 3927, RFC 4291 section 2.5.6).
    fn default() -> Self {
        const PRIVATE: [&str; 8] = [
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "::1/128",
            "fc00::/7",
            "fe80::/10",
        ];
        Self {
            upstreams: Vec::new(),
            allow: PRIVATE.iter().filter_map(|net| net.parse().ok()).collect(),
            timeout: Duration::from_secs(2),
            waiting_max: 1024,
            cache_entries: 10_000,
        }
    }
}

/// So many questions in a row that nobody answered, and none is asked but one in this time: who asks is told at once, and who is asked
/// has time to come back.
const FAILURES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// Whom it calls, in metrics.
const TO: &str = "upstreams";

/// The door to other servers.
pub struct Forwarder {
    resolver: TokioResolver,
    places: Semaphore,
    /// For all tries together: less than the five seconds after which clients give up.
    within: Duration,
    /// Whether the last question was answered by nobody.
    lost: AtomicBool,
    breaker: Mutex<Breaker>,
}

/// What a question is a part of, and where it is counted.
#[derive(Clone, Copy)]
pub(super) struct For<'a> {
    pub(super) span: &'a Span,
    pub(super) metrics: &'a Metrics,
}

/// Why forwarding cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    #[error("[forward] upstream {0} is this server itself: name another")]
    Loop(SocketAddr),
    #[error("[forward] the system's resolver configuration cannot be used: {0}")]
    System(String),
    #[error(
        "[forward] the system's only resolver is this server itself: name upstreams, e.g. [forward] upstreams = [\"192.0.2.1\"]"
    )]
    OnlyOurselves,
}

impl Forwarder {
    /// Sets up the upstreams. `own` are the addresses that we listen on.
    pub fn new(config: &Config, own: &[SocketAddr]) -> Result<Self, ForwardError> {
        let servers = if config.upstreams.is_empty() {
            system(own)?
        } else {
            if let Some(looping) = config.upstreams.iter().find(|upstream| is_ours(**upstream, own)) {
                return Err(ForwardError::Loop(*looping));
            }
            config.upstreams.clone()
        };
        let servers = servers.into_iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let servers = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut builder = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = config.timeout;
        options.attempts = 2;
        options.cache_size = config.cache_entries;
        options.use_hosts_file = ResolveHosts::Never;
        options.ndots = 0;
        options.preserve_intermediates = true;
        options.try_tcp_on_error = true;
        options.negative_max_ttl = Some(Duration::from_secs(300));
        let resolver = builder.build().map_err(|e| ForwardError::System(e.to_string()))?;
        let (places, lost) = (Semaphore::new(config.waiting_max), AtomicBool::new(false));
        let breaker = Mutex::new(Breaker::new(FAILURES_MAX, PAUSE));
        Ok(Self { resolver, places, within: config.timeout * 2, lost, breaker })
    }

    /// The answer to a question of somebody else's, or the rest of an answer of ours. `None` when too many wait already.
    pub(super) async fn ask(&self, question: &Question, want: &Want, of: For<'_>) -> Option<Answer> {
        let _place = self.places.try_acquire().ok()?;
        Some(match want {
            Want::Question => self.question(&question.name, question.kind, of).await,
            Want::Hosts(live) => self.hosts(question, live, of).await,
        })
    }

    /// What others say of a name, as a part of some work.
    async fn question(&self, name: &Name, kind: RecordType, of: For<'_>) -> Answer {
        let mut span = of.span.child("dns.forward", Kind::Client);
        span.note("dns.question.name", || name.to_string().into());
        span.note("dns.question.type", || kind.to_string().into());
        match self.look_up(name, kind, of.metrics).await {
            Ok(lookup) => {
                let mut answers = lookup.answers().to_vec();
                // The cache spells them as the first client did.
                for record in answers.iter_mut().filter(|record| record.name == *name) {
                    record.name = name.clone();
                }
                Answer { answers, ..Answer::default() }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                let soa = none.soa.map(|soa| Record::into_record_of_rdata(*soa));
                Answer { authorities: soa.into_iter().collect(), ..Answer::code(none.response_code) }
            }
            Err(error) => {
                tracing::debug!(%name, %kind, "forwarding: {error}");
                span.fail(|| error.to_string());
                let rcode = match error {
                    NetError::Dns(DnsError::ResponseCode(code)) if code == ResponseCode::Refused => code,
                    _ => ResponseCode::ServFail,
                };
                Answer { error: Some(ExtendedError::NetworkError), ..Answer::code(rcode) }
            }
        }
    }

    /// What is remembered is given whatever happens; others are asked unless they are to be left alone.
    async fn look_up(&self, name: &Name, kind: RecordType, metrics: &Metrics) -> Result<Lookup, NetError> {
        let mut lookup = pin!(self.resolver.lookup(name.clone(), kind));
        if let Some(known) = lookup.as_mut().now_or_never() {
            if is_lost(&known) {
                self.note(&known, metrics);
            }
            return known;
        }
        if let Err(wait) = self.breaker.lock().try_call(Instant::now()) {
            metrics.outbound.withheld(TO);
            return Err(NetError::Msg(format!("nobody answered, and nobody is asked for another {wait:?}")));
        }
        let found = tokio::time::timeout(self.within, lookup).await;
        let found = found.unwrap_or(Err(NetError::Timeout));
        self.note(&found, metrics);
        found
    }

    /// Says once when nobody answers any more, and once when somebody does again.
    fn note(&self, found: &Result<Lookup, NetError>, metrics: &Metrics) {
        let lost = is_lost(found);
        let open = {
            let mut breaker = self.breaker.lock();
            breaker.note(!lost, Instant::now());
            breaker.is_open()
        };
        metrics.outbound.opened(TO, open);
        if self.lost.swap(lost, Ordering::Relaxed) == lost {
            return;
        }
        match found {
            Err(error) if lost => tracing::warn!("[forward] no upstream answers: {error}"),
            _ => tracing::info!("[forward] upstreams answer again"),
        }
    }

    /// Adds the addresses of host names: behind a CNAME under their own name, else under the name asked for.
    async fn hosts(&self, question: &Question, live: &Live, of: For<'_>) -> Answer {
        let span = of.span.child("dns.resolve", Kind::Internal);
        const HOSTS_MAX: usize = 16;
        let mut answer = live.answer.clone();
        let behind_cname = answer.answers.iter().any(|r| r.record_type() == RecordType::CNAME);
        for host in live.hosts.iter().take(HOSTS_MAX) {
            let found = self.question(host, question.kind, For { span: &span, ..of }).await;
            for mut record in found.answers {
                if !behind_cname {
                    if record.record_type() != question.kind {
                        continue;
                    }
                    record.name = question.name.clone();
                }
                record.ttl = record.ttl.min(live.ttl);
                if !answer.answers.contains(&record) {
                    answer.answers.push(record);
                }
            }
        }
        if !answer.answers.is_empty() {
            answer.authorities.clear();
        }
        answer
    }
}

/// Whether nobody answered.
fn is_lost(found: &Result<Lookup, NetError>) -> bool {
    !matches!(found, Ok(_) | Err(NetError::Dns(_)))
}

/// What the system asks, without ourselves.
fn system(own: &[SocketAddr]) -> Result<Vec<SocketAddr>, ForwardError> {
    let (config, _) =
        hickory_resolver::system_conf::read_system_conf().map_err(|e| ForwardError::System(e.to_string()))?;
    let servers = config.name_servers().iter().map(|server| {
        let port = server.connections.first().map_or(53, |connection| connection.port);
        SocketAddr::new(server.ip, port)
    });
    let others: Vec<_> = servers.filter(|server| !is_ours(*server, own)).collect();
    if others.is_empty() { Err(ForwardError::OnlyOurselves) } else { Ok(others) }
}

/// Whether an address leads to one of our sockets. A wildcard socket has every address of this machine; that
/// an address is this machine's shows in that it can be bound.
fn is_ours(upstream: SocketAddr, own: &[SocketAddr]) -> bool {
    let local = |ip: IpAddr| std::net::UdpSocket::bind((ip, 0)).is_ok();
    own.iter().filter(|listening| listening.port() == upstream.port()).any(|listening| {
        listening.ip() == upstream.ip() || (listening.ip().is_unspecified() && local(upstream.ip()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(upstream: &str) -> Config {
        Config {
            upstreams: vec![upstream.parse().unwrap()],
            allow: Vec::new(),
            timeout: Duration::from_secs(1),
            waiting_max: 1,
            cache_entries: 10,
        }
    }

    #[tokio::test]
    async fn an_upstream_that_is_ourselves_is_refused() {
        let own: Vec<SocketAddr> = vec!["127.0.0.1:53".parse().unwrap(), "0.0.0.0:5353".parse().unwrap()];
        for (upstream, refused) in [
            ("127.0.0.1:53", true),
            ("127.0.0.1:5353", true),
            ("127.0.0.1:54", false),
            ("192.0.2.1:53", false),
            ("192.0.2.1:5353", false),
        ] {
            let outcome = Forwarder::new(&config(upstream), &own);
            assert_eq!(matches!(outcome, Err(ForwardError::Loop(_))), refused, "{upstream}");
        }
    }
}
