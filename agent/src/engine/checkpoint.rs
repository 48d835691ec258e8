//! Checkpoints: the processes of a container in a folder of images that criu writes, by the shim and the runtime. Made, listed
//! and removed here; `lifecycle` starts a container from one.
//!
//! They are in the container's own folder, or in one of the host that the client names. Their names come from clients: each is
//! one step below that folder. What is being written or removed is below a name that no checkpoint has, so that a daemon that is
//! killed leaves nothing half made in the list. What is whole is never removed for want of its name: it may be all that there is
//! of a container that has ended by it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_engine_api::container::{Checkpoint, CheckpointBody};
use rustix::fs::{CWD, RenameFlags, renameat, renameat_with};
use rustix::io::Errno;
use tracing::warn;

use super::container::{Container, Record};
use super::deliver::to_change;
use super::lifecycle::{folder_of, make_folder};
use super::signal::{AFTER_KILL, ends, running, until_end};
use super::{name, namespaces};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::{random, removal};

/// Begins the name of a folder with a checkpoint that is being written, which has its own name in there.
const UNFINISHED: &str = ".unfinished-";
/// Begins the name of a checkpoint that is being removed.
const REMOVED: &str = ".removed-";
/// The last file that criu writes: what has it is whole.
const INVENTORY: &str = "inventory.img";

/// Saves a running container, which then ends or goes on; `asked` is how the client called it. To end so is to be stopped.
///
/// # Errors
/// It does not run; the name is taken or can't be one; criu is not there or fails, and the container goes on.
pub async fn create(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    asked: &str,
    body: CheckpointBody,
) -> Result<()> {
    let CheckpointBody { checkpoint_id: id, checkpoint_dir, exit } = body;
    // Nobody ends, removes or freezes it meanwhile.
    let changing = to_change(container).await?;
    let task = running(container)?;
    // The images would have the ids of another user namespace than the one that is made for the next start.
    if container.read(|record| namespaces::is_remapped(daemon, record)) {
        return Err(failed(format!(
            "cannot checkpoint container {asked}: its users are others on the host (--userns-remap), which is not supported"
        )));
    }
    if !name::fits(&id) {
        return Err(failed(format!(
            "Invalid checkpoint ID ({id}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    let folder = folder(daemon, &container.id, &checkpoint_dir)?;
    let making = Making { outer: beside(&folder, UNFINISHED)?, folder, id };
    let (made, owner) = (making.clone(), asked.to_owned());
    blocking(move || {
        made.prepare(&owner).map_err(|error| failed(format!("cannot checkpoint container {owner}: {error}")))
    })
    .await?;
    let before = ends(container);
    let cannot =
        |error: &dyn std::fmt::Display| failed(format!("Cannot checkpoint container {asked}: {error}"));
    if let Err(error) = task.checkpoint(&making.images().to_string_lossy(), exit).await {
        // Where nobody is there to tell, the images do.
        let whole = error.is_gone() && making.is_whole();
        if !whole {
            blocking(move || removed(&making.outer)).await?;
            return Err(cannot(&error));
        }
        warn!("the shim of {} is gone, and has saved it as {}", container.id, making.id);
    }
    if exit {
        // Its policy is not to start it anew beside what was saved.
        container.change(|record| record.was_stopped = true);
    }
    let wanted = making.id.clone();
    let kept = blocking(move || making.keep()).await.map_err(|error| cannot(&error))?;
    container.publish(daemon, "checkpoint");
    drop(changing);
    // A start from it must not find the container running still.
    if exit && !until_end(container, before, Some(AFTER_KILL)).await {
        return Err(cannot(&"it is saved, but does not end"));
    }
    if kept != wanted {
        return Err(cannot(&format_args!("it is saved as {kept}, as the name {wanted} was taken meanwhile")));
    }
    Ok(())
}

/// A checkpoint that is being written.
#[derive(Clone, Debug)]
struct Making {
    /// Where it will be.
    folder: PathBuf,
    /// Beside it, where it is until then.
    outer: PathBuf,
    /// Its name, in both.
    id: String,
}

impl Making {
    fn images(&self) -> PathBuf {
        self.outer.join(&self.id)
    }

    fn is_whole(&self) -> bool {
        self.images().join(INVENTORY).is_file()
    }

    /// Makes room for it; what was in a memory is in the images: they are nobody else's.
    fn prepare(&self, owner: &str) -> Result<()> {
        make_folder(&self.folder, 0o700)?;
        let (place, id) = (self.folder.join(&self.id), &self.id);
        match fs::metadata(&place) {
            Ok(found) if found.is_dir() => {
                return Err(failed(format!(
                    "checkpoint with name {id} already exists for container {owner}"
                )));
            }
            Ok(_) => return Err(failed(not_a_folder(&place))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(format!("looking at {}: {error}", place.display()))),
        }
        make_folder(&self.images(), 0o700)
    }

    /// Gives it its name, or one beside it where somebody has taken that meanwhile. Which it has is returned. What has none stays
    /// where it is, until the next start of the daemon.
    fn keep(&self) -> Result<String> {
        let named = |name: &str| rename(&self.images(), &self.folder.join(name));
        let other = format!("{}-{}", self.id, random::digits(8)?);
        let kept = match named(&self.id) {
            Ok(()) => Ok(self.id.clone()),
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => named(&other).map(|()| other),
            Err(error) => Err(error),
        };
        let kept = kept.map_err(|error| {
            let place = self.folder.join(&self.id);
            failed(format!(
                "it is saved in {}, and can't be named {}: {}",
                self.images().display(),
                place.display(),
                io::Error::from(error)
            ))
        })?;
        if let Err(error) = removed(&self.outer) {
            warn!("{error}");
        }
        Ok(kept)
    }
}

/// Names a folder; one that has something in it is never replaced.
fn rename(from: &Path, to: &Path) -> rustix::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems do not know of the flag. Without it only an empty folder would go.
        Err(Errno::INVAL | Errno::NOSYS) => renameat(CWD, from, CWD, to),
        renamed => renamed,
    }
}

/// The checkpoints in the container's folder, or in another, by their names.
///
/// # Errors
/// There is no such folder: dockerd's texts.
pub async fn list(
    daemon: &Arc<Daemon>,
    container: &Container,
    asked: &str,
    named: &str,
) -> Result<Vec<Checkpoint>> {
    let folder = folder(daemon, &container.id, named)?;
    let (own, asked) = (named.is_empty(), asked.to_owned());
    blocking(move || {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // It comes with the first.
            Err(error) if own && error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(failed(not_a_folder(&folder)));
            }
            Err(_) => return Err(none("", &asked)),
        };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> =
            names.filter(|name| ![UNFINISHED, REMOVED].iter().any(|begin| name.starts_with(begin))).collect();
        names.sort_unstable();
        Ok(names.into_iter().map(|name| Checkpoint { name }).collect())
    })
    .await
}

