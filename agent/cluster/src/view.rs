//! What a reconciler sees: the committed store, joined with what workers have told the leader since.
//!
//! Task states before the end never enter the log (DESIGN.md section 7): the leader holds them in [`Observed`], and a new
//! leader has none until the workers have registered with it. A reconciler asks for a task's status here, not in the task.

use std::collections::BTreeMap;
use std::ops::Deref;

use crate::id::TaskId;
use crate::objects::{Task, TaskState, TaskStatus};
use crate::store::Store;

/// The latest word of the workers on their tasks.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    tasks: BTreeMap<TaskId, TaskStatus>,
}

impl Observed {
    /// Takes a worker's word; false when it is older than the last one: states only move forward.
    pub fn note(&mut self, task: TaskId, status: TaskStatus) -> bool {
        match self.tasks.get(&task) {
            Some(known) if known.state > status.state || *known == status => false,
            _ => {
                self.tasks.insert(task, status);
                true
            }
        }
    }

    /// Of a task that is no more.
    pub fn forget(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }

    #[must_use]
    pub fn status(&self, task: TaskId) -> Option<&TaskStatus> {
        self.tasks.get(&task)
    }
}

/// The store of one moment with the statuses of that moment. All that the store can be asked can be asked here.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    store: &'a Store,
    observed: &'a Observed,
}

impl<'a> View<'a> {
    #[must_use]
    pub fn new(store: &'a Store, observed: &'a Observed) -> Self {
        Self { store, observed }
    }

    /// A task's status: the worker's word, unless the log is further.
    #[must_use]
    pub fn status<'t>(&self, task: &'t Task) -> &'t TaskStatus
    where
        'a: 't,
    {
        match self.observed.status(task.id) {
            Some(told) if told.state > task.status.state => told,
            _ => &task.status,
        }
    }

    /// A task's state.
    #[must_use]
    pub fn state(&self, task: &Task) -> TaskState {
        self.status(task).state
    }
}

/// Whatever the committed store can be asked.
impl<'a> Deref for View<'a> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store
    }
}
