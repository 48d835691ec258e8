//! A Dockerfile as stages of instructions. Pure; what is known while it is built, variables, is put in later.

use super::flags::{self, Flags};
use super::lines::{self, heredoc};
use super::operands;
use crate::error::{Error, Result};
use ketch_engine_api::container::HealthConfig;

/// A whole Dockerfile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dockerfile {
    /// `ARG`s in front of the first stage.
    pub before: Vec<Step>,
    /// Stages, in order.
    pub stages: Vec<Stage>,
    /// What takes a letter's meaning away.
    pub escape: char,
    /// What the client is warned of.
    pub warnings: Vec<String>,
}

/// What begins with a `FROM`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stage {
    /// As written.
    pub code: String,
    /// The image, or another stage.
    pub base: String,
    /// In small letters; empty for none.
    pub name: String,
    /// `--platform`.
    pub platform: String,
    /// What follows.
    pub steps: Vec<Step>,
}

/// An instruction, and how it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// As written.
    pub code: String,
    /// What it says.
    pub instruction: Instruction,
}

/// What RUN, CMD and ENTRYPOINT run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// One text for a shell, or each word by itself.
    pub words: Vec<String>,
    /// Whether a shell runs it.
    pub by_shell: bool,
}

/// ADD and COPY.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// What.
    pub sources: Vec<String>,
    /// Where to.
    pub destination: String,
    /// Another stage or image.
    pub from: String,
    /// `--chown`.
    pub owner: String,
    /// `--chmod`.
    pub mode: String,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq)]
pub enum Instruction {
    /// Files of the context, of URLs and of archives.
    Add(Copy),
    /// Names that may be set by who builds.
    Arg(Vec<(String, Option<String>)>),
    /// What is run.
    Cmd(Command),
    /// Files of the context, or of another stage or image.
    Copy(Copy),
    /// What is run, with CMD as its arguments.
    Entrypoint(Command),
    /// Variables.
    Env(Vec<(String, String)>),
    /// Ports.
    Expose(Vec<String>),
    /// How it is seen whether it works.
    Healthcheck(HealthConfig),
    /// Free text by name.
    Label(Vec<(String, String)>),
    /// The same of the request: nothing in it is replaced.
    FixedLabel(String, String),
    /// Who.
    Maintainer(String),
    /// What is done when another image is made from this.
    OnBuild(String),
    /// What is done, and its flags, of which the classic builder has none.
    Run(Command, Vec<String>),
    /// What runs commands that are a text.
    Shell(Vec<String>),
    /// What a container is stopped with.
    StopSignal(String),
    /// Whom processes run as.
    User(String),
    /// Paths that are volumes.
    Volume(Vec<String>),
    /// Where processes start.
    Workdir(String),
}

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A line, taken apart as far as it can be without knowing what it is.
struct Words<'a> {
    name: String,
    flags: Flags,
    rest: &'a str,
    escape: char,
}

enum Parsed {
    From(Stage),
    Other(Instruction),
}

/// Reads a Dockerfile; `name` is how an error calls it.
///
/// # Errors
/// What it is not: dockerd's texts.
pub fn parse(text: &str, name: &str) -> Result<Dockerfile> {
    if text.is_empty() {
        return Err(Error::invalid(format!("the Dockerfile ({name}) cannot be empty")));
    }
    let failed = |error: String| Error::invalid(format!("failed to parse {name}: {error}"));
    let read = lines::read(text).map_err(failed)?;
    // All lines are taken apart before any of them is understood.
    let mut split = Vec::with_capacity(read.lines.len());
    for line in &read.lines {
        let words = words(&line.text, read.escape);
        let checked =
            words.and_then(|words| operands::check(&words.name, words.rest, read.escape).map(|()| words));
        split.push((checked.map_err(failed)?, line));
    }
    let mut file = Dockerfile { escape: read.escape, warnings: read.warnings, ..Dockerfile::default() };
    for (words, line) in &split {
        let code = line.text.trim().to_owned();
        let parsed = instruction(words, &code).map_err(|error| {
            Error::invalid(format!("dockerfile parse error on line {}: {error}", line.number))
        })?;
        match (parsed, file.stages.last_mut()) {
            (Parsed::From(stage), _) => file.stages.push(stage),
            (Parsed::Other(instruction), Some(stage)) => stage.steps.push(Step { code, instruction }),
            (Parsed::Other(instruction @ Instruction::Arg(_)), None) => {
                file.before.push(Step { code, instruction });
            }
            _ => return Err(Error::invalid("no build stage in current context")),
        }
    }
    Ok(file)
}

