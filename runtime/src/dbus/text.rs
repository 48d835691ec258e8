//! The text form of values: GVariant's (docs.gtk.org/glib/gvariant-text-format.html), less its "maybe" types, which
//! D-Bus has not.
//!
//! Reads what people write into `org.systemd.property.*` annotations, and reads and writes what a plan shows. A value is
//! first read as a tree of what it looks like ([`Node`]), which then takes the type that its annotations, or failing
//! those its looks, give it.

use std::fmt;
use std::str::FromStr;

use super::signature::{DEPTH_LIMIT, Type};
use super::value::Value;

mod read;

use read::Reader;

/// Text that is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("expected {expected} at byte {at}")]
    Syntax { at: usize, expected: &'static str },
    #[error("{text} is no value of type {wanted:?}")]
    Type { text: String, wanted: String },
    #[error("the type of an empty list is unknown")]
    Untyped,
    #[error("no signature has room for its type")]
    Large,
}

/// What a value looks like, before its type is known.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(String),
    Text(String),
    Bool(bool),
    Bytes(Vec<u8>),
    List(Vec<Node>),
    Dictionary(Vec<(Node, Node)>),
    Tuple(Vec<Node>),
    Variant(Box<Node>),
    Typed(Type, Box<Node>),
}

/// What is known of a node's type.
struct Guess {
    kind: Type,
    /// By an annotation, or because it looks like nothing else.
    certain: bool,
}

impl Node {
    fn guess(&self) -> Option<Guess> {
        let (kind, certain) = match self {
            Node::Typed(kind, _) => (kind.clone(), true),
            Node::Number(text) if is_fraction(text) => (Type::Double, true),
            Node::Number(_) => (Type::I32, false),
            Node::Text(_) => (Type::Text, false),
            Node::Bool(_) => (Type::Bool, true),
            Node::Bytes(_) => (Type::Array(Box::new(Type::Byte)), true),
            Node::Variant(_) => (Type::Variant, true),
            Node::List(nodes) => {
                let element = common(nodes.iter())?;
                (Type::Array(Box::new(element.kind)), element.certain)
            }
            Node::Dictionary(entries) => {
                let key = common(entries.iter().map(|(key, _)| key))?;
                let value = common(entries.iter().map(|(_, value)| value))?;
                let entry = Type::Entry(Box::new(key.kind), Box::new(value.kind));
                (Type::Array(Box::new(entry)), key.certain && value.certain)
            }
            Node::Tuple(nodes) => {
                let fields = nodes.iter().map(Node::guess).collect::<Option<Vec<_>>>()?;
                let certain = fields.iter().all(|field| field.certain);
                (Type::Struct(fields.into_iter().map(|field| field.kind).collect()), certain)
            }
        };
        Some(Guess { kind, certain })
    }

    fn build(self, wanted: &Type) -> Result<Value, TextError> {
        let failed = |text: String| TextError::Type { text, wanted: wanted.to_string() };
        Ok(match (self, wanted) {
            (Node::Typed(kind, node), wanted) if kind == *wanted => node.build(wanted)?,
            (Node::Number(text), _) => number(&text, wanted).ok_or_else(|| failed(text))?,
            (Node::Bool(value), Type::Bool) => Value::Bool(value),
            (Node::Text(text), Type::Text) => Value::Text(text),
            (Node::Text(text), Type::Path) if is_path(&text) => Value::Path(text),
            (Node::Text(text), Type::Signature) if Type::parse_all(&text).is_ok() => Value::Signature(text),
            (Node::Bytes(bytes), Type::Array(element)) if **element == Type::Byte => Value::bytes(&bytes),
            (Node::Variant(node), Type::Variant) => Value::Variant(Box::new(node.into_value()?)),
            (Node::List(nodes), Type::Array(element)) if !matches!(**element, Type::Entry(..)) => {
                let values = nodes.into_iter().map(|node| node.build(element)).collect::<Result<_, _>>()?;
                Value::Array((**element).clone(), values)
            }
            (Node::Dictionary(entries), Type::Array(element)) => {
                let (key_kind, value_kind) = match &**element {
                    Type::Entry(key, value) if key.is_basic() => (key, value),
                    _ => return Err(failed("{...}".to_owned())),
                };
                let entry = |(key, value): (Node, Node)| {
                    Ok(Value::Entry(Box::new(key.build(key_kind)?), Box::new(value.build(value_kind)?)))
                };
                let entries = entries.into_iter().map(entry).collect::<Result<_, TextError>>()?;
                Value::Array((**element).clone(), entries)
            }
            (Node::Tuple(nodes), Type::Struct(fields)) if nodes.len() == fields.len() => {
                let values = nodes.into_iter().zip(fields).map(|(node, field)| node.build(field));
                Value::Struct(values.collect::<Result<_, _>>()?)
            }
            (node, _) => return Err(failed(format!("{node:?}"))),
        })
    }

