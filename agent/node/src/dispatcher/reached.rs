//! Which node's container is meant by what a manager's user has typed. Pure, over the leader's view: where running tasks'
//! containers are is known to the leader alone.

use std::collections::BTreeSet;

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::Task;
use ketch_cluster::view::View;

use super::texts;
use crate::calls::{Scope, Target};
use crate::wire::Refusal;

/// A container's id, in digits.
const ID: usize = 64;
/// As many are looked for: of more than one it is told that there are several.
const MOST_FOUND: usize = 8;

/// The node, and what of it may be reached.
///
/// # Errors
/// There is none of that name or id, or more than one whose id begins so.
pub(super) fn reached(view: &View<'_>, target: &Target) -> Result<(NodeId, Scope), Refusal> {
    match target {
        Target::Node(node) if view.node(*node).is_some() => Ok((*node, Scope::List)),
        Target::Node(node) => Err(Refusal::NotFound(texts::no_node(*node))),
        Target::Task(task) => {
            with_node(view.task(*task).filter(|task| is_container(task)).map(|task| &**task))
                .ok_or_else(|| Refusal::NotFound(texts::no_task(*task)))
        }
        Target::Container(typed) => of_container(view, typed),
    }
}

fn of_container(view: &View<'_>, typed: &str) -> Result<(NodeId, Scope), Refusal> {
    let none = || Refusal::NotFound(texts::no_container(typed));
    let name = typed.strip_prefix('/').unwrap_or(typed);
    if let Some(task) = Task::of_container_name(name).and_then(|task| view.task(task)) {
        let named = Some(&**task).filter(|task| is_container(task) && task.container_name() == name);
        return with_node(named).ok_or_else(none);
    }
    if !may_be_id(typed) {
        return Err(none());
    }
    let found = view.tasks().filter(|task| is_container(task) && id_of(view, task).starts_with(typed));
    let found: Vec<&Task> = found.take(MOST_FOUND).map(|task| &**task).collect();
    match found.as_slice() {
        [one] => with_node(Some(one)).ok_or_else(none),
        [] => Err(none()),
        // An id that is whole begins nothing else: one of these nodes says what is not so, and it is not known which.
        several if typed.len() == ID => {
            let nodes = several.iter().filter_map(|task| task.node).map(|node| name_of(view, node));
            let nodes: BTreeSet<String> = nodes.collect();
            Err(Refusal::Invalid(texts::claimed(typed, &nodes)))
        }
        _ => Err(Refusal::Invalid(texts::several(typed))),
    }
}

fn with_node(task: Option<&Task>) -> Option<(NodeId, Scope)> {
    task.and_then(|task| Some((task.node?, Scope::Task(task.id))))
}

/// Places in networks are tasks as well, of containers that are none.
fn is_container(task: &Task) -> bool {
    task.spec.container().is_some()
}

/// As its worker has told it: what is no id is none.
fn id_of<'v>(view: &'v View<'v>, task: &'v Task) -> &'v str {
    let id = view.status(task).container.as_ref().map_or("", |container| container.id.as_str());
    if id.len() == ID && may_be_id(id) { id } else { "" }
}

fn may_be_id(typed: &str) -> bool {
    (1..=ID).contains(&typed.len()) && typed.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// As users know it.
pub(super) fn name_of(view: &View<'_>, node: NodeId) -> String {
    let hostname = view.node(node).and_then(|node| node.description.as_ref()).map(|it| it.hostname.clone());
    hostname.filter(|name| !name.is_empty()).unwrap_or_else(|| node.to_string())
}
