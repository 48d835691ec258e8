//! What an earlier daemon has left: each container of the store is compared with its shim, and what runs goes on.

use std::sync::Arc;

use tracing::{info, warn};

use super::container::{Container, Record, TABLE};
use super::lifecycle::{bundle_of, folder_of, log_of, logged, release, run};
use super::{ending, health};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::logs::LogDriver;
use crate::shim::Task;
use crate::shim::events::{self, Told};

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
    for (_, record) in daemon.store.all::<Record>(TABLE)? {
        let container = Arc::new(Container::new(record));
        if let Err(error) = daemon.engine.take_name(&container.name(), &container.id) {
            warn!("{error}");
            continue;
        }
        daemon.engine.add(&container);
        container.read(|record| daemon.take_up_volumes(record, false));
        before.push(container);
    }
    for container in before {
        adopt(daemon, &container).await;
    }
    let running = daemon.engine.all().into_iter().filter(|container| container.is_running());
    let running = running.map(|container| container.id.clone()).collect();
    let networks = daemon.networks.clone();
    // A sandbox of nobody is no reason not to serve.
    if let Err(error) = blocking(move || networks.keep(&running)).await {
        warn!("{error}");
    }
    Ok(())
}

async fn adopt(daemon: &Arc<Daemon>, container: &Arc<Container>) {
    let record = container.read(Record::clone);
    if record.state.removing {
        // It had begun, and nobody has been told that it is done.
        container.change(|record| record.state.removing = false);
        let how = super::remove::Remove { force: true, volumes: false };
        if let Err(error) = super::remove::remove(daemon, container, &record.id, how).await {
            warn!("{error}");
        }
        return;
    }
    let found = find(daemon, &record).await;
    match found {
        Some((task, pid, paused)) => {
            info!("container {} runs on", record.id);
            daemon.take_up_volumes(&record, true);
            container.change(|record| {
                record.state.running = true;
                record.state.restarting = false;
                record.state.paused = paused;
                record.state.pid = pid;
            });
            if let Err(error) = resume(daemon, container, &record, &task) {
                warn!("taking the streams of {} up: {error}", record.id);
            }
            container.set_task(Some(task.clone()));
            container.life.send_modify(|life| life.running = true);
            health::begin(daemon, container);
            ending::watch(daemon, container, task);
        }
        None => not_running(daemon, container, &record).await,
    }
}

/// The container behind its shim, if it runs; a shim that has died is followed by another.
async fn find(daemon: &Arc<Daemon>, record: &Record) -> Option<(Task, u32, bool)> {
    let bundle = bundle_of(daemon, &record.id);
    if !bundle.join("config.json").exists() || !bundle.join("address").exists() {
        return None;
    }
    let launch = &daemon.engine.launch;
    let connection = match launch.connect(&bundle).await {
        Some(connection) => connection,
        None => {
            let binary = daemon.runtime_binary(&record.host_config.runtime).ok()?;
            match launch.start(&record.id, &bundle, &binary).await {
                Ok(connection) => connection,
                Err(error) => {
                    warn!("{error}");
                    return None;
                }
            }
        }
    };
    let task = Task::new(connection, &record.id);
    match task.state("").await {
        // Even one that has ended has a status to give.
        Ok(seen) if !seen.created => Some((task, seen.pid, seen.paused)),
        // Made, and never acknowledged as started: it goes.
        Ok(_) => {
            let _none = task.kill("", 9, true).await;
            let _none = task.delete("").await;
            task.shutdown().await;
            None
        }
        Err(_) => {
            task.shutdown().await;
            None
        }
    }
}

fn resume(daemon: &Arc<Daemon>, container: &Arc<Container>, record: &Record, task: &Task) -> Result<()> {
    let bundle = bundle_of(daemon, &record.id);
    let log = LogDriver::open(&log_of(&record.host_config), &folder_of(daemon, &record.id), &logged(record))?;
    let log = Arc::new(log);
    let _none = container.set_log(Some(Arc::clone(&log)));
    let stderr = (!record.config.tty).then(|| bundle.join("err"));
    container.streams.begin(&bundle.join("out"), stderr.as_deref(), Some(&log))?;
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

/// What ended while there was no daemon and no shim, or never ran.
async fn not_running(daemon: &Arc<Daemon>, container: &Arc<Container>, record: &Record) {
    let bundle = bundle_of(daemon, &record.id);
    if bundle.exists() {
        let _cleaned = daemon.engine.launch.delete(&record.id, &bundle).await;
        release(daemon, container).await;
    }
    if record.state.running {
        container.change(|record| {
            let state = &mut record.state;
            if !state.restarting {
                // Nobody has seen how it ended.
                state.exit_code = 255;
                state.finished_at = crate::timestamp::Timestamp::now();
            }
            state.running = false;
            state.restarting = false;
            state.paused = false;
            state.pid = 0;
        });
        if let Err(error) = container.save(daemon).await {
            warn!("{error}");
        }
        container.life.send_modify(|life| life.exit_code = container.read(|record| record.state.exit_code));
    }
    if record.host_config.auto_remove && record.was_started {
        super::remove::later(daemon, container);
        return;
    }
    let again = match record.host_config.restart_policy.name.as_str() {
        "always" => record.was_started,
        "unless-stopped" => record.was_started && !record.was_stopped,
        "on-failure" => record.state.running && !record.was_stopped,
        _ => false,
    };
    if again {
        let (daemon, container) = (Arc::clone(daemon), Arc::clone(container));
        drop(tokio::spawn(async move {
            let _changing = container.changing.lock().await;
            if container.is_running() {
                return;
            }
            container.change(|record| record.was_stopped = false);
            if let Err(error) = run(&daemon, &container).await {
                warn!("starting {} again: {error}", container.id);
            }
        }));
    }
}
