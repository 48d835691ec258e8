//! The container's folder below the state root: `state.json`, `exec.fifo`, and the lock.
//!
//! Owns what is remembered between two commands. The file holds facts that can't be derived (ids, paths, the parts of
//! the configuration that later commands need) and never the status, which comes from the kernel. The keys that runc's
//! `state.json` has, and that other programs read, have runc's names.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::compat;
use crate::plan::Caller;
use crate::plan::cgroup::Privilege;
use crate::plan::cgroup::systemd::{Instance, UnitName};
use crate::plan::criu::Obstacle;
use crate::plan::criu::external::ForeignMounts;
use crate::spec::{self, Hooks, Namespace, Resources};

const STATE_FILE: &str = "state.json";
const FIFO_FILE: &str = "exec.fifo";
const FILTER_FILE: &str = "seccomp.json";
/// How long a command waits for another one that changes the same container.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);
/// The largest state.json that is read: far more than any configuration that `bundle` accepts can make.
const SIZE_LIMIT: u64 = 32 * 1024 * 1024;

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The container's name.
    pub id: String,
    /// Its first process, 0 while there is none yet.
    pub init_process_pid: i32,
    /// That process's start time in clock ticks since boot (proc(5), `stat` field 22): with the number, it names one
    /// process and no later one.
    pub init_process_start: u64,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The parts of the configuration that later commands need.
    pub config: StateConfig,
    /// Whether it was made without root.
    pub rootless: bool,
    /// Cgroup directories: by controller on v1, under the empty key on v2.
    pub cgroup_paths: BTreeMap<String, String>,
    /// Namespace files of the first process, by runc's names (`NEWPID`).
    pub namespace_paths: BTreeMap<String, PathBuf>,
    /// Where the standard streams of the first process lead.
    pub external_descriptors: Vec<String>,
    /// Directory in resctrl; empty for none.
    pub intel_rdt_path: String,
    /// Its monitoring group there; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub intel_rdt_mon_path: String,
    /// Whether the first of the two was made for this container, and goes with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub intel_rdt_made: bool,
}

/// What later commands need of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateConfig {
    /// The root file system on the host.
    pub rootfs: PathBuf,
    /// `bundle=<path>`, then the annotations as `key=value`: runc's form.
    pub labels: Vec<String>,
    /// The runtime-spec version of the bundle.
    pub version: String,
    /// Namespaces, as configured.
    pub namespaces: Vec<Namespace>,
    /// Id mappings of the user namespace, as configured.
    pub uid_mappings: Vec<spec::IdMapping>,
    /// Id mappings of the user namespace, as configured.
    pub gid_mappings: Vec<spec::IdMapping>,
    /// Hooks that are still to come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Limits in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The unit whose cgroup the container has, where systemd made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups: Option<UnitState>,
    /// The first process without its arguments and environment: the defaults of those that `exec` adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<spec::Process>,
    /// Execution domain of every process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<spec::Personality>,
    /// NUMA policy of every process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<spec::MemoryPolicy>,
    /// Resource director groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<spec::IntelRdt>,
    /// Whether processes keep the session keyring of their caller.
    pub no_new_keyring: bool,
    /// Whether a user made it that is not root.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rootless_euid: bool,
    /// Whether its cgroups may be missing, or refuse what is asked of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rootless_cgroups: bool,
    /// Mounts that are not the container's own, for a checkpoint.
    pub foreign_mounts: ForeignMounts,
}

/// The unit of a container's cgroup, by runc's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// Slice, prefix and name.
    #[serde(flatten)]
    pub name: UnitName,
    /// Whether it is one.
    #[serde(rename = "Systemd", default)]
    pub systemd: bool,
    /// Whether it is of a user's systemd.
    #[serde(rename = "Rootless", default, skip_serializing_if = "std::ops::Not::not")]
    pub rootless: bool,
    /// Which run of it is the container's, in hexadecimal digits; none before it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
}

impl UnitState {
    /// A unit of an instance.
    #[must_use]
    pub fn new(name: UnitName, instance: Instance) -> Self {
        Self { name, systemd: true, rootless: instance == Instance::User, invocation: None }
    }

    /// Whose unit it is.
    #[must_use]
    pub fn instance(&self) -> Instance {
        if self.rootless { Instance::User } else { Instance::System }
    }
}

impl State {
    /// Whether both are about one container, and not about two of the same name.
    #[must_use]
    pub fn is_same_container(&self, other: &Self) -> bool {
        (self.init_process_pid, self.init_process_start) == (other.init_process_pid, other.init_process_start)
            && self.created == other.created
    }
}

impl StateConfig {
    /// The bundle's folder.
    #[must_use]
    pub fn bundle(&self) -> &str {
        self.labels.iter().find_map(|label| label.strip_prefix("bundle=")).unwrap_or("")
    }

