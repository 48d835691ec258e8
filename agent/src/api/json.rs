//! JSON bodies as moby reads them: one value, and Go's words for what is wrong with it, which the CLI prints and scripts compare.
//!
//! serde_json decides what is refused. Its error is only then told again: a fault of the text by [`syntax`], a value of
//! another type by the field that it stands in.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

mod syntax;

/// The one value of a body. A field that is null is one that is not there, as for Go.
///
/// # Errors
/// None, no such value, or something behind it: dockerd's texts.
pub fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    let mut value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => {
            let words = syntax::fault(text).unwrap_or_else(|| error.to_string());
            return Err(Error::invalid(format!("invalid JSON: {words}")));
        }
        None => return Err(Error::invalid("invalid JSON: got EOF while reading request body")),
    };
    let rest = text.get(values.byte_offset()..).unwrap_or_default().trim_ascii_start();
    // Go's decoder takes these two for the end of a list around it.
    if rest.first().is_some_and(|byte| !matches!(byte, b']' | b'}')) {
        return Err(Error::invalid("unexpected content after JSON"));
    }
    without_nulls(&mut value);
    of_value(&value)
}

/// The same of a value that was decoded.
///
/// # Errors
/// It is no such object.
pub fn of_value<T: DeserializeOwned>(value: &Value) -> Result<T> {
    T::deserialize(value).map_err(|error| {
        // The place of the error, and with it the field, is only in a text.
        let words = serde_json::to_vec(value).ok().and_then(|text| {
            let error = serde_json::from_slice::<T>(&text).err()?;
            Some(mismatch(&text, &error, type_name::<T>()))
        });
        Error::invalid(format!("invalid JSON: {}", words.unwrap_or_else(|| error.to_string())))
    })
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

/// `invalid type: integer `5`, expected a string` in Go's words.
fn mismatch(text: &[u8], error: &serde_json::Error, object: &str) -> String {
    let words = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let words = words.strip_suffix(&place).unwrap_or(&words);
    let Some((found, expected)) =
        words.split_once(": ").and_then(|(_, operands)| operands.split_once(", expected "))
    else {
        return format!("json: {words}");
    };
    let found = match found.split(' ').next().unwrap_or_default() {
        "integer" | "floating" | "number" => "number",
        "boolean" => "bool",
        "map" => "object",
        "sequence" => "array",
        other => other,
    };
    let expected = match expected {
        "a string" | "a borrowed string" | "string or map" => "string",
        "a boolean" => "bool",
        "a map" => "map[string]string",
        "a sequence" => "[]string",
        "i64" => "int64",
        "i32" => "int",
        "u64" => "uint64",
        "u32" => "uint32",
        "u16" => "uint16",
        "f64" => "float64",
        other => other.strip_prefix("struct ").unwrap_or(other),
    };
    let path = path(text, offset(text, error));
    if path.is_empty() {
        return format!("json: cannot unmarshal {found} into Go value of type {expected}");
    }
    format!("json: cannot unmarshal {found} into Go struct field {object}.{path} of type {expected}")
}

/// Where in the text the error is.
fn offset(text: &[u8], error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    lines.map(<[u8]>::len).sum::<usize>() + error.column()
}

/// The names of the fields around a place of a text that is well formed up to there.
fn path(text: &[u8], end: usize) -> String {
    /// An object or a list that is open, the name of the field that is read, and whether the next string is one.
    struct Open {
        name: String,
        wants_name: bool,
    }
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at).filter(|_| at < end) {
        at += 1;
        match byte {
            b'{' => open.push(Open { name: String::new(), wants_name: true }),
            b'[' => open.push(Open { name: String::new(), wants_name: false }),
            b'}' | b']' => drop(open.pop()),
            b',' => {
                if let Some(last) = open.last_mut().filter(|last| !last.name.is_empty()) {
                    last.wants_name = true;
                }
            }
            b'"' => {
                let start = at;
                while let Some(&inner) = text.get(at).filter(|inner| **inner != b'"') {
                    at += if inner == b'\\' { 2 } else { 1 };
                }
                if let Some(last) = open.last_mut().filter(|last| last.wants_name) {
                    last.wants_name = false;
                    let name = text.get(start..at).unwrap_or_default();
                    last.name = String::from_utf8_lossy(name).into_owned();
                }
                at += 1;
            }
            _ => {}
        }
    }
    let names: Vec<_> = open.into_iter().map(|one| one.name).filter(|name| !name.is_empty()).collect();
    names.join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Options {
        name: String,
        count: i64,
        labels: BTreeMap<String, String>,
        inner: Option<Box<Options>>,
    }

    fn words(text: &str) -> String {
        decode::<Options>(text.as_bytes()).map_or_else(|error| error.message, |_| "fine".to_owned())
    }

    #[test]
    fn values_of_another_type_are_told_by_their_field() {
        let field = |path: &str, found: &str, wanted: &str| {
            format!(
                "invalid JSON: json: cannot unmarshal {found} into Go struct field Options.{path} of type {wanted}"
            )
        };
        assert_eq!(words(r#"{"Name":5}"#), field("Name", "number", "string"));
        assert_eq!(words(r#"{"Count":1,"Name":{"x":1}}"#), field("Name", "object", "string"));
        assert_eq!(words("{\n\"Inner\":\n{\"Count\":\"x\"}}"), field("Inner.Count", "string", "int64"));
        assert_eq!(words(r#"{"Labels":["x"]}"#), field("Labels", "array", "map[string]string"));
        assert_eq!(words(r#"{"Labels":{"a,\"b":true}}"#), field(r#"Labels.a,\"b"#, "bool", "string"));
        assert_eq!(words("5"), "invalid JSON: json: cannot unmarshal number into Go value of type Options");
        let value: Value = serde_json::from_str(r#"{"Inner":{"Name":[]}}"#).unwrap();
        let error = of_value::<Options>(&value).unwrap_err();
        assert_eq!(error.message, field("Inner.Name", "array", "string"));
    }

    #[test]
    fn nulls_are_taken_out_of_objects_only() {
        let value: Value =
            decode(br#"{"a": null, "b": {"c": null, "d": 1}, "e": [null, {"f": null}]}"#).unwrap();
        assert_eq!(value, serde_json::json!({"b": {"d": 1}, "e": [null, {}]}));
        assert_eq!(words(r#"{"Name": null, "Labels": null, "Inner": {"Count": null}}"#), "fine");
    }

    #[test]
    fn one_value_and_nothing_behind_it() {
        assert_eq!(words(" {} \n"), "fine");
        assert_eq!(words("{}}"), "fine");
        assert_eq!(words("{} {}"), "unexpected content after JSON");
        assert_eq!(words("{} x"), "unexpected content after JSON");
        assert_eq!(words(" "), "invalid JSON: got EOF while reading request body");
        assert_eq!(words("{"), "invalid JSON: unexpected EOF");
    }
}
