//! A request, read strictly: what is malformed is found here, before anything is looked up.
//!
//! The wire is walked by hand: the question is needed as it was written (its letter case goes into the
//! answer), the other sections only have to be well formed, and what a lenient parser passes
//! over (octets behind the message, a second OPT, options that overrun) must be refused.

use hickory_proto::rr::{DNSClass, Name, RecordType};

use super::encode::HEADER;
use super::subnet::{self, Subnet};

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: u16,
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    pub(super) question: Question,
    pub(super) edns: Option<Edns>,
    /// The network of the client, as its resolver says; an error where that is malformed.
    pub(super) subnet: Option<Result<Subnet, BadSubnet>>,
}

/// A client subnet that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadSubnet;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// As it was written.
    pub(super) name: Name,
    pub(super) kind: RecordType,
    pub(super) class: DNSClass,
}

/// What the client says of itself (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edns {
    pub(super) payload: u16,
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
}

/// Why a request cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Not even an error may be sent: too short for a header, or itself a response. Two servers
    /// that answered each other's errors would never stop (CVE-2024-2169).
    Unanswerable,
    /// FORMERR with the id and, where it could be read, the question.
    FormErr { id: u16, recursion_desired: bool, question: Option<Question> },
    /// NOTIMP: an opcode other than QUERY.
    Opcode { id: u16, opcode: u8, recursion_desired: bool },
}

const OPT: u16 = 41;
const TSIG: u16 = 250;

/// Reads a request.
pub(super) fn read(bytes: &[u8]) -> Result<Request, Malformed> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (Some(id), Some(flags), true) = (word(0), word(2), bytes.len() >= HEADER) else {
        return Err(Malformed::Unanswerable);
    };
    // RFC 1035 section 4.1.1: QR is set in responses.
    if flags & 0x8000 != 0 {
        return Err(Malformed::Unanswerable);
    }
    let recursion_desired = flags & 0x0100 != 0;
    let opcode = (flags >> 11 & 0xf) as u8;
    if opcode != 0 {
        return Err(Malformed::Opcode { id, opcode, recursion_desired });
    }
    let malformed = |question| Malformed::FormErr { id, recursion_desired, question };
    let counts = [4, 6, 8, 10].map(|at| word(at).unwrap_or(0));
    // RFC 9619: a QUERY has exactly one question.
    if counts[0] != 1 {
        return Err(malformed(None));
    }
    let mut wire = Wire { bytes, at: HEADER, subnet: None };
    let question = wire.question().ok_or_else(|| malformed(None))?;
    match wire.rest(&counts) {
        Some(edns) => {
            let checking_disabled = flags & 0x0010 != 0;
            let subnet = wire.subnet;
            Ok(Request { id, recursion_desired, checking_disabled, question, edns, subnet })
        }
        None => Err(malformed(Some(question))),
    }
}

/// A place in a message.
struct Wire<'a> {
    bytes: &'a [u8],
    at: usize,
    subnet: Option<Result<Subnet, BadSubnet>>,
}

