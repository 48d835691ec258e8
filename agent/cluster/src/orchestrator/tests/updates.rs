//! Rolling updates and rollbacks.

use super::*;
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::{FailureAction, UpdateOrder, UpdateState};
use crate::objects::{ServiceMode, UpdateConfig};
use crate::orchestrator::simulated::BROKEN;
use crate::orchestrator::{fence, texts};

fn with_update(replicas: u64, config: UpdateConfig) -> Service {
    let mut service = replicated(replicas);
    service.spec.update = Some(config);
    service
}

fn images(cluster: &Simulated) -> Vec<String> {
    let mut tasks = cluster.running();
    tasks.sort_by_key(|task| task.slot);
    tasks.iter().map(|task| task.spec.container().unwrap().image.clone()).collect()
}

fn message(cluster: &Simulated) -> String {
    cluster.service().update_status.clone().unwrap().message
}

#[test]
fn one_slot_after_the_other_by_default() {
    let mut cluster = running(replicated(2));
    cluster.set_image("new");
    cluster.settle();
    let status = cluster.service().update_status.clone().unwrap();
    assert_eq!((status.state, status.slots), (UpdateState::Updating, 2));
    assert_eq!((status.message.as_str(), status.started_at), (texts::UPDATE_IN_PROGRESS, cluster.now));
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Ready]);
    assert_eq!(wishes(&slot(&cluster, 2)), [TaskState::Running]);
    cluster.run(100);
    assert_eq!(images(&cluster), ["new", "new"]);
    let status = cluster.service().update_status.clone().unwrap();
    assert_eq!((status.state, status.message.as_str()), (UpdateState::Completed, texts::UPDATE_COMPLETED));
    assert!(status.completed_at.is_some());
}

#[test]
fn the_last_slot_is_watched_before_the_update_completes() {
    let mut cluster = running(replicated(1));
    cluster.set_image("new");
    while cluster.running().first().is_none_or(|task| task.spec.container().unwrap().image != "new") {
        cluster.settle();
        cluster.work();
    }
    cluster.settle();
    assert_eq!(cluster.wake_at, Some(cluster.now.after(seconds(5))));
    cluster.pass(4);
    cluster.settle();
    assert_eq!(cluster.update_state(), Some(UpdateState::Updating));
    cluster.pass(1);
    cluster.settle();
    assert_eq!(cluster.update_state(), Some(UpdateState::Completed));
}

#[test]
fn the_delay_is_each_parallel_ones() {
    let config =
        UpdateConfig { parallelism: 2, delay: seconds(10), monitor: seconds(1), ..UpdateConfig::default() };
    let mut cluster = running(with_update(4, config));
    cluster.set_image("new");
    for _ in 0..5 {
        cluster.settle();
        cluster.work();
    }
    cluster.settle();
    assert_eq!(images(&cluster), ["new", "new", "", ""]);
    assert_eq!(cluster.wake_at, Some(cluster.now.after(seconds(10))));
    cluster.pass(10);
    cluster.settle();
    assert_eq!(cluster.running().len(), 2, "the next two are down now");
}

#[test]
fn start_first_never_takes_a_running_task_down() {
    let config = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
    let mut cluster = running(with_update(1, config));
    cluster.set_image("new");
    cluster.settle();
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Running, TaskState::Running]);
    for _ in 0..3 {
        assert!(images(&cluster).contains(&String::new()));
        cluster.work();
        cluster.settle();
    }
    cluster.run(50);
    assert_eq!(images(&cluster), ["new"]);
}

#[test]
fn a_fenced_service_stops_first() {
    let config = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
    let mut service = with_update(1, config);
    service.spec.labels.insert(crate::orchestrator::fence::LABEL.to_owned(), "30s".to_owned());
    let mut cluster = running(service);
    cluster.set_image("new");
    cluster.settle();
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Ready]);
}

#[test]
fn a_task_that_fails_before_it_runs_pauses_the_update_and_it_stays_paused() {
    let mut cluster = running(replicated(3));
    cluster.set_image(BROKEN);
    cluster.run(200);
    assert_eq!(cluster.update_state(), Some(UpdateState::Paused));
    let culprit = slot(&cluster, 1).into_iter().find(|task| task.status.state == TaskState::Failed).unwrap();
    let first_failed = message(&cluster);
    assert!(
        first_failed.starts_with("update paused due to failure or early termination of task "),
        "{first_failed}"
    );
    assert!(culprit.spec.container().unwrap().image == BROKEN);
    assert_eq!(images(&cluster), ["", ""], "the other slots were not touched");
    cluster.set_image("good");
    cluster.run(200);
    assert_eq!(images(&cluster), ["good"; 3]);
    assert_eq!(cluster.update_state(), Some(UpdateState::Completed));
}

