//! The start of a container, step by step; what fails on the way is undone. What follows from its end is in `ending`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ketch_engine_api::host_config::HostConfig;
use serde_json::Value;
use tracing::warn;

use super::container::{Container, Record};
use super::deliver::to_change;
use super::specification::specification;
use super::streams::{LAST_LINES, make_fifo};
use super::{checkpoint, ending, health, namespaces, networking, root, task};
use crate::blocking::blocking;
use crate::compat;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::locks::locked;
use crate::logs::{self, LogDriver};
use crate::shim::Task;
use crate::shim::task::{Fifos, Making};
use crate::timestamp::Timestamp;
use crate::{mounted, remap, removal};

/// Where a bundle has the container's root.
pub(super) const ROOT: &str = "rootfs";
/// How long a process may take to end after SIGKILL.
const ENDED: Duration = Duration::from_secs(10);

/// Starts a container for a client.
///
/// # Errors
/// It runs already, is frozen or is being removed; it does not start, with the status that Docker would have.
pub async fn start(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<()> {
    start_from(daemon, container, None).await
}

/// The same, from a checkpoint of the container's own.
///
/// # Errors
/// There is none of this name; criu fails; as [`start`].
pub async fn start_from(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    checkpoint: Option<&str>,
) -> Result<()> {
    let changing = to_change(container).await?;
    may_start(container)?;
    container.read(task::may_start)?;
    container.change(|record| {
        record.was_stopped = false;
        record.restart_count = 0;
        record.state.restart_reason.clear();
    });
    *locked(&container.pause) = Duration::ZERO;
    let started = run_from(daemon, container, checkpoint).await;
    drop(changing);
    // Before the client hears of it: it waits for the removal no more once it has.
    if started.is_err() && container.read(|record| record.host_config.auto_remove) {
        super::remove::itself(daemon, container).await;
    }
    started
}

/// Whether it can be started as it is now.
///
/// # Errors
/// As [`start`].
pub fn may_start(container: &Container) -> Result<()> {
    container.read(|record| {
        let state = &record.state;
        if state.paused {
            Err(Error::conflict("cannot start a paused container, try unpause instead"))
        } else if state.running {
            Err(Error::new(Kind::NotModified, "container is already running"))
        } else if state.removing || state.dead {
            Err(Error::conflict("container is marked for removal and cannot be started"))
        } else {
            Ok(())
        }
    })
}

/// Starts a container; `changing` is held. On a failure nothing is left of the attempt but the state that tells of it.
///
/// # Errors
/// As [`start`].
pub(super) async fn run(daemon: &Arc<Daemon>, container: &Arc<Container>) -> Result<()> {
    run_from(daemon, container, None).await
}

async fn run_from(daemon: &Arc<Daemon>, container: &Arc<Container>, checkpoint: Option<&str>) -> Result<()> {
    let begun = match begin(daemon, container, checkpoint).await {
        // One that nobody would know of after a crash has not been started.
        Ok(task) => match container.save(daemon).await {
            Ok(()) => Ok(task),
            Err(error) => {
                undo(daemon, container, &task).await;
                Err(error)
            }
        },
        begun => begun,
    };
    match begun {
        Ok(task) => {
            container.set_task(Some(task.clone()));
            container.life.send_modify(|life| life.running = true);
            health::begin(daemon, container);
            container.publish(daemon, "start");
            ending::watch(daemon, container, task);
            Ok(())
        }
        Err(error) => {
            let failed = not_started(error);
            release(daemon, container).await;
            container.change(|record| {
                let state = &mut record.state;
                state.running = false;
                state.restarting = false;
                state.pid = 0;
                state.exit_code = failed.exit_code;
                state.error.clone_from(&failed.error.message);
                state.finished_at = Timestamp::now();
            });
            // The client hears why it did not start, whatever becomes of the note of it.
            if let Err(error) = container.save(daemon).await {
                warn!("{error}");
            }
            // Docker's waiters do not hear of a start that failed; a removal ends their wait.
            container.life.send_modify(|life| {
                life.running = false;
                life.exit_code = failed.exit_code;
            });
            Err(failed.error)
        }
    }
}

/// Ends what a start has made. The shim ends once it holds nothing; what it still holds goes first.
async fn undo(daemon: &Arc<Daemon>, container: &Container, task: &Task) {
    if task.kill("", 9, true).await.is_ok() {
        let _ended = tokio::time::timeout(ENDED, task.wait("")).await;
    }
    let _none = task.delete("").await;
    if task.is_gone()
        && let Err(error) = ending::end_without_shim(daemon, container).await
    {
        warn!("{error}");
    }
    task.shutdown().await;
}

/// A failed start as clients see it.
struct NotStarted {
    exit_code: i64,
    error: Error,
}

/// 126, 127 or 128, by the text; so do Docker's.
fn not_started(error: Error) -> NotStarted {
    if error.kind != Kind::Internal {
        return NotStarted { exit_code: 128, error };
    }
    let (exit_code, kind, more) = compat::start_failure(&error.message);
    NotStarted { exit_code, error: Error::new(kind, format!("{}{more}", error.message)) }
}

/// The folder of a container's shim.
#[must_use]
pub fn bundle_of(daemon: &Daemon, id: &str) -> PathBuf {
    daemon.config.exec_root.join(id)
}

/// The folder of what a container keeps.
#[must_use]
pub fn folder_of(daemon: &Daemon, id: &str) -> PathBuf {
    daemon.config.data_root.join("containers").join(id)
}

/// Removes a folder of a container with all that is in it, and takes away what is mounted there first.
///
/// # Errors
/// The disk, or a mount that can't be taken away: it stays, and so does what is in the way to it.
pub(super) fn remove_folder(folder: &Path) -> Result<()> {
    // Mostly there is a root only, or nothing any more. A removal does not go through a mount: what else is there stops it, and
    // only then is the table of all mounts read, which has those of all other containers.
    let _none = mounted::unmount(&folder.join(ROOT));
    if removal::remove(folder).is_ok() {
        return Ok(());
    }
    mounted::unmount_all(folder)
        .map_err(|error| Error::internal(format_args!("unmounting {}", folder.display()), &error))?;
    removal::remove(folder)
        .map_err(|error| Error::internal(format_args!("removing {}", folder.display()), &error))
}

/// Makes a folder of this mode.
///
/// # Errors
/// The disk.
pub(super) fn make_folder(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|error| Error::internal(format_args!("making {}", path.display()), &error))
}

