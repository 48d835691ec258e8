//! `exec`: another process in a container.

use std::fs;
use std::os::fd::OwnedFd;

use super::lifecycle::frozen;
use super::status::hook_state;
use super::{Container, ContainerError};
use crate::cgroup::{ExecJoin, SubCgroups};
use crate::init::exec::{self, Adoption, CgroupFallback, Target};
use crate::init::{InitError, ProcessIo, Started};
use crate::log;
use crate::plan::cgroup::Privilege;
use crate::plan::landlock::LandlockPlan;
use crate::plan::process::{Planned, ProcessPlan};
use crate::plan::{ExecPlan, FilterPlan, PlanError};
use crate::spec::{self, Process};

/// What is done about a paused container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PausedExec {
    /// `exec` fails.
    Refuse,
    /// The process starts, and runs when the container is resumed.
    Allow,
}

/// A process to add.
#[derive(Debug)]
pub struct ExecOptions {
    /// The process, as the command line or the file has it.
    pub process: Process,
    /// Streams and descriptors.
    pub io: ProcessIo,
    /// `--cgroup`.
    pub cgroups: SubCgroups,
}

/// A container that a process can be added to, and a handle on its first process, by which it is found again.
#[derive(Debug)]
pub struct Joinable<'a> {
    container: &'a Container,
    init: OwnedFd,
}

impl Container {
    /// Looks whether a process can be added.
    ///
    /// # Errors
    /// The container is stopped or paused.
    pub fn joinable(&self, paused: PausedExec) -> Result<Joinable<'_>, ContainerError> {
        let init = self.init()?.ok_or(ContainerError::ExecStopped)?;
        if paused == PausedExec::Refuse && frozen(&self.cgroup())? {
            return Err(ContainerError::ExecPaused);
        }
        Ok(Joinable { container: self, init })
    }
}

impl Joinable<'_> {
    /// Adds a process to the container; returns once it is its program.
    ///
    /// # Errors
    /// The process can't be started.
    pub fn exec(self, options: ExecOptions) -> Result<Started, ContainerError> {
        let Self { container, init } = self;
        spec::validate_process(&options.process)?;
        let plan = container.plan_exec(options.process)?;
        let cgroup = container.cgroup();
        let state = &container.state;
        let cgroup_of_init = || fs::read_to_string(format!("/proc/{}/cgroup", state.init_process_pid));
        let privilege = state.config.privilege();
        let join = match cgroup.exec_join(&options.cgroups, || cgroup_of_init().ok()) {
            Err(_) if privilege == Privilege::Rootless && options.cgroups.is_empty() => ExecJoin::none(),
            join => join.map_err(|source| ContainerError::Cgroup { action: "can't open cgroup", source })?,
        };
        // On a unified host init's own cgroup, as runc does. On a hybrid one v1 has all the controllers, and the process
        // does without the cgroup2 beside them. An explicit sub-cgroup has no substitute, but where systemd made it, it
        // can move the process there.
        let fallback: CgroupFallback<'_> = Box::new(|| {
            if !options.cgroups.is_empty() {
                return Ok(None);
            }
            let text = cgroup_of_init().map_err(|error| InitError::Caller(error.into()))?;
            match cgroup.init_dir(&text).transpose() {
                Err(_) if privilege == Privilege::Rootless => Ok(None),
                dir => Ok(dir?),
            }
        });
        let adoption: Option<Adoption<'_>> = if cgroup.can_adopt() {
            Some(Box::new(|pid| Ok(cgroup.adopt(&options.cgroups, pid)?)))
        } else {
            None
        };
        let target = Target {
            init,
            into_cgroup: join.clone_into,
            fallback: (options.cgroups.is_empty() || adoption.is_some()).then_some(fallback),
            adoption,
            cgroups: privilege,
            cgroup_files: join.files,
            resctrl: container.resctrl().map_err(|error| ContainerError::Exec(error.into()))?,
            state: hook_state(state, "running", state.init_process_pid),
        };
        exec::start(&plan, target, options.io).map_err(ContainerError::Exec)
    }
}

impl Container {
    /// The process with what the container's configuration gives every process.
    fn plan_exec(&self, process: Process) -> Result<ExecPlan, ContainerError> {
        let config = &self.state.config;
        let process = with_defaults(process, config.process.as_ref());
        let Planned { process, warnings } = ProcessPlan::plan(&process)?;
        let process = process.for_caller(config.caller())?;
        warnings.iter().for_each(log::warn);
        let linux = spec::Linux {
            personality: config.personality.clone(),
            memory_policy: config.memory_policy.clone(),
            ..spec::Linux::default()
        };
        Ok(ExecPlan {
            process: ProcessPlan {
                landlock: LandlockPlan::of(&config.annotations()).map_err(PlanError::from)?,
                ..process.with_container(&linux)?
            },
            caller: config.caller(),
            namespaces: config.namespaces.iter().filter_map(spec::Namespace::namespace_type).collect(),
            keyring: (!config.no_new_keyring).then(|| self.state.id.clone()),
            seccomp: self.filter()?,
        })
    }

    fn filter(&self) -> Result<Option<FilterPlan>, ContainerError> {
        let Some(bytes) = self.dir.load_filter()? else { return Ok(None) };
        let filter = serde_json::from_slice(&bytes).map_err(|source| crate::state::StateError::Damaged {
            path: self.dir().join("seccomp.json"),
            source,
        })?;
        Ok(Some(filter))
    }
}

/// The process's own settings go before the container's.
fn with_defaults(mut process: Process, container: Option<&Process>) -> Process {
    let Some(container) = container else { return process };
    if process.capabilities.is_none() {
        process.capabilities.clone_from(&container.capabilities);
    }
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&container.rlimits);
    }
    if process.apparmor_profile.is_empty() {
        process.apparmor_profile.clone_from(&container.apparmor_profile);
    }
    if process.selinux_label.is_empty() {
        process.selinux_label.clone_from(&container.selinux_label);
    }
    if process.oom_score_adj.is_none() {
        process.oom_score_adj = container.oom_score_adj;
    }
    if process.scheduler.is_none() {
        process.scheduler.clone_from(&container.scheduler);
    }
    if process.io_priority.is_none() {
        process.io_priority.clone_from(&container.io_priority);
    }
    if process.exec_cpu_affinity.is_none() {
        process.exec_cpu_affinity.clone_from(&container.exec_cpu_affinity);
    }
    if process.user.umask.is_none() {
        process.user.umask = container.user.umask;
    }
    process
}
