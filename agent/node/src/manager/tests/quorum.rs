//! Without a quorum nothing is done, and it is said in time.

use std::time::Duration;

use ketch_cluster::control::create_service;
use ketch_cluster::id::NodeId;
use ketch_raft::Start;
use tokio::time::{Instant, sleep, timeout};

use super::{add_node, lead_error};
use crate::fixture::{Managers, objects, until};
use crate::manager::{LeadError, NO_LEADER, PATIENCE, UNCERTAIN};

/// With room for what is done besides.
const IN_TIME: Duration = Duration::from_millis(10_500);

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_alone_says_so_in_time() {
    let managers = Managers::of(3).await;
    let leader = managers.leader().await;
    let place = managers.leading().await;
    for other in (0..3).filter(|other| *other != place) {
        managers.kill(other).await;
    }
    let asked = Instant::now();
    let error = lead_error(add_node(&leader, 77).await.unwrap_err());
    assert!(matches!(error, LeadError::Uncertain | LeadError::NoQuorum), "{error:?}");
    assert!(asked.elapsed() <= IN_TIME, "{:?}", asked.elapsed());
    for _ in 0..2 {
        let asked = Instant::now();
        let error = lead_error(add_node(&leader, 78).await.unwrap_err());
        assert_eq!(error.docker(), NO_LEADER, "{error:?}");
        assert!(asked.elapsed() < Duration::from_secs(1), "the others are known to be silent");
    }
    assert_eq!(leader.read().await, Err(LeadError::NoQuorum));
    assert!(leader.view(|view| view.node(NodeId::of(77)).is_none()));
}

#[tokio::test(start_paused = true)]
async fn what_is_perhaps_in_the_log_is_not_made_once_more() {
    let managers = Managers::of(3).await;
    let leader = managers.leader().await;
    let place = managers.leading().await;
    let hosts: Vec<_> = managers.seats.iter().map(|seat| seat.site.world.host.clone()).collect();
    let alone = hosts[place].as_str();
    let others: Vec<_> = hosts.iter().map(String::as_str).filter(|host| *host != alone).collect();
    // Nobody reaches anybody, so nobody else is elected.
    managers.hub.partition(&[alone], &others);
    managers.hub.partition(&others[..1], &others[1..]);
    let request =
        || leader.change(|view, now, bits| create_service(view, objects::replicated("web", 2), now, bits));
    let error = request().await.unwrap_err().control().unwrap_err();
    assert_eq!(error.docker(), UNCERTAIN);
    let error = request().await.unwrap_err().control().unwrap_err();
    assert_eq!(error, LeadError::NoQuorum);
    managers.hub.heal();

    let leader = managers.leader().await;
    let done =
        || leader.view(|view| (view.services().count(), view.tasks().filter(|it| it.node.is_some()).count()));
    until("one service with two tasks", || done() == (1, 2)).await;
    leader.read().await.unwrap();
    assert_eq!(leader.view(|view| view.tasks().count()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_replaced_answers_those_who_wait() {
    let managers = Managers::of(3).await;
    let old = managers.leader().await;
    let place = managers.leading().await;
    let hosts: Vec<_> = managers.seats.iter().map(|seat| seat.site.world.host.clone()).collect();
    let alone = hosts[place].as_str();
    let others: Vec<_> = hosts.iter().map(String::as_str).filter(|host| *host != alone).collect();
    managers.hub.partition(&[alone], &others);
    let lost = lead_error(add_node(&old, 77).await.unwrap_err());
    assert!(matches!(lost, LeadError::Uncertain | LeadError::NoQuorum), "{lost:?}");
    let next = || {
        let others = managers.seats.iter().enumerate().filter(|(at, _)| *at != place);
        others.filter_map(|(_, seat)| seat.manager.leader()).next()
    };
    until("another leads", || next().is_some()).await;
    add_node(&next().unwrap(), 78).await.unwrap();
    managers.hub.heal();
    timeout(PATIENCE, old.ended()).await.expect("it hears of the next leader");
    let error = lead_error(add_node(&old, 79).await.unwrap_err());
    assert!(matches!(error, LeadError::NotLeader { leader: Some(_) }), "{error:?}");
    let numbers = |numbers: [u128; 2]| numbers.map(NodeId::of);
    let kept = managers.leader().await.view(|view| numbers([77, 78]).map(|id| view.node(id).is_some()));
    assert_eq!(kept, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn the_last_manager_goes_on_alone_when_it_is_told_to() {
    let mut managers = Managers::of(3).await;
    add_node(&*managers.leader().await, 77).await.unwrap();
    let has_it = |managers: &Managers, place: usize| {
        managers.seats[place].manager.view(|store| store.node(NodeId::of(77)).is_some())
    };
    until("all have it", || (0..3).all(|place| has_it(&managers, place))).await;
    for place in 0..3 {
        managers.kill(place).await;
    }
    managers.restart(2, Start::ForceNewCluster).await;
    let leader = managers.leader().await;
    assert!(has_it(&managers, 2));
    assert_eq!(managers.seats[2].manager.members().len(), 1);
    let lost = managers.seats[0].site.node;
    until("the others are out of raft", || leader.view(|view| view.node(lost).unwrap().manager.is_none()))
        .await;
    leader.remove_node(lost, ketch_cluster::control::Force::Yes).await.unwrap();
    add_node(&leader, 78).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_managers_come_back_after_a_power_failure() {
    let mut managers = Managers::of(3).await;
    add_node(&*managers.leader().await, 77).await.unwrap();
    for place in 0..3 {
        managers.kill(place).await;
    }
    for place in 0..3 {
        managers.restart(place, Start::Resume).await;
    }
    let leader = managers.leader().await;
    assert!(leader.view(|view| view.node(NodeId::of(77)).is_some()));
    add_node(&leader, 78).await.unwrap();
}

/// A leader dies in the middle of changes, again and again: what was acknowledged is there, and a service that was created
/// once has its tasks once.
#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_by_leaders_that_die() {
    let mut managers = Managers::of(3).await;
    let mut acknowledged = Vec::new();
    for round in 0..6_u128 {
        let place = managers.leading().await;
        let leader = managers.leader().await;
        let name = format!("web-{round}");
        let changes = async {
            let service = leader
                .change(|view, now, bits| create_service(view, objects::replicated(&name, 3), now, bits))
                .await;
            let mut done = Vec::new();
            for number in 0..20 {
                let number = 1000 * (round + 1) + number;
                if add_node(&leader, number).await.is_ok() {
                    done.push(number);
                }
            }
            (service.is_ok(), done)
        };
        let dies = async {
            sleep(Duration::from_millis(17 + 11 * u64::try_from(round).unwrap())).await;
            managers.kill(place).await;
        };
        let ((_, done), ()) = tokio::join!(changes, dies);
        acknowledged.extend(done);
        drop(leader);
        managers.restart(place, Start::Resume).await;
    }
    let leader = managers.leader().await;
    let missing: Vec<_> = leader.view(|view| {
        acknowledged.iter().filter(|number| view.node(NodeId::of(**number)).is_none()).copied().collect()
    });
    assert_eq!(missing, [] as [u128; 0], "of {}", acknowledged.len());
    assert!(acknowledged.len() > 6, "{}", acknowledged.len());
    let settled = || {
        leader.view(|view| {
            view.services().all(|service| {
                let tasks: Vec<_> = view.tasks_of(service.id).collect();
                tasks.len() == 3 && tasks.iter().all(|task| task.node.is_some())
            })
        })
    };
    until("each service has its three tasks", settled).await;
}
