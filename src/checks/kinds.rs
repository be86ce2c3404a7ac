//! One probe of any kind, within its time.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::http::{self, Asked};
use super::kept::{Kept, Stream};
use super::probe::{Finding, Tools};
use super::{connect, grpc, h2ping, script, tcp, udp};
use crate::model::{Check, CheckKind, Status};
use crate::telemetry::trace::{Kind, Span};

/// What one probe came to, and what is left of it.
pub(super) struct Probed {
    pub(super) finding: Finding,
    pub(super) timed_out: bool,
    /// A connection that can be used again.
    pub(super) stream: Option<Stream>,
    /// The kept connection had broken and a fresh one was used.
    pub(super) again: bool,
    /// The target closed the connection behind an answer that did not say so.
    pub(super) cut_off: bool,
    pub(super) took: Duration,
    pub(super) ended: Instant,
}

impl Probed {
    /// Whether nothing of the target was heard.
    pub(super) fn is_lost(&self) -> bool {
        self.timed_out || self.finding.lost
    }
}

/// For definitions without a timeout; Consul's.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// What a connection that is kept for the check is good for; checks with the same share it. `None` for kinds that keep none.
pub(super) fn target(kind: &CheckKind) -> Option<String> {
    match kind {
        CheckKind::Http { url, tls, .. } => http::target(url, tls),
        _ => None,
    }
}

/// The host that a probe connects to first; none for kinds that connect to nobody.
pub(super) fn host(kind: &CheckKind) -> Option<String> {
    match kind {
        CheckKind::Http { url, .. } => {
            let url = url::Url::parse(url).ok()?;
            let host = url.host_str()?;
            Some(host.trim_start_matches('[').trim_end_matches(']').to_owned())
        }
        CheckKind::Tcp { address, .. }
        | CheckKind::Udp { address }
        | CheckKind::Grpc { address, .. }
        | CheckKind::H2Ping { address, .. } => Some(connect::host(address).to_owned()),
        _ => None,
    }
}

/// Probes once. Dropping the future ends the probe and all it began.
pub(super) async fn probe(check: &Check, kept: Option<Kept>, tools: &Tools) -> Probed {
    let begun = Instant::now();
    let mut span = tools.traces.start("check.probe", Kind::Client, None);
    let traceparent = span.carried().map(|told| told.context.to_string());
    let traceparent = traceparent.as_deref();
    let timeout = if check.timeout.is_zero() { TIMEOUT_DEFAULT } else { check.timeout };
    let mut probed = match &check.kind {
        CheckKind::Http { url, method, header, body, follow_redirects, tls } => {
            let (kept, broken) = match kept {
                Some(kept) => kept.take().await.map_or((None, true), |stream| (Some(stream), false)),
                None => (None, false),
            };
            let (follow_redirects, output_max) = (*follow_redirects, check.output_max);
            let asked = Asked { url, method, header, body, follow_redirects, tls, output_max, traceparent };
            let answered = http::probe(&asked, kept, tools, begun + timeout).await;
            let http::Answered { finding, stream, again, cut_off, timed_out } = answered;
            let again = again || broken;
            Probed { timed_out, stream, again, cut_off, ..Probed::from(finding) }
        }
        // It ends its processes itself.
        CheckKind::Script { args } => {
            Probed::from(script::probe(args, timeout, check.output_max, tools).await)
        }
        // It knows what silence means.
        CheckKind::Udp { address } => Probed::from(udp::probe(address, timeout, tools).await),
        kind => match timeout_at(begun + timeout, plain(kind, tools, traceparent)).await {
            Ok(finding) => Probed::from(finding),
            Err(_) => Probed { timed_out: true, ..Probed::from(Finding::critical(timed_out(kind, timeout))) },
        },
    };
    // A script's own is cut already, from the front.
    if !matches!(check.kind, CheckKind::Script { .. }) {
        cut(&mut probed.finding.output, check.output_max);
    }
    probed.ended = Instant::now();
    probed.took = probed.ended - begun;
    note(&mut span, check, &probed);
    probed
}

/// What a probe was of, and what it came to.
fn note(span: &mut Span, check: &Check, probed: &Probed) {
    span.note("rollcall.check.kind", || check.kind.type_word().into());
    span.note("rollcall.check.id", || check.key().to_string().into());
    if let Some(instance) = &check.instance {
        span.note("rollcall.instance.id", || instance.as_str().into());
    }
    span.note("rollcall.check.status", || probed.finding.status.as_str().into());
    if probed.finding.status == Status::Critical {
        span.fail(|| probed.finding.output.lines().next().unwrap_or_default().to_owned());
    }
}

