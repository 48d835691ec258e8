//! Snapshots: cut the log, bring a slow follower up to date, refuse what is broken.

use std::io::{Read as _, Write as _};

use super::*;
use crate::record::{MembershipRecord, SnapshotHead};
use crate::seal::Seal;
use crate::snapshot::Snapshots;
use crate::snapshot::format::SnapshotError;
use crate::{Folder, OpenError, SnapshotFiles as _};

fn often() -> Options {
    Options { retention: Retention { snapshot_every: 20, keep: 5 }, ..Options::default() }
}

async fn founded(managers: &mut Managers) -> Arc<ClusterLog> {
    let log = managers.start_with(1, often()).await.unwrap();
    log.found(SOON).await.unwrap();
    log
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_cuts_the_log_and_is_read_at_the_next_start() {
    let mut managers = Managers::default();
    let log = founded(&mut managers).await;
    for number in 0..100 {
        log.propose(create(number), SOON).await.unwrap();
    }
    let status = until(&log, |status| status.purged >= Some(60)).await;
    assert!(status.snapshot >= Some(60), "{status:?}");
    managers.crash(1).await;

    let log = managers.start_with(1, often()).await.unwrap();
    until(&log, |status| status.leadership.is_leader()).await;
    log.barrier(SOON).await.unwrap();
    assert_eq!(configs(&log).len(), 100);
    log.propose(create(100), SOON).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_follower_gets_a_snapshot_in_parts() {
    let mut managers = Managers::default();
    let log = founded(&mut managers).await;
    // Three frames: a byte of a config is a number of JSON here.
    for number in 0..50 {
        log.propose(create_with(number, vec![200; 4000]), SOON).await.unwrap();
    }
    until(&log, |status| status.purged >= Some(20)).await;
    let late = managers.start_with(2, often()).await.unwrap();
    let mut notices = late.notices();
    *managers.hub.longest.lock().unwrap() = 0;

    log.add_learner(peer(2), SOON).await.unwrap();

    catch_up(&late, &log).await;
    assert_eq!(notices.next().await, Some(crate::Notice::Everything));
    assert_eq!(configs(&late), configs(&log));
    assert!(late.status().snapshot >= Some(20));
    let content = managers.disk(2).1.content("snapshot").unwrap();
    assert!(content.len() > 600_000, "{}", content.len());
    // One frame and the object that did not fit, or what is left of the log.
    let longest = *managers.hub.longest.lock().unwrap();
    assert!(longest < 700_000, "{longest}");
    // Sealed with the receiver's own nonces, and read by it at its next start.
    assert_ne!(Some(content), managers.disk(1).1.content("snapshot"));
    managers.crash(2).await;
    let late = managers.start_with(2, often()).await.unwrap();
    assert!(configs(&late).len() >= 20);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_loses_answers_starts_again() {
    let mut managers = Managers::default();
    let log = founded(&mut managers).await;
    for number in 0..50 {
        log.propose(create_with(number, vec![200; 4000]), SOON).await.unwrap();
    }
    until(&log, |status| status.purged >= Some(20)).await;
    let late = managers.start_with(2, often()).await.unwrap();
    managers.hub.lose_one_of(4);
    let adding = log.add_learner(peer(2), Duration::from_secs(10)).await;
    managers.hub.lose_one_of(0);
    drop(adding);
    catch_up(&late, &log).await;
    assert_eq!(configs(&late), configs(&log));
    let left = managers.disk(2).1.names().unwrap();
    assert!(left.len() <= 2, "the snapshot, and at most one that was given up: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_snapshot_is_refused() {
    let mut managers = Managers::default();
    let log = founded(&mut managers).await;
    for number in 0..50 {
        log.propose(create(number), SOON).await.unwrap();
    }
    until(&log, |status| status.snapshot.is_some()).await;
    managers.crash(1).await;
    let files = managers.disk(1).1.clone();
    let whole = files.content("snapshot").unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for broken in [flipped, whole[..whole.len() - 1].to_vec(), whole[..whole.len() / 2].to_vec(), vec![]] {
        files.put("snapshot", broken);
        let error = managers.start_with(1, often()).await.unwrap_err();
        assert!(matches!(error, OpenError::Snapshot(SnapshotError::Damaged(_))), "{error}");
    }
    let mut newer = whole.clone();
    newer[0] = 2;
    files.put("snapshot", newer);
    let error = managers.start_with(1, often()).await.unwrap_err();
    assert!(matches!(error, OpenError::Snapshot(SnapshotError::Newer(2))), "{error}");
    files.put("snapshot", whole);
    managers.start_with(1, often()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_not_finished_is_removed() {
    let mut managers = Managers::default();
    managers.disk(1).1.put("snapshot.3.new", b"half".to_vec());
    managers.start(1).await;
    assert_eq!(managers.disk(1).1.names().unwrap(), [] as [String; 0]);
}

#[test]
fn a_folder_keeps_files() {
    let path = std::env::temp_dir().join(format!("ketch-raft-{}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    let folder = Folder::new(path.clone());
    let mut sink = folder.create("a.new").unwrap();
    sink.write_all(b"content").unwrap();
    sink.sync().unwrap();
    folder.rename("a.new", "a").unwrap();
    assert_eq!(folder.names().unwrap(), ["a"]);
    let mut read = String::new();
    folder.open("a").unwrap().unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "content");
    assert!(folder.open("a.new").unwrap().is_none());
    folder.remove("a").unwrap();
    folder.remove("a").unwrap();
    std::fs::remove_dir(path).unwrap();
}

/// A log is opened again in the same process while a snapshot of before is still being written.
#[test]
fn a_snapshot_of_a_log_that_was_closed_counts_no_more() {
    let files = Arc::new(MemoryFiles::default());
    let opened = || {
        let seal = Arc::new(Seal::new(&DataKeys::one(KEY), entropy(1)));
        Snapshots::open(Arc::<MemoryFiles>::clone(&files), seal)
    };
    let head = |version| SnapshotHead {
        last: None,
        membership_at: None,
        membership: MembershipRecord::default(),
        version,
    };
    let (before, _) = opened().unwrap();
    let late = before.receive(head(1)).unwrap();
    before.close();
    let (now, found) = opened().unwrap();
    assert!(found.is_none());
    let current = now.receive(head(2)).unwrap();
    assert_ne!(late.name(), current.name());
    assert!(before.write(&head(1), &[]).is_err());
    now.write(&head(2), &[]).unwrap();
    assert!(before.write(&head(1), &[]).is_err());
    let (_, found) = opened().unwrap();
    assert_eq!(found.unwrap().head.version, 2);
}
