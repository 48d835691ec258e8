//! One mount: made detached, given its attributes, attached to a target that is held by a descriptor.
//!
//! Nothing is looked up twice: the target that was checked is the target that is mounted on (CVE-2021-30465), and the
//! mount that is changed afterwards is the very mount that was made, by its own descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::mount::{self, Extent, LONGEST_TEXT, Parameter};
use ketch_sys::{Errno, SyscallError, path, stat};

use super::enter::{extent, kernel_propagation};
use super::error::{MountDescription, MountError};
use super::options::{attributes, exact_attributes, file_system_flags, flags_of_mount, parameters};
use super::root_dir::{LastLink, Missing, Resolved, RootDir};
use super::{PrepareContext, cgroup, copy_up, joined_procfs};
use crate::plan::mount_flags::MountFlags;
use crate::plan::rootfs::{MountKind, MountStep, RootfsPlan};

/// Makes the mounts of a plan.
pub(super) struct Executor<'a, 'b> {
    pub(super) plan: &'a RootfsPlan,
    pub(super) root: &'a RootDir,
    pub(super) context: &'a mut PrepareContext<'b>,
}

/// The flags that say how a bind is made, and nothing about the mount that it makes.
const BIND_ITSELF: MountFlags =
    MountFlags(MountFlags::BIND.0 | MountFlags::RECURSIVE.0 | MountFlags::REMOUNT.0);

/// The flags that a mount from a less privileged namespace may have locked.
const LOCKABLE: MountFlags = MountFlags(
    MountFlags::READ_ONLY.0
        | MountFlags::NO_DEV.0
        | MountFlags::NO_EXEC.0
        | MountFlags::NO_SUID.0
        | MountFlags::ATIME.0,
);

/// Files below `/proc` that lxcfs and its like mount their own over.
const COVERABLE_PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

impl Executor<'_, '_> {
    /// Makes the mount `step`, which is number `index` of the plan. What comes back is to be made read-only after the
    /// last write to it.
    pub(super) fn run(&mut self, index: usize, step: &MountStep) -> Result<Option<OwnedFd>, MountError> {
        match &step.kind {
            MountKind::Bind => self.bind(index, step).map(|()| None),
            MountKind::Cgroup => cgroup::mount(self, step),
            MountKind::Proc => self.pseudo(step, "proc"),
            MountKind::Sysfs => self.pseudo(step, "sysfs"),
            MountKind::Mqueue => {
                let target = self.target(step, Missing::Directory, None)?;
                let mounted = self.new_file_system(step, "mqueue", &target, &step.data)?;
                if !self.plan.mount_label.is_empty() {
                    label(&mounted, &self.plan.mount_label).map_err(|error| refused(step, error))?;
                }
                Ok(later(step, mounted))
            }
            MountKind::Tmpfs => {
                let target = self.target(step, Missing::Directory, None)?;
                let mut data = self.labelled(&step.data);
                if !target.created {
                    // What is covered gives its mode to what covers it, unless the bundle names one.
                    let mode = stat::status(&target.fd).map_err(|error| refused(step, error))?.permissions();
                    let rest = std::mem::take(&mut data);
                    data = format!("mode={mode:04o}{}{rest}", if rest.is_empty() { "" } else { "," });
                }
                self.new_file_system(step, "tmpfs", &target, &data).map(|mounted| later(step, mounted))
            }
            MountKind::Filesystem(kind) => {
                let target = self.target(step, Missing::Directory, None)?;
                let data = self.labelled(&step.data);
                self.new_file_system(step, kind, &target, &data).map(|mounted| later(step, mounted))
            }
        }
    }

