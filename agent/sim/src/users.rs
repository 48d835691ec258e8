//! Users: they found the cluster, have nodes join, and ask for services. Each request goes to one node; one that does not
//! lead does nothing with it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use ketch_cluster::control::{
    ControlError, ServiceUpdate, create_network, create_service, remove_service, update_service,
};
use ketch_cluster::id::{NetworkId, ServiceId};
use ketch_cluster::objects::cluster::ClusterNetworking;
use ketch_cluster::objects::network::{IpamConfig, NetworkSpec, Subnet};
use ketch_cluster::objects::node::Availability;
use ketch_cluster::objects::service::FailureAction;
use ketch_cluster::objects::task::{NetworkAttachmentConfig, TaskRuntime};
use ketch_cluster::objects::{ClusterSpec, ContainerSpec, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig};
use ketch_cluster::orchestrator::fence;
use ketch_node::manager::Leader;
use ketch_node::node::{Advertised, Founding, JoinOrder, Lead, Node};
use tokio::time::sleep;

use crate::model::{Asked, Model, Present};
use crate::site::Site;

/// Between what a user reads and what is made of it.
const THINKS: Duration = Duration::from_millis(700);
const FENCE: &str = "8s";
const ADDRESSES: &str = "10.9.0.0/25";

/// What users know together.
pub(crate) type Known = Arc<Mutex<Model>>;

/// Whether a service has the label `ketch.fence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    None,
    Some,
}

/// What a user wants of one service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    Create {
        number: u64,
        replicas: u64,
        fence: Fence,
    },
    Scale {
        service: ServiceId,
        replicas: u64,
    },
    /// Another image: all tasks are replaced.
    Update {
        service: ServiceId,
        image: u64,
    },
    Remove {
        service: ServiceId,
    },
}

/// Founds the cluster at a site, again until it works.
pub(crate) fn found(site: &Site) -> bool {
    let address = site.address();
    site.order(move |node| {
        async move {
            let founding = Founding {
                listen: "0.0.0.0:2377".to_owned(),
                advertise: address,
                data_address: None,
                spec: ClusterSpec::default(),
                networking: ClusterNetworking::default(),
                availability: Availability::Active,
            };
            drop(node.init(founding).await);
        }
        .boxed()
    })
}

/// Has a site join by a token.
pub(crate) fn join(site: &Site, managers: Vec<String>, token: String) -> bool {
    let advertise = site.address();
    site.order(move |node| {
        async move {
            let listen = "0.0.0.0:2377".to_owned();
            let order = JoinOrder {
                listen,
                advertise,
                advertised: Advertised::Given,
                data_address: None,
                managers,
                token,
                availability: Availability::Active,
            };
            drop(node.join(order).await);
        }
        .boxed()
    })
}

/// Asks a site for a service.
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

async fn leader(node: &Node) -> Option<Arc<Leader>> {
    match node.lead().await {
        Ok(Lead::Here(leader, _)) if leader.read().await.is_ok() => Some(leader),
        _ => None,
    }
}

async fn ask(leader: &Leader, known: &Known, want: Want) {
    match want {
        Want::Create { number, replicas, fence } => {
            let network = lock(known).network;
            let mut spec = spec(number, replicas, network);
            if fence == Fence::Some {
                spec.labels.insert(fence::LABEL.to_owned(), FENCE.to_owned());
            }
            create(leader, known, spec).await;
        }
        Want::Scale { service, replicas } => {
            let spec = |spec: &mut ServiceSpec| spec.mode = ServiceMode::Replicated { replicas };
            update(leader, known, service, (spec, |present| present.replicas = replicas)).await;
        }
        Want::Update { service, image } => {
            let image = image_of(image);
            let asked = image.clone();
            let spec = |spec: &mut ServiceSpec| {
                let network = spec.task.networks.first().map(|it| it.target);
                spec.task = Arc::new(task(image, network));
            };
            update(leader, known, service, (spec, |present| present.image = asked)).await;
        }
        Want::Remove { service } => {
            let removed = leader.change(|view, _, _| {
                let actions = remove_service(view, service)?;
                Ok::<_, ControlError>((lock(known).begin(service).0, actions))
            });
            if let Ok(request) = removed.await {
                lock(known).done(request, Asked::Removed);
            }
        }
    }
}

async fn create(leader: &Leader, known: &Known, spec: ServiceSpec) {
    let made = leader.change(|view, now, bits| {
        let present = Present::of(&spec);
        let (id, actions) = create_service(view, spec, now, bits)?;
        Ok::<_, ControlError>(((lock(known).begin(id).0, present), actions))
    });
    if let Ok((request, present)) = made.await {
        lock(known).done(request, Asked::Present(present));
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
            ServiceUpdate { version, spec, rollback: Default::default(), registry_auth: Default::default() };
        let actions = update_service(view, service, update, now)?;
        // What others were told stays so: this user changes one part.
        let (request, before) = lock(known).begin(service);
        if let Asked::Present(before) = before {
            written = before;
            part(&mut written);
        }
        Ok::<_, ControlError>(((request, written), actions))
    });
    if let Ok((request, written)) = changed.await {
        lock(known).done(request, Asked::Present(written));
    }
}

/// The network of all services: with few addresses, so that they are soon given again.
pub(crate) fn network(site: &Site, known: Known) -> bool {
    site.order(move |node| {
        async move {
            let Some(leader) = leader(&node).await else { return };
            let pool = IpamConfig { subnet: Subnet::from_str(ADDRESSES).ok(), ..IpamConfig::default() };
            let spec = NetworkSpec { name: "back".to_owned(), ipam: vec![pool], ..NetworkSpec::default() };
            let made = leader.change(|view, now, bits| create_network(view, spec, now, bits)).await;
            if let Ok(id) = made {
                lock(&known).network = Some(id);
            }
        }
        .boxed()
    })
}

fn spec(number: u64, replicas: u64, network: Option<NetworkId>) -> ServiceSpec {
    // Containers crash here for no reason of the update.
    let failure_action = FailureAction::Continue;
    let update = UpdateConfig { parallelism: 2, failure_action, ..UpdateConfig::default() };
    ServiceSpec {
        name: format!("service-{number}"),
        labels: BTreeMap::new(),
        task: Arc::new(task(image_of(0), network)),
        mode: ServiceMode::Replicated { replicas },
        update: Some(update),
        rollback: None,
        endpoint: None,
    }
}

fn image_of(number: u64) -> String {
    format!("busybox:{number}")
}

fn task(image: String, network: Option<NetworkId>) -> TaskSpec {
    let container = ContainerSpec { image, ..ContainerSpec::default() };
    let joined = network.map(|target| NetworkAttachmentConfig {
        target,
        aliases: Vec::new(),
        addresses: Vec::new(),
        driver_options: BTreeMap::new(),
    });
    TaskSpec {
        runtime: TaskRuntime::Container(Box::new(container)),
        networks: joined.into_iter().collect(),
        ..TaskSpec::default()
    }
}

pub(crate) fn lock(known: &Known) -> MutexGuard<'_, Model> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
