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
//! the runtime. Used by [`super::init`] and [`super::stage`].

use std::os::fd::{AsFd, BorrowedFd};

use ketch_sys::process::{self, BESIDE};
use ketch_sys::{namespace, stat, terminal};

use super::namespaces::OpenNamespace;
use super::protocol::{Channel, Message, ProtocolError};
use super::rlimits::{THIS_PROCESS, set_rlimits};
use super::{InitError, step};
use crate::plan::process::RlimitPlan;
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
    namespace: OpenNamespace,
    /// Whether this process's children are born in it already.
    joined: bool,
    pub(super) session: Session,
    /// The limit that it could not inherit.
    pub(super) processes: Option<RlimitPlan>,
}

impl SecondBirth {
    /// For a container that joins a pid namespace, which is taken out of those that are joined at once.
    pub(super) fn of(joins: &mut Vec<OpenNamespace>) -> Option<Self> {
        let at = joins.iter().position(|join| join.kind == NamespaceType::Pid)?;
        Some(Self { namespace: joins.remove(at), joined: false, session: Session::Plain, processes: None })
    }

    /// The pid namespace.
    pub(super) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.fd.as_fd()
    }

    /// Whether who is root in this user namespace may still join the pid namespace.
    pub(super) fn is_owned_by(&self, user: &OpenNamespace) -> bool {
        let inode = |fd: BorrowedFd<'_>| stat::status(fd).map(|status| status.inode);
        match (
            namespace::owner(&self.namespace.fd).and_then(|owner| inode(owner.as_fd())),
            inode(user.fd.as_fd()),
        ) {
            (Ok(owner), Ok(user)) => owner == user,
            _ => false,
        }
    }

    /// Has the children of this process be born in the pid namespace: its hooks, too, so as late as it has the right to.
    pub(super) fn join(&mut self) -> Result<(), InitError> {
        if !self.joined {
            self.namespace.join()?;
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
        drop(self.namespace);
        if let Some(pid) = process::clone_beside().map_err(step("unable to start init: clone"))? {
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
