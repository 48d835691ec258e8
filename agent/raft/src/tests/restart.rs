//! What the disk holds after a crash.

use redb::{Database, ReadableTable as _, TableDefinition};

use super::*;
use crate::{DiskError, OpenError, ProposeError};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

#[tokio::test(start_paused = true)]
async fn everything_acknowledged_is_there_after_a_power_failure() {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    for number in 0..50 {
        log.propose(create(number), SOON).await.unwrap();
    }
    managers.crash(1).await;

    let log = managers.start(1).await;
    log.barrier_soon().await;
    assert_eq!(configs(&log).len(), 50);
    assert!(has(&log, 49));
    log.propose(create(50), SOON).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_managers_fail_at_once_and_come_back() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    for number in 0..10 {
        logs[0].propose(create(number), SOON).await.unwrap();
    }
    for id in 1..=3 {
        managers.crash(id).await;
    }
    let mut back = vec![];
    for id in 1..=3 {
        back.push(managers.start(id).await);
    }
    let next = leader(&[&back[0], &back[1], &back[2]]).await;
    next.barrier(SOON).await.unwrap();
    assert_eq!(configs(next).len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_batch_costs_one_sync() {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    let disk = managers.disk(1).0.clone();
    let before = disk.syncs();
    let proposals = (0..100).map(|number| log.propose(create(number), SOON));
    let done = futures_util::future::join_all(proposals).await;
    assert!(done.iter().all(Result::is_ok));
    let syncs = disk.syncs() - before;
    assert!(syncs < 20, "{syncs} syncs for 100 proposals at once");
}

/// The power fails in the middle of a commit, and half of it has reached the disk: redb finds the last whole commit.
#[tokio::test(start_paused = true)]
async fn a_torn_tail_is_cut_where_nothing_was_acknowledged() {
    for parts in 0..4 {
        let mut managers = Managers::default();
        let log = managers.voters(1).await.remove(0);
        for number in 0..10 {
            log.propose(create(number), SOON).await.unwrap();
        }
        let disk = managers.disk(1).0.clone();
        disk.fail_at_next_sync();
        let lost = log.propose(create(10), SOON).await;
        assert!(matches!(lost, Err(ProposeError::Stopped(_))), "{lost:?}");
        assert!(disk.tear(parts, 4), "nothing was written");
        managers.crash(1).await;

        let log = managers.start(1).await;
        log.barrier_soon().await;
        assert_eq!(configs(&log).len(), 10);
        log.propose(create(10), SOON).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn another_data_key_is_a_clear_error() {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    log.propose(create(1), SOON).await.unwrap();
    managers.crash(1).await;

    let error = managers
        .start_with(1, Options { keys: DataKeys::one([8; 32]), ..Options::default() })
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Disk(DiskError::WrongKey)), "{error}");
    managers.start(1).await;
}

#[tokio::test(start_paused = true)]
async fn another_managers_disk_is_a_clear_error() {
    let mut managers = Managers::default();
    managers.voters(1).await;
    managers.crash(1).await;
    let disk = managers.disk(1).clone();
    managers.disks.insert(2, disk);
    let error = managers.start_with(2, Options::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::Disk(DiskError::Foreign { .. })), "{error}");
}

/// Changes what a stopped manager's database holds.
async fn tamper(managers: &mut Managers, change: impl FnOnce(&redb::WriteTransaction)) {
    managers.crash(1).await;
    let database = Database::builder().create_with_backend(managers.disk(1).0.handle()).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

async fn with_ten() -> Managers {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    for number in 0..10 {
        log.propose(create(number), SOON).await.unwrap();
    }
    managers
}

async fn damage(managers: &mut Managers) -> String {
    let error = managers.start_with(1, Options::default()).await.unwrap_err();
    assert!(matches!(error, OpenError::Disk(DiskError::Damaged { .. })), "{error}");
    error.to_string()
}

fn flip(transaction: &redb::WriteTransaction, index: u64) {
    let mut log = transaction.open_table(LOG).unwrap();
    let mut record = log.get(index).unwrap().unwrap().value().to_vec();
    *record.last_mut().unwrap() ^= 1;
    log.insert(index, record.as_slice()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_entry_is_never_cut_off_silently() {
    let mut managers = with_ten().await;
    tamper(&mut managers, |transaction| flip(transaction, 8)).await;
    let error = damage(&mut managers).await;
    assert!(error.contains("entry 8") && error.contains("force-new-cluster"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_entry_is_found() {
    let mut managers = with_ten().await;
    tamper(&mut managers, |transaction| {
        transaction.open_table(LOG).unwrap().remove(5).unwrap();
    })
    .await;
    assert!(damage(&mut managers).await.contains("entry 5"));
}

#[tokio::test(start_paused = true)]
async fn entries_that_changed_places_are_found() {
    let mut managers = with_ten().await;
    tamper(&mut managers, |transaction| {
        let mut log = transaction.open_table(LOG).unwrap();
        let record = log.get(6).unwrap().unwrap().value().to_vec();
        log.insert(7, record.as_slice()).unwrap();
    })
    .await;
    assert!(damage(&mut managers).await.contains("entry 7"));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_vote_is_an_error() {
    let mut managers = with_ten().await;
    tamper(&mut managers, |transaction| {
        let mut state = transaction.open_table(STATE).unwrap();
        let record = state.get("committed").unwrap().unwrap().value().to_vec();
        state.insert("vote", record.as_slice()).unwrap();
    })
    .await;
    assert!(damage(&mut managers).await.contains("vote"));
}

#[tokio::test(start_paused = true)]
async fn one_manager_goes_on_alone_when_the_others_are_lost() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    for number in 0..10 {
        logs[0].propose(create(number), SOON).await.unwrap();
    }
    catch_up(&logs[1], &logs[0]).await;
    for id in 1..=3 {
        managers.crash(id).await;
    }
    let alone = Options { start: Start::ForceNewCluster, ..Options::default() };
    let log = managers.start_with(2, alone).await.unwrap();
    until(&log, |status| status.leadership.is_leader()).await;

    assert_eq!(log.status().voters, [2]);
    assert_eq!(configs(&log).len(), 10);
    log.propose(create(10), SOON).await.unwrap();
    let _fourth = managers.start(4).await;
    log.add_learner(peer(4), SOON).await.unwrap();
    managers.crash(2).await;
    let log = managers.start(2).await;
    log.barrier_soon().await;
    assert_eq!(configs(&log).len(), 11);
}

#[tokio::test(start_paused = true)]
async fn alone_and_damaged_keeps_what_comes_before() {
    let mut managers = with_ten().await;
    tamper(&mut managers, |transaction| flip(transaction, 8)).await;
    let alone = Options { start: Start::ForceNewCluster, ..Options::default() };
    let log = managers.start_with(1, alone).await.unwrap();
    log.barrier_soon().await;
    // 0 is the first membership and 1 the leader's blank entry.
    assert_eq!(configs(&log).len(), 6);
}

impl ClusterLog {
    /// Waits until it leads and has everything.
    pub(super) async fn barrier_soon(&self) {
        until(self, |status| status.leadership.is_leader()).await;
        self.barrier(SOON).await.unwrap();
    }
}
