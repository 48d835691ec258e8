//! `checkpoint`: a container's processes are saved, and the container goes unless it is to run on.

use std::path::Path;

use super::lifecycle::Deletion;
use super::{Container, ContainerError, Status};
use crate::checkpoint::{self, CheckpointRequest, Extent, Subject};
use crate::log;
use crate::plan::criu::{CriuOptions, Final};
use crate::spec::ContainerId;

impl Container {
    /// Saves the container. Without [`Final::Running`] it is removed then, its poststop hooks included; when it can't be
    /// saved, it runs on.
    ///
    /// # Errors
    /// It has no running processes, it would be gone for ever, or criu's refusal.
    pub fn checkpoint(
        root: &Path,
        id: &ContainerId,
        request: &CheckpointRequest,
    ) -> Result<(), ContainerError> {
        let mut container = Self::load(root, id)?;
        let lock = container.locked()?;
        match container.status()? {
            Status::Running | Status::Paused => {}
            other => return Err(ContainerError::CheckpointIn(other)),
        }
        let state = &container.state;
        let ends = request.extent == Extent::Whole && request.processes == Final::Killed;
        match state.config.obstacle_to_restore() {
            Some(obstacle) if ends => return Err(ContainerError::NotSaved(obstacle)),
            // What is saved may be wanted for a look at it alone.
            Some(obstacle) => log::warn(ContainerError::NotRestored(obstacle)),
            None => {}
        }
        let cgroup = container.cgroup();
        checkpoint::checkpoint(
            request,
            &Subject {
                pid: state.init_process_pid,
                rootfs: &state.config.rootfs,
                mounts: &state.config.foreign_mounts,
                namespaces: &state.config.namespaces,
                freezer: cgroup.path("freezer"),
                config_file: CriuOptions::config_file(state.config.annotations()),
                notify: container.dir.has_notify_folder(),
                descriptors: &state.external_descriptors,
            },
        )?;
        drop(lock);
        if ends {
            // It is saved; that its remains stay is told, but no failure.
            if let Err(error) = Self::delete(root, id, Deletion::Stopped) {
                log::warn(crate::error::chain(&error));
            }
        }
        Ok(())
    }
}
