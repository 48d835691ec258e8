//! What instructions that change no file do to an image's settings, and what the history says of them. Pure.

use ketch_engine_api::container::{Config, HealthConfig};

use super::args::{Args, name_of};
use super::healthcheck::shown;
use super::parse::{Command, Instruction};
use super::words::quoted;
use crate::engine::signal;
use crate::error::{Error, Kind, Result};
use crate::paths;

/// Of all variables together, in bytes: the kernel passes no more to a program.
const LARGEST_ENVIRONMENT: usize = 2 << 20;

/// A stage while it is built, as far as its instructions change it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// What the image's containers are started with.
    pub(crate) config: Config,
    /// The variables of ARG.
    pub(crate) args: Args,
    /// The Dockerfile's maintainer.
    pub(crate) author: String,
    /// Whether this stage has a CMD of its own: an ENTRYPOINT leaves it then.
    pub(crate) has_cmd: bool,
}

/// What the history says of a change, and what the client is told before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) comment: String,
    pub(crate) note: String,
}

/// What runs commands that are a text.
pub(crate) fn shell(config: &Config) -> Vec<String> {
    match &config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => ["/bin/sh", "-c"].map(str::to_owned).into(),
    }
}

/// The words that are run.
pub(crate) fn command_line(command: &Command, config: &Config) -> Vec<String> {
    if command.by_shell { [shell(config), command.words.clone()].concat() } else { command.words.clone() }
}

impl State {
    /// Applies an instruction whose variables are put in; `None` for one that changes files.
    ///
    /// # Errors
    /// A signal, a port or a volume that is none: dockerd's texts.
    pub(crate) fn apply(&mut self, instruction: &Instruction) -> Result<Option<Change>> {
        let mut note = String::new();
        let config = &mut self.config;
        let comment = match instruction {
            Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(..) | Instruction::Workdir(_) => {
                return Ok(None);
            }
            Instruction::Arg(given) => {
                let mut shown = Vec::new();
                for (name, value) in given {
                    self.args.add(name, value.as_deref());
                    let value = value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
                    shown.push(format!("{name}{value}"));
                }
                format!("ARG {}", shown.join(" "))
            }
            Instruction::Cmd(command) => {
                let words = command_line(command, config);
                let comment = format!("CMD {}", quoted_all(&words));
                config.cmd = Some(words);
                self.has_cmd |= !command.words.is_empty();
                comment
            }
            Instruction::Entrypoint(command) => {
                // Neither words nor a shell to run them: none.
                let words = if command.words.is_empty() { Vec::new() } else { command_line(command, config) };
                let comment = format!("ENTRYPOINT {}", quoted_all(&words));
                config.entrypoint = (!words.is_empty()).then_some(words);
                if !self.has_cmd {
                    config.cmd = None;
                }
                comment
            }
            Instruction::Env(pairs) => {
                let all = config.env.get_or_insert_default();
                let more = pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
                if all.iter().map(String::len).sum::<usize>() + more > LARGEST_ENVIRONMENT {
                    return Err(Error::invalid(format!(
                        "ENV: more than {LARGEST_ENVIRONMENT} bytes of variables"
                    )));
                }
                for (name, value) in pairs {
                    let variable = format!("{name}={value}");
                    match all.iter_mut().find(|own| name_of(own) == name) {
                        Some(own) => *own = variable,
                        None => all.push(variable),
                    }
                }
                format!("ENV{}", shown_pairs(pairs))
            }
            Instruction::Label(pairs) => {
                config.labels.get_or_insert_default().extend(pairs.iter().cloned());
                format!("LABEL{}", shown_pairs(pairs))
            }
            Instruction::FixedLabel(name, value) => {
                let _older = config.labels.get_or_insert_default().insert(name.clone(), value.clone());
                format!("LABEL {name}={value}")
            }
            Instruction::Expose(ports) => {
                for port in ports {
                    expose(config, port)?;
                }
                format!("EXPOSE {}", ports.join(" "))
            }
            Instruction::Healthcheck(check) => {
                let before =
                    config.healthcheck.as_ref().and_then(|check| check.test.clone()).unwrap_or_default();
                if before.first().is_some_and(|kind| kind != "NONE") {
                    note = format!("Note: overriding previous HEALTHCHECK: [{}]\n", before.join(" "));
                }
                config.healthcheck = Some(check.clone());
                format!("HEALTHCHECK {}", shown_check(check))
            }
            Instruction::Maintainer(name) => {
                self.author.clone_from(name);
                format!("MAINTAINER {name}")
            }
            Instruction::OnBuild(expression) => {
                config.on_build.get_or_insert_default().push(expression.clone());
                format!("ONBUILD {expression}")
            }
            Instruction::Shell(words) => {
                config.shell = Some(words.clone());
                format!("SHELL [{}]", words.join(" "))
            }
            Instruction::StopSignal(name) => {
                let _number = signal::number(name)?;
                config.stop_signal.clone_from(name);
                format!("STOPSIGNAL {name}")
            }
            Instruction::User(name) => {
                config.user.clone_from(name);
                format!("USER {name}")
            }
            Instruction::Volume(paths) => {
                if paths.iter().any(String::is_empty) {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                let volumes = config.volumes.get_or_insert_default();
                volumes.extend(paths.iter().map(|path| (path.clone(), Default::default())));
                format!("VOLUME [{}]", paths.join(" "))
            }
        };
        Ok(Some(Change { comment, note }))
    }

    /// WORKDIR's part of the settings: gives the folder where processes start from now on.
    ///
    /// # Errors
    /// No path: dockerd's text.
    pub(crate) fn enter(&mut self, path: &str) -> Result<String> {
        if path.is_empty() {
            return Err(Error::new(Kind::Internal, "cannot normalize nothing"));
        }
        let path = paths::absolute(&self.config.working_dir, path);
        self.config.working_dir.clone_from(&path);
        Ok(path)
    }
}

fn shown_pairs(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!(" {name}={value}")).collect()
}

