//! Files of a zone: the one that the configuration names, and those that it includes.
//!
//! An included file lies in the zone file's folder or below it. Each part of its path is opened from the handle
//! of the one before and none may be a symbolic link, so that nothing which changes between a check and its use leads
//! elsewhere. The configured path is the operator's own word: links in it are followed. FIFOs and devices are
//! refused and cannot make the opening wait.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// Reads the file that the configuration names; at most `limit` octets.
pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    contents(file.map_err(|error| error.to_string())?, limit)
}

/// Reads a file below a folder; the parts are plain names.
pub(super) fn read_below(folder: &Path, parts: &[&str], limit: usize) -> Result<Vec<u8>, String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut at = OwnedFd::from(File::open(folder).map_err(|error| format!("{}: {error}", folder.display()))?);
    for (number, part) in parts.iter().enumerate() {
        let last = number + 1 == parts.len();
        let flags = if last { OFlag::O_NONBLOCK } else { OFlag::O_DIRECTORY };
        let flags = flags | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        at = openat(&at, *part, flags, Mode::empty()).map_err(|error| match error {
            Errno::ELOOP => format!("`{part}` is a symbolic link, which $INCLUDE does not follow"),
            Errno::ENOTDIR => format!("`{part}` is not a folder (symbolic links are not followed)"),
            error => format!("`{part}`: {}", error.desc()),
        })?;
    }
    contents(File::from(at), limit)
}

fn contents(file: File, limit: usize) -> Result<Vec<u8>, String> {
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut text = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut text).map_err(|error| error.to_string())?;
    match text.len() > limit {
        true => Err(format!("more than {limit} octets are left to be read for this zone")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_plain_files_below_the_folder() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir(path.join("sub")).unwrap();
        std::fs::write(path.join("sub/a"), "12345").unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        symlink(outside.path(), path.join("folder-link")).unwrap();
        symlink(path.join("sub/a"), path.join("link")).unwrap();
        nix::unistd::mkfifo(&path.join("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(read_below(path, &["sub", "a"], 5).unwrap(), b"12345");
        for (parts, reason) in [
            (&["sub", "a"][..], "more than 4 octets"),
            (&["link"], "symbolic link"),
            (&["folder-link", "secret"], "not a folder"),
            (&["sub"], "not a regular file"),
            (&["fifo"], "not a regular file"),
            (&["none"], "No such file"),
        ] {
            let error = read_below(path, parts, 4).unwrap_err();
            assert!(error.contains(reason), "{parts:?}: {error}");
        }
        assert_eq!(read(&path.join("link"), 5).unwrap(), b"12345", "the configured path may be a link");
        assert!(read(&path.join("fifo"), 5).is_err());
    }
}
