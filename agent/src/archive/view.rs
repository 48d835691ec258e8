//! [`View`]: a container's root with its volumes and binds, mounted where no process is.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ketch_shim_api::types::Mount;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, Uid, chownat, fstat,
    fstatvfs, mkdirat, open, openat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_remount, move_mount, open_tree};

use crate::blocking::on_a_thread;
use crate::error::{Error, Result};
use crate::mounted;
use crate::remap::{Ids, Owner};
use crate::resolve::openat2;

/// Where the root is.
#[derive(Debug)]
pub enum Root<'a> {
    /// A container runs with it: it is mounted here.
    Mounted(&'a Path),
    /// Nobody has mounted it: what is to be, and a folder for it.
    Unmounted(&'a [Mount], &'a Path),
    /// The same to be looked at only: what it has written is one more layer to read, and what is made to be mounted upon is in memory.
    /// It may be started, changed and removed meanwhile.
    Looked {
        /// What is to be, but for what is written.
        mounts: &'a [Mount],
        /// What it has written; a folder for it.
        upper: &'a Path,
        /// A folder for the memory.
        scratch: &'a Path,
    },
}

/// Something of the host that a container sees in its root.
#[derive(Clone, Debug)]
pub struct Bound {
    /// On the host.
    pub source: PathBuf,
    /// An image's files, which are mounted at the source before, where only the view sees them.
    pub image: Option<Mount>,
    /// A folder of the source, to which no link leads but an image's own, which nobody can change; empty for all of it.
    pub below: String,
    /// In the root.
    pub destination: String,
    /// With what is mounted below the source.
    pub recursive: bool,
    /// What may be written to.
    pub writable: bool,
    /// On the host, of the folders and files of the root that are made for it to be mounted upon.
    pub owner: (u32, u32),
}

/// The root and all that is bound into it, in a mount namespace that has no process and goes with this. In it no file is a
/// device, whatever it looks like: nothing that a container has made acts by being opened.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    /// Where the root is in that namespace.
    place: PathBuf,
    _namespace: OwnedFd,
    /// Whose files of containers' users are.
    pub(super) ids: Ids,
}

impl View {
    /// Mounts everything. `before` is called with the root's path once the root alone is there, on a thread that sees it.
    ///
    /// # Errors
    /// The kernel's; a source that is not there.
    pub fn open(
        root: &Root<'_>,
        bound: &[Bound],
        writable: bool,
        before: impl FnOnce(&Path) -> Result<()> + Send,
    ) -> Result<Self> {
        on_a_thread("view", || {
            let failed =
                |error: Errno| Error::internal("opening a container's files", &io::Error::from(error));
            mounted::own_namespace().map_err(failed)?;
            let place = match root {
                Root::Mounted(place) => *place,
                Root::Unmounted(mounts, place) => {
                    crate::engine::root::mount(mounts, place)?;
                    *place
                }
                Root::Looked { mounts, upper, scratch } => {
                    let above = over(mounts, upper, scratch).map_err(|error| {
                        Error::internal(format_args!("looking at {}", upper.display()), &error)
                    })?;
                    crate::engine::root::mount(&above, upper)?;
                    *upper
                }
            };
            before(place)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = open(place, flags, Mode::empty()).map_err(failed)?;
            restrict(&opened, Access::ReadWrite).map_err(failed)?;
            for one in bound {
                crate::engine::root::mount(one.image.as_slice(), &one.source)?;
                bind(&opened, one).map_err(|error| {
                    Error::internal(
                        format_args!("mounting {} at {}", one.source.display(), one.destination),
                        &error,
                    )
                })?;
            }
            if !writable {
                restrict(&opened, Access::ReadOnly).map_err(failed)?;
            }
            let place = path_of(&opened).map_err(failed)?;
            let namespace = File::open("/proc/thread-self/ns/mnt")
                .map_err(|error| Error::internal("opening a container's files", &error))?;
            Ok(Self { root: opened, place, _namespace: namespace.into(), ids: Ids::default() })
        })
    }

    /// The same where containers' users are others on the host.
    pub(crate) fn for_users(self, ids: &Ids) -> Self {
        Self { ids: ids.clone(), ..self }
    }

    /// A view of a folder, for tests.
    #[cfg(test)]
    pub(super) fn of(root: OwnedFd, place: PathBuf) -> Self {
        let namespace = File::open("/proc/thread-self/ns/mnt").unwrap().into();
        Self { root, place, _namespace: namespace, ids: Ids::default() }
    }

    /// The root itself.
    #[must_use]
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens what a path of the container's means.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn look_up(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        in_root(&self.root, OsStr::new(path), flags)
    }

    /// The same, of bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn look_up_bytes(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        in_root(&self.root, OsStr::from_bytes(path), flags)
    }

    /// Where an open file is in the root, without links: the kernel's word.
    ///
    /// # Errors
    /// The kernel's; it is not in the root any more.
    pub(super) fn path_of(&self, file: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
        let path = path_of(file)?;
        let below = path.strip_prefix(&self.place).map_err(|_| Errno::NOENT)?;
        Ok([b"/", below.as_os_str().as_bytes()].concat())
    }
}

