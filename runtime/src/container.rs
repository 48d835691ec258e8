//! A container: the library's front door, one method for each thing that can be done to it.
//!
//! Owns the order of the great steps (folder, cgroup, process) and their undoing. Status is worked out from the kernel
//! each time it is asked for. Called by `cli`; the steps themselves are `init`, `cgroup`, `rootfs` and `state`.

mod checkpoint;
mod create;
mod exec;
mod lifecycle;
mod resctrl;
mod restore;
mod status;

use std::path::{Path, PathBuf};

use ketch_sys::SyscallError;
use thiserror::Error;

use crate::bundle::BundleError;
use crate::cgroup::{Cgroup, CgroupError};
use crate::checkpoint::CriuError;
use crate::compat;
use crate::hooks::HookError;
use crate::host::HostError;
use crate::init::InitError;
use crate::plan::PlanError;
use crate::plan::cgroup::CgroupPlanError;
use crate::plan::criu::Obstacle;
use crate::resctrl::ResctrlError;
use crate::spec::{ContainerId, SpecError};
use crate::state::{State, StateDir, StateError, StateLock};

pub use create::{CreateOptions, NotifyFolder, Start};
pub use exec::{ExecOptions, Joinable, PausedExec};
pub use lifecycle::Deletion;
pub use resctrl::SchemaUpdate;
pub use status::{StateView, Status};

/// A container that is there.
#[derive(Debug)]
pub struct Container {
    dir: StateDir,
    state: State,
    /// Of the process that has just created it, up to its `start`.
    fresh: Option<Fresh>,
}

/// What the creator of a container knows: nobody else can have changed anything.
#[derive(Debug)]
struct Fresh {
    lock: StateLock,
    start: Start,
}

/// An entry of [`Container::list`]: a name, and the container or what is wrong with it.
pub type Listed = (String, Result<Container, ContainerError>);

/// Why something could not be done to a container.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// Its folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Its configuration.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// New limits.
    #[error(transparent)]
    Limits(#[from] CgroupPlanError),
    /// Its start.
    #[error("unable to start container process: error during container init")]
    Init(#[source] InitError),
    /// The init was killed because it took too much memory.
    #[error("unable to start container process: container init was OOM-killed (memory limit too low?)")]
    OutOfMemory,
    /// A process that was to join it.
    #[error("unable to start container process")]
    Exec(#[source] InitError),
    /// Its cgroup.
    #[error("{action}")]
    Cgroup {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: CgroupError,
    },
    /// Its groups in resctrl.
    #[error("{action}")]
    Resctrl {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: ResctrlError,
    },
    /// `update --l3-cache-schema` on a machine that can't.
    #[error("Intel RDT/CAT: l3 cache schema is not enabled")]
    NoCacheAllocation,
    /// `update --mem-bw-schema` on a machine that can't.
    #[error("Intel RDT/MBA: memory bandwidth schema is not enabled")]
    NoBandwidthAllocation,
    /// New schemata for a container without `linux.intelRdt`.
    #[error("updating a non-existent Intel RDT configuration is not supported")]
    NoIntelRdt,
    /// Its `create` has not ended.
    #[error("container is being created")]
    BeingCreated,
    /// It is stopped.
    #[error("{}", compat::NOT_RUNNING)]
    NotRunning,
    /// It is running.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// Its name.
        id: String,
        /// Its status.
        status: Status,
    },
    /// It is not paused.
    #[error("{}", compat::NOT_PAUSED)]
    NotPaused,
    /// `start` of a container that runs.
    #[error("{}", compat::START_RUNNING)]
    AlreadyRunning,
    /// `start` of a container that has stopped.
    #[error("{}", compat::START_STOPPED)]
    StartStopped,
    /// `start` in another status.
    #[error("cannot start a container in the {0} state")]
    StartIn(Status),
    /// `exec` in a stopped container.
    #[error("{}", compat::EXEC_IN_STOPPED)]
    ExecStopped,
    /// `exec` in a paused container.
    #[error("{}", compat::EXEC_IN_PAUSED)]
    ExecPaused,
    /// The init died before it was told to go on.
    #[error(
        "exec fifo is empty: container init did not signal execve readiness (process died before writing, or fifo already consumed)"
    )]
    FifoEmpty,
    /// A hook.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// `checkpoint` in a status without running processes.
    #[error("Container cannot be checkpointed in {0} state")]
    CheckpointIn(Status),
    /// `restore` of what criu, or this program, can't bring back.
    #[error("a container {0} can't be restored")]
    NotRestored(Obstacle),
    /// `checkpoint` of such a container, which would be gone for ever.
    #[error("a container {0} can't be restored, so it is not ended: --leave-running saves it all the same")]
    NotSaved(Obstacle),
    /// criu.
    #[error(transparent)]
    Criu(#[from] CriuError),
    /// A signal.
    #[error("{action}")]
    Signal {
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// A process of the container did not die.
    #[error("container init still running")]
    StillRunning,
}

impl Container {
    /// The container of this name.
    ///
    /// # Errors
    /// [`StateError::Missing`], or a damaged folder.
    pub fn load(root: &Path, id: &ContainerId) -> Result<Self, ContainerError> {
        let dir = StateDir::open(root, id.as_str())?;
        let state = dir.load()?;
        Ok(Self { dir, state, fresh: None })
    }

    /// All containers below `root`, in order of their names. A folder without a readable state (a create that was cut
    /// short) comes as its error, with its name.
    ///
    /// # Errors
    /// The root can't be read.
    pub fn list(root: &Path) -> Result<Vec<Listed>, ContainerError> {
        let load = |name: String| {
            let loaded = StateDir::open(root, &name)
                .and_then(|dir| dir.load().map(|state| Self { dir, state, fresh: None }))
                .map_err(ContainerError::from);
            (name, loaded)
        };
        Ok(StateDir::names(root)?.into_iter().map(load).collect())
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// What is remembered of it.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its bundle.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        PathBuf::from(self.state.config.bundle())
    }

    /// Its cgroup, whether it is still there or not.
    #[must_use]
    pub fn cgroup(&self) -> Cgroup {
        let paths = &self.state.cgroup_paths;
        match &self.state.config.cgroups {
            Some(unit) if unit.systemd => {
                Cgroup::open_unit(paths, (&unit.name, unit.instance()), unit.invocation.clone())
            }
            _ => Cgroup::open(paths),
        }
    }
}
