//! Who is one client, as far as an address tells.

use std::net::{IpAddr, Ipv6Addr};

/// Who has one IPv6 address has its whole /64, and counts once: the network's address stands for all of them.
pub fn household(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}
