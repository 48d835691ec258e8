//! The command line: runc's commands, flags, texts and exit codes.
//!
//! Each subcommand's file holds its clap types and one call into the library. This file picks the subcommand, sets the
//! log up, and is the one place that prints an error and turns it into an exit code. Never imports `ketch_sys`.

mod argv;
mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod global;
mod help;
mod kill;
mod list;
mod pause;
mod pid_file;
mod ps;
mod restore;
mod resume;
mod run;
mod size;
mod spec;
mod start;
mod state;
mod table;
mod update;
mod version;

use std::cell::LazyCell;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io::Write;

use clap::Command;

use crate::container::Container;
use crate::error::chain;
use crate::log;
use crate::seal;
use crate::signal;
use crate::spec::ContainerId;
use argv::{FlagError, Flags, Line};
pub(crate) use global::Global;

/// What a command's operands are.
#[derive(Debug, Clone, Copy)]
struct Operands {
    usage: &'static str,
    least: usize,
    most: usize,
    flags: Flags,
}

impl Operands {
    const NONE: Self = Self { usage: "", least: 0, most: 0, flags: Flags::Anywhere };
    const ID: Self = Self { usage: "<container-id>", least: 1, most: 1, flags: Flags::Anywhere };
}

/// The file that a command runs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binary {
    /// The installed one.
    AsInstalled,
    /// One that nobody can write to, as the command puts a process into a container (CVE-2019-5736).
    Sealed,
}

/// One command: its clap fields are the flags and operands, this is the rest.
trait Subcommand: clap::Args {
    const NAME: &'static str;
    const ABOUT: &'static str;
    const OPERANDS: Operands;
    /// Whether a container's process may see the runtime that it came from.
    const BINARY: Binary = Binary::AsInstalled;
    /// Paragraphs of the help text.
    const DESCRIPTION: &'static str = "";

    /// The failure of this command, with its exit code.
    fn failure(error: CliError) -> CliError {
        error
    }

    /// Does it, and gives the exit code.
    fn run(self, global: &Global) -> Result<u8, CliError>;
}

/// Why a command failed, with what the edge needs to know beyond the text.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The line was wrong; usage has been printed already.
    Usage(String),
    /// The command failed.
    Failed(Box<dyn Error>),
    /// The same of `create` and `run`, which say so.
    Command {
        /// What callers look for.
        words: &'static str,
        /// Why.
        source: Box<dyn Error>,
    },
    /// There is no such command.
    NoTopic(String),
    /// `exec` failed, which exits with 255 so that it differs from the command's own failure.
    Exec(Box<dyn Error>),
}

impl CliError {
    /// A failure that is all in its text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Failed(text.into().into())
    }

    /// The same failure with words in front.
    fn told_as(self, words: &'static str) -> Self {
        match self {
            Self::Failed(source) => Self::Command { words, source },
            other => other,
        }
    }

    /// The same failure as one of `exec`.
    fn of_exec(self) -> Self {
        match self {
            Self::Failed(source) => Self::Exec(source),
            other => other,
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Failed(_) | Self::Command { .. } => 1,
            Self::NoTopic(_) => 3,
            Self::Exec(_) => 255,
        }
    }
}

impl<E: Error + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

impl Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Command { words, source } => write!(f, "{words}: {}", chain(source.as_ref())),
            Self::NoTopic(name) => write!(f, "No help topic for '{name}'"),
            Self::Failed(error) => f.write_str(&chain(error.as_ref())),
            Self::Exec(error) => write!(f, "exec failed: {}", chain(error.as_ref())),
        }
    }
}

/// How the table of commands sees one.
#[derive(Debug)]
struct Entry {
    name: &'static str,
    about: &'static str,
    description: &'static str,
    run: fn(Global, Vec<OsString>) -> Result<u8, CliError>,
    help: fn() -> String,
    command: fn() -> Command,
}

impl Entry {
    /// What its page says; without a longer text, the words beside its name.
    fn described(&self) -> &'static str {
        if self.description.is_empty() { self.about } else { self.description }
    }

    const fn of<S: Subcommand>() -> Self {
        Self {
            name: S::NAME,
            about: S::ABOUT,
            description: S::DESCRIPTION,
            run: parse_and_run::<S>,
            help: help_text::<S>,
            command: command_of::<S>,
        }
    }
}

