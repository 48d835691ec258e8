//! Managers, dispatchers and workers together, by the calls and the network of the real ones; only the containers are a model.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::objects::node::NodeDescription;
use ketch_cluster::objects::task::ContainerStatus;
use ketch_cluster::objects::{Network, Task};
use tokio::io::{AsyncWriteExt, DuplexStream, copy, split};
use tokio::sync::watch;

use super::*;
use crate::calls::Visit;
use crate::executor::{DataPath, Ended, Executor, LogLine, LogOptions, Started, TaskError, Work};
use crate::fixture::{SOON, Site};
use crate::manager::Manager;
use crate::wire::Service;
use crate::worker::{Worker as NodeWorker, WorkerParts};
use crate::world::World;

/// A task's container's.
pub(super) fn container_id(task: TaskId) -> String {
    format!("{:032x}", task.bits()).repeat(2)
}

/// What the end of a container is, once it has one.
type End = watch::Sender<Option<i32>>;

/// Containers that run until they are stopped or the test ends them.
#[derive(Debug, Default)]
pub(super) struct Engine {
    hostname: String,
    running: Mutex<BTreeMap<TaskId, Arc<End>>>,
    starts: Mutex<usize>,
}

impl Engine {
    fn end_of(&self, task: TaskId) -> Arc<End> {
        Arc::clone(self.running.lock().unwrap().entry(task).or_default())
    }

    fn finish(&self, task: TaskId, exit_code: i32) {
        self.end_of(task).send_if_modified(|end| end.replace(exit_code).is_none());
    }
}

impl Executor for Engine {
    fn set_data_path(&self, _: Option<DataPath>) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn describe(&self) -> BoxFuture<'_, NodeDescription> {
        async { objects::description(&self.hostname) }.boxed()
    }

    fn network(&self, _: &[Item]) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn prepare(&self, work: Work) -> BoxFuture<'_, Result<(), TaskError>> {
        self.end_of(work.task.id);
        async { Ok(()) }.boxed()
    }

    fn start(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Started, TaskError>> {
        async move {
            *self.starts.lock().unwrap() += 1;
            let container = ContainerStatus { id: container_id(task.id), ..ContainerStatus::default() };
            Ok(Started { container, ports: Vec::new() })
        }
        .boxed()
    }

    fn wait(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Ended, TaskError>> {
        async move {
            let end = self.end_of(task.id);
            let exit_code = end.subscribe().wait_for(Option::is_some).await.unwrap().unwrap();
            let container = ContainerStatus { exit_code, ..ContainerStatus::default() };
            Ok(Ended { exit_code, error: String::new(), container })
        }
        .boxed()
    }

    fn shutdown(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), TaskError>> {
        self.finish(task.id, 143);
        async { Ok(()) }.boxed()
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), TaskError>> {
        self.running.lock().unwrap().remove(&task);
        async { Ok(()) }.boxed()
    }

    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, String>> {
        async { Ok(self.running.lock().unwrap().keys().copied().collect()) }.boxed()
    }

    /// Says who asks for what, then gives back what comes.
    fn serve(&self, visit: Visit, mut stream: DuplexStream) -> BoxFuture<'_, ()> {
        async move {
            let greeting = format!("{} {:?}\n", visit.by, visit.scope);
            let _gone = stream.write_all(greeting.as_bytes()).await;
            let (mut reader, mut writer) = split(stream);
            let _gone = copy(&mut reader, &mut writer).await;
            let _gone = writer.shutdown().await;
        }
        .boxed()
    }

    fn logs(&self, task: Arc<Task>, _: LogOptions) -> BoxFuture<'_, Result<mpsc::Receiver<LogLine>, String>> {
        async move {
            let (sender, receiver) = mpsc::channel(1);
            let line = LogLine {
                at: Timestamp(1),
                stream: 1,
                line: task.id.to_string().into(),
                attributes: Default::default(),
            };
            tokio::spawn(async move { sender.send(line).await });
            Ok(receiver)
        }
        .boxed()
    }
}

