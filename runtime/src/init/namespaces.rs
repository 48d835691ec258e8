//! Opening and joining namespaces that exist already.
//!
//! Files are opened by the parent, in the host's mount namespace, and checked to be namespaces of the right kind;
//! the child joins by descriptor.

use std::os::fd::OwnedFd;
use std::path::Path;

use ketch_sys::namespace;
use ketch_sys::path;

use super::{InitError, step};
use crate::plan::namespaces::NamespacePlan;
use crate::procfs::ProcFs;
use crate::spec::NamespaceType;

/// A namespace to join.
#[derive(Debug)]
pub(super) struct OpenNamespace {
    pub(super) kind: NamespaceType,
    pub(super) fd: OwnedFd,
}

impl OpenNamespace {
    pub(super) fn open(kind: NamespaceType, file: &Path) -> Result<Self, InitError> {
        let shown = file.display().to_string();
        let fd = path::open_host(file, path::READ | path::NON_BLOCKING)
            .map_err(|error| InitError::NamespacePath { path: shown.clone(), error })?;
        let refused = |source| InitError::NotANamespace { path: shown, kind: kind.name(), source };
        match namespace::kind(&fd) {
            Ok(found) if found == flag(kind) => Ok(Self { kind, fd }),
            Ok(_) => Err(refused(None)),
            Err(error) => Err(refused(Some(error))),
        }
    }

    pub(super) fn join(&self) -> Result<(), InitError> {
        namespace::join(&self.fd, flag(self.kind))
            .map_err(|source| InitError::Join { kind: self.kind.name(), source })
    }
}

/// Opens all namespaces that the plan joins, in the order in which they are joined.
pub(super) fn open_all(plan: &NamespacePlan) -> Result<Vec<OpenNamespace>, InitError> {
    plan.join.iter().map(|join| OpenNamespace::open(join.kind, &join.path)).collect()
}

/// Makes the time namespace of this process's children, with its offsets: they can't be set once a process is inside.
pub(super) fn make_time_namespace(offsets: &str) -> Result<(), InitError> {
    namespace::unshare(namespace::NEW_TIME).map_err(step("creating the time namespace"))?;
    if offsets.is_empty() {
        return Ok(());
    }
    ProcFs::host()
        .and_then(|proc| proc.write_self("timens_offsets", offsets.as_bytes()))
        .map_err(step("failed to update /proc/self/timens_offsets"))
}

/// The `CLONE_NEW*` flag of a kind.
pub(super) fn flag(kind: NamespaceType) -> u64 {
    match kind {
        NamespaceType::Cgroup => namespace::NEW_CGROUP,
        NamespaceType::Ipc => namespace::NEW_IPC,
        NamespaceType::Mount => namespace::NEW_MOUNT,
        NamespaceType::Network => namespace::NEW_NET,
        NamespaceType::Pid => namespace::NEW_PID,
        NamespaceType::Time => namespace::NEW_TIME,
        NamespaceType::User => namespace::NEW_USER,
        NamespaceType::Uts => namespace::NEW_UTS,
    }
}
