//! Variables put into an instruction, where the classic builder does so. Pure.

use super::parse::{Copy, Instruction};
use super::words::Substitution;

impl Instruction {
    /// The instruction with its variables; commands keep theirs, as a shell will see them. Ports are split anew: one variable
    /// may hold several.
    ///
    /// # Errors
    /// As [`Substitution::word`].
    pub(crate) fn expanded(&self, variables: &Substitution<'_>) -> Result<Self, String> {
        let word = |text: &String| variables.word(text);
        let all = |words: &[String]| words.iter().map(word).collect::<Result<Vec<_>, _>>();
        let pairs = |pairs: &[(String, String)]| {
            pairs
                .iter()
                .map(|(name, value)| Ok((word(name)?, word(value)?)))
                .collect::<Result<Vec<_>, String>>()
        };
        let copy = |copy: &Copy| -> Result<Copy, String> {
            Ok(Copy {
                owner: word(&copy.owner)?,
                mode: word(&copy.mode)?,
                sources: all(&copy.sources)?,
                destination: word(&copy.destination)?,
                from: copy.from.clone(),
            })
        };
        Ok(match self {
            Self::Add(given) => Self::Add(copy(given)?),
            Self::Copy(given) => Self::Copy(copy(given)?),
            Self::Arg(given) => {
                let one = |(name, value): &(String, Option<String>)| {
                    Ok::<_, String>((word(name)?, value.as_ref().map(word).transpose()?))
                };
                Self::Arg(given.iter().map(one).collect::<Result<_, _>>()?)
            }
            Self::Env(given) => Self::Env(pairs(given)?),
            Self::Label(given) => Self::Label(pairs(given)?),
            Self::Expose(given) => {
                let mut ports = Vec::new();
                for port in given {
                    ports.extend(variables.words(port)?);
                }
                Self::Expose(ports)
            }
            Self::StopSignal(given) => Self::StopSignal(word(given)?),
            Self::User(given) => Self::User(word(given)?),
            Self::Volume(given) => Self::Volume(all(given)?),
            Self::Workdir(given) => Self::Workdir(word(given)?),
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::FixedLabel(..)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::OnBuild(_)
            | Self::Run(..)
            | Self::Shell(_) => self.clone(),
        })
    }
}
