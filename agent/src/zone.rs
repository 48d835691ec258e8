//! How far the daemon's own zone is from UTC now: TZ, or /etc/localtime, as Go and the C library read them. Called by `timestamp`, for
//! times that a client writes without a zone.
//!
//! Files of zoneinfo (RFC 9636) name the moments of the past, and end with a rule for what comes after them; TZ may be such a rule.

use std::path::{Path, PathBuf};

/// What may be read of a file; the largest there is has 4 KiB.
const LARGEST: u64 = 1 << 20;
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/usr/share/lib/zoneinfo"];
const DAY: i64 = 86_400;

/// Seconds east of UTC at a moment, in seconds since 1970; UTC where nothing is said, or nothing that can be read.
pub(crate) fn offset_at(now: i64) -> i64 {
    let said = std::env::var("TZ").ok();
    let read = |path: &Path| -> Option<i64> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let _count = std::fs::File::open(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
        of_file(&bytes, now)
    };
    let found = match said.as_deref() {
        None => read(Path::new("/etc/localtime")),
        Some("") => None,
        Some(text) => {
            let name = text.strip_prefix(':').unwrap_or(text);
            let paths: Vec<PathBuf> = match name.strip_prefix('/') {
                Some(_) => vec![name.into()],
                None => FOLDERS.iter().map(|folder| Path::new(folder).join(name)).collect(),
            };
            paths.iter().find_map(|path| read(path)).or_else(|| of_rule(text, now))
        }
    };
    found.unwrap_or(0)
}

/// A file's numbers are big endian. The second of its two parts has moments of 64 bits.
fn of_file(bytes: &[u8], now: i64) -> Option<i64> {
    let first = Header::read(bytes)?;
    if bytes[4] == 0 {
        return first.find(bytes.get(44..)?, 4, now, None);
    }
    let second = bytes.get(44 + first.length(4)..)?;
    let header = Header::read(second)?;
    let rule = second.get(44 + header.length(8)..).and_then(|rest| {
        let text = std::str::from_utf8(rest).ok()?.strip_prefix('\n')?;
        Some(text.split('\n').next()?.to_owned())
    });
    header.find(second.get(44..)?, 8, now, rule.as_deref())
}

struct Header {
    universal: usize,
    standard: usize,
    leaps: usize,
    times: usize,
    types: usize,
    letters: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.strip_prefix(b"TZif")?;
        let number = |index: usize| -> Option<usize> {
            let at = 20 + index * 4;
            usize::try_from(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
        };
        Some(Self {
            universal: number(0)?,
            standard: number(1)?,
            leaps: number(2)?,
            times: number(3)?,
            types: number(4)?,
            letters: number(5)?,
        })
    }

    fn length(&self, width: usize) -> usize {
        self.times * (width + 1)
            + self.types * 6
            + self.letters
            + self.leaps * (width + 4)
            + self.standard
            + self.universal
    }

    fn find(&self, body: &[u8], width: usize, now: i64, rule: Option<&str>) -> Option<i64> {
        let moment = |index: usize| -> Option<i64> {
            let bytes = body.get(index * width..(index + 1) * width)?;
            match width {
                4 => Some(i32::from_be_bytes(bytes.try_into().ok()?).into()),
                _ => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
            }
        };
        let offset = |kind: usize| -> Option<i64> {
            let at = self.times * (width + 1) + kind * 6;
            Some(i32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?).into())
        };
        let mut before = 0;
        while before < self.times && moment(before)? <= now {
            before += 1;
        }
        if before == self.times
            && let Some(found) = rule.and_then(|rule| of_rule(rule, now))
        {
            return Some(found);
        }
        match before.checked_sub(1) {
            Some(last) => offset((*body.get(self.times * width + last)?).into()),
            None => offset(0),
        }
    }
}

/// POSIX's TZ: `CET-1CEST,M3.5.0,M10.5.0/3`.
fn of_rule(text: &str, now: i64) -> Option<i64> {
    let mut rest = Rest(text);
    rest.name()?;
    let standard = -rest.time()?;
    if rest.0.is_empty() {
        return Some(standard);
    }
    rest.name()?;
    let summer = if rest.0.is_empty() || rest.0.starts_with(',') { standard + 3600 } else { -rest.time()? };
    // The rules of the United States, where none are given.
    let mut given = Rest(if rest.0.is_empty() { ",M3.2.0,M11.1.0" } else { rest.0 });
    let year = year_of(now + standard);
    let begin = given.date(year)? - standard;
    let end = given.date(year)? - summer;
    let is_summer = if begin < end { (begin..end).contains(&now) } else { !(end..begin).contains(&now) };
    Some(if is_summer { summer } else { standard })
}

