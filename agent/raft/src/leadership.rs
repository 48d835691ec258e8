//! Who leads, and how far the log is.

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use tokio::sync::watch;

use crate::consensus::{Raft, Types};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Of no cluster yet, or it only receives.
    Learner,
    Follower,
    Candidate,
    Leader,
    /// The log was shut down, or its disk failed: nothing more will come.
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    pub role: Role,
    /// Grows with every election; two leaders have different pairs of term and id.
    pub term: u64,
    /// The raft id of the leader, as far as this manager knows.
    pub leader: Option<u64>,
}

/// Figures for metrics and `docker info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub leadership: Leadership,
    /// Indexes in the log: of the last entry here, the last that a quorum has, the last in the store.
    pub last: Option<u64>,
    pub committed: Option<u64>,
    pub applied: Option<u64>,
    /// The last entry in the snapshot, and the last that is only there.
    pub snapshot: Option<u64>,
    pub purged: Option<u64>,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    /// On the leader, each peer with the last entry that it is known to have.
    pub replicated: Vec<(u64, Option<u64>)>,
}

impl Leadership {
    fn of(metrics: &RaftServerMetrics<Types>) -> Self {
        Self { role: role(metrics.state), term: metrics.vote.leader_id.term, leader: metrics.current_leader }
    }

    /// Whether this manager leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

/// Follows raft until it ends.
pub(crate) fn follow(raft: &Raft) -> watch::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let now = Leadership::of(&metrics.borrow_watched());
    let (sender, receiver) = watch::channel(now);
    tokio::spawn(async move {
        while metrics.changed().await.is_ok() {
            let now = Leadership::of(&metrics.borrow_watched());
            sender.send_if_modified(|known| std::mem::replace(known, now) != now);
        }
        sender.send_modify(|known| *known = Leadership { role: Role::Stopped, leader: None, ..*known });
    });
    receiver
}

impl Status {
    pub(crate) fn of(metrics: &RaftMetrics<Types>) -> Self {
        let leadership = Leadership {
            role: if metrics.running_state.is_ok() { role(metrics.state) } else { Role::Stopped },
            term: metrics.current_term,
            leader: metrics.current_leader,
        };
        let membership = metrics.membership_config.membership();
        let replication = metrics.replication.iter().flatten();
        Self {
            leadership,
            last: metrics.last_log_index,
            committed: metrics.local_committed.as_ref().map(|id| id.index),
            applied: metrics.last_applied.as_ref().map(|id| id.index),
            snapshot: metrics.snapshot.as_ref().map(|id| id.index),
            purged: metrics.purged.as_ref().map(|id| id.index),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            replicated: replication.map(|(id, log)| (*id, log.as_ref().map(|log| log.index))).collect(),
        }
    }
}
