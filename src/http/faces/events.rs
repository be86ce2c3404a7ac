//! A stream of changes as server-sent events: `GET /v1/rollcall/events`.
//!
//! Events are typed (`service`, `check`, `node`, `circuit`, `maintenance`, `route`), their data is JSON with the index of the change. The last event of an
//! index bears it as `id`, so that a client that comes back with `Last-Event-ID`, as browsers do by themselves, gets what it
//! missed and nothing twice. `begin` says from where a stream goes on, `reset` that something before it is not known any more:
//! read the registry anew, what comes after is in the stream. The stream ends when the token that it was opened with may not read it any more; a client that reads more
//! slowly than things change is told so (`reset`), and counted.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::Place;
use super::recent::{Behind, Recent};
use crate::http::State;
use crate::http::door::admission::Admitted;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::registry::events::{Event, Of, What};

/// A stream with nothing to say says so, and where it is.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Pieces that wait for a client.
const WAITING_MAX: usize = 4;
/// When a browser may come back.
const RETRY_MILLIS: u32 = 1000;

/// `?index=` or `Last-Event-ID`: what came behind it, then what comes; without, from now on. `?service=`, again for more: only what
/// concerns them, and nodes that they are on.
pub(super) async fn events(
    Extract(state): Extract<Arc<State>>,
    access: Admitted,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let bad = || Error::bad("Invalid index");
    // A browser that comes back asks for the same URL as before.
    let last = match headers.get("last-event-id") {
        Some(id) => Some(id.to_str().map_err(|_| bad())?),
        None => params.get("index"),
    };
    let last = last.filter(|text| !text.is_empty()).map(|text| text.parse::<u64>().map_err(|_| bad()));
    let last = last.transpose()?;
    let services = params.all("service").map(str::to_ascii_lowercase).filter(|name| !name.is_empty());
    let services: Vec<String> = services.collect();
    let max = state.config.load().streams_max;
    let place =
        Place::take(&state, &state.faces.streams, ("streams_max", max), "streams of changes are open")?;
    let recent = Recent::of(&state).await;
    let (pieces, mut queue) = mpsc::channel(WAITING_MAX);
    let lapses = access.lapses(state.clone(), "/v1/rollcall/events");
    let stream = Stream { last: last.unwrap_or_else(|| recent.end()), state, recent, services, pieces };
    tokio::spawn(async move {
        stream.run(last.is_some()).await;
        drop(place);
    });
    let pieces = stream::poll_fn(move |context| queue.poll_recv(context)).take_until(Box::pin(lapses));
    let form = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // nginx, asked not to collect.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((form, Body::from_stream(pieces.map(Ok::<_, Infallible>))).into_response())
}

/// One client's.
struct Stream {
    state: Arc<State>,
    recent: Arc<Recent>,
    /// In lower case; all where there is none.
    services: Vec<String>,
    /// All up to this index was sent.
    last: u64,
    pieces: mpsc::Sender<Bytes>,
}

impl Stream {
    /// Sends until the client goes, is cut off, or the server ends.
    async fn run(mut self, resumes: bool) {
        // From another server, or from before ours lost its data.
        if resumes && self.last > self.state.registry.load().index() {
            self.last = 0;
        }
        let mut piece = format!("retry: {RETRY_MILLIS}\n\n");
        match self.recent.behind(self.last) {
            Behind::Lost(index) => self.reset(index, &mut piece),
            Behind::Events(_) => piece += &message("begin", &json!({ "Index": self.last }), Some(self.last)),
        }
        if !self.send(piece).await {
            return;
        }
        loop {
            let recent = self.recent.clone();
            let grown = recent.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            let piece = match recent.behind(self.last) {
                // It reads, but more slowly than things change.
                Behind::Lost(index) => {
                    let mut piece = String::new();
                    self.reset(index, &mut piece);
                    self.state.metrics.http.refused("slow stream");
                    let _ = self.send(piece).await;
                    return;
                }
                Behind::Events(events) if events.is_empty() => tokio::select! {
                    () = grown => continue,
                    () = tokio::time::sleep(HEARTBEAT) => format!(": heartbeat\nid: {}\n\n", self.last),
                    () = self.pieces.closed() => return,
                    () = self.state.shutdown.cancelled() => return,
                },
                Behind::Events(events) => self.written(&events),
            };
            if !piece.is_empty() && !self.send(piece).await {
                return;
            }
        }
    }

