//! Folders as tars: what a container has changed becomes a layer, and its whole root an archive.
//!
//! The container may run and change what is walked: everything is opened below a descriptor of the root, no symlink is ever
//! followed, and a file that changes its size meanwhile is written as long as it was. `archive` copies out of containers by
//! the same [`Walk`] and [`Packer`].

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Dir, FileType, OFlags, ResolveFlags, Stat, fgetxattr, flistxattr, major, minor, readlinkat,
    statat,
};
use rustix::io::Errno;

use super::unpack::{OPAQUE, OPAQUE_XATTR, WHITEOUT, is_whiteout};
use crate::remap::Ids;
use crate::resolve::{open_file, openat2};
use crate::tar::{Entry, Kind, Writer};

/// What the folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// An overlay's upper folder: its marks become OCI's.
    Changes,
    /// A whole file system.
    Everything,
}

/// What a file's capabilities are.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";
/// An attribute's largest value.
const XATTR: usize = 64 << 10;

/// A folder that is walked; members are given in order, folders in front of what is in them.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    root: &'a OwnedFd,
    /// Folders that are not done, the innermost last.
    left: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    /// Relative to the root.
    path: Vec<u8>,
    /// What is still to be given, the next last. Names only: a container can make millions of them far down.
    names: Vec<Box<[u8]>>,
}

/// Something in the folder.
#[derive(Debug)]
pub(crate) struct Found {
    /// Relative to the root.
    pub(crate) path: Vec<u8>,
    pub(crate) about: Stat,
    /// Where it is.
    pub(crate) parent: OwnedFd,
}

impl Found {
    pub(crate) fn name(&self) -> &OsStr {
        let at = self.path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        OsStr::from_bytes(&self.path[at..])
    }

    pub(crate) fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.about.st_mode) == kind
    }
}

const WITHOUT_LINKS: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    openat2(root, OsStr::from_bytes(path), flags, WITHOUT_LINKS)
}

impl<'a> Walk<'a> {
    pub(crate) fn new(root: &'a OwnedFd) -> io::Result<Self> {
        let mut walk = Self { root, left: Vec::new() };
        walk.add(b"")?;
        Ok(walk)
    }

    /// Goes into a folder.
    fn add(&mut self, folder: &[u8]) -> io::Result<()> {
        let opened = open(self.root, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for entry in Dir::new(opened)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name.into());
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.left.push(Open { path: folder.to_vec(), names });
        Ok(())
    }

    /// The next; what has gone meanwhile is left out.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found>> {
        while let Some(Open { path: folder, names }) = self.left.last_mut() {
            let Some(name) = names.pop() else {
                drop(self.left.pop());
                continue;
            };
            let path = if folder.is_empty() { name.to_vec() } else { [folder.as_slice(), &name].join(&b'/') };
            let (folder, name) = (folder.as_slice(), &*name);
            let gone = |error: Errno| matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP);
            let parent = match open(self.root, folder, OFlags::PATH | OFlags::DIRECTORY) {
                Err(error) if gone(error) => continue,
                parent => parent?,
            };
            let about = match statat(&parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
                Err(error) if gone(error) => continue,
                about => about?,
            };
            if FileType::from_raw_mode(about.st_mode) == FileType::Directory {
                match self.add(&path) {
                    Err(error)
                        if error.raw_os_error().is_some_and(|code| gone(Errno::from_raw_os_error(code))) =>
                    {
                        continue;
                    }
                    added => added?,
                }
            }
            return Ok(Some(Found { path, about, parent }));
        }
        Ok(None)
    }
}

/// Whether a folder of an overlay's hides what is below it.
pub(super) fn is_opaque(parent: &OwnedFd, name: &OsStr) -> bool {
    let folder = open(parent, name.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW);
    let mut value = [0; 4];
    folder.is_ok_and(|folder| {
        fgetxattr(&folder, OPAQUE_XATTR, &mut value).is_ok_and(|length| &value[..length] == b"y")
    })
}

/// Writes all members, with the owners that `ids` have in containers.
pub(super) fn pack<W: Write>(root: &OwnedFd, of: Of, ids: &Ids, stream: W) -> io::Result<W> {
    let mut packer = Packer::new(stream, |name| name != b"security.selinux").of_users(ids);
    let mut walk = Walk::new(root)?;
    while let Some(found) = walk.next()? {
        if of == Of::Changes && is_whiteout(&found.about) {
            let name = [WHITEOUT, found.name().as_bytes()].concat();
            // It is the kernel's, whose ids are nobody's in a container.
            let mark = Entry { path: beside(&found.path, &name), ..member(&found, Kind::File) };
            packer.writer.append(&mark)?;
            continue;
        }
        let Some(entry) = packer.add(&found, found.path.clone())? else { continue };
        if of == Of::Changes && entry.kind == Kind::Directory && is_opaque(&found.parent, found.name()) {
            let path = [entry.path.as_slice(), OPAQUE].concat();
            packer.writer.append(&Entry { path, kind: Kind::File, xattrs: Vec::new(), ..entry })?;
        }
    }
    packer.finish()
}

