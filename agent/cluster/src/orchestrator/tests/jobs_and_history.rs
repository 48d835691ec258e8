//! Jobs, and what the reaper keeps.

use super::*;
use crate::id::NodeId;
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::{JobStatus, UpdateState};
use crate::objects::task::{RestartCondition, RestartPolicy};
use crate::objects::{ServiceMode, UpdateConfig};
use crate::view::Told;

fn job(mode: ServiceMode) -> Service {
    let mut service = fixture::service(1, mode);
    service.job = Some(JobStatus { iteration: 0, last_execution: fixture::at(0), schedule: None });
    service
}

fn of_size(max_concurrent: u64, total_completions: u64) -> Service {
    job(ServiceMode::ReplicatedJob { max_concurrent, total_completions })
}

#[test]
fn a_job_runs_so_many_at_once_until_all_are_complete() {
    let mut cluster = Simulated::new(3, of_size(2, 5));
    cluster.settle();
    assert_eq!(slots_of(&cluster.tasks()), [0, 1]);
    assert_eq!(wishes(&cluster.tasks()), [TaskState::Complete; 2]);
    cluster.run(100);
    assert_eq!(slots_of(&cluster.tasks()), [0, 1, 2, 3, 4]);
    assert!(cluster.tasks().iter().all(|task| task.status.state == TaskState::Complete));
}

#[test]
fn what_has_completed_never_runs_again() {
    let mut cluster = running(of_size(1, 1));
    cluster.run(20);
    let [task] = cluster.tasks().try_into().unwrap();
    assert_eq!(task.status.state, TaskState::Complete);
    // A late, wrong word of its worker, and the loss of its node.
    cluster.observed.note(task.id, Told { state: TaskState::Failed, ..Told::default() }, cluster.now);
    cluster.set_node_state(1, NodeState::Down);
    cluster.pass(48 * 3600);
    cluster.run(20);
    assert_eq!(cluster.tasks().len(), 1);
}

#[test]
fn history_keeps_what_a_lost_task_has_completed() {
    let mut cluster = Simulated::new(3, of_size(1, 1));
    cluster.settle();
    cluster.work();
    cluster.set_history(0);
    let [task] = cluster.tasks().try_into().unwrap();
    let node = task.node.unwrap().bits();
    cluster.set_node_state(node, NodeState::Down);
    cluster.settle();
    cluster.set_node_state(node, NodeState::Ready);
    cluster.set_state(task.id, TaskState::Complete);
    cluster.settle();
    let other = cluster.tasks().into_iter().find(|it| it.id != task.id).unwrap();
    cluster.set_state(other.id, TaskState::Failed);
    cluster.run(20);
    let made: Vec<_> =
        cluster.tasks().into_iter().filter(|it| ![task.id, other.id].contains(&it.id)).collect();
    assert_eq!(made, [], "the place is done");
}

#[test]
fn an_end_that_is_only_told_is_not_run_again_by_this_leader() {
    let mut cluster = running(of_size(1, 1));
    let [task] = cluster.tasks().try_into().unwrap();
    cluster.observed.note(task.id, Told { state: TaskState::Complete, ..Told::default() }, cluster.now);
    cluster.settle();
    assert_eq!(cluster.tasks().len(), 1);
}

#[test]
fn the_second_run_of_what_has_completed_is_stopped() {
    for steps in 0..4 {
        let mut cluster = Simulated::new(3, of_size(1, 1));
        cluster.settle();
        cluster.work();
        let [first] = cluster.tasks().try_into().unwrap();
        cluster.set_node_state(1, NodeState::Down);
        cluster.settle();
        for _ in 0..steps {
            cluster.work();
            cluster.settle();
        }
        cluster.set_node_state(1, NodeState::Ready);
        cluster.set_state(first.id, TaskState::Complete);
        cluster.settle();
        let second = slot(&cluster, 0)[1].clone();
        assert_eq!(second.desired_state, TaskState::Shutdown, "after {steps} steps");
    }
}

#[test]
fn a_lost_jobs_task_runs_elsewhere_whatever_the_policy() {
    let restart = RestartPolicy { condition: RestartCondition::None, ..RestartPolicy::default() };
    let mut cluster = running(with_task(of_size(1, 1), |task| task.restart = Some(restart)));
    cluster.set_node_state(1, NodeState::Down);
    cluster.run(20);
    assert!(cluster.tasks().iter().any(|task| task.status.state == TaskState::Complete));
}

#[test]
fn an_update_begins_a_new_iteration() {
    let mut cluster = Simulated::new(3, of_size(1, 2));
    cluster.settle();
    cluster.work();
    let old = cluster.tasks()[0].clone();
    cluster.set_image("new");
    cluster.settle();
    assert_eq!(cluster.store.task(old.id).unwrap().desired_state, TaskState::Remove);
    cluster.run(50);
    let done: Vec<_> = cluster.tasks().into_iter().filter(|task| task.job_iteration == Some(1)).collect();
    assert_eq!(slots_of(&done), [0, 1]);
    assert!(done.iter().all(|task| task.status.state == TaskState::Complete));
    assert_eq!(cluster.store.task(old.id), None);
}

