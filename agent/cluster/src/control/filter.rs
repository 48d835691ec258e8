//! The `filters` argument of list requests, and how its values are compared.
//!
//! Values of one key are alternatives, keys must all hold. Names and ids match by their start.

use std::collections::{BTreeMap, BTreeSet};

use crate::objects::Labels;

use super::error::ControlError;
use super::texts;

/// Values by key, as the client sent them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Filters {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut filters = Self::default();
        for (key, value) in pairs {
            filters.0.entry(key.into()).or_default().insert(value.into());
        }
        filters
    }
}

impl Filters {
    /// # Errors
    /// When there is a key that is none of `keys`.
    pub(super) fn accept(&self, keys: &[&str]) -> Result<(), ControlError> {
        match self.0.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(unknown) => Err(texts::filter_unknown(unknown)),
            None => Ok(()),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.of(key).next().is_some()
    }

    pub(super) fn of(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether `text` starts with one of the values, or there is none.
    pub(super) fn starts(&self, key: &str, text: &str) -> bool {
        !self.has(key) || self.of(key).any(|value| text.starts_with(value))
    }

    /// Whether `text` is one of the values, or there is none.
    pub(super) fn equals(&self, key: &str, text: &str) -> bool {
        !self.has(key) || self.of(key).any(|value| text == value)
    }

    /// Whether every value, a `key` or a `key=value`, is among the labels.
    pub(super) fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.of(key).all(|wanted| {
            let (label, value) = wanted.split_once('=').unwrap_or((wanted, ""));
            labels.get(label).is_some_and(|found| value.is_empty() || value == found)
        })
    }

    /// The values as what `parse` makes of them. An empty one is none: clients send it for "any".
    ///
    /// # Errors
    /// When `parse` knows one of the others not.
    pub(super) fn parsed<T>(&self, key: &str, parse: fn(&str) -> Option<T>) -> Result<Vec<T>, ControlError> {
        let known = |value: &str| parse(value).ok_or_else(|| texts::filter_value(key, value));
        self.of(key).filter(|value| !value.is_empty()).map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(pairs: &[(&str, &str)]) -> Filters {
        pairs.iter().copied().collect()
    }

    #[test]
    fn without_values_everything_matches() {
        let none = Filters::default();
        assert!(
            none.starts("name", "a") && none.equals("mode", "global") && none.labels("label", &Labels::new())
        );
        assert_eq!(none.accept(&[]), Ok(()));
    }

    #[test]
    fn values_of_a_key_are_alternatives_but_labels_are_not() {
        let two = filters(&[("name", "web"), ("name", "db"), ("label", "a"), ("label", "b=1")]);
        assert!(two.starts("name", "web-1") && two.starts("name", "db") && !two.starts("name", "cache"));
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Labels>()
        };
        assert!(two.labels("label", &labels(&[("a", "x"), ("b", "1")])));
        assert!(!two.labels("label", &labels(&[("a", "x"), ("b", "2")])));
        assert!(!two.labels("label", &labels(&[("b", "1")])));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = filters(&[("colour", "red"), ("name", "a")]).accept(&["name"]).unwrap_err();
        assert_eq!(error, texts::filter_unknown("colour"));
    }
}
