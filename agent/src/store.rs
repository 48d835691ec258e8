//! The daemon's state on disk: one redb file, a table for each kind of object, JSON values by key.
//!
//! A write is on the disk before its call returns (redb commits with fsync); whatever was not written when the daemon was
//! killed never was. Those who write at once share a commit: a sync takes milliseconds, whatever it is for. Called by the owners
//! of objects only: `engine`, `image`, `network`, `volume`.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::locks::{locked, reading, writing};
use crate::spare::{self, Spare};

/// A kind of object.
#[derive(Clone, Copy, Debug)]
pub struct Table(pub &'static str);

/// The open file; clones share it.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    path: PathBuf,
    spare: Spare,
    /// None: it could not be opened again yet.
    database: RwLock<Option<Database>>,
    /// What the next commit is of.
    waiting: Mutex<Vec<Waiting>>,
    /// Held by the one who commits for all.
    committing: Mutex<()>,
}

/// Of one object: its table, its key, and what it is to be; None: it is to go.
type Change = (Table, String, Option<Vec<u8>>);

/// Changes that wait for their commit.
struct Waiting {
    changes: Vec<Change>,
    kind: Kind,
    /// None: nobody waits for it.
    done: Option<Done>,
}

/// What a change is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Something is kept.
    Keeps,
    /// Something goes, and room with it: this may take the last that there is.
    Frees,
}

