//! How near an instance is to whoever asks.
//!
//! A place is a region and a zone in it, as Consul's API has them: what a registration says of the instance, else the meta
//! keys `region` and `zone` of the instance, else those of its node.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Chosen, Family, Known, World};
use crate::model::{Locality, NodeName};
use crate::registry::snapshot::Owner;
use crate::registry::{InstanceEntry, NodeEntry};

/// A region, and a zone in it. Either may be empty: not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place<'a> {
    pub region: &'a str,
    pub zone: &'a str,
}

/// From where a question comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin<'a> {
    pub node: Option<&'a NodeName>,
    pub place: Place<'a>,
}

/// How near an instance is, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nearness {
    /// On the same node.
    Node,
    /// In the same zone of the same region.
    Zone,
    /// In the same region.
    Region,
    /// Elsewhere, or nobody knows where.
    Away,
}

impl<'a> Place<'a> {
    /// Where an instance is.
    pub fn of(entry: &'a InstanceEntry, node: &'a NodeEntry) -> Self {
        let instance = &entry.instance;
        if let Some(locality) = &instance.extras.locality {
            return Self { region: &locality.region, zone: &locality.zone };
        }
        let own = |key: &str| instance.meta.get(key).unwrap_or("");
        let own = Self { region: own("region"), zone: own("zone") };
        if own == Self::default() { Self::of_node(node) } else { own }
    }

    /// Where a node is.
    pub fn of_node(node: &'a NodeEntry) -> Self {
        if let Some(locality) = &node.node.locality {
            return Self { region: &locality.region, zone: &locality.zone };
        }
        let meta = |key: &str| node.node.meta.get(key).map_or("", String::as_str);
        Self { region: meta("region"), zone: meta("zone") }
    }

    fn nearness(self, other: Self) -> Nearness {
        if self.region != other.region || self == Self::default() {
            Nearness::Away
        } else if !self.zone.is_empty() && self.zone == other.zone {
            Nearness::Zone
        } else if self.region.is_empty() {
            Nearness::Away
        } else {
            Nearness::Region
        }
    }
}

/// Networks of clients, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clients(Vec<(IpNet, Locality)>);

impl Clients {
    /// Of networks in any order; those that lie in others come before them.
    pub fn new(mut networks: Vec<(IpNet, Locality)>) -> Self {
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        Self(networks)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where an address is, by the smallest network that has it; and by how many of its first bits that is decided: all
    /// addresses that share those are there, too.
    pub fn find(&self, address: IpAddr) -> (Place<'_>, u8) {
        let address = address.to_canonical();
        let found = self.0.iter().find(|(network, _)| network.contains(&address));
        let place = found.map(|(_, place)| Place { region: &place.region, zone: &place.zone });
        let bits = found.map_or(0, |(network, _)| network.prefix_len());
        // A smaller network beside the address, in the same one: it is left where they first differ.
        let beside = self.0.iter().filter_map(|(network, _)| {
            let shared = shared_bits(network.addr(), address)?;
            (network.prefix_len() > shared && shared >= bits).then_some(shared + 1)
        });
        (place.unwrap_or_default(), beside.max().unwrap_or(bits).max(bits))
    }
}

/// The first bits that are the same in both; none of two families.
fn shared_bits(one: IpAddr, other: IpAddr) -> Option<u8> {
    let bits = match (one, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => return None,
    };
    u8::try_from(bits).ok()
}

impl<'a> Origin<'a> {
    /// Whoever is on a node.
    pub fn of_node(node: &'a NodeEntry) -> Self {
        Self { node: Some(&node.node.name), place: Place::of_node(node) }
    }

    /// Whoever acts for a node, and has an address where it is not this machine.
    pub fn of_caller(world: World<'a>, node: &NodeName, address: Option<IpAddr>) -> Self {
        let known = world.node(node.folded()).map(|node| Self::of_node(node));
        let by_address = || address.map(|address| Self::of_address(world, address)).unwrap_or_default();
        match known {
            Some(origin) if origin.place == Place::default() => Self { place: by_address().place, ..origin },
            Some(origin) => origin,
            None => by_address(),
        }
    }

    /// Whoever has an address: on the node of that address, where there is one; where that is not said to be anywhere, at
    /// the place of the network.
    pub fn of_address(world: World<'a>, address: IpAddr) -> Self {
        let mut owners = world.snapshot.owners(address.to_canonical());
        let node = owners.find_map(|owner| match owner {
            Owner::Node(node) => world.node(node.folded()),
            Owner::Service(_) => None,
        });
        let mut origin = node.map(|node| Self::of_node(node)).unwrap_or_default();
        if origin.place == Place::default() {
            origin.place = world.settings.clients.find(address).0;
        }
        origin
    }

