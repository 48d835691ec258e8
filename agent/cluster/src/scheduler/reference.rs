//! A scheduler as plain as can be, for tests: one task at a time, every node looked at, every sum made anew from all
//! tasks. The real one must place as this one does, in every cluster that `cluster()` makes up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::clusters::{cluster, spread_out};
use super::schedule;
use crate::constraint::Constraints;
use crate::fixture::{self, at};
use crate::id::{NodeId, ServiceId, TaskId};
use crate::objects::endpoint::{Protocol, PublishMode};
use crate::objects::node::{Availability, NodeState};
use crate::objects::{GenericResource, Node, Resources, Task, TaskState};
use crate::reconciled::Reconciled;
use crate::store::{Object, Store, StoreAction};
use crate::time::Timestamp;
use crate::view::{Observed, View};

/// The moment at which everything here is scheduled.
pub(super) fn now() -> Timestamp {
    at(1000)
}

/// Nodes and tasks as plain lists.
pub(super) struct World {
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) tasks: Vec<Task>,
}

impl World {
    pub(super) fn of(store: &Store) -> Self {
        Self {
            nodes: store.nodes().cloned().collect(),
            tasks: store.tasks().map(|it| Task::clone(it)).collect(),
        }
    }

    fn on<'w>(&'w self, node: &'w Node) -> impl Iterator<Item = &'w Task> {
        self.tasks.iter().filter(|task| {
            task.node == Some(node.id)
                && (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
        })
    }

    fn live<'w>(&'w self, node: &'w Node) -> impl Iterator<Item = &'w Task> {
        self.on(node).filter(|task| task.desired_state <= TaskState::Complete)
    }

    fn reserved(&self, node: &Node, read: impl Fn(&Resources) -> u64) -> u64 {
        self.on(node).map(|task| read(&task.spec.resources.reservations)).sum()
    }

    fn host_ports(&self, node: &Node) -> Vec<(Protocol, u16)> {
        self.on(node).flat_map(host_ports_of).collect()
    }

    /// The named GPUs that no task has.
    fn free_gpus(&self, node: &Node) -> BTreeSet<String> {
        let given: BTreeSet<_> = self.on(node).flat_map(|task| gpus_in(&task.generic_resources)).collect();
        gpus_in(&resources_of(node).generic).difference(&given).cloned().collect()
    }

    fn of_service(&self, node: &Node, service: Option<ServiceId>) -> usize {
        self.live(node).filter(|task| task.service == service).count()
    }

    /// The words of the first filter that refuses the node.
    pub(super) fn refusal(&self, node: &Node, task: &Task) -> Option<&'static str> {
        let wants = &task.spec.resources.reservations;
        let has = resources_of(node);
        let placement = &task.spec.placement;
        let amd64 = |name: &str| if name == "x86_64" { "amd64".to_owned() } else { name.to_owned() };
        let architecture = &node.description.as_ref().unwrap().platform.architecture;
        let checks = [
            (
                "not available",
                node.status.state == NodeState::Ready && node.spec.availability == Availability::Active,
            ),
            (
                "insufficient resources",
                (wants.nano_cpus == 0
                    || self.reserved(node, |it| it.nano_cpus) + wants.nano_cpus <= has.nano_cpus)
                    && (wants.memory_bytes == 0
                        || self.reserved(node, |it| it.memory_bytes) + wants.memory_bytes
                            <= has.memory_bytes)
                    && gpus_wanted(wants) <= self.free_gpus(node).len() as u64,
            ),
            (
                "scheduling constraints",
                Constraints::parse(&placement.constraints).is_ok_and(|constraints| constraints.allow(node)),
            ),
            (
                "unsupported platform",
                placement.platforms.is_empty()
                    || placement.platforms.iter().any(|it| amd64(&it.architecture) == amd64(architecture)),
            ),
            ("host-mode port", !host_ports_of(task).iter().any(|port| self.host_ports(node).contains(port))),
            (
                "max replicas",
                placement.max_replicas_per_node == 0
                    || (self.of_service(node, task.service) as u64) < placement.max_replicas_per_node,
            ),
        ];
        checks.into_iter().find(|(_, passes)| !passes).map(|(words, _)| words)
    }

