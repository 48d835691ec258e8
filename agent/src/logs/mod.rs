//! The logs of containers: what they write, line by line, to where their log driver says, and reading it again.
//!
//! `engine` opens a [`LogDriver`] when a container starts, gives it what comes out of the container's pipes, and closes it
//! when they end; routes read. It knows nothing of the API, and of a container only what [`Container`] says.

mod entry;
mod files;
mod journald;
mod json_file;
mod local;
mod options;
mod queue;
mod read;
mod sink;
mod syslog;
mod tag;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing::warn;

pub use entry::{Entry, Partial, Stream};
pub use options::{DRIVERS, LogConfig};
pub use read::{Entries, Options};
pub use tag::Container;

use crate::error::{Error, Kind, Result};
use crate::locks::locked;
use crate::timestamp::Timestamp;
use entry::Lines;
use files::{Format, LogFiles};
use options::{Mode, Rotation};
use queue::Queue;
use sink::{Remote, Sink};

/// When a log is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Where the container starts: what is not there keeps it from that.
    Start,
    /// Where it has been running: it waits for what is not there in its next write, which must be read all the same.
    Resumed,
}

/// The open log of a running container.
pub struct LogDriver {
    /// `None`: the driver is `none`.
    queue: Option<Arc<Queue>>,
    files: Option<Arc<LogFiles>>,
    stdout: Mutex<Lines>,
    stderr: Mutex<Lines>,
}

impl fmt::Debug for LogDriver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogDriver").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The files of a driver that has any.
struct Place {
    path: PathBuf,
    format: Format,
    rotation: Rotation,
}

impl LogDriver {
    /// Opens a container's log; `folder` is the container's. Blocks: the server is connected to.
    ///
    /// # Errors
    /// Options that mean nothing, dockerd's texts; a disk that refuses; a server that is not there.
    pub fn open(config: &LogConfig, folder: &Path, container: &Container) -> Result<Self> {
        Self::open_when(When::Start, config, folder, container)
    }

    /// Opens the log of a container that runs since before this daemon. What can't be opened is tried again with each batch of
    /// lines, a server is connected to with the first. Blocks for the disk.
    ///
    /// # Errors
    /// Options that mean nothing.
    pub fn resume(config: &LogConfig, folder: &Path, container: &Container) -> Result<Self> {
        Self::open_when(When::Resumed, config, folder, container)
    }

    fn open_when(when: When, config: &LogConfig, folder: &Path, container: &Container) -> Result<Self> {
        match when {
            When::Start => config.check()?,
            When::Resumed => config.check_words()?,
        }
        let files = place(config, folder, &container.id)?
            .map(|place| {
                let attributes = match place.format {
                    Format::Json => json_attributes(config, container)?,
                    Format::Local => String::new(),
                };
                let Place { path, format, rotation } = place;
                let files = LogFiles::new(path, format, rotation, attributes);
                match files.open() {
                    Err(error) if when == When::Start => {
                        Err(Error::internal(format_args!("opening {}", files.path.display()), &error))
                    }
                    Err(error) => {
                        warn!("opening {}: {error}", files.path.display());
                        Ok(Arc::new(files))
                    }
                    Ok(()) => Ok(Arc::new(files)),
                }
            })
            .transpose()?;
        let remote = match config.driver.as_str() {
            "syslog" => {
                let mut syslog = syslog::Syslog::new(config, container)?;
                if when == When::Start {
                    syslog.connect()?;
                }
                Some(Remote::Syslog(syslog))
            }
            "journald" => {
                let mut journal = journald::Journal::new(config, container)?;
                if when == When::Start {
                    journal.connect()?;
                }
                Some(Remote::Journal(journal))
            }
            _ => None,
        };
        let mode = if config.driver == "none" { Mode::Blocking } else { config.mode()? };
        let queue = (files.is_some() || remote.is_some())
            .then(|| Queue::new(mode, Sink { remote, files: files.clone() }));
        Ok(Self {
            queue,
            files,
            stdout: Mutex::new(Lines::new(Stream::Stdout)),
            stderr: Mutex::new(Lines::new(Stream::Stderr)),
        })
    }

