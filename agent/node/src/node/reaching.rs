//! A manager reaches containers of other nodes, for its users.

use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::time::sleep;

use super::{Lead, Node, NodeError};
use crate::calls::{ReachAsked, Target};
use crate::wire::{CallError, Destination, Refusal};
use crate::world::Expected;

/// How long the leader has to answer: it waits for the node itself.
const ANSWER: Duration = Duration::from_secs(12);
/// How often another leader is looked for.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// Why there is no way to a container.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// The node is no manager, or nobody leads.
    #[error(transparent)]
    NoLeader(#[from] NodeError),
    /// There is no such container in the cluster.
    #[error("{0}")]
    NotFound(String),
    /// It is not said clearly which one is meant.
    #[error("{0}")]
    Invalid(String),
    /// There may be one, and its node does not answer, or not now.
    #[error("{0}")]
    Unavailable(String),
}

impl Node {
    /// Opens a tunnel to the node that has what is named: one connection of its Engine API. Dropped, the tunnel ends.
    ///
    /// # Errors
    /// [`ReachError`].
    pub async fn reach(&self, target: Target) -> Result<DuplexStream, ReachError> {
        let own = self.managing()?.document().node;
        let asked = ReachAsked { target };
        for _ in 0..TRIES {
            let refusal = match self.lead().await? {
                Lead::Here(_, dispatcher) => match dispatcher.reach(own, &asked.target).await {
                    Ok(tunnel) => return Ok(tunnel),
                    Err(refusal) => refusal,
                },
                Lead::There(leader) => {
                    let to = Destination::member(leader.address.as_str(), Expected::Node(leader.node));
                    match self.links()?.tunnel(&to, &asked, ANSWER).await {
                        Ok(tunnel) => return Ok(tunnel),
                        Err(CallError::Refused(refusal)) => refusal,
                        Err(CallError::Dial(_)) => Refusal::NotLeader { leader: None },
                        Err(error) => return Err(ReachError::Unavailable(error.to_string())),
                    }
                }
            };
            match refusal {
                Refusal::NotLeader { .. } => sleep(PAUSE).await,
                Refusal::NotFound(text) => return Err(ReachError::NotFound(text)),
                Refusal::Invalid(text) => return Err(ReachError::Invalid(text)),
                refusal => return Err(ReachError::Unavailable(refusal.to_string())),
            }
        }
        Err(NodeError::NoLeader.into())
    }
}
