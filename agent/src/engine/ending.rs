//! The end of a container: waited for, told, and what follows from it: a restart, a removal, or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tracing::{error, warn};

use super::container::{Container, Record};
use super::lifecycle::{ROOT, bundle_of, release, run};
use super::living::{self, First};
use super::restart::{self, Ended};
use super::root::Held;
use super::signal::KILL;
use super::{health, remove};
use crate::blocking::{blocking, drop_later};
use crate::daemon::Daemon;
use crate::error::Result;
use crate::locks::locked;
use crate::shim::{Exit, Task};
use crate::timestamp::Timestamp;

/// The status of a process of which nobody knows it.
const LOST: u32 = 255;
/// SIGKILL's status: a kill for memory may have been told, and not yet heard.
const KILLED: u32 = 137;
/// How long that is waited for.
const TOLD: Duration = Duration::from_millis(500);
/// A shim that lived so long is no part of a row of deaths.
const STEADY: Duration = Duration::from_secs(60);
/// How many of such a row are followed by another.
const MOST_DEATHS: u32 = 8;
/// How often the first process of a container without a shim is looked at.
const BEAT: Duration = Duration::from_millis(200);
/// The pause before the second of a row; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

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

/// The end, whichever shim tells of it: one that dies is followed by another, which takes the container over. `None` with the end
/// that was made of it because none does.
async fn wait(daemon: &Arc<Daemon>, container: &Arc<Container>, mut task: Task) -> (Option<Task>, Exit) {
    let mut deaths = 0;
    loop {
        let since = Instant::now();
        match task.wait("").await {
            Ok(exit) => return (Some(task), exit),
            Err(error) if error.is_gone() => warn!("the shim of {} is gone", container.id),
            Err(error) => {
                warn!("waiting for {}: {error}", container.id);
                break;
            }
        }
        deaths = if since.elapsed() >= STEADY { 1 } else { deaths + 1 };
        let next = if deaths > MOST_DEATHS { None } else { follow(daemon, container, deaths).await };
        match next {
            Some(next) => task = next,
            None => {
                error!("no shim takes {} over: it is killed", container.id);
                break;
            }
        }
    }
    // Nobody will tell of its end: whatever still runs of it is ended before that is said.
    if let Err(error) = end_without_shim(daemon, container).await {
        error!("{error}");
    }
    (None, Exit { status: LOST, at: SystemTime::now() })
}

/// Starts the next shim. That none can be started is no death: the container lives on without, for as long as it has processes
/// and nobody wants it killed; who does waits for one more attempt at most.
async fn follow(daemon: &Arc<Daemon>, container: &Arc<Container>, deaths: u32) -> Option<Task> {
    let bundle = bundle_of(daemon, &container.id);
    let mut first = first_of(container);
    let mut tries = deaths;
    loop {
        if tries > 1 {
            let pause = FIRST_PAUSE.saturating_mul(1 << (tries.min(MOST_DEATHS) - 2));
            if pause_unless_ended(container, pause, &mut first).await == Pause::Ended {
                tries = tries.max(MOST_DEATHS);
            }
        }
        let runtime = container.read(|record| record.host_config.runtime.clone());
        let next = match daemon.runtime_binary(&runtime) {
            Ok(binary) => daemon.engine.launch.start(&container.id, &bundle, &binary).await,
            Err(error) => Err(error),
        };
        match next {
            Ok(connection) => {
                let task = Task::new(connection, &container.id);
                container.set_task(Some(task.clone()));
                return Some(task);
            }
            Err(error) => warn!("no shim takes {} over yet: {error}", container.id),
        }
        tries += 1;
        if container.is_doomed() || (tries > MOST_DEATHS && !living::lives(&container.id).await) {
            return None;
        }
    }
}

