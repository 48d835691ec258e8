//! The first and the last step with the host's tree: binding the root onto itself, and making it `/`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use ketch_sys::mount::{self, Extent};
use ketch_sys::{Errno, SyscallError, path};

use super::{Prepared, RootDir, RootfsError};
use crate::plan::mount_flags::{Propagation, PropagationKind};
use crate::plan::rootfs::{RootEntry, RootfsPlan};

/// The kernel's name for a kind of propagation.
pub(super) fn kernel_propagation(kind: PropagationKind) -> mount::Propagation {
    match kind {
        PropagationKind::Shared => mount::Propagation::Shared,
        PropagationKind::Slave => mount::Propagation::Slave,
        PropagationKind::Private => mount::Propagation::Private,
        PropagationKind::Unbindable => mount::Propagation::Unbindable,
    }
}

/// One mount or a whole tree, as a propagation option says.
pub(super) fn extent(propagation: Propagation) -> Extent {
    if propagation.recursive { Extent::Tree } else { Extent::Single }
}

/// What `/` of the mount namespace gets when the bundle names nothing: no event of ours reaches the host.
const DEFAULT: Propagation = Propagation { kind: PropagationKind::Slave, recursive: true };

/// Sets the propagation of the host's tree and binds the root onto itself, so that it is a mount that pivot_root(2)
/// takes. The bind is the handle of everything that follows.
pub(super) fn bind_root(plan: &RootfsPlan) -> Result<RootDir, RootfsError> {
    let failed = |step| move |source| RootfsError::Root { step, path: plan.path.clone(), source };
    let chosen = plan.propagation.unwrap_or(DEFAULT);
    // Without a mount namespace of its own, the container must leave the host's propagation alone.
    let own_namespace = plan.entry != RootEntry::Chroot;
    if own_namespace {
        mount::set_propagation_of_path(Path::new("/"), extent(chosen), kernel_propagation(chosen.kind))
            .map_err(|source| RootfsError::Root { step: "propagation of", path: "/".into(), source })?;
        // When the whole tree has just become slave or private, no parent is shared, and the bind below can be made
        // private by itself. Otherwise the mount that the root lies on must not be shared: pivot_root(2) would refuse
        // it, and the bind would appear on the host.
        if !(chosen.recursive && matches!(chosen.kind, PropagationKind::Slave | PropagationKind::Private)) {
            unshare_parent(&plan.path, chosen.kind).map_err(failed("remount-propagation"))?;
        }
    }

    let flags = path::PATH | path::DIRECTORY | path::NO_FOLLOW;
    let target = path::open_host(&plan.path, flags).map_err(failed("open"))?;
    let tree = mount::clone_tree(&target, Extent::Tree).map_err(failed("bind"))?;
    mount::attach(&tree, &target).map_err(failed("bind"))?;
    // After it is in place: below a shared mount (which only a container without a mount namespace can meet) it has
    // just become shared.
    if chosen.kind != PropagationKind::Slave || plan.propagation.is_none() {
        mount::set_propagation(&tree, Extent::Single, mount::Propagation::Private).map_err(failed("bind"))?;
    }
    Ok(RootDir::new(tree))
}

/// Makes the mount that `path` lies on private (or slave, when the root is to be one).
fn unshare_parent(path: &Path, chosen: PropagationKind) -> Result<(), SyscallError> {
    let wanted = match chosen {
        PropagationKind::Slave => mount::Propagation::Slave,
        _ => mount::Propagation::Private,
    };
    let mut at = path;
    loop {
        match mount::set_propagation_of_path(at, Extent::Single, wanted) {
            // Not a mount point: the one that it lies on is further up.
            Err(error) if error.errno == Errno::EINVAL => match at.parent() {
                Some(parent) => at = parent,
                None => return Err(error),
            },
            other => return other,
        }
    }
}

/// The container's root after it has become `/`.
#[derive(Debug)]
pub struct ContainerRoot {
    root: RootDir,
    readonly_later: Vec<(String, OwnedFd)>,
}

impl ContainerRoot {
    /// The root.
    #[must_use]
    pub fn root(&self) -> &RootDir {
        &self.root
    }

    /// The parts that [`super::finalize`] works on.
    pub(super) fn into_parts(self) -> (RootDir, Vec<(String, OwnedFd)>) {
        (self.root, self.readonly_later)
    }
}

impl Prepared {
    /// Makes the root `/` and the working directory, and drops the host's tree.
    ///
    /// # Errors
    /// [`RootfsError::Enter`] and [`RootfsError::Propagation`].
    pub fn enter(self, plan: &RootfsPlan) -> Result<ContainerRoot, RootfsError> {
        let failed = |step| move |source| RootfsError::Enter { step, source };
        let Self { root, readonly_later } = self;
        match plan.entry {
            RootEntry::PivotRoot => pivot(&root, plan)?,
            RootEntry::MoveMount => {
                super::mask::cover_host_pseudo_filesystems(plan)
                    .map_err(failed("covering the host's procfs"))?;
                path::change_dir_to(&root).map_err(failed("chdir to the root"))?;
                mount::move_here_to_root().map_err(failed("moving the root"))?;
                chroot_here()?;
            }
            RootEntry::Chroot => {
                path::change_dir_to(&root).map_err(failed("chdir to the root"))?;
                chroot_here()?;
            }
        }
        // Only now is `/` the container's own: before, this would have changed the host's. Slave and private were set
        // when the root was bound.
        if let Some(propagation) = plan.propagation
            && plan.entry != RootEntry::Chroot
            && matches!(propagation.kind, PropagationKind::Shared | PropagationKind::Unbindable)
        {
            mount::set_propagation(root.as_fd(), extent(propagation), kernel_propagation(propagation.kind))
                .map_err(RootfsError::Propagation)?;
        }
        Ok(ContainerRoot { root, readonly_later })
    }
}

fn chroot_here() -> Result<(), RootfsError> {
    path::chroot_here().map_err(|source| RootfsError::Enter { step: "chroot", source })?;
    change_dir_to_root()
}

fn change_dir_to_root() -> Result<(), RootfsError> {
    ketch_sys::process::change_dir(c"/").map_err(|source| RootfsError::Enter { step: "chdir to /", source })
}

/// pivot_root(".", ".") needs no directory inside the root for the old one, so no path of the image is involved: the
/// new root ends up below the old one at `/`, and is uncovered by detaching that.
fn pivot(root: &RootDir, plan: &RootfsPlan) -> Result<(), RootfsError> {
    let failed = |step| move |source| RootfsError::Enter { step, source };
    let old_root =
        path::open_host(Path::new("/"), path::PATH | path::DIRECTORY).map_err(failed("open the old root"))?;
    path::change_dir_to(root).map_err(failed("chdir to the root"))?;
    mount::pivot_root_here().map_err(failed("pivot_root"))?;
    // The kernel does not promise where the working directory is now.
    path::change_dir_to(&old_root).map_err(failed("chdir to the old root"))?;
    // Unmounts below must not reach the host. With a recursively slave or private tree they cannot.
    let chosen = plan.propagation.unwrap_or(DEFAULT);
    if !(chosen.recursive && matches!(chosen.kind, PropagationKind::Slave | PropagationKind::Private)) {
        mount::set_propagation_of_path(Path::new("."), Extent::Tree, mount::Propagation::Slave)
            .map_err(failed("making the old root a slave"))?;
    }
    drop(old_root);
    mount::detach_here().map_err(failed("detaching the old root"))?;
    change_dir_to_root()
}
