use ketch_cluster::id::ConfigId;
use ketch_cluster::objects::container::{ConfigReference, ConfigTarget};
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{Config, ConfigSpec, Meta, Task, TaskSpec};

use super::*;

#[tokio::test(start_paused = true)]
async fn each_worker_holds_what_the_cluster_has_for_it() {
    let cluster = Cluster::with(3).await;
    let mut workers = Vec::new();
    for number in 101..104 {
        workers.push(Worker::begin(&cluster.dispatcher, number).await);
        until("it is ready", || cluster.state(NodeId::of(number)) == NodeState::Ready).await;
    }
    let first = cluster.service("first", 4).await;
    cluster.placed(first, 4).await;
    let second = cluster.service("second", 9).await;
    cluster.placed(second, 9).await;
    for worker in &mut workers {
        assert!(worker.settle().await);
        assert!(worker.items().iter().any(|item| matches!(item, Item::Task(_))));
        assert_eq!(worker.items(), worker.wanted());
        worker.beat().await.unwrap();
    }
    for number in [0, 1] {
        let node = workers[number].identity.node;
        let tasks = cluster.tasks_on(node);
        let running = tasks.iter().map(|task| (*task, word(TaskState::Running))).collect();
        workers[number].tell(running).await.unwrap();
        workers[number].tell(vec![(tasks[0], word(TaskState::Failed))]).await.unwrap();
    }
    for worker in &mut workers {
        assert!(worker.settle().await);
        assert_eq!(worker.items(), worker.wanted());
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_at_most_one_message_in_100_ms() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    let service = cluster.service("web", 1).await;
    cluster.placed(service, 1).await;
    worker.settle().await;
    let before = worker.assignments;
    let begun = Instant::now();
    for number in 0..40 {
        let mut task = cluster.leader.view(|view| Task::clone(view.tasks_of(service).next().unwrap()));
        task.labels.insert(number.to_string(), String::new());
        cluster.write(StoreAction::Update(task.into())).await;
        sleep(Duration::from_millis(10)).await;
        while let Ok(true) = timeout(Duration::ZERO, worker.read()).await {}
    }
    worker.settle().await;
    let most = begun.elapsed().as_millis() / 100 + 1;
    let sent = worker.assignments - before;
    assert!(sent > 1 && (sent as u128) <= most, "{sent} in {:?}", begun.elapsed());
    assert_eq!(worker.items(), worker.wanted());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_what_is_so_by_then_and_holds_nobody_up() {
    let cluster = Cluster::with(2).await;
    let mut slow = Worker::begin(&cluster.dispatcher, 101).await;
    let mut quick = Worker::begin(&cluster.dispatcher, 102).await;
    for number in 0..50 {
        cluster.service(&format!("service-{number}"), 2).await;
        quick.settle().await;
        slow.beat().await.unwrap();
        quick.beat().await.unwrap();
    }
    assert_eq!(quick.items(), quick.wanted());
    assert!(quick.assignments > 40, "{}", quick.assignments);
    assert!(slow.settle().await);
    assert!(slow.assignments <= 3, "{}", slow.assignments);
    assert_eq!(slow.items(), slow.wanted());
}

/// Enough secrets and configs come to more than a message may.
#[tokio::test(start_paused = true)]
async fn what_is_more_than_a_message_comes_in_parts() {
    let cluster = Cluster::with(1).await;
    let mut references = Vec::new();
    for number in 0..9_u128 {
        let spec = ConfigSpec {
            name: format!("config-{number}"),
            data: vec![b'x'; 1_000_000],
            ..ConfigSpec::default()
        };
        let config = Config { id: ConfigId::of(number + 1), meta: Meta::default(), spec, superseded: false };
        references.push(ConfigReference {
            config: config.id,
            name: config.spec.name.clone(),
            target: ConfigTarget::Runtime,
        });
        cluster.write(StoreAction::Create(config.into())).await;
    }
    let mut spec = objects::replicated("web", 1);
    let mut task = TaskSpec::clone(&spec.task);
    let TaskRuntime::Container(container) = &mut task.runtime else { panic!() };
    container.configs = references;
    spec.task = Arc::new(task);
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    assert!(worker.settle().await);
    let before = worker.assignments;
    let made = cluster.leader.change(|view, now, bits| create_service(view, spec, now, bits)).await.unwrap();
    cluster.placed(made, 1).await;
    assert!(worker.settle().await);
    assert_eq!(worker.items(), worker.wanted());
    assert_eq!(worker.items().iter().filter(|item| matches!(item, Item::Config(_))).count(), 9);
    assert_eq!((worker.assignments, worker.parts), (before + 1, 2), "four in one part");
}
