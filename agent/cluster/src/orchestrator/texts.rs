//! Texts that clients show or match: SwarmKit's words, each held by a test. `control` uses them too.

use std::sync::{Arc, LazyLock};

use crate::id::TaskId;

/// Of a new task.
pub static CREATED: LazyLock<Arc<str>> = LazyLock::new(|| "created".into());
pub const UPDATE_IN_PROGRESS: &str = "update in progress";
pub const UPDATE_COMPLETED: &str = "update completed";
pub const ROLLBACK_COMPLETED: &str = "rollback completed";
/// Of `docker service rollback`.
pub const ROLLBACK_REQUESTED: &str = "manually requested rollback";

/// Of an update, or of a rollback whose action is to pause: SwarmKit says "update" in both.
#[must_use]
pub fn update_paused(task: TaskId) -> String {
    format!("update paused due to failure or early termination of task {task}")
}

#[must_use]
pub fn update_rolled_back(task: TaskId) -> String {
    format!("update rolled back due to failure or early termination of task {task}")
}

/// A rollback that would have to be rolled back itself.
#[must_use]
pub fn rollback_paused(task: TaskId) -> String {
    format!("rollback paused due to failure or early termination of task {task}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_swarmkits() {
        let task = TaskId::of(1);
        assert_eq!(&**CREATED, "created");
        assert_eq!(UPDATE_IN_PROGRESS, "update in progress");
        assert_eq!(UPDATE_COMPLETED, "update completed");
        assert_eq!(ROLLBACK_COMPLETED, "rollback completed");
        assert_eq!(ROLLBACK_REQUESTED, "manually requested rollback");
        let of_task = "due to failure or early termination of task 0000000000000000000000001";
        assert_eq!(update_paused(task), format!("update paused {of_task}"));
        assert_eq!(update_rolled_back(task), format!("update rolled back {of_task}"));
        assert_eq!(rollback_paused(task), format!("rollback paused {of_task}"));
    }
}
