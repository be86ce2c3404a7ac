//! HTTP checks: 2xx passing, 429 warning, all else critical. HTTP/1.1 over a connection of our own, which is kept for the
//! next probe.
//!
//! As Consul's: its user agent and accept header, redirects followed as Go's client does, and its words in the output.
//! A body is read as far as it is shown, so that a huge or endless one costs nothing; its connection is not used again.
//! No proxies: the environment of the server says nothing about the way to a target.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};

use super::connect::{self, Unreached};
use super::kept::Stream;
use super::probe::{Finding, Tools};
use super::redirect;
use crate::model::{ProbeTls, Status};

/// What an HTTP check asks for.
pub(super) struct Asked<'a> {
    pub(super) url: &'a str,
    pub(super) method: &'a str,
    pub(super) header: &'a BTreeMap<String, Vec<String>>,
    pub(super) body: &'a str,
    pub(super) follow_redirects: bool,
    pub(super) tls: &'a ProbeTls,
    /// Octets of the body that are wanted.
    pub(super) output_max: usize,
    /// The trace that the probe is a part of.
    pub(super) traceparent: Option<&'a str>,
}

/// What came of it.
pub(super) struct Answered {
    pub(super) finding: Finding,
    /// The connection to the check's own target, when it can be used again.
    pub(super) stream: Option<Stream>,
    /// A kept connection had broken, and the request was sent again on a fresh one.
    pub(super) again: bool,
    /// The target closed the connection behind an answer that did not say so.
    pub(super) cut_off: bool,
    pub(super) timed_out: bool,
}

/// One request: the check's own, or what a redirect made of it.
pub(super) struct Hop {
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) body: Bytes,
    /// Whether the check's own `Host` still stands.
    pub(super) own_host: bool,
    /// Whether headers that hold secrets are sent.
    pub(super) trusted: bool,
}

/// Octets of a redirect's body that are read to use its connection again.
const REDIRECT_BODY_MAX: usize = 2048;
const REDIRECTS_MAX: usize = 10;
/// Octets of a response's head.
const HEAD_OCTETS_MAX: usize = 64 << 10;
const USER_AGENT: HeaderValue = HeaderValue::from_static("Consul Health Check");
const ACCEPT: HeaderValue = HeaderValue::from_static("text/plain, text/*, */*");

/// Asks once, over the kept connection if there is one. The body may take until the deadline too; a status that came
/// in time counts even if its body did not.
pub(super) async fn probe(
    asked: &Asked<'_>,
    kept: Option<Stream>,
    tools: &Tools,
    deadline: Instant,
) -> Answered {
    let mut again = false;
    let failed =
        |finding, again, timed_out| Answered { finding, stream: None, again, cut_off: false, timed_out };
    match timeout_at(deadline, converse(asked, kept, tools, &mut again)).await {
        Err(_) => {
            let text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            failed(Finding::critical(go_error(asked.method, asked.url, text)), again, true)
        }
        Ok(Err(finding)) => failed(finding, again, false),
        Ok(Ok(Final { mut line, response, home })) => {
            let (status, shown) = (response.status(), status_line(&response));
            let goes_on = home && goes_on(&response);
            let mut text = Vec::new();
            let read = read(&mut line, response.into_body(), asked.output_max, &mut text);
            let whole = timeout_at(deadline, read).await.unwrap_or(false);
            let release = async { if whole && home { line.release().await } else { None } };
            let stream = timeout_at(deadline, release).await.ok().flatten();
            let text = String::from_utf8_lossy(&text);
            let output = format!("HTTP {} {}: {shown} Output: {text}", asked.method, asked.url);
            let (finding, cut_off) =
                (Finding::new(judge(status), output), whole && goes_on && stream.is_none());
            Answered { finding, stream, again, cut_off, timed_out: false }
        }
    }
}

fn judge(status: StatusCode) -> Status {
    match status {
        status if status.is_success() => Status::Passing,
        StatusCode::TOO_MANY_REQUESTS => Status::Warning,
        _ => Status::Critical,
    }
}

/// Whether the server means to keep the connection (RFC 9112 section 9.3).
fn goes_on(response: &Response<Incoming>) -> bool {
    let mut options = response.headers().get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    response.version() == Version::HTTP_11 && !options.any(|text| text.to_ascii_lowercase().contains("close"))
}

/// The status as the server wrote it, e.g. `200 OK`.
fn status_line(response: &Response<Incoming>) -> String {
    let status = response.status();
    let reason = match response.extensions().get::<hyper::ext::ReasonPhrase>() {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()),
        None => status.canonical_reason().unwrap_or_default().into(),
    };
    format!("{} {reason}", status.as_u16()).trim_end().to_owned()
}

