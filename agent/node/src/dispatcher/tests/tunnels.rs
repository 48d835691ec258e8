//! Tunnels to nodes' containers, through a real dispatcher and real workers.

use ketch_cluster::objects::Task;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::workers::{Mesh, container_id};
use super::*;
use crate::calls::{Scope, Target, Visit};
use crate::dispatcher::tunnels::{MOST_OF_MANAGER, MOST_OF_NODE, QUIET};
use crate::wire::Flow;

const BY: NodeId = NodeId::of(0xb1);

fn named(text: impl Into<String>) -> Target {
    Target::Container(text.into())
}

/// What the node's engine says first: who asks for what.
async fn greeting(tunnel: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    while text.last() != Some(&b'\n') {
        text.push(timeout(PERIOD, tunnel.read_u8()).await.expect("a greeting").unwrap());
    }
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

async fn with_task() -> (Mesh, Arc<Dispatcher>, Arc<Task>) {
    let mesh = Mesh::of(1, 2).await;
    let service = mesh.service(4).await;
    let task = Arc::clone(&mesh.running(service)[0]);
    let dispatcher = mesh.dispatcher().unwrap();
    (mesh, dispatcher, task)
}

#[tokio::test(start_paused = true)]
async fn a_container_is_reached_by_name_and_by_id() {
    let (_mesh, dispatcher, task) = with_task().await;
    let id = container_id(task.id);
    let wanted = format!("{BY} {:?}", Scope::Task(task.id));
    for typed in [
        named(task.container_name()),
        named(format!("/{}", task.container_name())),
        named(id.clone()),
        named(&id[..40]),
        Target::Task(task.id),
    ] {
        let mut tunnel = dispatcher.reach(BY, &typed).await.unwrap();
        assert_eq!(greeting(&mut tunnel).await, wanted, "{typed:?}");
    }
    let mut list = dispatcher.reach(BY, &Target::Node(task.node.unwrap())).await.unwrap();
    assert_eq!(greeting(&mut list).await, format!("{BY} List"));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has_is_not_found() {
    let (_mesh, dispatcher, task) = with_task().await;
    let of_other = task.container_name().replace("web.", "db.");
    for typed in ["x", "web", "f00d", &of_other, &task.id.to_string(), "", "web.1.", &"a".repeat(65)] {
        let error = dispatcher.reach(BY, &named(typed)).await.unwrap_err();
        assert_eq!(error, Refusal::NotFound(format!("No such container: {typed}")));
    }
    let other = TaskId::of(9);
    let error = dispatcher.reach(BY, &Target::Task(other)).await.unwrap_err();
    assert_eq!(error, Refusal::NotFound(format!("No such container: task {other} has none")));
    assert_eq!(dispatcher.tunnels.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_short_id_may_mean_several() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    let service = cluster.service("web", 2).await;
    cluster.placed(service, 2).await;
    worker.settle().await;
    let words = |tasks: &[TaskId]| {
        let of = |(number, task): (usize, &TaskId)| {
            let id = format!("ab{number:062}");
            let container = Some(ketch_cluster::objects::task::ContainerStatus { id, ..Default::default() });
            (*task, Word { container, ..word(TaskState::Running) })
        };
        tasks.iter().enumerate().map(of).collect::<Vec<_>>()
    };
    worker.tell(words(&cluster.tasks_on(worker.identity.node))).await.unwrap();
    let error = cluster.dispatcher.reach(BY, &named("ab")).await.unwrap_err();
    assert_eq!(error, Refusal::Invalid("multiple IDs found with provided prefix: ab".to_owned()));
}

/// A worker says of its own task's container that it is another one's: neither is reached by the id, both are by their names.
#[tokio::test(start_paused = true)]
async fn an_id_that_several_claim_is_nobodys() {
    let cluster = Cluster::with(2).await;
    let mut workers =
        [Worker::begin(&cluster.dispatcher, 101).await, Worker::begin(&cluster.dispatcher, 102).await];
    until("both have registered", || {
        workers.iter().all(|worker| cluster.state(worker.identity.node) == NodeState::Ready)
    })
    .await;
    let service = cluster.service("web", 2).await;
    cluster.placed(service, 2).await;
    let id = "ab".repeat(32);
    for worker in &mut workers {
        worker.settle().await;
        let tasks = cluster.tasks_on(worker.identity.node);
        let told = |id: &str| {
            let id = id.to_owned();
            let container = Some(ketch_cluster::objects::task::ContainerStatus { id, ..Default::default() });
            tasks
                .iter()
                .map(move |task| (*task, Word { container: container.clone(), ..word(TaskState::Running) }))
        };
        worker.tell(told(&"z".repeat(1000)).collect()).await.unwrap();
        let error = cluster.dispatcher.reach(BY, &named("zzzzzzzzzzzz")).await.unwrap_err();
        assert!(matches!(error, Refusal::NotFound(_)), "{error:?}");
        worker.tell(told(&id).collect()).await.unwrap();
    }
    let error = cluster.dispatcher.reach(BY, &named(id.clone())).await.unwrap_err();
    let text =
        format!("container {id} is claimed by several tasks, on node-101, node-102: use the task's name");
    assert_eq!(error, Refusal::Invalid(text));
}

/// Bytes go both ways, the end of one way leaves the other open, and nothing stays.
#[tokio::test(start_paused = true)]
async fn it_carries_megabytes_and_ends_as_a_socket() {
    let (_mesh, dispatcher, task) = with_task().await;
    let mut tunnel = dispatcher.reach(BY, &Target::Task(task.id)).await.unwrap();
    greeting(&mut tunnel).await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let (mut reader, mut writer) = tokio::io::split(tunnel);
    let sending = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut came = Vec::new();
    let (read, ()) = tokio::join!(reader.read_to_end(&mut came), sending);
    read.unwrap();
    assert!(came == sent, "{} of {} bytes", came.len(), sent.len());
    until("its place is free", || dispatcher.tunnels.count() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_user_that_is_gone_leaves_nothing() {
    let (_mesh, dispatcher, task) = with_task().await;
    for _ in 0..3 {
        let mut tunnel = dispatcher.reach(BY, &Target::Task(task.id)).await.unwrap();
        greeting(&mut tunnel).await;
    }
    until("their places are free", || dispatcher.tunnels.count() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_nodes_tunnels_are_bounded() {
    let (_mesh, dispatcher, task) = with_task().await;
    let mut open = Vec::new();
    for _ in 0..MOST_OF_NODE {
        open.push(dispatcher.reach(BY, &Target::Task(task.id)).await.unwrap());
    }
    let error = dispatcher.reach(BY, &Target::Task(task.id)).await.unwrap_err();
    let Refusal::Unavailable(text) = error else { panic!("{error:?}") };
    assert!(text.contains("by 64 requests at once"), "{text}");
    open.pop();
    until("a place is free", || dispatcher.tunnels.count() < MOST_OF_NODE).await;
    let mut again = dispatcher.reach(BY, &Target::Task(task.id)).await.unwrap();
    greeting(&mut again).await;
}

#[test]
fn a_managers_tunnels_are_bounded() {
    let tunnels = crate::dispatcher::tunnels::Tunnels::default();
    let wanted =
        |number: usize| TunnelWanted { tunnel: number as u128, visit: Visit { by: BY, scope: Scope::List } };
    let mut places = Vec::new();
    for number in 0..MOST_OF_MANAGER {
        let node = NodeId::of((number / MOST_OF_NODE) as u128);
        places.push(tunnels.expect((node, "n"), 1, &wanted(number)).unwrap());
    }
    assert!(tunnels.expect((NodeId::of(99), "n"), 1, &wanted(0)).is_err());
    places.truncate(1);
    assert_eq!(tunnels.count(), 1);
    assert!(tunnels.expect((NodeId::of(99), "n"), 1, &wanted(0)).is_ok());
}

/// What clients leave who are killed while a process says nothing.
#[tokio::test(start_paused = true)]
async fn a_silent_half_gives_its_place_to_who_wants_one() {
    let tunnels = crate::dispatcher::tunnels::Tunnels::default();
    let wanted = |number: u128| TunnelWanted { tunnel: number, visit: Visit { by: BY, scope: Scope::List } };
    let node = NodeId::of(1);
    let flows: Vec<Arc<Flow>> = (0..MOST_OF_NODE).map(|_| Arc::default()).collect();
    let mut places = Vec::new();
    for (number, flow) in (0_u128..).zip(&flows) {
        let (place, _arriving) = tunnels.expect((node, "n"), 1, &wanted(number)).unwrap();
        tunnels.open_one(&place, Arc::clone(flow));
        places.push(place);
    }
    let another = |number: u128| tunnels.expect((node, "n"), 1, &wanted(number));
    tokio::time::advance(QUIET * 2).await;
    assert!(another(100).is_err(), "both ends of all of them may still write");
    flows[7].ends();
    assert!(another(100).is_err(), "it may say something yet");
    tokio::time::advance(QUIET).await;
    flows[8].ends();
    let (_place, _arriving) = another(100).unwrap();
    assert!(another(101).is_err());
    assert_eq!(tunnels.count(), MOST_OF_NODE);
    tokio::time::advance(QUIET).await;
    let (_place, _arriving) = another(101).unwrap();
}

/// With the leadership, with the session, and with the node.
#[tokio::test(start_paused = true)]
async fn it_ends_with_its_session() {
    let (mesh, dispatcher, task) = with_task().await;
    let mut tunnel = dispatcher.reach(BY, &Target::Task(task.id)).await.unwrap();
    greeting(&mut tunnel).await;
    let (.., worker) =
        mesh.workers.iter().find(|(site, ..)| Some(site.node) == task.node).expect("the task's node");
    worker.shutdown().await;
    let mut rest = Vec::new();
    timeout(PERIOD, tunnel.read_to_end(&mut rest)).await.expect("its end").unwrap();
    until("its place is free", || dispatcher.tunnels.count() == 0).await;
    let error = dispatcher.reach(BY, &Target::Task(task.id)).await.unwrap_err();
    assert!(matches!(error, Refusal::Unavailable(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_leadership() {
    let mesh = Mesh::of(3, 1).await;
    let service = mesh.service(1).await;
    let task = Arc::clone(&mesh.running(service)[0]);
    let dispatcher = mesh.dispatcher().unwrap();
    let mut tunnel = dispatcher.reach(BY, &Target::Task(task.id)).await.unwrap();
    greeting(&mut tunnel).await;
    let leading = mesh.managers.leading().await;
    mesh.managers.kill(leading).await;
    let mut rest = Vec::new();
    timeout(PERIOD * 2, tunnel.read_to_end(&mut rest)).await.expect("its end").unwrap();
    until("another one leads", || mesh.dispatcher().is_some()).await;
    let next = mesh.dispatcher().unwrap();
    until("it is reached by the next leader's tunnels", || next.sessions.of(task.node.unwrap()).is_some())
        .await;
    let mut again = next.reach(BY, &Target::Task(task.id)).await.unwrap();
    greeting(&mut again).await;
}

/// A worker that is told and opens nothing, one that opens another's, one that opens late.
#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_open_it_is_told() {
    let cluster = Cluster::with(2).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    let other = Worker::begin(&cluster.dispatcher, 102).await;
    worker.settle().await;
    // It is not silent for longer than it is waited for.
    worker.beat().await.unwrap();
    let node = Target::Node(worker.identity.node);
    let dispatcher = Arc::clone(&cluster.dispatcher);
    let reaching = tokio::spawn(async move { dispatcher.reach(BY, &node).await });
    worker.settle().await;
    let wanted = worker.tunnels[0].clone();
    assert_eq!(wanted.visit, Visit { by: BY, scope: Scope::List });
    let open = async |worker: &Worker| {
        let asked = crate::calls::TunnelAsked { session: worker.session, tunnel: wanted.tunnel };
        let mut call = call(Caller::Member(worker.identity), crate::calls::TunnelAsked::PATH, &());
        let json = serde_json::to_vec(&asked).unwrap();
        call.head.headers.insert(crate::calls::ASKED, json.try_into().unwrap());
        cluster.dispatcher.answer(call).await
    };
    assert!(matches!(open(&other).await, Err(Refusal::NotFound(_))), "another node's");
    // Its session goes on meanwhile.
    while !reaching.is_finished() {
        worker.beat().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let error = reaching.await.unwrap().unwrap_err();
    assert_eq!(error, Refusal::Unavailable("node node-101 did not answer in time".to_owned()));
    assert!(matches!(open(&worker).await, Err(Refusal::NotFound(_))), "nobody waits any more");
    assert_eq!(cluster.dispatcher.tunnels.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_before_is_not_asked() {
    let cluster = Cluster::with(1).await;
    let before = SessionAsked { tunnels: false, ..asked(101) };
    let mut worker = Worker::begin_with(&cluster.dispatcher, identity(101), before).await.unwrap();
    worker.settle().await;
    let error = cluster.dispatcher.reach(BY, &Target::Node(worker.identity.node)).await.unwrap_err();
    let Refusal::Unavailable(text) = error else { panic!("{error:?}") };
    assert!(text.starts_with("node node-101 runs a version of ketch that"), "{text}");
}
