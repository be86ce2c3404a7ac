//! From the records of a file to a zone: order, the rules that RRsets obey, and what only deserves a warning.

use std::collections::HashSet;

use hickory_proto::rr::{Name, RecordType};

use super::fault::{Faults, Place};
use super::key;
use super::layout::{Node, Set, Zone};
use super::read::{Records, Span, Written};
use super::types::kind_text;

const SOA: u16 = 6;
const NS: u16 = 2;
const CNAME: u16 = 5;
const DNAME: u16 = 39;
const DS: u16 = 43;
/// RFC 2181 section 10.1 and RFC 4035 section 2.5: what may stand beside a CNAME (SIG, KEY, RRSIG, NSEC).
const BESIDE_CNAME: [u16; 4] = [24, 25, 46, 47];

/// Puts the records in order and checks them. The zone is of use only if no error was found.
pub(super) fn build(origin: &Name, mut records: Records, faults: &mut Faults) -> Zone {
    let octets = std::mem::take(&mut records.octets);
    let owner = |record: &Written| record.owner.of(&octets);
    // Stable: records of one RRset stay in the order of the file.
    records.list.sort_by(|a, b| owner(a).cmp(owner(b)).then(a.kind.cmp(&b.kind)));
    let mut builder = Builder { octets: &octets, zone: Zone::new(origin.clone()), hider: None, faults };
    for node in records.list.chunk_by(|a, b| owner(a) == owner(b)) {
        builder.node(node);
        if builder.faults.is_full() {
            break;
        }
    }
    builder.apex();
    builder.zone.index();
    builder.zone
}

struct Builder<'a> {
    /// Of the records as they were read.
    octets: &'a [u8],
    zone: Zone,
    /// The delegation or DNAME whose descendants come next in canonical order.
    hider: Option<(&'a [u8], u16)>,
    faults: &'a mut Faults,
}

impl<'a> Builder<'a> {
    /// Takes all records of one name.
    fn node(&mut self, records: &[Written]) {
        let [first, ..] = records else { return };
        let owner = first.owner.of(self.octets);
        self.ancestors(owner);
        self.push_node(owner);
        self.at_one_name(owner, records);
        self.hidden(owner, records);
        for set in records.chunk_by(|a, b| a.kind == b.kind) {
            self.set(owner, set);
        }
    }

    /// Adds the empty non-terminals between the node before and this one.
    fn ancestors(&mut self, owner: &[u8]) {
        let before = self.zone.nodes.last().map(|node| node.key.of(&self.zone.octets).to_vec());
        for length in key::beginnings(owner).filter(|length| *length < owner.len()) {
            let ancestor = &owner[..length];
            if !before.as_ref().is_some_and(|before| before.starts_with(ancestor)) {
                self.push_node(ancestor);
            }
        }
    }

    fn push_node(&mut self, key: &[u8]) {
        let (at, sets) = (self.zone.octets.len() as u32, self.zone.sets.len() as u32);
        self.zone.octets.extend(key);
        self.zone.nodes.push(Node { key: Span { at, length: key.len() as u16 }, sets });
    }

    /// The rules for types that share a name.
    fn at_one_name(&mut self, owner: &[u8], records: &[Written]) {
        let name = key::text(owner, self.zone.origin());
        let has = |kind| records.iter().find(|record| record.kind == kind);
        // RFC 1034 section 3.6.2.
        let beside = |record: &&Written| record.kind != CNAME && !BESIDE_CNAME.contains(&record.kind);
        if let (Some(cname), Some(other)) = (has(CNAME), records.iter().find(beside)) {
            let other = kind_text(other.kind);
            self.faults.error(cname.place, format!("{name} has a CNAME and {other}; a CNAME stands alone"));
        }
        if let Some(soa) = has(SOA).filter(|_| !owner.is_empty()) {
            let origin = self.zone.origin().to_ascii();
            self.faults.error(soa.place, format!("SOA of {name}; only {origin} itself may have one"));
        }
        if owner.is_empty() {
            return;
        }
        // RFC 6672 section 2.3.
        if let (Some(_), Some(dname)) = (has(NS), has(DNAME)) {
            self.faults.warn(dname.place, || format!("DNAME of {name} is hidden by the delegation"));
        }
        if let (None, Some(ds)) = (has(NS), has(DS)) {
            self.faults.warn(ds.place, || format!("DS of {name}, which is not delegated"));
        }
    }

