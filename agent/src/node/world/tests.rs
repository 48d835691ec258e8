//! Nodes over the loopback, with certificates of a real authority: who reaches whom, and why not.

use std::collections::BTreeMap;
use std::time::Duration;

use ketch_ca::authority::Authority;
use ketch_ca::identity::Identity;
use ketch_ca::key::NodeKey;
use ketch_ca::root::Root;
use ketch_ca::trust::Trust;
use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::cluster::{ClusterNetworking, RootCa};
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::objects::{Cluster, ClusterSpec, Meta};
use ketch_node::calls::{RootAsked, Roots};
use ketch_node::wire::{Answer, Call, Destination, Links, Refusal, Service, serve};
use ketch_node::world::{Accepted, Caller, Expected};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::scratch;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MANAGER: Expected = Expected::Role(NodeRole::Manager);

fn cluster(id: u128) -> Cluster {
    let made = Timestamp(now().0 - nanos(400 * DAY));
    let root = Root::create(made).unwrap();
    Cluster {
        id: ClusterId::of(id),
        meta: Meta::new(made),
        spec: ClusterSpec::default(),
        networking: ClusterNetworking::default(),
        root_ca: RootCa { certificate: root.certificate, key: root.key, ..RootCa::default() },
        shut_out: BTreeMap::new(),
        unlock_key: None,
        data_keys: Vec::new(),
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap()
}

/// What a node has that was let in then.
fn credentials(cluster: &Cluster, id: u128, role: NodeRole, then: Timestamp) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let authority = Authority::of(cluster).unwrap();
    let chain = authority.issue(&key.request().unwrap(), (NodeId::of(id), role), then).unwrap();
    let identity = Identity::of_chain(&chain).unwrap();
    Credentials { identity, chain, key: Arc::new(key), trust: Arc::new(Trust::of(cluster).unwrap()) }
}

struct Node {
    world: SystemWorld,
    _folder: scratch::Folder,
}

impl Node {
    /// Without a certificate.
    fn bare() -> Self {
        let folder = scratch::Folder::new("world");
        Self { world: SystemWorld::new(folder.path()), _folder: folder }
    }

    fn new(cluster: &Cluster, id: u128, role: NodeRole) -> Self {
        let node = Self::bare();
        node.world.adopt(credentials(cluster, id, role, now()));
        node
    }

    /// Listens, says a word to everybody who comes, and hands out who it was.
    async fn serve(&self) -> (String, tokio::sync::mpsc::Receiver<Accepted>) {
        let mut listener = self.world.listen("127.0.0.1:0").await.unwrap();
        let address = listener.address();
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            while let Ok(mut accepted) = listener.accept().await {
                accepted.stream.write_all(b"word").await.unwrap();
                accepted.stream.flush().await.unwrap();
                if sender.send(accepted).await.is_err() {
                    break;
                }
            }
        });
        (address, receiver)
    }

    async fn dial(&self, address: &str, terms: Terms) -> Result<Box<dyn Stream>, DialError> {
        timeout(Duration::from_secs(20), self.world.dial(address, terms)).await.unwrap()
    }

    async fn distrusted(&self, address: &str, terms: Terms) -> String {
        match self.dial(address, terms).await {
            Err(DialError::Distrust { reason, .. }) => reason,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it was let in"),
        }
    }
}

#[tokio::test]
async fn members_know_each_other_and_bytes_go_both_ways() {
    let cluster = cluster(1);
    let (manager, worker) =
        (Node::new(&cluster, 1, NodeRole::Manager), Node::new(&cluster, 2, NodeRole::Worker));
    let (address, mut accepted) = manager.serve().await;
    for expected in [MANAGER, Expected::Node(NodeId::of(1))] {
        let mut there = worker.dial(&address, Terms::Member(expected)).await.unwrap();
        let mut here = accepted.recv().await.unwrap();
        let Caller::Member(caller) = here.caller else { panic!("a stranger") };
        assert_eq!(
            (caller.node, caller.role, here.address.as_str()),
            (NodeId::of(2), NodeRole::Worker, "127.0.0.1")
        );
        there.write_all(b"answer").await.unwrap();
        there.flush().await.unwrap();
        let (mut word, mut answer) = ([0; 4], [0; 6]);
        there.read_exact(&mut word).await.unwrap();
        here.stream.read_exact(&mut answer).await.unwrap();
        assert_eq!((&word, &answer), (b"word", b"answer"));
    }
    let reason = worker.distrusted(&address, Terms::Member(Expected::Node(NodeId::of(3)))).await;
    assert!(reason.starts_with("the peer is node"), "{reason}");
}

