//! PAX records: `length key=value\n`, which overrule the header that follows them.

use std::io::Result;

use super::header::malformed;

/// As much as one member may have, in bytes: names and attributes are far smaller.
pub(super) const LIMIT: u64 = 1 << 20;

/// What a member's records say.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ');
            let space = space.ok_or_else(|| malformed("a PAX record without a length"))?;
            let length = decimal(&bytes[..space]).ok_or_else(|| malformed("a PAX record's length"))?;
            let length = usize::try_from(length).map_err(|_| malformed("a PAX record's length"))?;
            let record = bytes
                .get(space + 1..length)
                .and_then(|record| record.strip_suffix(b"\n"))
                .ok_or_else(|| malformed("a PAX record's end"))?;
            let equals = record.iter().position(|byte| *byte == b'=');
            let equals = equals.ok_or_else(|| malformed("a PAX record without a key"))?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Ok(Self(records))
    }

    /// The last value of a key; a name may not hold a NUL.
    pub(super) fn text(&self, key: &str) -> Result<Option<&[u8]>> {
        let found = self.0.iter().rev().find(|(name, _)| name == key.as_bytes());
        match found {
            Some((_, value)) if value.contains(&0) => Err(malformed("a NUL in a PAX record")),
            found => Ok(found.map(|(_, value)| value.as_slice())),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        self.text(key)?
            .map(|value| decimal(value).ok_or_else(|| malformed("a number in a PAX record")))
            .transpose()
    }

    /// `seconds[.fraction]`, maybe negative.
    pub(super) fn time(&self, key: &str) -> Result<Option<(i64, u32)>> {
        let Some(value) = self.text(key)? else { return Ok(None) };
        let wrong = || malformed("a time in a PAX record");
        let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
        let mut parts = value.splitn(2, |byte| *byte == b'.');
        let whole = parts.next().and_then(decimal).and_then(|whole| i64::try_from(whole).ok());
        let mut seconds = whole.ok_or_else(wrong)?;
        let mut nanoseconds = 0;
        let fraction = parts.next().unwrap_or_default();
        for place in 0..9 {
            let digit = fraction.get(place).copied().unwrap_or(b'0');
            if !digit.is_ascii_digit() {
                return Err(wrong());
            }
            nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
        }
        if negative {
            seconds = -seconds;
            if nanoseconds > 0 {
                seconds -= 1;
                nanoseconds = 1_000_000_000 - nanoseconds;
            }
        }
        Ok(Some((seconds, nanoseconds)))
    }

    /// Every record in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

/// Decimal digits, at least one.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// One record, whose length counts its own digits.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_written() {
        for length in [0, 1, 80, 88, 89, 90, 91, 985, 986, 987, 988, 5000] {
            let value = vec![b'v'; length];
            let bytes = [record(b"path", &value), record(b"mtime", b"-1.5")].concat();
            let records = Records::parse(&bytes).unwrap();
            assert_eq!(records.text("path").unwrap(), Some(value.as_slice()));
            assert_eq!(records.time("mtime").unwrap(), Some((-2, 500_000_000)));
        }
    }

    #[test]
    fn broken_ones_are_refused() {
        for bytes in ["x", "6 a=b", "3 a=b\n", "99 a=b\n", "6 ab\n\n", "0 a=b\n", " a=b\n"] {
            assert!(Records::parse(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        let nul = record(b"path", b"a\0b");
        assert!(Records::parse(&nul).unwrap().text("path").is_err());
    }
}
