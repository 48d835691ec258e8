//! The cluster: its settings, its authority, and what a node tells of its own part in it.

use std::time::Duration;

use ketch_cluster::control::{NewRoot, texts};
use ketch_cluster::id::NodeId;
use ketch_cluster::objects::cluster::{ClusterNetworking, SecretBytes};
use ketch_cluster::objects::network::Subnet;
use ketch_cluster::objects::node::{Availability, CaKeyId, NodeTls};
use ketch_cluster::objects::{Cluster, ClusterSpec};
use ketch_cluster::token::UnlockKey;
use ketch_cluster::view::View;
use ketch_engine_api::swarm::{TlsInfo, cluster as api};

use crate::{Refusal, bytes, given, moment, node, span};

/// The prefix of the smallest subnets that may be cut from a pool, as Docker has it.
const MAX_SUBNET_SIZE: u8 = 29;

/// What `/swarm` tells of a root: `ketch_ca::root::describe` reads it from the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    pub id: CaKeyId,
    /// PEM.
    pub certificate: String,
    /// The subject as DER.
    pub subject: Vec<u8>,
    /// The SubjectPublicKeyInfo as DER.
    pub public_key: Vec<u8>,
}

/// The settings that a new cluster or an update asks for: what they leave out, or send as zero, is the default.
///
/// # Errors
/// A negative span, and authorities that are not the cluster's own.
pub fn spec_of(spec: api::ClusterSpec) -> Result<ClusterSpec, Refusal> {
    are_own(&spec.ca_config)?;
    let mut merged = ClusterSpec { labels: spec.labels.unwrap_or_default(), ..ClusterSpec::default() };
    if !spec.name.is_empty() {
        merged.name = spec.name;
    }
    if let Some(limit) = spec.orchestration.task_history_retention_limit {
        merged.task_history_limit = limit;
    }
    merge_raft(&spec.raft, &mut merged.raft);
    let heartbeat = spec.dispatcher.heartbeat_period;
    merge_span(heartbeat, &mut merged.dispatcher.heartbeat_period, texts::heartbeat_negative)?;
    let expiry = spec.ca_config.node_cert_expiry;
    merge_span(expiry, &mut merged.ca.node_certificate_expiry, texts::certificate_expiry_too_short)?;
    merged.ca.force_rotate = spec.ca_config.force_rotate;
    merged.log_driver = spec.task_defaults.log_driver.map(given::driver_of);
    merged.autolock = spec.encryption_config.auto_lock_managers;
    Ok(merged)
}

fn are_own(config: &api::CaConfig) -> Result<(), Refusal> {
    match config.external_cas.as_ref().is_some_and(|it| !it.is_empty()) {
        true => Err(texts::conversion::external_ca()),
        false => Ok(()),
    }
}

/// The root that an update brings, if it brings one. It is no part of the settings: Docker does not show it, and a client that sends
/// back what it was shown does not mean it again.
///
/// # Errors
/// One half of it is missing: there are no authorities elsewhere that could sign instead.
pub fn root_of(config: &api::CaConfig) -> Result<Option<NewRoot>, Refusal> {
    let (certificate, key) = (config.signing_ca_cert.clone(), config.signing_ca_key.clone());
    match (certificate.is_empty(), key.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(texts::root_key_alone()),
        (false, true) => Err(texts::root_certificate_alone()),
        (false, false) => Ok(Some(NewRoot { certificate, key })),
    }
}

fn merge_raft(given: &api::RaftConfig, merged: &mut ketch_cluster::objects::cluster::RaftConfig) {
    for (number, field) in [
        (given.snapshot_interval, &mut merged.snapshot_interval),
        (given.log_entries_for_slow_followers, &mut merged.log_entries_for_slow_followers),
    ] {
        *field = if number == 0 { *field } else { number };
    }
    if let Some(kept) = given.keep_old_snapshots {
        merged.keep_old_snapshots = kept;
    }
    for (ticks, field) in
        [(given.election_tick, &mut merged.election_tick), (given.heartbeat_tick, &mut merged.heartbeat_tick)]
    {
        // A negative number is none.
        *field = u32::try_from(ticks).ok().filter(|ticks| *ticks != 0).unwrap_or(*field);
    }
}

