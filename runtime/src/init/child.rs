//! What every child does, whichever process it becomes: report its error and end, join cgroups and namespaces, get its
//! streams, install its filter.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use ketch_sys::namespace;
use ketch_sys::process::{self, Exec};
use ketch_sys::{Errno, SyscallError, credential, path, signal, socket, terminal};

use super::protocol::{Channel, Message, ProtocolError};
use super::rlimits::{RlimitsBy, THIS_PROCESS, set_rlimits, set_to_inherit};
use super::second_birth::{SecondBirth, Session};
use super::{InitError, ProcessIo, step};
use crate::cgroup::JoinFile;
use crate::error::chain;
use crate::plan::FilterPlan;
use crate::plan::process::{ProcessPlan, Supplementary};
use crate::process::{environment, identity, landlock};
use crate::procfs::{Contents, ProcFs};
use crate::rootfs::Console;
use crate::seccomp::{self, Program};

/// The exit code of a child that has failed, whether it could say why or not.
pub(super) const FAILED: i32 = 255;

/// Runs a child to its end. An error goes to the parent; where the channel is closed already (`create` is over),
/// to standard error, as a last resort.
pub(super) fn run(
    channel: Channel,
    body: impl FnOnce(&mut Option<Channel>) -> Result<Infallible, InitError>,
) -> ! {
    let mut channel = Some(channel);
    let Err(error) = body(&mut channel);
    // Without a parent there is nobody whose error it is.
    let orphaned = matches!(error, InitError::Protocol(ProtocolError::Ended));
    let text = chain(&error);
    let told = channel.as_ref().is_some_and(|channel| {
        let error = Message::Error(text.clone());
        // A filter may be in force by now, and refuse one of the two.
        channel.write(&error).or_else(|_| channel.send(&error)).is_ok()
    });
    if !told && !orphaned {
        use std::io::Write;
        let _last_resort = writeln!(std::io::stderr(), "{text}");
    }
    process::exit_now(FAILED)
}

/// Closes what the parent has open and this process is not to have: its lock, cgroups, procfs, and whatever its caller
/// forgot to close (CVE-2024-21626).
pub(super) fn keep_only<'a>(
    io: &'a ProcessIo,
    also: impl IntoIterator<Item = BorrowedFd<'a>>,
) -> Result<(), InitError> {
    let mut keep: Vec<BorrowedFd<'a>> = also.into_iter().collect();
    keep.extend(io.streams.iter().flatten().map(AsFd::as_fd));
    keep.extend(io.console_socket.as_ref().map(AsFd::as_fd));
    process::close_other_fds(first_closed_fd(io), &keep).map_err(step("closing descriptors"))
}

/// An agent that answers the filter's notifications can put descriptors into this process at any of its calls
/// (SECCOMP_IOCTL_NOTIF_ADDFD), so these are marked as late as can be. Whatever else came after [`keep_only`] closes at
/// execve by itself.
pub(super) fn close_what_agents_added(filter: Option<&FilterPlan>, io: &ProcessIo) -> Result<(), InitError> {
    if !filter.is_some_and(|filter| filter.program.notify) {
        return Ok(());
    }
    process::close_on_exec_from(first_closed_fd(io)).map_err(step("closing descriptors"))
}

/// The first descriptor that the program does not get.
fn first_closed_fd(io: &ProcessIo) -> i32 {
    i32::try_from(io.preserved_fds).unwrap_or(i32::MAX - 3) + 3
}

/// Waits for `wanted`. The parent's end of the channel closes when the parent dies, and so does the child then.
pub(super) fn expect(
    channel: &Option<Channel>,
    wanted: &Message,
    name: &'static str,
) -> Result<(), InitError> {
    channel.as_ref().ok_or(ProtocolError::Ended)?.expect(wanted, name).map_err(InitError::from)
}

pub(super) fn tell(channel: &Option<Channel>, message: &Message) -> Result<(), InitError> {
    channel.as_ref().ok_or(ProtocolError::Ended)?.send(message).map_err(InitError::from)
}

/// Waits until the parent has remembered this process, which must not become its program before: a start that is cut
/// short leaves nothing unknown. As late as may be, since the parent is at it while the child goes on.
pub(super) fn await_run(channel: &Option<Channel>) -> Result<(), InitError> {
    channel.as_ref().ok_or(ProtocolError::Ended)?.await_run().map_err(InitError::from)
}

/// Says that all is set but what the program itself needs, and sets the rlimits where that is this process's to do: a user
/// namespace has no right to, so its parent does, and the next steps wait for that. Not those of a first process: the parent
/// will hear of the second one, and sets its rlimits.
pub(super) fn be_ready(
    channel: &Option<Channel>,
    process: &ProcessPlan,
    rlimits: RlimitsBy,
    birth: Option<&mut SecondBirth>,
) -> Result<(), InitError> {
    if let Some(birth) = birth {
        if rlimits == RlimitsBy::Child {
            birth.processes = set_to_inherit(&process.rlimits)?;
        }
        return Ok(());
    }
    tell(channel, &Message::Ready)?;
    match rlimits {
        RlimitsBy::Parent => await_run(channel),
        RlimitsBy::Child => set_rlimits(THIS_PROCESS, &process.rlimits),
    }
}

