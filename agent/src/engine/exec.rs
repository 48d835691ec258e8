//! Processes that are added to a running container: made, started, looked at, forgotten.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ketch_engine_api::exec::{ExecConfig, ExecInspect, ExecProcess};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::debug;

use super::container::{Container, Record};
use super::lifecycle::{bundle_of, fifos};
use super::security::Security;
use super::streams::Streams;
use super::{attach, bundle, caps, root, signal, users};
use crate::blocking::blocking;
use crate::compat;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::locks::locked;
use crate::random;
use crate::shim::Task;

/// How long one that has ended can be looked at.
const KEPT: Duration = Duration::from_secs(300);
/// What the names of a process's fifos end in.
pub(super) const FIFOS: [&str; 3] = ["in", "out", "err"];

/// An added process.
#[derive(Debug)]
pub struct Exec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Where it is.
    pub container: Arc<Container>,
    /// What was asked for.
    pub config: ExecConfig,
    /// What detaches a client.
    pub detach_keys: Vec<u8>,
    /// Its output and input.
    pub streams: Arc<Streams>,
    state: Mutex<State>,
    /// True once it has ended.
    pub ended: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    started: bool,
    running: bool,
    pid: u32,
    exit_code: Option<i64>,
    ended: Option<Instant>,
}

impl Exec {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Its status, once it has ended.
    #[must_use]
    pub fn exit_code(&self) -> Option<i64> {
        self.state().exit_code
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state().running
    }

    fn command(&self) -> String {
        self.config.cmd.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    fn publish(&self, daemon: &Daemon, action: &str) {
        let attributes = [("execID", self.id.clone())];
        self.container.publish_with(daemon, format!("{action}: {}", self.command()), &attributes);
    }
}

/// `asked` is how the client called the container.
fn check(container: &Container, asked: &str) -> Result<Task> {
    let state = container.read(|record| record.state.clone());
    if !state.running {
        return Err(Error::conflict(format!("container {} is not running", container.id)));
    }
    if state.paused {
        return Err(Error::conflict(format!(
            "Container {asked} is paused, unpause the container before exec"
        )));
    }
    if state.restarting {
        return Err(Error::conflict(compat::is_restarting(&container.id)));
    }
    signal::running(container)
}

/// Makes an added process, to be started.
///
/// # Errors
/// The container does not run; nothing is to be executed.
pub async fn create(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    asked: &str,
    config: ExecConfig,
) -> Result<String> {
    if config.cmd.as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("No exec command specified"));
    }
    let _task = check(container, asked)?;
    let _user = user_of(daemon, container, &config.user).await?;
    let id = random::id()?;
    let exec = Exec {
        id: id.clone(),
        container: Arc::clone(container),
        detach_keys: attach::keys(&config.detach_keys).map_err(|_| {
            Error::new(Kind::Internal, format!("Invalid escape keys ({}) provided", config.detach_keys))
        })?,
        streams: Arc::new(Streams::new(config.attach_stdin)),
        config,
        state: Mutex::default(),
        ended: watch::Sender::new(false),
    };
    exec.publish(daemon, "exec_create");
    let mut execs = daemon.engine.execs();
    execs.retain(|_, one| one.state().ended.is_none_or(|ended| ended.elapsed() < KEPT));
    let _none = execs.insert(id.clone(), Arc::new(exec));
    Ok(id)
}

/// The process of an id.
///
/// # Errors
/// There is none, or its container is gone: dockerd's texts.
pub fn find(daemon: &Daemon, id: &str) -> Result<Arc<Exec>> {
    let found = daemon.engine.execs().get(id).cloned();
    found.ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
}

/// Whether it may be started now.
///
/// # Errors
/// It was started already, or its container does not run.
pub fn may_start(exec: &Exec) -> Result<()> {
    let state = *exec.state();
    if state.exit_code.is_some() {
        return Err(Error::conflict(format!("exec command {} has already run", exec.id)));
    }
    if state.started {
        return Err(Error::conflict(format!("exec command {} is already running", exec.id)));
    }
    check(&exec.container, &exec.container.id).map(drop)
}

