//! Where a redirect leads, by the rules of Go's HTTP client (RFC 9110 section 15.4). Pure.

use bytes::Bytes;
use hyper::header::LOCATION;
use hyper::{Method, Response};
use url::Url;

use super::http::Hop;

/// The request that a response redirects to; `None` when the response is the answer. `Err` says why it leads nowhere.
pub(super) fn next<B>(hop: &Hop, response: &Response<B>) -> Result<Option<Hop>, String> {
    let keeps_method = match response.status().as_u16() {
        301..=303 => false,
        307 | 308 => true,
        _ => return Ok(None),
    };
    // Not every 3xx names a place; such a one is the answer.
    let Some(location) = response.headers().get(LOCATION).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let location = location.to_str().map_err(|_| format!("failed to parse Location header {location:?}"))?;
    let url = hop
        .url
        .join(location)
        .map_err(|error| format!("failed to parse Location header {location:?}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("unsupported protocol scheme {:?}", url.scheme()));
    }
    let (method, body) = match &hop.method {
        method if keeps_method => (method.clone(), hop.body.clone()),
        &Method::HEAD => (Method::HEAD, Bytes::new()),
        _ => (Method::GET, Bytes::new()),
    };
    let relative = Url::parse(location).is_err();
    let trusted = hop.trusted && url.host_str() == hop.url.host_str();
    Ok(Some(Hop { url, method, body, own_host: hop.own_host && relative, trusted }))
}