    /// Who made it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        if self.rootless_euid { Caller::User } else { Caller::Root }
    }

    /// Whether refusals of its cgroups are expected.
    #[must_use]
    pub fn privilege(&self) -> Privilege {
        if self.rootless_cgroups { Privilege::Rootless } else { Privilege::Root }
    }

    /// Why it could not come back from a checkpoint.
    #[must_use]
    pub fn obstacle_to_restore(&self) -> Option<Obstacle> {
        Obstacle::of(&self.annotations(), &self.namespaces, self.intel_rdt.is_some())
    }

    /// The annotations.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<&str, &str> {
        self.labels
            .iter()
            .filter_map(|label| label.split_once('='))
            .filter(|(key, _)| *key != "bundle")
            .collect()
    }
}

/// What can go wrong with a container's folder.
#[derive(Debug, Error)]
pub enum StateError {
    /// A container of this name is there.
    #[error("{}", compat::EXISTS)]
    Exists,
    /// No container of this name is there.
    #[error("{}", compat::DOES_NOT_EXIST)]
    Missing,
    /// Another command has been changing it for a long time.
    #[error("container is being created or changed by another command")]
    Busy,
    /// A file of the folder.
    #[error("{action} {path}", path = path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// state.json is not what a runtime wrote.
    #[error("{path} is damaged; `delete --force` removes its folder", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        source: serde_json::Error,
    },
}

/// A container's folder.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// The folder's lock; free again when this is dropped or its process dies.
#[derive(Debug)]
pub struct StateLock {
    _held: File,
}

impl StateDir {
    /// Makes the folder and takes its lock. Nothing of it stays after an error.
    ///
    /// # Errors
    /// As [`StateDir::create`] and [`StateDir::lock`].
    pub fn create_locked(root: &Path, id: &str) -> Result<(Self, StateLock), StateError> {
        let dir = Self::create(root, id)?;
        match dir.lock() {
            Ok(lock) => Ok((dir, lock)),
            Err(error) => {
                let _first_error_counts = dir.remove();
                Err(error)
            }
        }
    }

