//! Networks that span the cluster, as the node is to have them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ketch_cluster::assignment::Item;
use ketch_node::executor::DataPath;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::warn;

use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::locks::locked;
use crate::network;
use crate::network::overlay::{Problem, Underlay};

/// Between two tries at what could not be done: a port that was taken, a device that was still there.
const AGAIN: Duration = Duration::from_secs(5);

/// What could not be done, as it is tried again until it can or until something else is wanted.
#[derive(Debug, Default)]
pub(super) struct Trying(Mutex<Option<AbortHandle>>);

impl Trying {
    /// The node belongs to a cluster, or to none any more.
    pub(super) async fn set_path(&self, daemon: Arc<Daemon>, path: Option<DataPath>) {
        self.give_up();
        let owner = Arc::clone(&daemon);
        let Some(path) = path else {
            if let Err(error) = blocking(move || owner.networks.forget_overlays()).await {
                warn!("removing the cluster's networks: {error}");
                *locked(&self.0) = Some(tokio::spawn(until_left(daemon)).abort_handle());
            }
            return;
        };
        if let Err(error) = blocking(move || owner.networks.enter_cluster(&underlay(path))).await {
            // Tried again with the networks, without which nothing is served.
            warn!("keeping containers from the cluster's data port: {error}");
        }
    }

    /// Has the node's overlay networks be what the items say. What keeps one of them from it is told to the log: the tasks that
    /// need it say it, too.
    pub(super) async fn apply(
        &self,
        daemon: Arc<Daemon>,
        path: Option<DataPath>,
        items: Vec<Item>,
    ) -> Result<(), String> {
        self.give_up();
        let Some(path) = path else { return Ok(()) };
        let underlay = blocking(move || Ok(underlay(path))).await.map_err(|error| error.message)?;
        let items = Arc::from(items);
        let problems = applied(&daemon, &underlay, &items).await?;
        problems.iter().for_each(|problem| warn!("{problem}"));
        if !problems.is_empty() {
            let trying = tokio::spawn(until_done(daemon, underlay, items)).abort_handle();
            *locked(&self.0) = Some(trying);
        }
        Ok(())
    }

    /// Tries no more.
    pub(super) fn give_up(&self) {
        if let Some(trying) = locked(&self.0).take() {
            trying.abort();
        }
    }
}

/// Blocks: the kernel may have to load what it has of ESP.
fn underlay(DataPath { node, address, port }: DataPath) -> Underlay {
    Underlay { node, address, port, encrypts: network::can_encrypt() }
}

async fn until_left(daemon: Arc<Daemon>) {
    loop {
        sleep(AGAIN).await;
        let owner = Arc::clone(&daemon);
        match blocking(move || owner.networks.go_on_leaving()).await {
            Ok(()) => return,
            Err(error) => warn!("removing the cluster's networks: {error}"),
        }
    }
}

async fn until_done(daemon: Arc<Daemon>, underlay: Underlay, items: Arc<[Item]>) {
    loop {
        sleep(AGAIN).await;
        match applied(&daemon, &underlay, &items).await {
            Ok(problems) if problems.is_empty() => return,
            Ok(_) => {}
            Err(error) => warn!("the cluster's networks: {error}"),
        }
    }
}

async fn applied(
    daemon: &Arc<Daemon>,
    underlay: &Underlay,
    items: &Arc<[Item]>,
) -> Result<Vec<Problem>, String> {
    let (owner, underlay, items) = (Arc::clone(daemon), underlay.clone(), Arc::clone(items));
    let began = Instant::now();
    let applied = blocking(move || owner.networks.apply(&underlay, &items)).await;
    daemon.counted.networks.took(began.elapsed());
    daemon.counted.network_problems.add(applied.as_ref().map_or(1, Vec::len));
    applied.map_err(|error| error.message)
}
