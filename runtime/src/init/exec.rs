//! A process that joins a running container: both sides of `exec`.
//!
//! ```text
//!   parent: not dumpable; clone3 into the container's cgroup
//!   stage:  keeps no descriptor of the host; all namespaces by one setns on init's pidfd; filter; identity
//!   child:  the first that the container can see (`second_birth`); execve
//! ```
//! The stage is there because whoever is born in the container's pid namespace can be looked at from that moment on: a
//! process with CAP_SYS_PTRACE there would get at the host through its root, its working directory or a descriptor,
//! dumpable or not (CVE-2016-9962), and at the runtime's capabilities. So nothing of the host is left when the child is
//! born.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use ketch_sys::namespace;
use ketch_sys::process::{self, Child, CloneOptions, CloneParent, Cloned};
use ketch_sys::scheduling as affinity;

use super::birth::{is_of_cgroup, sibling};
use super::child::{
    self, LazyProc, apply_apparmor, apply_selinux, assume_identity, attach_console, await_run, be_ready,
    become_namespace_root, close_what_agents_added, expect, join_cgroups, keep_only, reset_signals,
    take_streams,
};
use super::conversation::{self, Answers, PidfdTaker, Progress, converse};
use super::guard::KillOnDrop;
use super::namespaces::flag;
use super::parent::write_oom_score;
use super::protocol::{Channel, Message, ProtocolError};
use super::rlimits::RlimitsBy;
use super::second_birth::SecondBirth;
use super::{InitError, ProcessIo, Started, step, trail};
use crate::cgroup::{CgroupDir, JoinFile};
use crate::error::chain;
use crate::log;
use crate::plan::cgroup::Privilege;
use crate::plan::{Caller, ExecPlan};
use crate::process::keyring;
use crate::process::keyring::KeyringUse;
use crate::process::scheduling::{self, Heir};
use crate::procfs::{Contents, ProcFs};
use crate::resctrl::Group;
use crate::rootfs::{self, RootDir};
use crate::spec::NamespaceType;

/// The cgroup for the second attempt of clone3; none means that the process is born in its parent's.
pub type CgroupFallback<'a> = Box<dyn FnOnce() -> Result<Option<CgroupDir>, InitError> + 'a>;

/// Puts a process that was born in none of the container's cgroups into the one that it belongs to.
pub type Adoption<'a> = Box<dyn FnOnce(process::Pid) -> Result<(), InitError> + 'a>;

/// Where the new process goes.
#[expect(missing_debug_implementations, reason = "a closure has none")]
pub struct Target<'a> {
    /// The container's first process.
    pub init: OwnedFd,
    /// v2: the cgroup in which the process is born.
    pub into_cgroup: Option<CgroupDir>,
    /// What is tried when the kernel refuses `into_cgroup`. Nobody may be born in a v2 cgroup that has enabled domain
    /// controllers for those below it (EBUSY): a container with an init system of its own is one.
    pub fallback: Option<CgroupFallback<'a>>,
    /// Whoever has the right to move it where its user has not; asked when the process could be born in no cgroup.
    pub adoption: Option<Adoption<'a>>,
    /// Whether a process without a cgroup is better than none.
    pub cgroups: Privilege,
    /// v1: the cgroups that it joins.
    pub cgroup_files: Vec<JoinFile>,
    /// Its groups in resctrl.
    pub resctrl: Option<Group>,
    /// The container's state as JSON, for a filter's agent.
    pub state: Vec<u8>,
}

