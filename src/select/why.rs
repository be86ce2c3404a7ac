//! Why an instance is in an answer, or is not.
//!
//! The decision about one instance is one function for each kind of question, which says why: [`judge`] here, and
//! [`query::judge`](super::query). `select` goes by their word and forgets the reasons, which are plain numbers until then; whoever
//! explains an answer asks the same functions again, of the same world, and so tells what DNS did.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::route::About;
use super::{Asked, Known, Nearness, Reached, Selection, World, flips_after, reached};
use crate::registry::breaker::Circuit;
use crate::registry::{CheckEntry, Health, InstanceEntry, NodeEntry, ServiceEntry};

/// Why an instance is in an answer, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// It is given: nothing is wrong with it.
    Passing,
    /// It is given, with the weight that it has while something warns.
    Warning,
    /// It is given although it is critical, since too many failed at once.
    Guarded,
    /// It is given although its circuit is open, since nobody else is left of those whom the name is about.
    Spared,
    /// It is given by its host name, whose addresses others know.
    ByName,
    /// It lacks the tag that is asked for.
    Untagged,
    /// The asker may not see it.
    Hidden,
    /// It is not as a prepared query wants it.
    Unwanted,
    /// Its node is not there.
    Nowhere,
    /// The operators' word.
    Maintenance,
    /// A check of it or of its node fails.
    Critical,
    /// Its circuit is open: requests to it failed.
    Broken,
    /// A check of it or of its node warns, and only what passes is wanted.
    NotPassing,
    /// Enough are nearer to the client.
    Farther,
    /// The service's route gives it no share.
    Unrouted,
    /// It has no address of the family, or none at all.
    Unreachable,
    /// Its address is a host name, and nobody is asked for its addresses.
    Unresolved,
    /// It has no meta, which is what is asked for.
    Textless,
    /// Answers have so many addresses at most, and this time others were drawn.
    NotDrawn,
}

impl Why {
    /// Whether it is in the answer.
    pub fn is_in(self) -> bool {
        matches!(self, Self::Passing | Self::Warning | Self::Guarded | Self::Spared | Self::ByName)
    }

    /// One word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Guarded => "guarded",
            Self::Spared => "spared",
            Self::ByName => "by-name",
            Self::Untagged => "untagged",
            Self::Hidden => "hidden",
            Self::Unwanted => "unwanted",
            Self::Nowhere => "nowhere",
            Self::Maintenance => "maintenance",
            Self::Critical => "critical",
            Self::Broken => "broken",
            Self::NotPassing => "not-passing",
            Self::Farther => "farther",
            Self::Unrouted => "unrouted",
            Self::Unreachable => "unreachable",
            Self::Unresolved => "unresolved",
            Self::Textless => "textless",
            Self::NotDrawn => "not-drawn",
        }
    }

    /// Whether an instance that is out for this reason does not even make the name exist.
    pub(super) fn is_absent(self) -> bool {
        matches!(self, Self::Untagged | Self::Hidden)
    }
}

impl From<Health> for Why {
    fn from(health: Health) -> Self {
        match health {
            Health::Passing => Self::Passing,
            Health::Warning => Self::Warning,
            Health::Critical => Self::Critical,
            Health::Maintenance => Self::Maintenance,
        }
    }
}

/// The decision about one instance, as far as it is its own: where it is in, its node and its health, which is critical where a
/// guard keeps it; else why it is out.
pub(super) fn judge<'a>(
    world: World<'a>,
    service: &ServiceEntry,
    entry: &InstanceEntry,
    about: About<'_>,
) -> Result<(&'a Arc<NodeEntry>, Health), Why> {
    // Whoever asks for tags that nobody has is to cost little.
    if !about.has(&entry.instance) {
        return Err(Why::Untagged);
    }
    if !world.view.reads_node(entry.instance.node.folded()) {
        return Err(Why::Hidden);
    }
    let health = world.snapshot.health(entry);
    let kept = || {
        let guard = service.guard.as_ref().filter(|_| health == Health::Critical);
        guard.is_some_and(|guard| guard.keeps(&entry.instance.node, &entry.instance.id))
    };
    if !health.is_served() && !kept() {
        return Err(health.into());
    }
    if is_out(service, entry) {
        return Err(Why::Broken);
    }
    let node = world.snapshot.node(entry.instance.node.folded()).ok_or(Why::Nowhere)?;
    Ok((node, health))
}

/// Whether its circuit is open.
pub(super) fn is_out(service: &ServiceEntry, entry: &InstanceEntry) -> bool {
    circuit(service, entry) == Some(Circuit::Open)
}

