//! `/swarm`: the node's own part in a cluster, and the cluster's settings.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use ketch_ca::root;
use ketch_cluster::control::{ClusterUpdate, NewSecrets, find_cluster, new_cluster_spec};
use ketch_cluster::objects::Cluster;
use ketch_cluster::token::UnlockKey;
use ketch_cluster::view::{Observed, View};
use ketch_convert::cluster::{self, Authority, Local};
use ketch_convert::query;
use ketch_engine_api::swarm::cluster::{
    ClusterSpec, InitRequest, JoinRequest, LocalInfo, LocalNodeState, UnlockKey as Unlock,
};
use ketch_node::node::{Advertised, Founding, JoinOrder, NodeError, Place};

use crate::api::request::Request;
use crate::api::response::{self, Response};
use crate::api::router::Router;
use crate::daemon::Daemon;
use crate::error::{Error, Kind, Result};
use crate::node::api::{Led, led};
use crate::node::{address, executor};

/// The name of every cluster.
const NAME: &str = "default";
/// The state of a node that is in a cluster and not locked out of it.
const ACTIVE: &str = "active";

pub(super) fn add(router: &mut Router) {
    router.on(Method::POST, "/swarm/init", init);
    router.on(Method::POST, "/swarm/join", join);
    router.on(Method::POST, "/swarm/leave", leave);
    router.on(Method::POST, "/swarm/unlock", unlock);
    add_of_cluster(router);
}

/// Those that the leader answers.
pub(super) fn add_of_cluster(router: &mut Router) {
    router.on(Method::GET, "/swarm", |daemon, request| led(daemon, request, inspect));
    router.on(Method::POST, "/swarm/update", |daemon, request| led(daemon, request, update));
    router.on(Method::GET, "/swarm/unlockkey", |daemon, request| led(daemon, request, unlock_key));
}

async fn init(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let wanted: InitRequest = request.json().await?;
    has_name(&wanted.spec)?;
    let node = daemon.node()?;
    if wanted.force_new_cluster && node.information().state != "inactive" {
        let id = node.force_new_cluster(place(&daemon, &wanted).await?).await?;
        return response::json(StatusCode::OK, &id.to_string());
    }
    is_free(&daemon)?;
    let machine = address::machine(&daemon).await?;
    let (host, port) = address::listen(&wanted.listen_addr, &machine)?;
    let default = &daemon.config.swarm_advertise;
    let (advertise, advertised_port) =
        address::advertise((&wanted.advertise_addr, default), &port, &machine)?;
    let new = cluster::new_of(&wanted)?;
    let id = node
        .init(Founding {
            listen: address::joined(&host, &port),
            advertise: address::joined(&advertise.to_string(), &advertised_port),
            data_address: address::data_path(&wanted.data_path_addr, &machine)?,
            spec: new_cluster_spec(new.spec)?,
            networking: new.networking,
            availability: new.availability,
        })
        .await?;
    response::json(StatusCode::OK, &id.to_string())
}

/// Where a manager is that makes a new cluster of its own: on another machine than before, for one. What the request does not say
/// and the machine does not either stays as it was.
async fn place(daemon: &Arc<Daemon>, wanted: &InitRequest) -> Result<Place> {
    let machine = address::machine(daemon).await?;
    let (host, port) = address::listen(&wanted.listen_addr, &machine)?;
    let default = &daemon.config.swarm_advertise;
    let advertise = match address::advertise((&wanted.advertise_addr, default), &port, &machine) {
        Ok((address, port)) => Some(address::joined(&address.to_string(), &port)),
        Err(error) if !wanted.advertise_addr.is_empty() => return Err(error.into()),
        Err(_) => None,
    };
    let data_address = address::data_path(&wanted.data_path_addr, &machine)?;
    Ok(Place { listen: address::joined(&host, &port), advertise, data_address })
}

async fn join(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let wanted: JoinRequest = request.json().await?;
    is_free(&daemon)?;
    let machine = address::machine(&daemon).await?;
    let (host, port) = address::listen(&wanted.listen_addr, &machine)?;
    let managers: Vec<_> =
        wanted.remote_addrs.iter().flatten().map(|text| address::remote(text)).collect::<Result<_, _>>()?;
    let first =
        managers.first().ok_or_else(|| Error::invalid("at least 1 RemoteAddr is required to join"))?;
    let default = &daemon.config.swarm_advertise;
    let (advertise, advertised_port) =
        match address::advertise((&wanted.advertise_addr, default), &port, &machine) {
            Ok(found) => found,
            Err(error) if !wanted.advertise_addr.is_empty() => return Err(error.into()),
            // The one by which the manager is reached.
            Err(error) => (address::towards(first).await.ok_or(error)?, port.clone()),
        };
    let order = JoinOrder {
        listen: address::joined(&host, &port),
        advertise: address::joined(&advertise.to_string(), &advertised_port),
        advertised: match wanted.advertise_addr.is_empty() {
            true => Advertised::Picked,
            false => Advertised::Given,
        },
        data_address: address::data_path(&wanted.data_path_addr, &machine)?,
        managers,
        token: wanted.join_token,
        availability: cluster::first_availability(&wanted.availability)?,
    };
    let _id = daemon.node()?.join(order).await?;
    Ok(response::empty(StatusCode::OK))
}

