use super::*;
use crate::calls::Tell;

async fn with_tasks(replicas: u64) -> (Cluster, Worker, Vec<TaskId>) {
    let cluster = Cluster::with(1).await;
    let mut worker = Worker::begin(&cluster.dispatcher, 101).await;
    worker.settle().await;
    let service = cluster.service("web", replicas).await;
    cluster.placed(service, replicas as usize).await;
    let tasks = cluster.tasks_on(NodeId::of(101));
    assert_eq!(tasks.len(), replicas as usize, "nobody else is ready");
    (cluster, worker, tasks)
}

fn committed(cluster: &Cluster, task: TaskId) -> (TaskState, Version) {
    cluster.leader.view(|view| view.task(task).map(|it| (it.status.state, it.meta.version)).unwrap())
}

#[tokio::test(start_paused = true)]
async fn states_before_the_end_enter_no_log() {
    let (cluster, worker, tasks) = with_tasks(1).await;
    sleep(A_WHILE).await;
    let before = cluster.version();
    for state in [TaskState::Accepted, TaskState::Preparing, TaskState::Starting, TaskState::Running] {
        assert_eq!(worker.tell(vec![(tasks[0], word(state))]).await.unwrap(), []);
        assert_eq!(cluster.leader.view(|view| view.state(view.task(tasks[0]).unwrap())), state);
    }
    sleep(A_WHILE).await;
    assert_eq!(cluster.version(), before);
}

#[tokio::test(start_paused = true)]
async fn an_end_is_acknowledged_once_it_is_committed_and_committed_once() {
    let (cluster, worker, tasks) = with_tasks(1).await;
    let mut end = word(TaskState::Failed);
    end.error = "task: non-zero exit (3)".to_owned();
    assert_eq!(worker.tell(vec![(tasks[0], end.clone())]).await.unwrap(), tasks);
    let (state, version) = committed(&cluster, tasks[0]);
    assert_eq!(state, TaskState::Failed);
    let status = cluster.leader.view(|view| view.task(tasks[0]).unwrap().status.clone());
    assert_eq!(*status.error, *end.error);
    assert_eq!(
        worker.tell(vec![(tasks[0], end)]).await.unwrap(),
        tasks,
        "told again, it is acknowledged again"
    );
    sleep(A_WHILE).await;
    let (again, later) = committed(&cluster, tasks[0]);
    assert_eq!(again, TaskState::Failed);
    // The orchestrator may have written it since; the end itself is the same.
    assert!(later >= version);
    assert_eq!(cluster.leader.view(|view| view.task(tasks[0]).unwrap().status.clone()), status);
}

