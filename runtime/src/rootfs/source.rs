//! The parent's side of bind sources: what the container's first process may not open or map by itself.
//!
//! Used by `init::parent` when the child asks. It runs with the runtime's privileges in the container's mount namespace,
//! so that a source shows what earlier mounts of the container have put there, as in runc.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ketch_sys::mount::{self, Extent};
use ketch_sys::process::{self, CloneOptions, CloneParent, Cloned};
use ketch_sys::{Errno, SyscallError, namespace, path};
use thiserror::Error;

use super::mount::bind_extent;
use crate::plan::rootfs::{IdmapSource, MountStep};
use crate::procfs::{Contents, ProcFs};
use crate::spec::IdMapping;

/// Why the parent has no source to give.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The source could not be cloned.
    #[error("open {path:?}")]
    Open {
        /// The source.
        path: PathBuf,
        /// The refused call.
        source: SyscallError,
    },
    /// The user namespace that maps the owners could not be had.
    #[error("failed to create userns for {path:?} id-mapping")]
    UserNamespace {
        /// The source of the mount.
        path: PathBuf,
        /// The refused call.
        source: SyscallError,
    },
    /// The file system does not take mapped owners.
    #[error(
        "failed to set MOUNT_ATTR_IDMAP on {path:?}{}",
        if source.errno == Errno::EINVAL {
            " (maybe the filesystem used doesn't support idmap mounts on this kernel?)"
        } else {
            ""
        }
    )]
    IdMap {
        /// The source.
        path: PathBuf,
        /// The refused call.
        source: SyscallError,
    },
    /// The runtime could not go into the container's mount namespace, or not come back.
    #[error("{step} the mount namespace")]
    Namespace {
        /// "entering" or "leaving".
        step: &'static str,
        /// The refused call.
        source: SyscallError,
    },
}

/// Opens bind sources on behalf of the container's first process.
#[derive(Debug)]
pub struct SourceOpener {
    /// Our own mount namespace, root and working directory, to come back to.
    namespace: OwnedFd,
    root: OwnedFd,
    working_dir: OwnedFd,
    /// User namespaces that were made for mappings, so that equal ones share one.
    made: Vec<(IdmapSource, OwnedFd)>,
}

impl SourceOpener {
    /// Notes where the calling process is.
    ///
    /// # Errors
    /// [`SourceError::Namespace`].
    pub fn new() -> Result<Self, SourceError> {
        let open = |path, flags| {
            path::open_host(Path::new(path), flags)
                .map_err(|source| SourceError::Namespace { step: "noting", source })
        };
        Ok(Self {
            namespace: open("/proc/self/ns/mnt", path::READ)?,
            root: open("/", path::PATH | path::DIRECTORY)?,
            working_dir: open(".", path::PATH | path::DIRECTORY)?,
            made: Vec::new(),
        })
    }

    /// The detached mount for `step`, cloned in the mount namespace of the process behind `child`, with its owners
    /// mapped if the step asks for it. The calling process must be single-threaded; it is back in its own namespace
    /// afterwards, whatever happens.
    ///
    /// # Errors
    /// [`SourceError`]; after [`SourceError::Namespace`] with "leaving", the process must end.
    pub fn open(&mut self, step: &MountStep, child: BorrowedFd<'_>) -> Result<OwnedFd, SourceError> {
        // Before the mount namespace is entered: the path is the host's, and so is /proc for the maps.
        let mapping = match &step.id_map {
            Some(request) => {
                let extent = if request.recursive { Extent::Tree } else { Extent::Single };
                Some((self.user_namespace(step, &request.mappings)?, extent))
            }
            None => None,
        };
        namespace::join(child, namespace::NEW_MOUNT)
            .map_err(|source| SourceError::Namespace { step: "entering", source })?;
        let cloned = mount::clone_host_tree(Path::new(&step.source), bind_extent(step))
            .map_err(|source| SourceError::Open { path: PathBuf::from(&step.source), source });
        self.come_back()?;
        let tree = cloned?;
        if let Some((userns, extent)) = mapping {
            let userns = self.made[userns].1.as_fd();
            mount::set_id_mapping(&tree, extent, userns)
                .map_err(|source| SourceError::IdMap { path: PathBuf::from(&step.source), source })?;
        }
        Ok(tree)
    }

    fn come_back(&self) -> Result<(), SourceError> {
        let leaving = |source| SourceError::Namespace { step: "leaving", source };
        namespace::join(&self.namespace, namespace::NEW_MOUNT).map_err(leaving)?;
        path::change_dir_to(&self.root).map_err(leaving)?;
        path::chroot_here().map_err(leaving)?;
        path::change_dir_to(&self.working_dir).map_err(leaving)
    }

    /// The index in `made` of a user namespace with these mappings.
    fn user_namespace(&mut self, step: &MountStep, mappings: &IdmapSource) -> Result<usize, SourceError> {
        if let Some(index) = self.made.iter().position(|(made, _)| made == mappings) {
            return Ok(index);
        }
        let failed = |source| SourceError::UserNamespace { path: PathBuf::from(&step.source), source };
        let namespace = match mappings {
            IdmapSource::Namespace(path) => path::open_host(path, path::READ).map_err(failed)?,
            IdmapSource::Mappings { uids, gids } => {
                namespace_with_mappings(&map_text(uids), &map_text(gids)).map_err(failed)?
            }
        };
        self.made.push((mappings.clone(), namespace));
        Ok(self.made.len() - 1)
    }
}

/// `SIGKILL`.
const KILL: i32 = 9;

/// A user namespace with these maps. It is kept by the descriptor alone: the process that it takes to make one is ended
/// before this returns.
fn namespace_with_mappings(uid_map: &str, gid_map: &str) -> Result<OwnedFd, SyscallError> {
    let options =
        CloneOptions { namespaces: namespace::NEW_USER, into_cgroup: None, parent: CloneParent::Caller };
    let child = match process::clone3(&options)? {
        Cloned::Parent(child) => child,
        Cloned::Child => {
            // Nobody else may end it, should we be killed.
            if process::set_parent_death_signal(KILL).is_ok() {
                let _ = process::poll_readable(&[], None);
            }
            process::exit_now(0)
        }
    };
    let made = (|| {
        // Not the mounted one, which may be of another pid namespace than the child's number.
        let procfs = ProcFs::private(Contents::Processes)?;
        let file = |name| PathBuf::from(format!("{}/{name}", child.pid));
        procfs.write(&file("uid_map"), uid_map.as_bytes())?;
        procfs.write(&file("gid_map"), gid_map.as_bytes())?;
        procfs.open_namespace(child.pid, "user")
    })();
    process::pidfd_send_signal(&child.pidfd, KILL)?;
    process::wait(&child.pidfd)?;
    made
}

/// Mappings as user_namespaces(7) writes them.
fn map_text(mappings: &[IdMapping]) -> String {
    mappings.iter().fold(String::new(), |text, mapping| {
        format!("{text}{} {} {}\n", mapping.container_id, mapping.host_id, mapping.size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_written_a_line_each() {
        let mappings = [
            IdMapping { container_id: 0, host_id: 100_000, size: 65536 },
            IdMapping { container_id: 70_000, host_id: 5, size: 1 },
        ];
        assert_eq!(map_text(&mappings), "0 100000 65536\n70000 5 1\n");
    }
}
