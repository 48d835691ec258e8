//! A value of any D-Bus type, as plain data.

use serde::{Deserialize, Serialize};

use super::signature::Type;
use super::text::TextError;

/// A value. Its text (`Display`, `FromStr`, and in JSON) is GVariant's: `uint64 5`, `'text'`, `[('/dev/null', 'rw')]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    /// As its bits, so that two values are equal when they look alike.
    Double(u64),
    Text(String),
    Path(String),
    Signature(String),
    Variant(Box<Value>),
    /// The type of the elements, as there may be none, and the elements, each of it.
    Array(Type, Vec<Value>),
    Struct(Vec<Value>),
    Entry(Box<Value>, Box<Value>),
}

impl Value {
    /// A string.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// A list of strings.
    #[must_use]
    pub fn texts(texts: impl IntoIterator<Item = impl Into<String>>) -> Value {
        Value::Array(Type::Text, texts.into_iter().map(Value::text).collect())
    }

    /// A string of bytes.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Value {
        Value::Array(Type::Byte, bytes.iter().copied().map(Value::Byte).collect())
    }

    /// A floating point number. Of those that are none there is one only.
    #[must_use]
    pub fn double(number: f64) -> Value {
        let number = if number.is_nan() { f64::NAN } else { number };
        Value::Double(number.to_bits())
    }

    /// The string that it is, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Path(text) | Value::Signature(text) => Some(text),
            _ => None,
        }
    }

    /// What it is of.
    #[must_use]
    pub fn kind(&self) -> Type {
        match self {
            Value::Byte(_) => Type::Byte,
            Value::Bool(_) => Type::Bool,
            Value::I16(_) => Type::I16,
            Value::U16(_) => Type::U16,
            Value::I32(_) => Type::I32,
            Value::U32(_) => Type::U32,
            Value::I64(_) => Type::I64,
            Value::U64(_) => Type::U64,
            Value::Double(_) => Type::Double,
            Value::Text(_) => Type::Text,
            Value::Path(_) => Type::Path,
            Value::Signature(_) => Type::Signature,
            Value::Variant(_) => Type::Variant,
            Value::Array(element, _) => Type::Array(Box::new(element.clone())),
            Value::Struct(fields) => Type::Struct(fields.iter().map(Value::kind).collect()),
            Value::Entry(key, value) => Type::Entry(Box::new(key.kind()), Box::new(value.kind())),
        }
    }
}

impl From<Value> for String {
    fn from(value: Value) -> String {
        value.to_string()
    }
}

impl TryFrom<String> for Value {
    type Error = TextError;

    fn try_from(text: String) -> Result<Value, TextError> {
        text.parse()
    }
}
