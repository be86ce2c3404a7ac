//! gRPC checks: `grpc.health.v1.Health/Check` over HTTP/2. SERVING is passing, all else critical.
//!
//! The two messages have one field each, so they are written and read here instead of by a gRPC library with its own
//! connections, retries and code generation.

use std::borrow::Cow;

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::{HeaderMap, Request, StatusCode, header};
use percent_encoding::percent_decode;

use super::http2;
use super::probe::{Finding, Tools};
use crate::model::{ProbeTls, Status};

mod message;

/// Octets of an answer that are read; a real one has two.
const ANSWER_OCTETS_MAX: usize = 4096;

/// Asks once for the health of `service` (empty: of the server as a whole), on a connection of its own, as a part of a trace. No time limit
/// of its own.
pub(super) async fn probe(
    address: &str,
    service: &str,
    tls: Option<&ProbeTls>,
    with: &Tools,
    traceparent: Option<&str>,
) -> Finding {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/grpc.health.v1.Health/Check", authority(address, tls));
    let request = Request::post(url);
    let request = match traceparent {
        Some(value) => request.header("traceparent", value),
        None => request,
    };
    let request = request
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, concat!("rollcall/", env!("CARGO_PKG_VERSION")))
        .body(());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Finding::critical(format!("gRPC {address}: cannot be asked: {error}")),
    };
    let asked = message::request(service);
    let answer = http2::exchange(address, tls, with, |send, _| ask(send, request, asked)).await;
    let judged = match answer {
        Ok(answer) => judge(&answer),
        Err(why) => return why.into(),
    };
    match judged {
        Ok(message::SERVING) => Finding::new(Status::Passing, format!("gRPC check {address}: success")),
        Ok(status) => Finding::critical(format!("gRPC {address} serving status: {}", message::name(status))),
        Err(why) => Finding::critical(format!("gRPC {address}: {why}")),
    }
}

/// The `:authority`: the name that the certificate is to have, else the address. RFC 6874 section 4: never a zone.
fn authority<'a>(address: &'a str, tls: Option<&'a ProbeTls>) -> Cow<'a, str> {
    match (tls, address.split_once('%')) {
        (Some(tls), _) if !tls.server_name.is_empty() => Cow::from(&tls.server_name),
        (_, Some((host, rest))) => {
            Cow::from(format!("{host}{}", rest.find(']').map_or("", |end| &rest[end..])))
        }
        _ => Cow::from(address),
    }
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    /// Cut above `ANSWER_OCTETS_MAX`.
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

async fn ask(send: SendRequest<Bytes>, request: Request<()>, message: Bytes) -> Result<Answer, h2::Error> {
    let (answer, mut stream) = send.ready().await?.send_request(request, false)?;
    stream.send_data(message, true)?;
    let (head, mut arriving) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = arriving.data().await {
        let data = data?;
        arriving.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
        if body.len() > ANSWER_OCTETS_MAX {
            return Ok(Answer { status: head.status, headers: head.headers, body, trailers: None });
        }
    }
    let trailers = arriving.trailers().await?;
    Ok(Answer { status: head.status, headers: head.headers, body, trailers })
}

/// The serving status, or why there is none.
fn judge(answer: &Answer) -> Result<u64, String> {
    if answer.body.len() > ANSWER_OCTETS_MAX {
        return Err(format!(
            "the answer is longer than {ANSWER_OCTETS_MAX} octets (is it the health service?)"
        ));
    }
    // An error may come without a message, in the headers alone.
    let about = answer.trailers.as_ref().filter(|trailers| trailers.contains_key("grpc-status"));
    let about = about.unwrap_or(&answer.headers);
    match about.get("grpc-status").map(|code| code.to_str().unwrap_or("?")) {
        Some("0") => {
            message::serving_status(&answer.body).ok_or_else(|| "the answer is malformed".to_owned())
        }
        Some(code) => {
            let told = about.get("grpc-message").map_or(&b""[..], |text| text.as_bytes());
            let told = percent_decode(told).decode_utf8_lossy();
            let (name, remedy) = code_words(code);
            Err(format!("rpc error: code = {name} desc = {told}{remedy}"))
        }
        None if answer.status != StatusCode::OK => {
            Err(format!("HTTP status {} instead of an answer (is it a gRPC server?)", answer.status))
        }
        None => Err("the answer has no grpc-status (is it a gRPC server?)".to_owned()),
    }
}

/// gRPC's name for a code, and what to do about it.
fn code_words(code: &str) -> (Cow<'_, str>, &'static str) {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let number = code.parse::<usize>().ok();
    let remedy = match number {
        Some(5) => {
            " (the target's health service does not know this service: name one of its own after the /)"
        }
        Some(7 | 16) => " (the target wants credentials, which checks do not have)",
        Some(12) => " (the target does not serve grpc.health.v1.Health: register its health service)",
        _ => "",
    };
    match number.and_then(|number| NAMES.get(number)) {
        Some(name) => (Cow::from(*name), remedy),
        None => (Cow::from(format!("Code({code})")), remedy),
    }
}

#[cfg(test)]
mod tests;
