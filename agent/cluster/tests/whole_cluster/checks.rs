//! What holds after every transaction and every word, whatever has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ketch_cluster::id::{NetworkId, NodeId, ServiceId, TaskId};
use ketch_cluster::objects::displacement::Cause;
use ketch_cluster::objects::endpoint::PublishMode;
use ketch_cluster::objects::node::NodeState;
use ketch_cluster::objects::service::UpdateOrder;
use ketch_cluster::objects::task::Gate;
use ketch_cluster::objects::{Service, ServiceMode, Task, TaskState};
use ketch_cluster::store::{Change, Object, ObjectId, ObjectKind, Store};
use ketch_cluster::view::View;

/// A slot, or the node of a service that has one place on each.
pub(crate) type Place = (ServiceId, u64, Option<NodeId>);

pub(crate) fn place_of(service: &Service, task: &Task) -> Place {
    (service.id, task.slot, task.node.filter(|_| service.spec.mode.is_bound_to_nodes()))
}

pub(crate) struct Invariants<'a> {
    pub(crate) view: View<'a>,
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Service(ServiceId),
    Node(NodeId),
    Task(TaskId),
}

impl Invariants<'_> {
    pub(crate) fn hold(&self) {
        self.places_have_one_task();
        self.what_waits_holds_nothing();
        self.addresses_have_one_holder();
        self.ports_have_one_service();
    }

    /// At most one task of a place is wanted running on a node that is not down; one more where new ones start first.
    fn places_have_one_task(&self) {
        for service in self.view.services() {
            let goal = if service.spec.mode.is_job() { TaskState::Complete } else { TaskState::Running };
            let is_counted = |task: &Task| {
                task.desired_state == goal
                    && !self.view.state(task).is_terminal()
                    && !self.is_lost(task)
                    && task.job_iteration == service.job.map(|job| job.iteration)
            };
            let mut wanted: BTreeMap<Place, Vec<TaskId>> = BTreeMap::new();
            for task in self.view.tasks_of(service.id).filter(|task| is_counted(task)) {
                wanted.entry(place_of(service, task)).or_default().push(task.id);
            }
            let starts_first = service.spec.update.is_some_and(|it| it.order == UpdateOrder::StartFirst);
            let most = if starts_first { 2 } else { 1 };
            for (place, tasks) in wanted {
                assert!(tasks.len() <= most, "in {place:?}: {:#?}", self.tasks_of(service.id));
            }
        }
    }

    /// A task at its gate says what it waits for, and keeps nothing from anybody.
    fn what_waits_holds_nothing(&self) {
        for task in self.view.tasks().filter(|task| task.gate == Gate::Closed) {
            assert!(matches!(task.status.state, TaskState::New | TaskState::Shutdown), "{task:?}");
            assert!(
                task.networks.is_empty() && task.status.error.starts_with("waiting for service "),
                "{task:?}"
            );
        }
    }

    fn is_lost(&self, task: &Task) -> bool {
        task.node.is_some_and(|node| {
            let state = self.view.node(node).map(|node| node.status.state);
            matches!(state, None | Some(NodeState::Down | NodeState::Disconnected))
        })
    }

    /// Of what may still use them: a task until its end is committed.
    fn addresses_have_one_holder(&self) {
        let mut holders: BTreeMap<(NetworkId, IpAddr), Holder> = BTreeMap::new();
        let mut hold = |network: NetworkId, address: IpAddr, holder: Holder| {
            let known = *holders.entry((network, address)).or_insert(holder);
            assert_eq!(known, holder, "{address} of {network} has two holders");
        };
        for service in self.view.services() {
            for it in &service.endpoint.virtual_ips {
                it.addresses.iter().for_each(|at| hold(it.network, at.address, Holder::Service(service.id)));
            }
        }
        for node in self.view.nodes() {
            for it in &node.attachments {
                it.addresses.iter().for_each(|at| hold(it.network, at.address, Holder::Node(node.id)));
            }
        }
        for task in self.view.tasks().filter(|task| !task.status.state.is_terminal()) {
            for it in &task.networks {
                it.addresses.iter().for_each(|at| hold(it.network, at.address, Holder::Task(task.id)));
            }
            let service = task.service.into_iter();
            let told = task.endpoint.iter().flat_map(|endpoint| &endpoint.virtual_ips);
            for (service, it) in service.flat_map(|service| told.clone().map(move |it| (service, it))) {
                it.addresses.iter().for_each(|at| hold(it.network, at.address, Holder::Service(service)));
            }
        }
    }

    fn ports_have_one_service(&self) {
        let mut taken = BTreeSet::new();
        for service in self.view.services() {
            let ports = service.endpoint.ports.iter().filter(|it| it.publish_mode == PublishMode::Ingress);
            for port in ports {
                assert_ne!(port.published_port, 0);
                assert!(taken.insert((port.protocol, port.published_port)), "{port:?} is published twice");
            }
        }
    }

    /// A service's tasks in short, for a failed case.
    pub(crate) fn tasks_of(&self, service: ServiceId) -> Vec<String> {
        let line = |task: &Task| {
            let status = self.view.status(task);
            let image = task.spec.container().map(|container| container.image.clone());
            format!(
                "{} slot {} node {:?} {image:?} v{} iteration {:?} {:?} ({:?} committed) -> {:?}, replaces {:?}, start after {:?}, made {:?}, {} {}",
                task.id,
                task.slot,
                task.node,
                task.spec_version.0,
                task.job_iteration,
                status.state,
                task.status.state,
                task.desired_state,
                task.replaces,
                task.start_after,
                task.meta.created_at,
                task.status.message,
                task.status.error,
            )
        };
        self.view.tasks_of(service).map(|task| line(task)).collect()
    }
}