fn merge_span(given: i64, merged: &mut Duration, negative: fn() -> Refusal) -> Result<(), Refusal> {
    if given != 0 {
        *merged = span::of(given).ok_or_else(negative)?;
    }
    Ok(())
}

/// A cluster that `swarm/init` asks for. Where it listens, the route reads itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCluster {
    pub spec: ClusterSpec,
    pub networking: ClusterNetworking,
    /// Of the first node.
    pub availability: Availability,
}

/// [`new_cluster_spec`](ketch_cluster::control::new_cluster_spec) judges the settings.
///
/// # Errors
/// As of [`spec_of`]; pools, sizes and ports that are none.
pub fn new_of(request: &api::InitRequest) -> Result<NewCluster, Refusal> {
    if root_of(&request.spec.ca_config)?.is_some() {
        return Err(texts::conversion::given_root());
    }
    let mut spec = spec_of(request.spec.clone())?;
    spec.autolock |= request.auto_lock_managers;
    Ok(NewCluster {
        spec,
        networking: networking_of(request)?,
        availability: first_availability(&request.availability)?,
    })
}

/// Of a node that starts or joins a cluster: active, when it does not say.
///
/// # Errors
/// There is no such one.
pub fn first_availability(text: &str) -> Result<Availability, Refusal> {
    if text.is_empty() { Ok(Availability::Active) } else { node::availability_of(text) }
}

fn networking_of(request: &api::InitRequest) -> Result<ClusterNetworking, Refusal> {
    let mut networking = ClusterNetworking::default();
    let pools = request.default_addr_pool.as_deref().unwrap_or_default();
    let pool = |text: &String| text.parse::<Subnet>().map_err(|_| texts::conversion::address_pool(text));
    if !pools.is_empty() {
        networking.address_pools = pools.iter().map(pool).collect::<Result<_, _>>()?;
    }
    if request.subnet_size != 0 {
        networking.subnet_size = subnet_size_of(request.subnet_size, &networking.address_pools)?;
    }
    let port = request.data_path_port;
    if port != 0 {
        let read = u16::try_from(port).ok().filter(|port| (1024..=49_151).contains(port));
        networking.data_path_port = read.ok_or_else(|| texts::conversion::data_path_port(port))?;
    }
    Ok(networking)
}

fn subnet_size_of(size: u32, pools: &[Subnet]) -> Result<u8, Refusal> {
    let read = u8::try_from(size).ok().filter(|size| *size <= MAX_SUBNET_SIZE);
    let read = read.ok_or_else(|| texts::conversion::subnet_size(size))?;
    match pools.iter().find(|pool| pool.prefix > read) {
        Some(pool) => Err(texts::conversion::subnet_size_of_pool(pool, size)),
        None => Ok(read),
    }
}

/// As `GET /swarm` shows it, with the join tokens. `authorities` are its roots, the present one first.
#[must_use]
pub fn shown(cluster: &Cluster, authorities: &[Authority]) -> api::Swarm {
    let tokens = &cluster.root_ca.join_tokens;
    api::Swarm {
        info: info(cluster, authorities),
        join_tokens: api::JoinTokens { worker: tokens.worker.clone(), manager: tokens.manager.clone() },
    }
}

/// Without its secrets.
#[must_use]
pub fn info(cluster: &Cluster, authorities: &[Authority]) -> api::ClusterInfo {
    let networking = &cluster.networking;
    api::ClusterInfo {
        id: cluster.id.to_string(),
        meta: moment::meta(&cluster.meta),
        spec: spec_shown(&cluster.spec),
        tls_info: tls_of_cluster(cluster, authorities),
        root_rotation_in_progress: cluster.root_ca.rotation.is_some(),
        default_addr_pool: Some(networking.address_pools.iter().map(ToString::to_string).collect()),
        subnet_size: networking.subnet_size.into(),
        data_path_port: networking.data_path_port.into(),
    }
}

