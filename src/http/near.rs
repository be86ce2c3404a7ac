//! `?near=`: whom listings and executions begin near to.
//!
//! Consul sorts by the round-trip times that its agents measure. Here nearness is what was said of places: the same node, the
//! same zone, the same region. What is as near stays in its order; a node that nobody knows changes nothing.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::door::caller::Whose;
use super::error::Error;
use super::query::Params;
use super::{Config, State};
use crate::acl::View;
use crate::model::NodeName;
use crate::registry::{InstanceEntry, NodeEntry, Registry, Snapshot};
use crate::select::{Nearness, Origin, World, query};

/// Whoever asks, and whom it wants to be near to.
pub(super) struct Near {
    /// The parameter; empty where it was not given.
    pub(super) text: String,
    node: NodeName,
    /// The address of the client where it is not this machine: what a proxy says that passes the request on, else that of
    /// whoever is connected.
    address: Option<IpAddr>,
    config: Arc<Config>,
    registry: Registry,
    view: View,
}

/// The same of a request that says so; nothing of others.
pub(super) struct MaybeNear(Option<Near>);

impl FromRequestParts<Arc<State>> for Near {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Error> {
        let params = Params::from_request_parts(parts, state).await?;
        let Whose { caller, .. } = Whose::from_request_parts(parts, state).await?;
        let said = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
        let said = said.and_then(|list| list.split(',').next()?.trim().parse().ok());
        Ok(Self {
            text: params.get("near").unwrap_or_default().to_owned(),
            node: caller.node,
            address: said.or(caller.address),
            config: state.config.load_full(),
            registry: state.registry.clone(),
            view: params.asker.view,
        })
    }
}

impl FromRequestParts<Arc<State>> for MaybeNear {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Error> {
        let said = parts.uri.query().is_some_and(|query| query.contains("near="));
        Ok(Self(if said { Some(Near::from_request_parts(parts, state).await?) } else { None }))
    }
}

impl Near {
    /// What answers depend on beside the snapshot.
    pub(super) fn world<'a>(&'a self, snapshot: &'a Snapshot, view: &'a View) -> World<'a> {
        World { snapshot, settings: &self.config.settings, view }
    }

    /// Where `near`, in the words of Consul's API, is; `view` is that of whoever says it.
    pub(super) fn origin<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        view: &'a View,
        near: &str,
    ) -> Option<Origin<'a>> {
        let world = self.world(snapshot, view);
        let agent = || Origin::of_caller(world, &self.node, self.address);
        let address = || self.address.map_or_else(agent, |address| Origin::of_address(world, address));
        query::origin(world, near, agent, address)
    }
}

impl MaybeNear {
    /// Puts instances of which the nodes are known in order.
    pub(super) fn sort_instances(&self, snapshot: &Snapshot, entries: &mut [Arc<InstanceEntry>]) {
        self.sort(entries, |origin, entry| {
            let node = snapshot.node(entry.instance.node.folded());
            node.map_or(Nearness::Away, |node| origin.nearness(entry, node))
        });
    }

    /// Puts nodes in order.
    pub(super) fn sort_nodes(&self, entries: &mut [Arc<NodeEntry>]) {
        self.sort(entries, |origin, node| origin.nearness_of(node));
    }

    fn sort<T>(&self, all: &mut [T], nearness: impl Fn(&Origin<'_>, &T) -> Nearness) {
        let Some(near) = &self.0 else { return };
        // A snapshot as somebody sees it has no other nodes than the listing's.
        let whole = near.registry.snapshot();
        if let Some(origin) = near.origin(&whole, &near.view, &near.text) {
            all.sort_by_cached_key(|one| nearness(&origin, one));
        }
    }
}
