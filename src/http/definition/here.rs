//! Hosts that are the machine that probes.

/// Whether a target's host is the machine that probes: loopback, every address, or a number in a form that only the C
/// library takes for an address (`127.1`, `0x7f000001`), which nobody needs. A name can still lead here.
pub(super) fn is_this_server(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    match bare.parse::<std::net::IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => {
            let last = bare.rsplit('.').next().unwrap_or(bare);
            let number =
                last.starts_with("0x") || last.starts_with("0X") || last.bytes().all(|b| b.is_ascii_digit());
            number || last.eq_ignore_ascii_case("localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_this_server_are_known_in_every_spelling() {
        for host in [
            "localhost",
            "LocalHost.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
            "[::]",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1.",
            "",
        ] {
            assert!(is_this_server(host), "{host}");
        }
        for host in ["192.0.2.1", "[2001:db8::1]", "web.example", "localhost.example", "h1", "1.2.3.x4"] {
            assert!(!is_this_server(host), "{host}");
        }
    }
}
