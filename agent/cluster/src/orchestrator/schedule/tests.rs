//! Jobs that run every ten minutes, and all that can come between.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::simulated::Simulated;
use super::*;
use crate::fixture::{self, at};
use crate::objects::{ServiceMode, TaskState};

/// The cluster begins at 1000 s after 1970: the first due time is at 1200.
const TEN_MINUTES: &str = "*/10 * * * *";

fn job(labels: &[(&str, &str)]) -> Service {
    let mut job = fixture::service(1, ServiceMode::ReplicatedJob { max_concurrent: 1, total_completions: 1 });
    let schedule = Some(ScheduleStatus { decided_until: at(1000), ran: false, passed: None });
    job.job = Some(JobStatus { iteration: 0, last_execution: at(1000), schedule });
    let every = [(schedule::LABEL, TEN_MINUTES)];
    let labels = every.iter().chain(labels).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    job.spec.labels = labels.collect();
    job
}

fn cluster(labels: &[(&str, &str)]) -> Simulated {
    let mut cluster = Simulated::new(3, job(labels));
    cluster.settle();
    cluster
}

fn iteration(cluster: &Simulated) -> u64 {
    cluster.service().job.unwrap().iteration
}

fn decided(cluster: &Simulated) -> Timestamp {
    cluster.service().job.unwrap().schedule.unwrap().decided_until
}

/// Goes to that moment, and lets what is due there happen.
fn go_to(cluster: &mut Simulated, seconds: u64) {
    cluster.pass(at(seconds).since(cluster.now).as_secs());
    cluster.settle();
}

fn finish(cluster: &mut Simulated) {
    for _ in 0..6 {
        cluster.work();
        cluster.settle();
    }
}

/// The runs whose tasks are there, and those of them that may run still.
fn runs(cluster: &Simulated) -> (Vec<u64>, Vec<u64>) {
    let tasks = cluster.tasks();
    let live =
        tasks.iter().filter(|it| !it.status.state.is_terminal() && it.desired_state < TaskState::Shutdown);
    let of = |tasks: BTreeSet<Option<u64>>| tasks.into_iter().flatten().collect();
    (of(tasks.iter().map(|it| it.job_iteration).collect()), of(live.map(|it| it.job_iteration).collect()))
}

#[test]
fn nothing_runs_before_its_time_and_each_time_once() {
    let mut cluster = cluster(&[]);
    assert_eq!((cluster.tasks().len(), cluster.wake_at), (0, Some(at(1060))), "a clock may jump");
    go_to(&mut cluster, 1150);
    assert_eq!((cluster.tasks().len(), cluster.wake_at), (0, Some(at(1200))));
    for (moment, number) in [(1200, 1), (1260, 1), (1800, 2), (2400, 3)] {
        go_to(&mut cluster, moment);
        finish(&mut cluster);
        assert_eq!(iteration(&cluster), number, "at {moment}");
    }
    let job = cluster.service().job.unwrap();
    assert_eq!((job.last_execution, decided(&cluster)), (at(2400), at(2400)));
    assert_eq!(runs(&cluster), (vec![1, 2, 3], vec![]));
}

#[test]
fn what_was_missed_is_skipped_or_run_once_for_all() {
    for (policy, number) in [("skip", 0), ("run-once", 1)] {
        let mut cluster = cluster(&[(schedule::MISSED, policy)]);
        go_to(&mut cluster, 1000 + 3 * 86_400 + 300);
        assert_eq!(iteration(&cluster), number, "{policy}");
        assert!(decided(&cluster) > at(3 * 86_400), "and none of it comes again");
    }
    let mut cluster = cluster(&[]);
    go_to(&mut cluster, 1245);
    assert_eq!(iteration(&cluster), 1, "an election is no miss");
}

#[test]
fn a_run_that_goes_on_forbids_or_suffers_or_leaves() {
    for (overlap, number, live) in [("forbid", 1, vec![1]), ("allow", 2, vec![1, 2]), ("replace", 2, vec![2])]
    {
        let mut cluster = cluster(&[(schedule::OVERLAP, overlap)]);
        go_to(&mut cluster, 1200);
        cluster.work();
        go_to(&mut cluster, 1800);
        assert_eq!((iteration(&cluster), runs(&cluster).1), (number, live), "{overlap}");
        assert_eq!(decided(&cluster), at(1800));
        finish(&mut cluster);
        go_to(&mut cluster, 2400);
        assert_eq!(iteration(&cluster), number + 1, "{overlap}: nothing is in the way any more");
    }
}