    /// How near a node is.
    pub fn nearness_of(&self, node: &NodeEntry) -> Nearness {
        if self.node == Some(&node.node.name) {
            return Nearness::Node;
        }
        self.place.nearness(Place::of_node(node))
    }

    /// How near an instance is.
    pub fn nearness(&self, entry: &InstanceEntry, node: &NodeEntry) -> Nearness {
        if self.node == Some(&node.node.name) {
            return Nearness::Node;
        }
        self.place.nearness(Place::of(entry, node))
    }
}

impl Known<'_> {
    /// Puts the nearest first, where that is wanted; those that are as near stay in their order.
    pub(super) fn put_nearest_first(&mut self) {
        if self.nearest_first {
            nearest_first(&mut self.chosen);
        }
    }

    /// Leaves those in one zone where there are at least so many of the family there, else those in one region, else all:
    /// what is healthy anywhere is never an empty answer. All that are left share the load as their weights say: with few of
    /// them near, those would have it all.
    pub(super) fn keep_nearest(&mut self, least: usize, from: &Origin<'_>, family: Family) {
        for chosen in &mut self.chosen {
            chosen.nearness = from.nearness(chosen.entry, chosen.node);
        }
        let fits = |chosen: &Chosen<'_>| match family {
            _ if chosen.reached.host.is_some() => true,
            Family::V4 => chosen.reached.v4.is_some(),
            Family::V6 => chosen.reached.v6.is_some(),
            Family::Any => true,
        };
        for bound in [Nearness::Zone, Nearness::Region] {
            let near = |chosen: &Chosen<'_>| chosen.nearness <= bound;
            if self.chosen.iter().filter(|chosen| near(chosen) && fits(chosen)).count() >= least.max(1) {
                (self.chosen, self.farther) = std::mem::take(&mut self.chosen).into_iter().partition(near);
                return;
            }
        }
    }
}