/// What jobs have completed, as far as it was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Completions {
    done: BTreeSet<(Place, u64)>,
}

/// A gate is opened only when the service that is waited for runs as often as it is wanted.
pub(crate) fn gates_open_in_order(view: &View<'_>, changes: &[Change]) {
    let opened = changes.iter().filter_map(|change| match (&change.old, &change.new) {
        (Some(Object::Task(old)), Some(Object::Task(new))) if old.gate != new.gate => Some(new),
        _ => None,
    });
    for task in opened {
        let waits_for = view.service(task.service.unwrap()).unwrap().spec.labels["ketch.depends_on"].clone();
        let name = waits_for.strip_suffix(":healthy").unwrap();
        let Some(ObjectId::Service(id)) = view.by_name(ObjectKind::Service, name) else { panic!("{name}") };
        if let ServiceMode::Replicated { replicas } = view.service(id).unwrap().spec.mode {
            let runs = |it: &&std::sync::Arc<Task>| view.state(it) == TaskState::Running;
            let running: BTreeSet<u64> = view.tasks_of(id).filter(runs).map(|it| it.slot).collect();
            assert!(running.len() as u64 >= replicas, "{name} runs in {running:?}, of {replicas}");
        }
    }
}

/// Nobody goes for a task of an equal or lower priority.
pub(crate) fn higher_ones_preempt(view: &View<'_>, changes: &[Change]) {
    for change in changes {
        let (Some(Object::Task(old)), Some(Object::Task(task))) = (&change.old, &change.new) else {
            continue;
        };
        let Some(displaced) = task.displaced.as_ref().filter(|_| old.displaced != task.displaced) else {
            continue;
        };
        let Cause::Preempted { by, .. } = displaced.cause else { continue };
        let priority = |task: &Task| {
            let labels = &view.service(task.service.unwrap()).unwrap().spec.labels;
            labels.get("ketch.priority").map_or(0, |it| it.parse::<i32>().unwrap())
        };
        let by = view.task(by).unwrap();
        assert!(priority(by) > priority(task), "{} by {}: {}", task.id, by.id, displaced.reason);
        assert_eq!(by.promised.as_ref().map(|it| it.node), task.node);
    }
}

impl Completions {
    /// A place that has completed is never tried again.
    pub(crate) fn note(&mut self, store: &Store, changes: &[Change]) {
        for change in changes {
            let Some(Object::Task(task)) = &change.new else { continue };
            let (Some(id), Some(iteration)) = (task.service, task.job_iteration) else { continue };
            let Some(service) = store.service(id) else { continue };
            let run = (place_of(service, task), iteration);
            if change.old.is_none() {
                assert!(!self.done.contains(&run), "{run:?} has completed, and is run again");
            }
            if task.status.state == TaskState::Complete {
                self.done.insert(run);
            }
        }
    }

    /// How many places of an iteration have completed.
    pub(crate) fn count(&self, service: ServiceId, iteration: u64) -> usize {
        self.done.iter().filter(|((of, ..), run)| *of == service && *run == iteration).count()
    }
}
