//! Services that follow their load: what workers are asked for, what is made of what they tell, and what is not believed.

use ketch_cluster::autoscale::Use;
use ketch_cluster::objects::{Service, ServiceMode};

use super::*;
use crate::calls::{Measure, MeasuresWanted, UsesTaken, UsesTell};
use crate::fixture::objects::replicated;

/// Of one CPU, as nothing is reserved.
const HALF: u64 = 500_000_000;

async fn scaled(cluster: &Cluster, labels: &[(&str, &str)]) -> ServiceId {
    let mut spec = replicated("web", 1);
    let labels = labels.iter().map(|(key, value)| (format!("ketch.scale.{key}"), (*value).to_owned()));
    spec.labels = labels.collect();
    cluster.leader.change(|view, now, bits| create_service(view, spec, now, bits)).await.unwrap()
}

fn service(cluster: &Cluster, id: ServiceId) -> Arc<Service> {
    cluster.leader.view(|view| view.service(id).cloned()).unwrap()
}

fn replicas(cluster: &Cluster, id: ServiceId) -> u64 {
    match service(cluster, id).spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        other => panic!("{other:?}"),
    }
}

impl Worker {
    async fn tell_uses(&self, uses: Vec<(TaskId, Use)>) -> Result<UsesTaken, Refusal> {
        ask(&self.dispatcher, self.identity, &UsesTell { session: self.session, uses }).await
    }

    /// For so long its tasks run, and each uses so much of a CPU; none: it tells nothing of that.
    async fn bear(&mut self, cluster: &Cluster, seconds: u64, cpu: Option<u64>) {
        for _ in 0..seconds / 2 {
            let tasks = cluster.tasks_on(self.identity.node);
            let words = tasks.iter().map(|task| (*task, word(TaskState::Running)));
            drop(self.tell(words.collect()).await);
            if cpu.is_some() {
                let used = Use { cpu, ..Use::default() };
                self.tell_uses(tasks.into_iter().map(|task| (task, used)).collect()).await.unwrap();
            }
            self.beat().await.unwrap();
            self.settle().await;
            sleep(PERIOD - A_WHILE).await;
        }
    }
}

const BY_CPU: [(&str, &str); 4] = [("min", "1"), ("max", "4"), ("cpu", "50"), ("window", "30s")];

#[tokio::test(start_paused = true)]
async fn nothing_is_measured_of_plain_services() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    let service = cluster.service("web", 2).await;
    cluster.placed(service, 2).await;
    worker.bear(&cluster, 20, Some(HALF)).await;
    assert_eq!(worker.measures, []);
    assert_eq!(replicas(&cluster, service), 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_follows_the_load_of_its_tasks_and_a_new_leader_holds() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    let id = scaled(&cluster, &BY_CPU).await;
    cluster.placed(id, 1).await;
    worker.bear(&cluster, 4, None).await;
    let tasks = cluster.tasks_on(worker.identity.node);
    let wanted = MeasuresWanted {
        every: Duration::from_secs(2),
        tasks: tasks.iter().map(|task| (*task, Measure::Resources)).collect(),
    };
    assert_eq!(worker.measures.last(), Some(&wanted));
    worker.bear(&cluster, 20, Some(HALF)).await;
    assert_eq!(replicas(&cluster, id), 1, "as it should be");
    worker.bear(&cluster, 12, Some(2 * HALF)).await;
    assert_eq!(replicas(&cluster, id), 2);
    worker.bear(&cluster, 20, Some(2 * HALF)).await;
    assert_eq!(replicas(&cluster, id), 4, "the most");
    assert_eq!(service(&cluster, id).previous_spec, None);
    assert_eq!(worker.measures.last().map(|it| it.tasks.len()), Some(4));
    // What is not told any more, or to this leader not yet, is held.
    worker.bear(&cluster, 60, None).await;
    assert_eq!(replicas(&cluster, id), 4);
    let next = Dispatcher::new(Arc::clone(&cluster.leader));
    let (before, mut worker) = (worker, Worker::begin(&next, 101).await);
    for _ in 0..14 {
        worker.bear(&cluster, 2, Some(HALF / 100)).await;
        before.beat().await.unwrap();
    }
    assert_eq!(replicas(&cluster, id), 4, "its own window has not passed");
    assert_eq!(worker.measures.last().map(|it| it.tasks.len()), Some(4));
    for _ in 0..7 {
        worker.bear(&cluster, 2, Some(HALF / 100)).await;
        before.beat().await.unwrap();
    }
    assert_eq!(replicas(&cluster, id), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_only_where_they_are_asked_for_and_labels_may_go() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    let id = scaled(&cluster, &[("min", "1"), ("max", "4"), ("requests", "10")]).await;
    cluster.placed(id, 1).await;
    worker.bear(&cluster, 4, None).await;
    let last = worker.measures.last().map(|it| it.tasks.clone()).unwrap();
    assert_eq!(last.iter().map(|(_, what)| *what).collect::<Vec<_>>(), [Measure::Requests]);
    let mut plain = Service::clone(&service(&cluster, id));
    plain.spec.labels.clear();
    cluster.write(StoreAction::Update(plain.into())).await;
    worker.bear(&cluster, 4, None).await;
    assert_eq!(worker.measures.last(), Some(&MeasuresWanted::default()), "nothing any more");
}

#[tokio::test(start_paused = true)]
async fn nobody_speaks_of_others_tasks() {
    let cluster = Cluster::with(2).await;
    let mut workers =
        [Worker::begin(&cluster.dispatcher, 101).await, Worker::begin(&cluster.dispatcher, 102).await];
    let id = scaled(&cluster, &BY_CPU).await;
    cluster.placed(id, 1).await;
    let is_its = |worker: &Worker| !cluster.tasks_on(worker.identity.node).is_empty();
    if !is_its(&workers[0]) {
        workers.swap(0, 1);
    }
    let [its, other] = &mut workers;
    let task = cluster.tasks_on(its.identity.node)[0];
    for _ in 0..15 {
        its.bear(&cluster, 2, None).await;
        let lie = Use { cpu: Some(u64::MAX), ..Use::default() };
        other.tell_uses(vec![(task, lie), (TaskId::of(7), lie)]).await.unwrap();
        other.beat().await.unwrap();
    }
    assert_eq!(replicas(&cluster, id), 1);
    let told = UsesTell { session: other.session + 1, uses: Vec::new() };
    let refused = cluster.ask(other.identity, &told).await.unwrap_err();
    assert_eq!(refused, Refusal::NoSession);
}
