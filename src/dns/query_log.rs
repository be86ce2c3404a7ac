//! The log of queries: one line a query, for whoever wants to know what a client really asks. Off unless asked for by
//! `[telemetry] log_level = "info,rollcall::dns::query_log=trace"`; while it is off, it costs one comparison for each batch
//! of datagrams. At `trace`, so that `debug` for all leaves DNS as fast as it is.

use std::net::SocketAddr;

use tracing::level_filters::LevelFilter;

use super::request::{self, Malformed};
use super::respond::Transport;

/// Whether anybody may want to know: of whatever, at this level. Not `enabled!`: where several layers have a filter each, it
/// makes the next event pass by those that it asked in vain.
pub(super) fn is_wanted() -> bool {
    LevelFilter::current() >= LevelFilter::TRACE
}

/// Writes the line of one message as it came in; of one that cannot be read, that it came.
pub(super) fn note(message: &[u8], transport: Transport, client: SocketAddr) {
    let question = match request::read(message) {
        Ok(request) => Some(request.question),
        Err(Malformed::FormErr { question, .. }) => question,
        Err(_) => None,
    };
    let transport = match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
    };
    match question {
        Some(asked) => {
            let (name, kind) = (&asked.name, &asked.kind);
            tracing::trace!(dns.question.name = %name, dns.question.type = %kind, network.transport = transport, %client, "query");
        }
        None => tracing::trace!(octets = message.len(), network.transport = transport, %client, "no query"),
    }
}
