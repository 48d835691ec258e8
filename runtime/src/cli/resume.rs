//! `ketch resume`: lets a paused container go on.

use clap::Args;

use super::{CliError, Global, Operands, Subcommand, load};

#[derive(Debug, Args)]
pub(super) struct Resume {
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Resume {
    const NAME: &'static str = "resume";
    const ABOUT: &'static str = "resumes all processes that have been previously paused";
    const OPERANDS: Operands = Operands::ID;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        load(global, &self.id)?.resume()?;
        Ok(0)
    }
}
