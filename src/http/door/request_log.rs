//! The request log: one line a request, for whoever wants to know what a client really asks. Off unless asked for by
//! `[telemetry] log_level = "info,rollcall::http::request_log=debug"`; while it is off, a request costs it one comparison.
//!
//! A line has no secret: the value of `token` is left out, and so is what a path names a token by, which is easily its secret. No body
//! and no other header is shown.

use std::net::SocketAddr;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request};
use axum::http::{Method, header};
use percent_encoding::percent_decode_str;
use tracing::Level;
use tracing::level_filters::LevelFilter;

use super::caller::Peer;

/// Of a path, a query or a User-Agent; what is longer is cut.
const SHOWN_OCTETS_MAX: usize = 2048;

/// A request under way, of which a line is written when it is answered, or when its client went without an answer.
pub(in crate::http) struct Logged {
    method: Method,
    path: String,
    query: String,
    agent: String,
    client: Option<SocketAddr>,
    begun: Instant,
    /// Absent when there was no answer.
    status: Option<u16>,
}

impl Logged {
    /// `None` when nobody wants to know.
    pub(in crate::http) fn begin(request: &Request) -> Option<Self> {
        // Not `enabled!`: where several layers have a filter each, it makes the next event pass by those that it asked in vain.
        if LevelFilter::current() < LevelFilter::DEBUG {
            return None;
        }
        let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Some(Self {
            method: request.method().clone(),
            path: shown_path(request.uri().path()),
            query: short(&without_secrets(request.uri().query().unwrap_or_default())),
            agent: short(agent.unwrap_or_default()),
            client: request.extensions().get::<ConnectInfo<Peer>>().map(|peer| peer.0.remote),
            begun: Instant::now(),
            status: None,
        })
    }

    pub(in crate::http) fn answered(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let address = self.client.map(|client| client.ip().to_canonical().to_string());
        let port = self.client.map(|client| client.port());
        let nanoseconds = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Field names of the Elastic Common Schema; what has no value is left out.
        tracing::event!(
            target: "rollcall::http::request_log",
            Level::DEBUG,
            http.request.method = %self.method,
            url.path = self.path,
            url.query = self.query,
            http.response.status_code = self.status,
            user_agent.original = self.agent,
            client.address = address,
            client.port = port,
            event.duration = nanoseconds,
            "request"
        );
    }
}

fn without_secrets(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        // As the parameters are read: a name may be written with percent signs.
        Some((key, _)) if percent_decode_str(key).decode_utf8_lossy().eq_ignore_ascii_case("token") => {
            "token=(hidden)"
        }
        _ => pair,
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// A path as logs, spans and the audit log show it. Which token it means is left out, though it should be an accessor: a secret
/// in its place looks the same, and some are taken for one.
pub(super) fn shown_path(path: &str) -> String {
    const TOKENS: &str = "/v1/acl/token/";
    let Some(below) = path.strip_prefix(TOKENS) else { return short(path) };
    let shown = below.split('/').map(|part| match part {
        "" | "self" | "clone" => part,
        _ => "(hidden)",
    });
    format!("{TOKENS}{}", short(&shown.collect::<Vec<_>>().join("/")))
}

fn short(text: &str) -> String {
    match text.char_indices().find(|(at, one)| at + one.len_utf8() > SHOWN_OCTETS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        assert_eq!(without_secrets("index=7&token=secret&wait=5m"), "index=7&token=(hidden)&wait=5m");
        assert_eq!(without_secrets("%74oken=secret"), "token=(hidden)");
        assert_eq!(without_secrets("Token=a=b&token="), "token=(hidden)&token=(hidden)");
        assert_eq!(without_secrets("passing&tag=token"), "passing&tag=token");
        assert_eq!(without_secrets(""), "");
    }

    #[test]
    fn a_path_does_not_show_what_may_be_a_secret() {
        for (path, shown) in [
            ("/v1/acl/token/5ec4e7", "/v1/acl/token/(hidden)"),
            ("/v1/acl/token/5ec4e7/clone", "/v1/acl/token/(hidden)/clone"),
            ("/v1/acl/token//5ec4e7/x/", "/v1/acl/token//(hidden)/(hidden)/"),
            ("/v1/acl/token/self", "/v1/acl/token/self"),
            ("/v1/acl/token/", "/v1/acl/token/"),
            ("/v1/acl/tokens", "/v1/acl/tokens"),
            ("/v1/acl/policy/p", "/v1/acl/policy/p"),
        ] {
            assert_eq!(shown_path(path), shown);
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        assert_eq!(short("\u{e4}bc"), "\u{e4}bc");
        assert_eq!(short(&"x".repeat(5000)).len(), SHOWN_OCTETS_MAX + 3);
        assert_eq!(
            short(&"\u{4e16}".repeat(5000)).len(),
            SHOWN_OCTETS_MAX / 3 * 3 + 3,
            "octets, and no half a character"
        );
    }
}
