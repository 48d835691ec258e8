//! The command line, as dockerd's (spf13/pflag) is read: `--flag=value`, `--flag value`, `-abc`, its refusals to the letter.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::settings::{Kind, SETTINGS, Setting};

/// What the command line says.
#[derive(Debug, Default)]
pub struct Flags {
    /// Values, by key of the file.
    pub given: BTreeMap<&'static str, Value>,
    /// `--config-file`.
    pub config_file: Option<PathBuf>,
    /// What is to be done.
    pub action: Action,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// The daemon is to run.
    #[default]
    Run,
    /// The configuration is to be looked at.
    Validate,
    /// The machine is to be looked at.
    Check,
    /// The version is to be shown.
    Version,
    /// The flags are to be shown.
    Help,
}

/// Flags that are no settings.
enum Own {
    ConfigFile,
    Validate,
    Version,
    Help,
}

impl Flags {
    /// Reads arguments, without the program's name.
    ///
    /// # Errors
    /// What dockerd would print, for a program of this name.
    pub fn parse(program: &str, arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut arguments = arguments.into_iter();
        let refused = |text: String| {
            format!("Status: {text}\nSee '{program} --help'.\n\n{}\n, Code: 125", usage(program).trim_end())
        };
        while let Some(argument) = arguments.next() {
            if argument == "check" && flags.action == Action::Run {
                flags.action = Action::Check;
            } else if let Some(long) = argument.strip_prefix("--").filter(|long| !long.is_empty()) {
                flags.long(long, &mut arguments).map_err(refused)?;
            } else if let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                flags.short(letters, &mut arguments).map_err(refused)?;
            } else {
                return Err(format!(
                    "\"{program}\" accepts no argument(s).\nSee '{program} --help'.\n\n{}",
                    usage(program)
                ));
            }
        }
        Ok(flags)
    }

    fn long(&mut self, text: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let shown = format!("--{name}");
        let own = match name {
            "config-file" => Some(Own::ConfigFile),
            "validate" => Some(Own::Validate),
            "version" => Some(Own::Version),
            "help" => Some(Own::Help),
            _ => None,
        };
        if let Some(own) = own {
            return self.own(&own, &shown, value, rest);
        }
        let setting = Setting::of_flag(name).ok_or_else(|| format!("unknown flag: --{name}"))?;
        let value = match value {
            Some(value) => value,
            None if setting.kind == Kind::Flag => "true".to_owned(),
            None => rest.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.set(setting, &value)
    }

    /// Letters behind one dash: flags without values, then perhaps one with, whose value may follow without a blank.
    fn short(&mut self, letters: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), String> {
        let mut characters = letters.chars();
        while let Some(letter) = characters.next() {
            match letter {
                'v' => self.action = Action::Version,
                'h' => self.action = Action::Help,
                letter => {
                    let setting = SETTINGS
                        .iter()
                        .find(|setting| setting.short == Some(letter))
                        .ok_or_else(|| format!("unknown shorthand flag: '{letter}' in -{letters}"))?;
                    let tail = characters.as_str();
                    let value = match tail.strip_prefix('=') {
                        Some(value) => value.to_owned(),
                        None if setting.kind == Kind::Flag => {
                            self.set(setting, "true")?;
                            continue;
                        }
                        None if tail.is_empty() => rest
                            .next()
                            .ok_or_else(|| format!("flag needs an argument: '{letter}' in -{letters}"))?,
                        None => tail.to_owned(),
                    };
                    return self.set(setting, &value);
                }
            }
        }
        Ok(())
    }

    fn own(
        &mut self,
        own: &Own,
        shown: &str,
        value: Option<String>,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        if matches!(own, Own::ConfigFile) {
            let value = match value {
                Some(value) => value,
                None => rest.next().ok_or_else(|| format!("flag needs an argument: {shown}"))?,
            };
            self.config_file = Some(PathBuf::from(value));
            return Ok(());
        }
        if value.is_some_and(|value| matches!(value.as_str(), "false" | "0" | "f" | "F" | "False" | "FALSE"))
        {
            return Ok(());
        }
        self.action = match own {
            Own::Version => Action::Version,
            Own::Help => Action::Help,
            _ => Action::Validate,
        };
        Ok(())
    }

    fn set(&mut self, setting: &'static Setting, text: &str) -> Result<(), String> {
        let value = setting.add(self.given.get(setting.key).cloned(), text).map_err(|error| {
            let shown = match setting.short {
                Some(letter) => format!("-{letter}, --{}", setting.flag),
                None => format!("--{}", setting.flag),
            };
            format!("invalid argument {text:?} for \"{shown}\" flag: {error}")
        })?;
        let _before = self.given.insert(setting.key, value);
        Ok(())
    }
}

