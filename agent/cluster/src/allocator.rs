//! Gives out what a cluster has one of each: subnets, VXLAN identifiers, addresses and published ports; and lets a new task
//! go on to the scheduler once it has its share.
//!
//! Everything is derived from the store: what is taken is what the committed objects name, and nothing is remembered
//! between two passes. The store decides and no worker's word, so that what the leader of the moment has heard makes no
//! difference: an address is free once the end of the task that held it is committed.
//!
//! - **Held** is an address by every service, node and task that names it, as long as the task has not ended: whatever its
//!   desired state, and whether or not its node is down. A virtual address is held by the service's tasks on its network too,
//!   which know it.
//! - **Chosen** is the first free one from a start that the new holder's id gives, around the pool. Addresses that ended
//!   tasks had come last, as long as the store keeps those tasks: somebody's cache may still name them.
//! - **Freed in one pass, given in the next**: so the actions are valid in any split, and a pass that frees something is
//!   followed by one that may give it. When a part of a split is refused, the rest of it must not be applied.
//!
//! A pass looks at every network, service and node once, and at every task in the state new; each address that it gives
//! costs a search in the store's index. It never walks the tasks of a network.

mod addresses;
mod endpoint;
mod ipam;
mod networks;
mod ports;
mod refusal;
#[cfg(test)]
mod tests;
mod vni;
#[cfg(test)]
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use crate::id::{NetworkId, ServiceId};
use crate::objects::node::NodeState;
use crate::objects::task::TaskRuntime;
use crate::objects::{Endpoint, NetworkAttachment, Node, Service, Task, TaskState};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;
use addresses::{Addresses, Claim};
use networks::Networks;
use ports::Ports;
use refusal::Refusal;

/// SwarmKit's words, which users know from `docker inspect`.
static ALLOCATED: LazyLock<Arc<str>> = LazyLock::new(|| "pending task scheduling".into());

/// What is to be given out and taken back now. Called again after each change of a network, service, node or task, its own
/// ones included; time alone changes nothing.
#[must_use]
pub fn reconcile(view: &View<'_>, now: Timestamp) -> Reconciled {
    let mut wanted = Reconciled::default();
    let networks = Networks::settle(view, now, &mut wanted);
    let mut pass = Pass {
        view,
        now,
        addresses: Addresses::new(view),
        networks,
        ports: None,
        endpoints: BTreeMap::new(),
        wanted,
    };
    for service in view.services() {
        pass.allocate_service(service);
    }
    for node in view.nodes() {
        pass.attach_node(node);
    }
    for task in view.tasks_new() {
        pass.allocate_task(task);
    }
    pass.wanted
}

struct Pass<'a> {
    view: &'a View<'a>,
    now: Timestamp,
    networks: Networks<'a>,
    addresses: Addresses<'a>,
    /// Made for the first service that needs it.
    ports: Option<Ports<'a>>,
    /// Of the services whose endpoint in the store is not the wanted one: what it becomes, or why it can't.
    endpoints: BTreeMap<ServiceId, Result<Endpoint, Refusal>>,
    wanted: Reconciled,
}

