//! The runtime's subcommands: their arguments as runc and crun take them, and what comes back.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::{RuntimeError, log};

/// How a runtime's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its exit code, or 128 and the signal.
    Ended(u32),
    /// It was killed for not having ended in time.
    TimedOut,
}

/// Who waits for the runtime's processes. They are children of the caller, who may have others, so there can be only one.
pub trait Children {
    /// Starts the command and resolves when it has ended, at the latest after `deadline`, when it is killed.
    ///
    /// # Errors
    /// The command can't be started.
    fn run(&self, command: &mut Command, deadline: Duration) -> impl Future<Output = io::Result<Outcome>>;
}

/// What a container's process gets as its first three descriptors; absent ones are /dev/null.
#[derive(Debug, Default)]
pub struct Stdio {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Of `create`.
#[derive(Debug)]
pub struct Create<'a> {
    pub bundle: &'a Path,
    pub pid_file: &'a Path,
    pub console_socket: Option<&'a Path>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub stdio: Stdio,
}

/// Of `exec`.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The OCI process, as JSON in a file.
    pub process: &'a Path,
    pub pid_file: &'a Path,
    pub console_socket: Option<&'a Path>,
    pub stdio: Stdio,
}

/// Of `checkpoint`.
#[derive(Debug, Default)]
pub struct Checkpoint<'a> {
    pub image_path: &'a str,
    pub work_path: &'a str,
    pub parent_path: &'a str,
    pub leave_running: bool,
    pub tcp_established: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub empty_namespaces: &'a [String],
    /// `soft`, `full`, `strict` or `ignore`; the runtime's own when empty.
    pub manage_cgroups_mode: &'a str,
}

/// Of `restore`.
#[derive(Debug)]
pub struct Restore<'a> {
    pub bundle: &'a Path,
    pub pid_file: &'a Path,
    pub image_path: &'a str,
    pub work_path: &'a str,
    pub console_socket: Option<&'a Path>,
    pub no_pivot: bool,
    pub stdio: Stdio,
}

/// A runtime's binary with what every call of it is given.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub binary: PathBuf,
    /// Where it keeps its state.
    pub root: PathBuf,
    pub log: PathBuf,
    pub systemd_cgroup: bool,
}

impl Runtime {
    /// The same runtime with another log: for calls that run side by side, each of which must find its own error.
    pub fn with_log(&self, log: PathBuf) -> Self {
        Self { log, ..self.clone() }
    }

    /// `create`: the container, its process waiting for `start`.
    ///
    /// # Errors
    /// The runtime can't be started, or failed, or took longer than `deadline`.
    pub async fn create(
        &self,
        children: &impl Children,
        id: &str,
        options: Create<'_>,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut arguments = Arguments::of("create");
        arguments.path("--bundle", options.bundle).path("--pid-file", options.pid_file);
        arguments.maybe_path("--console-socket", options.console_socket);
        arguments
            .flag("--no-pivot", options.no_pivot)
            .flag("--no-new-keyring", options.no_new_keyring)
            .word(id);
        self.launch(children, "create", arguments, options.stdio, deadline).await
    }

    /// `exec --detach`: one more process in the container.
    ///
    /// # Errors
    /// As with [`Runtime::create`].
    pub async fn exec(
        &self,
        children: &impl Children,
        id: &str,
        options: Exec<'_>,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut arguments = Arguments::of("exec");
        arguments.path("--process", options.process).maybe_path("--console-socket", options.console_socket);
        arguments.word("--detach").path("--pid-file", options.pid_file).word(id);
        self.launch(children, "exec", arguments, options.stdio, deadline).await
    }

    /// `restore --detach`: the container from a folder of images, running.
    ///
    /// # Errors
    /// As with [`Runtime::create`].
    pub async fn restore(
        &self,
        children: &impl Children,
        id: &str,
        options: Restore<'_>,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut arguments = Arguments::of("restore");
        arguments.path("--bundle", options.bundle).path("--pid-file", options.pid_file);
        arguments.text("--image-path", options.image_path).text("--work-path", options.work_path);
        arguments.maybe_path("--console-socket", options.console_socket);
        arguments.word("--detach").word("--no-subreaper").flag("--no-pivot", options.no_pivot).word(id);
        self.launch(children, "restore", arguments, options.stdio, deadline).await
    }

