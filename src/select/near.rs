//! How near an instance is to whoever asks.
//!
//! A place is a region and a zone in it, as Consul's API has them: what a registration says of the instance, else the meta
//! keys `region` and `zone` of the instance, else those of its node.

use std::net::IpAddr;

use super::{Chosen, Known, World};
use crate::model::NodeName;
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

impl<'a> Origin<'a> {
    /// Whoever is on a node.
    pub fn of_node(node: &'a NodeEntry) -> Self {
        Self { node: Some(&node.node.name), place: Place::of_node(node) }
    }

    /// Whoever has an address: on the node of that address, where there is one.
    pub fn of_address(world: World<'a>, address: IpAddr) -> Self {
        let mut owners = world.snapshot.owners(address.to_canonical());
        let node = owners.find_map(|owner| match owner {
            Owner::Node(node) => world.snapshot.node(node.folded()),
            Owner::Service(_) => None,
        });
        node.map(|node| Self::of_node(node)).unwrap_or_default()
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
    /// Puts the nearest first; those that are as near stay in their order.
    pub(super) fn nearest_first(&mut self) {
        nearest_first(&mut self.chosen);
    }
}

/// Puts the nearest first; those that are as near stay in their order.
pub fn nearest_first(chosen: &mut [Chosen<'_>]) {
    chosen.sort_by_key(|chosen| chosen.nearness);
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
