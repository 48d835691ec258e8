//! The container's view of its cgroups: the entry `cgroup` of a bundle, whichever version the host has.
//!
//! A bind of the container's own cgroup shows, in its cgroup namespace, exactly what a new mount of the hierarchy would:
//! the same superblock, and the same `/` in `/proc/self/mountinfo`. It is preferred, as a new mount waits for the
//! kernel's cgroup mutex, which every move of a process on the machine holds for milliseconds. As a new mount would be, it
//! is nobody's peer or slave: criu can't save a mount that takes events from one that it does not see. Without a cgroup
//! namespace of the container's own a new mount would show all of the runtime's, which may be more than is mounted on the
//! host: there nothing takes the bind's place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::mount::{self, Extent};
use ketch_sys::{Errno, SyscallError, path, stat};

use super::error::MountError;
use super::mask::read_only_tmpfs;
use super::mount::{ExactFlagsError, Executor, attach, derived, refused, set_exact_flags};
use super::options::attributes;
use super::root_dir::{Missing, Resolved};
use super::{CgroupAccess, CgroupHierarchy, CgroupView};
use crate::plan::mount_flags::MountFlags;
use crate::plan::rootfs::{MountKind, MountStep};

/// What mounts of cgroups get when the bundle's flags are not theirs to take.
const SAFE: MountFlags = MountFlags(MountFlags::NO_EXEC.0 | MountFlags::NO_SUID.0 | MountFlags::NO_DEV.0);

pub(super) fn mount(executor: &Executor<'_, '_>, step: &MountStep) -> Result<Option<OwnedFd>, MountError> {
    match executor.context.cgroups {
        CgroupView::Unified { mountpoint, own, access } => {
            let target = executor.target(step, Missing::Directory, None)?;
            let shown = if executor.plan.cgroup_namespace { own } else { mountpoint };
            unified(executor, step, &target, (shown, *access)).map(|()| None)
        }
        CgroupView::Legacy(hierarchies) => legacy(executor, step, hierarchies),
    }
}

fn unified(
    executor: &Executor<'_, '_>,
    step: &MountStep,
    target: &Resolved,
    (shown, access): (&Path, CgroupAccess),
) -> Result<(), MountError> {
    let bound = mount::clone_host_tree(shown, Extent::Single).and_then(|tree| {
        // The path is the runtime's own, yet a mount of someone else may cover it.
        if stat::file_system(&tree)? != stat::CGROUP2 {
            return Err(SyscallError::new("fstatfs", shown.display().to_string(), Errno::ENOTSUP));
        }
        Ok(tree)
    });
    let error = match bound {
        Ok(tree) => {
            let wanted = step.flags.without(MountFlags::REMOUNT);
            make_private(tree.as_fd()).map_err(|error| refused(step, error))?;
            set_exact_flags(tree.as_fd(), wanted, step.cleared).map_err(|error| exact(step, error))?;
            return attach(step, tree.as_fd(), target);
        }
        Err(error) => error,
    };
    let new = executor.plan.cgroup_namespace.then(|| {
        let context = mount::open_fs("cgroup2")?;
        mount::configure(&context, mount::Parameter::Text("source", "cgroup"))?;
        mount::create(&context, "cgroup2", attributes(step.flags))
    });
    match new {
        Some(Ok(new)) => attach(step, new.as_fd(), target),
        // A rootless runtime outside of its user and mount namespace has no cgroup to show. What is at the target
        // then must not stay writable (CVE-2023-25809).
        _ if access == CgroupAccess::Rootless && error.errno == Errno::ENOENT => {
            let mask = read_only_tmpfs(&executor.plan.mount_label).map_err(|error| refused(step, error))?;
            mount::attach(&mask, &target.fd).map_err(|error| refused(step, error))
        }
        Some(Err(error)) => Err(refused(step, error)),
        None => Err(refused(step, error)),
    }
}

/// A tmpfs with one directory for each hierarchy, and a link for each controller of a hierarchy of several.
fn legacy(
    executor: &Executor<'_, '_>,
    step: &MountStep,
    hierarchies: &[CgroupHierarchy],
) -> Result<Option<OwnedFd>, MountError> {
    let target = executor.target(step, Missing::Directory, None)?;
    let failed = |error| refused(step, error);
    let context = mount::open_fs("tmpfs").map_err(failed)?;
    mount::configure(&context, mount::Parameter::Text("source", "tmpfs")).map_err(failed)?;
    mount::configure(&context, mount::Parameter::Text("mode", "755")).map_err(failed)?;
    let tmpfs = mount::create(&context, "tmpfs", attributes(SAFE)).map_err(failed)?;

    // In a namespace of its own the container gets what a new mount would have; else a bind with the bundle's flags.
    let flags = if executor.plan.cgroup_namespace {
        SAFE.union(step.flags.intersection(MountFlags::READ_ONLY))
    } else {
        step.flags
    };
    let mut mounts = Vec::with_capacity(hierarchies.len());
    for hierarchy in hierarchies {
        let name = Path::new(&hierarchy.name);
        let one = derived(step, &hierarchy.own.to_string_lossy(), step.target.join(name), MountKind::Bind);
        let failed = |error| refused(&one, error);
        let tree = mount::clone_host_tree(&hierarchy.own, Extent::Tree).map_err(failed)?;
        if stat::file_system(&tree).map_err(failed)? != stat::CGROUP1 {
            return Err(failed(SyscallError::new("fstatfs", one.source.clone(), Errno::ENOTSUP)));
        }
        make_private(tree.as_fd()).map_err(failed)?;
        set_exact_flags(tree.as_fd(), flags, MountFlags::NONE).map_err(|error| exact(&one, error))?;
        path::make_dir(&tmpfs, name, 0o755).map_err(failed)?;
        mounts.push((one, tree));
    }
    for hierarchy in hierarchies {
        let controllers = hierarchy.name.split(',');
        for controller in controllers.filter(|_| hierarchy.name.contains(',')) {
            match path::make_symlink(Path::new(&hierarchy.name), &tmpfs, Path::new(controller)) {
                Err(error) if error.errno != Errno::EEXIST => return Err(failed(error)),
                _ => {}
            }
        }
    }
    attach(step, tmpfs.as_fd(), &target)?;
    for (one, tree) in mounts {
        let name = one.target.file_name().map(PathBuf::from).unwrap_or_default();
        // Looked up in the tmpfs that has just been made, which nobody else has seen yet.
        let place =
            path::open_at(&tmpfs, &name, path::PATH | path::DIRECTORY, 0, path::Resolve::BeneathSameMount)
                .map_err(|error| refused(&one, error))?;
        let place = Resolved { fd: place, path: one.target.clone(), created: true };
        attach(&one, tree.as_fd(), &place)?;
    }
    Ok(step.flags.intersects(MountFlags::READ_ONLY).then_some(tmpfs))
}

fn make_private(tree: BorrowedFd<'_>) -> Result<(), SyscallError> {
    mount::set_propagation(tree, Extent::Tree, mount::Propagation::Private)
}

fn exact(step: &MountStep, error: ExactFlagsError) -> MountError {
    match error {
        ExactFlagsError::Refused(error) => refused(step, error),
        ExactFlagsError::Locked(flags, source) => MountError::LockedFlags { flags, source },
        ExactFlagsError::LockedAtime(flags, source) => MountError::LockedAtime { flags, source },
    }
}
