//! Several managers in one process.

use std::time::Duration;

use ketch_cluster::control::create_service;
use ketch_cluster::objects::node::{NodeRole, NodeState};
use ketch_cluster::store::StoreAction;
use tokio::time::Instant;

use crate::fixture::{Managers, objects, until};

#[tokio::test(start_paused = true)]
async fn a_founded_cluster_has_its_manager_and_its_networks() {
    let managers = Managers::found().await;
    let leader = managers.leader().await;
    let own = managers.node(managers.seats[0].site.node).await.unwrap();
    assert_eq!((own.role, own.spec.role), (NodeRole::Manager, NodeRole::Manager));
    assert_eq!(own.status.state, NodeState::Ready);
    assert_eq!(own.manager.as_ref().unwrap().address, "10.0.0.1:2377");
    let names: Vec<_> = leader.view(|view| view.networks().map(|it| it.spec.name.clone()).collect());
    assert_eq!(names.len(), 3, "{names:?}");
    until("the ingress network has its subnet", || {
        leader.view(|view| view.networks().any(|it| it.is_ingress() && it.allocation.is_some()))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn three_managers_by_token_and_the_next_leader_within_three_seconds() {
    let managers = Managers::of(3).await;
    assert_eq!(managers.seats[0].manager.members().len(), 3);
    let first = managers.leading().await;
    let killed = Instant::now();
    managers.kill(first).await;
    let leader = managers.leader().await;
    println!("next leader after {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(3), "{:?}", killed.elapsed());
    leader
        .change(|_, _, _| Ok::<_, ()>(((), vec![StoreAction::Create(objects::node(77).into())])))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_becomes_tasks_on_nodes() {
    let managers = Managers::of(3).await;
    let leader = managers.leader().await;
    let id = leader
        .change(|view, now, bits| create_service(view, objects::replicated("web", 5), now, bits))
        .await
        .unwrap();
    until("five tasks have a node", || {
        leader.view(|view| view.tasks_of(id).filter(|task| task.node.is_some()).count() == 5)
    })
    .await;
}
