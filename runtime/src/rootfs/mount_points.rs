//! The places that a restored container's mounts go to, made as [`super::prepare`] would have made them.
//!
//! criu makes the mounts of a restored container by itself, but no mount points. Here they are made by the same walk, by
//! descriptors below the root: for each step the bind that there will be, or a tmpfs that stands in for a file system, so
//! that what goes below it has its place too. All of it is in the mount namespace of the process that becomes criu, and is
//! taken away again before that.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ketch_sys::SyscallError;
use ketch_sys::mount::{self, Extent, Parameter};
use ketch_sys::{path, stat};

use super::error::{MountError, RootfsError};
use super::mount::{bind_extent, refused, set_bind_flags};
use super::root_dir::{LastLink, Missing, RootDir};
use super::{dev, options};
use crate::plan::mount_flags::MountFlags;
use crate::plan::rootfs::{MountKind, MountStep, RootfsPlan};

/// Makes what is missing of the mount points of `plan`, then binds its root to `place`, an empty directory: the mount point
/// that criu asks for. The calling process must be single-threaded and in a mount namespace of its own.
///
/// # Errors
/// [`RootfsError`] of the first step that failed: what `create` would fail with.
pub fn make_mount_points(plan: &RootfsPlan, place: &Path) -> Result<(), RootfsError> {
    let failed = |step| move |source| RootfsError::Root { step, path: plan.path.clone(), source };
    mount::set_propagation_of_path(Path::new("/"), Extent::Tree, mount::Propagation::Slave)
        .map_err(failed("propagation of the parents of"))?;
    let flags = path::PATH | path::DIRECTORY | path::NO_FOLLOW;
    let at = path::open_host(place, flags).map_err(failed("open the place of"))?;

    let tree = bind(plan, Extent::Tree, &at).map_err(failed("bind"))?;
    let root = RootDir::new(tree);
    for step in &plan.mounts {
        cover(&root, step).map_err(|reason| RootfsError::Mount {
            from: step.source.clone(),
            destination: step.destination.clone(),
            reason: Box::new(reason),
        })?;
    }
    if let Some(nodes) = &plan.dev {
        dev::fill(&root, nodes, plan)?;
    }
    drop(root);
    mount::detach_path(place).map_err(failed("unmount"))?;
    bind(plan, Extent::Single, &at).map_err(failed("bind"))?;
    Ok(())
}

fn bind(plan: &RootfsPlan, extent: Extent, place: &OwnedFd) -> Result<OwnedFd, SyscallError> {
    let flags = path::PATH | path::DIRECTORY | path::NO_FOLLOW;
    let tree = path::open_host(&plan.path, flags).and_then(|root| mount::clone_tree(&root, extent))?;
    mount::attach(&tree, place)?;
    Ok(tree)
}

/// Puts onto the target of `step` what is, or stands for, its mount.
fn cover(root: &RootDir, step: &MountStep) -> Result<(), MountError> {
    let failed = |error| refused(step, error);
    let (tree, missing) = if step.is_bind() {
        let tree = mount::clone_host_tree(Path::new(&step.source), bind_extent(step)).map_err(failed)?;
        // With its flags, so that nothing is made in what the container may only read.
        set_bind_flags(step, tree.as_fd())?;
        let is_dir = stat::status(&tree).map_err(failed)?.is_dir();
        (tree, if is_dir { Missing::Directory } else { Missing::File })
    } else {
        (stand_in().map_err(failed)?, Missing::Directory)
    };
    let last = match step.kind {
        MountKind::Proc | MountKind::Sysfs => LastLink::Refuse,
        _ => LastLink::Follow,
    };
    let target = root
        .resolve_or_create(&step.target, missing, last)
        .map_err(|source| MountError::Target { destination: step.destination.clone(), source })?;
    mount::attach(&tree, &target.fd).map_err(failed)
}

/// An empty file system.
fn stand_in() -> Result<OwnedFd, SyscallError> {
    let context = mount::open_fs("tmpfs")?;
    mount::configure(&context, Parameter::Text("size", "1m"))?;
    mount::create(&context, "tmpfs", options::attributes(MountFlags::NONE))
}
