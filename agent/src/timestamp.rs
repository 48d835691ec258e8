//! Moments as Docker writes them: RFC 3339 in UTC with up to nine digits behind the second, `0001-01-01T00:00:00Z` for never.
//!
//! A calendar crate is not needed for the one zone and the one format; parsing takes any zone, as Go does.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::zone;

const DAY: i64 = 86_400;
const SECOND: u32 = 1_000_000_000;

/// A moment: seconds since 1970, and nanoseconds below 1e9 on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// Go's zero time: what has not happened.
    pub const NEVER: Self = Self { seconds: -62_135_596_800, nanos: 0 };

    /// Now.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Of seconds since 1970, and nanoseconds, which may be more than a second.
    #[must_use]
    pub fn new(seconds: i64, nanos: u32) -> Self {
        Self { seconds: seconds.saturating_add(i64::from(nanos / SECOND)), nanos: nanos % SECOND }
    }

    /// Of nanoseconds since 1970.
    #[must_use]
    pub fn of_nanos(nanos: i64) -> Self {
        let below = nanos.rem_euclid(i64::from(SECOND));
        Self { seconds: nanos.div_euclid(i64::from(SECOND)), nanos: u32::try_from(below).unwrap_or_default() }
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds since 1970; the nearest for times that do not fit.
    #[must_use]
    pub const fn nanos(self) -> i64 {
        self.seconds.saturating_mul(SECOND as i64).saturating_add(self.nanos as i64)
    }

    /// The time from `earlier` to this; zero when that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = i128::from(self.seconds - earlier.seconds) * i128::from(SECOND) + i128::from(self.nanos)
            - i128::from(earlier.nanos);
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }

    /// With all nine digits, as `docker logs --timestamps` shows.
    #[must_use]
    pub fn padded(self) -> String {
        let (year, month, day) = civil(self.seconds.div_euclid(DAY));
        let second = self.seconds.rem_euclid(DAY);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            self.nanos
        )
    }

    /// Of RFC 3339, in any zone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| {
            text.get(range).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?.parse().ok()
        };
        let mark =
            |index: usize, marks: &[u8]| text.as_bytes().get(index).is_some_and(|byte| marks.contains(byte));
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second): (i64, i64, i64) = (number(11..13)?, number(14..16)?, number(17..19)?);
        let marked = mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":");
        if !marked || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let rest = text.get(19..)?;
        let (fraction, zone) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", rest),
        };
        let nanos = format!("{:0<9}", fraction.get(..fraction.len().min(9))?).parse().ok()?;
        let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset(zone)?;
        Some(Self { seconds, nanos })
    }

    /// Of a filter's `until`: how long ago as `24h`, RFC 3339 with a date at least, or seconds since 1970.
    ///
    /// # Errors
    /// It is none of them: dockerd's text.
    pub fn of_filter(text: &str, now: Self) -> Result<Self> {
        if let Some(ago) = ago(text) {
            let ago = Duration::from_nanos(ago);
            return Ok(Self::new(now.seconds - i64::try_from(ago.as_secs()).unwrap_or(i64::MAX), now.nanos));
        }
        // A date's missing parts are zero, and its zone is the one that the daemon has now.
        let full = format!("{text}{}", "0000-01-01T00:00:00Z".get(text.len()..).unwrap_or_default());
        let local = || [format!("{text}Z"), full].iter().find_map(|text| Self::parse(text));
        let here = |time: Self| Self { seconds: time.seconds - zone::offset_at(now.seconds), ..time };
        Self::parse(text)
            .or_else(|| local().map(here))
            .or_else(|| Self::of_query(text).ok())
            .ok_or_else(|| Error::invalid(format!("failed to parse value as time or duration: {text:?}")))
    }

    /// Of a query's `since` or `until`: seconds since 1970, with a fraction or without.
    ///
    /// # Errors
    /// It is neither: Go's text, which dockerd shows.
    pub fn of_query(text: &str) -> Result<Self> {
        let refused =
            |part: &str| Error::invalid(format!("strconv.ParseInt: parsing \"{part}\": invalid syntax"));
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = fraction.get(..fraction.len().min(9)).unwrap_or_default();
        if fraction.bytes().any(|byte| !byte.is_ascii_digit()) {
            return Err(refused(fraction));
        }
        let nanos = format!("{digits:0<9}").parse().map_err(|_| refused(fraction))?;
        Ok(Self { seconds: seconds.parse().map_err(|_| refused(seconds))?, nanos })
    }
}

/// The nanoseconds of a duration as Go writes it: `1h30m`, `1.5h`, `300ms`.
fn ago(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
    let mut rest = text;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let (number, behind) =
            rest.split_at(rest.find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))?);
        let (unit, behind) =
            behind.split_at(behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len()));
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos += number.parse::<f64>().ok()? * factor;
        rest = behind;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a sum of numbers without a sign; it saturates"
    )]
    (!text.is_empty()).then_some(nanos as u64)
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
}

/// Days since 1970 of a date in the proleptic Gregorian calendar; years begin in March, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970.
fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carried) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carried, month, day)
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self {
                seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanos: since.subsec_nanos(),
            },
            Err(before) => {
                let nanos = i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX);
                Self::of_nanos(-nanos)
            }
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let padded = self.padded();
        let digits = padded.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
        // Zeros of the seconds are none of the fraction's.
        write!(formatter, "{}Z", if self.nanos == 0 { &padded[..19] } else { digits })
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::NEVER
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format_args!("no RFC 3339 time: {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_again() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_827_696, 120_000_000, "2000-02-29T12:34:56.12Z"),
            (1_795_683_600, 1, "2026-11-26T09:00:00.000000001Z"),
            (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(time.to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(time), "{text}");
        }
        assert_eq!(Timestamp::NEVER.padded(), "0001-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn zones_and_nonsense() {
        assert_eq!(Timestamp::parse("1970-01-01T01:00:00+01:00"), Some(Timestamp::new(0, 0)));
        assert_eq!(Timestamp::parse("1969-12-31T18:30:00.5-05:30"), Some(Timestamp::new(0, 500_000_000)));
        for bad in
            ["", "now", "1970-01-01", "1970-13-01T00:00:00Z", "1970-01-01T00:00:00", "1970-01-01T0:00:00Z"]
        {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn of_queries() {
        assert_eq!(Timestamp::of_query("12").ok(), Some(Timestamp::new(12, 0)));
        assert_eq!(Timestamp::of_query("12.000000005").ok(), Some(Timestamp::new(12, 5)));
        assert_eq!(Timestamp::of_query("12.5").ok(), Some(Timestamp::new(12, 500_000_000)));
        let error = Timestamp::of_query("soon").unwrap_err();
        assert_eq!(error.message, "strconv.ParseInt: parsing \"soon\": invalid syntax");
    }

    #[test]
    fn arithmetic() {
        let (early, late) = (Timestamp::new(1, 900_000_000), Timestamp::new(3, 100_000_000));
        assert_eq!(late.since(early), Duration::from_millis(1200));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(Timestamp::of_nanos(-1), Timestamp { seconds: -1, nanos: 999_999_999 });
        assert_eq!(Timestamp::of_nanos(1_500_000_000).nanos(), 1_500_000_000);
    }
}
