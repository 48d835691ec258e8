//! What is stored and sent, in types of our own: raft's may change with any version of it.
//!
//! JSON, because it names its fields: a newer version adds some with serde's defaults, and an older record still reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use ketch_cluster::id::NodeId;
use openraft::vote::RaftLeaderId as _;
use serde::{Deserialize, Serialize};

use crate::Peer;
use crate::consensus::{
    Entry, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Transaction, Vote,
};

/// A place in the log, and the leader that filled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogIdRecord {
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    pub(crate) term: u64,
    pub(crate) candidate: u64,
    /// A quorum has granted it.
    pub(crate) granted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct MembershipRecord {
    /// One set of voters; two while they change.
    pub(crate) voters: Vec<BTreeSet<u64>>,
    /// Voters and learners.
    pub(crate) peers: BTreeMap<u64, Peer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PayloadRecord {
    Blank,
    Transaction(Transaction),
    Membership(MembershipRecord),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EntryRecord {
    pub(crate) id: LogIdRecord,
    pub(crate) payload: PayloadRecord,
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) last: Option<LogIdRecord>,
    pub(crate) membership_at: Option<LogIdRecord>,
    pub(crate) membership: MembershipRecord,
    /// The last transaction in it that the store did not refuse.
    pub(crate) version: u64,
}

/// Whose disk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdentityRecord {
    pub(crate) raft_id: u64,
    pub(crate) node: NodeId,
}

impl From<&LogId> for LogIdRecord {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(id: LogIdRecord) -> Self {
        Self { leader_id: LeaderId::new(id.term, id.leader), index: id.index }
    }
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, candidate: vote.leader_id.node_id, granted: vote.committed }
    }
}

impl From<VoteRecord> for Vote {
    fn from(vote: VoteRecord) -> Self {
        Self { leader_id: LeaderId::new(vote.term, vote.candidate), committed: vote.granted }
    }
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            peers: membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = io::Error;

    fn try_from(record: MembershipRecord) -> io::Result<Self> {
        Self::new(record.voters, record.peers).map_err(io::Error::other)
    }
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        let payload = match &entry.payload {
            Payload::Blank => PayloadRecord::Blank,
            Payload::Normal(transaction) => PayloadRecord::Transaction(transaction.clone()),
            Payload::Membership(membership) => PayloadRecord::Membership(membership.into()),
        };
        Self { id: LogIdRecord::from(&entry.log_id), payload }
    }
}

impl EntryRecord {
    /// As raft has it.
    pub(crate) fn entry(self) -> io::Result<Entry> {
        let payload = match self.payload {
            PayloadRecord::Blank => Payload::Blank,
            PayloadRecord::Transaction(transaction) => Payload::Normal(transaction),
            PayloadRecord::Membership(membership) => Payload::Membership(membership.try_into()?),
        };
        Ok(Entry { log_id: self.id.into(), payload })
    }
}

impl SnapshotHead {
    pub(crate) fn of(last: Option<&LogId>, membership: &StoredMembership, version: u64) -> Self {
        Self {
            last: last.map(LogIdRecord::from),
            membership_at: membership.log_id().as_ref().map(LogIdRecord::from),
            membership: membership.membership().into(),
            version,
        }
    }

    pub(crate) fn meta(&self) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: self.last.map(LogId::from),
            last_membership: self.stored_membership()?,
        })
    }

    pub(crate) fn stored_membership(&self) -> io::Result<StoredMembership> {
        let membership = self.membership.clone().try_into()?;
        Ok(StoredMembership::new(self.membership_at.map(LogId::from), membership))
    }
}
