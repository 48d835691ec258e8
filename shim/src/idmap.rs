//! Mounts of a root whose files' owners are shown through a user namespace's mappings: of an overlay its lower layers, of
//! everything else the mount itself. Called by [`crate::rootfs`].

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    move_mount, open_tree, unmount,
};

use crate::error::ShimError;
use crate::log;

/// The name of the lower layers' option.
pub(crate) const LOWER: &str = "lowerdir=";

/// The lower layers of an overlay, for the time in which it is mounted: the kernel takes copies of its own. Where they are
/// is a small file system of their own, which takes all of them with it.
#[derive(Debug)]
pub(crate) struct Layers {
    /// What the option names are names in here.
    pub(crate) folder: PathBuf,
    /// The option's text.
    pub(crate) names: String,
}

/// The place of a root's layers.
pub(crate) fn folder_beside(root: &Path) -> PathBuf {
    root.with_extension("layers")
}

impl Layers {
    /// Maps each layer of a `lowerdir=` option.
    ///
    /// # Errors
    /// A layer is not there, or its file system knows no such mounts. Nothing is left then.
    pub(crate) fn map(lower: &str, root: &Path, users: BorrowedFd<'_>) -> Result<Self, ShimError> {
        let folder = folder_beside(root);
        // Of a shim that was killed at this point.
        clear(&folder).map_err(ShimError::file("clear", &folder))?;
        std::fs::create_dir(&folder).map_err(ShimError::file("make", &folder))?;
        let mut layers = Self { folder, names: String::new() };
        let place = |error: Errno| ShimError::File {
            action: "mount a place for layers at",
            path: layers.folder.clone(),
            source: error.into(),
        };
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("layers", &layers.folder, "tmpfs", flags, Some(c"mode=700")).map_err(place)?;
        // What is mounted in there is nobody else's to see.
        mount_change(&layers.folder, MountPropagationFlags::PRIVATE).map_err(place)?;
        let mut names = Vec::new();
        for (number, layer) in lower.split(':').enumerate() {
            // Nothing between two colons is how an overlay tells data layers from others.
            if layer.is_empty() {
                names.push(String::new());
                continue;
            }
            let target = layers.folder.join(number.to_string());
            std::fs::create_dir(&target).map_err(ShimError::file("make", &target))?;
            map_onto(Path::new(layer), &target, users, false).map_err(|error| {
                ShimError::file("map the owners of the layer", layer.as_ref())(error.into())
            })?;
            names.push(number.to_string());
        }
        layers.names = names.join(":");
        Ok(layers)
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.folder) {
            log::warn(&format!("take the layers at {} away: {error}", self.folder.display()));
        }
    }
}

/// Takes away what a [`Layers`] has made, if there is something.
///
/// # Errors
/// It stays mounted, or the folder stays.
pub(crate) fn clear(folder: &Path) -> std::io::Result<()> {
    match unmount(folder, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
        // Not mounted yet, or no longer.
        Ok(()) | Err(Errno::INVAL) => std::fs::remove_dir(folder),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Maps a mount in its place.
pub(crate) fn map_mount(target: &Path, users: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    let mapped = mapped_copy(target, users, recursive)?;
    unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
    attach(&mapped, target)
}

fn map_onto(source: &Path, target: &Path, users: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    attach(&mapped_copy(source, users, recursive)?, target)
}

fn mapped_copy(path: &Path, users: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let copy = open_tree(CWD, path, flags)?;
    ketch_shim_sys::map_owners(&copy, users, recursive)?;
    Ok(copy)
}

fn attach(mount: &OwnedFd, target: &Path) -> Result<(), Errno> {
    move_mount(mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_lie_beside_their_root() {
        assert_eq!(folder_beside(Path::new("/b/rootfs")), Path::new("/b/rootfs.layers"));
    }

    #[test]
    fn what_is_not_there_is_clear() {
        clear(Path::new("/no/such/folder")).unwrap();
    }
}
