//! The bytes of values (D-Bus specification, "Marshaling"). Writes little-endian, reads both.

use super::signature::{DEPTH_LIMIT, Type};
use super::value::Value;

/// The longest message that is taken. The answers and signals of systemd that we read have some hundred bytes.
pub(super) const MESSAGE_LIMIT: usize = 4 << 20;

/// Bytes that are no message, or none that this client takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it ends too early")]
    Short,
    #[error("it is longer than {MESSAGE_LIMIT} bytes")]
    Long,
    #[error("it holds no valid {0}")]
    Invalid(&'static str),
}

/// Bytes being written.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    pub(super) bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn align(&mut self, boundary: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(boundary), 0);
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // What is longer than the limit is refused as a whole once it is complete.
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    pub(super) fn signature(&mut self, signature: &str) {
        // At most 255, as whoever made it has checked.
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(number) => self.bytes.push(*number),
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::I16(number) => self.number(number.to_le_bytes()),
            Value::U16(number) => self.number(number.to_le_bytes()),
            Value::I32(number) => self.number(number.to_le_bytes()),
            Value::U32(number) => self.number(number.to_le_bytes()),
            Value::I64(number) => self.number(number.to_le_bytes()),
            Value::U64(number) | Value::Double(number) => self.number(number.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => self.signature(text),
            Value::Variant(value) => {
                self.signature(&value.kind().to_string());
                self.value(value);
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Entry(key, value) => {
                self.align(8);
                self.value(key);
                self.value(value);
            }
            Value::Array(element, values) => {
                self.u32(0);
                let length_at = self.bytes.len() - 4;
                // The length counts from the first element, whose padding is there even if there is none.
                self.align(element.alignment());
                let start = self.bytes.len();
                values.iter().for_each(|value| self.value(value));
                let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
                self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
        }
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.bytes.extend(bytes);
    }
}

/// Which end of a number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endian {
    Little,
    Big,
}