/// The mounts with what is written below a new layer, which looks the same and goes with this namespace.
fn over(mounts: &[Mount], upper: &Path, scratch: &Path) -> io::Result<Vec<Mount>> {
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", scratch, "tmpfs", flags, Some(c"mode=0700"))?;
    let (layer, work) = (scratch.join("layer"), scratch.join("work"));
    for folder in [&layer, &work] {
        mkdirat(CWD, folder, Mode::from(0o755))?;
    }
    let root = std::fs::metadata(upper)?;
    std::os::unix::fs::chown(&layer, Some(root.uid()), Some(root.gid()))?;
    std::fs::set_permissions(&layer, root.permissions())?;
    File::open(&layer)?.set_modified(root.modified()?)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let option = |option: &String| match option.split_once('=') {
        Some(("lowerdir", below)) => format!("lowerdir={}:{below}", text(upper)),
        Some(("upperdir", _)) => format!("upperdir={}", text(&layer)),
        Some(("workdir", _)) => format!("workdir={}", text(&work)),
        _ => option.clone(),
    };
    let over = |one: &Mount| Mount { options: one.options.iter().map(option).collect(), ..one.clone() };
    Ok(mounts.iter().map(over).collect())
}

fn in_root(root: &OwnedFd, path: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat2(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

/// Of a mount's root: what may be done there. Its own restrictions do not matter: nothing is executed in a view.
fn restrict(mount: &OwnedFd, access: Access) -> rustix::io::Result<()> {
    let mut flags = MountFlags::BIND | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    // What the host has mounted read-only the container can't write to either.
    if access == Access::ReadOnly || fstatvfs(mount)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        flags |= MountFlags::RDONLY;
    }
    mount_remount(descriptor(mount), flags, c"")
}

fn descriptor(file: &OwnedFd) -> String {
    format!("/proc/thread-self/fd/{}", file.as_raw_fd())
}

fn path_of(file: &OwnedFd) -> rustix::io::Result<PathBuf> {
    let path = rustix::fs::readlink(descriptor(file), Vec::new())?;
    Ok(std::ffi::OsString::from_vec(path.into_bytes()).into())
}

/// Binds one. The place is resolved to a descriptor once, and mounted upon: a link that is put there meanwhile leads nowhere.
fn bind(root: &OwnedFd, bound: &Bound) -> io::Result<()> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if bound.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = if bound.below.is_empty() {
        open_tree(CWD, &bound.source, flags)?
    } else {
        let whole = open(&bound.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if bound.image.is_none() {
            resolve |= ResolveFlags::NO_SYMLINKS;
        }
        let part = openat2(&whole, bound.below.as_str(), OFlags::PATH, resolve)?;
        open_tree(&part, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)?
    };
    let is_folder = FileType::from_raw_mode(fstat(&tree)?.st_mode) == FileType::Directory;
    let place = destination(root, bound, is_folder)?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, c"", &place, c"", empty)?;
    let access = if bound.writable { Access::ReadWrite } else { Access::ReadOnly };
    restrict(&tree, access)?;
    if bound.recursive {
        restrict_below(&tree, access)?;
    }
    Ok(())
}

/// All mounts below one. One that nobody can get at, as another covers it, is left.
fn restrict_below(tree: &OwnedFd, access: Access) -> io::Result<()> {
    let top = path_of(tree)?;
    for point in mounted::points()? {
        let Ok(below) = point.strip_prefix(&top) else { continue };
        if below.as_os_str().is_empty() {
            continue;
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(tree, below, OFlags::PATH | OFlags::NOFOLLOW, resolve) {
            Ok(mount) => restrict(&mount, access)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is mounted upon; made where it is missing, as it is when the container starts.
fn destination(root: &OwnedFd, bound: &Bound, is_folder: bool) -> rustix::io::Result<OwnedFd> {
    let (path, flags) = (bound.destination.as_str(), OFlags::PATH);
    match in_root(root, OsStr::new(path), flags) {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (last, folders) = parts.split_last().ok_or(Errno::NOENT)?;
    let mut at = String::from("/");
    let mut parent = in_root(root, OsStr::new("/"), flags)?;
    for folder in folders {
        at = format!("{at}{folder}/");
        parent = match in_root(root, OsStr::new(&at), flags | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => folder_in(&parent, folder, bound.owner)?,
            opened => opened?,
        };
    }
    if is_folder {
        return folder_in(&parent, last, bound.owner);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    drop(openat(parent.as_fd(), *last, flags, Mode::from(0o755))?);
    give(&parent, last, bound.owner)?;
    in_root(root, OsStr::new(path), OFlags::PATH)
}

fn give(parent: &OwnedFd, name: &str, (user, group): Owner) -> rustix::io::Result<()> {
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    chownat(parent, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
}

fn folder_in(parent: &OwnedFd, name: &str, owner: Owner) -> rustix::io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from(0o755))?;
    give(parent, name, owner)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