fn spec_shown(spec: &ClusterSpec) -> api::ClusterSpec {
    api::ClusterSpec {
        name: spec.name.clone(),
        labels: Some(spec.labels.clone()),
        orchestration: api::OrchestrationConfig {
            task_history_retention_limit: Some(spec.task_history_limit),
        },
        raft: api::RaftConfig {
            snapshot_interval: spec.raft.snapshot_interval,
            keep_old_snapshots: Some(spec.raft.keep_old_snapshots),
            log_entries_for_slow_followers: spec.raft.log_entries_for_slow_followers,
            election_tick: spec.raft.election_tick.into(),
            heartbeat_tick: spec.raft.heartbeat_tick.into(),
        },
        dispatcher: api::DispatcherConfig { heartbeat_period: span::shown(spec.dispatcher.heartbeat_period) },
        ca_config: api::CaConfig {
            node_cert_expiry: span::shown(spec.ca.node_certificate_expiry),
            force_rotate: spec.ca.force_rotate,
            ..api::CaConfig::default()
        },
        task_defaults: api::TaskDefaults { log_driver: spec.log_driver.as_ref().map(given::driver_shown) },
        encryption_config: api::EncryptionConfig { auto_lock_managers: spec.autolock },
    }
}

/// What nodes are to have: certificates of the next root, while they are moved to it.
fn tls_of_cluster(cluster: &Cluster, authorities: &[Authority]) -> TlsInfo {
    tls(&cluster.root_ca.certificate, authorities.last())
}

/// What a node has, in the words of the cluster's roots: clients compare both.
pub(crate) fn tls_of_node(tls_of: &NodeTls, authorities: &[Authority]) -> TlsInfo {
    let trusted = authorities.iter().filter(|authority| tls_of.roots.contains(&authority.id));
    let trust_root: String = trusted.map(|authority| authority.certificate.as_str()).collect();
    tls(&trust_root, authorities.iter().find(|authority| authority.id == tls_of.issuer))
}

fn tls(trust_root: &str, issuer: Option<&Authority>) -> TlsInfo {
    TlsInfo {
        trust_root: trust_root.to_owned(),
        cert_issuer_subject: issuer.map(|it| bytes::shown(&it.subject)).unwrap_or_default(),
        cert_issuer_public_key: issuer.map(|it| bytes::shown(&it.public_key)).unwrap_or_default(),
    }
}

/// The answer of `GET /swarm/unlockkey`: empty when managers don't lock themselves.
#[must_use]
pub fn unlock_key(cluster: &Cluster) -> api::UnlockKey {
    let key = cluster.unlock_key.as_ref().and_then(unlock_key_of);
    api::UnlockKey { unlock_key: key.map(|key| key.to_string()).unwrap_or_default() }
}

fn unlock_key_of(SecretBytes(bytes): &SecretBytes) -> Option<UnlockKey> {
    <[u8; 32]>::try_from(bytes.as_slice()).ok().map(UnlockKey)
}

/// What a node knows of its own part in the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    pub node: Option<NodeId>,
    /// The address that others reach it at.
    pub address: String,
    pub state: api::LocalNodeState,
    /// Why it is in the state `error`, or why managers don't answer.
    pub error: String,
    /// By node, host and port.
    pub managers: Vec<(NodeId, String)>,
}

/// The swarm's part of `/info`. A manager that answers gives the view, with the cluster's roots; others have none.
#[must_use]
pub fn local_info(local: &Local, managed: Option<(&View<'_>, &[Authority])>) -> api::LocalInfo {
    let peer =
        |(id, address): &(NodeId, String)| api::Peer { node_id: id.to_string(), addr: address.clone() };
    let peers: Vec<_> = local.managers.iter().map(peer).collect();
    let mut shown = api::LocalInfo {
        node_id: local.node.map(|id| id.to_string()).unwrap_or_default(),
        node_addr: local.address.clone(),
        local_node_state: local.state,
        control_available: managed.is_some(),
        error: local.error.clone(),
        remote_managers: Some(peers).filter(|peers| !peers.is_empty()),
        ..api::LocalInfo::default()
    };
    if let Some((view, authorities)) = managed {
        shown.nodes = view.nodes().count() as u64;
        shown.managers = view.nodes().filter(|node| node.manager.is_some()).count() as u64;
        shown.cluster = view.cluster().map(|cluster| info(cluster, authorities));
    }
    shown
}
