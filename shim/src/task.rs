//! The Task service, versions 2 and 3: each call's message in, what is done for it, its answer out.

use std::rc::Rc;

use ketch_shim_api::events::{TaskExecStarted, TaskPaused, TaskResumed, TaskStart};
use ketch_shim_api::options::ProcessDetails;
use ketch_shim_api::process::ProcessInfo;
use ketch_shim_api::task as api;
use ketch_shim_api::wire::{Any, Empty};
use prost::Message;
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

use crate::cgroup::Cgroup;
use crate::container::{self, Container};
use crate::error::{ShimError, from_kill};
use crate::process::{Action, State};
use crate::server::Limits;
use crate::service::Shim;
use crate::{checkpoint, console, exec, log, stats};

/// SIGKILL.
const KILL: u32 = 9;

/// Carries a call out.
///
/// # Errors
/// The method is not known, its message can't be read, or what it asks for fails.
pub(crate) async fn call(
    shim: &Rc<Shim>,
    method: &str,
    payload: &[u8],
    limits: Limits,
) -> Result<Vec<u8>, ShimError> {
    match method {
        "State" => state(shim, &decode(payload)?).map(encode),
        "Create" => {
            let pid = container::create(shim, decode(payload)?, limits).await?;
            Ok(encode(api::CreateTaskResponse { pid }))
        }
        "Start" => start(shim, &decode(payload)?, limits).await.map(encode),
        "Delete" => delete(shim, &decode(payload)?, limits).await.map(encode),
        "Pids" => pids(shim, &decode(payload)?, limits).await.map(encode),
        "Pause" => pause(shim, &decode(payload)?, limits).await.map(encode),
        "Resume" => resume(shim, &decode(payload)?, limits).await.map(encode),
        "Checkpoint" => checkpoint::save(shim, &decode(payload)?, limits).await.map(encode),
        "Kill" => kill(shim, &decode(payload)?, limits).await.map(encode),
        "Exec" => {
            let request: api::ExecProcessRequest = decode(payload)?;
            let container = shim.container(&request.id)?;
            exec::add(shim, &container, request).map(|()| encode(Empty {}))
        }
        "ResizePty" => {
            let request: api::ResizePtyRequest = decode(payload)?;
            let process = shim.container(&request.id)?.process(&request.exec_id)?;
            console::resize(&process, request.width, request.height).map(|()| encode(Empty {}))
        }
        "CloseIO" => close_io(shim, &decode(payload)?).map(encode),
        "Update" => update(shim, &decode(payload)?, limits).await.map(encode),
        "Wait" => wait(shim, &decode(payload)?, limits).await.map(encode),
        "Stats" => {
            let request: api::StatsRequest = decode(payload)?;
            let container = shim.container(&request.id)?;
            let stats = stats::of(&container)?;
            Ok(encode(api::StatsResponse { stats: Some(stats) }))
        }
        "Connect" => connect(shim, &decode(payload)?).map(encode),
        "Shutdown" => {
            shutdown(shim);
            Ok(encode(Empty {}))
        }
        _ => Err(ShimError::Unimplemented(format!("method {method}"))),
    }
}

/// Reads a call's message.
///
/// # Errors
/// The bytes are none.
pub(crate) fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, ShimError> {
    M::decode(payload).map_err(|source| ShimError::Decode { what: "the request", source })
}

