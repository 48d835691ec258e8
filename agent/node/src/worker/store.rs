//! What the worker must not forget: its tasks as the latest assignment has them, what each has come to, the networks, the
//! managers. It decides nothing.
//!
//! Everything is written before it is acted on or told; what is written at the same time is one transaction, with one sync. A
//! disk that fails is opened anew until it takes what waits: whoever waits for a write goes no further meanwhile.
//! Secrets, configs, data keys and credentials of registries are never written.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::assignment::{Item, ItemId};
use ketch_cluster::id::TaskId;
use ketch_cluster::time::Timestamp;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::kept::{KeptTask, KeptWord};
use crate::calls::ManagerAddress;
use crate::world::Disk;

const NAME: &str = "tasks";
/// Of redb's pages in memory.
const CACHE: usize = 4 << 20;
/// So many writes at most wait for one sync.
const MOST_WRITES: usize = 256;
/// Until a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(3);

const MANAGERS: &[u8] = b"managers";
const CONTACT: &[u8] = b"contact";

/// The worker's disk can't be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("the worker's store can't be opened: {0}")]
    Io(#[from] io::Error),
    #[error("the worker's store can't be read or written: {0}")]
    Database(#[from] redb::Error),
    #[error("a record of the worker's store can't be read: {0}")]
    Record(#[from] serde_json::Error),
}

macro_rules! from_redb {
    ($($error:ident),+) => {$(
        impl From<redb::$error> for WorkerError {
            fn from(error: redb::$error) -> Self {
                Self::Database(error.into())
            }
        }
    )+};
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError, SetDurabilityError);

/// A key and its value.
type Record = (Vec<u8>, Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Tasks,
    Words,
    Items,
    State,
}

impl Table {
    const ALL: [Self; 4] = [Self::Tasks, Self::Words, Self::Items, Self::State];

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(match self {
            Self::Tasks => "tasks",
            Self::Words => "words",
            Self::Items => "items",
            Self::State => "state",
        })
    }
}

/// One record as it is to be; without a value it is to be gone.
#[derive(Debug)]
pub(super) struct Row {
    table: Table,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Row {
    pub(super) fn task(kept: &KeptTask) -> Self {
        Self::put(Table::Tasks, key_of(kept.task.id), kept)
    }

    pub(super) fn word(task: TaskId, kept: &KeptWord) -> Self {
        Self::put(Table::Words, key_of(task), kept)
    }

    /// Both records of a task.
    pub(super) fn forget(task: TaskId) -> Vec<Self> {
        let gone = |table| Self { table, key: key_of(task), value: None };
        vec![gone(Table::Tasks), gone(Table::Words)]
    }

    pub(super) fn item(item: &Item) -> Self {
        Self::put(Table::Items, json(&item.id()), item)
    }

    pub(super) fn no_item(id: ItemId) -> Self {
        Self { table: Table::Items, key: json(&id), value: None }
    }

    pub(super) fn managers(managers: &[ManagerAddress]) -> Self {
        Self::put(Table::State, MANAGERS.to_vec(), &managers)
    }

    /// When a manager was last heard, by this node's wall clock.
    pub(super) fn contact(at: Timestamp) -> Self {
        Self::put(Table::State, CONTACT.to_vec(), &at)
    }

    fn put(table: Table, key: Vec<u8>, value: &impl Serialize) -> Self {
        Self { table, key, value: Some(json(value)) }
    }
}

fn key_of(task: TaskId) -> Vec<u8> {
    task.bits().to_be_bytes().to_vec()
}

/// Of types of which each value has a JSON.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// All of it, as it was when the worker began.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) tasks: Vec<KeptTask>,
    pub(super) words: BTreeMap<TaskId, KeptWord>,
    pub(super) items: Vec<Item>,
    pub(super) managers: Vec<ManagerAddress>,
    pub(super) contact: Option<Timestamp>,
}

#[derive(Debug)]
struct Write {
    rows: Vec<Row>,
    done: oneshot::Sender<()>,
}

/// Where the parts of the worker write.
#[derive(Debug, Clone)]
pub(super) struct TaskStore(mpsc::UnboundedSender<Write>);

/// Writes it.
#[derive(Debug)]
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    database: Option<Arc<Database>>,
    writes: mpsc::UnboundedReceiver<Write>,
}