async fn begin(daemon: &Arc<Daemon>, container: &Arc<Container>, checkpoint: Option<&str>) -> Result<Task> {
    networking::take_names(daemon, container);
    let _before = container.doomed.send_replace(false);
    let record = container.read(Record::clone);
    let images = match checkpoint {
        Some(name) => checkpoint::images(daemon, &record, name).await?,
        None => String::new(),
    };
    let bundle = bundle_of(daemon, &record.id);
    drop(container.letting_go.lock().await);
    let (mounted, joined) =
        tokio::join!(mount_root(daemon, &record.id, &bundle), namespaces::join(daemon, &record));
    mounted?;
    let joined = joined?;
    container.change(|record| record.network.clone_from(&joined.settings));
    let spec = specification(daemon, &record, &bundle, &joined).await?;
    write(&bundle.join("config.json"), &spec)?;
    let fifos = fifos(&bundle, "", record.config.tty, record.config.open_stdin)?;
    // A server may be asked for ten seconds before it is not there.
    let (how, folder, of) = (log_of(&record.host_config), folder_of(daemon, &record.id), logged(&record));
    let log = blocking(move || LogDriver::open(&how, &folder, &of)).await.map_err(|error| {
        Error::new(
            error.kind,
            format!(
                "failed to create task for container: failed to initialize logging driver: {}",
                error.message
            ),
        )
    })?;
    let log = Arc::new(log);
    let _before = container.set_log(Some(Arc::clone(&log)));
    let stderr = (!record.config.tty).then(|| PathBuf::from(&fifos.stderr));
    container.streams.begin(Path::new(&fifos.stdout), stderr.as_deref(), Some(&log))?;
    let engine = &daemon.engine;
    let binary = daemon.runtime_binary(&record.host_config.runtime)?;
    let connection = engine.launch.start(&record.id, &bundle, &binary).await?;
    let task = Task::new(connection.clone(), &record.id);
    let bundle = bundle.to_string_lossy().into_owned();
    let owner = if namespaces::is_remapped(daemon, &record) { daemon.ids.root() } else { (0, 0) };
    let making = Making { bundle, fifos, options: engine.launch.options(&binary, owner), images };
    match create(container, &record, &task, making).await {
        Ok(()) => Ok(task),
        Err(error) => {
            undo(daemon, container, &task).await;
            Err(error)
        }
    }
}