fn circuit(service: &ServiceEntry, entry: &InstanceEntry) -> Option<Circuit> {
    service.broken.as_ref()?.circuit(&entry.instance.node, &entry.instance.id)
}

/// An instance that was considered, and what became of it.
#[derive(Clone, Copy)]
pub struct Considered<'a> {
    pub entry: &'a Arc<InstanceEntry>,
    /// None where it is not there.
    pub node: Option<&'a Arc<NodeEntry>>,
    pub why: Why,
    /// What it has in SRV records, or would have.
    pub weight: u16,
    /// Percent of its weight that it has, while it starts slowly.
    pub eased: Option<u8>,
    /// Its circuit is half open.
    pub trial: bool,
    pub reached: Reached<'a>,
    pub nearness: Nearness,
}

/// All instances of a service that was asked for, in their order, and what became of each: what [`select`](super::select) did,
/// told from the same world.
pub fn considered<'a>(world: World<'a>, asked: Asked<'_>, selection: &Selection<'a>) -> Vec<Considered<'a>> {
    let service = match selection {
        Selection::Known(known) => Some(known.service),
        Selection::Unknown | Selection::Above => world.snapshot.service(asked.service),
    };
    let known = match selection {
        Selection::Known(known) => Some(known),
        Selection::Unknown | Selection::Above => None,
    };
    let visible = |service: &&Arc<ServiceEntry>| world.view.reads_service(service.name.folded());
    let Some(service) = service.filter(visible) else { return Vec::new() };
    let about = About::of(world, service.name.folded(), asked.tag);
    judged(world, service, known, |entry| judge(world, service, entry, about).map(|(_, health)| health))
}

/// The same by any judge.
pub(super) fn judged<'a>(
    world: World<'a>,
    service: &'a Arc<ServiceEntry>,
    known: Option<&Known<'a>>,
    judge: impl Fn(&'a Arc<InstanceEntry>) -> Result<Health, Why>,
) -> Vec<Considered<'a>> {
    let key = |entry: &Arc<InstanceEntry>| Arc::as_ptr(entry);
    let mut near = HashMap::new();
    if let Some(known) = known {
        near.extend(known.chosen.iter().map(|chosen| (key(chosen.entry), (None, *chosen))));
        near.extend(known.farther.iter().map(|chosen| (key(chosen.entry), (Some(Why::Farther), *chosen))));
        near.extend(known.aside.iter().map(|chosen| (key(chosen.entry), (Some(Why::Unrouted), *chosen))));
    }
    let tell = |entry: &'a Arc<InstanceEntry>| {
        let node = world.snapshot.node(entry.instance.node.folded());
        let verdict = judge(entry);
        let weights = entry.instance.weights;
        let (left, chosen) = near.get(&key(entry)).copied().unzip();
        let own = if verdict == Ok(Health::Warning) { weights.warning } else { weights.passing };
        let instance = &entry.instance;
        Considered {
            entry,
            node,
            why: match verdict {
                Ok(health) => match (left.flatten(), health) {
                    (Some(left), _) => left,
                    (None, Health::Critical) => Why::Guarded,
                    (None, health) => health.into(),
                },
                Err(Why::Broken) if chosen.is_some() => left.flatten().unwrap_or(Why::Spared),
                Err(why) => why,
            },
            weight: chosen.map_or(own, |chosen| chosen.weight),
            trial: circuit(service, entry) == Some(Circuit::HalfOpen),
            eased: service.eased.as_ref().and_then(|eased| eased.percent(&instance.node, &instance.id)),
            reached: node.map(|node| reached(entry, node)).unwrap_or_default(),
            nearness: chosen.map_or(Nearness::Away, |chosen| chosen.nearness),
        }
    };
    service.instances.values().map(tell).collect()
}

/// What bounds the TTL of an answer.
#[derive(Clone, Copy)]
pub struct Pace<'a> {
    /// The longest that answers of the service may live.
    pub ceiling: Duration,
    /// The check that can change an answer first, and how long that takes at least; none where no check can sooner than the
    /// ceiling.
    pub soonest: Option<(&'a Arc<CheckEntry>, Duration)>,
}

impl<'a> Known<'a> {
    /// What bounds its TTL, below a ceiling.
    pub fn pace(&self, ceiling: Duration) -> Pace<'a> {
        let healthy = self.chosen.iter().chain(&self.farther).chain(&self.aside);
        let checks = healthy.flat_map(|chosen| chosen.entry.checks.iter().chain(&chosen.node.own_checks));
        let soonest = checks.map(|check| (check, flips_after(check))).min_by_key(|(_, after)| *after);
        Pace { ceiling, soonest: soonest.filter(|(_, after)| *after < ceiling) }
    }
}
