//! Who brings nodes into the cluster: founds it, has them join, unlocks them; and who thinks of something to ask for.

use std::sync::Arc;

use futures_util::FutureExt;
use ketch_cluster::id::{NodeId, ServiceId};
use ketch_cluster::objects::cluster::ClusterNetworking;
use ketch_cluster::objects::node::{Availability, NodeRole};
use ketch_cluster::objects::service::UpdateOrder;
use ketch_cluster::objects::{ClusterSpec, ServiceMode};
use ketch_cluster::token::UnlockKey;
use ketch_node::node::{Advertised, Founding, JoinOrder};

use crate::cluster::Cluster;
use crate::labels::Extras;
use crate::locks::lock;
use crate::model::Replicas;
use crate::random::Random;
use crate::reach::{Allowed, Reach};
use crate::requests::{Known, NodeChange, Want, want};
use crate::scene::{Beyond, Clocks, Doors, Layers, Loads, Nodes, Room, Scene, Work};
use crate::site::Site;
use crate::wishes::{Creation, Fence, Files, Image, Ranked};

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

/// Tries these keys, the last one first.
pub(crate) fn unlock(site: &Site, keys: Vec<[u8; 32]>) -> bool {
    site.order(move |node| {
        async move {
            for key in keys.into_iter().rev() {
                if node.unlock(UnlockKey(key)).await.is_ok() {
                    return;
                }
            }
        }
        .boxed()
    })
}

/// The users of a run.
#[derive(Debug)]
pub(crate) struct Users {
    scene: Scene,
    pub(crate) known: Known,
    /// Counts what was asked for.
    number: u64,
    /// The services that they have asked for.
    created: Vec<Creation>,
}

impl Users {
    pub(crate) fn new(scene: Scene, known: Known) -> Self {
        Self { scene, known, number: 0, created: Vec::new() }
    }

    /// Asks for something now and then: of every node, and whoever leads does it.
    pub(crate) fn go_on(&mut self, cluster: &mut Cluster, random: &mut Random) {
        if random.below(25) != 0 {
            return;
        }
        self.number += 1;
        let is_of_a_node = self.scene.nodes == Nodes::Changed && random.below(6) == 0;
        let thought = if is_of_a_node { self.of_a_node(cluster, random) } else { self.of_a_service(random) };
        let Some(thought) = thought else { return };
        cluster.note(&format!("asked: {thought:?}"));
        for site in &cluster.sites {
            let _runs = want(site, Arc::clone(&self.known), thought);
        }
    }

    fn of_a_service(&mut self, random: &mut Random) -> Option<Want> {
        if self.scene.beyond == Beyond::Labels && random.below(6) == 0 {
            return Some(Want::Configure(self.number));
        }
        let present: Vec<(ServiceId, ServiceMode, Replicas)> =
            lock(&self.known).services.present().map(|(id, it)| (id, it.mode, it.replicas)).collect();
        let choice = random.bits().checked_rem(present.len() as u64).and_then(|it| usize::try_from(it).ok());
        let service = choice.and_then(|it| present.get(it)).copied();
        let number = self.number;
        if self.scene.doors == Doors::Kept
            && random.below(5) == 0
            && let Some((service, ..)) = service
        {
            if random.below(2) == 0 {
                return Some(Want::Relay { service, is_on: random.below(2) == 0 });
            }
            return Some(Want::Open { service, allowed: Allowed::drawn(number, random) });
        }
        match (random.below(9), service) {
            (0..=1, _) if present.len() >= self.scene.most_services() => None,
            (0..=1, _) | (_, None) => {
                let creation = self.creation(random);
                self.created.push(creation);
                Some(Want::Create(creation))
            }
            (2, Some((service, _, Replicas::Loads))) => Some(Want::Update { service, image: number }),
            // It is to have the time to follow.
            (3..=8, Some((.., Replicas::Loads))) => None,
            (2..=4, Some((service, ServiceMode::Replicated { .. }, _))) => {
                Some(Want::Scale { service, replicas: random.below(self.scene.most_replicas() + 1) })
            }
            (2..=6, Some((service, ..))) => Some(Want::Update { service, image: number }),
            (7, Some((service, ..))) => Some(Want::RollBack { service }),
            (_, Some((service, ..))) => Some(Want::Remove { service }),
        }
    }

