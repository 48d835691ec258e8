//! Where COPY and ADD copy from: the request's context, or an image. What is asked for is found, and summed up for the cache.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fgetxattr, openat, readlinkat};

use super::sums::{FileSum, Sums, of_all};
use super::tree::{Owner, Tree, is, join};
use super::untar::{untar, words};
use crate::error::{Error, Kind, Result};
use crate::image::inflate::Inflate;
use crate::image::pack::{Found, Walk, without_namespace};
use crate::image::reference::glob;
use crate::image::{Image, Images, Scratch, Work};
use crate::locks::locked;
use crate::paths;
use crate::resolve::open_file;
use crate::tar::{self, Entry, Reader};

/// See the module.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) tree: Tree,
    sums: Mutex<Sums>,
    place: Place,
}

/// What the tree is of; it goes with this.
#[derive(Debug)]
enum Place {
    Context { _folder: Scratch },
    Image { _root: Work },
}

/// Something to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    /// As asked for, relative: its last component names the copy.
    pub(super) path: Vec<u8>,
    /// `file:...` or `dir:...`.
    pub(super) sum: String,
}

impl Source {
    /// Unpacks a context. Blocks.
    pub(super) fn of_context(images: &Images, body: impl Read) -> Result<Self> {
        let folder = images.scratch()?;
        let failed = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::Unsupported => {
                    Kind::InvalidArgument
                }
                _ => Kind::Internal,
            };
            Error::new(kind, format!("Error processing tar file: {}", words(&error)))
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, folder.path(), flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let mut tree = Tree::new(root, images.limits()?);
        let mut sums = Sums::new();
        let mut reader = Reader::new(Inflate::new(body).map_err(failed)?);
        untar(&mut tree, b"", &mut reader, Some(&mut sums)).map_err(failed)?;
        // What the client still sends is read: one that can't write all has no answer.
        let _rest = io::copy(&mut reader.into_inner(), &mut io::sink());
        Ok(Self { tree, sums: Mutex::new(sums), place: Place::Context { _folder: folder } })
    }

    /// Mounts an image. Blocks.
    pub(super) fn of_image(images: &Images, image: Option<&Arc<Image>>) -> Result<Self> {
        let root = images.work_on(image.map(Arc::as_ref))?;
        let opened = root.root().try_clone().map_err(|error| Error::internal("opening an image", &error))?;
        let tree = Tree::new(opened, images.limits()?).of_users(images.ids());
        Ok(Self { tree, sums: Mutex::default(), place: Place::Image { _root: root } })
    }

    /// What a source of COPY or ADD means, wildcards and all.
    ///
    /// # Errors
    /// It is not there, or outside; without what instruction it was for.
    pub(super) fn find(&self, asked: &str) -> Result<Vec<Info>> {
        let asked = asked.strip_prefix('/').unwrap_or(asked);
        let asked = asked.strip_prefix("./").unwrap_or(asked);
        if !has_wildcards(asked) {
            return Ok(vec![self.find_one(asked.as_bytes())?]);
        }
        let failed = |error: io::Error| Error::internal("walking through the build's source", &error);
        let root =
            self.tree.open(b"", OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| failed(error.into()))?;
        let mut walk = Walk::new(&root).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(next) = walk.next().map_err(failed)? {
            if glob(asked.as_bytes(), &next.path).unwrap_or(false) {
                found.push(self.find_one(&next.path)?);
            }
        }
        Ok(found)
    }

    fn find_one(&self, asked: &[u8]) -> Result<Info> {
        let shown = String::from_utf8_lossy(asked).into_owned();
        let outside =
            || Error::new(Kind::Internal, format!("forbidden path outside the build context: {shown} ()"));
        let clean = paths::inside(asked).ok_or_else(outside)?;
        let failed =
            |error: io::Error| Error::new(Kind::Internal, format!("stat {shown}: {}", words(&error)));
        let resolved = self.tree.resolve(&clean).map_err(failed)?;
        let Some(about) = self.tree.look(&resolved).map_err(failed)? else {
            let missing = format!("stat {shown}: file does not exist");
            return Err(Error::new(
                Kind::Internal,
                match self.place {
                    Place::Context { .. } => {
                        format!("file not found in build context or excluded by .dockerignore: {missing}")
                    }
                    Place::Image { .. } => missing,
                },
            ));
        };
        let sum = if is(&about, FileType::Directory) {
            self.sum_of_folder(&resolved).map_err(failed)?
        } else {
            format!("file:{}", self.sum(&clean).map_err(failed)?)
        };
        Ok(Info { path: asked.to_vec(), sum })
    }

    fn sum_of_folder(&self, folder: &[u8]) -> io::Result<String> {
        let mut sums = Vec::new();
        if !folder.is_empty() {
            sums.push(self.sum(folder)?);
        }
        let opened = self.tree.open(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut walk = Walk::new(&opened)?;
        while let Some(found) = walk.next()? {
            sums.push(self.sum(&join(folder, &found.path))?);
        }
        sums.sort();
        Ok(of_all("dir", &sums))
    }

    /// A file's sum: that of what a link leads to; the path itself, where there is nothing.
    fn sum(&self, path: &[u8]) -> io::Result<String> {
        let resolved = self.tree.resolve(path)?;
        if let Some(sum) = locked(&self.sums).get(&resolved) {
            return Ok(sum.clone());
        }
        let Place::Image { .. } = self.place else { return Ok(String::from_utf8_lossy(path).into_owned()) };
        let Some(found) = self.tree.find(&resolved)? else {
            return Ok(String::from_utf8_lossy(&resolved).into_owned());
        };
        let mut entry = self.tree.entry_of(&found)?;
        self.tree.fits(entry.size)?;
        entry.path.clone_from(&resolved);
        if entry.kind == tar::Kind::Directory {
            entry.path.push(b'/');
        }
        let sum = FileSum::begin(&entry);
        let sum = match self.tree.read(&resolved)? {
            Some(file) => sum.of_content(file.take(entry.size))?,
            None => sum.finish(),
        };
        let _none = locked(&self.sums).insert(resolved, sum.clone());
        Ok(sum)
    }
}

