//! Unix sockets for the HTTP API: files whose mode says who may connect.
//!
//! The file never lets anybody in who is not meant to, whatever the umask: the socket has mode 0600 before it is bound (Linux
//! takes the file's mode from it), and is listened on only when owner and mode are as wanted. What a server that crashed left is
//! replaced; a socket that somebody listens on, or a file that is no socket, stays as it is and ends the start.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
const PRIVATE: u32 = 0o600;

/// Who may connect: those who may write to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Names or numbers; ours where they are absent.
    pub user: Option<String>,
    pub group: Option<String>,
}

impl Default for Access {
    fn default() -> Self {
        Self { mode: PRIVATE, user: None, group: None }
    }
}

/// Listens at a path.
pub fn listen(path: &Path, access: &Access) -> io::Result<UnixListener> {
    let user = access.user.as_deref().map(uid).transpose()?;
    let group = access.group.as_deref().map(gid).transpose()?;
    clear(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(PRIVATE))?;
    socket.bind(&SockAddr::unix(path)?)?;
    let ready = || {
        if user.is_some() || group.is_some() {
            chown(path, user, group)?;
        }
        fs::set_permissions(path, Permissions::from_mode(access.mode))?;
        socket.listen(BACKLOG)
    };
    if let Err(error) = ready() {
        // It is ours, and of no use.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(socket.into())
}

/// Takes away what a server left that does not listen any more.
fn clear(path: &Path) -> io::Result<()> {
    let failed = |kind, why: &str| Err(io::Error::new(kind, why));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return failed(
                io::ErrorKind::AlreadyExists,
                "there is a file that is no socket; it is left alone",
            );
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        // Refused: bound once, and nobody is behind it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => failed(io::ErrorKind::AddrInUse, "another process listens there"),
    }
}

/// Takes the files of listeners away: nobody will listen there any more.
pub fn remove(paths: &[PathBuf]) {
    for path in paths {
        // It may be gone with its directory.
        let _ = fs::remove_file(path);
    }
}

fn uid(text: &str) -> io::Result<u32> {
    let found = || User::from_name(text).ok().flatten().map(|user| user.uid.as_raw());
    text.parse().ok().or_else(found).ok_or_else(|| io::Error::other(format!("there is no user {text:?}")))
}

fn gid(text: &str) -> io::Result<u32> {
    let found = || Group::from_name(text).ok().flatten().map(|group| group.gid.as_raw());
    text.parse().ok().or_else(found).ok_or_else(|| io::Error::other(format!("there is no group {text:?}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn only_what_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let first = listen(&path, &Access::default()).unwrap();
        assert_eq!(mode(&path), 0o600);
        let taken = listen(&path, &Access::default()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse, "{taken}");
        assert!(UnixStream::connect(&path).is_ok(), "the one who listens keeps its place");
        drop(first);
        assert!(path.exists(), "as a crash leaves it");
        let open = Access { mode: 0o666, ..Access::default() };
        let _second = listen(&path, &open).unwrap();
        assert_eq!(mode(&path), 0o666, "whatever the umask");
        assert!(UnixStream::connect(&path).is_ok());
        remove(std::slice::from_ref(&path));
        assert!(!path.exists());

        fs::write(&path, "precious").unwrap();
        assert!(listen(&path, &Access::default()).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!((uid("root").unwrap(), uid("4711").unwrap()), (0, 4711));
        assert_eq!(gid("root").unwrap(), 0);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let nobody = Access { group: Some("no such group".to_owned()), ..Access::default() };
        assert!(listen(&path, &nobody).unwrap_err().to_string().contains("no such group"));
        assert!(!path.exists());
    }
}
