//! What an earlier daemon has left: each container of the store is compared with its shim, and what runs goes on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing::{info, warn};

use super::container::{Container, Record, TABLE};
use super::lifecycle::{bundle_of, folder_of, log_of, logged, release};
use super::restart::{self, Ended};
use super::start_again::start_again;
use super::{ending, health, leftovers, living};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::logs::LogDriver;
use crate::shim::Task;
use crate::shim::events::{self, Told};
use crate::timestamp::Timestamp;

/// How long the daemon waits for shims before it serves: one that hangs keeps no others from work.
const DECIDED: Duration = Duration::from_secs(5);
/// How long a shim may take to make a container that nobody waits for any more.
const MADE: Duration = Duration::from_secs(30);
/// How often that is looked at.
const BEAT: Duration = Duration::from_millis(10);
/// The pause after the first look at a container that lives and can't be taken over; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Hears what shims tell: a kill for memory, and, after it, the end.
///
/// # Errors
/// The socket.
pub fn listen(daemon: &Arc<Daemon>) -> Result<()> {
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    events::serve(&daemon.engine.launch.events, sender)?;
    let daemon = Arc::clone(daemon);
    drop(tokio::spawn(async move {
        while let Some(event) = told.recv().await {
            let Ok(container) = daemon.engine.find(event.container()) else { continue };
            match event {
                Told::OutOfMemory(_) => {
                    container.change(|record| record.state.oom_killed = true);
                    container.publish(&daemon, "oom");
                }
                Told::Exit(_) => container.told.send_modify(|count| *count += 1),
            }
        }
    }));
    Ok(())
}

/// Reads the store, and takes over what runs. Called once, before anything is served.
///
/// # Errors
/// The store.
pub async fn take_over(daemon: &Arc<Daemon>) -> Result<()> {
    let mut before = Vec::new();
    let mut known = BTreeSet::new();
    for (id, record) in daemon.store.all::<Record>(TABLE)? {
        let _new = known.insert(id);
        let container = Arc::new(Container::new(record));
        if let Err(error) = daemon.engine.take_name(&container.name(), &container.id) {
            warn!("{error}");
            continue;
        }
        let _known = container.known.send_replace(false);
        daemon.engine.add(&container);
        container.read(|record| daemon.take_up_volumes(record, false));
        before.push(container);
    }
    let mut adopting = JoinSet::new();
    for container in before {
        let daemon = Arc::clone(daemon);
        let _task = adopting.spawn(async move {
            // Whoever wants to change it waits until it is known what it does.
            let _changing = container.changing.lock().await;
            let again = adopt(&daemon, &container).await;
            let _unknown = container.known.send_replace(true);
            again.then(|| Arc::clone(&container))
        });
    }
    let mut again = Vec::new();
    let deadline = tokio::time::Instant::now() + DECIDED;
    while let Ok(Some(adopted)) = tokio::time::timeout_at(deadline, adopting.join_next()).await {
        again.extend(adopted.ok().flatten());
    }
    let lives = |container: &Arc<Container>| container.is_running() || container.changing.try_lock().is_err();
    let running = daemon.engine.all().into_iter().filter(lives);
    let running = running.map(|container| container.id.clone()).collect();
    let networks = daemon.networks.clone();
    // A sandbox of nobody is no reason not to serve.
    if let Err(error) = blocking(move || networks.keep(&running)).await {
        warn!("{error}");
    }
    leftovers::clear(daemon, &known).await;
    // Not before what they had is gone.
    drop(tokio::spawn(start_again(Arc::clone(daemon), again)));
    if !adopting.is_empty() {
        warn!("{} shims do not answer: their containers are taken up when they do", adopting.len());
        let daemon = Arc::clone(daemon);
        drop(tokio::spawn(async move {
            while let Some(adopted) = adopting.join_next().await {
                start_again(Arc::clone(&daemon), adopted.ok().flatten().into_iter().collect()).await;
            }
        }));
    }
    Ok(())
}

