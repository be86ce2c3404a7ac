//! One question in one zone: the algorithm of RFC 1034 section 4.3.2 with DNAME (RFC 6672), wildcards as RFC 4592
//! defines them, and negative answers as RFC 2308 does.
//!
//! Pure: the same zone and question give the same records. An alias is followed while its target stays in the
//! zone; the rest is the resolver's to ask, also where the target is in another zone of ours.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::key;
use super::layout::{Set, Zone, name_in};

/// How many names one answer goes through. A chain that is longer ends with its last alias: the resolver
/// asks on from there, and a client cannot make us walk in circles.
const NAMES_MAX: usize = 16;

/// The sections of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lookup {
    /// Of the last name of a chain (RFC 6604 section 3).
    pub rcode: ResponseCode,
    /// Of the first name (RFC 1035 section 4.1.1): a referral after an alias is authoritative.
    pub authoritative: bool,
    /// The authority section leads to another zone's servers, the additional one holds their glue.
    pub referral: bool,
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
}

/// What a walk from the apex towards a name ends at.
enum Found {
    /// A delegation at or above the name.
    Cut {
        labels: usize,
        set: Set,
    },
    /// A DNAME above the name.
    Redirect {
        labels: usize,
        set: Set,
    },
    /// The name itself, or the wildcard that stands for it.
    Node(u32),
    Nothing,
}

impl Zone {
    /// Answers a question about a name at or below the origin. ANY gives one RRset, which tells that the name
    /// exists.
    pub fn lookup(&self, name: &Name, kind: RecordType) -> Lookup {
        let found = Lookup { authoritative: true, ..Lookup::default() };
        let mut chain = Chain { zone: self, kind, found, seen: Vec::new() };
        let mut next = Some(name.clone());
        while let Some(name) = next {
            next = chain.step(&name);
        }
        chain.found
    }

    /// Whether a name at or below the origin is delegated to another zone.
    pub(super) fn delegates(&self, name: &Name) -> bool {
        let found = self.key(name).map(|key| self.walk(&key, RecordType::NS));
        matches!(found, Some(Found::Cut { labels, .. }) if labels == name.iter().len())
    }

    /// The node of a host's name, on whichever side of a delegation: glue is not authoritative.
    fn node_or_wildcard(&self, key: &[u8]) -> Option<u32> {
        let mut encloser = 0;
        for length in key::beginnings(key) {
            if self.node(&key[..length]).is_none() {
                return self.wildcard(&key[..encloser]);
            }
            encloser = length;
        }
        self.node(key)
    }

    /// RFC 4592 section 3.3.1: of all wildcards only the one directly below the closest encloser counts.
    fn wildcard(&self, encloser: &[u8]) -> Option<u32> {
        self.node(&[encloser, b"*\0"].concat())
    }

    fn walk(&self, key: &[u8], kind: RecordType) -> Found {
        let (mut encloser, mut labels) = (0, self.depth);
        for length in key::beginnings(key) {
            let Some(node) = self.node(&key[..length]) else {
                return self.wildcard(&key[..encloser]).map_or(Found::Nothing, Found::Node);
            };
            let whole = length == key.len();
            if length > 0 {
                labels += 1;
                // RFC 4035 section 3.1.4.1: DS belongs to the parent.
                let parents = whole && kind == RecordType::DS;
                if let Some(set) = self.set(node, RecordType::NS).filter(|_| !parents) {
                    return Found::Cut { labels, set };
                }
            }
            if whole {
                return Found::Node(node);
            }
            if let Some(set) = self.set(node, RecordType::DNAME) {
                return Found::Redirect { labels, set };
            }
            encloser = length;
        }
        Found::Nothing
    }
}

/// An answer under way.
struct Chain<'z> {
    zone: &'z Zone,
    kind: RecordType,
    found: Lookup,
    /// The names that it went through.
    seen: Vec<Vec<u8>>,
}

