//! An archive's members into a tree: a build's context, and what ADD unpacks. As `tar` does it inside of a chroot: links on
//! the way are followed, and lead to the tree's root at most.

use std::collections::BTreeMap;
use std::io::{self, Read};

use rustix::fs::Timestamps;

use super::sums::{FileSum, Sums};
use super::tree::{Tree, folder_of, join, times};
use crate::paths;
use crate::tar::{Kind, Reader};

/// Reads a member's data on behalf of two.
struct Passing<'a, R> {
    from: &'a mut Reader<R>,
    sum: Option<&'a mut FileSum>,
}

impl<R: Read> Read for Passing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        if let Some(sum) = &mut self.sum {
            sum.pass(&buffer[..count]);
        }
        Ok(count)
    }
}

/// Unpacks all members below a folder, which is there and has no links in its path; `sums` gets what each is summed up to.
///
/// # Errors
/// The stream's, the disk's, a name that leads out.
pub(super) fn untar<R: Read>(
    tree: &mut Tree,
    folder: &[u8],
    reader: &mut Reader<R>,
    mut sums: Option<&mut Sums>,
) -> io::Result<()> {
    // One of each, however often the archive names it.
    let mut folders: BTreeMap<Vec<u8>, Timestamps> = BTreeMap::new();
    while let Some(entry) = reader.next_entry()? {
        let name = clean(&entry.path)?;
        let path = tree.resolve_parent(&join(folder, &name))?;
        if !name.is_empty() {
            let _there = tree.make_folders(folder_of(&path), (0, 0)).map_err(|error| named(&name, &error))?;
        }
        let linked = match entry.kind {
            Kind::HardLink => tree.resolve_parent(&join(folder, &clean(&entry.link)?))?,
            _ => Vec::new(),
        };
        let mut sum = sums.is_some().then(|| FileSum::begin(&entry));
        let data = Passing { from: reader, sum: sum.as_mut() };
        tree.put(&path, &entry, &linked, data).map_err(|error| named(&name, &error))?;
        if let (Some(sums), Some(sum)) = (sums.as_deref_mut(), sum) {
            let _older = sums.insert(name.clone(), sum.finish());
        }
        if entry.kind == Kind::Directory && !name.is_empty() {
            let _older = folders.insert(path, times(&entry));
        }
    }
    for (path, times) in &folders {
        tree.finish_folder(path, times)?;
    }
    Ok(())
}

fn named(name: &[u8], error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("/{}: {}", String::from_utf8_lossy(name), words(error)))
}

/// The kernel's words as Go has them.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// A member's name within the folder that it is unpacked to.
fn clean(path: &[u8]) -> io::Result<Vec<u8>> {
    paths::inside(path).ok_or_else(|| {
        let text = format!("{:?} leads out of the archive", String::from_utf8_lossy(path));
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}
