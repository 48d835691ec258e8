//! What happens to a container between its creation and its end: start, signals, pause, limits, removal.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use ketch_sys::Errno;
use ketch_sys::process;

use super::resctrl::remove_groups;
use super::status::hook_state;
use super::{Container, ContainerError, Fresh, SchemaUpdate, Start, Status};
use crate::cgroup::stats::Stats;
use crate::cgroup::{Cgroup, CgroupError};
use crate::hooks;
use crate::host::HostFacts;
use crate::log;
use crate::plan::cgroup::systemd::SystemdRequest;
use crate::plan::cgroup::{self, CgroupMode, CgroupRequest, Devices, Driver, Privilege};
use crate::spec::{ContainerId, Hooks, NamespaceType, Resources};
use crate::state::{StateDir, StateError, StateLock};

const SIGKILL: i32 = 9;
/// How long `delete --force` waits for the end of a killed process.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How a container is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Only if its first process is gone, or has not started yet.
    Stopped,
    /// Whatever it does.
    Force,
}

impl Container {
    /// Lets a created container's program run, then runs its poststart hooks.
    ///
    /// # Errors
    /// It is in another status, its init died, or a hook failed (which kills it).
    pub fn start(&mut self) -> Result<(), ContainerError> {
        let lock = match self.fresh.take() {
            Some(Fresh { lock, start: Start::AtOnce }) => lock,
            Some(Fresh { lock, start: Start::WhenAsked }) => {
                self.open_fifo()?;
                lock
            }
            None => {
                let lock = self.locked()?;
                match self.status()? {
                    Status::Created => {}
                    Status::Running => return Err(ContainerError::AlreadyRunning),
                    Status::Stopped => return Err(ContainerError::StartStopped),
                    other => return Err(ContainerError::StartIn(other)),
                }
                self.open_fifo()?;
                lock
            }
        };
        // A poststart hook may ask for anything of the container but this lock.
        drop(lock);
        self.run_poststart()
    }

    /// Takes the lock, and what is true of the container now that it is held. A container that is still being created is
    /// refused at once: its `create` holds the lock, and may be waiting for the hook that asks.
    pub(super) fn locked(&mut self) -> Result<StateLock, ContainerError> {
        if self.state.init_process_pid == 0 {
            self.state = self.dir.load()?;
        }
        if self.state.init_process_pid == 0 {
            return Err(ContainerError::BeingCreated);
        }
        let lock = self.dir.lock()?;
        self.state = self.dir.load()?;
        Ok(lock)
    }

