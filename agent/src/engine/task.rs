//! Containers that are tasks of a cluster's services: what marks them, and their secrets and configs, which are files in memory and
//! never on a disk. Called by `node`'s executor; `specification` binds the files, and the container's end takes them away.
//!
//! The files are in a file system of their own from the making on: so they are there after a crash of the daemon, and gone with
//! the machine.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_engine_api::container::CreateBody;
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::container::{Container, Record};
use super::create::{self, Made};
use super::lifecycle::{make_folder, remove_folder};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::remap::Ids;

/// In the exec root: a folder for each container that has files.
pub(super) const FOLDER: &str = "task-files";

/// What a container that is a task remembers of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfTask {
    /// The task's.
    pub id: String,
    /// Where its files show, in the order of their names, which are numbers.
    pub files: Vec<String>,
    /// Its service's labels when it was made, as far as networks read them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A secret or a config.
#[derive(Clone, PartialEq, Eq)]
pub struct TaskFile {
    /// Where it shows.
    pub target: String,
    /// As the container has them.
    pub owner: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub data: Vec<u8>,
}

/// Without the data, so that no log line can have it.
impl std::fmt::Debug for TaskFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TaskFile")
            .field("target", &self.target)
            .field("owner", &self.owner)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Makes a task's container.
///
/// # Errors
/// As of every container's making.
pub async fn create(daemon: &Arc<Daemon>, name: &str, body: CreateBody, task: OfTask) -> Result<Made> {
    create::create_for_task(daemon, name, body, task).await
}

/// The container of a task.
#[must_use]
pub fn container_of(daemon: &Daemon, task: &str) -> Option<Arc<Container>> {
    let is_its = |record: &Record| record.task.as_ref().is_some_and(|of| of.id == task);
    daemon.engine.all().into_iter().find(|container| container.read(is_its))
}

/// The tasks that have a container.
#[must_use]
pub fn all(daemon: &Daemon) -> Vec<String> {
    let task = |record: &Record| record.task.as_ref().map(|of| of.id.clone());
    daemon.engine.all().iter().filter_map(|container| container.read(task)).collect()
}

/// Puts a container's files where its start finds them, in place of those that were there.
///
/// # Errors
/// The kernel's; an owner that the host has no ids for.
pub async fn keep_files(daemon: &Arc<Daemon>, container: &str, files: Vec<TaskFile>) -> Result<()> {
    let (ids, folder) = (daemon.ids.clone(), folder_of(daemon, container));
    blocking(move || put_in_memory(&ids, &folder, &files)).await
}

fn put_in_memory(ids: &Ids, folder: &Path, files: &[TaskFile]) -> Result<()> {
    remove_folder(folder)?;
    if files.is_empty() {
        return Ok(());
    }
    make_folder(folder, 0o700)?;
    mount_memory(folder)?;
    files.iter().enumerate().try_for_each(|(number, file)| write(ids, folder, number, file))
}

/// Takes a container's files away.
pub(super) async fn forget_files(daemon: &Arc<Daemon>, record: &Record) {
    if record.task.as_ref().is_none_or(|of| of.files.is_empty()) {
        return;
    }
    let folder = folder_of(daemon, &record.id);
    if let Err(error) = blocking(move || remove_folder(&folder)).await {
        tracing::warn!("{error}");
    }
}

/// A container's files as mounts.
///
/// # Errors
/// They are not there any more.
pub(super) fn files(daemon: &Daemon, record: &Record) -> Result<Vec<Value>> {
    let Some(of) = &record.task else { return Ok(Vec::new()) };
    let folder = folder_of(daemon, &record.id);
    let bound = of.files.iter().enumerate().map(|(number, target)| {
        let source = folder.join(number.to_string());
        if !source.exists() {
            let message =
                format!("the secrets and configs of the task {} are gone: they were in memory", of.id);
            return Err(Error::new(Kind::Internal, message));
        }
        let options = ["bind", "ro", "nosuid", "noexec", "nodev", "rprivate"];
        Ok(json!({ "destination": target, "type": "bind", "source": source, "options": options }))
    });
    bound.collect()
}

/// A task's container runs once: what replaces it is another task's.
///
/// # Errors
/// It has run already.
pub(super) fn may_start(record: &Record) -> Result<()> {
    match &record.task {
        Some(of) if record.was_started => Err(Error::conflict(format!(
            "container {} was task {} of a service: it has ended, and is never started again",
            record.name, of.id
        ))),
        _ => Ok(()),
    }
}

fn folder_of(daemon: &Daemon, container: &str) -> PathBuf {
    daemon.config.exec_root.join(FOLDER).join(container)
}

/// A tmpfs that is not written to swap, where the kernel has that (6.4); otherwise ramfs, which never is.
fn mount_memory(folder: &Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let mounted = |kind: &CStr, options: &CStr| mount(c"tmpfs", folder, kind, flags, Some(options));
    let mounted = match mounted(c"tmpfs", c"mode=0700,noswap") {
        Err(Errno::INVAL) => mounted(c"ramfs", c"mode=0700"),
        mounted => mounted,
    };
    mounted.map_err(|error| {
        Error::internal(format_args!("mounting {}", folder.display()), &std::io::Error::from(error))
    })
}

fn write(ids: &Ids, folder: &Path, number: usize, file: &TaskFile) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(Kind::Internal, format!("making the file {} of a task: {error}", file.target))
    };
    let (user, group) = ids.to_host(file.owner).map_err(failed)?;
    let path = folder.join(number.to_string());
    let mut opened =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    opened.write_all(&file.data).map_err(failed)?;
    // The owner first: it takes setuid away.
    fchown(opened.as_fd(), Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
        .and_then(|()| fchmod(opened.as_fd(), Mode::from_raw_mode(file.mode & 0o7777)))
        .map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::scratch;

    #[test]
    fn files_are_in_memory_and_go_with_their_folder() {
        if !scratch::is_root("mounting needs") {
            return;
        }
        let scratch = scratch::Folder::new("task-files");
        let folder = scratch.path().join("one");
        let file = |data: &str, mode| TaskFile {
            target: "/run/secrets/x".to_owned(),
            owner: (33, 44),
            mode,
            data: data.as_bytes().to_vec(),
        };
        for word in ["first", "second"] {
            put_in_memory(&Ids::default(), &folder, &[file(word, 0o400), file("other", 0o4444)]).unwrap();
            assert_eq!(std::fs::read_to_string(folder.join("0")).unwrap(), word);
        }
        let about = std::fs::metadata(folder.join("1")).unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (33, 44, 0o4444));
        // By the magic numbers of statfs(2): tmpfs, ramfs.
        let kind = rustix::fs::statfs(&folder).unwrap().f_type;
        assert!([0x0102_1994, 0x8584_58f6].contains(&kind), "{kind:x}");
        assert!(!format!("{:?}", file("word", 0o400)).contains("119"), "no byte of it");
        put_in_memory(&Ids::default(), &folder, &[]).unwrap();
        assert!(!folder.exists());
    }
}