    /// Warns of what is never answered: names below a DNAME, and below a delegation all but addresses (glue).
    fn hidden(&mut self, owner: &'a [u8], records: &[Written]) {
        let Some(first) = records.first() else { return };
        if let Some((above, kind)) = self.hider.filter(|(above, _)| owner.starts_with(above)) {
            let address = |kind| kind == u16::from(RecordType::A) || kind == u16::from(RecordType::AAAA);
            let record = records.iter().find(|record| kind == DNAME || !address(record.kind));
            if let Some(record) = record {
                let origin = self.zone.origin();
                let (name, above) = (key::text(owner, origin), key::text(above, origin));
                let (what, hider) = (kind_text(record.kind), if kind == NS { "delegation" } else { "DNAME" });
                self.faults
                    .warn(record.place, || format!("{what} of {name} is hidden by the {hider} at {above}"));
            }
            return;
        }
        let has = |kind| records.iter().any(|record| record.kind == kind);
        self.hider = match () {
            () if has(NS) && !owner.is_empty() => Some((first.owner.of(self.octets), NS)),
            () if has(DNAME) => Some((first.owner.of(self.octets), DNAME)),
            () => None,
        };
    }

    /// Takes the records of one type.
    fn set(&mut self, owner: &[u8], records: &[Written]) {
        let [first, ..] = records else { return };
        let (at, kind) = (self.zone.octets.len() as u32, first.kind);
        // RFC 2181 section 5.2: one TTL for an RRset; the smallest is safe.
        let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(first.ttl);
        let text = |zone: &Zone| format!("{} of {}", kind_text(kind), key::text(owner, zone.origin()));
        if let Some(other) = records.iter().find(|record| record.ttl != first.ttl) {
            let text = text(&self.zone);
            self.faults
                .warn(other.place, || format!("{text} has several TTLs; the smallest, {ttl}, holds for all"));
        }
        let (mut count, mut seen) = (0u32, HashSet::new());
        for record in records {
            let data = record.data.of(self.octets);
            // RFC 2181 section 5: an RRset has no record twice.
            if records.len() > 1 && !seen.insert(data) {
                let text = text(&self.zone);
                self.faults.warn(record.place, || format!("{text} stands here a second time"));
                continue;
            }
            if count == 1 && matches!(kind, CNAME | DNAME | SOA) {
                let text = text(&self.zone);
                self.faults.error(record.place, format!("second {text}; there can be only one"));
            }
            count += 1;
            self.zone.octets.extend((data.len() as u16).to_be_bytes());
            self.zone.octets.extend(data);
        }
        let Ok(count) = u16::try_from(count) else {
            let text = text(&self.zone);
            return self.faults.error(first.place, format!("{text} has more than 65535 records"));
        };
        self.zone.sets.push(Set { ttl, at, kind, count });
    }

    /// RFC 1034 section 4.2.1: a zone begins with its SOA and its name servers.
    fn apex(&mut self) {
        if self.faults.is_full() {
            return;
        }
        // In canonical order the apex is the first node, if it is there at all.
        let has = |kind: RecordType| self.zone.set(0, kind).is_some();
        let (soa, ns) = (has(RecordType::SOA), has(RecordType::NS));
        let (origin, place) = (self.zone.origin().to_ascii(), Place { line: 0, file: 0 });
        for (found, what) in [(soa, "SOA"), (ns, "NS")] {
            if !found {
                self.faults.error(place, format!("no {what} record of {origin}"));
            }
        }
    }
}
