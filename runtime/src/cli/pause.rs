//! `ketch pause`: stops every process of the container where it is.

use clap::Args;

use super::{CliError, Global, Operands, Subcommand, load};

#[derive(Debug, Args)]
pub(super) struct Pause {
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Pause {
    const NAME: &'static str = "pause";
    const ABOUT: &'static str = "pause suspends all processes inside the container";
    const OPERANDS: Operands = Operands::ID;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        load(global, &self.id)?.pause()?;
        Ok(0)
    }
}
