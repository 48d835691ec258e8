//! A shim that died has left containers behind that run on. This one, started for one of them, takes them all over: those
//! whose bundles name its socket. They are not its children, so their ends come by pidfd; a status that the kernel does
//! not tell is 255, and is said to be lost.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ketch_shim_sys::WatchedFd;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::container::Container;
use crate::error::{self, ShimError};
use crate::process::{Process, State};
use crate::reaper::{Ending, Exit, status_of_raw};
use crate::record::{self, ProcessRecord, Record};
use crate::service::Shim;
use crate::stdio::{self, Streams};
use crate::{exit, log, sandbox};

/// The status of a process whose own nobody knows.
const LOST: u32 = 255;
/// How long the parent of a process that has ended may take to reap it: before, there is no status.
const REAPED: Duration = Duration::from_secs(5);

/// Takes over what another shim has left. What can't be taken over is logged, and `delete` will end it.
pub(crate) async fn take_over(shim: &Rc<Shim>) {
    let Ok(here) = std::env::current_dir() else { return };
    let bundles = here.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    for bundle in bundles.map(|entry| entry.path()) {
        sandbox::take_over(shim, &bundle);
        match record::read(&bundle) {
            Ok(Some(record)) if Path::new(&record.socket) == shim.socket => {
                let id = record.id.clone();
                if let Err(error) = container(shim, &bundle, record) {
                    log::error(&format!("take over {id}: {}", error::chain(&error)));
                }
            }
            Ok(_) => {}
            Err(error) => log::error(&error::chain(&error)),
        }
    }
}

fn container(shim: &Rc<Shim>, bundle: &Path, record: Record) -> Result<(), ShimError> {
    let mut processes = record.processes.into_iter();
    let first = processes.next().filter(|first| first.exec_id.is_empty());
    let first = first.ok_or_else(|| ShimError::Invalid("the record has no first process".into()))?;
    let container = Container::new(shim, &record.id, bundle, record.config, first.paths.clone())?;
    let container = Rc::new(container);
    for one in processes {
        let process = Rc::new(Process::new(&one.exec_id, one.paths.clone(), Vec::new()));
        container.execs.borrow_mut().insert(one.exec_id.clone(), Rc::clone(&process));
        process_of(shim, &container, &process, &one);
    }
    let init = Rc::clone(&container.init);
    process_of(shim, &container, &init, &first);
    if first.exit.is_none() && !init.has_ended() {
        container.find_cgroup(shim, first.pid);
    }
    shim.containers.borrow_mut().insert(record.id.clone(), Rc::clone(&container));
    container.remember(shim);
    log::write(
        "info",
        &format!("took over {} (process {}, {})", record.id, first.pid, init.state.get().name()),
    );
    Ok(())
}

fn process_of(shim: &Rc<Shim>, container: &Rc<Container>, process: &Rc<Process>, record: &ProcessRecord) {
    process.pid.set(record.pid);
    process.stdin_closed.set(record.stdin_closed);
    if let Some((status, millis)) = record.exit {
        process.finish(Exit { pid: record.pid, status, at: UNIX_EPOCH + Duration::from_millis(millis) });
        return;
    }
    // Between the runtime's start and the note of it the shim died: what runs is no longer only created.
    let running = record.state == State::Created && has_started(container);
    process.state.set(match record.state {
        State::Created if running => State::Running,
        State::Pausing => State::Running,
        state => state,
    });
    match streams(shim, container, process, record) {
        Ok(streams) => process.attach(streams),
        Err(error) => log::error(&format!("the streams of {}: {}", container.id, error::chain(&error))),
    }
    let ending = Rc::new(Ending::default());
    *process.ending.borrow_mut() = Some(Rc::clone(&ending));
    let (pid, start_time) = (record.pid, record.start_time);
    let id = container.id.clone();
    match open(pid, start_time) {
        Some(pidfd) => drop(tokio::task::spawn_local(async move {
            let status = status(pidfd).await;
            if status.is_none() {
                log::error(&format!("the status of process {pid} of {id} is lost: told as {LOST}"));
            }
            ending.set(Exit { pid, status: status.unwrap_or(LOST), at: SystemTime::now() });
        })),
        None => {
            log::error(&format!(
                "process {pid} of {id} ended without a shim: its status is lost, told as {LOST}"
            ));
            ending.set(Exit { pid, status: LOST, at: SystemTime::now() });
        }
    }
    exit::supervise(shim, container, process);
}

/// The runtime's fifo for `start` is gone once it was called; every runtime with runc's layout has one.
fn has_started(container: &Container) -> bool {
    !container.runtime.root.join(&container.id).join("exec.fifo").exists()
}

fn streams(
    shim: &Shim,
    container: &Container,
    process: &Process,
    record: &ProcessRecord,
) -> Result<Streams, ShimError> {
    if record.paths.terminal {
        // Its master went with the shim, and the kernel has hung it up.
        return Ok(Streams::default());
    }
    let prefix = Process::file_prefix(&process.exec_id);
    let opened = stdio::reopen_pipes(container.place(shim, &prefix, &process.paths), record.stdin_closed)?;
    Streams::begin(opened).map_err(ShimError::system("copy the streams"))
}

/// The process of that number, if it is still the one that began then.
fn open(pid: i32, start_time: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // In this order: the descriptor holds what the number named when it was compared.
    (record::start_time(pid) == Some(start_time)).then_some(pidfd)
}

/// Waits for the end; its status if the kernel keeps it.
async fn status(pidfd: OwnedFd) -> Option<u32> {
    let pidfd = WatchedFd::new(pidfd).ok()?;
    pidfd.readable().await.ok()?.retain_ready();
    let told = async {
        loop {
            match ketch_shim_sys::exit_status(pidfd.get_ref()) {
                Ok(Some(status)) => return Some(status_of_raw(status)),
                Ok(None) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(_) => return None,
            }
        }
    };
    tokio::time::timeout(REAPED, told).await.ok().flatten()
}
