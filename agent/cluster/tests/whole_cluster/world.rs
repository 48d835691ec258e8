//! The leader and the workers in one simulated time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::constraint::Constraints;
use ketch_cluster::control::{self, Force, NodeRemoval, NodeUpdate};
use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::node::{Availability, NodeDescription, NodeState, NodeStatus, Platform};
use ketch_cluster::objects::service::UpdateState;
use ketch_cluster::objects::{
    Cluster, Meta, NetworkSpec, Node, NodeSpec, Resources, Service, ServiceMode, Task, TaskState,
};
use ketch_cluster::store::StoreAction;

use crate::checks::{Invariants, place_of};
use crate::manager::Manager;
use crate::user::{self, Event, GOOD, Order};
use crate::worker::{Link, Mood, Told, Worker};

const NODES: usize = 3;

pub(crate) struct World {
    pub(crate) manager: Manager,
    workers: BTreeMap<NodeId, Worker>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut it = Self { manager: Manager::new(seed), workers: BTreeMap::new() };
        let spec = NetworkSpec { name: "ingress".to_owned(), ingress: true, ..NetworkSpec::default() };
        let (_, actions) =
            control::create_network(&it.manager.view(), spec, it.manager.now, &mut || 1).unwrap();
        it.manager.commit(&actions).unwrap();
        (0..NODES).for_each(|_| it.join());
        it.pass(Duration::from_secs(5));
        it
    }

    pub(crate) fn happen(&mut self, event: &Event) {
        match event {
            Event::Pass(milliseconds) => return self.pass(Duration::from_millis(*milliseconds)),
            Event::Availability(index, to) => self.change_node(*index, |spec| spec.availability = *to),
            Event::Label(index, zone) => self.change_node(*index, |spec| {
                spec.labels.insert("zone".to_owned(), (*zone).to_owned());
            }),
            Event::Join if self.workers.len() < NODES + 2 => self.join(),
            Event::Leave(index) => self.leave(*index),
            Event::RemoveNode(index) => drop(self.node(*index).map(|node| self.remove_node(node, Force::No))),
            Event::Silence(index, seconds) => self.cut(*index, *seconds),
            Event::Crash(index, seconds) => {
                self.cut(*index, *seconds);
                let now = self.manager.now;
                self.worker(*index).into_iter().for_each(|worker| worker.crash(now));
            }
            Event::FailTask(node, index) => {
                let now = self.manager.now;
                self.worker(*node).into_iter().for_each(|worker| worker.fail(*index, now));
            }
            Event::LeaderDies(0) => self.manager.change_leader(),
            Event::LeaderDies(after) => self.manager.dies_after = Some(*after),
            Event::History(limit) => self.set_history(*limit),
            event => {
                let request = user::request(&mut self.manager, event);
                request.into_iter().for_each(|actions| self.manager.commit(&actions).unwrap());
            }
        }
        self.pass(Duration::ZERO);
    }

    fn join(&mut self) {
        let id = NodeId::of(self.manager.random.bits());
        let now = self.manager.now;
        let description = NodeDescription {
            hostname: id.to_string(),
            platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
            resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30, generic: Vec::new() },
            data_address: Some([192, 0, 2, 1].into()),
            engine: ketch_cluster::objects::node::EngineDescription {
                plugins: BTreeSet::from([("Network".to_owned(), "overlay".to_owned())]),
                ..Default::default()
            },
            ..NodeDescription::default()
        };
        let node = Node {
            id,
            meta: Meta::new(now),
            spec: NodeSpec::default(),
            description: Some(description),
            status: NodeStatus { since: now, ..NodeStatus::default() },
            role: NodeSpec::default().role,
            manager: None,
            attachments: Vec::new(),
        };
        self.manager.commit(&[StoreAction::Create(node.into())]).unwrap();
        self.workers.insert(id, Worker::new(id, now));
    }

    fn node(&self, index: usize) -> Option<NodeId> {
        self.workers.keys().nth(index).copied()
    }

    fn worker(&mut self, index: usize) -> Option<&mut Worker> {
        self.workers.values_mut().nth(index).filter(|worker| worker.link != Link::Left)
    }

    fn change_node(&mut self, index: usize, change: impl FnOnce(&mut NodeSpec)) {
        let Some(id) = self.node(index) else { return };
        let mut spec = self.manager.store.node(id).unwrap().spec.clone();
        change(&mut spec);
        let version = self.manager.store.node(id).unwrap().meta.version;
        let update = NodeUpdate { version, spec, members: &BTreeMap::new() };
        let actions = control::update_node(&self.manager.view(), id, update, self.manager.now).unwrap();
        self.manager.commit(&actions).unwrap();
    }

    fn remove_node(&mut self, id: NodeId, force: Force) {
        let now = self.manager.now;
        let removal = NodeRemoval { force, members: &BTreeMap::new(), certificate_ends: now };
        let Ok(actions) = control::remove_node(&self.manager.view(), id, &removal, now) else { return };
        self.manager.commit(&actions).unwrap();
        self.manager.lose(id);
        self.workers.remove(&id);
    }

    fn leave(&mut self, index: usize) {
        let Some(worker) = self.worker(index) else { return };
        let (id, is_up) = (worker.id, worker.link == Link::Up);
        worker.link = Link::Left;
        worker.runs.clear();
        self.manager.lose(id);
        if is_up {
            self.manager.judge(id, NodeState::Disconnected);
        }
    }

    fn cut(&mut self, index: usize, seconds: u64) {
        let back_at = self.manager.now.after(Duration::from_secs(seconds));
        let Some(worker) = self.worker(index) else { return };
        worker.link = Link::DownUntil(back_at);
        let id = worker.id;
        self.manager.lose(id);
    }

    fn set_history(&mut self, limit: i64) {
        let mut cluster = Cluster::clone(self.manager.store.cluster().unwrap());
        cluster.spec.task_history_limit = limit;
        self.manager.commit(&[StoreAction::Update(cluster.into())]).unwrap();
    }

    /// Lets so much time pass, with all at work.
    pub(crate) fn pass(&mut self, span: Duration) {
        let until = self.manager.now.after(span);
        loop {
            self.settle();
            let workers = self.workers.values().filter_map(Worker::next_at);
            let next = workers.chain(self.manager.next_at()).min();
            match next.filter(|next| *next <= until) {
                Some(next) => self.manager.now = self.manager.now.max(next),
                None => break,
            }
        }
        self.manager.now = until;
    }

    /// Whatever is due at this moment.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.manager.judge_silent();
            self.manager.reconcile();
            let mut moved = self.connect();
            for worker in self.workers.values_mut() {
                moved |= worker.work(self.manager.now, &mut self.manager.random);
                moved |= tell(&mut self.manager, worker);
                moved |= send(&mut self.manager, worker);
            }
            if !moved {
                return;
            }
        }
        panic!("no rest at {:?}", self.manager.now);
    }

    /// Sessions of those that can be reached. A new leader is found within three seconds.
    fn connect(&mut self) -> bool {
        let now = self.manager.now;
        let mut moved = false;
        for worker in self.workers.values_mut() {
            match worker.link {
                Link::Up if !self.manager.has_session(worker.id) => {
                    worker.link = Link::DownUntil(now.after(self.manager.random.seconds(3)));
                }
                Link::DownUntil(moment) if moment <= now => {
                    worker.link = Link::Up;
                    worker.runs.values_mut().for_each(|run| run.told = Told::No);
                    self.manager.register(worker.id);
                    worker.epoch = 0;
                    moved = true;
                }
                _ => {}
            }
        }
        moved
    }

    /// Every node is there, nothing fails any more, and users ask once more for what can run.
    pub(crate) fn heal(&mut self) {
        self.manager.dies_after = None;
        let now = self.manager.now;
        let left: Vec<NodeId> = self
            .workers
            .values()
            .filter(|worker| worker.link == Link::Left)
            .map(|worker| worker.id)
            .collect();
        left.into_iter().for_each(|node| self.remove_node(node, Force::Yes));
        while self.workers.len() < NODES {
            self.join();
        }
        for worker in self.workers.values_mut() {
            worker.mood = Mood::Kind;
            if let Link::DownUntil(moment) = &mut worker.link {
                *moment = (*moment).min(now);
            }
        }
        self.pass(Duration::ZERO);
        for index in 0..self.workers.len() {
            self.change_node(index, |spec| {
                spec.availability = Availability::Active;
                spec.labels.insert("zone".to_owned(), "a".to_owned());
            });
        }
        // What is waited for is there.
        for index in (0..3).rev() {
            if user::is_waited_for(&self.manager, index) {
                self.happen(&Event::Create { index, order: Order::default() });
            }
        }
        for index in 0..3 {
            let update = user::update(&self.manager, index, |spec| {
                user::set_image(spec, GOOD);
                Arc::make_mut(&mut spec.task).force_update += 1;
            });
            update.into_iter().for_each(|actions| self.manager.commit(&actions).unwrap());
        }
    }

    /// Every service has what it asks for, and no worker runs anything else.
    pub(crate) fn has_converged(&self) {
        let store = &self.manager.store;
        assert!(store.nodes().all(|node| node.status.state == NodeState::Ready));
        let mut wanted: BTreeSet<TaskId> = BTreeSet::new();
        for service in store.services() {
            let tasks = || Invariants { view: self.manager.view() }.tasks_of(service.id);
            let update = service.update_status.as_ref().map(|status| status.state);
            let is_over = !matches!(update, Some(UpdateState::Updating | UpdateState::RollbackStarted));
            assert!(is_over, "{update:?} {:#?}", tasks());
            let running: Vec<&Arc<Task>> =
                store.tasks_of(service.id).filter(|it| self.is_served(it)).collect();
            let places: BTreeSet<_> = running.iter().map(|task| place_of(service, task)).collect();
            let (runs, completes) = self.asked_for(service);
            assert_eq!(running.len(), runs, "{:?} {:#?}", service.spec.mode, tasks());
            assert_eq!(places.len(), runs, "{:#?}", tasks());
            let iteration = service.job.map_or(0, |job| job.iteration);
            let completed = self.manager.completions.count(service.id, iteration);
            assert_eq!(completed, completes, "{:?} {:#?}", service.spec.mode, tasks());
            wanted.extend(running.iter().map(|task| task.id));
        }
        let runs: Vec<TaskId> = self.runs().collect();
        assert_eq!(runs.len(), wanted.len());
        assert_eq!(runs.into_iter().collect::<BTreeSet<_>>(), wanted);
    }

    /// How many tasks of the service run when all is well, and how many have completed.
    fn asked_for(&self, service: &Service) -> (usize, usize) {
        let constraints = Constraints::parse(&service.spec.task.placement.constraints).unwrap();
        let nodes = self.manager.store.nodes().filter(|node| constraints.allow(node)).count();
        let count = |number: u64| usize::try_from(number).unwrap();
        match service.spec.mode {
            ServiceMode::Replicated { replicas } => (count(replicas), 0),
            ServiceMode::Global => (nodes, 0),
            ServiceMode::ReplicatedJob { total_completions, .. } => (0, count(total_completions)),
            ServiceMode::GlobalJob => (0, nodes),
        }
    }

    fn is_served(&self, task: &Task) -> bool {
        task.desired_state == TaskState::Running && self.manager.view().state(task) == TaskState::Running
    }

    fn runs(&self) -> impl Iterator<Item = TaskId> {
        let runs = self.workers.values().flat_map(|worker| &worker.runs);
        runs.filter(|(_, run)| run.is_live()).map(|(id, _)| *id)
    }

    /// Users remove all that they have made; networks while their last tasks still stop.
    pub(crate) fn clear(&mut self) {
        (0..4).for_each(|index| self.happen(&Event::Remove(index)));
        (0..4).for_each(|index| self.happen(&Event::RemoveSecret(index)));
        (0..4).for_each(|index| self.happen(&Event::RemoveNetwork(index)));
    }

    /// Nothing is left of any service.
    pub(crate) fn is_empty(&self) {
        let store = &self.manager.store;
        let tasks = store.tasks().filter_map(|task| task.service).next();
        let left = tasks.map(|service| Invariants { view: self.manager.view() }.tasks_of(service));
        assert_eq!(left, None);
        assert_eq!((store.services().count(), store.tasks().count(), store.secrets().count()), (0, 0, 0));
        let ingress: Vec<_> = store.networks().map(|network| network.id).collect();
        assert_eq!(ingress.len(), 1, "{ingress:?}");
        for node in store.nodes() {
            let attached: Vec<_> = node.attachments.iter().map(|it| it.network).collect();
            assert_eq!(attached, ingress, "its own addresses");
        }
        assert_eq!(self.runs().count(), 0);
    }
}

/// What the worker has to say. Whether it had.
fn tell(manager: &mut Manager, worker: &mut Worker) -> bool {
    if worker.link != Link::Up || !manager.has_session(worker.id) {
        return false;
    }
    let mut told = false;
    for (id, run) in worker.runs.iter_mut().filter(|(_, run)| run.told == Told::No) {
        run.told = Told::Yes;
        told = true;
        if run.is_live() { manager.hear(*id, &run.status) } else { manager.end(*id, &run.status) }
    }
    told
}

/// What the manager has to send. Whether it had.
fn send(manager: &mut Manager, worker: &mut Worker) -> bool {
    if worker.link != Link::Up || !manager.has_session(worker.id) || worker.epoch == manager.epoch {
        return false;
    }
    worker.epoch = manager.epoch;
    let Some((changes, assignment)) = manager.send(worker.id) else { return false };
    worker.receive(&changes, &assignment, (manager.now, &mut manager.random));
    true
}
