//! Master files (RFC 1035 section 5) as a list of records.
//!
//! hickory's zone reader was looked at and left: it rejects DNAME and unknown types, follows `$INCLUDE` to any path
//! and reports no lines. This one keeps all records of a zone in one buffer, owners as keys and data as on the
//! wire, and goes on behind an error so that one run tells them all. Opening an included file is the caller's: the
//! reader itself does no I/O.

use std::path::{Component, Path};

use hickory_proto::rr::{Name, RecordType};

use super::Limits;
use super::fault::{Faults, Place};
use super::key;
use super::rdata::{self, not, period, shown};
use super::token::{Entry, Token, Tokens, unescape};
use super::types;

/// Reads an included file: the parts of its path below the zone file's folder, and how many octets it may have.
pub(super) type Open<'a> = &'a dyn Fn(&[&str], usize) -> Result<Vec<u8>, String>;

/// Records as they stand in the files, in that order.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Keys of owners and record data.
    pub(super) octets: Vec<u8>,
    pub(super) list: Vec<Written>,
}

/// One record; where its parts lie in `Records::octets`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) owner: Span,
    pub(super) data: Span,
    pub(super) ttl: u32,
    pub(super) kind: u16,
    pub(super) place: Place,
}

/// A part of a buffer that is smaller than 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u32,
    pub(super) length: u16,
}

impl Span {
    /// What of the buffer it is; nothing if it lies outside.
    pub(super) fn of(self, octets: &[u8]) -> &[u8] {
        let at = self.at as usize;
        octets.get(at..at + usize::from(self.length)).unwrap_or_default()
    }
}

impl Records {
    fn push(&mut self, octets: &[u8]) -> Result<Span, String> {
        let at = u32::try_from(self.octets.len()).ok().filter(|at| *at < u32::MAX - (1 << 17));
        let span = at.zip(u16::try_from(octets.len()).ok());
        let (at, length) = span.ok_or("zone has more than 4 GiB of record data")?;
        self.octets.extend(octets);
        Ok(Span { at, length })
    }
}

/// Reads a zone file and what it includes.
pub(super) fn read(
    origin: &Name,
    name: &str,
    text: &[u8],
    open: Open<'_>,
    limits: &Limits,
    faults: &mut Faults,
) -> Records {
    let mut wire = Vec::new();
    origin.iter().for_each(|label| push_label(&mut wire, label));
    wire.push(0);
    let left = limits.octets.saturating_sub(text.len());
    let path = vec![name.to_owned()];
    let mut reader = Reader { origin, open, limits, faults, records: Records::default(), path, left };
    reader.file(text, State::new(0, wire));
    reader.records
}

fn push_label(wire: &mut Vec<u8>, label: &[u8]) {
    wire.push(label.len() as u8);
    wire.extend(label);
}

struct Reader<'a> {
    origin: &'a Name,
    open: Open<'a>,
    limits: &'a Limits,
    faults: &'a mut Faults,
    records: Records,
    /// The files that are being read, each included by the one before.
    path: Vec<String>,
    /// Octets that may still be read.
    left: usize,
}

/// What lines of one file leave behind for those below them.
struct State {
    file: u16,
    /// As on the wire.
    origin: Vec<u8>,
    owner: Owner,
    /// `$TTL` (RFC 2308 section 4).
    default_ttl: Option<u32>,
    /// The last TTL that was written (RFC 1035 section 5.1).
    last_ttl: Option<u32>,
    /// A name as on the wire, kept for its room.
    name: Vec<u8>,
}

impl State {
    fn new(file: u16, origin: Vec<u8>) -> Self {
        Self { file, origin, owner: Owner::None, default_ttl: None, last_ttl: None, name: Vec::new() }
    }
}

enum Owner {
    None,
    /// It could not be read; that was said once.
    Invalid,
    Key(Span),
}

