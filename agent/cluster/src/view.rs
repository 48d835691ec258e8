//! What a reconciler sees: the committed store, joined with what workers have told the leader since.
//!
//! Task states before the end never enter the log (DESIGN.md section 7): the leader holds them in [`Observed`], and a new
//! leader has none until the workers have registered with it. A reconciler asks for a task's status here, not in the task.
//!
//! A worker's clock enters nowhere: it tells ages ([`Told`]), and they become moments of the leader here. So all moments that
//! reconcilers compare are the leader's, and a new leader has them right as soon as it has been told.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::objects::PortConfig;
use crate::objects::task::ContainerStatus;
use crate::objects::{Task, TaskState, TaskStatus};
use crate::store::Store;
use crate::time::Timestamp;

/// A worker's word on a task: its status, with ages by the worker's own monotonic clock instead of moments.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    pub state: TaskState,
    /// How long it has been in that state.
    pub state_for: Duration,
    /// How long ago it came to run (healthy, if it has a health check), also after its end; none if it never ran.
    pub running_for: Option<Duration>,
    pub message: String,
    pub error: String,
    pub container: Option<ContainerStatus>,
    pub ports: Vec<PortConfig>,
}

impl Told {
    /// As a status of this leader. What is known already stays: a word that is told again moves no moment.
    fn status(self, known: Option<&TaskStatus>, now: Timestamp) -> TaskStatus {
        let same = known.filter(|known| known.state == self.state);
        let ran = known.and_then(|known| known.running_since);
        TaskStatus {
            state: self.state,
            since: same.map_or_else(|| now.before(self.state_for), |known| known.since),
            running_since: ran.or_else(|| self.running_for.map(|age| now.before(age))),
            message: self.message.into(),
            error: self.error.into(),
            container: self.container,
            ports: self.ports,
        }
    }
}

/// The latest word of the workers on their tasks, in this leader's time. An end is committed as it is here.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    tasks: BTreeMap<TaskId, TaskStatus>,
}

impl Observed {
    /// Takes a worker's word, heard at `now`; false when it is older than the last one (states only move forward) or says
    /// nothing new.
    pub fn note(&mut self, task: TaskId, told: Told, now: Timestamp) -> bool {
        let known = self.tasks.get(&task);
        if known.is_some_and(|known| known.state > told.state) {
            return false;
        }
        let status = told.status(known, now);
        let is_news = known != Some(&status);
        if is_news {
            self.tasks.insert(task, status);
        }
        is_news
    }

    /// Of a task that is no more.
    pub fn forget(&mut self, task: TaskId) {
        self.tasks.remove(&task);
    }

    /// Forgets all but these.
    pub fn retain(&mut self, mut kept: impl FnMut(TaskId) -> bool) {
        self.tasks.retain(|task, _| kept(*task));
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

    /// What workers have told, without the store.
    #[must_use]
    pub fn observed(&self) -> &'a Observed {
        self.observed
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

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn word(state: TaskState, message: &str) -> Told {
        Told { state, message: message.to_owned(), ..Told::default() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A word on a task that has been in that state, and has run, for so many seconds.
    fn aged(state: TaskState, state_for: u64, running_for: u64) -> Told {
        Told {
            state_for: seconds(state_for),
            running_for: Some(seconds(running_for)),
            ..word(state, &state_for.to_string())
        }
    }

    #[test]
    fn ages_become_the_leaders_moments_and_a_word_told_again_moves_none() {
        let task = TaskId::of(1);
        let mut observed = Observed::default();
        assert!(observed.note(task, aged(TaskState::Running, 3, 3), NOW));
        assert!(
            observed.note(task, aged(TaskState::Running, 60, 50), NOW.after(seconds(1))),
            "another message"
        );
        let status = observed.status(task).unwrap();
        assert_eq!(
            (status.since, status.running_since),
            (NOW.before(seconds(3)), Some(NOW.before(seconds(3))))
        );
        let end = NOW.after(seconds(9));
        assert!(observed.note(task, aged(TaskState::Failed, 1, 12), end));
        let status = observed.status(task).unwrap();
        assert_eq!(status.since, end.before(seconds(1)));
        assert_eq!(status.running_since, Some(NOW.before(seconds(3))));
    }

    #[test]
    fn what_is_not_retained_is_forgotten() {
        let mut observed = Observed::default();
        for number in 1..=3 {
            observed.note(TaskId::of(number), word(TaskState::Running, ""), NOW);
        }
        observed.retain(|task| task == TaskId::of(2));
        let known = [1, 2, 3].map(|number| observed.status(TaskId::of(number)).is_some());
        assert_eq!(known, [false, true, false]);
    }

    #[test]
    fn the_next_leader_is_right_at_once_by_its_own_clock() {
        for now in [NOW, NOW.after(seconds(3600)), NOW.before(seconds(900))] {
            let mut observed = Observed::default();
            observed.note(TaskId::of(1), aged(TaskState::Complete, 7, 30), now);
            let status = observed.status(TaskId::of(1)).unwrap();
            assert_eq!(now.since(status.since), seconds(7));
            assert_eq!(status.running_since, Some(now.before(seconds(30))));
        }
    }

    #[test]
    fn the_same_word_again_is_no_news() {
        let mut observed = Observed::default();
        let task = TaskId::of(1);
        assert!(observed.note(task, word(TaskState::Accepted, "pulling"), NOW));
        assert!(!observed.note(task, word(TaskState::Accepted, "pulling"), NOW));
        assert!(observed.note(task, word(TaskState::Accepted, "pulled"), NOW));
        observed.forget(task);
        assert_eq!(observed.status(task), None);
    }

    #[test]
    fn the_log_wins_when_it_is_as_far_as_the_worker() {
        let service = fixture::replicated(1, 1);
        let task = fixture::task_on(fixture::task(1, &service, 1), &fixture::node(1), TaskState::Failed);
        let mut observed = Observed::default();
        observed.note(task.id, word(TaskState::Failed, "told"), NOW);
        let store = Store::default();
        assert_eq!(&*View::new(&store, &observed).status(&task).message, "");
        observed.note(task.id, word(TaskState::Orphaned, "told"), NOW);
        assert_eq!(&*View::new(&store, &observed).status(&task).message, "told");
    }

    proptest! {
        #[test]
        fn words_only_move_forward(words in prop::collection::vec((0..STATES.len(), 0..3_u8), 1..20)) {
            let task = TaskId::of(1);
            let mut observed = Observed::default();
            for (index, (state, message)) in words.into_iter().enumerate() {
                let before = observed.status(task).cloned();
                let said = word(STATES[state], &message.to_string());
                let news = observed.note(task, said.clone(), Timestamp(index as u64));
                let after = observed.status(task).unwrap();
                prop_assert!(before.as_ref().is_none_or(|before| before.state <= after.state));
                prop_assert_eq!(news, before.as_ref() != Some(after));
                prop_assert!(!news || (after.state, &*after.message) == (said.state, said.message.as_str()));
            }
        }
    }
}
