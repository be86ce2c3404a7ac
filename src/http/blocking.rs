//! Blocking queries: a read that waits for its topic to change.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;

use super::State;
use super::door::parked;
use super::error::Error;
use super::listing::Listing;
use super::query::Params;
use super::route::json;
use crate::registry::{Snapshot, Topic};

/// How long a client waits that does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(300);
/// How long any client waits at most.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Answers a read: at once, or when the topic's index has passed the one that the client names.
pub(super) async fn answer<T: Serialize>(
    state: &State,
    params: &Params,
    topic: &Topic,
    build: impl FnOnce(&Snapshot) -> Result<T, Error>,
) -> Result<Response, Error> {
    let snapshot = waited(state, params, topic).await?;
    Ok(with_headers(json(&build(&snapshot)?), &snapshot, topic, params))
}

/// The same for a listing, which is written while it is sent.
pub(super) async fn list(
    state: &State,
    params: &Params,
    topic: &Topic,
    build: impl FnOnce(&Arc<Snapshot>) -> Listing,
) -> Result<Response, Error> {
    let snapshot = waited(state, params, topic).await?;
    let response = build(&snapshot).into_response().await;
    Ok(with_headers(response, &snapshot, topic, params))
}

/// The snapshot to answer from, when it is time.
pub(super) async fn waited(state: &State, params: &Params, topic: &Topic) -> Result<Arc<Snapshot>, Error> {
    params.check_read(&state.config.load().datacenter)?;
    let (index, wait) = params.blocking()?;
    let mut view = params.asker.view.clone();
    let mut snapshot = state.registry.snapshot();
    if index > 0 {
        let (topic, wait) = (topic.seen_by(&view), with_jitter(wait, rand::random()));
        parked::will_take_long();
        snapshot = tokio::select! {
            woken = state.registry.wait(&topic, index, wait) => woken?,
            () = state.shutdown.cancelled() => state.registry.snapshot(),
        };
        view = params.asker.again(state)?;
    }
    Ok(snapshot.seen_by(&view, topic))
}

/// The wait that counts: at most the maximum, and up to a sixteenth longer, so that clients that came
/// together do not come back together. `chance` is any number.
pub(super) fn with_jitter(wait: Option<Duration>, chance: u32) -> Duration {
    let wait = wait.filter(|wait| !wait.is_zero()).unwrap_or(WAIT_DEFAULT).min(WAIT_MAX);
    wait + (wait / 16).mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

/// Adds what Consul says of a read.
pub(super) fn with_headers(
    mut response: Response,
    snapshot: &Snapshot,
    topic: &Topic,
    params: &Params,
) -> Response {
    put_headers(response.headers_mut(), snapshot.index_of(topic), params.consistency());
    let response = params.asker.filtered(response, snapshot.hides());
    cache_headers(response, params)
}

pub(super) fn put_headers(headers: &mut HeaderMap, index: u64, consistency: &'static str) {
    headers.insert("x-consul-index", HeaderValue::from(index));
    headers.insert("x-consul-lastcontact", HeaderValue::from_static("0"));
    headers.insert("x-consul-knownleader", HeaderValue::from_static("true"));
    headers.insert("x-consul-query-backend", HeaderValue::from_static("blocking-query"));
    headers.insert("x-consul-effective-consistency", HeaderValue::from_static(consistency));
}

/// What `?cached` asks for. We answer from memory that is always current: what an agent's cache would give is a hit of age 0.
pub(super) fn cache_headers(mut response: Response, params: &Params) -> Response {
    if params.has("cached") {
        let headers = response.headers_mut();
        headers.insert("x-cache", HeaderValue::from_static("HIT"));
        headers.insert(header::AGE, HeaderValue::from_static("0"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_capped_and_up_to_a_sixteenth_longer() {
        let secs = Duration::from_secs;
        for (wait, chance, expected) in [
            (None, 0, secs(300)),
            (Some(Duration::ZERO), 0, secs(300)),
            (Some(secs(16)), 0, secs(16)),
            (Some(secs(16)), u32::MAX, secs(17)),
            (Some(secs(6000)), 0, secs(600)),
        ] {
            assert_eq!(with_jitter(wait, chance), expected);
        }
    }
}
