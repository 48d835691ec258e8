//! The shim's log: lines in the form of logrus on standard error, which the serving process has made the fifo `log` of its
//! bundle; containerd copies them to its own. Who does not read them loses them: a full fifo never holds the shim up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Writes one line.
pub(crate) fn write(level: &str, message: &str) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let line = line(since, level, message);
    let _lost = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// A fault that was survived.
pub(crate) fn warn(message: &str) {
    write("warning", message);
}

/// A fault that somebody will notice.
pub(crate) fn error(message: &str) {
    write("error", message);
}

fn line(since: Duration, level: &str, message: &str) -> String {
    let time = rfc3339(since.as_secs());
    format!("time=\"{time}\" level={level} msg={message:?} runtime=ketch\n")
}

/// Seconds since 1970 as a date in UTC, by the proleptic Gregorian calendar's cycle of 400 years.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is a year's last.
    let days = days + 719_468;
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_651_199), "2026-11-25T23:59:59Z");
    }

    #[test]
    fn a_message_stays_in_its_line() {
        let line = line(Duration::ZERO, "info", "a \"b\"\nc");
        assert_eq!(line, "time=\"1970-01-01T00:00:00Z\" level=info msg=\"a \\\"b\\\"\\nc\" runtime=ketch\n");
    }
}
