//! A task's container from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::objects::Task;
use ketch_cluster::objects::task::ContainerStatus;
use ketch_node::executor::{Ended, Started, TaskError};
use tokio::time::sleep;

use super::networks;
use super::turns::Turns;
use crate::compat;
use crate::daemon::Daemon;
use crate::engine::container::{Container, Life, Probed, Record};
use crate::engine::signal::{self, Stop};
use crate::engine::{lifecycle, task as tasks};
use crate::error::Kind;

/// What a container is given to end whose service says nothing, as Docker has it.
const GRACE: Duration = Duration::from_secs(10);

/// How long it is waited for that an earlier daemon's container says what it does.
const KNOWN: Duration = Duration::from_secs(15);

/// Other nodes are told at the same moment that the task's connections are to be its last: until they know it, they send new
/// ones. Nobody says when they do. A node writes to its disk twice before its rules change, and with half a second one on a busy
/// machine was late: requests were refused. So it is Docker's time.
const OTHERS_KNOW: Duration = Duration::from_secs(2);

fn container_of(daemon: &Daemon, task: TaskId) -> Result<Arc<Container>, TaskError> {
    tasks::container_of(daemon, &task.to_string()).ok_or(TaskError::Gone)
}

/// Starts it, unless it was started before: whether it still runs, who waits for it finds out.
pub(super) async fn start(daemon: &Arc<Daemon>, task: TaskId) -> Result<(), TaskError> {
    let container = container_of(daemon, task)?;
    if container.read(|record| record.was_started || record.state.running) {
        return Ok(());
    }
    lifecycle::start(daemon, &container)
        .await
        .map_err(|error| TaskError::Failed(compat::task_not_started(&error.message)))
}

/// Waits until it is healthy, if it has a health check, and ends it when it is found not to be.
pub(super) async fn until_healthy(
    daemon: &Arc<Daemon>,
    turns: &Turns,
    task: &Task,
) -> Result<Started, TaskError> {
    let container = container_of(daemon, task.id)?;
    let life = decided(&container, |life| life.probed != Probed::Starting).await;
    if life.removed {
        return Err(TaskError::Gone);
    }
    if !life.running {
        let ended = ended(&container, "");
        // One that ends well before it is healthy has run, as with Docker.
        if ended.exit_code != 0 {
            return Err(TaskError::Failed(compat::task_exit(ended.exit_code, &ended.error)));
        }
    } else if life.probed == Probed::Unhealthy {
        shutdown(daemon, turns, task).await?;
        let exit_code = status_of(&container).exit_code;
        return Err(TaskError::Failed(compat::task_exit(exit_code, compat::UNHEALTHY)));
    }
    Ok(Started { container: status_of(&container), ports: networks::published(daemon, &container, task) })
}

/// Waits for its end, and brings it about when it is unhealthy.
pub(super) async fn wait(daemon: &Arc<Daemon>, turns: &Turns, task: &Task) -> Result<Ended, TaskError> {
    let container = container_of(daemon, task.id)?;
    let life = decided(&container, |life| life.probed == Probed::Unhealthy).await;
    let mut reason = "";
    if life.running && !life.removed {
        shutdown(daemon, turns, task).await?;
        reason = compat::UNHEALTHY;
    }
    let never_ran = container.read(|record| !record.was_started);
    if never_ran { Err(TaskError::Gone) } else { Ok(ended(&container, reason)) }
}

/// Waits until it does not run, or this is so.
async fn decided(container: &Container, so: impl Fn(&Life) -> bool) -> Life {
    // What one of an earlier daemon's does is not known before its shim has said so.
    let mut known = container.known.subscribe();
    drop(known.wait_for(|known| *known).await);
    let mut life = container.life.subscribe();
    // A user may start no second run: once it has ended, it has.
    let before = life.borrow().ends;
    let over = |life: &Life| !life.running || life.removed || life.ends > before;
    match life.wait_for(|life| over(life) || so(life)).await {
        Ok(life) => Life { running: !over(&life), ..life.clone() },
        Err(_) => Life { removed: true, ..Life::default() },
    }
}

/// Ends it by its signal, in its grace period.
pub(super) async fn shutdown(daemon: &Arc<Daemon>, turns: &Turns, task: &Task) -> Result<(), TaskError> {
    let grace = task.spec.container().and_then(|spec| spec.stop_grace_period).unwrap_or(GRACE);
    // The engine knows whole seconds: nobody has less time than he was promised.
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    let how = Stop { signal: None, timeout: Some(i64::try_from(seconds).unwrap_or(i64::MAX)) };
    let (daemon, id) = (Arc::clone(daemon), task.id);
    let is_served = task.networks.iter().any(|it| !it.addresses.is_empty());
    let stopped = async move {
        let Some(container) = tasks::container_of(&daemon, &id.to_string()) else { return Ok(()) };
        // Of an earlier daemon's: it may run although the record does not say so. A stop needs no shim in the end.
        let _known = container.becomes_known(KNOWN).await;
        if is_served && container.life.borrow().running {
            sleep(OTHERS_KNOW).await;
        }
        match signal::stop(&daemon, &container, how).await {
            Err(error) if error.kind != Kind::NotModified => Err(TaskError::Failed(error.message)),
            _ => Ok(()),
        }
    };
    turns.settle(task.id, stopped).await
}

fn status_of(container: &Container) -> ContainerStatus {
    container.read(|Record { id, state, .. }| ContainerStatus {
        id: id.clone(),
        pid: state.pid,
        exit_code: i32::try_from(state.exit_code).unwrap_or(i32::MAX),
    })
}

fn ended(container: &Container, reason: &str) -> Ended {
    let status = status_of(container);
    let killed_for_memory = container.read(|record| record.state.oom_killed) && status.exit_code != 0;
    let error = if reason.is_empty() && killed_for_memory { compat::OUT_OF_MEMORY } else { reason };
    Ended { exit_code: status.exit_code, error: error.to_owned(), container: status }
}