    /// procfs and sysfs, whose place may not be a symlink.
    fn pseudo(&self, step: &MountStep, kind: &'static str) -> Result<Option<OwnedFd>, MountError> {
        let ordinary = |error: SyscallError| match error.errno {
            Errno::ELOOP | Errno::ENOTDIR => MountError::NotOrdinaryDirectory(kind),
            _ => MountError::Target { destination: step.destination.clone(), source: error },
        };
        let target = self
            .root
            .resolve_or_create(&step.target, Missing::Directory, LastLink::Refuse)
            .map_err(ordinary)?;
        if !stat::status(&target.fd).map_err(ordinary)?.is_dir() {
            return Err(MountError::NotOrdinaryDirectory(kind));
        }
        self.check_target(step, &target, None)?;
        self.new_file_system(step, kind, &target, &step.data).map(|mounted| later(step, mounted))
    }

    /// Finds or makes the target of `step` and checks that it may be covered. `source` is the tree that a bind puts
    /// there.
    pub(super) fn target(
        &self,
        step: &MountStep,
        missing: Missing,
        source: Option<BorrowedFd<'_>>,
    ) -> Result<Resolved, MountError> {
        let target = self
            .root
            .resolve_or_create(&step.target, missing, LastLink::Follow)
            .map_err(|source| MountError::Target { destination: step.destination.clone(), source })?;
        self.check_target(step, &target, source)?;
        Ok(target)
    }

    fn check_target(
        &self,
        step: &MountStep,
        target: &Resolved,
        source: Option<BorrowedFd<'_>>,
    ) -> Result<(), MountError> {
        if target.path == Path::new("/") {
            return Err(MountError::OnRoot {
                destination: step.destination.clone(),
                root: self.plan.path.clone(),
            });
        }
        let Ok(below_proc) = target.path.strip_prefix("/proc") else { return Ok(()) };
        let shown = || {
            let below = target.path.strip_prefix("/").unwrap_or(&target.path);
            self.plan.path.join(below)
        };
        if below_proc == Path::new("") {
            let proc = match (&step.kind, source) {
                (MountKind::Proc, _) => true,
                (MountKind::Bind, Some(source)) => {
                    stat::file_system(source).map_err(|error| refused(step, error))? == stat::PROC
                }
                _ => false,
            };
            return if proc { Ok(()) } else { Err(MountError::NotProc(shown())) };
        }
        if COVERABLE_PROC_FILES.iter().any(|file| target.path == Path::new(file)) {
            return Ok(());
        }
        Err(MountError::InsideProc(shown()))
    }

    fn bind(&mut self, index: usize, step: &MountStep) -> Result<(), MountError> {
        let source = self.bind_source(index, step)?;
        let status = stat::status(&source).map_err(|error| refused(step, error))?;
        let missing = if status.is_dir() { Missing::Directory } else { Missing::File };
        let target = self.target(step, missing, Some(source.as_fd()))?;
        set_bind_flags(step, source.as_fd())?;
        if let Some(tree) = step.tree {
            mount::set_attributes(&source, Extent::Tree, tree.set, tree.clear)
                .map_err(|error| refused(step, error))?;
        }
        attach(step, source.as_fd(), &target)
    }

    /// The detached tree that a bind puts into the container. It is cloned here, in the container's mount namespace, so
    /// that it shows what earlier steps have mounted; only what the user namespace may not reach or map comes from the
    /// parent.
    fn bind_source(&mut self, index: usize, step: &MountStep) -> Result<OwnedFd, MountError> {
        let request = self.context.request_source.as_mut();
        if step.id_map.is_none() {
            match mount::clone_host_tree(Path::new(&step.source), bind_extent(step)) {
                Ok(tree) => return Ok(tree),
                Err(error)
                    if self.plan.user_namespace
                        && request.is_some()
                        && matches!(error.errno, Errno::EACCES | Errno::EPERM) => {}
                Err(error) => return Err(refused(step, error)),
            }
        }
        let asked = request.map_or_else(|| Err("nobody to ask".to_owned()), |request| request(index));
        asked.map_err(|reason| MountError::Request { from: step.source.clone(), reason })
    }

