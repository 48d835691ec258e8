//! `ketch kill`: sends a signal to the container's first process.

use clap::Args;

use super::argv::Flags;
use super::{CliError, Global, Operands, Subcommand, load};
use crate::container::ContainerError;
use crate::signal::Signal;

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// obsolete: only makes a container that is not running no error
    #[arg(long, short, hide = true)]
    all: bool,
    #[arg(value_name = "container-id")]
    id: String,
    #[arg(value_name = "signal")]
    signal: Option<String>,
}

impl Subcommand for Kill {
    const NAME: &'static str = "kill";
    const ABOUT: &'static str =
        "kill sends the specified signal (default: SIGTERM) to the container's init process";
    const OPERANDS: Operands =
        Operands { usage: "<container-id> [signal]", least: 1, most: 2, flags: Flags::BeforeOperands };
    const DESCRIPTION: &'static str = "A signal is a number, or a name with or without SIG in front.";

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let container = load(global, &self.id)?;
        let signal = match self.signal.as_deref() {
            None | Some("") => Signal::TERM,
            Some(text) => text.parse()?,
        };
        match container.kill(signal.number()) {
            Err(ContainerError::NotRunning) if self.all => Ok(0),
            other => Ok(other.map(|()| 0)?),
        }
    }
}
