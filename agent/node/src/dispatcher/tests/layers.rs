use ketch_cluster::objects::task::TaskRuntime;

use super::*;
use crate::calls::{BlobName, LayerAsked, LayerFound, LayerRightAsked, LayerStep};

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

async fn may(of: &Worker, node: NodeId, image: &str) -> bool {
    let asked = LayerRightAsked { session: of.session, node, image: image.to_owned() };
    ask(&of.dispatcher, of.identity, &asked).await.unwrap().may
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
    assert!(may(&workers[0], NodeId::of(102), IMAGE).await);
    assert!(!may(&workers[0], NodeId::of(102), OTHER).await, "knowing a digest is no right to it");
    assert!(!may(&workers[0], NodeId::of(104), IMAGE).await, "nor is being asked for nobody");
    let wrong = say(&workers[0], "latest", LayerStep::Seeks).await.unwrap_err();
    assert!(matches!(wrong, Refusal::Invalid(_)), "{wrong:?}");
}

/// A private image's digest in a service that brings no credentials, or others.
#[tokio::test(start_paused = true)]
async fn other_credentials_are_no_right() {
    for auth in [None, Some("somebody")] {
        let (cluster, workers) = sharing().await;
        of_image(&cluster, "private", (IMAGE, Some("user")), 1).await;
        let has = |worker: &&Worker| !cluster.tasks_on(worker.identity.node).is_empty();
        let holder = workers.iter().find(has).unwrap();
        // One each: on the holder's node it finds the image there.
        of_image(&cluster, "curious", (IMAGE, auth), 3).await;
        for worker in &workers {
            let image_tasks = cluster.tasks_on(worker.identity.node).len();
            assert_eq!(image_tasks, 1 + usize::from(worker.identity.node == holder.identity.node));
        }
        let others: Vec<_> = workers.iter().filter(|it| it.identity.node != holder.identity.node).collect();
        for other in &others {
            assert!(!may(holder, other.identity.node, IMAGE).await, "{auth:?}");
        }
        of_image(&cluster, "same", (IMAGE, Some("user")), 3).await;
        for other in &others {
            assert!(may(holder, other.identity.node, IMAGE).await, "{auth:?}");
        }
    }
}
