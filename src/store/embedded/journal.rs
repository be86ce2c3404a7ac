//! The journal: what was accepted and is not in the database yet, in a file of its own.
//!
//! A commit of the database writes a dozen pages; a frame of the journal is one write of what changed and one sync. The file
//! has two halves: while one is filled, what is in the other goes into the database, and then it is overwritten. It grows
//! in steps and never shrinks, so that most syncs change no metadata of the file system.
//!
//! A frame begins at a block of its own, so that no write touches what an earlier one made durable. It is
//! `length:u32 digest:16 body`; the body is `version:u8 previous:u64` and for each change `index:u64 count:u32`, then for each
//! record `kind:u8 length:u32 key`, and for one that stays `length:u32 value`, both as in [`mod@format`]. All
//! numbers are little-endian. In an encrypted registry (version 2) what stands behind the version is sealed as a whole, and in it is a body of
//! version 1. The digest is that of the database's id for its journal and the body: a frame that was torn, or that
//! belongs to another database, is none. `previous` is the index before the frame's first: a frame that is missing between
//! others is noticed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::super::compact::Reader;
use super::super::seal::{Form, Place};
use super::super::{StoreError, Stored, file, format};
use super::Entry;
use crate::model::{AclKey, AclKind, CheckId, Definition, InstanceId, Key, NodeName, ServiceName};

/// Where frames may begin: no device writes less than this in part.
const BLOCK: usize = 4096;
/// By how much the file grows.
const STEP: usize = 1 << 18;
/// The version of the body, and of one that is encrypted.
const VERSION: u8 = 1;
const VERSION_SEALED: u8 = 2;
const DIGEST: usize = 16;
const HEAD: usize = 4 + DIGEST;
const PUT: u8 = 1;
const REMOVE: u8 = 0;

/// The journal of one database.
pub(super) struct Journal {
    file: Box<dyn StorageBackend>,
    id: u128,
    form: Arc<Form>,
    /// Octets of one half.
    half: usize,
    /// Which half is filled, and where its next frame begins.
    active: usize,
    at: usize,
    /// Octets that the file has.
    length: usize,
    /// The index of the last change in each half.
    last: [u64; 2],
    /// The index of the last change that is durable.
    previous: u64,
    frame: Vec<u8>,
}

/// The path of the journal in a data directory.
pub(in super::super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("registry.journal")
}

/// Opens the file in the data directory, or makes an empty one. It is locked as long as it is open: the database is closed and
/// opened again after an error, and must not come into other hands meanwhile.
pub(super) fn open_file(dir: &Path) -> Result<Box<dyn StorageBackend>, StoreError> {
    let path = path(dir);
    let opened = || -> io::Result<File> {
        let missing = !path.try_exists()?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if missing {
            File::open(dir)?.sync_all()?;
        }
        file.try_lock()?;
        Ok(file)
    };
    let failed = |e: &dyn std::fmt::Display| {
        let shown = path.display();
        StoreError::new(format!("cannot open {shown}: {e}; check its permissions and the disk"))
    };
    let opened = opened().map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => file::in_use(&path),
        _ => failed(&e),
    })?;
    let backend = FileBackend::new(opened).map_err(|e| failed(&e))?;
    Ok(Box::new(backend))
}

/// All that is in a journal's file.
pub(super) fn octets_of(file: &dyn StorageBackend) -> Result<Vec<u8>, StoreError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut all = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
        file.read(0, &mut all)?;
        Ok(all)
    };
    read().map_err(|e| StoreError::new(format!("the journal cannot be read: {e}")))
}

impl Journal {
    /// The journal of the database with this id, and what is in it beyond `committed`, the index of the last change that the
    /// database has. Nothing is written over before [`restart`](Self::restart).
    pub(super) fn open(
        file: Box<dyn StorageBackend>,
        octets: usize,
        id: u128,
        committed: u64,
        form: Arc<Form>,
    ) -> Result<(Self, Vec<Entry>), StoreError> {
        let all = octets_of(&*file)?;
        let changes = changes(&all, id, committed, &form)?;
        let half = (octets / 2).next_multiple_of(BLOCK);
        let (length, frame) = (all.len().next_multiple_of(BLOCK), Vec::new());
        let journal =
            Self { file, id, form, half, active: 0, at: 0, length, last: [0; 2], previous: committed, frame };
        Ok((journal, changes))
    }

    /// Begins anew: everything up to `committed` is in the database, also what a frame that failed may hold.
    pub(super) fn restart(&mut self, committed: u64) {
        (self.active, self.at, self.previous) = (1 - self.active, 0, committed);
    }

