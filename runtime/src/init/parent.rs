//! The parent's side of starting a container's first process: [`start`] is the whole of it, in order.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use ketch_sys::process::{self, Child, Pid};
use ketch_sys::scheduling as affinity;

use super::birth::{Spawned, settle, sibling, spawn};
use super::conversation::{Answers, PidfdTaker, Progress, converse, last_words, tell, tell_with};
use super::guard::KillOnDrop;
use super::namespaces::{OpenNamespace, open_all};
use super::network;
use super::protocol::{Channel, Message, ProtocolError};
use super::rlimits::RlimitsBy;
use super::second_birth::SecondBirth;
use super::{InitError, Milestones, ProcessIo, Started, id_map, init, step, trail};
use crate::cgroup::Cgroup;
use crate::error::chain;
use crate::net_device;
use crate::plan::{Caller, Plan};
use crate::process::scheduling;
use crate::procfs::ProcFs;
use crate::rootfs::source::SourceOpener;
use crate::spec::NamespaceType;

/// Starts the container's first process. It ends up waiting at the fifo, everything about it set; without one, as its
/// program.
///
/// On an error the process is dead and reaped; the cgroup is the caller's to remove.
///
/// # Errors
/// The step that failed, on either side.
pub fn start(
    plan: &Plan,
    cgroup: &mut Cgroup,
    fifo: Option<OwnedFd>,
    io: ProcessIo,
    milestones: &mut dyn Milestones,
) -> Result<Started, InitError> {
    let mut joins = open_all(&plan.namespaces)?;
    let second_birth = SecondBirth::of(&mut joins);
    let proc = ProcFs::host().map_err(step("verifying procfs"))?;
    let pidfd_taker = PidfdTaker::of(&io, "standard")?;
    let (ours, theirs) = Channel::pair().map_err(step("creating the init channel"))?;
    let (network_maker, network) = network::agree(plan)?.unzip();
    let cgroup_files = cgroup.child_join()?;
    cgroup.set_device_rules_ahead(&plan.cgroup.limits)?;
    if needs_nothing_first(plan) {
        ours.send(&Message::Go)?;
    }

    if plan.caller == Caller::Root {
        process::set_not_dumpable().map_err(step("becoming not dumpable"))?;
    }
    let (mut channel, mut theirs) = (Some(ours), Some(theirs));
    let mut context = Some(init::Context {
        plan,
        joins,
        second_birth,
        cgroup,
        cgroup_files,
        network,
        fifo,
        io,
        state: &*milestones,
    });
    trail::namespaces();
    let spawned = spawn(plan, cgroup, &mut context, &mut theirs, &mut channel)?;
    drop(theirs);
    if plan.caller == Caller::User {
        // The files of a process that is not dumpable are root's: the child becomes it once its maps are written. Until
        // then it is in its own user namespace, whose owner is this user and nobody in any container.
        process::set_not_dumpable().map_err(step("becoming not dumpable"))?;
    }
    // Now that the process has those it was to get: what the caller left open is not for the hooks either.
    process::close_on_exec_from(3).map_err(step("closing descriptors"))?;
    let Some(channel) = channel else { return Err(ProtocolError::Ended.into()) };
    drop(context);

    let staged = matches!(spawned, Spawned::Stage(_));
    let map_ids = |pid| Ok(id_map::write(&plan.namespaces, plan.caller, &proc, pid)?);
    let mut guard = KillOnDrop(Some(settle(spawned, &channel, &map_ids)?));
    trail::born(guard.child()?.pid);
    if let Some(maker) = network_maker {
        maker.make(&channel).map_err(|error| guard.how_it_ended(error))?;
    }
    let mut requests = Requests { plan, sources: LazySources::default(), milestones, pidfd_taker };
    let born = guide(&mut requests, &proc, cgroup, (&channel, guard.child()?, staged))
        .map_err(|error| guard.how_it_ended(error))?;
    if let Some(pid) = born {
        guard = KillOnDrop(Some(sibling(&guard.disarm()?, pid)?));
        trail::born(pid);
        welcome(&mut requests, cgroup, (&channel, guard.child()?))
            .map_err(|error| guard.how_it_ended(error))?;
    }
    guard.disarm()
}

/// What is left to do for the second process, which has inherited all but what is the parent's to set.
fn welcome(
    requests: &mut Requests<'_>,
    cgroup: &Cgroup,
    (channel, started): (&Channel, &Child),
) -> Result<(), InitError> {
    let plan = requests.plan;
    requests.milestones.born(started, cgroup).map_err(InitError::Caller)?;
    let restricted = plan.cgroup.restricts_cpus();
    scheduling::set_deadline(started.pid, &plan.process)
        .map_err(|error| if restricted { error.in_cpuset() } else { error })?;
    let rlimits = RlimitsBy::of(plan.namespaces.has(NamespaceType::User)).parents(&plan.process);
    converse(rlimits, plan.seccomp.as_ref(), (channel, started, Progress::Ready), requests).map(drop)
}

/// What is done to and for the child, from its birth to its waiting for `start`, or to the birth of the one that will, whose
/// number this gives.
fn guide(
    requests: &mut Requests<'_>,
    proc: &ProcFs,
    cgroup: &mut Cgroup,
    (channel, started, staged): (&Channel, &Child, bool),
) -> Result<Option<Pid>, InitError> {
    let plan = requests.plan;
    let prepared = prepare_from_outside(plan, proc, started.pid, staged)
        .and_then(|()| move_net_devices(plan, started))
        .and_then(|()| Ok(cgroup.enter(&plan.cgroup, started.pid)?))
        .and_then(|()| requests.milestones.born(started, cgroup).map_err(InitError::Caller));
    if needs_nothing_first(plan) {
        prepared.map_err(|error| last_words(channel, error))?;
    } else {
        prepared?;
        tell(channel, &Message::Go)?;
    }
    cgroup.set(&plan.cgroup.limits)?;
    let rlimits = RlimitsBy::of(plan.namespaces.has(NamespaceType::User)).parents(&plan.process);
    converse(rlimits, plan.seccomp.as_ref(), (channel, started, Progress::OnItsWay), requests)
}

