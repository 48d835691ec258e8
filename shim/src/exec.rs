//! Processes that are added to a container.

use std::path::Path;
use std::rc::Rc;

use ketch_runtime_client::Exec;
use ketch_shim_api::events::TaskExecAdded;
use ketch_shim_api::task::ExecProcessRequest;

use crate::container::Container;
use crate::error::ShimError;
use crate::launch::launch;
use crate::process::{Action, Process, State, StreamPaths};
use crate::reaper::Exit;
use crate::server::Limits;
use crate::service::Shim;

/// What `exec` of a runtime ends with when it fails: no program has said anything.
const NOT_STARTED: u32 = 255;

/// Adds a process, to be started.
///
/// # Errors
/// The container does not run, the id is taken or no file's name, the process is no JSON.
pub(crate) fn add(shim: &Shim, container: &Container, request: ExecProcessRequest) -> Result<(), ShimError> {
    container.init.state.get().allow(Action::Exec)?;
    let id = request.exec_id.as_str();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if id.is_empty() || id.len() > 128 || !id.bytes().all(fits) {
        return Err(ShimError::Invalid(format!("{id:?} is no id of a process")));
    }
    if container.execs.borrow().contains_key(id) {
        return Err(ShimError::AlreadyExists(format!("id {id}")));
    }
    let spec = request.spec.ok_or_else(|| ShimError::Invalid("the process has no spec".into()))?.value;
    let paths = StreamPaths {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: if request.terminal { String::new() } else { request.stderr },
        terminal: request.terminal,
    };
    let spec = with_terminal(&spec, request.terminal)?;
    container.execs.borrow_mut().insert(id.to_owned(), Rc::new(Process::new(id, paths, spec)));
    let event = TaskExecAdded { container_id: container.id.clone(), exec_id: id.to_owned() };
    shim.events.publish("/tasks/exec-added", &event);
    Ok(())
}

/// Whether there is a terminal is the request's to say.
fn with_terminal(spec: &[u8], terminal: bool) -> Result<Vec<u8>, ShimError> {
    let no_process = |source| ShimError::Json { path: "the process of the request".into(), source };
    let mut spec: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(spec).map_err(no_process)?;
    spec.insert("terminal".to_owned(), terminal.into());
    serde_json::to_vec(&spec).map_err(no_process)
}

/// Starts an added process; the caller holds its `changing`. Its end is told from here on.
///
/// # Errors
/// The container has ended, or the runtime fails: the process has ended then, too.
pub(crate) async fn start(
    shim: &Rc<Shim>,
    container: &Rc<Container>,
    process: &Rc<Process>,
    limits: Limits,
) -> Result<(), ShimError> {
    process.state.get().allow(Action::Start)?;
    if container.init.has_ended() {
        return Err(ShimError::Precondition(format!(
            "container {} init process is not running",
            container.id
        )));
    }
    // From here on the container's end waits for this one's.
    let _counted = container.running_execs.one();
    let made = make(shim, container, process, limits).await;
    match made {
        Ok(()) => process.state.set(State::Running),
        Err(_) => process.finish(Exit { pid: 0, status: NOT_STARTED, at: std::time::SystemTime::now() }),
    }
    made
}

/// Files that only a start needs.
struct Scratch<'a>([&'a Path; 2]);

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        for file in self.0 {
            let _gone = std::fs::remove_file(file);
        }
    }
}

async fn make(
    shim: &Rc<Shim>,
    container: &Rc<Container>,
    process: &Rc<Process>,
    limits: Limits,
) -> Result<(), ShimError> {
    let prefix = Process::file_prefix(&process.exec_id);
    let file = |name: &str| container.bundle.join(format!("{prefix}.{name}"));
    let (spec_file, log_file, pid_file) = (file("json"), file("log"), file("pid"));
    let _scratch = Scratch([&spec_file, &log_file]);
    write_private(&spec_file, &process.spec.take())?;
    let runtime = container.runtime.with_log(log_file.clone());
    launch(shim, container, process, &pid_file, async |socket, stdio| {
        let options = Exec { process: &spec_file, pid_file: &pid_file, console_socket: socket, stdio };
        let started = runtime.exec(shim.reaper.as_ref(), &container.id, options, limits.runtime()).await;
        started.map_err(ShimError::runtime("OCI runtime exec failed"))
    })
    .await
}

/// The process may have secrets in its environment.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ShimError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(ShimError::file("write", path))
}

/// Frees an added process that does not run.
///
/// # Errors
/// It runs.
pub(crate) async fn delete(shim: &Shim, container: &Container, process: &Process) -> Result<Exit, ShimError> {
    let _changing = process.changing.lock().await;
    if process.state.get() == State::Deleted {
        return Err(ShimError::NotFound(format!("process does not exist {}", process.exec_id)));
    }
    process.state.get().allow(Action::Delete)?;
    process.state.set(State::Deleted);
    drop(process.streams.borrow_mut().take());
    let _gone = std::fs::remove_file(
        container.bundle.join(format!("{}.pid", Process::file_prefix(&process.exec_id))),
    );
    container.execs.borrow_mut().remove(&process.exec_id);
    container.remember(shim);
    // One that was never started has no end to tell of.
    Ok(process.finished().unwrap_or(Exit { pid: 0, status: 0, at: std::time::SystemTime::now() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_says_whether_there_is_a_terminal() {
        let spec = with_terminal(br#"{"args":["sh"],"terminal":true}"#, false).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&spec).unwrap()["terminal"], false);
        assert!(with_terminal(b"[]", true).is_err());
    }
}
