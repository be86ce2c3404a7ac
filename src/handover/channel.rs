//! Messages with descriptors over a socket pair.
//!
//! SOCK_SEQPACKET: a message arrives whole, with its descriptors, or not at all. What is sent is small and few, so that it
//! always fits the socket's buffer: only receiving waits.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::Message;

/// Descriptors in one message at most; the kernel's own bound is 253.
pub(super) const DESCRIPTORS_MAX: usize = 64;
const MESSAGE_OCTETS_MAX: usize = 64 << 10;

/// One end. The type is tokio's for Unix sockets of either kind that connects; its own ways to read and write, which know
/// no messages, are not used.
pub(super) struct Channel(UnixStream);

impl Channel {
    /// Our end, and the other one for another process. Must be called inside a runtime.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, other))
    }

    /// Talks over an end that another process made. Must be called inside a runtime.
    pub(super) fn new(end: OwnedFd) -> io::Result<Self> {
        let end = std::os::unix::net::UnixStream::from(end);
        end.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(end)?))
    }

    /// Sends a message with descriptors. Does not wait.
    pub(super) fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a message; `None` when the other end is closed.
    pub(super) async fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut bytes = vec![0u8; MESSAGE_OCTETS_MAX];
        let received = self.0.async_io(Interest::READABLE, || receive(&self.0, &mut bytes)).await;
        match received {
            Ok((0, _)) => Ok(None),
            Ok((length, descriptors)) => Ok(Some((serde_json::from_slice(&bytes[..length])?, descriptors))),
            Err(error) => Err(error),
        }
    }
}

fn receive(end: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut receive = || recvmsg(end, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let received = match receive() {
        // It was closed with something unread in it: told once, before what it said itself.
        Err(rustix::io::Errno::CONNRESET) => receive()?,
        other => other?,
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    // Descriptors are cut off where our limit on open files is reached.
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a message was cut; is the limit on open files reached?"));
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[tokio::test]
    async fn messages_arrive_with_their_descriptors_until_the_other_end_is_closed() {
        let (ours, other) = Channel::pair().unwrap();
        let other = Channel::new(other).unwrap();
        let mut file = super::super::scratch().unwrap();
        file.write_all(b"state").unwrap();
        ours.send(&Message::Prepared, &[]).unwrap();
        ours.send(&Message::Yours, &[std::os::fd::AsFd::as_fd(&file)]).unwrap();
        drop(ours);
        let first = other.receive().await.unwrap().unwrap();
        assert!(matches!(first.0, Message::Prepared) && first.1.is_empty());
        let (message, descriptors) = other.receive().await.unwrap().unwrap();
        assert!(matches!(message, Message::Yours));
        let mut received = std::fs::File::from(descriptors.into_iter().next().unwrap());
        let mut text = String::new();
        received.rewind().unwrap();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "state");
        assert!(other.receive().await.unwrap().is_none());
        assert!(other.send(&Message::Prepared, &[]).is_err());
    }
}
