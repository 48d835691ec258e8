//! `ketch restore`: a container from the folder that its checkpoint was saved to.

use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;

use super::checkpoint::CriuFlags;
use super::create::{Created, given, notify_host, root_on_host};
use super::global::absolute;
use super::run::attend;
use super::{Binary, CliError, Global, Operands, Subcommand};
use crate::bundle::Bundle;
use crate::checkpoint::{self, RestoreRequest};
use crate::container::{Container, CreateOptions, NotifyFolder, Start};
use crate::foreground::{Attachment, Attended, Connection, Foreground, HostEnd, Subreaper};
use crate::log;
use crate::plan::KeyringChoice;
use crate::plan::rootfs::RootEntry;
use crate::spec::ContainerId;

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    criu: CriuFlags,
    /// unix socket that is sent the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// bundle directory [default: the current one]
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// do not wait for the process
    #[arg(long, short)]
    detach: bool,
    /// file to write the process id to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// do not become the parent of orphaned processes
    #[arg(long)]
    no_subreaper: bool,
    /// accepted for the sake of callers: criu enters the root by itself
    #[arg(long)]
    no_pivot: bool,
    /// security profile in place of the saved one: apparmor:NAME or selinux:LABEL
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// SELinux context of the mounts in place of the saved one
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Restore {
    const NAME: &'static str = "restore";
    const ABOUT: &'static str = "restore a container from a previous checkpoint";
    const OPERANDS: Operands = Operands::ID;
    const DESCRIPTION: &'static str = "Brings back the processes that \"checkpoint\" has saved, by criu (which must be on \
PATH), as the container of the bundle's config.json,\nwhich has to be like that of the checkpoint. Its id and cgroup may be \
others. What is bound into it is taken from config.json,\nnever from the saved files, which are refused where they lead \
elsewhere.\n\nprestart and createRuntime hooks run again; the others do not. With NOTIFY_SOCKET, the restored container is said to be ready.
When criu fails, nothing is left, and the \
last errors of\nrestore.log are shown.";

    const BINARY: Binary = Binary::Sealed;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        let (images, work) = self.criu.folders()?;
        let request = RestoreRequest {
            images,
            work,
            shared: self.criu.shared()?,
            lsm_profile: self.lsm_profile.filter(|profile| !profile.is_empty()),
            lsm_mount_context: self.lsm_mount_context.filter(|context| !context.is_empty()),
        };
        let pid_file = given(self.pid_file.as_deref()).map(absolute).transpose()?;
        let bundle = Bundle::open(given(self.bundle.as_deref()))?;
        // Paths in the configuration, and the console socket, are relative to the bundle.
        std::env::set_current_dir(bundle.path())?;
        let spec = bundle.load()?;
        let attachment = if self.detach { Attachment::Detached } else { Attachment::Attached };
        let subreaper = if self.no_subreaper { Subreaper::Disabled } else { Subreaper::Enabled };
        let (io, host) = Connection {
            attachment,
            terminal: spec.process.as_ref().is_some_and(|process| process.terminal),
            console_socket: self.console_socket.as_deref(),
            pidfd_socket: None,
            listen_fds: 0,
            preserve_fds: 0,
            owner: root_on_host(&spec),
        }
        .make()?;
        let foreground = match attachment {
            Attachment::Attached => Some(Foreground::prepare(subreaper)?),
            Attachment::Detached => None,
        };
        let id = ContainerId::new(&self.id)?;
        // One that was saved with the folder has it mounted, whoever listens by now.
        let notify = if notify_host().is_some() || checkpoint::was_shown_notify_folder(&request.images) {
            NotifyFolder::Mounted
        } else {
            NotifyFolder::Absent
        };
        let options = CreateOptions {
            root: &global.root,
            id: id.clone(),
            bundle: &bundle,
            spec,
            entry: if self.no_pivot { RootEntry::MoveMount } else { RootEntry::PivotRoot },
            keyring: KeyringChoice::New,
            rootless: global.rootless()?,
            driver: global.cgroup_driver(),
            start: Start::AtOnce,
            notify,
            io,
        };
        let (container, started) = Container::restore(options, &request)?;
        let mut created = Created { global, id, container, started, host: HostEnd::Inherited, pid_file };
        let attended = connect_and_attend(&created, foreground, host);
        if attended.is_err() || attachment == Attachment::Attached {
            created.remove();
        }
        attended
    }
}

fn connect_and_attend(
    created: &Created<'_>,
    foreground: Option<Foreground>,
    host: HostEnd,
) -> Result<u8, CliError> {
    let notify = created.notify_socket()?;
    let stdio = host.open()?;
    created.write_pid_file()?;
    let process = Attended { pid: created.started.pid, pidfd: created.started.pidfd.as_fd() };
    if let Some(notify) = &notify {
        // As with `run`: who stays is the process to watch.
        let main = if foreground.is_some() { std::process::id().cast_signed() } else { process.pid };
        if let Err(error) = notify.announce_restored(main) {
            log::warn(crate::error::chain(&error));
        }
    }
    match foreground {
        Some(foreground) => attend(&created.container, process, (foreground, stdio), notify.as_ref()),
        None => Ok(0),
    }
}
