//! OTLP's messages, as far as spans need them (opentelemetry-proto 1.x: `collector/trace/v1`, `trace/v1`, `common/v1`,
//! `resource/v1`); the numbers are the protocol's and do not change. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::telemetry::trace::{Finished, Value as Noted};

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub(super) begun: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) ended: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub(super) flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 2, 3")]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

const STATUS_ERROR: i32 = 2;
/// The trace is recorded (W3C's flag).
const SAMPLED: u32 = 1;

/// One request. `node` is who sends.
pub(super) fn request(spans: &[Finished], node: &str) -> ExportRequest {
    let text = |key: &str, text: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::Text(text.to_owned())) }),
    };
    let version = env!("CARGO_PKG_VERSION");
    let resource = Resource {
        attributes: vec![
            text("service.name", "rollcall"),
            text("service.version", version),
            text("service.instance.id", node),
        ],
    };
    let scope = Scope { name: "rollcall".to_owned(), version: version.to_owned() };
    let spans = spans.iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] }
}

fn span(of: &Finished) -> Span {
    let attributes = of.attributes.iter().map(|(key, value)| {
        let value = match value {
            Noted::Text(text) => Value::Text(text.clone()),
            Noted::Number(number) => Value::Number(*number),
            Noted::Flag(flag) => Value::Flag(*flag),
        };
        KeyValue { key: (*key).to_owned(), value: Some(AnyValue { value: Some(value) }) }
    });
    Span {
        trace_id: of.context.trace.to_be_bytes().to_vec(),
        span_id: of.context.span.to_be_bytes().to_vec(),
        trace_state: of.state.as_deref().unwrap_or_default().to_owned(),
        parent_span_id: if of.parent == 0 { Vec::new() } else { of.parent.to_be_bytes().to_vec() },
        name: of.name.clone(),
        kind: of.kind as i32,
        begun: nanoseconds(of.begun),
        ended: nanoseconds(of.ended),
        attributes: attributes.collect(),
        status: of.failed.clone().map(|message| Status { message, code: STATUS_ERROR }),
        flags: SAMPLED,
    }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