/// v1: this single-threaded process writes itself into each hierarchy, which does not pay the RCU grace period that
/// a write by another process waits for. v2 children are born in their cgroup.
pub(super) fn join_cgroups(files: &mut Vec<JoinFile>) -> Result<(), InitError> {
    files.drain(..).try_for_each(|file| file.join()).map_err(step("unable to apply cgroup configuration"))
}

/// The root user of the user namespace that this process is in now. Its id outside means nothing inside, and would
/// be shown as the overflow id.
/// `procfs` is one that shows this process, where the mounted one does not.
pub(super) fn become_namespace_root(groups: Supplementary, procfs: Option<&ProcFs>) -> Result<(), InitError> {
    if groups == Supplementary::Planned {
        match credential::set_groups(&[]) {
            Err(error) if error.errno == Errno::EPERM && identity::groups_are_denied(procfs) => {}
            other => other.map_err(step("dropping groups in the user namespace"))?,
        }
    }
    credential::set_gid(0).map_err(step("becoming the group of the user namespace's root"))?;
    credential::set_uid(0).map_err(step("becoming the user namespace's root"))
}

/// The standard streams that the caller prepared.
pub(super) fn take_streams(io: &mut ProcessIo) -> Result<(), InitError> {
    if let Some(streams) = io.streams.take() {
        for (number, stream) in (0..).zip(streams) {
            path::duplicate_onto_standard_stream(stream, number)
                .map_err(step("setting up standard streams"))?;
        }
    }
    Ok(())
}

/// Sends the terminal's master away and takes the other end for the standard streams and as controlling terminal.
pub(super) fn attach_console(
    console: &Console,
    io: &mut ProcessIo,
    birth: Option<&mut SecondBirth>,
) -> Result<(), InitError> {
    if let Some(shown) = io.shown {
        shown.prepare(console.master.as_fd()).map_err(step("setting up the terminal"))?;
    }
    if let Some(socket) = io.console_socket.take() {
        socket::send(&socket, b"/dev/pts/ptmx", &[console.master.as_fd()])
            .map_err(step("sending the terminal to the console socket"))?;
    }
    console.use_as_standard_streams()?;
    if let Some(birth) = birth {
        // It is the session's, and that is the second process's.
        birth.session = Session::WithTerminal;
        return Ok(());
    }
    terminal::set_controlling(std::io::stdin()).map_err(step("ioctl(setctty)"))
}

/// Signal dispositions and mask of a fresh process: the runtime in the foreground has its own, and a blocked mask
/// survives execve(2). But up to there a hook that ends without reading its state is no reason for this process to die.
pub(super) fn reset_signals() -> Result<(), InitError> {
    signal::reset().and_then(|()| signal::survive_broken_pipes()).map_err(step("resetting signals"))
}

/// Loads the filter and hands its listener over.
fn install_filter(program: &Program, channel: &Option<Channel>) -> Result<(), InitError> {
    let Some(listener) = seccomp::install(program).map_err(step("unable to init seccomp"))? else {
        return Ok(());
    };
    let channel = channel.as_ref().ok_or(ProtocolError::Ended)?;
    channel.send_with(&Message::SeccompListener, &[listener.as_fd()])?;
    channel.expect(&Message::ListenerTaken, "ListenerTaken").map_err(InitError::from)
}

/// The AppArmor profile of the next execve (proc(5), `attr/apparmor/exec`).
pub(super) fn apply_apparmor(profile: Option<&String>, proc: &mut LazyProc) -> Result<(), InitError> {
    let Some(profile) = profile else { return Ok(()) };
    let value = format!("exec {profile}");
    let proc = proc.open()?;
    proc.write_self("attr/apparmor/exec", value.as_bytes())
        .or_else(|_| proc.write_self("attr/exec", value.as_bytes()))
        .map_err(step("unable to apply apparmor profile"))
}

/// The SELinux label of the next execve (proc(5), `attr/exec`).
pub(super) fn apply_selinux(label: Option<&String>, proc: &mut LazyProc) -> Result<(), InitError> {
    let Some(label) = label else { return Ok(()) };
    proc.open()?.write_self("attr/exec", label.as_bytes()).map_err(step("can't set process label"))
}

/// The private procfs, mounted at its first use: most processes need none.
#[derive(Debug)]
pub(super) struct LazyProc<'a> {
    contents: Contents,
    mounted: Option<ProcFs>,
    /// Shows this process, where the mounted one does not.
    own: Option<&'a ProcFs>,
}

impl<'a> LazyProc<'a> {
    pub(super) fn new(contents: Contents, own: Option<&'a ProcFs>) -> Self {
        Self { contents, mounted: None, own }
    }

