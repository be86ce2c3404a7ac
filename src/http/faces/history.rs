//! What became of a service of late: `GET /v1/rollcall/history/{service}`, and with `?at=` how it stood at a moment.
//!
//! Changes are kept in memory within bounds (`[limits] history_max`, `history_per_service_max`) and since the process began; `Since`
//! says from when on they are complete. How it stood is worked out from what is now, backwards.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::events;
use crate::http::State;
use crate::http::door::admission::Admitted;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{self, Rest};
use crate::model::route::Subset;
use crate::model::{Instance, Route, ServiceName, duration};
use crate::registry::events::What;
use crate::registry::history::{Past, Source, Told, Was};
use crate::registry::{InstanceEntry, Snapshot, views};
use crate::telemetry::utc;

pub(super) async fn history(
    Extract(state): Extract<Arc<State>>,
    Rest(service): Rest,
    params: Params,
) -> Result<Response, Error> {
    if service.is_empty() {
        return Err(Error::bad("Missing service name"));
    }
    let service = ServiceName::parse(&service)?;
    let now = views::now();
    let moment = params.get("at").filter(|text| !text.is_empty());
    let moment = moment.map(|text| moment_of(text, now)).transpose().map_err(Error::bad)?;
    let snapshot = state.registry.snapshot();
    // Read after the snapshot, so that all that led to it is there.
    let told = state.registry.history(&service, &snapshot);
    let (asker, mut hidden) = (&params.asker, false);
    let shown = asker.view.reads_service(service.folded());
    let seen = told.past.iter().filter(|past| {
        past.service.is_some()
            || past.instance().is_some_and(|instance| asker.shows_node(instance.node.folded(), &mut hidden))
    });
    let changes: Vec<Value> = seen.map(|past| change(past)).collect();
    let of_seen = |entry: &InstanceEntry| asker.view.reads_node(entry.instance.node.folded());
    let here = snapshot.service(service.folded());
    let here = here.is_some_and(|entry| entry.instances.values().any(|entry| of_seen(entry)));
    // One of which nobody may be seen looks as one that is not there.
    if !shown || (!here && changes.is_empty()) {
        let text = format!("there is no service {:?}, and nothing of one is kept", service.as_str());
        return Err(Error::not_found(text));
    }
    let mut value = json!({
        "Service": service,
        "Index": snapshot.index(),
        "Since": utc::rfc3339_of(told.begin),
        "Changes": changes,
    });
    if let Some(moment) = moment {
        value["At"] = stood(&snapshot, &service, &told, moment, asker, &mut hidden);
    }
    Ok(params.asker.filtered(route::json(&value), hidden))
}

/// A time as it is written: RFC 3339, seconds since 1970, or how long ago; in milliseconds since 1970.
fn moment_of(text: &str, now: u64) -> Result<u64, String> {
    let seconds = || text.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1000));
    let ago = || {
        let ago = duration::parse(text).ok()?;
        now.checked_sub(u64::try_from(ago.as_millis()).ok()?)
    };
    let moment = utc::parse(text).or_else(seconds).or_else(ago);
    let moment = moment.ok_or_else(|| {
        format!(
            "Invalid time {text:?} in ?at: 2006-01-02T15:04:05Z, seconds since 1970, or how long ago (10m)"
        )
    })?;
    if moment > now {
        return Err(format!("{text:?} in ?at is still to come; it is {}", utc::rfc3339_of(now)));
    }
    Ok(moment)
}

/// How a service stood at a moment, if that is known.
fn stood(
    snapshot: &Snapshot,
    service: &ServiceName,
    told: &Told,
    moment: u64,
    asker: &Admitted,
    hidden: &mut bool,
) -> Value {
    let mut value = json!({ "Time": utc::rfc3339_of(moment), "Known": moment >= told.begin });
    if moment < told.begin {
        value["Reason"] = format!("what was before {} is not kept", utc::rfc3339_of(told.begin)).into();
        return value;
    }
    let all = snapshot.stood_at(service, &told.past, moment);
    let seen = all.iter().filter(|was| asker.shows_node(was.instance.node.folded(), hidden));
    let held = snapshot.route_of(service.folded()).and_then(|entry| Held::at(&entry.route, moment));
    let fallback = held.as_ref().is_none_or(|held| held.falls_back(&all));
    let routed = |was: &Was| held.as_ref().is_none_or(|held| held.has_share(&was.instance) || fallback);
    value["Instances"] = seen.map(|was| instance(was, was.is_served() && routed(was))).collect();
    value["Route"] = held.map_or(Value::Null, |held| held.told());
    value
}