#[test]
fn a_failed_jobs_task_is_tried_as_often_as_its_policy_says() {
    let restart = RestartPolicy {
        condition: RestartCondition::Any,
        delay: seconds(1),
        max_attempts: 2,
        window: seconds(0),
    };
    let mut cluster = Simulated::new(3, with_task(of_size(1, 2), |task| task.restart = Some(restart)));
    cluster.set_image(super::super::simulated::BROKEN);
    cluster.run(200);
    assert_eq!(slots_of(&cluster.tasks()), [0, 0, 0, 1, 1, 1], "three runs in each, then given up");
}

#[test]
fn a_global_job_runs_once_on_each_node_that_comes() {
    let mut cluster = Simulated::new(2, job(ServiceMode::GlobalJob));
    cluster.run(50);
    assert_eq!(cluster.tasks().len(), 2);
    let mut wanted = crate::reconciled::Reconciled::default();
    wanted.create(fixture::node(3));
    fixture::apply(&mut cluster.store, wanted);
    cluster.run(50);
    assert_eq!(cluster.tasks().len(), 3);
    assert!(cluster.tasks().iter().all(|task| task.status.state == TaskState::Complete));
    assert!(cluster.tasks().iter().any(|task| task.node == Some(NodeId::of(3))));
}

fn fail_often(cluster: &mut Simulated, times: usize) {
    for _ in 0..times {
        let running = cluster.running();
        cluster.set_state(running[0].id, TaskState::Failed);
        cluster.run(20);
    }
}

#[test]
fn five_tasks_are_kept_for_each_slot() {
    for (limit, kept) in [(5, 5), (2, 2), (0, 1), (-1, 9)] {
        let mut cluster = running(replicated(1));
        cluster.set_history(limit);
        fail_often(&mut cluster, 8);
        assert_eq!(cluster.tasks().len(), kept, "limit {limit}");
        assert_eq!(cluster.running().len(), 1);
    }
}

#[test]
fn history_keeps_the_failures_that_the_scheduler_counts() {
    let mut cluster = running(replicated(1));
    cluster.set_history(0);
    for _ in 0..7 {
        let running = cluster.running();
        cluster.set_state(running[0].id, TaskState::Failed);
        for _ in 0..6 {
            cluster.settle();
            cluster.work();
            cluster.pass(2);
        }
    }
    let failed = |task: &Task| task.status.state == TaskState::Failed;
    assert_eq!(cluster.tasks().iter().filter(|task| failed(task)).count(), 5);
    cluster.run(20);
    assert!(!cluster.tasks().iter().any(failed), "for five minutes");
}

#[test]
fn history_keeps_what_the_restart_policy_counts() {
    let restart = RestartPolicy { max_attempts: 7, delay: seconds(1), ..RestartPolicy::default() };
    let mut cluster = running(with_task(replicated(1), |task| task.restart = Some(restart)));
    cluster.set_history(0);
    fail_often(&mut cluster, 8);
    assert!(cluster.running().is_empty(), "given up after seven attempts");
    assert_eq!(cluster.tasks().len(), 8);
    cluster.pass(100_000);
    cluster.run(20);
    assert!(cluster.running().is_empty(), "and not forgotten");
}

#[test]
fn attempts_are_counted_across_lost_nodes() {
    let restart = RestartPolicy { max_attempts: 2, delay: seconds(1), ..RestartPolicy::default() };
    let mut cluster = running(with_task(replicated(1), |task| task.restart = Some(restart)));
    cluster.set_history(0);
    fail_often(&mut cluster, 2);
    for node in [1, 2, 3, 1, 2, 3] {
        cluster.set_availability(node, Availability::Drain);
        cluster.run(20);
        cluster.set_availability(node, Availability::Active);
    }
    fail_often(&mut cluster, 1);
    assert!(cluster.running().is_empty(), "both attempts were made before the nodes were drained");
}

#[test]
fn a_slot_that_was_given_up_is_not_forgotten() {
    let restart = RestartPolicy { condition: RestartCondition::None, ..RestartPolicy::default() };
    let mut cluster = running(with_task(replicated(1), |task| task.restart = Some(restart)));
    cluster.set_history(0);
    fail_often(&mut cluster, 1);
    assert_eq!((cluster.running().len(), cluster.tasks().len()), (0, 1));
}

#[test]
fn history_keeps_what_an_update_counts() {
    let mut service = replicated(3);
    service.spec.update = Some(UpdateConfig { max_failure_ratio: 0.5, ..UpdateConfig::default() });
    let mut cluster = running(service);
    cluster.set_history(0);
    cluster.set_image(super::super::simulated::BROKEN);
    cluster.run(100);
    assert_eq!(cluster.update_state(), Some(UpdateState::Paused));
}

#[test]
fn a_fence_holds_for_a_removed_nodes_task() {
    let mut service = replicated(1);
    service.spec.labels.insert(crate::orchestrator::fence::LABEL.to_owned(), "30s".to_owned());
    let mut cluster = running(service);
    cluster.set_history(0);
    let mut removal = crate::reconciled::Reconciled::default();
    removal.remove(cluster.running()[0].node.unwrap());
    fixture::apply(&mut cluster.store, removal);
    cluster.settle();
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Ready]);
    cluster.pass(30);
    cluster.settle();
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Running], "and then the old one is forgotten");
}
