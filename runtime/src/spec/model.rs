//! The whole of `config.json`, and the parser that names the field it stumbled over.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::json::{is_default, null_is_default, object, objects};
use super::{Hooks, Linux, Mount, Process, Resources};

/// `config.json`, as the runtime-spec's [config.md](https://github.com/opencontainers/runtime-spec/blob/main/config.md)
/// describes it. Parts that belong to other systems than Linux are skipped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The runtime-spec version that the bundle follows.
    #[serde(rename = "ociVersion", deserialize_with = "null_is_default")]
    pub oci_version: String,
    /// The container's first process.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root filesystem.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// The UTS host name; empty when it is to stay as it is.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub hostname: String,
    /// The NIS domain name; empty when it is to stay as it is.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub domainname: String,
    /// Mounts on top of the root, in order.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Commands at points of the container's life.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free keys and values of the caller.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

/// The container's root filesystem.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Root {
    /// Path of the root filesystem, absolute or relative to the bundle.
    #[serde(deserialize_with = "null_is_default")]
    pub path: String,
    /// Whether the root is read-only for the container.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub readonly: bool,
}

/// Why a JSON text is not a `config.json` (or a `process.json`).
#[derive(Debug, Error)]
pub enum ParseError {
    /// The text is not JSON, or it ends early.
    #[error("malformed JSON at line {line}, column {column}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser met.
        reason: String,
    },
    /// A field holds a value of another type than the runtime-spec gives it.
    #[error("invalid value of {field} at line {line}, column {column}: {reason}")]
    Field {
        /// Path of the field from the top, as `linux.namespaces[2].type`.
        field: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What was found and what was expected.
        reason: String,
    },
    /// The text is `null`.
    #[error("config cannot be null")]
    Null,
}

impl Spec {
    /// Parses a `config.json`. As in runc, unknown fields and anything after the first JSON value are skipped.
    ///
    /// # Errors
    /// [`ParseError`], which names the field and what was expected.
    pub fn from_slice(json: &[u8]) -> Result<Self, ParseError> {
        let mut spec: Self = parse(json)?;
        let resources = spec.linux.as_mut().and_then(|linux| linux.resources.as_mut());
        resources.into_iter().for_each(Resources::join_cases);
        Ok(spec)
    }
}

impl Process {
    /// Parses the `process.json` of `exec --process`.
    ///
    /// # Errors
    /// [`ParseError`], which names the field and what was expected.
    pub fn from_slice(json: &[u8]) -> Result<Self, ParseError> {
        parse(json)
    }
}

/// Parses without bookkeeping; only a refused text is parsed a second time, with the path of each field at hand.
fn parse<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, ParseError> {
    let mut fast = serde_json::Deserializer::from_slice(json);
    match object::<_, T>(&mut fast) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(ParseError::Null),
        Err(error) => Err(explain::<T>(json, &error)),
    }
}

#[cold]
fn explain<'de, T: Deserialize<'de>>(json: &'de [u8], first: &serde_json::Error) -> ParseError {
    let (line, column) = (first.line(), first.column());
    let mut text = first.to_string();
    // serde_json ends its messages with the position, which the variants carry on their own.
    if let Some(end) = text.rfind(" at line ") {
        text.truncate(end);
    }
    if !first.is_data() {
        return ParseError::Syntax { line, column, reason: text };
    }
    let mut slow = serde_json::Deserializer::from_slice(json);
    let mut track = serde_path_to_error::Track::new();
    let refused = object::<_, T>(serde_path_to_error::Deserializer::new(&mut slow, &mut track)).is_err();
    let field = track.path().to_string();
    let field = if !refused || field == "." { String::from("the top-level value") } else { field };
    ParseError::Field { field, line, column, reason: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_nulls_and_trailing_text_are_taken_as_go_takes_them() {
        let json = br#"{"ociVersion":"1.3.0","x":{"y":[1]},"process":null,"mounts":null,"hostname":null,
            "linux":{"namespaces":null,"sysctl":null,"resources":null,"uidMappings":null}} trailing"#;
        let spec = Spec::from_slice(json).unwrap();
        assert_eq!(spec.oci_version, "1.3.0");
        assert_eq!(spec.process, None);
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.linux, Some(Linux::default()));
    }

    #[test]
    fn a_wrong_type_names_the_field_and_what_was_expected() {
        let json = br#"{"process":{"user":{"uid":"root"}}}"#;
        let error = Spec::from_slice(json).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid value of process.user.uid at line 1, column 32: invalid type: string \"root\", expected u32"
        );
        let json = br#"{"linux":{"namespaces":[{"type":"pid"},{"type":7}]}}"#;
        let error = Spec::from_slice(json).unwrap_err().to_string();
        assert!(error.starts_with("invalid value of linux.namespaces[1].type at"), "{error}");
        assert!(error.ends_with("expected a string"), "{error}");
    }

    #[test]
    fn text_that_is_not_json_names_its_place() {
        let error = Spec::from_slice(b"{\"root\": {]}").unwrap_err().to_string();
        assert_eq!(error, "malformed JSON at line 1, column 11: key must be a string");
        assert!(matches!(Spec::from_slice(b""), Err(ParseError::Syntax { .. })));
        assert!(matches!(Spec::from_slice(b"null"), Err(ParseError::Null)));
        let error = Spec::from_slice(b"[1]").unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid value of the top-level value at line 1, column 1: invalid type: sequence, expected an object"
        );
        let error = Spec::from_slice(br#"{"mounts": [["/a"]]}"#).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid value of mounts[0] at line 1, column 13: invalid type: sequence, expected an object"
        );
    }
}
