//! What a node reaches outside itself: the wall clock, randomness, other nodes, its disk. It has exactly two implementations:
//! the system's, and the simulation's.
//!
//! Connections come authenticated: the system's are TLS by certificates of the cluster, and who is at the other end is known
//! before the first byte of a call. What they carry is [`wire`](crate::wire)'s.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
pub use ketch_ca::CertificateDer;
use ketch_ca::folder::Folder;
use ketch_ca::identity::Identity;
use ketch_ca::key::NodeKey;
pub use ketch_ca::tls::Caller;
pub use ketch_ca::trust::{Expected, Trust};
use ketch_cluster::time::Timestamp;
use ketch_raft::SnapshotFiles;
use redb::StorageBackend;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::news::News;

/// One node's surroundings.
pub trait World: fmt::Debug + Send + Sync + 'static {
    /// The wall clock. It may be wrong and may jump: spans are measured by tokio's clock.
    fn now(&self) -> Timestamp;

    /// 128 random bits.
    fn bits(&self) -> u128;

    /// Connects to `address` (`host:port`). It has no time limit of its own: the caller drops it.
    fn dial(&self, address: &str, terms: Terms) -> BoxFuture<'static, Result<Box<dyn Stream>, DialError>>;

    /// Listens at `address` (`host:port`). Strangers are let in: they may make the calls of who joins.
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;

    /// From now on connections in both directions are made with these. Those that are open go on.
    fn adopt(&self, credentials: Credentials);

    /// The node's own part of the disk.
    fn disk(&self) -> Arc<dyn Disk>;

    /// Told to whoever listens here, if anybody does.
    fn announce(&self, _news: News) {}
}

/// A connection's bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// How a connection is made, and whom it must reach.
#[derive(Debug, Clone)]
pub enum Terms {
    /// **Any server is believed.** For the download of the roots, which are checked against a join token's digest.
    Unverified,
    /// A manager by these roots, without a certificate of one's own: of a node that joins.
    Joining(Arc<Trust>),
    /// Both by the certificates of [`World::adopt`].
    Member(Expected),
}

/// Who a node is to others, and whom it believes. Made anew whenever one of it changes.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub identity: Identity,
    /// Its certificate and what leads to a root; PEM.
    pub chain: String,
    pub key: Arc<NodeKey>,
    pub trust: Arc<Trust>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    #[error("{address} can't be reached: {reason}")]
    Unreachable { address: String, reason: String },
    /// The other end is not who was wanted, or does not believe this node.
    #[error("{address} is not trusted, or does not trust this node: {reason}")]
    Distrust { address: String, reason: String },
    /// The other end, which is who was wanted, says that this node was removed from the cluster. Only to be said of what it said
    /// after it had shown its certificate: tasks end by it, and before that anybody on the way may say anything.
    #[error("{address} says that this node was removed from the cluster")]
    ShutOut { address: String },
    /// Whatever listens there does not speak TLS as nodes of a cluster do.
    #[error("{address} is not a manager of a ketch cluster: {reason}")]
    Foreign { address: String, reason: String },
}

/// Where connections come in.
pub trait Listener: Send + 'static {
    /// The next one whose handshake has succeeded, with who it is from.
    ///
    /// # Errors
    /// Those after which there is no next one.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;

    /// Where it listens, with the port that the system chose when none was asked for.
    fn address(&self) -> String;
}

/// A connection that came in.
pub struct Accepted {
    pub stream: Box<dyn Stream>,
    pub caller: Caller,
    /// What it has shown: its own certificate first, then what leads to a root; none of a stranger.
    pub chain: Vec<CertificateDer<'static>>,
    /// Where it comes from: an IP address.
    pub address: String,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("caller", &self.caller).field("address", &self.address).finish()
    }
}

/// A node's own part of the disk. What it holds is gone after [`Disk::wipe`], which leaving a cluster calls.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// A database's file, made when there is none: `raft` is the manager's log, `tasks` the worker's store.
    ///
    /// # Errors
    /// What the disk says; the same for all below.
    fn database(&self, name: &str) -> io::Result<Storage>;
    /// The folder of raft's snapshots.
    fn snapshots(&self) -> io::Result<Arc<dyn SnapshotFiles>>;
    /// The folder of the node's keys and certificates.
    fn keys(&self) -> io::Result<Folder>;
    /// A small document, whole as it was last written; none when it was not.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Durable on return, and never half of it.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Removes the database and the snapshots of raft: of a node that is no manager any more.
    fn forget_log(&self) -> io::Result<()>;
    /// Removes all of it.
    fn wipe(&self) -> io::Result<()>;
}

/// A database's file, whosever it is.
#[derive(Debug)]
pub struct Storage(pub Box<dyn StorageBackend>);

impl StorageBackend for Storage {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}
