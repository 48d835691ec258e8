//! The parent's side of starting a container's first process: [`start`] is the whole of it, in order.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ketch_sys::namespace;
use ketch_sys::process::{self, Child, CloneOptions, CloneParent, Cloned, Pid};
use ketch_sys::{Errno, SyscallError, resource, scheduling, socket};

use super::namespaces::{OpenNamespace, flag, make_time_namespace, open_all};
use super::network;
use super::protocol::{Channel, Message, ProtocolError};
use super::stage::run_stage;
use super::{InitError, Milestones, ProcessIo, Started, child, id_map, init, step, user_namespace_refused};
use crate::cgroup::Cgroup;
use crate::error::chain;
use crate::net_device;
use crate::plan::namespaces::NamespacePlan;
use crate::plan::process::{ProcessPlan, RlimitPlan};
use crate::plan::{Caller, FilterPlan, Plan};
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
    let joins = open_all(&plan.namespaces)?;
    let proc = ProcFs::host().map_err(step("verifying procfs"))?;
    let pidfd_socket =
        io.pidfd_socket.as_ref().map(|fd| fd.try_clone()).transpose().map_err(InitError::from_io)?;
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
    let mut context =
        Some(init::Context { plan, joins, cgroup, cgroup_files, network, fifo, io, state: &*milestones });
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
    if let Some(maker) = network_maker {
        maker.make(&channel).map_err(|error| guard.how_it_ended(error))?;
    }
    guide(plan, &proc, cgroup, (&channel, guard.child()?, staged), milestones)
        .map_err(|error| guard.how_it_ended(error))?;
    if let Some(socket) = pidfd_socket {
        send_pidfd(&socket, guard.child()?, "standard")?;
    }
    guard.disarm()
}

/// What is done to and for the child, from its birth to its waiting for `start`.
fn guide(
    plan: &Plan,
    proc: &ProcFs,
    cgroup: &mut Cgroup,
    (channel, started, staged): (&Channel, &Child, bool),
    milestones: &mut dyn Milestones,
) -> Result<(), InitError> {
    let prepared = prepare_from_outside(plan, proc, started.pid, staged)
        .and_then(|()| move_net_devices(plan, started))
        .and_then(|()| Ok(cgroup.enter(&plan.cgroup, started.pid)?))
        .and_then(|()| milestones.born(started, cgroup).map_err(InitError::Caller));
    if needs_nothing_first(plan) {
        prepared.map_err(|error| last_words(channel, error))?;
    } else {
        prepared?;
        tell(channel, &Message::Go)?;
    }
    cgroup.set(&plan.cgroup.limits)?;
    let mut requests = Requests { plan, sources: LazySources::default(), milestones };
    let rlimits = RlimitsBy::of(plan.namespaces.has(NamespaceType::User)).parents(&plan.process);
    converse(rlimits, plan.seccomp.as_ref(), (channel, started), &mut requests)
}

/// The first clone: the container's process itself, or a stage that makes it.
pub(super) enum Spawned {
    Container(Child),
    Stage(Child),
}

fn spawn(
    plan: &Plan,
    cgroup: &Cgroup,
    context: &mut Option<init::Context<'_>>,
    theirs: &mut Option<Channel>,
    ours: &mut Option<Channel>,
) -> Result<Spawned, InitError> {
    let namespaces = &plan.namespaces;
    let staged = namespaces.need_stage(plan.caller);
    let children = ChildrenElsewhere::enter(namespaces, plan.caller, staged)?;
    match clone_into(cgroup, if staged { 0 } else { clone_flags(plan) })? {
        Cloned::Parent(spawned) => {
            children.come_back()?;
            Ok(if staged { Spawned::Stage(spawned) } else { Spawned::Container(spawned) })
        }
        Cloned::Child => {
            drop(ours.take());
            match (context.take(), theirs.take()) {
                (Some(context), Some(channel)) if staged => {
                    // It has made the user namespace by itself.
                    run_stage(channel, context, clone_flags(plan) & !namespace::NEW_USER)
                }
                (Some(context), Some(channel)) => {
                    child::run(channel, |channel| init::initialize(channel, context))
                }
                _ => process::exit_now(255),
            }
        }
    }
}

