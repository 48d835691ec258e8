//! The cluster's own settings and secrets: `swarm update`, the rotation of join tokens and of the unlock key.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::objects::cluster::SecretBytes;
use crate::objects::{Cluster, ClusterSpec, Version};
use crate::store::{ObjectKind, StoreAction};
use crate::time::Timestamp;
use crate::token::JoinToken;
use crate::view::View;

use super::error::ControlError;
use super::lookup::find_cluster;
use super::node::forget_ended;
use super::{texts, validate};

/// The least life of a node's certificate.
const MIN_CERTIFICATE_EXPIRY: Duration = Duration::from_secs(3600);

/// Below it heartbeats are all that managers do, and any pause of a node's is its end; above it no node is ever down.
const HEARTBEAT_PERIODS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// What the API's `swarm/update` asks for.
#[derive(Debug)]
pub struct ClusterUpdate {
    /// The one that the client has read.
    pub version: Version,
    pub spec: ClusterSpec,
    pub rotate: BTreeSet<Rotate>,
    pub secrets: NewSecrets,
}

/// A secret that is to be another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rotate {
    WorkerToken,
    ManagerToken,
    UnlockKey,
}

/// A root that a user brings, as text: its owner is ketch-ca.
#[derive(Clone, PartialEq, Eq)]
pub struct NewRoot {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

/// Without the key, so that no log line can have it.
impl fmt::Debug for NewRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRoot").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Random bits for the secrets that may be needed, drawn by the caller.
pub struct NewSecrets {
    pub worker_token: u128,
    pub manager_token: u128,
    pub unlock_key: [u8; 32],
}

/// Without the bits, so that no log line can have them.
impl fmt::Debug for NewSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewSecrets")
    }
}

/// # Errors
/// When the spec is not good, or the version is not the cluster's.
pub fn update_cluster(
    view: &View<'_>,
    update: ClusterUpdate,
    now: Timestamp,
) -> Result<Vec<StoreAction>, ControlError> {
    let old = find_cluster(view)?;
    let mut cluster = Cluster::clone(old);
    cluster.spec = filled_in(update.spec);
    is_good(&cluster.spec)?;
    if old.meta.version != update.version {
        return Err(texts::out_of_sequence());
    }
    cluster.meta.updated_at = now;
    forget_ended(&mut cluster, now);
    rotate(&mut cluster, &update.rotate, &update.secrets)?;
    validate::fits_object(ObjectKind::Cluster, &cluster)?;
    Ok(vec![StoreAction::Update(cluster.into())])
}

/// The settings of a cluster that is about to begin: `swarm/init`.
///
/// # Errors
/// When the spec is not good.
pub fn new_cluster_spec(spec: ClusterSpec) -> Result<ClusterSpec, ControlError> {
    let spec = filled_in(spec);
    is_good(&spec)?;
    Ok(spec)
}

/// Clients leave out, or send as zero, what they want to be Docker's default.
fn filled_in(mut spec: ClusterSpec) -> ClusterSpec {
    let default = ClusterSpec::default();
    if spec.name.is_empty() {
        spec.name = default.name;
    }
    if spec.dispatcher.heartbeat_period.is_zero() {
        spec.dispatcher = default.dispatcher;
    }
    if spec.ca.node_certificate_expiry.is_zero() {
        spec.ca.node_certificate_expiry = default.ca.node_certificate_expiry;
    }
    for (value, default) in [
        (&mut spec.raft.election_tick, default.raft.election_tick),
        (&mut spec.raft.heartbeat_tick, default.raft.heartbeat_tick),
    ] {
        *value = if *value == 0 { default } else { *value };
    }
    if spec.raft.snapshot_interval == 0 {
        spec.raft.snapshot_interval = default.raft.snapshot_interval;
    }
    spec
}

fn is_good(spec: &ClusterSpec) -> Result<(), ControlError> {
    if spec.name != ClusterSpec::default().name {
        return Err(texts::cluster_renamed());
    }
    if spec.ca.node_certificate_expiry < MIN_CERTIFICATE_EXPIRY {
        return Err(texts::certificate_expiry_too_short());
    }
    if !HEARTBEAT_PERIODS.contains(&spec.dispatcher.heartbeat_period) {
        return Err(texts::heartbeat_out_of_range());
    }
    if spec.raft.election_tick <= spec.raft.heartbeat_tick {
        return Err(texts::election_before_heartbeat());
    }
    Ok(())
}

fn rotate(
    cluster: &mut Cluster,
    wanted: &BTreeSet<Rotate>,
    secrets: &NewSecrets,
) -> Result<(), ControlError> {
    let tokens = &mut cluster.root_ca.join_tokens;
    if wanted.contains(&Rotate::WorkerToken) {
        tokens.worker = with_secret(&tokens.worker, secrets.worker_token)?;
    }
    if wanted.contains(&Rotate::ManagerToken) {
        tokens.manager = with_secret(&tokens.manager, secrets.manager_token)?;
    }
    if !cluster.spec.autolock {
        cluster.unlock_key = None;
    } else if cluster.unlock_key.is_none() || wanted.contains(&Rotate::UnlockKey) {
        cluster.unlock_key = Some(SecretBytes(secrets.unlock_key.to_vec()));
    }
    Ok(())
}

/// The token of the same cluster with another secret.
fn with_secret(token: &str, secret: u128) -> Result<String, ControlError> {
    let token = token.parse::<JoinToken>().map_err(|reason| texts::stored_token_unreadable(&reason))?;
    Ok(JoinToken { secret, ..token }.to_string())
}

#[cfg(test)]
mod tests;
