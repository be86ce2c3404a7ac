//! Carrying an import out: what differs goes to the registry, many parts at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;

use super::gather::{Gathered, named};
use super::report::{Count, Refusal, Report};
use crate::http::State;
use crate::model::{CheckKind, InstanceId, Key, NodeName, Origin};
use crate::registry::{Brought, Command, NodeEntry, Refused, Snapshot, Steer};

/// Parts that wait for the disk together.
const UNDER_WAY_MAX: usize = 256;
/// The pause when others have filled the registry's queue, and how often.
const BUSY_AGAIN: Duration = Duration::from_millis(20);
const BUSY_MAX: usize = 250;

/// Does what a document says, and tells what came of it.
pub(super) async fn carry(state: Arc<State>, gathered: Gathered, dry_run: bool, prune: bool) -> Report {
    let Gathered { nodes, instances, loose, queries, routes, keys, file_owned, refused, .. } = gathered;
    let mut report = Report { dry_run, file_owned, ..Report::default() };
    refused.into_iter().for_each(|refusal| report.refuse(refusal));
    let whole = report.refused.is_empty();
    // Instances need their nodes, and what stands apart needs both.
    for parts in [nodes, instances, loose] {
        let snapshot = state.registry.snapshot();
        let own = state.config.load().node.clone();
        let different: Vec<Brought> =
            parts.into_iter().filter(|part| weigh(&snapshot, &own, part, &mut report)).collect();
        if !dry_run {
            let commands =
                different.into_iter().filter_map(|part| Some((owner(&part)?, Command::Import(part))));
            submit(&state, commands, &mut report).await;
        }
    }
    let here = state.registry.snapshot();
    let mut puts = Vec::new();
    for query in queries {
        let old = here.query(query.id);
        if report.queries.weigh(old.is_some(), old.is_some_and(|old| *old.query == query)) {
            puts.push((Key::Query(query.id), Command::PutQuery { query, new: true }));
        }
    }
    for route in routes {
        let old = here.route_of(route.service.folded());
        if report.routes.weigh(old.is_some(), old.is_some_and(|old| *old.route == route)) {
            let service = route.service.clone();
            let command = Command::Route { service: service.clone(), steer: Steer::Bring(Box::new(route)) };
            puts.push((Key::Route(service), command));
        }
    }
    if !dry_run {
        submit(&state, puts.into_iter(), &mut report).await;
    }
    if prune && (!whole || report.broke_off) {
        report.not_pruned = Some("not everything could be read or taken: nothing was removed".to_owned());
    } else if prune {
        let own = state.config.load().node.clone();
        let gone = superfluous(&state.registry.snapshot(), &own, &keys);
        gone.iter().for_each(|key| report.remove(named(key)));
        if !dry_run {
            submit(
                &state,
                gone.into_iter().filter_map(|key| Some((key.clone(), removal(key)?))),
                &mut report,
            )
            .await;
        }
    }
    report
}

/// Submits all, and counts what is refused. When one cannot be stored, no more are tried.
async fn submit(
    state: &State,
    mut commands: impl Iterator<Item = (Key, Command)> + Send,
    report: &mut Report,
) {
    let broke_off = AtomicBool::new(false);
    {
        let next = || if broke_off.load(Ordering::Relaxed) { None } else { commands.next() };
        let outcomes = futures_util::stream::iter(std::iter::from_fn(next))
            .map(|(key, command)| async move { (key, patiently(state, command).await) })
            .buffer_unordered(UNDER_WAY_MAX);
        let mut outcomes = std::pin::pin!(outcomes);
        while let Some((key, outcome)) = outcomes.next().await {
            let Err(refused) = outcome else { continue };
            if matches!(refused, Refused::Unavailable(_)) {
                broke_off.store(true, Ordering::Relaxed);
            }
            report.refuse(Refusal::new(named(&key), refused.to_string()));
        }
    }
    if broke_off.into_inner() {
        report.broke_off = true;
        report.not_tried += commands.count();
    }
}

/// Waits for a place where others have filled the queue.
async fn patiently(state: &State, command: Command) -> Result<(), Refused> {
    for _ in 0..BUSY_MAX {
        match state.registry.submit(command.clone()).await {
            Err(Refused::Busy { .. }) => tokio::time::sleep(BUSY_AGAIN).await,
            outcome => return outcome,
        }
    }
    state.registry.submit(command).await
}

