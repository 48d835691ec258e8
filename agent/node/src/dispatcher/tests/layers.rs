use ketch_cluster::objects::Task;
use ketch_cluster::objects::task::TaskRuntime;

use super::*;
use crate::calls::{BlobName, LayerAsked, LayerFound, LayerRightAsked, LayerStep};
use crate::mark::{Mark, Marks};

const IMAGE: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BLOB: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const OTHER: &str = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// Three workers that share layers.
async fn sharing() -> (Cluster, Vec<Worker>) {
    let cluster = Cluster::with(3).await;
    let mut workers = Vec::new();
    for number in 101..104 {
        let asked = SessionAsked { layers: 7947, address: format!("10.0.0.{number}:2377"), ..asked(number) };
        workers.push(Worker::begin_with(&cluster.dispatcher, identity(number), asked).await.unwrap());
        until("it is ready", || cluster.state(NodeId::of(number)) == NodeState::Ready).await;
    }
    (cluster, workers)
}

/// A service of that image; its tasks have nodes.
async fn of_image(cluster: &Cluster, name: &str, (image, auth): (&str, Option<&str>), replicas: u64) {
    let mut spec = objects::replicated(name, replicas);
    let task = Arc::make_mut(&mut spec.task);
    let TaskRuntime::Container(container) = &mut task.runtime else { panic!("no container") };
    container.image = format!("reg:5000/app:1@{image}");
    container.registry_auth = auth.map(|auth| auth.to_owned().into());
    let made = cluster.leader.change(|view, now, bits| create_service(view, spec, now, bits)).await.unwrap();
    cluster.placed(made, usize::try_from(replicas).unwrap()).await;
}

async fn say(worker: &Worker, image: &str, step: LayerStep) -> Result<LayerFound, Refusal> {
    let name = BlobName { image: image.to_owned(), blob: BLOB.to_owned() };
    let asked = LayerAsked { session: worker.session, name, step, avoid: Vec::new() };
    ask(&worker.dispatcher, worker.identity, &asked).await
}

/// Whether a node may have, for a task, what came to another one by these credentials.
async fn may(of: &Worker, by: Option<&str>, (node, task): (NodeId, TaskId), image: &str) -> bool {
    let marks = Marks { salt: 5, by: vec![Mark::of(5, by)] };
    let asked = LayerRightAsked { session: of.session, node, task, image: image.to_owned(), marks };
    let told = ask(&of.dispatcher, of.identity, &asked).await.unwrap().by;
    assert!(told.is_none_or(|told| told == Mark::of(5, by)), "nothing is told but what was asked for");
    told.is_some()
}

#[tokio::test(start_paused = true)]
async fn one_node_is_sent_to_the_registry_and_the_others_to_it() {
    let (cluster, workers) = sharing().await;
    of_image(&cluster, "web", (IMAGE, None), 3).await;
    assert!(say(&workers[0], IMAGE, LayerStep::Seeks).await.unwrap().registry);
    let found = say(&workers[1], IMAGE, LayerStep::Seeks).await.unwrap();
    assert!(!found.registry);
    let sources: Vec<_> = found.sources.iter().map(|it| (it.node, it.address.as_str())).collect();
    assert_eq!(sources, [(NodeId::of(101), "10.0.0.101:7947")]);
    // Its session ends, as when it is killed: the next one is sent.
    let mut workers = workers.into_iter();
    let (gone, second) = (workers.next().unwrap(), workers.next().unwrap());
    drop(gone);
    until("another one is sent to the registry", || {
        cluster.dispatcher.sessions.of(NodeId::of(101)).is_none()
    })
    .await;
    assert!(say(&second, IMAGE, LayerStep::Seeks).await.unwrap().registry);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_task_of_the_image_learns_and_gets_nothing() {
    let (cluster, workers) = sharing().await;
    of_image(&cluster, "web", (IMAGE, None), 3).await;
    let refused = say(&workers[0], OTHER, LayerStep::Seeks).await.unwrap_err();
    assert!(matches!(refused, Refusal::NotFound(_)), "{refused:?}");
    let node = NodeId::of(102);
    let task = cluster.tasks_on(node)[0];
    assert!(may(&workers[0], None, (node, task), IMAGE).await);
    assert!(!may(&workers[0], None, (node, task), OTHER).await, "knowing a digest is no right to it");
    assert!(!may(&workers[0], None, (node, TaskId::of(1)), IMAGE).await, "nor is a task that is none");
    assert!(!may(&workers[0], None, (NodeId::of(103), task), IMAGE).await, "nor is another node's task");
    let wrong = say(&workers[0], "latest", LayerStep::Seeks).await.unwrap_err();
    assert!(matches!(wrong, Refusal::Invalid(_)), "{wrong:?}");
}

/// A private image's digest in a service that brings no credentials, or others: whatever tasks the node that has it has or had.
#[tokio::test(start_paused = true)]
async fn what_came_by_other_credentials_is_for_nobody_else() {
    let (cluster, workers) = sharing().await;
    of_image(&cluster, "private", (IMAGE, Some("user")), 3).await;
    of_image(&cluster, "curious", (IMAGE, None), 3).await;
    of_image(&cluster, "other", (IMAGE, Some("somebody")), 3).await;
    let node = NodeId::of(102);
    let task_by = |auth: Option<&str>| {
        cluster.leader.view(|view| {
            let auth_of = |task: &Task| task.spec.container().unwrap().registry_auth.clone();
            let is_by = |task: &&Arc<Task>| auth_of(task).as_ref().map(|it| it.as_str()) == auth;
            view.tasks_on(node).find(is_by).unwrap().id
        })
    };
    for (auth, may_have) in [(Some("user"), true), (None, false), (Some("somebody"), false)] {
        let task = (node, task_by(auth));
        assert_eq!(may(&workers[0], Some("user"), task, IMAGE).await, may_have, "{auth:?}");
        assert!(may(&workers[0], None, task, IMAGE).await, "what a registry gave to nobody is everybody's");
    }
}

/// All ask at once, as when a service comes to all nodes.
#[tokio::test(start_paused = true)]
async fn who_has_a_right_is_looked_for_once_for_all_who_ask() {
    let (cluster, workers) = sharing().await;
    of_image(&cluster, "web", (IMAGE, None), 3).await;
    let _first = say(&workers[0], IMAGE, LayerStep::Seeks).await.unwrap();
    let before = found(&cluster);
    assert!(say(&workers[1], IMAGE, LayerStep::Seeks).await.is_ok());
    let after = found(&cluster);
    assert!(Arc::ptr_eq(&before, &after), "the second was told what was found for the first");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(say(&workers[1], IMAGE, LayerStep::Seeks).await.is_ok());
    assert!(!Arc::ptr_eq(&before, &found(&cluster)), "and a second later it is looked again");
}

fn found(cluster: &Cluster) -> Arc<std::collections::BTreeMap<NodeId, bool>> {
    cluster.dispatcher.entitled(IMAGE, [None].into())
}
