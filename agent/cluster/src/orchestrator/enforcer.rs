//! The constraint enforcer: moves tasks from a node that has changed so that they could not be placed there any more.
//!
//! It writes the desired state alone. SwarmKit also calls such a task rejected, while its container still runs: here its
//! address would be free too early. The restart supervisor replaces it once it sees that it is not wanted.

use std::collections::BTreeMap;

use super::task::{self, Wish};
use crate::constraint::Constraints;
use crate::id::NodeId;
use crate::objects::node::{Availability, NodeState};
use crate::objects::{GenericResource, Node, Resources, Task, TaskState};
use crate::reconciled::Reconciled;
use crate::time::Timestamp;
use crate::view::View;

/// Of an active node that is there: a drained one's tasks are the orchestrators', a paused one's stay.
pub(super) fn reconcile(view: &View<'_>, node: NodeId, now: Timestamp) -> Reconciled {
    let mut wanted = Reconciled::default();
    let Some(node) = view.node(node).filter(|node| is_enforced(node)) else { return wanted };
    let mut tasks: Vec<_> = view.tasks_on(node.id).filter(|task| is_placed(view, task)).collect();
    // The oldest keep their resources.
    tasks.sort_by_key(|task| (task.meta.created_at, task.id));
    let mut free = Free::of(node);
    for task in tasks {
        if !satisfies(node, task) || !free.claim(task) {
            wanted.update(task::stopped(view, task, Wish { desired: TaskState::Shutdown, now }));
        }
    }
    wanted
}

fn is_enforced(node: &Node) -> bool {
    node.spec.availability == Availability::Active && node.status.state == NodeState::Ready
}

fn is_placed(view: &View<'_>, task: &Task) -> bool {
    let goal = if task.job_iteration.is_some() { TaskState::Complete } else { TaskState::Running };
    let state = view.state(task);
    task.service.is_some()
        && task.desired_state <= goal
        && state >= TaskState::Assigned
        && !state.is_terminal()
}

fn satisfies(node: &Node, task: &Task) -> bool {
    let constraints = &task.spec.placement.constraints;
    constraints.is_empty() || Constraints::parse(constraints).is_ok_and(|constraints| constraints.allow(node))
}

/// What no task has claimed yet.
struct Free {
    nano_cpus: u64,
    memory_bytes: u64,
    counts: BTreeMap<String, u64>,
    named: BTreeMap<String, std::collections::BTreeSet<String>>,
}

impl Free {
    fn of(node: &Node) -> Self {
        let none = Resources::default();
        let resources = node.description.as_ref().map_or(&none, |description| &description.resources);
        let mut free = Self {
            nano_cpus: resources.nano_cpus,
            memory_bytes: resources.memory_bytes,
            counts: BTreeMap::new(),
            named: BTreeMap::new(),
        };
        for generic in &resources.generic {
            match generic {
                GenericResource::Count { kind, amount } => {
                    let free = free.counts.entry(kind.clone()).or_default();
                    *free = free.saturating_add(*amount);
                }
                GenericResource::Named { kind, values } => {
                    free.named.entry(kind.clone()).or_default().extend(values.iter().cloned());
                }
            }
        }
        free
    }

    /// Takes what the task reserves; false, and nothing is taken, when it is not there.
    fn claim(&mut self, task: &Task) -> bool {
        let reserved = &task.spec.resources.reservations;
        let fits = reserved.nano_cpus <= self.nano_cpus
            && reserved.memory_bytes <= self.memory_bytes
            && task.generic_resources.iter().all(|generic| self.has(generic));
        if fits {
            self.nano_cpus -= reserved.nano_cpus;
            self.memory_bytes -= reserved.memory_bytes;
            task.generic_resources.iter().for_each(|generic| self.take(generic));
        }
        fits
    }

    fn has(&self, generic: &GenericResource) -> bool {
        match generic {
            GenericResource::Count { kind, amount } => {
                self.counts.get(kind).is_some_and(|free| amount <= free)
            }
            GenericResource::Named { kind, values } => {
                self.named.get(kind).is_some_and(|free| values.is_subset(free))
            }
        }
    }

    fn take(&mut self, generic: &GenericResource) {
        match generic {
            GenericResource::Count { kind, amount } => {
                self.counts.entry(kind.clone()).and_modify(|free| *free = free.saturating_sub(*amount));
            }
            GenericResource::Named { kind, values } => {
                self.named
                    .entry(kind.clone())
                    .and_modify(|free| free.retain(|value| !values.contains(value)));
            }
        }
    }
}
