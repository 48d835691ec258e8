//! Who the managers are, as raft has it.

use std::time::Duration;

use ketch_cluster::control::{RaftMembers, Reachability};
use ketch_cluster::id::NodeId;
use ketch_raft::{ClusterLog, Member, Peer};

/// A voter that has not answered for so long is shown as unreachable.
const SILENCE: Duration = Duration::from_secs(3);

/// The leader as far as this manager knows: its node, and where it is.
pub(super) fn leader_of(log: &ClusterLog) -> Option<(NodeId, String)> {
    let leader = log.leadership().borrow().leader?;
    let member = log.members().into_iter().find(|member| member.peer.raft_id == leader)?;
    Some((member.peer.node, member.peer.address))
}

/// The voters, and whether the leader hears from each. On another manager all are unreachable but itself.
pub(super) fn raft_members(log: &ClusterLog) -> RaftMembers {
    let voters = log.members().into_iter().filter(|member| member.is_voter);
    let reachability = |silent: Option<Duration>| match silent {
        Some(silent) if silent < SILENCE => Reachability::Reachable,
        _ => Reachability::Unreachable,
    };
    voters.map(|member| (member.peer.node, reachability(member.silent))).collect()
}

/// The manager that is to lead instead of this leader: of the other voters that answer and may, the one furthest along.
pub(super) fn successor(log: &ClusterLog, may: impl Fn(NodeId) -> bool) -> Option<Peer> {
    let status = log.status();
    if !status.leadership.is_leader() {
        return None;
    }
    let members = log.members();
    let answers = |member: &&Member| {
        member.is_voter
            && Some(member.peer.raft_id) != status.leadership.leader
            && member.silent.is_some_and(|silent| silent < SILENCE)
            && may(member.peer.node)
    };
    let reached = |id: u64| status.replicated.iter().find(|(known, _)| *known == id).and_then(|(_, at)| *at);
    members.iter().filter(answers).max_by_key(|it| reached(it.peer.raft_id)).map(|it| it.peer.clone())
}

/// Whether so many voters are known to be silent that nothing can be committed.
pub(super) fn has_lost_quorum(log: &ClusterLog) -> bool {
    let members = log.members();
    let voters = || members.iter().filter(|member| member.is_voter);
    // One that has not answered yet may be about to.
    let left = voters().filter(|member| member.silent.is_none_or(|silent| silent < SILENCE)).count();
    left <= voters().count() / 2
}

/// Whether the voters that answer are a quorum of those that are left without this one.
pub(super) fn may_go_without(members: &[Member], raft_id: u64) -> bool {
    let left = || members.iter().filter(|member| member.is_voter && member.peer.raft_id != raft_id);
    let answering = left().filter(|member| member.silent.is_some_and(|silent| silent < SILENCE)).count();
    answering > left().count() / 2
}