static COMMANDS: &[Entry] = &[
    Entry::of::<checkpoint::Checkpoint>(),
    Entry::of::<create::Create>(),
    Entry::of::<delete::Delete>(),
    Entry::of::<events::Events>(),
    Entry::of::<exec::Exec>(),
    Entry::of::<features::Features>(),
    Entry::of::<kill::Kill>(),
    Entry::of::<list::List>(),
    Entry::of::<pause::Pause>(),
    Entry::of::<ps::Ps>(),
    Entry::of::<restore::Restore>(),
    Entry::of::<resume::Resume>(),
    Entry::of::<run::Run>(),
    Entry::of::<spec::Spec>(),
    Entry::of::<start::Start>(),
    Entry::of::<state::State>(),
    Entry::of::<update::Update>(),
];

/// Runs the command line `args`, program name first, and gives the exit code of the process.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let prepared = signal::keep_ended_children().map_err(CliError::from);
    match prepared.and_then(|()| dispatch(args.into_iter().skip(1))) {
        Ok(code) => code,
        Err(error) => {
            let code = error.code();
            log::error(&error);
            if log::is_file() {
                eprintln!("{error}");
            }
            code
        }
    }
}

/// The whole command line as clap has it, for the manual pages and the shells' completions (`runtime/examples/manual.rs`).
#[must_use]
pub fn command() -> Command {
    let commands =
        COMMANDS.iter().map(|entry| (entry.command)().about(entry.about).long_about(entry.described()));
    Global::command().name("ketch").about(help::ABOUT).long_about(help::DESCRIPTION).subcommands(commands)
}

fn dispatch(args: impl Iterator<Item = OsString>) -> Result<u8, CliError> {
    let command = Global::command();
    let Line { flags, operands, help, .. } = argv::normalise(&command, None, args, Flags::BeforeOperands)
        .map_err(|error| usage_error(&error, &help::root()))?;
    let global = Global::parse(command, &flags)?;
    if help {
        return print(&help::root());
    }
    if global.version {
        return print(&version::text());
    }
    let mut operands = operands.into_iter();
    let Some(name) = operands.next() else { return print(&help::root()) };
    if name == "help" || name == "h" {
        return match operands.next() {
            None => print(&help::root()),
            Some(topic) => print(&(find(&topic)?.help)()),
        };
    }
    let entry = find(&name)?;
    (entry.run)(global, operands.collect())
}

fn find(name: &OsString) -> Result<&'static Entry, CliError> {
    COMMANDS
        .iter()
        .find(|entry| *name == *entry.name)
        .ok_or_else(|| CliError::NoTopic(name.to_string_lossy().into_owned()))
}

/// The container that a command is about.
fn load(global: &Global, id: &str) -> Result<Container, CliError> {
    Ok(Container::load(&global.root, &ContainerId::new(id)?)?)
}

/// A process's exit code as this one's: the kernel keeps eight bits of either.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn parse_and_run<S: Subcommand>(mut global: Global, args: Vec<OsString>) -> Result<u8, CliError> {
    // Before anything is opened: on the first pass this does not return.
    let sealed = if S::BINARY == Binary::Sealed { seal::ensure() } else { Ok(()) };
    let sealed = sealed.map_err(|error| S::failure(error.into()));
    let mut command = command_of::<S>();
    let global_command = LazyCell::new(Global::command as fn() -> Command);
    let usage = |error: &dyn Error| usage_error(error, &help_text::<S>());
    let line = argv::normalise(&command, Some(&global_command), args, S::OPERANDS.flags)
        .map_err(|error| usage(&error))?;
    if line.help {
        return print(&help_text::<S>());
    }
    global.merge(&line.global)?;
    global.apply()?;
    sealed?;
    check_operands::<S>(line.operands.len())?;
    let args = std::iter::once(OsString::from(S::NAME))
        .chain(line.flags)
        .chain(std::iter::once(OsString::from("--")))
        .chain(line.operands);
    let matches = command.try_get_matches_from_mut(args).map_err(|error| usage(&first_line(&error)))?;
    S::from_arg_matches(&matches).map_err(|error| usage(&first_line(&error)))?.run(&global)
}

fn command_of<S: Subcommand>() -> Command {
    S::augment_args(
        Command::new(S::NAME).disable_help_flag(true).disable_version_flag(true).args_override_self(true),
    )
}

fn help_text<S: Subcommand>() -> String {
    help::of(command_of::<S>(), S::ABOUT, S::OPERANDS.usage, S::DESCRIPTION)
}

