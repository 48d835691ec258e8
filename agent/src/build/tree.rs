//! A folder of a build, the context's or an image's root, and what is written into it.
//!
//! All in it is hostile, but nobody else is in it: no process runs there. A path is resolved once, link by link, to one that
//! has no link ([`Tree::resolve`]); what is opened then is opened beneath the root with RESOLVE_NO_SYMLINKS, so that even a
//! path that was not resolved leads nowhere else. Devices and pipes are never opened.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, readlinkat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::image::pack::Walk;
use crate::image::unpack::Limits;
use crate::remap::Ids;
use crate::resolve::{open_file, openat2};
use crate::tar::{Entry, Kind};

/// Links on the way of one path, as the kernel allows.
const LINKS: u32 = 40;
const LONGEST_PATH: usize = 4095;
const WITHOUT_LINKS: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

pub(super) use crate::remap::Owner;

/// See the module.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// How much more may be written.
    limits: Limits,
    /// Whose files of the build's owners are.
    ids: Ids,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, limits: Limits) -> Self {
        Self { root, limits, ids: Ids::default() }
    }

    /// The same of an image's root, whose files are the host's ids'.
    pub(super) fn of_users(self, ids: &Ids) -> Self {
        Self { ids: ids.clone(), ..self }
    }

    /// Whom something belongs to, as a container sees it.
    pub(super) fn owner_of(&self, about: &Stat) -> io::Result<Owner> {
        self.ids.to_container((about.st_uid, about.st_gid))
    }

    /// The path without links, relative to the root, whether it is there or not; `..` stops at the root.
    pub(super) fn resolve(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.resolve_parts(path, true)
    }

    /// The same, but for a link that is the last component.
    pub(super) fn resolve_parent(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.resolve_parts(path, false)
    }

    fn resolve_parts(&self, path: &[u8], last: bool) -> io::Result<Vec<u8>> {
        if path.len() > LONGEST_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let mut left: VecDeque<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let (mut done, mut links): (Vec<Vec<u8>>, u32) = (Vec::new(), 0);
        while let Some(part) = left.pop_front() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => drop(done.pop()),
                _ => {
                    let is_last = left.iter().all(|part| part.is_empty() || part == b".");
                    let parent =
                        if last || !is_last { self.open(&done.join(&b'/'), FOLDER).ok() } else { None };
                    let link = parent
                        .and_then(|parent| readlinkat(parent, OsStr::from_bytes(&part), Vec::new()).ok());
                    let Some(link) = link else {
                        done.push(part);
                        continue;
                    };
                    links += 1;
                    let link = link.into_bytes();
                    if links > LINKS || link.len() > LONGEST_PATH {
                        return Err(Errno::LOOP.into());
                    }
                    if link.starts_with(b"/") {
                        done.clear();
                    }
                    for part in link.rsplit(|byte| *byte == b'/') {
                        left.push_front(part.to_vec());
                    }
                }
            }
        }
        let resolved = done.join(&b'/');
        if resolved.len() > LONGEST_PATH || resolved.contains(&0) {
            return Err(Errno::NAMETOOLONG.into());
        }
        Ok(resolved)
    }

    /// What is at a path that has no links; `None` for nothing.
    pub(super) fn look(&self, path: &[u8]) -> io::Result<Option<Stat>> {
        match self.open(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(found) => Ok(Some(fstat(&found)?)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn is_folder(&self, path: &[u8]) -> io::Result<bool> {
        Ok(self.look(path)?.is_some_and(|about| is(&about, FileType::Directory)))
    }

    /// Opens a path that has no links.
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        openat2(&self.root, OsStr::from_bytes(path), flags, WITHOUT_LINKS)
    }

    /// A regular file for reading; `None` for anything else.
    pub(super) fn read(&self, path: &[u8]) -> io::Result<Option<File>> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        match open_file(&self.root, OsStr::from_bytes(path), OFlags::NOFOLLOW, WITHOUT_LINKS) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            opened => Ok(opened?),
        }
    }

    /// Makes the folder, with all that is missing on the way, for this owner. Gives whether it was there.
    pub(super) fn make_folders(&self, path: &[u8], owner: Owner) -> io::Result<bool> {
        let mut end = 0;
        let mut there = true;
        while end < path.len() {
            let next = path[end + 1..].iter().position(|byte| *byte == b'/');
            end = next.map_or(path.len(), |at| end + 1 + at);
            let (parent, name) = self.parent(&path[..end])?;
            match mkdirat(&parent, &*name, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    there = false;
                    chmodat(&parent, &*name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
                    self.chown(&parent, &name, owner)?;
                }
                Err(Errno::EXIST) if self.is_folder(&path[..end])? => {}
                Err(Errno::EXIST) => return Err(Errno::NOTDIR.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(there)
    }

    /// Removes whatever is there, with all that is in it.
    pub(super) fn remove(&self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match unlinkat(&parent, &*name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = openat(&parent, &*name, READABLE, Mode::empty())?;
        let mut walk = Walk::new(&folder)?;
        let mut found = Vec::new();
        while let Some(next) = walk.next()? {
            found.push((next.path.clone(), next.is(FileType::Directory)));
        }
        let inside = Self { root: folder, limits: self.limits, ids: self.ids.clone() };
        for (path, is_folder) in found.iter().rev() {
            let (parent, name) = inside.parent(path)?;
            let flags = if *is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            unlinkat(&parent, &*name, flags)?;
        }
        Ok(unlinkat(&parent, &*name, AtFlags::REMOVEDIR)?)
    }

    /// Writes a member, replacing what is there but for a folder by a folder; `path` has no links but for its last component,
    /// `linked` is where a hard link leads. A folder's times are set by [`Tree::finish_folder`], when all that is in it has
    /// been written.
    pub(super) fn put(
        &mut self,
        path: &[u8],
        entry: &Entry,
        linked: &[u8],
        data: impl Read,
    ) -> io::Result<()> {
        self.count(entry)?;
        if path.is_empty() {
            return Ok(());
        }
        let there = self.look(path)?;
        let is_folder = there.as_ref().is_some_and(|about| is(about, FileType::Directory));
        if there.is_some() && !(is_folder && entry.kind == Kind::Directory) {
            if entry.kind == Kind::HardLink && linked == path {
                return Ok(());
            }
            self.remove(path)?;
        }
        let (parent, name) = self.parent(path)?;
        let owner = self.ids.to_host((entry.uid, entry.gid))?;
        match entry.kind {
            Kind::Directory => {
                if !is_folder {
                    mkdirat(&parent, &*name, Mode::from_raw_mode(0o700))?;
                }
                let folder = openat(&parent, &*name, READABLE, Mode::empty())?;
                return finish(&folder, entry, owner);
            }
            Kind::File => return write(&parent, &name, entry, owner, data),
            Kind::HardLink => {
                let (folder, target) = self.parent(linked)?;
                return Ok(linkat(&folder, &*target, &parent, &*name, AtFlags::empty())?);
            }
            Kind::Symlink => symlinkat(OsStr::from_bytes(&entry.link), &parent, &*name)?,
            Kind::Char | Kind::Block | Kind::Fifo => {
                let (kind, device) = entry.node();
                mknodat(&parent, &*name, kind, Mode::from_raw_mode(0o600), device)?;
            }
        }
        self.chown(&parent, &name, (entry.uid, entry.gid))?;
        if entry.kind != Kind::Symlink {
            // It was made just now, and nobody else is here: it is no link.
            chmodat(&parent, &*name, Mode::from_raw_mode(entry.mode & 0o7777), AtFlags::empty())?;
        }
        Ok(utimensat(&parent, &*name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets a folder's times; one that is none any more keeps its own.
    pub(super) fn finish_folder(&self, path: &[u8], times: &Timestamps) -> io::Result<()> {
        match self.open(path, FOLDER | OFlags::NOFOLLOW) {
            Ok(folder) => Ok(utimensat(&folder, c"", times, AtFlags::EMPTY_PATH)?),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives something to somebody else; a link itself.
    pub(super) fn give(&self, path: &[u8], owner: Owner) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        self.chown(&parent, &name, owner)
    }

    fn chown(&self, parent: &OwnedFd, name: &OsStr, owner: Owner) -> io::Result<()> {
        let (user, group) = self.ids.to_host(owner)?;
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        Ok(chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whether so much could be copied: a hole may be longer than anybody will ever read.
    pub(super) fn fits(&self, size: u64) -> io::Result<()> {
        if size <= self.limits.bytes { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn count(&mut self, entry: &Entry) -> io::Result<()> {
        let full = |what: &str| {
            io::Error::new(io::ErrorKind::StorageFull, format!("more {what} than there is space for"))
        };
        self.limits.entries = self.limits.entries.checked_sub(1).ok_or_else(|| full("files"))?;
        self.limits.bytes = self.limits.bytes.checked_sub(entry.size).ok_or_else(|| full("bytes"))?;
        Ok(())
    }

    /// The folder that a path is in, and its name there; the root is in itself.
    fn parent(&self, path: &[u8]) -> io::Result<(OwnedFd, Box<OsStr>)> {
        let at = path.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        let name = if name.is_empty() { b".".as_slice() } else { name };
        Ok((self.open(folder, FOLDER)?, OsStr::from_bytes(name).into()))
    }
}

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
const READABLE: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) fn is(about: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(about.st_mode) == kind
}

/// The last component.
pub(super) fn base(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.iter().rposition(|byte| *byte == b'/').map_or(path, |at| &path[at + 1..])
}

/// All but the last component.
pub(super) fn folder_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

/// One below another.
pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match (folder, name) {
        (b"", name) => name.to_vec(),
        (folder, b"") => folder.to_vec(),
        (folder, name) => [folder, name].join(&b'/'),
    }
}

fn write(parent: &OwnedFd, name: &OsStr, entry: &Entry, owner: Owner, data: impl Read) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
    if let Some(sparse) = &entry.sparse {
        let mut data = data;
        for (offset, length) in &sparse.pieces {
            let _at = io::Seek::seek(&mut file, io::SeekFrom::Start(*offset))?;
            exactly(io::copy(&mut data.by_ref().take(*length), &mut file)?, *length)?;
        }
        file.set_len(sparse.real_size)?;
    } else {
        exactly(io::copy(&mut data.take(entry.size), &mut file)?, entry.size)?;
    }
    let file = OwnedFd::from(file);
    finish(&file, entry, owner)?;
    Ok(futimens(&file, &times(entry))?)
}

fn exactly(count: u64, wanted: u64) -> io::Result<()> {
    if count == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The owner, who is the host's, first: changing it takes setuid and capabilities away.
fn finish(file: &OwnedFd, entry: &Entry, (user, group): Owner) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    for (name, value) in &entry.xattrs {
        if name.starts_with(b"trusted.overlay.") || name.contains(&0) {
            continue;
        }
        match fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => {}
            result => result?,
        }
    }
    Ok(fchmod(file, Mode::from_raw_mode(entry.mode & 0o7777))?)
}

/// When an entry was changed.
pub(super) fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.seconds, tv_nsec: entry.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
