//! A service's answer, encoded but for what the question and chance decide.
//!
//! Records are encoded once for each instance, their owner a pointer to the question. An answer is put together from
//! them: it starts somewhere in the ring of instances and goes around, leaving out what was given already (two
//! instances at one address), as the general path does.

use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

use super::super::encode::HEADER;
use super::super::live;
use super::plain::Plain;
use crate::registry::versions::Slot;
use crate::select::{Chosen, Known, Ring, Settings};

/// Instances of which answers are put together here; of more, most do not fit anyway.
const INSTANCES_MAX: usize = 64;
/// Labels that hickory's encoder remembers to point at. Where names would be forgotten, owners are spelt differently.
const LABELS_MAX: usize = 64;
/// What a record begins with whose owner is the question's name.
const QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// The answers to one name and type.
pub(super) struct Template {
    pub(super) slot: Slot,
    /// Of the service, when this was made.
    pub(super) version: u32,
    kind: u16,
    /// Octets of the name.
    name: u8,
    /// Octets of the domain at the end of each target.
    domain: u8,
    /// Some instances are critical, and kept by a guard.
    pub(super) stale: bool,
    /// Answer records that are given at most.
    limit: u16,
    /// Instances; 0 where the name exists, and has no record of the type.
    pieces: u16,
    ring: Ring,
    /// Of a service with a route: one of them is drawn for an answer of addresses, and has the pieces.
    draws: Option<Box<Draws>>,
    /// The name in lower case, the pieces, then their records: in one allocation, since each costs a wait for memory.
    octets: Box<[u8]>,
}

/// Subsets, of which chance draws one.
struct Draws {
    total: u64,
    subsets: Vec<Draw>,
}

struct Draw {
    /// The sum of the shares up to and with it.
    upto: u64,
    /// Its first piece, and the one behind its last.
    pieces: [usize; 2],
    ring: Ring,
}

impl Draws {
    /// For answers of addresses: the subsets, and the instances of which pieces are to be made, subset after subset. Without a
    /// route, the ring of all instances alone.
    fn of<'a>(
        known: &Known<'a>,
        limit: Option<usize>,
        kind: RecordType,
    ) -> Option<(Option<Box<Self>>, Vec<Chosen<'a>>, Ring)> {
        let (mut draws, mut all) = (Self { total: 0, subsets: Vec::new() }, Vec::new());
        for (share, subset) in known.draws(live::family(kind)) {
            draws.total += share;
            let pieces = [all.len(), all.len() + subset.chosen.len()];
            draws.subsets.push(Draw { upto: draws.total, pieces, ring: subset.ring(limit)? });
            all.extend(subset.chosen);
        }
        match draws.subsets.is_empty() {
            true => Some((None, all, known.ring(limit)?)),
            false => Some((Some(Box::new(draws)), all, Ring::Even(0))),
        }
    }
}

/// One instance.
struct Piece {
    /// Where its answer record lies, where its additional ones begin, and where they end.
    at: [u16; 3],
    /// Where its target lies in its answer record, and how long that is; 0 where it has none.
    target: [u8; 2],
    /// Additional records.
    additionals: u8,
    /// The first instance that has the same record, and the first with the same target.
    same: [u8; 2],
}

/// Octets of a piece as it is kept.
const PIECE: usize = 11;
/// Octets that the processor takes from memory at once.
const LINE: usize = 64;
/// Lines of a template that are taken ahead; more is rare, and follows by itself.
const LINES_AHEAD: usize = 8;

impl Piece {
    fn write(&self) -> [u8; PIECE] {
        let [[a, b], [c, d], [e, f]] = self.at.map(u16::to_le_bytes);
        [a, b, c, d, e, f, self.target[0], self.target[1], self.additionals, self.same[0], self.same[1]]
    }

    fn read(octets: &[u8; PIECE]) -> Self {
        let [a, b, c, d, e, f, target, length, additionals, same, same_target] = *octets;
        let at = [[a, b], [c, d], [e, f]].map(u16::from_le_bytes);
        Self { at, target: [target, length], additionals, same: [same, same_target] }
    }
}

/// What an answer was put together to.
pub(super) struct Counts {
    pub(super) answers: u16,
    pub(super) additionals: u16,
}

