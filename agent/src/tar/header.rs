//! The 512 bytes in front of each member.

use std::io::{Error, ErrorKind, Result};

use super::BLOCK;

/// Where a field is.
pub(super) type Field = std::ops::Range<usize>;

pub(super) const NAME: Field = 0..100;
pub(super) const MODE: Field = 100..108;
pub(super) const UID: Field = 108..116;
pub(super) const GID: Field = 116..124;
pub(super) const SIZE: Field = 124..136;
pub(super) const MTIME: Field = 136..148;
pub(super) const CHECKSUM: Field = 148..156;
pub(super) const TYPE: usize = 156;
pub(super) const LINK: Field = 157..257;
pub(super) const MAGIC: Field = 257..265;
pub(super) const MAJOR: Field = 329..337;
pub(super) const MINOR: Field = 337..345;
pub(super) const PREFIX: Field = 345..500;
/// GNU's sparse map: four pairs of twelve digits.
pub(super) const SPARSE: Field = 386..482;
pub(super) const SPARSE_CONTINUES: usize = 482;
pub(super) const REAL_SIZE: Field = 483..495;

/// A refused archive.
pub(super) fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed tar: {what}"))
}

/// One header.
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Whether the sum is right; some writers summed signed bytes.
    pub(super) fn check(&self) -> Result<()> {
        let stated = number(&self.0[CHECKSUM])?;
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (index, byte) in self.0.iter().enumerate() {
            let byte = if CHECKSUM.contains(&index) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated == unsigned || stated == signed { Ok(()) } else { Err(malformed("a wrong checksum")) }
    }

    pub(super) fn text(&self, field: Field) -> Vec<u8> {
        let bytes = &self.0[field];
        bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    }

    pub(super) fn is_posix(&self) -> bool {
        self.0[MAGIC].starts_with(b"ustar\0")
    }

    pub(super) fn size(&self, field: Field) -> Result<u64> {
        u64::try_from(number(&self.0[field])?).map_err(|_| malformed("a negative number"))
    }

    pub(super) fn id(&self, field: Field) -> Result<u32> {
        u32::try_from(number(&self.0[field])?).map_err(|_| malformed("an id out of range"))
    }
}

/// Octal digits, or GNU's base 256, whose first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64> {
    let Some((&first, rest)) = field.split_first() else { return Ok(0) };
    if first & 0x80 != 0 {
        // The sign is the next bit.
        let mut value: i64 = if first & 0x40 != 0 { -1 } else { 0 };
        value = (value << 6) | i64::from(first & 0x3f);
        for byte in rest {
            if !(-(1 << 55)..1 << 55).contains(&value) {
                return Err(malformed("a number out of range"));
            }
            value = (value << 8) | i64::from(*byte);
        }
        return Ok(value);
    }
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut value = 0_i64;
    for digit in digits.trim_ascii() {
        if !(b'0'..=b'7').contains(digit) {
            return Err(malformed("a number with other than octal digits"));
        }
        value = value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(digit - b'0')))
            .ok_or_else(|| malformed("a number out of range"))?;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 2, 0, 0, 0]).unwrap(), 2 << 24);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert!(number(b"9").is_err());
        assert!(number(&[0xbf, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
    }
}
