//! Messages: a header that says where they go, and a body of values (D-Bus specification, "Message Format").

use super::signature::Type;
use super::value::Value;
use super::wire::{Decoder, Encoder, Endian, MESSAGE_LIMIT, WireError};

/// The part of a header that tells how long the message is.
pub(super) const PREFIX: usize = 16;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

/// The flag of a call that is not to be answered.
const NO_REPLY: u8 = 1;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

/// A method to call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub body: &'a [Value],
}

/// Whether a call is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Wanted,
    Unwanted,
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    pub interface: String,
    pub member: String,
    /// Who sent it, by the word of the bus.
    pub sender: String,
    /// The name of the error that it is.
    pub error_name: String,
    /// The serial number of the call that it answers; 0 for none.
    pub reply_serial: u32,
    body: Vec<u8>,
    signature: Vec<Type>,
    endian: Endian,
}

impl Call<'_> {
    /// The bytes of the call.
    ///
    /// # Errors
    /// It is too long.
    pub fn encode(&self, serial: u32, answer: Answer) -> Result<Vec<u8>, WireError> {
        let mut body = Encoder::default();
        self.body.iter().for_each(|value| body.value(value));
        let signature: String = self.body.iter().map(|value| value.kind().to_string()).collect();

        let mut fields = vec![
            header_field(PATH, Value::Path(self.path.to_owned())),
            header_field(INTERFACE, Value::text(self.interface)),
            header_field(MEMBER, Value::text(self.member)),
            header_field(DESTINATION, Value::text(self.destination)),
        ];
        if !signature.is_empty() {
            if Type::parse_all(&signature).is_err() {
                return Err(WireError::Invalid("signature"));
            }
            fields.push(header_field(SIGNATURE, Value::Signature(signature)));
        }
        let flags = if answer == Answer::Wanted { 0 } else { NO_REPLY };
        let mut message = Encoder { bytes: vec![b'l', 1, flags, 1] };
        let length = u32::try_from(body.bytes.len()).map_err(|_| WireError::Long)?;
        message.u32(length);
        message.u32(serial);
        message.value(&Value::Array(header_field_type(), fields));
        message.align(8);
        message.bytes.append(&mut body.bytes);
        if message.bytes.len() > MESSAGE_LIMIT { Err(WireError::Long) } else { Ok(message.bytes) }
    }
}

fn header_field(code: u8, value: Value) -> Value {
    Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
}

fn header_field_type() -> Type {
    Type::Struct(vec![Type::Byte, Type::Variant])
}

impl Message {
    /// The length of the message that begins with `prefix`, the first [`PREFIX`] bytes of it.
    pub(super) fn length(prefix: &[u8; PREFIX]) -> Result<usize, WireError> {
        let mut header = Decoder::new(prefix, endian(prefix)?);
        header.take(4)?;
        let lengths = [header.u32()?, header.u32().and_then(|_serial| header.u32())?];
        let [body, fields] = lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if body > MESSAGE_LIMIT || fields > MESSAGE_LIMIT {
            return Err(WireError::Long);
        }
        Ok((PREFIX + fields).next_multiple_of(8) + body)
    }

    /// Reads a whole message. Its body is read only when it is asked for.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Message, WireError> {
        let prefix = bytes.first_chunk::<PREFIX>().ok_or(WireError::Short)?;
        if bytes.len() != Message::length(prefix)? {
            return Err(WireError::Short);
        }
        let endian = endian(prefix)?;
        let kind = match prefix[1] {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return Err(WireError::Invalid("message type")),
        };
        let mut header = Decoder::new(bytes, endian);
        header.take(4)?;
        let _body_length = header.u32()?;
        let _serial = header.u32()?;
        let Value::Array(_, fields) = header.value(&Type::Array(Box::new(header_field_type())), 4)? else {
            return Err(WireError::Invalid("header"));
        };
        header.align(8)?;
        let body = bytes.get(header.position()..).unwrap_or_default().to_vec();
        let mut message = Message {
            kind,
            interface: String::new(),
            member: String::new(),
            sender: String::new(),
            error_name: String::new(),
            reply_serial: 0,
            body,
            signature: Vec::new(),
            endian,
        };
        for field in fields {
            message.take_field(field)?;
        }
        Ok(message)
    }

    fn take_field(&mut self, field: Value) -> Result<(), WireError> {
        let Value::Struct(parts) = field else { return Err(WireError::Invalid("header")) };
        let Ok([Value::Byte(code), Value::Variant(value)]) = <[Value; 2]>::try_from(parts) else {
            return Err(WireError::Invalid("header"));
        };
        match (code, *value) {
            (INTERFACE, Value::Text(text)) => self.interface = text,
            (MEMBER, Value::Text(text)) => self.member = text,
            (SENDER, Value::Text(text)) => self.sender = text,
            (ERROR_NAME, Value::Text(text)) => self.error_name = text,
            (REPLY_SERIAL, Value::U32(serial)) => self.reply_serial = serial,
            (SIGNATURE, Value::Signature(text)) => {
                self.signature = Type::parse_all(&text).map_err(|_| WireError::Invalid("signature"))?;
            }
            (INTERFACE | MEMBER | SENDER | ERROR_NAME | REPLY_SERIAL | SIGNATURE, _) => {
                return Err(WireError::Invalid("header"));
            }
            _ => {}
        }
        Ok(())
    }

    /// The values of the body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn values(&self) -> Result<Vec<Value>, WireError> {
        Decoder::new(&self.body, self.endian).values(&self.signature)
    }
}

fn endian(prefix: &[u8; PREFIX]) -> Result<Endian, WireError> {
    match prefix[0] {
        b'l' => Ok(Endian::Little),
        b'B' => Ok(Endian::Big),
        _ => Err(WireError::Invalid("byte order")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Vec<u8> {
        let body = [Value::text("a.scope"), Value::U32(7)];
        let call =
            Call { destination: "org.a", path: "/a", interface: "org.a.B", member: "Start", body: &body };
        call.encode(5, Answer::Wanted).unwrap()
    }

    #[test]
    fn a_call_is_what_it_says() {
        let bytes = call();
        assert_eq!(bytes[..4], [b'l', 1, 0, 1]);
        assert_eq!(bytes[8], 5);
        let prefix = bytes.first_chunk().unwrap();
        assert_eq!(Message::length(prefix), Ok(bytes.len()));
        let message = Message::decode(&bytes).unwrap();
        assert_eq!((message.interface.as_str(), message.member.as_str()), ("org.a.B", "Start"));
        assert_eq!(message.values().unwrap(), [Value::text("a.scope"), Value::U32(7)]);
    }

    #[test]
    fn every_cut_is_refused() {
        let bytes = call();
        for length in 0..bytes.len() {
            assert!(Message::decode(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused() {
        let mut bytes = call();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Message::length(bytes.first_chunk().unwrap()), Err(WireError::Long));
    }
}
