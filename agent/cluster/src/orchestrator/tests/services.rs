//! Replicated and global services, the restart supervisor, the enforcer, orphans.

use super::*;
use crate::id::NodeId;
use crate::objects::node::{Availability, NodeState};
use crate::objects::task::{RestartCondition, RestartPolicy};
use crate::objects::{Driver, EndpointSpec, ServiceMode};
use crate::orchestrator::{fence, texts};

#[test]
fn a_new_task_says_whose_it_is() {
    let mut service = replicated(1);
    service.spec.labels.insert("of".to_owned(), "service".to_owned());
    service.spec.endpoint = Some(EndpointSpec::default());
    let mut cluster = Simulated::new(0, service);
    let mut object = crate::objects::Cluster::clone(cluster.store.cluster().unwrap());
    object.spec.log_driver = Some(Driver { name: "local".to_owned(), ..Driver::default() });
    cluster.write(object);
    cluster.settle();
    let [task] = cluster.tasks().try_into().unwrap();
    assert_eq!(*task.name, *format!("service-1.1.{}", task.id));
    assert_eq!((&*task.service_name, task.service_labels["of"].as_str()), ("service-1", "service"));
    assert_eq!((task.status.state, &*task.status.message), (TaskState::New, &**texts::CREATED));
    assert_eq!(task.desired_state, TaskState::Running);
    assert_eq!(task.spec_version, cluster.service().spec_version);
    assert_eq!(task.log_driver.map(|driver| driver.name), Some("local".to_owned()), "the cluster's default");
    assert!(std::sync::Arc::ptr_eq(&task.spec, &cluster.service().spec.task), "one spec for all");
}

#[test]
fn a_global_task_is_named_by_its_node() {
    let cluster = running(fixture::service(1, ServiceMode::Global));
    for task in cluster.running() {
        assert_eq!(*task.name, *format!("service-1.{}.{}", task.node.unwrap(), task.id));
    }
    assert_eq!(cluster.running().len(), 3);
}

#[test]
fn scaling_up_fills_the_lowest_free_numbers() {
    let mut cluster = running(replicated(5));
    cluster.update_spec(|spec| spec.mode = ServiceMode::Replicated { replicas: 3 });
    cluster.run(20);
    let kept = slots_of(&cluster.running());
    assert_eq!(kept, [1, 2, 3], "one on each node is kept, the second copies go");
    cluster.update_spec(|spec| spec.mode = ServiceMode::Replicated { replicas: 4 });
    cluster.run(20);
    assert_eq!(slots_of(&cluster.running()), [1, 2, 3, 4]);
    assert_eq!(cluster.tasks().len(), 4, "what was scaled away is not kept");
}

#[test]
fn scaling_down_keeps_what_runs_and_spreads_the_rest() {
    let mut cluster = running(replicated(3));
    let first = slot(&cluster, 1)[0].clone();
    cluster.set_state(first.id, TaskState::Failed);
    cluster.settle();
    cluster.update_spec(|spec| spec.mode = ServiceMode::Replicated { replicas: 2 });
    cluster.settle();
    assert_eq!(slots_of(&cluster.running()), [2, 3], "slot 1 waits for its restart");
}

#[test]
fn scaling_down_right_after_a_leader_change_keeps_what_is_older() {
    let mut cluster = running(replicated(3));
    let first = slot(&cluster, 1)[0].clone();
    cluster.set_state(first.id, TaskState::Failed);
    cluster.settle();
    cluster.pass(5);
    cluster.settle();
    cluster.change_leader();
    cluster.update_spec(|spec| spec.mode = ServiceMode::Replicated { replicas: 2 });
    cluster.settle();
    cluster.work();
    assert_eq!(slots_of(&cluster.running()), [2, 3]);
}

