//! Listening sockets that were bound by another process.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::{Described, What};

/// All that a server listens on.
#[derive(Debug, Default)]
pub struct Sockets {
    pub entries: Vec<Entry>,
    /// Those for HTTP, by their paths.
    pub unix: Vec<(PathBuf, UnixListener)>,
    pub control: Option<UnixListener>,
}

/// The sockets of one entry of `listen`.
#[derive(Debug)]
pub struct Entry {
    pub door: Door,
    /// The address as the configuration names it (its port may be 0); absent when systemd chose it.
    pub asked: Option<SocketAddr>,
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
}

/// Where one entry of `listen` is listened on.
#[derive(Debug)]
pub enum Place {
    Taken(Entry),
    /// Nobody has it yet.
    Free(SocketAddr),
}

/// What is spoken on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Dns,
    Http,
    Https,
}

impl Sockets {
    /// What a door is to listen on. Sockets that systemd chose stand in place of `listen`, which then names their addresses;
    /// else they are taken for those entries of `listen` that they were bound for.
    pub fn places(&mut self, door: Door, listen: &mut Vec<SocketAddr>) -> io::Result<Vec<Place>> {
        let given = |entry: &mut Entry| entry.door == door && entry.asked.is_none();
        let given: Vec<Entry> = self.entries.extract_if(.., given).collect();
        if !given.is_empty() {
            let listeners = given.iter().flat_map(|entry| &entry.tcp);
            *listen = listeners.map(TcpListener::local_addr).collect::<io::Result<_>>()?;
            return Ok(given.into_iter().map(Place::Taken).collect());
        }
        let place = |asked: &SocketAddr| {
            let fits = |entry: &Entry| entry.door == door && entry.asked == Some(*asked);
            let found = self.entries.iter().position(fits);
            found.map_or(Place::Free(*asked), |found| Place::Taken(self.entries.remove(found)))
        };
        Ok(listen.iter().map(place).collect())
    }

    /// Other handles on the same sockets.
    pub fn try_clone(&self) -> io::Result<Self> {
        let entries = self.entries.iter().map(|entry| {
            Ok(Entry {
                door: entry.door,
                asked: entry.asked,
                udp: entry.udp.iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?,
                tcp: entry.tcp.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?,
            })
        });
        let unix = self.unix.iter().map(|(path, listener)| Ok((path.clone(), listener.try_clone()?)));
        let control = self.control.as_ref().map(UnixListener::try_clone).transpose()?;
        let (entries, unix) = (entries.collect::<io::Result<_>>()?, unix.collect::<io::Result<_>>()?);
        Ok(Self { entries, unix, control })
    }

    /// Takes out the Unix socket that was bound for this path.
    pub fn take_unix(&mut self, path: &PathBuf) -> Option<UnixListener> {
        let found = self.unix.iter().position(|(bound, _)| bound == path)?;
        Some(self.unix.remove(found).1)
    }

    /// Where Unix sockets are listened on.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.unix.iter().map(|(path, _)| path.clone()).collect()
    }

    /// Each descriptor, and what it is.
    pub(super) fn describe(&self) -> Vec<(Described, BorrowedFd<'_>)> {
        let mut all = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let described = |what| Described { what, entry: number, asked: entry.asked, path: None };
            let tcp = match entry.door {
                Door::Dns => What::DnsTcp,
                Door::Http => What::Http,
                Door::Https => What::Https,
            };
            all.extend(entry.udp.iter().map(|socket| (described(What::DnsUdp), socket.as_fd())));
            all.extend(entry.tcp.iter().map(|listener| (described(tcp), listener.as_fd())));
        }
        let other = |what, path| Described { what, entry: self.entries.len(), asked: None, path };
        for (path, listener) in &self.unix {
            all.push((other(What::Unix, Some(path.clone())), listener.as_fd()));
        }
        let control = other(What::Control, None);
        all.extend(self.control.as_ref().map(|listener| (control, listener.as_fd())));
        all
    }

    /// Takes in one that arrived. Those of one entry come together.
    pub(super) fn add(&mut self, described: &Described, descriptor: OwnedFd) {
        let door = match described.what {
            What::Control => {
                self.control = Some(descriptor.into());
                return;
            }
            What::Unix => {
                self.unix.extend(described.path.clone().map(|path| (path, descriptor.into())));
                return;
            }
            What::Http => Door::Http,
            What::Https => Door::Https,
            What::DnsUdp | What::DnsTcp => Door::Dns,
        };
        if described.entry >= self.entries.len() {
            self.entries.push(Entry { door, asked: described.asked, udp: Vec::new(), tcp: Vec::new() });
        }
        let Some(entry) = self.entries.last_mut() else { return };
        match described.what {
            What::DnsUdp => entry.udp.push(descriptor.into()),
            _ => entry.tcp.push(descriptor.into()),
        }
    }
}
