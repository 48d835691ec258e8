//! Preemption by examples, and held against the plain scheduler in random clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::budget::{Budget, MOST, MOST_AT_ONCE, MOST_OF_SERVICE, WINDOW};
use crate::fixture::{self, at};
use crate::id::{NodeId, TaskId};
use crate::label::priority::{LABEL, Priority};
use crate::objects::displacement::{Cause, Displacement, Promise};
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::JobStatus;
use crate::objects::task::{RestartCondition, RestartPolicy, TaskRuntime};
use crate::objects::{
    ContainerSpec, GenericResource, Labels, Node, NodeSpec, Resources, Service, ServiceMode, Task, TaskSpec,
    TaskState, TaskStatus,
};
use crate::reconciled::Reconciled;
use crate::scheduler::clusters::{cluster, spread_out};
use crate::scheduler::nodes::NodeRow;
use crate::scheduler::pipeline::Pipeline;
use crate::scheduler::reference::{World, now, places, waits};
use crate::scheduler::{Scheduler, schedule};
use crate::store::{Object, Store, StoreAction};
use crate::time::Timestamp;
use crate::view::{Observed, View};

const CPU: u64 = 1_000_000_000;

/// A service whose tasks reserve so many CPUs of the four that a node has.
fn service(number: u128, priority: Option<Priority>, cpus: u64) -> Service {
    let mut service = fixture::replicated(number, 9);
    service.spec.labels = labels(priority);
    let mut spec = TaskSpec::default();
    spec.resources.reservations = Resources { nano_cpus: cpus * CPU, ..Resources::default() };
    service.spec.task = Arc::new(spec);
    service
}

fn labels(priority: Option<Priority>) -> Labels {
    priority.into_iter().map(|it| (LABEL.to_owned(), it.to_string())).collect()
}

fn running(number: u128, service: &Service, node: u128) -> Object {
    let task = fixture::task(number, service, u64::try_from(number).unwrap());
    fixture::task_on(task, &fixture::node(node), TaskState::Running).into()
}

fn waiting(number: u128, service: &Service) -> Object {
    let mut task = fixture::task(number, service, u64::try_from(number).unwrap());
    task.status.state = TaskState::Pending;
    task.into()
}

fn pass(store: &Store, now: Timestamp) -> Reconciled {
    schedule(&View::new(store, &Observed::default()), now)
}

/// Passes once, and says which tasks were preempted.
fn passed(store: &mut Store, now: Timestamp) -> Vec<u128> {
    let wanted = pass(store, now);
    let id = |action: &StoreAction| match action {
        StoreAction::Update(Object::Task(task)) => Some(task.id.bits()),
        _ => None,
    };
    let preempted = wanted.actions.iter().filter(|action| displaces(action)).filter_map(id).collect();
    fixture::apply(store, wanted);
    preempted
}

fn displaces(action: &StoreAction) -> bool {
    matches!(action, StoreAction::Update(Object::Task(task)) if task.displaced.is_some())
}

fn change(store: &mut Store, task: TaskId, change: impl FnOnce(&mut Task)) {
    let mut task = Task::clone(store.task(task).unwrap());
    change(&mut task);
    let mut wanted = Reconciled::default();
    wanted.update(task);
    fixture::apply(store, wanted);
}

fn end(store: &mut Store, task: u128) {
    change(store, TaskId::of(task), |task| {
        task.status = TaskStatus { state: TaskState::Shutdown, ..task.status.clone() };
    });
}

fn task(store: &Store, number: u128) -> &Task {
    store.task(TaskId::of(number)).unwrap()
}

/// Node 1 is full of two tasks of the low service; one of the high service waits.
fn full(low: Option<Priority>, high: Option<Priority>) -> Store {
    let (low, high) = (service(10, low, 2), service(20, high, 2));
    let tasks = [running(1, &low, 1), running(2, &low, 1), waiting(3, &high)];
    fixture::store([fixture::node(1).into(), low.into(), high.into()].into_iter().chain(tasks))
}

#[test]
fn the_room_of_a_lower_one_is_waited_for_and_taken() {
    let mut store = full(None, Some(5));
    let preempted = passed(&mut store, at(100));
    assert_eq!(preempted.len(), 1, "one is enough");
    let victim = task(&store, preempted[0]);
    assert_eq!(victim.desired_state, TaskState::Shutdown);
    let displaced = victim.displaced.as_ref().unwrap();
    assert_eq!(displaced.reason, "preempted on node-1 by service-20.3 of priority 5: its own is 0");
    let cause = Cause::Preempted { by: TaskId::of(3), its_priority: 5, own_priority: 0 };
    assert_eq!(displaced.cause, cause);
    let told = format!("waiting for room on node-1, where service-10.{} must stop first", preempted[0]);
    assert_eq!(*task(&store, 3).status.error, *told);
    assert_eq!(pass(&store, at(101)).actions, [], "it waits, and takes nothing more");

    // The one that takes its place finds none, and what was promised is not given away.
    let low = Service::clone(store.services().next().unwrap());
    let mut wanted = Reconciled::default();
    wanted.create(waiting(4, &low));
    fixture::apply(&mut store, wanted);
    assert_eq!(passed(&mut store, at(102)), [0; 0]);
    assert_eq!(&*task(&store, 4).status.error, "no suitable node (insufficient resources on 1 node)");
    end(&mut store, preempted[0]);
    assert_eq!(passed(&mut store, at(103)), [0; 0]);
    let taker = task(&store, 3);
    assert_eq!((taker.status.state, taker.node), (TaskState::Assigned, Some(NodeId::of(1))));
    assert_eq!(taker.promised, None);
    assert_eq!(task(&store, 4).status.state, TaskState::Pending);
    assert_eq!(passed(&mut store, at(300)), [0; 0], "and takes nobody's place back");
}

