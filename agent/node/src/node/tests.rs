//! A whole node on its own: what its keys, its place and its end are.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use ketch_ca::authority::Authority;
use ketch_ca::folder::{FolderError, Kept};
use ketch_ca::identity::Identity;
use ketch_ca::key::NodeKey;
use ketch_cluster::assignment::Item;
use ketch_cluster::control::{ClusterUpdate, Force, NewSecrets, Rotate};
use ketch_cluster::id::{NewBits, TaskId};
use ketch_cluster::objects::cluster::ClusterNetworking;
use ketch_cluster::objects::node::{Availability, NodeDescription};
use ketch_cluster::objects::{Cluster, ClusterSpec, Task};
use ketch_cluster::store::StoreAction;
use ketch_cluster::view::View;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

mod promotion;
mod reaching;

use super::*;
use crate::calls::RenewAsked;
use crate::calls::Visit;
use crate::executor::{DataPath, Ended, LogLine, LogOptions, Started, TaskError, Work};
use crate::fixture::{Hub, MemoryDisk, TestWorld, objects, until};
use crate::wire::{Answer, Call, CallError, Destination, Refusal};
use crate::world::{Credentials, DialError, Expected, Trust};

const HOST: &str = "10.0.0.1";
const CALL: Duration = Duration::from_secs(30);

/// Runs nothing. It takes so long to be told where the data plane is.
#[derive(Debug)]
struct Idle(Duration);

impl Executor for Idle {
    fn set_data_path(&self, _: Option<DataPath>) -> BoxFuture<'_, ()> {
        sleep(self.0).boxed()
    }

    fn describe(&self) -> BoxFuture<'_, NodeDescription> {
        async { objects::description("node") }.boxed()
    }

    fn network(&self, _: &[Item]) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    fn prepare(&self, _: Work) -> BoxFuture<'_, Result<(), TaskError>> {
        async { Err(TaskError::Gone) }.boxed()
    }

    fn start(&self, _: Arc<Task>) -> BoxFuture<'_, Result<Started, TaskError>> {
        async { Err(TaskError::Gone) }.boxed()
    }

    fn wait(&self, _: Arc<Task>) -> BoxFuture<'_, Result<Ended, TaskError>> {
        pending().boxed()
    }

    fn shutdown(&self, _: Arc<Task>) -> BoxFuture<'_, Result<(), TaskError>> {
        async { Ok(()) }.boxed()
    }

    fn remove(&self, _: TaskId) -> BoxFuture<'_, Result<(), TaskError>> {
        async { Ok(()) }.boxed()
    }

    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, String>> {
        async { Ok(BTreeSet::new()) }.boxed()
    }

    fn serve(&self, _: Visit, _: DuplexStream) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn logs(&self, _: Arc<Task>, _: LogOptions) -> BoxFuture<'_, Result<mpsc::Receiver<LogLine>, String>> {
        async { Err("none".to_owned()) }.boxed()
    }
}

struct NoApi;

impl Service for NoApi {
    fn answer(&self, _: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        async { Err(Refusal::Invalid("no API".to_owned())) }.boxed()
    }
}

fn node_on(hub: &Arc<Hub>, disk: &Arc<MemoryDisk>) -> Arc<Node> {
    node_at(HOST, Duration::ZERO, (hub, disk))
}

fn node_at(host: &str, slowness: Duration, (hub, disk): (&Arc<Hub>, &Arc<MemoryDisk>)) -> Arc<Node> {
    Node::new(NodeParts {
        world: TestWorld::on(hub, host, Arc::clone(disk)),
        executor: Arc::new(Idle(slowness)),
        api: Arc::new(NoApi),
        blocking: Blocking::Inline,
    })
}

fn founding() -> Founding {
    Founding {
        listen: format!("{HOST}:2377"),
        advertise: format!("{HOST}:2377"),
        data_address: None,
        spec: ClusterSpec::default(),
        networking: ClusterNetworking::default(),
        availability: Availability::Active,
    }
}

/// A cluster of one node.
async fn founded() -> (Arc<Hub>, Arc<MemoryDisk>, Arc<Node>) {
    let (hub, disk) = (Hub::new(), Arc::<MemoryDisk>::default());
    let node = node_on(&hub, &disk);
    node.init(founding()).await.unwrap();
    (hub, disk, node)
}

async fn leader(node: &Node) -> Arc<Leader> {
    match node.lead().await.unwrap() {
        Lead::Here(leader, _) => leader,
        Lead::There(there) => panic!("{there:?} leads"),
    }
}