fn clone_into(cgroup: &Cgroup, namespaces: u64) -> Result<Cloned, InitError> {
    let clone =
        |into_cgroup| process::clone3(&CloneOptions { namespaces, into_cgroup, parent: CloneParent::Caller });
    let place = cgroup.clone_into_fd();
    match clone(place) {
        Err(source) if place.is_some() && is_of_cgroup(source.errno) => match cgroup.refused(source) {
            Some(error) => Err(error.into()),
            // Beside v1, which has all the controllers.
            None => clone(None).map_err(step("unable to start init: clone3")),
        },
        Err(source) if namespaces & namespace::NEW_USER != 0 && !is_of_cgroup(source.errno) => {
            Err(user_namespace_refused(source))
        }
        cloned => cloned.map_err(step("unable to start init: clone3")),
    }
}

/// What CLONE_INTO_CGROUP is refused with (clone(2), cgroups(7)), and namespaces never are: no right to move a process
/// there, not a part of the same delegation, processes or threads not wanted there.
pub(super) fn is_of_cgroup(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::ENOENT | Errno::ENODEV | Errno::EBUSY | Errno::EOPNOTSUPP)
}

/// The flags of the namespaces that a clone makes. The cgroup namespace is made by the child, once it is in its
/// cgroup: what the clone shows as its root would be the parent's. The time namespace is the parent's to make, as its
/// offsets must be written before anyone is inside. So is the network namespace, where it can be made meanwhile.
fn clone_flags(plan: &Plan) -> u64 {
    let made_by_clone = |kind: &NamespaceType| match kind {
        NamespaceType::Cgroup | NamespaceType::Time => false,
        NamespaceType::Network => !plan.makes_network_meanwhile(),
        _ => true,
    };
    plan.namespaces.new.iter().copied().filter(made_by_clone).fold(0, |flags, kind| flags | flag(kind))
}

/// A pid namespace that is joined, and a time namespace that is made, take effect for children only. This process's
/// later children (hooks) belong to the host again.
struct ChildrenElsewhere(Vec<OpenNamespace>);

impl ChildrenElsewhere {
    fn enter(plan: &NamespacePlan, caller: Caller, staged: bool) -> Result<Self, InitError> {
        let mut own = Vec::new();
        // A stage joins it by itself: inside it, it could not tell us a number that we know.
        if let (Some(join), false) = (plan.joins(NamespaceType::Pid), staged) {
            own.push(OpenNamespace::open(NamespaceType::Pid, Path::new("/proc/self/ns/pid"))?);
            OpenNamespace::open(NamespaceType::Pid, &join.path)?.join()?;
        }
        // A user has the right to make one only in the user namespace: that is the stage's to do.
        if plan.creates(NamespaceType::Time) && caller == Caller::Root {
            own.push(OpenNamespace::open(NamespaceType::Time, Path::new("/proc/self/ns/time"))?);
            make_time_namespace(&plan.time_offsets)?;
        }
        Ok(Self(own))
    }

    fn come_back(self) -> Result<(), InitError> {
        self.0.iter().try_for_each(OpenNamespace::join)
    }
}

/// The container's own process, whoever made it.
pub(super) fn settle(
    spawned: Spawned,
    channel: &Channel,
    map_ids: &dyn Fn(Pid) -> Result<(), InitError>,
) -> Result<Child, InitError> {
    let mut stage = match spawned {
        Spawned::Container(child) => return Ok(child),
        Spawned::Stage(stage) => KillOnDrop(Some(stage)),
    };
    loop {
        let received = if has_word(channel, stage.child()?)? { channel.receive()? } else { None };
        match received {
            Some((Message::MapIds, _)) => {
                map_ids(stage.child()?.pid)?;
                tell(channel, &Message::IdsMapped)?;
            }
            // Made with CLONE_PARENT, so it is this process's child, and its number can't be reused before we wait for
            // it.
            Some((Message::Pid(pid), _)) => {
                let _reaped = process::wait(&stage.disarm()?.pidfd);
                let pidfd = process::pidfd_open(pid).map_err(step("opening the container's init"))?;
                return Ok(Child { pid, pidfd });
            }
            Some((Message::Error(text), _)) => return Err(ProtocolError::Reported(text).into()),
            Some((found, _)) => return Err(ProtocolError::Unexpected { found, expected: "Pid" }.into()),
            None => return Err(stage.how_it_ended(ProtocolError::Ended.into())),
        }
    }
}