    /// Makes the folder: whoever makes it owns the name.
    ///
    /// # Errors
    /// [`StateError::Exists`], or the file system's refusal.
    pub fn create(root: &Path, id: &str) -> Result<Self, StateError> {
        let rooted = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        match rooted {
            // It is there and could not be looked at, or is no folder: what is made in it will say.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(file("creating state root", root))?,
        }
        let path = root.join(id);
        match fs::DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(StateError::Exists),
            Err(error) => return Err(file("creating", &path)(error)),
        }
        let dir = Self { path };
        // The container's root, which may be another user, opens the fifo through this folder: not past the umask.
        if let Err(error) = dir.restrict(&dir.path, 0o711) {
            let _first_error_counts = dir.remove();
            return Err(error);
        }
        Ok(dir)
    }

    /// The folder of an existing container.
    ///
    /// # Errors
    /// [`StateError::Missing`].
    pub fn open(root: &Path, id: &str) -> Result<Self, StateError> {
        let path = root.join(id);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self { path }),
            Ok(_) => Err(StateError::Missing),
            Err(error) if is_absence(&error) => Err(StateError::Missing),
            // Whoever is told that there is no such container forgets it.
            Err(error) => Err(file("reading", &path)(error)),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock that commands which change the container hold; waits for whoever has it, but not for ever: `create`
    /// holds it while hooks run, which may hang, or be who asks.
    ///
    /// # Errors
    /// The folder is gone, or [`StateError::Busy`].
    pub fn lock(&self) -> Result<StateLock, StateError> {
        const BEAT: Duration = Duration::from_millis(5);
        let held = self.lock_file()?;
        let deadline = Instant::now() + LOCK_DEADLINE;
        loop {
            match held.try_lock() {
                Ok(()) => return self.locked(held),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Err(StateError::Busy),
                Err(TryLockError::WouldBlock) => std::thread::sleep(BEAT),
                Err(TryLockError::Error(error)) => return Err(file("locking", &self.path)(error)),
            }
        }
    }

    fn lock_file(&self) -> Result<File, StateError> {
        File::open(&self.path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                StateError::Missing
            } else {
                file("opening", &self.path)(error)
            }
        })
    }

    fn locked(&self, held: File) -> Result<StateLock, StateError> {
        // The folder may have been removed, and even made again, while we waited.
        use std::os::unix::fs::MetadataExt;
        let ours = held.metadata().map_err(file("locking", &self.path))?;
        match fs::metadata(&self.path) {
            Ok(now) if now.ino() == ours.ino() && now.dev() == ours.dev() => Ok(StateLock { _held: held }),
            Ok(_) => Err(StateError::Missing),
            Err(error) if is_absence(&error) => Err(StateError::Missing),
            Err(error) => Err(file("locking", &self.path)(error)),
        }
    }

    /// Reads state.json.
    ///
    /// # Errors
    /// [`StateError::Missing`] when there is none, [`StateError::Damaged`] when it can't be understood.
    pub fn load(&self) -> Result<State, StateError> {
        let path = self.path.join(STATE_FILE);
        let read = File::open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            if length > SIZE_LIMIT {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
            // Not of the file itself, which would ask for its size and place again.
            file.take(SIZE_LIMIT).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let bytes = read.map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                StateError::Missing
            } else {
                file("reading", &path)(error)
            }
        })?;
        serde_json::from_slice(&bytes).map_err(|source| StateError::Damaged { path, source })
    }

    /// Replaces state.json: a reader sees the old one or the new one, whole.
    ///
    /// # Errors
    /// The file system's refusal; the old file stays.
    pub fn store(&self, state: &State) -> Result<(), StateError> {
        self.draft(state)?;
        self.publish()
    }

    /// Writes what state.json will be beside it, for [`StateDir::publish`].
    ///
    /// # Errors
    /// The file system's refusal; the old file stays.
    pub fn draft(&self, state: &State) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(state)
            .map_err(|source| StateError::Damaged { path: self.path.join(STATE_FILE), source })?;
        self.write_draft(STATE_FILE, &bytes)
    }

    /// Makes the draft state.json.
    ///
    /// # Errors
    /// The file system's refusal; the old file stays.
    pub fn publish(&self) -> Result<(), StateError> {
        self.publish_draft(STATE_FILE)
    }

    /// Keeps the compiled filter for the processes that `exec` adds.
    ///
    /// # Errors
    /// The file system's refusal.
    pub fn store_filter(&self, filter: &[u8]) -> Result<(), StateError> {
        self.replace(FILTER_FILE, filter)
    }

    /// The filter that [`StateDir::store_filter`] kept.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub fn load_filter(&self) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(FILTER_FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("reading", &path)(error)),
        }
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.write_draft(name, bytes)?;
        self.publish_draft(name)
    }

    fn draft_path(&self, name: &str) -> PathBuf {
        self.path.join(format!(".{name}.new"))
    }

    fn write_draft(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let draft = self.draft_path(name);
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| file.write_all(bytes));
        written.map_err(|error| {
            // The draft of a full disk must not stay; what matters is told by the first error.
            let _gone = fs::remove_file(&draft);
            file("writing", &self.path.join(name))(error)
        })
    }

    fn publish_draft(&self, name: &str) -> Result<(), StateError> {
        let target = self.path.join(name);
        fs::rename(self.draft_path(name), &target).map_err(file("writing", &target))
    }

    /// The fifo at which a created container waits for `start`.
    #[must_use]
    pub fn fifo(&self) -> PathBuf {
        self.path.join(FIFO_FILE)
    }

    /// Whether the container still waits at its fifo.
    ///
    /// # Errors
    /// The file system's refusal.
    pub fn waits_for_start(&self) -> Result<bool, StateError> {
        let path = self.fifo();
        path.try_exists().map_err(file("reading", &path))
    }

    /// Makes the fifo.
    ///
    /// # Errors
    /// The file system's refusal.
    pub fn create_fifo(&self) -> Result<(), StateError> {
        let path = self.fifo();
        let made = ketch_sys::path::make_fifo(&path, 0o622).map_err(io::Error::from);
        made.map_err(file("creating", &path))
    }

    /// The folder of the container's notification socket, below the container's own.
    pub const NOTIFY_FOLDER: &str = "notify";

    /// Makes the folder that holds the container's notification socket, which any user in the container may reach.
    ///
    /// # Errors
    /// The file system's refusal.
    pub fn create_notify_folder(&self) -> Result<(), StateError> {
        let path = self.path.join(Self::NOTIFY_FOLDER);
        fs::DirBuilder::new().mode(0o755).create(&path).map_err(file("creating", &path))?;
        self.restrict(&path, 0o755)
    }

    /// Whether the container has one.
    #[must_use]
    pub fn has_notify_folder(&self) -> bool {
        self.path.join(Self::NOTIFY_FOLDER).is_dir()
    }

    fn restrict(&self, path: &Path, mode: u32) -> Result<(), StateError> {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(file("changing the mode of", path))
    }

    /// Removes the folder and all in it.
    ///
    /// # Errors
    /// The file system's refusal.
    pub fn remove(&self) -> Result<(), StateError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("removing", &self.path)(error)),
            _ => Ok(()),
        }
    }

    /// The names of all containers below `root`.
    ///
    /// # Errors
    /// The root can't be read; a root that is not there is the caller's to judge.
    pub fn names(root: &Path) -> Result<Vec<String>, StateError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(root).map_err(file("reading", root))? {
            let entry = entry.map_err(file("reading", root))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { action, path, source }
}
