//! In which order the instances of an answer come.
//!
//! Clients try the first record first, and many try no other: the order is where load is shared out. SRV records
//! carry their weights, so they take turns; addresses cannot, so weights decide how often each comes first. All
//! chance comes in as a number.

use std::net::IpAddr;

use super::{Chosen, Known};
use crate::model::name::fnv1a;

/// What an order is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One answer of many: chance is the number.
    Draw(u64),
    /// Every answer to this client: one that does not fit is cut at the end, and a client that gets a part of the
    /// instances keeps that part. Different clients get different parts, in proportion to the weights.
    For(IpAddr),
}

/// The orders that chance can give while a whole answer is given: it starts somewhere in the ring, and goes around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ring {
    /// Each place is as likely as any other; so many places.
    Even(usize),
    /// The sums of the weights up to and with each place.
    Weighted(Box<[u64]>),
}

impl Ring {
    /// Where the answer starts.
    pub fn start(&self, pick: u64) -> usize {
        match self {
            Self::Even(places) => pick.checked_rem(*places as u64).unwrap_or(0) as usize,
            Self::Weighted(sums) => {
                let at = sums.last().and_then(|total| pick.checked_rem(*total)).unwrap_or(0);
                sums.partition_point(|sum| *sum <= at)
            }
        }
    }
}

impl Known<'_> {
    /// Puts the instances in order for records that carry their weights.
    pub fn in_turn(&mut self, order: Order) {
        match order {
            Order::Draw(pick) => {
                let start = Ring::Even(self.chosen.len()).start(pick);
                self.chosen.rotate_left(start);
            }
            Order::For(client) => self.for_client(client),
        }
        self.put_nearest_first();
    }

    /// Puts the instances in order for addresses, of which perhaps so many are given at most.
    pub fn by_weight(&mut self, order: Order, limit: Option<usize>) {
        match order {
            Order::Draw(pick) => match self.ring(limit) {
                Some(ring) => self.chosen.rotate_left(ring.start(pick)),
                None => self.by_chance(pick),
            },
            Order::For(client) => self.for_client(client),
        }
        self.put_nearest_first();
    }

    fn for_client(&mut self, client: IpAddr) {
        self.by_chance(chance(client));
    }

    /// In proportion to the weights, each place anew.
    fn by_chance(&mut self, chance: u64) {
        self.chosen.sort_by_cached_key(|chosen| weighed(chance ^ seed(chosen), chosen.weight));
    }

    /// The ring of [`Known::by_weight`]; none where a part is drawn in proportion to unequal weights, since in a ring
    /// the neighbour of a heavy one would be drawn as often.
    pub fn ring(&self, limit: Option<usize>) -> Option<Ring> {
        let mut weights = self.chosen.iter().map(|chosen| chosen.weight);
        let first = weights.next().unwrap_or(0);
        if weights.all(|weight| weight == first) {
            return Some(Ring::Even(self.chosen.len()));
        }
        if limit.is_some_and(|limit| limit < self.chosen.len()) {
            return None;
        }
        let sums = self.chosen.iter().scan(0, |sum, chosen| {
            *sum += u64::from(chosen.weight);
            Some(*sum)
        });
        Some(Ring::Weighted(sums.collect()))
    }
}

/// Every order as likely as any other, but the nearest first.
pub fn shuffle(chosen: &mut [Chosen<'_>], chance: u64) {
    chosen.sort_by_cached_key(|chosen| (chosen.nearness, mix(chance ^ seed(chosen))));
}

/// A key to sort by: with the weight, small ones are likelier. An instance that weighs twice as much comes before
/// another twice as often (Efraimidis and Spirakis: exponential variates of the weights' rates); one that weighs
/// nothing comes last.
fn weighed(chance: u64, weight: u16) -> u64 {
    if weight == 0 {
        return u64::MAX;
    }
    // In (0, 1]: the logarithm is finite, and what is not negative orders as its bits do.
    let uniform = ((mix(chance) >> 11) + 1) as f64 / (1u64 << 53) as f64;
    (-uniform.ln() / f64::from(weight)).abs().to_bits()
}

/// What tells instances apart, the same on every server.
fn seed(chosen: &Chosen<'_>) -> u64 {
    let instance = &chosen.entry.instance;
    let octets = instance.node.folded().bytes().chain([0]).chain(instance.id.as_str().bytes());
    fnv1a(octets)
}

/// The chance that a client has for ever.
pub(super) fn chance(client: IpAddr) -> u64 {
    mix(match client.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            mix(bits as u64) ^ (bits >> 64) as u64
        }
    })
}

/// Spreads the bits of a number (the finalizer of SplitMix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_starts_as_often_as_weights_say() {
        let ring = Ring::Weighted([1, 1, 4].into());
        assert_eq!((0..4).map(|pick| ring.start(pick)).collect::<Vec<_>>(), [0, 2, 2, 2]);
        assert_eq!((0..4).map(|pick| Ring::Even(3).start(pick)).collect::<Vec<_>>(), [0, 1, 2, 0]);
        assert_eq!(Ring::Even(0).start(7), 0);
    }

    #[test]
    fn a_draw_follows_the_weights() {
        let firsts = (0..8000).filter(|i| weighed(mix(*i), 3) < weighed(mix(*i ^ u64::MAX), 1)).count();
        assert!((5700..6300).contains(&firsts), "{firsts} of 8000 for three against one");
        assert!(weighed(1, 1) < weighed(2, 0), "what weighs nothing comes last");
    }
}