/// Takes one up; gives whether it is to be started again.
async fn adopt(daemon: &Arc<Daemon>, container: &Arc<Container>) -> bool {
    // A container that has a record has all else, too: a removal that was not acknowledged is as if it had not been asked for.
    let record = container.change(|record| {
        record.state.removing = false;
        record.clone()
    });
    match find_or_wait(daemon, container, &record).await {
        Some((task, pid, paused)) => {
            info!("container {} runs on", record.id);
            daemon.take_up_volumes(&record, true);
            // The daemon was killed before it could say that it had started it.
            let unsaid = !record.state.running || record.state.restarting;
            let settings = daemon.networks.settings(&record.id).map(serde_json::to_value);
            container.change(|record| {
                let state = &mut record.state;
                state.running = true;
                state.restarting = false;
                state.paused = paused;
                state.pid = pid;
                if unsaid {
                    state.started_at = Timestamp::now();
                    state.exit_code = 0;
                    state.error.clear();
                    record.was_started = true;
                    record.was_stopped = false;
                    if let Some(Ok(settings)) = settings {
                        record.network = settings;
                    }
                }
            });
            if unsaid && let Err(error) = container.save(daemon).await {
                warn!("{error}");
            }
            leftovers::drain_execs(daemon, &record.id, &task);
            if let Err(error) = resume(daemon, container, &record, &task).await {
                warn!("taking the streams of {} up: {error}", record.id);
            }
            container.set_task(Some(task.clone()));
            container.life.send_modify(|life| life.running = true);
            health::begin(daemon, container);
            ending::watch(daemon, container, task);
            false
        }
        None => not_running(daemon, container, &record).await,
    }
}

