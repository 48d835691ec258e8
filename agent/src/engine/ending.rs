//! The end of a container: waited for, told, and what follows from it: a restart, a removal, or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tracing::{error, warn};

use super::container::{Container, Record};
use super::lifecycle::{bundle_of, release, run};
use super::restart::{self, Ended};
use super::{health, remove};
use crate::daemon::Daemon;
use crate::locks::locked;
use crate::shim::{Exit, Task};
use crate::timestamp::Timestamp;

/// The status of a process of which nobody knows it.
const LOST: u32 = 255;
/// SIGKILL's status: a kill for memory may have been told, and not yet heard.
const KILLED: u32 = 137;
/// How long that is waited for.
const TOLD: Duration = Duration::from_millis(500);

/// Waits for the container's end, in a task of its own.
pub(super) fn watch(daemon: &Arc<Daemon>, container: &Arc<Container>, task: Task) {
    let (daemon, container) = (Arc::clone(daemon), Arc::clone(container));
    drop(tokio::spawn(async move {
        let told = *container.told.borrow();
        let (task, exit) = wait(&daemon, &container, task).await;
        if exit.status == KILLED {
            let mut heard = container.told.subscribe();
            let _late = tokio::time::timeout(TOLD, heard.wait_for(|now| *now > told)).await;
        }
        ended(&daemon, &container, task, exit).await;
    }));
}

/// The end, whichever shim tells of it: one that dies is followed by another, which takes the container over.
async fn wait(daemon: &Arc<Daemon>, container: &Arc<Container>, mut task: Task) -> (Option<Task>, Exit) {
    loop {
        match task.wait("").await {
            Ok(exit) => return (Some(task), exit),
            Err(error) if error.is_gone() => {
                warn!("the shim of {} is gone", container.id);
                let bundle = bundle_of(daemon, &container.id);
                let runtime = container.read(|record| record.host_config.runtime.clone());
                let next = match daemon.runtime_binary(&runtime) {
                    Ok(binary) => daemon.engine.launch.start(&container.id, &bundle, &binary).await,
                    Err(error) => Err(error),
                };
                match next {
                    Ok(connection) => task = Task::new(connection, &container.id),
                    Err(error) => {
                        error!("no shim takes {} over: {error}", container.id);
                        let _cleaned = daemon.engine.launch.delete(&container.id, &bundle).await;
                        return (None, Exit { status: LOST, at: SystemTime::now() });
                    }
                }
                container.set_task(Some(task.clone()));
            }
            Err(error) => {
                warn!("waiting for {}: {error}", container.id);
                return (Some(task), Exit { status: LOST, at: SystemTime::now() });
            }
        }
    }
}

async fn ended(daemon: &Arc<Daemon>, container: &Arc<Container>, task: Option<Task>, exit: Exit) {
    let changing = container.changing.lock().await;
    health::end(container);
    container.streams.end().await;
    if let Some(task) = &task
        && let Err(error) = task.delete("").await
        && !error.is_not_found()
    {
        warn!("deleting the task of {}: {error}", container.id);
    }
    container.set_task(None);
    let at = Timestamp::from(exit.at);
    let (before, policy) =
        container.read(|record| (record.clone(), record.host_config.restart_policy.clone()));
    let ran = at.since(before.state.started_at);
    let exit_code = i64::from(exit.status);
    let pause = *locked(&container.pause);
    let unwell = container.unwell.swap(false, Ordering::SeqCst);
    let next = (!daemon.is_ending()).then(|| {
        restart::decide(
            &policy,
            // An end for its health is a failure, whatever the process made of the signal.
            Ended {
                exit_code: if unwell { exit_code.max(1) } else { exit_code },
                stopped: before.was_stopped,
                restarts: before.restart_count,
                ran,
                pause,
            },
        )
    });
    let next = next.flatten();
    container.change(|record| {
        let state = &mut record.state;
        state.running = next.is_some();
        state.restarting = next.is_some();
        state.paused = false;
        state.pid = 0;
        state.exit_code = exit_code;
        state.finished_at = at;
        state.restart_reason = if unwell { "unhealthy".to_owned() } else { String::new() };
        if next.is_some() {
            record.restart_count += 1;
        }
    });
    // The disk takes its time: what the container had goes meanwhile.
    let given_back = async {
        if let Some(task) = task {
            task.shutdown().await;
        }
        release(daemon, container).await;
    };
    let (saved, ()) = tokio::join!(container.save(daemon), given_back);
    if let Err(error) = saved {
        error!("{error}");
    }
    container.life.send_modify(|life| {
        life.ends += 1;
        life.running = next.is_some();
        life.exit_code = exit_code;
    });
    container.publish_with(
        daemon,
        "die",
        &[("execDuration", ran.as_secs().to_string()), ("exitCode", exit_code.to_string())],
    );
    drop(changing);
    match next {
        Some(pause) => {
            *locked(&container.pause) = pause;
            again(daemon, container, pause).await;
        }
        None if before.host_config.auto_remove && !container.comes_back.load(Ordering::SeqCst) => {
            remove::later(daemon, container);
        }
        None => {}
    }
}

/// Starts it again after a pause, unless somebody stops it meanwhile.
async fn again(daemon: &Arc<Daemon>, container: &Arc<Container>, pause: Duration) {
    let end = container.life.borrow().ends;
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = container.awake.notified() => {}
    }
    let _changing = container.changing.lock().await;
    let (waits, stopped) = container.read(|Record { state, was_stopped, .. }| {
        (state.restarting && state.running, *was_stopped || state.removing)
    });
    // It may have been stopped and started meanwhile, and wait for another end's sake.
    if !waits || container.life.borrow().ends != end {
        return;
    }
    if stopped || daemon.is_ending() {
        container.change(|record| {
            record.state.running = false;
            record.state.restarting = false;
        });
        if let Err(error) = container.save(daemon).await {
            error!("{error}");
        }
        container.life.send_modify(|life| life.running = false);
        return;
    }
    // A start that fails is not tried again, as Docker does it; the state says why.
    if let Err(error) = run(daemon, container).await {
        warn!("starting {} again: {error}", container.id);
    }
}
