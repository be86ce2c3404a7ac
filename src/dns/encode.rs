//! Answers as bytes: sections, compression, the size limit, TC and EDNS.
//!
//! The question is emitted first and with the client's letter case; owners that equal it become pointers
//! to it, so the case is echoed everywhere. SRV targets are never compressed (RFC 2782), which hickory sees to.

use hickory_proto::ProtoError;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::request::{Edns, Question};
use super::subnet::Subnet;

/// What is said, before it is bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) rcode: ResponseCode,
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
    /// The additional records are glue, without which a referral is useless (RFC 9471).
    pub(super) glue: bool,
    /// An Extended DNS Error (RFC 8914).
    pub(super) error: Option<ExtendedError>,
    /// Clients elsewhere may get another.
    pub(super) tailored: bool,
}

/// Codes of RFC 8914 that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExtendedError {
    StaleAnswer = 3,
    Prohibited = 18,
    NotSupported = 21,
    NetworkError = 23,
}

impl Answer {
    /// Nothing but a code.
    pub(super) fn code(rcode: ResponseCode) -> Self {
        Self { rcode, ..Self::default() }
    }
}

/// What of the request stands in the answer, and how large the answer may be.
#[derive(Debug, Clone)]
pub(super) struct Frame<'a> {
    pub(super) id: u16,
    pub(super) opcode: u8,
    pub(super) recursion_desired: bool,
    pub(super) recursion_available: bool,
    pub(super) checking_disabled: bool,
    pub(super) question: Option<&'a Question>,
    /// What the client said, if it speaks EDNS.
    pub(super) edns: Option<Edns>,
    /// What we say of ourselves.
    pub(super) payload: u16,
    /// The client's network, where it was looked at, and how many of its bits decide a tailored answer.
    pub(super) subnet: Option<(Subnet, u8)>,
    /// Octets.
    pub(super) limit: usize,
}

/// The message, and whether it was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) truncated: bool,
}

/// Octets of a message's header.
pub(super) const HEADER: usize = 12;
/// An OPT record without options, and one Extended DNS Error without text.
pub(super) const OPT_OCTETS: usize = 11;
const ERROR_OCTETS: usize = 6;

/// Encodes an answer. Records of the answer section that do not fit set TC and leave out all that would follow: as many whole records as
/// fit are sent, in order, for clients that cannot come back over TCP (RFC 2181 section 9 leaves the choice). So do authority
/// records and glue. Other additional records are left out by whole RRsets without TC.
pub(super) fn encode(frame: &Frame<'_>, answer: &Answer) -> Encoded {
    sections(frame, answer).unwrap_or_else(|error| {
        tracing::error!("an answer cannot be encoded: {error}");
        let failure = Answer::code(ResponseCode::ServFail);
        sections(&Frame { question: None, ..frame.clone() }, &failure)
            .unwrap_or(Encoded { bytes: Vec::new(), truncated: false })
    })
}

fn sections(frame: &Frame<'_>, answer: &Answer) -> Result<Encoded, ProtoError> {
    let mut bytes = Vec::with_capacity(512);
    bytes.resize(HEADER, 0);
    let mut encoder = BinEncoder::with_offset(&mut bytes, HEADER as u32);
    if let Some(question) = frame.question {
        question.name.emit(&mut encoder)?;
        question.kind.emit(&mut encoder)?;
        question.class.emit(&mut encoder)?;
    }
    let reserved = match (frame.edns, answer.error) {
        (None, _) => 0,
        (Some(_), None) => OPT_OCTETS,
        (Some(_), Some(_)) => OPT_OCTETS + ERROR_OCTETS,
    };
    let reserved = reserved + frame.subnet.map_or(0, |(subnet, _)| subnet.octets());
    let room = frame.limit.saturating_sub(reserved);
    let mut counts = [u16::from(frame.question.is_some()), 0, 0, 0];
    let (written, all) = put(&mut encoder, &answer.answers, room)?;
    counts[1] = written;
    let mut truncated = !all;
    if !truncated {
        let (written, all) = put(&mut encoder, &answer.authorities, room)?;
        (counts[2], truncated) = (written, !all);
    }
    if !truncated && answer.glue {
        let (written, all) = put(&mut encoder, &answer.additionals, room)?;
        (counts[3], truncated) = (written, !all);
    } else if !truncated {
        counts[3] = put_sets(&mut encoder, &answer.additionals, room)?;
    }
    if let Some(client) = frame.edns {
        // RFC 7871 section 7.4: negative answers are everybody's.
        let tailored = answer.tailored && !answer.answers.is_empty();
        let subnet = frame.subnet.map(|(subnet, bits)| (subnet, if tailored { bits } else { 0 }));
        opt(&mut bytes, client, frame.payload, answer.rcode, (answer.error, subnet));
        counts[3] += 1;
    }
    header(&mut bytes, frame, answer, truncated, counts);
    Ok(Encoded { bytes, truncated })
}

