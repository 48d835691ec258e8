//! The container's first process, from its first instruction to execve: one straight list of steps.
//!
//! The order is the security: what each step must come before or after stands beside it.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::process;
use ketch_sys::{link, namespace, path, signal};

use super::child::{
    LazyProc, apply_apparmor, apply_selinux, assume_identity, attach_console, await_run, be_ready,
    become_namespace_root, close_what_agents_added, create_cgroup_namespace, expect, join_cgroups, keep_only,
    reset_signals, take_streams, tell,
};
use super::namespaces::OpenNamespace;
use super::network::AwaitedNetwork;
use super::protocol::{Channel, Message, ProtocolError};
use super::rlimits::RlimitsBy;
use super::second_birth::SecondBirth;
use super::{InitError, Milestones, ProcessIo, step};
use crate::cgroup::{Cgroup, JoinFile};
use crate::error::chain;
use crate::hooks;
use crate::plan::cgroup::{CgroupMode, CgroupPlan, GroupPlan, Privilege};
use crate::plan::{Caller, Plan};
use crate::process::keyring;
use crate::process::keyring::KeyringUse;
use crate::process::scheduling::{self, Heir};
use crate::procfs::{Contents, ProcFs};
use crate::rootfs::{self, CgroupAccess, CgroupHierarchy, CgroupView, PrepareContext};
use crate::spec::NamespaceType;

/// All that the child has in hand.
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    /// Namespaces to join, in order.
    pub(super) joins: Vec<OpenNamespace>,
    /// The container's cgroups, as far as it has them.
    pub(super) cgroup: &'a Cgroup,
    /// Where this process is not to become the program, but another one inside of a pid namespace that is joined.
    pub(super) second_birth: Option<SecondBirth>,
    /// v1 cgroups to join.
    pub(super) cgroup_files: Vec<JoinFile>,
    /// The network namespace that the runtime makes meanwhile.
    pub(super) network: Option<AwaitedNetwork>,
    /// Open before the root changes: no path, and no procfs of the container's, leads to it later.
    /// `None` for a program that starts at once.
    pub(super) fifo: Option<OwnedFd>,
    pub(super) io: ProcessIo,
    pub(super) state: &'a dyn Milestones,
}