#[test]
fn nobody_goes_for_an_equal_or_lower_one() {
    for (low, high) in
        [(None, None), (Some(5), Some(5)), (Some(6), Some(5)), (None, Some(0)), (None, Some(-3))]
    {
        assert_eq!(passed(&mut full(low, high), at(100)), [0; 0], "{low:?} {high:?}");
    }
    assert_eq!(passed(&mut full(Some(-3), None), at(100)).len(), 1, "without the label it is 0");
}

#[test]
fn nobody_goes_while_there_is_room_elsewhere() {
    let mut store = full(None, Some(5));
    let mut wanted = Reconciled::default();
    wanted.create(fixture::node(2));
    fixture::apply(&mut store, wanted);
    assert_eq!(passed(&mut store, at(100)), [0; 0]);
    assert_eq!(task(&store, 3).node, Some(NodeId::of(2)));
}

#[test]
fn what_is_being_stopped_is_waited_for_before_anybody_goes() {
    let mut store = full(None, Some(5));
    change(&mut store, TaskId::of(2), |task| {
        task.desired_state = TaskState::Shutdown;
        task.meta.updated_at = at(95);
    });
    assert_eq!(passed(&mut store, at(100)), [0; 0]);
    assert_eq!(
        &*task(&store, 3).status.error,
        "waiting for room on node-1, where service-10.2 must stop first"
    );
    assert_eq!(passed(&mut store, at(150)), [0; 0]);
    // It does not stop: somebody else goes.
    assert_eq!(passed(&mut store, at(180)), [1]);
}

#[test]
fn those_that_would_not_come_back_stay() {
    let mut low = service(10, None, 2);
    let policy = RestartPolicy { condition: RestartCondition::None, ..RestartPolicy::default() };
    low.spec.task = Arc::new(TaskSpec { restart: Some(policy), ..TaskSpec::clone(&low.spec.task) });
    let mut global = service(11, None, 2);
    global.spec.mode = ServiceMode::Global;
    let high = service(20, Some(9), 2);
    let objects = |global: &Service| {
        let objects: [Object; 4] =
            [fixture::node(1).into(), low.clone().into(), global.clone().into(), high.clone().into()];
        objects.into_iter().chain([running(1, &low, 1), running(2, global, 1), waiting(3, &high)])
    };
    assert_eq!(passed(&mut fixture::store(objects(&global)), at(100)), [0; 0]);
    global.spec.labels = labels(Some(3));
    assert_eq!(passed(&mut fixture::store(objects(&global)), at(100)), [2], "one that says how it ranks");
}

#[test]
fn earlier_runs_of_a_job_stay_and_the_present_one_goes() {
    let mut low = service(10, None, 2);
    low.spec.mode = ServiceMode::ReplicatedJob { max_concurrent: 9, total_completions: 9 };
    low.job = Some(JobStatus { iteration: 3, last_execution: at(1), schedule: None });
    let high = service(20, Some(5), 2);
    let run = |number, iteration| {
        let mut task = fixture::task(number, &low, 1);
        task.job_iteration = Some(iteration);
        task.desired_state = TaskState::Complete;
        Object::from(fixture::task_on(task, &fixture::node(1), TaskState::Running))
    };
    for (first, second, preempted) in [(2, 2, &[][..]), (2, 3, &[2]), (3, 2, &[1])] {
        let objects: [Object; 3] = [fixture::node(1).into(), low.clone().into(), high.clone().into()];
        let tasks = [run(1, first), run(2, second), waiting(3, &high)];
        let mut store = fixture::store(objects.into_iter().chain(tasks));
        assert_eq!(passed(&mut store, at(100)), preempted);
    }
}

#[test]
fn the_lowest_go_and_of_these_the_fewest_and_those_that_can_be_spared() {
    let (lower, low) = (service(10, Some(-1), 1), service(11, None, 4));
    let high = service(20, Some(9), 3);
    let mut objects: Vec<Object> = (1..=2).map(|number| fixture::node(number).into()).collect();
    objects.extend([lower.clone().into(), low.clone().into(), high.clone().into()]);
    objects.extend((1..=4).map(|number| running(number, &lower, 1)));
    objects.extend([running(5, &low, 2), waiting(6, &high)]);
    let mut store = fixture::store(objects);
    assert_eq!(
        passed(&mut store, at(100)),
        [2, 3, 4],
        "three of the lowest rather than one of a higher priority"
    );

    let (alone, many) = (service(10, None, 2), service(11, None, 2));
    let mut alone = Service { spec: alone.spec, ..alone };
    alone.spec.mode = ServiceMode::Replicated { replicas: 1 };
    let mut many = Service { spec: many.spec, ..many };
    many.spec.mode = ServiceMode::Replicated { replicas: 3 };
    let high = service(20, Some(1), 2);
    let mut objects: Vec<Object> = (1..=2).map(|number| fixture::node(number).into()).collect();
    objects.extend([alone.clone().into(), many.clone().into(), high.clone().into()]);
    objects.extend([running(1, &alone, 1), running(2, &many, 1), running(3, &many, 2), running(4, &many, 2)]);
    objects.push(waiting(9, &high));
    let preempted = passed(&mut fixture::store(objects), at(100));
    assert_ne!(preempted, [1], "the only one of its service stays");
    assert_eq!(preempted.len(), 1);
}

