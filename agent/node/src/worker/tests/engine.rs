//! A model of an engine: containers that outlive the agent, and scripts that say how long things take and how they go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::assignment::Item;
use ketch_cluster::id::TaskId;
use ketch_cluster::objects::Task;
use ketch_cluster::objects::node::NodeDescription;
use ketch_cluster::objects::task::ContainerStatus;
use ketch_cluster::time::Timestamp;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::lab::Lab;
use crate::calls::Visit;
use crate::executor::{DataPath, Ended, Executor, LogLine, LogOptions, Started, TaskError, Work};

/// How a task goes.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) pull: Duration,
    pub(super) start: Duration,
    pub(super) stop: Duration,
    pub(super) prepared: Result<(), TaskError>,
    pub(super) started: Result<(), TaskError>,
    /// How long it runs, its exit code and why; for ever if none.
    pub(super) ends: Option<(Duration, i32, &'static str)>,
}

impl Default for Script {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { pull: second, start: second, stop: second, prepared: Ok(()), started: Ok(()), ends: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Created,
    Started {
        at: Instant,
    },
    /// By a stop.
    Stopped,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) scripts: BTreeMap<TaskId, Script>,
    containers: BTreeMap<TaskId, Container>,
    /// Calls as they came: `prepare 1`.
    pub(super) calls: Vec<String>,
    pub(super) networks: Vec<Vec<Item>>,
    pub(super) network_takes: Duration,
    pub(super) network_fails: bool,
    pub(super) secrets_given: BTreeMap<TaskId, usize>,
    /// How often a container was made, and started, of each task.
    pub(super) made: BTreeMap<TaskId, u32>,
    pub(super) starts: BTreeMap<TaskId, u32>,
    pub(super) description: NodeDescription,
    pub(super) log_lines: u64,
    pub(super) lines_read: u64,
}

#[derive(Debug)]
pub(super) struct Engine {
    known: Mutex<Known>,
    changed: watch::Sender<()>,
}

/// The engine as one start of the agent has it: after a crash its calls do nothing.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) engine: Arc<Engine>,
    pub(super) lab: Arc<Lab>,
    pub(super) boot: u64,
}

impl Engine {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), changed: watch::Sender::default() })
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    pub(super) fn script(&self, task: u128, script: Script) {
        self.known().scripts.insert(TaskId::of(task), script);
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.known().calls.clone()
    }

    pub(super) fn count(&self, call: &str) -> usize {
        self.known().calls.iter().filter(|it| *it == call).count()
    }

    /// The tasks whose containers run now.
    pub(super) fn running(&self) -> BTreeSet<u128> {
        let known = self.known();
        let tasks = known.containers.keys().filter(|task| known.runs(**task));
        tasks.map(|task| task.bits()).collect()
    }

    pub(super) fn has_container(&self, task: u128) -> bool {
        self.known().containers.contains_key(&TaskId::of(task))
    }

    /// Somebody else has removed it.
    pub(super) fn lose(&self, task: u128) {
        self.known().containers.remove(&TaskId::of(task));
        self.changed.send_replace(());
    }

    /// One that is there before the worker is.
    pub(super) fn put_container(&self, task: u128) {
        self.known().containers.insert(TaskId::of(task), Container::Started { at: Instant::now() });
    }
}

impl Known {
    fn script_of(&self, task: TaskId) -> Script {
        self.scripts.get(&task).cloned().unwrap_or_default()
    }

    /// When it ends by itself.
    fn end_of(&self, task: TaskId) -> Option<(Instant, i32, &'static str)> {
        let Some(Container::Started { at }) = self.containers.get(&task) else { return None };
        self.script_of(task).ends.map(|(after, code, error)| (*at + after, code, error))
    }

    fn runs(&self, task: TaskId) -> bool {
        matches!(self.containers.get(&task), Some(Container::Started { .. }))
            && self.end_of(task).is_none_or(|(end, ..)| end > Instant::now())
    }

    fn ended(&self, task: TaskId) -> Option<Ended> {
        let (exit_code, error) = match self.containers.get(&task)? {
            Container::Stopped => (143, ""),
            Container::Created => return None,
            Container::Started { .. } => {
                let (end, code, error) = self.end_of(task)?;
                (end <= Instant::now()).then_some((code, error))?
            }
        };
        Some(Ended { exit_code, error: error.to_owned(), container: status(task) })
    }
}

fn status(task: TaskId) -> ContainerStatus {
    ContainerStatus { id: format!("container-{}", task.bits()), pid: 42, exit_code: 0 }
}

impl Hold {
    /// A step of the outside world; it is the last one of a start whose power fails.
    async fn step(&self) {
        if !self.lab.steps.take(self.boot) {
            std::future::pending::<()>().await;
        }
    }

