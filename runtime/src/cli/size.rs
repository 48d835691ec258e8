//! Sizes and durations as Go's flags take them.

use std::time::Duration;

/// Bytes as `update` takes them: `512`, `512m`, `1.5 GiB`, `1gb`; binary multiples always. `None` for anything else.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if !number.starts_with(|c: char| c.is_ascii_digit()) || number.ends_with('.') {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let exponent = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "saturates, as a limit above the type's is no limit")]
    let bytes = (number * 1024_f64.powi(exponent)) as i64;
    Some(bytes)
}

/// A Go duration: decimal numbers with units, as `5s`, `1m30s`, `1.5h`, `100ms`. `None` for anything else, and for what
/// is negative.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (value, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += value.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_whatever_the_unit_says() {
        for (text, wanted) in [
            ("512", Some(512)),
            ("512b", Some(512)),
            ("1k", Some(1024)),
            ("32M", Some(32 << 20)),
            ("1gb", Some(1 << 30)),
            ("1 GiB", Some(1 << 30)),
            ("1.5m", Some(1_572_864)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("m", None),
            ("1x", None),
            ("1.m", None),
            (".5m", None),
            ("1  g", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, wanted) in [
            ("5s", Some(5_000)),
            ("1m30s", Some(90_000)),
            ("100ms", Some(100)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("5", None),
            ("s", None),
            ("", None),
            ("-5s", None),
            ("1y", None),
        ] {
            assert_eq!(duration(text), wanted.map(Duration::from_millis), "{text:?}");
        }
    }
}
