//! A process that joins a running container: both sides of `exec`.
//!
//! ```text
//!   parent: not dumpable; its children go to the container's pid namespace; clone3 into the container's cgroup
//!   child:  all other namespaces by one setns on init's pidfd; identity; filter; execve
//! ```

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ketch_sys::namespace;
use ketch_sys::process::{self, CloneOptions, CloneParent, Cloned, Exec};
use ketch_sys::scheduling as affinity;

use super::child::{
    self, LazyProc, apply_apparmor, apply_selinux, attach_console, become_namespace_root, expect,
    first_closed_fd, install_filter, join_cgroups, keep_only, reset_signals, take_streams, tell,
};
use super::init::c_strings;
use super::namespaces::{OpenNamespace, flag};
use super::parent::{KillOnDrop, last_words, send_listener, send_pidfd, set_rlimits, write_oom_score};
use super::protocol::{Channel, Message, ProtocolError};
use super::{InitError, ProcessIo, Started, step};
use crate::cgroup::JoinFile;
use crate::plan::ExecPlan;
use crate::process::keyring::KeyringUse;
use crate::process::{environment, identity, keyring, scheduling};
use crate::procfs::{Contents, ProcFs};
use crate::rootfs::{self, RootDir};
use crate::spec::NamespaceType;

/// Where the new process goes.
#[derive(Debug)]
pub struct Target {
    /// The container's first process.
    pub init: OwnedFd,
    /// v2: the cgroup in which the process is born.
    pub into_cgroup: Option<OwnedFd>,
    /// v1: the cgroups that it joins.
    pub cgroup_files: Vec<JoinFile>,
    /// The container's state as JSON, for a filter's agent.
    pub state: Vec<u8>,
}

/// Starts a process in a running container and returns once it has become its program.
///
/// # Errors
/// The step that failed, on either side; the process is dead and reaped then.
pub fn start(plan: &ExecPlan, mut target: Target, io: ProcessIo) -> Result<Started, InitError> {
    let proc = ProcFs::host().map_err(step("verifying procfs"))?;
    let pidfd_socket =
        io.pidfd_socket.as_ref().map(|fd| fd.try_clone()).transpose().map_err(InitError::from_io)?;
    let (ours, theirs) = Channel::pair().map_err(step("creating the exec channel"))?;
    // Before the first join: in the container's pid namespace its root may look at us (CVE-2016-9962).
    process::set_not_dumpable().map_err(step("becoming not dumpable"))?;
    if !plan.process.affinity.initial.is_empty() {
        affinity::set_affinity(0, &plan.process.affinity.initial)
            .map_err(step("error setting initial CPU affinity"))?;
    }

    let own_pid_namespace = enter_pid_namespace(plan, &target)?;
    let options = CloneOptions {
        namespaces: 0,
        into_cgroup: target.into_cgroup.as_ref().map(AsFd::as_fd),
        parent: CloneParent::Caller,
    };
    let started = match process::clone3(&options).map_err(step("error starting setns process: clone3"))? {
        Cloned::Child => {
            drop(ours);
            child::run(theirs, |channel| become_program(plan, &mut target, io, channel))
        }
        Cloned::Parent(started) => started,
    };
    drop(theirs);
    drop(io);
    let mut guard = KillOnDrop(Some(started));
    if let Some(own) = own_pid_namespace {
        own.join()?;
    }
    let started = guard.child()?;
    write_oom_score(&proc, started.pid, plan.process.oom_score_adj)?;
    set_final_affinity(plan, started.pid)?;
    ours.send(&Message::Go).map_err(|error| last_words(&ours, error))?;
    converse(plan, &ours, started, &target.state)?;
    if let Some(socket) = pidfd_socket {
        send_pidfd(&socket, started, "setns")?;
    }
    guard.disarm()
}

/// Lets this process's children be born in the container's pid namespace; gives its own back, to return to.
fn enter_pid_namespace(plan: &ExecPlan, target: &Target) -> Result<Option<OpenNamespace>, InitError> {
    if !plan.namespaces.contains(&NamespaceType::Pid) {
        return Ok(None);
    }
    let own = OpenNamespace::open(NamespaceType::Pid, Path::new("/proc/self/ns/pid"))?;
    namespace::join(&target.init, namespace::NEW_PID)
        .map_err(|source| InitError::Join { kind: "pid", source })?;
    Ok(Some(own))
}

