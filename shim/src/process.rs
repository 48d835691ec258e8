//! A process of a container: the states it goes through and what each allows, and everything the shim has of it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ketch_shim_api::process::Status;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::reaper::{Ending, Exit};
use crate::stdio::Streams;
use crate::waiting::Changes;

/// Where a process stands. It only ever moves down, but for pausing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Created,
    Running,
    Pausing,
    Paused,
    Stopped,
    Deleted,
}

/// What is asked of a container or process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Pause,
    Resume,
    Update,
    Checkpoint,
    Exec,
    Delete,
}

/// An action that the state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {} a {} process", action.name(), state.name())]
pub struct Refusal {
    action: Action,
    state: State,
}

impl State {
    /// Whether `action` may be tried.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn allow(self, action: Action) -> Result<(), Refusal> {
        use Action::{Checkpoint, Delete, Exec, Pause, Resume, Start, Update};
        use State::{Created, Paused, Running, Stopped};
        let allowed = match self {
            Created => matches!(action, Start | Update | Exec | Delete),
            Running => matches!(action, Pause | Update | Checkpoint | Exec),
            Paused => matches!(action, Resume | Update | Checkpoint),
            Stopped => matches!(action, Delete),
            Self::Pausing | Self::Deleted => false,
        };
        if allowed { Ok(()) } else { Err(Refusal { action, state: self }) }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        }
    }

    /// As containerd has it.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Created => Status::Created,
            Self::Running => Status::Running,
            Self::Pausing => Status::Pausing,
            Self::Paused => Status::Paused,
            Self::Stopped | Self::Deleted => Status::Stopped,
        }
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Checkpoint => "checkpoint",
            Self::Exec => "exec in",
            Self::Delete => "delete",
        }
    }
}

/// Where containerd wants a process's streams; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamPaths {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// A container's first process, or one that was added.
#[derive(Debug)]
pub(crate) struct Process {
    /// Empty for the first.
    pub(crate) exec_id: String,
    pub(crate) paths: StreamPaths,
    pub(crate) state: Cell<State>,
    pub(crate) pid: Cell<i32>,
    /// Where its end will be known, once it has a pid.
    pub(crate) ending: RefCell<Option<Rc<Ending>>>,
    /// Held by what changes the state, from the call of the runtime to the event about it: the end of a process waits for
    /// it, and so its event follows.
    pub(crate) changing: Mutex<()>,
    pub(crate) streams: RefCell<Option<Streams>>,
    /// CloseIO was called: another shim must not hold the input open again.
    pub(crate) stdin_closed: Cell<bool>,
    /// Of an added process until it is started: the OCI process as JSON.
    pub(crate) spec: RefCell<Vec<u8>>,
    /// Its end, when that has been published.
    finished: Cell<Option<Exit>>,
    finish: Changes,
}

impl Process {
    pub(crate) fn new(exec_id: &str, paths: StreamPaths, spec: Vec<u8>) -> Self {
        Self {
            exec_id: exec_id.to_owned(),
            paths,
            state: Cell::new(State::Created),
            pid: Cell::new(0),
            ending: RefCell::default(),
            changing: Mutex::default(),
            streams: RefCell::default(),
            stdin_closed: Cell::new(false),
            spec: RefCell::new(spec),
            finished: Cell::new(None),
            finish: Changes::default(),
        }
    }

    /// What the files of this process in the bundle begin with.
    pub(crate) fn file_prefix(exec_id: &str) -> String {
        if exec_id.is_empty() { "init".to_owned() } else { format!("exec-{exec_id}") }
    }

    /// The copies of its streams have begun. CloseIO may have come before the start.
    pub(crate) fn attach(&self, streams: Streams) {
        if self.stdin_closed.get() {
            streams.close_input();
        }
        *self.streams.borrow_mut() = Some(streams);
    }

    /// Whether it has ended, published or not.
    pub(crate) fn has_ended(&self) -> bool {
        self.finished.get().is_some()
            || self.ending.borrow().as_ref().is_some_and(|ending| ending.exit().is_some())
    }

    pub(crate) fn finished(&self) -> Option<Exit> {
        self.finished.get()
    }

    /// Its end is public now.
    pub(crate) fn finish(&self, exit: Exit) {
        self.state.set(State::Stopped);
        self.finished.set(Some(exit));
        self.finish.tell();
    }

    /// Resolves when its end is public.
    pub(crate) async fn wait(&self) -> Exit {
        self.finish.until(|| self.finished.get()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [Action; 7] = [
        Action::Start,
        Action::Pause,
        Action::Resume,
        Action::Update,
        Action::Checkpoint,
        Action::Exec,
        Action::Delete,
    ];

    fn allowed(state: State) -> Vec<Action> {
        ACTIONS.into_iter().filter(|action| state.allow(*action).is_ok()).collect()
    }

    #[test]
    fn what_each_state_allows() {
        use Action::{Checkpoint, Delete, Exec, Pause, Resume, Start, Update};
        assert_eq!(allowed(State::Created), [Start, Update, Exec, Delete]);
        assert_eq!(allowed(State::Running), [Pause, Update, Checkpoint, Exec]);
        assert_eq!(allowed(State::Pausing), []);
        assert_eq!(allowed(State::Paused), [Resume, Update, Checkpoint]);
        assert_eq!(allowed(State::Stopped), [Delete]);
        assert_eq!(allowed(State::Deleted), []);
    }

    #[test]
    fn a_refusal_names_both() {
        let refusal = State::Running.allow(Action::Delete).unwrap_err();
        assert_eq!(refusal.to_string(), "cannot delete a running process");
    }

    #[test]
    fn an_end_is_there_for_who_asks_late() {
        let process = Process::new("", StreamPaths::default(), Vec::new());
        let exit = Exit { pid: 3, status: 7, at: std::time::SystemTime::UNIX_EPOCH };
        process.finish(exit);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(process.wait()), exit);
        assert_eq!(process.state.get(), State::Stopped);
    }
}
