//! Types of values and their signatures (D-Bus specification, "Type System").

use std::fmt;

/// A signature has at most this many bytes.
const LENGTH_LIMIT: usize = 255;
/// How deep types may be nested: what the specification allows for arrays, here for all together.
pub(super) const DEPTH_LIMIT: usize = 32;

/// A complete type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Byte,
    Bool,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Double,
    Text,
    Path,
    Signature,
    Variant,
    Array(Box<Type>),
    Struct(Vec<Type>),
    /// Key and value; only ever the element of an array.
    Entry(Box<Type>, Box<Type>),
}

/// Text that is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signature {0:?}")]
pub struct SignatureError(pub String);

impl Type {
    /// The types that a signature lists.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_all(signature: &str) -> Result<Vec<Type>, SignatureError> {
        let failed = || SignatureError(signature.to_owned());
        if signature.len() > LENGTH_LIMIT {
            return Err(failed());
        }
        let mut rest = signature.as_bytes();
        let mut types = Vec::new();
        while !rest.is_empty() {
            types.push(parse(&mut rest, 0).ok_or_else(failed)?);
        }
        Ok(types)
    }

    /// The one type of a signature.
    ///
    /// # Errors
    /// It is none, or one of several types.
    pub fn parse(signature: &str) -> Result<Type, SignatureError> {
        match <[Type; 1]>::try_from(Type::parse_all(signature)?) {
            Ok([only]) => Ok(only),
            Err(_) => Err(SignatureError(signature.to_owned())),
        }
    }

    /// The complete type that `text` begins with, and its length.
    pub(super) fn prefix_of(text: &str) -> Option<(Type, usize)> {
        let mut rest = text.as_bytes();
        let found = parse(&mut rest, 0)?;
        let length = text.len() - rest.len();
        (length <= LENGTH_LIMIT).then_some((found, length))
    }

    /// The boundary that a value of it starts at.
    pub(super) fn alignment(&self) -> usize {
        match self {
            Type::Byte | Type::Signature | Type::Variant => 1,
            Type::I16 | Type::U16 => 2,
            Type::Bool | Type::I32 | Type::U32 | Type::Text | Type::Path | Type::Array(_) => 4,
            Type::I64 | Type::U64 | Type::Double | Type::Struct(_) | Type::Entry(..) => 8,
        }
    }

    /// Whether it may be the key of a dictionary.
    pub(super) fn is_basic(&self) -> bool {
        !matches!(self, Type::Variant | Type::Array(_) | Type::Struct(_) | Type::Entry(..))
    }
}

fn parse(rest: &mut &[u8], depth: usize) -> Option<Type> {
    if depth > DEPTH_LIMIT {
        return None;
    }
    let (code, after) = rest.split_first()?;
    *rest = after;
    Some(match code {
        b'y' => Type::Byte,
        b'b' => Type::Bool,
        b'n' => Type::I16,
        b'q' => Type::U16,
        b'i' => Type::I32,
        b'u' => Type::U32,
        b'x' => Type::I64,
        b't' => Type::U64,
        b'd' => Type::Double,
        b's' => Type::Text,
        b'o' => Type::Path,
        b'g' => Type::Signature,
        b'v' => Type::Variant,
        b'a' if rest.first() == Some(&b'{') => {
            *rest = &rest[1..];
            let key = parse(rest, depth + 1).filter(Type::is_basic)?;
            let value = parse(rest, depth + 1)?;
            *rest = rest.strip_prefix(b"}")?;
            Type::Array(Box::new(Type::Entry(Box::new(key), Box::new(value))))
        }
        b'a' => Type::Array(Box::new(parse(rest, depth + 1)?)),
        b'(' => {
            let mut fields = vec![parse(rest, depth + 1)?];
            loop {
                if let Some(after) = rest.strip_prefix(b")") {
                    *rest = after;
                    break Type::Struct(fields);
                }
                fields.push(parse(rest, depth + 1)?);
            }
        }
        _ => return None,
    })
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = match self {
            Type::Byte => "y",
            Type::Bool => "b",
            Type::I16 => "n",
            Type::U16 => "q",
            Type::I32 => "i",
            Type::U32 => "u",
            Type::I64 => "x",
            Type::U64 => "t",
            Type::Double => "d",
            Type::Text => "s",
            Type::Path => "o",
            Type::Signature => "g",
            Type::Variant => "v",
            Type::Array(element) => return write!(f, "a{element}"),
            Type::Entry(key, value) => return write!(f, "{{{key}{value}}}"),
            Type::Struct(fields) => {
                f.write_str("(")?;
                fields.iter().try_for_each(|field| write!(f, "{field}"))?;
                ")"
            }
        };
        f.write_str(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_and_written() {
        for signature in ["", "y", "a(ss)", "a{sv}", "aas", "(i(tb)a{oay})", "sa(sv)a(sa(sv))"] {
            let types = Type::parse_all(signature).unwrap();
            assert_eq!(types.iter().map(Type::to_string).collect::<String>(), signature);
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let long = "y".repeat(256);
        let deep = "a".repeat(40) + "y";
        for signature in
            ["a", "(", "()", ")", "{sv}", "a{vs}", "a{s}", "a{sss}", "z", "m", "(s", &long, &deep]
        {
            assert!(Type::parse_all(signature).is_err(), "{signature}");
        }
        assert!(Type::parse("ss").is_err() && Type::parse("").is_err());
    }
}
