//! What a leader is and does.

use std::time::Duration;

use futures_util::future::join_all;
use ketch_cluster::control::create_service;
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::TaskState;
use ketch_cluster::objects::node::{NodeRole, NodeState};
use ketch_cluster::view::Told;
use tokio::time::{Instant, sleep};

use super::add_node;
use crate::fixture::{Managers, objects, until};
use crate::manager::Wake;

#[tokio::test(start_paused = true)]
async fn a_founded_cluster_has_its_manager_and_its_networks() {
    let managers = Managers::found().await;
    let leader = managers.leader().await;
    let own = managers.node(managers.seats[0].site.node).await.unwrap();
    assert_eq!((own.role, own.spec.role), (NodeRole::Manager, NodeRole::Manager));
    assert_eq!(own.status.state, NodeState::Ready);
    assert_eq!(own.manager.as_ref().unwrap().address, "10.0.0.1:2377");
    let mut names: Vec<_> = leader.view(|view| view.networks().map(|it| it.spec.name.clone()).collect());
    names.sort();
    assert_eq!(names, ["bridge", "host", "ingress"]);
    until("the ingress network has its subnet", || {
        leader.view(|view| view.networks().any(|it| it.is_ingress() && it.allocation.is_some()))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_next_leader_is_there_within_three_seconds_of_a_kill() {
    let mut times = Vec::new();
    for offset in [0, 40, 90, 130, 170] {
        let managers = Managers::of(3).await;
        sleep(Duration::from_millis(1000 + offset)).await;
        let first = managers.leading().await;
        let killed = Instant::now();
        managers.kill(first).await;
        let leader = managers.leader().await;
        times.push(killed.elapsed());
        assert!(killed.elapsed() < Duration::from_secs(3), "{times:?}");
        add_node(&leader, 77).await.unwrap();
    }
    println!("{times:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_is_read_at_once_and_on_every_manager_soon() {
    let managers = Managers::of(3).await;
    let leader = managers.leader().await;
    add_node(&leader, 77).await.unwrap();
    leader.read().await.unwrap();
    assert!(leader.view(|view| view.node(NodeId::of(77)).is_some()));
    until("all have it", || {
        managers.seats.iter().all(|seat| seat.manager.view(|store| store.node(NodeId::of(77)).is_some()))
    })
    .await;
    let second = &managers.seats[1].manager;
    assert_eq!(second.leader_address(), managers.seats[0].manager.leader_address());
    assert!(second.leader().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_service_becomes_tasks_on_nodes() {
    let managers = Managers::of(3).await;
    let leader = managers.leader().await;
    for number in 100..103 {
        add_node(&leader, number).await.unwrap();
    }
    let id = leader
        .change(|view, now, bits| create_service(view, objects::replicated("web", 5), now, bits))
        .await
        .unwrap();
    until("five tasks have a node", || {
        leader.view(|view| view.tasks_of(id).filter(|task| task.node.is_some()).count() == 5)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn requests_are_judged_one_after_another() {
    let managers = Managers::of(3).await;
    let leader = managers.leader().await;
    let request =
        || leader.change(|view, now, bits| create_service(view, objects::replicated("web", 1), now, bits));
    let answers = join_all((0..10).map(|_| request())).await;
    assert_eq!(answers.iter().filter(|it| it.is_ok()).count(), 1);
    let refused = answers.into_iter().find_map(Result::err).unwrap().control().unwrap();
    assert!(refused.to_string().contains("name conflicts with an existing object"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn words_wake_who_listens_and_are_lost_with_the_leadership() {
    let managers = Managers::of(3).await;
    let leader = managers.leader().await;
    add_node(&leader, 100).await.unwrap();
    let id = leader
        .change(|view, now, bits| create_service(view, objects::replicated("web", 1), now, bits))
        .await
        .unwrap();
    let assigned = || leader.view(|view| view.tasks_of(id).find(|it| it.node.is_some()).map(|it| it.id));
    until("it has a node", || assigned().is_some()).await;
    let task = assigned().unwrap();
    let mut changes = leader.changes();
    let running = Told { state: TaskState::Running, running_for: Some(Duration::ZERO), ..Told::default() };

    assert_eq!(leader.note(vec![(task, running.clone())]), [task]);
    assert_eq!(leader.note(vec![(task, running)]), [], "it is known");
    while !matches!(changes.next().await.unwrap(), Wake::Noted(news) if *news == [task]) {}
    let state = |leader: &crate::manager::Leader| {
        leader.view(|view| view.task(task).map(|it| view.state(it)).unwrap())
    };
    assert_eq!(state(&leader), TaskState::Running);

    let place = managers.leading().await;
    managers.seats[place].manager.hand_over().await.unwrap();
    leader.ended().await;
    let next = managers.leader().await;
    assert_eq!(state(&next), TaskState::Assigned, "until workers tell it again");
    while changes.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn an_end_makes_the_reconcilers_act() {
    let managers = Managers::found().await;
    let leader = managers.leader().await;
    let id = leader
        .change(|view, now, bits| create_service(view, objects::replicated("web", 1), now, bits))
        .await
        .unwrap();
    let tasks = || leader.view(|view| view.tasks_of(id).map(|it| it.id).collect::<Vec<_>>());
    until("it has a node", || leader.view(|view| view.tasks_of(id).any(|it| it.node.is_some()))).await;
    let failed = Told { state: TaskState::Failed, ..Told::default() };
    leader.note(vec![(tasks()[0], failed)]);
    until("another takes its place", || tasks().len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_at_rest_looks_at_the_clock_a_few_times_a_second() {
    let managers = Managers::of(3).await;
    sleep(Duration::from_secs(30)).await;
    let before = managers.hub.looks();
    sleep(Duration::from_secs(60)).await;
    let looks = managers.hub.looks() - before;
    // Each of raft's calls looks whether its caller's certificate still holds: 5.5 a second from each follower.
    assert!(looks < 60 * 20, "{looks} in a minute");
}
