//! How a body is wrapped for its client: indented for `?pretty`, compressed with gzip for those who take it.

use std::io::Write;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use crate::http::listing::InPieces;

/// What is shorter is not compressed: Consul's bound.
const GZIP_OCTETS_MIN: u64 = 1400;

/// What a client asked for.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Wishes {
    pub(in crate::http) pretty: bool,
    pub(in crate::http) gzip: bool,
}

/// Whether a client takes gzip (RFC 9110 section 12.5.3): it is named, and not with a weight of 0.
pub(in crate::http) fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        gzip && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

/// Wraps a body that has a length or comes in pieces of ours; streams of events and of logs stay as they are.
pub(in crate::http) async fn wrap(response: Response, wishes: Wishes) -> Response {
    let in_pieces = response.extensions().get::<InPieces>().is_some();
    let length = response.body().size_hint().exact();
    let plain = !response.headers().contains_key(header::CONTENT_ENCODING);
    let json = response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == "application/json");
    let pretty = wishes.pretty && json && length != Some(0);
    let gzip = wishes.gzip && plain && (in_pieces || length.is_some_and(|n| n >= GZIP_OCTETS_MIN));
    if !(pretty || gzip) || !(in_pieces || length.is_some()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let mut wrapper = Wrapper {
        indent: pretty.then(Indent::default),
        gzip: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    if gzip {
        parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if in_pieces {
        return Response::from_parts(parts, pieces(body, wrapper));
    }
    let Ok(whole) = body.collect().await else { return Response::from_parts(parts, Body::empty()) };
    let mut out = wrapper.put(&whole.to_bytes());
    out.extend(wrapper.end());
    Response::from_parts(parts, Body::from(out))
}

/// The pieces of a body, each wrapped when it is asked for.
fn pieces(body: Body, wrapper: Wrapper) -> Body {
    let stream = body.into_data_stream();
    let wrapped = futures_util::stream::unfold(Some((stream, wrapper)), |state| async move {
        let (mut stream, mut wrapper) = state?;
        loop {
            match stream.next().await {
                Some(Ok(piece)) => {
                    let out = wrapper.put(&piece);
                    if !out.is_empty() {
                        return Some((Ok(Bytes::from(out)), Some((stream, wrapper))));
                    }
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None => return Some((Ok(Bytes::from(wrapper.end())), None)),
            }
        }
    });
    Body::from_stream(wrapped)
}

struct Wrapper {
    indent: Option<Indent>,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Wrapper {
    fn put(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match &mut self.indent {
            Some(indent) => indent.put(piece, &mut out),
            None => out.extend_from_slice(piece),
        }
        self.compressed(out)
    }

    fn compressed(&mut self, plain: Vec<u8>) -> Vec<u8> {
        let Some(gzip) = &mut self.gzip else { return plain };
        // Writing into memory cannot fail.
        let _ = gzip.write_all(&plain);
        std::mem::take(gzip.get_mut())
    }

    fn end(mut self) -> Vec<u8> {
        let line_end = if self.indent.is_some() { b"\n".to_vec() } else { Vec::new() };
        let mut out = self.compressed(line_end);
        if let Some(gzip) = self.gzip {
            out.extend(gzip.finish().unwrap_or_default());
        }
        out
    }
}

/// Turns compact JSON into Go's indented form, by four spaces, piece by piece.
#[derive(Default)]
struct Indent {
    depth: usize,
    /// Within a string, and behind its backslash.
    string: bool,
    escaped: bool,
    /// Behind an opening bracket: an empty pair of brackets stays together.
    opened: bool,
}

impl Indent {
    fn put(&mut self, json: &[u8], out: &mut Vec<u8>) {
        for octet in json.iter().copied() {
            if self.string {
                out.push(octet);
                self.string = self.escaped || octet != b'"';
                self.escaped = octet == b'\\' && !self.escaped;
                continue;
            }
            let closes = matches!(octet, b'}' | b']');
            if closes {
                self.depth = self.depth.saturating_sub(1);
            }
            if closes != self.opened {
                self.line(out);
            }
            self.opened = matches!(octet, b'{' | b'[');
            out.push(octet);
            match octet {
                b'{' | b'[' => self.depth += 1,
                b',' => self.line(out),
                b':' => out.push(b' '),
                b'"' => self.string = true,
                _ => {}
            }
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 4 * self.depth, b' ');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;

    fn indented(value: &Value, split: usize) -> String {
        let compact = value.to_string().into_bytes();
        let (mut indent, mut out) = (Indent::default(), Vec::new());
        let (first, second) = compact.split_at(split.min(compact.len()));
        indent.put(first, &mut out);
        indent.put(second, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn with_library(value: &Value) -> String {
        let mut out = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, format)).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\\\\\"{}\\[\\],:]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 30, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn indents_as_the_library_does_wherever_it_is_split(value in any_json(), split in 0..200_usize) {
            prop_assert_eq!(indented(&value, split), with_library(&value));
        }
    }

    #[test]
    fn gzip_is_for_those_who_name_it() {
        for (accepts, takes) in [
            ("", false),
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, br", false),
            ("gzip;q=x", false),
            ("identity", false),
            ("x-gzipped", false),
        ] {
            let headers = [(header::ACCEPT_ENCODING, accepts.parse().unwrap())].into_iter().collect();
            assert_eq!(takes_gzip(&headers), takes, "{accepts}");
        }
    }
}