    fn rank(&self, node: &Node, task: &Task) -> (usize, usize, usize, u128) {
        let failed = |other: &&Task| {
            other.node == Some(node.id)
                && (other.service, other.spec_version) == (task.service, task.spec_version)
                && [TaskState::Failed, TaskState::Rejected].contains(&other.status.state)
                && other.status.since > at(700)
        };
        let failures = self.tasks.iter().filter(failed).count();
        let start = task.service.map_or(0, ServiceId::bits);
        (
            if failures < 5 { 0 } else { failures },
            self.of_service(node, task.service),
            self.live(node).count(),
            node.id.bits().wrapping_sub(start),
        )
    }

    /// The node among these that comes next: down the emptier branch of each level, then the best of the leaf.
    fn choose(&self, nodes: &[&Arc<Node>], levels: &[String], task: &Task) -> Option<NodeId> {
        let Some((level, deeper)) = levels.split_first() else {
            let allowed = nodes.iter().filter(|node| self.refusal(node, task).is_none());
            return allowed.min_by_key(|node| self.rank(node, task)).map(|node| node.id);
        };
        let mut parts = BTreeMap::<String, Vec<&Arc<Node>>>::new();
        for node in nodes {
            let label = level.trim_start_matches("node.labels.");
            parts.entry(node.spec.labels.get(label).cloned().unwrap_or_default()).or_default().push(node);
        }
        let choices = parts.values().filter_map(|part| {
            let of_service: usize = part.iter().map(|node| self.of_service(node, task.service)).sum();
            let chosen = self.choose(part, deeper, task)?;
            let node = nodes.iter().find(|node| node.id == chosen)?;
            Some(((of_service, self.rank(node, task)), chosen))
        });
        choices.min().map(|(_, chosen)| chosen)
    }

    fn assign(&mut self, task: &Task, node: NodeId) {
        let node = self.nodes.iter().find(|it| it.id == node).unwrap().clone();
        let wanted = usize::try_from(gpus_wanted(&task.spec.resources.reservations)).unwrap();
        let values: BTreeSet<_> = self.free_gpus(&node).into_iter().take(wanted).collect();
        let placed = self.tasks.iter_mut().find(|it| it.id == task.id).unwrap();
        placed.node = Some(node.id);
        placed.status.state = TaskState::Assigned;
        if wanted > 0 {
            placed.generic_resources = vec![GenericResource::Named { kind: "GPU".to_owned(), values }];
        }
    }

    /// The highest priority first; of one priority bound tasks, then all others; services by their oldest waiting task, tasks by slot.
    pub(super) fn schedule(&mut self) {
        let mut waiting: Vec<_> = self.tasks.iter().filter(|task| waits(task)).cloned().collect();
        let oldest = |waiting: &[Task], service| {
            waiting.iter().filter(|task| task.service == service).map(|task| task.meta.created_at).min()
        };
        let order = |task: &Task| {
            let priority =
                task.service_labels.get("ketch.priority").map_or(0, |it| it.parse::<i32>().unwrap());
            (
                (Reverse(priority), task.node.is_none()),
                oldest(&waiting, task.service),
                task.service,
                task.spec_version,
                task.slot,
                task.id,
            )
        };
        let orders: BTreeMap<TaskId, _> = waiting.iter().map(|task| (task.id, order(task))).collect();
        waiting.sort_by_key(|task| orders[&task.id]);
        for task in waiting {
            let chosen = match task.node {
                Some(bound) => self
                    .nodes
                    .iter()
                    .find(|node| node.id == bound && self.refusal(node, &task).is_none())
                    .map(|node| node.id),
                None => {
                    self.choose(&self.nodes.iter().collect::<Vec<_>>(), &task.spec.placement.spread, &task)
                }
            };
            if let Some(node) = chosen {
                self.assign(&task, node);
            }
        }
    }
}

pub(super) fn waits(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.desired_state <= TaskState::Complete
}

fn resources_of(node: &Node) -> &Resources {
    &node.description.as_ref().unwrap().resources
}

fn host_ports_of(task: &Task) -> Vec<(Protocol, u16)> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports
        .filter(|port| port.publish_mode == PublishMode::Host && port.published_port > 0)
        .map(|port| (port.protocol, port.published_port))
        .collect()
}

fn gpus_in(resources: &[GenericResource]) -> BTreeSet<String> {
    let named = resources.iter().filter_map(|resource| match resource {
        GenericResource::Named { values, .. } => Some(values.clone()),
        GenericResource::Count { .. } => None,
    });
    named.flatten().collect()
}

fn gpus_wanted(reservations: &Resources) -> u64 {
    reservations.generic.iter().map(GenericResource::amount).sum()
}

fn run(store: &Store) -> Reconciled {
    schedule(&View::new(store, &Observed::default()), now())
}

