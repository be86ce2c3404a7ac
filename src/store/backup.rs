//! Backups: JSON lines that a person can read and a program can check.
//!
//! The first line says what it is, then comes a line for each record and status as it is stored, and
//! the last line has their number and the SHA-256 of all before it, so that a cut file is noticed.
//!
//! A backup of an encrypted registry is encrypted: a first line says with which key, and each of the lines is sealed, bound to its
//! number, and stands in base64.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use arcstr::ArcStr;
use aws_lc_rs::digest;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::file::Config;
use super::seal::{Key, Place, Seal, shown as key_shown};
use super::{Loaded, StoreError, Stored, StoredStatus, file};
use crate::model::{CheckId, CheckKey, NodeName, Record, Status};

/// The version of the form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Backup { v: u32, index: u64, node_id: Uuid },
    Record { create_index: u64, modify_index: u64, record: Record },
    Status { node: NodeName, check: CheckId, status: Status, output: ArcStr },
    End { lines: u64, sha256: String },
}

/// What stands before the lines of an encrypted backup.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Head {
    Sealed { v: u32, salt: Uuid, key_check: Uuid },
}

/// Keys for a restore; `None` where there is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keys<'a> {
    /// Of the registry that is written.
    pub store: Option<&'a Key>,
    /// Of the backup.
    pub backup: Option<&'a Key>,
}

/// Passes lines on and digests them.
struct Lines<'a> {
    to: &'a mut dyn Write,
    digest: digest::Context,
    count: u64,
    seal: Option<Seal>,
}

impl Lines<'_> {
    fn write(&mut self, line: &Line) -> Result<(), StoreError> {
        let failed = |e: &dyn std::fmt::Display| StoreError::new(format!("cannot write the backup: {e}"));
        let mut bytes = serde_json::to_vec(line).map_err(|e| failed(&e))?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        if let Some(seal) = &self.seal {
            let sealed =
                seal.seal(Place::Backup, &self.count.to_le_bytes(), &bytes).map_err(|e| failed(&e))?;
            bytes = BASE64.encode(&sealed).into_bytes();
            bytes.push(b'\n');
        }
        self.count += 1;
        self.to.write_all(&bytes).map_err(|e| failed(&e))
    }
}

/// Writes a backup that is not encrypted.
pub fn write(loaded: &Loaded, node_id: Uuid, to: &mut dyn Write) -> Result<(), StoreError> {
    write_with(loaded, node_id, None, to)
}

/// Writes a backup, encrypted where there is a key.
pub(super) fn write_with(
    loaded: &Loaded,
    node_id: Uuid,
    key: Option<&Key>,
    to: &mut dyn Write,
) -> Result<(), StoreError> {
    let failed = |e: std::io::Error| StoreError::new(format!("cannot write the backup: {e}"));
    let seal = key.map(Seal::fresh).transpose().map_err(failed)?;
    if let Some(seal) = &seal {
        let (salt, key_check) = (Uuid::from_u128(seal.salt), Uuid::from_u128(seal.check));
        let head = serde_json::to_string(&Head::Sealed { v: VERSION, salt, key_check });
        writeln!(to, "{}", head.map_err(|e| failed(e.into()))?).map_err(failed)?;
    }
    let mut lines = Lines { to, digest: digest::Context::new(&digest::SHA256), count: 0, seal };
    lines.write(&Line::Backup { v: VERSION, index: loaded.index, node_id })?;
    for Stored { record, create_index, modify_index } in loaded.records.iter().cloned() {
        lines.write(&Line::Record { create_index, modify_index, record })?;
    }
    for StoredStatus { check, status, output } in loaded.statuses.iter().cloned() {
        lines.write(&Line::Status { node: check.node, check: check.id, status, output })?;
    }
    let end = Line::End { lines: lines.count, sha256: hex(lines.digest.clone().finish().as_ref()) };
    lines.write(&end)
}