/// Removes one, from the container's folder or from another.
///
/// # Errors
/// There is none of this name, or what is there is no checkpoint.
pub async fn remove(
    daemon: &Arc<Daemon>,
    container: &Container,
    asked: &str,
    named: &str,
    id: &str,
) -> Result<()> {
    // It may be what the container is being started from.
    let _changing = to_change(container).await?;
    let folder = folder(daemon, &container.id, named)?;
    if !name::fits(id) {
        return Err(none(id, asked));
    }
    let (place, going) = (folder.join(id), beside(&folder, REMOVED)?);
    let (own, asked, id) = (named.is_empty(), asked.to_owned(), id.to_owned());
    blocking(move || {
        match fs::symlink_metadata(&place) {
            Ok(found) if !found.is_dir() => return Err(failed(not_a_folder(&place))),
            Ok(_) => {}
            Err(_) => return Err(none(&id, &asked)),
        }
        // With `--checkpoint-dir=/` any folder of the host would go.
        if !own && !place.join(INVENTORY).is_file() {
            return Err(failed(format!("{} is no checkpoint: there is no {INVENTORY}", place.display())));
        }
        rename(&place, &going)
            .map_err(|error| Error::internal(format_args!("removing {}", place.display()), &error))?;
        removed(&going)
    })
    .await
}

/// The folder of images that a container is to be started from; one of its own.
///
/// # Errors
/// There is none of this name: dockerd's text.
pub(super) async fn images(daemon: &Daemon, record: &Record, id: &str) -> Result<String> {
    let owner = format!("/{}", record.name);
    if !name::fits(id) {
        return Err(none(id, &owner));
    }
    let place = folder(daemon, &record.id, "")?.join(id);
    let id = id.to_owned();
    blocking(move || match fs::symlink_metadata(&place) {
        Ok(found) if found.is_dir() => Ok(place.to_string_lossy().into_owned()),
        _ => Err(none(&id, &owner)),
    })
    .await
}