impl<'a> Pass<'a> {
    fn ports(&mut self) -> &mut Ports<'a> {
        self.ports.get_or_insert_with(|| Ports::of(self.view))
    }

    fn allocate_service(&mut self, service: &Arc<Service>) {
        let ingress = self.networks.ingress();
        if endpoint::is_current(service, &self.networks, ingress) {
            return;
        }
        let endpoint = self.endpoint_of(service, ingress);
        if let Ok(endpoint) = &endpoint {
            self.ports().take(service.id, &endpoint.ports);
            let mut service = Service::clone(service);
            service.meta.updated_at = self.now;
            service.endpoint = endpoint.clone();
            self.wanted.update(service);
        }
        self.endpoints.insert(service.id, endpoint);
    }

    fn endpoint_of(&mut self, service: &Service, ingress: Option<NetworkId>) -> Result<Endpoint, Refusal> {
        let spec = service.spec.endpoint.clone().unwrap_or_default();
        let ports = self.ports().choose(service, &spec)?;
        let networks = endpoint::networks_with_virtual_ip(service, &self.networks, ingress)?;
        let virtual_ips = endpoint::virtual_ips(service, &networks, &self.networks, &mut self.addresses)?;
        Ok(Endpoint { spec, ports, virtual_ips })
    }

    /// Its own address on each network that a task of it is on, and on the ingress network. Nothing is taken back from a
    /// node that is not ready: it could not hear of it, and may still use it.
    fn attach_node(&mut self, node: &Arc<Node>) {
        let ready = node.status.state == NodeState::Ready;
        let ingress = self.networks.ingress();
        let mut needed: BTreeSet<NetworkId> = self.view.networks_on(node.id).collect();
        needed.extend(ingress.filter(|_| ready));
        let stays = |attachment: &&NetworkAttachment| {
            let network = attachment.network;
            self.networks.exists(network) && (!ready || needed.contains(&network) || ingress == Some(network))
        };
        let mut attachments: Vec<NetworkAttachment> =
            node.attachments.iter().filter(stays).cloned().collect();
        needed.retain(|network| !attachments.iter().any(|attachment| attachment.network == *network));
        for network in needed {
            let claim = Claim::of(node.id.bits());
            attachments.extend(self.networks.addresses(network, claim, &mut self.addresses).ok().map(
                |addresses| NetworkAttachment {
                    network,
                    addresses,
                    aliases: Vec::new(),
                    driver_options: BTreeMap::new(),
                },
            ));
        }
        if attachments != node.attachments {
            let mut node = Node::clone(node);
            node.meta.updated_at = self.now;
            node.attachments = attachments;
            self.wanted.update(node);
        }
    }

    fn allocate_task(&mut self, task: &Arc<Task>) {
        if task.desired_state > TaskState::Complete {
            return;
        }
        let endpoint = match task.service.map(|id| self.endpoint_for_task(id)) {
            // Its service is gone: the orchestrator ends it.
            Some(None) => return,
            Some(Some(endpoint)) => endpoint.map(Some),
            None => Ok(None),
        };
        let given = endpoint.and_then(|endpoint| Ok((self.places_of(task, endpoint.as_ref())?, endpoint)));
        let mut allocated = Task::clone(task);
        match given {
            Ok((networks, endpoint)) => {
                allocated.endpoint = endpoint.map(|endpoint| endpoint::told_at(&networks, endpoint));
                allocated.networks = networks;
                allocated.status.state = TaskState::Pending;
                allocated.status.since = self.now;
                allocated.status.message = Arc::clone(&ALLOCATED);
                allocated.status.error = Arc::default();
            }
            Err(refusal) => {
                // `docker service ps` shows the error, `docker inspect` both.
                allocated.status.message = refusal.to_string().into();
                allocated.status.error = Arc::clone(&allocated.status.message);
            }
        }
        if allocated.status != task.status {
            allocated.meta.updated_at = self.now;
            self.wanted.update(allocated);
        }
    }

    /// The service's endpoint as it is after this pass; none when there is no such service.
    fn endpoint_for_task(&self, service: ServiceId) -> Option<Result<Endpoint, Refusal>> {
        let stored = self.view.service(service)?;
        Some(self.endpoints.get(&service).cloned().unwrap_or_else(|| Ok(stored.endpoint.clone())))
    }

    /// Its attachments to the networks of its spec, in that order, and to the ingress network if its service needs that.
    fn places_of(
        &mut self,
        task: &Task,
        endpoint: Option<&Endpoint>,
    ) -> Result<Vec<NetworkAttachment>, Refusal> {
        let mut places: Vec<NetworkAttachment> = Vec::new();
        let given = self.fill_places(task, endpoint, &mut places);
        if given.is_err() {
            self.addresses.give_back(&places);
        }
        given.map(|()| places)
    }

    fn fill_places(
        &mut self,
        task: &Task,
        endpoint: Option<&Endpoint>,
        places: &mut Vec<NetworkAttachment>,
    ) -> Result<(), Refusal> {
        let is_attachment = matches!(task.spec.runtime, TaskRuntime::Attachment { .. });
        for config in &task.spec.networks {
            if places.iter().any(|place| place.network == config.target) {
                continue;
            }
            let wanted = if is_attachment { config.addresses.as_slice() } else { &[] };
            let claim = Claim { start: task.id.bits(), wanted };
            places.push(NetworkAttachment {
                network: config.target,
                addresses: self.networks.addresses(config.target, claim, &mut self.addresses)?,
                aliases: config.aliases.clone(),
                driver_options: config.driver_options.clone(),
            });
        }
        if !endpoint.is_some_and(endpoint::publishes_by_ingress) {
            return Ok(());
        }
        let network = self.networks.ingress().ok_or(Refusal::NoIngress)?;
        if !places.iter().any(|place| place.network == network) {
            let claim = Claim::of(task.id.bits());
            let addresses = self.networks.addresses(network, claim, &mut self.addresses)?;
            places.push(NetworkAttachment {
                network,
                addresses,
                aliases: Vec::new(),
                driver_options: BTreeMap::new(),
            });
        }
        Ok(())
    }
}