#[test]
fn a_run_that_goes_on_where_nothing_new_may_is_not_over() {
    let mut daily = job(&[]);
    daily.spec.mode = ServiceMode::GlobalJob;
    let mut cluster = Simulated::new(3, daily);
    cluster.settle();
    go_to(&mut cluster, 1200);
    cluster.work();
    let tasks = cluster.tasks();
    assert_eq!(tasks.len(), 3);
    cluster.set_availability(tasks[0].node.unwrap().bits(), crate::objects::node::Availability::Pause);
    for task in &tasks[1..] {
        cluster.set_state(task.id, TaskState::Complete);
    }
    cluster.settle();
    go_to(&mut cluster, 1800);
    assert_eq!(iteration(&cluster), 1, "its paused node has a task that runs");
    assert_eq!(cluster.store.task(tasks[0].id).unwrap().desired_state, TaskState::Complete);
}

#[test]
fn what_is_let_go_on_leaves_a_drained_node() {
    let mut cluster = cluster(&[(schedule::OVERLAP, "allow")]);
    go_to(&mut cluster, 1200);
    cluster.work();
    go_to(&mut cluster, 1800);
    let first = cluster.tasks().into_iter().find(|it| it.job_iteration == Some(1)).unwrap();
    cluster.set_availability(first.node.unwrap().bits(), crate::objects::node::Availability::Drain);
    cluster.settle();
    assert_eq!(cluster.store.task(first.id).unwrap().desired_state, TaskState::Remove);
}

#[test]
fn so_many_runs_are_kept() {
    for (kept, numbers) in [("0", vec![6]), ("2", vec![4, 5, 6]), ("100", vec![1, 2, 3, 4, 5, 6])] {
        let mut cluster = cluster(&[(schedule::HISTORY, kept)]);
        cluster.set_history(1);
        for run in 0..6 {
            go_to(&mut cluster, 1200 + run * 600);
            finish(&mut cluster);
        }
        assert_eq!(runs(&cluster).0, numbers, "{kept}");
    }
}

#[test]
fn a_clock_that_was_ahead_brings_nothing_twice_and_is_not_waited_for_for_ever() {
    let mut cluster = cluster(&[]);
    go_to(&mut cluster, 7200);
    finish(&mut cluster);
    assert_eq!(iteration(&cluster), 1);
    cluster.change_leader_behind(3000);
    cluster.run(4);
    assert_eq!((iteration(&cluster), decided(&cluster)), (1, at(7200)), "what has been decided stays so");
    go_to(&mut cluster, 7799);
    assert_eq!(iteration(&cluster), 1);
    go_to(&mut cluster, 7800);
    assert_eq!(iteration(&cluster), 2);
    finish(&mut cluster);
    go_to(&mut cluster, 400 * 86_400);
    finish(&mut cluster);
    let ahead = iteration(&cluster);
    cluster.change_leader_behind(399 * 86_400 - 100);
    cluster.settle();
    assert!(decided(&cluster) <= cluster.now, "a year ahead was a wrong clock");
    go_to(&mut cluster, 87_000);
    assert_eq!(iteration(&cluster), ahead + 1);
}

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Clock(i64),
    Work,
    Zone(&'static str),
}

fn event() -> impl Strategy<Value = Event> {
    let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York"]);
    prop_oneof![
        6 => (1..900_u64).prop_map(Event::Pass),
        1 => (900..30_000_u64).prop_map(Event::Pass),
        2 => (-20_000..20_000_i64).prop_map(Event::Clock),
        3 => Just(Event::Work),
        1 => zone.prop_map(Event::Zone),
    ]
}

proptest! {
    #[test]
    fn no_due_time_makes_two_runs(
        missed in prop::sample::select(vec!["skip", "run-once"]),
        overlap in prop::sample::select(vec!["allow", "forbid", "replace"]),
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut cluster = cluster(&[(schedule::MISSED, missed), (schedule::OVERLAP, overlap)]);
        let mut ran = BTreeSet::new();
        for event in events {
            let before = iteration(&cluster);
            match event {
                Event::Pass(seconds) => cluster.pass(seconds),
                Event::Clock(behind) => cluster.change_leader_behind(behind),
                Event::Work => drop(cluster.work()),
                Event::Zone(zone) => {
                    let mut service = cluster.service().clone();
                    service.spec.labels.insert(schedule::ZONE.to_owned(), zone.to_owned());
                    cluster.write(service);
                }
            }
            cluster.settle();
            let runs = iteration(&cluster) - before;
            prop_assert!(runs <= 1, "{runs} runs at once");
            if runs == 1 {
                prop_assert!(ran.insert(decided(&cluster)), "{:?} has run twice: {ran:?}", decided(&cluster));
                prop_assert!(ran.last() == Some(&decided(&cluster)), "a later one was before it");
            }
            prop_assert!(decided(&cluster).since(cluster.now) < MOST_AHEAD);
        }
    }
}
