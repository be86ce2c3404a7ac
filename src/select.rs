//! Which instances answer a question, in what order, with what weight and TTL, and why.
//!
//! Pure: the world is one snapshot and the settings, all chance comes in as a number. DNS encodes what
//! comes out; whatever explains an answer asks here too, so that it shows what DNS did ([`why`]). In which order the
//! instances come is [`order`]'s business.
//! What time alone changes, such as a weight that rises, is in the snapshot: nothing here reads a clock. Weights are [`weight`]'s.

pub mod explanation;
pub mod near;
pub mod order;
pub mod query;
pub mod route;
mod weight;
pub mod why;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

pub use explanation::{Explainer, Explanation, Inquiry};
pub use near::{Nearness, Origin, Place};
pub use order::{Order, Ring};
pub use route::{Steered, given};
pub use why::Why;

use crate::acl::View;
use crate::model::name::of_service;
use crate::model::{Address, CheckKind};
use crate::registry::{CheckEntry, Health, InstanceEntry, NodeEntry, QueryEntry, ServiceEntry, Snapshot};

/// What answers depend on beside the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// No answer of a live name lives longer.
    pub ttl_ceiling: Duration,
    /// Ceilings for single services: a name in lower case, or a prefix and `*`. The exact name beats
    /// the longest prefix.
    pub service_ttl: Vec<(String, Duration)>,
    /// How many addresses an A or AAAA answer of a service has at most, by names as above.
    pub a_limit: Vec<(String, usize)>,
    /// Services of which clients get the nearest instances, by names as above, and how many of those there must be: with
    /// fewer, those that are next to the nearest are given, too.
    pub nearest: Vec<(String, usize)>,
    /// Where clients are.
    pub clients: near::Clients,
}

/// One consistent view of everything.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub snapshot: &'a Snapshot,
    pub settings: &'a Settings,
    /// What the asker may see; the rest is not there.
    pub view: &'a View,
}

impl<'a> World<'a> {
    /// A node, by its name in lower case, where the asker may see it: where others stand tells nobody anything.
    fn node(self, folded: &str) -> Option<&'a Arc<NodeEntry>> {
        self.snapshot.node(folded).filter(|_| self.view.reads_node(folded))
    }
}

/// A question about a service; names in lower case.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub service: &'a str,
    pub tag: Option<&'a str>,
    /// Where the client is, for services whose nearest instances are given.
    pub from: Place<'a>,
    /// What the instances must have for an answer that is not empty.
    pub family: Family,
}

/// What kind of addresses is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    Any,
}

/// What there is to a question.
pub enum Selection<'a> {
    /// No such service, or none of its instances has the tag.
    Unknown,
    /// No such tag, but one that ends in it after a dot: an empty non-terminal (RFC 8020).
    Above,
    Known(Known<'a>),
}

/// The instances to answer with.
pub struct Known<'a> {
    pub service: &'a Arc<ServiceEntry>,
    /// By node and id, until they are put in [`Order`]; may be empty.
    pub chosen: Vec<Chosen<'a>>,
    /// Seconds, for every RRset of the answer.
    pub ttl: u32,
    /// Healthy instances that are not given, since enough are nearer.
    pub farther: Vec<Chosen<'a>>,
    /// Whether the nearest come first, whatever the weights.
    pub nearest_first: bool,
    /// Healthy instances to which the service's route gives no share.
    pub aside: Vec<Chosen<'a>>,
    pub steered: Steered,
    /// The subsets of the route that the instances are of, and their shares.
    shares: Vec<(u8, u32)>,
    /// Some are critical, and given since too many failed at once.
    pub stale: bool,
}

/// One instance of an answer.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    pub entry: &'a Arc<InstanceEntry>,
    pub node: &'a Arc<NodeEntry>,
    pub weight: u16,
    pub reached: Reached<'a>,
    /// How near it is to whoever asks; [`Nearness::Away`] where that does not matter.
    pub nearness: Nearness,
    /// Which one of the route that steers the answer.
    pub subset: Option<u8>,
    /// It is critical, and given since too many failed at once.
    pub stale: bool,
}

