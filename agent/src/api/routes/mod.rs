//! Every route of the API: a file for each kind of object, each with a function `add` that names its routes.

use std::sync::Arc;

use super::router::Router;
use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::Result;

mod archive;
mod attach;
mod build;
mod checkpoints;
mod cluster;
mod commits;
mod containers;
mod events;
mod exec;
mod images;
mod info;
mod networks;
mod nodes;
mod payloads;
mod registries;
mod services;
mod swarm;
mod swarm_networks;
mod system;
mod tasks;
mod volumes;

/// All of them.
#[must_use]
pub fn all() -> Router {
    let mut router = Router::default();
    archive::add(&mut router);
    attach::add(&mut router);
    images::add(&mut router);
    build::add(&mut router);
    checkpoints::add(&mut router);
    commits::add(&mut router);
    registries::add(&mut router);
    containers::add(&mut router);
    events::add(&mut router);
    exec::add(&mut router);
    networks::add(&mut router);
    swarm::add(&mut router);
    cluster::add(&mut router);
    nodes::add(&mut router);
    services::add(&mut router);
    tasks::add(&mut router);
    payloads::secrets::add(&mut router);
    payloads::configs::add(&mut router);
    system::add(&mut router);
    volumes::add(&mut router);
    router
}

/// Those of the cluster alone: what another manager may send on.
#[must_use]
pub(crate) fn of_cluster() -> Router {
    let mut router = Router::default();
    swarm::add_of_cluster(&mut router);
    cluster::add(&mut router);
    nodes::add(&mut router);
    services::add(&mut router);
    tasks::add(&mut router);
    payloads::secrets::add(&mut router);
    payloads::configs::add(&mut router);
    swarm_networks::add(&mut router);
    router
}

/// Those of containers: what managers may ask of other nodes' is among them.
#[must_use]
pub(crate) fn of_containers() -> Router {
    let mut router = Router::default();
    archive::add(&mut router);
    attach::add(&mut router);
    containers::add(&mut router);
    exec::add(&mut router);
    router
}

/// A call of modules that wait for the disk or the kernel.
async fn beside<T: Send + 'static>(
    daemon: Arc<Daemon>,
    call: impl FnOnce(&Daemon) -> Result<T> + Send + 'static,
) -> Result<T> {
    blocking(move || call(&daemon)).await
}
