//! What openraft is told about our types. Nothing of this leaves the crate or is stored: [`crate::record`] is what is.

use std::sync::Arc;

use ketch_cluster::objects::Version;
use ketch_cluster::store::{Change, StoreError};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;

use crate::Peer;
use crate::machine::Machine;
pub(crate) use crate::transaction::Transaction;

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Transaction,
        R = Outcome,
        Node = Peer,
        AsyncRuntime = Seeded,
);

/// Elections draw from the seed that the caller gave, so that a simulation's run is the same each time.
pub(crate) type Seeded = DeterministicRng<TokioRuntime>;

pub(crate) type Raft = openraft::Raft<Types, Machine>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type LeaderId = openraft::alias::LeaderIdOf<Types>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Payload = openraft::alias::PayloadOf<Types>;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

/// A transaction that entered the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// Its place in the log, and the version of what it wrote.
    pub version: Version,
    /// In the order in which they were made.
    pub changes: Vec<Change>,
}

/// What became of an entry when it was applied.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It was raft's own: a new leader's first, or a change of the members.
    Nothing,
    Committed(Arc<Committed>),
    Refused(StoreError),
}