    /// Takes what the container wrote to a stream. In blocking mode it returns when the log keeps up.
    pub async fn write(&self, stream: Stream, time: Timestamp, bytes: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let mut entries = Vec::new();
        self.lines(stream, |lines| lines.take(time, bytes, |entry| entries.push(entry)));
        if !entries.is_empty() {
            queue.push(entries).await;
        }
    }

    /// Writes what has no newline, and ends what readers follow.
    pub async fn close(&self, time: Timestamp) {
        let Some(queue) = &self.queue else { return };
        let mut entries = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.lines(stream, |lines| entries.extend(lines.rest(time)));
        }
        queue.push(entries).await;
        queue.close().await;
    }

    /// Reads it, from all that has been written so far on.
    ///
    /// # Errors
    /// The driver can't be read; the disk.
    pub async fn read(&self, options: Options) -> Result<Entries> {
        let files = self.files.clone().ok_or_else(unreadable)?;
        if let Some(queue) = &self.queue {
            queue.flush().await;
        }
        // Before the files are looked at: a rotation from here on keeps them for us.
        let progress = files.progress.subscribe();
        let opened = Arc::clone(&files);
        let (sources, generation) = tokio::task::spawn_blocking(move || opened.sources())
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|error| Error::internal("opening the log", &error))?;
        let format = files.format;
        Ok(read::entries(format, sources, Some((files, generation, progress)), options))
    }

    fn lines(&self, stream: Stream, act: impl FnOnce(&mut Lines)) {
        let lines = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        act(&mut locked(lines));
    }
}

/// Reads the log of a container that does not run; there is nothing to follow.
///
/// # Errors
/// The driver can't be read; the disk.
pub async fn read_ended(config: &LogConfig, folder: &Path, id: &str, options: Options) -> Result<Entries> {
    let Place { path, format, .. } = place(config, folder, id)?.ok_or_else(unreadable)?;
    let sources = tokio::task::spawn_blocking(move || files::ended_sources(&path))
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| Error::internal("opening the log", &error))?;
    Ok(read::entries(format, sources, None, options))
}

/// What inspect shows as `LogPath`: the file of the `json-file` driver; no other's.
#[must_use]
pub fn shown_path(config: &LogConfig, folder: &Path, id: &str) -> Option<PathBuf> {
    (config.driver == "json-file").then(|| json_path(folder, id))
}

fn json_path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}-json.log"))
}

fn place(config: &LogConfig, folder: &Path, id: &str) -> Result<Option<Place>> {
    Ok(match config.driver.as_str() {
        "json-file" => Some(Place {
            path: json_path(folder, id),
            format: Format::Json,
            rotation: config.json_file_rotation()?,
        }),
        "local" => Some(Place {
            path: folder.join("local-logs/container.log"),
            format: Format::Local,
            rotation: config.local_rotation("")?,
        }),
        "syslog" | "journald" if config.cached() => Some(Place {
            path: folder.join("container-cached.log"),
            format: Format::Local,
            rotation: config.local_rotation("cache-")?,
        }),
        _ => None,
    })
}

/// What each line of a `json-file` log has beside its text.
fn json_attributes(config: &LogConfig, container: &Container) -> Result<String> {
    let mut attributes = tag::attributes(config, container, str::to_owned)?;
    let tag = tag::tag(config, container, "")?;
    if !tag.is_empty() {
        let _none = attributes.insert("tag".to_owned(), tag);
    }
    if attributes.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(&attributes)
        .map_err(|error| Error::internal("encoding the log's attributes", &error))
}

/// docker-py and the CLI see the status, people the words.
fn unreadable() -> Error {
    Error::new(Kind::NotImplemented, "configured logging driver does not support reading")
}

#[cfg(test)]
mod tests;