    async fn call(&self, name: &str, task: TaskId) {
        self.step().await;
        self.engine.known().calls.push(format!("{name} {}", task.bits()));
    }

    fn script(&self, task: TaskId) -> Script {
        self.engine.known().script_of(task)
    }
}

impl Executor for Hold {
    fn set_data_path(&self, _: Option<DataPath>) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }

    fn describe(&self) -> BoxFuture<'_, NodeDescription> {
        async { self.engine.known().description.clone() }.boxed()
    }

    fn network(&self, items: &[Item]) -> BoxFuture<'_, Result<(), String>> {
        let items = items.to_vec();
        async move {
            self.step().await;
            let takes = self.engine.known().network_takes;
            self.engine.known().calls.push("network".to_owned());
            sleep(takes).await;
            self.step().await;
            let mut known = self.engine.known();
            known.calls.push("networked".to_owned());
            known.networks.push(items);
            if known.network_fails { Err("no route".to_owned()) } else { Ok(()) }
        }
        .boxed()
    }

    fn prepare(&self, work: Work) -> BoxFuture<'_, Result<(), TaskError>> {
        async move {
            let task = work.task.id;
            self.call("prepare", task).await;
            self.engine.known().secrets_given.insert(task, work.secrets.len() + work.configs.len());
            sleep(self.script(task).pull).await;
            self.step().await;
            self.script(task).prepared?;
            {
                let known = &mut *self.engine.known();
                known.containers.entry(task).or_insert_with(|| {
                    *known.made.entry(task).or_default() += 1;
                    Container::Created
                });
            }
            self.step().await;
            Ok(())
        }
        .boxed()
    }

    fn start(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Started, TaskError>> {
        async move {
            let task = task.id;
            self.call("start", task).await;
            {
                let mut known = self.engine.known();
                match known.containers.get(&task).copied() {
                    None => return Err(TaskError::Gone),
                    Some(Container::Created) => {
                        known.containers.insert(task, Container::Started { at: Instant::now() });
                        *known.starts.entry(task).or_default() += 1;
                    }
                    Some(_) => {}
                }
            }
            self.step().await;
            sleep(self.script(task).start).await;
            self.step().await;
            self.script(task).started?;
            Ok(Started { container: status(task), ports: Vec::new() })
        }
        .boxed()
    }

    fn wait(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Ended, TaskError>> {
        async move {
            let task = task.id;
            self.call("wait", task).await;
            let mut changed = self.engine.changed.subscribe();
            loop {
                let (ended, end, is_there) = {
                    let known = self.engine.known();
                    (known.ended(task), known.end_of(task), known.containers.contains_key(&task))
                };
                if let Some(ended) = ended {
                    self.step().await;
                    return Ok(ended);
                }
                if !is_there {
                    return Err(TaskError::Gone);
                }
                let by_itself = async {
                    match end {
                        Some((at, ..)) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    _ = changed.changed() => {}
                    () = by_itself => {}
                }
            }
        }
        .boxed()
    }

    fn shutdown(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), TaskError>> {
        async move {
            let task = task.id;
            self.call("shutdown", task).await;
            if self.engine.known().runs(task) {
                sleep(self.script(task).stop).await;
                self.step().await;
            }
            if self.engine.known().runs(task) {
                self.engine.known().containers.insert(task, Container::Stopped);
                self.engine.changed.send_replace(());
            }
            self.step().await;
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), TaskError>> {
        async move {
            self.call("remove", task).await;
            self.engine.known().containers.remove(&task);
            self.engine.changed.send_replace(());
            self.step().await;
            Ok(())
        }
        .boxed()
    }

    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, String>> {
        async { Ok(self.engine.known().containers.keys().copied().collect()) }.boxed()
    }

    fn serve(&self, _: Visit, _: DuplexStream) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn logs(&self, task: Arc<Task>, _: LogOptions) -> BoxFuture<'_, Result<mpsc::Receiver<LogLine>, String>> {
        async move {
            if !self.engine.known().containers.contains_key(&task.id) {
                return Err("no such container".to_owned());
            }
            let (sender, receiver) = mpsc::channel(1);
            let engine = Arc::clone(&self.engine);
            let lines = engine.known().log_lines;
            tokio::spawn(async move {
                for number in 0..lines {
                    let line = LogLine {
                        at: Timestamp(number),
                        stream: 1,
                        line: format!("line {number}\n").into_bytes(),
                        attributes: BTreeMap::new(),
                    };
                    if sender.send(line).await.is_err() {
                        return;
                    }
                    engine.known().lines_read += 1;
                }
            });
            Ok(receiver)
        }
        .boxed()
    }
}
