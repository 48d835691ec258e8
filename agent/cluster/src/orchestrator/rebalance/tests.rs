//! Rebalancing by examples. That no move takes a service below what may be away is checked at each commit of `Simulated`, also in
//! `properties`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{MOST, WINDOW};
use crate::fixture;
use crate::id::{NodeId, TaskId};
use crate::label::rebalance::LABEL;
use crate::objects::displacement::{Cause, Displacement};
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::{UpdateOrder, UpdateState};
use crate::objects::{Service, ServiceMode, Task, TaskSpec, TaskState, UpdateConfig};
use crate::orchestrator::reconcile_service;
use crate::orchestrator::simulated::{BROKEN, Simulated};
use crate::reconciled::Reconciled;
use crate::store::Store;
use crate::view::{Observed, View};

fn service(replicas: u64) -> Service {
    let mut service = fixture::replicated(1, replicas);
    service.spec.labels.insert(LABEL.to_owned(), "true".to_owned());
    service
}

fn starting_first(mut service: Service, parallelism: u64) -> Service {
    let order = UpdateOrder::StartFirst;
    service.spec.update = Some(UpdateConfig { parallelism, order, ..UpdateConfig::default() });
    service
}

/// Its tasks run on all nodes but those.
fn running_without(service: Service, nodes: u128, away: &[u128]) -> Simulated {
    let mut cluster = Simulated::new(nodes, service);
    away.iter().for_each(|node| cluster.set_node_state(*node, NodeState::Down));
    cluster.run(100);
    cluster
}

/// How many tasks run on each node.
fn counts(cluster: &Simulated) -> Vec<usize> {
    let mut counts: BTreeMap<_, usize> = cluster.store.nodes().map(|node| (node.id, 0)).collect();
    for task in cluster.running() {
        *counts.entry(task.node.unwrap()).or_default() += 1;
    }
    counts.into_values().collect()
}

fn moved(cluster: &Simulated) -> Vec<Task> {
    cluster.tasks().into_iter().filter(|task| task.displaced.is_some()).collect()
}

#[test]
fn a_node_that_comes_gets_its_share() {
    for service in [service(6), starting_first(service(6), 1), starting_first(service(6), 2)] {
        let mut cluster = running_without(service, 3, &[3]);
        assert_eq!(counts(&cluster), [3, 3, 0]);
        cluster.set_node_state(3, NodeState::Ready);
        cluster.settle();
        assert_eq!(moved(&cluster).len(), 0, "not at once");
        cluster.run(200);
        assert_eq!(counts(&cluster), [2, 2, 2]);
        let reasons: Vec<_> =
            moved(&cluster).into_iter().map(|task| task.displaced.unwrap().reason).collect();
        assert_eq!(reasons.len(), 2, "and no more than must");
        let told = "moved from node-1 to node-3 to spread service service-1: 3 of its tasks were on node-1, 0 on node-3";
        assert!(reasons.iter().any(|reason| reason == told), "{reasons:?}");
        assert!(cluster.tasks().iter().all(|task| task.start_after.is_none()), "they are no attempts");
    }
}

#[test]
fn a_difference_of_one_moves_nothing() {
    let mut cluster = running_without(service(2), 3, &[3]);
    cluster.set_node_state(3, NodeState::Ready);
    cluster.run(200);
    assert_eq!(counts(&cluster), [1, 1, 0]);
    let mut cluster = running_without(service(4), 3, &[3]);
    cluster.set_node_state(3, NodeState::Ready);
    cluster.run(200);
    let mut even = counts(&cluster);
    even.sort_unstable();
    assert_eq!((even, moved(&cluster).len()), (vec![1, 1, 2], 1));
}

#[test]
fn nothing_moves_without_the_label_or_while_an_update_is_paused() {
    let mut plain = running_without(fixture::replicated(1, 6), 3, &[3]);
    plain.set_node_state(3, NodeState::Ready);
    plain.run(200);
    assert_eq!(counts(&plain), [3, 3, 0]);

    let mut paused = running_without(service(6), 3, &[3]);
    paused.set_image(BROKEN);
    paused.run(50);
    assert_eq!(paused.update_state(), Some(UpdateState::Paused));
    paused.set_node_state(3, NodeState::Ready);
    paused.run(200);
    assert_eq!(moved(&paused).len(), 0);
}

