//! Prepared queries, carried out. DNS, HTTP and whatever explains an answer come here, so that all say the same.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::near::Origin;
use super::why::{self, Considered, Why};
use super::{Known, World, chosen, seconds, stable_for, weight};
use crate::model::PreparedQuery;
use crate::model::query::Wanted;
use crate::registry::{Health, InstanceEntry, NodeEntry, QueryEntry, ServiceEntry};

/// The longest TTL that a query can ask for.
const TTL_MAX: Duration = Duration::from_secs(86_400);

/// What a query is under a name: itself, or what its template makes of the name. Found under its id, a template has its own
/// name.
pub fn rendered<'a>(entry: &'a QueryEntry, name: &str) -> Cow<'a, PreparedQuery> {
    match &entry.template {
        None => Cow::Borrowed(&entry.query),
        Some(template) => Cow::Owned(template.render(name)),
    }
}

/// The instances that a query wants, by node and id; none where there is no such service. `near` is what its own
/// [`Wanted::near`] leads to, or what whoever asks says instead.
pub fn execute<'a>(world: World<'a>, query: &PreparedQuery, near: Option<&Origin<'_>>) -> Option<Known<'a>> {
    let wanted = &query.service;
    let service = world.snapshot.service(&wanted.service.to_ascii_lowercase())?;
    if !world.view.reads_service(service.name.folded()) {
        return None;
    }
    let ceiling = ceiling(world, query);
    let (mut found, mut ttl) = (Vec::new(), ceiling);
    for entry in service.instances.values() {
        let Ok((node, health)) = judge(world, service, wanted, entry) else { continue };
        ttl = ttl.min(stable_for(entry, node));
        found.push(chosen(entry, node, health, near));
    }
    weight::temper(&mut found, service);
    Some(Known { nearest_first: near.is_some(), ..Known::new(service, found, seconds(ttl, ceiling)) })
}

/// Whether something of what a query wants is left out because it may not be seen.
pub fn hides(world: World<'_>, query: &PreparedQuery) -> bool {
    let Some(service) = world.snapshot.service(&query.service.service.to_ascii_lowercase()) else {
        return false;
    };
    !world.view.is_open()
        && (!world.view.reads_service(service.name.folded())
            || service.instances.values().any(|entry| !world.view.reads_node(entry.instance.node.folded())))
}

/// The decision about one instance: where it is in, its node and its health; else why it is out.
fn judge<'a>(
    world: World<'a>,
    service: &ServiceEntry,
    wanted: &Wanted,
    entry: &InstanceEntry,
) -> Result<(&'a Arc<NodeEntry>, Health), Why> {
    let node = world.snapshot.node(entry.instance.node.folded()).ok_or(Why::Nowhere)?;
    if !world.view.reads_node(node.node.name.folded()) {
        return Err(Why::Hidden);
    }
    if !wants(wanted, entry, node) {
        return Err(Why::Unwanted);
    }
    let health = match wanted.ignore_checks.is_empty() {
        true => world.snapshot.health(entry),
        false => world.snapshot.health_without(entry, &wanted.ignore_checks),
    };
    match health {
        Health::Warning if wanted.only_passing => Err(Why::NotPassing),
        health if !health.is_served() => Err(health.into()),
        _ if why::is_out(service, entry) => Err(Why::Broken),
        health => Ok((node, health)),
    }
}

/// All instances of the service that a query is about, and what became of each; `known` is what [`execute`] gave.
pub fn considered<'a>(
    world: World<'a>,
    query: &PreparedQuery,
    known: Option<&Known<'a>>,
) -> Vec<Considered<'a>> {
    let Some(known) = known else { return Vec::new() };
    let judge = |entry: &'a Arc<InstanceEntry>| {
        judge(world, known.service, &query.service, entry).map(|(_, health)| health)
    };
    why::judged(world, known.service, Some(known), judge)
}

/// The longest that an answer of a query may live: what it says itself, else what is said of its service.
pub fn ceiling(world: World<'_>, query: &PreparedQuery) -> Duration {
    longest_ttl(query).unwrap_or_else(|| world.settings.ceiling(&query.service.service.to_ascii_lowercase()))
}

/// The TTL that a query has of its own.
pub(super) fn longest_ttl(query: &PreparedQuery) -> Option<Duration> {
    query.ttl().map(|ttl| ttl.min(TTL_MAX))
}

fn wants(wanted: &Wanted, entry: &InstanceEntry, node: &NodeEntry) -> bool {
    let has = |tag: &str| entry.instance.tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
    wanted.tags.iter().all(|tag| match tag.strip_prefix('!') {
        Some(tag) => !has(tag),
        None => has(tag),
    }) && wanted.node_meta.iter().all(|(key, value)| node.node.meta.get(key) == Some(value))
        && wanted.service_meta.iter().all(|(key, value)| entry.instance.meta.get(key) == Some(value))
}

/// From where a query is asked whose [`Wanted::near`] is this text: near a node, near the `agent` that is asked (for us: the
/// node of whoever asks), or near the address of whoever asks. None where the text is empty, or names nobody: then nothing is
/// near.
pub fn origin<'a>(
    world: World<'a>,
    near: &str,
    agent: impl FnOnce() -> Origin<'a>,
    address: impl FnOnce() -> Origin<'a>,
) -> Option<Origin<'a>> {
    match near {
        "" => None,
        "_agent" => Some(agent()),
        "_ip" => Some(address()),
        name => world.node(&name.to_ascii_lowercase()).map(|node| Origin::of_node(node)),
    }
}