/// Go's words: `Get "http://...": why`.
fn go_error(method: &str, url: &str, why: impl std::fmt::Display) -> String {
    let (first, rest) = method.split_at(method.len().min(1));
    format!("{}{} {url:?}: {why}", first.to_ascii_uppercase(), rest.to_ascii_lowercase())
}

/// The response that counts, with the connection that its body comes on.
struct Final {
    line: Line,
    response: Response<Incoming>,
    /// Whether the connection is to the check's own target.
    home: bool,
}

/// Asks, and follows redirects.
async fn converse(
    asked: &Asked<'_>,
    kept: Option<Stream>,
    tools: &Tools,
    again: &mut bool,
) -> Result<Final, Finding> {
    let critical = |url: &str, why: String| Finding::critical(go_error(asked.method, url, why));
    let url = Url::parse(asked.url).map_err(|e| critical(asked.url, e.to_string()))?;
    let method =
        Method::from_bytes(asked.method.as_bytes()).map_err(|e| critical(asked.url, e.to_string()))?;
    let (home, body) = (origin(&url), Bytes::copy_from_slice(asked.body.as_bytes()));
    let mut hop = Hop { url, method, body, own_host: true, trusted: true };
    let mut spare = None;
    if let Some(kept) = kept {
        let kept = connect::still(&address(&hop.url), kept, tools).await;
        spare = kept.map_err(|why| unreached(asked, &hop, why))?.map(|stream| (home.clone(), stream));
    }
    for _ in 0..=REDIRECTS_MAX {
        let at = origin(&hop.url);
        let reused = spare.take().filter(|(of, _)| *of == at).map(|(_, stream)| stream);
        let (mut line, response) = exchange(asked, &hop, reused, tools, again).await?;
        let next = if asked.follow_redirects { redirect::next(&hop, &response) } else { Ok(None) };
        match next.map_err(|why| critical(hop.url.as_str(), why))? {
            None => return Ok(Final { line, response, home: at == home }),
            Some(next) => {
                hop = next;
                let mut rest = Vec::new();
                if read(&mut line, response.into_body(), REDIRECT_BODY_MAX, &mut rest).await {
                    spare = line.release().await.map(|stream| (at, stream));
                }
            }
        }
    }
    Err(critical(hop.url.as_str(), format!("stopped after {REDIRECTS_MAX} redirects")))
}

/// What a connection to a URL is good for: scheme, host and port, and with whom TLS was spoken.
pub(super) fn target(url: &str, tls: &ProbeTls) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let ProbeTls { skip_verify, server_name } = tls;
    let origin = origin(&url);
    Some(if url.scheme() == "https" { format!("{origin} {skip_verify} {server_name}") } else { origin })
}

/// Scheme, host and port.
fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), address(url))
}

/// `host:port`.
fn address(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// One request and the head of its response. When a connection that was used before breaks before any answer, the
/// server closed it just then: the request is sent again on a fresh one, whatever its method.
async fn exchange(
    asked: &Asked<'_>,
    hop: &Hop,
    reused: Option<Stream>,
    tools: &Tools,
    again: &mut bool,
) -> Result<(Line, Response<Incoming>), Finding> {
    let failed = |why| unreached(asked, hop, why);
    let unheard = |error: &hyper::Error| failed(Unreached::new(words(error)));
    if let Some(stream) = reused {
        let mut line = Line::open(stream).await.map_err(|e| unheard(&e))?;
        match line.ask(request(asked, hop).map_err(failed)?).await {
            Ok(response) => return Ok((line, response)),
            Err(error) if error.is_parse() => return Err(unheard(&error)),
            Err(_) => *again = true,
        }
    }
    let stream = dial(asked, hop, tools).await.map_err(failed)?;
    let mut line = Line::open(stream).await.map_err(|e| unheard(&e))?;
    let response = line.ask(request(asked, hop).map_err(failed)?).await.map_err(|e| unheard(&e))?;
    Ok((line, response))
}

async fn dial(asked: &Asked<'_>, hop: &Hop, tools: &Tools) -> Result<Stream, Unreached> {
    let tls = (hop.url.scheme() == "https").then_some(asked.tls);
    Ok(Box::new(connect::open(&address(&hop.url), tls, &[b"http/1.1"], tools).await?))
}

/// Why a hop's target was not reached, in Go's words.
fn unreached(asked: &Asked<'_>, hop: &Hop, why: Unreached) -> Finding {
    let text = go_error(asked.method, hop.url.as_str(), &why.text);
    Finding { output: text, ..Finding::from(why) }
}

/// Headers that Go's client writes itself, whatever a check says.
const OWN_HEADERS: [HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER];
/// Headers that hold secrets: not for another host.
const SECRET_HEADERS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::WWW_AUTHENTICATE, header::COOKIE, header::PROXY_AUTHORIZATION];