/// Where an instance is reached: up to one address of each family, or a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached<'a> {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// Only when there is no address.
    pub host: Option<&'a str>,
    /// The address is the node's and not the instance's own.
    pub by_node: bool,
}

/// Selects the instances that answer.
pub fn select<'a>(world: World<'a>, asked: Asked<'_>) -> Selection<'a> {
    let Some(service) = world.snapshot.service(asked.service) else { return Selection::Unknown };
    if !world.view.reads_service(service.name.folded()) {
        return Selection::Unknown;
    }
    let ceiling = world.settings.ceiling(service.name.folded());
    let about = route::About::of(world, service.name.folded(), asked.tag);
    let (mut visible, mut stale, mut ttl) = (false, false, ceiling);
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for entry in service.instances.values() {
        match why::judge(world, service, entry, about) {
            Ok((node, health)) => {
                visible = true;
                stale |= health == Health::Critical;
                ttl = ttl.min(stable_for(entry, node));
                found.push(chosen(entry, node, health, None));
            }
            Err(why) => {
                visible |= !why.is_absent();
                broken.extend(Some(entry).filter(|_| why == Why::Broken));
            }
        }
    }
    // Circuits leave half of a service and of its route, but not of a tag: by themselves they leave no name without an answer.
    if found.is_empty() {
        for entry in broken {
            let Some(node) = world.snapshot.node(entry.instance.node.folded()) else { continue };
            let health = world.snapshot.health(entry);
            stale |= health == Health::Critical;
            ttl = ttl.min(stable_for(entry, node));
            found.push(chosen(entry, node, health, None));
        }
    }
    // A subset has its name as long as the route names it, and the service has anybody.
    if let route::About::Subset(..) = about {
        let mut all = service.instances.values();
        visible |= all.any(|entry| world.view.reads_node(entry.instance.node.folded()));
    }
    if !visible {
        let above = asked.tag.is_some_and(|tag| is_above_a_tag(service, tag, world.view));
        return if above { Selection::Above } else { Selection::Unknown };
    }
    weight::temper(&mut found, service);
    let mut known = Known { stale, ..Known::new(service, found, seconds(ttl, ceiling)) };
    let steering = world.snapshot.route_of(service.name.folded()).filter(|entry| entry.route.is_active());
    if let (Some(entry), None) = (steering, asked.tag) {
        // Shares go before nearness.
        known.steer(entry);
    } else if let Some(least) = world.settings.nearest(service.name.folded()) {
        known.keep_nearest(least, &Origin { node: None, place: asked.from }, asked.family);
    }
    Selection::Known(known)
}

impl<'a> Known<'a> {
    fn new(service: &'a Arc<ServiceEntry>, chosen: Vec<Chosen<'a>>, ttl: u32) -> Self {
        Self {
            service,
            chosen,
            ttl,
            farther: Vec::new(),
            nearest_first: false,
            stale: false,
            aside: Vec::new(),
            steered: Steered::Free,
            shares: Vec::new(),
        }
    }
}

fn chosen<'a>(
    entry: &'a Arc<InstanceEntry>,
    node: &'a Arc<NodeEntry>,
    health: Health,
    from: Option<&Origin<'_>>,
) -> Chosen<'a> {
    let weights = entry.instance.weights;
    let weight = if health == Health::Warning { weights.warning } else { weights.passing };
    let nearness = from.map_or(Nearness::Away, |from| from.nearness(entry, node));
    let (reached, stale) = (reached(entry, node), health == Health::Critical);
    Chosen { entry, node, weight, reached, nearness, subset: None, stale }
}