/// The version of a route that held at a moment. Of one that has gone since, how far it was on its way is not kept: it counts as it was set.
struct Held<'a> {
    version: u64,
    subsets: &'a [Subset],
    shares: Vec<u32>,
    strict: bool,
}

impl<'a> Held<'a> {
    /// None where there was none, or it is not kept.
    fn at(route: &'a Route, moment: u64) -> Option<Self> {
        let held = if route.set <= moment {
            let shares = route.shares_at(moment);
            Self { version: route.version, subsets: &route.subsets, shares, strict: route.strict }
        } else {
            let past = route.past.iter().find(|past| past.set <= moment)?;
            let shares = past.subsets.iter().map(|subset| subset.share).collect();
            Self { version: past.version, subsets: &past.subsets, shares, strict: past.strict }
        };
        (!held.subsets.is_empty()).then_some(held)
    }

    fn has_share(&self, instance: &Instance) -> bool {
        let at = self.subsets.iter().position(|subset| subset.by.has(instance));
        at.is_some_and(|at| self.shares.get(at).is_some_and(|share| *share > 0))
    }

    /// Whether all answered, since nobody with a share could.
    fn falls_back(&self, all: &[Was]) -> bool {
        !self.strict && !all.iter().any(|was| was.is_served() && self.has_share(&was.instance))
    }

    fn told(&self) -> Value {
        let subsets: Vec<_> = self.subsets.iter().map(ToString::to_string).collect();
        json!({ "Version": self.version, "Subsets": subsets, "Shares": self.shares })
    }
}

/// An instance, and whether DNS answered with it.
fn instance(was: &Was, given: bool) -> Value {
    let Was { instance, node, health, kept, .. } = was;
    json!({
        "ID": instance.id,
        "Node": instance.node,
        "Address": instance.address.as_ref().unwrap_or(&node.address).to_string(),
        "Port": instance.port,
        "Tags": instance.tags,
        "Health": health.as_str(),
        "Guarded": kept,
        "In": given,
    })
}

fn change(past: &Past) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    let (kind, word) = events::words(&past.what);
    put("Index", json!(past.index));
    put("Time", json!(utc::rfc3339_of(past.at)));
    put("Kind", json!(kind));
    put("Change", json!(word));
    put("OfNode", json!(past.of_node));
    if let Some(instance) = past.instance() {
        put("ID", json!(instance.id));
        put("Node", json!(instance.node));
    }
    events::details(&past.what, &mut put);
    if !matches!(past.what, What::Status { .. } | What::Route(_)) {
        let health = |was: &Option<Was>| was.as_ref().map(|was| was.health.as_str());
        put("Health", json!({ "Before": health(&past.before), "After": health(&past.after) }));
    }
    if past.service.is_none() {
        let (before, after) = past.served();
        put("Served", json!({ "Before": before, "After": after }));
    }
    put("Cause", json!(cause(past.source)));
    put("Actor", json!(actor(past.source)));
    if let Some(client) = past.source.client {
        put("Address", json!(client));
    }
    if let Some(output) = &past.output {
        put("Output", json!(output));
    }
    Value::Object(map)
}

/// What a change came of, in a word or two.
fn cause(source: Source) -> &'static str {
    match source.action {
        "register-instance" | "register-check" | "catalog-register" => "registration",
        "deregister-instance" | "deregister-check" | "catalog-deregister" => "deregistration",
        "begin-maintenance" | "end-maintenance" => "maintenance",
        "set-route" | "undo-route" | "clear-route" => "route",
        "abort-route" => "the route's guard",
        "configuration-file" => "reload",
        "expire-check" => "TTL expiry",
        "update-check" => "TTL update",
        "report" => "reports of failures",
        "breaker" => "circuit breaker",
        "deregister-critical" => "critical for too long",
        other => other,
    }
}

/// Who: the accessor of a token, else an address, else we.
fn actor(source: Source) -> String {
    let who = source.who.map(|who| who.to_string());
    let client = source.client.map(|client| client.to_string());
    who.or(client).unwrap_or_else(|| "rollcall".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_three_ways_and_is_not_to_come() {
        let now = 1_800_000_000_000;
        for (text, moment) in [
            ("2027-01-15T07:59:59Z", Some(now - 1000)),
            ("1799999999", Some(now - 1000)),
            ("1s", Some(now - 1000)),
            ("10m", Some(now - 600_000)),
            ("2027-01-15T08:00:00.000Z", Some(now)),
            ("2027-01-15T08:00:01Z", None),
            ("1800000001", None),
            ("99999999999999999999", None),
            ("-1s", None),
            ("yesterday", None),
        ] {
            assert_eq!(moment_of(text, now).ok(), moment, "{text}");
        }
    }
}