    /// Makes changes durable. `committed` is the index up to which the database has everything. Says whether there was room.
    /// After an error it is not known whether the frame is there: [`restart`](Self::restart) before the next.
    pub(super) fn append(&mut self, changes: &[Entry], committed: u64) -> io::Result<bool> {
        let Some((last, _)) = changes.last() else { return Ok(true) };
        self.encode(changes)?;
        let size = self.frame.len();
        if self.at + size > self.half {
            if size > self.half || self.last[1 - self.active] > committed {
                return Ok(false);
            }
            (self.active, self.at) = (1 - self.active, 0);
        }
        let from = self.active * self.half + self.at;
        if from + size > self.length {
            let end = (from + size).next_multiple_of(STEP).min((self.active + 1) * self.half);
            self.file.set_len(end as u64)?;
            self.frame.resize(end - from, 0);
        }
        self.file.write(from as u64, &self.frame)?;
        self.file.sync_data()?;
        self.length = self.length.max(from + self.frame.len());
        self.at += size;
        (self.last[self.active], self.previous) = (*last, *last);
        Ok(true)
    }

    /// Which half is being filled: when it changes, the other one waits for the database.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    fn encode(&mut self, changes: &[Entry]) -> io::Result<()> {
        let frame = &mut self.frame;
        frame.clear();
        frame.resize(HEAD, 0);
        frame.push(VERSION);
        frame.extend_from_slice(&self.previous.to_le_bytes());
        for (index, definitions) in changes {
            frame.extend_from_slice(&index.to_le_bytes());
            frame.extend_from_slice(&(definitions.len() as u32).to_le_bytes());
            for definition in definitions.iter() {
                frame.push(if matches!(definition, Definition::Put(_)) { PUT } else { REMOVE });
                put(frame, &format::key(&definition.key()));
                if let Definition::Put(record) = definition {
                    // When it was made is found in the database later.
                    let (create_index, modify_index) = (*index, *index);
                    put(
                        frame,
                        &format::encode(&Stored { record: record.clone(), create_index, modify_index }),
                    );
                }
            }
        }
        if let Form::Sealed(seal) = &*self.form {
            let sealed = seal.seal(Place::Journal, &self.id.to_le_bytes(), &frame[HEAD..])?;
            frame.truncate(HEAD);
            frame.push(VERSION_SEALED);
            frame.extend_from_slice(&sealed);
        }
        let length = (frame.len() - HEAD) as u32;
        let digest = digest_of(self.id, &frame[HEAD..]);
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4..HEAD].copy_from_slice(&digest);
        frame.resize(frame.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }
}

fn put(frame: &mut Vec<u8>, octets: &[u8]) {
    frame.extend_from_slice(&(octets.len() as u32).to_le_bytes());
    frame.extend_from_slice(octets);
}

fn digest_of(id: u128, body: &[u8]) -> [u8; DIGEST] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&id.to_le_bytes());
    context.update(body);
    let mut short = [0; DIGEST];
    short.copy_from_slice(&context.finish().as_ref()[..DIGEST]);
    short
}

/// The changes beyond `committed` in all frames of a journal, in their order.
pub(super) fn changes(all: &[u8], id: u128, committed: u64, form: &Form) -> Result<Vec<Entry>, StoreError> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(rest) = all.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(body) = body_at(rest, id) else {
            at += BLOCK;
            continue;
        };
        at += (HEAD + body.len()).next_multiple_of(BLOCK);
        let (previous, changes) = match (form, body.split_first()) {
            (Form::Plain, Some((&VERSION_SEALED, _))) => {
                return Err(damaged("a frame is encrypted, and the registry is not"));
            }
            (Form::Sealed(seal), Some((&VERSION_SEALED, sealed))) => {
                let opened = seal.open(Place::Journal, &id.to_le_bytes(), sealed);
                decode(&opened.ok_or_else(|| damaged("a frame does not decrypt"))?)?
            }
            (Form::Sealed(_), _) => return Err(damaged("a frame is not encrypted, and the registry is")),
            (Form::Plain, _) => decode(body)?,
        };
        if changes.last().is_some_and(|(last, _)| *last > committed) {
            frames.push((previous, changes));
        }
    }
    frames.sort_unstable_by_key(|(previous, _)| *previous);
    let (mut last, mut kept) = (committed, Vec::new());
    for (previous, changes) in frames {
        if previous > last {
            return Err(damaged("changes are missing between others"));
        }
        kept.extend(changes.into_iter().filter(|(index, _)| *index > last));
        last = kept.last().map_or(last, |(index, _)| *index);
    }
    Ok(kept)
}

