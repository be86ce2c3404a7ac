//! Prometheus' HTTP service discovery: `GET /v1/rollcall/http_sd`.
//!
//! A list of `{"targets": ["host:port"], "labels": {...}}`, one for each instance, as `http_sd_configs` reads it. Prometheus
//! keeps the targets that it has when an answer is an error, and drops all of them when it is an empty list: so whatever
//! cannot be told is an error, never an empty list. Labels are named as those of Prometheus' own discovery through
//! Consul, `__meta_consul_` become `__meta_rollcall_`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::in_pieces;
use crate::http::State;
use crate::http::error::Error;
use crate::http::query::{Params, parse_bool};
use crate::http::shape::has_meta;
use crate::model::{Address, Origin, Texts};
use crate::registry::{Health, InstanceEntry, NodeEntry, ServiceEntry, Snapshot};

/// One group of targets.
#[derive(Serialize)]
struct Group {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Which instances are wanted.
struct Wanted {
    /// Names in lower case, in their order; all services where there is none.
    services: Vec<String>,
    /// All of them; in lower case.
    tags: Vec<String>,
    node_meta: Vec<(String, String)>,
    /// The worst health that is still shown.
    health: Health,
}

/// `?service=` (again for more), `?tag=` (again: all of them), `?node-meta=key:value`; `?passing` shows those that pass alone,
/// `?passing=false` also critical ones and those in maintenance; without it what DNS answers with.
pub(super) async fn targets(Extract(state): Extract<Arc<State>>, params: Params) -> Result<Response, Error> {
    let wanted = Wanted::from(&params)?;
    let snapshot = state.registry.snapshot().seen_whole(&params.asker.view);
    let (hides, datacenter) = (snapshot.hides(), state.config.load().datacenter.clone());
    let mut last: Option<Arc<InstanceEntry>> = None;
    let (mut begun, mut ended) = (false, false);
    let body = in_pieces(move |piece| {
        if !begun {
            begun = true;
            piece.push(b'[');
        }
        if ended {
            return false;
        }
        let mut some = None;
        for entry in wanted.instances(&snapshot, last.as_ref()).take(AT_ONCE) {
            if let Some(group) = wanted.group(&snapshot, entry, &datacenter) {
                // `[` stands alone before the first one.
                if piece.last() != Some(&b'[') {
                    piece.push(b',');
                }
                // Writing to memory does not fail, and the labels are texts.
                let _ = serde_json::to_writer(&mut *piece, &group);
            }
            some = Some(entry.clone());
        }
        ended = some.is_none();
        last = some;
        if ended {
            piece.push(b']');
        }
        !ended
    });
    let response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    Ok(params.asker.filtered(response, hides))
}

/// Instances that are looked at before the size of the piece is.
const AT_ONCE: usize = 64;

impl Wanted {
    fn from(params: &Params) -> Result<Self, Error> {
        let bad = || Error::bad("Invalid value for ?passing");
        let health = match params.get("passing") {
            None => Health::Warning,
            Some("") => Health::Passing,
            Some(text) if parse_bool(text).ok_or_else(bad)? => Health::Passing,
            Some(_) => Health::Maintenance,
        };
        let folded = |name| params.all(name).map(str::to_ascii_lowercase).filter(|text| !text.is_empty());
        let mut services: Vec<_> = folded("service").collect();
        services.sort_unstable();
        services.dedup();
        let node_meta = params.node_meta();
        Ok(Self {
            services,
            tags: folded("tag").collect(),
            node_meta: node_meta.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            health,
        })
    }

    /// The instances of the services that are wanted which come after one.
    fn instances<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        last: Option<&'a Arc<InstanceEntry>>,
    ) -> impl Iterator<Item = &'a Arc<InstanceEntry>> {
        let from = last.map_or("", |last| last.instance.service.folded());
        let named = self.services.iter().filter(move |name| name.as_str() >= from);
        let named = named.filter_map(|name| snapshot.service(name));
        let all = self.services.is_empty().then(|| snapshot.services_from(from));
        let services = named.chain(all.into_iter().flatten());
        services.flat_map(move |service: &'a Arc<ServiceEntry>| {
            let begun = last.filter(|last| last.instance.service == service.name);
            let rest = begun.map(|last| service.instances.behind(last));
            let whole = begun.is_none().then(|| service.instances.values());
            rest.into_iter().flatten().chain(whole.into_iter().flatten())
        })
    }

    /// An instance as a group of its own, if it is wanted.
    fn group(&self, snapshot: &Snapshot, entry: &InstanceEntry, datacenter: &str) -> Option<Group> {
        // Nothing listens where every server says that it is.
        if entry.instance.origin == Origin::Own {
            return None;
        }
        let health = snapshot.health(entry);
        let node = snapshot.node(entry.instance.node.folded())?;
        let meta: Vec<(&str, &str)> = self.node_meta.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let tags = &entry.instance.tags;
        let tagged = self.tags.iter().all(|tag| tags.iter().any(|own| own.eq_ignore_ascii_case(tag)));
        (health <= self.health && tagged && has_meta(node, &meta))
            .then(|| Group::new(node, entry, health, datacenter))
    }
}

impl Group {
    fn new(node: &NodeEntry, entry: &InstanceEntry, health: Health, datacenter: &str) -> Self {
        let (instance, node) = (&entry.instance, &node.node);
        let own = instance.address.as_ref().map_or_else(String::new, Address::to_string);
        let mut labels = BTreeMap::new();
        let mut put =
            |name: &str, value: String| drop(labels.insert(format!("__meta_rollcall_{name}"), value));
        put("service", instance.service.to_string());
        put("service_id", instance.id.to_string());
        put("service_address", own);
        put("service_port", instance.port.to_string());
        put("tags", tags(&instance.tags));
        put("health", health.as_str().to_owned());
        put("node", node.name.to_string());
        put("address", node.address.to_string());
        put("dc", datacenter.to_owned());
        for (key, value) in instance.meta.iter() {
            put(&format!("service_metadata_{}", label(key)), value.to_owned());
        }
        for (key, value) in &node.meta {
            put(&format!("metadata_{}", label(key)), value.clone());
        }
        for (key, address) in &node.tagged_addresses {
            put(&format!("tagged_address_{}", label(key)), address.to_string());
        }
        Self { targets: [target(instance.address.as_ref().unwrap_or(&node.address), instance.port)], labels }
    }
}

/// `host:port`; the host alone where there is no port, so that a relabelling can add one.
fn target(address: &Address, port: u16) -> String {
    let host = match address {
        Address::Ip(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        other => other.to_string(),
    };
    if port == 0 { host } else { format!("{host}:{port}") }
}

/// Between commas, one at each end too, so that a pattern finds a whole tag as `,tag,`.
fn tags(tags: &Texts) -> String {
    tags.iter().fold(",".to_owned(), |all, tag| all + tag + ",")
}

/// What a label's name may hold.
fn label(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