struct Answers;

impl Service for Answers {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        std::future::ready(Answer::of(&Roots { roots: format!("{:?}", call.caller), now: None })).boxed()
    }
}

/// A manager whose log has stopped listens anew in the moment in which it has ended, beside what listens elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_no_more_leaves_the_address_to_the_next() {
    let node = Node::new(&cluster(1), 1, NodeRole::Manager);
    let _of_layers = node.world.listen("127.0.0.1:0").await.unwrap();
    let mut address = "127.0.0.1:0".to_owned();
    for turn in 0..200 {
        let listener = node.world.listen(&address).await.unwrap_or_else(|error| panic!("{turn}: {error}"));
        address = listener.address();
    }
}

/// A dial waits for the server's first word, which the server of calls says unasked.
#[tokio::test]
async fn calls_are_made_and_answered() {
    let cluster = cluster(1);
    let manager = Node::new(&cluster, 1, NodeRole::Manager);
    let mut listener = manager.world.listen("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    tokio::spawn(async move {
        while let Ok(accepted) = listener.accept().await {
            tokio::spawn(serve(accepted, Arc::new(Answers)));
        }
    });
    let links = Links::new(Arc::new(Node::new(&cluster, 2, NodeRole::Worker).world));
    let member = Destination::member(&*address, MANAGER);
    let stranger = Destination { terms: Terms::Unverified, ..member.clone() };
    for (to, wanted) in [(member, "Member"), (stranger, "Stranger")] {
        let answer = links.ask(&to, &RootAsked {}, Duration::from_secs(5)).await.unwrap();
        assert!(answer.roots.starts_with(wanted), "{}", answer.roots);
    }
}

#[tokio::test]
async fn a_stranger_is_let_in_to_join() {
    let cluster = cluster(1);
    let (manager, joiner) = (Node::new(&cluster, 1, NodeRole::Manager), Node::bare());
    let (address, mut accepted) = manager.serve().await;
    let roots = Trust::in_roots(&cluster.root_ca.certificate).unwrap();
    for terms in [Terms::Unverified, Terms::Joining(Arc::new(roots))] {
        joiner.dial(&address, terms).await.unwrap();
        assert_eq!(accepted.recv().await.unwrap().caller, Caller::Stranger);
    }
    let reason = joiner.distrusted(&address, Terms::Member(MANAGER)).await;
    assert_eq!(reason, "this node has no certificate");
}

