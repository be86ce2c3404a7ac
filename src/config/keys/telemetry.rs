//! Keys of `[telemetry]` and `[audit]`.

use hyper::header::{HeaderName, HeaderValue};

use super::{AT_START, Key, RELOADS};
use crate::config::value::{self, Value};
use crate::model::Secret;
use crate::otlp;
use crate::telemetry::logs;

pub(super) const KEYS: &[Key] = &[
    key!(
        "telemetry",
        "log_level",
        "\"info\"",
        RELOADS,
        "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,rollcall::dns=debug`. \
         `rollcall::http::request_log=debug` writes a line for each HTTP request, `rollcall::dns::query_log=trace` for each query.",
        |c, v| { c.log.level = logs::level(value::text(v)?)? }
    ),
    key!(
        "telemetry",
        "log_format",
        "\"auto\"",
        AT_START,
        "`human`, `json`, or `auto`: human on a terminal, else JSON.",
        |c, v| { c.log.format = logs::Format::parse(value::text(v)?)? }
    ),
    key!(
        "telemetry",
        "otlp_endpoint",
        "",
        AT_START,
        "Where traces go by OTLP: `http://collector:4318`, or `https://...`; `/v1/traces` is added for HTTP. Default: nothing is traced.",
        |c, v| { c.otlp.endpoint = Some(otlp::endpoint(value::text(v)?)?) }
    ),
    key!(
        "telemetry",
        "otlp_protocol",
        "\"http/protobuf\"",
        AT_START,
        "How: `http/protobuf`, or `grpc` (port 4317 by custom).",
        |c, v| { c.otlp.protocol = otlp::Protocol::parse(value::text(v)?)? }
    ),
    key!(
        "telemetry",
        "sample_ratio",
        "1.0",
        RELOADS,
        "The share of traces that are recorded, 0 to 1. A request that comes with a `traceparent` is recorded where its caller's trace is.",
        |c, v| { c.otlp.sampling.ratio = ratio(v)? }
    ),
    key!(
        "telemetry",
        "headers",
        "",
        AT_START,
        "A table of headers that the collector wants, such as `authorization`.",
        |c, v| { c.otlp.headers = headers(v)? }
    ),
    key!(
        "audit",
        "file",
        "",
        AT_START,
        "The audit log: a line of JSON for each change and each refused request. Made with mode 0600, appended to, opened anew at a reload. Default: none is kept.",
        |c, v| { c.audit.file = Some(value::text(v)?.into()) }
    ),
    key!(
        "audit",
        "max_size",
        "\"64MiB\"",
        AT_START,
        "Octets at which a new file begins; the old one becomes `<file>.1`.",
        |c, v| { c.audit.octets_max = value::octets(v)? }
    ),
    key!(
        "audit",
        "files",
        "8",
        AT_START,
        "Files that are kept, with the one that is written; the oldest goes.",
        |c, v| { c.audit.files_max = value::count(v)? }
    ),
];

/// A share of something.
fn ratio(value: &Value<'_>) -> Result<f64, String> {
    let text = value.as_float().map(|float| float.as_str()).or_else(|| Some(value.as_integer()?.as_str()));
    let number = text.and_then(|text| text.parse::<f64>().ok()).filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "a number between 0 and 1 is expected".to_owned())
}

/// Names and values of headers; a value is never repeated in an error.
fn headers(value: &Value<'_>) -> Result<Vec<(String, Secret)>, String> {
    let each = |(name, text): (&str, &str)| {
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no name of a header"))?;
        HeaderValue::from_str(text).map_err(|_| format!("the value of {name} is no header's value"))?;
        Ok((name.to_ascii_lowercase(), Secret::new(text)))
    };
    value::texts(value)?.into_iter().map(each).collect()
}
