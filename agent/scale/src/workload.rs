//! The scheduler's workload of issue 7: services of 1 to 2,000 tasks, a third of them with constraints, a third with
//! reservations that fill the nodes to 85 %, all spread over two levels, one in twenty that no node can have.
//!
//! A node has a zone of five, a rack of ten in its zone, one disk of two kinds and one size of three.

use std::sync::Arc;

use ketch_cluster::id::{NodeId, ServiceId, TaskId};
use ketch_cluster::objects::node::{NodeDescription, NodeState, NodeStatus, Platform};
use ketch_cluster::objects::{
    Endpoint, Labels, Meta, Node, NodeSpec, Resources, Service, ServiceMode, ServiceSpec, Task, TaskSpec,
    TaskState, TaskStatus, Version,
};
use ketch_cluster::store::Object;
use ketch_cluster::time::Timestamp;

use crate::random::Random;

const ZONES: usize = 5;
const RACKS: usize = 10;
const LARGEST_SERVICE: f64 = 2000.0;
/// Above 1 there are more small services: by this there are 5,133 of a million tasks.
const SMALLNESS: f64 = 1.42;
/// Of the nodes' CPUs that is reserved once all tasks have a place.
const FILLED: f64 = 0.85;
const CPU: u64 = 1_000_000_000;
const GIB: u64 = 1 << 30;

/// All nodes and services, and the tasks that wait.
pub(crate) struct Workload {
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    /// Service by service.
    pub(crate) tasks: Vec<Task>,
}

/// What a service asks of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    /// The number of the constraint.
    Constraint(usize),
    /// So many shares of a node.
    Reservation(u64),
    /// What no node has.
    Unschedulable(usize),
}

/// Whoever is refused, most nodes can't have it, or few.
const CONSTRAINTS: [&str; 4] = [
    "node.labels.disk == ssd",
    "node.labels.zone != z1",
    "node.labels.rack == z0-r0",
    "node.platform.arch == x86_64",
];

impl Workload {
    /// So many tasks over so many nodes. A seed draws the same services whatever the nodes are.
    pub(crate) fn new(nodes: usize, tasks: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut sizes = Vec::new();
        let mut left = tasks;
        while left > 0 {
            let size = size_of_service(&mut random).min(left);
            sizes.push((wants(sizes.len(), &mut random), size));
            left -= size;
        }
        let nodes: Vec<Node> = (0..nodes).map(|number| node(number, &mut random)).collect();
        let share = share(&nodes, &sizes);
        let mut services = Vec::new();
        let mut tasks = Vec::new();
        for (number, (wants, size)) in sizes.into_iter().enumerate() {
            let service = service(number, spec(wants, share), &mut random);
            let born = Timestamp(u64::try_from(number).unwrap_or(0));
            tasks.extend((1..=size).map(|slot| {
                let slot = u64::try_from(slot).unwrap_or(0);
                waiting(&service, slot, (TaskId::of(random.id()), born))
            }));
            services.push(service);
        }
        Self { nodes, services, tasks }
    }

    /// Nodes and services, without the tasks.
    pub(crate) fn ground(&self) -> impl Iterator<Item = Object> {
        let nodes = self.nodes.iter().cloned().map(Object::from);
        nodes.chain(self.services.iter().cloned().map(Object::from))
    }
}

fn size_of_service(random: &mut Random) -> usize {
    let size = LARGEST_SERVICE.powf(random.part().powf(SMALLNESS));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 2,000")]
    let size = size as usize;
    size.max(1)
}

fn wants(number: usize, random: &mut Random) -> Wants {
    if random.below(20) == 0 {
        return Wants::Unschedulable(random.below(2));
    }
    match number % 3 {
        0 => Wants::Constraint(random.below(CONSTRAINTS.len())),
        1 => Wants::Reservation([1, 1, 2, 4][random.below(4)]),
        _ => Wants::Nothing,
    }
}

