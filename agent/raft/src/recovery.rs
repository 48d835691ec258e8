//! A new cluster out of what one disk holds, when the other managers are lost for good.

use std::collections::{BTreeMap, BTreeSet};

use redb::Durability;

use crate::Peer;
use crate::disk::{Disk, DiskError, State};
use crate::record::{EntryRecord, LogIdRecord, MembershipRecord, PayloadRecord, SnapshotHead, VoteRecord};

/// Makes `me` the only voter. Everything readable on the disk counts as committed, whether a quorum had it or not: nobody
/// is left who could say otherwise. What comes after a damaged entry is cut off. Done twice, it is done again.
pub(crate) fn make_sole_voter(
    disk: &Disk,
    snapshot: Option<&SnapshotHead>,
    me: &Peer,
) -> Result<(), DiskError> {
    disk.truncate(disk.readable_before()?)?;
    skip_to_snapshot(disk, snapshot.and_then(|head| head.last))?;
    let last = disk.last()?;
    let voted = or_nothing(disk.state::<VoteRecord>(State::Vote))?;
    let term = voted.map(|vote| vote.term).max(last.map(|last| last.term)).unwrap_or(0) + 1;
    disk.put(
        State::Vote,
        &VoteRecord { term, candidate: me.raft_id, granted: false },
        Durability::Immediate,
    )?;
    let id = LogIdRecord { term, leader: me.raft_id, index: last.map_or(0, |last| last.index + 1) };
    disk.append(&[EntryRecord { id, payload: PayloadRecord::Membership(sole(me)) }])?;
    disk.put(State::Committed, &id, Durability::Immediate)
}

/// A log that ends before the snapshot does was not cut yet when the manager stopped.
fn skip_to_snapshot(disk: &Disk, snapshot: Option<LogIdRecord>) -> Result<(), DiskError> {
    let Some(end) = snapshot else { return Ok(()) };
    if disk.last()? >= Some(end) {
        return Ok(());
    }
    disk.truncate(0)?;
    disk.purge(end)
}

/// A damaged record of the lost cluster's agreements binds nobody any more.
fn or_nothing<T>(record: Result<Option<T>, DiskError>) -> Result<Option<T>, DiskError> {
    match record {
        Err(DiskError::Damaged { .. }) => Ok(None),
        other => other,
    }
}

fn sole(me: &Peer) -> MembershipRecord {
    MembershipRecord {
        voters: vec![BTreeSet::from([me.raft_id])],
        peers: BTreeMap::from([(me.raft_id, me.clone())]),
    }
}