    /// Gives init the byte that it waits for. Without init there is no reader, and the open fails.
    fn open_fifo(&self) -> Result<(), ContainerError> {
        const O_NONBLOCK: i32 = 0o4000;
        let path = self.dir.fifo();
        let failed = |source| StateError::File { action: "writing", path: self.dir.fifo(), source };
        let opened = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&path);
        let mut fifo = match opened {
            Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENXIO) => {
                if self.init()?.is_none() {
                    return Err(ContainerError::FifoEmpty);
                }
                // A `start` that died between the byte and the name.
                fs::remove_file(&path).map_err(failed)?;
                return Err(ContainerError::AlreadyRunning);
            }
            other => other.map_err(failed)?,
        };
        fifo.write_all(b"0").map_err(failed)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error).into()),
            _ => Ok(()),
        }
    }

    fn run_poststart(&self) -> Result<(), ContainerError> {
        let list = self.hook_list(|hooks| &hooks.poststart);
        if list.is_empty() {
            return Ok(());
        }
        let state = hook_state(&self.state, "running", self.state.init_process_pid);
        keep_descriptors_from_hooks()?;
        hooks::run("poststart", list, &state, None).map_err(|error| {
            if let Err(also) = self.kill(SIGKILL) {
                log::warn(crate::error::chain(&also));
            }
            error.into()
        })
    }

    fn hook_list<'a>(
        &'a self,
        list: impl FnOnce(&'a Hooks) -> &'a Vec<crate::spec::Hook>,
    ) -> &'a [crate::spec::Hook] {
        self.state.config.hooks.as_ref().map_or(&[], |hooks| list(hooks))
    }

    /// Sends a signal to the first process. SIGKILL reaches every process of a container that shares its pid namespace
    /// with others, as none of them ends with the first one there.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`], or the kernel's refusal.
    pub fn kill(&self, signal: i32) -> Result<(), ContainerError> {
        if signal == SIGKILL && !self.has_own(NamespaceType::Pid) {
            return self.kill_all();
        }
        self.signal_init(signal)
    }

    fn signal_init(&self, signal: i32) -> Result<(), ContainerError> {
        let init = self.init()?.ok_or(ContainerError::NotRunning)?;
        match process::pidfd_send_signal(&init, signal) {
            Err(error) if error.errno == Errno::ESRCH => return Err(ContainerError::NotRunning),
            other => {
                other.map_err(|source| ContainerError::Signal { action: "unable to signal init", source })?
            }
        }
        if signal == SIGKILL {
            self.thaw_for_kill();
        }
        Ok(())
    }

    /// Kills what does not end with the first process: without a pid namespace of its own, nothing does.
    ///
    /// # Errors
    /// [`ContainerError::NotRunning`], or the kernel's refusal.
    pub fn kill_rest(&self) -> Result<(), ContainerError> {
        if self.has_own(NamespaceType::Pid) { Ok(()) } else { self.kill_all() }
    }

    /// Lets others at a container that this process has made and will not start.
    pub fn release(&mut self) {
        self.fresh = None;
    }

    /// On v1 a killed process of a frozen cgroup dies only once it is thawed.
    fn thaw_for_kill(&self) {
        let cgroup = self.cgroup();
        if cgroup.mode() != CgroupMode::Unified
            && let Err(error) = cgroup.exists().and_then(|there| if there { cgroup.thaw() } else { Ok(()) })
        {
            log::warn(crate::error::chain(&error));
        }
    }

    fn kill_all(&self) -> Result<(), ContainerError> {
        let cgroup = self.cgroup();
        if !exists(&cgroup)? && self.init()?.is_none() {
            return Err(ContainerError::NotRunning);
        }
        match cgroup.kill_all() {
            Err(error) if self.state.config.privilege() == Privilege::Rootless => {
                log::warn(format!(
                    "failed to kill all processes, possibly due to lack of cgroup (Hint: enable cgroup v2 delegation): {}",
                    crate::error::chain(&error)
                ));
                self.signal_init(SIGKILL)
            }
            result => result
                .map_err(|source| ContainerError::Cgroup { action: "unable to kill all processes", source }),
        }
    }

    /// Whether the container has a namespace of this kind made for it.
    fn has_own(&self, kind: NamespaceType) -> bool {
        let mut namespaces = self.state.config.namespaces.iter();
        namespaces
            .any(|namespace| namespace.namespace_type() == Some(kind) && namespace.join_path().is_none())
    }

    /// Freezes every process.
    ///
    /// # Errors
    /// It is neither running nor created, or the kernel refuses.
    pub fn pause(&mut self) -> Result<(), ContainerError> {
        let _lock = self.locked()?;
        match self.status()? {
            Status::Running | Status::Created => {}
            _ => return Err(ContainerError::NotRunning),
        }
        self.cgroup().freeze().map_err(|source| ContainerError::Cgroup { action: "unable to freeze", source })
    }

    /// Thaws every process.
    ///
    /// # Errors
    /// It is not paused, or the kernel refuses.
    pub fn resume(&mut self) -> Result<(), ContainerError> {
        let _lock = self.locked()?;
        if self.status()? != Status::Paused {
            return Err(ContainerError::NotPaused);
        }
        self.cgroup().thaw().map_err(|source| ContainerError::Cgroup { action: "unable to thaw", source })
    }

    /// Puts new limits in force and remembers them. `change` makes them of those that are in force.
    ///
    /// # Errors
    /// It is stopped, or a limit can't be set; the old ones are in force again then, as far as they can be.
    pub fn update(
        &mut self,
        schemas: SchemaUpdate<'_>,
        change: impl FnOnce(&mut Resources),
    ) -> Result<(), ContainerError> {
        let _lock = self.locked()?;
        let rdt = self.updated_rdt(schemas)?;
        if self.status()? == Status::Stopped {
            return Err(ContainerError::NotRunning);
        }
        let old = self.state.config.resources.clone().unwrap_or_default();
        let mut resources = old.clone();
        change(&mut resources);
        self.set_limits(resources)?;
        let Some(rdt) = rdt else { return Ok(()) };
        self.set_rdt(rdt).inspect_err(|_| {
            if let Err(also) = self.set_limits(old) {
                log::warn(crate::error::chain(&also));
            }
        })
    }

    fn set_limits(&mut self, resources: Resources) -> Result<(), ContainerError> {
        let cgroup = self.cgroup();
        let HostFacts { cgroups, user_namespace, .. } = HostFacts::probe()?;
        let mode = cgroups.mode;
        let facts = cgroup.systemd_facts();
        let facts = facts.map_err(|source| ContainerError::Cgroup { action: "", source })?;
        let no_annotations = BTreeMap::new();
        let limits_of = |resources: &Resources| {
            let request = CgroupRequest {
                id: &self.state.id,
                cgroups_path: None,
                resources,
                devices: Devices::Untouched,
                privilege: self.state.config.privilege(),
                user_namespace,
                driver: match &facts {
                    None => Driver::Cgroupfs,
                    Some(facts) => {
                        Driver::Systemd(SystemdRequest { facts, annotations: &no_annotations, owner: None })
                    }
                },
            };
            cgroup::limits(&request, mode)
        };
        let limits = limits_of(&resources)?;
        limits.warnings.iter().for_each(log::warn);
        if let Err(source) = cgroup.set(&limits) {
            let old = self.state.config.resources.clone().unwrap_or_default();
            if let Err(error) = limits_of(&old).map_err(ContainerError::from).and_then(|limits| {
                cgroup
                    .set(&limits)
                    .map_err(|source| ContainerError::Cgroup { action: "setting back cgroup limits", source })
            }) {
                log::warn(format!(
                    "{}; your state.json and actual configs might be inconsistent",
                    crate::error::chain(&error)
                ));
            }
            return Err(ContainerError::Cgroup { action: "", source });
        }
        self.state.config.resources = Some(resources);
        Ok(self.dir.store(&self.state)?)
    }

    /// The numbers of its processes, as this process sees them.
    ///
    /// # Errors
    /// The cgroup can't be read.
    pub fn processes(&self) -> Result<Vec<i32>, ContainerError> {
        let cgroup = self.cgroup();
        if !exists(&cgroup)? && self.init()?.is_none() {
            return Ok(Vec::new());
        }
        cgroup
            .pids()
            .map_err(|source| ContainerError::Cgroup { action: "unable to get all container pids", source })
    }

    /// What it uses.
    ///
    /// # Errors
    /// The cgroup or resctrl can't be read.
    pub fn stats(&self) -> Result<Stats, ContainerError> {
        let mut stats = self.cgroup().stats().map_err(|source| ContainerError::Cgroup {
            action: "unable to get container cgroup stats",
            source,
        })?;
        let group = self.resctrl().and_then(|group| group.map(|group| group.stats()).transpose());
        stats.intel_rdt = group
            .map_err(|source| ContainerError::Resctrl {
                action: "unable to get container Intel RDT stats",
                source,
            })?
            .unwrap_or_default();
        Ok(stats)
    }

    /// Removes the container: processes, cgroup, folder, then its poststop hooks run. Whatever a killed `create` has
    /// left is removed as well.
    ///
    /// # Errors
    /// It runs (without [`Deletion::Force`]), or something of it can't be removed.
    pub fn delete(root: &Path, id: &ContainerId, deletion: Deletion) -> Result<(), ContainerError> {
        let dir = StateDir::open(root, id.as_str())?;
        let state = match dir.load() {
            Ok(state) => state,
            // Cut short before anything but the folder was made.
            Err(StateError::Missing) => {
                let _lock = dir.lock()?;
                return match dir.load() {
                    Err(StateError::Missing) => Ok(dir.remove()?),
                    _ => Self::delete(root, id, deletion),
                };
            }
            Err(damaged @ StateError::Damaged { .. }) if deletion == Deletion::Force => {
                log::warn(crate::error::chain(&damaged));
                let _lock = dir.lock()?;
                return Ok(dir.remove()?);
            }
            Err(other) => return Err(other.into()),
        };
        let container = Self { dir, state, fresh: None };
        if deletion == Deletion::Force {
            // Before anything is asked of it: a freezer that is stuck must not keep the signal from being sent.
            container.end_processes()?;
        } else {
            match container.status()? {
                Status::Stopped => {}
                // A created container waits for a `start` that will not come.
                Status::Created => container.end_processes()?,
                status => return Err(ContainerError::NotStopped { id: container.state.id, status }),
            }
        }
        match container.destroy(deletion)? {
            Destroyed::This => Ok(()),
            // Its creation ended while this command waited for the lock.
            Destroyed::Nothing => match Self::delete(root, id, deletion) {
                Err(ContainerError::State(StateError::Missing)) => Ok(()),
                other => other,
            },
        }
    }

    /// Removes a container that this process has made, whatever it does: [`Container::delete`] by force, but for looking it up.
    ///
    /// # Errors
    /// Something of it can't be removed.
    pub fn remove(&mut self) -> Result<(), ContainerError> {
        self.release();
        self.end_processes()?;
        self.destroy(Deletion::Force).map(|_whoever_removed_it| ())
    }

    /// Kills the container and waits for the end of its first process.
    fn end_processes(&self) -> Result<(), ContainerError> {
        let Some(init) = self.init()? else {
            if self.state.init_process_pid == 0 {
                // A creation: its number is not known yet, but its cgroup is.
                let _none_there = self.cgroup().kill_all();
            }
            return Ok(());
        };
        match self.kill(SIGKILL) {
            Ok(()) | Err(ContainerError::NotRunning) => {}
            Err(error) => return Err(error),
        }
        let ended = process::poll_readable(&[init.as_fd()], Some(KILL_DEADLINE)).map_err(|source| {
            ContainerError::Signal { action: "waiting for the container's init", source }
        })?;
        if ended.first() == Some(&true) { Ok(()) } else { Err(ContainerError::StillRunning) }
    }

    /// Removes what is left of a container whose first process is gone.
    fn destroy(&self, deletion: Deletion) -> Result<Destroyed, ContainerError> {
        let lock = match self.dir.lock() {
            // Removed by another delete, which runs the hooks.
            Err(StateError::Missing) => return Ok(Destroyed::This),
            other => other?,
        };
        match self.dir.load() {
            Ok(now) if now.init_process_pid == 0 || now.is_same_container(&self.state) => {}
            // Created while this command waited: it runs, or it is another one of this name.
            Ok(_) if self.state.init_process_pid == 0 && deletion == Deletion::Force => {
                return Ok(Destroyed::Nothing);
            }
            Ok(_) => return Ok(Destroyed::This),
            Err(StateError::Missing) => return Ok(Destroyed::This),
            Err(other) => return Err(other.into()),
        }
        let cgroup = self.cgroup();
        if !cgroup.is_of_another() {
            if !self.has_own(NamespaceType::Pid) || self.state.init_process_pid == 0 {
                // Processes may have outlived the first one.
                let _told_by_delete = cgroup.kill_all();
            }
            cgroup.delete().map_err(|source| ContainerError::Cgroup {
                action: "unable to remove container's cgroup",
                source,
            })?;
        }
        remove_groups(&self.state)?;
        self.dir.remove()?;
        drop(lock);
        let list = self.hook_list(|hooks| &hooks.poststop);
        let state = hook_state(&self.state, "stopped", 0);
        if !list.is_empty() {
            keep_descriptors_from_hooks()?;
        }
        hooks::run("poststop", list, &state, None)?;
        Ok(Destroyed::This)
    }
}

/// What this command's caller left open is not for hooks, which may outlive both.
fn keep_descriptors_from_hooks() -> Result<(), ContainerError> {
    process::close_on_exec_from(3)
        .map_err(|source| ContainerError::Signal { action: "closing descriptors", source })
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destroyed {
    /// The container that was asked for is gone.
    This,
    /// Nothing was touched: the container became another one in between.
    Nothing,
}

fn exists(cgroup: &Cgroup) -> Result<bool, ContainerError> {
    cgroup
        .exists()
        .map_err(|source| ContainerError::Cgroup { action: "looking for the container's cgroup", source })
}

/// Whether the cgroup is frozen; one that is gone is not.
pub(super) fn frozen(cgroup: &Cgroup) -> Result<bool, ContainerError> {
    if !exists(cgroup)? {
        return Ok(false);
    }
    cgroup
        .is_frozen()
        .map_err(|source: CgroupError| ContainerError::Cgroup { action: "reading the freezer", source })
}
