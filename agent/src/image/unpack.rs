//! A layer's tar, unpacked into an overlayfs layer's folder.
//!
//! The tar is hostile. Every name is resolved below a descriptor of the folder by openat2(2) with RESOLVE_IN_ROOT, so that
//! neither `..` nor a symlink of the tar's own leads out (CVE-2019-14271 and its kin); everything is done to descriptors and
//! to last components, which are never followed; whatever is replaced is moved away first. How much it may write, in bytes
//! and in files, is bounded. Nothing here knows of images: called by `layers`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, renameat, statat,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::direct::{Direct, LARGE};
use crate::paths;
use crate::remap::{Ids, Owner};
use crate::resolve::openat2;
use crate::tar::{Entry, Kind, Reader};

/// OCI's prefix of what removes a lower layer's file.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// What hides all that lower layers have in a folder.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs's own files, which say nothing about the content.
const AUFS: &[u8] = b".wh..wh.";
/// overlayfs's mark of such a folder.
pub(super) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// What an image may not set: it would tell overlayfs to take content from elsewhere.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";
const LONGEST_PATH: usize = 4095;

/// How much a layer may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of files' content, holes apart.
    pub bytes: u64,
    /// Members.
    pub entries: u64,
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream broke, or is no tar.
    #[error("reading the layer")]
    Read(#[source] io::Error),
    /// A name that leads out of the layer.
    #[error("{0:?} leads out of the layer")]
    Outside(String),
    /// A link to what the layer does not have.
    #[error("{0:?} is a link to {1:?}, which the layer does not have before it")]
    Link(String, String),
    /// More content than allowed.
    #[error("the layer has more than {0} bytes")]
    Bytes(u64),
    /// More members than allowed.
    #[error("the layer has more than {0} files")]
    Entries(u64),
    /// A user that containers do not have.
    #[error("the owner of {0:?}")]
    Owner(String, #[source] io::Error),
    /// What the kernel refused.
    #[error("making {1:?} ({0})")]
    Make(&'static str, String, #[source] io::Error),
}

type Result<T, E = UnpackError> = std::result::Result<T, E>;

/// Unpacks one tar after its members.
#[derive(Debug)]
pub(super) struct Unpacker {
    root: OwnedFd,
    /// Where replaced folders go.
    trash: PathBuf,
    trashed: u64,
    limits: Limits,
    ids: Ids,
    /// The folder that the last member was in: the next is, mostly, too.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// What files' content goes through.
    direct: Direct,
    /// Times are set when nothing is made in them any more.
    folders: Vec<(Vec<u8>, Timestamps)>,
    /// Of files and links.
    pub(super) size: u64,
}

impl Unpacker {
    /// Into the folder, which is empty; `trash` is one beside it.
    pub(super) fn new(folder: &Path, trash: &Path, limits: Limits) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: openat(CWD, folder, flags, Mode::empty())?,
            trash: trash.to_owned(),
            trashed: 0,
            limits,
            ids: Ids::default(),
            parent: None,
            direct: Direct::new(),
            folders: Vec::new(),
            size: 0,
        })
    }

    /// Whose files of the tar's owners are.
    pub(super) fn for_users(self, ids: &Ids) -> Self {
        Self { ids: ids.clone(), ..self }
    }

    /// All of them.
    pub(super) fn unpack<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<()> {
        let all = self.limits;
        while let Some(entry) = reader.next_entry().map_err(UnpackError::Read)? {
            self.limits.entries =
                self.limits.entries.checked_sub(1).ok_or(UnpackError::Entries(all.entries))?;
            self.limits.bytes =
                self.limits.bytes.checked_sub(entry.size).ok_or(UnpackError::Bytes(all.bytes))?;
            self.member(&entry, reader)?;
        }
        self.parent = None;
        for (path, times) in std::mem::take(&mut self.folders).into_iter().rev() {
            // One that was replaced since by something else keeps that one's.
            if let Ok(folder) = self.open_folder(&path) {
                utimensat(&folder, c"", &times, AtFlags::EMPTY_PATH)
                    .map_err(|error| made("times", &path, error))?;
            }
        }
        Ok(())
    }

    fn member<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let path = clean(&entry.path)?;
        let (folder, name) = split(&path);
        if name.is_empty() {
            // The root itself; anything but a folder there makes no sense.
            if entry.kind == Kind::Directory {
                self.finish_folder(entry, &path)?;
            }
            return Ok(());
        }
        self.enter(folder)?;
        let Some((_, parent)) = &self.parent else { return Ok(()) };
        let parent = Rc::clone(parent);
        if name == OPAQUE {
            return self.set_opaque(folder);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, hidden, &path);
        }
        let name = OsStr::from_bytes(name);
        if entry.kind == Kind::File {
            match create(&parent, name) {
                Err(Errno::EXIST) => {}
                made_now => {
                    let file = made_now.map_err(|error| made("file", &path, error))?;
                    return self.file(file, entry, &path, reader);
                }
            }
        }
        let there = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        let is_folder = there.as_ref().map(|about| FileType::from_raw_mode(about.st_mode));
        let hides = there.as_ref().is_some_and(is_whiteout);
        match (is_folder, entry.kind) {
            (Some(FileType::Directory), Kind::Directory) | (None, _) => {}
            (Some(_), Kind::HardLink) if self.is_link_to_itself(entry, &path) => return Ok(()),
            (Some(_), _) => self.remove(&parent, name, &path)?,
        }
        match entry.kind {
            Kind::Directory => {
                match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(made("folder", &path, error)),
                }
                if hides {
                    self.set_opaque(&path)?;
                }
                return self.finish_folder(entry, &path);
            }
            Kind::File => {
                let file = create(&parent, name).map_err(|error| made("file", &path, error))?;
                return self.file(file, entry, &path, reader);
            }
            Kind::HardLink => return self.hard_link(&parent, name, entry, &path),
            Kind::Symlink => {
                symlinkat(OsStr::from_bytes(&entry.link), &parent, name)
                    .map_err(|error| made("symlink", &path, error))?;
                self.size += entry.link.len() as u64;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let (kind, device) = entry.node();
                mknodat(&parent, name, kind, Mode::from_raw_mode(0o600), device)
                    .map_err(|error| made("device", &path, error))?;
            }
        }
        self.finish_unopened(&parent, name, entry, &path)
    }

    /// A file's content, then what it is.
    fn file<R: Read>(
        &mut self,
        mut file: File,
        entry: &Entry,
        path: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<()> {
        if let Some(sparse) = &entry.sparse {
            for (offset, length) in &sparse.pieces {
                let _at =
                    file.seek(SeekFrom::Start(*offset)).map_err(|error| made_io("file", path, error))?;
                copy(reader, &mut file, *length, &mut self.direct, path)?;
            }
            file.set_len(sparse.real_size).map_err(|error| made_io("file", path, error))?;
            self.size = self.size.saturating_add(sparse.real_size);
        } else {
            if entry.size >= LARGE {
                self.direct.begin(&file);
            }
            copy(reader, &mut file, entry.size, &mut self.direct, path)?;
            self.size = self.size.saturating_add(entry.size);
        }
        // The owner first: changing it takes setuid and capabilities away.
        let (user, group) = self.owner((entry.uid, entry.gid), path)?;
        fchown(&file, Some(user), Some(group)).map_err(|error| made("owner", path, error))?;
        set_xattrs(file.as_fd(), entry, path)?;
        fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777)).map_err(|error| made("mode", path, error))?;
        futimens(&file, &times(entry)).map_err(|error| made("times", path, error))
    }

    fn hard_link(&mut self, parent: &OwnedFd, name: &OsStr, entry: &Entry, path: &[u8]) -> Result<()> {
        let target = clean(&entry.link)?;
        let missing = || UnpackError::Link(text(path), text(&entry.link));
        let (folder, last) = split(&target);
        if last.is_empty() || last.starts_with(WHITEOUT) {
            return Err(missing());
        }
        let folder = self.open_folder(folder).map_err(|_| missing())?;
        match linkat(&folder, OsStr::from_bytes(last), parent, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(missing()),
            Err(error) => Err(made("hard link", path, error)),
        }
    }

    /// Such a link changes nothing, and may not remove what it names.
    fn is_link_to_itself(&self, entry: &Entry, path: &[u8]) -> bool {
        clean(&entry.link).is_ok_and(|target| target == path)
    }

    /// Hides a lower layer's file. What this layer has itself stays, whatever the order: a folder then hides the lower one.
    fn whiteout(&mut self, parent: &OwnedFd, hidden: &[u8], path: &[u8]) -> Result<()> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Outside(text(path)));
        }
        let name = OsStr::from_bytes(hidden);
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) if FileType::from_raw_mode(about.st_mode) == FileType::Directory => {
                let (folder, _) = split(path);
                self.set_opaque(&[folder, hidden].join(&b'/'))
            }
            Ok(_) => Ok(()),
            Err(_) => mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
                .map_err(|error| made("whiteout", path, error)),
        }
    }

    fn set_opaque(&self, folder: &[u8]) -> Result<()> {
        let opened = self.open_readable(folder).map_err(|error| made("opaque folder", folder, error))?;
        fsetxattr(&opened, OPAQUE_XATTR, b"y", XattrFlags::empty())
            .map_err(|error| made("opaque folder", folder, error))
    }

    fn finish_folder(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let folder = self.open_readable(path).map_err(|error| made("folder", path, error))?;
        let (user, group) = self.owner((entry.uid, entry.gid), path)?;
        fchown(&folder, Some(user), Some(group)).map_err(|error| made("owner", path, error))?;
        set_xattrs(folder.as_fd(), entry, path)?;
        fchmod(&folder, Mode::from_raw_mode(entry.mode & 0o7777))
            .map_err(|error| made("mode", path, error))?;
        self.folders.push((path.to_vec(), times(entry)));
        Ok(())
    }

    /// What is never opened: links, devices, pipes.
    fn finish_unopened(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry, path: &[u8]) -> Result<()> {
        self.chown(parent, name, (entry.uid, entry.gid), path)?;
        if entry.kind != Kind::Symlink {
            // It was made in this folder just now, by us, and nobody else can enter: it is no symlink.
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode & 0o7777), AtFlags::empty())
                .map_err(|error| made("mode", path, error))?;
        }
        utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| made("times", path, error))
    }

    /// Removes what a later member replaces. A folder is moved away, however much is in it.
    fn remove(&mut self, parent: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        self.trashed += 1;
        let to = self.trash.join(self.trashed.to_string());
        renameat(parent, name, CWD, &to).map_err(|error| made("replacement", path, error))?;
        // What has been open may be in there now.
        self.parent = None;
        Ok(())
    }

    /// Makes the folder the present one, with all that is missing on the way.
    fn enter(&mut self, folder: &[u8]) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(present, _)| present == folder) {
            return Ok(());
        }
        let opened = match self.open_folder(folder) {
            Err(Errno::NOENT) => {
                let mut end = 0;
                while end < folder.len() {
                    let next = folder[end + 1..].iter().position(|byte| *byte == b'/');
                    let next = next.map_or(folder.len(), |at| end + 1 + at);
                    let (above, name) = split(&folder[..next]);
                    let parent = self.open_folder(above).map_err(|error| made("folder", folder, error))?;
                    match mkdirat(&parent, OsStr::from_bytes(name), Mode::from_raw_mode(0o755)) {
                        // A container's root has what nobody is named for.
                        Ok(()) => self.chown(&parent, OsStr::from_bytes(name), (0, 0), folder)?,
                        Err(Errno::EXIST) => {}
                        Err(error) => return Err(made("folder", folder, error)),
                    }
                    end = next;
                }
                self.open_folder(folder)
            }
            opened => opened,
        };
        let opened = opened.map_err(|error| made("folder", folder, error))?;
        self.parent = Some((folder.to_vec(), Rc::new(opened)));
        Ok(())
    }

    /// Somebody of the tar's, on the host.
    fn owner(&self, owner: Owner, path: &[u8]) -> Result<(Uid, Gid)> {
        let (user, group) = self.ids.to_host(owner).map_err(|error| UnpackError::Owner(text(path), error))?;
        Ok((Uid::from_raw(user), Gid::from_raw(group)))
    }

    fn chown(&self, parent: &OwnedFd, name: &OsStr, owner: Owner, path: &[u8]) -> Result<()> {
        let (user, group) = self.owner(owner, path)?;
        chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| made("owner", path, error))
    }

    fn open_folder(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn open_readable(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = OsStr::from_bytes(if path.is_empty() { b"." } else { path });
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.root, path, flags, resolve)
    }
}

