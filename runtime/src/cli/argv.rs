//! Turns a command line as Go programs take it into the one form that clap reads.
//!
//! runc's callers type `-no-subreaper`, `--force=false`, `-e A=B` and `--root=/x`; clap would read the first as a cluster
//! of short flags. Every flag comes out as `--name` or `--name=value`, so nothing of a value is ever taken for a flag.
//! Owns the words of the errors about flags, which podman's probes match. Called by `cli` only; no I/O.

use std::cell::LazyCell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, Command};

/// Whether flags are looked for behind the first operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flags {
    /// Anywhere.
    Anywhere,
    /// Before the first operand only: what follows belongs to a command or to another program (`exec`, `ps`).
    BeforeOperands,
}

/// A command line in clap's form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The command's own flags.
    pub(super) flags: Vec<OsString>,
    /// Global flags typed behind the command's name.
    pub(super) global: Vec<OsString>,
    /// What is no flag.
    pub(super) operands: Vec<OsString>,
    /// `-h` or `--help` was there.
    pub(super) help: bool,
}

/// A flag that cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FlagError {
    /// No such flag.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The line ends where a flag's value should be. podman's probe for `restore --lsm-mount-context` matches this text.
    #[error("flag needs an argument: {0}")]
    NoValue(String),
    /// A boolean flag with a value that is none.
    #[error("invalid value {value:?} for flag -{name}: parse error")]
    NotBoolean {
        /// As typed.
        value: String,
        /// The flag.
        name: String,
    },
}

/// Splits `args` by the flags that `command` and, behind a command's name, `global` define (built only if asked).
pub(super) fn normalise(
    command: &Command,
    global: Option<&LazyCell<Command>>,
    args: impl IntoIterator<Item = OsString>,
    flags: Flags,
) -> Result<Line, FlagError> {
    let mut line = Line::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if flags == Flags::BeforeOperands && !line.operands.is_empty() {
            // `exec id -- sh`: the dashes only end the flags.
            if arg != "--" {
                line.operands.push(arg);
            }
            line.operands.extend(args);
            break;
        }
        let bytes = arg.as_bytes();
        let typed = match bytes {
            b"--" => {
                line.operands.extend(args);
                break;
            }
            [b'-', b'-', name @ ..] => name,
            [b'-', first, ..] if first.is_ascii_alphabetic() => &bytes[1..],
            // Go's flag parser ends at `-` and at `-1`: neither is a flag, nor is anything behind it.
            [b'-', ..] => {
                line.operands.push(arg);
                line.operands.extend(args);
                break;
            }
            _ => {
                line.operands.push(arg);
                continue;
            }
        };
        let (name, value) = match typed.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&typed[..equals], Some(&typed[equals + 1..])),
            None => (typed, None),
        };
        if matches!(name, b"h" | b"help") {
            line.help = true;
            continue;
        }
        let (known, into) = match find(command, name) {
            Some(known) => (known, &mut line.flags),
            None => match global.and_then(|global| find(global, name)) {
                Some(known) => (known, &mut line.global),
                None => return Err(FlagError::Unknown(lossy(name))),
            },
        };
        let long = known.get_long().unwrap_or_default();
        if known.get_action().takes_values() && !may_stand_alone(known) {
            let value = match value {
                Some(value) => OsString::from_vec(value.to_vec()),
                None => args.next().ok_or_else(|| FlagError::NoValue(lossy(bytes)))?,
            };
            into.push(join(long, &value));
        } else {
            push_boolean(into, known, long, value.unwrap_or(b"true"))?;
        }
    }
    Ok(line)
}

/// Adds a boolean flag; a later one takes the place of an earlier one.
fn push_boolean(into: &mut Vec<OsString>, known: &Arg, long: &str, value: &[u8]) -> Result<(), FlagError> {
    let on = match value {
        b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" | b"" => true,
        b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => false,
        _ => return Err(FlagError::NotBoolean { value: lossy(value), name: long.to_owned() }),
    };
    let plain = OsString::from(format!("--{long}"));
    into.retain(|flag| *flag != plain);
    if may_stand_alone(known) {
        into.push(join(long, OsStr::new(if on { "true" } else { "false" })));
    } else if on {
        into.push(plain);
    }
    Ok(())
}

/// Whether the flag is a boolean whose being typed counts (`--flag[=true|false]` in clap's terms).
fn may_stand_alone(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|count| count.min_values() == 0)
}