/// Bytes being read; boundaries count from their start.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    endian: Endian,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], endian: Endian) -> Self {
        Decoder { bytes, at: 0, endian }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..length)).ok_or(WireError::Short)?;
        self.at += length;
        Ok(taken)
    }

    pub(super) fn align(&mut self, boundary: usize) -> Result<(), WireError> {
        let padding = self.take(self.at.next_multiple_of(boundary) - self.at)?;
        if padding.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(WireError::Invalid("padding")) }
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.align(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        if self.endian == Endian::Big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn length(&mut self) -> Result<usize, WireError> {
        usize::try_from(self.u32()?).map_err(|_| WireError::Long)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, WireError> {
        let text = self.take(length)?;
        if self.take(1)? != [0] || text.contains(&0) {
            return Err(WireError::Invalid("string"));
        }
        std::str::from_utf8(text).map_err(|_| WireError::Invalid("string"))
    }

    pub(super) fn signature(&mut self) -> Result<Vec<Type>, WireError> {
        let length = usize::from(self.take(1)?[0]);
        Type::parse_all(self.text(length)?).map_err(|_| WireError::Invalid("signature"))
    }

    /// One value for each type, and nothing behind them.
    pub(super) fn values(mut self, kinds: &[Type]) -> Result<Vec<Value>, WireError> {
        let values = kinds.iter().map(|kind| self.value(kind, DEPTH_LIMIT)).collect::<Result<_, _>>()?;
        if self.is_at_end() { Ok(values) } else { Err(WireError::Invalid("end")) }
    }

    /// One value, with at most `depth` variants and containers in each other.
    pub(super) fn value(&mut self, kind: &Type, depth: usize) -> Result<Value, WireError> {
        let deeper = || depth.checked_sub(1).ok_or(WireError::Invalid("depth"));
        Ok(match kind {
            Type::Byte => Value::Byte(self.take(1)?[0]),
            Type::Bool => match self.u32()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(WireError::Invalid("boolean")),
            },
            Type::I16 => Value::I16(i16::from_le_bytes(self.number()?)),
            Type::U16 => Value::U16(u16::from_le_bytes(self.number()?)),
            Type::I32 => Value::I32(i32::from_le_bytes(self.number()?)),
            Type::U32 => Value::U32(u32::from_le_bytes(self.number()?)),
            Type::I64 => Value::I64(i64::from_le_bytes(self.number()?)),
            Type::U64 => Value::U64(u64::from_le_bytes(self.number()?)),
            Type::Double => Value::Double(u64::from_le_bytes(self.number()?)),
            Type::Text | Type::Path => {
                let length = self.length()?;
                let text = self.text(length)?.to_owned();
                if *kind == Type::Text { Value::Text(text) } else { Value::Path(text) }
            }
            Type::Signature => Value::Signature(self.signature()?.iter().map(ToString::to_string).collect()),
            Type::Variant => match <[Type; 1]>::try_from(self.signature()?) {
                Ok([only]) => Value::Variant(Box::new(self.value(&only, deeper()?)?)),
                Err(_) => return Err(WireError::Invalid("variant")),
            },
            Type::Struct(fields) => {
                self.align(8)?;
                let depth = deeper()?;
                Value::Struct(fields.iter().map(|field| self.value(field, depth)).collect::<Result<_, _>>()?)
            }
            Type::Entry(key, value) => {
                self.align(8)?;
                let depth = deeper()?;
                Value::Entry(Box::new(self.value(key, depth)?), Box::new(self.value(value, depth)?))
            }
            Type::Array(element) => {
                let depth = deeper()?;
                let length = self.length()?;
                self.align(element.alignment())?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
                let end = end.ok_or(WireError::Short)?;
                let mut values = Vec::new();
                // Every element has at least a byte, so this ends.
                while self.at < end {
                    values.push(self.value(element, depth)?);
                }
                if self.at != end {
                    return Err(WireError::Invalid("array"));
                }
                Value::Array((**element).clone(), values)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> Vec<u8> {
        let value: Value = text.parse().unwrap();
        let mut encoder = Encoder::default();
        encoder.value(&value);
        let decoder = Decoder::new(&encoder.bytes, Endian::Little);
        assert_eq!(decoder.values(&[value.kind()]).unwrap(), [value], "{text}");
        encoder.bytes
    }

    #[test]
    fn values_have_the_specifications_bytes() {
        assert_eq!(round("uint32 258"), [2, 1, 0, 0]);
        assert_eq!(round("'hi'"), [2, 0, 0, 0, b'h', b'i', 0]);
        assert_eq!(round("true"), [1, 0, 0, 0]);
        assert_eq!(round("<byte 7>"), [1, b'y', 0, 7]);
        // The length of an array leaves out the padding before its first element.
        assert_eq!(round("[uint64 1]"), [8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(round("@at []"), [0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(round("signature 'a(ss)'"), [5, b'a', b'(', b's', b's', b')', 0]);
        round("[('/dev/null', 'rw'), ('char-*', 'm')]");
        round("{'a': <[1, 2]>, 'b': <'x'>}");
    }

    #[test]
    fn big_endian_is_read() {
        let bytes = [0, 0, 0, 2, b'h', b'i', 0, 0, 0, 0, 1, 2];
        let values = Decoder::new(&bytes, Endian::Big).values(&[Type::Text, Type::U32]).unwrap();
        assert_eq!(values, [Value::text("hi"), Value::U32(258)]);
    }

    #[test]
    fn broken_bytes_are_refused() {
        let refused = |kind: Type, bytes: &[u8]| {
            Decoder::new(bytes, Endian::Little).values(&[kind]).unwrap_err().to_string()
        };
        assert_eq!(refused(Type::U32, &[1, 2, 3]), "it ends too early");
        assert_eq!(refused(Type::Bool, &[2, 0, 0, 0]), "it holds no valid boolean");
        assert_eq!(refused(Type::Text, &[2, 0, 0, 0, b'h', 0, 0]), "it holds no valid string");
        assert_eq!(refused(Type::Text, &[0xff, 0xff, 0xff, 0xff, b'h', 0]), "it ends too early");
        assert_eq!(refused(Type::Byte, &[1, 2]), "it holds no valid end");
        assert_eq!(refused(Type::Array(Box::new(Type::U16)), &[3, 0, 0, 0, 1, 1, 1]), "it ends too early");
        assert_eq!(refused(Type::Variant, &[2, b'y', b'y', 0, 1]), "it holds no valid variant");
        // Variants in variants, without end.
        assert_eq!(refused(Type::Variant, &[1, b'v', 0].repeat(100)), "it holds no valid depth");
    }
}