/// Emits records until one does not fit; returns how many, and whether that is all.
fn put(encoder: &mut BinEncoder<'_>, records: &[Record], room: usize) -> Result<(u16, bool), ProtoError> {
    let mut written = 0;
    for record in records {
        let start = encoder.offset();
        let fits = match record.emit(encoder) {
            Ok(()) => encoder.offset() <= room && written < u16::MAX,
            // The encoder's own limit, which is that of TCP.
            Err(ProtoError::MaxBufferSizeExceeded(_)) => false,
            Err(error) => return Err(error),
        };
        if !fits {
            encoder.set_offset(start);
            encoder.trim();
            return Ok((written, false));
        }
        written += 1;
    }
    Ok((written, true))
}

/// Emits the RRsets that fit, whole.
fn put_sets(encoder: &mut BinEncoder<'_>, records: &[Record], room: usize) -> Result<u16, ProtoError> {
    let mut written = 0;
    for set in records.chunk_by(|a, b| a.record_type() == b.record_type() && a.name == b.name) {
        let start = encoder.offset();
        let (count, all) = put(encoder, set, room)?;
        if all {
            written += count;
        } else {
            encoder.set_offset(start);
            encoder.trim();
        }
    }
    Ok(written)
}

/// The OPT record (RFC 6891 section 6.1.2): our payload size, our version 0, the client's DO (RFC 3225).
pub(super) fn opt(
    bytes: &mut Vec<u8>,
    client: Edns,
    payload: u16,
    rcode: ResponseCode,
    (error, subnet): (Option<ExtendedError>, Option<(Subnet, u8)>),
) {
    bytes.extend([0, 0, 41]);
    bytes.extend(payload.to_be_bytes());
    bytes.extend([(u16::from(rcode) >> 4) as u8, 0, u8::from(client.dnssec_ok) << 7, 0]);
    let length = error.map_or(0, |_| ERROR_OCTETS) + subnet.map_or(0, |(subnet, _)| subnet.octets());
    bytes.extend((length as u16).to_be_bytes());
    if let Some(error) = error {
        bytes.extend([0, 15, 0, 2]);
        bytes.extend((error as u16).to_be_bytes());
    }
    if let Some((subnet, scope)) = subnet {
        subnet.write(scope, bytes);
    }
}

