//! The forms in which tasks and words on them are kept on the disk.

use std::sync::Arc;

use ketch_cluster::objects::Task;
use ketch_cluster::objects::task::{TaskRuntime, TaskSpec};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::Told;
use serde::{Deserialize, Serialize};

/// A task, without what a stolen disk must not tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptTask {
    pub(super) task: Arc<Task>,
    pub(super) place: Place,
    pub(super) needs: Needs,
}

/// Whether the latest assignment holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Place {
    Assigned,
    Removed,
}

/// What is needed to make its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Needs {
    /// The task alone.
    Nothing,
    /// Secrets, configs or credentials of a registry, which only a manager can give again.
    Manager,
}

/// What a task had come to, with ages as they were at a moment of this node's wall clock. No other node's clock is ever
/// compared with it: it becomes an age again when the worker begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptWord {
    pub(super) told: Told,
    pub(super) at: Timestamp,
}

impl KeptTask {
    pub(super) fn new(task: &Arc<Task>, place: Place) -> Self {
        let needs = needs(&task.spec);
        Self { task: without_credentials(task), place, needs }
    }
}

fn needs(spec: &TaskSpec) -> Needs {
    let Some(container) = spec.container() else { return Needs::Nothing };
    if container.secrets.is_empty() && container.configs.is_empty() && container.registry_auth.is_none() {
        Needs::Nothing
    } else {
        Needs::Manager
    }
}

fn without_credentials(task: &Arc<Task>) -> Arc<Task> {
    let TaskRuntime::Container(container) = &task.spec.runtime else { return Arc::clone(task) };
    if container.registry_auth.is_none() {
        return Arc::clone(task);
    }
    let mut container = container.clone();
    container.registry_auth = None;
    let spec = TaskSpec { runtime: TaskRuntime::Container(container), ..TaskSpec::clone(&task.spec) };
    Arc::new(Task { spec: Arc::new(spec), ..Task::clone(task) })
}