/// Refuses a wrong number of operands with runc's words.
fn check_operands<S: Subcommand>(count: usize) -> Result<(), CliError> {
    let Operands { least, most, .. } = S::OPERANDS;
    let (kind, expected) = match count {
        count if count < least && least == most => ("exactly", least),
        count if count < least => ("a minimum of", least),
        count if count > most && least == most => ("exactly", most),
        count if count > most => ("a maximum of", most),
        _ => return Ok(()),
    };
    print(&format!("Incorrect Usage.\n\n{}", help_text::<S>()))?;
    let error = format!("{}: {:?} requires {kind} {expected} argument(s)", help::program_as_typed(), S::NAME);
    Err(CliError::Usage(error))
}

/// Prints usage as runc does: the reason to stderr, the help text to stdout.
fn usage_error(error: &dyn Error, help: &str) -> CliError {
    eprintln!("Incorrect Usage: {error}\n");
    match print(help) {
        Ok(_) => CliError::Usage(error.to_string()),
        Err(error) => error,
    }
}

/// clap's error without the hints that follow it: usage is printed in runc's form.
fn first_line(error: &clap::Error) -> FlagValueError {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    FlagValueError(line.strip_prefix("error: ").unwrap_or(line).to_owned())
}

/// A flag's value that is not of the flag's type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct FlagValueError(String);

/// Writes a command's result. A reader that went away is an error, not a panic.
fn print(text: &str) -> Result<u8, CliError> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn every_command_explains_itself() {
        for entry in COMMANDS {
            let help = (entry.help)();
            let mut lines = help.lines();
            assert_eq!(lines.next(), Some("NAME:"));
            let name = format!(" {} - {}", entry.name, entry.about);
            assert!(lines.next().is_some_and(|line| line.ends_with(&name)), "{help}");
        }
    }

    /// What `make man` writes of a command, without roff's escapes.
    fn page(command: &Command) -> String {
        let mut page = Vec::new();
        clap_mangen::Man::new(command.clone()).render(&mut page).unwrap();
        String::from_utf8(page)
            .unwrap()
            .replace("\\-", "-")
            .replace("\\*(Aq", "'")
            .replace("\\(aq", "'")
            .replace("\\\\", "\\")
    }

    #[test]
    fn manual_pages_describe_what_help_describes() {
        let mut whole = command();
        whole.build();
        let described = COMMANDS.iter().map(|entry| {
            let command = whole.find_subcommand(entry.name).unwrap();
            (page(command), entry.described())
        });
        for (page, description) in described.chain([(page(&whole), help::DESCRIPTION)]) {
            let (_, text) = page.split_once(".SH DESCRIPTION\n").unwrap();
            let text = text.split(".SH ").next().unwrap();
            let missing = description.lines().find(|line| !text.contains(line.trim_end()));
            assert_eq!(missing, None, "{text}");
        }
    }

    #[test]
    fn completions_know_every_command() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "ketch", &mut script);
            let script = String::from_utf8(script).unwrap();
            let missing = COMMANDS.iter().find(|entry| !script.contains(entry.name));
            assert!(missing.is_none(), "{shell} does not know {missing:?}");
        }
    }

    #[test]
    fn flags_come_out_of_clap_as_typed() {
        #[derive(Debug, clap::Args)]
        struct Flagged {
            #[arg(long)]
            force: bool,
            #[arg(long, short)]
            env: Vec<String>,
            #[arg(long)]
            count: Option<u32>,
            id: String,
            rest: Vec<String>,
        }
        let mut command = Flagged::augment_args(Command::new("x").args_override_self(true));
        let args = ["-e", "A=1", "-force", "-env=B", "-count", "1", "--count=2", "--force", "id", "-x", "y"];
        let line = argv::normalise(&command, None, args.map(OsString::from), Flags::BeforeOperands).unwrap();
        let args = std::iter::once("x".into()).chain(line.flags).chain(["--".into()]).chain(line.operands);
        let matches = command.try_get_matches_from_mut(args).unwrap();
        let parsed = Flagged::from_arg_matches(&matches).unwrap();
        assert!(parsed.force);
        assert_eq!(parsed.env, ["A=1", "B"]);
        assert_eq!(parsed.count, Some(2));
        assert_eq!(
            (parsed.id.as_str(), parsed.rest.as_slice()),
            ("id", &["-x".to_owned(), "y".to_owned()][..])
        );
    }
}
