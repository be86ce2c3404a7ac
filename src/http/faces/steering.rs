//! Routes: with which instances a service's plain name answers, and in what shares. `/v1/rollcall/routes` and
//! `/v1/rollcall/route/{service}`.
//!
//! Subsets are texts, as [`Subset::parse`] reads them, so that the commands and this say the same of them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::acl::View;
use crate::http::State;
use crate::http::blocking::answer;
use crate::http::decode::{Kind, Shape, decode};
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{Done, Rest, Whole, get, put, with_rest};
use crate::model::route::{self, Guard, Subset, TIME_MAX};
use crate::model::{ServiceName, duration};
use crate::registry::{Command, RouteEntry, Steer, Topic};
use crate::select::{self, Steered, World};
use crate::telemetry::utc;

pub(super) fn routes() -> Router<Arc<State>> {
    let one = axum::routing::get(read).put(set).delete(clear);
    Router::new()
        .route("/v1/rollcall/routes", get(list))
        .route("/v1/rollcall/route/{service}", with_rest(one, "OPTIONS,GET,PUT,DELETE"))
        .route("/v1/rollcall/route/{service}/undo", put(undo))
}

/// How long a guard watches when nobody says.
const WATCH_DEFAULT: Duration = Duration::from_secs(600);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    subsets: Vec<String>,
    over: String,
    abort_if_unhealthy: String,
    guard_for: String,
    strict: bool,
}

