//! Nobody without a certificate of this cluster learns or changes anything: every call of the wire, by everyone who may not make
//! it.

use std::sync::Arc;
use std::time::Duration;

use ketch_ca::authority::{Authority, LEAST_LIFE};
use ketch_ca::identity::Identity;
use ketch_ca::key::NodeKey;
use ketch_ca::root::BACKDATE;
use ketch_cluster::control::Force;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::node::NodeRole;
use ketch_cluster::objects::{Cluster, Node};
use ketch_cluster::store::StoreAction;
use ketch_raft::Kind;

use crate::calls::{
    API, AttachAsked, EnterAsked, Heartbeat, JoinAsked, Leave, LogsTell, ReachAsked, RenewAsked, Request,
    RootAsked, SessionAsked, StreamRequest, Tell, TunnelAsked, TunnelRequest, UsesTell, raft_path,
};
use crate::fixture::{Managers, SOON, Site, TestWorld, objects};
use crate::manager::{Leader, Manager};
use crate::wire::{CallError, Destination, Links, Refusal};
use crate::world::{Caller, Credentials, DialError, Expected, Terms, Trust, World};

const TWIN: NodeId = NodeId::of(0x77);
const FIRST: &str = "10.0.0.1:2377";
const MANAGERS: &str = "a manager's certificate is needed";
const MEMBERS: &str = "a certificate of this cluster is needed";

/// Every call of the manager, but for the two of strangers.
fn paths() -> Vec<&'static str> {
    let raft = [Kind::Append, Kind::Vote, Kind::PreVote, Kind::Snapshot, Kind::Lead].map(raft_path);
    [RenewAsked::PATH, EnterAsked::PATH].into_iter().chain(raft).collect()
}

/// The dispatcher's, and those of users' requests, which the node answers: it looks at the caller's rights by the manager, first of all.
const NODES: [&str; 10] = [
    SessionAsked::PATH,
    AttachAsked::PATH,
    Heartbeat::PATH,
    Tell::PATH,
    UsesTell::PATH,
    LogsTell::PATH,
    TunnelAsked::PATH,
    Leave::PATH,
    ReachAsked::PATH,
    API,
];

async fn refused(links: &Links, to: &Destination, path: &str) -> CallError {
    let junk = bytes::Bytes::from_static(b"{}");
    links.send(to, path, junk, SOON).await.expect_err(path)
}

fn denied(error: CallError) -> String {
    match error {
        CallError::Refused(Refusal::Denied(text)) => text,
        error => panic!("{error:?}"),
    }
}

/// What stays as it is whoever asks.
async fn state(managers: &Managers) -> (usize, usize, ketch_cluster::objects::Version) {
    let leader = managers.leader().await;
    leader.view(|view| (view.nodes().count(), managers.seats[0].manager.members().len(), view.version()))
}

