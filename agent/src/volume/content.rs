//! What is in a volume: its mount, its first content, its folders. One at a time of those that mount, unmount, fill or remove a
//! volume does so, by the volume's `place`; all others look at what is remembered only, and never wait for a file system.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, ResolveFlags};
use rustix::io::Errno;
use tracing::warn;

use super::options::Mounted;
use super::{Volumes, copy, failed, no_such};
use crate::error::{Error, Kind, Result};
use crate::locks::locked;
use crate::resolve::openat2;
use crate::{mounted, removal};

/// Beside the data, until it is all there.
const FILLING: &str = "_filling";

impl Volumes {
    /// Mounts what the volume's options say, where nothing is mounted yet, and gives the folder of the data.
    ///
    /// # Errors
    /// There is no such volume; the kernel's, in dockerd's words.
    pub fn mount(&self, name: &str, container: &str) -> Result<PathBuf> {
        let place = self.place(name)?;
        let _one = locked(&place);
        let data = self.data(name);
        let options = self.find(name)?.options.as_ref().and_then(Mounted::of);
        if let Some(options) = options {
            let mounted = if is_mounted(&data)? { options.mount_whole(&data) } else { options.mount(&data) };
            mounted.map_err(|error| {
                let data = data.display();
                let text =
                    format!("error while mounting volume '{data}': failed to mount local volume: {error}");
                Error::new(Kind::Internal, text)
            })?;
        }
        let mut known = self.known();
        let there = known.get_mut(name).ok_or_else(|| no_such(name))?;
        let _new = there.users.insert(container.to_owned());
        Ok(data)
    }

    /// A container's run has ended: mounts that no other uses go. Gives the names of what it used.
    pub fn unmount(&self, container: &str) -> Vec<String> {
        let used: Vec<_> = {
            let mut known = self.known();
            let used = known.iter_mut().filter_map(|(name, there)| {
                let mounted = there.volume.options.is_some();
                there.users.remove(container).then(|| (name.clone(), mounted, Arc::clone(&there.place)))
            });
            used.collect()
        };
        for (name, _, place) in used.iter().filter(|(_, mounted, _)| *mounted) {
            let _one = locked(place);
            let is_used = self.known().get(name).is_some_and(|there| !there.users.is_empty());
            if !is_used && let Err(error) = self.unmount_data(name) {
                warn!("{error}");
            }
        }
        used.into_iter().map(|(name, ..)| name).collect()
    }

    /// Takes away what is mounted at the data; `place` is held.
    pub(super) fn unmount_data(&self, name: &str) -> Result<()> {
        let data = self.data(name);
        if is_mounted(&data)? {
            rustix::mount::unmount(&data, rustix::mount::UnmountFlags::NOFOLLOW)
                .map_err(|error| failed("unmounting", &data, &error.into()))?;
        }
        Ok(())
    }

    /// Copies what a root has at `path` into a volume that is empty, owner and mode of the folder included. `container` is the
    /// one that is started.
    ///
    /// # Errors
    /// The disk.
    pub fn fill(&self, name: &str, container: &str, root: &Path, path: &str) -> Result<()> {
        let place = self.place(name)?;
        let _one = locked(&place);
        let data = self.data(name);
        let is_ours_alone = {
            let known = self.known();
            let there = known.get(name).ok_or_else(|| no_such(name))?;
            there.volume.options.is_none() && there.users.iter().all(|user| user == container)
        };
        let copied = || -> io::Result<()> {
            if fs::read_dir(&data)?.next().is_some() {
                return Ok(());
            }
            let root = File::open(root)?;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            // What is there, and is no folder, is covered and not copied.
            let Ok(from) = openat2(&root, path, OFlags::RDONLY | OFlags::DIRECTORY, resolve) else {
                return Ok(());
            };
            if is_ours_alone { whole(from, &data) } else { copy::tree(from, File::open(&data)?.into()) }
        };
        copied().map_err(|error| failed("copying the image's content to", &data, &error))
    }

    /// A folder or file of a volume, opened: no link led out of it, and what its name means may change from now on.
    ///
    /// # Errors
    /// It is not there, or not in there: dockerd's text.
    pub fn subpath(&self, name: &str, subpath: &str) -> Result<OwnedFd> {
        subpath_of(&self.data(name), subpath)
    }

    pub(super) fn place(&self, name: &str) -> Result<Arc<Mutex<()>>> {
        self.known().get(name).map(|there| Arc::clone(&there.place)).ok_or_else(|| no_such(name))
    }
}

/// The same of any folder.
///
/// # Errors
/// As [`Volumes::subpath`].
pub(crate) fn subpath_of(folder: &Path, subpath: &str) -> Result<OwnedFd> {
    let shown = folder.join(subpath);
    let no_access = |error: &dyn std::fmt::Display| {
        Error::invalid(format!("cannot access path {0}: lstat {0}: {error}", shown.display()))
    };
    let root = File::open(folder).map_err(|error| failed("opening", folder, &error))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, subpath, OFlags::PATH, resolve) {
        Ok(found) => Ok(found),
        Err(Errno::NOENT) => Err(no_access(&"no such file or directory")),
        Err(error) => Err(no_access(&error)),
    }
}

/// Copies beside the empty data and puts the copy in its place, so that half of one is never taken for a volume's content.
fn whole(from: OwnedFd, data: &Path) -> io::Result<()> {
    let beside = data.with_file_name(FILLING);
    removal::remove(&beside)?;
    DirBuilder::new().mode(0o700).create(&beside)?;
    let again = from.try_clone()?;
    let copied = File::open(&beside).and_then(|folder| copy::tree(from, folder.into()));
    let moved = copied.map(|()| fs::rename(&beside, data));
    if !matches!(moved, Ok(Ok(()))) {
        removal::remove(&beside)?;
    }
    match moved? {
        // Somebody on the host has put something there meanwhile.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        // A disk is mounted there, or it is a link to a folder.
        Err(_) => copy::tree(again, File::open(data)?.into()),
        Ok(()) => Ok(()),
    }
}

/// What a daemon that was killed while it copied has left.
pub(super) fn clear_half(volume: &Path) {
    let beside = volume.join(FILLING);
    if let Err(error) = removal::remove(&beside) {
        warn!("removing {}: {error}", beside.display());
    }
}

/// What is left of a volume is out of everybody's sight, and tried again at the next start.
pub(super) fn delete(folder: &Path) {
    if let Err(error) = removal::remove(folder) {
        warn!("removing {}: {error}", folder.display());
    }
}

fn is_mounted(data: &Path) -> Result<bool> {
    mounted::is_mounted(data).map_err(|error| failed("looking for a mount at", data, &error))
}
