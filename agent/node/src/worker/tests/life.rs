//! One task's life: its states and texts, holding, stopping, removal, fences.

use std::time::Duration;

use ketch_cluster::objects::TaskState::{
    Complete, Failed, Preparing, Ready, Rejected, Remove, Running, Shutdown, Starting,
};

use super::engine::Script;
use super::lab::{Bench, pass};
use super::leader::with_secret;
use crate::executor::TaskError;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_through_its_states_and_completes() {
    let bench = Bench::new();
    bench.engine.script(1, Script { ends: Some((seconds(60), 0, "")), ..Script::default() });
    bench.leader.assign(1, |_| {});
    bench.told(1, Complete).await;
    let states = bench.leader.states(1);
    assert_eq!(states, [Preparing, Starting, Running, Complete], "what lasts longer than it is gathered for");
    let running = bench.leader.words(1).into_iter().find(|told| told.state == Running).unwrap();
    assert_eq!(running.message, "started");
    assert_eq!(running.container.unwrap().id, "container-1");
    let end = bench.leader.last(1);
    assert_eq!((end.message.as_str(), end.error.as_str()), ("finished", ""));
    assert_eq!(end.running_for.unwrap().as_secs(), 59, "it was healthy a second after it was started");
    assert!(end.state_for < seconds(1));
    assert!(bench.engine.has_container(1), "its logs can be read until it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn ends_have_dockers_texts() {
    let rejected = TaskError::Rejected("No such image: web:none".to_owned());
    let unhealthy = TaskError::Failed("dockerexec: unhealthy container".to_owned());
    let cases = [
        (Script { ends: Some((seconds(9), 1, "")), ..Script::default() }, Failed, "task: non-zero exit (1)"),
        (
            Script { ends: Some((seconds(9), 137, "dockerexec: unhealthy container")), ..Script::default() },
            Failed,
            "task: non-zero exit (137): dockerexec: unhealthy container",
        ),
        (Script { prepared: Err(rejected), ..Script::default() }, Rejected, "No such image: web:none"),
        (
            Script { prepared: Err(TaskError::Failed("no disk".to_owned())), ..Script::default() },
            Rejected,
            "no disk",
        ),
        (Script { started: Err(unhealthy), ..Script::default() }, Failed, "dockerexec: unhealthy container"),
    ];
    for (script, state, error) in cases {
        let bench = Bench::new();
        bench.engine.script(1, script.clone());
        bench.leader.assign(1, |_| {});
        bench.told(1, state).await;
        assert_eq!(bench.leader.last(1).error, error);
        pass(5).await;
        assert_eq!(bench.leader.last(1).state, state);
        assert!(bench.engine.running().is_empty(), "what failed to start does not run: {script:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_exit_code_is_told() {
    let bench = Bench::new();
    bench.engine.script(1, Script { ends: Some((seconds(9), 3, "")), ..Script::default() });
    bench.leader.assign(1, |_| {});
    bench.leader.assign(2, |_| {});
    bench.told(1, Failed).await;
    assert_eq!(bench.leader.last(1).container.unwrap().exit_code, 3);
    bench.leader.want(2, Shutdown);
    bench.told(2, Shutdown).await;
    assert_eq!(bench.leader.last(2).container.unwrap().exit_code, 143);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_held_while_it_is_wanted_ready() {
    let bench = Bench::new();
    bench.leader.want(1, Ready);
    bench.told(1, Ready).await;
    pass(600).await;
    assert_eq!(bench.engine.calls(), ["network", "networked", "prepare 1"]);
    assert_eq!(bench.leader.last(1).message, "prepared");
    bench.leader.want(1, Running);
    bench.told(1, Running).await;
    assert_eq!(bench.engine.count("prepare 1"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_stopped_and_then_removed() {
    let bench = Bench::new();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    bench.leader.want(1, Shutdown);
    bench.told(1, Shutdown).await;
    assert_eq!(bench.leader.last(1).message, "shutdown");
    assert!(bench.engine.has_container(1));
    bench.leader.want(1, Remove);
    pass(1).await;
    bench.leader.remove(1);
    pass(1).await;
    assert!(!bench.engine.has_container(1));
    assert_eq!(bench.engine.count("shutdown 1"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_assignment_does_not_hold_is_stopped_and_removed() {
    let bench = Bench::new();
    bench.leader.assign(1, |_| {});
    bench.leader.assign(2, |_| {});
    bench.told(1, Running).await;
    bench.told(2, Running).await;
    bench.leader.remove(1);
    pass(5).await;
    assert_eq!(bench.engine.running(), [2].into());
    assert!(!bench.engine.has_container(1));
}

#[tokio::test(start_paused = true)]
async fn an_end_is_remembered_after_the_removal_for_a_minute() {
    let bench = Bench::new();
    bench.engine.script(1, Script { ends: Some((seconds(9), 0, "")), ..Script::default() });
    bench.leader.assign(1, |_| {});
    bench.told(1, Complete).await;
    bench.leader.remove(1);
    pass(30).await;
    assert!(!bench.engine.has_container(1));
    bench.leader.assign(1, |_| {});
    pass(30).await;
    assert_eq!(bench.engine.count("prepare 1"), 1, "a leader that was none any more had not known it");
    bench.leader.remove(1);
    pass(120).await;
    bench.leader.assign(1, |_| {});
    pass(30).await;
    assert_eq!(bench.engine.count("prepare 1"), 2, "it is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_what_is_being_pulled_or_started() {
    for (script, state) in [
        (Script { pull: seconds(3600), ..Script::default() }, Preparing),
        (Script { start: seconds(3600), ..Script::default() }, Starting),
    ] {
        let bench = Bench::new();
        bench.engine.script(1, script);
        bench.leader.assign(1, |_| {});
        bench.told(1, state).await;
        pass(10).await;
        bench.leader.want(1, Shutdown);
        bench.told(1, Shutdown).await;
        assert!(bench.engine.running().is_empty());
        assert_eq!(bench.engine.count("shutdown 1"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_never_prepared_is_not_stopped_but_ends() {
    let bench = Bench::new();
    bench.leader.want(1, Shutdown);
    bench.told(1, Shutdown).await;
    assert_eq!(bench.engine.calls(), ["network", "networked"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_says_has_ended_is_not_run() {
    let bench = Bench::new();
    bench.leader.assign(1, |task| {
        task.status.state = Complete;
        task.status.message = "finished".into();
    });
    pass(60).await;
    assert_eq!(bench.engine.calls(), ["network", "networked"]);
    assert_eq!(bench.leader.words(1), [], "the log has it");
}

#[tokio::test(start_paused = true)]
async fn networks_come_before_a_task_is_made_and_before_it_is_stopped() {
    let bench = Bench::without_worker();
    bench.engine.known().network_takes = seconds(4);
    bench.lab.connect(super::lab::LEADER, &bench.leader);
    let bench = bench.opened();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    let calls = bench.engine.calls();
    let place = |call: &str| calls.iter().position(|it| it == call).unwrap();
    assert!(place("networked") < place("prepare 1"), "{calls:?}");
    assert!(matches!(bench.engine.known().networks[0].as_slice(), []));
}

#[tokio::test(start_paused = true)]
async fn networks_that_fail_are_tried_again_and_hold_up_a_task_for_half_a_minute() {
    let bench = Bench::without_worker();
    bench.engine.known().network_fails = true;
    bench.lab.connect(super::lab::LEADER, &bench.leader);
    let bench = bench.opened();
    bench.leader.assign(1, |_| {});
    pass(20).await;
    assert!((6..=8).contains(&bench.engine.count("networked")), "{:?}", bench.engine.calls());
    assert_eq!(bench.engine.count("prepare 1"), 0);
    bench.told(1, Running).await;
    bench.leader.want(1, Shutdown);
    bench.told(1, Shutdown).await;
}

#[tokio::test(start_paused = true)]
async fn secrets_are_given_and_never_written() {
    let mut bench = Bench::new();
    bench.leader.add_secret(1, "the-secret-data");
    bench.engine.script(1, Script { pull: seconds(100), ..Script::default() });
    bench.leader.assign(1, |task| with_secret(task, 1));
    bench.told(1, Preparing).await;
    pass(10).await;
    assert_eq!(bench.engine.known().secrets_given.values().copied().collect::<Vec<_>>(), [1]);
    let data = serde_json::to_string(b"the-secret-data".as_slice()).unwrap();
    assert!(bench.lab.has_on_disk("web.1") && !bench.lab.has_on_disk(&data));
    assert!(!bench.lab.has_on_disk("registry-password"));

    bench.lab.disconnect();
    bench.reopen().await;
    pass(600).await;
    assert_eq!(bench.engine.count("prepare 1"), 1, "it waits for the manager's secrets");
    bench.lab.connect(super::lab::LEADER, &bench.leader);
    bench.told(1, Running).await;
    assert_eq!(bench.engine.count("prepare 1"), 2);
}

#[tokio::test(start_paused = true)]
async fn tasks_run_on_without_managers_and_after_a_restart_too() {
    let mut bench = Bench::new();
    bench.engine.script(2, Script { ends: Some((seconds(1800), 0, "")), ..Script::default() });
    for task in [1, 2, 3] {
        bench.leader.assign(task, |_| {});
        bench.told(task, Running).await;
    }
    bench.leader.known().words.clear();
    bench.lab.disconnect();
    pass(600).await;
    bench.reopen().await;
    pass(3000).await;
    assert_eq!(bench.engine.running(), [1, 3].into());
    bench.lab.connect(super::lab::LEADER, &bench.leader);
    bench.told(2, Complete).await;
    bench.told(1, Running).await;
    let age = bench.leader.last(2).state_for.as_secs();
    assert!((1750..=1850).contains(&age), "an end has the age that it has: {age}");
    let running = bench.leader.last(1).running_for.unwrap().as_secs();
    assert!((3600..=3700).contains(&running), "and so has a task that was taken up: {running}");
    assert_eq!((bench.engine.count("prepare 1"), bench.engine.count("start 1")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_gone_fails_its_task() {
    let bench = Bench::new();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    bench.engine.lose(1);
    bench.told(1, Failed).await;
    assert_eq!(bench.leader.last(1).error, "no such container");
}

#[tokio::test(start_paused = true)]
async fn containers_of_tasks_that_nobody_knows_are_removed() {
    let bench = Bench::without_worker();
    bench.engine.put_container(9);
    bench.engine.put_container(1);
    bench.leader.assign(1, |_| {});
    let bench = bench.opened();
    pass(60).await;
    assert!(bench.engine.has_container(9), "without the leader nobody knows that");
    bench.lab.connect(super::lab::LEADER, &bench.leader);
    bench.told(1, Running).await;
    pass(1).await;
    assert!(!bench.engine.has_container(9));
    assert_eq!(bench.engine.known().made.len(), 0, "the container that was there is taken");
}

fn fenced(bench: &Bench, fence: &str) {
    bench.leader.assign(1, |task| {
        task.service_labels.insert("ketch.fence".to_owned(), fence.to_owned());
    });
    bench.leader.assign(2, |_| {});
}

#[tokio::test(start_paused = true)]
async fn a_fence_stops_a_task_after_its_span_without_a_manager() {
    let bench = Bench::new();
    fenced(&bench, "30s");
    bench.told(1, Running).await;
    bench.told(2, Running).await;
    pass(600).await;
    assert_eq!(bench.engine.running(), [1, 2].into());
    bench.lab.disconnect();
    pass(24).await;
    assert_eq!(bench.engine.running(), [1, 2].into());
    pass(8).await;
    assert_eq!(bench.engine.running(), [2].into());
    bench.lab.connect(super::lab::LEADER, &bench.leader);
    bench.told(1, Shutdown).await;
    assert!(bench.leader.last(1).message.contains("ketch.fence"));
}

#[tokio::test(start_paused = true)]
async fn a_fence_counts_through_a_restart() {
    for (before, after, runs) in [(10, 10, true), (20, 12, false), (3600, 3, false)] {
        let mut bench = Bench::new();
        fenced(&bench, "30s");
        bench.told(1, Running).await;
        bench.told(2, Running).await;
        bench.lab.disconnect();
        bench.crash().await;
        pass(before).await;
        bench.open();
        pass(after).await;
        assert_eq!(bench.engine.running().contains(&1), runs, "{before} s before, {after} s after");
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_stops_and_removes_everything() {
    let bench = Bench::new();
    bench.leader.assign(1, |_| {});
    bench.leader.assign(2, |_| {});
    bench.told(1, Running).await;
    bench.told(2, Running).await;
    bench.worker.as_ref().unwrap().leave().await;
    assert!(!bench.engine.has_container(1) && !bench.engine.has_container(2));
    assert_eq!(bench.engine.known().networks.last().map(Vec::len), Some(0));
    assert_eq!([bench.leader.last(1).state, bench.leader.last(2).state], [Shutdown; 2]);
    assert!(bench.leader.known().has_left);
    pass(60).await;
    assert_eq!(bench.leader.known().asked.len(), 1, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn leaving_without_managers_ends_too() {
    let bench = Bench::new();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    bench.lab.disconnect();
    pass(60).await;
    bench.worker.as_ref().unwrap().leave().await;
    assert!(!bench.engine.has_container(1));
}

#[tokio::test(start_paused = true)]
async fn shutting_down_leaves_everything() {
    let mut bench = Bench::new();
    bench.leader.assign(1, |_| {});
    bench.told(1, Running).await;
    bench.worker.take().unwrap().shutdown().await;
    pass(60).await;
    assert_eq!(bench.engine.running(), [1].into());
    assert_eq!(bench.leader.states(1).last(), Some(&Running));
    bench.open();
    bench.leader.sessions(2).await;
    assert_eq!(bench.leader.last(1).state, Running);
}

/// As in ketchd, where the disk has threads of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_on_many_threads_by_the_real_clock() {
    let mut bench = Bench::without_worker();
    let short = Duration::from_millis(20);
    for task in 1..=20 {
        let script = Script { pull: short, start: short, stop: short, ..Script::default() };
        let ends = (task % 2 == 0).then_some((short, 0, ""));
        bench.engine.script(task, Script { ends, ..script });
        bench.leader.assign(task, |_| {});
    }
    bench.lab.connect(super::lab::LEADER, &bench.leader);
    bench.open();
    for task in 1..=20 {
        bench.told(task, if task % 2 == 0 { Complete } else { Running }).await;
    }
    bench.reopen().await;
    bench.leader.want(1, Shutdown);
    bench.told(1, Shutdown).await;
}
