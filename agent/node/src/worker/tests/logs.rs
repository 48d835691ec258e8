//! Logs on their way to the leader.

use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::objects::TaskState::Running;

use super::lab::{Bench, pass};
use crate::calls::{LogsWanted, SessionMessage};
use crate::executor::LogOptions;

async fn reading(bench: &Bench, tasks: &[u128]) {
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    let tasks = tasks.iter().map(|task| TaskId::of(*task)).collect();
    bench.leader.send(&SessionMessage::Logs(LogsWanted {
        subscription: 5,
        tasks,
        options: LogOptions::default(),
    }));
}

#[tokio::test(start_paused = true)]
async fn lines_come_in_order_and_end() {
    let bench = Bench::new();
    bench.engine.known().log_lines = 3000;
    reading(&bench, &[1, 9]).await;
    pass(5).await;
    let known = bench.leader.known();
    let lines: Vec<_> = known.logs.iter().flat_map(|it| &it.lines).map(|(_, line)| line.at.0).collect();
    assert_eq!(lines, (0..3000).collect::<Vec<_>>());
    let mut ended: Vec<_> = known.logs.iter().flat_map(|it| it.ended.clone()).collect();
    ended.sort();
    assert_eq!(ended[0], (TaskId::of(1), String::new()));
    assert_eq!(ended[1], (TaskId::of(9), format!("task {} is not on this node", TaskId::of(9))));
    assert!(known.logs.len() < 12, "in batches");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_little() {
    let bench = Bench::new();
    bench.engine.known().log_lines = 1_000_000;
    bench.leader.known().logs_take = Duration::from_secs(20);
    reading(&bench, &[1]).await;
    pass(50).await;
    assert_eq!(bench.leader.known().logs.len(), 3);
    let read = bench.engine.known().lines_read;
    assert!(read < 4 * 512, "{read}");
    bench.leader.send(&SessionMessage::LogsEnd { subscription: 5 });
    pass(600).await;
    assert_eq!(bench.engine.known().lines_read, read, "nobody reads any more");
}

#[tokio::test(start_paused = true)]
async fn reading_ends_when_nothing_more_is_wanted_or_the_session_ends() {
    for ends_session in [false, true] {
        let bench = Bench::new();
        bench.engine.known().log_lines = 1_000_000;
        bench.leader.known().logs_take = Duration::from_secs(1);
        reading(&bench, &[1]).await;
        pass(5).await;
        if ends_session {
            bench.leader.end_session()
        } else {
            bench.leader.known().logs_go_on = false
        }
        pass(5).await;
        let read = bench.engine.known().lines_read;
        pass(60).await;
        assert_eq!(bench.engine.known().lines_read, read);
    }
}