/// Becomes the container's program.
pub(super) fn initialize(
    channel: &mut Option<Channel>,
    context: Context<'_>,
) -> Result<Infallible, InitError> {
    let Context { plan, joins, mut second_birth, cgroup, mut cgroup_files, network, fifo, mut io, state } =
        context;
    let namespaces = &plan.namespaces;
    drop(io.pidfd_socket.take());
    let namespace_files = joins.iter().map(|join| join.fd.as_fd());
    let cgroups = cgroup_files.iter().map(JoinFile::as_fd);
    let own = channel.iter().map(AsFd::as_fd).chain(fifo.iter().map(AsFd::as_fd));
    let own = own
        .chain(network.iter().map(AsFd::as_fd))
        .chain(second_birth.iter().filter_map(SecondBirth::namespace));
    keep_only(&io, namespace_files.chain(cgroups).chain(own))?;
    expect(channel, &Message::Go, "Go")?;
    if plan.caller == Caller::User {
        // Its maps are written; before the first join (CVE-2016-9962).
        process::set_not_dumpable().map_err(step("becoming not dumpable"))?;
    }

    // Cgroups before the cgroup namespace, whose root is where this process then is.
    join_cgroups(&mut cgroup_files)?;
    joins.iter().try_for_each(OpenNamespace::join)?;
    drop(joins);
    if namespaces.creates(NamespaceType::Cgroup) {
        create_cgroup_namespace()?;
    }
    if namespaces.has(NamespaceType::User) {
        become_namespace_root(plan.process.user.supplementary, None)?;
    }
    process::new_session().map_err(step("setsid"))?;
    reset_signals()?;
    // A created container can be asked to end before its program has started.
    signal::exit_when_asked().map_err(step("preparing for signals"))?;
    take_streams(&mut io)?;
    if let Some(keyring) = &plan.keyring {
        let user_namespace = namespaces.has(NamespaceType::User);
        keyring::join(keyring, KeyringUse::Create { user_namespace })?;
    }
    if namespaces.creates(NamespaceType::Network) && network.is_none() {
        link::bring_up_loopback().map_err(step("bringing up the loopback interface"))?;
    }

    // Mode bits of nodes and mount points are the plan's, not those of the caller's mask.
    process::set_umask(0);
    let cgroups = cgroup_view(&plan.cgroup, cgroup);
    let mut request_source = |index| request_source(channel, index);
    // A user's parent reaches nothing that its child does not, and may not enter the mount namespace.
    let request_source: Option<&mut rootfs::RequestSource<'_>> =
        if plan.caller == Caller::User { None } else { Some(&mut request_source) };
    let pid_namespace = second_birth.as_ref().and_then(SecondBirth::namespace);
    let mut context_of_mounts = PrepareContext { request_source, cgroups: &cgroups, pid_namespace };
    let enter_network = || network.map_or(Ok(()), AwaitedNetwork::enter);
    let prepared = rootfs::prepare(&plan.rootfs, &mut context_of_mounts, enter_network)?;
    if plan.hooks.runs_before_pivot() {
        tell(channel, &Message::RunHooks)?;
        expect(channel, &Message::HooksDone, "HooksDone")?;
    }
    if !plan.hooks.create_container.is_empty() {
        // As in runc, these hooks find the new root as their working directory.
        path::change_dir_to(prepared.root()).map_err(step("chdir to the root"))?;
    }
    run_container_hooks(state, "createContainer", &plan.hooks.create_container, "creating", None)?;
    // Opened while the host's procfs is still there; what follows has only the container's.
    let procfs = ProcFs::host().ok();
    let entered = prepared.enter(&plan.rootfs)?;
    process::set_umask(plan.process.user.umask.unwrap_or(0o022));

    // The terminal after the user's mounts, in the container's own devpts (CVE-2025-52565).
    if let Some(size) = plan.process.terminal {
        let console = rootfs::open_console(entered.root(), Some(&size))?;
        console.mount_on_dev_console(entered.root())?;
        attach_console(&console, &mut io, second_birth.as_mut())?;
    } else if let Some(procfs) = &procfs {
        rootfs::reopen_null_streams(entered.root(), procfs)?;
    }
    // The container's shows the pid namespace in which this process is not.
    let procfs = procfs.filter(|_| second_birth.is_some());
    // What is of the process itself is there once that is born.
    let own_cwd = second_birth.is_some() && plan.process.names_own_procfs();
    if !plan.process.cwd.is_empty() && !own_cwd {
        rootfs::make_working_dir(entered.root(), Path::new(&plan.process.cwd))?;
    }
    if let Some(hostname) = &plan.hostname {
        namespace::set_hostname(hostname).map_err(step("sethostname"))?;
    }
    if let Some(domainname) = &plan.domainname {
        namespace::set_domainname(domainname).map_err(step("setdomainname"))?;
    }
    // Through a procfs of our own, as the container's may be covered by anything (CVE-2019-16884, CVE-2025-52881).
    let contents = if plan.sysctl.is_empty() { Contents::Processes } else { Contents::Everything };
    let mut proc = LazyProc::new(contents, procfs.as_ref());
    apply_apparmor(plan.process.apparmor_profile.as_ref(), &mut proc)?;
    write_sysctls(plan, &mut proc)?;
    rootfs::finalize(&plan.rootfs, entered)?;

    if plan.process.no_new_privileges {
        process::set_no_new_privileges().map_err(step("prctl(SET_NO_NEW_PRIVS)"))?;
    }
    if plan.process.depends_on_limits() && !plan.hooks.runs_before_pivot() {
        // The parent may still be at them, and whether these are granted must not be a matter of who is faster.
        tell(channel, &Message::LimitsWanted)?;
        expect(channel, &Message::LimitsSet, "LimitsSet")?;
    }
    let restricted = plan.cgroup.restricts_cpus();
    let heir = if second_birth.is_some() { Heir::Child } else { Heir::Itself };
    scheduling::apply(&plan.process, heir)
        .map_err(|error| if restricted { error.in_cpuset() } else { error })?;
    let rlimits = RlimitsBy::of(namespaces.has(NamespaceType::User));
    be_ready(channel, &plan.process, rlimits, second_birth.as_mut())?;

    apply_selinux(plan.process.selinux_label.as_ref(), &mut proc)?;
    drop(proc);
    if let Some(birth) = &mut second_birth {
        birth.procfs = procfs;
    }
    // Nothing of the host is open from here on but these, which close by themselves (CVE-2024-21626). Before the
    // filter, which may refuse close_range(2): one by one, the descriptors would take longer than all the rest.
    let own = channel.iter().map(AsFd::as_fd).chain(fifo.iter().map(AsFd::as_fd));
    keep_only(&io, own.chain(second_birth.iter().flat_map(SecondBirth::descriptors)))?;
    let program = assume_identity(&plan.process, plan.seccomp.as_ref(), channel, second_birth, || {
        belong_to_user(plan)
    })?;

    await_run(channel)?;
    say_created(channel.as_ref().ok_or(ProtocolError::Ended)?)?;
    // Nobody hears an error of what follows but standard error.
    drop(channel.take());
    if let Some(fifo) = fifo {
        wait_for_start(fifo)?;
    }
    run_container_hooks(state, "startContainer", &plan.hooks.start_container, "created", Some(&program.env))?;
    let exec = program.exec(&plan.process.args);
    close_what_agents_added(plan.seccomp.as_ref(), &io)?;
    Err(InitError::Exec(exec.replace_process()))
}