#[test]
fn the_tasks_of_a_removed_service_go() {
    let mut cluster = running(replicated(2));
    let service = cluster.service().id;
    let mut removal = crate::reconciled::Reconciled::default();
    removal.remove(service);
    fixture::apply(&mut cluster.store, removal);
    let mut bits = fixture::counter(1);
    let wanted = crate::orchestrator::reconcile_service(&cluster.view(), service, cluster.now, &mut bits);
    fixture::apply(&mut cluster.store, wanted);
    assert_eq!(wishes(&cluster.tasks()), [TaskState::Remove; 2]);
    assert!(
        crate::orchestrator::reap(&cluster.view(), service, cluster.now).actions.is_empty(),
        "they run still"
    );
    cluster.work();
    let wanted = crate::orchestrator::reap(&cluster.view(), service, cluster.now);
    fixture::apply(&mut cluster.store, wanted);
    assert!(cluster.tasks().is_empty());
}

#[test]
fn a_restart_is_prepared_at_once_and_started_after_the_delay() {
    let mut cluster = running(replicated(1));
    let old = slot(&cluster, 1)[0].clone();
    cluster.set_state(old.id, TaskState::Failed);
    cluster.settle();
    let tasks = slot(&cluster, 1);
    assert_eq!(wishes(&tasks), [TaskState::Shutdown, TaskState::Ready]);
    assert_eq!(tasks[1].replaces, Some(old.id));
    assert_eq!(tasks[1].start_after, Some(cluster.now.after(seconds(5))));
    assert_eq!(cluster.wake_at, Some(cluster.now.after(seconds(5))));
    cluster.pass(4);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Ready);
    cluster.pass(1);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Running);
}

#[test]
fn a_successor_that_is_refused_while_it_is_held_does_not_spin() {
    let mut cluster = running(replicated(1));
    let old = slot(&cluster, 1)[0].clone();
    cluster.set_state(old.id, TaskState::Failed);
    cluster.settle();
    let successor = slot(&cluster, 1)[1].clone();
    cluster.set_state(successor.id, TaskState::Rejected);
    cluster.settle();
    assert_eq!(slot(&cluster, 1).len(), 2, "its own delay must pass first");
    cluster.pass(5);
    cluster.settle();
    let tasks = slot(&cluster, 1);
    assert_eq!(tasks.len(), 3);
    assert_eq!(tasks[2].start_after, Some(cluster.now.after(seconds(5))));
}

fn with_policy(condition: RestartCondition, max_attempts: u64, window: u64) -> crate::objects::Service {
    let policy = RestartPolicy { condition, delay: seconds(1), max_attempts, window: seconds(window) };
    with_task(replicated(1), |task| task.restart = Some(policy))
}

/// Ends the running task of slot 1, and lets its successor run if there is one.
fn end(cluster: &mut Simulated, state: TaskState) {
    let running = cluster.running();
    cluster.set_state(running[0].id, state);
    cluster.run(20);
}

#[test]
fn conditions() {
    let cases = [
        (RestartCondition::Any, TaskState::Complete, 1),
        (RestartCondition::Any, TaskState::Failed, 1),
        (RestartCondition::OnFailure, TaskState::Complete, 0),
        (RestartCondition::OnFailure, TaskState::Rejected, 1),
        (RestartCondition::None, TaskState::Failed, 0),
    ];
    for (condition, state, running_after) in cases {
        let mut cluster = running(with_policy(condition, 0, 0));
        end(&mut cluster, state);
        assert_eq!(cluster.running().len(), running_after, "{condition:?} {state:?}");
    }
}

#[test]
fn attempts_are_counted_in_all_time_and_until_the_spec_changes() {
    let mut cluster = running(with_policy(RestartCondition::Any, 2, 0));
    for left in [1, 1, 0] {
        end(&mut cluster, TaskState::Failed);
        assert_eq!(cluster.running().len(), left);
        cluster.pass(1000);
    }
    cluster.run(100);
    assert!(cluster.running().is_empty(), "given up for good");
    cluster.set_image("new");
    cluster.run(20);
    assert_eq!(cluster.running().len(), 1);
    end(&mut cluster, TaskState::Failed);
    assert_eq!(cluster.running().len(), 1, "a new spec version counts anew");
}

