//! Which addresses the server may connect to because somebody else named them, in a check or as the place of an auth method's keys:
//! a guard against what only this machine reaches.
//!
//! What is judged is the address that is about to be connected to, after every lookup and at every redirect: no spelling
//! of an address, and no name that leads elsewhere the second time, is another way in. An IPv6 address that stands for an IPv4
//! one is judged as both. Of the ranges that have the address the longest decides, and of two that are as long the one that denies.
//! Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Ranges where clouds keep their machines' secrets, and nothing that a check is for: link-local addresses (RFC 3927 and RFC 4291
/// section 2.5.6), and the addresses of metadata services that are not among them.
const METADATA: [IpNet; 11] = [
    v4(Ipv4Addr::new(169, 254, 0, 0), 16),
    v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    // Amazon, over IPv6; Google, over IPv6.
    v6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0), 32),
    v6(Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254), 128),
    // Oracle, Scaleway, Akamai (Linode) and Alibaba, over IPv6.
    v6(Ipv6Addr::new(0xfd00, 0x00c1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), 128),
    v6(Ipv6Addr::new(0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x42), 128),
    v6(Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1), 128),
    v6(Ipv6Addr::new(0xfd00, 0x0100, 0, 0, 0, 0, 0x0100, 0x0200), 128),
    // Alibaba, Oracle, Azure.
    v4(Ipv4Addr::new(100, 100, 100, 200), 32),
    v4(Ipv4Addr::new(192, 0, 0, 192), 32),
    v4(Ipv4Addr::new(168, 63, 129, 16), 32),
];

const fn v4(address: Ipv4Addr, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(address, prefix))
}

const fn v6(address: Ipv6Addr, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(address, prefix))
}

/// What the configuration says of targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// When there are any, all that is in none of them is denied to checks.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}

/// Why a target may not be reached: the rest of a sentence, which names the range and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied(pub String);

impl Targets {
    /// Whether probes may connect there.
    pub fn judge(&self, address: IpAddr) -> Result<(), Denied> {
        means(address).into_iter().try_for_each(|address| self.judge_one(address, true))
    }

    /// The same of the server of an auth method's keys, which whoever may write the ACL names: it is mostly not among what is checked,
    /// so that what checks are narrowed to does not count.
    pub fn judge_keys(&self, address: IpAddr) -> Result<(), Denied> {
        means(address).into_iter().try_for_each(|address| self.judge_one(address, false))
    }

    fn judge_one(&self, address: IpAddr, narrowed: bool) -> Result<(), Denied> {
        let longest = |ranges: &[IpNet]| {
            let having = ranges.iter().filter(|range| range.contains(&address));
            having.max_by_key(|range| range.prefix_len()).copied()
        };
        let length = |range: Option<IpNet>| range.map(|range| range.prefix_len());
        let (allowed, denied, metadata) = (longest(&self.allow), longest(&self.deny), longest(&METADATA));
        // None is less than any length.
        if let Some(range) = denied.filter(|_| length(denied) >= length(allowed)) {
            return Err(Denied(format!("{address} is in {range}, which [checks] deny_targets names")));
        }
        if let Some(range) = metadata.filter(|_| length(metadata) > length(allowed)) {
            return Err(Denied(format!(
                "{address} is in {range}, where clouds keep credentials; [checks] allow_targets can name it"
            )));
        }
        if narrowed && allowed.is_none() && !self.allow.is_empty() {
            return Err(Denied(format!(
                "{address} is in none of the ranges that [checks] allow_targets names"
            )));
        }
        Ok(())
    }
}

/// The address, and those that it stands for.
fn means(address: IpAddr) -> Vec<IpAddr> {
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(outer) => embedded(outer),
    };
    let mut all = Vec::new();
    // Mapped, it is the IPv4 address and nothing else (RFC 4291 section 2.5.5.2).
    if address.to_canonical() == address {
        all.push(address);
    }
    all.extend(inner.map(IpAddr::from));
    // Both lead to this machine.
    if all.iter().any(IpAddr::is_unspecified) {
        all.extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
    }
    all
}

