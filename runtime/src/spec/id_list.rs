//! Lists of CPU and NUMA node numbers in the kernel's list format (`0-3,7`, see cpuset(7)).

use std::ops::RangeInclusive;

use super::error::IdListError;

/// The largest number that a list may hold; runc's bound, far beyond what any kernel can be built for.
pub const MAX: u32 = 64 * 1024;

/// Parses a list; an empty text is an empty list. Spaces around the parts and empty parts are tolerated.
///
/// # Errors
/// A part that is no number or range, a number beyond [`MAX`], a list of nothing but commas.
pub fn parse(list: &str) -> Result<Vec<RangeInclusive<u32>>, IdListError> {
    let mut ranges = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(IdListError::Range { range: part.to_owned() });
        }
        ranges.push(first..=last);
    }
    if ranges.is_empty() && !list.is_empty() {
        return Err(IdListError::Empty { list: list.to_owned() });
    }
    Ok(ranges)
}

/// How many different numbers a parsed list holds.
#[must_use]
pub fn count(ranges: &[RangeInclusive<u32>]) -> usize {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| *range.start());
    let mut next = 0_u32;
    let mut count = 0;
    for range in sorted {
        let first = next.max(*range.start());
        if first <= *range.end() {
            count += (*range.end() - first + 1) as usize;
            next = *range.end() + 1;
        }
    }
    count
}

fn number(part: &str) -> Result<u32, IdListError> {
    // Signs are refused, as in Go's ParseUint.
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = digits
        .then(|| part.parse().ok())
        .flatten()
        .ok_or_else(|| IdListError::Number { part: part.to_owned() })?;
    if number > MAX { Err(IdListError::TooLarge { max: MAX }) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_runc_reads_them() {
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse(" 0-3, 7 ,,").unwrap(), [0..=3, 7..=7]);
        assert_eq!(count(&parse("0-3,2-5,9,9").unwrap()), 7);
        assert_eq!(count(&parse("0-65536").unwrap()), 65537);
        assert_eq!(parse(",,").unwrap_err().to_string(), "no members found in set \",,\"");
        assert_eq!(parse("3-1").unwrap_err().to_string(), "invalid range: 3-1");
        assert_eq!(parse("65537").unwrap_err().to_string(), "values larger than 65536 are not supported");
        for bad in ["a", "-1", "1-", "+1", "0-9876543210", "1-2-3"] {
            assert!(matches!(parse(bad), Err(IdListError::Number { .. })), "{bad}");
        }
    }
}
