//! Copying a tree out of a container's root: descriptor by descriptor, so that nothing in there leads out, however it is
//! changed meanwhile. Owners, modes, times, extended attributes and hard links are kept.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat,
    openat, readlinkat, statat, symlinkat,
};

use crate::resolve::{open_file, openat2};

/// Folders in folders, at most: each holds two descriptors.
const DEEPEST: usize = 200;

/// Copies what is in a folder, and what the folder itself is.
pub(super) fn tree(from: OwnedFd, to: OwnedFd) -> io::Result<()> {
    let mut links = HashMap::new();
    let top = to.try_clone()?;
    folder(&from, &to, OsStr::new(""), &mut Links { top: &top, seen: &mut links }, 0)
}

/// Where files with more than one name have their first.
struct Links<'a> {
    top: &'a OwnedFd,
    seen: &'a mut HashMap<(u64, u64), CString>,
}

fn folder(from: &OwnedFd, to: &OwnedFd, path: &OsStr, links: &mut Links<'_>, depth: usize) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("more than {DEEPEST} folders in folders"),
        ));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut below = path.as_bytes().to_vec();
        if !below.is_empty() {
            below.push(b'/');
        }
        below.extend_from_slice(name.to_bytes());
        one(from, to, name, &stat, &below, links, depth)?;
    }
    dress(from, to, &fstat(from)?)
}

fn one(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &CStr,
    stat: &Stat,
    path: &[u8],
    links: &mut Links<'_>,
    depth: usize,
) -> io::Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory && stat.st_nlink > 1 {
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = links.seen.get(&key) {
            return again(links.top, first, to, name);
        }
        let path = CString::new(path).map_err(io::Error::other)?;
        let _none = links.seen.insert(key, path);
    }
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::from(0o700))?;
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let inner = openat(from, name, flags, Mode::empty())?;
            let outer = openat(to, name, flags, Mode::empty())?;
            folder(&inner, &outer, OsStr::from_bytes(path), links, depth + 1)
        }
        FileType::RegularFile => {
            // The name may be another's by now.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let Some(mut source) = open_file(from, name, OFlags::NOFOLLOW, resolve)? else { return Ok(()) };
            let stat = fstat(&source)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut target = File::from(openat(to, name, flags, Mode::from(0o600))?);
            let _bytes = io::copy(&mut source, &mut target)?;
            dress(&source, &target, &stat)
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            symlinkat(target.as_c_str(), to, name)?;
            Ok(chownat(to, name, uid(stat), gid(stat), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
            mknodat(to, name, kind, Mode::from(stat.st_mode & 0o7777), stat.st_rdev)?;
            Ok(chownat(to, name, uid(stat), gid(stat), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        // A socket without its server is nothing.
        _ => Ok(()),
    }
}

/// One more name of a file that has been copied. Others may use the volume already: its folders may be links by now.
fn again(top: &OwnedFd, first: &CStr, to: &OwnedFd, name: &CStr) -> io::Result<()> {
    let (folder, file) = match first.to_bytes().iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&first.to_bytes()[..at], &first.to_bytes()[at + 1..]),
        None => (&b"."[..], first.to_bytes()),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let folder = openat2(top, OsStr::from_bytes(folder), flags, resolve)?;
    Ok(linkat(folder, OsStr::from_bytes(file), to, name, AtFlags::empty())?)
}

#[expect(clippy::unnecessary_wraps, reason = "what chown takes")]
fn uid(stat: &Stat) -> Option<Uid> {
    Some(Uid::from_raw(stat.st_uid))
}

#[expect(clippy::unnecessary_wraps, reason = "what chown takes")]
fn gid(stat: &Stat) -> Option<Gid> {
    Some(Gid::from_raw(stat.st_gid))
}

/// Owner, attributes, mode and times; the owner first, as changing it takes the setuid bit away.
fn dress(from: impl AsFd, to: impl AsFd, stat: &Stat) -> io::Result<()> {
    fchown(&to, uid(stat), gid(stat))?;
    attributes(&from, &to)?;
    fchmod(&to, Mode::from(stat.st_mode & 0o7777))?;
    let time =
        |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(futimens(&to, &times)?)
}

/// Extended attributes, where both file systems have them; overlayfs' own are not the file's.
fn attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0; 64 << 10];
    let Ok(length) = flistxattr(&from, &mut names[..]) else { return Ok(()) };
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let Ok(length) = fgetxattr(&from, name, &mut value[..]) else { continue };
        match fsetxattr(&to, name, &value[..length], XattrFlags::empty()) {
            Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
