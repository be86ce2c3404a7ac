//! The keys of an auth method that stand at a URL (RFC 7517): fetched over HTTPS when they are first needed, kept, and fetched again
//! when a token names one that is not there, but not more often than [`AGAIN_AFTER`]: a stranger who names a new key in every
//! token must not make us knock. A server that is short of something, or lost the connection, is asked again within the same time. No redirect is followed, and each address is [judged](Targets::judge_keys) before it is connected to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use url::Url;

use crate::acl::jwt::{Key, Parts};
use crate::model::Targets;
use crate::model::targets::Denied;
use crate::pace::Retries;
use crate::telemetry::Metrics;
use crate::telemetry::origin;
use crate::telemetry::trace::{Kind, Span};
use crate::tls::ApiTls;

/// How long a fetch may take in all, one try of it, and the connection to one address.
const WITHIN: Duration = Duration::from_secs(5);
const TRY_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const RETRIES: Retries =
    Retries { tries: 3, pause: Duration::from_millis(200), pause_max: Duration::from_secs(1) };
/// Whom it calls, in metrics.
const TO: &str = "keys";
/// How soon a set is fetched again, whatever is asked.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long keys are believed that nobody missed.
const FRESH_FOR: Duration = Duration::from_secs(600);
const OCTETS_MAX: usize = 256 * 1024;
/// Addresses of its server that are tried.
const ADDRESSES_MAX: usize = 8;
/// Sets that are kept; of more, all are fetched anew.
const SETS_MAX: usize = 64;

/// Where a set is, and the authorities that are trusted there.
type Place = (String, String);

/// All sets that were fetched.
#[derive(Default)]
pub struct Jwks {
    sets: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<Set>>>>,
}

