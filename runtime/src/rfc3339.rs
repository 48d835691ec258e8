//! Points in time as RFC 3339 texts in UTC, as `state.json`, `state` and the log carry them.
//!
//! Owns the calendar arithmetic; reads no clock itself and knows no time zone. Called by `state`, `container` and `log`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86_400;

/// `time` to the second: `2026-11-22T21:38:09Z`. Times before 1970 count as 1970.
pub fn seconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    format!("{}Z", date_and_time(since.as_secs()))
}

/// `time` with as many digits of its second as it has, none when it has none (Go's `RFC3339Nano`).
pub fn nanoseconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let mut text = date_and_time(since.as_secs());
    if since.subsec_nanos() > 0 {
        let digits = format!("{:09}", since.subsec_nanos());
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

fn date_and_time(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / SECONDS_PER_DAY);
    let rest = seconds % SECONDS_PER_DAY;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The Gregorian date of a day counted from 1970-01-01. Years are taken from March, so that the leap day is a year's
/// last and a 400-year era has a fixed length.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_EPOCH: u64 = 719_468; // from 0000-03-01 to 1970-01-01
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_TO_EPOCH;
    let era = days / DAYS_PER_ERA;
    let day_of_era = days % DAYS_PER_ERA;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, nanos)
    }

    #[test]
    fn known_days() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_799, "2024-02-28T23:59:59Z"),
            (1_795_383_489, "2026-11-22T21:38:09Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(seconds(at(second, 7)), text);
        }
    }

    #[test]
    fn fraction_has_no_trailing_zeros() {
        assert_eq!(nanoseconds(at(1, 0)), "1970-01-01T00:00:01Z");
        assert_eq!(nanoseconds(at(1, 120_000_000)), "1970-01-01T00:00:01.12Z");
        assert_eq!(nanoseconds(at(1, 5)), "1970-01-01T00:00:01.000000005Z");
    }
}