impl Reader<'_> {
    fn file(&mut self, text: &[u8], mut state: State) {
        let file = state.file;
        let mut tokens = Tokens::new(text, self.limits.entry_octets);
        while let Some(entry) = tokens.next_entry() {
            let result = match entry {
                Ok(entry) => self.entry(&entry, &mut state).map_err(|reason| (entry.line, reason)),
                Err(error) => Err(error),
            };
            if let Err((line, reason)) = result {
                self.faults.error(Place { line, file }, reason);
            }
            if self.faults.is_full() || self.records.list.len() > self.limits.records {
                return;
            }
        }
    }

    fn entry(&mut self, entry: &Entry<'_>, state: &mut State) -> Result<(), String> {
        match entry.tokens.as_slice() {
            [word, rest @ ..] if !entry.indented && !word.quoted && word.text.starts_with(b"$") => {
                match word.text.to_ascii_uppercase().as_slice() {
                    b"$ORIGIN" => origin(rest, state),
                    b"$TTL" => {
                        let [ttl] = rest else { return Err("$TTL needs one period".to_owned()) };
                        state.default_ttl = Some(period(ttl.text)?);
                        Ok(())
                    }
                    b"$INCLUDE" => self.include(rest, state),
                    _ => Err(format!("{}: only $ORIGIN, $TTL and $INCLUDE are known", shown(word.text))),
                }
            }
            tokens => {
                let tokens = self.owner(entry.indented, tokens, state)?;
                self.record(tokens, Place { line: entry.line, file: state.file }, state)
            }
        }
    }

    /// Takes the owner off the tokens.
    fn owner<'a, 't>(
        &mut self,
        indented: bool,
        tokens: &'a [Token<'t>],
        state: &mut State,
    ) -> Result<&'a [Token<'t>], String> {
        let [first, rest @ ..] = tokens else { return Ok(tokens) };
        if indented {
            return match state.owner {
                Owner::None => Err("no owner stands before this line; write one".to_owned()),
                Owner::Invalid | Owner::Key(_) => Ok(tokens),
            };
        }
        let before = std::mem::replace(&mut state.owner, Owner::Invalid);
        if first.quoted {
            return Err(format!("{} is a string, not a name", shown(first.text)));
        }
        state.name.clear();
        rdata::read_name(first.text, &state.origin, &mut state.name)?;
        let key = self
            .key(&state.name)
            .ok_or_else(|| format!("{} is outside the zone {}", shown(first.text), self.origin.to_ascii()))?;
        // Most owners have several records: the key is kept once while they stand together.
        state.owner = match before {
            Owner::Key(span) if span.of(&self.records.octets) == key => Owner::Key(span),
            _ => Owner::Key(self.records.push(&key)?),
        };
        Ok(rest)
    }

    /// The key of a name on the wire; `None` outside the zone.
    fn key(&self, wire: &[u8]) -> Option<Vec<u8>> {
        let (mut labels, mut at) = (Vec::new(), 0);
        while let Some(length) = wire.get(at).copied().map(usize::from).filter(|length| *length > 0) {
            labels.push(wire.get(at + 1..at + 1 + length)?);
            at += 1 + length;
        }
        let mut labels = labels.into_iter().rev();
        let inside = self
            .origin
            .iter()
            .rev()
            .all(|label| labels.next().is_some_and(|other| other.eq_ignore_ascii_case(label)));
        let mut key = Vec::new();
        labels.for_each(|label| key::push(&mut key, label));
        inside.then_some(key)
    }

    /// `[TTL] [class] type data`, TTL and class in either order.
    fn record(&mut self, tokens: &[Token<'_>], place: Place, state: &mut State) -> Result<(), String> {
        let (mut ttl, mut class, mut rest) = (None, false, tokens);
        let kind = loop {
            let [word, behind @ ..] = rest else { return Err("no record type".to_owned()) };
            rest = behind;
            if word.quoted {
                return Err(format!("{} is a string, not a record type", shown(word.text)));
            }
            if ttl.is_none() && word.text.first().is_some_and(u8::is_ascii_digit) {
                ttl = Some(period(word.text).map_err(|reason| format!("TTL: {reason}"))?);
            } else if let (false, Some(is_internet)) = (class, class_of(word.text)) {
                if !is_internet {
                    return Err(format!("class {}: only IN is served", shown(word.text)));
                }
                class = true;
            } else {
                break types::kind(word.text).ok_or_else(|| not("a record type", word.text))?;
            }
        };
        if is_meta(kind) {
            return Err(format!("{} is a type of questions, not of records", types::kind_text(kind)));
        }
        let owner = match state.owner {
            Owner::Key(owner) => owner,
            Owner::Invalid | Owner::None => return Ok(()),
        };
        state.name.clear();
        rdata::read(kind, rest, &state.origin, &mut state.name)
            .map_err(|reason| format!("{}: {reason}", types::kind_text(kind)))?;
        state.last_ttl = ttl.or(state.last_ttl);
        let soa = kind == u16::from(RecordType::SOA);
        // RFC 2308 section 4 leaves open what holds when nothing was said; BIND takes the SOA's MINIMUM.
        let minimum = state.name.last_chunk::<4>().filter(|_| soa).map(|octets| u32::from_be_bytes(*octets));
        let known = ttl.or(state.default_ttl).or(state.last_ttl).or(minimum);
        let ttl = known.ok_or("no TTL; write one, or `$TTL 1h` at the top of the file")?;
        state.last_ttl = state.last_ttl.or(minimum);
        if self.records.list.len() >= self.limits.records {
            self.faults.error(place, format!("zone has more than {} records", self.limits.records));
        }
        let data = self.records.push(&state.name)?;
        self.records.list.push(Written { owner, data, ttl, kind, place });
        Ok(())
    }

    /// `$INCLUDE file [origin]`: the file begins with our TTLs, and what it sets ends with it.
    fn include(&mut self, tokens: &[Token<'_>], state: &State) -> Result<(), String> {
        let (file, origin) = match tokens {
            [file] => (file, state.origin.clone()),
            [file, origin] => {
                let mut wire = Vec::new();
                rdata::read_name(origin.text, &state.origin, &mut wire)?;
                (file, wire)
            }
            _ => return Err("$INCLUDE needs a file and may have an origin".to_owned()),
        };
        let path = unescape(file.text)?;
        let path = std::str::from_utf8(&path).map_err(|_| not("a path", &path))?;
        let parts = plain_parts(path)?;
        let name = parts.join("/");
        let chain = || format!("{} -> {name}", self.path.join(" -> "));
        if self.path.contains(&name) {
            return Err(format!("$INCLUDE goes in a circle: {}", chain()));
        }
        if self.path.len() > self.limits.depth {
            return Err(format!("$INCLUDE is nested more than {} deep: {}", self.limits.depth, chain()));
        }
        let number = self.faults.files.len();
        let number = u16::try_from(number).ok().filter(|_| number < self.limits.files);
        let number = number.ok_or_else(|| format!("zone has more than {} files", self.limits.files))?;
        let text = (self.open)(&parts, self.left).map_err(|reason| format!("$INCLUDE {name}: {reason}"))?;
        self.left = self.left.saturating_sub(text.len());
        let folder = self.faults.files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
        let shown = folder.join(&name);
        self.faults.files.push(shown);
        self.path.push(name);
        let (default_ttl, last_ttl) = (state.default_ttl, state.last_ttl);
        self.file(&text, State { default_ttl, last_ttl, ..State::new(number, origin) });
        self.path.pop();
        Ok(())
    }
}

fn origin(tokens: &[Token<'_>], state: &mut State) -> Result<(), String> {
    let [name] = tokens else { return Err("$ORIGIN needs one name".to_owned()) };
    let mut wire = Vec::new();
    rdata::read_name(name.text, &state.origin, &mut wire)?;
    state.origin = wire;
    Ok(())
}

/// The parts of a path that stays below the folder it starts from.
fn plain_parts(path: &str) -> Result<Vec<&str>, String> {
    let refused =
        || format!("$INCLUDE {path}: only files in the zone file's folder and below it can be included");
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(refused)?),
            Component::CurDir => {}
            _ => return Err(refused()),
        }
    }
    if parts.is_empty() || path.contains('\0') { Err(refused()) } else { Ok(parts) }
}

/// Whether a word names a class, and whether that is IN.
fn class_of(text: &[u8]) -> Option<bool> {
    let text = text.to_ascii_uppercase();
    match text.as_slice() {
        b"IN" => Some(true),
        b"CH" | b"HS" | b"CS" | b"NONE" => Some(false),
        // RFC 3597 section 5.
        text => {
            let number = text.strip_prefix(b"CLASS")?;
            Some(rdata::number(number, u32::from(u16::MAX)).ok()? == 1)
        }
    }
}

/// RFC 6895 section 3.1: types that only stand in questions or messages.
fn is_meta(kind: u16) -> bool {
    kind == 0 || kind == u16::from(RecordType::OPT) || (128..=255).contains(&kind)
}