fn say_created(channel: &Channel) -> Result<(), InitError> {
    channel.write(&Message::Created).map_err(|error| match error {
        ProtocolError::Socket(source) => InitError::Step {
            step: "telling the runtime that the container is created, which a seccomp profile has to allow",
            source,
        },
        other => other.into(),
    })
}

/// Lets a user look at the container that waits for its start, whose files in /proc are root's otherwise: or nobody could
/// enter it, or give it a network. What is left of the host is the channel, and nobody else is in its user namespace.
fn belong_to_user(plan: &Plan) -> Result<(), InitError> {
    if plan.caller == Caller::User && plan.namespaces.creates(NamespaceType::User) {
        process::set_dumpable().map_err(step("becoming dumpable"))?;
    }
    Ok(())
}

fn run_container_hooks(
    state: &dyn Milestones,
    name: &'static str,
    list: &[crate::spec::Hook],
    status: &'static str,
    env: Option<&[String]>,
) -> Result<(), InitError> {
    if list.is_empty() {
        return Ok(());
    }
    let state = state.state_for_hooks(status, process::own_pid());
    Ok(hooks::run(name, list, &state, env)?)
}

fn write_sysctls(plan: &Plan, proc: &mut LazyProc) -> Result<(), InitError> {
    for (name, value) in &plan.sysctl {
        proc.open()?.write_sysctl(name, value).map_err(step("error setting sysctl"))?;
    }
    Ok(())
}

/// Blocks until `start` writes a byte. The descriptor is open for both directions, so that a `start` which dies between
/// open and write is no end of file. One read(2), which every profile that can run a program allows.
fn wait_for_start(fifo: OwnedFd) -> Result<(), InitError> {
    let mut byte = [0];
    File::from(fifo).read_exact(&mut byte).map_err(InitError::while_waiting)
}

/// Asks the parent for a bind source.
fn request_source(channel: &Option<Channel>, index: usize) -> Result<OwnedFd, String> {
    let channel = channel.as_ref().ok_or("the parent is gone")?;
    channel.send(&Message::SourceWanted(index)).map_err(|error| chain(&error))?;
    match channel.receive().map_err(|error| chain(&error))? {
        Some((Message::Source, mut fds)) => fds.pop().ok_or_else(|| "no descriptor came".to_owned()),
        Some((Message::SourceRefused(reason), _)) => Err(reason),
        _ => Err("the parent is gone".to_owned()),
    }
}

/// Where the container's cgroups are, for its view of them.
fn cgroup_view(plan: &CgroupPlan, made: &Cgroup) -> CgroupView {
    let rootless = plan.privilege == Privilege::Rootless;
    let named = |group: &GroupPlan| CgroupHierarchy {
        name: Path::new(&group.mountpoint)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        own: own_cgroup(group, made),
    };
    match (plan.mode, plan.groups.first()) {
        (CgroupMode::Unified, Some(group)) => CgroupView::Unified {
            mountpoint: PathBuf::from(&group.mountpoint),
            own: PathBuf::from(&group.path),
            access: if rootless { CgroupAccess::Rootless } else { CgroupAccess::Full },
        },
        _ => CgroupView::Legacy(plan.groups.iter().filter(|group| is_v1(group)).map(named).collect()),
    }
}

/// Where the container's process is in a hierarchy: a rootless one that may have no cgroup stays in the runtime's, below
/// which its own would have been.
fn own_cgroup(group: &GroupPlan, made: &Cgroup) -> PathBuf {
    let path = Path::new(&group.path);
    let is_made = group.controllers.iter().any(|controller| made.path(controller) == Some(path));
    if is_made { path.to_owned() } else { path.parent().unwrap_or(path).to_owned() }
}

/// The v2 hierarchy beside v1 is not shown, as in runc.
fn is_v1(group: &GroupPlan) -> bool {
    group.controllers.iter().any(|controller| !controller.is_empty())
}