    fn into_value(self) -> Result<Value, TextError> {
        let kind = self.guess().ok_or(TextError::Untyped)?.kind;
        if Type::parse(&kind.to_string()).is_err() {
            return Err(TextError::Large);
        }
        self.build(&kind)
    }
}

/// The type of the elements of a list: what is certain of one of them holds for all.
fn common<'a>(nodes: impl Iterator<Item = &'a Node>) -> Option<Guess> {
    let mut found: Option<Guess> = None;
    for guess in nodes.filter_map(Node::guess) {
        if guess.certain {
            return Some(guess);
        }
        found = found.or(Some(guess));
    }
    found
}

fn is_fraction(text: &str) -> bool {
    let magnitude = text.trim_start_matches(['+', '-']);
    !magnitude.starts_with("0x")
        && (magnitude.contains(['.', 'e', 'E']) || matches!(magnitude, "inf" | "nan"))
}

/// A number in C's notation: `10`, `0x1f`, `017`, and for doubles also `1.5e3`.
fn number(text: &str, wanted: &Type) -> Option<Value> {
    if *wanted == Type::Double {
        return text.parse().ok().map(Value::double);
    }
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, base) = match magnitude.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if magnitude.len() > 1 && magnitude.starts_with('0') => (&magnitude[1..], 8),
        None => (magnitude, 10),
    };
    let plain = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    let magnitude = i128::from_str_radix(digits, base).ok().filter(|_| plain)?;
    let number = if negative { -magnitude } else { magnitude };
    Some(match wanted {
        Type::Byte => Value::Byte(number.try_into().ok()?),
        Type::I16 => Value::I16(number.try_into().ok()?),
        Type::U16 => Value::U16(number.try_into().ok()?),
        Type::I32 => Value::I32(number.try_into().ok()?),
        Type::U32 => Value::U32(number.try_into().ok()?),
        Type::I64 => Value::I64(number.try_into().ok()?),
        Type::U64 => Value::U64(number.try_into().ok()?),
        _ => return None,
    })
}

/// Whether it is an object path: `/` and elements of letters, digits and `_`.
fn is_path(text: &str) -> bool {
    let element = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(element))
}

impl FromStr for Value {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Value, TextError> {
        let mut reader = Reader::new(text);
        let node = reader.node(DEPTH_LIMIT)?;
        reader.end()?;
        node.into_value()
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Byte(number) => write!(f, "byte {number}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::I16(number) => write!(f, "int16 {number}"),
            Value::U16(number) => write!(f, "uint16 {number}"),
            Value::I32(number) => write!(f, "{number}"),
            Value::U32(number) => write!(f, "uint32 {number}"),
            Value::I64(number) => write!(f, "int64 {number}"),
            Value::U64(number) => write!(f, "uint64 {number}"),
            Value::Double(bits) => write_double(f, f64::from_bits(*bits)),
            Value::Text(text) => write_text(f, text),
            Value::Path(text) => f.write_str("objectpath ").and_then(|()| write_text(f, text)),
            Value::Signature(text) => f.write_str("signature ").and_then(|()| write_text(f, text)),
            Value::Variant(value) => write!(f, "<{value}>"),
            Value::Entry(key, value) => write!(f, "{key}: {value}"),
            Value::Array(element, values) => {
                let (open, close) = if matches!(element, Type::Entry(..)) { ('{', '}') } else { ('[', ']') };
                if values.is_empty() {
                    return write!(f, "@a{element} {open}{close}");
                }
                write!(f, "{open}")?;
                write_list(f, values)?;
                write!(f, "{close}")
            }
            Value::Struct(values) => {
                f.write_str("(")?;
                write_list(f, values)?;
                f.write_str(if values.len() == 1 { ",)" } else { ")" })
            }
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, values: &[Value]) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{value}")?;
    }
    Ok(())
}

