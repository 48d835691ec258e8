//! The start of a process in a container: what the parent does ([`parent`], with [`birth`], [`conversation`] and
//! [`guard`]), and what the child does until execve ([`init`] for a container's first process, [`exec`] for one that joins
//! it). [`protocol`] is what they say to each other. Called by `container`.
//!
//! After clone3 the child is a copy of this single-threaded program: it has the plan in memory, may allocate, and ends
//! in execve or `_exit`, never by returning.

mod birth;
mod child;
mod conversation;
pub mod exec;
mod guard;
mod id_map;
#[expect(
    clippy::module_inception,
    reason = "runc's and the runtime-spec's word for the container's first process"
)]
mod init;
mod namespaces;
mod network;
pub mod parent;
pub mod protocol;
mod rlimits;
mod second_birth;
mod stage;
mod trail;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ketch_sys::process::{Child, ExitStatus, Pid};
use ketch_sys::{SyscallError, terminal};
use thiserror::Error;

use crate::cgroup::{Cgroup, CgroupError};
use crate::hooks::HookError;
use crate::host;
use crate::net_device::NetDeviceError;
use crate::process::environment::LookupError;
use crate::process::identity::IdentityError;
use crate::process::keyring::KeyringError;
use crate::process::scheduling::SchedulingError;
use crate::resctrl::ResctrlError;
use crate::rootfs::RootfsError;
use protocol::ProtocolError;

pub use id_map::IdMapError;

/// What the new process gets for its standard streams and descriptors.
#[derive(Debug, Default)]
pub struct ProcessIo {
    /// Its standard input, output and error; `None` keeps the runtime's own.
    pub streams: Option<[OwnedFd; 3]>,
    /// Where the terminal's master is sent, for a process with a terminal.
    pub console_socket: Option<OwnedFd>,
    /// The terminal is shown on another one, the caller's.
    pub shown: Option<Shown>,
    /// Where a pidfd of the process is sent.
    pub pidfd_socket: Option<OwnedFd>,
    /// How many descriptors from 3 on stay open in the process (`--preserve-fds` and `LISTEN_FDS`).
    pub preserved_fds: u32,
}

impl ProcessIo {
    /// Does something with its standard input, output and error.
    pub fn with_streams<T>(&self, act: impl FnOnce([BorrowedFd<'_>; 3]) -> T) -> T {
        match &self.streams {
            Some(streams) => act(streams.each_ref().map(AsFd::as_fd)),
            None => act([std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()]),
        }
    }
}

/// What a terminal that is shown on the caller's has of that one. It is so from its making on: whatever the process does
/// first, it sees this size, and its lines reach the caller with one carriage return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Rows and columns, in characters; `None` leaves what the bundle asks for.
    pub size: Option<(u16, u16)>,
}

impl Shown {
    /// Sets up a terminal by its master.
    ///
    /// # Errors
    /// It is no terminal.
    pub fn prepare(self, master: BorrowedFd<'_>) -> Result<(), SyscallError> {
        let settings = terminal::settings(master)?;
        terminal::apply(master, &settings.without_carriage_returns())?;
        self.size.map_or(Ok(()), |(rows, columns)| terminal::set_size(master, rows, columns))
    }
}

/// Why a process did not start.
#[derive(Debug, Error)]
pub enum InitError {
    /// A system call outside of any larger step.
    #[error("{step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// The kernel gives no user namespace.
    #[error("cannot create a user namespace{hint}")]
    UserNamespace {
        /// Which setting forbids it, in parentheses; empty when that is not known.
        hint: String,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// Its ids could not be mapped.
    #[error(transparent)]
    IdMap(#[from] IdMapError),
    /// A namespace could not be opened.
    #[error("namespace path: lstat {path}: {}", ketch_sys::error::errno_text(error.errno))]
    NamespacePath {
        /// As configured.
        path: String,
        /// The kernel's answer, whose words are in the text.
        error: SyscallError,
    },
    /// A path that is no namespace of the kind that it is configured as.
    #[error("{path} is not a {kind} namespace")]
    NotANamespace {
        /// As configured.
        path: String,
        /// The kind.
        kind: &'static str,
        /// The kernel's answer, for what is none at all.
        source: Option<SyscallError>,
    },
    /// A namespace could not be joined.
    #[error("joining the {kind} namespace")]
    Join {
        /// The kind.
        kind: &'static str,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// A limit could not be set.
    #[error("error setting rlimits for ready process: error setting rlimit type {kind}")]
    Rlimit {
        /// Its name.
        kind: String,
        /// The kernel's answer; EINVAL for a name that it does not have.
        source: SyscallError,
    },
    /// Cgroups.
    #[error("unable to apply cgroup configuration")]
    Cgroup(#[from] CgroupError),
    /// Intel RDT.
    #[error("unable to apply Intel RDT configuration")]
    Resctrl(#[from] ResctrlError),
    /// Mounts and the root.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// Network devices.
    #[error("error creating network interfaces")]
    NetDevice(#[from] NetDeviceError),
    /// Hooks.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The keyring.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Scheduling.
    #[error(transparent)]
    Scheduling(#[from] SchedulingError),
    /// Identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The program.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// execve(2).
    #[error(transparent)]
    Exec(SyscallError),
    /// The conversation broke, or the child reported an error.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The process is gone, and has not said why.
    #[error("the process {}", ending(*.0))]
    Died(ExitStatus),
    /// A step of the caller's in between.
    #[error(transparent)]
    Caller(Box<dyn std::error::Error + Send + Sync>),
}

fn ending(status: ExitStatus) -> String {
    match status {
        // With this one it would have said more before.
        ExitStatus::Exited(child::FAILED) => {
            "failed before it was ready, and was kept from saying why: a seccomp profile has to allow write(2)".into()
        }
        ExitStatus::Exited(code) => format!("exited with code {code} before it was ready"),
        ExitStatus::Signaled(signal) => format!("was killed by signal {signal} before it was ready"),
    }
}

/// Wraps a system call's failure in the name of the step.
fn step(step: &'static str) -> impl FnOnce(SyscallError) -> InitError {
    move |source| InitError::Step { step, source }
}

/// A refused user namespace, with the setting that forbids it.
fn user_namespace_refused(source: SyscallError) -> InitError {
    let hint = host::why_no_user_namespace(source.errno);
    let hint = if hint.is_empty() { hint } else { format!(" ({hint})") };
    InitError::UserNamespace { hint, source }
}

/// A process that has started: it waits at the fifo, or runs.
pub type Started = Child;

/// What the caller does at the two points where the parent holds the child.
pub trait Milestones {
    /// The namespaces and mounts exist and the root is not yet changed: the runtime's hooks.
    ///
    /// # Errors
    /// Ends the start.
    fn run_hooks(&mut self, pid: Pid) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// The process is born, in its cgroup: its number is known. Until [`Milestones::ready`] the container is one that is being
    /// created.
    ///
    /// # Errors
    /// Ends the start.
    fn born(
        &mut self,
        child: &Child,
        cgroup: &Cgroup,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// The process is all that it was to be but its program: from here on it is a container that others may see.
    ///
    /// # Errors
    /// Ends the start.
    fn ready(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// The container's state as the hooks of the container get it, with the process's number in the container.
    fn state_for_hooks(&self, status: &'static str, pid: Pid) -> Vec<u8>;
}
