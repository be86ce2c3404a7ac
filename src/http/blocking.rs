//! Blocking queries: a read that waits for its topic to change.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde::Serialize;

use super::State;
use super::error::Error;
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
    params.check_read(&state.config.load().datacenter)?;
    let (index, wait) = params.blocking()?;
    let mut view = params.asker.view.clone();
    let snapshot = if index == 0 {
        state.registry.snapshot()
    } else {
        let wait = with_jitter(wait, rand::random());
        let snapshot = tokio::select! {
            woken = state.registry.wait(topic, index, wait) => woken?,
            () = state.shutdown.cancelled() => state.registry.snapshot(),
        };
        view = params.asker.again(state)?;
        snapshot
    };
    let (seen, hidden) = snapshot.seen_by(&view, topic);
    let mut response = params.asker.filtered(json(&build(&seen)?), hidden);
    put_headers(response.headers_mut(), snapshot.index_of(topic), params.consistency());
    Ok(response)
}

/// The wait that counts: at most the maximum, and up to a sixteenth longer, so that clients that came
/// together do not come back together. `chance` is any number.
pub(super) fn with_jitter(wait: Option<Duration>, chance: u32) -> Duration {
    let wait = wait.filter(|wait| !wait.is_zero()).unwrap_or(WAIT_DEFAULT).min(WAIT_MAX);
    wait + (wait / 16).mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

fn put_headers(headers: &mut HeaderMap, index: u64, consistency: &'static str) {
    headers.insert("x-consul-index", HeaderValue::from(index));
    headers.insert("x-consul-lastcontact", HeaderValue::from_static("0"));
    headers.insert("x-consul-knownleader", HeaderValue::from_static("true"));
    headers.insert("x-consul-query-backend", HeaderValue::from_static("blocking-query"));
    headers.insert("x-consul-effective-consistency", HeaderValue::from_static(consistency));
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
