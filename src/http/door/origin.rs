//! The id of each request: the client's `X-Request-Id`, or one of ours. The answer has it, and so does every log line that is
//! written for the request, so that what a client saw is found in the log.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::telemetry::origin::{Origin, RequestId};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of a request before it is looked at.
pub(in crate::http) fn of(request: &Request) -> Arc<Origin> {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = given.and_then(RequestId::parse).unwrap_or_else(|| RequestId::new(rand::random()));
    Arc::new(Origin::new(id))
}

/// Tells the client.
pub(in crate::http) fn tell(origin: &Origin, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::from_str(origin.id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
}