/// Starts it; its end is waited for in a task of its own.
///
/// # Errors
/// It was started already, its user is not there, its program can't be executed.
pub async fn start(daemon: &Arc<Daemon>, exec: &Arc<Exec>, size: Option<[u32; 2]>) -> Result<()> {
    let task = check(&exec.container, &exec.container.id)?;
    {
        let mut state = exec.state();
        if state.started {
            return Err(Error::conflict(format!("exec command {} is already running", exec.id)));
        }
        state.started = true;
    }
    exec.publish(daemon, "exec_start");
    match run(daemon, exec, &task, size).await {
        Ok(pid) => {
            let mut state = exec.state();
            state.running = true;
            state.pid = pid;
            drop(state);
            watch_end(daemon, exec, task);
            Ok(())
        }
        Err(error) => {
            let (exit_code, kind, more) = match error.kind {
                Kind::Internal => compat::start_failure(&error.message),
                kind => (126, kind, ""),
            };
            finish(exec, exit_code).await;
            remove_fifos(daemon, exec);
            Err(Error::new(kind, format!("{}{more}", error.message)))
        }
    }
}

async fn run(daemon: &Arc<Daemon>, exec: &Arc<Exec>, task: &Task, size: Option<[u32; 2]>) -> Result<u32> {
    let bundle = bundle_of(daemon, &exec.container.id);
    let process = process(daemon, exec, size).await?;
    let config = &exec.config;
    let fifos = fifos(&bundle, &prefix(exec), config.tty, config.attach_stdin)?;
    let stderr = (!config.tty).then(|| PathBuf::from(&fifos.stderr));
    exec.streams.begin(Path::new(&fifos.stdout), stderr.as_deref(), None)?;
    let failed = |error: crate::shim::CallError| Error::new(Kind::Internal, error.to_string());
    let input = fifos.stdin.clone();
    let bytes =
        serde_json::to_vec(&process).map_err(|error| Error::internal("encoding the process", &error))?;
    task.add(&exec.id, bytes, fifos).await.map_err(failed)?;
    let pid = match task.start(&exec.id).await {
        Ok(pid) => pid,
        Err(error) => {
            let _none = task.delete(&exec.id).await;
            return Err(failed(error));
        }
    };
    if !input.is_empty() {
        let (task, id, tty) = (task.clone(), exec.id.clone(), config.tty);
        exec.streams.begin_input(Path::new(&input), move || async move {
            if !tty {
                let _ended = task.close_input(&id).await;
            }
        })?;
    }
    Ok(pid)
}

/// Before the names of its fifos: the next daemon knows by them what was added.
fn prefix(exec: &Exec) -> String {
    format!("{}.", exec.id)
}

fn remove_fifos(daemon: &Daemon, exec: &Exec) {
    let bundle = bundle_of(daemon, &exec.container.id);
    for name in FIFOS {
        let _absent = std::fs::remove_file(bundle.join(format!("{}{name}", prefix(exec))));
    }
}

/// Whose an added process is: the asked for, else the container's own.
async fn user_of(daemon: &Arc<Daemon>, container: &Container, asked: &str) -> Result<users::User> {
    let (own, added) = container.read(|record| {
        (record.config.user.clone(), record.host_config.group_add.clone().unwrap_or_default())
    });
    let name = if asked.is_empty() { own } else { asked.to_owned() };
    let place = bundle_of(daemon, &container.id).join("rootfs");
    blocking(move || {
        users::find(&name, &root::read(&place, "etc/passwd")?, &root::read(&place, "etc/group")?, &added)
    })
    .await
}

