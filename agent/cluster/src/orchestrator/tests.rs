//! Single cases: what the reference says of each orchestrator, with its numbers.

mod clocks;
mod jobs_and_history;
mod rollouts;
mod services;
mod updates;

use std::time::Duration;

use super::simulated::Simulated;
use crate::fixture;
use crate::objects::{Service, Task, TaskSpec, TaskState};

/// A cluster of three nodes on which the service runs.
fn running(service: Service) -> Simulated {
    let mut cluster = Simulated::new(3, service);
    for _ in 0..4 {
        cluster.settle();
        cluster.work();
    }
    cluster.settle();
    cluster
}

fn with_task(mut service: Service, change: impl FnOnce(&mut TaskSpec)) -> Service {
    let mut task = TaskSpec::clone(&service.spec.task);
    change(&mut task);
    service.spec.task = task.into();
    service
}

/// The tasks of one slot, the oldest first.
fn slot(cluster: &Simulated, number: u64) -> Vec<Task> {
    let mut tasks: Vec<Task> = cluster.tasks().into_iter().filter(|task| task.slot == number).collect();
    tasks.sort_by_key(|task| task.meta.created_at);
    tasks
}

fn slots_of(tasks: &[Task]) -> Vec<u64> {
    let mut slots: Vec<u64> = tasks.iter().map(|task| task.slot).collect();
    slots.sort_unstable();
    slots
}

/// What each task of a slot is wanted to be.
fn wishes(tasks: &[Task]) -> Vec<TaskState> {
    tasks.iter().map(|task| task.desired_state).collect()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn replicated(replicas: u64) -> Service {
    fixture::replicated(1, replicas)
}
