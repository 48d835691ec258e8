use super::*;
use crate::executor::{LogLine, LogOptions};

const TASK: TaskId = TaskId::of(5);

fn line(at: u64, text: &str) -> LogLine {
    LogLine { at: Timestamp(at), stream: 1, line: text.as_bytes().to_vec(), attributes: Default::default() }
}

fn all() -> LogOptions {
    LogOptions { stdout: true, stderr: true, follow: true, tail: Some(10), ..LogOptions::default() }
}

fn lines(worker: &Worker, task: TaskId, lines: Vec<LogLine>) -> LogsTell {
    let subscription = worker.logs.iter().rev().find(|it| it.tasks == [task]).unwrap().subscription;
    let lines = lines.into_iter().map(|line| (task, line)).collect();
    LogsTell { session: worker.session, subscription, lines, ended: Vec::new() }
}

fn end(worker: &Worker, task: TaskId, why: &str) -> LogsTell {
    LogsTell { ended: vec![(task, why.to_owned())], ..lines(worker, task, Vec::new()) }
}

async fn send(worker: &Worker, told: &LogsTell) -> bool {
    ask(&worker.dispatcher, worker.identity, told).await.unwrap().go_on
}

async fn with_workers() -> (Cluster, Worker, Worker) {
    let cluster = Cluster::with(2).await;
    let mut workers = Vec::new();
    for number in [101, 102] {
        let mut worker = Worker::begin(&cluster.dispatcher, number).await;
        worker.settle().await;
        workers.push(worker);
    }
    let second = workers.remove(1);
    (cluster, workers.remove(0), second)
}

