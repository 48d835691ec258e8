//! Promoted, demoted, drained.

use std::time::Duration;

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::NodeSpec;
use ketch_cluster::objects::node::{Availability, NodeRole};
use tokio::time::{Instant, sleep};

use super::add_node;
use crate::fixture::{Managers, until};

async fn update(managers: &Managers, id: NodeId, change: impl FnOnce(&mut NodeSpec)) -> Result<(), String> {
    let node = managers.node(id).await.unwrap();
    let mut spec = node.spec.clone();
    change(&mut spec);
    let updated = managers.leader().await.update_node(id, node.meta.version, spec).await;
    updated.map_err(|error| error.to_string())
}

async fn set_role(managers: &Managers, id: NodeId, role: NodeRole) -> Result<(), String> {
    update(managers, id, |spec| spec.role = role).await
}

fn role_of(managers: &Managers, id: NodeId) -> Option<(NodeRole, bool)> {
    let leader = managers.seats.iter().find_map(|seat| seat.manager.leader())?;
    leader.view(|view| view.node(id).map(|node| (node.role, node.manager.is_some())))
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_promoted_and_demoted_again() {
    let mut managers = Managers::of(2).await;
    let mut site = managers.join_site(NodeRole::Worker).await;
    let id = site.node;
    set_role(&managers, id, NodeRole::Manager).await.unwrap();
    assert_eq!(role_of(&managers, id), Some((NodeRole::Worker, false)), "until raft has let it in");
    assert_eq!(site.renew("10.0.0.1:2377").await.unwrap(), NodeRole::Manager);
    let place = managers.enter(site).await;
    assert_eq!(role_of(&managers, id), Some((NodeRole::Manager, true)));
    assert_eq!(managers.seats[0].manager.members().len(), 3);

    set_role(&managers, id, NodeRole::Worker).await.unwrap();
    until("it is a worker", || role_of(&managers, id) == Some((NodeRole::Worker, false))).await;
    assert_eq!(managers.seats[0].manager.peers().len(), 2);
    assert_eq!(managers.seats[place].site.renew("10.0.0.1:2377").await.unwrap(), NodeRole::Worker);
    add_node(&*managers.leader().await, 77).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_demoted_hands_over_and_leaves() {
    let managers = Managers::of(3).await;
    let first = managers.leader().await;
    let place = managers.leading().await;
    let id = managers.seats[place].site.node;
    let asked = Instant::now();
    set_role(&managers, id, NodeRole::Worker).await.unwrap();
    first.ended().await;
    until("it is a worker", || role_of(&managers, id) == Some((NodeRole::Worker, false))).await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let next = managers.leader().await;
    add_node(&next, 77).await.unwrap();
    let next = managers.leading().await;
    assert_ne!(next, place);
    assert_eq!(managers.seats[next].manager.peers().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_manager_stays_one() {
    let managers = Managers::found().await;
    let refused = set_role(&managers, managers.seats[0].site.node, NodeRole::Worker).await.unwrap_err();
    assert_eq!(
        refused,
        "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_is_demoted_at_the_cost_of_the_quorum() {
    let managers = Managers::of(3).await;
    let first = managers.leading().await;
    let (dead, alive) = ((first + 1) % 3, (first + 2) % 3);
    managers.kill(dead).await;
    sleep(Duration::from_secs(5)).await;
    let refused = set_role(&managers, managers.seats[alive].site.node, NodeRole::Worker).await.unwrap_err();
    assert!(refused.ends_with("this would result in a loss of quorum"), "{refused}");
    set_role(&managers, managers.seats[dead].site.node, NodeRole::Worker).await.unwrap();
    let id = managers.seats[dead].site.node;
    until("the dead one is out", || role_of(&managers, id) == Some((NodeRole::Worker, false))).await;
    assert_eq!(managers.seats[first].manager.peers().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_demotion_whose_leader_dies_is_finished_by_the_next() {
    let managers = Managers::of(5).await;
    let first = managers.leading().await;
    let id = managers.seats[(first + 1) % 5].site.node;
    set_role(&managers, id, NodeRole::Worker).await.unwrap();
    managers.kill(first).await;
    until("it is a worker", || role_of(&managers, id) == Some((NodeRole::Worker, false))).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_drained_hands_over_once() {
    let managers = Managers::of(3).await;
    let first = managers.leader().await;
    let place = managers.leading().await;
    let id = managers.seats[place].site.node;
    update(&managers, id, |spec| spec.availability = Availability::Drain).await.unwrap();
    first.ended().await;
    let next = managers.leader().await;
    assert_ne!(managers.leading().await, place);
    for seat in &managers.seats {
        let _ = update(&managers, seat.site.node, |spec| spec.availability = Availability::Drain).await;
    }
    sleep(Duration::from_secs(30)).await;
    let last = managers.leader().await;
    sleep(Duration::from_secs(30)).await;
    assert!(!last.has_ended(), "when all are drained, who leads goes on");
    drop(next);
}
