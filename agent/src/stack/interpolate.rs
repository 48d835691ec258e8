//! Variables in texts, as Docker's client fills them: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?why}`,
//! `${NAME?why}`; `$$` is a dollar.

use std::collections::BTreeMap;

use serde_json::Value;

use super::value::StackError;

pub(super) fn fill(value: &mut Value, environment: &BTreeMap<String, String>) -> Result<(), StackError> {
    match value {
        Value::String(text) if text.contains('$') => *text = filled(text, environment)?,
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill(item, environment))?,
        Value::Object(map) => map.values_mut().try_for_each(|item| fill(item, environment))?,
        _ => {}
    }
    Ok(())
}

fn filled(text: &str, environment: &BTreeMap<String, String>) -> Result<String, StackError> {
    let wrong = |why: &str| StackError::At { place: format!("{text:?}"), why: why.to_owned() };
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        filled.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            filled.push('$');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('{') {
            let (inner, tail) = tail.split_once('}').ok_or_else(|| wrong("a variable does not end"))?;
            filled.push_str(&variable(inner, environment).map_err(|why| wrong(&why))?);
            rest = tail;
        } else {
            let end = rest.find(|c: char| !is_of_name(c)).unwrap_or(rest.len());
            if end == 0 {
                return Err(wrong("a dollar is written as $$"));
            }
            filled.push_str(environment.get(&rest[..end]).map_or("", String::as_str));
            rest = &rest[end..];
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

fn variable(inner: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let (name, rest) = inner.split_at(inner.find(|c: char| !is_of_name(c)).unwrap_or(inner.len()));
    let value = environment.get(name);
    let filled = value.filter(|value| !value.is_empty());
    let (operator, operand) =
        rest.split_at(rest.find(|c: char| !":-?".contains(c)).unwrap_or(rest.len()).min(2));
    match operator {
        _ if name.is_empty() => Err("a variable has no name".to_owned()),
        "" => Ok(value.cloned().unwrap_or_default()),
        ":-" => Ok(filled.map_or(operand, String::as_str).to_owned()),
        "-" => Ok(value.map_or(operand, String::as_str).to_owned()),
        ":?" => {
            filled.cloned().ok_or_else(|| format!("required variable {name} is missing a value: {operand}"))
        }
        "?" => {
            value.cloned().ok_or_else(|| format!("required variable {name} is missing a value: {operand}"))
        }
        _ => Err(format!("invalid interpolation format of {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let environment =
            [("A", "1"), ("E", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        for (text, wanted) in [
            ("$A-${A}", Ok("1-1")),
            ("$$A", Ok("$A")),
            ("${N:-d}${N-e}${E:-f}${E-g}", Ok("def")),
            ("${N}", Ok("")),
            ("${N:?set it}", Err("required variable N is missing a value: set it")),
            ("${A", Err("a variable does not end")),
            ("100$", Err("a dollar is written as $$")),
        ] {
            let filled = filled(text, &environment).map_err(|error| error.to_string());
            match wanted {
                Ok(wanted) => assert_eq!(filled.as_deref(), Ok(wanted), "{text}"),
                Err(why) => assert!(filled.unwrap_err().ends_with(why), "{text}"),
            }
        }
    }
}
