//! Client subnet (RFC 7871): what a resolver tells of the network of its client, and what it is told in return.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The code of the option.
pub(super) const CODE: u16 = 8;

/// A network that a resolver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    /// As it came: 1 and 2, or 0 for one that is kept from us.
    family: u16,
    /// The first bits of its addresses, so many.
    pub(super) source: u8,
    /// The other bits are zero.
    pub(super) address: IpAddr,
}

impl Subnet {
    /// Reads the data of an option (section 6). None when it is malformed: a family that is not known, a prefix that is too long,
    /// octets that are too many or too few, bits behind the prefix, a scope in a query.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let ([family_high, family_low, source, 0], octets) = data.split_first_chunk::<4>()? else {
            return None;
        };
        let (family, source) = (u16::from_be_bytes([*family_high, *family_low]), *source);
        let most = match family {
            0 => 0,
            1 => 32,
            2 => 128,
            _ => return None,
        };
        if source > most || octets.len() != usize::from(source).div_ceil(8) {
            return None;
        }
        let mut whole = [0; 16];
        whole[..octets.len()].copy_from_slice(octets);
        let bits = u128::from_be_bytes(whole);
        if bits.checked_shl(u32::from(source)).unwrap_or(0) != 0 {
            return None;
        }
        let address = match family {
            2 => IpAddr::V6(Ipv6Addr::from(bits)),
            _ => IpAddr::V4(Ipv4Addr::from((bits >> 96) as u32)),
        };
        Some(Self { family, source, address })
    }

    /// Octets of the option.
    pub(super) fn octets(&self) -> usize {
        8 + usize::from(self.source).div_ceil(8)
    }

    /// Writes the option into an answer that holds for so many of the first bits (section 7.2.1).
    pub(super) fn write(&self, scope: u8, bytes: &mut Vec<u8>) {
        bytes.extend(CODE.to_be_bytes());
        bytes.extend((self.octets() as u16 - 4).to_be_bytes());
        bytes.extend(self.family.to_be_bytes());
        bytes.extend([self.source, scope]);
        let octets = usize::from(self.source).div_ceil(8);
        match self.address {
            IpAddr::V4(v4) => bytes.extend(v4.octets().iter().take(octets)),
            IpAddr::V6(v6) => bytes.extend(v6.octets().iter().take(octets)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_malformed_is_none() {
        for (data, good) in [
            (&[0, 1, 24, 0, 192, 0, 2][..], true),
            (&[0, 1, 0, 0], true),
            (&[0, 0, 0, 0], true),
            (&[0, 2, 33, 0, 0x20, 1, 13, 0xb8, 0x80], true),
            (&[0, 1, 24, 8, 192, 0, 2], false),
            (&[0, 1, 24, 0, 192, 0], false),
            (&[0, 1, 24, 0, 192, 0, 2, 0], false),
            (&[0, 1, 23, 0, 192, 0, 3], false),
            (&[0, 1, 33, 0, 192, 0, 2, 1, 0], false),
            (&[0, 3, 0, 0], false),
            (&[0, 0, 8, 0, 1], false),
            (&[0, 1, 0], false),
            (&[], false),
        ] {
            assert_eq!(Subnet::read(data).is_some(), good, "{data:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_with_a_scope(data in proptest::collection::vec(any::<u8>(), 0..24), scope: u8) {
            if let Some(subnet) = Subnet::read(&data) {
                let mut bytes = Vec::new();
                subnet.write(scope, &mut bytes);
                prop_assert_eq!(bytes.len(), subnet.octets());
                let mut expected = data.clone();
                expected[3] = scope;
                prop_assert_eq!(&bytes[4..], &expected[..]);
            }
        }
    }
}
