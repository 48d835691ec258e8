//! The cluster's state in memory: what every manager has after it applied the same log.
//!
//! [`Store::apply`] is the only way in. It takes one committed transaction, and either all of it enters or nothing does.
//! Each object has the version at which it was last written, and an update of any other is refused. What the objects mean
//! is enforced here once more, whoever proposed: names are unique, task states only move forward, a task's node is chosen
//! once. Readers get objects as [`Arc`]s, so that a copy of the store is cheap and a snapshot is of one moment.

mod addresses;
mod claims;
mod index;
mod object;
mod prefix;
mod rules;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use addresses::Holders;
pub use object::{Object, ObjectId, ObjectKind};
pub use snapshot::Snapshot;

use crate::id::{ConfigId, NetworkId, NodeId, SecretId, ServiceId, TaskId};
use crate::label::priority::Priority;
use crate::objects::{Cluster, Config, Network, Node, Secret, Service, Task, TaskState, Version};
use crate::time::Timestamp;
use index::Indexes;

/// One change that is wanted. An update carries the whole object, with the version that it was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StoreAction {
    Create(Object),
    Update(Object),
    Remove(ObjectId),
}

/// One change that was made: created when there is no `old`, removed when there is no `new`.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub old: Option<Object>,
    pub new: Option<Object>,
}

impl Change {
    /// What it is about.
    #[must_use]
    pub fn id(&self) -> Option<ObjectId> {
        self.new.as_ref().or(self.old.as_ref()).map(Object::id)
    }
}

/// Why a transaction was refused; nothing of it entered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0} already exists")]
    Exists(ObjectId),
    #[error("{0} not found")]
    NotFound(ObjectId),
    /// Docker's clients match these words.
    #[error("update out of sequence")]
    OutOfSequence(ObjectId),
    #[error("name conflicts with an existing object: {kind} {name} already exists")]
    NameConflict { kind: ObjectKind, name: String },
    #[error("task {task} can't go from {from:?} back to {to:?}")]
    StateBackwards { task: TaskId, from: TaskState, to: TaskState },
    /// The field is written once, at the latest when the task is assigned.
    #[error("the {field} of task {task} can't change")]
    Fixed { task: TaskId, field: &'static str },
    /// What has been told of an end, and acted on, is not taken back.
    #[error("task {task} has ended as {from:?}, and can't become {to:?}")]
    Ended { task: TaskId, from: TaskState, to: TaskState },
    #[error("address {address} of network {network} is in use")]
    AddressInUse { network: NetworkId, address: IpAddr },
    #[error("network {network} has {what} of network {other}")]
    NetworksClash { network: NetworkId, what: &'static str, other: NetworkId },
    /// Its addresses and its node's resources would be free while it holds them.
    #[error("task {0} can't be removed: it has not ended")]
    NotEnded(TaskId),
}

/// Every object, and where to find it. Equal stores hold the same objects at the same versions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Store {
    version: Version,
    cluster: Option<Arc<Cluster>>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    services: BTreeMap<ServiceId, Arc<Service>>,
    tasks: BTreeMap<TaskId, Arc<Task>>,
    networks: BTreeMap<NetworkId, Arc<Network>>,
    secrets: BTreeMap<SecretId, Arc<Secret>>,
    configs: BTreeMap<ConfigId, Arc<Config>>,
    indexes: Indexes,
}

impl Store {
    /// Applies one committed transaction, whose place in the log is `version`: what it writes has that version from then
    /// on. What was changed, in order. Places in the log only grow: the caller applies each entry once, in its order.
    ///
    /// # Errors
    /// When any of it must be refused; then the store is as it was.
    pub fn apply(&mut self, version: Version, actions: &[StoreAction]) -> Result<Vec<Change>, StoreError> {
        let mut changes = Vec::with_capacity(actions.len());
        for action in actions {
            match self.change_for(version, action) {
                Ok(change) => {
                    self.enter(&change);
                    changes.push(change);
                }
                Err(error) => {
                    for change in changes.into_iter().rev() {
                        self.enter(&Change { old: change.new, new: change.old });
                    }
                    return Err(error);
                }
            }
        }
        self.version = version;
        Ok(changes)
    }

    /// The place in the log of the last transaction that entered.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    #[must_use]
    pub fn secret(&self, id: SecretId) -> Option<&Arc<Secret>> {
        self.secrets.get(&id)
    }

    #[must_use]
    pub fn config(&self, id: ConfigId) -> Option<&Arc<Config>> {
        self.configs.get(&id)
    }