pub(crate) fn encode(message: impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn state(shim: &Shim, request: &api::StateRequest) -> Result<api::StateResponse, ShimError> {
    let container = shim.container(&request.id)?;
    let process = container.process(&request.exec_id)?;
    // A paused container's processes are all paused.
    let frozen = matches!(container.init.state.get(), State::Paused | State::Pausing);
    let state =
        if frozen && process.finished().is_none() { container.init.state.get() } else { process.state.get() };
    let finished = process.finished();
    Ok(api::StateResponse {
        id: if request.exec_id.is_empty() { request.id.clone() } else { request.exec_id.clone() },
        bundle: container.bundle.to_string_lossy().into_owned(),
        pid: process.pid.get().unsigned_abs(),
        status: state.status() as i32,
        stdin: process.paths.stdin.clone(),
        stdout: process.paths.stdout.clone(),
        stderr: process.paths.stderr.clone(),
        terminal: process.paths.terminal,
        exit_status: finished.map_or(0, |exit| exit.status),
        exited_at: finished.map(|exit| exit.at.into()),
        exec_id: request.exec_id.clone(),
    })
}

async fn start(
    shim: &Rc<Shim>,
    request: &api::StartRequest,
    limits: Limits,
) -> Result<api::StartResponse, ShimError> {
    let container = shim.container(&request.id)?;
    let process = container.process(&request.exec_id)?;
    let changing = process.changing.lock().await;
    if request.exec_id.is_empty() {
        process.state.get().allow(Action::Start)?;
        match &container.checkpoint {
            Some(images) => checkpoint::restore(shim, &container, images, limits).await?,
            None => container
                .runtime
                .start(shim.reaper.as_ref(), &container.id, limits.runtime())
                .await
                .map_err(ShimError::runtime("OCI runtime start failed"))?,
        }
        process.state.set(State::Running);
    } else {
        exec::start(shim, &container, &process, limits).await?;
    }
    let pid = process.pid.get().unsigned_abs();
    let container_id = container.id.clone();
    if request.exec_id.is_empty() {
        shim.events.publish("/tasks/start", &TaskStart { container_id, pid });
    } else {
        let event = TaskExecStarted { container_id, exec_id: request.exec_id.clone(), pid };
        shim.events.publish("/tasks/exec-started", &event);
    }
    container.remember(shim);
    drop(changing);
    Ok(api::StartResponse { pid })
}

async fn delete(
    shim: &Rc<Shim>,
    request: &api::DeleteRequest,
    limits: Limits,
) -> Result<api::DeleteResponse, ShimError> {
    let container = shim.container(&request.id)?;
    let process = container.process(&request.exec_id)?;
    let exit = if request.exec_id.is_empty() {
        container::delete(shim, &container, limits).await?
    } else {
        exec::delete(shim, &container, &process).await?
    };
    Ok(api::DeleteResponse {
        pid: exit.pid.unsigned_abs(),
        exit_status: exit.status,
        exited_at: Some(exit.at.into()),
    })
}

async fn pids(
    shim: &Shim,
    request: &api::PidsRequest,
    limits: Limits,
) -> Result<api::PidsResponse, ShimError> {
    let container = shim.container(&request.id)?;
    let ids = container
        .runtime
        .ps(shim.reaper.as_ref(), &container.id, limits.runtime())
        .await
        .map_err(ShimError::runtime("OCI runtime ps failed"))?;
    let execs = container.execs.borrow();
    let added = |pid: u32| execs.values().find(|process| process.pid.get().unsigned_abs() == pid);
    let processes = ids
        .into_iter()
        .map(|pid| {
            let details = added(pid).map(|process| ProcessDetails { exec_id: process.exec_id.clone() });
            ProcessInfo { pid, info: details.map(|details| Any::pack(&details)) }
        })
        .collect();
    Ok(api::PidsResponse { processes })
}

async fn pause(shim: &Shim, request: &api::PauseRequest, limits: Limits) -> Result<Empty, ShimError> {
    let container = shim.container(&request.id)?;
    let init = &container.init;
    let _changing = init.changing.lock().await;
    init.state.get().allow(Action::Pause)?;
    init.state.set(State::Pausing);
    let paused = container.runtime.pause(shim.reaper.as_ref(), &container.id, limits.runtime()).await;
    init.state.set(if paused.is_ok() { State::Paused } else { State::Running });
    paused.map_err(ShimError::runtime("OCI runtime pause failed"))?;
    container.remember(shim);
    shim.events.publish("/tasks/paused", &TaskPaused { container_id: container.id.clone() });
    Ok(Empty {})
}

async fn resume(shim: &Shim, request: &api::ResumeRequest, limits: Limits) -> Result<Empty, ShimError> {
    let container = shim.container(&request.id)?;
    let init = &container.init;
    let _changing = init.changing.lock().await;
    init.state.get().allow(Action::Resume)?;
    let resumed = container.runtime.resume(shim.reaper.as_ref(), &container.id, limits.runtime()).await;
    resumed.map_err(ShimError::runtime("OCI runtime resume failed"))?;
    init.state.set(State::Running);
    container.remember(shim);
    shim.events.publish("/tasks/resumed", &TaskResumed { container_id: container.id.clone() });
    Ok(Empty {})
}

async fn kill(shim: &Shim, request: &api::KillRequest, limits: Limits) -> Result<Empty, ShimError> {
    let container = shim.container(&request.id)?;
    let process = container.process(&request.exec_id)?;
    let _under_way = container.kills.read().await;
    if request.exec_id.is_empty() && request.all && request.signal != KILL {
        return kill_each(shim, &container, request.signal, limits).await;
    }
    if request.exec_id.is_empty() {
        let (runtime, reaper) = (&container.runtime, shim.reaper.as_ref());
        runtime
            .kill(reaper, &container.id, request.signal, request.all, limits.runtime())
            .await
            .map_err(from_kill)?;
        return Ok(Empty {});
    }
    let finished = || ShimError::NotFound("process already finished".into());
    let pid = Pid::from_raw(process.pid.get()).filter(|_| process.state.get() != State::Created);
    let pid = pid.ok_or_else(|| ShimError::Precondition("process not created".into()))?;
    if process.has_ended() {
        return Err(finished());
    }
    let signal = ketch_shim_sys::signal(request.signal)
        .ok_or_else(|| ShimError::Invalid(format!("there is no signal {}", request.signal)))?;
    // It has not been reaped: the number is its own.
    kill_process(pid, signal).map_err(|error| {
        if error == rustix::io::Errno::SRCH {
            finished()
        } else {
            ShimError::system("exec kill error")(error)
        }
    })?;
    Ok(Empty {})
}

/// A signal to every process. Runtimes no longer have that (runc since 1.2): `--all` is for SIGKILL, or without effect.
async fn kill_each(
    shim: &Shim,
    container: &Container,
    signal: u32,
    limits: Limits,
) -> Result<Empty, ShimError> {
    let number = signal;
    let signal = ketch_shim_sys::signal(number)
        .ok_or_else(|| ShimError::Invalid(format!("there is no signal {number}")))?;
    let ids = container
        .runtime
        .ps(shim.reaper.as_ref(), &container.id, limits.runtime())
        .await
        .map_err(from_kill)?;
    let mut reached = false;
    for id in ids {
        let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) else { continue };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // In this order: what the descriptor holds was in the container's cgroup, whoever has its number later.
        let own =
            container.cgroup.borrow().as_ref().is_some_and(|own| {
                Cgroup::of(pid.as_raw_nonzero().get()).is_ok_and(|theirs| own.holds(&theirs))
            });
        reached |= own && pidfd_send_signal(&pidfd, signal).is_ok();
    }
    if reached { Ok(Empty {}) } else { Err(ShimError::NotFound("process already finished".into())) }
}

