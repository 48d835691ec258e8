//! YAML as a tree of JSON values, by the core schema with YAML 1.1's merge key, as Docker's client reads it. Bounded: a file is
//! untrusted as long as nobody has looked at it.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

use super::value::StackError;

const DEEPEST: usize = 64;
/// Nodes of all trees together; aliases are copies.
const MOST_NODES: usize = 200_000;

/// A list or a map that is not at its end.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// The first document of the text.
pub(super) fn parse(text: &str) -> Result<Value, StackError> {
    let mut tree = Tree::default();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| StackError::Yaml(error.to_string()))?;
        match event {
            Event::Scalar(text, style, anchor, _) => tree.put(scalar(&text, style), anchor)?,
            Event::Alias(anchor) => {
                let value =
                    tree.anchored.iter().rev().find(|(id, _)| *id == anchor).map(|(_, it)| it.clone());
                tree.put(value.ok_or_else(|| wrong("an alias names itself"))?, 0)?;
            }
            Event::SequenceStart(anchor, _) => tree.open(Open::List(Vec::new()), anchor)?,
            Event::MappingStart(anchor, _) => tree.open(Open::Map(Map::new(), None), anchor)?,
            Event::SequenceEnd | Event::MappingEnd => tree.close()?,
            Event::DocumentEnd => break,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
    }
    Ok(tree.done.unwrap_or(Value::Null))
}

#[derive(Default)]
struct Tree {
    open: Vec<(Open, usize)>,
    anchored: Vec<(usize, Value)>,
    done: Option<Value>,
    nodes: usize,
}

impl Tree {
    fn open(&mut self, open: Open, anchor: usize) -> Result<(), StackError> {
        if self.open.len() == DEEPEST {
            return Err(wrong("it is too deep"));
        }
        self.open.push((open, anchor));
        Ok(())
    }

    fn close(&mut self) -> Result<(), StackError> {
        match self.open.pop() {
            Some((Open::List(items), anchor)) => self.put(Value::Array(items), anchor),
            Some((Open::Map(map, _), anchor)) => self.put(Value::Object(merged(map)?), anchor),
            None => Err(wrong("something ends that has not begun")),
        }
    }

    fn put(&mut self, value: Value, anchor: usize) -> Result<(), StackError> {
        self.nodes += if self.open.is_empty() { 1 } else { size(&value) };
        if self.nodes > MOST_NODES {
            return Err(wrong("it is too large"));
        }
        if anchor > 0 {
            self.anchored.push((anchor, value.clone()));
        }
        match self.open.last_mut() {
            None => self.done = Some(value),
            Some((Open::List(items), _)) => items.push(value),
            Some((Open::Map(map, key), _)) => match key.take() {
                None => *key = Some(text_of(&value).ok_or_else(|| wrong("a key is no text"))?),
                // A key that is there twice is a mistake to Docker's client, too.
                Some(key) if map.contains_key(&key) => {
                    return Err(wrong(&format!("key {key} is there twice")));
                }
                Some(key) => drop(map.insert(key, value)),
            },
        }
        Ok(())
    }
}

fn wrong(why: &str) -> StackError {
    StackError::Yaml(why.to_owned())
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// What `<<` brings is there where the map has nothing of its own.
fn merged(mut map: Map<String, Value>) -> Result<Map<String, Value>, StackError> {
    let Some(more) = map.remove("<<") else { return Ok(map) };
    let maps = if let Value::Array(maps) = more { maps } else { vec![more] };
    for more in maps {
        let Value::Object(more) = more else { return Err(wrong("<< wants a map")) };
        for (key, value) in more {
            let _there = map.entry(key).or_insert(value);
        }
    }
    Ok(map)
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    }
}

fn number(text: &str) -> Option<Value> {
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
    if let Some(digits) = octal.filter(|digits| digits.bytes().all(|it| it.is_ascii_digit())) {
        return i64::from_str_radix(digits, 8).ok().map(Value::from);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok().map(Value::from);
    }
    let is_number = text.bytes().all(|it| it.is_ascii_digit() || b"+-.eE".contains(&it))
        && text.bytes().any(|it| it.is_ascii_digit());
    if !is_number {
        return None;
    }
    text.parse::<i64>()
        .map(Value::from)
        .ok()
        .or_else(|| serde_json::Number::from_f64(text.parse().ok()?).map(Value::Number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_core_schema_with_merges() {
        let text =
            "a: &x {n: 1, t: yes}\nb: {<<: *x, n: 2}\nc: [0444, 1.5, '3', null, ~, true]\nd: |\n  line\n";
        let wanted = json!({
            "a": {"n": 1, "t": "yes"}, "b": {"n": 2, "t": "yes"}, "c": [292, 1.5, "3", null, null, true], "d": "line\n"
        });
        assert_eq!(parse(text).unwrap(), wanted);
        assert_eq!(parse("").unwrap(), Value::Null);
    }

    #[test]
    fn bombs_and_nonsense_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", "));
        }
        let deep = "[".repeat(100);
        for text in [bomb.as_str(), &deep, "a: b: c", "a: 1\na: 2", "{a: 1}: 2", "<<: 1", "a: *b"] {
            assert!(parse(text).is_err(), "{}", &text[..text.len().min(40)]);
        }
    }
}
