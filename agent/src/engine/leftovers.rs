//! What a daemon that was killed has left beside its containers: added processes that nobody waits for any more, folders and roots
//! of containers that were never acknowledged or are gone. Called by `takeover`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::exec::FIFOS;
use super::lifecycle::{bundle_of, remove_folder};
use super::streams::Streams;
use super::{checkpoint, task};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::random::is_id;
use crate::shim::Task;

/// Added processes of before run on. Nobody can be attached to them again, but their output must not hold them up, and their
/// end frees what the shim has of them.
pub(super) fn drain_execs(daemon: &Arc<Daemon>, container: &str, task: &Task) {
    let bundle = bundle_of(daemon, container);
    let names = names_in(&bundle).into_iter();
    for id in names.filter_map(|name| Some(name.strip_suffix(".out").filter(|id| is_id(id))?.to_owned())) {
        let (bundle, task) = (bundle.clone(), task.clone());
        drop(tokio::spawn(async move {
            if task.state(&id).await.is_ok_and(|seen| seen.exit.is_none() && !seen.created) {
                info!("the added process {id} runs on");
                drain(&bundle, &id, &task).await;
            }
            let _none = task.delete(&id).await;
            for name in FIFOS {
                let _absent = std::fs::remove_file(bundle.join(format!("{id}.{name}")));
            }
        }));
    }
}

async fn drain(bundle: &Path, id: &str, task: &Task) {
    let streams = Arc::new(Streams::new(false));
    let path = |name: &str| Some(bundle.join(format!("{id}.{name}"))).filter(|path| path.exists());
    if let Some(stdout) = path("out")
        && let Err(error) = streams.begin(&stdout, path("err").as_deref(), None)
    {
        warn!("{error}");
    }
    let _end = task.wait(id).await;
    streams.end().await;
}

/// Takes away what is of no container. `known` are the ids of all records, those that could not be taken up, too.
pub(super) async fn clear(daemon: &Arc<Daemon>, known: &BTreeSet<String>) {
    let strange = |folder: PathBuf| {
        let names = names_in(&folder).into_iter().filter(|name| is_id(name) && !known.contains(name));
        names.map(move |name| folder.join(name)).collect::<Vec<_>>()
    };
    for bundle in strange(daemon.config.exec_root.clone()) {
        // Nobody's id is given out again: these may take their time.
        drop(tokio::spawn(end_bundle(Arc::clone(daemon), bundle)));
    }
    let folders = [daemon.config.data_root.join("containers"), daemon.config.exec_root.join(task::FOLDER)];
    for folder in folders.into_iter().flat_map(strange) {
        remove(folder).await;
    }
    let (owner, all) = (Arc::clone(daemon), known.clone());
    let unfinished = blocking(move || {
        all.iter().for_each(|container| checkpoint::clear_unfinished(&owner, container));
        Ok(())
    });
    if let Err(error) = unfinished.await {
        warn!("{error}");
    }
    let roots = daemon.images.roots().into_iter().map(|(container, _)| container);
    for container in roots.filter(|container| is_id(container) && !known.contains(container)) {
        if let Err(error) = daemon.release_root(&container).await {
            warn!("{error}");
        }
    }
    let (volumes, known) = (Arc::clone(daemon), known.clone());
    let cleared = blocking(move || {
        volumes.volumes.keep(|container| known.contains(container));
        volumes.engine.launch.clear_sockets(known.iter().map(|id| bundle_of(&volumes, id)));
        Ok(())
    });
    if let Err(error) = cleared.await {
        warn!("{error}");
    }
}

async fn end_bundle(daemon: Arc<Daemon>, bundle: PathBuf) {
    let id = bundle.file_name().unwrap_or_default().to_string_lossy().into_owned();
    warn!("the bundle of {id} is nobody's");
    if let Err(error) = daemon.engine.launch.settle(&bundle).await {
        warn!("{error}");
    }
    daemon.engine.launch.end_strays(&bundle).await;
    if let Err(error) = daemon.engine.launch.delete(&id, &bundle).await {
        warn!("{error}");
    }
    remove(bundle).await;
}

async fn remove(folder: PathBuf) {
    let removed = blocking(move || remove_folder(&folder));
    if let Err(error) = removed.await {
        warn!("{error}");
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
