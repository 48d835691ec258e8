//! `ketch create`: a container whose process waits for `start`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::global::absolute;
use super::{Binary, CliError, Global, Operands, Subcommand, pid_file};
use crate::bundle::Bundle;
use crate::compat;
use crate::container::{Container, ContainerError, CreateOptions, Deletion, NotifyFolder, Start};
use crate::foreground::{self, Attachment, Connection, HostEnd, NotifySocket};
use crate::init::Started;
use crate::log;
use crate::plan::rootfs::RootEntry;
use crate::plan::{KeyringChoice, RootlessChoice};
use crate::spec::{ContainerId, IdMapping, Spec};
use crate::state::StateError;

/// What `create` and `run` share.
#[derive(Debug, Args)]
pub(super) struct CreateFlags {
    /// bundle directory [default: the current one]
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// unix socket that is sent the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// unix socket that is sent a pidfd of the container's first process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// file to write the process id to
    #[arg(long, value_name = "FILE")]
    pub(super) pid_file: Option<PathBuf>,
    /// do not use pivot_root: for hosts whose root is a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// stay in the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// hand this many more descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    flags: CreateFlags,
    #[arg(value_name = "container-id")]
    id: String,
}

impl Subcommand for Create {
    const NAME: &'static str = "create";
    const ABOUT: &'static str = "create a container";
    const OPERANDS: Operands = Operands::ID;
    const DESCRIPTION: &'static str = "Makes the container that the bundle's config.json describes. \
Its process waits for \"start\".\nThe id must be one that no other container has.";

    const BINARY: Binary = Binary::Sealed;

    fn run(self, global: &Global) -> Result<u8, CliError> {
        self.create(global).map_err(|error| error.told_as(compat::CREATE_FAILED))
    }
}

impl Create {
    fn create(self, global: &Global) -> Result<u8, CliError> {
        let mut created =
            Creation::new(global, self.flags, &self.id, Attachment::Detached)?.carry_out(Start::WhenAsked)?;
        let told = created.write_pid_file();
        if told.is_err() {
            created.remove();
        }
        told?;
        Ok(0)
    }
}

/// A container about to be made.
pub(super) struct Creation<'a> {
    global: &'a Global,
    rootless: RootlessChoice,
    id: ContainerId,
    flags: CreateFlags,
    bundle: Bundle,
    spec: Spec,
    attachment: Attachment,
    pid_file: Option<PathBuf>,
}

/// A container that waits for its start, and what the runtime holds of it.
pub(super) struct Created<'a> {
    pub(super) global: &'a Global,
    pub(super) id: ContainerId,
    pub(super) container: Container,
    pub(super) started: Started,
    pub(super) host: HostEnd,
    pub(super) pid_file: Option<PathBuf>,
}

impl<'a> Creation<'a> {
    pub(super) fn new(
        global: &'a Global,
        flags: CreateFlags,
        id: &str,
        attachment: Attachment,
    ) -> Result<Self, CliError> {
        let rootless = global.rootless()?;
        let pid_file = given(flags.pid_file.as_deref()).map(absolute).transpose()?;
        let bundle = Bundle::open(given(flags.bundle.as_deref()))?;
        // Paths in the configuration, and the sockets of the flags, are relative to the bundle.
        bundle.enter()?;
        let spec = bundle.load()?;
        Ok(Self { global, rootless, id: ContainerId::new(id)?, flags, bundle, spec, attachment, pid_file })
    }

    pub(super) fn carry_out(mut self, start: Start) -> Result<Created<'a>, CliError> {
        let listen_fds = foreground::activation_sockets();
        let notify = notify_host();
        // Its socket has to be there before the program is.
        let start = if notify.is_some() { Start::WhenAsked } else { start };
        if let Some(process) = &mut self.spec.process
            && listen_fds > 0
        {
            process.env.push(format!("LISTEN_FDS={listen_fds}"));
            process.env.push("LISTEN_PID=1".to_owned());
        }
        let (io, host) = Connection {
            attachment: self.attachment,
            terminal: self.spec.process.as_ref().is_some_and(|process| process.terminal),
            console_socket: self.flags.console_socket.as_deref(),
            pidfd_socket: self.flags.pidfd_socket.as_deref(),
            listen_fds,
            preserve_fds: self.flags.preserve_fds,
            owner: root_on_host(&self.spec),
        }
        .make()?;
        let (container, started) = Container::create(CreateOptions {
            root: &self.global.root,
            id: self.id.clone(),
            bundle: &self.bundle,
            spec: self.spec,
            entry: if self.flags.no_pivot { RootEntry::MoveMount } else { RootEntry::PivotRoot },
            keyring: if self.flags.no_new_keyring { KeyringChoice::Inherit } else { KeyringChoice::New },
            rootless: self.rootless,
            driver: self.global.cgroup_driver(),
            notify: if notify.is_some() { NotifyFolder::Mounted } else { NotifyFolder::Absent },
            start,
            io,
        })?;
        Ok(Created { global: self.global, id: self.id, container, started, host, pid_file: self.pid_file })
    }
}

impl Created<'_> {
    /// Writes `--pid-file`. A container whose caller cannot be told its pid has to be removed again.
    pub(super) fn write_pid_file(&self) -> Result<(), CliError> {
        let Some(path) = &self.pid_file else { return Ok(()) };
        pid_file::write(path, self.started.pid)
    }

    /// Ends and removes the container. In a second attempt as well: what kept the first from it may have been passing, and
    /// nobody else knows of the container.
    pub(super) fn remove(&mut self) {
        let Err(error) = self.container.remove() else { return };
        log::warn(crate::error::chain(&error));
        match Container::delete(&self.global.root, &self.id, Deletion::Force) {
            Ok(()) | Err(ContainerError::State(StateError::Missing)) => {}
            Err(error) => log::warn(crate::error::chain(&error)),
        }
    }

    /// The container's notification socket, when the caller has one.
    pub(super) fn notify_socket(&self) -> Result<Option<NotifySocket>, CliError> {
        Ok(match notify_host() {
            Some(host) => Some(NotifySocket::bind(self.container.dir(), &host)?),
            None => None,
        })
    }
}

/// The caller's notification socket.
pub(super) fn notify_host() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The host's ids of the container's root.
pub(super) fn root_on_host(spec: &Spec) -> (u32, u32) {
    let mapped = |mappings: &[IdMapping]| IdMapping::host_id_of(mappings, 0).unwrap_or(0);
    spec.linux.as_ref().map_or((0, 0), |linux| (mapped(&linux.uid_mappings), mapped(&linux.gid_mappings)))
}

/// `path` unless it is empty.
pub(super) fn given(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !path.as_os_str().is_empty())
}
