//! Proposals, leaders, partitions.

use ketch_cluster::store::StoreError;

use super::*;
use crate::{Folder, Notice, ProposeError, Role};

#[tokio::test(start_paused = true)]
async fn one_voter_commits_and_tells_what_changed() {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    let mut notices = log.notices();

    let committed = log.propose(create(1), SOON).await.unwrap();

    assert_eq!(committed.changes.len(), 1);
    assert_eq!(committed.changes[0].new.as_ref().unwrap().version(), committed.version);
    assert_eq!(notices.next().await, Some(Notice::Committed(committed)));
    assert_eq!(configs(&log), [name(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_transaction_is_told_to_its_proposer_and_stops_nothing() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    logs[0].propose(create(1), SOON).await.unwrap();

    let refused = logs[0].propose(create(1), SOON).await.unwrap_err();

    assert!(matches!(refused, ProposeError::Refused(StoreError::Exists(_))), "{refused}");
    logs[0].propose(create(2), SOON).await.unwrap();
    catch_up(&logs[2], &logs[0]).await;
    assert_eq!(configs(&logs[2]), [name(1), name(2)]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_is_told_to_look_at_everything() {
    let mut managers = Managers::default();
    let log = managers.voters(1).await.remove(0);
    let mut notices = log.notices();
    let proposals = (0..5000).map(|number| log.propose(create(number), SOON));
    let done = futures_util::future::join_all(proposals).await;
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(notices.next().await, Some(Notice::Everything));
    assert!(matches!(notices.next().await, Some(Notice::Committed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    until(&logs[1], |status| status.leadership.leader == Some(1)).await;

    let answer = logs[1].propose(create(1), SOON).await;
    assert_eq!(answer, Err(ProposeError::NotLeader { leader: Some(peer(1)) }));
    let answer = logs[1].barrier(SOON).await;
    assert_eq!(answer, Err(ProposeError::NotLeader { leader: Some(peer(1)) }));
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_dies_another_has_everything_acknowledged() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    for number in 0..20 {
        logs[0].propose(create(number), SOON).await.unwrap();
    }
    managers.crash(1).await;

    let next = leader(&[&logs[1], &logs[2]]).await;
    next.barrier(SOON).await.unwrap();

    assert_eq!(configs(next).len(), 20);
    next.propose(create(20), SOON).await.unwrap();
    let back = managers.start(1).await;
    catch_up(&back, next).await;
    assert_eq!(configs(&back), configs(next));
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_commits_nothing_and_follows_after_the_heal() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    managers.hub.partition(&[1], &[2, 3]);

    let lost = logs[0].propose(create(1), Duration::from_secs(20)).await;
    assert!(matches!(lost, Err(ProposeError::Uncertain | ProposeError::NoQuorum)), "{lost:?}");
    let later = logs[0].propose(create(2), SOON).await;
    assert_eq!(later, Err(ProposeError::NoQuorum), "its lease has run out");
    assert_eq!(logs[0].barrier(SOON).await, Err(ProposeError::NoQuorum));
    assert!(!has(&logs[0], 1));

    let next = leader(&[&logs[1], &logs[2]]).await;
    next.propose(create(3), SOON).await.unwrap();
    managers.hub.heal();
    catch_up(&logs[0], next).await;
    assert_eq!(configs(&logs[0]), [name(3)]);
    assert!(!logs[0].status().leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_comes_back_does_not_unseat_the_leader() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    let term = logs[0].status().leadership.term;
    managers.hub.partition(&[3], &[1, 2]);
    // Several elections' time for the one that is cut off.
    for number in 0..30 {
        logs[0].propose(create(number), SOON).await.unwrap();
        tokio::time::advance(Duration::from_millis(400)).await;
    }
    managers.hub.heal();
    logs[0].propose(create(30), SOON).await.unwrap();
    catch_up(&logs[2], &logs[0]).await;

    assert_eq!(logs[0].status().leadership.term, term, "Pre-Vote keeps the term");
    assert!(logs[0].status().leadership.is_leader());
    assert_eq!(configs(&logs[2]).len(), 31);
}

/// A proposer that gets no answer asks again, and may learn that it was done.
#[tokio::test(start_paused = true)]
async fn answers_that_get_lost_cost_time_and_nothing_else() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    managers.hub.lose_one_of(3);
    for number in 0..30 {
        let all: Vec<&ClusterLog> = logs.iter().map(AsRef::as_ref).collect();
        loop {
            let leads = leader(&all).await;
            match leads.propose(create(number), Duration::from_secs(5)).await {
                Ok(_) | Err(ProposeError::Refused(StoreError::Exists(_))) => break,
                Err(ProposeError::Stopped(why)) => panic!("{why}"),
                Err(_) => {}
            }
        }
    }
    managers.hub.lose_one_of(0);
    let all: Vec<&ClusterLog> = logs.iter().map(AsRef::as_ref).collect();
    let leads = leader(&all).await;
    leads.barrier(SOON).await.unwrap();
    for log in all {
        catch_up(log, leads).await;
        assert_eq!(configs(log).len(), 30);
    }
}

#[tokio::test(start_paused = true)]
async fn the_leadership_is_handed_over() {
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;

    logs[0].transfer_leadership(2, SOON).await.unwrap();

    assert_eq!(logs[0].leadership().borrow().leader, Some(2));
    let next = leader(&[&logs[0], &logs[1], &logs[2]]).await;
    assert_eq!(next.me.raft_id, 2);
    next.propose(create(1), SOON).await.unwrap();
}

/// What passes between three managers of which the leader dies, from the start on. Which of several receivers of a watch
/// runs first in one moment is drawn by tokio, which takes a seed only with `--cfg tokio_unstable`: so the steps are put
/// in order within a moment.
async fn scene() -> Vec<Step<Duration>> {
    let start = tokio::time::Instant::now();
    let mut managers = Managers::default();
    let logs = managers.voters(3).await;
    managers.crash(1).await;
    let next = leader(&[&logs[1], &logs[2]]).await;
    next.propose(create(1), SOON).await.unwrap();
    let back = managers.start(1).await;
    catch_up(&back, next).await;
    let trace = std::mem::take(&mut *managers.hub.trace.lock().unwrap());
    let mut steps: Vec<_> = trace
        .into_iter()
        .map(|(at, from, to, kind, request)| (at - start, from, to, kind, request))
        .collect();
    steps.sort_by_key(|step| (step.0, step.1, step.2));
    steps
}

/// What the simulation builds on: elections, nonces and times depend on nothing but the seeds.
#[test]
fn the_same_seeds_play_the_same_scene() {
    let play = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(scene())
    };
    let first = play();
    let second = play();
    let differs = first.iter().zip(&second).position(|(first, second)| first != second);
    assert_eq!(differs, None, "of {} calls", first.len());
    assert_eq!(first.len(), second.len());
}

fn on_files(path: &std::path::Path) -> (Settings, World<redb::backends::FileBackend>) {
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).create(true).truncate(false);
    let settings = Settings {
        me: peer(1),
        timing: Timing { tick: Duration::from_millis(20), heartbeat_ticks: 1, election_ticks: 10 },
        retention: Retention { snapshot_every: 1000, keep: 10 },
        blocking: Blocking::Threads,
        seed: 1,
        start: Start::Resume,
    };
    let world = World {
        log: redb::backends::FileBackend::new(file.open(path.join("log")).unwrap()).unwrap(),
        snapshots: Arc::new(Folder::new(path.to_owned())),
        transport: Arc::new(Wire { from: 1, hub: Arc::default() }),
        entropy: entropy(1),
        data_keys: DataKeys::one(KEY),
    };
    (settings, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_files_and_threads_and_in_real_time() {
    let path = std::env::temp_dir().join(format!("ketch-raft-log-{}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    let (settings, world) = on_files(&path);
    let log = ClusterLog::open(settings, world).await.unwrap();
    log.found(SOON).await.unwrap();
    log.propose(create(1), SOON).await.unwrap();
    log.snapshot_now().await.unwrap();
    until(&log, |status| status.snapshot.is_some()).await;
    log.propose(create(2), SOON).await.unwrap();
    log.shutdown().await;
    assert_eq!(log.status().leadership.role, Role::Stopped);
    drop(log);

    let (settings, world) = on_files(&path);
    let log = ClusterLog::open(settings, world).await.unwrap();
    until(&log, |status| status.leadership.is_leader()).await;
    log.barrier(SOON).await.unwrap();
    assert_eq!(configs(&log), [name(1), name(2)]);
    log.shutdown().await;
    std::fs::remove_dir_all(path).unwrap();
}
