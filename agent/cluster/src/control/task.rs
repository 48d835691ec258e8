//! Tasks: listed, and the two that a request makes or ends itself: a plain container joins an overlay, and leaves it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::id::{NetworkId, NewBits, NodeId, ServiceId, TaskId};
use crate::objects::task::{NetworkAttachmentConfig, TaskRuntime};
use crate::objects::{Labels, Meta, Task, TaskSpec, TaskState, TaskStatus};
use crate::orchestrator::is_up_to_date;
use crate::orchestrator::texts::CREATED;
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::view::View;

use super::error::ControlError;
use super::filter::Filters;
use super::lookup::{find_network, find_node, find_service};
use super::{texts, validate};

/// The tasks that match `name`, `id`, `label` (of the service), `service`, `node`, `desired-state`, `runtime` and
/// `_up-to-date` (of the service's present spec). Attachments are not listed unless their runtime is asked for.
///
/// # Errors
/// When there is another key, a state that there is not, or a service or node that can't be found.
pub fn list_tasks(view: &View<'_>, filters: &Filters) -> Result<Vec<Arc<Task>>, ControlError> {
    filters.accept(&["name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime"])?;
    let services = found(filters, "service", |text| find_service(view, text).map(|service| service.id))?;
    let nodes = found(filters, "node", |text| find_node(view, text).map(|node| node.id))?;
    let states = filters.parsed("desired-state", state_named)?;
    let matches = |task: &&Arc<Task>| {
        filters.starts("name", &task.name)
            && filters.starts("id", &task.id.to_string())
            && filters.labels("label", &task.service_labels)
            && (services.is_empty() || task.service.is_some_and(|service| services.contains(&service)))
            && (nodes.is_empty() || task.node.is_some_and(|node| nodes.contains(&node)))
            && (states.is_empty() || states.contains(&task.desired_state))
            && has_runtime(task, filters)
            && (!filters.has("_up-to-date") || is_up_to_date(view, task))
    };
    Ok(candidates(view, filters, (&services, &nodes)).filter(matches).cloned().collect())
}

fn found<T: Ord>(
    filters: &Filters,
    key: &str,
    find: impl Fn(&str) -> Result<T, ControlError>,
) -> Result<BTreeSet<T>, ControlError> {
    filters.of(key).map(find).collect()
}

/// As few as an index gives: clients that wait for a service list its tasks five times a second.
fn candidates<'v>(
    view: &'v View<'_>,
    filters: &'v Filters,
    (services, nodes): (&'v BTreeSet<ServiceId>, &'v BTreeSet<NodeId>),
) -> Box<dyn Iterator<Item = &'v Arc<Task>> + 'v> {
    if !services.is_empty() {
        Box::new(services.iter().flat_map(|service| view.tasks_of(*service)))
    } else if !nodes.is_empty() {
        Box::new(nodes.iter().flat_map(|node| view.tasks_on(*node)))
    } else if let (Some(prefix), 1) = (filters.of("id").next(), filters.of("id").count()) {
        Box::new(view.tasks_by_prefix(prefix))
    } else {
        Box::new(view.tasks())
    }
}

fn has_runtime(task: &Task, filters: &Filters) -> bool {
    match (&task.spec.runtime, filters.has("runtime")) {
        (TaskRuntime::Container(_), false) => true,
        (TaskRuntime::Container(_), true) => filters.equals("runtime", "container"),
        (TaskRuntime::Attachment { .. }, false) => false,
        (TaskRuntime::Attachment { .. }, true) => filters.equals("runtime", "attachment"),
    }
}

fn state_named(text: &str) -> Option<TaskState> {
    Some(match text.to_ascii_lowercase().as_str() {
        "new" => TaskState::New,
        "pending" => TaskState::Pending,
        "assigned" => TaskState::Assigned,
        "accepted" => TaskState::Accepted,
        "preparing" => TaskState::Preparing,
        "ready" => TaskState::Ready,
        "starting" => TaskState::Starting,
        "running" => TaskState::Running,
        "complete" => TaskState::Complete,
        "shutdown" => TaskState::Shutdown,
        "failed" => TaskState::Failed,
        "rejected" => TaskState::Rejected,
        "remove" => TaskState::Remove,
        "orphaned" => TaskState::Orphaned,
        _ => return None,
    })
}