/// Opens the store, and reads it.
pub(super) fn open(disk: Arc<dyn Disk>) -> Result<(TaskStore, Writer, Contents), WorkerError> {
    let database = open_database(&*disk)?;
    let contents = read(&database)?;
    let (sender, writes) = mpsc::unbounded_channel();
    let writer = Writer { disk, database: Some(Arc::new(database)), writes };
    Ok((TaskStore(sender), writer, contents))
}

impl TaskStore {
    /// Durable on return. What was asked for before is durable then too. It does not return when the worker ends meanwhile:
    /// then it is not known.
    pub(super) async fn write(&self, rows: Vec<Row>) {
        if rows.is_empty() {
            return;
        }
        let (done, written) = oneshot::channel();
        let sent = self.0.send(Write { rows, done });
        if sent.is_err() || written.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Durable soon. For what is worth no waiting.
    pub(super) fn note(&self, row: Row) {
        // Nobody is told when it is written, or when the worker ends before.
        let _ = self.0.send(Write { rows: vec![row], done: oneshot::channel().0 });
    }
}

impl Writer {
    pub(super) async fn run(mut self) {
        let mut batch = Vec::new();
        while self.writes.recv_many(&mut batch, MOST_WRITES).await > 0 {
            let (rows, done): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|write| (write.rows, write.done)).unzip();
            self.commit(Arc::new(rows)).await;
            for done in done {
                // One that waits no more does not mind.
                let _ = done.send(());
            }
        }
    }

    async fn commit(&mut self, rows: Arc<Vec<Vec<Row>>>) {
        while let Err(error) = self.try_commit(Arc::clone(&rows)).await {
            tracing::error!(%error, "what the node's tasks do can't be kept; it is tried again");
            self.database = None;
            sleep(RETRY).await;
        }
    }

    async fn try_commit(&mut self, rows: Arc<Vec<Vec<Row>>>) -> Result<(), WorkerError> {
        let database = match &self.database {
            Some(database) => Arc::clone(database),
            None => Arc::clone(self.database.insert(Arc::new(open_database(&*self.disk)?))),
        };
        let work = move || write(&database, rows.iter().flatten());
        // On a runtime of one thread, which is the simulation's, there is one order of events.
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return work();
        }
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }
}

fn open_database(disk: &dyn Disk) -> Result<Database, WorkerError> {
    let database = Database::builder().set_cache_size(CACHE).create_with_backend(disk.database(NAME)?)?;
    write(&database, std::iter::empty())?;
    Ok(database)
}

fn write<'r>(database: &Database, rows: impl Iterator<Item = &'r Row>) -> Result<(), WorkerError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    for table in Table::ALL {
        transaction.open_table(table.definition())?;
    }
    for row in rows {
        let mut table = transaction.open_table(row.table.definition())?;
        match &row.value {
            Some(value) => drop(table.insert(row.key.as_slice(), value.as_slice())?),
            None => drop(table.remove(row.key.as_slice())?),
        }
    }
    Ok(transaction.commit()?)
}

fn read(database: &Database) -> Result<Contents, WorkerError> {
    let transaction = database.begin_read()?;
    let rows = |table: Table| -> Result<Vec<Record>, WorkerError> {
        let table = transaction.open_table(table.definition())?;
        let rows =
            table.iter()?.map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())));
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let mut contents = Contents { tasks: values(rows(Table::Tasks)?)?, ..Contents::default() };
    contents.items = values(rows(Table::Items)?)?;
    for (key, value) in rows(Table::Words)? {
        if let Ok(bits) = <[u8; 16]>::try_from(key.as_slice()) {
            contents.words.insert(TaskId::of(u128::from_be_bytes(bits)), serde_json::from_slice(&value)?);
        }
    }
    for (key, value) in rows(Table::State)? {
        match key.as_slice() {
            MANAGERS => contents.managers = serde_json::from_slice(&value)?,
            CONTACT => contents.contact = Some(serde_json::from_slice(&value)?),
            _ => {}
        }
    }
    Ok(contents)
}

fn values<T: DeserializeOwned>(rows: Vec<Record>) -> Result<Vec<T>, WorkerError> {
    Ok(rows.into_iter().map(|(_, value)| serde_json::from_slice(&value)).collect::<Result<_, _>>()?)
}
