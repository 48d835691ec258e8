//! Hooks: commands of the configuration that run at points of the container's life, with its state on their stdin.
//!
//! Runs in the parent for the runtime's hooks and in the child for the container's. Texts are runc's.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ketch_sys::poll::{self, Until};
use ketch_sys::process::pidfd_open;
use ketch_sys::signal;
use thiserror::Error;

use crate::spec::Hook;

/// A hook that failed: its list, its place in it, and why.
#[derive(Debug, Error)]
#[error("error running {name} hook #{index}: {reason}")]
pub struct HookError {
    name: &'static str,
    index: usize,
    reason: HookFailure,
}

#[derive(Debug, Error)]
enum HookFailure {
    #[error("fork/exec {path}: {}", io_text(source))]
    Start { path: String, source: io::Error },
    #[error("{}, stdout: {stdout}, stderr: {stderr}", status_text(*status))]
    Status { status: ExitStatus, stdout: String, stderr: String },
    #[error("hook ran past specified timeout of {:.1}s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("{}", io_text(.0))]
    Io(io::Error),
}

fn io_text(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |number| ketch_sys::error::errno_text(ketch_sys::Errno::from_raw(number)),
    )
}

/// Go's `os.ProcessState` text.
fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let core = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("signal: {}{core}", signal_text(signal))
        }
        (None, None) => String::from("unknown status"),
    }
}

/// Go's names of the signals, from 1.
const SIGNAL_TEXTS: [&str; 31] = [
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
    "stack fault",
    "child exited",
    "continued",
    "stopped (signal)",
    "stopped",
    "stopped (tty input)",
    "stopped (tty output)",
    "urgent I/O condition",
    "CPU time limit exceeded",
    "file size limit exceeded",
    "virtual timer expired",
    "profiling timer expired",
    "window changed",
    "I/O possible",
    "power failure",
    "bad system call",
];

fn signal_text(signal: i32) -> Cow<'static, str> {
    let known = usize::try_from(signal - 1).ok().and_then(|at| SIGNAL_TEXTS.get(at));
    known.map_or_else(|| format!("signal {signal}").into(), |text| (*text).into())
}

/// Runs the hooks of one list in order, each with `state` (JSON) on its stdin; `name` is the list's name in the
/// configuration. The first one that fails ends the list.
///
/// # Errors
/// The hook that failed, with its output.
pub fn run(
    name: &'static str,
    hooks: &[Hook],
    state: &[u8],
    default_env: Option<&[String]>,
) -> Result<(), HookError> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, default_env).map_err(|reason| HookError { name, index, reason })?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &[u8], default_env: Option<&[String]>) -> Result<(), HookFailure> {
    let mut child = command(hook, default_env)
        .spawn()
        .map_err(|source| HookFailure::Start { path: hook.path.clone(), source })?;
    let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    // A startContainer hook runs under the container's filter, which may not know this call.
    let pidfd = i32::try_from(child.id()).ok().and_then(|pid| pidfd_open(pid).ok());
    let talked = converse(&mut child, pidfd.as_ref(), state, timeout);
    let outcome = match talked {
        Ok(Some((stdout, stderr))) => {
            let status = child.wait().map_err(HookFailure::Io)?;
            return if status.success() {
                Ok(())
            } else {
                Err(HookFailure::Status { status, stdout, stderr })
            };
        }
        Ok(None) => HookFailure::Timeout(timeout.unwrap_or_default()),
        Err(error) => HookFailure::Io(error),
    };
    let _already_gone = child.kill();
    let _reaped = child.wait();
    Err(outcome)
}

fn command(hook: &Hook, default_env: Option<&[String]>) -> Command {
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    let env = if hook.env.is_empty() { default_env } else { Some(&hook.env[..]) };
    if let Some(env) = env {
        command.env_clear();
        command.envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The runtime in the foreground has every signal blocked, and a hook is to end when it is asked to.
    signal::reset_in(&mut command);
    command
}

/// How often a hook without a pidfd is asked whether it has ended.
const PACE: Duration = Duration::from_millis(5);

/// Gives the hook its state and takes its output until it ends; `None` when the time is over first.
///
/// All in one loop, as a hook may write more than a pipe holds before it reads a state that is larger than that too.
/// Output that a hook's own children go on writing after its end is not waited for.
fn converse(
    child: &mut Child,
    pidfd: Option<&OwnedFd>,
    state: &[u8],
    timeout: Option<Duration>,
) -> io::Result<Option<(String, String)>> {
    // A time that no clock can tell is no limit.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut input = Input { stream: child.stdin.take(), left: state };
    input.close_at_end();
    let mut streams = [
        Output::new(child.stdout.take().map(|stream| Box::new(stream) as Box<dyn ReadFd>)),
        Output::new(child.stderr.take().map(|stream| Box::new(stream) as Box<dyn ReadFd>)),
    ];
    loop {
        let now = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Ok(None);
        }
        let wake = if pidfd.is_some() {
            deadline
        } else {
            let next = now + PACE;
            Some(deadline.map_or(next, |deadline| deadline.min(next)))
        };
        // Asked before the output is looked at: whatever is not there then was written after the hook's end.
        let has_ended = pidfd.is_none() && child.try_wait()?.is_some();
        let mut waits: Vec<_> = pidfd.iter().map(|pidfd| (pidfd.as_fd(), Until::Readable)).collect();
        waits.extend(input.stream.iter().map(|stream| (stream.as_fd(), Until::Writable)));
        waits.extend(
            streams
                .iter()
                .filter_map(|output| output.stream.as_ref().map(|stream| (stream.as_fd(), Until::Readable))),
        );
        let ready = poll::wait_until(&waits, if has_ended { Some(now) } else { wake })?;
        let mut ready = ready.into_iter();
        let ended = if pidfd.is_some() { ready.next() == Some(true) } else { has_ended };
        if input.stream.is_some() && ready.next() == Some(true) {
            input.write()?;
        }
        let mut progress = false;
        for output in streams.iter_mut().filter(|output| output.stream.is_some()) {
            if ready.next() == Some(true) {
                progress |= output.read()?;
            }
        }
        if ended && !progress {
            let [stdout, stderr] = streams;
            return Ok(Some((stdout.text(), stderr.text())));
        }
    }
}

