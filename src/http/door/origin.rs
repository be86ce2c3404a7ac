//! The id of each request: the client's `X-Request-Id`, or one of ours. The answer has it, and so does every log line that is
//! written for the request, so that what a client saw is found in the log. With an audit log, also who asked, and what.

use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;

use super::caller::Peer;
use super::request_log::shown_path;
use crate::audit::{Cause, Entry, Outcome};
use crate::http::State;
use crate::http::error::Why;
use crate::telemetry::origin::{Asked, Origin, RequestId};
use crate::telemetry::trace::{Carried, Kind, Span};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of a request before it is looked at.
pub(in crate::http) fn of(state: &State, request: &Request, span: &Span) -> Arc<Origin> {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = given.and_then(RequestId::parse).unwrap_or_else(|| RequestId::new(rand::random()));
    let mut origin = Origin::new(id);
    origin.client = request.extensions().get::<ConnectInfo<Peer>>().map(|peer| peer.0.remote);
    origin.span = span.parent();
    if state.audit.is_on() {
        let method = request.method();
        origin.certificate = request.extensions().get::<Certificate>().map(|known| known.0.clone());
        origin.asked = changes(method)
            .then(|| Asked { method: method.as_str().into(), path: shown_path(request.uri().path()).into() });
    }
    Arc::new(origin)
}

/// The span of a request: a part of its caller's trace where it names one (`traceparent`, `tracestate`).
pub(in crate::http) fn span(state: &State, request: &Request) -> Span {
    if !state.traces.is_on() {
        return Span::default();
    }
    // A value that is no text is a bad one.
    let given = |name| request.headers().get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    let caller = Carried::parse(given("traceparent"), given("tracestate"));
    let mut span = state.traces.start("request", Kind::Server, caller);
    let method = request.method().as_str();
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        span.rename(|| format!("{method} {}", route.as_str()));
        span.note("http.route", || route.as_str().into());
    }
    span.note("http.request.method", || method.into());
    span.note("url.path", || shown_path(request.uri().path()).into());
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<Peer>>() {
        span.note("client.address", || peer.address().to_string().into());
    }
    span
}

/// What the request came to.
pub(in crate::http) fn end(span: &mut Span, origin: &Origin, answer: &Response) {
    let status = answer.status();
    span.note("http.response.status_code", || i64::from(status.as_u16()).into());
    span.note("rollcall.request_id", || origin.id.as_str().into());
    if status.is_server_error() {
        span.fail(|| {
            answer.extensions().get::<Why>().map_or_else(|| status.to_string(), |why| why.0.clone())
        });
    }
}

/// Whom a client's certificate is of; with each request of its connection.
#[derive(Debug, Clone)]
pub(in crate::http) struct Certificate(pub(in crate::http) Arc<str>);

/// Whether a request of this method may change something.
fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What has an effect that is no change of anything that could be shown.
const EFFECTS: [&str; 2] = ["/v1/agent/leave", "/v1/agent/reload"];

/// Tells the audit log of what the registry's writer never saw: a request that was refused before, and what changes no
/// record.
pub(in crate::http) fn audit(state: &State, origin: &Arc<Origin>, answer: &Response) {
    let Some(asked) = origin.asked.as_ref().filter(|_| state.audit.is_on() && !origin.is_told()) else {
        return;
    };
    let outcome = match answer.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Outcome::Denied,
        status if status.is_client_error() => Outcome::Refused,
        status if status.is_server_error() => Outcome::Error,
        _ if EFFECTS.contains(&&*asked.path) => Outcome::Allowed,
        // It changed nothing.
        _ => return,
    };
    let cause = Cause { origin: Some(origin.clone()), action: "request" };
    let why =
        answer.extensions().get::<Why>().map_or_else(|| answer.status().to_string(), |why| why.0.clone());
    let mut entry = Entry::failed(cause, None, outcome, why);
    entry.reason = entry.reason.filter(|_| outcome != Outcome::Allowed);
    state.audit.tell(entry);
}

/// Tells the client.
pub(in crate::http) fn tell(origin: &Origin, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::from_str(origin.id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
}
