//! The cluster's replicated log: transactions of `ketch-cluster`'s store, in one order on every manager.
//!
//! It owns consensus (openraft, which no other crate names), the log's records on disk, the snapshots and the state
//! machine, which is [`Store`](ketch_cluster::store::Store) in memory. It decides nothing about the cluster's objects, opens no socket and
//! no file of the log by itself, and takes randomness and time limits as arguments: `ketchd`'s manager brings the
//! system's, the simulation its own. See `DESIGN.md` beside this folder.

mod answers;
mod blocking;
mod carried;
mod cluster_log;
mod consensus;
mod disk;
mod files;
mod leadership;
mod log_store;
mod machine;
mod members;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
mod network;
mod notices;
mod peer;
mod recent;
mod record;
mod recovery;
mod resealing;
mod rounds;
mod seal;
mod settings;
mod snapshot;
mod transaction;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

pub use answers::AnswerError;
pub use blocking::Blocking;
pub use cluster_log::{ClusterLog, OpenError, ProposeError};
pub use consensus::Committed;
pub use disk::DiskError;
pub use files::{Folder, SnapshotFiles, SnapshotSink};
pub use leadership::{Leadership, Role, Status};
pub use members::{Member, MembersError};
pub use notices::{Notice, Notices};
pub use peer::Peer;
pub use seal::{DataKeys, Entropy};
pub use settings::{Retention, Settings, Start, Timing, World};
pub use snapshot::format::SnapshotError;
pub use transport::{Call, Kind, Transport, TransportError};
pub use wire::WireError;
