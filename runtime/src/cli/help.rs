//! Help texts, laid out as runc's are: callers and tests look for `NAME:` and for the line behind it.

use std::path::Path;

use clap::Command;

use super::COMMANDS;
use super::global::Global;

pub(super) const ABOUT: &str = "a replacement for runc - Open Container Initiative runtime";

pub(super) const DESCRIPTION: &str = "   ketch makes and runs containers by the Open Container Initiative's runtime \
specification, with the command line,\n   outputs and exit codes of runc. A container is described by a bundle: a \
directory with a config.json and a root file system.\n\n   ketch spec                              write a config.json to start \
from\n   ketch run [-b bundle] <container-id>    run the container and wait for it";

/// The text of `--help` without a command.
pub(super) fn root() -> String {
    let program = program();
    let width = COMMANDS.iter().map(|entry| entry.name.len()).max().unwrap_or_default();
    let mut commands = String::new();
    for entry in COMMANDS {
        commands.push_str(&format!("   {:width$}   {}\n", entry.name, entry.about));
    }
    format!(
        "NAME:\n   {program} - {ABOUT}\n\nUSAGE:\n   {program} [global options] command [command options] \
         [arguments]\n\nDESCRIPTION:\n{DESCRIPTION}\n\nCOMMANDS:\n{commands}\nGLOBAL OPTIONS:\n{}",
        options(Global::command())
    )
}

/// The text of one command's `--help`.
pub(super) fn of(command: Command, about: &str, operands: &str, description: &str) -> String {
    let name = format!("{} {}", program(), command.get_name());
    let mut usage = name.clone();
    if command.get_arguments().any(|arg| !arg.is_positional()) {
        usage.push_str(" [options]");
    }
    if !operands.is_empty() {
        usage.push(' ');
        usage.push_str(operands);
    }
    let mut text = format!("NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n");
    if !description.is_empty() {
        text.push_str("\nDESCRIPTION:\n");
        for line in description.lines() {
            text.push_str("   ");
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str("\nOPTIONS:\n");
    text.push_str(&options(command));
    text
}

/// The flags, one a line, by clap.
fn options(command: Command) -> String {
    let mut command = command.help_template("{options}").arg(
        clap::Arg::new("help")
            .long("help")
            .short('h')
            .action(clap::ArgAction::SetTrue)
            .help("show this text"),
    );
    format!("{}\n", command.render_help().to_string().trim_end())
}

/// The name by which this program was called, without its folder.
fn program() -> String {
    let typed = program_as_typed();
    let name = Path::new(&typed).file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "ketch".to_owned())
}

/// The program's name as the caller typed it.
pub(super) fn program_as_typed() -> String {
    std::env::args_os().next().map_or_else(|| "ketch".to_owned(), |name| name.to_string_lossy().into_owned())
}
