//! Replicated services: so many slots, numbered from 1.

use std::collections::BTreeSet;

use super::service_view::ServiceView;
use super::slot::{self, Slot};
use super::task::{self, Birth};
use super::update;
use crate::id::NewBits;
use crate::objects::TaskState;
use crate::reconciled::Reconciled;

/// Drops the least worthy slots when there are too many, looks after the rest, and fills the lowest free numbers when
/// there are too few.
pub(super) fn reconcile(service: &ServiceView<'_>, replicas: u64, bits: NewBits<'_>) -> Reconciled {
    let mut slots = Slot::numbered(service, |_| true);
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let mut wanted = Reconciled::default();
    if slots.len() > replicas {
        slot::by_worth(service, &mut slots);
        for task in slots.split_off(replicas).iter().flat_map(Slot::tasks) {
            wanted.update(task::stopped(task, TaskState::Remove, service.now));
        }
        slots.sort_by_key(|slot| slot.number);
    }
    wanted.extend(update::roll(service, &slots, bits));
    wanted.extend(filled(service, &slots, replicas, bits));
    wanted
}

fn filled(service: &ServiceView<'_>, slots: &[Slot<'_>], replicas: usize, bits: NewBits<'_>) -> Reconciled {
    let taken: BTreeSet<u64> = slots.iter().map(|slot| slot.number).collect();
    let missing = replicas.saturating_sub(slots.len());
    let mut wanted = Reconciled::default();
    for number in (1..).filter(|number| !taken.contains(number)).take(missing) {
        wanted.create(task::new(service, Birth::first(number, None, TaskState::Running), bits));
    }
    wanted
}
