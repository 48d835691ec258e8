//! `ketch state`: what the container does now, as JSON.

use clap::Args;

use super::{CliError, Global, Operands, Subcommand, load, print};

#[derive(Debug, Args)]
pub(super) struct State {
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for State {
    const NAME: &'static str = "state";
    const ABOUT: &'static str = "output the state of a container";
    const OPERANDS: Operands = Operands::ID;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        print(&serde_json::to_string_pretty(&load(global, &self.id)?.view()?)?)
    }
}