/// A plain container that wants to join an overlay.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub node: NodeId,
    /// The task's id, when the node has drawn it: asked for again, it is the same one.
    pub place: Option<TaskId>,
    /// The container's id on its node.
    pub container: String,
    /// What it is called there.
    pub name: String,
    /// What else it is called in this network.
    pub aliases: Vec<String>,
    /// By its id, its name or a part of its id.
    pub network: String,
    /// Wanted addresses; none is any.
    pub addresses: Vec<IpAddr>,
}

/// As many places as a node's containers may have at once: a node that is not what it says takes no more.
const MOST_PLACES: usize = 1024;

/// Makes the task that holds the container's addresses. When it is there already, nothing is to be done.
///
/// # Errors
/// When there is no such network, only services may join it, the node has [`MOST_PLACES`], the names don't fit into the log, or
/// the task's id is another's.
pub fn attach_network(
    view: &View<'_>,
    attachment: Attachment,
    now: Timestamp,
    bits: NewBits<'_>,
) -> Result<(TaskId, Vec<StoreAction>), ControlError> {
    let network = find_network(view, &attachment.network)
        .map_err(|_| texts::network_to_attach_not_found(&attachment.network))?;
    if !network.spec.attachable {
        return Err(texts::network_not_attachable(&attachment.network));
    }
    if let Some(known) = attachment.place.and_then(|id| view.task(id)) {
        return match is_place_of(known, &attachment, network.id) {
            true => Ok((known.id, Vec::new())),
            false => Err(texts::attachment_of_another_node(known.id)),
        };
    }
    let is_place = |task: &&Arc<Task>| task.spec.container().is_none() && !view.state(task).is_terminal();
    if view.tasks_on(attachment.node).filter(is_place).count() >= MOST_PLACES {
        return Err(texts::too_many_attachments(MOST_PLACES));
    }
    let id = attachment.place.unwrap_or_else(|| TaskId::new(bits));
    let spec = TaskSpec {
        runtime: TaskRuntime::Attachment { container: attachment.container },
        networks: vec![NetworkAttachmentConfig {
            target: network.id,
            aliases: attachment.aliases,
            addresses: attachment.addresses,
            driver_options: Labels::new(),
        }],
        ..TaskSpec::default()
    };
    let task = Task {
        meta: Meta::new(now),
        node: Some(attachment.node),
        name: attachment.name.into(),
        status: TaskStatus { since: now, message: Arc::clone(&CREATED), ..TaskStatus::default() },
        ..Task::new(id, Arc::new(spec))
    };
    validate::fits_object(ObjectKind::Task, &task)?;
    Ok((id, vec![StoreAction::Create(task.into())]))
}

fn is_place_of(task: &Task, attachment: &Attachment, network: NetworkId) -> bool {
    let container = match &task.spec.runtime {
        TaskRuntime::Attachment { container } => container,
        TaskRuntime::Container(_) => return false,
    };
    *container == attachment.container
        && task.node == Some(attachment.node)
        && task.spec.networks.iter().any(|it| it.target == network)
}

/// Removes the task: the node that asked for it does not wait for it any more.
///
/// # Errors
/// When there is no such attachment, or it is of another node.
pub fn detach_network(view: &View<'_>, id: TaskId, node: NodeId) -> Result<Vec<StoreAction>, ControlError> {
    let attachment = view.task(id).filter(|task| task.spec.container().is_none());
    let attachment = attachment.ok_or_else(|| texts::attachment_not_found(id))?;
    if attachment.node != Some(node) {
        return Err(texts::attachment_of_another_node(id));
    }
    Ok(vec![StoreAction::Remove(id.into())])
}

#[cfg(test)]
mod tests;