#[test]
fn attempts_are_counted_within_the_window() {
    let mut cluster = running(with_policy(RestartCondition::Any, 1, 30));
    end(&mut cluster, TaskState::Failed);
    cluster.pass(60);
    end(&mut cluster, TaskState::Failed);
    assert_eq!(cluster.running().len(), 1, "the first attempt is out of the window");
    end(&mut cluster, TaskState::Failed);
    assert!(cluster.running().is_empty());
}

#[test]
fn a_lost_node_is_replaced_without_delay_or_wait() {
    let mut cluster = running(replicated(3));
    let lost = slot(&cluster, 1)[0].clone();
    cluster.set_node_state(1, NodeState::Down);
    cluster.settle();
    let tasks = slot(&cluster, 1);
    assert_eq!(lost.node, Some(NodeId::of(1)));
    assert_eq!(wishes(&tasks), [TaskState::Shutdown, TaskState::Running]);
    assert_eq!((tasks[1].start_after, tasks[1].status.state), (None, TaskState::Assigned));
    assert_eq!(cluster.view().state(&tasks[0]), TaskState::Running, "nobody knows better");
    cluster.pass(24 * 3600);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[0].status.state, TaskState::Orphaned);
}

#[test]
fn a_fenced_service_waits_for_the_fence() {
    let mut service = replicated(3);
    service.spec.labels.insert(fence::LABEL.to_owned(), "30s".to_owned());
    let mut cluster = running(service);
    cluster.set_node_state(1, NodeState::Down);
    cluster.settle();
    assert_eq!(wishes(&slot(&cluster, 1)), [TaskState::Shutdown, TaskState::Ready]);
    assert_eq!(cluster.wake_at, Some(cluster.now.after(seconds(30))));
    cluster.pass(29);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Ready);
    cluster.pass(1);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Running);
}

#[test]
fn a_fence_holds_what_is_scaled_away_and_up_again() {
    let mut service = replicated(1);
    service.spec.labels.insert(fence::LABEL.to_owned(), "30s".to_owned());
    let mut cluster = running(service);
    cluster.set_node_state(1, NodeState::Down);
    for replicas in [0, 1] {
        cluster.update_spec(|spec| spec.mode = ServiceMode::Replicated { replicas });
        cluster.settle();
    }
    let newest = slot(&cluster, 1).pop().unwrap();
    assert_eq!((newest.desired_state, newest.replaces), (TaskState::Ready, None));
    assert_eq!(cluster.wake_at, Some(cluster.now.after(seconds(30))));
    cluster.pass(30);
    cluster.settle();
    assert_eq!(slot(&cluster, 1).pop().unwrap().desired_state, TaskState::Running);
}

#[test]
fn a_fenced_task_that_does_not_stop_is_waited_for() {
    let mut service = replicated(3);
    service.spec.labels.insert(fence::LABEL.to_owned(), "30s".to_owned());
    let mut cluster = running(service);
    cluster.set_availability(1, Availability::Drain);
    cluster.settle();
    cluster.pass(3600);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Ready);
    cluster.work();
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Running);
}

#[test]
fn a_drained_nodes_task_has_a_minute_to_stop() {
    let mut cluster = running(replicated(3));
    cluster.pass(10);
    cluster.set_availability(1, Availability::Drain);
    cluster.settle();
    let tasks = slot(&cluster, 1);
    assert_eq!(wishes(&tasks), [TaskState::Shutdown, TaskState::Ready]);
    assert_eq!(tasks[1].start_after, None, "no delay");
    cluster.pass(59);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Ready);
    cluster.pass(1);
    cluster.settle();
    assert_eq!(slot(&cluster, 1)[1].desired_state, TaskState::Running);
}

