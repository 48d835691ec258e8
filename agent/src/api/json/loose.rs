//! Values as Go reads them into an object: a field's name in any case, and the place of what does not fit.
//!
//! Called by [`super::of_value`] only.

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// What does not fit, in serde's words, and the fields and places in lists around it, the innermost first.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) words: String,
    pub(super) path: Vec<String>,
}

impl Misfit {
    fn below(mut self, name: impl ToString) -> Self {
        self.path.push(name.to_string());
        self
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.words)
    }
}

impl std::error::Error for Misfit {}

impl serde::de::Error for Misfit {
    fn custom<T: std::fmt::Display>(words: T) -> Self {
        Self { words: words.to_string(), path: Vec::new() }
    }
}

/// A value that is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loose<'a>(pub(super) &'a Value);

impl<'de> Deserializer<'de> for Loose<'de> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items { rest: items.iter(), at: 0, missing: 0 }),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.as_str(), value)).collect::<Vec<_>>();
                visitor.visit_map(Fields { rest: fields.into_iter(), value: None })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// As many as there are: Go leaves out what is too much, and fills up what is missing.
    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Misfit> {
        let Value::Array(items) = self.0 else { return self.deserialize_any(visitor) };
        let rest = items.get(..length).unwrap_or(items);
        visitor.visit_seq(Items { rest: rest.iter(), at: 0, missing: length - rest.len() })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let given = match self.0 {
            Value::Object(given) => given,
            // Serde would take its items for the fields in their order; in Go a list is never an object.
            Value::Array(_) => return Err(Misfit::invalid_type(Unexpected::Seq, &visitor)),
            _ => return self.deserialize_any(visitor),
        };
        let mut fields: Vec<(&str, &Value)> = Vec::new();
        for (name, value) in given {
            let known = names.iter().find(|known| known.eq_ignore_ascii_case(name)).copied();
            // What is written as it is meant counts before what is not.
            if let Some(known) = known
                && (name == known
                    || !given.contains_key(known) && !fields.iter().any(|(name, _)| *name == known))
            {
                fields.push((known, value));
            }
        }
        visitor.visit_map(Fields { rest: fields.into_iter(), value: None })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.0.deserialize_enum(name, variants, visitor).map_err(Misfit::custom)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple_struct map identifier ignored_any
    }
}

struct Fields<'a> {
    rest: std::vec::IntoIter<(&'a str, &'a Value)>,
    value: Option<(&'a str, &'a Value)>,
}

impl<'a> MapAccess<'a> for Fields<'a> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        self.value = self.rest.next();
        let Some((name, _)) = self.value else { return Ok(None) };
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let (name, value) = self.value.take().ok_or_else(|| Misfit::custom("a value without a name"))?;
        seed.deserialize(Loose(value)).map_err(|misfit| misfit.below(name))
    }
}

struct Items<'a> {
    rest: std::slice::Iter<'a, Value>,
    at: usize,
    /// So many zeros more.
    missing: usize,
}

impl<'a> SeqAccess<'a> for Items<'a> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some(value) = self.rest.next() else {
            let Some(missing) = self.missing.checked_sub(1) else { return Ok(None) };
            self.missing = missing;
            return seed.deserialize(0_u8.into_deserializer()).map(Some);
        };
        self.at += 1;
        seed.deserialize(Loose(value)).map(Some).map_err(|misfit| misfit.below(self.at - 1))
    }
}