fn close_io(shim: &Shim, request: &api::CloseIoRequest) -> Result<Empty, ShimError> {
    let container = shim.container(&request.id)?;
    let process = container.process(&request.exec_id)?;
    if let Some(streams) = process.streams.borrow().as_ref() {
        streams.close_input();
    }
    process.stdin_closed.set(true);
    container.remember(shim);
    Ok(Empty {})
}

async fn update(shim: &Shim, request: &api::UpdateTaskRequest, limits: Limits) -> Result<Empty, ShimError> {
    let container = shim.container(&request.id)?;
    let _changing = container.init.changing.lock().await;
    container.init.state.get().allow(Action::Update)?;
    let resources =
        request.resources.as_ref().ok_or_else(|| ShimError::Invalid("no resources to update".into()))?;
    container
        .runtime
        .update(shim.reaper.as_ref(), &container.id, &resources.value, limits.runtime())
        .await
        .map_err(ShimError::runtime("OCI runtime update failed"))?;
    Ok(Empty {})
}

async fn wait(
    shim: &Shim,
    request: &api::WaitRequest,
    limits: Limits,
) -> Result<api::WaitResponse, ShimError> {
    let process = shim.container(&request.id)?.process(&request.exec_id)?;
    let exit = match limits.timeout {
        Some(timeout) => tokio::time::timeout(timeout, process.wait())
            .await
            .map_err(|_| ShimError::Deadline("the process runs on".into()))?,
        None => process.wait().await,
    };
    Ok(api::WaitResponse { exit_status: exit.status, exited_at: Some(exit.at.into()) })
}

fn connect(shim: &Shim, request: &api::ConnectRequest) -> Result<api::ConnectResponse, ShimError> {
    let container = shim.container(&request.id);
    let pid = container.map_or(0, |container| container.init.pid.get());
    Ok(api::ConnectResponse {
        shim_pid: std::process::id(),
        task_pid: pid.unsigned_abs(),
        version: String::new(),
    })
}

/// Ends the shim if it holds nothing any more.
pub(crate) fn shutdown(shim: &Shim) {
    if shim.has_containers() || shim.sandbox.borrow().as_ref().is_some_and(|sandbox| !sandbox.is_stopped()) {
        log::write("info", "shutdown: the shim still holds containers");
        return;
    }
    shim.leave();
}
