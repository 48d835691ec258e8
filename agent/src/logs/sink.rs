//! Where entries end: files, a syslog server, the journal; the latter two with a copy in files that `docker logs` reads.

use std::io;
use std::sync::Arc;

use super::entry::Entry;
use super::files::LogFiles;
use super::journald::Journal;
use super::syslog::Syslog;

/// A driver's end.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) remote: Option<Remote>,
    pub(super) files: Option<Arc<LogFiles>>,
}

/// An end that can't be read.
#[derive(Debug)]
pub(super) enum Remote {
    Syslog(Syslog),
    Journal(Journal),
}

impl Sink {
    /// Writes entries to all ends; the error of one does not keep them from the other.
    pub(super) fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let remote = match &mut self.remote {
            None => Ok(()),
            Some(Remote::Syslog(syslog)) => entries.iter().try_for_each(|entry| syslog.write(entry)),
            Some(Remote::Journal(journal)) => journal.write_all(entries),
        };
        let files = self.files.as_ref().map_or(Ok(()), |files| files.write(entries));
        remote.and(files)
    }

    pub(super) fn close(&self) {
        if let Some(files) = &self.files {
            files.close();
        }
    }
}
