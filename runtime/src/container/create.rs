//! `create`: from a bundle to a process that waits for `start`.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ketch_sys::path;
use ketch_sys::process::{Child, Pid};

use super::resctrl::remove_groups;
use super::status::{ProcessStat, hook_state, now};
use super::{Container, ContainerError, Fresh};
use crate::bundle::Bundle;
use crate::cgroup::systemd::{self, Manager};
use crate::cgroup::{Cgroup, CgroupDriver, CgroupError};
use crate::checkpoint;
use crate::hooks;
use crate::host::{self, HostFacts};
use crate::init::{InitError, Milestones, ProcessIo, Started, parent};
use crate::log;
use crate::plan::cgroup::systemd::Instance;
use crate::plan::cgroup::{CgroupPlan, Privilege};
use crate::plan::criu::external::ForeignMounts;
use crate::plan::resctrl::{GroupOrigin, ResctrlPlan};
use crate::plan::rootfs::RootEntry;
use crate::plan::{Caller, KeyringChoice, Plan, PlanOptions, PlannedContainer, RootlessChoice};
use crate::resctrl::{Group, ResctrlError};
use crate::spec::{self, ContainerId, NamespaceType, Spec, ValidationContext};
use crate::state::{State, StateConfig, StateDir, UnitState};

/// Whether the container is shown a socket of its own for sd_notify(3), which the caller binds before `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyFolder {
    /// It is not.
    Absent,
    /// The folder `notify` of the container's is mounted read-only at `/run/notify`, and `NOTIFY_SOCKET` names the socket.
    Mounted,
}

/// When the container's program starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// When `start` gives the byte that init waits for at the fifo.
    WhenAsked,
    /// As soon as the container is there and remembered: for a caller who would ask at once. [`Container::start`] then only
    /// says that it has.
    AtOnce,
}

/// What a container is made of.
#[derive(Debug)]
pub struct CreateOptions<'a> {
    /// The state root.
    pub root: &'a Path,
    /// The name.
    pub id: ContainerId,
    /// The bundle, and this process's working directory.
    pub bundle: &'a Bundle,
    /// The bundle's configuration, with what the caller adds to it (LISTEN_FDS, NOTIFY_SOCKET).
    pub spec: Spec,
    /// How the root is entered.
    pub entry: RootEntry,
    /// The session keyring.
    pub keyring: KeyringChoice,
    /// Whether cgroups may be refused.
    pub rootless: RootlessChoice,
    /// The container's notification socket.
    pub notify: NotifyFolder,
    /// The program's start.
    pub start: Start,
    /// Who makes the cgroups.
    pub driver: CgroupDriver,
    /// Streams and descriptors.
    pub io: ProcessIo,
}

impl Container {
    /// Makes the container. On an error nothing of it is left.
    ///
    /// # Errors
    /// The step that failed.
    pub fn create(options: CreateOptions<'_>) -> Result<(Self, Started), ContainerError> {
        let start = options.start;
        Self::make(options, |plan, (dir, state), (manager, io)| {
            build(plan, (dir, state), (manager, start, io))
        })
    }

