//! A manager whose role changes while it can't follow.

use ketch_cluster::objects::node::NodeSpec;

use super::*;

const AWAY: &str = "10.0.0.3";

async fn give(leader: &Leader, id: NodeId, role: NodeRole) {
    let (version, spec) = leader.view(|view| {
        let node = view.node(id).unwrap();
        (node.meta.version, node.spec.clone())
    });
    leader.update_node(id, version, NodeSpec { role, ..spec }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_was_demoted_and_promoted_while_it_was_away_takes_part_again() {
    let (hub, _disk, first) = founded().await;
    let leader = leader(&first).await;
    let token = leader.view(|view| view.cluster().unwrap().root_ca.join_tokens.manager.clone());
    let mut others = Vec::new();
    for host in ["10.0.0.2", AWAY] {
        let node = node_at(host, Duration::ZERO, (&hub, &Arc::default()));
        node.join(order(host, &token)).await.unwrap();
        others.push(node);
    }
    let away = others[1].clone();
    let id = away.information().node.unwrap();
    let is_in_raft = || leader.view(|view| view.node(id).unwrap().manager.is_some());
    until("it is told of its place", &is_in_raft).await;

    hub.partition(&[AWAY], &[HOST, "10.0.0.2"]);
    give(&leader, id, NodeRole::Worker).await;
    until("raft goes on without it", || !is_in_raft()).await;
    give(&leader, id, NodeRole::Manager).await;
    sleep(Duration::from_secs(5)).await;
    hub.heal();
    until("raft has it again", &is_in_raft).await;
    let last = leader.view(|view| view.version());
    until("it knows what was done without it", || away.view(|store| store.version() >= last) == Some(true))
        .await;
    assert!(!leader.has_ended());
    for node in others.into_iter().chain([first]) {
        node.shutdown().await;
    }
}