fn write_double(f: &mut fmt::Formatter<'_>, number: f64) -> fmt::Result {
    match (number.is_nan(), number.is_infinite()) {
        (true, _) => f.write_str("nan"),
        (_, true) => f.write_str(if number > 0.0 { "inf" } else { "-inf" }),
        // With a fraction or an exponent in any case.
        _ => write!(f, "{number:?}"),
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("'")?;
    for letter in text.chars() {
        match letter {
            '\'' | '\\' => write!(f, "\\{letter}")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            letter if letter.is_control() => write!(f, "\\u{:04x}", u32::from(letter))?,
            letter => write!(f, "{letter}")?,
        }
    }
    f.write_str("'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refused(text: &str) -> String {
        text.parse::<Value>().expect_err(text).to_string()
    }

    #[test]
    fn values_as_people_write_them() {
        for (text, value) in [
            ("uint64 123456789", Value::U64(123_456_789)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            ("\"it's\"", Value::text("it's")),
            ("5", Value::I32(5)),
            (" -5 ", Value::I32(-5)),
            ("true", Value::Bool(true)),
            ("boolean false", Value::Bool(false)),
            ("byte 0x1f", Value::Byte(31)),
            ("@t 017", Value::U64(15)),
            ("1.5", Value::double(1.5)),
            ("double 2", Value::double(2.0)),
            ("-inf", Value::double(f64::NEG_INFINITY)),
            ("-nan", Value::double(f64::NAN)),
            ("['a', \"b\"]", Value::texts(["a", "b"])),
            ("@as []", Value::texts([""; 0])),
            ("[uint32 1, 2]", Value::Array(Type::U32, vec![Value::U32(1), Value::U32(2)])),
            ("[1, byte 2]", Value::Array(Type::Byte, vec![Value::Byte(1), Value::Byte(2)])),
            ("[1, 2.5]", Value::Array(Type::Double, vec![Value::double(1.0), Value::double(2.5)])),
            (
                "[[], ['x']]",
                Value::Array(
                    Type::Array(Box::new(Type::Text)),
                    vec![Value::texts([""; 0]), Value::texts(["x"])],
                ),
            ),
            ("b'a\\x\\101\\n'", Value::bytes(b"axA\n\0")),
            ("objectpath '/a/b_1'", Value::Path("/a/b_1".into())),
            ("<uint32 5>", Value::Variant(Box::new(Value::U32(5)))),
            ("('a', true)", Value::Struct(vec![Value::text("a"), Value::Bool(true)])),
            ("(1,)", Value::Struct(vec![Value::I32(1)])),
            ("'\\u00e4\\U0001f600\\\\\\q'", Value::text("ä😀\\q")),
            (
                "{'k': <5>}",
                Value::Array(
                    Type::Entry(Box::new(Type::Text), Box::new(Type::Variant)),
                    vec![Value::Entry(
                        Box::new(Value::text("k")),
                        Box::new(Value::Variant(Box::new(Value::I32(5)))),
                    )],
                ),
            ),
        ] {
            assert_eq!(read(text), value, "{text}");
            assert_eq!(read(&value.to_string()), value, "{value}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert_eq!(refused(""), "expected a value at byte 0");
        assert_eq!(refused("5 6"), "expected the end at byte 2");
        assert_eq!(refused("[1, "), "expected a value at byte 4");
        assert_eq!(refused("'abc"), "expected a closing quote at byte 4");
        assert_eq!(refused("[]"), "the type of an empty list is unknown");
        assert_eq!(refused("byte 256"), "256 is no value of type \"y\"");
        assert_eq!(refused("uint32 -1"), "-1 is no value of type \"u\"");
        for text in [
            "maybe",
            "@z 5",
            "just 5",
            "uint64",
            "uint64 'x'",
            "[1, 'a']",
            "08",
            "1x",
            "0x",
            "--5",
            "'a\\u00'",
            "'\\u0000'",
            "'\\\0'",
            "'\0'",
            "objectpath 'a'",
            "objectpath '/a/'",
            "(",
            "()",
            "<",
            "{'a' 5}",
            "{<1>: 2}",
            "b'",
            "@as 5",
            "@a{sv} []",
            "@as {}",
        ] {
            refused(text);
        }
        refused(&"[".repeat(100_000));
        assert_eq!(refused(&format!("<({}1)>", "1,".repeat(300))), "no signature has room for its type");
    }
}