/// The CPUs of one share, so that all reservations come to what is to be filled.
fn share(nodes: &[Node], sizes: &[(Wants, usize)]) -> u64 {
    let cpus = |node: &Node| node.description.as_ref().map_or(0, |it| it.resources.nano_cpus);
    let all: u64 = nodes.iter().map(cpus).sum();
    let shares = sizes.iter().map(|(wants, size)| match wants {
        Wants::Reservation(shares) => shares * u64::try_from(*size).unwrap_or(0),
        _ => 0,
    });
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "of nanoseconds"
    )]
    let filled = (all as f64 * FILLED) as u64;
    filled / shares.sum::<u64>().max(1)
}

fn spec(wants: Wants, share: u64) -> TaskSpec {
    let mut spec = TaskSpec::default();
    spec.placement.spread = ["node.labels.zone", "node.labels.rack"].map(str::to_owned).into();
    let reservations = &mut spec.resources.reservations;
    match wants {
        Wants::Nothing => {}
        Wants::Constraint(number) => spec.placement.constraints = vec![CONSTRAINTS[number].to_owned()],
        Wants::Reservation(shares) => {
            *reservations = Resources {
                nano_cpus: share * shares,
                memory_bytes: share * shares / CPU * GIB,
                generic: Vec::new(),
            };
        }
        Wants::Unschedulable(0) => {
            spec.placement.constraints = vec!["node.labels.zone == nowhere".to_owned()]
        }
        Wants::Unschedulable(_) => reservations.nano_cpus = 1000 * CPU,
    }
    spec
}

fn node(number: usize, random: &mut Random) -> Node {
    let zone = random.below(ZONES);
    let rack = random.below(RACKS);
    let disk = if random.below(10) < 3 { "ssd" } else { "hdd" };
    let labels =
        [("zone", format!("z{zone}")), ("rack", format!("z{zone}-r{rack}")), ("disk", disk.to_owned())];
    let cpus = [16, 32, 64][random.below(3)];
    let architecture = if random.below(10) == 0 { "aarch64" } else { "x86_64" };
    Node {
        id: NodeId::of(random.id()),
        meta: Meta::default(),
        spec: NodeSpec {
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            ..NodeSpec::default()
        },
        description: Some(NodeDescription {
            hostname: format!("node-{number}"),
            platform: Platform { architecture: architecture.to_owned(), os: "linux".to_owned() },
            resources: Resources { nano_cpus: cpus * CPU, memory_bytes: 4 * cpus * GIB, generic: Vec::new() },
            ..NodeDescription::default()
        }),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        role: NodeSpec::default().role,
        manager: None,
        attachments: Vec::new(),
    }
}

fn service(number: usize, spec: TaskSpec, random: &mut Random) -> Service {
    Service {
        id: ServiceId::of(random.id()),
        meta: Meta::default(),
        spec: ServiceSpec {
            name: format!("service-{number}"),
            labels: Labels::new(),
            task: Arc::new(spec),
            mode: ServiceMode::Replicated { replicas: 1 },
            update: None,
            rollback: None,
            endpoint: None,
        },
        spec_version: Version(1),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: Endpoint::default(),
        update_status: None,
        replicas_changed_at: None,
        job: None,
    }
}

/// A task of the service that has its addresses and waits for a node.
pub(crate) fn waiting(service: &Service, slot: u64, (id, born): (TaskId, Timestamp)) -> Task {
    Task {
        meta: Meta::new(born),
        spec_version: service.spec_version,
        service: Some(service.id),
        slot,
        name: format!("{}.{slot}.{id}", service.spec.name).into(),
        service_name: service.spec.name.as_str().into(),
        status: TaskStatus {
            state: TaskState::Pending,
            message: "pending task scheduling".into(),
            ..TaskStatus::default()
        },
        endpoint: Some(Endpoint::default()),
        ..Task::new(id, Arc::clone(&service.spec.task))
    }
}
