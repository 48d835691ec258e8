//! Why a task that could have stayed where it is was asked to leave, and which node a waiting one was promised.

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, TaskId};
use crate::time::Timestamp;

/// Of a task that managers ask to make room or to move. It stays with the task: what was displaced of late bounds what is displaced
/// next, also for the next leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Displacement {
    /// By the clock of the leader that decided it.
    pub at: Timestamp,
    pub cause: Cause,
    /// One sentence with the names, to be shown with the task's end; empty of one that stopped for something else before its move came
    /// about, and of one whose move was given up.
    pub reason: String,
}

impl Displacement {
    /// Whether the task moves by it, or has: a move that was given up is none, and neither is one whose task was stopped for something
    /// else before.
    #[must_use]
    pub fn is_move(&self) -> bool {
        matches!(self.cause, Cause::Rebalanced { .. }) && !self.reason.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// By a task of a higher priority. Both are as they were then: labels change.
    Preempted { by: TaskId, its_priority: i32, own_priority: i32 },
    /// Its service is spread more evenly without it there. With start-first it is wanted until the task that replaces it runs.
    Rebalanced { to: NodeId },
}

/// A node that a waiting task is to have before others, once what is being stopped there has ended. The scheduler keeps its room free
/// until then; when the task can't have it after all, it is placed like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    pub node: NodeId,
}
