//! Who is let in, and who may call what.

use ketch_cluster::control::{ClusterUpdate, Force, NewSecrets, Rotate};
use ketch_cluster::objects::node::NodeRole;
use ketch_raft::Kind;

use crate::calls::{EnterAsked, JoinAsked, RenewAsked, raft_path};
use crate::fixture::{Managers, Site};
use crate::wire::{CallError, Destination, Refusal};
use crate::world::{DialError, Expected};

const FIRST: &str = "10.0.0.1:2377";

fn denied(error: CallError) -> String {
    match error {
        CallError::Refused(Refusal::Denied(text)) => text,
        error => panic!("{error:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_gives_its_role_and_the_node_is_in_the_store() {
    let mut managers = Managers::found().await;
    for role in [NodeRole::Worker, NodeRole::Manager] {
        let site = managers.join_site(role).await;
        assert_eq!(site.role, role);
        let node = managers.node(site.node).await.unwrap();
        assert_eq!((node.role, node.spec.role, node.manager.clone()), (role, role, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_or_rotated_token_lets_nobody_in() {
    let managers = Managers::found().await;
    let leader = managers.leader().await;
    let cluster = managers.cluster().await;
    let rotated = cluster.root_ca.join_tokens.worker.clone();
    let update = ClusterUpdate {
        version: cluster.meta.version,
        spec: cluster.spec.clone(),
        rotate: [Rotate::WorkerToken].into(),
        secrets: NewSecrets { worker_token: 5, manager_token: 6, unlock_key: [7; 32] },
    };
    leader.update_cluster(update).await.unwrap();
    for token in [rotated.as_str(), "SWMTKN-1-none", ""] {
        let refused = Site::join(&managers.hub, "10.0.0.9", FIRST, token).await.unwrap_err();
        assert_eq!(denied(refused), "A valid join token is necessary to join this cluster");
    }
    assert_eq!(leader.view(|view| view.nodes().count()), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_lets_in_and_others_say_who_that_is() {
    let managers = Managers::of(2).await;
    let token = managers.cluster().await.root_ca.join_tokens.worker.clone();
    let refused = Site::join(&managers.hub, "10.0.0.9", "10.0.0.2:2377", &token).await.unwrap_err();
    assert_eq!(refused.leader().flatten().unwrap().address, FIRST);
}

#[tokio::test(start_paused = true)]
async fn a_worker_makes_no_call_of_managers() {
    let mut managers = Managers::found().await;
    let worker = managers.join_site(NodeRole::Worker).await;
    let enter = EnterAsked { raft_id: 9, address: worker.address() };
    let refused = denied(worker.ask(FIRST, &enter).await.unwrap_err());
    assert_eq!(refused, "a manager's certificate is needed");
    let to = Destination::member(FIRST, Expected::Role(NodeRole::Manager));
    for kind in [Kind::Append, Kind::Vote, Kind::PreVote, Kind::Snapshot, Kind::Lead] {
        let sent = worker.links.send(&to, raft_path(kind), bytes::Bytes::new(), crate::fixture::SOON).await;
        assert_eq!(denied(sent.unwrap_err()), "a manager's certificate is needed");
    }
    assert_eq!(managers.seats[0].manager.members().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_gets_no_certificate_without_a_token_and_renews_none() {
    let managers = Managers::found().await;
    let world = crate::fixture::TestWorld::new(&managers.hub, "10.0.0.9");
    let links = crate::wire::Links::new(world);
    let to = Destination { address: FIRST.to_owned(), terms: crate::world::Terms::Unverified };
    let renew = RenewAsked { certificate_request: String::new() };
    let refused = links.ask(&to, &renew, crate::fixture::SOON).await.unwrap_err();
    assert_eq!(denied(refused), "a certificate of this cluster is needed");
    let enter = EnterAsked { raft_id: 9, address: "10.0.0.9:2377".to_owned() };
    denied(links.ask(&to, &enter, crate::fixture::SOON).await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_none_makes_no_node() {
    let managers = Managers::found().await;
    let cluster = managers.cluster().await;
    let links = crate::wire::Links::new(crate::fixture::TestWorld::new(&managers.hub, "10.0.0.9"));
    let to = Destination { address: FIRST.to_owned(), terms: crate::world::Terms::Unverified };
    let asked = JoinAsked {
        token: cluster.root_ca.join_tokens.worker.clone(),
        certificate_request: "none".to_owned(),
        availability: Default::default(),
    };
    let refused = links.ask(&to, &asked, crate::fixture::SOON).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(Refusal::Invalid(_))), "{refused:?}");
    assert_eq!(managers.leader().await.view(|view| view.nodes().count()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_is_shut_out() {
    let mut managers = Managers::found().await;
    let mut worker = managers.join_site(NodeRole::Worker).await;
    assert_eq!(worker.renew(FIRST).await.unwrap(), NodeRole::Worker);
    // A connection that is open stays open.
    let asked = RenewAsked { certificate_request: "none".to_owned() };
    worker.ask(FIRST, &asked).await.unwrap_err();
    managers.leader().await.remove_node(worker.node, Force::Yes).await.unwrap();
    let gone = format!("node {} was removed from this cluster", worker.node);
    assert_eq!(denied(worker.ask(FIRST, &asked).await.unwrap_err()), gone);
    worker.links.renew();
    let refused = worker.ask(FIRST, &asked).await.unwrap_err();
    assert!(matches!(refused, CallError::Dial(DialError::ShutOut { .. })), "{refused:?}");
    assert!(managers.node(worker.node).await.is_none());
}