    /// `checkpoint`: the container's processes into a folder of images.
    ///
    /// # Errors
    /// As with [`Runtime::create`].
    pub async fn checkpoint(
        &self,
        children: &impl Children,
        id: &str,
        options: &Checkpoint<'_>,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut arguments = Arguments::of("checkpoint");
        arguments.text("--image-path", options.image_path).text("--work-path", options.work_path);
        arguments.text("--parent-path", options.parent_path);
        arguments.flag("--leave-running", options.leave_running);
        arguments.flag("--tcp-established", options.tcp_established);
        arguments.flag("--ext-unix-sk", options.ext_unix_sk).flag("--shell-job", options.shell_job);
        arguments.flag("--file-locks", options.file_locks);
        arguments.text("--manage-cgroups-mode", options.manage_cgroups_mode);
        for namespace in options.empty_namespaces {
            arguments.text("--empty-ns", namespace);
        }
        arguments.word(id);
        self.call(children, "checkpoint", arguments, None, deadline).await.map(drop)
    }

    /// `start`, `pause`, `resume`: what needs the container's id only.
    async fn plain(
        &self,
        children: &impl Children,
        action: &'static str,
        id: &str,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut arguments = Arguments::of(action);
        arguments.word(id);
        self.call(children, action, arguments, None, deadline).await.map(drop)
    }

    /// `start`: the created container's program.
    ///
    /// # Errors
    /// As with [`Runtime::create`].
    pub async fn start(
        &self,
        children: &impl Children,
        id: &str,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        self.plain(children, "start", id, deadline).await
    }

    /// `pause`: freezes every process of the container.
    ///
    /// # Errors
    /// As with [`Runtime::create`].
    pub async fn pause(
        &self,
        children: &impl Children,
        id: &str,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        self.plain(children, "pause", id, deadline).await
    }

    /// `resume`: thaws them.
    ///
    /// # Errors
    /// As with [`Runtime::create`].
    pub async fn resume(
        &self,
        children: &impl Children,
        id: &str,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        self.plain(children, "resume", id, deadline).await
    }

    /// `kill`: a signal to the container's first process, or to all.
    ///
    /// # Errors
    /// As with [`Runtime::create`]; see also [`RuntimeError::is_finished`].
    pub async fn kill(
        &self,
        children: &impl Children,
        id: &str,
        signal: u32,
        all: bool,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut arguments = Arguments::of("kill");
        arguments.flag("--all", all).word(id).word(&signal.to_string());
        self.call(children, "kill", arguments, None, deadline).await.map(drop)
    }

    /// `delete`: what is left of a stopped container; with `force`, also of one that runs or is not there.
    ///
    /// # Errors
    /// As with [`Runtime::create`].
    pub async fn delete(
        &self,
        children: &impl Children,
        id: &str,
        force: bool,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut arguments = Arguments::of("delete");
        arguments.flag("--force", force).word(id);
        self.call(children, "delete", arguments, None, deadline).await.map(drop)
    }

    /// `ps`: the ids of the container's processes.
    ///
    /// # Errors
    /// As with [`Runtime::create`], or the answer is no list of numbers.
    pub async fn ps(
        &self,
        children: &impl Children,
        id: &str,
        deadline: Duration,
    ) -> Result<Vec<u32>, RuntimeError> {
        let mut arguments = Arguments::of("ps");
        arguments.text("--format", "json").word(id);
        let answer = self.call(children, "ps", arguments, None, deadline).await?;
        // runc answers `null` for none.
        serde_json::from_slice::<Option<Vec<u32>>>(&answer)
            .map(Option::unwrap_or_default)
            .map_err(|source| RuntimeError::Answer { action: "ps", answer: text_of(&answer), source })
    }

    /// `update`: other limits, as the JSON of linux.resources.
    ///
    /// # Errors
    /// As with [`Runtime::create`].
    pub async fn update(
        &self,
        children: &impl Children,
        id: &str,
        resources: &[u8],
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut arguments = Arguments::of("update");
        arguments.word("--resources=-").word(id);
        let file = memory_file(resources).map_err(|source| RuntimeError::Output { source })?;
        self.call(children, "update", arguments, Some(file), deadline).await.map(drop)
    }

    /// `features`: the runtime's own JSON.
    ///
    /// # Errors
    /// As with [`Runtime::create`]; runtimes that are old lack the command.
    pub async fn features(
        &self,
        children: &impl Children,
        deadline: Duration,
    ) -> Result<Vec<u8>, RuntimeError> {
        let mut command = Command::new(&self.binary);
        command.arg("features");
        self.finish(children, "features", command, None, deadline).await
    }

    fn command(&self, arguments: Arguments) -> Command {
        let mut command = Command::new(&self.binary);
        // Whoever has removed the folder of the log must not keep a container from being ended.
        let folder_is_there = self.log.parent().is_some_and(Path::is_dir);
        let log = if folder_is_there { &self.log } else { Path::new("/dev/null") };
        command.arg("--root").arg(&self.root).arg("--log").arg(log).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.args(arguments.0);
        command
    }

