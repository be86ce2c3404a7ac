//! Sockets: each address on UDP and on TCP.
//!
//! On UDP an address has several sockets, one for each thread that answers on it: the kernel spreads clients over them
//! (SO_REUSEPORT), and no two threads share a queue.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBufForce};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Bound sockets, in the order of the addresses that were asked for.
#[derive(Default)]
pub struct Listeners {
    /// Blocking, one for each thread; those of one address follow one another.
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for DNS on {transport} {address}: {error}{remedy}")]
pub struct ListenError {
    transport: &'static str,
    address: SocketAddr,
    error: io::Error,
    remedy: &'static str,
}

/// Why sockets of another process cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for DNS on the sockets that were passed: {0}")]
pub struct InheritError(#[from] io::Error);

/// Queries that the kernel keeps while we are busy: the default holds some 277.
const RECEIVE_OCTETS: usize = 4 << 20;
/// How long a thread waits for queries before it looks whether it is to end.
const LOOK_UP_AFTER: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often another port is tried when the one that UDP was given is taken on TCP.
const PORT_TRIES: usize = 16;

/// Binds every address on both transports, on UDP with so many sockets (0: one for each core that we may use); of port 0
/// all get the same free port. Must be called inside a runtime.
pub fn bind(addresses: &[SocketAddr], threads: usize) -> Result<Listeners, ListenError> {
    let threads = count(threads);
    let mut listeners = Listeners { udp: Vec::new(), tcp: Vec::new() };
    for address in addresses {
        let (udp, tcp) = bind_pair(*address, threads)?;
        listeners.udp.extend(udp);
        listeners.tcp.push(tcp);
    }
    Ok(listeners)
}

fn count(threads: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if threads == 0 { cores() } else { threads }
}

impl Listeners {
    /// Sockets of one address that another process bound. All of them are served, however many there are: what comes in on
    /// one that nobody reads would be lost. Threads beyond them share their queues: a socket that is bound now would be
    /// given queries before we can answer. Must be called inside a runtime.
    pub fn inherited(
        mut udp: Vec<UdpSocket>,
        tcp: Vec<std::net::TcpListener>,
        threads: usize,
    ) -> Result<Self, InheritError> {
        let missing = count(threads).saturating_sub(udp.len());
        let more = udp.iter().cycle().take(missing).map(UdpSocket::try_clone);
        udp.extend(more.collect::<io::Result<Vec<_>>>()?);
        let udp = udp.into_iter().map(|socket| {
            let (address, socket) = (socket.local_addr()?, Socket::from(socket));
            set_up(&socket, address)?;
            Ok(socket.into())
        });
        let tcp = tcp.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        Ok(Self { udp: udp.collect::<io::Result<_>>()?, tcp: tcp.collect::<io::Result<_>>()? })
    }

    /// Other handles on the same sockets, for another process.
    pub fn try_clone(&self) -> io::Result<(Vec<UdpSocket>, Vec<std::net::TcpListener>)> {
        let udp = self.udp.iter().map(UdpSocket::try_clone);
        let tcp = self.tcp.iter().map(|listener| Ok(listener.as_fd().try_clone_to_owned()?.into()));
        Ok((udp.collect::<io::Result<_>>()?, tcp.collect::<io::Result<_>>()?))
    }

    /// Takes in others.
    pub fn add(&mut self, others: Self) {
        self.udp.extend(others.udp);
        self.tcp.extend(others.tcp);
    }

    /// Where we listen, with real ports; UDP and TCP have the same.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }
}

fn bind_pair(address: SocketAddr, threads: usize) -> Result<(Vec<UdpSocket>, TcpListener), ListenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (first, bound) = first_udp(address).map_err(|e| failed("udp", address, e))?;
        let tcp = match tcp(bound) {
            Ok(tcp) => tcp,
            Err(_) if address.port() == 0 && tries < PORT_TRIES => continue,
            Err(error) => return Err(failed("tcp", bound, error)),
        };
        let others = (1..threads).map(|_| next_udp(bound)).collect::<io::Result<Vec<_>>>();
        let others = others.map_err(|e| failed("udp", bound, e))?;
        let granted = first.recv_buffer_size().unwrap_or(0);
        tracing::info!(address = %bound, threads, receive_octets = granted, "UDP sockets");
        let sockets = std::iter::once(first).chain(others);
        return Ok((sockets.map(UdpSocket::from).collect(), tcp));
    }
}

/// The first socket of an address, bound to it alone: SO_REUSEPORT from the start would hide another server on the same
/// port, which would then get a part of our queries. The flag is set behind the bind, so that our other sockets may follow.
fn first_udp(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = udp(address)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    let bound = socket.local_addr()?.as_socket();
    Ok((socket, bound.ok_or_else(|| io::Error::other("the socket has no address"))?))
}

fn next_udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = udp(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // Each family has its own socket: a v6 wildcard does not take v4's port.
        socket.set_only_v6(true)?;
    }
    set_up(&socket, address)?;
    Ok(socket)
}

/// What a UDP socket needs, whoever made it.
fn set_up(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // Elsewhere only one of our addresses can have been asked.
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => setsockopt(socket, Ipv4PacketInfo, &true)?,
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => setsockopt(socket, Ipv6RecvPacketInfo, &true)?,
        _ => {}
    }
    // Beyond the system's limit where we may; else less is granted where that is lower, and one that systemd made larger
    // would shrink.
    let less = || socket.recv_buffer_size().is_ok_and(|octets| octets < RECEIVE_OCTETS);
    if setsockopt(socket, RcvBufForce, &RECEIVE_OCTETS).is_err() && less() {
        let _ = socket.set_recv_buffer_size(RECEIVE_OCTETS);
    }
    // systemd's do not block.
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK_UP_AFTER))
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process that linger do not keep the port from us.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn failed(transport: &'static str, address: SocketAddr, error: io::Error) -> ListenError {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another server has it: stop that one, or choose another with --dns",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose another with --dns"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
        _ => "",
    };
    ListenError { transport, address, error, remedy }
}