/// An archive of what walks have found.
#[derive(Debug)]
pub(crate) struct Packer<W> {
    writer: Writer<W>,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Whether an attribute is written.
    keeps: fn(&[u8]) -> bool,
    ids: Ids,
}

impl<W: Write> Packer<W> {
    /// At its beginning.
    pub(crate) fn new(stream: W, keeps: fn(&[u8]) -> bool) -> Self {
        Self { writer: Writer::new(stream), links: HashMap::new(), keeps, ids: Ids::default() }
    }

    /// Whose the files are: members have the owners that these are in containers.
    pub(crate) fn of_users(self, ids: &Ids) -> Self {
        Self { ids: ids.clone(), ..self }
    }

    /// Writes a member under this name, and gives what it was written as. What has gone meanwhile, and a socket, which is
    /// nothing without its process, is left out.
    ///
    /// # Errors
    /// The stream's, and the disk's.
    pub(crate) fn add(&mut self, found: &Found, name: Vec<u8>) -> io::Result<Option<Entry>> {
        let (uid, gid) = self.ids.to_container((found.about.st_uid, found.about.st_gid))?;
        let mut entry = Entry { path: name, uid, gid, ..member(found, Kind::File) };
        entry.kind = match FileType::from_raw_mode(found.about.st_mode) {
            FileType::RegularFile => return self.file(found, entry),
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(None),
        };
        match entry.kind {
            Kind::Symlink => entry.link = readlinkat(&found.parent, found.name(), Vec::new())?.into_bytes(),
            Kind::Char | Kind::Block => {
                entry.device = (major(found.about.st_rdev), minor(found.about.st_rdev));
            }
            Kind::Directory => {
                entry.path.push(b'/');
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                if let Ok(folder) = open(&found.parent, found.name().as_bytes(), flags) {
                    entry.xattrs = xattrs(&folder, self.keeps)?;
                }
            }
            Kind::File | Kind::HardLink | Kind::Fifo => {}
        }
        self.writer.append(&entry)?;
        Ok(Some(entry))
    }

    fn file(&mut self, found: &Found, mut entry: Entry) -> io::Result<Option<Entry>> {
        let key = (found.about.st_dev, found.about.st_ino);
        if found.about.st_nlink > 1
            && let Some(first) = self.links.get(&key)
        {
            let link = Entry { kind: Kind::HardLink, link: first.clone(), ..entry };
            self.writer.append(&link)?;
            return Ok(Some(link));
        }
        // What was looked at may be something else by now.
        let opened = match open_file(&found.parent, found.name(), OFlags::NOFOLLOW, WITHOUT_LINKS) {
            Ok(None) | Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Ok(Some(opened)) => opened,
            Err(error) => return Err(error.into()),
        };
        let about = rustix::fs::fstat(&opened)?;
        if about.st_nlink > 1 {
            let _none = self.links.insert((about.st_dev, about.st_ino), entry.path.clone());
        }
        entry.size = u64::try_from(about.st_size).unwrap_or_default();
        entry.xattrs = xattrs(&opened, self.keeps)?;
        self.writer.append(&entry)?;
        content(opened, entry.size, &mut self.writer)?;
        Ok(Some(entry))
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// The stream's.
    pub(crate) fn finish(self) -> io::Result<W> {
        self.writer.finish()
    }
}

fn member(found: &Found, kind: Kind) -> Entry {
    Entry {
        path: found.path.clone(),
        kind,
        mode: found.about.st_mode & 0o7777,
        uid: found.about.st_uid,
        gid: found.about.st_gid,
        seconds: found.about.st_mtime,
        ..Entry::default()
    }
}

/// Another name in the same folder.
fn beside(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => [&path[..=at], name].concat(),
        None => name.to_vec(),
    }
}

/// As long as it was: zeros for what has been cut off, nothing of what has been added.
fn content(file: File, size: u64, writer: &mut impl Write) -> io::Result<()> {
    let copied = io::copy(&mut file.take(size), writer)?;
    let _zeros = io::copy(&mut io::repeat(0).take(size - copied), writer)?;
    Ok(())
}

/// Capabilities of a file that are good in one user namespace only (their third version) as those of any root
/// (capabilities(7)): whose namespace it was means nothing elsewhere.
pub(crate) fn without_namespace(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}

/// The attributes that are kept; overlayfs's own never are.
fn xattrs(file: &impl AsFd, keeps: fn(&[u8]) -> bool) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; XATTR];
    let length = match flistxattr(file, &mut names) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        length => length?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || !keeps(name) {
            continue;
        }
        let mut value = vec![0; XATTR];
        if let Ok(length) = fgetxattr(file, OsStr::from_bytes(name), &mut value) {
            value.truncate(length);
            if name == CAPABILITY {
                value = without_namespace(value);
            }
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}