    /// A command whose standard streams are those of a container's process.
    async fn launch(
        &self,
        children: &impl Children,
        action: &'static str,
        arguments: Arguments,
        stdio: Stdio,
        deadline: Duration,
    ) -> Result<(), RuntimeError> {
        let mut command = self.command(arguments);
        let start = log::end(&self.log);
        let or_null = |stream: Option<OwnedFd>| stream.map_or_else(std::process::Stdio::null, Into::into);
        command.stdin(or_null(stdio.stdin)).stdout(or_null(stdio.stdout)).stderr(or_null(stdio.stderr));
        let outcome = self.run(children, &mut command, deadline).await?;
        // The container's side of the streams must not stay open here: nobody would ever see their end.
        drop(command);
        self.judge(action, outcome, deadline, || log::last_error(&self.log, start).unwrap_or_default())
    }

    /// A command that answers with text.
    async fn call(
        &self,
        children: &impl Children,
        action: &'static str,
        arguments: Arguments,
        stdin: Option<File>,
        deadline: Duration,
    ) -> Result<Vec<u8>, RuntimeError> {
        let command = self.command(arguments);
        self.finish(children, action, command, stdin, deadline).await
    }

    async fn finish(
        &self,
        children: &impl Children,
        action: &'static str,
        mut command: Command,
        stdin: Option<File>,
        deadline: Duration,
    ) -> Result<Vec<u8>, RuntimeError> {
        let start = log::end(&self.log);
        let output = |source| RuntimeError::Output { source };
        let mut stdout = memory_file(&[]).map_err(output)?;
        let mut stderr = memory_file(&[]).map_err(output)?;
        command.stdin(stdin.map_or_else(std::process::Stdio::null, Into::into));
        command.stdout(stdout.try_clone().map_err(output)?).stderr(stderr.try_clone().map_err(output)?);
        let outcome = self.run(children, &mut command, deadline).await?;
        self.judge(action, outcome, deadline, || {
            log::last_error(&self.log, start)
                .unwrap_or_else(|| text_of(&content(&mut stderr).unwrap_or_default()))
        })?;
        content(&mut stdout).map_err(output)
    }

    async fn run(
        &self,
        children: &impl Children,
        command: &mut Command,
        deadline: Duration,
    ) -> Result<Outcome, RuntimeError> {
        children
            .run(command, deadline)
            .await
            .map_err(|source| RuntimeError::Start { binary: self.binary.clone(), source })
    }

    fn judge(
        &self,
        action: &'static str,
        outcome: Outcome,
        deadline: Duration,
        message: impl FnOnce() -> String,
    ) -> Result<(), RuntimeError> {
        match outcome {
            Outcome::Ended(0) => Ok(()),
            Outcome::TimedOut => Err(RuntimeError::TimedOut { action, after: deadline }),
            Outcome::Ended(status) => {
                let message = match message() {
                    text if text.is_empty() => {
                        format!("{} ended with status {status}", self.binary.display())
                    }
                    text => text,
                };
                Err(RuntimeError::Failed { action, message })
            }
        }
    }
}

/// The arguments of one subcommand.
struct Arguments(Vec<OsString>);

impl Arguments {
    fn of(subcommand: &str) -> Self {
        Self(vec![subcommand.into()])
    }

    fn word(&mut self, word: &str) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn flag(&mut self, name: &str, on: bool) -> &mut Self {
        if on { self.word(name) } else { self }
    }

    /// Nothing for an empty value.
    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() { self } else { self.word(name).word(value) }
    }

    fn path(&mut self, name: &str, value: &Path) -> &mut Self {
        self.0.extend([name.into(), value.into()]);
        self
    }

    fn maybe_path(&mut self, name: &str, value: Option<&Path>) -> &mut Self {
        match value {
            Some(value) => self.path(name, value),
            None => self,
        }
    }
}

/// A file in memory: output of any size without a reader beside the wait, and input without a writer.
fn memory_file(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("runtime", MemfdFlags::CLOEXEC)?);
    io::Write::write_all(&mut file, content)?;
    file.rewind()?;
    Ok(file)
}

fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// The process id that a runtime has written to a pid file.
///
/// # Errors
/// There is no such file, or no number in it.
pub fn read_pid_file(path: &Path) -> Result<i32, RuntimeError> {
    let failed = |source| RuntimeError::PidFile { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    let pid =
        text.trim().parse().map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    if pid > 0 { Ok(pid) } else { Err(failed(io::ErrorKind::InvalidData.into())) }
}
