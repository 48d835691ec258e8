//! Hooks: commands of the configuration that run at points of the container's life, with its state on their stdin.
//!
//! Runs in the parent for the runtime's hooks and in the child for the container's. Texts are runc's.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ketch_sys::process::{pidfd_open, poll_readable};
use std::os::fd::AsFd;
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
    let deadline = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let talked = converse(&mut child, state, deadline);
    let outcome = match talked {
        Ok(Some((stdout, stderr))) => {
            let status = child.wait().map_err(HookFailure::Io)?;
            return if status.success() {
                Ok(())
            } else {
                Err(HookFailure::Status { status, stdout, stderr })
            };
        }
        Ok(None) => HookFailure::Timeout(deadline.unwrap_or_default()),
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
    command
}

/// Gives the hook its state and takes its output until it ends; `None` when the time is over first.
///
/// A pipe takes at least 64 KiB without a reader (pipe(7)), and a state is smaller; output that a hook's own children
/// go on writing after its end is not waited for.
fn converse(
    child: &mut Child,
    state: &[u8],
    timeout: Option<Duration>,
) -> io::Result<Option<(String, String)>> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(state) {
            // A hook need not read its state.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
    }
    let pidfd = pidfd_open(i32::try_from(child.id()).unwrap_or(0))?;
    let mut streams = [
        Output::new(child.stdout.take().map(|stream| Box::new(stream) as Box<dyn ReadFd>)),
        Output::new(child.stderr.take().map(|stream| Box::new(stream) as Box<dyn ReadFd>)),
    ];
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(None);
        }
        let mut polled = vec![pidfd.as_fd()];
        polled
            .extend(streams.iter().filter_map(|output| output.stream.as_ref().map(|stream| stream.as_fd())));
        let ready = poll_readable(&polled, left)?;
        let mut readable = ready.iter().skip(1).copied().collect::<Vec<_>>().into_iter();
        let mut progress = false;
        for output in streams.iter_mut().filter(|output| output.stream.is_some()) {
            if readable.next() == Some(true) {
                output.read()?;
                progress = true;
            }
        }
        if !progress && ready.first() == Some(&true) {
            let [stdout, stderr] = streams;
            return Ok(Some((stdout.text(), stderr.text())));
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

    fn read(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => self.stream = None,
            length => {
                let room = Self::LIMIT.saturating_sub(self.taken.len());
                self.taken.extend_from_slice(&buffer[..length.min(room)]);
            }
        }
        Ok(())
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

    #[test]
    fn a_missing_program_is_named() {
        let hook = Hook { path: "/nope".into(), ..Default::default() };
        let error = run("poststop", &[hook], b"{}", None).unwrap_err().to_string();
        assert_eq!(error, "error running poststop hook #0: fork/exec /nope: no such file or directory");
    }

    #[test]
    fn the_timeout_ends_a_hook() {
        let error =
            run("poststart", &[shell("exec sleep 60", Some(1))], b"{}", None).unwrap_err().to_string();
        assert_eq!(error, "error running poststart hook #0: hook ran past specified timeout of 1.0s");
    }
}