/// Puts a backup in place of the registry in the data directory. A registry that is there is replaced only when `replace`
/// is set. Returns the number of records. Errs, and changes nothing, when the backup is not whole.
pub fn restore(config: &Config, keys: Keys<'_>, from: &Path, replace: bool) -> Result<usize, StoreError> {
    let shown = from.display();
    let opened =
        std::fs::File::open(from).map_err(|e| StoreError::new(format!("cannot open {shown}: {e}")))?;
    let (loaded, node_id) = read_with(opened, keys.backup)
        .map_err(|e| StoreError::new(format!("{shown} is no whole backup: {e}")))?;
    let present = file::path(&config.data_dir);
    if present.exists() {
        // A server has one of them at any time.
        for file in [&present, &super::embedded::journal_path(&config.data_dir)] {
            let held =
                held(file).map_err(|e| StoreError::new(format!("cannot open {}: {e}", file.display())))?;
            if held {
                return Err(StoreError::new(format!("{} is in use; stop the server first", file.display())));
            }
        }
        if !replace {
            let present = present.display();
            return Err(StoreError::new(format!(
                "{present} exists; add --replace to put the backup in its place"
            )));
        }
    } else {
        file::prepare(config, keys.store)?;
    }
    file::create(config, keys.store, &loaded, node_id)?;
    Ok(loaded.records.len())
}

