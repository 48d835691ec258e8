//! What a job has done stays done: once an end was committed, nothing new is made in its place.

use std::collections::{BTreeMap, BTreeSet};

use ketch_cluster::id::{NodeId, ServiceId, TaskId};
use ketch_cluster::objects::{Service, ServiceMode, Task, TaskState};
use ketch_cluster::store::Store;

use crate::cluster::Cluster;
use crate::wishes;

/// Where a job runs once: a slot of one of its iterations, or a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    service: ServiceId,
    iteration: u64,
    slot: u64,
    /// Of a global job.
    node: Option<NodeId>,
}

/// The ends that were committed.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// The place's tasks as of when its end was first seen.
    done: BTreeMap<Place, BTreeSet<TaskId>>,
    /// Up to where the log was looked at: another manager's store may be older, and have what is gone.
    looked: u64,
}

impl Jobs {
    /// Looks at what is committed.
    pub(crate) fn look(&mut self, cluster: &Cluster) -> Result<(), String> {
        let Some((version, tasks)) = cluster.newest(|store| (store.version().0, tasks_by_place(store)))
        else {
            return Ok(());
        };
        if version < self.looked {
            return Ok(());
        }
        self.looked = version;
        for (place, tasks) in tasks {
            let ids = || tasks.iter().map(|(id, _)| *id);
            if let Some(known) = self.done.get(&place) {
                if let Some(new) = ids().find(|id| !known.contains(id)) {
                    return Err(format!("{new} was made in {place:?} after its end was committed"));
                }
            } else if tasks.iter().any(|(_, state)| *state == TaskState::Complete) {
                self.done.insert(place, ids().collect());
            }
        }
        Ok(())
    }
}

fn tasks_by_place(store: &Store) -> BTreeMap<Place, Vec<(TaskId, TaskState)>> {
    let mut places: BTreeMap<Place, Vec<_>> = BTreeMap::new();
    for service in store.services().filter(|service| service.spec.mode.is_job()) {
        for task in store.tasks_of(service.id) {
            let Some(place) = place_of(service, task) else { continue };
            places.entry(place).or_default().push((task.id, task.status.state));
        }
    }
    places
}

fn place_of(service: &Service, task: &Task) -> Option<Place> {
    let node = if service.spec.mode.is_bound_to_nodes() { task.node } else { None };
    Some(Place { service: service.id, iteration: task.job_iteration?, slot: task.slot, node })
}

/// Whether a job has come to its end: in all of its slots, or on all nodes that take tasks.
pub(crate) fn is_done(store: &Store, service: &Service) -> Result<(), String> {
    if service.job.and_then(|job| job.schedule).is_some_and(|schedule| !schedule.ran) {
        return Ok(());
    }
    let iteration = service.job.map(|job| job.iteration);
    let is_of_now = |task: &&std::sync::Arc<Task>| {
        task.job_iteration == iteration && task.status.state == TaskState::Complete
    };
    let done = || store.tasks_of(service.id).filter(is_of_now);
    let name = &service.spec.name;
    match service.spec.mode {
        ServiceMode::ReplicatedJob { total_completions, .. } => {
            let slots: BTreeSet<u64> = done().map(|task| task.slot).collect();
            let is_so = slots.len() as u64 == total_completions;
            if is_so { Ok(()) } else { Err(format!("{name} has done {slots:?} of {total_completions}")) }
        }
        ServiceMode::GlobalJob => {
            let nodes: BTreeSet<_> = done().filter_map(|task| task.node).collect();
            let mut wanted = store.nodes().filter(|it| wishes::takes_tasks(it));
            let missing = wanted.find(|it| !nodes.contains(&it.id));
            missing.map_or(Ok(()), |node| Err(format!("{name} is not done on {}", node.id)))
        }
        ServiceMode::Replicated { .. } | ServiceMode::Global => Ok(()),
    }
}
