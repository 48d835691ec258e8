//! `ketch exec`: another process in a running container.

use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;

use super::argv::Flags;
use super::create::given;
use super::global::absolute;
use super::{Binary, CliError, Global, Operands, Subcommand, exit_code, load, pid_file};
use crate::bundle::{self, Bundle};
use crate::cgroup::SubCgroups;
use crate::container::{Container, ExecOptions, PausedExec};
use crate::foreground::{Attachment, Attended, Connection, Foreground, HostEnd, Subreaper};
use crate::spec::{IdMapping, Process};

#[derive(Debug, Default, Args)]
pub(super) struct Exec {
    /// unix socket that is sent the master of the process's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// unix socket that is sent a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// working directory in the container
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// further environment variable, NAME=VALUE
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// give the process a terminal
    #[arg(long, short)]
    tty: bool,
    /// user and group, by number: uid[:gid]
    #[arg(long, short, value_name = "UID[:GID]")]
    user: Option<String>,
    /// further group
    #[arg(long, short = 'g', value_name = "GID")]
    additional_gids: Vec<i64>,
    /// file that describes the process, as config.json's "process"
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    /// do not wait for the process
    #[arg(long, short)]
    detach: bool,
    /// file to write the process id to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// whether the process may gain no rights by what it executes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    no_new_privs: Option<bool>,
    /// further capability
    #[arg(long, short, value_name = "CAP")]
    cap: Vec<String>,
    /// hand this many more descriptors to the process (stdio + N in total)
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// run in this existing sub-cgroup of the container's
    #[arg(long, value_name = "[CONTROLLER[,...]:]PATH")]
    cgroup: Vec<String>,
    /// go on though the container is paused
    #[arg(long)]
    ignore_paused: bool,
    #[arg(value_name = "container-id")]
    id: String,
    #[arg(value_name = "command")]
    command: Vec<String>,
}

impl Subcommand for Exec {
    const NAME: &'static str = "exec";
    const ABOUT: &'static str = "execute new process inside the container";
    const OPERANDS: Operands = Operands {
        usage: "<container-id> <command> [command options]  || -p process.json <container-id>",
        least: 1,
        most: usize::MAX,
        flags: Flags::BeforeOperands,
    };
    const DESCRIPTION: &'static str = "Without --process, the process is as the bundle's config.json has it, with \
this command.\nExits with the exit code of the process, with 255 if it could not be started.";

    const BINARY: Binary = Binary::Sealed;

    fn failure(error: CliError) -> CliError {
        error.of_exec()
    }

    fn run(self, global: &Global) -> Result<u8, CliError> {
        self.exec(global).map_err(Self::failure)
    }
}

impl Exec {
    fn exec(self, global: &Global) -> Result<u8, CliError> {
        let pid_file = given(self.pid_file.as_deref()).map(absolute).transpose()?;
        let container = load(global, &self.id)?;
        let paused = if self.ignore_paused { PausedExec::Allow } else { PausedExec::Refuse };
        let joinable = container.joinable(paused)?;
        let cgroups = SubCgroups::parse(&self.cgroup)?;
        let process = match given(self.process.as_deref()) {
            Some(file) => bundle::load_process(file)?,
            None => {
                let bundle = Bundle::open(Some(&container.bundle()))?;
                bundle.enter()?;
                let process = bundle.load()?.process;
                self.adapt(process.ok_or_else(|| CliError::text("process property must not be empty"))?)?
            }
        };
        let attachment = if self.detach { Attachment::Detached } else { Attachment::Attached };
        let connection = Connection {
            attachment,
            terminal: process.terminal,
            console_socket: self.console_socket.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
            listen_fds: 0,
            preserve_fds: self.preserve_fds,
            owner: root_on_host(&container),
        };
        let foreground = match attachment {
            Attachment::Attached => Some(Foreground::prepare(Subreaper::Disabled)?),
            Attachment::Detached => None,
        };
        let (io, host) = connection.make()?;
        let started = joinable.exec(ExecOptions { process, io, cgroups })?;
        let attended = Attended { pid: started.pid, pidfd: started.pidfd.as_fd() };
        attend(attended, foreground, host, pid_file).inspect_err(|_| attended.terminate())
    }

