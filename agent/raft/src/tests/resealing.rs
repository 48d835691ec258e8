//! The data key changes while the log is in use.

use super::*;
use crate::OpenError;
use crate::consensus::StoredMembership;
use crate::disk::DiskError;
use crate::record::SnapshotHead;
use crate::wire::{self, SnapshotPart};

const NEXT: [u8; 32] = [9; 32];

fn opened_by(keys: DataKeys) -> Options {
    Options { keys, retention: Retention { snapshot_every: 20, keep: 10 }, ..Options::default() }
}

/// A manager alone, with a snapshot and more entries than are sealed anew at once.
async fn alone() -> (Managers, Arc<ClusterLog>) {
    let mut managers = Managers::default();
    let options = Options { retention: Retention { snapshot_every: 2000, keep: 1000 }, ..Options::default() };
    let log = managers.start_with(1, options).await.unwrap();
    log.found(SOON).await.unwrap();
    for number in 0..300 {
        log.propose(create(number), SOON).await.unwrap();
    }
    log.snapshot_now().await.unwrap();
    until(&log, |status| status.snapshot.is_some()).await;
    for number in 300..310 {
        log.propose(create(number), SOON).await.unwrap();
    }
    (managers, log)
}

#[tokio::test(start_paused = true)]
async fn nothing_on_the_disk_needs_the_old_key_any_more() {
    let (mut managers, log) = alone().await;
    log.reseal(NEXT).await.unwrap();
    log.propose(create(310), SOON).await.unwrap();
    managers.crash(1).await;

    let old = managers.start_with(1, opened_by(DataKeys::one(KEY))).await.unwrap_err();
    assert!(matches!(old, OpenError::Disk(DiskError::WrongKey)), "{old}");
    let log = managers.start_with(1, opened_by(DataKeys::one(NEXT))).await.unwrap();
    log.barrier_soon().await;
    assert_eq!(configs(&log).len(), 311);
}

#[tokio::test(start_paused = true)]
async fn what_ended_in_the_middle_is_opened_by_both_and_goes_on() {
    let (mut managers, log) = alone().await;
    managers.crash(1).await;
    drop(log);
    // What was told to seal by the next one had not begun to.
    let both = DataKeys { current: KEY, next: Some(NEXT) };
    let log = managers.start_with(1, opened_by(both)).await.unwrap();
    log.barrier_soon().await;
    log.propose(create(310), SOON).await.unwrap();
    managers.crash(1).await;

    // Now there is some of each.
    for one in [KEY, NEXT] {
        managers.start_with(1, opened_by(DataKeys::one(one))).await.unwrap_err();
    }
    let log = managers.start_with(1, opened_by(both)).await.unwrap();
    log.reseal(NEXT).await.unwrap();
    managers.crash(1).await;
    let log = managers.start_with(1, opened_by(DataKeys::one(NEXT))).await.unwrap();
    log.barrier_soon().await;
    assert_eq!(configs(&log).len(), 311);
}

#[tokio::test(start_paused = true)]
async fn it_changes_more_than_once_and_under_load() {
    let (mut managers, log) = alone().await;
    for round in 1..4_u8 {
        let changing = {
            let log = Arc::clone(&log);
            tokio::spawn(async move { log.reseal([round; 32]).await })
        };
        for number in 0..30 {
            log.propose(create(1000 * u128::from(round) + number), SOON).await.unwrap();
        }
        changing.await.unwrap().unwrap();
    }
    managers.crash(1).await;
    let log = managers.start_with(1, opened_by(DataKeys::one([3; 32]))).await.unwrap();
    log.barrier_soon().await;
    assert_eq!(configs(&log).len(), 400);
}

/// Its sender was killed in the middle of it.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_never_comes_to_its_end_is_not_waited_for() {
    let (mut managers, log) = alone().await;
    let head = SnapshotHead::of(None, &StoredMembership::default(), 0);
    let begun = wire::encode(&SnapshotPart::Begin { transfer: 1, head }, &[]).unwrap();
    log.answer(Kind::Snapshot, &begun).await.unwrap();
    tokio::time::timeout(SOON, log.reseal(NEXT)).await.expect("it is waited for").unwrap();
    managers.crash(1).await;
    let log = managers.start_with(1, opened_by(DataKeys::one(NEXT))).await.unwrap();
    log.barrier_soon().await;
    assert_eq!(configs(&log).len(), 310);
}