impl Chain<'_> {
    /// Answers for one name of the chain; returns the next one.
    fn step(&mut self, name: &Name) -> Option<Name> {
        let key = self.zone.key(name)?;
        if self.seen.contains(&key) || self.seen.len() == NAMES_MAX {
            return None;
        }
        let found = self.zone.walk(&key, self.kind);
        self.seen.push(key);
        match found {
            Found::Cut { labels, set } => self.refer(&name.trim_to(labels), set),
            Found::Redirect { labels, set } => return self.redirect(name, labels, set),
            Found::Node(node) => return self.answer(name, node),
            Found::Nothing => {
                self.found.rcode = ResponseCode::NXDomain;
                self.negative();
            }
        }
        None
    }

    /// Step 3a: the records that are asked for, an alias, or nothing of the type.
    fn answer(&mut self, name: &Name, node: u32) -> Option<Name> {
        let zone = self.zone;
        let asked = match self.kind {
            RecordType::ANY => zone.sets(node).first().copied(),
            kind => zone.set(node, kind),
        };
        if let Some(set) = asked {
            self.found.answer.extend(zone.records(set, name));
            self.additional(set);
            return None;
        }
        let Some(set) = zone.set(node, RecordType::CNAME) else {
            self.negative();
            return None;
        };
        self.found.answer.extend(zone.records(set, name));
        zone.data(set).next().and_then(name_in)
    }

    /// Step 3b: what is known of the servers of the zone below.
    fn refer(&mut self, cut: &Name, set: Set) {
        self.found.referral = true;
        self.found.authoritative = !self.found.answer.is_empty();
        self.found.authority.extend(self.zone.records(set, cut));
        self.additional(set);
    }

    /// RFC 6672 section 3.2: the DNAME, a CNAME made from it, and on with the new name.
    fn redirect(&mut self, name: &Name, labels: usize, set: Set) -> Option<Name> {
        let owner = name.trim_to(labels);
        let target = self.zone.data(set).next().and_then(name_in)?;
        let before = |record: &Record| record.record_type() == RecordType::DNAME && record.name == owner;
        if !self.found.answer.iter().any(before) {
            self.found.answer.extend(self.zone.records(set, &owner));
        } else if owner.zone_of(&target) {
            // It leads below itself, and would until the name is too long.
            return None;
        }
        let kept = name.iter().take(name.iter().len() - labels);
        let Ok(mut next) = Name::from_labels(kept.chain(target.iter())) else {
            // Section 2.2: the new name has more than 255 octets.
            self.found.rcode = ResponseCode::YXDomain;
            return None;
        };
        next.set_fqdn(true);
        self.found.answer.push(Record::from_rdata(name.clone(), set.ttl, RData::CNAME(CNAME(next.clone()))));
        // That CNAME is itself the answer to some questions.
        (!matches!(self.kind, RecordType::CNAME | RecordType::ANY)).then_some(next)
    }

    /// The SOA, with the time that "no" may be kept (RFC 2308 section 3).
    fn negative(&mut self) {
        let Some(set) = self.zone.set(0, RecordType::SOA) else { return };
        for mut record in self.zone.records(set, self.zone.origin()) {
            if let RData::SOA(soa) = &record.data {
                record.ttl = record.ttl.min(soa.minimum);
            }
            self.found.authority.push(record);
        }
    }

    /// RFC 1034 section 4.3.2 step 6, RFC 2782: the addresses of the hosts that the records name.
    fn additional(&mut self, set: Set) {
        // Where the name lies in the record data.
        let before = match RecordType::from(set.kind) {
            RecordType::NS => 0,
            RecordType::MX | RecordType::SVCB | RecordType::HTTPS => 2,
            RecordType::SRV => 6,
            _ => return,
        };
        let mut hosts: Vec<Name> = Vec::new();
        for host in self.zone.data(set).filter_map(|data| data.get(before..).and_then(name_in)) {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        for host in hosts {
            self.addresses(&host);
        }
    }

    fn addresses(&mut self, host: &Name) {
        let zone = self.zone;
        let Some(key) = zone.key(host) else { return };
        let Some(node) = zone.node_or_wildcard(&key) else { return };
        for kind in [RecordType::A, RecordType::AAAA] {
            let answered =
                self.found.answer.iter().any(|record| record.record_type() == kind && record.name == *host);
            if let Some(set) = zone.set(node, kind).filter(|_| !answered) {
                self.found.additional.extend(zone.records(set, host));
            }
        }
    }
}
