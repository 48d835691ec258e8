//! Where warnings and the final error go: `--log`, `--log-format` and `--debug`.
//!
//! Owns the line formats, which are those of runc's logger because callers decode them: containerd reads the JSON lines
//! of `--log` and shows the last one of level `error`. Set up once by `cli` before a command runs; written to by the
//! whole library. An error is either returned or logged, never both: only `cli` logs errors.

use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use crate::rfc3339;

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `time="..." level=error msg="..."`, or a shorter form on a terminal.
    #[default]
    Text,
    /// One JSON object: `level`, `msg`, `time`.
    Json,
}

/// The least level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// Errors and warnings.
    #[default]
    Quiet,
    /// Debug lines too (`--debug`).
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Debug => "debug",
        }
    }

    /// Four letters and the colour of a terminal's line.
    fn badge(self) -> (&'static str, u8) {
        match self {
            Level::Error => ("ERRO", 31),
            Level::Warning => ("WARN", 33),
            Level::Debug => ("DEBU", 37),
        }
    }
}

#[derive(Debug)]
enum Sink {
    Stderr,
    Terminal { started: Instant },
    File(File),
}

#[derive(Debug)]
struct Log {
    sink: Sink,
    format: Format,
    verbosity: Verbosity,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file of `--log` could not be opened.
    #[error("open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Sets the log up for the rest of the process; the first call counts. Without a `file`, lines go to stderr.
pub fn init(file: Option<&Path>, format: Format, verbosity: Verbosity) -> Result<(), LogError> {
    let sink = match file {
        Some(path) => Sink::File(
            ketch_sys::file::open_log(path)
                .map_err(|source| LogError::Open { path: path.to_owned(), source })?,
        ),
        None => stderr_sink(),
    };
    let _ = LOG.set(Log { sink, format, verbosity });
    Ok(())
}

/// Whether lines go to a file, so that the final error has to be printed to stderr besides.
pub fn is_file() -> bool {
    matches!(LOG.get(), Some(Log { sink: Sink::File(_), .. }))
}

/// The whole of a command's failure: for the edge of the program only.
pub fn error(message: impl Display) {
    write(Level::Error, &message);
}

/// Something that was left out or ignored, and that a user may want to know.
pub fn warn(message: impl Display) {
    write(Level::Warning, &message);
}

/// The same of what was done as asked by all the means there are: only where the log is a file, or with `--debug`. A caller who has
/// asked for no log takes stderr for the container's own, as that is all that runc writes there.
pub fn remark(message: impl Display) {
    if is_file() || is_debug() {
        write(Level::Warning, &message);
    }
}

/// A step taken; formatted only with `--debug`.
pub fn debug(message: impl Display) {
    if is_debug() {
        write(Level::Debug, &message);
    }
}

/// Whether `--debug` was given.
pub fn is_debug() -> bool {
    LOG.get().is_some_and(|log| log.verbosity == Verbosity::Debug)
}

fn stderr_sink() -> Sink {
    if std::io::stderr().is_terminal() { Sink::Terminal { started: Instant::now() } } else { Sink::Stderr }
}

fn write(level: Level, message: &dyn Display) {
    let log =
        LOG.get_or_init(|| Log { sink: stderr_sink(), format: Format::Text, verbosity: Verbosity::Quiet });
    let line = log.line(level, &message.to_string(), SystemTime::now());
    // A log that cannot be written has nowhere to say so.
    let _ = match &log.sink {
        Sink::File(file) => {
            let mut file = file;
            file.write_all(line.as_bytes())
        }
        Sink::Stderr | Sink::Terminal { .. } => std::io::stderr().write_all(line.as_bytes()),
    };
}

impl Log {
    fn line(&self, level: Level, message: &str, now: SystemTime) -> String {
        match (self.format, &self.sink) {
            (Format::Json, _) => {
                let line = serde_json::json!({
                    "level": level.name(), "msg": message, "time": rfc3339::seconds(now),
                });
                format!("{line}\n")
            }
            (Format::Text, Sink::Terminal { started }) => {
                let (badge, colour) = level.badge();
                let message = message.strip_suffix('\n').unwrap_or(message);
                format!("\x1b[{colour}m{badge}\x1b[0m[{:04}] {message}\n", started.elapsed().as_secs())
            }
            (Format::Text, _) => {
                format!("time={:?} level={} msg={}\n", rfc3339::seconds(now), level.name(), word(message))
            }
        }
    }
}

/// A value of a text line: bare when it is one plain word, else quoted as Go quotes.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/' | '@' | '^' | '+');
    if text.chars().all(plain) && !text.is_empty() { text.to_owned() } else { quote(text) }
}

/// A Go string literal: printable characters as they are, the others escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn log(format: Format) -> Log {
        Log { sink: Sink::Stderr, format, verbosity: Verbosity::Quiet }
    }

    fn time() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_383_489)
    }

    #[test]
    fn text_lines_quote_what_is_not_a_word() {
        let line = log(Format::Text).line(Level::Error, "a \"b\"\n", time());
        assert_eq!(line, "time=\"2026-11-22T21:38:09Z\" level=error msg=\"a \\\"b\\\"\\n\"\n");
        let line = log(Format::Text).line(Level::Warning, "plain", time());
        assert_eq!(line, "time=\"2026-11-22T21:38:09Z\" level=warning msg=plain\n");
    }

    #[test]
    fn json_lines_are_what_containerd_decodes() {
        let line = log(Format::Json).line(Level::Error, "exec: \"x\": not found", time());
        assert_eq!(
            line,
            "{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": not found\",\"time\":\"2026-11-22T21:38:09Z\"}\n"
        );
    }

    #[test]
    fn quoting_follows_go() {
        assert_eq!(quote("a\tb\x1b\\"), "\"a\\tb\\x1b\\\\\"");
        assert_eq!(word(""), "\"\"");
    }
}