    fn reset(&mut self, index: u64, piece: &mut String) {
        self.last = index;
        let reason = "what came behind the index asked for is not known any more: read the registry anew";
        *piece += &message("reset", &json!({ "Index": index, "Reason": reason }), Some(index));
    }

    /// Those that are wanted. The last of an index bears it, whether or not it is one of them.
    fn written(&mut self, events: &[Arc<Event>]) -> String {
        let mut piece = String::new();
        for (at, event) in events.iter().enumerate() {
            let ends = events.get(at + 1).is_none_or(|next| next.index != event.index);
            let id = ends.then_some(event.index);
            if self.wants(event) {
                let (kind, data) = shown(event);
                piece += &message(kind, &data, id);
            } else if let Some(id) = id.filter(|_| !piece.is_empty()) {
                piece += &format!("id: {id}\n\n");
            }
            self.last = event.index;
        }
        piece
    }

    fn wants(&self, event: &Event) -> bool {
        let wanted = |name: &str| self.services.is_empty() || self.services.iter().any(|own| own == name);
        match &event.of {
            Of::Instance(_, service, _) | Of::Service(service) => wanted(service.folded()),
            Of::Node(_) if self.services.is_empty() => true,
            Of::Node(node) => {
                let snapshot = self.state.registry.load();
                let node = snapshot.node(node.folded());
                let here = node.into_iter().flat_map(|node| node.instances.values());
                here.into_iter().any(|entry| wanted(entry.instance.service.folded()))
            }
        }
    }

    /// Whether the client has taken it, or the piece before it.
    async fn send(&self, piece: String) -> bool {
        tokio::select! {
            sent = self.pieces.send(piece.into()) => sent.is_ok(),
            () = self.state.shutdown.cancelled() => false,
        }
    }
}

/// One message of a stream (HTML, section 9.2.6). JSON has no line ends.
fn message(kind: &str, data: &Value, id: Option<u64>) -> String {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("event: {kind}\n{id}data: {data}\n\n")
}

/// An event's type and data.
fn shown(event: &Event) -> (&'static str, Value) {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    let (kind, change) = words(&event.what);
    put("Index", json!(event.index));
    put("Change", json!(change));
    match &event.of {
        Of::Node(node) => put("Node", json!(node)),
        Of::Instance(node, service, id) => {
            put("Node", json!(node));
            put("Service", json!(service));
            put("ID", json!(id));
        }
        Of::Service(service) => put("Service", json!(service)),
    }
    details(&event.what, &mut put);
    (kind, Value::Object(map))
}

/// A change's kind, and what it is, in a word each.
pub(super) fn words(what: &What) -> (&'static str, &'static str) {
    match what {
        What::Node { new } => ("node", if *new { "registered" } else { "changed" }),
        What::NodeRemoved => ("node", "removed"),
        What::Registered { new } => ("service", if *new { "registered" } else { "changed" }),
        What::Deregistered => ("service", "deregistered"),
        What::Check { .. } => ("check", "defined"),
        What::CheckRemoved { .. } => ("check", "removed"),
        What::Status { .. } => ("check", "status"),
        What::Circuit { after, .. } => ("circuit", after),
        What::Guard { keeps } => ("guard", if *keeps { "begun" } else { "ended" }),
        What::Route(route) => ("route", if route.is_some() { "set" } else { "removed" }),
        What::Maintenance(reason) => ("maintenance", if reason.is_some() { "begun" } else { "ended" }),
    }
}

/// What else there is to say of a change.
pub(super) fn details(what: &What, put: &mut impl FnMut(&str, Value)) {
    match what {
        What::Check { check, before, after } => {
            put("CheckID", json!(check));
            put("Before", json!(before));
            put("After", json!(after));
        }
        What::CheckRemoved { check, before } => {
            put("CheckID", json!(check));
            put("Before", json!(before));
            put("After", Value::Null);
        }
        What::Status { check, before, after, health } => {
            put("CheckID", json!(check));
            put("Before", json!(before));
            put("After", json!(after));
            if let Some((before, after)) = health {
                put("Health", json!({ "Before": before.as_str(), "After": after.as_str() }));
            }
        }
        What::Circuit { before, after } => {
            put("Before", json!(before));
            put("After", json!(after));
        }
        What::Maintenance(Some(reason)) => put("Reason", json!(reason)),
        What::Route(Some(route)) => {
            put("Version", json!(route.version));
            put("Subsets", json!(route.subsets.iter().map(ToString::to_string).collect::<Vec<_>>()));
            put("Why", json!(route.why));
        }
        _ => {}
    }
}
