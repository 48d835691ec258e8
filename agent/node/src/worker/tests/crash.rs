//! The power fails at any step: a write, a call of the engine, before it has done something or after.

use std::collections::BTreeMap;
use std::time::Duration;

use ketch_cluster::objects::TaskState;
use proptest::prelude::*;
use tokio::time::timeout;

use super::engine::Script;
use super::lab::{Bench, LEADER, pass};
use super::leader::{Commits, Leader};
use crate::executor::TaskError;

/// One task of the story.
#[derive(Debug, Clone)]
struct Story {
    pull: u64,
    start: u64,
    ends: Option<(u64, i32)>,
    prepares: bool,
    starts: bool,
    held_until: Option<u64>,
    stopped_at: Option<u64>,
    removed_at: Option<u64>,
}

/// What happens around the worker.
#[derive(Debug, Clone)]
struct Times {
    /// Steps from the start before until the power fails, and seconds until it is back.
    crashes: Vec<(u64, u64)>,
    /// In these seconds no manager is reached.
    away: Option<(u64, u64)>,
    commits: Commits,
}

const LAST: u64 = 60;

fn story() -> impl Strategy<Value = Story> {
    let mostly = || prop::bool::weighted(0.7);
    let moment = || prop::option::weighted(0.3, 1..LAST);
    let ends = prop::option::weighted(0.6, (0..40_u64, prop_oneof![Just(0), Just(1)]));
    (0..8_u64, 0..8_u64, ends, mostly(), mostly(), moment(), moment(), moment()).prop_map(
        |(pull, start, ends, prepares, starts, held_until, stopped_at, removed_at)| Story {
            pull,
            start,
            ends,
            prepares,
            starts,
            held_until,
            stopped_at,
            removed_at,
        },
    )
}

fn times() -> impl Strategy<Value = Times> {
    let crashes = prop::collection::vec((1..16_u64, 0..20_u64), 0..10);
    let away =
        prop::option::of((0..LAST, 1..40_u64)).prop_map(|it| it.map(|(from, span)| (from, from + span)));
    let commits = prop_oneof![Just(Commits::AtOnce), Just(Commits::Never), Just(Commits::Silently)];
    (crashes, away, commits).prop_map(|(crashes, away, commits)| Times { crashes, away, commits })
}

fn script(story: &Story) -> Script {
    let failing = |works: bool| if works { Ok(()) } else { Err(TaskError::Failed("no".to_owned())) };
    Script {
        pull: Duration::from_secs(story.pull),
        start: Duration::from_secs(story.start),
        stop: Duration::from_secs(1),
        prepared: failing(story.prepares),
        started: failing(story.starts),
        ends: story.ends.map(|(after, code)| (Duration::from_secs(after), code, "")),
    }
}

/// What the leader wants at that second.
fn command(leader: &Leader, stories: &[Story], second: u64) {
    for (number, story) in (1..).zip(stories) {
        let at = |moment: Option<u64>| moment == Some(second);
        if second == 0 {
            let held = story.held_until.is_some();
            leader.want(number, if held { TaskState::Ready } else { TaskState::Running });
        } else if at(story.removed_at) {
            leader.remove(number);
        } else if story.removed_at.is_some_and(|removed| removed < second) {
        } else if at(story.stopped_at) {
            leader.want(number, TaskState::Shutdown);
        } else if at(story.held_until) && story.stopped_at.is_none_or(|stopped| stopped > second) {
            leader.want(number, TaskState::Running);
        }
    }
}

async fn live(stories: &[Story], times: &Times) -> Bench {
    let mut bench = Bench::without_worker();
    for (number, story) in (1..).zip(stories) {
        bench.engine.script(number, script(story));
    }
    bench.leader.known().commits = times.commits;
    bench.lab.connect(LEADER, &bench.leader);
    bench.open();
    let mut crashes = times.crashes.iter();
    let mut crash = crashes.next();
    bench.lab.steps.crash_after(crash.map_or(u64::MAX / 2, |(steps, _)| *steps));
    let mut back_at = None;
    let mut prepares = Prepares::new();
    for second in 0..LAST {
        if times.away.is_some_and(|(from, _)| from == second) {
            bench.lab.disconnect();
        }
        if times.away.is_some_and(|(_, until)| until == second) {
            bench.lab.connect(LEADER, &bench.leader);
        }
        command(&bench.leader, stories, second);
        if timeout(Duration::from_secs(1), bench.lab.steps.crashed()).await.is_ok() {
            bench.crash().await;
            bench.has_crashed = true;
            back_at = Some(second + crash.map_or(0, |(_, seconds)| *seconds));
            crash = crashes.next();
        }
        if back_at.is_some_and(|back| back <= second) {
            // It may fail again while it starts.
            bench.lab.steps.crash_after(crash.map_or(u64::MAX / 2, |(steps, _)| *steps));
            match bench.try_open() {
                Ok(()) => back_at = None,
                Err(_) => bench.crash().await,
            }
        }
        check(&bench, stories, &mut prepares);
    }
    // All is well from here on.
    bench.crash().await;
    bench.leader.known().commits = Commits::AtOnce;
    bench.lab.connect(LEADER, &bench.leader);
    bench.lab.steps.crash_after(u64::MAX / 2);
    bench.open();
    pass(100).await;
    check(&bench, stories, &mut prepares);
    bench
}

