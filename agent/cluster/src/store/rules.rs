//! What an object may become, whoever proposes it.

use super::StoreError;
use super::object::Object;
use crate::objects::Task;

/// Whether `new` may take the place of `old`.
pub(super) fn may_become(old: &Object, new: &Object) -> Result<(), StoreError> {
    match (old, new) {
        (Object::Task(old), Object::Task(new)) => task_may_become(old, new),
        _ => Ok(()),
    }
}

fn task_may_become(old: &Task, new: &Task) -> Result<(), StoreError> {
    let backwards = |from, to| StoreError::StateBackwards { task: old.id, from, to };
    if new.status.state < old.status.state {
        return Err(backwards(old.status.state, new.status.state));
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
