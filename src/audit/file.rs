//! The file of the audit log: mode 0600, appended to, replaced by a new one at a size, with so many old ones kept
//! (`audit.log.1` is the last one before).
//!
//! A line is whole or not there: where the disk takes only a part of what is written, the file is cut back to what it had.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use crate::telemetry::Metrics;

/// Octets that are written at once.
const TOGETHER_OCTETS: usize = 64 << 10;

pub(super) struct File {
    path: PathBuf,
    octets_max: u64,
    files_max: usize,
    file: fs::File,
    /// In the file.
    octets: u64,
    /// Where a new one begins: `octets_max`, or more while that fails.
    rotate_at: u64,
    waiting: Vec<u8>,
    waiting_lines: u64,
    /// What fails now, by [`Deed`].
    failing: [bool; 3],
    metrics: Arc<Metrics>,
}

/// What is done with the file; each fails, and works again, by itself.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Write,
    Rotate,
    Reopen,
}

impl Deed {
    /// What cannot be done, and what comes of that.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Write => ("written", "lines are lost"),
            Self::Rotate => ("rotated", "it grows beyond [audit] max_size"),
            Self::Reopen => ("opened again", "the file that was open is written on"),
        }
    }
}

fn open(path: &Path) -> io::Result<(fs::File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let octets = file.metadata()?.len();
    Ok((file, octets))
}

impl File {
    pub(super) fn open(
        path: &Path,
        octets_max: u64,
        files_max: usize,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let opened = open(path);
        let (file, octets) = opened.with_context(|| format!("[audit] file {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            octets_max,
            files_max: files_max.max(1),
            file,
            octets,
            rotate_at: octets_max,
            waiting: Vec::new(),
            waiting_lines: 0,
            failing: [false; 3],
            metrics,
        })
    }