/// The IPv4 address that an IPv6 one leads to: mapped and compatible (RFC 4291 section 2.5.5), translated (RFC 6052 section
/// 2.1, RFC 8215), and 6to4 (RFC 3056 section 2).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match (a, b) {
        (0, 0) if [c, d, e] == [0, 0, 0] && f == 0xffff => of(g, h),
        // ::1 is loopback.
        (0, 0) if [c, d, e, f] == [0, 0, 0, 0] && (g, h) != (0, 1) => of(g, h),
        (0x64, 0xff9b) if [c, d, e, f] == [0, 0, 0, 0] || c == 1 => of(g, h),
        (0x2002, _) => of(b, c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(allow: &[&str], deny: &[&str]) -> Targets {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Targets { allow: ranges(allow), deny: ranges(deny) }
    }

    fn judge(targets: &Targets, address: &str) -> Result<(), String> {
        targets.judge(address.parse().unwrap()).map_err(|Denied(why)| why)
    }

    #[test]
    fn metadata_is_denied_in_every_form_unless_it_is_allowed() {
        let (plain, open) = (targets(&[], &[]), targets(&["0.0.0.0/0", "::/0"], &[]));
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
            "fd00:100::100:200",
            "fe80::a9fe:a9fe",
            "::ffff:100.100.100.200",
        ] {
            for targets in [&plain, &open] {
                let why = judge(targets, address).unwrap_err();
                assert!(targets.judge_keys(address.parse().unwrap()).is_err(), "{address}");
                assert!(why.contains("[checks] allow_targets can name it"), "{address}: {why}");
            }
        }
        let named = targets(&["0.0.0.0/0", "::/0", "169.254.169.254/32", "fe80::/10"], &[]);
        for address in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1"] {
            assert_eq!(judge(&named, address), Ok(()), "{address}");
        }
        assert!(judge(&named, "169.254.169.253").is_err());
        for address in ["10.0.0.1", "127.0.0.1", "::1", "0.0.0.0", "192.168.1.1", "fd00::1", "2001:db8::1"] {
            assert_eq!(judge(&plain, address), Ok(()), "as Consul's users need: {address}");
        }
    }

    #[test]
    fn the_longest_range_decides_and_an_allow_list_denies_all_else() {
        let targets = targets(&["10.0.0.0/8", "10.1.2.3/32"], &["10.1.0.0/16", "10.9.0.0/16", "10.9.0.0/16"]);
        for (address, words) in [
            ("10.0.0.1", None),
            ("10.1.2.3", None),
            ("10.1.2.4", Some("10.1.2.4 is in 10.1.0.0/16, which [checks] deny_targets names")),
            ("::ffff:10.9.0.1", Some("10.9.0.1 is in 10.9.0.0/16, which [checks] deny_targets names")),
            ("192.0.2.1", Some("192.0.2.1 is in none of the ranges that [checks] allow_targets names")),
            ("2001:db8::1", Some("in none of")),
        ] {
            match (judge(&targets, address), words) {
                (Ok(()), None) => {}
                (Err(why), Some(words)) => assert!(why.contains(words), "{why}"),
                (other, _) => panic!("{address}: {other:?}"),
            }
        }
        let keys = |address: &str| targets.judge_keys(address.parse().unwrap());
        assert!(keys("192.0.2.1").is_ok(), "only checks are narrowed");
        assert!(keys("::ffff:10.9.0.1").is_err());
        let same = self::targets(&["10.0.0.0/8"], &["10.0.0.0/8"]);
        assert!(judge(&same, "10.0.0.1").is_err(), "of two that are as long the one that denies");
    }

    #[test]
    fn every_address_is_this_machine_too() {
        let targets = targets(&[], &["127.0.0.0/8", "::1/128"]);
        for address in
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1", "::ffff:0.0.0.0"]
        {
            assert!(judge(&targets, address).is_err(), "{address}");
        }
    }
}