/// The body of the frame that begins here, if one does.
fn body_at(bytes: &[u8], id: u128) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (digest, rest) = rest.split_first_chunk::<DIGEST>()?;
    let body = rest.get(..u32::from_le_bytes(*length) as usize).filter(|body| !body.is_empty())?;
    (digest_of(id, body) == *digest).then_some(body)
}

/// `previous`, and the changes.
fn decode(mut body: &[u8]) -> Result<(u64, Vec<Entry>), StoreError> {
    let cut = || damaged("a frame is too short");
    let [version] = take(&mut body).ok_or_else(cut)?;
    if version != VERSION {
        return Err(StoreError::new(format!(
            "the journal is in form {version}, this rollcall reads {VERSION}; start the version that wrote it and stop it again"
        )));
    }
    let previous = u64::from_le_bytes(take(&mut body).ok_or_else(cut)?);
    let (mut reader, mut changes) = (Reader::default(), Vec::new());
    while !body.is_empty() {
        let index = u64::from_le_bytes(take(&mut body).ok_or_else(cut)?);
        let count = u32::from_le_bytes(take(&mut body).ok_or_else(cut)?);
        let mut definitions = Vec::new();
        for _ in 0..count {
            let [kind] = take(&mut body).ok_or_else(cut)?;
            let key = octets(&mut body).ok_or_else(cut)?;
            definitions.push(match kind {
                PUT => Definition::Put(reader.record(key, octets(&mut body).ok_or_else(cut)?)?.record),
                _ => Definition::Remove(key_of(key).ok_or_else(|| damaged("a key is none"))?),
            });
        }
        changes.push((index, Arc::from(definitions)));
    }
    Ok((previous, changes))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn octets<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(take(bytes)?) as usize;
    let (first, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(first)
}

/// The key whose octets these are.
fn key_of(octets: &[u8]) -> Option<Key> {
    let (kind, rest) = octets.split_first()?;
    let (node, id) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
    if *kind == format::QUERY {
        return node.parse().ok().map(Key::Query);
    }
    if *kind == format::ROUTE {
        return ServiceName::parse(node).ok().map(Key::Route);
    }
    if *kind == format::ACL {
        return AclKind::parse(node).map(|kind| Key::Acl(AclKey { kind, id: id.into() }));
    }
    let node = NodeName::parse(node).ok()?;
    Some(match kind {
        b'1' => Key::Node(node),
        b'2' => Key::Instance(node, InstanceId::parse(id).ok()?),
        b'3' => Key::Check(node, CheckId::parse(id).ok()?),
        b'4' => Key::Maintenance(node, (!id.is_empty()).then(|| InstanceId::parse(id)).transpose().ok()?),
        _ => return None,
    })
}

fn damaged(why: &str) -> StoreError {
    StoreError::new(format!(
        "the journal is damaged: {why}. Nothing was changed. Restore a backup, or move registry.journal away to lose its last changes"
    ))
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::super::super::seal::{Key as StoreKey, Seal};
    use super::*;

    fn node(name: &str) -> Definition {
        let json = format!(r#"{{"node":{{"name":"{name}","address":"10.0.0.1"}}}}"#);
        Definition::Put(serde_json::from_str(&json).unwrap())
    }

    fn change(index: u64) -> Entry {
        let name = NodeName::parse("N1").unwrap();
        let keys = [
            Key::Instance(name.clone(), InstanceId::parse("i\u{fc}").unwrap()),
            Key::Check(name.clone(), CheckId::parse("c").unwrap()),
            Key::Maintenance(name.clone(), None),
            Key::Maintenance(name.clone(), Some(InstanceId::parse("i").unwrap())),
            Key::Acl(AclKey::new(AclKind::Token, &"9")),
            Key::Query(uuid::Uuid::from_u128(9)),
            Key::Route(ServiceName::parse("web").unwrap()),
            Key::Node(name),
        ];
        let removed = keys.into_iter().map(Definition::Remove);
        (index, removed.chain([node(&format!("n{index}"))]).collect())
    }

    const ID: u128 = 7;

    /// A journal with eight blocks, and a way to see its file.
    fn journal() -> Journal {
        Journal::open(Box::new(InMemoryBackend::new()), 8 * BLOCK, ID, 0, Form::Plain.into()).unwrap().0
    }

    fn contents(journal: &Journal) -> Vec<u8> {
        let mut all = vec![0; journal.file.len().unwrap() as usize];
        journal.file.read(0, &mut all).unwrap();
        all
    }

    fn indexes(all: &[u8], committed: u64) -> Vec<u64> {
        changes(all, ID, committed, &Form::Plain).unwrap().into_iter().map(|(index, _)| index).collect()
    }

    #[test]
    fn what_is_appended_is_read_in_order_beyond_what_the_database_has() {
        let mut journal = journal();
        assert!(journal.append(&[change(3), change(4)], 0).unwrap());
        assert!(journal.append(&[change(9)], 0).unwrap());
        let all = contents(&journal);
        assert_eq!(changes(&all, ID, 0, &Form::Plain).unwrap(), [change(3), change(4), change(9)]);
        assert_eq!(indexes(&all, 3), [4, 9]);
        assert!(indexes(&all, 9).is_empty());
        assert_eq!(changes(&all, ID + 1, 0, &Form::Plain).unwrap(), [], "another database's");
    }

    #[test]
    fn in_an_encrypted_registry_a_frame_shows_nothing_and_no_other_is_taken() {
        let key = |octet: u8| StoreKey::parse(&data_encoding::BASE64.encode(&[octet; 32])).unwrap();
        let sealed = |octet: u8| Arc::new(Form::Sealed(Seal::new(&key(octet), 1).unwrap().into()));
        let open = |form: Arc<Form>| Journal::open(Box::new(InMemoryBackend::new()), 8 * BLOCK, ID, 0, form);
        let mut journal = open(sealed(1)).unwrap().0;
        assert!(journal.append(&[change(3)], 0).unwrap() && journal.append(&[change(4)], 0).unwrap());
        let all = contents(&journal);
        assert!(!all.windows(5).any(|part| part == b"2n1\0i"));
        assert_eq!(changes(&all, ID, 0, &sealed(1)).unwrap(), [change(3), change(4)]);
        let refused = |all: &[u8], form: &Form| changes(all, ID, 0, form).unwrap_err().to_string();
        assert!(refused(&all, &sealed(2)).contains("a frame does not decrypt"));
        assert!(refused(&all, &Form::Plain).contains("a frame is encrypted, and the registry is not"));
        let mut plain = open(Form::Plain.into()).unwrap().0;
        plain.append(&[change(3)], 0).unwrap();
        let plain = contents(&plain);
        assert!(plain.windows(5).any(|part| part == b"2n1\0i"));
        assert!(refused(&plain, &sealed(1)).contains("a frame is not encrypted, and the registry is"));
    }

    #[test]
    fn halves_take_turns_and_are_not_overwritten_before_the_database_has_them() {
        let mut journal = journal();
        for index in 1..=8 {
            assert!(journal.append(&[change(index)], 0).unwrap(), "{index}");
        }
        assert!(!journal.append(&[change(9)], 3).unwrap(), "the first half is needed yet");
        assert_eq!(indexes(&contents(&journal), 0), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(journal.append(&[change(9)], 4).unwrap());
        assert_eq!(indexes(&contents(&journal), 4), [5, 6, 7, 8, 9]);
        assert_eq!(contents(&journal).len(), 8 * BLOCK, "it does not grow");
        let large = std::iter::repeat_n(change(10).1[5].clone(), 2000);
        assert!(!journal.append(&[(10, large.collect())], 9).unwrap(), "more than a half has no room");
    }

    #[test]
    fn a_torn_last_frame_is_none_and_a_hole_is_an_error() {
        let mut journal = journal();
        for index in 1..=3 {
            journal.append(&[change(index)], 0).unwrap();
        }
        let all = contents(&journal);
        for (block, octet) in [(2, 0), (2, 5), (2, 30), (2, 100)] {
            let mut torn = all.clone();
            torn[block * BLOCK + octet] ^= 1;
            assert_eq!(indexes(&torn, 0), [1, 2], "octet {octet}");
        }
        let mut torn = all.clone();
        torn[BLOCK + 30] ^= 1;
        assert!(changes(&torn, ID, 0, &Form::Plain).unwrap_err().to_string().contains("damaged"));
        assert_eq!(indexes(&torn, 2), [3], "what the database has is not missed");
    }

    #[test]
    fn after_a_restart_a_frame_that_failed_is_none() {
        let mut journal = journal();
        journal.append(&[change(1)], 0).unwrap();
        journal.append(&[change(2)], 0).unwrap();
        // The second failed: the database took it, with the third.
        journal.restart(3);
        journal.append(&[change(4)], 3).unwrap();
        assert_eq!(indexes(&contents(&journal), 3), [4]);
    }
}
