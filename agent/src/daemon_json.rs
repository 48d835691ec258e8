//! `daemon.json`: the settings of a file beside those of the flags. A setting is in one of them; a key means something, or
//! the daemon does not start.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::settings::{Kind, Setting};

/// Settings by key.
pub type Values = BTreeMap<&'static str, Value>;

/// The settings of a file.
///
/// # Errors
/// It can't be read, is no JSON, has keys that mean nothing, or says what a flag has said: dockerd's texts.
pub fn read(path: &Path, given: &Values) -> Result<Values, String> {
    let bytes = std::fs::read(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        format!("open {}: {why}", path.display())
    })?;
    parse(&bytes, given)
}

fn parse(bytes: &[u8], given: &Values) -> Result<Values, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
    if bytes.is_empty() {
        return Ok(Values::new());
    }
    let object: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| format!("invalid JSON: {error}"))?;
    let mut values = Values::new();
    let mut unknown = Vec::new();
    for (key, value) in object {
        match Setting::of_key(&key) {
            Some(setting) => drop(values.insert(setting.key, value)),
            // Settings in groups, as dockerd takes them.
            None => match value {
                Value::Object(group) => {
                    for (key, value) in group {
                        match Setting::of_key(&key) {
                            Some(setting) => drop(values.insert(setting.key, value)),
                            None => unknown.push(key),
                        }
                    }
                }
                _ => unknown.push(key),
            },
        }
    }
    if !unknown.is_empty() {
        let keys = unknown.join(", ");
        return Err(format!("the following directives don't match any configuration option: {keys}"));
    }
    let conflicts: Vec<_> = given
        .iter()
        .filter(|(key, _)| **key != "runtimes")
        .filter_map(|(key, flag)| {
            let file = values.get(key)?;
            let (flag, file) = (shown(key, flag), shown(key, file));
            Some(format!("{key}: (from flag: {flag}, from file: {file})"))
        })
        .collect();
    if !conflicts.is_empty() {
        return Err(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            conflicts.join(", ")
        ));
    }
    if values.contains_key("host-gateway-ip") && values.contains_key("host-gateway-ips") {
        return Err(
            "host-gateway-ip and host-gateway-ips must not both be specified in the config file".to_owned()
        );
    }
    for (key, value) in &mut values {
        if let Some(setting) = Setting::of_key(key) {
            typed(setting, value)?;
        }
    }
    Ok(values)
}

/// Sees that a value has its setting's type.
fn typed(setting: &Setting, value: &mut Value) -> Result<(), String> {
    let texts = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
    let (fits, wanted) = match setting.kind {
        Kind::Flag => (value.is_boolean(), "bool"),
        Kind::Number => (value.is_i64(), "int"),
        Kind::Text | Kind::Ip => (value.is_string(), "string"),
        Kind::Bytes => {
            if let Some(text) = value.as_str() {
                *value = Value::from(crate::size::binary(text).map_err(|error| error.message)?);
            }
            (value.is_u64(), "opts.MemBytes")
        }
        Kind::List | Kind::IpList | Kind::Hosts | Kind::Labels => (texts(value), "[]string"),
        Kind::Map | Kind::Features | Kind::MapOfMaps | Kind::Runtimes | Kind::Ulimits => {
            (value.is_object(), "map[string]string")
        }
        Kind::Pools => (value.is_array(), "[]*ipamutils.NetworkToSplit"),
    };
    if fits {
        return Ok(());
    }
    let is = match value {
        Value::Null => return Ok(()),
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let key = setting.key;
    Err(format!(
        "invalid JSON: json: cannot unmarshal {is} into Go struct field Config.{key} of type {wanted}"
    ))
}

/// As Go's `%v` prints it; without the credentials of a proxy.
fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) if key.ends_with("-proxy") => without_credentials(text),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(|item| shown(key, item)).collect::<Vec<_>>().join(" "))
        }
        Value::Object(object) => {
            let mut pairs: Vec<_> =
                object.iter().map(|(name, value)| format!("{name}:{}", shown(key, value))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

/// A URL with `xxxxx` where its user and password are.
#[must_use]
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host_end = rest.find('/').unwrap_or(rest.len());
    match rest[..host_end].rfind('@') {
        Some(at) => format!("{scheme}://xxxxx:xxxxx{}", &rest[at..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_files_say_nothing() {
        for empty in [&b""[..], b" \n", b"\xef\xbb\xbf", b"{}"] {
            assert_eq!(parse(empty, &Values::new()), Ok(Values::new()));
        }
        assert!(read(Path::new("/dev/null"), &Values::new()).is_ok());
        let error = read(Path::new("/nonexistent"), &Values::new()).unwrap_err();
        assert_eq!(error, "open /nonexistent: no such file or directory");
    }

    #[test]
    fn refusals_are_dockerds() {
        let given = Values::from([("debug", json!(true)), ("labels", json!(["c=d"]))]);
        for (file, text) in [
            (json!({ "nope": 1 }), "the following directives don't match any configuration option: nope"),
            (
                json!({ "debug": true, "labels": ["a=b"] }),
                "the following directives are specified both as a flag and in the configuration file: \
                 debug: (from flag: true, from file: true), labels: (from flag: [c=d], from file: [a=b])",
            ),
            (
                json!({ "icc": "x" }),
                "invalid JSON: json: cannot unmarshal string into Go struct field Config.icc of type bool",
            ),
        ] {
            assert_eq!(parse(file.to_string().as_bytes(), &given), Err(text.to_owned()));
        }
        assert!(parse(b"{bad", &given).unwrap_err().starts_with("invalid JSON: "));
    }

    #[test]
    fn groups_and_runtimes_of_both_are_taken() {
        let given = Values::from([("runtimes", json!({ "a": { "path": "/a" } }))]);
        let file = json!({ "runtimes": { "b": { "path": "/b" } }, "tls-options": { "tlscert": "/c" } });
        let values = parse(file.to_string().as_bytes(), &given).unwrap();
        assert_eq!(values["tlscert"], json!("/c"));
    }

    #[test]
    fn credentials_are_not_shown() {
        assert_eq!(without_credentials("http://me:secret@proxy:1/x"), "http://xxxxx:xxxxx@proxy:1/x");
        assert_eq!(without_credentials("http://proxy/a@b"), "http://proxy/a@b");
    }
}
