//! One task's way through its states: it asks the executor for one step after another, and keeps what came of each before it
//! says so.
//!
//! A step is given up when the task is to stop, and then the container is stopped, whatever the step had come to. After a
//! crash the step that was kept last is taken again: the executor goes on from what is there, and an end is never followed by
//! a step.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::objects::task::ContainerStatus;
use ketch_cluster::objects::{Config, Secret, Task, TaskState};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::contact::fence_of;
use super::hands::Hands;
use super::store::Row;
use super::texts;
use super::word::Word;
use crate::executor::{Ended, TaskError, Work};

/// Until the executor is asked again to stop or remove what it could not.
const RETRY: Duration = Duration::from_secs(3);
/// How long the end of a removed task is kept: an assignment that lacked it may have been of a leader that was none any more.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long a stopped container has to say its exit code.
const EXIT_WAIT: Duration = Duration::from_secs(5);

/// What the latest assignment says of a task.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) task: Arc<Task>,
    pub(super) want: Want,
    /// What its container is made with; none until a manager gives it again.
    pub(super) files: Option<Files>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// Prepared, and no further.
    Hold,
    Run,
    Stop,
    /// The assignment does not hold it any more.
    Gone,
    /// The node leaves its cluster.
    Left,
}

/// The secrets and configs that a task names, of those that the node was given.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Files {
    pub(super) secrets: Vec<Arc<Secret>>,
    pub(super) configs: Vec<Arc<Config>>,
}

impl Want {
    pub(super) fn of(task: &Task) -> Self {
        if task.status.state.is_terminal() || task.desired_state > TaskState::Complete {
            Self::Stop
        } else if task.desired_state <= TaskState::Ready {
            Self::Hold
        } else {
            Self::Run
        }
    }
}

/// Why a step was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Asked,
    Fenced,
}

#[derive(Debug)]
pub(super) struct Runner {
    pub(super) hands: Arc<Hands>,
    pub(super) task: TaskId,
    pub(super) orders: watch::Receiver<Order>,
    pub(super) word: Word,
}

impl Runner {
    /// Ends once the task is forgotten. Of a node that leaves nothing is: its end may be told still.
    pub(super) async fn run(mut self) {
        while !self.word.state.is_terminal() {
            self.step().await;
        }
        if self.await_removal().await == Want::Left {
            return;
        }
        self.hands.store.write(Row::forget(self.task)).await;
        self.hands.words.forget(self.task);
    }

    async fn step(&mut self) {
        if let Some(stop) = self.must_stop() {
            return self.stop(stop).await;
        }
        match self.word.state {
            TaskState::Accepted => self.await_what_is_needed().await,
            TaskState::Preparing => self.prepare().await,
            TaskState::Ready => self.await_release().await,
            TaskState::Starting => self.start().await,
            TaskState::Running => self.wait().await,
            _ => self.enter(TaskState::Accepted, texts::ACCEPTED).await,
        }
    }

    /// Networks, secrets and configs.
    async fn await_what_is_needed(&mut self) {
        let hands = Arc::clone(&self.hands);
        let mut orders = self.orders.clone();
        let needed = async {
            hands.networks.before_prepare().await;
            let _ = orders.wait_for(|order| order.files.is_some()).await;
        };
        match self.unless_stopped(needed).await {
            Ok(()) => self.enter(TaskState::Preparing, texts::PREPARING).await,
            Err(stop) => self.stop(stop).await,
        }
    }

    async fn prepare(&mut self) {
        let hands = Arc::clone(&self.hands);
        let mut orders = self.orders.clone();
        let prepared = async {
            // After a crash both are waited for again.
            hands.networks.before_prepare().await;
            match orders.wait_for(|order| order.files.is_some()).await.map(|order| work_of(&order)) {
                Ok(Some(work)) => hands.executor.prepare(work).await,
                // The worker ends.
                _ => std::future::pending().await,
            }
        };
        match self.unless_stopped(prepared).await {
            Ok(Ok(())) => self.enter(TaskState::Ready, texts::PREPARED).await,
            Ok(Err(error)) => self.end(self.word.failed(TaskState::Rejected, error.to_string())).await,
            Err(stop) => self.stop(stop).await,
        }
    }

    async fn await_release(&mut self) {
        let mut orders = self.orders.clone();
        let released = async {
            let _ = orders.wait_for(|order| order.want == Want::Run).await;
        };
        match self.unless_stopped(released).await {
            Ok(()) => self.enter(TaskState::Starting, texts::STARTING).await,
            Err(stop) => self.stop(stop).await,
        }
    }

    async fn start(&mut self) {
        let hands = Arc::clone(&self.hands);
        let task = self.order_task();
        let started = async {
            hands.networks.before_start().await;
            hands.executor.start(task).await
        };
        match self.unless_stopped(started).await {
            Ok(Ok(started)) => {
                let mut word = self.word.entered(TaskState::Running, texts::STARTED);
                word.container = Some(started.container);
                word.ports = started.ports;
                self.keep(word).await;
            }
            Ok(Err(error)) => self.fail(error).await,
            Err(stop) => self.stop(stop).await,
        }
    }

