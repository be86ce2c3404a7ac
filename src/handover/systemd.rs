//! systemd: sockets that it opened for us (sd_listen_fds(3)), and what it wants to be told (sd_notify(3)).

use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};

use anyhow::{Context, bail};
use listenfd::ListenFd;

use super::{Door, Entry, Sockets};

/// The sockets that systemd passes. Those named `dns`, `http` or `https` (FileDescriptorName=) are what they are called; a TCP
/// listener of another name is for DNS if a datagram socket has its address, else for HTTP. Takes the variables out of the
/// environment: must be called before there is another thread.
pub fn sockets() -> anyhow::Result<Sockets> {
    let mut sockets = Sockets::default();
    if std::env::var("LISTEN_PID").ok() != Some(std::process::id().to_string()) {
        return Ok(sockets);
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    let mut streams = Vec::new();
    for number in 0..passed.len() {
        let name = names.split(':').nth(number).unwrap_or_default();
        if let Ok(Some(udp)) = passed.take_udp_socket(number) {
            if name.starts_with("http") {
                bail!("systemd passes a datagram socket for HTTP; use ListenStream=");
            }
            sockets.entries.push(Entry { door: Door::Dns, asked: None, udp: vec![udp], tcp: Vec::new() });
        } else if let Ok(Some(tcp)) = passed.take_tcp_listener(number) {
            streams.push((name, tcp));
        } else {
            bail!("systemd passes a descriptor ({name:?}) that is no UDP socket and no TCP listener");
        }
    }
    for (name, tcp) in streams {
        let address = tcp.local_addr().context("a socket of systemd's")?;
        let mut dns = sockets.entries.iter_mut().filter(|entry| entry.door == Door::Dns);
        match (name, dns.find(|entry| at(entry) == Some(address))) {
            ("http" | "https", _) | (_, None) if name != "dns" => {
                let door = if name == "https" { Door::Https } else { Door::Http };
                let entry = Entry { door, asked: None, udp: Vec::new(), tcp: vec![tcp] };
                sockets.entries.push(entry);
            }
            (_, Some(entry)) => entry.tcp.push(tcp),
            (_, None) => {
                bail!("systemd passes {address} on TCP for DNS, and not on UDP: add ListenDatagram=")
            }
        }
    }
    let alone = sockets.entries.iter().find(|entry| entry.tcp.is_empty()).and_then(at);
    if let Some(address) = alone {
        bail!("systemd passes {address} on UDP for DNS, and not on TCP: add ListenStream=");
    }
    Ok(sockets)
}

fn at(entry: &Entry) -> Option<SocketAddr> {
    entry.udp.first()?.local_addr().ok()
}

/// Tells systemd something; nothing where nobody listens.
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else { return };
    let told = || -> io::Result<usize> {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => UnixAddr::from_abstract_name(name)?,
            _ => UnixAddr::from_pathname(&path)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
    };
    if let Err(error) = told() {
        tracing::warn!("telling systemd {state:?}: {error}");
    }
}
