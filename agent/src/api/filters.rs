//! The `filters` of list calls: `{"key": {"value": true}}` as the CLI sends, or `{"key": ["value"]}` as docker-py does.

use std::collections::BTreeMap;

use serde_json::Value;

use super::request::Query;
use crate::error::{Error, Result};

/// Each key with its values. Values of one key are alternatives, but labels, which all have to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Those of a request, whose keys are among `accepted`.
    ///
    /// # Errors
    /// Neither form, or another key: dockerd's texts.
    pub fn of(query: &Query, accepted: &[&str]) -> Result<Self> {
        let Some(text) = query.text("filters") else { return Ok(Self::default()) };
        let filters = Self::parse(text)?;
        match filters.0.keys().find(|key| !accepted.contains(&key.as_str())) {
            Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    /// Those of a request, whatever their keys.
    ///
    /// # Errors
    /// Neither form: dockerd's text.
    pub fn unchecked(query: &Query) -> Result<Self> {
        query.text("filters").map_or_else(|| Ok(Self::default()), Self::parse)
    }

    fn parse(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("invalid filter");
        let keys: Option<BTreeMap<String, Value>> = serde_json::from_str(text).map_err(|_| malformed())?;
        let mut filters = BTreeMap::new();
        for (key, values) in keys.unwrap_or_default() {
            let values = match values {
                // As dockerd: a value counts, whatever it is said to be.
                Value::Object(values) => values
                    .into_iter()
                    .map(|(value, wanted)| wanted.is_boolean().then_some(value).ok_or_else(malformed))
                    .collect::<Result<Vec<_>>>()?,
                Value::Array(values) => values
                    .into_iter()
                    .map(|value| value.as_str().map(str::to_owned).ok_or_else(malformed))
                    .collect::<Result<Vec<_>>>()?,
                _ => return Err(malformed()),
            };
            let _none = filters.insert(key, values);
        }
        Ok(Self(filters))
    }

    /// The values of a key; none when it is not given.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Takes a key away; its values.
    pub fn take(&mut self, key: &str) -> Vec<String> {
        self.0.remove(key).unwrap_or_default()
    }

    /// As a request has them.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::json!(self.0).to_string()
    }

    /// Whether the key is given.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.values(key).next().is_some()
    }

    /// Whether one of the key's values `matches`, or none is given.
    pub fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        !self.has(key) || self.values(key).any(matches)
    }

    /// The key as a boolean.
    ///
    /// # Errors
    /// Another value, or both: dockerd's text.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let mut values = self.values(key).map(|value| match value {
            "1" | "true" | "True" | "TRUE" | "t" | "T" => Ok(true),
            "0" | "false" | "False" | "FALSE" | "f" | "F" => Ok(false),
            _ => Err(self.invalid(key)),
        });
        match (values.next().transpose()?, values.next().transpose()?) {
            (Some(first), Some(second)) if first != second => Err(self.invalid(key)),
            (first, _) => Ok(first),
        }
    }

    fn invalid(&self, key: &str) -> Error {
        let mut all: Vec<_> = self.values(key).collect();
        all.sort_unstable();
        Error::invalid(format!("invalid filter '{key}=[{}]'", all.join(" ")))
    }

    /// Whether all the labels that the key names, `key` or `key=value`, are among `labels`.
    #[must_use]
    pub fn labels<'a>(&self, key: &str, labels: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.values(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels(name) == Some(value),
            None => labels(wanted).is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(text: &str, accepted: &[&str]) -> Result<Filters> {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        Filters::of(&Query::parse(&format!("filters={encoded}")), accepted)
    }

    #[test]
    fn both_forms() {
        for text in [r#"{"name":{"a":true,"b":false}}"#, r#"{"name":["a","b"]}"#] {
            let filters = filters(text, &["name"]).unwrap();
            assert_eq!(filters.values("name").collect::<Vec<_>>(), ["a", "b"], "{text}");
        }
        for text in ["{}", "null"] {
            assert!(!filters(text, &[]).unwrap().has("name"), "{text}");
        }
    }

    #[test]
    fn what_is_taken_is_not_sent_on() {
        let mut all = filters(r#"{"name":["a"],"node":{"*":true}}"#, &["name", "node"]).unwrap();
        assert_eq!((all.take("node"), all.take("node")), (vec!["*".to_owned()], Vec::new()));
        assert_eq!(all.json(), r#"{"name":["a"]}"#);
    }

    #[test]
    fn unknown_keys_and_other_json_are_refused() {
        assert_eq!(filters(r#"{"x":["a"]}"#, &["name"]).unwrap_err().message, "invalid filter 'x'");
        for text in ["[]", "x", r#"{"name":"a"}"#, r#"{"name":[1]}"#, r#"{"name":{"a":"b"}}"#] {
            assert_eq!(filters(text, &["name"]).unwrap_err().message, "invalid filter", "{text}");
        }
    }

    #[test]
    fn labels_are_all_wanted() {
        let filters = filters(r#"{"label":["a","b=2"]}"#, &["label"]).unwrap();
        let has = |b: &'static str| {
            filters.labels("label", move |name| match name {
                "a" => Some("1"),
                "b" => Some(b),
                _ => None,
            })
        };
        assert!(has("2") && !has("3"));
    }
}
