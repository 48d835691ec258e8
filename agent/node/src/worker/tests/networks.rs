//! What the executor is told of networks.

use ketch_cluster::assignment::{Item, ItemId, Traffic};
use ketch_cluster::id::TaskId;
use ketch_cluster::objects::TaskState::{Running, Shutdown};
use ketch_cluster::objects::cluster::SecretBytes;

use super::lab::{Bench, LEADER, pass};
use super::leader::{NETWORK, in_network};

fn traffic(bench: &Bench, task: u128) -> Option<Traffic> {
    let known = bench.engine.known();
    let items = known.networks.last()?;
    items.iter().find_map(|item| match item {
        Item::Neighbour(it) if it.task == TaskId::of(task) => Some(it.traffic),
        _ => None,
    })
}

fn knows(bench: &Bench, id: ItemId) -> bool {
    bench.engine.known().networks.last().is_some_and(|items| items.iter().any(|item| item.id() == id))
}

async fn serving() -> Bench {
    let bench = Bench::new();
    bench.leader.add_network();
    bench.leader.assign(1, in_network);
    bench.told(1, Running).await;
    bench.leader.send_changes();
    pass(1).await;
    assert_eq!(traffic(&bench, 1), Some(Traffic::Serving));
    bench
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_has_heard_nothing_changes_no_traffic() {
    let bench = serving().await;
    bench.leader.forget();
    bench.leader.known().asked.clear();
    bench.leader.assign(2, in_network);
    bench.leader.sessions(1).await;
    pass(1).await;
    assert_eq!(traffic(&bench, 1), Some(Traffic::Serving), "what was known holds");
    assert_eq!(traffic(&bench, 2), Some(Traffic::None), "nothing was");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_without_managers_networks_are_as_they_were_but_for_keys() {
    let mut bench = serving().await;
    assert!(knows(&bench, ItemId::DataKeys));
    bench.lab.disconnect();
    bench.engine.known().calls.clear();
    bench.reopen().await;
    pass(60).await;
    assert_eq!(bench.engine.count("network"), 1);
    assert_eq!(traffic(&bench, 1), Some(Traffic::Serving));
    assert!(knows(&bench, ItemId::Network(NETWORK)) && !knows(&bench, ItemId::DataKeys));
    let key = serde_json::to_string(&SecretBytes(vec![77; 32])).unwrap();
    assert!(bench.lab.has_on_disk("backend") && !bench.lab.has_on_disk(&key));
    bench.lab.connect(LEADER, &bench.leader);
    pass(20).await;
    assert!(knows(&bench, ItemId::DataKeys));
    assert_eq!(bench.engine.running(), [1].into());
}

#[tokio::test(start_paused = true)]
async fn a_task_is_stopped_after_the_executor_has_heard_that_it_is_to_be() {
    let bench = serving().await;
    bench.engine.known().network_takes = std::time::Duration::from_secs(5);
    bench.engine.known().calls.clear();
    bench.leader.want(1, Shutdown);
    bench.told(1, Shutdown).await;
    let calls = bench.engine.calls();
    let place = |call: &str| calls.iter().position(|it| it == call).unwrap();
    assert!(place("networked") < place("shutdown 1"), "{calls:?}");
    let known = bench.engine.known();
    let is_draining = |items: &Vec<Item>| {
        items.iter().any(|it| matches!(it, Item::Neighbour(it) if it.traffic == Traffic::Draining))
    };
    assert!(known.networks.iter().any(is_draining));
}