    /// Plans the container, owns its name, and has `build` do the rest. On an error nothing of it is left.
    pub(super) fn make(
        options: CreateOptions<'_>,
        build: impl FnOnce(
            &Plan,
            (&StateDir, State),
            (Option<Manager>, ProcessIo),
        ) -> Result<(State, Started), ContainerError>,
    ) -> Result<(Self, Started), ContainerError> {
        let mut host = HostFacts::probe()?;
        let id = options.id.as_str().to_owned();
        let privilege = privilege(options.driver, options.rootless, &host);
        let context = ValidationContext {
            rootless: host.caller == Caller::User,
            rootless_cgroups: privilege == Privilege::Rootless,
            no_pivot: options.entry == RootEntry::MoveMount,
            systemd_cgroup: options.driver == CgroupDriver::Systemd,
            ..ValidationContext::new(options.bundle.path())
        };
        let mut spec = options.spec;
        if options.notify == NotifyFolder::Mounted {
            show_notify_folder(&mut spec, &options.root.join(&id));
        }
        let valid = spec::validate(spec, &context)?;
        valid.warnings().iter().for_each(log::warn);
        let manager = match options.driver {
            CgroupDriver::Cgroupfs => None,
            CgroupDriver::Systemd => Some(ask_systemd(privilege, &mut host).map_err(cgroup_failed)?),
        };
        let plan_options = PlanOptions {
            id: &id,
            bundle: options.bundle.path(),
            entry: options.entry,
            keyring: options.keyring,
            privilege,
        };
        let PlannedContainer { plan, spec, warnings } = Plan::new(valid, &host, &plan_options)?;
        warnings.iter().for_each(log::warn);
        if let Some(filter) = &plan.seccomp {
            filter.program.warnings.iter().filter(|warning| warning.is_debug()).for_each(log::debug);
            log::debug(format_args!("seccomp filter flags: {}", filter.program.flags.bits()));
        }

        let makes_group = match &plan.resctrl {
            Some(resctrl) if resctrl.origin == GroupOrigin::Container => {
                !Group::is_there(resctrl).map_err(|error| ContainerError::Init(error.into()))?
            }
            _ => false,
        };
        let (dir, lock) = StateDir::create_locked(options.root, &id)?;
        let mut state = first_state(&plan, spec, options.keyring);
        state.intel_rdt_made = makes_group;
        let poststop = state.config.hooks.as_ref().map(|hooks| hooks.poststop.clone()).unwrap_or_default();
        let stopped = hook_state(&state, "stopped", 0);
        // Before the cgroup is: whatever happens from here on, `delete --force` finds all of it.
        let folder = match options.notify {
            NotifyFolder::Absent => Ok(()),
            NotifyFolder::Mounted => dir.create_notify_folder(),
        };
        let made = folder
            .and_then(|()| dir.store(&state))
            .map_err(ContainerError::from)
            .and_then(|()| build(&plan, (&dir, state), (manager, options.io)));
        match made {
            Ok((state, started)) => {
                Ok((Self { dir, state, fresh: Some(Fresh { lock, start: options.start }) }, started))
            }
            Err(error) => {
                if let Err(leftover) = dir.remove() {
                    log::warn(crate::error::chain(&leftover));
                }
                // Hooks may have set up what only they can take down (runtime-spec, "Lifecycle").
                if let Err(failed) = hooks::run("poststop", &poststop, &stopped, None) {
                    log::warn(crate::error::chain(&failed));
                }
                Err(error)
            }
        }
    }
}

