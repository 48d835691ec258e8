//! `docker commit --change` and `docker import --change`: lines of a Dockerfile that change settings alone.

use ketch_engine_api::container::Config;

use super::dispatch::State;
use super::parse::{self, Instruction};
use super::words::Substitution;
use crate::error::{Error, Result};

/// What may be changed so.
const ALLOWED: [&str; 11] = [
    "cmd",
    "entrypoint",
    "healthcheck",
    "env",
    "expose",
    "label",
    "onbuild",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// The settings as these lines, one after the other, leave them.
///
/// # Errors
/// No instruction, one that is not allowed here, or its operands: dockerd's texts.
pub fn changed(config: Config, lines: &[String]) -> Result<Config> {
    if lines.is_empty() {
        return Ok(config);
    }
    let allowed = |name: &str| match ALLOWED.contains(&name.to_lowercase().as_str()) {
        true => Ok(()),
        false => Err(Error::invalid(format!("{name} is not a valid change command"))),
    };
    let (instructions, escape) = parse::instructions(&lines.join("\n"), allowed)?;
    let mut state = State { config, ..State::default() };
    for instruction in &instructions {
        let env = state.config.env.clone().unwrap_or_default();
        let how = Substitution::new(escape, &env);
        match instruction.expanded(&how).map_err(Error::invalid)? {
            Instruction::Workdir(path) => drop(state.enter(&path)?),
            instruction => drop(state.apply(&instruction)?),
        }
    }
    Ok(state.config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: Config, lines: &[&str]) -> Result<Config> {
        changed(config, &lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn lines_change_the_settings() {
        let config = of(
            Config::default(),
            &[
                "CMD [\"a\",\"b\"]",
                "env A=1 B='x y'",
                "ENV C d e",
                "ENV A=2",
                "LABEL k=\"v $A\"",
                "EXPOSE 80 90-91/udp",
                "WORKDIR /a",
                "WORKDIR b/../c",
                "USER u:g",
                "VOLUME [\"/v\"]",
                "HEALTHCHECK --interval=1m30s --retries=2 CMD curl x",
            ],
        );
        let config = config.unwrap();
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.env.unwrap(), ["A=2", "B=x y", "C=d e"], "a changed variable keeps its place");
        assert_eq!(config.labels.unwrap()["k"], "v 2");
        assert_eq!(
            config.exposed_ports.unwrap().into_keys().collect::<Vec<_>>(),
            ["80/tcp", "90/udp", "91/udp"]
        );
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/a/c", "u:g"));
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (90_000_000_000, 2));
        assert_eq!(check.test.unwrap(), ["CMD-SHELL", "curl x"]);
    }

    #[test]
    fn a_line_may_go_on_in_the_next() {
        let config = of(Config::default(), &["ENV A=1 \\", "B=2"]).unwrap();
        assert_eq!(config.env.unwrap(), ["A=1", "B=2"]);
    }

    #[test]
    fn others_are_refused() {
        for (line, text) in [
            ("Run x", "Run is not a valid change command"),
            ("SHELL [\"/bin/sh\"]", "SHELL is not a valid change command"),
            ("USER", "USER requires exactly one argument"),
            ("EXPOSE x", "Invalid containerPort: x"),
            ("ENV =x", "ENV names can not be blank"),
            ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
            ("WORKDIR $none", "cannot normalize nothing"),
            ("", "file with no instructions"),
        ] {
            assert_eq!(of(Config::default(), &[line]).unwrap_err().message, text, "{line}");
        }
    }
}
