//! Cron expressions: five fields, and the moments at which a zone's clock shows them.
//!
//! `minute hour day-of-month month day-of-week`, each `*`, a number, a range `a-b`, any of these with `/step`, or a list of such.
//! Months and days of the week may be named; 0 and 7 are Sunday. When both days are restricted, either of them is enough, as
//! in every cron since 1987. `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly` and `@annually` stand for what they say.
//!
//! When a clock is set forward, what was due in the hour that there is not is due when that hour would have begun, once. When
//! it is set back, an hour comes twice: what runs at certain hours is due the first time only; what runs in every hour, in both.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// From any day to the next 29 February, the year 2100 between.
const MOST_DAYS: usize = 8 * 366 + 2;

const MINUTE: SignedDuration = SignedDuration::from_secs(60);

const ALL_HOURS: u64 = (1 << 24) - 1;

/// The set bits of each field are its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
    day: Day,
}

/// Which days are meant by the two fields of days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Day {
    /// At most one field is restricted.
    Both,
    Either,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// From `first` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of the month", first: 1, last: 31, names: &[] },
    Field {
        name: "month",
        first: 1,
        last: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Field {
        name: "day of the week",
        first: 0,
        last: 7,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

impl Cron {
    /// Or why it is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = expanded(text).split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "{text:?} has {} fields, and not the five of a cron expression",
                fields.len()
            ));
        };
        let [minutes, hours, days, months, weekdays] = FIELDS;
        let weekdays = weekdays.bits(weekday)?;
        let both_restricted = !day.starts_with('*') && !weekday.starts_with('*');
        let cron = Self {
            minutes: minutes.bits(minute)?,
            hours: hours.bits(hour)?,
            days: days.bits(day)?,
            months: months.bits(month)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            day: if both_restricted { Day::Either } else { Day::Both },
        };
        match cron.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC) {
            Some(_) => Ok(cron),
            None => Err(format!("{text:?} is a day that never comes")),
        }
    }

    /// The first moment after that one at which the zone's clock comes to what the fields say.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.hours == ALL_HOURS { self.next_by_time(after, zone) } else { self.next_by_clock(after, zone) }
    }

    /// Minute by minute of the time that passes: an hour that comes twice counts twice.
    fn next_by_time(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let whole = after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let mut moment = Timestamp::from_second(whole).ok()?;
        let mut days = 0;
        while days < MOST_DAYS {
            let shown = zone.to_datetime(moment);
            let has_day = self.has_day(shown.date());
            if has_day && has(self.minutes, shown.minute()) {
                return Some(moment);
            }
            let midnight = moment_of(shown.date().tomorrow().ok()?.at(0, 0, 0, 0), zone)?;
            // Where a clock is set back at midnight, that has been already.
            if !has_day && midnight > moment {
                days += 1;
                moment = midnight;
            } else {
                moment = moment.checked_add(MINUTE).ok()?;
            }
        }
        None
    }

    /// Time by time of the clock: each is one moment.
    fn next_by_clock(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let shown = zone.to_datetime(after);
        let mut date = shown.date();
        // Of the first day only what is not past.
        let mut from = (shown.hour(), shown.minute());
        for _ in 0..MOST_DAYS {
            if self.has_day(date) {
                let times = self.times().filter(|time| *time >= from);
                let mut moments =
                    times.filter_map(|(hour, minute)| moment_of(date.at(hour, minute, 0, 0), zone));
                if let Some(due) = moments.find(|moment| *moment > after) {
                    return Some(due);
                }
            }
            date = date.tomorrow().ok()?;
            from = (0, 0);
        }
        None
    }

    fn times(&self) -> impl Iterator<Item = (i8, i8)> {
        let hours = (0..24).filter(|hour| has(self.hours, *hour));
        hours.flat_map(|hour| {
            (0..60).filter(|minute| has(self.minutes, *minute)).map(move |minute| (hour, minute))
        })
    }

    fn has_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month())
            && match self.day {
                Day::Both => day && weekday,
                Day::Either => day || weekday,
            }
    }
}

/// When the zone's clock comes to show that: the first time, if twice; when it jumps over it, if never.
fn moment_of(shown: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    let is_jumped_over = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
    let earlier = ambiguous.earlier().ok()?;
    if is_jumped_over { zone.following(earlier).next().map(|jump| jump.timestamp()) } else { Some(earlier) }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

fn expanded(text: &str) -> &str {
    match text.trim() {
        "@hourly" => "0 * * * *",
        "@daily" | "@midnight" => "0 0 * * *",
        "@weekly" => "0 0 * * 0",
        "@monthly" => "0 0 1 * *",
        "@yearly" | "@annually" => "0 0 1 1 *",
        other => other,
    }
}

impl Field {
    fn bits(&self, text: &str) -> Result<u64, String> {
        let wrong = |part: &str| {
            let (first, last) = (self.first, self.last);
            format!(
                "the {} {part:?} is neither *, nor a number from {first} to {last}, nor a range of such",
                self.name
            )
        };
        let mut bits = 0;
        for part in text.split(',') {
            bits |= self.part(part).ok_or_else(|| wrong(part))?;
        }
        Ok(bits)
    }

    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|step| *step > 0)?)),
            None => (text, None),
        };
        let (first, last) = match (range, range.split_once('-')) {
            ("*", _) => (self.first, self.last),
            (_, Some((first, last))) => (self.value(first)?, self.value(last)?),
            // From there on, when there is a step.
            (one, None) => (self.value(one)?, if step.is_some() { self.last } else { self.value(one)? }),
        };
        let steps = (first..=last).step_by(usize::try_from(step.unwrap_or(1)).ok()?);
        (first <= last).then(|| steps.fold(0, |bits, value| bits | 1 << value))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().zip(self.first..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        let value = named.map(|(_, value)| value).or_else(|| number(text))?;
        (self.first..=self.last).contains(&value).then_some(value)
    }
}

/// Digits only.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