#[test]
fn a_failure_after_the_monitored_time_is_none() {
    for (waits, state) in [(5, UpdateState::Paused), (6, UpdateState::Completed)] {
        let config = UpdateConfig { monitor: seconds(5), ..UpdateConfig::default() };
        let mut cluster = running(with_update(2, config));
        cluster.set_image("new");
        while images(&cluster).first().is_none_or(|image| image != "new") {
            cluster.settle();
            cluster.work();
        }
        let updated = cluster.running().into_iter().find(|task| task.spec_version.0 > 2).unwrap();
        cluster.pass(waits);
        cluster.set_state(updated.id, TaskState::Failed);
        cluster.run(100);
        assert_eq!(cluster.update_state(), Some(state), "after {waits} seconds");
    }
}

#[test]
fn the_ratio_is_of_the_slots_that_the_update_began_with() {
    let config = UpdateConfig { max_failure_ratio: 0.5, parallelism: 1, ..UpdateConfig::default() };
    let mut cluster = running(with_update(4, config));
    cluster.set_image(BROKEN);
    cluster.run(400);
    assert_eq!(cluster.update_state(), Some(UpdateState::Paused));
    assert_eq!(
        images(&cluster).iter().filter(|image| image.is_empty()).count(),
        1,
        "two failures are half, a third is more"
    );
}

#[test]
fn continue_goes_on_to_the_end() {
    let config = UpdateConfig { failure_action: FailureAction::Continue, ..UpdateConfig::default() };
    let mut cluster = running(with_update(2, config));
    cluster.set_image(BROKEN);
    cluster.run(100);
    assert_eq!(cluster.update_state(), Some(UpdateState::Completed));
}

#[test]
fn a_failed_update_is_rolled_back() {
    let config = UpdateConfig { failure_action: FailureAction::Rollback, ..UpdateConfig::default() };
    let mut cluster = running(with_update(3, config));
    cluster.set_image(BROKEN);
    while cluster.update_state() != Some(UpdateState::RollbackStarted) {
        cluster.settle();
        cluster.work();
        if let Some(UpdateState::RollbackCompleted) = cluster.update_state() {
            break;
        }
    }
    cluster.run(200);
    assert_eq!(images(&cluster), ["", "", ""]);
    assert_eq!(cluster.update_state(), Some(UpdateState::RollbackCompleted));
    assert_eq!(message(&cluster), texts::ROLLBACK_COMPLETED);
    assert_eq!(cluster.service().previous_spec, None);
}

#[test]
fn a_rollback_that_fails_pauses_and_stays_paused() {
    let config = UpdateConfig { failure_action: FailureAction::Rollback, ..UpdateConfig::default() };
    let mut service = with_update(2, config);
    service.spec.rollback = Some(config);
    let mut cluster = running(service);
    cluster.set_image(BROKEN);
    // The user's own rollback goes back to a spec that fails as well.
    let mut object = cluster.service().clone();
    object.previous_spec = Some(object.spec.clone());
    cluster.write(object);
    cluster.set_image("good");
    cluster.run(100);
    cluster.roll_back();
    assert_eq!(message(&cluster), texts::ROLLBACK_REQUESTED);
    cluster.run(200);
    assert_eq!(cluster.update_state(), Some(UpdateState::RollbackPaused));
    assert!(message(&cluster).starts_with("rollback paused due to failure"), "{}", message(&cluster));
    assert_eq!(images(&cluster), ["good"]);
}

#[test]
fn scaling_and_what_a_node_satisfies_replace_nothing() {
    let mut cluster = running(replicated(2));
    let before: Vec<_> = cluster.running().iter().map(|task| task.id).collect();
    cluster.update_spec(|spec| spec.mode = ServiceMode::Replicated { replicas: 3 });
    cluster.update_spec(|spec| {
        let mut task = TaskSpec::clone(&spec.task);
        task.placement.constraints = vec!["node.platform.os == linux".to_owned()];
        spec.task = task.into();
    });
    cluster.set_credentials("new");
    cluster.run(20);
    assert_eq!(cluster.update_state(), None);
    let after: Vec<_> = cluster.running().iter().map(|task| task.id).collect();
    assert!(before.iter().all(|id| after.contains(id)));
    assert_eq!(after.len(), 3);
}

