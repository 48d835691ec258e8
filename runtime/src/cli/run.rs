//! `ketch run`: create, start, and wait for the end.

use std::os::fd::AsFd;

use clap::Args;

use super::create::{CreateFlags, Created, Creation};
use super::{Binary, CliError, Global, Operands, Subcommand, exit_code};
use crate::compat;
use crate::container::{Container, Start};
use crate::foreground::{Attachment, Attended, Foreground, HostEnd, NotifySocket, Stdio, Subreaper};
use crate::log;
use crate::signal::Signal;

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    flags: CreateFlags,
    /// do not wait for the process
    #[arg(long, short)]
    detach: bool,
    /// keep the container when its process has ended
    #[arg(long)]
    keep: bool,
    /// do not become the parent of orphaned processes
    #[arg(long)]
    no_subreaper: bool,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Run {
    const NAME: &'static str = "run";
    const ABOUT: &'static str = "create and run a container";
    const OPERANDS: Operands = Operands::ID;
    const DESCRIPTION: &'static str = "Makes the container that the bundle's config.json describes, starts it, \
and waits until its process has ended,\nwhose exit code it exits with. The id must be one that no other container has.";

    const BINARY: Binary = Binary::Sealed;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        self.create_and_start(global).map_err(|error| error.told_as(compat::RUN_FAILED))
    }
}

impl Run {
    fn create_and_start(self, global: &Global) -> Result<u8, CliError> {
        let attachment = if self.detach { Attachment::Detached } else { Attachment::Attached };
        let subreaper = if self.no_subreaper { Subreaper::Disabled } else { Subreaper::Enabled };
        let keep = self.keep;
        let creation = Creation::new(global, self.flags, &self.id, attachment)?;
        let foreground = match attachment {
            Attachment::Attached => Some(Foreground::prepare(subreaper)?),
            Attachment::Detached => None,
        };
        let mut created = creation.carry_out(Start::AtOnce)?;
        let host = std::mem::replace(&mut created.host, HostEnd::Inherited);
        match start_and_attend(&mut created, foreground, host) {
            Ok(code) => {
                if attachment == Attachment::Attached && !keep {
                    created.remove();
                }
                Ok(code)
            }
            Err(error) => {
                if keep {
                    // Whoever asked to keep it wants to look into it, the more so now; its process must not stay.
                    created.end();
                } else {
                    created.remove();
                }
                Err(error)
            }
        }
    }
}

impl Created<'_> {
    /// Ends the container's process and leaves the container.
    fn end(&self) {
        if let Err(error) = self.container.kill(Signal::KILL.number()) {
            log::debug(crate::error::chain(&error));
        }
        // Stopped by the time that the caller asks for its state.
        Attended { pid: self.started.pid, pidfd: self.started.pidfd.as_fd() }.terminate();
    }
}

fn start_and_attend(
    created: &mut Created<'_>,
    foreground: Option<Foreground>,
    host: HostEnd,
) -> Result<u8, CliError> {
    let notify = created.notify_socket()?;
    let stdio = host.open()?;
    created.container.start()?;
    created.write_pid_file()?;
    let process = Attended { pid: created.started.pid, pidfd: created.started.pidfd.as_fd() };
    let Some(foreground) = foreground else {
        if let Some(notify) = notify
            && let Err(error) = notify.wait(process.pid, process.pidfd)
        {
            // The container runs; that its readiness got lost is no reason to end it.
            log::warn(crate::error::chain(&error));
        }
        return Ok(0);
    };
    attend(&created.container, process, (foreground, stdio), notify.as_ref())
}

/// Stays until the container's first process and its output have ended.
pub(super) fn attend(
    container: &Container,
    process: Attended<'_>,
    (mut foreground, stdio): (Foreground, Stdio),
    notify: Option<&NotifySocket>,
) -> Result<u8, CliError> {
    foreground.connect(stdio)?;
    let status = foreground.attend(process, notify)?;
    // They may hold our pipes.
    if let Err(error) = container.kill_rest() {
        log::debug(crate::error::chain(&error));
    }
    foreground.finish()?;
    Ok(exit_code(status.code()))
}
