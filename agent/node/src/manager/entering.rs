//! How a manager gets into raft: it asks the leader, whoever that is, until it is in.

use std::time::Duration;

use ketch_cluster::objects::node::NodeRole;
use tokio::time::sleep;

use super::Manager;
use super::error::ManagerError;
use crate::calls::EnterAsked;
use crate::wire::{CallError, Destination, Refusal};
use crate::world::Expected;

/// The leader sends the log meanwhile.
const ANSWER: Duration = Duration::from_secs(40);
const AGAIN: Duration = Duration::from_millis(500);

impl Manager {
    /// Asks to be let into raft, first the manager at `address`, then whoever leads, until it is done. This node answers
    /// raft's calls already, by a manager's certificate.
    ///
    /// # Errors
    /// [`ManagerError::Denied`]: asking again is of no use.
    pub async fn enter(&self, address: &str) -> Result<(), ManagerError> {
        let asked = EnterAsked { raft_id: self.me.raft_id, address: self.me.address.clone() };
        let mut to = address.to_owned();
        loop {
            let destination = Destination::member(to.clone(), Expected::Role(NodeRole::Manager));
            match self.links.ask(&destination, &asked, ANSWER).await {
                Ok(_) => return Ok(()),
                Err(CallError::Refused(refusal @ (Refusal::Denied(_) | Refusal::Invalid(_)))) => {
                    return Err(ManagerError::Denied(refusal));
                }
                Err(error) => {
                    tracing::debug!(%to, %error, "this manager is not let into raft yet");
                    let leader = error.leader().flatten().filter(|leader| *leader != to);
                    let is_known = leader.is_some();
                    to = leader.unwrap_or(address).to_owned();
                    if !is_known {
                        sleep(AGAIN).await;
                    }
                }
            }
        }
    }
}
