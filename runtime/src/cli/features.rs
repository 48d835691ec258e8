//! `ketch features`: what this runtime can do, as JSON.

use clap::Args;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;

use super::{CliError, Global, Operands, Subcommand, print, version};
use crate::features::{Build, document};
use crate::seccomp::kernel_flags;
use crate::spec::OCI_VERSION;

#[derive(Debug, Args)]
pub(super) struct Features {}

impl Subcommand for Features {
    const NAME: &'static str = "features";
    const ABOUT: &'static str = "show the enabled features";
    const OPERANDS: Operands = Operands::NONE;
    const DESCRIPTION: &'static str = "Prints the features document of the runtime specification as JSON.";

    fn run(self, _: &Global) -> Result<u8, CliError> {
        let document = document(&Build {
            spec: OCI_VERSION,
            runc_version: &version::compatible(),
            commit: version::commit(),
            seccomp_flags: kernel_flags(),
        });
        let mut text = Vec::new();
        document
            .serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    ")))?;
        text.push(b'\n');
        print(&String::from_utf8_lossy(&text))
    }
}