/// A manager with the dispatcher of each term that it leads, as a node has them.
struct Serving {
    manager: Arc<Manager>,
    dispatcher: watch::Receiver<Option<Arc<Dispatcher>>>,
}

impl Serving {
    fn new(manager: &Arc<Manager>) -> Arc<Self> {
        let (publish, dispatcher) = watch::channel(None);
        let mut leadership = manager.leadership();
        tokio::spawn(async move {
            loop {
                let leader = leadership.borrow_and_update().clone();
                publish.send_replace(leader.map(Dispatcher::new));
                if leadership.changed().await.is_err() {
                    return;
                }
            }
        });
        Arc::new(Self { manager: Arc::clone(manager), dispatcher })
    }
}

impl Service for Serving {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let (manager, dispatcher) = (Arc::clone(&self.manager), self.dispatcher.borrow().clone());
        async move {
            match dispatcher {
                _ if !Dispatcher::answers(call.path()) => manager.answer(call).await,
                Some(dispatcher) => dispatcher.answer(call).await,
                None => Err(Refusal::NotLeader { leader: manager.leader_address() }),
            }
        }
        .boxed()
    }
}

pub(super) struct Mesh {
    pub(super) managers: Managers,
    serving: Vec<Arc<Serving>>,
    pub(super) workers: Vec<(Site, Arc<Engine>, Arc<NodeWorker>)>,
}

impl Mesh {
    pub(super) async fn of(managers: usize, workers: usize) -> Self {
        let mut mesh =
            Self { managers: Managers::of(managers).await, serving: Vec::new(), workers: Vec::new() };
        for seat in &mesh.managers.seats {
            let serving = Serving::new(&seat.manager);
            seat.site.serve(Arc::clone(&serving) as Arc<dyn Service>).await;
            mesh.serving.push(serving);
        }
        for _ in 0..workers {
            mesh.join().await;
        }
        until("a dispatcher", || mesh.dispatcher().is_some()).await;
        mesh
    }

    async fn join(&mut self) {
        let site = self.managers.join_site(NodeRole::Worker).await;
        let engine = Arc::new(Engine { hostname: site.world.host.clone(), ..Engine::default() });
        let addresses = self.managers.seats.iter().map(|seat| (seat.site.node, seat.site.address()));
        let worker = NodeWorker::open(WorkerParts {
            world: Arc::clone(&site.world) as Arc<dyn World>,
            links: Arc::clone(&site.links),
            executor: Arc::clone(&engine) as Arc<dyn Executor>,
            node: site.node,
            address: String::new(),
            managers: addresses.map(|(node, address)| ManagerAddress { node, address }).collect(),
            roots: vec![site.world.credentials().unwrap().identity.issuer],
        });
        self.workers.push((site, engine, worker.unwrap()));
    }

    pub(super) fn dispatcher(&self) -> Option<Arc<Dispatcher>> {
        self.serving.iter().find_map(|it| it.dispatcher.borrow().clone().filter(|it| !it.leader.has_ended()))
    }

    pub(super) fn running(&self, service: ServiceId) -> Vec<Arc<Task>> {
        let Some(dispatcher) = self.dispatcher() else { return Vec::new() };
        dispatcher.leader.view(|view| {
            let runs = |task: &&Arc<Task>| {
                let node = task.node.and_then(|node| view.node(node));
                view.state(task) == TaskState::Running
                    && task.desired_state == TaskState::Running
                    && node.is_some_and(|node| node.status.state == NodeState::Ready)
            };
            view.tasks_of(service).filter(runs).cloned().collect()
        })
    }

    pub(super) async fn service(&self, replicas: u64) -> ServiceId {
        let leader = self.managers.leader().await;
        let spec = objects::replicated("web", replicas);
        let id = leader.change(|view, now, bits| create_service(view, spec, now, bits)).await.unwrap();
        until("all of it runs", || self.running(id).len() as u64 == replicas).await;
        id
    }