/// `2` stands above the tag `v1.2`.
fn is_above_a_tag(service: &ServiceEntry, tag: &str, view: &View) -> bool {
    let below = |longer: &str| {
        longer.len() > tag.len() && {
            let (front, end) = longer.as_bytes().split_at(longer.len() - tag.len());
            front.ends_with(b".") && end.eq_ignore_ascii_case(tag.as_bytes())
        }
    };
    let mut seen = service.instances.values().filter(|entry| view.reads_node(entry.instance.node.folded()));
    seen.any(|entry| entry.instance.tags.iter().any(&below))
}

/// Where an instance is reached. Addresses tagged `lan_ipv4` and `lan_ipv6` are the dual-stack form;
/// an instance without an address of its own has its node's.
pub fn reached<'a>(entry: &'a InstanceEntry, node: &'a NodeEntry) -> Reached<'a> {
    let instance = &entry.instance;
    let tagged = |tag: &str| instance.extras.tagged_addresses.get(tag).map(|tagged| &tagged.address);
    let own = join([tagged("lan_ipv4"), tagged("lan_ipv6"), instance.address.as_ref()]);
    if own != Reached::default() {
        return own;
    }
    Reached { by_node: true, ..node_reached(node) }
}

/// Where a node is reached.
pub fn node_reached(node: &NodeEntry) -> Reached<'_> {
    let tagged = &node.node.tagged_addresses;
    join([tagged.get("lan_ipv4"), tagged.get("lan_ipv6"), Some(&node.node.address)])
}

/// The first address of each family; a host name where there is none.
fn join<'a>(addresses: [Option<&'a Address>; 3]) -> Reached<'a> {
    let mut reached = Reached::default();
    for address in addresses.into_iter().flatten() {
        match address {
            Address::Ip(std::net::IpAddr::V4(ip)) => reached.v4 = reached.v4.or(Some(*ip)),
            Address::Ip(std::net::IpAddr::V6(ip)) => reached.v6 = reached.v6.or(Some(*ip)),
            Address::Host(host) => reached.host = reached.host.or(Some(host)),
        }
    }
    if reached.v4.is_some() || reached.v6.is_some() {
        reached.host = None;
    }
    reached
}

/// Instances of a service that are looked at for [`kept_for`].
const KEPT_MAX: usize = 8;

/// For how long caches may hold what was answered of a service (its name in lower case) before a change to an instance of it,
/// given as it was; none where it was not there. An answer that had it lives no longer than its own checks allow. One without it
/// lives as long as the others' checks allow, or, where there were none, as a negative answer does.
pub fn kept_for(
    snapshot: &Snapshot,
    settings: &Settings,
    negative: Duration,
    (service, before): (&str, Option<&InstanceEntry>),
) -> Duration {
    let ceiling = settings.ceiling(service);
    let whole = |ttl| Duration::from_secs(seconds(ttl, ceiling).into());
    let ttl = |entry: &InstanceEntry| {
        let node = snapshot.node(entry.instance.node.folded())?;
        snapshot.health(entry).is_served().then(|| whole(stable_for(entry, node)))
    };
    if let Some(ttl) = before.and_then(ttl) {
        return ttl;
    }
    match snapshot.service(service) {
        Some(known) if known.instances.len() > KEPT_MAX => whole(ceiling),
        Some(known) => known.instances.values().filter_map(|entry| ttl(entry)).max().unwrap_or(negative),
        None => negative,
    }
}

/// The longest TTL that an answer with an instance of a service (in lower case) can have, whatever its checks say: under its own
/// name, or as a prepared query.
pub fn longest_ttl(snapshot: &Snapshot, settings: &Settings, service: &str) -> Duration {
    let of = |entry: &Arc<QueryEntry>| {
        let query = &entry.query;
        let may = entry.template.is_some() || query.service.service.eq_ignore_ascii_case(service);
        may.then(|| query::longest_ttl(query)).flatten()
    };
    snapshot.queries().filter_map(of).max().unwrap_or_default().max(settings.ceiling(service))
}

/// How long it takes at least until the checks of an instance and its node can change its status: no answer may live
/// longer (gdnsd's rule).
fn stable_for(entry: &InstanceEntry, node: &NodeEntry) -> Duration {
    entry.checks.iter().chain(&node.own_checks).map(|check| flips_after(check)).min().unwrap_or(Duration::MAX)
}

