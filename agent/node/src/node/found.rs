//! `docker swarm init`: a cluster of one node, from nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ketch_ca::authority::Authority;
use ketch_ca::folder::{Kept, RaftKeys};
use ketch_ca::identity::Identity;
use ketch_ca::key::NodeKey;
use ketch_ca::root::Root;
use ketch_ca::rotation::new_tokens;
use ketch_cluster::id::{ClusterId, NodeId};
use ketch_cluster::objects::cluster::{ClusterNetworking, RootCa, SecretBytes};
use ketch_cluster::objects::node::{Availability, NodeRole, NodeStatus};
use ketch_cluster::objects::{Cluster, ClusterSpec, Meta, Node, NodeSpec};
use ketch_cluster::token::UnlockKey;

use super::document::Document;
use super::error::NodeError;
use super::join::Advertised;
use crate::world::World;

/// What a new cluster is to be.
#[derive(Debug, Clone)]
pub struct Founding {
    /// Where the node listens, and where others reach it: `host:port`.
    pub listen: String,
    pub advertise: String,
    /// Where the data plane's datagrams arrive; none: where the node is reached.
    pub data_address: Option<IpAddr>,
    pub spec: ClusterSpec,
    pub networking: ClusterNetworking,
    pub availability: Availability,
}

/// A cluster that nobody has written anywhere yet, and its first node.
pub(super) struct Founded {
    pub(super) cluster: Cluster,
    pub(super) node: Node,
    pub(super) kept: Kept,
    pub(super) document: Document,
}

/// Draws everything.
pub(super) fn found(world: &dyn World, founding: Founding) -> Result<Founded, NodeError> {
    let failed = |error: &dyn std::error::Error| NodeError::failed("making the cluster", error);
    let now = world.now();
    let mut bits = || world.bits();
    let root = Root::create(now).map_err(|error| failed(&error))?;
    let unlock_key = founding.spec.autolock.then(|| SecretBytes(key_of(world).to_vec()));
    let cluster = Cluster {
        id: ClusterId::new(&mut bits),
        meta: Meta::new(now),
        spec: founding.spec,
        networking: founding.networking,
        root_ca: RootCa {
            join_tokens: new_tokens(&root.certificate, &mut bits),
            certificate: root.certificate,
            key: root.key,
            rotation: None,
        },
        shut_out: BTreeMap::new(),
        unlock_key,
        data_keys: Vec::new(),
    };
    let id = NodeId::new(&mut bits);
    let key = NodeKey::generate().map_err(|error| failed(&error))?;
    let request = key.request().map_err(|error| failed(&error))?;
    let authority = Authority::of(&cluster).map_err(|error| failed(&error))?;
    let chain = authority.issue(&request, (id, NodeRole::Manager), now).map_err(|error| failed(&error))?;
    Identity::of_chain(&chain).map_err(|error| failed(&error))?;
    let document = Document {
        node: id,
        cluster: cluster.id,
        listen: founding.listen,
        advertise: founding.advertise,
        advertised: Advertised::Given,
        data_address: founding.data_address,
        data_path_port: cluster.networking.data_path_port,
        raft_id: Some(raft_id(world)),
        entered: true,
        raft: cluster.spec.raft,
        managers: Vec::new(),
    };
    let node = Node {
        id,
        meta: Meta::new(now),
        spec: NodeSpec {
            role: NodeRole::Manager,
            availability: founding.availability,
            ..NodeSpec::default()
        },
        description: None,
        status: NodeStatus::default(),
        role: NodeRole::Manager,
        manager: None,
        attachments: Vec::new(),
    };
    let raft = Some(RaftKeys { current: key_of(world), next: None });
    Ok(Founded { cluster, node, kept: Kept { key, chain, raft }, document })
}

/// A new manager's id in raft, never zero.
pub(super) fn raft_id(world: &dyn World) -> u64 {
    u64::try_from(world.bits() >> 64).unwrap_or(1).max(1)
}

/// 32 random bytes.
pub(super) fn key_of(world: &dyn World) -> [u8; 32] {
    let mut key = [0; 32];
    let (first, second) = key.split_at_mut(16);
    first.copy_from_slice(&world.bits().to_be_bytes());
    second.copy_from_slice(&world.bits().to_be_bytes());
    key
}

/// The key that the cluster's managers are unlocked with, when they lock themselves.
pub(super) fn unlock_key(cluster: &Cluster) -> Option<UnlockKey> {
    let secret = cluster.unlock_key.as_ref().filter(|_| cluster.spec.autolock)?;
    <[u8; 32]>::try_from(secret.0.as_slice()).ok().map(UnlockKey)
}
