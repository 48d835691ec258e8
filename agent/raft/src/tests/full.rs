//! A disk that is full: the manager stops before it acknowledges anything, the others go on, and it comes back when there is room.

use openraft::ReadPolicy;

use super::*;
use crate::carried::carried;
use crate::{Leadership, ProposeError, Role};

fn often() -> Options {
    Options { retention: Retention { snapshot_every: 20, keep: 5 }, ..Options::default() }
}

/// Why it has stopped.
async fn failed(log: &ClusterLog) -> String {
    tokio::time::timeout(SOON, log.failed()).await.expect("it goes on").expect("it was shut down")
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_room_leaves_the_lead_and_nothing_is_lost() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    for number in 0..10 {
        logs[0].propose(create(number), SOON).await.unwrap();
    }
    managers.disk(1).0.fill(true);
    let refused = logs[0].propose(create(10), SOON).await;
    assert!(matches!(refused, Err(ProposeError::Stopped(_) | ProposeError::Uncertain)), "{refused:?}");
    let why = failed(&logs[0]).await;
    assert!(
        why.contains("the raft log can't be read or written") && why.contains("no storage space"),
        "{why}"
    );
    let mut leadership = logs[0].leadership();
    let stopped = leadership.wait_for(|now: &Leadership| now.role == Role::Stopped);
    drop(tokio::time::timeout(SOON, stopped).await.expect("it leads still"));

    let next = leader(&[&logs[1], &logs[2]]).await;
    next.propose(create(11), SOON).await.unwrap();
    assert!((0..10).all(|number| has(next, number)));

    // It may have had what it was asked to write last; it has not said so.
    managers.crash(1).await;
    managers.disk(1).0.fill(false);
    let back = managers.start(1).await;
    catch_up(&back, next).await;
    assert_eq!(configs(&back), configs(next));
    next.propose(create(12), SOON).await.unwrap();
    catch_up(&back, next).await;
    assert!(has(&back, 12));
}

/// Whoever waits for a log that stops may give it up at any moment, and the call goes on to its end for those who come after it.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_goes_on() {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    let (told, ended) = tokio::sync::oneshot::channel();
    let mut call = Box::pin(carried(&log.raft, |raft| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _nobody_waits = told.send(raft.ensure_linearizable(ReadPolicy::ReadIndex).await.is_ok());
    }));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    assert_eq!(tokio::time::timeout(SOON, ended).await, Ok(Ok(true)));
}

/// One that can't keep its vote gives none, and one that can't keep an entry does not count for a quorum.
#[tokio::test(start_paused = true)]
async fn a_follower_without_room_neither_votes_nor_acknowledges() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    logs[0].propose(create(1), SOON).await.unwrap();
    managers.disk(2).0.fill(true);
    managers.crash(3).await;
    let alone = logs[0].propose(create(2), Duration::from_secs(20)).await;
    assert!(matches!(alone, Err(ProposeError::Uncertain | ProposeError::NoQuorum)), "{alone:?}");
    failed(&logs[1]).await;
    managers.crash(1).await;
    managers.crash(2).await;
    // What the first has is the only copy, and the second must not elect another without it.
    managers.disk(2).0.fill(false);
    let back = [managers.start(1).await, managers.start(2).await, managers.start(3).await];
    let next = leader(&[&back[0], &back[1], &back[2]]).await;
    next.barrier(SOON).await.unwrap();
    assert!(has(next, 1));
}

#[tokio::test(start_paused = true)]
async fn alone_it_does_not_begin_without_room_and_has_everything_when_there_is_some() {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    for number in 0..10 {
        log.propose(create(number), SOON).await.unwrap();
    }
    managers.disk(1).0.fill(true);
    log.propose(create(10), SOON).await.unwrap_err();
    log.shutdown().await;
    let error = managers.start_with(1, Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("can't be read or written"), "{error}");
    managers.disk(1).0.fill(false);
    let log = managers.start(1).await;
    log.barrier_soon().await;
    assert!((0..10).all(|number| has(&log, number)));
    log.propose(create(11), SOON).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_finds_no_room_stops_the_log_and_leaves_nothing_behind() {
    let mut managers = Managers::default();
    let log = managers.start_with(1, often()).await.unwrap();
    log.found(SOON).await.unwrap();
    managers.disk(1).1.fill(true);
    let mut kept = 0;
    for number in 0..100 {
        if log.propose(create(number), SOON).await.is_err() {
            break;
        }
        kept = number + 1;
    }
    let why = failed(&log).await;
    assert!(why.contains("no storage space"), "{why}");
    managers.crash(1).await;
    managers.disk(1).1.fill(false);
    let log = managers.start_with(1, often()).await.unwrap();
    log.barrier_soon().await;
    assert!(kept >= 10 && (0..kept).all(|number| has(&log, number)), "{kept}");
    for number in 200..240 {
        log.propose(create(number), SOON).await.unwrap();
    }
    until(&log, |status| status.snapshot.is_some()).await;
}
