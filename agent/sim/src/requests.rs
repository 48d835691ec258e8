//! What users ask of the cluster's leader, and what of it they are told is done.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use ketch_cluster::control::{
    ClusterUpdate, ControlError, Force, NewSecrets, Rollback, Rotate, ServiceUpdate, SpecUpdate,
    create_config, create_network, create_secret, create_service, remove_service, update_config,
    update_service,
};
use ketch_cluster::id::{NodeId, ServiceId};
use ketch_cluster::objects::network::{IpamConfig, NetworkSpec, Subnet};
use ketch_cluster::objects::node::{Availability, NodeRole};
use ketch_cluster::objects::{ClusterSpec, NodeSpec, ServiceMode, ServiceSpec};
use ketch_cluster::store::{ObjectId, ObjectKind};
use ketch_node::manager::Leader;
use ketch_node::node::{Lead, Node};
use tokio::time::sleep;

use crate::locks::lock;
use crate::model::{Asked, Model, Present};
use crate::reach::{self, Allowed};
use crate::site::Site;
use crate::wishes::{self, Creation, Surroundings};

/// Between what a user reads and what is made of it.
const THINKS: Duration = Duration::from_millis(700);

/// What users know together.
pub(crate) type Known = Arc<Mutex<Model>>;

/// What a user wants.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    Create(Creation),
    Scale {
        service: ServiceId,
        replicas: u64,
    },
    /// Another image: all tasks are replaced; a job runs once more.
    Update {
        service: ServiceId,
        image: u64,
    },
    /// The spec before this one again.
    RollBack {
        service: ServiceId,
    },
    Remove {
        service: ServiceId,
    },
    /// Others may reach it.
    Open {
        service: ServiceId,
        allowed: Allowed,
    },
    /// The routing mesh puts the client's address before its connections, or does so no more.
    Relay {
        service: ServiceId,
        is_on: bool,
    },
    /// Other data for the config that services use.
    Configure(u64),
    Node {
        node: NodeId,
        change: NodeChange,
    },
    /// `swarm update --autolock`; true also draws another key when it locks itself already.
    Lock(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeChange {
    Drain,
    Activate,
    Promote,
    Demote,
    /// By force.
    Remove,
}

/// Asks a site for something.
pub(crate) fn want(site: &Site, known: Known, want: Want) -> bool {
    site.order(move |node| {
        async move {
            if let Some(leader) = leader(&node).await {
                ask(&leader, &known, want).await;
            }
        }
        .boxed()
    })
}

pub(crate) async fn leader(node: &Node) -> Option<Arc<Leader>> {
    match node.lead().await {
        Ok(Lead::Here(leader, _)) if leader.read().await.is_ok() => Some(leader),
        _ => None,
    }
}

async fn ask(leader: &Leader, known: &Known, want: Want) {
    match want {
        Want::Create(creation) => {
            create(leader, known, creation).await;
        }
        Want::Scale { service, replicas } => {
            let mode = ServiceMode::Replicated { replicas };
            let spec = move |spec: &mut ServiceSpec| spec.mode = mode;
            update(leader, known, service, (spec, |present| present.mode = mode)).await;
        }
        Want::Update { service, image } => {
            let spec = move |spec: &mut ServiceSpec| wishes::set_image(spec, image);
            let part = move |present: &mut Present| present.image = wishes::next_image(&present.image, image);
            update(leader, known, service, (spec, part)).await;
        }
        Want::Open { service, allowed } => {
            let spec = move |spec: &mut ServiceSpec| allowed.write(&mut spec.labels);
            update(leader, known, service, (spec, move |present| allowed.write(&mut present.reach))).await;
        }
        Want::Relay { service, is_on } => {
            let spec = move |spec: &mut ServiceSpec| reach::relay(&mut spec.labels, is_on);
            let part = move |present: &mut Present| reach::relay(&mut present.reach, is_on);
            update(leader, known, service, (spec, part)).await;
        }
        Want::RollBack { service } => roll_back(leader, known, service).await,
        Want::Remove { service } => {
            let removed = leader.change(|view, _, _| {
                let actions = remove_service(view, service)?;
                Ok::<_, ControlError>((lock(known).services.begin(service).0, actions))
            });
            if let Ok(request) = removed.await {
                told(known, |model| model.services.done(request, Asked::Removed));
            }
        }
        Want::Configure(number) => configure(leader, known, number).await,
        Want::Node { node, change } => change_node(leader, known, (node, change)).await,
        Want::Lock(is_on) => lock_itself(leader, known, is_on).await,
    }
}

fn told(known: &Known, what: impl FnOnce(&mut Model)) {
    let mut model = lock(known);
    model.acknowledged += 1;
    what(&mut model);
}

async fn create(leader: &Leader, known: &Known, creation: Creation) {
    let made = leader.change(|view, now, bits| {
        let spec = wishes::spec(creation, &Surroundings::of(&lock(known), view));
        let present = Present::of(&spec);
        let (id, actions) = create_service(view, spec, now, bits)?;
        Ok::<_, ControlError>(((lock(known).services.begin(id).0, present), actions))
    });
    if let Ok((request, present)) = made.await {
        told(known, |model| model.services.done(request, Asked::Present(present)));
    }
}

/// As the CLI does it: reads the service, thinks for a while, and writes all of it with one part changed.
async fn update(
    leader: &Leader,
    known: &Known,
    service: ServiceId,
    (change, part): (impl FnOnce(&mut ServiceSpec), impl FnOnce(&mut Present)),
) {
    let read = leader.view(|view| view.service(service).map(|it| (it.meta.version, it.spec.clone())));
    let Some((version, mut spec)) = read else { return };
    sleep(THINKS).await;
    change(&mut spec);
    let mut written = Present::of(&spec);
    let changed = leader.change(|view, now, _| {
        let update =
            ServiceUpdate { version, spec, rollback: Rollback::None, registry_auth: Default::default() };
        let actions = update_service(view, service, update, now)?;
        // What others were told stays so: this user changes one part.
        let (request, before) = lock(known).services.begin(service);
        if let Asked::Present(before) = before {
            written = before;
            part(&mut written);
        }
        Ok::<_, ControlError>(((request, written), actions))
    });
    if let Ok((request, written)) = changed.await {
        told(known, |model| model.services.done(request, Asked::Present(written)));
    }
}

async fn roll_back(leader: &Leader, known: &Known, service: ServiceId) {
    let changed = leader.change(|view, now, _| {
        let before =
            view.service(service).map(|it| (it.meta.version, it.spec.clone(), it.previous_spec.clone()));
        let Some((version, spec, Some(previous))) = before else { return Ok((None, Vec::new())) };
        let update =
            ServiceUpdate { version, spec, rollback: Rollback::Previous, registry_auth: Default::default() };
        let actions = update_service(view, service, update, now)?;
        let mut model = lock(known);
        model.rolled_back.insert(service);
        let request = model.services.begin(service).0;
        Ok::<_, ControlError>((Some((request, Present::of(&previous))), actions))
    });
    if let Ok(Some((request, written))) = changed.await {
        told(known, |model| model.services.done(request, Asked::Present(written)));
    }
}

async fn configure(leader: &Leader, known: &Known, number: u64) {
    let changed = leader.change(|view, now, bits| {
        let named = view.by_name(ObjectKind::Config, wishes::CONFIG);
        let Some(ObjectId::Config(id)) = named else { return Ok(((), Vec::new())) };
        let Some(version) = view.config(id).map(|it| it.meta.version) else { return Ok(((), Vec::new())) };
        let update = SpecUpdate { version, spec: wishes::config(number) };
        Ok::<_, ControlError>(((), update_config(view, id, update, now, bits)?))
    });
    // Refused while no service asks to be rolled by it.
    if changed.await.is_ok() {
        told(known, |_| {});
    }
}

async fn change_node(leader: &Leader, known: &Known, (id, change): (NodeId, NodeChange)) {
    let read = leader.view(|view| view.node(id).map(|it| (it.meta.version, it.spec.clone())));
    let Some((version, before)) = read else { return };
    let spec = match change {
        NodeChange::Drain => NodeSpec { availability: Availability::Drain, ..before },
        NodeChange::Activate => NodeSpec { availability: Availability::Active, ..before },
        NodeChange::Promote => NodeSpec { role: NodeRole::Manager, ..before },
        NodeChange::Demote => NodeSpec { role: NodeRole::Worker, ..before },
        NodeChange::Remove => {
            let request = lock(known).nodes.begin(id).0;
            if leader.remove_node(id, Force::Yes).await.is_ok() {
                told(known, |model| model.nodes.done(request, Asked::Removed));
            }
            return;
        }
    };
    let request = lock(known).nodes.begin(id).0;
    if leader.update_node(id, version, spec.clone()).await.is_ok() {
        told(known, |model| model.nodes.done(request, Asked::Present(spec)));
    }
}

async fn lock_itself(leader: &Leader, known: &Known, is_on: bool) {
    let read = leader.view(|view| view.cluster().map(|it| (it.meta.version, it.spec.clone())));
    let Some((version, spec)) = read else { return };
    let mut bits = leader.bits();
    let mut unlock_key = [0; 32];
    unlock_key[..16].copy_from_slice(&bits().to_be_bytes());
    let secrets = NewSecrets { worker_token: bits(), manager_token: bits(), unlock_key };
    let rotate = if is_on { BTreeSet::from([Rotate::UnlockKey]) } else { BTreeSet::new() };
    let spec = ClusterSpec { autolock: is_on, ..spec };
    if leader.update_cluster(ClusterUpdate { version, spec, rotate, secrets }).await.is_ok() {
        told(known, |_| {});
    }
}

/// What services will join and use: a network of that pool, if there is to be one, a secret and a config.
pub(crate) fn surroundings(site: &Site, known: Known, addresses: Option<&'static str>) -> bool {
    site.order(move |node| {
        async move {
            let Some(leader) = leader(&node).await else { return };
            if let Some(addresses) = addresses {
                make_network(&leader, &known, addresses).await;
            }
            let secret = leader.change(|view, now, bits| create_secret(view, wishes::secret(), now, bits));
            if let Ok(id) = secret.await {
                lock(&known).secret = Some(id);
            }
            let config = leader.change(|view, now, bits| create_config(view, wishes::config(0), now, bits));
            if let Ok(id) = config.await {
                lock(&known).config = Some(id);
            }
        }
        .boxed()
    })
}

async fn make_network(leader: &Leader, known: &Known, addresses: &str) {
    let pool = IpamConfig { subnet: Subnet::from_str(addresses).ok(), ..IpamConfig::default() };
    let spec = NetworkSpec { name: "back".to_owned(), ipam: vec![pool], ..NetworkSpec::default() };
    let made = leader.change(|view, now, bits| create_network(view, spec, now, bits)).await;
    if let Ok(id) = made {
        lock(known).network = Some(id);
    }
}