/// Puts the nearest first; those that are as near stay in their order.
pub fn nearest_first(chosen: &mut [Chosen<'_>]) {
    chosen.sort_by_key(|chosen| chosen.nearness);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{Asked, Selection, Settings, select};
    use super::*;
    use crate::model::Definition;
    use crate::registry::Snapshot;

    #[test]
    fn a_zone_counts_in_its_region_alone() {
        let place = |region, zone| Place { region, zone };
        for (one, other, nearness) in [
            (place("eu", "a"), place("eu", "a"), Nearness::Zone),
            (place("eu", "a"), place("us", "a"), Nearness::Away),
            (place("eu", "a"), place("eu", "b"), Nearness::Region),
            (place("eu", "a"), place("eu", ""), Nearness::Region),
            (place("eu", ""), place("eu", ""), Nearness::Region),
            (place("", "a"), place("", "a"), Nearness::Zone),
            (place("", "a"), place("", "b"), Nearness::Away),
            (place("", ""), place("", ""), Nearness::Away),
        ] {
            assert_eq!((one.nearness(other), other.nearness(one)), (nearness, nearness), "{one:?} {other:?}");
        }
    }

    fn clients(networks: &[&str]) -> Clients {
        let place = |text: &&str| {
            let locality = Locality { region: (*text).to_owned(), zone: String::new() };
            (text.parse().unwrap(), locality)
        };
        Clients::new(networks.iter().map(place).collect())
    }

    #[test]
    fn the_smallest_network_says_where_a_client_is() {
        let clients = clients(&["10.0.0.0/8", "10.1.0.0/16", "10.1.128.0/17", "2001:db8::/32"]);
        for (address, region, bits) in [
            ("10.2.0.1", "10.0.0.0/8", 15),
            ("10.128.0.1", "10.0.0.0/8", 9),
            ("10.1.0.1", "10.1.0.0/16", 17),
            ("10.1.200.1", "10.1.128.0/17", 17),
            ("::ffff:10.1.200.1", "10.1.128.0/17", 17),
            ("11.0.0.1", "", 8),
            ("192.0.2.1", "", 1),
            ("2001:db8::1", "2001:db8::/32", 32),
            ("2001:db9::1", "", 32),
        ] {
            let (place, decided) = clients.find(address.parse().unwrap());
            assert_eq!((place.region, decided), (region, bits), "{address}");
        }
        assert_eq!(Clients::default().find("10.0.0.1".parse().unwrap()), (Place::default(), 0));
    }

    proptest! {
        /// Whatever is told to caches: all addresses that share the bits are at the same place.
        #[test]
        fn addresses_that_share_the_bits_are_at_one_place(
            networks in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..6),
            address in any::<u32>(),
            other in any::<u32>(),
        ) {
            // Near one another, so that they meet.
            let near = |bits: u32| std::net::Ipv4Addr::from(bits & 0xff0f_0003);
            let networks = networks.iter().map(|(bits, length)| {
                let network = IpNet::new(near(*bits).into(), *length).unwrap().trunc();
                (network, Locality { region: network.to_string(), zone: String::new() })
            });
            let clients = Clients::new(networks.collect());
            let (place, bits) = clients.find(near(address).into());
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let neighbour = u32::from(near(address)) & mask | other & !mask;
            prop_assert_eq!(clients.find(std::net::Ipv4Addr::from(neighbour).into()).0, place);
        }
    }

    /// One instance: its region and zone (0: not known), its addresses' families, and whether it is healthy.
    type One = (u8, u8, bool, bool, bool);

    fn world(of: &[One]) -> Snapshot {
        let mut definitions = vec![];
        let mut put = |record: serde_json::Value| {
            definitions.push(Definition::Put(serde_json::from_value(record).unwrap()));
        };
        put(json!({ "node": { "name": "n", "address": "h.example", "implied": true } }));
        for (id, (region, zone, v4, v6, healthy)) in of.iter().enumerate() {
            let text = |at: &u8| if *at == 0 { String::new() } else { at.to_string() };
            let mut tagged = json!({});
            if *v4 || !v6 {
                tagged["lan_ipv4"] = json!({ "address": format!("10.0.0.{id}") });
            }
            if *v6 {
                tagged["lan_ipv6"] = json!({ "address": format!("fd00::{id}") });
            }
            let id = format!("i{id}");
            put(json!({ "instance": {
                "node": "n", "id": id, "service": "web", "tagged_addresses": tagged,
                "locality": { "region": text(region), "zone": text(zone) },
            }}));
            let status = if *healthy { "passing" } else { "critical" };
            put(json!({ "check": {
                "node": "n", "id": id, "name": "c", "instance": id, "kind": { "type": "external" }, "output_max": 9,
                "initial": status,
            }}));
        }
        Snapshot::default().applied(1, &definitions)
    }

    proptest! {
        /// What is healthy anywhere is an answer, of any family that it has; nearer ones are never left out for farther
        /// ones; and whoever is given or left out is told apart by nearness alone.
        #[test]
        fn enough_of_the_nearest_and_never_nothing(
            of in proptest::collection::vec((0..3u8, 0..3u8, any::<bool>(), any::<bool>(), any::<bool>()), 0..12),
            (region, zone) in (0..3u8, 0..3u8),
            least in 1..4usize,
            family in prop_oneof![Just(Family::V4), Just(Family::V6), Just(Family::Any)],
        ) {
            let snapshot = world(&of);
            let text = |at: u8| if at == 0 { String::new() } else { at.to_string() };
            let (region, zone) = (text(region), text(zone));
            let from = Place { region: &region, zone: &zone };
            let settings = |nearest| Settings {
                ttl_ceiling: std::time::Duration::from_secs(5),
                service_ttl: Vec::new(),
                a_limit: Vec::new(),
                nearest,
                clients: Clients::default(),
            };
            let (off, on) = (settings(Vec::new()), settings(vec![("w*".into(), least)]));
            let view = crate::acl::View::default();
            let ask = |settings| {
                let world = World { snapshot: &snapshot, settings, view: &view };
                match select(world, Asked { service: "web", tag: None, from, family }) {
                    Selection::Known(known) => Some(known),
                    _ => None,
                }
            };
            let (Some(all), Some(some)) = (ask(&off), ask(&on)) else {
                prop_assert!(of.is_empty());
                return Ok(());
            };
            prop_assert!(all.farther.is_empty());
            prop_assert_eq!(some.chosen.len() + some.farther.len(), all.chosen.len());
            let fits = |chosen: &&Chosen<'_>| match family {
                Family::V4 => chosen.reached.v4.is_some(),
                Family::V6 => chosen.reached.v6.is_some(),
                Family::Any => true,
            };
            let given = some.chosen.iter().filter(fits).count();
            prop_assert!(given >= least.min(all.chosen.iter().filter(fits).count()));
            let farthest = some.chosen.iter().map(|chosen| chosen.nearness).max();
            prop_assert!(some.farther.iter().all(|left| Some(left.nearness) > farthest));
            if !some.farther.is_empty() {
                let nearer = some.chosen.iter().filter(fits).filter(|chosen| Some(chosen.nearness) < farthest);
                prop_assert!(nearer.count() < least, "the nearest were enough");
            }
        }
    }
}