#[test]
fn a_restart_with_new_credentials_is_no_update() {
    let mut cluster = running(replicated(2));
    cluster.set_credentials("new");
    cluster.settle();
    let first = slot(&cluster, 1)[0].id;
    cluster.set_state(first, TaskState::Failed);
    cluster.run(50);
    assert_eq!(cluster.update_state(), None);
    assert_eq!(slot(&cluster, 1)[1].spec, cluster.service().spec.task);
}

#[test]
fn new_credentials_replace_nothing_when_the_leader_changes() {
    let mut cluster = running(replicated(3));
    cluster.set_credentials("new");
    cluster.settle();
    cluster.change_leader();
    cluster.settle();
    assert_eq!((cluster.tasks().len(), cluster.update_state()), (3, None), "nobody has told it of an image");
}

#[test]
fn new_credentials_replace_a_task_that_has_no_image() {
    let mut cluster = Simulated::new(3, replicated(1));
    cluster.settle();
    cluster.work();
    cluster.set_credentials("new");
    cluster.run(30);
    assert_eq!(slot(&cluster, 1).len(), 2, "the first one was preparing");
}

#[test]
fn a_changed_endpoint_replaces_tasks() {
    let mut cluster = running(replicated(1));
    let before = cluster.running()[0].id;
    cluster.update_spec(|spec| {
        spec.endpoint = Some(crate::objects::EndpointSpec {
            mode: crate::objects::endpoint::ResolutionMode::DnsRr,
            ports: Vec::new(),
        });
    });
    cluster.run(50);
    assert_ne!(cluster.running()[0].id, before);
}

#[test]
fn rolling_back_in_the_middle_of_start_first_keeps_the_old_task() {
    let config = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
    let mut service = with_update(1, config);
    service.spec.rollback = Some(config);
    let mut cluster = running(service);
    let old = cluster.running()[0].id;
    cluster.set_image("new");
    cluster.settle();
    cluster.roll_back();
    cluster.run(50);
    assert_eq!(cluster.running().iter().map(|task| task.id).collect::<Vec<_>>(), [old]);
    assert_eq!(cluster.update_state(), Some(UpdateState::RollbackCompleted));
}

#[test]
fn what_a_lost_node_took_down_counts_against_the_next_update() {
    let mut service = fixture::service(1, ServiceMode::Global);
    service.spec.update = Some(UpdateConfig { parallelism: 2, ..UpdateConfig::default() });
    let mut cluster = running(service);
    cluster.set_availability(2, Availability::Pause);
    cluster.set_image("a");
    cluster.settle();
    cluster.set_node_state(1, NodeState::Down);
    cluster.settle();
    cluster.set_node_state(1, NodeState::Ready);
    cluster.set_availability(2, Availability::Active);
    cluster.set_image("b");
    cluster.settle();
    assert_eq!(cluster.running().len(), 1, "nodes 1 and 3 are down: node 2 is not touched");
    cluster.run(50);
    assert_eq!(images(&cluster), ["b", "b", "b"]);
}

#[test]
fn a_fence_that_is_put_on_reaches_the_tasks_that_run() {
    let mut cluster = running(replicated(2));
    let before: Vec<_> = cluster.running().iter().map(|task| task.id).collect();
    cluster.update_spec(|spec| drop(spec.labels.insert(fence::LABEL.to_owned(), "30s".to_owned())));
    cluster.run(100);
    assert_eq!(cluster.update_state(), Some(UpdateState::Completed));
    let after = cluster.running();
    assert_eq!(after.len(), 2);
    for task in &after {
        assert!(!before.contains(&task.id), "it was made without");
        assert_eq!(task.service_labels.get(fence::LABEL).map(String::as_str), Some("30s"));
    }
    cluster.update_spec(|spec| drop(spec.labels.insert("color".to_owned(), "blue".to_owned())));
    cluster.run(20);
    let ids = |tasks: &[Task]| tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!(ids(&cluster.running()), ids(&after), "another label replaces nothing");
}