/// Whether a running server has this file, which must not be pulled from under it. redb takes this lock, too.
fn held(file: &Path) -> std::io::Result<bool> {
    use std::fs::TryLockError;
    match std::fs::File::open(file).map(|file| file.try_lock()) {
        Ok(Ok(())) => Ok(false),
        Ok(Err(TryLockError::WouldBlock)) => Ok(true),
        Ok(Err(TryLockError::Error(e))) => Err(e),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads and checks a backup that is not encrypted.
pub fn read(from: impl Read) -> Result<(Loaded, Uuid), StoreError> {
    read_with(from, None)
}

/// Reads and checks a backup; `key` is that of one that is encrypted.
fn read_with(from: impl Read, key: Option<&Key>) -> Result<(Loaded, Uuid), StoreError> {
    let mut reader = BufReader::new(from);
    let seal = head(&mut reader, key)?;
    let mut digest = digest::Context::new(&digest::SHA256);
    let (mut loaded, mut node_id, mut count, mut bytes) = (Loaded::default(), None, 0u64, Vec::new());
    loop {
        bytes.clear();
        let at = |e: &dyn std::fmt::Display| StoreError::new(format!("line {}: {e}", count + 1));
        if reader.read_until(b'\n', &mut bytes).map_err(|e| at(&e))? == 0 {
            return Err(at(&"the last line is missing: the file was cut"));
        }
        if let Some(seal) = &seal {
            let sealed = bytes.strip_suffix(b"\n").and_then(|text| BASE64.decode(text).ok());
            let opened = sealed.and_then(|sealed| seal.open(Place::Backup, &count.to_le_bytes(), &sealed));
            bytes = opened.ok_or_else(|| at(&"it does not decrypt: the file was changed"))?;
        }
        let line: Line = serde_json::from_slice(&bytes).map_err(|e| at(&e))?;
        match line {
            Line::Backup { v, .. } if v > VERSION => {
                return Err(at(&format!("written by a newer rollcall (form {v}, this one reads {VERSION})")));
            }
            Line::Backup { index, node_id: id, .. } if count == 0 => {
                loaded.index = index;
                node_id = Some(id);
            }
            Line::Backup { .. } => return Err(at(&"a second first line")),
            Line::Record { create_index, modify_index, record } => {
                loaded.records.push(Stored { record, create_index, modify_index });
            }
            Line::Status { node, check: id, status, output } => {
                loaded.statuses.push(StoredStatus { check: CheckKey { node, id }, status, output });
            }
            Line::End { lines, sha256 } => {
                if lines != count || sha256 != hex(digest.finish().as_ref()) {
                    return Err(at(&"the checksum does not fit: the file was changed"));
                }
                let node_id = node_id.ok_or_else(|| at(&"the first line is missing"))?;
                return Ok((loaded, node_id));
            }
        }
        digest.update(&bytes);
        count += 1;
    }
}

/// Reads the line before the others, if there is one; what they are decrypted with.
fn head(reader: &mut impl BufRead, key: Option<&Key>) -> Result<Option<Seal>, StoreError> {
    let failed = |e: &dyn std::fmt::Display| StoreError::new(format!("the first line: {e}"));
    const BEGINS: &[u8] = br#"{"sealed""#;
    if !reader.fill_buf().map_err(|e| failed(&e))?.starts_with(BEGINS) {
        return Ok(None);
    }
    let mut line = Vec::new();
    reader.take(1024).read_until(b'\n', &mut line).map_err(|e| failed(&e))?;
    let Head::Sealed { v, salt, key_check } = serde_json::from_slice(&line).map_err(|e| failed(&e))?;
    if v > VERSION {
        return Err(failed(&format!("written by a newer rollcall (form {v}, this one reads {VERSION})")));
    }
    let key = key.ok_or_else(|| {
        failed(&"it is encrypted: give the key that its server had (--backup-key-file, [store] key_file or ROLLCALL_STORE_KEY)")
    })?;
    let seal = Seal::new(key, salt.as_u128()).map_err(|e| failed(&e))?;
    if seal.check != key_check.as_u128() {
        let (its, given) = (key_shown(key_check.as_u128()), key_shown(seal.check));
        return Err(failed(&format!(
            "it is encrypted with another key: with {its}, and the one that is given is {given}"
        )));
    }
    Ok(Some(seal))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Loaded, Uuid) {
        let record: Record = serde_json::from_str(r#"{"node":{"name":"n1","address":"10.0.0.1"}}"#).unwrap();
        let check = CheckKey { node: NodeName::parse("n1").unwrap(), id: CheckId::parse("c").unwrap() };
        let loaded = Loaded {
            records: vec![Stored { record, create_index: 1, modify_index: 2 }],
            statuses: vec![StoredStatus { check, status: Status::Passing, output: "ok\n".into() }],
            index: 77,
        };
        (loaded, Uuid::from_u128(5))
    }

    #[test]
    fn what_is_written_is_read() {
        let (loaded, id) = sample();
        let mut bytes = Vec::new();
        write(&loaded, id, &mut bytes).unwrap();
        let (back, back_id) = read(&*bytes).unwrap();
        assert_eq!(
            (back.records, back.statuses, back.index, back_id),
            (loaded.records, loaded.statuses, 77, id)
        );
    }

    #[test]
    fn an_encrypted_one_shows_nothing_and_is_read_with_its_key_alone() {
        let (loaded, id) = sample();
        let key = |octet: u8| Key::parse(&BASE64.encode(&[octet; 32])).unwrap();
        let mut bytes = Vec::new();
        write_with(&loaded, id, Some(&key(1)), &mut bytes).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(!text.contains("10.0.0.1") && !text.contains("passing"), "{text}");
        let (back, back_id) = read_with(&*bytes, Some(&key(1))).unwrap();
        assert_eq!((back.records, back.index, back_id), (loaded.records, 77, id));
        let refused = |bytes: &[u8], key: Option<&Key>| read_with(bytes, key).unwrap_err().to_string();
        assert!(refused(&bytes, None).contains("it is encrypted: give the key"));
        assert!(refused(&bytes, Some(&key(2))).contains("with another key: with key "));
        for cut in 0..bytes.len() - 1 {
            assert!(read_with(&bytes[..cut], Some(&key(1))).is_err(), "cut at {cut}");
        }
        // Lines that change places, or are left out.
        let lines: Vec<&str> = text.lines().collect();
        let swapped = [lines[0], lines[1], lines[3], lines[2], lines[4], ""].join("\n");
        assert!(refused(swapped.as_bytes(), Some(&key(1))).contains("line 2: it does not decrypt"));
        let short = [lines[0], lines[1], lines[2], lines[4], ""].join("\n");
        assert!(refused(short.as_bytes(), Some(&key(1))).contains("line 3: it does not decrypt"));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_anywhere_is_refused() {
        let (loaded, id) = sample();
        let mut bytes = Vec::new();
        write(&loaded, id, &mut bytes).unwrap();
        for cut in 0..bytes.len() - 1 {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let last = bytes.iter().rposition(|b| *b == b'{').unwrap() - 10;
        for at in 0..last {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&*changed).is_err(), "changed at {at}");
        }
    }
}
