//! Reading a log: the last lines, or all, then what comes; across rotations, expanded where files are compressed.
//!
//! The disk is read by `spawn_blocking`, a bounded piece at a time; a follower waits without a thread.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use tokio::sync::{mpsc, watch};

use super::entry::Entry;
use super::files::{Format, LogFiles, Progress, Source};
use super::{json_file, local};
use crate::error::{Error, Result};
use crate::timestamp::Timestamp;

/// How much is read at once, in bytes.
const PIECE: usize = 64 << 10;
/// A line without an end is no line: what a disk that was full or lost its power has, zeros for the most part.
const LONGEST_LINE: usize = 4 << 20;

/// What of a log is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Not before it.
    pub since: Option<Timestamp>,
    /// Not after it.
    pub until: Option<Timestamp>,
    /// So many of the last lines, of what was there when reading began; `None`: all.
    pub tail: Option<usize>,
    /// What comes, too, until the log is closed.
    pub follow: bool,
}

/// Entries in their order, until the channel's end; an error is the last.
pub type Entries = mpsc::Receiver<Result<Entry>>;

/// Reads files that `writer` may still write; it is `None` where nobody does.
pub(super) fn entries(
    format: Format,
    sources: Vec<Source>,
    writer: Option<(Arc<LogFiles>, u64, watch::Receiver<Progress>)>,
    options: Options,
) -> Entries {
    let (sender, receiver) = mpsc::channel(64);
    drop(tokio::spawn(async move {
        if let Err(error) = send(format, sources, writer, options, &sender).await {
            let error = Error::internal("reading the log", &error);
            let _gone = sender.send(Err(error)).await;
        }
    }));
    receiver
}

/// Where a reader goes on.
enum Way {
    /// The consumer wants more.
    On,
    /// It has gone, or has had what it wanted.
    Done,
}

async fn send(
    format: Format,
    sources: Vec<Source>,
    writer: Option<(Arc<LogFiles>, u64, watch::Receiver<Progress>)>,
    options: Options,
    sender: &mpsc::Sender<Result<Entry>>,
) -> io::Result<()> {
    let mut readers = blocking(move || begin(format, sources, options.tail)).await?;
    let Some(mut last) = readers.pop() else { return Ok(()) };
    for reader in readers {
        if let (_, Way::Done) = drain(reader, options, sender).await? {
            return Ok(());
        }
    }
    let Some((files, mut generation, mut progress)) = writer else {
        let _read = drain(last, options, sender).await?;
        return Ok(());
    };
    loop {
        // Seen before reading: what is written after it is told again.
        let seen = *progress.borrow_and_update();
        match drain(last, options, sender).await? {
            (_, Way::Done) => return Ok(()),
            (reader, Way::On) => last = reader,
        }
        if let Some((next, file)) = files.after(generation).filter(|_| seen.generation > generation) {
            generation = next;
            last = Reader::new(format, file, 0);
        } else if seen.closed || !options.follow || is_over(options.until) {
            return Ok(());
        } else {
            tokio::select! {
                changed = progress.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = sender.closed() => return Ok(()),
                () = over(options.until) => {}
            }
        }
    }
}

/// Nothing that comes can be wanted any more.
fn is_over(until: Option<Timestamp>) -> bool {
    until.is_some_and(|until| until <= Timestamp::now())
}

async fn over(until: Option<Timestamp>) {
    match until {
        Some(until) => tokio::time::sleep(until.since(Timestamp::now())).await,
        None => std::future::pending().await,
    }
}

