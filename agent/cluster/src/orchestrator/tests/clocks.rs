//! Leaders whose clocks differ: what waits is not held up, and what is safe stays so.

use super::*;
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::UpdateState;
use crate::orchestrator::fence;

const DAY: u64 = 24 * 3600;

/// The next leader's clock is right again: it is a day behind.
fn correct(cluster: &mut Simulated) {
    cluster.change_leader_behind(DAY as i64);
    cluster.settle();
}

fn ahead(service: Service) -> Simulated {
    let mut cluster = running(service);
    cluster.pass(DAY);
    cluster
}

#[test]
fn a_restart_is_not_held_up() {
    let mut cluster = ahead(replicated(1));
    let old = cluster.running()[0].id;
    cluster.set_state(old, TaskState::Failed);
    cluster.settle();
    correct(&mut cluster);
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Running]);
}

#[test]
fn nor_what_was_refused_while_it_was_held() {
    let mut cluster = ahead(replicated(1));
    let old = cluster.running()[0].id;
    cluster.set_state(old, TaskState::Failed);
    cluster.settle();
    let held = slot(&cluster, 1)[1].id;
    cluster.set_state(held, TaskState::Rejected);
    correct(&mut cluster);
    cluster.pass(10);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[2].desired_state, TaskState::Running);
}

#[test]
fn a_drained_task_is_not_waited_for_a_day() {
    let mut cluster = ahead(replicated(1));
    cluster.set_availability(1, Availability::Drain);
    cluster.settle();
    correct(&mut cluster);
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Running]);
}

#[test]
fn a_leader_that_is_behind_by_seconds_keeps_the_wait() {
    let mut cluster = running(replicated(1));
    cluster.pass(100);
    cluster.set_availability(1, Availability::Drain);
    cluster.settle();
    cluster.change_leader_behind(5);
    cluster.settle();
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Ready]);
    cluster.pass(65);
    cluster.settle();
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Running]);
}

#[test]
fn a_fence_and_an_orphans_day_begin_again_when_the_loss_lies_ahead() {
    let mut service = replicated(1);
    service.spec.labels.insert(fence::LABEL.to_owned(), "30s".to_owned());
    let mut cluster = ahead(service);
    cluster.set_node_state(1, NodeState::Down);
    cluster.settle();
    correct(&mut cluster);
    let corrected = cluster.now;
    assert_eq!(cluster.store.node(crate::id::NodeId::of(1)).unwrap().status.since, corrected);
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Ready], "too early is not safe");
    assert_eq!(cluster.wake_at, Some(corrected.after(seconds(30))));
    cluster.pass(30);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Running);
    assert_eq!(slot(&cluster, 1)[0].status.state, TaskState::Assigned, "it is not orphaned yet");
    cluster.pass(DAY);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[0].status.state, TaskState::Orphaned);
}

#[test]
fn an_update_is_watched_by_what_workers_tell_each_leader() {
    for behind in [0, 60, -3600] {
        let mut cluster = running(replicated(1));
        cluster.pass(10_000);
        cluster.set_image("new");
        while cluster.running().first().is_none_or(|task| task.spec.container().unwrap().image != "new") {
            cluster.settle();
            cluster.work();
        }
        cluster.pass(2);
        cluster.change_leader_behind(behind);
        cluster.work();
        cluster.settle();
        assert_eq!(cluster.update_state(), Some(UpdateState::Updating), "{behind}");
        assert_eq!(cluster.wake_at, Some(cluster.now.after(seconds(3))), "five seconds in all");
        cluster.pass(3);
        cluster.settle();
        assert_eq!(cluster.update_state(), Some(UpdateState::Completed));
    }
}
