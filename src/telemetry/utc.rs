//! Moments as texts. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2006-01-02T15:04:05.000Z` (RFC 3339), as Consul's log lines begin.
pub fn rfc3339(at: SystemTime) -> String {
    let (date, time, millis) = parts(at);
    format!("{date}T{time}.{millis:03}Z")
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