#[test]
fn a_removed_nodes_tasks_are_orphaned_and_forgotten() {
    let mut cluster = running(replicated(3));
    let mut removal = crate::reconciled::Reconciled::default();
    removal.remove(NodeId::of(1));
    fixture::apply(&mut cluster.store, removal);
    cluster.run(20);
    assert_eq!(cluster.running().len(), 3);
    assert_eq!(cluster.store.tasks_on(NodeId::of(1)).count(), 0);
}

#[test]
fn a_containers_attachment_is_forgotten_when_it_has_ended() {
    let mut cluster = running(replicated(1));
    let mut attachment = fixture::task(99, cluster.service(), 0);
    attachment.service = None;
    attachment.node = Some(NodeId::of(1));
    attachment.status.state = TaskState::Assigned;
    let runtime = crate::objects::task::TaskRuntime::Attachment { container: "c".to_owned() };
    std::sync::Arc::make_mut(&mut attachment.spec).runtime = runtime;
    let id = attachment.id;
    fixture::apply(&mut cluster.store, {
        let mut made = crate::reconciled::Reconciled::default();
        made.create(attachment);
        made
    });
    cluster.run(20);
    assert!(cluster.store.task(id).is_some(), "its container is in the network");
    cluster.set_state(id, TaskState::Complete);
    cluster.settle();
    assert!(cluster.store.task(id).is_none());
}

#[test]
fn a_global_service_follows_nodes_and_their_availability() {
    let mut service = fixture::service(1, ServiceMode::Global);
    service =
        with_task(service, |task| task.placement.constraints = vec!["node.hostname != node-3".to_owned()]);
    let mut cluster = running(service);
    let nodes = |cluster: &Simulated| -> Vec<u64> {
        (1..=3)
            .filter(|n| cluster.running().iter().any(|task| task.node == Some(NodeId::of((*n).into()))))
            .collect()
    };
    assert_eq!(nodes(&cluster), [1, 2]);
    cluster.set_availability(1, Availability::Drain);
    cluster.run(20);
    assert_eq!(nodes(&cluster), [2], "nothing takes its place elsewhere");
    cluster.set_availability(1, Availability::Active);
    cluster.set_availability(2, Availability::Pause);
    cluster.set_image("new");
    cluster.run(20);
    assert_eq!(nodes(&cluster), [1, 2], "a paused node keeps what it has");
    let images: Vec<_> = cluster
        .running()
        .iter()
        .map(|task| (task.node, task.spec.container().unwrap().image.clone()))
        .collect();
    assert!(images.contains(&(Some(NodeId::of(2)), String::new())), "and is not updated: {images:?}");
    let paused = cluster.running().into_iter().find(|task| task.node == Some(NodeId::of(2))).unwrap();
    cluster.set_state(paused.id, TaskState::Failed);
    cluster.run(20);
    assert_eq!(nodes(&cluster), [1], "nothing new comes to a paused node");
}

#[test]
fn a_global_slot_that_opens_again_is_filled_whatever_the_policy() {
    let constraint = "node.labels.zone == a".to_owned();
    for condition in [RestartCondition::None, RestartCondition::OnFailure] {
        let policy = RestartPolicy { condition, ..RestartPolicy::default() };
        let service = with_task(fixture::service(1, ServiceMode::Global), |task| {
            task.restart = Some(policy);
            task.placement.constraints = vec![constraint.clone()];
        });
        let mut cluster = Simulated::new(3, service);
        let set_zone = |cluster: &mut Simulated, zone: &str| {
            let zone = zone.to_owned();
            cluster.change_node(1, |node| drop(node.spec.labels.insert("zone".to_owned(), zone)));
            cluster.settle();
        };
        set_zone(&mut cluster, "a");
        cluster.run(20);
        for round in 0..3 {
            let [task] = cluster.running().try_into().unwrap();
            match round {
                0 => cluster.set_availability(1, Availability::Drain),
                1 => cluster.set_node_state(1, NodeState::Down),
                _ => set_zone(&mut cluster, "b"),
            }
            cluster.settle();
            // Its container takes the signal and ends with 0.
            cluster.set_state(task.id, TaskState::Complete);
            cluster.run(20);
            assert!(cluster.running().is_empty());
            cluster.set_availability(1, Availability::Active);
            cluster.set_node_state(1, NodeState::Ready);
            set_zone(&mut cluster, "a");
            cluster.run(20);
            assert_eq!(cluster.running().len(), 1, "{condition:?}, round {round}");
        }
        let [task] = cluster.running().try_into().unwrap();
        cluster.set_state(task.id, TaskState::Complete);
        cluster.run(20);
        cluster.set_availability(1, Availability::Drain);
        cluster.run(20);
        cluster.set_availability(1, Availability::Active);
        cluster.run(20);
        assert!(cluster.running().is_empty(), "what has ended by itself stays given up: {condition:?}");
    }
}

