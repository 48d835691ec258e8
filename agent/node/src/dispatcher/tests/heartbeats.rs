use tokio::time::Instant;

use super::*;
use crate::dispatcher::texts;

#[tokio::test(start_paused = true)]
async fn a_node_is_down_after_three_that_were_missed_and_ready_when_it_is_back() {
    let cluster = Cluster::with(2).await;
    let silent = NodeId::of(101);
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    let other = Worker::begin(&cluster.dispatcher, 102).await;
    worker.settle().await;
    worker.beat().await.unwrap();
    let heard = Instant::now();
    other.live(2).await;
    assert_eq!(cluster.state(silent), NodeState::Ready);
    let beats = async { other.live(6).await };
    let down = until("it is down", || cluster.state(silent) == NodeState::Down);
    let ((), ()) = tokio::join!(beats, async {
        down.await;
        let after = heard.elapsed();
        assert!(after > 4 * PERIOD && after < 5 * PERIOD, "{after:?}");
    });
    assert_eq!(cluster.node(silent).status.message, texts::SILENT);
    assert_eq!(cluster.state(other.identity.node), NodeState::Ready);
    assert!(!worker.settle().await, "its session has ended");
    assert_eq!(worker.beat().await.unwrap_err(), Refusal::NoSession);
    let _again = Worker::begin(&cluster.dispatcher, 101).await;
    sleep(A_WHILE).await;
    let status = cluster.node(silent).status.clone();
    assert_eq!((status.state, status.message.as_str()), (NodeState::Ready, ""));
}

#[tokio::test(start_paused = true)]
async fn a_blip_moves_nothing() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.settle().await;
    worker.beat().await.unwrap();
    let before = cluster.node(NodeId::of(101)).meta.version;
    // It begins just before a heartbeat, lasts two and a half periods, and is followed by a second without a connection.
    sleep(4 * PERIOD).await;
    worker.beat().await.unwrap();
    worker.live(3).await;
    assert_eq!(cluster.node(NodeId::of(101)).meta.version, before);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_killed_and_is_back_in_time_moves_nothing() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.settle().await;
    let (before, session) = (cluster.node(NodeId::of(101)).meta.version, worker.session);
    drop(worker);
    sleep(Duration::from_secs(5)).await;
    let beat = cluster.ask(identity(101), &Heartbeat { session }).await;
    assert_eq!(beat.unwrap_err(), Refusal::NoSession, "its stream was lost: it must begin another");
    let worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.live(3).await;
    assert_eq!(cluster.node(NodeId::of(101)).meta.version, before);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_nodes_time_to_find_it() {
    let mut cluster = Cluster::of(3, 3).await;
    let [back, gone, down] = [101, 102, 103].map(NodeId::of);
    let mut workers = Vec::new();
    for number in 101..104 {
        workers.push(Worker::begin(&cluster.dispatcher, number).await);
    }
    sleep(A_WHILE).await;
    let left = Leave { session: workers[2].session };
    cluster.ask(identity(103), &left).await.unwrap();
    sleep(A_WHILE).await;
    let was_down = cluster.node(down).meta.version;

    let leading = cluster.managers.leading().await;
    cluster.managers.kill(leading).await;
    cluster.leader = cluster.managers.leader().await;
    let next = Dispatcher::new(Arc::clone(&cluster.leader));
    let begun = Instant::now();
    let worker = Worker::begin(&next, 101).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(cluster.state(gone), NodeState::Unknown);
    assert_eq!(cluster.node(gone).status.message, texts::UNHEARD);
    tokio::join!(worker.live(7), async {
        until("it is down", || cluster.state(gone) == NodeState::Down).await;
        let after = begun.elapsed();
        assert!(after >= 6 * PERIOD && after < 7 * PERIOD, "{after:?}");
    });
    assert_eq!(cluster.node(gone).status.message, texts::NEVER_HEARD);
    assert_eq!(cluster.state(back), NodeState::Ready);
    assert_eq!(cluster.node(down).meta.version, was_down, "since when it is down stays");
}

#[tokio::test(start_paused = true)]
async fn the_machine_that_led_has_less_time_when_raft_does_not_hear_it_either() {
    let mut cluster = Cluster::of(3, 1).await;
    let leading = cluster.managers.leading().await;
    let [lost, follows] = [leading, (leading + 1) % 3].map(|place| cluster.managers.seats[place].site.node);
    for node in [lost, follows] {
        let mut ready = Node::clone(&cluster.node(node));
        ready.status.state = NodeState::Ready;
        cluster.write(StoreAction::Update(ready.into())).await;
    }
    cluster.managers.kill(leading).await;
    cluster.leader = cluster.managers.leader().await;
    let next = Dispatcher::new(Arc::clone(&cluster.leader));
    let begun = Instant::now();
    until("the lost one is down", || cluster.state(lost) == NodeState::Down).await;
    assert!(begun.elapsed() > 2 * PERIOD && begun.elapsed() < 4 * PERIOD, "{:?}", begun.elapsed());
    assert_eq!(cluster.node(lost).status.message, texts::NEVER_HEARD);
    assert_eq!(cluster.state(follows), NodeState::Unknown, "raft hears it");
    until("it is down, too", || cluster.state(follows) == NodeState::Down).await;
    assert!(begun.elapsed() >= 6 * PERIOD, "{:?}", begun.elapsed());
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_down_at_once() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.settle().await;
    cluster.ask(worker.identity, &Leave { session: worker.session }).await.unwrap();
    assert!(!worker.settle().await);
    let status = cluster.node(NodeId::of(101)).status.clone();
    assert_eq!((status.state, status.message.as_str()), (NodeState::Down, texts::LEFT));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_held_up_itself_blames_nobody() {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.settle().await;
    let before = cluster.node(NodeId::of(101)).meta.version;
    tokio::time::advance(Duration::from_secs(60)).await;
    sleep(Duration::from_millis(100)).await;
    worker.beat().await.unwrap();
    worker.live(3).await;
    assert_eq!(cluster.node(NodeId::of(101)).meta.version, before);
}

#[tokio::test(start_paused = true)]
async fn another_period_counts_from_the_next_heartbeat() {
    let cluster = Cluster::with(1).await;
    let worker = Worker::begin(&cluster.dispatcher, 101).await;
    let mut changed =
        cluster.leader.view(|view| ketch_cluster::objects::Cluster::clone(view.cluster().unwrap()));
    changed.spec.dispatcher.heartbeat_period = Duration::from_secs(10);
    cluster.write(StoreAction::Update(changed.into())).await;
    sleep(A_WHILE).await;
    assert_eq!(worker.beat().await.unwrap().next, Duration::from_secs(10));
    sleep(Duration::from_secs(30)).await;
    worker.beat().await.unwrap();
    assert_eq!(cluster.state(NodeId::of(101)), NodeState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_idle_sessions_cost_their_heartbeats() {
    let cluster = Cluster::with(100).await;
    let mut workers = Vec::new();
    for number in 101..201 {
        workers.push(Worker::begin(&cluster.dispatcher, number).await);
    }
    // The founder runs no worker here: it is down by and by.
    for _ in 0..10 {
        futures_util::future::join_all(workers.iter().map(|worker| worker.live(1))).await;
    }
    futures_util::future::join_all(workers.iter_mut().map(Worker::settle)).await;
    let before = cluster.version();
    for _ in 0..30 {
        futures_util::future::join_all(workers.iter().map(|worker| worker.live(1))).await;
    }
    assert_eq!(cluster.version(), before, "nothing was proposed");
    assert!(workers.iter_mut().all(|worker| worker.stream.try_recv().is_err()), "nothing was said");
}
