//! The keys of an auth method that stand at a URL (RFC 7517): fetched over HTTPS when they are first needed, kept, and fetched again
//! when a token names one that is not there, but not more often than [`AGAIN_AFTER`]: a stranger who names a new key in every
//! token must not make us knock. No redirect is followed, and each address is [judged](Targets::judge_keys) before it is connected to.

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
use crate::tls::ApiTls;

/// How long a fetch may take in all.
const WITHIN: Duration = Duration::from_secs(5);
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
            let fetched = tokio::time::timeout(WITHIN, fetch(url, ca, targets)).await;
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

async fn fetch(url: &str, ca: &str, targets: &Targets) -> Result<Vec<Key>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{url}: {e}");
    let parsed = Url::parse(url).map_err(|e| failed(&e))?;
    let host =
        parsed.host_str().filter(|_| parsed.scheme() == "https").ok_or_else(|| failed(&"it is not https"))?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let port = parsed.port().unwrap_or(443);
    let tls = ApiTls::trusting(ca).map_err(|e| failed(&e))?;
    let stream = connect(name, port, targets).await.map_err(|e| failed(&e))?;
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

/// What is connected to is the address that was judged: the name is looked up once.
async fn connect(name: &str, port: u16, targets: &Targets) -> Result<TcpStream, String> {
    let found = tokio::net::lookup_host((name, port)).await.map_err(|e| e.to_string())?;
    let mut failed = format!("{name} has no address");
    for address in found.take(ADDRESSES_MAX) {
        if let Err(Denied(why)) = targets.judge_keys(address.ip()) {
            failed = format!("keys may not be fetched there: {why}");
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = format!("{address}: {error}"),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_not_be_reached_is_not_and_names_the_range() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ranges = ["127.0.0.0/8", "::1/128"].map(|range| range.parse().unwrap());
        let denying = Targets { deny: ranges.to_vec(), ..Targets::default() };
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
            let why = fetch(&format!("https://{host}:{port}/keys"), "", &denying).await.unwrap_err();
            assert!(why.contains("keys may not be fetched there: ") && why.contains("deny_targets"), "{why}");
        }
        for host in ["169.254.169.254", "[fd00:42::42]", "[64:ff9b::a9fe:a9fe]"] {
            let why = fetch(&format!("https://{host}/keys"), "", &Targets::default()).await.unwrap_err();
            assert!(why.contains("where clouds keep credentials"), "{why}");
        }
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock,
            "nobody has connected"
        );
        assert!(fetch("http://127.0.0.1/keys", "", &denying).await.unwrap_err().contains("not https"));
    }
}
