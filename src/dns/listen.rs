//! Sockets: each address on UDP and on TCP.

use std::io;
use std::net::SocketAddr;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// Bound sockets, in the order of the addresses that were asked for.
pub struct Listeners {
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

/// Queries that the kernel keeps while we are busy: the default holds some 277.
const RECEIVE_OCTETS: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often another port is tried when the one that UDP was given is taken on TCP.
const PORT_TRIES: usize = 16;

/// Binds every address on both transports; of port 0 both get the same free port. Must be called inside a runtime.
pub fn bind(addresses: &[SocketAddr]) -> Result<Listeners, ListenError> {
    let mut listeners = Listeners { udp: Vec::new(), tcp: Vec::new() };
    for address in addresses {
        let (udp, tcp) = bind_pair(*address)?;
        listeners.udp.push(udp);
        listeners.tcp.push(tcp);
    }
    Ok(listeners)
}

impl Listeners {
    /// Where we listen, with real ports; UDP and TCP have the same.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

fn bind_pair(address: SocketAddr) -> Result<(UdpSocket, TcpListener), ListenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let udp = udp(address).map_err(|e| failed("udp", address, e))?;
        let bound = udp.local_addr().map_err(|e| failed("udp", address, e))?;
        match tcp(bound) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(_) if address.port() == 0 && tries < PORT_TRIES => {}
            Err(error) => return Err(failed("tcp", bound, error)),
        }
    }
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // Each family has its own socket: a v6 wildcard does not take v4's port.
        socket.set_only_v6(true)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
    }
    // Less is granted where the system's limit is lower.
    let _ = socket.set_recv_buffer_size(RECEIVE_OCTETS);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    let granted = socket.recv_buffer_size().unwrap_or(0);
    tracing::debug!(%address, granted, "UDP receive buffer");
    UdpSocket::from_std(socket.into())
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
