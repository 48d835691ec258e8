//! Who takes part.

use super::*;
use crate::{MembersError, ProposeError};

#[tokio::test(start_paused = true)]
async fn a_manager_learns_votes_and_leaves() {
    let mut managers = Managers::default();
    let logs = managers.voters(1).await;
    logs[0].propose(create(1), SOON).await.unwrap();
    let second = managers.start(2).await;

    logs[0].add_learner(peer(2), SOON).await.unwrap();
    let status = logs[0].status();
    assert_eq!((status.voters, status.learners), (vec![1], vec![2]));
    catch_up(&second, &logs[0]).await;
    assert_eq!(configs(&second), [name(1)]);

    logs[0].promote(2, SOON).await.unwrap();
    assert_eq!(logs[0].status().voters, [1, 2]);
    logs[0].remove(2, SOON).await.unwrap();
    let status = logs[0].status();
    assert_eq!((status.voters, status.learners), (vec![1], vec![]));
    managers.crash(2).await;
    logs[0].propose(create(2), SOON).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_learner_is_removed() {
    let mut managers = Managers::default();
    let logs = managers.voters(1).await;
    let _second = managers.start(2).await;
    logs[0].add_learner(peer(2), SOON).await.unwrap();
    logs[0].remove(2, SOON).await.unwrap();
    assert_eq!(logs[0].status().learners, [] as [u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_is_said_so() {
    let mut managers = Managers::default();
    let logs = managers.voters(1).await;
    assert_eq!(logs[0].found(SOON).await, Err(MembersError::Founded));
    assert_eq!(logs[0].remove(1, SOON).await, Err(MembersError::Last));
    assert_eq!(logs[0].remove(9, SOON).await, Err(MembersError::Unknown(9)));
    assert_eq!(logs[0].promote(9, SOON).await, Err(MembersError::Unknown(9)));
    let other = Peer { node: NodeId::of(99), ..peer(1) };
    assert!(matches!(logs[0].add_learner(other, SOON).await, Err(MembersError::Taken { .. })));
    let fresh = managers.start(2).await;
    let answer = fresh.propose(create(1), SOON).await;
    assert_eq!(answer, Err(ProposeError::NotLeader { leader: None }));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_removed_hands_over() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    logs[0].remove(1, SOON).await.unwrap();
    let next = leader(&[&logs[1], &logs[2]]).await;
    next.propose(create(1), SOON).await.unwrap();
    assert_eq!(next.status().voters, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_manager_moves() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    let moved = Peer { address: "192.0.2.9:2377".to_owned(), ..peer(3) };
    logs[0].move_peer(moved.clone(), SOON).await.unwrap();
    managers.hub.called.lock().unwrap().clear();
    logs[0].propose(create(1), SOON).await.unwrap();
    catch_up(&logs[2], &logs[0]).await;
    let called = managers.hub.called.lock().unwrap().clone();
    assert!(called.contains(&moved.address), "{called:?}");
    assert!(!called.contains(&peer(3).address), "{called:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_knows_how_long_each_member_has_been_silent() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    let silence = |of: usize| -> Vec<_> { logs[of].members().iter().map(|member| member.silent).collect() };
    logs[0].propose(create(1), SOON).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    managers.crash(3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let [own, second, third] = silence(0)[..] else { panic!("three are members") };
    assert_eq!(own, Some(Duration::ZERO));
    assert!(second.unwrap() < Duration::from_secs(5), "{second:?}");
    assert!(third.unwrap() >= Duration::from_secs(60), "{third:?}");
    assert_eq!(silence(1)[..], [None, Some(Duration::ZERO), None], "who does not lead knows of nobody");
    assert!(logs[0].members().iter().all(|member| member.is_voter));
}
