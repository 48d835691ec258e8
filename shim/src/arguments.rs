//! The command line, with Go's flags: one dash or two, `-flag value` or `-flag=value`, the action at the end. Pure.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the shim is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Serve on the socket that is standard input: what `start` starts.
    #[default]
    Serve,
    Start,
    Delete,
    Info,
    Version,
}

/// The parsed command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    pub action: Action,
    pub namespace: String,
    pub id: String,
    /// containerd's gRPC socket; part of the name of the shim's own.
    pub address: String,
    pub bundle: Option<PathBuf>,
    pub debug: bool,
    /// For the serving process: look for containers of a shim that died.
    pub takeover: bool,
}

/// A command line that makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentsError {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("invalid boolean value {value:?} for -{flag}")]
    NotBool { flag: String, value: String },
    #[error("unknown action {0:?}")]
    Action(String),
    #[error("shim namespace cannot be empty")]
    NoNamespace,
    #[error("shim id cannot be empty")]
    NoId,
}

impl Arguments {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// An unknown flag or action, a missing value, or a missing namespace or id where the action needs them.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, ArgumentsError> {
        let mut parsed = Self::default();
        let (mut info, mut version) = (false, false);
        let mut words = words.into_iter().map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                parsed.action = match word.as_str() {
                    "" => Action::Serve,
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => return Err(ArgumentsError::Action(word)),
                };
                break;
            };
            let (flag, value) = match flag.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (flag.to_owned(), None),
            };
            match flag.as_str() {
                "debug" => parsed.debug = on(&flag, value)?,
                "info" => info = on(&flag, value)?,
                "v" | "version" => version = on(&flag, value)?,
                "takeover" => parsed.takeover = on(&flag, value)?,
                _ => {
                    let value = value.or_else(|| words.next());
                    parsed.set(&flag, value.ok_or_else(|| ArgumentsError::NoValue(flag.clone()))?)?;
                }
            }
        }
        if version {
            parsed.action = Action::Version;
        } else if info {
            parsed.action = Action::Info;
        } else if parsed.namespace.is_empty() {
            return Err(ArgumentsError::NoNamespace);
        } else if parsed.id.is_empty() {
            return Err(ArgumentsError::NoId);
        }
        Ok(parsed)
    }

    fn set(&mut self, flag: &str, value: String) -> Result<(), ArgumentsError> {
        match flag {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "address" => self.address = value,
            "bundle" => self.bundle = (!value.is_empty()).then(|| value.into()),
            // What older versions pass, and nobody needs: events go to containerd's own socket.
            "publish-binary" | "socket" | "debug-socket" => {}
            _ => return Err(ArgumentsError::Unknown(flag.to_owned())),
        }
        Ok(())
    }
}

/// Go's booleans: alone they are true.
fn on(flag: &str, value: Option<String>) -> Result<bool, ArgumentsError> {
    match value.as_deref() {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(ArgumentsError::NotBool { flag: flag.to_owned(), value: value.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentsError> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_line_of_containerd() {
        let line =
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id a -debug start";
        let parsed = parse(line).unwrap();
        assert_eq!(parsed.action, Action::Start);
        assert_eq!((parsed.namespace.as_str(), parsed.id.as_str()), ("k8s.io", "a"));
        assert!(parsed.debug);
    }

    #[test]
    fn two_dashes_and_equals() {
        let parsed = parse("--namespace=n --id=a=b -bundle=/b --debug=false delete").unwrap();
        assert_eq!(parsed.id, "a=b");
        assert_eq!(parsed.bundle, Some("/b".into()));
        assert_eq!((parsed.action, parsed.debug), (Action::Delete, false));
    }

    #[test]
    fn info_and_version_need_nothing_else() {
        assert_eq!(parse("-info").unwrap().action, Action::Info);
        assert_eq!(parse("-v").unwrap().action, Action::Version);
    }

    #[test]
    fn without_an_action_it_serves() {
        assert_eq!(parse("-namespace n -id a").unwrap().action, Action::Serve);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(parse("-id a start"), Err(ArgumentsError::NoNamespace));
        assert_eq!(parse("-namespace n start"), Err(ArgumentsError::NoId));
        assert_eq!(parse("-what x"), Err(ArgumentsError::Unknown("what".into())));
        assert_eq!(parse("-namespace"), Err(ArgumentsError::NoValue("namespace".into())));
        assert_eq!(parse("-namespace n -id a stop"), Err(ArgumentsError::Action("stop".into())));
        assert!(matches!(parse("-debug=maybe"), Err(ArgumentsError::NotBool { .. })));
    }
}