/// How often tasks were prepared until their ends were told.
type Prepares = BTreeMap<u128, usize>;

fn check(bench: &Bench, stories: &[Story], prepares: &mut Prepares) {
    for number in (1_u128..).zip(stories).map(|(number, _)| number) {
        let known = bench.engine.known();
        let task = ketch_cluster::id::TaskId::of(number);
        let count = |counts: &BTreeMap<_, u32>| counts.get(&task).copied().unwrap_or(0);
        assert!(count(&known.made) <= 1, "task {number} was made twice");
        assert!(count(&known.starts) <= 1, "task {number} was started twice");
        drop(known);
        let ends: Vec<_> =
            bench.leader.states(number).into_iter().filter(|state| state.is_terminal()).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "task {number} has two ends: {ends:?}");
        if !ends.is_empty() {
            let now = bench.engine.count(&format!("prepare {number}"));
            let then = *prepares.entry(number).or_insert(now);
            assert_eq!(now, then, "task {number} was prepared after its end");
        }
    }
}

/// What must have become of each task once all is well.
fn check_outcome(bench: &Bench, stories: &[Story]) {
    let running = bench.engine.running();
    for (number, story) in (1_u128..).zip(stories) {
        let state = bench.leader.states(number).last().copied();
        let end = state.filter(|state| state.is_terminal());
        assert!(!(end.is_some() && running.contains(&number)), "task {number} runs after its end");
        if story.removed_at.is_some() {
            assert!(!bench.engine.has_container(number), "task {number} is still there");
            continue;
        }
        if story.stopped_at.is_some() {
            assert!(end.is_some(), "task {number} was stopped, and is {state:?}");
            continue;
        }
        let expected = match (story.prepares, story.starts, story.ends) {
            (false, ..) => TaskState::Rejected,
            (_, false, _) => TaskState::Failed,
            (.., None) => TaskState::Running,
            (.., Some((_, 0))) => TaskState::Complete,
            (.., Some(_)) => TaskState::Failed,
        };
        assert_eq!(state, Some(expected), "task {number}");
        assert_eq!(running.contains(&number), expected == TaskState::Running, "task {number}");
    }
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future);
}

/// A task that runs on, with nothing else to say of it.
const PLAIN: Story = Story {
    pull: 2,
    start: 2,
    ends: None,
    prepares: true,
    starts: true,
    held_until: None,
    stopped_at: None,
    removed_at: None,
};

#[test]
fn every_step_may_be_the_last() {
    let stories = [
        PLAIN,
        Story { ends: Some((5, 0)), ..PLAIN },
        Story { ends: Some((5, 1)), ..PLAIN },
        Story { prepares: false, ..PLAIN },
        Story { starts: false, ..PLAIN },
        Story { held_until: Some(10), ..PLAIN },
        Story { stopped_at: Some(10), ..PLAIN },
        Story { ends: Some((5, 0)), removed_at: Some(12), ..PLAIN },
        Story { stopped_at: Some(8), removed_at: Some(14), ..PLAIN },
    ];
    for story in stories {
        for step in 1.. {
            let times = Times { crashes: vec![(step, 0)], away: None, commits: Commits::AtOnce };
            let stories = [story.clone()];
            let mut was_one = false;
            run(async {
                let bench = live(&stories, &times).await;
                check_outcome(&bench, &stories);
                was_one = bench.has_crashed;
            });
            if !was_one {
                assert!(step > 10, "{story:?} takes no more than {step} steps");
                break;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_end_is_lost_and_nothing_runs_twice(
        stories in prop::collection::vec(story(), 1..4),
        times in times(),
    ) {
        run(async {
            let bench = live(&stories, &times).await;
            check_outcome(&bench, &stories);
        });
    }
}
