//! A container: made from containerd's request, and taken away again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ketch_runtime_client::{Create, Runtime, RuntimeError};
use ketch_shim_api::events::{TaskCreate, TaskDelete, TaskIo};
use ketch_shim_api::task::CreateTaskRequest;
use tokio::sync::RwLock;

use crate::cgroup::Cgroup;
use crate::error::ShimError;
use crate::launch::launch;
use crate::options::RuntimeConfig;
use crate::process::{Action, Process, State, StreamPaths};
use crate::reaper::Exit;
use crate::server::Limits;
use crate::service::Shim;
use crate::spec::Spec;
use crate::stdio::Place;
use crate::waiting::Tally;
use crate::{log, pod, record, rootfs};

/// Where the runtime writes the id of a container's first process.
pub(crate) const INIT_PID: &str = "init.pid";
/// Where containerd's shim keeps a container's options, and this one, too.
const OPTIONS: &str = "options.json";
/// Where both keep the name of the runtime.
const RUNTIME: &str = "runtime";
/// Where runtimes keep their state, a folder of the shim's runtime for all namespaces.
pub(crate) const STATE_ROOT: &str = "/run/containerd";
/// How long cleaning up after a failure may take.
pub(crate) const CLEANUP: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) config: RuntimeConfig,
    pub(crate) runtime: Runtime,
    pub(crate) init: Rc<Process>,
    pub(crate) execs: RefCell<BTreeMap<String, Rc<Process>>>,
    /// The kernel ends all its processes with the first.
    pub(crate) own_pids: bool,
    /// Added processes that run: their ends are told before that of the first.
    pub(crate) running_execs: Rc<Tally>,
    pub(crate) cgroup: RefCell<Option<Cgroup>>,
    /// A folder of images that it starts from.
    pub(crate) checkpoint: Option<String>,
    /// The runtime may have something of it.
    made: Cell<bool>,
    deleting: Cell<bool>,
    /// Read by each Kill under way, and written by Delete: containerd closes its connection once Delete is answered, and takes a
    /// Kill without an answer for a failure.
    pub(crate) kills: RwLock<()>,
}

/// The runtime as a container's options want it.
pub(crate) fn runtime_for(config: &RuntimeConfig, bundle: &Path, namespace: &str, default: &str) -> Runtime {
    let binary = if config.binary_name.is_empty() { default } else { &config.binary_name };
    let root =
        if config.root.is_empty() { Path::new(STATE_ROOT).join(default) } else { config.root.clone().into() };
    Runtime {
        binary: binary.into(),
        root: root.join(namespace),
        log: bundle.join("log.json"),
        systemd_cgroup: config.systemd_cgroup,
    }
}

impl Container {
    /// A container that `request` describes, before anything is done for it.
    pub(crate) fn new(
        shim: &Shim,
        id: &str,
        bundle: &Path,
        config: RuntimeConfig,
        paths: StreamPaths,
    ) -> Result<Self, ShimError> {
        let own_pids = Spec::read(bundle)?.has_own_pids();
        Ok(Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            runtime: runtime_for(&config, bundle, &shim.namespace, &shim.default_runtime),
            config,
            init: Rc::new(Process::new("", paths, Vec::new())),
            execs: RefCell::default(),
            own_pids,
            running_execs: Rc::default(),
            cgroup: RefCell::default(),
            checkpoint: None,
            made: Cell::new(false),
            deleting: Cell::new(false),
            kills: RwLock::new(()),
        })
    }

    /// The container's first process, or an added one.
    ///
    /// # Errors
    /// There is no such process.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Rc<Process>, ShimError> {
        if exec_id.is_empty() {
            return Ok(Rc::clone(&self.init));
        }
        let found = self.execs.borrow().get(exec_id).cloned();
        found.ok_or_else(|| ShimError::NotFound(format!("process does not exist {exec_id}")))
    }

    /// Where the streams of a process of it are.
    pub(crate) fn place<'a>(&'a self, shim: &'a Shim, prefix: &'a str, paths: &'a StreamPaths) -> Place<'a> {
        Place {
            bundle: &self.bundle,
            prefix,
            paths,
            owner: (self.config.io_uid, self.config.io_gid),
            container: &self.id,
            namespace: &shim.namespace,
            reaper: &shim.reaper,
        }
    }

    /// A folder for criu's own files.
    pub(crate) fn criu_work(&self) -> PathBuf {
        match self.config.criu_work_path.as_str() {
            "" => self.bundle.join("work"),
            path => path.into(),
        }
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// Remembers what another shim needs to take the container over.
    pub(crate) fn remember(&self, shim: &Shim) {
        if let Err(error) = record::write(self, shim) {
            log::warn(&format!("remember the container {}: {}", self.id, crate::error::chain(&error)));
        }
    }

    /// The cgroups of its first process, and OOM kills in them.
    pub(crate) fn find_cgroup(&self, shim: &Shim, pid: i32) {
        match Cgroup::of(pid) {
            Ok(cgroup) => {
                if let Err(error) = shim.oom.add(&self.id, &cgroup) {
                    log::warn(&format!("watch OOM kills of {}: {}", self.id, crate::error::chain(&error)));
                }
                *self.cgroup.borrow_mut() = Some(cgroup);
            }
            // It has ended already.
            Err(error) => {
                log::warn(&format!("find the cgroup of {}: {}", self.id, crate::error::chain(&error)))
            }
        }
    }
}