/// Adds the mount and the variable by which the container finds its notification socket.
fn show_notify_folder(spec: &mut Spec, dir: &Path) {
    const INSIDE: &str = "/run/notify";
    spec.mounts.push(spec::Mount {
        destination: INSIDE.to_owned(),
        source: dir.join(StateDir::NOTIFY_FOLDER).display().to_string(),
        options: ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec(),
        ..spec::Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/notify.sock"));
    }
}

/// The cgroup and the process. The cgroup goes again if the process does not start.
fn build(
    plan: &Plan,
    (dir, state): (&StateDir, State),
    (manager, start, io): (Option<Manager>, Start, ProcessIo),
) -> Result<(State, Started), ContainerError> {
    if let Some(seccomp) = &plan.seccomp {
        let bytes = serde_json::to_vec(seccomp).unwrap_or_default();
        dir.store_filter(&bytes)?;
    }
    let fifo = match start {
        Start::WhenAsked => Some(make_fifo(dir)?),
        Start::AtOnce => None,
    };
    let mut cgroup = make_cgroup(plan, manager)?;
    let state = State { external_descriptors: stream_targets(&io, plan.process.terminal.is_some()), ..state };
    let mut creation = Creation { plan, dir, state, group: None };
    if plan.cgroup.privilege == Privilege::Rootless {
        // Without those that this user may not have.
        creation.state.cgroup_paths = cgroup.paths();
        warn_of_loose_processes(plan, &cgroup);
    }
    let started = creation.make_group().map_err(InitError::from);
    match started.and_then(|()| parent::start(plan, &mut cgroup, fifo, io, &mut creation)) {
        Ok(started) => Ok((creation.state, started)),
        Err(error) => {
            let out_of_memory = cgroup.oom_kill_count().is_ok_and(|kills| kills > 0);
            if !plan.namespaces.creates(NamespaceType::Pid) {
                // What a hook has left behind did not end with init.
                let _told_by_delete = cgroup.kill_all();
            }
            if let Err(leftover) = cgroup.delete() {
                log::warn(crate::error::chain(&leftover));
            }
            if let Err(leftover) = remove_groups(&creation.state) {
                log::warn(crate::error::chain(&leftover));
            }
            if plan.caller == Caller::User
                && let Some(hint) = host::apparmor_restriction()
            {
                // Where it first shows is any call that needs a capability.
                log::warn(hint);
            }
            if out_of_memory { Err(ContainerError::OutOfMemory) } else { Err(ContainerError::Init(error)) }
        }
    }
}

/// Its directories, or what systemd will make of them around the first process.
pub(super) fn make_cgroup(plan: &Plan, manager: Option<Manager>) -> Result<Cgroup, ContainerError> {
    match (&plan.cgroup.unit, manager) {
        (Some(unit), Some(manager)) => Cgroup::of_unit(&plan.cgroup, unit, manager),
        _ => Cgroup::create(&plan.cgroup),
    }
    .map_err(cgroup_failed)
}

/// Without a cgroup, and without a pid namespace whose end is everybody's, nothing tells which processes are the
/// container's.
fn warn_of_loose_processes(plan: &Plan, cgroup: &Cgroup) {
    if cgroup.paths().is_empty() && !plan.namespaces.creates(NamespaceType::Pid) {
        log::warn(
            "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is \
             strongly discouraged (as it is impossible to properly kill all container's processes) and will result in \
             an error in a future runc version.",
        );
    }
}

fn make_fifo(dir: &StateDir) -> Result<OwnedFd, ContainerError> {
    dir.create_fifo()?;
    path::open_host(&dir.fifo(), path::READ_WRITE)
        .map_err(|source| ContainerError::Signal { action: "opening the exec fifo", source })
}

/// Whether cgroups may be refused. Root of a user namespace may be root of a system in it, with a systemd of its own, or a
/// user who has become root there: then the session's bus is somebody's who is not root.
fn privilege(driver: CgroupDriver, choice: RootlessChoice, host: &HostFacts) -> Privilege {
    let decided = Privilege::decide(choice, host.caller, host.user_namespace);
    let unclear = choice == RootlessChoice::Auto && host.caller == Caller::Root;
    if decided == Privilege::Rootless
        && unclear
        && driver == CgroupDriver::Systemd
        && systemd::user_bus_owner().unwrap_or(0) == 0
    {
        return Privilege::Root;
    }
    decided
}

/// Connects to the systemd that is to make the cgroups, and learns what a plan must know of it.
fn ask_systemd(privilege: Privilege, host: &mut HostFacts) -> Result<Manager, CgroupError> {
    let mut manager = Manager::connect(Instance::of(privilege))?;
    host.systemd = Some(manager.facts()?);
    Ok(manager)
}

fn cgroup_failed(source: CgroupError) -> ContainerError {
    ContainerError::Init(InitError::Cgroup(source))
}

/// What is remembered before there is a process.
fn first_state(plan: &Plan, spec: Spec, keyring: KeyringChoice) -> State {
    let bundle = format!("bundle={}", plan.bundle.display());
    let annotations = spec.annotations.iter().map(|(key, value)| format!("{key}={value}"));
    let linux = spec.linux.unwrap_or_default();
    let rootless_euid = plan.caller == Caller::User;
    let rootless_cgroups = plan.cgroup.privilege == Privilege::Rootless;
    let process = spec.process.map(|process| spec::Process { args: Vec::new(), env: Vec::new(), ..process });
    State {
        id: plan.id.clone(),
        init_process_pid: 0,
        init_process_start: 0,
        created: now(),
        config: StateConfig {
            rootfs: plan.rootfs.path.clone(),
            labels: std::iter::once(bundle).chain(annotations).collect(),
            version: spec.oci_version,
            namespaces: linux.namespaces,
            uid_mappings: plan.namespaces.uid_mappings.clone(),
            gid_mappings: plan.namespaces.gid_mappings.clone(),
            hooks: spec.hooks,
            resources: linux.resources,
            cgroups: plan.cgroup.unit.as_ref().map(|unit| UnitState::new(unit.name.clone(), unit.instance)),
            process,
            personality: linux.personality,
            memory_policy: linux.memory_policy,
            intel_rdt: linux.intel_rdt,
            no_new_keyring: keyring == KeyringChoice::Inherit,
            rootless_euid,
            rootless_cgroups,
            foreign_mounts: ForeignMounts::of(&plan.rootfs, &plan.cgroup),
        },
        rootless: rootless_euid && rootless_cgroups,
        cgroup_paths: cgroup_paths(&plan.cgroup),
        namespace_paths: BTreeMap::new(),
        external_descriptors: Vec::new(),
        intel_rdt_path: path_text(plan.resctrl.as_ref().map(ResctrlPlan::path)),
        intel_rdt_mon_path: path_text(plan.resctrl.as_ref().and_then(ResctrlPlan::monitor_path)),
        intel_rdt_made: false,
    }
}

fn path_text(path: Option<PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn cgroup_paths(plan: &CgroupPlan) -> BTreeMap<String, String> {
    plan.groups
        .iter()
        .flat_map(|group| group.controllers.iter().map(|controller| (controller.clone(), group.path.clone())))
        .collect()
}

/// What `create` does at the points where the child waits for it.
struct Creation<'a> {
    plan: &'a Plan,
    dir: &'a StateDir,
    state: State,
    /// Its groups in resctrl, for a configuration that asks for them.
    group: Option<Group>,
}

impl Creation<'_> {
    /// Limited before anybody is in it.
    fn make_group(&mut self) -> Result<(), ResctrlError> {
        self.group = self.plan.resctrl.as_ref().map(Group::make).transpose()?;
        Ok(())
    }
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Milestones for Creation<'_> {
    fn run_hooks(&mut self, pid: Pid) -> Outcome {
        run_runtime_hooks(self.plan, &self.state, pid)
    }

    fn born(&mut self, child: &Child, cgroup: &Cgroup) -> Outcome {
        note_process(&mut self.state, child.pid, cgroup)?;
        self.dir.draft(&self.state)?;
        if let Some(group) = &self.group {
            group.join(child.pid).map_err(InitError::from)?;
        }
        Ok(())
    }

    fn ready(&mut self) -> Outcome {
        Ok(self.dir.publish()?)
    }

    fn state_for_hooks(&self, status: &'static str, pid: Pid) -> Vec<u8> {
        hook_state(&self.state, status, pid)
    }
}

