//! The removal of a container: of its processes, if that is wanted, its folders, its image's writable layer, its record.

use std::sync::Arc;

use tracing::warn;

use super::container::{Container, TABLE};
use super::deliver::{FOLLOWED, not_known};
use super::lifecycle::folder_of;
use super::signal;
use crate::api::filters::Filters;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::timestamp::Timestamp;

/// How often a container is killed that is found to run again.
const MOST_KILLS: u32 = 10;

/// What goes with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remove {
    /// Kills it if it runs.
    pub force: bool,
    /// Its volumes without a name.
    pub volumes: bool,
}

/// Removes a container; `asked` is how the client called it.
///
/// # Errors
/// It runs, is being removed already, or something of it can't be removed.
pub async fn remove(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    asked: &str,
    how: Remove,
) -> Result<()> {
    let already = container.change(|record| std::mem::replace(&mut record.state.removing, true));
    if already {
        return Err(Error::conflict(format!("removal of container {asked} is already in progress")));
    }
    let removed = clean_up(daemon, container, how).await;
    if let Err(error) = removed {
        container.change(|record| record.state.removing = false);
        return Err(Error::new(error.kind, format!("cannot remove container {asked:?}: {}", error.message)));
    }
    Ok(())
}

/// Removes a container that removes itself, in a task of its own.
pub(super) fn later(daemon: &Arc<Daemon>, container: &Arc<Container>) {
    let (daemon, container) = (Arc::clone(daemon), Arc::clone(container));
    drop(tokio::spawn(async move { itself(&daemon, &container).await }));
}

/// The same at once.
pub(super) async fn itself(daemon: &Arc<Daemon>, container: &Arc<Container>) {
    let how = Remove { force: true, volumes: true };
    match remove(daemon, container, &container.id, how).await {
        Err(error) if error.kind != Kind::Conflict => warn!("{error}"),
        _ => {}
    }
}

/// Waits until it is known what a container of an earlier daemon's does, or has it killed, as its shim may never say.
async fn settle(container: &Container, how: Remove) -> Result<()> {
    if container.is_known() {
        return Ok(());
    }
    if how.force {
        container.doom();
    }
    if container.becomes_known(FOLLOWED).await { Ok(()) } else { Err(not_known(container)) }
}

async fn clean_up(daemon: &Arc<Daemon>, container: &Arc<Container>, how: Remove) -> Result<()> {
    settle(container, how).await?;
    // A start that is under way may come to its end while its container is killed; none begins once this is to be removed.
    let mut tries = 0;
    let _changing = loop {
        let changing = container.changing.lock().await;
        let state = container.read(|record| record.state.clone());
        if !state.running {
            break changing;
        }
        drop(changing);
        tries += 1;
        if tries > MOST_KILLS {
            return Err(Error::conflict("it is started again each time that it is killed"));
        }
        if !how.force {
            return Err(Error::conflict(if state.paused {
                "container is paused and must be unpaused first".to_owned()
            } else {
                format!("container is {}: stop the container before removing or force remove", state.word())
            }));
        }
        match signal::kill(daemon, container, 0).await {
            Err(error) if error.kind != Kind::Conflict => {
                return Err(Error::new(error.kind, format!("could not kill container: {}", error.message)));
            }
            _ => {}
        }
    };
    let (id, folder) = (container.id.clone(), folder_of(daemon, &container.id));
    // Before its record goes: what is made for a container without a record is nobody's, and is removed at the next start.
    if !how.volumes {
        daemon.keep_volumes(container).await?;
    }
    // One commit, and it is gone; whatever a daemon that is killed leaves of its folders is nobody's.
    let images = daemon.images.clone();
    blocking(move || {
        images.release_with(&[TABLE], &id)?;
        images.discard(&folder);
        Ok(())
    })
    .await?;
    super::task::forget_files(daemon, &container.read(super::Record::clone)).await;
    daemon.engine.forget(container);
    daemon.engine.execs().retain(|_, exec| exec.container.id != container.id);
    daemon.forget_volumes(container, how.volumes).await;
    container.publish(daemon, "destroy");
    container.life.send_modify(|life| {
        life.running = false;
        life.removed = true;
    });
    Ok(())
}

/// What a prune has taken away.
#[derive(Debug, Default)]
pub struct Pruned {
    /// `None` for none, as Docker's list is then null.
    pub ids: Option<Vec<String>>,
    /// What they had written.
    pub bytes: i64,
}

/// Removes all that do not run, as far as the filters let it.
///
/// # Errors
/// A filter that can't be meant.
pub async fn prune(daemon: &Arc<Daemon>, filters: &Filters) -> Result<Pruned> {
    let until = filters
        .values("until")
        .next()
        .map(|text| Timestamp::of_filter(text, Timestamp::now()))
        .transpose()?;
    let mut pruned = Pruned::default();
    for container in daemon.engine.all() {
        let wanted = container.read(|record| {
            let label = |name: &str| record.config.labels.as_ref()?.get(name).map(String::as_str);
            !record.state.running
                && until.is_none_or(|until| record.created < until)
                && filters.labels("label", label)
                && (!filters.has("label!") || !filters.labels("label!", label))
        });
        if !wanted {
            continue;
        }
        let bytes = daemon.sizes(&container.read(super::Record::clone)).0;
        match remove(daemon, &container, &container.id, Remove::default()).await {
            Ok(()) => {
                pruned.bytes += bytes;
                pruned.ids.get_or_insert_default().push(container.id.clone());
            }
            Err(error) => warn!("{error}"),
        }
    }
    daemon.events.publish(
        "container",
        "prune",
        "",
        std::iter::once(("reclaimed".to_owned(), pruned.bytes.to_string())).collect(),
    );
    Ok(pruned)
}