#[test]
fn room_that_comes_free_by_itself_is_found_on_any_of_many_nodes() {
    for replaces in [None, Some(TaskId::of(500))] {
        let (low, high) = (service(10, None, 4), service(20, Some(5), 4));
        let mut objects: Vec<Object> = (1..=125).map(|number| fixture::node(number).into()).collect();
        objects.extend([low.clone().into(), high.clone().into()]);
        // On the way around the ring its own node comes after more than are weighed.
        objects.extend((1..=124).map(|number| running(number, &low, number)));
        let old = fixture::task_on(fixture::task(500, &high, 1), &fixture::node(125), TaskState::Running);
        let mut old = Task { desired_state: TaskState::Shutdown, ..old };
        old.meta.updated_at = at(99);
        let mut new = fixture::task(501, &high, 1);
        (new.status.state, new.replaces) = (TaskState::Pending, replaces);
        objects.extend([old.into(), new.into()]);
        let mut store = fixture::store(objects);
        assert_eq!(passed(&mut store, at(100)), [0; 0]);
        assert_eq!(task(&store, 501).promised.as_ref().map(|it| it.node), Some(NodeId::of(125)));
    }
}

#[test]
fn of_equal_ones_those_go_that_stop_soonest() {
    for slow in [1, 2] {
        let mut lows = [service(10, None, 4), service(11, None, 4)];
        let container =
            ContainerSpec { stop_grace_period: Some(Duration::from_secs(1800)), ..ContainerSpec::default() };
        let runtime = TaskRuntime::Container(Box::new(container));
        let spec = &mut lows[slow - 1].spec.task;
        *spec = Arc::new(TaskSpec { runtime, ..TaskSpec::clone(spec) });
        let [one, two] = lows;
        let high = service(20, Some(1), 4);
        let mut objects = vec![fixture::node(1).into(), fixture::node(2).into()];
        objects.extend([running(1, &one, 1), running(2, &two, 2), waiting(3, &high)]);
        objects.extend([one.into(), two.into(), high.into()]);
        assert_eq!(passed(&mut fixture::store(objects), at(100)), [if slow == 1 { 2 } else { 1 }]);
    }
}

#[test]
fn no_larger_one_goes_than_need_be() {
    let (small, large) = (service(10, None, 1), service(11, None, 3));
    let high = service(20, Some(1), 1);
    let objects: [Object; 4] =
        [fixture::node(1).into(), small.clone().into(), large.clone().into(), high.clone().into()];
    let tasks = [running(1, &small, 1), running(2, &large, 1), waiting(3, &high)];
    let mut store = fixture::store(objects.into_iter().chain(tasks));
    assert_eq!(passed(&mut store, at(100)), [1]);
}

#[test]
fn a_storm_is_bounded_within_a_minute() {
    let mut objects: Vec<Object> = (1..=40).map(|number| fixture::node(number).into()).collect();
    let lows: Vec<_> = (0..4).map(|number| service(100 + number, None, 4)).collect();
    let high = service(200, Some(1), 4);
    objects.extend(lows.iter().cloned().map(Object::from));
    objects.push(high.clone().into());
    for number in 1..=40 {
        objects.push(running(number, &lows[usize::try_from(number % 4).unwrap()], number));
        objects.push(waiting(1000 + number, &high));
    }
    let mut store = fixture::store(objects);
    let mut times = Vec::new();
    for second in (100..400).step_by(2) {
        let preempted = passed(&mut store, at(second));
        assert!(preempted.len() <= MOST_AT_ONCE);
        for victim in preempted {
            times.push((second, store.task(TaskId::of(victim)).unwrap().service));
            end(&mut store, victim);
        }
    }
    assert_eq!(times.len(), 40, "in the end all have room");
    let window = WINDOW.as_secs();
    for (moment, _) in &times {
        let within = || times.iter().filter(|(other, _)| (*moment..moment + window).contains(other));
        assert!(within().count() <= MOST);
        for low in &lows {
            assert!(within().filter(|(_, service)| *service == Some(low.id)).count() <= MOST_OF_SERVICE);
        }
    }
}

/// Passes until the last moment as a manager does, which looks again when something has changed or when it was asked to: never by a fixed
/// step. Victims end at once, but for those.
fn driven(store: &mut Store, (from, until): (u64, u64), never_end: &[u128]) -> Timestamp {
    let mut moment = at(from);
    for _ in 0..10_000 {
        let wanted = pass(store, moment);
        let (has_changed, wake_at) = (!wanted.actions.is_empty(), wanted.wake_at);
        fixture::apply(store, wanted);
        let is_over = |task: &Task| task.status.state.is_terminal() || never_end.contains(&task.id.bits());
        let victims: Vec<_> = store.tasks().filter(|it| it.displaced.is_some() && !is_over(it)).collect();
        let victims: Vec<_> = victims.into_iter().map(|it| it.id.bits()).collect();
        victims.into_iter().for_each(|victim| end(store, victim));
        if has_changed {
            continue;
        }
        match wake_at {
            Some(next) if next <= at(until) => moment = moment.max(next),
            _ => return moment,
        }
    }
    panic!("it never comes to rest");
}

