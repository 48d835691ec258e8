//! `restore`: from a bundle and a folder of images to a running container.
//!
//! As `create` in all but the process: that is criu's to make, in the container's cgroup.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use ketch_sys::process::Child;

use super::create::{CreateOptions, make_cgroup, note_process, run_runtime_hooks, stream_targets};
use super::{Container, ContainerError};
use crate::cgroup::Cgroup;
use crate::cgroup::systemd::Manager;
use crate::checkpoint::{self, Restoration, RestoreRequest, RestoreSteps};
use crate::init::{ProcessIo, Started};
use crate::log;
use crate::plan::Plan;
use crate::plan::criu::CriuOptions;
use crate::spec::{Namespace, NamespaceType};
use crate::state::{State, StateDir, StateError};

/// The place of the root while criu works; below the container's folder.
const PLACE: &str = "criu-root";

impl Container {
    /// Brings a container back; it runs when this returns. On an error nothing of it is left.
    ///
    /// # Errors
    /// The step that failed.
    pub fn restore(
        options: CreateOptions<'_>,
        request: &RestoreRequest,
    ) -> Result<(Self, Started), ContainerError> {
        let made = Self::make(options, |plan, (dir, state), (manager, io)| {
            build(plan, (dir, state), (manager, io), request)
        });
        made.map(|(mut container, started)| {
            // It runs already: nothing is left to be done under the lock.
            container.release();
            (container, started)
        })
    }
}

/// The cgroup and the processes. The cgroup goes again if they are not restored.
fn build(
    plan: &Plan,
    (dir, state): (&StateDir, State),
    (manager, io): (Option<Manager>, ProcessIo),
    request: &RestoreRequest,
) -> Result<(State, Started), ContainerError> {
    if let Some(obstacle) = state.config.obstacle_to_restore() {
        return Err(ContainerError::NotRestored(obstacle));
    }
    if let Some(seccomp) = &plan.seccomp {
        let bytes = serde_json::to_vec(seccomp).unwrap_or_default();
        dir.store_filter(&bytes)?;
    }
    let place = dir.path().join(PLACE);
    let failed = |action| {
        let path: PathBuf = place.clone();
        move |source| StateError::File { action, path, source }
    };
    DirBuilder::new().mode(0o755).create(&place).map_err(failed("creating"))?;
    let mut cgroup = make_cgroup(plan, manager)?;
    let state = State { external_descriptors: stream_targets(&io, plan.process.terminal.is_some()), ..state };
    let restoration = Restoration {
        plan,
        cgroup: &mut cgroup,
        place: &place,
        config_file: CriuOptions::config_file(state.config.annotations()),
        io,
    };
    let mut steps = Steps { plan, dir, state };
    match checkpoint::restore(request, restoration, &mut steps) {
        Ok(started) => {
            // It was mounted on in criu's mount namespace alone. The container runs, and every command knows it: that
            // the place stays, up to its `delete`, is told, but no failure.
            if let Err(error) = fs::remove_dir(&place).map_err(failed("removing")) {
                log::warn(crate::error::chain(&error));
            }
            Ok((steps.state, started))
        }
        Err(error) => {
            // criu ends what it has made; and whatever it has not, as well as what a hook has left, is in here.
            let _told_by_delete = cgroup.kill_all();
            if let Err(leftover) = cgroup.delete() {
                log::warn(crate::error::chain(&leftover));
            }
            Err(error.into())
        }
    }
}

/// What is done on the way.
struct Steps<'a> {
    plan: &'a Plan,
    dir: &'a StateDir,
    state: State,
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl RestoreSteps for Steps<'_> {
    fn namespaces_made(&mut self, pid: i32) -> Outcome {
        run_runtime_hooks(self.plan, &self.state, pid)
    }

    fn restored(&mut self, child: &Child, cgroup: &Cgroup) -> Outcome {
        note_process(&mut self.state, child.pid, cgroup)?;
        note_time_namespace(&mut self.state);
        Ok(self.dir.store(&self.state)?)
    }
}

/// criu restores processes into a time namespace, as their clocks must go on where they were. The container may not have
/// asked for one, yet `exec` has to join it.
fn note_time_namespace(state: &mut State) {
    let has = |namespace: &Namespace| namespace.namespace_type() == Some(NamespaceType::Time);
    if state.config.namespaces.iter().any(has) {
        return;
    }
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/time")).ok();
    if of(&state.init_process_pid.to_string()) != of("self") {
        let kind = NamespaceType::Time.name().to_owned();
        state.config.namespaces.push(Namespace { kind, path: String::new() });
    }
}
