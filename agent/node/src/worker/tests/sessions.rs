//! Sessions: finding the leader, beginning again, heartbeats, what is told and what the node is told.

use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::NodeId;
use ketch_cluster::objects::TaskState::{Complete, Failed, Running};
use ketch_cluster::objects::node::{CaKeyId, NodeRole};
use tokio::time::Instant;

use super::engine::Script;
use super::lab::{Bench, LEADER, pass};
use super::leader::{Commits, Leader, PERIOD};
use crate::calls::{ManagerAddress, Membership, SessionMessage};
use crate::wire::Refusal;
use crate::worker::WorkerEvent;

const OTHER: &str = "10.0.0.2:2377";

fn script(runs: u64, code: i32) -> Script {
    Script { ends: Some((Duration::from_secs(runs), code, "")), ..Script::default() }
}

fn other() -> Vec<ManagerAddress> {
    vec![ManagerAddress { node: NodeId::of(2), address: OTHER.to_owned() }]
}

#[tokio::test(start_paused = true)]
async fn heartbeats_come_at_the_period_that_was_told() {
    let bench = Bench::new();
    bench.leader.sessions(1).await;
    pass(600).await;
    let heartbeats = bench.leader.known().heartbeats;
    assert!((118..=120).contains(&heartbeats), "{heartbeats}");
    assert_eq!(bench.leader.known().asked.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_silent_is_asked_by_a_new_connection() {
    let bench = Bench::new();
    bench.leader.sessions(1).await;
    assert_eq!(bench.lab.dials(), 1);
    bench.leader.known().is_silent = true;
    pass(12).await;
    bench.leader.known().is_silent = false;
    bench.leader.sessions(2).await;
    assert!(bench.lab.dials() > 1, "the silent one is waited for");
}

#[tokio::test(start_paused = true)]
async fn the_leader_is_found_by_another_manager() {
    let bench = Bench::without_worker();
    let follower = Leader::new();
    follower.known().refuses = Some(Refusal::NotLeader { leader: Some((NodeId::of(2), OTHER.to_owned())) });
    bench.lab.connect(LEADER, &follower);
    bench.lab.connect(OTHER, &bench.leader);
    let begun = Instant::now();
    let bench = bench.opened();
    bench.leader.sessions(1).await;
    assert!(begun.elapsed() < Duration::from_millis(50), "at once: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_managers_that_name_each_other_are_not_asked_without_a_rest() {
    let mut bench = Bench::without_worker();
    let managers = [(LEADER, OTHER), (OTHER, LEADER)].map(|(at, names)| {
        let manager = Leader::new();
        manager.known().refuses =
            Some(Refusal::NotLeader { leader: Some((NodeId::of(1), names.to_owned())) });
        bench.lab.connect(at, &manager);
        manager
    });
    bench.open();
    pass(60).await;
    assert_eq!(managers.iter().map(|it| it.known().asked.len()).sum::<usize>(), 0);
    let asked: u64 = managers.iter().map(|it| it.known().calls).sum();
    assert!((10..60).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_begins_again_with_every_word() {
    let bench = Bench::new();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    for lost in 1..=3 {
        match lost {
            1 => bench.leader.end_session(),
            2 => bench.leader.known().no_session = true,
            _ => {
                bench.lab.disconnect();
                pass(3600).await;
                bench.lab.connect(LEADER, &bench.leader);
            }
        }
        let before = bench.leader.known().asked.len();
        pass(PERIOD.as_secs()).await;
        bench.leader.known().no_session = false;
        bench.leader.sessions(before + 1).await;
        pass(PERIOD.as_secs() * 2).await;
        let known = bench.leader.known();
        let (_, asked) = known.asked.last().unwrap();
        assert_eq!(asked.words.len(), 1);
        assert_eq!(asked.words[0].1.state, Running);
    }
    assert_eq!(bench.engine.count("start 1"), 1);
    assert_eq!(bench.engine.running(), [1].into());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_can_not_be_reached_is_looked_for_every_eight_seconds_at_most() {
    let bench = Bench::without_worker().opened();
    pass(600).await;
    let begun = Instant::now();
    bench.lab.connect(LEADER, &bench.leader);
    bench.leader.sessions(1).await;
    assert!(begun.elapsed() <= Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn changes_out_of_step_are_followed_by_all_of_it() {
    let bench = Bench::new();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    bench.leader.lose_changes();
    bench.leader.assign(2, |_| {});
    bench.told(2, Running).await;
    assert_eq!(bench.leader.known().asked.len(), 2);
    assert_eq!(bench.engine.running(), [1, 2].into());
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_until_it_is_committed() {
    let bench = Bench::new();
    bench.leader.known().commits = Commits::Never;
    bench.engine.script(1, script(5, 0));
    bench.leader.assign(1, |_| {});
    bench.told(1, Complete).await;
    pass(10).await;
    let told = |bench: &Bench| bench.leader.words(1).iter().filter(|told| told.state == Complete).count();
    let before = told(&bench);
    assert!((8..=12).contains(&before), "each second: {before}");
    bench.leader.known().commits = Commits::AtOnce;
    pass(2).await;
    let before = told(&bench);
    pass(600).await;
    assert_eq!(told(&bench), before);
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_acknowledgement_was_lost_is_known_by_the_assignment() {
    let bench = Bench::new();
    bench.leader.known().commits = Commits::Silently;
    bench.engine.script(1, script(5, 1));
    bench.leader.assign(1, |_| {});
    bench.told(1, Failed).await;
    bench.leader.sessions(2).await;
    bench.leader.known().commits = Commits::AtOnce;
    pass(20).await;
    let before = bench.leader.known().tells.len();
    pass(600).await;
    assert_eq!(bench.leader.known().tells.len(), before);
    assert_eq!(bench.engine.count("prepare 1"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_the_log_has_lost_again_is_told_again() {
    let bench = Bench::new();
    bench.engine.script(1, script(5, 1));
    bench.leader.assign(1, |_| {});
    bench.told(1, Failed).await;
    pass(5).await;
    bench.leader.known().words.clear();
    bench.leader.assign(1, |task| task.status.state = ketch_cluster::objects::TaskState::Assigned);
    bench.told(1, Failed).await;
    assert_eq!(bench.engine.count("prepare 1"), 1);
}

#[tokio::test(start_paused = true)]
async fn news_are_gathered() {
    let bench = Bench::new();
    bench.leader.sessions(1).await;
    for task in 1..=200 {
        bench.leader.assign(task, |_| {});
    }
    for task in 1..=200 {
        bench.told(task, Running).await;
    }
    let tells = bench.leader.known().tells.len();
    assert!(tells <= 8, "{tells}");
}

#[tokio::test(start_paused = true)]
async fn the_node_hears_of_managers_and_membership_and_addresses_are_kept() {
    let mut bench = Bench::new();
    bench.leader.sessions(1).await;
    let mut events = bench.worker.as_ref().unwrap().events();
    bench.leader.send(&SessionMessage::Managers(other()));
    let membership = Membership {
        role: NodeRole::Manager,
        raft_id: Some(1),
        roots: "roots".to_owned(),
        issuer: CaKeyId([3; 20]),
    };
    bench.leader.send(&SessionMessage::Membership(membership.clone()));
    assert_eq!(events.recv().await, Some(WorkerEvent::Managers(other())));
    assert_eq!(events.recv().await, Some(WorkerEvent::Membership(membership)));
    assert_eq!(bench.worker.as_ref().unwrap().managers(), other());

    pass(1).await;
    bench.lab.disconnect();
    bench.lab.connect(OTHER, &bench.leader);
    let before = bench.leader.known().asked.len();
    bench.reopen().await;
    bench.leader.sessions(before + 1).await;
    assert_eq!(bench.worker.as_ref().unwrap().managers(), other());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_removed_has_nothing_any_more() {
    let bench = Bench::new();
    let mut events = bench.worker.as_ref().unwrap().events();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    bench.leader.known().refuses = Some(Refusal::Denied("node 7 is not part of the cluster".to_owned()));
    bench.leader.end_session();
    assert_eq!(events.recv().await, Some(WorkerEvent::Removed));
    pass(5).await;
    assert!(!bench.engine.has_container(1));
}

/// It was away when it was removed: no manager takes a connection of it, and it hears why. Found by the simulation.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_shut_out_has_nothing_any_more() {
    let bench = Bench::new();
    let mut events = bench.worker.as_ref().unwrap().events();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    bench.lab.shut_out();
    assert_eq!(events.recv().await, Some(WorkerEvent::Removed));
    pass(5).await;
    assert!(!bench.engine.has_container(1));
}

#[tokio::test(start_paused = true)]
async fn a_session_begins_again_when_the_node_is_another() {
    let bench = Bench::new();
    bench.leader.sessions(1).await;
    pass(60).await;
    assert_eq!(bench.leader.known().asked.len(), 1);
    bench.engine.known().description.hostname = "renamed".to_owned();
    pass(21).await;
    assert_eq!(bench.leader.known().asked.last().unwrap().1.description.hostname, "renamed");
    bench.worker.as_ref().unwrap().trusts(vec![CaKeyId([9; 20])]);
    pass(1).await;
    let known = bench.leader.known();
    assert_eq!(known.asked.len(), 3);
    assert_eq!(known.asked.last().unwrap().1.roots, [CaKeyId([9; 20])]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_answer_is_given_up() {
    let bench = Bench::without_worker();
    let silent: Arc<Leader> = Leader::new();
    silent.known().is_silent = true;
    bench.lab.connect(LEADER, &silent);
    let bench = bench.opened();
    pass(30).await;
    bench.lab.connect(LEADER, &bench.leader);
    bench.lab.end_connections();
    let begun = Instant::now();
    bench.leader.sessions(1).await;
    assert!(begun.elapsed() < Duration::from_secs(14));
}