fn placed(store: &Store, service: &Service) -> usize {
    store.tasks_of(service.id).filter(|it| it.status.state == TaskState::Assigned).count()
}

#[test]
fn those_that_look_in_vain_step_back_behind_others() {
    let low = service(10, None, 4);
    let mut objects: Vec<Object> = vec![fixture::node(1).into(), low.clone().into(), running(1, &low, 1)];
    // More of them than a pass looks for, older than the one that can be helped.
    for number in 0..9 {
        let mut nowhere = service(20 + number, Some(5), 1);
        let mut spec = TaskSpec::clone(&nowhere.spec.task);
        spec.placement.constraints = vec!["node.labels.is==nowhere".to_owned()];
        nowhere.spec.task = Arc::new(spec);
        objects.extend([nowhere.clone().into(), waiting(100 + number, &nowhere)]);
    }
    let high = service(50, Some(5), 1);
    let mut young = fixture::task(200, &high, 1);
    young.status.state = TaskState::Pending;
    young.meta.created_at = at(90);
    objects.extend([high.clone().into(), young.into()]);
    let mut store = fixture::store(objects);
    assert_eq!(pass(&store, at(100)).wake_at, Some(at(100)), "others have their turn at once");
    driven(&mut store, (100, 109), &[]);
    assert_eq!(placed(&store, &high), 1);
    // Looking again writes the same reason at a later moment.
    driven(&mut store, (110, 125), &[]);
    assert!((100..109).all(|number| task(&store, number).meta.updated_at >= at(110)));
}

#[test]
fn bound_ones_that_cannot_be_helped_keep_nobody_else_from_it() {
    let (full, low) = (service(10, Some(9), 4), service(11, None, 4));
    let mut all = service(20, Some(5), 1);
    all.spec.mode = ServiceMode::Global;
    let high = service(30, Some(3), 4);
    let mut objects: Vec<Object> = (1..=9).map(|number| fixture::node(number).into()).collect();
    objects.extend([full.clone().into(), low.clone().into(), all.clone().into(), high.clone().into()]);
    for number in 1..=8_u128 {
        let mut bound = fixture::task(100 + number, &all, 0);
        (bound.node, bound.status.state) = (Some(NodeId::of(number)), TaskState::Pending);
        objects.extend([running(number, &full, number), bound.into()]);
    }
    objects.extend([running(9, &low, 9), waiting(200, &high)]);
    assert_eq!(passed(&mut fixture::store(objects), at(100)), [9]);
}

#[test]
fn a_backlog_goes_on_when_the_minute_is_over_though_nothing_else_happens() {
    let (low, high) = (service(10, None, 4), service(20, Some(1), 4));
    let mut objects: Vec<Object> = (1..=40).map(|number| fixture::node(number).into()).collect();
    objects.extend([low.clone().into(), high.clone().into()]);
    for number in 1..=40 {
        objects.extend([running(number, &low, number), waiting(1000 + number, &high)]);
    }
    let mut store = fixture::store(objects);
    driven(&mut store, (100, 150), &[]);
    assert_eq!(placed(&store, &high), MOST_OF_SERVICE);
    driven(&mut store, (151, 360), &[]);
    assert_eq!(placed(&store, &high), 40);

    // The whole cluster's.
    let lows: Vec<_> = (0..4).map(|number| service(100 + number, None, 4)).collect();
    let mut objects: Vec<Object> = (1..=40).map(|number| fixture::node(number).into()).collect();
    objects.extend(lows.iter().cloned().map(Object::from).chain([high.clone().into()]));
    for number in 1..=40 {
        let low = &lows[usize::try_from(number % 4).unwrap()];
        objects.extend([running(number, low, number), waiting(1000 + number, &high)]);
    }
    let mut store = fixture::store(objects);
    driven(&mut store, (100, 155), &[]);
    assert_eq!(placed(&store, &high), MOST);
    driven(&mut store, (156, 250), &[]);
    assert_eq!(placed(&store, &high), 40);
}

#[test]
fn who_waits_for_one_that_does_not_stop_looks_elsewhere_though_nothing_else_happens() {
    let (low, high) = (service(10, None, 4), service(20, Some(5), 4));
    let objects: [Object; 4] =
        [fixture::node(1).into(), fixture::node(2).into(), low.clone().into(), high.clone().into()];
    let tasks = [running(1, &low, 1), running(2, &low, 2), waiting(3, &high)];
    let mut store = fixture::store(objects.into_iter().chain(tasks));
    let stuck = passed(&mut store, at(100));
    assert_eq!(stuck.len(), 1);
    driven(&mut store, (101, 169), &stuck);
    assert_eq!(placed(&store, &high), 0);
    driven(&mut store, (169, 200), &stuck);
    assert_eq!(placed(&store, &high), 1);
}

#[test]
fn who_was_promised_room_takes_another_node_that_has_some_before() {
    let mut store = full(None, Some(5));
    let preempted = passed(&mut store, at(100));
    let low = Service::clone(store.services().next().unwrap());
    let mut wanted = Reconciled::default();
    wanted.create(waiting(4, &low));
    wanted.create(fixture::node(2));
    fixture::apply(&mut store, wanted);
    assert_eq!(passed(&mut store, at(101)), [0; 0]);
    assert_eq!((task(&store, 3).node, &task(&store, 3).promised), (Some(NodeId::of(2)), &None));
    // What was kept for it is free again.
    end(&mut store, preempted[0]);
    assert_eq!(passed(&mut store, at(102)), [0; 0]);
    let nodes: BTreeSet<_> = [3, 4].map(|number| task(&store, number).node).into();
    assert!(nodes.iter().all(Option::is_some), "{nodes:?}");
}

