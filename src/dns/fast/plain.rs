//! A plain question, read in place.
//!
//! Plain is what stubs and resolvers send all day: one question of class IN, nothing else but perhaps an OPT record of
//! version 0. All the rest, malformed messages among it, is the general path's ([`request`](super::super::request)):
//! this reader may refuse what that one takes, never the other way round.

use std::ops::Range;

use super::super::encode::{HEADER, OPT_OCTETS};
use super::super::request::Edns;
use super::super::subnet::CODE;

/// The longest name, in octets (RFC 1035 section 2.3.4).
const NAME_OCTETS_MAX: usize = 255;

/// A question and what the client says of itself.
pub(super) struct Plain<'a> {
    pub(super) id: [u8; 2],
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    /// Name, type and class, as they were written.
    pub(super) question: &'a [u8],
    /// The name in lower case, with its length octets.
    lower: [u8; NAME_OCTETS_MAX],
    length: usize,
    pub(super) kind: u16,
    pub(super) edns: Option<Edns>,
    /// A resolver tells of its client's network.
    pub(super) subnet: bool,
}

impl<'a> Plain<'a> {
    /// Reads a message; none when it is not plain.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let (header, body) = message.split_first_chunk::<HEADER>()?;
        // A query with opcode 0; one question, no records but perhaps one in the additional section.
        let [id_high, id_low, flags, more, 0, 1, 0, 0, 0, 0, 0, additionals @ (0 | 1)] = *header else {
            return None;
        };
        if flags & 0xf8 != 0 {
            return None;
        }
        let length = name(body)?;
        let (question, rest) = body.split_at_checked(length + 4)?;
        let [.., kind_high, kind_low, 0, 1] = *question else { return None };
        let (edns, subnet) = match additionals {
            0 => rest.is_empty().then_some((None, false))?,
            _ => opt(rest).map(|(edns, subnet)| (Some(edns), subnet))?,
        };
        let mut lower = [0; NAME_OCTETS_MAX];
        lower[..length].copy_from_slice(&question[..length]);
        // Length octets are below every letter.
        lower[..length].make_ascii_lowercase();
        Some(Self {
            id: [id_high, id_low],
            recursion_desired: flags & 1 != 0,
            checking_disabled: more & 0x10 != 0,
            question,
            lower,
            length,
            kind: u16::from_be_bytes([kind_high, kind_low]),
            edns,
            subnet,
        })
    }

    /// The name in lower case, with its length octets.
    pub(super) fn name(&self) -> &[u8] {
        &self.lower[..self.length]
    }

    /// The labels of the name from the left, in lower case, as places in [`name`](Self::name).
    pub(super) fn labels(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let length = usize::from(*self.name().get(at)?);
            let label = at + 1..at + 1 + length;
            at = label.end;
            (length > 0).then_some(label)
        })
    }
}

/// The octets of the name that a body begins with; none for a pointer, or a name that is too long or cut.
fn name(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*body.get(at)?) {
            0 => return (at < NAME_OCTETS_MAX).then_some(at + 1),
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
}

/// An OPT record of version 0 to the end of the message (RFC 6891 section 6.1.2), and whether a client subnet is in it. Options
/// are stepped over: no other that is known here changes an answer.
fn opt(record: &[u8]) -> Option<(Edns, bool)> {
    let (fixed, mut options) = record.split_first_chunk::<OPT_OCTETS>()?;
    let [0, 0, 41, payload_high, payload_low, _, 0, flags, _, length_high, length_low] = *fixed else {
        return None;
    };
    if options.len() != usize::from(u16::from_be_bytes([length_high, length_low])) {
        return None;
    }
    let mut subnet = false;
    while !options.is_empty() {
        let (head, rest) = options.split_first_chunk::<4>()?;
        subnet |= head[..2] == CODE.to_be_bytes();
        options = rest.get(usize::from(u16::from_be_bytes([head[2], head[3]]))..)?;
    }
    let payload = u16::from_be_bytes([payload_high, payload_low]);
    Some((Edns { payload, version: 0, dnssec_ok: flags & 0x80 != 0 }, subnet))
}
