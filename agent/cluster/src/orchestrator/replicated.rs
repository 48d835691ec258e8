//! Replicated services: so many slots, numbered from 1.

use std::collections::BTreeSet;

use super::service_view::ServiceView;
use super::slot::{self, Slot};
use super::task::{self, Birth};
use super::{rebalance, update};
use crate::id::NewBits;
use crate::objects::TaskState;
use crate::reconciled::Reconciled;

/// Most tasks that one look at a service makes: the manager holds all that a look wants in memory, whole tasks. What is
/// missing still is made by the next look, which comes at once.
pub(super) const MAX_BIRTHS: usize = 1_000;

/// Drops the least worthy slots when there are too many, looks after the rest, and fills the lowest free numbers when
/// there are too few.
pub(super) fn reconcile(service: &ServiceView<'_>, replicas: u64, bits: NewBits<'_>) -> Reconciled {
    let mut slots = Slot::numbered(service, |_| true);
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let mut wanted = Reconciled::default();
    if slots.len() > replicas {
        slot::by_worth(service, &mut slots);
        for task in slots.split_off(replicas).iter().flat_map(Slot::tasks) {
            wanted.update(service.stopped(task, TaskState::Remove));
        }
        slots.sort_by_key(|slot| slot.number);
    }
    wanted.extend(update::roll(service, &slots, bits));
    wanted.extend(filled(service, &slots, replicas, bits));
    // Of a service that is as it is to be.
    if wanted.actions.is_empty() && slots.len() == replicas {
        wanted.extend(rebalance::step(service, &slots, bits));
    }
    wanted
}

fn filled(service: &ServiceView<'_>, slots: &[Slot<'_>], replicas: usize, bits: NewBits<'_>) -> Reconciled {
    let taken: BTreeSet<u64> = slots.iter().map(|slot| slot.number).collect();
    let missing = replicas.saturating_sub(slots.len());
    let mut wanted = Reconciled::default();
    for number in (1..).filter(|number| !taken.contains(number)).take(missing.min(MAX_BIRTHS)) {
        wanted.create(task::new(service, Birth::first(number, None, TaskState::Running), bits));
    }
    if missing > MAX_BIRTHS {
        wanted.wake(service.now);
    }
    wanted
}

#[cfg(test)]
mod tests {
    use crate::fixture;
    use crate::objects::service::JobStatus;
    use crate::objects::{Service, ServiceMode};
    use crate::orchestrator::reconcile_service;
    use crate::view::{Observed, View};

    /// How many tasks each look makes, until it asks for no other look.
    fn births(service: Service) -> Vec<usize> {
        let (id, now) = (service.id, fixture::at(9));
        let mut store = fixture::store([service.into()]);
        let (mut bits, mut births) = (fixture::counter(1), Vec::new());
        loop {
            let wanted = reconcile_service(&View::new(&store, &Observed::default()), id, now, &mut bits);
            births.push(wanted.actions.len());
            let again = wanted.wake_at;
            fixture::apply(&mut store, wanted);
            if again.is_none() {
                return births;
            }
            assert_eq!(again, Some(now), "it goes on at once");
        }
    }

    #[test]
    fn a_large_service_is_born_in_parts() {
        assert_eq!(births(fixture::replicated(1, 2_500)), [1_000, 1_000, 500]);
        assert_eq!(births(fixture::replicated(1, 1_000)), [1_000]);
    }

    #[test]
    fn a_large_job_is_born_in_parts() {
        let mode = ServiceMode::ReplicatedJob { max_concurrent: 1_500, total_completions: 4_000 };
        let job = Some(JobStatus { iteration: 0, last_execution: fixture::at(1), schedule: None });
        assert_eq!(births(Service { job, ..fixture::service(1, mode) }), [1_000, 500]);
    }
}
