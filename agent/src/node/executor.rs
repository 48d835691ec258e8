//! The engine as the [`Executor`] of a node's tasks: a task is a container of the engine's, which users see, and whose end they may
//! bring about, as that of any other.
//!
//! `request` makes of a task what the engine is asked for, and is pure with `mounts`, `files` and `networks`; `run` starts and
//! waits; `describe` says what the node is made of. What the engine has begun for a task is done before the next is begun for it
//! ([`Turns`]), also when the worker has given up the call: half a container would have its name for ever.

mod describe;
mod files;
mod image;
mod logs;
mod measure;
mod mounts;
mod networks;
mod overlay;
mod request;
mod run;
mod turns;

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ketch_cluster::assignment::Item;
use ketch_cluster::id::TaskId;
use ketch_cluster::objects::Task;
use ketch_cluster::objects::node::NodeDescription;
use ketch_cluster::objects::task::ContainerStatus;
use ketch_node::calls::{Measure, Visit};
use ketch_node::executor::{
    DataPath, Ended, Executor, LayerStore, LogLine, LogOptions, Reading, Started, TaskError, Work,
};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tracing::warn;

use self::image::Pull;
use self::networks::Known;
use self::overlay::Trying;
use self::request::Request;
use self::turns::Turns;
use crate::api::elsewhere::visits;
use crate::api::router::Router;
use crate::api::routes;
use crate::blocking::blocking;
use crate::compat;
use crate::daemon::Daemon;
use crate::engine::remove::{self, Remove};
use crate::engine::task::{self, OfTask};
use crate::engine::wait::{self, Condition};
use crate::error::{Error, Kind};
use crate::locks::{reading, writing};
use crate::node::attaching::{container_of, is_taken, vacated};
use crate::node::layers::{Others, Uploads};

/// Of one daemon.
#[derive(Debug)]
pub struct EngineExecutor {
    daemon: Arc<Daemon>,
    turns: Turns,
    /// What the worker was last told of networks.
    known: RwLock<Arc<Known>>,
    path: RwLock<Option<DataPath>>,
    /// What the node was last seen to be made of.
    seen: RwLock<NodeDescription>,
    trying: Trying,
    /// What managers may ask of tasks' containers.
    router: Arc<Router>,
    /// What other nodes may have, and where they are asked; none where the settings don't say so.
    layers: Option<(Arc<Uploads>, Arc<Others>)>,
}

impl EngineExecutor {
    /// Over a daemon that has begun: containers of before are known.
    #[must_use]
    pub fn new(daemon: Arc<Daemon>) -> Self {
        let layers = Uploads::of(&daemon).map(|uploads| (uploads, Others::new(&daemon)));
        Self {
            layers,
            daemon,
            turns: Turns::default(),
            known: RwLock::default(),
            path: RwLock::default(),
            seen: RwLock::default(),
            trying: Trying::default(),
            router: Arc::new(routes::of_containers()),
        }
    }

