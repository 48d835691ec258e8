//! Who has which address of a network, counted as objects enter and leave: the allocator asks here for one address, and
//! needs no walk over the tasks of a network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::object::Object;
use crate::fault::Fault;
use crate::id::{NetworkId, NodeId};
use crate::objects::{Endpoint, NetworkAttachment, Task, TaskState};

const FIRST: NetworkId = NetworkId::of(0);
const LAST: NetworkId = NetworkId::of(u128::MAX);

/// How many objects name an address as theirs or as their service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holders {
    /// Services, nodes, and tasks that may still run. A service's virtual address is held by its tasks as well, which were
    /// told of it: it is not free while one of them runs.
    pub live: u64,
    /// Tasks that have ended, but are still kept: somebody's cache may still name them.
    pub ended: u64,
}

impl Holders {
    fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Addresses {
    holders: BTreeMap<(NetworkId, IpAddr), Holders>,
    /// Live attachments with addresses, of the tasks of each node.
    present: BTreeMap<(NodeId, NetworkId), u64>,
}

/// Which way an object goes.
#[derive(Debug, Clone, Copy)]
enum Step {
    In,
    Out,
}

impl Addresses {
    pub(super) fn insert(&mut self, object: &Object) {
        self.count(object, Step::In);
    }

    pub(super) fn remove(&mut self, object: &Object) {
        self.count(object, Step::Out);
    }

    pub(super) fn holders_of(&self, network: NetworkId, address: IpAddr) -> Holders {
        self.holders.get(&(network, address)).copied().unwrap_or_default()
    }

    pub(super) fn networks_on(&self, node: NodeId) -> impl Iterator<Item = NetworkId> {
        self.present.range((node, FIRST)..=(node, LAST)).map(|((_, network), _)| *network)
    }

    fn count(&mut self, object: &Object, step: Step) {
        match object {
            Object::Service(service) => {
                self.count_all(addresses_of_endpoint(&service.endpoint), step, |holders| &mut holders.live);
            }
            Object::Node(node) => {
                self.count_all(addresses_of(&node.attachments), step, |holders| &mut holders.live);
            }
            Object::Task(task) => self.count_task(task, step),
            Object::Cluster(_) | Object::Network(_) | Object::Secret(_) | Object::Config(_) => {}
        }
    }

    fn count_task(&mut self, task: &Task, step: Step) {
        let held = addresses_of(&task.networks).chain(task.endpoint.iter().flat_map(addresses_of_endpoint));
        let is_freed = Fault::AddressFreedEarly.is_made() && task.desired_state > TaskState::Running;
        if task.status.state.is_terminal() || is_freed {
            self.count_all(held, step, |holders| &mut holders.ended);
            return;
        }
        self.count_all(held, step, |holders| &mut holders.live);
        let Some(node) = task.node else { return };
        for attachment in task.networks.iter().filter(|attachment| !attachment.addresses.is_empty()) {
            let key = (node, attachment.network);
            let count = self.present.entry(key).or_default();
            step.take_on(count);
            if *count == 0 {
                self.present.remove(&key);
            }
        }
    }

    fn count_all(
        &mut self,
        addresses: impl Iterator<Item = (NetworkId, IpAddr)>,
        step: Step,
        of: fn(&mut Holders) -> &mut u64,
    ) {
        for key in addresses {
            let holders = self.holders.entry(key).or_default();
            step.take_on(of(holders));
            if holders.is_none() {
                self.holders.remove(&key);
            }
        }
    }
}

impl Step {
    fn take_on(self, count: &mut u64) {
        *count = match self {
            Self::In => count.saturating_add(1),
            Self::Out => count.saturating_sub(1),
        };
    }
}

pub(super) fn addresses_of(attachments: &[NetworkAttachment]) -> impl Iterator<Item = (NetworkId, IpAddr)> {
    attachments.iter().flat_map(|attachment| {
        attachment.addresses.iter().map(|address| (attachment.network, address.address))
    })
}

pub(super) fn addresses_of_endpoint(endpoint: &Endpoint) -> impl Iterator<Item = (NetworkId, IpAddr)> {
    endpoint.virtual_ips.iter().flat_map(|virtual_ip| {
        virtual_ip.addresses.iter().map(|address| (virtual_ip.network, address.address))
    })
}