/// Takes an id out of those that are being created.
struct Creating<'a>(&'a Shim, &'a str);

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.0.creating.borrow_mut().remove(self.1);
    }
}

/// Makes the container, its first process waiting to be started; returns that one's id. A container that starts from a
/// checkpoint has none yet.
///
/// # Errors
/// The id is taken; options, mounts or streams fail; the runtime fails. Nothing is left then.
pub(crate) async fn create(
    shim: &Rc<Shim>,
    request: CreateTaskRequest,
    limits: Limits,
) -> Result<u32, ShimError> {
    let id = request.id.as_str();
    let taken =
        shim.containers.borrow().contains_key(id) || !shim.creating.borrow_mut().insert(id.to_owned());
    if taken {
        return Err(ShimError::AlreadyExists(format!("container {id} already exists")));
    }
    let _creating = Creating(shim, id);
    let bundle = Path::new(&request.bundle);
    let config = RuntimeConfig::decode(request.options.as_ref())?;
    write_options(bundle, &config)?;
    let sandbox = shim.sandbox.borrow().clone();
    if let Some(sandbox) = sandbox {
        pod::redirect(bundle, &sandbox.record.borrow())?;
    }
    let paths = StreamPaths {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: if request.terminal { String::new() } else { request.stderr.clone() },
        terminal: request.terminal,
    };
    let mut container = Container::new(shim, id, bundle, config, paths)?;
    container.checkpoint = (!request.checkpoint.is_empty()).then(|| request.checkpoint.clone());
    let container = Rc::new(container);
    if !request.rootfs.is_empty() {
        let root = container.rootfs();
        if let Err(error) = std::fs::create_dir(&root)
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(ShimError::File { action: "make", path: root, source: error });
        }
        rootfs::mount_all(&request.rootfs, &root, &shim.reaper).await?;
    }
    let changing = container.init.changing.lock().await;
    if container.checkpoint.is_none()
        && let Err(error) = make(shim, &container, limits).await
    {
        undo(shim, &container).await;
        return Err(error);
    }
    shim.containers.borrow_mut().insert(id.to_owned(), Rc::clone(&container));
    container.remember(shim);
    let pid = container.init.pid.get().unsigned_abs();
    shim.events.publish(
        "/tasks/create",
        &TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs,
            io: Some(TaskIo {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            }),
            checkpoint: request.checkpoint,
            pid,
        },
    );
    drop(changing);
    Ok(pid)
}

/// What a bundle says of its runtime; the defaults where it says nothing.
pub(crate) fn options(bundle: &Path) -> RuntimeConfig {
    let text = std::fs::read(bundle.join(OPTIONS)).unwrap_or_default();
    let mut config: RuntimeConfig = serde_json::from_slice(&text).unwrap_or_default();
    if config.binary_name.is_empty() {
        config.binary_name = std::fs::read_to_string(bundle.join(RUNTIME)).unwrap_or_default();
    }
    config
}

