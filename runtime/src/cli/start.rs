//! `ketch start`: lets a created container's process run.

use std::os::fd::AsFd;

use clap::Args;

use super::create::notify_host;
use super::{CliError, Global, Operands, Subcommand, load};
use crate::foreground::NotifySocket;

#[derive(Debug, Args)]
pub(super) struct Start {
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Start {
    const NAME: &'static str = "start";
    const ABOUT: &'static str = "executes the user defined process in a created container";
    const OPERANDS: Operands = Operands::ID;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let mut container = load(global, &self.id)?;
        let notify = match (notify_host(), container.init()?) {
            (Some(host), Some(init)) => Some((NotifySocket::bind(container.dir(), &host)?, init)),
            _ => None,
        };
        container.start()?;
        if let Some((notify, init)) = notify {
            notify.wait(container.state().init_process_pid, init.as_fd())?;
        }
        Ok(0)
    }
}