/// Changes the cluster's spec, or its unlock key to 32 of these.
async fn update(node: &Node, unlock: u8, change: impl FnOnce(&mut ClusterSpec)) -> Arc<Cluster> {
    let leader = leader(node).await;
    let cluster = || leader.view(|view| view.cluster().cloned().unwrap());
    let known = cluster();
    let mut spec = known.spec.clone();
    change(&mut spec);
    let secrets = NewSecrets { worker_token: 5, manager_token: 6, unlock_key: [unlock; 32] };
    let rotate = known.unlock_key.is_some().then_some(Rotate::UnlockKey).into_iter().collect();
    let version = known.meta.version;
    leader.update_cluster(ClusterUpdate { version, spec, rotate, secrets }).await.unwrap();
    cluster()
}

fn kept(disk: &MemoryDisk, unlock: Option<u8>) -> Result<Kept, FolderError> {
    let unlock = unlock.map(|byte| UnlockKey([byte; 32]));
    disk.keys().unwrap().read(unlock.as_ref()).map(Option::unwrap)
}

/// The log's key, once there is one alone, which no key of `known` is.
async fn next_key(disk: &MemoryDisk, unlock: Option<u8>, known: &[[u8; 32]]) -> [u8; 32] {
    crate::fixture::found("another key of the log", || {
        let raft = kept(disk, unlock).ok()?.raft?;
        (raft.next.is_none() && !known.contains(&raft.current)).then_some(raft.current)
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn the_logs_key_changes_with_the_unlock_key_and_never_lay_in_the_clear() {
    let (hub, disk, node) = founded().await;
    let first = next_key(&disk, None, &[]).await;
    update(&node, 1, |spec| spec.autolock = true).await;
    let second = next_key(&disk, Some(1), &[first]).await;
    assert!(matches!(kept(&disk, None), Err(FolderError::Locked)));
    update(&node, 2, |_| {}).await;
    let third = next_key(&disk, Some(2), &[first, second]).await;
    // No longer locked, nothing more is exposed than by that itself.
    update(&node, 3, |spec| spec.autolock = false).await;
    until("keys in the clear", || kept(&disk, None).is_ok()).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(kept(&disk, None).unwrap().raft.unwrap().current, third);
    let cluster = update(&node, 4, |spec| spec.autolock = true).await;
    let unlock = found::unlock_key(&cluster).unwrap();
    let fourth = next_key(&disk, Some(unlock.0[0]), &[first, second, third]).await;
    node.shutdown().await;

    let again = node_on(&hub, &disk);
    again.begin();
    until("it waits for its key", || matches!(again.state(), State::Locked)).await;
    again.unlock(unlock).await.unwrap();
    assert_eq!(again.view(|store| store.nodes().count()), Some(1), "the log is opened by the newest");
    assert_eq!(kept(&disk, Some(unlock.0[0])).unwrap().raft.unwrap().current, fourth);
    again.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_could_not_be_sealed_are_sealed_later() {
    let (_hub, disk, node) = founded().await;
    let first = next_key(&disk, None, &[]).await;
    disk.leave_keys(Some(0));
    update(&node, 1, |spec| spec.autolock = true).await;
    sleep(Duration::from_secs(10)).await;
    disk.leave_keys(None);
    assert!(kept(&disk, None).is_ok(), "the disk was full");
    next_key(&disk, Some(1), &[first]).await;
    node.shutdown().await;
}

/// The unlock key changes while the log's key does, and the disk is full in between: nobody else remembers that there is to be one
/// more.
#[tokio::test(start_paused = true)]
async fn a_change_of_the_logs_key_is_followed_by_another_when_it_was_under_way() {
    let (_hub, disk, node) = founded().await;
    let first = next_key(&disk, None, &[]).await;
    // The key to change to is kept, and the change's end is not.
    disk.leave_keys(Some(1));
    update(&node, 1, |spec| spec.autolock = true).await;
    sleep(Duration::from_secs(10)).await;
    disk.leave_keys(None);
    let second = kept(&disk, Some(1)).unwrap().raft.unwrap().next.unwrap();
    disk.leave_keys(Some(0));
    update(&node, 2, |_| {}).await;
    sleep(Duration::from_secs(10)).await;
    // One step more, and again none.
    disk.leave_keys(Some(1));
    sleep(Duration::from_secs(10)).await;
    disk.leave_keys(None);
    next_key(&disk, Some(2), &[first, second]).await;
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_cluster_ends_no_connection() {
    let (hub, _disk, node) = founded().await;
    let leader = leader(&node).await;
    let other = objects::node(9);
    let id = other.id;
    let add = leader.change::<_, ()>(|_, _, _| Ok(((), vec![StoreAction::Create(other.into())])));
    add.await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let dialled = hub.dialled();
    leader.remove_node(id, Force::Yes).await.unwrap();
    update(&node, 1, |spec| spec.task_history_limit += 1).await;
    update(&node, 1, |spec| spec.autolock = true).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(hub.dialled(), dialled);
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_cluster_is_where_it_is_told_to_be() {
    let (_hub, disk, node) = founded().await;
    let id = node.information().node.unwrap();
    let place = Place {
        listen: "10.0.0.8:2377".to_owned(),
        advertise: Some("10.0.0.8:2377".to_owned()),
        data_address: None,
    };
    assert_eq!(node.force_new_cluster(place).await.unwrap(), id);
    let (leader, address) = (leader(&node).await, || node.information().address);
    until("the store has it there", || {
        leader.view(|view| {
            view.node(id).unwrap().manager.as_ref().is_some_and(|it| it.address == "10.0.0.8:2377")
        })
    })
    .await;
    assert_eq!(address(), "10.0.0.8");
    assert_eq!(Document::read(&*disk).unwrap().unwrap().listen, "10.0.0.8:2377");
    // Without an address of its own it stays there.
    let same = Place { listen: "10.0.0.8:2377".to_owned(), advertise: None, data_address: None };
    node.force_new_cluster(same).await.unwrap();
    assert_eq!(address(), "10.0.0.8");
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_no_other_node() {
    let hub = Hub::new();
    let disk = Arc::<MemoryDisk>::default();
    let node = node_on(&hub, &disk);
    hub.partition(&[HOST], &["10.0.0.5"]);
    let token = ketch_cluster::token::JoinToken { root_digest: [1; 32], secret: 7 }.to_string();
    let order = JoinOrder { managers: vec!["10.0.0.5:2377".to_owned(); 3], ..order(HOST, &token) };
    let joining = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.join(order).await }
    });
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    node.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let error = joining.await.unwrap().unwrap_err();
    assert!(matches!(error, NodeError::Ending), "{error}");
    assert!(matches!(node.state(), State::Inactive) && Document::read(&*disk).unwrap().is_none());
}

fn order(host: &str, token: &str) -> JoinOrder {
    JoinOrder {
        listen: format!("{host}:2377"),
        advertise: format!("{host}:2377"),
        advertised: Advertised::Given,
        data_address: None,
        managers: vec![format!("{HOST}:2377")],
        token: token.to_owned(),
        availability: Availability::Active,
    }
}

#[tokio::test(start_paused = true)]
async fn whom_a_manager_has_let_in_is_a_node_although_it_is_about_to_end() {
    let (hub, _first, manager) = founded().await;
    let leader = leader(&manager).await;
    let token = leader.view(|view| view.cluster().unwrap().root_ca.join_tokens.worker.clone());
    let disk = Arc::<MemoryDisk>::default();
    let node = node_at("10.0.0.2", Duration::from_secs(3), (&hub, &disk));
    let joining = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.join(order("10.0.0.2", &token)).await }
    });
    until("it has its document", || Document::read(&*disk).unwrap().is_some()).await;
    assert!(matches!(node.state(), State::Pending), "it is still at it");
    node.shutdown().await;
    drop(joining.await.unwrap());
    let known = Document::read(&*disk).unwrap().map(|it| it.node);
    assert!(known.is_some(), "it forgets the cluster that has it");
    assert!(leader.view(|view| view.node(known.unwrap()).is_some()));
    drop(node);

    let again = node_at("10.0.0.2", Duration::ZERO, (&hub, &disk));
    again.begin();
    until("it is of the cluster", || matches!(again.state(), State::Active(_))).await;
    again.shutdown().await;
    manager.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_without_room_says_so_and_comes_back_when_there_is_some() {
    let (hub, disk, node) = founded().await;
    let known = leader(&node).await;
    let kept = update(&node, 1, |spec| spec.task_history_limit = 7).await;
    disk.fill(true);
    let lost = |view: &View<'_>, now, _: NewBits<'_>| {
        let mut cluster = Cluster::clone(view.cluster().unwrap());
        (cluster.spec.task_history_limit, cluster.meta.updated_at) = (8, now);
        Ok::<_, ()>(((), vec![StoreAction::Update(cluster.into())]))
    };
    assert!(known.change(lost).await.is_err(), "nothing is acknowledged that can't be kept");
    until("it tells why", || node.information().error.contains("no storage space")).await;
    let told = node.information();
    assert!(told.state == "active" && told.is_manager, "{told:?}");
    let text = node.lead().await.unwrap_err().to_string();
    assert!(text.starts_with("This manager takes no part in the swarm: its raft log has stopped"), "{text}");
    sleep(Duration::from_secs(60)).await;
    assert!(node.lead().await.is_err() && known.has_ended(), "no room yet");

    disk.fill(false);
    until("it says nothing more", || node.information().error.is_empty()).await;
    let again = leader(&node).await;
    assert_eq!(again.view(|view| view.cluster().unwrap().spec.clone()), kept.spec);
    update(&node, 1, |spec| spec.task_history_limit = 9).await;

    // And when it is full already at the start.
    node.shutdown().await;
    disk.fill(true);
    let late = node_on(&hub, &disk);
    late.begin();
    until("it can't begin", || late.information().state == "error").await;
    assert!(late.information().error.contains("no storage space"), "{:?}", late.information());
    sleep(Duration::from_secs(90)).await;
    disk.fill(false);
    until("it has begun", || matches!(late.state(), State::Active(_))).await;
    assert_eq!(leader(&late).await.view(|view| view.cluster().unwrap().spec.task_history_limit), 9);
    late.shutdown().await;
}

/// Somebody has stolen the root's key, and made himself a manager by it.
#[tokio::test(start_paused = true)]
async fn a_connection_by_a_root_of_before_ends_with_it() {
    let (hub, _disk, node) = founded().await;
    let cluster = leader(&node).await.view(|view| view.cluster().cloned().unwrap());
    let world = TestWorld::new(&hub, "10.0.0.9");
    let named = (NodeId::of(0x77), NodeRole::Manager);
    let key = NodeKey::generate().unwrap();
    let request = key.request().unwrap();
    let forged = Authority::of(&cluster).unwrap().issue(&request, named, world.now()).unwrap();
    let forged = |trust| Credentials {
        identity: Identity::of_chain(&forged).unwrap(),
        chain: forged.clone(),
        key: Arc::new(NodeKey::read(key.pkcs8()).unwrap()),
        trust: Arc::new(trust),
    };
    world.adopt(forged(Trust::of(&cluster).unwrap()));
    let links = Links::new(Arc::clone(&world) as Arc<dyn World>);
    let to = Destination::member(format!("{HOST}:2377"), Expected::Role(NodeRole::Manager));
    let junk = RenewAsked { certificate_request: "none".to_owned() };
    let taken = links.ask(&to, &junk, CALL).await.unwrap_err();
    assert!(matches!(taken, CallError::Refused(_)), "{taken:?}");

    let rotated = update(&node, 1, |spec| spec.ca.force_rotate += 1).await;
    // He follows the rotation, and would find the managers by their new root.
    world.adopt(forged(Trust::of(&rotated).unwrap()));
    let still = links.ask(&to, &junk, CALL).await.unwrap_err();
    assert!(matches!(still, CallError::Refused(_)), "the old root is believed still: {still:?}");
    let leader = leader(&node).await;
    until("the old root has ended", || {
        leader.view(|view| view.cluster().unwrap().root_ca.rotation.is_none())
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    let error = links.ask(&to, &junk, CALL).await.unwrap_err();
    assert!(matches!(error, CallError::Dial(DialError::Distrust { .. })), "{error:?}");
    // The node itself goes on.
    let id = node.information().node.unwrap();
    sleep(Duration::from_secs(30)).await;
    let state = leader.view(|view| view.node(id).unwrap().status.state);
    assert_eq!(state, ketch_cluster::objects::node::NodeState::Ready);
    node.shutdown().await;
}

/// Its certificate is renewed before it ends, and nothing notices: the manager leads, the worker is in a session.
#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_about_to_end_is_renewed() {
    let (hub, disk, node) = founded().await;
    update(&node, 1, |spec| spec.ca.node_certificate_expiry = Duration::from_secs(3600)).await;
    let of = |disk: &MemoryDisk| Identity::of_chain(&kept(disk, None).unwrap().chain).unwrap();
    let (first, leader) = (of(&disk), leader(&node).await);
    let mut before = first;
    // The first one was signed for 90 days, those after it for an hour.
    for span in [Duration::from_secs(73 * 24 * 3600), Duration::from_secs(50 * 60)] {
        hub.skip(span);
        sleep(Duration::from_secs(130)).await;
        assert!(of(&disk).begins > before.begins, "another one, {span:?} later");
        before = of(&disk);
    }
    assert!(before.expires < hub.now().after(Duration::from_secs(3700)));
    sleep(Duration::from_secs(30)).await;
    let state = leader.view(|view| view.node(first.node).unwrap().status.state);
    assert_eq!((state, leader.has_ended()), (ketch_cluster::objects::node::NodeState::Ready, false));
    node.shutdown().await;
}