/// What is still to be read of a rule.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn take(&mut self, such: impl Fn(u8) -> bool) -> &str {
        let count = self.0.bytes().take_while(|byte| such(*byte)).count();
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn mark(&mut self, mark: char) -> Option<()> {
        self.0 = self.0.strip_prefix(mark)?;
        Some(())
    }

    fn name(&mut self) -> Option<()> {
        if self.mark('<').is_some() {
            let _name = self.take(|byte| byte != b'>');
            return self.mark('>');
        }
        (self.take(|byte| byte.is_ascii_alphabetic()).len() >= 3).then_some(())
    }

    fn number(&mut self) -> Option<i64> {
        self.take(|byte| byte.is_ascii_digit()).parse().ok().filter(|number| *number < 1000)
    }

    /// Hours, minutes, seconds.
    fn time(&mut self) -> Option<i64> {
        let sign = if self.mark('-').is_some() { -1 } else { 1 };
        let _plus = self.mark('+');
        let mut seconds = self.number()? * 3600;
        for unit in [60, 1] {
            if self.mark(':').is_some() {
                seconds += self.number()? * unit;
            }
        }
        Some(sign * seconds)
    }

    /// A moment of the year, in local seconds since 1970.
    fn date(&mut self, year: i64) -> Option<i64> {
        self.mark(',')?;
        let first = days_before(year);
        let leap = i64::from(days_before(year + 1) - first == 366);
        let day = if self.mark('M').is_some() {
            let month = self.number().filter(|month| (1..=12).contains(month))?;
            self.mark('.')?;
            let week = self.number().filter(|week| (1..=5).contains(week))?;
            self.mark('.')?;
            let weekday = self.number().filter(|day| *day < 7)?;
            let lengths = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let index = usize::try_from(month - 1).ok()?;
            let start = first + lengths[..index].iter().sum::<i64>();
            // The first of January 1970 was a Thursday.
            let ahead = (weekday - (start + 4)).rem_euclid(7);
            let mut day = ahead + (week - 1) * 7;
            if day >= lengths[index] {
                day -= 7;
            }
            start + day
        } else if self.mark('J').is_some() {
            let day = self.number()?;
            first + day - 1 + if day >= 60 { leap } else { 0 }
        } else {
            first + self.number()?
        };
        let time = if self.mark('/').is_some() { self.time()? } else { 2 * 3600 };
        Some(day * DAY + time)
    }
}

/// Days from 1970 to the first of a year's.
fn days_before(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
}

fn year_of(seconds: i64) -> i64 {
    let day = seconds.div_euclid(DAY);
    let mut year = 1970 + day.div_euclid(366);
    while days_before(year + 1) <= day {
        year += 1;
    }
    while days_before(year) > day {
        year -= 1;
    }
    year
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-07-01, 2026-11-26 and the moments of a change.
    const JULY: i64 = 1_782_864_000;
    const NOVEMBER: i64 = 1_795_651_200;

    #[test]
    fn rules() {
        let berlin = |now| of_rule("CET-1CEST,M3.5.0,M10.5.0/3", now);
        assert_eq!((berlin(JULY), berlin(NOVEMBER)), (Some(7200), Some(3600)));
        // 2026-03-29 and 2026-10-25, 01:00 UTC.
        assert_eq!((berlin(1_774_745_999), berlin(1_774_746_000)), (Some(3600), Some(7200)));
        assert_eq!((berlin(1_792_889_999), berlin(1_792_890_000)), (Some(7200), Some(3600)));
        let south = |now| of_rule("AEST-10AEDT,M10.1.0,M4.1.0/3", now);
        assert_eq!((south(JULY), south(NOVEMBER)), (Some(36_000), Some(39_600)));
        assert_eq!(of_rule("<+0330>-3:30", JULY), Some(12_600));
        assert_eq!(of_rule("EST5EDT", JULY), Some(-14_400));
        assert_eq!(of_rule("UTC0", JULY), Some(0));
        assert_eq!(of_rule("XXX5YYY,J60/0,J300/0", NOVEMBER), Some(-18_000));
        for bad in ["", "Europe/Nowhere", "CET", "CET-1CEST,M13.1.0,M1.1.0"] {
            assert_eq!(of_rule(bad, JULY), None, "{bad}");
        }
    }

    #[test]
    fn files() {
        let header = |times: u32, types: u32, letters: u32| {
            let mut bytes = b"TZif2".to_vec();
            bytes.extend([0; 15]);
            for number in [0, 0, 0, times, types, letters] {
                bytes.extend(u32::to_be_bytes(number));
            }
            bytes
        };
        let kinds = |offsets: [i32; 2]| {
            offsets
                .iter()
                .flat_map(|offset| [&offset.to_be_bytes()[..], &[0, 0]].concat())
                .collect::<Vec<u8>>()
        };
        let mut file = header(0, 1, 1);
        file.extend([0; 7]);
        file.extend(header(2, 2, 4));
        for moment in [0_i64, JULY] {
            file.extend(moment.to_be_bytes());
        }
        file.extend([1, 0]);
        file.extend(kinds([100, 200]));
        file.extend(b"AAA\0");
        let without = file.clone();
        file.extend(b"\nCET-1\n");
        assert_eq!(
            (of_file(&file, -1), of_file(&file, 1), of_file(&file, JULY)),
            (Some(100), Some(200), Some(3600))
        );
        assert_eq!(of_file(&without, JULY), Some(100));
        for length in 0..file.len() {
            let _any = of_file(&file[..length], JULY);
        }
    }

    #[test]
    fn years() {
        for (seconds, year) in
            [(0, 1970), (-1, 1969), (1_767_225_599, 2025), (1_767_225_600, 2026), (4_107_542_400, 2100)]
        {
            assert_eq!(year_of(seconds), year);
        }
    }
}
