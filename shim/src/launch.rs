//! The making of a process by the runtime, whatever the call: its streams before, and after it pid, end and supervision.
//! `container.rs`, `exec.rs` and `checkpoint.rs` say which call.

use std::path::Path;
use std::rc::Rc;

use ketch_runtime_client::{Stdio, read_pid_file};

use crate::container::Container;
use crate::error::ShimError;
use crate::process::Process;
use crate::service::Shim;
use crate::stdio::{self, Place, Streams};
use crate::{console, exit, reaper};

/// Has the runtime make `process`, whose end is told from here on. `call` gets the socket for a terminal's master, or the
/// streams of a process without one.
///
/// # Errors
/// The streams can't be opened, or `call` fails. A process that is there all the same is killed: of one whose streams can't
/// be copied, or whose runtime was ended at its deadline, nobody would hear.
pub(crate) async fn launch(
    shim: &Rc<Shim>,
    container: &Rc<Container>,
    process: &Rc<Process>,
    pid_file: &Path,
    call: impl AsyncFnOnce(Option<&Path>, Stdio) -> Result<(), ShimError>,
) -> Result<(), ShimError> {
    let prefix = Process::file_prefix(&process.exec_id);
    let place = container.place(shim, &prefix, &process.paths);
    // What is in it afterwards is of this process.
    let _absent = std::fs::remove_file(pid_file);
    let _hold = shim.reaper.hold();
    let streams = make(shim, place, call).await;
    let pid = read_pid_file(pid_file).map_err(ShimError::runtime("find the new process"));
    let (streams, pid, ending) = match (streams, pid) {
        (Ok(streams), Ok(pid)) => (streams, pid, shim.reaper.watch(pid)),
        (Err(error), Ok(pid)) => {
            reaper::kill(pid, &shim.reaper.watch(pid), &container.id).await;
            return Err(error);
        }
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    process.attach(streams);
    process.pid.set(pid);
    *process.ending.borrow_mut() = Some(ending);
    if process.exec_id.is_empty() {
        container.find_cgroup(shim, pid);
    }
    exit::supervise(shim, container, process);
    Ok(())
}

/// The streams, ready before the call, and copied after it.
async fn make(
    shim: &Rc<Shim>,
    place: Place<'_>,
    call: impl AsyncFnOnce(Option<&Path>, Stdio) -> Result<(), ShimError>,
) -> Result<Streams, ShimError> {
    if place.paths.terminal {
        let socket = console::listen(&shim.socket, shim.number())?;
        call(Some(socket.path()), Stdio::default()).await?;
        console::begin(console::receive(&socket).await?, place).await
    } else {
        let (theirs, ours) = stdio::open_pipes(place).await?;
        call(None, theirs).await?;
        Streams::begin(ours).map_err(ShimError::system("copy the streams"))
    }
}
