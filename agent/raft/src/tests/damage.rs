//! A log whose bytes are not what was written: found at the start, never served, and made good by the other managers.

use redb::{Database, ReadableTable as _, TableDefinition, WriteTransaction};

use super::*;
use crate::disk::{Disk, DiskError};
use crate::seal::Seal;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// A stopped manager's disk, and the index of its last entry.
async fn stopped() -> (MemoryDisk, u64) {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    for number in 0..4 {
        log.propose(create(number), SOON).await.unwrap();
    }
    let last = log.status().last.unwrap();
    managers.crash(1).await;
    (managers.disk(1).0.clone(), last)
}

fn tamper(disk: &MemoryDisk, change: impl FnOnce(&WriteTransaction)) {
    let database = Database::builder().create_with_backend(disk.handle()).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

fn record(disk: &MemoryDisk, index: u64) -> Vec<u8> {
    let mut bytes = vec![];
    tamper(disk, |transaction| {
        let log = transaction.open_table(LOG).unwrap();
        bytes = log.get(index).unwrap().unwrap().value().to_vec();
    });
    bytes
}

fn replace(disk: &MemoryDisk, index: u64, record: &[u8]) {
    tamper(disk, |transaction| {
        transaction.open_table(LOG).unwrap().insert(index, record).unwrap();
    });
}

/// What a start makes of it.
fn judged(disk: &MemoryDisk) -> Result<(), DiskError> {
    let seal = Seal::new(&DataKeys::one(KEY), entropy(9));
    Disk::open(disk.handle(), Arc::new(seal))?.check(None)
}

#[tokio::test(start_paused = true)]
async fn each_byte_of_a_record_that_flips_is_found() {
    let (disk, last) = stopped().await;
    let whole = record(&disk, last);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        replace(&disk, last, &flipped);
        let error = judged(&disk).unwrap_err();
        assert!(error.to_string().contains(&format!("entry {last} ")), "byte {at}: {error}");
    }
    replace(&disk, last, &whole);
    judged(&disk).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_ends_early_is_found() {
    let (disk, last) = stopped().await;
    let whole = record(&disk, last);
    for length in 0..whole.len() {
        replace(&disk, last, &whole[..length]);
        let error = judged(&disk).unwrap_err();
        assert!(error.to_string().contains(&format!("entry {last} ")), "{length} bytes: {error}");
    }
}

/// The last one may be gone without a trace: that it was committed is written with the next.
#[tokio::test(start_paused = true)]
async fn a_tail_that_is_known_to_be_committed_and_gone_is_found() {
    let (disk, last) = stopped().await;
    for index in (1..last).rev() {
        tamper(&disk, |transaction| {
            transaction.open_table(LOG).unwrap().retain_in(index.., |_, _| false).unwrap();
        });
        let error = judged(&disk).unwrap_err();
        assert!(error.to_string().contains(&format!("entry {index} ")), "{error}");
    }
}

/// The leader's disk, or a follower's: its manager does not start, the others go on, and with an empty disk it gets from them
/// what it had.
#[tokio::test(start_paused = true)]
async fn the_others_make_good_what_one_has_lost() {
    for damaged in [1, 3] {
        let mut managers = Managers::default();
        let logs = managers.voters(3).await;
        for number in 0..10 {
            logs[0].propose(create(number), SOON).await.unwrap();
        }
        catch_up(&logs[2], &logs[0]).await;
        let last = logs[0].status().last.unwrap();
        managers.crash(damaged).await;
        let disk = managers.disk(damaged).0.clone();
        let mut broken = record(&disk, last);
        broken.truncate(broken.len() / 2);
        replace(&disk, last, &broken);

        let error = managers.start_with(damaged, Options::default()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("damaged") && text.contains("let it join again"), "{text}");

        let others: Vec<&ClusterLog> =
            logs.iter().map(AsRef::as_ref).filter(|log| log.me.raft_id != damaged).collect();
        let next = leader(&others).await;
        next.propose(create(10), SOON).await.unwrap();
        next.remove(damaged, SOON).await.unwrap();
        let back = managers.start(4).await;
        next.add_learner(peer(4), SOON).await.unwrap();
        next.promote(4, SOON).await.unwrap();
        catch_up(&back, next).await;
        assert_eq!(configs(&back).len(), 11);
        assert_eq!(configs(&back), configs(next));
    }
}