/// Starts a process in a running container and returns once it has become its program.
///
/// # Errors
/// The step that failed, on either side; the process is dead and reaped then.
pub fn start(plan: &ExecPlan, mut target: Target<'_>, io: ProcessIo) -> Result<Started, InitError> {
    let proc = ProcFs::host().map_err(step("verifying procfs"))?;
    let pidfd_taker = PidfdTaker::of(&io, "setns")?;
    let (ours, theirs) = Channel::pair().map_err(step("creating the exec channel"))?;
    // Before the first join: in the container's pid namespace its root may look at us (CVE-2016-9962). A user's stage
    // does it by itself, after its score is written: the files of a process that is not dumpable are root's.
    if plan.caller == Caller::Root {
        process::set_not_dumpable().map_err(step("becoming not dumpable"))?;
    }
    if !plan.process.affinity.initial.is_empty() {
        affinity::set_affinity(0, &plan.process.affinity.initial)
            .map_err(step("error setting initial CPU affinity"))?;
        trail::affinity(&plan.process.affinity.initial);
    }

    trail::namespaces();
    let (cloned, birthplace) = clone_stage(&mut target)?;
    let stage = match cloned {
        Cloned::Child => {
            drop(ours);
            drop(pidfd_taker);
            child::run(theirs, |channel| enter_container(plan, &mut target, (io, proc), channel))
        }
        Cloned::Parent(stage) => stage,
    };
    drop(theirs);
    drop(io);
    let mut guard = KillOnDrop(Some(stage));
    if let (Birthplace::Elsewhere, Some(adopt)) = (birthplace, target.adoption.take()) {
        adopt(guard.child()?.pid)?;
    }
    prepare_stage(plan, &proc, target.resctrl.take(), (&ours, guard.child()?))
        .map_err(|error| guard.how_it_ended(error))?;
    let in_stages = plan.namespaces.contains(&NamespaceType::Pid);
    let mut joining = Joining { state: &target.state, pidfd_taker, in_stages };
    let rlimits = rlimits_by(plan).parents(&plan.process);
    let filter = plan.seccomp.as_ref();
    let mut progress = Progress::OnItsWay;
    if in_stages {
        let born = converse(rlimits, filter, (&ours, guard.child()?, progress), &mut joining)
            .map_err(|error| guard.how_it_ended(error))?;
        guard = KillOnDrop(Some(sibling(&guard.disarm()?, born.ok_or(ProtocolError::Ended)?)?));
        scheduling::set_deadline(guard.child()?.pid, &plan.process)?;
        progress = Progress::Ready;
    }
    trail::born(guard.child()?.pid);
    converse(rlimits, filter, (&ours, guard.child()?, progress), &mut joining)
        .map_err(|error| guard.how_it_ended(error))?;
    guard.disarm()
}

fn rlimits_by(plan: &ExecPlan) -> RlimitsBy {
    RlimitsBy::of(plan.namespaces.contains(&NamespaceType::User))
}

/// What only the parent may do; the child inherits both.
fn prepare_stage(
    plan: &ExecPlan,
    proc: &ProcFs,
    resctrl: Option<Group>,
    (channel, stage): (&Channel, &Child),
) -> Result<(), InitError> {
    if let Some(group) = resctrl {
        group.join(stage.pid)?;
    }
    write_oom_score(proc, stage.pid, plan.process.oom_score_adj)?;
    set_final_affinity(plan, stage.pid)?;
    conversation::tell(channel, &Message::Go)
}

/// In which cgroup a stage was born.
#[derive(Clone, Copy)]
enum Birthplace {
    /// In one of the container's, or it joins those by itself.
    Container,
    /// In the runtime's, as no other would have it.
    Elsewhere,
}

/// The stage's birth, with a second attempt elsewhere where there is a fallback.
fn clone_stage(target: &mut Target<'_>) -> Result<(Cloned, Birthplace), InitError> {
    let clone = |cgroup: Option<&CgroupDir>| {
        let into_cgroup = cgroup.map(AsFd::as_fd);
        let cloned =
            process::clone3(&CloneOptions { namespaces: 0, into_cgroup, parent: CloneParent::Caller });
        cloned.map_err(|source| match cgroup {
            Some(cgroup) if is_of_cgroup(source.errno) => cgroup.refused(source).into(),
            _ => step("error starting setns process: clone3")(source),
        })
    };
    match (clone(target.into_cgroup.as_ref()), target.fallback.take()) {
        (Err(refused), Some(fallback)) if target.into_cgroup.is_some() => {
            log::debug(format!("exec into the container's cgroup: {}; trying elsewhere", chain(&refused)));
            let second = fallback()?;
            match clone(second.as_ref()) {
                // The container may have no cgroup either, or none that its user may put a process in.
                Err(_) if target.cgroups == Privilege::Rootless => Ok((clone(None)?, Birthplace::Elsewhere)),
                cloned if second.is_none() => Ok((cloned?, Birthplace::Elsewhere)),
                cloned => Ok((cloned?, Birthplace::Container)),
            }
        }
        (cloned, _) => Ok((cloned?, Birthplace::Container)),
    }
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

/// What there is for a process that joins, which asks for nothing of its own.
struct Joining<'a> {
    /// The container's, for a filter's agent.
    state: &'a [u8],
    pidfd_taker: Option<PidfdTaker>,
    /// Whether a first process makes the one that is to be there.
    in_stages: bool,
}

