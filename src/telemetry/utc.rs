//! Moments as texts and back: the one place that knows the calendar. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last moment that RFC 3339 has a text for, in milliseconds since 1970.
const LAST: u64 = 253_402_300_799_999;

/// `2006-01-02T15:04:05.000Z` (RFC 3339), as Consul's log lines begin.
pub fn rfc3339(at: SystemTime) -> String {
    let (date, time, millis) = parts(at);
    format!("{date}T{time}.{millis:03}Z")
}

/// The same of milliseconds since 1970; past the year 9999, of its end.
pub fn rfc3339_of(millis: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_millis(millis.min(LAST)))
}

/// `2006-01-02T15:04:05Z`, of a moment that is known to the second, in seconds since 1970.
pub fn to_the_second(seconds: u32) -> String {
    let (date, time, _) = parts(UNIX_EPOCH + Duration::from_secs(u64::from(seconds)));
    format!("{date}T{time}Z")
}

/// Reads an RFC 3339 time, with whatever offset; milliseconds since 1970; none when it is not one, or before.
pub fn parse(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |at: usize, wanted: &[u8]| text.as_bytes().get(at).is_some_and(|b| wanted.contains(b));
    let marks = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !marks || !valid {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit())?;
        let digits = format!("{:0<3}", fraction.get(..end.min(3)).filter(|digits| !digits.is_empty())?);
        millis = digits.parse::<i64>().ok()?;
        rest = &fraction[end..];
    }
    let offset = match rest.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let (hours, minutes) = (number(at, at + 2)?, number(at + 3, at + 5)?);
            (hours * 60 + minutes) * if *sign == b'+' { 60 } else { -60 }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds * 1000 + millis).ok()
}

/// `2006-01-02 15:04:05 +0000 UTC`, as Consul's metrics are dated.
pub fn spaced(at: SystemTime) -> String {
    let (date, time, _) = parts(at);
    format!("{date} {time} +0000 UTC")
}

/// Date, time of day and milliseconds; a moment before 1970 counts as 1970.
fn parts(at: SystemTime) -> (String, String, u32) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    (format!("{year:04}-{month:02}-{day:02}"), time, since.subsec_millis())
}

/// The date of a day since 1970-01-01 in the Gregorian calendar. Years are counted from March, so that the day that leap years
/// have more is a year's last; 400 years have 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

/// The day since 1970-01-01 of a date: the reverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_what_the_calendar_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_767_225_599, "2025-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)), text);
        }
        assert_eq!(spaced(UNIX_EPOCH + Duration::from_secs(1_767_225_599)), "2025-12-31 23:59:59 +0000 UTC");
    }

    #[test]
    fn times_are_read_whatever_their_offset() {
        assert_eq!(rfc3339_of(u64::MAX), "9999-12-31T23:59:59.999Z");
        for (text, millis) in [
            ("2000-02-29T00:00:00.001Z", Some(951_782_400_001)),
            ("2000-02-29T02:30:00+02:30", Some(951_782_400_000)),
            ("2000-02-28T23:00:00.5-01:00", Some(951_782_400_500)),
            ("2000-02-29T00:00:00", None),
            ("2000-13-29T00:00:00Z", None),
            ("2000-02-29T00:00:00.Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("yesterday", None),
            ("2000-02-29T00:00:00+ü:00", None),
        ] {
            assert_eq!(parse(text), millis, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(millis in 0..=LAST) {
            prop_assert_eq!(parse(&rfc3339_of(millis)), Some(millis));
        }
    }
}