/// Waits for the stage's word or its end. A stage that is killed just after its child's birth says nothing, and is not
/// missed on the channel, whose other end the child has too. The child ends with our end of it.
fn has_word(channel: &Channel, stage: &Child) -> Result<bool, InitError> {
    let both = [channel.as_fd(), stage.pidfd.as_fd()];
    let poll = |fds, timeout| process::poll_readable(fds, timeout).map_err(step("waiting for the stage"));
    // It may have spoken between the kernel's looks at the one and at the other.
    Ok(poll(&both, None)?.first() == Some(&true)
        || poll(&both[..1], Some(Duration::ZERO))?.first() == Some(&true))
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
    let _best_effort = scheduling::set_affinity(pid, &[0xff; 1024]);
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
}

impl Answers for Requests<'_> {
    fn state(&self, pid: Pid) -> Vec<u8> {
        self.milestones.state_for_hooks("creating", pid)
    }

    fn ready(&mut self) -> Result<(), InitError> {
        self.milestones.ready().map_err(InitError::Caller)
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
            Message::RunHooks => {
                self.milestones.run_hooks(started.pid).map_err(InitError::Caller)?;
                tell(channel, &Message::HooksDone)
            }
            found => Err(ProtocolError::Unexpected { found, expected: "Ready" }.into()),
        }
    }
}

/// How the parent answers what not every child asks for.
pub(super) trait Answers {
    /// The container's state, for a filter's agent.
    fn state(&self, pid: Pid) -> Vec<u8>;

    /// The child is ready for its program.
    fn ready(&mut self) -> Result<(), InitError> {
        Ok(())
    }

    /// Whether the child is done once its end closes: then execve has closed it.
    fn is_done_at_the_end(&self) -> bool;

    /// A request that is not of every child.
    fn answer(&mut self, request: Message, channel: &Channel, started: &Child) -> Result<(), InitError>;
}

/// The rest of the conversation, until the child says that it is done, or does what shows it.
pub(super) fn converse(
    rlimits: &[RlimitPlan],
    filter: Option<&FilterPlan>,
    (channel, started): (&Channel, &Child),
    answers: &mut dyn Answers,
) -> Result<(), InitError> {
    let mut ready = false;
    while let Some((message, mut fds)) = channel.receive()? {
        match message {
            Message::Ready => {
                set_rlimits(started.pid, rlimits)?;
                answers.ready()?;
                ready = true;
                // The child has gone on meanwhile, and may have failed.
                tell(channel, &Message::Run)?;
            }
            Message::SeccompListener => {
                let listener = fds.pop().ok_or(ProtocolError::Ended)?;
                if let Some(source) = filter {
                    send_listener(source, &listener, &answers.state(started.pid), started.pid)?;
                }
                tell(channel, &Message::ListenerTaken)?;
            }
            Message::Created if ready => return Ok(()),
            Message::Error(text) => return Err(ProtocolError::Reported(text).into()),
            request => answers.answer(request, channel, started)?,
        }
    }
    if ready && answers.is_done_at_the_end() { Ok(()) } else { Err(ProtocolError::Ended.into()) }
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

/// Who sets the rlimits, once nothing but the program's own needs is left to be done under them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RlimitsBy {
    /// The process itself, while its parent remembers it.
    Child,
    /// The parent, as the user namespace that the process is in has no right to raise them.
    Parent,
}

impl RlimitsBy {
    pub(super) fn of(user_namespace: bool) -> Self {
        if user_namespace { Self::Parent } else { Self::Child }
    }

    /// Those that the parent has to set.
    pub(super) fn parents(self, process: &ProcessPlan) -> &[RlimitPlan] {
        match self {
            Self::Child => &[],
            Self::Parent => &process.rlimits,
        }
    }
}

pub(super) fn set_rlimits(pid: Pid, limits: &[RlimitPlan]) -> Result<(), InitError> {
    for limit in limits {
        let failed = |source| InitError::Rlimit { kind: limit.kind.clone(), source };
        let number = resource::rlimit_number(&limit.kind)
            .ok_or_else(|| failed(SyscallError::new("prlimit", "", Errno::EINVAL)))?;
        resource::set_rlimit(pid, number, limit.soft, limit.hard).map_err(failed)?;
    }
    Ok(())
}