fn flips_after(check: &CheckEntry) -> Duration {
    match check.check.kind {
        CheckKind::Ttl { ttl } => ttl,
        // They follow others at once; an answer's ceiling is all the promise there is.
        CheckKind::Alias { .. } | CheckKind::External => Duration::MAX,
        _ => check.check.interval.saturating_mul(u32::from(check.to_flip.max(1))),
    }
}

/// Whole seconds, at least one where the ceiling allows it.
fn seconds(ttl: Duration, ceiling: Duration) -> u32 {
    let secs = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    let ceiling = u32::try_from(ceiling.as_secs()).unwrap_or(u32::MAX);
    secs.max(1).min(ceiling)
}

impl Settings {
    /// The longest TTL of any service's answers.
    pub fn longest_ceiling(&self) -> Duration {
        self.service_ttl.iter().map(|(_, ttl)| *ttl).fold(self.ttl_ceiling, Duration::max)
    }

    /// The longest TTL of a service's answers; its name in lower case.
    pub fn ceiling(&self, service: &str) -> Duration {
        of_service(&self.service_ttl, service).copied().unwrap_or(self.ttl_ceiling)
    }

    /// The most addresses that an answer of the service has; its name in lower case.
    pub fn a_limit(&self, service: &str) -> Option<usize> {
        of_service(&self.a_limit, service).copied()
    }

    /// How many of the nearest instances of the service there must be for the others to be left out; none where all are
    /// given. Its name in lower case.
    pub fn nearest(&self, service: &str) -> Option<usize> {
        of_service(&self.nearest, service).copied()
    }

    /// Seconds, for names that no check can change: nodes and addresses.
    pub fn plain_ttl(&self) -> u32 {
        seconds(self.ttl_ceiling, self.ttl_ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: Duration = Duration::from_secs(5);

    fn settings(service_ttl: &[(&str, u64)]) -> Settings {
        let service_ttl =
            service_ttl.iter().map(|(name, secs)| ((*name).to_owned(), Duration::from_secs(*secs))).collect();
        Settings {
            ttl_ceiling: CEILING,
            service_ttl,
            a_limit: vec![("web*".into(), 2), ("web-a".into(), 1)],
            nearest: Vec::new(),
            clients: Default::default(),
        }
    }

    #[test]
    fn the_exact_name_beats_the_longest_prefix() {
        let settings = settings(&[("*", 9), ("web*", 3), ("web-a*", 4), ("web-b", 2)]);
        for (name, secs) in [("web-b", 2), ("web-b1", 3), ("web-a1", 4), ("web", 3), ("db", 9)] {
            assert_eq!(settings.ceiling(name), Duration::from_secs(secs), "{name}");
        }
        assert_eq!(["db", "web", "web-a"].map(|name| settings.a_limit(name)), [None, Some(2), Some(1)]);
    }

    #[test]
    fn a_ttl_is_whole_seconds_between_one_and_the_ceiling() {
        let ceiling = Duration::from_secs(5);
        for (millis, secs) in [(100, 1), (1_900, 1), (4_000, 4), (60_000, 5), (u64::MAX, 5)] {
            assert_eq!(seconds(Duration::from_millis(millis), ceiling), secs);
        }
        assert_eq!(seconds(Duration::MAX, Duration::ZERO), 0);
    }

    #[test]
    fn one_address_of_each_family_and_a_host_only_without_any() {
        let parse = |text: &str| Address::parse(text).unwrap();
        let (v4, v6, host) = (parse("10.0.0.1"), parse("fd00::1"), parse("db.example.com"));
        let both = join([Some(&v4), Some(&v6), Some(&host)]);
        assert!(both.v4.is_some() && both.v6.is_some() && both.host.is_none());
        assert_eq!(join([None, None, Some(&host)]).host, Some("db.example.com"));
        assert_eq!(join([None, None, None]), Reached::default());
    }
}