impl Answers for Joining<'_> {
    fn state(&self, _pid: process::Pid) -> Vec<u8> {
        self.state.to_vec()
    }

    fn ready(&mut self, started: &Child) -> Result<(), InitError> {
        trail::joined_is_ready();
        PidfdTaker::tell(self.pidfd_taker.take(), started)
    }

    fn makes_sibling(&self) -> bool {
        self.in_stages
    }

    fn is_done_at_the_end(&self) -> bool {
        true
    }

    fn answer(&mut self, found: Message, _: &Channel, _: &Started) -> Result<(), InitError> {
        Err(ProtocolError::Unexpected { found, expected: "Ready" }.into())
    }
}

/// The stage: leaves everything of the host behind and goes on, to the birth of a child in the container's pid namespace
/// where that is joined.
fn enter_container(
    plan: &ExecPlan,
    target: &mut Target<'_>,
    (mut io, procfs): (ProcessIo, ProcFs),
    channel: &mut Option<Channel>,
) -> Result<Infallible, InitError> {
    drop(io.pidfd_socket.take());
    let cgroups = target.cgroup_files.iter().map(JoinFile::as_fd);
    let own = [target.init.as_fd(), procfs.as_fd()];
    keep_only(&io, cgroups.chain(channel.iter().map(AsFd::as_fd)).chain(own))?;
    expect(channel, &Message::Go, "Go")?;
    if plan.caller == Caller::User {
        process::set_not_dumpable().map_err(step("becoming not dumpable"))?;
    }
    join_cgroups(&mut target.cgroup_files)?;
    join_namespaces(plan, target)?;
    if plan.namespaces.contains(&NamespaceType::User) {
        become_namespace_root(plan.process.user.supplementary, Some(&procfs))?;
    }
    if !plan.namespaces.contains(&NamespaceType::Pid) {
        return become_program(plan, io, channel, (None, None));
    }
    become_program(plan, io, channel, (Some(SecondBirth::of_joined()), Some(procfs)))
}

/// The rest until execve. The order is that of `init::initialize`, for the same reasons.
fn become_program(
    plan: &ExecPlan,
    mut io: ProcessIo,
    channel: &mut Option<Channel>,
    (mut birth, procfs): (Option<SecondBirth>, Option<ProcFs>),
) -> Result<Infallible, InitError> {
    process::new_session().map_err(step("setsid"))?;
    reset_signals()?;
    take_streams(&mut io)?;
    if let Some(keyring) = &plan.keyring {
        keyring::join(keyring, KeyringUse::Join)?;
    }
    if let Some(size) = plan.process.terminal {
        let root = RootDir::of_process().map_err(step("opening the container's root"))?;
        let console = rootfs::open_console(&root, Some(&size))?;
        attach_console(&console, &mut io, birth.as_mut())?;
    }
    if plan.process.no_new_privileges {
        process::set_no_new_privileges().map_err(step("prctl(SET_NO_NEW_PRIVS)"))?;
    }
    scheduling::apply(&plan.process, if birth.is_some() { Heir::Child } else { Heir::Itself })?;
    be_ready(channel, &plan.process, rlimits_by(plan), birth.as_mut())?;

    let mut proc = LazyProc::new(Contents::Processes, procfs.as_ref());
    apply_selinux(plan.process.selinux_label.as_ref(), &mut proc)?;
    apply_apparmor(plan.process.apparmor_profile.as_ref(), &mut proc)?;
    drop(proc);
    if let Some(birth) = &mut birth {
        birth.procfs = procfs;
    }
    // Before the filter, which may refuse close_range(2).
    let own = birth.iter().flat_map(SecondBirth::descriptors);
    keep_only(&io, channel.iter().map(AsFd::as_fd).chain(own))?;
    let program = assume_identity(&plan.process, plan.seccomp.as_ref(), channel, birth, || Ok(()))?;
    let exec = program.exec(&plan.process.args);
    await_run(channel)?;
    close_what_agents_added(plan.seccomp.as_ref(), &io)?;
    // The channel closes at execve: an execve that fails can still be told.
    Err(InitError::Exec(exec.replace_process()))
}

/// All namespaces of the container by one system call, which enters the user namespace first. The pid namespace is for
/// the children.
fn join_namespaces(plan: &ExecPlan, target: &Target<'_>) -> Result<(), InitError> {
    let kinds = plan.namespaces.iter().fold(0, |flags, kind| flags | flag(*kind));
    if kinds == 0 {
        return Ok(());
    }
    namespace::join(&target.init, kinds).map_err(step("joining the container's namespaces"))
}
