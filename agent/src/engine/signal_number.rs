//! Signals by name and number, as requests and Dockerfiles give them. Pure.

use crate::error::{Error, Result};

const NAMES: [(&str, u32); 34] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// The number of a signal given as `SIGTERM`, `term` or `15`.
///
/// # Errors
/// There is none: dockerd's text.
pub fn number(text: &str) -> Result<u32> {
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return match number {
            0 => Err(invalid()),
            1..=64 => Ok(number),
            _ => Err(Error::invalid(format!("the linux daemon does not support signal {number}"))),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: u32, rest: &str, sign: i64| {
        let offset = if rest.is_empty() { 0 } else { rest[1..].parse::<i64>().ok()? };
        u32::try_from(i64::from(base) + sign * offset).ok().filter(|number| (34..=64).contains(number))
    };
    let found = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => real_time(34, rest, 1),
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => real_time(64, rest, -1),
        _ => NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
    };
    found.ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, signal) in [("SIGTERM", 15), ("kill", 9), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)] {
            assert_eq!(number(text).unwrap(), signal, "{text}");
        }
        for bad in ["", "0", "SIGNOPE", "RTMIN+40", "RTMIN3"] {
            assert_eq!(number(bad).unwrap_err().message, format!("invalid signal: {bad}"));
        }
    }
}