    /// Takes a line; written with others, by [`flush`](Self::flush) at the latest.
    pub(super) fn add(&mut self, line: &str) {
        let after = self.octets + (self.waiting.len() + line.len()) as u64;
        if after > self.rotate_at && self.octets + self.waiting.len() as u64 > 0 {
            self.flush();
            self.rotate();
        }
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting_lines += 1;
        if self.waiting.len() >= TOGETHER_OCTETS {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let written = self.file.write_all(&self.waiting);
        match &written {
            Ok(()) => {
                self.octets += self.waiting.len() as u64;
                self.metrics.audit.written(self.waiting_lines);
            }
            Err(_) => {
                // Fails where the disk is broken, and then nothing can be done.
                let _ = self.file.set_len(self.octets);
                self.metrics.audit.lost_in_file(self.waiting_lines);
            }
        }
        self.note(Deed::Write, written);
        self.waiting.clear();
        self.waiting_lines = 0;
    }

    /// Opens whatever has the name now.
    pub(super) fn reopen(&mut self) {
        self.flush();
        let opened = open(&self.path).map(|opened| self.begin(opened));
        self.note(Deed::Reopen, opened);
    }

    fn begin(&mut self, (file, octets): (fs::File, u64)) {
        (self.file, self.octets, self.rotate_at) = (file, octets, self.octets_max);
    }

    /// Moves each file one on, and begins a new one. Where that fails, the old one is written on, and it is tried again when as
    /// much as a whole file has come.
    fn rotate(&mut self) {
        let kept = |number: usize| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.files_max.saturating_sub(1)).rev() {
            // The first ones are not there yet.
            let _ = fs::rename(kept(number), kept(number + 1));
        }
        let moved = match self.files_max {
            1 => fs::remove_file(&self.path),
            _ => fs::rename(&self.path, kept(1)),
        };
        // Somebody else may have moved it away.
        let moved = moved.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) });
        let opened = moved.and_then(|()| open(&self.path));
        let outcome = opened.map(|opened| self.begin(opened));
        match &outcome {
            Ok(()) => self.metrics.audit.rotated(),
            Err(_) => self.rotate_at = self.octets + self.octets_max,
        }
        self.note(Deed::Rotate, outcome);
    }

    /// Says once that it fails, and once that it does not any more.
    fn note(&mut self, deed: Deed, outcome: io::Result<()>) {
        let failing = outcome.is_err();
        if std::mem::replace(&mut self.failing[deed as usize], failing) == failing {
            return;
        }
        let (path, (what, then)) = (self.path.display(), deed.words());
        match outcome {
            Err(error) => tracing::error!("the audit log {path} cannot be {what}, {then}: {error}"),
            Ok(()) => tracing::info!("the audit log {path} is {what} again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn files_are_for_us_alone_bounded_in_size_and_in_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let metrics = Arc::new(Metrics::default());
        let mut file = File::open(&path, 100, 3, metrics).unwrap();
        for number in 0..100 {
            file.add(&format!("line {number:03}, which is 28 long\n"));
        }
        file.flush();
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
        let all: Vec<_> = ["audit.log.2", "audit.log.1", "audit.log"]
            .iter()
            .flat_map(|n| lines(&dir.path().join(n)))
            .collect();
        let last: Vec<_> = (100 - all.len()..100).map(|n| format!("line {n:03}, which is 28 long")).collect();
        assert_eq!(all, last, "the newest, in order, none torn");
        for name in names {
            let data = fs::metadata(dir.path().join(name)).unwrap();
            assert!(data.len() <= 100 && data.permissions().mode() & 0o777 == 0o600, "{data:?}");
        }
    }

    #[test]
    fn it_goes_on_where_it_was_and_in_a_new_file_when_the_old_one_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("audit.log"), dir.path().join("moved"));
        fs::write(&path, "of another start\n").unwrap();
        let mut file = File::open(&path, 1000, 2, Arc::default()).unwrap();
        file.add("before\n");
        file.flush();
        fs::rename(&path, &moved).unwrap();
        file.add("while\n");
        file.reopen();
        file.add("after\n");
        file.flush();
        assert_eq!(lines(&moved), ["of another start", "before", "while"]);
        assert_eq!(lines(&path), ["after"]);
    }

    /// What was logged, as text.
    #[derive(Clone, Default)]
    struct Said(Arc<parking_lot::Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn where_it_cannot_be_rotated_it_grows_says_so_once_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        // No file takes the place of a folder with something in it.
        let obstacle = dir.path().join("audit.log.1");
        fs::create_dir_all(obstacle.join("x")).unwrap();
        let said = Said::default();
        let to = said.clone();
        let writes = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).finish();
        let add = |file: &mut File, numbers: std::ops::Range<u32>| {
            for number in numbers {
                file.add(&format!("line {number:03}, which is 28 long\n"));
                // As the thread does when nothing more waits.
                file.flush();
            }
        };
        let told = || String::from_utf8(said.0.lock().clone()).unwrap();
        tracing::subscriber::with_default(writes, || {
            let mut file = File::open(&path, 280, 2, Arc::default()).unwrap();
            add(&mut file, 0..45);
            assert_eq!((lines(&path).len(), told().lines().count()), (45, 1), "{}", told());
            assert!(told().contains("cannot be rotated, it grows"), "{}", told());
            fs::remove_dir_all(&obstacle).unwrap();
            add(&mut file, 45..60);
        });
        assert_eq!(told().lines().count(), 2, "{}", told());
        assert!(told().contains("is rotated again"), "{}", told());
        let both = (lines(&obstacle).len(), lines(&path).len());
        assert_eq!(both, (50, 10), "it is tried again whenever as much as a file has come");
    }

    #[test]
    fn where_it_cannot_be_opened_the_error_names_the_key_and_the_file() {
        let error = File::open(Path::new("/nowhere/audit.log"), 1, 1, Arc::default()).err().unwrap();
        assert!(
            format!("{error:#}").starts_with("[audit] file /nowhere/audit.log: No such file"),
            "{error:#}"
        );
    }
}
