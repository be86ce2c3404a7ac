//! All services, and all nodes, with how many of their instances stand how: `GET /v1/rollcall/services` and `GET /v1/rollcall/nodes`.
//!
//! What a list of ten thousand needs, in one answer: Consul's listings have either names alone or every check. They block
//! (`?index=`, `?wait=`) until anything that they show may have changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::select_all;
use serde::Serialize;
use serde_json::{Value, json};

use super::in_pieces;
use crate::acl::{Access, Resource};
use crate::http::State;
use crate::http::blocking::{put_headers, with_jitter};
use crate::http::door::admission::Admitted;
use crate::http::door::parked;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::registry::snapshot::worst;
use crate::registry::{Health, InstanceEntry, NodeEntry, ServiceEntry, Snapshot, Topic};

/// Rows that are looked at before the size of the piece is.
const AT_ONCE: usize = 64;
/// Tags of a service that are shown.
const TAGS_MAX: usize = 16;

/// `?service=` (again for more): these alone.
pub(super) async fn services(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    let read =
        Read::when_due(&state, &params, "service", &[Topic::Services, Topic::Checks, Topic::Steady]).await?;
    let next = |snapshot: &Snapshot, last: Option<&str>, max| -> Vec<Arc<ServiceEntry>> {
        let from = snapshot.services_from(last.unwrap_or("")).skip_while(|s| Some(s.name.folded()) == last);
        from.take(max).cloned().collect()
    };
    let one = |snapshot: &Snapshot, name: &str| snapshot.service(name).cloned();
    let row = |snapshot: &Snapshot, asker: &Admitted, service: &Arc<ServiceEntry>| {
        let mut tags = BTreeSet::new();
        for tag in service.instances.values().flat_map(|entry| entry.instance.tags.iter()) {
            tags.insert(tag);
        }
        let mut row = counted(snapshot, service.instances.values());
        row["Name"] = json!(service.name);
        let (out, on_trial) = service.broken.as_ref().map_or((0, 0), |broken| broken.counts());
        row["Out"] = json!(out);
        row["OnTrial"] = json!(on_trial);
        row["Guarded"] = json!(service.guard.as_ref().map_or(0, |guard| guard.len()));
        row["Tags"] = tags.into_iter().take(TAGS_MAX).collect();
        row["Writable"] = json!(asker.view.allows(Resource::Service, service.name.folded(), Access::Write));
        row
    };
    Ok(read.written(next, one, row, |service| service.name.folded().to_owned()))
}

/// `?node=` (again for more): these alone.
pub(super) async fn nodes(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    let read = Read::when_due(&state, &params, "node", &[Topic::Nodes, Topic::Checks]).await?;
    let next = |snapshot: &Snapshot, last: Option<&str>, max| -> Vec<Arc<NodeEntry>> {
        let from = snapshot.nodes_from(last.unwrap_or("")).skip_while(|n| Some(n.node.name.folded()) == last);
        from.take(max).cloned().collect()
    };
    let one = |snapshot: &Snapshot, name: &str| snapshot.node(name).cloned();
    let row = |snapshot: &Snapshot, asker: &Admitted, node: &Arc<NodeEntry>| {
        let own =
            if node.maintenance.is_some() { Health::Maintenance } else { worst(&node.own_checks).into() };
        let mut row = counted(snapshot, node.instances.values());
        row["Name"] = json!(node.node.name);
        row["Address"] = json!(node.node.address.to_string());
        row["Health"] = json!(own.as_str());
        row["Writable"] = json!(asker.view.allows(Resource::Node, node.node.name.folded(), Access::Write));
        row
    };
    Ok(read.written(next, one, row, |node| node.node.name.folded().to_owned()))
}

/// How many instances there are, and how they stand.
#[derive(Serialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Counts {
    instances: usize,
    passing: usize,
    warning: usize,
    critical: usize,
    maintenance: usize,
}

fn counted<'a>(snapshot: &Snapshot, instances: impl Iterator<Item = &'a Arc<InstanceEntry>>) -> Value {
    let mut counts = Counts::default();
    for entry in instances {
        counts.instances += 1;
        match snapshot.health(entry) {
            Health::Passing => counts.passing += 1,
            Health::Warning => counts.warning += 1,
            Health::Critical => counts.critical += 1,
            Health::Maintenance => counts.maintenance += 1,
        }
    }
    json!(counts)
}

/// One read, when it is time to answer it.
struct Read {
    snapshot: Arc<Snapshot>,
    index: u64,
    asker: Admitted,
    consistency: &'static str,
    /// In lower case and in order; all where there is none.
    named: Vec<String>,
}

impl Read {
    async fn when_due(state: &State, params: &Params, of: &str, topics: &[Topic]) -> Result<Self, Error> {
        params.check_read(&state.config.load().datacenter)?;
        let (index, wait) = params.blocking()?;
        let mut asker = params.asker.clone();
        let mut snapshot = state.registry.snapshot();
        if index > 0 {
            let wait: Duration = with_jitter(wait, rand::random());
            parked::will_take_long();
            let any = topics.iter().map(|topic| Box::pin(state.registry.wait(topic, index, wait)));
            snapshot = tokio::select! {
                (woken, ..) = select_all(any) => woken?,
                () = state.shutdown.cancelled() => state.registry.snapshot(),
            };
            asker = asker.renewed(state)?;
        }
        let index = topics.iter().map(|topic| snapshot.index_of(topic)).max().unwrap_or(1);
        let named = params.all(of).map(str::to_ascii_lowercase).filter(|name| !name.is_empty());
        let named: BTreeSet<String> = named.collect();
        let snapshot = snapshot.seen_whole(&asker.view);
        Ok(Self {
            snapshot,
            index,
            asker,
            consistency: params.consistency(),
            named: named.into_iter().collect(),
        })
    }

    /// The answer, written while it is sent. `next` gives rows behind a name, `one` that of a name.
    fn written<T: Send + 'static>(
        self,
        next: impl Fn(&Snapshot, Option<&str>, usize) -> Vec<T> + Send + 'static,
        one: impl Fn(&Snapshot, &str) -> Option<T>,
        row: impl Fn(&Snapshot, &Admitted, &T) -> Value + Send + 'static,
        name: impl Fn(&T) -> String + Send + 'static,
    ) -> Response {
        let Self { snapshot, index, asker, consistency, named } = self;
        let mut some: Vec<T> = named.iter().filter_map(|name| one(&snapshot, name)).collect();
        let all = named.is_empty();
        let (hides, told) = (snapshot.hides(), asker.clone());
        let (mut last, mut begun, mut rows_before) = (None::<String>, false, false);
        let body = in_pieces(move |piece| {
            if !begun {
                piece.push(b'[');
            }
            begun = true;
            let rows = match all {
                true => next(&snapshot, last.as_deref(), AT_ONCE),
                false => std::mem::take(&mut some),
            };
            for one in &rows {
                if rows_before {
                    piece.push(b',');
                }
                rows_before = true;
                // Writing to memory does not fail, and a value is JSON.
                let _ = serde_json::to_writer(&mut *piece, &row(&snapshot, &asker, one));
            }
            last = rows.last().map(&name);
            let more = all && last.is_some();
            if !more {
                piece.push(b']');
            }
            more
        });
        let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
        put_headers(response.headers_mut(), index, consistency);
        told.filtered(response, hides)
    }
}
