//! The mounts of a container as they are: which of them are the host's at a checkpoint, and what a restore has come to.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ketch_sys::{Errno, SyscallError, path, stat};

use super::error::{CriuError, step};
use crate::log;
use crate::plan::criu::external::{External, ForeignMounts, MASK};
use crate::plan::criu::mount_table::{self, MountLine, Place};
use crate::plan::criu::verdict::{self, Allowed};
use crate::plan::mount_flags::MountFlags;
use crate::plan::rootfs::RootfsPlan;
use crate::procfs::ProcFs;
use crate::rootfs::RootDir;

/// The mounts of the process `who`: a number, or `self`.
fn table(who: &str) -> Result<Vec<MountLine>, CriuError> {
    let path = PathBuf::from(format!("/proc/{who}/mountinfo"));
    let text = fs::read(&path).map_err(CriuError::file("reading", &path))?;
    Ok(mount_table::parse(&text))
}

/// What a checkpoint tells criu of mounts: each mount point of the container whose source is the host's, with its name in
/// the images.
///
/// A destination is walked to in the container's own root, as its symlinks are by now; what is there counts only if it is
/// a mount, and criu is told the mount point that the kernel knows, not the path. What has become of a mount in the
/// container is its business: the restore binds configured sources, and looks at the outcome.
pub(super) fn of_container(pid: i32, mounts: &ForeignMounts) -> Result<Vec<(String, String)>, CriuError> {
    let root = root_of(pid).map_err(step("opening the container's root"))?;
    let table = table(&pid.to_string())?;
    let mut found: Vec<(String, String)> = Vec::new();
    let targets = mounts.external.iter().map(|target| (target, External::key(target)));
    // A directory is hidden by a file system of the container's own.
    let masked = mounts.masked.iter().map(|target| (target, MASK.0.to_owned()));
    for (target, key) in targets.chain(masked) {
        let Some((point, is_dir)) = mount_point(&root, &table, target)? else {
            log::debug(format_args!("checkpoint: no mount at {}", target.display()));
            continue;
        };
        if key == MASK.0 && is_dir {
            continue;
        }
        let point = point.to_str().filter(|point| !point.contains(']')).map(str::to_owned);
        let point = point.ok_or_else(|| CriuError::MountPoint(target.clone()))?;
        // The last of several covers the others.
        found.retain(|(earlier, _)| *earlier != point);
        found.push((point, key));
    }
    Ok(found)
}

/// The root directory of a process.
fn root_of(pid: i32) -> Result<RootDir, SyscallError> {
    let flags = path::PATH | path::DIRECTORY;
    let process = ProcFs::host()?.open(Path::new(&pid.to_string()), flags)?;
    path::open_magic_link(&process, Path::new("root"), flags).map(RootDir::new)
}

/// The mount point at `target`, if it is one, and whether it is a directory.
fn mount_point(
    root: &RootDir,
    table: &[MountLine],
    target: &Path,
) -> Result<Option<(PathBuf, bool)>, CriuError> {
    let looking = || step("looking at the container's mounts");
    let at = match root.open(target, path::PATH) {
        Ok(at) => at,
        Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
            return Ok(None);
        }
        Err(error) => return Err(looking()(error)),
    };
    if !stat::is_mount_root(&at).map_err(looking())? {
        return Ok(None);
    }
    let id = stat::mount_id(&at).map_err(looking())?;
    let is_dir = stat::status(&at).map_err(looking())?.is_dir();
    Ok(table.iter().find(|line| line.id == id).map(|line| (line.point.clone(), is_dir)))
}

/// The host's side of a restore: what may be shown.
#[derive(Debug)]
pub(super) struct Judge {
    allowed: Allowed,
}

impl Judge {
    /// Looks up where the root and every source are.
    pub(super) fn new(rootfs: &RootfsPlan, externals: &[External]) -> Result<Self, CriuError> {
        let host = table("self")?;
        let root = place(&host, &rootfs.path)?;
        let mask = (place(&host, Path::new(MASK.1))?, MountFlags::NONE);
        let mut places = vec![mask];
        for external in externals {
            places.push((place(&host, &external.source)?, external.restrictions));
        }
        let allowed = Allowed { root: Some(root), places, kinds: verdict::kinds(rootfs) };
        Ok(Self { allowed })
    }

    /// Whether the mounts of the process `pid` are what they may be. The host's are looked at now, as the container's are
    /// there: the number of a file system without a device is another's as soon as it is free, and one that the host had a
    /// moment ago may be the container's own tmpfs by now.
    pub(super) fn judge(&self, pid: i32) -> Result<(), CriuError> {
        Ok(verdict::judge(&table(&pid.to_string())?, &table("self")?, &self.allowed)?)
    }

    /// The same for a thread, by its folder in procfs, that has a mount namespace of its own in the container: its root may
    /// be any that the container has.
    pub(super) fn judge_inner(&self, thread: &Path) -> Result<(), CriuError> {
        let path = thread.join("mountinfo");
        let text = fs::read(&path).map_err(CriuError::file("reading", &path))?;
        Ok(verdict::judge_inner(&mount_table::parse(&text), &table("self")?, &self.allowed)?)
    }
}

fn place(table: &[MountLine], path: &Path) -> Result<Place, CriuError> {
    let path = fs::canonicalize(path).map_err(CriuError::file("looking for", path))?;
    let at = path::open_host(&path, path::PATH).map_err(step("looking for a mount's source"))?;
    let id = stat::mount_id(at.as_fd()).map_err(step("looking for a mount's source"))?;
    let line = table.iter().find(|line| line.id == id);
    line.and_then(|line| Place::on(line, &path)).ok_or_else(|| {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        CriuError::file("finding the mount of", path)(source)
    })
}