/// Where each task is, and what it has of its node.
pub(super) fn places(
    tasks: impl Iterator<Item = Task>,
) -> BTreeMap<TaskId, (Option<NodeId>, TaskState, BTreeSet<String>)> {
    tasks.map(|task| (task.id, (task.node, task.status.state, gpus_in(&task.generic_resources)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn it_places_as_the_plain_one_does(objects in cluster()) {
        let mut store = fixture::store(objects);
        let mut plain = World::of(&store);
        plain.schedule();
        let wanted = run(&store);
        fixture::apply(&mut store, wanted);
        let real = World::of(&store);
        prop_assert_eq!(places(real.tasks.iter().cloned()), places(plain.tasks.iter().cloned()));

        for task in real.tasks.iter().filter(|task| waits(task)) {
            prop_assert!(!task.status.error.is_empty(), "{} waits without a reason", task.id);
            let bound = real.nodes.iter().find(|node| Some(node.id) == task.node);
            for node in real.nodes.iter().filter(|node| bound.is_none_or(|bound| bound.id == node.id)) {
                let words = real.refusal(node, task);
                prop_assert!(words.is_some(), "{} could have {}", node.id, task.id);
                prop_assert!(task.status.error.contains(words.unwrap()), "{:?} {:?}", words, task.status.error);
            }
        }
        // But another look at what was told just now.
        prop_assert_eq!(run(&store).actions, [], "it wants nothing more");
    }

    #[test]
    fn no_node_gets_more_than_it_has(objects in cluster()) {
        let mut store = fixture::store(objects);
        let before = World::of(&store);
        let wanted = run(&store);
        fixture::apply(&mut store, wanted);
        let after = World::of(&store);
        let was_waiting: BTreeSet<_> = before.tasks.iter().filter(|task| waits(task)).map(|task| task.id).collect();
        for node in &after.nodes {
            for task in after.on(node).filter(|task| was_waiting.contains(&task.id)) {
                let wants = &task.spec.resources.reservations;
                let has = resources_of(node);
                prop_assert!(wants.nano_cpus == 0 || after.reserved(node, |it| it.nano_cpus) <= has.nano_cpus);
                prop_assert!(
                    wants.memory_bytes == 0 || after.reserved(node, |it| it.memory_bytes) <= has.memory_bytes
                );
                let most = task.spec.placement.max_replicas_per_node;
                prop_assert!(most == 0 || after.of_service(node, task.service) as u64 <= most);
                let ports = after.host_ports(node);
                for port in host_ports_of(task) {
                    prop_assert_eq!(ports.iter().filter(|other| **other == port).count(), 1);
                }
                let gpus = gpus_in(&task.generic_resources);
                prop_assert_eq!(gpus.len() as u64, gpus_wanted(wants));
                prop_assert!(gpus.is_subset(&gpus_in(&has.generic)));
                let others = after.on(node).filter(|other| other.id != task.id);
                prop_assert!(others.flat_map(|it| gpus_in(&it.generic_resources)).all(|it| !gpus.contains(&it)));
            }
        }
    }

    /// Ids decide ties, and only ties: what is in which order when the store is filled decides nothing.
    #[test]
    fn the_order_in_which_things_came_does_not_matter(
        (objects, shuffled) in cluster().prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle()))
    ) {
        let (one, other) = (fixture::store(objects), fixture::store(shuffled));
        prop_assert_eq!(run(&one), run(&other));
    }

    /// All ids moved by the same way around the ring, the nodes' and the services' alike: every choice stays the same.
    #[test]
    fn ties_hang_on_the_way_from_service_to_node_alone(replicas in 1..12_u64, nodes in 1..9_u128, by: u128) {
        let places = |by: u128| {
            let mut service = fixture::replicated(spread_out(3).wrapping_add(by), replicas);
            service.spec.name = "one".to_owned();
            let tasks = (1..=replicas).map(|slot| {
                let mut task = fixture::task(u128::from(slot), &service, slot);
                task.status.state = TaskState::Pending;
                Object::from(task)
            });
            let nodes = (0..nodes).map(|number| Object::from(fixture::node(spread_out(number + 7).wrapping_add(by))));
            let store = fixture::store(nodes.chain(tasks));
            let nodes_of = run(&store).actions.into_iter().map(move |action| match action {
                StoreAction::Update(Object::Task(task)) => task.node.unwrap().bits().wrapping_sub(by),
                other => panic!("{other:?}"),
            });
            nodes_of.collect::<Vec<_>>()
        };
        prop_assert_eq!(places(by), places(0));
    }
}