    fn creation(&self, random: &mut Random) -> Creation {
        let kind = match self.scene.work {
            Work::Tight => 0,
            Work::Jobs => 6 + random.below(4),
            Work::Mixed | Work::Bare => random.below(8),
        };
        let replicas = random.between(1, self.scene.most_replicas().min(6));
        let mode = match kind {
            0..=4 => ServiceMode::Replicated { replicas },
            5 => ServiceMode::Global,
            6 => ServiceMode::GlobalJob,
            _ => ServiceMode::ReplicatedJob { max_concurrent: 2, total_completions: replicas },
        };
        // On each node one task is to run, so a fence of a global service has nothing to wait for.
        let is_fenced =
            self.scene.clocks == Clocks::Good && !mode.is_bound_to_nodes() && random.below(2) == 0;
        let is_scarce = self.scene.room == Room::Scarce;
        let ranks = [None, Some(-3), Some(5), Some(9)];
        let rank =
            is_scarce.then(|| ranks.get(usize::try_from(random.below(4)).unwrap_or(0)).copied().flatten());
        let is_moved = is_scarce && matches!(mode, ServiceMode::Replicated { .. }) && random.below(2) == 0;
        let is_replicated = matches!(mode, ServiceMode::Replicated { .. });
        let is_followed =
            self.scene.loads == Loads::Followed && is_replicated && self.number.is_multiple_of(2);
        let starts_first = self.scene.work != Work::Tight && random.below(4) == 0;
        Creation {
            number: self.number,
            mode,
            fence: if is_fenced { Fence::Some } else { Fence::None },
            order: if starts_first && !is_fenced { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
            room: rank.map(|priority| Ranked { priority, rebalanced: is_moved }),
            replicas: if is_followed { Replicas::Loads } else { Replicas::Users },
            files: if random.below(2) == 0 { Files::None } else { Files::Some },
            extras: self.extras(mode, random),
            reach: self.reach(random),
            image: self.image(),
        }
    }

    fn image(&self) -> Image {
        if self.scene.layers == Layers::Fetched {
            return Image::Named;
        }
        // All begin with one image: what some get by credentials is not for the others.
        Image::ByDigest(match self.number % 3 {
            0 => None,
            1 => Some("one"),
            _ => Some("other"),
        })
    }

    fn reach(&self, random: &mut Random) -> Reach {
        if self.scene.doors == Doors::None {
            return Reach::default();
        }
        Reach::drawn(self.number, random)
    }

    fn extras(&self, mode: ServiceMode, random: &mut Random) -> Extras {
        if self.scene.beyond == Beyond::Docker {
            return Extras::default();
        }
        let ended = |it: &&Creation| it.extras.is_done_some_time();
        let others: Vec<_> = self.created.iter().filter(ended).map(|it| it.number).collect();
        Extras::drawn(mode, &others, random)
    }

    fn of_a_node(&self, cluster: &Cluster, random: &mut Random) -> Option<Want> {
        let nodes: Vec<_> = cluster.newest(|store| {
            store.nodes().map(|it| (it.id, it.spec.clone(), it.manager.is_some())).collect()
        })?;
        let choice = random.bits().checked_rem(nodes.len() as u64).and_then(|it| usize::try_from(it).ok());
        let (node, spec, is_manager) = nodes.get(choice?)?;
        let is_removable = !is_manager && spec.role == NodeRole::Worker && nodes.len() > LEAST_NODES;
        let change = match random.below(6) {
            0 => return Some(Want::Lock(random.below(3) != 0)),
            1 if is_removable => NodeChange::Remove,
            1 | 2 if spec.role == NodeRole::Worker => NodeChange::Promote,
            1 | 2 => NodeChange::Demote,
            _ if spec.availability == Availability::Active => NodeChange::Drain,
            _ => NodeChange::Activate,
        };
        Some(Want::Node { node: *node, change })
    }
}

/// With no more than these none is removed.
const LEAST_NODES: usize = 4;

/// Has all nodes take tasks again, that what was asked for can be.
pub(crate) fn activate_all(cluster: &Cluster, known: &Known) -> Result<(), String> {
    let drained: Option<Vec<NodeId>> = cluster.newest(|store| {
        let is_drained =
            |it: &&Arc<ketch_cluster::objects::Node>| it.spec.availability == Availability::Drain;
        store.nodes().filter(is_drained).map(|it| it.id).collect()
    });
    let drained = drained.ok_or("no manager has a store")?;
    for node in &drained {
        for site in &cluster.sites {
            let change = NodeChange::Activate;
            let _runs = want(site, Arc::clone(known), Want::Node { node: *node, change });
        }
    }
    if drained.is_empty() { Ok(()) } else { Err(format!("{drained:?} are drained")) }
}
