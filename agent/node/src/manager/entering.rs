//! How a manager gets into raft: it asks the leader, whoever that is, until it is in.

use std::time::Duration;

use tokio::time::sleep;

use super::Manager;
use super::error::ManagerError;
use crate::calls::{EnterAsked, ManagerAddress};
use crate::wire::{CallError, Destination, Refusal};

/// The leader sends the log meanwhile.
const ANSWER: Duration = Duration::from_secs(40);
const AGAIN: Duration = Duration::from_millis(500);

impl Manager {
    /// Asks to be let into raft, that manager first, then whoever leads, until it is done. This node answers
    /// raft's calls already, by a manager's certificate.
    ///
    /// # Errors
    /// [`ManagerError::Denied`]: asking again is of no use.
    pub async fn enter(&self, first: &ManagerAddress) -> Result<(), ManagerError> {
        let asked = EnterAsked { raft_id: self.me.raft_id, address: self.me.address.clone() };
        let mut to = first.clone();
        let mut was_led = false;
        loop {
            match self.links.ask(&Destination::manager(&to), &asked, ANSWER).await {
                Ok(_) => return Ok(()),
                Err(CallError::Refused(refusal @ (Refusal::Denied(_) | Refusal::Invalid(_)))) => {
                    return Err(ManagerError::Denied(refusal));
                }
                Err(error) => {
                    tracing::debug!(to = to.address, %error, "this manager is not let into raft yet");
                    let leader = error.leader().flatten().filter(|leader| leader.address != to.address);
                    // Once, or two managers that take each other for the leader would be asked without a rest.
                    let rests = was_led || leader.is_none();
                    was_led = !rests;
                    to = leader.unwrap_or_else(|| first.clone());
                    if rests {
                        sleep(AGAIN).await;
                    }
                }
            }
        }
    }
}