    fn starts(&self) -> usize {
        self.workers.iter().map(|(_, engine, _)| *engine.starts.lock().unwrap()).sum()
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_runs_and_what_ends_is_replaced() {
    let mesh = Mesh::of(1, 2).await;
    let service = mesh.service(4).await;
    assert_eq!(mesh.starts(), 4);
    let task = Arc::clone(&mesh.running(service)[0]);
    let (_, engine, _) = mesh.workers.iter().find(|(site, ..)| Some(site.node) == task.node).unwrap();
    engine.finish(task.id, 3);
    let dispatcher = mesh.dispatcher().unwrap();
    until("its end is committed", || {
        dispatcher.leader.view(|view| view.task(task.id).unwrap().status.state == TaskState::Failed)
    })
    .await;
    until("another one runs", || mesh.running(service).len() == 4).await;
    let networks: Vec<Arc<Network>> = dispatcher.leader.view(|view| view.networks().cloned().collect());
    assert!(networks.iter().any(|network| network.is_ingress()));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_moves_no_task() {
    let mesh = Mesh::of(3, 2).await;
    let service = mesh.service(6).await;
    let tasks: Vec<_> = mesh.running(service).iter().map(|task| task.id).collect();
    sleep(Duration::from_secs(20)).await;
    let leading = mesh.managers.leading().await;
    mesh.managers.kill(leading).await;
    until("another one leads", || mesh.dispatcher().is_some()).await;
    let died = Instant::now();
    until("all of it runs for the next leader", || mesh.running(service).len() == 6).await;
    assert!(died.elapsed() < 6 * PERIOD, "{:?}", died.elapsed());
    sleep(SOON).await;
    assert_eq!(mesh.running(service).iter().map(|task| task.id).collect::<Vec<_>>(), tasks);
    assert_eq!(mesh.starts(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_lost_nodes_tasks_run_elsewhere_within_ten_seconds() {
    let mesh = Mesh::of(1, 3).await;
    let service = mesh.service(6).await;
    sleep(Duration::from_secs(20)).await;
    let (site, engine, worker) = &mesh.workers[0];
    let begun = Instant::now();
    mesh.managers.hub.kill(&site.world.host);
    worker.shutdown().await;
    engine.running.lock().unwrap().clear();
    until("it is missed", || mesh.running(service).len() < 6).await;
    until("all of it runs elsewhere", || mesh.running(service).len() == 6).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(mesh.running(service).iter().all(|task| task.node != Some(site.node)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_down_and_its_tasks_have_ended() {
    let mesh = Mesh::of(1, 2).await;
    let service = mesh.service(4).await;
    let (site, _, worker) = &mesh.workers[0];
    let on_it: Vec<TaskId> =
        mesh.running(service).iter().filter(|it| it.node == Some(site.node)).map(|it| it.id).collect();
    let begun = Instant::now();
    worker.leave().await;
    let dispatcher = mesh.dispatcher().unwrap();
    until("it is down", || {
        dispatcher.leader.view(|view| view.node(site.node).unwrap().status.state == NodeState::Down)
    })
    .await;
    assert!(begun.elapsed() < 3 * PERIOD, "{:?}", begun.elapsed());
    for task in on_it {
        let ended =
            dispatcher.leader.view(|view| view.task(task).is_none_or(|it| it.status.state.is_terminal()));
        assert!(ended, "{task}");
    }
    until("all of it runs elsewhere", || mesh.running(service).len() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn logs_of_a_service_come_from_its_nodes() {
    let mesh = Mesh::of(1, 2).await;
    let service = mesh.service(4).await;
    let tasks: Vec<_> = mesh.running(service).iter().map(|task| (task.id, task.node)).collect();
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let (mut stream, handle) = mesh.dispatcher().unwrap().logs(tasks.clone(), options);
    drop(handle);
    let (mut lines, mut ended) = (BTreeSet::new(), 0);
    while let Some(message) = timeout(SOON, stream.next()).await.unwrap() {
        match message {
            LogMessage::Line { task, line, .. } => {
                assert_eq!(line.line, task.to_string().into_bytes());
                lines.insert(task);
            }
            LogMessage::Ended { error, .. } => {
                assert_eq!(error, None);
                ended += 1;
            }
        }
    }
    assert_eq!((lines.len(), ended), (4, 4));
}
