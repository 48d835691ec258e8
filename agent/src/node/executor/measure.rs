//! What a task's container has used, for services whose replicas follow their load.

use std::sync::Arc;

use ketch_cluster::id::TaskId;
use ketch_node::calls::Measure;
use ketch_node::executor::Reading;

use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::engine::task;
use crate::engine::used::{Used, used};

/// # Errors
/// There is no such container, it does not run, or it can't be looked at.
pub(super) async fn measure(daemon: &Arc<Daemon>, task: TaskId, what: Measure) -> Result<Reading, String> {
    let container = task::container_of(daemon, &task.to_string()).ok_or("it has no container")?;
    let Used { cpu, memory } =
        used(&container).await.map_err(|error| error.message)?.ok_or("its container does not run")?;
    let connections = match what {
        Measure::Resources => None,
        Measure::Requests => {
            let (networks, id) = (daemon.networks.clone(), container.id.clone());
            let opened = blocking(move || networks.opened_to(&id)).await;
            known(opened.map_err(|error| error.message), task)
        }
    };
    Ok(Reading { cpu, memory, connections })
}

/// What can't be counted is not known, and takes nothing with it that is.
fn known(opened: Result<Option<u64>, String>, task: TaskId) -> Option<u64> {
    opened.unwrap_or_else(|reason| {
        tracing::debug!(%task, reason, "its connections are not counted");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_can_not_be_counted_are_not_known() {
        assert_eq!(known(Ok(Some(7)), TaskId::of(1)), Some(7));
        assert_eq!(known(Ok(None), TaskId::of(1)), None);
        assert_eq!(known(Err("no such table".to_owned()), TaskId::of(1)), None);
    }
}