type Done = Arc<OnceLock<std::result::Result<(), Arc<redb::Error>>>>;

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
        let spare = Spare::beside(path);
        spare.take();
        Ok(Self(Arc::new(Shared {
            path: path.to_owned(),
            spare,
            database,
            waiting: Mutex::default(),
            committing: Mutex::default(),
        })))
    }

    /// Writes an object, and syncs it.
    ///
    /// # Errors
    /// The disk.
    pub fn put<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<()> {
        self.put_as(Kind::Keeps, table, key, value)
    }

    /// The same of what has to be written before something is removed.
    ///
    /// # Errors
    /// The disk.
    pub fn put_before_removal<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<()> {
        self.put_as(Kind::Frees, table, key, value)
    }

    fn put_as<T: Serialize>(&self, kind: Kind, table: Table, key: &str, value: &T) -> Result<()> {
        let bytes = encoded(table, key, value)?;
        self.write(kind, vec![(table, key.to_owned(), Some(bytes))])
            .map_err(|error| failed("writing", table, key, error.as_ref()))
    }

    /// Has the next write write this object, too: if the daemon is killed before that, it never was.
    ///
    /// # Errors
    /// It can't be encoded.
    pub fn put_with_next<T: Serialize>(&self, table: Table, key: &str, value: &T) -> Result<()> {
        let bytes = encoded(table, key, value)?;
        self.push(Kind::Keeps, vec![(table, key.to_owned(), Some(bytes))], None);
        Ok(())
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(&self, table: Table, key: &str) -> Result<()> {
        self.remove_from(&[table], key)
    }

    /// Removes the objects that have this key in these tables: all of them, or none.
    ///
    /// # Errors
    /// The disk.
    pub fn remove_from(&self, tables: &[Table], key: &str) -> Result<()> {
        self.write(Kind::Frees, tables.iter().map(|table| (*table, key.to_owned(), None)).collect())
            .map_err(|error| failed("removing", tables[0], key, error.as_ref()))
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

    fn push(&self, kind: Kind, changes: Vec<Change>, done: Option<Done>) {
        locked(&self.0.waiting).push(Waiting { changes, kind, done });
    }

    /// Whoever comes first commits what has come meanwhile, in its order; the others find theirs done.
    fn write(&self, kind: Kind, changes: Vec<Change>) -> std::result::Result<(), Arc<redb::Error>> {
        let done = Done::default();
        self.push(kind, changes, Some(Arc::clone(&done)));
        let _committing = locked(&self.0.committing);
        if let Some(done) = done.get() {
            return done.clone();
        }
        let mut all = std::mem::take(&mut *locked(&self.0.waiting));
        let mut result = self.with(|database| commit(database, &all)).map_err(Arc::new);
        if let Err(error) = &result
            && matches!(&**error, redb::Error::Io(error) if spare::is_full(error))
            && all.iter().any(|waiting| waiting.kind == Kind::Frees)
        {
            result = self.free(&mut all, Arc::clone(error));
        }
        let mut again = Vec::new();
        for waiting in all {
            match &waiting.done {
                Some(done) => drop(done.set(result.clone())),
                // Nobody hears of it who could do it again.
                None if result.is_err() => again.push(waiting),
                None => {}
            }
        }
        let mut waiting = locked(&self.0.waiting);
        drop(waiting.splice(..0, again));
        drop(waiting);
        done.get().cloned().unwrap_or(result)
    }

    /// The disk is full: what removes something is written with the room that was kept for it, all else has failed. What still waits
    /// has an older word on what is removed, which must not come after it.
    fn free(
        &self,
        all: &mut Vec<Waiting>,
        full: Arc<redb::Error>,
    ) -> std::result::Result<(), Arc<redb::Error>> {
        let (frees, mut keeps): (Vec<_>, Vec<_>) =
            std::mem::take(all).into_iter().partition(|waiting| waiting.kind == Kind::Frees);
        self.0.spare.give_up();
        let freed = self.with(|database| commit(database, &frees)).map_err(Arc::new);
        self.0.spare.take();
        let goes = |change: &Change| {
            let removed = |one: &Change| one.2.is_none() && one.0.0 == change.0.0 && one.1 == change.1;
            freed.is_ok() && frees.iter().flat_map(|waiting| &waiting.changes).any(removed)
        };
        for waiting in &mut keeps {
            waiting.changes.retain(|change| !goes(change));
        }
        for waiting in &frees {
            if let Some(done) = &waiting.done {
                drop(done.set(freed.clone()));
            }
        }
        *all = keeps;
        Err(full)
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

fn commit(database: &Database, all: &[Waiting]) -> std::result::Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for (table, key, value) in all.iter().flat_map(|waiting| &waiting.changes) {
        let mut open = transaction.open_table(table.definition())?;
        match value {
            Some(bytes) => drop(open.insert(key.as_str(), bytes.as_slice())?),
            None => drop(open.remove(key.as_str())?),
        }
    }
    Ok(transaction.commit()?)
}

fn encoded<T: Serialize>(table: Table, key: &str, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| failed("encoding", table, key, &error))
}

fn failed(action: &str, table: Table, key: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::internal(format_args!("{action} {}/{key} in the store", table.0), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    const THINGS: Table = Table("things");

    #[test]
    fn those_who_write_at_once_all_find_theirs_written() {
        let folder = Folder::new("store");
        let path = folder.path().join("store");
        let store = Store::open(&path).unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let store = &store;
                let _thread = scope.spawn(move || {
                    for turn in 0..8 {
                        store.put(THINGS, &format!("{number}"), &turn).unwrap();
                        store.put(THINGS, &format!("{number}-{turn}"), &number).unwrap();
                        store.remove(THINGS, &format!("{number}-{turn}")).unwrap();
                    }
                });
            }
        });
        drop(store);
        let all = Store::open(&path).unwrap().all::<u32>(THINGS).unwrap();
        assert_eq!(all, (0..8).map(|number| (number.to_string(), 7)).collect::<Vec<_>>());
    }

    #[test]
    fn what_waits_for_the_next_is_kept_with_it() {
        let folder = Folder::new("store-next");
        let store = Store::open(&folder.path().join("store")).unwrap();
        let keys =
            || -> Vec<String> { store.all::<u32>(THINGS).unwrap().into_iter().map(|(key, _)| key).collect() };
        store.put(THINGS, "old", &1).unwrap();
        store.put_with_next(THINGS, "new", &1).unwrap();
        assert_eq!(keys(), ["old"]);
        store.put(THINGS, "other", &1).unwrap();
        assert_eq!(keys(), ["new", "old", "other"]);
        store.remove_from(&[Table("others"), THINGS], "old").unwrap();
        assert_eq!(keys(), ["new", "other"]);
    }
}
