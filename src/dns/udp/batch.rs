//! Many datagrams in one system call: recvmmsg and sendmmsg.
//!
//! On a wildcard address the control message says which of our addresses was asked, and the answer leaves from it (a
//! client drops one from anywhere else).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn, SockaddrIn6,
    SockaddrLike, recvmmsg, sendmmsg, sendmsg,
};

/// More gain nothing.
pub(super) const BATCH: usize = 32;
/// The largest request that is read; what is longer is malformed anyway.
const REQUEST_OCTETS_MAX: usize = 4096;
/// Requests lie an odd number of cache lines apart: at distances of 4096 their beginnings would share one set of the cache.
const STRIDE: usize = REQUEST_OCTETS_MAX + 64;
/// The largest answer over UDP.
pub(super) const ANSWER_OCTETS: usize = 4096;

/// An address as the kernel takes it: of one family, so that it is no larger than it has to be.
pub(super) trait Family: SockaddrLike + Copy {
    fn client(&self) -> SocketAddr;
    fn asked(message: &RecvMsg<'_, '_, Self>) -> Option<Asked>;
}

impl Family for SockaddrIn {
    fn client(&self) -> SocketAddr {
        SocketAddr::new(self.ip().into(), self.port())
    }

    fn asked(message: &RecvMsg<'_, '_, Self>) -> Option<Asked> {
        message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(info)),
            _ => None,
        })
    }
}

impl Family for SockaddrIn6 {
    fn client(&self) -> SocketAddr {
        SocketAddrV6::new(self.ip(), self.port(), self.flowinfo(), self.scope_id()).into()
    }

    fn asked(message: &RecvMsg<'_, '_, Self>) -> Option<Asked> {
        message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Asked::V6(info)),
            _ => None,
        })
    }
}

/// Which of our addresses a datagram was sent to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Asked {
    /// What an answer is sent with, so that it leaves from there.
    fn reply(self) -> Self {
        match self {
            // The kernel routes by itself: an answer need not leave where the question came in.
            Self::V4(info) => Self::V4(in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: info.ipi_addr, ..info }),
            Self::V6(info) => Self::V6(info),
        }
    }

    fn control(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::V4(a), Self::V4(b)) => a.ipi_addr.s_addr == b.ipi_addr.s_addr,
            (Self::V6(a), Self::V6(b)) => {
                (a.ipi6_addr.s6_addr, a.ipi6_ifindex) == (b.ipi6_addr.s6_addr, b.ipi6_ifindex)
            }
            _ => false,
        }
    }
}

/// A client, and which of our addresses it asked where there are several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<S> {
    pub(super) client: S,
    asked: Option<Asked>,
}

/// A datagram that came.
#[derive(Clone, Copy)]
struct Came<S> {
    path: Path<S>,
    octets: usize,
}

/// The datagrams of one system call, and what sends their answers.
pub(super) struct Batch<'s, S> {
    socket: &'s UdpSocket,
    wildcard: bool,
    requests: Vec<[u8; STRIDE]>,
    came: Vec<Came<S>>,
    headers: MultiHeaders<S>,
    reply_headers: MultiHeaders<S>,
}

impl<'s, S: Family> Batch<'s, S> {
    pub(super) fn new(socket: &'s UdpSocket) -> Self {
        let wildcard = socket.local_addr().is_ok_and(|address| address.ip().is_unspecified());
        let control = || {
            wildcard.then(|| match S::size() == SockaddrIn::size() {
                true => nix::cmsg_space!(in_pktinfo),
                false => nix::cmsg_space!(in6_pktinfo),
            })
        };
        Self {
            socket,
            wildcard,
            requests: vec![[0; STRIDE]; BATCH],
            came: Vec::with_capacity(BATCH),
            headers: MultiHeaders::preallocate(BATCH, control()),
            reply_headers: MultiHeaders::preallocate(BATCH, control()),
        }
    }

    /// Waits for datagrams and takes all that have come, as many as fit.
    pub(super) fn receive(&mut self) -> io::Result<()> {
        self.came.clear();
        let mut requests = self.requests.iter_mut();
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            let request = requests.next().map_or(&mut [][..], |request| &mut request[..REQUEST_OCTETS_MAX]);
            [IoSliceMut::new(request)]
        });
        let fd = self.socket.as_raw_fd();
        let received = recvmmsg(fd, &mut self.headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)?;
        for message in received {
            let asked = if self.wildcard { S::asked(&message) } else { None };
            // The kernel gives an address with every datagram.
            let Some(client) = message.address else { continue };
            self.came.push(Came { path: Path { client, asked }, octets: message.bytes });
        }
        Ok(())
    }

    /// The requests, and where they came from.
    pub(super) fn messages(&self) -> impl Iterator<Item = (Path<S>, &[u8])> + Clone {
        let requests = self.came.iter().zip(&self.requests);
        requests.map(|(came, request)| (came.path, &request[..came.octets]))
    }

    /// Sends the answers, one for each request, or none where it is empty; returns how many could not be sent.
    pub(super) fn send(&mut self, answers: &[Vec<u8>; BATCH]) -> usize {
        let mut slices = [[IoSlice::new(&[])]; BATCH];
        let mut clients = [None; BATCH];
        let (mut first, mut failed) = (0, 0);
        while first < self.came.len() {
            let asked = self.came[first].path.asked;
            let (mut count, mut next) = (0, first);
            while next < self.came.len() && self.came[next].path.asked == asked {
                if !answers[next].is_empty() {
                    slices[count] = [IoSlice::new(&answers[next])];
                    clients[count] = Some(self.came[next].path.client);
                    count += 1;
                }
                next += 1;
            }
            let reply = asked.map(Asked::reply);
            let control = reply.as_ref().map(Asked::control);
            let control = control.as_slice();
            failed +=
                send_all(self.socket, &mut self.reply_headers, &slices[..count], &clients[..count], control);
            first = next;
        }
        failed
    }
}

/// Sends all; returns how many the kernel refused.
fn send_all<S: Family>(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<S>,
    slices: &[[IoSlice<'_>; 1]],
    clients: &[Option<S>],
    control: &[ControlMessage<'_>],
) -> usize {
    let (mut at, mut failed) = (0, 0);
    while at < slices.len() {
        let (slices, clients) = (&slices[at..], &clients[at..]);
        match sendmmsg(socket.as_raw_fd(), headers, slices, clients, control, MsgFlags::empty()) {
            Ok(sent) => at += sent.count(),
            Err(nix::errno::Errno::EINTR) => {}
            // The first one failed, or an ICMP message about an earlier one came in between.
            Err(error) => {
                tracing::debug!("answering: {error}");
                (at, failed) = (at + 1, failed + 1);
            }
        }
    }
    failed
}

/// Sends one datagram, later than its batch.
pub(super) fn send<S: Family>(socket: &UdpSocket, path: Path<S>, bytes: &[u8]) -> io::Result<()> {
    let reply = path.asked.map(Asked::reply);
    let control = reply.as_ref().map(Asked::control);
    let slices = [IoSlice::new(bytes)];
    let fd = socket.as_raw_fd();
    sendmsg(fd, &slices, control.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&path.client))?;
    Ok(())
}
