//! Copying to and from containers, whether they run or not: what `archive` needs of a container, and its errors in dockerd's
//! words.
//!
//! A running container's root is mounted already, and looked at beside it. One that does not run can't be started, changed or
//! removed as long as something is copied into it; what only looks holds nobody up, however slow its client is.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;
use tracing::warn;

use super::container::{Container, Record};
use super::deliver::to_change;
use super::lifecycle::{bundle_of, folder_of};
use super::mounts::Planned;
use super::{root, users};
use crate::archive::{self, Bound, PathStat, Receive, Root, View, absolute, words};
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::image::held;
use crate::image::inflate::Inflate;

/// Files that the network's side writes, and binds into each container.
const NETWORK_FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

/// A container, and how the client has called it and a path of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The container.
    pub container: Arc<Container>,
    /// Its name in the request.
    pub name: String,
    /// As it was given.
    pub path: String,
}

impl Asked {
    /// A failure; that the file is not there is dockerd's own.
    fn failed(&self, error: Error) -> Error {
        if error.kind == Kind::NotFound {
            return Error::not_found(format!(
                "Could not find the file {} in container {}",
                self.path, self.name
            ));
        }
        error
    }

    fn not_looked_at(&self, path: &str, error: &io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
            return self.failed(Error::not_found(""));
        }
        // What the kernel has not said is whole.
        match error.raw_os_error() {
            Some(_) => Error::new(Kind::Internal, format!("lstat {path}: {}", words(error))),
            None => Error::new(Kind::Internal, error.to_string()),
        }
    }
}

/// What is at a path.
///
/// # Errors
/// Nothing, or the kernel's.
pub async fn stat(daemon: &Arc<Daemon>, asked: Asked) -> Result<PathStat> {
    let files = Files::open(daemon, &asked.container, Purpose::Looks).await?;
    files
        .use_them(move |view, _| {
            let path =
                if asked.path.starts_with('/') { asked.path.clone() } else { format!("/{}", asked.path) };
            view.stat(&path).map_err(|error| asked.not_looked_at(&asked.path, &error))
        })
        .await
}

/// What is at a path, and what writes it as an archive.
///
/// # Errors
/// As [`stat`].
pub async fn read(daemon: &Arc<Daemon>, asked: Asked) -> Result<(PathStat, Reading)> {
    let files = Files::open(daemon, &asked.container, Purpose::Looks).await?;
    let path = absolute(&asked.path);
    let stat = match files.view.stat(&path) {
        Ok(stat) => stat,
        Err(error) => {
            files.close().await;
            return Err(asked.not_looked_at(&path, &error));
        }
    };
    asked.container.publish(daemon, "archive-path");
    Ok((stat.clone(), Reading { files, path, is_folder: stat.is_folder() }))
}

/// An archive that is to be written.
#[derive(Debug)]
pub struct Reading {
    files: Files,
    path: String,
    is_folder: bool,
}

impl Reading {
    /// Writes it, to its end or to the client's; `end` is told how it ended, by a thread that may block.
    pub async fn write_to(
        self,
        stream: impl Write + Send + 'static,
        end: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let Self { files, path, is_folder } = self;
        let written = files.use_them(move |view, _| {
            let sent = archive::send(view, &path, is_folder, stream).and_then(|mut stream| stream.flush());
            let failed =
                sent.as_ref().err().map(|error| Error::internal(format_args!("archiving {path}"), error));
            end(sent);
            failed.map_or(Ok(()), Err)
        });
        if let Err(error) = written.await {
            warn!("{error}");
        }
    }
}

/// Unpacks an archive, compressed or not, into a folder of the container's.
///
/// # Errors
/// The folder is none, or may not be written to; what the archive may not: dockerd's texts.
pub async fn write(
    daemon: &Arc<Daemon>,
    asked: Asked,
    keeps_kinds: bool,
    as_user: bool,
    stream: impl Read + Send + 'static,
) -> Result<()> {
    let container = Arc::clone(&asked.container);
    let files = Files::open(daemon, &container, Purpose::Writes).await?;
    files
        .use_them(move |view, record| {
            let folder = view.folder(&asked.path).map_err(|error| asked.failed(error))?;
            may_write(record, &String::from_utf8_lossy(&folder))?;
            let owner = if as_user { owner(view, &record.config.user)? } else { None };
            let stream = Inflate::new(stream).map_err(|error| Error::new(Kind::Internal, words(&error)))?;
            archive::receive(view, folder, Receive { owner, keeps_kinds }, stream)
                .map_err(|error| asked.failed(error))
        })
        .await?;
    container.publish(daemon, "extract-to-dir");
    Ok(())
}

/// Whether the folder is in a volume that may be written to, or in a root that may. What is mounted is restricted, too; this
/// says it in dockerd's words.
fn may_write(record: &Record, folder: &str) -> Result<()> {
    let holds = |one: &&Planned| Path::new(folder).starts_with(&one.shown.destination);
    let nearest = record.mounts.iter().filter(holds).max_by_key(|one| one.shown.destination.len());
    match nearest {
        Some(one) if one.shown.rw => Ok(()),
        Some(_) => Err(Error::invalid("mounted volume is marked read-only")),
        None if record.host_config.readonly_rootfs => {
            Err(Error::invalid("container rootfs is marked read-only"))
        }
        None => Ok(()),
    }
}

