//! The connection to the collector: made when there is something to send, kept between requests, made anew when it broke.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, TE, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Position, Url};

use super::Protocol;
use super::message::ExportResponse;
use crate::model::{ProbeTls, Secret};
use crate::tls::Clients;

/// Octets of an answer that are read.
const ANSWER_OCTETS_MAX: usize = 64 << 10;
const AGENT: &str = concat!("rollcall/", env!("CARGO_PKG_VERSION"));
const SERVICE: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";

pub(super) struct Collector {
    endpoint: Url,
    protocol: Protocol,
    headers: Vec<(String, Secret)>,
    tls: Option<Clients>,
    line: Option<Line>,
}

/// Why spans did not arrive, and whether it may help to send them again.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) why: String,
    pub(super) again: bool,
}

impl Failed {
    fn again(why: impl ToString) -> Self {
        Self { why: why.to_string(), again: true }
    }
}

/// What is spoken on.
enum Sender {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(http2::SendRequest<Full<Bytes>>),
}

struct Line {
    sender: Sender,
    _connection: AbortOnDropHandle<()>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Collector {
    pub(super) fn new(
        endpoint: Url,
        protocol: Protocol,
        headers: Vec<(String, Secret)>,
        tls: Option<Clients>,
    ) -> Self {
        Self { endpoint, protocol, headers, tls, line: None }
    }

    pub(super) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The connection is of no use any more.
    pub(super) fn give_up(&mut self) {
        self.line = None;
    }

    /// Sends one `ExportTraceServiceRequest`; how many of its spans were not taken. No time limit of its own.
    pub(super) async fn send(&mut self, message: Bytes) -> Result<i64, Failed> {
        let request = self.request(message)?;
        let mut line = match self.line.take() {
            Some(line) if line.is_open() => line,
            _ => self.connect().await.map_err(Failed::again)?,
        };
        let answer = line.ask(request).await.map_err(Failed::again)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_OCTETS_MAX).collect().await.map_err(Failed::again)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        // It answered to the end, so it can be asked again.
        self.line = Some(line);
        match self.protocol {
            Protocol::Http => judge_http(head.status, &body),
            Protocol::Grpc => judge_grpc(head.status, &head.headers, &trailers, &body),
        }
    }

    fn request(&self, message: Bytes) -> Result<Request<Full<Bytes>>, Failed> {
        let base = &self.endpoint[..Position::AfterPort];
        let request = match self.protocol {
            Protocol::Http => {
                let path = format!("{}/v1/traces", self.endpoint.path().trim_end_matches('/'));
                let authority = &self.endpoint[Position::BeforeHost..Position::AfterPort];
                Request::post(path).header(HOST, authority).header(CONTENT_TYPE, "application/x-protobuf")
            }
            Protocol::Grpc => Request::post(format!("{base}/{SERVICE}"))
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers"),
        };
        let given = |request: hyper::http::request::Builder, (name, value): &(String, Secret)| {
            request.header(name.as_str(), value.reveal())
        };
        let request = self.headers.iter().fold(request.header(USER_AGENT, AGENT), given);
        let body = match self.protocol {
            Protocol::Http => message,
            Protocol::Grpc => framed(&message),
        };
        // The headers were looked at when they were read.
        request.body(Full::new(body)).map_err(|e| Failed { why: e.to_string(), again: false })
    }

    async fn connect(&self) -> Result<Line, String> {
        let url = &self.endpoint;
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err("the endpoint has no host".to_owned()),
        };
        let port = url.port_or_known_default().unwrap_or(4318);
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| e.to_string())?;
        // A request is written in pieces, and waits for its answer.
        let _ = stream.set_nodelay(true);
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let alpn: &[&[u8]] = match self.protocol {
                    Protocol::Http => &[b"http/1.1"],
                    Protocol::Grpc => &[b"h2"],
                };
                Box::new(tls.stream(stream, &host, &ProbeTls::default(), alpn).await?)
            }
        };
        let io = TokioIo::new(stream);
        let failed = |e: hyper::Error| e.to_string();
        Ok(match self.protocol {
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
                Line::of(Sender::Http(sender), connection)
            }
            Protocol::Grpc => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
                Line::of(Sender::Grpc(sender), connection)
            }
        })
    }
}

impl Line {
    fn of(sender: Sender, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        // Its end shows in the next request.
        let driven = tokio::spawn(async move { drop(connection.await) });
        Self { sender, _connection: AbortOnDropHandle::new(driven) }
    }

    fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http(sender) => !sender.is_closed(),
            Sender::Grpc(sender) => !sender.is_closed(),
        }
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<hyper::body::Incoming>> {
        match &mut self.sender {
            Sender::Http(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Grpc(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

/// gRPC's frame: not compressed, and the length.
fn framed(message: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    // A request has a bounded number of spans of bounded size.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

fn rejected(message: &[u8]) -> i64 {
    let answer = ExportResponse::decode(message).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| partial.rejected_spans.max(0))
}

/// OTLP/HTTP: what may be sent again is named (OTLP specification, "Retryable Response Codes").
fn judge_http(status: StatusCode, body: &[u8]) -> Result<i64, Failed> {
    if status.is_success() {
        return Ok(rejected(body));
    }
    let again = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    Err(Failed { why: format!("it answers {status}"), again })
}

/// OTLP/gRPC: the same ("OTLP/gRPC Response", "Failures").
fn judge_grpc(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: &HeaderMap,
    body: &[u8],
) -> Result<i64, Failed> {
    let code =
        |map: &HeaderMap| map.get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<u8>().ok());
    match code(trailers).or_else(|| code(headers)) {
        Some(0) => Ok(rejected(body.get(5..).unwrap_or_default())),
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        Some(code @ (1 | 4 | 10 | 11 | 14 | 15)) => Err(Failed::again(format!("gRPC status {code}"))),
        Some(code) => Err(Failed { why: format!("gRPC status {code}"), again: false }),
        None => Err(Failed::again(format!("HTTP status {status} without a gRPC status"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::PartialSuccess;
    use super::*;

    #[test]
    fn what_may_be_sent_again_is_and_nothing_else() {
        for (status, wanted) in
            [(429, Some(true)), (503, Some(true)), (400, Some(false)), (500, Some(false)), (200, None)]
        {
            let judged = judge_http(StatusCode::from_u16(status).unwrap(), b"");
            assert_eq!(judged.err().map(|failed| failed.again), wanted, "{status}");
        }
        let grpc = |code: &'static str, in_trailers: bool| {
            let map: HeaderMap =
                [("grpc-status".parse().unwrap(), code.parse().unwrap())].into_iter().collect();
            let (headers, trailers) =
                if in_trailers { (HeaderMap::new(), map) } else { (map, HeaderMap::new()) };
            judge_grpc(StatusCode::OK, &headers, &trailers, b"").map_err(|failed| failed.again)
        };
        assert_eq!((grpc("0", true), grpc("14", true), grpc("14", false)), (Ok(0), Err(true), Err(true)));
        assert_eq!(
            (grpc("3", true), grpc("12", false), grpc("x", true)),
            (Err(false), Err(false), Err(true))
        );
    }

    #[test]
    fn spans_that_a_collector_did_not_take_are_known() {
        let partial = PartialSuccess { rejected_spans: 7, error_message: String::new() };
        let answer = ExportResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(judge_http(StatusCode::OK, &answer), Ok(7));
        let map: HeaderMap = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
        assert_eq!(judge_grpc(StatusCode::OK, &HeaderMap::new(), &map, &framed(&answer.into())), Ok(7));
        assert_eq!(judge_http(StatusCode::OK, b"junk"), Ok(0));
    }
}
