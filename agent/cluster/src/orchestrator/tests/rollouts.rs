//! Updates and rollbacks whose slots are down, come back, or share a spec version; and leaders whose clocks differ.

use super::*;
use crate::objects::node::Availability;
use crate::objects::service::{FailureAction, UpdateOrder, UpdateState};
use crate::objects::task::{RestartCondition, RestartPolicy};
use crate::objects::{ServiceMode, UpdateConfig};
use crate::orchestrator::simulated::BROKEN;

fn with_update(replicas: u64, config: UpdateConfig) -> Service {
    let mut service = replicated(replicas);
    service.spec.update = Some(config);
    with_task(service, |task| {
        task.restart = Some(RestartPolicy { delay: seconds(60), ..RestartPolicy::default() });
    })
}

fn rolling_back(replicas: u64) -> Service {
    with_update(replicas, UpdateConfig { failure_action: FailureAction::Rollback, ..UpdateConfig::default() })
}

fn image(task: &Task) -> &str {
    &task.spec.container().unwrap().image
}

/// Lets all work until the update's state is that one.
fn until(cluster: &mut Simulated, state: UpdateState) {
    for _ in 0..50 {
        if cluster.update_state() == Some(state) {
            return;
        }
        cluster.run(1);
    }
    panic!("never {state:?}: {:#?}", cluster.summary());
}

#[test]
fn a_rollback_starts_the_culprits_slot_at_once_and_completes_when_it_runs() {
    let mut cluster = running(rolling_back(1));
    cluster.set_image(BROKEN);
    until(&mut cluster, UpdateState::RollbackStarted);
    cluster.settle();
    let newest = slot(&cluster, 1).pop().unwrap();
    assert_eq!((image(&newest), newest.start_after), ("", None), "{:#?}", cluster.summary());
    assert_eq!(newest.desired_state, TaskState::Running);
    assert_eq!(cluster.update_state(), Some(UpdateState::RollbackStarted));
    let started = cluster.now;
    until(&mut cluster, UpdateState::RollbackCompleted);
    assert_eq!(cluster.running().len(), 1);
    assert!(cluster.now.since(started) >= seconds(5), "it was watched");
}

#[test]
fn a_rollback_to_what_fails_as_well_pauses() {
    let mut cluster = running(rolling_back(1));
    cluster.set_image(BROKEN);
    let mut service = cluster.service().clone();
    service.previous_spec = Some(service.spec.clone());
    let mut task = TaskSpec::clone(&service.spec.task);
    task.force_update = 1;
    service.spec.task = task.into();
    cluster.write(service);
    until(&mut cluster, UpdateState::RollbackPaused);
    assert!(cluster.running().is_empty());
}

#[test]
fn a_rollback_waits_for_a_slot_that_ran_and_restarts() {
    let mut cluster =
        running(with_update(2, UpdateConfig { monitor: seconds(1), ..UpdateConfig::default() }));
    cluster.set_image("new");
    cluster.run(100);
    cluster.roll_back();
    let rolled_back = |cluster: &Simulated| cluster.running().into_iter().find(|task| image(task).is_empty());
    while rolled_back(&cluster).is_none() {
        cluster.settle();
        cluster.work();
    }
    let first = rolled_back(&cluster).unwrap();
    cluster.pass(6);
    cluster.set_state(first.id, TaskState::Failed);
    until(&mut cluster, UpdateState::RollbackCompleted);
    assert_eq!(cluster.running().len(), 2, "{:#?}", cluster.summary());
}

#[test]
fn a_rollback_with_a_slot_that_is_given_up_pauses() {
    let config = UpdateConfig { monitor: seconds(1), ..UpdateConfig::default() };
    let policy = RestartPolicy { condition: RestartCondition::None, ..RestartPolicy::default() };
    let mut cluster = running(with_task(with_update(2, config), |task| task.restart = Some(policy)));
    cluster.set_image("new");
    cluster.run(100);
    cluster.roll_back();
    while cluster.running().iter().all(|task| image(task) == "new") {
        cluster.settle();
        cluster.work();
    }
    let first = cluster.running().into_iter().find(|task| image(task).is_empty()).unwrap();
    cluster.pass(6);
    cluster.set_state(first.id, TaskState::Failed);
    until(&mut cluster, UpdateState::RollbackPaused);
}

#[test]
fn an_update_starts_what_has_just_failed_and_counts_it() {
    let mut cluster = running(with_update(1, UpdateConfig::default()));
    let old = cluster.running()[0].id;
    cluster.set_state(old, TaskState::Failed);
    cluster.set_image(BROKEN);
    cluster.settle();
    let newest = slot(&cluster, 1).pop().unwrap();
    assert_eq!((image(&newest), newest.start_after), (BROKEN, None));
    assert_eq!(cluster.update_state(), Some(UpdateState::Updating));
    until(&mut cluster, UpdateState::Paused);
}