    /// All nodes in the order of their ids, as of everything here.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The nodes that have a place in raft, in the order of their ids.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.indexes.managers().filter_map(|id| self.nodes.get(&id))
    }

    /// The nodes that have an address for the cluster's networks, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.indexes.peers()
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    pub fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    pub fn configs(&self) -> impl Iterator<Item = &Arc<Config>> {
        self.configs.values()
    }

    /// A service's tasks, slot by slot; the ended ones too.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.of_service(service)
    }

    /// The tasks in one slot of a service; the ended ones too.
    pub fn tasks_in(&self, service: ServiceId, slot: u64) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.in_slot(service, slot)
    }

    /// The tasks that were given to a node; the ended ones too.
    pub fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.on_node(node)
    }

    /// A service's new tasks whose gate is closed.
    pub fn tasks_at_gate(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.at_gate(service).filter_map(|id| self.tasks.get(&id))
    }

    /// The services with tasks at their gate that may wait for a service of that name.
    pub fn waiting_for(&self, name: &str) -> impl Iterator<Item = ServiceId> {
        self.indexes.dependants(name).filter(|service| self.indexes.at_gate(*service).next().is_some())
    }

    /// Tasks in the state new: what the allocator looks at, so none with a closed gate. Those of global services have a node
    /// already.
    pub fn tasks_new(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.new_ones().filter_map(|id| self.tasks.get(&id))
    }

    /// The tasks that name a network, by their spec or by an attachment; ended ones left out.
    pub fn tasks_using(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.using(network).filter_map(|id| self.tasks.get(&id))
    }

    /// The networks on which tasks of a node have addresses; ended tasks left out.
    pub fn networks_on(&self, node: NodeId) -> impl Iterator<Item = NetworkId> {
        self.indexes.addresses.networks_on(node)
    }

    /// Who has an address of a network; see [`Holders`].
    #[must_use]
    pub fn holders_of(&self, network: NetworkId, address: IpAddr) -> Holders {
        self.indexes.addresses.holders_of(network, address)
    }

    /// The lowest of the priorities that services ask for; none when none asks.
    #[must_use]
    pub fn lowest_priority(&self) -> Option<Priority> {
        self.indexes.lowest_priority()
    }

    /// Services that ask for their tasks to be moved to nodes that come.
    pub fn services_rebalanced(&self) -> impl Iterator<Item = ServiceId> {
        self.indexes.rebalanced()
    }

    /// The tasks that were displaced at `moment` or later, the earliest first.
    pub fn displaced_since(&self, moment: Timestamp) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.displaced_since(moment).filter_map(|id| self.tasks.get(&id))
    }

    /// The secrets and configs in whose place there are others.
    pub fn superseded(&self) -> impl Iterator<Item = ObjectId> {
        self.indexes.superseded()
    }

    /// Tasks that have their addresses and wait for the scheduler, those whose node the orchestrator has chosen too: by service, version of
    /// its spec, and slot.
    pub fn tasks_pending(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.indexes.pending()
    }

    /// The object of that name, whatever the case of its letters: services, networks, secrets and configs have one each.
    #[must_use]
    pub fn by_name(&self, kind: ObjectKind, name: &str) -> Option<ObjectId> {
        self.indexes.by_name(kind, name)
    }

    /// The object of that id.
    #[must_use]
    pub fn object(&self, id: ObjectId) -> Option<Object> {
        match id {
            ObjectId::Cluster(id) => {
                self.cluster().filter(|cluster| cluster.id == id).cloned().map(Object::Cluster)
            }
            ObjectId::Node(id) => self.node(id).cloned().map(Object::Node),
            ObjectId::Service(id) => self.service(id).cloned().map(Object::Service),
            ObjectId::Task(id) => self.task(id).cloned().map(Object::Task),
            ObjectId::Network(id) => self.network(id).cloned().map(Object::Network),
            ObjectId::Secret(id) => self.secret(id).cloned().map(Object::Secret),
            ObjectId::Config(id) => self.config(id).cloned().map(Object::Config),
        }
    }

    /// What the action would change, when it may.
    fn change_for(&self, version: Version, action: &StoreAction) -> Result<Change, StoreError> {
        match action {
            StoreAction::Create(object) => {
                let new = self.shared(object.at(version).with_spec_written_at(version));
                if self.object(new.id()).is_some()
                    || (new.kind() == ObjectKind::Cluster && self.cluster.is_some())
                {
                    return Err(StoreError::Exists(new.id()));
                }
                self.name_is_free(&new)?;
                claims::are_free(self, None, &new)?;
                Ok(Change { old: None, new: Some(new) })
            }
            StoreAction::Update(object) => {
                let old = self.object(object.id()).ok_or(StoreError::NotFound(object.id()))?;
                if old.version() != object.version() {
                    return Err(StoreError::OutOfSequence(object.id()));
                }
                let mut new = self.shared(object.at(version));
                if let Some(written_at) = old.spec_version() {
                    let written_at = if new.has_spec_of(&old) { written_at } else { version };
                    new = new.with_spec_written_at(written_at);
                }
                self.name_is_free(&new)?;
                rules::may_become(&old, &new)?;
                claims::are_free(self, Some(&old), &new)?;
                Ok(Change { old: Some(old), new: Some(new) })
            }
            StoreAction::Remove(id) => {
                let old = self.object(*id).ok_or(StoreError::NotFound(*id))?;
                rules::may_leave(&old)?;
                Ok(Change { old: Some(old), new: None })
            }
        }
    }

    fn name_is_free(&self, new: &Object) -> Result<(), StoreError> {
        let Some(name) = new.unique_name() else { return Ok(()) };
        match self.by_name(new.kind(), name) {
            Some(other) if other != new.id() => {
                Err(StoreError::NameConflict { kind: new.kind(), name: name.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// The object with the task spec that the store has already, where its own says the same: thousands of tasks share one
    /// with their service, whatever came over the wire, and who compares them compares pointers.
    fn shared(&self, object: Object) -> Object {
        match object {
            Object::Task(mut task) => {
                let service = task.service.and_then(|id| self.services.get(&id));
                if let Some(service) = service.filter(|service| service.spec.task == task.spec) {
                    Arc::make_mut(&mut task).spec = service.spec.task.clone();
                }
                Object::Task(task)
            }
            Object::Service(mut service) => {
                if let Some(old) = self.services.get(&service.id) {
                    share_specs(old, Arc::make_mut(&mut service));
                }
                Object::Service(service)
            }
            other => other,
        }
    }

    fn enter(&mut self, change: &Change) {
        if let Some(old) = &change.old {
            self.indexes.remove(old);
        }
        match (&change.old, &change.new) {
            (_, Some(new)) => {
                self.indexes.insert(new);
                self.put(new.clone());
            }
            (Some(old), None) => self.take(old.id()),
            (None, None) => {}
        }
    }

    fn put(&mut self, object: Object) {
        match object {
            Object::Cluster(it) => self.cluster = Some(it),
            Object::Node(it) => drop(self.nodes.insert(it.id, it)),
            Object::Service(it) => drop(self.services.insert(it.id, it)),
            Object::Task(it) => drop(self.tasks.insert(it.id, it)),
            Object::Network(it) => drop(self.networks.insert(it.id, it)),
            Object::Secret(it) => drop(self.secrets.insert(it.id, it)),
            Object::Config(it) => drop(self.configs.insert(it.id, it)),
        }
    }

    fn take(&mut self, id: ObjectId) {
        match id {
            ObjectId::Cluster(_) => self.cluster = None,
            ObjectId::Node(id) => drop(self.nodes.remove(&id)),
            ObjectId::Service(id) => drop(self.services.remove(&id)),
            ObjectId::Task(id) => drop(self.tasks.remove(&id)),
            ObjectId::Network(id) => drop(self.networks.remove(&id)),
            ObjectId::Secret(id) => drop(self.secrets.remove(&id)),
            ObjectId::Config(id) => drop(self.configs.remove(&id)),
        }
    }
}

/// The service's specs of tasks are those that it had, where they are equal.
fn share_specs(old: &Service, new: &mut Service) {
    let known = std::iter::once(&old.spec).chain(&old.previous_spec).map(|spec| &spec.task);
    for spec in std::iter::once(&mut new.spec).chain(&mut new.previous_spec) {
        if let Some(same) = known.clone().find(|task| **task == spec.task) {
            spec.task = same.clone();
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Cluster(id) => write!(f, "{kind} {id}"),
            Self::Node(id) => write!(f, "{kind} {id}"),
            Self::Service(id) => write!(f, "{kind} {id}"),
            Self::Task(id) => write!(f, "{kind} {id}"),
            Self::Network(id) => write!(f, "{kind} {id}"),
            Self::Secret(id) => write!(f, "{kind} {id}"),
            Self::Config(id) => write!(f, "{kind} {id}"),
        }
    }
}
