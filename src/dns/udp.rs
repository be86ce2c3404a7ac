//! The UDP loop.
//!
//! One task for each socket. Answers that need no waiting are made and sent in the loop: a task for every
//! datagram costs more than most answers. On a wildcard address the control message says which of our
//! addresses was asked, and the answer leaves from it (a client drops one from anywhere else).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::task::TaskTracker;

use super::State;
use super::respond::{Outcome, Reply, Transport};

/// The largest request that is read; what is longer is malformed anyway.
const REQUEST_OCTETS_MAX: usize = 4096;
/// Ports of services that answer anything to anybody: an "answer" to them starts a loop or an attack.
const PORTS_NEVER_ANSWERED: [u16; 6] = [0, 7, 13, 17, 19, 37];

/// Where a datagram came from, and which of our addresses it was sent to.
#[derive(Debug, Clone, Copy)]
struct Path {
    client: SocketAddr,
    asked: Option<Asked>,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    V4(nix::libc::in_pktinfo),
    V6(nix::libc::in6_pktinfo),
}

/// Answers on one socket until the shutdown.
pub(super) async fn serve(socket: UdpSocket, state: Arc<State>) {
    let socket = Arc::new(socket);
    let waiting = TaskTracker::new();
    let mut buffer = vec![0u8; REQUEST_OCTETS_MAX];
    loop {
        let received = tokio::select! {
            () = state.shutdown.cancelled() => break,
            received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)) => received,
        };
        let (length, path) = match received {
            Ok(received) => received,
            // The kernel reports refusals of earlier answers here.
            Err(error) => {
                tracing::debug!("receiving: {error}");
                state.metrics.dns.dropped("receive error");
                continue;
            }
        };
        if is_never_answered(path.client.port()) {
            state.metrics.dns.dropped("source port");
            continue;
        }
        match state.respond(&buffer[..length], Transport::Udp, path.client.ip()) {
            Outcome::Silence => state.metrics.dns.dropped("not a request"),
            Outcome::Reply(reply) => answer(&socket, path, &reply, &state).await,
            Outcome::Ask(pending) => {
                let (socket, state) = (socket.clone(), state.clone());
                // The forwarder bounds how many wait; those beyond are answered at once.
                waiting.spawn(async move {
                    let reply = state.ask(&pending).await;
                    answer(&socket, path, &reply, &state).await;
                });
            }
        }
    }
}

fn is_never_answered(port: u16) -> bool {
    PORTS_NEVER_ANSWERED.contains(&port)
}

async fn answer(socket: &UdpSocket, path: Path, reply: &Reply, state: &State) {
    state.count(reply, Transport::Udp);
    let sent = socket.async_io(Interest::WRITABLE, || send(socket, path, &reply.encoded.bytes)).await;
    if let Err(error) = sent {
        tracing::debug!(client = %path.client, "answering: {error}");
        state.metrics.dns.dropped("send error");
    }
}

/// Receives one datagram.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Path)> {
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo, nix::libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let asked = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(info)),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(info)),
        _ => None,
    });
    let client = received.address.as_ref().and_then(address);
    let client = client.ok_or_else(|| io::Error::other("a datagram without an address"))?;
    Ok((received.bytes, Path { client, asked }))
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::new(IpAddr::V4(v4.ip()), v4.port())),
        (_, Some(v6)) => {
            Some(std::net::SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()).into())
        }
        _ => None,
    }
}

/// Sends one datagram from the address that was asked.
fn send(socket: &UdpSocket, path: Path, bytes: &[u8]) -> io::Result<usize> {
    let slices = [IoSlice::new(bytes)];
    let (v4, v6);
    let control: &[ControlMessage<'_>] = match path.asked {
        Some(Asked::V4(mut info)) => {
            // The kernel routes by itself: an answer need not leave where the question came in.
            info.ipi_ifindex = 0;
            info.ipi_spec_dst = info.ipi_addr;
            v4 = info;
            &[ControlMessage::Ipv4PacketInfo(&v4)]
        }
        Some(Asked::V6(info)) => {
            v6 = info;
            &[ControlMessage::Ipv6PacketInfo(&v6)]
        }
        None => &[],
    };
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let sent = match path.client {
        SocketAddr::V4(client) => sendmsg(fd, &slices, control, flags, Some(&SockaddrIn::from(client))),
        SocketAddr::V6(client) => sendmsg(fd, &slices, control, flags, Some(&SockaddrIn6::from(client))),
    };
    sent.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_answer_anything_are_never_answered() {
        for port in [0, 7, 13, 17, 19, 37] {
            assert!(is_never_answered(port), "{port}");
        }
        // Resolvers may ask from port 53.
        assert!(!is_never_answered(53) && !is_never_answered(1024));
    }
}
