//! One zone in memory, made for a million records.
//!
//! Nodes lie in canonical order, each name that exists once, those that exist only because of names below them (empty
//! non-terminals) included, so that "no node" means NXDOMAIN (RFC 8020). A node owns the RRsets from its
//! `sets` to the next node's; an RRset is a type, a TTL, a count and a place in one buffer, where its record data
//! lie one after the other, each behind its length. A hash table of node numbers finds a node by its key.
//! A million A and AAAA records measured 52 octets each, all in; one of hickory's `Record`s, which lookups make from
//! them, has 272 before what it points to. A map of maps of records was rejected for that reason, and a search in the
//! sorted nodes alone because it touches twenty cache lines where the table touches two.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, Restrict};

use super::key;
use super::read::Span;

/// The records of one zone. Immutable.
pub struct Zone {
    origin: Name,
    /// How many labels the origin has.
    pub(super) depth: usize,
    pub(super) octets: Vec<u8>,
    pub(super) nodes: Vec<Node>,
    pub(super) sets: Vec<Set>,
    index: HashTable<u32>,
    hasher: RandomState,
}

/// A name that exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) key: Span,
    /// The first of its RRsets.
    pub(super) sets: u32,
}

/// An RRset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set {
    pub(super) ttl: u32,
    /// Where its data begin.
    pub(super) at: u32,
    pub(super) kind: u16,
    pub(super) count: u16,
}

impl Zone {
    pub(super) fn new(origin: Name) -> Self {
        let depth = origin.iter().len();
        let index = HashTable::new();
        let (nodes, sets) = (Vec::new(), Vec::new());
        Self { origin, depth, octets: Vec::new(), nodes, sets, index, hasher: RandomState::new() }
    }

    /// Makes the index; nodes and sets must be complete.
    pub(super) fn index(&mut self) {
        let hash = |node: &u32| self.hasher.hash_one(self.nodes[*node as usize].key.of(&self.octets));
        let mut index = HashTable::with_capacity(self.nodes.len());
        for node in 0..self.nodes.len() as u32 {
            index.insert_unique(hash(&node), node, hash);
        }
        self.index = index;
        self.octets.shrink_to_fit();
        self.nodes.shrink_to_fit();
        self.sets.shrink_to_fit();
    }

    /// The zone's name, as the configuration spells it.
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.sets.iter().map(|set| usize::from(set.count)).sum()
    }

    /// Never: a zone has a SOA.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The key of a name in this zone; `None` for others.
    pub(super) fn key(&self, name: &Name) -> Option<Vec<u8>> {
        self.origin.zone_of(name).then(|| key::of_name(name, self.depth))
    }

    pub(super) fn node(&self, key: &[u8]) -> Option<u32> {
        let is =
            |node: &u32| self.nodes.get(*node as usize).is_some_and(|node| node.key.of(&self.octets) == key);
        self.index.find(self.hasher.hash_one(key), is).copied()
    }

    /// The RRsets of a node.
    pub(super) fn sets(&self, node: u32) -> &[Set] {
        let at = node as usize;
        let start = self.nodes.get(at).map_or(self.sets.len(), |node| node.sets as usize);
        let end = self.nodes.get(at + 1).map_or(self.sets.len(), |next| next.sets as usize);
        self.sets.get(start..end).unwrap_or_default()
    }

    pub(super) fn set(&self, node: u32, kind: RecordType) -> Option<Set> {
        let kind = u16::from(kind);
        self.sets(node).iter().find(|set| set.kind == kind).copied()
    }

    /// The record data of an RRset, as on the wire.
    pub(super) fn data(&self, set: Set) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.octets.get(set.at as usize..).unwrap_or_default();
        (0..set.count).map_while(move |_| {
            let (length, behind) = rest.split_first_chunk::<2>()?;
            let (data, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            rest = behind;
            Some(data)
        })
    }

    /// The records of an RRset, under a name.
    pub(super) fn records(&self, set: Set, owner: &Name) -> impl Iterator<Item = Record> {
        let kind = RecordType::from(set.kind);
        self.data(set).map(move |data| Record::from_rdata(owner.clone(), set.ttl, rdata(kind, data)))
    }
}

/// hickory's form of record data. Types in which hickory compresses names, or that we read again, are taken apart;
/// the others stay the octets that they are.
fn rdata(kind: RecordType, data: &[u8]) -> RData {
    use RecordType as T;
    let apart = matches!(kind, T::A | T::AAAA | T::NS | T::CNAME | T::SOA | T::PTR | T::MX | T::SRV | T::TXT);
    let length = Restrict::new(data.len() as u16);
    let read = apart.then(|| RData::read(&mut BinDecoder::new(data), kind, length).ok()).flatten();
    read.unwrap_or_else(|| RData::Unknown { code: kind, rdata: NULL::with(data.to_vec()) })
}

/// The name that octets on the wire begin with.
pub(super) fn name_in(data: &[u8]) -> Option<Name> {
    Name::read(&mut BinDecoder::new(data)).ok()
}
