//! The HTTP API: Consul's for agents, catalog and health, and what operators need.
//!
//! One file for each family of URLs, each with its `routes()`; what every request passes is in [`door`]. Bodies are
//! read in [`decode`] and become the model's values in [`definition`]; what goes out has its form in [`shape`].
//! Consul's JSON is known here and nowhere else.

mod acl;
mod agent;
mod blocking;
mod catalog;
mod decode;
mod definition;
mod door;
mod error;
mod faces;
mod health;
mod listing;
mod near;
mod openapi;
mod ops;
mod prepared;
mod query;
mod route;
mod selectors;
mod shape;
mod status;
mod text;
mod ui;
mod unserved;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::audit::Audit;
use crate::filter;
use crate::model::{NodeName, Targets};
use crate::registry::Registry;
use crate::select;
use crate::telemetry::Metrics;
use crate::telemetry::trace::Tracer;

pub use acl::Jwks;
pub use agent::{Asked, Shown};
pub use definition::{check_of_file, service_of_file};
pub use door::admission::{NEEDS, Need};
pub use door::caller::{Over, Peer};
pub use door::connection::Open;
pub use door::listener::Listener;
pub use faces::Faces;
pub use openapi::document as openapi;

/// A long answer is made and sent in pieces of about this size.
const PIECE_OCTETS: usize = 64 * 1024;

/// What the API needs to know beside the registry.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our own node, for which callers on this machine act.
    pub node: NodeName,
    pub node_id: Uuid,
    pub datacenter: String,
    /// What answers depend on beside the registry, as in DNS.
    pub settings: select::Settings,
    /// Host names, beside our node's and localhost, under which we may be asked.
    pub allowed_hosts: Vec<String>,
    /// Whether script checks may be registered.
    pub script_checks: bool,
    /// Where keys of auth methods may be fetched.
    pub targets: Targets,
    pub body_octets_max: usize,
    pub connections_max: usize,
    pub connections_per_client_max: usize,
    /// How long a connection may be idle, or take to send a request's head.
    pub idle: Duration,
    /// How long a body may take to arrive.
    pub body_wait: Duration,
    /// How large an expression of `?filter=` may be.
    pub filter: filter::Limits,
    /// How long a handshake of TLS may take.
    pub handshake_wait: Duration,
    pub handshakes_max: usize,
    pub handshakes_per_client_max: usize,
    /// How long an import may be.
    pub import_octets_max: usize,
    /// Streams of changes at once, and changes that are kept for them.
    pub streams_max: usize,
    pub events_max: usize,
    /// Drains that wait at once.
    pub drains_max: usize,
    /// Backups at once.
    pub backups_max: usize,
    /// A second; 0: no limit.
    pub requests_per_client_max: usize,
    /// How long a client may take nothing of what it is sent.
    pub write_wait: Duration,
    /// Clients that may follow the log at once, and lines that wait for each.
    pub monitors_max: usize,
    pub monitor_lines_max: usize,
    /// Whether the web page is served.
    pub ui: bool,
    pub shown: Shown,
}

/// What the handlers share.
pub struct State {
    pub registry: Registry,
    pub config: ArcSwap<Config>,
    pub metrics: Arc<Metrics>,
    pub audit: Audit,
    pub traces: Tracer,
    /// Keys of auth methods that stand elsewhere.
    pub jwks: Jwks,
    /// Connections of all listeners.
    pub open: Open,
    /// Cancelled when the server stops: those who wait are answered.
    pub shutdown: CancellationToken,
    /// When it will be; once the server was told to stop, it is served on until then.
    pub leaving: OnceLock<tokio::time::Instant>,
    pub faces: Faces,
    /// Tells what DNS answers, and why.
    pub explainer: select::Explainer,
    /// To whoever runs the server.
    pub asked: mpsc::Sender<Asked>,
}

impl State {
    /// Takes another configuration, at a reload.
    pub fn reconfigure(&self, config: Config) {
        let former = self.config.swap(Arc::new(config));
        self.faces.former.keep(former);
    }
}

/// Answers on a listener until the shutdown; returns when every connection has ended.
pub async fn serve(listener: Listener, state: Arc<State>) {
    let routes = routes(state.clone());
    door::connection::accept(listener, routes, state).await;
}

fn routes(state: Arc<State>) -> Router {
    Router::new()
        .merge(agent::routes())
        .merge(catalog::routes())
        .merge(health::routes())
        .merge(prepared::routes())
        .merge(status::routes())
        .merge(acl::routes())
        .merge(openapi::routes())
        .merge(ops::routes())
        .merge(faces::routes())
        .merge(ui::routes())
        .fallback(unserved::not_found)
        .layer(middleware::from_fn_with_state(state.clone(), route::finish))
        .with_state(state)
}

#[cfg(test)]
impl Config {
    fn for_tests() -> Self {
        Self {
            node: NodeName::parse("n1").unwrap(),
            node_id: Uuid::nil(),
            datacenter: "dc1".into(),
            settings: select::Settings {
                ttl_ceiling: Duration::from_secs(5),
                service_ttl: Vec::new(),
                a_limit: Vec::new(),
                nearest: Vec::new(),
                clients: Default::default(),
            },
            allowed_hosts: Vec::new(),
            script_checks: false,
            targets: Targets::default(),
            body_octets_max: 1 << 20,
            connections_max: 10,
            connections_per_client_max: 10,
            idle: Duration::from_secs(60),
            body_wait: Duration::from_secs(10),
            filter: filter::Limits { octets_max: 1000, matches_max: 10 },
            handshake_wait: Duration::from_secs(10),
            handshakes_max: 10,
            handshakes_per_client_max: 10,
            import_octets_max: 1 << 20,
            streams_max: 10,
            drains_max: 10,
            events_max: 100,
            backups_max: 10,
            requests_per_client_max: 0,
            write_wait: Duration::from_secs(10),
            monitors_max: 1,
            monitor_lines_max: 10,
            ui: true,
            shown: Shown::default(),
        }
    }
}