    /// Makes a new file system with `data` and attaches it to `target`.
    fn new_file_system(
        &self,
        step: &MountStep,
        kind: &str,
        target: &Resolved,
        data: &str,
    ) -> Result<OwnedFd, MountError> {
        let failed = |error| described(step, data, error);
        let flags =
            if is_readonly_later(step) { step.flags.without(MountFlags::READ_ONLY) } else { step.flags };
        let parameters = parameters(kind, data);
        let longest = parameters.iter().map(|parameter| match parameter {
            Parameter::Flag(_) => 0,
            Parameter::Text(_, value) => value.len(),
        });
        let pid_namespace = self.context.pid_namespace.filter(|_| kind == "proc");
        // mount(2) can't be told of a pid namespace.
        if longest.chain([step.source.len()]).max().unwrap_or(0) > LONGEST_TEXT && pid_namespace.is_none() {
            return self.old_style(step, kind, target, (flags, data));
        }

        let context = match pid_namespace {
            Some(namespace) => joined_procfs::open_context(namespace),
            None => mount::open_fs(kind),
        };
        let context = context.map_err(failed)?;
        if !step.source.is_empty() {
            mount::configure(&context, Parameter::Text("source", &step.source)).map_err(failed)?;
        }
        for flag in file_system_flags(flags) {
            mount::configure(&context, Parameter::Flag(flag)).map_err(failed)?;
        }
        for parameter in parameters {
            mount::configure(&context, parameter).map_err(failed)?;
        }
        let mounted = match pid_namespace {
            Some(_) => joined_procfs::create(&context, attributes(flags)),
            None => mount::create(&context, kind, attributes(flags)),
        };
        let mounted = mounted.map_err(failed)?;
        if step.copy_up && kind == "tmpfs" {
            copy_up::copy_tree(target.fd.as_fd(), mounted.as_fd())?;
        }
        attach(step, mounted.as_fd(), target)?;
        Ok(mounted)
    }

    /// mount(2) for the sake of an option that fsconfig(2) is too narrow for. The target is the working directory for
    /// the call, so no path is walked; the mount is then found again by its path and must be a new one.
    fn old_style(
        &self,
        step: &MountStep,
        kind: &str,
        target: &Resolved,
        (flags, data): (MountFlags, &str),
    ) -> Result<OwnedFd, MountError> {
        let failed = |error| described(step, data, error);
        let before = path::open_host(Path::new("."), path::PATH | path::DIRECTORY).map_err(failed)?;
        path::change_dir_to(&target.fd).map_err(failed)?;
        let mounted = mount::mount_here(&step.source, kind, flags.0, data);
        path::change_dir_to(&before).map_err(failed)?;
        mounted.map_err(failed)?;
        let found = path::open_at(
            self.root,
            &target.path,
            path::PATH | path::DIRECTORY,
            0,
            path::Resolve::InRootNoSymlinks,
        )
        .map_err(failed)?;
        if stat::mount_id(&found).map_err(failed)? == stat::mount_id(&target.fd).map_err(failed)? {
            return Err(failed(SyscallError::new("statx", step.destination.clone(), Errno::ESTALE)));
        }
        set_propagation(step, found.as_fd())?;
        Ok(found)
    }

    /// `data` with the SELinux label of the plan.
    fn labelled(&self, data: &str) -> String {
        let label = &self.plan.mount_label;
        match (label.is_empty(), data.is_empty()) {
            (true, _) => data.to_owned(),
            (false, true) => format!("context=\"{label}\""),
            (false, false) => format!("{data},context=\"{label}\""),
        }
    }
}

/// Whether a read-only mount is still to be written to.
fn is_readonly_later(step: &MountStep) -> bool {
    step.flags.intersects(MountFlags::READ_ONLY)
        && (step.kind == MountKind::Tmpfs || (!step.is_bind() && step.target == Path::new("/dev")))
}

fn later(step: &MountStep, mounted: OwnedFd) -> Option<OwnedFd> {
    is_readonly_later(step).then_some(mounted)
}

/// `bind` or `rbind`.
pub(super) fn bind_extent(step: &MountStep) -> Extent {
    if step.flags.intersects(MountFlags::RECURSIVE) { Extent::Tree } else { Extent::Single }
}

