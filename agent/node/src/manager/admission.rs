//! Whom the leader lets in: nodes into the cluster, managers into raft; and the certificates that it gives. All of it is the
//! leader's, on a store that it knows to be the latest.

use std::time::Duration;

use ketch_ca::admission::{AdmissionError, JoinRequest, admit, role_of};
use ketch_ca::authority::{Authority, AuthorityError};
use ketch_ca::identity::Identity;
use ketch_ca::{compat, root};
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::node::{NodeRole, NodeStatus};
use ketch_cluster::objects::{Meta, Node, NodeSpec};
use ketch_cluster::store::StoreAction;
use ketch_raft::{Member, MembersError, Peer};

use super::leader::Leader;
use super::roles;
use crate::calls::{Certified, EnterAsked, Entered, JoinAsked, RenewAsked};
use crate::wire::Refusal;

/// How long a new manager may take to get the log before it is to ask again; it goes on meanwhile.
const CATCHING_UP: Duration = Duration::from_secs(15);
const CHANGE: Duration = Duration::from_secs(5);

/// Lets a node in, by its token.
pub(super) async fn join(leader: &Leader, asked: JoinAsked) -> Result<Certified, Refusal> {
    // Before the queue: a stranger with no token must cost nobody's turn.
    let is_known = leader.view(|view| {
        view.cluster().is_some_and(|it| role_of(&it.root_ca.join_tokens, &asked.token).is_some())
    });
    if !is_known {
        return Err(Refusal::Denied(compat::TOKEN_NEEDED.to_owned()));
    }
    let changed = leader
        .change(|view, now, bits| {
            let cluster = view.cluster().ok_or_else(no_cluster)?;
            let id = NodeId::of(bits());
            let request =
                JoinRequest { token: &asked.token, certificate_request: &asked.certificate_request };
            let admission = admit(cluster, request, id, now).map_err(not_admitted)?;
            let spec =
                NodeSpec { role: admission.role, availability: asked.availability, ..NodeSpec::default() };
            let node = Node {
                id,
                meta: Meta::new(now),
                spec,
                description: None,
                status: NodeStatus { since: now, ..NodeStatus::default() },
                role: admission.role,
                manager: None,
                attachments: Vec::new(),
            };
            let certified = Certified {
                node: id,
                role: admission.role,
                chain: admission.chain,
                roots: admission.roots,
                data_path_port: cluster.networking.data_path_port,
            };
            Ok((certified, vec![StoreAction::Create(node.into())]))
        })
        .await;
    changed.map_err(super::calls::refused)
}

fn not_admitted(error: AdmissionError) -> Refusal {
    match error {
        AdmissionError::Token => Refusal::Denied(compat::TOKEN_NEEDED.to_owned()),
        AdmissionError::Request(error) => Refusal::Invalid(format!("certificate request: {error}")),
        AdmissionError::Authority(error) => broken(&error),
    }
}

/// The next certificate of a node. Its role is a manager's as soon as it is to be one, and as long as raft has it.
pub(super) async fn renew(
    leader: &Leader,
    caller: Identity,
    asked: &RenewAsked,
) -> Result<Certified, Refusal> {
    leader.read().await?;
    let now = leader.now();
    leader.view(|view| {
        let cluster = view.cluster().ok_or_else(no_cluster)?;
        let node = view.node(caller.node).ok_or_else(|| removed(caller.node))?;
        let role = node.spec.role.max(node.role);
        let authority = Authority::of(cluster).map_err(|error| broken(&error))?;
        let chain = authority
            .issue(&asked.certificate_request, (node.id, role), now)
            .map_err(|error| Refusal::Invalid(format!("certificate request: {error}")))?;
        let data_path_port = cluster.networking.data_path_port;
        Ok(Certified { node: node.id, role, chain, roots: root::trusted(&cluster.root_ca), data_path_port })
    })
}

/// Lets a manager into raft. Asked again, it goes on from where it was.
pub(super) async fn enter(leader: &Leader, caller: Identity, asked: EnterAsked) -> Result<Entered, Refusal> {
    if asked.address.rsplit_once(':').is_none_or(|(host, _)| host.is_empty()) {
        return Err(Refusal::Invalid(format!("{:?} is no address of a manager", asked.address)));
    }
    leader.read().await?;
    let _held = leader.membership.lock().await;
    let spec = leader.view(|view| view.node(caller.node).map(|node| node.spec.role));
    match spec {
        None => return Err(removed(caller.node)),
        Some(NodeRole::Worker) => {
            return Err(Refusal::Denied(format!("node {} is to be no manager", caller.node)));
        }
        Some(NodeRole::Manager) => {}
    }
    let peer = Peer { raft_id: asked.raft_id, node: caller.node, address: asked.address };
    let members = leader.log.members();
    forget_others(leader, &members, &peer).await?;
    let known = members.into_iter().find(|member| member.peer.raft_id == peer.raft_id);
    take_in(leader, known, peer).await.map_err(refused)?;
    roles::record(leader).await?;
    Ok(Entered {})
}

/// What the node was in logs that it has no more: a member that never answers again.
async fn forget_others(leader: &Leader, members: &[Member], peer: &Peer) -> Result<(), Refusal> {
    let others =
        members.iter().map(|it| &it.peer).filter(|it| it.node == peer.node && it.raft_id != peer.raft_id);
    for other in others {
        leader.log.remove(other.raft_id, CHANGE).await.map_err(refused)?;
    }
    Ok(())
}

async fn take_in(leader: &Leader, known: Option<Member>, peer: Peer) -> Result<(), MembersError> {
    let log = &leader.log;
    let raft_id = peer.raft_id;
    match known {
        Some(known) if known.is_voter && known.peer == peer => return Ok(()),
        Some(known) if known.peer.address != peer.address => {
            log.move_peer(peer.clone(), CHANGE).await?;
            if known.is_voter {
                return Ok(());
            }
        }
        _ => {}
    }
    log.add_learner(peer, CATCHING_UP).await?;
    log.promote(raft_id, CHANGE).await
}

fn refused(error: MembersError) -> Refusal {
    match error {
        MembersError::Propose(error) => super::calls::not_proposed(error),
        MembersError::Taken { .. } => Refusal::Denied(error.to_string()),
        _ => Refusal::Failed(error.to_string()),
    }
}

fn removed(node: NodeId) -> Refusal {
    Refusal::Denied(format!("node {node} was removed from this cluster"))
}

fn no_cluster() -> Refusal {
    Refusal::Unavailable("this manager knows no cluster yet".to_owned())
}

fn broken(error: &AuthorityError) -> Refusal {
    Refusal::Failed(format!("the cluster's authority can't sign: {error}"))
}
