//! Reports of how requests ended, for the circuit breaker of each instance: `PUT /v1/rollcall/report`.
//!
//! Callers and gateways send them in batches, once a second or so. A batch is looked at whole before anything is counted: one mistake, and
//! nothing is. Reports on instances that are gone are none: they are named in the answer, and the others count. An instance is
//! named by its ID, or, for clients that found it by DNS, by its address and port.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use crate::acl::{Access, Resource};
use crate::http::State;
use crate::http::decode::{Kind, Shape, decode};
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{self, Whole};
use crate::model::{InstanceId, NodeName, ServiceName};
use crate::registry::Snapshot;
use crate::registry::breaker::Counts;
use crate::registry::report::Report;
use crate::select;

/// A batch.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Body {
    reports: Vec<Entry>,
}

/// How requests to one instance ended.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Entry {
    service: String,
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    port: Option<i64>,
    success: i64,
    failure: i64,
}

pub(in crate::http) const BODY: Shape =
    Shape { fields: &[("Reports", Kind::List(&ENTRY))], aliases: &[], lax: false };

const ENTRY: Shape = Shape {
    fields: &[
        ("Service", Kind::Plain),
        ("ID", Kind::Plain),
        ("Node", Kind::Plain),
        ("Address", Kind::Plain),
        ("Port", Kind::Plain),
        ("Success", Kind::Plain),
        ("Failure", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};

pub(super) async fn report(
    Extract(state): Extract<Arc<State>>,
    params: Params,
    Whole(body): Whole,
) -> Result<Response, Error> {
    let Body { reports } = decode(&BODY, &body)?;
    // The token may have been taken away while the body came.
    let view = params.asker.again(&state)?;
    let limits = state.registry.limits();
    if reports.is_empty() {
        return Err(Error::bad("Missing Reports"));
    }
    if reports.len() > limits.reports_max {
        state.metrics.limits.hit("reports_max");
        let (count, max) = (reports.len(), limits.reports_max);
        return Err(Error::bad(format!("Reports {count}: at most {max} are allowed ([limits] reports_max)")));
    }
    let snapshot = state.registry.snapshot();
    let (mut known, mut places, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for (place, entry) in reports.iter().enumerate() {
        let told = |error: Error| Error { text: format!("Invalid report {place}: {}", error.text), ..error };
        let service = ServiceName::parse(&entry.service).map_err(|error| told(error.into()))?;
        view.require(Resource::Service, service.as_str(), Access::Write)?;
        let counts = entry.counts(limits.report_requests_max).map_err(|error| {
            if error.text.contains("report_requests_max") {
                state.metrics.limits.hit("report_requests_max");
            }
            told(error)
        })?;
        match entry.member(&snapshot, &service).map_err(told)? {
            Some((node, id)) => {
                places.push(place);
                known.push(Report { service, node, id, counts });
            }
            None => unknown.push(place),
        }
    }
    let gone = match known.is_empty() {
        true => Vec::new(),
        false => state.registry.report(known).await?,
    };
    let counted = places.len() - gone.len();
    unknown.extend(gone.into_iter().filter_map(|place| places.get(place)));
    unknown.sort_unstable();
    Ok(route::json(&json!({ "Counted": counted, "Unknown": unknown })))
}

impl Entry {
    fn counts(&self, max: u64) -> Result<Counts, Error> {
        let count = |name: &str, count: i64| {
            let fits = u64::try_from(count).ok().filter(|count| *count <= max);
            let text = || format!("{name} {count} is not between 0 and {max} ([limits] report_requests_max)");
            fits.ok_or_else(|| Error::bad(text()))
        };
        let counts = Counts { good: count("Success", self.success)?, bad: count("Failure", self.failure)? };
        match counts.good + counts.bad {
            0 => Err(Error::bad("it counts no request: Success and Failure are 0")),
            sum if sum > max => Err(Error::bad(format!(
                "Success and Failure are {sum} together, which is more than {max} ([limits] report_requests_max)"
            ))),
            _ => Ok(counts),
        }
    }

    /// The instance that is meant; none where there is none.
    fn member(
        &self,
        snapshot: &Snapshot,
        service: &ServiceName,
    ) -> Result<Option<(NodeName, InstanceId)>, Error> {
        let by_address = !self.address.is_empty() || self.port.is_some();
        let node = (!self.node.is_empty()).then(|| NodeName::parse(&self.node)).transpose()?;
        match (self.id.is_empty(), by_address) {
            (true, false) => return Err(Error::bad("name the instance: ID, or Address and Port")),
            (false, true) => {
                return Err(Error::bad("name the instance by ID or by Address and Port, not by both"));
            }
            (true, true) if self.address.is_empty() || self.port.is_none() => {
                return Err(Error::bad("Address and Port belong together"));
            }
            _ => {}
        }
        let entry = snapshot.service(service.folded());
        let all = entry.into_iter().flat_map(|entry| entry.instances.values());
        let mut found = all.filter(|entry| {
            let instance = &entry.instance;
            let here = node.as_ref().is_none_or(|node| *node == instance.node);
            let meant = match by_address {
                false => instance.id.as_str() == self.id,
                true => {
                    let reached =
                        snapshot.node(instance.node.folded()).map(|node| select::reached(entry, node));
                    reached.is_some_and(|reached| self.is_at(&reached))
                        && Some(i64::from(instance.port)) == self.port
                }
            };
            here && meant
        });
        let one = found.next().map(|entry| (entry.instance.node.clone(), entry.instance.id.clone()));
        match (&one, found.next()) {
            (Some((first, _)), Some(other)) => Err(Error::bad(format!(
                "it is on several nodes ({first}, {}); name one with Node",
                other.instance.node
            ))),
            _ => Ok(one),
        }
    }

    fn is_at(&self, reached: &select::Reached<'_>) -> bool {
        match self.address.parse::<std::net::IpAddr>().map(|ip| ip.to_canonical()) {
            Ok(std::net::IpAddr::V4(ip)) => reached.v4 == Some(ip),
            Ok(std::net::IpAddr::V6(ip)) => reached.v6 == Some(ip),
            Err(_) => reached.host.is_some_and(|host| host.eq_ignore_ascii_case(&self.address)),
        }
    }
}