/// A hook's state on its way to it; closed when the hook has all of it, or wants no more.
struct Input<'a> {
    stream: Option<ChildStdin>,
    left: &'a [u8],
}

impl Input<'_> {
    /// `PIPE_BUF`: a pipe that is ready takes as much without blocking (pipe(7)), which no descriptor has to be told.
    const AT_ONCE: usize = 4096;

    fn write(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match stream.write(&self.left[..self.left.len().min(Self::AT_ONCE)]) {
            Ok(length) => self.left = &self.left[length..],
            // A hook need not read its state.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.left = &[],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.close_at_end();
        Ok(())
    }

    fn close_at_end(&mut self) {
        if self.left.is_empty() {
            self.stream = None;
        }
    }
}

trait ReadFd: Read + AsFd {}
impl<T: Read + AsFd> ReadFd for T {}

/// One output stream of a hook; what goes past the limit is read and forgotten.
struct Output {
    stream: Option<Box<dyn ReadFd>>,
    taken: Vec<u8>,
}

impl Output {
    const LIMIT: usize = 64 * 1024;

    fn new(stream: Option<Box<dyn ReadFd>>) -> Self {
        Self { stream, taken: Vec::new() }
    }

    /// Whether that has brought something that is kept.
    fn read(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let mut buffer = [0; 4096];
        let length = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            other => other?,
        };
        if length == 0 {
            self.stream = None;
        }
        let kept = length.min(Self::LIMIT.saturating_sub(self.taken.len()));
        self.taken.extend_from_slice(&buffer[..kept]);
        Ok(kept > 0)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.taken).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            timeout,
            ..Default::default()
        }
    }

    #[test]
    fn a_failing_hook_is_told_with_its_output() {
        let hooks = [shell("cat >/dev/null", None), shell("echo out; echo err >&2; exit 3", None)];
        let error = run("prestart", &hooks, b"{}", None).unwrap_err().to_string();
        assert_eq!(error, "error running prestart hook #1: exit status 3, stdout: out\n, stderr: err\n");
    }

    #[test]
    fn signals_have_the_names_that_go_gives_them() {
        for (signal, text) in [(9, "killed"), (15, "terminated"), (31, "bad system call"), (34, "signal 34")]
        {
            assert_eq!(signal_text(signal), text);
        }
    }

    #[test]
    fn the_state_is_on_stdin() {
        run("prestart", &[shell("test \"$(cat)\" = state", None)], b"state", None).unwrap();
    }

    /// More than a pipe holds.
    const LARGE: &[u8] = &[b'x'; 200_000];

    #[test]
    fn a_large_state_and_a_large_output_cross() {
        let hook = shell("head -c 200000 /dev/zero; test $(wc -c) = 200000", None);
        run("prestart", &[hook], LARGE, None).unwrap();
    }

    #[test]
    fn a_hook_need_not_read_its_state() {
        run(
            "prestart",
            &[shell("exec <&-; head -c 100000 /dev/zero", None), shell("exit 0", None)],
            LARGE,
            None,
        )
        .unwrap();
    }

    #[test]
    fn a_hook_is_waited_for_without_a_pidfd() {
        let hook = shell("test $(wc -c) = 200000 || exit 1; echo out; echo err >&2; exit 3", None);
        let mut child = command(&hook, None).spawn().unwrap();
        let (stdout, stderr) = converse(&mut child, None, LARGE, None).unwrap().unwrap();
        assert_eq!((stdout.as_str(), stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(child.wait().unwrap().code(), Some(3));
        let mut child = command(&shell("exec sleep 60 >&- 2>&-", None), None).spawn().unwrap();
        assert!(converse(&mut child, None, b"", Some(Duration::from_millis(20))).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_child_that_goes_on_writing_is_not_waited_for() {
        let hook = shell("(trap '' PIPE; while echo more; do :; done) 2>/dev/null & exit 0", Some(60));
        run("prestart", &[hook], b"", None).unwrap();
    }

    #[test]
    fn a_hook_starts_without_blocked_signals() {
        // The mask is the thread's own.
        let hook = shell("exec grep -q 'SigBlk:.0000000000000000' /proc/self/status", None);
        let ran = std::thread::Builder::new().spawn(move || {
            let _blocked = signal::SignalQueue::open().unwrap();
            run("prestart", &[hook], b"{}", None)
        });
        ran.unwrap().join().unwrap().unwrap();
    }

    #[test]
    fn a_missing_program_is_named() {
        let hook = Hook { path: "/proc/nope".into(), ..Default::default() };
        let error = run("poststop", &[hook], b"{}", None).unwrap_err().to_string();
        assert_eq!(error, "error running poststop hook #0: fork/exec /proc/nope: no such file or directory");
    }

    #[test]
    fn the_timeout_ends_a_hook() {
        let error =
            run("poststart", &[shell("exec sleep 60", Some(1))], LARGE, None).unwrap_err().to_string();
        assert_eq!(error, "error running poststart hook #0: hook ran past specified timeout of 1.0s");
    }
}
