//! Who is asked to make room or to move: nobody for a task of an equal or lower priority, few within a minute, and no more of a service
//! at once than an update would take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ketch_cluster::id::TaskId;
use ketch_cluster::label::priority;
use ketch_cluster::objects::displacement::{Cause, Displacement};
use ketch_cluster::objects::node::NodeState;
use ketch_cluster::objects::{Task, TaskState};
use ketch_cluster::store::Store;
use ketch_cluster::time::Timestamp;

use crate::cluster::Cluster;
use crate::scene::{Clocks, Scene};

const WINDOW: Duration = Duration::from_secs(60);
/// Within the window. Users may remove what counts, and so make it twice as many.
const MOST_PREEMPTED: usize = 60;
const MOST_MOVED: usize = 20;

/// What was seen of it.
#[derive(Debug)]
pub(crate) struct Displaced {
    clocks: Clocks,
    preempted: BTreeMap<TaskId, Timestamp>,
    moved: BTreeMap<TaskId, Timestamp>,
    /// Up to where the log was looked at.
    looked: u64,
}

impl Displaced {
    pub(crate) fn new(scene: Scene) -> Self {
        Self { clocks: scene.clocks, preempted: BTreeMap::new(), moved: BTreeMap::new(), looked: 0 }
    }

    /// Looks at what is committed.
    pub(crate) fn look(&mut self, cluster: &Cluster) -> Result<(), String> {
        let looked = self.looked;
        let seen = cluster.newest(|store| {
            let version = store.version().0;
            (version > looked).then(|| look_at(store).map(|displaced| (version, displaced)))
        });
        let Some((version, displaced)) = seen.flatten().transpose()? else { return Ok(()) };
        self.looked = version;
        for (task, displaced) in displaced {
            let known = match displaced.cause {
                Cause::Preempted { .. } => &mut self.preempted,
                Cause::Rebalanced { .. } => &mut self.moved,
            };
            known.insert(task, displaced.at);
        }
        // Leaders whose clocks jump count in other minutes.
        if self.clocks == Clocks::Jump {
            return Ok(());
        }
        are_few(&self.preempted, MOST_PREEMPTED, "preempted")
            .and_then(|()| are_few(&self.moved, MOST_MOVED, "moved"))
    }
}

fn look_at(store: &Store) -> Result<Vec<(TaskId, Displacement)>, String> {
    let displaced = || store.tasks().filter(|task| task.displaced.is_some());
    let mut moving = BTreeMap::<_, BTreeSet<u64>>::new();
    for task in displaced() {
        is_by_a_higher_one(store, task)?;
        if let Some(service) = task.service.filter(|_| is_moving(store, task)) {
            moving.entry(service).or_default().insert(task.slot);
        }
    }
    for (service, slots) in moving {
        let most =
            store.service(service).and_then(|it| it.spec.update).unwrap_or_default().parallelism.max(1);
        if slots.len() as u64 > most {
            return Err(format!("{slots:?} of {service} move at once, where {most} may"));
        }
    }
    Ok(displaced()
        .filter_map(|task| Some((task.id, Displacement::clone(task.displaced.as_ref()?))))
        .collect())
}

/// By what was written with it, and by the labels, which nobody changes here.
fn is_by_a_higher_one(store: &Store, task: &Task) -> Result<(), String> {
    let Some(Cause::Preempted { by, its_priority, own_priority }) =
        task.displaced.as_ref().map(|it| it.cause)
    else {
        return Ok(());
    };
    let of = |task: &Task| priority::parse(&task.service_labels).ok().flatten().unwrap_or_default();
    let is_so = of(task) == own_priority && store.task(by).is_none_or(|by| of(by) == its_priority);
    if is_so && own_priority < its_priority {
        return Ok(());
    }
    Err(format!("{} of priority {} was preempted: {:?}", task.id, of(task), task.displaced))
}

/// Whether it still stops, or waits for the one that takes its place; on a node that can tell.
fn is_moving(store: &Store, task: &Task) -> bool {
    let is_moved = matches!(task.displaced.as_ref().map(|it| it.cause), Some(Cause::Rebalanced { .. }));
    let node = task.node.and_then(|node| store.node(node));
    let is_there = node.is_some_and(|node| node.status.state == NodeState::Ready);
    let newer = |other: &&Arc<Task>| {
        other.meta.created_at > task.meta.created_at
            && other.desired_state <= TaskState::Running
            && !other.status.state.is_terminal()
    };
    let has_newer =
        || task.service.is_some_and(|it| store.tasks_in(it, task.slot).any(|other| newer(&other)));
    is_moved
        && is_there
        && !task.status.state.is_terminal()
        && task.desired_state < TaskState::Remove
        && (task.desired_state > TaskState::Running || has_newer())
}

fn are_few(known: &BTreeMap<TaskId, Timestamp>, most: usize, what: &str) -> Result<(), String> {
    let mut times: Vec<_> = known.values().copied().collect();
    times.sort();
    let crowded = times.windows(most + 1).any(|some| match some {
        [first, .., last] => last.since(*first) < WINDOW,
        _ => false,
    });
    if crowded { Err(format!("more than {most} tasks were {what} within a minute")) } else { Ok(()) }
}