/// The first process of a container without a shim, whose end is to be heard of; `None` also when it can't be looked at.
pub(super) fn first_of(container: &Container) -> Option<First> {
    First::of(container).unwrap_or_else(|error| {
        warn!("looking for the first process of {}: {error}", container.id);
        None
    })
}

/// Why a pause is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// It was long enough, or somebody does not want to wait.
    Over,
    /// The container's first process has ended.
    Ended,
}

/// Waits until the next attempt to find a shim for a container; an end of its first process is told once.
pub(super) async fn pause_unless_ended(
    container: &Container,
    pause: Duration,
    first: &mut Option<First>,
) -> Pause {
    let over = tokio::time::sleep(pause);
    tokio::pin!(over);
    loop {
        if first.as_ref().is_some_and(First::has_ended) {
            *first = None;
            return Pause::Ended;
        }
        tokio::select! {
            () = &mut over => return Pause::Over,
            // Who wants to stop it does not wait.
            () = container.awake.notified() => return Pause::Over,
            () = container.becomes_doomed() => return Pause::Over,
            () = tokio::time::sleep(BEAT), if first.is_some() => {}
        }
    }
}

/// Ends a container whose shim is of no use, and what is left of that.
///
/// # Errors
/// The runtime's words.
pub(super) async fn end_without_shim(daemon: &Arc<Daemon>, container: &Container) -> Result<()> {
    let launch = &daemon.engine.launch;
    let bundle = bundle_of(daemon, &container.id);
    launch.end_strays(&bundle).await;
    let deleted = match launch.delete(&container.id, &bundle).await {
        Ok(()) => Ok(()),
        // The shim's binary may be what is amiss.
        Err(error) => {
            warn!("{error}");
            let binary =
                daemon.runtime_binary(&container.read(|record| record.host_config.runtime.clone()))?;
            launch.delete_by_runtime(&container.id, &binary).await
        }
    };
    // With the first process goes all of its namespace, should it live still.
    if let Some(first) = first_of(container)
        && let Err(error) = first.signal(KILL)
    {
        warn!("killing the first process of {}: {error}", container.id);
    }
    deleted
}

async fn ended(daemon: &Arc<Daemon>, container: &Arc<Container>, task: Option<Task>, exit: Exit) {
    let changing = container.changing.lock().await;
    health::end(container);
    container.streams.end().await;
    let held = hold_root(daemon, container).await;
    if let Some(task) = &task
        && let Err(error) = task.delete("").await
        && !error.is_not_found()
    {
        warn!("deleting the task of {}: {error}", container.id);
        if let Err(error) = end_without_shim(daemon, container).await {
            warn!("{error}");
        }
    }
    container.set_task(None);
    let at = Timestamp::from(exit.at);
    let (before, policy) =
        container.read(|record| (record.clone(), record.host_config.restart_policy.clone()));
    let ran = at.since(before.state.started_at);
    let exit_code = i64::from(exit.status);
    let pause = *locked(&container.pause);
    let unwell = container.unwell.swap(false, Ordering::SeqCst);
    // What replaces a task is another task, whatever policy a user has given its container.
    let next = (!daemon.is_ending() && before.task.is_none()).then(|| {
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
    drop_later(held);
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
    // Before a restart can go on.
    let comes_back = container.comes_back.load(Ordering::SeqCst) > 0;
    drop(changing);
    match next {
        Some(pause) => {
            *locked(&container.pause) = pause;
            again(daemon, container, pause).await;
        }
        None if before.host_config.auto_remove && !comes_back => {
            remove::later(daemon, container);
        }
        None => {}
    }
}

/// Keeps the root while it is taken from its place, and then until it is let go behind the container's end.
async fn hold_root(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
) -> (Option<Held>, tokio::sync::OwnedMutexGuard<()>) {
    let root = bundle_of(daemon, &container.id).join(ROOT);
    let held = blocking(move || Ok(Held::at(&root))).await;
    (held.unwrap_or_default(), Arc::clone(&container.letting_go).lock_owned().await)
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