/// Attaches a detached mount and lets it follow the propagation options: after it is in place, as a shared parent would
/// make it shared again.
pub(super) fn attach(step: &MountStep, mounted: BorrowedFd<'_>, target: &Resolved) -> Result<(), MountError> {
    mount::attach(mounted, &target.fd).map_err(|error| refused(step, error))?;
    set_propagation(step, mounted)
}

fn set_propagation(step: &MountStep, mounted: BorrowedFd<'_>) -> Result<(), MountError> {
    for propagation in &step.propagation {
        mount::set_propagation(mounted, extent(*propagation), kernel_propagation(propagation.kind))
            .map_err(|error| refused(step, error))?;
    }
    Ok(())
}

/// Gives a bind exactly the flags of `step`, if it names any. As runc: the host's flags go unless they are locked; and
/// when they are, whatever would silently differ from what the bundle asks for is an error.
pub(super) fn set_bind_flags(step: &MountStep, tree: BorrowedFd<'_>) -> Result<(), MountError> {
    let wanted = step.flags.without(BIND_ITSELF);
    if wanted.is_empty() && step.cleared.is_empty() {
        return Ok(());
    }
    set_exact_flags(tree, wanted, step.cleared).map_err(|error| match error {
        ExactFlagsError::Refused(error) => refused(step, error),
        ExactFlagsError::Locked(flags, source) => MountError::LockedFlags { flags, source },
        ExactFlagsError::LockedAtime(flags, source) => MountError::LockedAtime { flags, source },
    })
}

/// Why [`set_exact_flags`] failed.
pub(super) enum ExactFlagsError {
    Refused(SyscallError),
    Locked(MountFlags, SyscallError),
    LockedAtime(MountFlags, SyscallError),
}

pub(super) fn set_exact_flags(
    tree: BorrowedFd<'_>,
    wanted: MountFlags,
    cleared: MountFlags,
) -> Result<(), ExactFlagsError> {
    let (set, clear) = exact_attributes(wanted);
    let error = match mount::set_attributes(tree, Extent::Single, set, clear) {
        Err(error) if error.errno == Errno::EPERM => error,
        other => return other.map_err(ExactFlagsError::Refused),
    };
    let present = flags_of_mount(stat::mount_flags(tree).map_err(ExactFlagsError::Refused)?);
    let kept = present.intersection(LOCKABLE);
    let uncleared = kept.intersection(cleared);
    if !uncleared.is_empty() {
        return Err(ExactFlagsError::Locked(uncleared, error));
    }
    let atime = wanted.intersection(MountFlags::ATIME);
    if !atime.is_empty() && atime != present.intersection(MountFlags::ATIME) {
        return Err(ExactFlagsError::LockedAtime(present.intersection(MountFlags::ATIME), error));
    }
    let (set, clear) = exact_attributes(wanted.union(kept));
    mount::set_attributes(tree, Extent::Single, set, clear).map_err(ExactFlagsError::Refused)
}

/// Sets the SELinux label of the file system's root.
fn label(mounted: &OwnedFd, label: &str) -> Result<(), SyscallError> {
    let root = path::reopen_dir(mounted, path::READ)?;
    path::set_attribute(root, c"security.selinux", label.as_bytes())
}

pub(super) fn refused(step: &MountStep, error: SyscallError) -> MountError {
    described(step, &step.data, error)
}

fn described(step: &MountStep, data: &str, error: SyscallError) -> MountError {
    let description = MountDescription {
        from: step.source.clone(),
        to: step.destination.clone(),
        flags: step.flags,
        data: data.to_owned(),
    };
    MountError::Refused(Box::new(description), error)
}

/// `step` as a plain mount of something else onto `target`, for the steps that one entry of a bundle turns into.
pub(super) fn derived(step: &MountStep, source: &str, target: PathBuf, kind: MountKind) -> MountStep {
    MountStep {
        source: source.to_owned(),
        destination: target.to_string_lossy().into_owned(),
        target,
        kind,
        data: String::new(),
        ..step.clone()
    }
}
