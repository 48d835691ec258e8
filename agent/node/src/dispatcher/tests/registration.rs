use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::control::{Force, NodeRemoval, remove_node};
use ketch_cluster::objects::node::NodeTls;

use super::*;
use crate::fixture::Site;
use crate::wire::{Destination, Service, serve};
use crate::world::{Expected, World};

/// The dispatcher alone, behind a listener of its own.
struct Serving(Arc<Dispatcher>);

impl Service for Serving {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        let dispatcher = Arc::clone(&self.0);
        async move { dispatcher.answer(call).await }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_registers_is_ready_with_what_it_says_and_what_its_certificate_says() {
    let cluster = Cluster::with(1).await;
    let mut forged = asked(101);
    forged.description.tls = Some(NodeTls { issuer: CaKeyId([1; 20]), roots: Default::default() });
    let mut worker = Worker::begin_with(&cluster.dispatcher, identity(101), forged).await.unwrap();
    assert_eq!(worker.heartbeat, PERIOD);
    worker.settle().await;
    let node = cluster.node(NodeId::of(101));
    assert_eq!((node.status.state, node.status.message.as_str()), (NodeState::Ready, ""));
    assert_eq!(node.status.address, "10.0.0.99", "where its connection comes from");
    let description = node.description.clone().unwrap();
    assert_eq!(description.hostname, "node-101");
    let own = CaKeyId([7; 20]);
    assert_eq!(description.tls, Some(NodeTls { issuer: own, roots: [own].into() }));
    let founder = cluster.managers.seats[0].site.node;
    assert_eq!(worker.managers, [ManagerAddress { node: founder, address: "10.0.0.1:2377".to_owned() }]);
    let membership = worker.membership.unwrap();
    assert_eq!(membership.role, NodeRole::Worker);
    assert!(membership.roots.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test(start_paused = true)]
async fn the_same_again_writes_nothing_and_ends_the_older_session() {
    let cluster = Cluster::with(1).await;
    let mut first = Worker::begin(&cluster.dispatcher, 101).await;
    first.settle().await;
    let before = cluster.node(NodeId::of(101)).meta.version;
    let mut second = Worker::begin(&cluster.dispatcher, 101).await;
    second.settle().await;
    assert_eq!(cluster.node(NodeId::of(101)).meta.version, before);
    assert!(!first.settle().await, "its stream has ended");
    assert_eq!(first.beat().await.unwrap_err(), Refusal::NoSession);
    assert_eq!(first.tell(Vec::new()).await.unwrap_err(), Refusal::NoSession);
    second.beat().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_that_register_at_once_are_few_proposals() {
    let cluster = Cluster::with(50).await;
    let before = cluster.version().0;
    let mut workers = Vec::new();
    for number in 101..151 {
        workers.push(Worker::begin(&cluster.dispatcher, number).await);
    }
    sleep(A_WHILE).await;
    assert!((101..151).all(|number| cluster.state(NodeId::of(number)) == NodeState::Ready));
    // Of the two of the dispatcher's, and what the allocator makes of the nodes.
    assert!(cluster.version().0 - before < 10, "{}", cluster.version().0 - before);
}

#[tokio::test(start_paused = true)]
async fn another_certificate_on_the_same_session_is_written() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.settle().await;
    worker.identity.issuer = CaKeyId([8; 20]);
    worker.beat().await.unwrap();
    sleep(A_WHILE).await;
    let tls = cluster.node(NodeId::of(101)).description.clone().unwrap().tls.unwrap();
    assert_eq!(tls.issuer, CaKeyId([8; 20]));
    assert!(tls.roots.contains(&CaKeyId([7; 20])), "the roots are its own word still");
}

#[tokio::test(start_paused = true)]
async fn only_nodes_of_the_cluster_are_answered() {
    let cluster = Cluster::with(1).await;
    let stranger = call(Caller::Stranger, SessionAsked::PATH, &asked(101));
    assert!(matches!(cluster.dispatcher.answer(stranger).await, Err(Refusal::Denied(_))));
    let unknown = Worker::begin_with(&cluster.dispatcher, identity(999), asked(101)).await;
    assert!(matches!(unknown.map(|_| ()), Err(Refusal::Denied(_))));
    let beat = cluster.ask(identity(999), &Heartbeat { session: 1 }).await;
    assert!(matches!(beat, Err(Refusal::Denied(_))));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_its_nodes_alone() {
    let cluster = Cluster::with(2).await;
    let worker = Worker::begin(&cluster.dispatcher, 101).await;
    let _other = Worker::begin(&cluster.dispatcher, 102).await;
    let beat = cluster.ask(identity(102), &Heartbeat { session: worker.session }).await;
    assert_eq!(beat.unwrap_err(), Refusal::NoSession);
    let left = cluster.ask(identity(102), &Leave { session: worker.session }).await;
    assert_eq!(left.unwrap_err(), Refusal::NoSession);
    worker.beat().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_is_refused_and_its_session_ends() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.settle().await;
    let members = cluster.managers.seats[0].manager.members();
    cluster
        .leader
        .change(|view, now, _| {
            let removal = NodeRemoval { force: Force::Yes, members: &members, certificate_ends: now };
            remove_node(view, NodeId::of(101), &removal, now).map(|actions| ((), actions))
        })
        .await
        .unwrap();
    assert!(!worker.settle().await, "its stream ends");
    assert!(matches!(worker.beat().await, Err(Refusal::Denied(_))));
    assert!(matches!(worker.tell(Vec::new()).await, Err(Refusal::Denied(_))));
    let again = Worker::begin_with(&cluster.dispatcher, identity(101), asked(101)).await;
    assert!(matches!(again.map(|_| ()), Err(Refusal::Denied(_))));
}

#[tokio::test(start_paused = true)]
async fn with_the_leadership_all_sessions_end() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.settle().await;
    cluster.managers.kill(0).await;
    assert!(!worker.settle().await);
    assert!(matches!(worker.beat().await, Err(Refusal::NotLeader { .. })));
    let again = Worker::begin_with(&cluster.dispatcher, identity(101), asked(101)).await;
    assert!(matches!(again.map(|_| ()), Err(Refusal::NotLeader { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_session_over_the_network_ends_with_its_connection() {
    let mut cluster = Cluster::with(0).await;
    let address = "10.0.0.1:2378";
    let mut listener = cluster.managers.seats[0].site.world.listen(address).await.unwrap();
    let service = Arc::new(Serving(Arc::clone(&cluster.dispatcher)));
    tokio::spawn(async move {
        while let Ok(accepted) = listener.accept().await {
            tokio::spawn(serve(accepted, Arc::clone(&service) as Arc<dyn Service>));
        }
    });
    let site: Site = cluster.managers.join_site(NodeRole::Worker).await;
    let to = Destination::member(address, Expected::Role(NodeRole::Manager));
    let mut messages = site.links.open(&to, &asked(1), A_WHILE).await.unwrap();
    let Some(SessionMessage::Begun { session, .. }) = messages.next().await.unwrap() else { panic!() };
    sleep(A_WHILE).await;
    let node = cluster.node(site.node);
    assert_eq!(
        (node.status.state, node.status.address.as_str()),
        (NodeState::Ready, site.world.host.as_str())
    );
    let tls = node.description.clone().unwrap().tls.unwrap();
    assert_eq!(tls.issuer, site.world.credentials().unwrap().identity.issuer, "the certificate's");
    site.ask(address, &Heartbeat { session }).await.unwrap();
    cluster.managers.hub.kill(&site.world.host);
    sleep(A_WHILE).await;
    let beat = site.restarted().ask(address, &Heartbeat { session }).await.unwrap_err();
    assert_eq!(beat, crate::wire::CallError::Refused(Refusal::NoSession));
    assert_eq!(cluster.state(site.node), NodeState::Ready, "not for that");
}

#[tokio::test(start_paused = true)]
async fn after_changes_that_were_missed_removed_nodes_have_no_session() {
    let cluster = Cluster::with(2).await;
    let mut gone = Worker::begin(&cluster.dispatcher, 101).await;
    let mut there = Worker::begin(&cluster.dispatcher, 102).await;
    let mut store = cluster.leader.view(|view| ketch_cluster::store::Store::clone(view));
    store.apply(Version(u64::MAX), &[StoreAction::Remove(NodeId::of(101).into())]).unwrap();
    cluster.dispatcher.sessions.look(&store);
    assert!(!gone.settle().await);
    assert!(there.settle().await);
}

/// Two agents with a copy of one node's folder: one of them is in a session, and the other one is told; the agent that was started
/// again is none of two.
#[tokio::test(start_paused = true)]
async fn one_nodes_keys_on_two_machines_are_told_and_nothing_thrashes() {
    let cluster = Cluster::with(1).await;
    let begin = async |process: u128| {
        let asked = SessionAsked { process, ..asked(101) };
        Worker::begin_with(&cluster.dispatcher, identity(101), asked).await
    };
    let mut first = begin(1).await.unwrap();
    let mut again = begin(2).await.unwrap();
    assert!(!first.settle().await && again.settle().await, "it was started again");
    let mut copy = begin(3).await.unwrap();
    assert!(!again.settle().await && copy.settle().await);
    for _ in 0..3 {
        let refused = begin(2).await.map(|_| ()).unwrap_err();
        assert_eq!(refused, Refusal::Invalid(crate::dispatcher::texts::double(NodeId::of(101), "10.0.0.99")));
        assert!(copy.settle().await, "one of them goes on");
    }
    let mut same = begin(3).await.unwrap();
    assert!(!copy.settle().await && same.settle().await, "its connection was lost");
    // Once that one is gone, the other one is the node.
    drop(same);
    sleep(A_WHILE).await;
    let mut other = begin(2).await.unwrap();
    assert!(other.settle().await);
}
