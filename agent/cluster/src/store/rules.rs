//! What an object may become and when it may leave, whoever proposes it.

use super::StoreError;
use super::object::Object;
use crate::objects::{Task, TaskState};

/// Whether `new` may take the place of `old`.
pub(super) fn may_become(old: &Object, new: &Object) -> Result<(), StoreError> {
    match (old, new) {
        (Object::Task(old), Object::Task(new)) => task_may_become(old, new),
        _ => Ok(()),
    }
}

/// Whether `old` may be removed. Of a task that a worker may have, only after its end; but a plain container's attachment
/// goes when its node says that the container has left.
pub(super) fn may_leave(old: &Object) -> Result<(), StoreError> {
    let Object::Task(task) = old else { return Ok(()) };
    let may_run = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
    if may_run && task.service.is_some() { Err(StoreError::NotEnded(task.id)) } else { Ok(()) }
}

fn task_may_become(old: &Task, new: &Task) -> Result<(), StoreError> {
    let backwards = |from, to| StoreError::StateBackwards { task: old.id, from, to };
    if new.status.state < old.status.state {
        return Err(backwards(old.status.state, new.status.state));
    }
    let (from, to) = (old.status.state, new.status.state);
    if from.is_terminal() && from != to {
        return Err(StoreError::Ended { task: old.id, from, to });
    }
    if new.desired_state < old.desired_state {
        return Err(backwards(old.desired_state, new.desired_state));
    }
    let fixed = [
        ("spec", new.spec != old.spec),
        ("service", new.service != old.service),
        ("slot", new.slot != old.slot),
        ("node", old.node.is_some() && new.node != old.node),
    ];
    match fixed.iter().find(|(_, changed)| *changed) {
        Some((field, _)) => Err(StoreError::Fixed { task: old.id, field }),
        None => Ok(()),
    }
}
