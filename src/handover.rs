//! A restart without a gap: the running server starts its successor and gives it its sockets.
//!
//! The two talk over a socket pair, which the successor finds as its standard input. Sockets cross it as descriptors
//! (SCM_RIGHTS); both processes then read the same queues, so nothing that waits in one is lost with either of them.
//!
//! 1. The successor reads its configuration, takes the sockets and says `Prepared`. Nothing has changed until then.
//! 2. The server shuts the doors through which changes come (what comes over HTTP waits in the listener's queue), ends its
//!    writer, closes its store and says `Yours`. It goes on answering DNS from what it knows.
//! 3. The successor loads, answers DNS on the same sockets, and says `Ready`.
//! 4. The server stops answering, says `Silent` and ends; the successor opens its doors. So whoever registers with the
//!    successor is never answered from the server's older state.
//!
//! A successor that fails before it is ready is killed, and the server opens its store again.
//!
//! Sockets that systemd passes come by the same type ([`Sockets`]); [`control`] is where `rollcall restart` asks. The
//! composition of a server is not known here: `lib.rs` shuts and opens it.
//!
//! Rejected: executing the new program in place (nobody answers while it loads); a second set of sockets with SO_REUSEPORT
//! (what waits in the first set is lost when it closes).

mod channel;
pub mod control;
mod predecessor;
mod sockets;
mod successor;
pub mod systemd;
pub mod unix;

pub use predecessor::{Inheritance, Predecessor};
pub use sockets::{Door, Entry, Place, Sockets};
pub use successor::{Program, Successor};

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of what is said between the two.
const VERSION: u32 = 1;

/// What the two say, each as one JSON message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// From the server, before all else. `data` is its data directory, absent when it keeps nothing; `sockets` says how many
    /// descriptors follow.
    Begin { version: u32, data: Option<PathBuf>, sockets: usize },
    /// From the server: what the descriptors that come along are, in their order. One message or more.
    Sockets { sockets: Vec<Described> },
    /// From the successor: it has all that can be had before the store.
    Prepared,
    /// From the server: the store is closed. The state of one that keeps nothing comes along as a file.
    Yours,
    /// From the successor: it answers DNS.
    Ready,
    /// From the server: it does not answer any more.
    Silent,
    /// From the successor: it gives up.
    Failed { reason: String },
}

/// One descriptor of [`Message::Sockets`].
#[derive(Debug, Serialize, Deserialize)]
struct Described {
    what: What,
    /// Those of one entry of `listen` have the same number.
    entry: usize,
    /// As in [`Entry::asked`].
    asked: Option<SocketAddr>,
    /// Of a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    DnsUdp,
    DnsTcp,
    Http,
    Https,
    /// HTTP on a Unix socket.
    Unix,
    Control,
}

/// A file in memory, for a state that passes from one process to the next.
pub fn scratch() -> std::io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("rollcall-state", flags)?.into())
}