/// What `--help` prints.
#[must_use]
pub fn usage(program: &str) -> String {
    let mut text = format!(
        "Usage:\t{program} [OPTIONS]\n\t{program} check\n\t{program} cluster COMMAND\n\nA Docker Engine over the ketch runtime.\n\nOptions:\n"
    );
    let own = [
        (None, "config-file", "string", "The file of settings (default \"/etc/ketchd/daemon.json\")"),
        (Some('h'), "help", "", "Show this"),
        (None, "validate", "", "Look at the settings, and end"),
        (Some('v'), "version", "", "Show the version, and end"),
    ];
    let settings = SETTINGS.iter().filter(|setting| !setting.flag.is_empty()).map(|setting| {
        let value = match setting.kind {
            Kind::Flag => "",
            Kind::Number => "int",
            Kind::Bytes => "bytes",
            Kind::Ip => "ip",
            Kind::Text => "string",
            Kind::Map | Kind::Features | Kind::MapOfMaps => "map",
            _ => "list",
        };
        (setting.short, setting.flag, value, setting.help)
    });
    let mut all: Vec<_> = settings.chain(own).collect();
    all.sort_by_key(|(_, flag, ..)| *flag);
    for (short, flag, value, help) in all {
        let short = short.map_or("    ".to_owned(), |letter| format!("-{letter}, "));
        let flag = format!("{flag} {value}");
        // Writing into memory can't fail.
        let _written = writeln!(text, "  {short}--{flag:<38} {help}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse("dockerd", line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_way_to_give_a_value() {
        let flags =
            parse("--data-root /a --exec-root=/b -D -H unix:///x -Hunix:///y -lwarn --tls=false -H=fd://")
                .unwrap();
        let wanted = json!({
            "data-root": "/a", "debug": true, "exec-root": "/b", "hosts": ["unix:///x", "unix:///y", "fd://"],
            "log-level": "warn", "tls": false,
        });
        assert_eq!(serde_json::to_value(&flags.given).unwrap(), wanted);
        assert_eq!(flags.action, Action::Run);
        let flags = parse("--config-file /dev/null --validate").unwrap();
        assert_eq!((flags.config_file, flags.action), (Some("/dev/null".into()), Action::Validate));
        assert_eq!(parse("check").unwrap().action, Action::Check);
        assert_eq!(parse("-Dv").unwrap().action, Action::Version);
    }

    #[test]
    fn refusals_are_dockerds() {
        for (line, text) in [
            ("--foo", "unknown flag: --foo"),
            ("-x", "unknown shorthand flag: 'x' in -x"),
            ("--data-root", "flag needs an argument: --data-root"),
            ("-H", "flag needs an argument: 'H' in -H"),
            (
                "--debug=maybe",
                "invalid argument \"maybe\" for \"-D, --debug\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            ("--label x", "invalid argument \"x\" for \"--label\" flag: bad attribute format: x"),
        ] {
            let error = parse(line).unwrap_err();
            let wanted = format!("Status: {text}\nSee 'dockerd --help'.\n\nUsage:\tdockerd [OPTIONS]\n");
            assert!(error.starts_with(&wanted) && error.ends_with("\n, Code: 125"), "{line}: {error}");
        }
        assert!(
            parse("extra")
                .unwrap_err()
                .starts_with("\"dockerd\" accepts no argument(s).\nSee 'dockerd --help'.")
        );
    }
}
