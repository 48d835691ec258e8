//! The end of a process, in its order: killed what outlives it, its output passed on, then told. Ends of added processes
//! come before the end of the container.

use std::rc::Rc;
use std::time::Duration;

use ketch_shim_api::events::TaskExit;

use crate::container::{CLEANUP, Container};
use crate::log;
use crate::process::{Process, State};
use crate::reaper::Exit;
use crate::service::Shim;

/// How long a reader may hold up the end of a process.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the container's end waits for those of its other processes.
const OTHERS: Duration = Duration::from_secs(10);

const KILL: u32 = 9;

/// Sees to the process's end from here on. It must have its `ending`.
pub(crate) fn supervise(shim: &Rc<Shim>, container: &Rc<Container>, process: &Rc<Process>) {
    let Some(ending) = process.ending.borrow().clone() else { return };
    let (shim, container, process) = (Rc::clone(shim), Rc::clone(container), Rc::clone(process));
    let counted = (!process.exec_id.is_empty()).then(|| container.running_execs.one());
    drop(tokio::task::spawn_local(async move {
        let exit = ending.wait().await;
        // A start that is under way tells of itself first.
        drop(process.changing.lock().await);
        if process.exec_id.is_empty() {
            end_others(&shim, &container).await;
        }
        publish(&shim, &container, &process, exit).await;
        drop(counted);
        shim.quiet.stir();
    }));
}

/// What is still there when a container's first process has ended.
async fn end_others(shim: &Shim, container: &Container) {
    let (runtime, reaper, id) = (&container.runtime, shim.reaper.as_ref(), container.id.as_str());
    if !container.own_pids
        && let Err(error) = runtime.kill(reaper, id, KILL, true, CLEANUP).await
        && !error.is_finished()
        && !error.is_no_container()
    {
        log::error(&format!("kill what is left of {id}: {}", error.words()));
    }
    if container.init.state.get() == State::Paused {
        // Frozen, they could not even die.
        let _thawed = runtime.resume(reaper, id, CLEANUP).await;
    }
    if tokio::time::timeout(OTHERS, container.running_execs.none()).await.is_err() {
        log::error(&format!("{} processes of {id} outlive it", container.running_execs.count()));
    }
}

async fn publish(shim: &Shim, container: &Container, process: &Process, exit: Exit) {
    let drain = process.streams.borrow().as_ref().map(crate::stdio::Streams::drain);
    if let Some(drain) = drain
        && !drain.finish(DRAIN).await
    {
        log::warn(&format!("nobody reads the output of {}", container.id));
    }
    shim.oom.settle(&container.id);
    process.finish(exit);
    let id = if process.exec_id.is_empty() { &container.id } else { &process.exec_id };
    shim.events.publish(
        "/tasks/exit",
        &TaskExit {
            container_id: container.id.clone(),
            id: id.clone(),
            pid: exit.pid.unsigned_abs(),
            exit_status: exit.status,
            exited_at: Some(exit.at.into()),
        },
    );
    container.remember(shim);
}