/// The process in the runtime specification's form: as the container's own, with what was asked for.
async fn process(daemon: &Arc<Daemon>, exec: &Exec, size: Option<[u32; 2]>) -> Result<Value> {
    let asked = &exec.config;
    let record = exec.container.read(Record::clone);
    let (config, host_config) = (&record.config, &record.host_config);
    let user = user_of(daemon, &exec.container, &asked.user).await?;
    let security = Security::of(&record)?;
    let host = &daemon.engine.host;
    let capabilities = if asked.privileged {
        caps::set(&[], &[], true, &host.capabilities)?
    } else {
        bundle::capabilities(host_config, host)?
    };
    let cwd = [&asked.working_dir, &config.working_dir].into_iter().find(|path| !path.is_empty());
    let more = asked.env.clone().unwrap_or_default();
    let mut process = json!({
        "terminal": asked.tty,
        "user": bundle::user(&user),
        "args": asked.cmd,
        "env": bundle::environment(config, asked.tty, &more),
        "cwd": cwd.map_or("/", String::as_str),
        "capabilities": bundle::capability_sets(&capabilities, user.uid),
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host_config.oom_score_adj,
    });
    let limits = bundle::limits(host_config, host);
    if !limits.is_empty() {
        process["rlimits"] = limits.into();
    }
    if let Some(profile) = security.apparmor_profile(host_config, host) {
        process["apparmorProfile"] = profile.into();
    }
    let [height, width] = size.or(asked.console_size).unwrap_or_default();
    if asked.tty && (height, width) != (0, 0) {
        process["consoleSize"] = json!({ "height": height, "width": width });
    }
    Ok(process)
}

fn watch_end(daemon: &Arc<Daemon>, exec: &Arc<Exec>, task: Task) {
    let (daemon, exec) = (Arc::clone(daemon), Arc::clone(exec));
    drop(tokio::spawn(async move {
        let exit = task.wait(&exec.id).await;
        // A shim that dies takes what it knew of added processes along.
        let status = exit.map_or(255, |exit| i64::from(exit.status));
        finish(&exec, status).await;
        let attributes = [("execID", exec.id.clone()), ("exitCode", status.to_string())];
        exec.container.publish_with(&daemon, "exec_die", &attributes);
        if let Err(error) = task.delete(&exec.id).await {
            debug!("deleting the exec {}: {error}", exec.id);
        }
        remove_fifos(&daemon, &exec);
    }));
}

/// The status first: a client asks for it as soon as its stream ends.
async fn finish(exec: &Exec, exit_code: i64) {
    {
        let mut state = exec.state();
        state.running = false;
        state.exit_code = Some(exit_code);
        state.ended = Some(Instant::now());
    }
    exec.streams.end().await;
    let _was = exec.ended.send_replace(true);
}

/// Sets the size of its terminal.
///
/// # Errors
/// It does not run, or has none.
pub async fn resize(exec: &Exec, height: u32, width: u32) -> Result<()> {
    if !exec.is_running() {
        return Err(Error::new(Kind::Internal, format!("exec {} is not running", exec.id)));
    }
    signal::running(&exec.container)?
        .resize(&exec.id, width, height)
        .await
        .map_err(|error| Error::new(Kind::Internal, error.to_string()))
}

/// What `GET /exec/{id}/json` shows.
#[must_use]
pub fn inspect(exec: &Exec) -> ExecInspect {
    let (state, config) = (*exec.state(), &exec.config);
    let mut words = config.cmd.clone().unwrap_or_default().into_iter();
    ExecInspect {
        id: exec.id.clone(),
        running: state.running,
        exit_code: state.exit_code,
        process: ExecProcess {
            tty: config.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: Some(config.privileged),
            user: config.user.clone(),
        },
        open_stdin: config.attach_stdin,
        open_stderr: config.attach_stderr,
        open_stdout: config.attach_stdout,
        // True would tell of one that nobody else looks at any more; dockerd never says so while it can be asked for.
        can_remove: false,
        container_id: exec.container.id.clone(),
        detach_keys: match config.detach_keys.as_str() {
            "" => String::new(),
            _ => STANDARD.encode(&exec.detach_keys),
        },
        pid: state.pid,
    }
}
