//! What other nodes ask of a manager, and who may: rights are checked here, by the caller's certificate and by what is
//! committed.

use std::sync::Arc;

use ketch_ca::identity::Identity;
use ketch_ca::root::BACKDATE;
use ketch_cluster::objects::Node;
use ketch_cluster::objects::node::NodeRole;
use ketch_raft::{Kind, ProposeError};

use super::Manager;
use super::error::ChangeError;
use super::leader::Leader;
use super::{admission, transport};
use crate::calls::{EnterAsked, JoinAsked, RenewAsked, Request, RootAsked, Roots, raft_kind};
use crate::wire::{Answer, Call, Refusal};
use crate::world::Caller;

impl Manager {
    /// Whether calls to this path are the manager's to answer.
    #[must_use]
    pub fn answers(path: &str) -> bool {
        [RootAsked::PATH, JoinAsked::PATH, RenewAsked::PATH, EnterAsked::PATH].contains(&path)
            || raft_kind(path).is_some()
    }

    /// Answers another node.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::Invalid`] for calls that are not the manager's.
    pub async fn answer(&self, call: Call) -> Result<Answer, Refusal> {
        if let Some(kind) = raft_kind(call.path()) {
            return self.raft(kind, &call).await;
        }
        match call.path() {
            RootAsked::PATH => Answer::of(&self.roots()?),
            JoinAsked::PATH => Answer::of(&admission::join(&*self.leading()?, call.read()?).await?),
            RenewAsked::PATH => {
                let caller = self.member(call.caller)?;
                let asked: RenewAsked = call.read()?;
                Answer::of(&admission::renew(&*self.leading()?, caller, &asked).await?)
            }
            EnterAsked::PATH => {
                let caller = self.manager(call.caller)?;
                Answer::of(&admission::enter(&*self.leading()?, caller, call.read()?).await?)
            }
            path => Err(Refusal::Invalid(format!("a manager knows no {path}"))),
        }
    }

    /// The caller as a node of this cluster that was not removed.
    ///
    /// # Errors
    /// [`Refusal::Denied`]: it is none.
    pub fn member(&self, caller: Caller) -> Result<Identity, Refusal> {
        let Caller::Member(identity) = caller else {
            return Err(Refusal::Denied("a certificate of this cluster is needed".to_owned()));
        };
        let until = self.log.read(|store| store.cluster()?.shut_out.get(&identity.node).copied());
        let shut_out = until.is_some_and(|until| self.world.now() <= until);
        if shut_out {
            return Err(Refusal::Denied(format!("node {} was removed from this cluster", identity.node)));
        }
        // No denial: a worker takes that for its removal.
        if identity.expires < self.world.now() {
            return Err(Refusal::Unavailable(format!(
                "the certificate of node {} has expired",
                identity.node
            )));
        }
        Ok(identity)
    }

    /// The caller as a manager by its certificate.
    ///
    /// # Errors
    /// [`Refusal::Denied`]: it is none.
    pub fn manager(&self, caller: Caller) -> Result<Identity, Refusal> {
        let identity = self.member(caller)?;
        match identity.role {
            NodeRole::Manager => Ok(identity),
            NodeRole::Worker => Err(Refusal::Denied("a manager's certificate is needed".to_owned())),
        }
    }

    /// This manager's leadership, or who leads instead.
    ///
    /// # Errors
    /// [`Refusal::NotLeader`].
    pub fn leading(&self) -> Result<Arc<Leader>, Refusal> {
        self.leader().ok_or_else(|| {
            let leader = self.leader_address().filter(|(node, _)| *node != self.me.node);
            Refusal::NotLeader { leader }
        })
    }

    /// By the certificate, and not one of before a demotion that is known here. Otherwise the own store says nothing: a manager
    /// that lags behind may not know the one yet that tells it.
    async fn raft(&self, kind: Kind, call: &Call) -> Result<Answer, Refusal> {
        let caller = self.manager(call.caller)?;
        if self.log.read(|store| store.node(caller.node).is_some_and(|node| is_demoted(node, &caller))) {
            return Err(Refusal::Denied(format!("node {} is no manager any more", caller.node)));
        }
        if call.head.uri.query() != Some(transport::query(self.me.raft_id).as_str()) {
            return Err(Refusal::Unavailable("this manager has another raft id now".to_owned()));
        }
        let answer = self.log.answer(kind, &call.body).await;
        answer.map(|bytes| Answer::Bytes(bytes.into())).map_err(|error| Refusal::Failed(error.to_string()))
    }

    /// While nodes are moved to another root it is the old one still: join tokens name it.
    fn roots(&self) -> Result<Roots, Refusal> {
        let cluster = self.cluster();
        let now = Some(self.world.now());
        let roots = cluster.map(|cluster| Roots { roots: cluster.root_ca.certificate.clone(), now });
        roots.ok_or_else(|| Refusal::Unavailable("this manager knows no cluster yet".to_owned()))
    }
}

/// Whether a manager's certificate is older than what made the node a worker. A worker that is promoted again, which this manager
/// may not know yet, has a newer one; the clocks of the leaders that signed the one and wrote the other may differ by as much as
/// certificates bear.
fn is_demoted(node: &Node, caller: &Identity) -> bool {
    let is_worker = node.role == NodeRole::Worker && node.spec.role == NodeRole::Worker;
    is_worker && caller.begins.after(BACKDATE).after(BACKDATE) < node.meta.updated_at
}

/// A change whose own refusal is one already.
pub(super) fn refused(error: ChangeError<Refusal>) -> Refusal {
    match error {
        ChangeError::Refused(refusal) => refusal,
        ChangeError::Store(error) => Refusal::Failed(error.to_string()),
        ChangeError::Lead(error) => error.into(),
    }
}

pub(super) fn not_proposed(error: ProposeError) -> Refusal {
    match error {
        ProposeError::NotLeader { leader } => {
            Refusal::NotLeader { leader: leader.map(|peer| (peer.node, peer.address)) }
        }
        ProposeError::NoQuorum => Refusal::NoQuorum,
        error => Refusal::Failed(error.to_string()),
    }
}
