//! What holds for every sequence of what users, nodes and tasks can do.

use proptest::prelude::*;

use super::simulated::{BROKEN, SHORT_LIVED, Simulated};
use crate::fixture;
use crate::label::rebalance;
use crate::objects::node::{Availability, NodeState};
use crate::objects::service::{FailureAction, JobStatus, UpdateOrder, UpdateState};
use crate::objects::task::{RestartCondition, RestartPolicy, Stop};
use crate::objects::{Service, ServiceMode, TaskSpec, TaskState, UpdateConfig};
use std::collections::BTreeSet;
use std::time::Duration;

const NODES: u128 = 3;

#[derive(Debug, Clone)]
enum Event {
    Scale(u64),
    Image(&'static str),
    RollBack,
    Node(u128, NodeState),
    Availability(u128, Availability),
    /// The so-manieth live task ends, one that was asked to stop among them.
    End(usize, TaskState),
    Work,
    Pass(u64),
    /// The next leader's clock is so many seconds behind.
    ChangeLeader(i64),
    Credentials(u64),
    /// Whether the node has the label that constraints ask for.
    Zone(u128, Zone),
    Constraint(Zone),
    /// It leaves the cluster for good; another one comes with its name.
    Remove(u128),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Any,
    A,
}

fn event() -> impl Strategy<Value = Event> {
    let node = 1..=NODES;
    let image = prop_oneof![Just("a"), Just("b"), Just(BROKEN), Just(SHORT_LIVED)];
    let availability =
        prop_oneof![Just(Availability::Active), Just(Availability::Pause), Just(Availability::Drain)];
    let state = prop_oneof![
        3 => Just(NodeState::Ready),
        3 => Just(NodeState::Down),
        1 => Just(NodeState::Unknown),
        1 => Just(NodeState::Disconnected),
    ];
    let end = prop_oneof![Just(TaskState::Complete), Just(TaskState::Failed), Just(TaskState::Rejected)];
    prop_oneof![
        2 => (0..5_u64).prop_map(Event::Scale),
        2 => image.prop_map(Event::Image),
        1 => Just(Event::RollBack),
        2 => (node.clone(), state).prop_map(|(node, state)| Event::Node(node, state)),
        2 => (node, availability).prop_map(|(node, to)| Event::Availability(node, to)),
        3 => (0..8_usize, end).prop_map(|(index, state)| Event::End(index, state)),
        1 => prop_oneof![2 => -5..5_i64, 1 => -90_000..90_000_i64].prop_map(Event::ChangeLeader),
        1 => (0..3_u64).prop_map(Event::Credentials),
        1 => (1..=NODES, zone()).prop_map(|(node, zone)| Event::Zone(node, zone)),
        1 => zone().prop_map(Event::Constraint),
        1 => (1..=NODES).prop_map(Event::Remove),
        10 => Just(Event::Work),
        5 => (1..20_u64).prop_map(Event::Pass),
        1 => (60..200_u64).prop_map(Event::Pass),
    ]
}

fn zone() -> impl Strategy<Value = Zone> {
    prop_oneof![Just(Zone::Any), Just(Zone::A)]
}

fn config() -> impl Strategy<Value = UpdateConfig> {
    let order = prop_oneof![Just(UpdateOrder::StopFirst), Just(UpdateOrder::StartFirst)];
    let action =
        prop_oneof![Just(FailureAction::Pause), Just(FailureAction::Continue), Just(FailureAction::Rollback)];
    (0..3_u64, 0..8_u64, action, 0..8_u64, prop_oneof![Just(0.0_f32), Just(0.5)], order).prop_map(
        |(parallelism, delay, failure_action, monitor, max_failure_ratio, order)| UpdateConfig {
            parallelism,
            delay: Duration::from_secs(delay),
            failure_action,
            monitor: Duration::from_secs(monitor),
            max_failure_ratio,
            order,
        },
    )
}

fn policy() -> impl Strategy<Value = RestartPolicy> {
    let condition = prop_oneof![4 => Just(RestartCondition::Any), 1 => Just(RestartCondition::OnFailure), 1 => Just(RestartCondition::None)];
    (condition, 0..6_u64, 0..3_u64, 0..30_u64).prop_map(|(condition, delay, max_attempts, window)| {
        RestartPolicy {
            condition,
            delay: Duration::from_secs(delay),
            max_attempts,
            window: Duration::from_secs(window),
        }
    })
}

fn service(mode: ServiceMode, config: UpdateConfig, restart: RestartPolicy) -> Service {
    let mut service = fixture::service(1, mode);
    service.spec.update = Some(config);
    service.spec.rollback = Some(config);
    service.spec.task = TaskSpec { restart: Some(restart), ..TaskSpec::default() }.into();
    service
}

fn happen(cluster: &mut Simulated, event: Event) {
    match event {
        Event::Scale(to) => cluster.update_spec(|spec| {
            if let ServiceMode::Replicated { replicas } = &mut spec.mode {
                *replicas = to;
            }
        }),
        Event::Image(image) => cluster.set_image(image),
        Event::RollBack => cluster.roll_back(),
        Event::Node(number, state) => cluster.set_node_state(number, state),
        Event::Availability(number, to) => cluster.set_availability(number, to),
        Event::End(index, state) => {
            if let Some(task) = cluster.live().get(index).map(|task| task.id) {
                cluster.set_state(task, state);
            }
        }
        Event::Work => {
            cluster.work();
        }
        Event::ChangeLeader(behind) => cluster.change_leader_behind(behind),
        Event::Credentials(number) => cluster.set_credentials(&number.to_string()),
        Event::Zone(number, zone) => set_zone(cluster, number, zone),
        Event::Constraint(zone) => set_constraint(cluster, zone),
        Event::Remove(number) => cluster.exchange_node(number),
        Event::Pass(seconds) => cluster.pass(seconds),
    }
    cluster.settle();
}

fn set_zone(cluster: &mut Simulated, number: u128, zone: Zone) {
    cluster.change_node(number, |node| {
        node.spec.labels.clear();
        if zone == Zone::A {
            node.spec.labels.insert("zone".to_owned(), "a".to_owned());
        }
    });
}

fn set_constraint(cluster: &mut Simulated, zone: Zone) {
    cluster.update_spec(|spec| {
        let mut task = TaskSpec::clone(&spec.task);
        task.placement.constraints = match zone {
            Zone::Any => Vec::new(),
            Zone::A => vec!["node.labels.zone == a".to_owned()],
        };
        spec.task = task.into();
    });
}

/// Every node is there and good for everything.
fn heal_nodes(cluster: &mut Simulated) {
    for number in 1..=NODES {
        cluster.set_node_state(number, NodeState::Ready);
        cluster.set_availability(number, Availability::Active);
        set_zone(cluster, number, Zone::A);
    }
}

/// The same, and the user asks for something that can run.
fn heal(cluster: &mut Simulated) {
    heal_nodes(cluster);
    cluster.set_image("good");
    cluster.run(400);
}

/// With a policy that always restarts, what can run comes to run when the nodes are well, and no user asks for anything.
fn comes_back_by_itself(cluster: &mut Simulated, slots_wanted: usize) {
    heal_nodes(cluster);
    let healed_at = cluster.passed;
    cluster.run(400);
    assert!(
        cluster.passed - healed_at < Duration::from_secs(3600),
        "held up by a clock: {:#?}",
        cluster.summary()
    );
    let image = |task: &TaskSpec| task.container().map(|container| container.image.clone());
    let tasks = cluster.tasks();
    let lasts = |task: &TaskSpec| !matches!(image(task).as_deref(), Some(BROKEN | SHORT_LIVED));
    let wanted = tasks.iter().filter(|task| task.desired_state <= TaskState::Running);
    // An update that was paused may leave tasks of either spec.
    if lasts(&cluster.service().spec.task) && wanted.clone().all(|task| lasts(&task.spec)) {
        let slots: BTreeSet<_> = cluster.running().iter().map(|task| (task.slot, task.node)).collect();
        assert_eq!(slots.len(), slots_wanted, "{:#?}", cluster.summary());
        assert_eq!(cluster.running().len(), slots_wanted, "{:#?}", cluster.summary());
        let on = [Some(UpdateState::Updating), Some(UpdateState::RollbackStarted)];
        assert!(!on.contains(&cluster.update_state()), "{:#?}", cluster.summary());
    }
}

/// A second look wants nothing, and the service has what it asks for, in the present spec.
fn has_converged(cluster: &Simulated, slots_wanted: usize) {
    let running = cluster.running();
    assert_eq!(running.len(), slots_wanted, "{:#?}", cluster.summary());
    let slots: BTreeSet<_> = running.iter().map(|task| (task.slot, task.node)).collect();
    assert_eq!(slots.len(), slots_wanted);
    assert!(
        running.iter().all(|task| task.spec.container().is_some_and(|container| container.image == "good"))
    );
    assert_ne!(cluster.update_state(), Some(UpdateState::Updating));
}

proptest! {
    #[test]
    fn a_replicated_service_comes_to_what_it_asks_for(
        replicas in 0..5_u64, config in config(), policy in policy(), history in -1..6_i64,
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut cluster = Simulated::new(NODES, service(ServiceMode::Replicated { replicas }, config, policy));
        cluster.set_history(history);
        cluster.settle();
        events.into_iter().for_each(|event| happen(&mut cluster, event));
        heal(&mut cluster);
        let ServiceMode::Replicated { replicas } = cluster.service().spec.mode else { unreachable!() };
        has_converged(&cluster, replicas as usize);
    }

    /// Whatever happens no move takes down more than an update may (`Simulated` checks each commit), and moves end.
    #[test]
    fn a_service_that_is_rebalanced_comes_to_what_it_asks_for_evenly(
        replicas in 0..7_u64, config in config(), policy in policy(), history in -1..6_i64,
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut moving = service(ServiceMode::Replicated { replicas }, config, policy);
        moving.spec.labels.insert(rebalance::LABEL.to_owned(), "true".to_owned());
        let mut cluster = Simulated::new(NODES, moving);
        cluster.set_history(history);
        cluster.settle();
        events.into_iter().for_each(|event| happen(&mut cluster, event));
        heal(&mut cluster);
        let ServiceMode::Replicated { replicas } = cluster.service().spec.mode else { unreachable!() };
        has_converged(&cluster, replicas as usize);
        let on = |node| cluster.running().iter().filter(|task| task.node == Some(node)).count();
        let counts: Vec<_> = cluster.store.nodes().map(|node| on(node.id)).collect();
        let difference = counts.iter().max().unwrap() - counts.iter().min().unwrap();
        prop_assert!(difference <= 1, "{:?} {:#?}", counts, cluster.summary());
    }

    #[test]
    fn a_global_service_comes_to_one_on_each_node(
        config in config(), policy in policy(), history in -1..6_i64, events in prop::collection::vec(event(), 0..60),
    ) {
        let mut cluster = Simulated::new(NODES, service(ServiceMode::Global, config, policy));
        cluster.set_history(history);
        cluster.settle();
        events.into_iter().for_each(|event| happen(&mut cluster, event));
        heal(&mut cluster);
        has_converged(&cluster, NODES as usize);
        let nodes: BTreeSet<_> = cluster.running().iter().filter_map(|task| task.node).collect();
        prop_assert_eq!(nodes.len(), NODES as usize);
    }

    #[test]
    fn a_replicated_service_that_restarts_comes_back_by_itself(
        replicas in 0..5_u64, config in config(), history in -1..6_i64,
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mode = ServiceMode::Replicated { replicas };
        let mut cluster = Simulated::new(NODES, service(mode, config, RestartPolicy::default()));
        cluster.set_history(history);
        cluster.settle();
        events.into_iter().for_each(|event| happen(&mut cluster, event));
        let ServiceMode::Replicated { replicas } = cluster.service().spec.mode else { unreachable!() };
        comes_back_by_itself(&mut cluster, replicas as usize);
    }

    #[test]
    fn a_global_service_that_restarts_comes_back_by_itself(
        config in config(), history in -1..6_i64, events in prop::collection::vec(event(), 0..60),
    ) {
        let mut cluster = Simulated::new(NODES, service(ServiceMode::Global, config, RestartPolicy::default()));
        cluster.set_history(history);
        cluster.settle();
        events.into_iter().for_each(|event| happen(&mut cluster, event));
        comes_back_by_itself(&mut cluster, NODES as usize);
    }

    #[test]
    fn a_job_completes_each_slot_once(
        max_concurrent in 1..4_u64, total_completions in 0..8_u64, events in prop::collection::vec(event(), 0..60),
    ) {
        let mode = ServiceMode::ReplicatedJob { max_concurrent, total_completions };
        let mut job = service(mode, UpdateConfig::default(), RestartPolicy::default());
        job.job = Some(JobStatus { iteration: 0, last_execution: fixture::at(0), schedule: None });
        let mut cluster = Simulated::new(NODES, job);
        cluster.settle();
        for event in events {
            happen(&mut cluster, event);
            job_holds(&cluster, max_concurrent);
        }
        heal(&mut cluster);
        prop_assert_eq!(job_holds(&cluster, max_concurrent), total_completions as usize);
    }
}

/// No slot has completed twice by itself, nothing is wanted in one that is done, and no more than `max_concurrent` go on; how
/// many are done.
fn job_holds(cluster: &Simulated, max_concurrent: u64) -> usize {
    let iteration = cluster.service().job.map(|job| job.iteration);
    let tasks: Vec<_> = cluster.tasks().into_iter().filter(|task| task.job_iteration == iteration).collect();
    let complete = || tasks.iter().filter(|task| task.status.state == TaskState::Complete);
    let done: BTreeSet<u64> = complete().map(|task| task.slot).collect();
    let by_itself: Vec<u64> =
        complete().filter(|task| task.stop == Stop::NotAsked).map(|task| task.slot).collect();
    assert_eq!(
        by_itself.iter().collect::<BTreeSet<_>>().len(),
        by_itself.len(),
        "a slot has completed twice"
    );
    let active: BTreeSet<u64> = tasks
        .iter()
        .filter(|task| task.desired_state <= TaskState::Complete && !task.status.state.is_terminal())
        .map(|task| task.slot)
        .collect();
    assert!(active.len() as u64 <= max_concurrent, "{active:?}");
    assert!(active.is_disjoint(&done), "{done:?} {:#?}", cluster.summary());
    done.len()
}
