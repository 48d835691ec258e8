//! `ketchd cluster ...`: commands that ask a running ketchd about its cluster, by its socket, as `docker` would. Any manager does.
//!
//! Each is a file: what it takes, which route it asks, how the answer is printed. Called by `main` with what follows the word
//! `cluster`; nothing of the daemon is here.

mod client;
mod explain;
mod simulate;

use std::path::PathBuf;
use std::process::ExitCode;

pub use client::Host;

const USAGE: &str = "Usage:\tketchd cluster COMMAND

Ask a ketchd about its cluster

Commands:
  explain SERVICE|TASK|NODE   Why tasks are where they are, wait, moved or were restarted
  simulate                    What docker stack deploy of a file would do, without doing it

Options of each:
  -H, --host string     The daemon's socket (default DOCKER_HOST, or unix:///run/ketchd.sock)
      --format string   json, or a text without it

Options of simulate:
  -f, --file string     The Compose file of version 3
      --stack string    The stack's name (default the file's)
      --prune           As if services of the stack that are not in the file were to be removed
";

/// A wrong command line, as docker ends for one.
const MISUSE: u8 = 125;

/// Why a command ended without an answer, as it is printed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}\n\n{USAGE}")]
    Misuse(String),
    /// docker's words.
    #[error("\"ketchd cluster {command}\" requires exactly {wanted}.\nSee 'ketchd cluster --help'.")]
    Arguments { command: &'static str, wanted: &'static str },
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?: {why}")]
    Connect { host: String, why: String },
    /// The daemon's own words.
    #[error("Error response from daemon: {0}")]
    Refused(String),
    #[error("{path}: {why}")]
    File { path: String, why: String },
    #[error("the daemon's answer can't be read: {0}")]
    Unreadable(String),
}

/// Runs the command of these arguments.
#[must_use]
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let asked = Asked::parse(arguments).and_then(|asked| match asked {
        None => Ok(USAGE.to_owned()),
        Some(asked) => asked.answer(),
    });
    match asked {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            if matches!(error, CommandError::Misuse(_)) { ExitCode::from(MISUSE) } else { ExitCode::FAILURE }
        }
    }
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Format {
    #[default]
    Text,
    Json,
}

/// A command with its options.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    command: String,
    host: Host,
    format: Format,
    file: Option<PathBuf>,
    stack: Option<String>,
    prune: bool,
    operands: Vec<String>,
}

impl Asked {
    /// None when help is asked for.
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, CommandError> {
        let misuse = CommandError::Misuse;
        let mut arguments = arguments;
        let (mut words, mut host, mut format) = (Vec::new(), None, Format::Text);
        let (mut file, mut stack, mut prune) = (None, None, false);
        while let Some(argument) = arguments.next() {
            let (flag, mut given) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
                _ => (argument.clone(), None),
            };
            let mut value = || {
                let value = given.take().or_else(|| arguments.next());
                value.ok_or_else(|| misuse(format!("flag needs an argument: {flag}")))
            };
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--host" | "-H" => host = Some(value()?),
                "--file" | "-f" | "--compose-file" | "-c" => file = Some(PathBuf::from(value()?)),
                "--stack" => stack = Some(value()?),
                "--prune" => prune = true,
                "--format" => {
                    format = match value()?.as_str() {
                        "json" => Format::Json,
                        other => return Err(misuse(format!("unknown format: {other}"))),
                    }
                }
                other if other.starts_with('-') && other != "-" => {
                    return Err(misuse(format!("unknown flag: {other}")));
                }
                _ => words.push(argument),
            }
        }
        if words.is_empty() {
            return Ok(None);
        }
        let command = words.remove(0);
        let host = Host::of(host, |name| std::env::var(name).ok()).map_err(misuse)?;
        Ok(Some(Self { command, host, format, file, stack, prune, operands: words }))
    }

    fn answer(self) -> Result<String, CommandError> {
        match self.command.as_str() {
            "explain" => explain::answer(&self),
            "simulate" => simulate::answer(&self),
            other => Err(CommandError::Misuse(format!("unknown command: ketchd cluster {other}"))),
        }
    }

    /// The only operand.
    fn operand(&self, command: &'static str) -> Result<&str, CommandError> {
        match self.operands.as_slice() {
            [operand] => Ok(operand),
            _ => Err(CommandError::Arguments { command, wanted: "1 argument" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Asked>, CommandError> {
        Asked::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_stand_anywhere() {
        for line in ["explain -H unix:///a web --format json", "--format=json explain web --host=unix:///a"] {
            let asked = parse(line).unwrap().unwrap();
            assert_eq!((asked.command.as_str(), asked.format), ("explain", Format::Json));
            assert_eq!(asked.host, Host::Unix("/a".into()));
            assert_eq!(asked.operand("explain").unwrap(), "web");
        }
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("explain --help").unwrap(), None);
    }

    #[test]
    fn refusals_are_dockers() {
        for (line, text) in [
            ("explain --foo", "unknown flag: --foo"),
            ("explain -H", "flag needs an argument: -H"),
            ("explain --format yaml x", "unknown format: yaml"),
            ("explain -H ftp://x web", "unable to parse docker host `ftp://x`"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.starts_with(text), "{line}: {error}");
        }
        let asked = parse("explain -H unix:///a").unwrap().unwrap();
        let error = asked.answer().unwrap_err().to_string();
        assert!(error.starts_with("\"ketchd cluster explain\" requires exactly 1 argument."), "{error}");
    }
}
