//! The binary under test: which one it is, and one invocation of it with a timeout and captured output.
//!
//! Output goes to files, never to pipes: a detached container inherits them and would keep a pipe open for ever.
//! Called by `bundle`, `container` and the tests.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::leak::TAG_VARIABLE;
use crate::user::{self, Caller};

/// How long one command of the runtime may take.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Which program is driven, by its `--version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Ketch,
    Runc {
        major: u32,
        minor: u32,
    },
    Crun {
        major: u32,
        minor: u32,
    },
    /// The one that protects nothing, to prove attacks on (`src/bin/naive_runtime`).
    Naive,
    Other,
}

/// The runtime under test.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub path: PathBuf,
    pub kind: Kind,
    pub version: String,
}

impl Runtime {
    /// Finds the binary (a path, or a name on PATH) and asks for its version.
    ///
    /// # Errors
    /// A sentence: not found, or `--version` failed.
    pub fn find(name: &str) -> Result<Self, String> {
        let path = if name.contains('/') {
            fs::canonicalize(name).map_err(|e| format!("{name}: {e}"))?
        } else {
            let dirs = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&dirs)
                .map(|dir| dir.join(name))
                .find(|path| path.is_file())
                .ok_or_else(|| format!("{name}: not on PATH"))?
        };
        let out =
            Command::new(&path).arg("--version").output().map_err(|e| format!("{}: {e}", path.display()))?;
        let version = String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().to_owned();
        let number = version.split_whitespace().nth(2).or_else(|| version.split_whitespace().nth(1));
        let mut parts =
            number.unwrap_or_default().split(['.', '+', '-', '~']).map(|n| n.parse().unwrap_or(0));
        let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kind = if file.contains("ketch") || version.contains("ketch") {
            Kind::Ketch
        } else if version.starts_with("runc version") {
            Kind::Runc { major, minor }
        } else if version.starts_with("crun version") {
            Kind::Crun { major, minor }
        } else if version.starts_with("naive version") {
            Kind::Naive
        } else {
            Kind::Other
        };
        Ok(Self { path, kind, version })
    }
}

/// One command line, not yet started.
#[derive(Debug)]
pub struct Invocation {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub stdin: Option<Vec<u8>>,
    pub folder: PathBuf,
    pub tag: String,
    /// Who owns the files that take the output.
    pub caller: Caller,
    pub cwd: Option<PathBuf>,
    /// A terminal's slave side, in place of the three standard streams.
    pub terminal: Option<OwnedFd>,
}

static SERIAL: AtomicUsize = AtomicUsize::new(0);

impl Invocation {
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    #[must_use]
    pub fn cwd(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cwd = Some(folder.into());
        self
    }

    /// Gives the command a terminal's slave side as its three standard streams.
    #[must_use]
    pub fn terminal(mut self, slave: OwnedFd) -> Self {
        self.terminal = Some(slave);
        self
    }

    /// Puts the command behind `sh -c <script>`, which must end in `exec "$@"`: the way to hand over descriptors at
    /// chosen numbers.
    #[must_use]
    pub fn through_shell(mut self, script: &str) -> Self {
        let mut args: Vec<OsString> = vec!["-c".into(), script.into(), "sh".into(), self.program.into()];
        args.append(&mut self.args);
        self.program = "/bin/sh".into();
        self.args = args;
        self
    }

    /// Starts it in a process group of its own and does not wait.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(self) -> Running {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let stdout = self.folder.join(format!("out.{serial}"));
        let stderr = self.folder.join(format!("err.{serial}"));
        let create = |path: &Path| {
            let file = File::create(path).expect("create a file for output");
            if self.caller == Caller::User {
                // A container's `echo >/dev/stdout` opens the file anew.
                user::own(path);
            }
            file
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env(TAG_VARIABLE, &self.tag)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .current_dir(self.cwd.as_deref().unwrap_or(&self.folder))
            .process_group(0);
        if let Some(slave) = &self.terminal {
            let copy = || slave.try_clone().expect("duplicate the terminal");
            command.stdin(copy()).stdout(copy()).stderr(copy());
        }
        let shown =
            format!("{} {}", self.program.display(), self.args.join(OsStr::new(" ")).to_string_lossy());
        let mut child = spawn(&mut command).unwrap_or_else(|e| panic!("start {shown}: {e}"));
        if let Some(bytes) = self.stdin {
            let mut pipe = child.stdin.take().expect("stdin is piped");
            // A program that does not read its input is no fault of the harness.
            let _ = pipe.write_all(&bytes);
        }
        Running { child, shown, stdout, stderr }
    }

    /// Starts it and waits at most [`TIMEOUT`].
    ///
    /// # Panics
    /// When it takes longer; it is killed with its process group.
    #[must_use]
    pub fn run(self) -> Output {
        self.spawn().wait()
    }
}

/// A started command.
#[derive(Debug)]
pub struct Running {
    pub child: Child,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    #[must_use]
    pub fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout_now(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr_now(&self) -> String {
        read_lossy(&self.stderr)
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended already, which the caller sees when it waits.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits at most [`TIMEOUT`].
    ///
    /// # Panics
    /// When it takes longer.
    #[must_use]
    pub fn wait(mut self) -> Output {
        let pid = Pid::from_child(&self.child);
        let timed_out = !ended_within(pid, TIMEOUT);
        if timed_out {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = self.child.wait().expect("wait for the command");
        let output = Output {
            shown: self.shown,
            code: exit_code(status),
            stdout: read_lossy(&self.stdout),
            stderr: read_lossy(&self.stderr),
            stdout_file: self.stdout,
            stderr_file: self.stderr,
        };
        assert!(!timed_out, "not done within {} s, killed: {output}", TIMEOUT.as_secs());
        output
    }
}

/// A program that this process has just written may be open for writing in a child that another thread has forked and that
/// has not executed yet (ETXTBSY): soon it is not.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match command.spawn() {
            Err(busy) if busy.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            spawned => return spawned,
        }
    }
}

fn ended_within(pid: Pid, timeout: Duration) -> bool {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open of a child not yet waited for");
    let timeout = Timespec::try_from(timeout).expect("a timeout in seconds");
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("poll a pidfd: {e}"),
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// What a command left: its exit code (128 + signal when killed) and output.
#[derive(Debug)]
pub struct Output {
    shown: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    stdout_file: PathBuf,
    stderr_file: PathBuf,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}", self.shown, self.code)?;
        write!(f, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}

impl Output {
    /// # Panics
    /// When the command failed.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(self.code == 0, "expected success: {self}");
        self
    }

    /// # Panics
    /// When the command ended with another code.
    #[track_caller]
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}: {self}");
        self
    }

    /// The command must have failed and said each of `texts` on standard error.
    ///
    /// # Panics
    /// When it succeeded or said something else.
    #[track_caller]
    pub fn refuses(self, texts: &[&str]) {
        assert!(self.code != 0, "expected a refusal: {self}");
        // The text log escapes quotes.
        let said = self.stderr.replace("\\\"", "\"");
        for text in texts {
            assert!(said.contains(text), "no {text:?} in the refusal: {self}");
        }
    }

    /// Standard output without the white space around it.
    #[must_use]
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// Standard output, which may be no text.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.stdout_file).unwrap_or_default()
    }

    /// What a detached container has written to the standard output it inherited, up to now.
    #[must_use]
    pub fn stdout_now(&self) -> String {
        read_lossy(&self.stdout_file)
    }

    /// The same of standard error.
    #[must_use]
    pub fn stderr_now(&self) -> String {
        read_lossy(&self.stderr_file)
    }

    /// # Panics
    /// When standard output is not JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {self}"))
    }
}