/// Sends what a file has.
async fn drain(
    mut reader: Reader,
    options: Options,
    sender: &mpsc::Sender<Result<Entry>>,
) -> io::Result<(Reader, Way)> {
    loop {
        let (back, entries) = blocking(move || {
            let mut reader = reader;
            let entries = reader.step()?;
            Ok((reader, entries))
        })
        .await?;
        reader = back;
        let Some(entries) = entries else { return Ok((reader, Way::On)) };
        for entry in entries {
            if options.since.is_some_and(|since| entry.time < since) {
                continue;
            }
            if options.until.is_some_and(|until| entry.time > until) || sender.send(Ok(entry)).await.is_err()
            {
                return Ok((reader, Way::Done));
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A reader for each file that holds something of what is wanted.
fn begin(format: Format, sources: Vec<Source>, tail: Option<usize>) -> io::Result<Vec<Reader>> {
    let mut readers = Vec::new();
    let mut wanted = tail;
    for source in sources.into_iter().rev() {
        if wanted == Some(0) && !readers.is_empty() {
            break;
        }
        let file = match source {
            Source::Plain(file) => file,
            Source::Gzip(file) => Arc::new(expanded(&file)?),
        };
        let size = file.metadata()?.len();
        let offset = match &mut wanted {
            None => 0,
            Some(wanted) => {
                let (offset, found) = match format {
                    Format::Json => last_lines(&file, size, *wanted)?,
                    Format::Local => last_records(&file, size, *wanted)?,
                };
                *wanted -= found;
                offset
            }
        };
        readers.push(Reader::new(format, file, offset));
    }
    readers.reverse();
    Ok(readers)
}

/// A compressed file's content, in a file without a name: beside it, as the host's folder for such is often memory, unless the disk is
/// full.
fn expanded(mut file: &File) -> io::Result<File> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let beside = path.parent().map(Path::to_owned);
    let mut folders = beside.into_iter().chain([std::env::temp_dir()]).peekable();
    loop {
        let folder = folders.next().unwrap_or_default();
        match expanded_in(&folder, file) {
            Err(_) if folders.peek().is_some() => file.rewind()?,
            expanded => return expanded,
        }
    }
}

fn expanded_in(folder: &Path, file: &File) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let target =
        rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from(0o600))?;
    let mut target = File::from(target);
    let _bytes = io::copy(&mut MultiGzDecoder::new(file), &mut target)?;
    target.rewind()?;
    Ok(target)
}

/// Where the last `wanted` lines of a file begin, and how many these are.
fn last_lines(file: &File, size: u64, wanted: usize) -> io::Result<(u64, usize)> {
    let mut buffer = vec![0; PIECE];
    let (mut end, mut found) = (size, 0);
    while end > 0 {
        let start = end.saturating_sub(PIECE as u64);
        let length = usize::try_from(end - start).unwrap_or(PIECE);
        file.read_exact_at(&mut buffer[..length], start)?;
        for index in (0..length).rev().filter(|index| buffer[*index] == b'\n') {
            // A newline ends one line; that of the line before the first wanted one is one too many.
            if found == wanted {
                return Ok((start + index as u64 + 1, found));
            }
            found += 1;
        }
        end = start;
    }
    Ok((0, found))
}

/// The same of records, by the length at their end.
fn last_records(file: &File, size: u64, wanted: usize) -> io::Result<(u64, usize)> {
    let (mut start, mut found) = (size, 0);
    while start > 0 && found < wanted {
        let mut length = [0; local::LENGTH];
        let Some(at) = start.checked_sub(local::LENGTH as u64) else { break };
        file.read_exact_at(&mut length, at)?;
        let whole = u64::from(u32::from_be_bytes(length)) + 2 * local::LENGTH as u64;
        match start.checked_sub(whole) {
            Some(before) => start = before,
            // Torn: all that is left is read from its beginning.
            None => return Ok((0, found)),
        }
        found += 1;
    }
    Ok((start, found))
}

/// Entries of one file, from an offset on.
#[derive(Debug)]
struct Reader {
    format: Format,
    file: Arc<File>,
    offset: u64,
    pending: Vec<u8>,
    /// Up to the next line's beginning.
    skips: bool,
    /// Nothing behind a torn record can be found.
    torn: bool,
}

impl Reader {
    fn new(format: Format, file: Arc<File>, offset: u64) -> Self {
        Self { format, file, offset, pending: Vec::new(), skips: false, torn: false }
    }

    /// The next entries; `None` at the file's present end.
    fn step(&mut self) -> io::Result<Option<Vec<Entry>>> {
        if self.torn {
            return Ok(None);
        }
        let held = self.pending.len();
        self.pending.resize(held + PIECE, 0);
        let read = self.file.read_at(&mut self.pending[held..], self.offset);
        self.pending.truncate(held + *read.as_ref().unwrap_or(&0));
        let read = read?;
        self.offset += read as u64;
        if read == 0 {
            return Ok(None);
        }
        let mut entries = Vec::new();
        let mut start = 0;
        while let Some(length) = self.length(start) {
            let record = &self.pending[start..start + length];
            start += length;
            if std::mem::take(&mut self.skips) {
                continue;
            }
            entries.extend(match self.format {
                Format::Json => json_file::decode(record.trim_ascii_end()),
                Format::Local => local::decode(record),
            });
        }
        drop(self.pending.drain(..start));
        if self.format == Format::Json && self.pending.len() > LONGEST_LINE {
            self.pending.clear();
            self.skips = true;
        }
        Ok(Some(entries))
    }

    /// The length of the whole record that begins at `start` of what is pending.
    fn length(&mut self, start: usize) -> Option<usize> {
        let bytes = self.pending.get(start..)?;
        let length = match self.format {
            Format::Json => bytes.iter().position(|byte| *byte == b'\n').map(|newline| newline + 1),
            Format::Local => local::length(bytes).unwrap_or_else(|local::Torn| {
                self.torn = true;
                None
            }),
        };
        length.filter(|length| *length <= bytes.len())
    }
}