fn request(asked: &Asked<'_>, hop: &Hop) -> Result<Request<Full<Bytes>>, Unreached> {
    let wrong = |error: &dyn std::error::Error| Unreached::new(error.to_string());
    let mut request = Request::new(Full::new(hop.body.clone()));
    *request.method_mut() = hop.method.clone();
    let path = &hop.url[Position::BeforePath..Position::AfterQuery];
    *request.uri_mut() = path.parse().map_err(|e: hyper::http::uri::InvalidUri| wrong(&e))?;
    let to = request.headers_mut();
    for (name, values) in asked.header {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| wrong(&e))?;
        if OWN_HEADERS.contains(&name) || (!hop.trusted && SECRET_HEADERS.contains(&name)) {
            continue;
        }
        for value in values {
            to.append(&name, HeaderValue::from_str(value).map_err(|e| wrong(&e))?);
        }
    }
    let given = asked.header.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let given = given.and_then(|(_, values)| values.first()).filter(|_| hop.own_host);
    let host = &hop.url[Position::BeforeHost..Position::AfterPort];
    let host = HeaderValue::from_str(given.map_or(host, String::as_str)).map_err(|e| wrong(&e))?;
    to.insert(header::HOST, host);
    to.entry(header::USER_AGENT).or_insert(USER_AGENT);
    if let Some(value) = asked.traceparent.and_then(|text| HeaderValue::from_str(text).ok()) {
        to.entry("traceparent").or_insert(value);
    }
    to.entry(header::ACCEPT).or_insert(ACCEPT);
    if let Some(basic) = basic(&hop.url) {
        to.entry(header::AUTHORIZATION).or_insert(basic);
    }
    Ok(request)
}

/// The credentials in a URL (RFC 7617).
fn basic(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    let (user, password) = (plain(url.username()), plain(url.password().unwrap_or_default()));
    let pair = data_encoding::BASE64.encode(&[user, password].join(&b':'));
    HeaderValue::from_str(&format!("Basic {pair}")).ok()
}

/// A failure in Go's words, as far as there are some.
fn words(error: &hyper::Error) -> String {
    let mut source = error.source();
    while let Some(inner) = source {
        match inner.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionReset) => return "read: connection reset by peer".to_owned(),
            Some(io::ErrorKind::BrokenPipe) => return "write: broken pipe".to_owned(),
            _ => source = inner.source(),
        }
    }
    match error.source() {
        _ if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => "EOF".to_owned(),
        _ if error.is_parse() => format!("malformed HTTP response: {error}"),
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Reads a body's first `max` octets; returns whether that was all of it.
async fn read(line: &mut Line, mut body: Incoming, max: usize, into: &mut Vec<u8>) -> bool {
    while let Some(frame) = drive(&mut line.connection, body.frame()).await {
        let Ok(frame) = frame else { return false };
        let Ok(data) = frame.into_data() else { continue };
        let room = max - into.len();
        into.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return false;
        }
    }
    true
}

type Connection = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// A connection that HTTP is spoken on. No task of its own: whoever waits for an answer drives it.
struct Line {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Absent when it has ended.
    connection: Option<Connection>,
}

impl Line {
    async fn open(stream: Stream) -> hyper::Result<Self> {
        let mut settings = http1::Builder::new();
        settings.max_buf_size(HEAD_OCTETS_MAX);
        let (sender, connection) = settings.handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection: Some(connection) })
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        drive(&mut self.connection, self.sender.send_request(request)).await
    }

    /// The stream, when the response was read to its end and both sides mean to go on.
    async fn release(mut self) -> Option<Stream> {
        drive(&mut self.connection, self.sender.ready()).await.ok()?;
        let parts = self.connection?.into_parts();
        parts.read_buf.is_empty().then(|| parts.io.into_inner())
    }
}

/// Does some work on a connection while the connection itself goes on. When it ends it is dropped, and what waits for
/// it hears of that.
async fn drive<T>(connection: &mut Option<Connection>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let over = connection.as_mut().is_some_and(|c| c.poll_without_shutdown(cx).is_ready());
        if over {
            *connection = None;
        }
        match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests;
