//! Backups: JSON lines that a person can read and a program can check.
//!
//! The first line says what it is, then comes a line for each record and status as it is stored, and
//! the last line has their number and the SHA-256 of all before it, so that a cut file is noticed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use arcstr::ArcStr;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::file::Config;
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

/// Passes lines on and digests them.
struct Lines<'a> {
    to: &'a mut dyn Write,
    digest: digest::Context,
    count: u64,
}

impl Lines<'_> {
    fn write(&mut self, line: &Line) -> Result<(), StoreError> {
        let failed = |e: &dyn std::fmt::Display| StoreError::new(format!("cannot write the backup: {e}"));
        let mut bytes = serde_json::to_vec(line).map_err(|e| failed(&e))?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        self.count += 1;
        self.to.write_all(&bytes).map_err(|e| failed(&e))
    }
}

/// Writes a backup.
pub fn write(loaded: &Loaded, node_id: Uuid, to: &mut dyn Write) -> Result<(), StoreError> {
    let mut lines = Lines { to, digest: digest::Context::new(&digest::SHA256), count: 0 };
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
pub fn restore(config: &Config, from: &Path, replace: bool) -> Result<usize, StoreError> {
    let shown = from.display();
    let opened =
        std::fs::File::open(from).map_err(|e| StoreError::new(format!("cannot open {shown}: {e}")))?;
    let (loaded, node_id) =
        read(opened).map_err(|e| StoreError::new(format!("{shown} is no whole backup: {e}")))?;
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
        file::prepare(config)?;
    }
    file::create(config, &loaded, node_id)?;
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

/// Reads and checks a backup.
pub fn read(from: impl Read) -> Result<(Loaded, Uuid), StoreError> {
    let mut reader = BufReader::new(from);
    let mut digest = digest::Context::new(&digest::SHA256);
    let (mut loaded, mut node_id, mut count, mut bytes) = (Loaded::default(), None, 0u64, Vec::new());
    loop {
        bytes.clear();
        let at = |e: &dyn std::fmt::Display| StoreError::new(format!("line {}: {e}", count + 1));
        if reader.read_until(b'\n', &mut bytes).map_err(|e| at(&e))? == 0 {
            return Err(at(&"the last line is missing: the file was cut"));
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