#[tokio::test(start_paused = true)]
async fn lines_of_several_nodes_are_merged_and_the_stream_ends_with_the_last() {
    let (cluster, mut first, mut second) = with_workers().await;
    let other = TaskId::of(6);
    let tasks = [(TASK, Some(first.identity.node)), (other, Some(second.identity.node))];
    let (mut stream, handle) = cluster.dispatcher.logs(tasks, all());
    drop(handle);
    first.settle().await;
    second.settle().await;
    assert_eq!(first.logs[0].options, all());
    assert!(send(&first, &lines(&first, TASK, vec![line(1, "a"), line(2, "b")])).await);
    assert!(send(&second, &lines(&second, other, vec![line(3, "c")])).await);
    assert!(!send(&first, &end(&first, TASK, "")).await);
    assert!(!send(&second, &end(&second, other, "no log driver")).await);
    let mut got = Vec::new();
    while let Some(message) = stream.next().await {
        got.push(message);
    }
    let of =
        |task, number, at, text| LogMessage::Line { task, node: NodeId::of(number), line: line(at, text) };
    let ended = |task, error: Option<&str>| LogMessage::Ended { task, error: error.map(str::to_owned) };
    assert_eq!(
        got,
        [
            of(TASK, 101, 1, "a"),
            of(TASK, 101, 2, "b"),
            of(other, 102, 3, "c"),
            ended(TASK, None),
            ended(other, Some("no log driver")),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_cant_be_had_ends_with_why_and_the_rest_goes_on() {
    let (cluster, mut first, second) = with_workers().await;
    let [lost, waiting, gone] = [6, 7, 8].map(TaskId::of);
    let tasks = [
        (TASK, Some(first.identity.node)),
        (lost, Some(second.identity.node)),
        (waiting, None),
        (gone, Some(NodeId::of(999))),
    ];
    let (mut stream, handle) = cluster.dispatcher.logs(tasks, all());
    first.settle().await;
    let mut ended = std::collections::BTreeMap::new();
    let mut take = |message| {
        if let LogMessage::Ended { task, error } = message {
            ended.insert(task, error.unwrap());
        }
    };
    take(stream.next().await.unwrap());
    take(stream.next().await.unwrap());
    // It falls silent.
    let (message, ()) = tokio::join!(stream.next(), first.live(4));
    take(message.unwrap());
    assert_eq!(ended[&waiting], texts::not_scheduled(waiting));
    assert_eq!(ended[&gone], texts::node_not_available(NodeId::of(999)));
    assert_eq!(ended[&lost], texts::node_not_available(second.identity.node));
    assert!(send(&first, &lines(&first, TASK, vec![line(1, "still there")])).await);
    assert!(matches!(stream.next().await, Some(LogMessage::Line { task: TASK, .. })));
    // It has a node by now.
    handle.add(waiting, Some(first.identity.node));
    handle.add(TASK, Some(first.identity.node));
    first.settle().await;
    assert_eq!(first.logs.iter().map(|it| it.tasks[0]).collect::<Vec<_>>(), [TASK, waiting]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_holds_the_node_back() {
    let (cluster, mut first, _second) = with_workers().await;
    let (mut stream, _handle) = cluster.dispatcher.logs([(TASK, Some(first.identity.node))], all());
    first.settle().await;
    let many = lines(&first, TASK, (0..1000).map(|number| line(number, "x")).collect());
    let mut sent = std::pin::pin!(send(&first, &many));
    assert!(timeout(Duration::from_secs(1), &mut sent).await.is_err(), "it waits");
    let (sent, ()) = tokio::join!(sent, async {
        for number in 0..1000 {
            let Some(LogMessage::Line { line, .. }) = stream.next().await else { panic!() };
            assert_eq!(line.at, Timestamp(number));
        }
    });
    assert!(sent);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gives_its_call_up_is_asked_for_the_rest() {
    let (cluster, mut first, _second) = with_workers().await;
    let (mut stream, _handle) = cluster.dispatcher.logs([(TASK, Some(first.identity.node))], all());
    first.settle().await;
    let many = lines(&first, TASK, (0..1000).map(|number| line(number, "x")).collect());
    assert!(timeout(Duration::from_secs(1), send(&first, &many)).await.is_err());
    first.settle().await;
    assert_eq!(first.logs_ended, [many.subscription]);
    let since = first.logs[1].options.since.unwrap();
    let mut last = None;
    while let Ok(Some(LogMessage::Line { line, .. })) = timeout(A_WHILE, stream.next()).await {
        last = Some(line.at);
    }
    assert_eq!(last.unwrap().after(Duration::from_nanos(1)), since, "nothing twice, nothing left out");
    assert!(!send(&first, &many).await, "by the first number nothing is taken");
}

#[tokio::test(start_paused = true)]
async fn nobody_who_reads_is_told_to_the_node() {
    let (cluster, mut first, _second) = with_workers().await;
    let (stream, _handle) = cluster.dispatcher.logs([(TASK, Some(first.identity.node))], all());
    first.settle().await;
    drop(stream);
    first.settle().await;
    assert_eq!(first.logs_ended, [first.logs[0].subscription]);
    assert!(!send(&first, &lines(&first, TASK, vec![line(1, "x")])).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_back_goes_on_after_the_last_line() {
    let (cluster, mut first, second) = with_workers().await;
    let (_stream, _handle) = cluster.dispatcher.logs([(TASK, Some(first.identity.node))], all());
    first.settle().await;
    assert!(send(&first, &lines(&first, TASK, vec![line(41, "x")])).await);
    let forged = LogsTell { session: second.session, ..lines(&first, TASK, vec![line(1, "not its own")]) };
    assert!(!send(&second, &forged).await);
    let mut again = Worker::begin(&cluster.dispatcher, 101).await;
    again.settle().await;
    let options = LogOptions { since: Some(Timestamp(42)), tail: None, ..all() };
    assert_eq!(again.logs[0].options, options);
}

#[tokio::test(start_paused = true)]
async fn with_the_leadership_the_stream_ends() {
    let (cluster, first, _second) = with_workers().await;
    let (mut stream, handle) = cluster.dispatcher.logs([(TASK, Some(first.identity.node))], all());
    drop(handle);
    cluster.managers.kill(0).await;
    assert_eq!(stream.next().await, None);
}