#[test]
fn none_is_forgotten() {
    for path in paths() {
        assert!(Manager::answers(path), "{path}");
    }
    for path in &NODES[..8] {
        assert!(crate::dispatcher::Dispatcher::answers(path), "{path}");
    }
    assert!(Manager::answers(RootAsked::PATH) && Manager::answers(JoinAsked::PATH), "those of strangers");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_makes_none_but_the_two_of_who_joins() {
    let managers = Managers::found().await;
    let before = state(&managers).await;
    let links = Links::new(TestWorld::new(&managers.hub, "10.0.0.9"));
    let to = Destination { address: FIRST.to_owned(), terms: Terms::Unverified };
    for path in paths() {
        assert_eq!(denied(refused(&links, &to, path).await), MEMBERS, "{path}");
    }
    let manager = &managers.seats[0].manager;
    assert!(matches!(manager.member(Caller::Stranger), Err(Refusal::Denied(_))), "the dispatcher's calls");
    assert!(matches!(manager.manager(Caller::Stranger), Err(Refusal::Denied(_))), "the API");
    assert_eq!(state(&managers).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_worker_makes_none_of_managers() {
    let mut managers = Managers::found().await;
    let worker = managers.join_site(NodeRole::Worker).await;
    let before = state(&managers).await;
    let to = Destination::member(FIRST, Expected::Role(NodeRole::Manager));
    for path in paths().into_iter().filter(|path| *path != RenewAsked::PATH) {
        assert_eq!(denied(refused(&worker.links, &to, path).await), MANAGERS, "{path}");
    }
    let identity = worker.world.credentials().unwrap().identity;
    let api = managers.seats[0].manager.manager(Caller::Member(identity)).unwrap_err();
    assert_eq!(api, Refusal::Denied(MANAGERS.to_owned()), "the API");
    assert_eq!(state(&managers).await, before);
}

/// Another cluster's manager, of the same names: not even a connection.
#[tokio::test(start_paused = true)]
async fn a_foreign_certificate_gets_no_connection() {
    let managers = Managers::found().await;
    let before = state(&managers).await;
    let (foreign, _) = Site::founder(&managers.hub, "10.0.0.9");
    // It believes whom it asks, so that only the other side can refuse.
    let own = foreign.world.credentials().unwrap();
    let ours = managers.seats[0].site.world.credentials().unwrap();
    foreign.world.adopt(Credentials { trust: Arc::clone(&ours.trust), ..own });
    everything_is_distrusted(&foreign.links).await;
    assert_eq!(state(&managers).await, before);
}

async fn everything_is_distrusted(links: &Links) {
    nothing_is_dialled(links, |error| matches!(error, DialError::Distrust { .. })).await;
}

/// No path gets a connection, for that reason.
async fn nothing_is_dialled(links: &Links, is_why: impl Fn(&DialError) -> bool) {
    let to = Destination::member(FIRST, Expected::Role(NodeRole::Manager));
    for path in paths().into_iter().chain(NODES) {
        let error = refused(links, &to, path).await;
        assert!(matches!(&error, CallError::Dial(error) if is_why(error)), "{path}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_gets_no_connection_and_loses_the_one_it_has() {
    let managers = Managers::found().await;
    let site = twin(&managers, LEAST_LIFE).await;
    let identity = site.world.credentials().unwrap().identity;
    let junk = RenewAsked { certificate_request: "none".to_owned() };
    let known = site.ask(FIRST, &junk).await.unwrap_err();
    assert!(matches!(known, CallError::Refused(_)), "{known:?}");

    managers.hub.skip(LEAST_LIFE + Duration::from_secs(1));
    let late = managers.seats[0].manager.member(Caller::Member(identity)).unwrap_err();
    // No denial: a worker would take that for its removal, and end its tasks.
    let Refusal::Unavailable(text) = late else { panic!("{late:?}") };
    assert_eq!(text, format!("the certificate of node {} has expired", identity.node));
    site.links.renew();
    everything_is_distrusted(&site.links).await;
}

/// A node with a manager's certificate that holds for so long, which is not in the store.
async fn twin(managers: &Managers, life: Duration) -> Site {
    let (site, _) = Site::founder(&managers.hub, "10.0.0.9");
    let mut cluster = Cluster::clone(&*managers.cluster().await);
    cluster.spec.ca.node_certificate_expiry = life;
    let key = NodeKey::generate().unwrap();
    let named = (TWIN, NodeRole::Manager);
    let request = key.request().unwrap();
    let chain = Authority::of(&cluster).unwrap().issue(&request, named, site.world.now()).unwrap();
    let identity = Identity::of_chain(&chain).unwrap();
    let trust = Arc::new(Trust::of(&cluster).unwrap());
    site.world.adopt(Credentials { identity, chain, key: Arc::new(key), trust });
    site
}

#[tokio::test(start_paused = true)]
async fn a_removed_managers_certificate_makes_none() {
    let mut managers = Managers::found().await;
    let gone = managers.join_site(NodeRole::Manager).await;
    managers.leader().await.remove_node(gone.node, Force::Yes).await.unwrap();
    let before = state(&managers).await;
    nothing_is_dialled(&gone.links, |error| matches!(error, DialError::ShutOut { .. })).await;
    let identity = gone.world.credentials().unwrap().identity;
    assert!(matches!(managers.seats[0].manager.member(Caller::Member(identity)), Err(Refusal::Denied(_))));
    assert_eq!(state(&managers).await, before);
}

#[tokio::test(start_paused = true)]
async fn the_certificate_of_before_a_demotion_is_of_no_use_in_raft() {
    let managers = Managers::found().await;
    let life = managers.cluster().await.spec.ca.node_certificate_expiry;
    let old = twin(&managers, life).await;
    let to = Destination::member(FIRST, Expected::Role(NodeRole::Manager));
    let vote = format!("{}?to=1", raft_path(Kind::Vote));
    let leader = managers.leader().await;
    write_worker(&leader).await;
    // Its certificate was signed just before: perhaps after, by another leader's clock.
    let error = refused(&old.links, &to, &vote).await;
    assert!(!matches!(error, CallError::Refused(Refusal::Denied(_))), "{error:?}");
    managers.hub.skip(BACKDATE + Duration::from_secs(60));
    write_worker(&leader).await;
    let text = denied(refused(&old.links, &to, &vote).await);
    assert_eq!(text, format!("node {TWIN} is no manager any more"));
    // Promoted again, which this manager may not know yet, it has another one.
    let new = twin(&managers, life).await;
    let error = refused(&new.links, &to, &vote).await;
    assert!(!matches!(error, CallError::Refused(Refusal::Denied(_))), "{error:?}");
}

/// The node is a worker as of now.
async fn write_worker(leader: &Leader) {
    let written = leader.change::<_, ()>(|view, now, _| {
        let known = view.node(TWIN).map(|node| Node::clone(node));
        let mut node = known.clone().unwrap_or_else(|| Node { id: TWIN, ..objects::node(1) });
        node.meta.updated_at = now;
        let object = node.into();
        let action = if known.is_some() { StoreAction::Update(object) } else { StoreAction::Create(object) };
        Ok(((), vec![action]))
    });
    written.await.unwrap();
}
