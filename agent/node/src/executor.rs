//! What runs a worker's tasks: ketchd's engine, or the simulation's model of one. The worker decides what each task is to do
//! next ([`worker`](crate::worker)); here it is done.
//!
//! Every call may be made again after a crash of the agent, with the same task: it goes on from what is there. A call that is
//! dropped is given up; the next one for that task cleans up after it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::assignment::Item;
use ketch_cluster::id::{NodeId, TaskId};
use ketch_cluster::objects::node::NodeDescription;
use ketch_cluster::objects::task::ContainerStatus;
use ketch_cluster::objects::{Config, PortConfig, Secret, Task};
use ketch_cluster::time::Timestamp;
use tokio::io::DuplexStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::calls::{BlobName, Measure, PieceAsked, Visit};
use crate::mark::{Mark, Marks};

/// A task with the secrets and configs that it names, of those that the node was given.
#[derive(Debug, Clone)]
pub struct Work {
    pub task: Arc<Task>,
    pub secrets: Vec<Arc<Secret>>,
    pub configs: Vec<Arc<Config>>,
}

/// Why a task can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It can never run here: its image is missing, its spec is refused. Before it has started it is rejected.
    #[error("{0}")]
    Rejected(String),
    /// It could run if it were tried again: a new task will be.
    #[error("{0}")]
    Failed(String),
    /// There is nothing to act on: its container is gone.
    #[error("no such container")]
    Gone,
}

/// A container that runs, and healthily, if it has a health check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Started {
    pub container: ContainerStatus,
    /// Of host-mode ports, as they were given.
    pub ports: Vec<PortConfig>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub exit_code: i32,
    /// Why, where the exit code does not say it: `unhealthy container`, `OOM`. Empty otherwise.
    pub error: String,
    pub container: ContainerStatus,
}

/// What a task has used up to now, as far as it can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Of all processors, since it began: nanoseconds.
    pub cpu: Option<u64>,
    /// Now: bytes, without files that the kernel has read and can drop.
    pub memory: Option<u64>,
    /// TCP connections that others have opened to it since it was first asked for.
    pub connections: Option<u64>,
}

/// What is asked of a task's output.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Lines from the end; none is all.
    pub tail: Option<u64>,
}

/// One line of a task's output.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    pub at: Timestamp,
    /// 1 is the output, 2 the error stream.
    pub stream: u8,
    /// With its end.
    #[serde(with = "crate::base64_bytes")]
    pub line: Vec<u8>,
    /// What the log driver adds (`--log-opt labels=`, `env=`).
    pub attributes: std::collections::BTreeMap<String, String>,
}

/// Where a node's datagrams of the cluster's networks leave and arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPath {
    pub node: NodeId,
    pub address: IpAddr,
    /// UDP; the cluster's.
    pub port: u16,
}

/// Why a piece of a blob is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPiece {
    /// It is no blob of that image, or not here.
    #[error("there is no such layer here")]
    NotHere,
    /// It is on its way, or others are given what this node gives in a second.
    #[error("not now")]
    NotYet,
}

/// A piece of a blob.
#[derive(Debug)]
pub struct Piece {
    pub bytes: Bytes,
    /// The giver's turn: it is over when the other end has taken the bytes, or is not waited for any more.
    pub turn: OwnedSemaphorePermit,
}

/// What a node gives of its images to others of its cluster.
pub trait LayerStore: fmt::Debug + Send + Sync + 'static {
    /// TCP: where it gives them.
    fn port(&self) -> u16;

    /// By whose credentials a blob of that image came here, or comes just now.
    fn marks(&self, name: &BlobName) -> Marks;

    /// Bytes of a blob, if it is one of that image and came by these credentials: whoever asks has them. They are as the disk has
    /// them: the other end verifies.
    fn piece(&self, asked: PieceAsked, by: Mark) -> BoxFuture<'_, Result<Piece, NoPiece>>;
}

/// Runs tasks.
pub trait Executor: fmt::Debug + Send + Sync + 'static {
    /// Said before the worker begins, and as soon as the node knows that it belongs to a cluster; none when it has left: nothing of
    /// the cluster's networks stays.
    fn set_data_path(&self, path: Option<DataPath>) -> BoxFuture<'_, ()>;

    /// What the node is made of; asked for at each registration and every 20 s.
    fn describe(&self) -> BoxFuture<'_, NodeDescription>;

    /// Whatever of the cluster's networks the node is to know, all of it: networks, neighbours, services, peers, keys. Called
    /// once before the first task and at each change. Keys of encrypted networks are on no disk: after a restart without
    /// managers there are none among the items, and those that the kernel has hold on. No neighbour's traffic is unknown.
    ///
    /// # Errors
    /// What could not be done; it is called again at the next change, or in a few seconds.
    fn network(&self, items: &[Item]) -> BoxFuture<'_, Result<(), String>>;

    /// Pulls the image (what is there is used when it can't be pulled) and makes the container.
    fn prepare(&self, work: Work) -> BoxFuture<'_, Result<(), TaskError>>;

    /// Starts the container, and returns once it runs and is healthy. One that runs already is waited for; one that was started
    /// before and has ended is not started again: that returns at once, and [`wait`](Self::wait) says how it ended.
    fn start(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Started, TaskError>>;

    /// Waits for the container's end, and ends it when it becomes unhealthy. Of one that has ended it says how, as often as it
    /// is asked, until it is removed.
    fn wait(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Ended, TaskError>>;

    /// Stops the container by its signal, in its grace period, then by SIGKILL; returns once it has ended. One that never
    /// started is no error.
    fn shutdown(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), TaskError>>;

    /// Removes the container and its anonymous volumes. One that is gone is no error.
    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), TaskError>>;

    /// The tasks that have a container here, whatever they do.
    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, String>>;

    /// Answers requests of the Engine API that come by `stream`, until it ends: those that `visit` may make, of containers that
    /// are tasks. Whether managers may at all is this node's own setting, and each request is told in its log.
    fn serve(&self, visit: Visit, stream: DuplexStream) -> BoxFuture<'_, ()>;

    /// What a task's container has used; connections only if they are asked for.
    ///
    /// # Errors
    /// It does not run, or nobody measures here.
    fn measure(&self, _task: TaskId, _what: Measure) -> BoxFuture<'_, Result<Reading, String>> {
        std::future::ready(Err("nothing is measured here".to_owned())).boxed()
    }

    /// What the node gives of its images to others; none when it shares none.
    fn layers(&self) -> Option<Arc<dyn LayerStore>> {
        None
    }

    /// A task's output, line by line, until its end or until the receiver is dropped.
    ///
    /// # Errors
    /// It has none that can be read: the reason.
    fn logs(
        &self,
        task: Arc<Task>,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<LogLine>, String>>;
}
