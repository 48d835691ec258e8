//! Who takes part: all calls are the leader's, one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::error::{ChangeMembershipError, ClientWriteError, InitializeError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, Instant as _};
use tokio::time::timeout;

use crate::carried::carried;
use crate::cluster_log::not_leader;
use crate::consensus::{Raft, Types};
use crate::{ClusterLog, Leadership, Peer, ProposeError};

/// Why the members did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// As of a proposal: not the leader, no quorum, stopped, or not known whether it was done.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// Another change is not committed yet: try again later.
    #[error("the managers are changing already")]
    Busy,
    #[error("raft id {0} is of no manager of this cluster")]
    Unknown(u64),
    #[error("raft id {raft_id} belongs to node {node}")]
    Taken { raft_id: u64, node: String },
    #[error("the last manager can't be removed")]
    Last,
    #[error("this manager is part of a cluster already")]
    Founded,
    #[error("the managers can't change so: {0}")]
    Invalid(String),
}

/// Who takes part, as of the last membership in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub peer: Peer,
    /// Or it only receives, until it has caught up.
    pub is_voter: bool,
    /// How long ago it has answered the leader last; zero of the one that is asked. None when this manager does not lead, or
    /// it has never answered.
    pub silent: Option<Duration>,
}

type Written = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

impl ClusterLog {
    /// Starts a new cluster with this manager as its only voter, and returns once it leads.
    ///
    /// # Errors
    /// [`MembersError::Founded`] when the disk knows a cluster.
    pub async fn found(&self, within: Duration) -> Result<(), MembersError> {
        let members = BTreeMap::from([(self.me.raft_id, self.me.clone())]);
        let founded = carried(&self.raft, |raft| async move { raft.initialize(members).await });
        founded.await.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => MembersError::Founded,
            RaftError::APIError(other) => MembersError::Invalid(other.to_string()),
            RaftError::Fatal(fatal) => MembersError::from(ProposeError::Stopped(fatal.to_string())),
        })?;
        let mut leadership = self.leadership();
        let leads = timeout(within, leadership.wait_for(Leadership::is_leader)).await;
        leads
            .map_err(|_| ProposeError::Uncertain)?
            .map_err(|_| ProposeError::Stopped("it ended".to_owned()))?;
        // The first membership is committed then: no change is in progress.
        Ok(self.barrier(within).await?)
    }

    /// Lets a new manager receive the log, and returns once it has it. It does not vote yet.
    ///
    /// # Errors
    /// [`MembersError`]; after [`ProposeError::Uncertain`] it may be in and only slow.
    pub async fn add_learner(&self, peer: Peer, within: Duration) -> Result<(), MembersError> {
        self.expect_same_node(&peer)?;
        let id = peer.raft_id;
        self.changed(within, |raft| async move { raft.add_learner(id, peer, true).await }).await
    }

    /// Makes a voter of a learner.
    ///
    /// # Errors
    /// [`MembersError`].
    pub async fn promote(&self, raft_id: u64, within: Duration) -> Result<(), MembersError> {
        self.expect_known(raft_id)?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([raft_id]));
        self.changed(within, |raft| async move { raft.change_membership(change, true).await }).await
    }

    /// Removes a voter or a learner. A leader that removes itself hands over to another.
    ///
    /// # Errors
    /// [`MembersError`].
    pub async fn remove(&self, raft_id: u64, within: Duration) -> Result<(), MembersError> {
        self.expect_known(raft_id)?;
        let members = BTreeSet::from([raft_id]);
        let voters = self.status().voters;
        let change = match voters.as_slice() {
            [last] if *last == raft_id => return Err(MembersError::Last),
            voters if voters.contains(&raft_id) => ChangeMembers::RemoveVoters(members),
            _ => ChangeMembers::RemoveNodes(members),
        };
        self.changed(within, |raft| async move { raft.change_membership(change, false).await }).await
    }

    /// Records where a manager is now. It keeps its raft id and its key.
    ///
    /// # Errors
    /// [`MembersError`].
    pub async fn move_peer(&self, peer: Peer, within: Duration) -> Result<(), MembersError> {
        self.expect_known(peer.raft_id)?;
        self.expect_same_node(&peer)?;
        let change = ChangeMembers::SetNodes(BTreeMap::from([(peer.raft_id, peer)]));
        self.changed(within, |raft| async move { raft.change_membership(change, true).await }).await
    }

    /// Hands the leadership to a voter, and returns once it leads.
    ///
    /// # Errors
    /// [`ProposeError::Uncertain`] when it does not lead in time: it may still.
    pub async fn transfer_leadership(&self, to: u64, within: Duration) -> Result<(), MembersError> {
        self.expect_known(to)?;
        let mut leadership = self.leadership();
        let now = *leadership.borrow_and_update();
        if !now.is_leader() {
            return Err(ProposeError::NotLeader { leader: now.leader.and_then(|id| self.member(id)) }.into());
        }
        let stopped = |error: String| MembersError::from(ProposeError::Stopped(error));
        let asked = carried(&self.raft, |raft| async move { raft.trigger().transfer_leader(to).await });
        asked.await.map_err(|fatal| stopped(fatal.to_string()))?;
        let leads = leadership.wait_for(|now| now.leader == Some(to));
        match timeout(within, leads).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(closed)) => Err(stopped(closed.to_string())),
            Err(_) => Err(ProposeError::Uncertain.into()),
        }
    }

    /// Who takes part, in the order of their raft ids.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let heard = |id: &u64| metrics.heartbeat.as_ref()?.get(id).copied().flatten();
        let member = |(id, peer): (&u64, &Peer)| Member {
            peer: peer.clone(),
            is_voter: voters.contains(id),
            silent: if *id == self.me.raft_id {
                Some(Duration::ZERO)
            } else {
                heard(id).map(|at| at.elapsed())
            },
        };
        membership.nodes().map(member).collect()
    }

    /// A member as of the last membership in the log.
    fn member(&self, raft_id: u64) -> Option<Peer> {
        self.raft.metrics().borrow_watched().membership_config.get_node(&raft_id).cloned()
    }

    async fn changed<F>(&self, within: Duration, change: impl FnOnce(Raft) -> F) -> Result<(), MembersError>
    where
        F: Future<Output = Written> + Send + 'static,
    {
        let written =
            timeout(within, carried(&self.raft, change)).await.map_err(|_| ProposeError::Uncertain)?;
        written.map(|_| ()).map_err(|error| match error {
            RaftError::Fatal(fatal) => ProposeError::Stopped(fatal.to_string()).into(),
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => not_leader(forward).into(),
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Uncertain.into(),
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                    MembersError::Busy
                }
                ChangeMembershipError::EmptyMembership(_) => MembersError::Last,
                ChangeMembershipError::LearnerNotFound(missing) => MembersError::Unknown(missing.node_id),
                other => MembersError::Invalid(other.to_string()),
            },
            RaftError::APIError(other) => MembersError::Invalid(other.to_string()),
        })
    }

    fn expect_known(&self, raft_id: u64) -> Result<(), MembersError> {
        self.member(raft_id).map(|_| ()).ok_or(MembersError::Unknown(raft_id))
    }

    /// A raft id is one node's for ever: another behind it would vote a second time.
    fn expect_same_node(&self, peer: &Peer) -> Result<(), MembersError> {
        match self.member(peer.raft_id) {
            Some(known) if known.node != peer.node => {
                Err(MembersError::Taken { raft_id: peer.raft_id, node: known.node.to_string() })
            }
            _ => Ok(()),
        }
    }
}
