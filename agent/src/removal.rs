//! The removal of trees that somebody else has filled, or still fills: by descriptors, so that no link leads out of them, and
//! never through a mount, so that what is mounted there is not removed with them.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, OFlags, RenameFlags, ResolveFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::resolve::openat2;

/// Removes a file, a link, or a folder with all that is in it; that there is none is no error.
///
/// # Errors
/// The disk; something is mounted in it, which stays, as does what is beside it.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name to remove"));
    };
    let parent = match File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        parent => parent?,
    };
    if plain(&parent, name)? == Plain::Folder {
        clear_at(&folder(&parent, name)?)?;
        unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Removes all that is in a folder. However deep it is: folders are first moved up into this one, so that neither the stack
/// nor descriptors nor the length of a path are its maker's to exhaust.
///
/// # Errors
/// As [`remove`].
pub(crate) fn clear(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    clear_at(&openat2(rustix::fs::CWD, path, flags, ResolveFlags::empty())?)
}

fn clear_at(top: &OwnedFd) -> io::Result<()> {
    let mut number = 0_u64;
    each_name(top, |name| {
        if plain(top, name)? == Plain::Gone {
            return Ok(());
        }
        let inner = folder(top, name)?;
        each_name(&inner, |below| match plain(&inner, below)? {
            Plain::Gone => Ok(()),
            Plain::Folder => move_up(&inner, below, top, &mut number),
        })?;
        Ok(unlinkat(top, name, AtFlags::REMOVEDIR)?)
    })
}

/// Takes all names out of a folder by `take`, those too that come meanwhile. Never holds all of them: there may be millions.
fn each_name(folder: &OwnedFd, mut take: impl FnMut(&CStr) -> io::Result<()>) -> io::Result<()> {
    loop {
        let mut any = false;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                take(entry.file_name())?;
                any = true;
            }
        }
        if !any {
            return Ok(());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Plain {
    Gone,
    Folder,
}

/// Removes a name, unless it is a folder's.
fn plain(parent: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Plain> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Plain::Gone),
        Err(Errno::ISDIR) => Ok(Plain::Folder),
        Err(error) => Err(error.into()),
    }
}

fn folder(parent: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(parent, name, flags, resolve).map_err(|error| match error {
        Errno::XDEV => io::Error::new(io::ErrorKind::ResourceBusy, "something is mounted in it"),
        error => error.into(),
    })
}

/// To a new name: whatever has that name already is there from a run before.
fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, number: &mut u64) -> io::Result<()> {
    loop {
        *number += 1;
        let up = format!(".{number}");
        match renameat_with(from, name, top, OsStr::new(&up), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            // A subvolume of btrfs, which any user may make.
            Err(Errno::XDEV) => {
                clear_at(&folder(from, name)?)?;
                return Ok(unlinkat(from, name, AtFlags::REMOVEDIR)?);
            }
            moved => return Ok(moved?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn deep_folders_are_removed() {
        let scratch = Folder::new("deep");
        let mut path = scratch.path().to_owned();
        for _ in 0..300 {
            path.push("deep-folder");
        }
        fs::DirBuilder::new().recursive(true).create(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        symlink("/", scratch.path().join("link")).unwrap();
        fs::write(scratch.path().join(".1"), "x").unwrap();
        clear(scratch.path()).unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_is_removed_and_not_followed() {
        let scratch = Folder::new("links");
        let (kept, gone) = (scratch.path().join("kept"), scratch.path().join("gone"));
        for folder in [&kept, &gone] {
            fs::DirBuilder::new().create(folder).unwrap();
        }
        fs::write(kept.join("file"), "x").unwrap();
        symlink(&kept, gone.join("link")).unwrap();
        symlink(&gone, scratch.path().join("link")).unwrap();
        remove(&scratch.path().join("link")).unwrap();
        remove(&gone).unwrap();
        remove(&gone).unwrap();
        remove(&scratch.path().join("nothing/at/all")).unwrap();
        assert!(kept.join("file").exists() && !gone.exists());
    }
}
