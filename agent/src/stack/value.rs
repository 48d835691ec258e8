//! A value of the file with the place where it stands, so that what is wrong with it can be said with its place.

use serde_json::Value;

use crate::{duration, size};

/// Why a file is no stack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    #[error("the file is no YAML: {0}")]
    Yaml(String),
    #[error("{place}: {why}")]
    At { place: String, why: String },
    #[error("{place}: reading {path}: {why}")]
    File { place: String, path: String, why: String },
}

/// What a missing key has.
static NULL: Value = Value::Null;

#[derive(Debug, Clone)]
pub(super) struct Place<'v> {
    path: String,
    /// Keys may have dots: it can't be read of the path.
    key: String,
    pub(super) value: &'v Value,
}

impl<'v> Place<'v> {
    pub(super) fn root(value: &'v Value) -> Self {
        Self { path: String::new(), key: String::new(), value }
    }

    /// What is there below a key; nothing where it is null.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        self.value.get(key).filter(|value| !value.is_null()).map(|value| self.child(key, value))
    }

    /// The same of one that is there, be it null.
    pub(super) fn at(&self, key: &str) -> Self {
        self.child(key, self.value.get(key).unwrap_or(&NULL))
    }

    pub(super) fn items(&self) -> Result<Vec<Self>, StackError> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("must be a list"))?;
        Ok(items.iter().enumerate().map(|(index, value)| self.child(&index.to_string(), value)).collect())
    }

    /// By which it is in the map above.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn path(&self) -> String {
        self.path.clone()
    }

    pub(super) fn wrong(&self, why: &str) -> StackError {
        StackError::At { place: self.path.clone(), why: why.to_owned() }
    }

    pub(super) fn unknown(&self) -> StackError {
        self.wrong("is not something that a stack can have here")
    }

    /// A text, or a number or truth value as one.
    pub(super) fn text(&self) -> Result<String, StackError> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(truth) => Ok(truth.to_string()),
            _ => Err(self.wrong("must be a text")),
        }
    }

    pub(super) fn number(&self) -> Result<i64, StackError> {
        self.text()?.parse().map_err(|_| self.wrong("must be a whole number"))
    }

    pub(super) fn truth(&self) -> Result<bool, StackError> {
        self.text()?.parse().map_err(|_| self.wrong("must be true or false"))
    }

    /// A list, or a text whose words are split as a shell would.
    pub(super) fn words(&self) -> Result<Vec<String>, StackError> {
        match self.value {
            Value::String(text) => split(text).ok_or_else(|| self.wrong("has a quote without its end")),
            _ => self.texts(),
        }
    }

    pub(super) fn texts(&self) -> Result<Vec<String>, StackError> {
        self.items()?.iter().map(Self::text).collect()
    }

    /// A map, or a list of `key=value`; a key without a value has none.
    pub(super) fn pairs(&self) -> Result<Vec<(String, Option<String>)>, StackError> {
        if self.value.is_array() {
            let texts = self.texts()?.into_iter();
            return Ok(texts
                .map(|text| match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (text, None),
                })
                .collect());
        }
        keys(self)?
            .iter()
            .map(|key| Ok((key.clone(), self.get(key).map(|it| it.text()).transpose()?)))
            .collect()
    }

    /// Nanoseconds.
    pub(super) fn span(&self) -> Result<i64, StackError> {
        let span = duration::parse(&self.text()?).ok().filter(|span| *span >= 0);
        span.ok_or_else(|| self.wrong("must be a duration such as 1m30s"))
    }

    /// Bytes, with a letter or without.
    pub(super) fn bytes(&self) -> Result<i64, StackError> {
        let bytes = size::binary(&self.text()?).ok().and_then(|bytes| i64::try_from(bytes).ok());
        bytes.ok_or_else(|| self.wrong("must be a size such as 512M"))
    }

    /// Billionths of a CPU.
    pub(super) fn cpus(&self) -> Result<i64, StackError> {
        let wrong = || self.wrong("must be a number of CPUs such as 0.5");
        let cpus: f64 = self.text()?.parse().map_err(|_| wrong())?;
        scaled(cpus, 1e9).ok_or_else(wrong)
    }

    fn child(&self, key: &str, value: &'v Value) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { path, key: key.to_owned(), value }
    }
}

/// The keys of a map, sorted: the order in which a file has them says nothing, and requests of the same stack are the same.
pub(super) fn keys(place: &Place<'_>) -> Result<Vec<String>, StackError> {
    let map = place.value.as_object().ok_or_else(|| place.wrong("must be a map"))?;
    let mut keys: Vec<_> = map.keys().cloned().collect();
    keys.sort_unstable();
    Ok(keys)
}

#[expect(clippy::cast_possible_truncation, reason = "the bounds were looked at")]
fn scaled(number: f64, by: f64) -> Option<i64> {
    let product = (number * by).round();
    (0.0..9e18).contains(&product).then_some(product as i64)
}

/// As a shell splits words; none where a quote does not end.
fn split(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(letters.next()),
            ('\'' | '"', None) => {
                let _begun = word.get_or_insert_default();
                quote = Some(letter);
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_spans_and_cpus() {
        for (text, bytes) in
            [("512M", 512 << 20), ("1g", 1 << 30), ("100", 100), ("2kb", 2048), ("1.5MiB", 3 << 19)]
        {
            assert_eq!(Place::root(&json!(text)).bytes(), Ok(bytes), "{text}");
        }
        for (text, nanos) in [("1m30s", 90_000_000_000), ("500ms", 500_000_000), ("1.5s", 1_500_000_000)] {
            assert_eq!(Place::root(&json!(text)).span(), Ok(nanos), "{text}");
        }
        assert_eq!(Place::root(&json!(0.5)).cpus(), Ok(500_000_000));
        for text in ["", "x", "1x", "-1"] {
            let value = json!(text);
            let place = Place::root(&value);
            assert!(place.bytes().is_err() && place.span().is_err() && place.cpus().is_err(), "{text}");
        }
    }

    #[test]
    fn words_as_a_shell_has_them() {
        let value = json!(r#"sh -c 'echo "a b"' c\ d "" e"#);
        let wanted = ["sh", "-c", "echo \"a b\"", "c d", "", "e"].map(str::to_owned);
        assert_eq!(Place::root(&value).words(), Ok(wanted.to_vec()));
        assert!(Place::root(&json!("a 'b")).words().is_err());
    }
}
