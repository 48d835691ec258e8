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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use proptest::prelude::*;

    const STATES: [TaskState; 5] =
        [TaskState::New, TaskState::Accepted, TaskState::Running, TaskState::Failed, TaskState::Orphaned];

    fn word(state: TaskState, message: &str) -> TaskStatus {
        TaskStatus { state, message: message.to_owned(), ..TaskStatus::default() }
    }

    #[test]
    fn the_same_word_again_is_no_news() {
        let mut observed = Observed::default();
        let task = TaskId::of(1);
        assert!(observed.note(task, word(TaskState::Accepted, "pulling")));
        assert!(!observed.note(task, word(TaskState::Accepted, "pulling")));
        assert!(observed.note(task, word(TaskState::Accepted, "pulled")));
        observed.forget(task);
        assert_eq!(observed.status(task), None);
    }

    #[test]
    fn the_log_wins_when_it_is_as_far_as_the_worker() {
        let service = fixture::replicated(1, 1);
        let task = fixture::task_on(fixture::task(1, &service, 1), &fixture::node(1), TaskState::Failed);
        let mut observed = Observed::default();
        observed.note(task.id, word(TaskState::Failed, "told"));
        let store = Store::default();
        assert_eq!(View::new(&store, &observed).status(&task).message, "");
        observed.note(task.id, word(TaskState::Orphaned, "told"));
        assert_eq!(View::new(&store, &observed).status(&task).message, "told");
    }

    proptest! {
        #[test]
        fn words_only_move_forward(words in prop::collection::vec((0..STATES.len(), 0..3_u8), 1..20)) {
            let task = TaskId::of(1);
            let mut observed = Observed::default();
            for (state, message) in words {
                let before = observed.status(task).cloned();
                let said = word(STATES[state], &message.to_string());
                let news = observed.note(task, said.clone());
                let after = observed.status(task).unwrap();
                prop_assert!(before.as_ref().is_none_or(|before| before.state <= after.state));
                prop_assert_eq!(news, before.as_ref() != Some(after));
                prop_assert!(!news || *after == said);
            }
        }
    }
}
