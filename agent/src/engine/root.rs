//! A container's root file system, mounted in its bundle, and looked into: what is in there is the image's or the
//! container's own, and nothing there may lead out.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use ketch_shim_api::types::Mount;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind_recursive, move_mount, open_tree,
};

use crate::error::{Error, Result};
use crate::overlay::Opened;
use crate::resolve::open_file;

/// The most that is read of a file in there.
const LARGEST: u64 = 4 << 20;
/// What the kernel takes of a mount's options in one piece.
const PAGE: usize = 4095;

/// Mounts a root at `target`, which is a folder.
///
/// # Errors
/// The kernel refuses.
pub fn mount(mounts: &[Mount], target: &Path) -> Result<()> {
    for one in mounts {
        let failed = |error: Errno| {
            Error::internal(
                format_args!("mounting the root file system ({}) at {}", one.r#type, target.display()),
                &std::io::Error::from(error),
            )
        };
        match one.r#type.as_str() {
            "overlay" => overlay(one, target).map_err(failed)?,
            _ => mount_bind_recursive(one.source.as_str(), target).map_err(failed)?,
        }
    }
    Ok(())
}

fn overlay(one: &Mount, target: &Path) -> rustix::io::Result<()> {
    let data = one.options.iter().filter(|option| !matches!(option.as_str(), "rw" | "ro"));
    let data: Vec<&str> = data.map(String::as_str).collect();
    let joined = data.join(",");
    if joined.len() <= PAGE {
        let text = std::ffi::CString::new(joined).map_err(|_| Errno::INVAL)?;
        return rustix::mount::mount(
            "overlay",
            target,
            "overlay",
            MountFlags::empty(),
            Some(text.as_c_str()),
        );
    }
    match layer_by_layer(&data, target) {
        // `lowerdir+` is of Linux 6.8.
        Err(Errno::INVAL) => in_a_page(&data, target),
        mounted => mounted,
    }
}

/// There is no bound on the number of layers then.
fn layer_by_layer(data: &[&str], target: &Path) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in data {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    fsconfig_set_string(&context, "lowerdir+", layer)?;
                }
            }
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, *option)?,
        }
    }
    fsconfig_create(&context)?;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&mounted, c"", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// With the layers' descriptors for their names: 190 fit.
fn in_a_page(data: &[&str], target: &Path) -> rustix::io::Result<()> {
    let mut opened = Vec::new();
    let mut shortened = Vec::new();
    for option in data {
        match option.strip_prefix("lowerdir=") {
            Some(layers) => {
                let layers = Opened::all(layers.split(':').map(Path::new))?;
                shortened.push(format!("lowerdir={}", layers.joined()));
                opened.push(layers);
            }
            None => shortened.push((*option).to_owned()),
        }
    }
    let text = std::ffi::CString::new(shortened.join(",")).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), Some(text.as_c_str()))
}

/// A root that stays until this is dropped, whoever takes it from its place: its last user waits until the kernel has written all
/// that the whole disk below has to write, its neighbours' too, and that should be nobody who is waited for.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held open only")] OwnedFd);

impl Held {
    /// What is mounted at `target`; `None` where nothing is.
    #[must_use]
    pub fn at(target: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(target, flags, Mode::empty()).ok().map(Self)
    }
}

/// Mounts what is open, a folder or a file, at `target`, which is made.
///
/// # Errors
/// The kernel refuses.
pub fn mount_opened(found: &OwnedFd, target: &Path) -> Result<()> {
    let mounted = || -> std::io::Result<()> {
        let about = File::from(found.try_clone()?).metadata()?;
        if about.is_dir() {
            DirBuilder::new().mode(0o700).create(target)?;
        } else {
            let _empty = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let flags = flags | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(found, c"", flags)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        Ok(move_mount(&tree, c"", rustix::fs::CWD, target, flags)?)
    };
    mounted().map_err(|error| Error::internal(format_args!("mounting {}", target.display()), &error))
}

/// Mounts the /dev/shm that other containers may join; it is this user's and group's.
///
/// # Errors
/// The kernel refuses.
pub fn mount_shm(target: &Path, size: i64, (user, group): (u32, u32)) -> Result<()> {
    super::lifecycle::make_folder(target, 0o711)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let options =
        std::ffi::CString::new(format!("mode=1777,size={size},uid={user},gid={group}")).unwrap_or_default();
    rustix::mount::mount("shm", target, "tmpfs", flags, Some(options.as_c_str())).map_err(|error| {
        Error::internal(format_args!("mounting {}", target.display()), &std::io::Error::from(error))
    })
}

/// A file in a root, as text; nothing where there is none.
///
/// # Errors
/// It is no file that can be read.
pub fn read(root: &Path, path: &str) -> Result<String> {
    let folder = File::open(root)
        .map_err(|error| Error::internal(format_args!("reading {path} of the image"), &error))?;
    read_in(folder, path)
}

/// The same, of a root that is open.
///
/// # Errors
/// It is no file that can be read.
pub fn read_in(root: impl AsFd, path: &str) -> Result<String> {
    let failed = |error: std::io::Error| Error::internal(format_args!("reading {path} of the image"), &error);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match open_file(root, path, OFlags::empty(), resolve) {
        Ok(Some(file)) => file,
        Ok(None) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Ok(String::new());
        }
        Err(error) => return Err(failed(error.into())),
    };
    let mut bytes = Vec::new();
    let _count = file.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn nothing_in_a_root_leads_out_of_it() {
        let folder = Folder::new("root");
        std::fs::write(folder.path().join("in"), "inside").unwrap();
        std::os::unix::fs::symlink("/in", folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", folder.path().join("out")).unwrap();
        assert_eq!(read(folder.path(), "link").unwrap(), "inside");
        assert_eq!(read(folder.path(), "out").unwrap(), "");
        assert_eq!(read(folder.path(), "nothing").unwrap(), "");
        assert_eq!(read(folder.path(), ".").unwrap(), "");
    }
}
