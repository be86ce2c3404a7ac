//! What all routes share: methods that a path does not have, ids in paths, bodies, and the finish of every answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request, State as Extract};
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::State;
use super::door::request_log::Logged;
use super::door::wrap::{self, Wishes};
use super::door::{guard, origin};
use super::error::Error;
use crate::telemetry::metrics::FAMILY;
use crate::telemetry::origin::{Origin, at_once, within};
use crate::telemetry::trace::Span;

/// A path that is read: GET, HEAD and OPTIONS.
pub(super) fn get<H, T>(handler: H) -> MethodRouter<Arc<State>>
where
    H: Handler<T, Arc<State>>,
    T: 'static,
{
    with_rest(axum::routing::get(handler), "OPTIONS,GET")
}

/// A path that is written: PUT and OPTIONS.
pub(super) fn put<H, T>(handler: H) -> MethodRouter<Arc<State>>
where
    H: Handler<T, Arc<State>>,
    T: 'static,
{
    with_rest(axum::routing::put(handler), "OPTIONS,PUT")
}

/// OPTIONS, and 405 for all other methods.
pub(super) fn with_rest(methods: MethodRouter<Arc<State>>, allow: &'static str) -> MethodRouter<Arc<State>> {
    let allowed = move || [(header::ALLOW, allow)];
    let other = move |method: Method| async move { method_not_allowed(&method, allow) };
    methods.options(move || async move { allowed() }).fallback(other)
}

/// 405, with the methods that there are.
pub(super) fn method_not_allowed(method: &Method, allow: &'static str) -> Response {
    let error = Error::new(StatusCode::METHOD_NOT_ALLOWED, format!("method {method} not allowed"));
    ([(header::ALLOW, allow)], error).into_response()
}

/// The rest of the path behind a route's fixed part, decoded once: ids may hold an encoded (or plain) `/`. Empty when there
/// is none.
pub(super) struct Rest(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Rest {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let matched = MatchedPath::from_request_parts(parts, state).await;
        let matched = matched.map_err(|_| Error::server("the request matched no route"))?;
        let fixed = matched.as_str().split('{').next().unwrap_or_default();
        let rest = parts.uri.path().strip_prefix(fixed).unwrap_or_default();
        let decoded = percent_decode_str(rest).decode_utf8();
        decoded.map(|text| Self(text.into_owned())).map_err(|_| Error::bad("the path is not UTF-8"))
    }
}

/// The whole body, within the limits on size and time.
pub(super) struct Whole(pub(super) Bytes);

impl FromRequest<Arc<State>> for Whole {
    type Rejection = Error;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Self, Error> {
        let config = state.config.load_full();
        let max = config.body_octets_max;
        let too_large = || {
            state.metrics.limits.hit("body_max");
            let text = format!("Request body too large, max size: {max} bytes ([http] body_max)");
            Error::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        };
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        if length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > max as u64) {
            return Err(too_large());
        }
        let collected = Limited::new(request.into_body(), max).collect();
        match tokio::time::timeout(config.body_wait, collected).await {
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Ok(Err(e)) => Err(Error::bad(format!("the body could not be read: {e}"))),
            Err(_) => {
                state.metrics.http.refused("slow body");
                let text =
                    format!("the body did not arrive within {:?} ([http] body_wait)", config.body_wait);
                Err(Error::new(StatusCode::REQUEST_TIMEOUT, text))
            }
        }
    }
}

/// An answer with nothing in it, and what the client should know.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) warnings: Vec<String>,
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        let mut response = ([(header::CONTENT_TYPE, "application/json")], Body::empty()).into_response();
        // One line, however many there are: a client that registers every minute must not fill the log.
        if let Some(first) = self.warnings.first() {
            tracing::warn!(more = self.warnings.len() - 1, "{first}");
        }
        let more = self.warnings.len().saturating_sub(WARNINGS_MAX);
        let shown = self.warnings.into_iter().take(WARNINGS_MAX).map(|warning| in_header(&warning));
        for text in shown.chain((more > 0).then(|| format!("and {more} more"))) {
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().append("x-rollcall-warning", value);
            }
        }
        response
    }
}

/// Warnings that one answer's head has room for: clients bound it at some thousand octets.
const WARNINGS_MAX: usize = 4;
const WARNING_OCTETS_MAX: usize = 512;

/// A text that any client can read from a header: ASCII alone (RFC 9110 section 5.5), and not too long.
fn in_header(text: &str) -> String {
    let plain = |c: char| c == ' ' || c.is_ascii_graphic();
    let mut shown = String::new();
    for c in text.chars() {
        let spelt = if plain(c) { c.to_string() } else { c.escape_unicode().to_string() };
        if shown.len() + spelt.len() > WARNING_OCTETS_MAX {
            return shown + " ...";
        }
        shown += &spelt;
    }
    shown
}

/// JSON without index headers.
pub(super) fn json(value: &impl Serialize) -> Response {
    Json(value).into_response()
}

/// What every request passes: whether it is let in, and the last step of every answer: the headers that all have, `?pretty`, gzip, and
/// the count. A request may wait for minutes in here, so what is only needed before and after has no room in this future.
pub(super) async fn finish(
    Extract(state): Extract<Arc<State>>,
    mut request: Request,
    next: Next,
) -> Response {
    let span = origin::span(&state, &request);
    let origin = origin::of(&state, &request, &span);
    let ending = Ending::of(&request, span);
    let let_in = at_once(origin.clone(), || guard::let_in(&state, &mut request));
    let answer = match let_in {
        Ok(()) => within(origin.clone(), next.run(request)).await,
        Err(error) => error.into_response(),
    };
    Box::pin(within(origin.clone(), ending.of_answer(&state, &origin, answer))).await
}

/// How a request's answer is to end.
struct Ending {
    begun: Instant,
    span: Span,
    log: Option<Logged>,
    wishes: Wishes,
    family: &'static str,
}

impl Ending {
    fn of(request: &Request, span: Span) -> Box<Self> {
        let query = request.uri().query().unwrap_or_default();
        let pretty = query.split('&').any(|pair| pair == "pretty" || pair.starts_with("pretty="));
        Box::new(Self {
            begun: Instant::now(),
            span,
            log: Logged::begin(request),
            wishes: Wishes { pretty, gzip: wrap::takes_gzip(request.headers()) },
            family: family(request.uri().path()),
        })
    }

    async fn of_answer(
        mut self: Box<Self>,
        state: &State,
        origin: &Arc<Origin>,
        mut answer: Response,
    ) -> Response {
        let headers = answer.headers_mut();
        let policy = if state.registry.default_is_allow() { "allow" } else { "deny" };
        headers.insert("x-consul-default-acl-policy", HeaderValue::from_static(policy));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer = wrap::wrap(answer, self.wishes).await;
        if let Some(log) = self.log {
            log.answered(answer.status().as_u16());
        }
        // A 503 that tells of somebody's health is no failure of ours.
        let tells = answer.headers().contains_key("x-consul-reason");
        let status = if tells { StatusCode::OK } else { answer.status() };
        state.metrics.http.answered(self.family, status.as_u16(), self.begun.elapsed());
        origin::audit(state, origin, &answer);
        origin::tell(origin, answer.headers_mut());
        origin::end(&mut self.span, origin, &answer);
        answer
    }
}

/// The first parts of a path, from a fixed set.
fn family(path: &str) -> &'static str {
    FAMILY.values.iter().find(|family| path.starts_with(**family)).unwrap_or(&"other")
}
