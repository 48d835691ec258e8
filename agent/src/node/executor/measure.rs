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
            blocking(move || networks.opened_to(&id)).await.map_err(|error| error.message)?
        }
    };
    Ok(Reading { cpu, memory, connections })
}