async fn plain(kind: &CheckKind, tools: &Tools, traceparent: Option<&str>) -> Finding {
    match kind {
        CheckKind::Tcp { address, tls } => tcp::probe(address, tls.as_ref(), tools).await,
        CheckKind::Grpc { address, service, tls } => {
            grpc::probe(address, service, tls.as_ref(), tools, traceparent).await
        }
        CheckKind::H2Ping { address, tls } => h2ping::probe(address, tls.as_ref(), tools).await,
        kind => Finding::critical(format!("a {} check is not probed", kind.type_word())),
    }
}

/// Consul's words for a probe that took too long, and how long that is.
fn timed_out(kind: &CheckKind, timeout: Duration) -> String {
    let timeout = crate::model::duration::format(timeout);
    match kind {
        CheckKind::Tcp { address, .. } => format!("dial tcp {address}: i/o timeout ({timeout})"),
        CheckKind::Grpc { address, .. } => {
            format!("gRPC check {address}: context deadline exceeded ({timeout})")
        }
        CheckKind::H2Ping { address, .. } => {
            format!("HTTP2 ping {address}: context deadline exceeded ({timeout})")
        }
        kind => format!("the {} probe took longer than {timeout}", kind.type_word()),
    }
}

/// Cuts a text to a number of octets, at a character's border.
pub(super) fn cut(text: &mut String, max: usize) {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
}

impl From<Finding> for Probed {
    fn from(finding: Finding) -> Self {
        let (took, ended) = (Duration::ZERO, Instant::now());
        Self { finding, timed_out: false, stream: None, again: false, cut_off: false, took, ended }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::kept::Shelf;
    use super::super::tests::{http, tcp_check, tools};
    use super::*;
    use crate::telemetry::Metrics;

    #[tokio::test]
    async fn the_next_probe_uses_the_connection_that_was_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let check = tcp_check().with(|terms| {
            terms.kind = http(listener.local_addr().unwrap());
            terms.output_max = 70;
        });
        // One connection, on which two requests are answered.
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n".to_owned() + &"ä".repeat(30);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let (mut shelf, _notices) = Shelf::new(1, Arc::new(Metrics::default()));
        let target = shelf.join(&target(&check.kind).unwrap(), 1);
        for _ in 0..2 {
            let probed = probe(&check, shelf.borrow(&target, 1, Instant::now()), tools()).await;
            assert!(probed.finding.status == Status::Passing && !probed.again);
            assert!((69..=70).contains(&probed.finding.output.len()) && probed.finding.output.ends_with('ä'));
            shelf.take_back(&target, 1, probed.stream);
        }
        server.await.unwrap();
    }

    #[test]
    fn a_probe_has_a_host() {
        let tcp = |address: &str| CheckKind::Tcp { address: address.into(), tls: None };
        let mut url = http("127.0.0.1:1".parse().unwrap());
        for (text, wanted) in [("http://h.example:1/", "h.example"), ("https://[fd00::1]/x", "fd00::1")] {
            if let CheckKind::Http { url, .. } = &mut url {
                *url = text.to_owned();
            }
            assert_eq!(host(&url).as_deref(), Some(wanted));
        }
        assert_eq!(host(&tcp("192.0.2.1:80")).as_deref(), Some("192.0.2.1"));
        assert_eq!(host(&tcp("[fd00::1]:80")).as_deref(), Some("fd00::1"));
        assert_eq!(host(&CheckKind::Script { args: vec![] }), None);
    }

    #[tokio::test]
    async fn what_takes_too_long_says_so() {
        // Nobody accepts and the queue is full: the kernel answers nothing.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        let _queued = tokio::net::TcpStream::connect(address).await.unwrap();
        let check = tcp_check().with(|terms| {
            terms.kind = http(address);
            terms.timeout = Duration::from_millis(50);
        });
        let probed = probe(&check, None, tools()).await;
        assert!(probed.timed_out && probed.took >= check.timeout);
        assert!(probed.finding.output.contains("context deadline exceeded"), "{}", probed.finding.output);
        let timeout = Duration::from_secs(5);
        for (kind, text) in [
            (CheckKind::Tcp { address: "h:1".into(), tls: None }, "dial tcp h:1: i/o timeout (5s)"),
            (
                CheckKind::Grpc { address: "h:1".into(), service: String::new(), tls: None },
                "gRPC check h:1: context deadline exceeded (5s)",
            ),
            (
                CheckKind::H2Ping { address: "h:1".into(), tls: None },
                "HTTP2 ping h:1: context deadline exceeded (5s)",
            ),
        ] {
            assert_eq!(timed_out(&kind, timeout), text);
        }
    }
}
