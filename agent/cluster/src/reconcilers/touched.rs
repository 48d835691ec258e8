//! Which reconcilers a change wakes, with the reasons: whatever one of them reads must wake it here when it changes. Called
//! by the queue. `tests/whole_cluster` holds it against a look at everything.
//!
//! What a change costs is what it touches: a task's its own service and node, a node's the services that have tasks there
//! or a place on each node. The allocator and the scheduler have one key each, for what they give is the whole cluster's;
//! they are woken only by what can give them work.

use std::sync::Arc;

use super::Key;
use crate::label::priority::{self, Priority};
use crate::objects::node::{NodeDescription, NodeRole, NodeSpec};
use crate::objects::task::Gate;
use crate::objects::{Cluster, Node, Task, TaskState, TaskStatus};
use crate::orchestrator::takes_part;
use crate::payloads::named_by;
use crate::store::{Change, Object, ObjectId};
use crate::time::Timestamp;
use crate::view::View;

/// What a worker has said of a task that the store has. `before` is the joined status of before, `after` that of now.
#[derive(Debug, Clone, Copy)]
pub struct Word<'a> {
    pub task: &'a Task,
    pub before: &'a TaskStatus,
    pub after: &'a TaskStatus,
}

/// The table: a committed change, and who reads what has changed.
pub(super) fn by_change(view: &View<'_>, change: &Change) -> Vec<Key> {
    match change.id() {
        Some(ObjectId::Task(_)) => by_task(view, task_in(change.old.as_ref()), task_in(change.new.as_ref())),
        Some(ObjectId::Node(_)) => by_node(view, node_in(change.old.as_ref()), node_in(change.new.as_ref())),
        // Its tasks are compared with its spec, mode and update status, when it is gone they are removed; the reaper keeps
        // what its update and its job's iteration count; its networks and ports are the allocator's, also when it frees them.
        // And those that wait for it are told whether it is there, and how many tasks it wants.
        Some(ObjectId::Service(id)) => {
            let name = change.new.as_ref().or(change.old.as_ref()).and_then(|object| object.unique_name());
            let own = [Key::Service(id), Key::Reaper(id), Key::Allocator];
            // What its specs named and name no more.
            let payloads = view.superseded().next().map(|_| Key::Payloads);
            let waiting = name.into_iter().flat_map(|name| waiting_for(view, name));
            let ranks = (priority_in(change.old.as_ref()) != priority_in(change.new.as_ref()))
                .then_some(Key::Scheduler);
            own.into_iter().chain(payloads).chain(ranks).chain(waiting).collect()
        }
        // What waits for it, what it frees; and tasks that wait are filtered by their networks' drivers.
        Some(ObjectId::Network(_)) => vec![Key::Allocator, Key::Scheduler],
        Some(ObjectId::Cluster(_)) => {
            by_cluster(view, cluster_in(change.old.as_ref()), cluster_in(change.new.as_ref()))
        }
        // One that was superseded is removed after its last use. Otherwise they concern assignments only: the dispatcher sends
        // them.
        Some(id @ (ObjectId::Secret(_) | ObjectId::Config(_))) => {
            view.superseded().find(|it| *it == id).map(|_| Key::Payloads).into_iter().collect()
        }
        None => Vec::new(),
    }
}

/// Whose tasks may move to a node, or from there: that is not urgent, and may be many services.
pub(super) fn shares_by_change<'v>(
    view: &'v View<'_>,
    change: &Change,
) -> impl Iterator<Item = Key> + use<'v> {
    let (old, new) = (node_in(change.old.as_ref()), node_in(change.new.as_ref()));
    let is_other = share_of(old) != share_of(new);
    is_other.then(|| view.services_rebalanced().map(Key::Service)).into_iter().flatten()
}

/// What the node may have of services that are rebalanced, if it takes part: what it is, and how long it has been there.
fn share_of(node: Option<&Node>) -> Option<(&NodeSpec, Option<&NodeDescription>, NodeRole, Timestamp)> {
    let node = node.filter(|node| takes_part(node))?;
    Some((&node.spec, node.description.as_ref(), node.role, node.status.since))
}

/// A worker's word, and who reads what it has changed of the joined status.
pub(super) fn by_word(view: &View<'_>, word: &Word<'_>) -> Vec<Key> {
    let Word { task, before, after } = word;
    let mut keys = Vec::new();
    // How an update, a restart, a job goes on. Messages, such as how far a pull is, change nothing.
    let progress = |status: &TaskStatus| (status.state, status.since, status.running_since);
    if progress(before) != progress(after) {
        keys.extend(task.service.map(Key::Service));
        // What waits for its service to start or to be healthy.
        keys.extend(waiting_for(view, &task.service_name));
    }
    // The node has room again; or the task has taken ports there that its node has chosen.
    if holds_room(before.state) != holds_room(after.state) || before.ports != after.ports {
        keys.push(Key::Scheduler);
    }
    keys
}

/// Whose first tasks may wait for the service of that name.
fn waiting_for(view: &View<'_>, service: &str) -> impl Iterator<Item = Key> {
    view.waiting_for(service).map(Key::Service)
}

