//! Users: they found the cluster, have nodes join, and ask for services. Each request goes to one node; one that does not
//! lead does nothing with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use ketch_cluster::control::{ControlError, ServiceUpdate, create_service, remove_service, update_service};
use ketch_cluster::id::ServiceId;
use ketch_cluster::objects::cluster::ClusterNetworking;
use ketch_cluster::objects::node::Availability;
use ketch_cluster::objects::service::FailureAction;
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{ClusterSpec, ContainerSpec, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig};
use ketch_node::manager::Leader;
use ketch_node::node::{Founding, JoinOrder, Lead, Node};

use crate::model::{Asked, Model};
use crate::site::Site;

/// What users know together.
pub(crate) type Known = Arc<Mutex<Model>>;

/// What a user wants of one service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    Create {
        number: u64,
        replicas: u64,
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
        Want::Create { number, replicas } => {
            let made = leader.change(|view, now, bits| {
                let made = create_service(view, spec(number, replicas), now, bits)?;
                lock(known).set(made.0, Asked::Open);
                Ok::<_, ControlError>(made)
            });
            if let Ok(id) = made.await {
                lock(known).set(id, Asked::Replicas(replicas));
            }
        }
        Want::Scale { service, replicas } => {
            let change = |spec: &mut ServiceSpec| spec.mode = ServiceMode::Replicated { replicas };
            if changed(leader, known, service, change).await {
                lock(known).set(service, Asked::Replicas(replicas));
            }
        }
        Want::Update { service, image } => {
            let replicas = leader.view(|view| view.service(service).map(|it| it.spec.mode));
            let change = |spec: &mut ServiceSpec| spec.task = Arc::new(task(image));
            if changed(leader, known, service, change).await
                && let Some(ServiceMode::Replicated { replicas }) = replicas
            {
                lock(known).set(service, Asked::Replicas(replicas));
            }
        }
        Want::Remove { service } => {
            let removed = leader.change(|view, _, _| {
                let actions = remove_service(view, service)?;
                lock(known).set(service, Asked::Open);
                Ok::<_, ControlError>(((), actions))
            });
            if removed.await.is_ok() {
                lock(known).set(service, Asked::Removed);
            }
        }
    }
}

async fn changed(
    leader: &Leader,
    known: &Known,
    service: ServiceId,
    change: impl FnOnce(&mut ServiceSpec),
) -> bool {
    let changed = leader.change(|view, now, _| {
        let present = view.service(service).ok_or_else(|| "it is gone".to_owned())?;
        lock(known).set(service, Asked::Open);
        let mut spec = present.spec.clone();
        change(&mut spec);
        let update = ServiceUpdate {
            version: present.meta.version,
            spec,
            rollback: Default::default(),
            registry_auth: Default::default(),
        };
        update_service(view, service, update, now).map(|it| ((), it)).map_err(|error| error.to_string())
    });
    changed.await.is_ok()
}

fn spec(number: u64, replicas: u64) -> ServiceSpec {
    // Containers crash here for no reason of the update.
    let failure_action = FailureAction::Continue;
    let update = UpdateConfig { parallelism: 2, failure_action, ..UpdateConfig::default() };
    ServiceSpec {
        name: format!("service-{number}"),
        labels: Default::default(),
        task: Arc::new(task(0)),
        mode: ServiceMode::Replicated { replicas },
        update: Some(update),
        rollback: None,
        endpoint: None,
    }
}

fn task(image: u64) -> TaskSpec {
    let container = ContainerSpec { image: format!("busybox:{image}"), ..ContainerSpec::default() };
    TaskSpec { runtime: TaskRuntime::Container(Box::new(container)), ..TaskSpec::default() }
}

pub(crate) fn lock(known: &Known) -> MutexGuard<'_, Model> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
