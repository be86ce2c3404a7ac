//! Log lines for programs: JSON objects with the field names of the Elastic Common Schema (8.11), in the order that its
//! logging libraries write: `@timestamp`, `log.level`, `message`, `ecs.version`, then the rest by dotted names.
//!
//! A field whose name has a dot is one of the schema and stays as it is; one that has none is ours, and stands under
//! `rollcall.`, as the schema wants of names that it does not have. Pure.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::Level;

use super::origin::Origin;
use super::said::{Said, cut};
use super::utc;

/// The version of the schema.
pub const VERSION: &str = "8.11.0";
/// Of a message, and of the text of one field.
const TEXT_OCTETS_MAX: usize = 8192;

/// Who writes.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    /// Our node.
    pub(super) node: String,
    pub(super) pid: u32,
}

impl Writer {
    /// One line, with its end.
    pub(super) fn line(
        &self,
        at: SystemTime,
        level: Level,
        target: &str,
        said: Said,
        origin: Option<&Origin>,
    ) -> String {
        let mut all = Map::new();
        let mut put = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
        put("@timestamp", utc::rfc3339(at).into());
        put("log.level", level.as_str().to_ascii_lowercase().into());
        put("message", cut(&said.message, TEXT_OCTETS_MAX).into());
        put("ecs.version", VERSION.into());
        put("log.logger", target.into());
        put("event.dataset", "rollcall.log".into());
        put("service.name", "rollcall".into());
        put("service.version", env!("CARGO_PKG_VERSION").into());
        put("service.node.name", self.node.as_str().into());
        put("process.pid", self.pid.into());
        if let Some(origin) = origin {
            put("http.request.id", origin.id.as_str().into());
            if let Some(context) = origin.span.context() {
                put("trace.id", context.trace_id().into());
            }
        }
        for (name, value) in said.fields {
            let value = match value {
                Value::String(text) if text.len() > TEXT_OCTETS_MAX => cut(&text, TEXT_OCTETS_MAX).into(),
                value => value,
            };
            match (name.as_str(), value) {
                ("client", Value::String(text)) => client(&text, &mut put),
                ("error", value) => put("error.message", value),
                (dotted, value) if dotted.contains('.') => put(dotted, value),
                (own, value) => put(&format!("rollcall.{own}"), value),
            }
        }
        let mut line = Value::Object(all).to_string();
        line.push('\n');
        line
    }
}

/// Another end: `192.0.2.1:4711`.
pub(super) fn client(text: &str, put: &mut impl FnMut(&str, Value)) {
    match text.parse::<SocketAddr>() {
        Ok(address) => {
            let ip = address.ip().to_canonical().to_string();
            put("client.address", ip.as_str().into());
            put("client.ip", ip.into());
            put("client.port", address.port().into());
        }
        Err(_) => put("client.address", text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin::RequestId;
    use super::*;

    #[test]
    fn a_line_has_the_schemas_names_in_its_order() {
        let writer = Writer { node: "n1".into(), pid: 7 };
        let fields = [
            ("client", Value::from("[::ffff:192.0.2.1]:4711")),
            ("http.request.method", "GET".into()),
            ("http.response.status_code", 200.into()),
            ("check", "n1/web".into()),
            ("error", "it broke".into()),
        ];
        let said = Said {
            message: "two\nlines \"quoted\"".into(),
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        let origin = Origin::new(RequestId::new(1));
        let line =
            writer.line(SystemTime::UNIX_EPOCH, Level::WARN, "rollcall::http::guard", said, Some(&origin));
        assert!(
            line.starts_with(
                r#"{"@timestamp":"1970-01-01T00:00:00.000Z","log.level":"warn","message":"two\nlines \"quoted\"","ecs.version":"8.11.0","log.logger":"rollcall::http::guard","#
            ),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1, "one line");
        let line: Value = serde_json::from_str(&line).unwrap();
        for (name, wanted) in [
            ("service.name", Value::from("rollcall")),
            ("service.node.name", "n1".into()),
            ("process.pid", 7.into()),
            ("http.request.id", "00000000000000000000000000000001".into()),
            ("client.address", "192.0.2.1".into()),
            ("client.ip", "192.0.2.1".into()),
            ("client.port", 4711.into()),
            ("http.request.method", "GET".into()),
            ("http.response.status_code", 200.into()),
            ("rollcall.check", "n1/web".into()),
            ("error.message", "it broke".into()),
        ] {
            assert_eq!(line[name], wanted, "{name}");
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        let said = Said {
            message: "\u{e4}".repeat(TEXT_OCTETS_MAX),
            fields: [("long".to_owned(), Value::from("x".repeat(1 << 20)))].into_iter().collect(),
        };
        let writer = Writer { node: "n1".into(), pid: 7 };
        let line = writer.line(SystemTime::UNIX_EPOCH, Level::INFO, "t", said, None);
        assert!(line.len() < 3 * TEXT_OCTETS_MAX, "{}", line.len());
    }
}