fn header(bytes: &mut [u8], frame: &Frame<'_>, answer: &Answer, truncated: bool, counts: [u16; 4]) {
    let flags = 0x8000
        | u16::from(frame.opcode) << 11
        | u16::from(answer.authoritative) << 10
        | u16::from(truncated) << 9
        | u16::from(frame.recursion_desired) << 8
        | u16::from(frame.recursion_available) << 7
        // RFC 4035 section 3.1.6: copied into the response.
        | u16::from(frame.checking_disabled) << 4
        | (u16::from(answer.rcode) & 0xf);
    let words = [frame.id, flags, counts[0], counts[1], counts[2], counts[3]];
    for (place, word) in bytes.chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::Message;
    use hickory_proto::rr::rdata::{A, SRV};
    use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn encoded(kind: RecordType, answer: &Answer, limit: usize) -> (Message, Encoded) {
        let question = Question { name: name("wEb.service.internal."), kind, class: DNSClass::IN };
        let edns = Some(Edns { payload: 1232, version: 0, dnssec_ok: true });
        let frame = Frame {
            id: 9,
            opcode: 0,
            recursion_desired: true,
            recursion_available: false,
            checking_disabled: false,
            question: Some(&question),
            edns,
            payload: 1232,
            subnet: None,
            limit,
        };
        let encoded = encode(&frame, answer);
        (Message::from_vec(&encoded.bytes).unwrap(), encoded)
    }

    fn addresses(owner: &str, count: u8) -> Vec<Record> {
        let one = |i| Record::from_rdata(name(owner), 5, RData::A(A(Ipv4Addr::new(10, 0, 0, i))));
        (0..count).map(one).collect()
    }

    #[test]
    fn owners_point_at_the_question_and_echo_its_case() {
        let answer = Answer { answers: addresses("wEb.service.internal.", 2), ..Answer::default() };
        let (message, encoded) = encoded(RecordType::A, &answer, 512);
        assert_eq!(message.answers[1].name.to_ascii(), "wEb.service.internal.");
        // Header, question, two records with a pointer for an owner, OPT.
        assert_eq!(encoded.bytes.len(), 12 + 22 + 4 + 2 * 16 + 11);
        assert!(message.edns.unwrap().flags().dnssec_ok);
    }

    #[test]
    fn what_does_not_fit_sets_tc_and_whole_records_stay() {
        let answer = Answer {
            answers: addresses("web.service.internal.", 100),
            additionals: addresses("x.internal.", 1),
            ..Answer::default()
        };
        let (message, encoded) = encoded(RecordType::A, &answer, 512);
        assert!(message.truncation && encoded.truncated && encoded.bytes.len() <= 512);
        assert!((20..100).contains(&message.answers.len()) && message.additionals.is_empty());
        let (message, _) = self::encoded(RecordType::A, &answer, 65_535);
        assert!(!message.truncation && message.answers.len() == 100);
    }

    /// The encoder itself stops at 64 KiB.
    #[test]
    fn what_does_not_fit_into_the_largest_message_sets_tc_too() {
        let many: Vec<Record> = (0..5000).flat_map(|_| addresses("web.service.internal.", 1)).collect();
        let mut answer = Answer { answers: many.clone(), ..Answer::default() };
        let (message, encoded) = encoded(RecordType::A, &answer, 65_535);
        assert!(encoded.truncated && (65_000..=65_535).contains(&encoded.bytes.len()));
        assert_eq!(message.response_code, ResponseCode::NoError);
        (answer.answers, answer.additionals) = (many[..1].to_vec(), many);
        let (message, encoded) = self::encoded(RecordType::A, &answer, 65_535);
        assert!(!encoded.truncated && message.answers.len() == 1 && message.additionals.is_empty());
    }

    #[test]
    fn additional_sets_go_without_tc_but_glue_does_not() {
        let additionals = [addresses("a.internal.", 30), addresses("b.internal.", 2)].concat();
        let mut answer =
            Answer { answers: addresses("web.service.internal.", 3), additionals, ..Answer::default() };
        let (message, _) = encoded(RecordType::A, &answer, 512);
        assert!(!message.truncation);
        assert!(message.additionals.iter().all(|r| r.name == name("b.internal.")));
        assert_eq!(message.additionals.len(), 2);
        answer.glue = true;
        assert!(encoded(RecordType::A, &answer, 512).0.truncation);
    }

    /// Go refuses a compressed target (RFC 2782: "name compression is not to be used").
    #[test]
    fn srv_targets_are_not_compressed() {
        let target = name("n1.node.service.internal.");
        let srv =
            Record::from_rdata(name("web.service.internal."), 5, RData::SRV(SRV::new(1, 1, 80, target)));
        let answer = Answer { answers: vec![srv], ..Answer::default() };
        let (_, encoded) = encoded(RecordType::SRV, &answer, 512);
        let wire = b"\x02n1\x04node\x07service\x08internal\x00";
        assert!(encoded.bytes.windows(wire.len()).any(|window| window == wire));
    }

    #[test]
    fn an_extended_code_and_error_go_into_opt() {
        let answer =
            Answer { error: Some(ExtendedError::NotSupported), ..Answer::code(ResponseCode::BADVERS) };
        let (message, _) = encoded(RecordType::A, &answer, 512);
        assert_eq!(u16::from(message.response_code), 16);
        let edns = message.edns.unwrap();
        assert_eq!((edns.rcode_high(), edns.options().options.len()), (1, 1));
    }
}
