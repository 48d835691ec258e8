//! Protobuf's wire format without a schema: a message is written field by field, and read as its fields.
//!
//! Tests name the field numbers of containerd's published messages themselves. Called by `ttrpc`, `task`, `events`, `cri`.

use std::fmt;

use serde_json::Value as Json;

/// A message being written.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A whole number, an enum's value or, as 1, a truth; zero is left out, as every writer does.
    #[must_use]
    pub fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            varint(&mut self.0, u64::from(field) << 3);
            varint(&mut self.0, value);
        }
        self
    }

    #[must_use]
    pub fn flag(self, field: u32, value: bool) -> Self {
        self.number(field, u64::from(value))
    }

    #[must_use]
    pub fn text(self, field: u32, value: impl AsRef<str>) -> Self {
        let value = value.as_ref();
        if value.is_empty() { self } else { self.bytes(field, value.as_bytes()) }
    }

    #[must_use]
    pub fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        varint(&mut self.0, u64::from(field) << 3 | 2);
        varint(&mut self.0, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    #[must_use]
    pub fn message(self, field: u32, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    #[must_use]
    pub fn messages<'a>(self, field: u32, values: impl IntoIterator<Item = &'a Message>) -> Self {
        values.into_iter().fold(self, |message, value| message.message(field, value))
    }

    /// An entry of a map from text to text.
    #[must_use]
    pub fn pair(self, field: u32, key: &str, value: &str) -> Self {
        self.message(field, &Message::new().text(1, key).text(2, value))
    }

    #[must_use]
    pub fn encode(&self) -> &[u8] {
        &self.0
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// google.protobuf.Any.
#[must_use]
pub fn any(type_url: &str, value: &[u8]) -> Message {
    Message::new().text(1, type_url).bytes(2, value)
}

/// An Any of JSON, as containerd wraps the types of the OCI runtime specification.
#[must_use]
pub fn any_json(type_name: &str, value: &Json) -> Message {
    any(
        &format!("types.containerd.io/opencontainers/runtime-spec/1/{type_name}"),
        value.to_string().as_bytes(),
    )
}

#[derive(Clone, PartialEq)]
enum Value {
    Number(u64),
    Fixed(u64),
    Bytes(Vec<u8>),
}

/// A message that was read.
#[derive(Clone, Default, PartialEq)]
pub struct Fields(Vec<(u32, Value)>);

impl Fields {
    /// Reads a message.
    ///
    /// # Errors
    /// A sentence on what is no protobuf.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = take_varint(&mut bytes)?;
            let value = match key & 7 {
                0 => Value::Number(take_varint(&mut bytes)?),
                1 => Value::Fixed(u64::from_le_bytes(take::<8>(&mut bytes)?)),
                5 => Value::Fixed(u64::from(u32::from_le_bytes(take::<4>(&mut bytes)?))),
                2 => {
                    let length = usize::try_from(take_varint(&mut bytes)?).map_err(|e| e.to_string())?;
                    let (head, rest) = bytes.split_at_checked(length).ok_or("a field is cut off")?;
                    bytes = rest;
                    Value::Bytes(head.to_vec())
                }
                other => return Err(format!("wire type {other}")),
            };
            fields.push((u32::try_from(key >> 3).map_err(|e| e.to_string())?, value));
        }
        Ok(Self(fields))
    }

    /// A number; 0 when it is not there.
    #[must_use]
    pub fn number(&self, field: u32) -> u64 {
        let found = self.0.iter().rev().find(|(number, _)| *number == field);
        match found {
            Some((_, Value::Number(value) | Value::Fixed(value))) => *value,
            _ => 0,
        }
    }

    /// Whether the field is there.
    #[must_use]
    pub fn has(&self, field: u32) -> bool {
        self.0.iter().any(|(number, _)| *number == field)
    }

    /// Text; empty when it is not there.
    #[must_use]
    pub fn text(&self, field: u32) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    #[must_use]
    pub fn bytes(&self, field: u32) -> &[u8] {
        self.all(field).last().unwrap_or_default()
    }

    /// A message; an empty one when it is not there.
    ///
    /// # Panics
    /// When the field is no message.
    #[must_use]
    pub fn message(&self, field: u32) -> Self {
        Self::decode(self.bytes(field)).unwrap_or_else(|e| panic!("field {field} of {self:?}: {e}"))
    }

    /// All values of a repeated field of messages.
    ///
    /// # Panics
    /// When one is no message.
    #[must_use]
    pub fn messages(&self, field: u32) -> Vec<Self> {
        let decoded = self.all(field).map(Self::decode);
        decoded.collect::<Result<_, _>>().unwrap_or_else(|e| panic!("field {field} of {self:?}: {e}"))
    }

    fn all(&self, field: u32) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(move |(number, value)| match value {
            Value::Bytes(bytes) if *number == field => Some(bytes.as_slice()),
            _ => None,
        })
    }

    /// A map from text to text, as a list.
    #[must_use]
    pub fn pairs(&self, field: u32) -> Vec<(String, String)> {
        self.messages(field).iter().map(|entry| (entry.text(1), entry.text(2))).collect()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (field, value) in &self.0 {
            match value {
                Value::Number(number) | Value::Fixed(number) => map.entry(field, number),
                Value::Bytes(bytes) => map.entry(field, &String::from_utf8_lossy(bytes)),
            };
        }
        map.finish()
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or("a number is cut off")?;
    *bytes = rest;
    Ok(*head)
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take::<1>(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::new().text(1, "a").text(2, "b");
        let message =
            Message::new().number(1, 300).text(2, "text").message(3, &inner).pair(4, "k", "v").flag(5, true);
        let fields = Fields::decode(message.encode()).expect("a message");
        assert_eq!((fields.number(1), fields.text(2), fields.number(5)), (300, "text".into(), 1));
        assert_eq!(fields.message(3).text(2), "b");
        assert_eq!(fields.pairs(4), [("k".to_owned(), "v".to_owned())]);
        assert_eq!(message.encode()[..3], [8, 0xac, 2]);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        assert!(Fields::decode(&[10, 5, b'x']).is_err());
        assert!(Fields::decode(&[8]).is_err());
        assert!(Fields::decode(&[0xff; 12]).is_err());
    }
}
