//! DNS messages octet by octet, for what a well-behaved library neither sends nor shows.

use std::net::SocketAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::server::{PATIENCE, exchange, read_tcp};

pub const HEADER: usize = 12;
pub const QR: u16 = 0x8000;
pub const AA: u16 = 0x0400;
pub const TC: u16 = 0x0200;
pub const RD: u16 = 0x0100;
pub const RA: u16 = 0x0080;
pub const Z: u16 = 0x0040;
pub const AD: u16 = 0x0020;
pub const CD: u16 = 0x0010;

pub const FORMERR: u16 = 1;
pub const NXDOMAIN: u16 = 3;
pub const NOTIMP: u16 = 4;
pub const REFUSED: u16 = 5;

/// The fixed part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub id: u16,
    pub flags: u16,
    pub counts: [u16; 4],
}

impl Head {
    pub fn rcode(&self) -> u16 {
        self.flags & 0xf
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

pub fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn head(bytes: &[u8]) -> Head {
    Head { id: word(bytes, 0), flags: word(bytes, 2), counts: [4, 6, 8, 10].map(|at| word(bytes, at)) }
}

/// A name in its wire form, labels between dots.
pub fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A header with these flags and counts, under an id of chance.
pub fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let id: u16 = rand::random();
    [id, flags, counts[0], counts[1], counts[2], counts[3]]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

/// A question of a class: the wire form that stands behind the header.
pub fn asked(text: &str, kind: u16, class: u16) -> Vec<u8> {
    [name(text), kind.to_be_bytes().to_vec(), class.to_be_bytes().to_vec()].concat()
}

/// A query of class IN with RD, without EDNS.
pub fn query(text: &str, kind: RecordType) -> Vec<u8> {
    [header(RD, [1, 0, 0, 0]), asked(text, u16::from(kind), 1)].concat()
}

/// An OPT record: payload, version, its flags, and options as they are.
pub fn opt(payload: u16, version: u8, flags: u16, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 41];
    bytes.extend(payload.to_be_bytes());
    bytes.extend([0, version]);
    bytes.extend(flags.to_be_bytes());
    bytes.extend((options.len() as u16).to_be_bytes());
    bytes.extend(options);
    bytes
}

/// A message with one more record in a section (1 answer, 2 authority, 3 additional), behind all others.
pub fn with(mut message: Vec<u8>, section: usize, record: &[u8]) -> Vec<u8> {
    let at = 4 + 2 * section;
    let count = word(&message, at) + 1;
    message[at..at + 2].copy_from_slice(&count.to_be_bytes());
    message.extend(record);
    message
}

/// The OPT record of an answer: payload, extended code's high octet, version, flags. It is the last record of ours, so it is
/// looked for from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt {
    pub payload: u16,
    pub rcode_high: u8,
    pub version: u8,
    pub flags: u16,
}

/// Where each record starts and ends, by section; the walk must end with the last octet.
pub fn records(bytes: &[u8]) -> [Vec<std::ops::Range<usize>>; 3] {
    let mut at = HEADER;
    let head = head(bytes);
    for _ in 0..head.counts[0] {
        at = past_name(bytes, at) + 4;
    }
    let mut sections = [Vec::new(), Vec::new(), Vec::new()];
    for (section, count) in sections.iter_mut().zip(&head.counts[1..]) {
        for _ in 0..*count {
            let start = at;
            let fixed = past_name(bytes, at);
            at = fixed + 10 + usize::from(word(bytes, fixed + 8));
            section.push(start..at);
        }
    }
    assert_eq!(at, bytes.len(), "nothing lies behind the last record");
    sections
}

pub fn past_name(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return at + 2,
        }
    }
}

/// The only OPT record of an answer.
pub fn opt_of(bytes: &[u8]) -> Option<Opt> {
    let [answers, authorities, additionals] = records(bytes);
    let is_opt = |range: &std::ops::Range<usize>| word(bytes, past_name(bytes, range.start)) == 41;
    assert!(!answers.iter().chain(&authorities).any(is_opt), "OPT belongs to the additional section");
    let found: Vec<_> = additionals.into_iter().filter(is_opt).collect();
    assert!(found.len() <= 1);
    let at = found.first()?.start;
    assert_eq!(bytes[at], 0, "the root owns it");
    Some(Opt {
        payload: word(bytes, at + 3),
        rcode_high: bytes[at + 5],
        version: bytes[at + 6],
        flags: word(bytes, at + 7),
    })
}

/// The answer over UDP, which must come and carry the id.
pub async fn ask(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let answer = exchange(server, message).await.expect("no answer");
    assert_eq!(answer[..2], message[..2], "the id");
    answer
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

/// The answer over TCP on a connection of its own; `None` when it is closed instead.
pub async fn ask_tcp(server: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
    let whole = async {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(&framed(message)).await.unwrap();
        read_tcp(&mut stream).await
    };
    tokio::time::timeout(PATIENCE, whole).await.expect("neither an answer nor an end")
}

/// The data of an answer's records of one type, as text, sorted.
pub fn data(records: &[Record], kind: RecordType) -> Vec<String> {
    let of_kind = records.iter().filter(|record| record.record_type() == kind);
    let mut texts: Vec<String> = of_kind.map(|record| record.data.to_string()).collect();
    texts.sort();
    texts
}

/// The SOA that a negative answer must have: its only record, with the owner, TTL and MINIMUM.
pub fn soa(message: &Message) -> (Name, u32, u32) {
    assert!(message.answers.is_empty(), "{message}");
    assert_eq!(message.authorities.len(), 1, "{message}");
    let record = &message.authorities[0];
    let RData::SOA(soa) = &record.data else { panic!("{record} is no SOA") };
    (record.name.clone(), record.ttl, soa.minimum)
}
