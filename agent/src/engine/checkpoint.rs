//! Checkpoints: the processes of a container in a folder of images that criu writes, by the shim and the runtime. Made, listed
//! and removed here; `lifecycle` starts a container from one.
//!
//! They are in the container's own folder, or in one of the host that the client names. Their names come from clients: each is
//! one step below that folder. What is being written or removed has a name that no checkpoint has, so that a daemon that is
//! killed leaves nothing half made in the list.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_engine_api::container::{Checkpoint, CheckpointBody};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tracing::warn;

use super::container::{Container, Record};
use super::lifecycle::{folder_of, make_folder};
use super::signal::{AFTER_KILL, ends, running, until_end};
use super::{name, namespaces};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::{random, removal};

/// Begins the name of what is no checkpoint yet, or no more.
const UNFINISHED: &str = ".unfinished-";
/// criu's first file, which every checkpoint has.
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
    let changing = container.changing.lock().await;
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
    let (place, unfinished) = (folder.join(&id), unfinished_in(&folder)?);
    let (target, made, owner) = (place.clone(), unfinished.clone(), asked.to_owned());
    blocking(move || {
        // What was in the memory is in the images: nobody else's.
        let folder = make_folder(&folder, 0o700);
        let taken = match fs::metadata(&target) {
            Ok(found) if found.is_dir() => {
                Some(format!("checkpoint with name {id} already exists for container {owner}"))
            }
            Ok(_) => Some(not_a_folder(&target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(format!("looking at {}: {error}", target.display())),
        };
        let free = || taken.map_or(Ok(()), |why| Err(failed(why)));
        folder
            .and_then(|()| free())
            .and_then(|()| make_folder(&made, 0o700))
            .map_err(|error| failed(format!("cannot checkpoint container {owner}: {error}")))
    })
    .await?;
    let before = ends(container);
    let cannot =
        |error: &dyn std::fmt::Display| failed(format!("Cannot checkpoint container {asked}: {error}"));
    if let Err(error) = task.checkpoint(&unfinished.to_string_lossy(), exit).await {
        blocking(move || removed(&unfinished)).await?;
        return Err(cannot(&error));
    }
    if exit {
        // Its policy is not to start it anew beside what was saved.
        container.change(|record| record.was_stopped = true);
    }
    blocking(move || {
        let kept = renameat_with(CWD, &unfinished, CWD, &place, RenameFlags::NOREPLACE);
        kept.or_else(|error| {
            removed(&unfinished)?;
            Err(Error::internal(format_args!("naming {}", place.display()), &error))
        })
    })
    .await
    .map_err(|error| cannot(&error))?;
    container.publish(daemon, "checkpoint");
    drop(changing);
    // A start from it must not find the container running still.
    if exit && !until_end(container, before, Some(AFTER_KILL)).await {
        return Err(cannot(&"it is saved, but does not end"));
    }
    Ok(())
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
        let mut names: Vec<_> = names.filter(|name| !name.starts_with(UNFINISHED)).collect();
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
    let _changing = container.changing.lock().await;
    let folder = folder(daemon, &container.id, named)?;
    if !name::fits(id) {
        return Err(none(id, asked));
    }
    let (place, unfinished) = (folder.join(id), unfinished_in(&folder)?);
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
        renameat_with(CWD, &place, CWD, &unfinished, RenameFlags::NOREPLACE)
            .map_err(|error| Error::internal(format_args!("removing {}", place.display()), &error))?;
        removed(&unfinished)
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

/// Removes what a daemon that was killed has left unfinished of a container's. criu gives a checkpoint up whose folder goes.
pub(super) fn clear_unfinished(daemon: &Daemon, container: &str) {
    let entries =
        fs::read_dir(folder_of(daemon, container).join("checkpoints")).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED)) {
        if let Err(error) = removed(&entry.path()) {
            warn!("{error}");
        }
    }
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

fn unfinished_in(folder: &Path) -> Result<PathBuf> {
    Ok(folder.join(format!("{UNFINISHED}{}", random::digits(8)?)))
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
