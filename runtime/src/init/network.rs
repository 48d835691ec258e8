//! A new network namespace, made by the runtime while the container's first process is at its mounts.
//!
//! Its making costs as much as all the mounts of a container together (0.45 ms: loopback, some thirty tables of sysctls),
//! and neither needs the other until sysfs is mounted. So where nothing stands against it ([`Plan::makes_network_meanwhile`])
//! the runtime unshares its own, sends it to the child and comes back. Used by [`super::parent`] and [`super::init`].

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use ketch_sys::{link, namespace};

use super::conversation::reached;
use super::namespaces::OpenNamespace;
use super::protocol::{Channel, Message, ProtocolError};
use super::{InitError, step};
use crate::plan::Plan;
use crate::spec::NamespaceType;

const OWN: &str = "/proc/self/ns/net";

/// The runtime's part.
#[derive(Debug)]
pub(super) struct NetworkMaker(Channel);

/// The child's part: a namespace that is on its way.
#[derive(Debug)]
pub(super) struct AwaitedNetwork(Channel);

/// The two parts, where the network namespace is to be made so. A channel of its own, since the namespace comes without
/// having been asked for.
pub(super) fn agree(plan: &Plan) -> Result<Option<(NetworkMaker, AwaitedNetwork)>, InitError> {
    if !plan.makes_network_meanwhile() {
        return Ok(None);
    }
    let (ours, theirs) = Channel::pair().map_err(step("creating the network's channel"))?;
    Ok(Some((NetworkMaker(ours), AwaitedNetwork(theirs))))
}

impl NetworkMaker {
    /// Makes the namespace with its loopback interface up, and hands it over. This process is in its own again afterwards,
    /// whatever failed; what a child that is gone has said on its `channel` is the error then.
    pub(super) fn make(self, channel: &Channel) -> Result<(), InitError> {
        let own = OpenNamespace::open(NamespaceType::Network, Path::new(OWN))?;
        namespace::unshare(namespace::NEW_NET).map_err(step("creating the network namespace"))?;
        let made = link::bring_up_loopback()
            .map_err(step("bringing up the loopback interface"))
            .and_then(|()| OpenNamespace::open(NamespaceType::Network, Path::new(OWN)));
        own.join()?;
        reached(channel, self.0.send_with(&Message::Network, &[made?.fd.as_fd()]))
    }
}

impl AwaitedNetwork {
    /// Waits for the namespace and enters it.
    pub(super) fn enter(self) -> Result<(), InitError> {
        let (message, mut fds) = self.0.receive()?.ok_or(ProtocolError::Ended)?;
        if message != Message::Network {
            return Err(ProtocolError::Unexpected { found: message, expected: "Network" }.into());
        }
        let namespace = fds.pop().ok_or(ProtocolError::Ended)?;
        namespace::join(&namespace, namespace::NEW_NET)
            .map_err(|source| InitError::Join { kind: NamespaceType::Network.name(), source })
    }
}

impl AsFd for AwaitedNetwork {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