#[test]
fn those_of_its_batch_that_were_promised_nothing_come_first() {
    let mut store = full(None, Some(5));
    assert_eq!(passed(&mut store, at(100)).len(), 1);
    let high = Service::clone(store.services().last().unwrap());
    let mut small = fixture::node(2);
    small.description.as_mut().unwrap().resources.nano_cpus = 2 * CPU;
    let mut wanted = Reconciled::default();
    wanted.create(waiting(4, &high));
    wanted.create(small);
    fixture::apply(&mut store, wanted);
    assert_eq!(passed(&mut store, at(101)), [0; 0]);
    assert_eq!(task(&store, 4).node, Some(NodeId::of(2)));
    assert_eq!(task(&store, 3).promised.as_ref().map(|it| it.node), Some(NodeId::of(1)));
}

#[test]
fn one_that_moves_waits_for_the_node_that_it_is_to_move_to() {
    let mut store = full(None, Some(5));
    let preempted = passed(&mut store, at(100));
    let high = Service::clone(store.services().last().unwrap());
    let mut before = fixture::task_on(fixture::task(9, &high, 9), &fixture::node(3), TaskState::Running);
    let cause = Cause::Rebalanced { to: NodeId::of(1) };
    before.displaced = Some(Box::new(Displacement { at: at(99), cause, reason: "moves".to_owned() }));
    let mut wanted = Reconciled::default();
    [2, 3].into_iter().for_each(|number| wanted.create(fixture::node(number)));
    wanted.create(before);
    fixture::apply(&mut store, wanted);
    change(&mut store, TaskId::of(3), |task| task.replaces = Some(TaskId::of(9)));
    assert_eq!(passed(&mut store, at(101)), [0; 0]);
    assert_eq!(task(&store, 3).status.state, TaskState::Pending);
    end(&mut store, preempted[0]);
    assert_eq!(passed(&mut store, at(102)), [0; 0]);
    assert_eq!(task(&store, 3).node, Some(NodeId::of(1)));
}

/// A new leader: nobody else goes, and nobody moves to where he was.
#[test]
fn what_was_promised_holds_while_the_leader_has_not_heard_of_the_node() {
    let state = |store: &mut Store, state| {
        let mut node = Node::clone(store.node(NodeId::of(1)).unwrap());
        node.status.state = state;
        let mut wanted = Reconciled::default();
        wanted.update(node);
        fixture::apply(store, wanted);
    };
    let mut store = full(None, Some(5));
    let preempted = passed(&mut store, at(100));
    let low = Service::clone(store.services().next().unwrap());
    let mut wanted = Reconciled::default();
    wanted.create(fixture::node(2));
    [11, 12]
        .into_iter()
        .for_each(|number| wanted.actions.push(StoreAction::Create(running(number, &low, 2))));
    fixture::apply(&mut store, wanted);
    state(&mut store, NodeState::Unknown);
    assert_eq!(passed(&mut store, at(111)), [0; 0]);
    let told = "waiting for node-1, of which the leader has not heard yet";
    assert_eq!(*task(&store, 3).status.error, *told);
    assert_eq!(task(&store, 3).promised.as_ref().map(|it| it.node), Some(NodeId::of(1)));
    state(&mut store, NodeState::Ready);
    end(&mut store, preempted[0]);
    assert_eq!(passed(&mut store, at(112)), [0; 0]);
    assert_eq!(task(&store, 3).node, Some(NodeId::of(1)));
}

#[test]
fn one_that_moves_goes_nowhere_else_while_the_one_before_serves() {
    for is_there in [true, false] {
        let mut store = full(None, Some(5));
        let high = Service::clone(store.services().last().unwrap());
        let mut before = fixture::task_on(fixture::task(9, &high, 9), &fixture::node(2), TaskState::Running);
        let cause = Cause::Rebalanced { to: NodeId::of(1) };
        before.displaced = Some(Box::new(Displacement { at: at(99), cause, reason: "moves".to_owned() }));
        if !is_there {
            before.status.state = TaskState::Failed;
        }
        let promised = Some(Box::new(Promise { node: NodeId::of(1) }));
        let moves = Task { promised, replaces: Some(TaskId::of(9)), ..fixture::task(4, &high, 9) };
        let mut wanted = Reconciled::default();
        wanted.create(fixture::node(2));
        wanted.create(before);
        wanted.remove(TaskId::of(3));
        wanted.create(moves);
        fixture::apply(&mut store, wanted);
        change(&mut store, TaskId::of(4), |task| task.status.state = TaskState::Pending);
        assert_eq!(passed(&mut store, at(101)), [0; 0]);
        assert_eq!(task(&store, 4).node, (!is_there).then(|| NodeId::of(2)));
    }
}

