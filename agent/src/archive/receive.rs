//! [`receive`]: a tar, unpacked into a folder of a container's.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, statat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::{View, words};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::resolve::openat2;
use crate::tar::{Entry, Kind, Reader};

/// Folders in folders, at most, in what is removed: each holds a descriptor.
const DEEPEST: usize = 200;

/// How to unpack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Receive {
    /// Whom everything belongs to, instead of whom the archive says.
    pub owner: Option<(u32, u32)>,
    /// A folder is never replaced by something else, nor the reverse.
    pub keeps_kinds: bool,
}

/// A folder of a container's that is unpacked into.
#[derive(Debug)]
struct Receiver<'a> {
    view: &'a View,
    /// Where the folder is, without links.
    folder: Vec<u8>,
    how: Receive,
    /// Times are set when nothing is made in them any more. One of each, however often the archive names it.
    folders: BTreeMap<Vec<u8>, Timestamps>,
}

/// Unpacks a tar, not compressed, into the folder at `path`, which [`View::folder`] has found.
///
/// # Errors
/// What the tar is not and what it may not, in dockerd's words; the kernel's.
pub fn receive(view: &View, folder: Vec<u8>, how: Receive, stream: impl Read) -> Result<()> {
    let mut receiver = Receiver { view, folder, how, folders: BTreeMap::new() };
    let mut reader = Reader::new(stream);
    while let Some(entry) = reader.next_entry().map_err(|error| internal(words(&error)))? {
        receiver.member(&entry, &mut reader)?;
    }
    for (path, times) in receiver.folders {
        // One that is something else by now keeps that one's.
        if let Ok(folder) = view.look_up_bytes(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
            utimensat(&folder, c"", &times, AtFlags::EMPTY_PATH).map_err(at("chtimes", &path))?;
        }
    }
    Ok(())
}

impl View {
    /// The folder that a path means, all links followed, as it is without them.
    ///
    /// # Errors
    /// It is none: dockerd's texts.
    pub fn folder(&self, path: &str) -> Result<Vec<u8>> {
        let cleaned = crate::paths::clean(path);
        let opened = self.look_up(&cleaned, OFlags::PATH).map_err(|error| match error {
            Errno::NOENT => Error::not_found(""),
            Errno::LOOP => internal("EvalSymlinks: too many links".to_owned()),
            error => internal(words(&error.into())),
        })?;
        let about = fstat(&opened).map_err(at("lstat", cleaned.as_bytes()))?;
        let real = self.path_of(&opened).map_err(at("lstat", cleaned.as_bytes()))?;
        if FileType::from_raw_mode(about.st_mode) == FileType::Directory {
            return Ok(real);
        }
        let ending = super::absolute(path);
        if ending.ends_with('/') || ending.ends_with("/.") {
            let shown = super::absolute(&format!("{}{}", text(&real), &ending[cleaned.len()..]));
            return Err(internal(format!("lstat {shown}: not a directory")));
        }
        Err(Error::invalid("extraction point is not a directory"))
    }
}