#[test]
fn paused_and_drained_nodes_neither_give_nor_get() {
    let mut cluster = running_without(service(6), 4, &[3, 4]);
    cluster.set_availability(1, Availability::Pause);
    cluster.set_availability(4, Availability::Drain);
    [3, 4].into_iter().for_each(|node| cluster.set_node_state(node, NodeState::Ready));
    cluster.run(200);
    assert_eq!(counts(&cluster), [3, 2, 1, 0], "node 2 gives, node 3 gets");
    cluster.set_availability(4, Availability::Active);
    cluster.set_availability(1, Availability::Active);
    cluster.run(200);
    let mut even = counts(&cluster);
    even.sort_unstable();
    assert_eq!(even, [1, 1, 2, 2]);
}

#[test]
fn a_node_that_comes_and_goes_waits_longer_each_time() {
    let waits = |flaps| {
        let mut cluster = running_without(service(6), 3, &[3]);
        cluster.set_node_state(3, NodeState::Ready);
        cluster.change_node(3, |node| node.status.flaps = flaps);
        cluster.settle();
        cluster.wake_at.unwrap().since(cluster.now)
    };
    assert_eq!(waits(0), Duration::from_secs(30));
    assert_eq!(waits(1), Duration::from_secs(60));
    assert_eq!(waits(7), Duration::from_secs(30 * 128));
    assert_eq!(waits(u32::MAX), Duration::from_secs(30 * 128));
}

#[test]
fn a_node_to_which_a_move_has_failed_is_left_alone() {
    let mut cluster = running_without(starting_first(service(6), 1), 3, &[3]);
    cluster.set_node_state(3, NodeState::Ready);
    cluster.pass(60);
    cluster.settle();
    let new: Vec<_> = cluster.tasks().into_iter().filter(|task| task.replaces.is_some()).collect();
    let [new] = &new[..] else { panic!("{new:?}") };
    assert_eq!(new.promised.as_ref().map(|it| it.node).or(new.node), new.node);
    assert_eq!(counts(&cluster), [3, 3, 0], "the old one still serves");
    cluster.set_state(new.id, TaskState::Failed);
    for _ in 0..20 {
        cluster.settle();
        cluster.work();
        cluster.pass(10);
    }
    assert_eq!(counts(&cluster), [3, 3, 0]);
    assert_eq!(moved(&cluster).len(), 1, "it is not tried again now");
    cluster.pass(600);
    cluster.run(200);
    assert_eq!(counts(&cluster), [2, 2, 2]);
}

/// A move that has come about is no reason to leave the node alone when it is lost, and comes back.
#[test]
fn a_node_that_is_lost_after_a_good_move_gets_its_share_again() {
    for service in [service(6), starting_first(service(6), 1)] {
        let mut cluster = running_without(service, 3, &[3]);
        cluster.set_node_state(3, NodeState::Ready);
        let begun = cluster.now;
        let go_on = |cluster: &mut Simulated, seconds: u64| {
            for _ in 0..seconds {
                cluster.settle();
                cluster.work();
                cluster.pass(1);
            }
        };
        go_on(&mut cluster, 60);
        assert_eq!(counts(&cluster), [2, 2, 2]);
        cluster.set_node_state(3, NodeState::Down);
        go_on(&mut cluster, 60);
        assert_eq!(counts(&cluster), [3, 3, 0]);
        cluster.set_node_state(3, NodeState::Ready);
        go_on(&mut cluster, 120);
        assert_eq!(counts(&cluster), [2, 2, 2]);
        assert!(cluster.now.since(begun) < super::REMEMBERED);
    }
}