/// runc widens the mask of a process whose plan names none, so that the container's cpuset decides.
fn set_final_affinity(plan: &ExecPlan, pid: process::Pid) -> Result<(), InitError> {
    let mask = &plan.process.affinity;
    if !mask.last.is_empty() {
        return affinity::set_affinity(pid, &mask.last).map_err(step("error setting final CPU affinity"));
    }
    if mask.initial.is_empty() {
        let _best_effort = affinity::set_affinity(pid, &[0xff; 1024]);
    }
    Ok(())
}

fn converse(plan: &ExecPlan, channel: &Channel, started: &Started, state: &[u8]) -> Result<(), InitError> {
    let mut ready = false;
    while let Some((message, mut fds)) = channel.receive()? {
        match message {
            Message::Ready => {
                set_rlimits(started.pid, &plan.process.rlimits)?;
                ready = true;
                channel.send(&Message::Run)?;
            }
            Message::SeccompListener => {
                let listener = fds.pop().ok_or(ProtocolError::Ended)?;
                if let Some(source) = &plan.seccomp {
                    send_listener(source, &listener, state, started.pid)?;
                }
                channel.send(&Message::ListenerTaken)?;
            }
            Message::Error(text) => return Err(ProtocolError::Reported(text).into()),
            found => return Err(ProtocolError::Unexpected { found, expected: "Ready" }.into()),
        }
    }
    if ready { Ok(()) } else { Err(ProtocolError::Ended.into()) }
}

/// The child, from its first instruction to execve. The order is that of `init::initialize`, for the same reasons.
fn become_program(
    plan: &ExecPlan,
    target: &mut Target,
    mut io: ProcessIo,
    channel: &mut Option<Channel>,
) -> Result<Infallible, InitError> {
    drop(io.pidfd_socket.take());
    let cgroups = target.cgroup_files.iter().map(JoinFile::as_fd);
    keep_only(&io, cgroups.chain(channel.iter().map(AsFd::as_fd)).chain([target.init.as_fd()]))?;
    expect(channel, &Message::Go, "Go")?;
    join_cgroups(&mut target.cgroup_files)?;
    join_namespaces(plan, target)?;
    if plan.namespaces.contains(&NamespaceType::User) {
        become_namespace_root()?;
    }
    process::new_session().map_err(step("setsid"))?;
    reset_signals()?;
    take_streams(&mut io)?;
    if let Some(keyring) = &plan.keyring {
        keyring::join(keyring, KeyringUse::Join)?;
    }
    if let Some(size) = plan.process.terminal {
        let root = RootDir::of_process().map_err(step("opening the container's root"))?;
        let console = rootfs::open_console(&root, Some(&size))?;
        attach_console(&console, io.console_socket.take())?;
    }
    if plan.process.no_new_privileges {
        process::set_no_new_privileges().map_err(step("prctl(SET_NO_NEW_PRIVS)"))?;
    }
    scheduling::apply(&plan.process)?;
    tell(channel, &Message::Ready)?;
    expect(channel, &Message::Run, "Run")?;

    let mut proc = LazyProc::new(Contents::Processes);
    apply_selinux(plan.process.selinux_label.as_ref(), &mut proc)?;
    apply_apparmor(plan.process.apparmor_profile.as_ref(), &mut proc)?;
    drop(proc);
    let filter = plan.seccomp.as_ref().map(|seccomp| &seccomp.program);
    if let (Some(filter), false) = (filter, plan.process.no_new_privileges) {
        install_filter(filter, channel)?;
    }
    process::close_on_exec_from(first_closed_fd(&io)).map_err(step("closing descriptors"))?;
    let env = environment::with_home(plan.process.env.clone(), plan.process.user.uid);
    identity::assume(&plan.process)?;
    let name = plan.process.args.first().map_or("", String::as_str);
    let program = environment::find_program(name, &env)?;
    let exec = Exec::new(program, c_strings(&plan.process.args), c_strings(&env));
    if let (Some(filter), true) = (filter, plan.process.no_new_privileges) {
        install_filter(filter, channel)?;
    }
    // The channel closes at execve: an execve that fails can still be told.
    Err(InitError::Exec(exec.replace_process()))
}

/// All namespaces of the container but the pid namespace, in which this process was born, by one system call.
fn join_namespaces(plan: &ExecPlan, target: &Target) -> Result<(), InitError> {
    let kinds = plan
        .namespaces
        .iter()
        .filter(|kind| **kind != NamespaceType::Pid)
        .fold(0, |flags, kind| flags | flag(*kind));
    if kinds == 0 {
        return Ok(());
    }
    namespace::join(&target.init, kinds).map_err(step("joining the container's namespaces"))
}