/// The hooks of the runtime's namespaces, which run when the container's own exist.
pub(super) fn run_runtime_hooks(plan: &Plan, state: &State, pid: Pid) -> Outcome {
    let state = hook_state(state, "creating", pid);
    hooks::run("prestart", &plan.hooks.prestart, &state, None)?;
    hooks::run("createRuntime", &plan.hooks.create_runtime, &state, None)?;
    Ok(())
}

/// Remembers the container's first process, which has just been born, and the unit that it is in.
pub(super) fn note_process(state: &mut State, pid: Pid, cgroup: &Cgroup) -> Outcome {
    state.init_process_pid = pid;
    if let Some(unit) = &mut state.config.cgroups {
        unit.invocation = cgroup.invocation().map(str::to_owned);
    }
    // It can't be gone: it is this process's child, and not waited for. Without its start time it could later be taken for
    // another process.
    let stat = ProcessStat::read(pid)
        .map_err(|source| ContainerError::Signal {
            action: "reading the start time of the container's init",
            source,
        })?
        .ok_or("the container's init has no start time")?;
    state.init_process_start = stat.start;
    state.created = now();
    state.namespace_paths = namespace_paths(pid);
    Ok(())
}

/// Where the process's standard streams will lead, which it takes in its own time. A terminal is of the container's own.
pub(super) fn stream_targets(io: &ProcessIo, terminal: bool) -> Vec<String> {
    if terminal { Vec::new() } else { io.with_streams(checkpoint::stream_names) }
}

/// runc's names of namespaces, which readers of state.json know.
fn namespace_paths(pid: Pid) -> BTreeMap<String, PathBuf> {
    let names = [
        ("NEWCGROUP", "cgroup"),
        ("NEWIPC", "ipc"),
        ("NEWNET", "net"),
        ("NEWNS", "mnt"),
        ("NEWPID", "pid"),
        ("NEWTIME", "time"),
        ("NEWUSER", "user"),
        ("NEWUTS", "uts"),
    ];
    names
        .into_iter()
        .map(|(name, file)| (name.to_owned(), PathBuf::from(format!("/proc/{pid}/ns/{file}"))))
        .collect()
}