impl Template {
    /// For the answers to a question for a name of a service, in a domain in lower case. None when the general path has to answer.
    pub(super) fn new(
        (slot, version): (Slot, u32),
        known: &Known<'_>,
        question: &Plain<'_>,
        (domain, datacenter, settings): (&Name, &str, &Settings),
    ) -> Option<Self> {
        let (kind, name) = (RecordType::from(question.kind), question.name());
        let mut template = Self {
            slot,
            version,
            kind: question.kind,
            name: name.len() as u8,
            domain: domain.to_bytes().ok()?.len() as u8,
            stale: known.stale,
            limit: u16::MAX,
            pieces: 0,
            ring: Ring::Even(0),
            draws: None,
            octets: name.into(),
        };
        // What is reached at a host name is the general path's.
        if known.chosen.iter().any(|chosen| chosen.reached.host.is_some()) {
            return None;
        }
        let limit = settings.a_limit(known.service.name.folded());
        let mut drawn = Vec::new();
        let (ring, limit) = match kind {
            RecordType::A | RecordType::AAAA => {
                let ring;
                (template.draws, drawn, ring) = Draws::of(known, limit, kind)?;
                (ring, limit)
            }
            RecordType::SRV => (Ring::Even(known.chosen.len()), None),
            RecordType::TXT if !known.chosen.iter().any(|chosen| live::has_text(chosen)) => {
                return Some(template);
            }
            // Types that are made from an instance's other properties, or lead elsewhere.
            RecordType::TXT | RecordType::CNAME | RecordType::ANY => return None,
            _ => return Some(template),
        };
        let chosen = if drawn.is_empty() { &known.chosen } else { &drawn };
        if chosen.len() > INSTANCES_MAX {
            return None;
        }
        let mut writer = Writer { ttl: known.ttl, octets: Vec::new(), labels: question.labels().count() };
        let (mut pieces, mut given) = (Vec::with_capacity(chosen.len()), Vec::with_capacity(chosen.len()));
        for (place, chosen) in chosen.iter().enumerate() {
            let target = match kind {
                RecordType::SRV => Some(live::target(chosen, datacenter, domain)?),
                _ => None,
            };
            let (mut piece, names) = writer.instance(chosen, kind, target.as_ref())?;
            let first =
                |which: usize| given.iter().position(|before: &[Vec<u8>; 2]| before[which] == names[which]);
            piece.same = [0, 1].map(|which| first(which).unwrap_or(place) as u8);
            pieces.push(piece);
            given.push(names);
        }
        if writer.labels > LABELS_MAX {
            return None;
        }
        if pieces.iter().any(|piece: &Piece| piece.at[0] < piece.at[1]) {
            template.ring = ring;
            template.limit = limit.and_then(|limit| u16::try_from(limit).ok()).unwrap_or(u16::MAX);
            template.pieces = pieces.len() as u16;
            let pieces: Vec<u8> = pieces.iter().flat_map(Piece::write).collect();
            template.octets = [name, &pieces, &writer.octets].concat().into();
        }
        Some(template)
    }

    /// Octets that this takes beside itself.
    pub(super) fn size(&self) -> usize {
        self.octets.len()
    }

    /// Reads an octet of each line of memory that is needed for an answer.
    pub(super) fn touch(&self) -> u8 {
        self.octets.iter().step_by(LINE).take(LINES_AHEAD).fold(0, |sum, octet| sum ^ octet)
    }

    pub(super) fn is_for(&self, question: &Plain<'_>) -> bool {
        self.kind == question.kind && self.octets.get(..usize::from(self.name)) == Some(question.name())
    }

