//! Loggers (`binary://`): a program that takes a process's output on descriptors 3 and 4, and closes 5 when it is ready. The
//! descriptors reach it through this program, started once more: it has them as its standard streams, moves them to their
//! numbers and becomes the logger. Nothing else can put a descriptor at a number without `unsafe`.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::rc::Rc;
use std::time::Duration;

use ketch_shim_sys::WatchedFd;
use rustix::fs::Access;
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use crate::bootstrap;
use crate::error::ShimError;
use crate::log;
use crate::reaper::Ending;
use crate::stdio::Place;

/// The word that makes this program become a logger.
const BECOME: &str = "-become-logger";
/// How long a logger may take to be ready.
const READY: Duration = Duration::from_secs(10);
/// How long it may take to write the rest, as with containerd's shim.
const REST: Duration = Duration::from_secs(12);

/// A logger's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    /// `binary-v2`: it must write a byte; of the older ones the end of the descriptor is enough.
    pub(crate) writes_when_ready: bool,
}

impl Command {
    /// Reads what follows the scheme: a path, and arguments in pairs as the query has them.
    pub(crate) fn parse(rest: &str, writes_when_ready: bool) -> Self {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut arguments = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            arguments.push(query_decoded(key));
            if !value.is_empty() {
                arguments.push(query_decoded(value));
            }
        }
        Self { program: percent_decoded(path), arguments, writes_when_ready }
    }
}

fn query_decoded(text: &str) -> String {
    percent_decoded(&text.replace('+', " "))
}

/// `%2F` and the like; what is no such sequence stays.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let pair = after.first_chunk::<2>().and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A running logger.
#[derive(Debug)]
pub(crate) struct Logger {
    pid: i32,
    ending: Rc<Ending>,
}

/// Starts a logger and waits until it is ready.
///
/// # Errors
/// It can't be started, or is not ready in time.
pub(crate) async fn start(
    command: &Command,
    place: Place<'_>,
) -> Result<(Logger, OwnedFd, OwnedFd), ShimError> {
    rustix::fs::access(command.program.as_str(), Access::EXEC_OK).map_err(|error| match error {
        Errno::NOENT => ShimError::NotFound(format!("logger {}: no such file", command.program)),
        _ => ShimError::file("execute the logger", command.program.as_ref())(error.into()),
    })?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(ShimError::system("make a pipe for the logger"));
    let ((their_out, our_out), (their_err, our_err), (our_ready, their_ready)) = (pipe()?, pipe()?, pipe()?);
    let mut child = std::process::Command::new(bootstrap::THIS_PROGRAM);
    child.arg0(bootstrap::program_name()).arg(BECOME).arg(&command.program).args(&command.arguments);
    child.env("CONTAINER_ID", place.container).env("CONTAINER_NAMESPACE", place.namespace);
    child.stdin(their_out).stdout(their_err).stderr(their_ready);
    let spawned = child.spawn().map_err(ShimError::system("start the logger"))?;
    // Our copies of its descriptors: the one of readiness would never end.
    drop(child);
    let pid = i32::try_from(spawned.id()).unwrap_or(0);
    let logger = Logger { pid, ending: place.reaper.watch(pid) };
    match tokio::time::timeout(READY, wait_ready(our_ready, command.writes_when_ready)).await {
        Ok(true) if !is_ending(pid) => Ok((logger, our_out, our_err)),
        Ok(_) => {
            logger.signal(Signal::KILL);
            Err(ShimError::Invalid(format!("the logger {} ended before it was ready", command.program)))
        }
        Err(_) => {
            logger.signal(Signal::KILL);
            Err(ShimError::Deadline(format!("the logger {} is not ready", command.program)))
        }
    }
}

/// Whether the process is on its way out: its descriptors close before it can be reaped, as they do when it is ready.
fn is_ending(pid: i32) -> bool {
    const EXITING: u64 = 4;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & EXITING != 0)
}

async fn wait_ready(ready: OwnedFd, needs_byte: bool) -> bool {
    if rustix::io::ioctl_fionbio(&ready, true).is_err() {
        return false;
    }
    let Ok(ready) = WatchedFd::new(ready) else { return false };
    loop {
        match rustix::io::read(ready.get_ref(), &mut [0; 1]) {
            Ok(count) => return count > 0 || !needs_byte,
            Err(Errno::AGAIN) => match ready.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return false,
            },
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

impl Logger {
    fn signal(&self, signal: Signal) {
        if let (None, Some(pid)) = (self.ending.exit(), Pid::from_raw(self.pid)) {
            let _ended = kill_process(pid, signal);
        }
    }

    /// Its streams are closed: lets it write the rest. Nobody waits for that.
    pub(crate) fn end(self) {
        drop(tokio::task::spawn_local(async move {
            self.signal(Signal::TERM);
            if tokio::time::timeout(REST, self.ending.wait()).await.is_err() {
                log::warn(&format!("the logger {} does not end: killed", self.pid));
                self.signal(Signal::KILL);
            }
        }));
    }
}

/// The logger's command line, if this process is to become one.
pub(crate) fn asked(words: &[OsString]) -> Option<&[OsString]> {
    (words.get(1).map(OsString::as_os_str) == Some(OsStr::new(BECOME))).then(|| &words[2..])
}

/// Becomes the logger: its descriptors from our standard streams, in a process that has no others.
pub(crate) fn become_logger(words: &[OsString]) -> ShimError {
    let Some((program, arguments)) = words.split_first() else {
        return ShimError::Invalid("no logger is named".into());
    };
    if let Err(error) = move_streams() {
        return ShimError::System { action: "move the logger's descriptors", source: error.into() };
    }
    let source = std::process::Command::new(program).args(arguments).exec();
    ShimError::System { action: "execute the logger", source }
}

fn move_streams() -> rustix::io::Result<()> {
    let mut kept = Vec::new();
    for (number, stream) in
        [(3, rustix::stdio::stdin()), (4, rustix::stdio::stdout()), (5, rustix::stdio::stderr())]
    {
        let copy = fcntl_dupfd_cloexec(stream, number)?;
        fcntl_setfd(&copy, FdFlags::empty())?;
        kept.push(copy);
    }
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // They are the logger's from here on.
    std::mem::forget(kept);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_from_a_uri() {
        let command = Command::parse("/usr/bin/log%20it?-f=/var/a%26b&verbose&to=x+y", true);
        assert_eq!(command.program, "/usr/bin/log it");
        assert_eq!(command.arguments, ["-f", "/var/a&b", "verbose", "to", "x y"]);
        assert!(command.writes_when_ready);
        assert_eq!(Command::parse("/l", false).arguments, [""; 0]);
    }

    #[test]
    fn what_is_no_sequence_stays() {
        assert_eq!(percent_decoded("100%"), "100%");
        assert_eq!(percent_decoded("%zz%2"), "%zz%2");
        assert_eq!(percent_decoded("%C3%A4"), "ä");
    }
}
