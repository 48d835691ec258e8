//! Which sessions a change concerns, so that it costs what it touches: a task of one network, on a cluster of a thousand
//! nodes, is looked at by those that are in that network.
//!
//! A session's interest is what its assignment was made of: networks, and files that tasks there name. It is kept wider than the
//! assignment rather than narrower (ended tasks count), so that only committed changes of the node's own tasks, or of the node
//! itself, alter it; those always ring the node. What is rung for nothing finds that nothing differs.

use std::collections::{BTreeMap, BTreeSet};

use ketch_cluster::fault::Fault;
use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::{Node, Service, Task, TaskState};
use ketch_cluster::store::{Change, Object, ObjectId, Store};
use ketch_cluster::view::View;

use super::bell::Topic;

/// What is to be rung.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rings {
    pub(super) everyone: BTreeSet<Topic>,
    pub(super) nodes: BTreeMap<NodeId, BTreeSet<Topic>>,
}

#[derive(Debug, Default)]
pub(super) struct Interests {
    of: BTreeMap<NodeId, BTreeSet<ObjectId>>,
    /// The same by what the interest is in.
    by: BTreeMap<ObjectId, BTreeSet<NodeId>>,
    /// The nodes that are in any network.
    networked: BTreeSet<NodeId>,
}

impl Interests {
    /// Takes the interest of a node as of this store. Between this and the assignment that is made of the same store nothing may
    /// be committed.
    pub(super) fn set(&mut self, store: &Store, node: NodeId) {
        self.remove(node);
        let interest = interest_of(store, node);
        if interest.iter().any(|it| matches!(it, ObjectId::Network(_))) {
            self.networked.insert(node);
        }
        for id in &interest {
            self.by.entry(*id).or_default().insert(node);
        }
        self.of.insert(node, interest);
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        self.networked.remove(&node);
        for id in self.of.remove(&node).unwrap_or_default() {
            if let Some(nodes) = self.by.get_mut(&id) {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.by.remove(&id);
                }
            }
        }
    }

    /// Whom a committed change concerns.
    pub(super) fn touched_by(&self, change: &Change, rings: &mut Rings) {
        for object in [&change.old, &change.new].into_iter().flatten() {
            match object {
                Object::Task(task) => self.touched_by_task(task, rings),
                Object::Node(node) => self.touched_by_node(node, change, rings),
                Object::Service(service) => self.touched_by_service(service, change, rings),
                Object::Network(it) => self.ring_interested(it.id.into(), rings),
                Object::Secret(it) => self.ring_interested(it.id.into(), rings),
                Object::Config(it) => self.ring_interested(it.id.into(), rings),
                Object::Cluster(_) => touched_by_cluster(change, rings),
            }
        }
    }

    /// Whom a change of a task concerns: its own node, and those that may reach it.
    fn touched_by_task(&self, task: &Task, rings: &mut Rings) {
        if let Some(node) = task.node
            && !Fault::AssignmentLost.is_made()
        {
            rings.ring(node, Topic::Assignment);
        }
        self.touched_by_traffic(task, rings);
    }

    /// Whom a worker's word on a task concerns. Its own node has what it has as long as the task has not ended: thousands of tasks come
    /// to run at once.
    fn touched_by_word(&self, view: &View<'_>, task: &Task, rings: &mut Rings) {
        if task.status.state >= TaskState::Assigned && view.state(task) <= TaskState::Running {
            self.touched_by_traffic(task, rings);
        } else {
            self.touched_by_task(task, rings);
        }
    }

    /// Those that may reach it.
    fn touched_by_traffic(&self, task: &Task, rings: &mut Rings) {
        for attachment in &task.networks {
            self.ring_interested(attachment.network.into(), rings);
        }
    }

    /// A service that is in no network is no other node's matter, for there may be thousands, but when it comes or goes: then a name may
    /// mean another one to those that let it in ([`allow`](ketch_cluster::label::allow)). Of one that was in some network before, with
    /// tasks that still are, the caller knows.
    fn touched_by_service(&self, service: &Service, change: &Change, rings: &mut Rings) {
        let comes_or_goes = change.old.is_none() || change.new.is_none();
        if comes_or_goes || names_networks(service) {
            self.ring_networked(rings);
        }
    }

    fn touched_by_node(&self, node: &Node, change: &Change, rings: &mut Rings) {
        rings.ring(node.id, Topic::Membership);
        rings.ring(node.id, Topic::Assignment);
        let (old, new) = (node_in(change.old.as_ref()), node_in(change.new.as_ref()));
        if old.and_then(|node| node.manager.as_ref()) != new.and_then(|node| node.manager.as_ref()) {
            rings.everyone.insert(Topic::Managers);
        }
        if old.map(as_others_see) != new.map(as_others_see) {
            self.ring_networked(rings);
        }
    }

    fn ring_interested(&self, id: ObjectId, rings: &mut Rings) {
        for node in self.by.get(&id).into_iter().flatten() {
            rings.ring(*node, Topic::Assignment);
        }
    }

    pub(super) fn ring_networked(&self, rings: &mut Rings) {
        self.networked.iter().for_each(|node| rings.ring(*node, Topic::Assignment));
    }
}

impl Rings {
    fn ring(&mut self, node: NodeId, topic: Topic) {
        self.nodes.entry(node).or_default().insert(topic);
    }

    /// Whom workers' words on these tasks concern.
    pub(super) fn of_words(interests: &Interests, view: &View<'_>, tasks: &[TaskId]) -> Self {
        let mut rings = Self::default();
        tasks
            .iter()
            .filter_map(|id| view.task(*id))
            .for_each(|task| interests.touched_by_word(view, task, &mut rings));
        rings
    }
}

/// Whether it is in a network by its spec or the one before, or by what it was given.
pub(super) fn names_networks(service: &Service) -> bool {
    let before = service.previous_spec.iter();
    let mut specs = std::iter::once(&service.spec).chain(before);
    specs.any(|spec| !spec.task.networks.is_empty()) || !service.endpoint.virtual_ips.is_empty()
}

fn touched_by_cluster(change: &Change, rings: &mut Rings) {
    rings.everyone.insert(Topic::Membership);
    let data_keys = |object: &Option<Object>| match object {
        Some(Object::Cluster(cluster)) => cluster.data_keys.clone(),
        _ => Vec::new(),
    };
    if data_keys(&change.old) != data_keys(&change.new) {
        rings.everyone.insert(Topic::Assignment);
    }
}

fn interest_of(store: &Store, node: NodeId) -> BTreeSet<ObjectId> {
    let own = store.node(node).into_iter().flat_map(|node| &node.attachments);
    let mut interest: BTreeSet<ObjectId> = own.map(|it| it.network.into()).collect();
    for task in store.tasks_on(node) {
        interest.extend(task.networks.iter().map(|it| ObjectId::from(it.network)));
        let Some(container) = task.spec.container() else { continue };
        interest.extend(container.secrets.iter().map(|it| ObjectId::from(it.secret)));
        interest.extend(container.configs.iter().map(|it| ObjectId::from(it.config)));
    }
    interest
}

/// What other nodes' assignments have of a node: where it is, its own addresses, and whether its tasks get traffic.
fn as_others_see(
    node: &Node,
) -> (
    Option<std::net::IpAddr>,
    &[ketch_cluster::objects::NetworkAttachment],
    ketch_cluster::objects::node::NodeState,
) {
    (node.data_address(), &node.attachments, node.status.state)
}

fn node_in(object: Option<&Object>) -> Option<&Node> {
    object.and_then(|object| if let Object::Node(node) = object { Some(node.as_ref()) } else { None })
}