#[tokio::test(start_paused = true)]
async fn many_ends_are_few_proposals_and_never_more_than_one_in_100_ms() {
    let (cluster, worker, tasks) = with_tasks(500).await;
    sleep(A_WHILE).await;
    let mut changes = cluster.leader.changes();
    let words = tasks.iter().map(|task| (*task, word(TaskState::Complete))).collect();
    let told = worker.tell(words);
    let seen = async {
        let mut ends = Vec::new();
        while ends.iter().map(|(_, count)| count).sum::<usize>() < 500 {
            let Some(Wake::Committed(committed)) = changes.next().await else { continue };
            let is_end = |change: &&Change| {
                matches!((&change.old, &change.new), (Some(Object::Task(old)), Some(Object::Task(new)))
                    if !old.status.state.is_terminal() && new.status.state == TaskState::Complete)
            };
            let count = committed.changes.iter().filter(is_end).count();
            if count > 0 {
                ends.push((Instant::now(), count));
            }
        }
        ends
    };
    let (told, ends) = tokio::join!(told, seen);
    assert_eq!(told.unwrap().len(), 500);
    assert_eq!(ends.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [200, 200, 100]);
    assert!(ends.windows(2).all(|pair| pair[1].0 - pair[0].0 >= Duration::from_millis(100)));
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_acknowledgement_was_lost_is_told_to_the_next_leader() {
    let (cluster, worker, tasks) = with_tasks(1).await;
    let words = vec![(tasks[0], word(TaskState::Complete))];
    let told = Tell { session: worker.session, words: words.clone() };
    let (dispatcher, identity) = (Arc::clone(&cluster.dispatcher), worker.identity);
    let call = tokio::spawn(async move { ask(&dispatcher, identity, &told).await });
    let mut changes = cluster.leader.changes();
    while committed(&cluster, tasks[0]).0 != TaskState::Complete {
        changes.next().await;
    }
    call.abort();
    let status = cluster.leader.view(|view| view.task(tasks[0]).unwrap().status.clone());
    let next = Dispatcher::new(Arc::clone(&cluster.leader));
    let again = SessionAsked { words: words.clone(), ..asked(101) };
    let worker = Worker::begin_with(&next, identity, again).await.unwrap();
    assert_eq!(worker.tell(words).await.unwrap(), tasks);
    assert_eq!(cluster.leader.view(|view| view.task(tasks[0]).unwrap().status.clone()), status);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_a_session_begins_with_is_committed() {
    let (cluster, _worker, tasks) = with_tasks(1).await;
    let again = SessionAsked { words: vec![(tasks[0], word(TaskState::Shutdown))], ..asked(101) };
    let _worker = Worker::begin_with(&cluster.dispatcher, identity(101), again).await.unwrap();
    sleep(A_WHILE).await;
    assert_eq!(committed(&cluster, tasks[0]).0, TaskState::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn words_are_noted_before_the_node_is_ready() {
    let (cluster, worker, tasks) = with_tasks(1).await;
    drop(worker);
    until("it is down", || cluster.state(NodeId::of(101)) == NodeState::Down).await;
    let mut changes = cluster.leader.changes();
    let again = SessionAsked { words: vec![(tasks[0], word(TaskState::Running))], ..asked(101) };
    let _worker = Worker::begin_with(&cluster.dispatcher, identity(101), again).await.unwrap();
    let mut wakes = Vec::new();
    while cluster.state(NodeId::of(101)) != NodeState::Ready {
        wakes.push(changes.next().await.unwrap());
    }
    // Others change meanwhile what they have to.
    assert!(wakes.iter().any(|wake| matches!(wake, Wake::Noted(noted) if **noted == tasks[..])), "{wakes:?}");
}

#[tokio::test(start_paused = true)]
async fn words_on_tasks_of_others_are_not_taken() {
    let (cluster, worker, tasks) = with_tasks(1).await;
    let other_node = Node { description: None, ..objects::node(102) };
    cluster.write(StoreAction::Create(other_node.into())).await;
    let other = Worker::begin(&cluster.dispatcher, 102).await;
    let before = cluster.leader.view(|view| view.state(view.task(tasks[0]).unwrap()));
    other
        .tell(vec![(tasks[0], word(TaskState::Running)), (tasks[0], word(TaskState::Failed))])
        .await
        .unwrap();
    let forged = SessionAsked { words: vec![(tasks[0], word(TaskState::Failed))], ..asked(102) };
    let _other = Worker::begin_with(&cluster.dispatcher, identity(102), forged).await.unwrap();
    sleep(A_WHILE).await;
    assert_eq!(cluster.leader.view(|view| view.state(view.task(tasks[0]).unwrap())), before);
    assert!(!committed(&cluster, tasks[0]).0.is_terminal());
    for state in [TaskState::Orphaned, TaskState::Remove, TaskState::New, TaskState::Pending] {
        assert_eq!(
            worker.tell(vec![(tasks[0], word(state))]).await.unwrap(),
            [],
            "{state:?} is no worker's word"
        );
    }
    assert!(!committed(&cluster, tasks[0]).0.is_terminal());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_task_that_is_gone_is_acknowledged_at_once() {
    let (cluster, worker, _) = with_tasks(1).await;
    let before = cluster.version();
    let gone = TaskId::of(77);
    assert_eq!(worker.tell(vec![(gone, word(TaskState::Complete))]).await.unwrap(), [gone]);
    assert_eq!(worker.tell(vec![(gone, word(TaskState::Running))]).await.unwrap(), []);
    assert_eq!(cluster.version(), before);
}