pub(in crate::http) const BODY: Shape = Shape {
    fields: &[
        ("Subsets", Kind::Plain),
        ("Over", Kind::Plain),
        ("AbortIfUnhealthy", Kind::Plain),
        ("GuardFor", Kind::Plain),
        ("Strict", Kind::Plain),
        // What is read can be written: these are passed over.
        ("Service", Kind::Plain),
        ("Version", Kind::Plain),
        ("Now", Kind::Plain),
        ("Answers", Kind::Plain),
        ("Set", Kind::Plain),
        ("Why", Kind::Plain),
        ("Past", Kind::Plain),
        ("CreateIndex", Kind::Plain),
        ("ModifyIndex", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};

impl Body {
    fn build(&self) -> Result<Steer, Error> {
        let subsets = route::parse(self.subsets.iter().map(String::as_str));
        let subsets = subsets.map_err(|error| Error::bad(format!("Invalid route: {error}")))?;
        let over = time("Over", &self.over)?.unwrap_or_default();
        let watch = time("GuardFor", &self.guard_for)?;
        let guard = match self.abort_if_unhealthy.as_str() {
            "" if watch.is_some() => {
                return Err(Error::bad("Invalid route: GuardFor needs AbortIfUnhealthy"));
            }
            "" => None,
            text => {
                let percent = text.strip_suffix('%').unwrap_or(text).parse::<u8>();
                let unhealthy = percent.ok().filter(|percent| *percent < 100).ok_or_else(|| {
                    Error::bad(format!(
                        "Invalid route: AbortIfUnhealthy {text:?} is no percent from 0% to 99%"
                    ))
                })?;
                Some(Guard { unhealthy, watch: millis(watch.unwrap_or(WATCH_DEFAULT)) })
            }
        };
        Ok(Steer::Set { subsets, strict: self.strict, over: millis(over), guard })
    }
}

fn time(key: &str, text: &str) -> Result<Option<Duration>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = duration::parse(text).map_err(|error| Error::bad(format!("Invalid route: {key}: {error}")))?;
    match millis(time) <= TIME_MAX {
        true => Ok(Some(time)),
        false => Err(Error::bad(format!("Invalid route: {key} {text:?} is more than 31 days"))),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The service that a path names.
fn service(rest: &str) -> Result<ServiceName, Error> {
    Ok(ServiceName::parse(rest)?)
}

/// The same of a write. Who asks for it to hang on what is there is not to believe that it did.
fn written(rest: &str, params: &Params) -> Result<ServiceName, Error> {
    match params.get("cas") {
        Some(_) => {
            Err(Error::bad("Invalid route: ?cas= is not served here: whoever writes last has their way"))
        }
        None => service(rest),
    }
}

async fn set(
    Extract(state): Extract<Arc<State>>,
    Rest(rest): Rest,
    params: Params,
    Whole(body): Whole,
) -> Result<Done, Error> {
    let service = written(&rest, &params)?;
    let body: Body = decode(&BODY, &body)?;
    let steer = body.build()?;
    params.asker.submit(&state, Command::Route { service, steer }).await?;
    Ok(Done::default())
}

async fn clear(Extract(state): Extract<Arc<State>>, Rest(rest): Rest, params: Params) -> Result<Done, Error> {
    let command = Command::Route { service: written(&rest, &params)?, steer: Steer::Clear };
    params.asker.submit(&state, command).await?;
    Ok(Done::default())
}

async fn undo(Extract(state): Extract<Arc<State>>, Rest(rest): Rest, params: Params) -> Result<Done, Error> {
    let name = rest.strip_suffix("/undo").unwrap_or(&rest);
    let command = Command::Route { service: written(name, &params)?, steer: Steer::Undo { why: None } };
    params.asker.submit(&state, command).await?;
    Ok(Done::default())
}

async fn list(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    let services: Vec<String> = params.all("service").map(str::to_ascii_lowercase).collect();
    answer(&state, &params, &Topic::Routes, |snapshot| {
        let asker = params.asker.renewed(&state)?;
        let wanted = |name: &str| services.is_empty() || services.iter().any(|own| own == name);
        let seen = snapshot.routes().filter(|entry| wanted(entry.route.service.folded()));
        let seen = seen.filter(|entry| asker.view.reads_service(entry.route.service.folded()));
        Ok(seen.map(|entry| shown(&state, entry)).collect::<Vec<_>>())
    })
    .await
}

async fn read(
    Extract(state): Extract<Arc<State>>,
    Rest(rest): Rest,
    params: Params,
) -> Result<Response, Error> {
    let service = service(&rest)?;
    params.asker.read_service(service.as_str())?;
    answer(&state, &params, &Topic::Routes, |snapshot| {
        let asker = params.asker.renewed(&state)?;
        asker.read_service(service.as_str())?;
        let entry = snapshot.route_of(service.folded());
        entry.map(|entry| shown(&state, entry)).ok_or_else(|| {
            Error::not_found(format!("service {:?} has no route, and had none", service.as_str()))
        })
    })
    .await
}

fn shown(state: &State, entry: &RouteEntry) -> Value {
    let route = &entry.route;
    let (config, whole) = (state.config.load(), state.registry.load());
    // The same for all who may read the route, whichever nodes they may see.
    let world = World { snapshot: &whole, settings: &config.settings, view: &View::default() };
    let (steered, given) = select::given(world, entry);
    let total: u64 = given.iter().map(|share| u64::from(*share)).sum();
    let subset = |(subset, share): (&Subset, &u32)| {
        let percent = u64::from(*share) as f64 * 100.0 / total.max(1) as f64;
        json!({
            "Name": subset.name.as_deref().unwrap_or_default(),
            "By": subset.by.to_string(),
            "Share": subset.share,
            "Percent": (percent * 100.0).round() / 100.0,
        })
    };
    let texts = |subsets: &[Subset]| subsets.iter().map(Subset::to_string).collect::<Vec<_>>();
    let when = |set: u64| utc::rfc3339(UNIX_EPOCH + Duration::from_millis(set));
    let past = route.past.iter().map(|past| {
        json!({
            "Version": past.version, "Subsets": texts(&past.subsets), "Strict": past.strict, "Set": when(past.set),
            "Why": past.why,
        })
    });
    let time = |millis: u64| duration::format(Duration::from_millis(millis));
    json!({
        "Service": route.service,
        "Version": route.version,
        "Subsets": texts(&route.subsets),
        "Over": time(route.over),
        "AbortIfUnhealthy": route.guard.map_or_else(String::new, |guard| format!("{}%", guard.unhealthy)),
        "GuardFor": route.guard.map_or_else(String::new, |guard| time(guard.watch)),
        "Strict": route.strict,
        "Now": route.subsets.iter().zip(&given).map(subset).collect::<Vec<_>>(),
        "Answers": match steered {
            Steered::Free => "all",
            Steered::ByShares => "by shares",
            Steered::Fallback => "all, since nobody with a share is healthy",
            Steered::Strictly => "nobody, since nobody with a share is healthy",
        },
        "Set": when(route.set),
        "Why": route.why,
        "Past": past.collect::<Vec<_>>(),
        "CreateIndex": entry.create_index,
        "ModifyIndex": entry.modify_index,
    })
}
