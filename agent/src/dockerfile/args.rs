//! The variables of ARG: what the Dockerfile lets be set, and what the request sets. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// May be set without an ARG, and leave no trace in an image.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

type Values = BTreeMap<String, Option<String>>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    /// Of this stage.
    allowed: Values,
    /// In front of the first stage.
    before: Values,
    /// Named by any ARG.
    named: BTreeSet<String>,
    /// The request's; without a value where its client has none either.
    given: Values,
}

impl Args {
    pub(crate) fn new(given: Values) -> Self {
        Self { given, ..Self::default() }
    }

    /// Those of another stage: it has the same names to begin with, and none allowed.
    pub(crate) fn for_stage(&self) -> Self {
        Self { allowed: Values::new(), ..self.clone() }
    }

    /// Takes over what a stage has named.
    pub(crate) fn merge(&mut self, stage: &Self) {
        self.named.extend(stage.named.iter().cloned());
    }

    pub(crate) fn add(&mut self, name: &str, value: Option<&str>) {
        let _older = self.allowed.insert(name.to_owned(), value.map(str::to_owned));
        let _new = self.named.insert(name.to_owned());
    }

    /// One in front of the first stage.
    pub(crate) fn add_before(&mut self, name: &str, value: Option<&str>) {
        self.add(name, value);
        let _older = self.before.insert(name.to_owned(), value.map(str::to_owned));
    }

    /// All that are allowed here, as `NAME=value`.
    pub(crate) fn allowed(&self) -> Vec<String> {
        self.of(&self.allowed)
    }

    /// Those that FROM may use.
    pub(crate) fn for_from(&self) -> Vec<String> {
        self.of(&self.before)
    }

    /// The allowed ones that no variable of the environment hides.
    pub(crate) fn beside(&self, environment: &[String]) -> Vec<String> {
        let hidden: BTreeSet<&str> = environment.iter().map(|variable| name_of(variable)).collect();
        self.allowed().into_iter().filter(|variable| !hidden.contains(name_of(variable))).collect()
    }

    /// A command with the variables that it is run with, as it is known to the cache and the history.
    pub(crate) fn with_command(&self, variables: &[String], command: &[String]) -> Vec<String> {
        if variables.is_empty() {
            return command.to_vec();
        }
        let counts = |variable: &&String| {
            let name = name_of(variable);
            self.allowed.contains_key(name) || !PREDEFINED.contains(&name)
        };
        let mut shown: Vec<String> = variables.iter().filter(counts).cloned().collect();
        shown.sort();
        shown.insert(0, format!("|{}", shown.len()));
        shown.extend(command.iter().cloned());
        shown
    }

    /// The request's that no ARG has named.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let unused = self.given.keys().map(String::as_str);
        unused.filter(|name| !PREDEFINED.contains(name) && !self.named.contains(*name)).collect()
    }

    fn of(&self, names: &Values) -> Vec<String> {
        let all: BTreeSet<&str> = names.keys().map(String::as_str).chain(PREDEFINED).collect();
        let value = |name: &str| {
            let given = self.given.get(name).and_then(Option::as_ref);
            given
                .or_else(|| names.get(name).and_then(Option::as_ref))
                .or_else(|| self.before.get(name).and_then(Option::as_ref))
                .map(|value| format!("{name}={value}"))
        };
        all.into_iter().filter_map(value).collect()
    }
}

pub(crate) fn name_of(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_counts_before_the_dockerfile() {
        let given = [("A", Some("1")), ("HTTP_PROXY", Some("p")), ("X", None), ("Z", Some("z"))];
        let given = given.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        let mut args = Args::new(given.into());
        args.add_before("A", Some("0"));
        args.add_before("B", Some("b"));
        assert_eq!(args.for_from(), ["A=1", "B=b", "HTTP_PROXY=p"]);
        let mut stage = args.for_stage();
        assert_eq!(stage.allowed(), ["HTTP_PROXY=p"]);
        stage.add("B", None);
        stage.add("C", Some("c"));
        stage.add("X", None);
        assert_eq!(stage.allowed(), ["B=b", "C=c", "HTTP_PROXY=p"]);
        let beside = stage.beside(&["C=env".to_owned()]);
        assert_eq!(beside, ["B=b", "HTTP_PROXY=p"]);
        assert_eq!(stage.with_command(&beside, &["x".to_owned()]), ["|1", "B=b", "x"]);
        args.merge(&stage);
        assert_eq!(args.unused(), ["Z"]);
    }
}
