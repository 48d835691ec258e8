//! A worker with no containers: it takes its tasks through their states, at random speed.

use std::collections::BTreeMap;
use std::sync::Arc;

use ketch_cluster::assignment::{Assignment, AssignmentChanges, Held, Item};
use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::{Task, TaskState, TaskStatus};
use ketch_cluster::time::Timestamp;

use crate::random::Random;
use crate::user::FLAKY;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// No manager is reached before that moment.
    DownUntil(Timestamp),
    /// It said that it leaves, and has stopped everything.
    Left,
}

/// Whether images are as bad as they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Honest,
    /// Nothing fails any more.
    Kind,
}

pub(crate) struct Worker {
    pub(crate) id: NodeId,
    pub(crate) link: Link,
    pub(crate) mood: Mood,
    pub(crate) held: Held,
    pub(crate) runs: BTreeMap<TaskId, Run>,
    /// Of the manager's, when it last sent.
    pub(crate) epoch: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) task: Arc<Task>,
    pub(crate) status: TaskStatus,
    /// When it goes on; none when it stays.
    next_at: Option<Timestamp>,
    pub(crate) told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    No,
    Yes,
}

impl Run {
    pub(crate) fn is_live(&self) -> bool {
        !self.status.state.is_terminal()
    }

    pub(crate) fn enter(&mut self, state: TaskState, now: Timestamp) {
        let running_since = if state == TaskState::Running { Some(now) } else { self.status.running_since };
        self.status = TaskStatus { state, since: now, running_since, ..TaskStatus::default() };
        self.told = Told::No;
        self.next_at = None;
    }
}

impl Worker {
    pub(crate) fn new(id: NodeId, at: Timestamp) -> Self {
        let (held, runs) = (Held::default(), BTreeMap::new());
        Self { id, link: Link::DownUntil(at), mood: Mood::Honest, held, runs, epoch: 0 }
    }

    /// What the managers have sent: new tasks are accepted, those that are not wanted are stopped, those that it should
    /// not have any more are gone.
    pub(crate) fn receive(
        &mut self,
        changes: &AssignmentChanges,
        sent: &Assignment,
        at: (Timestamp, &mut Random),
    ) {
        let (now, random) = at;
        self.held.receive(changes).unwrap();
        assert!(self.held.items().eq(sent.items()), "both ends hold the same");
        let tasks: BTreeMap<TaskId, Arc<Task>> = self
            .held
            .items()
            .filter_map(|item| if let Item::Task(task) = item { Some((task.id, task.clone())) } else { None })
            .collect();
        self.runs.retain(|id, _| tasks.get(id).is_some_and(|task| !task.status.state.is_terminal()));
        for (id, task) in tasks.into_iter().filter(|(_, task)| !task.status.state.is_terminal()) {
            match self.runs.get_mut(&id) {
                Some(run) => run.follow(task, now, random),
                None => drop(self.runs.insert(id, Run::accept(task, now, random))),
            }
        }
    }

    /// Whatever is due. Whether anything was.
    pub(crate) fn work(&mut self, now: Timestamp, random: &mut Random) -> bool {
        let mood = self.mood;
        let due = self.runs.values_mut().filter(|run| run.next_at.is_some_and(|at| at <= now));
        due.map(|run| run.go_on(mood, now, random)).count() > 0
    }

    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        let back = if let Link::DownUntil(moment) = self.link { Some(moment) } else { None };
        self.runs.values().filter_map(|run| run.next_at).chain(back).min()
    }

    /// All that ran is gone; it says so once it is back.
    pub(crate) fn crash(&mut self, now: Timestamp) {
        self.runs.values_mut().filter(|run| run.is_live()).for_each(|run| run.enter(TaskState::Failed, now));
    }

    /// The so-manieth running task ends with an error.
    pub(crate) fn fail(&mut self, index: usize, now: Timestamp) {
        let mut running = self.runs.values_mut().filter(|run| run.status.state == TaskState::Running);
        running.nth(index).into_iter().for_each(|run| run.enter(TaskState::Failed, now));
    }
}

impl Run {
    fn accept(task: Arc<Task>, now: Timestamp, random: &mut Random) -> Self {
        let mut run = Self { task, status: TaskStatus::default(), next_at: None, told: Told::No };
        if run.task.desired_state >= TaskState::Shutdown {
            run.enter(TaskState::Shutdown, now);
        } else {
            run.enter(TaskState::Accepted, now);
            run.next_at = Some(now.after(random.seconds(1)));
        }
        run
    }

    fn follow(&mut self, task: Arc<Task>, now: Timestamp, random: &mut Random) {
        let wished = self.task.desired_state != task.desired_state;
        self.task = task;
        if wished && self.is_live() {
            let stops = self.task.desired_state >= TaskState::Shutdown;
            self.next_at = Some(now.after(random.seconds(if stops { 3 } else { 1 })));
        }
    }

    fn go_on(&mut self, mood: Mood, now: Timestamp, random: &mut Random) {
        let state = self.status.state;
        if state.is_terminal() {
            self.next_at = None;
            return;
        }
        let image = self.task.spec.container().map(|container| container.image.as_str());
        let may_fail = mood == Mood::Honest && image == Some(FLAKY);
        let fails = may_fail && random.below(3) == 0;
        let held = self.task.desired_state == TaskState::Ready;
        let is_job = self.task.desired_state == TaskState::Complete;
        let stays =
            (state == TaskState::Ready && held) || (state == TaskState::Running && !is_job && !may_fail);
        if stays && self.task.desired_state < TaskState::Shutdown {
            self.next_at = None;
            return;
        }
        let next = match state {
            _ if self.task.desired_state >= TaskState::Shutdown => TaskState::Shutdown,
            TaskState::Accepted => TaskState::Preparing,
            TaskState::Preparing if fails => TaskState::Rejected,
            TaskState::Preparing => TaskState::Ready,
            TaskState::Ready => TaskState::Starting,
            _ if fails => TaskState::Failed,
            TaskState::Starting => TaskState::Running,
            _ => TaskState::Complete,
        };
        self.enter(next, now);
        self.next_at = match next {
            TaskState::Preparing => Some(now.after(random.seconds(4))),
            TaskState::Running if is_job => Some(now.after(random.seconds(5))),
            TaskState::Running if may_fail && random.below(2) == 0 => Some(now.after(random.seconds(20))),
            state if state < TaskState::Running => Some(now.after(random.seconds(1))),
            _ => None,
        };
    }
}