/// What a part is about.
fn owner(part: &Brought) -> Option<Key> {
    let Brought { node, instance, checks, maintenance } = part;
    let of = |node: &NodeName, id: Option<&InstanceId>| match id {
        Some(id) => Key::Instance(node.clone(), id.clone()),
        None => Key::Node(node.clone()),
    };
    let instance = instance.as_ref().map(|instance| of(&instance.node, Some(&instance.id)));
    let node = node.as_ref().map(|node| of(&node.name, None));
    let check = checks.first().map(|seen| of(&seen.check.node, seen.check.instance.as_ref()));
    let word = maintenance.first().map(|word| of(&word.node, word.instance.as_ref()));
    instance.or(node).or(check).or(word)
}

fn removal(key: Key) -> Option<Command> {
    let (node, instance, check) = match key {
        Key::Node(node) => (node, None, None),
        Key::Instance(node, id) => (node, Some(id), None),
        Key::Check(node, id) => (node, None, Some(id)),
        // The operators' word: an import does not take it back.
        Key::Maintenance(..) | Key::Acl(_) | Key::Route(_) => return None,
        Key::Query(id) => return Some(Command::RemoveQuery { id }),
    };
    Some(Command::CatalogDeregister { node, instance, check })
}

/// Counts a part against what is here; whether anything of it differs.
fn weigh(here: &Snapshot, own: &NodeName, part: &Brought, report: &mut Report) -> bool {
    let mut differs = false;
    let mut count = |count: &mut Count, known: bool, same: bool| differs |= count.weigh(known, same);
    if let Some(node) = &part.node {
        let entry = here.node(node.name.folded());
        // Our own node is what the configuration says.
        let same = node.name == *own || entry.is_some_and(|entry| *entry.node == *node);
        count(&mut report.nodes, entry.is_some(), same);
    }
    if let Some(instance) = &part.instance {
        let entry = here.instance(instance.node.folded(), instance.id.as_str());
        let origin = entry.map(|entry| entry.instance.origin);
        if origin == Some(Origin::Agent) && instance.origin == Origin::Catalog {
            report.kept += 1;
            return false;
        }
        count(&mut report.services, entry.is_some(), entry.is_some_and(|entry| *entry.instance == *instance));
    }
    for seen in &part.checks {
        let entry = here.check(&seen.check.key());
        let same = entry.is_some_and(|old| {
            let defined = seen.check.clone().with(|terms| terms.initial = old.check.initial) == old.check;
            let follows = matches!(seen.check.kind, CheckKind::External);
            defined && (!follows || (old.status == seen.status && *old.output == *seen.output))
        });
        count(&mut report.checks, entry.is_some(), same);
    }
    for word in &part.maintenance {
        let node = here.node(word.node.folded());
        let set = node.is_some_and(|node| match &word.instance {
            None => node.maintenance.is_some(),
            Some(id) => node.instances.get(id).is_some_and(|entry| entry.maintenance.is_some()),
        });
        count(&mut report.maintenance, set, set);
    }
    differs
}

/// What came through the catalog and is not named.
fn superfluous(here: &Snapshot, own: &NodeName, named: &std::collections::HashSet<Key>) -> Vec<Key> {
    let mut gone = Vec::new();
    for node in here.nodes() {
        let name = &node.node.name;
        let before = gone.len();
        let instances = node.instances.values().filter(|entry| entry.instance.origin == Origin::Catalog);
        let instances = instances.map(|entry| Key::Instance(name.clone(), entry.instance.id.clone()));
        gone.extend(instances.filter(|key| !named.contains(key)));
        let checks = node.checks.values().filter(|entry| entry.check.origin == Origin::Catalog);
        let checks = checks.filter(|entry| {
            let of = entry.check.instance.as_ref().map(|id| Key::Instance(name.clone(), id.clone()));
            !named.contains(&Key::Check(name.clone(), entry.check.id.clone()))
                && of.is_none_or(|of| named.contains(&of))
        });
        gone.extend(checks.map(|entry| Key::Check(name.clone(), entry.check.id.clone())));
        if *name != *own
            && !node.node.implied
            && !named.contains(&Key::Node(name.clone()))
            && empties(node, &gone[before..])
        {
            gone.push(Key::Node(name.clone()));
        }
    }
    gone
}

/// Whether nothing is left on a node when these are gone.
fn empties(node: &NodeEntry, gone: &[Key]) -> bool {
    let instances = gone.iter().filter(|key| matches!(key, Key::Instance(..))).count();
    let own = gone.iter().filter(|key| matches!(key, Key::Check(..))).count();
    node.instances.len() == instances && node.own_checks.len() == own && node.maintenance.is_none()
}
