//! The second birth: how a process gets into a pid namespace that others are in already.
//!
//! ```text
//!   first process, outside: joins, mounts, hooks, pivot, labels, [setns for its children], the filter, the user
//!                           clone beside itself; Pid; its end
//!   second, inside:         its session and terminal; waits for Run; what is left until execve
//! ```
//! From its birth on, a process with CAP_SYS_PTRACE in the namespace gets at whatever a process there has: root, working
//! directory, descriptors, capabilities; dumpable or not, where it has that right in the runtime's user namespace. So
//! what is born there has none but the container's. All else is inherited from the first process, whose parent is that of
//! the second, too.
//!
//! The filter is loaded before the birth if the process can be born under it. Where it can't, and takes CAP_SYS_ADMIN to
//! load ([`SecondBirth::is_possible_under`]), the birth is before, with the root of the container and the capabilities of
//! the runtime. Used by [`super::init`], [`super::stage`] and
//! [`super::exec`].

use std::os::fd::{AsFd, BorrowedFd};

use ketch_sys::process::{self, BESIDE};
use ketch_sys::{namespace, stat, terminal};

use super::namespaces::OpenNamespace;
use super::protocol::{Channel, Message, ProtocolError};
use super::rlimits::{THIS_PROCESS, set_rlimits};
use super::{InitError, step};
use crate::plan::process::RlimitPlan;
use crate::procfs::ProcFs;
use crate::seccomp::Program;
use crate::spec::NamespaceType;

/// What the second process has as its controlling terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// None.
    Plain,
    /// The one that its standard input is.
    WithTerminal,
}

/// The birth that is to come, with the pid namespace in which it is to be.
#[derive(Debug)]
pub(super) struct SecondBirth {
    /// `None` once this process's children are born in it and nobody else asks for it.
    namespace: Option<OpenNamespace>,
    /// Whether this process's children are born in it already.
    joined: bool,
    /// What it is called where it fails.
    step: &'static str,
    pub(super) session: Session,
    /// A procfs that shows this process, as the container's does not.
    pub(super) procfs: Option<ProcFs>,
    /// The limit that it could not inherit.
    pub(super) processes: Option<RlimitPlan>,
}

impl SecondBirth {
    /// For a container that joins a pid namespace, which is taken out of those that are joined at once.
    pub(super) fn of(joins: &mut Vec<OpenNamespace>) -> Option<Self> {
        let at = joins.iter().position(|join| join.kind == NamespaceType::Pid)?;
        let step = "unable to start init: clone";
        let namespace = Some(joins.remove(at));
        Some(Self { namespace, joined: false, step, session: Session::Plain, procfs: None, processes: None })
    }

    /// For a process of `exec`, which has joined all namespaces of the container.
    pub(super) fn of_joined() -> Self {
        let step = "error starting setns process: clone";
        Self { namespace: None, joined: true, step, session: Session::Plain, procfs: None, processes: None }
    }

    /// The pid namespace, while it is open.
    pub(super) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(|namespace| namespace.fd.as_fd())
    }

    /// What it keeps open until it happens.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.namespace().into_iter().chain(self.procfs.iter().map(AsFd::as_fd))
    }

    /// Whether who is root in this user namespace may still join the pid namespace.
    pub(super) fn is_owned_by(&self, user: &OpenNamespace) -> bool {
        let inode = |fd: BorrowedFd<'_>| Some(stat::status(fd).ok()?.inode);
        let owner = self.namespace().and_then(|namespace| namespace::owner(namespace).ok());
        owner.is_some_and(|owner| {
            inode(owner.as_fd()).is_some_and(|owner| inode(user.fd.as_fd()) == Some(owner))
        })
    }

    /// Has the children of this process be born in the pid namespace: its hooks, too, so as late as it has the right to.
    pub(super) fn join(&mut self) -> Result<(), InitError> {
        if let (Some(namespace), false) = (&self.namespace, self.joined) {
            namespace.join()?;
            self.joined = true;
        }
        Ok(())
    }

    /// Whether the filter lets a process get from the loading to its `Run`. One that notifies is loaded after the birth
    /// in any case, as its agent is told of the process.
    pub(super) fn is_possible_under(&self, program: &Program) -> bool {
        const NO_ARGS: [u64; 6] = [0; 6];
        let plain = |name: &&str| program.allows(name, NO_ARGS);
        !program.notify
            && program.allows("clone", [BESIDE, 0, 0, 0, 0, 0])
            && ["setsid", "read", "write", "exit_group"].iter().all(plain)
            && (self.processes.is_none() || plain(&"prlimit64"))
            && (self.session == Session::Plain
                || program.allows("ioctl", [0, terminal::SET_CONTROLLING, 0, 0, 0, 0]))
    }

    /// Goes on as the second process, once the parent knows of it. The first one ends here.
    pub(super) fn happen(self, channel: &mut Option<Channel>) -> Result<(), InitError> {
        let channel = channel.as_ref().ok_or(ProtocolError::Ended)?;
        drop((self.namespace, self.procfs));
        if let Some(pid) = process::clone_beside().map_err(step(self.step))? {
            channel.write(&Message::Pid(pid))?;
            process::exit_now(0)
        }
        process::new_session().map_err(step("setsid"))?;
        if self.session == Session::WithTerminal {
            terminal::set_controlling(std::io::stdin()).map_err(step("ioctl(setctty)"))?;
        }
        set_rlimits(THIS_PROCESS, self.processes.as_slice())?;
        Ok(channel.read_run()?)
    }
}
