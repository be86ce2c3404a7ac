//! Whether this machine has a way out: an interface that runs, and a route. Asked of the system when a probe did not get
//! through; nothing is sent.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use tokio::time::Instant;

/// What is looked at is believed for so long.
const FRESH: Duration = Duration::from_millis(100);

/// The ways that lead from this machine to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ways {
    /// An interface beside loopback that is up and has a carrier and an address.
    linked: bool,
    /// A route to the rest of the world, over such an interface.
    routed: bool,
    /// Our own addresses.
    own: Vec<IpAddr>,
}

/// What this machine has had, and has.
#[derive(Debug)]
pub(super) struct Outlook {
    had: Ways,
    has: Ways,
    looked: Instant,
}

impl Outlook {
    pub(super) fn new(now: Instant) -> Self {
        let ways = look();
        Self { had: ways.clone(), has: ways, looked: now }
    }

    /// Whether a way is gone that was there.
    pub(super) fn is_stranded(&mut self, now: Instant) -> bool {
        self.refresh(now);
        (self.had.linked && !self.has.linked) || (self.had.routed && !self.has.routed)
    }

    /// What there is now is taken for all there is to be.
    pub(super) fn accept(&mut self) {
        self.had = self.has.clone();
    }

    /// Whether an address is this machine's own.
    pub(super) fn is_own(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() {
            return true;
        }
        self.refresh(now);
        self.has.own.contains(&address)
    }

    fn refresh(&mut self, now: Instant) {
        if now.duration_since(self.looked) >= FRESH {
            (self.has, self.looked) = (look(), now);
            self.had.linked |= self.has.linked;
            self.had.routed |= self.has.routed;
        }
    }
}

fn look() -> Ways {
    let mut ways = Ways::default();
    let out = outbound();
    let running = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    for interface in getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let Some(ip) = v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()))) else { continue };
        ways.own.push(ip);
        let of_the_link = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if !ip.is_loopback() && !of_the_link && interface.flags.contains(running) {
            ways.linked = true;
            ways.routed |= out == Some(ip);
        }
    }
    ways
}

/// The address from which we would speak to the rest of the world. Connecting a datagram socket sends nothing; the addresses
/// are of the documentation ranges (RFC 5737, RFC 3849).
pub fn outbound() -> Option<IpAddr> {
    let ask = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    ask("0.0.0.0:0", "192.0.2.1:9").or_else(|| ask("[::]:0", "[2001:db8::1]:9"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_and_is_gone_is_noticed_until_it_is_accepted() {
        let now = Instant::now();
        let mut outlook = Outlook::new(now);
        assert!(!outlook.is_stranded(now) && outlook.is_own(IpAddr::from([127, 0, 0, 9]), now));
        assert!(!outlook.is_own(IpAddr::from([203, 0, 113, 9]), now));
        (outlook.had.linked, outlook.has.linked) = (true, false);
        assert!(outlook.is_stranded(now));
        outlook.accept();
        assert!(!outlook.is_stranded(now));
    }
}