    pub(super) fn open(&mut self) -> Result<&ProcFs, InitError> {
        match &mut self.mounted {
            Some(proc) => Ok(proc),
            empty => {
                let proc = match ProcFs::private(self.contents) {
                    // The kernel gives a user namespace no procfs that shows more than what is mounted: then that one,
                    // proven, and without what may be mounted in it.
                    Err(error) if error.errno == Errno::EPERM => match self.own {
                        Some(own) => return Ok(own),
                        None => ProcFs::host().map_err(|_| error),
                    },
                    private => private,
                };
                let proc = proc.map_err(step("mounting a private procfs"))?;
                Ok(empty.insert(proc))
            }
        }
    }
}

/// Makes the container's cgroup namespace, once this process is in its cgroup.
pub(super) fn create_cgroup_namespace() -> Result<(), InitError> {
    namespace::unshare(namespace::NEW_CGROUP).map_err(step("unshare of the cgroup namespace"))
}

impl InitError {
    /// What kept this process from hearing `start`.
    pub(super) fn while_waiting(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::Step {
                step: "waiting for start",
                source: SyscallError::new("read", "exec.fifo", ketch_sys::Errno::from_raw(errno)),
            },
            None => ProtocolError::Ended.into(),
        }
    }

    /// An I/O error of the standard library around a system call of no name.
    pub(super) fn from_io(error: std::io::Error) -> Self {
        let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
        Self::Step { step: "duplicating a descriptor", source: SyscallError::new("fcntl", "", errno) }
    }
}

/// What execve is called with, once the process is the planned user.
pub(super) struct FoundProgram {
    path: CString,
    /// The environment, `HOME` included.
    pub(super) env: Vec<String>,
}

impl FoundProgram {
    /// The call, with everything that it needs allocated.
    pub(super) fn exec(&self, args: &[String]) -> Exec {
        // None holds a NUL: a JSON string that does is refused before.
        let c_strings = |strings: &[String]| {
            strings.iter().map(|string| CString::new(string.as_str()).unwrap_or_default()).collect()
        };
        Exec::new(self.path.clone(), c_strings(args), c_strings(&self.env))
    }
}

fn restrict(rules: Option<landlock::Prepared>) -> Result<(), InitError> {
    let Some(rules) = rules else { return Ok(()) };
    rules.restrict().map_err(step("applying Landlock rules (they need noNewPrivileges or CAP_SYS_ADMIN)"))
}

/// Loads the filter, in the first process if the second can be born under it. Who is not to be born again waits for `Run`
/// before.
fn confine(
    filter: &Program,
    channel: &mut Option<Channel>,
    birth: &mut Option<SecondBirth>,
) -> Result<(), InitError> {
    match birth.take_if(|birth| !birth.is_possible_under(filter)) {
        Some(birth) => birth.happen(channel)?,
        None if birth.is_none() => await_run(channel)?,
        None => {}
    }
    install_filter(filter, channel)
}

/// Becomes the planned user under the container's filter, and finds the program as that user.
///
/// The parent's `Run` is waited for before the filter, which may not allow to receive it.
///
/// Without no_new_privs a filter needs CAP_SYS_ADMIN: it comes before the capabilities go. With it, as late as can be,
/// so that the profile need not allow what stands between. Landlock rules are likewise, just before the filter. `last` is the
/// last thing to be done as the user without them. Who is yet to be born where it belongs is so as late as can be, too.
pub(super) fn assume_identity(
    plan: &ProcessPlan,
    filter: Option<&FilterPlan>,
    channel: &mut Option<Channel>,
    mut birth: Option<SecondBirth>,
    last: impl FnOnce() -> Result<(), InitError>,
) -> Result<FoundProgram, InitError> {
    if let Some(birth) = &mut birth {
        // The right to goes with the user's.
        birth.join()?;
    }
    if let Some(birth) = birth.take_if(|_| plan.names_own_procfs()) {
        birth.happen(channel)?;
    }
    let filter = filter.map(|filter| &filter.program);
    // Rules name paths that the user may not reach, and HOME is in a file that they may forbid.
    let rules = plan.landlock.as_ref().map(landlock::prepare).transpose();
    let mut rules = rules.map_err(step("preparing Landlock rules"))?.flatten();
    let env = environment::with_home(plan.env.clone(), plan.user.uid);
    if !plan.no_new_privileges {
        restrict(rules.take())?;
    }
    if let (Some(filter), false) = (filter, plan.no_new_privileges) {
        confine(filter, channel, &mut birth)?;
    }
    identity::assume(plan, birth.as_ref().and_then(|birth| birth.procfs.as_ref()))?;
    let find = || environment::find_program(plan.args.first().map_or("", String::as_str), &env);
    let found = match find() {
        // It may be of /proc/self, where the first process is not.
        Err(error) if birth.is_some() && error.is_absence() => None,
        found => Some(found?),
    };
    last()?;
    restrict(rules)?;
    if let (Some(filter), true) = (filter, plan.no_new_privileges) {
        confine(filter, channel, &mut birth)?;
    }
    if let Some(birth) = birth {
        birth.happen(channel)?;
    }
    let path = found.map_or_else(find, Ok)?;
    Ok(FoundProgram { path, env })
}