/// The container's user, as the container itself knows it.
fn owner(view: &View, user: &str) -> Result<Option<(u32, u32)>> {
    if user.is_empty() {
        return Ok(None);
    }
    let text = |path| root::read_in(view.root(), path);
    users::owner(user, &text("/etc/passwd")?, &text("/etc/group")?).map(Some)
}

/// What is done with a container's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Looks,
    Writes,
}

/// A container's files, open.
#[derive(Debug)]
struct Files {
    daemon: Arc<Daemon>,
    record: Record,
    view: View,
    /// Of one that does not run, and is written to.
    stopped: Option<OwnedMutexGuard<()>>,
}

impl Files {
    async fn open(daemon: &Arc<Daemon>, container: &Arc<Container>, purpose: Purpose) -> Result<Self> {
        let changing = to_change(container).await?;
        let record = container.read(Record::clone);
        // Between two runs there is a state, and no process.
        let runs = record.state.pid != 0;
        let (shared, opened) = (Arc::clone(daemon), record.clone());
        let view = blocking(move || open(&shared, &opened, runs, purpose)).await;
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                if !runs {
                    daemon.unmount_volumes(&record.id).await;
                }
                return Err(error);
            }
        };
        let stopped = match purpose {
            _ if runs => None,
            Purpose::Writes => Some(changing),
            Purpose::Looks => {
                // The view has clones of their mounts.
                daemon.unmount_volumes(&record.id).await;
                None
            }
        };
        Ok(Self { daemon: Arc::clone(daemon), record, view, stopped })
    }

    /// Works with them where that may block, and closes them.
    async fn use_them<T: Send + 'static>(
        self,
        work: impl FnOnce(&View, &Record) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Self { daemon, record, view, stopped } = self;
        // The work goes on without its client, and what was opened is closed by it.
        let working = tokio::spawn(async move {
            let id = record.id.clone();
            let done = blocking(move || {
                let done = work(&view, &record);
                drop(view);
                done
            });
            let done = done.await;
            if stopped.is_some() {
                daemon.unmount_volumes(&id).await;
            }
            drop(stopped);
            done
        });
        working.await.map_err(|error| Error::internal("copying", &error))?
    }

    async fn close(self) {
        let closed = self.use_them(|_, _| Ok(())).await;
        if let Err(error) = closed {
            warn!("{error}");
        }
    }
}

fn open(daemon: &Daemon, record: &Record, runs: bool, purpose: Purpose) -> Result<View> {
    let mut bound = Vec::new();
    let mut new_volumes = Vec::new();
    for (number, planned) in record.mounts.iter().enumerate() {
        let shown = &planned.shown;
        let hidden = record.host_config.tmpfs.iter().flatten().any(|(path, _)| *path == shown.destination);
        let mut image = None;
        let source = match shown.kind.as_str() {
            _ if hidden => continue,
            "volume" => {
                if planned.subpath.is_empty() && !planned.no_copy && !runs {
                    new_volumes.push((shown.name.clone(), shown.destination.clone()));
                }
                daemon.volumes.mount(&shown.name, &record.id)?
            }
            "bind" => PathBuf::from(&shown.source),
            "image" => {
                let held = daemon.images.rootfs(&held(&record.id, number))?;
                image = Some(held.read_only());
                held.upper
            }
            _ => continue,
        };
        bound.push(Bound {
            source,
            image,
            below: planned.subpath.clone(),
            destination: shown.destination.clone(),
            recursive: !planned.flat,
            writable: shown.rw,
            owner: daemon.ids.root(),
        });
    }
    // What lies below another comes after it.
    bound.sort_by_key(|one| one.destination.matches('/').count());
    let folder = match record.host_config.network_mode.strip_prefix("container:") {
        Some(other) => daemon.engine.find(other).ok().map(|other| folder_of(daemon, &other.id)),
        None => Some(folder_of(daemon, &record.id)),
    };
    for (name, destination) in NETWORK_FILES {
        let source = folder.as_ref().map(|folder| folder.join(name)).filter(|source| source.exists());
        if let Some(source) = source
            && !bound.iter().any(|one| one.destination == destination)
        {
            let writable = !record.host_config.readonly_rootfs;
            let below = String::new();
            bound.push(Bound {
                source,
                image: None,
                below,
                destination: destination.to_owned(),
                recursive: false,
                writable,
                owner: daemon.ids.root(),
            });
        }
    }
    let rootfs = daemon.images.rootfs(&record.id)?;
    let mounted = bundle_of(daemon, &record.id).join("rootfs");
    // An overlay does not mind what is mounted over its own folders later.
    let place = match purpose {
        _ if runs => Root::Mounted(&mounted),
        Purpose::Writes => Root::Unmounted(&rootfs.mounts, &rootfs.upper),
        Purpose::Looks => {
            Root::Looked { mounts: &rootfs.mounts, upper: &rootfs.upper, scratch: &rootfs.work }
        }
    };
    let view = View::open(&place, &bound, !record.host_config.readonly_rootfs, |root| {
        new_volumes
            .iter()
            .try_for_each(|(name, destination)| daemon.volumes.fill(name, &record.id, root, destination))
    })?;
    Ok(view.for_users(&daemon.ids))
}
