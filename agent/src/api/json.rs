//! JSON bodies as moby reads them: one value, and Go's words for what is wrong with it, which the CLI prints and scripts compare.
//!
//! serde_json decides what is refused. Its error is only then told again: a fault of the text by [`syntax`], a value of
//! another type by the field that it stands in, which [`loose`] knows.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

use loose::{Loose, Misfit};

mod loose;
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
    T::deserialize(Loose(value))
        .map_err(|misfit| Error::invalid(format!("invalid JSON: {}", mismatch(misfit, type_name::<T>()))))
}

/// Gives an object's fields the names that are meant, which Go takes in any case: of objects whose names serde tells nobody.
pub fn rename(value: &mut Value, names: &[&str]) {
    let Some(fields) = value.as_object_mut() else { return };
    for name in names {
        if fields.contains_key(*name) {
            continue;
        }
        let given = fields.keys().find(|given| given.eq_ignore_ascii_case(name)).cloned();
        if let Some(value) = given.and_then(|given| fields.remove(&given)) {
            let _none = fields.insert((*name).to_owned(), value);
        }
    }
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

/// moby's name of it.
fn type_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    match name.rsplit("::").next().unwrap_or(name) {
        // Two that are one object in the body.
        "Config" | "Placing" => "",
        "NetworkCreateRequest" => "CreateRequest",
        "NetworkConnectRequest" => "ConnectOptions",
        "NetworkDisconnectRequest" => "DisconnectOptions",
        "UpdateBody" => "UpdateConfig",
        "ExecConfig" => "ExecOptions",
        "Create" => "CreateOptions",
        other => other,
    }
}

/// `invalid type: integer `5`, expected a string` in Go's words.
fn mismatch(misfit: Misfit, object: &str) -> String {
    let words = misfit.words;
    let Some((found, expected)) =
        words.split_once(": ").and_then(|(_, operands)| operands.split_once(", expected "))
    else {
        return format!("json: {words}");
    };
    let expected = match expected {
        "a string" | "a borrowed string" | "string or map" => "string",
        "a boolean" => "bool",
        "a map" => "map[string]string",
        "a sequence" => "[]string",
        "an array of length 2" => "[2]uint",
        "i64" => "int64",
        "i32" => "int",
        "u64" => "uint64",
        "u32" => "uint32",
        "u16" => "uint16",
        "f64" => "float64",
        "struct Config" => "container.CreateRequest",
        "struct HostConfig" => "container.HostConfig",
        other => other.strip_prefix("struct ").unwrap_or(other),
    };
    let (kind, rest) = found.split_once(' ').unwrap_or((found, ""));
    let found = match kind {
        // One that does not fit is shown.
        "integer" | "floating" | "number" if expected.contains("int") => match rest.split('`').nth(1) {
            Some(number) => &format!("number {number}"),
            None => "number",
        },
        "integer" | "floating" | "number" => "number",
        "boolean" => "bool",
        "map" => "object",
        "sequence" => "array",
        other => other,
    };
    if misfit.path.is_empty() {
        return format!("json: cannot unmarshal {found} into Go value of type {expected}");
    }
    let path = misfit.path.into_iter().rev().collect::<Vec<_>>().join(".");
    format!("json: cannot unmarshal {found} into Go struct field {object}.{path} of type {expected}")
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
        assert_eq!(words(r#"{"Labels":{"a,\"b":true}}"#), field("Labels.a,\"b", "bool", "string"));
        assert_eq!(words(r#"{"Count":1.5}"#), field("Count", "number 1.5", "int64"));
        assert_eq!(words("5"), "invalid JSON: json: cannot unmarshal number into Go value of type Options");
        assert_eq!(words("[]"), "invalid JSON: json: cannot unmarshal array into Go value of type Options");
        assert_eq!(words(r#"{"Inner":["x"]}"#), field("Inner", "array", "Options"));
        let value: Value = serde_json::from_str(r#"{"Inner":{"Name":[]}}"#).unwrap();
        let error = of_value::<Options>(&value).unwrap_err();
        assert_eq!(error.message, field("Inner.Name", "array", "string"));
    }

    #[test]
    fn names_are_taken_in_any_case() {
        let read = |text: &str| decode::<Options>(text.as_bytes()).unwrap();
        let options = read(r#"{"name":"a","COUNT":5,"labels":{"name":"x","NAME":"y"},"inner":{"nAME":"b"}}"#);
        assert_eq!((options.name.as_str(), options.count, options.labels.len()), ("a", 5, 2));
        assert_eq!(options.inner.unwrap().name, "b");
        assert_eq!(read(r#"{"NAME":"b","Name":"a","name":"c"}"#).name, "a");
        let mut value = serde_json::json!({"memory": 5, "NanoCPUs": 7, "other": 1});
        rename(&mut value, &["Memory", "NanoCpus"]);
        assert_eq!(value, serde_json::json!({"Memory": 5, "NanoCpus": 7, "other": 1}));
    }

    #[test]
    fn lists_of_a_fixed_length_are_of_any() {
        let read = |text: &str| decode::<[u32; 2]>(text.as_bytes()).unwrap();
        assert_eq!((read("[5]"), read("[5,6,7]"), read("[]")), ([5, 0], [5, 6], [0, 0]));
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
