//! What a task has come to here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::objects::task::ContainerStatus;
use ketch_cluster::objects::{PortConfig, Task, TaskState};
use ketch_cluster::time::Timestamp;
use ketch_cluster::view::Told;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::kept::KeptWord;
use super::moment::Moment;

/// How often it is looked whether ends are committed, while a node leaves.
const LOOK: Duration = Duration::from_millis(50);

/// A task's status, with moments of this node.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) state: TaskState,
    since: Moment,
    ran: Option<Moment>,
    message: String,
    pub(super) error: String,
    pub(super) container: Option<ContainerStatus>,
    pub(super) ports: Vec<PortConfig>,
}

impl Word {
    /// Of a task that is new here: what the log says of it, if it says that it has ended.
    pub(super) fn first(task: &Task) -> Self {
        let status = &task.status;
        let state = if status.state.is_terminal() { status.state } else { TaskState::Assigned };
        Self {
            state,
            since: Moment::now(),
            ran: None,
            message: status.message.to_string(),
            error: status.error.to_string(),
            container: status.container.clone(),
            ports: status.ports.clone(),
        }
    }

    /// The next state, entered now.
    pub(super) fn entered(&self, state: TaskState, message: &str) -> Self {
        let now = Moment::now();
        let ran = self.ran.or_else(|| (state == TaskState::Running).then_some(now));
        Self { state, since: now, ran, message: message.to_owned(), ..self.clone() }
    }

    /// An end that came by an error: the message stays that of the state before.
    pub(super) fn failed(&self, state: TaskState, error: String) -> Self {
        Self { state, since: Moment::now(), error, ..self.clone() }
    }

    pub(super) fn told(&self) -> Told {
        Told {
            state: self.state,
            state_for: self.since.age(),
            running_for: self.ran.map(Moment::age),
            message: self.message.clone(),
            error: self.error.clone(),
            container: self.container.clone(),
            ports: self.ports.clone(),
        }
    }

    pub(super) fn kept(&self, now: Timestamp) -> KeptWord {
        KeptWord { told: self.told(), at: now }
    }

    /// As it was kept, older by what has passed since by the wall clock of this node.
    pub(super) fn taken_up(kept: KeptWord, now: Timestamp) -> Self {
        let passed = now.since(kept.at);
        let moment = |age: Duration| Moment::ago(age.saturating_add(passed));
        let Told { state, state_for, running_for, message, error, container, ports } = kept.told;
        Self {
            state,
            since: moment(state_for),
            ran: running_for.map(moment),
            message,
            error,
            container,
            ports,
        }
    }
}

/// How far a word has come on its way to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    News,
    /// The leader has it; of an end that is not enough.
    Told,
    Committed,
}

/// The words on all tasks here.
#[derive(Debug, Default)]
pub(super) struct Words {
    all: Mutex<BTreeMap<TaskId, (Word, Standing)>>,
    news: Notify,
}

impl Words {
    /// One that is durable.
    pub(super) fn put(&self, task: TaskId, word: Word) {
        self.lock().insert(task, (word, Standing::News));
        self.news.notify_one();
    }

    pub(super) fn of(&self, task: TaskId) -> Option<Word> {
        self.lock().get(&task).map(|(word, _)| word.clone())
    }

    /// How many tasks are in each state.
    pub(super) fn states(&self) -> BTreeMap<TaskState, usize> {
        let mut states = BTreeMap::new();
        self.lock().values().for_each(|(word, _)| *states.entry(word.state).or_default() += 1);
        states
    }

    pub(super) fn forget(&self, task: TaskId) {
        self.lock().remove(&task);
    }

    /// All of them, for a session that begins with them. Ends are still to be told then: by an answer it is known whether they
    /// are committed.
    pub(super) fn begin(&self) -> Vec<(TaskId, Told)> {
        let mut all = self.lock();
        for (word, standing) in all.values_mut() {
            match *standing {
                Standing::Committed => {}
                _ if word.state.is_terminal() => *standing = Standing::News,
                _ => *standing = Standing::Told,
            }
        }
        all.iter().map(|(task, (word, _))| (*task, word.told())).collect()
    }

    /// Waits until there is something to tell.
    pub(super) async fn news(&self) {
        loop {
            let told = self.news.notified();
            if self.lock().values().any(|(_, standing)| *standing == Standing::News) {
                return;
            }
            told.await;
        }
    }

    /// What is to be told: each word once.
    pub(super) fn take_news(&self) -> Vec<(TaskId, Told)> {
        let mut all = self.lock();
        let news = all.iter_mut().filter(|(_, (_, standing))| *standing == Standing::News);
        news.map(|(task, (word, standing))| {
            *standing = Standing::Told;
            (*task, word.told())
        })
        .collect()
    }

    /// Waits until all ends are known to be committed.
    pub(super) async fn settled(&self) {
        let is_open = |(word, standing): &(Word, Standing)| {
            word.state.is_terminal() && *standing != Standing::Committed
        };
        while self.lock().values().any(is_open) {
            sleep(LOOK).await;
        }
    }

    /// Whether ends were told that are not known to be committed.
    pub(super) fn has_uncommitted(&self) -> bool {
        self.lock().values().any(is_uncommitted_end)
    }

    /// Those are to be told again.
    pub(super) fn tell_again(&self) {
        for entry in self.lock().values_mut().filter(|it| is_uncommitted_end(it)) {
            entry.1 = Standing::News;
        }
        self.news.notify_one();
    }

    /// The leader says that these ends are committed.
    pub(super) fn committed(&self, tasks: &[TaskId]) {
        let mut all = self.lock();
        for task in tasks {
            if let Some((word, standing)) = all.get_mut(task)
                && word.state.is_terminal()
            {
                *standing = Standing::Committed;
            }
        }
    }

    /// What the log says of a task: an end there needs no telling. One that it has not, though it was said to be committed, is
    /// told again: the log was set back.
    pub(super) fn compare(&self, task: &Task) {
        let mut all = self.lock();
        let Some((word, standing)) = all.get_mut(&task.id).filter(|(word, _)| word.state.is_terminal())
        else {
            return;
        };
        let is_committed = task.status.state.is_terminal();
        match (*standing, is_committed) {
            (_, true) => *standing = Standing::Committed,
            (Standing::Committed, false) => {
                tracing::debug!(task = %task.id, state = ?word.state, "its end is no more in the log");
                *standing = Standing::News;
                self.news.notify_one();
            }
            (_, false) => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, (Word, Standing)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_uncommitted_end((word, standing): &(Word, Standing)) -> bool {
    word.state.is_terminal() && *standing == Standing::Told
}