/// Go's `%q` of a list.
fn quoted_all(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

/// Go's `%v` of a HealthConfig.
fn shown_check(check: &HealthConfig) -> String {
    let times = [check.interval, check.timeout, check.start_period, check.start_interval].map(shown);
    format!(
        "&{{[{}] {} {}}}",
        check.test.as_deref().unwrap_or_default().join(" "),
        times.join(" "),
        check.retries
    )
}

/// `port`, `port/protocol`, `first-last`; what is in front of a colon is the host's, and means nothing here.
fn expose(config: &mut Config, spec: &str) -> Result<()> {
    let invalid = |what: &str, text: &str| Error::invalid(format!("{what}{text}"));
    let port = spec.rsplit(':').next().unwrap_or(spec);
    let (number, protocol) = port.split_once('/').unwrap_or((port, ""));
    if number.is_empty() {
        return Err(invalid("no port specified: ", &format!("{spec}<empty>")));
    }
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid("Invalid proto: ", &protocol));
    }
    let (first, last) = number.split_once('-').unwrap_or((number, number));
    let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok()).filter(|(first, last)| first <= last);
    let (first, last) = range.ok_or_else(|| invalid("Invalid containerPort: ", number))?;
    let ports = config.exposed_ports.get_or_insert_default();
    ports.extend((first..=last).map(|number| (format!("{number}/{protocol}"), Default::default())));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse::parse;

    fn state(text: &str) -> (State, Vec<String>) {
        let file = parse(&format!("FROM x\n{text}"), "Dockerfile").unwrap();
        let mut state = State::default();
        let changes = file.stages[0].steps.iter().filter_map(|step| state.apply(&step.instruction).unwrap());
        let comments = changes.map(|change| change.comment).collect();
        (state, comments)
    }

    #[test]
    fn the_history_is_in_gos_words() {
        let (state, comments) = state(concat!(
            "CMD echo \"a\"\nENTRYPOINT [\"x\", \"y z\"]\nENTRYPOINT []\nENV A=1 B=2\nENV A 3\nLABEL k=v\nEXPOSE 81-82/udp 80\n",
            "HEALTHCHECK --interval=1m30s --retries=3 CMD true\nONBUILD  RUN x\nSHELL [\"/bin/bash\", \"-c\"]\nVOLUME /a /b\nCMD c"
        ));
        assert_eq!(
            comments,
            [
                "CMD [\"/bin/sh\" \"-c\" \"echo \\\"a\\\"\"]",
                "ENTRYPOINT [\"x\" \"y z\"]",
                "ENTRYPOINT []",
                "ENV A=1 B=2",
                "ENV A=3",
                "LABEL k=v",
                "EXPOSE 80 81-82/udp",
                "HEALTHCHECK &{[CMD-SHELL true] 1m30s 0s 0s 0s 3}",
                "ONBUILD RUN x",
                "SHELL [/bin/bash -c]",
                "VOLUME [/a /b]",
                "CMD [\"/bin/bash\" \"-c\" \"c\"]",
            ]
        );
        assert_eq!(state.config.env.unwrap(), ["A=3", "B=2"]);
        assert_eq!(state.config.exposed_ports.unwrap().len(), 3);
        assert!(state.config.entrypoint.is_none() && state.has_cmd);
    }

    #[test]
    fn an_entrypoint_takes_a_command_of_another_image_away() {
        let cmd = || Config { cmd: Some(vec!["old".into()]), ..Config::default() };
        let entrypoint = Instruction::Entrypoint(Command { words: vec!["e".into()], by_shell: false });
        let mut one = State { config: cmd(), ..State::default() };
        let _change = one.apply(&entrypoint).unwrap();
        assert_eq!(one.config.cmd, None);
        let mut other = State { config: cmd(), has_cmd: true, ..State::default() };
        let _change = other.apply(&entrypoint).unwrap();
        assert_eq!(other.config.cmd.unwrap(), ["old"]);
    }

    #[test]
    fn ports_that_are_none() {
        for (spec, text) in [
            ("x", "Invalid containerPort: x"),
            ("80/x", "Invalid proto: x"),
            ("/tcp", "no port specified: /tcp<empty>"),
            ("9-8", "Invalid containerPort: 9-8"),
        ] {
            assert_eq!(expose(&mut Config::default(), spec).unwrap_err().message, text);
        }
    }
}
