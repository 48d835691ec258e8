//! What COPY and ADD do: files, folders and archives from a source into an image's root. Where things go, who owns them and
//! what is replaced is as the classic builder has it. All of it blocks.

use std::collections::HashMap;
use std::io::{self, Read, Seek};

use rustix::fs::{FileType, OFlags, Timestamps};

use super::source::{Info, Source};
use super::tree::{Owner, Tree, base, folder_of, is, join, times};
use super::untar::{untar, words};
use crate::engine::users;
use crate::error::{Error, Kind, Result};
use crate::image::inflate::Inflate;
use crate::image::pack::{Found, Walk};
use crate::paths;
use crate::tar::{Entry, Kind as Of, Reader};

/// The longest /etc/passwd that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// How to copy.
#[derive(Clone, Debug)]
pub(super) struct Copying {
    /// Absolute; ends with a slash if it has to be a folder.
    pub(super) destination: String,
    /// Who gets it; `None` for whoever has it.
    pub(super) owner: Option<Owner>,
    /// Whether archives are unpacked.
    pub(super) unpacks: bool,
}

impl Tree {
    /// Something by its path, which has no links.
    pub(super) fn find(&self, path: &[u8]) -> io::Result<Option<Found>> {
        let Some(about) = self.look(path)? else { return Ok(None) };
        let parent = self.open(folder_of(path), OFlags::PATH | OFlags::DIRECTORY)?;
        let name = if path.is_empty() { b"." } else { base(path) };
        Ok(Some(Found { path: name.to_vec(), about, parent }))
    }