/// Unpacks a tar, not compressed, into a folder, which is empty; `trash` is another on the same file system. Gives the bytes of
/// its files.
///
/// # Errors
/// What the tar is not, what it may not, and what the kernel refuses; part of it is in the folder then.
pub fn unpack(stream: impl Read, folder: &Path, trash: &Path, limits: Limits) -> Result<u64> {
    let mut unpacker = Unpacker::new(folder, trash, limits)
        .map_err(|error| made_io("folder", folder.as_os_str().as_bytes(), error))?;
    unpacker.unpack(&mut Reader::new(stream))?;
    Ok(unpacker.size)
}

/// overlayfs's mark of what a lower layer has and the whole does not.
pub(super) fn is_whiteout(about: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice && about.st_rdev == makedev(0, 0)
}

/// The name relative to the layer's root.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    paths::inside(path)
        .filter(|cleaned| cleaned.len() <= LONGEST_PATH && !cleaned.contains(&0))
        .ok_or_else(|| UnpackError::Outside(text(path)))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn copy(reader: &mut impl Read, file: &mut File, size: u64, direct: &mut Direct, path: &[u8]) -> Result<()> {
    let mut left = size;
    while left > 0 {
        let room = direct.room();
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
        let count = match reader.read(&mut room[..most]) {
            Ok(0) => return Err(UnpackError::Read(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Read(error)),
        };
        direct.fill(count, file).map_err(|error| made_io("file", path, error))?;
        left -= count as u64;
    }
    direct.end(file).map_err(|error| made_io("file", path, error))
}

/// A file that nobody else has.
fn create(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?))
}

fn set_xattrs(file: BorrowedFd<'_>, entry: &Entry, path: &[u8]) -> Result<()> {
    for (name, value) in &entry.xattrs {
        if name.starts_with(OVERLAY_XATTRS) || name.contains(&0) {
            continue;
        }
        match fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            // A file system or a kernel without that kind; capabilities are not to be lost in silence.
            Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => {}
            result => result.map_err(|error| made("attribute", path, error))?,
        }
    }
    Ok(())
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.seconds, tv_nsec: entry.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn made(what: &'static str, path: &[u8], error: Errno) -> UnpackError {
    made_io(what, path, error.into())
}

fn made_io(what: &'static str, path: &[u8], error: io::Error) -> UnpackError {
    UnpackError::Make(what, text(path), error)
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