/// Reads instructions that are no stage's, and gives what takes a letter's meaning away in them. `allowed` is asked of each one's
/// name before it is understood.
///
/// # Errors
/// What is none, and what is not allowed: dockerd's texts.
pub(super) fn instructions(
    text: &str,
    allowed: impl Fn(&str) -> Result<()>,
) -> Result<(Vec<Instruction>, char)> {
    let invalid = |error: String| Error::invalid(error);
    let read = lines::read(text).map_err(invalid)?;
    let mut split = Vec::with_capacity(read.lines.len());
    for line in &read.lines {
        let words = words(&line.text, read.escape).map_err(invalid)?;
        operands::check(&words.name, words.rest, read.escape).map_err(invalid)?;
        split.push((words, line.text.trim()));
    }
    let mut all = Vec::with_capacity(split.len());
    for (words, code) in &split {
        allowed(&words.name)?;
        match instruction(words, code).map_err(invalid)? {
            Parsed::Other(instruction) => all.push(instruction),
            Parsed::From(_) => return Err(Error::invalid("FROM begins a stage")),
        }
    }
    Ok((all, read.escape))
}

/// Reads one instruction, as ONBUILD keeps it.
///
/// # Errors
/// It is none, or several: dockerd's texts.
pub fn trigger(text: &str) -> Result<Step> {
    let invalid = |error: String| Error::invalid(error);
    let read = lines::read(text).map_err(invalid)?;
    let [line] = read.lines.as_slice() else {
        return Err(Error::invalid("onbuild trigger should be a single expression"));
    };
    let code = line.text.trim().to_owned();
    let words = words(&line.text, read.escape).map_err(invalid)?;
    operands::check(&words.name, words.rest, read.escape).map_err(invalid)?;
    match instruction(&words, &code).map_err(invalid)? {
        Parsed::Other(instruction) => Ok(Step { code, instruction }),
        Parsed::From(_) => Err(Error::invalid("FROM isn't allowed as an ONBUILD trigger")),
    }
}

fn words(line: &str, escape: char) -> Result<Words<'_>, String> {
    let line = line.trim();
    let (name, rest) = line.split_once(operands::is_space).unwrap_or((line, ""));
    let (flags, rest) = flags::extract(rest.trim_start_matches(operands::is_space), escape);
    Ok(Words { name: name.to_owned(), flags, rest: rest.trim(), escape })
}

fn instruction(words: &Words<'_>, code: &str) -> Result<Parsed, String> {
    let upper = words.name.to_uppercase();
    let (rest, escape) = (words.rest, words.escape);
    let none = |name: &str| format!("{name} requires at least one argument");
    let one = || match rest {
        "" => Err(format!("{upper} requires exactly one argument")),
        rest => words.flags.check(&[]).map(|()| rest.to_owned()),
    };
    let checked = |instruction: Instruction| words.flags.check(&[]).map(|()| instruction);
    Ok(Parsed::Other(match upper.as_str() {
        "FROM" => return from(words, code).map(Parsed::From),
        "ADD" | "COPY" => copy(words, &upper)?,
        "ARG" => Instruction::Arg(arguments(&operands::split(rest, escape))?),
        "CMD" => checked(Instruction::Cmd(command(rest)?))?,
        "ENTRYPOINT" => checked(Instruction::Entrypoint(command(rest)?))?,
        "RUN" => {
            words.flags.check(&["mount*", "network", "security", "device*"])?;
            Instruction::Run(command(rest)?, words.flags.names())
        }
        "ENV" => checked(Instruction::Env(operands::pairs("ENV", rest, escape)?))?,
        "LABEL" => checked(Instruction::Label(operands::pairs("LABEL", rest, escape)?))?,
        "EXPOSE" if rest.is_empty() => return Err(none("EXPOSE")),
        "EXPOSE" => {
            let mut ports = operands::spaced(rest);
            ports.sort();
            checked(Instruction::Expose(ports))?
        }
        "HEALTHCHECK" => Instruction::Healthcheck(super::healthcheck::parse(rest, &words.flags)?),
        "MAINTAINER" => Instruction::Maintainer(one()?),
        "ONBUILD" => on_build(words, code)?,
        "SHELL" => match operands::exec(rest)? {
            Some(shell) if !shell.is_empty() => checked(Instruction::Shell(shell))?,
            None if !rest.is_empty() => {
                return Err("SHELL requires the arguments to be in JSON form".to_owned());
            }
            _ => return Err(none("SHELL")),
        },
        "STOPSIGNAL" => Instruction::StopSignal(one()?),
        "USER" => Instruction::User(one()?),
        "VOLUME" => {
            let volumes = operands::exec(rest)?.unwrap_or_else(|| operands::spaced(rest));
            if volumes.is_empty() {
                return Err(none("VOLUME"));
            }
            let volumes: Vec<_> = volumes.iter().map(|volume| volume.trim().to_owned()).collect();
            if volumes.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".to_owned());
            }
            checked(Instruction::Volume(volumes))?
        }
        "WORKDIR" => Instruction::Workdir(one()?),
        _ => {
            let meant = flags::meant(&words.name, &NAMES);
            return Err(format!("unknown instruction: {}{meant}", words.name));
        }
    }))
}

