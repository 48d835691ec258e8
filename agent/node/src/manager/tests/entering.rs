//! How managers get into raft.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::node::NodeRole;
use ketch_raft::Start;
use tokio::time::sleep;

use super::add_node;
use crate::calls::{EnterAsked, ManagerAddress, Request};
use crate::fixture::{Managers, SOON, parts, until};
use crate::manager::{Manager, ManagerError};
use crate::wire::{Answer, Call, CallError, Destination, Refusal, Service};
use crate::world::Disk as _;

#[tokio::test(start_paused = true)]
async fn five_managers_are_in_raft_and_in_the_store() {
    let managers = Managers::of(5).await;
    assert_eq!(managers.seats[0].manager.members().len(), 5);
    let leader = managers.leader().await;
    for seat in &managers.seats {
        let node = managers.node(seat.site.node).await.unwrap();
        assert_eq!(node.role, NodeRole::Manager);
        let place = node.manager.clone().unwrap();
        assert_eq!((place.raft_id, place.address), (seat.manager.me().raft_id, seat.site.address()));
    }
    add_node(&leader, 77).await.unwrap();
}

/// The voters that have just come are no reason to refuse the next one, nor a change.
#[tokio::test(start_paused = true)]
async fn a_change_right_after_a_manager_has_come_is_made() {
    let mut managers = Managers::found().await;
    for number in 0..2 {
        // The leader was alone for a while, or with managers that had nothing to do.
        sleep(Duration::from_secs(5)).await;
        for second in 0..2 {
            let site = managers.join_site(NodeRole::Manager).await;
            let asked = EnterAsked { raft_id: 10 * number + second + 2, address: site.address() };
            let place = managers.open(site, asked.raft_id).await;
            managers.seats[place].site.ask("10.0.0.1:2377", &asked).await.unwrap();
            add_node(&*managers.leader().await, u128::from(1000 + asked.raft_id)).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_does_not_lead_names_the_one_that_does() {
    let mut managers = Managers::of(2).await;
    let site = managers.join_site(NodeRole::Manager).await;
    let asked = EnterAsked { raft_id: 9, address: site.address() };
    let refused = site.ask("10.0.0.2:2377", &asked).await.unwrap_err();
    assert_eq!(refused.leader().flatten().unwrap().address, "10.0.0.1:2377");
    let place = managers.enter_by(site, "10.0.0.2:2377").await.unwrap();
    assert_eq!(managers.seats[place].manager.peers().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn asking_again_changes_nothing() {
    let managers = Managers::of(3).await;
    let before = managers.seats[1].manager.peers();
    managers.seats[1].manager.enter(&ManagerAddress::nameless("10.0.0.1:2377".to_owned())).await.unwrap();
    assert_eq!(managers.seats[1].manager.peers().len(), before.len());
    assert_eq!(managers.seats[0].manager.members().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_has_moved_is_found_at_its_next_address() {
    let managers = Managers::of(3).await;
    let seat = &managers.seats[2];
    let raft_id = seat.manager.me().raft_id;
    let asked = EnterAsked { raft_id, address: "10.0.0.30:2377".to_owned() };
    seat.site.ask("10.0.0.1:2377", &asked).await.unwrap();
    let node = managers.node(seat.site.node).await.unwrap();
    assert_eq!(node.manager.as_ref().unwrap().address, "10.0.0.30:2377");
    let peers = managers.seats[0].manager.peers();
    assert!(peers.iter().any(|it| it.peer.address == "10.0.0.30:2377" && it.is_voter));
}

#[tokio::test(start_paused = true)]
async fn a_manager_with_a_new_disk_takes_the_place_of_its_old_self() {
    let mut managers = Managers::of(3).await;
    managers.kill(2).await;
    managers.seats[2].site.world.disk.wipe().unwrap();
    let site = managers.seats[2].site.restarted();
    let node = site.node;
    let place = managers.enter(site).await;
    let own = managers.seats[place].manager.me().clone();
    let members = managers.seats[0].manager.peers();
    let of_node: Vec<_> = members.iter().filter(|it| it.peer.node == node).collect();
    assert_eq!(of_node.len(), 1, "{members:?}");
    assert_eq!(of_node[0].peer, own);
    assert_eq!(managers.node(node).await.unwrap().manager.as_ref().unwrap().raft_id, own.raft_id);
}

#[tokio::test(start_paused = true)]
async fn the_raft_id_of_another_and_no_address_are_refused() {
    let mut managers = Managers::of(2).await;
    let site = managers.join_site(NodeRole::Manager).await;
    let taken = EnterAsked { raft_id: 1, address: site.address() };
    let refused = site.ask("10.0.0.1:2377", &taken).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(Refusal::Denied(_))), "{refused:?}");
    let nowhere = EnterAsked { raft_id: 9, address: ":2377".to_owned() };
    let refused = site.ask("10.0.0.1:2377", &nowhere).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused(Refusal::Invalid(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_to_be_no_manager_is_told_so_and_asks_no_more() {
    let mut managers = Managers::of(2).await;
    let site = managers.join_site(NodeRole::Manager).await;
    let leader = managers.leader().await;
    let node = managers.node(site.node).await.unwrap();
    let mut demoted = ketch_cluster::objects::Node::clone(&node);
    demoted.spec.role = NodeRole::Worker;
    let write = ketch_cluster::store::StoreAction::Update(demoted.into());
    leader.change::<_, ()>(|_, _, _| Ok(((), vec![write]))).await.unwrap();
    let refused = managers.enter_by(site, "10.0.0.1:2377").await.unwrap_err();
    assert!(matches!(refused, ManagerError::Denied(_)), "{refused:?}");
    until("its role is a worker's", || {
        leader.view(|view| view.node(node.id).unwrap().role == NodeRole::Worker)
    })
    .await;
}

/// A node may have a manager's certificate and be none any more: it is not asked in another one's place, nor obeyed.
#[tokio::test(start_paused = true)]
async fn a_manager_that_is_known_by_its_id_is_no_other_one() {
    let managers = Managers::of(2).await;
    let site = &managers.seats[1].site;
    let first = managers.seats[0].site.node;
    let asked = EnterAsked { raft_id: managers.seats[1].manager.me().raft_id, address: site.address() };
    for (node, is_believed) in [(first, true), (NodeId::of(0), true), (NodeId::of(9), false)] {
        let at = ManagerAddress { node, address: "10.0.0.1:2377".to_owned() };
        let answer = site.links.ask(&Destination::manager(&at), &asked, SOON).await;
        assert_eq!(answer.is_ok(), is_believed, "{node}: {answer:?}");
    }
}

/// Asked in turn without a rest, two that name each other would be asked thousands of times.
#[tokio::test(start_paused = true)]
async fn managers_that_name_each_other_are_asked_with_rests() {
    let mut managers = Managers::of(2).await;
    let site = managers.join_site(NodeRole::Manager).await;
    let asked = Arc::new(AtomicU64::new(0));
    for (host, place) in [("10.0.0.1", 1), ("10.0.0.2", 0)] {
        let other = &managers.seats[place].site;
        let names = (other.node, other.address());
        managers.hub.kill(host);
        let _ = managers.seats[1 - place].site.serve(Arc::new(Elsewhere(names, Arc::clone(&asked)))).await;
    }
    let manager = Manager::open(parts(&site, 9), Start::Resume).await.unwrap();
    let first = ManagerAddress::nameless("10.0.0.1:2377".to_owned());
    drop(tokio::time::timeout(Duration::from_secs(30), manager.enter(&first)).await);
    let asked = asked.load(Ordering::Relaxed);
    assert!((20..200).contains(&asked), "{asked} times in 30 s");
}

/// Somebody else leads, it says.
struct Elsewhere((NodeId, String), Arc<AtomicU64>);

impl Service for Elsewhere {
    fn answer(&self, call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        if call.path() == EnterAsked::PATH {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        let leader = Some(self.0.clone());
        async { Err(Refusal::NotLeader { leader }) }.boxed()
    }
}
