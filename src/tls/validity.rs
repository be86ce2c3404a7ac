//! From when until when a certificate, or a list of revoked ones, is valid: to warn of one that is not.
//!
//! Nothing is decided by this. What a connection depends on is verified by webpki, which tells no dates; of DER
//! (ITU-T X.690) only as much is read as leads to the two times (RFC 5280 sections 4.1.2.5, 5.1.2.4 and 5.1.2.5). Pure.

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) from: u64,
    /// Absent where there is no end.
    pub(super) until: Option<u64>,
}

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `Certificate`; `None` where it is none.
pub(super) fn certificate(der: &[u8]) -> Option<Times> {
    let mut to_be_signed = signed(der)?;
    if to_be_signed.peek() == Some(VERSION) {
        to_be_signed.next()?;
    }
    // serialNumber, signature, issuer.
    to_be_signed.expect(INTEGER)?;
    to_be_signed.expect(SEQUENCE)?;
    to_be_signed.expect(SEQUENCE)?;
    let mut validity = Elements(to_be_signed.expect(SEQUENCE)?);
    let (from, until) = (time(validity.next()?)?, time(validity.next()?)?);
    Some(Times { from, until: Some(until) })
}

/// `CertificateList`; `None` where it is none.
pub(super) fn revocations(der: &[u8]) -> Option<Times> {
    let mut to_be_signed = signed(der)?;
    if to_be_signed.peek() == Some(INTEGER) {
        to_be_signed.next()?;
    }
    // signature, issuer.
    to_be_signed.expect(SEQUENCE)?;
    to_be_signed.expect(SEQUENCE)?;
    let from = time(to_be_signed.next()?)?;
    let until = to_be_signed.next().and_then(time);
    Some(Times { from, until })
}

/// What stands before the signature.
pub(super) fn signed(der: &[u8]) -> Option<Elements<'_>> {
    let mut whole = Elements(Elements(der).expect(SEQUENCE)?);
    Some(Elements(whole.expect(SEQUENCE)?))
}

/// Elements, one after the other.
pub(super) struct Elements<'a>(pub(super) &'a [u8]);

impl<'a> Elements<'a> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Tag and contents. Lengths of at most four octets, and tags of one: the others do not occur here.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (
                    octets
                        .iter()
                        .try_fold(0usize, |sum, octet| Some(sum.checked_mul(256)? + usize::from(*octet)))?,
                    rest,
                )
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, contents))
    }

    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, contents)| contents)
    }
}

/// `YYMMDDHHMMSSZ` (years below 50 are of this century) or `YYYYMMDDHHMMSSZ`.
fn time((tag, text): (u8, &[u8])) -> Option<u64> {
    let digits = text.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    let two =
        |at: usize| Some(u64::from(digits.get(at)? - b'0') * 10 + u64::from(digits.get(at + 1)? - b'0'));
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (two(0)? + if two(0)? < 50 { 2000 } else { 1900 }, 2),
        (GENERALIZED_TIME, 14) => (two(0)? * 100 + two(2)?, 4),
        _ => return None,
    };
    let (month, day) = (two(at)?, two(at + 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1970 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + two(at + 4)? * 3600 + two(at + 6)? * 60 + two(at + 8)?)
}

/// Of the Gregorian calendar: the year begins in March here, so that the leap day is its last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_march = 365 * year + year / 4 - year / 100 + year / 400;
    before_march + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_dates_of_a_certificate_are_read() {
        // date -u -d 2024-02-29 +%s; one before 2050 and one after it, which have different forms.
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        for (from, from_secs, until, until_secs) in [
            ((2024, 2, 29), 1_709_164_800, (2049, 12, 31), 2_524_521_600),
            ((1999, 12, 31), 946_598_400, (2100, 3, 1), 4_107_542_400),
        ] {
            params.not_before = date_time_ymd(from.0, from.1, from.2);
            params.not_after = date_time_ymd(until.0, until.1, until.2);
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(certificate(made.der()), Some(Times { from: from_secs, until: Some(until_secs) }));
            assert_eq!(revocations(made.der()), None);
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_octets_are_read_without_harm(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), cut in 0usize..300) {
            let _ = (certificate(&octets), revocations(&octets));
            let made = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            let made = made.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let mut broken = made.der().to_vec();
            let at = cut % broken.len();
            broken[at] ^= octets.first().copied().unwrap_or(1);
            let _ = (certificate(&broken), certificate(&broken[..at]), revocations(&broken));
        }
    }
}
