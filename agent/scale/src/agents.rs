//! Nodes that only pretend, thousands in one process: each has a connection and a session of its own with the leader, by the
//! product's client, beats, and says of each task that it is given that it runs, and of each that is to stop that it has ended.
//!
//! `ketch-scale agents <folder> <cluster> <seed> <first> <count> <manager>...`: nodes are the draws of the seed from `first` on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ketch_cluster::assignment::{AssignmentChanges, Item, ItemId};
use ketch_cluster::id::{ClusterId, NodeId, TaskId};
use ketch_cluster::objects::{Task, TaskState};
use ketch_cluster::view::Told;
use ketch_node::calls::{Heartbeat, ManagerAddress, SessionAsked, SessionMessage, Tell};
use ketch_node::wire::{CallError, Destination, Links};
use ketch_node::worker::{Backoff, Met};
use ketch_node::world::World;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::Failure;
use crate::executor::description;
use crate::random::Random;
use crate::world::BenchWorld;

/// As the product's worker has them.
const ANSWER: Duration = Duration::from_secs(5);
const GATHER: Duration = Duration::from_millis(100);
/// Between two first sessions: all at once would have no answer in time, and come again.
const APART: Duration = Duration::from_millis(1);

/// The nodes of a bench, by their numbers.
pub(crate) fn nodes(seed: u64) -> impl Iterator<Item = NodeId> {
    let mut random = Random::new(seed);
    std::iter::repeat_with(move || NodeId::of(random.id()))
}

pub(crate) fn run(words: &[&str]) -> Result<(), Failure> {
    let [folder, cluster, seed, first, count, managers @ ..] = words else {
        return Err("agents: too few words".into());
    };
    let (folder, cluster): (PathBuf, ClusterId) = (folder.into(), cluster.parse()?);
    let (seed, first, count): (u64, usize, usize) = (seed.parse()?, first.parse()?, count.parse()?);
    let managers: Vec<String> = managers.iter().map(|it| (*it).to_owned()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        for (number, node) in nodes(seed).enumerate().skip(first).take(count) {
            let agent = Agent::new(&folder, (node, number, cluster), managers.clone());
            tokio::spawn(agent.run());
            sleep(APART).await;
        }
        std::future::pending().await
    })
}

struct Agent {
    world: Arc<BenchWorld>,
    number: usize,
    managers: Vec<String>,
    process: u128,
    tasks: Arc<Tasks>,
}

/// What the node has, and what is to be told of it.
#[derive(Default)]
struct Tasks {
    words: Mutex<BTreeMap<TaskId, (TaskState, bool)>>,
    news: Notify,
}

impl Tasks {
    fn of(&self, wanted: impl Fn(bool) -> bool) -> Vec<(TaskId, Told)> {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let told = words.iter_mut().filter(|(_, (_, is_told))| wanted(*is_told));
        told.map(|(id, (state, is_told))| {
            *is_told = true;
            let running_for = (*state == TaskState::Running).then_some(Duration::ZERO);
            (*id, Told { state: *state, running_for, message: "started".to_owned(), ..Told::default() })
        })
        .collect()
    }

    fn take(&self, changes: &AssignmentChanges) {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        for task in
            changes.set.iter().filter_map(|item| if let Item::Task(task) = item { Some(task) } else { None })
        {
            let state = outcome(task);
            let word = words.entry(task.id).or_insert((state, false));
            if word.0 < state {
                *word = (state, false);
            }
        }
        for id in &changes.removed {
            if let ItemId::Task(task) = id {
                words.remove(task);
            }
        }
        drop(words);
        self.news.notify_one();
    }
}

/// What becomes of a task here, at once.
fn outcome(task: &Task) -> TaskState {
    match task.desired_state {
        TaskState::Shutdown | TaskState::Remove => TaskState::Shutdown,
        TaskState::Ready => TaskState::Ready,
        _ => TaskState::Running,
    }
}

impl Agent {
    fn new(
        folder: &Path,
        (node, number, cluster): (NodeId, usize, ClusterId),
        managers: Vec<String>,
    ) -> Self {
        let world = Arc::new(BenchWorld::of_worker(folder, node, cluster));
        Self { process: world.bits(), world, number, managers, tasks: Arc::default() }
    }

    async fn run(self) {
        let mut turn = self.number;
        let mut backoff = Backoff::default();
        let links = Arc::new(Links::new(Arc::clone(&self.world) as Arc<dyn World>));
        let mut led: Option<String> = None;
        loop {
            let was_led = led.is_some();
            let manager = led.take().unwrap_or_else(|| self.managers[turn % self.managers.len()].clone());
            let began = Instant::now();
            let ended = self.session(&links, &manager).await;
            backoff.tried_for(began.elapsed());
            turn += 1;
            if ended == Some(CallError::Late) {
                links.renew();
            }
            let leader = ended.and_then(|error| error.leader());
            let met = if leader.is_some() { Met::Follower } else { Met::Another };
            led = leader.flatten().map(|leader| leader.address);
            if led.is_some() && !was_led {
                continue;
            }
            sleep(backoff.next(met, self.world.bits())).await;
        }
    }

    /// Until the session ends; with why, if that is known.
    async fn session(&self, links: &Arc<Links>, manager: &str) -> Option<CallError> {
        let leader = Destination::manager(&ManagerAddress::nameless(manager.to_owned()));
        let asked = SessionAsked {
            description: description(&format!("fake-{}", self.number), None),
            roots: Vec::new(),
            words: self.tasks.of(|_| true),
            address: String::new(),
            process: self.process,
            tunnels: false,
            layers: 0,
        };
        let mut messages = match links.open(&leader, &asked, ANSWER).await {
            Ok(messages) => messages,
            Err(error) => return Some(error),
        };
        let begun = timeout(ANSWER, messages.next()).await.ok()?.ok()?;
        let Some(SessionMessage::Begun { session, heartbeat }) = begun else { return None };
        let mut parts = JoinSet::new();
        parts.spawn(beat(Arc::clone(links), leader.clone(), (session, heartbeat)));
        parts.spawn(tell(Arc::clone(links), leader, session, Arc::clone(&self.tasks)));
        loop {
            let message = tokio::select! {
                biased;
                ended = parts.join_next() => return ended.and_then(Result::ok),
                message = messages.next() => message,
            };
            match message {
                Ok(Some(SessionMessage::Assignment(changes) | SessionMessage::AssignmentPart(changes))) => {
                    self.tasks.take(&changes);
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    }
}

async fn beat(links: Arc<Links>, leader: Destination, (session, mut period): (u128, Duration)) -> CallError {
    loop {
        sleep(period).await;
        match links.ask(&leader, &Heartbeat { session }, period).await {
            Ok(taken) => period = taken.next,
            Err(error) => return error,
        }
    }
}

async fn tell(links: Arc<Links>, leader: Destination, session: u128, tasks: Arc<Tasks>) -> CallError {
    loop {
        tasks.news.notified().await;
        sleep(GATHER).await;
        let words = tasks.of(|is_told| !is_told);
        if words.is_empty() {
            continue;
        }
        if let Err(error) = links.ask(&leader, &Tell { session, words }, ANSWER).await {
            return error;
        }
    }
}
