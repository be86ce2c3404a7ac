//! One probe of any kind, within its time.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::http::{self, Asked};
use super::kept::{Kept, Stream};
use super::probe::{Finding, Tools};
use super::{grpc, h2ping, script, tcp, udp};
use crate::model::{Check, CheckKind};

/// What one probe came to, and what is left of it.
pub(super) struct Probed {
    pub(super) finding: Finding,
    pub(super) timed_out: bool,
    /// A connection that can be used again.
    pub(super) stream: Option<Stream>,
    /// The kept connection had broken and a fresh one was used.
    pub(super) again: bool,
    pub(super) took: Duration,
}

/// For definitions without a timeout; Consul's.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// Probes once. Dropping the future ends the probe and all it began.
pub(super) async fn probe(check: &Check, kept: Option<Kept>, tools: &Tools) -> Probed {
    let begun = Instant::now();
    let timeout = if check.timeout.is_zero() { TIMEOUT_DEFAULT } else { check.timeout };
    let mut probed = match &check.kind {
        CheckKind::Http { url, method, header, body, follow_redirects, tls } => {
            let kept = match kept {
                Some(kept) => kept.take().await,
                None => None,
            };
            let (follow_redirects, output_max) = (*follow_redirects, check.output_max);
            let asked = Asked { url, method, header, body, follow_redirects, tls, output_max };
            let answered = http::probe(&asked, kept, tools, begun + timeout).await;
            let http::Answered { finding, stream, again, timed_out } = answered;
            Probed { finding, timed_out, stream, again, took: Duration::ZERO }
        }
        // Ends its processes itself.
        CheckKind::Script { args } => Probed::from(script::probe(args, timeout, tools).await),
        kind => match timeout_at(begun + timeout, plain(kind, tools)).await {
            Ok(finding) => Probed::from(finding),
            Err(_) => Probed { timed_out: true, ..Probed::from(Finding::critical(timed_out(kind, timeout))) },
        },
    };
    cut(&mut probed.finding.output, check.output_max);
    probed.took = begun.elapsed();
    probed
}

async fn plain(kind: &CheckKind, tools: &Tools) -> Finding {
    match kind {
        CheckKind::Tcp { address, tls } => tcp::probe(address, tls.as_ref(), tools).await,
        CheckKind::Udp { address } => udp::probe(address, tools).await,
        CheckKind::Grpc { address, service, tls } => grpc::probe(address, service, tls.as_ref(), tools).await,
        CheckKind::H2Ping { address, tls } => h2ping::probe(address, tls.as_ref(), tools).await,
        kind => Finding::critical(format!("a {} check is not probed", kind.type_word())),
    }
}

/// Consul's words for a probe that took too long, and how long that is.
fn timed_out(kind: &CheckKind, timeout: Duration) -> String {
    let timeout = crate::model::duration::format(timeout);
    match kind {
        CheckKind::Tcp { address, .. } => format!("dial tcp {address}: i/o timeout ({timeout})"),
        CheckKind::Udp { address } => format!("dial udp {address}: i/o timeout ({timeout})"),
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
        Self { finding, timed_out: false, stream: None, again: false, took: Duration::ZERO }
    }
}
