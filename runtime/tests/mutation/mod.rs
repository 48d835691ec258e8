//! Damage done to JSON, for the property tests of what reads it.

use serde_json::Value;

/// Replaces the value that a walk along `steps` ends at.
pub(crate) fn replace(value: &mut Value, steps: &[usize], by: &Value) {
    let child = match (&mut *value, steps.first()) {
        (Value::Array(items), Some(step)) if !items.is_empty() => {
            let index = step % items.len();
            items.get_mut(index)
        }
        (Value::Object(fields), Some(step)) if !fields.is_empty() => {
            let index = step % fields.len();
            fields.values_mut().nth(index)
        }
        _ => None,
    };
    match child {
        Some(child) => replace(child, steps.get(1..).unwrap_or_default(), by),
        None => *value = by.clone(),
    }
}