impl Tree {
    /// What an archive would say of a file: whole seconds, of attributes capabilities only.
    pub(super) fn entry_of(&self, found: &Found) -> io::Result<Entry> {
        let (uid, gid) = self.owner_of(&found.about)?;
        entry_of(found, (uid, gid))
    }
}

fn entry_of(found: &Found, (uid, gid): Owner) -> io::Result<Entry> {
    let about = &found.about;
    let kind = match FileType::from_raw_mode(about.st_mode) {
        FileType::Directory => tar::Kind::Directory,
        FileType::Symlink => tar::Kind::Symlink,
        FileType::CharacterDevice => tar::Kind::Char,
        FileType::BlockDevice => tar::Kind::Block,
        FileType::Fifo => tar::Kind::Fifo,
        _ => tar::Kind::File,
    };
    let mut entry = Entry {
        path: found.path.clone(),
        kind,
        mode: about.st_mode & 0o7777,
        uid,
        gid,
        seconds: about.st_mtime,
        ..Entry::default()
    };
    match kind {
        tar::Kind::File => {
            entry.size = u64::try_from(about.st_size).unwrap_or_default();
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            if let Ok(Some(file)) = open_file(&found.parent, found.name(), OFlags::NOFOLLOW, resolve) {
                let mut value = vec![0; 256];
                if let Ok(length) = fgetxattr(&file, "security.capability", &mut value) {
                    value.truncate(length);
                    entry.xattrs.push((b"security.capability".to_vec(), without_namespace(value)));
                }
            }
        }
        tar::Kind::Symlink => entry.link = readlinkat(&found.parent, found.name(), Vec::new())?.into_bytes(),
        tar::Kind::Char | tar::Kind::Block => {
            entry.device = (rustix::fs::major(about.st_rdev), rustix::fs::minor(about.st_rdev));
        }
        _ => {}
    }
    Ok(entry)
}

fn has_wildcards(text: &str) -> bool {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}
