//! The wire format of protocol buffers (protobuf.dev, "Encoding"), as far as criu's messages use it.
//!
//! Knows numbers and bytes; which field is which is `message`'s. What is read here was written by criu, or by whoever made
//! a folder of images: nothing in it is believed, and nothing in it can make this panic.

use thiserror::Error;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The message ends within a field.
    #[error("a protobuf message ends within a field")]
    Truncated,
    /// A wire type that nobody uses any more, or a field number of 0.
    #[error("a protobuf message has an impossible field")]
    BadField,
    /// A field has another type than the message defines for it.
    #[error("field {0} of a protobuf message has another type")]
    WrongType(u32),
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A message that is being written, field by field.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// The message.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// A `uint32`, `uint64`, or the number of an `enum`.
    pub fn number(&mut self, field: u32, value: u64) {
        self.raw(u64::from(field) << 3 | VARINT);
        self.raw(value);
    }

    /// An `int32`: negative ones have ten bytes.
    pub fn integer(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value).cast_unsigned());
    }

    /// A `bool`.
    pub fn switch(&mut self, field: u32, value: bool) {
        self.number(field, u64::from(value));
    }

    /// A `string` or `bytes`.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.raw(u64::from(field) << 3 | BYTES);
        self.raw(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A message within the message.
    pub fn message(&mut self, field: u32, value: Self) {
        self.bytes(field, &value.0);
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number of any kind.
    Number(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The number.
    ///
    /// # Errors
    /// [`WireError::WrongType`].
    pub fn number(self, field: u32) -> Result<u64, WireError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(WireError::WrongType(field)),
        }
    }

    /// The number as an `int32`, which is sent as 64 bits; what does not fit is cut as protobuf says.
    ///
    /// # Errors
    /// [`WireError::WrongType`].
    pub fn integer(self, field: u32) -> Result<i32, WireError> {
        let [a, b, c, d, ..] = self.number(field)?.to_le_bytes();
        Ok(i32::from_le_bytes([a, b, c, d]))
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`WireError::WrongType`].
    pub fn bytes(self, field: u32) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(WireError::WrongType(field)),
        }
    }

    /// The bytes as text; what is no UTF-8 is replaced.
    ///
    /// # Errors
    /// [`WireError::WrongType`].
    pub fn text(self, field: u32) -> Result<String, WireError> {
        Ok(String::from_utf8_lossy(self.bytes(field)?).into_owned())
    }
}

/// The fields of a message, in the order in which they were written; the last of those with one number counts.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields of `message`.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn raw(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(WireError::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::BadField)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn read(&mut self) -> Result<(u32, Value<'a>), WireError> {
        let tag = self.raw()?;
        let field = u32::try_from(tag >> 3).ok().filter(|field| *field > 0).ok_or(WireError::BadField)?;
        let little_endian = |bytes: &[u8]| {
            Value::Number(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        };
        let value = match tag & 7 {
            VARINT => Value::Number(self.raw()?),
            FIXED64 => little_endian(self.take(8)?),
            FIXED32 => little_endian(self.take(4)?),
            BYTES => {
                let length = self.raw()?;
                Value::Bytes(self.take(length)?)
            }
            _ => return Err(WireError::BadField),
        };
        Ok((field, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_err() {
            // Where the next field would begin is not known.
            self.0 = &[];
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_those_of_protobufs_own_examples() {
        let mut message = Writer::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        let mut inner = Writer::default();
        inner.number(1, 150);
        message.message(3, inner);
        message.integer(4, -2);
        message.switch(5, true);
        let wanted: &[u8] = &[
            0x08, 0x96, 0x01, 0x12, 0x07, b't', b'e', b's', b't', b'i', b'n', b'g', 0x1a, 0x03, 0x08, 0x96,
            0x01, 0x20, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x28, 0x01,
        ];
        assert_eq!(message.finish(), wanted);
        let fields: Vec<_> = Fields::of(wanted).map(Result::unwrap).collect();
        assert_eq!(fields.len(), 5);
        assert_eq!(fields[0], (1, Value::Number(150)));
        assert_eq!(fields[1].1.text(2), Ok("testing".to_owned()));
        assert_eq!(fields[3].1.integer(4), Ok(-2));
        assert_eq!(fields[0].1.bytes(1), Err(WireError::WrongType(1)));
    }

    #[test]
    fn what_is_cut_or_impossible_is_an_error() {
        let error = |bytes| Fields::of(bytes).find_map(Result::err);
        assert_eq!(error(&[0x08]), Some(WireError::Truncated));
        assert_eq!(error(&[0x12, 0x07, b't']), Some(WireError::Truncated));
        assert_eq!(error(&[0x0b]), Some(WireError::BadField));
        assert_eq!(error(&[0x00, 0x00]), Some(WireError::BadField));
        assert_eq!(
            error(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
            Some(WireError::BadField)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (field, value) in Fields::of(&bytes).flatten() {
                let _ = (value.integer(field), value.text(field));
            }
        }
    }
}
