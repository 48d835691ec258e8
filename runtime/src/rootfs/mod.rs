//! The container's root file system, from the host's tree to a finished `/`.
//!
//! Carries out a [`RootfsPlan`] in the container's first process, in three calls that the init code makes in order:
//! [`prepare`] (bind the root, mount, fill `/dev`; the host's tree is still there for hooks), [`Prepared::enter`] (the
//! root becomes `/`), [`finalize`] (read-only and masked paths). It decides nothing, reads no configuration and runs no
//! hook. All paths inside the root go through [`RootDir`]; all mounts are made detached and attached by descriptor.

mod cgroup;
mod console;
mod copy_up;
mod dev;
mod enter;
mod entries;
mod error;
pub mod joined_procfs;
mod mask;
mod mount;
mod mount_points;
mod options;
mod root_dir;
pub mod source;
mod standard_streams;
mod working_dir;

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

pub use console::{Console, open_console};
pub use enter::ContainerRoot;
pub use entries::{Entries, NewNode};
pub use error::{MountDescription, MountError, RootfsError};
pub use mask::finalize;
pub use mount_points::make_mount_points;
pub use root_dir::{LastLink, Missing, Resolved, RootDir};
pub use standard_streams::reopen_null_streams;
pub use working_dir::{make_working_dir, verify_working_dir};

use crate::plan::rootfs::{MountStep, RootfsPlan};

/// Asks the parent for the source of a mount, by its index in the plan.
pub type RequestSource<'a> = dyn FnMut(usize) -> Result<OwnedFd, String> + 'a;

/// What the plan cannot hold, since it is known only at run time.
pub struct PrepareContext<'a> {
    /// Asks the parent for the detached mount of the bind with this index in [`RootfsPlan::mounts`]: it is asked for
    /// id-mapped mounts, and for sources that the user namespace may not reach. The parent answers with
    /// [`source::SourceOpener::open`]; the error is its message. `None` for a parent that reaches no more than its child.
    pub request_source: Option<&'a mut RequestSource<'a>>,
    /// Where the container's cgroups are on the host.
    pub cgroups: &'a CgroupView,
    /// The pid namespace that the container's procfs shows, where that is not the calling process's own.
    pub pid_namespace: Option<BorrowedFd<'a>>,
}

impl std::fmt::Debug for PrepareContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrepareContext").field("cgroups", self.cgroups).finish_non_exhaustive()
    }
}

/// The container's cgroups, as paths of the host's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupView {
    /// cgroup v2 alone.
    Unified {
        /// Where it is mounted.
        mountpoint: PathBuf,
        /// The container's own cgroup.
        own: PathBuf,
        /// Whether the runtime may change cgroups.
        access: CgroupAccess,
    },
    /// cgroup v1, with or without a v2 hierarchy at the side.
    Legacy(Vec<CgroupHierarchy>),
}

/// What the runtime may do to cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupAccess {
    /// Everything.
    Full,
    /// Nothing, perhaps: a rootless runtime.
    Rootless,
}

/// A hierarchy of cgroup v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupHierarchy {
    /// The last name of its mount point: `cpu,cpuacct`, `systemd`.
    pub name: String,
    /// The container's own cgroup in it.
    pub own: PathBuf,
}

/// A root with everything mounted, not yet entered.
#[derive(Debug)]
pub struct Prepared {
    root: RootDir,
    /// Mounts that become read-only once nothing is written to them any more, and their names for messages.
    readonly_later: Vec<(String, OwnedFd)>,
}

impl Prepared {
    /// The root.
    #[must_use]
    pub fn root(&self) -> &RootDir {
        &self.root
    }

    /// Makes the mounts with these indices in the plan.
    fn mount(
        &mut self,
        plan: &RootfsPlan,
        indices: Range<usize>,
        context: &mut PrepareContext<'_>,
    ) -> Result<(), RootfsError> {
        for (index, step) in plan.mounts.iter().enumerate().take(indices.end).skip(indices.start) {
            let mounted = mount::Executor { plan, root: &self.root, context }.run(index, step);
            let later = mounted.map_err(|reason| RootfsError::Mount {
                from: step.source.clone(),
                destination: step.destination.clone(),
                reason: Box::new(reason),
            })?;
            self.readonly_later.extend(later.map(|mount| (step.destination.clone(), mount)));
        }
        Ok(())
    }
}

/// Binds the root, makes all mounts and fills `/dev`. The calling process must be single-threaded and in the
/// container's namespaces already, but for that of processes, and that of the network: `enter_network` is called once, as late as can be. Its root
/// is still the host's.
///
/// # Errors
/// [`RootfsError`] of the first step that failed, or what `enter_network` fails with; what was mounted until then goes with
/// the mount namespace.
pub fn prepare<E: From<RootfsError>>(
    plan: &RootfsPlan,
    context: &mut PrepareContext<'_>,
    enter_network: impl FnOnce() -> Result<(), E>,
) -> Result<Prepared, E> {
    let mut prepared = Prepared { root: enter::bind_root(plan)?, readonly_later: Vec::new() };
    let needs_network =
        plan.mounts.iter().position(MountStep::belongs_to_network).unwrap_or(plan.mounts.len());
    prepared.mount(plan, 0..needs_network, context)?;
    enter_network()?;
    prepared.mount(plan, needs_network..plan.mounts.len(), context)?;
    if let Some(dev) = &plan.dev {
        dev::fill(&prepared.root, dev, plan)?;
    }
    Ok(prepared)
}