    /// The bundle's process, with what the flags say.
    fn adapt(&self, mut process: Process) -> Result<Process, CliError> {
        if self.command.is_empty() {
            return Err(CliError::text("exec args cannot be empty"));
        }
        process.args.clone_from(&self.command);
        let set = |field: &mut String, flag: &Option<String>| {
            if let Some(value) = flag.as_ref().filter(|value| !value.is_empty()) {
                field.clone_from(value);
            }
        };
        set(&mut process.cwd, &self.cwd);
        set(&mut process.apparmor_profile, &self.apparmor);
        set(&mut process.selinux_label, &self.process_label);
        if !self.cap.is_empty() {
            let capabilities = process.capabilities.get_or_insert_default();
            capabilities.bounding.extend_from_slice(&self.cap);
            capabilities.effective.extend_from_slice(&self.cap);
            capabilities.permitted.extend_from_slice(&self.cap);
            // An ambient capability has to be inheritable, and none becomes so by this flag (CVE-2022-29162).
            if !capabilities.inheritable.is_empty() {
                capabilities.ambient.extend_from_slice(&self.cap);
            }
        }
        process.env.extend_from_slice(&self.env);
        process.terminal = self.tty;
        if let Some(no_new_privileges) = self.no_new_privs {
            process.no_new_privileges = no_new_privileges;
        }
        if let Some(user) = self.user.as_deref().filter(|user| !user.is_empty()) {
            let (uid, gid) = match user.split_once(':') {
                Some((uid, gid)) => (uid, Some(gid)),
                None => (user, None),
            };
            if let Some(gid) = gid {
                process.user.gid = id("gid", gid)?;
            }
            process.user.uid = id("uid", uid)?;
        }
        for gid in &self.additional_gids {
            let gid = u32::try_from(*gid)
                .map_err(|_| CliError::text(format!("additional-gids must be a positive number {gid}")))?;
            process.user.additional_gids.push(gid);
        }
        Ok(process)
    }
}

fn attend(
    process: Attended<'_>,
    foreground: Option<Foreground>,
    host: HostEnd,
    pid_file: Option<PathBuf>,
) -> Result<u8, CliError> {
    let stdio = host.open()?;
    if let Some(path) = pid_file {
        pid_file::write(&path, process.pid)?;
    }
    let Some(mut foreground) = foreground else { return Ok(0) };
    foreground.connect(stdio)?;
    let status = foreground.attend(process, None)?;
    foreground.finish()?;
    Ok(exit_code(status.code()))
}

/// A user or group, by number only and with nothing behind it (CVE-2026-30892).
fn id(kind: &str, text: &str) -> Result<u32, CliError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(id) if digits => Ok(id),
        _ => Err(CliError::text(format!("bad {kind}: {text:?} is not a number from 0 to {}", u32::MAX))),
    }
}

fn root_on_host(container: &Container) -> (u32, u32) {
    let config = &container.state().config;
    let mapped = |mappings: &[IdMapping]| IdMapping::host_id_of(mappings, 0).unwrap_or(0);
    (mapped(&config.uid_mappings), mapped(&config.gid_mappings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Capabilities;

    fn exec(user: &str) -> Exec {
        Exec { user: Some(user.to_owned()), command: vec!["sh".to_owned()], ..Exec::default() }
    }

    #[test]
    fn users_are_numbers_and_nothing_else() {
        let process = exec("1000:100").adapt(Process::default()).unwrap();
        assert_eq!((process.user.uid, process.user.gid), (1000, 100));
        let process = exec("7").adapt(Process::default()).unwrap();
        assert_eq!((process.user.uid, process.user.gid), (7, 0));
        for bad in ["root", "1000x", "1:", ":1", "-1", "+1", "1:2:3", " 1", "4294967296", "1000:root"] {
            assert!(exec(bad).adapt(Process::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn added_capabilities_are_ambient_only_with_inheritable_ones() {
        let exec = Exec { cap: vec!["CAP_KILL".into()], ..exec("") };
        let capabilities = exec.adapt(Process::default()).unwrap().capabilities.unwrap();
        assert_eq!(capabilities.bounding, ["CAP_KILL"]);
        assert!(capabilities.inheritable.is_empty() && capabilities.ambient.is_empty());
        let process = Process {
            capabilities: Some(Capabilities {
                inheritable: vec!["CAP_CHOWN".into()],
                ..Capabilities::default()
            }),
            ..Process::default()
        };
        let capabilities = exec.adapt(process).unwrap().capabilities.unwrap();
        assert_eq!(capabilities.ambient, ["CAP_KILL"]);
    }

    #[test]
    fn flags_go_over_the_bundles_process() {
        let exec = Exec {
            env: vec!["A=1".into()],
            cwd: Some("/tmp".into()),
            no_new_privs: Some(false),
            additional_gids: vec![5],
            ..exec("")
        };
        let process = Process {
            terminal: true,
            no_new_privileges: true,
            cwd: "/".into(),
            env: vec!["B=2".into()],
            ..Process::default()
        };
        let process = exec.adapt(process).unwrap();
        assert_eq!(process.env, ["B=2", "A=1"]);
        assert_eq!(process.cwd, "/tmp");
        assert_eq!(process.user.additional_gids, [5]);
        assert!(!process.terminal && !process.no_new_privileges);
    }
}