#[test]
fn how_a_task_ends_that_was_asked_to_stop_is_no_matter_of_its_policy() {
    let cases = [(RestartCondition::OnFailure, 1), (RestartCondition::Any, 1), (RestartCondition::None, 0)];
    for (condition, running_after) in cases {
        let constraint = "node.labels.zone != b".to_owned();
        let service =
            with_task(with_policy(condition, 1, 0), |task| task.placement.constraints = vec![constraint]);
        let mut cluster = running(service);
        let [task] = cluster.running().try_into().unwrap();
        cluster.change_node(1, |node| drop(node.spec.labels.insert("zone".to_owned(), "b".to_owned())));
        let enforced = crate::orchestrator::reconcile_node(&cluster.view(), NodeId::of(1), cluster.now);
        fixture::apply(&mut cluster.store, enforced);
        cluster.set_state(task.id, TaskState::Complete);
        cluster.run(20);
        assert_eq!(cluster.running().len(), running_after, "{condition:?}");
        assert!(cluster.running().iter().all(|task| task.start_after.is_none()), "no attempt");
    }
}

#[test]
fn the_enforcer_moves_what_a_changed_node_does_not_allow() {
    let constraint = "node.labels.zone == a".to_owned();
    let mut cluster =
        Simulated::new(3, with_task(replicated(2), |task| task.placement.constraints = vec![constraint]));
    for node in [1, 2] {
        cluster.change_node(node, |node| drop(node.spec.labels.insert("zone".to_owned(), "a".to_owned())));
    }
    cluster.run(20);
    cluster.set_availability(1, Availability::Pause);
    cluster.change_node(1, |node| node.spec.labels.clear());
    cluster.run(20);
    assert_eq!(cluster.store.tasks_on(NodeId::of(1)).count(), 1, "a paused node keeps its tasks");
    cluster.set_availability(1, Availability::Active);
    cluster.run(20);
    assert!(cluster.running().iter().all(|task| task.node == Some(NodeId::of(2))));
    assert_eq!(cluster.running().len(), 2);
}

#[test]
fn the_enforcer_keeps_the_oldest_that_fit() {
    let reserved = |task: &mut TaskSpec| task.resources.reservations.memory_bytes = 1 << 30;
    let mut cluster = Simulated::new(1, with_task(replicated(3), reserved));
    cluster.run(20);
    let before: Vec<_> = cluster.running().iter().map(|task| task.id).collect();
    assert_eq!(before.len(), 3);
    cluster.change_node(1, |node| {
        node.description.as_mut().unwrap().resources.memory_bytes = (2 << 30) + 1;
    });
    let wanted = crate::orchestrator::reconcile_node(&cluster.view(), NodeId::of(1), cluster.now);
    assert_eq!(wanted.actions.len(), 1, "two of them fit: {wanted:?}");
}

#[test]
fn a_node_that_lists_more_than_can_be_counted_is_no_fault() {
    let mut cluster = running(replicated(1));
    cluster.change_node(1, |node| {
        let slots = crate::objects::GenericResource::Count { kind: "slot".to_owned(), amount: u64::MAX };
        node.description.as_mut().unwrap().resources.generic = vec![slots.clone(), slots];
    });
    cluster.run(20);
    assert_eq!(cluster.running().len(), 1);
}
