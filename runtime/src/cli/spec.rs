//! `ketch spec`: a config.json to start from.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Global, Operands, Subcommand};
use crate::bundle::{Bundle, ExampleFor};

#[derive(Debug, Args)]
pub(super) struct Spec {
    /// directory to write config.json into [default: the current one]
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// one for a container without root
    #[arg(long)]
    rootless: bool,
}

impl Subcommand for Spec {
    const NAME: &'static str = "spec";
    const ABOUT: &'static str = "create a new specification file";
    const OPERANDS: Operands = Operands::NONE;
    const DESCRIPTION: &'static str = "Writes a config.json that runs \"sh\" in ./rootfs with few rights. \
Edit it before use.\nAn existing config.json is never replaced.";

    fn run(self, _: &Global) -> Result<u8, CliError> {
        let whom = if self.rootless { ExampleFor::Caller } else { ExampleFor::Root };
        Bundle::open(self.bundle.as_deref())?.write_example(whom)?;
        Ok(0)
    }
}