/// Hands the filter's listener to the agent that the configuration names, with the state that the runtime-spec
/// gives it (config-linux.md, "The Container Process State").
fn send_listener(source: &FilterPlan, listener: &OwnedFd, state: &[u8], pid: Pid) -> Result<(), InitError> {
    let state: serde_json::Value = serde_json::from_slice(state).unwrap_or_default();
    let process_state = serde_json::json!({
        "ociVersion": crate::spec::OCI_VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": source.listener_metadata,
        "state": state,
    });
    let connection = socket::connect_unix(socket::SocketKind::Stream, Path::new(&source.listener_path))
        .map_err(step("failed to connect with seccomp agent specified in the seccomp profile"))?;
    socket::send(&connection, process_state.to_string().as_bytes(), &[listener.as_fd()])
        .map_err(step("cannot send seccomp fd to the seccomp agent"))
}

pub(super) fn send_pidfd(socket: &OwnedFd, started: &Child, name: &str) -> Result<(), InitError> {
    socket::send(socket, name.as_bytes(), &[started.pidfd.as_fd()]).map_err(step("failed to setup pidfd"))
}

/// Whether the child may begin while the parent still does and remembers its part: it waits for `Run` before it becomes
/// the program in any case, and it dies with the parent. Not where its ids have to be mapped first, or devices moved, or
/// systemd makes its cgroup around it.
fn needs_nothing_first(plan: &Plan) -> bool {
    !plan.namespaces.has(NamespaceType::User) && plan.net_devices.is_empty() && plan.cgroup.unit.is_none()
}

/// Sends a message to the child; what it has said before it hung up counts more than that it has.
pub(super) fn tell(channel: &Channel, message: &Message) -> Result<(), InitError> {
    tell_with(channel, message, &[])
}

fn tell_with(channel: &Channel, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), InitError> {
    reached(channel, channel.send_with(message, fds))
}

/// Whether what was `sent` to the child, on whichever channel, has reached it; what it has said on its own counts more.
pub(super) fn reached(channel: &Channel, sent: Result<(), ProtocolError>) -> Result<(), InitError> {
    sent.map_err(|error| match error {
        ProtocolError::Ended => last_words(channel, error),
        // It is still there and waits, for ever if it were listened to.
        error => error.into(),
    })
}

/// What is done to a child fails when it is gone; it may have said why. Only for a child that has its `Go`: another one
/// would be waited for without end.
pub(super) fn last_words(channel: &Channel, error: impl Into<InitError>) -> InitError {
    match channel.receive() {
        Ok(Some((Message::Error(text), _))) => ProtocolError::Reported(text).into(),
        Ok(None) => ProtocolError::Ended.into(),
        _ => error.into(),
    }
}

/// A half-started process must not outlive the error that ends its start.
pub(super) struct KillOnDrop(pub(super) Option<Child>);

impl KillOnDrop {
    pub(super) fn child(&self) -> Result<&Child, InitError> {
        self.0.as_ref().ok_or_else(|| ProtocolError::Ended.into())
    }

    /// A child that fell silent is ending, or has ended: the error then says how.
    pub(super) fn how_it_ended(&self, error: InitError) -> InitError {
        const SOON: Duration = Duration::from_secs(1);
        let (InitError::Protocol(ProtocolError::Ended), Some(child)) = (&error, &self.0) else {
            return error;
        };
        match process::poll_readable(&[child.pidfd.as_fd()], Some(SOON)) {
            Ok(ended) if ended.first() == Some(&true) => {
                process::wait(&child.pidfd).map_or(error, InitError::Died)
            }
            _ => error,
        }
    }

    pub(super) fn disarm(&mut self) -> Result<Child, InitError> {
        self.0.take().ok_or_else(|| ProtocolError::Ended.into())
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // It may have ended by itself; waiting reaps it either way.
            let _ended = process::pidfd_send_signal(&child.pidfd, SIGKILL);
            let _reaped = process::wait(&child.pidfd);
        }
    }
}

const SIGKILL: i32 = 9;