#[derive(Default)]
struct Set {
    keys: Vec<Key>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

impl Jwks {
    /// The keys at a URL for this token. Errs with the reason when there are none at all.
    pub(super) async fn keys(
        &self,
        (url, ca): (&str, &str),
        token: &Parts<'_>,
        targets: &Targets,
        metrics: &Metrics,
    ) -> Result<Vec<Key>, String> {
        let set = {
            let mut sets = self.sets.lock();
            if sets.len() >= SETS_MAX && !sets.contains_key(&(url.to_owned(), ca.to_owned())) {
                sets.clear();
            }
            sets.entry((url.to_owned(), ca.to_owned())).or_default().clone()
        };
        // Those who come meanwhile wait for the one fetch.
        let mut set = set.lock().await;
        let over = |at: Option<Instant>, time| at.is_none_or(|at| at.elapsed() >= time);
        if (over(set.fetched, FRESH_FOR) || token.wants_other(&set.keys)) && over(set.tried, AGAIN_AFTER) {
            set.tried = Some(Instant::now());
            let fetched = tokio::time::timeout(WITHIN, fetch_again(url, ca, targets, metrics)).await;
            match fetched.unwrap_or_else(|_| Err(format!("{url} does not answer within {WITHIN:?}"))) {
                Ok(keys) => (set.keys, set.fetched) = (keys, Some(Instant::now())),
                // What is known goes on counting; a server of keys that is away locks nobody out.
                Err(reason) if set.fetched.is_some() => tracing::warn!("keys are not fetched anew: {reason}"),
                Err(reason) => return Err(reason),
            }
        }
        match set.fetched {
            Some(_) => Ok(set.keys.clone()),
            None => {
                metrics.outbound.withheld(TO);
                Err(format!("{url} was asked a moment ago and did not give them"))
            }
        }
    }
}

/// Why there are no keys, and whether that may be otherwise in a moment.
struct Failed {
    why: String,
    again: bool,
}

/// Fetches, again where that may help; as a part of the request that needs the keys.
async fn fetch_again(url: &str, ca: &str, targets: &Targets, metrics: &Metrics) -> Result<Vec<Key>, String> {
    let request = origin::current();
    let child = |origin: &Arc<origin::Origin>| origin.span.child("keys.fetch", Kind::Client);
    let mut span = request.as_ref().map(child).unwrap_or_default();
    span.note("url.full", || url.into());
    for tried in 1.. {
        let fetched = tokio::time::timeout(TRY_WITHIN, fetch(url, ca, targets, &span)).await;
        let late =
            |_| Err(Failed { why: format!("{url} does not answer within {TRY_WITHIN:?}"), again: true });
        let Failed { why, again } = match fetched.unwrap_or_else(late) {
            Ok(keys) => return Ok(keys),
            Err(failed) => failed,
        };
        let Some(pause) = RETRIES.pause(tried, rand::random()).filter(|_| again) else {
            span.fail(|| why.clone());
            return Err(why);
        };
        tokio::time::sleep(pause).await;
        metrics.outbound.retried(TO);
    }
    Err(format!("{url} was asked often enough"))
}

async fn fetch(url: &str, ca: &str, targets: &Targets, span: &Span) -> Result<Vec<Key>, Failed> {
    let failed = |e: &dyn std::fmt::Display| Failed { why: format!("{url}: {e}"), again: false };
    let lost = |e: &dyn std::fmt::Display| Failed { again: true, ..failed(e) };
    let parsed = Url::parse(url).map_err(|e| failed(&e))?;
    let host =
        parsed.host_str().filter(|_| parsed.scheme() == "https").ok_or_else(|| failed(&"it is not https"))?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let port = parsed.port().unwrap_or(443);
    let tls = ApiTls::trusting(ca).map_err(|e| failed(&e))?;
    let stream =
        connect(name, port, targets).await.map_err(|(why, again)| Failed { again, ..failed(&why) })?;
    let stream = tls.stream(stream, name).await.map_err(|why| Failed { why, again: false })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost(&e))?;
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let path = &parsed[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &parsed[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request =
        Request::builder().uri(path).header("host", authority).header("accept", "application/json");
    if let Some(told) = span.carried() {
        request = request.header("traceparent", told.context.to_string());
        request = told.state.iter().fold(request, |request, state| request.header("tracestate", &**state));
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| failed(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| lost(&e))?;
    if answer.status() != hyper::StatusCode::OK {
        // RFC 9110 sections 15.5 and 15.6: what another moment may change.
        let again = matches!(answer.status().as_u16(), 429 | 500 | 502 | 503 | 504);
        return Err(Failed { again, ..failed(&format!("it answers {}", answer.status())) });
    }
    let body = Limited::new(answer.into_body(), OCTETS_MAX).collect().await.map_err(|e| lost(&e))?;
    Key::from_jwks(&body.to_bytes()).map_err(|e| failed(&e))
}

/// What is connected to is the address that was judged: the name is looked up once. Errs with the reason, and whether another moment
/// may change it.
async fn connect(name: &str, port: u16, targets: &Targets) -> Result<TcpStream, (String, bool)> {
    let found = tokio::net::lookup_host((name, port)).await.map_err(|e| (e.to_string(), true))?;
    let mut failed = (format!("{name} has no address"), false);
    for address in found.take(ADDRESSES_MAX) {
        if let Err(Denied(why)) = targets.judge_keys(address.ip()) {
            failed.0 = format!("keys may not be fetched there: {why}");
            continue;
        }
        match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = (format!("{address}: {error}"), true),
            Err(_) => failed = (format!("{address}: no connection within {CONNECT_WITHIN:?}"), true),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why it is not fetched, which no other moment changes.
    async fn why(url: &str, targets: &Targets) -> String {
        let failed = fetch(url, "", targets, &Span::default()).await.err().unwrap();
        assert!(!failed.again, "{}", failed.why);
        failed.why
    }

    #[tokio::test]
    async fn what_may_not_be_reached_is_not_and_names_the_range() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ranges = ["127.0.0.0/8", "::1/128"].map(|range| range.parse().unwrap());
        let denying = Targets { deny: ranges.to_vec(), ..Targets::default() };
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
            let why = why(&format!("https://{host}:{port}/keys"), &denying).await;
            assert!(why.contains("keys may not be fetched there: ") && why.contains("deny_targets"), "{why}");
        }
        for host in ["169.254.169.254", "[fd00:42::42]", "[64:ff9b::a9fe:a9fe]"] {
            let why = why(&format!("https://{host}/keys"), &Targets::default()).await;
            assert!(why.contains("where clouds keep credentials"), "{why}");
        }
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock,
            "nobody has connected"
        );
        assert!(why("http://127.0.0.1/keys", &denying).await.contains("not https"));
    }
}