fn by_task(view: &View<'_>, old: Option<&Task>, new: Option<&Task>) -> Vec<Key> {
    let mut keys = Vec::new();
    let either = [old, new];
    // Whatever changes of a task, its service's places are made of it: also its absence, and its end.
    let of = either.iter().flatten().find_map(|task| Some((task.service?, &task.service_name)));
    if let Some((service, name)) = of {
        keys.extend([Key::Service(service), Key::Reaper(service)]);
        keys.extend(waiting_for(view, name));
    }
    // It claims resources of a node, or is lost with it.
    keys.extend(either.iter().flatten().find_map(|task| task.node).map(Key::Node));
    if (is_to_be_allocated(new) && !is_to_be_allocated(old)) || allocation(old) != allocation(new) {
        keys.push(Key::Allocator);
    }
    if names_superseded(view, old) && !names_superseded(view, new) {
        keys.push(Key::Payloads);
    }
    // What is placed takes room that nobody gets by that: the pass that placed it has looked at all others. But one that has another node
    // than it was promised leaves what was kept for it.
    let is_placed = waits_for_node(old) && claim(new) == Some(true) && !leaves_kept_room(old, new);
    if !is_placed && (waits_for_node(old) != waits_for_node(new) || claim(old) != claim(new)) {
        keys.push(Key::Scheduler);
    }
    keys
}

/// Whether it is a task that may run and names a superseded secret or config.
fn names_superseded(view: &View<'_>, task: Option<&Task>) -> bool {
    let task = task.filter(|task| !task.status.state.is_terminal());
    // There are few or none.
    view.superseded().any(|id| task.is_some_and(|task| named_by(&task.spec).any(|named| named == id)))
}

/// What the allocator gives its share, if it has any: new, and its gate is open.
fn is_to_be_allocated(task: Option<&Task>) -> bool {
    task.is_some_and(|task| task.status.state == TaskState::New && task.gate == Gate::Open)
}

/// What the allocator reads of a task that is in networks, until it has ended: whether it has its addresses, and where it is, since its
/// node's own addresses follow it. One in no network holds nothing.
fn allocation(task: Option<&Task>) -> Option<(bool, Option<crate::id::NodeId>)> {
    let task = task.filter(|task| !task.status.state.is_terminal())?;
    let is_networked = !task.networks.is_empty() || !task.spec.networks.is_empty();
    is_networked.then_some((!task.networks.is_empty(), task.node))
}

/// What the scheduler places, or says why not.
fn waits_for_node(task: Option<&Task>) -> bool {
    task.is_some_and(|task| {
        task.status.state == TaskState::Pending && task.desired_state <= TaskState::Complete
    })
}

/// What a task has of its node: all that it asks for until it has ended, and a place among the live ones while it is wanted.
fn claim(task: Option<&Task>) -> Option<bool> {
    let task = task.filter(|task| task.node.is_some() && holds_room(task.status.state))?;
    Some(task.desired_state <= TaskState::Complete)
}

fn leaves_kept_room(old: Option<&Task>, new: Option<&Task>) -> bool {
    let promised = old.and_then(|task| task.promised.as_ref());
    promised.is_some_and(|promise| new.and_then(|task| task.node) != Some(promise.node))
}

fn holds_room(state: TaskState) -> bool {
    (TaskState::Assigned..=TaskState::Running).contains(&state)
}

fn by_node(view: &View<'_>, old: Option<&Node>, new: Option<&Node>) -> Vec<Key> {
    let Some(node) = new.or(old) else { return Vec::new() };
    // Its own addresses: taken back from a ready node only, freed when it is removed.
    let mut keys = vec![Key::Allocator];
    let worn = |node: Option<&Node>| node.and_then(|it| it.description.as_ref()).and_then(|it| it.worn_key);
    if worn(old) != worn(new) {
        keys.push(Key::DataKeys);
    }
    if let (Some(old), Some(new)) = (old, new)
        && old.is_the_same_place_as(new)
    {
        return keys;
    }
    // Its tasks are to leave, or are lost; there is a place more or less for tasks.
    keys.extend([Key::Node(node.id), Key::Scheduler]);
    for (service, name) in view.tasks_on(node.id).filter_map(|task| Some((task.service?, &task.service_name)))
    {
        // The tasks there can't stay, are waited for no more, or fit the spec by other labels.
        keys.push(Key::Service(service));
        // Fewer of that service run.
        keys.extend(waiting_for(view, name));
        // Lost tasks of a removed node are no history of a place.
        if new.is_none() {
            keys.push(Key::Reaper(service));
        }
    }
    // A place on each node.
    let on_each = view.services().filter(|service| service.spec.mode.is_bound_to_nodes());
    for service in on_each {
        keys.push(Key::Service(service.id));
        keys.extend(waiting_for(view, &service.spec.name));
    }
    keys
}

fn by_cluster(view: &View<'_>, old: Option<&Cluster>, new: Option<&Cluster>) -> Vec<Key> {
    let mut keys = vec![Key::DataKeys];
    if old.map(|it| &it.networking) != new.map(|it| &it.networking) {
        keys.push(Key::Allocator);
    }
    let limit = |cluster: Option<&Cluster>| cluster.map(|it| it.spec.task_history_limit);
    if limit(old) != limit(new) {
        keys.extend(view.services().map(|service| Key::Reaper(service.id)));
    }
    keys
}

/// By which its tasks are placed.
fn priority_in(object: Option<&Object>) -> Option<Priority> {
    match object {
        Some(Object::Service(service)) => priority::asked(&service.spec.labels),
        _ => None,
    }
}

fn task_in(object: Option<&Object>) -> Option<&Task> {
    object.and_then(|object| if let Object::Task(task) = object { Some(Arc::as_ref(task)) } else { None })
}

fn node_in(object: Option<&Object>) -> Option<&Node> {
    object.and_then(|object| if let Object::Node(node) = object { Some(Arc::as_ref(node)) } else { None })
}

fn cluster_in(object: Option<&Object>) -> Option<&Cluster> {
    object.and_then(
        |object| {
            if let Object::Cluster(cluster) = object { Some(Arc::as_ref(cluster)) } else { None }
        },
    )
}
