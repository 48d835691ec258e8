//! What is told of tasks, services and nodes, by how they came to be so.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::fixture;
use crate::id::{NodeId, TaskId};
use crate::objects::decision::{Decision, Placed};
use crate::objects::displacement::{self, Displacement};
use crate::objects::node::NodeState;
use crate::objects::service::{JobStatus, ScheduleStatus, UpdateState, UpdateStatus};
use crate::objects::task::ContainerStatus;
use crate::objects::{TaskStatus, node::Availability};
use crate::store::{Object, Store};
use crate::view::Observed;

fn told(objects: impl IntoIterator<Item = Object>, text: &str) -> Result<Explained, ControlError> {
    let store: Store = fixture::store(objects);
    explain(&View::new(&store, &Observed::default()), text, fixture::at(100))
}

fn shown(objects: impl IntoIterator<Item = Object>, text: &str) -> String {
    let explained = told(objects, text).unwrap();
    let json = serde_json::to_string(&explained).unwrap();
    assert_eq!(serde_json::from_str::<Explained>(&json).unwrap(), explained, "what the command reads");
    explained.to_string()
}

fn on(task: Task, node: &Node, state: TaskState, decision: Decision) -> Task {
    let status = TaskStatus { state, since: fixture::at(88), ..TaskStatus::default() };
    Task { node: Some(node.id), status, decision, ..task }
}