/// What only the parent may do to the child: its id maps, and its oom score. A stage has got its own maps, and a user's
/// stage has set the score.
fn prepare_from_outside(plan: &Plan, proc: &ProcFs, pid: Pid, staged: bool) -> Result<(), InitError> {
    if plan.namespaces.creates(NamespaceType::User) && !staged {
        id_map::write(&plan.namespaces, plan.caller, proc, pid)?;
    }
    if !staged || plan.caller == Caller::Root {
        write_oom_score(proc, pid, plan.process.oom_score_adj)?;
    }
    // Failing to widen the mask leaves the runtime's own; nothing that a container may rely on is lost.
    let _best_effort = affinity::set_affinity(pid, &[0xff; 1024]);
    Ok(())
}

/// The network namespace of a child that gets devices is a new one from its birth; one that it joins is known by its
/// file.
fn move_net_devices(plan: &Plan, started: &Child) -> Result<(), InitError> {
    if plan.net_devices.is_empty() || !plan.namespaces.has(NamespaceType::Network) {
        return Ok(());
    }
    let joined = plan.namespaces.joins(NamespaceType::Network);
    let joined = joined.map(|join| OpenNamespace::open(join.kind, &join.path)).transpose()?;
    let namespace = joined.as_ref().map_or(started.pidfd.as_fd(), |open| open.fd.as_fd());
    Ok(net_device::move_all(&plan.net_devices, namespace)?)
}

pub(super) fn write_oom_score(proc: &ProcFs, pid: Pid, score: Option<i32>) -> Result<(), InitError> {
    let Some(score) = score else { return Ok(()) };
    proc.write(&PathBuf::from(format!("{pid}/oom_score_adj")), score.to_string().as_bytes())
        .map_err(step("failed to set /proc/self/oom_score_adj"))
}

/// The same by a process for itself, while it is still the owner of its own files.
pub(super) fn write_own_oom_score(score: Option<i32>) -> Result<(), InitError> {
    let Some(score) = score else { return Ok(()) };
    ProcFs::host()
        .and_then(|proc| proc.write_self("oom_score_adj", score.to_string().as_bytes()))
        .map_err(step("failed to set /proc/self/oom_score_adj"))
}

/// What the child of `create` asks for on its way, and that of `exec` does not.
struct Requests<'a> {
    plan: &'a Plan,
    sources: LazySources,
    milestones: &'a mut dyn Milestones,
    pidfd_taker: Option<PidfdTaker>,
}

impl Answers for Requests<'_> {
    fn state(&self, pid: Pid) -> Vec<u8> {
        self.milestones.state_for_hooks("creating", pid)
    }

    /// The pidfd first: nobody sees a container whose caller can't be told of it.
    fn ready(&mut self, started: &Child) -> Result<(), InitError> {
        trail::first_is_ready();
        PidfdTaker::tell(self.pidfd_taker.take(), started)?;
        self.milestones.ready().map_err(InitError::Caller)
    }

    fn makes_sibling(&self) -> bool {
        self.plan.namespaces.joins(NamespaceType::Pid).is_some()
    }

    fn is_done_at_the_end(&self) -> bool {
        false
    }

    fn answer(&mut self, request: Message, channel: &Channel, started: &Child) -> Result<(), InitError> {
        match request {
            Message::SourceWanted(index) => match self.sources.open(self.plan, index, started) {
                Ok(mount) => tell_with(channel, &Message::Source, &[mount.as_fd()]),
                Err(reason) => tell(channel, &Message::SourceRefused(reason)),
            },
            // They are set before this conversation begins.
            Message::LimitsWanted => tell(channel, &Message::LimitsSet),
            Message::RunHooks => {
                self.milestones.run_hooks(started.pid).map_err(InitError::Caller)?;
                tell(channel, &Message::HooksDone)
            }
            found => Err(ProtocolError::Unexpected { found, expected: "Ready" }.into()),
        }
    }
}

/// Opens bind sources that the child may not; set up when the first one is asked for.
#[derive(Default)]
struct LazySources(Option<SourceOpener>);

impl LazySources {
    fn open(&mut self, plan: &Plan, index: usize, child: &Child) -> Result<OwnedFd, String> {
        let mount = plan.rootfs.mounts.get(index).ok_or_else(|| format!("the plan has no mount {index}"))?;
        if self.0.is_none() {
            self.0 = Some(SourceOpener::new().map_err(|error| chain(&error))?);
        }
        let opener = self.0.as_mut().ok_or_else(String::new)?;
        opener.open(mount, child.pidfd.as_fd()).map_err(|error| chain(&error))
    }
}

/// Whether the child may begin while the parent still does and remembers its part: it waits for `Run` before it becomes
/// the program in any case, and it dies with the parent. Not where its ids have to be mapped first, or devices moved, or
/// systemd makes its cgroup around it.
fn needs_nothing_first(plan: &Plan) -> bool {
    !plan.namespaces.has(NamespaceType::User) && plan.net_devices.is_empty() && plan.cgroup.unit.is_none()
}
