//! The `filters` of list requests: `{"key":{"value":true}}` as the command line sends, `{"key":["value"]}` as others do.

use std::collections::BTreeMap;

use ketch_cluster::control::Filters;
use ketch_cluster::control::texts::conversion as texts;
use serde_json::Value;

use crate::Refusal;

/// The filters of a query's value, decoded; none when it is missing. Which keys there may be, each list judges.
///
/// # Errors
/// Neither form.
pub fn of(text: Option<&str>) -> Result<Filters, Refusal> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Filters::default()) };
    let keys: Option<BTreeMap<String, Value>> =
        serde_json::from_str(text).map_err(|_| texts::filters_malformed())?;
    let mut pairs = Vec::new();
    for (key, values) in keys.unwrap_or_default() {
        pairs.extend(values_of(values)?.into_iter().map(|value| (key.clone(), value)));
    }
    Ok(pairs.into_iter().collect())
}

/// As dockerd: a value counts, whatever it is said to be.
fn values_of(values: Value) -> Result<Vec<String>, Refusal> {
    let texts: Option<Vec<_>> = match values {
        Value::Object(values) => {
            values.into_iter().map(|(value, wanted)| wanted.is_boolean().then_some(value)).collect()
        }
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    texts.ok_or_else(texts::filters_malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_and_none() {
        let wanted: Filters = [("name", "a"), ("name", "b")].into_iter().collect();
        for text in [r#"{"name":{"a":true,"b":false}}"#, r#"{"name":["b","a"]}"#] {
            assert_eq!(of(Some(text)), Ok(wanted.clone()), "{text}");
        }
        for text in [None, Some(""), Some("null"), Some("{}"), Some(r#"{"name":[]}"#)] {
            assert_eq!(of(text), Ok(Filters::default()), "{text:?}");
        }
    }

    #[test]
    fn neither_form_is_refused() {
        for text in ["x", "[]", r#"{"a":1}"#, r#"{"a":[1]}"#, r#"{"a":{"b":"c"}}"#] {
            assert_eq!(of(Some(text)), Err(texts::filters_malformed()), "{text}");
        }
    }
}
