//! How requests fail: a status and one plain line, as Consul's agents answer.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::acl::Denied;
use crate::model::NameError;
use crate::model::address::AddressError;
use crate::registry::Refused;

/// The text of a refusal, for the audit log.
#[derive(Debug, Clone)]
pub(super) struct Why(pub(super) String);

/// A refusal: its status and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// Of a 429: after how many seconds to come again.
    pub(super) again: u64,
}

impl Error {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), again: 1 }
    }

    /// 429, with the time after which to come again (RFC 6585 section 4); whole seconds are told, at least one.
    pub(super) fn too_many(text: impl Into<String>, after: Duration) -> Self {
        let again = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Self { again: again.max(1), ..Self::new(StatusCode::TOO_MANY_REQUESTS, text) }
    }

    /// 400.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 404.
    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// 500, which Consul's clients get for what its servers (not its agents) find wrong.
    pub(super) fn server(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        let why = Why(self.text.clone());
        let mut response = (self.status, self.text).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, self.again.into());
        }
        response.extensions_mut().insert(why);
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let status = match &refused {
            Refused::UnknownInstance(_) | Refused::UnknownCheck(_) | Refused::NoSuchInstance(_) => {
                StatusCode::NOT_FOUND
            }
            // It looks as what is not there.
            Refused::Hidden(_) => StatusCode::NOT_FOUND,
            // Consul answers 500 here, and its clients match on the text.
            Refused::NotTtl(_)
            | Refused::UnknownNode(_)
            | Refused::UnknownQuery(_)
            | Refused::QueryName { .. }
            | Refused::QueryOfAll
            | Refused::Template(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Refused::UnknownService(_) | Refused::NoRoute(_) | Refused::NotThere { .. } => {
                StatusCode::NOT_FOUND
            }
            Refused::AclNotFound(_) => StatusCode::NOT_FOUND,
            Refused::AclInvalid(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Refused::Bootstrapped(_) | Refused::Denied(_) => StatusCode::FORBIDDEN,
            Refused::Ambiguous { .. }
            | Refused::FileOwned { .. }
            | Refused::Ours { .. }
            | Refused::RouteNow(_) => StatusCode::CONFLICT,
            // Room comes by time alone.
            Refused::Limit { key: "reporters_max", .. } => StatusCode::TOO_MANY_REQUESTS,
            Refused::Limit { .. } | Refused::Route(_) => StatusCode::BAD_REQUEST,
            Refused::Busy { .. } | Refused::TooManyWatchers { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refused::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refused.to_string())
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::new(StatusCode::FORBIDDEN, denied.to_string())
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<AddressError> for Error {
    fn from(error: AddressError) -> Self {
        Self::bad(format!("Invalid service address: {error}"))
    }
}