/// Its move did not come about, and it stops much later for something else.
#[test]
fn who_stops_for_something_else_does_not_say_that_it_moved() {
    for (scaled, image) in [(0, None), (6, Some("other"))] {
        let mut cluster = running_without(starting_first(service(6), 1), 3, &[3]);
        cluster.set_node_state(3, NodeState::Ready);
        cluster.pass(60);
        cluster.settle();
        let new = cluster.tasks().into_iter().find(|task| task.replaces.is_some()).unwrap();
        cluster.set_state(new.id, TaskState::Failed);
        cluster.settle();
        let [marked] = &moved(&cluster)[..] else { panic!() };
        assert!(
            marked.desired_state == TaskState::Running
                && !marked.displaced.as_ref().unwrap().reason.is_empty()
        );
        cluster.update_spec(|spec| spec.mode = ServiceMode::Replicated { replicas: scaled });
        image.into_iter().for_each(|image| cluster.set_image(image));
        let mut stopped = None;
        for _ in 0..60 {
            cluster.settle();
            let is_it = |task: &Task| task.id == marked.id && task.desired_state > TaskState::Complete;
            stopped = stopped.or_else(|| cluster.tasks().into_iter().find(is_it));
            cluster.work();
            cluster.pass(1);
        }
        let stopped = stopped.unwrap();
        assert_eq!(stopped.displaced.as_ref().unwrap().reason, "");
    }
}

#[test]
fn a_move_that_does_not_come_about_is_given_up_and_made_later() {
    let mut cluster = running_without(starting_first(service(6), 1), 3, &[3]);
    cluster.set_node_state(3, NodeState::Ready);
    cluster.pass(60);
    cluster.settle();
    let is_new = |task: &Task| task.replaces.is_some() && task.desired_state <= TaskState::Running;
    let new = cluster.tasks().into_iter().find(is_new).unwrap();
    // It is placed, and never runs.
    cluster.pass(599);
    cluster.settle();
    assert_eq!(cluster.tasks().into_iter().filter(is_new).count(), 1, "it has time");
    cluster.pass(1);
    cluster.settle();
    let stopped = cluster.tasks().into_iter().find(|task| task.id == new.id).unwrap();
    assert_eq!(stopped.desired_state, TaskState::Shutdown);
    for _ in 0..50 {
        cluster.settle();
        cluster.work();
        cluster.pass(10);
    }
    assert_eq!(counts(&cluster), [3, 3, 0], "the node is left alone");
    cluster.pass(100);
    cluster.run(200);
    assert_eq!(counts(&cluster), [2, 2, 2]);
}

#[test]
fn what_finds_no_place_to_move_to_says_that_it_was_given_up() {
    let service = starting_first(service(1), 1);
    let id = service.id;
    let old = fixture::task_on(fixture::task(1, &service, 1), &fixture::node(1), TaskState::Running);
    let cause = Cause::Rebalanced { to: NodeId::of(2) };
    let displaced = Displacement { at: fixture::at(100), cause, reason: "moves".to_owned() };
    let mut new = Task { replaces: Some(old.id), ..fixture::task(2, &service, 1) };
    new.status.state = TaskState::Pending;
    let old = Task { displaced: Some(Box::new(displaced)), ..old };
    let nodes = [1, 2].map(|number| fixture::node(number).into());
    let mut store = fixture::store(nodes.into_iter().chain([service.into(), old.into(), new.into()]));
    let look = |store: &Store, second| {
        let observed = Observed::default();
        reconcile_service(&View::new(store, &observed), id, fixture::at(second), &mut || 9)
    };
    let waits = look(&store, 159);
    assert_eq!((waits.actions.len(), waits.wake_at), (0, Some(fixture::at(160))));
    let wanted = look(&store, 160);
    assert_eq!(wanted.actions.len(), 2);
    fixture::apply(&mut store, wanted);
    let ended = store.task(TaskId::of(2)).unwrap();
    assert_eq!(ended.status.state, TaskState::Shutdown);
    assert_eq!(&*ended.status.error, "gave up the move to node-2: it has not come to run there in time");
    let stays = store.task(TaskId::of(1)).unwrap();
    let displaced = stays.displaced.as_ref().unwrap();
    assert_eq!((displaced.at, displaced.reason.as_str()), (fixture::at(160), ""));
    assert_eq!(stays.desired_state, TaskState::Running);
    assert_eq!(look(&store, 161).actions, []);
    // What takes its place later is an update's, say, and no move.
    let mut service = store.service(id).unwrap().as_ref().clone();
    Arc::make_mut(&mut service.spec.task).force_update += 1;
    let mut updated = Task { replaces: Some(stays.id), ..stays.as_ref().clone() };
    (updated.id, updated.displaced, updated.node) = (TaskId::of(3), None, None);
    (updated.spec, updated.status.state) = (service.spec.task.clone(), TaskState::Pending);
    let mut wanted = Reconciled::default();
    wanted.update(service);
    wanted.create(updated);
    fixture::apply(&mut store, wanted);
    let wanted = look(&store, 2000);
    fixture::apply(&mut store, wanted);
    assert_eq!(store.task(TaskId::of(3)).unwrap().desired_state, TaskState::Running);
}

