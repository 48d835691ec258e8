//! `ketch delete`: removes what a container leaves.

use clap::Args;

use super::{CliError, Global, Operands, Subcommand};
use crate::container::{Container, ContainerError, Deletion};
use crate::spec::ContainerId;
use crate::state::StateError;

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// end the container first if it runs, by SIGKILL; one that is not there is no error
    #[arg(long, short)]
    force: bool,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Delete {
    const NAME: &'static str = "delete";
    const ABOUT: &'static str =
        "delete any resources held by the container often used with detached container";
    const OPERANDS: Operands = Operands::ID;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let deletion = if self.force { Deletion::Force } else { Deletion::Stopped };
        match Container::delete(&global.root, &ContainerId::new(self.id)?, deletion) {
            Err(ContainerError::State(StateError::Missing)) if self.force => Ok(0),
            other => Ok(other.map(|()| 0)?),
        }
    }
}