#[test]
fn a_restarted_task_says_of_what_the_one_before_died() {
    let (service, node) = (fixture::replicated(1, 1), fixture::node(2));
    let placed = Some(Placed { nodes: 3, of_service: 0, live: 4 });
    let mut dead = on(fixture::task(1, &service, 1), &node, TaskState::Failed, Decision::default());
    dead.status.container = Some(ContainerStatus { exit_code: 7, ..ContainerStatus::default() });
    dead.desired_state = TaskState::Shutdown;
    let cause = Cause::Restarted { exit_code: Some(7) };
    let mut next = on(fixture::task(2, &service, 1), &node, TaskState::Running, Decision { cause, placed });
    next.replaces = Some(dead.id);
    next.meta.created_at = fixture::at(90);
    let objects: Vec<Object> = vec![service.into(), node.into(), dead.into(), next.into()];
    let text = shown(objects.clone(), "service-1");
    for line in [
        "service service-1 (0000000000000000000000001): replicated, 1 wanted",
        "service-1.1 (0000000000000000000000002): running for 12s on node-2",
        "restarted: task 0000000000000000000000001 on node-2: failed for 12s with exit code 7",
        "on node-2: chosen of 3 nodes, with 0 tasks of the service and 4 in all",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let without: Vec<Object> =
        objects.into_iter().filter(|it| it.id() != crate::id::TaskId::of(1).into()).collect();
    let text = shown(without, "0000000000000000000000002");
    assert!(text.contains("restarted: the one before ended by itself with exit code 7"), "{text}");
}

#[test]
fn a_pending_task_says_what_each_node_lacks() {
    let mut service = fixture::replicated(1, 1);
    Arc::make_mut(&mut service.spec.task).resources.reservations.nano_cpus = 8_000_000_000;
    let mut task = fixture::task(1, &service, 1);
    task.status.state = TaskState::Pending;
    task.status.error = "no suitable node (insufficient resources on 1 node)".into();
    let mut drained = fixture::node(2);
    drained.spec.availability = Availability::Drain;
    let text = shown([service.into(), task.into(), fixture::node(1).into(), drained.into()], "service-1");
    for line in [
        "no suitable node (insufficient resources on 1 node)",
        "node-1: insufficient resources: asked for 8 CPUs, has 4 left",
        "node-2: it is drained",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_moved_task_names_the_node_that_was_lost() {
    let (service, mut lost) = (fixture::replicated(1, 1), fixture::node(2));
    lost.status.state = NodeState::Down;
    lost.status.message = "heartbeat failure".to_owned();
    let mut old = on(fixture::task(1, &service, 1), &lost, TaskState::Assigned, Decision::default());
    old.desired_state = TaskState::Shutdown;
    let decision = Decision { cause: Cause::NodeDown, placed: None };
    let mut new = on(fixture::task(2, &service, 1), &fixture::node(3), TaskState::Assigned, decision);
    new.replaces = Some(old.id);
    let objects: Vec<Object> =
        vec![service.into(), lost.into(), fixture::node(3).into(), old.into(), new.into()];
    let text = shown(objects.clone(), "service-1");
    assert!(text.contains("moved: node node-2 is down (heartbeat failure)"), "{text}");
    assert!(text.contains("was asked to stop, and its node is not there to say whether it has"), "{text}");
    let text = shown(objects, "node-2");
    assert!(text.starts_with("node node-2 (0000000000000000000000002): down\n"), "{text}");
    assert!(text.contains("takes no new tasks: it is down"), "{text}");
}

#[test]
fn a_displaced_task_is_told_of_with_its_reason() {
    let preempted = displacement::Cause::Preempted { by: TaskId::of(9), its_priority: 5, own_priority: 0 };
    for (cause, reason) in [
        (preempted, "preempted on node-2 by high.1 of priority 5: its own is 0"),
        (
            displacement::Cause::Rebalanced { to: NodeId::of(3) },
            "moved from node-2 to node-3 to spread service s",
        ),
    ] {
        let (service, node) = (fixture::replicated(1, 1), fixture::node(2));
        let mut old = on(fixture::task(1, &service, 1), &node, TaskState::Shutdown, Decision::default());
        old.desired_state = TaskState::Shutdown;
        old.displaced =
            Some(Box::new(Displacement { at: fixture::at(80), cause, reason: reason.to_owned() }));
        let decision = Decision { cause: Cause::Moved, placed: None };
        let mut new = on(fixture::task(2, &service, 1), &fixture::node(3), TaskState::Running, decision);
        new.replaces = Some(old.id);
        let text = shown(
            [service.into(), node.into(), fixture::node(3).into(), old.into(), new.into()],
            "service-1",
        );
        let told = format!("moved: the one before was asked to leave node node-2: {reason}");
        assert!(text.contains(&told), "{text}");
    }
}

#[test]
fn a_held_task_says_until_when() {
    let (service, node) = (fixture::replicated(1, 1), fixture::node(1));
    let mut task = on(fixture::task(1, &service, 1), &node, TaskState::Ready, Decision::default());
    task.desired_state = TaskState::Ready;
    task.start_after = Some(fixture::at(100).after(Duration::from_secs(4)));
    let text = shown([service.into(), node.into(), task.into()], "service-1");
    assert!(text.contains("held for 4s more, its restart delay"), "{text}");
}

#[test]
fn a_service_that_follows_its_load_says_so_and_what_keeps_it_from_that() {
    let mut service = fixture::replicated(1, 3);
    let labels = [("ketch.scale.min", "2"), ("ketch.scale.max", "6"), ("ketch.scale.cpu", "50")];
    service.spec.labels.extend(labels.map(|(label, value)| (label.to_owned(), value.to_owned())));
    let text = shown([service.clone().into()], "service-1");
    assert!(text.contains("its load asks for 2 to 6 replicas"), "{text}");
    service.update_status = Some(UpdateStatus {
        state: UpdateState::Paused,
        started_at: fixture::at(40),
        completed_at: None,
        message: "update paused".to_owned(),
        slots: 3,
        failed_before: 0,
    });
    service.replicas_changed_at = Some(fixture::at(50));
    let text = shown([service.into()], "service-1");
    let held = "its load asks for 2 to 6 replicas, but it keeps 3: an update or rollback of it has not come to its end";
    assert!(text.contains(held), "{text}");
}

#[test]
fn a_schedule_that_waits_for_the_clock_says_so() {
    let mut service = fixture::service(1, ServiceMode::GlobalJob);
    for (decided_until, is_ahead) in [(fixture::at(100), false), (fixture::at(100 + 7200), true)] {
        let schedule = ScheduleStatus { decided_until, ran: true, passed: None };
        service.job =
            Some(JobStatus { iteration: 3, last_execution: fixture::at(90), schedule: Some(schedule) });
        let text = shown([service.clone().into()], "service-1");
        assert_eq!(text.contains("no run for 2h"), is_ahead, "{text}");
    }
}

#[test]
fn what_is_given_up_is_told_with_its_policy() {
    let (mut service, node) = (fixture::replicated(1, 1), fixture::node(1));
    let policy = crate::objects::task::RestartPolicy { max_attempts: 2, ..Default::default() };
    Arc::make_mut(&mut service.spec.task).restart = Some(policy);
    let mut first = on(fixture::task(1, &service, 1), &node, TaskState::Failed, Decision::default());
    first.desired_state = TaskState::Shutdown;
    let mut last = on(fixture::task(2, &service, 1), &node, TaskState::Failed, Decision::default());
    last.desired_state = TaskState::Shutdown;
    last.meta.created_at = fixture::at(90);
    let text = shown([service.into(), node.into(), first.into(), last.into()], "service-1");
    assert!(text.contains("not replaced: its restart policy is always, at most 2 times"), "{text}");
    assert!(text.contains("before:\n    task 0000000000000000000000001 on node-1: failed"), "{text}");
    assert_eq!(text.matches("service-1.1").count(), 1, "{text}");
}

#[test]
fn nothing_of_that_name() {
    let error = told([], "nobody").unwrap_err();
    assert_eq!(error.to_string(), "no such service, task or node: nobody");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
