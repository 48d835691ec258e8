//! Sandboxes on disk: a file for each, beside the namespaces' own. A record lives as long as its namespace, which no machine's
//! restart outlives, so nothing is synced: a killed daemon finds what it has written in the kernel's cache.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use tracing::warn;

use super::record::Sandbox;
use crate::error::{Error, Result};

/// The folder.
#[derive(Debug)]
pub(super) struct Records(PathBuf);

impl Records {
    /// Makes the folder if it is not there.
    pub(super) fn open(folder: PathBuf) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| Error::internal(format_args!("making {}", folder.display()), &error))?;
        Ok(Self(folder))
    }

    /// All of them; a file that is none, of a daemon that was killed or of a machine that was, is removed.
    pub(super) fn all(&self) -> Result<Vec<Sandbox>> {
        let failed = |error: io::Error| Error::internal(format_args!("reading {}", self.0.display()), &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let read = fs::read(&path).map_err(failed)?;
            match serde_json::from_slice::<Sandbox>(&read) {
                Ok(sandbox) if path == self.path(&sandbox.container) => found.push(sandbox),
                _ => {
                    warn!("{} is no sandbox's record", path.display());
                    fs::remove_file(&path).map_err(failed)?;
                }
            }
        }
        Ok(found)
    }

    /// Writes one, whole or not at all.
    pub(super) fn put(&self, sandbox: &Sandbox) -> Result<()> {
        let path = self.path(&sandbox.container);
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::internal(format_args!("writing {}", path.display()), error)
        };
        let bytes = serde_json::to_vec(sandbox).map_err(|error| failed(&error))?;
        let new = path.with_extension("new");
        fs::write(&new, bytes).map_err(|error| failed(&error))?;
        fs::rename(&new, &path).map_err(|error| failed(&error))
    }

    /// Removes one; one that is not there is well.
    pub(super) fn remove(&self, container: &str) -> Result<()> {
        let path = self.path(container);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::internal(format_args!("removing {}", path.display()), &error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, container: &str) -> PathBuf {
        self.0.join(container)
    }
}
