//! Where content is before it is believed: files and folders that go when their owner does, and all of them when the
//! daemon starts. What is believed is moved out with one rename(2), so that it is whole or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use tracing::warn;

use crate::{mounted, removal};

/// The folder, which is this daemon's alone.
#[derive(Debug)]
pub(super) struct Staging {
    folder: PathBuf,
    next: AtomicU64,
}

/// A name in it.
#[derive(Debug)]
pub(super) struct Staged {
    path: PathBuf,
    staging: Arc<Staging>,
}

impl Staging {
    /// Makes the folder, or clears what a killed daemon has left in it.
    pub(super) fn open(folder: PathBuf) -> io::Result<Arc<Self>> {
        make_folder(&folder)?;
        removal::clear(&folder)?;
        Ok(Arc::new(Self { folder, next: AtomicU64::new(0) }))
    }

    /// The same for folders that have nothing to do with each other and hold much: ext2's kin (`chattr +T`) puts each of them, and
    /// what is in it, where few others are. Without a journal ext4 looks at every inode of the place that was freed within the
    /// last minutes, for each file that is made: with all layers in one, a pull after a removal took twice as long.
    pub(super) fn open_spread(folder: PathBuf) -> io::Result<Arc<Self>> {
        let staging = Self::open(folder)?;
        let opened = File::open(&staging.folder)?;
        // Other file systems know no such thing.
        let flags = ioctl_getflags(&opened);
        let _hint = flags.and_then(|flags| ioctl_setflags(&opened, flags | IFlags::TOPDIR));
        Ok(staging)
    }

    pub(super) fn file(self: &Arc<Self>) -> io::Result<(File, Staged)> {
        let staged = self.name();
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&staged.path)?;
        Ok((file, staged))
    }

    pub(super) fn folder(self: &Arc<Self>) -> io::Result<Staged> {
        let staged = self.name();
        DirBuilder::new().mode(0o700).create(&staged.path)?;
        Ok(staged)
    }

    /// Takes a file or folder away, at once for whoever looks; its content goes when what this gives is dropped, or when the
    /// daemon starts again.
    pub(super) fn discard(self: &Arc<Self>, path: &Path) -> Staged {
        let staged = self.name();
        if let Err(error) = fs::rename(path, &staged.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("taking {} away: {error}", path.display());
        }
        staged
    }

    fn name(self: &Arc<Self>) -> Staged {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Staged { path: self.folder.join(number.to_string()), staging: Arc::clone(self) }
    }
}

impl Staged {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to where it is believed; what is there already stays, being the same.
    pub(super) fn keep(self, at: &Path) -> io::Result<()> {
        fs::rename(&self.path, at)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let removed = removal::remove(&self.path).or_else(|_| {
            // Nobody of ours mounts anything in what is discarded; where somebody else has, it is in the way.
            mounted::unmount_all(&self.path)?;
            removal::remove(&self.path)
        });
        if let Err(error) = removed {
            warn!("removing {} of {}: {error}", self.path.display(), self.staging.folder.display());
        }
    }
}

/// Makes a folder that only its owner may enter: setuid files and devices of images are in there.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn what_is_staged_goes_with_its_owner_or_its_daemon() {
        let scratch = Folder::new("staging");
        let folder = scratch.path().join("s");
        let staging = Staging::open(folder.clone()).unwrap();
        let (_, first) = staging.file().unwrap();
        let second = staging.folder().unwrap();
        fs::write(second.path().join("f"), "x").unwrap();
        let (left, kept) = (first.path().to_owned(), scratch.path().join("kept"));
        second.keep(&kept).unwrap();
        drop(first);
        assert!(!left.exists() && kept.join("f").exists());
        std::mem::forget(staging.folder().unwrap());
        drop(Staging::open(folder.clone()).unwrap());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    }
}