    /// Appends the records to a message that holds the header and the question. `domain` is the domain as the client
    /// spelt it. None when there are no records. The message may get larger than may be sent, and is no good then.
    pub(super) fn put(&self, pick: u64, domain: &[u8], message: &mut Vec<u8>) -> Option<Counts> {
        if self.pieces == 0 {
            return None;
        }
        let (_name, rest) = self.octets.split_at_checked(usize::from(self.name))?;
        let (pieces, octets) = rest.split_at_checked(usize::from(self.pieces) * PIECE)?;
        let pieces = pieces.as_chunks::<PIECE>().0;
        let (pieces, start) = match &self.draws {
            None => (pieces, self.ring.start(pick)),
            Some(draws) => {
                let at = pick.checked_rem(draws.total)?;
                let draw = draws.subsets.iter().find(|draw| at < draw.upto)?;
                (pieces.get(draw.pieces[0]..draw.pieces[1])?, draw.ring.start(pick / draws.total))
            }
        };
        let (before, behind) = pieces.split_at_checked(start)?;
        let pieces = behind.iter().chain(before).map(Piece::read);
        let recase = domain.iter().any(u8::is_ascii_uppercase);
        let (mut seen, mut counts) = ([0u64; 2], Counts { answers: 0, additionals: 0 });
        // Where the target of the first instance with it was written.
        let mut targets = [0u16; INSTANCES_MAX];
        for piece in pieces.clone() {
            let [same, same_target] = piece.same.map(usize::from);
            let [at, end, _] = piece.at.map(usize::from);
            if at == end || seen[0] & 1 << same != 0 || counts.answers == self.limit {
                continue;
            }
            seen[0] |= 1 << same;
            counts.answers += 1;
            if seen[1] & 1 << same_target == 0 {
                seen[1] |= 1 << same_target;
                targets[same_target] = (message.len() + usize::from(piece.target[0])) as u16;
            }
            message.extend_from_slice(octets.get(at..end)?);
            if recase && piece.target[1] > 0 {
                let end = message.len();
                message.get_mut(end - usize::from(self.domain)..)?.copy_from_slice(domain);
            }
        }
        // An instance of whom only the target was given adds nothing.
        for piece in pieces.filter(|piece| piece.additionals > 0) {
            let same_target = usize::from(piece.same[1]);
            if seen[1] & 1 << same_target == 0 {
                continue;
            }
            seen[1] &= !(1 << same_target);
            let [_, at, end] = piece.at.map(usize::from);
            let pointer = (0xc000 | targets[same_target]).to_be_bytes();
            let mut records = octets.get(at..end)?;
            // An A record has 16 octets, an AAAA record 28.
            for _ in 0..piece.additionals {
                let length = if records.get(3) == Some(&(u16::from(RecordType::A) as u8)) { 16 } else { 28 };
                let (record, rest) = records.split_at_checked(length)?;
                message.extend_from_slice(&pointer);
                message.extend_from_slice(&record[2..]);
                records = rest;
            }
            counts.additionals += u16::from(piece.additionals);
        }
        Some(counts)
    }
}

/// Encodes the records of instances, one after the other.
struct Writer {
    ttl: u32,
    octets: Vec<u8>,
    /// Labels of the question and of all targets so far.
    labels: usize,
}

impl Writer {
    /// One instance, and what tells its answer record and its target apart from others'. None when its target is too long.
    fn instance(
        &mut self,
        chosen: &Chosen<'_>,
        kind: RecordType,
        target: Option<&Name>,
    ) -> Option<(Piece, [Vec<u8>; 2])> {
        let at = self.octets.len();
        let mut names = [Vec::new(), Vec::new()];
        let mut piece = Piece { at: [0; 3], target: [0; 2], additionals: 0, same: [0; 2] };
        match target {
            None => {
                self.address(chosen, kind);
                names[0] = self.octets[at..].to_vec();
            }
            Some(target) => {
                let wire = target.to_bytes().ok()?;
                let port = chosen.entry.instance.port.to_be_bytes();
                self.record(RecordType::SRV, 6 + wire.len());
                // RFC 2782: priority, weight, port, target.
                self.octets.extend([0, 1]);
                self.octets.extend(chosen.weight.to_be_bytes());
                self.octets.extend(port);
                piece.target = [(self.octets.len() - at) as u8, u8::try_from(wire.len()).ok()?];
                self.octets.extend_from_slice(&wire);
                self.labels += target.iter().count();
                names = [[&port[..], &wire].concat(), wire];
            }
        }
        let end = self.octets.len();
        if target.is_some() {
            for kind in [RecordType::A, RecordType::AAAA] {
                piece.additionals += u8::from(self.address(chosen, kind));
            }
        }
        piece.at =
            [u16::try_from(at).ok()?, u16::try_from(end).ok()?, u16::try_from(self.octets.len()).ok()?];
        Some((piece, names))
    }

    /// The address of this family, if there is one.
    fn address(&mut self, chosen: &Chosen<'_>, kind: RecordType) -> bool {
        let reached = &chosen.reached;
        match (kind, reached.v4, reached.v6) {
            (RecordType::A, Some(ip), _) => {
                self.record(kind, 4);
                self.octets.extend(ip.octets());
                true
            }
            (RecordType::AAAA, _, Some(ip)) => {
                self.record(kind, 16);
                self.octets.extend(ip.octets());
                true
            }
            _ => false,
        }
    }

    fn record(&mut self, kind: RecordType, data: usize) {
        record(&mut self.octets, u16::from(kind), self.ttl, data);
    }
}

/// Appends a record of class IN whose owner is the question's name, up to its data.
pub(super) fn record(octets: &mut Vec<u8>, kind: u16, ttl: u32, data: usize) {
    octets.extend(QUESTION);
    octets.extend(kind.to_be_bytes());
    octets.extend([0, 1]);
    octets.extend(ttl.to_be_bytes());
    octets.extend((data as u16).to_be_bytes());
}