#[test]
fn few_move_within_a_minute_in_the_whole_cluster() {
    let mut cluster = running_without(starting_first(service(80), 20), 4, &[3, 4]);
    [3, 4].into_iter().for_each(|node| cluster.set_node_state(node, NodeState::Ready));
    cluster.run(2000);
    assert_eq!(counts(&cluster), [20, 20, 20, 20]);
    let times: Vec<_> = moved(&cluster).into_iter().map(|task| task.displaced.unwrap().at).collect();
    for moment in &times {
        let within = times.iter().filter(|other| **other >= *moment && **other < moment.after(WINDOW));
        assert!(within.count() <= MOST);
    }
}

#[test]
fn zones_are_evened_before_nodes() {
    let mut service = service(6);
    let mut task = TaskSpec::clone(&service.spec.task);
    task.placement.spread = vec!["node.labels.zone".to_owned()];
    service.spec.task = task.into();
    let mut cluster = running_without(service, 3, &[3]);
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b")] {
        cluster.change_node(node, |node| {
            node.spec.labels.insert("zone".to_owned(), zone.to_owned());
        });
    }
    cluster.set_node_state(3, NodeState::Ready);
    cluster.run(300);
    let mut even = counts(&cluster);
    assert_eq!(even.pop(), Some(3), "as many in each zone");
    let reasons: Vec<_> = moved(&cluster).into_iter().map(|task| task.displaced.unwrap()).collect();
    assert!(reasons.iter().all(|why| matches!(why.cause, Cause::Rebalanced { .. })));
    let told = "6 of its tasks were on node.labels.zone a, 0 on node.labels.zone b";
    assert!(reasons.iter().any(|why| why.reason.ends_with(told)), "{reasons:?}");
}

/// Tasks of before are as good as new ones where they are; what moves is made by the present spec.
#[test]
fn nothing_moves_to_where_the_present_spec_forbids_it() {
    let mut cluster = running_without(service(6), 3, &[3]);
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b")] {
        cluster.change_node(node, |node| {
            node.spec.labels.insert("zone".to_owned(), zone.to_owned());
        });
    }
    cluster.update_spec(|spec| {
        let mut task = TaskSpec::clone(&spec.task);
        task.placement.constraints = vec!["node.labels.zone==a".to_owned()];
        spec.task = task.into();
    });
    cluster.run(100);
    assert_eq!(counts(&cluster), [3, 3, 0], "nothing is replaced");
    cluster.set_node_state(3, NodeState::Ready);
    for _ in 0..30 {
        cluster.run(10);
        cluster.pass(10);
    }
    assert_eq!(moved(&cluster).len(), 0);
}

#[test]
fn nodes_that_are_not_for_the_service_hide_none_that_is() {
    let mut service = service(6);
    let mut task = TaskSpec::clone(&service.spec.task);
    task.placement.constraints = vec!["node.labels.disk==ssd".to_owned()];
    service.spec.task = task.into();
    let mut cluster = Simulated::new(40, service);
    // The one that comes is the last one on the ring.
    for node in [1, 2, 40] {
        cluster.change_node(node, |node| {
            node.spec.labels.insert("disk".to_owned(), "ssd".to_owned());
        });
    }
    cluster.set_node_state(40, NodeState::Down);
    cluster.run(100);
    assert_eq!((counts(&cluster)[..2].to_vec(), counts(&cluster)[39]), (vec![3, 3], 0));
    cluster.set_node_state(40, NodeState::Ready);
    cluster.run(200);
    assert_eq!((counts(&cluster)[..2].to_vec(), counts(&cluster)[39]), (vec![2, 2], 2));
}