fn from(words: &Words<'_>, code: &str) -> Result<Stage, String> {
    let operands = if words.rest.is_empty() { Vec::new() } else { operands::spaced(words.rest) };
    let name = match operands.as_slice() {
        [_] => String::new(),
        [_, r#as, name] if r#as.eq_ignore_ascii_case("as") => {
            let small = name.to_lowercase();
            let letters = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
            let valid = small.starts_with(|first: char| first.is_ascii_lowercase())
                && small.chars().all(|letter| letters(letter) || "-_.".contains(letter));
            if !valid {
                return Err(format!(
                    "invalid name for build stage: {}, name can't start with a number or contain symbols",
                    super::words::quoted(name)
                ));
            }
            small
        }
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    words.flags.check(&["platform"])?;
    let platform = words.flags.text("platform");
    Ok(Stage { code: code.to_owned(), base: operands[0].clone(), name, platform, steps: Vec::new() })
}

fn copy(words: &Words<'_>, name: &str) -> Result<Instruction, String> {
    let mut operands = operands::exec(words.rest)?.unwrap_or_else(|| operands::spaced(words.rest));
    let destination = match operands.pop() {
        Some(destination) if !operands.is_empty() => destination,
        _ => {
            return Err(format!(
                "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
            ));
        }
    };
    let known: &[&str] = match name {
        "ADD" => &["chown", "chmod", "link?", "keep-git-dir?", "checksum", "exclude*"],
        _ => &["chown", "from", "chmod", "link?", "exclude*", "parents?"],
    };
    words.flags.check(known)?;
    if heredoc(&destination).is_some() {
        return Err(format!("{name} cannot accept a heredoc as a destination"));
    }
    // The classic builder knows no here-documents: their words are none of the sources.
    operands.retain(|source| heredoc(source).is_none());
    let copy = Copy {
        sources: operands,
        destination,
        from: words.flags.text("from"),
        owner: words.flags.text("chown"),
        mode: words.flags.text("chmod"),
    };
    Ok(if name == "ADD" { Instruction::Add(copy) } else { Instruction::Copy(copy) })
}

fn arguments(words: &[String]) -> Result<Vec<(String, Option<String>)>, String> {
    if words.is_empty() {
        return Err("ARG requires at least one argument".to_owned());
    }
    let one = |word: &String| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word.clone(), None)),
    };
    words.iter().map(one).collect()
}

fn command(rest: &str) -> Result<Command, String> {
    Ok(match operands::exec(rest)? {
        Some(words) => Command { words, by_shell: false },
        None if rest.is_empty() => Command { words: Vec::new(), by_shell: true },
        None => Command { words: vec![rest.to_owned()], by_shell: true },
    })
}

fn on_build(words: &Words<'_>, code: &str) -> Result<Instruction, String> {
    if words.rest.is_empty() {
        return Err("ONBUILD requires at least one argument".to_owned());
    }
    words.flags.check(&[])?;
    let name = words.rest.split(operands::is_space).next().unwrap_or_default().to_uppercase();
    match name.as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        "MAINTAINER" | "FROM" => return Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    let expression = code.trim_start().get("ONBUILD".len()..).unwrap_or_default().trim_start();
    Ok(Instruction::OnBuild(expression.to_owned()))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
