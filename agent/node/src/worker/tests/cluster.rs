//! Workers with the real managers and dispatchers.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::control::create_service;
use ketch_cluster::id::ServiceId;
use ketch_cluster::objects::TaskState;

use super::engine::{Engine, Hold};
use super::lab::{Lab, pass};
use crate::calls::ManagerAddress;
use crate::dispatcher::Dispatcher;
use crate::fixture::{Managers, Site, objects, until};
use crate::manager::{Leader, Manager};
use crate::wire::{Answer, Call, Refusal, Service};
use crate::worker::{Worker, WorkerParts};
use crate::world::World;

/// Answers as a manager's node does.
struct Answers {
    manager: Arc<Manager>,
    term: Mutex<Option<(Arc<Leader>, Arc<Dispatcher>)>>,
}

impl Answers {
    fn dispatcher(&self) -> Result<Arc<Dispatcher>, Refusal> {
        let Some(leader) = self.manager.leader() else {
            return Err(Refusal::NotLeader { leader: self.manager.leader_address() });
        };
        let mut term = self.term.lock().unwrap();
        if term.as_ref().is_none_or(|(of, _)| !Arc::ptr_eq(of, &leader)) {
            *term = Some((Arc::clone(&leader), Dispatcher::new(leader)));
        }
        Ok(Arc::clone(&term.as_ref().unwrap().1))
    }
}

struct Shared(Arc<Answers>);

impl Service for Shared {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let it = Arc::clone(&self.0);
        async move {
            if Dispatcher::answers(call.path()) {
                it.dispatcher()?.answer(call).await
            } else {
                it.manager.answer(call).await
            }
        }
        .boxed()
    }
}

fn worker(site: &Site, engine: &Arc<Engine>, managers: &[ManagerAddress]) -> Arc<Worker> {
    engine.known().description = objects::description(&site.world.host);
    let lab = Lab::new();
    let boot = lab.steps.boot();
    Worker::open(WorkerParts {
        world: Arc::clone(&site.world) as Arc<dyn World>,
        links: Arc::clone(&site.links),
        executor: Arc::new(Hold { engine: Arc::clone(engine), lab, boot }),
        node: site.node,
        address: String::new(),
        managers: managers.to_vec(),
        roots: Vec::new(),
    })
    .unwrap()
}

/// Three managers and two more nodes, each with its worker.
struct Cluster {
    managers: Managers,
    engines: Vec<Arc<Engine>>,
    workers: Vec<Arc<Worker>>,
    #[expect(dead_code, reason = "they live as long as the cluster")]
    sites: Vec<Site>,
}

impl Cluster {
    async fn new() -> Self {
        let mut managers = Managers::of(3).await;
        for seat in &managers.seats {
            let answers = Answers { manager: Arc::clone(&seat.manager), term: Mutex::default() };
            seat.site.serve(Arc::new(Shared(Arc::new(answers)))).await;
        }
        let sites = vec![
            managers.join_site(ketch_cluster::objects::node::NodeRole::Worker).await,
            managers.join_site(ketch_cluster::objects::node::NodeRole::Worker).await,
        ];
        let addresses: Vec<_> = managers
            .seats
            .iter()
            .map(|seat| ManagerAddress { node: seat.site.node, address: seat.site.address() })
            .collect();
        let (mut engines, mut workers) = (Vec::new(), Vec::new());
        for site in managers.seats.iter().map(|seat| &seat.site).chain(&sites) {
            let engine = Engine::new();
            workers.push(worker(site, &engine, &addresses));
            engines.push(engine);
        }
        Self { managers, engines, workers, sites }
    }

    async fn serve(&self, replicas: u64) -> ServiceId {
        let leader = self.managers.leader().await;
        let spec = objects::replicated("web", replicas);
        leader.change(|view, now, bits| create_service(view, spec, now, bits)).await.unwrap()
    }

    fn running(&self) -> usize {
        self.engines.iter().map(|engine| engine.running().len()).sum()
    }

    async fn all_run(&self, service: ServiceId, count: usize) {
        let leader = self.managers.leader().await;
        until("all tasks run, and the leader knows", || {
            let known = leader.view(|view| {
                view.tasks_of(service).filter(|task| view.state(task) == TaskState::Running).count()
            });
            known >= count && self.running() == count
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_runs_through_a_change_of_leader() {
    let cluster = Cluster::new().await;
    let service = cluster.serve(10).await;
    cluster.all_run(service, 10).await;
    let before: u32 = cluster.engines.iter().map(|it| it.known().made.values().sum::<u32>()).sum();
    assert_eq!(before, 10);

    let leading = cluster.managers.leading().await;
    let lost = cluster.engines[leading].running().len();
    cluster.workers[leading].shutdown().await;
    cluster.managers.kill(leading).await;
    pass(8).await;
    assert_eq!(cluster.running(), 10, "nobody stops anything");
    pass(60).await;
    let others = |cluster: &Cluster| {
        let all = cluster.engines.iter().enumerate().filter(|(place, _)| *place != leading);
        all.map(|(_, engine)| engine.running().len()).sum::<usize>()
    };
    assert_eq!(others(&cluster), 10, "what ran on the lost node ({lost}) runs elsewhere");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_has_its_tasks_elsewhere_at_once() {
    let cluster = Cluster::new().await;
    let service = cluster.serve(10).await;
    cluster.all_run(service, 10).await;
    cluster.workers[4].leave().await;
    pass(5).await;
    assert!(cluster.engines[4].running().is_empty());
    assert_eq!(cluster.running(), 10);
}