    async fn wait(&mut self) {
        let hands = Arc::clone(&self.hands);
        let waited = hands.executor.wait(self.order_task());
        match self.unless_stopped(waited).await {
            Ok(Ok(ended)) => self.end(ended_by_itself(&self.word, ended)).await,
            Ok(Err(error)) => self.fail(error).await,
            Err(stop) => self.stop(stop).await,
        }
    }

    /// Since it has been started, its container may run, whatever went wrong.
    async fn fail(&mut self, error: TaskError) {
        if error != TaskError::Gone {
            self.shutdown().await;
        }
        self.end(self.word.failed(TaskState::Failed, error.to_string())).await;
    }

    async fn stop(&mut self, stop: Stop) {
        let mut word = match stop {
            Stop::Asked => self.word.entered(TaskState::Shutdown, texts::SHUTDOWN),
            Stop::Fenced => self.word.entered(TaskState::Shutdown, texts::FENCED),
        };
        if self.word.state >= TaskState::Preparing {
            self.hands.networks.before_stop().await;
            self.shutdown().await;
        }
        if self.word.state >= TaskState::Starting
            && let Ok(Ok(ended)) = timeout(EXIT_WAIT, self.hands.executor.wait(self.order_task())).await
        {
            word.container = Some(with_exit_code(ended));
        }
        self.end(word).await;
    }

    /// Returns once the container has ended.
    async fn shutdown(&self) {
        loop {
            match self.hands.executor.shutdown(self.order_task()).await {
                Ok(()) | Err(TaskError::Gone) => return,
                Err(error) => tracing::warn!(task = %self.task, %error, "the task can't be stopped"),
            }
            sleep(RETRY).await;
        }
    }

    async fn enter(&mut self, state: TaskState, message: &str) {
        self.keep(self.word.entered(state, message)).await;
    }

    async fn end(&mut self, word: Word) {
        tracing::info!(task = %self.task, state = ?word.state, error = word.error, "a task has ended");
        self.keep(word).await;
    }

    /// What a task has come to is durable before anyone hears of it, or the next step is taken.
    async fn keep(&mut self, word: Word) {
        let row = Row::word(self.task, &word.kept(self.hands.world.now()));
        self.hands.store.write(vec![row]).await;
        self.hands.words.put(self.task, word.clone());
        self.word = word;
    }

    /// Its container stays, for its logs, as long as the assignment holds the task.
    async fn await_removal(&mut self) -> Want {
        loop {
            let want = self.orders.wait_for(|order| order.want >= Want::Gone).await.map(|order| order.want);
            let Ok(want) = want else { return std::future::pending().await };
            self.remove().await;
            let changed = self.orders.wait_for(|order| order.want != Want::Gone);
            if want == Want::Left || timeout(REMEMBERED, changed).await.is_err() {
                return want;
            }
        }
    }

    async fn remove(&self) {
        while let Err(error) = self.hands.executor.remove(self.task).await {
            tracing::warn!(task = %self.task, %error, "the task's container can't be removed");
            sleep(RETRY).await;
        }
    }

    fn order_task(&self) -> Arc<Task> {
        Arc::clone(&self.orders.borrow().task)
    }

    fn must_stop(&self) -> Option<Stop> {
        (self.orders.borrow().want >= Want::Stop).then_some(Stop::Asked)
    }

    /// A step's outcome, unless the task has to stop first.
    async fn unless_stopped<T>(&self, step: impl Future<Output = T>) -> Result<T, Stop> {
        let mut orders = self.orders.clone();
        let fence = fence_of(&orders.borrow().task);
        let fenced = async {
            match fence {
                Some(span) => self.hands.contact.lost_for(span).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Without orders the worker ends, and this with it.
            Ok(_) = orders.wait_for(|order| order.want >= Want::Stop) => Err(Stop::Asked),
            () = fenced => Err(Stop::Fenced),
            outcome = step => Ok(outcome),
        }
    }
}

fn work_of(order: &Order) -> Option<Work> {
    let Files { secrets, configs } = order.files.clone()?;
    Some(Work { task: Arc::clone(&order.task), secrets, configs })
}

fn ended_by_itself(word: &Word, ended: Ended) -> Word {
    let error = texts::exit(ended.exit_code, &ended.error);
    let mut end = if ended.exit_code == 0 && ended.error.is_empty() {
        word.entered(TaskState::Complete, texts::FINISHED)
    } else {
        word.failed(TaskState::Failed, error)
    };
    end.container = Some(with_exit_code(ended));
    end
}

fn with_exit_code(ended: Ended) -> ContainerStatus {
    ContainerStatus { exit_code: ended.exit_code, ..ended.container }
}
