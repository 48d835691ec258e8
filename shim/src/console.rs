//! Terminals: the master comes from the runtime over a socket, and is copied from and to containerd's fifos.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use ketch_runtime_client::ConsoleSocket;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::copy::Sink;
use crate::error::ShimError;
use crate::logger;
use crate::process::Process;
use crate::stdio::{ClientInput, Place, Streams, Target};

/// The runtime has ended: the master is on its way, or will never be.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Listens for a master. Beside the shim's own socket: that folder is root's only, and its paths are short enough.
///
/// # Errors
/// The socket can't be bound.
pub(crate) fn listen(beside: &Path, number: u64) -> Result<ConsoleSocket, ShimError> {
    let mut path = beside.as_os_str().to_owned();
    path.push(format!(".{number}"));
    ConsoleSocket::bind(path.into()).map_err(ShimError::runtime("listen for the terminal"))
}

/// Takes the master from the socket, once the runtime has ended well.
///
/// # Errors
/// None comes.
pub(crate) async fn receive(socket: &ConsoleSocket) -> Result<OwnedFd, ShimError> {
    match tokio::time::timeout(ARRIVAL, socket.receive()).await {
        Ok(received) => received.map_err(ShimError::runtime("receive the terminal")),
        Err(_) => Err(ShimError::Deadline("the runtime has not sent the terminal".into())),
    }
}

/// Begins to copy between the terminal and containerd's fifos.
///
/// # Errors
/// A fifo can't be opened, or a logger does not start.
pub(crate) async fn begin(master: OwnedFd, place: Place<'_>) -> Result<Streams, ShimError> {
    let paths = place.paths;
    let (mut output, mut logger) = (None, None);
    if !paths.stdout.is_empty() {
        let target = Target::parse(&paths.stdout)?;
        if let Target::Logger(command) = &target {
            // Its other stream ends at once: a terminal has one.
            let (started, stdout, _stderr) = logger::start(command, place).await?;
            rustix::io::ioctl_fionbio(&stdout, true)
                .map_err(ShimError::system("set up the logger's pipe"))?;
            (output, logger) = (Some(Sink::Fifo(stdout)), Some(started));
        } else {
            output = target.read_sink().await?;
        }
    }
    let input = if paths.stdin.is_empty() { None } else { Some(ClientInput::open(&paths.stdin, false)?) };
    Streams::begin_terminal(master, output, input, logger).map_err(ShimError::system("copy the terminal"))
}

/// Sets the size of a process's terminal; nothing happens to a process that has none.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn resize(process: &Process, width: u32, height: u32) -> Result<(), ShimError> {
    let streams = process.streams.borrow();
    let Some(master) = streams.as_ref().and_then(|streams| streams.terminal.as_ref()) else { return Ok(()) };
    let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: cells(height), ws_col: cells(width), ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master.get_ref(), size).map_err(ShimError::system("resize the terminal"))
}
