//! The daemon's state on disk: one redb file, a table for each kind of object, JSON values by key.
//!
//! A write is on the disk before its call returns (redb commits with fsync); whatever was not written when the daemon was
//! killed never was. Called by the owners of objects only: `engine`, `image`, `network`, `volume`.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::locks::{reading, writing};

/// A kind of object.
#[derive(Clone, Copy, Debug)]
pub struct Table(pub &'static str);

/// The open file; clones share it.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    path: PathBuf,
    /// None: it could not be opened again yet.
    database: RwLock<Option<Database>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Store")
    }
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.0)
    }
}

impl Store {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// Another daemon has it open, or it is no store.
    pub fn open(path: &Path) -> Result<Self> {
        make_private(path)
            .map_err(|error| Error::internal(format_args!("making the store {}", path.display()), &error))?;
        let database = Database::create(path)
            .map_err(|error| Error::internal(format_args!("opening the store {}", path.display()), &error))?;
        let database = RwLock::new(Some(database));
        Ok(Self(Arc::new(Shared { path: path.to_owned(), database })))
    }

    /// Writes an object, and syncs it.
    ///
    /// # Errors
    /// The disk.
    pub fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|error| failed("encoding", table, key, &error))?;
        self.write(table, |open| open.insert(key, bytes.as_slice()).map(drop))
            .map_err(|error| failed("writing", table, key, &error))
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(&self, table: Table, key: &str) -> Result<()> {
        self.write(table, |open| open.remove(key).map(drop))
            .map_err(|error| failed("removing", table, key, &error))
    }

    /// All objects of a table, by key.
    ///
    /// # Errors
    /// The disk, or a value that is none of ours.
    pub fn all<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>> {
        let raw = self.read(table).map_err(|error| failed("reading", table, "*", &error))?;
        raw.into_iter()
            .map(|(key, bytes)| match serde_json::from_slice(&bytes) {
                Ok(value) => Ok((key, value)),
                Err(error) => Err(failed("decoding", table, &key, &error)),
            })
            .collect()
    }

    fn write(
        &self,
        table: Table,
        change: impl Fn(
            &mut redb::Table<'_, &'static str, &'static [u8]>,
        ) -> std::result::Result<(), redb::StorageError>,
    ) -> std::result::Result<(), redb::Error> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            {
                let mut open = transaction.open_table(table.definition())?;
                change(&mut open)?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// Does something with the file. After an error of the disk, a full one for example, redb refuses everything until the file is
    /// opened again: that is done, and what failed for an error of before is tried once more.
    fn with<T>(
        &self,
        act: impl Fn(&Database) -> std::result::Result<T, redb::Error>,
    ) -> std::result::Result<T, redb::Error> {
        for _ in 0..2 {
            let done = reading(&self.0.database).as_ref().map(&act);
            match done {
                None | Some(Err(redb::Error::PreviousIo)) => self.open_again()?,
                Some(Err(error @ redb::Error::Io(_))) => {
                    // The next one tells if it can't be had.
                    let _open = self.open_again();
                    return Err(error);
                }
                Some(done) => return done,
            }
        }
        Err(redb::Error::PreviousIo)
    }

    fn open_again(&self) -> std::result::Result<(), redb::Error> {
        let mut database = writing(&self.0.database);
        // Its lock goes with it.
        drop(database.take());
        *database = Some(Database::create(&self.0.path)?);
        Ok(())
    }

    fn read(&self, table: Table) -> std::result::Result<Vec<(String, Vec<u8>)>, redb::Error> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let open = match transaction.open_table(table.definition()) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                open => open?,
            };
            let mut found = Vec::new();
            for entry in open.iter()? {
                let (key, value) = entry?;
                found.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }
}

/// Containers' environments are in it, often with passwords: the file is its owner's only.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn failed(action: &str, table: Table, key: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::internal(format_args!("{action} {}/{key} in the store", table.0), error)
}