impl Wire<'_> {
    fn u8(&mut self) -> Option<u8> {
        let value = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(value)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    /// The question. Its name is the first in the message, so that a pointer in it could only lead
    /// into the header or in a circle.
    fn question(&mut self) -> Option<Question> {
        let mut labels: Vec<&[u8]> = Vec::new();
        let start = self.at;
        loop {
            let length = usize::from(self.u8()?);
            if length == 0 {
                break;
            }
            // RFC 1035 section 2.3.4: labels have at most 63 octets, names 255 with their length octets.
            let label = self.bytes.get(self.at..self.at + length).filter(|_| length <= 63)?;
            labels.push(label);
            self.at += length;
            if self.at - start > 254 {
                return None;
            }
        }
        let mut name = Name::from_labels(labels).ok()?;
        name.set_fqdn(true);
        let kind = RecordType::from(self.u16()?);
        let class = DNSClass::from(self.u16()?);
        Some(Question { name, kind, class })
    }

    /// Walks over the other sections to the last octet; `None` if anything is malformed.
    fn rest(&mut self, counts: &[u16; 4]) -> Option<Option<Edns>> {
        let mut edns = None;
        for (section, count) in counts.iter().enumerate().skip(1) {
            for left in (0..*count).rev() {
                let root = self.bytes.get(self.at) == Some(&0);
                self.skip_name()?;
                let kind = self.u16()?;
                let class = self.u16()?;
                let ttl = [self.u8()?, self.u8()?, self.u8()?, self.u8()?];
                let length = usize::from(self.u16()?);
                let end = self.at + length;
                match kind {
                    // RFC 6891 section 6.1.1: one at most, in the additional section, owned by the root.
                    OPT => {
                        if section != 3 || edns.is_some() || !root {
                            return None;
                        }
                        self.options(end)?;
                        let dnssec_ok = ttl[2] & 0x80 != 0;
                        edns = Some(Edns { payload: class, version: ttl[1], dnssec_ok });
                    }
                    // RFC 8945 section 5.1: the last record of the message.
                    TSIG if section != 3 || left != 0 => return None,
                    _ => {}
                }
                if end > self.bytes.len() {
                    return None;
                }
                self.at = end;
            }
        }
        (self.at == self.bytes.len()).then_some(edns)
    }

    /// Steps over a name. A pointer ends it, wherever it leads: nothing here follows one.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.u8()? {
                0 => return Some(()),
                length @ 1..=63 => self.at += usize::from(length),
                192..=255 => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Checks that options fill their record exactly (RFC 6891 section 6.1.2).
    fn options(&mut self, end: usize) -> Option<()> {
        let mut at = self.at;
        while at < end {
            let (code, length) = (self.bytes.get(at..at + 2)?, self.bytes.get(at + 2..at + 4)?);
            let data = at + 4..at + 4 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            at = data.end;
            if code == subnet::CODE.to_be_bytes() {
                let read = self.bytes.get(data).and_then(Subnet::read).filter(|_| self.subnet.is_none());
                self.subnet = Some(read.ok_or(BadSubnet));
            }
        }
        (at == end).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns as HickoryEdns, Message, MessageType, OpCode, Query};
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, edns: bool) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::SRV));
        if edns {
            let mut edns = HickoryEdns::new();
            edns.set_max_payload(1400);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn is_formerr(bytes: &[u8]) -> bool {
        matches!(read(bytes), Err(Malformed::FormErr { id: 7, .. }))
    }

    #[test]
    fn keeps_the_letter_case_and_reads_edns() {
        let request = read(&query("wEb.Service.internal.", true)).unwrap();
        assert_eq!(request.question.name.to_ascii(), "wEb.Service.internal.");
        assert_eq!((request.id, request.question.kind), (7, RecordType::SRV));
        assert_eq!(request.edns, Some(Edns { payload: 1400, version: 0, dnssec_ok: false }));
    }

    #[test]
    fn responses_and_stumps_are_never_answered() {
        let mut bytes = query("a.", false);
        bytes[2] |= 0x80;
        assert_eq!(read(&bytes), Err(Malformed::Unanswerable));
        for length in 0..HEADER {
            assert_eq!(read(&query("a.", false)[..length]), Err(Malformed::Unanswerable));
        }
    }

    #[test]
    fn what_is_cut_or_too_long_is_malformed() {
        let whole = query("a.b.", true);
        for length in HEADER..whole.len() {
            assert!(is_formerr(&whole[..length]), "{length}");
        }
        assert!(is_formerr(&[&whole[..], &[0]].concat()), "an octet behind the message");
    }

    #[test]
    fn counts_pointers_and_labels_are_checked() {
        for count in [0u16, 2, 65535] {
            let mut bytes = query("a.", false);
            bytes[4..6].copy_from_slice(&count.to_be_bytes());
            assert!(is_formerr(&bytes), "{count} questions");
        }
        for pointer in [0xc0u8, 0x40, 0x80] {
            let mut bytes = query("a.", false);
            bytes[HEADER] = pointer;
            assert!(is_formerr(&bytes), "{pointer:x}");
        }
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}.", "a".repeat(61));
        assert!(read(&query(&longest, false)).is_ok(), "255 octets");
        let mut longer = query(&longest, false);
        let last = HEADER + 3 * 64;
        longer[last] = 62;
        longer.insert(last + 1, b'a');
        assert!(is_formerr(&longer), "256 octets");
    }

    #[test]
    fn opt_stands_once_in_the_additional_section_and_its_options_fit() {
        let opt = |rdata: &[u8]| {
            let length = (rdata.len() as u16).to_be_bytes();
            [&[0, 0, 41, 4, 208, 0, 0, 0, 0][..], &length, rdata].concat()
        };
        let with = |counts: [u8; 3], records: &[Vec<u8>]| {
            let mut bytes = query("a.", false);
            (bytes[7], bytes[9], bytes[11]) = (counts[0], counts[1], counts[2]);
            [bytes, records.concat()].concat()
        };
        let (cookie, overrun) = ([0, 10, 0, 2, 1, 2], [0, 10, 0, 3, 1, 2]);
        assert!(read(&with([0, 0, 1], &[opt(&cookie)])).unwrap().edns.is_some());
        assert!(is_formerr(&with([0, 0, 2], &[opt(&[]), opt(&[])])));
        assert!(is_formerr(&with([1, 0, 0], &[opt(&[])])));
        assert!(is_formerr(&with([0, 0, 1], &[opt(&overrun)])));
        let mut owned = opt(&[]);
        owned.splice(0..1, [1, b'x', 0]);
        assert!(is_formerr(&with([0, 0, 1], &[owned])));
    }

    #[test]
    fn other_opcodes_are_told_apart() {
        let mut bytes = query("a.", false);
        bytes[2] = 5 << 3;
        assert_eq!(read(&bytes), Err(Malformed::Opcode { id: 7, opcode: 5, recursion_desired: false }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn reads_anything_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
        }

        #[test]
        fn survives_any_change_of_a_good_one(at in 0..60usize, value: u8, cut in 0..60usize) {
            let mut bytes = query("web.service.internal.", true);
            let length = bytes.len();
            bytes[at % length] = value;
            bytes.truncate(length - cut % length);
            let _ = read(&bytes);
        }
    }
}
