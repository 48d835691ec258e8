//! `docker swarm join`, and the next certificate of a node that is in: from a manager, checked before it is believed.

use std::net::IpAddr;
use std::time::Duration;

use ketch_ca::admission::Admission;
use ketch_ca::identity::Identity;
use ketch_ca::join::{Joined, Joining, Requested};
use ketch_ca::root::BACKDATE;
use ketch_cluster::objects::node::Availability;
use ketch_cluster::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::error::NodeError;
use crate::calls::{Certified, JoinAsked, ManagerAddress, RenewAsked, RootAsked, Roots};
use crate::wire::{CallError, Destination, Links, Refusal};
use crate::world::{DialError, Terms};

/// What one manager is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the leader is looked for elsewhere.
const REDIRECTS: usize = 5;

/// Whose choice the address is that others reach a node at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Advertised {
    /// The user's.
    #[default]
    Given,
    /// The agent's, of the machine's own: when the machine has another one, it picks again.
    Picked,
}

/// What a node that joins was told.
#[derive(Clone)]
pub struct JoinOrder {
    pub listen: String,
    /// `host:port`; empty when it is to be found out.
    pub advertise: String,
    pub advertised: Advertised,
    /// Where the data plane's datagrams arrive; none: where the node is reached.
    pub data_address: Option<IpAddr>,
    /// Managers, one of which must answer.
    pub managers: Vec<String>,
    pub token: String,
    pub availability: Availability,
}

/// Without the token, so that no log line can have it.
impl std::fmt::Debug for JoinOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinOrder").field("managers", &self.managers).finish_non_exhaustive()
    }
}

/// A first certificate, and what came with it.
pub(super) struct Entry {
    pub(super) joined: Joined,
    /// Of the manager that gave it.
    pub(super) manager: String,
    pub(super) data_path_port: u16,
}

/// Gets the node's first certificate.
pub(super) async fn join(links: &Links, order: &JoinOrder, now: Timestamp) -> Result<Entry, NodeError> {
    Joining::new(&order.token).map_err(|error| NodeError::Invalid(error.to_string()))?;
    let mut last = NodeError::Invalid("at least 1 RemoteAddr is required to join".to_owned());
    for address in &order.managers {
        match join_at(links, order, address, now).await {
            Ok(joined) => return Ok(joined),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn join_at(
    links: &Links,
    order: &JoinOrder,
    address: &str,
    now: Timestamp,
) -> Result<Entry, NodeError> {
    let unverified = Destination { address: address.to_owned(), terms: Terms::Unverified };
    let answer = links.ask(&unverified, &RootAsked {}, PATIENCE).await;
    let Roots { roots, now: theirs } = answer.map_err(|error| named(address, error))?;
    let checked = Joining::new(&order.token)?.check_root(&roots, now)?;
    clocks_agree(address, theirs.unwrap_or(now), now)?;
    let terms = Terms::Joining(Arc::new(checked.trust()?));
    let (requested, token, certificate_request) = checked.request()?;
    let asked = JoinAsked { token, certificate_request, availability: order.availability };
    let mut address = address.to_owned();
    for _ in 0..REDIRECTS {
        let to = Destination { address: address.clone(), terms: terms.clone() };
        match links.ask(&to, &asked, PATIENCE * 2).await {
            Ok(certified) => {
                let data_path_port = certified.data_path_port;
                let joined = requested.accept(admission(certified), now)?;
                return Ok(Entry { joined, manager: address, data_path_port });
            }
            Err(error) => match error.leader() {
                Some(Some(leader)) if leader.address != address => address = leader.address,
                _ => return Err(named(&address, error)),
            },
        }
    }
    Err(NodeError::NoLeader)
}

/// Gets a member's next certificate, from one of these managers.
pub(super) async fn renew(
    links: &Links,
    managers: &[ManagerAddress],
    present: (Identity, &str),
    now: Timestamp,
) -> Result<Joined, NodeError> {
    let (identity, roots) = present;
    let (requested, certificate_request) = Requested::renewal(identity, roots)?;
    let asked = RenewAsked { certificate_request };
    let mut to_ask: Vec<_> = managers.iter().rev().cloned().collect();
    let mut last = NodeError::NoLeader;
    for _ in 0..managers.len() + REDIRECTS {
        let Some(manager) = to_ask.pop() else { break };
        match links.ask(&Destination::manager(&manager), &asked, PATIENCE * 2).await {
            Ok(certified) => return Ok(requested.accept(admission(certified), now)?),
            Err(error) => {
                let leader = error.leader().flatten();
                to_ask.extend(leader.filter(|leader| leader.address != manager.address));
                last = named(&manager.address, error);
            }
        }
    }
    Err(last)
}

/// Certificates begin an hour before they are signed. Two nodes that each differ from a third by half of that believe what the
/// other has signed.
fn clocks_agree(address: &str, theirs: Timestamp, ours: Timestamp) -> Result<(), NodeError> {
    let (behind, ahead) = (theirs.since(ours), ours.since(theirs));
    if behind.max(ahead) <= BACKDATE / 2 {
        return Ok(());
    }
    let (span, way) = if behind > ahead { (behind, "behind") } else { (ahead, "ahead of") };
    Err(NodeError::Refused(format!(
        "this node's clock is {} minutes {way} that of the manager at {address}: one of both is wrong, and certificates would not hold",
        span.as_secs() / 60
    )))
}

fn admission(certified: Certified) -> Admission {
    Admission { role: certified.role, chain: certified.chain, roots: certified.roots }
}

/// As users of `docker swarm join` read it.
fn named(address: &str, error: CallError) -> NodeError {
    match error {
        CallError::Dial(DialError::Foreign { .. }) => NodeError::Refused(format!(
            "{address} is not a manager of a ketch cluster: ketch joins no Docker swarm, and a Docker engine no ketch cluster"
        )),
        CallError::Dial(DialError::Unreachable { reason, .. }) => NodeError::Refused(format!(
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: {reason}\""
        )),
        CallError::Refused(Refusal::Denied(text)) => {
            NodeError::Refused(format!("rpc error: code = InvalidArgument desc = {text}"))
        }
        error @ CallError::Version { .. } => NodeError::Refused(error.to_string()),
        error => NodeError::from(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_an_hour_off_is_told() {
        let now = Timestamp(1_795_700_000_000_000_000);
        let half = Duration::from_secs(1800);
        let told = |theirs, ours| clocks_agree("10.0.0.1:2377", theirs, ours).map_err(|it| it.to_string());
        assert_eq!(told(now, now.after(half)), Ok(()));
        assert_eq!(told(now.after(half), now), Ok(()));
        let hour = now.after(Duration::from_secs(3600));
        assert_eq!(
            told(hour, now).unwrap_err(),
            "this node's clock is 60 minutes behind that of the manager at 10.0.0.1:2377: one of both is wrong, and certificates would not hold"
        );
        assert_eq!(
            told(now, hour).unwrap_err(),
            "this node's clock is 60 minutes ahead of that of the manager at 10.0.0.1:2377: one of both is wrong, and certificates would not hold"
        );
    }
}
