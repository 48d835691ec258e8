//! One thing after another for each task, each to its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use ketch_cluster::id::TaskId;
use ketch_node::executor::TaskError;
use tokio::sync::Mutex as AsyncMutex;

use crate::locks::locked;

type Turn = AsyncMutex<()>;

/// Whose turn it is, for each task that somebody works on.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<BTreeMap<TaskId, Weak<Turn>>>);

impl Turns {
    /// Does it when what was begun for the task before is done. It goes on when the caller does not wait for it any more.
    pub(super) async fn settle<T: Send + 'static>(
        &self,
        task: TaskId,
        work: impl Future<Output = Result<T, TaskError>> + Send + 'static,
    ) -> Result<T, TaskError> {
        let turn = self.of(task).lock_owned().await;
        let settled = tokio::spawn(async move {
            let done = work.await;
            drop(turn);
            done
        });
        settled.await.unwrap_or_else(|error| Err(TaskError::Failed(error.to_string())))
    }

    fn of(&self, task: TaskId) -> Arc<Turn> {
        let mut all = locked(&self.0);
        if let Some(turn) = all.get(&task).and_then(Weak::upgrade) {
            return turn;
        }
        all.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        let _gone = all.insert(task, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_was_begun_is_done_before_the_next_begins() {
        let (turns, count) = (Turns::default(), Arc::new(AtomicU32::new(0)));
        let add = |wait: u64| {
            let count = Arc::clone(&count);
            async move {
                let before = count.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                count.store(before + 1, Ordering::SeqCst);
                Ok(before)
            }
        };
        let given_up = turns.settle(TaskId::of(1), add(50));
        assert!(tokio::time::timeout(Duration::from_millis(10), given_up).await.is_err());
        assert_eq!(turns.settle(TaskId::of(1), add(0)).await, Ok(1), "the one before was done");
        let other = turns.settle(TaskId::of(2), add(0));
        assert_eq!(other.await, Ok(2));
        assert!(turns.of(TaskId::of(3)).try_lock().is_ok());
        assert_eq!(locked(&turns.0).len(), 1, "those that nobody holds are forgotten");
    }
}