    fn others(&self) -> Option<Arc<Others>> {
        self.layers.as_ref().map(|(_, others)| Arc::clone(others))
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&reading(&self.known))
    }

    fn data_path(&self) -> Option<DataPath> {
        reading(&self.path).clone()
    }

    /// A machine that can't be looked at is the one that it was: a node that says that it has nothing would lose its tasks.
    async fn look(&self) -> NodeDescription {
        match describe::describe(&self.daemon, self.data_path()).await {
            Ok(seen) => {
                writing(&self.seen).clone_from(&seen);
                seen
            }
            Err(error) => {
                warn!("looking at this machine: {error}");
                let seen = reading(&self.seen).clone();
                NodeDescription { data_address: self.data_path().map(|path| path.address), ..seen }
            }
        }
    }

    async fn prepare_work(&self, work: Work) -> Result<(), TaskError> {
        if container_of(&work.task).is_some() {
            // The container is there. Its networks are told by now.
            return Ok(());
        }
        let node = self.look().await;
        let request = Request::of(&work, &node, &self.known()).map_err(TaskError::Rejected)?;
        networks::check(&self.daemon, &request)?;
        // Given up with the call, unlike what follows: the registry may not answer for hours. Made by an earlier call, the
        // container has its image.
        let pulled = match task::container_of(&self.daemon, &work.task.id.to_string()) {
            Some(_) => Ok(()),
            None => {
                let pull = Pull { image: &request.image, task: &work.task, others: self.others() };
                pull.run(&self.daemon).await
            }
        };
        if let Err(error) = &pulled {
            warn!(task = %work.task.id, "pulling image failed: {error}");
        }
        let (daemon, id) = (Arc::clone(&self.daemon), work.task.id);
        self.turns.settle(id, async move { make(&daemon, id, request, pulled.err()).await }).await
    }

    /// One that nobody waits for and nobody has was asked for by a daemon that ended, or in vain.
    fn start_place(&self, task: &Arc<Task>) -> Result<Started, TaskError> {
        if self.daemon.attaching.offer(task) || is_taken(&self.daemon, task.id) {
            return Ok(Started::default());
        }
        Err(TaskError::Gone)
    }
}

/// Takes the container out whose place in a network the task is.
async fn vacate(daemon: &Arc<Daemon>, task: TaskId) -> Result<(), TaskError> {
    let (networks, task) = (daemon.networks.clone(), task.to_string());
    let container = networks.placed(&task).and_then(|(container, _)| daemon.engine.find(&container).ok());
    // As users' ways hold it: of two changes of a container's networks at once only the last would be remembered.
    let _changing = match &container {
        Some(container) => Some(container.changing.lock().await),
        None => None,
    };
    let vacated = blocking(move || networks.vacate(&task)).await;
    vacated.map_err(|error| TaskError::Failed(error.message))
}

/// Makes the container, or takes the one of an earlier call up.
async fn make(
    daemon: &Arc<Daemon>,
    id: TaskId,
    request: Request,
    pull: Option<Error>,
) -> Result<(), TaskError> {
    let id = id.to_string();
    let found = match task::container_of(daemon, &id) {
        Some(container) if container.read(|record| record.was_started) => return Ok(()),
        Some(container) => container.id.clone(),
        None => {
            let files = request.files.iter().map(|file| file.target.clone()).collect();
            let of = OfTask { id, files, labels: request.labels };
            let made = task::create(daemon, &request.name, request.body, of).await;
            made.map_err(|error| TaskError::Rejected(not_made(error, pull)))?.id
        }
    };
    let kept = task::keep_files(daemon, &found, request.files).await;
    kept.map_err(|error| TaskError::Rejected(error.message))
}

/// Where the image is missing, it is of interest why it could not be had.
fn not_made(error: Error, pull: Option<Error>) -> String {
    let is_missing = error.kind == Kind::NotFound && error.message.starts_with(&compat::no_such_image(""));
    match pull {
        // A registry that has it not says no more than that.
        Some(pull) if is_missing && pull.kind != Kind::NotFound && !pull.message.is_empty() => {
            format!("{}: {}", error.message, pull.message)
        }
        _ => error.message,
    }
}

/// Removes the containers of all tasks, and the cluster's networks: the node is in no cluster any more.
///
/// # Errors
/// One does not go; the others are removed all the same.
pub(crate) async fn forget_cluster(daemon: &Arc<Daemon>) -> crate::error::Result<()> {
    let mut last = Ok(());
    for id in task::all(daemon) {
        let Ok(id) = id.parse() else { continue };
        if let Err(error) = remove(daemon, id).await {
            last = Err(Error::new(Kind::Internal, error.to_string()));
        }
    }
    let owner = Arc::clone(daemon);
    blocking(move || owner.networks.forget_overlays()).await?;
    last
}