impl Receiver<'_> {
    fn member<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let Some(relative) = below(&entry.path) else {
            return Err(internal(format!("invalid entry name {}", quoted(&entry.path))));
        };
        // The folder itself stays as it is.
        if relative.is_empty() && entry.kind == Kind::Directory {
            return Ok(());
        }
        let path = joined(&self.folder, &relative);
        let (parent_path, name) = split(&path);
        let parent = self.parent(parent_path)?;
        let name = OsStr::from_bytes(name);
        if name.is_empty() {
            return Err(internal(format!("invalid entry name {}", quoted(&entry.path))));
        }
        // Before anything is taken away: nothing is made that can be nobody's.
        let _somebody = self.owner(entry)?;
        self.make_way(entry, &parent, name, &relative)?;
        match entry.kind {
            Kind::Directory => return self.folder(entry, &parent, name, path.clone()),
            Kind::File => return self.file(entry, &parent, name, &path, reader),
            Kind::HardLink => return self.hard_link(entry, &parent, name, &path),
            Kind::Symlink => {
                // Wherever it leads: whoever follows it is in the container.
                symlinkat(OsStr::from_bytes(&entry.link), &parent, name).map_err(at("symlink", &path))?;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let (kind, device) = entry.node();
                mknodat(&parent, name, kind, Mode::from_raw_mode(0o600), device)
                    .map_err(at("mknod", &path))?;
            }
        }
        self.finish_unopened(entry, &parent, name, &path)
    }

    /// The folder that a member is in, made where it is missing.
    fn parent(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.view.look_up_bytes(path, flags) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(at("mkdir", path)),
        }
        let (above, name) = split(path);
        if name.is_empty() {
            return Err(internal("the container's root is not there".to_owned()));
        }
        let parent = self.parent(above)?;
        match mkdirat(&parent, OsStr::from_bytes(name), Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let made = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(&parent, OsStr::from_bytes(name), made, Mode::empty());
                let (user, group) = self.view.ids.root();
                let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
                made.and_then(|made| chownat(&made, c"", user, group, AtFlags::EMPTY_PATH))
                    .map_err(at("lchown", path))?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(at("mkdir", path)(error)),
        }
        self.view.look_up_bytes(path, flags).map_err(at("mkdir", path))
    }

    /// What is there already goes, or stays if both are folders.
    fn make_way(&self, entry: &Entry, parent: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let there = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            there => there.map_err(at("lstat", path))?,
        };
        let was_folder = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
        let is_folder = entry.kind == Kind::Directory;
        if self.how.keeps_kinds && was_folder != is_folder {
            let (path, folder) = (quoted(path), quoted(&self.folder));
            return Err(internal(if was_folder {
                format!("cannot overwrite directory {path} with non-directory {folder}")
            } else {
                format!("cannot overwrite non-directory {path} with directory {folder}")
            }));
        }
        if was_folder && is_folder {
            return Ok(());
        }
        remove(parent, name, DEEPEST).map_err(at("RemoveAll", path))
    }

    fn folder(&mut self, entry: &Entry, parent: &OwnedFd, name: &OsStr, path: Vec<u8>) -> Result<()> {
        match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(at("mkdir", &path)(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(parent, name, flags, Mode::empty()).map_err(at("open", &path))?;
        self.dress(entry, &folder, &path)?;
        let _older = self.folders.insert(path, times(entry));
        Ok(())
    }

    fn file<R: Read>(
        &self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &OsStr,
        path: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(at("open", path))?;
        let mut file = File::from(opened);
        let copied = match &entry.sparse {
            Some(sparse) => sparse
                .pieces
                .iter()
                .try_for_each(|(offset, length)| {
                    let _at = file.seek(SeekFrom::Start(*offset))?;
                    io::copy(&mut reader.by_ref().take(*length), &mut file).map(drop)
                })
                .and_then(|()| file.set_len(sparse.real_size)),
            None => io::copy(reader, &mut file).map(drop),
        };
        copied.map_err(|error| internal(format!("write {}: {}", text(path), words(&error))))?;
        let file = OwnedFd::from(file);
        self.dress(entry, &file, path)?;
        futimens(&file, &times(entry)).map_err(at("chtimes", path))
    }

    fn hard_link(&self, entry: &Entry, parent: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let target = joined(&self.folder, &entry.link);
        if !is_in(&target, &self.folder) {
            let (target, link) = (quoted(&target), quoted(&entry.link));
            return Err(internal(format!("invalid hardlink {target} -> {link}")));
        }
        let (folder, last) = split(&target);
        let failed = |error: Errno| {
            let message = format!("link {} {}: {}", text(&target), text(path), words(&error.into()));
            match error {
                Errno::NOENT => Error::not_found(message),
                _ => internal(message),
            }
        };
        let folder = self.view.look_up_bytes(folder, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        linkat(&folder, OsStr::from_bytes(last), parent, name, AtFlags::empty()).map_err(failed)
    }

    /// Owner, attributes, mode: in this order, as a change of the owner takes setuid and capabilities away.
    fn dress(&self, entry: &Entry, file: &OwnedFd, path: &[u8]) -> Result<()> {
        let (user, group) = self.owner(entry)?;
        fchown(file, Some(user), Some(group)).map_err(at("lchown", path))?;
        for (name, value) in &entry.xattrs {
            if name.starts_with(b"trusted.overlay.") || name.contains(&0) {
                continue;
            }
            match fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                Err(Errno::PERM) | Ok(()) => {}
                Err(error) => return Err(at("setxattr", path)(error)),
            }
        }
        fchmod(file, Mode::from_raw_mode(entry.mode & 0o7777)).map_err(at("chmod", path))
    }

    /// What is never opened: links, devices, pipes.
    fn finish_unopened(&self, entry: &Entry, parent: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(parent, name, flags, Mode::empty()).map_err(at("open", path))?;
        let (user, group) = self.owner(entry)?;
        chownat(&made, c"", Some(user), Some(group), AtFlags::EMPTY_PATH).map_err(at("lchown", path))?;
        if entry.kind != Kind::Symlink {
            let mode = Mode::from_raw_mode(entry.mode & 0o7777);
            let descriptor = format!("/proc/thread-self/fd/{}", made.as_raw_fd());
            rustix::fs::chmod(descriptor, mode).map_err(at("chmod", path))?;
        }
        utimensat(&made, c"", &times(entry), AtFlags::EMPTY_PATH).map_err(at("chtimes", path))
    }

    /// On the host.
    fn owner(&self, entry: &Entry) -> Result<(Uid, Gid)> {
        let owner = self.how.owner.unwrap_or((entry.uid, entry.gid));
        let (user, group) = self.view.ids.to_host(owner).map_err(|error| internal(error.to_string()))?;
        Ok((Uid::from_raw(user), Gid::from_raw(group)))
    }
}

/// Removes what has a name in a folder, with all that is in it; never a link's target, and nothing of another mount: what is
/// mounted there is not the container's to lose.
fn remove(parent: &OwnedFd, name: &OsStr, depth: usize) -> rustix::io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let here = |flags| {
        openat2(parent, name, flags | OFlags::NOFOLLOW, resolve).map_err(|error| match error {
            Errno::XDEV => Errno::BUSY,
            error => error,
        })
    };
    // The kernel would only look for mounts of this thread's own namespace, and take those of others away with the name.
    match here(OFlags::PATH) {
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    let depth = depth.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let folder = here(OFlags::RDONLY | OFlags::DIRECTORY)?;
    for inner in Dir::read_from(&folder)? {
        let inner = inner?;
        let inner = OsStr::from_bytes(inner.file_name().to_bytes());
        if inner != "." && inner != ".." {
            remove(&folder, inner, depth)?;
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// A member's name without `.`, `..` and needless slashes; nothing for one that leads out.
fn below(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            // An absolute name can't lead above the root that it begins at.
            b".." if name.starts_with(b"/") => drop(parts.pop()),
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    (!joined.contains(&0)).then_some(joined)
}

/// Both, one behind the other, cleaned as words: nothing is looked up.
fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let whole = [b"/", folder, b"/", name].concat();
    [b"/", below(&whole).unwrap_or_default().as_slice()].concat()
}

/// As dockerd means it: a name that begins so.
fn is_in(path: &[u8], folder: &[u8]) -> bool {
    path.starts_with(folder)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => (b"/", path.strip_prefix(b"/").unwrap_or(path)),
        Some(at) => (&path[..at], &path[at + 1..]),
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.seconds, tv_nsec: entry.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// A failed call, as Go tells it; what is not there is no file of the container's.
fn at(call: &'static str, path: &[u8]) -> impl Fn(Errno) -> Error {
    let path = text(path);
    move |error| {
        let message = format!("{call} {path}: {}", words(&error.into()));
        match error {
            Errno::NOENT => Error::not_found(message),
            _ => internal(message),
        }
    }
}

fn internal(message: String) -> Error {
    Error::new(ErrorKind::Internal, message)
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn quoted(path: &[u8]) -> String {
    format!("{:?}", text(path))
}