#[test]
fn nobody_goes_for_one_that_moves_while_the_one_before_serves() {
    for desired in [TaskState::Running, TaskState::Shutdown] {
        let mut store = full(None, Some(5));
        let high = Service::clone(store.services().last().unwrap());
        let mut before = fixture::task_on(fixture::task(9, &high, 9), &fixture::node(3), TaskState::Running);
        let cause = Cause::Rebalanced { to: NodeId::of(1) };
        before.displaced = Some(Box::new(Displacement { at: at(99), cause, reason: "moves".to_owned() }));
        before.desired_state = desired;
        let moves = Task { replaces: Some(TaskId::of(9)), ..fixture::task(4, &high, 4) };
        let mut wanted = Reconciled::default();
        let closed = Node {
            spec: NodeSpec { availability: Availability::Pause, ..NodeSpec::default() },
            ..fixture::node(3)
        };
        wanted.create(closed);
        wanted.create(before);
        wanted.remove(TaskId::of(3));
        wanted.create(moves);
        fixture::apply(&mut store, wanted);
        change(&mut store, TaskId::of(4), |task| task.status.state = TaskState::Pending);
        assert_eq!(passed(&mut store, at(101)).len(), usize::from(desired > TaskState::Running));
    }
}

#[test]
fn room_that_is_kept_makes_no_other_row_anew() {
    let mut store = full(None, Some(5));
    assert_eq!(passed(&mut store, at(100)).len(), 1);
    let other = service(30, None, 1);
    let mut wanted = Reconciled::default();
    wanted.create(other.clone());
    (2..=9).for_each(|number| wanted.create(fixture::node(number)));
    (100..150).for_each(|number| {
        let mut task = Task { slot: 1, ..fixture::task(number, &other, 1) };
        task.status.state = TaskState::Pending;
        wanted.create(task);
    });
    fixture::apply(&mut store, wanted);
    // Bound to its node, so that it waits for it.
    change(&mut store, TaskId::of(3), |task| task.node = Some(NodeId::of(1)));
    let mut scheduler = Scheduler::default();
    let observed = Observed::default();
    let wanted = scheduler.schedule(&View::new(&store, &observed), at(101));
    assert!(wanted.actions.len() >= 32);
    scheduler.committed(&fixture::apply(&mut store, wanted));
    assert_eq!(scheduler.table.outdated(), 1, "that of the node where room is kept");
}

#[test]
fn room_that_comes_back_goes_to_the_highest_also_where_a_lower_one_is_bound_to_the_node() {
    for high in [None, Some(5)] {
        let (low, high) = (service(10, Some(0), 2), service(20, high, 2));
        let mut bound = fixture::task(4, &low, 4);
        (bound.node, bound.status.state) = (Some(NodeId::of(1)), TaskState::Pending);
        let there = running(1, &low, 1);
        let tasks = [there, bound.into(), waiting(3, &high)];
        let is_higher = high.spec.labels.contains_key(LABEL);
        let objects = [fixture::node(1).into(), low.into(), high.into()];
        let mut store = fixture::store(objects.into_iter().chain(tasks));
        assert_eq!(passed(&mut store, at(100)), [0; 0], "nobody goes for what is free");
        let (got, waits) = if is_higher { (3, 4) } else { (4, 3) };
        assert_eq!(task(&store, got).status.state, TaskState::Assigned, "{is_higher}");
        assert_eq!(task(&store, waits).status.state, TaskState::Pending, "{is_higher}");
    }
}

/// On a full node one of the high service has failed at 100 s; one of the low service waits.
fn failed(high: Service, low: Service, waits: impl FnOnce(&Service) -> Object) -> Store {
    let fails = fixture::task_on(fixture::task(1, &high, 1), &fixture::node(1), TaskState::Failed);
    let status = TaskStatus { since: at(100), ..fails.status.clone() };
    let other = running(2, &low, 1);
    let waits = waits(&low);
    let fails = Task { status, ..fails };
    fixture::store([fixture::node(1).into(), low.into(), high.into(), other, waits, fails.into()])
}

#[test]
fn who_waits_does_not_get_what_a_higher_one_has_left_by_failing() {
    let bound = |low: &Service| {
        let mut task = fixture::task(3, low, 3);
        (task.node, task.status.state) = (Some(NodeId::of(1)), TaskState::Pending);
        Object::from(task)
    };
    for waits in [&bound as &dyn Fn(&Service) -> Object, &|low| waiting(3, low)] {
        let high = service(20, Some(5), 2);
        let mut store = failed(high.clone(), service(10, None, 2), waits);
        // Its orchestrator has not seen it; then the successor waits for its addresses.
        let wanted = pass(&store, at(100));
        assert_eq!(wanted.wake_at, Some(at(101)), "it looks again");
        fixture::apply(&mut store, wanted);
        assert_eq!(task(&store, 3).status.state, TaskState::Pending);
        assert!(task(&store, 3).status.error.contains("insufficient resources on 1 node"));
        change(&mut store, TaskId::of(1), |task| task.desired_state = TaskState::Shutdown);
        // Where each has its node, both have.
        let node = task(&store, 3).node;
        let new = Task { node, replaces: Some(TaskId::of(1)), ..fixture::task(4, &high, 1) };
        let mut wanted = Reconciled::default();
        wanted.create(new);
        fixture::apply(&mut store, wanted);
        assert_eq!(passed(&mut store, at(100)), [0; 0]);
        assert_eq!(task(&store, 3).status.state, TaskState::Pending);
        change(&mut store, TaskId::of(4), |task| task.status.state = TaskState::Pending);
        assert_eq!(passed(&mut store, at(100)), [0; 0]);
        assert_eq!(task(&store, 4).node, Some(NodeId::of(1)));
        assert_eq!(task(&store, 3).status.state, TaskState::Pending);
    }
}