#[tokio::test]
async fn another_clusters_node_is_refused_by_both() {
    let (cluster, other) = (cluster(1), cluster(2));
    let (manager, foreign) = (Node::new(&cluster, 1, NodeRole::Manager), Node::bare());
    let (address, _accepted) = manager.serve().await;
    let shown = credentials(&other, 2, NodeRole::Worker, now());
    foreign.world.adopt(shown.clone());
    let reason = foreign.distrusted(&address, Terms::Member(MANAGER)).await;
    assert!(reason.starts_with("the peer's certificate is of another cluster"), "{reason}");
    foreign.world.adopt(Credentials { trust: Arc::new(Trust::of(&cluster).unwrap()), ..shown });
    let reason = foreign.distrusted(&address, Terms::Member(MANAGER)).await;
    assert!(reason.contains("UnknownCA"), "{reason}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_both() {
    let cluster = cluster(1);
    let late = |id, role| {
        let node = Node::bare();
        node.world.adopt(credentials(&cluster, id, role, Timestamp(now().0 - nanos(91 * DAY))));
        node
    };
    let (address, _accepted) = Node::new(&cluster, 1, NodeRole::Manager).serve().await;
    let reason = late(2, NodeRole::Worker).distrusted(&address, Terms::Member(MANAGER)).await;
    assert!(reason.contains("CertificateExpired"), "{reason}");
    let (address, _accepted) = late(3, NodeRole::Manager).serve().await;
    let reason = Node::new(&cluster, 4, NodeRole::Worker).distrusted(&address, Terms::Member(MANAGER)).await;
    assert!(reason.starts_with("the peer's certificate expired"), "{reason}");
}

#[tokio::test]
async fn a_removed_node_is_shut_out_from_the_next_connection_on() {
    let mut cluster = cluster(1);
    let (manager, worker) = (Node::bare(), Node::new(&cluster, 2, NodeRole::Worker));
    let own = credentials(&cluster, 1, NodeRole::Manager, now());
    manager.world.adopt(own.clone());
    let (address, mut accepted) = manager.serve().await;
    let mut open = worker.dial(&address, Terms::Member(MANAGER)).await.unwrap();
    cluster.shut_out.insert(NodeId::of(2), now().after(DAY));
    manager.world.adopt(Credentials { trust: Arc::new(Trust::of(&cluster).unwrap()), ..own });
    let refused = worker.dial(&address, Terms::Member(MANAGER)).await;
    assert!(matches!(refused, Err(DialError::ShutOut { .. })), "it learns why: {:?}", refused.err());
    let mut word = [0; 4];
    open.read_exact(&mut word).await.unwrap();
    assert!(accepted.recv().await.is_some(), "the first one goes on");
    assert!(accepted.try_recv().is_err(), "the second one never came");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_not_adopted() {
    let cluster = cluster(1);
    let (manager, worker) =
        (Node::new(&cluster, 1, NodeRole::Manager), Node::new(&cluster, 2, NodeRole::Worker));
    let stolen = credentials(&cluster, 3, NodeRole::Manager, now());
    manager.world.adopt(Credentials { key: Arc::new(NodeKey::generate().unwrap()), ..stolen });
    let (address, _accepted) = manager.serve().await;
    worker.dial(&address, Terms::Member(Expected::Node(NodeId::of(1)))).await.unwrap();
}

#[tokio::test]
async fn what_speaks_no_tls_is_foreign_and_what_does_not_listen_is_unreachable() {
    let worker = Node::new(&cluster(1), 2, NodeRole::Worker);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = [0; 64];
        socket.read_exact(&mut asked).await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        socket.shutdown().await.unwrap();
        // Until the other end is done: what was not read would be answered by a reset.
        let _read = socket.read_to_end(&mut Vec::new()).await;
    });
    let foreign = worker.dial(&address, Terms::Member(MANAGER)).await;
    assert!(matches!(foreign, Err(DialError::Foreign { .. })), "{:?}", foreign.err());
    server.await.unwrap();
    let refused = worker.dial(&address, Terms::Member(MANAGER)).await;
    assert!(matches!(refused, Err(DialError::Unreachable { .. })), "{:?}", refused.err());
}

#[tokio::test]
async fn who_only_opens_connections_keeps_nobody_else_out() {
    let cluster = cluster(1);
    let (manager, worker) =
        (Node::new(&cluster, 1, NodeRole::Manager), Node::new(&cluster, 2, NodeRole::Worker));
    let (address, mut accepted) = manager.serve().await;
    let port = address.rsplit_once(':').unwrap().1;
    let mut silent = Vec::new();
    for _ in 0..70 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    let from_there = worker.dial(&address, Terms::Member(MANAGER)).await;
    assert!(matches!(from_there, Err(DialError::Unreachable { .. })), "64 of one address");
    drop(silent);
    let dialled = async {
        while worker.dial(&format!("127.0.0.1:{port}"), Terms::Member(MANAGER)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), dialled).await.unwrap();
    assert!(matches!(accepted.recv().await.unwrap().caller, Caller::Member(_)));
}

#[test]
fn bits_are_drawn_anew() {
    let node = Node::bare();
    assert_ne!(node.world.bits(), node.world.bits());
    assert!(node.world.now().0 > 1_700_000_000_000_000_000);
}