/// Brings what a daemon that was killed has left of a container's to an end: what is whole gets its name, the rest goes. criu
/// gives a checkpoint up whose folder goes.
pub(super) fn clear_unfinished(daemon: &Daemon, container: &str) {
    settle(&folder_of(daemon, container).join("checkpoints"));
}

fn settle(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, outer) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let settled = if name.starts_with(UNFINISHED) {
            finish(folder, &outer)
        } else if name.starts_with(REMOVED) {
            removed(&outer)
        } else {
            Ok(())
        };
        if let Err(error) = settled {
            warn!("{error}");
        }
    }
}

fn finish(folder: &Path, outer: &Path) -> Result<()> {
    for entry in fs::read_dir(outer).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let making = Making { folder: folder.to_owned(), outer: outer.to_owned(), id };
        if making.is_whole() {
            let kept = making.keep()?;
            warn!("the checkpoint {kept} in {} was not acknowledged", folder.display());
        }
    }
    removed(outer)
}

/// Where a container's checkpoints are, or those of which a client says where.
fn folder(daemon: &Daemon, container: &str, named: &str) -> Result<PathBuf> {
    if named.is_empty() {
        return Ok(folder_of(daemon, container).join("checkpoints"));
    }
    let named = Path::new(named);
    // It would be below whatever folder the daemon was started in.
    if !named.is_absolute() {
        return Err(Error::invalid(format!("the checkpoint directory {} is not absolute", named.display())));
    }
    Ok(named.to_owned())
}

fn beside(folder: &Path, begin: &str) -> Result<PathBuf> {
    Ok(folder.join(format!("{begin}{}", random::digits(8)?)))
}

fn removed(path: &Path) -> Result<()> {
    removal::remove(path)
        .map_err(|error| Error::internal(format_args!("removing {}", path.display()), &error))
}

/// As dockerd's: these have the status of a fault of its own.
fn failed(message: String) -> Error {
    Error::new(Kind::Internal, message)
}

fn none(id: &str, owner: &str) -> Error {
    failed(format!("checkpoint {id} does not exist for container {owner}"))
}

fn not_a_folder(path: &Path) -> String {
    format!("{} exists and is not a directory", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    fn making(folder: &Path, id: &str) -> Making {
        let making = Making {
            folder: folder.to_owned(),
            outer: beside(folder, UNFINISHED).unwrap(),
            id: id.to_owned(),
        };
        making.prepare("box").unwrap();
        fs::write(making.images().join(INVENTORY), id).unwrap();
        making
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_whole_is_kept_whoever_has_its_name() {
        let scratch = Folder::new("checkpoint");
        let folder = scratch.path().join("checkpoints");
        let (free, taken, file) =
            (making(&folder, "free"), making(&folder, "taken"), making(&folder, "file"));
        fs::create_dir(folder.join("taken")).unwrap();
        fs::write(folder.join("taken").join(INVENTORY), "older").unwrap();
        fs::write(folder.join("file"), "").unwrap();
        assert_eq!(free.keep().unwrap(), "free");
        let (taken, file) = (taken.keep().unwrap(), file.keep().unwrap());
        assert!(taken.starts_with("taken-") && file.starts_with("file-"));
        assert_eq!(names(&folder), ["file", &file, "free", "taken", &taken]);
        let text = |name: &str| fs::read_to_string(folder.join(name).join(INVENTORY)).unwrap();
        assert_eq!(
            (text("taken"), text(&taken), text(&file)),
            ("older".into(), "taken".into(), "file".into())
        );
        // Its folder has gone: it stays where it is, and the client hears where.
        let mut homeless = making(&folder, "homeless");
        homeless.folder = scratch.path().join("none");
        let said = homeless.keep().unwrap_err().message;
        assert!(said.starts_with("it is saved in ") && homeless.is_whole(), "{said}");
    }

    #[test]
    fn a_start_ends_what_was_begun() {
        let scratch = Folder::new("checkpoint");
        let folder = scratch.path();
        let _whole = making(folder, "whole");
        let half = making(folder, "half");
        fs::remove_file(half.images().join(INVENTORY)).unwrap();
        fs::create_dir(beside(folder, REMOVED).unwrap()).unwrap();
        fs::create_dir(folder.join("other")).unwrap();
        settle(folder);
        assert_eq!(names(folder), ["other", "whole"]);
        settle(&folder.join("none"));
    }
}