async fn leave(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let node = daemon.node()?;
    // Without a worker, of a locked manager for one, nobody else ends what the tasks have left here.
    let is_alone = node.information().state != ACTIVE;
    node.leave(request.query.flag("force")).await?;
    if is_alone {
        executor::forget_cluster(&daemon).await?;
    }
    Ok(response::empty(StatusCode::OK))
}

async fn unlock(daemon: Arc<Daemon>, request: Request) -> Result<Response> {
    let wanted: Unlock = request.json().await?;
    // Without what is wrong with it: it might be a key with a letter too many.
    let key: UnlockKey = wanted.unlock_key.parse().map_err(|_| Error::invalid("invalid key string"))?;
    daemon.node()?.unlock(key).await?;
    Ok(response::empty(StatusCode::OK))
}

async fn inspect(_: Arc<Daemon>, led: Led, _: Request) -> Result<Response> {
    let cluster = led.read(|view| find_cluster(view).cloned()).await?;
    response::json(StatusCode::OK, &cluster::shown(&cluster, &authorities(&cluster)))
}

async fn unlock_key(_: Arc<Daemon>, led: Led, _: Request) -> Result<Response> {
    let cluster = led.read(|view| find_cluster(view).cloned()).await?;
    response::json(StatusCode::OK, &cluster::unlock_key(&cluster))
}

async fn update(_: Arc<Daemon>, led: Led, request: Request) -> Result<Response> {
    let version = query::version(query::Updated::Swarm, request.query.value("version"))?;
    let rotate = query::rotations(|name| request.query.value(name))?;
    let wanted: ClusterSpec = request.json().await?;
    has_name(&wanted)?;
    let root = cluster::root_of(&wanted.ca_config)?;
    let spec = cluster::spec_of(wanted)?;
    let mut bits = led.leader.bits();
    let unlock_key = [bits().to_be_bytes(), bits().to_be_bytes()].concat().try_into().unwrap_or_default();
    let secrets = NewSecrets { worker_token: bits(), manager_token: bits(), unlock_key };
    let update = ClusterUpdate { version, spec, rotate, secrets };
    match root {
        Some(root) => led.leader.update_cluster_to(update, root).await?,
        None => led.leader.update_cluster(update).await?,
    }
    Ok(response::empty(StatusCode::OK))
}

/// Told before what is wrong with the request, as dockerd does. The node looks again.
fn is_free(daemon: &Daemon) -> Result<()> {
    match daemon.node()?.information().state {
        "inactive" | "error" => Ok(()),
        _ => Err(NodeError::Exists.into()),
    }
}

fn has_name(spec: &ClusterSpec) -> Result<()> {
    match spec.name.as_str() {
        "" | NAME => Ok(()),
        _ => Err(Error::invalid("swarm spec must be named \"default\"")),
    }
}

/// The cluster's roots, the present one first.
pub(super) fn authorities(cluster: &Cluster) -> Vec<Authority> {
    let next = cluster.root_ca.rotation.as_ref().map(|it| &it.certificate);
    let certificates = std::iter::once(&cluster.root_ca.certificate).chain(next);
    certificates
        .filter_map(|certificate| {
            let described = root::describe(certificate).ok()?;
            Some(Authority {
                id: described.id,
                certificate: certificate.clone(),
                subject: described.subject,
                public_key: described.public_key,
            })
        })
        .collect()
}

/// The node's part in a cluster in one word, and whether it is a manager: clients show the commands that fit.
pub(super) fn standing(daemon: &Daemon) -> &'static str {
    let Ok(node) = daemon.node() else { return "inactive" };
    let information = node.information();
    match (information.state, information.is_manager) {
        (ACTIVE, true) => "active/manager",
        (ACTIVE, false) => "active/worker",
        (other, _) => other,
    }
}

/// The swarm's part of `/info`: of what this node knows itself.
pub(super) fn local_info(daemon: &Daemon) -> LocalInfo {
    let Ok(node) = daemon.node() else { return LocalInfo::default() };
    let information = node.information();
    let local = Local {
        node: information.node,
        address: information.address,
        state: match information.state {
            "pending" => LocalNodeState::Pending,
            ACTIVE => LocalNodeState::Active,
            "locked" => LocalNodeState::Locked,
            "error" => LocalNodeState::Error,
            _ => LocalNodeState::Inactive,
        },
        error: information.error,
        managers: information.managers.into_iter().map(|it| (it.node, it.address)).collect(),
    };
    let managed = node.view(|store| {
        let observed = Observed::default();
        let view = View::new(store, &observed);
        let authorities = view.cluster().map(|cluster| authorities(cluster)).unwrap_or_default();
        cluster::local_info(&local, Some((&view, &authorities)))
    });
    managed.unwrap_or_else(|| cluster::local_info(&local, None))
}

impl From<address::AddressError> for Error {
    fn from(error: address::AddressError) -> Self {
        Self::new(Kind::InvalidArgument, error.to_string())
    }
}
