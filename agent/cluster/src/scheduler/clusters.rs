//! Random clusters for the property tests: small ones, in which everything that a filter or the order reads is met.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::fixture::{self, at};
use crate::id::{NodeId, TaskId};
use crate::objects::endpoint::{Protocol, PublishMode};
use crate::objects::node::{Availability, NodeState, Platform};
use crate::objects::{
    Endpoint, GenericResource, Node, PortConfig, Resources, Service, Task, TaskSpec, TaskState, TaskStatus,
};
use crate::store::Object;

/// A random cluster: nodes, services whose tasks are running, ended or waiting.
pub(super) fn cluster() -> impl Strategy<Value = Vec<Object>> {
    (vec(node(), 0..7), vec(service(), 1..5)).prop_map(|(nodes, services)| {
        let mut ids = fixture::counter(1);
        let nodes: Vec<Node> =
            nodes.into_iter().map(|node| Node { id: NodeId::of(spread_out(ids())), ..node }).collect();
        let mut objects: Vec<Object> = nodes.iter().cloned().map(Object::from).collect();
        for (spec, tasks) in services {
            let mut service = fixture::replicated(spread_out(ids()), 3);
            service.spec.name = service.id.to_string();
            service.spec.task = Arc::new(spec);
            for task in tasks {
                objects.push(task.of(&service, TaskId::of(spread_out(ids())), &nodes).into());
            }
            objects.insert(0, service.into());
        }
        objects
    })
}

/// Ids as random as real ones, from a count.
pub(super) fn spread_out(count: u128) -> u128 {
    count.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn node() -> impl Strategy<Value = Node> {
    let zone = select(vec!["", "a", "b", "c"]);
    let rack = select(vec!["", "1", "2"]);
    let gpus = select(vec![0_usize, 0, 1, 3]);
    let away = select(vec![0, 0, 0, 0, 0, 1, 2]);
    (zone, rack, gpus, away, 0..5_u64, any::<bool>()).prop_map(|(zone, rack, gpus, away, size, arm)| {
        let mut node = fixture::node(0);
        let labels = [("zone", zone), ("rack", rack)].into_iter().filter(|(_, value)| !value.is_empty());
        node.spec.labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let description = node.description.as_mut().unwrap();
        description.resources = Resources { nano_cpus: size, memory_bytes: 2 * size, generic: Vec::new() };
        if gpus > 0 {
            let values = ["x", "y", "z"].into_iter().take(gpus).map(str::to_owned).collect();
            description.resources.generic = vec![GenericResource::Named { kind: "GPU".to_owned(), values }];
        }
        if arm {
            description.platform.architecture = "aarch64".to_owned();
        }
        match away {
            1 => node.status.state = NodeState::Down,
            2 => node.spec.availability = Availability::Pause,
            _ => {}
        }
        node
    })
}

fn service() -> impl Strategy<Value = (TaskSpec, Vec<TaskShape>)> {
    let constraint = select(vec![
        None,
        None,
        None,
        Some("node.labels.zone == a"),
        Some("node.labels.zone != b"),
        Some("bad"),
    ]);
    let spread = select(vec![&[][..], &[], &["node.labels.zone"], &["node.labels.zone", "node.labels.rack"]]);
    let platform = select(vec![None, None, None, Some("amd64")]);
    let most = select(vec![0_u64, 0, 1, 2]);
    let reserved = (0..3_u64, 0..3_u64, select(vec![0_u64, 0, 0, 1, 2]));
    let port = select(vec![None, None, None, Some(0_u16), Some(80), Some(81)]);
    let spec = (constraint, spread, platform, most, reserved).prop_map(
        |(constraint, spread, platform, most, (cpus, bytes, gpus))| {
            let mut spec = TaskSpec::default();
            spec.placement.constraints = constraint.into_iter().map(str::to_owned).collect();
            spec.placement.spread = spread.iter().map(|&it| it.to_owned()).collect();
            spec.placement.max_replicas_per_node = most;
            let platform = platform.map(|name| Platform { architecture: name.to_owned(), os: String::new() });
            spec.placement.platforms = platform.into_iter().collect();
            spec.resources.reservations =
                Resources { nano_cpus: cpus, memory_bytes: bytes, generic: Vec::new() };
            if gpus > 0 {
                let wanted = GenericResource::Count { kind: "GPU".to_owned(), amount: gpus };
                spec.resources.reservations.generic = vec![wanted];
            }
            spec
        },
    );
    (spec, vec(task_shape(), 0..16), failures(), port).prop_map(|(spec, mut tasks, failures, port)| {
        tasks.extend(failures);
        tasks.iter_mut().for_each(|task| task.port = port);
        (spec, tasks)
    })
}

/// Failures on one node: around the number, and around the age, from which on they count.
fn failures() -> impl Strategy<Value = Vec<TaskShape>> {
    (any::<Index>(), select(vec![0_usize, 0, 4, 5, 6]), vec(690..702_u64, 6), any::<bool>()).prop_map(
        |(node, count, ages, old)| {
            let shape = |age| TaskShape {
                slot: 1,
                state: TaskState::Failed,
                desired: TaskState::Shutdown,
                node,
                bound: true,
                age: if old { age } else { age + 100 },
                port: None,
            };
            ages.into_iter().take(count).map(shape).collect()
        },
    )
}

#[derive(Debug, Clone)]
struct TaskShape {
    slot: u64,
    state: TaskState,
    desired: TaskState,
    node: Index,
    /// Of a waiting one: its node is already chosen.
    bound: bool,
    age: u64,
    port: Option<u16>,
}

fn task_shape() -> impl Strategy<Value = TaskShape> {
    use TaskState::{Assigned, Complete, Failed, New, Pending, Ready, Rejected, Remove, Running, Shutdown};
    let state = select(vec![
        New, Pending, Pending, Pending, Pending, Pending, Pending, Assigned, Running, Running, Failed,
        Failed, Failed, Rejected, Shutdown,
    ]);
    let desired = select(vec![Running, Running, Running, Running, Ready, Complete, Shutdown, Remove]);
    let bound = select(vec![false, false, false, true]);
    (0..6_u64, state, desired, any::<Index>(), bound, 600..1000_u64).prop_map(
        |(slot, state, desired, node, bound, age)| TaskShape {
            slot,
            state,
            desired,
            node,
            bound,
            age,
            port: None,
        },
    )
}

impl TaskShape {
    fn of(self, service: &Service, id: TaskId, nodes: &[Node]) -> Task {
        let mut task = fixture::task(0, service, self.slot);
        task.id = id;
        task.desired_state = self.desired;
        task.meta.created_at = at(self.age);
        task.status = TaskStatus { state: self.state, since: at(self.age), ..TaskStatus::default() };
        let placed = self.bound || self.state > TaskState::Pending;
        task.node = (placed && !nodes.is_empty()).then(|| self.node.get(nodes).id);
        if let Some(published_port) = self.port {
            let port = PortConfig {
                name: String::new(),
                protocol: Protocol::Tcp,
                target_port: 80,
                published_port,
                publish_mode: PublishMode::Host,
            };
            task.endpoint = Some(Endpoint { ports: vec![port], ..Endpoint::default() });
        }
        task
    }
}
