//! The keys of an auth method that stand at a URL (RFC 7517): fetched over HTTPS when they are first needed, kept, and fetched again
//! when a token names one that is not there, but not more often than [`AGAIN_AFTER`]: a stranger who names a new key in every
//! token must not make us knock. No redirect is followed.

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
use crate::tls::ApiTls;

/// How long a fetch may take in all.
const WITHIN: Duration = Duration::from_secs(5);
/// How soon a set is fetched again, whatever is asked.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long keys are believed that nobody missed.
const FRESH_FOR: Duration = Duration::from_secs(600);
const OCTETS_MAX: usize = 256 * 1024;
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
    pub(super) async fn keys(&self, url: &str, ca: &str, token: &Parts<'_>) -> Result<Vec<Key>, String> {
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
            let fetched = tokio::time::timeout(WITHIN, fetch(url, ca)).await;
            match fetched.unwrap_or_else(|_| Err(format!("{url} does not answer within {WITHIN:?}"))) {
                Ok(keys) => (set.keys, set.fetched) = (keys, Some(Instant::now())),
                // What is known goes on counting; a server of keys that is away locks nobody out.
                Err(reason) if set.fetched.is_some() => tracing::warn!("keys are not fetched anew: {reason}"),
                Err(reason) => return Err(reason),
            }
        }
        match set.fetched {
            Some(_) => Ok(set.keys.clone()),
            None => Err(format!("{url} was asked a moment ago and did not give them")),
        }
    }
}

async fn fetch(url: &str, ca: &str) -> Result<Vec<Key>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{url}: {e}");
    let parsed = Url::parse(url).map_err(|e| failed(&e))?;
    let host =
        parsed.host_str().filter(|_| parsed.scheme() == "https").ok_or_else(|| failed(&"it is not https"))?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let port = parsed.port().unwrap_or(443);
    let tls = ApiTls::trusting(ca).map_err(|e| failed(&e))?;
    let stream = TcpStream::connect((name, port)).await.map_err(|e| failed(&e))?;
    let stream = tls.stream(stream, name).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let path = &parsed[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &parsed[url::Position::BeforeHost..url::Position::AfterPort];
    let request = Request::builder().uri(path).header("host", authority).header("accept", "application/json");
    let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| failed(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
    if answer.status() != hyper::StatusCode::OK {
        return Err(failed(&format!("it answers {}", answer.status())));
    }
    let body = Limited::new(answer.into_body(), OCTETS_MAX).collect().await.map_err(|e| failed(&e))?;
    Key::from_jwks(&body.to_bytes()).map_err(|e| failed(&e))
}
