//! A machine's containers, as a model: pulls and starts that take their time, containers that crash or run out of memory,
//! healthy or not. They outlive the agent, not the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::assignment::Item;
use ketch_cluster::id::{NetworkId, ServiceId, TaskId};
use ketch_cluster::objects::Task;
use ketch_cluster::objects::node::NodeDescription;
use ketch_cluster::objects::task::ContainerStatus;
use ketch_cluster::orchestrator::fence;
use ketch_node::calls::{Measure, Visit};
use ketch_node::executor::{
    DataPath, Ended, Executor, LayerStore, LogLine, LogOptions, Reading, Started, TaskError, Work,
};
use ketch_node::node::Node;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::container::{self, Container, Fenced, Phase, Resident};
use crate::labels;
use crate::layers::{self, Auth, Sharing};
use crate::loads;
use crate::locks::lock;
use crate::random::Random;
use crate::wishes;

/// One machine.
pub(crate) struct Machine {
    name: String,
    random: Mutex<Random>,
    containers: Mutex<BTreeMap<TaskId, Container>>,
    /// The tasks whose containers were started, whatever became of them.
    started: Mutex<BTreeSet<TaskId>>,
    /// And their services.
    services: Mutex<BTreeSet<ServiceId>>,
    /// Those of which one was healthy.
    healthy: Mutex<BTreeSet<ServiceId>>,
    /// What it was last told of the cluster's networks; in memory, as the kernel's.
    told: Mutex<Vec<Item>>,
    /// What a worker has asked for that it never may.
    wrong: Mutex<Option<String>>,
    /// Nothing new crashes or is refused.
    is_calm: AtomicBool,
    /// How many containers of jobs have come to their end.
    jobs_ended: AtomicU64,
    changed: Notify,
    /// Where nodes share layers.
    sharing: Option<Arc<Sharing>>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Machine {
    pub(crate) fn new(name: &str, random: Random, sharing: Option<Arc<Sharing>>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            random: Mutex::new(random),
            containers: Mutex::default(),
            started: Mutex::default(),
            services: Mutex::default(),
            healthy: Mutex::default(),
            told: Mutex::default(),
            wrong: Mutex::default(),
            is_calm: AtomicBool::new(false),
            jobs_ended: AtomicU64::new(0),
            changed: Notify::new(),
            sharing,
        })
    }

    /// An agent begins.
    pub(crate) fn begin(&self, node: &Arc<Node>) {
        self.sharing.iter().for_each(|it| it.begin(node));
    }

    /// Whether it has, gives truly and runs that image, for so long that others know it; to another one than that.
    pub(crate) fn could_give(&self, image: (u64, &Auth), other: &str, since: Duration) -> bool {
        let runs = |it: &Container| {
            let of_image = it.image.as_ref().map(|(number, auth)| (*number, auth)) == Some(image);
            of_image && matches!(it.phase, Phase::Running(at) if at + since <= now())
        };
        let gives = self.sharing.as_ref().is_some_and(|it| it.gives_truly(image.0, image.1));
        self.name != other && gives && lock(&self.containers).values().any(runs)
    }

    /// It loses power: its containers end.
    pub(crate) fn crash(&self) {
        for container in lock(&self.containers).values_mut() {
            if let Phase::Running(_) = container.phase {
                container.phase = Phase::Ended(137);
            }
        }
        lock(&self.told).clear();
        self.changed.notify_waiters();
    }

    /// The tasks whose containers run.
    pub(crate) fn running(&self) -> BTreeSet<TaskId> {
        self.residents().into_iter().map(|(task, ..)| task).collect()
    }

    /// The services of which a container was started here.
    pub(crate) fn services(&self) -> BTreeSet<ServiceId> {
        lock(&self.services).clone()
    }

    /// And of which one was healthy.
    pub(crate) fn healthy(&self) -> BTreeSet<ServiceId> {
        lock(&self.healthy).clone()
    }

    fn run(&self, task: &Task) -> Result<(), TaskError> {
        let mut containers = lock(&self.containers);
        let container = containers.get_mut(&task.id).ok_or(TaskError::Gone)?;
        if container.phase == Phase::Created {
            container.phase = Phase::Running(now());
            lock(&self.started).insert(task.id);
            lock(&self.services).extend(task.service);
        }
        Ok(())
    }

    /// Waits until it is healthy. One that ends badly before has failed.
    async fn until_healthy(&self, task: &Task) -> Result<(), TaskError> {
        let after = labels::healthy_after(task);
        loop {
            match self.phase(task.id) {
                Some(Phase::Running(since)) if now() >= since + after => {
                    lock(&self.healthy).extend(task.service);
                    return Ok(());
                }
                Some(Phase::Running(_)) => sleep(Duration::from_millis(100)).await,
                Some(Phase::Ended(code)) if code != 0 && !after.is_zero() => {
                    return Err(TaskError::Failed(format!("task: non-zero exit ({code})")));
                }
                Some(_) => return Ok(()),
                None => return Err(TaskError::Gone),
            }
        }
    }

    /// The places of fenced services in which something runs here.
    pub(crate) fn fenced(&self) -> Vec<Fenced> {
        let running = self.running();
        lock(&self.containers)
            .iter()
            .filter(|(id, _)| running.contains(id))
            .filter_map(|(_, it)| it.fenced)
            .collect()
    }

    /// The addresses of what runs here.
    pub(crate) fn addresses(&self) -> Vec<(NetworkId, IpAddr)> {
        let containers = lock(&self.containers);
        let running = containers.values().filter(|it| matches!(it.phase, Phase::Running(_)));
        running.flat_map(|it| it.addresses.iter().copied()).collect()
    }

    /// What runs here, with its service and its addresses.
    pub(crate) fn residents(&self) -> Vec<Resident> {
        let containers = lock(&self.containers);
        let running = containers.iter().filter(|(_, it)| matches!(it.phase, Phase::Running(_)));
        running.map(|(task, it)| (*task, it.service, it.addresses.iter().copied().collect())).collect()
    }

    /// What its network is made of.
    pub(crate) fn told(&self) -> Vec<Item> {
        lock(&self.told).clone()
    }

    /// The tasks that have a container here, whatever became of it.
    pub(crate) fn left(&self) -> BTreeSet<TaskId> {
        lock(&self.containers).keys().copied().collect()
    }

    pub(crate) fn jobs_ended(&self) -> u64 {
        self.jobs_ended.load(Ordering::Relaxed)
    }

    /// From now on nothing goes wrong by chance.
    pub(crate) fn calm_down(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    fn blame(&self, wrong: String) {
        lock(&self.wrong).get_or_insert(wrong);
    }

    pub(crate) fn wrong(&self) -> Option<String> {
        lock(&self.wrong).clone().or_else(|| self.sharing.as_ref()?.wrong())
    }

    /// One of its containers ends with that exit code.
    pub(crate) fn kill(&self, task: TaskId, exit_code: i32) {
        if let Some(container) = lock(&self.containers).get_mut(&task)
            && let Phase::Running(_) = container.phase
        {
            container.phase = Phase::Ended(exit_code);
            if container.is_of_job && exit_code == 0 {
                self.jobs_ended.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.changed.notify_waiters();
    }

    async fn pause(&self, least: u64, most: u64) {
        let span = lock(&self.random).between(least, most);
        sleep(Duration::from_millis(span)).await;
    }

    fn phase(&self, task: TaskId) -> Option<Phase> {
        lock(&self.containers).get(&task).map(|it| it.phase)
    }

    fn status(&self, task: TaskId, exit_code: i32) -> ContainerStatus {
        ContainerStatus { id: format!("{task}-{}", self.name), exit_code, ..ContainerStatus::default() }
    }

    /// What a new container will do: mostly run for ever. A job's command is called `job`.
    fn fate_of(&self, task: &Task) -> Option<(Duration, i32)> {
        let mut random = lock(&self.random);
        let is_calm = self.is_calm.load(Ordering::Relaxed);
        match random.below(20) {
            0 if !is_calm => Some((Duration::from_millis(random.between(1, 30_000)), 1)),
            1 if !is_calm => Some((Duration::from_millis(random.between(1, 5_000)), 137)),
            _ if task.job_iteration.is_some() => Some((Duration::from_millis(random.between(1, 3_000)), 0)),
            _ => None,
        }
    }
}

impl Executor for Machine {
    fn set_data_path(&self, _: Option<DataPath>) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn describe(&self) -> BoxFuture<'_, NodeDescription> {
        std::future::ready(container::description(&self.name)).boxed()
    }

    fn network(&self, items: &[Item]) -> BoxFuture<'_, Result<(), String>> {
        *lock(&self.told) = items.to_vec();
        async { Ok(()) }.boxed()
    }

    fn prepare(&self, work: Work) -> BoxFuture<'_, Result<(), TaskError>> {
        async move {
            let task = &work.task;
            if lock(&self.started).contains(&task.id) {
                self.blame(format!("{} prepares {}, which it has started", self.name, task.id));
            }
            if self.phase(task.id).is_some() {
                return Ok(());
            }
            if !wishes::are_its_own(&work) {
                self.blame(format!("{} has other files for {} than that names", self.name, task.id));
            }
            self.pause(1, 800).await;
            if lock(&self.random).below(40) == 0 && !self.is_calm.load(Ordering::Relaxed) {
                return Err(TaskError::Rejected("No such image: lost:latest".to_owned()));
            }
            if let Some(sharing) = &self.sharing {
                sharing.pull(task).await.map_err(TaskError::Rejected)?;
            }
            let fate = self.fate_of(task);
            let fenced = task.service.filter(|_| task.service_labels.contains_key(fence::LABEL));
            let fenced =
                fenced.map(|service| Fenced { service, iteration: task.job_iteration, slot: task.slot });
            let addresses = task
                .networks
                .iter()
                .flat_map(|it| it.addresses.iter().map(|address| (it.network, address.address)));
            let container = Container {
                phase: Phase::Created,
                fenced,
                addresses: addresses.collect(),
                is_of_job: task.job_iteration.is_some(),
                service: task.service,
                image: layers::wanted(task),
                fate,
            };
            lock(&self.containers).entry(task.id).or_insert(container);
            Ok(())
        }
        .boxed()
    }

    fn start(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Started, TaskError>> {
        async move {
            self.pause(1, 100).await;
            self.run(&task)?;
            self.until_healthy(&task).await?;
            Ok(Started { container: self.status(task.id, 0), ports: Vec::new() })
        }
        .boxed()
    }

    fn wait(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Ended, TaskError>> {
        async move {
            loop {
                let changed = self.changed.notified();
                let container = lock(&self.containers).get(&task.id).cloned().ok_or(TaskError::Gone)?;
                let until = match (container.phase, container.fate) {
                    (Phase::Ended(exit_code), _) => {
                        let error = if exit_code == 137 { "OOM" } else { "" };
                        let container = self.status(task.id, exit_code);
                        return Ok(Ended { exit_code, error: error.to_owned(), container });
                    }
                    (Phase::Running(since), Some((life, exit_code))) if now() >= since + life => {
                        self.kill(task.id, exit_code);
                        continue;
                    }
                    (Phase::Running(since), Some((life, _))) => Some((since + life).saturating_sub(now())),
                    (Phase::Running(_) | Phase::Created, _) => None,
                };
                match until {
                    None => changed.await,
                    Some(rest) => {
                        tokio::select! {
                            biased;
                            () = changed => {}
                            () = sleep(rest) => {}
                        }
                    }
                }
            }
        }
        .boxed()
    }

    fn shutdown(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), TaskError>> {
        async move {
            if let Some(Phase::Running(_)) = self.phase(task.id) {
                self.pause(1, 500).await;
                self.kill(task.id, 143);
            }
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), TaskError>> {
        async move {
            lock(&self.containers).remove(&task);
            self.changed.notify_waiters();
            Ok(())
        }
        .boxed()
    }

    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, String>> {
        std::future::ready(Ok(self.left())).boxed()
    }

    /// The model's containers have no API: the tunnel ends.
    fn serve(&self, _: Visit, _: DuplexStream) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn measure(&self, task: TaskId, _: Measure) -> BoxFuture<'_, Result<Reading, String>> {
        let container = lock(&self.containers).get(&task).cloned();
        let reading = match container.map(|it| (it.phase, it.service)) {
            Some((Phase::Running(since), Some(service))) => loads::reading(service, since, now()),
            _ => Err("it does not run".to_owned()),
        };
        async { reading }.boxed()
    }

    fn layers(&self) -> Option<Arc<dyn LayerStore>> {
        self.sharing.clone().map(|it| it as Arc<dyn LayerStore>)
    }

    fn logs(&self, _: Arc<Task>, _: LogOptions) -> BoxFuture<'_, Result<mpsc::Receiver<LogLine>, String>> {
        async { Err("the simulation has no logs".to_owned()) }.boxed()
    }
}

/// The moment of the run. tokio's moments are of one start of an agent.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}
