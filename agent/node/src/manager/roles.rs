//! Keeps raft's members as the nodes' roles say, and the nodes' roles as raft's members are. Level-triggered: everything is
//! seen in the store and in raft, so that a leader that died in the middle is followed by one that goes on.
//!
//! A promoted node asks for a manager's certificate and then to be let into raft ([`admission`](super::admission)); what is
//! left of that is finished here. A demoted one leaves raft first; only then is its role a worker's, and with it the
//! certificate that it is given.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::Node;
use ketch_cluster::objects::node::{Availability, ManagerStatus, NodeRole};
use ketch_cluster::store::{ObjectId, StoreAction};
use ketch_cluster::view::View;
use ketch_raft::{Member, MembersError};
use tokio::time::{sleep, timeout};

use super::changes::{Changes, Wake};
use super::error::ChangeError;
use super::leader::{Leader, PATIENCE};
use super::members::{may_go_without, successor};

/// It looks again at least so often: who answers is told by nothing else.
const LOOK: Duration = Duration::from_secs(3);
/// After a step that was taken.
const NEXT: Duration = Duration::from_millis(10);
/// After one that could not be.
const AGAIN: Duration = Duration::from_millis(500);

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// This member is of a node that is none any more, or is no manager.
    Remove(u64),
    /// The leader is to be no manager, or is drained.
    HandOver,
    /// The node's role, or place in raft, as it is.
    Write(Box<Node>),
}

/// Keeps them until it is dropped.
pub(super) async fn keep(leader: &Leader) {
    let mut changes = leader.changes();
    loop {
        let next = leader.view(|view| steps(view, &leader.log.members(), leader.log.me().raft_id));
        let mut pause = Pause::UntilSomethingChanges;
        for step in next {
            pause = pause.min(take(leader, &step).await);
        }
        match pause {
            Pause::Of(span) => sleep(span).await,
            Pause::UntilSomethingChanges => drop(timeout(LOOK, concerned(&mut changes)).await),
        }
    }
}

/// Until it looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pause {
    Of(Duration),
    UntilSomethingChanges,
}

/// All that differs between the nodes and raft. `me` is the leader.
pub(super) fn steps(view: &View<'_>, members: &[Member], me: u64) -> Vec<Step> {
    let is_to_go =
        |member: &&Member| view.node(member.peer.node).is_none_or(|node| node.spec.role == NodeRole::Worker);
    let mut steps: Vec<Step> = members
        .iter()
        .filter(is_to_go)
        .map(
            |member| {
                if member.peer.raft_id == me { Step::HandOver } else { Step::Remove(member.peer.raft_id) }
            },
        )
        .collect();
    let drained = |member: &&Member| {
        let node = view.node(member.peer.node);
        member.peer.raft_id == me && node.is_some_and(|it| it.spec.availability == Availability::Drain)
    };
    if steps.is_empty() && members.iter().any(|member| drained(&member)) {
        steps.push(Step::HandOver);
    }
    steps.extend(view.nodes().filter_map(|node| as_it_is(node, members)).map(Box::new).map(Step::Write));
    steps
}

/// The node with the role and the place that raft gives it, where it is written otherwise.
fn as_it_is(node: &Arc<Node>, members: &[Member]) -> Option<Node> {
    let voter = members.iter().find(|member| member.peer.node == node.id && member.is_voter);
    let is_member = members.iter().any(|member| member.peer.node == node.id);
    let place = |member: &Member| ManagerStatus {
        raft_id: member.peer.raft_id,
        address: member.peer.address.clone(),
    };
    let (role, manager) = match node.spec.role {
        NodeRole::Manager => (voter.map_or(node.role, |_| NodeRole::Manager), voter.map(place)),
        NodeRole::Worker if is_member => (node.role, voter.map(place)),
        NodeRole::Worker => (NodeRole::Worker, None),
    };
    let differs = role != node.role || manager != node.manager;
    differs.then(|| Node { role, manager, ..Node::clone(node) })
}

async fn take(leader: &Leader, step: &Step) -> Pause {
    // Raft's members change one at a time.
    let _held = leader.membership.lock().await;
    let taken = match step {
        Step::Remove(raft_id) => remove(leader, *raft_id).await,
        Step::HandOver => match successor(&leader.log, |node| may_lead(leader, node)) {
            Some(peer) => {
                leader.log.transfer_leadership(peer.raft_id, PATIENCE).await.map_err(|it| it.to_string())
            }
            // The only one that can lead does.
            None => return Pause::UntilSomethingChanges,
        },
        Step::Write(_) => record(leader).await.map_err(|error| error.to_string()),
    };
    match taken {
        Ok(()) => Pause::Of(NEXT),
        Err(why) => {
            tracing::debug!(?step, why, "managers can't be as they are to be yet");
            Pause::Of(AGAIN)
        }
    }
}

async fn remove(leader: &Leader, raft_id: u64) -> Result<(), String> {
    if !may_go_without(&leader.log.members(), raft_id) {
        return Err("too few of the other managers answer".to_owned());
    }
    match leader.log.remove(raft_id, PATIENCE).await {
        Ok(()) | Err(MembersError::Unknown(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn may_lead(leader: &Leader, node: NodeId) -> bool {
    leader.view(|view| {
        view.node(node).is_some_and(|node| {
            node.spec.role == NodeRole::Manager && node.spec.availability != Availability::Drain
        })
    })
}

/// Writes every node as raft has it, judged on what is committed by now. The caller holds raft's members.
pub(super) async fn record(leader: &Leader) -> Result<(), ChangeError<std::convert::Infallible>> {
    let members = leader.log.members();
    leader
        .change(|view, now, _| {
            let updated = view.nodes().filter_map(|node| as_it_is(node, &members)).map(|mut node| {
                node.meta.updated_at = now;
                StoreAction::Update(node.into())
            });
            Ok(((), updated.collect()))
        })
        .await
}

/// Returns at the next change of a node.
async fn concerned(changes: &mut Changes) {
    while let Some(wake) = changes.next().await {
        let is_of_node = match wake {
            Wake::Committed(committed) => {
                committed.changes.iter().any(|change| matches!(change.id(), Some(ObjectId::Node(_))))
            }
            Wake::Noted(_) => false,
            Wake::Everything => true,
        };
        if is_of_node {
            return;
        }
    }
    std::future::pending().await
}
