//! Sizes as people write them: `10m`, `1.5 GiB`. Docker reads the letters as powers of 1000 in some places, of 1024 in others.

use crate::error::{Error, Result};

/// Bytes of a size whose letters are powers of 1000: log files.
///
/// # Errors
/// It is no size: dockerd's text.
pub fn decimal(text: &str) -> Result<u64> {
    bytes(text, 1000.0)
}

/// Bytes of a size whose letters are powers of 1024: memory.
///
/// # Errors
/// It is no size: dockerd's text.
pub fn binary(text: &str) -> Result<u64> {
    bytes(text, 1024.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "fractions of bytes are none; not negative"
)]
fn bytes(text: &str, base: f64) -> Result<u64> {
    let malformed = || Error::invalid(format!("invalid size: '{text}'"));
    let digits = text.rfind(|character: char| character.is_ascii_digit() || ". ".contains(character));
    let (number, suffix) = text.split_at(digits.map_or(0, |last| last + 1));
    // A blank may part the number from its letters, and nothing else.
    let number = number.strip_suffix(' ').unwrap_or(number);
    let number: f64 = number.parse().map_err(|_| malformed())?;
    if !(number.is_finite() && number >= 0.0) {
        return Err(malformed());
    }
    let suffix = suffix.to_ascii_lowercase();
    let (letter, rest) = suffix.split_at(suffix.len().min(1));
    let power = match (letter, rest) {
        ("" | "b", "") => 0,
        (letter, "" | "b" | "ib") => match letter {
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return Err(Error::invalid(format!("invalid suffix: '{suffix}'"))),
        },
        _ => return Err(Error::invalid(format!("invalid suffix: '{suffix}'"))),
    };
    Ok((number * base.powi(power)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_powers() {
        for (text, thousand, two) in [
            ("0", 0, 0),
            ("32", 32, 32),
            ("32b", 32, 32),
            ("10m", 10_000_000, 10 << 20),
            ("1.5 KiB", 1500, 1536),
            ("1GB", 1_000_000_000, 1 << 30),
        ] {
            assert_eq!((decimal(text).ok(), binary(text).ok()), (Some(thousand), Some(two)), "{text}");
        }
    }

    #[test]
    fn others_are_refused() {
        for text in ["", "m", "-1m", "x10", "1 0m", "10x", "10mx", "10mib9", "1e400"] {
            assert!(decimal(text).is_err(), "{text}");
        }
        assert_eq!(decimal("10x").unwrap_err().message, "invalid suffix: 'x'");
    }
}
