//! What a node's object is to say of it, by what this leader has heard since it began. Pure: the writer asks for it when it
//! proposes, so that only the last of several verdicts on a node is written.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ketch_ca::identity::Identity;
use ketch_cluster::objects::Node;
use ketch_cluster::objects::node::{NodeDescription, NodeState, NodeStatus, NodeTls};
use ketch_cluster::time::Timestamp;

use super::texts;
use crate::calls::SessionAsked;

/// A node that was there for so long and then goes down does not flap.
const STAYS: Duration = Duration::from_secs(3600);

/// What a node said of itself when its session began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) description: NodeDescription,
    pub(super) address: String,
}

/// What this leader knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not registered since this leader began, but may still.
    Unheard,
    Here(Arc<Registration>),
    /// With the words for it.
    Down(&'static str),
}

impl Registration {
    /// Whose certificate signed it is the certificate's to say, which roots it trusts its own.
    pub(super) fn of(asked: &SessionAsked, caller: &Identity, from: &str) -> Self {
        let tls = NodeTls { issuer: caller.issuer, roots: asked.roots.iter().copied().collect() };
        let address = if asked.address.is_empty() { from } else { &asked.address };
        Self {
            description: NodeDescription { tls: Some(tls), ..asked.description.clone() },
            address: host_of(address),
        }
    }

    /// The same, when its connection shows another certificate by now.
    pub(super) fn with_issuer_of(&self, caller: &Identity) -> Option<Self> {
        let tls = self.description.tls.as_ref().filter(|tls| tls.issuer != caller.issuer)?;
        let tls = Some(NodeTls { issuer: caller.issuer, ..tls.clone() });
        Some(Self { description: NodeDescription { tls, ..self.description.clone() }, ..self.clone() })
    }
}

/// The node as it is to be written; none when it is so already.
pub(super) fn written(node: &Node, standing: &Standing, now: Timestamp) -> Option<Node> {
    let old = &node.status;
    let (state, message, registration) = match standing {
        Standing::Unheard if old.state == NodeState::Ready => (NodeState::Unknown, texts::UNHEARD, None),
        Standing::Down(message) if old.state != NodeState::Down => (NodeState::Down, *message, None),
        Standing::Unheard | Standing::Down(_) => return None,
        Standing::Here(registration) => (NodeState::Ready, "", Some(registration)),
    };
    let status = NodeStatus {
        state,
        message: message.to_owned(),
        address: registration.map_or_else(|| old.address.clone(), |it| it.address.clone()),
        since: if state == old.state { old.since } else { now },
        flaps: flaps(old, state, now),
    };
    let description =
        registration.map_or_else(|| node.description.clone(), |it| Some(it.description.clone()));
    if status == *old && description == node.description {
        return None;
    }
    let mut node = Node { status, description, ..node.clone() };
    node.meta.updated_at = now;
    Some(node)
}

/// One more when it goes down soon after it came; none of a node that has never gone. Of one that this leader has never heard nobody can
/// tell how long it had stayed, nor by a clock that was ahead: it counts as one that had.
fn flaps(old: &NodeStatus, state: NodeState, now: Timestamp) -> u32 {
    if state != NodeState::Down || old.state == NodeState::Down {
        return old.flaps;
    }
    let is_known = old.state == NodeState::Ready && !old.since.is_ahead_of(now);
    if is_known && now.since(old.since) < STAYS { old.flaps.saturating_add(1) } else { 1 }
}

/// The address without its port.
fn host_of(address: &str) -> String {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.ip().to_string();
    }
    match address.rsplit_once(':') {
        Some((host, _)) if address.parse::<IpAddr>().is_err() => host.to_owned(),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_goes_soon_after_it_came_flaps() {
        let hours = |count: u64| Timestamp::default().after(STAYS * u32::try_from(count).unwrap_or_default());
        let old = |state, flaps| NodeStatus { state, flaps, since: hours(10), ..NodeStatus::default() };
        let soon = hours(10).after(Duration::from_secs(60));
        assert_eq!(flaps(&old(NodeState::Ready, 0), NodeState::Down, soon), 1);
        assert_eq!(flaps(&old(NodeState::Ready, 3), NodeState::Down, soon), 4);
        assert_eq!(flaps(&old(NodeState::Ready, 3), NodeState::Down, hours(12)), 1, "it had stayed");
        assert_eq!(flaps(&old(NodeState::Down, 3), NodeState::Ready, soon), 3);
        assert_eq!(flaps(&old(NodeState::Ready, 3), NodeState::Unknown, soon), 3, "nobody has seen it go");
        assert_eq!(flaps(&old(NodeState::Unknown, 0), NodeState::Down, soon), 1);
        assert_eq!(
            flaps(&old(NodeState::Unknown, 7), NodeState::Down, soon),
            1,
            "it was lost with the leader"
        );
        assert_eq!(flaps(&old(NodeState::Ready, 7), NodeState::Down, hours(9)), 1, "a clock was set back");
    }

    #[test]
    fn an_address_loses_its_port() {
        for (given, host) in [
            ("10.0.0.1:2377", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("[fd00::1]:2377", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("node-1.example:2377", "node-1.example"),
            ("node-1", "node-1"),
            ("", ""),
        ] {
            assert_eq!(host_of(given), host, "{given}");
        }
    }
}