/// Keeps the options for `delete`, for a sandbox, and for containerd's own shim.
///
/// # Errors
/// The files can't be written.
pub(crate) fn write_options(bundle: &Path, config: &RuntimeConfig) -> Result<(), ShimError> {
    let path = bundle.join(OPTIONS);
    let text = serde_json::to_vec(config).map_err(|source| ShimError::Json { path: path.clone(), source })?;
    std::fs::write(&path, text).map_err(ShimError::file("write", &path))?;
    let path = bundle.join(RUNTIME);
    std::fs::write(&path, &config.binary_name).map_err(ShimError::file("write", &path))
}

/// The runtime's `create`, and whether there is something to clean up should it fail.
async fn make(shim: &Rc<Shim>, container: &Rc<Container>, limits: Limits) -> Result<(), ShimError> {
    let pid_file = container.bundle.join(INIT_PID);
    launch(shim, container, &container.init, &pid_file, async |socket, stdio| {
        let options = Create {
            bundle: &container.bundle,
            pid_file: &pid_file,
            console_socket: socket,
            no_pivot: container.config.no_pivot_root,
            no_new_keyring: container.config.no_new_keyring,
            stdio,
        };
        let created =
            container.runtime.create(shim.reaper.as_ref(), &container.id, options, limits.runtime()).await;
        // A runtime that fails cleans up itself; if the id was taken, what is there is not ours to remove.
        container.made.set(created.as_ref().map_or_else(RuntimeError::is_timed_out, |()| true));
        created.map_err(ShimError::runtime("OCI runtime create failed"))
    })
    .await
}

/// Takes away what a failed create has left.
async fn undo(shim: &Rc<Shim>, container: &Rc<Container>) {
    if container.made.get()
        && let Err(error) = container.runtime.delete(shim.reaper.as_ref(), &container.id, true, CLEANUP).await
        && !error.is_no_container()
    {
        log::warn(&format!("clean up after a failed create of {}: {}", container.id, error.words()));
    }
    drop(container.init.streams.borrow_mut().take());
    rootfs::unmount_all(&container.rootfs());
}

/// Takes the container away: the runtime's part, mounts, streams and files.
///
/// # Errors
/// It runs, it is being deleted already, or the runtime fails.
pub(crate) async fn delete(
    shim: &Rc<Shim>,
    container: &Rc<Container>,
    limits: Limits,
) -> Result<Exit, ShimError> {
    let init = &container.init;
    let gone = || ShimError::NotFound("container not created".into());
    let changing = init.changing.lock().await;
    if container.deleting.get() || init.state.get() == State::Deleted {
        return Err(gone());
    }
    init.state.get().allow(Action::Delete)?;
    container.deleting.set(true);
    let kills = container.kills.write().await;
    let deleted =
        container.runtime.delete(shim.reaper.as_ref(), &container.id, false, limits.runtime()).await;
    drop(kills);
    drop(changing);
    if let Err(error) = deleted
        // A checkpoint that ends the container leaves the runtime nothing.
        && !error.is_no_container()
    {
        container.deleting.set(false);
        return Err(ShimError::runtime("failed to delete task")(error));
    }
    let exit = if init.pid.get() == 0 {
        Exit { pid: 0, status: 0, at: std::time::SystemTime::now() }
    } else {
        // A container that was only created has just been killed: its end comes before its deletion.
        match tokio::time::timeout(CLEANUP, init.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                container.deleting.set(false);
                return Err(ShimError::Deadline(format!(
                    "the end of process {} is not known",
                    init.pid.get()
                )));
            }
        }
    };
    init.state.set(State::Deleted);
    drop(init.streams.borrow_mut().take());
    shim.oom.remove(&container.id);
    if !rootfs::unmount_all(&container.rootfs()) {
        log::warn(&format!("the root file system of {} can't be unmounted", container.id));
    }
    record::remove(&container.bundle);
    shim.containers.borrow_mut().remove(&container.id);
    shim.events.publish(
        "/tasks/delete",
        &TaskDelete {
            container_id: container.id.clone(),
            pid: exit.pid.unsigned_abs(),
            exit_status: exit.status,
            exited_at: Some(exit.at.into()),
            id: String::new(),
        },
    );
    Ok(exit)
}
