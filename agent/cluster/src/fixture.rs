//! Objects for tests: each in its plainest form, to be changed by the test in what it is about.
//!
//! A store of them is at version 1, which is also the spec version of the services and tasks made here.

#![allow(dead_code, reason = "one vocabulary for the tests of every module, whichever of them exist")]

use std::sync::Arc;
use std::time::Duration;

use crate::id::{ClusterId, NetworkId, NodeId, ServiceId, TaskId};
use crate::objects::cluster::{ClusterNetworking, RootCa};
use crate::objects::node::{NodeDescription, NodeState, NodeStatus, Platform};
use crate::objects::{
    Cluster, ClusterSpec, Endpoint, Labels, Meta, Network, NetworkSpec, Node, NodeSpec, Resources, Service,
    ServiceMode, ServiceSpec, Task, TaskSpec, TaskState, TaskStatus, Version,
};
use crate::reconciled::Reconciled;
use crate::store::{Change, Object, Store};
use crate::time::Timestamp;

/// So many seconds after 1970.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::default().after(Duration::from_secs(seconds))
}

/// Bits of new ids: one more each time. `&mut counter(1000)` is a `NewBits`.
pub(crate) fn counter(first: u128) -> impl FnMut() -> u128 {
    let mut next = first;
    move || {
        next += 1;
        next - 1
    }
}

/// The cluster as `swarm init` makes it.
pub(crate) fn cluster() -> Cluster {
    Cluster {
        id: ClusterId::of(1),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        networking: ClusterNetworking::default(),
        root_ca: RootCa::default(),
        shut_out: std::collections::BTreeMap::new(),
        unlock_key: None,
        data_keys: Vec::new(),
    }
}

/// A worker that is ready and active: linux on x86_64, 4 CPUs, 8 GiB, hostname `node-<number>`.
pub(crate) fn node(number: u128) -> Node {
    Node {
        id: NodeId::of(number),
        meta: Meta::default(),
        spec: NodeSpec::default(),
        description: Some(NodeDescription {
            hostname: format!("node-{number}"),
            platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
            resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30, generic: Vec::new() },
            ..NodeDescription::default()
        }),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        role: NodeSpec::default().role,
        manager: None,
        attachments: Vec::new(),
    }
}

/// A service `service-<number>` of that mode, with everything else as Docker's defaults are.
pub(crate) fn service(number: u128, mode: ServiceMode) -> Service {
    Service {
        id: ServiceId::of(number),
        meta: Meta::default(),
        spec: ServiceSpec {
            name: format!("service-{number}"),
            labels: Labels::new(),
            task: Arc::new(TaskSpec::default()),
            mode,
            update: None,
            rollback: None,
            endpoint: None,
        },
        spec_version: Version(1),
        previous_spec: None,
        previous_spec_version: None,
        endpoint: Endpoint::default(),
        update_status: None,
        job: None,
        replicas_changed_at: None,
    }
}

pub(crate) fn replicated(number: u128, replicas: u64) -> Service {
    service(number, ServiceMode::Replicated { replicas })
}

/// A new task of the service, wanted running, without a node.
pub(crate) fn task(number: u128, service: &Service, slot: u64) -> Task {
    let id = TaskId::of(number);
    Task {
        spec_version: service.spec_version,
        service: Some(service.id),
        slot,
        name: format!("{}.{slot}.{id}", service.spec.name).into(),
        service_name: service.spec.name.as_str().into(),
        service_labels: service.spec.labels.clone(),
        job_iteration: service.job.map(|job| job.iteration),
        ..Task::new(id, service.spec.task.clone())
    }
}

/// The same task on a node, in a state that it entered at the start of time.
pub(crate) fn task_on(task: Task, node: &Node, state: TaskState) -> Task {
    let running_since = (state >= TaskState::Running).then(Timestamp::default);
    Task { node: Some(node.id), status: TaskStatus { state, running_since, ..TaskStatus::default() }, ..task }
}

/// An overlay network `network-<number>` that has no allocation yet.
pub(crate) fn network(number: u128) -> Network {
    Network {
        id: NetworkId::of(number),
        meta: Meta::default(),
        spec: NetworkSpec { name: format!("network-{number}"), ..NetworkSpec::default() },
        allocation: None,
        pending_delete: false,
    }
}

/// The store of these objects.
pub(crate) fn store(objects: impl IntoIterator<Item = Object>) -> Store {
    let mut store = Store::default();
    let mut wanted = Reconciled::default();
    objects.into_iter().for_each(|object| wanted.create(object));
    apply(&mut store, wanted);
    store
}

/// Commits what a reconciler wants, as the next transaction.
pub(crate) fn apply(store: &mut Store, wanted: Reconciled) -> Vec<Change> {
    let next = Version(store.version().0 + 1);
    store.apply(next, &wanted.actions).unwrap()
}
