//! Who may reach containers of other nodes: managers, by the leader; a worker never.

use ketch_cluster::objects::node::NodeState;
use tokio::io::AsyncReadExt;

use super::*;
use crate::calls::{ReachAsked, Target, TunnelAsked};
use crate::wire::{CallError, Destination};
use crate::world::Expected;

async fn joined(hub: &Arc<Hub>, host: &str, token: String) -> Arc<Node> {
    let node = node_at(host, Duration::ZERO, (hub, &Arc::default()));
    let order = JoinOrder {
        listen: format!("{host}:2377"),
        advertise: format!("{host}:2377"),
        advertised: Advertised::Given,
        data_address: None,
        managers: vec![format!("{HOST}:2377")],
        token,
        availability: Availability::Active,
    };
    node.join(order).await.unwrap();
    node
}

/// The founder, which leads, another manager, and a worker that is in a session.
async fn three() -> [Arc<Node>; 3] {
    let (hub, _disk, first) = founded().await;
    let leader = leader(&first).await;
    let tokens = leader.view(|view| view.cluster().unwrap().root_ca.join_tokens.clone());
    let second = joined(&hub, "10.0.0.2", tokens.manager).await;
    let worker = joined(&hub, "10.0.0.3", tokens.worker).await;
    let id = worker.information().node.unwrap();
    until("it is ready", || {
        let state = leader.view(|view| view.node(id).map(|node| node.status.state));
        state == Some(NodeState::Ready)
    })
    .await;
    [first, second, worker]
}

#[tokio::test(start_paused = true)]
async fn each_manager_may_and_a_worker_may_not() {
    let [first, second, worker] = three().await;
    let id = worker.information().node.unwrap();
    for manager in [&first, &second] {
        let mut tunnel = manager.reach(Target::Node(id)).await.unwrap();
        let mut all = Vec::new();
        tunnel.read_to_end(&mut all).await.unwrap();
        assert!(all.is_empty(), "its engine says nothing: {all:?}");
        let none = manager.reach(Target::Container("web.1.x".to_owned())).await.unwrap_err();
        assert!(matches!(none, ReachError::NotFound(_)), "{none}");
        assert_eq!(none.to_string(), "No such container: web.1.x");
    }
    assert!(matches!(worker.reach(Target::Node(id)).await, Err(ReachError::NoLeader(NodeError::Worker))));

    // Nor by the call that managers make of each other, nor by a tunnel that nobody has asked it for.
    let leader = Expected::Node(first.information().node.unwrap());
    let to = Destination::member(format!("{HOST}:2377"), leader);
    let links = worker.links().unwrap();
    let within = Duration::from_secs(5);
    for target in [Target::Node(id), Target::Container("a".to_owned())] {
        let error = links.tunnel(&to, &ReachAsked { target }, within).await.unwrap_err();
        let denied = Refusal::Denied("a manager's certificate is needed".to_owned());
        assert_eq!(error, CallError::Refused(denied));
    }
    let error = links.tunnel(&to, &TunnelAsked { session: 1, tunnel: 2 }, within).await.unwrap_err();
    assert_eq!(error, CallError::Refused(Refusal::NoSession));
    for node in [first, second, worker] {
        node.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_away_is_told_by_its_name() {
    let [first, second, worker] = three().await;
    let id = worker.information().node.unwrap();
    worker.shutdown().await;
    until("the leader misses it", || {
        first.view(|store| store.node(id).unwrap().status.state) == Some(NodeState::Down)
    })
    .await;
    for manager in [&first, &second] {
        let error = manager.reach(Target::Node(id)).await.unwrap_err();
        assert!(matches!(error, ReachError::Unavailable(_)), "{error}");
        assert_eq!(error.to_string(), "node node is not available: no manager hears from it");
    }
    first.shutdown().await;
    second.shutdown().await;
}
