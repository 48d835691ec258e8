//! Moments as Go writes them: RFC 3339 in UTC, with no more digits behind the second than it takes.

use ketch_cluster::objects::Meta;
use ketch_cluster::time::Timestamp;
use ketch_engine_api::swarm;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400;

pub(crate) fn shown(moment: Timestamp) -> String {
    let (seconds, nanos) = (moment.0 / SECOND, moment.0 % SECOND);
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    let whole = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    if nanos == 0 {
        return format!("{whole}Z");
    }
    let fraction = format!("{nanos:09}");
    format!("{whole}.{}Z", fraction.trim_end_matches('0'))
}

pub(crate) fn meta(meta: &Meta) -> swarm::Meta {
    swarm::Meta {
        version: swarm::Version { index: meta.version.0 },
        created_at: shown(meta.created_at),
        updated_at: shown(meta.updated_at),
    }
}

/// The day of the Gregorian calendar, so many days after the first of 1970. Years are counted from March: then a leap day is
/// the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    // The first of March of the year 0, and the length of the calendar's whole cycle.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400 * SECOND, "2000-02-29T00:00:00Z"),
            (1_795_745_774 * SECOND + 518_286_756, "2026-11-27T02:16:14.518286756Z"),
            (1_795_745_774 * SECOND + 600_000_000, "2026-11-27T02:16:14.6Z"),
            (4_102_444_799 * SECOND, "2099-12-31T23:59:59Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(shown(Timestamp(nanos)), text);
        }
    }
}