async fn remove(daemon: &Arc<Daemon>, task: TaskId) -> Result<(), TaskError> {
    let Some(container) = task::container_of(daemon, &task.to_string()) else {
        return vacate(daemon, task).await;
    };
    let how = Remove { force: true, volumes: true };
    match remove::remove(daemon, &container, &container.id, how).await {
        // A user has begun it.
        Err(error) if error.kind == Kind::Conflict && container.read(|record| record.state.removing) => {
            let _gone = wait::wait(&container, Condition::Removed).await;
            Ok(())
        }
        removed => removed.map_err(|error| TaskError::Failed(error.message)),
    }
}

impl Executor for EngineExecutor {
    fn set_data_path(&self, path: Option<DataPath>) -> BoxFuture<'_, ()> {
        *writing(&self.path) = path.clone();
        self.trying.set_path(Arc::clone(&self.daemon), path).boxed()
    }

    fn describe(&self) -> BoxFuture<'_, NodeDescription> {
        self.look().boxed()
    }

    fn network(&self, items: &[Item]) -> BoxFuture<'_, Result<(), String>> {
        *writing(&self.known) = Arc::new(Known::of(items));
        self.trying.apply(Arc::clone(&self.daemon), self.data_path(), items.to_vec()).boxed()
    }

    fn prepare(&self, work: Work) -> BoxFuture<'_, Result<(), TaskError>> {
        self.prepare_work(work).boxed()
    }

    fn start(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Started, TaskError>> {
        async move {
            if container_of(&task).is_some() {
                return self.start_place(&task);
            }
            let daemon = Arc::clone(&self.daemon);
            let id = task.id;
            self.turns.settle(id, async move { run::start(&daemon, id).await }).await?;
            run::until_healthy(&self.daemon, &self.turns, &task).await
        }
        .boxed()
    }

    fn wait(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Ended, TaskError>> {
        async move {
            if container_of(&task).is_some() {
                vacated(&self.daemon, &task).await;
                return Ok(Ended {
                    exit_code: 0,
                    error: String::new(),
                    container: ContainerStatus::default(),
                });
            }
            run::wait(&self.daemon, &self.turns, &task).await
        }
        .boxed()
    }

    fn shutdown(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), TaskError>> {
        async move {
            if container_of(&task).is_some() {
                return vacate(&self.daemon, task.id).await;
            }
            run::shutdown(&self.daemon, &self.turns, &task).await
        }
        .boxed()
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), TaskError>> {
        let daemon = Arc::clone(&self.daemon);
        self.turns.settle(task, async move { remove(&daemon, task).await }).boxed()
    }

    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, String>> {
        let mut all = task::all(&self.daemon);
        all.extend(self.daemon.networks.places().borrow().iter().cloned());
        let tasks = all.iter().map(|id| id.parse().map_err(|error| format!("{error}")));
        std::future::ready(tasks.collect()).boxed()
    }

    fn serve(&self, visit: Visit, stream: DuplexStream) -> BoxFuture<'_, ()> {
        let place = visits::Place { daemon: Arc::clone(&self.daemon), router: Arc::clone(&self.router) };
        visits::serve(place, visit, stream).boxed()
    }

    fn measure(&self, task: TaskId, what: Measure) -> BoxFuture<'_, Result<Reading, String>> {
        measure::measure(&self.daemon, task, what).boxed()
    }

    fn layers(&self) -> Option<Arc<dyn LayerStore>> {
        self.layers.as_ref().map(|(uploads, _)| Arc::clone(uploads) as Arc<dyn LayerStore>)
    }

    fn logs(
        &self,
        task: Arc<Task>,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<LogLine>, String>> {
        async move { logs::read(&self.daemon, task.id, options).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_image_is_told_with_why_it_could_not_be_pulled() {
        let missing = || Error::not_found(compat::no_such_image("a:1"));
        assert_eq!(not_made(missing(), None), "No such image: a:1");
        assert_eq!(not_made(missing(), Some(Error::not_found(""))), "No such image: a:1");
        let refused = Some(Error::invalid("no access"));
        assert_eq!(not_made(missing(), refused.clone()), "No such image: a:1: no access");
        assert_eq!(not_made(Error::conflict("another"), refused), "another");
    }
}