#[test]
fn what_nobody_comes_back_to_is_given_to_who_waits() {
    let high = service(20, Some(5), 2);
    let placed_at = |high: &Service, low: Option<Priority>, second| {
        let mut store = failed(high.clone(), service(10, low, 2), |low| waiting(3, low));
        passed(&mut store, at(second));
        task(&store, 3).status.state == TaskState::Assigned
    };
    assert!(!placed_at(&high, None, 100));
    assert!(placed_at(&high, None, 101), "not for longer than a second");
    assert!(placed_at(&high, Some(5), 100), "an equal one");
    let mut never = high.clone();
    let policy = RestartPolicy { condition: RestartCondition::None, ..RestartPolicy::default() };
    never.spec.task = Arc::new(TaskSpec { restart: Some(policy), ..TaskSpec::clone(&never.spec.task) });
    assert!(placed_at(&never, None, 100));
    let mut store = failed(high, service(10, None, 2), |low| waiting(3, low));
    change(&mut store, TaskId::of(1), |task| task.desired_state = TaskState::Shutdown);
    passed(&mut store, at(100));
    assert_eq!(task(&store, 3).status.state, TaskState::Assigned, "it was given up");
}

#[test]
fn a_promise_that_cannot_be_kept_is_forgotten() {
    let mut store = full(None, Some(5));
    let preempted = passed(&mut store, at(100));
    let mut node = Node::clone(store.nodes().next().unwrap());
    node.spec.availability = Availability::Pause;
    let mut wanted = Reconciled::default();
    wanted.update(node);
    fixture::apply(&mut store, wanted);
    assert_eq!(passed(&mut store, at(101)), [0; 0]);
    let asker = task(&store, 3);
    assert_eq!(asker.promised, None);
    assert_eq!(&*asker.status.error, "no suitable node (1 node not available for new tasks)");
    assert_eq!(pass(&store, at(102)).actions, []);
    assert_eq!(preempted.len(), 1);
}

#[test]
fn a_large_cluster_and_a_large_service_give_more_in_a_minute() {
    let mut low = service(10, None, 4);
    low.spec.mode = ServiceMode::Replicated { replicas: 240 };
    let high = service(20, Some(1), 4);
    let mut objects: Vec<Object> = (1..=240).map(|number| fixture::node(number).into()).collect();
    objects.extend([low.clone().into(), high.clone().into()]);
    objects.extend((1..=240).map(|number| running(number, &low, number)));
    objects.extend((1..=40).map(|number| waiting(1000 + number, &high)));
    let mut store = fixture::store(objects);
    driven(&mut store, (100, 155), &[]);
    assert_eq!(placed(&store, &high), 24, "a tenth");
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let left = |nodes| Budget::of(view, nodes, at(1000)).left();
    assert_eq!([100, 3000, 10_000].map(left), [10, 10, 33]);
}

#[test]
fn a_node_is_looked_at_only_where_it_would_do_when_it_is_empty() {
    let mut high = service(20, Some(5), 1);
    let mut spec = TaskSpec::clone(&high.spec.task);
    spec.resources.reservations.generic = vec![GenericResource::Count { kind: "gpu".to_owned(), amount: 1 }];
    high.spec.task = Arc::new(spec);
    let store = fixture::store([high.clone().into()]);
    let task = fixture::task(1, &high, 1);
    let pipeline = Pipeline::of(&View::new(&store, &Observed::default()), &task);
    let mut node = fixture::node(1);
    let suits = |node: &Node| super::suits(&NodeRow::empty(&Arc::new(node.clone())), &pipeline);
    assert!(!suits(&node));
    let description = node.description.as_mut().unwrap();
    description.resources.generic = vec![GenericResource::Count { kind: "gpu".to_owned(), amount: 1 }];
    assert!(suits(&node));
}

/// A random cluster whose services have priorities.
fn ranked() -> impl Strategy<Value = Vec<Object>> {
    let priority = select(vec![None, Some(-5), Some(0), Some(3), Some(7)]);
    (cluster(), vec(priority, 6)).prop_map(|(mut objects, priorities)| {
        let mut of = BTreeMap::new();
        for object in &mut objects {
            if let Object::Service(service) = object {
                let labels = labels(priorities[of.len() % priorities.len()]);
                of.insert(service.id, labels.clone());
                Arc::make_mut(service).spec.labels = labels;
            }
        }
        for object in &mut objects {
            if let Object::Task(task) = object {
                let labels = of[&task.service.unwrap()].clone();
                let task = Arc::make_mut(task);
                task.service_labels = labels;
                task.meta.updated_at = now();
            }
        }
        objects
    })
}

fn priority_of(task: &Task) -> Priority {
    task.service_labels.get(LABEL).map_or(0, |text| text.parse().unwrap())
}