#[test]
fn a_leader_whose_clock_is_behind_counts_the_failures_of_an_update_as_well() {
    for back in [0, 30, 3600] {
        let mut cluster = running(with_update(2, UpdateConfig::default()));
        cluster.pass(10_000);
        cluster.set_image(BROKEN);
        // The update begins: its status is the first action.
        let mut bits = fixture::counter(1 << 40);
        let service = cluster.service().id;
        let mut begun =
            crate::orchestrator::reconcile_service(&cluster.view(), service, cluster.now, &mut bits);
        begun.actions.truncate(1);
        fixture::apply(&mut cluster.store, begun);
        cluster.change_leader_behind(back);
        until(&mut cluster, UpdateState::Paused);
    }
}

#[test]
fn a_paused_update_that_is_asked_for_again_goes_on_without_its_failures() {
    let mut cluster = running(with_update(3, UpdateConfig::default()));
    cluster.set_image(BROKEN);
    until(&mut cluster, UpdateState::Paused);
    let version = cluster.service().spec_version;
    let first = cluster.service().update_status.clone().unwrap();
    cluster.update_spec(|_| ());
    cluster.settle();
    let again = cluster.service().update_status.clone().unwrap();
    assert_eq!((again.state, again.slots, again.failed_before), (UpdateState::Updating, 2, 1));
    assert_eq!((first.failed_before, cluster.service().spec_version), (0, version));
    until(&mut cluster, UpdateState::Paused);
    assert_ne!(cluster.service().update_status.clone().unwrap().message, first.message, "another culprit");
    assert_eq!(cluster.running().len(), 1);
}

#[test]
fn a_node_that_comes_back_gets_the_present_spec_without_an_update() {
    let mut service = fixture::service(1, ServiceMode::Global);
    service.spec.update =
        Some(UpdateConfig { failure_action: FailureAction::Rollback, ..UpdateConfig::default() });
    let mut cluster = running(service);
    cluster.set_availability(1, Availability::Pause);
    cluster.set_image("new");
    until(&mut cluster, UpdateState::Completed);
    let completed = cluster.service().update_status.clone();
    cluster.set_availability(1, Availability::Active);
    cluster.run(30);
    assert!(cluster.running().iter().all(|task| image(task) == "new"));
    assert_eq!((cluster.running().len(), cluster.service().update_status.clone()), (3, completed));
}

#[test]
fn an_update_does_not_wait_for_what_an_older_task_made_needless() {
    let config = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
    let mut service = with_update(2, config);
    service.spec.rollback = Some(config);
    let mut cluster = running(service);
    let before: Vec<_> = cluster.running().iter().map(|task| task.id).collect();
    cluster.update_spec(|spec| {
        let mut task = TaskSpec::clone(&spec.task);
        task.placement.constraints = vec!["node.labels.zone == a".to_owned()];
        spec.task = task.into();
    });
    cluster.run(5);
    cluster.set_image("new");
    cluster.run(5);
    cluster.roll_back();
    cluster.run(5);
    for number in 1..=3 {
        cluster.change_node(number, |node| drop(node.spec.labels.insert("zone".to_owned(), "a".to_owned())));
    }
    until(&mut cluster, UpdateState::RollbackCompleted);
    assert_eq!(cluster.running().iter().map(|task| task.id).collect::<Vec<_>>(), before);
}

#[test]
fn so_many_of_ten_are_not_more_than_that_ratio() {
    for (parallelism, ratio) in [(7, 0.7), (9, 0.9), (1, 0.1)] {
        let config = UpdateConfig { max_failure_ratio: ratio, parallelism, ..UpdateConfig::default() };
        let mut cluster = running(with_update(10, config));
        cluster.set_image(BROKEN);
        for _ in 0..3 {
            cluster.settle();
            cluster.work();
        }
        let mut bits = fixture::counter(1 << 40);
        let service = cluster.service().id;
        let wanted = crate::orchestrator::reconcile_service(&cluster.view(), service, cluster.now, &mut bits);
        fixture::apply(&mut cluster.store, wanted);
        assert_eq!(cluster.update_state(), Some(UpdateState::Updating), "{ratio}");
        until(&mut cluster, UpdateState::Paused);
    }
}

#[test]
fn the_longest_delay_is_no_fault() {
    let mut cluster =
        running(with_update(1, UpdateConfig { delay: Duration::MAX, ..UpdateConfig::default() }));
    cluster.set_image("new");
    for _ in 0..10 {
        cluster.settle();
        cluster.work();
    }
    assert_eq!(cluster.running().iter().filter(|task| image(task) == "new").count(), 1);
}