/// The container behind its shim, if it runs. That no shim can be started or asked – the runtime is not in daemon.json any more,
/// the shim's binary is away for an upgrade, there are no descriptors – is no word about the container: for as long as its
/// processes live it is tried again, unless somebody wants it killed meanwhile, who waits for no shim at all.
async fn find_or_wait(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    record: &Record,
) -> Option<(Task, u32, bool)> {
    let (mut pause, mut first) = (FIRST_PAUSE, None);
    loop {
        let found = tokio::select! {
            found = find(daemon, record) => found,
            () = container.becomes_doomed() => None,
        };
        if found.is_some() {
            return found;
        }
        // Most do not run, and have none.
        let has_bundle = bundle_of(daemon, &record.id).try_exists().unwrap_or(true);
        if !has_bundle || container.is_doomed() || !living::lives(&record.id).await {
            return None;
        }
        warn!("container {} lives, and no shim takes it over yet", record.id);
        if pause == FIRST_PAUSE {
            first = ending::first_of(container);
        }
        let _ended = ending::pause_unless_ended(container, pause, &mut first).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Looks once; a shim that has died is followed by another.
async fn find(daemon: &Arc<Daemon>, record: &Record) -> Option<(Task, u32, bool)> {
    let bundle = bundle_of(daemon, &record.id);
    if !bundle.join("config.json").exists() {
        return None;
    }
    let launch = &daemon.engine.launch;
    // The daemon before may have been killed while it started a shim, which comes to be all the same.
    if let Err(error) = launch.settle(&bundle).await {
        warn!("{error}");
    }
    if !bundle.join("address").exists() {
        launch.end_strays(&bundle).await;
        return None;
    }
    let deadline = Instant::now() + MADE;
    let mut follows = true;
    loop {
        let connection = match launch.connect(&bundle).await {
            Some(connection) => connection,
            None if follows => {
                let started = match daemon.runtime_binary(&record.host_config.runtime) {
                    Ok(binary) => launch.start(&record.id, &bundle, &binary).await,
                    Err(error) => Err(error),
                };
                match started {
                    Ok(connection) => connection,
                    Err(error) => {
                        warn!("{error}");
                        return None;
                    }
                }
            }
            None => return None,
        };
        let task = Task::new(connection, &record.id);
        match task.state("").await {
            // Even one that has ended has a status to give.
            Ok(seen) if !seen.created => return Some((task, seen.pid, seen.paused)),
            // Made, and never acknowledged as started: it goes.
            Ok(_) => {
                let _none = task.kill("", 9, true).await;
                let _none = task.delete("").await;
            }
            Err(_) => {}
        }
        // Another follows one that died or hung; one that is still making the container stays until that is done.
        follows = task.is_gone();
        task.shutdown().await;
        drop(task);
        if Instant::now() > deadline {
            warn!("the shim of {} neither runs a container nor ends: it is killed", record.id);
            launch.end_strays(&bundle).await;
            return None;
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Reads its streams on, whatever becomes of the log: it would stop inside its next write.
async fn resume(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    record: &Record,
    task: &Task,
) -> Result<()> {
    let bundle = bundle_of(daemon, &record.id);
    let (how, folder, of) = (log_of(&record.host_config), folder_of(daemon, &record.id), logged(record));
    let log = match blocking(move || LogDriver::resume(&how, &folder, &of)).await {
        Ok(log) => Some(Arc::new(log)),
        Err(error) => {
            warn!("the log of {}: {error}", record.id);
            None
        }
    };
    let _none = container.set_log(log.clone());
    let stderr = (!record.config.tty).then(|| bundle.join("err"));
    container.streams.begin(&bundle.join("out"), stderr.as_deref(), log.as_ref())?;
    if record.config.open_stdin {
        let (task, tty) = (task.clone(), record.config.tty);
        container.streams.begin_input(&bundle.join("in"), move || async move {
            if !tty {
                let _ended = task.close_input("").await;
            }
        })?;
    }
    Ok(())
}

/// What ended while there was no daemon and no shim, or never ran. Gives whether it is to be started again.
async fn not_running(daemon: &Arc<Daemon>, container: &Arc<Container>, record: &Record) -> bool {
    let bundle = bundle_of(daemon, &record.id);
    if bundle.exists() {
        // Also where somebody wants one killed that no shim takes over.
        if let Err(error) = ending::end_without_shim(daemon, container).await {
            warn!("{error}");
        }
        release(daemon, container).await;
    }
    if record.state.running {
        container.change(|record| {
            let state = &mut record.state;
            if !state.restarting {
                // Nobody has seen how it ended.
                state.exit_code = 255;
                state.finished_at = Timestamp::now();
            }
            state.running = false;
            state.restarting = false;
            state.paused = false;
            state.pid = 0;
        });
        if let Err(error) = container.save(daemon).await {
            warn!("{error}");
        }
        container.life.send_modify(|life| {
            life.ends += 1;
            life.running = false;
            life.exit_code = container.read(|record| record.state.exit_code);
        });
    }
    // Somebody has ended it while a shim was looked for: no policy starts it again.
    if container.is_doomed() || (!record.was_stopped && container.read(|record| record.was_stopped)) {
        if record.host_config.auto_remove && record.was_started {
            super::remove::later(daemon, container);
        }
        return false;
    }
    if record.host_config.auto_remove && record.was_started {
        super::remove::later(daemon, container);
        return false;
    }
    let policy = &record.host_config.restart_policy;
    record.was_started
        && record.task.is_none()
        && match policy.name.as_str() {
            // Even one that was stopped by hand, as dockerd does it.
            "always" => true,
            "unless-stopped" => !record.was_stopped,
            _ => {
                let exit_code = container.read(|record| record.state.exit_code);
                let (stopped, restarts) = (record.was_stopped, record.restart_count);
                let (ran, pause) = (Duration::ZERO, Duration::ZERO);
                restart::decide(policy, Ended { exit_code, stopped, restarts, ran, pause }).is_some()
            }
        }
}
