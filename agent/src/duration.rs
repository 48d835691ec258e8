//! Times as Go reads them, which Docker's files and clients write.

use crate::dockerfile::words::quoted;

/// Go's durations, in nanoseconds: `1m30s`, `1.5h`, `-1s`, `0`.
///
/// # Errors
/// It is none: Go's words.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quoted(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut sum = 0_f64;
    while !rest.is_empty() {
        let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
        let end = rest.find(|letter| !is_number(letter)).unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| invalid())?;
        rest = &rest[end..];
        let end = rest.find(is_number).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration {}", quoted(text))),
            other => {
                return Err(format!("time: unknown unit {} in duration {}", quoted(other), quoted(text)));
            }
        };
        rest = &rest[end..];
        sum += number * unit;
    }
    #[expect(clippy::cast_possible_truncation, reason = "what is too large saturates")]
    let time = sum.round() as i64;
    if time == i64::MAX {
        return Err(invalid());
    }
    Ok(if negative { -time } else { time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_none_is_told_in_gos_words() {
        assert_eq!(parse("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        assert_eq!(parse("x").unwrap_err(), "time: invalid duration \"x\"");
    }
}