    fn text(&self, path: &str) -> io::Result<String> {
        let resolved = self.resolve(path.as_bytes())?;
        let Some(file) = self.read(&resolved)? else { return Ok(String::new()) };
        let mut bytes = Vec::new();
        let _count = file.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Copies one source.
///
/// # Errors
/// The disk; what is in the way.
pub(super) fn copy(source: &Source, info: &Info, target: &mut Tree, how: &Copying) -> Result<()> {
    let failed = |what: &str, error: &io::Error| {
        Error::new(Kind::Internal, format!("failed to copy files: {what}{}", words(error)))
    };
    let to = target.resolve(how.destination.as_bytes()).map_err(|error| failed("", &error))?;
    let from = source.tree.resolve(&info.path).map_err(|error| failed("", &error))?;
    let found = source.tree.find(&from).map_err(|error| failed("", &error))?;
    let Some(found) = found else {
        return Err(failed("source path not found: ", &io::ErrorKind::NotFound.into()));
    };
    if is(&found.about, FileType::Directory) {
        return folder(source, &from, target, &to, how.owner)
            .map_err(|error| failed("failed to copy directory: ", &error));
    }
    if how.unpacks && unpack(source, &from, target, &to).map_err(|error| failed("", &error))? {
        return Ok(());
    }
    let mut to = to;
    if how.destination.ends_with('/') || target.is_folder(&to).map_err(|error| failed("", &error))? {
        to = join(&to, base(&info.path));
    }
    file(source, &from, &found, target, &to, how.owner)
        .map_err(|error| failed("failed to copy file: ", &error))
}

fn folder(
    source: &Source,
    from: &[u8],
    target: &mut Tree,
    to: &[u8],
    owner: Option<Owner>,
) -> io::Result<()> {
    let there = target.is_folder(to)?;
    let _there = target.make_folders(to, (0, 0))?;
    let root = source.tree.open(from, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut walk = Walk::new(&root)?;
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut folders: Vec<(Vec<u8>, Timestamps)> = Vec::new();
    while let Some(found) = walk.next()? {
        if found.is(FileType::Socket) {
            continue;
        }
        let mut entry = source.tree.entry_of(&found)?;
        let path = join(to, &found.path);
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("/{}: {}", String::from_utf8_lossy(&path), words(&error)))
        };
        let key = (found.about.st_dev, found.about.st_ino);
        let first = links.get(&key).filter(|_| entry.kind == Of::File);
        if let Some(first) = first {
            entry = Entry { kind: Of::HardLink, size: 0, xattrs: Vec::new(), ..entry };
            target.put(&path, &entry, first, io::empty()).map_err(named)?;
        } else {
            let data = source.tree.read(&join(from, &found.path))?.filter(|_| entry.kind == Of::File);
            match data {
                Some(data) => target.put(&path, &entry, b"", data).map_err(named)?,
                None => target.put(&path, &entry, b"", io::empty()).map_err(named)?,
            }
            if entry.kind == Of::File && found.about.st_nlink > 1 {
                let _none = links.insert(key, path.clone());
            }
        }
        if let Some(owner) = owner {
            target.give(&path, owner).map_err(named)?;
        }
        if entry.kind == Of::Directory {
            folders.push((path, times(&entry)));
        }
    }
    for (path, times) in folders.iter().rev() {
        target.finish_folder(path, times)?;
    }
    match owner {
        Some(owner) if !there => target.give(to, owner),
        _ => Ok(()),
    }
}

fn file(
    source: &Source,
    from: &[u8],
    found: &Found,
    target: &mut Tree,
    to: &[u8],
    owner: Option<Owner>,
) -> io::Result<()> {
    let _there = target.make_folders(folder_of(to), owner.unwrap_or((0, 0)))?;
    let entry = source.tree.entry_of(found)?;
    match source.tree.read(from)? {
        Some(data) => target.put(to, &entry, b"", data)?,
        None => target.put(to, &entry, b"", io::empty())?,
    }
    owner.map_or(Ok(()), |owner| target.give(to, owner))
}

/// Unpacks an archive; gives false for what is none.
fn unpack(source: &Source, from: &[u8], target: &mut Tree, to: &[u8]) -> io::Result<bool> {
    let Some(mut file) = source.tree.read(from)? else { return Ok(false) };
    let inflate = match Inflate::new(&file) {
        Ok(inflate) => inflate,
        // Whether it holds a tar is not to be seen: copied as it is, it might be wrong.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
        Err(_) => return Ok(false),
    };
    if !matches!(Reader::new(inflate).next_entry(), Ok(Some(_))) {
        return Ok(false);
    }
    file.rewind()?;
    let _there = target.make_folders(to, (0, 0))?;
    untar(target, to, &mut Reader::new(Inflate::new(file)?), None)?;
    Ok(true)
}

/// Whom `--chown` names, by the image's own files.
///
/// # Errors
/// Nobody: dockerd's texts.
pub(super) fn owner(target: &Tree, text: &str) -> Result<Owner> {
    let failed = |why: String| {
        Error::new(Kind::Internal, format!("unable to convert uid/gid chown string to host mapping: {why}"))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (user, group) = match parts.as_slice() {
        [user] => (*user, *user),
        [user, group] => (*user, *group),
        _ => return Err(failed(format!("invalid chown string format: {text}"))),
    };
    let number = |name: &str, file: &str, what: &str, kind: &str| -> Result<u32> {
        // chown(2) takes the largest for "leave it".
        if let Some(number) = name.parse().ok().filter(|number| i32::try_from(*number).is_ok()) {
            return Ok(number);
        }
        let path = format!("etc/{file}");
        let entries = target.text(&path).map_err(|error| failed(words(&error)))?;
        users::number(&entries, name)
            .ok_or_else(|| failed(format!("can't find {what} for {kind} {name}: no such {kind}: {name}")))
    };
    Ok((number(user, "passwd", "uid", "user")?, number(group, "group", "gid", "group")?))
}

/// Where a destination is.
pub(super) fn destination(working_dir: &str, asked: &str) -> String {
    if asked.starts_with('/') {
        return asked.to_owned();
    }
    let joined = paths::absolute(working_dir, asked);
    if asked.ends_with('/') { format!("{}/", joined.trim_end_matches('/')) } else { joined }
}