/// Without those that are being stopped.
fn without_leaving(world: &World) -> World {
    let stays = |task: &&Task| {
        let holds = (TaskState::Assigned..=TaskState::Running).contains(&task.status.state);
        !(holds && task.desired_state > TaskState::Complete)
    };
    World { nodes: world.nodes.clone(), tasks: world.tasks.iter().filter(stays).cloned().collect() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn it_places_as_the_plain_one_does_and_takes_no_more_than_it_must(objects in ranked()) {
        let mut store = fixture::store(objects);
        let before = World::of(&store);
        let mut plain = World::of(&store);
        plain.schedule();
        let wanted = pass(&store, now());
        fixture::apply(&mut store, wanted);
        let after = World::of(&store);
        prop_assert_eq!(places(after.tasks.iter().cloned()), places(plain.tasks.iter().cloned()));

        let askers: Vec<_> = after.tasks.iter().filter(|task| task.promised.is_some()).collect();
        let victims: Vec<_> = after.tasks.iter().filter(|task| task.displaced.is_some()).collect();
        for victim in &victims {
            let Cause::Preempted { by, its_priority, own_priority } = victim.displaced.as_ref().unwrap().cause else { panic!() };
            let asker = after.tasks.iter().find(|task| task.id == by).unwrap();
            prop_assert!(its_priority > own_priority);
            prop_assert_eq!((its_priority, own_priority), (priority_of(asker), priority_of(victim)));
            prop_assert_eq!(asker.promised.as_ref().map(|it| it.node), victim.node);
            prop_assert!(before.tasks.iter().any(|task| task.id == victim.id && task.desired_state <= TaskState::Complete));
        }
        for asker in &askers {
            let bound = before.tasks.iter().find(|task| task.id == asker.id).and_then(|task| task.node);
            for node in after.nodes.iter().filter(|node| bound.is_none_or(|bound| bound == node.id)) {
                // As it was before any room was made.
                let refusal = before_with(&after, &victims).refusal(node, asker);
                prop_assert!(refusal.is_some(), "{} could have {}", node.id, asker.id);
            }
        }
        // Where there are more, one may count on what another one has taken.
        if let [asker] = askers[..] {
            let promised = asker.promised.as_ref().unwrap().node;
            let node = after.nodes.iter().find(|node| node.id == promised).unwrap();
            let rest = without_leaving(&after);
            prop_assert_eq!(rest.refusal(node, asker), None);
            for victim in &victims {
                let mut one_more = without_leaving(&after);
                one_more.tasks.push(Task { desired_state: TaskState::Running, ..Task::clone(victim) });
                prop_assert!(one_more.refusal(node, asker).is_some(), "{} need not go", victim.id);
            }
            // Who was placed in this very pass, before room was made, stays.
            let was_there = |task: &Task| before.tasks.iter().any(|it| it.id == task.id && !waits(it));
            if let Some(highest) = victims.iter().map(|task| priority_of(task)).max() {
                for node in after.nodes.iter().filter(|node| asker.node.is_none_or(|bound| bound == node.id)) {
                    let mut lower = without_leaving(&before_with(&after, &victims));
                    lower.tasks.retain(|task| {
                        task.node != Some(node.id) || waits(task) || priority_of(task) >= highest || !was_there(task)
                    });
                    prop_assert!(lower.refusal(node, asker).is_some(), "lower ones would do on {}", node.id);
                }
            }
        }
        // A place under a bound of replicas may be free now; but nobody else goes.
        let again = pass(&store, now()).actions;
        prop_assert!(victims.len() > 2 || !again.iter().any(displaces), "{:?}", again);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// With an orchestrator that replaces who goes: it comes to rest, nobody goes for an equal or lower one, and who was promised a node has it.
    #[test]
    fn it_comes_to_rest(objects in ranked()) {
        let mut store = fixture::store(objects);
        let mut scheduler = Scheduler::default();
        let mut ids = 1_000_000;
        let mut last = 0;
        for round in 0..40_u64 {
            let moment = now().after(Duration::from_secs(11 * round));
            let observed = Observed::default();
            let wanted = scheduler.schedule(&View::new(&store, &observed), moment);
            prop_assert_eq!(&wanted, &pass(&store, moment), "what is kept decides nothing");
            scheduler.committed(&fixture::apply(&mut store, wanted));
            let leaving: Vec<_> = store.tasks().filter(|task| task.displaced.is_some() && !task.status.state.is_terminal()).cloned().collect();
            let mut ends = Reconciled::default();
            for victim in leaving {
                last = round;
                ids += 1;
                let successor = Task {
                    id: TaskId::of(spread_out(ids)),
                    status: TaskStatus { state: TaskState::Pending, ..TaskStatus::default() },
                    node: None,
                    displaced: None,
                    desired_state: TaskState::Running,
                    generic_resources: Vec::new(),
                    ..Task::clone(&victim)
                };
                ends.create(successor);
                let mut ended = Task::clone(&victim);
                ended.status.state = TaskState::Shutdown;
                ends.update(ended);
            }
            scheduler.committed(&fixture::apply(&mut store, ends));
        }
        prop_assert!(last < 35, "who goes next never ends");
        let nodes: BTreeSet<_> = store.nodes().map(|node| node.id).collect();
        for task in store.tasks() {
            let gone = task.promised.as_ref().is_some_and(|it| nodes.contains(&it.node) && waits(task));
            let is_leaving = task.promised.as_ref().is_some_and(|it| store.tasks_on(it.node).any(|other| other.desired_state > TaskState::Complete && !other.status.state.is_terminal()));
            prop_assert!(!gone || is_leaving, "{} still waits for what it was promised", task.id);
        }
    }
}

/// The world with the victims as they were.
fn before_with(after: &World, victims: &[&Task]) -> World {
    let mut tasks = after.tasks.clone();
    for task in tasks.iter_mut().filter(|task| victims.iter().any(|it| it.id == task.id)) {
        task.desired_state = TaskState::Running;
    }
    World { nodes: after.nodes.clone(), tasks }
}