async fn create(container: &Arc<Container>, record: &Record, task: &Task, making: Making) -> Result<()> {
    let failed = |error: crate::shim::CallError| {
        Error::new(Kind::Internal, compat::task_not_created(&error.to_string()))
    };
    let input = making.fifos.stdin.clone();
    task.create(making).await.map_err(failed)?;
    if !input.is_empty() {
        let (task, tty) = (task.clone(), record.config.tty);
        container.streams.begin_input(Path::new(&input), move || async move {
            if !tty {
                let _ended = task.close_input("").await;
            }
        })?;
    }
    let pid = task.start("").await.map_err(failed)?;
    container.change(|record| {
        let state = &mut record.state;
        state.running = true;
        state.restarting = false;
        state.paused = false;
        state.oom_killed = false;
        state.pid = pid;
        state.exit_code = 0;
        state.error.clear();
        state.started_at = Timestamp::now();
        record.was_started = true;
    });
    Ok(())
}

async fn mount_root(daemon: &Arc<Daemon>, id: &str, bundle: &Path) -> Result<()> {
    let rootfs = daemon.rootfs(id).await?;
    let (target, bundle, ids) = (bundle.join(ROOT), bundle.to_owned(), daemon.ids.clone());
    blocking(move || {
        // A release that failed may have left anything.
        remove_folder(&bundle)?;
        // It may hold setuid files: nobody else on the host gets there (CVE-2021-41091).
        make_folder(&target, 0o700)?;
        remap::pass(&bundle, &ids)
            .map_err(|error| Error::internal(format_args!("opening {}", bundle.display()), &error))?;
        root::mount(&rootfs, &target)
    })
    .await
}

/// Makes a process's fifos in a bundle.
///
/// # Errors
/// The folder.
pub(super) fn fifos(bundle: &Path, prefix: &str, terminal: bool, input: bool) -> Result<Fifos> {
    let make = |name: &str| -> Result<String> {
        let path = bundle.join(format!("{prefix}{name}"));
        make_fifo(&path)?;
        Ok(path.to_string_lossy().into_owned())
    };
    Ok(Fifos {
        stdin: if input { make("in")? } else { String::new() },
        stdout: make("out")?,
        stderr: if terminal { String::new() } else { make("err")? },
        terminal,
    })
}

/// What the container's log is called with.
#[must_use]
pub fn log_of(host_config: &HostConfig) -> logs::LogConfig {
    let asked = &host_config.log_config;
    logs::LogConfig { driver: asked.kind.clone(), options: asked.config.clone().unwrap_or_default() }
}

pub(super) fn logged(record: &Record) -> logs::Container {
    logs::Container {
        id: record.id.clone(),
        name: record.name.clone(),
        command: std::iter::once(record.path.clone()).chain(record.args.iter().cloned()).collect(),
        image_id: record.image.clone(),
        image_name: record.config.image.clone(),
        env: record.config.env.clone().unwrap_or_default(),
        labels: record.config.labels.clone().unwrap_or_default(),
    }
}

fn write(path: &Path, value: &Value) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|error| Error::internal("encoding config.json", &error))?;
    // The environment is in it, often with passwords.
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    opened
        .and_then(|mut file| file.write_all(&bytes))
        .map_err(|error| Error::internal(format_args!("writing {}", path.display()), &error))
}

/// Gives back all that a run had: streams, log, network, volumes, mounts, the bundle.
pub(super) async fn release(daemon: &Arc<Daemon>, container: &Arc<Container>) {
    container.streams.end().await;
    if let Some(log) = container.set_log(None) {
        // What is slower than that goes on by itself.
        let closing = tokio::spawn(async move { log.close(Timestamp::now()).await });
        if tokio::time::timeout(LAST_LINES, closing).await.is_err() {
            warn!("the log of {} does not keep up with its end: its last lines may be missing", container.id);
        }
    }
    let record = container.read(Record::clone);
    let left = networking::leave(daemon, &record);
    daemon.unmount_volumes(&record.id).await;
    let bundle = bundle_of(daemon, &record.id);
    let cleared = blocking(move || remove_folder(&bundle));
    let forgotten = task::forget_files(daemon, &record);
    let ((), cleared, ()) = tokio::join!(left, cleared, forgotten);
    if let Err(error) = cleared {
        warn!("{error}");
    }
}