fn find<'a>(command: &'a Command, name: &[u8]) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        let by_long = arg.get_long().is_some_and(|long| long.as_bytes() == name);
        let by_short = || arg.get_short().is_some_and(|short| name == [short as u8]);
        by_long || by_short()
    })
}

fn join(long: &str, value: &OsStr) -> OsString {
    let mut flag = OsString::with_capacity(long.len() + value.len() + 3);
    flag.push("--");
    flag.push(long);
    flag.push("=");
    flag.push(value);
    flag
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ArgAction;

    fn command() -> Command {
        Command::new("x")
            .arg(Arg::new("bundle").long("bundle").short('b'))
            .arg(Arg::new("no-subreaper").long("no-subreaper").action(ArgAction::SetTrue))
            .arg(Arg::new("nnp").long("no-new-privs").num_args(0..=1).require_equals(true))
            .arg(Arg::new("env").long("env").short('e').action(ArgAction::Append))
    }

    fn global() -> Command {
        Command::new("ketch").arg(Arg::new("root").long("root"))
    }

    fn split(args: &[&str], flags: Flags) -> Result<Line, FlagError> {
        normalise(
            &command(),
            Some(&LazyCell::new(global as fn() -> Command)),
            args.iter().map(OsString::from),
            flags,
        )
    }

    #[test]
    fn one_dash_and_two_are_the_same() {
        for args in [["-bundle", "/x"], ["--bundle", "/x"], ["-b", "/x"]] {
            assert_eq!(split(&args, Flags::Anywhere).unwrap().flags, ["--bundle=/x"]);
        }
        assert_eq!(split(&["-no-subreaper"], Flags::Anywhere).unwrap().flags, ["--no-subreaper"]);
        assert_eq!(split(&["-b=/x"], Flags::Anywhere).unwrap().flags, ["--bundle=/x"]);
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        assert_eq!(split(&["-e", "-b"], Flags::Anywhere).unwrap().flags, ["--env=-b"]);
        assert_eq!(split(&["--env=A=B"], Flags::Anywhere).unwrap().flags, ["--env=A=B"]);
        assert_eq!(split(&["--env="], Flags::Anywhere).unwrap().flags, ["--env="]);
    }

    #[test]
    fn booleans_take_values_and_the_last_counts() {
        let off = ["--no-subreaper", "--no-subreaper=false"];
        assert!(split(&off, Flags::Anywhere).unwrap().flags.is_empty());
        assert_eq!(split(&["-no-new-privs=0"], Flags::Anywhere).unwrap().flags, ["--no-new-privs=false"]);
        assert_eq!(split(&["-no-new-privs"], Flags::Anywhere).unwrap().flags, ["--no-new-privs=true"]);
        let error = split(&["--no-subreaper=maybe"], Flags::Anywhere).unwrap_err();
        assert_eq!(error.to_string(), "invalid value \"maybe\" for flag -no-subreaper: parse error");
    }

    #[test]
    fn operands_end_flags_where_told() {
        let line = split(&["id", "-b", "/x"], Flags::Anywhere).unwrap();
        assert_eq!((line.flags.len(), line.operands), (1, vec!["id".into()]));
        let line = split(&["-e", "A=B", "id", "sh", "-c", "--", "x"], Flags::BeforeOperands).unwrap();
        assert_eq!(line.operands, ["id", "sh", "-c", "--", "x"]);
        let line = split(&["id", "--", "sh"], Flags::BeforeOperands).unwrap();
        assert_eq!(line.operands, ["id", "sh"]);
        assert_eq!(split(&["--", "-b"], Flags::Anywhere).unwrap().operands, ["-b"]);
        assert_eq!(split(&["-1", "-b"], Flags::Anywhere).unwrap().operands, ["-1", "-b"]);
    }

    #[test]
    fn global_flags_are_taken_behind_the_command() {
        let line = split(&["id", "--root", "/r"], Flags::Anywhere).unwrap();
        assert_eq!(line.global, ["--root=/r"]);
    }

    #[test]
    fn errors_use_the_words_that_callers_match() {
        assert_eq!(
            split(&["--foo=1"], Flags::Anywhere).unwrap_err().to_string(),
            "flag provided but not defined: -foo"
        );
        assert_eq!(
            split(&["--bundle"], Flags::Anywhere).unwrap_err().to_string(),
            "flag needs an argument: --bundle"
        );
    }
}
