//! What the bundle remembers of a container for a shim that takes it over: `ketch-shim.json`, written whole at each change.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::error::ShimError;
use crate::options::RuntimeConfig;
use crate::process::{Process, State, StreamPaths};
use crate::service::Shim;

const FILE: &str = "ketch-shim.json";

/// A container as it was.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    /// The socket of the shim that held it: who listens there now is who takes it over.
    pub(crate) socket: String,
    pub(crate) config: RuntimeConfig,
    pub(crate) processes: Vec<ProcessRecord>,
}

/// A process as it was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) exec_id: String,
    pub(crate) paths: StreamPaths,
    pub(crate) stdin_closed: bool,
    pub(crate) state: State,
    pub(crate) pid: i32,
    /// In clock ticks after the boot: with the pid, which process it was.
    pub(crate) start_time: u64,
    /// Of a stopped one, with the time in milliseconds since 1970.
    pub(crate) exit: Option<(u32, u64)>,
}

/// Writes the record of a container.
///
/// # Errors
/// The file can't be written.
pub(crate) fn write(container: &Container, shim: &Shim) -> Result<(), ShimError> {
    let mut processes = vec![of(&container.init)];
    // What was added and never started is gone with the shim: it is a request only.
    let execs = container.execs.borrow();
    processes.extend(execs.values().filter(|process| process.pid.get() != 0).map(|process| of(process)));
    let record = Record {
        id: container.id.clone(),
        socket: shim.socket.to_string_lossy().into_owned(),
        config: container.config.clone(),
        processes,
    };
    let path = container.bundle.join(FILE);
    let new = container.bundle.join(format!(".{FILE}"));
    let text =
        serde_json::to_vec(&record).map_err(|source| ShimError::Json { path: path.clone(), source })?;
    std::fs::write(&new, text).map_err(ShimError::file("write", &new))?;
    std::fs::rename(&new, &path).map_err(ShimError::file("write", &path))
}

fn of(process: &Process) -> ProcessRecord {
    let pid = process.pid.get();
    let exit = process.finished().map(|exit| {
        let since = exit.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (exit.status, u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    });
    ProcessRecord {
        exec_id: process.exec_id.clone(),
        paths: process.paths.clone(),
        stdin_closed: process.stdin_closed.get(),
        state: process.state.get(),
        pid,
        start_time: if exit.is_none() { start_time(pid).unwrap_or(0) } else { 0 },
        exit,
    }
}

/// Reads a bundle's record; none if there is none.
///
/// # Errors
/// It can't be read, or is none.
pub(crate) fn read(bundle: &Path) -> Result<Option<Record>, ShimError> {
    let path = bundle.join(FILE);
    match std::fs::read(&path) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|source| ShimError::Json { path, source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ShimError::File { action: "read", path, source }),
    }
}

/// The container is no more.
pub(crate) fn remove(bundle: &Path) {
    let _gone = std::fs::remove_file(bundle.join(FILE));
}

/// When a process began, in clock ticks after the boot; none if it is gone.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    start_time_in(&text)
}

/// The 22nd field; the second is a name in which there may be anything, parentheses too.
fn start_time_in(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_stands_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200";
        assert_eq!(start_time_in(stat), Some(4711));
        assert_eq!(start_time_in("7 (a"), None);
    }

    #[test]
    fn a_process_is_as_it_was() {
        let record = ProcessRecord {
            exec_id: "e".into(),
            paths: StreamPaths { stdout: "/f".into(), ..StreamPaths::default() },
            stdin_closed: true,
            state: State::Running,
            pid: 7,
            start_time: 9,
            exit: Some((137, 5)),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<ProcessRecord>(&text).unwrap(), record);
    }
}
